//! Splits a text into statements and gives each its normal form: what is left when literals, comments, blanks and
//! the case of words are taken away. Equal forms differ in nothing but the values of literals.
//! Must not know plans, caches, or what any statement means.

use std::ops::Range;

use smallvec::SmallVec;

use super::forms::Forms;
use super::lex::{Lexer, LiteralAt, LiteralKind, Token, TokenKind};

/// The literals of one statement.
pub(super) type Literals = SmallVec<[LiteralAt; 4]>;

/// A statement of more bytes is not parsed: the parser's trees would outgrow the stack (CRATES.md, 4.4).
pub(super) const PARSE_LIMIT: usize = 1 << 20;

/// One statement of a text.
#[derive(Debug)]
pub(super) struct Piece {
    /// Its bytes, from its first token (a comment counts) to its last (a comment does not), no semicolon.
    pub(super) span: Range<usize>,
    /// Its literals, relative to the span.
    pub(super) literals: Literals,
    /// Its normal form in [`Pieces::forms`].
    pub(super) form: Range<usize>,
    /// `/* pgherd: … */` comments before or right after its first word, in the text.
    pub(super) hints: Vec<Range<usize>>,
}

/// The statements of a text, those that hold nothing left out.
#[derive(Debug)]
pub(super) struct Pieces {
    /// In order.
    pub(super) statements: SmallVec<[Piece; 1]>,
    /// The normal forms, one after the other; empty if none were wanted.
    pub(super) forms: Vec<u8>,
    /// What is never closed, as PostgreSQL's message has it: the text is no SQL, and no server would run any of it.
    pub(super) unterminated: Option<&'static str>,
}

/// Splits a text at its top-level semicolons: those outside of parentheses and of `BEGIN ATOMIC … END` bodies.
pub(super) fn split(text: &[u8], nonstandard: bool, want_forms: bool) -> Pieces {
    let mut splitter = Splitter {
        text,
        forms: want_forms.then(|| Forms::new(text)),
        statements: SmallVec::new(),
        open: Open::default(),
    };
    let mut lexer = Lexer::new(text, nonstandard);
    loop {
        // Most of a text is words: those are read and folded in one go.
        if let Some(forms) = &mut splitter.forms
            && let Some(rest) = lexer.before_word()
        {
            let token = lexer.take_word(forms.word(rest));
            splitter.open.count(token.start, token.end);
            if splitter.open.is_wary() {
                splitter.word(&token);
            }
            continue;
        }
        let token = lexer.advance();
        if token.start == token.end {
            break;
        }
        match token.kind {
            TokenKind::Comment => splitter.comment(&token),
            TokenKind::Unterminated(what) => {
                return Pieces { unterminated: Some(what.name()), ..splitter.finish() };
            }
            TokenKind::Symbol(b';') if splitter.open.is_top_level() => splitter.close(),
            TokenKind::Word
            | TokenKind::Quoted
            | TokenKind::UnicodeQuoted
            | TokenKind::Param
            | TokenKind::Literal(_)
            | TokenKind::Operator
            | TokenKind::Symbol(_) => {
                splitter.take(&token);
                splitter.write(&token);
            }
        }
    }
    splitter.close();
    splitter.finish()
}

/// The statement being read.
#[derive(Debug, Default)]
struct Open {
    start: Option<usize>,
    end: usize,
    tokens: usize,
    form: usize,
    literals: Literals,
    hints: Vec<Range<usize>>,
    parens: usize,
    /// It begins with CREATE, so it may have a body of statements.
    creates: bool,
    /// BEGIN ATOMIC and CASE that have not met their END.
    blocks: usize,
    after_begin: bool,
    after_unicode: bool,
}

impl Open {
    /// Counts a token; where its statement begins.
    fn count(&mut self, start: usize, end: usize) -> usize {
        self.tokens += 1;
        self.end = end;
        *self.start.get_or_insert(start)
    }

    /// Whether the word just counted may mean something to the splitter.
    fn is_wary(&self) -> bool {
        self.tokens == 1 || self.creates || self.after_unicode
    }

    fn is_top_level(&self) -> bool {
        self.parens == 0 && self.blocks == 0
    }
}

struct Splitter<'t> {
    text: &'t [u8],
    forms: Option<Forms>,
    statements: SmallVec<[Piece; 1]>,
    open: Open,
}

