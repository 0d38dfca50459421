//! The latest errors and how often each SQLSTATE occurred.
//! Must not know where errors come from.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::StatementSlot;

/// One error for the ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorEvent {
    /// SQLSTATE.
    pub sqlstate: String,
    /// Its message, cut to a sane length.
    pub message: String,
    /// Who raised it: `client`, `proxy` or `server`.
    pub blame: &'static str,
    /// Database, if known.
    pub database: String,
    /// User, if known.
    pub user: String,
    /// Shard, if it came from one.
    pub shard: Option<String>,
    /// Server, if it came from one.
    pub server: Option<String>,
    /// Where its statement is counted, if it is about one.
    pub statement: Option<StatementSlot>,
}

/// An error that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorRow {
    /// When.
    pub at: SystemTime,
    /// What.
    pub event: ErrorEvent,
    /// The fingerprint of its statement and the text without values, if it is about one.
    pub statement: Option<(String, Arc<str>)>,
}

/// The latest errors that are kept.
const RING: usize = 1000;
/// The longest message kept, bytes.
const MESSAGE: usize = 1024;
/// The longest name kept, bytes: an identifier of PostgreSQL has 63, an address may be longer.
const NAME: usize = 128;
/// SQLSTATEs counted apart; servers may raise any five characters.
const CODES: usize = 256;
/// What further ones are counted as.
const OTHER: &str = "other";

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Errors {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ring: VecDeque<ErrorRow>,
    by_code: BTreeMap<String, u64>,
    total: u64,
}

impl Errors {
    pub(super) fn push(&self, mut event: ErrorEvent, statement: Option<(String, Arc<str>)>) {
        cut(&mut event.sqlstate, 5);
        cut(&mut event.message, MESSAGE);
        cut(&mut event.database, NAME);
        cut(&mut event.user, NAME);
        event.shard.iter_mut().for_each(|s| cut(s, NAME));
        event.server.iter_mut().for_each(|s| cut(s, NAME));
        let at = SystemTime::now();
        let mut inner = self.inner.lock();
        inner.total += 1;
        let is_known = inner.by_code.contains_key(&event.sqlstate) || inner.by_code.len() < CODES;
        let code = if is_known { event.sqlstate.clone() } else { OTHER.to_owned() };
        *inner.by_code.entry(code).or_default() += 1;
        if inner.ring.len() >= RING {
            inner.ring.pop_front();
        }
        inner.ring.push_back(ErrorRow { at, event, statement });
    }

    /// The latest errors, newest first.
    pub(super) fn rows(&self) -> Vec<ErrorRow> {
        self.inner.lock().ring.iter().rev().cloned().collect()
    }

    /// How often each SQLSTATE occurred since start.
    pub(super) fn by_code(&self) -> Vec<(String, u64)> {
        self.inner.lock().by_code.iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    pub(super) fn total(&self) -> u64 {
        self.inner.lock().total
    }
}

/// Cuts a text to at most `bytes`, between characters, and gives the rest of its memory back.
fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sqlstate: &str, message: &str) -> ErrorEvent {
        ErrorEvent {
            sqlstate: sqlstate.into(),
            message: message.into(),
            blame: "client",
            database: "app".into(),
            user: "u".repeat(5000),
            shard: None,
            server: None,
            statement: None,
        }
    }

    #[test]
    fn only_the_latest_are_kept_and_all_are_counted() {
        let errors = Errors::default();
        (0..RING + 10).for_each(|i| errors.push(event("42P01", &i.to_string()), None));
        let rows = errors.rows();
        assert_eq!(rows.len(), RING);
        assert_eq!((rows[0].event.message.as_str(), rows[RING - 1].event.message.as_str()), ("1009", "10"));
        assert_eq!(errors.by_code(), [("42P01".to_owned(), 1010)]);
        assert_eq!(errors.total(), 1010);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let errors = Errors::default();
        errors.push(event("XX000", &"é".repeat(2000)), None);
        errors.push(event("XX000", &("x".to_owned() + &"é".repeat(2000))), None);
        let rows = errors.rows();
        assert_eq!((rows[0].event.message.len(), rows[1].event.message.len()), (1023, 1024));
        assert_eq!(rows[0].event.user.len(), NAME);
    }

    #[test]
    fn made_up_codes_do_not_grow_the_counters() {
        let errors = Errors::default();
        (0..CODES + 50).for_each(|i| errors.push(event(&format!("{i:05}"), ""), None));
        let counts = errors.by_code();
        assert_eq!(counts.len(), CODES + 1);
        assert!(counts.contains(&(OTHER.to_owned(), 50)));
    }
}
