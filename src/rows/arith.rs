//! Arithmetic and scalar functions, with PostgreSQL's overflow, rounding and division.
//! Must not know expressions; arguments are never NULL.

use super::functions::Function;
use super::node::Arithmetic;
use super::{Numeric, RowsError, Type, Value};

/// `left op right`, both of one type.
///
/// # Errors
/// [`RowsError::OutOfRange`] and [`RowsError::DivisionByZero`].
pub(super) fn binary(how: Arithmetic, kind: Type, left: &Value, right: &Value) -> Result<Value, RowsError> {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => integers(how, kind, *a, *b).map(Value::Int),
        (Value::Numeric(a), Value::Numeric(b)) => numerics(how, *a, *b).map(Value::Numeric),
        (Value::Float(a), Value::Float(b)) => floats(how, *a, *b).map(Value::Float),
        (_, _) => Err(unfit()),
    }
}

fn integers(how: Arithmetic, kind: Type, a: i64, b: i64) -> Result<i64, RowsError> {
    if b == 0 && matches!(how, Arithmetic::Div | Arithmetic::Mod) {
        return Err(RowsError::DivisionByZero);
    }
    let result = match how {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Sub => a.checked_sub(b),
        Arithmetic::Mul => a.checked_mul(b),
        Arithmetic::Div => a.checked_div(b),
        Arithmetic::Mod => Some(a.wrapping_rem(b)), // -2^63 % -1 is 0
    };
    fitting(kind, result)
}

fn fitting(kind: Type, result: Option<i64>) -> Result<i64, RowsError> {
    result
        .filter(|n| kind != Type::Int4 || i32::try_from(*n).is_ok())
        .ok_or_else(|| RowsError::OutOfRange(format!("{} out of range", kind.name())))
}

fn numerics(how: Arithmetic, a: Numeric, b: Numeric) -> Result<Numeric, RowsError> {
    match how {
        Arithmetic::Add => a.add(b),
        Arithmetic::Sub => a.sub(b),
        Arithmetic::Mul => a.mul(b),
        Arithmetic::Div => a.div(b),
        Arithmetic::Mod => a.rem(b),
    }
}

fn floats(how: Arithmetic, a: f64, b: f64) -> Result<f64, RowsError> {
    let result = match how {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div if b == 0.0 && !a.is_nan() => return Err(RowsError::DivisionByZero),
        Arithmetic::Div => a / b,
        Arithmetic::Mod => return Err(unfit()), // PostgreSQL has none; binding refused it
    };
    if result.is_infinite() && a.is_finite() && b.is_finite() {
        return Err(RowsError::OutOfRange("value out of range: overflow".to_owned()));
    }
    let may_be_zero = match how {
        Arithmetic::Mul => a == 0.0 || b == 0.0,
        Arithmetic::Div => a == 0.0 || b.is_infinite(),
        Arithmetic::Add | Arithmetic::Sub | Arithmetic::Mod => true,
    };
    if result == 0.0 && !may_be_zero {
        return Err(RowsError::OutOfRange("value out of range: underflow".to_owned()));
    }
    Ok(result)
}

/// `- value`.
///
/// # Errors
/// [`RowsError::OutOfRange`] for the smallest integer.
pub(super) fn negate(kind: Type, value: &Value) -> Result<Value, RowsError> {
    match value {
        Value::Int(n) => fitting(kind, n.checked_neg()).map(Value::Int),
        Value::Numeric(n) => Ok(Value::Numeric(n.negated())),
        Value::Float(f) => Ok(Value::Float(-f)),
        Value::Null | Value::Bool(_) | Value::Text(_) | Value::Timestamptz(_) => Err(unfit()),
    }
}

/// A scalar function.
///
/// # Errors
/// [`RowsError::OutOfRange`] for the absolute value of the smallest integer and for numerics that get too long.
pub(super) fn call(function: Function, args: &[&Value]) -> Result<Value, RowsError> {
    Ok(match (function, args) {
        // Under collation "C" only ASCII letters have a case.
        (Function::Lower, [Value::Text(text)]) => Value::Text(text.to_ascii_lowercase()),
        (Function::Upper, [Value::Text(text)]) => Value::Text(text.to_ascii_uppercase()),
        (Function::Length, [Value::Text(text)]) => {
            Value::Int(i64::try_from(text.chars().count()).unwrap_or(i64::MAX))
        }
        (Function::Abs(kind), [Value::Int(n)]) => Value::Int(fitting(kind, n.checked_abs())?),
        (Function::Abs(_), [Value::Numeric(n)]) => Value::Numeric(n.abs()),
        (Function::Abs(_), [Value::Float(f)]) => Value::Float(f.abs()),
        (Function::Round(_), [Value::Float(f)]) => Value::Float(f.round_ties_even()),
        (Function::Round(_), [Value::Numeric(n)]) => Value::Numeric(n.round(0)?),
        (Function::RoundTo, [Value::Numeric(n), Value::Int(places)]) => Value::Numeric(n.round(*places)?),
        (Function::Ceil(_), [Value::Float(f)]) => Value::Float(f.ceil()),
        (Function::Ceil(_), [Value::Numeric(n)]) => Value::Numeric(n.ceil()),
        (Function::Floor(_), [Value::Float(f)]) => Value::Float(f.floor()),
        (Function::Floor(_), [Value::Numeric(n)]) => Value::Numeric(n.floor()),
        (_, _) => return Err(unfit()),
    })
}

/// Binding makes every argument fit, so this is never seen.
fn unfit() -> RowsError {
    RowsError::unsupported("an operation on values of these types", "Simplify it.")
}
