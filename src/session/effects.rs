//! What completed statements change in the session: settings, savepoints, pins.
//! Must not do I/O.

use super::client::Client;
use super::ears::Intent;
use super::txn::{Open, Savepoint, Txn};
use crate::exec::Done;
use crate::pool::StatementKey;
use crate::route::{Kind, SetParameter, TransactionModes};

impl Client {
    /// Works through what the relay has seen.
    pub(super) fn note_done(&mut self) {
        let mut failed = self.count_finished().into_iter();
        for done in std::mem::take(&mut self.x.done) {
            match done {
                Done::Command { mark, tag } => self.completed(mark, &tag),
                Done::Prepared(_) => {}
                Done::NotPrepared(key) => self.not_prepared(key),
                Done::Error(fields) => {
                    self.record_server_error(&fields, failed.next().flatten());
                    self.turn.skip |= self.turn.split;
                    self.failed();
                }
            }
        }
    }

    /// A server never got, or refused, a statement: neither has the client got it, if it was the one to prepare it.
    fn not_prepared(&mut self, key: StatementKey) {
        if let Some(server) = &mut self.server {
            server.prepared.remove(key);
        }
        let fresh = std::mem::take(&mut self.turn.fresh);
        for name in fresh {
            if self.statements.get(&name).is_some_and(|s| s.key == key) {
                self.statements.remove(&name);
            } else {
                self.turn.fresh.push(name);
            }
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
            Kind::Ddl => self.turn.read_schema = true,
            Kind::Deallocate(_) => self.turn.spoiled = true,
            Kind::Discard(what) => self.turn.spoiled |= what == "ALL",
            Kind::Query if statement_may_define(tag) => self.turn.read_schema = true,
            Kind::Empty
            | Kind::Query
            | Kind::CopyIn
            | Kind::SetConfig(_)
            | Kind::Show(_)
            | Kind::Listen(_)
            | Kind::Unlisten(_)
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
                self.txn = Txn::Open(Box::new(Open::found(saved)));
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
        self.turn.read_schema = false;
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
