//! Portals, and cursors that are some: described and executed.
//! Must not know how a statement is routed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::client::{Client, Deferred};
use super::fanout::FanoutPlan;
use super::feed::{Fed, Step};
use super::local::aborted;
use super::measure::{Note, Part};
use super::prepared::{ClientStatement, Portal};
use super::txn::Txn;
use crate::cluster::Need;
use crate::exec::{Expect, Request};
use crate::route::{Kind, Pin, RouteError, Statement};
use crate::shard::ShardSet;
use crate::wire::{
    BackendWriter, ClientFacing, DescribeTarget, ErrorReport, FrontendWriter, SqlState, TransactionStatus,
    WireError, parse_execute,
};

impl Client {
    pub(super) fn describe_portal(&mut self, name: &str) -> Fed {
        if let Some(step) = self.ends_first(name).or_else(|| self.held_cursor(name)) {
            return Fed::Until(step);
        }
        let (here, cursor) = (self.server.is_some(), self.may_be_cursor());
        match self.portals.get_mut(name) {
            Some(Portal::Fanout { ran: true, .. }) => {
                let what = "Describe of a portal over several shards after its Execute".into();
                let hint = "Describe it before, or describe the statement.".into();
                self.refuse_in_turn(&RouteError::Refused { what, hint }.report())
            }
            Some(Portal::Fanout { describe, .. }) => {
                *describe = true; // answered together with the rows
                Fed::Next
            }
            Some(Portal::Local { statement, tail, .. }) => {
                let (statement, tail) = (statement.clone(), tail.clone());
                let mut out = BytesMut::new();
                match self.describe_own_portal(&statement, &tail, &mut out) {
                    Ok(()) => self.bytes_in_turn(out.freeze()),
                    Err(report) => return self.refuse_in_turn(&report),
                }
                Fed::Next
            }
            found if matches!(found, Some(Portal::Server { .. })) && here || found.is_none() && cursor => {
                self.emit_deferred(None);
                self.x.up.put_target(b'D', DescribeTarget::Portal(name));
                self.x.expect(Expect::DescribePortal);
                Fed::Next
            }
            Some(Portal::Server { .. }) | None => self.refuse_in_turn(&no_portal(name)),
        }
    }

    /// A portal that no Bind has made may be a cursor, which is one too: the server knows.
    pub(super) fn may_be_cursor(&self) -> bool {
        let holds = || self.turn.new_pins.contains(&Pin::HoldCursor) || self.is_of_one_server();
        self.server.is_some() && (matches!(self.txn, Txn::Open(_)) || holds())
    }

    /// A portal that no server has may end with the transaction that is still to end before this message.
    pub(super) fn ends_first(&self, name: &str) -> Option<Step> {
        let ours = matches!(self.portals.get(name), Some(Portal::Local { .. } | Portal::Fanout { .. }));
        (ours && self.is_another_ending()).then_some(Step::Drain)
    }

    /// The server that is kept for a cursor WITH HOLD, if a portal that no Bind has made may be that.
    pub(super) fn held_cursor(&self, name: &str) -> Option<Step> {
        if self.server.is_some() || name.is_empty() || self.portals.get(name).is_some() {
            return None;
        }
        let of_session = self.is_of_one_server();
        let kept = self.kept.iter().find(|k| of_session || k.pins.contains(&Pin::HoldCursor))?;
        Some(Step::Lease { shard: kept.leased.server().shard, need: Need::PRIMARY })
    }

