//! Casts between the types of virtual tables.
//! Must not know expressions.

use super::{Numeric, RowsError, Type, Value};

/// Whether PostgreSQL has an explicit cast between two types.
pub(super) fn exists(from: Type, to: Type) -> bool {
    // Everything can be read from text and printed as text.
    from == to
        || from == Type::Text
        || to == Type::Text
        || (from.rung().is_some() && to.rung().is_some())
        || matches!((from, to), (Type::Bool, Type::Int4) | (Type::Int4, Type::Bool))
}

/// Casts a value that is not NULL.
///
/// # Errors
/// [`RowsError::OutOfRange`] and what reading text raises.
pub(super) fn cast(value: &Value, from: Type, to: Type) -> Result<Value, RowsError> {
    if from == to {
        return Ok(value.clone());
    }
    match (value, to) {
        (Value::Bool(b), Type::Text) => Ok(Value::Text(b.to_string())),
        (value, Type::Text) => Ok(Value::Text(value.to_text())),
        (Value::Text(text), to) => Value::from_text(to, text),
        (Value::Bool(b), Type::Int4) => Ok(Value::Int(i64::from(*b))),
        (Value::Int(n), Type::Bool) => Ok(Value::Bool(*n != 0)),
        (Value::Int(n), Type::Int4 | Type::Int8) => integer(Some(*n), to),
        (Value::Int(n), Type::Numeric) => Ok(Value::Numeric(Numeric::from(*n))),
        (Value::Numeric(n), Type::Int4 | Type::Int8) => integer(n.to_i64(), to),
        (Value::Float(f), Type::Int4 | Type::Int8) => integer(float_to_int(*f), to),
        (Value::Float(f), Type::Numeric) => Numeric::from_f64(*f).map(Value::Numeric),
        (value, Type::Float8) => match value.as_float() {
            Some(f) => Ok(Value::Float(f)),
            None => Err(RowsError::NoCast { from: from.name(), to: to.name() }),
        },
        (Value::Null, _) => Ok(Value::Null),
        (_, _) => Err(RowsError::NoCast { from: from.name(), to: to.name() }),
    }
}

fn integer(value: Option<i64>, to: Type) -> Result<Value, RowsError> {
    value
        .filter(|n| to == Type::Int8 || i32::try_from(*n).is_ok())
        .map(Value::Int)
        .ok_or_else(|| RowsError::OutOfRange(format!("{} out of range", to.name())))
}

/// Rounded half to even; `None` outside of bigint.
fn float_to_int(value: f64) -> Option<i64> {
    let rounded = value.round_ties_even();
    // 2^63 itself does not fit, -2^63 does.
    (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&rounded).then_some(rounded as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_round_and_overflow_as_postgresql_does() {
        let n = |text: &str| Value::Numeric(text.parse().unwrap());
        for (value, from, to, want) in [
            (Value::Float(2.5), Type::Float8, Type::Int8, Ok("2")),
            (Value::Float(3.5), Type::Float8, Type::Int4, Ok("4")),
            (n("2.5"), Type::Numeric, Type::Int8, Ok("3")),
            (Value::Float(1e19), Type::Float8, Type::Int8, Err("22003")),
            (Value::Float(f64::NAN), Type::Float8, Type::Int4, Err("22003")),
            (Value::Int(3_000_000_000), Type::Int8, Type::Int4, Err("22003")),
            (Value::Bool(true), Type::Bool, Type::Text, Ok("true")),
            (Value::Bool(true), Type::Bool, Type::Int4, Ok("1")),
            (Value::Text(" 7 ".into()), Type::Text, Type::Int8, Ok("7")),
            (Value::Text("x".into()), Type::Text, Type::Int8, Err("22P02")),
            (Value::Int(7), Type::Int8, Type::Numeric, Ok("7")),
            (Value::Float(0.1), Type::Float8, Type::Numeric, Ok("0.1")),
        ] {
            let got = cast(&value, from, to).map(|v| v.to_text());
            assert_eq!(got.as_deref().map_err(RowsError::sqlstate), want, "{value:?} to {to:?}");
        }
        assert!(!exists(Type::Bool, Type::Int8) && !exists(Type::Timestamptz, Type::Int8));
    }
}
