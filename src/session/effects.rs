//! What completed statements change in the session: settings, savepoints, pins.
//! Must not do I/O.

use std::sync::Arc;

use super::client::{Change, Client, Deferred};
use super::ears::Intent;
use super::feed::Step;
use super::prepared::{ClientStatement, shape_of};
use super::txn::{Open, Savepoint, Txn};
use crate::exec::Done;
use crate::pool::StatementKey;
use crate::route::{Kind, SetParameter, TransactionModes};

impl Client {
    /// Works through what the relay has seen.
    pub(super) fn note_done(&mut self) {
        if self.x.done.is_empty() && self.x.finishes.is_empty() {
            return;
        }
        let mut failed = self.count_finished().into_iter();
        if self.x.done.is_empty() {
            return;
        }
        for done in std::mem::take(&mut self.x.done) {
            match done {
                Done::Command { mark, tag } => self.completed(mark, &tag),
                Done::Described { key, parameters, columns } => {
                    self.described(key, &parameters, columns.as_deref());
                }
                Done::NotPrepared(key) => {
                    if let Some(server) = &mut self.server {
                        server.prepared.remove(key);
                    }
                }
                Done::NotClosed(key) => {
                    if let Some(server) = &mut self.server {
                        server.prepared.restore(key);
                    }
                }
                Done::Unchanged(number) => self.take_back(number),
                Done::Refused => self.failed(),
                Done::CutShort => self.turn.skip = true,
                Done::NoUnnamed(owed) => self.no_unnamed(owed),
                Done::Error(fields) => {
                    self.record_server_error(&fields, failed.next().flatten());
                    self.failed();
                }
            }
        }
    }

    /// A server has said what a statement looks like: it is kept with the server's, and with the client's if that is
    /// what the client has just prepared.
    fn described(&mut self, key: StatementKey, parameters: &[u8], columns: Option<&[u8]>) {
        let shape = Arc::new(shape_of(parameters, columns));
        if let Some(server) = &mut self.server {
            server.prepared.describe(key, &shape);
        }
        self.turn.learning.retain(|statement| {
            let is_it = statement.key == key;
            if is_it {
                // One that is known already is what the client was told: it stays.
                if statement.shape.get_or_init(|| shape.clone()).columns != shape.columns {
                    self.turn.other_shape = true;
                }
            }
            !is_it
        });
    }

    /// Notes that a name of a statement has changed. Its number.
    pub(super) fn changed(&mut self, name: &str, before: Option<Arc<ClientStatement>>) -> u32 {
        self.turn.changes.push(Change { name: name.to_owned(), before, undone: false });
        self.turn.changes.len() as u32
    }

    /// Whether what a name stands for is known only when more has been answered: an earlier batch has changed it last, and
    /// an error in that one, before it, would skip the change.
    pub(super) fn sure_of(&mut self, name: &str) -> Option<Step> {
        let turn = &mut self.turn;
        if !self.x.is_owed() {
            turn.sure = turn.closed;
            return None;
        }
        let last = turn.changes.iter().rposition(|change| !change.undone && change.name == name)?;
        if (turn.sure..turn.closed).contains(&last) { self.settle_first() } else { None }
    }

    /// A change of a name was skipped. Of several, the last is to be taken back first.
    pub(super) fn take_back(&mut self, number: u32) {
        let from = (number as usize).checked_sub(1).and_then(|at| self.turn.changes.get_mut(at..));
        let Some((change, later)) = from.and_then(<[_]>::split_first_mut) else { return };
        let (name, before) = (std::mem::take(&mut change.name), change.before.take());
        change.undone = true;
        // A later batch has changed it again: that stays, but for what it would be taken back to.
        if let Some(again) = later.iter_mut().find(|again| !again.undone && again.name == name) {
            again.before = before;
            return;
        }
        match before {
            Some(before) => drop(self.statements.insert(&name, before)),
            None => drop(self.statements.remove(&name)),
        }
    }

