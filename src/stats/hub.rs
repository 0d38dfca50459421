//! The one object that all recorders hang on.
//! Must not know who records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::shard::ShardId;

/// What a statement counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// SELECT and its like.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// COPY.
    Copy,
    /// BEGIN, COMMIT and their like.
    Transaction,
    /// All else.
    Other,
}

/// Which server a recorder belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerLabel {
    /// Database as the config names it.
    pub database: String,
    /// The shard's id.
    pub shard: ShardId,
    /// The shard's name.
    pub shard_name: String,
    /// `host:port`.
    pub address: String,
}

/// Handle of a registered server, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerSlot(pub u32);

/// The three times of one statement, µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a server connection.
    pub queue_us: u64,
    /// From the first byte sent to the server to its last byte.
    pub server_us: u64,
    /// From the client's message to the last byte of the answer.
    pub total_us: u64,
}

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
}

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

/// Which pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolLabel {
    /// Database as the config names it.
    pub database: String,
    /// Shard's name.
    pub shard: String,
    /// `host:port`.
    pub address: String,
    /// User on the server.
    pub user: String,
    /// Upper limit of connections.
    pub size: u32,
}

/// Gauges and counters of one pool; verbs for the pool to call.
#[derive(Debug, Default)]
pub struct PoolStats {
    /// Clients waiting now.
    pub waiting: AtomicU32,
    /// Connections lent now.
    pub in_use: AtomicU32,
    /// Connections open now.
    pub open: AtomicU32,
    /// Connections opened so far.
    pub opened: AtomicU64,
    /// Connections closed so far because they were dirty or broken.
    pub broken: AtomicU64,
    /// Times a connection was lent.
    pub leases: AtomicU64,
    /// Time all waiters waited, µs.
    pub wait_us: AtomicU64,
    /// Waits that ended in a timeout.
    pub timeouts: AtomicU64,
}

/// A live session's entry; removed when dropped.
#[derive(Debug)]
pub struct SessionStats {
    stats: Arc<Stats>,
    info: SessionInfo,
}

/// All that is remembered.
#[derive(Debug, Default)]
pub struct Stats {
    errors: AtomicU64,
}

impl Stats {
    /// Empty.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Registers a server; the same label gives the same slot.
    pub fn server(&self, label: ServerLabel) -> ServerSlot {
        let _ = label;
        ServerSlot(0)
    }

    /// Records one statement on one server, under the role the server had.
    pub fn record(&self, slot: ServerSlot, is_replica: bool, class: Class, timing: Timing) {
        let _ = (slot, is_replica, class, timing);
    }

    /// Records an error.
    pub fn error(&self, event: ErrorEvent) {
        let _ = event;
        self.errors.fetch_add(1, Relaxed);
    }

    /// Registers a pool; the same label gives the same object.
    pub fn pool(&self, label: PoolLabel) -> Arc<PoolStats> {
        let _ = label;
        Arc::default()
    }

    /// Registers a session until the guard is dropped.
    pub fn session(self: &Arc<Self>, info: SessionInfo) -> SessionStats {
        SessionStats { stats: self.clone(), info }
    }
}

impl SessionStats {
    /// The hub.
    #[must_use]
    pub fn hub(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Who it is.
    #[must_use]
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// What it is doing now.
    pub fn set_state(&self, state: SessionState) {
        let _ = state;
    }

    /// Whether and why it is pinned to a server.
    pub fn set_pin(&self, why: Option<&'static str>) {
        let _ = why;
    }

    /// Counts one finished statement.
    pub fn count_statement(&self) {}

    /// Counts one finished transaction.
    pub fn count_transaction(&self) {}

    /// Counts bytes from and to the client.
    pub fn count_bytes(&self, received: u64, sent: u64) {
        let _ = (received, sent);
    }
}
