//! Which servers form which shard, their role and health, and the pools to them.
//! Must not know SQL, clients or transactions.

mod aside; // long-lived connections beside the pools
mod choose; // which server answers
mod code; // functions, and what runs them unasked
mod error; // why no server can be had
mod expressions; // what users' expressions do
mod flux; // while catalogs change
mod health; // probes
mod leased; // a connection on loan
mod lookup; // users that only the servers know
mod pause; // what an operator orders of the servers
mod schema; // catalogs of all shards, read and compared
mod server; // one server and what is known of it
mod sizes; // what shards and partitions hold
mod status; // all of it as plain rows
mod succession; // one configuration's servers after another's
mod topology; // which servers form which shard

pub use self::aside::AsideError;
pub use self::error::ClusterError;
pub use self::flux::Flux;
pub use self::leased::{Leased, Need};
pub use self::lookup::LookupError;
pub use self::pause::Drained;
pub use self::server::ServerState;
pub use self::sizes::{PartitionSize, ShardSize};
pub use self::status::{DatabaseStatus, Drift, Health, ServerStatus};
pub use self::topology::{Cluster, Schema, UserPools};
