//! All that is known of a database's servers, as plain rows.
//! Must not know how it was found out.

use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Role;
use crate::shard::{Map, ShardId};

/// Whether a server can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// Not asked yet.
    Unknown,
    /// Answers.
    Up,
    /// Answers, but is further behind than `max_replica_lag`.
    Lagging,
    /// Does not answer.
    Down,
}

/// One server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// Database as the config names it.
    pub database: String,
    /// Shard's name.
    pub shard: String,
    /// Shard's id.
    pub shard_id: ShardId,
    /// `host:port`.
    pub address: String,
    /// What the config expects.
    pub expected_role: Role,
    /// What the server says, `None` until asked.
    pub role: Option<Role>,
    /// Whether it can be used.
    pub health: Health,
    /// Replicas: WAL not replayed yet, bytes.
    pub lag_bytes: Option<u64>,
    /// Replicas: since when it has not been caught up, µs.
    pub lag_us: Option<u64>,
    /// Since when its health is so.
    pub since: SystemTime,
    /// What failed last.
    pub last_error: Option<String>,
    /// An operator has taken it out of the reads.
    pub drained: bool,
    /// Leases out.
    pub outstanding: u32,
    /// Its share of reads.
    pub weight: u32,
    /// e.g. `15.18`.
    pub server_version: Option<String>,
}

/// One database.
#[derive(Debug, Clone)]
pub struct DatabaseStatus {
    /// Its name.
    pub name: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// The map in force.
    pub map: Arc<Map>,
    /// Grows with every change of the catalogs; 0 before they were read.
    pub catalog_generation: u64,
    /// Where shards differ.
    pub schema_drift: Vec<Drift>,
}

/// An object in which a shard differs from the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// `schema.table`.
    pub object: String,
    /// The shard.
    pub shard: String,
    /// What differs.
    pub problem: String,
}
