//! The relay: one client, one server, both directions driven at once, bytes copied and only headers read.
//! Must not know SQL; what to expect is told by whoever filled the upstream buffer.
//!
//! `up` holds bytes for the server. `down` holds bytes from the server: those before `ready` may go to the client,
//! those after it have not been looked at. One read and one write per batch: the buffer that was read is the one
//! that is written.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answers::skipped;
use super::expect::{Done, Expect};
use super::finish::Finishes;
use super::gather::Gather;
use crate::pool::{ServerConn, Stream};
use crate::wire::{ErrorFields, TransactionStatus};

/// A side is not read while this much waits to be written to the other, bytes.
const HIGH_WATER: usize = 64 << 10;
/// First size of a read, bytes; grows while reads fill it.
const READ_MIN: usize = 8 << 10;
/// Largest size of a read, bytes.
const READ_MAX: usize = 256 << 10;
/// The same of a client that sends much, as in COPY FROM STDIN.
const CLIENT_READ_MAX: usize = 128 << 10;

/// Why [`Exchange::poll`] returned.
#[derive(Debug)]
pub enum Event {
    /// New bytes of the client are in its buffer.
    Client,
    /// The client closed its side or broke.
    ClientGone,
    /// Answers came in; see [`Exchange::done`].
    Progress,
    /// Nothing is owed and nothing waits to be written.
    Drained,
    /// The server is gone. Nothing more will come.
    ServerLost(Lost),
}

/// How a server was lost.
#[derive(Debug)]
pub struct Lost {
    /// What it said before, if it said anything (57P01 and its like).
    pub said: Option<ErrorFields>,
    /// The I/O error, if there was one.
    pub io: Option<io::Error>,
}

/// Until when [`Exchange::poll`] goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Until all answers have come.
    Answers,
    /// Until the client says something.
    Idle,
}

/// The state of one client's conversation with one server.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one conversation, any mix is possible"
)]
pub struct Exchange {
    /// Bytes for the server.
    pub up: BytesMut,
    pub(super) down: BytesMut,
    /// How much of `down` may go to the client.
    pub(super) ready: usize,
    /// Bytes of a message that pass through unseen.
    pub(super) pass: usize,
    pub(super) expect: VecDeque<Expect>,
    /// Of the statement list of a simple Query: how many have completed.
    pub(super) query_done: u32,
    /// What happened since it was last taken.
    pub done: SmallVec<[Done; 2]>,
    /// The statements that have ended, for whoever measures.
    pub finishes: Finishes,
    pub(super) status: Option<TransactionStatus>,
    /// The body of ParameterDescription, until RowDescription or NoData follows it.
    pub(super) parameters: Option<Box<Bytes>>,
    /// Command tags that stand for what a server says, by the mark of the statement.
    pub retag: Vec<(u32, &'static str)>,
    /// An error came and the rest up to Sync is skipped by the server.
    pub(super) skipping: bool,
    /// The server wants CopyData.
    pub(super) copy_in: bool,
    /// Whether anything of this exchange has reached the client's buffer.
    pub(super) answered: bool,
    read_size: usize,
    gather: Gather,
    /// The same of the client.
    client_read: u32,
    /// Extended-protocol messages have gone out that no Sync has closed.
    pub(super) open_batch: bool,
    received: u64,
    sent: u64,
    pub(super) swallowed_error: Option<ErrorFields>,
    /// The last ReadyForQuery outside a transaction is kept back, see [`Exchange::hold_ready`].
    pub(super) hold_ready: bool,
    pub(super) held: bool,
    /// See [`Expect::Plain`].
    pub(super) plain: bool,
    /// Notifications of a server go to the client, who knows itself by this process id.
    pub(super) notify_as: Option<u32>,
}

impl Exchange {
    /// With empty buffers.
    #[must_use]
    pub fn new() -> Self {
        Self { read_size: READ_MIN, client_read: READ_MIN as u32, ..Self::default() }
    }

    /// Whether nothing is under way: another client may use it.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.is_drained()
            && !self.skipping
            && !self.held
            && self.pass == 0
            && self.done.is_empty()
            && self.swallowed_error.is_none()
    }

