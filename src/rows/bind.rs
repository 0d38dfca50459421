//! Expressions to bound ones: finds columns, gives every part its type and inserts casts, as PostgreSQL does.
//! Must not know rows.

use super::node::{Node, Op};
use super::{BinaryOp, Column, Expr, RowsError, Type, Value};

/// The most nodes one query may have.
const MAX_NODES: usize = 100_000;
/// The deepest nesting; evaluation recurses as deep.
const MAX_DEPTH: usize = 200;

/// A function without arguments whose value the caller knows: `version`, `current_database`, `now` …
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Its value.
    pub value: Value,
}

/// Where an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clause {
    Where,
    GroupBy,
    Limit,
    Offset,
    Filter,
    /// The arguments of an aggregate.
    Aggregate,
    /// The select list, HAVING and ORDER BY: aggregates are welcome.
    Output,
}

/// A node and its type; `None` is a text literal, NULL or parameter that has none yet.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Typed {
    pub(super) node: Node,
    pub(super) kind: Option<Type>,
}

impl Typed {
    pub(super) fn new(kind: Type, op: Op, args: Vec<Node>) -> Self {
        Self { node: Node::Op(op, args), kind: Some(kind) }
    }

    pub(super) fn kind_name(&self) -> &'static str {
        self.kind.map_or("unknown", Type::name)
    }
}

/// Binds the expressions of one SELECT.
pub(super) struct Binder<'a> {
    columns: &'a [Column],
    pub(super) constants: &'a [Constant],
    /// Types of the parameters as far as known.
    pub(super) params: Vec<Option<Type>>,
    nodes: usize,
    depth: usize,
}

impl<'a> Binder<'a> {
    pub(super) fn new(columns: &'a [Column], constants: &'a [Constant], params: Vec<Option<Type>>) -> Self {
        Self { columns, constants, params, nodes: 0, depth: 0 }
    }

