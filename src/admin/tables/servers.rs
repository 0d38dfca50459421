//! `pgherd.shards` and `pgherd.servers`: which servers there are, what they are and how they do.
//! Must not know how servers are probed.

use std::time::SystemTime;

use crate::admin::Herd;
use crate::admin::record::{Source, record};
use crate::cluster::{DatabaseStatus, Health, ServerStatus};
use crate::config::Role;
use crate::shard::ShardId;

record! {
    /// One shard.
    Shard is "shards", "shards, the partitions they hold, and whether they can be written and read" {
        database: String,
        shard: String,
        partitions: String,
        primary_address: Option<String>,
        replicas: u64,
        replicas_healthy: u64,
        state: &'static str,
    }
}

record! {
    /// One server.
    Server is "servers", "servers, their role as asked and as expected, health and replication lag" {
        database: String,
        shard: String,
        server: String,
        role: Option<&'static str>,
        expected_role: &'static str,
        state: &'static str,
        lag_bytes: Option<u64>,
        lag_us: Option<u64>,
        outstanding: u32,
        weight: u32,
        server_version: Option<String>,
        since: SystemTime,
        last_error: Option<String>,
    }
}

impl Source for Shard {
    fn rows(herd: &Herd) -> Vec<Self> {
        let of_database = |database: &DatabaseStatus| {
            let ids = (0..database.map.shards.len()).map(|i| ShardId(i as u16));
            ids.map(|id| shard(database, id)).collect::<Vec<_>>()
        };
        herd.databases.iter().flat_map(of_database).collect()
    }
}

fn shard(database: &DatabaseStatus, id: ShardId) -> Shard {
    let servers: Vec<_> = database.servers.iter().filter(|s| s.shard_id == id).collect();
    let partitions = database.map.partitions.iter().filter(|p| p.shard == id).map(|p| p.name.as_str());
    // A server that was never asked counts as what the config expects of it.
    let role = |s: &ServerStatus| s.role.unwrap_or(s.expected_role);
    let replicas = || servers.iter().filter(|s| role(s) == Role::Replica);
    let primary = servers.iter().find(|s| role(s) == Role::Primary);
    Shard {
        database: database.name.clone(),
        shard: database.map.shard_name(id).to_owned(),
        partitions: partitions.collect::<Vec<_>>().join(", "),
        primary_address: primary.map(|s| s.address.clone()),
        replicas: replicas().count() as u64,
        replicas_healthy: replicas().filter(|s| s.health == Health::Up).count() as u64,
        state: shard_state(&servers),
    }
}

/// What can be done on a shard, in words.
fn shard_state(servers: &[&ServerStatus]) -> &'static str {
    let is_up = |s: &ServerStatus| s.health == Health::Up;
    let primaries = servers.iter().filter(|s| is_up(s) && s.role == Some(Role::Primary)).count();
    let is_any_up = servers.iter().any(|s| is_up(s));
    match primaries {
        _ if servers.iter().all(|s| s.health == Health::Unknown) => "unknown",
        0 if is_any_up => "read only",
        0 => "down",
        1 if servers.iter().all(|s| is_up(s)) => "up",
        1 => "degraded",
        _ => "several primaries",
    }
}

impl Source for Server {
    fn rows(herd: &Herd) -> Vec<Self> {
        herd.databases.iter().flat_map(|d| &d.servers).map(Self::from).collect()
    }
}

impl From<&ServerStatus> for Server {
    fn from(server: &ServerStatus) -> Self {
        Self {
            database: server.database.clone(),
            shard: server.shard.clone(),
            server: server.address.clone(),
            role: server.role.map(Role::as_str),
            expected_role: server.expected_role.as_str(),
            state: match server.health {
                Health::Unknown => "unknown",
                Health::Up if server.drained => "drained",
                Health::Up => "up",
                Health::Lagging => "lagging",
                Health::Down => "down",
            },
            lag_bytes: server.lag_bytes,
            lag_us: server.lag_us,
            outstanding: server.outstanding,
            weight: server.weight,
            server_version: server.server_version.clone(),
            since: server.since,
            last_error: server.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(role: Option<Role>, health: Health) -> ServerStatus {
        ServerStatus {
            database: "app".into(),
            shard: "shard1".into(),
            shard_id: ShardId(0),
            address: "a:1".into(),
            expected_role: Role::Replica,
            role,
            health,
            lag_bytes: None,
            lag_us: None,
            since: SystemTime::UNIX_EPOCH,
            last_error: None,
            drained: false,
            outstanding: 0,
            weight: 1,
            server_version: None,
        }
    }

    #[test]
    fn a_shards_state_says_what_can_be_done_on_it() {
        let primary = |health| server(Some(Role::Primary), health);
        let replica = |health| server(Some(Role::Replica), health);
        for (servers, want) in [
            (vec![primary(Health::Up), replica(Health::Up)], "up"),
            (vec![primary(Health::Up), replica(Health::Down)], "degraded"),
            (vec![primary(Health::Up), replica(Health::Lagging)], "degraded"),
            (vec![primary(Health::Down), replica(Health::Up)], "read only"),
            (vec![primary(Health::Down), replica(Health::Down)], "down"),
            (vec![primary(Health::Up), primary(Health::Up)], "several primaries"),
            (vec![server(None, Health::Unknown)], "unknown"),
        ] {
            assert_eq!(shard_state(&servers.iter().collect::<Vec<_>>()), want, "{servers:?}");
        }
    }
}
