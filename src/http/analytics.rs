//! What happened of late, and what statements did, as JSON.
//! Must not know how it was recorded.

use std::time::{Duration, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::{HttpError, QueryRefusals, Refusals};
use super::moment::Moment;
use crate::stats::{self, Class};
use crate::wire::SqlState;

/// What users may ask.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// What only operators may ask: texts of statements and errors are other users' too.
pub(super) fn admin_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(errors)).routes(routes!(statements))
}

/// The longest time that is looked back, ms.
const LONGEST_MS: u64 = 3_600_000;
/// Errors and statements that are kept.
const MOST: u32 = 1000;

/// Which time.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Range {
    /// So long back from now, ms.
    #[serde(default = "five_minutes")]
    #[param(minimum = 1000, maximum = 3_600_000, default = 300_000)]
    time_range: u64,
}

fn five_minutes() -> u64 {
    300_000
}

/// How many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Count {
    /// At most so many.
    #[serde(default = "fifty")]
    #[param(minimum = 1, maximum = 1000, default = 50)]
    count: u32,
}

fn fifty() -> u32 {
    50
}

impl Count {
    fn checked(query: Result<Query<Self>, QueryRejection>) -> Result<usize, HttpError> {
        let Query(Self { count }) = query.map_err(|e| wrong(&e))?;
        if (1..=MOST).contains(&count) {
            return Ok(count as usize);
        }
        let message = format!("count is {count}, and must be from 1 to {MOST}");
        Err(HttpError::new(SqlState::INVALID_PARAMETER_VALUE, message))
    }
}

fn wrong(rejection: &QueryRejection) -> HttpError {
    HttpError::new(SqlState::INVALID_PARAMETER_VALUE, rejection.body_text())
        .hint("GET /api/openapi.json describes the parameters.")
}

/// How long statements took, µs. Percentiles are exact to two significant digits.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Latency {
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p95_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl From<stats::Spread> for Latency {
    fn from(s: stats::Spread) -> Self {
        let stats::Spread { mean_us, p50_us, p90_us, p95_us, p99_us, p999_us, max_us } = s;
        Self { mean_us, p50_us, p90_us, p95_us, p99_us, p999_us, max_us }
    }
}

/// Makes a struct with figures of statements after fields of its own, all on one level.
macro_rules! with_figures {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $field:ident: $kind:ty,)* } { $($(#[$after:meta])* $last:ident: $list:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct $name {
            $($(#[$about])* $field: $kind,)*
            /// Statements, those refused and those failed included.
            total: u64,
            /// Of these, those that read.
            reads: u64,
            /// Of these, those that write, or may write.
            writes: u64,
            /// Of these, those that ended in an error.
            errors: u64,
            /// Errors for each statement, 0 to 1.
            error_rate: f64,
            /// Statements a second.
            throughput_per_second: f64,
            latency: Latency,
            $($(#[$after])* $last: $list,)*
        }

        impl $name {
            fn new(figures: stats::Figures, $($field: $kind,)* $($last: $list,)*) -> Self {
                let stats::Figures { total, reads, writes, errors, error_rate, throughput_per_s, latency } = figures;
                Self {
                    $($field,)*
                    total,
                    reads,
                    writes,
                    errors,
                    error_rate,
                    throughput_per_second: throughput_per_s,
                    latency: latency.into(),
                    $($last,)*
                }
            }
        }
    };
}

with_figures! {
    /// What happened of late. Statements on the database `pgherd` and SELECTs of virtual tables do not count.
    Metrics {
        /// What was asked for, ms.
        time_range: u64,
        /// How much of it there is, ms: not more than the proxy runs.
        covered: u64,
    } {
        /// Each shard; a statement over several shards counts on each of them.
        shards: Vec<ShardMetrics>,
        /// Each server under each role that it had.
        servers: Vec<ServerMetrics>,
        /// Each partition that a statement's keys named alone.
        partitions: Vec<PartitionMetrics>,
    }
}

with_figures! {
    /// What happened on one shard.
    ShardMetrics {
        database: String,
        shard: String,
        /// Its part of what all shards did, 0 to 1.
        share: f64,
    } {}
}

with_figures! {
    /// What happened on one server.
    ServerMetrics {
        database: String,
        shard: String,
        /// `host:port`.
        server: String,
        /// `primary` or `replica`.
        role: &'static str,
        /// Its part of what all servers did, 0 to 1.
        share: f64,
    } {}
}

/// How often one partition was named.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PartitionMetrics {
    database: String,
    partition: String,
    /// The shard that holds it.
    shard: String,
    /// Statements whose keys name it and no other.
    total: u64,
    /// Its part of all such statements, 0 to 1.
    share: f64,
}

/// Throughput, errors and latency of late: the whole, each shard, server and partition.
#[utoipa::path(get, path = "/api/analytics/metrics", tag = "analytics", security(("basic" = []), ("bearer" = []), ()),
    params(Range), responses((status = 200, body = Metrics), QueryRefusals, Refusals))]
async fn metrics(
    State(app): State<App>,
    query: Result<Query<Range>, QueryRejection>,
) -> Result<Json<Metrics>, HttpError> {
    let Query(Range { time_range }) = query.map_err(|e| wrong(&e))?;
    if !(1000..=LONGEST_MS).contains(&time_range) {
        let message = format!("timeRange is {time_range}, and must be from 1000 to {LONGEST_MS} ms");
        return Err(HttpError::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    let all = app.proxy().herd("", "").analytics(Duration::from_millis(time_range));
    let shards = all.shards.into_iter().map(|s| ShardMetrics::new(s.figures, s.database, s.shard, s.share));
    let servers = all
        .servers
        .into_iter()
        .map(|s| ServerMetrics::new(s.figures, s.database, s.shard, s.server, s.role, s.share));
    let partitions = all.partitions.into_iter().map(|p| {
        let stats::PartitionFigures { database, partition, shard, total, share, .. } = p;
        PartitionMetrics { database, partition, shard, total, share }
    });
    let (shards, servers, partitions) = (shards.collect(), servers.collect(), partitions.collect());
    Ok(Json(Metrics::new(all.figures, time_range, all.covered_ms, shards, servers, partitions)))
}

/// One error that happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ErrorEntry {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    time: Moment,
    sqlstate: String,
    message: String,
    /// Who raised it: `client`, `proxy` or `server`.
    blame: &'static str,
    /// Empty if none was named yet.
    database: String,
    /// Empty if none was named yet.
    user: String,
    shard: Option<String>,
    /// `host:port`.
    server: Option<String>,
    /// The fingerprint of its statement.
    fingerprint: Option<String>,
    /// The text of its statement, without values.
    statement: Option<String>,
}

/// The latest errors.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ErrorList {
    /// Newest first.
    errors: Vec<ErrorEntry>,
}

/// The latest errors, newest first.
#[utoipa::path(get, path = "/api/analytics/errors", tag = "analytics", security(("basic" = []), ("bearer" = []), ()),
    params(Count), responses((status = 200, body = ErrorList), QueryRefusals, Refusals))]
