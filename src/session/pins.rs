//! Servers that stay with a client because its state lives there, and their release as soon as nothing does.
//! Must not know how a statement is understood.
//!
//! A statement that may have left something, or on a kept server removed something, puts the server in doubt. When the
//! transaction is over the server itself is asked, once, after the client has its answer.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::adopt;
use super::client::{Client, Kept, Place};
use crate::cluster::Leased;
use crate::config::PoolMode;
use crate::pool::ServerError;
use crate::route::{Asks, Kind, Pin, Route, RouteError, Statement};
use crate::stats::Moment;
use crate::wire::{ErrorReport, SqlState, TransactionStatus};

/// Asks a server, outside a transaction, what its session holds: a letter for each cause.
const LEFT_BEHIND: &str = "SELECT \
     CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid = 'pg_catalog.pg_namespace'::regclass \
          AND refobjid = pg_catalog.pg_my_temp_schema() AND refobjid <> 0) THEN 't' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable) THEN 'c' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND granted \
          AND pid = pg_catalog.pg_backend_pid()) THEN 'a' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) THEN 'l' ELSE '' END \
     || CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql) THEN 'p' ELSE '' END";

/// Which letter tells of which cause.
const LETTERS: [(char, Pin); 5] = [
    ('t', Pin::TempTable),
    ('c', Pin::HoldCursor),
    ('a', Pin::AdvisoryLock),
    ('l', Pin::Listen),
    ('p', Pin::SqlPrepare),
];

/// The causes for which one server is kept.
pub(super) type Pins = SmallVec<[Pin; 2]>;

