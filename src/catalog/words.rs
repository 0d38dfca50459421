//! What the words of a piece of code say that it may leave in a session, and the settings that it names.
//! Must not know which language it is in: quotes and comments are looked into as well, for code hides in strings.

use std::collections::BTreeSet;

use super::Leaves;

/// Words of code that may make or drop a temporary table, listen, hold a cursor, prepare, or run what is not known.
const TRACES: &[&str] = &[
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
    "set_limit",
];

/// Functions that run a text as SQL.
const RUN_TEXT: &[&str] = &[
    "connectby",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "cursor_to_xml",
    "database_to_xml",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "schema_to_xml",
    "table_to_xml",
    "ts_rewrite",
    "ts_stat",
    "xpath_table",
];

/// What these keep can be neither listed nor undone.
const FOREVER: &[&str] = &[
    "dblink_connect",
    "dblink_connect_u",
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_replication_origin_session_setup",
    "setseed",
];

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What it may leave.
    pub(super) leaves: Option<Leaves>,
    /// All words in lower case.
    pub(super) words: BTreeSet<String>,
    /// The names with a dot among the settings that it sets.
    pub(super) settings: BTreeSet<String>,
}

/// What a function of this name leaves, whatever its body.
#[must_use]
pub fn of_name(name: &str) -> Option<Leaves> {
    let lock = name.strip_prefix("pg_advisory_").or_else(|| name.strip_prefix("pg_try_advisory_"));
    if FOREVER.contains(&name) {
        Some(Leaves::Forever)
    } else if TRACES.contains(&name)
        || RUN_TEXT.contains(&name)
        || lock.is_some_and(|rest| !rest.starts_with("xact_"))
    {
        Some(Leaves::Traces)
    } else {
        None
    }
}

/// What a text may leave if it is run as code.
#[must_use]
pub fn of_text(text: &str) -> Option<Leaves> {
    scan(text).leaves
}

/// Whether code with these words, in a language of its own or SQL, may ask what was drawn from a sequence: by name, or in
/// a text that it runs.
pub(super) fn tell_sequences(words: &BTreeSet<String>, is_sql: bool) -> bool {
    let any = |names: &[&str]| names.iter().any(|name| words.contains(*name));
    any(&["currval", "lastval"]) || any(RUN_TEXT) || !is_sql && any(&["execute"])
}

/// The words of a piece of code, in lower case.
pub(super) fn of(source: &str) -> BTreeSet<String> {
    scan(source).words
}

/// Whether code in a language of its own uses the memory that all functions of the session share.
pub(super) fn shares_memory(source: &str) -> bool {
    tokens(source).any(|t| matches!(t.text, "GD" | "SD" | "_SHARED" | "global" | "globalThis" | "plv8"))
}

/// Reads a piece of code.
pub(super) fn scan(source: &str) -> Found {
    let mut found = Found::default();
    let tokens: Vec<Token<'_>> = tokens(source).collect();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.is_word()) {
        let word = token.text.to_lowercase();
        let said = match word.as_str() {
            "set_config" if tokens.get(at + 1).is_some_and(|t| t.text == "(") => {
                configured(source, token.end(), &mut found.settings)
            }
            "set" | "reset" if begins_command(source, &tokens, at) => {
                assigned(source, tokens.get(at + 1..).unwrap_or_default(), word == "set", &mut found.settings)
            }
            // A comment or the end of a string before its arguments.
            "set_config" if tokens.get(at + 1).is_some_and(|t| matches!(t.text, "/" | "-" | "'" | "|")) => {
                Some(Leaves::Nameless)
            }
            "set_config" => None, // a name that stands for something else
            // A name in Unicode escapes may be any.
            "u" if source.get(token.end()..).is_some_and(|rest| rest.starts_with("&\"")) => {
                Some(Leaves::Nameless)
            }
            // A library stays loaded.
            "load" if tokens.get(at + 1).is_some_and(|t| t.text == "'") => Some(Leaves::Forever),
            word => of_name(word),
        };
        found.leaves = found.leaves.max(said);
        found.words.insert(word);
    }
    // Names may hold a dollar sign.
    let inside = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let with_dollars = source.split(|c| !inside(c)).filter(|word| word.contains('$'));
    found.words.extend(with_dollars.map(str::to_lowercase));
    found
}

