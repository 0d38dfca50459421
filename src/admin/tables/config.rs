//! `pgherd.config`: the configuration in force, under the keys of `proxy.toml`. Secrets are never shown.
//! Must not know the file.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::databases::{pool_mode, read_consistency};
use crate::admin::record::{Source, record};
use crate::admin::{Herd, Reloads};
use crate::config::{Config, Database, Server, ServerTlsMode, User, UserAuth};

record! {
    /// One key. Placement is in `partitions` and `tables`.
    Setting is "config", "the configuration in force, secrets redacted" {
        key: String,
        value: Option<String>,
        unit: Option<&'static str>,
    }
}

/// What stands for a secret.
const REDACTED: &str = "[redacted]";

impl Source for Setting {
    fn rows(herd: &Herd) -> Vec<Self> {
        let config = &herd.config;
        let mut list = List { prefix: String::new(), rows: Vec::new() };
        reloads(&mut list, &herd.reloads);
        proxy(&mut list, config);
        config.users.iter().for_each(|u| user(list.under(format!("user.{}.", u.name)), u));
        config.databases.iter().for_each(|d| database(&mut list, d));
        list.rows
    }
}

/// Settings collected so far; keys are added below the prefix.
struct List {
    prefix: String,
    rows: Vec<Setting>,
}

impl List {
    fn under(&mut self, prefix: String) -> &mut Self {
        self.prefix = prefix;
        self
    }

    fn put(&mut self, key: &str, value: Option<String>, unit: Option<&'static str>) {
        self.rows.push(Setting { key: format!("{}{key}", self.prefix), value, unit });
    }

    fn text(&mut self, key: &str, value: impl ToString) {
        self.put(key, Some(value.to_string()), None);
    }

    fn ms(&mut self, key: &str, value: impl Into<Option<Duration>>) {
        // No end is written as 0 in the file.
        let value = value.into().unwrap_or_default();
        self.put(key, Some(value.as_millis().to_string()), Some("ms"));
    }

    fn secret(&mut self, key: &str, is_set: bool) {
        self.put(key, is_set.then(|| REDACTED.to_owned()), None);
    }
}

fn proxy(list: &mut List, config: &Config) {
    list.under(String::new()).text("file", config.path.display());
    list.under("proxy.".to_owned());
    list.text("listen", config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    list.text("reuse_port", config.reuse_port);
    list.text("workers", config.workers);
    list.text("max_clients", config.limits.max_clients);
    list.text("max_unauthenticated", config.limits.max_unauthenticated);
    list.put("max_message_bytes", Some(config.limits.max_message.to_string()), Some("bytes"));
    list.put("max_notify_bytes", Some(config.limits.max_notify.to_string()), Some("bytes"));
    list.text("plan_cache", config.limits.plan_cache);
    list.text("statistics", config.statistics);
    list.under("tls.".to_owned());
    if let Some(tls) = &config.tls {
        list.text("cert", tls.cert.display());
        list.text("key", tls.key.display());
        list.text("required", tls.required);
        list.put("client_ca", tls.client_ca.as_ref().map(|p| p.display().to_string()), None);
        list.text("client_certs", if tls.client_cert_required { "required" } else { "optional" });
    }
    list.under("timeouts.".to_owned());
    list.ms("login_ms", config.timeouts.login);
    list.ms("idle_ms", config.timeouts.idle);
    list.ms("idle_in_transaction_ms", config.timeouts.idle_in_transaction);
    list.ms("query_ms", config.timeouts.query);
    list.ms("drain_ms", config.timeouts.drain);
    list.under("log.".to_owned());
    list.text("filter", &config.log.filter);
    list.text("format", if config.log.json { "json" } else { "text" });
    list.ms("min_duration_ms", config.slow.unwrap_or_default());
}

/// Not of the file: what became of it since the start.
fn reloads(list: &mut List, reloads: &Reloads) {
    list.under("reload.".to_owned());
    list.text("count", reloads.count);
    let at = reloads.last.and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok());
    list.put("last_at", at, None);
    list.put("last_error", reloads.error.clone(), None);
    list.put("needs_restart", (!reloads.restart.is_empty()).then(|| reloads.restart.join("; ")), None);
}

