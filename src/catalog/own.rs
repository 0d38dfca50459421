//! What tells of the one server that is asked, not of the data: a replica's answer is not the primary's.
//! Must not know how it is asked.

/// Relations of `pg_catalog` that do, but for those whose name begins with `pg_stat_` or `pg_statio_`.
pub const SERVER_RELATIONS: &[&str] = &[
    "pg_aios",
    "pg_backend_memory_contexts",
    "pg_cursors",
    "pg_file_settings",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_locks",
    "pg_prepared_xacts",
    "pg_replication_origin_status",
    "pg_replication_slots",
    "pg_sequences",
    "pg_settings",
    "pg_shmem_allocations",
    "pg_shmem_allocations_numa",
];

/// Functions that do although they are not volatile, but for `inet_server_addr()` and `inet_server_port()`, by which one
/// sees where a statement ran, those whose name begins with `pg_stat_get_`, `pg_last_` or
/// `pg_get_wal_`, which are told by that.
const FUNCTIONS: &[&str] = &[
    "pg_conf_load_time",
    "pg_cursor",
    "pg_get_replication_slots",
    "pg_hba_file_rules",
    "pg_ident_file_mappings",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_lock_status",
    "pg_postmaster_start_time",
    "pg_prepared_xact",
    "pg_sequence_last_value",
    "pg_show_all_file_settings",
    "pg_show_all_settings",
];

/// Whether a relation of `pg_catalog`, by its bare name, tells of one server.
#[must_use]
pub fn relation_of_server(name: &str) -> bool {
    name.starts_with("pg_stat_") || name.starts_with("pg_statio_") || SERVER_RELATIONS.contains(&name)
}

/// Whether a function of `pg_catalog`, by its bare name, tells of one server.
#[must_use]
pub fn function_of_server(name: &str) -> bool {
    ["pg_stat_get_", "pg_last_", "pg_get_wal_"].iter().any(|start| name.starts_with(start))
        || FUNCTIONS.contains(&name)
}
