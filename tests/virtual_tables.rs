//! SELECTs on virtual tables give what PostgreSQL gives for the same rows: names, types, rows, SQLSTATEs.
//! The statements run on a real server and on a table in memory, and the answers are compared.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use pgherd::catalog::Catalog;
use pgherd::route::{Env, Kind, Router};
use pgherd::rows::{Column, Plan, Select, Table, Type, Value};
use pgherd::shard::{Map, ShardId};
use pgherd::wire::ClientFacing;
use tokio_postgres::SimpleQueryMessage;

/// An answer as it is compared.
#[derive(Debug, PartialEq)]
enum Answer {
    /// Names and type OIDs of the columns, and the rows in text format.
    Rows(Vec<(String, u32)>, Vec<Vec<Option<String>>>),
    /// A SQLSTATE.
    Failed(String),
}

impl Answer {
    /// Rows without ORDER BY come in any order.
    fn in_any_order(self, sql: &str) -> Self {
        match self {
            Self::Rows(columns, mut rows) => {
                if !sql.contains("order by") {
                    rows.sort();
                }
                Self::Rows(columns, rows)
            }
            Self::Failed(code) => Self::Failed(code),
        }
    }
}

const COLUMNS: [(&str, Type); 7] = [
    ("id", Type::Int8),
    ("small", Type::Int4),
    ("name", Type::Text),
    ("share", Type::Float8),
    ("price", Type::Numeric),
    ("ok", Type::Bool),
    ("at", Type::Timestamptz),
];

/// The rows, as text; NULL is `None`.
const ROWS: [[Option<&str>; 7]; 7] = [
    [
        Some("1"),
        Some("10"),
        Some("alpha"),
        Some("0.5"),
        Some("1.50"),
        Some("t"),
        Some("2026-01-01 00:00:00+00"),
    ],
    [
        Some("2"),
        Some("-3"),
        Some("Beta"),
        Some("NaN"),
        Some("-2.5"),
        Some("f"),
        Some("2026-01-01 12:30:00.25+00"),
    ],
    [Some("3"), Some("10"), Some("alpha"), None, Some("100"), None, Some("1999-12-31 23:59:59.999999+00")],
    [Some("4"), None, None, Some("-0.25"), None, Some("t"), None],
    [
        Some("9007199254740993"),
        Some("7"),
        Some(""),
        Some("1e+20"),
        Some("0.333"),
        Some("f"),
        Some("infinity"),
    ],
    [Some("-6"), Some("0"), Some("a_c%"), Some("0"), Some("1.5"), Some("t"), Some("2026-01-01 00:00:00+00")],
    [
        Some("7"),
        Some("10"),
        Some("é\\x"),
        Some("Infinity"),
        Some("0.00"),
        None,
        Some("2026-06-15 08:00:00+00"),
    ],
];

fn table() -> Table {
    let value = |(text, (_, kind)): (&Option<&str>, &(&str, Type))| match text {
        Some(text) => Value::from_text(*kind, text).unwrap(),
        None => Value::Null,
    };
    Table {
        columns: COLUMNS.iter().map(|(name, kind)| Column::new(*name, *kind)).collect(),
        rows: ROWS.iter().map(|row| row.iter().zip(&COLUMNS).map(value).collect()).collect(),
    }
}

/// The router of the `pgherd` database.
fn router() -> Router {
    let map = Map::new(vec!["shard1".to_owned()], Vec::new(), BTreeMap::new(), ShardId(0));
    Router::new(Arc::new(map), Arc::new(Catalog::default()), 100)
}

fn select(router: &Router, sql: &str) -> Result<Arc<Select>, Answer> {
    let env = Env { admin_database: true, ..Env::default() };
    let failed = |e: pgherd::route::RouteError| Answer::Failed(e.sqlstate().to_string());
    let statements = router.prepare(sql.as_bytes(), &env).map_err(failed)?;
    if let Kind::Virtual(select) = statements[0].kind() {
        return Ok(select.clone());
    }
    Err(failed(statements[0].route(router, sql.as_bytes(), &[], &env).expect_err("a refusal")))
}

fn ours(router: &Router, sql: &str) -> Answer {
    let select = match select(router, sql) {
        Ok(select) => select,
        Err(answer) => return answer,
    };
    let empty_row = Table { columns: Vec::new(), rows: vec![Vec::new()] };
    let table = if select.from.is_some() { table() } else { empty_row };
    match table.select(&select, &[], &[], &[]) {
        Err(e) => Answer::Failed(e.sqlstate().to_owned()),
        Ok(found) => Answer::Rows(
            found.columns.iter().map(|c| (c.name.clone(), c.kind.oid())).collect(),
            found
                .rows
                .iter()
                .map(|row| row.iter().map(|v| (!v.is_null()).then(|| v.to_text())).collect())
                .collect(),
        ),
    }
}

async fn theirs(client: &tokio_postgres::Client, sql: &str) -> Answer {
    let failed = |e: tokio_postgres::Error| Answer::Failed(e.code().unwrap().code().to_owned());
    let messages = match client.simple_query(sql).await {
        Ok(messages) => messages,
        Err(e) => return failed(e),
    };
    let prepared = match client.prepare(sql).await {
        Ok(prepared) => prepared,
        Err(e) => return failed(e),
    };
    let columns = prepared.columns().iter().map(|c| (c.name().to_owned(), c.type_().oid())).collect();
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect());
        }
    }
    Answer::Rows(columns, rows)
}

