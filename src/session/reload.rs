//! RELOAD: the file is read again, and what changed in it comes into force without dropping a client.
//! Must not know who asked for it.
//!
//! Everything that can fail is done first, beside the running proxy; from then on nothing can. Sessions are told and
//! go over by themselves (`refresh`), each when its transaction has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;

use super::command::Pause;
use super::proxy::Proxy;
use super::served::Served;
use crate::cluster::Cluster;
use crate::config::{self, Changes, Config, Database};
use crate::pool::ServerTlsSettings;
use crate::wire::{ClientFacing, ErrorReport, SqlState};

/// What a reload did.
#[derive(Debug, Clone, Default)]
pub struct Reloaded {
    /// What changed, a line each.
    pub applied: Vec<String>,
    /// What waits for a restart, a line each.
    pub restart: Vec<String>,
    /// What is worth saying about the file though it holds.
    pub warnings: Vec<String>,
}

/// Databases as they will be: by the name that clients ask for.
type Next = HashMap<String, Arc<Served>>;

impl Proxy {
    /// Reads the configuration file and the catalogs again. One reload at a time; another waits for it.
    ///
    /// # Errors
    /// All that is wrong; then nothing was changed.
    pub async fn reload(&self) -> Result<Reloaded, ErrorReport> {
        let _only = self.reloading.lock().await;
        let done = self.try_reload().await;
        let mut reloads = self.reloads.lock();
        match &done {
            Ok(reloaded) => {
                reloads.count += 1;
                reloads.last = Some(SystemTime::now());
                reloads.error = None;
                reloads.restart.clone_from(&reloaded.restart);
                reloaded.applied.iter().for_each(|what| tracing::info!(what, "reload: changed"));
                reloaded.restart.iter().for_each(|what| tracing::warn!(what, "reload: needs a restart"));
                reloaded.warnings.iter().for_each(|what| tracing::warn!(what, "reload"));
                tracing::info!(changes = reloaded.applied.len(), "the configuration was reloaded");
            }
            Err(report) => {
                let why = report.detail.as_ref().unwrap_or(&report.message);
                reloads.error = Some(why.clone());
                tracing::error!(why, "the configuration was not reloaded, nothing was changed");
            }
        }
        done
    }

    async fn try_reload(&self) -> Result<Reloaded, ErrorReport> {
        let old = self.config();
        let path = old.path.clone();
        let loaded = spawn_blocking(move || Config::load(path)).await.map_err(|e| internal(&e))?;
        let loaded = loaded.map_err(|e| not_reloaded(&e))?;
        let changes = config::changes(&old, &loaded.config).map_err(|e| not_reloaded(&e))?;
        let config = Arc::new(changes.config.clone());
        let (door, for_door) = (self.door.load_full(), config.clone());
        let door = spawn_blocking(move || door.reloaded(for_door)).await.map_err(|e| internal(&e))?;
        let door = door.map_err(|e| not_reloaded(&e))?;
        // Held until all is in force: a row written meanwhile would be written by the old map.
        let served: Vec<_> = self.gets_tables(&changes);
        let _pauses = hold(&served, old.timeouts.drain).await?;
        self.must_be_empty(&changes).await?;
        self.reload_server_tls().map_err(|e| not_reloaded(&e))?;
        let next = self.next_databases(&old, &config, &changes).await?;
        if let Some(proxy) = self.door().proxy() {
            door.lead_to(&proxy);
        }

        let before = {
            let mut served = self.served.lock();
            self.config.store(config.clone());
            self.stats.log_slower_than(config.slow);
            std::mem::replace(&mut *served, next.clone())
        };
        self.door.store(Arc::new(door));
        self.generation.fetch_add(1, Release);
        self.lookups.forget_all();
        self.cancels.all_refresh();
        next.values().for_each(|served| served.hub.follow(served.cluster.clone()));
        for (name, served) in &before {
            match next.get(name) {
                Some(heir) if Arc::ptr_eq(&heir.cluster, &served.cluster) => {
                    served.cluster.forget_unused(&config.users);
                }
                heir => served.cluster.retire(heir.map(|heir| &*heir.cluster)),
            }
        }
        for served in next.values() {
            // One whose servers do not answer is in force all the same: its clients are told, and SHOW SERVERS tells why.
            if let Err(error) = served.cluster.reload_schema().await {
                tracing::warn!(%error, "reload: the catalogs cannot be read");
            }
        }
        Ok(Reloaded { applied: changes.applied, restart: changes.restart, warnings: loaded.warnings })
    }

