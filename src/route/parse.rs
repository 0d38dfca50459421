//! The call of the parser, and the guards round it: what it reads must be what PostgreSQL would read.
//! Must not know what any tree means. Source: CRATES, 4.3 and 4.4.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sqlparser::ast;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token as Theirs, TokenWithSpan, Tokenizer};

use super::Env;
use super::fingerprint::PARSE_LIMIT;
use super::lex::{Lexer, LiteralKind, Token, TokenKind};
use super::literal::Lines;

/// Nesting that the parser goes down to; on a stack of 64 MiB (CRATES, 4.4).
const DEPTH: usize = 200;

/// SELECTs and JOINs of one statement: each takes the parser kilobytes, and analysis compares them with each other.
const MOST_BLOCKS: usize = 500;

/// Dimensions of an array type, one level of a tree each; PostgreSQL allows six.
const MOST_DIMENSIONS: usize = 16;

/// A statement's tree and the text it was read from, byte for byte as long as the client's.
#[derive(Debug)]
pub(super) struct Parsed {
    /// The tree.
    pub(super) tree: ast::Statement,
    /// The client's text with blanks for what has no say in routing; places in the tree are places in it.
    pub(super) text: String,
}

/// Parses the part of `statement` that `query` spans; a blank takes the place of every byte outside.
///
/// # Errors
/// The parser's message, or ours for what it would misread: such a statement is not understood.
pub(super) fn parse(statement: &[u8], query: &Range<usize>, env: &Env) -> Result<Parsed, String> {
    let nonstandard = env.nonstandard_strings;
    if statement.len() > PARSE_LIMIT {
        return Err(format!("it is longer than {PARSE_LIMIT} bytes"));
    }
    let mut tokens: Vec<Token> = Lexer::new(statement, nonstandard)
        .filter(|t| t.kind != TokenKind::Comment && query.start <= t.start && t.end <= query.end)
        .collect();
    if tokens.iter().any(|t| t.kind == TokenKind::Literal(LiteralKind::Odd) && nonstandard) {
        return Err("it has backslashes in strings while standard_conforming_strings is off".to_owned());
    }
    check_size(&tokens, statement)?;
    leave_out(&mut tokens, statement);
    let ascii_names = env.foreign_encoding || std::str::from_utf8(statement).is_err();
    let text = blanked(&tokens, statement, ascii_names).ok_or("it has names that are not UTF-8")?;
    let run = || {
        let theirs = tokenized(&text)?;
        agree(&tokens, &theirs, &text)?;
        one(Parser::new(&PostgreSqlDialect {}).with_recursion_limit(DEPTH).with_tokens_with_locations(theirs))
    };
    let tree = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("the parser failed".to_owned()))?;
    Ok(Parsed { tree, text })
}

/// Bounds what a text that fits into the limit of bytes can still cost.
fn check_size(tokens: &[Token], text: &[u8]) -> Result<(), String> {
    let is_block = |t: &&Token| t.is_word(text, "select") || t.is_word(text, "join");
    if tokens.iter().filter(is_block).count() > MOST_BLOCKS {
        return Err(format!("it has more than {MOST_BLOCKS} SELECTs and JOINs"));
    }
    let is_bracket = |t: &Token| t.is_symbol(b'[') || t.is_symbol(b']');
    let longest = tokens.chunk_by(|a, b| is_bracket(a) && is_bracket(b)).map(<[Token]>::len).max();
    if longest > Some(2 * MOST_DIMENSIONS) {
        return Err(format!("it has an array type of more than {MOST_DIMENSIONS} dimensions"));
    }
    Ok(())
}

fn one(mut parser: Parser<'_>) -> Result<ast::Statement, String> {
    let mut trees = parser.parse_statements().map_err(|error| message(&error.to_string()))?;
    match (trees.pop(), trees.is_empty()) {
        (Some(tree), true) => Ok(tree),
        _ => Err("it does not parse as one statement".to_owned()),
    }
}

fn tokenized(text: &str) -> Result<Vec<TokenWithSpan>, String> {
    let dialect = PostgreSqlDialect {};
    Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|error| message(&error.to_string()))
}

/// The parser's message without its prefix.
fn message(error: &str) -> String {
    error.strip_prefix("sql parser error: ").unwrap_or(error).to_owned()
}

