//! `pgherd.databases`, `users` and `schema_drift`: what can be connected to, and by whom.
//! Must not know who is connected.

use crate::admin::Herd;
use crate::admin::record::{Source, record};
use crate::cluster::DatabaseStatus;
use crate::config::{self, PoolMode, ReadConsistency, UserAuth};

record! {
    /// One database of the config.
    Database is "databases", "databases, their pooling and read consistency" {
        database: String,
        server_database: Option<String>,
        shards: u64,
        servers: u64,
        paused: bool,
        pool_mode: &'static str,
        read_consistency: &'static str,
        max_replica_lag_us: u64,
        pool_size: u32,
        /// NULL while nobody has connected to it.
        catalog_generation: Option<u64>,
        map_version: u64,
    }
}

record! {
    /// One user of the proxy.
    User is "users", "users of the proxy and what they may do" {
        user_name: String,
        admin: bool,
        databases: String,
        auth: &'static str,
        server_user: String,
        pool_size: Option<u32>,
    }
}

record! {
    /// One object in which a shard differs.
    SchemaDrift is "schema_drift", "objects in which shards differ from the default shard" {
        database: String,
        object: String,
        shard: String,
        problem: String,
    }
}

impl Source for Database {
    fn rows(herd: &Herd) -> Vec<Self> {
        herd.config.databases.iter().map(|d| database(herd, d)).collect()
    }
}

fn database(herd: &Herd, config: &config::Database) -> Database {
    let status: Option<&DatabaseStatus> = herd.databases.iter().find(|d| d.name == config.name);
    Database {
        database: config.name.clone(),
        server_database: config.server_database.clone(),
        shards: config.shards.len() as u64,
        servers: config.shards.iter().map(|s| s.servers.len() as u64).sum(),
        paused: status.is_some_and(|s| s.paused),
        pool_mode: pool_mode(config.pool_mode),
        read_consistency: read_consistency(config.read_consistency),
        max_replica_lag_us: u64::try_from(config.max_replica_lag.as_micros()).unwrap_or(u64::MAX),
        pool_size: config.pool.size.get(),
        catalog_generation: status.map(|s| s.catalog_generation),
        map_version: status.map_or(config.map.version, |s| s.map.version),
    }
}

pub(super) fn pool_mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    }
}

pub(super) fn read_consistency(consistency: ReadConsistency) -> &'static str {
    match consistency {
        ReadConsistency::Session => "session",
        ReadConsistency::Eventual => "eventual",
        ReadConsistency::Primary => "primary",
    }
}

impl Source for User {
    fn rows(herd: &Herd) -> Vec<Self> {
        let row = |user: &config::User| Self {
            user_name: user.name.clone(),
            admin: user.admin,
            databases: if user.databases.is_empty() { "*".to_owned() } else { user.databases.join(", ") },
            auth: auth(&user.auth),
            server_user: user.server_user.clone(),
            pool_size: user.pool_size.map(u32::from),
        };
        herd.config.users.iter().map(row).collect()
    }
}

fn auth(auth: &UserAuth) -> &'static str {
    match auth {
        UserAuth::Password(_) => "password",
        UserAuth::Verifier(_) => "verifier",
        UserAuth::Certificate => "certificate",
        UserAuth::Trust => "trust",
    }
}

impl Source for SchemaDrift {
    fn rows(herd: &Herd) -> Vec<Self> {
        let of_database = |d: &DatabaseStatus| {
            let row = |drift: &crate::cluster::Drift| Self {
                database: d.name.clone(),
                object: drift.object.clone(),
                shard: drift.shard.clone(),
                problem: drift.problem.clone(),
            };
            d.schema_drift.iter().map(row).collect::<Vec<_>>()
        };
        herd.databases.iter().flat_map(of_database).collect()
    }
}
