//! FunctionCall: a function is called by its OID, its arguments are bytes. Nothing is looked at but the OID.
//! Must not know other messages.

use super::client::{Client, Place};
use super::feed::{Fed, Step};
use super::txn::Txn;
use crate::catalog::Leaves;
use crate::exec::Expect;
use crate::route::{Access, Asks, Pin, Route, Target};
use crate::wire::{ClientFacing as _, ErrorReport, SqlState};

impl Client {
    pub(super) fn on_function_call(&mut self, frame: &[u8]) -> Fed {
        if let Some(fed) = self.place_first() {
            return fed;
        }
        if let Some(step) = self.settle_first() {
            return Fed::Until(step);
        }
        let Place::Database { served, .. } = &self.place else { return self.unsupported("function calls") };
        if !served.cluster.config().map.is_single() {
            return self.unsupported("the function-call protocol over several shards");
        }
        if served.cluster.is_behind() && !self.turn.unread {
            return Fed::Until(Step::ReadSchema);
        }
        let oid = frame.get(5..9).and_then(|oid| oid.try_into().ok()).map_or(0, u32::from_be_bytes);
        let (pin, asks) = self.of_function(oid);
        let route = Route {
            target: Target::Shard(self.default_shard()),
            pin,
            asks,
            binds_transaction: true,
            ..Route::anywhere(Access::Write)
        };
        match self.place(&route) {
            Ok(None) => {}
            Ok(Some(step)) => return Fed::Until(step),
            Err(error) => {
                self.refuse_simple(&error.report());
                return Fed::Next;
            }
        }
        self.turn.wrote = true;
        self.doubt(b""); // who knows which function it is
        self.pinned_by(pin);
        self.turn.only_reads = false;
        if let Txn::Open(open) = &mut self.txn {
            open.movable = false;
        }
        self.x.up.extend_from_slice(frame);
        self.x.expect(Expect::Query { mark: 0 });
        Fed::Next
    }

    /// What a call of the function of this OID may leave that nobody can ask for, and what it tells. The OIDs of users' own are
    /// not known: each may be any of them.
    fn of_function(&self, oid: u32) -> (Option<Pin>, Asks) {
        const SETSEED: u32 = 1599;
        const SET_CONFIG: u32 = 2078;
        const CURRVAL: u32 = 1575;
        const LASTVAL: u32 = 2559;
        let told = matches!(oid, CURRVAL | LASTVAL);
        let asks = Asks { sequence: told, undrawn: told, ..Asks::default() };
        match (oid, &self.router) {
            (SETSEED, _) => (Some(Pin::Other), asks),
            (SET_CONFIG, _) => (Some(Pin::SetConfig), asks),
            (16384.., Some((_, router))) => {
                let catalog = router.catalog();
                let leaves = catalog.leavers.most().filter(|leaves| *leaves > Leaves::Traces);
                let prepared = catalog.tell_statements.most().is_some();
                let channels = catalog.tell_channels.most().is_some();
                (leaves.map(Pin::from), Asks { prepared, channels, ..asks })
            }
            (16384.., None) => (Some(Pin::Other), asks),
            _ => (None, asks),
        }
    }

    fn unsupported(&mut self, what: &str) -> Fed {
        let report = ErrorReport::error(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} are not supported"))
            .with_hint("Use SELECT function(…).");
        self.refuse_simple(&report);
        Fed::Next
    }
}
