//! Which servers form which shard, and the pools to them.
//! Must not know SQL or clients, nor which of them answers.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use secrecy::SecretString;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::server::ServerState;
use super::status::{DatabaseStatus, Drift, ServerStatus};
use crate::catalog::Catalog;
use crate::config::{self, Database};
use crate::pool::{ControlPool, Endpoint, Gate, KeyCache, PassThrough, Pool, ServerTlsSettings};
use crate::shard::{Map, ShardId};
use crate::stats::{PoolLabel, ServerLabel, Stats};

/// Accounts are dropped when there are more than this, but for those in use: users that are looked up come and go.
const MANY_ACCOUNTS: usize = 1000;

/// One database's servers, their roles and health, and the pools to them.
pub struct Cluster {
    pub(super) config: Arc<Database>,
    /// The database's name on the servers.
    pub(super) server_database: String,
    pub(super) shards: Vec<Vec<Arc<ServerState>>>,
    pub(super) control: Vec<Vec<ControlPool>>,
    /// For looking up users, beside the probes: whoever guesses names must not hold those up.
    pub(super) lookups: Vec<Vec<ControlPool>>,
    pub(super) stats: Arc<Stats>,
    pub(super) tls: ServerTlsSettings,
    pub(super) keys: KeyCache,
    pub(super) pools: Mutex<HashMap<Account, Arc<UserPools>>>,
    /// Closed by PAUSE; the same before and after a reload.
    pub(super) gate: Arc<Gate>,
    /// Another one serves the database now. Set under the lock of `pools`.
    pub(super) retired: AtomicBool,
    pub(super) turn: AtomicU64,
    tells_sequences: AtomicBool,
    /// DDL has taken effect that the schema in force does not show yet.
    pub(super) behind: AtomicBool,
    /// So many sessions are about to change the catalogs, or wait until they are read.
    pub(super) fluxes: AtomicU32,
    pub(super) schema: ArcSwapOption<Schema>,
    pub(super) schema_version: AtomicU64,
    pub(super) schema_changed: Notify,
    /// Held while the catalogs are read; when the last reading began.
    pub(super) schema_lock: tokio::sync::Mutex<Option<Instant>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// The catalog in force, the map with its keys typed by it, and where shards differ.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The default shard's catalog.
    pub catalog: Arc<Catalog>,
    /// The map, its list and range keys of the columns' types.
    pub map: Arc<Map>,
    /// Objects in which shards differ.
    pub drift: Vec<Drift>,
}

/// Who the proxy is towards a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: Option<String>,
    /// What a client has proved, where there is no password.
    pub(super) pass: Option<Arc<PassThrough>>,
    pub(super) size: u32,
}

/// The pools of one user, by shard and server.
pub struct UserPools {
    pub(super) pools: Vec<Vec<Pool>>,
}

impl fmt::Debug for UserPools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pools.iter().flatten()).finish()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cluster({})", self.server_database)
    }
}

impl Cluster {
    /// Builds the herd of one database and starts its probes. `asked` is the name the client used, for `*`.
    #[must_use]
    pub fn start(config: Arc<Database>, asked: &str, tls: ServerTlsSettings, stats: Arc<Stats>) -> Arc<Self> {
        let cluster = Arc::new(Self::build(config, asked, tls, stats, None));
        cluster.start_probes();
        cluster
    }

    pub(super) fn start_probes(self: &Arc<Self>) {
        let tasks = super::health::spawn_probes(self);
        *self.tasks.lock() = tasks;
    }

