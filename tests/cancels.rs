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
    eventually("it runs", PATIENCE, async || {
        let sql = "select count(*) from pgherd.clients where user_name = 'raw' and state = 'active'";
        (rows(&admin, sql).await == ["1"]).then_some(())
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
