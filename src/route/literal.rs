//! The value of a literal, exactly as PostgreSQL reads it, or `None`: then nothing may be concluded from it.
//! Must not know types, keys, or what a literal is compared with.

use std::borrow::Cow;

use super::Env;
use super::lex::{LiteralAt, LiteralKind};

/// The value of a literal of `text`: a string's characters, an integer's digits.
///
/// `None` for what is not understood (numbers of other forms, typed and odd strings, text that is not UTF-8, text
/// beyond ASCII while encodings differ): the caller must not prune by it. Digits are returned as written, however
/// many: one too long for bigint is a `numeric` to PostgreSQL, not an error.
pub(super) fn decode<'t>(text: &'t [u8], literal: &LiteralAt, env: &Env) -> Option<Cow<'t, str>> {
    let bytes = text.get(literal.span.start as usize..literal.span.end as usize)?;
    let value = match literal.kind {
        LiteralKind::Integer => borrowed(bytes),
        LiteralKind::String => undoubled(bytes.strip_prefix(b"'")?.strip_suffix(b"'")?),
        LiteralKind::Escape => escaped(bytes.get(2..)?.strip_suffix(b"'")?),
        LiteralKind::Unicode => unicode(bytes.get(3..)?.strip_suffix(b"'")?, b'\'').map(Cow::Owned),
        LiteralKind::Dollar => dollar(bytes),
        LiteralKind::Number
        | LiteralKind::Bits
        | LiteralKind::HexBits
        | LiteralKind::National
        | LiteralKind::Odd => None,
    }?;
    (value.is_ascii() || !env.foreign_encoding).then_some(value)
}

/// Whether a literal is of a form that has a value, and yet has none: what is concluded from a statement that holds
/// it says less than what could be concluded from others of the same form.
pub(super) fn is_misfit(text: &[u8], literal: &LiteralAt, env: &Env) -> bool {
    match literal.kind {
        LiteralKind::Integer
        | LiteralKind::String
        | LiteralKind::Escape
        | LiteralKind::Unicode
        | LiteralKind::Dollar => decode(text, literal, env).is_none(),
        LiteralKind::Number
        | LiteralKind::Bits
        | LiteralKind::HexBits
        | LiteralKind::National
        | LiteralKind::Odd => false,
    }
}

fn borrowed(bytes: &[u8]) -> Option<Cow<'_, str>> {
    std::str::from_utf8(bytes).ok().map(Cow::Borrowed)
}

/// The inside of `'…'`: two quotes stand for one.
fn undoubled(inside: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(inside).ok()?;
    Some(if text.contains('\'') { Cow::Owned(text.replace("''", "'")) } else { Cow::Borrowed(text) })
}

/// `$tag$…$tag$`: nothing inside is special.
fn dollar(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let tag = memchr::memchr(b'$', bytes.get(1..)?)? + 2;
    borrowed(bytes.get(tag..bytes.len().checked_sub(tag)?)?)
}

/// The inside of `E'…'`. Source: PostgreSQL docs, "String Constants with C-Style Escapes".
fn escaped(inside: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr2(b'\\', b'\'', inside).is_none() {
        return borrowed(inside);
    }
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'\\' => escape(after, &mut out)?,
            b'\'' => {
                out.push(b'\'');
                after.strip_prefix(b"'")?
            }
            other => {
                out.push(other);
                after
            }
        };
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// One escape, `rest` being what follows the backslash. Returns what follows the escape.
fn escape<'t>(rest: &'t [u8], out: &mut Vec<u8>) -> Option<&'t [u8]> {
    let (&letter, after) = rest.split_first()?;
    let simple = match letter {
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0'..=b'7' => return byte_escape(rest, 8, 3, out),
        b'x' if after.first().is_some_and(u8::is_ascii_hexdigit) => return byte_escape(after, 16, 2, out),
        b'u' => return unicode_escape(after, 4, out),
        b'U' => return unicode_escape(after, 8, out),
        // PostgreSQL 18 reads a vertical tab, older servers the letter.
        b'v' => return None,
        other => other,
    };
    out.push(simple);
    Some(after)
}

/// `\o`, `\oo`, `\ooo`, `\xh`, `\xhh`: one byte, cut to eight bits as PostgreSQL does.
fn byte_escape<'t>(rest: &'t [u8], radix: u32, most: usize, out: &mut Vec<u8>) -> Option<&'t [u8]> {
    let digits = rest.iter().take(most).take_while(|b| char::from(**b).is_digit(radix)).count();
    let (digits, after) = rest.split_at_checked(digits)?;
    let value = number(digits, radix)? as u8;
    out.push(value);
    (value != 0).then_some(after)
}

