//! The rules of `[[database]]` outside its map.
//! Must not know how partitions and tables are placed.

use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::super::raw::{Field, RawControl, RawDatabase, RawServerTls};
use super::super::types::{
    AuthQuery, Control, Database, Pool, PoolMode, ReadConsistency, ServerTls, ServerTlsMode, User,
};
use super::collect::{At, Checker};
use super::secret::Sources;
use super::{OWN_DATABASE, map, pool, shard, user};

pub(super) fn databases(
    c: &mut Checker<'_>,
    raw: &[Spanned<RawDatabase>],
    pool: &Pool,
    users: &[User],
) -> Vec<Database> {
    if raw.is_empty() {
        c.missing(
            "database",
            "there is no database to connect to",
            "add a [[database]] with a [[database.shard]]",
        );
    }
    let mut seen = Vec::new();
    raw.iter().map(|d| database(c, &d.span(), d.get_ref(), pool, users, &mut seen)).collect()
}

fn database(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawDatabase,
    base: &Pool,
    users: &[User],
    seen: &mut Vec<String>,
) -> Database {
    let name = c.unique_name(&raw.name, at, "database.name", seen);
    if let Some(field) = raw.name.as_ref().filter(|n| n.get_ref() == OWN_DATABASE) {
        let what = format!("\"{OWN_DATABASE}\" is the proxy's own database");
        let remedy = "choose another name; server_database says what it is called on the servers";
        c.error(&field.span(), "database.name", what, remedy);
    }
    if name == "*" {
        wildcard(c, raw);
    }
    let shards = shard::shards(c, at, &raw.shard);
    let shard_names = shards.iter().map(|s| s.name.clone()).collect();
    let map = Arc::new(map::map(c, raw, shard_names));
    let modes = [("transaction", PoolMode::Transaction), ("session", PoolMode::Session)];
    let reads = [
        ("session", ReadConsistency::Session),
        ("eventual", ReadConsistency::Eventual),
        ("primary", ReadConsistency::Primary),
    ];
    let consistency = raw.read_consistency.as_ref();
    Database {
        server_database: raw
            .server_database
            .as_ref()
            .map(|_| c.name(&raw.server_database, at, "database.server_database")),
        shards,
        map,
        pool_mode: c.choice(raw.mode.as_ref(), "database.mode", &modes, PoolMode::Transaction),
        read_consistency: c.choice(
            consistency,
            "database.read_consistency",
            &reads,
            ReadConsistency::Session,
        ),
        max_replica_lag: c.millis(
            raw.max_replica_lag_ms.as_ref(),
            "database.max_replica_lag_ms",
            Duration::from_secs(10),
        ),
        replica_fallback: raw.replica_fallback.unwrap_or(true),
        pool: pool::pool(c, "database.pool", &raw.pool, base),
        control: control(c, at, &raw.control, users, &name),
        max_clients: raw
            .max_clients
            .as_ref()
            .map(|field| super::limits::count(c, field, "database.max_clients")),
        auth_query: auth_query(c, raw),
        server_tls: server_tls(c, &raw.server_tls),
        name,
    }
}

/// Users are looked up with the control account, so it must not be one of those that are looked up.
fn auth_query(c: &mut Checker<'_>, raw: &RawDatabase) -> Option<AuthQuery> {
    let key = "database.auth_query";
    let cache =
        c.millis(raw.auth_query_cache_ms.as_ref(), "database.auth_query_cache_ms", Duration::from_secs(10));
    let Some(sql) = &raw.auth_query else {
        if let Some(field) = &raw.auth_query_cache_ms {
            c.error(
                &field.span(),
                key,
                "is missing, so nothing is kept",
                "add auth_query, or remove this key",
            );
        }
        return None;
    };
    if !sql.get_ref().contains("$1") {
        let remedy = "write for example \"SELECT usename, passwd FROM pg_shadow WHERE usename = $1\"";
        c.error(&sql.span(), key, "does not use $1, the user's name", remedy);
    }
    if raw.control.user.is_none() {
        let remedy = "add control = { user = \"…\", password = \"…\" }; it needs no more rights than the query asks for";
        c.error(&sql.span(), key, "needs a control account of its own", remedy);
    }
    Some(AuthQuery { sql: sql.get_ref().clone(), cache })
}

