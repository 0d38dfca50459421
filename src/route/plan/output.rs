//! What a query returns: which of its output columns are plain columns of its tables, or constants.
//! Must not know how its tables were joined, nor shards.

use sqlparser::ast::{
    Distinct, Expr, GroupByExpr, Select, SelectItem, SelectItemQualifiedWildcardKind, TableAlias, Value,
};

use super::analysis::Analysis;
use super::cond::Test;
use super::conjuncts::node;
use super::graph::{Formula, Inst, InstColumn, Node, Role};
use super::keys::{Operand, Source, Typed, class};
use super::names::folded;
use super::scope::{Rel, Scope, Visible};
use crate::shard::KeyType;

/// One column that a query returns.
#[derive(Debug, Clone, Default)]
pub(super) struct OutColumn {
    /// Its name; empty where it is not known.
    pub(super) name: String,
    /// The column that it is: its values are that column's.
    pub(super) up: Option<Node>,
    /// Columns of which only equal rows matter, if only some values of this column matter.
    pub(super) down: Vec<Node>,
    /// Its type.
    pub(super) typed: Option<Typed>,
    /// As [`InstColumn::ordered`].
    pub(super) ordered: bool,
    /// As [`InstColumn::length`].
    pub(super) length: Option<usize>,
    /// The constants that it can be, if it is one.
    pub(super) constants: Vec<Operand>,
}

/// What a query returns.
#[derive(Debug, Clone, Default)]
pub(super) struct Out {
    /// Its columns.
    pub(super) columns: Vec<OutColumn>,
    /// It has columns whose names are not known.
    pub(super) open: bool,
    /// `columns` are all of them, in order.
    pub(super) exact: bool,
}

impl Out {
    /// Nothing is known of it.
    pub(super) fn unknown() -> Self {
        Self { columns: Vec::new(), open: true, exact: false }
    }

    /// No row may be assumed to be left out by what is asked of the columns.
    pub(super) fn pinned(mut self) -> Self {
        self.columns.iter_mut().for_each(|c| c.down.clear());
        self
    }
}

impl Analysis<'_> {
    /// What a SELECT returns.
    pub(super) fn output(&mut self, select: &Select, block: usize, rel: &Rel, scope: &Scope<'_>) -> Out {
        let mut out = Out { exact: true, ..Out::default() };
        for item in &select.projection {
            match item {
                SelectItem::UnnamedExpr(expr) => out.columns.push(self.out_column(expr, None, scope)),
                SelectItem::ExprWithAlias { expr, alias } => {
                    out.columns.push(self.out_column(expr, Some(folded(alias)), scope));
                }
                SelectItem::Wildcard(_) => {
                    out.columns.extend(rel.columns.iter().map(|c| self.of_visible(c)));
                    out.open |= rel.open;
                    out.exact &= !rel.open;
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    let name = super::names::last(name);
                    let item = rel.items.iter().find(|i| Some(&i.name) == name.as_ref());
                    out.columns.extend(item.into_iter().flat_map(|i| &i.columns).map(|c| self.of_visible(c)));
                    let known = item.is_some() && !rel.open;
                    out.open |= !known;
                    out.exact &= known;
                }
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::Expr(_), _)
                | SelectItem::ExprWithAliases { .. } => (out.open, out.exact) = (true, false),
            }
        }
        out.open |= out.columns.iter().any(|c| c.name.is_empty());
        let grouping = self.grouping(select, block, scope, &out);
        let windows = self.blocks.get(block).is_some_and(|b| !b.windows.is_empty());
        for column in &mut out.columns {
            let kept = match &grouping {
                Grouping::None => true,
                Grouping::By(nodes) => column.up.is_some_and(|up| nodes.contains(&up)),
            };
            if !kept {
                column.up = None;
            }
            if !kept || windows || matches!(select.distinct, Some(Distinct::On(_))) {
                column.down.clear();
            }
        }
        out
    }

    fn out_column(&mut self, expr: &Expr, alias: Option<String>, scope: &Scope<'_>) -> OutColumn {
        if let Some(up) = node(expr, scope) {
            let column = self.graph.column(up);
            return OutColumn {
                name: alias.or_else(|| column_name(expr)).unwrap_or_default(),
                up: Some(up),
                down: vec![up],
                typed: column.and_then(|c| c.typed),
                ordered: column.is_some_and(|c| c.ordered),
                length: column.and_then(|c| c.length),
                constants: Vec::new(),
            };
        }
        let constants: Vec<_> = self.ordinals.operand(expr).into_iter().collect();
        constants.iter().for_each(|operand| self.note_param(operand, KeyType::Text));
        let name = alias.or_else(|| column_name(expr)).unwrap_or_default();
        OutColumn { name, ..constant(constants) }
    }

    fn of_visible(&self, visible: &Visible) -> OutColumn {
        let column = visible.node.and_then(|node| self.graph.column(node));
        OutColumn {
            name: visible.name.clone(),
            up: visible.node,
            down: visible.node.into_iter().collect(),
            typed: column.and_then(|c| c.typed),
            ordered: column.is_some_and(|c| c.ordered),
            length: column.and_then(|c| c.length),
            constants: Vec::new(),
        }
    }

    fn grouping(&mut self, select: &Select, block: usize, scope: &Scope<'_>, out: &Out) -> Grouping {
        let GroupByExpr::Expressions(exprs, modifiers) = &select.group_by else {
            return Grouping::By(Vec::new());
        };
        if exprs.is_empty() {
            let aggregates = self.blocks.get(block).is_some_and(|b| !b.aggregates.is_empty());
            let one_row = select.having.is_some() || aggregates;
            return if one_row { Grouping::By(Vec::new()) } else { Grouping::None };
        }
        if !modifiers.is_empty() || exprs.iter().any(|e| !is_plain_group(e)) {
            return Grouping::By(Vec::new());
        }
        let mut nodes = Vec::new();
        for expr in exprs {
            if let Some(node) = node(expr, scope) {
                nodes.push(node);
            } else if let Some(position) = position(expr) {
                self.by_text = true;
                nodes.extend(out.columns.get(position).filter(|_| out.exact).and_then(|c| c.up));
            } else if let Some(name) = column_name(expr) {
                nodes.extend(out.columns.iter().find(|c| c.name == name).and_then(|c| c.up));
            }
        }
        Grouping::By(nodes)
    }

    /// An appearance of a derived table.
    pub(super) fn derived(&mut self, out: &Out, block: usize, is_cte: bool) -> usize {
        let columns = out.columns.iter().map(|c| InstColumn {
            name: c.name.clone(),
            typed: c.typed,
            ordered: c.ordered,
            length: c.length,
            constants: c.constants.clone(),
        });
        let columns = columns.collect();
        let inst = self.graph.add(Inst {
            columns,
            open: out.open,
            sharded: None,
            block,
            nullable: false,
            role: Role::Read,
        });
        for (column, from) in out.columns.iter().enumerate() {
            let node = Node { inst, column };
            if let Some(up) = from.up {
                self.graph.edge(up, node);
            }
            if !is_cte {
                from.down.iter().for_each(|to| self.graph.edge(node, *to));
            }
            if !from.constants.is_empty() {
                self.graph.assert(Formula::Atom(node, Test::In(from.constants.clone())), &[inst]);
            }
        }
        inst
    }
}

