//! Live sessions: who they are, what they do, what they moved.
//! Must not know sockets or statements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use parking_lot::Mutex;

use super::Stats;

/// Who a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Number of the session, as in the cancel key's process id.
    pub id: u32,
    /// Proxy user.
    pub user: String,
    /// Database asked for.
    pub database: String,
    /// `application_name` at start.
    pub application: String,
    /// Client address.
    pub address: String,
    /// Over TLS.
    pub tls: bool,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing, outside a transaction.
    Idle,
    /// Nothing, inside a transaction.
    IdleInTransaction,
    /// Waiting for a server connection.
    Waiting,
    /// Running a statement.
    Active,
}

impl SessionState {
    /// In lower case, as `pg_stat_activity` says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::IdleInTransaction => "idle in transaction",
            Self::Waiting => "waiting",
            Self::Active => "active",
        }
    }

    fn of(byte: u8) -> Self {
        [Self::Idle, Self::IdleInTransaction, Self::Waiting, Self::Active]
            .into_iter()
            .find(|state| *state as u8 == byte)
            .unwrap_or(Self::Idle)
    }
}

/// A session as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Who it is.
    pub info: SessionInfo,
    /// What it is doing.
    pub state: SessionState,
    /// Why it keeps a server for itself, if it does: all causes.
    pub pin: Option<String>,
    /// Since when it keeps one.
    pub pinned: Option<SystemTime>,
    /// Since when.
    pub connected: SystemTime,
    /// What it did.
    pub traffic: Traffic,
}

/// What sessions did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Statements finished.
    pub statements: u64,
    /// Transactions finished.
    pub transactions: u64,
    /// Bytes from clients.
    pub received_bytes: u64,
    /// Bytes to clients.
    pub sent_bytes: u64,
}

impl Traffic {
    fn plus(self, other: Self) -> Self {
        Self {
            statements: self.statements + other.statements,
            transactions: self.transactions + other.transactions,
            received_bytes: self.received_bytes + other.received_bytes,
            sent_bytes: self.sent_bytes + other.sent_bytes,
        }
    }
}

/// Why a session keeps a server for itself, and since when.
#[derive(Debug, Clone)]
struct Pins {
    causes: String,
    since: SystemTime,
}

/// One session's entry. Its own counters are the only ones on the hot path; totals are added up by readers.
#[derive(Debug)]
struct Entry {
    info: SessionInfo,
    state: AtomicU8,
    pins: Mutex<Option<Box<Pins>>>,
    connected: SystemTime,
    statements: AtomicU64,
    transactions: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Entry {
    fn traffic(&self) -> Traffic {
        Traffic {
            statements: self.statements.load(Relaxed),
            transactions: self.transactions.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
        }
    }

    fn row(&self) -> SessionRow {
        let pins = self.pins.lock().clone();
        SessionRow {
            info: self.info.clone(),
            state: SessionState::of(self.state.load(Relaxed)),
            pinned: pins.as_ref().map(|pins| pins.since),
            pin: pins.map(|pins| pins.causes),
            connected: self.connected,
            traffic: self.traffic(),
        }
    }
}

/// The live sessions, and what those did that are gone.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<Option<Arc<Entry>>>,
    free: Vec<u32>,
    gone: Traffic,
}

impl Sessions {
    fn add(&self, entry: Arc<Entry>) -> u32 {
        let mut inner = self.inner.lock();
        if let Some(place) = inner.free.pop() {
            if let Some(slot) = inner.live.get_mut(place as usize) {
                *slot = Some(entry);
            }
            return place;
        }
        inner.live.push(Some(entry));
        (inner.live.len() - 1) as u32
    }

    fn remove(&self, place: u32) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.live.get_mut(place as usize).and_then(Option::take) {
            inner.gone = inner.gone.plus(entry.traffic());
            inner.free.push(place);
        }
    }

    pub(super) fn rows(&self) -> Vec<SessionRow> {
        self.inner.lock().live.iter().flatten().map(|entry| entry.row()).collect()
    }

    /// How many are live, and what all sessions did, those gone included.
    pub(super) fn totals(&self) -> (u64, Traffic) {
        let inner = self.inner.lock();
        let live = inner.live.iter().flatten();
        live.fold((0, inner.gone), |(count, sum), entry| (count + 1, sum.plus(entry.traffic())))
    }
}

