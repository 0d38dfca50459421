//! The value of a bound expression for one row, in three-valued logic.
//! Must not know where the row comes from.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::node::{Comparison, Node, Op};
use super::{RowsError, Value, arith, cast, like};

/// Evaluates an expression.
///
/// # Errors
/// What the operators raise; [`RowsError::NoParameter`] for a parameter without value.
pub(super) fn eval<'a>(
    node: &'a Node,
    row: &'a [Value],
    params: &'a [Value],
) -> Result<Cow<'a, Value>, RowsError> {
    match node {
        // Binding took positions from the same columns; aggregates are gone after grouping.
        Node::Column(at) => Ok(row.get(*at).map_or(Cow::Owned(Value::Null), Cow::Borrowed)),
        Node::Const(value) => Ok(Cow::Borrowed(value)),
        Node::Param(at) => params.get(*at).map(Cow::Borrowed).ok_or(RowsError::NoParameter(at + 1)),
        Node::Aggregate(_) => Ok(Cow::Owned(Value::Null)),
        Node::Op(op, args) => operate(*op, args, row, params),
    }
}

/// Whether a condition holds: NULL does not.
///
/// # Errors
/// As [`eval`].
pub(super) fn holds(node: &Node, row: &[Value], params: &[Value]) -> Result<bool, RowsError> {
    Ok(*eval(node, row, params)? == Value::Bool(true))
}

fn operate<'a>(
    op: Op,
    args: &'a [Node],
    row: &'a [Value],
    params: &'a [Value],
) -> Result<Cow<'a, Value>, RowsError> {
    match op {
        Op::And => logical(args, false, row, params).map(Cow::Owned),
        Op::Or => logical(args, true, row, params).map(Cow::Owned),
        Op::Case => case(args, row, params),
        Op::CaseOf => case_of(args, row, params),
        Op::Coalesce => {
            for arg in args {
                let value = eval(arg, row, params)?;
                if !value.is_null() {
                    return Ok(value);
                }
            }
            Ok(Cow::Owned(Value::Null))
        }
        Op::Not
        | Op::Compare(_)
        | Op::Arith(..)
        | Op::Negate(_)
        | Op::Concat
        | Op::Like { .. }
        | Op::IsNull(_)
        | Op::IsBool(..)
        | Op::IsDistinct(_)
        | Op::In(_)
        | Op::Between
        | Op::NullIf
        | Op::Extreme(_)
        | Op::Cast(..)
        | Op::Call(_) => {
            let values = args.iter().map(|a| eval(a, row, params)).collect::<Result<Vec<_>, _>>()?;
            apply(op, &values).map(Cow::Owned)
        }
    }
}

/// AND (`decisive` false) and OR (`decisive` true): that value decides, else NULL is unknown.
fn logical(args: &[Node], decisive: bool, row: &[Value], params: &[Value]) -> Result<Value, RowsError> {
    let mut unknown = false;
    for arg in args {
        let value = eval(arg, row, params)?;
        if *value == Value::Bool(decisive) {
            return Ok(Value::Bool(decisive));
        }
        unknown |= value.is_null();
    }
    Ok(if unknown { Value::Null } else { Value::Bool(!decisive) })
}

fn case<'a>(args: &'a [Node], row: &'a [Value], params: &'a [Value]) -> Result<Cow<'a, Value>, RowsError> {
    let mut pairs = args.chunks_exact(2);
    for pair in pairs.by_ref() {
        if let [when, then] = pair
            && holds(when, row, params)?
        {
            return eval(then, row, params);
        }
    }
    otherwise(pairs.remainder(), row, params)
}

fn case_of<'a>(args: &'a [Node], row: &'a [Value], params: &'a [Value]) -> Result<Cow<'a, Value>, RowsError> {
    let Some((operand, branches)) = args.split_first() else { return Ok(Cow::Owned(Value::Null)) };
    let operand = eval(operand, row, params)?;
    let mut pairs = branches.chunks_exact(2);
    for pair in pairs.by_ref() {
        if let [when, then] = pair {
            let when = eval(when, row, params)?;
            if !operand.is_null() && !when.is_null() && operand.order(&when).is_eq() {
                return eval(then, row, params);
            }
        }
    }
    otherwise(pairs.remainder(), row, params)
}

fn otherwise<'a>(
    rest: &'a [Node],
    row: &'a [Value],
    params: &'a [Value],
) -> Result<Cow<'a, Value>, RowsError> {
    rest.first().map_or(Ok(Cow::Owned(Value::Null)), |node| eval(node, row, params))
}

