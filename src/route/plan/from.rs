//! FROM lists: which tables stand in a block, and what its joins say of them.
//! Must not know shards. An outer join's ON says nothing of the side that is preserved.

use sqlparser::ast::{
    Join, JoinConstraint, JoinOperator, ObjectName, Query, TableAlias, TableFactor, TableWithJoins,
};

use super::analysis::{Analysis, Use};
use super::graph::{Formula, Inst, InstColumn, Node, Role};
use super::names::{self, folded};
use super::output::renamed;
use super::scope::{Ctes, Item, Rel, Scope, Visible};

/// An outer join whose condition waits for WHERE, which may turn it into an inner one.
#[derive(Debug)]
pub(super) struct OuterJoin {
    kind: Outer,
    on: Formula,
    left: Vec<usize>,
    right: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outer {
    Left,
    Right,
    Full,
}

/// A FROM list.
#[derive(Debug, Default)]
pub(super) struct From {
    /// What it shows.
    pub(super) rel: Rel,
    /// Its outer joins.
    pub(super) outer_joins: Vec<OuterJoin>,
}

/// What all parts of a FROM list share.
struct Place<'p> {
    block: usize,
    outer: Option<&'p Scope<'p>>,
    ctes: &'p Ctes,
}

impl Analysis<'_> {
    /// A FROM list in the place that `outer` is the sight of.
    pub(super) fn from(
        &mut self,
        tables: &[TableWithJoins],
        block: usize,
        outer: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> From {
        self.beside(Rel::default(), tables, block, outer, ctes)
    }

    /// The same with something already in it: the target of an UPDATE or DELETE.
    pub(super) fn beside(
        &mut self,
        first: Rel,
        tables: &[TableWithJoins],
        block: usize,
        outer: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> From {
        let place = Place { block, outer, ctes };
        let mut from = From { rel: first, outer_joins: Vec::new() };
        for table in tables {
            let rel = self.joins(table, &from.rel, &place, &mut from.outer_joins);
            from.rel.append(rel);
        }
        from
    }

    /// One FROM item alone: the source of a MERGE.
    pub(super) fn item(
        &mut self,
        item: &TableFactor,
        block: usize,
        outer: Option<&Scope<'_>>,
        ctes: &Ctes,
    ) -> From {
        let place = Place { block, outer, ctes };
        let mut outer_joins = Vec::new();
        let rel = self.factor(item, &[], &place, &mut outer_joins);
        From { rel, outer_joins }
    }

    /// What WHERE and the outer joins say together: a join whose made-up NULLs are all filtered out is an inner
    /// one.
    pub(super) fn settle_joins(&mut self, filter: &Formula, joins: Vec<OuterJoin>) {
        for OuterJoin { kind, on, left, right } in joins {
            let keeps_left = kind != Outer::Right && !filter.rejects_nulls_of(&right);
            let keeps_right = kind != Outer::Left && !filter.rejects_nulls_of(&left);
            let about: Vec<usize> = match (keeps_left, keeps_right) {
                (false, false) => left.into_iter().chain(right).collect(),
                (true, false) => right,
                (false, true) => left,
                (true, true) => Vec::new(),
            };
            self.graph.assert(on, &about);
        }
    }

    fn joins(
        &mut self,
        table: &TableWithJoins,
        beside: &Rel,
        place: &Place<'_>,
        outer: &mut Vec<OuterJoin>,
    ) -> Rel {
        let mut rel = self.factor(&table.relation, &[beside], place, outer);
        for join in &table.joins {
            let right = self.factor(&join.relation, &[beside, &rel], place, outer);
            rel = self.join(rel, right, join, place, outer);
        }
        rel
    }

    fn join(
        &mut self,
        left: Rel,
        right: Rel,
        join: &Join,
        place: &Place<'_>,
        outer: &mut Vec<OuterJoin>,
    ) -> Rel {
        let Some((kind, constraint)) = kind_of(&join.join_operator) else {
            self.not_understood("a join of another dialect");
            let mut rel = left;
            rel.append(right);
            return rel;
        };
        let (on, merged) = self.constraint(&left, &right, constraint, place);
        for (side, nulls) in [(&left, Outer::Right), (&right, Outer::Left)] {
            if kind == Some(nulls) || kind == Some(Outer::Full) {
                side.insts.iter().for_each(|i| {
                    if let Some(inst) = self.graph.insts.get_mut(*i) {
                        inst.nullable = true;
                    }
                });
            }
        }
        let insts = |rel: &Rel| rel.insts.clone();
        match kind {
            None => {
                let both: Vec<usize> = insts(&left).into_iter().chain(insts(&right)).collect();
                self.graph.assert(on, &both);
            }
            Some(kind) => outer.push(OuterJoin { kind, on, left: insts(&left), right: insts(&right) }),
        }
        merge(left, right, kind, &merged)
    }

    /// What a join's condition says, and the columns that USING or NATURAL merge.
    fn constraint(
        &mut self,
        left: &Rel,
        right: &Rel,
        constraint: &JoinConstraint,
        place: &Place<'_>,
    ) -> (Formula, Vec<String>) {
        let merged: Vec<String> = match constraint {
            JoinConstraint::None => return (Formula::True, Vec::new()),
            JoinConstraint::On(expr) => {
                let rels = [left, right];
                let scope = Scope { rels: &rels, outer: place.outer };
                self.walk(expr, place.block, &scope, place.ctes);
                return (self.formula(expr, &scope), Vec::new());
            }
            JoinConstraint::Using(columns) => columns.iter().filter_map(names::last).collect(),
            JoinConstraint::Natural if left.open || right.open => {
                self.not_understood("NATURAL JOIN of tables whose columns are not known");
                Vec::new()
            }
            JoinConstraint::Natural => {
                let in_right = |c: &&Visible| right.columns.iter().any(|r| r.name == c.name);
                left.columns.iter().filter(in_right).map(|c| c.name.clone()).collect()
            }
        };
        let equal = merged.iter().map(|name| match (left.only(name), right.only(name)) {
            (Some(a), Some(b)) => Formula::Equal(a, b),
            _ => Formula::True,
        });
        (Formula::And(equal.collect()), merged)
    }

    fn factor(
        &mut self,
        factor: &TableFactor,
        beside: &[&Rel],
        place: &Place<'_>,
        outer: &mut Vec<OuterJoin>,
    ) -> Rel {
        let lateral_scope = Scope { rels: beside, outer: place.outer };
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                self.check_table(factor);
                self.named(name, alias.as_ref(), place)
            }
            TableFactor::Derived { lateral, subquery, alias, .. } => {
                let scope = if *lateral { Some(&lateral_scope) } else { place.outer };
                self.derived_table(subquery, alias.as_ref(), scope, place)
            }
            TableFactor::NestedJoin { table_with_joins, alias } => {
                // Inside the parentheses the items beside them are in sight for LATERAL only.
                let all = beside.iter().fold(Rel::default(), |mut all, rel| {
                    all.append((*rel).clone());
                    all
                });
                let rel = self.joins(table_with_joins, &all, place, outer);
                match alias {
                    Some(alias) => aliased(rel, alias),
                    None => rel,
                }
            }
            TableFactor::Table { name, alias, args: Some(_), .. } => {
                self.relations.push(name.to_string()); // the visitor counts it as a relation
                if names::is_only(name) {
                    self.not_understood("ONLY");
                }
                self.walk(factor, place.block, &lateral_scope, place.ctes);
                self.function(names::last(name), alias.as_ref(), place)
            }
            TableFactor::Function { name, alias, .. } => {
                self.walk(factor, place.block, &lateral_scope, place.ctes);
                self.function(names::last(name), alias.as_ref(), place)
            }
            TableFactor::UNNEST { alias, .. } => {
                self.walk(factor, place.block, &lateral_scope, place.ctes);
                self.function(Some("unnest".to_owned()), alias.as_ref(), place)
            }
            TableFactor::JsonTable { alias, .. } | TableFactor::XmlTable { alias, .. } => {
                self.walk(factor, place.block, &lateral_scope, place.ctes);
                self.function(None, alias.as_ref(), place)
            }
            TableFactor::TableFunction { .. }
            | TableFactor::OpenJsonTable { .. }
            | TableFactor::Pivot { .. }
            | TableFactor::Unpivot { .. }
            | TableFactor::UnpivotExpr { .. }
            | TableFactor::MatchRecognize { .. }
            | TableFactor::SemanticView { .. } => {
                self.not_understood("a FROM item of another dialect");
                Rel { open: true, ..Rel::default() }
            }
        }
    }

    fn check_table(&mut self, factor: &TableFactor) {
        if let TableFactor::Table {
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            index_hints,
            ..
        } = factor
            && (!with_hints.is_empty()
                || version.is_some()
                || *with_ordinality
                || !partitions.is_empty()
                || json_path.is_some()
                || !index_hints.is_empty())
        {
            self.not_understood("a table in another dialect's form");
        }
    }

    fn named(&mut self, name: &ObjectName, alias: Option<&TableAlias>, place: &Place<'_>) -> Rel {
        let parts = names::parts(name).unwrap_or_default();
        if let [only] = parts.as_slice()
            && let Some(id) = place.ctes.find(only)
        {
            self.relations.push(name.to_string());
            return self.cte(id, only, alias, place);
        }
        let references = self.references.len();
        let table = self.table(name, Use::Read);
        if let (Some(alias), Some(reference)) = (alias, self.references.get_mut(references)) {
            *reference = folded(&alias.name);
        }
        let inst = self.inst_of(&table, place.block);
        let schema = table.name.as_ref().map(|t| t.schema.clone());
        let name = parts.last().cloned().unwrap_or_default();
        self.shown(inst, &name, schema, alias)
    }

    fn cte(&mut self, id: usize, name: &str, alias: Option<&TableAlias>, place: &Place<'_>) -> Rel {
        let Some(out) = self.ctes.get(id).map(|cte| cte.out.clone()) else { return Rel::default() };
        let inst = self.derived(&out, place.block, true);
        if let Some(cte) = self.ctes.get_mut(id) {
            cte.refs.push(inst);
        }
        self.shown(inst, name, None, alias)
    }

    fn derived_table(
        &mut self,
        query: &Query,
        alias: Option<&TableAlias>,
        scope: Option<&Scope<'_>>,
        place: &Place<'_>,
    ) -> Rel {
        let out = self.query(query, scope, place.ctes);
        let out = alias.map_or(out.clone(), |alias| renamed(out, alias));
        let inst = self.derived(&out, place.block, false);
        let name = alias.map(|a| folded(&a.name)).unwrap_or_default();
        self.shown(inst, &name, None, None)
    }

    fn function(&mut self, name: Option<String>, alias: Option<&TableAlias>, place: &Place<'_>) -> Rel {
        let columns = alias.map(|a| a.columns.as_slice()).unwrap_or_default();
        let columns = columns.iter().map(|c| InstColumn {
            name: folded(&c.name),
            typed: None,
            ordered: false,
            length: None,
            constants: Vec::new(),
        });
        let inst = Inst {
            columns: columns.collect(),
            open: true,
            sharded: None,
            block: place.block,
            nullable: false,
            role: Role::Read,
        };
        let inst = self.graph.add(inst);
        let name = alias.map(|a| folded(&a.name)).or(name).unwrap_or_default();
        self.shown(inst, &name, None, None)
    }

    /// An appearance as a FROM item.
    pub(super) fn shown(
        &mut self,
        inst: usize,
        name: &str,
        schema: Option<String>,
        alias: Option<&TableAlias>,
    ) -> Rel {
        let Some(columns) = self.graph.insts.get(inst) else { return Rel::default() };
        let open = columns.open;
        let columns: Vec<Visible> = columns
            .columns
            .iter()
            .enumerate()
            .map(|(column, c)| Visible { name: c.name.clone(), node: Some(Node { inst, column }) })
            .collect();
        let item = Item { name: name.to_owned(), schema, columns: columns.clone() };
        let rel = Rel { items: vec![item], columns, open, insts: vec![inst] };
        match alias {
            Some(alias) => aliased(rel, alias),
            None => rel,
        }
    }
}

