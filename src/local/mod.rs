//! PostgreSQL servers and clusters on this machine, for the demo and the tests.
//! Knows programs, data directories, ports and processes; must not know the proxy, its config or its tables.

mod account; // who runs servers
mod binaries; // where PostgreSQL's programs are
mod cluster; // shards of one primary and one replica, up and down
mod conf; // postgresql.conf and pg_hba.conf
mod data; // data directories: made, copied, kept as a template
mod error;
mod install; // with the package manager
mod machine; // programs + account
mod ports;
mod process; // postmaster.pid and the process it names
mod server; // one server: start, wait, stop

pub use self::account::Account;
pub use self::binaries::{Binaries, SUPPORTED};
pub use self::cluster::{Cluster, Options, ServerStatus};
pub use self::conf::{
    APP_DATABASE, APP_PASSWORD, APP_USER, Follow, MAX_REPLICAS, SUPERUSER, SUPERUSER_PASSWORD, Spec,
};
pub use self::data::Template;
pub use self::error::LocalError;
pub use self::machine::Machine;
pub use self::ports::check_free;
pub use self::server::{Server, Stop};
