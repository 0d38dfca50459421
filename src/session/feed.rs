//! From a client's messages to what is sent: each whole message is understood, placed, and put upstream.
//! Must not do I/O or await: what has to be waited for is returned as a [`Step`], and the message is kept.

use std::sync::Arc;

use bytes::{Buf, BytesMut};

use super::client::Client;
use super::ears::Intent;
use super::fanout::FanoutPlan;
use crate::cluster::{Leased, Need};
use crate::exec::Expect;
use crate::shard::ShardId;
use crate::wire::{
    BackendWriter, ClientFacing, ErrorReport, FrontendWriter, Severity, SqlState, WireError, parse_empty,
    peek_head,
};

/// The longest CopyData, bytes. Source: `PQ_LARGE_MESSAGE_LIMIT` in libpq.h.
const MAX_COPY_DATA: usize = 0x3fff_ffff;

/// Bytes of a turn that are kept to be tried again on another server.
const REPLAY_LIMIT: usize = 64 << 10;

/// What the feed needs before it can go on.
pub(super) enum Step {
    /// More bytes of the client, or answers of the server.
    Wait,
    /// A server of a shard.
    Lease { shard: ShardId, need: Need },
    /// The same, and none is idle.
    Queue { shard: ShardId, need: Need },
    /// The settings of this session on a server that was taken.
    Apply(Box<Leased>),
    /// All answers, and the end of the batch; the server is given back if no transaction is open.
    Drain,
    /// All answers owed so far; the batch may stay open.
    Settle,
    /// The movable transaction must leave its shard. Nothing is owed.
    Move,
    /// Many shards.
    Fanout(Box<FanoutPlan>),
    /// DISCARD ALL. Nothing is owed.
    DiscardAll,
    /// LISTEN and UNLISTEN outside a transaction.
    Hear(Vec<Intent>),
    /// What will be heard after the commit is listened to before it.
    HearAhead,
    /// These channels are listened to before the text is sent that has LISTEN for them.
    HearAlso(Vec<Arc<str>>),
    /// The server's notifications are to be known as the client's own.
    Claim,
    /// The catalogs, again.
    ReadSchema,
    /// An operator's command.
    Command(Vec<String>),
    /// The session ends.
    End,
}

/// Whether the current message is done with.
pub(super) enum Fed {
    /// Yes.
    Next,
    /// It waits.
    Until(Step),
    /// It is a Query that says in SQL what these messages say in the extended protocol.
    Instead(BytesMut),
}

/// Length of all CopyData at the front of a buffer, of which the last may not have come whole: rows are short, and
/// each is a message. `None`: not even the first one's header is there.
fn copy_run(buffer: &[u8]) -> Result<Option<usize>, WireError> {
    let mut length = 0;
    while let Some(rest) = buffer.get(length..).filter(|rest| rest.first() == Some(&b'd')) {
        match peek_head(rest, MAX_COPY_DATA) {
            Ok(Some(head)) => length += head.total(),
            Ok(None) => break,
            Err(error) if length == 0 => return Err(error),
            Err(_) => break, // those before it are good
        }
    }
    Ok((length > 0).then_some(length))
}

impl Client {
    /// Works through the messages that are there.
    pub(super) fn feed(&mut self) -> Step {
        loop {
            if self.x.is_holding() {
                return Step::Drain; // what was kept back is said before anything else is answered
            }
            if self.x.is_copy_unclear() && self.turn.copy_rest == 0 {
                return Step::Drain;
            }
            if self.x.is_copy_in() && (!self.turn.deferred.is_empty() || self.x.owes_local()) {
                // What the proxy has kept or answered came before the COPY data, where a server reads nothing else.
                return self.broken(&WireError::OutOfTurn { tag: b'P' });
            }
            let length = match self.next_message() {
                Ok(Some(length)) => length,
                Ok(None) => return self.go_ahead().unwrap_or(Step::Wait),
                Err(error) => return self.broken(&error),
            };
            // The message stays where it was read: it is looked at in place, and taken only when done with.
            let buffer = std::mem::take(&mut self.inbuf);
            let fed = self.message(buffer.get(..length).unwrap_or_default());
            self.inbuf = buffer;
            self.turn.current = length;
            match fed {
                Ok(Fed::Next) => {
                    self.take_current();
                }
                Ok(Fed::Instead(mut messages)) => {
                    self.take_current();
                    self.turn.of_sql = messages.len();
                    messages.extend_from_slice(&self.inbuf);
                    self.inbuf = messages;
                }
                Ok(Fed::Until(step)) => {
                    if matches!(step, Step::Fanout(_)) {
                        self.take_current(); // many shards will answer it; all else is fed again
                    }
                    return step;
                }
                Err(error) => return self.broken(&error),
            }
        }
    }

