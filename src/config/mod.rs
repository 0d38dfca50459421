//! `proxy.toml` to a checked [`Config`].
//! Must not know servers or clients at work: it opens no connection.

mod check;
mod demo;
mod error;
mod load;
mod raw;
mod reload;
mod shape;
mod types;

pub use self::demo::{DEMO_PORT_BASE, DEMO_SERVERS, demo_text};
pub use self::error::{ConfigError, ConfigErrors};
pub use self::load::Loaded;
pub use self::reload::{Changes, changes};
pub use self::types::{
    AuthQuery, ClientTls, Config, Control, Database, Http, HttpToken, Limits, Log, Pool, PoolMode,
    ReadConsistency, Role, Server, ServerTls, ServerTlsMode, Shard, Timeouts, User, UserAuth,
};