/// Takes out words that the parser misreads or does not know, and that change nothing about where rows are:
/// ONLY of `FROM ONLY t` (read as a table of that name), NO KEY and KEY of row locks, OVERRIDING SYSTEM VALUE.
fn leave_out(tokens: &mut Vec<Token>, text: &[u8]) {
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|t| t.is_word(text, word));
    let are = |at: usize, words: &[&str]| words.iter().enumerate().all(|(i, word)| is(at + i, word));
    let mut out = vec![false; tokens.len()];
    for at in 0..tokens.len() {
        let before = |word| at > 0 && is(at - 1, word);
        let gone = if is(at, "only") && !before("row") && !before("rows") && !before("read") {
            1
        } else if before("for") && are(at, &["no", "key", "update"]) {
            2
        } else if before("for") && are(at, &["key", "share"]) {
            1
        } else if are(at, &["overriding", "system", "value"]) {
            3
        } else {
            0
        };
        out.iter_mut().skip(at).take(gone).for_each(|gone| *gone = true);
    }
    let mut gone = out.into_iter();
    tokens.retain(|_| !gone.next().unwrap_or(false));
}

/// The tokens where they stand, blanks elsewhere. In a text that is not UTF-8 (`ascii_names`), `?` stands for the
/// bytes of literals that are not ASCII; `None` if a name has such bytes.
fn blanked(tokens: &[Token], statement: &[u8], ascii_names: bool) -> Option<String> {
    let mut text = vec![b' '; statement.len()];
    for token in tokens {
        let bytes = token.bytes(statement);
        let place = text.get_mut(token.start..token.end)?;
        place.copy_from_slice(bytes);
        if ascii_names {
            if matches!(token.kind, TokenKind::Literal(_)) {
                place.iter_mut().filter(|b| !b.is_ascii()).for_each(|b| *b = b'?');
            } else if !bytes.is_ascii() {
                return None;
            }
        }
    }
    String::from_utf8(text).ok()
}

/// Both tokenizers must see words, constants and parameters at the same places; else the parser reads another
/// statement than PostgreSQL.
fn agree(ours: &[Token], theirs: &[TokenWithSpan], text: &str) -> Result<(), String> {
    let lines = Lines::new(text);
    let mut ours = ours.iter().filter_map(|t| Some((t.start, Sort::of_ours(t.kind)?)));
    for token in theirs {
        let Some(sort) = Sort::of_theirs(&token.token) else { continue };
        let start = token.span.start;
        let theirs = lines.offset_of(start.line, start.column).map(|at| (at, sort));
        if theirs.is_none() || ours.next() != theirs {
            return Err(format!("it is not understood near \"{}\"", token.token));
        }
    }
    ours.next().map_or(Ok(()), |_| Err("it is not understood to its end".to_owned()))
}

/// Tokens as coarse as both tokenizers see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Word,
    Quoted,
    Number,
    String(LiteralKind),
    Param,
}

