//! Operators: which one PostgreSQL would choose for the types of their sides.
//! Must not know rows.

use super::bind::{Binder, Clause, Typed};
use super::node::{Arithmetic, Comparison, Op};
use super::{BinaryOp, Expr, RowsError, Type};

impl Binder<'_> {
    pub(super) fn bind_negate(&mut self, arg: &Expr, clause: Clause) -> Result<Typed, RowsError> {
        let arg = self.bind(arg, clause)?;
        match arg.kind {
            Some(kind) if kind.rung().is_some() => Ok(Typed::new(kind, Op::Negate(kind), vec![arg.node])),
            Some(kind) => Err(RowsError::NoOperator(format!("- {}", kind.name()))),
            None => Err(RowsError::NotUnique("operator - unknown".to_owned())),
        }
    }

    pub(super) fn bind_binary(
        &mut self,
        op: BinaryOp,
        left: &Expr,
        right: &Expr,
        clause: Clause,
    ) -> Result<Typed, RowsError> {
        if let BinaryOp::And | BinaryOp::Or = op {
            let left = self.bind_as(left, clause, Type::Bool, op.symbol())?;
            let right = self.bind_as(right, clause, Type::Bool, op.symbol())?;
            let op = if op == BinaryOp::And { Op::And } else { Op::Or };
            return Ok(Typed::new(Type::Bool, op, vec![left, right]));
        }
        let (left, right) = (self.bind(left, clause)?, self.bind(right, clause)?);
        let compare = |c| Op::Compare(c);
        let op_node = match op {
            BinaryOp::Eq => compare(Comparison::Eq),
            BinaryOp::NotEq => compare(Comparison::NotEq),
            BinaryOp::Lt => compare(Comparison::Lt),
            BinaryOp::LtEq => compare(Comparison::LtEq),
            BinaryOp::Gt => compare(Comparison::Gt),
            BinaryOp::GtEq => compare(Comparison::GtEq),
            BinaryOp::Add => return self.arithmetic(op, Arithmetic::Add, left, right),
            BinaryOp::Sub => return self.arithmetic(op, Arithmetic::Sub, left, right),
            BinaryOp::Mul => return self.arithmetic(op, Arithmetic::Mul, left, right),
            BinaryOp::Div => return self.arithmetic(op, Arithmetic::Div, left, right),
            BinaryOp::Mod => return self.arithmetic(op, Arithmetic::Mod, left, right),
            BinaryOp::Like => return self.like(op, false, false, left, right),
            BinaryOp::NotLike => return self.like(op, false, true, left, right),
            BinaryOp::ILike => return self.like(op, true, false, left, right),
            BinaryOp::NotILike => return self.like(op, true, true, left, right),
            BinaryOp::Concat => return self.concat(left, right),
            BinaryOp::And | BinaryOp::Or => return Err(RowsError::TooComplex), // taken above
        };
        let (left, right) = self.comparable(op, left, right)?;
        Ok(Typed::new(Type::Bool, op_node, vec![left.node, right.node]))
    }

    /// Both sides fit for a comparison: of one type, or numbers (those are compared across types).
    pub(super) fn comparable(
        &mut self,
        op: BinaryOp,
        left: Typed,
        right: Typed,
    ) -> Result<(Typed, Typed), RowsError> {
        let kind = match (left.kind, right.kind) {
            (Some(a), Some(b)) if a == b || (a.rung().is_some() && b.rung().is_some()) => {
                return Ok((left, right));
            }
            (Some(kind), None) | (None, Some(kind)) => kind,
            (None, None) => Type::Text,
            (Some(_), Some(_)) => return Err(no_operator(op, &left, &right)),
        };
        let (left, right) = (self.cast(left, kind)?, self.cast(right, kind)?);
        Ok((Typed { node: left, kind: Some(kind) }, Typed { node: right, kind: Some(kind) }))
    }

    fn arithmetic(
        &mut self,
        op: BinaryOp,
        arithmetic: Arithmetic,
        left: Typed,
        right: Typed,
    ) -> Result<Typed, RowsError> {
        let kind = match (left.kind, right.kind) {
            (None, None) => {
                return Err(RowsError::NotUnique(format!("operator {}", operation(op, &left, &right))));
            }
            (Some(Type::Timestamptz), _) | (_, Some(Type::Timestamptz))
                if matches!(arithmetic, Arithmetic::Add | Arithmetic::Sub) =>
            {
                return Err(RowsError::unsupported(
                    "arithmetic on timestamps",
                    "Compare the column with a timestamp literal such as '2026-01-31 12:00:00+00'.",
                ));
            }
            (Some(kind), None) | (None, Some(kind)) => kind,
            (Some(a), Some(b)) => {
                if a.rung() >= b.rung() {
                    a
                } else {
                    b
                }
            }
        };
        let is_number = |t: &Typed| t.kind.is_none_or(|k| k.rung().is_some());
        // PostgreSQL has no float8 % float8.
        if !is_number(&left) || !is_number(&right) || (arithmetic == Arithmetic::Mod && kind == Type::Float8)
        {
            return Err(no_operator(op, &left, &right));
        }
        let args = vec![self.cast(left, kind)?, self.cast(right, kind)?];
        Ok(Typed::new(kind, Op::Arith(arithmetic, kind), args))
    }

    fn like(
        &mut self,
        op: BinaryOp,
        fold: bool,
        negated: bool,
        left: Typed,
        right: Typed,
    ) -> Result<Typed, RowsError> {
        if [&left, &right].iter().any(|side| side.kind.is_some_and(|kind| kind != Type::Text)) {
            return Err(no_operator(op, &left, &right));
        }
        let args = vec![self.cast(left, Type::Text)?, self.cast(right, Type::Text)?];
        Ok(Typed::new(Type::Bool, Op::Like { fold, negated }, args))
    }

    /// Text with anything; the other side is printed as its cast to text prints it.
    fn concat(&mut self, left: Typed, right: Typed) -> Result<Typed, RowsError> {
        let is_text = |t: &Typed| t.kind.is_none_or(|k| k == Type::Text);
        if !is_text(&left) && !is_text(&right) {
            return Err(no_operator(BinaryOp::Concat, &left, &right));
        }
        let args = vec![self.explicit_cast(left, Type::Text)?, self.explicit_cast(right, Type::Text)?];
        Ok(Typed::new(Type::Text, Op::Concat, args))
    }
}

/// `bigint = text`, as PostgreSQL's messages print an operation.
fn operation(op: BinaryOp, left: &Typed, right: &Typed) -> String {
    format!("{} {} {}", left.kind_name(), op.symbol(), right.kind_name())
}

fn no_operator(op: BinaryOp, left: &Typed, right: &Typed) -> RowsError {
    RowsError::NoOperator(operation(op, left, right))
}