/// `AS t(a, b)` hides the names inside.
fn aliased(mut rel: Rel, alias: &TableAlias) -> Rel {
    if rel.open && !alias.columns.is_empty() {
        // Which columns are renamed is not known.
        rel.columns = alias.columns.iter().map(|c| Visible { name: folded(&c.name), node: None }).collect();
    } else {
        for (column, new) in rel.columns.iter_mut().zip(&alias.columns) {
            column.name = folded(&new.name);
        }
    }
    rel.items = vec![Item { name: folded(&alias.name), schema: None, columns: rel.columns.clone() }];
    rel
}

/// `None`: of another dialect. `Some((None, _))`: an inner join.
fn kind_of(operator: &JoinOperator) -> Option<(Option<Outer>, &JoinConstraint)> {
    match operator {
        JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::CrossJoin(on) => Some((None, on)),
        JoinOperator::Left(on) | JoinOperator::LeftOuter(on) => Some((Some(Outer::Left), on)),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Some((Some(Outer::Right), on)),
        JoinOperator::FullOuter(on) => Some((Some(Outer::Full), on)),
        JoinOperator::Semi(_)
        | JoinOperator::LeftSemi(_)
        | JoinOperator::RightSemi(_)
        | JoinOperator::Anti(_)
        | JoinOperator::LeftAnti(_)
        | JoinOperator::RightAnti(_)
        | JoinOperator::CrossApply
        | JoinOperator::OuterApply
        | JoinOperator::AsOf { .. }
        | JoinOperator::StraightJoin(_)
        | JoinOperator::ArrayJoin
        | JoinOperator::LeftArrayJoin
        | JoinOperator::InnerArrayJoin => None,
    }
}

/// The columns of a join: those merged first, of the side that is never made up.
fn merge(left: Rel, right: Rel, kind: Option<Outer>, merged: &[String]) -> Rel {
    let first = merged.iter().map(|name| {
        let node = match kind {
            None | Some(Outer::Left) => left.only(name),
            Some(Outer::Right) => right.only(name),
            Some(Outer::Full) => None,
        };
        Visible { name: name.clone(), node }
    });
    let rest = left.columns.iter().chain(&right.columns).filter(|c| !merged.contains(&c.name)).cloned();
    let columns = first.chain(rest).collect();
    let mut rel = left;
    rel.append(right);
    rel.columns = columns;
    rel
}
