//! A cursor over one statement's tokens: the words, names and constants that its kind is told by.
//! Must not know any statement.

use crate::wire::SqlState;

use super::lex::{Lexer, LiteralAt, LiteralKind, Token, TokenKind};
use super::literal::{decode, unicode};
use super::{Env, RouteError};

/// Identifiers are cut to this many bytes. Source: PostgreSQL's NAMEDATALEN - 1.
const NAME_BYTES: usize = 63;

/// The tokens of one statement, comments left out. Cheap to clone, so as to look ahead.
#[derive(Debug, Clone)]
pub(super) struct Words<'t> {
    text: &'t [u8],
    lexer: Lexer<'t>,
    ahead: Option<Token>,
    past: usize,
}

impl<'t> Words<'t> {
    /// At the first token.
    pub(super) fn new(text: &'t [u8], nonstandard: bool) -> Self {
        let mut words = Self { text, lexer: Lexer::new(text, nonstandard), ahead: None, past: 0 };
        words.ahead = words.read();
        words
    }

    fn read(&mut self) -> Option<Token> {
        self.lexer.find(|t| t.kind != TokenKind::Comment)
    }

    /// The text it reads.
    pub(super) fn text(&self) -> &'t [u8] {
        self.text
    }

    /// The token ahead.
    pub(super) fn peek(&self) -> Option<Token> {
        self.ahead
    }

    /// Takes the token ahead.
    pub(super) fn bump(&mut self) -> Option<Token> {
        let token = self.ahead.take()?;
        self.past = token.end;
        self.ahead = self.read();
        Some(token)
    }

    /// Past the last token taken.
    pub(super) fn past(&self) -> usize {
        self.past
    }

    /// Where the token ahead begins; the text's end if there is none.
    pub(super) fn at(&self) -> usize {
        self.ahead.map_or(self.text.len(), |t| t.start)
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.ahead.is_none()
    }

    /// Whether nothing is left of the statement: semicolons end it.
    pub(super) fn is_over(&self) -> bool {
        let mut ahead = self.clone();
        while ahead.eat_symbol(b';') {}
        ahead.is_done()
    }

    /// Whether the token ahead is this unquoted word (given in lower case).
    pub(super) fn sees(&self, word: &str) -> bool {
        self.ahead.is_some_and(|t| t.is_word(self.text, word))
    }

    /// Takes the token ahead if it is this unquoted word.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        self.sees(word) && self.bump().is_some()
    }

    /// Takes these words if all of them are ahead in this order, else none.
    pub(super) fn eat_all(&mut self, words: &[&str]) -> bool {
        let mut ahead = self.clone();
        let found = words.iter().all(|word| ahead.eat(word));
        if found {
            *self = ahead;
        }
        found
    }

    /// Takes the first of these words that is ahead.
    pub(super) fn eat_any<'w>(&mut self, words: &[&'w str]) -> Option<&'w str> {
        words.iter().copied().find(|word| self.eat(word))
    }

    /// Takes the token ahead if it is this symbol.
    pub(super) fn eat_symbol(&mut self, symbol: u8) -> bool {
        self.ahead.is_some_and(|t| t.is_symbol(symbol)) && self.bump().is_some()
    }

    /// Takes the token ahead if it is this operator.
    pub(super) fn eat_operator(&mut self, operator: &str) -> bool {
        let is = |t: Token| t.kind == TokenKind::Operator && t.bytes(self.text) == operator.as_bytes();
        self.ahead.is_some_and(is) && self.bump().is_some()
    }

    /// Takes a word, in lower case.
    pub(super) fn word(&mut self) -> Option<String> {
        let token = self.ahead.filter(|t| t.kind == TokenKind::Word)?;
        self.bump();
        Some(folded(token.bytes(self.text)))
    }

    /// Takes an identifier: unquoted ones folded, quotes removed, cut to 63 bytes.
    pub(super) fn name(&mut self) -> Option<String> {
        let token = self.ahead?;
        let name = identifier(&token, self.text)?;
        let mut ahead = self.clone();
        ahead.bump();
        if token.kind == TokenKind::UnicodeQuoted && ahead.sees("uescape") {
            return None;
        }
        *self = ahead;
        Some(name)
    }

    /// Takes `name` or `schema.name` or longer: its parts.
    pub(super) fn qualified_name(&mut self) -> Option<Vec<String>> {
        let mut parts = vec![self.name()?];
        while self.eat_symbol(b'.') {
            parts.push(self.name()?);
        }
        Some(parts)
    }

    /// Takes a string constant whose value is understood.
    pub(super) fn string(&mut self, env: &Env) -> Option<String> {
        let token = self.ahead?;
        let TokenKind::Literal(kind) = token.kind else { return None };
        if matches!(kind, LiteralKind::Integer | LiteralKind::Number) {
            return None;
        }
        let mut ahead = self.clone();
        ahead.bump();
        if kind == LiteralKind::Unicode && ahead.sees("uescape") {
            return None;
        }
        let span = u32::try_from(token.start).ok()?..u32::try_from(token.end).ok()?;
        let value = decode(self.text, &LiteralAt { span, kind }, env)?.into_owned();
        *self = ahead;
        Some(value)
    }

    /// Takes a number as written, its sign included.
    pub(super) fn number(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        let minus = ahead.eat_operator("-");
        if !minus {
            ahead.eat_operator("+");
        }
        let token = ahead.peek()?;
        if !matches!(token.kind, TokenKind::Literal(LiteralKind::Integer | LiteralKind::Number)) {
            return None;
        }
        ahead.bump();
        let digits = String::from_utf8_lossy(token.bytes(self.text)).into_owned();
        *self = ahead;
        Some(if minus { format!("-{digits}") } else { digits })
    }

    /// PostgreSQL's error for a statement that cannot go on as it does here.
    pub(super) fn syntax_error(&self) -> RouteError {
        let message = match self.ahead {
            Some(token) => {
                format!("syntax error at or near \"{}\"", String::from_utf8_lossy(token.bytes(self.text)))
            }
            None => "syntax error at end of input".to_owned(),
        };
        RouteError::Sql { code: SqlState::SYNTAX_ERROR, message, detail: None, hint: None }
    }

    /// `value`, provided that nothing is left.
    ///
    /// # Errors
    /// PostgreSQL's syntax error at what is left.
    pub(super) fn end<T>(&self, value: T) -> Result<T, RouteError> {
        if self.is_done() { Ok(value) } else { Err(self.syntax_error()) }
    }
}

