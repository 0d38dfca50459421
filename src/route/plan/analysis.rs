//! What is gathered while a statement's blocks are walked: tables and where they live, equalities, conditions.
//! Must not know the syntax of FROM lists, queries or writes; those files fill it.

use std::collections::HashMap;

use sqlparser::ast::ObjectName;

use super::Context;
use super::functions;
use super::graph::{Graph, Inst, InstColumn, Role, Sharded};
use super::insert::{Insert, Key, length};
use super::keys::{Class, Operand, Typed};
use super::names::{self, Found};
use super::operands::Ordinals;
use super::output::Out;
use super::survey::{Call, Survey};
use crate::catalog::{Column, Relation, RelationKind, relation_of_server};
use crate::route::{Access, RouteError};
use crate::shard::{KeyColumn, KeyType, Map, Placement, ShardId, TableName};
use crate::wire::SqlState;

/// What a statement wants of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Reads it.
    Read,
    /// Writes it; the verb, for messages.
    Write(&'static str),
}

/// A CTE in sight.
#[derive(Debug)]
pub(super) struct Cte {
    /// What it returns.
    pub(super) out: Out,
    /// Where it is referred to.
    pub(super) refs: Vec<usize>,
}

/// An assignment to a key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyUpdate {
    /// The table's appearance.
    pub(super) inst: usize,
    /// Which of its key columns.
    pub(super) key: usize,
    /// The column.
    pub(super) column: Key,
    /// The new value; `None` if it is not a constant.
    pub(super) value: Option<Operand>,
}

/// A call of an aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aggregate {
    /// Its name.
    pub(super) name: String,
    /// Its argument is `*`.
    pub(super) star: bool,
}

/// What one query block does that matters when it is spread over shards.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// Aggregates called in it.
    pub(super) aggregates: Vec<Aggregate>,
    /// Window functions called in it.
    pub(super) windows: Vec<String>,
    /// Functions of which any answer is right, for each row anew.
    pub(super) any_answer: Vec<String>,
    /// One of them may belong to a block further out.
    pub(super) outer_aggregate: bool,
    /// LIMIT, OFFSET, FETCH or DISTINCT ON.
    pub(super) cut: bool,
}

/// The state of the walk.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent findings about one statement")]
pub(super) struct Analysis<'a> {
    /// Map, catalog, session.
    pub(super) ctx: Context<'a>,
    /// Finds literals by their place.
    pub(super) ordinals: Ordinals<'a>,
    /// What the whole statement holds.
    pub(super) survey: Survey,
    /// Tables, equalities, conditions.
    pub(super) graph: Graph,
    /// What subqueries in expressions return, by address.
    pub(super) subqueries: HashMap<usize, Out>,
    /// The CTEs, by id.
    pub(super) ctes: Vec<Cte>,
    /// The query blocks.
    pub(super) blocks: Vec<Block>,
    /// Table names met, to be compared with the survey's.
    pub(super) relations: Vec<String>,
    /// Queries met, likewise.
    pub(super) queries: usize,
    /// Shards that tables live on whole, and what for.
    pub(super) pins: Vec<(ShardId, String)>,
    /// The names under which reference tables are read.
    pub(super) references: Vec<String>,
    /// A replica may lack a table, or not be able to read it.
    pub(super) primary_only: bool,
    /// Some construct is not known: nothing may be concluded, not even that it only reads.
    pub(super) unclear: bool,
    /// Why it is refused on several shards.
    pub(super) refusal: Option<RouteError>,
    /// The types that parameters are compared with.
    pub(super) param_uses: HashMap<u16, Vec<Class>>,
    /// The value of a literal was looked at.
    pub(super) by_text: bool,
    /// INSERTs.
    pub(super) inserts: Vec<Insert>,
    /// Assignments to key columns.
    pub(super) key_updates: Vec<KeyUpdate>,
    /// Derived tables may be assumed to be computed only as far as they are asked for.
    pub(super) lazy: bool,
}

