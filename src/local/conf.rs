//! How a local server is configured: postgresql.conf and pg_hba.conf, written anew at every start.
//! Must not know processes.

use std::fmt::Write;
use std::path::PathBuf;

/// The superuser of every local server.
pub const SUPERUSER: &str = "postgres";
/// Its password: servers listen on 127.0.0.1 only.
pub const SUPERUSER_PASSWORD: &str = "postgres";
/// The role applications use.
pub const APP_USER: &str = "app";
/// Its password.
pub const APP_PASSWORD: &str = "app";
/// The database it owns.
pub const APP_DATABASE: &str = "app";
/// Replicas one primary can have: so many replication slots are made with its data directory.
pub const MAX_REPLICAS: usize = 3;

/// The role replicas log in with.
const REPLICATOR: &str = "replicator";

/// How one server is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What messages call it, e.g. `shard1 replica`.
    pub name: String,
    /// Its data directory, absolute.
    pub dir: PathBuf,
    /// Its log, absolute.
    pub log: PathBuf,
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The primary it follows; `None` for a primary.
    pub follows: Option<Follow>,
    /// Whether commits survive a crash of the machine. Tests do without; a crash of the server is survived anyway.
    pub durable: bool,
    /// Whether a Ctrl-C in this terminal must not reach it.
    pub detached: bool,
}

/// Whom a replica follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// The primary's port.
    pub port: u16,
    /// Which of the primary's replicas it is, from 1 to [`MAX_REPLICAS`]: names the slot.
    pub number: usize,
}

/// The name of a replica's slot on its primary.
pub(super) fn slot_name(number: usize) -> String {
    format!("replica{number}")
}

/// What is run once in a new data directory, one statement a line; with slots for so many replicas.
pub(super) fn first_sql(replicas: usize) -> String {
    let mut sql = format!(
        "ALTER ROLE {SUPERUSER} PASSWORD '{SUPERUSER_PASSWORD}'\n\
         CREATE ROLE {REPLICATOR} LOGIN REPLICATION PASSWORD '{REPLICATOR}'\n\
         CREATE ROLE {APP_USER} LOGIN PASSWORD '{APP_PASSWORD}'\n\
         CREATE DATABASE {APP_DATABASE} OWNER {APP_USER}\n"
    );
    for number in 1..=replicas {
        // Reserved at once, so that a replica copied now finds its WAL whenever it first connects.
        let _ = writeln!(sql, "SELECT pg_create_physical_replication_slot('{}', true)", slot_name(number));
    }
    sql
}

/// Who may log in from where.
pub(super) const HBA: &str = "# written by pgherd at every start\n\
     host all all 127.0.0.1/32 scram-sha-256\n\
     host replication all 127.0.0.1/32 scram-sha-256\n";

/// postgresql.conf. A standby needs at least its primary's limits, so both get the same.
pub(super) fn postgresql_conf(spec: &Spec) -> String {
    let mut conf = format!(
        "# written by pgherd at every start\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         unix_socket_directories = ''\n\
         cluster_name = '{name}'\n\
         max_connections = 100\n\
         shared_buffers = '32MB'\n\
         huge_pages = off\n\
         max_prepared_transactions = 100\n\
         password_encryption = 'scram-sha-256'\n\
         wal_level = logical\n\
         max_wal_senders = 10\n\
         max_replication_slots = 10\n\
         min_wal_size = '80MB'\n\
         hot_standby = on\n\
         hot_standby_feedback = on\n\
         wal_receiver_status_interval = '1s'\n\
         wal_retrieve_retry_interval = '200ms'\n\
         log_line_prefix = '%m [%p] %u@%d '\n\
         log_timezone = 'UTC'\n\
         timezone = 'UTC'\n\
         lc_messages = 'C'\n\
         jit = off\n",
        port = spec.port,
        name = spec.name,
    );
    if !spec.durable {
        conf.push_str("fsync = off\nfull_page_writes = off\n");
    }
    if let Some(follow) = &spec.follows {
        let _ = write!(
            conf,
            "primary_conninfo = 'host=127.0.0.1 port={port} user={REPLICATOR} password={REPLICATOR} \
             sslmode=disable application_name=''{name}'''\n\
             primary_slot_name = '{slot}'\n",
            port = follow.port,
            name = spec.name,
            slot = slot_name(follow.number),
        );
    }
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_told_whom_to_follow_and_a_primary_is_not() {
        let mut spec = Spec {
            name: "shard1 replica".into(),
            dir: "/d".into(),
            log: "/l".into(),
            port: 5433,
            follows: Some(Follow { port: 5432, number: 1 }),
            durable: true,
            detached: true,
        };
        let conf = postgresql_conf(&spec);
        assert!(conf.contains("\nport = 5433\n"), "{conf}");
        assert!(conf.contains("host=127.0.0.1 port=5432 ") && conf.contains("'replica1'"), "{conf}");
        assert!(!conf.contains("fsync"), "{conf}");
        spec.follows = None;
        assert!(!postgresql_conf(&spec).contains("primary_conninfo"));
    }
}
