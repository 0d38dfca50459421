//! The whole proxy: configuration, databases at work, and the acceptor that turns sockets into clients (`welcome`).
//! Must not know messages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::BytesMut;
use futures_util::FutureExt;
use parking_lot::Mutex;
#[cfg(target_os = "linux")]
use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::cancels::Cancels;
use super::crowd::Crowd;
use super::lookup::Lookups;
use super::rest::Resting;
use super::served::Served;
use super::warm::{self, Warm};
use super::watch::watch;
use super::{Admission, Door, DoorError, admit, prepare};
use crate::admin;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::pool::{ServerTlsSettings, TlsSetupError};
use crate::route::Router;
use crate::shard::{Map, ShardId};
use crate::stats::Stats;
use crate::wire::ErrorReport;

/// A listener that gives way to another process is closed when nothing has come for this long.
const LAST_ACCEPT: Duration = Duration::from_millis(300);
/// PostgreSQL waits 5 s for others to leave a database.
const LEAVE_DATABASE: Duration = Duration::from_secs(4);
/// Databases behind a `*` that are kept at work at once.
const MAX_WILDCARD: usize = 1000;

/// The proxy.
pub struct Proxy {
    pub(super) config: ArcSwap<Config>,
    pub(super) door: ArcSwap<Door>,
    pub(super) stats: Arc<Stats>,
    pub(super) cancels: Cancels,
    pub(super) served: Mutex<HashMap<String, Arc<Served>>>,
    /// Grows with each change of the configuration.
    pub(super) generation: AtomicU64,
    /// Held by the reload at work.
    pub(super) reloading: tokio::sync::Mutex<()>,
    pub(super) reloads: Mutex<admin::Reloads>,
    pub(super) lookups: Lookups,
    pub(super) crowd: Arc<Crowd>,
    warm: Warm,
    admin_router: Arc<Router>,
    pub(super) clients: AtomicUsize,
    started: SystemTime,
    pub(super) shutdown: watch::Sender<Shutdown>,
}

