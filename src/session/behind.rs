//! DDL after DDL: where one session alone works on a database, as in a migration, the catalogs are read when something
//! depends on them, not after each statement. On a session of one server without tables that are placed nothing does.
//! Must not know how catalogs are read.

use super::client::{Client, Place};
use super::feed::Step;
use crate::route::{Kind, Statement};

impl Client {
    /// DDL has taken effect. Says whether its catalogs may be read later: whoever needs them finds them behind.
    pub(super) fn may_read_later(&self) -> bool {
        let Place::Database { served, .. } = &self.place else { return false };
        let later = self.owns_names() || !self.turn.runs_more && self.standing.seat.is_alone();
        if later {
            served.cluster.fall_behind();
        }
        later
    }

    /// A statement goes out that makes DDL take effect, or not in a transaction that is to go on.
    pub(super) fn begin_flux(&mut self, commits: bool) {
        let at_once = commits || self.txn.is_none();
        if at_once
            && self.turn.redefines
            && self.turn.flux.is_none()
            && let Place::Database { served, .. } = &self.place
        {
            self.turn.flux = Some(served.cluster.begin_flux());
        }
    }

    /// Whether a statement may run other code than is known.
    pub(super) fn may_be_outdated(&self, statement: &Statement) -> bool {
        let Place::Database { served, .. } = &self.place else { return false };
        served.cluster.is_in_flux()
            && matches!(statement.kind(), Kind::Query | Kind::CopyIn | Kind::SqlPrepare)
    }

    /// Whether definitions fire event triggers, which may define more.
    pub(super) fn fires_events(&self) -> bool {
        self.router.as_ref().is_none_or(|(_, router)| router.catalog().fires_events)
    }

    /// What must happen before these statements, at `text` each, may be routed. Nothing in all but rare cases.
    pub(super) fn catch_up<'a>(
        &self,
        statements: impl IntoIterator<Item = (&'a Statement, &'a [u8])>,
    ) -> Option<Step> {
        let Place::Database { served, .. } = &self.place else { return None };
        if !served.cluster.is_behind() || self.turn.unread || self.owns_names() {
            return None;
        }
        let needs = statements.into_iter().any(|(statement, text)| !needs_no_catalog(statement, text));
        needs.then_some(Step::ReadSchema)
    }
}

/// Whether a statement is routed, and watched, alike whatever the catalogs say.
fn needs_no_catalog(statement: &Statement, text: &[u8]) -> bool {
    match statement.kind() {
        Kind::Empty
        | Kind::Begin(_)
        | Kind::Commit { .. }
        | Kind::Rollback { .. }
        | Kind::Savepoint(_)
        | Kind::Release(_)
        | Kind::RollbackTo(_)
        | Kind::SetTransaction(_)
        | Kind::Set(_)
        | Kind::Reset(_)
        | Kind::Show(_) => true,
        Kind::Ddl => only_defines(text),
        Kind::Query
        | Kind::CopyIn
        | Kind::SetConfig(_)
        | Kind::Virtual(_)
        | Kind::Command(_)
        | Kind::SqlPrepare
        | Kind::Deallocate(_)
        | Kind::Discard(_)
        | Kind::Listen(_)
        | Kind::Unlisten(_)
        | Kind::TwoPhase => false,
    }
}

/// Whether DDL, by its words, may change what is read of the catalogs. In doubt it does.
pub(super) fn redefines(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_lowercase();
    if text.contains("/*") || text.contains("--") || text.contains(';') {
        return true;
    }
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
    let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
    match (words.first().copied().unwrap_or_default(), words.get(1).copied().unwrap_or_default()) {
        // Which schemas a role may use says where bare names are looked for.
        ("grant" | "revoke", _) => has(&["schema"]),
        ("comment" | "security", _) => false,
        // An expression may call a function.
        ("create", "index") => text.matches('(').count() != 1,
        ("create" | "alter" | "drop", "statistics" | "publication" | "subscription" | "tablespace") => false,
        _ => true,
    }
}

/// Whether DDL, by its words, runs nothing that users wrote: what it defines runs later. In doubt it does.
pub(super) fn only_defines(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_lowercase();
    if text.contains("/*") || text.contains("--") {
        return false;
    }
    let words: Vec<&str> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty()).collect();
    let has = |any: &[&str]| words.iter().any(|word| any.contains(word));
    let at = |n: usize| words.get(n).copied().unwrap_or_default();
    let what = if at(0) == "create" && at(1) == "or" && at(2) == "replace" { at(3) } else { at(1) };
    match (at(0), what) {
        ("comment" | "grant" | "revoke", _) => true,
        ("drop", what) => what != "event",
        ("create", "table") => !has(&["as", "select", "values", "execute"]),
        // Of expressions it is not known what they call.
        ("create", "index" | "unique") => text.matches('(').count() == 1,
        ("create", "function" | "procedure" | "view" | "type" | "sequence" | "trigger" | "domain") => true,
        ("create", "schema") => words.len() <= 7 && !has(&["table", "view", "index", "sequence", "trigger"]),
        ("alter", "table") => !has(&[
            "default",
            "using",
            "check",
            "type",
            "validate",
            "generated",
            "constraint",
            "attach",
            "set",
        ]),
        ("alter", "sequence" | "index" | "view" | "function" | "type") => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_catalogs_as_they_are_is_told() {
        for (sql, want) in [
            ("grant select on t to bob", false),
            ("revoke all on t from bob", false),
            ("GRANT USAGE ON SCHEMA s TO bob", true),
            ("comment on type t is 'x'", false),
            ("create index i on t (a, b)", false),
            ("create index concurrently on t using btree (a)", false),
            ("create index i on t (lower(a))", true),
            ("create unique index i on t (a)", true),
            ("create statistics s on a, b from t", false),
            ("create table t (i int)", true),
            ("alter role bob set search_path = s", true),
            ("grant select on t to bob; create table u ()", true),
            ("grant /* schema */ select on t to bob", true),
        ] {
            assert_eq!(redefines(sql.as_bytes()), want, "{sql}");
        }
    }

    #[test]
    fn what_may_run_code_at_once_is_told_from_what_only_defines() {
        for sql in [
            "create table t (i int primary key, f text default 'x', at timestamptz default now())",
            "CREATE UNIQUE INDEX i ON t (a, b)",
            "create or replace function f() returns int language sql as 'select g()'",
            "alter table t add column j int not null",
            "drop table t cascade",
            "comment on table t is 'x'",
            "create schema s",
        ] {
            assert!(only_defines(sql.as_bytes()), "{sql}");
        }
        for sql in [
            "create table t as select f()",
            "create table t (i int generated always as (f(1)) stored)",
            "create index i on t (lower(a))",
            "create index i on t (a) where (f(a) > 1)",
            "alter table t add column j int default f()",
            "alter table t alter column j type text using f(j)",
            "alter table t add check (f(i) > 0)",
            "create materialized view v as select f()",
            "refresh materialized view v",
            "create event trigger e on ddl_command_start execute function f()",
            "create extension x",
            "do 'begin perform f(); end'",
            "create /* table */ table t as select f()",
            "create schema s create table t as select f()",
        ] {
            assert!(!only_defines(sql.as_bytes()), "{sql}");
        }
    }
}
