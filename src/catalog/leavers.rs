//! Functions that may leave something in the session of whoever calls them: told by their words.
//! Must not know what is done about it. In doubt a function is one of them.

use std::collections::{HashMap, HashSet};

use super::Function;

/// Words of a body that may make or drop a temporary table, listen, hold a cursor, prepare, or run what is not known.
const WORDS: &[&str] = &[
    "temp",
    "temporary",
    "pg_temp",
    "listen",
    "hold",
    "execute",
    "load",
    "prepare",
    "drop",
    "unlisten",
    "dblink_connect",
];

/// The names of user functions that may leave something behind, by what their bodies say or by what they call.
#[must_use]
pub fn leavers(functions: &HashMap<String, Function>) -> HashSet<String> {
    let bodies: Vec<(&str, HashSet<String>)> = functions
        .iter()
        .filter(|(_, f)| f.is_user && !f.source.is_empty())
        .map(|(name, f)| (name.as_str(), words(&f.source)))
        .collect();
    let mut found: HashSet<String> =
        bodies.iter().filter(|(_, words)| speaks(words)).map(|(name, _)| (*name).to_owned()).collect();
    loop {
        let more: Vec<String> = bodies
            .iter()
            .filter(|(name, words)| !found.contains(*name) && !found.is_disjoint(words))
            .map(|(name, _)| (*name).to_owned())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn words(source: &str) -> HashSet<String> {
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    source.split(|c| !inside(c)).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

fn speaks(words: &HashSet<String>) -> bool {
    let locks = |w: &String| {
        let rest = w.strip_prefix("pg_advisory_").or_else(|| w.strip_prefix("pg_try_advisory_"));
        rest.is_some_and(|rest| !rest.starts_with("xact_"))
    };
    WORDS.iter().any(|w| words.contains(*w)) || words.iter().any(locks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{FunctionKind, Volatility};

    #[test]
    fn a_function_is_told_by_its_words_and_by_whom_it_calls() {
        let function = |is_user, source: &str| Function {
            volatility: Volatility::Volatile,
            kind: FunctionKind::Plain,
            returns_set: false,
            is_user,
            source: source.to_owned(),
        };
        let functions = HashMap::from([
            ("plain".to_owned(), function(true, "begin return template; end")),
            ("makes".to_owned(), function(true, "CREATE TEMP TABLE x (i int)")),
            ("locks".to_owned(), function(true, "perform pg_try_advisory_lock(1)")),
            ("locks_briefly".to_owned(), function(true, "perform pg_advisory_xact_lock(1)")),
            ("calls".to_owned(), function(true, "perform app.Makes();")),
            ("calls_that".to_owned(), function(true, "select calls()")),
            ("builtin".to_owned(), function(false, "")),
        ]);
        let mut found: Vec<_> = leavers(&functions).into_iter().collect();
        found.sort();
        assert_eq!(found, ["calls", "calls_that", "locks", "makes"]);
    }
}
