//! Parse and Describe that wait until a server is chosen, and what servers hold prepared.
//! Must not do I/O.

use std::sync::Arc;

use bytes::Bytes;

use super::client::{Client, Deferred, Place};
use super::feed::Step;
use super::local::aborted;
use super::prepared::ClientStatement;
use crate::exec::Expect;
use crate::pool::StatementKey;
use crate::route::{Route, RouteError, Target};
use crate::shard::ShardId;
use crate::wire::{DescribeTarget, ErrorReport, FrontendWriter, SqlState};

impl Client {
    /// Where Parse and Describe go that no Bind has given a direction: the shard whose tables they name.
    pub(super) fn place_deferred(&mut self) -> Result<Option<Step>, RouteError> {
        if !self.turn.deferred.iter().any(Deferred::is_for_server) {
            self.emit_deferred(None);
            return Ok(None);
        }
        if self.is_held_failed() {
            return Err(aborted());
        }
        if self.server.is_none() {
            let shard = self.home_of_deferred();
            if let Some(step) = self.lease_for(shard, true) {
                return Ok(Some(step));
            }
        }
        for at in 0..self.turn.deferred.len() {
            let Some(Deferred::Describe(statement)) = self.turn.deferred.get(at) else { continue };
            match self.check_held(&statement.clone()) {
                Ok(None) => {}
                Ok(Some(step)) => return Ok(Some(step)),
                Err(report) => {
                    // What came before it is answered.
                    self.drop_deferred(at);
                    self.emit_deferred(None);
                    return Err(RouteError::from_report(report));
                }
            }
        }
        self.emit_deferred(None);
        Ok(None)
    }

    /// The shard that has the tables of the first waiting statement, if one has them all.
    pub(super) fn home_of_deferred(&self) -> Option<ShardId> {
        let Place::Database { served, .. } = &self.place else { return None };
        let router = served.router_now()?;
        self.turn.deferred.iter().find_map(|deferred| {
            let (Deferred::Parse(statement, _)
            | Deferred::Describe(statement)
            | Deferred::Again(_, statement)) = deferred
            else {
                return None;
            };
            let parsed = statement.statement.as_ref()?;
            match parsed.route(&router, &statement.sql, &[], &self.vars.env) {
                Ok(Route { target: Target::Shard(shard), .. }) => Some(shard),
                // Without its values it may be refused, or spread: that is Bind's to say.
                Ok(_) | Err(_) => parsed.home(),
            }
        })
    }

    /// Puts waiting messages upstream. `rewritten`: the text that stands for a statement's own.
    pub(super) fn emit_deferred(&mut self, rewritten: Option<(&ClientStatement, &Bytes, StatementKey)>) {
        let deferred = std::mem::take(&mut self.turn.deferred);
        for (n, message) in deferred.iter().enumerate() {
            let text = |statement: &Arc<ClientStatement>| match rewritten {
                Some((of, sql, key)) if std::ptr::eq(of, &**statement) => Some((sql.clone(), key)),
                _ => None,
            };
            match message {
                Deferred::Local(bytes, number) => {
                    self.x.say(bytes.clone());
                    if *number > 0 {
                        self.x.change(*number);
                    }
                }
                Deferred::Parse(statement, number) => {
                    self.have_executed(statement);
                    let rest = deferred.get(n + 1..).unwrap_or_default();
                    let described = rest
                        .iter()
                        .any(|d| matches!(d, Deferred::Describe(other) if Arc::ptr_eq(statement, other)));
                    match text(statement) {
                        Some((sql, key)) => self.emit_parse(statement, &sql, &statement.types, key, true),
                        None => {
                            let (sql, key) = (&statement.sql, statement.key);
                            self.emit_parse(statement, sql, &statement.types, key, true);
                            if !described && !statement.name.is_empty() && !self.owns_names() {
                                self.emit_describe(statement, key, false);
                            }
                        }
                    }
                    if *number > 0 {
                        self.x.change(*number);
                    }
                }
                Deferred::Again(taken, statement) => {
                    self.ensure_prepared(taken, &taken.sql, taken.key);
                    self.x.up.put_parse(&taken.key.server_name(), &statement.sql, &statement.types);
                    self.x.expect(Expect::ParseOf(taken.name.as_str().into()));
                }
                Deferred::Describe(statement) => {
                    self.have_executed(statement);
                    let (sql, key) =
                        text(statement).unwrap_or_else(|| (statement.sql.clone(), statement.key));
                    self.ensure_prepared(statement, &sql, key);
                    self.emit_describe(statement, key, true);
                }
            }
        }
    }

    fn emit_describe(&mut self, statement: &Arc<ClientStatement>, key: StatementKey, asked: bool) {
        let name = self.server_name(statement, key);
        self.x.up.put_target(b'D', DescribeTarget::Statement(&name));
        self.x.expect(Expect::DescribeStatement { forward: asked, key });
        self.turn.learning.push(statement.clone());
    }

    /// Makes sure that the server holds a statement, by a Parse of the proxy's own if need be.
    pub(super) fn ensure_prepared(
        &mut self,
        statement: &Arc<ClientStatement>,
        sql: &Bytes,
        key: StatementKey,
    ) {
        if !self.holds(statement, key) {
            let types =
                if key == statement.key { statement.settled_types() } else { statement.types.clone() };
            self.emit_parse(statement, sql, &types, key, false);
        }
    }

    /// Whether the server at hand holds a statement.
    pub(super) fn is_held_here(&mut self, statement: &ClientStatement) -> bool {
        self.holds(statement, statement.key)
    }

