//! INSERT in the syntax tree: where each row's keys stand, and where a missing one can be spliced in.
//! Must not know values or shards; `place.rs` reads these and decides.

use sqlparser::ast::{
    ConflictTarget, Expr, Ident, Insert as Tree, ObjectName, OnConflictAction, OnInsert, Query, SetExpr,
    TableObject, Values,
};

use super::analysis::{Analysis, Table, Use, key_type};
use super::cond::Cond;
use super::graph::{Node, Role};
use super::keys::{Operand, class};
use super::names::{self, folded};
use super::output::Out;
use super::rewrite::{Place, Tokens, quoted};
use super::scope::{Ctes, Scope};
use crate::catalog::Column;
use crate::shard::{KeyColumn, KeyType, TableName};

/// An INSERT into a sharded table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Insert {
    /// The table.
    pub(super) table: TableName,
    /// Its appearance, to which assignments of ON CONFLICT refer.
    pub(super) inst: usize,
    /// Its key columns, in the order of the config.
    pub(super) keys: Vec<Key>,
    /// The rows.
    pub(super) rows: Rows,
    /// Where and how the key columns to be filled in are added to the column list.
    pub(super) added: Option<(Place, String)>,
    /// A column of its list that the table has not, as far as is known.
    pub(super) unknown: Option<String>,
}

/// A key column of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Its name.
    pub(super) column: String,
    /// Its type; `None` if keys cannot be concluded from it.
    pub(super) kind: Option<KeyType>,
    /// n of varchar(n) and char(n).
    pub(super) length: Option<usize>,
    /// It is declared NOT NULL.
    pub(super) not_null: bool,
    /// It has a default that is not NULL.
    pub(super) has_default: bool,
    /// The proxy fills it in.
    pub(super) fill: bool,
}

/// Where the rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rows {
    /// VALUES, row after row.
    Listed(Vec<Cell>),
    /// A query; what is known of each key column. `agreeing`: the keys are all those of one row of a table with
    /// the same keys.
    Selected {
        /// By key column.
        keys: Vec<Given>,
        /// The whole key is copied.
        agreeing: bool,
    },
    /// Every server refuses it.
    Wrong,
}

/// What one row of VALUES gives for one key column. Small: plans of long lists are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// A constant.
    Value(Operand),
    /// DEFAULT, or it is left out; where a value can be filled in.
    Default(Option<Place>),
    /// An expression that only a server can compute.
    Expression,
}

/// What a query gives for a key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Given {
    /// One of these constants.
    OneOf(Vec<Operand>),
    /// Values of a column of which this is known.
    Flow(Cond),
    /// Nothing: its default.
    Default,
    /// An expression that only a server can compute.
    Expression,
}

impl<'a> Analysis<'a> {
    pub(super) fn insert(&mut self, insert: &Tree, outer: Option<&Scope<'_>>, ctes: &Ctes) {
        self.check_insert(insert);
        let TableObject::TableName(name) = &insert.table else {
            self.not_understood("INSERT into something that is not a table");
            return;
        };
        let block = self.new_block();
        let table = self.table(name, Use::Write("INSERT"));
        let inst = self.inst_of(&table, block);
        if let Some(target) = self.graph.insts.get_mut(inst) {
            target.role = Role::Inserted;
        }
        let columns = target_columns(insert, &table);
        let rows = match &insert.source {
            None => Rows::Listed(self.cells(&table, &columns, &[], None, None)),
            Some(query) => match plain_values(query) {
                Some(values) => {
                    self.queries += 1;
                    self.walk(values, block, &Scope { rels: &[], outer }, ctes);
                    self.listed(values, insert, &table, &columns)
                }
                None => {
                    let out = self.query(query, outer, ctes);
                    self.selected(&out, &table, &columns, inst)
                }
            },
        };
        self.after_rows(insert, name, &table, inst, block, outer, ctes);
        if let (Some(table_name), Some(keys)) = (table.name.clone(), table.keys) {
            let added = if insert.source.is_some() {
                self.added(insert, name, &table, &columns, &rows)
            } else {
                None
            };
            let keys = keys.iter().map(|key| target_key(key, &table)).collect();
            let lacks = |column: &&String| table.relation.is_some_and(|r| r.column(column).is_none());
            let unknown = columns.iter().find(lacks).cloned();
            self.inserts.push(Insert { table: table_name, inst, keys, rows, added, unknown });
        }
    }

