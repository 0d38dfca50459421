//! Statements that the proxy answers itself: transaction control without a server, its own parameters, virtual
//! tables.
//! Must not do I/O; nothing is owed by a server when an answer is made.

use bytes::{Bytes, BytesMut};

use super::client::{Client, Place};
use super::ears::{Intent, intent_of, put_tags};
use super::feed::Step;
use super::prepared::ClientStatement;
use super::txn::Txn;
use super::vars::{READ_CONSISTENCY, consistency_of};
use super::virtual_answer;
use crate::admin::AdminError;
use crate::config::{PoolMode, ReadConsistency};
use crate::route::{Kind, RouteError, SetParameter, TransactionModes};
use crate::rows;
use crate::wire::{
    BackendWriter, BindView, ClientFacing, ErrorReport, FieldDescription, Severity, SqlState, WireError,
};

/// A statement that the proxy answers itself.
#[derive(Debug, Clone)]
pub(super) enum Local {
    Empty,
    Begin(TransactionModes),
    Commit { chain: bool },
    Rollback { chain: bool },
    SetTransaction(TransactionModes),
    Set(SetParameter),
    Show(String),
    Virtual(std::sync::Arc<rows::Select>),
    Deallocate(Option<String>),
    Reset(Option<String>),
    DiscardAll,
    Listen(Intent),
    Command(Vec<String>),
}

/// OID of `text` and its length, for SHOW.
const TEXT: (u32, i16) = (25, -1);

impl Client {
    /// Whether the proxy answers a statement of this kind itself, the transaction being as it is.
    pub(super) fn local(&self, kind: &Kind) -> Result<Option<Local>, RouteError> {
        if self.is_held_failed() {
            if matches!(kind, Kind::Commit { .. } | Kind::Rollback { .. }) {
                return Ok(Some(Local::Rollback { chain: false }));
            }
            return if matches!(kind, Kind::Empty) { Ok(Some(Local::Empty)) } else { Err(aborted()) };
        }
        // What a batch has begun on its server before Sync is a transaction there, which BEGIN makes one of its own,
        // and ROLLBACK undoes.
        let open = matches!(self.txn, Txn::Open(_)) || (self.server.is_some() && self.x.is_batch_open());
        if self.status() == crate::wire::TransactionStatus::Failed {
            return Ok(matches!(kind, Kind::Empty).then_some(Local::Empty));
        }
        // AND CHAIN outside a transaction is an error, which a server words best.
        let without_server = |chain: bool| !open && (!chain || !self.txn.is_none());
        let local = match kind {
            Kind::Empty => Some(Local::Empty),
            Kind::Begin(modes) if !open => Some(Local::Begin(modes.clone())),
            Kind::Commit { chain } if without_server(*chain) => Some(Local::Commit { chain: *chain }),
            Kind::Rollback { chain } if without_server(*chain) => Some(Local::Rollback { chain: *chain }),
            Kind::SetTransaction(modes) if matches!(&self.txn, Txn::Held(held) if held.replay.is_empty()) => {
                Some(Local::SetTransaction(modes.clone()))
            }
            Kind::Set(set) if set.name.starts_with("pgherd.") => Some(Local::Set(set.clone())),
            Kind::Reset(Some(name)) if name == "statements" && matches!(self.place, Place::Admin) => {
                Some(Local::Command(vec!["RESET".to_owned(), "STATEMENTS".to_owned()]))
            }
            Kind::Reset(name)
                if matches!(self.place, Place::Admin)
                    || name.as_ref().is_some_and(|n| n.starts_with("pgherd.")) =>
            {
                Some(Local::Reset(name.clone()))
            }
            Kind::Show(name) if self.is_own_show(name) => Some(Local::Show(name.clone())),
            Kind::Virtual(select) => {
                self.must_be_admin()?;
                Some(Local::Virtual(select.clone()))
            }
            Kind::Deallocate(name) if self.knows(name.as_deref()) => Some(Local::Deallocate(name.clone())),
            Kind::Discard(what) if what == "ALL" && self.txn.is_none() => Some(Local::DiscardAll),
            Kind::Listen(_) | Kind::Unlisten(_) if self.hears_by_hub() => {
                if self.vars.env.foreign_encoding {
                    return Err(no_listen_in_foreign_encoding());
                }
                intent_of(kind).map(Local::Listen)
            }
            Kind::Command(words) if matches!(self.place, Place::Admin) => Some(Local::Command(words.clone())),
            Kind::Begin(_)
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::SetTransaction(_)
            | Kind::Set(_)
            | Kind::Reset(_)
            | Kind::Show(_)
            | Kind::Deallocate(_)
            | Kind::Discard(_)
            | Kind::Command(_)
            | Kind::Query
            | Kind::CopyIn
            | Kind::SetConfig(_)
            | Kind::Savepoint(_)
            | Kind::Release(_)
            | Kind::RollbackTo(_)
            | Kind::SqlPrepare
            | Kind::TwoPhase
            | Kind::Listen(_)
            | Kind::Unlisten(_)
            | Kind::Ddl => None,
        };
        if local.is_none() && matches!(self.place, Place::Admin) {
            return Err(RouteError::Refused {
                what: "database \"pgherd\" holds virtual tables only; this statement cannot be run there"
                    .into(),
                hint: "SHOW HELP lists what it answers.".into(),
            });
        }
        Ok(local)
    }

