//! Which server of a shard answers: roles, health, freshness and load.
//! Must not know SQL or clients, only access and time of the last write.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::error::ClusterError;
use super::leased::{Leased, Need};
use super::server::ServerState;
use super::status::Health;
use super::topology::{Cluster, UserPools};
use crate::config::Role;
use crate::pool::{Lease, LeaseError};
use crate::shard::ShardId;

impl Cluster {
    /// Borrows a connection that is idle, without waiting: the common case.
    #[must_use]
    pub fn lease_now(&self, pools: &UserPools, shard: ShardId, need: Need) -> Option<Leased> {
        if !self.gate.is_open() {
            return None;
        }
        let (index, server, is_replica) = self.pick(shard, need, 0).ok()?;
        let pool = pools.pools.get(shard.index())?.get(index)?;
        let lease = pool.lease_now()?;
        if self.is_retired() {
            return None; // the pool is another's now, and the route may be out of date
        }
        if !is_replica && lease.is_standby() == Some(true) {
            return None;
        }
        Some(Leased::new(lease, server, is_replica))
    }

    /// Borrows a connection to a server of `shard` that fits the need; reads go on to the next server when one
    /// cannot be reached. Nothing has been sent when it fails. Cancel safe. While it waits for its turn, or for the end
    /// of a pause, it is woken about once a second, so that whoever wraps it may look whether it is still wanted.
    /// `since`: when it was first asked for.
    ///
    /// # Errors
    /// [`ClusterError`]: no primary, two primaries, a pause that lasts too long, or the pool's own error.
    pub async fn lease(
        &self,
        pools: &UserPools,
        shard: ShardId,
        need: Need,
        since: Instant,
    ) -> Result<Leased, ClusterError> {
        let mut tried = 0u128;
        let mut last = None;
        loop {
            // What is rare is boxed: a wait in the queue must not pay for its state.
            if !self.gate.is_open()
                && !Box::pin(self.gate.opened_within(self.config.pool.pause_timeout)).await
            {
                return Err(ClusterError::Paused { database: self.config.name.clone() });
            }
            let picked = match self.pick(shard, need, tried) {
                Ok(picked) => picked,
                Err(error) => return Err(last.unwrap_or(error)),
            };
            let (index, server, is_replica) = picked;
            let Some(pool) = pools.pools.get(shard.index()).and_then(|p| p.get(index)) else {
                return Err(ClusterError::NoSuchShard { shard: shard.index() });
            };
            let leased = pool.lease(since).await;
            if self.is_retired() {
                return Err(ClusterError::Retired);
            }
            match leased {
                Ok(lease) if !is_replica && lease.is_standby() == Some(true) => {
                    return Box::pin(self.promoted(lease, server)).await;
                }
                Ok(lease) => return Ok(Leased::new(lease, server, is_replica)),
                Err(LeaseError::Paused) => {} // closed just now: waits above
                Err(LeaseError::Retired) => return Err(ClusterError::Retired),
                Err(error) => {
                    if error.is_server_down() {
                        server.report_failure(&error.to_string());
                    }
                    let give_up = !need.replica || !error.may_do_elsewhere();
                    let error = ClusterError::Lease { shard: server.shard_name.clone(), error };
                    if give_up {
                        return Err(error);
                    }
                    last = Some(error);
                    tried |= 1 << index.min(127);
                }
            }
        }
    }

    /// A connection to the primary that last said it is in recovery: opened before a promotion, it says otherwise
    /// after its next statement; else the probe was wrong, and nothing is sent.
    async fn promoted(&self, mut lease: Lease, server: Arc<ServerState>) -> Result<Leased, ClusterError> {
        let asked = tokio::time::timeout(self.config.control.probe_timeout, lease.run("SELECT 1")).await;
        if matches!(asked, Ok(Ok(_))) && lease.is_standby() == Some(false) {
            return Ok(Leased::new(lease, server, false));
        }
        server.probe_now.notify_one();
        Err(ClusterError::NotPrimary { shard: server.shard_name.clone(), address: server.config.address() })
    }

    /// Which server: the least loaded healthy replica that is fresh enough, else the primary.
    fn pick(
        &self,
        shard: ShardId,
        need: Need,
        tried: u128,
    ) -> Result<(usize, Arc<ServerState>, bool), ClusterError> {
        let servers =
            self.shards.get(shard.index()).ok_or(ClusterError::NoSuchShard { shard: shard.index() })?;
        let untried = |i: usize| tried & (1 << i.min(127)) == 0;
        if need.replica || need.only_replica {
            let candidates =
                servers.iter().enumerate().filter(|(i, s)| untried(*i) && self.may_read(s, need.after));
            // Ties are dealt in turn, so that idle replicas share the load.
            let start = self.turn.fetch_add(1, Relaxed) as usize;
            let count = servers.len().max(1);
            let best = candidates.min_by_key(|(i, s)| (s.load(), (i + start) % count));
            if let Some((i, server)) = best {
                return Ok((i, server.clone(), true));
            }
            if need.only_replica || (!self.config.replica_fallback && need.after.is_none()) {
                return Err(ClusterError::NoReplica { shard: self.shard_name(shard) });
            }
        }
        let (i, server) = match self.primary(shard, servers) {
            Err(ClusterError::NoPrimary { shard, .. }) if need.replica && need.after.is_some() => {
                return Err(ClusterError::NotFresh { shard });
            }
            found => found?,
        };
        if untried(i) {
            Ok((i, server.clone(), false))
        } else {
            Err(ClusterError::NoPrimary { shard: self.shard_name(shard), detail: None })
        }
    }

    fn may_read(&self, server: &ServerState, after: Option<Instant>) -> bool {
        let known = server.known.lock();
        known.role == Some(Role::Replica)
            && known.health == Health::Up
            && !server.is_drained()
            && after.is_none_or(|write| known.caught_up_to.is_some_and(|at| at > write))
    }

    /// The one primary of a shard. Two of them stop writes until an operator decides.
    pub(super) fn primary<'a>(
        &self,
        shard: ShardId,
        servers: &'a [Arc<ServerState>],
    ) -> Result<(usize, &'a Arc<ServerState>), ClusterError> {
        let mut primaries = servers.iter().enumerate().filter(|(_, s)| {
            let known = s.known.lock();
            known.role == Some(Role::Primary) && known.health != Health::Down
        });
        match (primaries.next(), primaries.next()) {
            (Some(one), None) => Ok(one),
            (Some((_, a)), Some((_, b))) => Err(ClusterError::TwoPrimaries {
                shard: self.shard_name(shard),
                first: a.config.address(),
                second: b.config.address(),
            }),
            (None, _) => {
                let expected = servers.iter().find(|s| s.config.role == Role::Primary);
                let detail = expected.and_then(|s| {
                    let known = s.known.lock();
                    known.last_error.as_ref().map(|e| format!("{}: {e}", s.config.address()))
                });
                Err(ClusterError::NoPrimary { shard: self.shard_name(shard), detail })
            }
        }
    }
}
