//! PREPARE and EXECUTE of SQL, taken apart: what is prepared under which name, and what it is executed with.
//! Must not know what is prepared. Source: PostgreSQL's grammar, `PrepareStmt` and `ExecuteStmt`.

use std::ops::Range;

use super::Env;
use super::utility::selects_into;
use super::words::Words;

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// PREPARE name [(types)] AS query.
    Prepare {
        /// The name.
        name: String,
        /// The OIDs of the declared types; all of them are PostgreSQL's own.
        types: Vec<u32>,
        /// All up to the query.
        head: Range<usize>,
    },
    /// EXECUTE name [(arguments)], also after EXPLAIN.
    Execute {
        /// The name.
        name: String,
        /// Where it stands.
        at: Range<usize>,
        /// How many arguments it has.
        count: usize,
        /// Its arguments, if all of them are constants and nothing stands round it.
        arguments: Option<Vec<Argument>>,
    },
}

/// A constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// NULL.
    Null,
    /// A string, of whatever type is asked for.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// TRUE or FALSE.
    Bool(bool),
}

impl Argument {
    /// Its value as text, as a parameter of this type would take it; `None` if a server has to say what it means there.
    #[must_use]
    pub fn value(&self, type_oid: u32) -> Option<Option<String>> {
        use crate::catalog::oid;
        match self {
            Self::Null => Some(None),
            Self::Text(text) => Some(Some(text.clone())),
            Self::Integer(n) => {
                let fits = match type_oid {
                    oid::INT2 => i16::try_from(*n).is_ok(),
                    oid::INT4 => i32::try_from(*n).is_ok(),
                    oid::INT8 | oid::NUMERIC | oid::TEXT | oid::VARCHAR => true,
                    _ => false,
                };
                fits.then(|| Some(n.to_string()))
            }
            Self::Bool(truth) if type_oid == oid::BOOL => Some(Some(truth.to_string())),
            Self::Bool(_) => None,
        }
    }
}

/// Takes a statement apart, if it is one of them and well formed; else a server has to say what it is.
#[must_use]
pub fn prepared(text: &[u8], env: &Env) -> Option<Prepared> {
    let mut words = Words::new(text, env.nonstandard_strings);
    let start = words.at();
    if words.eat("prepare") {
        return prepare(words, start, env);
    }
    let alone = words.sees("execute");
    if words.eat("explain") {
        skip_options(&mut words);
    }
    if !words.eat("execute") {
        return None;
    }
    let from = words.at();
    let name = words.name()?;
    let at = from..words.past();
    let count = count(words.clone())?;
    let arguments = if alone { arguments(&mut words, env) } else { None };
    Some(Prepared::Execute { name, at, count, arguments })
}

/// How many expressions stand in the parentheses ahead; `None`: nothing that a server would accept.
fn count(mut words: Words<'_>) -> Option<usize> {
    if words.is_over() {
        return Some(0);
    }
    words.eat_symbol(b'(').then_some(())?;
    let (mut found, mut depth) = (1, 0usize);
    while let Some(token) = words.bump() {
        let is = |symbols: &[u8]| symbols.iter().any(|symbol| token.is_symbol(*symbol));
        if is(b"([") {
            depth += 1;
        } else if depth == 0 && is(b")") {
            return words.is_over().then_some(found);
        } else if is(b")]") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && is(b",") {
            found += 1;
        }
    }
    None
}

/// The prepared statement that CREATE TABLE … AS EXECUTE makes a table of, and where its name stands.
#[must_use]
pub fn filled_by(text: &[u8], env: &Env) -> Option<(String, Range<usize>)> {
    let mut words = Words::new(text, env.nonstandard_strings);
    words.eat("create").then_some(())?;
    while !words.is_done() {
        if words.eat("as") && words.eat("execute") {
            let from = words.at();
            let name = words.name()?;
            return Some((name, from..words.past()));
        }
        words.bump();
    }
    None
}

