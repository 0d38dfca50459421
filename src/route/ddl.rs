//! Statements that define things, told by their first words: which may run on one shard alone, and what they leave.
//! Must not know where any table lives. Source: PostgreSQL docs, "SQL Commands".

use super::utility::{Lexical, Rule};
use super::words::Words;
use super::{Kind, Pin};

const SETUP: &str = "Run it on each shard, naming it: /* pgherd: shard=NAME */ before the statement, or SET pgherd.shard; \
                     new tables of the configuration are made everywhere by `pgherd setup`.";

/// A definition, its first word taken; `None` if the word begins none.
pub(super) fn classify(first: &str, words: &mut Words<'_>) -> Option<Lexical> {
    let lexical = match first {
        "create" => create(words),
        "alter" if words.sees("table") => {
            let mut ahead = words.clone();
            ahead.eat("table");
            if ahead.eat_all(&["all", "in"]) { refused("ALTER TABLE ALL") } else { on_tables("ALTER TABLE") }
        }
        "drop" if words.sees("table") => on_tables("DROP TABLE"),
        "comment" if words.eat("on") && (words.sees("table") || words.sees("column")) => {
            kept(on_tables("COMMENT"))
        }
        "truncate" => kept(on_tables("TRUNCATE")),
        "vacuum" | "analyze" | "analyse" | "cluster" => maintenance(first, words),
        "reindex" | "refresh" => kept(refused(&phrase(first, words))),
        "alter" | "drop" | "comment" | "grant" | "revoke" | "import" | "security" | "reassign" => {
            refused(&phrase(first, words))
        }
        _ => return None,
    };
    Some(lexical)
}

/// Its first two words, for messages: `CREATE FUNCTION`.
fn phrase(first: &str, words: &Words<'_>) -> String {
    let mut ahead = words.clone();
    ahead.eat_all(&["or", "replace"]);
    let second = ahead.word().unwrap_or_default();
    format!("{first} {second}").trim_end().to_uppercase()
}

fn on_tables(construct: &str) -> Lexical {
    let rule = Rule::Tables { construct: construct.to_owned(), reason: None, in_strings: false, hint: SETUP };
    Lexical::new(Kind::Ddl, rule)
}

fn refused(construct: &str) -> Lexical {
    Lexical::new(Kind::Ddl, Rule::Never { construct: construct.to_owned(), hint: SETUP })
}

/// The catalogs stay as they are.
fn kept(mut lexical: Lexical) -> Lexical {
    lexical.kind = Kind::Query;
    lexical
}

/// The databases that a statement drops, renames, moves or copies: PostgreSQL wants nobody connected to them.
#[must_use]
pub fn databases_to_leave(text: &[u8]) -> Vec<String> {
    let mut words = Words::new(text, false);
    if words.eat_all(&["drop", "database"]) {
        words.eat_all(&["if", "exists"]);
        return words.name().into_iter().collect();
    }
    if words.eat_all(&["alter", "database"]) {
        let name = words.name();
        let moves = words.sees("rename") || words.eat_all(&["set", "tablespace"]);
        return name.filter(|_| moves).into_iter().collect();
    }
    if !words.eat_all(&["create", "database"]) {
        return Vec::new();
    }
    let name = words.name();
    let mut template = "template1".to_owned();
    while !words.is_done() {
        if words.eat("template") {
            words.eat_operator("=");
            template = words.name().unwrap_or(template);
        } else {
            words.bump();
        }
    }
    // What was tried there while it did not exist is forgotten too.
    name.into_iter().chain([template]).collect()
}

/// Whether a statement changes what sessions begin with: `ALTER ROLE … SET`, `ALTER DATABASE … SET` and their like.
#[must_use]
pub fn changes_beginnings(text: &[u8]) -> bool {
    let mut words = Words::new(text, false);
    if !words.eat("alter") || words.eat_any(&["role", "user", "database"]).is_none() {
        return false;
    }
    words.name();
    if words.eat_all(&["in", "database"]) {
        words.name();
    }
    words.eat("reset") || words.eat("set") && !words.sees("tablespace")
}

/// CREATE, the first word taken.
fn create(words: &mut Words<'_>) -> Lexical {
    let construct = phrase("create", words);
    let replaced = words.eat_all(&["or", "replace"]);
    words.eat_any(&["global", "local"]);
    if words.eat_any(&["temp", "temporary"]).is_some() {
        let rule = Rule::DefaultTables { construct: "CREATE TEMPORARY" };
        return Lexical::new(Kind::Query, rule).pin(Pin::TempTable); // not in the catalogs that are read
    }
    if replaced {
        return refused(&construct);
    }
    let unlogged = words.eat("unlogged");
    if words.eat("table") {
        let mut lexical = on_tables("CREATE TABLE");
        words.eat_all(&["if", "not", "exists"]);
        if words.sees("pg_temp") {
            lexical.alone.pin = Some(Pin::TempTable);
        }
        return lexical;
    }
    let unique = words.eat("unique");
    if !unlogged && words.sees("index") || unique && words.sees("index") {
        return on_tables("CREATE INDEX");
    }
    let mut lexical = refused(&construct);
    while !words.is_done() {
        if words.eat("pg_temp") {
            lexical.alone.pin = Some(Pin::TempTable);
        }
        words.bump();
    }
    lexical
}

/// VACUUM, ANALYZE, CLUSTER: with tables they are those tables' affair, without they are the whole database's.
fn maintenance(first: &str, words: &mut Words<'_>) -> Lexical {
    let construct = first.to_uppercase();
    if words.eat_symbol(b'(') {
        while words.bump().is_some_and(|t| !t.is_symbol(b')')) {}
    }
    while words.eat_any(&["full", "freeze", "verbose", "analyze", "analyse"]).is_some() {}
    if words.is_done() {
        kept(refused(&format!("{construct} without a table")))
    } else {
        kept(on_tables(&construct))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_beginning_of_sessions_is_told() {
        for (text, wanted) in [
            ("alter role app set work_mem = '1MB'", true),
            ("ALTER USER ALL IN DATABASE x RESET ALL", true),
            ("/* x */ alter database \"d b\" set work_mem to default", true),
            ("alter database d set tablespace t", false),
            ("alter role app password 'set'", false),
            ("alter role set rename to reset", false),
            ("alter table t set logged", false),
        ] {
            assert_eq!(changes_beginnings(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn statements_name_the_databases_that_must_be_left() {
        for (text, wanted) in [
            ("drop database a", &["a"][..]),
            ("DROP DATABASE IF EXISTS \"A b\" WITH (FORCE)", &["A b"]),
            ("create database a", &["a", "template1"]),
            ("CREATE DATABASE a WITH OWNER = bob TEMPLATE = Other", &["a", "other"]),
            ("create database a template \"T\"", &["a", "T"]),
            ("alter database a rename to b", &["a"]),
            ("alter database a set tablespace t", &["a"]),
            ("alter database a set work_mem = '1MB'", &[]),
            ("drop table a", &[]),
            ("create table a ()", &[]),
            ("", &[]),
        ] {
            assert_eq!(databases_to_leave(text.as_bytes()), wanted, "{text}");
        }
    }
}
