//! `SELECT set_config(name, value, is_local)`, where it stands alone: what it sets.
//! Must not know what any parameter does. A call among other things is not understood here: it ties the session down.

use super::lex::TokenKind;
use super::words::Words;
use super::{ConfigCall, ConfigValue, Env, Param, RouteError, SetParameter};

/// The calls of a SELECT that does nothing else.
pub(super) fn calls(statement: &[u8], env: &Env) -> Option<Vec<ConfigCall>> {
    let mut words = Words::new(statement, env.nonstandard_strings);
    let w = &mut words;
    if !w.eat("select") {
        return None;
    }
    let mut calls = Vec::new();
    loop {
        calls.push(call(w, env)?);
        if w.is_done() {
            return Some(calls);
        }
        if !w.eat_symbol(b',') {
            return None;
        }
    }
}

fn call(w: &mut Words<'_>, env: &Env) -> Option<ConfigCall> {
    let name = w.qualified_name()?;
    let ours = match name.as_slice() {
        [name] => name == "set_config",
        [schema, name] => schema == "pg_catalog" && name == "set_config",
        _ => false,
    };
    if !ours || !w.eat_symbol(b'(') {
        return None;
    }
    let name = argument(w, env)?;
    w.eat_symbol(b',').then_some(())?;
    let value = argument(w, env)?;
    w.eat_symbol(b',').then_some(())?;
    let local = argument(w, env)?;
    w.eat_symbol(b')').then_some(())?;
    cast(w)?;
    if w.eat("as") || !(w.is_done() || w.peek().is_some_and(|t| t.is_symbol(b','))) {
        w.name()?;
    }
    Some(ConfigCall { name, value, local })
}

fn argument(w: &mut Words<'_>, env: &Env) -> Option<ConfigValue> {
    let value = if w.eat("null") {
        ConfigValue::Null
    } else if let Some(word) = w.eat_any(&["true", "false"]) {
        ConfigValue::Text(word.to_owned())
    } else if let Some(token) = w.peek().filter(|t| t.kind == TokenKind::Param) {
        let digits = std::str::from_utf8(token.bytes(w.text())).ok()?.trim_start_matches('$');
        w.bump();
        ConfigValue::Param(digits.parse::<usize>().ok()?.checked_sub(1)?)
    } else {
        ConfigValue::Text(w.string(env)?)
    };
    cast(w)?;
    Some(value)
}

/// Steps over a cast to a type that leaves the value as it is.
fn cast(w: &mut Words<'_>) -> Option<()> {
    while w.eat_operator("::") {
        w.eat_any(&["text", "bool", "boolean", "varchar"])?;
    }
    Some(())
}