    /// The message at the front is done with. Says which it was.
    pub(super) fn take_current(&mut self) -> Option<u8> {
        let length = std::mem::take(&mut self.turn.current);
        if length == 0 {
            return None;
        }
        let tag = self.inbuf.first().copied();
        self.turn.of_sql = self.turn.of_sql.saturating_sub(length);
        if length >= self.inbuf.len() {
            self.inbuf.clear(); // keeps its room, from the start
        } else {
            self.inbuf.advance(length);
        }
        tag
    }

    /// Length of the next whole message, header included. COPY data is passed on as it comes.
    fn next_message(&mut self) -> Result<Option<usize>, WireError> {
        if self.turn.current > 0 {
            return Ok(Some(self.turn.current));
        }
        loop {
            if self.turn.copy_rest > 0 {
                let n = self.turn.copy_rest.min(self.inbuf.len());
                self.turn.copy_rest -= n;
                self.copy_bytes(n);
                if self.turn.copy_rest > 0 {
                    return Ok(None);
                }
            }
            if matches!(self.inbuf.first(), Some(b'd' | b'c' | b'f')) && self.copy_may_come() {
                return Ok(None);
            }
            if matches!(self.inbuf.first(), Some(b'd')) {
                // CopyData is not bound by the message limit: it is never held whole.
                let Some(run) = copy_run(&self.inbuf)? else { return Ok(None) };
                self.turn.copy_rest = run;
                continue;
            }
            let max = self.config.limits.max_message;
            let Some(head) = peek_head(&self.inbuf, max)? else { return Ok(None) };
            if self.inbuf.len() < head.total() {
                self.inbuf.reserve(head.total() - self.inbuf.len());
                return Ok(None);
            }
            if self.turn.of_sql == 0 {
                self.keep_for_replay(head.total());
            } // else the Query that it stands for was kept
            return Ok(Some(head.total()));
        }
    }

    /// Whether the server may still ask for the COPY data that the client has sent ahead: it waits for the answer.
    fn copy_may_come(&mut self) -> bool {
        self.turn.copy_waits = !self.x.is_copy_in() && self.x.is_owed();
        if !self.turn.copy_waits {
            self.turn.flushed = false;
        } else if self.x.is_batch_open() && !std::mem::replace(&mut self.turn.flushed, true) {
            self.x.up.put_flush(); // of its own accord a server says only that it wants COPY data
        }
        self.turn.copy_waits
    }

    /// The next `n` bytes of the client are COPY data.
    fn copy_bytes(&mut self, n: usize) {
        if self.x.is_copy_in() || self.x.copy_torn {
            // What was sent cannot be sent again.
            self.turn.only_reads = false;
            if self.x.up.is_empty() && n == self.inbuf.len() {
                std::mem::swap(&mut self.x.up, &mut self.inbuf); // nothing is copied, both keep their room
            } else {
                self.x.up.extend_from_slice(self.inbuf.get(..n).unwrap_or_default());
                self.inbuf.advance(n);
            }
            // A message that has begun on a server goes there whole, whatever that has said meanwhile.
            return self.x.tear_copy(self.turn.copy_rest > 0);
        }
        // The server has refused the COPY: data still under way is dropped, as PostgreSQL does.
        self.inbuf.advance(n);
    }

