//! Settings that code has changed in a session (a function, a trigger, a DO block): the server is asked, and what one
//! PostgreSQL would keep for the session becomes the session's own.
//! Must not know what made the change.
//!
//! The server shows its settings as it was left, is brought to those that the proxy knows of, and shows them again: what
//! differs was changed by code. So it is known to be clean afterwards, whatever was found. Settings of the users' own
//! (`a.b`) are in no list of a server's: they are asked for by the names that code mentions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::vars::Vars;
use crate::route::SetParameter;

/// Settings by name, as a server shows them.
type Shown = BTreeMap<String, String>;

/// Settings that no list of a server's has, nor tells who set them.
const UNLISTED: [&str; 3] = ["role", "session_authorization", STATEMENT_TIMEOUT];
const STATEMENT_TIMEOUT: &str = "statement_timeout";

/// Takes away what would cut the questions short, having shown it.
const UNHURRIED: &str = "SELECT pg_catalog.current_setting('statement_timeout'); SET statement_timeout = 0";

/// What to ask a server that has the settings `vars`, but for what code has changed; `first` is another question, of
/// which the answer is one text without line breaks. `names`: settings that no server lists.
pub(super) fn questions(first: &str, vars: &Vars, names: &BTreeSet<String>) -> [String; 2] {
    let known = vars.settings.names().filter(|name| name.contains('.'));
    let names: BTreeSet<&str> = names.iter().map(String::as_str).chain(known).collect();
    let names = names.into_iter().filter(|name| !name.starts_with("pgherd."));
    let list: Vec<String> =
        UNLISTED.into_iter().chain(names).map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    // In hexadecimal, whatever the client's encoding is.
    let shown = format!(
        "(SELECT coalesce(pg_catalog.string_agg(s.n || ':' || pg_catalog.encode(pg_catalog.convert_to( \
             coalesce(pg_catalog.current_setting(s.n, true), ''), 'UTF8'), 'hex'), ','), '') \
         FROM (SELECT pg_catalog.lower(name) AS n FROM pg_catalog.pg_settings WHERE source = 'session' \
               AND name NOT LIKE 'transaction\\_%' \
               UNION SELECT pg_catalog.unnest(ARRAY[{}]::text[])) s)",
        list.join(",")
    );
    let script = vars.settings.script();
    [UNHURRIED.to_owned(), format!("SELECT ({first}) || E'\\n' || {shown}; {script}; SELECT {shown}")]
}

/// What the answers to [`questions`] say: the answer to the first one, and the settings that the session has now if they
/// are others. `None`: it cannot be told.
pub(super) fn answers(rows: &[String], vars: &Arc<Vars>) -> Option<(String, Option<Arc<Vars>>)> {
    let [timeout, left, .., own] = rows else { return None };
    let (first, left) = left.split_once('\n')?;
    let (mut left, own) = (shown(left)?, shown(own)?);
    left.insert(STATEMENT_TIMEOUT.to_owned(), timeout.clone());
    let names: BTreeSet<&String> = left.keys().chain(own.keys()).collect();
    // Another session user has no role yet: that is first.
    let (user, others): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name| *name == "session_authorization");
    let mut now: Option<Arc<Vars>> = None;
    for name in user.into_iter().chain(others) {
        let value = left.get(name);
        if value == own.get(name) {
            continue;
        }
        let before = now.as_ref().unwrap_or(vars);
        now = Some(match value {
            Some(value) if name != "role" || value != "none" => before.with(&SetParameter::to(name, value)),
            Some(_) | None => before.reset(Some(name)),
        });
    }
    Some((first.to_owned(), now))
}

fn shown(text: &str) -> Option<Shown> {
    let one = |entry: &str| {
        let (name, hex) = entry.split_once(':')?;
        let bytes: Option<Vec<u8>> = hex
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        Some((name.to_owned(), String::from_utf8(bytes?).ok()?))
    };
    text.split(',').filter(|entry| !entry.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|b| format!("{b:02x}")).collect()
    }

    fn row(settings: &[(&str, &str)]) -> String {
        let all: Vec<String> =
            settings.iter().map(|(name, value)| format!("{name}:{}", hex(value))).collect();
        all.join(",")
    }

    #[test]
    fn what_differs_from_the_known_settings_becomes_the_sessions_own() {
        let vars = Vars::of_startup(&[("work_mem".into(), "1MB".into())], false);
        let vars = vars.with(&SetParameter::to("jit", "off"));
        let own = row(&[("jit", "off"), ("work_mem", "1MB"), ("role", "none"), ("statement_timeout", "0")]);
        let left = |settings| format!("ta\n{}", row(settings));
        let same = left(&[("jit", "off"), ("work_mem", "1MB"), ("role", "none")]);
        let found = answers(&["0".into(), same, "a value".into(), own.clone()], &vars);
        assert_eq!(found, Some(("ta".into(), None)));
        let other = left(&[("work_mem", "2MB"), ("role", "none"), ("search_path", "a, B")]);
        let found = answers(&["1s".into(), other, own], &vars);
        let now = found.and_then(|(_, now)| now).expect("they differ");
        let expected = Vars::of_startup(&[("work_mem".into(), "1MB".into())], false);
        let expected = expected.with(&SetParameter::to("work_mem", "2MB"));
        let expected = expected.with(&SetParameter::to("search_path", "a, B"));
        let expected = expected.with(&SetParameter::to("statement_timeout", "1s"));
        assert_eq!(now, expected);
        assert_eq!(now.env.search_path, Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn nothing_is_told_by_an_answer_that_is_cut_short() {
        let vars = Vars::of_startup(&[], false);
        assert_eq!(answers(&[], &vars), None);
        assert_eq!(answers(&["0".into(), "t".into(), String::new()], &vars), None);
        assert_eq!(answers(&["0".into(), "t\na:6".into(), "a:zz".into()], &vars), None);
    }
}