/// A live session's entry; removed when dropped.
#[derive(Debug)]
pub struct SessionStats {
    stats: Arc<Stats>,
    entry: Arc<Entry>,
    place: u32,
}

impl SessionStats {
    pub(super) fn new(stats: Arc<Stats>, mut info: SessionInfo) -> Self {
        for text in [&mut info.user, &mut info.database, &mut info.application, &mut info.address] {
            text.shrink_to_fit();
        }
        let entry = Arc::new(Entry {
            info,
            state: AtomicU8::new(SessionState::Idle as u8),
            pins: Mutex::new(None),
            connected: SystemTime::now(),
            statements: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        });
        let place = stats.sessions.add(entry.clone());
        Self { stats, entry, place }
    }

    /// The hub.
    #[must_use]
    pub fn hub(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Who it is.
    #[must_use]
    pub fn info(&self) -> &SessionInfo {
        &self.entry.info
    }

    /// What it is doing now. One atomic store.
    pub fn set_state(&self, state: SessionState) {
        self.entry.state.store(state as u8, Relaxed);
    }

    /// Why it keeps a server for itself; for nothing, it keeps none. Since when, is since there first was something.
    pub fn set_pins(&self, causes: &[&str]) {
        let mut pins = self.entry.pins.lock();
        if causes.is_empty() {
            *pins = None;
            return;
        }
        let since = pins.as_ref().map_or_else(SystemTime::now, |pins| pins.since);
        *pins = Some(Box::new(Pins { causes: causes.join(", "), since }));
    }

    /// Counts one finished statement.
    pub fn count_statement(&self) {
        self.entry.statements.fetch_add(1, Relaxed);
    }

    /// Counts one finished transaction.
    pub fn count_transaction(&self) {
        self.entry.transactions.fetch_add(1, Relaxed);
    }

    /// Counts bytes from servers for the client, and bytes to the client.
    pub fn count_bytes(&self, received: u64, sent: u64) {
        self.entry.received_bytes.fetch_add(received, Relaxed);
        self.entry.sent_bytes.fetch_add(sent, Relaxed);
    }
}

impl Drop for SessionStats {
    fn drop(&mut self) {
        self.stats.sessions.remove(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u32) -> SessionInfo {
        SessionInfo {
            id,
            user: "app".into(),
            database: "shop".into(),
            application: "psql".into(),
            address: "127.0.0.1:40000".into(),
            tls: false,
        }
    }

    #[test]
    fn a_session_is_seen_while_its_guard_lives() {
        let stats = Stats::new();
        let (first, second) = (stats.session(info(1)), stats.session(info(2)));
        second.set_state(SessionState::IdleInTransaction);
        second.set_pins(&["temporary table", "advisory lock"]);
        let rows = stats.sessions();
        assert_eq!(rows.iter().map(|r| r.info.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(rows[1].state, SessionState::IdleInTransaction);
        assert_eq!(rows[1].pin.as_deref(), Some("temporary table, advisory lock"));
        second.set_pins(&["advisory lock"]);
        assert_eq!(stats.sessions()[1].pinned, rows[1].pinned, "it has kept one all the time");
        second.set_pins(&[]);
        assert_eq!(stats.sessions()[1].pinned, None);
        drop(first);
        assert_eq!(stats.sessions().iter().map(|r| r.info.id).collect::<Vec<_>>(), [2]);
        let third = stats.session(info(3));
        assert_eq!(stats.sessions().len(), 2, "the free place is used again");
        drop((second, third));
        assert!(stats.sessions().is_empty());
    }

    #[test]
    fn totals_keep_what_closed_sessions_did() {
        let stats = Stats::new();
        let (first, second) = (stats.session(info(1)), stats.session(info(2)));
        first.count_statement();
        first.count_bytes(10, 20);
        second.count_statement();
        second.count_transaction();
        let before = stats.totals();
        drop(first);
        let after = stats.totals();
        assert_eq!((before.sessions, after.sessions), (2, 1));
        assert_eq!(before.traffic, after.traffic);
        let want = Traffic { statements: 2, transactions: 1, received_bytes: 10, sent_bytes: 20 };
        assert_eq!(after.traffic, want);
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 192, "{}", size_of::<Entry>());
    }
}
