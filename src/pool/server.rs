//! One server connection as a pool keeps it: the socket, what the server knows, and whether it is clean.
//! Must not know clients or SQL, only statements' hashes.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::MAX_PARAMETERS;
use super::prepared::{PreparedSet, StatementKey};
use super::settings::Settings;
use super::stream::Stream;
use super::{Endpoint, Idle, Opened, cancel};
use crate::stats::{Moment, PoolStats};
use crate::wire::{
    ErrorFields, FrontendWriter, TransactionStatus, WireError, next_frame, parse_parameter_status,
};

/// A server connection.
#[derive(Debug)]
pub struct ServerConn {
    /// The socket.
    pub stream: Stream,
    /// The server's process id.
    pub pid: u32,
    /// What a CancelRequest must show.
    pub secret: Bytes,
    /// Where and with what to cancel what runs here.
    pub cancel: Arc<CancelTarget>,
    /// Whether all is known to be as a new client expects it: set before the first byte goes out, cleared after
    /// ReadyForQuery. One that is dirty when it comes back is closed.
    dirty: bool,
    /// Reported parameters, as the server last said; shared with the clients that know the same.
    pub parameters: Arc<BTreeMap<String, String>>,
    /// Whether it said that it is in recovery: a client never hears of that.
    standby: Option<bool>,
    /// The settings that were applied, `None` right after login.
    pub applied: Option<Arc<Settings>>,
    /// Whether values of sequences may have been drawn since they were forgotten last: `currval()` and `lastval()` would
    /// tell them.
    pub drawn: bool,
    /// Prepared under their server names.
    pub prepared: PreparedSet,
    /// How many bytes must be there before the runtime is told that something has come.
    piece: usize,
    /// What the unnamed statement holds, and the client that prepared it.
    pub unnamed: Option<(u32, StatementKey)>,
    expires: Moment,
    /// The pool's era in which it was opened.
    pub(super) era: u64,
    /// Its place among the server's connections, given back when it is closed.
    _place: OwnedSemaphorePermit,
    pins: Arc<PinLimit>,
    pinned: Option<Pinned>,
    counted: Counted,
}

/// How many connections of a pool clients may keep for themselves.
#[derive(Debug)]
pub(super) struct PinLimit {
    pub(super) places: Arc<Semaphore>,
    pub(super) most: u32,
}

impl PinLimit {
    pub(super) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(most as usize)), most })
    }
}

/// Counts a connection as long as a client keeps it for itself.
#[derive(Debug)]
struct Pinned {
    _place: OwnedSemaphorePermit,
    stats: Arc<PoolStats>,
}

impl Pinned {
    fn new(place: OwnedSemaphorePermit, stats: Arc<PoolStats>) -> Self {
        stats.pinned.fetch_add(1, Relaxed);
        Self { _place: place, stats }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.stats.pinned.fetch_sub(1, Relaxed);
    }
}

/// Counts a connection as long as it is open.
#[derive(Debug)]
struct Counted(Arc<PoolStats>);