    /// As if it were new, but for the room of its buffers, unless that is over `keep` bytes.
    pub fn lay_down(&mut self, keep: usize) {
        // Every field is named: another client will take this up, and nothing may be forgotten here.
        let Self {
            up,
            down,
            ready,
            pass,
            expect,
            query_done,
            done,
            status,
            skipping,
            copy_in,
            answered,
            read_size,
            gather,
            client_read,
            open_batch,
            received,
            sent,
            swallowed_error,
            hold_ready,
            held,
            plain,
            notify_as,
            retag,
            parameters,
            finishes,
        } = self;
        *parameters = None;
        *gather = Gather::default();
        for buffer in [up, down] {
            buffer.clear();
            if buffer.capacity() > keep {
                *buffer = BytesMut::new();
            }
        }
        for fact in [skipping, copy_in, answered, open_batch, hold_ready, held, plain] {
            *fact = false;
        }
        (*ready, *pass, *query_done, *read_size) = (0, 0, 0, READ_MIN);
        *client_read = READ_MIN as u32;
        (*received, *sent) = (0, 0);
        (*status, *notify_as) = (None, None);
        *swallowed_error = None;
        expect.clear();
        done.clear();
        retag.clear();
        *finishes = Finishes::default();
    }

    /// Between two turns: what a large answer or statement has made of it is over.
    pub fn ease(&mut self, keep: usize) {
        (self.read_size, self.client_read) = (READ_MIN, READ_MIN as u32);
        for buffer in [&mut self.up, &mut self.down] {
            if buffer.capacity() > keep && buffer.is_empty() {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Ready for another server; buffers keep their room.
    pub fn start(&mut self) {
        debug_assert!(self.expect.is_empty() && self.up.is_empty());
        self.status = None;
        self.skipping = false;
        self.copy_in = false;
        self.open_batch = false;
        self.answered = false;
        self.plain = false;
        self.pass = 0;
    }

    /// Bytes put in `up` will be answered so.
    pub fn expect(&mut self, answer: Expect) {
        match answer {
            Expect::Prefix => {}
            // A Query ends a batch without Sync too: its ReadyForQuery is that of both.
            Expect::Query { .. } | Expect::Sync { .. } => self.open_batch = false,
            Expect::Local(_) | Expect::Change(_) | Expect::Plain => {}
            Expect::Parse { .. }
            | Expect::Bind
            | Expect::BindOf(_)
            | Expect::ParseOf(_)
            | Expect::Close { .. }
            | Expect::DescribeStatement { .. }
            | Expect::DescribePortal
            | Expect::Execute { .. }
            | Expect::Refuse(_) => self.open_batch = true,
        }
        self.expect.push_back(answer);
    }

    /// Puts bytes of the proxy's own where the client will read them, in turn with what the server still owes.
    pub fn say(&mut self, bytes: Bytes) {
        if self.expect.is_empty() {
            self.insert(&bytes);
        } else {
            self.expect.push_back(Expect::Local(bytes));
        }
    }

    /// The client's names of statements change here, in turn with what the server still owes.
    pub fn change(&mut self, number: u32) {
        if !self.expect.is_empty() {
            self.expect.push_back(Expect::Change(number));
        }
    }

    /// The buffer that goes to the client, for answers made without any server. Only when nothing is owed.
    pub fn local(&mut self, write: impl FnOnce(&mut BytesMut)) {
        debug_assert!(self.ready == self.down.len());
        write(&mut self.down);
        self.ready = self.down.len();
        self.answered = true;
    }

    /// The transaction status of the last ReadyForQuery, before any patching.
    #[must_use]
    pub fn status(&self) -> Option<TransactionStatus> {
        self.status
    }

    /// Whether the server waits for CopyData.
    #[must_use]
    pub fn is_copy_in(&self) -> bool {
        self.copy_in
    }

    /// The client has sent CopyDone or CopyFail.
    pub fn end_copy_in(&mut self) {
        self.copy_in = false;
    }

    /// Whether messages went out that no Sync has closed.
    #[must_use]
    pub fn is_batch_open(&self) -> bool {
        self.open_batch
    }

    /// Whether the batch being filled has already failed: its further messages up to Sync are answered by nobody.
    /// (While an answer is owed, the batch that failed is an earlier one, closed by its Sync.)
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipping && self.expect.is_empty()
    }

    /// Whether answers are still to come.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        !self.expect.is_empty()
    }

    /// Whether the server has to say something next: an answer, or the rest of a message.
    #[must_use]
    pub fn is_waiting_for_server(&self) -> bool {
        !self.expect.is_empty() || self.pass > 0 || self.down.len() > self.ready
    }

    /// Whether a statement or batch was sent that is not yet over.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.expect.is_empty() || self.open_batch || self.copy_in
    }

