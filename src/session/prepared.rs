//! What a client has prepared, under its own names, and the portals it has opened.
//! Must not know which server holds what.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;

use super::measure::Note;
use crate::pool::StatementKey;
use crate::route::{Router, Statement};
use crate::wire::ParseView;

/// Things by the client's names; the unnamed one, which most clients use most, has a place of its own.
#[derive(Debug)]
pub(super) struct Named<T> {
    unnamed: Option<T>,
    named: HashMap<String, T, foldhash::fast::RandomState>,
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self { unnamed: None, named: HashMap::default() }
    }
}

impl<T> Named<T> {
    pub(super) fn get(&self, name: &str) -> Option<&T> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        if name.is_empty() { self.unnamed.as_mut() } else { self.named.get_mut(name) }
    }

    pub(super) fn insert(&mut self, name: &str, value: T) {
        if name.is_empty() {
            self.unnamed = Some(value);
        } else if let Some(slot) = self.named.get_mut(name) {
            *slot = value;
        } else {
            self.named.insert(name.to_owned(), value);
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<T> {
        if name.is_empty() { self.unnamed.take() } else { self.named.remove(name) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.unnamed.is_none() && self.named.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.unnamed = None;
        self.named.clear();
    }
}

/// A prepared statement of a client.
#[derive(Debug)]
pub(super) struct ClientStatement {
    /// The client's name; empty for the unnamed one.
    pub(super) name: String,
    /// Its text as sent.
    pub(super) sql: Bytes,
    /// Declared parameter types: big-endian u32 OIDs.
    pub(super) types: Bytes,
    /// What routing knows of it; `None` for an empty statement.
    pub(super) statement: Option<Statement>,
    /// Who found that out: under another map or catalog it must be found out anew.
    pub(super) router: Arc<Router>,
    /// What servers call it.
    pub(super) key: StatementKey,
}

impl ClientStatement {
    /// Whether a Parse says the same again, so that nothing is to be found out anew.
    pub(super) fn is(&self, parse: &ParseView<'_>, router: &Arc<Router>) -> bool {
        *self.sql == *parse.sql && *self.types == *parse.types && Arc::ptr_eq(&self.router, router)
    }
}

/// A portal of a client.
#[derive(Debug, Clone)]
pub(super) enum Portal {
    /// On the server that is leased; the mark of its completion.
    Server {
        /// 0: nothing of interest.
        mark: u32,
        /// What statistics know of it.
        note: Note,
        /// Whether some of its rows were fetched.
        fetched: bool,
    },
    /// Answered by the proxy.
    Local {
        /// The statement.
        statement: Arc<ClientStatement>,
        /// All of Bind after the names.
        tail: Bytes,
    },
    /// To be run on many shards.
    Fanout {
        /// The statement.
        statement: Arc<ClientStatement>,
        /// All of Bind after the names.
        tail: Bytes,
        /// Its shards.
        shards: crate::shard::ShardSet,
        /// What statistics know of it.
        note: Note,
        /// Whether the client asked for a description.
        describe: bool,
    },
}

/// The key of a text with its parameter types: 128 bits under two seeds that no client knows.
pub(super) fn key_of(sql: &[u8], types: &[u8]) -> StatementKey {
    static SEEDS: LazyLock<[foldhash::quality::RandomState; 2]> = LazyLock::new(Default::default);
    let [a, b] = &*SEEDS;
    let halves = [a, b].map(|seed| u128::from(seed.hash_one((sql, types))));
    StatementKey(halves[0] << 64 | halves[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_text_and_types() {
        assert_eq!(key_of(b"select 1", b""), key_of(b"select 1", b""));
        assert_ne!(key_of(b"select 1", b""), key_of(b"select 2", b""));
        assert_ne!(key_of(b"select $1", &[0, 0, 0, 23]), key_of(b"select $1", &[0, 0, 0, 20]));
    }
}
