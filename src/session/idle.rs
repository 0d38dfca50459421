//! A client at work that has nothing under way: what it waits for, and why it wakes.
//! Must not know what it says.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;

use super::cancels::{CancelSlot, KILL, LEAVE, REFRESH, REST, STALE};
use super::client::Client;
use super::lost::lost_while_idle;
use crate::cluster::Leased;
use crate::config::Config;
use crate::exec::{Event, Exchange, Watch};
use crate::pool::Stream;
use crate::wire::{ErrorReport, SqlState};

/// Room for the first read after idle, bytes.
const FIRST_READ: usize = 4 << 10;

impl Client {
    /// Waits for the client, within the timeouts; passes on what kept servers say unasked.
    pub(super) async fn idle(&mut self) -> Woke {
        let limit = if self.txn.is_none() {
            self.config.timeouts.idle
        } else {
            self.config.timeouts.idle_in_transaction
        };
        match limit {
            None => self.wait().await,
            Some(limit) => match Box::pin(tokio::time::timeout(limit, self.wait())).await {
                Ok(woke) => woke,
                Err(_) => Woke::Late(Box::new(self.idle_limit().1)),
            },
        }
    }

    /// How long the client may say nothing now, and what it is told then.
    pub(super) fn idle_limit(&self) -> (Option<Duration>, ErrorReport) {
        Self::idle_limit_of(&self.config, !self.txn.is_none())
    }

    /// The same by what it depends on.
    pub(super) fn idle_limit_of(config: &Config, in_transaction: bool) -> (Option<Duration>, ErrorReport) {
        let timeouts = &config.timeouts;
        let (limit, code, what) = if !in_transaction {
            (timeouts.idle, SqlState::IDLE_SESSION_TIMEOUT, "idle-session")
        } else {
            let code = SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT;
            (timeouts.idle_in_transaction, code, "idle-in-transaction")
        };
        (limit, ErrorReport::fatal(code, format!("terminating connection due to {what} timeout")))
    }

    async fn wait(&mut self) -> Woke {
        let open = !self.txn.is_none();
        if let Some(server) = &mut self.server {
            // In a transaction: the server may still say something (57P01, a parameter).
            let (x, stream, inbuf) = (&mut self.x, &mut self.stream, &mut self.inbuf);
            self.cancel.set_at_rest(true);
            let woke = Self::watch(x, stream, inbuf, server, (&self.cancel, open)).await;
            self.cancel.set_at_rest(false);
            return woke;
        }
        if self.kept.is_empty() {
            return std::future::poll_fn(|cx| self.poll_idle(cx)).await;
        }
        loop {
            let event = std::future::poll_fn(|cx| self.poll_kept(cx)).await;
            match event {
                Ok(event) => {
                    let Some(kept) = self.kept.first() else { return Woke::Gone };
                    if let Some(woke) = Self::watched(event, &mut self.x, &kept.leased) {
                        return woke;
                    }
                }
                Err(woke) => return woke,
            }
        }
    }