    /// Parse of the unnamed statement has failed, which left none: what later batches, the first of which changes names
    /// from the number `owed` on, have made of it stays.
    fn no_unnamed(&mut self, owed: Option<u32>) {
        let waiting = |deferred: &Deferred| match deferred {
            Deferred::Parse(_, number) | Deferred::Local(_, number) => Some(*number).filter(|n| *n > 0),
            Deferred::Describe(_) | Deferred::Again(..) => None,
        };
        let owed = owed.or_else(|| self.turn.deferred.iter().find_map(waiting));
        let later = owed.and_then(|number| self.turn.changes.get_mut(number as usize - 1..));
        let again = later.and_then(|later| later.iter_mut().find(|c| !c.undone && c.name.is_empty()));
        match again {
            Some(again) => again.before = None,
            None => drop(self.statements.remove("")),
        }
    }

    /// An error outside an explicit transaction undoes what the same implicit one has set.
    fn failed(&mut self) {
        if let Some(server) = &mut self.server {
            server.unnamed = None;
        }
        if !matches!(self.txn, Txn::Open(_))
            && let Some(saved) = &self.turn.saved
        {
            self.vars = saved.clone();
        }
        if self.txn.is_none() && std::mem::take(&mut self.turn.hears_by_text) {
            self.intents_dropped();
        }
    }

    fn completed(&mut self, mark: u32, tag: &str) {
        let Some(effect) = self.turn.effects.get(mark as usize - 1) else { return };
        let (statement, sets, pin) = (effect.statement.clone(), effect.sets.clone(), effect.pin);
        self.pinned_by(pin);
        for set in &sets {
            self.set_completed(set);
        }
        self.apply(statement.kind(), tag);
    }

    fn apply(&mut self, kind: &Kind, tag: &str) {
        match kind {
            Kind::Set(set) => self.set_completed(set),
            Kind::Reset(name) => self.reset_completed(name.as_deref()),
            Kind::Commit { chain } if tag == "ROLLBACK" => self.rolled_back(*chain),
            Kind::Rollback { chain } => self.rolled_back(*chain),
            Kind::Commit { chain } => self.committed(*chain),
            Kind::Begin(modes) => self.begun(modes),
            Kind::Savepoint(name) => {
                if let Txn::Open(open) = &mut self.txn {
                    let (vars, after) = (self.vars.clone(), open.after.clone());
                    open.savepoints.push(Savepoint { name: name.clone(), vars, after });
                    open.intents.push(Intent::Savepoint(name.as_str().into()));
                    open.replay.push(savepoint("SAVEPOINT", name));
                }
            }
            Kind::Release(name) => {
                if let Txn::Open(open) = &mut self.txn {
                    open.release(name);
                    open.intents.release(name);
                    open.replay.push(savepoint("RELEASE SAVEPOINT", name));
                }
            }
            Kind::RollbackTo(name) => {
                if let Txn::Open(open) = &mut self.txn {
                    open.intents.roll_back_to(name);
                    if let Some(vars) = open.roll_back_to(name) {
                        self.vars = vars;
                    }
                    open.replay.push(savepoint("ROLLBACK TO SAVEPOINT", name));
                }
            }
            Kind::SetTransaction(modes) => {
                if let Txn::Open(open) = &mut self.txn {
                    open.modes = open.modes.overlaid(modes);
                }
            }
            Kind::Listen(_) | Kind::Unlisten(_) => self.hear_completed(kind),
            Kind::Ddl => self.turn.read_schema |= self.turn.redefines,
            Kind::Deallocate(Some(name)) if self.owns_names() => drop(self.statements.remove(name)),
            Kind::Deallocate(None) if self.owns_names() => self.statements.clear(),
            Kind::Deallocate(name) => {
                // Those of the proxy's own may be gone.
                self.turn.spoiled |= name.as_ref().is_none_or(|name| name.starts_with("pgherd_"));
            }
            Kind::Discard(what) => self.turn.spoiled |= what == "ALL",
            Kind::Query if statement_may_define(tag) => {
                (self.turn.read_schema, self.turn.runs_more) = (true, true);
            }
            Kind::Empty
            | Kind::Query
            | Kind::CopyIn
            | Kind::SetConfig(_)
            | Kind::Show(_)
            | Kind::Virtual(_)
            | Kind::Command(_)
            | Kind::SqlPrepare
            | Kind::TwoPhase => {}
        }
    }

