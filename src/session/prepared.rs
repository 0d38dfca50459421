//! What a client has prepared, under its own names, and the portals it has opened.
//! Must not know which server holds what.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;

use super::measure::Note;
use crate::pool::{Shape, StatementKey};
use crate::route::{Router, Statement};
use crate::wire::{BindView, ParseView, parse_row_description};

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

    /// Puts it there, and gives what was there before.
    pub(super) fn insert(&mut self, name: &str, value: T) -> Option<T> {
        if name.is_empty() {
            self.unnamed.replace(value)
        } else if let Some(slot) = self.named.get_mut(name) {
            Some(std::mem::replace(slot, value))
        } else {
            self.named.insert(name.to_owned(), value)
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<T> {
        if name.is_empty() { self.unnamed.take() } else { self.named.remove(name) }
    }

    pub(super) fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.unnamed.take_if(|value| !stays(value));
        self.named.retain(|_, value| stays(value));
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
    /// A hash of the settings that its constants may depend on, as they were at Parse.
    pub(super) constants: u64,
    /// The same with the search path.
    pub(super) analysis: u64,
    /// What its analysis came to when the client prepared it; unknown until a server has said so.
    pub(super) shape: OnceLock<Arc<Shape>>,
    /// The catalogs have changed since then.
    pub(super) stale: bool,
    /// What its text executes by name; there stands the name that servers know.
    pub(super) executes: Option<Arc<ClientStatement>>,
}

impl ClientStatement {
    /// Whether a Parse says the same again, so that nothing is to be found out anew.
    pub(super) fn is(&self, parse: &ParseView<'_>, router: &Arc<Router>, key_env: (u64, u64)) -> bool {
        (self.constants, self.analysis) == key_env
            && !self.stale
            && *self.sql == *parse.sql
            && *self.types == *parse.types
            && Arc::ptr_eq(&self.router, router)
    }
}

impl ClientStatement {
    /// The parameter types to declare when the proxy prepares it once more: those it was given at first, whatever names
    /// mean by now. Types that users made have other numbers on other servers.
    pub(super) fn settled_types(&self) -> Bytes {
        // Parse can declare no more than it can count.
        let Some(shape) =
            self.shape.get().filter(|shape| shape.parameters.len() / 4 <= usize::from(u16::MAX))
        else {
            return self.types.clone();
        };
        let mut types = Vec::with_capacity(shape.parameters.len());
        for oid in shape.parameters.chunks_exact(4) {
            let own = u32::from_be_bytes(oid.try_into().unwrap_or_default()) >= FIRST_USER_OID;
            types.extend_from_slice(if own { &[0; 4] } else { oid });
        }
        types.into()
    }

    /// The types of its parameters, as far as they are known.
    pub(super) fn parameter_types(&self) -> Vec<u32> {
        let declared = self.shape.get().map_or(&self.types, |shape| &shape.parameters);
        declared.chunks_exact(4).map(|oid| u32::from_be_bytes(oid.try_into().unwrap_or_default())).collect()
    }

    /// How many parameters it has, if that is known.
    pub(super) fn parameters(&self) -> Option<usize> {
        self.shape.get().map(|shape| shape.parameters.len() / 4)
    }

    /// How many columns its rows have, if that is known.
    pub(super) fn columns(&self) -> Option<usize> {
        self.shape.get().map(|shape| shape.width)
    }

    /// Whether it is known if the numbers of values and result formats of a Bind are right. A text without a dollar has no
    /// parameters, and one format is for any number of columns.
    pub(super) fn knows_counts_of(&self, view: &BindView<'_>) -> bool {
        let plain = || view.is_empty() && memchr::memchr(b'$', &self.sql).is_none();
        self.shape.get().is_some() || (view.result_formats().len() < 2 && plain())
    }

    /// Whether what its text means depends on settings: a constant of a date or time, or one with a backslash.
    pub(super) fn has_fickle_constants(&self) -> bool {
        let text = String::from_utf8_lossy(&self.sql);
        let now = ["now", "today", "tomorrow", "yesterday"];
        let fickle = |constant: &str| {
            constant.bytes().any(|b| b.is_ascii_digit())
                || now.iter().any(|word| constant.to_ascii_lowercase().contains(word))
        };
        text.contains('\\') || text.contains("$$") || text.split('\'').skip(1).step_by(2).any(fickle)
    }
}

/// Numbers of types, tables and the like from here on differ between servers. Source: `FirstNormalObjectId`.
const FIRST_USER_OID: u32 = 16384;

/// What a server's description of a statement says: as much of its columns as PostgreSQL compares.
pub(super) fn shape_of(body: &[u8], columns: Option<&[u8]>) -> Shape {
    let columns = columns.and_then(|body| parse_row_description(body).ok());
    let width = columns.as_ref().map_or(0, Vec::len);
    let columns = columns.map_or(0, |columns| {
        let columns: Vec<_> = columns
            .iter()
            .map(|c| (c.name.as_str(), c.type_oid.min(FIRST_USER_OID), c.type_len, c.typmod))
            .collect();
        hash(&columns).max(1)
    });
    Shape { parameters: Bytes::copy_from_slice(body.get(2..).unwrap_or_default()), columns, width }
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
        /// It was executed, and what it did cannot be done twice.
        ran: bool,
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
        /// It was executed, and all its rows were sent.
        ran: bool,
    },
}

/// The key of a text with its parameter types, under the settings that its meaning depends on.
pub(super) fn key_of(sql: &[u8], types: &[u8], analysis: u64) -> StatementKey {
    StatementKey(hash((sql, types, analysis)))
}

/// 128 bits under two seeds that no client knows.
pub(super) fn hash(value: impl Hash) -> u128 {
    static SEEDS: LazyLock<[foldhash::quality::RandomState; 2]> = LazyLock::new(Default::default);
    let [a, b] = &*SEEDS;
    let halves = [a, b].map(|seed| u128::from(seed.hash_one(&value)));
    halves[0] << 64 | halves[1]
}

/// 64 bits, for what servers are never told.
pub(super) fn digest(value: impl Hash) -> u64 {
    hash(value) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_text_and_types() {
        assert_eq!(key_of(b"select 1", b"", 0), key_of(b"select 1", b"", 0));
        assert_ne!(key_of(b"select 1", b"", 0), key_of(b"select 2", b"", 0));
        assert_ne!(key_of(b"select 1", b"", 0), key_of(b"select 1", b"", 1));
        assert_ne!(key_of(b"select $1", &[0, 0, 0, 23], 0), key_of(b"select $1", &[0, 0, 0, 20], 0));
    }
}
