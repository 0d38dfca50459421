//! What completed statements change in the session: settings, savepoints, pins.
//! Must not do I/O.

use super::client::Client;
use super::ears::Intent;
use super::txn::Txn;
use crate::exec::Done;
use crate::pool::StatementKey;
use crate::route::{Kind, SetParameter, Statement};

impl Client {
    /// Works through what the relay has seen.
    pub(super) fn note_done(&mut self) {
        for done in std::mem::take(&mut self.x.done) {
            match done {
                Done::Command { mark, tag } => self.completed(mark, &tag),
                Done::Prepared(_) => {}
                Done::NotPrepared(key) => self.not_prepared(key),
                Done::Error(fields) => {
                    self.record_server_error(&fields);
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
        self.turn.new_pins.retain(|pin| *pin != crate::route::Pin::TempTable);
        if !matches!(self.txn, Txn::Open(_))
            && let Some(saved) = &self.turn.saved
        {
            self.vars = saved.clone();
        }
    }

    fn completed(&mut self, mark: u32, tag: &str) {
        let Some(effect) = self.turn.effects.get(mark as usize - 1) else { return };
        let statement = effect.statement.clone();
        if let Some(pin) = effect.pin
            && !self.turn.new_pins.contains(&pin)
        {
            self.turn.new_pins.push(pin);
            self.stats.set_pin(Some(pin.as_str()));
        }
        self.apply(statement.kind(), tag, &statement);
    }

    fn apply(&mut self, kind: &Kind, tag: &str, statement: &Statement) {
        match kind {
            Kind::Set(set) => self.set_completed(set),
            Kind::Reset(name) => {
                // Within a text of several statements: what the server is left with is not tracked.
                self.vars = self.vars.reset(name.as_deref());
                self.turn.spoiled = true;
            }
            Kind::Commit { .. } if tag == "ROLLBACK" => self.rolled_back(),
            Kind::Commit { .. } => self.intents_committed(),
            Kind::Rollback { .. } => self.rolled_back(),
            Kind::Begin(modes) => {
                if let Txn::Open(open) = &mut self.txn {
                    open.modes = open.modes.overlaid(modes);
                }
            }
            Kind::Savepoint(name) => {
                let vars = self.vars.clone();
                if let Txn::Open(open) = &mut self.txn {
                    open.savepoints.push((name.clone(), vars));
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
            Kind::Deallocate(_) | Kind::Discard(_) => self.turn.spoiled = true,
            Kind::Query if statement_may_define(tag) => self.turn.read_schema = true,
            Kind::Empty
            | Kind::Query
            | Kind::CopyIn
            | Kind::Show(_)
            | Kind::Listen(_)
            | Kind::Unlisten(_)
            | Kind::Virtual(_)
            | Kind::Command(_)
            | Kind::SqlPrepare
            | Kind::TwoPhase => {}
        }
        let _ = statement;
    }

    fn set_completed(&mut self, set: &SetParameter) {
        if let Txn::Open(open) = &mut self.txn {
            if set.local {
                open.after.get_or_insert_with(|| self.vars.clone());
                open.replay.push(local(&set.sql));
                self.vars = self.vars.with_local(set);
                return;
            }
            if let Some(after) = &mut open.after {
                *after = after.with(set);
            }
            open.replay.push(set.sql.clone());
        } else if set.local {
            return; // a warning, no effect
        }
        self.vars = self.vars.with(set);
        self.turn.touched = true;
    }

    fn rolled_back(&mut self) {
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
            self.vars = saved;
            self.turn.touched = true;
        }
        self.turn.read_schema = false;
    }
}

fn savepoint(verb: &str, name: &str) -> String {
    format!("{verb} \"{}\"", name.replace('"', "\"\""))
}

/// `SET x …` as `SET LOCAL x …`.
fn local(sql: &str) -> String {
    match sql.split_once(char::is_whitespace) {
        Some((_, rest)) => format!("SET LOCAL {rest}"),
        None => sql.to_owned(),
    }
}

/// A call or anonymous block may have run DDL.
fn statement_may_define(tag: &str) -> bool {
    matches!(tag, "DO" | "CALL") || tag.starts_with("SELECT INTO") || tag.starts_with("CREATE ")
}