impl Splitter<'_> {
    fn comment(&mut self, token: &Token) {
        self.open.start.get_or_insert(token.start);
        if self.open.tokens <= 1 && is_hint(token.bytes(self.text)) {
            self.open.hints.push(token.start..token.end);
        }
    }

    fn take(&mut self, token: &Token) {
        let start = self.open.count(token.start, token.end);
        match token.kind {
            // A longer statement is not parsed, so nobody asks for its literals.
            TokenKind::Literal(kind) if token.end - start <= PARSE_LIMIT => {
                let span = (token.start - start) as u32..(token.end - start) as u32;
                self.open.literals.push(LiteralAt { span, kind });
            }
            TokenKind::Symbol(b'(') => self.open.parens += 1,
            TokenKind::Symbol(b')') => self.open.parens = self.open.parens.saturating_sub(1),
            TokenKind::Word => return self.word(token),
            TokenKind::Quoted
            | TokenKind::UnicodeQuoted
            | TokenKind::Param
            | TokenKind::Literal(_)
            | TokenKind::Operator
            | TokenKind::Symbol(_)
            | TokenKind::Comment
            | TokenKind::Unterminated(_) => {}
        }
        self.open.after_unicode = token.kind == TokenKind::Literal(LiteralKind::Unicode);
    }

    fn write(&mut self, token: &Token) {
        if let Some(forms) = &mut self.forms {
            forms.add(token, self.text);
        }
    }

    fn word(&mut self, token: &Token) {
        if self.open.after_unicode
            && token.is_word(self.text, "uescape")
            && let Some(last) = self.open.literals.last_mut()
        {
            last.kind = LiteralKind::Odd;
        }
        self.open.after_unicode = false;
        if self.open.tokens == 1 {
            self.open.creates = token.is_word(self.text, "create");
        } else if self.open.creates {
            let is = |word| token.is_word(self.text, word);
            if is("atomic") && self.open.after_begin || is("case") && self.open.blocks > 0 {
                self.open.blocks += 1;
            } else if is("end") {
                self.open.blocks = self.open.blocks.saturating_sub(1);
            }
            self.open.after_begin = is("begin");
        }
    }

    fn close(&mut self) {
        let form = self.forms.as_ref().map_or(0, |forms| forms.len());
        let open = std::mem::take(&mut self.open);
        self.open.form = form;
        if let (Some(start), 1..) = (open.start, open.tokens) {
            let span = start..open.end;
            let (literals, hints) = (open.literals, open.hints);
            self.statements.push(Piece { span, literals, form: open.form..form, hints });
        }
    }
}

impl Splitter<'_> {
    fn finish(self) -> Pieces {
        let forms = self.forms.map(Forms::into_bytes).unwrap_or_default();
        Pieces { statements: self.statements, forms, unterminated: None }
    }
}

