//! One database as sessions use it: its cluster, the router in force, what its servers report at login.
//! Must not know any session.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::prepared::hash;
use super::vars::Vars;
use crate::cluster::{Cluster, ClusterError, Need, Schema, UserPools};
use crate::exec::Hub;
use crate::pool::{ServerError, Settings};
use crate::route::Router;
use crate::wire::BackendWriter as _;

/// Different sets of startup parameters whose reports are remembered.
const REPORTS: usize = 1024;

/// Different values of the proxy's own parameters, under one set of reports, that clients share.
const SHARED: usize = 8;

/// Asks for the schemas that bare names are looked for in.
const SEARCH_PATH: &str = "SELECT pg_catalog.array_to_string(pg_catalog.current_schemas(false), E'\\n')";

/// A database at work.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) cluster: Arc<Cluster>,
    /// Who hears which notifications.
    pub(super) hub: Arc<Hub>,
    plans: usize,
    router: ArcSwapOption<(Arc<Schema>, Arc<Router>)>,
    reports: Mutex<HashMap<ReportKey, Arc<Report>>>,
    /// What clients have begun with, by a hash of all that it depends on.
    entries: Mutex<HashMap<u128, Entry>>,
    /// How often servers' sessions have begun to begin otherwise: what was asked before is not told after.
    renewed: AtomicU64,
}

/// What a server tells at login.
#[derive(Debug)]
pub(super) struct Report {
    /// Names and values of ParameterStatus.
    pub(super) parameters: Arc<BTreeMap<String, String>>,
    /// The messages that say so to clients.
    pub(super) told: Bytes,
    /// The schemas that bare names are looked for in: the user, its role's settings and `$user` taken into account.
    pub(super) search_path: Vec<String>,
    /// Those of clients that have logged in: equal ones are one.
    pub(super) vars: Mutex<Vec<Arc<Vars>>>,
}

impl Report {
    /// `standby`: whether servers also say if they are in recovery. The herd as one server is not, whichever of its
    /// servers was asked.
    pub(super) fn new(
        parameters: Arc<BTreeMap<String, String>>,
        standby: bool,
        search_path: Vec<String>,
    ) -> Self {
        let mut told = BytesMut::new();
        for (name, value) in parameters.iter() {
            told.put_parameter_status(name, value);
        }
        if standby {
            told.put_parameter_status("in_hot_standby", "off");
        }
        Self { parameters, told: told.freeze(), search_path, vars: Mutex::default() }
    }

    /// The same value as other clients have, if one has.
    pub(super) fn share(&self, vars: Arc<Vars>) -> Arc<Vars> {
        let mut known = self.vars.lock();
        if let Some(same) = known.iter().find(|k| **k == vars) {
            return same.clone();
        }
        if known.len() < SHARED {
            known.push(vars.clone());
        }
        vars
    }
}

/// What reports depend on: user on the servers, version of the schema and of servers' sessions, startup parameters.
type ReportKey = (String, (u64, u64), Arc<Settings>);

/// What a client begins with, and what it is told.
type Entry = (Arc<Vars>, Arc<Report>);

