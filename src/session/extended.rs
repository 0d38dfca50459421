//! The extended protocol: Parse, Describe and Close; and what is said in its turn.
//! Must not know the simple protocol.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::client::{Client, Deferred, Place};
use super::feed::Fed;
use super::local::aborted;
use super::prepared::{ClientStatement, Portal, key_of};
use super::sql_prepared::{already_there, tag_of_prepare};
use crate::exec::Expect;
use crate::route::{Kind, Pin, Statement, Verb};
use crate::wire::{
    BackendWriter, ClientFacing, DescribeTarget, ErrorReport, FrontendWriter, SqlState, TransactionStatus,
    WireError, parse_parse, parse_target,
};

impl Client {
    pub(super) fn on_parse(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        let view = parse_parse(body)?;
        let taken = self.statements.get(view.name).filter(|_| !view.name.is_empty() && !self.owns_names());
        let taken = taken.cloned();
        if taken.is_some()
            && let Some(step) = self.settle_first()
        {
            return Ok(Fed::Until(step)); // an error may yet take it away
        }
        let router = match self.router() {
            Ok(router) => router,
            Err(step) => return Ok(Fed::Until(step)),
        };
        let settings = (self.vars.constants, self.vars.analysis);
        let same = |s: &&Arc<ClientStatement>| view.name.is_empty() && s.is(&view, &router, settings);
        if let Some(known) = self.statements.get("").filter(same)
            && (self.txn.is_none() || !self.is_proxys_own(known))
        {
            let known = known.clone();
            self.parsed(known, 0);
            return Ok(Fed::Next);
        }
        let parsed = router.prepare_after(&mut self.recall, view.sql, &self.vars.env);
        let parsed = parsed.map_err(|e| e.report());
        if let Ok(parsed) = &parsed {
            self.count_plans(parsed);
        }
        let one = match parsed.and_then(one_statement) {
            Ok(one) => one,
            Err(report) => {
                return Ok(self.refuse_parse(view.name, &report));
            }
        };
        if let Some(step) = self.catch_up(one.as_ref().map(|one| (one, view.sql))) {
            return Ok(Fed::Until(step));
        }
        let mut execution = None;
        if let Some(parsed) =
            one.as_ref().filter(|one| one.verb() == Verb::Other || matches!(one.kind(), Kind::SqlPrepare))
        {
            let found = self.parsed_execution(parsed, view.sql, &router).map_err(|e| e.report());
            let may = |found: Option<_>| match found {
                Some(found) => Ok(Some(found)),
                None => self.may_parse_prepared(view.sql).map(|()| None),
            };
            match found.and_then(may) {
                Ok(found) => execution = found,
                Err(report) => return Ok(self.refuse_parse(view.name, &report)),
            }
        }
        let (sql, one, executes) = match execution {
            Some((text, parsed, inner)) => (Bytes::from(text), parsed, Some(inner)),
            None => (Bytes::copy_from_slice(view.sql), one, None),
        };
        let statement = Arc::new(ClientStatement {
            name: view.name.to_owned(),
            key: key_of(&sql, view.types, self.vars.analysis),
            sql,
            types: Bytes::copy_from_slice(view.types),
            statement: one,
            executes,
            router,
            constants: self.vars.constants,
            analysis: self.vars.analysis,
            shape: OnceLock::new(),
            stale: false,
        });
        if !self.txn.is_none() && !self.may_end(&statement) {
            let own = self.is_proxys_own(&statement);
            if own && let Some(step) = self.settle_first() {
                return Ok(Fed::Until(step)); // the transaction may fail yet
            }
            if self.is_held_failed() || own && self.status() == TransactionStatus::Failed {
                return Ok(self.refuse_parse(view.name, &aborted().report()));
            }
        }
        if let Some(taken) = taken {
            return Ok(self.parse_again(taken, statement));
        }
        let here = self.owns_names() && self.is_proxys_own(&statement);
        if here && !view.name.is_empty() && self.statements.get(view.name).is_some() {
            return Ok(self.refuse_in_turn(&already_there(view.name)));
        }
        let before = self.statements.insert(view.name, statement.clone());
        let number = self.changed(view.name, before);
        self.parsed(statement, number);
        Ok(Fed::Next)
    }

