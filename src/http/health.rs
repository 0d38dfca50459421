//! Liveness and readiness for load balancers, and the state of every server for people.
//! Must not know how servers are probed.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::Refusals;
use super::moment::Moment;
use crate::cluster::{DatabaseStatus, Health as ServerHealth, ServerStatus};
use crate::config::Role;
use crate::shard::ShardId;
use crate::stats::PoolRow;

/// What anybody may ask.
pub(super) fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready))
}

/// What users may ask.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(health))
}

/// A word for a machine.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Live {
    /// Always `live`: it answers.
    status: &'static str,
}

/// Whether the proxy is alive. It asks no server.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, body = Live)))]
async fn live() -> Json<Live> {
    Json(Live { status: "live" })
}

/// Whether traffic makes sense.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Ready {
    /// Whether every shard has a primary and every database's catalogs are read.
    ready: bool,
    /// What is missing, a line each.
    missing: Vec<String>,
}

/// Whether every shard has a primary.
#[utoipa::path(get, path = "/ready", tag = "health", responses(
    (status = 200, description = "Ready.", body = Ready),
    (status = 503, description = "Not ready, and why.", body = Ready),
))]
async fn ready(State(app): State<App>) -> (StatusCode, Json<Ready>) {
    let herd = app.proxy().herd("", "");
    let mut missing = Vec::new();
    for database in &herd.databases {
        if database.catalog_generation == 0 {
            missing.push(format!("database {}: its catalogs are not read yet", database.name));
        }
        for (_, shard, servers) in shards(database) {
            if !has_primary(&servers) {
                missing.push(format!("database {}: shard {shard} has no primary", database.name));
            }
        }
    }
    let status = if missing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: missing.is_empty(), missing }))
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Wellness {
    /// All of it works.
    Ok,
    /// It takes writes, but a server does not do what the configuration expects of it.
    Degraded,
    /// No writes: a shard without a primary, or with two.
    Down,
}

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ServerState {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Up,
    /// It answers, but is further behind than `max_replica_lag_ms`: it gets no reads.
    Lagging,
    /// It does not answer.
    Down,
}

/// What a server is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ServerRole {
    Primary,
    Replica,
}

impl From<Role> for ServerRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => Self::Primary,
            Role::Replica => Self::Replica,
        }
    }
}

/// The proxy and all behind it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Health {
    /// The worst of the databases.
    status: Wellness,
    /// The proxy's version.
    version: &'static str,
    /// When the proxy started, ISO 8601, UTC.
    #[schema(value_type = String, format = DateTime)]
    started_at: Moment,
    /// When this was true.
    #[schema(value_type = String, format = DateTime)]
    time: Moment,
    /// Clients connected now, those of the HTTP server's own sessions included.
    clients: usize,
    databases: Vec<DatabaseHealth>,
}

/// One database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DatabaseHealth {
    name: String,
    /// The worst of its shards.
    status: Wellness,
    shards: Vec<ShardHealth>,
}

/// One shard.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ShardHealth {
    name: String,
    status: Wellness,
    /// The partitions whose rows it holds.
    partitions: Vec<String>,
    /// In the order of the configuration.
    servers: Vec<ServerHealthRow>,
}

/// One PostgreSQL server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServerHealthRow {
    /// `host:port`.
    address: String,
    /// What the configuration expects.
    expected_role: ServerRole,
    /// What the server says of itself; null until it was asked.
    role: Option<ServerRole>,
    /// Whether the server itself said that it is what the configuration expects.
    role_verified: bool,
    /// Whether it answers.
    up: bool,
    state: ServerState,
    /// Replicas: WAL not replayed yet, bytes.
    #[schema(minimum = 0)]
    lag_bytes: Option<u64>,
    /// Replicas: for how long it has not been caught up, seconds.
    #[schema(minimum = 0)]
    lag_seconds: Option<f64>,
    /// Connections lent to clients now, over the pools of all users.
    #[schema(minimum = 0)]
    in_use: u32,
    /// Connections open now.
    #[schema(minimum = 0)]
    open: u32,
    /// Clients that wait for a connection now.
    #[schema(minimum = 0)]
    waiting: u32,
    /// Since when it is in this state.
    #[schema(value_type = String, format = DateTime)]
    since: Moment,
    /// What failed last.
    last_error: Option<String>,
    /// Its version, once it was asked.
    version: Option<String>,
}

