//! A reload: what serves a database under a changed configuration takes over from what served it before.
//! Must not know why the configuration changed.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::sync::Semaphore;

use super::error::ClusterError;
use super::status::Health;
use super::topology::{Cluster, UserPools};
use crate::config::{self, Database, Role};
use crate::pool::{Pool, ServerTlsSettings};
use crate::shard::TableName;

impl Cluster {
    /// Builds the herd of a changed database and starts its probes. Servers at the same address keep what is known of
    /// them, and their pools if no setting of these changed; the pause of `old`, if it has one, is this one's too.
    /// `old` goes on until [`Cluster::retire`].
    #[must_use]
    pub fn succeed(old: &Arc<Self>, config: Arc<Database>, asked: &str, tls: ServerTlsSettings) -> Arc<Self> {
        let same_map = old.config.map == config.map;
        // The servers' own keys are compared by the files' names: what is in them was read again just now.
        let same_pool = old.config.pool == config.pool && old.config.server_tls == config.server_tls;
        let cluster = Arc::new(Self::build(config, asked, tls, old.stats.clone(), Some(old)));
        cluster.schema_version.store(old.schema_version() + 1, Relaxed);
        if let Some(schema) = old.schema().filter(|_| same_map) {
            cluster.schema.store(Some(schema));
        }
        if same_pool && old.server_database == cluster.server_database {
            cluster.adopt_pools(old);
        }
        cluster.start_probes();
        cluster
    }

    /// Places are the server's, before and after: only their number changes.
    fn resize_places(&self, heir: &Self) {
        let (before, after) = (self.config.pool.max_per_server.get(), heir.config.pool.max_per_server.get());
        for server in heir.shards.iter().flatten() {
            if self.server_at(server.shard, &server.config.address()).is_some() {
                resize(&server.places, before as usize, after as usize);
            }
        }
    }

    fn adopt_pools(&self, old: &Self) {
        let old_pools = old.pools.lock();
        let mut pools = self.pools.lock();
        for (account, before) in old_pools.iter() {
            let adopted = self.build_pools(account, |server| {
                let at = old.shards.get(server.shard.index())?;
                let at = at.iter().position(|s| s.config.address() == server.config.address())?;
                before.pools.get(server.shard.index())?.get(at).cloned()
            });
            pools.insert(account.clone(), Arc::new(adopted));
        }
    }

    /// Waits until every server has been asked once, or the time is over.
    pub async fn probed(&self, limit: Duration) {
        let asked = async {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while self.shards.iter().flatten().any(|s| s.known.lock().health == Health::Unknown) {
                tick.tick().await;
            }
        };
        // Who has not answered by then is down, or as good as that.
        let _ = tokio::time::timeout(limit, asked).await;
    }

    /// Ends it: no probe runs and nothing is lent any more. Connections that are lent are closed when they come back,
    /// but for those of pools that `heir` has taken over. Waiting clients are told [`ClusterError::Retired`].
    pub fn retire(&self, heir: Option<&Self>) {
        self.stop();
        if let Some(heir) = heir {
            self.resize_places(heir);
        }
        let pools = self.pools.lock();
        self.retired.store(true, Release);
        let kept: Vec<Arc<UserPools>> =
            heir.map(|heir| heir.pools.lock().values().cloned().collect()).unwrap_or_default();
        let kept: Vec<&Pool> = kept.iter().flat_map(|p| p.pools.iter().flatten()).collect();
        for pool in pools.values().flat_map(|p| p.pools.iter().flatten()) {
            if !kept.iter().any(|k| k.is(pool)) {
                pool.retire();
            }
        }
    }

    /// Whether another one serves the database now.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Acquire)
    }

    /// Forgets the pools of accounts that no user has and no session uses any more; their connections are closed.
    pub fn forget_unused(&self, users: &[config::User]) {
        let wanted = |user: &str, password: Option<&str>| {
            users.iter().any(|u| {
                u.server_user == user
                    && u.server_password.as_ref().map(ExposeSecret::expose_secret) == password
            })
        };
        self.pools.lock().retain(|account, pools| {
            account.pass.is_some()
                || wanted(&account.user, account.password.as_deref())
                || Arc::strong_count(pools) > 1
        });
    }

    /// Whether the default shard has rows of a table; `false` if it has no such table.
    ///
    /// # Errors
    /// [`ClusterError::NoPrimary`] if its primary cannot be asked.
    pub async fn has_rows(&self, table: &TableName) -> Result<bool, ClusterError> {
        let shard = self.config.map.default_shard;
        let none = |detail| ClusterError::NoPrimary { shard: self.shard_name(shard), detail };
        let servers = self.shards.get(shard.index()).into_iter().flatten();
        let pools = self.control.get(shard.index()).into_iter().flatten();
        let primary = servers.zip(pools).find(|(s, _)| s.role() == Some(Role::Primary));
        let (_, control) = primary.ok_or_else(|| none(None))?;
        let name = format!("{}.{}", quoted(&table.schema), quoted(&table.name));
        let known = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&name));
        let ask = async |sql: &str| {
            let row = control.query_one(sql).await.map_err(|e| none(Some(e.to_string())))?;
            row.try_get::<_, bool>(0).map_err(|e| none(Some(e.to_string())))
        };
        if !ask(&known).await? {
            return Ok(false);
        }
        ask(&format!("SELECT EXISTS (SELECT FROM {name})")).await
    }

    /// Reads the catalogs if none are in force, as is so after a change of the map.
    ///
    /// # Errors
    /// [`ClusterError::NoCatalog`].
    pub async fn require_schema(&self) -> Result<(), ClusterError> {
        if self.schema().is_none() {
            self.reload_schema().await?;
        }
        Ok(())
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Changes the number of places; those that are taken go when they are given back.
fn resize(places: &Arc<Semaphore>, before: usize, after: usize) {
    places.add_permits(after.saturating_sub(before));
    let surplus = before.saturating_sub(after);
    let left = surplus - places.forget_permits(surplus);
    if let Ok(left @ 1..) = u32::try_from(left) {
        let places = places.clone();
        tokio::spawn(async move {
            if let Ok(permits) = places.acquire_many_owned(left).await {
                permits.forget();
            }
        });
    }
}
