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
    let scientific = shortest(value);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..15).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    plain(mantissa, exponent)
}

/// `-1.25` and 1 as `-12.5`.
fn plain(mantissa: &str, exponent: i32) -> String {
    let (sign, unsigned) = mantissa.split_at(usize::from(mantissa.starts_with('-')));
    let digits = unsigned.replace('.', "");
    // Where the point belongs: after so many digits, which may be before the first or behind the last.
    let Ok(point) = usize::try_from(exponent + 1) else {
        return format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    };
    match digits.split_at_checked(point) {
        Some(("", part)) => format!("{sign}0.{part}"),
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, part)) => format!("{sign}{whole}.{part}"),
        None => format!("{sign}{digits:0<point$}"),
    }
}

/// The shortest digits that read back as the same number, in scientific notation: the nearest of that length, the
/// even one of two equally near. What lies exactly half-way to the next number does not count: PostgreSQL does not
/// trust the reader to round to even.
fn shortest(value: f64) -> String {
    let text = format!("{value:e}");
    let digits = text.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let exact = |n: usize| format!("{value:.*e}", n - 1);
    let longer = (digits + 1..=17).map(exact);
    // Below a power of two the nearest of that length may belong to the neighbour, while the next one does not.
    let mut candidates = [exact(digits), text].into_iter().chain(longer);
    candidates.find(|t| t.parse() == Ok(value) && !is_half_way(t, value)).unwrap_or_else(|| exact(17))
}

/// Whether a decimal is the mean of a number and one of its neighbours. Then an odd number of 54 bits is
/// `digits × 5^exponent` but for factors of two, which only exponents up to 23 allow.
fn is_half_way(text: &str, value: f64) -> bool {
    let Some((mantissa, exponent)) = text.trim_start_matches('-').split_once('e') else { return false };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Option<u128> = format!("{whole}{part}").parse().ok();
    let exponent = exponent.parse::<i64>().ok().map(|e| e - part.len() as i64);
    let (Some(digits @ 1..), Some(exponent @ 0..=23)) = (digits, exponent) else { return false };
    let product = digits * 5u128.pow(exponent as u32);
    let (odd, twos) = (product >> product.trailing_zeros(), i64::from(product.trailing_zeros()) + exponent);
    // value = fraction × 2^power, and its neighbours' means are (2 × fraction ± 1) × 2^(power - 1).
    let bits = value.to_bits();
    let fraction = u128::from(bits & ((1 << 52) - 1) | 1 << 52);
    let power = ((bits >> 52 & 0x7ff) as i64) - 1075;
    // Below a power of two the neighbour is half as far away.
    let below_power_of_two = fraction == 1 << 52 && twos == power - 2 && odd == 4 * fraction - 1;
    below_power_of_two || (twos == power - 1 && (odd == 2 * fraction + 1 || odd == 2 * fraction - 1))
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
            (1e22, "1e+22"),
            (1e23, "9.999999999999999e+22"), // half-way between two numbers
            (-1e23, "-9.999999999999999e+22"),
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
