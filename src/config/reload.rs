//! What changes from one configuration to the next, and what of it a running proxy may take over.
//! Must not know how the change is carried out.

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use crate::shard::{Map, Placement, TableName};

use super::error::{ConfigError, ConfigErrors};
use super::types::{Config, Control, Database, Http, User, UserAuth};

/// What a reload does.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The configuration to run with: the new one, with the old values where a change needs a restart.
    pub config: Config,
    /// What changes now, a line each without secrets, e.g. `database "app": pool`. Empty: nothing.
    pub applied: Vec<String>,
    /// What stays as it was until the next start, a line each.
    pub restart: Vec<String>,
    /// Databases that are new, or whose servers, pools, map or accounts changed: build these again.
    pub databases: Vec<String>,
    /// Databases that are gone: their clients leave.
    pub databases_removed: Vec<String>,
    /// Users that are gone or prove themselves in another way: their clients log in again.
    pub users_changed: Vec<String>,
    /// Tables that are placed elsewhere than by default now and were not before, by database. Rows they may already have are on the default
    /// shard: take the change over only if the table does not exist there.
    pub tables_added: Vec<(String, TableName)>,
}

/// Compares two checked configurations.
///
/// # Errors
/// [`ConfigErrors`] if rows that are stored would be looked for on another shard: the old configuration stays.
pub fn changes(old: &Config, new: &Config) -> Result<Changes, ConfigErrors> {
    let mut changes = Changes {
        config: new.clone(),
        applied: Vec::new(),
        restart: Vec::new(),
        databases: Vec::new(),
        databases_removed: Vec::new(),
        users_changed: Vec::new(),
        tables_added: Vec::new(),
    };
    process(&mut changes, old, new);
    settings(&mut changes, old, new);
    http(&mut changes, old, new);
    users(&mut changes, old, new);
    let errors = databases(&mut changes, old, new);
    if errors.is_empty() { Ok(changes) } else { Err(ConfigErrors(errors)) }
}

/// What the process took at its start and cannot let go of.
fn process(changes: &mut Changes, old: &Config, new: &Config) {
    let mut keep = |what: &str, before: &dyn Debug, after: &dyn Debug| {
        changes.restart.push(format!("{what}: {before:?} stays, {after:?} needs a restart"));
    };
    if old.listen != new.listen {
        keep("proxy.listen", &old.listen, &new.listen);
        changes.config.listen.clone_from(&old.listen);
    }
    if old.reuse_port != new.reuse_port {
        keep("proxy.reuse_port", &old.reuse_port, &new.reuse_port);
        changes.config.reuse_port = old.reuse_port;
    }
    if old.workers != new.workers {
        keep("proxy.workers", &old.workers, &new.workers);
        changes.config.workers = old.workers;
    }
    if old.log != new.log {
        keep("log", &old.log, &new.log);
        changes.config.log.clone_from(&old.log);
    }
}

fn settings(changes: &mut Changes, old: &Config, new: &Config) {
    for (what, differs) in [
        ("tls", old.tls != new.tls),
        ("proxy limits", old.limits != new.limits),
        ("timeouts", old.timeouts != new.timeouts),
        ("log.min_duration_ms", old.slow != new.slow),
        ("proxy.statistics", old.statistics != new.statistics),
    ] {
        if differs {
            changes.applied.push(what.to_owned());
        }
    }
}

/// The address, and whether there is a server at all, is the process's; the rest is looked up at each request.
fn http(changes: &mut Changes, old: &Config, new: &Config) {
    match (&old.http, &new.http) {
        (None, None) => {}
        (Some(before), Some(after)) => {
            if before.listen != after.listen {
                let (stays, asked) = (before.listen, after.listen);
                changes.restart.push(format!("http.listen: {stays} stays, {asked} needs a restart"));
            }
            // Rules that hold between the address and the rest were checked for the new address.
            let unsafe_here = !before.listen.ip().is_loopback() && after.user.is_some();
            if unsafe_here {
                changes.restart.push("http.user: needs a restart".to_owned());
            }
            let user = if unsafe_here { before.user.clone() } else { after.user.clone() };
            changes.config.http = Some(Http { listen: before.listen, user, ..after.clone() });
            if http_differs(before, after) {
                changes.applied.push("http".to_owned());
            }
        }
        (before, after) => {
            let on = |http: &Option<Http>| if http.is_some() { "on" } else { "off" };
            changes.restart.push(format!("http: {} stays, {} needs a restart", on(before), on(after)));
            changes.config.http.clone_from(before);
        }
    }
}

fn http_differs(a: &Http, b: &Http) -> bool {
    let same_tokens = a.tokens.len() == b.tokens.len()
        && a.tokens
            .iter()
            .zip(&b.tokens)
            .all(|(x, y)| x.user == y.user && x.token.expose_secret() == y.token.expose_secret());
    let rest = |http: &Http| {
        let caps = (http.max_connections, http.max_sessions, http.max_body, http.max_rows);
        (http.user.clone(), http.database.clone(), caps, http.timeout, http.bulk_per_shard)
    };
    !same_tokens || rest(a) != rest(b)
}

fn users(changes: &mut Changes, old: &Config, new: &Config) {
    for before in &old.users {
        let Some(after) = new.user(&before.name) else {
            changes.applied.push(format!("user \"{}\" removed", before.name));
            changes.users_changed.push(before.name.clone());
            continue;
        };
        let (access, account) = (access_differs(before, after), account_differs(before, after));
        if access || account {
            changes.applied.push(format!("user \"{}\"", before.name));
        }
        if access {
            changes.users_changed.push(before.name.clone());
        }
    }
    for user in new.users.iter().filter(|u| old.user(&u.name).is_none()) {
        changes.applied.push(format!("user \"{}\" added", user.name));
    }
}

