//! PREPARE and EXECUTE of SQL: they share their names with the protocol's prepared statements, and are carried out as
//! such: a Query that says one of them is taken for the messages that say the same.
//! Must not know how statements are prepared on servers (`deferred`).

use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use smallvec::SmallVec;

use super::client::Client;
use super::extended::no_statement;
use super::feed::{Fed, Step};
use super::measure::Part;
use super::prepared::ClientStatement;
use crate::exec::Expect;
use crate::route::{
    Access, Argument, Kind, Pin, Prepared, Route, RouteError, Router, Statement, Verb, filled_by, prepared,
};
use crate::wire::{BackendWriter, ClientFacing as _, DescribeTarget, ErrorReport, FrontendWriter, SqlState};

impl Client {
    /// PREPARE or EXECUTE, alone in its Query. `None`: a server that is kept for such names has to answer it.
    pub(super) fn of_prepared(&mut self, sql: &[u8]) -> Result<Option<Fed>, RouteError> {
        if self.is_held_failed() || self.is_open_failed() || self.owns_names() {
            return Ok(None);
        }
        match prepared(sql, &self.vars.env) {
            Some(Prepared::Prepare { name, types, head }) => {
                let elsewhere = self.keeps_names() && self.statements.get(&name).is_none();
                if elsewhere {
                    return Ok(None);
                }
                let mut messages = BytesMut::new();
                let types: Vec<u8> = types.iter().flat_map(|oid| oid.to_be_bytes()).collect();
                messages.put_parse(&name, &blanked(sql, head.start, head.end), &types);
                messages.put_sync();
                Ok(Some(Fed::Instead(messages)))
            }
            Some(Prepared::Execute { name, at, count, arguments }) => {
                let Some(inner) = self.statements.get(&name).cloned() else {
                    if self.keeps_names() {
                        return Ok(None);
                    }
                    return Err(RouteError::from_report(no_statement(&name)));
                };
                match arguments.and_then(|arguments| values(&arguments, &inner)) {
                    Some(values) => Ok(Some(Fed::Instead(execution(&name, &values)))),
                    None => self.execute_by_name(&inner, sql, (at, count)).map(Some),
                }
            }
            None => Ok(None),
        }
    }

