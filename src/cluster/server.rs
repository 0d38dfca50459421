//! One server of a shard: what is known of it, and the load it carries.
//! Must not know how it is probed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::status::Health;
use crate::config::{self, Role};
use crate::shard::ShardId;
use crate::stats::ServerSlot;
use crate::wire::{ErrorFields, SqlState};

/// A server as the cluster sees it.
#[derive(Debug)]
pub struct ServerState {
    /// Its shard.
    pub shard: ShardId,
    /// Its shard's name.
    pub shard_name: String,
    /// As configured.
    pub config: config::Server,
    /// Where its times are recorded.
    pub slot: ServerSlot,
    /// Room for connections of all users.
    pub(super) places: Arc<Semaphore>,
    /// Wakes its probe at once.
    pub(super) probe_now: Notify,
    /// An operator takes it out of the reads.
    pub(super) drained: AtomicBool,
    pub(super) outstanding: AtomicU32,
    pub(super) known: Mutex<Known>,
}

/// What the probes said last.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) role: Option<Role>,
    pub(super) health: Health,
    pub(super) since: SystemTime,
    pub(super) last_error: Option<String>,
    pub(super) server_version: Option<u32>,
    /// Replicas: what has been replayed. Primaries: what has been written.
    pub(super) lsn: u64,
    /// Replicas: all that the primary had written by then has been replayed here.
    pub(super) caught_up_to: Option<Instant>,
    pub(super) lag_bytes: Option<u64>,
    /// Failed probes in a row.
    pub(super) failures: u32,
    /// Primaries: (when asked, what was written by then), oldest first.
    pub(super) marks: VecDeque<(Instant, u64)>,
}

impl Known {
    fn new() -> Self {
        Self {
            role: None,
            health: Health::Unknown,
            since: SystemTime::now(),
            last_error: None,
            server_version: None,
            lsn: 0,
            caught_up_to: None,
            lag_bytes: None,
            failures: 0,
            marks: VecDeque::new(),
        }
    }

    pub(super) fn set_health(&mut self, health: Health) -> bool {
        let changed = self.health != health;
        if changed {
            self.health = health;
            self.since = SystemTime::now();
        }
        changed
    }

    /// How far behind the primary, µs; `None` before the first comparison.
    pub(super) fn lag_us(&self) -> Option<u64> {
        match (self.lag_bytes, self.caught_up_to) {
            (Some(0), _) => Some(0),
            (_, Some(at)) => Some(at.elapsed().as_micros() as u64),
            _ => None,
        }
    }
}

impl ServerState {
    pub(super) fn new(
        shard: ShardId,
        shard_name: String,
        config: config::Server,
        slot: ServerSlot,
        max_connections: usize,
    ) -> Self {
        Self {
            shard,
            shard_name,
            config,
            slot,
            places: Arc::new(Semaphore::new(max_connections)),
            probe_now: Notify::new(),
            drained: AtomicBool::new(false),
            outstanding: AtomicU32::new(0),
            known: Mutex::new(Known::new()),
        }
    }

    /// Takes over what is known of a server from its state under an earlier configuration.
    pub(super) fn inherit(&mut self, old: &Self) {
        self.places = old.places.clone();
        self.drained = AtomicBool::new(old.drained.load(Relaxed));
        self.known = Mutex::new(old.known.lock().clone());
    }

    /// Whether an operator has taken it out of the reads.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.drained.load(Relaxed)
    }

    /// Its role by its own word, `None` until it was asked.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.known.lock().role
    }

    /// Whether it can be used now.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(self.known.lock().health, Health::Up | Health::Lagging)
    }

    /// Its version number, e.g. 150018.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        self.known.lock().server_version
    }

    /// One connection to it was ended, which says nothing of the others: a probe shall look, and nobody is kept away.
    pub fn report_doubt(&self, error: &str) {
        tracing::info!(server = %self.config.address(), shard = %self.shard_name, error, "a server connection was ended");
        self.probe_now.notify_one();
    }

    /// A connection to it failed: out until a probe succeeds, which is asked for at once.
    pub fn report_failure(&self, error: &str) {
        let mut known = self.known.lock();
        known.last_error = Some(error.to_owned());
        known.failures = known.failures.saturating_add(1);
        let changed = known.set_health(Health::Down);
        drop(known);
        if changed {
            tracing::warn!(server = %self.config.address(), shard = %self.shard_name, error, "server is down");
        }
        self.probe_now.notify_one();
    }

    /// What the loss of one connection tells of its server. One that says why it ends a connection is well, unless it
    /// says that it crashed; "terminated by administrator command" may mean that connection or all of them: reads go
    /// elsewhere until a probe succeeds, while for a primary the next connection will tell.
    pub fn report_loss(&self, said: Option<&ErrorFields>, why: &str) {
        let gone = match said.map(ErrorFields::sqlstate) {
            Some(SqlState::ADMIN_SHUTDOWN) => self.role() == Some(Role::Replica),
            Some(code) => code.is_server_gone(),
            None => true,
        };
        if gone { self.report_failure(why) } else { self.report_doubt(why) }
    }

    /// It said what no server may say then. Reads go elsewhere until a probe succeeds; the next connection to a primary
    /// may well be a good one.
    pub fn report_broken(&self, how: &str) {
        tracing::warn!(server = %self.config.address(), shard = %self.shard_name, how, "a server broke the protocol");
        if self.role() == Some(Role::Replica) {
            self.report_failure(how);
        } else {
            self.probe_now.notify_one();
        }
    }

    /// Outstanding statements per weight, for choosing the least loaded.
    pub(super) fn load(&self) -> u64 {
        // +1: among idle replicas the heavier one comes first.
        (u64::from(self.outstanding.load(Relaxed)) + 1) * 1000 / u64::from(self.config.weight.max(1))
    }
}
