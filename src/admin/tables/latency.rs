//! `pgherd.latency`: how long statements took, per server, role and class.
//! Must not know how times are recorded.

use super::tenths;
use crate::admin::Herd;
use crate::admin::record::{Source, record};
use crate::stats::LatencyRow;

record! {
    /// One server under one role, one class of statements, since the start.
    Latency is "latency", "times per shard, server, role and class of statement, in microseconds" {
        database: String,
        shard: String,
        server: String,
        role: &'static str,
        class: &'static str,
        count: u64,
        mean_us: f64,
        p50_us: u64,
        p90_us: u64,
        p95_us: u64,
        p99_us: u64,
        p999_us: u64,
        max_us: u64,
        /// Waiting for a server connection.
        queue_mean_us: f64,
        queue_p99_us: u64,
        /// On the server.
        server_mean_us: f64,
        server_p99_us: u64,
    }
}

impl Source for Latency {
    fn rows(herd: &Herd) -> Vec<Self> {
        herd.stats.latency().into_iter().map(Self::from).collect()
    }
}

impl From<LatencyRow> for Latency {
    fn from(row: LatencyRow) -> Self {
        Self {
            database: row.server.database,
            shard: row.server.shard_name,
            server: row.server.address,
            role: if row.is_replica { "replica" } else { "primary" },
            class: row.class.as_str(),
            count: row.count,
            mean_us: tenths(row.total.mean_us),
            p50_us: row.total.p50_us,
            p90_us: row.total.p90_us,
            p95_us: row.total.p95_us,
            p99_us: row.total.p99_us,
            p999_us: row.total.p999_us,
            max_us: row.total.max_us,
            queue_mean_us: tenths(row.queue.mean_us),
            queue_p99_us: row.queue.p99_us,
            server_mean_us: tenths(row.at_server.mean_us),
            server_p99_us: row.at_server.p99_us,
        }
    }
}
