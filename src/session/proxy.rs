//! The whole proxy: configuration, databases at work, and the acceptor that turns sockets into clients.
//! Must not know messages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed},
};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::{BufMut, BytesMut};
use futures_util::FutureExt;
use parking_lot::Mutex;
use smallvec::SmallVec;
#[cfg(target_os = "linux")]
use socket2::{SockFilter, SockRef};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::cancels::{CancelSlot, Cancels, LEAVE, REFRESH};
use super::client::{Place, Standing};
use super::crowd::{Crowd, Seat};
use super::join::unless_gone;
use super::lookup::Lookups;
use super::prepared::Named;
use super::rest::Resting;
use super::served::{Report, ReportError, Served};
use super::vars::Vars;
use super::warm::{self, Warm};
use super::watch::watch;
use super::{ADMIN_DATABASE, Admission, Admitted, Door, DoorError, admit};
use crate::admin;
use crate::catalog::Catalog;
use crate::cluster::{Cluster, ClusterError, Leased, Need};
use crate::config::{Config, PoolMode};
use crate::pool::{ServerTlsSettings, TlsSetupError};
use crate::route::Router;
use crate::shard::{Map, ShardId};
use crate::stats::{SessionInfo, Stats};
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, SqlState, TransactionStatus};

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
    crowd: Arc<Crowd>,
    warm: Warm,
    admin_router: Arc<Router>,
    pub(super) clients: AtomicUsize,
    started: SystemTime,
    shutdown: watch::Sender<Shutdown>,
}

