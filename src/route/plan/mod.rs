//! A parsed statement to a [`Plan`], and a plan with values to a [`Route`].
//! Must not do I/O or know servers. Exact or refused: what is in doubt leaves more shards, never fewer.
//!
//! A plan is shared by all texts that differ in the values of literals only, so it remembers keys by their place.

mod analysis;
mod arrays;
mod cond;
mod conjuncts;
mod from;
mod functions;
mod graph;
mod insert;
mod keys;
mod names;
mod operands;
mod output;
mod place;
mod query;
mod rewrite;
mod scope;
mod sources;
mod spread;
mod survey;
mod verdict;
mod walker;
mod writes;

use sqlparser::ast::Statement;

use self::analysis::KeyUpdate;
use self::cond::Cond;
use self::insert::Insert;
use self::keys::Values;
use self::spread::Obstacle;
use super::lex::LiteralAt;
use super::{Access, Asks, Env, Param, Pin, Route, RouteError, Target, Verb};
use crate::catalog::Catalog;
use crate::shard::{Map, ShardId, TableName};

/// What a statement is analysed against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// Where tables are.
    pub(super) map: &'a Map,
    /// What tables and functions there are.
    pub(super) catalog: &'a Catalog,
    /// The session.
    pub(super) env: &'a Env,
}

/// One statement, analysed.
#[derive(Debug)]
pub(super) struct Plan {
    verb: Verb,
    access: Access,
    pin: Option<Pin>,
    asks: Asks,
    binds: bool,
    /// See [`Plan::by_text_only`].
    by_text: bool,
    /// It acts on one cluster's own state: where no table says otherwise, the default shard's.
    homed: bool,
    /// Why it is refused on several shards, whatever its values.
    refusal: Option<RouteError>,
    /// The sharded tables that it reads, updates or deletes from.
    tables: Vec<Keyed>,
    /// The shards that other tables of it live on, and what for.
    pins: Vec<(ShardId, String)>,
    inserts: Vec<Insert>,
    key_updates: Vec<KeyUpdate>,
    /// Whether several shards may answer together.
    spread: Result<(), Obstacle>,
    /// Parameters whose inferred type is not known.
    untrusted: Vec<u16>,
}

/// One appearance of a sharded table.
#[derive(Debug)]
struct Keyed {
    inst: usize,
    table: TableName,
    cond: Cond,
}

impl Plan {
    /// Analyses one statement. `text` is what the tree was parsed from, `source` the client's own bytes: of the
    /// same length, places in one are places in the other. `literals` are those of `source`, in order. Errors are
    /// kept and returned by [`Plan::route`].
    pub(super) fn analyze(
        tree: &Statement,
        text: &str,
        source: &[u8],
        literals: &[LiteralAt],
        ctx: &Context<'_>,
    ) -> Self {
        verdict::plan(tree, text, source, literals, ctx)
    }

    /// Whether it depends on the value of a literal other than by its place: then it may be cached only under
    /// its exact text.
    pub(super) fn by_text_only(&self) -> bool {
        self.by_text
    }

    /// What it counts as.
    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    /// The shard of a single table that it names: the others may not have that table.
    pub(super) fn home(&self) -> Option<ShardId> {
        self.pins.first().map(|(shard, _)| *shard)
    }

    /// Where the statement goes with these values. `text` is one that shares the plan, `literals` its own.
    ///
    /// # Errors
    /// [`RouteError`] if several shards would be needed in a way that is not exact, or if the row that is to be
    /// written has no place.
    pub(super) fn route(
        &self,
        map: &Map,
        _catalog: &Catalog,
        text: &[u8],
        literals: &[LiteralAt],
        params: &[Param<'_>],
        env: &Env,
    ) -> Result<Route, RouteError> {
        let values = Values { text, literals, params, env, untrusted: &self.untrusted };
        if map.is_single() { self.on_one(map, &values) } else { self.on_several(map, &values) }
    }

    /// Its route but for the target: for a client that names the shard itself.
    pub(super) fn alone(&self) -> Route {
        self.to(Target::Any, None)
    }
}

#[cfg(test)]
mod tests;