fn prepare(mut words: Words<'_>, start: usize, env: &Env) -> Option<Prepared> {
    let name = words.name()?;
    let mut types = Vec::new();
    if words.eat_symbol(b'(') {
        loop {
            types.push(type_oid(&mut words)?);
            if words.eat_symbol(b')') {
                break;
            }
            words.eat_symbol(b',').then_some(())?;
        }
    }
    words.eat("as").then_some(())?;
    let verbs = ["select", "insert", "update", "delete", "merge", "values", "with", "table"];
    let opens = words.peek().is_some_and(|t| t.is_symbol(b'('));
    if !opens && !verbs.iter().any(|verb| words.sees(verb)) {
        return None;
    }
    let query = text_from(&words);
    if selects_into(query, env.nonstandard_strings) || has_into(&words) {
        return None;
    }
    Some(Prepared::Prepare { name, types, head: start..words.at() })
}

fn text_from<'t>(words: &Words<'t>) -> &'t [u8] {
    words.text().get(words.at()..).unwrap_or_default()
}

/// SELECT INTO is CREATE TABLE: what the protocol prepares it as is another thing.
fn has_into(words: &Words<'_>) -> bool {
    let mut ahead = words.clone();
    if !ahead.sees("select") && !ahead.sees("with") {
        return false;
    }
    let mut depth = 0usize;
    while let Some(token) = ahead.bump() {
        if token.is_symbol(b'(') {
            depth += 1;
        } else if token.is_symbol(b')') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is_word(words.text(), "insert") {
            return false;
        } else if depth == 0 && token.is_word(words.text(), "into") {
            return true;
        }
    }
    false
}

/// A type that PostgreSQL has under this name whatever the search path is. Lengths and precisions count for nothing.
fn type_oid(words: &mut Words<'_>) -> Option<u32> {
    let (plain, array) = named_type(words)?;
    if words.eat_symbol(b'(') {
        while words.number().is_some() || words.eat_symbol(b',') {}
        words.eat_symbol(b')').then_some(())?;
    }
    let mut oid = plain;
    if words.eat("with") {
        words.eat_all(&["time", "zone"]).then_some(())?;
        (plain == 1114).then_some(())?;
        oid = 1184;
    } else if words.eat("without") {
        words.eat_all(&["time", "zone"]).then_some(())?;
        (plain == 1114).then_some(())?;
    }
    if words.eat_symbol(b'[') {
        words.eat_symbol(b']').then_some(())?;
        return if oid == 1184 { Some(1185) } else { Some(array) };
    }
    Some(oid)
}

/// A type's OID and that of its array. Source: PostgreSQL's `pg_type.dat`.
fn named_type(words: &mut Words<'_>) -> Option<(u32, u32)> {
    if words.eat_all(&["double", "precision"]) {
        return Some((701, 1022));
    }
    if words.eat_all(&["character", "varying"]) {
        return Some((1043, 1015));
    }
    Some(match words.word()?.as_str() {
        "bool" | "boolean" => (16, 1000),
        "bytea" => (17, 1001),
        "name" => (19, 1003),
        "int8" | "bigint" => (20, 1016),
        "int2" | "smallint" => (21, 1005),
        "int4" | "int" | "integer" => (23, 1007),
        "text" => (25, 1009),
        "oid" => (26, 1028),
        "json" => (114, 199),
        "float4" | "real" => (700, 1021),
        "float8" => (701, 1022),
        "inet" => (869, 1041),
        "bpchar" | "char" | "character" => (1042, 1014),
        "varchar" => (1043, 1015),
        "date" => (1082, 1182),
        "timestamp" => (1114, 1115),
        "timestamptz" => (1184, 1185),
        "interval" => (1186, 1187),
        "numeric" | "decimal" | "dec" => (1700, 1231),
        "unknown" => (705, 0),
        "uuid" => (2950, 2951),
        "jsonb" => (3802, 3807),
        _ => return None,
    })
    .filter(|(_, array)| *array != 0)
}

fn arguments(words: &mut Words<'_>, env: &Env) -> Option<Vec<Argument>> {
    let mut found = Vec::new();
    if words.is_over() {
        return Some(found);
    }
    words.eat_symbol(b'(').then_some(())?;
    loop {
        found.push(argument(words, env)?);
        if words.eat_symbol(b')') {
            return words.is_over().then_some(found);
        }
        words.eat_symbol(b',').then_some(())?;
    }
}