    fn herd(&self) -> crate::admin::Herd {
        self.proxy.herd(&self.stats.info().database, &self.user.name)
    }

    /// DEALLOCATE of a statement that the proxy keeps; SQL-level ones are on a server.
    fn knows(&self, name: Option<&str>) -> bool {
        if self.owns_names() {
            return name.and_then(|name| self.statements.get(name)).is_some_and(|s| self.is_proxys_own(s));
        }
        let on_server = self.kept.iter().any(|k| k.pins.contains(&crate::route::Pin::SqlPrepare));
        name.map_or(!on_server, |n| self.statements.get(n).is_some() || !on_server)
    }

    /// Whether the database's hub listens for this client, not a server that it keeps.
    pub(super) fn hears_by_hub(&self) -> bool {
        matches!(self.place, Place::Database { .. }) && self.pool_mode() == PoolMode::Transaction
    }

    fn must_be_admin(&self) -> Result<(), RouteError> {
        if self.user.admin {
            return Ok(());
        }
        Err(RouteError::Sql {
            code: SqlState::INSUFFICIENT_PRIVILEGE,
            message: "permission denied for schema pgherd".into(),
            detail: None,
            hint: Some("Only users with admin = true in the configuration may read it.".into()),
        })
    }

    /// SHOW of the proxy's own: its parameters, and for an admin the virtual tables.
    pub(super) fn is_own_show(&self, name: &str) -> bool {
        name.starts_with("pgherd.") || (self.user.admin && crate::admin::is_table(name))
    }

    /// What an answer needs that only a turn can do.
    pub(super) fn step_of(&mut self, local: &Local) -> Option<Step> {
        match local {
            Local::Commit { .. } if self.must_hear_ahead() => Some(Step::HearAhead),
            Local::DiscardAll => Some(Step::DiscardAll),
            Local::Command(words) => Some(Step::Command(words.clone())),
            Local::Empty
            | Local::Begin(_)
            | Local::Commit { .. }
            | Local::Rollback { .. }
            | Local::SetTransaction(_)
            | Local::Set(_)
            | Local::Show(_)
            | Local::Virtual(_)
            | Local::Deallocate(_)
            | Local::Listen(_)
            | Local::Reset(_) => None,
        }
    }

    /// Carries it out and writes the answer, without ReadyForQuery. `bound`, in the extended protocol: the declared
    /// types of Parse and all of Bind after the names; rows are described in the simple one only.
    pub(super) fn answer(
        &mut self,
        local: &Local,
        text: &[u8],
        bound: Option<(&[u8], &Bytes)>,
        out: &mut BytesMut,
    ) -> Result<(), ErrorReport> {
        let (declared, tail) = bound.map_or((&[][..], None), |(types, tail)| (types, Some(tail)));
        match local {
            Local::Empty => out.put_empty(b'I'),
            Local::Begin(modes) => self.begin(modes, text, out),
            Local::Commit { chain } => self.end(*chain, "COMMIT", out),
            Local::Rollback { chain } => self.end(*chain, "ROLLBACK", out),
            Local::SetTransaction(modes) => {
                if let Txn::Held(held) = &mut self.txn {
                    held.modes = held.modes.overlaid(modes);
                }
                out.put_command_complete("SET");
            }
            Local::Set(set) => self.set_own(set, out)?,
            Local::Reset(name) => {
                self.vars = self.vars.reset(name.as_deref());
                if let Some(after) = self.txn.after_mut() {
                    *after = after.reset(name.as_deref());
                }
                out.put_command_complete("RESET");
            }
            Local::Deallocate(name) => self.deallocate(name.as_deref(), out)?,
            Local::Show(name) if name.starts_with("pgherd.") => self.show_own(name, tail, out)?,
            Local::Show(name) => {
                virtual_answer::show(&self.herd(), name, tail, out)?;
            }
            Local::Virtual(select) => {
                virtual_answer::run(&self.herd(), select, declared, tail, out)?;
            }
            Local::Listen(intent) => {
                put_tags(std::slice::from_ref(intent), out);
                self.intents().push(intent.clone());
            }
            Local::DiscardAll | Local::Command(_) => {}
        }
        Ok(())
    }

