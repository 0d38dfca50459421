//! The end of an exchange: what the transaction has become, whether the server goes back or stays, what is recorded.
//! Must not know messages.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use super::client::{Client, Flow, Place};
use super::prepared::Portal;
use super::txn::{Open, Txn};
use crate::shard::ShardId;
use crate::stats::{ErrorEvent, StatementSlot};
use crate::wire::{BackendWriter, ErrorFields, TransactionStatus};

impl Client {
    /// Everything has been answered: the transaction status is known, the server may go back.
    pub(super) async fn after_drain(&mut self) {
        self.note_done();
        self.count_traffic();
        self.forget_flights(); // a server that answered less than was asked owes nothing more
        self.turn.barrier = false;
        self.turn.batch_wrote = false;
        self.turn.queried = false;
        self.turn.flushed = false;
        self.turn.parsed_again = false;
        self.turn.effects.clear();
        self.x.retag.clear();
        self.replay.clear();
        if self.turn.deferred.is_empty() {
            self.turn.forget_changes(); // else what waits tells of them by number
        } else {
            self.turn.only_reads = false; // what waits is not in the replay any more
        }
        self.turn.learning.clear();
        self.turn.retries = 0;
        self.turn.late = false;
        // No status: nothing was sent, the statement was refused before.
        match self.x.status().unwrap_or(TransactionStatus::Idle) {
            TransactionStatus::Idle => {
                if std::mem::take(&mut self.turn.hears_by_text) && self.txn.is_none() {
                    Box::pin(self.hear_out()).await;
                    self.intents_committed();
                }
                self.transaction_over().await;
                self.x.hold_ready(self.ears.is_some());
                if self.x.take_held() {
                    self.say_ready();
                    // One who is gone is noticed when the next message is read.
                    let _: Flow = self.flush().await;
                }
            }
            status @ (TransactionStatus::InTransaction | TransactionStatus::Failed) => {
                self.still_in_transaction(status)
            }
        }
    }

    /// The ReadyForQuery that was kept back, after the client's own notifications. Should something have been lost
    /// meanwhile, the session ends when it is idle.
    fn say_ready(&mut self) {
        if self.ending.is_none() {
            self.tell(None);
        }
        let mut bytes = BytesMut::new();
        bytes.put_ready(TransactionStatus::Idle);
        self.x.say(bytes.freeze());
    }

    pub(super) fn still_in_transaction(&mut self, status: TransactionStatus) {
        if !matches!(self.txn, Txn::Open(_)) {
            let saved = self.turn.saved.take().unwrap_or_else(|| self.vars.clone());
            self.txn = Txn::Open(Box::new(Open::found(saved)));
        }
        if let Txn::Open(open) = &mut self.txn {
            open.failed = status == TransactionStatus::Failed;
            open.wrote |= self.turn.wrote;
        }
    }

    pub(super) async fn transaction_over(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let shard = server.server().shard;
        let mut wrote = std::mem::take(&mut self.turn.wrote);
        if let Txn::Open(open) = std::mem::take(&mut self.txn) {
            wrote |= open.wrote;
            if open.intents.is_any() {
                self.intents_dropped(); // COMMIT has failed
            }
            if let Some(after) = open.after {
                self.vars = after;
            }
        }
        self.turn.saved = None;
        if !Arc::ptr_eq(&self.reported, &server.parameters) {
            self.reported = server.parameters.clone(); // every change was passed on
        }
        if std::mem::take(&mut self.turn.divided) {
            self.portals.retain(|portal| !matches!(portal, Portal::Server { .. }));
        } else {
            self.portals.clear();
        }
        self.stats.count_transaction();
        if wrote && !server.is_replica() {
            self.note_write(shard);
            server.drawn = true;
        }
        if std::mem::take(&mut self.turn.touched) {
            server.applied = Some(self.vars.settings.clone());
        }
        if !self.cancel.clear_now() {
            Box::pin(self.cancel.clear()).await;
        }
        if self.ears.is_some() {
            if wrote && !server.is_replica() {
                Box::pin(self.hear_own(shard)).await;
            }
            self.unclaim();
        }
        if std::mem::take(&mut self.x.copy_torn) {
            // The COPY has failed in the middle of a message: whatever is sent there now is that message's rest.
            return self.lost_with_state(&server);
        }
        if self.turn.doubt || !self.turn.new_pins.is_empty() {
            match Box::pin(self.settle_pins(&mut server)).await {
                Ok(pins) => self.turn.new_pins = pins,
                Err(error) => return self.lost_afterwards(&server, &error),
            }
        }
        let spoiled = std::mem::take(&mut self.turn.spoiled);
        if !spoiled || self.is_kept() {
            self.give_back(server);
        } // else it is still dirty: closed
        (self.turn.makes, self.turn.redefines) = (None, false);
        let renews = std::mem::take(&mut self.turn.renews);
        if self.turn.read_schema {
            Box::pin(self.note_ddl()).await;
            if renews {
                self.proxy.renew_servers(); // replicas have heard of it meanwhile
            }
        }
        self.turn.flux = None;
    }

    /// DDL of this session is seen by its next statement.
    async fn note_ddl(&mut self) {
        if self.may_read_later() {
            self.turn.read_schema = false;
        } else {
            self.read_schema().await;
        }
    }

    pub(super) async fn read_schema(&mut self) {
        self.turn.read_schema = false;
        self.turn.runs_more = false;
        if let Place::Database { served, .. } = &self.place
            && let Err(error) = served.cluster.reload_schema().await
        {
            tracing::warn!(%error, "the catalogs could not be read again after DDL");
            self.turn.unread = true;
        }
    }

    pub(super) fn note_write(&mut self, shard: ShardId) {
        let now = Instant::now();
        match self.writes.iter_mut().find(|(s, _)| *s == shard) {
            Some((_, at)) => *at = now,
            None => self.writes.push((shard, now)),
        }
    }

    fn count_traffic(&mut self) {
        let (received, sent) = self.x.take_traffic();
        self.stats.count_bytes(received, sent);
    }

    pub(super) fn record_server_error(&self, fields: &ErrorFields, statement: Option<StatementSlot>) {
        let server = self.server.as_ref().map(|s| s.server());
        self.proxy.stats().error(ErrorEvent {
            sqlstate: fields.code.clone(),
            message: fields.message.clone(),
            blame: "client",
            database: self.stats.info().database.clone(),
            user: self.stats.info().user.clone(),
            shard: server.map(|s| s.shard_name.clone()),
            server: server.map(|s| s.config.address()),
            statement,
        });
    }
}