/// Every server: role, lag, connections, since when, the last error.
#[utoipa::path(get, path = "/api/health", tag = "health", security(("basic" = []), ("bearer" = []), ()),
    responses((status = 200, body = Health), Refusals))]
async fn health(State(app): State<App>) -> Json<Health> {
    let herd = app.proxy().herd("", "");
    let pools = herd.stats.pools();
    let databases: Vec<_> = herd.databases.iter().map(|d| database_health(d, &pools)).collect();
    Json(Health {
        status: worst(databases.iter().map(|d| d.status)),
        version: env!("CARGO_PKG_VERSION"),
        started_at: herd.started.into(),
        time: herd.now.into(),
        clients: app.proxy().clients(),
        databases,
    })
}

fn database_health(database: &DatabaseStatus, pools: &[PoolRow]) -> DatabaseHealth {
    let shards: Vec<_> = shards(database)
        .map(|(id, name, servers)| ShardHealth {
            name: name.to_owned(),
            status: shard_wellness(&servers),
            partitions: partitions_of(database, id),
            servers: servers.iter().map(|server| server_health(server, pools)).collect(),
        })
        .collect();
    DatabaseHealth { name: database.name.clone(), status: worst(shards.iter().map(|s| s.status)), shards }
}

fn partitions_of(database: &DatabaseStatus, id: ShardId) -> Vec<String> {
    let of_shard = database.map.partitions.iter().filter(|partition| partition.shard == id);
    of_shard.map(|partition| partition.name.clone()).collect()
}

fn server_health(server: &ServerStatus, pools: &[PoolRow]) -> ServerHealthRow {
    let own = || {
        pools.iter().filter(|pool| {
            let label = &pool.label;
            label.database == server.database
                && label.shard == server.shard
                && label.address == server.address
        })
    };
    ServerHealthRow {
        address: server.address.clone(),
        expected_role: server.expected_role.into(),
        role: server.role.map(Into::into),
        role_verified: server.role == Some(server.expected_role),
        up: is_up(server),
        state: match server.health {
            ServerHealth::Unknown => ServerState::Unknown,
            ServerHealth::Up => ServerState::Up,
            ServerHealth::Lagging => ServerState::Lagging,
            ServerHealth::Down => ServerState::Down,
        },
        lag_bytes: server.lag_bytes,
        lag_seconds: server.lag_us.map(|us| us as f64 / 1e6),
        in_use: own().map(|pool| pool.in_use).sum(),
        open: own().map(|pool| pool.open).sum(),
        waiting: own().map(|pool| pool.waiting).sum(),
        since: server.since.into(),
        last_error: server.last_error.clone(),
        version: server.server_version.clone(),
    }
}

/// The shards of a database in the order of the configuration, each with its servers.
fn shards(database: &DatabaseStatus) -> impl Iterator<Item = (ShardId, &str, Vec<&ServerStatus>)> {
    let mut found: Vec<(ShardId, &str, Vec<&ServerStatus>)> = Vec::new();
    for server in &database.servers {
        match found.iter_mut().find(|(id, ..)| *id == server.shard_id) {
            Some((_, _, servers)) => servers.push(server),
            None => found.push((server.shard_id, &server.shard, vec![server])),
        }
    }
    found.into_iter()
}

fn is_up(server: &ServerStatus) -> bool {
    matches!(server.health, ServerHealth::Up | ServerHealth::Lagging)
}

/// Whether writes have a place: exactly one server that answers says it is the primary.
fn has_primary(servers: &[&ServerStatus]) -> bool {
    servers.iter().filter(|s| is_up(s) && s.role == Some(Role::Primary)).count() == 1
}

fn shard_wellness(servers: &[&ServerStatus]) -> Wellness {
    if !has_primary(servers) {
        return Wellness::Down;
    }
    let well = servers.iter().all(|s| s.health == ServerHealth::Up && s.role == Some(s.expected_role));
    if well { Wellness::Ok } else { Wellness::Degraded }
}

fn worst(all: impl Iterator<Item = Wellness>) -> Wellness {
    all.max().unwrap_or(Wellness::Ok)
}
