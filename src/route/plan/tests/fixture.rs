//! A map with every kind of placement, a catalog to match, and the router over them.
//! Must not know what is tested.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::{
    Catalog, Collation, Column, Function, FunctionKind, Relation, RelationKind, Volatility, oid,
};
use crate::route::{Env, Param, RouteError, Router};
use crate::shard::{Key, KeyColumn, Map, Method, PartitionId, Placement, ShardId, TableName};

fn column(name: &str, type_oid: u32, type_name: &str) -> Column {
    let collated = matches!(type_oid, oid::VARCHAR | oid::TEXT | oid::BPCHAR);
    Column {
        name: name.to_owned(),
        type_oid,
        type_name: type_name.to_owned(),
        not_null: false,
        default: None,
        is_serial: false,
        is_generated: false,
        collation: collated.then(|| Collation { name: "en_US.utf8".to_owned(), deterministic: true }),
    }
}

fn int4(name: &str) -> Column {
    column(name, oid::INT4, "integer")
}

fn int8(name: &str) -> Column {
    column(name, oid::INT8, "bigint")
}

fn text(name: &str) -> Column {
    column(name, oid::TEXT, "text")
}

fn varchar(name: &str, length: u32) -> Column {
    column(name, oid::VARCHAR, &format!("character varying({length})"))
}

fn bpchar(name: &str, length: u32) -> Column {
    column(name, oid::BPCHAR, &format!("character({length})"))
}

fn collated(column: Column, name: &str, deterministic: bool) -> Column {
    Column { collation: Some(Collation { name: name.to_owned(), deterministic }), ..column }
}

/// A varchar(50) NOT NULL, as keys are.
fn key_varchar(name: &str) -> Column {
    Column { not_null: true, ..varchar(name, 50) }
}

fn serial(name: &str) -> Column {
    Column {
        default: Some("nextval('s'::regclass)".to_owned()),
        is_serial: true,
        not_null: true,
        ..int4(name)
    }
}

fn relation(kind: RelationKind, columns: Vec<Column>, reads: &[&str]) -> Relation {
    Relation {
        kind,
        columns,
        unique: Vec::new(),
        reads: reads.iter().map(|t| ("public".to_owned(), (*t).to_owned())).collect(),
        unlogged: false,
        has_triggers: false,
    }
}

fn tables() -> Vec<(&'static str, &'static str, Vec<Column>)> {
    let users = || {
        vec![
            serial("id"),
            key_varchar("user_id"),
            varchar("name", 100),
            varchar("email", 100),
            column("created_at", oid::TIMESTAMP, "timestamp without time zone"),
            Column { not_null: true, ..varchar("partition_key", 10) },
        ]
    };
    let orders = || {
        let amount = column("amount", oid::NUMERIC, "numeric(10,2)");
        let created_at = column("created_at", oid::TIMESTAMP, "timestamp without time zone");
        vec![serial("id"), key_varchar("user_id"), varchar("order_id", 50), amount, created_at]
    };
    vec![
        ("public", "users", users()),
        ("public", "members", users()),
        ("app", "users", users()),
        ("public", "Users", users()),
        ("public", "orders", orders()),
        ("public", "countries", vec![bpchar("code", 2), text("name")]),
        ("public", "audit_log", vec![serial("id"), varchar("user_id", 50), text("message")]),
        ("public", "notes", vec![int4("id"), text("body"), varchar("user_id", 50)]),
        ("public", "events", vec![int8("id"), varchar("user_id", 50), text("what")]),
        ("public", "accounts", vec![int8("account_id"), int4("kind"), text("owner")]),
        ("public", "transfers", vec![int8("account_id"), int8("other"), text("note")]),
        ("public", "places", vec![bpchar("code", 2), text("name")]),
        ("public", "things", vec![column("id", oid::UUID, "uuid"), varchar("user_id", 50)]),
        ("public", "words_c", vec![collated(text("k"), "C", true), text("v")]),
        ("public", "words_en", vec![text("k"), text("v")]),
        ("public", "loose", vec![collated(text("k"), "nd", false), text("v")]),
        ("public", "serials", vec![serial("id"), text("v")]),
        ("public", "short", vec![varchar("k", 3), text("v")]),
    ]
}

