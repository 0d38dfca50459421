//! The simple protocol: one Query message, one or several statements.
//! Must not know the extended protocol.

use std::sync::Arc;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::client::{Client, Effect, Place, Stash};
use super::ears::{intent_of, intents_of};
use super::fanout::FanoutPlan;
use super::feed::{Fed, Step};
use super::local::Local;
use super::measure::Part;
use super::sql_prepared::Names;
use super::txn::Txn;
use crate::exec::{Expect, Request};
use crate::route::{Access, Kind, Param, Route, RouteError, Router, SetParameter, Statement, Target, Verb};
use crate::wire::{BackendWriter, ClientFacing, FrontendWriter, SqlState, WireError, parse_query};

/// A text that a server gets instead of the client's; and tags to be shown, by the number of the statement.
type Instead = (Vec<u8>, Vec<(u32, &'static str)>);

impl Client {
    pub(super) fn on_query(&mut self, frame: &[u8], body: &[u8]) -> Result<Fed, WireError> {
        let sql = parse_query(body)?;
        match self.query(frame, sql) {
            Ok(fed) => Ok(fed),
            Err(error) if self.may_be_stale(&error) => Ok(Fed::Until(Step::ReadSchema)),
            Err(error) => {
                self.turn.stash = None;
                self.turn.measured.subject = self.subject(sql);
                self.refuse_simple(&error.report());
                Ok(Fed::Next)
            }
        }
    }

    fn query(&mut self, frame: &[u8], sql: &[u8]) -> Result<Fed, RouteError> {
        if !self.turn.deferred.is_empty()
            && let Some(step) = self.place_deferred()?
        {
            return Ok(Fed::Until(step));
        }
        if self.x.is_batch_open() {
            if let Some(step) = self.settle_first() {
                return Ok(Fed::Until(step));
            }
        } else if self.x.is_owed() {
            return Ok(Fed::Until(Step::Drain));
        }
        // A Query destroys the unnamed statement and portal, whatever comes of it.
        let unnamed = self.statements.remove("");
        self.portals.remove("");
        self.forget_unnamed();
        let router = match self.router() {
            Ok(router) => router,
            Err(step) => return Ok(Fed::Until(step)),
        };
        let (statements, route) = match self.turn.stash.take() {
            Some(stash) => (stash.statements, stash.route),
            None => {
                let statements = match router.prepare_after(&mut self.recall, sql, &self.vars.env) {
                    Ok(statements) => statements,
                    Err(error) => {
                        // … unless it cannot even be read.
                        if let Some(unnamed) = unnamed
                            && error.sqlstate() == SqlState::CHARACTER_NOT_IN_REPERTOIRE
                        {
                            self.statements.insert("", unnamed);
                        }
                        return Err(error);
                    }
                };
                self.count_plans(&statements);
                let texts = statements.iter().map(|s| (s, sql.get(s.span.clone()).unwrap_or_default()));
                if let Some(step) = self.catch_up(texts) {
                    return Ok(Fed::Until(step));
                }
                if let [statement] = statements.as_slice() {
                    if matches!(statement.kind(), Kind::SqlPrepare)
                        && let Some(fed) = self.of_prepared(sql)?
                    {
                        return Ok(fed);
                    }
                    // An empty query asks whether the server is there, which a session with one of its own must not answer.
                    if let Some(local) = self.local(statement.kind())?
                        && !(matches!(local, Local::Empty) && self.owns_names())
                    {
                        let statement = statement.clone();
                        // A malformed one is an error here, as it would be on a server.
                        statement.route(&router, sql, &[], &self.vars.env)?;
                        return Ok(self.run_local_simple(&local, &statement, sql));
                    }
                } else if statements.is_empty() && !self.owns_names() {
                    return Ok(self.run_empty());
                } else if self.hears_by_hub()
                    && self.txn.is_none()
                    && let Some(intents) = intents_of(&statements)
                {
                    return Ok(Fed::Until(Step::Hear(intents)));
                }
                let route = match statements.as_slice() {
                    [_] if self.is_open_failed() => passed_on(),
                    [statement] if matches!(statement.kind(), Kind::Empty) => passed_on(),
                    [statement] => {
                        let route = statement.route(&router, sql, &[], &self.vars.env)?;
                        if route.verb == Verb::Other {
                            self.may_parse_prepared(sql).map_err(RouteError::from_report)?;
                        }
                        route
                    }
                    _ => self.route_of_several(&router, &statements, sql)?,
                };
                (statements, route)
            }
        };
        if matches!(statements.as_slice(), [one] if matches!(one.kind(), Kind::Commit { .. }))
            && !self.is_open_failed()
            && self.must_hear_ahead()
        {
            self.turn.stash = Some(Box::new(Stash { statements, route }));
            return Ok(Fed::Until(Step::HearAhead));
        }
        let ahead = self.channels_ahead_of(&statements);
        if !ahead.is_empty() {
            self.turn.stash = Some(Box::new(Stash { statements, route }));
            return Ok(Fed::Until(Step::HearAlso(ahead)));
        }
        if !self.is_open_failed() {
            self.may_be_prepared(&statements)?;
        }
        if let Some(step) = self.place(&route)? {
            self.turn.stash = Some(Box::new(Stash { statements, route }));
            return Ok(Fed::Until(step));
        }
        let names = self.names_in(&statements, sql)?;
        if !names.is_empty() {
            if let Some(step) = self.have_prepared(&names)? {
                self.turn.stash = Some(Box::new(Stash { statements, route }));
                return Ok(Fed::Until(step));
            }
            if self.x.is_batch_open() {
                self.x.up.put_sync();
                self.x.expect(Expect::Sync { forward: false });
            }
        }
        if let Target::Fanout(shards) = route.target {
            let mut messages = BytesMut::with_capacity(frame.len());
            messages.extend_from_slice(frame);
            let Some(statement) = statements.first() else { return Ok(self.run_empty()) };
            let note = self.note(statement, Some(&route), true);
            let request = Request { messages, describe: true, preface: BytesMut::new() };
            let plan = FanoutPlan { shards, note, request, ready: true };
            return Ok(Fed::Until(Step::Fanout(Box::new(plan))));
        }
        let sets = match statements.as_slice() {
            [statement] => self.configured(statement, &[])?,
            _ => Vec::new(),
        };
        let instead = self.instead(&statements, sql, &names);
        let mut route = route;
        if let [statement] = statements.as_slice()
            && let Some(step) = self.signal((statement, sql), &[], &mut route)
        {
            self.turn.stash = Some(Box::new(Stash { statements, route }));
            return Ok(Fed::Until(step));
        }
        let mark = self.note_statements((&statements, sql), &route, sets, &names)?;
        self.forget_unnamed();
        match (&route.rewrite, instead) {
            (_, Some((text, tags))) => {
                self.x.up.put_query(&text);
                self.x.retag.extend(tags.into_iter().map(|(n, tag)| (mark + n, tag)));
            }
            (Some(text), None) => self.x.up.put_query(text.as_bytes()),
            (None, None) => self.x.up.extend_from_slice(frame),
        }
        self.x.expect(Expect::Query { mark });
        self.turn.queried = true;
        Ok(Fed::Next)
    }

    /// A Query goes to the server, which may have joined just now: whoever's unnamed statement it has is destroyed.
    pub(super) fn forget_unnamed(&mut self) {
        if let Some(server) = &mut self.server {
            server.unnamed = None;
        }
    }

    /// The text with what has to be other statements on a server, and the tags to be shown for those.
    fn instead(&self, statements: &[Statement], sql: &[u8], names: &Names) -> Option<Instead> {
        if names.is_empty() && !statements.iter().any(|s| matches!(s.kind(), Kind::Set(_) | Kind::Reset(_))) {
            return None;
        }
        let (mut text, mut tags, mut done) = (Vec::new(), Vec::new(), 0);
        for (n, statement) in statements.iter().enumerate() {
            let unheard = || (statements.len() > 1).then(|| self.unheard(statement.kind())).flatten();
            if let Some(name) = names.iter().find(|name| name.statement == n) {
                text.extend_from_slice(sql.get(done..name.at.start)?);
                text.extend_from_slice(name.inner.key.server_name().as_bytes());
                done = name.at.end;
            } else if let Some((instead, tag)) = self.back_to_login(statement.kind()).or_else(unheard) {
                text.extend_from_slice(sql.get(done..statement.span.start)?);
                text.extend_from_slice(instead.as_bytes());
                done = statement.span.end;
                tags.push((n as u32, tag));
            }
        }
        text.extend_from_slice(sql.get(done..)?);
        (done > 0).then_some((text, tags))
    }

    /// What a statement's calls of `set_config` set.
    pub(super) fn configured(
        &self,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<Vec<SetParameter>, RouteError> {
        let sets = statement.configured(params)?;
        let of_startup = |set: &&SetParameter| {
            set.values.is_empty() && self.vars.settings.to_login(Some(&set.name), false).is_some()
        };
        match sets.iter().find(of_startup) {
            Some(set) => Err(RouteError::Refused {
                what: format!("set_config of \"{}\" to NULL, a startup parameter of this session", set.name),
                hint: format!("Use RESET {}.", set.name),
            }),
            None => Ok(sets),
        }
    }

    fn note_statements(
        &mut self,
        (statements, sql): (&SmallVec<[Statement; 1]>, &[u8]),
        route: &Route,
        sets: Vec<SetParameter>,
        names: &Names,
    ) -> Result<u32, RouteError> {
        if let [statement] = statements.as_slice() {
            let note = self.note(statement, Some(route), true);
            self.take_off(note, Part::Whole);
            return Ok(self.note_statement((statement, sql), route, sets));
        }
        // Several: each gets a mark as soon as one is of interest, for marks count up from the first.
        let first = self.turn.effects.len() as u32 + 1;
        let interesting = statements.iter().any(|s| !matches!(s.kind(), Kind::Query | Kind::Show(_)));
        self.turn.hears_by_text =
            self.hears_by_hub() && statements.iter().any(|s| intent_of(s.kind()).is_some());
        let mut effects = Vec::with_capacity(statements.len());
        for (n, statement) in statements.iter().enumerate() {
            let executed =
                names.iter().find(|name| name.statement == n && matches!(statement.kind(), Kind::SqlPrepare));
            let statement = executed.and_then(|name| name.inner.statement.as_ref()).unwrap_or(statement);
            let sets = self.configured(statement, &[])?;
            let pin = route.pin.filter(|pin| pin.is_cause());
            effects.push(Effect { statement: statement.clone(), pin, sets });
        }
        for (i, statement) in statements.iter().enumerate() {
            self.turn.barrier = true;
            let note = self.note(statement, Some(route), false);
            self.take_off(note, if i + 1 < statements.len() { Part::Begins } else { Part::Whole });
            self.note_statement((statement, sql), route, Vec::new());
        }
        self.turn.effects.truncate(first as usize - 1);
        self.turn.effects.append(&mut effects);
        Ok(if interesting || route.pin.is_some() { first } else { 0 })
    }

    pub(super) fn router(&mut self) -> Result<Arc<Router>, Step> {
        let Place::Database { served, .. } = &self.place else {
            return Ok(self.proxy.admin_router().clone());
        };
        let version = served.cluster.schema_version();
        match &self.router {
            Some((made_for, router)) if *made_for == version => Ok(router.clone()),
            _ => {
                let router = served.router_now().ok_or(Step::ReadSchema)?;
                self.router = Some((version, router.clone()));
                Ok(router)
            }
        }
    }

    /// Whether an error may come from a catalog that is behind the servers': it is then read again, once a turn.
    pub(super) fn may_be_stale(&mut self, error: &RouteError) -> bool {
        let stale = self.is_maybe_stale(error);
        if stale {
            self.turn.reread = true;
            self.turn.stash = None;
        }
        stale
    }

    pub(super) fn is_maybe_stale(&self, error: &RouteError) -> bool {
        let missing = matches!(error, RouteError::Sql { code, .. }
            if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code));
        let Place::Database { served, .. } = &self.place else { return false };
        missing && !self.turn.reread && !served.cluster.is_schema_fresh()
    }

    fn run_empty(&mut self) -> Fed {
        let mut bytes = BytesMut::new();
        bytes.put_empty(b'I');
        bytes.put_ready(self.status());
        self.x.say(bytes.freeze());
        Fed::Next
    }

    fn run_local_simple(&mut self, local: &Local, statement: &Statement, sql: &[u8]) -> Fed {
        if let Some(step) = self.settle_first() {
            return Fed::Until(step);
        }
        self.turn.measured.subject = self.note_own(statement);
        if let Local::Listen(intent) = local
            && self.txn.is_none()
        {
            return Fed::Until(Step::Hear(vec![intent.clone()]));
        }
        if let Some(step) = self.step_of(local) {
            return Fed::Until(step);
        }
        let mut out = BytesMut::new();
        let text = sql.get(statement.span.clone()).unwrap_or(sql);
        match self.answer(local, text, None, &mut out) {
            Ok(()) => {
                self.count_own(false);
                out.put_ready(self.status());
                self.x.say(out.freeze());
            }
            Err(report) => self.refuse_simple(&report),
        }
        Fed::Next
    }

    /// Whether the transaction has failed on its server.
    pub(super) fn is_open_failed(&self) -> bool {
        matches!(&self.txn, Txn::Open(open) if open.failed)
    }

    /// Whether a held transaction has failed: then all but its end is refused.
    pub(super) fn is_held_failed(&self) -> bool {
        matches!(&self.txn, Txn::Held(held) if held.failed)
    }
}

/// In a failed transaction the server that has it answers everything: 25P02, or the transaction's end.
pub(super) fn passed_on() -> Route {
    Route { binds_transaction: true, ..Route::anywhere(Access::Read) }
}
