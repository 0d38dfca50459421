//! One statement on many shards at once, rows passed on as they come (tier 1: concatenate).
//! Must not know how the statement was routed. Source: DESIGN, section 5.
//!
//! Each shard's rows are taken only while the client keeps up, so a slow client slows the shards. The first error
//! ends it: the others are cancelled and read to their end, so that their connections stay usable.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::cluster::Leased;
use crate::pool::Stream;
use crate::wire::{
    BackendWriter, Blame, ClientFacing, ErrorFields, ErrorReport, FieldDescription, SqlState,
    TransactionStatus, parse_command_tag, parse_row_description, peek_head, rows_of_tag,
};

/// No shard is read while this much waits to be written to the client, bytes.
const HIGH_WATER: usize = 64 << 10;
const READ_SIZE: usize = 32 << 10;
const MAX_SERVER_BODY: usize = (1 << 30) + 1024;

/// What is asked of every shard.
#[derive(Debug)]
pub struct Request {
    /// The messages for each shard, ending with Query or Sync.
    pub messages: BytesMut,
    /// Whether the client wants the RowDescription.
    pub describe: bool,
    /// Answered before the first row, e.g. ParseComplete and BindComplete.
    pub preface: BytesMut,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All rows were passed on; how many.
    Complete(u64),
    /// An error was passed on (its own or a shard's).
    Failed(ErrorFields),
    /// A server was lost before the client was told anything: the same can be tried on others.
    Lost(ErrorReport),
}

/// Why the proxy itself ended it.
#[derive(Debug, thiserror::Error)]
pub enum ScatterError {
    /// A shard's server went away.
    #[error("connection to server {address} of shard \"{shard}\" was lost while rows were read")]
    Lost {
        /// The shard.
        shard: String,
        /// `host:port`.
        address: String,
    },
    /// Shards do not agree on the columns.
    #[error("shard \"{shard}\" answers with other columns than the first shard")]
    Shape {
        /// The shard.
        shard: String,
    },
    /// A server broke the protocol.
    #[error("server {address} broke the protocol")]
    Protocol {
        /// `host:port`.
        address: String,
    },
}

impl ClientFacing for ScatterError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Lost { .. } => SqlState::CONNECTION_FAILURE,
            Self::Shape { .. } => SqlState::DATATYPE_MISMATCH,
            Self::Protocol { .. } => SqlState::PROTOCOL_VIOLATION,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lost { .. } => Some("Nothing was changed; the statement can be sent again.".into()),
            Self::Shape { .. } => Some("SELECT * FROM pgherd.schema_drift shows where shards differ.".into()),
            Self::Protocol { .. } => None,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Server
    }
}

struct Part {
    leased: Leased,
    up: BytesMut,
    down: BytesMut,
    done: bool,
}

/// The statement at work on all its shards.
pub struct Scatter {
    parts: Vec<Part>,
    out: BytesMut,
    /// Whether the client may have seen some of the answer. A short one is held until it is whole: until then a lost
    /// server costs nothing but another try.
    told: bool,
    columns: Option<Vec<FieldDescription>>,
    describe: bool,
    rows: u64,
    failed: Option<ErrorFields>,
    /// Something of the proxy's own went wrong: told once all shards are quiet.
    broken: Option<ScatterError>,
    cancelled: bool,
    /// The tag of a complete statement, without its count.
    verb: String,
    extra: BytesMut,
}

impl std::fmt::Debug for Scatter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Scatter({} shards, {} rows)", self.parts.len(), self.rows)
    }
}

impl Scatter {
    /// Ready to run. The leases are given back clean when it ends well, closed otherwise.
    #[must_use]
    pub fn new(leases: Vec<Leased>, request: &Request) -> Self {
        let part = |mut leased: Leased| {
            leased.mark_dirty();
            Part { leased, up: request.messages.clone(), down: BytesMut::new(), done: false }
        };
        Self {
            parts: leases.into_iter().map(part).collect(),
            out: request.preface.clone(),
            told: false,
            columns: None,
            describe: request.describe,
            rows: 0,
            failed: None,
            broken: None,
            cancelled: false,
            verb: String::new(),
            extra: BytesMut::new(),
        }
    }

    /// Runs to the end. `Err` means that the client is gone; all shards are then cancelled and their connections
    /// closed. ReadyForQuery is left to the caller.
    ///
    /// Not cancel safe: a dropped future closes the connections.
    ///
    /// # Errors
    /// The client's I/O error.
    pub async fn run(mut self, client: &mut Stream) -> io::Result<Outcome> {
        let read = std::future::poll_fn(|cx| self.poll(cx, client)).await;
        if let Err(error) = read {
            self.cancel_all();
            return Err(error);
        }
        if let Some(broken) = self.broken.take() {
            let report = broken.report();
            if matches!(broken, ScatterError::Lost { .. }) && !self.told {
                return Ok(Outcome::Lost(report));
            }
            let fields = ErrorFields {
                severity: "ERROR".into(),
                code: report.code.as_str().into(),
                message: report.message.clone(),
                detail: None,
                hint: report.hint.clone(),
            };
            self.out.put_report(&report);
            self.failed = Some(fields);
        } else if self.failed.is_none() {
            let tag = format!("{} {}", self.verb, self.rows);
            self.out.put_command_complete(&tag);
        } else {
            self.out.unsplit(std::mem::take(&mut self.extra));
        }
        std::future::poll_fn(|cx| self.poll_flush(cx, client)).await?;
        Ok(match self.failed.take() {
            Some(fields) => Outcome::Failed(fields),
            None => Outcome::Complete(self.rows),
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match Pin::new(&mut *client).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.out.advance(n),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Pin::new(client).poll_flush(cx)
    }

    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            self.told |= self.out.len() >= HIGH_WATER;
            if self.told {
                if let Poll::Ready(Err(error)) = self.poll_flush(cx, client) {
                    return Poll::Ready(Err(error));
                }
                if self.out.len() >= HIGH_WATER {
                    return Poll::Pending;
                }
            }
            let mut progress = false;
            for i in 0..self.parts.len() {
                progress |= self.poll_part(cx, i);
            }
            if self.parts.iter().all(|p| p.done) {
                return Poll::Ready(Ok(()));
            }
            if !progress {
                return Poll::Pending;
            }
        }
    }

