//! The elements of an array value, text or binary, as PostgreSQL's `array_in` and `array_recv` read them.
//! Must not know what the elements mean.

/// The elements of an array's text form; `None` elements are NULL. `None` for text that is not understood.
///
/// Nested arrays are flattened, as `= ANY` does. Explicit bounds (`[1:2]={…}`) are not understood.
pub(super) fn from_text(text: &str) -> Option<Vec<Option<String>>> {
    let mut rest = text.trim_matches(BLANKS).strip_prefix('{')?;
    let mut depth = 1usize;
    let mut out = Vec::new();
    let mut wants_element = true; // after `{` or `,`; after an element or `}` only `,` or `}` may follow
    let mut just_opened = true;
    while depth > 0 {
        rest = rest.trim_start_matches(BLANKS);
        let first = rest.chars().next()?;
        match first {
            '{' if wants_element => {
                (depth, rest, just_opened) = (depth + 1, rest.get(1..)?, true);
            }
            '}' if !wants_element || just_opened => {
                (depth, rest, wants_element, just_opened) = (depth - 1, rest.get(1..)?, false, false);
            }
            ',' if !wants_element => {
                (rest, wants_element) = (rest.get(1..)?, true);
            }
            '{' | '}' | ',' => return None,
            _ if wants_element => {
                let (element, after) = if first == '"' { quoted(rest.get(1..)?)? } else { bare(rest)? };
                out.push(element);
                (rest, wants_element, just_opened) = (after, false, false);
            }
            _ => return None,
        }
    }
    rest.trim_matches(BLANKS).is_empty().then_some(out)
}

const BLANKS: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// `"…"`, the opening quote already gone.
fn quoted(text: &str) -> Option<(Option<String>, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => return Some((Some(out), text.get(at + 1..)?)),
            (_, '\\') => out.push(chars.next()?.1),
            (_, other) => out.push(other),
        }
    }
}

/// An element without quotes: up to a comma or brace, blanks at its end cut unless escaped.
fn bare(text: &str) -> Option<(Option<String>, &str)> {
    let mut out = String::new();
    let mut kept = 0; // what an escape wrote is kept whatever it is
    let mut escaped = false;
    let mut chars = text.char_indices();
    let end = loop {
        match chars.next()? {
            (at, ',' | '}') => break at,
            (_, '"' | '{') => return None,
            (_, '\\') => {
                out.push(chars.next()?.1);
                (kept, escaped) = (out.len(), true);
            }
            (_, other) => out.push(other),
        }
    };
    let trimmed = out.trim_end_matches(BLANKS).len().max(kept);
    out.truncate(trimmed);
    if out.is_empty() {
        return None;
    }
    let is_null = !escaped && out.eq_ignore_ascii_case("null");
    Some(((!is_null).then_some(out), text.get(end..)?))
}

/// An array's binary form: the OID of its element type and each element's bytes, `None` for NULL.
pub(super) fn from_binary(bytes: &[u8]) -> Option<(u32, Vec<Option<&[u8]>>)> {
    let mut rest = bytes;
    let dimensions = take_i32(&mut rest)?;
    let _has_nulls = take_i32(&mut rest)?;
    let element_oid = take_i32(&mut rest)? as u32;
    let mut count = usize::from(dimensions > 0);
    for _ in 0..dimensions {
        let length = usize::try_from(take_i32(&mut rest)?).ok()?;
        let _lower_bound = take_i32(&mut rest)?;
        count = count.checked_mul(length)?;
    }
    let mut out = Vec::with_capacity(count.min(rest.len() / 4));
    for _ in 0..count {
        let length = take_i32(&mut rest)?;
        if length == -1 {
            out.push(None);
            continue;
        }
        let (element, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        out.push(Some(element));
        rest = after;
    }
    rest.is_empty().then_some((element_oid, out))
}

fn take_i32(rest: &mut &[u8]) -> Option<i32> {
    let (word, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    Some(i32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_arrays_read_as_array_in_reads_them() {
        for (text, want) in [
            ("{}", Some(vec![])),
            (" { } ", Some(vec![])),
            ("{a,b}", Some(vec![Some("a"), Some("b")])),
            ("{ a b , c }", Some(vec![Some("a b"), Some("c")])),
            (r#"{"a,b","c\"d","\\"}"#, Some(vec![Some("a,b"), Some("c\"d"), Some("\\")])),
            (r"{a\,b,c\ }", Some(vec![Some("a,b"), Some("c ")])),
            (r#"{NULL,null,"NULL",\NULL}"#, Some(vec![None, None, Some("NULL"), Some("NULL")])),
            ("{{a},{b}}", Some(vec![Some("a"), Some("b")])),
            (r#"{""}"#, Some(vec![Some("")])),
            ("{a,}", None),
            ("{,a}", None),
            ("{a", None),
            ("a", None),
            ("{a}x", None),
            ("{a{b}}", None),
            (r#"{a"b"}"#, None),
            (r#"{"a"b}"#, None),
            ("[1:1]={a}", None),
            ("", None),
        ] {
            let want = want.map(|v| v.into_iter().map(|e| e.map(str::to_owned)).collect::<Vec<_>>());
            assert_eq!(from_text(text), want, "{text}");
        }
    }

    #[test]
    fn binary_arrays_are_read_and_cut_off_ones_are_not() {
        let mut bytes = Vec::new();
        for word in [1, 1, 25, 2, 1, 1] {
            bytes.extend_from_slice(&i32::to_be_bytes(word));
        }
        bytes.push(b'a');
        bytes.extend_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(from_binary(&bytes), Some((25, vec![Some(&b"a"[..]), None])));
        for end in 0..bytes.len() {
            assert_eq!(from_binary(&bytes[..end]), None);
        }
        assert_eq!(from_binary(&[0; 12]), Some((0, vec![])), "no dimensions: no elements");
    }
}