fn number(digits: &[u8], radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

/// `\uXXXX` or `\UXXXXXXXX`; a first surrogate must be followed by a second one, in either form.
fn unicode_escape<'t>(rest: &'t [u8], width: usize, out: &mut Vec<u8>) -> Option<&'t [u8]> {
    let (point, mut after) = code_point(rest, width)?;
    let point = if is_first_surrogate(point) {
        let (form, tail) = after.strip_prefix(b"\\")?.split_first()?;
        let width = match form {
            b'u' => 4,
            b'U' => 8,
            _ => return None,
        };
        let (second, tail) = code_point(tail, width)?;
        after = tail;
        joined(point, second)?
    } else {
        point
    };
    push_char(point, out)?;
    Some(after)
}

fn code_point(rest: &[u8], width: usize) -> Option<(u32, &[u8])> {
    let (digits, after) = rest.split_at_checked(width)?;
    let all_hex = digits.iter().all(u8::is_ascii_hexdigit);
    Some((number(digits, 16).filter(|_| all_hex)?, after))
}

fn is_first_surrogate(point: u32) -> bool {
    (0xD800..0xDC00).contains(&point)
}

fn joined(first: u32, second: u32) -> Option<u32> {
    (0xDC00..0xE000).contains(&second).then(|| 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00))
}

fn push_char(point: u32, out: &mut Vec<u8>) -> Option<()> {
    let c = char::from_u32(point).filter(|c| *c != '\0')?;
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

/// The inside of `U&'…'` or `U&"…"` with `\` as escape character: `\XXXX`, `\+XXXXXX`, `\\`; a doubled `quote`
/// is one.
pub(super) fn unicode(inside: &[u8], quote: u8) -> Option<String> {
    let mut out = Vec::with_capacity(inside.len());
    let mut rest = inside;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'\\' if after.first() == Some(&b'\\') => {
                out.push(b'\\');
                after.get(1..)?
            }
            b'\\' => {
                let (mut point, mut tail) = unicode_form(after)?;
                if is_first_surrogate(point) {
                    let (second, further) = unicode_form(tail.strip_prefix(b"\\")?)?;
                    (point, tail) = (joined(point, second)?, further);
                }
                push_char(point, &mut out)?;
                tail
            }
            _ if byte == quote => {
                out.push(quote);
                after.get(1..)?
            }
            other => {
                out.push(other);
                after
            }
        };
    }
    String::from_utf8(out).ok()
}

fn unicode_form(rest: &[u8]) -> Option<(u32, &[u8])> {
    match rest.strip_prefix(b"+") {
        Some(six) => code_point(six, 6),
        None => code_point(rest, 4),
    }
}

/// The byte offset of sqlparser's (line, column), both from 1, columns in characters; `None` past the text's end.
///
/// Walks the whole text: for many places of one text use [`Lines`].
#[cfg_attr(not(test), expect(dead_code, reason = "kept for callers with one place to find"))]
pub(super) fn offset_of(text: &str, line: u64, column: u64) -> Option<usize> {
    Lines::new(text).offset_of(line, column)
}

/// Finds byte offsets of lines and columns without walking the whole text each time.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// The number of the first character of each line, counted over the whole text.
    starts: Vec<usize>,
    /// The byte offset of every [`STEP`]th character; empty for ASCII, where both are the same.
    steps: Vec<usize>,
}

const STEP: usize = 64;

impl<'t> Lines<'t> {
    /// Notes where each line of `text` begins.
    pub(super) fn new(text: &'t str) -> Self {
        let mut lines = Self { text, starts: vec![0], steps: Vec::new() };
        if text.is_ascii() {
            lines.starts.extend(memchr::memchr_iter(b'\n', text.as_bytes()).map(|i| i + 1));
            return lines;
        }
        for (number, (at, c)) in text.char_indices().enumerate() {
            if number % STEP == 0 {
                lines.steps.push(at);
            }
            if c == '\n' {
                lines.starts.push(number + 1);
            }
        }
        lines
    }

