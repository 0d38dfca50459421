//! A statement as statistics show it: words folded, comments gone, every literal a placeholder, lists of them cut
//! short, so that it says what was asked and never a value. Must not know plans, nor who counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::lex::{Lexer, Token, TokenKind};
use crate::shard::Key;

/// What statements have in common that differ in nothing but values.
#[derive(Debug)]
pub struct Fingerprint {
    hash: u64,
    text: Box<str>,
    mark: AtomicU64,
}

/// The longest text kept, bytes.
const LONGEST: usize = 1024;
/// Stands for what is left out.
const MORE: &str = "…";
/// Words before a parenthesis that are no function's or table's name.
const APART: &[&str] = &[
    "all",
    "and",
    "any",
    "as",
    "between",
    "by",
    "else",
    "except",
    "exists",
    "filter",
    "from",
    "having",
    "in",
    "intersect",
    "into",
    "is",
    "join",
    "like",
    "limit",
    "not",
    "on",
    "or",
    "over",
    "returning",
    "select",
    "set",
    "then",
    "union",
    "using",
    "values",
    "when",
    "where",
    "with",
];

impl Fingerprint {
    /// Of one statement's text. `nonstandard` is `standard_conforming_strings = off`.
    pub(super) fn of(text: &[u8], nonstandard: bool) -> Self {
        let shown = shown(text, nonstandard);
        let hash = Key::Text(shown.clone()).hash_extended(0);
        Self { hash, text: cut(shown), mark: AtomicU64::new(0) }
    }

    /// `hashtextextended(text, 0)` of the whole text, however much of it is kept.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The text without any value, at most a kilobyte of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A place where whoever counts may note where it counts this; 0 at first.
    #[must_use]
    pub fn mark(&self) -> &AtomicU64 {
        &self.mark
    }
}

impl Clone for Fingerprint {
    fn clone(&self) -> Self {
        let mark = AtomicU64::new(self.mark.load(Relaxed));
        Self { hash: self.hash, text: self.text.clone(), mark }
    }
}

fn cut(text: String) -> Box<str> {
    if text.len() <= LONGEST {
        return text.into();
    }
    let end = (0..=LONGEST - MORE.len()).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    [text.get(..end).unwrap_or_default(), MORE].concat().into()
}

fn shown(text: &[u8], nonstandard: bool) -> String {
    let mut writer = Writer { source: text, ..Writer::default() };
    let mut lexer = Lexer::new(text, nonstandard);
    loop {
        let token = lexer.advance();
        if token.start == token.end {
            break;
        }
        writer.token(&token);
        if matches!(token.kind, TokenKind::Unterminated(_)) {
            break;
        }
    }
    writer.out
}

/// How far a list of placeholders has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum List {
    /// The last token was none.
    #[default]
    None,
    /// One placeholder.
    One,
    /// One, and a comma after it.
    OneComma,
    /// Several, shown as one and `…`.
    Many,
    /// Several, and a comma that is not written yet.
    ManyComma,
}

#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about the last token, any mix is possible"
)]
struct Writer<'t> {
    source: &'t [u8],
    out: String,
    list: List,
    /// Whether nothing may stand between the last token and the next.
    glued: bool,
    /// The last token was a name or a word that may be a function's.
    callable: bool,
    /// Open parentheses: where each stands, and the last group that was closed inside it.
    open: Vec<(usize, Group)>,
    /// The last group closed outside of all parentheses.
    top: Group,
    words: usize,
    /// A SET: what follows its `=` or `TO` is a value, even a bare word.
    set: bool,
    value: bool,
}

/// A group in parentheses that was written: from, to, and whether `…` follows for more of the same.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    start: usize,
    end: usize,
    many: bool,
}

