//! A turn of work: from the first message after idle until everything is answered and the server is given back.
//! Must not know how messages are understood; it does what `feed` asks for.

use bytes::BytesMut;
use tokio::time::Instant;

use super::client::{Client, Flow, Kept, Place, Turn};
use super::feed::Step;
use super::txn::{Open, Txn};
use crate::cluster::{ClusterError, Leased, Need};
use crate::config::{PoolMode, ReadConsistency};
use crate::exec::{Event, Lost, Outcome, Request, Scatter, Watch};
use crate::pool::ServerError;
use crate::shard::{ShardId, ShardSet};
use crate::stats::{Class, ErrorEvent, SessionState, Timing};
use crate::wire::{
    BackendWriter, ClientFacing, ErrorFields, ErrorReport, FrontendWriter, SqlState, TransactionStatus,
};

/// A read is tried on this many other servers when one dies under it.
const RETRIES: u8 = 3;

/// COPY data that is taken before the server has asked for it, bytes.
const AHEAD: usize = 64 << 10;

/// What many shards are asked.
pub(super) struct FanoutPlan {
    pub(super) shards: ShardSet,
    pub(super) request: Request,
    /// ReadyForQuery follows at once (simple protocol).
    pub(super) ready: bool,
}

impl Client {
    /// Works until nothing is left to do and no whole message is waiting.
    pub(super) async fn take_turn(&mut self) -> Flow {
        self.turn.began = Some(Instant::now());
        loop {
            let step = self.feed();
            let flow = match step {
                Step::Wait => {
                    if self.server.is_none() {
                        if self.flush().await == Flow::End {
                            return Flow::End;
                        }
                        // A message of which only a part has come is waited for like any other.
                        if self.turn.deferred.is_empty() && self.inbuf.is_empty() {
                            self.end_turn();
                            return Flow::Continue;
                        }
                        self.read_more().await
                    } else if self.x.is_drained() {
                        self.after_drain().await;
                        if self.inbuf.is_empty() {
                            self.end_turn();
                            return Flow::Continue;
                        }
                        if std::mem::take(&mut self.turn.copy_waits) {
                            continue; // nobody wants it any more
                        }
                        self.read_more().await
                    } else {
                        self.pump(Until::Client).await
                    }
                }
                Step::Lease { shard, need } => self.join(shard, need).await,
                Step::Drain => {
                    let flow = self.pump(Until::Drained).await;
                    if flow == Flow::Continue {
                        self.after_drain().await;
                    }
                    flow
                }
                Step::Settle => self.pump(Until::Settled).await,
                // What is rare is boxed: the common turn must not pay for its state.
                Step::Move => Box::pin(self.leave_shard()).await,
                Step::Fanout(plan) => Box::pin(self.fan_out(*plan)).await,
                Step::Reset(name) => Box::pin(self.reset(name)).await,
                Step::ReadSchema => {
                    Box::pin(self.read_schema()).await;
                    Flow::Continue
                }
                Step::Command(words) => Box::pin(self.command(words)).await,
                Step::End => Flow::End,
            };
            if flow == Flow::End {
                return self.flush().await.then_end();
            }
        }
    }

    fn end_turn(&mut self) {
        // A CopyData that the server no longer wanted may still be under way: its rest is no message.
        // What a transaction has left on its server counts until it is given back, however many turns later.
        let Turn { skip, copy_rest, touched, spoiled, read_schema, new_pins, .. } =
            std::mem::take(&mut self.turn);
        self.turn = Turn { skip, copy_rest, touched, spoiled, read_schema, new_pins, ..Turn::default() };
        // Answered without a server, or by one: nothing of it is ever sent again.
        self.replay.clear();
    }

    /// Reads more of the client when no server is held.
    async fn read_more(&mut self) -> Flow {
        use tokio::io::AsyncReadExt;
        if self.flush().await == Flow::End {
            return Flow::End;
        }
        self.inbuf.reserve(8192);
        let limit = self.config.timeouts.idle;
        let read = self.stream.read_buf(&mut self.inbuf);
        let read = match limit {
            Some(limit) => match Box::pin(tokio::time::timeout(limit, read)).await {
                Ok(read) => read,
                Err(_) => return Flow::End,
            },
            None => read.await,
        };
        match read {
            Ok(0) | Err(_) => Flow::End,
            Ok(_) => Flow::Continue,
        }
    }

    /// Writes to the client what the proxy itself has said.
    async fn flush(&mut self) -> Flow {
        self.x.settle();
        match std::future::poll_fn(|cx| self.x.poll_flush(cx, &mut self.stream)).await {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::End,
        }
    }

