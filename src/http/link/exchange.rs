//! One session: a statement sent, its answer read message by message, within a deadline.
//! Must not know which statement, nor who waits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::super::error::HttpError;
use crate::config::User;
use crate::session::Proxy;
use crate::wire::{
    DescribeTarget, ErrorFields, ErrorSubject, FieldDescription, Frame, FrontendWriter as _, SqlState,
    next_frame, parse_row_description, rows_of_tag,
};

/// What `pgherd.clients` shows.
const APPLICATION: &str = "http";
/// The longest message taken from a session: PostgreSQL's own cap.
const LONGEST: usize = (1 << 30) - 1;
/// After a cancel, this long for the server to say how the statement ended.
const GRACE: Duration = Duration::from_secs(5);
/// A buffer larger than this is let go when the session is idle, bytes.
const KEEP_BUFFER: usize = 64 << 10;
/// Room for a read, bytes.
const READ: usize = 16 << 10;

/// A parameter in text format; `None` is NULL.
pub(in crate::http) type Param = Option<String>;

/// A session on the proxy. Dropped, it is closed; what it was doing is cancelled.
pub(in crate::http) struct Link {
    proxy: Arc<Proxy>,
    pub(super) user: Arc<User>,
    pub(super) database: String,
    stream: UnixStream,
    inbuf: BytesMut,
    out: BytesMut,
    /// Number and key, for a cancel.
    key: Option<(u32, Bytes)>,
    /// ReadyForQuery is still to come.
    owed: bool,
    /// As the last ReadyForQuery said: `I`, `T`, `E`.
    status: u8,
    deadline: Instant,
    cancelled: bool,
    /// Framing is lost, or the session is gone.
    broken: bool,
}

impl Link {
    /// Opens a session and waits until it is ready.
    pub(super) async fn open(
        proxy: &Arc<Proxy>,
        user: Arc<User>,
        database: &str,
        deadline: Instant,
    ) -> Result<Self, HttpError> {
        let stream = proxy.open_in_process(user.clone(), database, APPLICATION)?;
        let mut link = Self {
            proxy: proxy.clone(),
            user,
            database: database.to_owned(),
            stream,
            inbuf: BytesMut::new(),
            out: BytesMut::new(),
            key: None,
            owed: true,
            status: b'I',
            deadline,
            cancelled: false,
            broken: false,
        };
        link.ready().await?;
        Ok(link)
    }