async fn errors(
    State(app): State<App>,
    query: Result<Query<Count>, QueryRejection>,
) -> Result<Json<ErrorList>, HttpError> {
    let errors = app.proxy().herd("", "").errors(Count::checked(query)?);
    let entry = |e: crate::admin::ErrorFigures| ErrorEntry {
        time: (UNIX_EPOCH + Duration::from_millis(e.at_ms)).into(),
        sqlstate: e.sqlstate,
        message: e.message,
        blame: e.blame,
        database: e.database,
        user: e.user,
        shard: e.shard,
        server: e.server,
        fingerprint: e.fingerprint,
        statement: e.statement,
    };
    Ok(Json(ErrorList { errors: errors.into_iter().map(entry).collect() }))
}

/// What statements that differ in values only did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct StatementEntry {
    /// Empty in the row that sums up those not counted one by one.
    database: String,
    /// Empty in the row that sums up those not counted one by one.
    fingerprint: String,
    /// Its text without values.
    statement: String,
    /// select, insert, update, delete, copy, transaction or other.
    class: Option<&'static str>,
    /// How it was routed, all ways that occurred: local, direct, any, fan-out.
    routes: Vec<&'static str>,
    /// The shards it ran on.
    shards: Vec<String>,
    calls: u64,
    /// Of the calls, those that a replica answered.
    replica_calls: u64,
    /// Of the calls, those that failed.
    errors: u64,
    /// Rows returned or affected.
    rows: u64,
    /// All calls together, µs.
    total_us: u64,
    mean_us: f64,
    /// Within 6 %.
    p50_us: u64,
    /// Within 6 %.
    p99_us: u64,
    max_us: u64,
    /// Of the total: waiting for a server connection, µs.
    queue_us: u64,
    /// Of the total: on servers, µs.
    server_us: u64,
    /// Of the total: in the proxy, µs.
    proxy_us: u64,
}

/// What statements did.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StatementList {
    /// Those that took most time first.
    statements: Vec<StatementEntry>,
}

/// What statements did since the start or the last `RESET STATEMENTS`, the most expensive first.
#[utoipa::path(get, path = "/api/statements", tag = "analytics", security(("basic" = []), ("bearer" = []), ()),
    params(Count), responses((status = 200, body = StatementList), QueryRefusals, Refusals))]
async fn statements(
    State(app): State<App>,
    query: Result<Query<Count>, QueryRejection>,
) -> Result<Json<StatementList>, HttpError> {
    let count = Count::checked(query)?;
    let entry = |s: stats::StatementRow| StatementEntry {
        database: s.database,
        fingerprint: s.fingerprint,
        statement: s.statement,
        class: s.class.map(Class::as_str),
        routes: s.routes,
        shards: s.shard_names,
        calls: s.calls,
        replica_calls: s.replica_calls,
        errors: s.errors,
        rows: s.rows,
        total_us: s.total_us,
        mean_us: s.mean_us,
        p50_us: s.p50_us,
        p99_us: s.p99_us,
        max_us: s.max_us,
        queue_us: s.queue_us,
        server_us: s.server_us,
        proxy_us: s.proxy_us,
    };
    let rows = app.proxy().herd("", "").statements();
    Ok(Json(StatementList { statements: rows.into_iter().take(count).map(entry).collect() }))
}
