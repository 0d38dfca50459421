//! A statement that many shards answer at once: their leases, and the end of it.
//! Must not know how rows are passed on.

use std::io;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::client::{Client, Flow, Place};
use super::join::{cancelled, unless_gone};
use super::measure::Note;
use crate::cluster::{ClusterError, Leased};
use crate::exec::{Moment, Outcome, Request, Scatter};
use crate::shard::{ShardId, ShardSet};
use crate::stats::On;
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
                    self.turn.measured.subject = Some(plan.note);
                    self.fanout_failed(&report, plan.ready);
                    return Flow::Continue;
                }
            }
        }
        let on =
            |l: &Leased| On { server: l.server().slot, shard: l.server().shard, is_replica: l.is_replica() };
        let on: SmallVec<[On; 8]> = leases.iter().map(on).collect();
        let (began, start) = (self.turn.began.unwrap_or_else(Instant::now), Moment::now());
        let outcome = self.run_scatter(Scatter::new(leases, plan.request), began).await;
        self.cancel.clear().await;
        let rows = match &outcome {
            Ok(Outcome::Complete(rows)) => Some(*rows),
            Ok(Outcome::Failed(_)) | Err(_) => None,
        };
        self.count_fanout(plan.note, &on, start, rows);
        match outcome {
            Err(_) => return Flow::End,
            Ok(Outcome::Complete(_)) => self.stats.count_transaction(),
            Ok(Outcome::Failed(fields)) => {
                self.record_server_error(&fields, plan.note.slot());
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
        self.note_queued(asked.elapsed());
        self.cancel.add(&leased);
        leased
            .apply(&self.vars.settings)
            .await
            .map_err(|e| ErrorReport::error(SqlState::CONNECTION_FAILURE, e.to_string()))?;
        Ok(leased)
    }

    pub(super) fn fanout_failed(&mut self, report: &ErrorReport, ready: bool) {
        let statement = self.count_own(true);
        self.record_error(report, statement);
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
    pub(super) note: Note,
    pub(super) request: Request,
    /// ReadyForQuery follows at once (simple protocol).
    pub(super) ready: bool,
}
