//! SET, RESET and SHOW in all their spellings, by their words.
//! Must not know what any parameter does. Source: PostgreSQL's grammar, `VariableSetStmt`, `var_name`, `zone_value`.

use super::transaction;
use super::words::Words;
use super::{Env, Kind, RouteError, SetParameter};

/// SET, the first word taken. `None` for the forms that a server has to judge: SET CONSTRAINTS,
/// SET TRANSACTION SNAPSHOT, SET CATALOG.
pub(super) fn set(words: &mut Words<'_>, env: &Env) -> Result<Option<Kind>, RouteError> {
    if words.sees("constraints") || words.sees("catalog") {
        return Ok(None);
    }
    let local = words.eat("local");
    let mut ahead = words.clone();
    if !local && ahead.eat("session") && !ahead.sees("authorization") && !ahead.sees("characteristics") {
        *words = ahead;
    }
    let from = words.at();
    if words.eat("transaction") {
        if words.sees("snapshot") {
            return Ok(None);
        }
        if words.is_done() {
            return Err(words.syntax_error());
        }
        return Ok(Some(Kind::SetTransaction(transaction::modes(words)?)));
    }
    let (name, values) = assignment(words, env)?;
    words.end(())?;
    let sql = replayable(words, from, &name, &values)?;
    Ok(Some(Kind::Set(SetParameter { name, local, values, sql })))
}

/// What is set to what; no values is DEFAULT.
fn assignment(words: &mut Words<'_>, env: &Env) -> Result<(String, Vec<String>), RouteError> {
    let named = |name: &str, values| Ok((name.to_owned(), values));
    if words.eat_all(&["time", "zone"]) {
        return named("timezone", zone(words, env)?);
    }
    if words.eat_all(&["session", "characteristics", "as", "transaction"]) {
        return named("session characteristics", characteristics(words)?);
    }
    if words.eat_all(&["session", "authorization"]) {
        return named("session_authorization", one(words, env)?);
    }
    if words.eat_all(&["xml", "option"]) {
        return named("xmloption", one(words, env)?);
    }
    let mut ahead = words.clone();
    let first = ahead.word();
    let unassigned = !ahead.sees("to") && !ahead.eat_operator("=") && !ahead.eat_symbol(b'.');
    match first.as_deref() {
        Some("names") if unassigned => {
            *words = ahead;
            let values = if words.is_done() { Vec::new() } else { one(words, env)? };
            named("client_encoding", values)
        }
        Some("role") if unassigned => {
            *words = ahead;
            named("role", one(words, env)?)
        }
        Some("schema") if unassigned => {
            *words = ahead;
            named("search_path", one(words, env)?)
        }
        _ => plain(words, env),
    }
}

/// `name { TO | = } { value [, …] | DEFAULT }`.
fn plain(words: &mut Words<'_>, env: &Env) -> Result<(String, Vec<String>), RouteError> {
    let name = variable(words)?;
    if !words.eat("to") && !words.eat_operator("=") {
        return Err(words.syntax_error());
    }
    let mut values = one(words, env)?;
    while !values.is_empty() && words.eat_symbol(b',') {
        values.push(value(words, env)?);
    }
    Ok((name, values))
}

/// A parameter's name in lower case: PostgreSQL compares them so, quoted or not.
fn variable(words: &mut Words<'_>) -> Result<String, RouteError> {
    let parts = words.qualified_name().ok_or_else(|| words.syntax_error())?;
    Ok(parts.join(".").to_lowercase())
}

/// One value, or none for DEFAULT.
fn one(words: &mut Words<'_>, env: &Env) -> Result<Vec<String>, RouteError> {
    if words.eat("default") { Ok(Vec::new()) } else { Ok(vec![value(words, env)?]) }
}

fn value(words: &mut Words<'_>, env: &Env) -> Result<String, RouteError> {
    let found = words.string(env).or_else(|| words.number()).or_else(|| words.name());
    found.ok_or_else(|| not_understood(words))
}

