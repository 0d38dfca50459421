//! The table a request names, and on which shards its statement and its key put it.
//! Must not know what is done with the table.

use std::fmt::Write as _;

use super::super::error::HttpError;
use super::super::link::Param;
use crate::catalog::{Column, Relation, RelationKind};
use crate::route::{self, Env, Route, RouteError, Router, Target};
use crate::shard::{Key, KeyColumn, KeyType, Method, Placement, ShardId, ShardSet, TableName};
use crate::wire::{ClientFacing as _, SqlState};

/// The most columns that a hint lists.
const MOST_COLUMNS: usize = 50;

/// A table of the catalog.
#[derive(Debug)]
pub(super) struct Table<'r> {
    router: &'r Router,
    pub(super) name: TableName,
    pub(super) relation: &'r Relation,
}

impl<'r> Table<'r> {
    /// The table of that name, as the catalog spells it: `table` in the search path, or `schema.table`.
    pub(super) fn find(router: &'r Router, name: &str) -> Option<Self> {
        let catalog = router.catalog();
        let bare = catalog.search_path.iter().map(|schema| (schema.clone(), name.to_owned()));
        let qualified = name.split_once('.').map(|(schema, name)| (schema.to_owned(), name.to_owned()));
        let found = bare.chain(qualified).find_map(|key| catalog.relations.get_key_value(&key));
        let ((schema, name), relation) = found.filter(|(_, r)| r.kind != RelationKind::Sequence)?;
        Some(Self { router, name: TableName { schema: schema.clone(), name: name.clone() }, relation })
    }

    /// Its name as SQL.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}", route::quoted(&self.name.schema), route::quoted(&self.name.name))
    }

    /// Its column of that name, as the catalog spells it.
    pub(super) fn column(&self, name: &str) -> Result<&'r Column, HttpError> {
        self.relation.column(name).ok_or_else(|| {
            let message = format!("column \"{name}\" of table \"{}\" does not exist", self.name);
            let names = self.relation.columns.iter().map(|c| c.name.as_str()).take(MOST_COLUMNS);
            let known = names.collect::<Vec<_>>().join(", ");
            HttpError::new(SqlState::UNDEFINED_COLUMN, message).hint(format!("There are {known}."))
        })
    }

    /// Where a statement on it goes.
    pub(super) fn route(&self, sql: &str, params: &[Param]) -> Result<Route, RouteError> {
        let values: Vec<_> = params
            .iter()
            .map(|p| route::Param { value: p.as_ref().map(String::as_bytes), binary: false, type_oid: 0 })
            .collect();
        let env = Env::default();
        let statements = self.router.prepare(sql.as_bytes(), &env)?;
        match statements.as_slice() {
            [statement] => statement.route(self.router, sql.as_bytes(), &values, &env),
            // The proxy's own text is always one.
            _ => Err(RouteError::Refused { what: "several statements".to_owned(), hint: String::new() }),
        }
    }

    /// The shard that rows of this key are on; `None` if it is not spread by keys, so that a key says nothing.
    pub(super) fn shard_of_key(&self, key: &str) -> Result<Option<ShardId>, HttpError> {
        let map = self.router.map();
        let Some(column) = map.tables.get(&self.name).and_then(main_key) else { return Ok(None) };
        let oid = self.relation.column(&column.column).map(|c| c.type_oid);
        let kind = oid.and_then(KeyType::of_oid).unwrap_or(KeyType::Text);
        let bad = |message: String| {
            HttpError::new(SqlState::INVALID_PARAMETER_VALUE, format!("the shard key is none: {message}"))
                .hint(format!("It is a value of {}.{}.", self.name, column.column))
        };
        let key = Key::from_text(kind, key).map_err(|e| bad(e.to_string()))?;
        let partition = map.partition_of(column, &key).map_err(|e| bad(e.to_string()))?;
        Ok(Some(map.shard_of(partition)))
    }

    /// A shard's name.
    pub(super) fn shard_name(&self, shard: ShardId) -> &'r str {
        self.router.map().shard_name(shard)
    }

    /// The names of shards.
    pub(super) fn shard_names(&self, shards: ShardSet) -> Vec<&'r str> {
        shards.iter().map(|shard| self.shard_name(shard)).collect()
    }

    /// A statement that goes to this shard and no other.
    pub(super) fn on_shard(&self, shard: ShardId, sql: &str) -> Result<String, HttpError> {
        let name = self.shard_name(shard);
        if name.contains("*/") || name.contains("/*") {
            let message = format!("shard \"{name}\" cannot be asked for: its name holds a comment's mark");
            return Err(HttpError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        Ok(format!("/* pgherd: shard='{}' */ {sql}", name.replace('\'', "''")))
    }

    /// The error for a key and a statement that belong to different shards.
    pub(super) fn disagree(&self, key: &str, by_key: ShardId, own: ShardSet, what: &str) -> HttpError {
        let own = self.shard_names(own).join(", ");
        let by_key = self.shard_name(by_key);
        let message = format!("shard key \"{key}\" is on shard {by_key}, {what} on {own}");
        HttpError::with_status(axum::http::StatusCode::CONFLICT, SqlState::INVALID_PARAMETER_VALUE, message)
            .hint("Send the key of the row, or none.")
    }
}

fn main_key(placement: &Placement) -> Option<&KeyColumn> {
    match placement {
        Placement::Sharded(columns) => columns.iter().find(|c| c.method == Method::Hash).or(columns.first()),
        Placement::Reference | Placement::Single(_) => None,
    }
}

/// The shards of a target; none if any would do.
pub(super) fn shards_of(target: Target) -> ShardSet {
    match target {
        Target::Shard(shard) => ShardSet::only(shard),
        Target::Any => ShardSet::EMPTY,
        Target::Fanout(shards) => shards,
    }
}

impl From<RouteError> for HttpError {
    fn from(error: RouteError) -> Self {
        error.report().into()
    }
}

impl From<route::FilterError> for HttpError {
    fn from(error: route::FilterError) -> Self {
        error.report().into()
    }
}

/// `INSERT INTO … (…) VALUES (…), (…)` of so many rows; `present` says row by row which columns have a parameter, the
/// others get their defaults.
pub(super) fn insert_sql<'p>(
    table: &Table<'_>,
    columns: &[&Column],
    rows: impl Iterator<Item = &'p [bool]>,
) -> String {
    if columns.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", table.sql());
    }
    let names: Vec<_> = columns.iter().map(|c| route::quoted(&c.name)).collect();
    let mut sql = format!("INSERT INTO {} ({}) VALUES ", table.sql(), names.join(", "));
    let mut number = 0;
    for (i, present) in rows.enumerate() {
        sql.push_str(if i > 0 { ", (" } else { "(" });
        for (j, present) in present.iter().enumerate() {
            if j > 0 {
                sql.push_str(", ");
            }
            if *present {
                number += 1;
                // A String takes all that is written.
                let _ = write!(sql, "${number}");
            } else {
                sql.push_str("DEFAULT");
            }
        }
        sql.push(')');
    }
    sql
}
