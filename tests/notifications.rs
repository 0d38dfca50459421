//! LISTEN and NOTIFY through transaction pooling: what one PostgreSQL would deliver, in its order, and nothing lost.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, PATIENCE, Raw, eventually, rows};
use pgherd::wire::FrontendWriter;

fn narrow() -> Changes {
    Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }
}

async fn ask(raw: &mut Raw, sql: &str) -> String {
    raw.out.put_query(sql.as_bytes());
    raw.ask().await
}

/// The next notification: pid, channel and payload. Nothing else may come before it.
async fn heard(raw: &mut Raw) -> (u32, String, String) {
    let (tag, body) = raw.next().await.expect("the session lives");
    assert_eq!(tag, b'A', "{}", body.escape_ascii());
    let pid = u32::from_be_bytes(body[..4].try_into().unwrap());
    let mut words = body[4..].split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned());
    (pid, words.next().unwrap(), words.next().unwrap())
}

fn own_pid(raw: &Raw) -> u32 {
    u32::from_be_bytes(raw.key[..4].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_clients_share_one_connection_and_pin_none() {
    let front = Front::plain(0, narrow()).await;
    let mut listeners = Vec::new();
    for _ in 0..20 {
        let mut raw = Raw::connect(&front).await;
        assert_eq!(ask(&mut raw, "listen gossip").await, "LISTEN /I");
        listeners.push(raw);
    }
    let other = front.connect().await; // the one server is free for it
    for n in 0..50 {
        other.batch_execute(&format!("notify gossip, '{n}'; notify silence, '{n}'")).await.unwrap();
    }
    for raw in &mut listeners {
        for n in 0..50 {
            let (pid, channel, payload) = heard(raw).await;
            assert_eq!((channel, payload), ("gossip".into(), n.to_string()));
            assert_ne!(pid, own_pid(raw), "it is somebody else's");
        }
    }
    let ears = "select count(*) from pg_stat_activity where application_name = 'pgherd listen'";
    assert_eq!(front.herd.primary(0).sql(ears).await, ["1"]);
    assert_eq!(
        rows(&front.admin().await, "select count(*) from pgherd.clients where pin is not null").await,
        ["0"]
    );
    for raw in &mut listeners {
        assert_eq!(ask(raw, "unlisten gossip").await, "UNLISTEN /I");
    }
    other.batch_execute("notify gossip, 'late'").await.unwrap();
    for raw in &mut listeners {
        assert_eq!(ask(raw, "select 1").await, "T 1 SELECT_1 /I");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_notifications_come_before_ready_for_query_and_bear_the_own_pid() {
    let front = Front::plain(0, narrow()).await;
    let (mut a, mut b) = (Raw::connect(&front).await, Raw::connect(&front).await);
    for raw in [&mut a, &mut b] {
        assert_eq!(
            ask(raw, "listen \"Mixed Case\"; listen x; listen y; unlisten y").await,
            "LISTEN LISTEN LISTEN UNLISTEN /I"
        );
    }
    for n in 0..100 {
        let (me, other) = if n % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
        let sql = match n % 4 {
            0 | 1 => "notify x, 'p'",
            _ => "select pg_notify('Mixed Case', 'p')",
        };
        me.out.put_query(sql.as_bytes());
        me.send().await;
        let words = me.answers(1).await;
        assert!(words.ends_with(" A /I"), "{words}");
        let (pid, _, payload) = heard(other).await;
        assert_eq!(payload, "p");
        assert_ne!(pid, own_pid(other), "round {n}");
    }
    // By a function that no text names: a trigger.
    assert_eq!(ask(&mut a, "create table t (i int)").await, "CREATE_TABLE /I");
    let function = "create function tell() returns trigger language plpgsql as \
                    $$ begin perform pg_notify('x', new.i::text); return new; end $$";
    assert_eq!(ask(&mut a, function).await, "CREATE_FUNCTION /I");
    let trigger = "create trigger tell after insert on t for each row execute function tell()";
    assert_eq!(ask(&mut a, trigger).await, "CREATE_TRIGGER /I");
    a.out.put_query(b"insert into t values (1), (2)");
    a.send().await;
    let me = own_pid(&a);
    let mut seen = Vec::new();
    loop {
        let (tag, body) = a.next().await.unwrap();
        match tag {
            b'A' => seen.push((u32::from_be_bytes(body[..4].try_into().unwrap()), body[6..7].to_vec())),
            b'Z' => break,
            _ => {}
        }
    }
    assert_eq!(seen, [(me, b"1".to_vec()), (me, b"2".to_vec())]);
}

/// Who notifies is known by the process id that he was told at his login, whichever server he has worked on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_another_client_bear_the_process_id_that_it_knows() {
    let front = Front::plain(0, Changes { pool: "size = 2\nmin_idle = 0", ..Changes::default() }).await;
    let mut hearer = Raw::connect(&front).await;
    let (mut one, mut other) = (Raw::connect(&front).await, Raw::connect(&front).await);
    assert_eq!(ask(&mut one, "notify news, 'nobody hears'").await, "NOTIFY /I");
    assert_eq!(ask(&mut hearer, "listen news").await, "LISTEN /I");
    for (sql, answer) in [
        ("notify news, 'x'", "NOTIFY /I"),
        ("select pg_notify('news', 'x')", "T  SELECT_1 /I"),
        ("begin; notify news, 'x'; select 1; commit", "BEGIN NOTIFY T 1 SELECT_1 COMMIT /I"),
        ("do $$ begin notify news, 'x'; end $$", "DO /I"),
        ("select 1; notify news, 'x'", "T 1 SELECT_1 NOTIFY /I"),
    ] {
        for round in 0..20 {
            let client = if round % 2 == 0 { &mut one } else { &mut other };
            assert_eq!(ask(client, sql).await, answer, "{sql}");
            assert_eq!(heard(&mut hearer).await, (own_pid(client), "news".into(), "x".into()), "{sql}");
        }
    }
    for client in [&mut one, &mut other] {
        assert_eq!(ask(client, "begin").await, "BEGIN /T");
        client.statement("select pg_notify('news', 'y')", false).out.put_sync();
        assert_eq!(client.ask().await, "1 2  SELECT_1 /T");
        assert_eq!(ask(client, "listen other").await, "LISTEN /T");
    }
    for client in [&mut other, &mut one] {
        assert_eq!(ask(client, "commit").await, "COMMIT /I");
        assert_eq!(heard(&mut hearer).await, (own_pid(client), "news".into(), "y".into()));
    }
    // Who listens now hears the others.
    assert_eq!(ask(&mut hearer, "notify other, 'z'").await, "NOTIFY /I");
    for client in [&mut one, &mut other] {
        assert_eq!(heard(client).await, (own_pid(&hearer), "other".into(), "z".into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_notified_before_unlisten_is_heard() {
    let front = Front::plain(0, narrow()).await;
    let direct = front.herd.primary(0).connect_app().await;
    let mut hearer = Raw::connect(&front).await;
    for round in 0..100 {
        assert_eq!(ask(&mut hearer, "listen news").await, "LISTEN /I");
        let (unlisten, answer) = match round % 3 {
            0 => ("unlisten *", "UNLISTEN /I"),
            1 => ("unlisten news", "UNLISTEN /I"),
            _ => ("begin; unlisten news; commit", "BEGIN UNLISTEN COMMIT /I"),
        };
        direct.batch_execute(&format!("notify news, '{round}'")).await.unwrap();
        hearer.out.put_query(unlisten.as_bytes());
        let told = hearer.ask().await;
        assert_eq!(told.replacen("A ", "", 1), answer, "{unlisten}");
        if !told.contains("A ") {
            assert_eq!(heard(&mut hearer).await.2, round.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_takes_effect_at_commit_and_never_after_a_rollback() {
    let front = Front::plain(0, Changes::default()).await;
    let other = front.connect().await;
    let mut raw = Raw::connect(&front).await;
    // Held: no server has joined; open: one has. Rolled back, failed, taken back by a savepoint.
    for (script, hears) in [
        (&["begin", "listen c", "commit"][..], true),
        (&["begin", "listen c", "select 1", "commit"], true),
        (&["begin", "select 1", "listen c", "commit"], true),
        (&["begin", "listen c", "rollback"], false),
        (&["begin", "select 1", "listen c", "rollback"], false),
        (&["begin", "listen c", "select 1/0", "commit"], false),
        (&["begin", "savepoint s", "listen c", "rollback to s", "commit"], false),
        (&["begin", "listen c", "savepoint s", "unlisten c", "rollback to s", "commit"], true),
        (&["begin", "listen c", "unlisten *", "commit"], false),
        (&["begin", "unlisten *", "listen c", "commit"], true),
    ] {
        for statement in script {
            if ["commit", "rollback"].contains(statement) {
                other.batch_execute("notify c, 'early'").await.unwrap();
            }
            ask(&mut raw, statement).await;
        }
        other.batch_execute("notify c, 'after'").await.unwrap();
        if hears {
            // PostgreSQL may deliver what was committed a little earlier, never what came before it listened.
            let (_, _, mut payload) = heard(&mut raw).await;
            if payload == "early" {
                payload = heard(&mut raw).await.2;
            }
            assert_eq!(payload, "after", "{script:?}");
        }
        assert_eq!(ask(&mut raw, "unlisten *").await, "UNLISTEN /I", "{script:?}");
    }
    // Nothing is delivered inside a transaction, all of it after; a client's own comes too.
    ask(&mut raw, "listen c").await;
    assert_eq!(ask(&mut raw, "begin").await, "BEGIN /T");
    assert_eq!(ask(&mut raw, "select 1").await, "T 1 SELECT_1 /T");
    other.batch_execute("notify c, 'meanwhile'").await.unwrap();
    assert_eq!(ask(&mut raw, "notify c, 'own'").await, "NOTIFY /T");
    assert_eq!(ask(&mut raw, "select 2").await, "T 2 SELECT_1 /T");
    assert_eq!(ask(&mut raw, "commit").await, "COMMIT A A /I");
    // A transaction that listens cannot be prepared, as on one server.
    for (first, then) in [("begin", "listen x"), ("begin", "unlisten *")] {
        ask(&mut raw, first).await;
        ask(&mut raw, then).await;
        assert!(ask(&mut raw, "prepare transaction 'heard'").await.starts_with("0A000"), "{then}");
        ask(&mut raw, "rollback").await;
    }
    assert!(ask(&mut raw, "begin; listen x; prepare transaction 'heard'").await.contains("0A000"));
    ask(&mut raw, "rollback").await;
    // In a batch it takes effect at Sync, unless something in the batch fails.
    raw.statement("listen d", false).out.put_sync();
    assert_eq!(raw.ask().await, "1 2 LISTEN /I");
    raw.statement("listen e", false).statement("select 1/0", false).out.put_sync();
    assert_eq!(raw.ask().await, "1 2 LISTEN 1 22012 /I");
    other.batch_execute("notify e; notify d, 'd'").await.unwrap();
    assert_eq!(heard(&mut raw).await.2, "d");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_are_told_truly_or_not_at_all_and_discard_forgets_them() {
    let front = Front::plain(0, narrow()).await;
    let other = front.connect().await;
    let mut raw = Raw::connect(&front).await;
    assert_eq!(ask(&mut raw, "select pg_listening_channels()").await, "T SELECT_0 /I");
    ask(&mut raw, "listen c").await;
    assert_eq!(ask(&mut raw, "select pg_listening_channels()").await, "0A000 /I");
    assert_eq!(ask(&mut raw, "select * from pg_listening_channels()").await, "0A000 /I");
    // Nor through what asks.
    other
        .batch_execute(
            "create view heard as select pg_listening_channels() as c; create view heard_again as select c from heard;
             create function hears() returns setof text language sql as 'select pg_listening_channels()';
             create function calls() returns bigint language plpgsql as 'begin return (select count(*) from hears()); end'",
        )
        .await
        .unwrap();
    for sql in [
        "select c from heard",
        "select 1 from heard_again",
        "select hears()",
        "select calls()",
        "do 'begin perform c from heard; end'",
        "do 'begin perform pg_listening_channels(); end'",
    ] {
        assert_eq!(ask(&mut raw, sql).await, "0A000 /I", "{sql}");
        assert!(other.simple_query(sql).await.is_ok(), "{sql}: nothing is listened to");
    }
    assert_eq!(ask(&mut raw, "listen").await, "42601 /I");
    assert_eq!(ask(&mut raw, "discard all").await, "DISCARD_ALL /I");
    other.batch_execute("notify c").await.unwrap();
    assert_eq!(ask(&mut raw, "select pg_listening_channels()").await, "T SELECT_0 /I");
    drop(raw);
    eventually("nobody listens", PATIENCE, async || {
        let heard = "select count(*) from pg_stat_activity where application_name = 'pgherd listen' \
                     and query like 'UNLISTEN%'";
        (front.herd.primary(0).sql(heard).await == ["1"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_listening_connection_ends_those_who_may_have_missed_something() {
    let front = Front::plain(0, Changes::default()).await;
    let (mut idle, mut busy) = (Raw::connect(&front).await, Raw::connect(&front).await);
    for raw in [&mut idle, &mut busy] {
        ask(raw, "listen c").await;
    }
    ask(&mut busy, "begin").await;
    ask(&mut busy, "select 1").await;
    let ears =
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgherd listen'";
    assert_eq!(front.herd.primary(0).sql(ears).await, ["t"]);
    assert_eq!(idle.answers(1).await, "57P01 closed");
    assert_eq!(ask(&mut busy, "select 2").await, "T 2 SELECT_1 /T");
    assert_eq!(ask(&mut busy, "commit").await, "COMMIT /I");
    assert_eq!(busy.answers(1).await, "57P01 closed");
    // The next one gets a new connection.
    let mut raw = Raw::connect(&front).await;
    assert_eq!(ask(&mut raw, "listen c").await, "LISTEN /I");
    front.connect().await.batch_execute("notify c, 'again'").await.unwrap();
    assert_eq!(heard(&mut raw).await.2, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_ended_and_slows_nobody() {
    let mut front = Front::plain(0, Changes::default()).await;
    let (mut slow, mut quick) = (Raw::connect(&front).await, Raw::connect(&front).await);
    for raw in [&mut slow, &mut quick] {
        ask(raw, "listen c").await;
    }
    let other = front.connect().await;
    let payload = "x".repeat(7900);
    // Far more than sockets and the queue take.
    for round in 0..40 {
        let sql: String = (0..50).map(|n| format!("notify c, '{round} {n} {payload}';")).collect();
        other.batch_execute(&sql).await.unwrap();
        for n in 0..50 {
            assert!(heard(&mut quick).await.2.starts_with(&format!("{round} {n} ")));
        }
    }
    let mut last = String::new();
    while let Some((tag, body)) = slow.next().await {
        if tag == b'E' {
            last = String::from_utf8_lossy(&body).into_owned();
        }
    }
    // It may have been cut off before it could be told.
    assert!(last.is_empty() || last.contains("53400"), "{last}");
    assert_eq!(ask(&mut quick, "select 1").await, "T 1 SELECT_1 /I");
    front.herd.shards[0].primary.kill_immediate().await;
    assert!(quick.answers(1).await.contains("57P01"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_of_all_shards_are_heard() {
    let front = Front::demo(0, Changes::default()).await;
    for shard in 0..3 {
        front
            .herd
            .primary(shard)
            .sql(
                "create function tell() returns trigger language plpgsql as \
             $$ begin perform pg_notify('news', new.user_id); return new; end $$; \
             create trigger tell after insert on users for each row execute function tell()",
            )
            .await;
    }
    let mut raw = Raw::connect(&front).await;
    assert_eq!(ask(&mut raw, "listen news").await, "LISTEN /I");
    let other = front.connect().await;
    for user in ["user_1", "user_4", "user_2"] {
        let sql = format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e')");
        other.batch_execute(&sql).await.unwrap();
        assert_eq!(heard(&mut raw).await.2, user);
    }
    other.batch_execute("notify news, 'plain'").await.unwrap();
    assert_eq!(heard(&mut raw).await.2, "plain");
    // In a transaction it goes where the transaction is, and with it.
    other.batch_execute("begin").await.unwrap();
    other.batch_execute("update users set name = 'x' where user_id = 'user_4'").await.unwrap();
    other.batch_execute("notify news, 'with it'").await.unwrap();
    other.batch_execute("commit").await.unwrap();
    assert_eq!(heard(&mut raw).await.2, "with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_session_pooling_the_own_server_listens() {
    let changes = Changes { database: "mode = \"session\"", ..Changes::default() };
    let front = Front::plain(0, changes).await;
    let (mut a, mut b) = (Raw::connect(&front).await, Raw::connect(&front).await);
    assert_eq!(ask(&mut a, "begin; listen c; commit").await, "BEGIN LISTEN COMMIT /I");
    assert_eq!(ask(&mut a, "select pg_listening_channels()").await, "T c SELECT_1 /I");
    assert_eq!(ask(&mut b, "notify c, 'from b'").await, "NOTIFY /I");
    let (pid, _, payload) = heard(&mut a).await;
    assert_eq!(payload, "from b");
    assert_ne!(pid, own_pid(&a));
    assert_eq!(ask(&mut a, "notify c, 'own'").await, "NOTIFY A /I");
    ask(&mut a, "notify c, 'own'; select 1").await;
    drop(b);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_and_unlisten_among_other_statements_of_one_query() {
    let front = Front::plain(0, narrow()).await;
    let (mut raw, other) = (Raw::connect(&front).await, front.connect().await);
    let notify = async |channel: &str, payload: &str| {
        other.batch_execute(&format!("notify {channel}, '{payload}'")).await.unwrap();
    };
    assert_eq!(
        ask(&mut raw, "select 1; listen a; set lock_timeout = '1s'").await,
        "T 1 SELECT_1 LISTEN SET /I"
    );
    notify("a", "1").await;
    assert_eq!(heard(&mut raw).await.2, "1");
    // Its own comes with the query that says both.
    assert_eq!(ask(&mut raw, "listen b; notify b, 'own'").await, "LISTEN NOTIFY A /I");
    // What a driver says when it gives a connection back.
    let reset = "select pg_advisory_unlock_all(); close all; unlisten *; reset all";
    assert_eq!(ask(&mut raw, reset).await, "T  SELECT_1 CLOSE_CURSOR_ALL UNLISTEN RESET /I");
    notify("a", "unheard").await;
    // An error takes all of it back, and so does ROLLBACK.
    assert_eq!(ask(&mut raw, "listen c; select 1/0").await, "LISTEN 22012 /I");
    assert_eq!(ask(&mut raw, "select 1/0; listen c").await, "22012 /I");
    assert_eq!(ask(&mut raw, "begin; listen c; rollback").await, "BEGIN LISTEN ROLLBACK /I");
    notify("c", "unheard").await;
    // COMMIT does not, in the same query or later.
    assert_eq!(ask(&mut raw, "begin; listen d; commit").await, "BEGIN LISTEN COMMIT /I");
    assert_eq!(ask(&mut raw, "select 1; begin; listen e").await, "T 1 SELECT_1 BEGIN LISTEN /T");
    assert_eq!(ask(&mut raw, "savepoint s; listen f; rollback to s").await, "SAVEPOINT LISTEN ROLLBACK /T");
    assert_eq!(ask(&mut raw, "listen g").await, "LISTEN /T");
    assert_eq!(ask(&mut raw, "select 1; commit").await, "T 1 SELECT_1 COMMIT /I");
    for channel in ["c", "d", "e", "f", "g"] {
        notify(channel, channel).await;
    }
    for channel in ["d", "e", "g"] {
        assert_eq!(heard(&mut raw).await.2, channel);
    }
    assert_eq!(ask(&mut raw, "unlisten d; select 1/0").await, "UNLISTEN 22012 /I");
    notify("d", "still").await;
    assert_eq!(heard(&mut raw).await.2, "still");
    assert_eq!(ask(&mut raw, "commit; listen x").await, "0A000 /I");
}
