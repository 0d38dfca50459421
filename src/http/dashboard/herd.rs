//! Shards and servers as the page draws them, and what ails them, in words.
//! Must not know how servers are probed, nor how sizes are asked for.

use serde::Serialize;
use utoipa::ToSchema;

use super::feed::{AllSizes, Sizes};
use super::snapshot::ms;
use super::traffic::Work;
use crate::admin::Herd;
use crate::cluster::{DatabaseStatus, Health, PartitionSize, ServerStatus};
use crate::config::Role;
use crate::shard::{PartitionId, SLOTS, ShardId};
use crate::stats::PoolRow;

/// One database.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DatabaseView {
    name: String,
    shards: Vec<ShardView>,
    /// When sizes were told last.
    #[schema(minimum = 0)]
    sizes_at_ms: Option<u64>,
    /// Why some sizes were not told the last time.
    sizes_error: Option<String>,
}

/// How a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// All of it works.
    Well,
    /// It takes writes, but something is not as the configuration has it.
    Degraded,
    /// It takes no writes.
    Down,
    /// No server of it was asked yet.
    Unknown,
}

/// One shard. Figures are of the window, unless they say otherwise.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schema(as = DashboardShard)]
struct ShardView {
    name: String,
    state: State,
    /// What ails it, in words; the worst first.
    problems: Vec<String>,
    /// In the order of the configuration.
    servers: Vec<ServerView>,
    partitions: Vec<PartitionView>,
    /// Its database with all in it, bytes; null until asked.
    #[schema(minimum = 0)]
    bytes: Option<u64>,
    /// Statements a second, now.
    per_s: f64,
    #[schema(minimum = 0)]
    total: u64,
    #[schema(minimum = 0)]
    errors: u64,
    #[schema(minimum = 0)]
    p50_us: u64,
    #[schema(minimum = 0)]
    p99_us: u64,
    /// Statements in each bucket of the histogram; empty if there were none.
    counts: Vec<u64>,
}

/// One server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ServerView {
    /// `host:port`.
    address: String,
    /// `primary` or `replica`: what it says, or else what the configuration expects.
    role: &'static str,
    /// `up`, `lagging`, `drained`, `down` or `unknown`.
    state: &'static str,
    /// Since when.
    #[schema(minimum = 0)]
    since_ms: u64,
    /// Replicas: WAL not replayed yet, bytes.
    #[schema(minimum = 0)]
    lag_bytes: Option<u64>,
    /// Replicas: for how long it has not been caught up, µs.
    #[schema(minimum = 0)]
    lag_us: Option<u64>,
    /// Connections lent to clients now, over the pools of all users.
    #[schema(minimum = 0)]
    in_use: u32,
    /// Connections open now.
    #[schema(minimum = 0)]
    open: u32,
    /// How many may be.
    #[schema(minimum = 0)]
    size: u32,
    /// Clients that wait for one now.
    #[schema(minimum = 0)]
    waiting: u32,
    /// PostgreSQL's version, once asked.
    version: Option<String>,
}

/// One partition.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PartitionView {
    name: String,
    #[schema(minimum = 0)]
    weight: u32,
    /// Its part of the hash slots, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    share: f64,
    /// Its part of the sharded tables with their indexes, estimated from a sample of rows; null until asked.
    #[schema(minimum = 0)]
    bytes: Option<u64>,
    /// Its rows in sharded tables, estimated likewise.
    #[schema(minimum = 0)]
    rows: Option<u64>,
}

/// Every database.
pub(super) fn of_databases(herd: &Herd, sizes: &AllSizes, work: &Work) -> Vec<DatabaseView> {
    let pools = herd.stats.pools();
    let none = Sizes::default();
    let view = |status: &DatabaseStatus| {
        let sizes = sizes.get(&status.name).unwrap_or(&none);
        let size = herd.config.database(&status.name).map_or(0, |d| d.pool.size.get());
        let ids = (0..status.map.shards.len() as u16).map(ShardId);
        DatabaseView {
            name: status.name.clone(),
            shards: ids.map(|id| shard(status, id, sizes, &pools, size, work)).collect(),
            sizes_at_ms: sizes.at.map(ms),
            sizes_error: sizes.error.clone(),
        }
    };
    herd.databases.iter().map(view).collect()
}

