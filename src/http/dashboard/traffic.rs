//! What goes on: figures of the moment and of the window, statements, errors, clients.
//! Must not know servers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::{ErrorFigures, Herd};
use crate::stats::{Figures, Point, SessionState, ShardFigures, ShardHistogram, StatementRow};

/// What "now" looks back.
const NOW: Duration = Duration::from_secs(10);
/// Length of a step of the series.
const STEP: Duration = Duration::from_secs(10);
/// Statements that are shown.
const STATEMENTS: usize = 12;
/// The longest text of a statement that is shown, characters.
const TEXT: usize = 400;
/// Groups of clients that are shown.
const GROUPS: usize = 12;

/// The last seconds.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Now {
    /// How many seconds.
    #[schema(minimum = 1)]
    seconds: u64,
    /// Statements a second.
    per_s: f64,
    /// Of these, those that read.
    reads_per_s: f64,
    /// Of these, those that may write.
    writes_per_s: f64,
    /// Of these, those that ended in an error.
    errors_per_s: f64,
    /// Half took at most so long, µs; null if there were none.
    #[schema(minimum = 0)]
    p50_us: Option<u64>,
    /// 99 % took at most so long, µs; null if there were none.
    #[schema(minimum = 0)]
    p99_us: Option<u64>,
}

impl Now {
    pub(super) fn of(herd: &Herd) -> Self {
        let all = herd.stats.analytics(NOW);
        let Figures { total, reads, writes, errors, throughput_per_s, latency, .. } = all.figures;
        let seconds = (all.covered_ms as f64 / 1000.0).max(1.0);
        Self {
            seconds: seconds.round() as u64,
            per_s: throughput_per_s,
            reads_per_s: reads as f64 / seconds,
            writes_per_s: writes as f64 / seconds,
            errors_per_s: errors as f64 / seconds,
            p50_us: (total > 0).then_some(latency.p50_us),
            p99_us: (total > 0).then_some(latency.p99_us),
        }
    }
}

/// One step of the series.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Step {
    /// When it began.
    #[schema(minimum = 0)]
    at_ms: u64,
    /// How long it lasted; the last is not over yet.
    #[schema(minimum = 0)]
    seconds: u64,
    /// Statements a second.
    per_s: f64,
    /// Failed statements a second.
    errors_per_s: f64,
    /// Half took at most so long, µs; null if there were none.
    #[schema(minimum = 0)]
    p50_us: Option<u64>,
    /// 99 % took at most so long, µs; null if there were none.
    #[schema(minimum = 0)]
    p99_us: Option<u64>,
}

impl Step {
    pub(super) fn series(herd: &Herd, window: Duration) -> Vec<Self> {
        herd.series(window, STEP).iter().map(Self::from).collect()
    }
}

impl From<&Point> for Step {
    fn from(point: &Point) -> Self {
        let any = point.total > 0;
        Self {
            at_ms: point.at_ms,
            seconds: point.seconds,
            per_s: point.throughput_per_s,
            errors_per_s: point.errors as f64 / point.seconds.max(1) as f64,
            p50_us: any.then_some(point.p50_us),
            p99_us: any.then_some(point.p99_us),
        }
    }
}

/// What every shard did, now and in the window.
pub(super) struct Work {
    now: Vec<ShardFigures>,
    window: Vec<ShardFigures>,
    histograms: Vec<ShardHistogram>,
}

impl Work {
    pub(super) fn new(herd: &Herd, window: Duration) -> Self {
        Self {
            now: herd.stats.analytics(NOW).shards,
            window: herd.stats.analytics(window).shards,
            histograms: herd.histograms(window),
        }
    }

    pub(super) fn bounds_us(&self) -> Vec<u64> {
        self.histograms.first().map(|h| h.bounds_us.clone()).unwrap_or_default()
    }

    /// Statements a second on a shard now.
    pub(super) fn per_s(&self, database: &str, shard: &str) -> f64 {
        let of = self.now.iter().find(|s| s.database == database && s.shard == shard);
        of.map_or(0.0, |s| s.figures.throughput_per_s)
    }

    /// A shard's figures of the window.
    pub(super) fn figures(&self, database: &str, shard: &str) -> Option<&Figures> {
        self.window.iter().find(|s| s.database == database && s.shard == shard).map(|s| &s.figures)
    }

    /// A shard's statements in each bucket.
    pub(super) fn counts(&self, database: &str, shard: &str) -> Vec<u64> {
        let of = self.histograms.iter().find(|h| h.database == database && h.shard == shard);
        of.map(|h| h.counts.clone()).unwrap_or_default()
    }
}