/// A table as the walk found it.
#[derive(Debug, Default)]
pub(super) struct Table<'a> {
    /// Its name, if it is not a system catalog's.
    pub(super) name: Option<TableName>,
    /// Its key columns, if it is sharded.
    pub(super) keys: Option<&'a [KeyColumn]>,
    /// Its columns, if the catalog has it.
    pub(super) relation: Option<&'a Relation>,
}

impl<'a> Analysis<'a> {
    /// Nothing met yet.
    pub(super) fn new(ctx: Context<'a>, ordinals: Ordinals<'a>, survey: Survey) -> Self {
        let pure = |call: &Call| functions::effect(call, ctx.catalog).access == Access::Read;
        let lazy = survey.calls.iter().all(pure);
        Self {
            ctx,
            ordinals,
            survey,
            graph: Graph::default(),
            subqueries: HashMap::new(),
            ctes: Vec::new(),
            blocks: Vec::new(),
            relations: Vec::new(),
            queries: 0,
            pins: Vec::new(),
            references: Vec::new(),
            primary_only: false,
            unclear: false,
            refusal: None,
            param_uses: HashMap::new(),
            by_text: false,
            inserts: Vec::new(),
            key_updates: Vec::new(),
            lazy,
        }
    }

    /// Notes the first reason to refuse.
    pub(super) fn refuse(&mut self, what: impl Into<String>, hint: impl Into<String>) {
        self.refusal.get_or_insert(RouteError::Refused { what: what.into(), hint: hint.into() });
    }

    /// Notes a construct that the analysis does not know.
    pub(super) fn not_understood(&mut self, what: &str) {
        self.unclear = true;
        self.refuse(
            format!("{what} cannot be routed over several shards"),
            "Write it in another way, or force a shard with /* pgherd: shard=name */.",
        );
    }

