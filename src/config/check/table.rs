//! The rules of `[[database.table]]` and its keys.
//! Must not know column types: a key's values stay numbers or text until the catalog is known.

use std::collections::HashMap;

use toml::Spanned;

use crate::shard::{Key, KeyColumn, Method, PartitionId, Placement, TableName};

use super::super::raw::{RawBound, RawKey, RawTable, RawValue};
use super::OWN_DATABASE;
use super::collect::{At, Checker};
use super::shard::shard_named;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sharded,
    Reference,
    Single,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Hash,
    List,
    Range,
}

pub(super) fn table(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawTable,
    shards: &[String],
    partitions: &[String],
) -> Option<(TableName, Placement)> {
    let name = table_name(c, at, raw);
    let kind = kind(c, at, raw);
    if let Some(key) = raw.keys.first().filter(|_| kind.is_some_and(|k| k != Kind::Sharded)) {
        c.error(
            &key.span(),
            "database.table.keys",
            "only sharded tables have keys",
            "remove keys or mend placement",
        );
    }
    if let Some(shard) = raw.shard.as_ref().filter(|_| kind.is_some_and(|k| k != Kind::Single)) {
        let what = "only a single table names its shard";
        c.error(&shard.span(), "database.table.shard", what, "remove shard, or use placement = \"single\"");
    }
    let placement = match kind? {
        Kind::Reference => Placement::Reference,
        Kind::Single => Placement::Single(match &raw.shard {
            Some(name) => shard_named(c, name, "database.table.shard", shards),
            None => {
                c.error(at, "database.table.shard", "is missing", "name the shard that holds the table");
                return None;
            }
        }),
        Kind::Sharded => Placement::Sharded(keys(c, at, raw, partitions)),
    };
    Some((name?, placement))
}

/// Without `placement`, keys make a table sharded and a shard makes it single.
fn kind(c: &mut Checker<'_>, at: &At, raw: &RawTable) -> Option<Kind> {
    let words = [("sharded", Kind::Sharded), ("reference", Kind::Reference), ("single", Kind::Single)];
    let key = "database.table.placement";
    if let Some(word) = &raw.placement {
        let kind = words.iter().find(|(w, _)| w == word.get_ref()).map(|(_, kind)| *kind);
        if kind.is_none() {
            c.choice(Some(word), key, &words, Kind::Reference);
        }
        return kind;
    }
    match (raw.keys.is_empty(), &raw.shard) {
        (false, _) => Some(Kind::Sharded),
        (true, Some(_)) => Some(Kind::Single),
        (true, None) => {
            c.error(
                at,
                key,
                "is missing",
                "write \"sharded\" (with keys), \"reference\" or \"single\" (with shard)",
            );
            None
        }
    }
}

/// `schema.table`, or `table` in `public`; both as in the catalogs, so `Users` is not `users`.
fn table_name(c: &mut Checker<'_>, at: &At, raw: &RawTable) -> Option<TableName> {
    let key = "database.table.name";
    let text = c.name(&raw.name, at, key);
    let at = raw.name.as_ref()?.span();
    let (schema, name) = text.split_once('.').unwrap_or(("public", &text));
    if text.is_empty() {
        return None;
    }
    if schema.is_empty() || name.is_empty() || name.contains(['.', '"']) || schema.contains('"') {
        let remedy = "write table or schema.table without quotes, spelt as in the catalogs";
        c.error(&at, key, format!("\"{text}\" is not the name of a table"), remedy);
        return None;
    }
    if matches!(schema, "pg_catalog" | "information_schema" | "pg_temp" | "pg_toast" | OWN_DATABASE) {
        let what = format!("schema \"{schema}\" belongs to the system");
        c.error(&at, key, what, "remove this table");
        return None;
    }
    Some(TableName::new(schema, name))
}

fn keys(c: &mut Checker<'_>, at: &At, raw: &RawTable, partitions: &[String]) -> Vec<KeyColumn> {
    if raw.keys.is_empty() {
        let remedy = "write keys = [{ column = \"…\", method = \"hash\" }]";
        c.error(at, "database.table.keys", "a sharded table needs a key", remedy);
    }
    if partitions.is_empty() {
        let what = "a sharded table needs partitions, and the database has none";
        c.error(at, "database.table", what, "add [[database.partition]] tables");
    }
    let mut seen = Vec::new();
    let several = raw.keys.len() > 1;
    let key = |key: &Spanned<RawKey>| {
        let (at, raw) = (key.span(), key.get_ref());
        let column = c.unique_name(&raw.column, &at, "database.table.keys.column", &mut seen);
        let method = method(c, &at, raw, partitions);
        let fill = fill(c, &at, raw, &method, several, partitions);
        KeyColumn { column, method, fill }
    };
    raw.keys.iter().map(key).collect()
}

