//! Conditions in the syntax tree to formulas: only a conjunct of exact shape says something.
//! Must not know which tables a condition may restrict; whatever is not listed here says nothing.

use sqlparser::ast::{BinaryOperator, Expr, Query, Value};

use super::analysis::Analysis;
use super::cond::{Order, Test};
use super::graph::{Formula, Node};
use super::keys::{Operand, Source, class};
use super::operands::row;
use super::scope::Scope;
use crate::shard::KeyType;

impl Analysis<'_> {
    /// What `expr` says if it is true.
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other condition says nothing about keys")]
    pub(super) fn formula(&mut self, expr: &Expr, scope: &Scope<'_>) -> Formula {
        match expr {
            Expr::Nested(inner) | Expr::IsTrue(inner) => self.formula(inner, scope),
            Expr::Value(value) if value.value == Value::Boolean(false) => Formula::False,
            Expr::BinaryOp { op: BinaryOperator::And, .. } => {
                let mut all = Vec::new();
                flatten(expr, &BinaryOperator::And, &mut all);
                Formula::And(all.into_iter().map(|e| self.formula(e, scope)).collect())
            }
            Expr::BinaryOp { op: BinaryOperator::Or, .. } => {
                let mut any = Vec::new();
                flatten(expr, &BinaryOperator::Or, &mut any);
                Formula::or(any.into_iter().map(|e| self.formula(e, scope)).collect())
            }
            Expr::BinaryOp { left, op, right } => self.comparison(left, op, right, scope),
            Expr::IsNotDistinctFrom(a, b) => self.not_distinct(a, b, scope),
            Expr::InList { expr, list, negated: false } => self.in_list(expr, list, scope),
            Expr::InSubquery { expr, subquery, negated: false } => self.in_query(expr, subquery, scope),
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => self.any(left, right, scope),
            Expr::Between { expr, negated: false, low, high } => Formula::And(vec![
                self.ordered(expr, low, Order::From, scope),
                self.ordered(expr, high, Order::UpTo, scope),
            ]),
            _ => Formula::True,
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "any other operator says nothing about keys")]
    fn comparison(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr, scope: &Scope<'_>) -> Formula {
        let (order, mirrored) = match op {
            BinaryOperator::Eq => return self.equal(left, right, scope),
            BinaryOperator::Lt => (Order::Below, Order::From),
            BinaryOperator::LtEq => (Order::UpTo, Order::From),
            BinaryOperator::Gt => (Order::From, Order::Below),
            BinaryOperator::GtEq => (Order::From, Order::UpTo),
            _ => return Formula::True,
        };
        if node(left, scope).is_some() {
            self.ordered(left, right, order, scope)
        } else {
            self.ordered(right, left, mirrored, scope)
        }
    }

    fn equal(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Formula {
        if let (Some(a), Some(b)) = (row(left), row(right)) {
            if a.len() != b.len() {
                return Formula::True;
            }
            return Formula::And(a.into_iter().zip(b).map(|(a, b)| self.equal(a, b, scope)).collect());
        }
        match (node(left, scope), node(right, scope)) {
            (Some(a), Some(b)) => Formula::Equal(a, b),
            (Some(a), None) => self.equal_to(a, right),
            (None, Some(b)) => self.equal_to(b, left),
            (None, None) => Formula::True,
        }
    }

    /// `node = expr`, `expr` not being a column.
    fn equal_to(&mut self, node: Node, expr: &Expr) -> Formula {
        if let Some(operand) = self.ordinals.operand(expr) {
            return self.atom(node, Test::In(vec![operand]));
        }
        // A scalar subquery: the column equals one of its rows; but all of its rows count, or a second one is
        // an error.
        match subquery(expr).and_then(|query| self.first_column(query)) {
            Some((Some(up), _)) => Formula::Into(up, node),
            Some((None, _)) | None => Formula::True,
        }
    }

    fn not_distinct(&mut self, a: &Expr, b: &Expr, scope: &Scope<'_>) -> Formula {
        let (column, other) = match (node(a, scope), node(b, scope)) {
            (Some(node), None) => (node, b),
            (None, Some(node)) => (node, a),
            _ => return Formula::True,
        };
        match self.ordinals.operand(other) {
            Some(operand) => self.atom(column, Test::Same(operand)),
            None => Formula::True,
        }
    }

    fn in_list(&mut self, expr: &Expr, list: &[Expr], scope: &Scope<'_>) -> Formula {
        if let [only] = list {
            return self.equal(expr, only, scope);
        }
        if row(expr).is_some() {
            return Formula::or(list.iter().map(|item| self.equal(expr, item, scope)).collect());
        }
        let operands: Option<Vec<Operand>> = list.iter().map(|e| self.ordinals.operand(e)).collect();
        match (node(expr, scope), operands) {
            (Some(node), Some(operands)) => self.atom(node, Test::In(operands)),
            _ => Formula::True,
        }
    }

    /// `expr IN (subquery)`: rows of the subquery that are not equal do not matter, if it yields them one by one.
    fn in_query(&mut self, expr: &Expr, query: &Query, scope: &Scope<'_>) -> Formula {
        let (Some(node), Some((up, down))) = (node(expr, scope), self.first_column(query)) else {
            return Formula::True;
        };
        let into = up.map(|up| Formula::Into(up, node));
        Formula::And(into.into_iter().chain(down.into_iter().map(|to| Formula::Flow(node, to))).collect())
    }

    fn first_column(&self, query: &Query) -> Option<(Option<Node>, Vec<Node>)> {
        let out = self.subqueries.get(&address(query))?;
        match out.columns.as_slice() {
            [only] if out.exact => Some((only.up, only.down.clone())),
            _ => None,
        }
    }

    fn any(&mut self, left: &Expr, right: &Expr, scope: &Scope<'_>) -> Formula {
        if let Some(query) = subquery(right) {
            return self.in_query(left, query, scope);
        }
        let Some(node) = node(left, scope) else { return Formula::True };
        if let Some(elements) = self.ordinals.elements(right) {
            return self.atom(node, Test::In(elements));
        }
        match self.ordinals.array_operand(right) {
            Some(operand) => self.atom(node, Test::AnyOf(operand)),
            None => Formula::True,
        }
    }

    fn ordered(&mut self, column: &Expr, bound: &Expr, order: Order, scope: &Scope<'_>) -> Formula {
        match (node(column, scope), self.ordinals.operand(bound)) {
            (Some(node), Some(operand)) => self.atom(node, Test::Order(order, operand)),
            _ => Formula::True,
        }
    }

    /// A comparison with constants, if the column's type is one that keys can be concluded from.
    fn atom(&mut self, node: Node, test: Test) -> Formula {
        let Some(typed) = self.graph.typed(node) else { return Formula::True };
        match &test {
            Test::In(operands) => operands.iter().for_each(|o| self.note_param(o, typed.kind)),
            Test::Same(operand) | Test::AnyOf(operand) | Test::Order(_, operand) => {
                self.note_param(operand, typed.kind);
            }
        }
        Formula::Atom(node, test)
    }
}

