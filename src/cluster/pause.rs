//! What an operator orders of a database's servers: pause, resume, reconnect, a replica out of the reads.
//! Must not know the words it is ordered with.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::topology::Cluster;
use crate::config::Role;
use crate::pool::Pool;

/// How often a pause looks whether all connections are closed.
const LOOK: Duration = Duration::from_millis(5);

/// What became of a server that was to be taken out of the reads, or put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Done.
    Yes,
    /// It was so already.
    Already,
    /// It is the primary: writes cannot go elsewhere.
    Primary,
    /// The database has no such server.
    NoSuchServer,
}

impl Cluster {
    /// Nothing is lent from now on; who asks for a server waits. Idle connections are closed at once, others as their
    /// transactions end. Says whether it was not paused before.
    pub fn pause(&self) -> bool {
        let was_open = self.gate.close();
        self.reconnect();
        was_open
    }

    /// Whether an operator has paused it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        !self.gate.is_open()
    }

    /// Waits until every connection that clients used is closed. Cancel safe.
    pub async fn quiet(&self) {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tick.tick().await;
            let pools = self.all_pools();
            if pools.iter().all(|pool| pool.counts().0 == 0) {
                return;
            }
            // One that was being opened when the pause began may lie idle now.
            pools.iter().filter(|pool| pool.counts().1 > 0).for_each(Pool::reconnect);
        }
    }

    /// Server connections that are lent now.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.all_pools().iter().map(Pool::counts).map(|(open, idle)| open.saturating_sub(idle)).sum()
    }

    /// Ends a pause; says whether there was one.
    pub fn resume(&self) -> bool {
        let was_closed = self.gate.open();
        // The servers may have been restarted meanwhile.
        self.shards.iter().flatten().for_each(|server| server.probe_now.notify_one());
        was_closed
    }

    /// Closes every connection: idle ones now, lent ones when they come back.
    pub fn reconnect(&self) {
        self.all_pools().iter().for_each(Pool::reconnect);
    }

    /// Takes the replica at that address out of the reads, or puts it back.
    pub fn drain_server(&self, address: &str, out: bool) -> Drained {
        let found = self.shards.iter().flatten().find(|s| s.config.address().eq_ignore_ascii_case(address));
        match found {
            None => Drained::NoSuchServer,
            Some(server) if out && server.role() == Some(Role::Primary) => Drained::Primary,
            Some(server) if server.drained.swap(out, Relaxed) == out => Drained::Already,
            Some(_) => Drained::Yes,
        }
    }

    fn all_pools(&self) -> Vec<Pool> {
        let pools = self.pools.lock();
        pools.values().flat_map(|p| p.pools.iter().flatten()).cloned().collect()
    }
}
