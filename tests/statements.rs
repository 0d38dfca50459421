//! `pgherd.statements` and the figures of late: every statement counted once, with its rows, errors, shards and times.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Changes, Front, Herd, failure, rows};
use futures_util::SinkExt;
use pgherd::admin;
use tokio_postgres::Client;

/// Columns of the statements of one database, those of the test itself.
async fn statements(admin: &Client, columns: &str) -> Vec<String> {
    let sql = format!("SELECT {columns} FROM pgherd.statements WHERE database = 'app' ORDER BY statement");
    rows(admin, &sql).await
}

async fn reset(admin: &Client) {
    admin.simple_query("RESET STATEMENTS").await.unwrap();
}

fn of_late(front: &Front) -> admin::Herd {
    front.proxy.herd("app", "admin")
}

#[tokio::test]
async fn each_statement_is_counted_once_with_its_rows_and_without_its_values() {
    let front = Front::demo(0, Changes::default()).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    reset(&admin).await;
    for i in 0..4 {
        let sql = format!("INSERT INTO users (user_id, name, email) VALUES ('u{i}', 'secret{i}', 'e')");
        client.simple_query(&sql).await.unwrap();
    }
    client.simple_query("SELECT name FROM users WHERE user_id = 'u1'").await.unwrap();
    client.simple_query("select  name from users where user_id='u2' -- secret").await.unwrap();
    client.simple_query("UPDATE users SET name = 'secret' WHERE user_id IN ('u3')").await.unwrap();
    failure(&client, "SELECT name FROM users WHERE user_id = 'u1' AND 1 / (length(name) - 7) = 'secret'")
        .await;
    let shown = statements(&admin, "statement, class, route, calls, errors, rows").await;
    assert_eq!(
        shown,
        [
            "insert into users(user_id, name, email) values (?, …)|insert|direct|4|0|4",
            "select name from users where user_id = ?|select|direct|2|0|2",
            "select name from users where user_id = ? and ? / (length(name) - ?) = ?|select|direct|1|1|0",
            "update users set name = ? where user_id in (?)|update|direct|1|0|1",
        ]
    );
    let secret = rows(&admin, "SELECT count(*) FROM pgherd.statements WHERE statement LIKE '%secret%'").await;
    assert_eq!(secret, ["0"]);
    let parts =
        "SELECT sum(total_us - queue_us - server_us - proxy_us), min(server_us) > 0, min(total_us) > 0
        FROM pgherd.statements WHERE database = 'app'";
    assert_eq!(rows(&admin, parts).await, ["0|t|t"]);
    reset(&admin).await;
    assert_eq!(statements(&admin, "statement").await, Vec::<String>::new());
    let denied = failure(&client, "SELECT * FROM pgherd.statements").await;
    assert_eq!(denied.0, "42501");
}

#[tokio::test]
async fn pipelines_transactions_and_texts_of_several_statements_count_each_statement() {
    let front = Front::demo(0, Changes::default()).await;
    let (mut client, admin) = (front.connect().await, front.admin().await);
    let select = client.prepare("SELECT name FROM users WHERE user_id = $1").await.unwrap();
    reset(&admin).await;
    let before = rows(&admin, "SELECT sum(count) FROM pgherd.latency").await;
    let piped = (0..10).map(|_| client.query(&select, &[&"nobody"]));
    futures_util::future::try_join_all(piped).await.unwrap();
    let transaction = client.transaction().await.unwrap();
    transaction.query(&select, &[&"nobody"]).await.unwrap();
    transaction.batch_execute("SELECT 1; SELECT 2; SELECT 'x'").await.unwrap();
    transaction.batch_execute("SAVEPOINT s; ROLLBACK TO s").await.unwrap();
    transaction.commit().await.unwrap();
    let shown = statements(&admin, "statement, class, calls, rows").await;
    assert_eq!(
        shown,
        [
            "commit|transaction|1|0",
            "rollback to s|transaction|1|0",
            "savepoint s|transaction|1|0",
            "select ?|select|3|3",
            "select name from users where user_id = $1|select|11|0",
            "start transaction|transaction|1|0",
        ]
    );
    // START TRANSACTION was held back: no server has run it by itself.
    let counted = rows(&admin, "SELECT sum(count) FROM pgherd.latency").await;
    let count = |rows: &[String]| rows[0].parse::<u64>().unwrap_or_default();
    assert_eq!(count(&counted) - count(&before), 11 + 3 + 2 + 1);
}

