//! PostgreSQL's tokens in bytes of any client encoding; one pass, no allocation, never panics.
//! Must not know what words mean, nor values of literals. Source: PostgreSQL's `scan.l`.

use std::ops::Range;

use memchr::memchr2;

use super::bytes::{Class, class, is_word_byte};

/// One literal of a statement. Its ordinal is its position among the statement's literals, in order of appearance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiteralAt {
    /// Bytes from its first character (`E` of `E'a'`) to past its last, relative to the statement's text.
    pub(super) span: Range<u32>,
    /// Its form.
    pub(super) kind: LiteralKind,
}

/// A literal's form: what it is before anyone asks for its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum LiteralKind {
    /// Decimal digits only. PostgreSQL types it by size: integer, bigint, else numeric.
    Integer,
    /// A number of any other form: `1.5`, `1e3`, `0x1F`, `1_000`.
    Number,
    /// `'…'`, backslashes ordinary.
    String,
    /// `E'…'`.
    Escape,
    /// `U&'…'` without UESCAPE.
    Unicode,
    /// `$tag$…$tag$`.
    Dollar,
    /// `B'…'`.
    Bits,
    /// `X'…'`.
    HexBits,
    /// `N'…'`: a `character` value, not an untyped one.
    National,
    /// A string whose value is not worked out: one continued over lines, one with UESCAPE, one with backslashes
    /// while `standard_conforming_strings` is off.
    Odd,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword or an unquoted identifier.
    Word,
    /// `"…"`.
    Quoted,
    /// `U&"…"`.
    UnicodeQuoted,
    /// `$1`.
    Param,
    /// A constant.
    Literal(LiteralKind),
    /// A run of operator characters, `::`, `:=` or `..`.
    Operator,
    /// Any other single byte: parentheses, brackets, comma, semicolon, full stop, colon, and what SQL has no use for.
    Symbol(u8),
    /// `-- …` or `/* … */`.
    Comment,
    /// The rest of the text, in which something is never closed.
    Unterminated(Unclosed),
}

/// What is never closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unclosed {
    String,
    Identifier,
    DollarString,
    Comment,
}

impl Unclosed {
    /// Its name as PostgreSQL's message has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::String => "quoted string",
            Self::Identifier => "quoted identifier",
            Self::DollarString => "dollar-quoted string",
            Self::Comment => "/* comment",
        }
    }
}

/// One token of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// What it is.
    pub(super) kind: TokenKind,
    /// Its first byte.
    pub(super) start: usize,
    /// Past its last byte.
    pub(super) end: usize,
}

impl Token {
    /// Its bytes in the text it was found in.
    pub(super) fn bytes<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.start..self.end).unwrap_or_default()
    }

    /// Whether it is this unquoted word, in any case; `word` is in lower case.
    pub(super) fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && self.bytes(text).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether it is this symbol.
    pub(super) fn is_symbol(&self, symbol: u8) -> bool {
        self.kind == TokenKind::Symbol(symbol)
    }
}

/// Reads a text token by token, comments included, blanks left out.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    pub(super) text: &'t [u8],
    at: usize,
    pub(super) nonstandard: bool,
}

impl<'t> Lexer<'t> {
    /// From the start of `text`. `nonstandard` is `standard_conforming_strings = off`.
    pub(super) fn new(text: &'t [u8], nonstandard: bool) -> Self {
        Self { text, at: 0, nonstandard }
    }

    /// From a token's first byte on.
    pub(super) fn at(text: &'t [u8], at: usize, nonstandard: bool) -> Self {
        Self { text, at, nonstandard }
    }

    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    /// The end of a run of bytes from `at` on.
    pub(super) fn run(&self, at: usize, wanted: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.iter().position(|b| !wanted(*b)).unwrap_or(rest.len())
    }

    pub(super) fn token(&self, kind: TokenKind, start: usize, end: usize) -> Token {
        Token { kind, start, end: end.min(self.text.len()) }
    }

    pub(super) fn unterminated(&self, what: Unclosed, start: usize) -> Token {
        self.token(TokenKind::Unterminated(what), start, self.text.len())
    }

