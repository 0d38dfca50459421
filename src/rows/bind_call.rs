//! IN, CASE, functions and aggregates: one type for what stands beside each other.
//! Must not know rows.

use super::bind::{Binder, Clause, Typed, literal};
use super::functions::{self, AggregateFunction};
use super::node::{AggregateCall, Node, Op};
use super::{BinaryOp, Expr, RowsError, Type, Value};

impl Binder<'_> {
    /// As PostgreSQL: the constants of a longer list share one type with the left side, all else is compared
    /// one by one.
    pub(super) fn bind_in(
        &mut self,
        arg: &Expr,
        list: &[Expr],
        is: bool,
        clause: Clause,
    ) -> Result<Typed, RowsError> {
        let mut arg = self.bind(arg, clause)?;
        let mut items = list.iter().map(|e| self.bind(e, clause)).collect::<Result<Vec<_>, _>>()?;
        let constants: Vec<_> = items.iter().filter(|i| !i.node.reads_input()).map(|i| i.kind).collect();
        if constants.len() > 1 {
            let kinds: Vec<_> = std::iter::once(arg.kind).chain(constants).collect();
            if let Ok(common) = common_type(&kinds) {
                for item in items.iter_mut().filter(|i| !i.node.reads_input()) {
                    let node = self.cast(item.clone(), common)?;
                    *item = Typed { node, kind: Some(common) };
                }
            }
        }
        let mut args = Vec::with_capacity(items.len() + 1);
        for item in items {
            let (left, right) = self.comparable(BinaryOp::Eq, arg, item)?;
            args.push(right.node);
            arg = left;
        }
        args.insert(0, arg.node);
        Ok(Typed::new(Type::Bool, Op::In(is), args))
    }

    pub(super) fn bind_case(
        &mut self,
        operand: Option<&Expr>,
        branches: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        clause: Clause,
    ) -> Result<Typed, RowsError> {
        let mut operand = operand.map(|o| self.bind(o, clause)).transpose()?;
        if let Some(o) = operand.as_mut().filter(|o| o.kind.is_none()) {
            *o = Typed { node: self.cast(o.clone(), Type::Text)?, kind: Some(Type::Text) };
        }
        let (mut conditions, mut results) = (Vec::new(), Vec::new());
        for (when, then) in branches {
            conditions.push(match &operand {
                Some(operand) => {
                    let when = self.bind(when, clause)?;
                    self.comparable(BinaryOp::Eq, operand.clone(), when)?.1.node
                }
                None => self.bind_as(when, clause, Type::Bool, "CASE/WHEN")?,
            });
            results.push(self.bind(then, clause)?);
        }
        let otherwise = match otherwise {
            Some(expr) => self.bind(expr, clause)?,
            None => literal(&Value::Null),
        };
        // PostgreSQL looks at ELSE first; it shows in the message.
        let mut kinds = vec![otherwise.kind];
        kinds.extend(results.iter().map(|r| r.kind));
        let kind = common_type(&kinds).map_err(|e| e.message("CASE"))?;
        let op = if operand.is_some() { Op::CaseOf } else { Op::Case };
        let mut args: Vec<Node> = operand.into_iter().map(|o| o.node).collect();
        for (condition, result) in conditions.into_iter().zip(results) {
            args.push(condition);
            args.push(self.cast(result, kind)?);
        }
        args.push(self.cast(otherwise, kind)?);
        Ok(Typed::new(kind, op, args))
    }

    pub(super) fn bind_call(
        &mut self,
        name: &str,
        args: &[Expr],
        clause: Clause,
    ) -> Result<Typed, RowsError> {
        let bound = args.iter().map(|e| self.bind(e, clause)).collect::<Result<Vec<_>, _>>()?;
        if let (Some(constant), true) = (self.constants.iter().find(|c| c.name == name), bound.is_empty()) {
            return Ok(Typed { node: Node::Const(constant.value.clone()), kind: Some(constant.kind) });
        }
        let kinds: Vec<_> = bound.iter().map(|b| b.kind).collect();
        match name {
            "coalesce" if !bound.is_empty() => self.of_one_type("COALESCE", Op::Coalesce, bound),
            "greatest" if !bound.is_empty() => self.of_one_type("GREATEST", Op::Extreme(true), bound),
            "least" if !bound.is_empty() => self.of_one_type("LEAST", Op::Extreme(false), bound),
            "nullif" if bound.len() == 2 => self.null_if(bound),
            _ => {
                let (wanted, result, function) = functions::function(name, &kinds)?;
                let args = bound
                    .into_iter()
                    .zip(wanted)
                    .map(|(arg, kind)| self.cast(arg, *kind))
                    .collect::<Result<_, _>>()?;
                Ok(Typed::new(result, Op::Call(function), args))
            }
        }
    }

    fn of_one_type(&mut self, name: &str, op: Op, args: Vec<Typed>) -> Result<Typed, RowsError> {
        let kinds: Vec<_> = args.iter().map(|a| a.kind).collect();
        let kind = common_type(&kinds).map_err(|e| e.message(name))?;
        let args = args.into_iter().map(|arg| self.cast(arg, kind)).collect::<Result<_, _>>()?;
        Ok(Typed::new(kind, op, args))
    }

    fn null_if(&mut self, args: Vec<Typed>) -> Result<Typed, RowsError> {
        let mut args = args.into_iter();
        let (Some(left), Some(right)) = (args.next(), args.next()) else {
            return Err(RowsError::NoFunction("nullif()".to_owned()));
        };
        let (left, right) = self.comparable(BinaryOp::Eq, left, right)?;
        // The type under which the two are compared; integers of both widths are compared as they are.
        let rungs = (left.kind.and_then(Type::rung), right.kind.and_then(Type::rung));
        let is_promoted = rungs.0 < rungs.1 && right.kind != Some(Type::Int8);
        let kind = if is_promoted { right.kind } else { left.kind }.unwrap_or(Type::Text);
        let left = self.cast(left, kind)?;
        Ok(Typed::new(kind, Op::NullIf, vec![left, right.node]))
    }

    pub(super) fn bind_aggregate(
        &mut self,
        name: &str,
        args: Option<&[Expr]>,
        distinct: bool,
        filter: Option<&Expr>,
        clause: Clause,
    ) -> Result<Typed, RowsError> {
        check_aggregate_place(clause)?;
        let filter = match filter {
            Some(filter) => Some(self.bind_as(filter, Clause::Filter, Type::Bool, "FILTER")?),
            None => None,
        };
        let Some(args) = args else {
            if name != "count" || distinct {
                return Err(RowsError::NoFunction(format!("{name}(*)")));
            }
            let call = AggregateCall { function: AggregateFunction::Count, arg: None, distinct, filter };
            return Ok(Typed { node: Node::Aggregate(Box::new(call)), kind: Some(Type::Int8) });
        };
        let bound = args.iter().map(|e| self.bind(e, Clause::Aggregate)).collect::<Result<Vec<_>, _>>()?;
        let kinds: Vec<_> = bound.iter().map(|b| b.kind).collect();
        let mut bound = bound.into_iter();
        let (Some(arg), None) = (bound.next(), bound.next()) else {
            return Err(RowsError::NoFunction(functions::call_text(name, &kinds)));
        };
        let (node, kind, function) = if name == "count" {
            (self.settle(arg)?.0, Type::Int8, AggregateFunction::Count)
        } else {
            let (wanted, kind, function) = functions::aggregate(name, &kinds)?;
            (self.cast(arg, wanted.first().copied().unwrap_or(Type::Text))?, kind, function)
        };
        let call = AggregateCall { function, arg: Some(node), distinct, filter };
        Ok(Typed { node: Node::Aggregate(Box::new(call)), kind: Some(kind) })
    }
}