    fn set_completed(&mut self, set: &SetParameter) {
        let sql = self.replayable(set);
        if set.is_of_transaction() {
            if let Txn::Open(open) = &mut self.txn {
                open.replay.push(sql);
            }
            return;
        }
        if let Txn::Open(open) = &mut self.txn {
            open.replay.push(sql);
            if set.local {
                open.after.get_or_insert_with(|| self.vars.clone());
                self.vars = self.vars.with_local(set);
                return;
            }
            if let Some(after) = &mut open.after {
                *after = after.with(set);
            }
        } else if set.local {
            return; // no transaction block: it ends with its statement
        }
        self.vars = self.vars.with(set);
        self.turn.touched = true;
    }

    /// A SET as it is sent again when its transaction moves to another server.
    fn replayable(&self, set: &SetParameter) -> String {
        let settings = &self.vars.settings;
        let default = set.values.is_empty().then(|| settings.to_login(Some(&set.name), set.local)).flatten();
        default.unwrap_or_else(|| set.statement())
    }

    fn reset_completed(&mut self, name: Option<&str>) {
        if let Txn::Open(open) = &mut self.txn {
            let plain = || name.map_or_else(|| "RESET ALL".to_owned(), |name| format!("RESET {name}"));
            open.replay.push(self.vars.settings.to_login(name, false).unwrap_or_else(plain));
            if let Some(after) = &mut open.after {
                *after = after.reset(name);
            }
        }
        self.vars = self.vars.reset(name);
        self.turn.touched = true;
    }

    /// BEGIN ran on a server: within a text of several statements, or once more in a transaction.
    fn begun(&mut self, modes: &TransactionModes) {
        match &mut self.txn {
            Txn::Open(open) => open.modes = open.modes.overlaid(modes),
            Txn::None | Txn::Held(_) => {
                // What the same text did before belongs to the transaction too.
                let saved = self.turn.saved.clone().unwrap_or_else(|| self.vars.clone());
                let intents = std::mem::take(&mut self.turn.intents);
                self.txn = Txn::Open(Box::new(Open { intents, ..Open::found(saved) }));
            }
        }
    }

    /// The settings stay from here on, whatever the same text does next.
    fn committed(&mut self, chain: bool) {
        self.intents_committed();
        if let Txn::Open(open) = &mut self.txn {
            if let Some(after) = open.after.take() {
                self.vars = after;
                self.turn.touched = true;
            }
            open.saved = self.vars.clone();
            open.savepoints.clear();
            open.replay.clear();
        }
        self.turn.saved = Some(self.vars.clone());
        self.ended(chain);
    }

    fn rolled_back(&mut self, chain: bool) {
        self.intents_dropped();
        let saved = match &mut self.txn {
            Txn::Open(open) => {
                open.after = None;
                open.savepoints.clear();
                open.replay.clear();
                Some(open.saved.clone())
            }
            Txn::None | Txn::Held(_) => self.turn.saved.clone(),
        };
        if let Some(saved) = saved {
            self.turn.saved = Some(saved.clone());
            self.vars = saved;
            self.turn.touched = true;
        }
        (self.turn.read_schema, self.turn.runs_more, self.turn.renews) = (false, false, false);
        self.ended(chain);
    }

    /// What follows in the same text or batch is outside the transaction, or in the next one.
    fn ended(&mut self, chain: bool) {
        match &mut self.txn {
            Txn::Open(open) if !chain => {
                self.turn.wrote |= open.wrote;
                self.txn = Txn::None;
            }
            Txn::Open(open) => open.movable = false,
            Txn::None | Txn::Held(_) => {}
        }
    }
}

fn savepoint(verb: &str, name: &str) -> String {
    format!("{verb} \"{}\"", name.replace('"', "\"\""))
}

/// A call or anonymous block may have run DDL.
fn statement_may_define(tag: &str) -> bool {
    matches!(tag, "DO" | "CALL") || tag.starts_with("SELECT INTO") || tag.starts_with("CREATE ")
}
