//! Lending server connections: a fair queue in front of bb8, which opens and keeps them.
//! Must not know what a lease is used for.
//!
//! What is given back is first at the [`Stand`]: the next client takes it from there without a clock, a timer or bb8's
//! lock. What stays there unused for a moment goes back to bb8, which closes what is idle for long.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::lend_error::{LeaseError, OpenError};
use super::server::{PinLimit, ServerConn};
use super::stand::{NoTurn, Stand, watch};
use super::{ConnectError, Endpoint, Gate, connect};
use crate::config;
use crate::stats::{Moment, PoolStats};

/// How bb8 opens and judges connections.
struct Manager {
    endpoint: Arc<Endpoint>,
    settings: config::Pool,
    /// Connections to this server, of all users together.
    places: Arc<Semaphore>,
    pins: Arc<PinLimit>,
    stats: Arc<PoolStats>,
    gate: Arc<Gate>,
    life: Arc<Life>,
}

/// Which connections of a pool are good.
#[derive(Debug, Default)]
struct Life {
    /// One opened in an earlier era is closed when it is free.
    era: AtomicU64,
    /// The pool's server, or its settings, are no longer configured: nothing is opened or lent any more.
    retired: AtomicBool,
}

impl bb8::ManageConnection for Manager {
    type Connection = Box<ServerConn>;
    type Error = Arc<OpenError>;

    async fn connect(&self) -> Result<Self::Connection, Self::Error> {
        self.may_open()?;
        // While a pool takes over from another, the other's connections free their places one by one.
        let patience = self.settings.connect_timeout / 2;
        let place = tokio::time::timeout(patience, self.places.clone().acquire_owned());
        let full = || Arc::new(OpenError::Full { address: self.endpoint.address() });
        let place = place.await.map_err(|_| full())?.map_err(|_| full())?;
        self.may_open()?;
        let era = self.life.era.load(Acquire);
        let connect = async || connect(&self.endpoint).await.map_err(|e| Arc::new(OpenError::Connect(e)));
        let mut opened = connect().await?;
        if !opened.leftover.is_empty() {
            // Something unasked, such as a notice, came in that very moment: rare enough to open another.
            opened = connect().await?;
        }
        if !opened.leftover.is_empty() {
            let why = "it says more after ReadyForQuery than it was asked";
            let error = ConnectError::protocol(self.endpoint.address(), why);
            return Err(Arc::new(OpenError::Connect(error)));
        }
        // bb8's own lifetime has no jitter: a herd opened together would be closed together.
        let life = self.settings.max_lifetime.mul_f64(1.0 - 0.1 * rand::rng().random::<f64>());
        let prepared = self.settings.prepared_statements;
        let conn = ServerConn::new(
            opened,
            self.endpoint.clone(),
            prepared,
            (era, Moment::now().after(life)),
            place,
            self.pins.clone(),
            self.stats.clone(),
        );
        Ok(Box::new(conn))
    }

    async fn is_valid(&self, conn: &mut Self::Connection) -> Result<(), Self::Error> {
        if self.is_current(conn) && conn.is_quiet() { Ok(()) } else { Err(Arc::new(OpenError::Stale)) }
    }

    fn has_broken(&self, conn: &mut Self::Connection) -> bool {
        let spent = conn.is_spent();
        if spent {
            self.stats.broken.fetch_add(1, Relaxed);
        }
        spent || !self.is_current(conn)
    }
}

impl Manager {
    fn may_open(&self) -> Result<(), Arc<OpenError>> {
        if self.life.retired.load(Acquire) {
            return Err(Arc::new(OpenError::Retired));
        }
        if self.gate.is_open() { Ok(()) } else { Err(Arc::new(OpenError::Paused)) }
    }

    fn is_current(&self, conn: &ServerConn) -> bool {
        conn.era == self.life.era.load(Acquire)
    }
}

/// bb8 tells waiters nothing about failed connects; this does.
#[derive(Debug, Default)]
struct Failures {
    last: Mutex<Option<Arc<OpenError>>>,
    happened: Notify,
}

#[derive(Debug, Clone)]
struct Sink(Arc<Failures>);

impl bb8::ErrorSink<Arc<OpenError>> for Sink {
    fn sink(&self, error: Arc<OpenError>) {
        if matches!(*error, OpenError::Stale) {
            return;
        }
        *self.0.last.lock() = Some(error);
        self.0.happened.notify_waiters();
    }

    fn boxed_clone(&self) -> Box<dyn bb8::ErrorSink<Arc<OpenError>>> {
        Box::new(self.clone())
    }
}

type Conn = bb8::PooledConnection<'static, Manager>;

