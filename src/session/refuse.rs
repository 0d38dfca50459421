//! Errors of the proxy's own in the place of an answer.
//! Must not do I/O; the server fails too where its transaction must.

use bytes::BytesMut;
use smallvec::SmallVec;

use super::client::{Client, Deferred};
use super::feed::{Fed, Step};
use super::txn::Txn;
use crate::exec::Expect;
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, FrontendWriter, SqlState, WireError};

/// A portal that no client can have: executing it makes a server fail in its turn.
const REFUSED_PORTAL: &str = "pgherd refuses";

impl Client {
    /// A message whose answer is one of several owed: an error in its place.
    pub(super) fn refuse(&mut self, report: &ErrorReport) {
        // The message that waited is answered by this.
        let waited = self.take_current();
        if let Some(stash) = self.turn.stash.take() {
            let subject = stash.statements.first().map(|s| self.note(s, Some(&stash.route), true));
            self.turn.measured.subject = subject;
        }
        match waited {
            Some(b'S') => {
                self.refuse_extended(report);
                self.turn.skip = false;
                self.on_sync();
            }
            None | Some(b'Q') => self.refuse_simple(report),
            Some(_) => self.refuse_extended(report),
        }
    }

    pub(super) fn refuse_simple(&mut self, report: &ErrorReport) {
        let statement = self.count_own(true);
        self.record_error(report, statement);
        if self.txn.is_none() {
            self.drop_ahead(); // what its text would have listened to
            self.portals.clear(); // what a batch before it has begun ends here
        }
        let mut bytes = BytesMut::new();
        bytes.put_report(report);
        if self.server.is_some() && (matches!(self.txn, Txn::Open(_)) || self.x.is_batch_open()) {
            // The server must fail too, so that its transaction is as the client believes; that of a batch is undone.
            self.x.up.put_execute(REFUSED_PORTAL, 0);
            self.x.expect(Expect::Refuse(bytes.freeze()));
            self.x.up.put_sync();
            self.x.expect(Expect::Sync { forward: true });
            return;
        }
        self.fail_held();
        bytes.put_ready(self.status());
        self.x.say(bytes.freeze());
    }

    /// The same for the message at hand, in its turn: what waits for a server is answered before, so it goes to one
    /// first.
    pub(super) fn refuse_in_turn(&mut self, report: &ErrorReport) -> Fed {
        if let Some(fed) = self.place_first() {
            return fed;
        }
        self.refuse_extended(report);
        Fed::Next
    }

    /// The same for Parse. One of the unnamed statement that fails has destroyed it, unless it is skipped.
    pub(super) fn refuse_parse(&mut self, name: &str, report: &ErrorReport) -> Fed {
        if let Some(fed) = self.place_first() {
            return fed;
        }
        if name.is_empty()
            && let Some(before) = self.statements.remove("")
        {
            let number = self.changed("", Some(before));
            self.x.change(number);
        }
        self.refuse_extended(report);
        Fed::Next
    }

    /// A message whose body is not what its type promises: an error like any other, for where it ends is known.
    pub(super) fn on_malformed(&mut self, tag: u8, error: &WireError) -> Fed {
        if self.x.is_owed() && !self.x.is_batch_open() {
            // A Query under way may yet turn out to be a COPY, in which this message is none at all.
            return Fed::Until(Step::Drain);
        }
        let mut report = error.report();
        if report.code == SqlState::CHARACTER_NOT_IN_REPERTOIRE && self.vars.env.foreign_encoding {
            let what = "a name of a prepared statement or portal that is not UTF-8";
            report = ErrorReport::error(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported"))
                .with_hint("Use names of ASCII letters, or SET client_encoding = 'UTF8'.");
        }
        match tag {
            b'Q' | b'F' | b'S' => self.refuse_whole(tag, &report),
            _ => self.refuse_in_turn(&report),
        }
    }

    /// An error in the place of all that a message asked for, ReadyForQuery included.
    fn refuse_whole(&mut self, tag: u8, report: &ErrorReport) -> Fed {
        if self.turn.skip {
            self.drop_deferred(0);
        }
        if let Some(step) = self.settle_first() {
            return Fed::Until(step);
        }
        if self.turn.skip || self.x.is_skipping() {
            // Sync, which ends what is skipped whatever else it is.
            let mut bytes = BytesMut::new();
            bytes.put_report(report);
            self.record_error(report, None);
            self.drop_deferred(0);
            self.x.say(bytes.freeze());
            return self.on_sync();
        }
        match self.place_first() {
            Some(Fed::Next) if tag == b'S' => return self.refuse_whole(tag, report), // it ends what is skipped now
            Some(fed) => return fed,
            None => {}
        }
        if let Some(step) = self.settle_first() {
            return Fed::Until(step); // what waited is owed now
        }
        if tag == b'S' {
            self.intents_dropped();
        }
        self.refuse_simple(report);
        if self.txn.is_none() && self.server.is_none() {
            self.portals.clear();
        }
        Fed::Next
    }

    /// What waits for a server goes to one. `Some`: it does not yet, and the error will be found again.
    pub(super) fn place_first(&mut self) -> Option<Fed> {
        if self.turn.deferred.is_empty() {
            return None;
        }
        match self.place_deferred() {
            Ok(step) => step.map(Fed::Until),
            Err(earlier) => {
                self.refuse_extended(&earlier.report());
                Some(Fed::Next)
            }
        }
    }

    /// An error in the extended protocol. What still waits for a server has not happened.
    pub(super) fn refuse_extended(&mut self, report: &ErrorReport) {
        let statement = self.count_own(true);
        self.record_error(report, statement);
        let mut bytes = BytesMut::new();
        bytes.put_report(report);
        self.drop_deferred(0);
        if self.server.is_some() && (matches!(self.txn, Txn::Open(_)) || self.x.is_batch_open()) {
            self.x.up.put_execute(REFUSED_PORTAL, 0);
            self.x.expect(Expect::Refuse(bytes.freeze()));
        } else {
            self.fail_held();
            self.x.say(bytes.freeze());
        }
        self.turn.skip = true;
    }

    /// What waits for a server, from the one at `from` on, has not happened.
    pub(super) fn drop_deferred(&mut self, from: usize) {
        let dropped: SmallVec<[Deferred; 2]> = self.turn.deferred.drain(from..).collect();
        for deferred in dropped.into_iter().rev() {
            if let Deferred::Parse(_, number) | Deferred::Local(_, number @ 1..) = deferred {
                self.take_back(number);
            }
        }
    }

    pub(super) fn fail_held(&mut self) {
        if let Txn::Held(held) = &mut self.txn {
            held.failed = true;
        }
    }
}