/// Whether a comment speaks to pgherd: `/* pgherd: …`.
fn is_hint(comment: &[u8]) -> bool {
    comment.strip_prefix(b"/*").is_some_and(|inside| inside.trim_ascii_start().starts_with(b"pgherd:"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn statements(text: &str) -> Vec<&str> {
        split(text.as_bytes(), false, false).statements.into_iter().map(|p| &text[p.span]).collect()
    }

    fn form(text: &str) -> Vec<u8> {
        let pieces = split(text.as_bytes(), false, true);
        assert_eq!(pieces.statements.len(), 1, "{text}");
        pieces.forms[pieces.statements[0].form.clone()].to_vec()
    }

    #[test]
    fn texts_are_split_at_the_semicolons_that_end_statements() {
        for (text, want) in [
            ("select 1", vec!["select 1"]),
            (" select 1 ; ", vec!["select 1"]),
            ("", vec![]),
            (" ; /* nothing */ ;; -- nothing", vec![]),
            ("a; b ;c", vec!["a", "b", "c"]),
            ("/* x */ a /* y */; b", vec!["/* x */ a", "b"]),
            ("select ';' ; b", vec!["select ';'", "b"]),
            (
                "create rule r as on insert to t do (a; b); c",
                vec!["create rule r as on insert to t do (a; b)", "c"],
            ),
            ("a) ; b", vec!["a)", "b"]),
            (
                "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC select case when true then 1 end; select 2; END; b",
                vec![
                    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC select case when true then 1 end; select 2; END",
                    "b",
                ],
            ),
            ("create table atomic (x int); end; b", vec!["create table atomic (x int)", "end", "b"]),
            ("begin; atomic; b", vec!["begin", "atomic", "b"]),
            ("do $$ begin; end $$; b", vec!["do $$ begin; end $$", "b"]),
            ("copy t from stdin; delete from x", vec!["copy t from stdin", "delete from x"]),
        ] {
            assert_eq!(statements(text), want, "{text}");
        }
        assert_eq!(split(b"select 1; select 'a", false, false).unterminated, Some("quoted string"));
    }

    #[test]
    fn forms_forget_the_values_of_literals_and_nothing_that_routes() {
        let base = "select * from T where a = 'x' and b in (1, 2) -- c";
        for same in [
            "SELECT  *\nFROM t WHERE a='it''s' AND b IN(30,/* */40)",
            "select * from t where a = 'y' and b in (1,2)",
            "/* pgherd: shard=s1 */ select * from t where a = 'y' and b in (1,2)",
        ] {
            assert_eq!(form(base), form(same), "{same}");
        }
        for other in [
            "select * from \"T\" where a = 'x' and b in (1, 2)",
            "select * from t where a = E'x' and b in (1, 2)",
            "select * from t where a = $$x$$ and b in (1, 2)",
            "select * from t where a = U&'x' and b in (1, 2)",
            "select * from t where a = 'x' and b in (1, -2)",
            "select * from t where a = 'x' and b in (1, 2, 3)",
            "select * from t where a = 'x' and b in (1, 2.0)",
            "select * from t where a = $1 and b in (1, 2)",
            "select * from t where a = X'1f' and b in (1, 2)",
            "select * from t where a = \u{3} and b in (1, 2)",
            "select * from t where a < = 'x' and b in (1, 2)",
        ] {
            assert_ne!(form(base), form(other), "{other}");
        }
        assert_ne!(form("select a b"), form("select ab"));
        assert_ne!(form("select $1"), form("select $2"));
        assert_ne!(form("select \u{1}"), form("select 7"));
    }

    #[test]
    fn literals_are_counted_in_order_and_relative_to_their_statement() {
        let text = "a; /* c */ select 'x', 12, U&'y' UESCAPE '!'";
        let pieces = split(text.as_bytes(), false, true);
        let piece = &pieces.statements[1];
        let found: Vec<_> = piece
            .literals
            .iter()
            .map(|l| (&text[piece.span.clone()][l.span.start as usize..l.span.end as usize], l.kind))
            .collect();
        assert_eq!(
            found,
            [
                ("'x'", LiteralKind::String),
                ("12", LiteralKind::Integer),
                ("U&'y'", LiteralKind::Odd),
                ("'!'", LiteralKind::String)
            ]
        );
    }

    #[test]
    fn hints_stand_before_or_right_after_the_first_word() {
        for (text, want) in [
            ("/* pgherd: shard=a */ select 1", 1),
            ("select /*pgherd:shard=a*/ 1", 1),
            ("/* pgherd: shard=a */ /* x */ select /* pgherd: role=primary */ 1", 2),
            ("select 1 /* pgherd: shard=a */", 0),
            ("-- pgherd: shard=a\nselect 1", 0),
            ("select '/* pgherd: shard=a */'", 0),
        ] {
            assert_eq!(split(text.as_bytes(), false, false).statements[0].hints.len(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_form_does_not_depend_on_the_values_of_its_literals(a in "[^']{0,12}", b in "[^']{0,12}", m: u64, n: u64) {
            let text = |s: &str, n: u64| format!("select * from t where a = '{s}' and b = {n}");
            prop_assert_eq!(form(&text(&a, m)), form(&text(&b, n)));
        }

        #[test]
        fn any_bytes_are_split_into_pieces_that_lie_in_order(text in prop::collection::vec(any::<u8>(), 0..80)) {
            let pieces = split(&text, false, true);
            let mut at = 0;
            for piece in &pieces.statements {
                prop_assert!(piece.span.start >= at && piece.span.end <= text.len() && !piece.span.is_empty());
                at = piece.span.end;
            }
        }
    }
}