/// How far the end of the proxy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shutdown {
    No,
    /// Clients go as their transactions end.
    Drain,
    /// Nobody is waited for.
    Now,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxy({} clients)", self.clients.load(Relaxed))
    }
}

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// TLS files or verifiers of users.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// TLS towards servers.
    #[error("database \"{database}\": {source}")]
    ServerTls {
        /// The database.
        database: String,
        /// Why.
        source: TlsSetupError,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

impl Proxy {
    /// Builds the rooms and starts the probes of every configured database. Derives verifiers: blocks for 0.5 ms
    /// per user with a plain password.
    ///
    /// # Errors
    /// [`StartError`], naming what to mend.
    pub fn start(config: Arc<Config>) -> Result<Arc<Self>, StartError> {
        let door = Door::new(config.clone())?;
        let map = Map::new(Vec::new(), Vec::new(), Default::default(), ShardId(0));
        let admin_router = Arc::new(Router::new(Arc::new(map), Arc::new(Catalog::default()), 100));
        let proxy = Arc::new(Self {
            door: ArcSwap::from_pointee(door),
            stats: Stats::new(),
            cancels: Cancels::default(),
            served: Mutex::default(),
            generation: AtomicU64::new(0),
            reloading: tokio::sync::Mutex::default(),
            reloads: Mutex::default(),
            lookups: Lookups::default(),
            crowd: Arc::default(),
            warm: Warm::default(),
            admin_router,
            clients: AtomicUsize::new(0),
            started: SystemTime::now(),
            shutdown: watch::channel(Shutdown::No).0,
            config: ArcSwap::new(config.clone()),
        });
        proxy.stats.log_slower_than(config.slow);
        tokio::spawn(proxy.stats.clone().collect());
        proxy.door.load().lead_to(&proxy);
        tokio::spawn(watch(Arc::downgrade(&proxy)));
        tokio::spawn(warm::watch(Arc::downgrade(&proxy)));
        for database in config.databases.iter().filter(|d| !d.is_wildcard()) {
            proxy.serve_database(&database.name)?;
        }
        Ok(proxy)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// What happened.
    #[must_use]
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Clients connected now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.load(Relaxed)
    }

    pub(super) fn door(&self) -> Arc<Door> {
        self.door.load_full()
    }

    pub(super) fn cancels(&self) -> &Cancels {
        &self.cancels
    }

    pub(super) fn warm(&self) -> &Warm {
        &self.warm
    }

    pub(super) fn admin_router(&self) -> &Arc<Router> {
        &self.admin_router
    }

    /// All that the virtual tables show.
    #[must_use]
    pub fn herd(&self, database: &str, user: &str) -> admin::Herd {
        let served: Vec<_> = self.served.lock().values().cloned().collect();
        let mut databases: Vec<_> = served.iter().map(|s| s.cluster.status()).collect();
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        admin::Herd {
            config: self.config(),
            stats: self.stats.clone(),
            databases,
            reloads: self.reloads.lock().clone(),
            started: self.started,
            now: SystemTime::now(),
            database: database.to_owned(),
            user: user.to_owned(),
        }
    }

    /// The servers of every database at work.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.served.lock().values().map(|s| s.cluster.clone()).collect()
    }

    /// Whether every database has read its catalogs.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.served.lock().values().all(|s| s.cluster.schema().is_some())
    }

    pub(super) fn serve_database(&self, name: &str) -> Result<Option<Arc<Served>>, StartError> {
        let mut served = self.served.lock();
        let config = self.config(); // under the lock: a reload changes both together
        let Some(database) = config.database(name) else { return Ok(None) };
        if let Some(known) = served.get(name) {
            return Ok(Some(known.clone()));
        }
        if database.is_wildcard() && served.len() >= MAX_WILDCARD + config.databases.len() {
            served.retain(|name, s| {
                config.databases.iter().any(|d| d.name == *name) || Arc::strong_count(s) > 1
            });
        }
        let tls = ServerTlsSettings::load(&database.server_tls)
            .map_err(|source| StartError::ServerTls { database: database.name.clone(), source })?;
        let cluster = Cluster::start(database.clone(), name, tls, self.stats.clone());
        let fresh = Arc::new(Served::new(cluster, config.limits.plan_cache));
        served.insert(name.to_owned(), fresh.clone());
        Ok(Some(fresh))
    }

    /// Closes what the proxy itself has open in databases that a statement is about to drop, rename or copy, which
    /// PostgreSQL refuses while anybody is there. Only those of `"*"` in which no client is: the next one to come
    /// opens it anew. Clients that are just leaving are waited for, as PostgreSQL waits.
    pub(super) fn leave_databases(self: &Arc<Self>, mut names: Vec<String>) {
        if self.left_behind(&mut names) {
            return;
        }
        let proxy = self.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            let left = async {
                while !proxy.left_behind(&mut names) {
                    tick.tick().await;
                }
            };
            // Whoever stays longer is in the way.
            drop(tokio::time::timeout(LEAVE_DATABASE, left).await);
        });
    }

    /// Forgets those databases that can be left; says whether none remains.
    /// Sessions of servers begin otherwise than they did: with a role's or a database's other settings.
    pub(super) fn renew_servers(&self) {
        self.served.lock().values().for_each(|served| served.renew_servers());
    }

    fn left_behind(&self, names: &mut Vec<String>) -> bool {
        let config = self.config();
        let mut served = self.served.lock();
        names.retain(|name| {
            if !served.contains_key(name) || config.databases.iter().any(|d| d.name == *name) {
                return false;
            }
            if self.crowd.is_in(name) {
                return true;
            }
            if let Some(left) = served.remove(name) {
                left.cluster.retire(None);
            }
            false
        });
        names.is_empty()
    }

    /// Waits until every server of the configured databases has been asked once and catalogs are read, for no longer than a
    /// probe may take: servers that do not answer by then are down.
    pub async fn settled(&self) {
        let served: Vec<_> = self.served.lock().values().cloned().collect();
        let known = served.iter().map(|served| async {
            let limit = served.cluster.config().control.probe_timeout;
            let known = async {
                served.cluster.probed(limit).await;
                // Without catalogs clients are told so.
                let _ = served.cluster.wait_schema().await;
            };
            let _ = tokio::time::timeout(limit, known).await;
        });
        futures_util::future::join_all(known).await;
    }

    /// Accepts clients until [`Proxy::begin_shutdown`]; each lives in a task of its own.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        self.accept_until_shutdown(&listener).await;
        if self.config().reuse_port {
            self.last_accepts(listener).await;
        }
    }

    /// The same on a socket that others hold too: it outlives the proxy, with all that waits in it.
    pub async fn accept_shared(self: Arc<Self>, listener: TcpListener) {
        self.accept_until_shutdown(&listener).await;
    }

    async fn accept_until_shutdown(self: &Arc<Self>, listener: &TcpListener) {
        let mut shutdown = self.shutdown.subscribe();
        let inherits = inherits(listener);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.changed() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.take_in(stream, peer, inherits),
                Err(error) => {
                    // Out of descriptors: accepting at once again would only spin.
                    tracing::error!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Another process listens at the same address. What this socket still has in its queue would be reset with it, so
    /// it takes no further connection (a filter drops SYN, which clients repeat to the other one within a second) and
    /// what is on its way is accepted until nothing comes any more.
    async fn last_accepts(self: Arc<Self>, listener: TcpListener) {
        if let Err(error) = refuse_syn(&listener) {
            tracing::warn!(%error, "connections that arrive at this moment may be reset");
        }
        let inherits = inherits(&listener);
        while let Ok(Ok((stream, peer))) = tokio::time::timeout(LAST_ACCEPT, listener.accept()).await {
            self.take_in(stream, peer, inherits);
        }
    }

    /// No client is accepted from now on; idle ones are told to go, others when their transaction has ended.
    pub fn begin_shutdown(&self) {
        self.shutdown.send_if_modified(|now| std::mem::replace(now, (*now).max(Shutdown::Drain)) < *now);
        self.cancels.all_leave();
    }

    /// As [`Proxy::begin_shutdown`], and nobody is waited for.
    pub(super) fn stop_now(&self) {
        self.shutdown.send_replace(Shutdown::Now);
        self.cancels.all_leave();
    }

    /// Waits until no client is left, or the time is over. Says whether all had gone.
    pub async fn drained(&self, limit: Duration) -> bool {
        let gone = async {
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while self.clients() > 0 {
                tick.tick().await;
            }
        };
        tokio::time::timeout(limit, gone).await.is_ok()
    }

    fn take_in(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, is_prepared: bool) {
        if !is_prepared && prepare(&stream).is_err() {
            return; // it is gone already
        }
        // Boxed: it is long over when the client lives.
        let login = Box::pin(self.clone().login(stream, peer));
        tokio::spawn(self.clone().client(login, peer));
    }

    async fn client(
        self: Arc<Self>,
        login: Pin<Box<impl Future<Output = Option<(Resting, BytesMut)>>>>,
        peer: SocketAddr,
    ) {
        self.clients.fetch_add(1, Relaxed);
        let _counted = Counted(self);
        let live = async {
            let Some((resting, said)) = login.await else { return };
            Resting::live(&mut Some(resting), said).await;
        };
        // A panic ends this client only; it is told, and the servers it held are closed as dirty.
        if std::panic::AssertUnwindSafe(live).catch_unwind().await.is_err() {
            tracing::error!(%peer, "a session panicked; its connection is closed");
        }
    }

    /// From an accepted socket to a client ready for its first statement, and what it has said already.
    async fn login(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) -> Option<(Resting, BytesMut)> {
        let door = self.door.load_full();
        let admitted = match admit(stream, peer, &door).await {
            Ok(Admission::Client(admitted)) => admitted,
            Ok(Admission::Cancel { stream, pid, secret }) => {
                Box::pin(self.cancels.deliver(pid, &secret)).await;
                drop(stream);
                return None;
            }
            Ok(Admission::Gone) => return None,
            Err(refusal) => {
                tracing::info!(%peer, why = %refusal.why, "a client was refused");
                if let Some(report) = refusal.report {
                    self.record(&report, "", "");
                }
                return None;
            }
        };
        drop(door);
        self.welcome(*admitted, &peer.to_string(), None).await
    }

    pub(super) fn record(&self, report: &ErrorReport, user: &str, database: &str) {
        self.stats.error(crate::stats::ErrorEvent {
            sqlstate: report.code.as_str().to_owned(),
            message: report.message.clone(),
            blame: "client",
            database: database.to_owned(),
            user: user.to_owned(),
            shard: None,
            server: None,
            statement: None,
        });
    }

    /// Waits for the shutdown to begin.
    pub async fn shutdown_begun(&self) {
        self.reached(Shutdown::Drain).await;
    }

    /// Waits until nobody is to be waited for any more.
    pub async fn shutdown_now(&self) {
        self.reached(Shutdown::Now).await;
    }

    async fn reached(&self, stage: Shutdown) {
        // An error means that the sender is gone, which cannot be: it is in `self`.
        drop(self.shutdown.subscribe().wait_for(|now| *now >= stage).await);
    }
}

/// Whether what a socket accepts is prepared as it is itself, from now on.
fn inherits(listener: &TcpListener) -> bool {
    cfg!(target_os = "linux") && prepare(listener).is_ok()
}

/// Drops segments that begin a connection, before the kernel answers them; those of connections that have begun pass.
#[cfg(target_os = "linux")]
fn refuse_syn(listener: &TcpListener) -> std::io::Result<()> {
    // Classic BPF on the TCP header: flags are its byte 13. Load it; SYN without ACK: keep 0 bytes, else all.
    let filter = [
        SockFilter::new(0x30, 0, 0, 13),       // ldb [13]
        SockFilter::new(0x54, 0, 0, 0x12),     // and #SYN|ACK
        SockFilter::new(0x15, 0, 1, 0x02),     // jeq #SYN, next, next + 1
        SockFilter::new(0x06, 0, 0, 0),        // ret #0
        SockFilter::new(0x06, 0, 0, u32::MAX), // ret #-1
    ];
    SockRef::from(listener).attach_filter(&filter)
}

#[cfg(not(target_os = "linux"))]
fn refuse_syn(_: &TcpListener) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// One client in the count of clients, until it is dropped.
pub(super) struct Counted(pub(super) Arc<Proxy>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_login<F: FnOnce(Arc<Proxy>, TcpStream, SocketAddr) -> T, T>(_: F) -> usize {
        size_of::<T>()
    }

    /// It is moved into a box for each client: what is rare is not to be in it.
    #[test]
    fn a_login_under_way_takes_little_memory() {
        let size = size_of_login(Proxy::login);
        assert!(size <= 2048, "{size}");
    }
}
