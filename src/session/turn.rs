//! A turn of work: from the first message after idle until everything is answered and the server is given back.
//! Must not know how messages are understood; it does what `feed` asks for.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::cancels::KILL;
use super::client::{Client, Flow};
use super::feed::Step;
use crate::exec::{Event, Lost, Watch};
use crate::stats::Moment;
use crate::wire::{ErrorFields, SqlState};

/// How long a server may say nothing after a statement that ran too long was cancelled.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// COPY data that is taken before the server has asked for it, bytes.
const AHEAD: usize = 64 << 10;

impl Client {
    /// Works until nothing is left to do and no whole message is waiting.
    pub(super) async fn take_turn(&mut self) -> Flow {
        self.turn.began = Some(Moment::now());
        loop {
            if self.cancel.asked_now() & KILL != 0 {
                return Flow::End; // what is still to be said is said by `run`
            }
            let step = self.feed();
            let flow = match step {
                Step::Wait => {
                    if self.server.is_none() {
                        if self.flush().await == Flow::End {
                            return Flow::End;
                        }
                        // A message of which only a part has come is waited for like any other.
                        if self.turn.deferred.is_empty() && self.inbuf.is_empty() {
                            self.end_turn();
                            return Flow::Continue;
                        }
                        self.read_more().await
                    } else if self.x.is_drained() {
                        self.after_drain().await;
                        // A Parse that came by itself waits for its Bind, in a transaction too.
                        if self.inbuf.is_empty() && self.turn.deferred.is_empty() {
                            self.end_turn();
                            return Flow::Continue;
                        }
                        if std::mem::take(&mut self.turn.copy_waits) {
                            continue; // nobody wants it any more
                        }
                        self.read_more().await
                    } else {
                        let flow = self.pump(Until::Client).await;
                        if self.turn.copy_waits && self.server.is_some() && self.x.is_drained() {
                            self.after_drain().await; // no COPY has come of it, and what follows begins anew
                        }
                        flow
                    }
                }
                Step::Queue { shard, need } => Box::pin(self.wait_to_join(shard, need)).await,
                Step::Lease { shard, need } => Box::pin(self.join(shard, need)).await,
                Step::Apply(leased) => Box::pin(self.join_with(*leased)).await,
                Step::Drain => {
                    let flow = self.pump(Until::Drained).await;
                    // It returns early too, as when the server begins to read a COPY: nothing is over then.
                    if flow == Flow::Continue && (self.server.is_none() || self.x.is_drained()) {
                        self.after_drain().await;
                    }
                    flow
                }
                Step::Settle => {
                    let flow = self.pump(Until::Settled).await;
                    self.turn.flushed = false;
                    flow
                }
                // What is rare is boxed: the common turn must not pay for its state.
                Step::Move => Box::pin(self.leave_shard()).await,
                Step::Fanout(plan) => Box::pin(self.fan_out(*plan)).await,
                Step::DiscardAll => Box::pin(self.discard_all()).await,
                Step::Hear(intents) => Box::pin(self.hear(intents)).await,
                Step::HearAhead => Box::pin(self.hear_ahead()).await,
                Step::HearAlso(channels) => Box::pin(self.hear_also(channels)).await,
                Step::Claim => Box::pin(self.claim()).await,
                Step::ReadSchema => {
                    Box::pin(self.read_schema()).await;
                    Flow::Continue
                }
                Step::Command(words) => Box::pin(self.command(words)).await,
                Step::End => Flow::End,
            };
            if flow == Flow::End {
                return self.flush().await.then_end();
            }
        }
    }

    fn end_turn(&mut self) {
        self.turn.end();
        // Answered without a server, or by one: nothing of it is ever sent again.
        self.replay.clear();
    }