enum Grouping {
    None,
    /// Only these columns have one value per row of the result.
    By(Vec<Node>),
}

/// Whether a GROUP BY item is an expression, not a grouping set, which can make it NULL.
fn is_plain_group(expr: &Expr) -> bool {
    !matches!(expr, Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) | Expr::Tuple(_))
}

fn position(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Number(digits, _) = &value.value else { return None };
    digits.parse::<usize>().ok()?.checked_sub(1)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "other expressions get names of PostgreSQL's making")]
fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(folded(ident)),
        Expr::CompoundIdentifier(idents) => idents.last().map(folded),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

/// A column of constants; its type is what PostgreSQL would make of untyped ones.
pub(super) fn constant(constants: Vec<Operand>) -> OutColumn {
    let kind =
        constants.first().map(|o| o.cast.unwrap_or(if o.number { KeyType::Int8 } else { KeyType::Text }));
    let typed = kind.map(|kind| Typed { kind, guessed: true });
    OutColumn { typed, ordered: false, constants, ..OutColumn::default() }
}

/// Whether constants that share a column are surely of one type.
pub(super) fn same_form(operands: &[Operand]) -> bool {
    let form = |o: &Operand| (o.number, o.cast.map(class), matches!(o.source, Source::Param(_)));
    operands.windows(2).all(|pair| matches!(pair, [a, b] if form(a) == form(b)))
}

/// What a set operation of two queries returns.
pub(super) fn both(left: Out, right: Out) -> Out {
    if !left.exact || !right.exact || left.columns.len() != right.columns.len() {
        return Out { columns: Vec::new(), open: true, exact: false };
    }
    let columns = left.columns.into_iter().zip(right.columns).map(|(a, b)| {
        let alike = match (a.typed, b.typed) {
            (Some(x), Some(y)) => class(x.kind) == class(y.kind) && a.up.is_some() && b.up.is_some(),
            _ => false,
        };
        OutColumn {
            name: a.name,
            up: None,
            down: if alike { a.down.into_iter().chain(b.down).collect() } else { Vec::new() },
            typed: a.typed.filter(|_| alike),
            ordered: a.ordered && b.ordered,
            length: None,
            constants: Vec::new(),
        }
    });
    Out { columns: columns.collect(), open: left.open, exact: true }
}

/// `AS t(a, b)`: new names for the first columns.
pub(super) fn renamed(mut out: Out, alias: &TableAlias) -> Out {
    if alias.columns.is_empty() {
        return out;
    }
    if !out.exact {
        return Out::unknown();
    }
    for (column, new) in out.columns.iter_mut().zip(&alias.columns) {
        column.name = folded(&new.name);
    }
    out.open = out.columns.iter().any(|c| c.name.is_empty());
    out
}