    fn keep_for_replay(&mut self, length: usize) {
        let begins = !self.x.is_owed() && !self.x.is_batch_open() && self.turn.deferred.is_empty();
        if self.replay.is_empty() && begins {
            self.turn.only_reads = true;
        }
        let frame = self.inbuf.get(..length).unwrap_or_default();
        if self.turn.only_reads && self.replay.len() + frame.len() <= REPLAY_LIMIT {
            self.replay.extend_from_slice(frame);
        } else {
            self.turn.only_reads = false;
        }
    }

    /// What was asked before is answered before the session ends, as by a server, which reads one message at a time.
    fn answer_first(&mut self) -> Option<Step> {
        if !self.x.is_owed() || self.x.is_copy_in() {
            return None;
        }
        if self.x.is_batch_open() { self.settle_first() } else { Some(Step::Drain) }
    }

    /// The client does not speak the protocol: it is told and the session ends.
    fn broken(&mut self, error: &WireError) -> Step {
        if let Some(step) = self.answer_first() {
            return step; // and then it is found again
        }
        let mut report = ErrorReport::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string());
        self.record_error(&report, None);
        // A client that sends COPY data may be told of an error at any time.
        if (!self.x.is_owed() || self.x.is_copy_in()) && !self.x.is_torn() {
            self.x.drop_rest();
            if self.x.is_copy_in()
                && let WireError::OutOfTurn { tag } = error
            {
                report.severity = Severity::Error;
                report.message = format!("unexpected message type 0x{tag:02X} during COPY from stdin");
                self.x.local(|out| out.put_report(&report));
                report.severity = Severity::Fatal;
                report.message = "terminating connection because protocol synchronization was lost".into();
            }
            self.x.local(|out| out.put_report(&report));
        }
        Step::End
    }

    fn message(&mut self, frame: &[u8]) -> Result<Fed, WireError> {
        let Some((&tag, body)) = frame.split_first().and_then(|(tag, rest)| Some((tag, rest.get(4..)?)))
        else {
            return Ok(Fed::Next);
        };
        let fed = self.understand(tag, frame, body);
        match fed {
            Err(error @ WireError::Malformed { .. }) => Ok(self.on_malformed(tag, &error)),
            fed => fed,
        }
    }

    fn understand(&mut self, tag: u8, frame: &[u8], body: &[u8]) -> Result<Fed, WireError> {
        match tag {
            b'X' => return Ok(Fed::Until(self.answer_first().unwrap_or(Step::End))),
            b'c' | b'f' => {
                if self.x.is_copy_in() {
                    self.x.up.extend_from_slice(frame);
                    self.x.end_copy_in();
                }
                return Ok(Fed::Next);
            }
            b'S' if self.x.is_copy_in() => {
                self.x.sync_in_copy(frame);
                return Ok(Fed::Next);
            }
            b'H' if self.x.is_copy_in() && !body.is_empty() => return Ok(Fed::Next),
            b'S' => {
                parse_empty("Sync", body)?;
                return Ok(self.on_sync());
            }
            _ => {}
        }
        if self.x.is_copy_in() && tag != b'H' {
            // A server would lose step with its client here and end the session.
            return Err(WireError::OutOfTurn { tag });
        }
        if self.x.has_copy_syncs()
            && let Some(step) = self.settle_first()
        {
            return Ok(Fed::Until(step));
        }
        if self.x.is_skipping() && tag == b'Q' && std::mem::take(&mut self.turn.by_name) {
            return Ok(self.on_sync()); // what it executes could not be prepared here
        }
        if self.turn.skip || self.x.is_skipping() {
            return match tag {
                b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' => Ok(Fed::Next), // up to Sync nobody answers
                tag => Err(WireError::OutOfTurn { tag }),
            };
        }
        if self.turn.barrier && !self.x.is_batch_open() {
            return Ok(Fed::Until(Step::Drain));
        }
        match tag {
            b'Q' => self.on_query(frame, body),
            b'P' => self.on_parse(body),
            b'B' => self.on_bind(body),
            b'D' => self.on_describe(body),
            b'E' => self.on_execute(body),
            b'C' => self.on_close(body),
            b'H' => {
                parse_empty("Flush", body)?;
                Ok(self.on_flush())
            }
            b'F' => Ok(self.on_function_call(frame)),
            tag => Err(WireError::OutOfTurn { tag }),
        }
    }

    /// An answer of the proxy's own to the message at hand, complete with ReadyForQuery in the simple protocol.
    /// Nothing may be owed by a server.
    pub(super) fn complete_local(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let simple = self.take_current() == Some(b'Q');
        self.turn.stash = None;
        let status = self.status();
        self.count_own(false);
        self.x.local(|out| {
            write(out);
            if simple {
                out.put_ready(status);
            }
        });
    }

    pub(super) fn on_sync(&mut self) -> Fed {
        if self.turn.skip || self.x.is_skipping() {
            self.drop_deferred(0);
        }
        if !self.turn.deferred.is_empty() {
            match self.place_deferred() {
                Ok(None) => {}
                Ok(Some(step)) => return Fed::Until(step),
                Err(error) => {
                    self.refuse_extended(&error.report());
                }
            }
        }
        if self.turn.intents.is_any()
            && let Some(step) = self.sync_intents()
        {
            return Fed::Until(step);
        }
        self.turn.skip = false;
        self.turn.divided = false;
        self.turn.closed = self.turn.changes.len();
        if self.server.is_some() {
            self.x.up.put_sync();
            self.x.expect(Expect::Sync { forward: true });
            self.turn.batch_wrote = false;
        } else {
            if self.txn.is_none() {
                self.portals.clear(); // they end with their transaction
            }
            let mut bytes = BytesMut::new();
            bytes.put_ready(self.status());
            self.x.say(bytes.freeze());
        }
        Fed::Next
    }

    /// LISTENs of a batch take effect at its Sync, unless something in it has failed.
    fn sync_intents(&mut self) -> Option<Step> {
        if let Some(step) = self.settle_first() {
            return Some(step);
        }
        if self.turn.skip || self.x.is_skipping() {
            self.intents_dropped();
        } else if self.must_hear_ahead() {
            return Some(Step::HearAhead);
        } else {
            self.intents_committed();
        }
        None
    }

    fn on_flush(&mut self) -> Fed {
        if !self.turn.deferred.is_empty() {
            match self.place_deferred() {
                Ok(None) => {}
                Ok(Some(step)) => return Fed::Until(step),
                Err(error) => {
                    self.refuse_extended(&error.report());
                    return Fed::Next;
                }
            }
        }
        if self.server.is_some() {
            self.x.up.put_flush();
        }
        Fed::Next
    }

    /// Whether the proxy's own change of state must wait for what the server still owes.
    pub(super) fn settle_first(&mut self) -> Option<Step> {
        if !self.x.is_owed() {
            self.turn.flushed = false;
            return None;
        }
        if !self.x.is_batch_open() {
            return Some(Step::Drain);
        }
        if !std::mem::replace(&mut self.turn.flushed, true) {
            self.x.up.put_flush();
        }
        Some(Step::Settle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_copy_data_ends_at_another_message_or_in_the_middle_of_one() {
        let row = b"d\0\0\0\x07abc";
        for (buffer, want) in [
            (row.to_vec(), Some(8)),
            ([&row[..], row].concat(), Some(16)),
            ([&row[..], &row[..6]].concat(), Some(16)),
            ([&row[..], &row[..3]].concat(), Some(8)),
            ([&row[..], b"c\0\0\0\x04"].concat(), Some(8)),
            ([&row[..], b"d\0\0\0\x03"].concat(), Some(8)),
            (row[..4].to_vec(), None),
        ] {
            assert_eq!(copy_run(&buffer).unwrap(), want, "{buffer:?}");
        }
        assert!(copy_run(b"d\0\0\0\x03").is_err());
    }
}