    fn gets_tables(&self, changes: &Changes) -> Vec<Arc<Served>> {
        let served = self.served.lock();
        let named = |name: &String| changes.tables_added.iter().any(|(database, _)| database == name);
        served.iter().filter(|(name, _)| named(name)).map(|(_, served)| served.clone()).collect()
    }

    /// Rows of a table that gets a placement now are on the default shard and would not be found there.
    async fn must_be_empty(&self, changes: &Changes) -> Result<(), ErrorReport> {
        for (database, table) in &changes.tables_added {
            let served = self.served.lock().get(database).cloned();
            let Some(served) = served else { continue };
            let has_rows = served.cluster.has_rows(table).await.map_err(|e| e.report())?;
            if has_rows {
                return Err(not_reloaded(&format!(
                    "database.table: table {table} of database \"{database}\" has rows on the default shard, \
                     which would not be found; move them first, or leave the table out"
                )));
            }
        }
        Ok(())
    }

    /// Builds what changed beside what runs, and waits for its servers to be known.
    async fn next_databases(
        &self,
        old: &Config,
        new: &Config,
        changes: &Changes,
    ) -> Result<Next, ErrorReport> {
        let running: Vec<_> = self.served.lock().iter().map(|(n, s)| (n.clone(), s.clone())).collect();
        let plans = new.limits.plan_cache;
        let mut next = Next::new();
        let mut built = Vec::new();
        for (name, served) in running {
            let Some(database) = new.database(&name) else { continue };
            let same_entry = old.database(&name).is_some_and(|before| before.name == database.name);
            if same_entry && !changes.databases.contains(&database.name) {
                let same = if served.plans() == plans {
                    served
                } else {
                    Arc::new(served.succeeded_by(served.cluster.clone(), plans))
                };
                next.insert(name, same);
                continue;
            }
            let same_tls = served.cluster.config().server_tls == database.server_tls;
            let tls = if same_tls { served.cluster.tls().clone() } else { server_tls(database)? };
            let cluster = Cluster::succeed(&served.cluster, database.clone(), &name, tls);
            built.push(cluster.clone());
            next.insert(name, Arc::new(served.succeeded_by(cluster, plans)));
        }
        for database in new.databases.iter().filter(|d| !d.is_wildcard()) {
            if next.contains_key(&database.name) {
                continue;
            }
            let tls = server_tls(database)?;
            let cluster = Cluster::start(database.clone(), &database.name, tls, self.stats.clone());
            built.push(cluster.clone());
            next.insert(database.name.clone(), Arc::new(Served::new(cluster, plans)));
        }
        let known = built.iter().map(|cluster| cluster.probed(cluster.config().control.probe_timeout));
        futures_util::future::join_all(known).await;
        for cluster in &built {
            let had_map = old.databases.iter().any(|d| d.name == cluster.config().name);
            if let Err(error) = cluster.require_schema().await
                && had_map
            {
                return Err(not_reloaded(&error));
            }
        }
        Ok(next)
    }
}

/// Waits until nobody uses these databases; they stay paused as long as the answer lives.
async fn hold(served: &[Arc<Served>], limit: Duration) -> Result<Vec<Pause<'_>>, ErrorReport> {
    let pauses: Vec<_> = served.iter().map(|s| Pause::begin(&s.cluster)).collect();
    let quiet = futures_util::future::join_all(served.iter().map(|s| s.cluster.quiet()));
    if tokio::time::timeout(limit, quiet).await.is_err() {
        return Err(not_reloaded(&format!(
            "database.table: a table gets a placement, for which transactions have to end, and some did not within \
             {} ms (timeouts.drain_ms)",
            limit.as_millis()
        )));
    }
    Ok(pauses)
}

fn server_tls(database: &Database) -> Result<ServerTlsSettings, ErrorReport> {
    ServerTlsSettings::load(&database.server_tls)
        .map_err(|e| not_reloaded(&format!("database \"{}\": {e}", database.name)))
}

fn not_reloaded(why: &dyn std::fmt::Display) -> ErrorReport {
    ErrorReport::error(SqlState::CONFIG_FILE_ERROR, "the configuration was not reloaded, nothing was changed")
        .with_detail(why.to_string())
        .with_hint("Mend the file and say RELOAD again; pgherd check looks at it too.")
}

fn internal(error: &dyn std::fmt::Display) -> ErrorReport {
    ErrorReport::error(SqlState::INTERNAL_ERROR, error.to_string())
}