impl Counted {
    fn new(stats: Arc<PoolStats>) -> Self {
        stats.opened.fetch_add(1, Relaxed);
        stats.open.fetch_add(1, Relaxed);
        Self(stats)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// How to cancel what runs on a connection, from any task.
#[derive(Debug)]
pub struct CancelTarget {
    /// A request is on its way, or nobody knows whether it still is: it may hit what runs here later.
    pending: AtomicBool,
    endpoint: Arc<Endpoint>,
    pid: u32,
    secret: Bytes,
}

impl CancelTarget {
    /// Sends a CancelRequest and waits until the server has taken it. What fails is logged: the statement then runs to
    /// its end.
    pub async fn cancel(&self) {
        let was_pending = self.pending.swap(true, Acquire);
        match cancel(&self.endpoint, self.pid, &self.secret).await {
            // Another one is not taken back by this one's delivery.
            Ok(()) if !was_pending => self.pending.store(false, Release),
            Ok(()) => {}
            Err(error) => {
                tracing::debug!(%error, "a cancel could not be delivered; its connection will be closed")
            }
        }
    }
}

/// What went wrong between the proxy and a server outside a client's own exchange.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The connection broke.
    #[error("connection to server lost: {0}")]
    Io(#[from] std::io::Error),
    /// The server speaks nonsense.
    #[error("server broke the protocol: {0}")]
    Wire(#[from] WireError),
    /// The server refused.
    #[error("{}", .0.message)]
    Sql(ErrorFields),
}

impl ServerError {
    /// Whether the connection is gone with it.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        !matches!(self, Self::Sql(fields) if !fields.is_fatal())
    }
}

impl ServerConn {
    pub(super) fn new(
        opened: Opened,
        endpoint: Arc<Endpoint>,
        prepared: NonZeroUsize,
        (era, expires): (u64, Moment),
        place: OwnedSemaphorePermit,
        pins: Arc<PinLimit>,
        stats: Arc<PoolStats>,
    ) -> Self {
        Self {
            stream: opened.stream.joint(),
            pid: opened.pid,
            cancel: Arc::new(CancelTarget {
                pending: AtomicBool::new(false),
                endpoint,
                pid: opened.pid,
                secret: opened.secret.clone(),
            }),
            secret: opened.secret,
            dirty: false,
            standby: opened.parameters.iter().find(|(n, _)| n == IN_HOT_STANDBY).map(|(_, v)| v == "on"),
            parameters: Arc::new(
                opened.parameters.into_iter().filter(|(n, _)| n != IN_HOT_STANDBY).collect(),
            ),
            applied: None,
            drawn: false,
            piece: 1,
            prepared: PreparedSet::new(prepared),
            unnamed: None,
            expires,
            era,
            _place: place,
            pins,
            pinned: None,
            counted: Counted::new(stats),
        }
    }

    /// A connection to nobody, within a runtime.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        let (stream, _) = tokio::net::UnixStream::pair().unwrap();
        let endpoint = Endpoint {
            host: String::new(),
            port: 0,
            database: String::new(),
            user: String::new(),
            password: None,
            pass: None,
            tls: super::ServerTlsSettings::disabled().unwrap(),
            connect_timeout: std::time::Duration::from_secs(1),
            parameters: Vec::new(),
            keys: super::KeyCache::default(),
        };
        let opened = Opened {
            stream: Stream::Unix(stream),
            leftover: BytesMut::new(),
            pid: 77,
            secret: Bytes::new(),
            parameters: Vec::new(),
        };
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let stats = crate::stats::Stats::new().pool(crate::stats::PoolLabel {
            database: String::new(),
            shard: String::new(),
            address: String::new(),
            user: String::new(),
            size: 1,
        });
        let life = (0, Moment::now().after(std::time::Duration::from_secs(3600)));
        Self::new(opened, Arc::new(endpoint), NonZeroUsize::MIN, life, place, PinLimit::new(1), stats)
    }

    /// Whether the server said it is in recovery (`in_hot_standby`, PostgreSQL 14 and later).
    #[must_use]
    pub fn is_standby(&self) -> Option<bool> {
        self.standby
    }

    /// Bytes of a client are about to go out.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// ReadyForQuery `I` was read and nothing of the client is left behind. One that is too old by `now` is not lent
    /// again.
    pub fn mark_clean(&mut self, now: Moment) {
        self.pinned = None;
        self.dirty = now >= self.expires || !self.set_piece(1);
    }

    /// Has the runtime told of what comes only when so many bytes are there, or the other side has closed. Whoever asks
    /// for more than 1 must go back to 1 when nothing more comes. Says whether it is so.
    pub fn set_piece(&mut self, bytes: usize) -> bool {
        if self.piece == bytes {
            return true;
        }
        let set = self.stream.set_low_water(bytes);
        if set {
            self.piece = bytes;
        }
        set
    }

    /// Counts it as kept by one client; false if as many are kept already as may be.
    pub fn pin(&mut self) -> bool {
        if self.pinned.is_none() {
            let place = self.pins.places.clone().try_acquire_owned().ok();
            self.pinned = place.map(|place| Pinned::new(place, self.counted.0.clone()));
        }
        self.pinned.is_some()
    }

    /// It is kept no more.
    pub fn unpin(&mut self) {
        self.pinned = None;
    }

    /// How many of its pool may be kept.
    #[must_use]
    pub fn max_pinned(&self) -> u32 {
        self.pins.most
    }

    /// Whether it must be closed rather than lent again.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.dirty || self.cancel.pending.load(Acquire)
    }

