//! What is known of the herd when a question comes: put together by whoever answers it.
//! Must not know how the parts were found out.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cluster::DatabaseStatus;
use crate::config::{Config, Role};
use crate::rows::{Constant, Type, Value};
use crate::stats::Stats;

/// A snapshot of all that virtual tables show.
#[derive(Debug, Clone)]
pub struct Herd {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What happened.
    pub stats: Arc<Stats>,
    /// Servers and maps of each database.
    pub databases: Vec<DatabaseStatus>,
    /// What came of reloads.
    pub reloads: Reloads,
    /// When the proxy started.
    pub started: SystemTime,
    /// When the question came.
    pub now: SystemTime,
    /// The database the client is connected to, for `current_database()`.
    pub database: String,
    /// The client's user, for `current_user`.
    pub user: String,
}

/// What came of the reloads since the start.
#[derive(Debug, Clone, Default)]
pub struct Reloads {
    /// How many changed something, or found nothing to change.
    pub count: u64,
    /// When the last of them was.
    pub last: Option<SystemTime>,
    /// Why the last one changed nothing, if it was after that.
    pub error: Option<String>,
    /// What waits for a restart.
    pub restart: Vec<String>,
}

/// 2000-01-01 minus 1970-01-01, µs.
const EPOCHS_APART_US: i64 = 946_684_800_000_000;

/// A moment as PostgreSQL stores it.
pub(super) fn timestamp(at: SystemTime) -> i64 {
    let since_1970 = match at.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    };
    since_1970.saturating_sub(EPOCHS_APART_US)
}

impl Herd {
    /// Time since the start, µs; 0 if the clock went back.
    pub(super) fn uptime_us(&self) -> u64 {
        let uptime = self.now.duration_since(self.started).unwrap_or_default();
        u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX)
    }

    /// What `version()` says: drivers read the number behind "PostgreSQL", so it is a server's.
    fn version(&self) -> String {
        let servers = || self.databases.iter().flat_map(|d| &d.servers);
        let primary =
            servers().filter(|s| s.role == Some(Role::Primary)).find_map(|s| s.server_version.as_deref());
        let known = primary.or_else(|| servers().find_map(|s| s.server_version.as_deref()));
        format!("PostgreSQL {} (pgherd {})", known.unwrap_or("13.0"), env!("CARGO_PKG_VERSION"))
    }

    /// Functions without arguments that drivers call.
    pub(super) fn constants(&self) -> Vec<Constant> {
        let text = |name, value: String| Constant { name, kind: Type::Text, value: Value::Text(value) };
        let now = Value::Timestamptz(timestamp(self.now));
        let moment = |name| Constant { name, kind: Type::Timestamptz, value: now.clone() };
        vec![
            text("version", self.version()),
            text("current_database", self.database.clone()),
            text("current_catalog", self.database.clone()),
            text("current_schema", "pgherd".to_owned()),
            text("current_user", self.user.clone()),
            text("session_user", self.user.clone()),
            text("user", self.user.clone()),
            moment("now"),
            moment("current_timestamp"),
            moment("transaction_timestamp"),
            moment("statement_timestamp"),
        ]
    }
}