#[tokio::test]
async fn what_an_error_skips_is_not_counted() {
    let front = Front::plain(0, Changes::default()).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    reset(&admin).await;
    failure(&client, "SELECT 1; SELECT 1 / 0; SELECT 'never'; SELECT 'nor this'").await;
    let mut raw = common::Raw::connect(&front).await;
    use pgherd::wire::FrontendWriter;
    for sql in ["SELECT 'a'", "SELECT 1 % 0", "SELECT 'b', 'c', now()"] {
        raw.out.put_parse("", sql.as_bytes(), &[]);
        raw.out.put_bind("", "", &[0, 0, 0, 0, 0, 0]);
        raw.out.put_execute("", 0);
    }
    raw.out.put_sync();
    raw.send().await;
    raw.answers(1).await;
    let shown = statements(&admin, "statement, calls, errors, rows").await;
    assert_eq!(shown, ["select ?|2|0|2", "select ? % ?|1|1|0", "select ? / ?|1|1|0"]);
    let errors = of_late(&front).errors(2);
    let about: Vec<_> = errors.iter().map(|e| (&*e.sqlstate, e.statement.as_deref())).collect();
    assert_eq!(about, [("22012", Some("select ? % ?")), ("22012", Some("select ? / ?"))]);
    assert!(errors.iter().all(|e| e.shard.as_deref() == Some("shard1") && e.server.is_some()));
}