    /// `old`: what served the database before, whose knowledge of the servers is taken over.
    pub(super) fn build(
        config: Arc<Database>,
        asked: &str,
        tls: ServerTlsSettings,
        stats: Arc<Stats>,
        old: Option<&Self>,
    ) -> Self {
        let server_database = config.server_database.clone().unwrap_or_else(|| asked.to_owned());
        let label = if config.is_wildcard() { asked.to_owned() } else { config.name.clone() };
        let places = config.pool.max_per_server.get() as usize;
        let shards: Vec<Vec<Arc<ServerState>>> = (0u16..)
            .zip(&config.shards)
            .map(|(id, shard)| {
                let state = |server: &config::Server| {
                    let slot = stats.server(ServerLabel {
                        database: label.clone(),
                        shard: ShardId(id),
                        shard_name: shard.name.clone(),
                        address: server.address(),
                    });
                    let mut state =
                        ServerState::new(ShardId(id), shard.name.clone(), server.clone(), slot, places);
                    if let Some(old) = old.and_then(|old| old.server_at(ShardId(id), &server.address())) {
                        state.inherit(old);
                    }
                    Arc::new(state)
                };
                shard.servers.iter().map(state).collect()
            })
            .collect();
        let controls = || -> Vec<Vec<ControlPool>> {
            let pool =
                |s: &Arc<ServerState>| ControlPool::new(&s.config, &server_database, &config.control, &tls);
            shards.iter().map(|servers| servers.iter().map(pool).collect()).collect()
        };
        let (control, lookups) = (controls(), controls());
        let tells_sequences = config.pool.discard_sequences || old.is_some_and(Self::tells_sequences);
        Self {
            server_database,
            shards,
            control,
            lookups,
            stats,
            tls,
            keys: KeyCache::default(),
            pools: Mutex::default(),
            gate: old.map(|old| old.gate.clone()).unwrap_or_default(),
            retired: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            tells_sequences: AtomicBool::new(tells_sequences),
            behind: AtomicBool::new(false),
            fluxes: AtomicU32::new(0),
            schema: ArcSwapOption::empty(),
            schema_version: AtomicU64::new(0),
            schema_changed: Notify::new(),
            schema_lock: tokio::sync::Mutex::default(),
            tasks: Mutex::default(),
            config,
        }
    }

    /// The server of a shard at that address.
    pub(super) fn server_at(&self, shard: ShardId, address: &str) -> Option<&Arc<ServerState>> {
        self.shards.get(shard.index())?.iter().find(|s| s.config.address() == address)
    }

    /// Stops the probes; leases in use stay valid.
    pub fn stop(&self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    /// TLS towards its servers.
    #[must_use]
    pub fn tls(&self) -> &ServerTlsSettings {
        &self.tls
    }

    /// The configuration it was built from.
    #[must_use]
    pub fn config(&self) -> &Arc<Database> {
        &self.config
    }

    /// The schema in force; `None` until it was read for the first time.
    #[must_use]
    pub fn schema(&self) -> Option<Arc<Schema>> {
        self.schema.load_full()
    }

    /// Whether anything in this database asks `currval()` or `lastval()`: then a server must have forgotten what one
    /// session drew before it serves another.
    #[must_use]
    pub fn tells_sequences(&self) -> bool {
        self.tells_sequences.load(Relaxed)
    }

    /// Something does.
    pub fn tell_sequences(&self) {
        if !self.tells_sequences() {
            self.tells_sequences.store(true, Relaxed);
        }
    }

    /// Whether the schema must be read again before anything is routed by it.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.behind.load(Acquire)
    }

    /// DDL has taken effect, and is not read yet.
    pub fn fall_behind(&self) {
        self.behind.store(true, Release);
    }

    /// Grows whenever another schema is put in force: cheap to compare.
    #[must_use]
    pub fn schema_version(&self) -> u64 {
        self.schema_version.load(Acquire)
    }

