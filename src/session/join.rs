//! A server joins a turn: the lease, the client's settings on it, and the transaction it enters.
//! Must not know messages.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::cancels::GivenUp;
use super::client::{Client, Flow, Place};
use super::lost::RETRIES;
use super::txn::Txn;
use crate::cluster::{ClusterError, Leased, Need};
use crate::config::{PoolMode, ReadConsistency};
use crate::pool::{ServerError, Settings, Stream};
use crate::shard::ShardId;
use crate::stats::SessionState;
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, FrontendWriter, SqlState};

/// The reported parameter that may differ between the servers of a herd without being anybody's setting.
const SERVER_VERSION: &str = "server_version";

/// What came of taking a server without waiting.
pub(super) enum Joined {
    /// It is at work.
    Now,
    /// One is there, but has the settings of another session.
    With(Box<Leased>),
    /// None is idle.
    Waits,
}

impl Client {
    /// Takes a server of `shard` into this turn if one can be had without waiting: the common case.
    pub(super) fn join_now(&mut self, shard: ShardId, need: Need) -> Joined {
        let Place::Database { served, pools } = &self.place else { return Joined::Waits };
        let leased = match self.kept.iter().position(|k| k.leased.server().shard == shard) {
            Some(at) => {
                let kept = self.kept.swap_remove(at);
                self.turn.new_pins = kept.pins;
                kept.leased
            }
            None => match served.cluster.lease_now(pools, shard, need) {
                Some(leased) => leased,
                None => return Joined::Waits,
            },
        };
        if !leased.is_applied(self.settings_to_join(), self.wants_undrawn()) {
            return Joined::With(Box::new(leased));
        }
        self.enter(leased);
        Joined::Now
    }

    /// What a server must have before it joins: what a transaction has set, it is told inside it.
    pub(super) fn settings_to_join(&self) -> &Arc<Settings> {
        match &self.txn {
            Txn::Held(held) => &held.saved.settings,
            Txn::None | Txn::Open(_) => &self.vars.settings,
        }
    }

    /// Takes a server of `shard` into this turn; waits for it if need be.
    pub(super) async fn join(&mut self, shard: ShardId, need: Need) -> Flow {
        match self.join_now(shard, need) {
            Joined::Now => Flow::Continue,
            Joined::With(leased) => self.join_with(*leased).await,
            Joined::Waits => self.wait_to_join(shard, need).await,
        }
    }

    /// Waits for a server of `shard`, of which none was idle just now, and takes it into this turn.
    pub(super) async fn wait_to_join(&mut self, shard: ShardId, need: Need) -> Flow {
        let Place::Database { served, pools } = &self.place else { return Flow::End };
        let asked = Instant::now();
        self.stats.set_state(SessionState::Waiting);
        let leased = {
            // Pinned here: handed on by value it would take its room once for each hand.
            let lease = std::pin::pin!(served.cluster.lease(pools, shard, need, asked));
            self.cancel.unless_cancelled(while_there(&self.stream, asked, lease)).await
        };
        self.stats.set_state(SessionState::Active);
        self.note_queued(asked.elapsed());
        match leased {
            Ok(Some(Ok(leased))) => self.join_with(leased).await,
            Ok(None) => Flow::End,
            Err(GivenUp) => {
                self.refuse(&cancelled());
                Flow::Continue
            }
            Ok(Some(Err(ClusterError::Retired))) => self.replan(),
            Ok(Some(Err(error))) => {
                self.refuse(&error.report());
                Flow::Continue
            }
        }
    }

