//! Servers that stay with a client because its state lives there, and their release as soon as nothing does.
//! Must not know how a statement is understood.
//!
//! A statement that may have left something, or on a kept server removed something, puts the server in doubt. When the
//! transaction is over the server itself is asked, once, after the client has its answer.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::client::{Client, Kept};
use crate::cluster::Leased;
use crate::config::PoolMode;
use crate::pool::ServerError;
use crate::route::{Kind, Pin, Route, RouteError, Statement};
use crate::wire::{ErrorReport, SqlState, TransactionStatus};

/// Asks a server, outside a transaction, what its session holds: a letter for each cause.
const LEFT_BEHIND: &str = "SELECT \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass \
          AND refobjid = pg_catalog.pg_my_temp_schema() AND refobjid <> 0) THEN 't' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'c' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
          AND pid = pg_catalog.pg_backend_pid()) THEN 'a' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) THEN 'l' ELSE '' END";

/// Which letter tells of which cause.
const LETTERS: [(char, Pin); 4] =
    [('t', Pin::TempTable), ('c', Pin::HoldCursor), ('a', Pin::AdvisoryLock), ('l', Pin::Listen)];

/// The causes for which one server is kept.
pub(super) type Pins = SmallVec<[Pin; 2]>;

impl Client {
    /// Before a statement goes to the server at hand: whether it may keep that server.
    pub(super) fn may_pin(&mut self, route: &Route) -> Result<(), RouteError> {
        let Some(pin) = route.pin else { return Ok(()) };
        if self.pool_mode() == PoolMode::Session {
            return Ok(());
        }
        if pin == Pin::Channels {
            return self.may_ask_for_channels();
        }
        if pin == Pin::Sequence {
            return self.may_ask_for_sequence(route);
        }
        if !pin.is_cause() {
            return Ok(());
        }
        let Some(server) = &mut self.server else { return Ok(()) };
        if server.pin() {
            return Ok(());
        }
        Err(RouteError::Sql {
            code: SqlState::TOO_MANY_CONNECTIONS,
            message: format!(
                "too many clients keep a server connection to {} for themselves: {} is the limit",
                server.server().config.address(),
                server.max_pinned()
            ),
            detail: Some(format!("This statement would keep one: {}.", pin.as_str())),
            hint: Some(
                "Keep less (ON COMMIT DROP, transaction-level locks; SHOW CLIENTS tells who keeps what), or raise pool.max_pinned."
                    .into(),
            ),
        })
    }

    /// `currval()` on a server tells of whoever called `nextval()` there last.
    fn may_ask_for_sequence(&self, route: &Route) -> Result<(), RouteError> {
        let here = self.turn.batch_wrote
            || route.access == crate::route::Access::Write
            || matches!(&self.txn, super::txn::Txn::Open(open) if open.wrote || self.turn.wrote);
        if here {
            return Ok(());
        }
        Err(RouteError::Refused {
            what: "currval() and lastval() outside the transaction that called nextval(), in transaction pooling"
                .into(),
            hint: "Use INSERT … RETURNING, or run both in one transaction.".into(),
        })
    }

    /// Whether a statement that goes out may leave something on its server, or remove what was left.
    pub(super) fn note_doubt(&mut self, statement: &Statement, pin: Option<Pin>) {
        let kept = !self.turn.new_pins.is_empty();
        self.turn.doubt |= match pin {
            Some(Pin::Channels | Pin::Sequence) => false,
            Some(Pin::Released) => kept,
            Some(_) => true,
            None => {
                kept && matches!(statement.kind(), Kind::Ddl | Kind::Discard(_) | Kind::SqlPrepare)
                    || matches!(statement.kind(), Kind::CopyIn) && self.has_leaving_triggers()
            }
        };
    }

    fn has_leaving_triggers(&self) -> bool {
        self.router.as_ref().is_some_and(|(_, router)| router.catalog().leaving_triggers)
    }

    /// What a completed statement keeps its server for, until the server has been asked.
    pub(super) fn pinned_by(&mut self, pin: Option<Pin>) {
        if let Some(pin) = pin.filter(|pin| pin.is_cause())
            && !self.turn.new_pins.contains(&pin)
        {
            self.turn.new_pins.push(pin);
            self.tell_pins();
        }
    }

