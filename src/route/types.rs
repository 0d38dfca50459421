//! What routing says of a statement: its kind, what it does to the session, and where it goes.
//! Must not know how it was found out; names no parser type.

use std::fmt;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::catalog::Leaves;
use crate::rows;
use crate::shard::{PartitionId, ShardId, ShardSet};
use crate::wire::{ClientFacing, ErrorReport, SqlState};

/// What a statement is, as far as a session must treat it differently.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Nothing but blanks, comments and semicolons: EmptyQueryResponse.
    Empty,
    /// Anything that has a [`Route`] of its own and no say in the session's state, EXPLAIN included.
    Query,
    /// COPY … FROM STDIN: the client sends data.
    CopyIn,
    /// BEGIN or START TRANSACTION.
    Begin(TransactionModes),
    /// COMMIT or END; `chain` is AND CHAIN.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK or ABORT.
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT name (folded, unquoted).
    Savepoint(String),
    /// RELEASE [SAVEPOINT] name.
    Release(String),
    /// ROLLBACK TO [SAVEPOINT] name.
    RollbackTo(String),
    /// SET TRANSACTION: modes of the current transaction.
    SetTransaction(TransactionModes),
    /// SET, SET LOCAL, and the forms that set a parameter under another spelling (SET TIME ZONE, SET NAMES,
    /// SET ROLE, SET SESSION AUTHORIZATION, SET SESSION CHARACTERISTICS).
    Set(SetParameter),
    /// RESET name, `None` for RESET ALL.
    Reset(Option<String>),
    /// SHOW name (folded), of PostgreSQL's or pgherd's; `all` for SHOW ALL.
    Show(String),
    /// A SELECT of nothing but `set_config` calls whose arguments are constants or parameters.
    SetConfig(Arc<[ConfigCall]>),
    /// A SELECT that reads virtual tables of schema `pgherd` and nothing else.
    Virtual(Arc<rows::Select>),
    /// An operator's command on the `pgherd` database (RELOAD, PAUSE …): its words in upper case, literals as sent.
    Command(Vec<String>),
    /// PREPARE name AS …, EXECUTE, DEALLOCATE of SQL level. Session state.
    SqlPrepare,
    /// DEALLOCATE name, `None` for ALL.
    Deallocate(Option<String>),
    /// DISCARD ALL | PLANS | SEQUENCES | TEMP, in upper case.
    Discard(String),
    /// LISTEN channel (folded, unquoted, cut to 63 bytes).
    Listen(String),
    /// UNLISTEN channel, `None` for all.
    Unlisten(Option<String>),
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// DDL and other utility statements after which the catalogs must be read again.
    Ddl,
}

/// The modes of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionModes {
    /// e.g. `REPEATABLE READ`, in upper case.
    pub isolation: Option<&'static str>,
    /// READ ONLY (true) or READ WRITE (false).
    pub read_only: Option<bool>,
    /// DEFERRABLE (true) or NOT DEFERRABLE (false).
    pub deferrable: Option<bool>,
}

impl TransactionModes {
    /// These modes with those of a later statement laid over them.
    #[must_use]
    pub fn overlaid(&self, later: &Self) -> Self {
        Self {
            isolation: later.isolation.or(self.isolation),
            read_only: later.read_only.or(self.read_only),
            deferrable: later.deferrable.or(self.deferrable),
        }
    }
}

/// A SET statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetParameter {
    /// The parameter in lower case: `search_path`, `timezone`, `client_encoding`, `role`, `session_authorization`,
    /// `session characteristics`, `pgherd.shard` …
    pub name: String,
    /// SET LOCAL.
    pub local: bool,
    /// Its values unquoted; empty is DEFAULT.
    pub values: Vec<String>,
    /// The statement's own text without LOCAL or SESSION, fit to be sent again, e.g. `SET search_path TO a, b`, or
    /// `SELECT pg_catalog.set_config(…, …, false)`.
    pub sql: String,
}

impl SetParameter {
    /// Whether it is the transaction's own whatever is said: it ends with it.
    #[must_use]
    pub fn is_of_transaction(&self) -> bool {
        matches!(
            self.name.as_str(),
            "transaction_isolation" | "transaction_read_only" | "transaction_deferrable"
        )
    }

    /// The parameters it sets, each with the statement that does: `SESSION CHARACTERISTICS` are up to three.
    #[must_use]
    pub fn parts(&self) -> SmallVec<[(String, String); 1]> {
        if self.name != "session characteristics" {
            return smallvec![(self.name.clone(), self.sql.clone())];
        }
        let part = |mode: &String| {
            let (name, value) = match mode.strip_prefix("ISOLATION LEVEL ") {
                Some(level) => ("isolation", level),
                None if mode.starts_with("READ") => {
                    ("read_only", if mode == "READ ONLY" { "on" } else { "off" })
                }
                None => ("deferrable", if mode == "DEFERRABLE" { "on" } else { "off" }),
            };
            let name = format!("default_transaction_{name}");
            let sql = format!("SET {name} TO '{value}'");
            (name, sql)
        };
        self.values.iter().map(part).collect()
    }

