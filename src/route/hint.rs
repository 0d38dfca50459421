//! Routes that the client forces: `/* pgherd: shard=… key=… role=… */` before or right after a statement's first
//! word, and the session's pgherd.shard, pgherd.key, pgherd.role. A comment wins over the session.
//! Must not know statements.

use std::ops::Range;

use crate::catalog::Catalog;
use crate::shard::{Key, KeyColumn, KeyType, Map, Method, Placement, ShardId, TableName};
use crate::wire::SqlState;

use super::{Access, Env, Route, RouteError, Target};

/// What comments of one statement ask for, not yet checked against a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hint {
    shard: Option<String>,
    key: Option<String>,
    role: Option<String>,
}

/// What is forced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Forced {
    /// The shard, whatever the statement is.
    pub(super) shard: Option<ShardId>,
    /// The role of the server.
    pub(super) role: Option<Role>,
}

/// `role=primary` or `role=replica`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Primary,
    Replica,
}

impl Hint {
    /// Reads hint comments: `word=value` pairs between blanks or commas, a value bare or in single quotes.
    ///
    /// # Errors
    /// 22023 for anything else, or for a word given twice.
    pub(super) fn parse(text: &[u8], comments: &[Range<usize>]) -> Result<Self, RouteError> {
        let mut hint = Self::default();
        for comment in comments {
            let bytes = text.get(comment.clone()).unwrap_or_default();
            let written =
                std::str::from_utf8(bytes).map_err(|_| bad("a hint is not UTF-8", WORDS.to_owned()))?;
            let inside = written.strip_prefix("/*").and_then(|s| s.strip_suffix("*/")).unwrap_or_default();
            hint.read(inside.trim().strip_prefix("pgherd:").unwrap_or_default())?;
        }
        Ok(hint)
    }

    fn read(&mut self, pairs: &str) -> Result<(), RouteError> {
        let blank = |c: char| c.is_whitespace() || c == ',';
        let mut rest = pairs.trim_start_matches(blank);
        while !rest.is_empty() {
            let whole = |rest: &str| rest.split(blank).next().unwrap_or_default().to_owned();
            let Some((word, after)) = rest.split_once('=').filter(|(word, _)| !word.contains(blank)) else {
                return Err(bad(format!("hint \"{}\" is not understood", whole(rest)), WORDS.to_owned()));
            };
            let (value, tail) = value(after)
                .ok_or_else(|| bad(format!("hint \"{word}\" has an unterminated value"), WORDS.to_owned()))?;
            let slot = match word {
                "shard" => &mut self.shard,
                "key" => &mut self.key,
                "role" => &mut self.role,
                _ => return Err(bad(format!("there is no hint \"{word}\""), WORDS.to_owned())),
            };
            if slot.replace(value).is_some() {
                return Err(bad(format!("hint \"{word}\" is given twice"), WORDS.to_owned()));
            }
            rest = tail.trim_start_matches(blank);
        }
        Ok(())
    }
}

const WORDS: &str =
    "Hints are shard=NAME, key=VALUE and role=primary or role=replica; quote values with blanks: key='a b'.";

/// A value and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('\'') else {
        let end = text.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(text.len());
        return Some((text.get(..end)?.to_owned(), text.get(end..)?));
    };
    let mut value = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

impl Forced {
    /// What a statement's comments and its session force. An empty setting of the session forces nothing.
    ///
    /// # Errors
    /// 22023 for a shard that does not exist, a key that is none, an unknown role, and for a shard and a key at
    /// once that disagree; the code of the key's type for a value that is none of that type.
    pub(super) fn new(
        hint: Option<&Hint>,
        env: &Env,
        map: &Map,
        catalog: &Catalog,
    ) -> Result<Self, RouteError> {
        let set = |setting: &Option<String>| setting.clone().filter(|value| !value.is_empty());
        let (mut shard, mut key, mut role) = (None, None, None);
        if let Some(hint) = hint {
            (shard, key, role) = (hint.shard.clone(), hint.key.clone(), hint.role.clone());
        }
        if shard.is_none() && key.is_none() {
            (shard, key) = (set(&env.shard), set(&env.key));
        }
        let role = role.or_else(|| set(&env.role)).map(|role| role_named(&role)).transpose()?;
        let shard = shard.map(|name| shard_named(&name, map)).transpose()?;
        let by_key = key.map(|key| shard_of_key(&key, map, catalog)).transpose()?;
        match (shard, by_key) {
            (Some(shard), Some(by_key)) if shard != by_key => {
                let (shard, other) = (map.shard_name(shard), map.shard_name(by_key));
                let what =
                    format!("shard \"{shard}\" is asked for with a key that lives on shard \"{other}\"");
                Err(bad(what, "Give either the shard or the key.".to_owned()))
            }
            _ => Ok(Self { shard: shard.or(by_key), role }),
        }
    }