    /// Idle, outside a transaction, with a server kept. `Err`: something other than an event woke it.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Woke>> {
        if let Some(woke) = asked(&self.cancel, cx, !self.txn.is_none()) {
            return Poll::Ready(Err(woke));
        }
        if let Some(report) = self.tell(Some(cx)) {
            return Poll::Ready(Err(Woke::Late(Box::new(report))));
        }
        let Some(kept) = self.kept.first_mut() else { return Poll::Ready(Ok(Event::ClientGone)) };
        let (x, stream, inbuf) = (&mut self.x, &mut self.stream, &mut self.inbuf);
        let event = x.poll(cx, stream, inbuf, &mut kept.leased, (true, Watch::Idle)).map(Ok);
        if event.is_pending() {
            self.cancel.answer_early(false);
        }
        event
    }

    /// An idle client has no buffer: room is made when something is there to be read.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Woke> {
        if let Some(woke) = asked(&self.cancel, cx, !self.txn.is_none()) {
            return Poll::Ready(woke);
        }
        if (self.ears.is_some() || self.ending.is_some())
            && let Some(woke) = self.poll_ears(cx)
        {
            return Poll::Ready(woke);
        }
        if let Poll::Ready(Err(_)) = self.stream.poll_left(cx) {
            return Poll::Ready(Woke::Gone);
        }
        // One that has room already may as well try: then it is looked once whether there is something.
        if self.inbuf.capacity() < FIRST_READ {
            match self.stream.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Woke::Gone),
                Poll::Pending => {
                    self.cancel.answer_early(false);
                    return Poll::Pending;
                }
            }
        }
        self.poll_read(cx)
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Woke> {
        self.inbuf.reserve(FIRST_READ);
        match tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.inbuf) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Woke::Gone),
            Poll::Ready(Ok(_)) => Poll::Ready(Woke::Data),
            Poll::Pending => {
                self.cancel.answer_early(false);
                Poll::Pending
            }
        }
    }

    /// Notifications go out; `Some` if that is the end.
    fn poll_ears(&mut self, cx: &mut Context<'_>) -> Option<Woke> {
        loop {
            if let Some(report) = self.tell(Some(cx)) {
                return Some(Woke::Late(Box::new(report)));
            }
            if !self.x.is_unsent() {
                return None;
            }
            match self.x.poll_flush(cx, &mut self.stream) {
                Poll::Ready(Ok(())) => {} // there may be more by now
                Poll::Ready(Err(_)) => return Some(Woke::Gone),
                Poll::Pending => return None,
            }
        }
    }

    async fn watch(
        x: &mut Exchange,
        stream: &mut Stream,
        inbuf: &mut BytesMut,
        server: &mut Leased,
        (slot, in_transaction): (&CancelSlot, bool),
    ) -> Woke {
        loop {
            let event = std::future::poll_fn(|cx| match asked(slot, cx, in_transaction) {
                Some(woke) => Poll::Ready(Err(woke)),
                None => {
                    let event = x.poll(cx, stream, inbuf, server, (true, Watch::Idle)).map(Ok);
                    if event.is_pending() {
                        slot.answer_early(false);
                    }
                    event
                }
            });
            let event = match event.await {
                Ok(event) => event,
                Err(woke) => return woke,
            };
            if let Some(woke) = Self::watched(event, x, server) {
                return woke;
            }
        }
    }

    fn watched(event: Event, x: &mut Exchange, server: &Leased) -> Option<Woke> {
        match event {
            Event::Client => Some(Woke::Data),
            Event::ClientGone => Some(Woke::Gone),
            Event::Progress | Event::Drained => {
                x.done.clear();
                drop(x.finishes.take());
                None
            }
            Event::ServerLost(lost) => Some(Woke::Late(Box::new(lost_while_idle(server.server(), &lost)))),
        }
    }
}

/// What an operator or a reload asks of an idle session; the task is woken when that changes.
pub(super) fn asked(slot: &CancelSlot, cx: &Context<'_>, in_transaction: bool) -> Option<Woke> {
    match slot.asked(cx) {
        0 => None,
        asked if asked & KILL != 0 => Some(Woke::Shutdown),
        asked if asked & REFRESH != 0 || asked & STALE != 0 && !in_transaction => Some(Woke::Refresh),
        asked if asked & LEAVE != 0 && !in_transaction => Some(Woke::Shutdown),
        asked if asked & REST != 0 && !in_transaction => Some(Woke::Rest),
        _ => None,
    }
}

/// Why an idle client is looked at.
pub(super) enum Woke {
    /// It said something.
    Data,
    /// It left.
    Gone,
    /// It is to go.
    Shutdown,
    /// The configuration has changed.
    Refresh,
    /// It may rest.
    Rest,
    /// It ends with this.
    Late(Box<ErrorReport>),
}
