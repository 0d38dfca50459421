//! Fixtures on real PostgreSQL, shared by all integration tests.
//! Must not know what is tested.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its own part of the fixtures"
)]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a fixture that fails fails its test"
)]

mod engine;
mod herd;
mod http;
mod pg;
mod port;
mod process;
mod proxy;
mod raw;
mod sql;
mod wait;
mod wire;

pub use self::herd::{Herd, Shard};
pub use self::http::{Answer, Http};
pub use self::pg::Pg;
pub use self::port::Port;
pub use self::process::Process;
pub use self::proxy::{Changes, Front, PATIENCE, configuration, failure, rows};
pub use self::raw::{Message, Raw};
pub use self::sql::create_demo_tables;
pub use self::wait::eventually;
pub use self::wire::{Pair, Wire};