    fn word(&self, start: usize, first: u8) -> Token {
        let next = self.byte(start + 1);
        if next == Some(b'\'') {
            let kind = match first {
                b'e' | b'E' => Some(LiteralKind::Escape),
                b'b' | b'B' => Some(LiteralKind::Bits),
                b'x' | b'X' => Some(LiteralKind::HexBits),
                b'n' | b'N' => Some(LiteralKind::National),
                _ => None,
            };
            if let Some(kind) = kind {
                return self.string(start, start + 1, kind);
            }
        } else if next == Some(b'&') && matches!(first, b'u' | b'U') {
            match self.byte(start + 2) {
                Some(b'\'') => return self.string(start, start + 2, LiteralKind::Unicode),
                Some(b'"') => return self.quoted(start, start + 2, TokenKind::UnicodeQuoted),
                _ => {}
            }
        }
        self.token(TokenKind::Word, start, self.run(start + 1, is_word_byte))
    }

    pub(super) fn line_end(&self, at: usize) -> usize {
        self.text.get(at..).and_then(|rest| memchr2(b'\n', b'\r', rest)).map_or(self.text.len(), |i| at + i)
    }

    fn number(&self, start: usize) -> Token {
        let digits = |at| self.run(at, |b| b.is_ascii_digit());
        let is_digit = |at| self.byte(at).is_some_and(|b| b.is_ascii_digit());
        let mut kind = LiteralKind::Integer;
        let mut end = digits(start);
        // `0x1F` and `1_000` are numbers to PostgreSQL 16, two tokens to older servers: never worked out here.
        let radix = end == start + 1 && self.byte(start) == Some(b'0');
        let odd = match self.byte(end) {
            Some(b'x' | b'X') => {
                radix && self.byte(end + 1).is_some_and(|b| b == b'_' || b.is_ascii_hexdigit())
            }
            Some(b'o' | b'O' | b'b' | b'B') => {
                radix && (is_digit(end + 1) || self.byte(end + 1) == Some(b'_'))
            }
            Some(b'_') => end > start && is_digit(end + 1),
            _ => false,
        };
        if odd {
            let end = self.run(end, |b| b == b'_' || b.is_ascii_alphanumeric());
            return self.token(TokenKind::Literal(LiteralKind::Number), start, end);
        }
        if self.byte(end) == Some(b'.') && self.byte(end + 1) != Some(b'.') {
            (kind, end) = (LiteralKind::Number, digits(end + 1));
        }
        if matches!(self.byte(end), Some(b'e' | b'E')) {
            let signed = matches!(self.byte(end + 1), Some(b'+' | b'-'));
            let exponent = end + 1 + usize::from(signed);
            if is_digit(exponent) {
                (kind, end) = (LiteralKind::Number, digits(exponent));
            }
        }
        self.token(TokenKind::Literal(kind), start, end)
    }

