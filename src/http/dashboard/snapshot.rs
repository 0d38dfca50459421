//! All that the page shows at one moment.
//! Must not know how it gets to the page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use utoipa::ToSchema;

use super::feed::AllSizes;
use super::herd::{DatabaseView, of_databases};
use super::traffic::{Clients, ErrorView, Now, Statement, Step, Work};
use crate::admin::{self, Herd};
use crate::rows::Value;

/// What charts and histograms look back.
pub(super) const WINDOW: Duration = Duration::from_secs(900);
/// Errors that are shown.
const ERRORS: usize = 30;

/// All that the dashboard shows. Times of day are ms since 1970.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Snapshot {
    /// When this was true.
    #[schema(minimum = 0)]
    time: u64,
    /// When the proxy started.
    #[schema(minimum = 0)]
    started_ms: u64,
    /// The proxy's version.
    version: &'static str,
    /// How long the series and histograms look back, ms.
    #[schema(minimum = 0)]
    window_ms: u64,
    now: Now,
    /// Steps of the window, oldest first.
    series: Vec<Step>,
    /// Upper ends of the histograms' buckets, µs; the last bucket has none.
    bounds_us: Vec<u64>,
    databases: Vec<DatabaseView>,
    /// Those that took the most time together.
    statements: Vec<Statement>,
    /// Since when statements are counted.
    #[schema(minimum = 0)]
    statements_since_ms: u64,
    /// The latest, newest first.
    errors: Vec<ErrorView>,
    /// Errors since the start.
    #[schema(minimum = 0)]
    errors_total: u64,
    clients: Clients,
}

impl Snapshot {
    pub(super) fn new(herd: &Herd, sizes: &AllSizes) -> Self {
        let work = Work::new(herd, WINDOW);
        let (since, _) = herd.stats.statements_since();
        Self {
            time: ms(herd.now),
            started_ms: ms(herd.started),
            version: env!("CARGO_PKG_VERSION"),
            window_ms: u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX),
            now: Now::of(herd),
            series: Step::series(herd, WINDOW),
            bounds_us: work.bounds_us(),
            databases: of_databases(herd, sizes, &work),
            statements: Statement::top(herd),
            statements_since_ms: ms(since),
            errors: herd.errors(ERRORS).into_iter().map(ErrorView::from).collect(),
            errors_total: herd.stats.totals().errors,
            clients: Clients::of(herd),
        }
    }
}

/// The configuration in force.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Settings {
    file: String,
    settings: Vec<Setting>,
}

#[derive(Debug, Serialize)]
struct Setting {
    key: String,
    value: Option<String>,
    unit: Option<String>,
}

impl Settings {
    /// As `SHOW CONFIG` has it.
    pub(super) fn new(herd: &Herd) -> Self {
        let rows = admin::show(herd, "config").map(|table| table.rows).unwrap_or_default();
        let text = |value: Option<Value>| match value {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        let settings = rows.into_iter().map(|row| {
            let mut values = row.into_iter();
            let key = text(values.next()).unwrap_or_default();
            Setting { key, value: text(values.next()), unit: text(values.next()) }
        });
        Self { file: herd.config.path.display().to_string(), settings: settings.collect() }
    }
}

/// Ms since 1970.
pub(super) fn ms(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
