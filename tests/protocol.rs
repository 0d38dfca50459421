//! The protocol, message by message: pipelines, portals, COPY, cancel, and what is no protocol at all.

mod common;

use bytes::BufMut;
use common::{Changes, Front, PATIENCE, Raw, eventually, rows};
use futures_util::StreamExt as _;
use pgherd::wire::{DescribeTarget, FrontendWriter};
use tokio::io::AsyncWriteExt;

/// Users of shards 1, 2 and 3 under the demo's map (checked where it matters).
const USERS: [&str; 3] = ["user_1", "user_4", "user_2"];

fn insert(user: &str) -> String {
    format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e')")
}

fn select(user: &str) -> String {
    format!("select user_id from users where user_id = '{user}'")
}

/// Every server connection has come back, and the proxy still works.
async fn nothing_leaked(front: &Front) {
    let admin = front.admin().await;
    eventually("all server connections came back", PATIENCE, async || {
        (rows(&admin, "select sum(in_use) from pgherd.pools").await == ["0"]).then_some(())
    })
    .await;
    assert_eq!(rows(&front.connect().await, "select 1").await, ["1"]);
}

/// Amid a long answer small pieces are left to pile up: neither a pause in it nor its end may wait for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_is_passed_on_whatever_pauses_it_makes_and_its_server_serves_on() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let (client, direct) = (front.connect().await, front.herd.primary(0).connect_app().await);
    direct.batch_execute("select pg_advisory_lock(77)").await.unwrap();
    let sql = "select repeat('x', 1000) from generate_series(1, 8000)
        union all select pg_advisory_xact_lock(77)::text
        union all select repeat('y', 1000) from generate_series(1, 5000)";
    for round in 0..2 {
        let values: [&str; 0] = [];
        let mut answer = std::pin::pin!(client.query_raw(sql, values).await.unwrap());
        // The server itself keeps 8 KiB back.
        for n in 0..7980 {
            let row =
                tokio::time::timeout(PATIENCE, answer.next()).await.unwrap_or_else(|_| panic!("row {n}"));
            assert_eq!(row.unwrap().unwrap().get::<_, &str>(0).len(), 1000);
        }
        if round == 0 {
            direct.batch_execute("select pg_advisory_unlock(77)").await.unwrap();
        }
        let rest = tokio::time::timeout(PATIENCE, answer.count()).await.unwrap();
        assert_eq!(7980 + rest, 13_001);
        assert_eq!(tokio::time::timeout(PATIENCE, rows(&client, "select 1")).await.unwrap(), ["1"]);
    }
    for failing in [
        "select 1 / (5000 - n), repeat('x', 1000) from generate_series(1, 9000) n",
        "copy (select 1 / (5000 - n), repeat('x', 1000) from generate_series(1, 9000) n) to stdout",
    ] {
        let mut raw = Raw::connect(&front).await;
        raw.out.put_query(failing.as_bytes());
        let answer = tokio::time::timeout(PATIENCE, raw.ask()).await.unwrap();
        assert!(answer.ends_with(" 22012 /I"), "{}", &answer[answer.len() - 100..]);
        raw.out.put_query(b"select 1");
        assert_eq!(tokio::time::timeout(PATIENCE, raw.ask()).await.unwrap(), "T 1 SELECT_1 /I");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_are_answered_in_order() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    raw.statement("select 1", true).statement("select 2", true).out.put_sync();
    assert_eq!(raw.ask().await, "1 2 T 1 SELECT_1 1 2 T 2 SELECT_1 /I");
    for n in 0..5 {
        raw.statement(&format!("select {n}"), false).out.put_sync();
    }
    raw.send().await;
    assert_eq!(
        raw.answers(5).await,
        "1 2 0 SELECT_1 /I 1 2 1 SELECT_1 /I 1 2 2 SELECT_1 /I 1 2 3 SELECT_1 /I 1 2 4 SELECT_1 /I"
    );
    raw.statement("select 1", false)
        .statement("select 1/0", false)
        .statement("select 2", false)
        .out
        .put_sync();
    // A constant is computed when the statement is planned: at Bind.
    assert_eq!(raw.ask().await, "1 2 1 SELECT_1 1 22012 /I");
    raw.out.put_query(b"");
    assert_eq!(raw.ask().await, "I /I");
    raw.out.put_query(b"select 1; select 2");
    assert_eq!(raw.ask().await, "T 1 SELECT_1 T 2 SELECT_1 /I");
    // Describe of a statement after its Bind, as some drivers do.
    raw.out.put_parse("", b"select 1 as one", &[]);
    raw.out.put_bind("", "", &[0; 6]);
    raw.out.put_target(b'D', DescribeTarget::Statement(""));
    raw.out.put_execute("", 0);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 2 t T 1 SELECT_1 /I");
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_without_sync_is_one_transaction() {
    let front = Front::plain(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int primary key)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    raw.statement("insert into t values (1)", false)
        .statement("insert into t values (1)", false)
        .out
        .put_sync();
    assert_eq!(raw.ask().await, "1 2 INSERT_0_1 1 2 23505 /I");
    raw.out.put_query(b"select count(*) from t");
    assert_eq!(raw.ask().await, "T 0 SELECT_1 /I");
    raw.out.put_query(b"insert into t values (1); select 1/0");
    assert_eq!(raw.ask().await, "INSERT_0_1 22012 /I");
    raw.out.put_query(b"begin; insert into t values (2); commit; select count(*) from t");
    assert_eq!(raw.ask().await, "BEGIN INSERT_0_1 COMMIT T 1 SELECT_1 /I");
    raw.statement("begin", false).statement("insert into t values (3)", false).out.put_sync();
    assert_eq!(raw.ask().await, "1 2 BEGIN 1 2 INSERT_0_1 /T");
    raw.out.put_query(b"nonsense");
    assert_eq!(raw.ask().await, "42601 /E");
    raw.out.put_query(b"select 1");
    assert_eq!(raw.ask().await, "25P02 /E");
    raw.out.put_query(b"commit");
    assert_eq!(raw.ask().await, "ROLLBACK /I");
    raw.out.put_query(b"begin");
    assert_eq!(raw.ask().await, "BEGIN /T");
    raw.out.put_query(b"begin");
    assert_eq!(raw.ask().await, "N BEGIN /T");
    raw.out.put_query(b"savepoint a; insert into t values (9); rollback to a; release a; commit");
    assert_eq!(raw.ask().await, "SAVEPOINT INSERT_0_1 ROLLBACK RELEASE COMMIT /I");
    raw.out.put_query(b"commit");
    assert_eq!(raw.ask().await, "N COMMIT /I");
    raw.out.put_query(b"select count(*) from t");
    assert_eq!(raw.ask().await, "T 1 SELECT_1 /I");
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_over_several_shards_gives_its_rows_once() {
    let front = Front::demo(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    for user in USERS {
        raw.out.put_query(insert(user).as_bytes());
        assert_eq!(raw.ask().await, "INSERT_0_1 /I");
    }
    for _ in 0..2 {
        raw.statement("select 'x' from users", true).out.put_execute("", 0);
        raw.out.put_sync();
        assert_eq!(raw.ask().await, "1 2 T x x x SELECT_3 SELECT_0 /I");
    }
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_read_on_many_shards_but_write_on_one() {
    let front = Front::demo(1, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    for user in USERS {
        raw.statement(&insert(user), false).out.put_sync();
        assert_eq!(raw.ask().await, "1 2 INSERT_0_1 /I");
    }
    for user in USERS {
        raw.statement(&select(user), false);
    }
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 2 user_1 SELECT_1 1 2 user_4 SELECT_1 1 2 user_2 SELECT_1 /I");
    // The second shard is refused, and what was written on the first is undone.
    raw.statement("update users set name = 'x' where user_id = 'user_1'", false);
    raw.statement("update users set name = 'x' where user_id = 'user_4'", false).out.put_sync();
    assert_eq!(raw.ask().await, "1 2 UPDATE_1 1 0A000 /I");
    raw.out.put_query(b"select name from users where user_id = 'user_1'");
    assert_eq!(raw.ask().await, "T n SELECT_1 /I");
    // A fan-out in one batch with its Parse; errors in it; and what cannot be spread.
    raw.statement("select 'row' from users", true).out.put_sync();
    assert_eq!(raw.ask().await, "1 2 T row row row SELECT_3 /I");
    raw.statement("select nosuch from users", true).out.put_sync();
    assert_eq!(raw.ask().await, "42703 /I");
    raw.statement("select 1 / (length(name) - 1) from users", false)
        .statement("select 1", false)
        .out
        .put_sync();
    assert_eq!(raw.ask().await, "1 2 22012 /I");
    raw.out.put_parse("", b"select user_id from users", &[]);
    raw.out.put_bind("", "", &[0; 6]);
    raw.out.put_execute("", 1);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 2 0A000 /I");
    raw.statement("select count(*) from users", false).out.put_sync();
    assert_eq!(raw.ask().await, "1 0A000 /I");
    nothing_leaked(&front).await;
}

/// What a server says of a Bind it says at once, whoever is to execute it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_of_a_bind_over_several_shards_are_looked_at_when_it_comes() {
    let front = Front::demo(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    for user in USERS {
        raw.out.put_query(insert(user).as_bytes());
        assert_eq!(raw.ask().await, "INSERT_0_1 /I");
    }
    const TWO: &str = "select 'x', name from users";
    const WITH: &str = "select 'x' from users where name = $1";
    raw.out.put_parse("two", TWO.as_bytes(), &[]);
    raw.out.put_parse("with", WITH.as_bytes(), &[]);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 1 /I");
    let rows = "T x x x SELECT_3";
    let texts = b"\0\0\0\0\0\x02\0\0\0\0";
    let value = b"\0\0\0\x01\0\0\0\x01n\0\0";
    let cases: [(&str, &str, &[u8], &str); 7] = [
        (TWO, "two", b"\0\0\0\0\0\x01\0\0", rows),
        (TWO, "two", texts, rows),
        (TWO, "two", b"\0\0\0\0\0\x03\0\0\0\0\0\0", "08P01"),
        (WITH, "with", value, rows),
        (WITH, "with", &[0; 6], "08P01"),
        (WITH, "with", b"\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\0\0", "08P01"),
        (WITH, "with", b"\0\0\0\x01\0\0\0\x01n\0\x02\0\0\0\0", "08P01"),
    ];
    for (sql, name, tail, want) in cases {
        for prepared in [true, false] {
            for portal in ["", "p"] {
                let name = if prepared { name } else { "" };
                if !prepared {
                    raw.out.put_parse("", sql.as_bytes(), &[]);
                }
                raw.out.put_bind(portal, name, tail);
                raw.out.put_target(b'D', DescribeTarget::Portal(portal));
                raw.out.put_execute(portal, 0);
                raw.out.put_sync();
                let (parsed, bound) =
                    (if prepared { "" } else { "1 " }, if want == rows { "2 " } else { "" });
                let answer = raw.ask().await;
                assert_eq!(
                    answer,
                    format!("{parsed}{bound}{want} /I"),
                    "{sql} {tail:?} {prepared} {portal:?}"
                );
            }
        }
    }
    // What is bound stays bound while the batch goes elsewhere.
    raw.out.put_bind("f", "two", texts);
    raw.statement(&select("user_1"), false);
    raw.out.put_execute("f", 0);
    raw.statement(&select("user_4"), false).out.put_sync();
    assert_eq!(raw.ask().await, "2 1 2 user_1 SELECT_1 x x x SELECT_3 1 2 user_4 SELECT_1 /I");
    // What fails in a batch fails with all of it, though the reads are elsewhere.
    raw.out.put_bind("f", "two", texts);
    raw.statement("update users set name = 'y' where user_id = 'user_1'", false);
    raw.out.put_execute("f", 0);
    raw.statement("select 1 / 0", false).out.put_sync();
    assert_eq!(raw.ask().await, "2 1 2 UPDATE_1 0A000 /I");
    raw.out.put_query(b"select name from users where user_id = 'user_1'");
    assert_eq!(raw.ask().await, "T n SELECT_1 /I");
    nothing_leaked(&front).await;
}

/// The second batch has failed before the proxy divides the third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_divided_is_not_skipped_for_an_error_of_one_before_it() {
    let front = Front::demo(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    for divided in ["select user_id from users", "select 'x' from users where user_id = 'user_4'"] {
        raw.statement("insert into users (user_id, name, email) values ('user_1', 'n', 'e')", false);
        raw.out.put_sync();
        raw.out.put_target(b'D', DescribeTarget::Portal(""));
        raw.out.put_sync();
        raw.statement("select 1 from users where user_id = 'user_1'", false).statement(divided, false);
        raw.out.put_sync();
        raw.send().await;
        let rest = if divided.contains("user_4") { "SELECT_0" } else { "user_1 SELECT_1" };
        assert_eq!(raw.answers(3).await, format!("1 2 INSERT_0_1 /I 34000 /I 1 2 1 SELECT_1 1 2 {rest} /I"));
        raw.out.put_query(b"delete from users where user_id = 'user_1'");
        assert_eq!(raw.ask().await, "DELETE_1 /I");
    }
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_data_that_nobody_wants_is_dropped_and_what_follows_it_is_in_its_transaction() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    for tag in *b"dcf" {
        raw.out.put_query(b"select 1");
        raw.out.put_frame(tag, b"2\n\0");
        raw.out.put_query(b"begin");
        raw.out.put_query(b"insert into t values (3)");
        raw.out.put_frame(tag, b"4\n\0");
        raw.out.put_query(b"selec 5");
        raw.out.put_frame(tag, b"6\n\0");
        raw.out.put_query(b"rollback");
        raw.out.put_query(b"select count(*) from t");
        raw.send().await;
        let answer = raw.answers(6).await;
        assert_eq!(answer, "T 1 SELECT_1 /I BEGIN /T INSERT_0_1 /T 42601 /E ROLLBACK /I T 0 SELECT_1 /I");
    }
    nothing_leaked(&front).await;
}

/// A server ignores it, so nobody may wait for its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_behind_a_copy_has_no_answer_and_what_follows_has_its_own() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    for early in [0, 1, 3] {
        raw.out.put_query(b"copy t from stdin");
        (0..early).for_each(|_| raw.out.put_sync());
        raw.out.put_frame(b'd', b"1\n");
        raw.out.put_sync();
        raw.out.put_frame(b'c', b"");
        raw.out.put_query(b"select 1");
        raw.send().await;
        assert_eq!(raw.answers(2).await, "G COPY_1 /I T 1 SELECT_1 /I", "{early}");
    }
    drop(raw);
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_bound_over_shards_ends_with_its_batch_and_waits_for_what_was_said_before_it() {
    let front = Front::demo(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_parse("s", b"select 1", &[]);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 /I");
    // An error with its own ReadyForQuery ends the batch.
    raw.out.put_parse("", b"select user_id from users", &[]);
    raw.out.put_bind("", "", &[0; 6]);
    raw.out.put_frame(b'F', b"x");
    raw.out.put_execute("", 0);
    raw.out.put_sync();
    raw.send().await;
    assert_eq!(raw.answers(2).await, "1 2 0A000 /I 34000 /I");
    // A name that is taken is told before any row.
    raw.out.put_parse("", b"select user_id from users", &[]);
    raw.out.put_bind("", "", &[0; 6]);
    raw.out.put_parse("s", b"select 2", &[]);
    raw.out.put_execute("", 0);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 2 42P05 /I");
    // A Query that is no text leaves the unnamed statement.
    raw.out.put_parse("", b"select 3", &[]);
    raw.out.put_query(b"select '\xff'");
    raw.out.put_bind("", "", &[0; 6]);
    raw.out.put_execute("", 0);
    raw.out.put_sync();
    raw.send().await;
    assert_eq!(raw.answers(2).await, "1 22021 /I 2 3 SELECT_1 /I");
    nothing_leaked(&front).await;
}

/// A Query that fails in a transaction leaves the unnamed portal without its plan. A server that is asked to execute it may
/// crash (PostgreSQL 15 does), and with it every session of every client on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_client_can_crash_a_server_by_a_portal_that_a_failed_query_left() {
    let front = Front::plain(0, Changes::default()).await;
    let other = front.connect().await;
    rows(&other, "select pg_advisory_lock(1)").await; // has a server of its own, which a crash would take away
    let fails = ["begin", "selec", "rollback to s", "select name from users where user_id = 'user_1'"];
    let binds: [fn(&mut Raw); 5] = [
        |_| {},
        |raw| raw.out.put_bind("", "one", &[0; 6]),
        |raw| raw.out.put_bind("", "end", b"\0\0\0\x01\0\0\0\0\0\0"),
        |raw| raw.out.put_bind("", "end", &[0; 7]),
        |raw| raw.out.put_bind("", "none", &[0; 6]),
    ];
    for (n, bind) in binds.into_iter().enumerate() {
        for at_once in [false, true] {
            for describe in [false, true] {
                let mut raw = Raw::connect(&front).await;
                raw.out.put_parse("one", b"select 1", &[]);
                raw.out.put_parse("end", b"rollback", &[]);
                raw.out.put_sync();
                assert_eq!(raw.ask().await, "1 1 /I");
                let mut owed = fails.len() + 2;
                for sql in fails {
                    raw.out.put_query(sql.as_bytes());
                    if !at_once {
                        raw.ask().await;
                        owed -= 1;
                    }
                }
                bind(&mut raw);
                raw.out.put_sync();
                if describe {
                    raw.out.put_target(b'D', DescribeTarget::Portal(""));
                }
                raw.out.put_execute("", 0);
                raw.out.put_sync();
                raw.send().await;
                let answer = raw.answers(owed).await;
                assert!(answer.ends_with("34000 /E"), "{n}, at once: {at_once}: {answer}");
                assert_eq!(rows(&other, "select pg_advisory_unlock(1), pg_advisory_lock(1)").await, ["t|"]);
            }
        }
    }
    drop(other);
    nothing_leaked(&front).await;
}

/// What is no COPY data where a server reads nothing else ends the session, whether the proxy or a server finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_off_a_copy_by_another_message_is_told_as_by_a_server_and_nothing_is_copied() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut first = Raw::connect(&front).await;
    first.out.put_query(b"create table t (i int)");
    assert_eq!(first.ask().await, "CREATE_TABLE /I");
    let breaks: [fn(&mut Raw); 5] = [
        |raw| raw.out.put_parse("", b"select 1", &[]),
        |raw| raw.out.put_parse("", b"begin", &[]),
        |raw| raw.out.put_target(b'D', DescribeTarget::Portal("")),
        |raw| raw.out.put_query(b"select 1"),
        |raw| raw.out.put_slice(b"z\0\0\0\x04"),
    ];
    for (n, it_breaks) in breaks.into_iter().enumerate() {
        for begun in [false, true] {
            let mut raw = Raw::connect(&front).await;
            raw.out.put_query(b"begin");
            assert_eq!(raw.ask().await, "BEGIN /T");
            raw.statement("copy t from stdin", false).out.put_frame(b'd', b"1\n");
            raw.out.put_flush();
            if begun {
                raw.send().await;
                while raw.next().await.unwrap().0 != b'G' {}
            }
            it_breaks(&mut raw);
            raw.out.put_frame(b'd', b"2\n");
            raw.out.put_frame(b'c', b"");
            raw.out.put_sync();
            raw.send().await;
            let answer = raw.answers(1).await;
            assert!(answer.ends_with("08P01 closed"), "{n}, {begun}: {answer}");
        }
    }
    first.out.put_query(b"select count(*) from t");
    assert_eq!(first.ask().await, "T 0 SELECT_1 /I");
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_keep_their_place_in_a_transaction() {
    let front = Front::plain(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"begin");
    assert_eq!(raw.ask().await, "BEGIN /T");
    raw.out.put_parse("s", b"select generate_series(1, 5)", &[]);
    raw.out.put_bind("p", "s", &[0; 6]);
    raw.out.put_execute("p", 2);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 2 1 2 s /T");
    raw.out.put_execute("p", 2);
    raw.out.put_flush();
    raw.send().await;
    let mut got = Vec::new();
    while got.len() < 3 {
        got.push(raw.next().await.unwrap().0);
    }
    assert_eq!(got, b"DDs");
    raw.out.put_execute("p", 0);
    raw.out.put_target(b'C', DescribeTarget::Portal("p"));
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "5 SELECT_1 3 /T");
    raw.out.put_query(b"commit");
    assert_eq!(raw.ask().await, "COMMIT /I");
    // The statement outlives the transaction and its server; its name cannot be given twice.
    raw.out.put_bind("", "s", &[0; 6]);
    raw.out.put_execute("", 1);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "2 1 s /I");
    raw.out.put_parse("s", b"select 1", &[]);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "42P05 /I");
    raw.out.put_target(b'C', DescribeTarget::Statement("s"));
    raw.out.put_bind("", "s", &[0; 6]);
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "3 26000 /I");
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_goes_both_ways_and_fails_in_order() {
    let front = Front::plain(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int, s text)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    raw.out.put_query(b"copy t from stdin");
    raw.out.put_frame(b'd', b"1\tone\n2\ttwo\n");
    raw.out.put_frame(b'c', b"");
    assert_eq!(raw.ask().await, "G COPY_2 /I");
    raw.out.put_query(b"copy t from stdin (format csv)");
    raw.out.put_frame(b'd', b"x,broken\n");
    raw.out.put_frame(b'd', b"3,late\n");
    raw.out.put_frame(b'c', b"");
    assert_eq!(raw.ask().await, "G 22P02 /I");
    raw.out.put_query(b"copy t from stdin");
    raw.out.put_frame(b'd', b"4\tfour\n");
    raw.out.put_copy_fail("changed my mind");
    assert_eq!(raw.ask().await, "G 57014 /I");
    raw.out.put_query(b"copy t to stdout");
    assert_eq!(raw.ask().await, "H d d c COPY_2 /I");
    raw.statement("copy t from stdin", false);
    raw.out.put_sync();
    raw.out.put_frame(b'd', b"5\tfive\n");
    raw.out.put_frame(b'c', b"");
    raw.out.put_sync();
    assert_eq!(raw.ask().await, "1 2 G COPY_1 /I");
    // What comes late of a refused CopyData is data still, whatever it looks like.
    raw.out.put_query(b"copy t from stdin");
    raw.out.put_frame(b'd', b"broken\n");
    assert_eq!(raw.ask().await, "G 22P02 /I");
    let mut late = bytes::BytesMut::new();
    let mut looks_like_a_query = bytes::BytesMut::new();
    looks_like_a_query.put_query(b"create table injected (i int)");
    late.put_frame(b'd', &looks_like_a_query);
    let rest = late.split_off(7);
    raw.out.put_slice(&late);
    raw.send().await;
    tokio::task::yield_now().await;
    raw.out.put_slice(&rest);
    raw.out.put_frame(b'c', b"");
    raw.out.put_query(b"select count(*) from pg_class where relname = 'injected'");
    assert_eq!(raw.ask().await, "T 0 SELECT_1 /I");
    // A client that leaves in mid-stream leaves no rows and no connection behind.
    raw.out.put_query(b"copy t from stdin");
    raw.out.put_frame(b'd', b"6\tsix\n");
    raw.send().await;
    drop(raw);
    nothing_leaked(&front).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"select count(*) from t");
    assert_eq!(raw.ask().await, "T 3 SELECT_1 /I");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deep_pipeline_of_large_queries_and_results_does_not_stall() {
    let front = Front::plain(0, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    let padding = "x".repeat(4 << 20);
    for _ in 0..8 {
        raw.statement(&format!("select repeat('y', 8388608) /* {padding} */"), false).out.put_sync();
    }
    let out = raw.out.split();
    let Raw { stream, .. } = &mut raw;
    let (mut read, mut write) = stream.split();
    let writing = async { write.write_all(&out).await.unwrap() };
    let reading = async {
        use tokio::io::AsyncReadExt;
        let (mut total, mut buf) = (0usize, vec![0; 1 << 20]);
        while total < 8 * 8_388_608 {
            total += read.read(&mut buf).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE * 3, async { tokio::join!(writing, reading) })
        .await
        .expect("it does not stall");
}

/// What comes fast and long is read in larger pieces; what is less than a piece must not wait for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_bytes_of_much_are_not_held_back() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let noisy = "create function noisy(i int) returns text language plpgsql as $$ begin
           if i % 1000 = 0 then raise notice 'at %', i; perform pg_advisory_xact_lock(i); end if;
           return repeat('x', 8000); end $$";
    front.connect().await.batch_execute(noisy).await.unwrap();
    let direct = front.herd.primary(0).connect().await;
    let mut raw = Raw::connect(&front).await;
    for _ in 0..3 {
        for lock in [1000, 2000] {
            direct.batch_execute(&format!("select pg_advisory_lock({lock})")).await.unwrap();
        }
        raw.out.put_query(b"select noisy(i) from generate_series(1, 2500) i");
        raw.send().await;
        let (mut bytes, mut noticed) = (0, Vec::new());
        while let Some((tag, body)) = raw.next().await {
            match tag {
                b'Z' => break,
                b'N' => {
                    // The server waits now, and has sent no more than this.
                    noticed.push(bytes >> 20);
                    let lock = noticed.len() * 1000;
                    direct.batch_execute(&format!("select pg_advisory_unlock({lock})")).await.unwrap();
                }
                _ => bytes += body.len(),
            }
        }
        assert_eq!((noticed, bytes >> 20), (vec![7, 15], 19));
        for _ in 0..5 {
            raw.out.put_query(b"select 1");
            assert_eq!(raw.ask().await, "T 1 SELECT_1 /I");
        }
        assert_eq!(rows(&front.connect().await, "select 2").await, ["2"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_ends_the_statement_on_its_server_and_no_other() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    let cancel = async |key: &[u8]| {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        let mut request = bytes::BytesMut::new();
        request.put_u32(8 + key.len() as u32);
        request.put_u32(80_877_102);
        request.put_slice(key);
        stream.write_all(&request).await.unwrap();
        let mut end = [0];
        // The proxy closes when it has been delivered.
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut end).await;
    };
    let mut wrong = raw.key.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let key = raw.key.clone();
    raw.out.put_query(b"select pg_sleep(60)");
    raw.send().await;
    let watch = front.herd.primary(0).connect().await;
    let sleeping = "select 1 from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'";
    eventually("it sleeps", PATIENCE, async || (!rows(&watch, sleeping).await.is_empty()).then_some(()))
        .await;
    cancel(&wrong).await;
    assert!(!rows(&watch, sleeping).await.is_empty(), "a wrong key cancels nothing");
    cancel(&key).await;
    assert_eq!(raw.answers(1).await, "T 57014 /I");
    assert!(rows(&watch, sleeping).await.is_empty());
    cancel(&key).await; // nothing runs: nothing happens
    let other = front.connect().await;
    assert_eq!(rows(&other, "select 1").await, ["1"]);
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_protocol_ends_that_session_only() {
    let front = Front::plain(0, Changes::default()).await;
    for bytes in [
        &b"Q\0\0\0\0"[..],
        b"Q\0\0\0\x03",
        b"Q\xff\xff\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"y\0\0\0\x04",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
    ] {
        for before in ["", "begin", "select 1"] {
            let mut raw = Raw::connect(&front).await;
            if !before.is_empty() {
                raw.out.put_query(before.as_bytes());
                raw.ask().await;
            }
            raw.out.put_slice(bytes);
            raw.send().await;
            raw.stream.shutdown().await.unwrap_or_default();
            let answer = raw.answers(1).await;
            assert!(answer.ends_with("closed"), "{:?}: {answer}", bytes.escape_ascii().to_string());
        }
    }
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_control_inside_a_batch_means_what_the_batch_has_begun() {
    let front = Front::plain(1, Changes::default()).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    let insert = "insert into t values (1)";
    // (statements of one batch, ReadyForQuery's status, what the next simple query does, rows afterwards)
    for (batch, status, then, rows) in [
        (&[insert, "rollback"][..], "/I", "select 1", "0"),
        (&["select 1", "begin", insert, "rollback"], "/I", "select 1", "0"),
        (&["begin", insert, "rollback"], "/I", "select 1", "0"),
        (&[insert, "begin"], "/T", "rollback", "0"),
        (&["select 1", "begin"], "/T", "rollback", "0"),
        (&["select 1", "begin", "select 1"], "/T", "rollback", "0"),
        (&["select 1", "begin", insert], "/T", "rollback", "0"),
        (&["begin", insert, "commit", insert, "rollback"], "/I", "select 1", "1"),
        (&[insert, "commit"], "/I", "select 1", "1"),
        (&[insert, "begin", insert, "commit"], "/I", "select 1", "2"),
        (&[insert, "begin"], "/T", "commit", "1"),
    ] {
        for sql in batch {
            raw.statement(sql, false);
        }
        raw.out.put_sync();
        let answer = raw.ask().await;
        assert!(answer.ends_with(status), "{batch:?}: {answer}");
        raw.out.put_query(then.as_bytes());
        assert!(raw.ask().await.ends_with("/I"), "{batch:?}");
        let found = front.herd.primary(0).sql("select count(*) from t").await;
        assert_eq!(found, [rows], "{batch:?} then {then}: {answer}");
        front.herd.primary(0).sql("truncate t").await;
    }
    nothing_leaked(&front).await;
}

/// A client with settings of its own gets a server that does what it says.
async fn server_is_in_step(front: &Front) {
    let honest = async {
        let client = front.connect().await;
        client.batch_execute("set application_name = 'honest'").await.expect("it is set");
        assert_eq!(rows(&client, "select current_setting('application_name')").await, ["honest"]);
    };
    tokio::time::timeout(PATIENCE, honest).await.expect("the server answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_still_reads_a_copy_is_not_lent_again() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    for extended in [false, true] {
        for _ in 0..5 {
            // The next query comes before the server could say that it reads now.
            let mut hasty = Raw::connect(&front).await;
            if extended {
                hasty.statement("copy t from stdin", false).out.put_sync();
            } else {
                hasty.out.put_query(b"copy t from stdin");
            }
            hasty.out.put_query(b"select 1");
            hasty.send().await;
            server_is_in_step(&front).await;
        }
    }
    nothing_leaked(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_got_half_a_copy_message_is_not_lent_again() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"create table t (i int)");
    assert_eq!(raw.ask().await, "CREATE_TABLE /I");
    for (begin, status) in [("", "/I"), ("begin", "/E")] {
        if !begin.is_empty() {
            raw.out.put_query(begin.as_bytes());
            assert_eq!(raw.ask().await, "BEGIN /T");
        }
        raw.out.put_query(b"copy t from stdin");
        raw.out.put_frame(b'd', b"no number\n");
        let mut message = bytes::BytesMut::new();
        message.put_frame(b'd', &[b'1'; 1000]);
        let rest = message.split_off(500);
        raw.out.extend_from_slice(&message);
        let answer = raw.ask().await;
        assert!(answer.ends_with(&format!("22P02 {status}")), "{answer}");
        if begin.is_empty() {
            server_is_in_step(&front).await;
        }
        // The rest of it is no message for anybody.
        raw.out.extend_from_slice(&rest);
        raw.out.put_query(b"rollback");
        assert!(raw.ask().await.ends_with("ROLLBACK /I"));
        raw.out.put_query(b"select 1");
        assert_eq!(raw.ask().await, "T 1 SELECT_1 /I");
    }
    // Left in the middle of it, in a transaction.
    raw.out.put_query(b"begin");
    assert_eq!(raw.ask().await, "BEGIN /T");
    raw.out.put_query(b"copy t from stdin");
    raw.out.put_frame(b'd', b"no number\n");
    raw.out.put_slice(b"d\0\0\x03\xe8half");
    assert!(raw.ask().await.ends_with("22P02 /E"));
    drop(raw);
    server_is_in_step(&front).await;
    nothing_leaked(&front).await;
}