impl Client {
    /// Before a statement goes to the server at hand: whether it may keep that server.
    pub(super) fn may_pin(&mut self, route: &Route) -> Result<(), RouteError> {
        if route.asks.any() {
            self.may_ask(route.asks)?;
        }
        let Some(pin) = route.pin else { return Ok(()) };
        if self.pool_mode() == PoolMode::Session {
            return Ok(());
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

    /// Whether a server's answer for its own session is the client's as well.
    fn may_ask(&self, asks: Asks) -> Result<(), RouteError> {
        if asks.prepared && !self.owns_names() {
            return Err(RouteError::Refused {
                what: "pg_prepared_statements, which has a server's names and texts, of all clients".into(),
                hint: "A client knows what it has prepared; connect to the server itself to look at it."
                    .into(),
            });
        }
        if asks.channels && self.pool_mode() != PoolMode::Session {
            self.may_ask_for_channels()?;
        }
        if asks.sequence && !self.is_of_one_server() {
            self.may_ask_for_sequence(asks.undrawn)?;
        }
        Ok(())
    }

    /// `currval()` on a server tells of whoever called `nextval()` there last. A server that has forgotten what was
    /// drawn before this transaction answers for it alone.
    fn may_ask_for_sequence(&self, undrawn: bool) -> Result<(), RouteError> {
        let wrote = self.turn.batch_wrote
            || matches!(&self.txn, super::txn::Txn::Open(open) if open.wrote || self.turn.wrote);
        if undrawn && !wrote {
            return Err(RouteError::Refused {
                what: "currval() and lastval() outside the transaction that called nextval(), where server connections are shared"
                    .into(),
                hint: "Use INSERT … RETURNING, or run both in one transaction.".into(),
            });
        }
        if !self.server.as_ref().is_some_and(|server| server.drawn) {
            return Ok(());
        }
        Err(RouteError::Sql {
            code: SqlState::SERIALIZATION_FAILURE,
            message: "what currval() and lastval() tell here may have been drawn by another session".into(),
            detail: Some(
                "The transaction began before pgherd had seen either of them in this database since its start; \
                 from now on servers forget what was drawn."
                    .into(),
            ),
            hint: Some(
                "Run the transaction again. With pool.discard_sequences = true they forget from the start."
                    .into(),
            ),
        })
    }

    /// Whether a server is to have forgotten what was drawn from sequences before it serves this session.
    pub(super) fn wants_undrawn(&self) -> bool {
        let Place::Database { served, .. } = &self.place else { return false };
        served.cluster.tells_sequences() && !self.is_of_one_server()
    }

    /// A statement will ask for what was drawn: from now on servers forget what others have drawn.
    pub(super) fn will_ask_for_sequence(&self) {
        if let Place::Database { served, .. } = &self.place {
            served.cluster.tell_sequences();
        }
    }

    /// Whether a statement that goes out may leave something on its server, or remove what was left.
    pub(super) fn note_doubt(&mut self, (statement, text): (&Statement, &[u8]), pin: Option<Pin>) {
        let kept = !self.turn.new_pins.is_empty();
        let doubt = match pin {
            Some(Pin::Released) => kept,
            Some(_) => true,
            None => {
                matches!(statement.kind(), Kind::Ddl | Kind::SqlPrepare)
                    || kept && matches!(statement.kind(), Kind::Discard(_) | Kind::Deallocate(_))
            }
        };
        if doubt || self.may_be_outdated(statement) {
            self.doubt(text);
        }
    }

    /// The server is to be asked what a text has left in its session.
    pub(super) fn doubt(&mut self, text: &[u8]) {
        self.turn.doubt = true;
        if let Some((_, router)) = &self.router {
            let named = router.catalog().leavers.settings_in(&String::from_utf8_lossy(text));
            self.turn.settings.extend(named);
        }
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
        let of_session = self.pool_mode() == PoolMode::Session;
        if of_session && self.is_on_one_server() {
            (self.turn.doubt, self.turn.settings) = (false, BTreeSet::new());
            return Ok(Pins::new());
        }
        if std::mem::take(&mut self.turn.doubt) {
            let Some(letters) = self.ask_what_is_left(server, &pins).await? else { return Ok(Pins::new()) };
            pins.retain(|pin| !LETTERS.iter().any(|(_, known)| known == pin));
            pins.extend(LETTERS.iter().filter(|(l, _)| letters.contains(*l)).map(|(_, pin)| *pin));
        }
        if of_session {
            return Ok(Pins::new());
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

    /// Whether the session is one server's from login to end.
    pub(super) fn is_of_one_server(&self) -> bool {
        let Place::Database { served, .. } = &self.place else { return false };
        let config = served.cluster.config();
        config.pool_mode == PoolMode::Session && config.map.is_single()
    }

    /// Whether all that the session does happens on the one server that it keeps.
    fn is_on_one_server(&self) -> bool {
        self.router.as_ref().is_some_and(|(_, router)| router.map().is_single())
    }

    /// The letters of what is left in a server's session; settings that have changed become the client's own. `None`: it
    /// cannot be told, and the session ends.
    async fn ask_what_is_left(
        &mut self,
        server: &mut Leased,
        pins: &Pins,
    ) -> Result<Option<String>, ServerError> {
        let names = std::mem::take(&mut self.turn.settings);
        // With a setting that nobody can name it stays as it is: whatever it has is the client's.
        let tied = pins.iter().any(|pin| matches!(pin, Pin::SetConfig | Pin::Other));
        let asked = if tied {
            server.ask_all(&[LEFT_BEHIND]).await
        } else {
            let [unhurried, questions] = adopt::questions(LEFT_BEHIND, &self.vars, &names);
            server.ask_all(&[&unhurried, &questions]).await
        };
        let why = match asked {
            Ok((TransactionStatus::Idle, rows)) if tied && rows.len() == 1 => {
                return Ok(rows.into_iter().next());
            }
            Ok((TransactionStatus::Idle, rows)) => match adopt::answers(&rows, &self.vars) {
                Some((letters, now)) => {
                    server.applied = Some(self.vars.settings.clone());
                    if let Some(now) = now {
                        self.vars = now;
                    }
                    return Ok(Some(letters));
                }
                None => "its answer was not understood".to_owned(),
            },
            Ok(_) => "a transaction was left open".to_owned(),
            Err(ServerError::Sql(fields)) if fields.is_fatal() => return Err(ServerError::Sql(fields)),
            Err(ServerError::Sql(fields)) => fields.message,
            Err(error) => return Err(error),
        };
        self.turn.spoiled = true;
        self.turn.new_pins.clear();
        let message = "terminating connection: what code has left in the session cannot be found out";
        let report = ErrorReport::fatal(SqlState::ADMIN_SHUTDOWN, message).with_detail(format!(
            "Server {}: {why}. The transaction is over.",
            server.server().config.address()
        ));
        self.ending = Some(Box::new(report));
        Ok(None)
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
            server.mark_clean(self.turn.began.unwrap_or_else(Moment::now));
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