/// Why the reports could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReportError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A server refused the startup parameters.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl Served {
    pub(super) fn new(cluster: Arc<Cluster>, plans: usize) -> Self {
        let hub = Hub::new(cluster.clone());
        Self {
            cluster,
            hub,
            plans,
            router: ArcSwapOption::empty(),
            reports: Mutex::default(),
            entries: Mutex::default(),
            renewed: AtomicU64::new(0),
        }
    }

    /// Servers' sessions begin otherwise from now on.
    pub(super) fn renew_servers(&self) {
        self.renewed.fetch_add(1, Relaxed);
        self.entries.lock().clear();
        self.reports.lock().clear();
        self.cluster.reconnect();
    }

    fn version(&self) -> (u64, u64) {
        (self.cluster.schema_version(), self.renewed.load(Relaxed))
    }

    /// The same database after a reload, with another cluster or number of plans: who listens goes on listening.
    pub(super) fn succeeded_by(&self, cluster: Arc<Cluster>, plans: usize) -> Self {
        Self { hub: self.hub.clone(), ..Self::new(cluster, plans) }
    }

    /// How many plans it keeps.
    pub(super) fn plans(&self) -> usize {
        self.plans
    }

    /// The router of the schema in force.
    ///
    /// # Errors
    /// [`ClusterError::NoCatalog`] before the first schema.
    pub(super) async fn router(&self) -> Result<Arc<Router>, ClusterError> {
        match self.router_now().filter(|_| !self.cluster.is_behind()) {
            Some(router) => Ok(router),
            None => Box::pin(self.router_in_time()).await,
        }
    }

    async fn router_in_time(&self) -> Result<Arc<Router>, ClusterError> {
        if self.cluster.is_behind()
            && let Err(error) = self.cluster.reload_schema().await
        {
            tracing::warn!(%error, "the catalogs could not be read again after DDL");
        }
        match self.router_now() {
            Some(router) => Ok(router),
            None => {
                self.cluster.wait_schema().await?;
                self.router_now().ok_or_else(|| ClusterError::NoCatalog {
                    database: self.cluster.config().name.clone(),
                    detail: None,
                })
            }
        }
    }

    /// The same without waiting.
    pub(super) fn router_now(&self) -> Option<Arc<Router>> {
        let schema = self.cluster.schema()?;
        if let Some(current) = &*self.router.load()
            && Arc::ptr_eq(&current.0, &schema)
        {
            return Some(current.1.clone());
        }
        let router = Arc::new(Router::new(schema.map.clone(), schema.catalog.clone(), self.plans));
        self.router.store(Some(Arc::new((schema, router.clone()))));
        Some(router)
    }

    /// What a client begins with who logs in with these parameters, and what it is told. A server of the default shard is
    /// asked once for each set of them.
    ///
    /// # Errors
    /// [`ReportError`]: no server, or it refuses the parameters, as PostgreSQL refuses a login with them.
    pub(super) async fn enter(
        &self,
        pools: &UserPools,
        user: &str,
        parameters: &[(String, String)],
    ) -> Result<Entry, ReportError> {
        let key = hash((user, self.version(), parameters));
        if let Some(known) = self.entries.lock().get(&key) {
            return Ok(known.clone());
        }
        let mut vars = Vars::of_startup(parameters, false);
        let (settings, report) = Box::pin(self.report(pools, user, &vars.settings)).await?;
        Arc::make_mut(&mut vars).logged_in(settings, &report.search_path, user);
        let vars = report.share(vars);
        let mut entries = self.entries.lock();
        if entries.len() >= REPORTS {
            entries.clear();
        }
        entries.insert(key, (vars.clone(), report.clone()));
        Ok((vars, report))
    }

    /// What a server of the default shard reports under these settings. The settings come back as the one value that all
    /// clients with equal ones share, so that they compare fast.
    async fn report(
        &self,
        pools: &UserPools,
        user: &str,
        settings: &Arc<Settings>,
    ) -> Result<(Arc<Settings>, Arc<Report>), ReportError> {
        let key = (user.to_owned(), self.version(), settings.clone());
        if let Some(((_, _, known), report)) = self.reports.lock().get_key_value(&key) {
            return Ok((known.clone(), report.clone()));
        }
        // The catalogs of a database that has just been met may be there before its servers' roles are.
        self.cluster.probed(self.cluster.config().control.probe_timeout).await;
        let need = Need { replica: true, only_replica: false, after: None };
        let shard = self.cluster.config().map.default_shard;
        let mut leased = self.cluster.lease(pools, shard, need, Instant::now()).await?;
        leased.apply(settings, false).await?;
        let (_, path) = leased.ask(SEARCH_PATH).await?;
        let search_path = path.unwrap_or_default().lines().map(str::to_owned).collect();
        let known = leased.parameters.clone();
        let standby = leased.is_standby().is_some(); // PostgreSQL 14 and later say so
        let report = Arc::new(Report::new(known, standby, search_path));
        let mut reports = self.reports.lock();
        if reports.len() >= REPORTS {
            reports.clear();
        }
        reports.insert(key, report.clone());
        Ok((settings.clone(), report))
    }
}