/// Strings that exist but cannot be worked out (other encodings, UESCAPE …) are refused; all else is no SQL.
fn not_understood(words: &Words<'_>) -> RouteError {
    use super::lex::TokenKind;
    match words.peek().map(|t| t.kind) {
        Some(TokenKind::Literal(_)) => RouteError::Refused {
            what: "this value in SET is not understood by pgherd".to_owned(),
            hint: "Write it as a plain string of ASCII characters without backslashes.".to_owned(),
        },
        _ => words.syntax_error(),
    }
}

/// `zone_value`: LOCAL and DEFAULT are the same, an INTERVAL is kept as written.
fn zone(words: &mut Words<'_>, env: &Env) -> Result<Vec<String>, RouteError> {
    if words.eat("local") {
        return Ok(Vec::new());
    }
    if !words.sees("interval") {
        return one(words, env);
    }
    let from = words.at();
    while words.bump().is_some() {}
    let written = words.text().get(from..words.past()).unwrap_or_default();
    Ok(vec![String::from_utf8_lossy(written).into_owned()])
}

/// The modes of SET SESSION CHARACTERISTICS, each in upper case.
fn characteristics(words: &mut Words<'_>) -> Result<Vec<String>, RouteError> {
    let modes = transaction::modes(words)?;
    let isolation = modes.isolation.map(|level| format!("ISOLATION LEVEL {level}"));
    let access = modes.read_only.map(|ro| if ro { "READ ONLY" } else { "READ WRITE" }.to_owned());
    let deferral = modes.deferrable.map(|d| if d { "DEFERRABLE" } else { "NOT DEFERRABLE" }.to_owned());
    let all: Vec<String> = isolation.into_iter().chain(access).chain(deferral).collect();
    if all.is_empty() { Err(words.syntax_error()) } else { Ok(all) }
}