    /// Whether an idle connection still stands, with nothing unread. Costs no system call.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut unasked = BytesMut::new();
        // Something unasked (a farewell, a notice) makes it unfit to lend: opening another is cheap and rare.
        matches!(self.stream.poll_idle(&mut unasked), Idle::Quiet)
    }

    /// Runs simple queries of the proxy's own and waits for their end, within `connect_timeout`; rows are dropped. Not
    /// cancel safe: the connection stays dirty if the future is dropped.
    ///
    /// # Errors
    /// [`ServerError`]; after `Sql` the connection may go on.
    pub async fn run(&mut self, sql: &str) -> Result<TransactionStatus, ServerError> {
        self.ask(sql).await.map(|(status, _)| status)
    }

    /// The same, with the first value of the last row as text.
    ///
    /// # Errors
    /// As [`ServerConn::run`].
    pub async fn ask(&mut self, sql: &str) -> Result<(TransactionStatus, Option<String>), ServerError> {
        let (status, mut values) = self.ask_all(&[sql]).await?;
        Ok((status, values.pop()))
    }

    /// The same for several queries, each a message of its own, with the first value of every row.
    ///
    /// # Errors
    /// As [`ServerConn::run`]; the first, when all have been answered.
    pub async fn ask_all(&mut self, all: &[&str]) -> Result<(TransactionStatus, Vec<String>), ServerError> {
        let limit = self.cancel.endpoint.connect_timeout;
        let asked = tokio::time::timeout(limit, self.ask_in_turn(all)).await;
        asked.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }

    async fn ask_in_turn(&mut self, all: &[&str]) -> Result<(TransactionStatus, Vec<String>), ServerError> {
        let (mut values, mut owed) = (Vec::new(), all.len());
        let was_dirty = std::mem::replace(&mut self.dirty, true);
        self.set_piece(1);
        self.unnamed = None; // a simple Query destroys it
        let mut buf = BytesMut::with_capacity(1024);
        all.iter().for_each(|sql| buf.put_query(sql.as_bytes()));
        self.stream.write_all(&buf).await?;
        self.stream.flush().await?;
        buf.clear();
        let mut failed = None;
        loop {
            while let Some(frame) = next_frame(&mut buf, MAX_OWN_REPLY)? {
                match frame.tag {
                    b'E' => {
                        let fields = ErrorFields::parse(&frame.body)?;
                        if fields.is_fatal() {
                            return Err(ServerError::Sql(fields));
                        }
                        failed.get_or_insert(fields);
                    }
                    b'S' => drop(self.note_parameter(&frame.body)?),
                    b'D' => values.push(first_value(&frame.body).unwrap_or_default()),
                    b'N' | b'A' | b'T' | b'C' | b'I' => {}
                    b'Z' if owed > 1 => owed -= 1,
                    b'Z' => {
                        let status = frame.body.first().and_then(|b| TransactionStatus::from_byte(*b));
                        let status = status.ok_or(WireError::Malformed {
                            message: "ReadyForQuery",
                            what: "unknown status",
                        })?;
                        if let Some(&tag) = buf.first() {
                            return Err(WireError::OutOfTurn { tag }.into()); // dirty: closed
                        }
                        self.dirty = was_dirty;
                        return failed.map_or(Ok((status, values)), |fields| Err(ServerError::Sql(fields)));
                    }
                    tag => return Err(WireError::OutOfTurn { tag }.into()),
                }
            }
            if self.stream.read_buf(&mut buf).await? == 0 {
                return Err(ServerError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Takes note of a ParameterStatus body. Says whether it is for a client too.
    ///
    /// # Errors
    /// [`WireError`] if it is malformed, or names more parameters than any server has: close the connection.
    pub fn note_parameter(&mut self, body: &[u8]) -> Result<bool, WireError> {
        let (name, value) = parse_parameter_status(body)?;
        if name == IN_HOT_STANDBY {
            self.standby = Some(value == "on");
            return Ok(false); // the herd as one server is never in recovery
        }
        let known = self.parameters.get(name);
        if known.is_none() && self.parameters.len() >= MAX_PARAMETERS {
            return Err(WireError::Malformed { message: "ParameterStatus", what: "there are too many" });
        }
        if known.is_none_or(|old| old != value) {
            Arc::make_mut(&mut self.parameters).insert(name.to_owned(), value.to_owned());
        }
        Ok(true)
    }

    /// Whether the server's session settings already are those of `wanted`; with `undrawn` also whether it tells of no
    /// sequence.
    #[must_use]
    pub fn is_applied(&self, wanted: &Arc<Settings>, undrawn: bool) -> bool {
        self.has_settings(wanted) && !(self.drawn && undrawn)
    }

    fn has_settings(&self, wanted: &Arc<Settings>) -> bool {
        match &self.applied {
            Some(applied) => Arc::ptr_eq(applied, wanted) || applied == wanted,
            None => wanted.is_empty(),
        }
    }

    /// Makes the server's session settings those of `wanted`, and with `undrawn` has it forget what was drawn from
    /// sequences; does nothing if it already is so.
    ///
    /// # Errors
    /// [`ServerError`]; the settings are then unknown and will be applied anew.
    pub async fn apply(&mut self, wanted: &Arc<Settings>, undrawn: bool) -> Result<(), ServerError> {
        if undrawn && self.drawn {
            self.run("DISCARD SEQUENCES").await?;
            self.drawn = false;
        }
        if !self.has_settings(wanted) {
            self.applied = Some(Settings::unknown());
            self.run(&wanted.script()).await?;
        }
        self.applied = Some(wanted.clone());
        Ok(())
    }

    /// Ends any transaction and forgets all session state, so that the next client finds a fresh server.
    ///
    /// # Errors
    /// [`ServerError`]: close the connection.
    pub async fn scrub(&mut self) -> Result<(), ServerError> {
        self.dirty = true;
        self.run("ROLLBACK").await?;
        self.run("DISCARD ALL").await?;
        self.applied = None;
        self.drawn = false;
        self.prepared.clear();
        self.unnamed = None;
        self.mark_clean(Moment::now());
        Ok(())
    }
}

/// The reported parameter that tells of the one server only.
const IN_HOT_STANDBY: &str = "in_hot_standby";

const MAX_OWN_REPLY: usize = 16 << 20;

/// The first value of a DataRow's body, if it is neither NULL nor other than UTF-8.
fn first_value(body: &[u8]) -> Option<String> {
    let (len, rest) = body.get(2..)?.split_first_chunk::<4>()?;
    let len = usize::try_from(i32::from_be_bytes(*len)).ok()?;
    String::from_utf8(rest.get(..len)?.to_vec()).ok()
}
