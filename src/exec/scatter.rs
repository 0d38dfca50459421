//! One statement on many shards at once, rows passed on as they come (tier 1: concatenate).
//! Must not know how the statement was routed. Source: DESIGN, section 5.
//!
//! Each shard's rows are taken only while the client keeps up, so a slow client slows the shards. The first error
//! ends it: the others are cancelled and read to their end, so that their connections stay usable.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::time::{Instant, Sleep};

use super::order::{error_of, longest};
use super::relay::write_all_possible;
use crate::cluster::Leased;
use crate::pool::Stream;
use crate::stats::Moment;
use crate::wire::{
    BackendWriter, Blame, ClientFacing, ErrorFields, ErrorReport, FieldDescription, SqlState,
    TransactionStatus, parse_command_tag, parse_row_description, peek_head, rows_of_tag,
};

/// No shard is read while this much waits to be written to the client, bytes.
const HIGH_WATER: usize = 64 << 10;
const READ_SIZE: usize = 32 << 10;
/// How long a shard may go on after it was told to stop; then its connection is closed.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

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
    #[error("server {address} broke the protocol: {what}")]
    Protocol {
        /// `host:port`.
        address: String,
        /// How.
        what: String,
    },
    /// A server went on after it was told to stop, for the time was over.
    #[error("server {address} did not end a cancelled statement within {} s", CANCEL_GRACE.as_secs())]
    Deaf {
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
            Self::Deaf { .. } => SqlState::QUERY_CANCELED,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Lost { .. } => Some("Nothing was changed; the statement can be sent again.".into()),
            Self::Shape { .. } => Some("SELECT * FROM pgherd.schema_drift shows where shards differ.".into()),
            Self::Protocol { .. } | Self::Deaf { .. } => None,
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
    /// How many columns it has described.
    columns: Option<u16>,
    /// It has completed the statement, or failed.
    ended: bool,
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
    /// Until when all is to be over: the statement itself, then its cancellation.
    limit: Option<Pin<Box<Sleep>>>,
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
            let (up, down) = (request.messages.clone(), BytesMut::new());
            Part { leased, up, down, columns: None, ended: false, done: false }
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
            limit: None,
            verb: String::new(),
            extra: BytesMut::new(),
        }
    }

    /// Runs to the end, within `limit`: after that the shards are told to stop, and answer with their own 57014. `Err`
    /// means that the client is gone; all shards are then cancelled and their connections closed. ReadyForQuery is left
    /// to the caller.
    ///
    /// Not cancel safe: a dropped future closes the connections.
    ///
    /// # Errors
    /// The client's I/O error.
    pub async fn run(mut self, client: &mut Stream, limit: Option<Instant>) -> io::Result<Outcome> {
        self.limit = limit.map(|at| Box::pin(tokio::time::sleep_until(at)));
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
        let written = write_all_possible(cx, client, &self.out)?;
        self.out.advance(written);
        if self.out.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        loop {
            while self.limit.as_mut().is_some_and(|limit| limit.as_mut().poll(cx).is_ready()) {
                self.too_late();
            }
            if self.parts.iter().all(|p| p.done) {
                return Poll::Ready(Ok(()));
            }
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
            if !progress {
                return Poll::Pending;
            }
        }
    }

    /// Whether anything moved.
    fn poll_part(&mut self, cx: &mut Context<'_>, i: usize) -> bool {
        let Some(part) = self.parts.get_mut(i).filter(|p| !p.done) else { return false };
        let mut progress = false;
        match write_all_possible(cx, &mut part.leased.stream, &part.up) {
            Ok(written) => {
                part.up.advance(written);
                progress |= written > 0;
            }
            Err(_) => {
                self.lost(i, None);
                return true;
            }
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
        while let Some(part) = self.parts.get_mut(i).filter(|p| !p.done) {
            let Some(&tag) = part.down.first() else { return };
            match peek_head(&part.down, longest(tag)) {
                Ok(Some(head)) if part.down.len() >= head.total() => {
                    let message = part.down.split_to(head.total());
                    if let Err(what) = self.message(i, tag, &message) {
                        self.broke(i, what.to_owned());
                    }
                }
                Ok(_) => return,
                Err(error) => self.broke(i, error.to_string()),
            }
        }
    }

    /// One message of a shard; an error says how it breaks the protocol.
    fn message(&mut self, i: usize, tag: u8, message: &[u8]) -> Result<(), &'static str> {
        let body = message.get(5..).unwrap_or_default();
        let healthy = self.failed.is_none() && self.broken.is_none();
        let Some(part) = self.parts.get_mut(i) else { return Ok(()) };
        match tag {
            b'D' if part.ended => return Err("a row after the end"),
            b'D' => {
                let count = body.first_chunk().map(|n| u16::from_be_bytes(*n));
                if part.columns.is_none() || part.columns != count {
                    return Err("a row has other columns than were described");
                }
                if healthy {
                    self.rows += 1;
                    self.out.extend_from_slice(message);
                }
            }
            b'T' if part.columns.is_some() || part.ended => return Err("a second description"),
            b'T' => self.description(i, body, message)?,
            b'C' => {
                let text = parse_command_tag(body).map_err(|_| "CommandComplete is no text")?;
                if std::mem::replace(&mut part.ended, true) {
                    return Err("a statement ended twice");
                }
                // The count is our own; what is left is the verb.
                self.verb = match rows_of_tag(text) {
                    Some(_) => text.rsplit_once(' ').map_or(text, |(verb, _)| verb).to_owned(),
                    None => text.to_owned(),
                };
            }
            b'E' => {
                let fields = error_of(body).ok_or("a malformed ErrorResponse")?;
                part.ended = true;
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
                part.leased.note_parameter(body).map_err(|_| "a malformed ParameterStatus")?;
            }
            b'Z' => {
                let status = match body {
                    [status] => TransactionStatus::from_byte(*status).ok_or("an unknown status")?,
                    _ => return Err("a malformed ReadyForQuery"),
                };
                if !part.ended {
                    return Err("ReadyForQuery before the end of the statement");
                }
                part.done = true;
                let idle = status == TransactionStatus::Idle;
                if idle && part.up.is_empty() && part.down.is_empty() && !self.cancelled {
                    // A cancel under way could still hit whoever is lent it next.
                    part.leased.mark_clean(Moment::now());
                }
            }
            b'1' | b'2' | b'3' | b'n' | b'N' | b'A' => {}
            _ => return Err("a message of an unexpected type"),
        }
        Ok(())
    }

    /// All shards must describe the same columns; which table they come from has another number on each.
    fn description(&mut self, i: usize, body: &[u8], message: &[u8]) -> Result<(), &'static str> {
        let mut columns = parse_row_description(body).map_err(|_| "a malformed RowDescription")?;
        columns.iter_mut().for_each(|c| c.table_oid = 0);
        let Some(part) = self.parts.get_mut(i) else { return Ok(()) };
        part.columns = Some(columns.len() as u16); // its count is a u16
        if self.failed.is_some() || self.broken.is_some() {
            return Ok(());
        }
        match &self.columns {
            None => {
                self.columns = Some(columns);
                if self.describe {
                    self.out.extend_from_slice(message);
                }
            }
            Some(first) if *first == columns => {}
            Some(_) => {
                let shard = part.leased.server().shard_name.clone();
                self.fail(ScatterError::Shape { shard });
            }
        }
        Ok(())
    }

    /// A server broke the protocol: its connection is closed.
    fn broke(&mut self, i: usize, what: String) {
        let Some(part) = self.parts.get_mut(i) else { return };
        part.done = true;
        let server = part.leased.server().clone();
        server.report_broken(&what);
        if self.failed.is_none() {
            self.fail(ScatterError::Protocol { address: server.config.address(), what });
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
        self.limit = Some(Box::pin(tokio::time::sleep(CANCEL_GRACE)));
        for part in self.parts.iter().filter(|p| !p.done) {
            let target = part.leased.cancel.clone();
            tokio::spawn(async move { target.cancel().await });
        }
    }

    /// The time is over: first the shards are told to stop, then nobody waits for them any more.
    fn too_late(&mut self) {
        self.limit = None;
        if !self.cancelled {
            return self.cancel_all();
        }
        for part in self.parts.iter_mut().filter(|p| !p.done) {
            part.done = true; // and dirty: closed
            if self.failed.is_none() {
                let address = part.leased.server().config.address();
                self.broken.get_or_insert(ScatterError::Deaf { address });
            }
        }
    }
}