impl Sort {
    fn of_ours(kind: TokenKind) -> Option<Self> {
        Some(match kind {
            TokenKind::Word => Self::Word,
            TokenKind::Quoted | TokenKind::UnicodeQuoted => Self::Quoted,
            TokenKind::Param => Self::Param,
            TokenKind::Literal(LiteralKind::Integer | LiteralKind::Number) => Self::Number,
            // The parser sees the first line of a string that goes on, which then is at the wrong place for it.
            TokenKind::Literal(LiteralKind::Odd) => Self::String(LiteralKind::String),
            TokenKind::Literal(kind) => Self::String(kind),
            TokenKind::Operator | TokenKind::Symbol(_) | TokenKind::Comment | TokenKind::Unterminated(_) => {
                return None;
            }
        })
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "their tokens are many; all others are punctuation")]
    fn of_theirs(token: &Theirs) -> Option<Self> {
        Some(match token {
            Theirs::Word(word) if word.quote_style.is_some() => Self::Quoted,
            Theirs::Word(_) => Self::Word,
            Theirs::Number(..) => Self::Number,
            Theirs::Placeholder(_) => Self::Param,
            Theirs::SingleQuotedString(_) => Self::String(LiteralKind::String),
            Theirs::EscapedStringLiteral(_) => Self::String(LiteralKind::Escape),
            Theirs::UnicodeStringLiteral(_) => Self::String(LiteralKind::Unicode),
            Theirs::DollarQuotedString(_) => Self::String(LiteralKind::Dollar),
            Theirs::NationalStringLiteral(_) => Self::String(LiteralKind::National),
            Theirs::HexStringLiteral(_) => Self::String(LiteralKind::HexBits),
            Theirs::SingleQuotedByteStringLiteral(_) => Self::String(LiteralKind::Bits),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(sql: &str) -> Result<String, String> {
        parse(sql.as_bytes(), &(0..sql.len()), &Env::default()).map(|p| p.tree.to_string())
    }

    #[test]
    fn what_the_parser_would_misread_is_left_out_or_not_understood() {
        for (sql, want) in [
            ("select * from only t where a = 1", Ok("SELECT * FROM t WHERE a = 1")),
            ("update only t set a = 1", Ok("UPDATE t SET a = 1")),
            ("delete from only t", Ok("DELETE FROM t")),
            ("select 1 from t fetch first 2 rows only", Ok("SELECT 1 FROM t FETCH FIRST 2 ROWS ONLY")),
            ("select 1 from t for no key update", Ok("SELECT 1 FROM t FOR UPDATE")),
            ("select 1 from t for key share of t", Ok("SELECT 1 FROM t FOR SHARE OF t")),
            ("insert into t (a) overriding system value values (1)", Ok("INSERT INTO t (a) VALUES (1)")),
            ("select /* a /* b */ c */ 1 -- d\r, 2", Ok("SELECT 1, 2")),
            (
                "select 'é', $1, \"Ü\", E'\\n', $a$b$a$ from t",
                Ok("SELECT 'é', $1, \"Ü\", E'\\n', $a$b$a$ FROM t"),
            ),
            ("select 1; select 2", Err(())),
            ("select 'a'\n'b'", Err(())),
            ("select U&'a' UESCAPE '!'", Err(())),
            ("select \"a", Err(())),
            ("select 0x1f", Err(())),
            ("table t", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(tree(sql).map_err(|_| ()), want.map(str::to_owned), "{sql}");
        }
    }

    #[test]
    fn a_query_within_a_statement_keeps_its_places() {
        let sql = b"explain select a from t";
        let parsed = parse(sql, &(8..sql.len()), &Env::default()).unwrap();
        assert_eq!(parsed.text, "        select a from t");
        assert_eq!(parsed.tree.to_string(), "SELECT a FROM t");
    }

    #[test]
    fn literals_need_not_be_utf8_but_names_must() {
        let all = |sql: &[u8], env| parse(sql, &(0..sql.len()), env).map(|p| p.text);
        let (same, foreign) = (&Env::default(), &Env { foreign_encoding: true, ..Env::default() });
        assert_eq!(all(b"select 'Jos\xe9'", same).unwrap(), "select 'Jos?'");
        assert_eq!(all("select 'é'".as_bytes(), foreign).unwrap(), "select '??'");
        assert!(all("select é".as_bytes(), foreign).is_err());
        assert!(all("select é".as_bytes(), same).is_ok());
        assert!(all(b"select Jos\xe9", same).is_err());
    }

    #[test]
    fn backslashes_are_not_understood_while_strings_are_nonstandard() {
        let sql = br"select 'a\\b'";
        let env = Env { nonstandard_strings: true, ..Env::default() };
        assert!(parse(sql, &(0..sql.len()), &env).is_err());
        assert!(parse(b"select 'a'", &(0..10), &env).is_ok());
    }

    #[test]
    fn texts_that_cost_more_than_their_length_are_not_parsed() {
        for (sql, want) in [
            (format!("select 1{}", " union select 1".repeat(499)), Ok(())),
            (
                format!("select 1{}", " union select 1".repeat(500)),
                Err("it has more than 500 SELECTs and JOINs"),
            ),
            (format!("select a::int{}", "[]".repeat(16)), Ok(())),
            (
                format!("select a::int{}", "[]".repeat(17)),
                Err("it has an array type of more than 16 dimensions"),
            ),
            (format!("select '{}'", "x".repeat(1 << 20)), Err("it is longer than 1048576 bytes")),
        ] {
            let got = parse(sql.as_bytes(), &(0..sql.len()), &Env::default()).map(|_| ());
            assert_eq!(got, want.map_err(str::to_owned), "{:.60}", sql);
        }
    }

    /// The overflow would end the process, so this fails by killing the test run.
    #[test]
    fn deep_texts_end_in_a_tree_or_an_error_on_a_stack_of_64_mib() {
        let texts = [
            format!("select 1{}", " union values (1)".repeat(20_000)),
            format!("select 1{}", "+1".repeat(100_000)),
            format!("select 1 where a{}", " or a".repeat(100_000)),
            format!("select {}1{}", "(".repeat(100_000), ")".repeat(100_000)),
            format!("select {}1", "not ".repeat(100_000)),
            format!("select {}1", "- ".repeat(100_000)),
            format!("select a{}", "[1]".repeat(100_000)),
            format!("select a::int{}", "[]".repeat(32_700)),
            format!("select a{}", "::int".repeat(100_000)),
            format!("select {}1{}", "case when true then ".repeat(10_000), " end".repeat(10_000)),
        ];
        let parsed = std::thread::Builder::new().stack_size(64 << 20).spawn(move || {
            texts
                .iter()
                .map(|sql| parse(sql.as_bytes(), &(0..sql.len()), &Env::default()).is_ok())
                .collect::<Vec<_>>()
        });
        let parsed = parsed.unwrap().join().unwrap();
        assert!(parsed[0] && parsed[1] && parsed[2], "chains are long, not deep: {parsed:?}");
    }
}
