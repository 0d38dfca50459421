//! The short way to a statement that was seen with other literals: its text laid over one that is known.
//! Must not know plans. Where the bytes between the literals are the same, so are the tokens; only literals are lexed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::bytes::{Class, class, is_word_byte};
use super::cache::{Cache, flags};
use super::fingerprint::Literals;
use super::lex::{Lexer, LiteralAt, TokenKind};
use super::work::Work;
use super::{Env, Statement};

/// A text that differs from the one known under its beginning takes that place once in so many times: texts that
/// alternate would else be copied each time.
const REPLACE: u32 = 16;

/// What a client asked last is forgotten when so many texts in a row were not like it.
const FORGET: u8 = 4;
/// Longer texts are not remembered for a client, bytes: each has a memory of its own.
const MEMORABLE: usize = 4 << 10;

/// Texts of one statement by what stands before their first literal.
#[derive(Debug)]
pub(super) struct Templates {
    /// No two are alike.
    id: u64,
    known: Cache<Arc<Template>>,
    misses: AtomicU32,
}

/// What one client asked last: most often it asks the like again, and then nothing has to be looked up. Of use with any
/// router and any settings, for it knows for which it holds.
#[derive(Debug, Default)]
pub struct Recall {
    last: Option<Arc<Template>>,
    misses: u8,
}

#[derive(Debug)]
struct Template {
    /// Whose it is, and the settings it holds under.
    owner: u64,
    flags: u8,
    search_path: Option<Vec<String>>,
    text: Box<[u8]>,
    start: usize,
    /// Bytes after the statement: a semicolon, blanks, comments.
    after: usize,
    /// Relative to `start`.
    literals: Literals,
    work: Arc<Work>,
}

impl Templates {
    pub(super) fn new(entries: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Relaxed);
        Self { id, known: Cache::new(entries), misses: AtomicU32::new(0) }
    }

    /// The statement that a text is, if one is known that differs in the values of literals only.
    pub(super) fn get(&self, text: &[u8], env: &Env, recall: &mut Recall) -> Option<Statement> {
        if env.foreign_encoding {
            return None; // whether such a text can be lexed at all depends on its literals
        }
        let last = recall.last.as_ref().filter(|last| last.is_of(self.id, env));
        if let Some(again) = last.and_then(|last| last.lay_over(text, env.nonstandard_strings)) {
            recall.misses = 0;
            return Some(again);
        }
        let known = self.known.get(head(text), env)?;
        let statement = known.lay_over(text, env.nonstandard_strings)?;
        recall.missed(known);
        Some(statement)
    }

    /// Keeps a text that is one statement, worked out for any values of its literals.
    pub(super) fn insert(&self, text: &[u8], env: &Env, statement: &Statement) {
        let head = head(text);
        if env.foreign_encoding
            || statement.hint.is_some()
            || (self.known.get(head, env).is_some()
                && !self.misses.fetch_add(1, Relaxed).is_multiple_of(REPLACE))
        {
            return;
        }
        let template = Template {
            owner: self.id,
            flags: flags(env),
            search_path: env.search_path.clone(),
            text: text.into(),
            start: statement.span.start,
            after: text.len() - statement.span.end,
            literals: statement.literals.clone(),
            work: Arc::clone(&statement.work),
        };
        self.known.insert(head, env, Arc::new(template));
    }
}

impl Recall {
    fn missed(&mut self, known: Arc<Template>) {
        self.misses += 1;
        if (self.last.is_none() || self.misses >= FORGET) && known.text.len() <= MEMORABLE {
            (self.last, self.misses) = (Some(known), 0);
        } else {
            self.misses = self.misses.min(FORGET);
        }
    }
}

impl Template {
    fn is_of(&self, owner: u64, env: &Env) -> bool {
        self.owner == owner && self.flags == flags(env) && self.search_path == env.search_path
    }

