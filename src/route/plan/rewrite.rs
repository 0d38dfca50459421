//! Splices text into a statement's own bytes at token places; never prints a tree back.
//! Must not know what is spliced in, or why.
//!
//! Places are counted in tokens: texts that share a plan differ in blanks, comments and values of literals, but
//! not in their tokens.

use crate::route::lex::{Lexer, Token, TokenKind};

/// Where to splice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The token's position among the statement's tokens, comments left out.
    token: u32,
    side: Side,
}

impl Place {
    /// Whether it is that of a word DEFAULT, which is replaced.
    pub(super) fn is_default(self) -> bool {
        self.side == Side::Default
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// After an identifier.
    AfterName,
    /// Before a closing parenthesis.
    BeforeParen,
    /// Instead of the word DEFAULT.
    Default,
}

/// The start of every token of a statement.
#[derive(Debug)]
pub(super) struct Tokens<'t> {
    text: &'t [u8],
    tokens: Vec<Token>,
}

impl<'t> Tokens<'t> {
    /// Of `text`.
    pub(super) fn new(text: &'t [u8], nonstandard: bool) -> Self {
        Self { text, tokens: significant(text, nonstandard).collect() }
    }

    /// The place after the identifier that begins at byte `at`.
    pub(super) fn after_name(&self, at: usize) -> Option<Place> {
        self.place(at, Side::AfterName)
    }

    /// The place before the closing parenthesis at byte `at`.
    pub(super) fn before_paren(&self, at: usize) -> Option<Place> {
        self.place(at, Side::BeforeParen)
    }

    /// The place of the word DEFAULT that begins at byte `at`.
    pub(super) fn default(&self, at: usize) -> Option<Place> {
        self.place(at, Side::Default)
    }

    fn place(&self, at: usize, side: Side) -> Option<Place> {
        let token = self.tokens.binary_search_by_key(&at, |t| t.start).ok()?;
        let place = Place { token: u32::try_from(token).ok()?, side };
        is_expected(self.tokens.get(token)?, self.text, side).then_some(place)
    }
}

fn significant(text: &[u8], nonstandard: bool) -> impl Iterator<Item = Token> {
    Lexer::new(text, nonstandard).filter(|t| t.kind != TokenKind::Comment)
}

fn is_expected(token: &Token, text: &[u8], side: Side) -> bool {
    match side {
        Side::AfterName => matches!(token.kind, TokenKind::Word | TokenKind::Quoted),
        Side::BeforeParen => token.is_symbol(b')'),
        Side::Default => token.is_word(text, "default"),
    }
}

/// `text` with all `edits` made. `None` if a token is not what it was when the statement was analysed, or if the
/// result is not UTF-8: then nothing may be sent.
pub(super) fn apply(text: &[u8], nonstandard: bool, edits: &[(Place, String)]) -> Option<String> {
    let mut edits: Vec<_> = edits.iter().collect();
    edits.sort_by_key(|(place, _)| place.token); // stable: edits at one place stay in order
    let mut out = Vec::with_capacity(text.len() + edits.iter().map(|(_, e)| e.len()).sum::<usize>());
    let mut copied = 0;
    let mut edits = edits.into_iter().peekable();
    for (number, token) in (0u32..).zip(significant(text, nonstandard)) {
        while let Some((place, new)) = edits.next_if(|(place, _)| place.token == number) {
            if !is_expected(&token, text, place.side) {
                return None;
            }
            let (until, resume) = match place.side {
                Side::AfterName => (token.end, token.end),
                Side::BeforeParen => (token.start, token.start),
                Side::Default => (token.start, token.end),
            };
            out.extend_from_slice(text.get(copied..until.max(copied))?);
            out.extend_from_slice(new.as_bytes());
            copied = resume.max(copied);
        }
    }
    if edits.next().is_some() {
        return None;
    }
    out.extend_from_slice(text.get(copied..)?);
    String::from_utf8(out).ok()
}

/// An identifier in quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal; `None` if its reading depends on a setting.
pub(super) fn literal(value: &str) -> Option<String> {
    (!value.contains('\\')).then(|| format!("'{}'", value.replace('\'', "''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_land_at_their_tokens_whatever_stands_between() {
        let text = b"INSERT INTO t (a, b) VALUES (1, DEFAULT)";
        let tokens = Tokens::new(text, false);
        let edits = [
            (tokens.after_name(18).unwrap(), ", c".to_owned()),
            (tokens.default(32).unwrap(), "'x'".to_owned()),
            (tokens.before_paren(39).unwrap(), ", 'y'".to_owned()),
            (tokens.before_paren(39).unwrap(), ", 'z'".to_owned()),
        ];
        for (text, want) in [
            (
                "INSERT INTO t (a, b) VALUES (1, DEFAULT)",
                Some("INSERT INTO t (a, b, c) VALUES (1, 'x', 'y', 'z')"),
            ),
            (
                "insert  into t(a,b /* ) */ )values ( 'é)',default -- )\n )",
                Some("insert  into t(a,b, c /* ) */ )values ( 'é)','x' -- )\n , 'y', 'z')"),
            ),
            ("INSERT INTO t (a, b) VALUES (1, 2)", None),
            ("INSERT INTO t (a, b)", None),
        ] {
            assert_eq!(apply(text.as_bytes(), false, &edits).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_place_is_refused_where_the_token_is_another() {
        let tokens = Tokens::new(b"a ( b )", false);
        assert!(tokens.before_paren(0).is_none());
        assert!(tokens.after_name(1).is_none());
        assert!(tokens.before_paren(6).is_some());
    }

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's").as_deref(), Some("'it''s'"));
        assert_eq!(literal("a\\b"), None);
    }
}