/// How far the end of the proxy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Shutdown {
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
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = shutdown.changed() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.take_in(stream, peer),
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
        while let Ok(Ok((stream, peer))) = tokio::time::timeout(LAST_ACCEPT, listener.accept()).await {
            self.take_in(stream, peer);
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

    fn take_in(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
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
                self.cancels.deliver(pid, &secret).await;
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

    /// From a proven user to a client ready for its first statement; `None` if it was turned away.
    pub(super) async fn welcome(
        self: &Arc<Self>,
        mut admitted: Admitted,
        peer: &str,
        application: Option<&str>,
    ) -> Option<(Resting, BytesMut)> {
        let generation = self.generation.load(Acquire);
        // The rest of the login: a server may have to be asked, and the database may be paused.
        let limit = self.config().timeouts.login;
        let prepare = async {
            let prepared = self.prepare(&admitted).await?;
            let fixed = unless_gone(&admitted.stream, fixed_server(&prepared.0)).await;
            fixed.map(|fixed| fixed.map(|fixed| (prepared, fixed))).transpose()
        };
        let prepared = tokio::time::timeout(limit, prepare).await;
        let prepared = prepared.unwrap_or_else(|_| Err(self.login_too_long(&admitted.database)));
        let prepared = prepared.transpose()?;
        let ((place, vars, report, seat), fixed) = match prepared {
            Ok(prepared) => prepared,
            Err(mut report) => {
                report.severity = crate::wire::Severity::Fatal;
                self.record(&report, &admitted.user.name, &admitted.database);
                tracing::info!(%peer, user = %admitted.user.name, why = %report.message, "a client was refused");
                let mut out = BytesMut::new();
                out.put_report(&report);
                // The client may be gone already.
                drop(admitted.stream.write_all(&out).await);
                drop(admitted.stream.flush().await);
                return None;
            }
        };
        let cancel = self.cancels.register(admitted.protocol_minor >= 2, fixed.as_ref().map(|f| f.pid))?;
        if *self.shutdown.borrow() > Shutdown::No {
            cancel.ask(LEAVE); // it came in at the last moment
        }
        if self.generation.load(Acquire) != generation {
            cancel.ask(REFRESH); // it may have missed the call
        }
        let mut out = BytesMut::new();
        for (name, value) in report.parameters.iter() {
            out.put_parameter_status(name, value);
        }
        if report.standby {
            out.put_parameter_status("in_hot_standby", "off");
        }
        put_key(&mut out, &cancel);
        out.put_ready(TransactionStatus::Idle);
        if admitted.stream.write_all(&out).await.is_err() || admitted.stream.flush().await.is_err() {
            self.cancels.remove(cancel.id);
            return None;
        }
        let parameter = admitted.parameters.iter().find(|(name, _)| name == "application_name");
        let application = application.or(parameter.map(|(_, value)| value.as_str()));
        let stats = self.stats.session(SessionInfo {
            id: cancel.id,
            user: admitted.user.name.clone(),
            database: admitted.database.clone(),
            application: application.unwrap_or_default().to_owned(),
            address: peer.to_owned(),
            tls: admitted.is_tls,
        });
        let config = self.config();
        let resting = Resting {
            proxy: self.clone(),
            database: self.stats.database(&admitted.database),
            config,
            router: None,
            place,
            user: admitted.user,
            standing: Box::new(Standing { pass: admitted.pass, seat, fixed }),
            stats,
            cancel,
            stream: admitted.stream,
            vars,
            reported: report.parameters.clone(),
            statements: Named::default(),
            writes: SmallVec::new(),
        };
        Some((resting, admitted.leftover))
    }

    /// A login that was not over within `timeouts.login_ms`.
    fn login_too_long(self: &Arc<Self>, database: &str) -> ErrorReport {
        let served = self.serve_database(database).ok().flatten();
        if served.is_some_and(|served| served.cluster.is_paused()) {
            return ErrorReport::error(
                SqlState::CANNOT_CONNECT_NOW,
                format!("database \"{database}\" is paused"),
            );
        }
        let message = "canceling authentication due to timeout";
        ErrorReport::error(SqlState::QUERY_CANCELED, message).with_hint("The limit is timeouts.login_ms.")
    }

    async fn prepare(self: &Arc<Self>, admitted: &Admitted) -> Result<Prepared, ErrorReport> {
        let config = self.config();
        let of_database = config.database(&admitted.database).and_then(|d| d.max_clients);
        let of_user = (admitted.user.name.as_str(), admitted.user.max_clients);
        let seat = self.crowd.sit(of_user, (&admitted.database, of_database))?;
        // An operator gets in whatever the crowd.
        if admitted.database != ADMIN_DATABASE && self.clients() > config.limits.max_clients {
            let report =
                ErrorReport::error(SqlState::TOO_MANY_CONNECTIONS, "sorry, too many clients already");
            return Err(report.with_hint("Raise proxy.max_clients."));
        }
        if admitted.database == ADMIN_DATABASE {
            let vars = Vars::of_startup(&[], true);
            return Ok((Place::Admin, vars, Arc::new(admin_report(&admitted.user.name)), seat));
        }
        let served = self
            .serve_database(&admitted.database)
            .map_err(|e| ErrorReport::error(SqlState::INTERNAL_ERROR, e.to_string()))?;
        let Some(served) = served else {
            let message = format!("database \"{}\" does not exist", admitted.database);
            return Err(ErrorReport::error(SqlState::INVALID_CATALOG_NAME, message));
        };
        let mut vars = Vars::of_startup(&admitted.parameters, false);
        let pools = served.cluster.pools_of(&admitted.user, admitted.pass.as_ref());
        if let Err(error) = served.router().await {
            if matches!(error, ClusterError::NoDatabase { .. }) {
                self.leave_databases(vec![admitted.database.clone()]); // it may be made any time
            }
            return Err(error.report());
        }
        let (settings, report) = served
            .report(&pools, &admitted.user.server_user, &vars.settings)
            .await
            .map_err(|error| match error {
                ReportError::Cluster(error) => error.report(),
                ReportError::Server(crate::pool::ServerError::Sql(fields)) => {
                    ErrorReport::error(fields.sqlstate(), fields.message)
                }
                ReportError::Server(error) => {
                    ErrorReport::error(SqlState::CONNECTION_FAILURE, error.to_string())
                }
            })?;
        Arc::make_mut(&mut vars).logged_in(settings, &report.search_path, &admitted.user.server_user);
        let vars = report.share(vars);
        Ok((Place::Database { served, pools }, vars, report, seat))
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

/// In session pooling over one shard a client has one server from its login on, and bears that server's process id:
/// what `pg_backend_pid()` and notifications say is then true of it.
async fn fixed_server(place: &Place) -> Result<Option<Leased>, ErrorReport> {
    let Place::Database { served, pools } = place else { return Ok(None) };
    let config = served.cluster.config();
    if config.pool_mode != PoolMode::Session || !config.map.is_single() {
        return Ok(None);
    }
    let leased = served.cluster.lease(pools, config.map.default_shard, Need::PRIMARY, Instant::now()).await;
    leased.map(Some).map_err(|error| error.report())
}

/// What a client starts with.
type Prepared = (Place, Arc<Vars>, Arc<Report>, Seat);

/// One client in the count of clients, until it is dropped.
pub(super) struct Counted(pub(super) Arc<Proxy>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Relaxed);
    }
}

fn put_key(out: &mut BytesMut, cancel: &CancelSlot) {
    out.put_u8(b'K');
    out.put_u32(8 + cancel.key.len() as u32);
    out.put_u32(cancel.id);
    out.put_slice(&cancel.key);
}

/// What database `pgherd` reports: enough for psql and drivers to work.
fn admin_report(user: &str) -> Report {
    let parameters = [
        ("server_version", concat!("15.0 (pgherd ", env!("CARGO_PKG_VERSION"), ")")),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("IntervalStyle", "postgres"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
        ("is_superuser", "off"),
        ("session_authorization", user),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Report {
        parameters: Arc::new(parameters.into()),
        standby: true,
        search_path: Vec::new(),
        vars: Mutex::default(),
    }
}
