//! Where a statement goes, the server at hand and the transaction being as they are, and what is noted of it.
//! Must not do I/O.

use super::behind::{only_defines, redefines};
use super::client::{Client, Effect, Place};
use super::feed::Step;
use super::join::Joined;
use super::local::aborted;
use super::txn::Txn;
use crate::catalog::{Leaves, leaves_by_text};
use crate::cluster::Need;
use crate::exec::Expect;
use crate::route::{
    Access, Kind, Pin, Route, RouteError, SetParameter, Statement, Target, Verb, changes_beginnings,
    databases_to_leave,
};
use crate::shard::ShardId;
use crate::wire::FrontendWriter;

impl Client {
    /// What a route asks of the server that is, or is not, at hand. `None`: it is the right one.
    pub(super) fn place(&mut self, route: &Route) -> Result<Option<Step>, RouteError> {
        let shard = match route.target {
            Target::Shard(shard) => Some(shard),
            Target::Any => None,
            Target::Fanout(_) => return self.place_fanout(),
        };
        if self.is_held_failed() {
            return Err(aborted());
        }
        if route.asks.sequence {
            self.will_ask_for_sequence();
        }
        let read = route.access == Access::Read && route.pin.is_none();
        if self.server.is_none()
            && let Some(step) = self.lease_for(shard, read)
        {
            return Ok(Some(step));
        }
        let Some(server) = &self.server else { return Ok(Some(Step::End)) };
        let here = server.server().shard;
        let same_shard = shard.is_none_or(|s| s == here);
        if self.is_open_failed()
            || (same_shard && (read || !server.is_replica() || matches!(self.txn, Txn::Open(_))))
        {
            self.may_pin(route)?;
            return Ok(self.must_claim(route));
        }
        if let Txn::Open(open) = &self.txn {
            if open.movable && !self.x.is_batch_open() {
                return Ok(Some(if self.x.is_drained() { Step::Move } else { Step::Drain }));
            }
            return Err(self.second_shard(shard));
        }
        if !self.x.is_batch_open() {
            return Ok(Some(Step::Drain));
        }
        if self.turn.batch_wrote {
            return Err(self.second_shard(shard));
        }
        self.close_batch();
        Ok(Some(Step::Drain))
    }

    /// Ends the batch on its server without the client's Sync: what it did were reads, so nothing is lost by it.
    pub(super) fn close_batch(&mut self) {
        self.x.up.put_sync();
        self.x.expect(Expect::Sync { forward: false });
        self.turn.only_reads = false;
        self.turn.divided = true;
    }

    /// A server of a shard; `None`: one was idle and has joined already.
    pub(super) fn lease_for(&mut self, shard: Option<ShardId>, read: bool) -> Option<Step> {
        let default = self.default_shard();
        // Of several that are kept, a cursor can be read on one only.
        let cursor = self.kept.iter().find(|k| k.pins.contains(&Pin::HoldCursor));
        let kept = cursor.or_else(|| self.kept.first()).map(|k| k.leased.server().shard);
        let shard = shard.or(kept).unwrap_or(default);
        let replica = match &self.txn {
            Txn::None => read,
            Txn::Held(held) => {
                read && held.modes.read_only == Some(true) && held.modes.isolation != Some("SERIALIZABLE")
            }
            Txn::Open(_) => false,
        };
        let need = if replica { self.read_need(shard) } else { Need::PRIMARY };
        match self.join_now(shard, need) {
            Joined::Now => None,
            Joined::With(leased) => Some(Step::Apply(leased)),
            Joined::Waits => Some(Step::Queue { shard, need }),
        }
    }

    pub(super) fn place_fanout(&mut self) -> Result<Option<Step>, RouteError> {
        if !self.txn.is_none() {
            return Err(RouteError::Refused {
                what: "a statement over several shards inside a transaction".into(),
                hint: "Add a condition on the sharding key, or run it outside BEGIN … COMMIT.".into(),
            });
        }
        if self.server.is_none() {
            return Ok(None);
        }
        if self.x.is_batch_open() {
            if self.turn.batch_wrote {
                return Err(self.second_shard(None));
            }
            self.close_batch();
        }
        Ok(Some(Step::Drain))
    }

