//! Walks the expressions of one block: its subqueries are analysed in its sight, its aggregates noted.
//! Must not know shards.

use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Visit, Visitor,
};

use super::analysis::{Aggregate, Analysis};
use super::conjuncts::address;
use super::functions::{self, Spread};
use super::names::last;
use super::scope::{Ctes, Scope};

impl Analysis<'_> {
    /// Walks whatever can be walked and stands in `block`.
    pub(super) fn walk(&mut self, tree: &impl Visit, block: usize, scope: &Scope<'_>, ctes: &Ctes) {
        let mut walker = Walker { analysis: self, block, scope, ctes, depth: 0 };
        let _ = tree.visit(&mut walker);
    }

    fn note_call(&mut self, function: &Function, block: usize, scope: &Scope<'_>) {
        let name = last(&function.name).unwrap_or_default();
        let catalog = self.ctx.catalog;
        let plain = function.filter.is_none()
            && function.within_group.is_empty()
            && functions::is_plain(&name, catalog);
        let window = function.over.is_some();
        let outside = !plain && !window && reaches_out(function, scope);
        let any_answer = functions::spread(&name, catalog) == Spread::AnyPerRow;
        let Some(block) = self.block(block) else { return };
        if window {
            block.windows.push(name);
        } else if !plain {
            block.outer_aggregate |= outside;
            block.aggregates.push(Aggregate { star: takes_all(function), name });
        } else if any_answer {
            block.any_answer.push(name);
        }
    }
}

struct Walker<'w, 'a> {
    analysis: &'w mut Analysis<'a>,
    block: usize,
    scope: &'w Scope<'w>,
    ctes: &'w Ctes,
    /// How many queries deep the walk is; only what is at depth 0 belongs to this block.
    depth: usize,
}

impl Visitor for Walker<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.depth == 0 {
            let out = self.analysis.query(query, Some(self.scope), self.ctes);
            self.analysis.subqueries.insert(address(query), out);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth = self.depth.saturating_sub(1);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Function(function) = expr
        {
            self.analysis.note_call(function, self.block, self.scope);
        }
        ControlFlow::Continue(())
    }
}

/// Whether a call names a column that is not surely this block's own: then an aggregate may be one of a block
/// further out. Source: PostgreSQL docs, "Aggregate Expressions".
fn reaches_out(function: &Function, scope: &Scope<'_>) -> bool {
    struct Columns<'s>(&'s Scope<'s>, bool);
    impl Visitor for Columns<'_> {
        type Break = ();
        #[expect(clippy::wildcard_enum_match_arm, reason = "other expressions name no column themselves")]
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let name = match expr {
                Expr::Identifier(ident) => std::slice::from_ref(ident),
                Expr::CompoundIdentifier(idents) => idents,
                _ => return ControlFlow::Continue(()),
            };
            self.1 |= self.0.column(name).is_none_or(|(_, level)| level > 0);
            ControlFlow::Continue(())
        }
    }
    let mut columns = Columns(scope, false);
    let _ = function.visit(&mut columns);
    columns.1
}

/// Whether it is called as `count(*)` is.
fn takes_all(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)])
}