    /// Whether anything moved.
    fn poll_part(&mut self, cx: &mut Context<'_>, i: usize) -> bool {
        let Some(part) = self.parts.get_mut(i).filter(|p| !p.done) else { return false };
        let mut progress = false;
        while !part.up.is_empty() {
            match Pin::new(&mut part.leased.stream).poll_write(cx, &part.up) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    part.up.advance(n);
                    progress = true;
                }
                Poll::Ready(_) => {
                    self.lost(i, None);
                    return true;
                }
                Poll::Pending => break,
            }
        }
        if part.leased.stream.is_tls()
            && let Poll::Ready(Err(_)) = Pin::new(&mut part.leased.stream).poll_flush(cx)
        {
            self.lost(i, None);
            return true;
        }
        part.down.reserve(READ_SIZE);
        match tokio_util::io::poll_read_buf(Pin::new(&mut part.leased.stream), cx, &mut part.down) {
            Poll::Ready(Ok(n)) if n > 0 => {
                self.scan(i);
                true
            }
            Poll::Ready(_) => {
                self.lost(i, None);
                true
            }
            Poll::Pending => progress,
        }
    }

    fn scan(&mut self, i: usize) {
        while let Some(part) = self.parts.get_mut(i) {
            let head = match peek_head(&part.down, MAX_SERVER_BODY) {
                Ok(Some(head)) if part.down.len() >= head.total() => head,
                Ok(_) => return,
                Err(_) => {
                    let address = part.leased.server().config.address();
                    part.done = true;
                    self.fail(ScatterError::Protocol { address });
                    return;
                }
            };
            let message = part.down.split_to(head.total());
            self.message(i, head.tag, &message);
        }
    }

    fn message(&mut self, i: usize, tag: u8, message: &[u8]) {
        let body = message.get(5..).unwrap_or_default();
        let healthy = self.failed.is_none() && self.broken.is_none();
        match tag {
            b'D' if healthy => {
                self.rows += 1;
                self.out.extend_from_slice(message);
            }
            b'T' if healthy => self.description(i, body, message),
            b'C' if healthy => {
                let text = parse_command_tag(body).unwrap_or_default();
                // The count is our own; what is left is the verb.
                self.verb = match rows_of_tag(text) {
                    Some(_) => text.rsplit_once(' ').map_or(text, |(verb, _)| verb).to_owned(),
                    None => text.to_owned(),
                };
            }
            b'E' => {
                let fields = ErrorFields::parse(body).unwrap_or_default();
                if fields.is_fatal() {
                    self.lost(i, Some(&fields));
                } else if healthy {
                    self.failed = Some(fields);
                    self.extra.extend_from_slice(message);
                    self.cancel_all();
                }
            }
            b'N' if healthy => self.out.extend_from_slice(message),
            b'S' => {
                if let Some(part) = self.parts.get_mut(i) {
                    part.leased.note_parameter(body);
                }
            }
            b'Z' => {
                if let Some(part) = self.parts.get_mut(i) {
                    part.done = true;
                    if body.first() == Some(&TransactionStatus::Idle.byte())
                        && part.up.is_empty()
                        && !self.cancelled
                    {
                        // A cancel under way could still hit whoever is lent it next.
                        part.leased.mark_clean(Instant::now());
                    }
                }
            }
            _ => {}
        }
    }

    /// All shards must describe the same columns; which table they come from has another number on each.
    fn description(&mut self, i: usize, body: &[u8], message: &[u8]) {
        let Ok(mut columns) = parse_row_description(body) else { return };
        columns.iter_mut().for_each(|c| c.table_oid = 0);
        match &self.columns {
            None => {
                self.columns = Some(columns);
                if self.describe {
                    self.out.extend_from_slice(message);
                }
            }
            Some(first) if *first == columns => {}
            Some(_) => {
                let shard =
                    self.parts.get(i).map(|p| p.leased.server().shard_name.clone()).unwrap_or_default();
                self.fail(ScatterError::Shape { shard });
            }
        }
    }

    fn lost(&mut self, i: usize, said: Option<&ErrorFields>) {
        let Some(part) = self.parts.get_mut(i) else { return };
        part.done = true;
        let server = part.leased.server().clone();
        server.report_loss(said, said.map_or("the connection was lost", |f| &f.message));
        if self.failed.is_none() {
            self.fail(ScatterError::Lost {
                shard: server.shard_name.clone(),
                address: server.config.address(),
            });
        }
    }

    fn fail(&mut self, error: ScatterError) {
        self.broken.get_or_insert(error);
        self.cancel_all();
    }

    /// Asks every shard that is still at work to stop; they answer with an error of their own, which is not told.
    fn cancel_all(&mut self) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        for part in self.parts.iter().filter(|p| !p.done) {
            let target = part.leased.cancel.clone();
            tokio::spawn(async move { target.cancel().await });
        }
    }
}