impl Analysis<'_> {
    /// Notes what type a use of a parameter gives it.
    pub(super) fn note_param(&mut self, operand: &Operand, kind: KeyType) {
        if let Source::Param(n) = operand.source {
            self.param_uses.entry(n).or_default().push(class(operand.cast.unwrap_or(kind)));
        }
    }
}

/// The column that an expression is, bare.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other expression is no column")]
pub(super) fn node(expr: &Expr, scope: &Scope<'_>) -> Option<Node> {
    match expr {
        Expr::Identifier(ident) => scope.column(std::slice::from_ref(ident)).map(|(node, _)| node),
        Expr::CompoundIdentifier(idents) => scope.column(idents).map(|(node, _)| node),
        Expr::Nested(inner) => node(inner, scope),
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "any other expression is no subquery")]
fn subquery(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Subquery(query) => Some(query),
        Expr::Nested(inner) => subquery(inner),
        _ => None,
    }
}

/// By which a query of the tree is known during the analysis.
pub(super) fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

/// The operands of a chain of one operator, however it leans: such chains are long, recursion is not.
fn flatten<'e>(expr: &'e Expr, op: &BinaryOperator, out: &mut Vec<&'e Expr>) {
    let mut todo = vec![expr];
    while let Some(next) = todo.pop() {
        if let Expr::BinaryOp { left, op: its, right } = next
            && its == op
        {
            todo.push(right);
            todo.push(left);
        } else {
            out.push(next);
        }
    }
}