#[tokio::test]
async fn fan_outs_refusals_copies_and_what_the_proxy_answers_are_told_apart() {
    let front = Front::demo(0, Changes::default()).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    for i in 0..20 {
        let sql = format!("INSERT INTO users (user_id, name, email) VALUES ('u{i}', 'n', 'e')");
        client.simple_query(&sql).await.unwrap();
    }
    reset(&admin).await;
    let all = client.query("SELECT user_id FROM users WHERE name = $1", &[&"n"]).await.unwrap();
    assert_eq!(all.len(), 20);
    failure(&client, "SELECT count(*) FROM users").await;
    failure(&client, "SELECT FROM WHERE users").await;
    client.simple_query("SET pgherd.role = 'primary'").await.unwrap();
    client.simple_query("BEGIN").await.unwrap();
    client.simple_query("COMMIT").await.unwrap();
    let sink = client.copy_in("COPY audit_log (user_id, action) FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"me\tread\nme\twrote\n")).await.unwrap();
    sink.finish().await.unwrap();
    // The driver does not wait for ReadyForQuery, with which it is counted.
    common::eventually("the COPY is counted", std::time::Duration::from_secs(20), async || {
        let shown = statements(&admin, "statement").await;
        shown.iter().any(|statement| statement.starts_with("copy")).then_some(())
    })
    .await;
    let shown = statements(&admin, "statement, class, route, shards, calls, errors, rows").await;
    assert_eq!(
        shown,
        [
            "begin|transaction|local||1|0|0",
            "commit|transaction|local||1|0|0",
            "copy audit_log(user_id, action) from stdin|copy|direct|shard2|1|0|2",
            "select count(*) from users|select|local||1|1|0",
            "select from where users|select|direct|shard1|1|1|0",
            "select user_id from users where name = $1|select|fan-out|shard1, shard2, shard3|1|0|20",
            "set pgherd.role = ?|other|local||1|0|0",
        ]
    );
}

#[tokio::test]
async fn a_portal_fetched_in_parts_is_one_call_with_all_its_rows() {
    let front = Front::plain(0, Changes::default()).await;
    let (mut client, admin) = (front.connect().await, front.admin().await);
    reset(&admin).await;
    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT generate_series(1, 10)", &[]).await.unwrap();
    for want in [4, 4, 2] {
        assert_eq!(transaction.query_portal(&portal, 4).await.unwrap().len(), want);
    }
    transaction.commit().await.unwrap();
    let series = "statement LIKE '%series%'";
    let sql = format!("SELECT calls, rows FROM pgherd.statements WHERE {series}");
    assert_eq!(rows(&admin, &sql).await, ["1|10"]);
}

#[tokio::test]
async fn figures_of_late_agree_with_a_counted_load() {
    let front = Front::demo(0, Changes::default()).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    let before = of_late(&front).analytics(Duration::from_secs(300)).figures;
    for i in 0..60 {
        let sql = format!("INSERT INTO users (user_id, name, email) VALUES ('k{i}', 'n', 'e')");
        client.simple_query(&sql).await.unwrap();
        client.simple_query(&format!("SELECT name FROM users WHERE user_id = 'k{i}'")).await.unwrap();
    }
    for _ in 0..5 {
        failure(&client, "SELECT 1 / 0").await;
    }
    let herd = of_late(&front);
    let after = herd.analytics(Duration::from_secs(300));
    let figures = &after.figures;
    assert_eq!(figures.total - before.total, 125);
    assert_eq!((figures.writes - before.writes, figures.reads - before.reads), (60, 65));
    assert_eq!(figures.errors - before.errors, 5);
    assert!(
        figures.latency.max_us >= figures.latency.p99_us && figures.latency.p99_us >= figures.latency.p50_us
    );
    assert_eq!(after.shards.len(), 3);
    assert_eq!(after.shards.iter().map(|s| s.figures.total).sum::<u64>(), 125 + before_on_shards(&before));
    let named: Vec<_> = after.partitions.iter().map(|p| p.partition.as_str()).collect();
    assert_eq!(named, ["A", "B", "C", "D", "E"]);
    assert_eq!(after.partitions.iter().map(|p| p.total).sum::<u64>(), 120);
    for shard in &after.shards {
        let held: u64 = after.partitions.iter().filter(|p| p.shard == shard.shard).map(|p| p.total).sum();
        assert!(shard.figures.total >= held, "{} {held}", shard.shard);
    }
    let counted: u64 = rows(&admin, "SELECT sum(count) FROM pgherd.latency").await[0].parse().unwrap();
    assert_eq!(counted, after.servers.iter().map(|s| s.figures.total).sum::<u64>());
    let series = herd.series(Duration::from_secs(300), Duration::from_secs(10));
    assert_eq!(series.iter().map(|p| p.total).sum::<u64>(), figures.total);
}

/// Before the load nothing ran on a shard for a client.
fn before_on_shards(before: &pgherd::stats::Figures) -> u64 {
    assert_eq!(before.writes + before.reads, 0);
    0
}

#[tokio::test]
async fn the_plan_cache_tells_hits_from_misses() {
    let front = Front::plain(0, Changes::default()).await;
    let client = front.connect().await;
    let before = front.proxy.stats().totals();
    for i in 0..10 {
        client.simple_query(&format!("SELECT {i} AS plan_cache_test")).await.unwrap();
    }
    let after = front.proxy.stats().totals();
    assert_eq!((after.plan_misses - before.plan_misses, after.plan_hits - before.plan_hits), (1, 9));
}

#[tokio::test]
async fn with_statistics_off_nothing_is_counted_and_everything_works() {
    let herd = Herd::start(1, 0).await;
    let off = Changes { proxy: "statistics = false", ..Changes::default() };
    let front = Front::over(herd, false, off).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    client.simple_query("SELECT 1; SELECT 2").await.unwrap();
    assert_eq!(client.query("SELECT $1::text", &[&"x"]).await.unwrap().len(), 1);
    failure(&client, "SELECT 1 / 0").await;
    assert_eq!(statements(&admin, "statement").await, Vec::<String>::new());
    assert_eq!(of_late(&front).analytics(Duration::from_secs(60)).figures.total, 0);
}