    /// Whether nothing is forced.
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Lays what is forced over a route.
    ///
    /// # Errors
    /// 25006 if a replica is asked for but only a primary can do it.
    pub(super) fn apply(self, mut route: Route) -> Result<Route, RouteError> {
        if let Some(shard) = self.shard {
            route.target = Target::Shard(shard);
        }
        match (self.role, route.access) {
            (Some(Role::Primary), Access::Read) => route.access = Access::Primary,
            (Some(Role::Replica), Access::Write) => return Err(replica_writes()),
            (Some(Role::Replica), Access::Primary) if route.pin.is_some() || route.asks.any() => {
                return Err(replica_writes());
            }
            (Some(Role::Replica), Access::Primary) => route.access = Access::Read,
            (None | Some(Role::Primary | Role::Replica), _) => {}
        }
        Ok(route)
    }
}

fn replica_writes() -> RouteError {
    RouteError::Sql {
        code: SqlState::READ_ONLY_SQL_TRANSACTION,
        message: "a replica is asked for by a statement that may write".to_owned(),
        detail: None,
        hint: Some("Leave role=replica (or pgherd.role) out for this statement.".to_owned()),
    }
}

fn role_named(role: &str) -> Result<Role, RouteError> {
    match role {
        "primary" => Ok(Role::Primary),
        "replica" => Ok(Role::Replica),
        _ => Err(bad(format!("there is no role \"{role}\""), "Roles are primary and replica.".to_owned())),
    }
}

fn shard_named(name: &str, map: &Map) -> Result<ShardId, RouteError> {
    map.shard_named(name).ok_or_else(|| {
        bad(format!("there is no shard \"{name}\""), format!("Shards are {}.", map.shards.join(", ")))
    })
}

/// The shard of a key of the first sharded table (by schema and name): by its hash column, else by its first key.
fn shard_of_key(key: &str, map: &Map, catalog: &Catalog) -> Result<ShardId, RouteError> {
    let none = || {
        let hint = format!("Name a shard instead: {}.", map.shards.join(", "));
        bad("a key is given, but no table is sharded", hint)
    };
    let (table, column) = map.tables.iter().find_map(key_column).ok_or_else(none)?;
    let relation = catalog.relations.get(&(table.schema.clone(), table.name.clone()));
    let oid = relation.and_then(|r| r.column(&column.column)).map(|c| c.type_oid);
    let kind = oid.and_then(KeyType::of_oid).unwrap_or(KeyType::Text);
    let from = || format!("pgherd.key is a value of {table}.{}.", column.column);
    let key = Key::from_text(kind, key).map_err(|error| bad(error.to_string(), from()))?;
    let partition = map.partition_of(column, &key).map_err(|error| bad(error.to_string(), from()))?;
    Ok(map.shard_of(partition))
}

fn key_column<'m>(
    (table, placement): (&'m TableName, &'m Placement),
) -> Option<(&'m TableName, &'m KeyColumn)> {
    match placement {
        Placement::Sharded(columns) => {
            let hashed = columns.iter().find(|c| c.method == Method::Hash);
            hashed.or(columns.first()).map(|column| (table, column))
        }
        Placement::Reference | Placement::Single(_) => None,
    }
}

fn bad(message: impl Into<String>, hint: String) -> RouteError {
    RouteError::Sql {
        code: SqlState::INVALID_PARAMETER_VALUE,
        message: message.into(),
        detail: None,
        hint: Some(hint),
    }
}
