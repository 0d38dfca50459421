//! What an operator orders while clients are at work: RELOAD, PAUSE, RESUME, RECONNECT, KILL, DRAIN.

mod common;

use std::time::Duration;

use common::{Changes, Front, PATIENCE, Raw, eventually, failure, rows};
use tokio_postgres::Client;

/// Asks which server answers.
const PORT: &str = "select inet_server_port()";

async fn plain(pool: &'static str) -> Front {
    Front::plain(0, Changes { pool, ..Changes::default() }).await
}

/// A setting as `pgherd.config` shows it.
async fn setting(admin: &Client, key: &str) -> String {
    rows(admin, &format!("select value from pgherd.config where key = '{key}'")).await.remove(0)
}

async fn reload(admin: &Client) {
    admin.batch_execute("RELOAD").await.unwrap_or_else(|e| panic!("{e:?}"));
}

/// Waits until the session's end is noticed.
async fn ended(client: &Client) {
    eventually("the session ends", PATIENCE, async || client.is_closed().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_file_changes_nothing_and_says_all_that_is_wrong() {
    let front = plain("size = 2").await;
    let admin = front.admin().await;
    let good = std::fs::read_to_string(&front.config).unwrap();
    front.reconfigure("size = 2", "size = 2\nsizzle = 3");
    front.reconfigure("[timeouts]", "[timeouts]\nidel_ms = 1");
    let error = admin.batch_execute("RELOAD").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "F0000");
    let detail = error.detail().unwrap();
    assert!(detail.contains("sizzle") && detail.contains("did you mean \"idle_ms\""), "{detail}");
    assert!(setting(&admin, "reload.last_error").await.contains("sizzle"));
    assert_eq!(setting(&admin, "database.app.pool.size").await, "2");
    let client = front.connect().await;
    assert_eq!(rows(&client, "select 1").await, ["1"]);
    // What is well formed, but would lose stored rows.
    std::fs::write(&front.config, good.replace("name = \"shard1\"", "name = \"other\"")).unwrap();
    let error = admin.batch_execute("RELOAD").await.unwrap_err();
    assert!(error.as_db_error().unwrap().detail().unwrap().contains("list of shards"), "{error:?}");
    std::fs::write(&front.config, good).unwrap();
    reload(&admin).await;
    assert_eq!(setting(&admin, "reload.last_error").await, "∅");
    assert_eq!(setting(&admin, "reload.count").await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_changes_pools_users_and_databases_under_working_clients() {
    let front = plain("size = 1\nqueue_timeout_ms = 300").await;
    let admin = front.admin().await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("set application_name = 'a'; begin; select 1").await.unwrap();
    assert_eq!(failure(&b, "select 1").await.0, "53300");
    front.reconfigure("size = 1", "size = 2");
    front.reconfigure("password = \"app\"", "password = \"other\"\nserver_password = \"app\"");
    front.reconfigure("[[database]]", "[[user]]\nname = \"new\"\npassword = \"new\"\nserver_user = \"app\"\nserver_password = \"app\"\n[[database]]");
    reload(&admin).await;
    assert_eq!(setting(&admin, "database.app.pool.size").await, "2");
    assert_eq!(rows(&b, "select 1").await, ["1"], "the pool is larger while a has its server");
    a.batch_execute("select 2; commit").await.unwrap();
    assert_eq!(rows(&a, "show application_name").await, ["a"]);
    assert!(front.try_connect("app", "app", "app").await.is_err(), "the old password");
    front.try_connect("app", "other", "app").await.unwrap();
    let new = front.connect_as("new", "app").await;
    assert_eq!(rows(&new, "select current_user").await, ["app"]);
    // The user is gone, its session stays; a new one does not come in.
    front.reconfigure(
        "[[user]]\nname = \"new\"\npassword = \"new\"",
        "[[user]]\nname = \"newer\"\npassword = \"new\"",
    );
    reload(&admin).await;
    assert_eq!(rows(&new, "select 1").await, ["1"]);
    assert!(front.try_connect("new", "new", "app").await.is_err());
    // Another database over the same server is served at once, and its clients leave when it is gone.
    let text = std::fs::read_to_string(&front.config).unwrap();
    let section = &text[text.find("[[database]]").unwrap()..];
    let second = section.replacen("name = \"app\"", "name = \"second\"\nserver_database = \"postgres\"", 1);
    std::fs::write(&front.config, format!("{text}\n{second}")).unwrap();
    reload(&admin).await;
    let other = front.try_connect("newer", "new", "second").await.unwrap();
    assert_eq!(rows(&other, "select current_database()").await, ["postgres"]);
    std::fs::write(&front.config, text).unwrap();
    reload(&admin).await;
    ended(&other).await;
    let error = front.try_connect("newer", "new", "second").await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "3D000");
    assert_eq!(rows(&b, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_session_gets_the_timeouts_of_a_reload() {
    let front = plain("size = 2").await;
    let admin = front.admin().await;
    let idle = front.connect().await;
    let open = front.connect().await;
    open.batch_execute("begin; select 1").await.unwrap();
    front
        .reconfigure("[timeouts]", "[timeouts]\nidle_ms = 100\nidle_in_transaction_ms = 150\nquery_ms = 200");
    reload(&admin).await;
    ended(&idle).await;
    ended(&open).await;
    let codes = rows(&front.admin().await, "select sqlstate from pgherd.errors order by sqlstate").await;
    assert!(codes.contains(&"57P05".to_owned()) && codes.contains(&"25P03".to_owned()), "{codes:?}");
    let client = front.connect().await;
    assert_eq!(failure(&client, "select pg_sleep(20)").await.0, "57014");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_ends_on_the_server_that_a_reload_removed() {
    let front =
        Front::plain(1, Changes { database: "read_consistency = \"eventual\"", ..Changes::default() }).await;
    let admin = front.admin().await;
    front.herd.primary(0).sql("create table t (i int)").await;
    front.herd.caught_up().await;
    let replica = front.herd.shards[0].replicas[0].port;
    let reader = front.connect().await;
    reader.batch_execute("begin read only").await.unwrap();
    assert_eq!(rows(&reader, PORT).await, [replica.to_string()]);
    let fresh = front.connect().await;
    assert_eq!(rows(&fresh, PORT).await, [replica.to_string()]);
    let text = std::fs::read_to_string(&front.config).unwrap();
    let line = text.lines().find(|line| line.contains(&replica.to_string())).unwrap().to_owned();
    front.reconfigure(&line, "");
    reload(&admin).await;
    let port = front.herd.primary(0).port.to_string();
    assert_eq!(rows(&fresh, PORT).await, std::slice::from_ref(&port));
    assert_eq!(rows(&reader, PORT).await, [replica.to_string()], "its transaction is there");
    reader.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&reader, PORT).await, [port]);
    eventually("no connection to the removed server is left", PATIENCE, async || {
        let sql = "select count(*) from pg_stat_activity where usename = 'app'";
        (front.herd.shards[0].replicas[0].sql(sql).await == ["0"]).then_some(())
    })
    .await;
    // And back again.
    std::fs::write(&front.config, text).unwrap();
    reload(&admin).await;
    front.ready().await;
    assert_eq!(rows(&fresh, PORT).await, [replica.to_string()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_gets_a_placement_only_while_it_has_no_rows_elsewhere() {
    let front = Front::demo(0, Changes::default()).await;
    let admin = front.admin().await;
    front.herd.sql("create table events (user_id text, what text); grant all on events to app").await;
    reload(&admin).await;
    let client = front.connect().await;
    client.batch_execute("insert into events values ('ann', 'x')").await.unwrap();
    let table = "[[database.table]]\nname = \"events\"\nplacement = \"sharded\"\nkeys = [{ column = \"user_id\" }]\n[[database.table]]\nname = \"countries\"";
    front.reconfigure("[[database.table]]\nname = \"countries\"", table);
    let error = admin.batch_execute("RELOAD").await.unwrap_err();
    let detail = format!("{error:?}");
    assert!(detail.contains("table public.events") && detail.contains("has rows"), "{detail}");
    client.batch_execute("delete from events").await.unwrap();
    // Writers at work all the while: none of their rows is written by the old map after the change.
    let placed = std::sync::atomic::AtomicBool::new(false);
    let writers = (0..2).map(|w| {
        let (front, placed) = (&front, &placed);
        async move {
            let client = front.connect().await;
            for i in 0.. {
                let key = format!("user_{w}_{i}");
                client.batch_execute(&format!("insert into events values ('{key}', 'y')")).await.unwrap();
                client.batch_execute(&format!("delete from events where user_id = '{key}'")).await.unwrap();
                if placed.load(std::sync::atomic::Ordering::Relaxed) && i > 50 {
                    break;
                }
            }
            client.batch_execute(&format!("insert into events values ('last_{w}', 'z')")).await.unwrap();
        }
    });
    let change = async {
        eventually("the table is placed", PATIENCE, async || admin.batch_execute("RELOAD").await.ok()).await;
        placed.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(futures_util::future::join_all(writers), change);
    for w in 0..2 {
        assert_eq!(
            rows(&client, &format!("select what from events where user_id = 'last_{w}'")).await,
            ["z"]
        );
    }
    let all = rows(&client, "select user_id from events").await;
    assert_eq!(all.len(), 2, "{all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_waits_for_transactions_holds_new_ones_and_resume_lets_them_go() {
    let front = plain("size = 3\nqueue_timeout_ms = 200").await;
    let admin = front.admin().await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("begin; select 1").await.unwrap();
    let operator = front.admin().await;
    let pausing = tokio::spawn(async move { operator.batch_execute("PAUSE app").await });
    eventually("the pause begins", PATIENCE, async || {
        (rows(&admin, "select paused from pgherd.databases").await == ["t"]).then_some(())
    })
    .await;
    let mut held = tokio::spawn(async move { (rows(&b, "select 'held'").await, b) });
    eventually("b waits", PATIENCE, async || {
        let sql = "select count(*) from pgherd.clients where state = 'waiting'";
        (rows(&admin, sql).await == ["1"]).then_some(())
    })
    .await;
    assert!(!pausing.is_finished(), "a is in its transaction");
    a.batch_execute("select 2; commit").await.unwrap();
    pausing.await.unwrap().unwrap();
    let sql = "select count(*) from pg_stat_activity where usename = 'app'";
    assert_eq!(front.herd.primary(0).sql(sql).await, ["0"], "a paused database has no connections");
    // Longer than the queue's timeout: a pause is no queue.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut held).await.is_err());
    // A cancel request ends the wait.
    let canceller = a.cancel_token();
    let waiting = tokio::spawn(async move { (failure(&a, "select 1").await, a) });
    let (code, a) = loop {
        tokio::task::yield_now().await;
        canceller.cancel_query(tokio_postgres::NoTls).await.unwrap();
        if waiting.is_finished() {
            break waiting.await.unwrap();
        }
    };
    assert_eq!(code.0, "57014");
    admin.batch_execute("RESUME app").await.unwrap();
    assert_eq!(held.await.unwrap().0, ["held"]);
    assert_eq!(rows(&a, "select 3").await, ["3"]);
    assert_eq!(failure(&admin, "RESUME app").await.0, "55000");
    assert_eq!(failure(&admin, "PAUSE nosuch").await.0, "3D000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_takes_too_long_or_is_cancelled_is_taken_back() {
    let front = Front::plain(0, Changes { timeouts: "drain_ms = 200", ..Changes::default() }).await;
    let admin = front.admin().await;
    let a = front.connect().await;
    a.batch_execute("begin; select 1").await.unwrap();
    let (code, message) = failure(&admin, "PAUSE").await;
    assert_eq!(code, "55006");
    assert!(message.contains("drain_ms"), "{message}");
    let b = front.connect().await;
    assert_eq!(rows(&b, "select 1").await, ["1"]);
    front.reconfigure("drain_ms = 200", "drain_ms = 20000");
    reload(&admin).await;
    let canceller = admin.cancel_token();
    let pausing = tokio::spawn(async move { failure(&admin, "PAUSE").await.0 });
    let admin = front.admin().await;
    eventually("the pause begins", PATIENCE, async || {
        (rows(&admin, "select paused from pgherd.databases").await == ["t"]).then_some(())
    })
    .await;
    canceller.cancel_query(tokio_postgres::NoTls).await.unwrap();
    assert_eq!(pausing.await.unwrap(), "57014");
    assert_eq!(rows(&b, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconnect_replaces_every_server_connection_as_it_becomes_free() {
    let front = plain("size = 2").await;
    let admin = front.admin().await;
    let (a, b) = (front.connect().await, front.connect().await);
    let pid = "select pg_backend_pid()";
    a.batch_execute("begin").await.unwrap();
    let (in_use, idle) = (rows(&a, pid).await, rows(&b, pid).await);
    assert_ne!(in_use, idle);
    admin.batch_execute("RECONNECT app").await.unwrap();
    assert_eq!(rows(&a, pid).await, in_use, "a transaction keeps its server");
    let fresh = rows(&b, pid).await;
    assert!(fresh != idle && fresh != in_use);
    a.batch_execute("commit").await.unwrap();
    for _ in 0..5 {
        let now = rows(&a, pid).await;
        assert!(now != in_use && now != idle);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_ends_a_client_whatever_it_does() {
    let front = plain("size = 2").await;
    let admin = front.admin().await;
    let id = async |state: &str, user: &str| {
        let sql = format!("select id from pgherd.clients where state = '{state}' and user_name = '{user}'");
        eventually(&sql, PATIENCE, async || rows(&admin, &sql).await.pop()).await
    };
    // Idle.
    let idle = front.connect().await;
    admin.batch_execute(&format!("KILL {}", id("idle", "app").await)).await.unwrap();
    ended(&idle).await;
    // In a transaction: it is rolled back.
    front.herd.primary(0).sql("create table t (i int); grant all on t to app").await;
    let open = front.connect().await;
    open.batch_execute("begin; insert into t values (1)").await.unwrap();
    admin.batch_execute(&format!("KILL {}", id("idle in transaction", "app").await)).await.unwrap();
    ended(&open).await;
    let other = front.connect().await;
    assert_eq!(rows(&other, "select count(*) from t").await, ["0"]);
    drop(other);
    // At work: the statement is stopped on the server.
    let busy = front.connect().await;
    let error = tokio::spawn(async move { busy.simple_query("select pg_sleep(60)").await.unwrap_err() });
    admin.batch_execute(&format!("KILL {}", id("active", "app").await)).await.unwrap();
    let error = error.await.unwrap();
    assert_eq!(error.as_db_error().map(|e| e.code().code()), Some("57P01"), "{error:?}");
    eventually("the server has stopped", PATIENCE, async || {
        let sql =
            "select count(*) from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
        (front.herd.primary(0).sql(sql).await == ["0"]).then_some(())
    })
    .await;
    // One that does not read its rows.
    let mut deaf = Raw::connect(&front).await;
    use pgherd::wire::FrontendWriter;
    deaf.out.put_query(b"select repeat('x', 1000) from generate_series(1, 100000)");
    deaf.send().await;
    admin.batch_execute(&format!("KILL {}", id("active", "raw").await)).await.unwrap();
    eventually("it is gone", PATIENCE, async || {
        (rows(&admin, "select count(*) from pgherd.clients where user_name = 'raw'").await == ["0"])
            .then_some(())
    })
    .await;
    // In the queue of a paused database.
    let queued = front.connect().await;
    admin.batch_execute("PAUSE app").await.unwrap();
    let error = tokio::spawn(async move { queued.simple_query("select 1").await.unwrap_err() });
    admin.batch_execute(&format!("KILL {}", id("waiting", "app").await)).await.unwrap();
    let error = error.await.unwrap();
    assert_eq!(error.as_db_error().map(|e| e.code().code()), Some("57014"), "{error:?}");
    admin.batch_execute("RESUME").await.unwrap();
    assert_eq!(failure(&admin, "KILL 4000000").await.0, "42704");
    assert_eq!(failure(&admin, "KILL nosuch").await.0, "3D000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_of_a_database_ends_its_clients_and_pauses_it() {
    let front = plain("size = 2").await;
    let admin = front.admin().await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("begin; select 1").await.unwrap();
    admin.batch_execute("KILL app").await.unwrap();
    ended(&a).await;
    ended(&b).await;
    assert_eq!(rows(&admin, "select paused from pgherd.databases").await, ["t"]);
    admin.batch_execute("RESUME app").await.unwrap();
    assert_eq!(rows(&front.connect().await, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_replica_is_not_read_from() {
    let front =
        Front::plain(2, Changes { database: "read_consistency = \"eventual\"", ..Changes::default() }).await;
    let admin = front.admin().await;
    let client = front.connect().await;
    let ports = async || {
        let mut ports = std::collections::BTreeSet::new();
        for _ in 0..20 {
            ports.extend(rows(&client, PORT).await);
        }
        ports
    };
    eventually("both are read from", PATIENCE, async || (ports().await.len() == 2).then_some(())).await;
    let replica = format!("127.0.0.1:{}", front.herd.shards[0].replicas[0].port);
    admin.batch_execute(&format!("DRAIN SERVER '{replica}'")).await.unwrap();
    let states = rows(&admin, &format!("select state from pgherd.servers where server = '{replica}'")).await;
    assert_eq!(states, ["drained"]);
    let other = front.herd.shards[0].replicas[1].port.to_string();
    assert_eq!(ports().await.into_iter().collect::<Vec<_>>(), [other]);
    assert_eq!(failure(&admin, &format!("DRAIN SERVER '{replica}'")).await.0, "55000");
    reload(&admin).await;
    assert_eq!(ports().await.len(), 1, "a reload does not forget it");
    admin.batch_execute(&format!("RESUME SERVER '{replica}'")).await.unwrap();
    eventually("both are read from", PATIENCE, async || (ports().await.len() == 2).then_some(())).await;
    let primary = format!("127.0.0.1:{}", front.herd.primary(0).port);
    assert_eq!(failure(&admin, &format!("DRAIN SERVER '{primary}'")).await.0, "55000");
    assert_eq!(failure(&admin, "DRAIN SERVER 'nosuch:1'").await.0, "42704");
    assert_eq!(failure(&admin, "DRAIN").await.0, "42601");
}