    fn check_insert(&mut self, insert: &Tree) {
        let foreign = insert.or.is_some()
            || insert.ignore
            || insert.overwrite
            || !insert.assignments.is_empty()
            || insert.partitioned.is_some()
            || !insert.after_columns.is_empty()
            || insert.has_table_keyword
            || insert.output.is_some()
            || insert.replace_into
            || insert.priority.is_some()
            || insert.insert_alias.is_some()
            || insert.settings.is_some()
            || insert.format_clause.is_some()
            || insert.multi_table_insert_type.is_some()
            || !insert.multi_table_into_clauses.is_empty()
            || !insert.multi_table_when_clauses.is_empty()
            || insert.multi_table_else_clause.is_some();
        if foreign || insert.columns.iter().any(|c| c.0.len() != 1) {
            self.not_understood("an INSERT of this form");
        }
    }

    fn listed(&mut self, values: &Values, insert: &Tree, table: &Table<'a>, columns: &[String]) -> Rows {
        let fills = table.keys.is_some_and(|keys| keys.iter().any(|k| k.fill));
        let tokens = fills.then(|| Tokens::new(self.ordinals.source(), self.ctx.env.nonstandard_strings));
        let width = values.rows.first().map_or(0, |r| r.content.len());
        let full = !insert.columns.is_empty();
        let wrong =
            full && width != columns.len() || !full && table.relation.is_some() && width > columns.len();
        if wrong || values.rows.iter().any(|row| row.content.len() != width) {
            return Rows::Wrong;
        }
        let mut cells = Vec::with_capacity(values.rows.len() * table.keys.unwrap_or_default().len());
        for row in &values.rows {
            let closing = self.ordinals.offset(row.closing_token.0.span.start);
            let end = tokens.as_ref().zip(closing).and_then(|(tokens, at)| tokens.before_paren(at));
            cells.extend(self.cells(table, columns, &row.content, end, tokens.as_ref()));
        }
        Rows::Listed(cells)
    }

    /// What a row gives for each key column. `end` is where more values can be added.
    fn cells(
        &mut self,
        table: &Table<'a>,
        columns: &[String],
        values: &[Expr],
        end: Option<Place>,
        tokens: Option<&Tokens<'_>>,
    ) -> Vec<Cell> {
        let mut cells = Vec::new();
        for key in table.keys.unwrap_or_default() {
            let at = columns.iter().position(|c| *c == key.column);
            let kind = table.relation.and_then(|r| r.column(&key.column)).and_then(key_type);
            cells.push(match at.and_then(|at| values.get(at)) {
                None => Cell::Default(end),
                Some(Expr::Identifier(word)) if is_default(word) => {
                    let at = self.ordinals.offset(word.span.start);
                    Cell::Default(tokens.zip(at).and_then(|(tokens, at)| tokens.default(at)))
                }
                Some(value) => self.constant(value, kind).map_or(Cell::Expression, Cell::Value),
            });
        }
        cells
    }

    /// A constant to be stored in a column of that type.
    pub(super) fn constant(&mut self, value: &Expr, kind: Option<KeyType>) -> Option<Operand> {
        let operand = self.ordinals.operand(value)?;
        if let Some(kind) = kind {
            self.note_param(&operand, kind);
        }
        Some(operand)
    }

