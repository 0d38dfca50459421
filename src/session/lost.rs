//! A server is lost under a client: a read is tried elsewhere, all else is told what is known of it. A server that ends
//! a session in words of its own ends the client's; one that is only gone does not.
//! Must not know how a server is found.

use std::io::ErrorKind;

use bytes::{Buf as _, BytesMut};

use super::client::{Client, Flow};
use super::txn::Txn;
use crate::cluster::ServerState;
use crate::config::PoolMode;
use crate::exec::Lost;
use crate::stats::{ErrorEvent, On};
use crate::wire::{BackendWriter, ErrorFields, ErrorReport, Severity, SqlState, TransactionStatus};

/// A statement of which a dying server cannot have done anything is tried on this many others.
pub(super) const RETRIES: u8 = 3;

impl Client {
    /// The server is gone: a read is tried elsewhere if the client has seen nothing yet, all else is told.
    pub(super) async fn server_lost(&mut self, lost: Lost) -> Flow {
        self.note_done();
        if !self.x.is_under_way() {
            return self.lost_after_all(&lost).await;
        }
        let Some(server) = self.server.take() else { return Flow::End };
        self.x.copy_torn = false;
        self.cancel.clear().await;
        self.unclaim();
        self.x.hold_ready(self.ears.is_some());
        let (state, is_replica) = (server.server().clone(), server.is_replica());
        let kept = !self.turn.new_pins.is_empty();
        self.lost_with_state(&server);
        drop(server); // dirty: closed
        let why = why_lost(&lost);
        // The client has broken the protocol in the middle of a COPY: it is not the server that is ill.
        let by_client =
            lost.said.as_ref().is_some_and(|said| said.sqlstate() == SqlState::PROTOCOL_VIOLATION);
        if !by_client {
            note_loss(&state, &lost, &why);
        }
        let address = state.config.address();
        let torn = self.x.is_torn();
        let answered = self.x.has_answered();
        let was_open = matches!(self.txn, Txn::Open(_));
        let in_batch = self.x.is_batch_open();
        let owed = self.x.abandon();
        self.note_done();
        self.turn.effects.clear();
        self.turn.doubt = false;
        self.turn.barrier = false;
        let wrote = std::mem::take(&mut self.turn.wrote) || std::mem::take(&mut self.turn.batch_wrote);
        if torn {
            return Flow::End; // half a row was passed on: only the end of the connection is honest
        }
        let unknown = if was_open { self.turn.committing } else { wrote };
        if self.is_of_one_server() || by_client {
            let report = lost_report(&lost, why, &address, &state.shard_name, unknown, was_open);
            self.count_lost(On { server: state.slot, shard: state.shard, is_replica });
            return self.lost_with_session(lost.said.as_ref(), report).await;
        }
        if self.turn.only_reads
            && !was_open
            && !kept
            && !answered
            && !self.turn.late // its time is over
            && self.turn.retries < RETRIES
            && !self.replay.is_empty()
        {
            let replay = std::mem::take(&mut self.replay);
            tracing::info!(server = %address, shard = %state.shard_name, why, "a read is tried on another server");
            self.try_again(replay);
            return Flow::Continue;
        }
        let Some(ready_owed) = owed else { return Flow::Continue };
        self.turn.committing = false;
        let report = lost_report(&lost, why, &address, &state.shard_name, unknown, was_open);
        let statement = self.count_lost(On { server: state.slot, shard: state.shard, is_replica });
        self.proxy.stats().error(ErrorEvent {
            sqlstate: report.code.as_str().to_owned(),
            message: report.message.clone(),
            blame: "server",
            database: self.stats.info().database.clone(),
            user: self.stats.info().user.clone(),
            shard: Some(state.shard_name.clone()),
            server: Some(address),
            statement,
        });
        if let Some(said) = &lost.said
            && !self.turn.late
        {
            // pg_terminate_backend(), idle_in_transaction_session_timeout, a shutdown: it is the session that was meant.
            return self.lost_with_session(Some(said).filter(|_| !unknown), report).await;
        }
        if let Some(saved) = self.turn.saved.take() {
            self.vars = saved;
        }
        self.intents_dropped();
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

    /// All was answered, and then the server left, or said what nobody had asked for. The client need not know, unless
    /// something of its own is there.
    async fn lost_after_all(&mut self, lost: &Lost) -> Flow {
        let Some(server) = &self.server else { return Flow::End };
        let state = server.server().clone();
        self.x.drop_rest();
        let idle = self.x.status().unwrap_or(TransactionStatus::Idle) == TransactionStatus::Idle;
        if idle && self.turn.new_pins.is_empty() && self.pool_mode() == PoolMode::Transaction {
            note_loss(&state, lost, &why_lost(lost));
            self.turn.spoiled = true; // closed when the turn is over
            return Flow::Continue;
        }
        self.server = None; // dirty: closed
        self.cancel.clear().await;
        self.unclaim();
        self.farewell(&lost_while_idle(&state, lost)).await;
        Flow::End
    }

    /// The session ends with its server, in that one's own words if it has said any and they say enough.
    async fn lost_with_session(&mut self, said: Option<&ErrorFields>, mut report: ErrorReport) -> Flow {
        if let Some(said) = said {
            report = ErrorReport::fatal(said.sqlstate(), said.message.clone());
        }
        report.severity = Severity::Fatal;
        self.farewell(&report).await;
        Flow::End
    }

    pub(super) fn try_again(&mut self, replay: BytesMut) {
        self.forget_flights();
        self.turn.retries += 1;
        for number in (1..=self.turn.changes.len() as u32).rev() {
            self.take_back(number);
        }
        self.turn.forget_changes();
        self.turn.learning.clear();
        self.portals.clear();
        self.turn.deferred.clear();
        self.turn.stash = None;
        self.turn.skip = false;
        let mut inbuf = replay;
        self.take_current(); // it is in what was kept
        // The Query that the rest stands for is, too.
        self.inbuf.advance(std::mem::take(&mut self.turn.of_sql).min(self.inbuf.len()));
        self.turn.by_name = false;
        inbuf.extend_from_slice(&self.inbuf);
        self.inbuf = inbuf;
    }
}

fn why_lost(lost: &Lost) -> String {
    match (&lost.said, &lost.io) {
        (Some(fields), _) => fields.message.clone(),
        (None, Some(io)) => io.to_string(),
        (None, None) => "the server closed the connection unexpectedly".to_owned(),
    }
}

/// Takes note of the loss of a server that holds something of an idle client; what the client is told.
pub(super) fn lost_while_idle(server: &ServerState, lost: &Lost) -> ErrorReport {
    if let Some(said) = &lost.said {
        // idle_in_transaction_session_timeout, idle_session_timeout, an operator: it is this session that was meant.
        note_loss(server, lost, &said.message);
        return ErrorReport::fatal(said.sqlstate(), said.message.clone());
    }
    let text = "terminating connection: the server connection of this session was lost";
    note_loss(server, lost, text);
    ErrorReport::fatal(SqlState::ADMIN_SHUTDOWN, text).with_detail(format!(
        "Server {} of shard \"{}\".",
        server.config.address(),
        server.shard_name
    ))
}

fn note_loss(server: &ServerState, lost: &Lost, why: &str) {
    match &lost.io {
        Some(io) if io.kind() == ErrorKind::InvalidData => server.report_broken(why),
        Some(_) | None => server.report_loss(lost.said.as_ref(), why),
    }
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