    /// The pools of a user, built at first use.
    #[must_use]
    pub fn pools_of(&self, user: &config::User, pass: Option<&Arc<PassThrough>>) -> Arc<UserPools> {
        use secrecy::ExposeSecret;
        let account = Account {
            user: user.server_user.clone(),
            password: user.server_password.as_ref().map(|p| p.expose_secret().to_owned()),
            pass: pass.filter(|_| user.server_password.is_none()).cloned(),
            size: user.pool_size.unwrap_or(self.config.pool.size).get(),
        };
        let mut pools = self.pools.lock();
        if pools.len() >= MANY_ACCOUNTS && !pools.contains_key(&account) {
            pools.retain(|_, pools| Arc::strong_count(pools) > 1);
        }
        let found = pools.entry(account).or_insert_with_key(|account| {
            let pools = self.build_pools(account, |_| None);
            if self.retired.load(Relaxed) {
                pools.pools.iter().flatten().for_each(Pool::retire);
            }
            Arc::new(pools)
        });
        found.clone()
    }

    /// The pools of an account; those that `ready` has are taken as they are.
    pub(super) fn build_pools(
        &self,
        account: &Account,
        ready: impl Fn(&ServerState) -> Option<Pool>,
    ) -> UserPools {
        let password: Option<SecretString> = account.password.clone().map(Into::into);
        let pool = |server: &Arc<ServerState>| {
            if let Some(ready) = ready(server) {
                return ready;
            }
            let endpoint = Arc::new(Endpoint {
                host: server.config.host.clone(),
                port: server.config.port,
                database: self.server_database.clone(),
                user: account.user.clone(),
                password: password.clone(),
                pass: account.pass.clone(),
                tls: self.tls.clone(),
                connect_timeout: self.config.pool.connect_timeout,
                parameters: Vec::new(),
                keys: KeyCache::default(), // a server's salt is its own
            });
            let stats = self.stats.pool(PoolLabel {
                database: self.server_database.clone(),
                shard: server.shard_name.clone(),
                address: server.config.address(),
                user: account.user.clone(),
                size: account.size,
            });
            let guards = (server.places.clone(), self.gate.clone());
            Pool::new(endpoint, self.config.pool.clone(), account.size, guards, stats)
        };
        UserPools { pools: self.shards.iter().map(|servers| servers.iter().map(pool).collect()).collect() }
    }

    /// A shard's name.
    #[must_use]
    pub fn shard_name(&self, shard: ShardId) -> String {
        self.config.shards.get(shard.index()).map_or_else(|| "?".to_owned(), |s| s.name.clone())
    }

    /// The version of the oldest of its servers, as far as they are known, e.g. 150018.
    #[must_use]
    pub fn oldest_version(&self) -> Option<u32> {
        self.shards.iter().flatten().filter_map(|server| server.version()).min()
    }

    /// All that is known of every server, for the virtual tables.
    #[must_use]
    pub fn status(&self) -> DatabaseStatus {
        let schema = self.schema();
        let servers = self.shards.iter().flatten().map(|s| self.server_status(s)).collect();
        DatabaseStatus {
            name: if self.config.is_wildcard() {
                self.server_database.clone()
            } else {
                self.config.name.clone()
            },
            servers,
            paused: !self.gate.is_open(),
            map: schema.as_ref().map_or_else(|| self.config.map.clone(), |s| s.map.clone()),
            catalog_generation: schema.as_ref().map_or(0, |s| s.catalog.generation),
            schema_drift: schema.map(|s| s.drift.clone()).unwrap_or_default(),
        }
    }

    fn server_status(&self, s: &ServerState) -> ServerStatus {
        let known = s.known.lock();
        ServerStatus {
            database: self.config.name.clone(),
            shard: s.shard_name.clone(),
            shard_id: s.shard,
            address: s.config.address(),
            expected_role: s.config.role,
            role: known.role,
            health: known.health,
            lag_bytes: known.lag_bytes,
            lag_us: known.lag_us(),
            since: known.since,
            last_error: known.last_error.clone(),
            drained: s.is_drained(),
            outstanding: s.outstanding.load(Relaxed),
            weight: s.config.weight,
            server_version: known.server_version.map(|v| format!("{}.{}", v / 10_000, v % 10_000)),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}
