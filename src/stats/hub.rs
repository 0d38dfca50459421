//! The one object that all recorders hang on.
//! Must not know who records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::errors::{ErrorEvent, ErrorRow, Errors};
use super::latency::{Class, Latency, LatencyRow, ServerLabel, ServerSlot, Timing};
use super::pool::{PoolLabel, PoolRow, PoolStats, Pools};
use super::session::{SessionInfo, SessionRow, SessionStats, Sessions, Traffic};

/// All that is remembered.
#[derive(Debug, Default)]
pub struct Stats {
    latency: Latency,
    errors: Errors,
    pools: Pools,
    pub(super) sessions: Sessions,
    logins: AtomicU64,
    login_failures: AtomicU64,
    cancel_requests: AtomicU64,
}

/// Counts of the whole proxy since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Sessions now.
    pub sessions: u64,
    /// What all sessions did.
    pub traffic: Traffic,
    /// Errors.
    pub errors: u64,
    /// Clients that proved who they are.
    pub logins: u64,
    /// Clients that did not.
    pub login_failures: u64,
    /// CancelRequests received.
    pub cancel_requests: u64,
    /// Statements whose plan was known.
    pub plan_hits: u64,
    /// Statements that had to be parsed.
    pub plan_misses: u64,
}

impl Stats {
    /// Empty.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Registers a server; the same label gives the same slot.
    pub fn server(&self, label: ServerLabel) -> ServerSlot {
        self.latency.server(label)
    }

    /// Records one statement on one server, under the role the server had. Takes no lock that another thread
    /// of the runtime takes, but for the swap that a reader makes.
    pub fn record(&self, slot: ServerSlot, is_replica: bool, class: Class, timing: Timing) {
        self.latency.record(slot, is_replica, class, timing);
    }

    /// Records an error.
    pub fn error(&self, event: ErrorEvent) {
        self.errors.push(event);
    }

    /// Registers a pool; the same label gives the same object as long as someone holds it.
    pub fn pool(&self, label: PoolLabel) -> Arc<PoolStats> {
        self.pools.get(label)
    }

    /// Registers a session until the guard is dropped.
    pub fn session(self: &Arc<Self>, info: SessionInfo) -> SessionStats {
        SessionStats::new(self.clone(), info)
    }

    /// Counts a client that proved who it is.
    pub fn count_login(&self) {
        self.logins.fetch_add(1, Relaxed);
    }

    /// Counts a client that did not.
    pub fn count_login_failure(&self) {
        self.login_failures.fetch_add(1, Relaxed);
    }

    /// Counts a CancelRequest.
    pub fn count_cancel_request(&self) {
        self.cancel_requests.fetch_add(1, Relaxed);
    }

    /// Counts a statement whose plan was in the cache, or was not.
    pub fn count_plan(&self, hit: bool) {
        self.latency.count_plan(hit);
    }

    /// Times per server, role and class since start.
    #[must_use]
    pub fn latency(&self) -> Vec<LatencyRow> {
        self.latency.rows()
    }

    /// The live sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRow> {
        self.sessions.rows()
    }

    /// The pools that exist.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolRow> {
        self.pools.rows()
    }

    /// The latest errors, newest first.
    #[must_use]
    pub fn errors(&self) -> Vec<ErrorRow> {
        self.errors.rows()
    }

    /// How often each SQLSTATE occurred since start.
    #[must_use]
    pub fn error_counts(&self) -> Vec<(String, u64)> {
        self.errors.by_code()
    }

    /// The whole proxy's counts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (sessions, traffic) = self.sessions.totals();
        let (plan_hits, plan_misses) = self.latency.plans();
        Totals {
            sessions,
            traffic,
            errors: self.errors.total(),
            logins: self.logins.load(Relaxed),
            login_failures: self.login_failures.load(Relaxed),
            cancel_requests: self.cancel_requests.load(Relaxed),
            plan_hits,
            plan_misses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_counts_its_own() {
        let stats = Stats::new();
        stats.count_login();
        stats.count_login_failure();
        stats.count_login_failure();
        (0..3).for_each(|_| stats.count_cancel_request());
        (0..4).for_each(|_| stats.count_plan(true));
        (0..5).for_each(|_| stats.count_plan(false));
        let totals = stats.totals();
        let counts = [totals.logins, totals.login_failures, totals.cancel_requests, totals.plan_hits];
        assert_eq!((counts, totals.plan_misses), ([1, 2, 3, 4], 5));
    }
}