/// Operations that look at all their arguments.
fn apply(op: Op, args: &[Cow<'_, Value>]) -> Result<Value, RowsError> {
    match (op, args) {
        (Op::IsNull(is), [arg]) => Ok(Value::Bool(arg.is_null() == is)),
        (Op::IsBool(what, is), [arg]) => {
            let matches = match what {
                Some(wanted) => **arg == Value::Bool(wanted),
                None => arg.is_null(),
            };
            Ok(Value::Bool(matches == is))
        }
        (Op::IsDistinct(is), [left, right]) => {
            let same = match (left.is_null(), right.is_null()) {
                (false, false) => left.order(right).is_eq(),
                (left, right) => left == right,
            };
            Ok(Value::Bool(same != is))
        }
        (Op::In(is), [arg, list @ ..]) => Ok(contained(arg, list, is)),
        (Op::Between, [arg, low, high]) => Ok(between(arg, low, high)),
        (Op::NullIf, [left, right]) => {
            let same = !left.is_null() && !right.is_null() && left.order(right).is_eq();
            Ok(if same { Value::Null } else { (**left).clone() })
        }
        (Op::Extreme(largest), args) => Ok(extreme(args, largest)),
        (op, args) if args.iter().any(|a| a.is_null()) => {
            debug_assert!(!matches!(op, Op::And | Op::Or), "these stop early");
            Ok(Value::Null)
        }
        (op, args) => strict(op, args),
    }
}

fn strict(op: Op, args: &[Cow<'_, Value>]) -> Result<Value, RowsError> {
    let values: Vec<&Value> = args.iter().map(AsRef::as_ref).collect();
    match (op, values.as_slice()) {
        (Op::Not, [Value::Bool(b)]) => Ok(Value::Bool(!b)),
        (Op::Compare(how), [left, right]) => Ok(Value::Bool(compare(how, left.order(right)))),
        (Op::Concat, [Value::Text(left), Value::Text(right)]) => Ok(Value::Text(format!("{left}{right}"))),
        (Op::Like { fold, negated }, [Value::Text(text), Value::Text(pattern)]) => {
            Ok(Value::Bool(like::like(text, pattern, fold)? != negated))
        }
        (Op::Cast(from, to), [value]) => cast::cast(value, from, to),
        (Op::Arith(how, kind), [left, right]) => arith::binary(how, kind, left, right),
        (Op::Negate(kind), [value]) => arith::negate(kind, value),
        (Op::Call(function), args) => arith::call(function, args),
        // Binding made the arguments fit; anything else would be a mistake of ours, not of the client.
        (_, _) => Err(RowsError::unsupported("an operation on values of these types", "Simplify it.")),
    }
}

fn compare(how: Comparison, order: Ordering) -> bool {
    match how {
        Comparison::Eq => order.is_eq(),
        Comparison::NotEq => order.is_ne(),
        Comparison::Lt => order.is_lt(),
        Comparison::LtEq => order.is_le(),
        Comparison::Gt => order.is_gt(),
        Comparison::GtEq => order.is_ge(),
    }
}

/// `arg [NOT] IN (list)`: unknown if nothing matches and a NULL could have.
fn contained(arg: &Value, list: &[Cow<'_, Value>], is: bool) -> Value {
    if arg.is_null() {
        return Value::Null;
    }
    if list.iter().any(|item| !item.is_null() && arg.order(item).is_eq()) {
        return Value::Bool(is);
    }
    if list.iter().any(|item| item.is_null()) { Value::Null } else { Value::Bool(!is) }
}

/// `arg >= low AND arg <= high`.
fn between(arg: &Value, low: &Value, high: &Value) -> Value {
    let side = |bound: &Value, fits: fn(Ordering) -> bool| {
        (!arg.is_null() && !bound.is_null()).then(|| fits(arg.order(bound)))
    };
    match (side(low, Ordering::is_ge), side(high, Ordering::is_le)) {
        (Some(false), _) | (_, Some(false)) => Value::Bool(false),
        (Some(true), Some(true)) => Value::Bool(true),
        (None, _) | (_, None) => Value::Null,
    }
}

fn extreme(args: &[Cow<'_, Value>], largest: bool) -> Value {
    let wanted = if largest { Ordering::Greater } else { Ordering::Less };
    let mut best = &Value::Null;
    for value in args.iter().map(AsRef::as_ref).filter(|v: &&Value| !v.is_null()) {
        if best.is_null() || value.order(best) == wanted {
            best = value;
        }
    }
    best.clone()
}
