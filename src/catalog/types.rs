//! The snapshot's types.
//! Must not know SQL text.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Leavers;

/// Type OIDs that the proxy knows by number. Source: PostgreSQL's `pg_type.dat`; they never change.
#[expect(missing_docs, reason = "each is the OID of the type of its name")]
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const UNKNOWN: u32 = 705;
    pub const INT2_ARRAY: u32 = 1005;
    pub const INT4_ARRAY: u32 = 1007;
    pub const TEXT_ARRAY: u32 = 1009;
    pub const BPCHAR_ARRAY: u32 = 1014;
    pub const VARCHAR_ARRAY: u32 = 1015;
    pub const INT8_ARRAY: u32 = 1016;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const UUID_ARRAY: u32 = 2951;
}

/// Functions that are volatile in `pg_proc` but change nothing: a replica may run them.
pub const HARMLESS: &[&str] = &[
    "clock_timestamp",
    "gen_random_bytes",
    "gen_random_uuid",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "random",
    "random_normal",
    "timeofday",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v4",
    "uuidv4",
    "uuidv7",
];

/// One database's catalogs, as one shard sees them. `generation` grows with every re-read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Grows by one with every re-read; caches of plans are keyed by it.
    pub generation: u64,
    /// `server_version_num`, e.g. 150018.
    pub server_version_num: u32,
    /// `server_encoding`, e.g. `UTF8`.
    pub encoding: String,
    /// Schemas of the default search path that exist, in order, without `pg_catalog`: usually `["public"]`.
    pub search_path: Vec<String>,
    /// User relations by (schema, name); catalogs and information_schema are not listed.
    pub relations: BTreeMap<(String, String), Relation>,
    /// Functions by bare name, all schemas and overloads folded: the most volatile wins.
    pub functions: HashMap<String, Function>,
    /// Functions, and relations by what hangs on them, that may leave something in a session.
    pub leavers: Leavers,
    /// Functions and relations that read `pg_prepared_statements`.
    pub tell_statements: Leavers,
    /// Functions and relations that ask `pg_listening_channels()`.
    pub tell_channels: Leavers,
    /// Views, and tables with policies, that call a volatile function when they are read, other than those that are
    /// [`HARMLESS`], or ask what only the primary can tell; through other views too. By bare name in lower case.
    pub restless: HashSet<String>,
    /// Whether there are event triggers.
    pub fires_events: bool,
    /// Whether code or an expression of the users' own names `currval()` or `lastval()`.
    pub tells_sequences: bool,
}

/// A table, view or the like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// What it is.
    pub kind: RelationKind,
    /// Columns in order, dropped ones left out.
    pub columns: Vec<Column>,
    /// The column sets of its unique and primary key constraints and indexes (without expressions or predicate).
    pub unique: Vec<Vec<String>>,
    /// For a view: the (schema, name) of every table it reads, through other views too.
    pub reads: Vec<(String, String)>,
    /// UNLOGGED, a sequence, or a view that reads such a table: a replica cannot answer.
    pub unlogged: bool,
    /// Has row triggers, rules or foreign keys whose effect may reach other rows.
    pub has_triggers: bool,
}

impl Relation {
    /// The column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }
}

/// `pg_class.relkind`, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary or partitioned table.
    Table,
    /// A view.
    View,
    /// A materialised view.
    MaterializedView,
    /// A foreign table.
    Foreign,
    /// A sequence.
    Sequence,
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// OID of its type; differs between servers for types that users made.
    pub type_oid: u32,
    /// Its type as SQL, e.g. `character varying(50)`.
    pub type_name: String,
    /// NOT NULL.
    pub not_null: bool,
    /// Its DEFAULT expression as SQL; for a generated column the generation expression.
    pub default: Option<String>,
    /// GENERATED … AS IDENTITY, or a default that calls nextval.
    pub is_serial: bool,
    /// GENERATED ALWAYS AS (…) STORED.
    pub is_generated: bool,
    /// Its collation, for types that have one.
    pub collation: Option<Collation>,
}

/// A collation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collation {
    /// Its name, `default` resolved to the database's, e.g. `en_US.utf8` or `C`.
    pub name: String,
    /// Whether equal means equal bytes.
    pub deterministic: bool,
}

/// A function, procedure or aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The most volatile of all that share the name; volatile, whatever they say, if their code does what only a
    /// primary can.
    pub volatility: Volatility,
    /// What it is; an aggregate or window function wins over a plain one of the same name.
    pub kind: FunctionKind,
    /// Whether any of that name returns a set.
    pub returns_set: bool,
    /// Whether any of that name was made by users (not in `pg_catalog`).
    pub is_user: bool,
    /// Bodies of user functions, joined by newlines; they may name tables.
    pub source: String,
}

/// `pg_proc.provolatile`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Volatility {
    /// `i`
    Immutable,
    /// `s`
    Stable,
    /// `v`
    Volatile,
}

/// `pg_proc.prokind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FunctionKind {
    /// `f`
    Plain,
    /// `p`
    Procedure,
    /// `a`
    Aggregate,
    /// `w`
    Window,
}
