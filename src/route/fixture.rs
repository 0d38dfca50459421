//! The shipped map with a catalog to match, for tests of the whole router.
//! Must not know what is tested.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::{
    Catalog, Collation, Column, Function, FunctionKind, Relation, RelationKind, Volatility, oid,
};
use crate::shard::{Key, KeyColumn, Map, Method, PartitionId, Placement, ShardId, TableName};

use super::{Env, Param, RouteError, Router};

fn column(name: &str, type_oid: u32, type_name: &str) -> Column {
    Column {
        name: name.into(),
        type_oid,
        type_name: type_name.into(),
        not_null: false,
        default: None,
        is_serial: false,
        is_generated: false,
        collation: (type_oid == oid::VARCHAR || type_oid == oid::TEXT)
            .then(|| Collation { name: "C.UTF-8".into(), deterministic: true }),
    }
}

fn varchar(name: &str) -> Column {
    Column { not_null: true, ..column(name, oid::VARCHAR, "character varying(50)") }
}

fn serial(name: &str, sequence: &str) -> Column {
    let default = Some(format!("nextval('{sequence}'::regclass)"));
    Column { not_null: true, is_serial: true, default, ..column(name, oid::INT4, "integer") }
}

fn created_at() -> Column {
    let default = Some("CURRENT_TIMESTAMP".to_owned());
    Column { default, ..column("created_at", oid::TIMESTAMP, "timestamp without time zone") }
}

fn table(columns: Vec<Column>, key: &str) -> Relation {
    Relation {
        kind: RelationKind::Table,
        columns,
        unique: vec![vec![key.to_owned()]],
        reads: Vec::new(),
        unlogged: false,
        has_triggers: false,
    }
}

fn view(of: &str, columns: Vec<Column>) -> Relation {
    Relation {
        kind: RelationKind::View,
        columns,
        unique: Vec::new(),
        reads: vec![("public".into(), of.into())],
        unlogged: false,
        has_triggers: false,
    }
}

fn relations() -> BTreeMap<(String, String), Relation> {
    let users = vec![
        serial("id", "users_id_seq"),
        varchar("user_id"),
        column("name", oid::VARCHAR, "character varying(100)"),
        column("email", oid::VARCHAR, "character varying(100)"),
        created_at(),
        Column { type_name: "character varying(10)".into(), ..varchar("partition_key") },
    ];
    let orders = vec![
        serial("id", "orders_id_seq"),
        varchar("user_id"),
        varchar("order_id"),
        column("amount", oid::NUMERIC, "numeric(10,2)"),
        created_at(),
    ];
    let countries = vec![column("code", oid::BPCHAR, "character(2)"), column("name", oid::TEXT, "text")];
    let audit_log = vec![serial("id", "audit_log_id_seq"), column("message", oid::TEXT, "text")];
    let notes = vec![column("id", oid::INT4, "integer"), column("body", oid::TEXT, "text")];
    let active = view("users", vec![varchar("user_id")]);
    [
        ("users", table(users, "id")),
        ("orders", table(orders, "id")),
        ("countries", table(countries, "code")),
        ("audit_log", table(audit_log, "id")),
        ("notes", table(notes, "id")),
        ("active_users", active),
    ]
    .into_iter()
    .map(|(name, relation)| (("public".to_owned(), name.to_owned()), relation))
    .collect()
}

fn function(volatility: Volatility, is_user: bool, source: &str) -> Function {
    Function { volatility, kind: FunctionKind::Plain, returns_set: false, is_user, source: source.into() }
}

fn functions() -> HashMap<String, Function> {
    let aggregate = Function { kind: FunctionKind::Aggregate, ..function(Volatility::Immutable, false, "") };
    [
        ("count", aggregate.clone()),
        ("sum", aggregate),
        ("lower", function(Volatility::Immutable, false, "")),
        ("now", function(Volatility::Stable, false, "")),
        ("random", function(Volatility::Volatile, false, "")),
        ("nextval", function(Volatility::Volatile, false, "")),
        ("set_config", function(Volatility::Volatile, false, "")),
        ("pg_advisory_lock", function(Volatility::Volatile, false, "")),
        ("touch", function(Volatility::Volatile, true, "begin perform outer_count(); end")),
        ("outer_count", function(Volatility::Volatile, true, "select count(*) from USERS")),
        ("harmless", function(Volatility::Volatile, true, "begin return 1; end")),
        ("dynamic", function(Volatility::Volatile, true, "begin execute 'select 1'; end")),
    ]
    .into_iter()
    .map(|(name, function)| (name.to_owned(), function))
    .collect()
}

/// A catalog of the shipped tables, `notes` that the map does not name, a view of `users`, and a few functions.
pub(super) fn catalog() -> Catalog {
    Catalog {
        generation: 1,
        server_version_num: 150_018,
        encoding: "UTF8".into(),
        search_path: vec!["public".into()],
        relations: relations(),
        functions: functions(),
        ..Catalog::default()
    }
}

/// The shipped map: `users` and `orders` by hash over three shards, `countries` everywhere, `audit_log` on the third.
pub(super) fn map() -> Map {
    let names = ["A", "B", "C", "D", "E"];
    let parts = names.iter().zip([(30, 0), (20, 0), (15, 2), (25, 1), (10, 2)]);
    let parts = parts.map(|(name, (weight, shard))| ((*name).to_owned(), weight, ShardId(shard))).collect();
    let hashed = KeyColumn { column: "user_id".into(), method: Method::Hash, fill: false };
    let list = (0..).zip(names).map(|(i, name)| (Key::Text(name.to_owned()), PartitionId(i))).collect();
    let listed = KeyColumn { column: "partition_key".into(), method: Method::List(list), fill: true };
    let tables = [
        ("users", Placement::Sharded(vec![hashed.clone(), listed])),
        ("orders", Placement::Sharded(vec![hashed])),
        ("countries", Placement::Reference),
        ("audit_log", Placement::Single(ShardId(2))),
    ];
    let tables = tables.into_iter().map(|(name, place)| (TableName::new("public", name), place)).collect();
    let shards = ["shard1", "shard2", "shard3"].map(String::from).to_vec();
    Map::new(shards, parts, tables, ShardId(0))
}

/// A router over three shards.
pub(super) fn three_shards() -> Router {
    Router::new(Arc::new(map()), Arc::new(catalog()), 1000)
}

/// A router over one shard with the same tables, none of them in the map.
pub(super) fn one_shard() -> Router {
    let partitions = vec![("A".to_owned(), 1, ShardId(0))];
    let map = Map::new(vec!["only".to_owned()], partitions, BTreeMap::new(), ShardId(0));
    Router::new(Arc::new(map), Arc::new(catalog()), 1000)
}

/// The route of a text of one statement, as text; a refusal as its message.
pub(super) fn route(router: &Router, sql: &str, params: &[Param<'_>], env: &Env) -> String {
    let routed = || -> Result<String, RouteError> {
        let statements = router.prepare(sql.as_bytes(), env)?;
        assert_eq!(statements.len(), 1, "{sql}");
        statements[0].route(router, sql.as_bytes(), params, env).map(|route| route.to_string())
    };
    routed().unwrap_or_else(|error| match error {
        RouteError::Refused { what, hint } => {
            assert!(hint.ends_with('.') && hint.len() > 10, "no hint: {what}");
            format!("refused: {what}")
        }
        RouteError::Sql { code, message, .. } => format!("{code}: {message}"),
    })
}