    /// How the column list must be completed, if rows lack a key column that the proxy fills in.
    fn added(
        &self,
        insert: &Tree,
        name: &ObjectName,
        table: &Table<'a>,
        columns: &[String],
        rows: &Rows,
    ) -> Option<(Place, String)> {
        if !matches!(rows, Rows::Listed(_)) {
            return None;
        }
        let width = match insert.source.as_deref().and_then(plain_values) {
            Some(values) => values.rows.first()?.content.len(),
            None => return None,
        };
        let given = columns.get(..width)?;
        let missing = |key: &&KeyColumn| key.fill && !given.contains(&key.column);
        let missing: Vec<_> = table.keys?.iter().filter(missing).map(|k| quoted(&k.column)).collect();
        if missing.is_empty() {
            return None;
        }
        let tokens = Tokens::new(self.ordinals.source(), self.ctx.env.nonstandard_strings);
        let after = |ident: &Ident| tokens.after_name(self.ordinals.offset(ident.span.start)?);
        let last_ident = |name: &ObjectName| name.0.last().and_then(|p| p.as_ident().cloned());
        if let Some(last) = insert.columns.last() {
            return Some((after(&last_ident(last)?)?, format!(", {}", missing.join(", "))));
        }
        let last = insert.table_alias.as_ref().map(|a| a.alias.clone()).or_else(|| last_ident(name))?;
        let all: Vec<_> = given.iter().map(|c| quoted(c)).chain(missing).collect();
        Some((after(&last)?, format!(" ({})", all.join(", "))))
    }

    fn selected(&mut self, out: &Out, table: &Table<'a>, columns: &[String], inst: usize) -> Rows {
        if !out.exact {
            let keys = table.keys.unwrap_or_default().iter().map(|_| Given::Expression).collect();
            return Rows::Selected { keys, agreeing: false };
        }
        let mut keys = Vec::new();
        let mut sources = Vec::new();
        for key in table.keys.unwrap_or_default() {
            let at = columns.iter().position(|c| *c == key.column).filter(|at| *at < out.columns.len());
            let column = at.and_then(|at| out.columns.get(at));
            let own = table.relation.and_then(|r| r.columns.iter().position(|c| c.name == key.column));
            sources.push(column.and_then(|c| c.up).zip(own));
            keys.push(match column {
                None => Given::Default,
                Some(c) if !c.constants.is_empty() => Given::OneOf(c.constants.clone()),
                Some(c) => self.copied(c.up, own.map(|column| Node { inst, column })),
            });
        }
        let agreeing = self.copies_whole_key(&sources, table);
        Rows::Selected { keys, agreeing }
    }

    /// What is given by copying a column.
    pub(super) fn copied(&mut self, from: Option<Node>, to: Option<Node>) -> Given {
        let (Some(from), Some(to)) = (from, to) else { return Given::Expression };
        if let Some(column) = self.graph.column(from).filter(|c| !c.constants.is_empty()) {
            return Given::OneOf(column.constants.clone());
        }
        if !self.fits(from, to) {
            return Given::Expression;
        }
        self.graph.edge(from, to);
        Given::Flow(Cond::All) // what is known of it is worked out when all is
    }

    /// Whether every value of a column can be stored in another unchanged.
    fn fits(&self, from: Node, to: Node) -> bool {
        let (Some(from), Some(to)) = (self.graph.column(from), self.graph.column(to)) else { return false };
        let same = from.typed.zip(to.typed).is_some_and(|(a, b)| class(a.kind) == class(b.kind));
        same && to.length.is_none_or(|to| from.length.is_some_and(|from| from <= to))
    }

    fn copies_whole_key(&self, sources: &[Option<(Node, usize)>], table: &Table<'a>) -> bool {
        let keys = table.keys.unwrap_or_default();
        sources.len() == keys.len()
            && sources.iter().zip(keys).all(|(source, key)| {
                let first = sources.first().copied().flatten();
                let (Some((up, _)), Some((first, _))) = (source, first) else { return false };
                up.inst == first.inst
                    && self.graph.key_of(*up, self.ctx.map).is_some_and(|other| other.method == key.method)
            })
    }