    /// Looks a table name up and notes where it lives.
    pub(super) fn table(&mut self, name: &ObjectName, usage: Use) -> Table<'a> {
        self.relations.push(name.to_string());
        let Some(parts) = names::parts(name).filter(|_| !names::is_only(name)) else {
            self.not_understood("ONLY");
            return Table::default();
        };
        match names::relation(&parts, &self.ctx) {
            Found::Known(table, relation) => self.known(table, relation, usage),
            Found::System => {
                self.primary_only |= parts.last().is_some_and(|name| relation_of_server(name));
                self.pins.push((self.ctx.map.default_shard, "the system catalogs".to_owned()));
                Table::default()
            }
            Found::Unknown(table) => {
                self.unknown(&table);
                Table { name: Some(table), ..Table::default() }
            }
            Found::Unclear => {
                self.refuse(
                    format!("table \"{}\" under this search_path", parts.join(".")),
                    "Write the table's schema before its name.",
                );
                Table::default()
            }
        }
    }

    fn known(&mut self, table: TableName, relation: &'a Relation, usage: Use) -> Table<'a> {
        let map: &'a Map = self.ctx.map;
        self.primary_only |= relation.unlogged;
        match relation.kind {
            RelationKind::View | RelationKind::MaterializedView => {
                self.view(&table, relation, usage);
                return Table { name: Some(table), keys: None, relation: Some(relation) };
            }
            RelationKind::Table | RelationKind::Foreign | RelationKind::Sequence => {}
        }
        let keys = match map.tables.get(&table) {
            Some(Placement::Sharded(keys)) => Some(keys.as_slice()),
            Some(Placement::Reference) => {
                self.reference(&table.name, usage);
                None
            }
            Some(Placement::Single(shard)) => {
                self.pins.push((*shard, format!("table \"{}\"", table.name)));
                None
            }
            None => {
                self.pins.push((map.default_shard, format!("table \"{}\"", table.name)));
                None
            }
        };
        Table { name: Some(table), keys, relation: Some(relation) }
    }

    /// A table that the catalog lacks. One that the config does not know either is left to the default shard's
    /// server, whose error is the right one; any other could be there by now, unseen, so it is an error here.
    fn unknown(&mut self, table: &TableName) {
        // Made just now, temporary or unlogged for all that is known.
        self.primary_only = true;
        match self.ctx.map.placement(table) {
            Placement::Single(shard) => self.pins.push((shard, format!("table \"{}\"", table.name))),
            Placement::Sharded(_) | Placement::Reference => {
                self.refusal.get_or_insert(RouteError::Sql {
                    code: SqlState::UNDEFINED_TABLE,
                    message: format!("relation \"{}\" does not exist", table.name),
                    detail: None,
                    hint: Some(format!(
                        "proxy.toml places \"{table}\", but the shards' catalogs did not have it when last read."
                    )),
                });
            }
        }
    }

    fn reference(&mut self, name: &str, usage: Use) {
        match usage {
            Use::Read => self.references.push(name.to_owned()),
            Use::Write(verb) => self.refuse(
                format!("{verb} of reference table \"{name}\" on several shards"),
                "A reference table must change on all shards at once, which pgherd cannot do yet: write to each \
                 shard's server directly.",
            ),
        }
    }

    /// A view is where the tables are that it reads; over a sharded one it would show one shard's rows only.
    fn view(&mut self, view: &TableName, relation: &Relation, usage: Use) {
        let map = self.ctx.map;
        let mut moved = relation.kind == RelationKind::MaterializedView || relation.reads.is_empty();
        for (schema, name) in &relation.reads {
            if matches!(schema.as_str(), "pg_catalog" | "information_schema") {
                moved = true;
                continue;
            }
            match map.placement(&TableName::new(schema.as_str(), name.as_str())) {
                Placement::Sharded(_) => self.refuse(
                    format!("view \"{}\" over sharded table \"{name}\"", view.name),
                    format!("Query table \"{name}\" itself, with its key."),
                ),
                Placement::Reference => self.reference(name, usage),
                Placement::Single(shard) => self.pins.push((shard, format!("view \"{}\"", view.name))),
            }
        }
        if moved {
            // A materialised view over reference tables is refreshed on the default shard only.
            self.pins.push((map.default_shard, format!("view \"{}\"", view.name)));
        }
    }

    /// One appearance of a table in a block.
    pub(super) fn inst_of(&mut self, table: &Table<'a>, block: usize) -> usize {
        let columns: Vec<InstColumn> =
            table.relation.map(|r| r.columns.iter().map(column).collect()).unwrap_or_default();
        let sharded = table.name.as_ref().zip(table.keys).map(|(name, keys)| Sharded {
            table: name.clone(),
            keys: keys.iter().map(|key| columns.iter().position(|c| c.name == key.column)).collect(),
        });
        let open = table.relation.is_none();
        self.graph.add(Inst { columns, open, sharded, block, nullable: false, role: Role::Read })
    }

    /// The block of the given number.
    pub(super) fn block(&mut self, block: usize) -> Option<&mut Block> {
        self.blocks.get_mut(block)
    }

    /// Starts a block.
    pub(super) fn new_block(&mut self) -> usize {
        self.blocks.push(Block::default());
        self.blocks.len() - 1
    }
}

fn column(column: &Column) -> InstColumn {
    let kind = key_type(column);
    let ordered = match column.collation.as_ref().filter(|_| kind.is_some_and(KeyType::is_text)) {
        Some(collation) => {
            matches!(
                collation.name.as_str(),
                "C" | "POSIX" | "C.UTF-8" | "C.utf8" | "ucs_basic" | "pg_c_utf8"
            )
        }
        None => true,
    };
    InstColumn {
        name: column.name.clone(),
        typed: kind.map(|kind| Typed { kind, guessed: false }),
        ordered,
        length: length(column),
        constants: Vec::new(),
    }
}

/// The type of a column, if equal values of it are equal bytes and keys can be of it.
pub(super) fn key_type(column: &Column) -> Option<KeyType> {
    let kind = KeyType::of_oid(column.type_oid)?;
    let equal_bytes = column.collation.as_ref().is_some_and(|c| c.deterministic);
    (!kind.is_text() || equal_bytes).then_some(kind)
}
