//! The relay: one client, one server, both directions driven at once, bytes copied and only headers read.
//! Must not know SQL; what to expect is told by whoever filled the upstream buffer.
//!
//! `up` holds bytes for the server. `down` holds bytes from the server: those before `ready` may go to the client,
//! those after it have not been looked at. One read and one write per batch: the buffer that was read is the one
//! that is written.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::answers::skipped;
use super::expect::{Done, Expect};
use super::finish::Finishes;
use super::gather::Gather;
use crate::wire::{ErrorFields, TransactionStatus};

/// First size of a read, bytes; grows while reads fill it.
pub(super) const READ_MIN: usize = 8 << 10;

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
    /// Of a CopyData message a part has gone to the server, which waits for the rest.
    pub copy_torn: bool,
    /// Whether anything of this exchange has reached the client's buffer.
    pub(super) answered: bool,
    pub(super) read_size: usize,
    pub(super) gather: Gather,
    /// The same of the client.
    pub(super) client_read: u32,
    /// Extended-protocol messages have gone out that no Sync has closed.
    pub(super) open_batch: bool,
    pub(super) received: u64,
    pub(super) sent: u64,
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
            copy_torn,
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
        for fact in [skipping, copy_in, copy_torn, answered, open_batch, hold_ready, held, plain] {
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
            Expect::Local(_)
            | Expect::Change(_)
            | Expect::Plain
            | Expect::CopySyncs(_)
            | Expect::CopyFailed(_) => {}
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

    /// Whether the proxy itself owes an answer in turn.
    #[must_use]
    pub fn owes_local(&self) -> bool {
        self.expect.iter().any(|answer| matches!(answer, Expect::Local(_)))
    }

    /// Whether the server has to say something next: an answer, or the rest of a message.
    #[must_use]
    pub fn is_waiting_for_server(&self) -> bool {
        let waits_for_client =
            matches!(self.expect.front(), Some(Expect::CopyFailed(failed)) if !failed.asked);
        (!self.expect.is_empty() && !waits_for_client) || self.pass > 0 || self.down.len() > self.ready
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
        let ready = self.expect.iter().any(|e| {
            matches!(e, Expect::Query { .. } | Expect::Sync { forward: true })
                || matches!(e, Expect::CopyFailed(failed) if failed.told < failed.least)
        });
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
}
