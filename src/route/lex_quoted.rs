//! The tokens between quotes: strings of every form, quoted identifiers, dollar quotes (and `$1`, which looks like one).
//! Must not know any other token. Source: PostgreSQL's `scan.l`.

use memchr::{memchr, memchr2, memmem};

use super::bytes::{Class, class};
use super::lex::{Lexer, LiteralKind, Token, TokenKind, Unclosed};

impl Lexer<'_> {
    /// An identifier in double quotes whose opening quote is at `open`.
    pub(super) fn quoted(&self, start: usize, open: usize, kind: TokenKind) -> Token {
        let mut at = open + 1;
        while let Some(close) = self.text.get(at..).and_then(|rest| memchr(b'"', rest)).map(|i| at + i) {
            if self.byte(close + 1) != Some(b'"') {
                return self.token(kind, start, close + 1);
            }
            at = close + 2;
        }
        self.unterminated(Unclosed::Identifier, start)
    }

    /// A string whose opening quote is at `open`, with all lines that continue it.
    pub(super) fn string(&self, start: usize, open: usize, kind: LiteralKind) -> Token {
        let plain = matches!(kind, LiteralKind::String | LiteralKind::National);
        let escapes = kind == LiteralKind::Escape || (plain && self.nonstandard);
        let mut kind = kind;
        let mut open = open;
        loop {
            let Some(end) = self.closing_quote(open + 1, escapes) else {
                return self.unterminated(Unclosed::String, start);
            };
            if plain && self.nonstandard && memchr(b'\\', &self.text[start..end]).is_some() {
                kind = LiteralKind::Odd;
            }
            match self.continuation(end) {
                Some(next) => (open, kind) = (next, LiteralKind::Odd),
                None => return self.token(TokenKind::Literal(kind), start, end),
            }
        }
    }

    /// Past the quote that closes a string whose inside begins at `at`.
    fn closing_quote(&self, mut at: usize, escapes: bool) -> Option<usize> {
        loop {
            let rest = self.text.get(at..)?;
            let found = at + if escapes { memchr2(b'\'', b'\\', rest)? } else { memchr(b'\'', rest)? };
            if self.byte(found) == Some(b'\\') || self.byte(found + 1) == Some(b'\'') {
                at = found + 2;
            } else {
                return Some(found + 1);
            }
        }
    }

    /// The opening quote of the string that continues the one ending at `at`: only blanks and `--` comments lie
    /// between, and at least one line end.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut line_ended = false;
        loop {
            match self.byte(at)? {
                b'\n' | b'\r' => line_ended = true,
                b'\'' if line_ended => return Some(at),
                b'-' if self.byte(at + 1) == Some(b'-') => {
                    at = self.line_end(at);
                    continue;
                }
                byte if class(byte) == Class::Space => {}
                _ => return None,
            }
            at += 1;
        }
    }

    /// `$1`, `$tag$…$tag$`, or a stray `$`.
    pub(super) fn dollar(&self, start: usize) -> Token {
        if self.byte(start + 1).is_some_and(|b| b.is_ascii_digit()) {
            return self.token(TokenKind::Param, start, self.run(start + 1, |b| b.is_ascii_digit()));
        }
        let tag_end = match self.byte(start + 1).map(class) {
            Some(Class::Letter) => self.run(start + 2, |b| matches!(class(b), Class::Letter | Class::Digit)),
            _ => start + 1,
        };
        if self.byte(tag_end) != Some(b'$') {
            return self.token(TokenKind::Symbol(b'$'), start, start + 1);
        }
        let (tag, inside) = (&self.text[start..=tag_end], tag_end + 1);
        match memmem::find(&self.text[inside..], tag) {
            Some(at) => self.token(TokenKind::Literal(LiteralKind::Dollar), start, inside + at + tag.len()),
            None => self.unterminated(Unclosed::DollarString, start),
        }
    }
}
