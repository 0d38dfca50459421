//! `proxy.toml` to a checked [`Config`].
//! Must not know servers or clients at work: it opens no connection.

mod types;

pub use self::types::{
    ClientTls, Config, Control, Database, Limits, Log, Pool, PoolMode, ReadConsistency, Role, Server,
    ServerTls, ServerTlsMode, Shard, Timeouts, User, UserAuth,
};