fn check_aggregate_place(clause: Clause) -> Result<(), RowsError> {
    let place = match clause {
        Clause::Output => return Ok(()),
        Clause::Aggregate => {
            return Err(RowsError::Grouping("aggregate function calls cannot be nested".to_owned()));
        }
        Clause::Where => "WHERE",
        Clause::GroupBy => "GROUP BY",
        Clause::Limit => "LIMIT",
        Clause::Offset => "OFFSET",
        Clause::Filter => "FILTER",
    };
    Err(RowsError::Grouping(format!("aggregate functions are not allowed in {place}")))
}

/// Two types that no common one holds.
struct Unmatched(Type, Type);

impl Unmatched {
    fn message(&self, construct: &str) -> RowsError {
        let (first, second) = (self.0.name(), self.1.name());
        RowsError::Mismatch(format!("{construct} types {first} and {second} cannot be matched"))
    }
}

/// The type all can be cast to. Source: PostgreSQL docs, "UNION, CASE, and Related Constructs".
fn common_type(kinds: &[Option<Type>]) -> Result<Type, Unmatched> {
    let mut known = kinds.iter().flatten().copied();
    let Some(mut common) = known.next() else { return Ok(Type::Text) };
    for kind in known {
        if functions::casts_implicitly(common, kind) {
            common = kind;
        } else if !functions::casts_implicitly(kind, common) {
            return Err(Unmatched(common, kind));
        }
    }
    Ok(common)
}
