//! Servers on this machine: the fixture that all other tests stand on, and `pgherd cluster`.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::time::Duration;

use common::{Herd, Pg, Port, create_demo_tables, eventually};
use pgherd::local::{Cluster, LocalError, Options};
use tokio_postgres::{NoTls, SimpleQueryMessage};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_write_on_the_primary_is_streamed_to_its_replicas_and_to_no_other_shard() {
    let herd = Herd::start(2, 2).await;
    herd.primary(0).sql("create table t (n int); insert into t values (7)").await;
    herd.caught_up().await;
    for replica in &herd.shards[0].replicas {
        assert_eq!(replica.sql("select n from t").await, ["7"]);
        assert_eq!(replica.sql("select pg_is_in_recovery()").await, ["t"]);
    }
    assert_eq!(herd.shards[1].replicas[0].sql("select to_regclass('t')").await, ["NULL"]);
    let streaming = "select count(*) from pg_stat_replication where state = 'streaming'";
    eventually("both replicas stream", SOON, async || {
        (herd.primary(0).sql(streaming).await == ["2"]).then_some(())
    })
    .await;
    let slots = herd.primary(0).sql("select slot_name from pg_replication_slots order by 1").await;
    assert_eq!(slots, ["replica1", "replica2"], "an unused slot would keep WAL for ever");
}

#[tokio::test]
async fn the_server_is_set_up_as_the_proxy_needs_it() {
    let pg = Pg::start().await;
    for (name, want) in [
        ("wal_level", "logical"),
        ("max_prepared_transactions", "100"),
        ("hot_standby_feedback", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
    ] {
        assert_eq!(pg.sql(&format!("show {name}")).await, [want], "{name}");
    }
    let app = pg.connect_app().await;
    let row = app.query_one("select current_user::text, current_database()::text", &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1)), ("app", "app"));
    app.batch_execute("create table made_by_app (n int)").await.unwrap();
}

#[tokio::test]
async fn the_demo_tables_are_where_they_belong_and_ids_never_collide() {
    let herd = Herd::start(2, 0).await;
    create_demo_tables(&herd, 1).await;
    let insert =
        "insert into orders (user_id, order_id, amount) values ('u', 'o', 1), ('u', 'o', 2) returning id";
    assert_eq!(herd.primary(0).sql(insert).await, ["1", "129"]);
    assert_eq!(herd.primary(1).sql(insert).await, ["2", "130"]);
    for (shard, audit_log) in [(0, "NULL"), (1, "audit_log")] {
        assert_eq!(herd.primary(shard).sql("select to_regclass('audit_log')").await, [audit_log]);
        assert_eq!(herd.primary(shard).sql("select count(*) > 10 from countries").await, ["t"]);
    }
}

#[tokio::test]
async fn a_wrong_password_is_refused_even_from_this_machine() {
    let pg = Pg::start().await;
    let wrong = format!("host=127.0.0.1 port={} user=app password=wrong dbname=app", pg.port);
    let Err(error) = tokio_postgres::connect(&wrong, NoTls).await else {
        panic!("logged in with a wrong password")
    };
    assert_eq!(error.code().map(|code| code.code()), Some("28P01"));
}

#[tokio::test]
async fn what_was_committed_survives_a_crash_and_the_replica_follows_again() {
    let mut herd = Herd::start(1, 1).await;
    herd.sql("create table t (n int)").await;
    herd.sql("insert into t values (1)").await;
    let shard = &mut herd.shards[0];
    shard.primary.kill_immediate().await;
    assert_eq!(shard.replicas[0].sql("select pg_is_in_recovery()").await, ["t"], "it answers on its own");
    shard.primary.restart().await;
    assert_eq!(shard.primary.sql("select n from t").await, ["1"]);
    shard.primary.sql("insert into t values (2)").await;
    shard.replicas[0].caught_up_with(&shard.primary).await;
    assert_eq!(shard.replicas[0].sql("select count(*) from t").await, ["2"]);
    shard.replicas[0].stop().await;
    shard.replicas[0].restart().await;
    assert_eq!(shard.replicas[0].sql("select count(*) from t").await, ["2"]);
}