    /// Takes a server of `shard` into this turn, brings it to the client's settings and into its transaction.
    async fn join(&mut self, shard: ShardId, need: Need) -> Flow {
        let Place::Database { served, pools } = &self.place else { return Flow::End };
        let found = self.kept.iter().position(|k| k.leased.server().shard == shard);
        let leased = match found {
            Some(at) => {
                let kept = self.kept.swap_remove(at);
                self.turn.new_pins = kept.pins;
                Ok(kept.leased)
            }
            None => match served.cluster.lease_now(pools, shard, need) {
                Some(leased) => Ok(leased),
                None => {
                    let asked = Instant::now();
                    self.stats.set_state(SessionState::Waiting);
                    let leased = Box::pin(served.cluster.lease(pools, shard, need)).await;
                    self.stats.set_state(SessionState::Active);
                    let now = Instant::now();
                    self.turn.queue_us += now.duration_since(asked).as_micros() as u64;
                    self.turn.leased_at = Some(now);
                    leased
                }
            },
        };
        let mut leased = match leased {
            Ok(leased) => leased,
            Err(error) => {
                self.refuse(&error.report());
                return Flow::Continue;
            }
        };
        leased.mark_dirty();
        self.cancel.add(&leased);
        if !leased.is_applied(&self.vars.settings)
            && let Err(error) = Box::pin(leased.apply(&self.vars.settings)).await
        {
            Box::pin(self.settings_refused(leased, error)).await;
            return Flow::Continue;
        }
        self.x.start();
        if let Txn::Held(held) = std::mem::take(&mut self.txn) {
            self.x.up.put_query(held.script().as_bytes());
            self.x.expect(crate::exec::Expect::Prefix);
            self.txn = Txn::Open(Box::new(held.open()));
        } else if self.turn.saved.is_none() {
            self.turn.saved = Some(self.vars.clone());
        }
        self.server = Some(leased);
        Flow::Continue
    }

    async fn settings_refused(&mut self, leased: Leased, error: ServerError) {
        self.cancel.clear().await;
        let server = leased.server().clone();
        let report = match &error {
            ServerError::Sql(fields) if !fields.is_fatal() => {
                leased.scrub_and_return();
                ErrorReport::error(fields.sqlstate(), fields.message.clone()).with_detail(format!(
                    "The session's settings could not be applied on server {}; the statement was not run.",
                    server.config.address()
                ))
            }
            ServerError::Io(_) | ServerError::Wire(_) | ServerError::Sql(_) => {
                drop(leased);
                server.report_failure(&error.to_string());
                ErrorReport::error(SqlState::CONNECTION_FAILURE, error.to_string())
                    .with_hint("Nothing was sent; try again.")
            }
        };
        self.refuse(&report);
    }

    /// Relays until there is something to do for the feed.
    async fn pump(&mut self, until: Until) -> Flow {
        loop {
            let Some(server) = &mut self.server else { return self.flush().await };
            // COPY data sent ahead of its time is not piled up.
            let want_client = until == Until::Client && !(self.turn.copy_waits && self.inbuf.len() >= AHEAD);
            let (x, stream, inbuf) = (&mut self.x, &mut self.stream, &mut self.inbuf);
            let poll =
                std::future::poll_fn(|cx| x.poll(cx, stream, inbuf, server, (want_client, Watch::Answers)));
            let event = match self.config.timeouts.query {
                None => poll.await,
                Some(limit) => match Box::pin(tokio::time::timeout(limit, poll)).await {
                    Ok(event) => event,
                    Err(_) => {
                        // The server answers with its own 57014, which ends the statement in order.
                        Box::pin(self.cancel.cancel()).await;
                        continue;
                    }
                },
            };
            match event {
                Event::Client => return Flow::Continue,
                Event::ClientGone => return Flow::End,
                Event::Drained => {
                    self.note_done();
                    return Flow::Continue;
                }
                Event::Progress => {
                    self.note_done();
                    if (until == Until::Settled && !self.x.is_owed()) || self.x.is_copy_in() {
                        return Flow::Continue;
                    }
                    if self.x.is_batch_open() && !self.x.is_owed() {
                        return Flow::Continue;
                    }
                }
                Event::ServerLost(lost) => return Box::pin(self.server_lost(lost)).await,
            }
        }
    }

