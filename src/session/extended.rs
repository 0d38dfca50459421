//! The extended protocol: Parse, Bind, Describe, Execute, Close.
//! Must not know the simple protocol.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::client::{Client, Deferred, Place};
use super::fanout::FanoutPlan;
use super::feed::{Fed, Step};
use super::local::aborted;
use super::measure::{Note, Part};
use super::prepared::{ClientStatement, Portal, key_of};
use super::query::passed_on;
use super::sql_prepared::{already_there, route_of, tag_of_prepare, wrong_arguments};
use super::txn::Txn;
use crate::cluster::Need;
use crate::exec::{Expect, Request};
use crate::route::{Kind, Param, Pin, Route, RouteError, SetParameter, Statement, Target, Verb};
use crate::shard::ShardSet;
use crate::wire::{
    BackendWriter, BindView, ClientFacing, DescribeTarget, ErrorReport, FrontendWriter, SqlState,
    TransactionStatus, WireError, parse_bind, parse_execute, parse_parse, parse_target,
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
        if let Some(known) = self.statements.get("").filter(same) {
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
    fn say_in_turn(&mut self, tag: u8, number: u32) {
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

    fn bytes_in_turn(&mut self, bytes: Bytes) {
        if self.turn.deferred.is_empty() {
            self.x.say(bytes);
        } else {
            self.turn.deferred.push(Deferred::Local(bytes, 0));
        }
    }

    pub(super) fn on_bind(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        let view = parse_bind(body)?;
        match self.bind(&view) {
            Ok(fed) => Ok(fed),
            Err(report) => {
                let known = self.statements.get(view.statement).and_then(|s| s.statement.as_ref());
                self.turn.measured.subject = known.map(|parsed| self.note(parsed, None, true));
                Ok(self.refuse_in_turn(&report))
            }
        }
    }

    fn bind(&mut self, view: &BindView<'_>) -> Result<Fed, ErrorReport> {
        let Some(statement) = self.statements.get(view.statement).cloned() else {
            if self.owns_names() && !view.statement.is_empty() {
                return self.bind_unknown(view);
            }
            // An error may yet bring it back.
            return self.settle_first().map(Fed::Until).ok_or_else(|| no_statement(view.statement));
        };
        if let Some(step) = self.catch_up(statement.statement.as_ref().map(|one| (one, &*statement.sql))) {
            return Ok(Fed::Until(step));
        }
        let statement = self.up_to_date(statement)?;
        let Some(parsed) = &statement.statement else { return self.bind_local(view, &statement) };
        let router = match self.router() {
            Ok(router) => router,
            Err(step) => return Ok(Fed::Until(step)),
        };
        if self.changes_session(parsed.kind()) && self.turn.deferred.iter().any(Deferred::is_for_server) {
            // What it does is undone if what came before it fails: so that is on its server first.
            if let Some(step) = self.place_deferred().map_err(|e| e.report())? {
                return Ok(Fed::Until(step));
            }
        }
        self.check_executed(&statement, &router)?;
        if self.local(parsed.kind()).map_err(|e| e.report())?.is_some() {
            // A malformed one is an error here, as it would be on a server.
            parsed.route(&router, &statement.sql, &[], &self.vars.env).map_err(|e| e.report())?;
            return self.bind_local(view, &statement);
        }
        let params = params_of(view, &statement);
        if let Some(wanted) = statement.parameters()
            && wanted != params.len()
        {
            return Err(if self.turn.of_sql > 0 {
                wrong_arguments(view.statement, wanted, params.len())
            } else {
                wrong_count(view, wanted, params.len())
            });
        }
        let routed = if self.is_open_failed() {
            Ok(passed_on())
        } else {
            parsed.route(&router, &statement.sql, &params, &self.vars.env)
        };
        let route = match routed {
            found if statement.executes.is_some() && !matches!(parsed.kind(), Kind::Ddl) => {
                route_of(parsed, found)
            }
            Ok(route) => route,
            Err(error) if self.may_be_stale(&error) => return Ok(Fed::Until(Step::ReadSchema)),
            Err(error) => return Err(error.report()),
        };
        if matches!(parsed.kind(), Kind::Commit { .. }) && !self.is_open_failed() && self.must_hear_ahead() {
            return Ok(Fed::Until(Step::HearAhead));
        }
        if matches!(route.target, Target::Fanout(_))
            && self.txn.is_none()
            && let Some(step) = self.check_before_fanout().map_err(|e| e.report())?
        {
            return Ok(Fed::Until(step));
        }
        if let Some(step) = self.place(&route).map_err(|e| e.report())? {
            return Ok(Fed::Until(step));
        }
        if let Target::Fanout(shards) = route.target {
            if let Some(step) = self.name_taken(view, false)? {
                return Ok(Fed::Until(step));
            }
            let note = self.note(parsed, Some(&route), true);
            return Ok(self.bind_fanout(view, &statement, shards, note));
        }
        if let Some(step) = self.name_taken(view, true)? {
            return Ok(Fed::Until(step));
        }
        let sets = self.configured(parsed, &params).map_err(|e| e.report())?;
        if route.rewrite.is_none()
            && let Some(step) = self.check_held(&statement)?
        {
            return Ok(Fed::Until(step));
        }
        self.bind_on_server(view, &statement, parsed, &route, sets);
        Ok(Fed::Next)
    }

    /// A statement prepared before the map or the catalogs changed is analysed again.
    fn up_to_date(&mut self, old: Arc<ClientStatement>) -> Result<Arc<ClientStatement>, ErrorReport> {
        let Ok(router) = self.router() else { return Ok(old) };
        if Arc::ptr_eq(&old.router, &router) {
            return Ok(old);
        }
        let parsed = match &old.executes {
            Some(_) => old.statement.clone(), // nothing that the catalogs tell is needed of it
            None => one_statement(router.prepare(&old.sql, &self.vars.env).map_err(|e| e.report())?)?,
        };
        let fresh = Arc::new(ClientStatement {
            name: old.name.clone(),
            sql: old.sql.clone(),
            types: old.types.clone(),
            statement: parsed,
            executes: old.executes.clone(),
            router,
            key: old.key,
            constants: old.constants,
            analysis: old.analysis,
            shape: old.shape.clone(),
            stale: true,
        });
        for waiting in &mut self.turn.learning {
            if Arc::ptr_eq(waiting, &old) {
                *waiting = fresh.clone();
            }
        }
        for deferred in &mut self.turn.deferred {
            if let Deferred::Parse(waiting, _) | Deferred::Describe(waiting) = deferred
                && Arc::ptr_eq(waiting, &old)
            {
                *waiting = fresh.clone();
            }
        }
        self.statements.insert(&fresh.name, fresh.clone());
        Ok(fresh)
    }

    /// Whether a transaction is still to end that was asked to before this message: what is bound here would end with it.
    fn is_another_ending(&self) -> bool {
        self.x.is_owed() && !self.x.is_batch_open()
    }

    /// Whether executing it here is more than an answer.
    fn changes_session(&self, kind: &Kind) -> bool {
        !matches!(kind, Kind::Query | Kind::CopyIn | Kind::Empty | Kind::Show(_) | Kind::Virtual(_))
            && matches!(self.local(kind), Ok(Some(_)))
    }

    /// What a server would say of the portal's name where it does not know all portals: `None` is that it is free.
    fn name_taken(&self, view: &BindView<'_>, on_server: bool) -> Result<Option<Step>, ErrorReport> {
        let known = self.portals.get(view.portal).filter(|_| !view.portal.is_empty());
        if known.is_none_or(|known| on_server && matches!(known, Portal::Server { .. })) {
            return Ok(None);
        }
        if self.is_another_ending() {
            return Ok(Some(Step::Drain)); // it may be gone by then
        }
        let message = format!("cursor \"{}\" already exists", view.portal);
        Err(ErrorReport::error(SqlState::DUPLICATE_CURSOR, message))
    }

    fn bind_local(
        &mut self,
        view: &BindView<'_>,
        statement: &Arc<ClientStatement>,
    ) -> Result<Fed, ErrorReport> {
        if self.is_another_ending() {
            return Ok(Fed::Until(Step::Drain));
        }
        let kind = statement.statement.as_ref().map_or(&Kind::Empty, Statement::kind);
        let wanted = statement.types.len() / 4;
        if !matches!(kind, Kind::Virtual(_)) && wanted != view.len() {
            return Err(wrong_count(view, wanted, view.len()));
        }
        if matches!(kind, Kind::Empty) && self.status() == TransactionStatus::Failed {
            return Err(aborted().report());
        }
        if let Some(step) = self.name_taken(view, false)? {
            return Ok(Fed::Until(step));
        }
        let tail = Bytes::copy_from_slice(view.tail);
        let portal = Portal::Local { statement: statement.clone(), tail, ran: false };
        self.portals.insert(view.portal, portal);
        self.say_in_turn(b'2', 0);
        Ok(Fed::Next)
    }

    /// Before many shards run a statement, one checks it, and describes it if asked. `None`: that is done.
    fn check_before_fanout(&mut self) -> Result<Option<Step>, RouteError> {
        if self.turn.deferred.is_empty() {
            return Ok(None);
        }
        if let Some(step) = self.place_deferred()? {
            return Ok(Some(step));
        }
        if self.server.is_none() {
            return Ok(None);
        }
        self.close_batch();
        Ok(Some(Step::Drain))
    }

    fn bind_fanout(
        &mut self,
        view: &BindView<'_>,
        statement: &Arc<ClientStatement>,
        shards: ShardSet,
        note: Note,
    ) -> Fed {
        if self.is_another_ending() {
            return Fed::Until(Step::Drain);
        }
        let tail = Bytes::copy_from_slice(view.tail);
        let portal =
            Portal::Fanout { statement: statement.clone(), tail, shards, note, describe: false, ran: false };
        self.portals.insert(view.portal, portal);
        self.say_in_turn(b'2', 0);
        Fed::Next
    }

    fn bind_on_server(
        &mut self,
        view: &BindView<'_>,
        statement: &Arc<ClientStatement>,
        parsed: &Statement,
        route: &Route,
        sets: Vec<SetParameter>,
    ) {
        let (instead, tag) = self.back_to_login(parsed.kind()).unzip();
        let rewritten = route.rewrite.as_ref().or(instead.as_ref());
        let rewritten = rewritten.map(|text| Bytes::copy_from_slice(text.as_bytes()));
        let (sql, key) = match &rewritten {
            Some(sql) => (sql, key_of(sql, &statement.types, statement.analysis)),
            None => (&statement.sql, statement.key),
        };
        self.emit_deferred(Some((statement, sql, key)));
        self.have_executed(statement);
        self.ensure_prepared(statement, sql, key);
        self.plainly();
        self.x.up.put_bind(view.portal, &self.server_name(statement, key), view.tail);
        let told = statement.name.is_empty() || statement.parameters().is_some() || self.owns_names();
        self.x.expect(if told { Expect::Bind } else { Expect::BindOf(statement.name.as_str().into()) });
        let note = self.note(parsed, Some(route), true);
        let mark = self.note_statement((parsed, &statement.sql), route, sets);
        self.x.retag.extend(tag.map(|tag| (mark, tag)));
        self.portals.insert(view.portal, Portal::Server { mark, note, fetched: false });
    }

    pub(super) fn on_describe(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        match parse_target(body)? {
            DescribeTarget::Statement(name) => Ok(self.describe_statement(name)),
            DescribeTarget::Portal(name) => Ok(self.describe_portal(name)),
        }
    }

    fn describe_statement(&mut self, name: &str) -> Fed {
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

    fn describe_portal(&mut self, name: &str) -> Fed {
        if let Some(step) = self.held_cursor(name) {
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

    /// A portal of that name that no Bind has made may be a cursor, which is one too: the server knows.
    fn may_be_cursor(&self) -> bool {
        let holds = || self.turn.new_pins.contains(&Pin::HoldCursor) || self.is_of_one_server();
        self.server.is_some() && (matches!(self.txn, Txn::Open(_)) || holds())
    }

    /// The server that is kept for a cursor WITH HOLD, if a portal that no Bind has made may be that.
    fn held_cursor(&self, name: &str) -> Option<Step> {
        if self.server.is_some() || self.portals.get(name).is_some() {
            return None;
        }
        let of_session = self.is_of_one_server();
        let kept = self.kept.iter().find(|k| of_session || k.pins.contains(&Pin::HoldCursor))?;
        Some(Step::Lease { shard: kept.leased.server().shard, need: Need::PRIMARY })
    }

    pub(super) fn on_execute(&mut self, body: &[u8]) -> Result<Fed, WireError> {
        let (name, limit) = parse_execute(body)?;
        if let Some(step) = self.held_cursor(name) {
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
            Some(Portal::Fanout { statement, tail, shards, note, describe, .. }) => {
                let fed = self.execute_fanout(&statement, &tail, (shards, note), describe, limit);
                if let Some(Portal::Fanout { ran, .. }) = self.portals.get_mut(name) {
                    *ran = matches!(fed, Fed::Until(Step::Fanout(_)));
                }
                Ok(fed)
            }
            None if self.may_be_cursor() => {
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
                if let Some(step) = self.held_cursor(name) {
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

fn one_statement(mut parsed: SmallVec<[Statement; 1]>) -> Result<Option<Statement>, ErrorReport> {
    match parsed.len() {
        0 | 1 => Ok(parsed.pop()),
        _ => Err(ErrorReport::error(
            SqlState::SYNTAX_ERROR,
            "cannot insert multiple commands into a prepared statement",
        )),
    }
}

fn params_of<'a>(view: &BindView<'a>, statement: &ClientStatement) -> SmallVec<[Param<'a>; 8]> {
    let oid = |i: usize| {
        statement.types.get(i * 4..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_be_bytes(*b))
    };
    view.values()
        .enumerate()
        .map(|(i, value)| Param { value, binary: view.is_binary(i), type_oid: oid(i) })
        .collect()
}

/// PostgreSQL's own words; a server would call the statement by its own name.
fn wrong_count(view: &BindView<'_>, wanted: usize, given: usize) -> ErrorReport {
    let name = view.statement;
    let message = format!(
        "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
    );
    ErrorReport::error(SqlState::PROTOCOL_VIOLATION, message)
}

pub(super) fn no_statement(name: &str) -> ErrorReport {
    let message = if name.is_empty() {
        "unnamed prepared statement does not exist".to_owned()
    } else {
        format!("prepared statement \"{name}\" does not exist")
    };
    ErrorReport::error(SqlState::INVALID_SQL_STATEMENT_NAME, message)
}

fn no_portal(name: &str) -> ErrorReport {
    ErrorReport::error(SqlState::INVALID_CURSOR_NAME, format!("portal \"{name}\" does not exist"))
}
