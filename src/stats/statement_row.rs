//! What all calls of one fingerprint did, as it is shown.
//! Must not know how it is counted.

use serde::Serialize;

use super::latency::Class;
use crate::shard::ShardSet;

/// What all calls of one fingerprint did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatementRow {
    /// Database as the client named it; empty for the common row of fingerprints that made room.
    pub database: String,
    /// `hashtextextended(statement, 0)` in hexadecimal; empty for the common row.
    pub fingerprint: String,
    /// Its text without any value, at most a kilobyte of it.
    pub statement: String,
    /// What it counts as; `None` for the common row.
    #[serde(serialize_with = "class_name")]
    pub class: Option<Class>,
    /// How it was routed, all ways that occurred.
    pub routes: Vec<&'static str>,
    /// The shards it ran on. A shard's number in the database's list.
    #[serde(skip)]
    pub shards: ShardSet,
    /// Their names.
    #[serde(rename = "shards")]
    pub shard_names: Vec<String>,
    /// Calls, failed ones included.
    pub calls: u64,
    /// Of these, those that a replica answered.
    pub replica_calls: u64,
    /// Of these, those that failed.
    pub errors: u64,
    /// Rows returned or affected.
    pub rows: u64,
    /// All calls together, µs.
    pub total_us: u64,
    /// The mean of a call, µs.
    pub mean_us: f64,
    /// Half of all were at most this long, µs; within 6 %.
    pub p50_us: u64,
    /// 99 %, µs; within 6 %.
    pub p99_us: u64,
    /// The longest, µs.
    pub max_us: u64,
    /// All waits for a server connection, µs.
    pub queue_us: u64,
    /// All time on servers, µs.
    pub server_us: u64,
    /// What is left: the proxy's own, µs.
    pub proxy_us: u64,
}

fn class_name<S: serde::Serializer>(class: &Option<Class>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_some(&class.map(Class::as_str))
}