    /// Everything has been answered: the transaction status is known, the server may go back.
    pub(super) async fn after_drain(&mut self) {
        self.note_done();
        self.record_timing();
        self.turn.barrier = false;
        self.turn.batch_wrote = false;
        self.turn.flushed = false;
        self.turn.split = false;
        self.turn.effects.clear();
        self.replay.clear();
        self.turn.fresh.clear();
        self.turn.retries = 0;
        // No status: nothing was sent, the statement was refused before.
        match self.x.status().unwrap_or(TransactionStatus::Idle) {
            TransactionStatus::Idle => self.transaction_over().await,
            status @ (TransactionStatus::InTransaction | TransactionStatus::Failed) => {
                self.still_in_transaction(status)
            }
        }
    }

    fn still_in_transaction(&mut self, status: TransactionStatus) {
        if !matches!(self.txn, Txn::Open(_)) {
            let saved = self.turn.saved.take().unwrap_or_else(|| self.vars.clone());
            self.txn = Txn::Open(Box::new(Open::found(saved)));
        }
        if let Txn::Open(open) = &mut self.txn {
            open.failed = status == TransactionStatus::Failed;
            open.wrote |= self.turn.wrote;
        }
    }

    async fn transaction_over(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let shard = server.server().shard;
        let mut wrote = std::mem::take(&mut self.turn.wrote);
        if let Txn::Open(open) = std::mem::take(&mut self.txn) {
            wrote |= open.wrote;
            if let Some(after) = open.after {
                self.vars = after;
            }
        }
        self.turn.saved = None;
        self.portals.clear();
        self.stats.count_transaction();
        if wrote && !server.is_replica() {
            self.note_write(shard);
        }
        if std::mem::take(&mut self.turn.touched) {
            server.applied = Some(self.vars.settings.clone());
        }
        if !self.cancel.clear_now() {
            Box::pin(self.cancel.clear()).await;
        }
        let pins = std::mem::take(&mut self.turn.new_pins);
        let keep = !pins.is_empty() || self.pool_mode() == PoolMode::Session;
        if std::mem::take(&mut self.turn.spoiled) && !keep {
            drop(server); // still dirty: closed
        } else if keep {
            self.stats.set_pin(pins.first().map(|p| p.as_str()));
            self.kept.push(Kept { leased: server, pins });
        } else {
            server.mark_clean(self.turn.began.unwrap_or_else(Instant::now));
            drop(server);
        }
        if self.turn.read_schema {
            Box::pin(self.read_schema()).await;
        }
    }

    /// DDL of this session is seen by its next statement.
    async fn read_schema(&mut self) {
        self.turn.read_schema = false;
        if let Place::Database { served, .. } = &self.place
            && let Err(error) = served.cluster.reload_schema().await
        {
            tracing::warn!(%error, "the catalogs could not be read again after DDL");
        }
    }

