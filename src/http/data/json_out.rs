//! Rows of a server as JSON objects: numbers to their last digit, times in ISO 8601, documents as they are.
//! Must not know where the rows come from.

use super::array;
use crate::catalog::oid;
use crate::wire::FieldDescription;

/// More type OIDs. Source: PostgreSQL's `pg_type.dat`; they never change.
const JSON: u32 = 114;
const JSONB: u32 = 3802;

/// How a value's text becomes JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `t` and `f`.
    Bool,
    /// Digits as they are; NaN and infinities as strings.
    Number,
    /// JSON already.
    Document,
    /// `2026-01-31 12:00:00+00`.
    Timestamp,
    /// `\x…`, or escaped.
    Bytes,
    /// Anything else.
    Text,
}

/// One column of an answer.
#[derive(Debug, Clone)]
pub(super) struct OutColumn {
    /// The name as JSON with its colon.
    name: Vec<u8>,
    form: Form,
    is_array: bool,
}

impl OutColumn {
    pub(super) fn all(fields: &[FieldDescription]) -> Vec<Self> {
        fields.iter().map(Self::new).collect()
    }

    fn new(field: &FieldDescription) -> Self {
        let mut name = Vec::new();
        put_string(&mut name, &field.name);
        name.push(b':');
        let element = array::element(field.type_oid);
        Self { name, form: form(element.unwrap_or(field.type_oid)), is_array: element.is_some() }
    }
}

fn form(type_oid: u32) -> Form {
    match type_oid {
        oid::BOOL => Form::Bool,
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID | oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC => {
            Form::Number
        }
        JSON | JSONB => Form::Document,
        oid::TIMESTAMP | oid::TIMESTAMPTZ => Form::Timestamp,
        oid::BYTEA => Form::Bytes,
        _ => Form::Text,
    }
}

/// Appends a DataRow's body as an object. `None` if the body is not what its columns promise.
pub(super) fn put_row(out: &mut Vec<u8>, columns: &[OutColumn], row: &[u8]) -> Option<()> {
    let (count, mut rest) = row.split_first_chunk()?;
    if usize::from(u16::from_be_bytes(*count)) != columns.len() {
        return None;
    }
    out.push(b'{');
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&column.name);
        let (len, after) = rest.split_first_chunk()?;
        rest = after;
        match usize::try_from(i32::from_be_bytes(*len)) {
            Err(_) => out.extend_from_slice(b"null"),
            Ok(len) => {
                let (value, after) = rest.split_at_checked(len)?;
                rest = after;
                let text = String::from_utf8_lossy(value);
                if column.is_array {
                    array::put_json(out, &text, &|out, element| put_value(out, column.form, element));
                } else {
                    put_value(out, column.form, &text);
                }
            }
        }
    }
    out.push(b'}');
    Some(())
}

fn put_value(out: &mut Vec<u8>, form: Form, text: &str) {
    match form {
        Form::Bool => out.extend_from_slice(if text == "t" { b"true" } else { b"false" }),
        Form::Number if is_number(text) => out.extend_from_slice(text.as_bytes()),
        Form::Document => {
            // Line ends are blanks between tokens, for within strings they are escaped.
            out.extend(text.bytes().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }));
        }
        Form::Timestamp => put_string(out, &iso(text)),
        Form::Bytes => put_string(out, &hex(text)),
        Form::Number | Form::Text => put_string(out, text),
    }
}

/// Whether a number of PostgreSQL's is one of JSON's: all but NaN and the infinities.
fn is_number(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_digit())
}

/// `2026-01-31 12:00:00+00` as `2026-01-31T12:00:00+00:00`; infinities and years BC as they are.
fn iso(text: &str) -> String {
    let Some((day, time)) = text.split_once(' ').filter(|_| !text.ends_with(" BC")) else {
        return text.to_owned();
    };
    let short_zone = time.rfind(['+', '-']).is_some_and(|at| time.len() - at == 3);
    format!("{day}T{time}{}", if short_zone { ":00" } else { "" })
}

