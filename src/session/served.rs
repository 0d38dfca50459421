//! One database as sessions use it: its cluster, the router in force, what its servers report at login.
//! Must not know any session.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use crate::cluster::{Cluster, ClusterError, Need, Schema, UserPools};
use crate::pool::{ServerError, Settings};
use crate::route::Router;

/// Different sets of startup parameters whose reports are remembered.
const REPORTS: usize = 1024;

/// A database at work.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) cluster: Arc<Cluster>,
    plans: usize,
    router: ArcSwapOption<(Arc<Schema>, Arc<Router>)>,
    reports: Mutex<HashMap<Arc<Settings>, Arc<Report>>>,
}

/// What a server reports after login: names and values of ParameterStatus.
pub(super) type Report = Vec<(String, String)>;

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
        Self { cluster, plans, router: ArcSwapOption::empty(), reports: Mutex::default() }
    }

    /// The router of the schema in force.
    ///
    /// # Errors
    /// [`ClusterError::NoCatalog`] before the first schema.
    pub(super) async fn router(&self) -> Result<Arc<Router>, ClusterError> {
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

    /// What a server of the default shard reports under these settings; asked once for each set of parameters. The
    /// settings come back as the one value that all clients with equal ones share, so that they compare fast.
    ///
    /// # Errors
    /// [`ReportError`]: no server, or it refuses the parameters, as PostgreSQL refuses a login with them.
    pub(super) async fn report(
        &self,
        pools: &UserPools,
        settings: &Arc<Settings>,
    ) -> Result<(Arc<Settings>, Arc<Report>), ReportError> {
        if let Some((known, report)) = self.reports.lock().get_key_value(settings) {
            return Ok((known.clone(), report.clone()));
        }
        let need = Need { replica: true, only_replica: false, after: None };
        let mut leased = self.cluster.lease(pools, self.cluster.config().map.default_shard, need).await?;
        leased.apply(settings).await?;
        let mut report: Report = leased.parameters.clone().into_iter().collect();
        for (name, value) in &mut report {
            if name == "in_hot_standby" {
                // The herd as one server is none, whichever of its servers was asked.
                "off".clone_into(value);
            }
        }
        let report = Arc::new(report);
        let mut reports = self.reports.lock();
        if reports.len() >= REPORTS {
            reports.clear();
        }
        reports.insert(settings.clone(), report.clone());
        Ok((settings.clone(), report))
    }
}