    /// Brings a server to the client's settings and takes it into this turn.
    pub(super) async fn join_with(&mut self, mut leased: Leased) -> Flow {
        let undrawn = self.wants_undrawn();
        let settings = self.settings_to_join().clone();
        if !leased.is_applied(&settings, undrawn) {
            leased.mark_dirty();
            let apply = leased.apply(&settings, undrawn);
            // A request means the statement that waits for this, not this: the server would have forgotten it by then.
            let applied = if self.turn.new_pins.is_empty() {
                Box::pin(self.cancel.unless_cancelled(apply)).await
            } else {
                Ok(Box::pin(apply).await) // what the server is kept for must not be lost
            };
            match applied {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    Box::pin(self.settings_refused(leased, error)).await;
                    return Flow::Continue;
                }
                Err(GivenUp) => {
                    drop(leased); // half way to its settings: it is closed
                    self.refuse(&cancelled());
                    return Flow::Continue;
                }
            }
        }
        self.enter(leased);
        Flow::Continue
    }

    /// The server, at the client's settings, is now the one at work; it follows the client into its transaction.
    fn enter(&mut self, mut leased: Leased) {
        leased.mark_dirty();
        self.cancel.add(&leased);
        self.x.start();
        if !Arc::ptr_eq(&self.reported, &leased.parameters) {
            self.tell_parameters(&mut leased);
        }
        if let Txn::Held(held) = std::mem::take(&mut self.txn) {
            leased.unnamed = None; // a Query destroys it
            self.x.up.put_query(held.script().as_bytes());
            self.x.expect(crate::exec::Expect::Prefix);
            self.txn = Txn::Open(Box::new(held.open()));
        } else if self.turn.saved.is_none() {
            self.turn.saved = Some(self.vars.clone());
        }
        self.server = Some(leased);
    }

    /// The client is told what is other on this server than it was told last: its settings are the same on all
    /// servers, but these may have been configured anew. What it sees from here on is what this server reports.
    fn tell_parameters(&mut self, leased: &mut Leased) {
        if matches!(&self.txn, Txn::Held(held) if !held.replay.is_empty()) {
            return; // what the transaction has set is known to the client, and will be set here
        }
        if *self.reported == *leased.parameters {
            // One allocation for all that know the same, so that the next comparison is one of addresses.
            leased.parameters = self.reported.clone();
            return;
        }
        let (reported, here) = (self.reported.clone(), leased.parameters.clone());
        for (name, value) in here.iter().filter(|(name, _)| *name != SERVER_VERSION) {
            if reported.get(name) != Some(value) {
                self.x.local(|out| out.put_parameter_status(name, value));
            }
        }
        self.reported = here;
    }

    async fn settings_refused(&mut self, leased: Leased, error: ServerError) {
        self.cancel.clear().await;
        let kept = !self.turn.new_pins.is_empty();
        if kept && error.is_loss() {
            self.lost_with_state(&leased);
        }
        let report = match refusal(leased, &error) {
            // Not a byte of the client's was sent, so even a write may look for another connection.
            Refusal::Lost if !kept && self.turn.retries < RETRIES => {
                self.turn.retries += 1;
                return;
            }
            Refusal::Lost => lost_before(&error),
            Refusal::Told(report) => report,
        };
        self.refuse(&report);
    }

    pub(super) fn pool_mode(&self) -> PoolMode {
        match &self.place {
            Place::Database { served, .. } => served.cluster.config().pool_mode,
            Place::Admin => PoolMode::Transaction,
        }
    }

    pub(super) fn consistency(&self) -> ReadConsistency {
        if let Some(wanted) = self.vars.consistency {
            return wanted;
        }
        match &self.place {
            Place::Database { served, .. } => served.cluster.config().read_consistency,
            Place::Admin => ReadConsistency::Primary,
        }
    }

    /// What a read on a shard needs: the primary's freshness as far as this session has written there.
    pub(super) fn read_need(&self, shard: ShardId) -> Need {
        let consistency = self.consistency();
        let only_primary =
            consistency == ReadConsistency::Primary || self.vars.settings.may_be_serializable();
        if self.pool_mode() == PoolMode::Session || only_primary {
            return Need::PRIMARY;
        }
        if consistency == ReadConsistency::Eventual {
            return Need { replica: true, only_replica: false, after: None };
        }
        let after = self.writes.iter().find(|(s, _)| *s == shard).map(|(_, at)| *at);
        Need { replica: true, only_replica: false, after }
    }

    /// A transaction that has only done what any shard answers alike goes over to the shard of its first key.
    pub(super) async fn leave_shard(&mut self) -> Flow {
        let Some(mut server) = self.server.take() else { return Flow::Continue };
        let reported = server.parameters.clone(); // the client has seen what the transaction set
        let left = server.run("ROLLBACK").await;
        self.cancel.clear().await;
        self.reported = reported;
        let was_open = std::mem::take(&mut self.txn);
        if let Txn::Open(open) = was_open {
            self.txn = Txn::Held(Box::new(open.hold()));
        }
        match left {
            Ok(_) => self.give_back(server),
            Err(error) => tracing::debug!(%error, "a server could not be left and is closed"),
        }
        Flow::Continue
    }
}

/// How often a waiting client is looked at, whether it is still there.
const LOOK: Duration = Duration::from_secs(1);

/// The end of a wait, `None` if the client went away before it: a pause may be long, and clients that are gone must not
/// pile up in it. Cancel safe if `work` is.
pub(super) async fn unless_gone<T>(stream: &Stream, work: impl Future<Output = T>) -> Option<T> {
    let gone = async {
        let mut tick = tokio::time::interval(LOOK);
        while !stream.is_gone() {
            tick.tick().await;
        }
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = gone => None,
    }
}

/// The same without a timer, for work that is woken once a second or so while it waits, as a lease is. Begun at `since`.
async fn while_there<T>(stream: &Stream, since: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let (mut looked, mut waited) = (since, false);
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        if std::mem::replace(&mut waited, true) && looked.elapsed() >= LOOK {
            looked = Instant::now();
            if stream.is_gone() {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await
}

/// A cancel request came while the statement waited for a server.
pub(super) fn cancelled() -> ErrorReport {
    ErrorReport::error(SqlState::QUERY_CANCELED, "canceling statement due to user request")
}

/// What is to be done about a server that did not take a session's settings.
pub(super) enum Refusal {
    /// It is gone.
    Lost,
    /// It does not want them.
    Told(ErrorReport),
}

/// Gives the server back, or counts its loss.
pub(super) fn refusal(leased: Leased, error: &ServerError) -> Refusal {
    let server = leased.server().clone();
    match error {
        ServerError::Sql(fields) if !fields.is_fatal() => {
            leased.scrub_and_return();
            let report = ErrorReport::error(fields.sqlstate(), fields.message.clone());
            Refusal::Told(report.with_detail(format!(
                "The session's settings could not be applied on server {}; the statement was not run.",
                server.config.address()
            )))
        }
        ServerError::Io(_) | ServerError::Wire(_) | ServerError::Sql(_) => {
            drop(leased);
            let said = if let ServerError::Sql(fields) = error { Some(fields) } else { None };
            server.report_loss(said, &error.to_string());
            Refusal::Lost
        }
    }
}

pub(super) fn lost_before(error: &ServerError) -> ErrorReport {
    ErrorReport::error(SqlState::CONNECTION_FAILURE, error.to_string())
        .with_hint("Nothing was sent; try again.")
}