    fn begin(&mut self, modes: &TransactionModes, text: &[u8], out: &mut BytesMut) {
        if let Txn::Held(held) = &mut self.txn {
            held.modes = held.modes.overlaid(modes);
            warn(out, SqlState::ACTIVE_SQL_TRANSACTION, "there is already a transaction in progress");
        } else {
            self.txn = Txn::begin(modes.clone(), &self.vars);
        }
        let start = text.to_ascii_uppercase();
        let start = String::from_utf8_lossy(&start);
        let first = start.split(|c: char| !c.is_ascii_alphabetic()).find(|w| !w.is_empty());
        out.put_command_complete(if first == Some("START") { "START TRANSACTION" } else { "BEGIN" });
    }

    fn end(&mut self, chain: bool, tag: &str, out: &mut BytesMut) {
        if tag == "ROLLBACK" {
            self.intents_dropped();
        } else {
            self.intents_committed();
        }
        match std::mem::take(&mut self.txn) {
            Txn::Held(held) => {
                if tag == "ROLLBACK" {
                    self.vars = held.saved.clone();
                } else if let Some(after) = held.after {
                    self.vars = after;
                }
                if chain {
                    self.txn = Txn::begin(held.modes, &self.vars);
                }
            }
            Txn::None | Txn::Open(_) => {
                warn(out, SqlState::NO_ACTIVE_SQL_TRANSACTION, "there is no transaction in progress");
            }
        }
        out.put_command_complete(tag);
    }

    fn set_own(&mut self, set: &SetParameter, out: &mut BytesMut) -> Result<(), ErrorReport> {
        let value = set.values.first().map(String::as_str).unwrap_or_default();
        self.check_own(&set.name, value)?;
        if set.local {
            match &mut self.txn {
                Txn::None => {
                    warn(
                        out,
                        SqlState::NO_ACTIVE_SQL_TRANSACTION,
                        "SET LOCAL can only be used in transaction blocks",
                    );
                }
                Txn::Open(open) => {
                    open.after.get_or_insert_with(|| self.vars.clone());
                    self.vars = self.vars.with_local(set);
                }
                Txn::Held(held) => {
                    held.after.get_or_insert_with(|| self.vars.clone());
                    self.vars = self.vars.with_local(set);
                }
            }
        } else {
            self.vars = self.vars.with(set);
            if let Some(after) = self.txn.after_mut() {
                *after = after.with(set);
            }
        }
        out.put_command_complete("SET");
        Ok(())
    }

    fn check_own(&self, name: &str, value: &str) -> Result<(), ErrorReport> {
        let invalid = |hint: String| {
            let message = format!("invalid value for parameter \"{name}\": \"{value}\"");
            Err(ErrorReport::error(SqlState::INVALID_PARAMETER_VALUE, message).with_hint(hint))
        };
        match name {
            "pgherd.shard" => {
                let Place::Database { served, .. } = &self.place else { return Ok(()) };
                let map = &served.cluster.config().map;
                if value.is_empty() || map.shard_named(value).is_some() {
                    return Ok(());
                }
                invalid(format!("Shards are {}.", map.shards.join(", ")))
            }
            "pgherd.role" if matches!(value, "" | "primary" | "replica") => Ok(()),
            "pgherd.role" => invalid("Roles are primary and replica.".into()),
            "pgherd.key" => Ok(()),
            READ_CONSISTENCY if value.is_empty() || consistency_of(value).is_some() => Ok(()),
            READ_CONSISTENCY => invalid("Values are session, eventual and primary.".into()),
            _ => Err(ErrorReport::error(
                SqlState::UNDEFINED_OBJECT,
                format!("unrecognized configuration parameter \"{name}\""),
            )
            .with_hint("pgherd has pgherd.shard, pgherd.key, pgherd.role and pgherd.read_consistency.")),
        }
    }

    fn own_value(&self, name: &str) -> Result<String, ErrorReport> {
        self.check_own(name, "")?;
        let env = &self.vars.env;
        let value = match name {
            "pgherd.shard" => &env.shard,
            "pgherd.key" => &env.key,
            READ_CONSISTENCY => {
                let word = match self.consistency() {
                    ReadConsistency::Session => "session",
                    ReadConsistency::Eventual => "eventual",
                    ReadConsistency::Primary => "primary",
                };
                return Ok(word.to_owned());
            }
            _ => &env.role,
        };
        Ok(value.clone().unwrap_or_default())
    }