    fn lay_over(&self, text: &[u8], nonstandard: bool) -> Option<Statement> {
        let (mut known, mut at) = (0, 0);
        let mut literals = Literals::new();
        for literal in &self.literals {
            let begins = self.start + literal.span.start as usize;
            let between = self.text.get(known..begins)?;
            if text.get(at..at + between.len())? != between {
                return None;
            }
            at += between.len();
            // A literal that begins otherwise (`.5` for `5`) might be one with what stands before it.
            if class(*text.get(at)?) != class(*self.text.get(begins)?) {
                return None;
            }
            let token = Lexer::at(text, at, nonstandard).advance();
            if token.start != at || token.kind != TokenKind::Literal(literal.kind) {
                return None;
            }
            let span = (at - self.start) as u32..(token.end - self.start) as u32;
            literals.push(LiteralAt { span, kind: literal.kind });
            (known, at) = (self.start + literal.span.end as usize, token.end);
        }
        if text.get(at..)? != self.text.get(known..)? {
            return None;
        }
        let span = self.start..text.len() - self.after;
        Some(Statement { span, work: Arc::clone(&self.work), literals, hint: None, fresh: false })
    }
}

/// What stands before the first byte that may begin a literal with a value; all of it if there is none.
fn head(text: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(first_candidate) {
        at += found;
        let before = at.checked_sub(1).and_then(|i| text.get(i)).copied().unwrap_or_default();
        let begins = match text.get(at).map(|byte| class(*byte)) {
            // A dollar begins a parameter's number, or with the byte after it a quote: `$$`, `$tag$`.
            Some(Class::Dollar) => match text.get(at + 1) {
                Some(next) if class(*next) != Class::Digit => return text.get(..=at).unwrap_or_default(),
                _ => false,
            },
            Some(Class::Digit) => !is_word_byte(before), // else part of a name, or of `$1`
            _ => true,
        };
        if begins {
            return text.get(..at).unwrap_or_default();
        }
        at += 1;
    }
    text
}

/// Where the first byte is that may begin a literal. Sixteen are looked at together, without a branch.
fn first_candidate(text: &[u8]) -> Option<usize> {
    let (chunks, rest) = text.as_chunks::<16>();
    let whole = chunks.iter().position(|chunk| chunk.iter().fold(false, |any, byte| any | may_begin(*byte)));
    let from = whole.map_or(text.len() - rest.len(), |chunk| chunk * 16);
    text.get(from..)?.iter().position(|byte| may_begin(*byte)).map(|at| from + at)
}

