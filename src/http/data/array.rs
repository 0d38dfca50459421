//! PostgreSQL's text form of arrays, to JSON and back.
//! Must not know what the elements mean. Source: PostgreSQL docs, "Array Input and Output Syntax".

use super::json_out::put_string;
use crate::catalog::oid;

/// The element's type of an array type that every server numbers alike.
pub(super) fn element(type_oid: u32) -> Option<u32> {
    Some(match type_oid {
        1000 => oid::BOOL,
        1001 => oid::BYTEA,
        oid::INT2_ARRAY => oid::INT2,
        oid::INT4_ARRAY => oid::INT4,
        oid::INT8_ARRAY => oid::INT8,
        1021 => oid::FLOAT4,
        1022 => oid::FLOAT8,
        1231 => oid::NUMERIC,
        oid::TEXT_ARRAY | oid::BPCHAR_ARRAY | oid::VARCHAR_ARRAY | 1003 => oid::TEXT,
        1115 => oid::TIMESTAMP,
        1185 => oid::TIMESTAMPTZ,
        1182 => oid::DATE,
        oid::UUID_ARRAY => oid::UUID,
        199 => 114,
        3807 => 3802,
        _ => return None,
    })
}

/// Appends an array as JSON; one that is not understood as a string.
pub(super) fn put_json(out: &mut Vec<u8>, text: &str, put: &dyn Fn(&mut Vec<u8>, &str)) {
    let start = out.len();
    // Bounds other than 1 come first: `[0:1]={…}`.
    let body = text
        .strip_prefix('[')
        .and_then(|t| t.split_once("={"))
        .map_or(text, |(bounds, _)| text.get(bounds.len() + 2..).unwrap_or(text));
    if array(out, body, put) != Some("") {
        out.truncate(start);
        put_string(out, text);
    }
}

/// One pair of braces; gives what follows it.
fn array<'t>(out: &mut Vec<u8>, text: &'t str, put: &dyn Fn(&mut Vec<u8>, &str)) -> Option<&'t str> {
    let mut rest = text.strip_prefix('{')?;
    out.push(b'[');
    if let Some(after) = rest.strip_prefix('}') {
        out.push(b']');
        return Some(after);
    }
    loop {
        rest = match rest.as_bytes().first()? {
            b'{' => array(out, rest, put)?,
            b'"' => quoted(out, rest.get(1..)?, put)?,
            _ => {
                let end = rest.find([',', '}'])?;
                let (word, after) = rest.split_at(end);
                if word == "NULL" {
                    out.extend_from_slice(b"null");
                } else {
                    put(out, word);
                }
                after
            }
        };
        if let Some(after) = rest.strip_prefix(',') {
            out.push(b',');
            rest = after;
        } else {
            out.push(b']');
            return rest.strip_prefix('}');
        }
    }
}

fn quoted<'t>(out: &mut Vec<u8>, text: &'t str, put: &dyn Fn(&mut Vec<u8>, &str)) -> Option<&'t str> {
    let mut element = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                put(out, &element);
                return text.get(at + 1..);
            }
            '\\' => element.push(chars.next()?.1),
            c => element.push(c),
        }
    }
    None
}

/// Appends an element to PostgreSQL's text form; `None` is NULL.
pub(super) fn put_element(out: &mut String, element: Option<&str>) {
    let Some(element) = element else {
        out.push_str("NULL");
        return;
    };
    out.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