    /// Whatever a server said after all that it owed is dropped.
    pub fn drop_rest(&mut self) {
        self.down.truncate(self.ready);
        self.up.clear();
    }

    /// Whether the client may have seen something of the answer.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.answered
    }

    /// Takes the error of a swallowed prefix, if there was one.
    pub fn take_prefix_error(&mut self) -> Option<ErrorFields> {
        self.swallowed_error.take()
    }

    /// Bytes received from and sent to servers and clients since the last call.
    pub fn take_traffic(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.received), std::mem::take(&mut self.sent))
    }

    /// Forgets what a lost server owed. Returns whether the client is inside a message or batch that must be ended
    /// by an error: `None` if nothing was owed, else whether a ReadyForQuery was owed to it.
    pub fn abandon(&mut self) -> Option<bool> {
        let owed = self.is_under_way();
        let ready =
            self.expect.iter().any(|e| matches!(e, Expect::Query { .. } | Expect::Sync { forward: true }));
        let first = self.done.len();
        self.done.extend(self.expect.drain(..).filter_map(skipped));
        if let Some(undone) = self.done.get_mut(first..) {
            undone.reverse();
        }
        self.down.truncate(self.ready);
        self.up.clear();
        self.pass = 0;
        self.copy_in = false;
        self.open_batch = false;
        self.skipping = false;
        owed.then_some(ready)
    }

    /// Whether a message is half written to the client: then nothing can be put in, only the connection closed.
    #[must_use]
    pub fn is_torn(&self) -> bool {
        self.pass > 0
    }

    /// Keeps back the ReadyForQuery of a transaction's end when nothing else is owed: whoever asks for it says it, by
    /// [`Exchange::take_held`], when all that must come before it has been said.
    pub fn hold_ready(&mut self, hold: bool) {
        self.hold_ready = hold;
    }

    /// Whether a ReadyForQuery is kept back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.held
    }

    /// Whether a ReadyForQuery was kept back.
    pub fn take_held(&mut self) -> bool {
        std::mem::take(&mut self.held)
    }

    /// Whether a server's notifications are the client's, and under which process id it knows itself; else they are
    /// dropped.
    pub fn pass_notifications(&mut self, client: Option<u32>) {
        self.notify_as = client;
    }

    /// Whether something waits to be written to the client.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.ready > 0
    }

    /// Whether nothing waits to be written to the client, and no message is half written.
    #[must_use]
    pub fn is_between_messages(&self) -> bool {
        self.pass == 0 && self.ready == 0
    }

    /// Whether all is written and nothing owed.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.expect.is_empty()
            && self.up.is_empty()
            && self.down.is_empty()
            && !self.copy_in
            && !self.open_batch
    }

    /// Drives both directions until something happened. `want_client`: whether the client may be read now.
    ///
    /// With `Watch::Idle` it goes on when nothing is owed, to pass on what a server says unasked. Cancel safe: all
    /// state is in `self`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        inbuf: &mut BytesMut,
        server: &mut ServerConn,
        (want_client, watch): (bool, Watch),
    ) -> Poll<Event> {
        if let Err(error) = self.write_up(cx, &mut server.stream) {
            return Poll::Ready(Event::ServerLost(Lost { said: None, io: Some(error) }));
        }
        loop {
            if let Err(error) = self.write_down(cx, client) {
                tracing::debug!(%error, "client connection broke");
                return Poll::Ready(Event::ClientGone);
            }
            if watch == Watch::Answers && self.is_drained() {
                self.gather.end(server);
                return Poll::Ready(Event::Drained);
            }
            if self.ready >= HIGH_WATER {
                break; // a slow client slows its own server
            }
            match self.read_server(cx, server) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Event::ServerLost(Lost { said: None, io: None })),
                Poll::Ready(Ok(_)) => {
                    if let Some(lost) = self.scan(server) {
                        return Poll::Ready(Event::ServerLost(lost));
                    }
                    if !self.done.is_empty() || (self.expect.is_empty() && self.open_batch) || self.copy_in {
                        return match self.write_down(cx, client) {
                            Ok(()) => Poll::Ready(Event::Progress),
                            Err(error) => {
                                tracing::debug!(%error, "client connection broke");
                                Poll::Ready(Event::ClientGone)
                            }
                        };
                    }
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Event::ServerLost(Lost { said: None, io: Some(error) }));
                }
                Poll::Pending => {
                    if !self.expect.is_empty() {
                        self.gather.wait(cx, server);
                    }
                    break;
                }
            }
        }
        if want_client && self.up.len() < HIGH_WATER {
            return self.read_client(cx, client, inbuf);
        }
        Poll::Pending
    }

    /// Writes what is ready to the client, without any server.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        if let Err(error) = self.write_down(cx, client) {
            return Poll::Ready(Err(error));
        }
        if self.ready == 0 { Pin::new(client).poll_flush(cx) } else { Poll::Pending }
    }

    fn read_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        inbuf: &mut BytesMut,
    ) -> Poll<Event> {
        let size = self.client_read as usize;
        inbuf.reserve(size);
        let room = inbuf.capacity() - inbuf.len();
        match poll_read(cx, client, inbuf) {
            Poll::Ready(Ok(0)) => Poll::Ready(Event::ClientGone),
            Poll::Ready(Ok(n)) => {
                if n >= room {
                    self.client_read = (size * 2).min(CLIENT_READ_MAX) as u32; // as with the server
                }
                Poll::Ready(Event::Client)
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "client connection broke");
                Poll::Ready(Event::ClientGone)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn write_up(&mut self, cx: &mut Context<'_>, server: &mut Stream) -> io::Result<()> {
        let written = write_all_possible(cx, server, &self.up)?;
        drop_front(&mut self.up, written);
        Ok(())
    }

    fn write_down(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> io::Result<()> {
        if self.ready == 0 {
            return Ok(());
        }
        let written = write_all_possible(cx, client, self.down.get(..self.ready).unwrap_or_default())?;
        drop_front(&mut self.down, written);
        self.ready -= written;
        self.sent += written as u64;
        Ok(())
    }

    fn read_server(&mut self, cx: &mut Context<'_>, server: &mut ServerConn) -> Poll<io::Result<usize>> {
        self.down.reserve(self.read_size);
        let room = self.down.capacity() - self.down.len();
        let read = poll_read(cx, &mut server.stream, &mut self.down);
        if let Poll::Ready(Ok(n)) = read {
            self.received += n as u64;
            self.gather.came(n);
            self.finishes.read();
            // A read that filled its room means more is waiting: fewer, larger reads are cheaper.
            self.read_size = if n >= room { (self.read_size * 2).min(READ_MAX) } else { self.read_size };
        }
        read
    }
}

/// An empty buffer starts over at the beginning of its room.
fn drop_front(buf: &mut BytesMut, n: usize) {
    if n == buf.len() {
        buf.clear();
    } else {
        buf.advance(n);
    }
}

fn poll_read(cx: &mut Context<'_>, from: &mut Stream, into: &mut BytesMut) -> Poll<io::Result<usize>> {
    tokio_util::io::poll_read_buf(Pin::new(from) as Pin<&mut (dyn AsyncRead + Send)>, cx, into)
}

fn write_all_possible(cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    // A short write of much would be followed by one in vain.
    if !bytes.is_empty()
        && bytes.len() <= READ_MIN
        && let Some(n) = to.write_now(bytes)
    {
        written = n?;
        if written == bytes.len() {
            return Ok(written);
        }
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    while let Some(rest) = bytes.get(written..).filter(|r| !r.is_empty()) {
        match Pin::new(&mut *to).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => written += n,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    if to.is_tls() && written > 0 {
        // rustls buffers: without this the last record may stay behind.
        if let Poll::Ready(Err(error)) = Pin::new(to).poll_flush(cx) {
            return Err(error);
        }
    }
    Ok(written)
}
