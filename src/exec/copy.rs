//! Syncs that reach a server round a COPY FROM STDIN: it ignores what it reads while it waits for data, and answers what it
//! reads after the COPY has failed. Which of them those are its answers alone tell.
//! Must not do I/O, nor know how data is passed on. Source: PostgreSQL docs, "Message Flow", COPY operations.

use std::io;

use bytes::BytesMut;

use super::exchange::{Exchange, Lost};
use super::expect::{CopyFailed, Expect};
use crate::wire::{BackendWriter, DescribeTarget, FrontendWriter, TransactionStatus, WireError};

/// A portal that no client can have: its Close is answered when all before it has been.
const NOBODYS: &str = "pgherd asks";

impl Exchange {
    /// The server has said that it wants data. Drivers send a Sync right behind Execute, ahead of their data.
    pub(super) fn copy_in_begins(&mut self) {
        self.copy_in = true;
        match self.expect.front() {
            Some(Expect::Execute { .. }) => self.open_batch = true,
            Some(Expect::Query { .. }) => {}
            _ => return,
        }
        let mut perhaps = 0;
        while let Some(Expect::Sync { forward: true } | Expect::CopySyncs(_)) = self.expect.get(1) {
            perhaps = match self.expect.remove(1) {
                Some(Expect::CopySyncs(before)) => before.saturating_add(perhaps),
                _ => perhaps.saturating_add(1),
            };
        }
        if perhaps > 0 {
            self.expect.insert(1, Expect::CopySyncs(perhaps));
        }
    }

    /// A Sync of the client, as it came, while the server is believed to read data: it is for the server to ignore it, or to
    /// say what is wrong with it.
    pub fn sync_in_copy(&mut self, frame: &[u8]) {
        self.up.extend_from_slice(frame);
        match self.expect.back_mut() {
            Some(Expect::CopySyncs(perhaps)) => *perhaps = perhaps.saturating_add(1),
            _ => self.expect.push_back(Expect::CopySyncs(1)),
        }
    }

    /// Whether there were Syncs before a COPY's end that has not come yet: until then nothing else may follow, for it may have
    /// to be asked which of them are answered.
    #[must_use]
    pub fn has_copy_syncs(&self) -> bool {
        matches!(self.expect.get(1), Some(Expect::CopySyncs(_)))
    }

    /// Whether the client may not be heard until it is known what a COPY that failed has left to be answered.
    #[must_use]
    pub fn is_copy_unclear(&self) -> bool {
        matches!(self.expect.front(), Some(Expect::CopyFailed(_)))
    }

    /// The COPY is complete: all that came before its CopyDone has been read, and ignored.
    pub(super) fn copy_ends(&mut self) {
        if self.has_copy_syncs() {
            self.expect.remove(1);
        }
    }

    /// The COPY, or what stands before or behind it in its text, has failed.
    pub(super) fn copy_fails(&mut self) {
        let at = usize::from(matches!(self.expect.front(), Some(Expect::Query { .. })));
        let Some(Expect::CopySyncs(perhaps)) = self.expect.get(at) else { return };
        let perhaps = *perhaps;
        if !self.expect.iter().skip(at + 1).all(|e| *e == Expect::Sync { forward: true }) {
            // More was sent than a COPY has: had the server read data, it would have ended the session over it.
            self.expect.remove(at);
            (0..perhaps).for_each(|_| self.expect.insert(at, Expect::Sync { forward: true }));
            return;
        }
        // Of a Query, too, the end is owed; without one the server skips all up to a Sync that is still to come.
        let least = (self.expect.len() - 1) as u32;
        self.expect.clear();
        let failed = CopyFailed {
            least,
            most: least.saturating_add(perhaps),
            own: least == 0,
            ..CopyFailed::default()
        };
        self.expect.push_back(Expect::CopyFailed(failed));
        self.ask_after_copy();
    }

    /// A message of COPY data goes up whole: whether its rest is still to come.
    pub fn tear_copy(&mut self, torn: bool) {
        self.copy_torn = torn;
        self.ask_after_copy();
    }

    /// Asks for something that is answered behind all Syncs so far.
    fn ask_after_copy(&mut self) {
        if self.copy_torn {
            return;
        }
        if let Some(Expect::CopyFailed(failed)) = self.expect.front_mut()
            && !std::mem::replace(&mut failed.asked, true)
        {
            if failed.own {
                self.up.put_sync();
            }
            self.up.put_target(b'C', DescribeTarget::Portal(NOBODYS));
            self.up.put_sync();
        }
    }

    /// CloseComplete of what was asked for.
    pub(super) fn closed_after_copy(&mut self, total: usize) -> Option<Lost> {
        match self.expect.front_mut() {
            Some(Expect::CopyFailed(failed)) if failed.asked && !failed.closed => failed.closed = true,
            _ => return Some(out_of_turn(b'3')),
        }
        self.cut(total);
        None
    }

    /// ReadyForQuery, of the client's or of the proxy's own.
    pub(super) fn ready_after_copy(&mut self, status: TransactionStatus, total: usize) -> Option<Lost> {
        let Some(Expect::CopyFailed(failed)) = self.expect.front_mut() else {
            return Some(out_of_turn(b'Z'));
        };
        self.status = Some(status);
        if !failed.closed {
            failed.seen += 1;
            if failed.seen > failed.most.saturating_add(u32::from(failed.own && failed.asked)) {
                return Some(out_of_turn(b'Z'));
            }
            // The last may be the proxy's own, or one that is to be kept back.
            let later = self.hold_ready || (failed.own && failed.asked);
            failed.told += u32::from(!later);
            self.take(total, !later);
            return None;
        }
        let failed = *failed;
        let of_client = failed.seen.checked_sub(u32::from(failed.own)).filter(|n| *n >= failed.least);
        let Some(of_client) = of_client else { return Some(out_of_turn(b'Z')) };
        self.expect.pop_front();
        // The proxy's own Sync has ended what the client's is still to end.
        (self.skipping, self.open_batch) = (of_client == 0, of_client == 0);
        let untold = of_client - failed.told;
        self.held = untold > 0 && self.hold_ready && status == TransactionStatus::Idle;
        self.say_ready(untold - u32::from(self.held), status);
        self.cut(total);
        None
    }

    /// An error of a Sync whose body is malformed.
    pub(super) fn error_after_copy(&mut self) {
        if let (Some(Expect::CopyFailed(failed)), Some(status)) = (self.expect.front_mut(), self.status) {
            let untold = failed.seen - failed.told;
            failed.told = failed.seen;
            self.say_ready(untold, status);
        }
    }

    fn say_ready(&mut self, times: u32, status: TransactionStatus) {
        let mut bytes = BytesMut::new();
        (0..times).for_each(|_| bytes.put_ready(status));
        self.insert(&bytes);
    }
}

fn out_of_turn(tag: u8) -> Lost {
    Lost { said: None, io: Some(io::Error::new(io::ErrorKind::InvalidData, WireError::OutOfTurn { tag })) }
}
