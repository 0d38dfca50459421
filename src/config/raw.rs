//! `proxy.toml` as it is written: every key, with its place in the file, before any rule is applied.
//! Must not know the rules, nor which keys must be there: that is the checks' duty.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use toml::Spanned;

/// A key that may be left out, with its place in the file.
pub(super) type Field<T> = Option<Spanned<T>>;

// No `Debug` on what holds a password in the clear.

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    pub(super) proxy: RawProxy,
    pub(super) tls: Field<RawTls>,
    pub(super) timeouts: RawTimeouts,
    pub(super) log: RawLog,
    pub(super) http: Field<RawHttp>,
    pub(super) pool: RawPool,
    pub(super) user: Vec<Spanned<RawUser>>,
    pub(super) database: Vec<Spanned<RawDatabase>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawProxy {
    pub(super) listen: Option<Vec<Spanned<String>>>,
    pub(super) reuse_port: bool,
    pub(super) workers: Field<u64>,
    pub(super) max_clients: Field<u64>,
    pub(super) max_unauthenticated: Field<u64>,
    pub(super) max_message_bytes: Field<u64>,
    pub(super) max_notify_bytes: Field<u64>,
    pub(super) plan_cache: Field<u64>,
    pub(super) statistics: Field<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTls {
    pub(super) cert: Field<String>,
    pub(super) key: Field<String>,
    pub(super) required: bool,
    pub(super) client_ca: Field<String>,
    pub(super) client_certs: Field<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTimeouts {
    pub(super) login_ms: Field<u64>,
    pub(super) idle_ms: Field<u64>,
    pub(super) idle_in_transaction_ms: Field<u64>,
    pub(super) query_ms: Field<u64>,
    pub(super) drain_ms: Field<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    pub(super) min_duration_ms: Field<u64>,
    pub(super) filter: Field<String>,
    pub(super) format: Field<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHttp {
    pub(super) listen: Field<String>,
    pub(super) user: Field<String>,
    pub(super) database: Field<String>,
    pub(super) max_connections: Field<u64>,
    pub(super) max_sessions: Field<u64>,
    pub(super) max_body_bytes: Field<u64>,
    pub(super) max_rows: Field<u64>,
    pub(super) timeout_ms: Field<u64>,
    pub(super) bulk_per_shard: bool,
    pub(super) token: Vec<Spanned<RawToken>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawToken {
    pub(super) user: Field<String>,
    pub(super) token: Field<String>,
    pub(super) token_env: Field<String>,
    pub(super) token_file: Field<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPool {
    pub(super) size: Field<u64>,
    pub(super) min_idle: Field<u64>,
    pub(super) max_per_server: Field<u64>,
    pub(super) queue_timeout_ms: Field<u64>,
    pub(super) pause_timeout_ms: Field<u64>,
    pub(super) connect_timeout_ms: Field<u64>,
    pub(super) idle_timeout_ms: Field<u64>,
    pub(super) max_lifetime_ms: Field<u64>,
    pub(super) prepared_statements: Field<u64>,
    pub(super) max_pinned: Field<u64>,
    pub(super) discard_sequences: Field<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawUser {
    pub(super) name: Field<String>,
    pub(super) password: Field<String>,
    pub(super) password_env: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) scram_verifier: Field<String>,
    pub(super) scram_verifier_env: Field<String>,
    pub(super) scram_verifier_file: Field<String>,
    pub(super) cert_cn: Field<String>,
    pub(super) trust: Field<bool>,
    pub(super) admin: bool,
    pub(super) databases: Vec<Spanned<String>>,
    pub(super) server_user: Field<String>,
    pub(super) server_password: Field<String>,
    pub(super) server_password_env: Field<String>,
    pub(super) server_password_file: Field<String>,
    pub(super) pool_size: Field<u64>,
    pub(super) max_clients: Field<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawDatabase {
    pub(super) name: Field<String>,
    pub(super) server_database: Field<String>,
    pub(super) mode: Field<String>,
    pub(super) read_consistency: Field<String>,
    pub(super) max_replica_lag_ms: Field<u64>,
    pub(super) replica_fallback: Option<bool>,
    pub(super) default_shard: Field<String>,
    pub(super) max_clients: Field<u64>,
    pub(super) auth_query: Field<String>,
    pub(super) auth_query_cache_ms: Field<u64>,
    pub(super) control: RawControl,
    pub(super) server_tls: RawServerTls,
    pub(super) pool: RawPool,
    pub(super) shard: Vec<Spanned<RawShard>>,
    pub(super) partition: Vec<Spanned<RawPartition>>,
    pub(super) table: Vec<Spanned<RawTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawControl {
    pub(super) user: Field<String>,
    pub(super) password: Field<String>,
    pub(super) password_env: Field<String>,
    pub(super) password_file: Field<String>,
    pub(super) probe_interval_ms: Field<u64>,
    pub(super) probe_timeout_ms: Field<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServerTls {
    pub(super) mode: Field<String>,
    pub(super) ca: Field<String>,
    pub(super) cert: Field<String>,
    pub(super) key: Field<String>,
    pub(super) negotiation: Field<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawShard {
    pub(super) name: Field<String>,
    pub(super) servers: Vec<Spanned<RawServer>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawServer {
    pub(super) host: Field<String>,
    pub(super) port: Field<u64>,
    pub(super) role: Field<String>,
    pub(super) weight: Field<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPartition {
    pub(super) name: Field<String>,
    pub(super) weight: Field<u64>,
    pub(super) shard: Field<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTable {
    pub(super) name: Field<String>,
    pub(super) placement: Field<String>,
    pub(super) shard: Field<String>,
    pub(super) keys: Vec<Spanned<RawKey>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawKey {
    pub(super) column: Field<String>,
    pub(super) method: Field<String>,
    pub(super) values: Field<BTreeMap<String, Spanned<String>>>,
    pub(super) bounds: Field<Vec<Spanned<RawBound>>>,
    pub(super) fill: Field<bool>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawBound {
    pub(super) from: Field<RawValue>,
    pub(super) partition: Field<String>,
}

/// A key's value: a whole number or text. The file does not know the column's type.
pub(super) enum RawValue {
    Int(i64),
    Text(String),
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = RawValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number or a string")
            }

            fn visit_i64<E>(self, n: i64) -> Result<RawValue, E> {
                Ok(RawValue::Int(n))
            }

            fn visit_str<E>(self, text: &str) -> Result<RawValue, E> {
                Ok(RawValue::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Value)
    }
}