    /// Parse by a name that is taken: an error in the text would be told first.
    fn parse_again(&mut self, taken: Arc<ClientStatement>, statement: Arc<ClientStatement>) -> Fed {
        let unknown = |s: &ClientStatement| {
            s.statement.as_ref().is_some_and(|s| matches!(s.kind(), Kind::Virtual(_) | Kind::Command(_)))
        };
        if self.is_proxys_own(&statement) || unknown(&taken) || matches!(self.place, Place::Admin) {
            return self.refuse_in_turn(&already_there(&taken.name));
        }
        self.turn.deferred.push(Deferred::Again(taken, statement));
        Fed::Next
    }

    /// Whether a statement is taken in a failed transaction: its end, or nothing.
    fn may_end(&self, statement: &ClientStatement) -> bool {
        let kind = statement.statement.as_ref().map(Statement::kind);
        kind.is_none_or(|kind| matches!(kind, Kind::Empty | Kind::Commit { .. } | Kind::Rollback { .. }))
    }

    /// Answers Parse, or lets a server answer it.
    fn parsed(&mut self, statement: Arc<ClientStatement>, number: u32) {
        if self.is_proxys_own(&statement) {
            self.say_in_turn(b'1', number);
        } else {
            self.turn.deferred.push(Deferred::Parse(statement, number));
            if self.turn.of_sql > 0 {
                self.turn.deferred.push(Deferred::Local(tag_of_prepare(), 0));
            }
        }
    }

    /// Whether a statement's Parse and Describe are answered by the proxy, whatever happens to its execution.
    pub(super) fn is_proxys_own(&self, statement: &ClientStatement) -> bool {
        let Some(parsed) = &statement.statement else { return true };
        match parsed.kind() {
            Kind::Empty | Kind::Virtual(_) | Kind::Command(_) => true,
            // Where names are the server's own it has to know these too: it may be the one to execute them.
            Kind::Begin(_) | Kind::Commit { .. } | Kind::Rollback { .. } => {
                statement.name.is_empty() || !self.owns_names()
            }
            Kind::Deallocate(_) => !self.owns_names(),
            Kind::Listen(_) | Kind::Unlisten(_) => self.hears_by_hub(),
            Kind::Reset(name) => {
                matches!(self.place, Place::Admin) || name.as_ref().is_some_and(|n| n.starts_with("pgherd."))
            }
            Kind::Discard(what) => what == "ALL",
            Kind::Set(set) => set.name.starts_with("pgherd."),
            Kind::Show(name) => self.is_own_show(name),
            Kind::Query
            | Kind::CopyIn
            | Kind::SetConfig(_)
            | Kind::Savepoint(_)
            | Kind::Release(_)
            | Kind::RollbackTo(_)
            | Kind::SetTransaction(_)
            | Kind::SqlPrepare
            | Kind::TwoPhase
            | Kind::Ddl => false,
        }
    }

    /// A message without a body, after all that is to be answered before it, with the change of a name that it
    /// tells of (0: none).
    pub(super) fn say_in_turn(&mut self, tag: u8, number: u32) {
        let bytes = match tag {
            b'1' if self.turn.of_sql > 0 => tag_of_prepare(),
            b'2' if self.turn.of_sql > 0 => return,
            tag => {
                let mut bytes = BytesMut::new();
                bytes.put_empty(tag);
                bytes.freeze()
            }
        };
        if self.turn.deferred.is_empty() {
            self.x.say(bytes);
            if number > 0 {
                self.x.change(number);
            }
        } else {
            self.turn.deferred.push(Deferred::Local(bytes, number));
        }
    }