    /// The transaction is over: what still keeps this server. An error: it cannot be used any more.
    pub(super) async fn settle_pins(&mut self, server: &mut Leased) -> Result<Pins, ServerError> {
        let mut pins = self.turn.new_pins.clone();
        if self.pool_mode() == PoolMode::Session {
            self.turn.doubt = false;
            return Ok(Pins::new());
        }
        if std::mem::take(&mut self.turn.doubt) {
            match server.ask(LEFT_BEHIND).await {
                Ok((TransactionStatus::Idle, Some(letters))) => {
                    pins.retain(|pin| !LETTERS.iter().any(|(_, known)| known == pin));
                    pins.extend(LETTERS.iter().filter(|(l, _)| letters.contains(*l)).map(|(_, pin)| *pin));
                }
                Err(ServerError::Sql(fields)) if fields.is_fatal() => return Err(ServerError::Sql(fields)),
                // It cannot be told: nothing is released, and nothing goes back that may not be clean.
                Ok(_) | Err(ServerError::Sql(_)) => self.turn.spoiled = true,
                Err(error) => return Err(error),
            }
        }
        if pins.is_empty() {
            server.unpin();
            self.turn.new_pins.clear();
            self.tell_pins();
        } else if !server.pin() {
            self.ending = Some(Box::new(too_many(server)));
        }
        Ok(pins)
    }

    /// Whether the server at hand stays with the client after its transaction.
    pub(super) fn is_kept(&self) -> bool {
        !self.turn.new_pins.is_empty() || self.pool_mode() == PoolMode::Session
    }

    /// The server has nothing to do any more: it stays if something keeps it, else it goes back to its pool, clean.
    pub(super) fn give_back(&mut self, mut server: Leased) {
        if self.is_kept() {
            let pins = std::mem::take(&mut self.turn.new_pins);
            self.keep(server, pins);
        } else {
            server.mark_clean(self.turn.began.unwrap_or_else(Instant::now));
        }
    }

    /// A server that was lost with what it was kept for: the session is not what it was.
    pub(super) fn lost_with_state(&mut self, server: &Leased) {
        if self.turn.new_pins.is_empty() {
            return;
        }
        let what: Vec<&str> = self.turn.new_pins.iter().map(|pin| pin.as_str()).collect();
        let message = "terminating connection: the server connection that was kept for this session was lost";
        let report = ErrorReport::fatal(SqlState::ADMIN_SHUTDOWN, message).with_detail(format!(
            "It was kept for: {}. Server {} of shard \"{}\".",
            what.join(", "),
            server.server().config.address(),
            server.server().shard_name
        ));
        self.ending = Some(Box::new(report));
        self.turn.new_pins.clear();
        self.tell_pins();
    }

    /// The same, when the client already has its answer.
    pub(super) fn lost_afterwards(&mut self, server: &Leased, error: &ServerError) {
        server.server().report_failure(&error.to_string());
        self.lost_with_state(server);
    }

    fn keep(&mut self, server: Leased, pins: Pins) {
        if self.pool_mode() == PoolMode::Transaction {
            let listens = pins.contains(&Pin::Listen).then_some(self.cancel.id);
            self.x.pass_notifications(listens);
        }
        self.kept.push(Kept { leased: server, pins });
        self.tell_pins();
    }

    /// All causes, for SHOW CLIENTS.
    pub(super) fn tell_pins(&self) {
        let mut causes: Vec<&str> = Vec::new();
        for pin in self.kept.iter().flat_map(|kept| &kept.pins).chain(&self.turn.new_pins) {
            if !causes.contains(&pin.as_str()) {
                causes.push(pin.as_str());
            }
        }
        self.stats.set_pins(&causes);
    }
}

impl Kept {
    /// Gives it back clean; what DISCARD ALL does not undo is closed.
    pub(super) fn release(self) {
        if !self.pins.contains(&Pin::Other) {
            self.leased.scrub_and_return();
        }
    }

    /// The same, and waits until it is so: up to five seconds, then it is closed.
    pub(super) async fn release_now(mut self) {
        if self.pins.contains(&Pin::Other) {
            return; // dirty: closed
        }
        let scrubbed = self.leased.scrub();
        if let Ok(Err(error)) = tokio::time::timeout(std::time::Duration::from_secs(5), scrubbed).await {
            tracing::debug!(%error, "a server connection could not be cleaned and is closed");
        }
    }
}

fn too_many(server: &Leased) -> ErrorReport {
    let message = format!(
        "terminating connection: too many clients keep a server connection to {} for themselves: {} is the limit",
        server.server().config.address(),
        server.max_pinned()
    );
    ErrorReport::fatal(SqlState::TOO_MANY_CONNECTIONS, message)
        .with_detail("A function has left something in the session. Its transaction has been committed.")
        .with_hint("Have it keep less (ON COMMIT DROP, transaction-level locks), or raise pool.max_pinned.")
}
