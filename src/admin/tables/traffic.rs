//! `pgherd.pools`, `clients`, `errors`, `error_counts` and `stats`: what goes on.
//! Must not know sessions or connections, only what they recorded.

use std::time::SystemTime;

use crate::admin::Herd;
use crate::admin::record::{Source, record};

record! {
    /// One pool of server connections.
    Pool is "pools", "pools of server connections, their use and their waits" {
        database: String,
        shard: String,
        server: String,
        user_name: String,
        size: u32,
        open: u32,
        in_use: u32,
        waiting: u32,
        /// Kept by clients for their session's state; pool.max_pinned is the limit.
        pinned: u32,
        leases: u64,
        /// Of all who waited, together.
        wait_us: u64,
        timeouts: u64,
        opened: u64,
        broken: u64,
    }
}

record! {
    /// One client.
    Client is "clients", "connected clients and what they do" {
        id: u32,
        user_name: String,
        database: String,
        application_name: String,
        address: String,
        tls: bool,
        state: &'static str,
        /// All causes for which it keeps a server connection.
        pin: Option<String>,
        pinned_at: Option<SystemTime>,
        connected_at: SystemTime,
        statements: u64,
        transactions: u64,
        received_bytes: u64,
        sent_bytes: u64,
    }
}

record! {
    /// One error.
    Error is "errors", "the latest 1000 errors, newest first" {
        occurred_at: SystemTime,
        sqlstate: String,
        blame: &'static str,
        message: String,
        database: String,
        user_name: String,
        shard: Option<String>,
        server: Option<String>,
        fingerprint: Option<String>,
    }
}

record! {
    /// One SQLSTATE.
    ErrorCount is "error_counts", "how often each SQLSTATE occurred since the start" {
        sqlstate: String,
        count: u64,
    }
}

record! {
    /// One counter.
    Stat is "stats", "counters of the whole proxy since the start" {
        name: &'static str,
        value: u64,
    }
}

impl Source for Pool {
    fn rows(herd: &Herd) -> Vec<Self> {
        let row = |p: crate::stats::PoolRow| Self {
            database: p.label.database,
            shard: p.label.shard,
            server: p.label.address,
            user_name: p.label.user,
            size: p.label.size,
            open: p.open,
            in_use: p.in_use,
            waiting: p.waiting,
            pinned: p.pinned,
            leases: p.leases,
            wait_us: p.wait_us,
            timeouts: p.timeouts,
            opened: p.opened,
            broken: p.broken,
        };
        herd.stats.pools().into_iter().map(row).collect()
    }
}

impl Source for Client {
    fn rows(herd: &Herd) -> Vec<Self> {
        let row = |s: crate::stats::SessionRow| Self {
            id: s.info.id,
            user_name: s.info.user,
            database: s.info.database,
            application_name: s.info.application,
            address: s.info.address,
            tls: s.info.tls,
            state: s.state.as_str(),
            pin: s.pin,
            pinned_at: s.pinned,
            connected_at: s.connected,
            statements: s.traffic.statements,
            transactions: s.traffic.transactions,
            received_bytes: s.traffic.received_bytes,
            sent_bytes: s.traffic.sent_bytes,
        };
        herd.stats.sessions().into_iter().map(row).collect()
    }
}

impl Source for Error {
    fn rows(herd: &Herd) -> Vec<Self> {
        let row = |e: crate::stats::ErrorRow| Self {
            occurred_at: e.at,
            sqlstate: e.event.sqlstate,
            blame: e.event.blame,
            message: e.event.message,
            database: e.event.database,
            user_name: e.event.user,
            shard: e.event.shard,
            server: e.event.server,
            fingerprint: e.statement.map(|(fingerprint, _)| fingerprint),
        };
        herd.stats.errors().into_iter().map(row).collect()
    }
}

impl Source for ErrorCount {
    fn rows(herd: &Herd) -> Vec<Self> {
        let counts = herd.stats.error_counts().into_iter();
        counts.map(|(sqlstate, count)| Self { sqlstate, count }).collect()
    }
}

impl Source for Stat {
    fn rows(herd: &Herd) -> Vec<Self> {
        let totals = herd.stats.totals();
        [
            ("uptime_us", herd.uptime_us()),
            ("clients", totals.sessions),
            ("statements", totals.traffic.statements),
            ("transactions", totals.traffic.transactions),
            ("received_bytes", totals.traffic.received_bytes),
            ("sent_bytes", totals.traffic.sent_bytes),
            ("errors", totals.errors),
            ("logins", totals.logins),
            ("login_failures", totals.login_failures),
            ("cancel_requests", totals.cancel_requests),
            ("plan_cache_hits", totals.plan_hits),
            ("plan_cache_misses", totals.plan_misses),
        ]
        .map(|(name, value)| Self { name, value })
        .into()
    }
}
