//! JSON values as parameters in text format, as the column they are for takes them.
//! Must not know statements.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::super::error::HttpError;
use super::super::link::Param;
use super::array;
use crate::catalog::Column;
use crate::wire::SqlState;

/// The deepest array that PostgreSQL takes.
const MOST_DIMENSIONS: usize = 6;

/// An object with its keys in the order of the text, each once, and its values as they were written.
#[derive(Debug)]
pub(super) struct Record<'r>(pub(super) Vec<(Cow<'r, str>, &'r RawValue)>);

impl<'de: 'r, 'r> Deserialize<'de> for Record<'r> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Record<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of columns and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    if fields.iter().any(|(known, _)| *known == key) {
                        return Err(A::Error::custom(format!("\"{key}\" is there twice")));
                    }
                    fields.push((key, value));
                }
                Ok(Record(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// A key, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

/// A value as the text of a parameter for a column.
///
/// # Errors
/// 22P02 for a kind of value that the column's type cannot be written as. What a text means to the type is for the
/// server to say.
pub(super) fn param(value: &RawValue, column: &Column) -> Result<Param, HttpError> {
    let text = value.get();
    let wrong = |what: &str| {
        let message = format!("column \"{}\" is {} and takes no JSON {what}", column.name, column.type_name);
        HttpError::new(SqlState::INVALID_TEXT_REPRESENTATION, message)
    };
    if text == "null" {
        return Ok(None);
    }
    if is_document(column) {
        return Ok(Some(text.to_owned()));
    }
    match text.as_bytes().first() {
        Some(b'"') => string(text).map(Some),
        Some(b'{') => Err(wrong("object")),
        Some(b'[') if column.type_name.ends_with("[]") => array_text(value, 1).map(Some),
        Some(b'[') => Err(wrong("array")),
        _ => Ok(Some(text.to_owned())), // a number or a boolean
    }
}

fn is_document(column: &Column) -> bool {
    matches!(column.type_name.as_str(), "json" | "jsonb")
}

fn string(json: &str) -> Result<String, HttpError> {
    let text: String = serde_json::from_str(json).map_err(|e| super::super::body::not_json(&e))?;
    if text.contains('\0') {
        let message = "a text holds the character \\u0000, which PostgreSQL cannot store";
        return Err(HttpError::new(SqlState::INVALID_TEXT_REPRESENTATION, message));
    }
    Ok(text)
}

fn array_text(value: &RawValue, dimension: usize) -> Result<String, HttpError> {
    let too_deep = || {
        let message = format!("an array has more than {MOST_DIMENSIONS} dimensions");
        HttpError::new(SqlState::INVALID_TEXT_REPRESENTATION, message)
    };
    if dimension > MOST_DIMENSIONS {
        return Err(too_deep());
    }
    let elements: Vec<&RawValue> =
        serde_json::from_str(value.get()).map_err(|e| super::super::body::not_json(&e))?;
    let mut out = String::from("{");
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        let text = element.get();
        match text.as_bytes().first() {
            Some(b'[') => out.push_str(&array_text(element, dimension + 1)?),
            Some(b'"') => array::put_element(&mut out, Some(&string(text)?)),
            _ if text == "null" => array::put_element(&mut out, None),
            _ => array::put_element(&mut out, Some(text)),
        }
    }
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(type_name: &str) -> Column {
        Column {
            name: "c".to_owned(),
            type_oid: 0,
            type_name: type_name.to_owned(),
            not_null: false,
            default: None,
            is_serial: false,
            is_generated: false,
            collation: None,
        }
    }

    #[test]
    fn values_keep_their_last_digit_and_their_form() {
        for (json, type_name, want) in [
            ("0.10000000000000000000000001", "numeric", Some("0.10000000000000000000000001")),
            ("9223372036854775807", "bigint", Some("9223372036854775807")),
            ("\"a\\\"b\"", "text", Some("a\"b")),
            ("true", "boolean", Some("true")),
            ("null", "text", None),
            ("null", "jsonb", None),
            ("\"x\"", "jsonb", Some("\"x\"")),
            ("{\"a\": 1.0}", "jsonb", Some("{\"a\": 1.0}")),
            ("[1, null, \"x,\\\"y\"]", "text[]", Some("{\"1\",NULL,\"x,\\\"y\"}")),
            ("[[1],[2]]", "integer[]", Some("{{\"1\"},{\"2\"}}")),
        ] {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(param(raw, &column(type_name)).unwrap().as_deref(), want, "{json} as {type_name}");
        }
        for (json, type_name) in
            [("{}", "text"), ("[]", "text"), ("\"\\u0000\"", "text"), ("[[[[[[[1]]]]]]]", "int[]")]
        {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert!(param(raw, &column(type_name)).is_err(), "{json} as {type_name}");
        }
    }

    #[test]
    fn a_record_has_each_key_once() {
        let record: Record<'_> = serde_json::from_str("{\"b\": 1, \"a\\u0062\": [2]}").unwrap();
        let keys: Vec<_> = record.0.iter().map(|(key, value)| (key.as_ref(), value.get())).collect();
        assert_eq!(keys, [("b", "1"), ("ab", "[2]")]);
        assert!(serde_json::from_str::<Record<'_>>("{\"a\": 1, \"\\u0061\": 2}").is_err());
        assert!(serde_json::from_str::<Record<'_>>("[1]").is_err());
    }
}
