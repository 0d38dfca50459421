//! From a client's messages to what is sent: each whole message is understood, placed, and put upstream.
//! Must not do I/O or await: what has to be waited for is returned as a [`Step`], and the message is kept.

use bytes::{Buf, Bytes, BytesMut};

use super::client::{Client, Deferred, Effect, Place};
use super::prepared::ClientStatement;
use super::turn::{FanoutPlan, ResetWhat};
use super::txn::Txn;
use crate::cluster::Need;
use crate::exec::Expect;
use crate::pool::StatementKey;
use crate::route::{Access, Kind, Route, RouteError, Statement, Target};
use crate::shard::ShardId;
use crate::wire::{
    BackendWriter, ClientFacing, DescribeTarget, ErrorReport, FrontendWriter, SqlState, WireError, peek_head,
};

/// Bytes of a turn that are kept to be tried again on another server.
const REPLAY_LIMIT: usize = 64 << 10;
/// A portal that no client can have: executing it makes a server fail in its turn.
const REFUSED_PORTAL: &str = "pgherd refuses";

/// What the feed needs before it can go on.
pub(super) enum Step {
    /// More bytes of the client, or answers of the server.
    Wait,
    /// A server of a shard.
    Lease { shard: ShardId, need: Need },
    /// All answers, and the end of the batch; the server is given back if no transaction is open.
    Drain,
    /// All answers owed so far; the batch may stay open.
    Settle,
    /// The movable transaction must leave its shard. Nothing is owed.
    Move,
    /// Many shards.
    Fanout(Box<FanoutPlan>),
    /// RESET or DISCARD ALL. Nothing is owed.
    Reset(ResetWhat),
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
}

impl Client {
    /// Works through the messages that are there.
    pub(super) fn feed(&mut self) -> Step {
        loop {
            let length = match self.next_message() {
                Ok(Some(length)) => length,
                Ok(None) => return Step::Wait,
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
                let part = self.inbuf.split_to(n);
                self.turn.copy_rest -= n;
                self.copy_bytes(part);
                if self.turn.copy_rest > 0 {
                    return Ok(None);
                }
            }
            if matches!(self.inbuf.first(), Some(b'd' | b'c' | b'f')) && self.copy_may_come() {
                return Ok(None);
            }
            if matches!(self.inbuf.first(), Some(b'd')) {
                // CopyData is not bound by the message limit: it is never held whole.
                let Some(head) = peek_head(&self.inbuf, usize::MAX)? else { return Ok(None) };
                self.turn.copy_rest = head.total();
                continue;
            }
            let max = self.config.limits.max_message;
            let Some(head) = peek_head(&self.inbuf, max)? else { return Ok(None) };
            if self.inbuf.len() < head.total() {
                self.inbuf.reserve(head.total() - self.inbuf.len());
                return Ok(None);
            }
            self.keep_for_replay(head.total());
            return Ok(Some(head.total()));
        }
    }

    /// Whether the server may still ask for the COPY data that the client has sent ahead: it waits for the answer.
    fn copy_may_come(&mut self) -> bool {
        self.turn.copy_waits = !self.x.is_copy_in() && self.x.is_owed();
        self.turn.copy_waits
    }

    fn copy_bytes(&mut self, part: BytesMut) {
        if self.x.is_copy_in() {
            // What was sent cannot be sent again.
            self.turn.only_reads = false;
            if self.x.up.is_empty() { self.x.up = part } else { self.x.up.extend_from_slice(&part) }
        }
        // Else the server has refused the COPY: data still under way is dropped, as PostgreSQL does.
    }

    fn keep_for_replay(&mut self, length: usize) {
        if self.replay.is_empty() && !self.x.is_owed() && !self.x.is_batch_open() {
            self.turn.only_reads = true;
        }
        let frame = self.inbuf.get(..length).unwrap_or_default();
        if self.turn.only_reads && self.replay.len() + frame.len() <= REPLAY_LIMIT {
            self.replay.extend_from_slice(frame);
        } else {
            self.turn.only_reads = false;
        }
    }