    /// The statement itself, LOCAL or not.
    #[must_use]
    pub fn statement(&self) -> String {
        if !self.local {
            return self.sql.clone();
        }
        match (self.sql.strip_prefix("SET "), self.sql.strip_suffix("false)")) {
            (Some(rest), _) => format!("SET LOCAL {rest}"),
            (None, Some(call)) => format!("{call}true)"),
            (None, None) => self.sql.clone(),
        }
    }
}

/// One call of `set_config(name, value, is_local)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigCall {
    /// The parameter's name.
    pub name: ConfigValue,
    /// Its value; NULL is its default.
    pub value: ConfigValue,
    /// For the transaction only.
    pub local: ConfigValue,
}

/// An argument of `set_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigValue {
    /// NULL.
    Null,
    /// A constant, as text.
    Text(String),
    /// `$n`, counted from 0.
    Param(usize),
}

/// Why a statement ties the client to one server until the session ends or the reason is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pin {
    /// CREATE TEMP …, SELECT INTO TEMP.
    TempTable,
    /// pg_advisory_lock and its session-level like.
    AdvisoryLock,
    /// DECLARE … WITH HOLD.
    HoldCursor,
    /// LISTEN that a function has run.
    Listen,
    /// A setting of the users' own whose name cannot be known: the proxy cannot follow it.
    SetConfig,
    /// SQL-level PREPARE.
    SqlPrepare,
    /// Session state of another kind (LOAD, setseed), which nothing undoes.
    Other,
    /// No cause: code that may leave anything (DO, CALL, a user's function); the server is asked afterwards.
    Unseen,
    /// No cause: it may end one (CLOSE).
    Released,
}

/// What a statement asks that a server answers for its own session, which in transaction pooling is no client's alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent findings about one statement")]
pub struct Asks {
    /// pg_listening_channels().
    pub channels: bool,
    /// currval() or lastval().
    pub sequence: bool,
    /// The same, and nothing in the text draws a value before.
    pub undrawn: bool,
    /// pg_prepared_statements.
    pub prepared: bool,
    /// NOTIFY or pg_notify(), by its words.
    pub notifies: bool,
    /// pg_terminate_backend() or pg_cancel_backend(), which any server may run: see [`Signal`](super::Signal).
    pub process: bool,
}

impl Asks {
    /// Whether it asks what not every server can answer.
    #[must_use]
    pub fn any(self) -> bool {
        self.channels || self.sequence || self.prepared
    }

    /// What both ask.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            channels: self.channels || other.channels,
            sequence: self.sequence || other.sequence,
            undrawn: self.undrawn || other.undrawn,
            prepared: self.prepared || other.prepared,
            notifies: self.notifies || other.notifies,
            process: self.process || other.process,
        }
    }
}

impl From<Leaves> for Pin {
    fn from(leaves: Leaves) -> Self {
        match leaves {
            Leaves::Traces => Self::Unseen,
            Leaves::Nameless => Self::SetConfig,
            Leaves::Forever => Self::Other,
        }
    }
}

impl Pin {
    /// Of two in one text, the one that says more.
    #[must_use]
    pub fn joined(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            // Of these no server can tell afterwards.
            (Some(Self::Other), _) | (_, Some(Self::Other)) => Some(Self::Other),
            (Some(Self::SetConfig), _) | (_, Some(Self::SetConfig)) => Some(Self::SetConfig),
            (Some(a), _) if a.is_cause() => Some(a),
            (_, Some(b)) if b.is_cause() => Some(b),
            (a, b) => a.or(b),
        }
    }

    /// Whether it ties the client to its server, until the server says otherwise.
    #[must_use]
    pub fn is_cause(self) -> bool {
        !matches!(self, Self::Unseen | Self::Released)
    }

    /// In lower case, for SHOW CLIENTS.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TempTable => "temporary table",
            Self::AdvisoryLock => "advisory lock",
            Self::HoldCursor => "cursor with hold",
            Self::Listen => "listen",
            Self::SetConfig => "set_config",
            Self::SqlPrepare => "sql prepare",
            Self::Other => "session state",
            Self::Unseen => "code that may keep state",
            Self::Released => "what may end a pin",
        }
    }
}

