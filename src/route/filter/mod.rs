//! Conditions and orders that come from outside SQL (`where` and `orderBy` of the HTTP API), read by the parser and
//! written anew: columns by the catalog's own names, every literal as a parameter, nothing else let through.
//! Must not know HTTP. Of the text itself no byte reaches a server as SQL.

mod writer;

use std::panic::{AssertUnwindSafe, catch_unwind};

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use writer::Writer;

use crate::catalog::Relation;
use crate::wire::{ClientFacing, SqlState};

/// The longest text, bytes.
const LONGEST: usize = 16 << 10;
/// The most tokens: a chain of operators is a tree as deep as it is long.
const MOST_TOKENS: usize = 600;
/// Nesting that the parser goes down to.
const DEPTH: usize = 50;

/// SQL of the proxy's own making, and the values of its parameters in text format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// The SQL; parameters are numbered from the number that was asked for.
    pub sql: String,
    /// Their values, in order.
    pub params: Vec<String>,
}

/// Why a text is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Something that may not be used.
    #[error("{0} is not allowed here")]
    NotAllowed(String),
    /// A name that is no column.
    #[error("column \"{0}\" does not exist")]
    NoColumn(String),
    /// The parser does not understand it.
    #[error("cannot be read: {0}")]
    Syntax(String),
}

impl ClientFacing for FilterError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NotAllowed(_) | Self::Syntax(_) => SqlState::SYNTAX_ERROR,
            Self::NoColumn(_) => SqlState::UNDEFINED_COLUMN,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotAllowed(_) | Self::Syntax(_) => Some(
                "Allowed are columns, literals, comparisons (= <> < <= > >= IN BETWEEN LIKE ILIKE IS), AND, OR, NOT \
                 and + - * / %."
                    .to_owned(),
            ),
            Self::NoColumn(_) => {
                Some("Names are folded to lower case unless they stand in double quotes.".to_owned())
            }
        }
    }
}

/// Reads a condition on one relation, e.g. `amount >= 10 and status in ('a', 'b')`. Parameters are numbered from
/// `first`.
///
/// # Errors
/// [`FilterError`], naming what is not allowed.
pub fn condition(text: &str, relation: &Relation, first: usize) -> Result<Fragment, FilterError> {
    let expr = parsed(text, |parser| parser.parse_expr())?;
    let mut out = Writer::new(relation, first);
    out.expr(&expr)?;
    Ok(out.finish())
}

/// Reads an order, e.g. `created_at desc nulls last, id`.
///
/// # Errors
/// [`FilterError`], naming what is not allowed.
pub fn order(text: &str, relation: &Relation, first: usize) -> Result<Fragment, FilterError> {
    let items = parsed(text, |parser| parser.parse_comma_separated(Parser::parse_order_by_expr))?;
    let mut out = Writer::new(relation, first);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.put(", ");
        }
        out.order(item)?;
    }
    Ok(out.finish())
}

/// A name in double quotes, whatever it holds.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn not_allowed<T>(what: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError::NotAllowed(what.into()))
}