fn shard(
    status: &DatabaseStatus,
    id: ShardId,
    sizes: &Sizes,
    pools: &[PoolRow],
    pool_size: u32,
    work: &Work,
) -> ShardView {
    let name = status.map.shard_name(id);
    let servers: Vec<_> = status.servers.iter().filter(|s| s.shard_id == id).collect();
    let (state, mut problems) = diagnosis(&servers);
    if status.paused {
        problems.insert(0, "paused by an operator, so statements wait for RESUME".to_owned());
    }
    let drift = status.schema_drift.iter().filter(|d| d.shard == name);
    problems.extend(drift.map(|d| format!("{} differs from the default shard: {}", d.object, d.problem)));
    let state = if state == State::Well && !problems.is_empty() { State::Degraded } else { state };
    let size = sizes.shards.get(&id);
    let partitions = (0u16..).map(PartitionId).zip(&status.map.partitions).filter(|(_, p)| p.shard == id);
    let figures = work.figures(&status.name, name);
    ShardView {
        name: name.to_owned(),
        state,
        problems,
        servers: servers.iter().map(|s| server(s, pools, pool_size)).collect(),
        partitions: partitions
            .map(|(id, p)| partition(p, size.and_then(|s| s.partitions.get(&id)).copied()))
            .collect(),
        bytes: size.map(|s| s.bytes),
        per_s: work.per_s(&status.name, name),
        total: figures.map_or(0, |f| f.total),
        errors: figures.map_or(0, |f| f.errors),
        p50_us: figures.map_or(0, |f| f.latency.p50_us),
        p99_us: figures.map_or(0, |f| f.latency.p99_us),
        counts: work.counts(&status.name, name),
    }
}

fn partition(partition: &crate::shard::Partition, size: Option<PartitionSize>) -> PartitionView {
    PartitionView {
        name: partition.name.clone(),
        weight: partition.weight,
        share: partition.slots.len() as f64 / f64::from(SLOTS),
        bytes: size.map(|s| s.bytes),
        rows: size.map(|s| s.rows),
    }
}

fn server(server: &ServerStatus, pools: &[PoolRow], pool_size: u32) -> ServerView {
    let own: Vec<_> = pools
        .iter()
        .filter(|pool| {
            let label = &pool.label;
            (&label.database, &label.shard, &label.address)
                == (&server.database, &server.shard, &server.address)
        })
        .collect();
    let sum = |of: fn(&PoolRow) -> u32| own.iter().map(|pool| of(pool)).sum();
    ServerView {
        address: server.address.clone(),
        role: role_of(server).as_str(),
        state: match server.health {
            Health::Unknown => "unknown",
            Health::Up | Health::Lagging if server.drained => "drained",
            Health::Up => "up",
            Health::Lagging => "lagging",
            Health::Down => "down",
        },
        since_ms: ms(server.since),
        lag_bytes: server.lag_bytes,
        lag_us: server.lag_us,
        in_use: sum(|pool| pool.in_use),
        open: sum(|pool| pool.open),
        // Before its first client a server has no pool.
        size: if own.is_empty() { pool_size } else { sum(|pool| pool.label.size) },
        waiting: sum(|pool| pool.waiting),
        version: server.server_version.clone(),
    }
}

/// A server that was never asked counts as what the configuration expects of it.
fn role_of(server: &ServerStatus) -> Role {
    server.role.unwrap_or(server.expected_role)
}

/// How a shard is, and what ails it.
fn diagnosis(servers: &[&ServerStatus]) -> (State, Vec<String>) {
    if servers.iter().all(|s| s.health == Health::Unknown) {
        return (State::Unknown, Vec::new());
    }
    let is_up = |s: &ServerStatus| matches!(s.health, Health::Up | Health::Lagging);
    let primaries: Vec<_> = servers
        .iter()
        .filter(|s| is_up(s) && s.role == Some(Role::Primary))
        .map(|s| s.address.as_str())
        .collect();
    let mut problems = Vec::new();
    match primaries.len() {
        0 => problems.push("no primary, so writes are refused".to_owned()),
        1 => {}
        _ => problems
            .push(format!("{} all say they are the primary, so writes are refused", primaries.join(" and "))),
    }
    problems.extend(servers.iter().filter_map(|s| trouble(s)));
    let state = match (primaries.len(), problems.is_empty()) {
        (1, true) => State::Well,
        (1, false) => State::Degraded,
        _ => State::Down,
    };
    (state, problems)
}

