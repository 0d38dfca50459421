//! Queries, block by block: what each restricts, and which of its output columns are plain columns.
//! Must not know shards.

use sqlparser::ast::{
    Distinct, Expr, LimitClause, Query, Select, SelectFlavor, SelectItem, SetExpr, SetOperator,
    SetQuantifier, Statement, TableAlias, Values,
};

use super::analysis::{Analysis, Cte};
use super::graph::{Formula, Node};
use super::names::folded;
use super::output::{Out, OutColumn, both, constant, renamed, same_form};
use super::scope::{Ctes, Scope};
use crate::shard::KeyType;

impl Analysis<'_> {
    /// A query in the place that `outer` is the sight of.
    pub(super) fn query(&mut self, query: &Query, outer: Option<&Scope<'_>>, ctes: &Ctes) -> Out {
        self.queries += 1;
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            self.not_understood("a query of another dialect");
        }
        let mut sight = ctes.clone();
        let mut added = Vec::new();
        if let Some(with) = &query.with {
            (sight, added) = self.with(with, outer, ctes);
        }
        let out = if let SetExpr::Select(select) = query.body.as_ref() {
            self.select(select, Some(query), outer, &sight)
        } else {
            let block = self.new_block();
            self.tail(query, block, &Scope { rels: &[], outer }, &sight);
            self.set_expr(&query.body, outer, &sight)
        };
        for id in added {
            self.settle_cte(id);
        }
        let cut = query.limit_clause.is_some() || query.fetch.is_some() || !query.locks.is_empty();
        if cut || !self.lazy { out.pinned() } else { out }
    }

    /// ORDER BY, LIMIT and what else follows a query's body.
    fn tail(&mut self, query: &Query, block: usize, scope: &Scope<'_>, ctes: &Ctes) {
        if let Some(order_by) = &query.order_by {
            self.walk(order_by, block, scope, ctes);
        }
        let limited = match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, limit_by }) => {
                self.walk(limit, block, scope, ctes);
                self.walk(offset, block, scope, ctes);
                if !limit_by.is_empty() {
                    self.not_understood("LIMIT BY");
                }
                true
            }
            Some(LimitClause::OffsetCommaLimit { .. }) => {
                self.not_understood("LIMIT a, b");
                true
            }
            None => false,
        };
        self.walk(&query.fetch, block, scope, ctes);
        if let Some(block) = self.block(block) {
            block.cut |= limited || query.fetch.is_some();
        }
    }

    fn with(
        &mut self,
        with: &sqlparser::ast::With,
        outer: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> (Ctes, Vec<usize>) {
        let mut sight = ctes.clone();
        let mut added = Vec::new();
        let new = |this: &mut Self, sight: &Ctes, alias: &TableAlias, out: Out| {
            this.ctes.push(Cte { out, refs: Vec::new() });
            let id = this.ctes.len() - 1;
            (sight.with(folded(&alias.name), id), id)
        };
        if with.recursive {
            // Any of them may refer to any other: nothing is concluded from one to the next.
            for cte in &with.cte_tables {
                (sight, _) = new(self, &sight, &cte.alias, Out::unknown());
            }
        }
        for cte in &with.cte_tables {
            let out = self.query(&cte.query, outer, &sight);
            if !with.recursive {
                let out = renamed(out, &cte.alias);
                let id;
                (sight, id) = new(self, &sight, &cte.alias, out);
                added.push(id);
            }
        }
        (sight, added)
    }

    /// Of a CTE that one place alone refers to, only the rows matter that this place asks for.
    fn settle_cte(&mut self, id: usize) {
        let Some(cte) = self.ctes.get(id) else { return };
        if let [inst] = cte.refs.as_slice() {
            let inst = *inst;
            for (column, out) in cte.out.columns.clone().into_iter().enumerate() {
                out.down.into_iter().for_each(|to| self.graph.edge(Node { inst, column }, to));
            }
        }
    }

    fn set_expr(&mut self, body: &SetExpr, outer: Option<&Scope<'_>>, ctes: &Ctes) -> Out {
        match body {
            SetExpr::Select(select) => self.select(select, None, outer, ctes),
            SetExpr::Query(query) => self.query(query, outer, ctes),
            SetExpr::SetOperation { left, op, set_quantifier, right } => {
                let known = matches!(op, SetOperator::Union | SetOperator::Except | SetOperator::Intersect)
                    && matches!(
                        set_quantifier,
                        SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None
                    );
                if !known {
                    self.not_understood("a set operation of another dialect");
                }
                let left = self.set_expr(left, outer, ctes);
                let right = self.set_expr(right, outer, ctes);
                both(left, right)
            }
            SetExpr::Values(values) => self.values(values, outer, ctes),
            SetExpr::Insert(statement)
            | SetExpr::Update(statement)
            | SetExpr::Delete(statement)
            | SetExpr::Merge(statement) => {
                self.write(statement, outer, ctes);
                Out::unknown()
            }
            SetExpr::Table(_) => {
                // The parser drops the quotes of the name, and no visitor sees it.
                self.not_understood("TABLE");
                Out::unknown()
            }
        }
    }

    /// INSERT, UPDATE, DELETE or MERGE.
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other statement stands where a query does")]
    pub(super) fn write(&mut self, statement: &Statement, outer: Option<&Scope<'_>>, ctes: &Ctes) {
        match statement {
            Statement::Insert(insert) => self.insert(insert, outer, ctes),
            Statement::Update(update) => self.update(update, outer, ctes),
            Statement::Delete(delete) => self.delete(delete, outer, ctes),
            Statement::Merge(merge) => self.merge(merge, outer, ctes),
            _ => self.not_understood("this statement inside another one"),
        }
    }

    fn values(&mut self, values: &Values, outer: Option<&Scope<'_>>, ctes: &Ctes) -> Out {
        let block = self.new_block();
        self.walk(values, block, &Scope { rels: &[], outer }, ctes);
        let rows: Vec<&[Expr]> = values.rows.iter().map(|r| r.content.as_slice()).collect();
        let width = rows.first().map_or(0, |r| r.len());
        let columns = (0..width).map(|i| {
            let operands: Option<Vec<_>> =
                rows.iter().map(|row| self.ordinals.operand(row.get(i)?)).collect();
            let constants = operands.filter(|o| same_form(o)).unwrap_or_default();
            constants.iter().for_each(|operand| self.note_param(operand, KeyType::Text));
            OutColumn { name: format!("column{}", i + 1), ..constant(constants) }
        });
        Out { columns: columns.collect(), open: false, exact: true }
    }

    fn select(
        &mut self,
        select: &Select,
        query: Option<&Query>,
        outer: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> Out {
        self.check_dialect(select);
        let block = self.new_block();
        let from = self.from(&select.from, block, outer, ctes);
        let rels = [&from.rel];
        let scope = Scope { rels: &rels, outer };
        self.walk(&select.distinct, block, &scope, ctes);
        self.walk(&select.projection, block, &scope, ctes);
        self.walk(&select.selection, block, &scope, ctes);
        self.walk(&select.group_by, block, &scope, ctes);
        self.walk(&select.having, block, &scope, ctes);
        self.walk(&select.named_window, block, &scope, ctes);
        if let Some(query) = query {
            self.tail(query, block, &scope, ctes);
        }
        if matches!(select.distinct, Some(Distinct::On(_)))
            && let Some(block) = self.block(block)
        {
            block.cut = true;
        }
        let filter = select.selection.as_ref().map_or(Formula::True, |e| self.formula(e, &scope));
        self.settle_joins(&filter, from.outer_joins);
        self.graph.assert(filter, &from.rel.insts);
        self.output(select, block, &from.rel, &scope)
    }

    fn check_dialect(&mut self, select: &Select) {
        let foreign = select.top.is_some()
            || select.exclude.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.qualify.is_some()
            || select.value_table_mode.is_some()
            || select.select_modifiers.is_some()
            || select.flavor != SelectFlavor::Standard;
        if foreign || select.projection.iter().any(is_foreign_wildcard) {
            self.not_understood("a SELECT of another dialect");
        }
    }
}

/// `* EXCLUDE …` and its like.
fn is_foreign_wildcard(item: &SelectItem) -> bool {
    match item {
        SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
            options.opt_ilike.is_some()
                || options.opt_exclude.is_some()
                || options.opt_except.is_some()
                || options.opt_replace.is_some()
                || options.opt_rename.is_some()
                || options.opt_alias.is_some()
        }
        SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } => false,
        SelectItem::ExprWithAliases { .. } => true,
    }
}
