//! The rules: raw types to checked ones, every broken rule reported, none only the first.
//! Must not know TOML beyond the places of keys in the text.

mod collect;
mod database;
mod http;
mod limits;
mod map;
mod pool;
mod secret;
mod shard;
mod table;
mod user;

use std::path::Path;
use std::sync::Arc;

use self::collect::Checker;
use super::error::{ConfigError, ConfigErrors};
use super::load::Loaded;
use super::raw::RawConfig;
use super::shape::{self, Finding};
use super::types::Config;

/// The database that the proxy itself answers.
const OWN_DATABASE: &str = "pgherd";

/// Where `…_env` keys are looked up.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads and checks a configuration; `path` names it in messages and is where relative paths start.
///
/// Reads the files that `…_file`, `cert`, `key` and `ca` name, nothing else.
///
/// # Errors
/// [`ConfigErrors`]: all findings of the first kind there is (syntax; unknown keys and wrong types; rules).
pub(super) fn parse(text: &str, path: &Path, env: Env<'_>) -> Result<Loaded, ConfigErrors> {
    let mut checker = Checker::new(text, path, env);
    match shape::read(text) {
        Ok(raw) => {
            let config = config(&mut checker, raw);
            checker.finish(config)
        }
        Err(findings) => {
            for Finding { at, key, what, remedy } in findings {
                checker.error_at(&at, key, what, remedy);
            }
            Err(checker.into_errors())
        }
    }
}

fn config(c: &mut Checker<'_>, raw: RawConfig) -> Config {
    let listen = limits::listen(c, raw.proxy.listen.as_deref());
    let workers = limits::workers(c, raw.proxy.workers.as_ref());
    let limits = limits::limits(c, &raw.proxy);
    let tls = limits::client_tls(c, raw.tls.as_ref());
    let timeouts = limits::timeouts(c, &raw.timeouts);
    let log = limits::log(c, &raw.log);
    let slow = c.millis_or_never(raw.log.min_duration_ms.as_ref(), "log.min_duration_ms", 0);
    let pool = pool::pool(c, "pool", &raw.pool, &pool::defaults());
    let users = user::users(c, &raw, &listen);
    let databases = database::databases(c, &raw.database, &pool, &users);
    user::pool_sizes_fit(c, &raw.user, &databases);
    let http = http::http(c, raw.http.as_ref(), &listen, &users, &databases);
    Config {
        path: c.path().to_owned(),
        listen,
        reuse_port: raw.proxy.reuse_port,
        workers,
        users,
        databases: databases.into_iter().map(Arc::new).collect(),
        tls,
        limits,
        timeouts,
        log,
        slow,
        http,
        statistics: raw.proxy.statistics.as_ref().is_none_or(|on| *on.get_ref()),
    }
}

/// A finding about the file as a whole.
pub(super) fn of_file(path: &Path, what: String, remedy: &str) -> ConfigErrors {
    ConfigErrors(vec![ConfigError {
        file: path.to_owned(),
        line: None,
        key: None,
        what,
        remedy: remedy.to_owned(),
    }])
}