fn parsed<T>(
    text: &str,
    parse: impl Fn(&mut Parser<'_>) -> Result<T, sqlparser::parser::ParserError>,
) -> Result<T, FilterError> {
    if text.len() > LONGEST {
        return not_allowed(format!("a text of more than {LONGEST} bytes"));
    }
    let syntax = |e: String| FilterError::Syntax(e);
    let dialect = PostgreSqlDialect {};
    let run = || {
        let tokens =
            Tokenizer::new(&dialect, text).tokenize_with_location().map_err(|e| syntax(e.to_string()))?;
        check(&tokens)?;
        let mut parser = Parser::new(&dialect).with_recursion_limit(DEPTH).with_tokens_with_locations(tokens);
        let tree = parse(&mut parser).map_err(|e| syntax(e.to_string()))?;
        let rest = parser.next_token().token;
        if rest == Token::EOF { Ok(tree) } else { not_allowed(format!("\"{rest}\" after the end")) }
    };
    // The parser has panicked on odd input before.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(syntax("the parser failed".to_owned())))
}

/// What no parser needs to see.
#[expect(clippy::wildcard_enum_match_arm, reason = "the parser sees all else")]
fn check(tokens: &[TokenWithSpan]) -> Result<(), FilterError> {
    if tokens.len() > MOST_TOKENS {
        return not_allowed(format!("a text of more than {MOST_TOKENS} words"));
    }
    for token in tokens {
        match &token.token {
            Token::SemiColon => return not_allowed("a semicolon"),
            Token::Whitespace(space) if !space.to_string().trim().is_empty() => {
                return not_allowed("a comment");
            }
            Token::Placeholder(_) => return not_allowed("a parameter"),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Column, RelationKind};
    use proptest::prelude::*;

    fn relation() -> Relation {
        let column = |name: &str| Column {
            name: name.to_owned(),
            type_oid: 25,
            type_name: "text".to_owned(),
            not_null: false,
            default: None,
            is_serial: false,
            is_generated: false,
            collation: None,
        };
        Relation {
            kind: RelationKind::Table,
            columns: ["a", "b", "Odd\"name", "flag"].map(column).to_vec(),
            unique: Vec::new(),
            reads: Vec::new(),
            unlogged: false,
            has_triggers: false,
        }
    }

    #[test]
    fn conditions_are_written_anew_with_their_literals_as_parameters() {
        for (text, sql, params) in [
            ("a = 'x'", "(\"a\" = $3)", &["x"][..]),
            ("A >= 10 and B < 2.5", "((\"a\" >= $3::integer) AND (\"b\" < $4::numeric))", &["10", "2.5"]),
            ("\"Odd\"\"name\" is not null", "(\"Odd\"\"name\" IS NOT NULL)", &[]),
            ("a in ('x', 'it''s')", "(\"a\" IN ($3, $4))", &["x", "it's"]),
            ("not flag or a is distinct from null", "((NOT \"flag\") OR (\"a\" IS DISTINCT FROM NULL))", &[]),
            ("a + 1 * -b = 3", "((\"a\" + ($3::integer * (- \"b\"))) = $4::integer)", &["1", "3"]),
            (
                "a between 1 and 2 and true",
                "((\"a\" BETWEEN $3::integer AND $4::integer) AND TRUE)",
                &["1", "2"],
            ),
            ("a not like '%;--%'", "(\"a\" NOT LIKE $3)", &["%;--%"]),
            ("a = 9999999999", "(\"a\" = $3::bigint)", &["9999999999"]),
            ("a = 99999999999999999999", "(\"a\" = $3::numeric)", &["99999999999999999999"]),
            ("a = 1e3", "(\"a\" = $3::numeric)", &["1e3"]),
            ("(a = b) = true", "((\"a\" = \"b\") = TRUE)", &[]),
        ] {
            let got = condition(text, &relation(), 3).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(
                (got.sql.as_str(), got.params),
                (sql, params.iter().map(ToString::to_string).collect()),
                "{text}"
            );
        }
    }

    #[test]
    fn all_else_is_refused_by_name() {
        for (text, what) in [
            ("pg_sleep(1)", "function pg_sleep is not allowed here"),
            ("a = (select 1)", "a subquery is not allowed here"),
            ("exists (select 1)", "a subquery is not allowed here"),
            ("a in (select 1)", "a subquery is not allowed here"),
            ("a::text = 'x'", "a cast is not allowed here"),
            ("a = 'x'; drop table t", "a semicolon is not allowed here"),
            ("a = 'x' -- y", "a comment is not allowed here"),
            ("a = /* x */ 'x'", "a comment is not allowed here"),
            ("a = $1", "a parameter is not allowed here"),
            ("a = 'x' group by a", "\"group\" after the end is not allowed here"),
            ("t.a = 'x'", "a qualified name is not allowed here"),
            ("nosuch = 1", "column \"nosuch\" does not exist"),
            ("\"A\" = 1", "column \"A\" does not exist"),
            ("a || b = 'x'", "operator || is not allowed here"),
            ("a ~ 'x'", "operator ~ is not allowed here"),
            ("a = E'x'", "a literal of this kind is not allowed here"),
            ("a = $$x$$", "a literal of this kind is not allowed here"),
            ("case when a = b then true end", "CASE is not allowed here"),
            ("current_user = a", "function current_user is not allowed here"),
            ("a = b = flag", "a comparison of a comparison without parentheses is not allowed here"),
            ("(a, b) = (1, 2)", "a row is not allowed here"),
            ("a = any(b)", "ANY, SOME or ALL is not allowed here"),
            ("date '2026-01-01' = a", "a literal with a type is not allowed here"),
            ("a collate \"C\" = b", "COLLATE is not allowed here"),
        ] {
            let error = condition(text, &relation(), 1).expect_err(text);
            assert_eq!(error.to_string(), what, "{text}");
        }
        for text in ["", " ", "a =", "= 1", "(a = 1", "a = 'x", "a = 1)", "'", "\""] {
            assert!(condition(text, &relation(), 1).is_err(), "{text}");
        }
        assert!(condition(&"a = 1 and ".repeat(300), &relation(), 1).is_err(), "long");
        assert!(condition(&"(".repeat(500), &relation(), 1).is_err(), "deep");
    }

    #[test]
    fn orders_take_columns_and_arithmetic_only() {
        for (text, sql) in [
            ("a", "\"a\""),
            ("a desc, b asc nulls first", "\"a\" DESC, \"b\" NULLS FIRST"),
            ("a + b desc nulls last", "(\"a\" + \"b\") DESC NULLS LAST"),
        ] {
            assert_eq!(order(text, &relation(), 1).unwrap().sql, sql, "{text}");
        }
        for text in
            ["1", "'a'", "a using <", "random()", "a; b", "a,", "", "nosuch", "(select 1)", "a limit 1"]
        {
            assert!(order(text, &relation(), 1).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_literal_reaches_the_sql(text in "[ab'\";()=<>%*+$/. \\-0-9x]{0,40}", word in "[a-z ]{0,60}") {
            for text in [text.as_str(), word.as_str(), &format!("a = '{word}' or b {text}")] {
                let _ = order(text, &relation(), 1);
                if let Ok(fragment) = condition(text, &relation(), 1) {
                    let bare = fragment.sql.replace("\"Odd\"\"name\"", "").replace(['"', '$'], "");
                    prop_assert!(!bare.contains([';', '\'', '\\']), "{}", fragment.sql);
                }
            }
        }
    }
}