fn method(c: &mut Checker<'_>, at: &At, raw: &RawKey, partitions: &[String]) -> Method {
    let words = [("hash", By::Hash), ("list", By::List), ("range", By::Range)];
    let by = c.choice(raw.method.as_ref(), "database.table.keys.method", &words, By::Hash);
    if let Some(values) = raw.values.as_ref().filter(|_| by != By::List) {
        let remedy = "remove values, or use method = \"list\"";
        c.error(&values.span(), "database.table.keys.values", "are for method \"list\"", remedy);
    }
    if let Some(bounds) = raw.bounds.as_ref().filter(|_| by != By::Range) {
        let remedy = "remove bounds, or use method = \"range\"";
        c.error(&bounds.span(), "database.table.keys.bounds", "are for method \"range\"", remedy);
    }
    match by {
        By::Hash => Method::Hash,
        By::List => Method::List(list(c, raw, partitions)),
        By::Range => Method::Range(range(c, at, raw, partitions)),
    }
}

/// Value to partition; without `values` each partition's name is its value.
fn list(c: &mut Checker<'_>, raw: &RawKey, partitions: &[String]) -> HashMap<Key, PartitionId> {
    let key = "database.table.keys.values";
    let id = |i: usize| PartitionId(i as u16);
    let Some(values) = &raw.values else {
        return partitions.iter().enumerate().map(|(i, name)| (Key::Text(name.clone()), id(i))).collect();
    };
    if values.get_ref().is_empty() {
        c.error(&values.span(), key, "is empty", "write { value = \"partition\", … }, or leave the key out");
    }
    let mut map = HashMap::new();
    for (value, name) in values.get_ref() {
        if let Some(i) = c.position(name, key, "partition", partitions) {
            map.insert(Key::Text(value.clone()), id(i));
        }
    }
    map
}

fn range(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawKey,
    partitions: &[String],
) -> Vec<(Option<Key>, PartitionId)> {
    let key = "database.table.keys.bounds";
    let Some(bounds) = raw.bounds.as_ref().filter(|b| !b.get_ref().is_empty()) else {
        let remedy = "write bounds = [{ from = 0, partition = \"…\" }, …]; the first may leave from out";
        c.error(at, key, "a range key needs bounds", remedy);
        return Vec::new();
    };
    let mut found: Vec<(Option<Key>, PartitionId)> = Vec::new();
    for bound in bounds.get_ref() {
        let from = from(c, bound, found.last().map(|(last, _)| last.as_ref()));
        let partition = match &bound.get_ref().partition {
            Some(name) => c.position(name, key, "partition", partitions),
            None => {
                c.error(&bound.span(), key, "the bound names no partition", "add partition = \"…\"");
                None
            }
        };
        found.push((from, PartitionId(partition.unwrap_or(0) as u16)));
    }
    found
}

/// One lower bound, checked against the one before it (`None` if it is the first).
fn from(c: &mut Checker<'_>, bound: &Spanned<RawBound>, before: Option<Option<&Key>>) -> Option<Key> {
    let key = "database.table.keys.bounds";
    let Some(field) = &bound.get_ref().from else {
        if before.is_some() {
            c.error(&bound.span(), key, "only the first bound may leave from out", "add from = …");
        }
        return None;
    };
    let from = match field.get_ref() {
        RawValue::Int(n) => Key::Int(*n),
        RawValue::Text(text) => Key::Text(text.clone()),
    };
    match (before.flatten(), &from) {
        (Some(Key::Int(_)), Key::Text(_)) | (Some(Key::Text(_)), Key::Int(_)) => {
            c.error(&field.span(), key, "bounds mix numbers and text", "use one kind, as the column has it");
        }
        (Some(last), from) if last >= from => {
            let what = format!("{from} does not come after {last}");
            c.error(&field.span(), key, what, "write the bounds in ascending order (text goes by bytes)");
        }
        (Some(_) | None, _) => {}
    }
    Some(from)
}

/// Whether the proxy fills the column in: only a list key beside another key, with one value for each partition.
fn fill(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawKey,
    method: &Method,
    several: bool,
    partitions: &[String],
) -> bool {
    let key = "database.table.keys.fill";
    let wanted = raw.fill.as_ref().map(|f| (*f.get_ref(), f.span()));
    let Method::List(values) = method else {
        if let Some((true, at)) = wanted {
            c.error(&at, key, "only a list key can be filled in", "remove fill");
        }
        return false;
    };
    if !several {
        if let Some((true, at)) = wanted {
            c.error(&at, key, "a lone key cannot be filled in: nothing says the partition", "remove fill");
        }
        return false;
    }
    let count = |i: usize| values.values().filter(|id| id.index() == i).count();
    if let Some((_, name)) = partitions.iter().enumerate().find(|(i, _)| count(*i) == 0) {
        let at = raw.values.as_ref().map_or_else(|| at.clone(), Spanned::span);
        let what = format!("no value stands for partition \"{name}\", so its rows could not be stored");
        c.error(&at, "database.table.keys.values", what, format!("add value = \"{name}\""));
    }
    let several_values = partitions.iter().enumerate().find(|(i, _)| count(*i) > 1);
    if let (Some((true, at)), Some((_, name))) = (&wanted, several_values) {
        let what = format!("partition \"{name}\" has several values, so none can be filled in");
        c.error(at, key, what, "give each partition one value, or remove fill");
    }
    wanted.map_or(several_values.is_none(), |(fill, _)| fill)
}