/// A word, or one other character.
#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    at: usize,
    text: &'a str,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }

    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }

    fn is(&self, word: &str) -> bool {
        self.text.eq_ignore_ascii_case(word)
    }
}

fn tokens(source: &str) -> impl Iterator<Item = Token<'_>> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = source.get(at..)?;
        let start = at + rest.find(|c: char| !c.is_whitespace())?;
        let rest = source.get(start..)?;
        let first = rest.chars().next()?;
        let length =
            if inside(first) { rest.find(|c| !inside(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        at = start + length;
        Some(Token { at: start, text: rest.get(..length)? })
    })
}

/// Whether a word stands where a statement begins, in the code or in a string of it; `UPDATE t SET` does not.
fn begins_command(source: &str, tokens: &[Token<'_>], at: usize) -> bool {
    let Some(word) = tokens.get(at) else { return false };
    let before = tokens.get(..at).unwrap_or_default();
    let Some(last) = before.last() else { return true };
    let between = source.get(last.end()..word.at).unwrap_or_default();
    if between.contains('\n') {
        let line = source.get(..last.end()).unwrap_or_default();
        let line = line.rsplit('\n').next().unwrap_or_default();
        if line.contains("--") {
            return true; // what the last word belongs to is a comment
        }
    }
    match last.text {
        ";" | ">" | "/" | "$" | "{" => true,
        "'" | "\"" => {
            // The beginning of a string, unless that goes on with another.
            before.iter().rev().find(|t| !matches!(t.text, "'" | "\"")).is_none_or(|t| t.text != "|")
        }
        word => ["begin", "then", "else", "loop", "atomic", "declare"]
            .iter()
            .any(|w| word.eq_ignore_ascii_case(w)),
    }
}

/// After SET or RESET as a command.
fn assigned(source: &str, rest: &[Token<'_>], set: bool, names: &mut BTreeSet<String>) -> Option<Leaves> {
    let mut rest = rest;
    if let Some(first) = rest.first().filter(|_| set) {
        if ["local", "constraints", "transaction"].iter().any(|w| first.is(w)) {
            return None; // over with the transaction
        }
        if first.is("session") {
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    let quoted = rest.first().is_some_and(|t| t.text == "\"");
    let Some(start) = rest.get(usize::from(quoted)).filter(|t| t.is_word()) else {
        return Some(Leaves::Nameless);
    };
    let text = source.get(start.at..).unwrap_or_default();
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '.' | '"');
    let length = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    let written = text.get(..length).unwrap_or_default();
    let after = text.get(length..).unwrap_or_default().trim_start();
    let name = written.replace('"', "").to_lowercase();
    if !name.contains('.') {
        return Some(Leaves::Traces);
    }
    let word = after.get(..2).unwrap_or_default();
    let whole = if set {
        after.starts_with('=') || after.starts_with(":=") || word.eq_ignore_ascii_case("to")
    } else {
        !after.trim_start_matches(['\'', '"']).trim_start().starts_with("||")
    };
    if !whole || name.ends_with('.') {
        return Some(Leaves::Nameless);
    }
    names.insert(name);
    Some(Leaves::Traces)
}

/// A call of `set_config`, whose parenthesis opens at or after `from`.
fn configured(source: &str, from: usize, names: &mut BTreeSet<String>) -> Option<Leaves> {
    let rest = source.get(from..).unwrap_or_default();
    let rest = rest.find('(').and_then(|open| rest.get(open + 1..)).unwrap_or_default();
    let Some(arguments) = arguments(rest) else { return Some(Leaves::Nameless) };
    if let [_, _, local] = arguments.as_slice() {
        let local = local.rsplit(['>', '=']).next().unwrap_or_default().trim();
        if local.eq_ignore_ascii_case("true") {
            return None; // over with the transaction
        }
    }
    let first = arguments.first().copied().unwrap_or_default();
    let first = first.strip_suffix("::text").unwrap_or(first).trim();
    let constant = first.strip_prefix(['e', 'E']).unwrap_or(first);
    let name = constant.trim_matches('\'');
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ' ');
    if !constant.starts_with('\'') || !constant.ends_with('\'') || !name.chars().all(plain) {
        return Some(Leaves::Nameless);
    }
    if name.contains('.') {
        names.insert(name.to_lowercase());
    }
    Some(Leaves::Traces)
}

/// What stands between commas up to the closing parenthesis.
fn arguments(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut start, mut depth, mut quoted) = (Vec::new(), 0, 0usize, false);
    for (at, c) in text.char_indices() {
        match c {
            '\'' => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' if depth > 0 => depth -= 1,
            ')' | ',' if depth == 0 => {
                found.push(text.get(start..at)?.trim());
                if c == ')' {
                    return Some(found);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_where_a_command_begins_and_in_calls() {
        use Leaves::{Forever, Nameless, Traces};
        for (source, leaves, names) in [
            ("begin update t set a = 1 where x; end", None, ""),
            ("begin update only s.t as x set a.b = 1; end", None, ""),
            ("insert into t values (1) on conflict do update set a.b = 2", None, ""),
            ("execute format('update %I set %I = 1', t, c)", Some(Traces), ""),
            ("execute 'update ' || t || ' set ' || c || ' = 1'", Some(Traces), ""),
            ("begin set work_mem = '1MB'; end", Some(Traces), ""),
            ("begin set local work_mem = '1MB'; end", None, ""),
            ("begin Set Session App.User_Id to 'x'; end", Some(Traces), "app.user_id"),
            ("if a then -- update\n set a.b = 1; end if", Some(Traces), "a.b"),
            ("begin /* update t */ set a.b = 1; end", Some(Traces), "a.b"),
            ("begin reset a.b; end", Some(Traces), "a.b"),
            ("begin reset all; end", Some(Traces), ""),
            ("do $$begin set a.b = 1; end$$", Some(Traces), "a.b"),
            ("set \"A\".\"b\" = 1", Some(Traces), "a.b"),
            ("execute 'set a.b = ' || quote_literal(x)", Some(Traces), "a.b"),
            ("execute format('set a.b = %L', x)", Some(Traces), "a.b"),
            ("execute format('set %I = %L', n, x)", Some(Nameless), ""),
            ("execute 'set ' || n || ' = 1'", Some(Nameless), ""),
            ("execute 'set a.' || n || ' = 1'", Some(Nameless), ""),
            ("execute 'reset a.b' || n", Some(Nameless), ""),
            ("perform set_config('a.b', x, false)", Some(Traces), "a.b"),
            ("perform pg_catalog.set_config ( 'A.b' , f(x, 'y,'), false)", Some(Traces), "a.b"),
            ("perform set_config('search_path', x, false)", Some(Traces), ""),
            ("perform set_config('a.b', x, true)", None, ""),
            ("perform set_config('a.b', x, is_local => true)", None, ""),
            ("perform set_config('a.b', x, is_local)", Some(Traces), "a.b"),
            ("perform set_config('a.' || k, x, false)", Some(Nameless), ""),
            ("perform set_config(k, x, true)", None, ""),
            ("execute 'select set_config(''a.b'', ''x'', false)'", Some(Traces), "a.b"),
            ("execute format('select set_config(%L, %L, false)', k, v)", Some(Nameless), ""),
            ("select set_config('a.b'::text, v, false) AS set_config", Some(Traces), "a.b"),
            ("select set_config /* ( */ (k, v, false)", Some(Nameless), ""),
            ("plpy.execute(\"set a.b = 1\")", Some(Traces), "a.b"),
            ("begin load 'auto_explain'; end", Some(Forever), ""),
        ] {
            let found = scan(source);
            let settings: Vec<_> = found.settings.into_iter().collect();
            assert_eq!((found.leaves, settings.join(" ").as_str()), (leaves, names), "{source}");
        }
    }

    #[test]
    fn any_text_can_be_read() {
        for text in ["", "'", "set", "reset", "set_config(", "set_config('", "ä set ö.ü = 1", "u&\"", "$"]
        {
            scan(text);
        }
    }
}