    /// A PREPARE that the proxy does not carry out itself runs on a server that is kept for the names.
    pub(super) fn may_parse_prepared(&self, sql: &[u8]) -> Result<(), ErrorReport> {
        match prepared(sql, &self.vars.env) {
            Some(Prepared::Prepare { name, .. })
                if self.statements.get(&name).is_some() && !self.owns_names() =>
            {
                Err(already_there(&name))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a server is kept that knows names which the proxy does not.
    fn keeps_names(&self) -> bool {
        let kept = self.kept.iter().any(|kept| kept.pins.contains(&Pin::SqlPrepare));
        kept || self.turn.new_pins.contains(&Pin::SqlPrepare)
    }

    /// Whether a name is one that a server alone knows: from this text, or from an earlier one.
    pub(super) fn is_servers_name(&self, name: &String, of_text: &[String]) -> bool {
        self.owns_names()
            || of_text.contains(name)
            || self.keeps_names() && self.statements.get(name).is_none()
    }

    /// PREPARE and EXECUTE among other statements run as they stand: what they prepare, their server knows alone.
    pub(super) fn name_in_text(&self, text: &[u8], of_text: &mut Vec<String>) -> Result<(), RouteError> {
        match prepared(text, &self.vars.env) {
            _ if self.owns_names() => Ok(()),
            Some(Prepared::Prepare { name, .. }) if self.statements.get(&name).is_some() => {
                Err(RouteError::from_report(already_there(&name)))
            }
            Some(Prepared::Prepare { name, .. }) => {
                of_text.push(name);
                Ok(())
            }
            Some(Prepared::Execute { .. }) | None => Ok(()),
        }
    }

    /// Where a text names statements that the client has prepared: servers have them under names of their own.
    pub(super) fn names_in(&self, statements: &[Statement], sql: &[u8]) -> Result<Names, RouteError> {
        let mut names = Names::new();
        if self.owns_names() || self.statements.is_empty() || self.is_open_failed() {
            return Ok(names);
        }
        for (n, statement) in statements.iter().enumerate() {
            let text = sql.get(statement.span.clone()).unwrap_or_default();
            let is_execute = matches!(statement.kind(), Kind::SqlPrepare);
            let found = match is_execute.then(|| prepared(text, &self.vars.env)).flatten() {
                Some(Prepared::Execute { name, at, count, .. }) => Some((name, at, Some(count))),
                Some(Prepared::Prepare { .. }) => None,
                // That of a temporary table is no DDL.
                None if statement.verb() == Verb::Other
                    && matches!(statement.kind(), Kind::Ddl | Kind::Query) =>
                {
                    filled_by(text, &self.vars.env).map(|(name, at)| (name, at, None))
                }
                None => None,
            };
            let Some((name, at, count)) = found else { continue };
            let Some(inner) = self.statements.get(&name).cloned() else { continue };
            let is_query =
                inner.statement.as_ref().is_some_and(|parsed| matches!(parsed.kind(), Kind::Query));
            if !is_query || !is_plain(&inner.router) || inner.executes.is_some() {
                return Err(not_here());
            }
            if let (Some(wanted), Some(count)) = (inner.parameters(), count)
                && wanted != count
                && wanted != 0
                && n == 0
            // else what stands before it is answered first, and the server says so
            {
                return Err(RouteError::from_report(wrong_arguments(&inner.name, wanted, count)));
            }
            let from = statement.span.start;
            names.push(Name { statement: n, at: from + at.start..from + at.end, inner });
        }
        Ok(names)
    }

    /// A statement of the extended protocol that names another of the client's: its text with the name that servers
    /// know, what is known of it, and the other.
    pub(super) fn parsed_execution(
        &self,
        statement: &Statement,
        sql: &[u8],
        router: &Router,
    ) -> Result<Option<Execution>, RouteError> {
        let names = self.names_in(std::slice::from_ref(statement), sql)?;
        let Some(Name { at, inner, .. }) = names.into_iter().next() else { return Ok(None) };
        let mut text = sql.get(..at.start).unwrap_or_default().to_vec();
        text.extend_from_slice(inner.key.server_name().as_bytes());
        text.extend_from_slice(sql.get(at.end..).unwrap_or_default());
        let parsed = if matches!(statement.kind(), Kind::SqlPrepare) {
            inner.statement.clone()
        } else {
            router.prepare(&text, &self.vars.env)?.into_iter().next()
        };
        Ok(Some((text, parsed, inner)))
    }

    /// What a statement executes is to be what it was when it was parsed.
    pub(super) fn check_executed(
        &self,
        statement: &ClientStatement,
        router: &Router,
    ) -> Result<(), ErrorReport> {
        let Some(inner) = &statement.executes else { return Ok(()) };
        if !is_plain(router) {
            return Err(not_here().report());
        }
        match self.statements.get(&inner.name) {
            None => Err(no_statement(&inner.name)),
            Some(now) if now.key == inner.key => Ok(()),
            Some(_) => Err(RouteError::Refused {
                what: format!("EXECUTE parsed before \"{}\" was prepared anew", inner.name),
                hint: "Parse it again.".into(),
            }
            .report()),
        }
    }

    /// Has all of them prepared on the server at hand.
    pub(super) fn have_prepared(&mut self, names: &Names) -> Result<Option<Step>, RouteError> {
        let again = std::mem::take(&mut self.turn.by_name);
        let mut lacks = false;
        for Name { inner, .. } in names {
            if self.check_held(inner).map_err(RouteError::from_report)?.is_some() || !self.is_held_here(inner)
            {
                self.prepare_here(inner);
                lacks = true;
            }
        }
        if !lacks {
            return Ok(None);
        }
        if again {
            return Err(RouteError::Refused {
                what: "EXECUTE of more statements in one query than a server keeps".into(),
                hint: "Raise pool.prepared_statements, or send each as a query of its own.".into(),
            });
        }
        self.turn.by_name = true;
        Ok(Some(self.settle_first().unwrap_or(Step::Settle)))
    }

    /// EXECUTE whose arguments are expressions, or EXPLAIN EXECUTE: the server's own, under the server's name.
    fn execute_by_name(
        &mut self,
        inner: &Arc<ClientStatement>,
        sql: &[u8],
        (at, count): (Range<usize>, usize),
    ) -> Result<Fed, RouteError> {
        let router = match self.router() {
            Ok(router) => router,
            Err(step) => return Ok(Fed::Until(step)),
        };
        let Some(parsed) = &inner.statement else { return Err(not_here()) };
        let plain = matches!(parsed.kind(), Kind::Query | Kind::Ddl | Kind::SetConfig(_));
        if !plain || !router.map().is_single() || !router.map().tables.is_empty() {
            return Err(not_here());
        }
        if let Some(wanted) = inner.parameters().filter(|wanted| !matches!(*wanted, 0) && *wanted != count) {
            return Err(RouteError::from_report(wrong_arguments(&inner.name, wanted, count)));
        }
        let route = route_of(parsed, parsed.route(&router, &inner.sql, &[], &self.vars.env));
        if let Some(step) = self.place(&route)? {
            return Ok(Fed::Until(step));
        }
        if self.check_held(inner).map_err(RouteError::from_report)?.is_some() || !self.is_held_here(inner) {
            self.turn.by_name = true;
            self.prepare_here(inner);
            return Ok(Fed::Until(self.settle_first().unwrap_or(Step::Settle)));
        }
        self.turn.by_name = false;
        if self.x.is_batch_open() {
            self.x.up.put_sync();
            self.x.expect(Expect::Sync { forward: false });
        }
        let mut text = sql.get(..at.start).unwrap_or_default().to_vec();
        text.extend_from_slice(inner.key.server_name().as_bytes());
        text.extend_from_slice(sql.get(at.end..).unwrap_or_default());
        let note = self.note(parsed, Some(&route), true);
        self.take_off(note, Part::Whole);
        let mark = self.note_statement((parsed, &inner.sql), &route, Vec::new());
        self.forget_unnamed();
        self.x.up.put_query(&text);
        self.x.expect(Expect::Query { mark });
        self.turn.queried = true;
        Ok(Fed::Next)
    }

    /// What the server answers is to look like the answer to a Query, if it was one.
    pub(super) fn plainly(&mut self) {
        if self.turn.of_sql > 0 {
            self.x.expect(Expect::Plain);
        }
    }
}

/// A statement of the client's that a text names.
pub(super) struct Name {
    /// Which of the text's statements names it.
    pub(super) statement: usize,
    /// Where its name stands in the text.
    pub(super) at: Range<usize>,
    pub(super) inner: Arc<ClientStatement>,
}

pub(super) type Names = SmallVec<[Name; 1]>;

/// Text, what is known of it, and what it executes.
type Execution = (Vec<u8>, Option<Statement>, Arc<ClientStatement>);

/// Only there may arguments be whatever they are: nothing depends on them.
fn is_plain(router: &Router) -> bool {
    router.map().is_single() && router.map().tables.is_empty()
}

/// On one shard it goes to the primary: a value could make a writer of it as far as anyone knows.
pub(super) fn route_of(parsed: &Statement, found: Result<Route, RouteError>) -> Route {
    let mut route = found.unwrap_or_else(|_| Route {
        verb: parsed.verb(),
        pin: Some(Pin::Unseen),
        binds_transaction: true,
        ..Route::anywhere(Access::Write)
    });
    if route.access == Access::Read {
        route.access = Access::Primary;
    }
    route.pin = Pin::joined(route.pin, Some(Pin::Unseen)); // its arguments may call anything
    route
}

fn not_here() -> RouteError {
    RouteError::Refused {
        what: "EXECUTE with an expression as argument, or within another statement, where tables are placed".into(),
        hint: "Write the arguments as plain constants, or bind them with the protocol's own prepared statements."
            .into(),
    }
}

/// The text with all of PREPARE before the query as blanks, so that errors tell of places in what the client has sent.
fn blanked(sql: &[u8], from: usize, to: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(sql.len());
    for (n, byte) in sql.iter().enumerate() {
        match byte {
            _ if n < from || n >= to => text.push(*byte),
            b'\n' => text.push(b'\n'),
            0x80..=0xbf => {} // a character is one blank
            _ => text.push(b' '),
        }
    }
    text
}

/// The arguments as values of parameters; `None` if the server has to say what they mean.
fn values(arguments: &[Argument], statement: &ClientStatement) -> Option<Vec<Option<String>>> {
    if statement.parameters() == Some(0) {
        return Some(Vec::new()); // PostgreSQL does not look at the arguments of what takes none
    }
    let types = statement.parameter_types();
    if types.len() != arguments.len() {
        // An error, or not known yet: then strings may stand for anything.
        return arguments
            .iter()
            .map(|argument| argument.value(0))
            .collect::<Option<_>>()
            .or_else(|| statement.parameters().is_some().then(|| vec![None; arguments.len()]));
    }
    arguments.iter().zip(types).map(|(argument, oid)| argument.value(oid)).collect()
}

/// Bind, Describe, Execute and Sync.
fn execution(name: &str, values: &[Option<String>]) -> BytesMut {
    let mut tail = BytesMut::new();
    tail.put_u16(0);
    tail.put_u16(values.len() as u16);
    for value in values {
        match value {
            Some(value) => {
                tail.put_u32(value.len() as u32);
                tail.put_slice(value.as_bytes());
            }
            None => tail.put_i32(-1),
        }
    }
    tail.put_u16(0);
    let mut messages = BytesMut::new();
    messages.put_bind("", name, &tail);
    messages.put_target(b'D', DescribeTarget::Portal(""));
    messages.put_execute("", 0);
    messages.put_sync();
    messages
}

/// The command tag of PREPARE.
pub(super) fn tag_of_prepare() -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_command_complete("PREPARE");
    bytes.freeze()
}

/// PostgreSQL's own words.
pub(super) fn already_there(name: &str) -> ErrorReport {
    let message = format!("prepared statement \"{name}\" already exists");
    ErrorReport::error(SqlState::DUPLICATE_PREPARED_STATEMENT, message)
}

/// PostgreSQL's own words.
pub(super) fn wrong_arguments(name: &str, wanted: usize, given: usize) -> ErrorReport {
    let message = format!("wrong number of parameters for prepared statement \"{name}\"");
    ErrorReport::error(SqlState::SYNTAX_ERROR, message)
        .with_detail(format!("Expected {wanted} parameters but got {given}."))
}