/// What statements of one form did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Statement {
    database: String,
    /// Its text without values; empty for all statements together that are not counted one by one.
    statement: String,
    routes: Vec<&'static str>,
    shards: Vec<String>,
    #[schema(minimum = 0)]
    calls: u64,
    #[schema(minimum = 0)]
    errors: u64,
    #[schema(minimum = 0)]
    rows: u64,
    /// Its part of the time of all statements, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    share: f64,
    mean_us: f64,
    #[schema(minimum = 0)]
    p99_us: u64,
}

impl Statement {
    /// Those that took the most time together.
    pub(super) fn top(herd: &Herd) -> Vec<Self> {
        let mut rows = herd.statements();
        let all: u64 = rows.iter().map(|row| row.total_us).sum();
        rows.sort_by_key(|row| std::cmp::Reverse(row.total_us));
        rows.truncate(STATEMENTS);
        rows.into_iter().map(|row| Self::new(row, all)).collect()
    }

    fn new(row: StatementRow, all_us: u64) -> Self {
        let share = row.total_us as f64 / all_us.max(1) as f64;
        Self {
            database: row.database,
            statement: shortened(row.statement),
            routes: row.routes,
            shards: row.shard_names,
            calls: row.calls,
            errors: row.errors,
            rows: row.rows,
            share: share.clamp(0.0, 1.0),
            mean_us: row.mean_us,
            p99_us: row.p99_us,
        }
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// One error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ErrorView {
    #[schema(minimum = 0)]
    at_ms: u64,
    sqlstate: String,
    /// Who raised it: `client`, `proxy` or `server`.
    blame: &'static str,
    message: String,
    database: String,
    user: String,
    shard: Option<String>,
    server: Option<String>,
    /// Its statement's text without values.
    statement: Option<String>,
}

impl From<ErrorFigures> for ErrorView {
    fn from(error: ErrorFigures) -> Self {
        Self {
            at_ms: error.at_ms,
            sqlstate: error.sqlstate,
            blame: error.blame,
            message: error.message,
            database: error.database,
            user: error.user,
            shard: error.shard,
            server: error.server,
            statement: error.statement.map(shortened),
        }
    }
}

/// Who is connected, and what they do.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Clients {
    #[schema(minimum = 0)]
    connected: u64,
    /// How many may be.
    #[schema(minimum = 0)]
    most: u64,
    /// Running a statement.
    #[schema(minimum = 0)]
    active: u64,
    /// Waiting for a server connection.
    #[schema(minimum = 0)]
    waiting: u64,
    /// Idle outside a transaction.
    #[schema(minimum = 0)]
    idle: u64,
    /// Idle inside a transaction.
    #[schema(minimum = 0)]
    in_transaction: u64,
    /// Those of one kind together, the largest groups first.
    groups: Vec<ClientGroup>,
    /// Clients of further groups.
    #[schema(minimum = 0)]
    ungrouped: u64,
}

/// Clients of one application, user and database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ClientGroup {
    application: String,
    user: String,
    database: String,
    #[schema(minimum = 0)]
    connected: u64,
    #[schema(minimum = 0)]
    active: u64,
    #[schema(minimum = 0)]
    waiting: u64,
    #[schema(minimum = 0)]
    in_transaction: u64,
}

impl Clients {
    pub(super) fn of(herd: &Herd) -> Self {
        let mut all = Self { most: herd.config.limits.max_clients as u64, ..Self::default() };
        let mut groups = BTreeMap::new();
        for session in herd.stats.sessions() {
            let info = session.info;
            let key = (info.application, info.user, info.database);
            let group = groups.entry(key).or_insert([0u64; 4]);
            let at = match session.state {
                SessionState::Active => 0,
                SessionState::Waiting => 1,
                SessionState::IdleInTransaction => 2,
                SessionState::Idle => 3,
            };
            if let Some(count) = group.get_mut(at) {
                *count += 1;
            }
        }
        for ((application, user, database), [active, waiting, in_transaction, idle]) in groups {
            let connected = active + waiting + in_transaction + idle;
            all.connected += connected;
            all.active += active;
            all.waiting += waiting;
            all.in_transaction += in_transaction;
            all.idle += idle;
            all.groups.push(ClientGroup {
                application,
                user,
                database,
                connected,
                active,
                waiting,
                in_transaction,
            });
        }
        all.groups.sort_by_key(|group| std::cmp::Reverse(group.connected));
        all.ungrouped = all.groups.iter().skip(GROUPS).map(|group| group.connected).sum();
        all.groups.truncate(GROUPS);
        all
    }
}