#[tokio::test]
async fn a_cluster_comes_up_is_reused_and_starts_over_when_told_to() {
    let home = tempfile::tempdir().unwrap();
    let ports = Port::reserve_block(2);
    let options = Options {
        dir: home.path().join("data"),
        port_base: ports[0].number(),
        shards: 1,
        fresh: false,
        also: Vec::new(),
    };
    open_to_all(home.path());
    let quiet = |_: &str| {};

    let cluster = Cluster::up(&options, &quiet).await.unwrap();
    let sql = |port: u16, sql: &'static str| superuser(port, sql);
    sql(options.port_base, "create table t (n int); insert into t values (42)").await;
    eventually("the replica has it", SOON, async || {
        let seen = sql(options.port_base + 1, "select to_regclass('t')").await;
        (seen == ["t"] && sql(options.port_base + 1, "select n from t").await == ["42"]).then_some(())
    })
    .await;

    // Another `up` finds it running and owns nothing of it.
    let again = Cluster::up(&options, &quiet).await.unwrap();
    assert!(again.servers().iter().all(|server| !server.is_owned()));
    again.stop().await.unwrap();
    assert!(Cluster::status(&options.dir).await.unwrap().iter().all(|server| server.ready));
    let elsewhere = Options { port_base: options.port_base - 2, ..options.clone() };
    let error = Cluster::up(&elsewhere, &quiet).await.unwrap_err();
    assert!(matches!(error, LocalError::RunsElsewhere { .. }), "{error}");

    // Whoever started it: `down` stops it, and the data is there at the next `up`.
    cluster.release();
    assert_eq!(Cluster::down(&options.dir).await.unwrap(), 2);
    assert!(Cluster::status(&options.dir).await.unwrap().iter().all(|server| server.pid.is_none()));
    assert_eq!(Cluster::down(&options.dir).await.unwrap(), 0);
    let cluster = Cluster::up(&options, &quiet).await.unwrap();
    assert_eq!(sql(options.port_base, "select n from t").await, ["42"]);
    assert!(cluster.promoted().is_empty());
    sql(options.port_base + 1, "select pg_promote()").await;
    assert_eq!(cluster.promoted(), ["shard1 replica"]);

    // `fresh` replaces it even while it runs.
    let fresh = Options { fresh: true, ..options.clone() };
    let replaced = Cluster::up(&fresh, &quiet).await.unwrap();
    assert_eq!(sql(options.port_base, "select to_regclass('t')").await, ["NULL"]);
    assert!(replaced.promoted().is_empty());
    replaced.stop().await.unwrap();
    drop(cluster);
}

#[tokio::test]
async fn a_taken_port_is_reported_before_anything_is_started_or_wiped() {
    let home = tempfile::tempdir().unwrap();
    open_to_all(home.path());
    let ports = Port::reserve_block(4);
    // A child of another test between fork and exec can hold a listener on for a moment.
    let taken = eventually("the last port is taken", SOON, async || {
        std::net::TcpListener::bind(("127.0.0.1", ports[3].number())).ok()
    })
    .await;
    let options = Options {
        dir: home.path().join("data"),
        port_base: ports[0].number(),
        shards: 2,
        fresh: true,
        also: Vec::new(),
    };
    let error = Cluster::up(&options, &|_| {}).await.unwrap_err();
    let want = format!("port {} is already in use; the shard2 replica needs it", ports[3].number());
    assert_eq!(error.to_string(), want);
    assert!(error.remedy().unwrap().contains("--port-base"));
    assert!(!options.dir.exists());
    drop(taken);
}

/// The servers' user must be able to pass through.
fn open_to_all(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn superuser(port: u16, sql: &str) -> Vec<String> {
    let config = format!("host=127.0.0.1 port={port} user=postgres password=postgres dbname=app");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let messages = client.simple_query(sql).await.unwrap();
    let cell = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => None,
    };
    messages.iter().filter_map(cell).collect()
}