    /// Reads more of the client when no server is held.
    async fn read_more(&mut self) -> Flow {
        if self.flush().await == Flow::End {
            return Flow::End;
        }
        self.inbuf.reserve(8192);
        let (limit, late) = self.idle_limit();
        let (slot, stream, inbuf) = (&self.cancel, &mut self.stream, &mut self.inbuf);
        let read = std::future::poll_fn(|cx| {
            if slot.is_killed(cx) {
                return Poll::Ready(Ok(0));
            }
            let read = tokio_util::io::poll_read_buf(Pin::new(&mut *stream), cx, inbuf);
            if read.is_pending() {
                slot.answer_early(false);
            }
            read
        });
        let read = match limit {
            Some(limit) => match Box::pin(tokio::time::timeout(limit, read)).await {
                Ok(read) => read,
                Err(_) => {
                    Box::pin(self.farewell(&late)).await;
                    return Flow::End;
                }
            },
            None => read.await,
        };
        match read {
            Ok(0) | Err(_) => Flow::End,
            Ok(_) => {
                self.note_came();
                Flow::Continue
            }
        }
    }

    /// Writes to the client what the proxy itself has said.
    pub(super) async fn flush(&mut self) -> Flow {
        self.x.settle();
        match std::future::poll_fn(|cx| self.x.poll_flush(cx, &mut self.stream)).await {
            Ok(()) => Flow::Continue,
            Err(_) => Flow::End,
        }
    }

    /// Relays until there is something to do for the feed.
    async fn pump(&mut self, until: Until) -> Flow {
        loop {
            self.note_sent();
            let Some(server) = &mut self.server else { return self.flush().await };
            // COPY data sent ahead of its time is not piled up.
            let want_client = until == Until::Client && !(self.turn.copy_waits && self.inbuf.len() >= AHEAD);
            let (x, stream, inbuf) = (&mut self.x, &mut self.stream, &mut self.inbuf);
            let slot = &self.cancel;
            let poll = std::future::poll_fn(|cx| {
                if slot.is_killed(cx) {
                    return Poll::Ready(Event::ClientGone); // as if it had gone by itself
                }
                let event = x.poll(cx, stream, inbuf, server, (want_client, Watch::Answers));
                if event.is_pending() && x.up.is_empty() {
                    slot.answer_early(x.is_waiting_for_server());
                }
                event
            });
            let event = match self.config.timeouts.query {
                Some(limit) => {
                    let end = match self.turn.late {
                        true => Instant::now() + CANCEL_GRACE,
                        false => self.turn.began.unwrap_or_else(Moment::now).instant() + limit,
                    };
                    match Box::pin(tokio::time::timeout_at(end, poll)).await {
                        Ok(event) => event,
                        Err(_) if self.turn.late && self.x.is_waiting_for_server() => {
                            Event::ServerLost(deaf())
                        }
                        Err(_) => {
                            Box::pin(self.too_late()).await;
                            continue;
                        }
                    }
                }
                None => poll.await,
            };
            match event {
                Event::Client => {
                    self.note_came();
                    self.note_done();
                    return Flow::Continue;
                }
                Event::ClientGone => return Flow::End,
                Event::Drained => {
                    self.note_done();
                    return Flow::Continue;
                }
                Event::Progress => {
                    self.note_done();
                    if (until == Until::Settled && !self.x.is_owed()) || self.x.is_copy_in() {
                        return Flow::Continue;
                    }
                    if self.x.is_batch_open() && !self.x.is_owed() {
                        return Flow::Continue;
                    }
                }
                Event::ServerLost(lost) => return Box::pin(self.server_lost(lost)).await,
            }
        }
    }
}

impl Client {
    /// The statement has run for longer than `timeouts.query_ms`.
    async fn too_late(&mut self) {
        if self.x.is_waiting_for_server() {
            // The server answers with its own 57014, which ends the statement in order.
            self.turn.late = true;
            self.cancel.cancel().await;
        } else {
            self.turn.began = Some(Moment::now()); // it is the client that is waited for
        }
    }
}

/// A server that goes on after it was told to stop: its connection is given up.
fn deaf() -> Lost {
    let message = format!("it did not end a cancelled statement within {} s", CANCEL_GRACE.as_secs());
    let code = SqlState::QUERY_CANCELED.as_str().to_owned();
    let said = ErrorFields { severity: "FATAL".into(), code, message, ..ErrorFields::default() };
    Lost { said: Some(said), io: None }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// New bytes of the client, or nothing owed.
    Client,
    /// Nothing owed and nothing open.
    Drained,
    /// Nothing owed; a batch may be open.
    Settled,
}