    /// ON CONFLICT and RETURNING.
    #[expect(clippy::too_many_arguments, reason = "the whole sight of the statement's end")]
    fn after_rows(
        &mut self,
        insert: &Tree,
        name: &ObjectName,
        table: &Table<'a>,
        inst: usize,
        block: usize,
        outer: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) {
        let own = insert.table_alias.as_ref().map(|a| folded(&a.alias)).or_else(|| names::last(name));
        let schema = table.name.as_ref().filter(|_| insert.table_alias.is_none()).map(|t| t.schema.clone());
        let target = self.shown(inst, &own.unwrap_or_default(), schema, None);
        let rels = [&target];
        self.walk(&insert.returning, block, &Scope { rels: &rels, outer }, ctes);
        let conflict = match &insert.on {
            None => return,
            Some(OnInsert::OnConflict(conflict)) => conflict,
            Some(_) => {
                self.not_understood("ON DUPLICATE KEY UPDATE");
                return;
            }
        };
        let OnConflictAction::DoUpdate(update) = &conflict.action else { return };
        let excluded =
            self.inst_of(&Table { keys: None, name: table.name.clone(), relation: table.relation }, block);
        let excluded_rel = self.shown(excluded, "excluded", None, None);
        let rels = [&target, &excluded_rel];
        let scope = Scope { rels: &rels, outer };
        self.walk(&update.assignments, block, &scope, ctes);
        self.walk(&update.selection, block, &scope, ctes);
        let keys = table.keys.unwrap_or_default();
        let by_key = matches!(&conflict.conflict_target, Some(ConflictTarget::Columns(columns))
            if columns.iter().any(|c| keys.iter().any(|k| k.column == folded(c))));
        let same: Vec<Node> = keys
            .iter()
            .filter(|_| by_key) // the row in conflict has the same key, hence the same partition
            .filter_map(|key| table.relation?.columns.iter().position(|c| c.name == key.column))
            .map(|column| Node { inst: excluded, column })
            .collect();
        self.assignments(&update.assignments, inst, &scope, &same);
    }
}

/// The columns that an INSERT's values are for: those it lists, or all.
fn target_columns(insert: &Tree, table: &Table<'_>) -> Vec<String> {
    if insert.columns.is_empty() {
        all_columns(table)
    } else {
        insert.columns.iter().filter_map(names::last).collect()
    }
}

pub(super) fn all_columns(table: &Table<'_>) -> Vec<String> {
    table.relation.map(|r| r.columns.iter().map(|c| c.name.clone()).collect()).unwrap_or_default()
}

/// The VALUES list of a query that is nothing else.
fn plain_values(query: &Query) -> Option<&Values> {
    let plain = query.with.is_none()
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && query.locks.is_empty();
    match query.body.as_ref() {
        SetExpr::Values(values) if plain => Some(values),
        SetExpr::Values(_)
        | SetExpr::Select(_)
        | SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => None,
    }
}

pub(super) fn is_default(word: &Ident) -> bool {
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case("default")
}

pub(super) fn target_key(key: &KeyColumn, table: &Table<'_>) -> Key {
    let column = table.relation.and_then(|r| r.column(&key.column));
    Key {
        column: key.column.clone(),
        kind: column.and_then(key_type),
        length: column.and_then(length),
        not_null: column.is_some_and(|c| c.not_null),
        has_default: column.is_some_and(|c| c.is_serial || c.is_generated || has_default(c)),
        fill: key.fill,
    }
}

fn has_default(column: &Column) -> bool {
    column.default.as_deref().is_some_and(|d| !d.get(..4).is_some_and(|n| n.eq_ignore_ascii_case("null")))
}

/// n of `character varying(n)` and `character(n)`.
pub(super) fn length(column: &Column) -> Option<usize> {
    let (_, rest) = column.type_name.split_once('(')?;
    rest.split_once(')')?.0.trim().parse().ok()
}
