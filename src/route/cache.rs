//! Two bounded caches of what was worked out: by a client's exact text, and by a statement's normal form.
//! Must not know what a plan is. Clients choose the text, so hashes are seeded at random and texts compared in full.

use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache as Sharded, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};

use super::Env;

/// Texts longer than this are not kept: bulk loads would drive all else out.
pub(super) const LONGEST: usize = 64 << 10;

/// A bounded map from text and session settings to a value.
#[derive(Debug)]
pub(super) struct Cache<V: Clone> {
    entries: Sharded<Key, V, Bytes, RandomState>,
}

/// Texts count by their length, so that the whole stays within about a KiB for each entry that was asked for.
#[derive(Debug, Clone)]
struct Bytes;

impl<V> Weighter<Key, V> for Bytes {
    fn weight(&self, key: &Key, _: &V) -> u64 {
        1 + key.text.len() as u64 / 512
    }
}

/// What was worked out holds for this text under these settings.
#[derive(Debug, Clone)]
struct Key {
    text: Box<[u8]>,
    search_path: Option<Vec<String>>,
    flags: u8,
}

/// A [`Key`] that owns nothing.
struct Probe<'a> {
    text: &'a [u8],
    search_path: Option<&'a Vec<String>>,
    flags: u8,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Probe { text: &self.text, search_path: self.search_path.as_ref(), flags: self.flags }.hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        let probe = Probe { text: &self.text, search_path: self.search_path.as_ref(), flags: self.flags };
        probe.equivalent(other)
    }
}

impl Eq for Key {}

impl Hash for Probe<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.text);
        state.write_u8(self.flags);
        if let Some(path) = self.search_path {
            path.hash(state);
        }
    }
}

impl Equivalent<Key> for Probe<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.text == *key.text && self.flags == key.flags && self.search_path == key.search_path.as_ref()
    }
}

/// The settings that a plan depends on: not those that force a route, which are laid over it afterwards.
pub(super) fn flags(env: &Env) -> u8 {
    u8::from(env.nonstandard_strings)
        | u8::from(env.foreign_encoding) << 1
        | u8::from(env.admin_database) << 2
        | u8::from(env.search_path.is_some()) << 3
}

impl<V: Clone> Cache<V> {
    /// A cache of about `entries` texts of ordinary length.
    pub(super) fn new(entries: usize) -> Self {
        let entries = entries.max(1);
        let weight = 2 * entries as u64;
        let entries =
            Sharded::with(entries, weight, Bytes, RandomState::default(), DefaultLifecycle::default());
        Self { entries }
    }

    /// What is known of a text.
    pub(super) fn get(&self, text: &[u8], env: &Env) -> Option<V> {
        self.entries.get(&Probe { text, search_path: env.search_path.as_ref(), flags: flags(env) })
    }

    /// Keeps what is known of a text, unless it is too long.
    pub(super) fn insert(&self, text: &[u8], env: &Env, value: V) {
        if text.len() <= LONGEST {
            let key = Key { text: text.into(), search_path: env.search_path.clone(), flags: flags(env) };
            self.entries.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_holds_for_its_text_and_settings_only() {
        let cache = Cache::new(100);
        let plain = Env::default();
        let path = |names: &[&str]| Env {
            search_path: Some(names.iter().map(|n| (*n).to_owned()).collect()),
            ..Env::default()
        };
        let off = Env { nonstandard_strings: true, ..Env::default() };
        let forced = Env { shard: Some("shard2".into()), role: Some("primary".into()), ..Env::default() };
        cache.insert(b"select 1", &plain, 1);
        cache.insert(b"select 1", &path(&["a", "b"]), 2);
        cache.insert(b"select 1", &off, 3);
        for (text, env, want) in [
            ("select 1", &plain, Some(1)),
            ("select 1", &forced, Some(1)),
            ("select 1", &path(&["a", "b"]), Some(2)),
            ("select 1", &path(&["ab"]), None),
            ("select 1", &path(&[]), None),
            ("select 1", &off, Some(3)),
            ("select 2", &plain, None),
        ] {
            assert_eq!(cache.get(text.as_bytes(), env), want, "{text} {env:?}");
        }
    }

    #[test]
    fn long_texts_are_not_kept_and_the_rest_is_bounded() {
        let cache = Cache::new(100);
        let env = Env::default();
        let long = vec![b'x'; LONGEST + 1];
        cache.insert(&long, &env, 0);
        assert_eq!(cache.get(&long, &env), None);
        for i in 0..10_000 {
            cache.insert(format!("select {i}").as_bytes(), &env, i);
        }
        assert!(cache.entries.weight() <= 200, "{}", cache.entries.weight());
        assert!(cache.entries.len() > 20);
    }
}
