//! A statement that many shards answer at once: their leases, and the end of it.
//! Must not know how rows are passed on.

use std::io;

use tokio::time::Instant;

use super::client::{Client, Flow, Place};
use super::join::{cancelled, unless_gone};
use crate::cluster::{ClusterError, Leased};
use crate::exec::{Outcome, Request, Scatter};
use crate::shard::{ShardId, ShardSet};
use crate::stats::{Class, Timing};
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, SqlState, TransactionStatus};

impl Client {
    pub(super) async fn fan_out(&mut self, plan: FanoutPlan) -> Flow {
        if self.flush().await == Flow::End {
            return Flow::End;
        }
        let mut leases = Vec::new();
        // Always in the order of the shards: two fan-outs cannot wait for each other in a circle.
        for shard in plan.shards.iter() {
            match self.lease_part(shard).await {
                Ok(leased) => leases.push(leased),
                Err(report) => {
                    self.cancel.clear().await;
                    leases.iter_mut().for_each(|l: &mut Leased| l.mark_clean(Instant::now()));
                    drop(leases);
                    self.fanout_failed(&report, plan.ready);
                    return Flow::Continue;
                }
            }
        }
        let slots: Vec<_> = leases.iter().map(|l| (l.server().slot, l.is_replica())).collect();
        let began = self.turn.began.take().unwrap_or_else(Instant::now);
        let start = Instant::now();
        let outcome = self.run_scatter(Scatter::new(leases, plan.request), began).await;
        self.cancel.clear().await;
        let now = Instant::now();
        self.turn.began = Some(now);
        for (slot, replica) in slots {
            let timing = Timing {
                queue_us: std::mem::take(&mut self.turn.queue_us),
                server_us: now.duration_since(start).as_micros() as u64,
                total_us: now.duration_since(began).as_micros() as u64,
            };
            self.proxy.stats().record(slot, replica, Class::Select, timing);
        }
        match outcome {
            Err(_) => return Flow::End,
            Ok(Outcome::Complete(_)) => self.stats.count_transaction(),
            Ok(Outcome::Failed(fields)) => {
                self.record_server_error(&fields);
                self.turn.skip = !plan.ready;
            }
        }
        if plan.ready {
            self.x.local(|out| out.put_ready(TransactionStatus::Idle));
        }
        self.flush().await
    }

    /// Within `timeouts.query_ms`: after that the shards are asked to cancel, and answer with their own 57014.
    async fn run_scatter(&mut self, scatter: Scatter, began: Instant) -> io::Result<Outcome> {
        let Some(limit) = self.config.timeouts.query else { return scatter.run(&mut self.stream).await };
        let mut run = std::pin::pin!(scatter.run(&mut self.stream));
        match tokio::time::timeout_at(began + limit, &mut run).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.cancel.cancel().await;
                run.await
            }
        }
    }

    pub(super) async fn lease_part(&mut self, shard: ShardId) -> Result<Leased, ErrorReport> {
        let asked = Instant::now();
        let mut leased = loop {
            let Place::Database { served, pools } = &self.place else {
                return Err(ClusterError::Retired.report());
            };
            let lease = served.cluster.lease(pools, shard, self.read_need(shard));
            let leased = self.cancel.unless_cancelled(unless_gone(&self.stream, lease)).await;
            // One that is gone is told all the same: the next write to it ends the session.
            match leased.ok().flatten().ok_or_else(cancelled)? {
                Ok(leased) => break leased,
                Err(ClusterError::Retired) if self.go_over()? => {}
                Err(error) => return Err(error.report()),
            }
        };
        self.turn.queue_us += asked.elapsed().as_micros() as u64;
        self.cancel.add(&leased);
        leased
            .apply(&self.vars.settings)
            .await
            .map_err(|e| ErrorReport::error(SqlState::CONNECTION_FAILURE, e.to_string()))?;
        Ok(leased)
    }

    pub(super) fn fanout_failed(&mut self, report: &ErrorReport, ready: bool) {
        self.record_error(report);
        self.x.local(|out| {
            out.put_report(report);
            if ready {
                out.put_ready(TransactionStatus::Idle);
            }
        });
        self.turn.skip = !ready;
    }
}

/// What many shards are asked.
pub(super) struct FanoutPlan {
    pub(super) shards: ShardSet,
    pub(super) request: Request,
    /// ReadyForQuery follows at once (simple protocol).
    pub(super) ready: bool,
}
