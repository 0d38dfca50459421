//! Names as PostgreSQL reads them, and the relations they mean under a search path.
//! Must not know expressions, keys or shards.

use sqlparser::ast::{Ident, ObjectName, ObjectNamePart};

use super::Context;
use crate::catalog::Relation;
use crate::shard::TableName;

/// `NAMEDATALEN - 1`: what is longer is cut, with a notice.
const LONGEST: usize = 63;

/// An identifier folded and cut as PostgreSQL does.
pub(super) fn folded(ident: &Ident) -> String {
    let mut name = match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    };
    if name.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        name.truncate(end);
    }
    name
}

/// The parts of a name, folded; `None` if it is not made of identifiers.
pub(super) fn parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0
        .iter()
        .map(|part| match part {
            ObjectNamePart::Identifier(ident) => Some(folded(ident)),
            ObjectNamePart::Function(_) => None,
        })
        .collect()
}

/// The last part of a name, folded: a function's name without its schema.
pub(super) fn last(name: &ObjectName) -> Option<String> {
    match name.0.last()? {
        ObjectNamePart::Identifier(ident) => Some(folded(ident)),
        ObjectNamePart::Function(_) => None,
    }
}

/// Whether a name is the unquoted word ONLY, which the parser takes for a table.
pub(super) fn is_only(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(ident)]
        if ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("only"))
}

/// What a table name means.
#[derive(Debug, Clone)]
pub(super) enum Found<'a> {
    /// A relation of the catalog.
    Known(TableName, &'a Relation),
    /// A relation of pg_catalog or information_schema.
    System,
    /// One that the catalog does not have; the name under which the config may know it.
    Unknown(TableName),
    /// It depends on what the proxy cannot know.
    Unclear,
}

/// Looks a name of one to three parts up.
pub(super) fn relation<'a>(parts: &[String], ctx: &Context<'a>) -> Found<'a> {
    match parts {
        [name] => by_search_path(name, ctx),
        [schema, name] | [_, schema, name] => by_schema(schema, name, ctx),
        _ => Found::Unclear,
    }
}

fn by_schema<'a>(schema: &str, name: &str, ctx: &Context<'a>) -> Found<'a> {
    if is_system(schema) {
        return Found::System;
    }
    let key = (schema.to_owned(), name.to_owned());
    match ctx.catalog.relations.get(&key) {
        Some(relation) => Found::Known(TableName::new(schema, name), relation),
        None => Found::Unknown(TableName::new(schema, name)),
    }
}

fn by_search_path<'a>(name: &str, ctx: &Context<'a>) -> Found<'a> {
    let path = ctx.env.search_path.as_ref().unwrap_or(&ctx.catalog.search_path);
    let mut users_own = false; // "$user" names a schema that only the server can tell
    let mut system_first = false; // what information_schema has is not listed in the catalog
    for schema in path {
        if schema == "$user" {
            users_own = true;
        } else if schema == "information_schema" {
            system_first = true;
        } else if let Found::Known(table, relation) = by_schema(schema, name, ctx) {
            let elsewhere = |(s, n): &(String, String)| n == name && !path.contains(s);
            if system_first || users_own && ctx.catalog.relations.keys().any(elsewhere) {
                return Found::Unclear;
            }
            return Found::Known(table, relation);
        }
    }
    if system_first || name.starts_with("pg_") {
        return Found::System;
    }
    let configured = path.iter().map(|s| TableName::new(s.as_str(), name));
    let named = configured.into_iter().find(|table| ctx.map.tables.contains_key(table));
    Found::Unknown(named.unwrap_or_else(|| TableName::new(path.first().map_or("public", |s| s), name)))
}

fn is_system(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_folded_unless_quoted_and_cut_at_a_character() {
        let long = "a".repeat(70);
        let wide = "é".repeat(40);
        for (ident, want) in [
            (Ident::new("Users"), "users"),
            (Ident::with_quote('"', "Users"), "Users"),
            (Ident::new(long.as_str()), &long[..63]),
            (Ident::with_quote('"', wide.as_str()), &wide[..62]),
        ] {
            assert_eq!(folded(&ident), want);
        }
    }
}
