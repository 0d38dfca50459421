//! `pgherd.statements`: what statements of each fingerprint did.
//! Must not know how they are counted.

use crate::admin::Herd;
use crate::admin::record::{Source, record};
use crate::stats::StatementRow;

record! {
    /// One fingerprint in one database, since the start or the last reset.
    Statement is "statements", "what statements that differ in values only did; RESET STATEMENTS starts over" {
        database: String,
        fingerprint: String,
        statement: String,
        class: Option<&'static str>,
        /// How it was routed, all ways that occurred.
        route: String,
        /// The shards it ran on.
        shards: String,
        calls: u64,
        replica_calls: u64,
        errors: u64,
        rows: u64,
        total_us: u64,
        mean_us: f64,
        p50_us: u64,
        p99_us: u64,
        max_us: u64,
        /// Of total_us: waiting for a server connection, on the server, in the proxy.
        queue_us: u64,
        server_us: u64,
        proxy_us: u64,
    }
}

impl Source for Statement {
    fn rows(herd: &Herd) -> Vec<Self> {
        let row = |s: StatementRow| Self {
            database: s.database,
            fingerprint: s.fingerprint,
            statement: s.statement,
            class: s.class.map(crate::stats::Class::as_str),
            route: s.routes.join(", "),
            shards: s.shard_names.join(", "),
            calls: s.calls,
            replica_calls: s.replica_calls,
            errors: s.errors,
            rows: s.rows,
            total_us: s.total_us,
            mean_us: super::tenths(s.mean_us),
            p50_us: s.p50_us,
            p99_us: s.p99_us,
            max_us: s.max_us,
            queue_us: s.queue_us,
            server_us: s.server_us,
            proxy_us: s.proxy_us,
        };
        herd.statements().into_iter().map(row).collect()
    }
}