    /// Sends a statement with its parameters and reads up to its first row: the columns, none for a statement that
    /// gives no rows. If there is an error, it has been read to its end.
    pub(in crate::http) async fn start(
        &mut self,
        sql: &str,
        params: &[Param],
        deadline: Instant,
    ) -> Result<Vec<FieldDescription>, HttpError> {
        self.out.clear();
        self.out.put_parse("", sql.as_bytes(), &[]);
        self.out.put_bind("", "", &bind_tail(params)?);
        self.out.put_target(b'D', DescribeTarget::Portal(""));
        self.out.put_execute("", 0);
        self.out.put_sync();
        self.send(deadline).await?;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'T' => return parse_row_description(&frame.body).map_err(|e| self.lost(&e.to_string())),
                b'n' => return Ok(Vec::new()),
                b'E' => return Err(self.failed(&frame.body).await),
                _ => {}
            }
        }
    }

    /// The body of the next DataRow; `Err(rows)` in `Ok` at the end, with the number its tag says.
    pub(in crate::http) async fn row(&mut self) -> Result<Result<Bytes, u64>, HttpError> {
        let mut rows = 0;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'D' => return Ok(Ok(frame.body)),
                b'C' => {
                    let tag = frame.body.strip_suffix(b"\0").unwrap_or(&frame.body);
                    rows = std::str::from_utf8(tag).ok().and_then(rows_of_tag).unwrap_or(0);
                }
                b'E' => return Err(self.failed(&frame.body).await),
                b'Z' => return Ok(Err(rows)),
                _ => {}
            }
        }
    }

    /// Runs a statement of one word, e.g. `BEGIN`.
    pub(in crate::http) async fn command(&mut self, sql: &str, deadline: Instant) -> Result<(), HttpError> {
        self.out.clear();
        self.out.put_query(sql.as_bytes());
        self.send(deadline).await?;
        loop {
            let frame = self.frame().await?;
            match frame.tag {
                b'E' => return Err(self.failed(&frame.body).await),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Moves the end of the wait for the next message.
    pub(in crate::http) fn until(&mut self, deadline: Instant) {
        if !self.cancelled {
            self.deadline = deadline;
        }
    }

    /// Whether it can be lent again as it is.
    pub(super) fn is_clean(&self) -> bool {
        !self.broken && !self.owed && self.status == b'I' && self.inbuf.is_empty()
    }

    /// Whether it is still open though nobody used it.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut byte = [0];
        // Anything said unasked is a farewell.
        matches!(self.stream.try_read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Ends what is under way, so that it can be lent again: cancels, reads to the end, rolls back.
    pub(super) async fn clean(&mut self) -> Result<(), HttpError> {
        if self.owed {
            self.cancel().await;
            self.ready().await?;
        }
        if self.status != b'I' {
            self.command("ROLLBACK", Instant::now() + GRACE).await?;
        }
        Ok(())
    }

    /// Lets go of what only a large answer needed.
    pub(super) fn shrink(&mut self) {
        if self.inbuf.capacity() > KEEP_BUFFER {
            self.inbuf = BytesMut::new();
        }
        if self.out.capacity() > KEEP_BUFFER {
            self.out = BytesMut::new();
        }
    }

    async fn send(&mut self, deadline: Instant) -> Result<(), HttpError> {
        (self.deadline, self.cancelled, self.owed) = (deadline, false, true);
        let Self { stream, out, .. } = self;
        match timeout_at(deadline, stream.write_all(out)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.broken = true;
                let message = "the session took no statement in time";
                Err(HttpError::new(SqlState::QUERY_CANCELED, message))
            }
        }
    }

    /// Reads up to ReadyForQuery; an error on the way is the result.
    async fn ready(&mut self) -> Result<(), HttpError> {
        let mut error = None;
        loop {
            let frame = match self.frame().await {
                Ok(frame) => frame,
                // A session that is refused says why and ends.
                Err(gone) => return Err(error.unwrap_or(gone)),
            };
            match frame.tag {
                b'Z' => return Ok(()),
                b'E' => error = Some(self.told(&frame.body)),
                b'K' => {
                    let id = frame.body.first_chunk().map(|id| u32::from_be_bytes(*id));
                    self.key = id.map(|id| (id, frame.body.slice(4..)));
                }
                _ => {}
            }
        }
    }

    /// The error, once the session is ready for the next statement.
    async fn failed(&mut self, body: &[u8]) -> HttpError {
        let error = self.told(body);
        // If the session ends instead, the error has said why.
        let _ = self.ready().await;
        error
    }

    fn told(&mut self, body: &[u8]) -> HttpError {
        match ErrorFields::parse(body) {
            Ok(fields) => HttpError::from(fields).subject(ErrorSubject::parse(body).unwrap_or_default()),
            Err(e) => self.lost(&e.to_string()),
        }
    }

    /// Takes the next message; past the deadline the statement is cancelled, once.
    async fn frame(&mut self) -> Result<Frame, HttpError> {
        loop {
            match next_frame(&mut self.inbuf, LONGEST) {
                Ok(Some(frame)) => {
                    if frame.tag == b'Z' {
                        self.owed = false;
                        self.status = frame.body.first().copied().unwrap_or(b'E');
                    }
                    return Ok(frame);
                }
                Ok(None) => {}
                Err(e) => return Err(self.lost(&e.to_string())),
            }
            self.inbuf.reserve(READ);
            match timeout_at(self.deadline, self.stream.read_buf(&mut self.inbuf)).await {
                Ok(Ok(0) | Err(_)) => return Err(self.lost("the session was closed")),
                Ok(Ok(_)) => {}
                Err(_) if !self.cancelled => self.cancel().await,
                Err(_) => return Err(self.lost("the statement was cancelled and did not end")),
            }
        }
    }

    async fn cancel(&mut self) {
        // A login has nothing to be cancelled, and is not waited for.
        let grace = if self.key.is_some() { GRACE } else { Duration::ZERO };
        (self.cancelled, self.deadline) = (true, Instant::now() + grace);
        if let Some((id, key)) = &self.key {
            let delivered = self.proxy.cancel(*id, key);
            // The deadline of the next read sees to it if the server does not answer.
            let _ = timeout_at(self.deadline, delivered).await;
        }
    }

    fn lost(&mut self, why: &str) -> HttpError {
        self.broken = true;
        if self.key.is_none() {
            // Its login has not come to its end, so no statement was sent.
            let message = "no session was to be had in time, and nothing was done";
            return HttpError::new(SqlState::CANNOT_CONNECT_NOW, message)
                .hint("The database may be paused: SHOW DATABASES tells. The limit is http.timeout_ms.");
        }
        let message = format!("the outcome of the statement is not known: {why}");
        HttpError::new(SqlState::TRANSACTION_RESOLUTION_UNKNOWN, message)
    }
}

/// The tail of a Bind: all values in text format, all results too.
fn bind_tail(params: &[Param]) -> Result<Vec<u8>, HttpError> {
    let count = u16::try_from(params.len()).map_err(|_| {
        HttpError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("{} values are too many", params.len()))
            .hint("A statement takes 65535 values.")
    })?;
    let mut tail = Vec::with_capacity(8 + params.iter().flatten().map(|p| p.len() + 4).sum::<usize>());
    tail.put_u16(0);
    tail.put_u16(count);
    for param in params {
        match param {
            None => tail.put_i32(-1),
            Some(text) => {
                let len = i32::try_from(text.len()).map_err(|_| {
                    HttpError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "a value is longer than 2 GB")
                })?;
                tail.put_i32(len);
                tail.put_slice(text.as_bytes());
            }
        }
    }
    tail.put_u16(0);
    Ok(tail)
}
