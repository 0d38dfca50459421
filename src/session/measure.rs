//! What statistics know of a statement: noted when it goes out, counted when it has ended, each of a pipeline by itself.
//! Must not do I/O. The clock is read when a client's bytes have come, before they are sent on, and when the answer
//! has been read: three times for a statement, however many there are in a batch.

use std::num::NonZeroU16;

use smallvec::SmallVec;
use tracing::Span;

use super::client::{Client, Place};
use crate::cluster::Leased;
use crate::exec::How;
use crate::route::{Access, Kind, Route, Statement, Target, Verb};
use crate::shard::PartitionId;
use crate::stats::{Class, Effect, Moment, Named, On, Ran, RouteKind, StatementSlot, Stats, Timing};

/// What is known of a statement before it runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    slot: Option<StatementSlot>,
    class: Class,
    route: RouteKind,
    effect: Effect,
    part: Part,
    /// One more than the partition's number: every client keeps room for some notes.
    partition: Option<NonZeroU16>,
}

/// What of a message a statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// The next one is of the same text, and is not run if this one fails.
    Begins,
    /// More of a portal that was counted before.
    Again,
}

/// A statement that is under way.
#[derive(Debug)]
struct Flight {
    note: Note,
    queue_us: u32,
    came: Moment,
    /// So long after it came, µs.
    sent_us: u32,
    /// Where it is traced, if it is.
    span: Option<Box<Span>>,
}

/// What is measured in one turn.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Those under way, in order.
    flights: SmallVec<[Flight; 1]>,
    /// So many of the last have not been sent yet.
    unsent: u32,
    /// When the last one ended: the next cannot have begun before.
    last: Option<Moment>,
    /// Waiting for a server connection, not yet laid to a statement's charge.
    queue_us: u32,
    /// The statement that an answer of the proxy's own, or an error, is about.
    pub(super) subject: Option<Note>,
}

impl Client {
    /// What is known of a statement that goes this way. One that runs with others in a text has a part in theirs.
    pub(super) fn note(&self, statement: &Statement, route: Option<&Route>, alone: bool) -> Note {
        let verb = match route {
            Some(route) if alone => route.verb,
            _ => statement.verb(),
        };
        let class = class(statement.kind(), verb);
        let slot = self.x.finishes.measures().then(|| {
            let fingerprint = statement.fingerprint();
            self.proxy.stats().statement(&Named {
                database: self.database,
                hash: fingerprint.hash(),
                text: fingerprint.text(),
                class,
                mark: fingerprint.mark(),
            })
        });
        let kind = match route.map(|r| r.target) {
            None => RouteKind::Local,
            Some(Target::Shard(_)) => RouteKind::Direct,
            Some(Target::Any) => RouteKind::Any,
            Some(Target::Fanout(_)) => RouteKind::Fanout,
        };
        let access = route.map(|r| r.access);
        let effect = effect(statement.kind(), class, access, alone);
        let partition = route.and_then(|r| r.partition).and_then(|id| NonZeroU16::MIN.checked_add(id.0));
        Note { slot, class, route: kind, effect, part: Part::Whole, partition }
    }

    /// What is known of a statement that the proxy answers. Looking at the figures does not change them.
    pub(super) fn note_own(&self, statement: &Statement) -> Option<Note> {
        let looks = if let Kind::Show(name) = statement.kind() {
            self.is_own_show(name)
        } else {
            matches!(statement.kind(), Kind::Virtual(_) | Kind::Command(_))
        };
        (!looks && !matches!(self.place, Place::Admin)).then(|| self.note(statement, None, true))
    }

    /// What is known of a text that is refused.
    pub(super) fn subject(&mut self, sql: &[u8]) -> Option<Note> {
        let router = self.router().ok()?;
        let statements = router.prepare(sql, &self.vars.env).ok()?;
        match statements.as_slice() {
            [statement] => self.note_own(statement),
            _ => None,
        }
    }

    /// Counts which statements of a text were known to the plan cache.
    pub(super) fn count_plans(&self, statements: &[Statement]) {
        if self.x.finishes.measures() {
            statements.iter().for_each(|s| self.proxy.stats().count_plan(!s.is_fresh()));
        }
    }

    /// A server connection was waited for.
    pub(super) fn note_queued(&mut self, waited: std::time::Duration) {
        let measured = &mut self.turn.measured;
        measured.queue_us = measured.queue_us.saturating_add(brief(waited.as_micros() as u64));
    }

    /// A statement goes upstream.
    pub(super) fn take_off(&mut self, note: Note, part: Part) {
        if self.x.finishes.measures() {
            let measured = &mut self.turn.measured;
            let queue_us = std::mem::take(&mut measured.queue_us);
            let came = self.turn.began.unwrap_or_else(Moment::now);
            let note = Note { part, ..note };
            let span =
                tracing::enabled!(tracing::Level::DEBUG).then(|| Box::new(note.span(self.proxy.stats())));
            measured.flights.push(Flight { note, queue_us, came, sent_us: 0, span });
            measured.unsent += 1;
        }
    }