    /// An operator or a comment. A trailing `+` or `-` belongs to what follows, unless the operator holds a
    /// character that no SQL-standard operator has.
    fn operator(&self, start: usize, first: u8) -> Token {
        let next = self.byte(start + 1);
        match (first, next) {
            (b'-', Some(b'-')) => return self.token(TokenKind::Comment, start, self.line_end(start)),
            (b'/', Some(b'*')) => return self.block_comment(start),
            _ => {}
        }
        let mut end = start + 1;
        while let Some(byte) = self.byte(end).filter(|b| class(*b) == Class::Operator) {
            if matches!((byte, self.byte(end + 1)), (b'-', Some(b'-')) | (b'/', Some(b'*'))) {
                break;
            }
            end += 1;
        }
        let special =
            |b: &u8| matches!(b, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
        if end > start + 1 && !self.text[start..end - 1].iter().any(special) {
            while end > start + 1 && matches!(self.byte(end - 1), Some(b'+' | b'-')) {
                end -= 1;
            }
        }
        self.token(TokenKind::Operator, start, end)
    }

    fn block_comment(&self, start: usize) -> Token {
        let (mut at, mut depth) = (start + 2, 1usize);
        while let Some(found) = self.text.get(at..).and_then(|rest| memchr2(b'*', b'/', rest)).map(|i| at + i)
        {
            at = found + 2;
            match (self.byte(found), self.byte(found + 1)) {
                (Some(b'/'), Some(b'*')) => depth += 1,
                (Some(b'*'), Some(b'/')) => depth -= 1,
                _ => at = found + 1,
            }
            if depth == 0 {
                return self.token(TokenKind::Comment, start, at);
            }
        }
        self.unterminated(Unclosed::Comment, start)
    }

    fn colon(&self, start: usize) -> Token {
        match self.byte(start + 1) {
            Some(b':' | b'=') => self.token(TokenKind::Operator, start, start + 2),
            _ => self.token(TokenKind::Symbol(b':'), start, start + 1),
        }
    }

    fn dot(&self, start: usize) -> Token {
        match self.byte(start + 1) {
            Some(b'0'..=b'9') => self.number(start),
            Some(b'.') => self.token(TokenKind::Operator, start, start + 2),
            _ => self.token(TokenKind::Symbol(b'.'), start, start + 1),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    #[inline]
    fn next(&mut self) -> Option<Token> {
        let token = self.advance();
        (token.start < token.end).then_some(token)
    }
}

impl<'t> Lexer<'t> {
    /// The rest of the text if a word is ahead that is nothing else than a word, for callers that read words faster.
    #[inline]
    pub(super) fn before_word(&mut self) -> Option<&'t [u8]> {
        self.at = self.run(self.at, |b| class(b) == Class::Space);
        let rest = self.text.get(self.at..)?;
        let prefix = matches!(rest.get(1), Some(b'\'' | b'&'));
        (class(*rest.first()?) == Class::Letter && !prefix).then_some(rest)
    }

    /// Takes the word of that length that [`Self::before_word`] has found.
    #[inline]
    pub(super) fn take_word(&mut self, len: usize) -> Token {
        let token = self.token(TokenKind::Word, self.at, self.at + len);
        self.at = token.end;
        token
    }

    /// The next token; an empty one at the end of the text. (As an `Option` it costs a stalled load for each.)
    #[inline]
    pub(super) fn advance(&mut self) -> Token {
        let start = self.run(self.at, |b| class(b) == Class::Space);
        let Some(first) = self.byte(start) else {
            return self.token(TokenKind::Symbol(b' '), start, start);
        };
        let token = match class(first) {
            Class::Letter => self.word(start, first),
            Class::Digit => self.number(start),
            Class::Quote => self.string(start, start, LiteralKind::String),
            Class::DoubleQuote => self.quoted(start, start, TokenKind::Quoted),
            Class::Dollar => self.dollar(start),
            Class::Dot => self.dot(start),
            Class::Colon => self.colon(start),
            Class::Operator => self.operator(start, first),
            Class::Symbol | Class::Space => self.token(TokenKind::Symbol(first), start, start + 1),
        };
        self.at = token.end;
        token
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(sql: &str, nonstandard: bool) -> Vec<(TokenKind, String)> {
        Lexer::new(sql.as_bytes(), nonstandard)
            .map(|t| (t.kind, String::from_utf8_lossy(t.bytes(sql.as_bytes())).into_owned()))
            .collect()
    }

    fn shown(sql: &str, nonstandard: bool) -> String {
        let show = |(kind, text): (TokenKind, String)| match kind {
            TokenKind::Literal(kind) => format!("{kind:?}:{text}"),
            TokenKind::Unterminated(what) => format!("!{}", what.name()),
            TokenKind::Comment => format!("#{text}"),
            TokenKind::Word
            | TokenKind::Quoted
            | TokenKind::UnicodeQuoted
            | TokenKind::Param
            | TokenKind::Operator
            | TokenKind::Symbol(_) => text,
        };
        kinds(sql, nonstandard).into_iter().map(show).collect::<Vec<_>>().join(" ¦ ")
    }

    #[test]
    fn texts_fall_into_the_tokens_that_postgresql_sees() {
        for (sql, want) in [
            ("select a1$b", "select ¦ a1$b"),
            ("x='a''b'", "x ¦ = ¦ String:'a''b'"),
            (r"E'a\'b' e'\\'", r"Escape:E'a\'b' ¦ Escape:e'\\'"),
            (r"'a\'", r"String:'a\'"),
            ("b'01'x'1f'n'q'", "Bits:b'01' ¦ HexBits:x'1f' ¦ National:n'q'"),
            ("fe'a'", "fe ¦ String:'a'"),
            (r#"U&'\0061' u&"q" u & 1"#, r#"Unicode:U&'\0061' ¦ u&"q" ¦ u ¦ & ¦ Integer:1"#),
            (r#""a""b".c"#, r#""a""b" ¦ . ¦ c"#),
            ("$1 $$a$$ $x$ $$ $x$ $", "$1 ¦ Dollar:$$a$$ ¦ Dollar:$x$ $$ $x$ ¦ $"),
            ("a$$b$$", "a$$b$$"),
            (
                "1 1.5 .5 1. 1e5 1e+5 1e 1..2",
                "Integer:1 ¦ Number:1.5 ¦ Number:.5 ¦ Number:1. ¦ Number:1e5 ¦ Number:1e+5 ¦ Integer:1 ¦ e ¦ Integer:1 ¦ .. ¦ Integer:2",
            ),
            (
                "0x1F 0b1 1_0 0xg 12abc",
                "Number:0x1F ¦ Number:0b1 ¦ Number:1_0 ¦ Integer:0 ¦ xg ¦ Integer:12 ¦ abc",
            ),
            (
                "a=-5 b@-5 c<>-+1 d::int e:=1",
                "a ¦ = ¦ - ¦ Integer:5 ¦ b ¦ @- ¦ Integer:5 ¦ c ¦ <> ¦ - ¦ + ¦ Integer:1 ¦ d ¦ :: ¦ int ¦ e ¦ := ¦ Integer:1",
            ),
            ("a--b\nc/*d/*e*/f*/g+/**/h", "a ¦ #--b ¦ c ¦ #/*d/*e*/f*/ ¦ g ¦ + ¦ #/**/ ¦ h"),
            ("a --b\rc", "a ¦ #--b ¦ c"),
            ("'a'\n'b' 'c'", "Odd:'a'\n'b' ¦ String:'c'"),
            ("'a' /**/\n'b'", "String:'a' ¦ #/**/ ¦ String:'b'"),
            ("E'a'\n'\\'b'", "Odd:E'a'\n'\\'b'"),
            ("'a", "!quoted string"),
            ("'a''", "!quoted string"),
            ("\"a", "!quoted identifier"),
            ("/* /* */", "!/* comment"),
            ("/*/", "!/* comment"),
            ("$a$ $b$", "!dollar-quoted string"),
            ("{a}\\", "{ ¦ a ¦ } ¦ \\"),
            ("é_1 'é'", "é_1 ¦ String:'é'"),
            ("", ""),
        ] {
            assert_eq!(shown(sql, false), want, "{sql}");
        }
    }

    #[test]
    fn backslashes_escape_plain_strings_only_while_strings_are_nonstandard() {
        let sql = r"'a\'d' 'c'";
        assert_eq!(shown(sql, true), r"Odd:'a\'d' ¦ String:'c'");
        assert_eq!(shown(sql, false), r"String:'a\' ¦ d ¦ String:' ' ¦ c ¦ !quoted string");
    }

    /// Bytes that mean something to the lexer, far more often than chance would have them.
    fn sql_like() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"'".to_vec()),
            Just(b"\"".to_vec()),
            Just(b"$".to_vec()),
            Just(b"$a$".to_vec()),
            Just(b"/*".to_vec()),
            Just(b"*/".to_vec()),
            Just(b"--".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\\".to_vec()),
            Just(b"E'".to_vec()),
            Just(b"U&'".to_vec()),
            Just(b"U&\"".to_vec()),
            Just(b"1.e".to_vec()),
            Just(b"0x".to_vec()),
            Just(b".".to_vec()),
            Just(b";".to_vec()),
            Just(b"(".to_vec()),
            Just(b")".to_vec()),
            Just(b":".to_vec()),
            Just(b" ".to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn tokens_of_any_bytes_follow_each_other_and_leave_only_blanks_out(text in sql_like(), nonstandard: bool) {
            let mut at = 0;
            for token in Lexer::new(&text, nonstandard) {
                prop_assert!(token.start >= at && token.end > token.start && token.end <= text.len());
                prop_assert!(text[at..token.start].iter().all(|b| class(*b) == Class::Space));
                at = token.end;
            }
            prop_assert!(text[at..].iter().all(|b| class(*b) == Class::Space));
        }
    }
}