    fn note_write(&mut self, shard: ShardId) {
        let now = Instant::now();
        match self.writes.iter_mut().find(|(s, _)| *s == shard) {
            Some((_, at)) => *at = now,
            None => self.writes.push((shard, now)),
        }
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

    fn record_timing(&mut self) {
        let (received, sent) = self.x.take_traffic();
        self.stats.count_bytes(received, sent);
        let (Some(verb), Some(server), Some(began)) = (self.turn.verb.take(), &self.server, self.turn.began)
        else {
            return;
        };
        let now = Instant::now();
        let us = |from: Instant| now.duration_since(from).as_micros() as u64;
        let timing = Timing {
            queue_us: std::mem::take(&mut self.turn.queue_us),
            server_us: us(self.turn.leased_at.unwrap_or(began)),
            total_us: us(began),
        };
        self.proxy.stats().record(server.server().slot, server.is_replica(), class(verb), timing);
        // The next statement of the same turn begins now.
        self.turn.began = Some(now);
        self.turn.leased_at = Some(now);
    }

    /// The server is gone: a read is tried elsewhere if the client has seen nothing yet, all else is told.
    async fn server_lost(&mut self, lost: Lost) -> Flow {
        self.note_done();
        let Some(server) = self.server.take() else { return Flow::End };
        self.cancel.clear().await;
        let state = server.server().clone();
        drop(server); // dirty: closed
        let why = match (&lost.said, &lost.io) {
            (Some(fields), _) => fields.message.clone(),
            (None, Some(io)) => io.to_string(),
            (None, None) => "the server closed the connection unexpectedly".to_owned(),
        };
        state.report_failure(&why);
        let address = state.config.address();
        let torn = self.x.is_torn();
        let answered = self.x.has_answered();
        let was_open = matches!(self.txn, Txn::Open(_));
        let in_batch = self.x.is_batch_open();
        let owed = self.x.abandon();
        self.note_done();
        self.turn.effects.clear();
        self.turn.new_pins.clear();
        self.turn.barrier = false;
        let wrote = std::mem::take(&mut self.turn.wrote) || std::mem::take(&mut self.turn.batch_wrote);
        if torn {
            return Flow::End; // half a row was passed on: only the end of the connection is honest
        }
        if self.turn.only_reads
            && !was_open
            && !answered
            && self.turn.retries < RETRIES
            && !self.replay.is_empty()
        {
            let replay = std::mem::take(&mut self.replay);
            tracing::info!(server = %address, shard = %state.shard_name, why, "a read is tried on another server");
            self.try_again(replay);
            return Flow::Continue;
        }
        let Some(ready_owed) = owed else { return Flow::Continue };
        let committing = std::mem::take(&mut self.turn.committing);
        let unknown = if was_open { committing } else { wrote };
        let report = lost_report(&lost, why, &address, &state.shard_name, unknown, was_open);
        self.proxy.stats().error(ErrorEvent {
            sqlstate: report.code.as_str().to_owned(),
            message: report.message.clone(),
            blame: "server",
            database: self.stats.info().database.clone(),
            user: self.stats.info().user.clone(),
            shard: Some(state.shard_name.clone()),
            server: Some(address),
        });
        if let Some(saved) = self.turn.saved.take() {
            self.vars = saved;
        }
        if let Txn::Open(open) = std::mem::take(&mut self.txn) {
            // The transaction is gone with its server; the client must still end it.
            self.vars = open.saved.clone();
            let mut held = open.hold();
            held.failed = true;
            held.replay.clear();
            held.savepoints.clear();
            self.txn = Txn::Held(Box::new(held));
        }
        self.turn.deferred.clear();
        let status = self.status();
        self.x.local(|out| {
            out.put_report(&report);
            if ready_owed {
                out.put_ready(status);
            }
        });
        self.turn.skip = !ready_owed && in_batch;
        self.flush().await
    }

    fn try_again(&mut self, replay: BytesMut) {
        self.turn.retries += 1;
        for name in std::mem::take(&mut self.turn.fresh) {
            self.statements.remove(&name);
        }
        self.portals.clear();
        self.turn.deferred.clear();
        self.turn.stash = None;
        self.turn.skip = false;
        let mut inbuf = replay;
        self.take_current(); // it is in what was kept
        inbuf.extend_from_slice(&self.inbuf);
        self.inbuf = inbuf;
    }

    /// A transaction that has only done what any shard answers alike goes over to the shard of its first key.
    async fn leave_shard(&mut self) -> Flow {
        let Some(mut server) = self.server.take() else { return Flow::Continue };
        let left = server.run("ROLLBACK").await;
        self.cancel.clear().await;
        let was_open = std::mem::take(&mut self.txn);
        if let Txn::Open(open) = was_open {
            self.txn = Txn::Held(Box::new(open.hold()));
        }
        match left {
            Ok(_) => server.mark_clean(Instant::now()),
            Err(error) => tracing::debug!(%error, "a server could not be left and is closed"),
        }
        Flow::Continue
    }

    async fn fan_out(&mut self, plan: FanoutPlan) -> Flow {
        if self.flush().await == Flow::End {
            return Flow::End;
        }
        let Place::Database { served, pools } = &self.place else { return Flow::End };
        let (served, pools) = (served.clone(), pools.clone());
        let mut leases = Vec::new();
        // Always in the order of the shards: two fan-outs cannot wait for each other in a circle.
        for shard in plan.shards.iter() {
            match self.lease_part(&served.cluster, &pools, shard).await {
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
        let outcome = Scatter::new(leases, plan.request).run(&mut self.stream).await;
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

    async fn lease_part(
        &mut self,
        cluster: &crate::cluster::Cluster,
        pools: &crate::cluster::UserPools,
        shard: ShardId,
    ) -> Result<Leased, ErrorReport> {
        let asked = Instant::now();
        let leased = cluster.lease(pools, shard, self.read_need(shard)).await;
        self.turn.queue_us += asked.elapsed().as_micros() as u64;
        let mut leased = leased.map_err(|e: ClusterError| e.report())?;
        self.cancel.add(&leased);
        leased
            .apply(&self.vars.settings)
            .await
            .map_err(|e| ErrorReport::error(SqlState::CONNECTION_FAILURE, e.to_string()))?;
        Ok(leased)
    }

    fn fanout_failed(&mut self, report: &ErrorReport, ready: bool) {
        self.record_error(report);
        self.x.local(|out| {
            out.put_report(report);
            if ready {
                out.put_ready(TransactionStatus::Idle);
            }
        });
        self.turn.skip = !ready;
    }

    pub(super) fn record_server_error(&self, fields: &ErrorFields) {
        let server = self.server.as_ref().map(|s| s.server());
        self.proxy.stats().error(ErrorEvent {
            sqlstate: fields.code.clone(),
            message: fields.message.clone(),
            blame: "client",
            database: self.stats.info().database.clone(),
            user: self.stats.info().user.clone(),
            shard: server.map(|s| s.shard_name.clone()),
            server: server.map(|s| s.config.address()),
        });
    }

    /// RESET and DISCARD ALL: back to what the client logged in with.
    async fn reset(&mut self, what: ResetWhat) -> Flow {
        let default = match &self.place {
            Place::Database { served, .. } => served.cluster.config().map.default_shard,
            Place::Admin => ShardId(0),
        };
        let (vars, tag) = match &what {
            ResetWhat::One(name) => (self.vars.reset(Some(name)), "RESET"),
            ResetWhat::Default(name) => (self.vars.reset(Some(name)), "SET"),
            ResetWhat::All => (self.vars.reset(None), "RESET"),
            ResetWhat::Discard => {
                self.statements.clear();
                self.portals.clear();
                for kept in self.kept.drain(..) {
                    kept.leased.scrub_and_return();
                }
                self.stats.set_pin(None);
                (self.vars.discarded(), "DISCARD ALL")
            }
        };
        let changed = vars.settings != self.vars.settings;
        let before = std::mem::replace(&mut self.vars, vars);
        let mut reported = Vec::new();
        if changed {
            if self.join(default, self.read_need(default)).await == Flow::End {
                return Flow::End;
            }
            let Some(mut server) = self.server.take() else {
                self.vars = before; // refused by join, which has told the client
                return Flow::Continue;
            };
            reported.extend(server.parameters.clone());
            self.cancel.clear().await;
            match self.pool_mode() {
                PoolMode::Session => {
                    self.kept.push(Kept { leased: server, pins: std::mem::take(&mut self.turn.new_pins) });
                }
                PoolMode::Transaction => {
                    server.mark_clean(Instant::now());
                    drop(server);
                }
            }
        }
        self.complete_local(|out| {
            for (name, value) in &reported {
                if name != "in_hot_standby" {
                    out.put_parameter_status(name, value);
                }
            }
            out.put_command_complete(tag);
        });
        self.flush().await
    }

    async fn command(&mut self, words: Vec<String>) -> Flow {
        let answer = self.proxy.clone().command(&words).await;
        match answer {
            Ok(tag) => self.complete_local(|out| out.put_command_complete(&tag)),
            Err(report) => self.refuse(&report),
        }
        self.flush().await
    }
}

/// What RESET resets.
#[derive(Debug)]
pub(super) enum ResetWhat {
    /// One setting.
    One(String),
    /// SET … TO DEFAULT, which is another word for it.
    Default(String),
    /// RESET ALL.
    All,
    /// DISCARD ALL.
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// New bytes of the client, or nothing owed.
    Client,
    /// Nothing owed and nothing open.
    Drained,
    /// Nothing owed; a batch may be open.
    Settled,
}

/// What a client is told when its server is gone.
fn lost_report(
    lost: &Lost,
    why: String,
    address: &str,
    shard: &str,
    unknown: bool,
    in_transaction: bool,
) -> ErrorReport {
    let detail = format!("Server {address} of shard \"{shard}\": {why}.");
    if unknown {
        return ErrorReport::error(
            SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            "the server was lost while a write was under way: it is not known whether it took effect",
        )
        .with_detail(detail)
        .with_hint("It was not tried again. Look at the data before you repeat it.");
    }
    let code = lost.said.as_ref().map_or(SqlState::CONNECTION_FAILURE, ErrorFields::sqlstate);
    let message = format!("connection to server {address} of shard \"{shard}\" was lost");
    let hint = if in_transaction {
        "The transaction is rolled back. End it with ROLLBACK and run it again."
    } else {
        "Nothing was changed; the statement can be sent again."
    };
    ErrorReport::error(code, message).with_detail(detail).with_hint(hint)
}

fn class(verb: crate::route::Verb) -> Class {
    use crate::route::Verb;
    match verb {
        Verb::Select => Class::Select,
        Verb::Insert => Class::Insert,
        Verb::Update => Class::Update,
        Verb::Delete => Class::Delete,
        Verb::Copy => Class::Copy,
        Verb::Other => Class::Other,
    }
}