    fn show_own(&self, name: &str, tail: Option<&Bytes>, out: &mut BytesMut) -> Result<(), ErrorReport> {
        let value = self.own_value(name)?;
        let format = tail.and_then(|tail| virtual_answer::formats(tail).first().copied());
        match format {
            None if tail.is_none() => {
                out.put_row_description(&[FieldDescription::text(name, TEXT.0, TEXT.1)]);
            }
            None | Some(0 | 1) => {}
            Some(code) => return Err(WireError::FormatCode(code).report()),
        }
        out.put_data_row(std::iter::once(Some(value.as_bytes())));
        out.put_command_complete("SHOW");
        Ok(())
    }

    fn deallocate(&mut self, name: Option<&str>, out: &mut BytesMut) -> Result<(), ErrorReport> {
        match name {
            None => {
                self.statements.clear();
                out.put_command_complete("DEALLOCATE ALL");
            }
            Some(name) if self.statements.remove(name).is_some() => out.put_command_complete("DEALLOCATE"),
            Some(name) => {
                let message = format!("prepared statement \"{name}\" does not exist");
                return Err(ErrorReport::error(SqlState::INVALID_SQL_STATEMENT_NAME, message));
            }
        }
        Ok(())
    }

    /// Describe of a statement that the proxy answers itself.
    pub(super) fn describe_own(
        &self,
        statement: &ClientStatement,
        out: &mut BytesMut,
    ) -> Result<(), ErrorReport> {
        match statement.statement.as_ref().map(|s| s.kind()) {
            Some(Kind::Virtual(select)) => {
                virtual_answer::describe(&self.herd(), select, &statement.types, None, out)
            }
            Some(Kind::Show(name)) => {
                out.put_parameter_description(&[]);
                self.describe_show(name, None, out)
            }
            _ => {
                out.put_parameter_description(&[]);
                out.put_empty(b'n');
                Ok(())
            }
        }
    }

    /// Describe of a portal that the proxy answers itself.
    pub(super) fn describe_own_portal(
        &self,
        statement: &ClientStatement,
        tail: &Bytes,
        out: &mut BytesMut,
    ) -> Result<(), ErrorReport> {
        match statement.statement.as_ref().map(|s| s.kind()) {
            Some(Kind::Virtual(select)) => {
                virtual_answer::describe(&self.herd(), select, &statement.types, Some(tail), out)
            }
            Some(Kind::Show(name)) => self.describe_show(name, Some(tail), out),
            _ => {
                out.put_empty(b'n');
                Ok(())
            }
        }
    }

    /// What is wrong with the values and the result formats of a Bind that the proxy answers itself.
    pub(super) fn check_own_bind(
        &self,
        statement: &ClientStatement,
        view: &BindView<'_>,
    ) -> Result<(), ErrorReport> {
        match statement.statement.as_ref().map(|s| s.kind()) {
            Some(Kind::Virtual(select)) => {
                virtual_answer::check_bind(&self.herd(), select, &statement.types, view)
            }
            Some(Kind::Show(name)) => self.describe_show(name, Some(view.tail), &mut BytesMut::new()),
            _ => Ok(()),
        }
    }

    fn describe_show(&self, name: &str, tail: Option<&[u8]>, out: &mut BytesMut) -> Result<(), ErrorReport> {
        if name.starts_with("pgherd.") {
            self.own_value(name)?;
            let formats = tail.map(virtual_answer::formats).unwrap_or_default();
            if let given @ 2.. = formats.len() {
                return Err(AdminError::ResultFormats { given, columns: 1 }.report());
            }
            let mut field = FieldDescription::text(name, TEXT.0, TEXT.1);
            field.format = formats.first().copied().unwrap_or(0);
            out.put_row_description(&[field]);
            return Ok(());
        }
        virtual_answer::describe_show(&self.herd(), name, tail, out)
    }
}

pub(super) fn no_listen_in_foreign_encoding() -> RouteError {
    RouteError::Refused {
        what: "LISTEN while client_encoding is not UTF8".into(),
        hint: "SET client_encoding = 'UTF8' first.".into(),
    }
}

pub(super) fn aborted() -> RouteError {
    RouteError::Sql {
        code: SqlState::IN_FAILED_SQL_TRANSACTION,
        message: "current transaction is aborted, commands ignored until end of transaction block".into(),
        detail: None,
        hint: None,
    }
}

fn warn(out: &mut BytesMut, code: SqlState, message: &str) {
    let mut report = ErrorReport::error(code, message);
    report.severity = Severity::Warning;
    out.put_report(&report);
}
