//! Where a statement goes that is routed by its words: utility statements, and what the parser does not know.
//! Must not know syntax trees. Source: DESIGN, section 3; CRATES, 4.5.

use crate::catalog::Catalog;
use crate::shard::{Map, Placement, ShardId, TableName};

use super::names::{Lexicon, Named};
use super::utility::Rule;
use super::{Env, RouteError, Target};

/// What the words of a statement are judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// Where tables live.
    pub(super) map: &'a Map,
    /// What tables there are.
    pub(super) catalog: &'a Catalog,
    /// What names stand for tables.
    pub(super) lexicon: &'a Lexicon,
}

impl Ground<'_> {
    /// The target of a statement under a rule, when the client does not say which.
    ///
    /// # Errors
    /// [`RouteError::Refused`] if several shards would have to see it, or might.
    pub(super) fn target(&self, statement: &[u8], rule: &Rule, env: &Env) -> Result<Target, RouteError> {
        let default = Target::Shard(self.map.default_shard);
        if matches!(rule, Rule::Anywhere) {
            return Ok(Target::Any);
        }
        if self.map.is_single() {
            return Ok(default);
        }
        match rule {
            Rule::Anywhere | Rule::Default => Ok(default),
            Rule::Tables { construct, reason, in_strings, hint } => {
                let named = self.lexicon.named(statement, env, *in_strings);
                self.shard_of(&named, construct, reason.as_deref(), hint).map(Target::Shard)
            }
            Rule::DefaultTables { construct } => {
                let named = self.lexicon.named(statement, env, false);
                let hint =
                    "Name only tables of the default shard, or the shard itself: /* pgherd: shard=NAME */.";
                let shard = self.shard_of(&named, construct, None, hint)?;
                if shard == self.map.default_shard {
                    Ok(default)
                } else {
                    let other = self.map.shard_name(shard);
                    Err(refused(format!("{construct} that names a table of shard \"{other}\""), hint))
                }
            }
            Rule::Copy { table, from } => self.copy_target(table, *from, env),
            Rule::Never { construct, hint } => {
                Err(refused(format!("{construct} cannot run on one of several shards alone"), hint))
            }
        }
    }

    /// The one shard that holds all a statement names.
    fn shard_of(
        &self,
        named: &Named,
        construct: &str,
        reason: Option<&str>,
        hint: &str,
    ) -> Result<ShardId, RouteError> {
        let because = reason.map_or(String::new(), |reason| format!(": {reason}"));
        if let Some(table) = &named.spread {
            let what =
                format!("{construct} that names table \"{table}\", which is not on one shard{because}");
            return Err(refused(what, hint));
        }
        if let Some(what) = named.unclear {
            return Err(refused(format!("{construct} with {what}{because}"), hint));
        }
        match named.shards.single() {
            Some(shard) => Ok(shard),
            None if named.shards.is_empty() => Ok(self.map.default_shard),
            None => Err(refused(format!("{construct} that names tables of several shards{because}"), hint)),
        }
    }

    fn copy_target(&self, table: &[String], from: bool, env: &Env) -> Result<Target, RouteError> {
        match self.placement(table, env) {
            Some(Placement::Single(shard)) => Ok(Target::Shard(shard)),
            Some(Placement::Reference) if !from => Ok(Target::Any),
            Some(Placement::Reference | Placement::Sharded(_)) | None => {
                let (direction, table) = (if from { "FROM" } else { "TO" }, table.join("."));
                let what = format!("COPY {direction} of table \"{table}\", which is not on one shard");
                Err(refused(
                    what,
                    "Copy each shard by itself, naming it: /* pgherd: shard=NAME */ before COPY.",
                ))
            }
        }
    }

    /// Where the table lives that a name means; `None` if it may mean tables of different placement.
    fn placement(&self, name: &[String], env: &Env) -> Option<Placement> {
        let (bare, schema) = name.split_last()?;
        let exists = |table: &TableName| {
            let key = (table.schema.clone(), table.name.clone());
            self.map.tables.contains_key(table) || self.catalog.relations.contains_key(&key)
        };
        let found = match schema.last() {
            Some(schema) => Some(TableName::new(schema, bare)),
            None => {
                let path = env.search_path.as_ref().unwrap_or(&self.catalog.search_path);
                path.iter().map(|schema| TableName::new(schema, bare)).find(exists)
            }
        };
        match found {
            Some(table) => self.view(&table).or_else(|| Some(self.map.placement(&table))),
            // Not on the path: a temporary table, or one that the catalogs do not show yet.
            None if self.map.tables.keys().any(|table| table.name == *bare) => None,
            None => Some(Placement::Single(self.map.default_shard)),
        }
    }

    /// COPY of a view fails on any server; that of a materialised one reads what its own shard holds.
    fn view(&self, table: &TableName) -> Option<Placement> {
        let relation = self.catalog.relations.get(&(table.schema.clone(), table.name.clone()))?;
        (!relation.reads.is_empty()).then_some(Placement::Single(self.map.default_shard))
    }
}

fn refused(what: String, hint: &str) -> RouteError {
    RouteError::Refused { what, hint: hint.to_owned() }
}
