//! A cancel request stops the statement it was meant for, or nothing.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use bytes::BufMut;
use common::{Changes, Front, PATIENCE, Raw, eventually, rows};
use pgherd::wire::FrontendWriter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_postgres::NoTls;

/// What a client sends to have its statement stopped.
async fn cancel(port: u16, key: &[u8]) {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut packet = bytes::BytesMut::new();
    packet.put_u32(key.len() as u32 + 8);
    packet.put_u32(80_877_102);
    packet.put_slice(key);
    stream.write_all(&packet).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "nothing is answered");
}

/// Cancel requests, in all.
const REQUESTS: u32 = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_cancels_that_race_with_statement_ends_never_hit_another_client() {
    let front =
        Front::plain(0, Changes { pool: "size = 2\nqueue_timeout_ms = 20000", ..Changes::default() }).await;
    let over = AtomicBool::new(false);
    let (cancelled, completed, undisturbed) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    // Statements that end just when the request for them arrives, sooner or later.
    let cancelling = (0..4u32).map(|which| {
        let (front, cancelled, completed) = (&front, &cancelled, &completed);
        async move {
            let client = front.connect().await;
            let token = client.cancel_token();
            for i in 0..REQUESTS / 4 {
                let sql = format!("select pg_sleep({})", f64::from((i * 7 + which) % 40) / 10_000.0);
                let (done, sent) = tokio::join!(client.simple_query(&sql), token.cancel_query(NoTls));
                sent.unwrap();
                match done {
                    Ok(_) => completed.fetch_add(1, Relaxed),
                    Err(e) => {
                        assert_eq!(e.as_db_error().map(|e| e.code().code()), Some("57014"), "{e:?}");
                        cancelled.fetch_add(1, Relaxed)
                    }
                };
            }
        }
    });
    let others = (0..4).map(|_| {
        let (front, over, undisturbed) = (&front, &over, &undisturbed);
        async move {
            let client = front.connect().await;
            while !over.load(Relaxed) {
                let done = client.simple_query("select pg_sleep(0.0003)").await;
                done.unwrap_or_else(|e| panic!("another client's statement was cancelled: {e:?}"));
                undisturbed.fetch_add(1, Relaxed);
            }
        }
    });
    let work = async {
        futures_util::future::join_all(cancelling).await;
        over.store(true, Relaxed);
    };
    tokio::join!(work, futures_util::future::join_all(others));
    let (cancelled, completed) = (cancelled.into_inner(), completed.into_inner());
    println!("{cancelled} cancelled, {completed} completed, {} of others", undisturbed.load(Relaxed));
    assert!(cancelled > 0 && completed > 0, "{cancelled} cancelled, {completed} completed: no race");
    assert!(undisturbed.load(Relaxed) > REQUESTS / 20, "others hardly ran meanwhile: no race");
    assert_eq!(rows(&front.connect().await, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_long_where_the_protocol_allows_it_and_never_alike() {
    let front = Front::plain(0, Changes::default()).await;
    let mut keys = std::collections::HashSet::new();
    for _ in 0..20 {
        let short = Raw::connect(&front).await;
        assert_eq!(short.key.len(), 4 + 4, "process id and a key of protocol 3.0");
        assert!(keys.insert(short.key[4..].to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_protocol_3_2_cancels_with_a_key_of_256_bits() {
    let front = Front::plain(0, Changes::default()).await;
    let mut client = Raw::connect_by(&front, 2).await;
    assert_eq!(client.key.len(), 4 + 32, "process id and 256 bits");
    client.out.put_query(b"select pg_sleep(30)");
    client.send().await;
    let admin = front.admin().await;
    // On the server, that is: PostgreSQL forgets a request that it sees before the statement.
    eventually("it runs", PATIENCE, async || {
        let sql =
            "select count(*) from pg_stat_activity where query = 'select pg_sleep(30)' and state = 'active'";
        (front.herd.primary(0).sql(sql).await == ["1"]).then_some(())
    })
    .await;
    // Another key, and a part of the right one, do nothing.
    let key = client.key.clone();
    let mut other = key.clone();
    other[35] ^= 1;
    for wrong in [&other[..], &key[..8], &key[..35]] {
        cancel(front.port, wrong).await;
    }
    assert_eq!(rows(&admin, "select state from pgherd.clients where user_name = 'raw'").await, ["active"]);
    cancel(front.port, &key).await;
    assert_eq!(client.answers(1).await, "T 57014 /I");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_hits_the_statement_that_was_sent_before_it_and_none_that_is_sent_after_it() {
    let front = Front::plain(0, Changes::default()).await;
    let mut client = Raw::connect(&front).await;
    let key = client.key.clone();
    for (before, after) in [("", ""), ("savepoint s", "rollback to s")] {
        if !before.is_empty() {
            client.out.put_query(b"begin; select 1");
            client.ask().await;
        }
        let mut stopped = 0;
        for _ in 0..50 {
            client.out.put_query(before.as_bytes());
            client.ask().await;
            // As often as not the proxy sees the request first.
            client.out.put_query(b"select pg_sleep(0.3)");
            client.send().await;
            cancel(front.port, &key).await;
            stopped += u32::from(client.answers(1).await.contains("57014"));
            client.out.put_query(after.as_bytes());
            client.ask().await;
            // Now nothing runs, and the next statement is another.
            cancel(front.port, &key).await;
            client.out.put_query(b"select pg_sleep(0.002)");
            let said = client.ask().await;
            assert!(!said.contains("57014"), "a statement sent after the request: {said}");
        }
        // PostgreSQL ignores a request that it sees before the statement, which happens on a busy machine.
        assert!(stopped > 25, "{stopped} of 50 were stopped");
    }
}

/// The server has another session's settings: these are changed first, and the request is for what comes after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_hits_a_statement_that_waits_for_its_settings() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let (mut client, mut other) = (Raw::connect(&front).await, Raw::connect(&front).await);
    let key = client.key.clone();
    for (client, name) in [(&mut client, "one"), (&mut other, "two")] {
        client.out.put_query(format!("set application_name to '{name}'").as_bytes());
        client.ask().await;
    }
    let mut stopped = 0;
    for _ in 0..50 {
        other.out.put_query(b"select 1");
        other.ask().await;
        client.out.put_query(b"select pg_sleep(0.3)");
        client.send().await;
        cancel(front.port, &key).await;
        stopped += u32::from(client.answers(1).await.contains("57014"));
        client.out.put_query(b"select 1");
        let said = client.ask().await;
        assert!(!said.contains("57014"), "a statement sent after the request: {said}");
    }
    assert!(stopped > 25, "{stopped} of 50 were stopped");
}

/// What it was told at its login is the only process id that a client of shared connections knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_cancelled_and_ended_by_the_process_id_that_its_client_knows() {
    let front = Front::plain(0, Changes { pool: "size = 3\nmin_idle = 0", ..Changes::default() }).await;
    let stranger = front.connect().await; // another user
    let mut raw = Raw::connect(&front).await;
    let own = |raw: &Raw| u32::from_be_bytes(raw.key[..4].try_into().unwrap());
    let signal = async |raw: &mut Raw, verb: &str, id: u32, value: bool| {
        if value {
            raw.out.put_parse("", format!("select pg_{verb}_backend($1)").as_bytes(), &[]);
            raw.out.put_bind("", "", &tail(&id.to_string()));
            raw.out.put_execute("", 0);
            raw.out.put_sync();
        } else {
            raw.out.put_query(format!("select pg_catalog.pg_{verb}_backend({id}) as done;").as_bytes());
        }
        raw.ask().await
    };
    for (busy, value) in
        [("select pg_sleep(60)", false), ("begin; select pg_sleep(60)", true), ("", true), ("", false)]
    {
        let mut victim = Raw::connect(&front).await;
        let id = own(&victim);
        assert!(id > 1 << 22, "no process has that number");
        assert_eq!(rows(&stranger, &format!("select pg_terminate_backend({id})")).await, ["f"]);
        for verb in ["cancel", "terminate"] {
            if !busy.is_empty() {
                victim.out.put_query(busy.as_bytes());
                victim.send().await;
                let running = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
                eventually("it runs", PATIENCE, async || {
                    (front.herd.primary(0).sql(running).await == ["1"]).then_some(())
                })
                .await;
            }
            let told = signal(&mut raw, verb, id, value).await;
            assert_eq!(told, if value { "1 2 t SELECT_1 /I" } else { "T t SELECT_1 /I" }, "{verb}, {busy}");
            let said = match (verb, busy) {
                ("cancel", "") => continue,
                ("cancel", "select pg_sleep(60)") => "T 57014 /I",
                ("cancel", _) => "BEGIN T 57014 /E",
                (..) => "57P01 closed",
            };
            let answers = victim.answers(1).await;
            assert!(answers.ends_with(said), "{verb}, {busy}: {answers}");
            if verb == "cancel" {
                victim.out.put_query(b"rollback");
                assert!(victim.ask().await.ends_with("ROLLBACK /I"));
            }
        }
        assert_eq!(signal(&mut raw, "terminate", id, value).await.matches(" f ").count(), 1, "it is gone");
    }
    // What has failed does not happen, nor what a failed statement comes before.
    let mut spared = Raw::connect(&front).await;
    let id = own(&spared);
    raw.out.put_query(b"begin; select 1/0");
    assert_eq!(raw.ask().await, "BEGIN 22012 /E");
    assert_eq!(signal(&mut raw, "terminate", id, false).await, "25P02 /E");
    raw.out.put_query(b"rollback");
    assert_eq!(raw.ask().await, "ROLLBACK /I");
    raw.statement("select 1/0", false);
    assert_eq!(signal(&mut raw, "terminate", id, true).await, "1 22012 /I");
    spared.out.put_query(b"select 1");
    assert_eq!(spared.ask().await, "T 1 SELECT_1 /I");
    // Its own.
    let id = own(&raw);
    raw.out.put_query(format!("select pg_terminate_backend({id})").as_bytes());
    assert!(raw.ask().await.ends_with("57P01 closed"));
}

/// Of a Bind: all text, one value.
fn tail(value: &str) -> Vec<u8> {
    let mut tail = vec![0, 0, 0, 1];
    tail.put_u32(value.len() as u32);
    tail.put_slice(value.as_bytes());
    tail.put_u16(0);
    tail
}