/// Any other name is passed on to one shard's servers: there is nothing to place.
fn wildcard(c: &mut Checker<'_>, raw: &RawDatabase) {
    let what = "database \"*\" passes names on, so it";
    if let Some(second) = raw.shard.get(1) {
        let remedy = "keep one shard, or give the database a name";
        c.error(&second.span(), "database.shard", format!("{what} has one shard"), remedy);
    }
    if let Some(table) = raw.table.first() {
        let remedy = "remove them, or give the database a name";
        c.error(&table.span(), "database.table", format!("{what} has no tables"), remedy);
    }
    if let Some(partition) = raw.partition.first() {
        let remedy = "remove them, or give the database a name";
        c.error(&partition.span(), "database.partition", format!("{what} has no partitions"), remedy);
    }
    if let Some(name) = &raw.server_database {
        let remedy = "remove it, or give the database a name";
        c.error(
            &name.span(),
            "database.server_database",
            format!("{what} has no name on the servers"),
            remedy,
        );
    }
}

/// Without an account of its own, the control connections use that of the first user of the database.
fn control(c: &mut Checker<'_>, at: &At, raw: &RawControl, users: &[User], database: &str) -> Control {
    let sources = Sources {
        key: "database.control.password",
        plain: &raw.password,
        env: &raw.password_env,
        file: &raw.password_file,
    };
    let (user, password) = match &raw.user {
        Some(name) => (c.name(&raw.user, &name.span(), "database.control.user"), sources.read(c)),
        None => {
            if let Some(at) = sources.at() {
                c.error(&at, sources.key, "is a password without a user", "add user to control");
            }
            let first = user::first_of(users, database);
            if first.is_none() && !users.is_empty() {
                let what = "there is no control account, and no user may connect whose account could serve";
                c.error(at, "database.control", what, "add control = { user = \"…\", password = \"…\" }");
            }
            first.map_or_else(Default::default, |u| (u.server_user.clone(), u.server_password.clone()))
        }
    };
    Control {
        user,
        password,
        probe_interval: c.millis(
            raw.probe_interval_ms.as_ref(),
            "database.control.probe_interval_ms",
            Duration::from_secs(1),
        ),
        probe_timeout: c.millis(
            raw.probe_timeout_ms.as_ref(),
            "database.control.probe_timeout_ms",
            Duration::from_secs(2),
        ),
    }
}

fn server_tls(c: &mut Checker<'_>, raw: &RawServerTls) -> ServerTls {
    let modes = [
        ("disable", ServerTlsMode::Disable),
        ("prefer", ServerTlsMode::Prefer),
        ("require", ServerTlsMode::Require),
        ("verify-ca", ServerTlsMode::VerifyCa),
        ("verify-full", ServerTlsMode::VerifyFull),
    ];
    let mode = c.choice(raw.mode.as_ref(), "database.server_tls.mode", &modes, ServerTlsMode::Prefer);
    let verifies = matches!(mode, ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull);
    let key = "database.server_tls.ca";
    match (&raw.ca, &raw.mode) {
        (None, Some(word)) if verifies => {
            let what = format!("mode \"{}\" needs certificates to verify with", word.get_ref());
            c.error(&word.span(), key, what, "name a PEM file of root certificates as ca");
        }
        (Some(ca), _) if !verifies => {
            let remedy = "use mode = \"verify-full\" or \"verify-ca\", or remove ca";
            c.error(&ca.span(), key, "is not used, for nothing is verified", remedy);
        }
        (Some(_) | None, _) => {}
    }
    let ca = raw.ca.as_ref().and_then(|ca| c.readable(ca, key)).map(|(path, _)| path);
    let mut file = |field: &Field<String>, key: &str, secret: bool| {
        let field = field.as_ref()?;
        let (path, meta) = c.readable(field, key)?;
        if secret {
            c.warn_if_open(&path, &meta, &field.span(), key);
        }
        Some(path)
    };
    let cert = file(&raw.cert, "database.server_tls.cert", false);
    let private = file(&raw.key, "database.server_tls.key", true);
    match (&raw.cert, &raw.key) {
        (Some(one), None) | (None, Some(one)) => {
            let remedy = "name both files, or none of them";
            c.error(&one.span(), "database.server_tls.cert", "cert and key belong together", remedy);
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let ways = [("postgres", false), ("direct", true)];
    let direct = c.choice(raw.negotiation.as_ref(), "database.server_tls.negotiation", &ways, false);
    if let Some(field) = raw.negotiation.as_ref().filter(|_| direct)
        && matches!(mode, ServerTlsMode::Disable | ServerTlsMode::Prefer)
    {
        let remedy = "use mode = \"require\", \"verify-ca\" or \"verify-full\"";
        c.error(
            &field.span(),
            "database.server_tls.negotiation",
            "there is no way back from direct TLS",
            remedy,
        );
    }
    ServerTls { mode, ca, cert, key: private, direct }
}
