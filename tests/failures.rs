//! Servers that die, come back, or change their role under the proxy.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use common::{Changes, Front, PATIENCE, Raw, eventually, failure, rows};
use pgherd::wire::{ErrorFields, FrontendWriter};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const USER: &str = "user_1"; // of partition B on shard 1: see the assertion below
const ELSEWHERE: &str = "user_4"; // of partition D on shard 2

async fn herd_with_two_users() -> Front {
    let front = Front::demo(1, Changes::default()).await;
    let client = front.connect().await;
    for user in [USER, ELSEWHERE] {
        let sql = format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e')");
        client.batch_execute(&sql).await.unwrap();
    }
    assert_eq!(front.herd.primary(0).sql("select user_id from users").await, [USER]);
    assert_eq!(front.herd.primary(1).sql("select user_id from users").await, [ELSEWHERE]);
    front.herd.caught_up().await;
    front
}

fn read(user: &str) -> String {
    format!("select user_id from users where user_id = '{user}'")
}

fn write(user: &str) -> String {
    format!("update users set name = name || '+' where user_id = '{user}'")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_when_a_replica_is_killed() {
    let mut front = herd_with_two_users().await;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = Vec::new();
    for _ in 0..6 {
        let (client, stop, done) = (front.connect().await, stop.clone(), done.clone());
        readers.push(tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let mut everywhere = rows(&client, "select user_id from users").await;
                everywhere.sort();
                assert_eq!(everywhere, [USER, ELSEWHERE]);
                assert_eq!(rows(&client, &read(USER)).await, [USER]);
                done.fetch_add(1, Relaxed);
            }
        }));
    }
    let more = async |n: u64| {
        let target = done.load(Relaxed) + n;
        eventually("reads go on", PATIENCE, async || (done.load(Relaxed) >= target).then_some(())).await;
    };
    more(100).await;
    front.herd.shards[0].replicas[0].kill_immediate().await;
    more(300).await;
    front.herd.shards[0].replicas[0].restart().await;
    let port = front.herd.shards[0].replicas[0].port.to_string();
    let client = front.connect().await;
    let asked = format!("select inet_server_port() from users where user_id = '{USER}'");
    eventually("the replica is used again", PATIENCE, async || {
        (rows(&client, &asked).await == [port.as_str()]).then_some(())
    })
    .await;
    stop.store(true, Relaxed);
    for reader in readers {
        reader.await.unwrap(); // a failed read would have panicked there
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_goes_elsewhere_when_a_replica_dies_while_it_is_given_the_sessions_settings() {
    let front = herd_with_two_users().await;
    let replica = front.herd.shards[0].replicas[0].port;
    let cut = Arc::new(AtomicU64::new(0));
    let relay = cutting_relay(replica, b"statement_timeout", cut.clone()).await;
    front.reconfigure(&replica.to_string(), &relay.to_string());
    front.admin().await.simple_query("reload").await.unwrap();
    front.ready().await;
    let (plain, set) = (front.connect().await, front.connect().await);
    let asked = format!("select inet_server_port() from users where user_id = '{USER}'");
    eventually("reads go through the relay", PATIENCE, async || {
        (rows(&plain, &asked).await == [replica.to_string()]).then_some(())
    })
    .await;
    set.batch_execute("set statement_timeout = '77s'").await.unwrap();
    cut.store(1, Relaxed);
    assert_eq!(rows(&set, &read(USER)).await, [USER]);
    assert_eq!(cut.load(Relaxed), 0, "the connection was cut on the way");
}

/// Passes connections on to `port`; one on which a client's `word` comes by is cut instead, `times` times.
async fn cutting_relay(port: u16, word: &'static [u8], times: Arc<AtomicU64>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let times = times.clone();
            tokio::spawn(async move {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                let ((mut from, mut to), (mut back, mut forth)) = (near.into_split(), far.into_split());
                let backwards = tokio::spawn(async move { tokio::io::copy(&mut back, &mut to).await });
                let mut part = vec![0; 65536];
                while let Ok(n @ 1..) = from.read(&mut part).await {
                    let due = part[..n].windows(word.len()).any(|w| w == word);
                    if due && times.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                        break;
                    }
                    if forth.write_all(&part[..n]).await.is_err() {
                        break;
                    }
                }
                backwards.abort();
            });
        }
    });
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_primary_fails_writes_fast_and_nothing_else() {
    let mut front = herd_with_two_users().await;
    let (reader, writer) = (front.connect().await, front.connect().await);
    assert_eq!(rows(&reader, &read(USER)).await, [USER]);
    front.herd.shards[0].primary.kill_immediate().await;
    for _ in 0..5 {
        let asked = Instant::now();
        let (code, message) = failure(&writer, &write(USER)).await;
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert!(["57P03", "08006", "57P01"].contains(&code.as_str()), "{code}: {message}");
        assert!(message.contains("shard1"), "{message}");
        assert_eq!(rows(&reader, &read(USER)).await, [USER], "reads go on at the replica");
        writer.batch_execute(&write(ELSEWHERE)).await.unwrap();
    }
    front.herd.shards[0].primary.restart().await;
    eventually("writes work again, on the same connection", PATIENCE, async || {
        writer.batch_execute(&write(USER)).await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_under_way_when_its_server_dies_has_an_unknown_outcome() {
    let mut front = herd_with_two_users().await;
    let client = front.connect().await;
    let slow = format!("update users set name = 'slow' || pg_sleep(30)::text where user_id = '{USER}'");
    let write = tokio::spawn(async move { (failure(&client, &slow).await, client) });
    let watch = front.herd.primary(0).connect().await;
    eventually("the write runs", PATIENCE, async || {
        let running = "select 1 from pg_stat_activity where query like 'update users set name = ''slow%' and state = 'active'";
        (!rows(&watch, running).await.is_empty()).then_some(())
    })
    .await;
    front.herd.shards[0].primary.kill_immediate().await;
    let ((code, message), client) = write.await.unwrap();
    assert_eq!(code, "08007", "{message}");
    front.herd.shards[0].primary.restart().await;
    eventually("the session goes on", PATIENCE, async || {
        client.simple_query(&read(USER)).await.ok().map(drop)
    })
    .await;
    assert_eq!(front.herd.primary(0).sql("select name from users").await, ["n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_server_dies_must_be_rolled_back_and_can_be_run_again() {
    let mut front = herd_with_two_users().await;
    let client = front.connect().await;
    client.batch_execute("begin").await.unwrap();
    client.batch_execute(&write(USER)).await.unwrap();
    front.herd.shards[0].primary.kill_immediate().await;
    front.herd.shards[0].primary.restart().await;
    // The session may hear of it at its next statement only, or be told that it is over.
    let told = client.simple_query(&read(USER)).await;
    assert!(told.is_err());
    let client = if client.is_closed() {
        front.connect().await
    } else {
        client.batch_execute("rollback").await.unwrap_or_default();
        if client.is_closed() { front.connect().await } else { client }
    };
    eventually("it can be run again", PATIENCE, async || client.batch_execute(&write(USER)).await.ok()).await;
    assert_eq!(front.herd.primary(0).sql("select name from users").await, ["n+"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_is_followed_and_two_primaries_stop_writes() {
    let mut front = herd_with_two_users().await;
    let client = front.connect().await;
    front.herd.shards[0].primary.kill_immediate().await;
    front.herd.shards[0].replicas[0].sql("select pg_promote(true, 30)").await;
    eventually("the promoted replica takes writes", PATIENCE, async || {
        client.batch_execute(&write(USER)).await.ok()
    })
    .await;
    assert_eq!(front.herd.shards[0].replicas[0].sql("select name from users").await, ["n+"]);
    front.herd.shards[0].primary.restart().await;
    eventually("two primaries stop writes", PATIENCE, async || {
        let refused = client.batch_execute(&write(USER)).await.err()?;
        let db = refused.as_db_error()?.clone();
        (db.code().code() == "55000" && db.message().contains("two primaries") && db.hint().is_some())
            .then_some(())
    })
    .await;
    client.batch_execute(&write(ELSEWHERE)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_its_own_writes_though_the_replica_is_behind() {
    let front = herd_with_two_users().await;
    let (client, other) = (front.connect().await, front.connect().await);
    let replica = &front.herd.shards[0].replicas[0];
    replica.sql("select pg_wal_replay_pause()").await;
    client.batch_execute(&format!("update users set name = 'mine' where user_id = '{USER}'")).await.unwrap();
    let name = format!("select name from users where user_id = '{USER}'");
    for _ in 0..20 {
        assert_eq!(rows(&client, &name).await, ["mine"]);
    }
    assert_eq!(rows(&other, &name).await, ["n"], "a session that has not written reads at the replica");
    client.batch_execute("set pgherd.read_consistency = 'eventual'").await.unwrap();
    assert_eq!(rows(&client, &name).await, ["n"]);
    client.batch_execute("reset pgherd.read_consistency").await.unwrap();
    assert_eq!(rows(&client, &name).await, ["mine"]);
    replica.sql("select pg_wal_replay_resume()").await;
    let port = format!("select inet_server_port() from users where user_id = '{USER}'");
    eventually("the replica has caught up and is used again", PATIENCE, async || {
        (rows(&client, &port).await == [replica.port.to_string()]).then_some(())
    })
    .await;
    assert_eq!(rows(&client, &name).await, ["mine"]);
}

/// Who ends the server process that works for a client means that client, as on one server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_server_is_ended_by_an_operator_is_ended_in_the_servers_words() {
    let front = Front::plain(0, Changes { pool: "size = 4", ..Changes::default() }).await;
    let watch = front.herd.primary(0).connect().await;
    watch.batch_execute("create table t (i int); grant all on t to public").await.unwrap();
    for (words, code) in [
        ("select pg_sleep(60) /* read */", "57P01"),
        ("begin; insert into t values (1); select pg_sleep(60) /* inside */", "57P01"),
        ("insert into t select 2 from pg_sleep(60) /* write */", "08007"),
        ("select pg_terminate_backend(pg_backend_pid()) /* itself */", "08007"),
    ] {
        let client = Raw::connect(&front).await;
        let mut client = client;
        client.out.put_query(words.as_bytes());
        client.send().await;
        if words.contains("pg_sleep") {
            eventually("it runs", PATIENCE, async || {
                let kill = "select pg_terminate_backend(pid) from pg_stat_activity where query = $1 and wait_event = 'PgSleep'";
                (!watch.query(kill, &[&words]).await.unwrap().is_empty()).then_some(())
            })
            .await;
        }
        let mut last = None;
        while let Some(message) = client.next().await {
            last = Some(message);
        }
        let (tag, body) = last.unwrap();
        assert_eq!(tag, b'E', "{words}");
        let said = ErrorFields::parse(&body).unwrap();
        assert_eq!(
            (said.severity.as_str(), said.code.as_str()),
            ("FATAL", code),
            "{words}: {}",
            said.message
        );
        if code == "57P01" {
            assert_eq!(said.message, "terminating connection due to administrator command");
        }
    }
    assert_eq!(rows(&watch, "select count(*) from t").await, ["0"]);
    assert_eq!(rows(&front.connect().await, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_one_connection_is_ended_by_an_operator_stays_in_use() {
    let front = Front::plain(0, Changes { pool: "size = 2", ..Changes::default() }).await;
    let (victim, other) = (front.connect().await, front.connect().await);
    for _ in 0..20 {
        victim.batch_execute("begin").await.unwrap();
        let pid = rows(&victim, "select pg_backend_pid()").await.remove(0);
        front.herd.primary(0).sql(&format!("select pg_terminate_backend({pid})")).await;
        // Its transaction is lost, and says so; nobody else notices.
        eventually("the transaction is over", PATIENCE, async || {
            victim.batch_execute("select 1").await.is_err().then_some(())
        })
        .await;
        assert_eq!(rows(&other, "select 2").await, ["2"]);
        other.batch_execute("create table if not exists t (i int)").await.unwrap();
        if victim.is_closed() {
            return;
        }
        victim.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whom_the_server_refuses_is_no_reason_to_keep_others_away() {
    let front = Front::plain(0, Changes::default()).await;
    front.herd.primary(0).sql("alter role app password 'another'").await;
    let refused = front.try_connect("raw", "", "app").await;
    assert!(refused.is_err() || refused.unwrap().batch_execute("select 1").await.is_err());
    front.herd.primary(0).sql("alter role app password 'app'").await;
    let client = front.connect().await;
    assert_eq!(rows(&client, "select 1").await, ["1"]);
}