    /// As [`offset_of`].
    pub(super) fn offset_of(&self, line: u64, column: u64) -> Option<usize> {
        let line = usize::try_from(line.checked_sub(1)?).ok()?;
        let number = self.starts.get(line)? + usize::try_from(column.checked_sub(1)?).ok()?;
        if self.steps.is_empty() {
            return Some(number).filter(|at| *at <= self.text.len());
        }
        let Some(step) = self.steps.get(number / STEP) else {
            return (number % STEP == 0 && number / STEP == self.steps.len()).then_some(self.text.len());
        };
        let rest = self.text.get(*step..)?;
        let ends = rest.char_indices().map(|(i, _)| i).chain(std::iter::once(rest.len()));
        ends.take(STEP).nth(number % STEP).map(|i| step + i)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::lex::{Lexer, TokenKind};

    fn value(sql: &str, env: &Env) -> Option<String> {
        let token = Lexer::new(sql.as_bytes(), env.nonstandard_strings).next().unwrap();
        let TokenKind::Literal(kind) = token.kind else { panic!("{sql} is {token:?}") };
        assert_eq!(token.end, sql.len(), "{sql}");
        let literal = LiteralAt { span: 0..sql.len() as u32, kind };
        decode(sql.as_bytes(), &literal, env).map(Cow::into_owned)
    }

    #[test]
    fn literals_have_the_values_that_postgresql_reads() {
        for (sql, want) in [
            ("'a'", Some("a")),
            ("''", Some("")),
            ("'it''s'", Some("it's")),
            (r"'a\nb'", Some(r"a\nb")),
            (r"E'a\nb\tc\\d\'e''f'", Some("a\nb\tc\\d'e'f")),
            (r"e'\x41\101\u00e9\U0001F600\q'", Some("AAé😀q")),
            (r"E'\ud83d\ude00'", Some("😀")),
            (r"E'\ud83d'", None),
            (r"E'\ude00'", None),
            (r"E'\xe9'", None),
            (r"E'\xc3\xa9'", Some("é")),
            (r"E'\0'", None),
            (r"E'\u00e'", None),
            (r"E'\u+0e9'", None),
            (r"E'\v'", None),
            (r"E'\xg'", Some("xg")),
            (r"E'\471'", Some("9")),
            (r"U&'d\0061t\+000061'", Some("data")),
            (r"U&'\D83D\DE00'", Some("😀")),
            (r#"u&'a\\b''c""d'"#, Some("a\\b'c\"\"d")),
            (r"U&'\006'", None),
            (r"U&'\0000'", None),
            ("$$a'b$$", Some("a'b")),
            ("$t$a$$b$t$", Some("a$$b")),
            ("$$$$", Some("")),
            ("17", Some("17")),
            ("1.5", None),
            (".5", None),
            ("1e3", None),
            ("0x1F", None),
            ("1_000", None),
            ("B'01'", None),
            ("X'1F'", None),
            ("N'a'", None),
            ("'a' \n 'b'", None),
            ("'a' -- more\n--\n'b'", None),
        ] {
            assert_eq!(value(sql, &Env::default()).as_deref(), want, "{sql}");
        }
    }

    #[test]
    fn what_depends_on_the_session_is_not_understood() {
        let nonstandard = Env { nonstandard_strings: true, ..Env::default() };
        assert_eq!(value(r"'a\'b'", &nonstandard), None);
        assert_eq!(value("'a''b'", &nonstandard).as_deref(), Some("a'b"));
        assert_eq!(value(r"$$a\b$$", &nonstandard).as_deref(), Some(r"a\b"));
        let foreign = Env { foreign_encoding: true, ..Env::default() };
        assert_eq!(value("'é'", &foreign), None);
        assert_eq!(value("'e'", &foreign).as_deref(), Some("e"));
    }

    #[test]
    fn bytes_that_are_not_utf8_have_no_value() {
        let literal = LiteralAt { span: 0..3, kind: LiteralKind::String };
        assert_eq!(decode(b"'\xff'", &literal, &Env::default()), None);
        assert_eq!(decode(b"'", &literal, &Env::default()), None);
    }

    #[test]
    fn lines_and_columns_are_found_in_any_text() {
        for text in [
            "ab\ncd\n",
            "äb\ncé😀d\n",
            &"x".repeat(200),
            &format!("{}\n{}", "é".repeat(150), "😀".repeat(64)),
        ] {
            let (mut line, mut column) = (1, 1);
            for (at, c) in text.char_indices() {
                assert_eq!(offset_of(text, line, column), Some(at), "{text}");
                (line, column) = if c == '\n' { (line + 1, 1) } else { (line, column + 1) };
            }
            assert_eq!(offset_of(text, line, column), Some(text.len()), "{text}");
            assert_eq!(offset_of(text, line, column + 1), None, "{text}");
            assert_eq!(offset_of(text, line + 1, 1), None);
            assert_eq!(offset_of(text, 0, 1), None);
            assert_eq!(offset_of(text, 1, 0), None);
        }
    }
}
