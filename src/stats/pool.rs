//! Pools: their gauges and counters, under the label each was registered with.
//! Must not know connections.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Which pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolLabel {
    /// Database as the config names it.
    pub database: String,
    /// Shard's name.
    pub shard: String,
    /// `host:port`.
    pub address: String,
    /// User on the server.
    pub user: String,
    /// Upper limit of connections.
    pub size: u32,
}

/// Gauges and counters of one pool; verbs for the pool to call.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// Clients waiting now.
    pub waiting: AtomicU32,
    /// Connections lent now.
    pub in_use: AtomicU32,
    /// Connections that clients keep for themselves now.
    pub pinned: AtomicU32,
    /// Connections open now.
    pub open: AtomicU32,
    /// Connections opened so far.
    pub opened: AtomicU64,
    /// Connections closed so far because they were dirty or broken.
    pub broken: AtomicU64,
    /// Times a connection was lent.
    pub leases: AtomicU64,
    /// Time all waiters waited, µs.
    pub wait_us: AtomicU64,
    /// Waits that ended in a timeout.
    pub timeouts: AtomicU64,
}

/// A pool as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRow {
    /// Which.
    pub label: PoolLabel,
    /// Clients waiting now.
    pub waiting: u32,
    /// Connections lent now.
    pub in_use: u32,
    /// Connections that clients keep for themselves now.
    pub pinned: u32,
    /// Connections open now.
    pub open: u32,
    /// Connections opened so far.
    pub opened: u64,
    /// Connections closed so far because they were dirty or broken.
    pub broken: u64,
    /// Times a connection was lent.
    pub leases: u64,
    /// Time all waiters waited, µs.
    pub wait_us: u64,
    /// Waits that ended in a timeout.
    pub timeouts: u64,
}

/// The pools that exist: one that nobody holds any more is forgotten, so that databases behind `*` cannot pile up.
#[derive(Debug, Default)]
pub(super) struct Pools {
    known: Mutex<Vec<(PoolLabel, Weak<PoolStats>)>>,
}

impl Pools {
    pub(super) fn get(&self, label: PoolLabel) -> Arc<PoolStats> {
        let mut known = self.known.lock();
        known.retain(|(_, stats)| stats.strong_count() > 0);
        let found = known.iter().find(|(l, _)| *l == label).and_then(|(_, stats)| stats.upgrade());
        found.unwrap_or_else(|| {
            let stats = Arc::default();
            known.push((label, Arc::downgrade(&stats)));
            stats
        })
    }

    pub(super) fn rows(&self) -> Vec<PoolRow> {
        let known = self.known.lock();
        known.iter().filter_map(|(label, stats)| Some(row(label, &*stats.upgrade()?))).collect()
    }
}

fn row(label: &PoolLabel, stats: &PoolStats) -> PoolRow {
    PoolRow {
        label: label.clone(),
        waiting: stats.waiting.load(Relaxed),
        in_use: stats.in_use.load(Relaxed),
        pinned: stats.pinned.load(Relaxed),
        open: stats.open.load(Relaxed),
        opened: stats.opened.load(Relaxed),
        broken: stats.broken.load(Relaxed),
        leases: stats.leases.load(Relaxed),
        wait_us: stats.wait_us.load(Relaxed),
        timeouts: stats.timeouts.load(Relaxed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(user: &str) -> PoolLabel {
        PoolLabel {
            database: "app".into(),
            shard: "shard1".into(),
            address: "db:5432".into(),
            user: user.into(),
            size: 10,
        }
    }

    #[test]
    fn one_label_is_one_object_and_a_dropped_pool_is_forgotten() {
        let pools = Pools::default();
        let (a, again, b) = (pools.get(label("a")), pools.get(label("a")), pools.get(label("b")));
        assert!(Arc::ptr_eq(&a, &again) && !Arc::ptr_eq(&a, &b));
        a.waiting.fetch_add(2, Relaxed);
        let rows = pools.rows();
        assert_eq!((rows.len(), rows[0].waiting), (2, 2));
        drop((a, again));
        assert_eq!(pools.rows().iter().map(|r| r.label.user.as_str()).collect::<Vec<_>>(), ["b"]);
    }
}