    /// What was put upstream is about to be sent.
    pub(super) fn note_sent(&mut self) {
        let measured = &mut self.turn.measured;
        if measured.unsent > 0 {
            let now = Moment::now();
            let unsent = std::mem::take(&mut measured.unsent) as usize;
            let flights = measured.flights.iter_mut().rev().take(unsent);
            flights.for_each(|flight| flight.sent_us = brief(now.us_since(flight.came)));
        }
    }

    /// Bytes of the client have come.
    pub(super) fn note_came(&mut self) {
        if self.x.finishes.measures() {
            self.turn.began = Some(Moment::now());
        }
    }

    /// Counts what has ended. For each error among it, in order, the statement that failed, if one did.
    pub(super) fn count_finished(&mut self) -> SmallVec<[Option<StatementSlot>; 1]> {
        let mut failed = SmallVec::new();
        let finished = self.x.finishes.take();
        if finished.is_empty() {
            return failed;
        }
        let Some(server) = &self.server else { return failed };
        let on = On {
            server: server.server().slot,
            shard: server.server().shard,
            is_replica: server.is_replica(),
        };
        let mut at = 0;
        for finish in finished {
            let flight = self.turn.measured.flights.get(at);
            match finish.how {
                How::Stray => failed.push(None),
                How::Skipped => at += 1,
                How::Complete | How::Suspended | How::Failed => {
                    let Some(flight) = flight else { continue };
                    at += 1;
                    let mut ran = flight.ran(self.turn.measured.last, finish.at);
                    ran.database = self.database;
                    ran.rows = finish.rows;
                    ran.failed = finish.how == How::Failed;
                    if let Some(span) = &flight.span {
                        span.in_scope(|| {
                            tracing::debug!(
                                rows = ran.rows,
                                failed = ran.failed,
                                total_us = ran.timing.total_us,
                                "statement ended"
                            )
                        });
                    }
                    if self.proxy.stats().is_slow(ran.timing.total_us) {
                        self.log_slow(&ran, self.server.as_ref());
                    }
                    if flight.note.part == Part::Again {
                        self.proxy.stats().ran_on(&ran);
                    } else {
                        self.stats.count_statement();
                        self.proxy.stats().ran(&ran, Some(on));
                    }
                    if ran.failed {
                        failed.push(ran.statement);
                        let rest = self.turn.measured.flights.get(at - 1..).unwrap_or_default();
                        at += rest.iter().take_while(|flight| flight.note.part == Part::Begins).count();
                    }
                    self.turn.measured.last = Some(finish.at);
                }
            }
        }
        let flights = &mut self.turn.measured.flights;
        flights.drain(..at.min(flights.len()));
        failed
    }

    /// The server is lost: what was under way has failed, if it is not tried elsewhere. The first of it, if any.
    pub(super) fn count_lost(&mut self, on: On) -> Option<StatementSlot> {
        let flights = std::mem::take(&mut self.turn.measured.flights);
        self.turn.measured.unsent = 0;
        let flight = flights.first()?;
        let mut ran = flight.ran(self.turn.measured.last, Moment::now());
        (ran.database, ran.failed) = (self.database, true);
        self.stats.count_statement();
        self.proxy.stats().ran(&ran, Some(on));
        ran.statement
    }

    /// What was under way will be put upstream again.
    pub(super) fn forget_flights(&mut self) {
        self.turn.measured.flights.clear();
        self.turn.measured.unsent = 0;
    }

    /// The proxy itself has answered, or refused, the statement at hand, if it is known which.
    pub(super) fn count_own(&mut self, failed: bool) -> Option<StatementSlot> {
        let subject = self.turn.measured.subject.take();
        if !self.x.finishes.measures() {
            return None;
        }
        self.stats.count_statement();
        if matches!(self.place, Place::Admin) || (subject.is_none() && !failed) {
            return None;
        }
        let slot = subject.and_then(|note| note.slot);
        let queue_us = std::mem::take(&mut self.turn.measured.queue_us);
        let now = Moment::now();
        let came = self.turn.began.max(self.turn.measured.last);
        let total_us = came.map_or(0, |came| now.us_since(came));
        let ran = Ran {
            statement: slot,
            class: subject.map_or(Class::Other, |note| note.class),
            route: RouteKind::Local,
            effect: subject.map_or(Effect::Neither, |note| note.effect),
            database: self.database,
            partition: None,
            failed,
            rows: 0,
            timing: Timing { queue_us: u64::from(queue_us).min(total_us), server_us: 0, total_us },
        };
        self.proxy.stats().ran(&ran, None);
        self.turn.measured.last = Some(now);
        slot
    }