    pub(super) fn on_execute(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        let (name, limit) = parse_execute(body)?;
        if let Some(step) = self.ends_first(name).or_else(|| self.held_cursor(name)) {
            return Ok(Fed::Until(step));
        }
        match self.portals.get(name).cloned() {
            Some(Portal::Server { mark, note, fetched }) if self.server.is_some() => {
                self.emit_deferred(None);
                self.x.up.put_execute(name, limit);
                self.x.expect(Expect::Execute { mark });
                self.take_off(note, if fetched { Part::Again } else { Part::Whole });
                if limit != 0
                    && let Some(Portal::Server { fetched, .. }) = self.portals.get_mut(name)
                {
                    *fetched = true;
                }
                Ok(Fed::Next)
            }
            Some(Portal::Local { ran: true, .. }) => {
                if self.status() == TransactionStatus::Failed {
                    return Ok(self.refuse_in_turn(&aborted().report()));
                }
                let message = format!("portal \"{name}\" cannot be run");
                let code = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
                Ok(self.refuse_in_turn(&ErrorReport::error(code, message)))
            }
            Some(Portal::Local { statement, tail, .. }) => Ok(self.execute_local(name, &statement, &tail)),
            Some(Portal::Fanout { ran: true, .. }) => {
                // A query that has been read to its end has no more rows.
                let mut out = BytesMut::new();
                out.put_command_complete("SELECT 0");
                self.bytes_in_turn(out.freeze());
                Ok(Fed::Next)
            }
            Some(Portal::Fanout { .. }) if self.turn.deferred.iter().any(Deferred::is_for_server) => {
                // Its answer comes before the rows, and an error in it instead of them.
                let report = RouteError::Refused {
                    what: "Parse or Describe between Bind and Execute of a portal over several shards".into(),
                    hint: "Send it before the Bind.".into(),
                };
                Ok(self.refuse_in_turn(&report.report()))
            }
            Some(Portal::Fanout { statement, tail, shards, note, describe, .. }) => {
                let fed = self.execute_fanout(&statement, &tail, (shards, note), describe, limit);
                if let Some(Portal::Fanout { ran, .. }) = self.portals.get_mut(name) {
                    *ran = matches!(fed, Fed::Until(Step::Fanout(_)));
                }
                Ok(fed)
            }
            // The unnamed one is no cursor, and no server is asked to execute it, see `close_left_over`.
            None if !name.is_empty() && self.may_be_cursor() => {
                self.emit_deferred(None);
                self.x.up.put_execute(name, limit);
                self.x.expect(Expect::Execute { mark: 0 });
                Ok(Fed::Next)
            }
            Some(Portal::Server { .. }) | None => Ok(self.refuse_in_turn(&no_portal(name))),
        }
    }

    fn execute_local(&mut self, name: &str, statement: &Arc<ClientStatement>, tail: &Bytes) -> Fed {
        let kind = statement.statement.as_ref().map_or(&Kind::Empty, Statement::kind);
        let local = match self.local(kind) {
            Ok(Some(local)) => local,
            // The transaction's state has changed since Bind: what was local then is the server's now.
            Ok(None) => {
                return self.refuse_in_turn(&no_portal(""));
            }
            Err(error) => {
                return self.refuse_in_turn(&error.report());
            }
        };
        if let Some(step) = self.settle_first() {
            return Fed::Until(step);
        }
        let parsed = statement.statement.as_ref();
        self.turn.measured.subject = parsed.and_then(|parsed| self.note_own(parsed));
        if let Some(step) = self.step_of(&local) {
            return Fed::Until(step);
        }
        match (kind, self.portals.get_mut(name)) {
            (Kind::Commit { .. } | Kind::Rollback { .. }, _) => self.portals.clear(),
            (Kind::Empty | Kind::Show(_) | Kind::Virtual(_), _) => {}
            (_, Some(Portal::Local { ran, .. })) => *ran = true,
            (_, _) => {}
        }
        let mut out = BytesMut::new();
        match self.answer(&local, &statement.sql, Some((&statement.types, tail)), &mut out) {
            Ok(()) => {
                self.count_own(false);
                self.bytes_in_turn(out.freeze());
            }
            Err(report) => return self.refuse_in_turn(&report),
        }
        Fed::Next
    }

    fn execute_fanout(
        &mut self,
        statement: &Arc<ClientStatement>,
        tail: &Bytes,
        (shards, note): (ShardSet, Note),
        describe: bool,
        limit: i32,
    ) -> Fed {
        if limit != 0 {
            let report = RouteError::Refused {
                what: "a row limit on Execute over several shards".into(),
                hint: "Fetch all rows at once (fetch size 0), or add a condition on the sharding key.".into(),
            };
            return self.refuse_in_turn(&report.report());
        }
        if self.server.is_some() {
            if self.x.is_batch_open() {
                if self.turn.batch_wrote {
                    // What was written after its Bind would be committed before the batch has come to its end.
                    return self.refuse_in_turn(&self.second_shard(None).report());
                }
                self.close_batch();
            }
            return Fed::Until(Step::Drain);
        }
        let mut messages = BytesMut::new();
        messages.put_parse("", &statement.sql, &statement.types);
        messages.put_bind("", "", tail);
        messages.put_target(b'D', DescribeTarget::Portal(""));
        messages.put_execute("", 0);
        messages.put_sync();
        let request = Request { messages, describe, preface: BytesMut::new() };
        Fed::Until(Step::Fanout(Box::new(FanoutPlan { shards, note, request, ready: false })))
    }
}

pub(super) fn no_portal(name: &str) -> ErrorReport {
    ErrorReport::error(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