fn access_differs(a: &User, b: &User) -> bool {
    let same_proof = match (&a.auth, &b.auth) {
        (UserAuth::Password(x), UserAuth::Password(y)) | (UserAuth::Verifier(x), UserAuth::Verifier(y)) => {
            x.expose_secret() == y.expose_secret()
        }
        (UserAuth::Trust, UserAuth::Trust) | (UserAuth::Certificate, UserAuth::Certificate) => true,
        (UserAuth::Password(_) | UserAuth::Verifier(_) | UserAuth::Certificate | UserAuth::Trust, _) => false,
    };
    !same_proof
        || a.cert_cn != b.cert_cn
        || a.max_clients != b.max_clients
        || a.admin != b.admin
        || a.databases != b.databases
}

fn account_differs(a: &User, b: &User) -> bool {
    a.server_user != b.server_user
        || !same_secret(a.server_password.as_ref(), b.server_password.as_ref())
        || a.pool_size != b.pool_size
}

fn same_secret(a: Option<&SecretString>, b: Option<&SecretString>) -> bool {
    a.map(ExposeSecret::expose_secret) == b.map(ExposeSecret::expose_secret)
}

fn databases(changes: &mut Changes, old: &Config, new: &Config) -> Vec<ConfigError> {
    let named =
        |config: &Config, name: &str| config.databases.iter().find(|d| d.name == name).map(Arc::clone);
    let mut errors = Vec::new();
    for before in &old.databases {
        let Some(after) = named(new, &before.name) else {
            changes.applied.push(format!("database \"{}\" removed", before.name));
            changes.databases_removed.push(before.name.clone());
            continue;
        };
        let parts = parts_that_differ(before, &after);
        if !parts.is_empty() {
            changes.applied.push(format!("database \"{}\": {}", before.name, parts.join(", ")));
            changes.databases.push(before.name.clone());
        }
        errors.extend(moved_rows(&new.path, &before.name, &before.map, &after.map));
        let added = after.map.tables.keys().filter(|t| before.map.placement(t) != after.map.placement(t));
        changes.tables_added.extend(added.map(|table| (before.name.clone(), table.clone())));
    }
    for database in new.databases.iter().filter(|d| named(old, &d.name).is_none()) {
        changes.applied.push(format!("database \"{}\" added", database.name));
        changes.databases.push(database.name.clone());
    }
    errors
}

fn parts_that_differ(a: &Database, b: &Database) -> Vec<&'static str> {
    [
        ("server_database", a.server_database != b.server_database),
        ("servers", a.shards != b.shards),
        ("map", a.map != b.map),
        ("mode", a.pool_mode != b.pool_mode),
        ("read_consistency", a.read_consistency != b.read_consistency),
        ("max_replica_lag_ms", a.max_replica_lag != b.max_replica_lag),
        ("replica_fallback", a.replica_fallback != b.replica_fallback),
        ("pool", a.pool != b.pool),
        ("control", control_differs(&a.control, &b.control)),
        ("max_clients", a.max_clients != b.max_clients),
        ("auth_query", a.auth_query != b.auth_query),
        ("server_tls", a.server_tls != b.server_tls),
    ]
    .into_iter()
    .filter_map(|(part, differs)| differs.then_some(part))
    .collect()
}

fn control_differs(a: &Control, b: &Control) -> bool {
    a.user != b.user
        || !same_secret(a.password.as_ref(), b.password.as_ref())
        || a.probe_interval != b.probe_interval
        || a.probe_timeout != b.probe_timeout
}

/// Every way in which stored rows would no longer be found where they are.
fn moved_rows(file: &Path, database: &str, old: &Map, new: &Map) -> Vec<ConfigError> {
    let mut wrong = Vec::new();
    let mut refuse = |key: &str, what: String| {
        wrong.push(ConfigError {
            file: file.to_owned(),
            line: None,
            key: Some(key.to_owned()),
            what: format!("{what} of database \"{database}\" changed, and its rows would not be found"),
            remedy: "put it back, or move the rows first and restart".to_owned(),
        });
    };
    if old.shards != new.shards {
        refuse("database.shard", "the list of shards".to_owned());
    }
    if old.default_shard != new.default_shard {
        refuse("database.default_shard", "the default shard".to_owned());
    }
    let holds_rows = |map: &Map| map.tables.values().any(|p| matches!(p, Placement::Sharded(_)));
    if old.partitions != new.partitions && holds_rows(old) {
        refuse("database.partition", "a partition's shard or share".to_owned());
    }
    for (table, placement) in &old.tables {
        let after = new.placement(table);
        if !same_place(placement, &after) {
            refuse("database.table", format!("the placement of table {table}"));
        }
    }
    wrong
}

/// Whether rows stay where they are: filling a column in or not moves none.
fn same_place(a: &Placement, b: &Placement) -> bool {
    match (a, b) {
        (Placement::Sharded(x), Placement::Sharded(y)) => {
            let keys = |keys: &[crate::shard::KeyColumn]| -> Vec<_> {
                keys.iter().map(|k| (k.column.clone(), k.method.clone())).collect()
            };
            keys(x) == keys(y)
        }
        (Placement::Sharded(_) | Placement::Reference | Placement::Single(_), _) => a == b,
    }
}