    /// Many servers have answered.
    pub(super) fn count_fanout(&mut self, note: Note, on: &[On], start: Moment, outcome: Option<u64>) {
        if !self.x.finishes.measures() {
            return;
        }
        let now = Moment::now();
        let queue_us = std::mem::take(&mut self.turn.measured.queue_us);
        let came = self.turn.began.unwrap_or(start);
        let sent_us = brief(start.us_since(came));
        let flight = Flight { note, queue_us, came, sent_us, span: None };
        let mut ran = flight.ran(self.turn.measured.last, now);
        ran.database = self.database;
        ran.failed = outcome.is_none();
        ran.rows = outcome.unwrap_or_default();
        self.stats.count_statement();
        if self.proxy.stats().is_slow(ran.timing.total_us) {
            self.log_slow(&ran, None);
        }
        self.proxy.stats().ran_on_many(&ran, on);
        self.turn.measured.last = Some(now);
    }
}

impl Client {
    /// One line for a statement that took long; never a value of it.
    #[cold]
    fn log_slow(&self, ran: &Ran, server: Option<&Leased>) {
        let (fingerprint, statement) = ran.statement.and_then(|s| self.proxy.stats().named(s)).unzip();
        let role = server.map(|s| if s.is_replica() { "replica" } else { "primary" });
        let info = self.stats.info();
        tracing::info!(
            database = %info.database,
            user = %info.user,
            session = info.id,
            route = ran.route.as_str(),
            shard = server.map(|s| s.server().shard_name.as_str()),
            server = server.map(|s| s.server().config.address()),
            role,
            class = ran.class.as_str(),
            fingerprint,
            rows = ran.rows,
            failed = ran.failed,
            queue_us = ran.timing.queue_us,
            server_us = ran.timing.server_us,
            total_us = ran.timing.total_us,
            statement = statement.as_deref(),
            "slow statement"
        );
    }
}

impl Note {
    /// What it is traced as.
    #[cold]
    fn span(&self, stats: &Stats) -> Span {
        let (fingerprint, statement) = self.slot.and_then(|slot| stats.named(slot)).unzip();
        let partition = self.partition.map(|id| id.get() - 1);
        let (route, class) = (self.route.as_str(), self.class.as_str());
        tracing::debug_span!(
            "statement",
            route,
            class,
            partition,
            fingerprint,
            statement = statement.as_deref()
        )
    }

    /// Where it is counted.
    pub(super) fn slot(&self) -> Option<StatementSlot> {
        self.slot
    }
}

impl Flight {
    /// What it comes to if it has ended now, and the one before it at `last`.
    fn ran(&self, last: Option<Moment>, now: Moment) -> Ran {
        let since_it_came = now.us_since(self.came);
        let since_last = last.map_or(u64::MAX, |last| now.us_since(last));
        let total_us = since_it_came.min(since_last);
        let server_us = since_it_came.saturating_sub(u64::from(self.sent_us)).min(since_last);
        Ran {
            statement: self.note.slot,
            class: self.note.class,
            route: self.note.route,
            effect: self.note.effect,
            database: Default::default(),
            partition: self.note.partition.map(|id| PartitionId(id.get() - 1)),
            failed: false,
            rows: 0,
            timing: Timing {
                queue_us: u64::from(self.queue_us).min(total_us - server_us),
                server_us,
                total_us,
            },
        }
    }
}

/// Up to 71 minutes, µs: no wait before a statement is sent lasts longer.
fn brief(us: u64) -> u32 {
    u32::try_from(us).unwrap_or(u32::MAX)
}

fn class(kind: &Kind, verb: Verb) -> Class {
    match kind {
        Kind::Begin(_)
        | Kind::Commit { .. }
        | Kind::Rollback { .. }
        | Kind::Savepoint(_)
        | Kind::Release(_)
        | Kind::RollbackTo(_)
        | Kind::SetTransaction(_)
        | Kind::TwoPhase => Class::Transaction,
        Kind::CopyIn => Class::Copy,
        Kind::Virtual(_) => Class::Select,
        Kind::Empty
        | Kind::Query
        | Kind::Set(_)
        | Kind::Reset(_)
        | Kind::Show(_)
        | Kind::Command(_)
        | Kind::SetConfig(_)
        | Kind::SqlPrepare
        | Kind::Deallocate(_)
        | Kind::Discard(_)
        | Kind::Listen(_)
        | Kind::Unlisten(_)
        | Kind::Ddl => match verb {
            Verb::Select => Class::Select,
            Verb::Insert => Class::Insert,
            Verb::Update => Class::Update,
            Verb::Delete => Class::Delete,
            Verb::Copy => Class::Copy,
            Verb::Other => Class::Other,
        },
    }
}

fn effect(kind: &Kind, class: Class, access: Option<Access>, alone: bool) -> Effect {
    match (kind, class) {
        (Kind::CopyIn | Kind::Ddl, _) => Effect::Write,
        (Kind::Virtual(_), _) => Effect::Read,
        (Kind::Query | Kind::SqlPrepare, _) if alone => match access {
            Some(Access::Read | Access::Primary) => Effect::Read,
            Some(Access::Write) => Effect::Write,
            None => Effect::Neither,
        },
        // The access of a text is that of the most demanding statement in it.
        (Kind::Query | Kind::SqlPrepare, Class::Select) => Effect::Read,
        (Kind::Query | Kind::SqlPrepare, _) => Effect::Write,
        _ => Effect::Neither,
    }
}