    /// The client does not speak the protocol: it is told and the session ends.
    fn broken(&mut self, error: &WireError) -> Step {
        let report = ErrorReport::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string());
        self.record_error(&report);
        if !self.x.is_owed() && !self.x.is_torn() {
            self.x.local(|out| out.put_report(&report));
        }
        Step::End
    }

    fn message(&mut self, frame: &[u8]) -> Result<Fed, WireError> {
        let Some((&tag, body)) = frame.split_first().and_then(|(tag, rest)| Some((tag, rest.get(4..)?)))
        else {
            return Ok(Fed::Next);
        };
        match tag {
            b'X' => return Ok(Fed::Until(Step::End)),
            b'c' | b'f' => {
                if self.x.is_copy_in() {
                    self.x.up.extend_from_slice(frame);
                    self.x.end_copy_in();
                }
                return Ok(Fed::Next);
            }
            b'S' if self.x.is_copy_in() => return Ok(Fed::Next), // ignored by a server that reads CopyData
            b'S' => return Ok(self.on_sync()),
            _ => {}
        }
        if self.x.is_copy_in() && tag != b'H' {
            // A server would lose step with its client here and end the session.
            return Err(WireError::Malformed {
                message: "COPY",
                what: "another message came instead of its data",
            });
        }
        if self.turn.skip || self.x.is_skipping() {
            return Ok(Fed::Next); // up to Sync nobody answers
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
            b'H' => Ok(self.on_flush()),
            b'F' => Ok(self.on_function_call(frame)),
            tag => Err(WireError::BadLength { tag, len: body.len() as u32 + 4 }),
        }
    }

    /// What a route asks of the server that is, or is not, at hand. `None`: it is the right one.
    pub(super) fn place(&mut self, route: &Route) -> Result<Option<Step>, RouteError> {
        let shard = match route.target {
            Target::Shard(shard) => Some(shard),
            Target::Any => None,
            Target::Fanout(_) => return self.place_fanout(),
        };
        let read = route.access == Access::Read && route.pin.is_none();
        let Some(server) = &self.server else { return Ok(Some(self.lease_for(shard, read))) };
        let here = server.server().shard;
        let same_shard = shard.is_none_or(|s| s == here);
        if self.is_open_failed()
            || (same_shard && (read || !server.is_replica() || matches!(self.txn, Txn::Open(_))))
        {
            return Ok(None);
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
        self.turn.split = true;
        self.x.up.put_sync();
        self.x.expect(Expect::Sync { forward: false });
        self.turn.only_reads = false;
    }

    fn lease_for(&mut self, shard: Option<ShardId>, read: bool) -> Step {
        let default = self.default_shard();
        let shard = shard.or_else(|| self.kept.first().map(|k| k.leased.server().shard)).unwrap_or(default);
        let replica = match &self.txn {
            Txn::None => read,
            Txn::Held(held) => {
                read && held.modes.read_only == Some(true) && held.modes.isolation != Some("SERIALIZABLE")
            }
            Txn::Open(_) => false,
        };
        let need = if replica { self.read_need(shard) } else { Need::PRIMARY };
        Step::Lease { shard, need }
    }

    fn place_fanout(&mut self) -> Result<Option<Step>, RouteError> {
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

    fn second_shard(&self, wanted: Option<ShardId>) -> RouteError {
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
    pub(super) fn note_statement(&mut self, statement: &Statement, route: &Route) -> u32 {
        self.stats.count_statement();
        self.turn.verb.get_or_insert(route.verb);
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
                    | Kind::Savepoint(_)
                    | Kind::Release(_)
                    | Kind::RollbackTo(_)
                    | Kind::SetTransaction(_)
            );
            open.movable &= route.target == Target::Any && (harmless || tracked);
        }
        let plain = matches!(statement.kind(), Kind::Query | Kind::CopyIn | Kind::Empty | Kind::Show(_));
        if plain && route.pin.is_none() {
            return 0;
        }
        if !plain {
            self.turn.barrier = true;
        }
        self.turn.committing |= matches!(statement.kind(), Kind::Commit { .. } | Kind::TwoPhase);
        self.turn.effects.push(Effect { statement: statement.clone(), pin: route.pin });
        self.turn.effects.len() as u32
    }

    /// A message whose answer is one of several owed: an error in its place.
    pub(super) fn refuse(&mut self, report: &ErrorReport) {
        // The message that waited is answered by this.
        let waited = self.take_current();
        self.turn.stash = None;
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
        self.record_error(report);
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
        self.record_error(report);
        let mut bytes = BytesMut::new();
        bytes.put_report(report);
        for deferred in std::mem::take(&mut self.turn.deferred) {
            if let Deferred::Parse(statement) = deferred {
                self.statements.remove(&statement.name);
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

    fn fail_held(&mut self) {
        if let Txn::Held(held) = &mut self.txn {
            held.failed = true;
        }
    }

    /// An answer of the proxy's own to the message at hand, complete with ReadyForQuery in the simple protocol.
    /// Nothing may be owed by a server.
    pub(super) fn complete_local(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let simple = self.take_current() == Some(b'Q');
        self.turn.stash = None;
        let status = self.status();
        self.x.local(|out| {
            write(out);
            if simple {
                out.put_ready(status);
            }
        });
    }

    fn on_sync(&mut self) -> Fed {
        if !self.turn.deferred.is_empty() {
            match self.place_deferred() {
                Ok(None) => {}
                Ok(Some(step)) => return Fed::Until(step),
                Err(error) => {
                    self.refuse_extended(&error.report());
                }
            }
        }
        self.turn.skip = false;
        if self.server.is_some() {
            self.x.up.put_sync();
            self.x.expect(Expect::Sync { forward: true });
        } else {
            let mut bytes = BytesMut::new();
            bytes.put_ready(self.status());
            self.x.say(bytes.freeze());
        }
        Fed::Next
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

    fn on_function_call(&mut self, frame: &[u8]) -> Fed {
        let Place::Database { served, .. } = &self.place else { return self.unsupported("function calls") };
        if !served.cluster.config().map.is_single() {
            return self.unsupported("the function-call protocol over several shards");
        }
        let route = Route {
            target: Target::Shard(self.default_shard()),
            access: Access::Write,
            verb: crate::route::Verb::Other,
            rewrite: None,
            pin: None,
            binds_transaction: true,
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
        self.turn.only_reads = false;
        if let Txn::Open(open) = &mut self.txn {
            open.movable = false;
        }
        self.x.up.extend_from_slice(frame);
        self.x.expect(Expect::Query { mark: 0 });
        Fed::Next
    }

    fn unsupported(&mut self, what: &str) -> Fed {
        let report = ErrorReport::error(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} are not supported"))
            .with_hint("Use SELECT function(…).");
        self.refuse_simple(&report);
        Fed::Next
    }

    /// Where Parse and Describe go that no Bind has given a direction: the shard whose tables they name.
    pub(super) fn place_deferred(&mut self) -> Result<Option<Step>, RouteError> {
        if self.turn.deferred.iter().all(|d| matches!(d, Deferred::Local(_))) {
            self.emit_deferred(None);
            return Ok(None);
        }
        if self.server.is_none() {
            let shard = self.home_of_deferred();
            return Ok(Some(self.lease_for(shard, true)));
        }
        self.emit_deferred(None);
        Ok(None)
    }

    /// The shard that has the tables of the first waiting statement, if one has them all.
    fn home_of_deferred(&self) -> Option<ShardId> {
        let Place::Database { served, .. } = &self.place else { return None };
        let router = served.router_now()?;
        self.turn.deferred.iter().find_map(|deferred| {
            let (Deferred::Parse(statement) | Deferred::Describe(statement)) = deferred else { return None };
            let parsed = statement.statement.as_ref()?;
            match parsed.route(&router, &statement.sql, &[], &self.vars.env) {
                Ok(Route { target: Target::Shard(shard), .. }) => Some(shard),
                // Without its values it may be refused, or spread: that is Bind's to say.
                Ok(_) | Err(_) => parsed.home(),
            }
        })
    }

    /// Puts waiting messages upstream. `rewritten`: the text that stands for a statement's own.
    pub(super) fn emit_deferred(&mut self, rewritten: Option<(&ClientStatement, &Bytes, StatementKey)>) {
        for deferred in std::mem::take(&mut self.turn.deferred) {
            match deferred {
                Deferred::Local(bytes) => self.x.say(bytes),
                Deferred::Parse(statement) => {
                    let (sql, key) = match rewritten {
                        Some((of, sql, key)) if std::ptr::eq(of, &*statement) => (sql, key),
                        _ => (&statement.sql, statement.key),
                    };
                    self.emit_parse(&statement.name, sql, &statement.types, key, true);
                }
                Deferred::Describe(statement) => {
                    let (sql, key) = match rewritten {
                        Some((of, sql, key)) if std::ptr::eq(of, &*statement) => (sql, key),
                        _ => (&statement.sql, statement.key),
                    };
                    self.ensure_prepared(&statement.name, sql, &statement.types, key);
                    let name = server_name(&statement.name, key);
                    self.x.up.put_target(b'D', DescribeTarget::Statement(&name));
                    self.x.expect(Expect::DescribeStatement);
                }
            }
        }
    }

    /// Makes sure that the server holds a statement, by a Parse of the proxy's own if need be.
    pub(super) fn ensure_prepared(
        &mut self,
        client_name: &str,
        sql: &Bytes,
        types: &Bytes,
        key: StatementKey,
    ) {
        let Some(server) = &mut self.server else { return };
        let held =
            if client_name.is_empty() { server.unnamed == Some(key) } else { server.prepared.touch(key) };
        if !held {
            self.emit_parse(client_name, sql, types, key, false);
        }
    }

    fn emit_parse(&mut self, client_name: &str, sql: &Bytes, types: &Bytes, key: StatementKey, asked: bool) {
        let Some(server) = &mut self.server else { return };
        if client_name.is_empty() {
            server.unnamed = Some(key);
            self.x.up.put_parse("", sql, types);
            self.x.expect(Expect::Parse { forward: asked, key: None });
            return;
        }
        if server.prepared.touch(key) {
            if asked {
                let mut bytes = BytesMut::new();
                bytes.put_empty(b'1');
                self.x.say(bytes.freeze());
            }
            return;
        }
        if let Some(oldest) = server.prepared.insert(key) {
            self.x.up.put_target(b'C', DescribeTarget::Statement(&oldest.server_name()));
            self.x.expect(Expect::Close { forward: false });
        }
        self.x.up.put_parse(&key.server_name(), sql, types);
        self.x.expect(Expect::Parse { forward: asked, key: Some(key) });
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

/// What a statement is called on a server.
pub(super) fn server_name(client_name: &str, key: StatementKey) -> String {
    if client_name.is_empty() { String::new() } else { key.server_name() }
}