fn relations() -> BTreeMap<(String, String), Relation> {
    let tables = tables().into_iter().map(|(schema, name, columns)| {
        ((schema.to_owned(), name.to_owned()), relation(RelationKind::Table, columns, &[]))
    });
    let user_id = || vec![varchar("user_id", 50)];
    let views = [
        ("active_users", RelationKind::View, user_id(), &["users"][..]),
        ("rich_countries", RelationKind::View, vec![bpchar("code", 2)], &["countries"][..]),
        ("audit_view", RelationKind::View, user_id(), &["audit_log", "countries"][..]),
        ("frozen_countries", RelationKind::MaterializedView, vec![bpchar("code", 2)], &["countries"][..]),
    ];
    let views = views.map(|(name, kind, columns, reads)| {
        (("public".to_owned(), name.to_owned()), relation(kind, columns, reads))
    });
    tables.chain(views).collect()
}

fn functions() -> HashMap<String, Function> {
    use FunctionKind::{Aggregate, Plain, Window};
    use Volatility::{Immutable, Stable, Volatile};
    let function = |volatility, kind, source: &str| Function {
        volatility,
        kind,
        returns_set: false,
        is_user: !source.is_empty(),
        source: source.to_owned(),
    };
    let aggregates = ["count", "sum", "max", "min", "avg", "array_agg", "string_agg"]
        .map(|n| (n, Immutable, Aggregate, ""));
    let windows = ["row_number", "rank"].map(|n| (n, Immutable, Window, ""));
    let immutable =
        ["lower", "upper", "abs", "md5", "repeat", "generate_series"].map(|n| (n, Immutable, Plain, ""));
    let stable = [
        "now",
        "to_char",
        "txid_current",
        "inet_server_port",
        "version",
        "current_setting",
        "pg_backend_pid",
    ];
    let stable = stable.map(|n| (n, Stable, Plain, ""));
    let volatile = [
        "random",
        "clock_timestamp",
        "nextval",
        "currval",
        "lastval",
        "setval",
        "set_config",
        "pg_advisory_lock",
        "pg_advisory_xact_lock",
        "pg_notify",
        "gen_random_uuid",
        "lo_create",
        "pg_sleep",
    ];
    let volatile = volatile.map(|n| (n, Volatile, Plain, ""));
    let theirs = [
        ("add_tax", Immutable, Plain, "select $1 * 1.2"),
        ("count_users", Stable, Plain, "select count(*) from users"),
        ("calls_count_users", Volatile, Plain, "begin return count_users(); end"),
        ("log_it", Volatile, Plain, "insert into audit_log(message) values ($1)"),
        ("read_countries", Stable, Plain, "select name from countries"),
        ("write_countries", Volatile, Plain, "delete from countries"),
        ("read_notes", Stable, Plain, "select body from notes"),
    ];
    let all =
        aggregates.into_iter().chain(windows).chain(immutable).chain(stable).chain(volatile).chain(theirs);
    all.map(|(name, v, k, source)| (name.to_owned(), function(v, k, source))).collect()
}

fn catalog() -> Catalog {
    Catalog {
        generation: 1,
        server_version_num: 150_018,
        encoding: "UTF8".to_owned(),
        search_path: vec!["public".to_owned()],
        relations: relations(),
        functions: functions(),
        ..Catalog::default()
    }
}

fn key(column: &str, method: Method, fill: bool) -> KeyColumn {
    KeyColumn { column: column.to_owned(), method, fill }
}

fn placements() -> BTreeMap<TableName, Placement> {
    let hash = |column: &str| key(column, Method::Hash, false);
    let names = (0..).zip(["A", "B", "C", "D", "E"]);
    let listed = names.map(|(i, name)| (Key::Text(name.to_owned()), PartitionId(i))).collect();
    let listed = key("partition_key", Method::List(listed), true);
    let bounds = |a: Key, b: Key| {
        Method::Range(vec![(None, PartitionId(0)), (Some(a), PartitionId(3)), (Some(b), PartitionId(2))])
    };
    let numbers = bounds(Key::Int(1000), Key::Int(2000));
    let words = bounds(Key::Text("h".to_owned()), Key::Text("p".to_owned()));
    [
        ("public", "users", Placement::Sharded(vec![hash("user_id"), listed.clone()])),
        ("public", "members", Placement::Sharded(vec![hash("user_id"), listed])),
        ("public", "orders", Placement::Sharded(vec![hash("user_id")])),
        ("public", "ghost", Placement::Sharded(vec![hash("user_id")])),
        ("public", "countries", Placement::Reference),
        ("public", "audit_log", Placement::Single(ShardId(1))),
        ("public", "events", Placement::Sharded(vec![key("id", numbers, false)])),
        ("public", "accounts", Placement::Sharded(vec![hash("account_id")])),
        ("public", "transfers", Placement::Sharded(vec![hash("account_id")])),
        ("public", "places", Placement::Sharded(vec![hash("code")])),
        ("public", "things", Placement::Sharded(vec![hash("id")])),
        ("public", "words_c", Placement::Sharded(vec![key("k", words.clone(), false)])),
        ("public", "words_en", Placement::Sharded(vec![key("k", words, false)])),
        ("public", "loose", Placement::Sharded(vec![hash("k")])),
        ("public", "serials", Placement::Sharded(vec![hash("id")])),
        ("public", "short", Placement::Sharded(vec![hash("k")])),
    ]
    .into_iter()
    .map(|(schema, name, placement)| (TableName::new(schema, name), placement))
    .collect()
}

