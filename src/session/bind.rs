//! Bind: where a statement with its values goes, and the portal that comes of it.
//! Must not know the simple protocol, nor what is done with portals.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::client::{Client, Deferred};
use super::extended::{no_statement, one_statement};
use super::feed::{Fed, Step};
use super::local::aborted;
use super::measure::Note;
use super::prepared::{ClientStatement, Portal, key_of};
use super::query::passed_on;
use super::sql_prepared::{route_of, wrong_arguments};
use crate::exec::Expect;
use crate::pool::StatementKey;
use crate::route::{Kind, Param, Route, RouteError, SetParameter, Statement, Target};
use crate::shard::ShardSet;
use crate::wire::{
    BindFault, BindView, ClientFacing, DescribeTarget, ErrorReport, FrontendWriter, SqlState,
    TransactionStatus, WireError, parse_bind,
};

impl Client {
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
        if let Some(step) = self.sure_of(view.statement) {
            return Ok(Fed::Until(step));
        }
        let Some(statement) = self.statements.get(view.statement).cloned() else {
            if self.owns_names() && !view.statement.is_empty() {
                return self.bind_unknown(view);
            }
            // An error may yet bring it back.
            return self.settle_first().map(Fed::Until).ok_or_else(|| no_statement(view.statement));
        };
        if let Some(BindFault::Counts(error)) = view.fault() {
            return Err(error.report());
        }
        if let Some(wanted) = statement.parameters()
            && wanted != view.len()
        {
            return Err(if self.turn.of_sql > 0 {
                wrong_arguments(view.statement, wanted, view.len())
            } else {
                wrong_count(view, wanted)
            });
        }
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
        if view.fault().is_some() {
            return self.bind_faulty(view, &statement, parsed);
        }
        let params = params_of(view, &statement);
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
        if !self.is_open_failed() {
            self.may_be_prepared(std::slice::from_ref(parsed)).map_err(|e| e.report())?;
        }
        if matches!(route.target, Target::Fanout(_))
            && self.txn.is_none()
            && self.turn.of_sql == 0
            && !statement.knows_counts_of(view)
        {
            // Whether there are as many values and result formats as there must be is told now, not when it is executed.
            if self.server.is_none()
                && let Some(step) = self.lease_for(None, true)
            {
                return Ok(Fed::Until(step));
            }
            if let Some(step) = self.learn(&statement) {
                return Ok(Fed::Until(step));
            }
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
            if let Some(step) = self.name_taken(view, &statement, false)? {
                return Ok(Fed::Until(step));
            }
            let (given, columns) = (view.result_formats().len(), statement.columns());
            if let Some(columns) = columns.filter(|columns| given > 1 && given != *columns) {
                return Err(wrong_formats(given, columns));
            }
            let note = self.note(parsed, Some(&route), true);
            return Ok(self.bind_fanout(view, &statement, shards, note));
        }
        if let Some(step) = self.name_taken(view, &statement, true)? {
            return Ok(Fed::Until(step));
        }
        let sets = self.configured(parsed, &params).map_err(|e| e.report())?;
        if route.rewrite.is_none()
            && let Some(step) = self.check_held(&statement)?
        {
            return Ok(Fed::Until(step));
        }
        let mut route = route;
        if let Some(step) = self.signal((parsed, &statement.sql), &params, &mut route) {
            return Ok(Fed::Until(step));
        }
        self.bind_on_server(view, &statement, parsed, &route, sets);
        Ok(Fed::Next)
    }

    /// Values that any server refuses: one does, in its own words and at its own time, for what comes before the fault
    /// may be wrong too. No portal comes of it.
    fn bind_faulty(
        &mut self,
        view: &BindView<'_>,
        statement: &Arc<ClientStatement>,
        parsed: &Statement,
    ) -> Result<Fed, ErrorReport> {
        if self.server.is_none()
            && let Some(step) = self.lease_for(parsed.home(), true)
        {
            return Ok(Fed::Until(step));
        }
        if let Some(step) = self.name_taken(view, statement, true)? {
            return Ok(Fed::Until(step));
        }
        if let Some(step) = self.check_held(statement)? {
            return Ok(Fed::Until(step));
        }
        self.emit_deferred(None);
        self.ensure_prepared(statement, &statement.sql, statement.key);
        self.put_bind(view, statement, statement.key);
        self.portals.remove(view.portal);
        Ok(Fed::Next)
    }

    fn put_bind(&mut self, view: &BindView<'_>, statement: &ClientStatement, key: StatementKey) {
        self.plainly();
        self.close_left_over(view.portal);
        self.x.up.put_bind(view.portal, &self.server_name(statement, key), view.tail);
        let told = statement.name.is_empty() || statement.parameters().is_some() || self.owns_names();
        self.x.expect(if told { Expect::Bind } else { Expect::BindOf(statement.name.as_str().into()) });
    }

    /// A Query that fails in a transaction leaves its portal, whose plan is gone: PostgreSQL 15 may crash if it is executed,
    /// as it would be if a Bind that was to replace it has failed.
    pub(super) fn close_left_over(&mut self, portal: &str) {
        if portal.is_empty() && (self.turn.queried || self.is_open_failed()) {
            self.x.up.put_target(b'C', DescribeTarget::Portal(""));
            self.x.expect(Expect::Close { forward: false, key: None });
        }
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
    pub(super) fn is_another_ending(&self) -> bool {
        self.x.is_owed() && !self.x.is_batch_open()
    }

    /// Whether executing it here is more than an answer.
    fn changes_session(&self, kind: &Kind) -> bool {
        !matches!(kind, Kind::Query | Kind::CopyIn | Kind::Empty | Kind::Show(_) | Kind::Virtual(_))
            && matches!(self.local(kind), Ok(Some(_)))
    }

    /// What a server would say of the portal's name where it does not know all portals: `None` is that it is free.
    fn name_taken(
        &mut self,
        view: &BindView<'_>,
        statement: &Arc<ClientStatement>,
        on_server: bool,
    ) -> Result<Option<Step>, ErrorReport> {
        let known = self.portals.get(view.portal).filter(|_| !view.portal.is_empty());
        let failed = on_server && self.is_open_failed(); // then all that comes is refused before names are looked at
        if failed || known.is_none_or(|known| on_server && matches!(known, Portal::Server { .. })) {
            return Ok(None);
        }
        if self.is_another_ending() {
            return Ok(Some(Step::Drain)); // it may be gone by then
        }
        if on_server
            && statement.parameters().is_none()
            && let Some(step) = self.learn(statement)
        {
            return Ok(Some(step)); // the count of values is looked at before the name
        }
        let message = format!("cursor \"{}\" already exists", view.portal);
        Err(ErrorReport::error(SqlState::DUPLICATE_CURSOR, message))
    }

    fn bind_local(
        &mut self,
        view: &BindView<'_>,
        statement: &Arc<ClientStatement>,
    ) -> Result<Fed, ErrorReport> {
        if let Some(step) = self.settle_first() {
            return Ok(Fed::Until(step)); // if that fails, no portal comes of this
        }
        let kind = statement.statement.as_ref().map_or(&Kind::Empty, Statement::kind);
        let wanted = statement.types.len() / 4;
        if !matches!(kind, Kind::Virtual(_)) && wanted != view.len() {
            return Err(wrong_count(view, wanted));
        }
        if matches!(kind, Kind::Empty) && self.status() == TransactionStatus::Failed {
            return Err(aborted().report());
        }
        if let Some(step) = self.name_taken(view, statement, false)? {
            return Ok(Fed::Until(step));
        }
        if let Some(BindFault::Counts(error) | BindFault::Values(error)) = view.fault() {
            return Err(error.report());
        }
        self.check_own_bind(statement, view)?;
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
        self.put_bind(view, statement, key);
        let note = self.note(parsed, Some(route), true);
        let mark = self.note_statement((parsed, &statement.sql), route, sets);
        self.x.retag.extend(tag.map(|tag| (mark, tag)));
        self.portals.insert(view.portal, Portal::Server { mark, note, fetched: false });
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
fn wrong_count(view: &BindView<'_>, wanted: usize) -> ErrorReport {
    let (name, given) = (view.statement, view.len());
    let message = format!(
        "bind message supplies {given} parameters, but prepared statement \"{name}\" requires {wanted}"
    );
    ErrorReport::error(SqlState::PROTOCOL_VIOLATION, message)
}

/// PostgreSQL's own words.
fn wrong_formats(given: usize, columns: usize) -> ErrorReport {
    let message = format!("bind message has {given} result formats but query has {columns} columns");
    ErrorReport::error(SqlState::PROTOCOL_VIOLATION, message)
}
