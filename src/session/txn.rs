//! A client's transaction, as the proxy keeps it. No I/O inside.
//! Must not know sockets, servers or shards.

use std::sync::Arc;

use super::ears::Intents;
use super::vars::Vars;
use crate::route::TransactionModes;
use crate::wire::TransactionStatus;

/// Where a client stands between BEGIN and COMMIT.
#[derive(Debug, Default)]
pub(super) enum Txn {
    /// Nowhere: every statement is its own transaction.
    #[default]
    None,
    /// BEGIN was answered, but no shard has joined yet.
    Held(Box<Held>),
    /// A server is in the transaction.
    Open(Box<Open>),
}

/// A savepoint, and the settings at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Savepoint {
    pub(super) name: String,
    pub(super) vars: Arc<Vars>,
    /// As in [`Open`].
    pub(super) after: Option<Arc<Vars>>,
}

/// A transaction without a server.
#[derive(Debug)]
pub(super) struct Held {
    /// As BEGIN and SET TRANSACTION said.
    pub(super) modes: TransactionModes,
    /// A statement was refused: only its end is accepted.
    pub(super) failed: bool,
    /// What to send after BEGIN when a server joins: SETs and savepoints of the transaction so far.
    pub(super) replay: Vec<String>,
    /// To go back to on ROLLBACK.
    pub(super) saved: Arc<Vars>,
    /// As in [`Open`].
    pub(super) savepoints: Vec<Savepoint>,
    /// As in [`Open`].
    pub(super) after: Option<Arc<Vars>>,
    /// As in [`Open`].
    pub(super) intents: Intents,
}

/// A transaction on a server.
#[derive(Debug)]
pub(super) struct Open {
    /// As when it was held.
    pub(super) modes: TransactionModes,
    /// Only statements that any shard answers alike were run: it can still move to the shard of the first key.
    pub(super) movable: bool,
    /// Something was, or may have been, written.
    pub(super) wrote: bool,
    /// As in [`Held`].
    pub(super) replay: Vec<String>,
    /// To go back to on ROLLBACK.
    pub(super) saved: Arc<Vars>,
    /// Savepoints with the settings at each.
    pub(super) savepoints: Vec<Savepoint>,
    /// What the server said last.
    pub(super) failed: bool,
    /// After SET LOCAL: the session's variables once the transaction has ended.
    pub(super) after: Option<Arc<Vars>>,
    /// What will be heard once it has been committed.
    pub(super) intents: Intents,
}

impl Txn {
    /// What ReadyForQuery says when the proxy answers by itself.
    pub(super) fn status(&self) -> TransactionStatus {
        match self {
            Self::None => TransactionStatus::Idle,
            Self::Held(held) if held.failed => TransactionStatus::Failed,
            Self::Open(open) if open.failed => TransactionStatus::Failed,
            Self::Held(_) | Self::Open(_) => TransactionStatus::InTransaction,
        }
    }

    /// After SET LOCAL: what a SET of the whole session must change as well.
    pub(super) fn after_mut(&mut self) -> Option<&mut Arc<Vars>> {
        match self {
            Self::None => None,
            Self::Held(held) => held.after.as_mut(),
            Self::Open(open) => open.after.as_mut(),
        }
    }

    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// BEGIN: held until a statement needs a server.
    pub(super) fn begin(modes: TransactionModes, settings: &Arc<Vars>) -> Self {
        Self::Held(Box::new(Held {
            modes,
            failed: false,
            replay: Vec::new(),
            saved: settings.clone(),
            savepoints: Vec::new(),
            after: None,
            intents: Intents::default(),
        }))
    }
}

impl Held {
    /// The script that brings a server into this transaction. It starts with BEGIN, so that whatever fails after
    /// it leaves a failed transaction and nothing is run outside one.
    pub(super) fn script(&self) -> String {
        let mut sql = begin_statement(&self.modes);
        for statement in &self.replay {
            sql.push_str("; ");
            sql.push_str(statement);
        }
        sql
    }