/// The connections to one server for one user.
#[derive(Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    bb8: bb8::Pool<Manager>,
    /// bb8 alone lets whoever comes back first take what another was woken for; this queue is fair. So many turns as
    /// there may be connections.
    stand: Stand<Conn>,
    failures: Arc<Failures>,
    endpoint: Arc<Endpoint>,
    size: u32,
    settings: config::Pool,
    stats: Arc<PoolStats>,
    life: Arc<Life>,
}

impl Inner {
    /// One that was just given back, if it is still good, else the next.
    fn good(&self, given_back: Option<Conn>) -> Option<Conn> {
        let mut next = given_back;
        loop {
            let mut conn = next?;
            if conn.era == self.life.era.load(Acquire) && conn.is_quiet() {
                return Some(conn);
            }
            conn.mark_dirty();
            drop(conn); // bb8 closes it
            next = self.stand.take();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({}, size {})", self.inner.endpoint.address(), self.inner.size)
    }
}

impl Pool {
    /// An empty pool; opens nothing yet.
    #[must_use]
    pub fn new(
        endpoint: Arc<Endpoint>,
        settings: config::Pool,
        size: u32,
        (places, gate): (Arc<Semaphore>, Arc<Gate>),
        stats: Arc<PoolStats>,
    ) -> Self {
        let failures = Arc::new(Failures::default());
        let life = Arc::new(Life::default());
        // Not all of them by default: whoever keeps none must get on.
        let pins = PinLimit::new(settings.max_pinned.unwrap_or((size - 1).max(1)).min(size));
        let manager = Manager {
            endpoint: endpoint.clone(),
            settings: settings.clone(),
            places,
            pins,
            stats: stats.clone(),
            gate,
            life: life.clone(),
        };
        let bb8 = bb8::Pool::builder()
            .max_size(size)
            .min_idle(Some(settings.min_idle.min(size)))
            .test_on_check_out(true)
            .max_lifetime(None) // with jitter in ServerConn
            .idle_timeout(Some(settings.idle_timeout))
            .connection_timeout(settings.connect_timeout)
            .queue_strategy(bb8::QueueStrategy::Lifo)
            .retry_connection(false)
            .error_sink(Box::new(Sink(failures.clone())))
            .build_unchecked(manager);
        let stand = Stand::new(size as usize, settings.queue_timeout);
        let inner = Arc::new(Inner { bb8, stand, failures, endpoint, size, settings, stats, life });
        tokio::spawn(watch(Arc::downgrade(&inner), |inner: &Inner| &inner.stand));
        Self { inner }
    }

    /// Where it connects to.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.inner.endpoint
    }

    /// Whether both are the same pool.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Open and idle connections now.
    #[must_use]
    pub fn counts(&self) -> (u32, u32) {
        let given_back = self.inner.stand.count();
        let state = self.inner.bb8.state();
        (state.connections, state.idle_connections + given_back)
    }

    /// Closes every connection: idle ones now, lent ones when they come back. Others are opened as they are needed.
    pub fn reconnect(&self) {
        self.inner.life.era.fetch_add(1, AcqRel);
        drop(self.inner.stand.take_all());
        // The pool looks for a good one among the idle and closes all others on the way.
        drop(self.inner.bb8.get_owned().now_or_never());
    }

    /// Ends the pool: as [`Pool::reconnect`], and nothing is lent any more. Who waits is told [`LeaseError::Retired`].
    pub fn retire(&self) {
        self.inner.life.retired.store(true, std::sync::atomic::Ordering::Release);
        self.inner.stand.close();
        self.reconnect();
    }

    /// Borrows a connection if one is idle and nobody waits for it: the common case, without a wait or an allocation.
    #[must_use]
    pub fn lease_now(&self) -> Option<Lease> {
        let inner = &*self.inner;
        let given_back = inner.stand.take_turn()?;
        let turn = Turn(&inner.stand);
        let conn = match inner.good(given_back) {
            Some(conn) => conn,
            None => inner.bb8.get_owned().now_or_never()?.ok()?,
        };
        Some(self.lend(conn, turn))
    }

    fn lend(&self, conn: Conn, turn: Turn<'_>) -> Lease {
        let stats = &self.inner.stats;
        stats.leases.fetch_add(1, Relaxed);
        stats.in_use.fetch_add(1, Relaxed);
        std::mem::forget(turn); // the lease gives it back
        Lease { conn: Some(conn), pool: self.inner.clone() }
    }

