//! TOML text to the raw types: syntax, unknown keys and wrong types, all of them in one go.
//! Must not know the rules that hold between keys.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::raw::RawConfig;

/// A finding at a place of the text: bytes, key, what is wrong, remedy.
pub(super) struct Finding {
    pub(super) at: Range<usize>,
    pub(super) key: Option<String>,
    pub(super) what: String,
    pub(super) remedy: String,
}

/// Reads the text. serde stops at its first finding, so the offending key is taken out and the rest read again.
pub(super) fn read(text: &str) -> Result<RawConfig, Vec<Finding>> {
    let mut table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(e) => return Err(vec![syntax(&e)]),
    };
    let mut findings = Vec::new();
    loop {
        let whole = Spanned::new(table.span(), DeValue::Table(table.get_ref().clone()));
        match RawConfig::deserialize(ValueDeserializer::from(whole)) {
            Ok(raw) if findings.is_empty() => return Ok(raw),
            Ok(_) => return Err(findings),
            Err(e) => {
                let at = e.span().unwrap_or(0..0);
                let taken = take_out(table.get_mut(), &at);
                let stuck = taken.is_none();
                findings.push(explain(e.message(), at, taken));
                if stuck {
                    return Err(findings);
                }
            }
        }
    }
}

fn syntax(error: &toml::de::Error) -> Finding {
    Finding {
        at: error.span().unwrap_or(0..0),
        key: None,
        what: format!("not TOML: {}", error.message()),
        remedy: "mend the syntax (text goes in quotes, lists in [ ], one key a line)".to_owned(),
    }
}

/// Removes the innermost entry whose key or value is at `at`; gives its dotted path.
fn take_out(table: &mut DeTable<'_>, at: &Range<usize>) -> Option<String> {
    for (key, value) in table.iter_mut() {
        let inner = match value.get_mut() {
            DeValue::Table(inner) => take_out(inner, at),
            DeValue::Array(items) => items.iter_mut().find_map(|item| match item.get_mut() {
                DeValue::Table(inner) => take_out(inner, at),
                DeValue::Array(_)
                | DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => None,
            }),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => None,
        };
        if let Some(path) = inner {
            return Some(format!("{}.{path}", key.get_ref()));
        }
    }
    let holds = |span: Range<usize>| span.start <= at.start && at.end <= span.end;
    let key = table.iter().find(|(k, v)| k.span() == *at || holds(v.span())).map(|(k, _)| k.clone())?;
    table.remove(&key);
    Some(key.into_inner().into_owned())
}

/// serde's words in ours. Values are never repeated: they may be passwords.
fn explain(message: &str, at: Range<usize>, key: Option<String>) -> Finding {
    let (what, remedy) = match message.strip_prefix("unknown field ") {
        Some(rest) => {
            let mut names = rest.split('`').skip(1).step_by(2);
            let wrong = names.next().unwrap_or_default();
            ("unknown key".to_owned(), did_you_mean(wrong, names))
        }
        None => wrong_type(message),
    };
    Finding { at, key, what, remedy }
}

fn wrong_type(message: &str) -> (String, String) {
    let expected = message.rsplit_once(", expected ").map_or("", |(_, e)| e.trim());
    let (is, write) = match expected {
        "a string" => ("text", "put it in quotes"),
        "a boolean" => ("true or false", "write true or false without quotes"),
        "a sequence" => {
            ("a list", "write [ … ], or [[…]] as the header of a table that can be there several times")
        }
        "a map" => ("a table", "write { key = value, … }"),
        "a whole number or a string" => ("a whole number or text", "write 100 or \"100\""),
        e if e.starts_with("u64") => ("a whole number, 0 or more", "write digits only, without quotes"),
        e if e.starts_with("struct") => ("a table", "write { key = value, … } or a [header]"),
        _ => ("of another type", "see the configuration reference"),
    };
    (format!("must be {is}"), write.to_owned())
}

/// How many names a remedy lists.
const MOST_NAMES: usize = 16;

/// `did you mean "…"?` if one of the names is near, else what there is.
pub(super) fn did_you_mean<'n>(wrong: &str, names: impl IntoIterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    let near = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        // Among names of one or two letters everything is near.
        .filter(|(distance, name)| name.len() > 2 && *distance <= (name.len() / 3).clamp(1, 4))
        .min();
    match near {
        Some((_, name)) => format!("did you mean \"{name}\"?"),
        None if names.is_empty() => "there is none to name".to_owned(),
        None => {
            let shown: Vec<String> = names.iter().take(MOST_NAMES).map(|n| format!("\"{n}\"")).collect();
            let more = if names.len() > MOST_NAMES { ", …" } else { "" };
            format!("there are {}{more}", shown.join(", "))
        }
    }
}
