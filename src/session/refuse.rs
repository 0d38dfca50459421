//! Errors of the proxy's own in the place of an answer.
//! Must not do I/O; the server fails too where its transaction must.

use bytes::BytesMut;

use super::client::{Client, Deferred};
use super::txn::Txn;
use crate::exec::Expect;
use crate::wire::{BackendWriter, ErrorReport, FrontendWriter};

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
        }
        let mut bytes = BytesMut::new();
        bytes.put_report(report);
        if self.server.is_some() && matches!(self.txn, Txn::Open(_)) {
            // The server must fail too, so that its transaction is as the client believes.
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

    pub(super) fn refuse_extended(&mut self, report: &ErrorReport) {
        let statement = self.count_own(true);
        self.record_error(report, statement);
        let mut bytes = BytesMut::new();
        bytes.put_report(report);
        for deferred in std::mem::take(&mut self.turn.deferred).into_iter().rev() {
            if let Deferred::Parse(_, number) | Deferred::Local(_, number @ 1..) = deferred {
                self.take_back(number);
            }
        }
        if self.server.is_some() && (matches!(self.txn, Txn::Open(_)) || self.x.is_batch_open()) {
            self.x.up.put_execute(REFUSED_PORTAL, 0);
            self.x.expect(Expect::Refuse(bytes.freeze()));
        } else {
            self.fail_held();
            self.x.say(bytes.freeze());
        }
        self.turn.skip = true;
    }

    pub(super) fn fail_held(&mut self) {
        if let Txn::Held(held) = &mut self.txn {
            held.failed = true;
        }
    }
}
