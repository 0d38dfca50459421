//! COPY by its words: from or to the client, or a server's file; a table or a query.
//! Must not know where any table lives. Source: PostgreSQL's grammar, `CopyStmt`.

use std::ops::Range;

use super::utility::{Class, Lexical, Rule, Wrap};
use super::words::Words;
use super::{Access, Env, Kind, Verb};

/// COPY, the first word taken.
pub(super) fn classify(words: &mut Words<'_>, env: &Env) -> Class {
    words.eat("binary"); // the syntax before PostgreSQL 7.3, still accepted
    if words.eat_symbol(b'(') {
        return of_query(words, env);
    }
    let Some(table) = words.qualified_name() else { return malformed() };
    if words.eat_symbol(b'(') && closing(words).is_none() {
        return malformed();
    }
    let from = words.eat("from");
    if !from && !words.eat("to") {
        return malformed();
    }
    let client = words.eat_any(&["stdin", "stdout"]).is_some(); // PostgreSQL takes either word in either direction
    let kind = if from && client { Kind::CopyIn } else { Kind::Query };
    let access = if client && !from { Access::Read } else { Access::Write };
    let rule = if client {
        Rule::Copy { table, from }
    } else {
        Rule::never("COPY with a file or program of the server")
    };
    Class::Lexical(Lexical::new(kind, rule).access(access).verb(Verb::Copy))
}

/// `COPY (query) TO …`, the parenthesis taken.
fn of_query(words: &mut Words<'_>, _env: &Env) -> Class {
    let start = words.at();
    let Some(end) = closing(words) else { return malformed() };
    let query: Range<usize> = start..end;
    let client = words.eat("to") && words.eat_any(&["stdout", "stdin"]).is_some();
    let otherwise = Lexical::by_tables("COPY", Kind::Query).verb(Verb::Copy);
    if client {
        Class::Around { wrap: Wrap::Copy, query, otherwise }
    } else {
        let rule = Rule::never("COPY with a file or program of the server");
        Class::Lexical(Lexical::new(Kind::Query, rule).verb(Verb::Copy))
    }
}

/// Takes all up to and with the parenthesis that closes the one taken; where that stands.
fn closing(words: &mut Words<'_>) -> Option<usize> {
    let mut depth = 1usize;
    loop {
        let token = words.bump()?;
        depth = match token {
            t if t.is_symbol(b'(') => depth + 1,
            t if t.is_symbol(b')') => depth - 1,
            _ => depth,
        };
        if depth == 0 {
            return Some(token.start);
        }
    }
}

/// Not COPY as PostgreSQL 18 has it: a server will say what is wrong.
fn malformed() -> Class {
    Class::Lexical(Lexical::by_tables("COPY", Kind::Query).verb(Verb::Copy))
}
