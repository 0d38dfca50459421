//! A statement that many shards answer at once: their leases, and the end of it.
//! Must not know how rows are passed on.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::client::{Client, Flow, Place};
use super::join::{Refusal, cancelled, lost_before, refusal, unless_gone};
use super::lost::RETRIES;
use super::measure::Note;
use crate::cluster::{ClusterError, Leased};
use crate::exec::{Outcome, Request, Scatter};
use crate::shard::{ShardId, ShardSet};
use crate::stats::{Moment, On};
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, TransactionStatus};

impl Client {
    pub(super) async fn fan_out(&mut self, plan: FanoutPlan) -> Flow {
        if self.flush().await == Flow::End {
            return Flow::End;
        }
        let began = self.turn.began.unwrap_or_else(Moment::now);
        for retries in (0..=RETRIES).rev() {
            let leases = match self.lease_all(plan.shards).await {
                Ok(leases) => leases,
                Err(report) => return self.fanout_failed(&report, &plan),
            };
            let on = |l: &Leased| On {
                server: l.server().slot,
                shard: l.server().shard,
                is_replica: l.is_replica(),
            };
            let on: SmallVec<[On; 8]> = leases.iter().map(on).collect();
            let start = Moment::now();
            let limit = self.config.timeouts.query.map(|limit| began.instant() + limit);
            let outcome = Scatter::new(leases, &plan.request).run(&mut self.stream, limit).await;
            self.cancel.clear().await;
            let rows = match &outcome {
                Ok(Outcome::Complete(rows)) => Some(*rows),
                Ok(Outcome::Lost(_)) if retries > 0 => continue,
                Ok(Outcome::Lost(report)) => return self.fanout_failed(report, &plan),
                Ok(Outcome::Failed(_)) | Err(_) => None,
            };
            self.count_fanout(plan.note, &on, start, rows);
            match outcome {
                Err(_) => return Flow::End,
                Ok(Outcome::Failed(fields)) => {
                    self.record_server_error(&fields, plan.note.slot());
                    self.turn.skip = !plan.ready;
                }
                Ok(Outcome::Complete(_) | Outcome::Lost(_)) => self.stats.count_transaction(),
            }
            break;
        }
        if plan.ready {
            self.x.local(|out| out.put_ready(TransactionStatus::Idle));
        }
        self.flush().await
    }

    /// A server of each shard, at the client's settings. If one cannot be had, the others go back untouched.
    async fn lease_all(&mut self, shards: ShardSet) -> Result<Vec<Leased>, ErrorReport> {
        let mut leases = Vec::new();
        // Always in the order of the shards: two fan-outs cannot wait for each other in a circle.
        for shard in shards.iter() {
            match self.lease_part(shard).await {
                Ok(leased) => leases.push(leased),
                Err(report) => {
                    self.cancel.clear().await;
                    leases.iter_mut().for_each(|l: &mut Leased| l.mark_clean(Moment::now()));
                    return Err(report);
                }
            }
        }
        Ok(leases)
    }

    pub(super) async fn lease_part(&mut self, shard: ShardId) -> Result<Leased, ErrorReport> {
        let asked = Instant::now();
        let mut retries = RETRIES;
        loop {
            let Place::Database { served, pools } = &self.place else {
                return Err(ClusterError::Retired.report());
            };
            let lease = served.cluster.lease(pools, shard, self.read_need(shard), asked);
            let leased = self.cancel.unless_cancelled(unless_gone(&self.stream, lease)).await;
            // One that is gone is told all the same: the next write to it ends the session.
            let mut leased = match leased.ok().flatten().ok_or_else(cancelled)? {
                Ok(leased) => leased,
                Err(ClusterError::Retired) if self.go_over()? => continue,
                Err(error) => return Err(error.report()),
            };
            self.cancel.add(&leased);
            let Err(error) = leased.apply(&self.vars.settings, false).await else {
                self.note_queued(asked.elapsed());
                return Ok(leased);
            };
            match refusal(leased, &error) {
                Refusal::Told(report) => return Err(report),
                Refusal::Lost if retries == 0 => return Err(lost_before(&error)),
                Refusal::Lost => retries -= 1,
            }
        }
    }

    fn fanout_failed(&mut self, report: &ErrorReport, plan: &FanoutPlan) -> Flow {
        self.turn.measured.subject = Some(plan.note);
        let statement = self.count_own(true);
        self.record_error(report, statement);
        self.x.local(|out| {
            out.put_report(report);
            if plan.ready {
                out.put_ready(TransactionStatus::Idle);
            }
        });
        self.turn.skip = !plan.ready;
        Flow::Continue
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