/// A router over three shards.
fn three_shards() -> Router {
    let parts = [("A", 30, 0), ("B", 20, 0), ("C", 15, 2), ("D", 25, 1), ("E", 10, 2)];
    let parts = parts.map(|(n, w, s)| (n.to_owned(), w, ShardId(s))).to_vec();
    let shards = ["shard1", "shard2", "shard3"].map(String::from).to_vec();
    Router::new(Arc::new(Map::new(shards, parts, placements(), ShardId(0))), Arc::new(catalog()), 1000)
}

/// A router over one shard with the same tables.
pub(super) fn one_shard() -> Router {
    let parts = ["A", "B", "C", "D", "E"].map(|n| (n.to_owned(), 1, ShardId(0))).to_vec();
    Router::new(
        Arc::new(Map::new(vec!["one".to_owned()], parts, placements(), ShardId(0))),
        Arc::new(catalog()),
        1000,
    )
}

/// A parameter as a client sends it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent<'a> {
    Text(&'a str),
    Typed(u32, &'a str),
    Binary(u32, &'a [u8]),
    Null,
}

impl<'a> Sent<'a> {
    fn param(self) -> Param<'a> {
        let (value, binary, type_oid) = match self {
            Self::Text(text) => (Some(text.as_bytes()), false, 0),
            Self::Typed(oid, text) => (Some(text.as_bytes()), false, oid),
            Self::Binary(oid, bytes) => (Some(bytes), true, oid),
            Self::Null => (None, false, 0),
        };
        Param { value, binary, type_oid }
    }
}

/// The route of one statement as text; an error as its code and message.
pub(super) fn route(router: &Router, sql: &str, sent: &[Sent<'_>], env: &Env) -> String {
    let params: Vec<_> = sent.iter().map(|s| s.param()).collect();
    let routed = || {
        let statements = router.prepare(sql.as_bytes(), env)?;
        assert_eq!(statements.len(), 1, "{sql}");
        statements[0].route(router, sql.as_bytes(), &params, env)
    };
    match routed() {
        Ok(route) => route.to_string(),
        Err(RouteError::Refused { what, hint }) => {
            assert!(hint.ends_with('.') && hint.len() > 10, "no hint: {what}");
            format!("refused: {what}")
        }
        Err(RouteError::Sql { code, message, hint, .. }) => {
            format!("{code}: {message}{}", hint.map(|h| format!(" / {h}")).unwrap_or_default())
        }
    }
}

/// Checks a table of statements without parameters.
pub(super) fn routes(table: &[(&str, &str)]) {
    let router = three_shards();
    check(&router, &Env::default(), table);
}

/// The same under another router and session.
pub(super) fn check(router: &Router, env: &Env, table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(sql, want)| {
            let got = route(router, sql, &[], env);
            (got != *want).then(|| format!("{sql}\n   got  {got}\n   want {want}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// Checks that each statement is refused on several shards, and goes to the only one there may be.
pub(super) fn refusals(table: &[(&str, &str)]) {
    routes(&table.iter().map(|(sql, what)| (*sql, *what)).collect::<Vec<_>>());
    let one = one_shard();
    for (sql, _) in table {
        let got = route(&one, sql, &[], &Env::default());
        assert!(got.starts_with("shard 1, "), "{sql}: {got}");
    }
}

/// Checks statements with parameters.
pub(super) fn routes_with(table: &[(&str, &[Sent<'_>], &str)]) {
    let router = three_shards();
    let wrong: Vec<String> = table
        .iter()
        .filter_map(|(sql, sent, want)| {
            let got = route(&router, sql, sent, &Env::default());
            (got != *want).then(|| format!("{sql} {sent:?}\n   got  {got}\n   want {want}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} wrong:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// Checks statements in a session of three shards that is not the default one.
pub(super) fn routes_in(env: &Env, table: &[(&str, &str)]) {
    check(&three_shards(), env, table);
}