    /// Has prepared what a statement executes by name.
    pub(super) fn have_executed(&mut self, statement: &ClientStatement) {
        if let Some(inner) = &statement.executes {
            self.prepare_here(inner);
        }
    }

    /// Has the server at hand tell what a statement looks like. `None`: it is known, or the server did not say.
    pub(super) fn learn(&mut self, statement: &Arc<ClientStatement>) -> Option<Step> {
        self.server.as_ref()?;
        if !self.turn.learning.iter().any(|other| Arc::ptr_eq(other, statement)) {
            self.emit_deferred(None);
            self.ensure_prepared(statement, &statement.sql, statement.key);
            self.emit_describe(statement, statement.key, false);
        }
        self.settle_first()
    }

    /// Has it prepared on the server at hand, and described.
    pub(super) fn prepare_here(&mut self, statement: &Arc<ClientStatement>) {
        if !self.holds(statement, statement.key) {
            self.ensure_prepared(statement, &statement.sql, statement.key);
            self.emit_describe(statement, statement.key, false);
        }
    }

    fn holds(&mut self, statement: &ClientStatement, key: StatementKey) -> bool {
        if key == statement.key && self.is_there_by_name(statement) {
            return true;
        }
        let client = self.cancel.id;
        // A Parse of the proxy's own may yet be refused, by a transaction that has failed: a Bind behind it would find nothing.
        let sure = !self.turn.parsed_again;
        self.server.as_mut().is_none_or(|server| {
            if statement.name.is_empty() {
                server.unnamed == Some((client, key)) && sure
            } else {
                server.prepared.touch(key).is_some()
            }
        })
    }

    /// One that the client asks for is analysed anew, for its tables may have changed since.
    fn emit_parse(
        &mut self,
        statement: &ClientStatement,
        sql: &Bytes,
        types: &Bytes,
        key: StatementKey,
        asked: bool,
    ) {
        self.plainly();
        if key == statement.key && self.is_there_by_name(statement) {
            self.x.up.put_parse(&statement.name, sql, types);
            self.x.expect(Expect::Parse { forward: asked, key: None });
            return;
        }
        let Some(server) = &mut self.server else { return };
        if statement.name.is_empty() {
            server.unnamed = Some((self.cancel.id, key));
            self.turn.parsed_again |= !asked;
            self.x.up.put_parse("", sql, types);
            self.x.expect(Expect::Parse { forward: asked, key: None });
            return;
        }
        let held = server.prepared.touch(key).is_some().then_some(key);
        // Portals made from it live on.
        if let Some(gone) = server.prepared.insert(key).or(held) {
            self.x.up.put_target(b'C', DescribeTarget::Statement(&gone.server_name()));
            self.x.expect(Expect::Close { forward: false, key: Some(gone) });
        }
        self.x.up.put_parse(&key.server_name(), sql, types);
        self.x.expect(Expect::Parse { forward: asked, key: Some(key) });
    }

    /// Whether a statement is on the server as the client knows it. One PostgreSQL refuses to run a statement whose
    /// columns are not those of the time when it was prepared; a server that is to prepare it only now would not know.
    pub(super) fn check_held(
        &mut self,
        statement: &Arc<ClientStatement>,
    ) -> Result<Option<Step>, ErrorReport> {
        let asked = |d: &Deferred| matches!(d, Deferred::Parse(other, _) if Arc::ptr_eq(other, statement));
        if self.server.is_none() || self.turn.deferred.iter().any(asked) || self.is_there_by_name(statement) {
            return Ok(None);
        }
        let key = statement.key;
        if std::mem::take(&mut self.turn.other_shape) {
            return Err(plan_changed());
        }
        let held = self.holds(statement, key);
        if !held && statement.constants != self.vars.constants && statement.has_fickle_constants() {
            return Err(other_settings(&statement.name));
        }
        let Some(known) = statement.shape.get() else { return Ok(None) };
        if statement.name.is_empty() && (held || !statement.stale) {
            return Ok(None);
        }
        let Some(server) = &mut self.server else { return Ok(None) };
        let here = server.prepared.touch(key).flatten();
        if here.is_some_and(|here| here.columns == known.columns) {
            return Ok(None);
        }
        // Not held, or analysed when its tables were others than for this client: anew, and compared before it runs.
        let outdated = here.is_some();
        if !self.turn.learning.iter().any(|other| Arc::ptr_eq(other, statement)) {
            if outdated {
                self.emit_parse(statement, &statement.sql, &statement.settled_types(), key, false);
            } else {
                self.ensure_prepared(statement, &statement.sql, key);
            }
            self.emit_describe(statement, key, false);
        }
        Ok(self.settle_first())
    }

    /// What a statement, or with another key the text that stands for it, is called on the server.
    pub(super) fn server_name(&self, statement: &ClientStatement, key: StatementKey) -> String {
        if statement.name.is_empty() || key == statement.key && self.owns_names() {
            statement.name.clone()
        } else {
            key.server_name()
        }
    }
}

/// PostgreSQL's own words.
fn plan_changed() -> ErrorReport {
    ErrorReport::error(SqlState::FEATURE_NOT_SUPPORTED, "cached plan must not change result type")
}

fn other_settings(name: &str) -> ErrorReport {
    let message = format!(
        "prepared statement \"{name}\" has constants whose meaning depends on settings that have \
         changed since, and is to run on a server that does not hold it"
    );
    ErrorReport::error(SqlState::FEATURE_NOT_SUPPORTED, message)
        .with_hint("Prepare it again after SET, or pass the constants as parameters.")
}
