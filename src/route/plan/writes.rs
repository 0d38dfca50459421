//! UPDATE, DELETE and MERGE: which rows they touch, and whether they move a row to another key.
//! Must not know shards.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, Expr, FromTable, Merge, MergeAction, MergeClauseKind,
    MergeInsertExpr, MergeInsertKind, MergeUpdateKind, TableFactor, TableWithJoins, Update,
    UpdateTableFromKind,
};

use super::analysis::{Analysis, KeyUpdate, Table, Use, key_type};
use super::conjuncts::node;
use super::graph::{Formula, Node, Role};
use super::insert::{Given, Insert, Key, Rows, all_columns, is_default, target_key};
use super::names;
use super::operands::row;
use super::scope::{Ctes, Rel, Scope};

impl<'a> Analysis<'a> {
    /// The table that a statement writes, as its only FROM item; `None` if it is not a plain table.
    fn target(
        &mut self,
        factor: &TableFactor,
        verb: &'static str,
        block: usize,
    ) -> Option<(Table<'a>, usize, Rel)> {
        let TableFactor::Table { name, alias, args: None, .. } = factor else {
            self.not_understood(&format!("{verb} of something that is not a table"));
            return None;
        };
        let table = self.table(name, Use::Write(verb));
        let inst = self.inst_of(&table, block);
        let schema = table.name.as_ref().map(|t| t.schema.clone());
        let own = names::last(name).unwrap_or_default();
        let rel = self.shown(inst, &own, schema, alias.as_ref());
        Some((table, inst, rel))
    }

    pub(super) fn update(&mut self, update: &Update, outer: Option<&Scope<'_>>, ctes: &Ctes) {
        let block = self.new_block();
        if !update.table.joins.is_empty()
            || update.output.is_some()
            || update.or.is_some()
            || !update.order_by.is_empty()
            || update.limit.is_some()
        {
            self.not_understood("an UPDATE of another dialect");
        }
        let Some((_, target, rel)) = self.target(&update.table.relation, "UPDATE", block) else { return };
        let tables = match &update.from {
            None => &[][..],
            Some(UpdateTableFromKind::AfterSet(tables)) => tables,
            Some(UpdateTableFromKind::BeforeSet(_)) => {
                self.not_understood("an UPDATE of another dialect");
                return;
            }
        };
        let from = self.beside(rel, tables, block, outer, ctes);
        let rels = [&from.rel];
        let scope = Scope { rels: &rels, outer };
        self.walk(&update.assignments, block, &scope, ctes);
        self.walk(&update.selection, block, &scope, ctes);
        self.walk(&update.returning, block, &scope, ctes);
        let filter = update.selection.as_ref().map_or(Formula::True, |e| self.formula(e, &scope));
        self.settle_joins(&filter, from.outer_joins);
        self.graph.assert(filter, &from.rel.insts);
        self.assignments(&update.assignments, target, &scope, &[]);
    }

    pub(super) fn delete(&mut self, delete: &Delete, outer: Option<&Scope<'_>>, ctes: &Ctes) {
        let block = self.new_block();
        let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
        let foreign = !delete.tables.is_empty()
            || delete.output.is_some()
            || !delete.order_by.is_empty()
            || delete.limit.is_some();
        let [TableWithJoins { relation, joins }] = tables.as_slice() else {
            self.not_understood("a DELETE of another dialect");
            return;
        };
        if foreign || !joins.is_empty() {
            self.not_understood("a DELETE of another dialect");
        }
        let Some((_, _, rel)) = self.target(relation, "DELETE", block) else { return };
        let using = delete.using.as_deref().unwrap_or_default();
        let from = self.beside(rel, using, block, outer, ctes);
        let rels = [&from.rel];
        let scope = Scope { rels: &rels, outer };
        self.walk(&delete.selection, block, &scope, ctes);
        self.walk(&delete.returning, block, &scope, ctes);
        let filter = delete.selection.as_ref().map_or(Formula::True, |e| self.formula(e, &scope));
        self.settle_joins(&filter, from.outer_joins);
        self.graph.assert(filter, &from.rel.insts);
    }