/// The statement without SET's LOCAL or SESSION, fit to be sent again at any later time: with backslashes in it, it
/// is written anew, so that it means the same whatever `standard_conforming_strings` is by then.
fn replayable(words: &Words<'_>, from: usize, name: &str, values: &[String]) -> Result<String, RouteError> {
    let written = words.text().get(from..words.past()).unwrap_or_default();
    if memchr::memchr(b'\\', written).is_some() {
        let parts: Vec<String> =
            name.split('.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
        let values: Vec<String> = values.iter().map(|v| quoted(v)).collect();
        return Ok(format!("SET {} TO {}", parts.join("."), values.join(", ")));
    }
    match std::str::from_utf8(written) {
        Ok(text) => Ok(format!("SET {text}")),
        Err(_) => Err(RouteError::Refused {
            what: "SET with a value that is not UTF-8".to_owned(),
            hint: "Use ASCII characters, or SET client_encoding TO 'UTF8' first.".to_owned(),
        }),
    }
}

fn quoted(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// RESET, the first word taken.
pub(super) fn reset(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    let name = parameter(words)?;
    words.end(Kind::Reset(name.filter(|name| name != "all")))
}

/// SHOW, the first word taken.
pub(super) fn show(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    let name = parameter(words)?;
    words.end(Kind::Show(name.unwrap_or_default()))
}

fn parameter(words: &mut Words<'_>) -> Result<Option<String>, RouteError> {
    for (spelling, name) in [
        (["time", "zone"].as_slice(), "timezone"),
        (&["transaction", "isolation", "level"], "transaction_isolation"),
        (&["session", "authorization"], "session_authorization"),
    ] {
        if words.eat_all(spelling) {
            return Ok(Some(name.to_owned()));
        }
    }
    variable(words).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(sql: &str) -> Result<Option<Kind>, RouteError> {
        let env = Env::default();
        let mut words = Words::new(sql.as_bytes(), false);
        match words.word().as_deref() {
            Some("set") => set(&mut words, &env),
            Some("reset") => reset(&mut words).map(Some),
            _ => show(&mut words).map(Some),
        }
    }

    fn shown(sql: &str) -> String {
        match kind(sql) {
            Ok(Some(Kind::Set(set))) => {
                format!(
                    "{}{}={} [{}]",
                    if set.local { "local " } else { "" },
                    set.name,
                    set.values.join("|"),
                    set.sql
                )
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn every_spelling_of_set_names_its_parameter_and_values() {
        for (sql, want) in [
            (
                "SET search_path TO a, \"B\", 'c d'",
                "search_path=a|B|c d [SET search_path TO a, \"B\", 'c d']",
            ),
            ("set local Work_Mem = '64MB' -- x", "local work_mem=64MB [SET Work_Mem = '64MB']"),
            (
                "SET SESSION statement_timeout TO 5000",
                "statement_timeout=5000 [SET statement_timeout TO 5000]",
            ),
            ("SET extra_float_digits=-1", "extra_float_digits=-1 [SET extra_float_digits=-1]"),
            ("SET x TO DEFAULT", "x= [SET x TO DEFAULT]"),
            ("SET jit = off", "jit=off [SET jit = off]"),
            ("SET \"TimeZone\" TO 'UTC'", "timezone=UTC [SET \"TimeZone\" TO 'UTC']"),
            ("SET TIME ZONE 'Europe/Rome'", "timezone=Europe/Rome [SET TIME ZONE 'Europe/Rome']"),
            ("SET LOCAL TIME ZONE LOCAL", "local timezone= [SET TIME ZONE LOCAL]"),
            ("SET TIME ZONE -7", "timezone=-7 [SET TIME ZONE -7]"),
            (
                "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
                "timezone=INTERVAL '-08:00' HOUR TO MINUTE [SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE]",
            ),
            ("SET NAMES 'UTF8'", "client_encoding=UTF8 [SET NAMES 'UTF8']"),
            ("SET NAMES", "client_encoding= [SET NAMES]"),
            ("SET SCHEMA 'x'", "search_path=x [SET SCHEMA 'x']"),
            ("SET ROLE bob", "role=bob [SET ROLE bob]"),
            ("SET LOCAL ROLE NONE", "local role=none [SET ROLE NONE]"),
            ("SET role = 'Bob'", "role=Bob [SET role = 'Bob']"),
            (
                "SET SESSION AUTHORIZATION DEFAULT",
                "session_authorization= [SET SESSION AUTHORIZATION DEFAULT]",
            ),
            ("SET SESSION SESSION AUTHORIZATION x", "session_authorization=x [SET SESSION AUTHORIZATION x]"),
            (
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL serializable",
                "session characteristics=ISOLATION LEVEL SERIALIZABLE|READ ONLY [SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL serializable]",
            ),
            ("SET pgherd.shard = 'shard2'", "pgherd.shard=shard2 [SET pgherd.shard = 'shard2']"),
            ("SET a.b TO 'it''s'", "a.b=it's [SET a.b TO 'it''s']"),
            (
                "SET a.b TO E'x\\\\y''z', 'p\\q'",
                "a.b=x\\y'z|p\\q [SET \"a\".\"b\" TO E'x\\\\y''z', E'p\\\\q']",
            ),
            ("SET XML OPTION document", "xmloption=document [SET XML OPTION document]"),
            ("SET CONSTRAINTS ALL DEFERRED", "None"),
            ("SET TRANSACTION SNAPSHOT 'x'", "None"),
            ("SET x", "syntax error at end of input"),
            ("SET x TO a b", "syntax error at or near \"b\""),
            ("SET x TO a,", "syntax error at end of input"),
            ("SET x TO U&'a' UESCAPE '!'", "this value in SET is not understood by pgherd"),
        ] {
            assert_eq!(shown(sql), want, "{sql}");
        }
    }

    #[test]
    fn reset_and_show_name_parameters_in_lower_case() {
        for (sql, want) in [
            ("RESET ALL", Kind::Reset(None)),
            ("RESET Search_Path", Kind::Reset(Some("search_path".into()))),
            ("RESET SESSION AUTHORIZATION", Kind::Reset(Some("session_authorization".into()))),
            ("SHOW ALL", Kind::Show("all".into())),
            ("SHOW TIME ZONE", Kind::Show("timezone".into())),
            ("SHOW TRANSACTION ISOLATION LEVEL", Kind::Show("transaction_isolation".into())),
            ("SHOW pgherd.Shard", Kind::Show("pgherd.shard".into())),
            ("SHOW LATENCY", Kind::Show("latency".into())),
        ] {
            assert_eq!(kind(sql), Ok(Some(want)), "{sql}");
        }
        assert!(kind("SHOW").is_err());
        assert!(kind("RESET a b").is_err());
    }
}
