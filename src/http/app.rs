//! What every endpoint shares: the proxy, and the configuration in force when a request came.
//! Must not know any endpoint.

use std::sync::Arc;

use super::dashboard::Dashboard;
use super::link::Links;
use crate::config::{Config, Http};
use crate::session::Proxy;

/// The state of the server; cheap to clone, one per process.
#[derive(Clone)]
pub(super) struct App(Arc<Shared>);

struct Shared {
    proxy: Arc<Proxy>,
    /// The description of all endpoints, as JSON.
    openapi: String,
    links: Links,
    dashboard: Arc<Dashboard>,
}

impl App {
    pub(super) fn new(proxy: Arc<Proxy>, openapi: String) -> Self {
        let links = Links::new(proxy.clone());
        let dashboard = Arc::new(Dashboard::new(proxy.clone()));
        Self(Arc::new(Shared { proxy, openapi, links, dashboard }))
    }

    pub(super) fn proxy(&self) -> &Arc<Proxy> {
        &self.0.proxy
    }

    /// The sessions that requests borrow.
    pub(super) fn links(&self) -> &Links {
        &self.0.links
    }

    pub(super) fn openapi(&self) -> &str {
        &self.0.openapi
    }

    pub(super) fn dashboard(&self) -> &Arc<Dashboard> {
        &self.0.dashboard
    }

    /// The settings in force: look them up once per request, for a reload may change them.
    pub(super) fn settings(&self) -> Settings {
        Settings(self.0.proxy.config())
    }
}

/// `[http]` of one configuration.
pub(super) struct Settings(Arc<Config>);

impl Settings {
    /// `None` only where a server without `[http]` was started.
    pub(super) fn http(&self) -> Option<&Http> {
        self.0.http.as_ref()
    }
}