    pub(super) fn merge(&mut self, merge: &Merge, outer: Option<&Scope<'_>>, ctes: &Ctes) {
        let block = self.new_block();
        let Some((table, target, rel)) = self.target(&merge.table, "MERGE", block) else { return };
        let from = self.item(&merge.source, block, outer, ctes);
        let rels = [&rel, &from.rel];
        let scope = Scope { rels: &rels, outer };
        self.walk(&merge.on, block, &scope, ctes);
        self.walk(&merge.clauses, block, &scope, ctes);
        self.walk(&merge.output, block, &scope, ctes);
        self.settle_joins(&Formula::True, from.outer_joins);
        let has = |kinds: &[MergeClauseKind]| merge.clauses.iter().any(|c| kinds.contains(&c.clause_kind));
        let unmatched_source = has(&[MergeClauseKind::NotMatched, MergeClauseKind::NotMatchedByTarget]);
        let unmatched_target = has(&[MergeClauseKind::NotMatchedBySource]);
        let mut about = if unmatched_target { Vec::new() } else { rel.insts.clone() };
        if !unmatched_source {
            about.extend(&from.rel.insts);
        }
        let on = self.formula(&merge.on, &scope);
        self.graph.assert(on, &about);
        for clause in &merge.clauses {
            match &clause.action {
                MergeAction::Update(update) => match &update.kind {
                    MergeUpdateKind::Set(assignments) => self.assignments(assignments, target, &scope, &[]),
                    MergeUpdateKind::Wildcard => self.not_understood("MERGE … UPDATE *"),
                },
                MergeAction::Insert(insert) => {
                    let MergeInsertKind::Values(values) = &insert.kind else {
                        self.not_understood("MERGE … INSERT ROW");
                        continue;
                    };
                    let row = values.rows.first().map(|r| r.content.as_slice()).unwrap_or_default();
                    self.merge_insert(&table, insert, row, block, &scope);
                }
                MergeAction::Delete { .. } | MergeAction::DoNothing { .. } => {}
            }
        }
    }

    /// MERGE … WHEN NOT MATCHED THEN INSERT.
    fn merge_insert(
        &mut self,
        table: &Table<'a>,
        insert: &MergeInsertExpr,
        values: &[Expr],
        block: usize,
        scope: &Scope<'_>,
    ) {
        let (Some(name), Some(keys)) = (table.name.clone(), table.keys) else { return };
        let inst = self.inst_of(table, block);
        if let Some(target) = self.graph.insts.get_mut(inst) {
            target.role = Role::Inserted;
        }
        let columns = if insert.columns.is_empty() {
            all_columns(table)
        } else {
            insert.columns.iter().filter_map(names::last).collect()
        };
        let mut given = Vec::new();
        for key in keys {
            let at = columns.iter().position(|c| *c == key.column);
            let value = at.and_then(|at| values.get(at));
            let own = table.relation.and_then(|r| r.columns.iter().position(|c| c.name == key.column));
            let kind = table.relation.and_then(|r| r.column(&key.column)).and_then(key_type);
            let up = value.and_then(|v| node(v, scope));
            given.push(match (value, up) {
                (None, _) => Given::Default,
                (Some(_), Some(up)) => self.copied(Some(up), own.map(|column| Node { inst, column })),
                (Some(Expr::Identifier(word)), None) if is_default(word) => Given::Default,
                (Some(value), None) => match self.constant(value, kind) {
                    Some(operand) => Given::OneOf(vec![operand]),
                    None => Given::Expression,
                },
            });
        }
        let rows = Rows::Selected { keys: given, agreeing: false };
        let keys = keys.iter().map(|key| target_key(key, table)).collect();
        self.inserts.push(Insert { table: name, inst, keys, rows, added: None, unknown: None });
    }

    /// What assignments do to the key columns of `target`. `same` are the key columns known to be those of the
    /// row that is being inserted (ON CONFLICT … DO UPDATE).
    pub(super) fn assignments(
        &mut self,
        assignments: &[Assignment],
        target: usize,
        scope: &Scope<'_>,
        same: &[Node],
    ) {
        for assignment in assignments {
            match &assignment.target {
                AssignmentTarget::ColumnName(name) => {
                    self.assignment(names::last(name), Some(&assignment.value), target, scope, same);
                }
                AssignmentTarget::Tuple(columns) => {
                    let values = row(&assignment.value).filter(|v| v.len() == columns.len());
                    for (i, name) in columns.iter().enumerate() {
                        let value = values.as_ref().and_then(|v| v.get(i)).copied();
                        self.assignment(names::last(name), value, target, scope, same);
                    }
                }
            }
        }
    }

    fn assignment(
        &mut self,
        column: Option<String>,
        value: Option<&Expr>,
        target: usize,
        scope: &Scope<'_>,
        same: &[Node],
    ) {
        let Some(inst) = self.graph.insts.get(target) else { return };
        let Some(sharded) = &inst.sharded else { return };
        let at = inst.columns.iter().position(|c| Some(&c.name) == column.as_ref());
        let Some(key) = sharded.keys.iter().position(|k| k.is_some() && *k == at) else { return };
        let own = at.map(|column| Node { inst: target, column });
        let node = value.and_then(|v| node(v, scope));
        if node.is_some() && (node == own || node.is_some_and(|n| same.contains(&n))) {
            return;
        }
        let Some(found) = at.and_then(|at| inst.columns.get(at)) else { return };
        let column = Key {
            column: found.name.clone(),
            kind: found.typed.map(|t| t.kind),
            length: found.length,
            not_null: false,
            has_default: false,
            fill: false,
        };
        let value = value.and_then(|v| self.ordinals.operand(v));
        self.key_updates.push(KeyUpdate { inst: target, key, column, value });
    }
}