/// What calls set with these values.
pub(super) fn evaluate(calls: &[ConfigCall], params: &[Param<'_>]) -> Result<Vec<SetParameter>, RouteError> {
    let mut sets = Vec::new();
    for call in calls {
        let Some(name) = text(&call.name, params)? else { continue }; // the server's error
        let name = name.to_lowercase();
        if name.starts_with("pgherd.") {
            return Err(RouteError::Refused {
                what: format!("set_config of \"{name}\", which is pgherd's own"),
                hint: format!("Use SET {name}, or SET LOCAL {name}."),
            });
        }
        let local = match &call.local {
            ConfigValue::Param(n) => params.get(*n).and_then(|p| truth(p)),
            ConfigValue::Text(text) => parse_bool(text),
            ConfigValue::Null => Some(false), // as PostgreSQL takes it
        };
        let local = local.ok_or_else(|| unknown("its third argument"))?;
        let value = text(&call.value, params)?;
        sets.push(match value {
            Some(value) => SetParameter { local, ..SetParameter::to(&name, &value) },
            None => {
                let sql = format!("SELECT pg_catalog.set_config({}, NULL, false)", quoted(&name));
                SetParameter { name, local, values: Vec::new(), sql }
            }
        });
    }
    Ok(sets)
}

impl SetParameter {
    /// For the session, as `set_config` takes the value: a list as it is written there.
    #[must_use]
    pub fn to(name: &str, value: &str) -> Self {
        let values = if name == "search_path" && !value.trim().is_empty() {
            names_of_list(value)
        } else {
            vec![value.to_owned()]
        };
        let sql = format!("SELECT pg_catalog.set_config({}, {}, false)", quoted(name), quoted(value));
        Self { name: name.to_owned(), local: false, values, sql }
    }
}

fn text(value: &ConfigValue, params: &[Param<'_>]) -> Result<Option<String>, RouteError> {
    match value {
        ConfigValue::Null => Ok(None),
        ConfigValue::Text(text) => Ok(Some(text.clone())),
        ConfigValue::Param(n) => match params.get(*n).map(|p| p.value) {
            Some(None) => Ok(None),
            Some(Some(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err(unknown("a value that is not UTF-8")),
            },
            None => Ok(None), // too few values: the server's error
        },
    }
}

fn truth(param: &Param<'_>) -> Option<bool> {
    match (param.value, param.binary) {
        (None, _) => Some(false),
        (Some([byte]), true) => Some(*byte != 0),
        (Some(text), false) => parse_bool(std::str::from_utf8(text).ok()?),
        (Some(_), true) => None,
    }
}

/// A boolean as PostgreSQL reads it: any unique prefix. Source: `parse_bool_with_len`.
fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let is = |word: &str, shortest: usize| text.len() >= shortest && word.starts_with(text.as_str());
    if is("true", 1) || is("yes", 1) || is("on", 2) || text == "1" {
        Some(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || text == "0" {
        Some(false)
    } else {
        None
    }
}

fn unknown(what: &str) -> RouteError {
    RouteError::Refused {
        what: format!("set_config with {what}"),
        hint: "Write its arguments as constants, or use SET.".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A list of names as in a parameter's value: commas between, names folded unless quoted.
#[must_use]
pub fn names_of_list(list: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = list.trim();
    while !rest.is_empty() {
        let (name, tail) = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            (quoted.get(..end).unwrap_or_default().to_owned(), quoted.get(end + 1..).unwrap_or_default())
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            (rest.get(..end).unwrap_or_default().trim().to_lowercase(), rest.get(end..).unwrap_or_default())
        };
        names.push(name);
        rest = tail.trim_start().trim_start_matches(',').trim_start();
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(sql: &str, params: &[Param<'_>]) -> String {
        let Some(calls) = calls(sql.as_bytes(), &Env::default()) else { return "not understood".into() };
        match evaluate(&calls, params) {
            Ok(sets) => sets
                .iter()
                .map(|s| format!("{}={} [{}]", s.name, s.values.join("|"), s.statement()))
                .collect::<Vec<_>>()
                .join("; "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn calls_that_stand_alone_are_understood_and_others_are_not() {
        let text = |value: &'static str| Param { value: Some(value.as_bytes()), binary: false, type_oid: 0 };
        let params = [text("a.b"), text("it's"), Param { value: Some(&[1]), binary: true, type_oid: 16 }];
        for (sql, want) in [
            (
                "SELECT set_config('TimeZone', 'UTC', false)",
                "timezone=UTC [SELECT pg_catalog.set_config(E'timezone', E'UTC', false)]",
            ),
            (
                "select pg_catalog.set_config('search_path', 'a, \"B\"', 'on') as x",
                "search_path=a|B [SELECT pg_catalog.set_config(E'search_path', E'a, \"B\"', true)]",
            ),
            (
                "select set_config($1, $2::text, $3), set_config('role', null, false) r",
                "a.b=it's [SELECT pg_catalog.set_config(E'a.b', E'it\\'s', true)]; \
                 role= [SELECT pg_catalog.set_config(E'role', NULL, false)]",
            ),
            (
                "select set_config('pgherd.shard', 'x', false)",
                "set_config of \"pgherd.shard\", which is pgherd's own",
            ),
            ("select set_config('a.b', 'x', 'perhaps')", "set_config with its third argument"),
            ("select set_config('a.b', 'x' || 'y', false)", "not understood"),
            ("select set_config('a.b', 'x', false) from t", "not understood"),
            ("select set_config('a.b', 'x', false), 1", "not understood"),
            ("select mine.set_config('a.b', 'x', false)", "not understood"),
            ("select set_config('a.b', 'x')", "not understood"),
        ] {
            assert_eq!(shown(sql, &params), want, "{sql}");
        }
    }
}