/// The name that an identifier token stands for; `None` for any other token and for one that is malformed.
pub(super) fn identifier(token: &Token, text: &[u8]) -> Option<String> {
    let bytes = token.bytes(text);
    let name = match token.kind {
        TokenKind::Word => folded(bytes),
        TokenKind::Quoted => {
            characters(bytes.strip_prefix(b"\"")?.strip_suffix(b"\"")?).replace("\"\"", "\"")
        }
        TokenKind::UnicodeQuoted => unicode(bytes.get(3..)?.strip_suffix(b"\"")?, b'"')?,
        TokenKind::Param
        | TokenKind::Literal(_)
        | TokenKind::Operator
        | TokenKind::Symbol(_)
        | TokenKind::Comment
        | TokenKind::Unterminated(_) => return None,
    };
    Some(cut(name))
}

fn folded(word: &[u8]) -> String {
    characters(&word.to_ascii_lowercase())
}

/// Text of any encoding as characters; what is not UTF-8 is read byte by byte, so that different names stay different.
fn characters(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect(),
    }
}

fn cut(mut name: String) -> String {
    if name.len() > NAME_BYTES {
        let end = (0..=NAME_BYTES).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        name.truncate(end);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_unquoted_and_cut() {
        let long = "Ä".repeat(40);
        for (sql, want) in [
            ("Users", Some("users".to_owned())),
            ("\"Us\"\"ers\"", Some("Us\"ers".to_owned())),
            ("U&\"\\0061b\"", Some("ab".to_owned())),
            ("U&\"!0061b\" UESCAPE '!'", None),
            ("'a'", None),
            (&format!("\"{long}\""), Some("Ä".repeat(31))),
        ] {
            assert_eq!(Words::new(sql.as_bytes(), false).name(), want, "{sql}");
        }
        assert_ne!(Words::new(b"\"\xe9\"", false).name(), Words::new(b"\"\xe8\"", false).name());
    }

    #[test]
    fn words_are_taken_all_or_none_past_comments() {
        let mut words = Words::new(b"READ /* x */ -- y\n Only, -5 U&'x' UESCAPE '!'", false);
        assert!(!words.eat_all(&["read", "write"]));
        assert!(words.eat_all(&["read", "only"]));
        assert!(words.eat_symbol(b','));
        assert_eq!(words.number().as_deref(), Some("-5"));
        assert_eq!(words.string(&Env::default()), None);
        assert!(words.syntax_error().to_string().ends_with("\"U&'x'\""));
    }
}