    /// Borrows a connection: first come, first served. Cancel safe. While it waits in the queue it is woken about once
    /// a second, so that whoever wraps it may look whether it is still wanted. `since`: when it was first asked for.
    ///
    /// # Errors
    /// [`LeaseError`]: the queue was too long, or the server is not to be had. A failed connect is told at once.
    pub async fn lease(&self, since: Instant) -> Result<Lease, LeaseError> {
        let inner = &*self.inner;
        let given_back = match inner.stand.take_turn() {
            Some(given_back) => given_back,
            None => self.queue(since).await?,
        };
        let turn = Turn(&inner.stand);
        match inner.good(given_back) {
            Some(conn) => Ok(self.lend(conn, turn)),
            None => Box::pin(self.open(turn)).await,
        }
    }

    /// With a turn, but nothing at the stand.
    async fn open(&self, turn: Turn<'_>) -> Result<Lease, LeaseError> {
        let inner = &*self.inner;
        // Before the look: from here on, what is given back goes to bb8, who hands it to whoever waits there.
        let _asks = inner.stand.asks();
        if let Some(conn) = inner.good(inner.stand.take()) {
            return Ok(self.lend(conn, turn));
        }
        // Registered before bb8 is asked, so that no failure slips between.
        let failed = inner.failures.happened.notified();
        tokio::pin!(failed);
        failed.as_mut().enable();
        let conn = tokio::select! {
            biased;
            got = inner.bb8.get_owned() => got.map_err(|e| self.explain(e))?,
            () = failed => return Err(self.last_failure()),
        };
        Ok(self.lend(conn, turn))
    }

    /// Waits for a turn.
    async fn queue(&self, since: Instant) -> Result<Option<Conn>, LeaseError> {
        let inner = &*self.inner;
        let waiting = Waiting::new(&inner.stats, since);
        match inner.stand.turn(since).await {
            Ok(given_back) => Ok(given_back),
            Err(NoTurn::Closed) => Err(LeaseError::Retired),
            Err(NoTurn::Late) => {
                inner.stats.timeouts.fetch_add(1, Relaxed);
                Err(LeaseError::QueueTimeout {
                    address: inner.endpoint.address(),
                    waited_ms: waiting.elapsed().as_millis(),
                    size: inner.size,
                })
            }
        }
    }

    fn explain(&self, error: bb8::RunError<Arc<OpenError>>) -> LeaseError {
        match error {
            bb8::RunError::User(e) => e.into(),
            bb8::RunError::TimedOut => LeaseError::ConnectTimeout {
                address: self.inner.endpoint.address(),
                waited_ms: self.inner.settings.connect_timeout.as_millis(),
            },
        }
    }

    fn last_failure(&self) -> LeaseError {
        let last = self.inner.failures.last.lock().clone();
        last.map_or_else(|| self.explain(bb8::RunError::TimedOut), LeaseError::from)
    }
}

/// Counts one waiter while it waits; also when its future is dropped.
struct Waiting<'a> {
    stats: &'a PoolStats,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn new(stats: &'a PoolStats, since: Instant) -> Self {
        stats.waiting.fetch_add(1, Relaxed);
        Self { stats, since }
    }

    fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.stats.waiting.fetch_sub(1, Relaxed);
        self.stats.wait_us.fetch_add(self.elapsed().as_micros() as u64, Relaxed);
    }
}

/// A turn of a pool's; given back when dropped.
struct Turn<'a>(&'a Stand<Conn>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.pass();
    }
}

/// A borrowed connection; given back when dropped, closed if it is dirty or too old by then.
pub struct Lease {
    /// `None` only while it is dropped.
    conn: Option<Conn>,
    pool: Arc<Inner>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease(pid {})", self.pid)
    }
}

#[expect(clippy::expect_used, reason = "the connection is taken only when the value is dropped")]
impl Deref for Lease {
    type Target = ServerConn;

    fn deref(&self) -> &ServerConn {
        self.conn.as_ref().expect("a lease has its connection")
    }
}

#[expect(clippy::expect_used, reason = "the connection is taken only when the value is dropped")]
impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut ServerConn {
        self.conn.as_mut().expect("a lease has its connection")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let pool = &*self.pool;
        pool.stats.in_use.fetch_sub(1, Relaxed);
        let Some(conn) = self.conn.take() else { return pool.stand.pass() };
        if conn.is_spent() || conn.era != pool.life.era.load(Acquire) {
            drop(conn); // bb8 closes it
        } else {
            match pool.stand.put(conn) {
                Ok(()) => return,
                Err(conn) => drop(conn), // bb8 hands it to whoever waits there
            }
        }
        // Last: the next in the queue must find the connection already back.
        pool.stand.pass();
    }
}