    /// The same transaction once a server has joined.
    pub(super) fn open(self) -> Open {
        Open {
            modes: self.modes,
            movable: true,
            wrote: false,
            replay: self.replay,
            saved: self.saved,
            savepoints: self.savepoints,
            failed: false,
            after: self.after,
            intents: self.intents,
        }
    }
}

impl Open {
    /// One that the server opened by itself, within a text of several statements.
    pub(super) fn found(saved: Arc<Vars>) -> Self {
        Self {
            modes: TransactionModes::default(),
            movable: false,
            wrote: true,
            replay: Vec::new(),
            saved,
            savepoints: Vec::new(),
            failed: false,
            after: None,
            intents: Intents::default(),
        }
    }

    /// Back to a transaction that no server has joined.
    pub(super) fn hold(self) -> Held {
        Held {
            modes: self.modes,
            failed: false,
            replay: self.replay,
            saved: self.saved,
            savepoints: self.savepoints,
            after: self.after,
            intents: self.intents,
        }
    }

    /// ROLLBACK TO: later savepoints are gone; the settings are those of this one.
    pub(super) fn roll_back_to(&mut self, name: &str) -> Option<Arc<Vars>> {
        let at = self.savepoints.iter().rposition(|s| s.name == name)?;
        self.savepoints.truncate(at + 1);
        let savepoint = self.savepoints.last()?;
        self.after.clone_from(&savepoint.after);
        Some(savepoint.vars.clone())
    }

    /// RELEASE: it and later ones are gone.
    pub(super) fn release(&mut self, name: &str) {
        if let Some(at) = self.savepoints.iter().rposition(|s| s.name == name) {
            self.savepoints.truncate(at);
        }
    }
}

fn begin_statement(modes: &TransactionModes) -> String {
    let mut sql = String::from("BEGIN");
    if let Some(isolation) = modes.isolation {
        sql.push_str(" ISOLATION LEVEL ");
        sql.push_str(isolation);
    }
    match modes.read_only {
        Some(true) => sql.push_str(" READ ONLY"),
        Some(false) => sql.push_str(" READ WRITE"),
        None => {}
    }
    match modes.deferrable {
        Some(true) => sql.push_str(" DEFERRABLE"),
        Some(false) => sql.push_str(" NOT DEFERRABLE"),
        None => {}
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::SetParameter;

    #[test]
    fn a_held_transaction_is_begun_with_its_modes_and_all_that_was_set_in_it() {
        let modes = TransactionModes {
            isolation: Some("REPEATABLE READ"),
            read_only: Some(true),
            deferrable: Some(false),
        };
        let Txn::Held(mut held) = Txn::begin(modes, &Vars::of_startup(&[], false)) else {
            panic!("not held")
        };
        held.replay.push("SET LOCAL work_mem = '1MB'".into());
        assert_eq!(
            held.script(),
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY NOT DEFERRABLE; SET LOCAL work_mem = '1MB'"
        );
    }

    #[test]
    fn rolling_back_to_a_savepoint_restores_its_settings_and_drops_later_ones() {
        let base = Vars::of_startup(&[], false);
        let set = SetParameter {
            name: "work_mem".into(),
            local: false,
            values: vec!["1MB".into()],
            sql: "SET work_mem = '1MB'".into(),
        };
        let changed = base.with(&set);
        let mut open = Open::found(base.clone());
        let at = |name: &str, vars: &Arc<Vars>, after: Option<&Arc<Vars>>| Savepoint {
            name: name.into(),
            vars: vars.clone(),
            after: after.cloned(),
        };
        open.savepoints =
            vec![at("a", &base, None), at("b", &changed, Some(&base)), at("a", &changed, Some(&changed))];
        open.after = Some(changed.clone());
        assert_eq!(open.roll_back_to("b"), Some(changed));
        assert_eq!((open.savepoints.len(), &open.after), (2, &Some(base.clone())));
        open.release("a");
        assert!(open.savepoints.is_empty());
        assert_eq!(open.roll_back_to("a"), None);
    }
}