    pub(super) fn bytes_in_turn(&mut self, bytes: Bytes) {
        if self.turn.deferred.is_empty() {
            self.x.say(bytes);
        } else {
            self.turn.deferred.push(Deferred::Local(bytes, 0));
        }
    }

    pub(super) fn on_describe(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        match parse_target(body)? {
            DescribeTarget::Statement(name) => Ok(self.describe_statement(name)),
            DescribeTarget::Portal(name) => Ok(self.describe_portal(name)),
        }
    }

    fn describe_statement(&mut self, name: &str) -> Fed {
        if let Some(step) = self.sure_of(name) {
            return Fed::Until(step);
        }
        let Some(statement) = self.statements.get(name).cloned() else {
            if self.owns_names() && !name.is_empty() {
                return self.pass_name(b'D', name);
            }
            if let Some(step) = self.settle_first() {
                return Fed::Until(step);
            }
            return self.refuse_in_turn(&no_statement(name));
        };
        if !self.is_proxys_own(&statement) {
            if self.server.is_some() && self.x.is_batch_open() {
                // The batch has its direction already.
                match self.check_held(&statement) {
                    Ok(None) => {}
                    Ok(Some(step)) => return Fed::Until(step),
                    Err(report) => {
                        return self.refuse_in_turn(&report);
                    }
                }
                self.turn.deferred.push(Deferred::Describe(statement));
                self.emit_deferred(None);
            } else {
                self.turn.deferred.push(Deferred::Describe(statement));
            }
            return Fed::Next;
        }
        let mut out = BytesMut::new();
        match self.describe_own(&statement, &mut out) {
            Ok(()) => self.bytes_in_turn(out.freeze()),
            Err(report) => return self.refuse_in_turn(&report),
        }
        Fed::Next
    }

    pub(super) fn on_close(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        match parse_target(body)? {
            DescribeTarget::Statement(name) => {
                let is_own = |statement: &Arc<ClientStatement>| self.is_proxys_own(statement);
                if self.owns_names() && !name.is_empty() && !self.statements.get(name).is_some_and(is_own) {
                    let fed = self.pass_name(b'C', name);
                    if matches!(fed, Fed::Next) {
                        let before = self.statements.remove(name);
                        if before.is_some() {
                            let number = self.changed(name, before);
                            self.x.change(number);
                        }
                    }
                    return Ok(fed);
                }
                // Servers keep theirs for other clients.
                let before = self.statements.remove(name);
                let number = if before.is_some() { self.changed(name, before) } else { 0 };
                self.say_in_turn(b'3', number);
            }
            DescribeTarget::Portal(name) => {
                if let Some(step) = self.ends_first(name).or_else(|| self.held_cursor(name)) {
                    return Ok(Fed::Until(step));
                }
                let portal = self.portals.remove(name);
                self.turn.doubt |= portal.is_none() && self.turn.new_pins.contains(&Pin::HoldCursor);
                let on_server = match portal {
                    Some(Portal::Server { .. }) => self.server.is_some(),
                    Some(Portal::Local { .. } | Portal::Fanout { .. }) => false,
                    None => self.may_be_cursor(),
                };
                if on_server {
                    self.emit_deferred(None);
                    self.x.up.put_target(b'C', DescribeTarget::Portal(name));
                    self.x.expect(Expect::Close { forward: true, key: None });
                } else {
                    self.say_in_turn(b'3', 0);
                }
            }
        }
        Ok(Fed::Next)
    }
}

pub(super) fn one_statement(mut parsed: SmallVec<[Statement; 1]>) -> Result<Option<Statement>, ErrorReport> {
    match parsed.len() {
        0 | 1 => Ok(parsed.pop()),
        _ => Err(ErrorReport::error(
            SqlState::SYNTAX_ERROR,
            "cannot insert multiple commands into a prepared statement",
        )),
    }
}

pub(super) fn no_statement(name: &str) -> ErrorReport {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    ErrorReport::error(SqlState::INVALID_SQL_STATEMENT_NAME, message)
}
