//! The prepared statements that one server holds, and what they looked like when it analysed them.
//! Must not know SQL or clients.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;

/// What all names on servers begin with.
const PREFIX: &str = "pgherd_";
const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Names a prepared statement by its text, its parameter types and the settings that its meaning depends on, the same
/// in every session: a 128-bit hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatementKey(pub u128);

impl StatementKey {
    /// The name it has on servers.
    #[must_use]
    pub fn server_name(self) -> String {
        // By hand, and without a step for each character: it is asked for at each Bind.
        let mut hex = [0; 32];
        for (pair, byte) in hex.as_chunks_mut().0.iter_mut().zip(self.0.to_be_bytes()) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        let mut name = String::with_capacity(PREFIX.len() + hex.len());
        name.push_str(PREFIX);
        name.push_str(std::str::from_utf8(&hex).unwrap_or_default());
        name
    }
}

/// What a statement's analysis came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The types of its parameters: big-endian u32 OIDs.
    pub parameters: Bytes,
    /// A hash of names and types of its columns; 0: it returns no rows.
    pub columns: u128,
    /// How many these are.
    pub width: usize,
}

/// The prepared statements one server holds, least recently used first to go.
#[derive(Debug)]
pub struct PreparedSet {
    limit: usize,
    clock: u64,
    used: HashMap<StatementKey, Slot, foldhash::fast::RandomState>,
}

#[derive(Debug)]
struct Slot {
    at: u64,
    shape: Option<Arc<Shape>>,
}

impl PreparedSet {
    pub(super) fn new(limit: NonZeroUsize) -> Self {
        Self { limit: limit.get(), clock: 0, used: HashMap::default() }
    }

    /// Whether the server holds it, and its shape if that is known; counts as a use.
    pub fn touch(&mut self, key: StatementKey) -> Option<Option<&Arc<Shape>>> {
        self.clock += 1;
        let slot = self.used.get_mut(&key)?;
        slot.at = self.clock;
        Some(slot.shape.as_ref())
    }

    /// Adds one, or puts it in the place of what was analysed earlier; answers which other must be closed on the server
    /// to stay below the limit.
    pub fn insert(&mut self, key: StatementKey) -> Option<StatementKey> {
        self.clock += 1;
        self.used.insert(key, Slot { at: self.clock, shape: None });
        if self.used.len() <= self.limit {
            return None;
        }
        let others = self.used.iter().filter(|(other, _)| **other != key);
        let oldest = others.min_by_key(|(_, slot)| slot.at).map(|(oldest, _)| *oldest)?;
        self.used.remove(&oldest);
        Some(oldest)
    }

    /// The server said what it looks like.
    pub fn describe(&mut self, key: StatementKey, shape: &Arc<Shape>) {
        if let Some(slot) = self.used.get_mut(&key) {
            slot.shape = Some(shape.clone());
        }
    }

    /// The server holds it after all: its Close was skipped.
    pub fn restore(&mut self, key: StatementKey) {
        self.used.insert(key, Slot { at: self.clock, shape: None });
    }

    /// Forgets one, whose Parse failed or which was closed.
    pub fn remove(&mut self, key: StatementKey) {
        self.used.remove(&key);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_key_in_hexadecimal() {
        for key in [0, 1, 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210, u128::MAX] {
            assert_eq!(StatementKey(key).server_name(), format!("pgherd_{key:032x}"));
        }
    }

    #[test]
    fn the_least_recently_used_statement_goes_first() {
        let mut set = PreparedSet::new(NonZeroUsize::new(2).unwrap());
        let [a, b, c] = [1, 2, 3].map(StatementKey);
        assert_eq!((set.insert(a), set.insert(b)), (None, None));
        assert!(set.touch(a).is_some());
        assert_eq!(set.insert(c), Some(b));
        assert!(set.touch(b).is_none());
        assert!(set.touch(a).is_some() && set.touch(c).is_some());
    }

    #[test]
    fn a_statement_that_is_prepared_again_has_no_shape_until_it_is_described() {
        let mut set = PreparedSet::new(NonZeroUsize::new(2).unwrap());
        let shape = Arc::new(Shape { parameters: Bytes::new(), columns: 7, width: 1 });
        set.insert(StatementKey(1));
        set.describe(StatementKey(1), &shape);
        assert_eq!(set.touch(StatementKey(1)), Some(Some(&shape)));
        set.insert(StatementKey(1));
        assert_eq!(set.touch(StatementKey(1)), Some(None));
    }
}