    pub(super) fn second_shard(&self, wanted: Option<ShardId>) -> RouteError {
        let Place::Database { served, .. } = &self.place else {
            return RouteError::Refused { what: "this statement".into(), hint: String::new() };
        };
        let name = |shard| served.cluster.shard_name(shard);
        let here =
            self.server.as_ref().map_or_else(|| "another".to_owned(), |s| s.server().shard_name.clone());
        let wanted = wanted.map_or_else(|| "other shards".to_owned(), |s| format!("shard \"{}\"", name(s)));
        RouteError::Refused {
            what: format!("the transaction is on shard \"{here}\", and this statement needs {wanted}"),
            hint: "A transaction stays on one shard; commit it first, or use keys of the same shard.".into(),
        }
    }

    pub(super) fn default_shard(&self) -> ShardId {
        match &self.place {
            Place::Database { served, .. } => served.cluster.config().map.default_shard,
            Place::Admin => ShardId(0),
        }
    }

    /// Takes note of what a statement that goes out will do to the session. The mark for its [`Expect`].
    pub(super) fn note_statement(
        &mut self,
        (statement, text): (&Statement, &[u8]),
        route: &Route,
        sets: Vec<SetParameter>,
    ) -> u32 {
        if route.access == Access::Write {
            self.turn.wrote = true;
            self.turn.batch_wrote = true;
        }
        if route.access != Access::Read {
            self.turn.only_reads = false;
        }
        if let Txn::Open(open) = &mut self.txn {
            let harmless = route.access == Access::Read && route.pin.is_none() && !route.binds_transaction;
            let tracked = matches!(
                statement.kind(),
                Kind::Set(_)
                    | Kind::Reset(_)
                    | Kind::SetConfig(_)
                    | Kind::Savepoint(_)
                    | Kind::Release(_)
                    | Kind::RollbackTo(_)
                    | Kind::SetTransaction(_)
            );
            open.movable &= route.target == Target::Any && (harmless || tracked);
        }
        self.note_doubt((statement, text), route.pin);
        if matches!(statement.kind(), Kind::Ddl) {
            self.turn.runs_more |= !only_defines(text);
            self.turn.redefines |= redefines(text) || self.fires_events();
            self.turn.renews |= changes_beginnings(text.get(statement.span.clone()).unwrap_or(text));
            let made = leaves_by_text(&String::from_utf8_lossy(text));
            self.turn.makes = self.turn.makes.max(made.filter(|made| *made > Leaves::Traces));
            let names = databases_to_leave(text);
            if !names.is_empty() {
                self.proxy.leave_databases(names);
            }
        }
        let pin = route.pin.filter(|pin| pin.is_cause());
        if route.verb == Verb::Other && matches!(pin, Some(Pin::SetConfig | Pin::Other)) {
            self.pinned_by(pin); // code may commit and then fail
        }
        if self.turn.makes.is_some() && matches!(statement.kind(), Kind::Query | Kind::SqlPrepare) {
            self.pinned_by(self.turn.makes.map(Pin::from)); // the catalogs do not have it yet
        }
        let plain = matches!(statement.kind(), Kind::Query | Kind::CopyIn | Kind::Empty | Kind::Show(_));
        if plain && pin.is_none() {
            return 0;
        }
        if !plain {
            self.turn.barrier = true;
        }
        let commits = matches!(statement.kind(), Kind::Commit { .. });
        if matches!(statement.kind(), Kind::Ddl) || commits && (self.turn.read_schema || self.turn.redefines)
        {
            // Whoever hears that it is done, from this client too, may rely on it: the catalogs are read before.
            self.x.hold_ready(true);
            self.begin_flux(commits);
        }
        self.turn.committing |= matches!(statement.kind(), Kind::Commit { .. } | Kind::TwoPhase);
        self.turn.effects.push(Effect { statement: statement.clone(), pin, sets });
        self.turn.effects.len() as u32
    }
}