/// What ails a server.
fn trouble(server: &ServerStatus) -> Option<String> {
    let (role, address) = (role_of(server).as_str(), &server.address);
    match server.health {
        Health::Down => {
            let why = server.last_error.as_deref().unwrap_or("no answer");
            Some(format!("{role} {address} is down: {why}"))
        }
        Health::Up | Health::Lagging if server.drained => {
            Some(format!("{role} {address} is drained by an operator and gets no reads until RESUME SERVER"))
        }
        Health::Lagging => Some(format!(
            "{role} {address} lags by {:.1} s and gets no reads until it has caught up",
            server.lag_us.unwrap_or_default() as f64 / 1e6
        )),
        Health::Unknown => Some(format!("{role} {address} was not asked yet")),
        Health::Up if server.role.is_some_and(|role| role != server.expected_role) => {
            let expected = server.expected_role.as_str();
            Some(format!("{address} is a {role}, where the configuration expects a {expected}"))
        }
        Health::Up => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn server(address: &str, expected_role: Role, role: Option<Role>, health: Health) -> ServerStatus {
        ServerStatus {
            database: "app".into(),
            shard: "shard1".into(),
            shard_id: ShardId(0),
            address: address.into(),
            expected_role,
            role,
            health,
            lag_bytes: Some(1),
            lag_us: Some(2_500_000),
            since: SystemTime::UNIX_EPOCH,
            last_error: Some("connection refused".into()),
            drained: false,
            outstanding: 0,
            weight: 1,
            server_version: None,
        }
    }

    #[test]
    fn a_shards_state_comes_with_its_reason() {
        let primary = |health| server("a:1", Role::Primary, Some(Role::Primary), health);
        let replica = |health| server("b:2", Role::Replica, Some(Role::Replica), health);
        let drained = ServerStatus { drained: true, ..replica(Health::Up) };
        let promoted = server("b:2", Role::Replica, Some(Role::Primary), Health::Up);
        let unasked = |address, role| server(address, role, None, Health::Unknown);
        for (servers, state, want) in [
            (vec![primary(Health::Up), replica(Health::Up)], State::Well, ""),
            (
                vec![primary(Health::Up), replica(Health::Down)],
                State::Degraded,
                "replica b:2 is down: connection refused",
            ),
            (
                vec![primary(Health::Up), replica(Health::Lagging)],
                State::Degraded,
                "replica b:2 lags by 2.5 s and gets no reads until it has caught up",
            ),
            (
                vec![primary(Health::Down), replica(Health::Up)],
                State::Down,
                "no primary, so writes are refused; primary a:1 is down: connection refused",
            ),
            (
                vec![primary(Health::Down), promoted.clone()],
                State::Degraded,
                "primary a:1 is down: connection refused; b:2 is a primary, where the configuration expects a replica",
            ),
            (
                vec![primary(Health::Up), promoted],
                State::Down,
                "a:1 and b:2 all say they are the primary, so writes are refused; b:2 is a primary, where the configuration expects a replica",
            ),
            (vec![unasked("a:1", Role::Primary), unasked("b:2", Role::Replica)], State::Unknown, ""),
            (
                vec![primary(Health::Up), drained],
                State::Degraded,
                "replica b:2 is drained by an operator and gets no reads until RESUME SERVER",
            ),
            (
                vec![primary(Health::Up), unasked("b:2", Role::Replica)],
                State::Degraded,
                "replica b:2 was not asked yet",
            ),
        ] {
            let (found, problems) = diagnosis(&servers.iter().collect::<Vec<_>>());
            assert_eq!((found, problems.join("; ").as_str()), (state, want));
        }
    }
}