async fn server() -> (common::Pg, tokio_postgres::Client) {
    let pg = common::Pg::start().await;
    let client = pg.connect().await;
    client
        .batch_execute(
            "create schema pgherd;
             set search_path = pgherd; set timezone = 'UTC';
             create table t (id int8, small int4, name text collate \"C\", share float8, price numeric, ok bool,
                             at timestamptz)",
        )
        .await
        .unwrap();
    for row in ROWS {
        let quoted = |v: Option<&str>| v.map_or("null".to_owned(), |v| format!("'{v}'"));
        let values: Vec<_> = row.into_iter().map(quoted).collect();
        client.batch_execute(&format!("insert into t values ({})", values.join(", "))).await.unwrap();
    }
    (pg, client)
}

#[tokio::test]
async fn virtual_tables_answer_as_postgresql_does() {
    let (_pg, client) = server().await;
    let statements = include_str!("data/virtual_tables.sql");
    let router = router(); // one for all: what it remembers of a statement must not answer another
    let mut wrong = Vec::new();
    let mut count = 0;
    for sql in statements.lines().filter(|l| !l.is_empty() && !l.starts_with("--")) {
        let (want, got) =
            (theirs(&client, sql).await.in_any_order(sql), ours(&router, sql).in_any_order(sql));
        if want != got {
            wrong.push(format!("{sql}\n  PostgreSQL: {want:?}\n  here:       {got:?}"));
        }
        count += 1;
    }
    assert!(count > 150, "only {count} statements were found");
    assert!(wrong.is_empty(), "{} of {count} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn floats_print_as_the_server_prints_them() {
    let (_pg, client) = server().await;
    let mut bits = 0x9e37_79b9_7f4a_7c15u64;
    let mut floats = Vec::new();
    for i in 0..5000 {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        floats.push(f64::from_bits(bits));
        floats.push((bits >> 40) as f64 / 1000.0);
        floats.push(2f64.powi(i / 3 - 800));
        floats.push(10f64.powi(i / 8 - 320) * f64::from(i % 8 + 1));
        floats.push((1u64 << 53) as f64 * f64::from(i));
    }
    let sql = "select array(select x::text from unnest($1::float8[]) with ordinality u(x, n) order by n)";
    let row = client.query_one(sql, &[&floats]).await.unwrap();
    let want: Vec<String> = row.get(0);
    let got: Vec<_> = floats.iter().map(|f| Value::Float(*f).to_text()).collect();
    let wrong: Vec<_> = want.iter().zip(&got).filter(|(want, got)| want != got).take(10).collect();
    assert!(wrong.is_empty(), "PostgreSQL and here: {wrong:?}");
}

#[tokio::test]
async fn numerics_divide_as_on_the_server() {
    let (_pg, client) = server().await;
    let mut bits = 7u64;
    let mut pairs = Vec::new();
    for i in 0..2000u32 {
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (digits, scale) = ((bits >> 33) as i64 >> (i % 31), (bits as u32 >> 8) % 10);
            pgherd::rows::Numeric::new(i128::from(digits - 5), scale).unwrap()
        };
        let (a, b) = (next(), next());
        if b.to_f64() != 0.0 {
            pairs.push((a, b));
        }
    }
    let list: Vec<_> = pairs.iter().map(|(a, b)| format!("({a}::numeric, {b}::numeric)")).collect();
    let sql =
        format!("select a / b, a % b, a * b, a - b, round(a, 2) from (values {}) v(a, b)", list.join(", "));
    let want = client.simple_query(&sql).await.unwrap();
    let rows =
        want.iter().filter_map(|m| if let SimpleQueryMessage::Row(row) = m { Some(row) } else { None });
    let columns = ["a", "b"].map(|name| Column::new(name, Type::Numeric)).to_vec();
    let values = pairs.iter().map(|(a, b)| vec![Value::Numeric(*a), Value::Numeric(*b)]).collect();
    let table = Table { columns, rows: values };
    let select = select(&router(), "select a / b, a % b, a * b, a - b, round(a, 2) from t").unwrap();
    let got = table.select(&select, &[], &[], &[]).unwrap();
    assert_eq!(got.rows.len(), pairs.len());
    for ((want, got), pair) in rows.zip(&got.rows).zip(&pairs) {
        let want: Vec<_> = (0..want.len()).map(|i| want.get(i).unwrap().to_owned()).collect();
        assert_eq!(got.iter().map(Value::to_text).collect::<Vec<_>>(), want, "{pair:?}");
    }
}

#[tokio::test]
async fn parameters_get_the_types_postgresql_infers() {
    let (_pg, client) = server().await;
    for sql in [
        "select * from t where id = $1",
        "select * from t where $1 < small",
        "select * from t where name = $1 and share > $2 and price <> $3 and at < $4",
        "select * from t where id in ($1, $2)",
        "select * from t where name like $1 limit $2 offset $3",
        "select id + $1, $2 || name, $3 from t",
        "select coalesce(name, $1) from t where ok = $2",
        "select * from t where $1",
        "select $1::int8, cast($2 as text)",
        "select * from t where id between $1 and $2",
        "select case when ok then small else $1 end from t",
    ] {
        let columns: Vec<_> = COLUMNS.iter().map(|(name, kind)| Column::new(*name, *kind)).collect();
        let select = select(&router(), sql).unwrap();
        let columns = if select.from.is_some() { columns } else { Vec::new() };
        let plan = Plan::new(&select, &columns, &[], &[]).unwrap();
        let got: Vec<_> = plan.params().iter().map(|kind| kind.oid()).collect();
        let prepared = client.prepare(sql).await.unwrap();
        let want: Vec<_> = prepared.params().iter().map(tokio_postgres::types::Type::oid).collect();
        assert_eq!(got, want, "{sql}");
    }
}
