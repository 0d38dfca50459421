//! What routing costs: nanoseconds for a statement that the caches know, by text and by form, and for a new one.
//! Run it optimised: `cargo run --release --example route_cost`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use pgherd::catalog::{Catalog, Collation, Column, Relation, RelationKind, oid};
use pgherd::route::{Env, Router};
use pgherd::shard::{KeyColumn, Map, Method, Placement, ShardId, TableName};
use tokio::time::Instant;

fn catalog() -> Catalog {
    let column = |name: &str| Column {
        name: name.into(),
        type_oid: oid::TEXT,
        type_name: "text".into(),
        not_null: true,
        default: None,
        is_serial: false,
        is_generated: false,
        collation: Some(Collation { name: "C".into(), deterministic: true }),
    };
    let users = Relation {
        kind: RelationKind::Table,
        columns: ["id", "user_id", "name", "email"].map(column).to_vec(),
        unique: Vec::new(),
        reads: Vec::new(),
        unlogged: false,
        has_triggers: false,
    };
    Catalog {
        search_path: vec!["public".into()],
        relations: BTreeMap::from([(("public".into(), "users".into()), users)]),
        ..Catalog::default()
    }
}

fn router() -> Router {
    let key = KeyColumn { column: "user_id".into(), method: Method::Hash, fill: false };
    let users = (TableName::new("public", "users"), Placement::Sharded(vec![key]));
    let partitions = vec![("A".to_owned(), 1, ShardId(0)), ("B".to_owned(), 1, ShardId(1))];
    let shards = vec!["shard1".to_owned(), "shard2".to_owned()];
    let map = Map::new(shards, partitions, BTreeMap::from([users]), ShardId(0));
    Router::new(Arc::new(map), Arc::new(catalog()), 10_000)
}

/// The least of many rounds, so that other work on the machine counts as little as it can.
fn nanoseconds(mut run: impl FnMut(u64)) -> f64 {
    const CALLS: u64 = 20_000;
    let round = |run: &mut dyn FnMut(u64)| {
        let start = Instant::now();
        (0..CALLS).for_each(run);
        start.elapsed().as_nanos() as f64 / CALLS as f64
    };
    (0..40).map(|_| round(&mut run)).fold(f64::INFINITY, f64::min)
}

fn main() {
    let env = Env::default();
    let cases = [
        ("key lookup, literal", "SELECT * FROM users WHERE user_id = 'user_000000123' AND 1=1"),
        ("key lookup, parameter", "SELECT id, name, email FROM users WHERE user_id = $1 --x"),
        ("update by key", "UPDATE users SET name = 'somebody', email = 'x@y' WHERE user_id = 'user_1'"),
        ("begin", "BEGIN"),
    ];
    println!("{:24} {:>5} {:>10} {:>10}", "statement", "bytes", "prepare", "+ route");
    for (name, sql) in cases {
        let router = router();
        let text = sql.as_bytes();
        let prepare = nanoseconds(|_| {
            let _ = black_box(router.prepare(black_box(text), &env));
        });
        let routed = nanoseconds(|_| {
            if let Ok(statements) = router.prepare(black_box(text), &env) {
                statements.iter().for_each(|s| drop(black_box(s.route(&router, text, &[], &env))));
            }
        });
        println!("{name:24} {:>5} {prepare:>7.0} ns {routed:>7.0} ns", text.len());
    }
    let uncached = nanoseconds(|i| {
        let fresh = format!("SELECT c{i} FROM users WHERE user_id = 'x'");
        let _ = black_box(router().prepare(fresh.as_bytes(), &env));
    });
    println!("{:24} {:>5} {uncached:>7.0} ns, the router included", "a router and a new text", 45);
}
