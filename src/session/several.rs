//! Several statements in one text: where all of them can go together, and whose error is told.
//! Must not know messages.

use smallvec::SmallVec;

use super::client::Client;
use super::local::no_listen_in_foreign_encoding;
use super::sql_prepared::route_of;
use crate::route::{Access, Asks, Env, Kind, Pin, Route, RouteError, Router, Statement, Target, Verb};
use crate::shard::ShardId;
use crate::wire::{ClientFacing, SqlState};

impl Client {
    /// Several statements in one text run as they stand, on one shard.
    pub(super) fn route_of_several(
        &self,
        router: &Router,
        statements: &SmallVec<[Statement; 1]>,
        sql: &[u8],
    ) -> Result<Route, RouteError> {
        let refused = |what: &str, hint: &str| RouteError::Refused { what: what.into(), hint: hint.into() };
        let mut whole = Route::anywhere(Access::Read);
        // What the statements so far make of the session: names after a SET search_path mean other tables.
        let (mut vars, mut ended) = (self.vars.clone(), false);
        let mut names: Vec<String> = Vec::new();
        let named = self.names_in(statements, sql)?;
        for (n, statement) in statements.iter().enumerate() {
            let among_others = |error| match self.is_maybe_stale(&error) {
                true => error, // the catalogs are read, and then it is looked at again
                false => among_others(statements, n, error),
            };
            let own = match statement.kind() {
                Kind::Virtual(_) | Kind::Command(_) => true,
                Kind::Reset(Some(name)) => name.starts_with("pgherd."),
                Kind::Set(set) => set.name.starts_with("pgherd."),
                Kind::Deallocate(Some(name)) if self.is_servers_name(name, &names) => false,
                Kind::Deallocate(_) => !self.owns_names(),
                Kind::SqlPrepare => {
                    let text = sql.get(statement.span.clone()).unwrap_or_default();
                    self.name_in_text(text, &mut names)?;
                    false
                }
                Kind::Listen(_) | Kind::Unlisten(_) if self.hears_by_hub() => {
                    if self.vars.env.foreign_encoding {
                        return Err(no_listen_in_foreign_encoding());
                    }
                    // What the hub is told before the text is sent lasts until its first transaction ends.
                    if ended && matches!(statement.kind(), Kind::Listen(_)) {
                        return Err(refused(
                            "LISTEN after COMMIT or ROLLBACK in one query",
                            "Send it as a query of its own.",
                        ));
                    }
                    continue;
                }
                Kind::Begin(_)
                | Kind::Commit { .. }
                | Kind::Rollback { .. }
                | Kind::Savepoint(_)
                | Kind::Release(_)
                | Kind::RollbackTo(_)
                | Kind::SetTransaction(_)
                | Kind::TwoPhase => {
                    whole.access = Access::Write;
                    whole.binds_transaction = true;
                    ended |= matches!(statement.kind(), Kind::Commit { .. } | Kind::Rollback { .. });
                    if !router.map().is_single() && matches!(statement.kind(), Kind::TwoPhase) {
                        statement.route(router, sql, &[], &self.vars.env)?;
                    }
                    continue;
                }
                Kind::Empty
                | Kind::Query
                | Kind::CopyIn
                | Kind::SetConfig(_)
                | Kind::Reset(None)
                | Kind::Show(_)
                | Kind::Discard(_)
                | Kind::Listen(_)
                | Kind::Unlisten(_)
                | Kind::Ddl => false,
            };
            if own {
                return Err(refused(
                    "a statement that pgherd answers itself, together with others in one query",
                    "Send it as a query of its own.",
                ));
            }
            let inner =
                named.iter().find(|name| name.statement == n).and_then(|name| name.inner.statement.as_ref());
            let route = if let Some(parsed) = inner.filter(|_| matches!(statement.kind(), Kind::SqlPrepare)) {
                route_of(parsed, parsed.route(router, sql, &[], &self.vars.env))
            } else if vars.env.search_path == self.vars.env.search_path {
                statement.route(router, sql, &[], &self.vars.env).map_err(among_others)?
            } else {
                let env = Env { search_path: vars.env.search_path.clone(), ..self.vars.env.clone() };
                let text = sql.get(statement.span.clone()).unwrap_or_default();
                let again = router.prepare(text, &env)?;
                again.first().unwrap_or(statement).route(router, text, &[], &env).map_err(among_others)?
            };
            whole = join_routes(&whole, &route, router)?;
            if let Kind::Set(set) = statement.kind() {
                vars = vars.with(set);
            } else if let Kind::Reset(name) = statement.kind() {
                vars = vars.reset(name.as_deref());
            } else {
                vars = statement.configured(&[])?.iter().fold(vars, |vars, set| vars.with(set));
            }
        }
        Ok(whole)
    }
}

/// An error of the `n`th statement of a text. A server reads all of them before it runs the first, and tells this when its
/// turn comes: that it is told at all is certain of the first only, and if there is no syntax error in the others.
fn among_others(statements: &[Statement], n: usize, error: RouteError) -> RouteError {
    let RouteError::Sql { code, .. } = &error else { return error };
    if *code == SqlState::SYNTAX_ERROR {
        return error;
    }
    if let Some(before_all) = statements.iter().find_map(Statement::syntax_error) {
        return before_all.clone();
    }
    if n == 0 && statements.iter().all(Statement::is_understood) {
        return error;
    }
    let mut hint = "Send each statement as a query of its own.".to_owned();
    if let Some(own) = error.hint() {
        hint = format!("{hint} {own}");
    }
    RouteError::Refused { what: format!("a statement that fails ({error}) beside others in one query"), hint }
}

fn join_routes(a: &Route, b: &Route, router: &Router) -> Result<Route, RouteError> {
    let spread = |what: String| RouteError::Refused {
        what,
        hint: "Send each statement as a query of its own.".into(),
    };
    let target = match (a.target, b.target) {
        (target, Target::Any) | (Target::Any, target) => target,
        (Target::Shard(x), Target::Shard(y)) if x == y => Target::Shard(x),
        (Target::Shard(x), Target::Shard(y)) => {
            let name = |id: ShardId| router.map().shard_name(id).to_owned();
            return Err(spread(format!(
                "several statements in one query that need different shards (\"{}\" and \"{}\")",
                name(x),
                name(y)
            )));
        }
        _ => return Err(spread("a statement over several shards together with others in one query".into())),
    };
    if matches!(target, Target::Fanout(_)) {
        return Err(spread("a statement over several shards together with others in one query".into()));
    }
    if b.rewrite.is_some() {
        return Err(spread(
            "an INSERT whose sharding key is filled in, together with others in one query".into(),
        ));
    }
    let access = match (a.access, b.access) {
        (Access::Write, _) | (_, Access::Write) => Access::Write,
        (Access::Primary, _) | (_, Access::Primary) => Access::Primary,
        (Access::Read, Access::Read) => Access::Read,
    };
    Ok(Route {
        target,
        access,
        verb: if a.verb == Verb::Other { b.verb } else { a.verb },
        rewrite: None,
        pin: Pin::joined(a.pin, b.pin),
        asks: a.asks.and(Asks { undrawn: b.asks.undrawn && a.access != Access::Write, ..b.asks }),
        binds_transaction: a.binds_transaction || b.binds_transaction,
        partition: None,
    })
}