fn user(list: &mut List, user: &User) {
    match &user.auth {
        UserAuth::Password(_) => list.secret("password", true),
        UserAuth::Verifier(_) => list.secret("scram_verifier", true),
        UserAuth::Certificate => {}
        UserAuth::Trust => list.text("trust", true),
    }
    list.put("cert_cn", user.cert_cn.clone(), None);
    list.put("max_clients", user.max_clients.map(|n| n.to_string()), None);
    list.text("admin", user.admin);
    list.text("databases", user.databases.join(", "));
    list.text("server_user", &user.server_user);
    list.secret("server_password", user.server_password.is_some());
    list.put("pool_size", user.pool_size.map(|n| n.to_string()), None);
}

fn database(list: &mut List, database: &Database) {
    let prefix = format!("database.{}.", database.name);
    list.under(prefix.clone());
    list.put("server_database", database.server_database.clone(), None);
    list.text("mode", pool_mode(database.pool_mode));
    list.text("read_consistency", read_consistency(database.read_consistency));
    list.ms("max_replica_lag_ms", database.max_replica_lag);
    list.text("replica_fallback", database.replica_fallback);
    list.text("default_shard", database.map.shard_name(database.map.default_shard));
    list.text("control.user", &database.control.user);
    list.secret("control.password", database.control.password.is_some());
    list.ms("control.probe_interval_ms", database.control.probe_interval);
    list.ms("control.probe_timeout_ms", database.control.probe_timeout);
    list.put("max_clients", database.max_clients.map(|n| n.to_string()), None);
    list.put("auth_query", database.auth_query.as_ref().map(|q| q.sql.clone()), None);
    if let Some(query) = &database.auth_query {
        list.ms("auth_query_cache_ms", query.cache);
    }
    list.text("server_tls.mode", tls_mode(database.server_tls.mode));
    list.text("server_tls.negotiation", if database.server_tls.direct { "direct" } else { "postgres" });
    list.put("server_tls.cert", database.server_tls.cert.as_ref().map(|p| p.display().to_string()), None);
    list.put("server_tls.key", database.server_tls.key.as_ref().map(|p| p.display().to_string()), None);
    list.put("server_tls.ca", database.server_tls.ca.as_ref().map(|p| p.display().to_string()), None);
    list.text("pool.size", database.pool.size);
    list.text("pool.min_idle", database.pool.min_idle);
    list.text("pool.max_per_server", database.pool.max_per_server);
    list.ms("pool.queue_timeout_ms", database.pool.queue_timeout);
    list.ms("pool.pause_timeout_ms", database.pool.pause_timeout);
    list.ms("pool.connect_timeout_ms", database.pool.connect_timeout);
    list.ms("pool.idle_timeout_ms", database.pool.idle_timeout);
    list.ms("pool.max_lifetime_ms", database.pool.max_lifetime);
    list.text("pool.prepared_statements", database.pool.prepared_statements);
    list.put("pool.max_pinned", database.pool.max_pinned.map(|n| n.to_string()), None);
    list.text("pool.discard_sequences", database.pool.discard_sequences);
    for shard in &database.shards {
        let servers: Vec<_> = shard.servers.iter().map(server).collect();
        list.text(&format!("shard.{}.servers", shard.name), servers.join(", "));
    }
}

fn server(server: &Server) -> String {
    format!("{} {} weight {}", server.address(), server.role.as_str(), server.weight)
}

fn tls_mode(mode: ServerTlsMode) -> &'static str {
    match mode {
        ServerTlsMode::Disable => "disable",
        ServerTlsMode::Prefer => "prefer",
        ServerTlsMode::Require => "require",
        ServerTlsMode::VerifyCa => "verify-ca",
        ServerTlsMode::VerifyFull => "verify-full",
    }
}