    pub(super) fn column(&self, at: usize) -> Option<&'a Column> {
        self.columns.get(at)
    }

    pub(super) fn columns(&self) -> &'a [Column] {
        self.columns
    }

    /// The position of a column, if there is one of that name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// Binds an expression; its type may stay open.
    pub(super) fn bind(&mut self, expr: &Expr, clause: Clause) -> Result<Typed, RowsError> {
        self.nodes += 1;
        self.depth += 1;
        if self.nodes > MAX_NODES || self.depth > MAX_DEPTH {
            return Err(RowsError::TooComplex);
        }
        let bound = self.bind_inner(expr, clause);
        self.depth -= 1;
        bound
    }

    /// Binds an expression that must be of a type, e.g. `argument of WHERE`.
    pub(super) fn bind_as(
        &mut self,
        expr: &Expr,
        clause: Clause,
        kind: Type,
        place: &str,
    ) -> Result<Node, RowsError> {
        let bound = self.bind(expr, clause)?;
        match bound.kind {
            // As in an assignment: a number of any type will do for a LIMIT.
            Some(have) if have != kind && (have.rung().is_none() || kind.rung().is_none()) => {
                Err(RowsError::Mismatch(format!(
                    "argument of {place} must be type {}, not type {}",
                    kind.name(),
                    have.name()
                )))
            }
            Some(_) | None => self.cast(bound, kind),
        }
    }

    /// Gives a typeless output its type: text.
    pub(super) fn settle(&mut self, bound: Typed) -> Result<(Node, Type), RowsError> {
        let kind = bound.kind.unwrap_or(Type::Text);
        self.cast(bound, kind).map(|node| (node, kind))
    }

    fn bind_inner(&mut self, expr: &Expr, clause: Clause) -> Result<Typed, RowsError> {
        match expr {
            Expr::Column(name) => self.bind_column(name),
            Expr::Literal(value) => Ok(literal(value)),
            Expr::Param(at) => self.bind_param(*at),
            Expr::Not(arg) => {
                let arg = self.bind_as(arg, clause, Type::Bool, "NOT")?;
                Ok(Typed::new(Type::Bool, Op::Not, vec![arg]))
            }
            Expr::Negate(arg) => self.bind_negate(arg, clause),
            Expr::Binary(op, left, right) => self.bind_binary(*op, left, right, clause),
            Expr::IsNull(arg, is) => {
                let arg = self.bind(arg, clause)?;
                Ok(Typed::new(Type::Bool, Op::IsNull(*is), vec![arg.node]))
            }
            Expr::IsBool(arg, what, is) => {
                let word = match what {
                    Some(true) => "TRUE",
                    Some(false) => "FALSE",
                    None => "UNKNOWN",
                };
                let place = format!("IS {}{word}", if *is { "" } else { "NOT " });
                let arg = self.bind_as(arg, clause, Type::Bool, &place)?;
                Ok(Typed::new(Type::Bool, Op::IsBool(*what, *is), vec![arg]))
            }
            Expr::IsDistinct(left, right, is) => {
                let (left, right) = (self.bind(left, clause)?, self.bind(right, clause)?);
                let (left, right) = self.comparable(BinaryOp::Eq, left, right)?;
                Ok(Typed::new(Type::Bool, Op::IsDistinct(*is), vec![left.node, right.node]))
            }
            Expr::In(arg, list, is) => self.bind_in(arg, list, *is, clause),
            Expr::Between(arg, low, high) => {
                let (arg, low) = (self.bind(arg, clause)?, self.bind(low, clause)?);
                let (arg, low) = self.comparable(BinaryOp::GtEq, arg, low)?;
                let high = self.bind(high, clause)?;
                let (arg, high) = self.comparable(BinaryOp::LtEq, arg, high)?;
                Ok(Typed::new(Type::Bool, Op::Between, vec![arg.node, low.node, high.node]))
            }
            Expr::Case { operand, branches, otherwise } => {
                self.bind_case(operand.as_deref(), branches, otherwise.as_deref(), clause)
            }
            Expr::Call(name, args) => self.bind_call(name, args, clause),
            Expr::Aggregate { name, args, distinct, filter } => {
                self.bind_aggregate(name, args.as_deref(), *distinct, filter.as_deref(), clause)
            }
            Expr::Cast(arg, kind) => {
                let arg = self.bind(arg, clause)?;
                self.explicit_cast(arg, *kind).map(|node| Typed { node, kind: Some(*kind) })
            }
        }
    }

    fn bind_column(&self, name: &str) -> Result<Typed, RowsError> {
        let at = self.find(name).ok_or_else(|| {
            let known: Vec<_> = self.columns.iter().map(|c| c.name.as_str()).collect();
            let hint = if known.is_empty() {
                "There is no FROM table that it could belong to.".to_owned()
            } else {
                format!("The columns are: {}.", known.join(", "))
            };
            RowsError::NoColumn { name: name.to_owned(), hint }
        })?;
        Ok(Typed { node: Node::Column(at), kind: self.column(at).map(|c| c.kind) })
    }

    pub(super) fn bind_param(&mut self, at: usize) -> Result<Typed, RowsError> {
        // Bind carries the number of parameters in 16 bits.
        if at >= usize::from(u16::MAX) {
            return Err(RowsError::NoParameter(at.saturating_add(1)));
        }
        if self.params.len() <= at {
            self.params.resize(at + 1, None);
        }
        Ok(Typed { node: Node::Param(at), kind: self.params.get(at).copied().flatten() })
    }

    /// The implicit cast to a type; a literal is read as that type, a parameter becomes of it.
    pub(super) fn cast(&mut self, bound: Typed, kind: Type) -> Result<Node, RowsError> {
        match (bound.kind, bound.node) {
            (Some(have), node) if have == kind => Ok(node),
            (Some(have), node) => Ok(Node::Op(Op::Cast(have, kind), vec![node])),
            (None, Node::Const(Value::Text(text))) => Value::from_text(kind, &text).map(Node::Const),
            (None, Node::Param(at)) => self.fix_param(at, kind).map(|()| Node::Param(at)),
            // Only NULL has no type otherwise.
            (None, node) => Ok(node),
        }
    }

    pub(super) fn explicit_cast(&mut self, bound: Typed, kind: Type) -> Result<Node, RowsError> {
        match bound.kind {
            Some(have) if !super::cast::exists(have, kind) => {
                Err(RowsError::NoCast { from: bound.kind_name(), to: kind.name() })
            }
            Some(_) | None => self.cast(bound, kind),
        }
    }

    fn fix_param(&mut self, at: usize, kind: Type) -> Result<(), RowsError> {
        match self.params.get_mut(at) {
            Some(slot @ None) => *slot = Some(kind),
            Some(Some(have)) if *have != kind => return Err(RowsError::InconsistentParameter(at + 1)),
            Some(Some(_)) | None => {}
        }
        Ok(())
    }
}

pub(super) fn literal(value: &Value) -> Typed {
    let kind = match value {
        Value::Null | Value::Text(_) => None,
        Value::Bool(_) => Some(Type::Bool),
        Value::Int(n) => Some(if i32::try_from(*n).is_ok() { Type::Int4 } else { Type::Int8 }),
        Value::Numeric(_) => Some(Type::Numeric),
        Value::Float(_) => Some(Type::Float8),
        Value::Timestamptz(_) => Some(Type::Timestamptz),
    };
    Typed { node: Node::Const(value.clone()), kind }
}