/// Whether a replica may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads only: a replica may answer.
    Read,
    /// Must go to the primary although it writes nothing (a lock, a hint, a function that might write).
    Primary,
    /// Writes, or may write: primary only, and later reads of the session must see it.
    Write,
}

/// What a statement counts as in the latency tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// SELECT, VALUES, TABLE, SHOW, EXPLAIN.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// COPY in either direction.
    Copy,
    /// All else.
    Other,
}

/// Which shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Exactly this one.
    Shard(ShardId),
    /// Any one will do, the answer is the same (no table, or reference tables only).
    Any,
    /// All of these at once (two or more), their rows concatenated in any order.
    Fanout(ShardSet),
}

/// Where one statement with its values goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Which shards.
    pub target: Target,
    /// Primary or replica.
    pub access: Access,
    /// What it counts as.
    pub verb: Verb,
    /// The statement's text to send instead of the client's, if it had to change (a filled-in key).
    pub rewrite: Option<String>,
    /// A session pin it causes.
    pub pin: Option<Pin>,
    /// What it asks of its server's session.
    pub asks: Asks,
    /// Its answer depends on the transaction it runs in (now(), txid_current() …), so a transaction that ran it
    /// cannot move to another shard afterwards.
    pub binds_transaction: bool,
    /// The partition of all its rows, where its keys name exactly one.
    pub partition: Option<PartitionId>,
}

impl Route {
    /// Of what any shard does alike, and leaves nothing behind.
    #[must_use]
    pub fn anywhere(access: Access) -> Self {
        Self {
            target: Target::Any,
            access,
            verb: Verb::Other,
            rewrite: None,
            pin: None,
            asks: Asks::default(),
            binds_transaction: false,
            partition: None,
        }
    }
}

/// `shard 3, replica`, `all shards, replica, concatenate`, … ; shards count from 1 here as in the docs' names.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Shard(id) => write!(f, "shard {}", id.0 + 1)?,
            Target::Any => f.write_str("any shard")?,
            Target::Fanout(set) => {
                f.write_str("shards ")?;
                for (i, id) in set.iter().enumerate() {
                    write!(f, "{}{}", if i == 0 { "" } else { "+" }, id.0 + 1)?;
                }
            }
        }
        f.write_str(match self.access {
            Access::Read => ", replica",
            Access::Primary => ", primary",
            Access::Write => ", primary, write",
        })?;
        if matches!(self.target, Target::Fanout(_)) {
            f.write_str(", concatenate")?;
        }
        if let Some(pin) = self.pin {
            write!(f, ", pin {}", pin.as_str())?;
        }
        if let Some(sql) = &self.rewrite {
            write!(f, ", rewrite {sql}")?;
        }
        Ok(())
    }
}

/// One parameter value of Bind.
#[derive(Debug, Clone, Copy)]
pub struct Param<'a> {
    /// Its bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
    /// Whether they are in binary format.
    pub binary: bool,
    /// The type declared in Parse, 0 if none.
    pub type_oid: u32,
}

/// What of the session matters to routing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Env {
    /// `search_path` if the session changed it, unquoted, in order, `$user` resolved.
    pub search_path: Option<Vec<String>>,
    /// SET pgherd.shard.
    pub shard: Option<String>,
    /// SET pgherd.key.
    pub key: Option<String>,
    /// SET pgherd.role = 'primary' | 'replica'.
    pub role: Option<String>,
    /// `standard_conforming_strings = off`: then nothing with a backslash is understood.
    pub nonstandard_strings: bool,
    /// `client_encoding` is not UTF8 (or the server's not): then only ASCII keys can be routed.
    pub foreign_encoding: bool,
    /// The session is on the `pgherd` database: a bare table name is a virtual table's.
    pub admin_database: bool,
}

/// Why a statement cannot be routed, or is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Cannot be answered exactly over several shards (0A000).
    #[error("{what}")]
    Refused {
        /// Names the construct.
        what: String,
        /// What to write instead.
        hint: String,
    },
    /// An error one PostgreSQL would raise too, or one of its kind.
    #[error("{message}")]
    Sql {
        /// Its code.
        code: SqlState,
        /// Its message.
        message: String,
        /// Its detail.
        detail: Option<String>,
        /// Its hint.
        hint: Option<String>,
    },
}

impl RouteError {
    /// An error that was made elsewhere.
    #[must_use]
    pub fn from_report(report: ErrorReport) -> Self {
        let ErrorReport { code, message, detail, hint, .. } = report;
        Self::Sql { code, message, detail, hint }
    }
}

impl ClientFacing for RouteError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Refused { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Sql { code, .. } => *code,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::Sql { hint, .. } => hint.clone(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Refused { .. } => None,
            Self::Sql { detail, .. } => detail.clone(),
        }
    }
}