/// `\x…` in any `bytea_output`.
fn hex(text: &str) -> String {
    if text.starts_with("\\x") {
        return text.to_owned();
    }
    let mut out = String::from("\\x");
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after)
            }
            (byte, after) => (byte, after),
        };
        out.push_str(&format!("{byte:02x}"));
        rest = after;
    }
    out
}

/// Appends a text as a JSON string.
pub(super) fn put_string(out: &mut Vec<u8>, text: &str) {
    // A string always has a JSON form, and a vector always has room.
    drop(serde_json::to_writer(out, text));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(fields: &[(&str, u32)], values: &[Option<&str>]) -> String {
        let fields: Vec<_> = fields.iter().map(|(n, oid)| FieldDescription::text(*n, *oid, -1)).collect();
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            let Some(value) = value else {
                body.extend((-1i32).to_be_bytes());
                continue;
            };
            body.extend((value.len() as i32).to_be_bytes());
            body.extend(value.as_bytes());
        }
        let mut out = Vec::new();
        put_row(&mut out, &OutColumn::all(&fields), &body).unwrap();
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        text
    }

    #[test]
    fn every_type_has_its_json() {
        for (type_oid, text, json) in [
            (oid::INT8, "9223372036854775807", "9223372036854775807"),
            (oid::NUMERIC, "0.10000000000000000000000001", "0.10000000000000000000000001"),
            (oid::NUMERIC, "NaN", "\"NaN\""),
            (oid::FLOAT8, "-Infinity", "\"-Infinity\""),
            (oid::FLOAT8, "1e+20", "1e+20"),
            (oid::BOOL, "t", "true"),
            (oid::BOOL, "f", "false"),
            (oid::TIMESTAMP, "2026-01-31 12:00:00.5", "\"2026-01-31T12:00:00.5\""),
            (oid::TIMESTAMPTZ, "2026-01-31 12:00:00+00", "\"2026-01-31T12:00:00+00:00\""),
            (oid::TIMESTAMPTZ, "2026-01-31 12:00:00-05:30", "\"2026-01-31T12:00:00-05:30\""),
            (oid::TIMESTAMP, "infinity", "\"infinity\""),
            (oid::TIMESTAMP, "0044-03-15 00:00:00 BC", "\"0044-03-15 00:00:00 BC\""),
            (oid::DATE, "2026-01-31", "\"2026-01-31\""),
            (JSONB, "{\"a\": [1, null]}", "{\"a\": [1, null]}"),
            (JSON, "{\n\"a\": 1}", "{ \"a\": 1}"),
            (oid::BYTEA, "\\x00ff", "\"\\\\x00ff\""),
            (oid::BYTEA, "a\\000\\\\", "\"\\\\x61005c\""),
            (oid::TEXT, "say \"hi\"\n", "\"say \\\"hi\\\"\\n\""),
            (oid::UUID, "0b4c5a3e-0000-4000-8000-000000000000", "\"0b4c5a3e-0000-4000-8000-000000000000\""),
            (oid::INT4_ARRAY, "{1,NULL,-3}", "[1,null,-3]"),
            (
                oid::TEXT_ARRAY,
                "{a,\"b,c\",\"d\\\"e\",NULL,\"NULL\"}",
                "[\"a\",\"b,c\",\"d\\\"e\",null,\"NULL\"]",
            ),
            (oid::INT4_ARRAY, "[0:1]={{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (oid::INT4_ARRAY, "{}", "[]"),
            (999_999, "happy", "\"happy\""),
        ] {
            assert_eq!(row(&[("c", type_oid)], &[Some(text)]), format!("{{\"c\":{json}}}"));
        }
    }

    #[test]
    fn nulls_and_odd_names_are_kept() {
        assert_eq!(
            row(&[("a\"b", oid::TEXT), ("", oid::INT4)], &[None, Some("1")]),
            "{\"a\\\"b\":null,\"\":1}"
        );
    }

    #[test]
    fn a_body_that_is_cut_off_is_no_row() {
        let columns = OutColumn::all(&[FieldDescription::text("a", oid::TEXT, -1)]);
        for body in [&b""[..], b"\0", b"\0\x02", b"\0\x01", b"\0\x01\0\0\0\x05ab"] {
            assert_eq!(put_row(&mut Vec::new(), &columns, body), None, "{body:?}");
        }
    }
}
