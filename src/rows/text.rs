//! The text form of values: what PostgreSQL's input and output functions read and print.
//! Must not know messages.

use super::{Numeric, RowsError, Type, Value, time};

/// What C's isspace accepts in the C locale; PostgreSQL skips it on both sides of numbers and booleans.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

impl Value {
    /// Reads a value's text form.
    ///
    /// # Errors
    /// [`RowsError::BadText`] and [`RowsError::OutOfRange`] as the type's input function would raise them;
    /// [`RowsError::Unsupported`] for forms of timestamps and numbers that are not known here.
    pub fn from_text(kind: Type, text: &str) -> Result<Self, RowsError> {
        let trimmed = text.trim_matches(is_space);
        match kind {
            Type::Bool => {
                boolean(&trimmed.to_ascii_lowercase()).map(Self::Bool).ok_or_else(|| bad(kind, text))
            }
            Type::Int4 => integer(kind, text, trimmed, i64::from(i32::MIN), i64::from(i32::MAX)),
            Type::Int8 => integer(kind, text, trimmed, i64::MIN, i64::MAX),
            Type::Numeric => text.parse::<Numeric>().map(Self::Numeric),
            Type::Float8 => float(text, trimmed).map(Self::Float),
            Type::Text => Ok(Self::Text(text.to_owned())),
            Type::Timestamptz => time::parse(text).map(Self::Timestamptz),
        }
    }

    /// Its text form as sent to clients; empty for NULL, which has none.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Bool(b) => if *b { "t" } else { "f" }.to_owned(),
            Self::Int(n) => n.to_string(),
            Self::Numeric(n) => n.to_string(),
            Self::Float(f) => float_text(*f),
            Self::Text(text) => text.clone(),
            Self::Timestamptz(micros) => time::format(*micros),
        }
    }
}

fn bad(kind: Type, text: &str) -> RowsError {
    RowsError::BadText { kind: kind.name(), text: text.to_owned() }
}

/// Any prefix that is not ambiguous. Source: PostgreSQL docs, "Boolean Type".
fn boolean(word: &str) -> Option<bool> {
    let is = |full: &str, least: usize| word.len() >= least && full.starts_with(word);
    if is("true", 1) || is("yes", 1) || is("on", 2) || word == "1" {
        return Some(true);
    }
    (is("false", 1) || is("no", 1) || is("off", 2) || word == "0").then_some(false)
}

fn integer(kind: Type, text: &str, trimmed: &str, min: i64, max: i64) -> Result<Value, RowsError> {
    let digits = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad(kind, text));
    }
    let value = trimmed.parse::<i64>().ok().filter(|n| (min..=max).contains(n));
    value.map(Value::Int).ok_or_else(|| {
        RowsError::OutOfRange(format!("value \"{text}\" is out of range for type {}", kind.name()))
    })
}

fn float(text: &str, trimmed: &str) -> Result<f64, RowsError> {
    let unsigned = trimmed.strip_prefix(['-', '+']).unwrap_or(trimmed);
    let is_decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let is_word = ["nan", "inf", "infinity"].contains(&unsigned.to_ascii_lowercase().as_str());
    if unsigned.len() > 1 && unsigned.to_ascii_lowercase().starts_with("0x") {
        return Err(RowsError::unsupported("a hexadecimal floating point number", "Write it in decimals."));
    }
    if !is_decimal && !is_word {
        return Err(bad(Type::Float8, text));
    }
    let value: f64 = trimmed.parse().map_err(|_| bad(Type::Float8, text))?;
    // Rust rounds what is too large to infinity and what is too small to zero; strtod reports both.
    let is_zero =
        unsigned.split(['e', 'E']).next().is_some_and(|m| !m.bytes().any(|b| (b'1'..=b'9').contains(&b)));
    if is_decimal && (value.is_infinite() || (value == 0.0 && !is_zero)) {
        let message = format!("\"{text}\" is out of range for type double precision");
        return Err(RowsError::OutOfRange(message));
    }
    Ok(value)
}

/// The shortest text that reads back as the same number, in PostgreSQL's choice of notation: plain for
/// exponents from -4 to 14, else with an exponent of at least two digits.
fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..15).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    format!("{value}") // Display never uses an exponent and prints the same shortest digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_postgresql_prints_them() {
        for (value, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1.0 / 3.0, "0.3333333333333333"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(Value::Float(value).to_text(), want);
        }
    }

    #[test]
    fn text_is_read_or_refused_as_the_input_functions_do() {
        for (kind, text, want) in [
            (Type::Bool, " TRUE ", "t"),
            (Type::Bool, "of", "f"),
            (Type::Bool, "n", "f"),
            (Type::Bool, "1", "t"),
            (Type::Int4, " -7 ", "-7"),
            (Type::Int8, "9223372036854775807", "9223372036854775807"),
            (Type::Float8, " 1e3 ", "1000"),
            (Type::Float8, ".5", "0.5"),
            (Type::Float8, "-inf", "-Infinity"),
            (Type::Float8, "0e999", "0"),
            (Type::Numeric, "1.10", "1.10"),
            (Type::Text, " a ", " a "),
        ] {
            assert_eq!(Value::from_text(kind, text).unwrap().to_text(), want, "{text}");
        }
        for (kind, text, code) in [
            (Type::Bool, "o", "22P02"),
            (Type::Bool, "truex", "22P02"),
            (Type::Int4, "2147483648", "22003"),
            (Type::Int8, "1.0", "22P02"),
            (Type::Int8, "", "22P02"),
            (Type::Float8, "1e999", "22003"),
            (Type::Float8, "1e-999", "22003"),
            (Type::Float8, "1.5x", "22P02"),
            (Type::Float8, "", "22P02"),
            (Type::Float8, "0x10", "0A000"),
        ] {
            assert_eq!(Value::from_text(kind, text).unwrap_err().sqlstate(), code, "{text}");
        }
    }
}