/// A quote, a digit or a dollar: the only bytes before which anything is to be found out.
fn may_begin(byte: u8) -> bool {
    (byte == b'\'') | (byte == b'$') | byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::route::fingerprint::split;

    fn whole(text: &str) -> Option<Statement> {
        let mut pieces = split(text.as_bytes(), false, true).statements;
        if pieces.len() != 1 {
            return None;
        }
        let piece = pieces.pop()?;
        let hint = None;
        Some(Statement {
            span: piece.span,
            work: Arc::new(Work::empty()),
            literals: piece.literals,
            hint,
            fresh: true,
        })
    }

    #[test]
    fn the_head_ends_before_the_first_literal() {
        for (text, want) in [
            ("select 'a'", "select "),
            ("select a1, $1, 2", "select a1, $1, "),
            ("select $$a$$", "select $"),
            ("select $t$a$t$", "select $"),
            ("select a$1", "select a$1"),
            ("select $", "select $"),
            ("1", ""),
            ("", ""),
        ] {
            assert_eq!(head(text.as_bytes()), want.as_bytes(), "{text}");
        }
    }

    /// What a text is found to be after `known` was kept.
    fn found(known: &str, text: &str) -> Option<Statement> {
        let (templates, env) = (Templates::new(10), Env::default());
        templates.insert(known.as_bytes(), &env, &whole(known)?);
        let mut recall = Recall::default();
        let got = templates.get(text.as_bytes(), &env, &mut recall);
        assert_eq!(got.is_some(), recall.last.is_some());
        let again = templates.get(text.as_bytes(), &env, &mut recall);
        let what = |s: &Option<Statement>| s.as_ref().map(|s| (s.span.clone(), s.literals.clone()));
        assert_eq!(what(&got), what(&again), "what is remembered is what is looked up");
        got
    }

    #[test]
    fn what_is_remembered_holds_for_its_router_and_settings_only_and_for_what_is_asked_often() {
        let (one, other) = (Templates::new(10), Templates::new(10));
        let plain = Env::default();
        let path = Env { search_path: Some(vec!["a".into()]), ..Env::default() };
        let off = Env { nonstandard_strings: true, ..Env::default() };
        for text in ["select 1", "delete from t where a = 1"] {
            one.insert(text.as_bytes(), &plain, &whole(text).unwrap());
        }
        let mut recall = Recall::default();
        assert!(one.get(b"select 2", &plain, &mut recall).is_some());
        assert!(other.get(b"select 3", &plain, &mut recall).is_none(), "nothing is known to that one");
        for env in [&path, &off] {
            assert!(one.get(b"select 3", env, &mut recall).is_none());
        }
        let is_select = |recall: &Recall| recall.last.as_ref().unwrap().text.starts_with(b"select");
        for n in 1..=FORGET {
            assert!(is_select(&recall));
            assert!(one.get(b"delete from t where a = 2", &plain, &mut recall).is_some(), "{n}");
        }
        assert!(!is_select(&recall));
    }

    #[test]
    fn a_text_with_other_values_is_found_and_its_literals_are_its_own() {
        for (known, text) in [
            (
                "select * from t where a = 'x' and b in (1, 2) ;",
                "select * from t where a = 'it''s' and b in (10, 200) ;",
            ),
            ("select c1 from t1 where a = 1", "select c1 from t1 where a = 123456789"),
            ("/* c 1 */ select E'a', $$b$$, 1.5", "/* c 1 */ select E'\\'', $$$$, 2e10"),
            ("select $1, $2", "select $1, $2"),
            ("select a from t where k = $1 and x = 7 -- c", "select a from t where k = $1 and x = 8 -- c"),
        ] {
            let got = found(known, text).expect(text);
            let want = whole(text).unwrap();
            assert_eq!((got.span, got.literals), (want.span, want.literals), "{text}");
        }
    }

    #[test]
    fn a_text_that_differs_in_more_than_values_is_not_found() {
        for (known, text) in [
            ("select 1", "select 1.5"),
            ("select 1", "select 'a'"),
            ("select 1", "select 1, 2"),
            ("select 1, 2", "select 1"),
            ("select 1", "select 1 from t"),
            ("select 'a'", "select 'a' 'b'"),
            ("select 'a'", "select 'a'\n'b'"),
            ("select 'a'", "select 'a"),
            ("select 'a' from t", "select 'a' from u where x = '"),
            ("select a.5", "select a5.5"),
            ("select U&'a'", "select U&'a' UESCAPE '!'"),
            ("select 1; ", "select 1; select 2; "),
            ("select 0", "select 0x1f"),
        ] {
            assert!(found(known, text).is_none(), "{known} / {text}");
        }
        let nonstandard = Env { nonstandard_strings: true, ..Env::default() };
        let templates = Templates::new(10);
        templates.insert(b"select 'a'", &nonstandard, &whole("select 'a'").unwrap());
        assert!(
            templates.get(br"select 'a\'", &nonstandard, &mut Recall::default()).is_none(),
            "the quote is escaped"
        );
        assert!(templates.get(b"select 'a'", &Env::default(), &mut Recall::default()).is_none());
    }

    #[test]
    fn of_texts_with_one_beginning_that_alternate_one_is_kept() {
        let (templates, env) = (Templates::new(10), Env::default());
        let texts = ["values (1)", "values (1, 2)"];
        for _ in 0..100 {
            for text in texts {
                if templates.get(text.as_bytes(), &env, &mut Recall::default()).is_none() {
                    templates.insert(text.as_bytes(), &env, &whole(text).unwrap());
                }
            }
        }
        assert!(templates.misses.load(Relaxed) < 120);
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_reading_of_the_whole_text_finds(
            known in "(a|b|1|2|'|\\.|\\$|\"|-|E|U&|e|x| |,|\n){1,14}",
            text in "(a|b|1|2|'|\\.|\\$|\"|-|E|U&|e|x| |,|\n){1,14}",
            same in any::<bool>(),
        ) {
            let text = if same { known.replace('1', "22").replace("2", "1") } else { text };
            if split(known.as_bytes(), false, true).unterminated.is_none()
                && let Some(got) = found(&known, &text)
            {
                prop_assert!(split(text.as_bytes(), false, true).unterminated.is_none());
                let want = whole(&text).expect("one statement");
                prop_assert_eq!((got.span, got.literals), (want.span, want.literals));
                let form = |t: &str| split(t.as_bytes(), false, true).forms;
                let trimmed = |f: Vec<u8>| { let end = f.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1); f[..end].to_vec() };
                prop_assert_eq!(trimmed(form(&known)), trimmed(form(&text)));
            }
        }
    }
}