fn argument(words: &mut Words<'_>, env: &Env) -> Option<Argument> {
    if words.eat("null") {
        return Some(Argument::Null);
    }
    if let Some(word) = words.eat_any(&["true", "false"]) {
        return Some(Argument::Bool(word == "true"));
    }
    if let Some(text) = words.string(env) {
        return Some(Argument::Text(text));
    }
    words.number()?.parse().ok().map(Argument::Integer)
}

fn skip_options(words: &mut Words<'_>) {
    if words.eat_symbol(b'(') {
        while words.bump().is_some_and(|token| !token.is_symbol(b')')) {}
        return;
    }
    words.eat_any(&["analyze", "analyse"]);
    words.eat("verbose");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sql: &str) -> String {
        match prepared(sql.as_bytes(), &Env::default()) {
            Some(Prepared::Prepare { name, types, head }) => {
                let query = sql.get(head.end..).unwrap_or_default();
                format!("{name} {types:?} {query}")
            }
            Some(Prepared::Execute { name, at, count, arguments }) => {
                let written = sql.get(at).unwrap_or_default();
                format!("{name} [{written}] {}", arguments.map_or(count.to_string(), |a| format!("{a:?}")))
            }
            None => "?".into(),
        }
    }

    #[test]
    fn statements_are_taken_apart_or_left_to_a_server() {
        for (sql, want) in [
            ("PREPARE p AS SELECT 1", "p [] SELECT 1"),
            (
                "prepare \"P q\" (int, varchar(3), timestamp with time zone, text[]) as -- x\n values ($1)",
                "P q [23, 1043, 1184, 1009] values ($1)",
            ),
            (
                "prepare p (double precision, numeric(5, 2), timestamptz[]) as (select 1)",
                "p [701, 1700, 1185] (select 1)",
            ),
            ("prepare p (mine) as select $1", "?"),
            ("prepare p as select 1 into x", "?"),
            ("prepare p as select 1 into temp x", "?"),
            (
                "prepare p as with a as (select 1) insert into t select * from a",
                "p [] with a as (select 1) insert into t select * from a",
            ),
            ("prepare p as begin", "?"),
            ("prepare p", "?"),
            ("prepare transaction 'x'", "?"),
            ("EXECUTE p", "p [p] []"),
            (
                "execute \"P q\"('it''s', -5, null, true)",
                "P q [\"P q\"] [Text(\"it's\"), Integer(-5), Null, Bool(true)]",
            ),
            ("execute p(1.5)", "p [p] 1"),
            ("execute p(now(), array[1, 2], (3, 4))", "p [p] 3"),
            ("execute p('1'::int)", "p [p] 1"),
            ("execute p(1) x", "?"),
            ("execute p(1", "?"),
            ("explain (costs off) execute p(1)", "p [p] 1"),
            ("explain analyze verbose execute p", "p [p] 0"),
            ("explain select 1", "?"),
        ] {
            assert_eq!(shown(sql), want, "{sql}");
        }
    }

    #[test]
    fn a_table_that_is_filled_by_execute_names_its_statement() {
        for (sql, want) in [
            ("create table x (a) as execute p(1)", Some("p")),
            ("create temp table x as execute \"P\"", Some("P")),
            ("create table x as select 1 as execute", None),
            ("drop table x", None),
        ] {
            let found = filled_by(sql.as_bytes(), &Env::default());
            assert_eq!(found.as_ref().map(|(name, _)| name.as_str()), want, "{sql}");
            if let Some((name, at)) = found {
                assert_eq!(sql.get(at).unwrap_or_default().trim_matches('"'), name, "{sql}");
            }
        }
    }

    #[test]
    fn arguments_are_values_where_every_type_reads_them_alike() {
        let text = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(Argument::Integer(7).value(25), text("7"));
        assert_eq!(Argument::Integer(70_000).value(21), None);
        assert_eq!(Argument::Integer(7).value(1082), None);
        assert_eq!(Argument::Text("x".into()).value(23), text("x"));
        assert_eq!(Argument::Bool(true).value(16), text("true"));
        assert_eq!(Argument::Bool(true).value(25), None);
        assert_eq!(Argument::Null.value(0), Some(None));
    }
}
