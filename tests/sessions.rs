//! Nothing of one client's session reaches another, though they share one server connection.

mod common;

use common::{Changes, Front, PATIENCE, eventually, failure, rows};

/// One server connection for all clients.
async fn narrow() -> Front {
    Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_follow_their_client_and_no_other() {
    let front = narrow().await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("set work_mem = '1MB'").await.unwrap();
    b.batch_execute("set work_mem = '2MB'; set application_name = 'b'").await.unwrap();
    for _ in 0..50 {
        assert_eq!(rows(&a, "show work_mem").await, ["1MB"]);
        assert_eq!(rows(&b, "show work_mem").await, ["2MB"]);
        assert_eq!(rows(&a, "show application_name").await, [""]);
        assert_eq!(rows(&b, "show application_name").await, ["b"]);
    }
    a.batch_execute("begin; set work_mem = '9MB'").await.unwrap();
    assert_eq!(rows(&a, "show work_mem").await, ["9MB"]);
    a.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&a, "show work_mem").await, ["1MB"]);
    a.batch_execute("begin").await.unwrap();
    a.batch_execute("set local work_mem = '7MB'").await.unwrap();
    assert_eq!(rows(&a, "show work_mem").await, ["7MB"]);
    a.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&a, "show work_mem").await, ["1MB"]);
    for statement in ["begin", "set work_mem = '8MB'", "select 1", "commit"] {
        a.batch_execute(statement).await.unwrap();
    }
    assert_eq!(rows(&b, "show work_mem").await, ["2MB"]);
    assert_eq!(rows(&a, "show work_mem").await, ["8MB"]);
    a.batch_execute("reset all").await.unwrap();
    let fresh = front.connect().await;
    let default = rows(&fresh, "show work_mem").await;
    assert_eq!(rows(&a, "show work_mem").await, default);
    b.batch_execute("discard all").await.unwrap();
    assert_eq!(rows(&b, "show work_mem").await, default);
    assert_eq!(failure(&a, "set work_mem = 'nonsense'").await.0, "22023");
    assert_eq!(rows(&a, "show work_mem").await, default);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_statements_of_the_same_name_do_not_meet() {
    let front = narrow().await;
    let (a, b) = (front.connect().await, front.connect().await);
    // tokio-postgres numbers its statements: both clients use the same names.
    let (one, two) = (a.prepare("select 1").await.unwrap(), b.prepare("select 2").await.unwrap());
    for _ in 0..200 {
        assert_eq!(a.query_one(&one, &[]).await.unwrap().get::<_, i32>(0), 1);
        assert_eq!(b.query_one(&two, &[]).await.unwrap().get::<_, i32>(0), 2);
    }
    a.batch_execute("create table t (i int); insert into t values (1)").await.unwrap();
    let star = a.prepare("select * from t").await.unwrap();
    assert_eq!(a.query(&star, &[]).await.unwrap().len(), 1);
    assert!(a.prepare("select nosuch from t").await.is_err());
    assert_eq!(a.query(&star, &[]).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_a_server_of_its_own_keeps_one_and_leaves_nothing_behind() {
    let front = Front::plain(0, Changes { pool: "size = 3\nmin_idle = 0", ..Changes::default() }).await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("create temp table mine (i int)").await.unwrap();
    a.batch_execute("insert into mine values (1), (2)").await.unwrap();
    a.batch_execute("select pg_advisory_lock(7)").await.unwrap();
    assert_eq!(rows(&a, "select count(*) from mine").await, ["2"]);
    assert_eq!(failure(&b, "select * from mine").await.0, "42P01");
    assert_eq!(rows(&b, "select pg_try_advisory_lock(7)").await, ["f"]);
    let admin = front.admin().await;
    let pins = rows(&admin, "select pin from pgherd.clients where pin is not null order by pin").await;
    assert!(pins.iter().any(|p| p.contains("temporary table") || p.contains("advisory")), "{pins:?}");
    drop(a);
    eventually("the lock of a client that left is free", PATIENCE, async || {
        (rows(&b, "select pg_try_advisory_lock(7)").await == ["t"]).then_some(())
    })
    .await;
    assert_eq!(failure(&b, "select * from mine").await.0, "42P01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_in_a_transaction_frees_its_server_and_its_locks() {
    let front = narrow().await;
    let b = front.connect().await;
    b.batch_execute("create table t (i int); insert into t values (1)").await.unwrap();
    let a = front.connect().await;
    a.batch_execute("begin; update t set i = 2; set work_mem = '3MB'").await.unwrap();
    drop(a);
    b.batch_execute("update t set i = i + 10").await.unwrap(); // waits for the one connection, then for no lock
    assert_eq!(rows(&b, "select i from t").await, ["11"]);
    assert_ne!(rows(&b, "show work_mem").await, ["3MB"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_too_long_ends_in_an_error_that_names_it() {
    let changes = Changes { pool: "size = 1\nmin_idle = 0\nqueue_timeout_ms = 200", ..Changes::default() };
    let front = Front::plain(0, changes).await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("begin; select 1").await.unwrap();
    let (code, message) = failure(&b, "select 1").await;
    assert_eq!(code, "53300");
    assert!(message.contains("pool of 1"), "{message}");
    a.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&b, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listening_client_hears_while_it_is_idle() {
    let front = Front::plain(0, Changes { pool: "size = 3", ..Changes::default() }).await;
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(front.port).user("app").password("app").dbname("app");
    let (listener, mut connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(n) = message {
                heard.send(n.payload().to_owned()).unwrap();
            }
        }
    });
    listener.batch_execute("listen gossip").await.unwrap();
    let other = front.connect().await;
    for word in ["one", "two", "three"] {
        other.batch_execute(&format!("notify gossip, '{word}'")).await.unwrap();
    }
    for word in ["one", "two", "three"] {
        let got = tokio::time::timeout(PATIENCE, hears.recv()).await.unwrap();
        assert_eq!(got.as_deref(), Some(word));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_after_a_temporary_table_was_made_does_not_hand_it_to_the_next_client() {
    let front = Front::plain(0, Changes { pool: "size = 9\nmax_pinned = 8", ..Changes::default() }).await;
    for wrong in ["select 1/0", "insert into tt values (null)", "begin; insert into tt values (null)"] {
        let a = front.connect().await;
        a.batch_execute("create temporary table tt (i int primary key)").await.unwrap();
        a.batch_execute(wrong).await.unwrap_err();
        a.batch_execute("rollback").await.unwrap();
        // It is still there for its own client, and for no other.
        assert_eq!(rows(&a, "select count(*) from tt").await, ["0"], "{wrong}");
        let b = front.connect().await;
        assert_eq!(failure(&b, "select count(*) from tt").await.0, "42P01", "{wrong}");
        drop(a);
        b.batch_execute("create temporary table tt (i int)").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_created_in_pg_temp_stays_with_its_client() {
    let front = Front::plain(0, Changes { pool: "size = 9\nmax_pinned = 8", ..Changes::default() }).await;
    for (create, drop_it) in [
        ("create domain pg_temp.d as int", "select 1::d"),
        ("create type pg_temp.ty as (a int)", "select null::ty"),
        ("create view pg_temp.v as select 1", "select * from v"),
        ("create function pg_temp.f() returns int language sql as 'select 1'", "select pg_temp.f()"),
    ] {
        let a = front.connect().await;
        a.batch_execute(create).await.unwrap();
        let b = front.connect().await;
        assert!(b.batch_execute(drop_it).await.is_err(), "{drop_it}");
        assert_eq!(rows(&a, drop_it).await.len(), 1, "{drop_it}");
        let sibling = front.connect().await;
        sibling.batch_execute(create).await.unwrap();
    }
}
