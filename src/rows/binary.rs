//! The binary form of values: what PostgreSQL's send and receive functions write and read.
//! Must not know messages.

use super::{Numeric, RowsError, Type, Value};

impl Value {
    /// Reads a value's binary form.
    ///
    /// # Errors
    /// [`RowsError::BadBinary`] if the bytes are no such value, [`RowsError::BadEncoding`] for text that is not
    /// UTF-8, [`RowsError::Unsupported`] for a numeric of more than 38 digits.
    pub fn from_binary(kind: Type, bytes: &[u8]) -> Result<Self, RowsError> {
        let wrong = || RowsError::BadBinary(kind.name());
        Ok(match kind {
            Type::Bool => match bytes {
                [b] => Self::Bool(*b != 0),
                _ => return Err(wrong()),
            },
            Type::Int4 => Self::Int(i64::from(i32::from_be_bytes(bytes.try_into().map_err(|_| wrong())?))),
            Type::Int8 => Self::Int(i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?)),
            Type::Float8 => Self::Float(f64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?)),
            Type::Timestamptz => {
                Self::Timestamptz(i64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?))
            }
            Type::Text => Self::Text(utf8(bytes)?),
            Type::Numeric => Self::Numeric(numeric(bytes)?),
        })
    }

    /// Appends its binary form; nothing for NULL, which has none. `kind` is the column's type: it tells the two
    /// widths of integers apart.
    pub fn put_binary(&self, kind: Type, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Bool(b) => out.push(u8::from(*b)),
            Self::Int(n) if kind == Type::Int4 => out.extend_from_slice(&(*n as i32).to_be_bytes()),
            Self::Int(n) | Self::Timestamptz(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Float(f) => out.extend_from_slice(&f.to_be_bytes()),
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            Self::Numeric(n) => put_numeric(*n, out),
        }
    }
}

/// Checked text: UTF-8 without a zero byte.
pub(super) fn utf8(bytes: &[u8]) -> Result<String, RowsError> {
    if bytes.contains(&0) {
        return Err(RowsError::BadEncoding);
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| RowsError::BadEncoding)
}

const NEGATIVE: u16 = 0x4000;

/// Number of groups, weight of the first, sign, digits after the point, then the groups of four digits.
/// Source: `numeric_send` of PostgreSQL, described by its output.
fn put_numeric(value: Numeric, out: &mut Vec<u8>) {
    let (groups, weight) = value.groups();
    let weight = if groups.is_empty() { 0 } else { weight };
    let sign = if value.is_negative() { NEGATIVE } else { 0 };
    for word in [groups.len() as u16, weight as u16, sign, value.scale() as u16] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    groups.iter().for_each(|group| out.extend_from_slice(&group.to_be_bytes()));
}

fn numeric(bytes: &[u8]) -> Result<Numeric, RowsError> {
    let wrong = || RowsError::BadBinary("numeric");
    let words: Vec<u16> = bytes.chunks_exact(2).map(|w| u16::from_be_bytes([w[0], w[1]])).collect();
    let [count, weight, sign, scale, groups @ ..] = words.as_slice() else { return Err(wrong()) };
    if !bytes.len().is_multiple_of(2)
        || groups.len() != usize::from(*count)
        || groups.iter().any(|g| *g > 9999)
    {
        return Err(wrong());
    }
    let negative = match *sign {
        0 => false,
        NEGATIVE => true,
        0xC000 | 0xD000 | 0xF000 => {
            return Err(RowsError::unsupported("numeric infinity or NaN", "Use double precision."));
        }
        _ => return Err(wrong()),
    };
    // As text, so that the limits on size are those of reading text. Weights far outside would make it long.
    let weight = i64::from(*weight as i16);
    if groups.len() > 20 || weight.abs() > 20 {
        return Err(RowsError::unsupported(
            "a numeric value of more than 38 digits",
            "Send it as double precision.",
        ));
    }
    let digits: String = groups.iter().map(|g| format!("{g:04}")).collect();
    let exponent = (weight + 1 - groups.len() as i64) * 4;
    let sign = if negative { "-" } else { "" };
    let value: Numeric = format!("{sign}0{}e{exponent}", digits.trim_start_matches('0')).parse()?;
    value.round(i64::from(*scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_from_their_binary_form() {
        let n = |text: &str| Value::Numeric(text.parse().unwrap());
        for (kind, value) in [
            (Type::Bool, Value::Bool(true)),
            (Type::Int4, Value::Int(-5)),
            (Type::Int8, Value::Int(i64::MIN)),
            (Type::Float8, Value::Float(1.5)),
            (Type::Text, Value::Text("é".into())),
            (Type::Timestamptz, Value::Timestamptz(-1)),
            (Type::Numeric, n("0")),
            (Type::Numeric, n("0.000")),
            (Type::Numeric, n("-12345.678")),
            (Type::Numeric, n("100000000")),
            (Type::Numeric, n("0.00000005")),
        ] {
            let mut bytes = Vec::new();
            value.put_binary(kind, &mut bytes);
            assert_eq!(Value::from_binary(kind, &bytes), Ok(value));
        }
    }

    /// Bytes as PostgreSQL 15 sends them.
    #[test]
    fn numerics_have_the_servers_bytes() {
        for (text, want) in [
            ("0", "0000 0000 0000 0000"),
            ("1", "0001 0000 0000 0000 0001"),
            ("-12345.678", "0003 0001 4000 0003 0001 0929 1a7c"),
            ("0.0001", "0001 ffff 0000 0004 0001"),
            ("10000", "0001 0001 0000 0000 0001"),
        ] {
            let mut bytes = Vec::new();
            Value::Numeric(text.parse().unwrap()).put_binary(Type::Numeric, &mut bytes);
            let shown: Vec<_> = bytes.chunks(2).map(|w| format!("{:02x}{:02x}", w[0], w[1])).collect();
            assert_eq!(shown.join(" "), want, "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        for (kind, bytes, code) in [
            (Type::Int4, &[0u8; 8][..], "22P03"),
            (Type::Int8, &[0; 4], "22P03"),
            (Type::Bool, &[], "22P03"),
            (Type::Text, &[0xff], "22021"),
            (Type::Text, &[0], "22021"),
            (Type::Numeric, &[0, 1, 0, 0, 0, 0, 0, 0], "22P03"),
            (Type::Numeric, &[0, 1, 0, 0, 0, 0, 0, 0, 0xff, 0xff], "22P03"),
            (Type::Numeric, &[0, 0, 0, 0, 0xC0, 0, 0, 0], "0A000"),
        ] {
            assert_eq!(Value::from_binary(kind, bytes).unwrap_err().sqlstate(), code, "{bytes:?}");
        }
    }
}