impl Writer<'_> {
    fn token(&mut self, token: &Token) {
        let source = self.source;
        let bytes = token.bytes(source);
        match token.kind {
            TokenKind::Comment => {}
            TokenKind::Literal(_) | TokenKind::Unterminated(_) => self.placeholder("?"),
            TokenKind::Param => self.placeholder(&String::from_utf8_lossy(bytes)),
            TokenKind::Word => self.word(&String::from_utf8_lossy(bytes).to_lowercase()),
            TokenKind::Quoted | TokenKind::UnicodeQuoted if self.value => self.placeholder("?"),
            TokenKind::Quoted | TokenKind::UnicodeQuoted => {
                self.words += 1;
                self.put(&String::from_utf8_lossy(bytes));
                self.callable = true;
            }
            TokenKind::Operator => {
                let operator = String::from_utf8_lossy(bytes);
                self.value |= self.set && operator == "=";
                if operator == "::" {
                    self.glued = true;
                    self.put("::");
                    self.glued = true;
                } else {
                    self.put(&operator);
                }
            }
            TokenKind::Symbol(b',') => self.comma(),
            TokenKind::Symbol(b'(') => self.opened(),
            TokenKind::Symbol(b')') => self.closed(),
            TokenKind::Symbol(symbol) => {
                let glue = matches!(symbol, b'.' | b'[' | b']' | b';');
                self.glued |= glue;
                self.put(char::from(symbol).encode_utf8(&mut [0; 4]));
                self.glued = matches!(symbol, b'.' | b'[');
            }
        }
    }

    fn word(&mut self, word: &str) {
        if self.value {
            return self.placeholder("?");
        }
        self.words += 1;
        self.set |= self.words == 1 && word == "set";
        self.value = self.set && self.words > 1 && word == "to";
        self.put(word);
        self.callable = !APART.contains(&word);
    }

    /// Writes a token, a blank before it if one belongs there.
    fn put(&mut self, token: &str) {
        if self.list == List::ManyComma {
            self.out.push(',');
        }
        self.list = List::None;
        self.callable = false;
        if !std::mem::take(&mut self.glued) && !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(token);
    }

    fn placeholder(&mut self, token: &str) {
        match self.list {
            List::OneComma => {
                self.put(MORE);
                self.list = List::Many;
            }
            List::ManyComma => self.list = List::Many,
            List::None | List::One | List::Many => {
                self.put(token);
                self.list = List::One;
            }
        }
    }

    fn comma(&mut self) {
        match self.list {
            List::One => {
                self.out.push(',');
                self.list = List::OneComma;
            }
            List::Many => self.list = List::ManyComma,
            List::None | List::OneComma | List::ManyComma => {
                self.glued = true;
                self.put(",");
            }
        }
    }

    fn opened(&mut self) {
        self.glued |= self.callable;
        self.put("(");
        self.glued = true;
        self.open.push((self.out.len() - 1, Group::default()));
    }

    /// A group that is the same as the one before it is not written again.
    fn closed(&mut self) {
        self.glued = true;
        self.put(")");
        let Some((start, _)) = self.open.pop() else { return };
        let end = self.out.len();
        let outer = self.open.last_mut().map_or(&mut self.top, |(_, group)| group);
        let between = if outer.many { ", …, ".len() } else { ", ".len() };
        let follows = outer.end > 0 && start == outer.end + between;
        let same = follows && self.out.get(outer.start..outer.end) == self.out.get(start..end);
        match (same, outer.many) {
            (false, _) => *outer = Group { start, end, many: false },
            (true, false) => {
                self.out.truncate(start);
                self.out.push_str(MORE);
                outer.many = true;
            }
            (true, true) => self.out.truncate(start - ", ".len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(sql: &str) -> String {
        Fingerprint::of(sql.as_bytes(), false).text().to_owned()
    }

    #[test]
    fn a_statement_is_shown_without_its_values() {
        for (sql, want) in [
            ("SELECT 1", "select ?"),
            ("select  name FROM Users WHERE user_id='x' -- mine", "select name from users where user_id = ?"),
            (
                "select * from \"Users\" where a = E'x' and b = $$y$$",
                "select * from \"Users\" where a = ? and b = ?",
            ),
            (
                "select count(*), max( a ) from t where b in (1,2,3)",
                "select count(*), max(a) from t where b in (?, …)",
            ),
            ("select 1, 2", "select ?, …"),
            ("select 1, a, 2, 3, b", "select ?, a, ?, …, b"),
            (
                "insert into t (a, b) values (1, 'x'), (2, 'y'),(3,'z')",
                "insert into t(a, b) values (?, …), …",
            ),
            ("insert into t values ($1, $2) returning id", "insert into t values ($1, …) returning id"),
            ("select $1::int + 1.5e3", "select $1::int + ?"),
            ("/* pgherd: key=secret */ select a.b[1] from s.a", "select a.b[?] from s.a"),
            ("set search_path to secret, \"x\"", "set search_path to ?, …"),
            ("SET app.token = s3cret", "set app.token = ?"),
            ("update t set a = b where c = -5", "update t set a = b where c = - ?"),
            ("alter role r password 'pw'", "alter role r password ?"),
            ("select 'never closed", "select ?"),
            ("", ""),
        ] {
            assert_eq!(text(sql), want, "{sql}");
        }
    }

    #[test]
    fn lists_of_any_length_have_one_fingerprint() {
        let hash = |sql: &str| Fingerprint::of(sql.as_bytes(), false).hash();
        let two = hash("select * from t where a in (1, 2)");
        assert_eq!(two, hash("SELECT * FROM t WHERE a IN (7,8,9,10)"));
        assert_ne!(two, hash("select * from t where b in (1, 2)"));
        assert_eq!(
            hash("insert into t values (1, 2), (3, 4)"),
            hash("insert into t values (1, 2), (3, 4), (5, 6), (7, 8)")
        );
    }

    #[test]
    fn long_statements_are_cut_but_still_told_apart() {
        let long = |last: &str| {
            let columns: Vec<String> = (0..500).map(|i| format!("column_{i}")).collect();
            Fingerprint::of(format!("select {}, {last} from t", columns.join(", ")).as_bytes(), false)
        };
        let (a, b) = (long("a"), long("b"));
        assert!(a.text().len() <= LONGEST && a.text().ends_with(MORE));
        assert_eq!(a.text(), b.text());
        assert_ne!(a.hash(), b.hash());
    }

    proptest! {
        #[test]
        fn no_string_or_number_is_ever_shown(secret in "[a-z]{8}", number in 1_000_000u64..) {
            for sql in [
                format!("select * from t where a = '{secret}' and b = {number}"),
                format!("select E'{secret}', U&'{secret}', N'{secret}', $q${secret}$q$, {number}.{number}"),
                format!("select 1 /* {secret} */ -- {number}"),
                format!("set a.b = {secret}"),
                format!("select '{secret}"),
            ] {
                let shown = text(&sql);
                prop_assert!(!shown.contains(&secret) && !shown.contains(&number.to_string()), "{shown}");
            }
        }

        #[test]
        fn any_bytes_are_shown_somehow(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            Fingerprint::of(&bytes, false);
        }
    }
}
