//! Session pooling: a client and its server are one from login to end, whatever becomes of either.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::time::Duration;

use common::{Changes, Front, Herd, PATIENCE, Pair, Raw, Wire, eventually, failure, rows};
use pgherd::wire::{ErrorFields, FrontendWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

async fn session(pool: &'static str) -> Front {
    Front::plain(0, Changes { pool, database: "mode = \"session\"", ..Changes::default() }).await
}

type Say = fn(&mut Wire) -> &mut Wire;

/// Says the messages so many at a time, and compares all the answers.
async fn in_parts(both: &mut Pair, other: &Client, messages: &[Say], together: usize, what: &str) {
    for messages in messages.chunks(together) {
        for say in messages {
            say(&mut both.one);
            say(&mut both.proxy);
        }
        both.one.send().await;
        both.proxy.send().await;
        // When another client has its answer, what was sent before has been read.
        other.simple_query("select 2").await.unwrap();
    }
    let (one, proxy) = tokio::join!(both.one.answers(), both.proxy.answers());
    assert_eq!(one, proxy, "{what}, {together} at a time");
}

fn pid(raw: &Raw) -> u32 {
    u32::from_be_bytes(raw.key[..4].try_into().unwrap())
}

async fn ask(raw: &mut Raw, sql: &str) -> String {
    raw.out.put_query(sql.as_bytes());
    raw.ask().await
}

async fn own_pid(raw: &mut Raw) -> u32 {
    raw.out.put_query(b"select pg_backend_pid()");
    raw.send().await;
    let mut found = 0;
    while let Some((tag, body)) = raw.next().await {
        match tag {
            b'D' => found = String::from_utf8_lossy(&body[6..]).parse().unwrap(),
            b'Z' => return found,
            _ => {}
        }
    }
    panic!("the session ended")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_bears_the_process_id_of_its_server() {
    let front = session("size = 2\nmin_idle = 0").await;
    let (mut a, mut b) = (Raw::connect(&front).await, Raw::connect(&front).await);
    assert_ne!(pid(&a), pid(&b));
    assert_eq!(own_pid(&mut a).await, pid(&a));
    assert_eq!(own_pid(&mut b).await, pid(&b));
    assert_eq!(ask(&mut a, "listen news").await, "LISTEN /I");
    assert_eq!(ask(&mut b, "notify news").await, "NOTIFY /I");
    let (tag, body) = a.next().await.unwrap();
    assert_eq!((tag, &body[..4]), (b'A', &b.key[..4]), "by the process that notified");
    // The next session has the server, and so the number; the key is another.
    let key = a.key.clone();
    drop(a);
    let mut c = Raw::connect(&front).await;
    assert_eq!(c.key[..4], key[..4]);
    assert_ne!(c.key[4..], key[4..]);
    assert_eq!(own_pid(&mut c).await, pid(&c));
    assert_eq!(ask(&mut c, "notify news").await, "NOTIFY /I", "nobody listens any more");
}

/// What is said last to a client that says this and then nothing.
async fn last_words(raw: &mut Raw, sql: &str) -> (String, String) {
    raw.out.put_query(sql.as_bytes());
    raw.send().await;
    let mut last = None;
    while let Some((tag, body)) = raw.next().await {
        if tag == b'E' {
            last = Some(ErrorFields::parse(&body).unwrap());
        }
    }
    let last = last.unwrap();
    (format!("{} {}", last.severity, last.code), last.message)
}

/// In both kinds of pooling where the server is the client's own at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_its_server_ends_for_idling_is_told_so_in_the_servers_words() {
    for (database, pooling) in [("mode = \"session\"", "session"), ("", "transaction")] {
        let front = Front::plain(0, Changes { database, ..Changes::default() }).await;
        let idle = "set idle_session_timeout = '100ms'";
        let in_transaction = "set idle_in_transaction_session_timeout = '100ms'; begin; select 1";
        for (pools, sql) in [("session", idle), ("", in_transaction)] {
            if !pooling.contains(pools) {
                continue; // the server is not the client's
            }
            let want = last_words(&mut Raw::direct(front.herd.primary(0)).await, sql).await;
            let got = last_words(&mut Raw::connect(&front).await, sql).await;
            assert_eq!(got, want, "{pooling} pooling: {sql}");
        }
    }
}

/// What is said first to a client that asks for protocol 3.2.
async fn first_words(port: u16) -> [u8; 13] {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let startup = b"\0\0\0\x1f\0\x03\0\x02user\0raw\0database\0app\0\0";
    stream.write_all(startup).await.unwrap();
    let mut said = [0; 13];
    stream.read_exact(&mut said).await.unwrap();
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_speaks_no_newer_protocol_than_its_server() {
    let front = session("size = 2").await;
    let by_server = first_words(front.herd.primary(0).port).await;
    let newest = u32::from_be_bytes(by_server[5..9].try_into().unwrap());
    if by_server[0] == b'v' {
        assert_eq!(first_words(front.port).await, by_server);
    }
    let raw = Raw::connect_by(&front, 2).await;
    assert_eq!(raw.key.len() == 8, by_server[0] == b'v' && newest == 3 << 16, "{by_server:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_request_needs_the_key_of_the_session_that_has_the_server_now() {
    let front = session("size = 1\nmin_idle = 0").await;
    let first = front.connect().await;
    let late = first.cancel_token();
    drop(first);
    let second = front.connect().await;
    let token = second.cancel_token();
    let (slept, ()) = tokio::join!(second.simple_query("select pg_sleep(0.2)"), async {
        late.cancel_query(NoTls).await.unwrap();
    });
    slept.unwrap();
    let (slept, ()) = tokio::join!(failure(&second, "select pg_sleep(60)"), async {
        eventually("it runs", PATIENCE, async || {
            let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'";
            (front.herd.primary(0).sql(running).await == ["1"]).then_some(())
        })
        .await;
        token.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(slept.0, "57014");
    assert_eq!(rows(&second, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_server_in_the_servers_words() {
    let front = session("size = 3\nmin_idle = 0").await;
    let killer = front.connect().await;
    for busy in ["", "select pg_sleep(60)", "begin; select pg_sleep(60)"] {
        let mut raw = Raw::connect(&front).await;
        if !busy.is_empty() {
            raw.out.put_query(busy.as_bytes());
            raw.send().await;
            eventually("it runs", PATIENCE, async || {
                let running = format!(
                    "select count(*) from pg_stat_activity where query = '{busy}' and wait_event = 'PgSleep'"
                );
                (front.herd.primary(0).sql(&running).await == ["1"]).then_some(())
            })
            .await;
        }
        let kill = format!("select pg_terminate_backend({})", pid(&raw));
        assert_eq!(rows(&killer, &kill).await, ["t"]);
        let mut last = None;
        while let Some(message) = raw.next().await {
            last = Some(message);
        }
        let (tag, body) = last.unwrap();
        let said = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(tag, b'E', "{said}");
        assert!(said.contains("FATAL") && said.contains("57P01"), "{said}");
        assert!(said.contains("terminating connection due to administrator command"), "{said}");
    }
    assert_eq!(rows(&killer, "select 1").await, ["1"]);
    let fresh = front.connect().await;
    assert_eq!(rows(&fresh, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_waits_for_a_server_and_says_so_when_none_comes() {
    let front = session("size = 1\nmin_idle = 0\nqueue_timeout_ms = 300").await;
    let first = front.connect().await;
    let url = format!("host=127.0.0.1 port={} user=app password=app dbname=app", front.port);
    let refused = tokio_postgres::connect(&url, NoTls).await.err().expect("there is no second server");
    let refused = refused.as_db_error().unwrap_or_else(|| panic!("{refused:?}")).clone();
    assert_eq!(refused.severity(), "FATAL");
    let waiting = tokio::spawn(async move { tokio_postgres::connect(&url, NoTls).await.map(|_| ()) });
    drop(first);
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_prepared_statements_are_the_servers_own() {
    let front = session("size = 2\nmin_idle = 0").await;
    let mut both = Pair::connect(front.herd.primary(0).port, front.port, &[]).await;
    let seen = "select name, statement, parameter_types, from_sql from pg_prepared_statements order by 1";
    both.same(|w| w.parse("p", "select $1::int + 1").describe("p").sync()).await;
    both.same(|w| w.parse("p", "select 2").sync()).await; // 42P05
    both.query("prepare q (int) as select $1 * 2").await;
    both.query("prepare p as select 3").await; // 42P05
    both.query(seen).await;
    both.extended(seen, &[]).await;
    // Each is executed by the other's means.
    for sql in [
        "execute p (1 + 1)",
        "explain (costs off) execute p (3)",
        "create temp table x as execute q (4)",
        "table x",
    ] {
        both.query(sql).await;
        both.extended(sql, &[]).await;
    }
    both.query("execute p (5); execute q (6); select 7").await;
    both.same(|w| w.describe("q").run("q", &["8"])).await;
    both.same(|w| w.run("p", &["9", "10"])).await; // one too many
    both.same(|w| w.run("nothing", &[])).await;
    both.same(|w| w.describe("nothing").sync()).await;
    both.same(|w| w.close("nothing").sync()).await;
    for nothing in ["", " ; ", "-- nothing"] {
        both.query(nothing).await;
        both.same(|w| w.parse("", nothing).run("", &[])).await;
    }
    // In transactions, failed ones too.
    both.query("begin").await;
    both.query("").await;
    both.same(|w| w.run("q", &["11"])).await;
    both.same(|w| w.parse("r", "select 1/0").sync()).await;
    both.same(|w| w.run("r", &[])).await;
    both.same(|w| w.run("q", &["12"])).await; // 25P02
    both.same(|w| w.close("q").sync()).await;
    both.query("rollback").await;
    both.query(seen).await;
    both.same(|w| w.run("q", &["13"])).await;
    // Transactions' own ends, by name: the server has to know them as well.
    both.same(|w| w.parse("b", "begin").parse("c", "commit").describe("c").parse("d", "rollback").sync())
        .await;
    for end in ["c", "d", "c"] {
        both.same(|w| w.run("b", &[])).await;
        both.same(|w| w.run("q", &["12"])).await;
        both.same(|w| w.run(end, &[])).await;
    }
    both.same(|w| w.parse("c", "commit").sync()).await; // 42P05
    both.query(seen).await;
    both.same(|w| w.run("b", &[])).await;
    both.query("execute q (14); select 1/0").await;
    both.same(|w| w.run("c", &[])).await; // ROLLBACK
    both.same(|w| w.close("b").close("c").close("d").sync()).await;
    both.same(|w| w.run("c", &[])).await;
    // What takes names away.
    both.extended("deallocate r", &[]).await;
    both.query("deallocate r").await; // 26000
    both.same(|w| w.parse("r", "select 14").run("r", &[])).await;
    both.query("deallocate r; deallocate p").await;
    both.same(|w| w.run("p", &["15"])).await;
    both.same(|w| w.parse("p", "select 16").run("p", &[])).await;
    both.query("do $$ begin execute 'deallocate p'; end $$").await;
    both.same(|w| w.parse("p", "select 17").run("p", &[])).await;
    // A plan whose columns change.
    both.query("create temp table t (i int)").await;
    both.same(|w| w.parse("s", "select * from t").run("s", &[])).await;
    both.query("alter table t add j text").await;
    both.same(|w| w.run("s", &[])).await;
    both.query("execute s").await;
    both.query("deallocate all").await;
    both.query(seen).await;
    both.same(|w| w.parse("", "select 18").sync()).await;
    both.query("prepare a as select 19").await;
    both.query("discard all").await;
    both.query(seen).await;
    both.same(|w| w.run("a", &[])).await;
}

/// Where tables are placed, no form of a statement gets past what fills in and checks their keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execute_fills_in_and_checks_keys_on_one_shard_too() {
    let database = "mode = \"session\"
[[database.partition]]
name = \"A\"
weight = 1
shard = \"shard1\"
[[database.partition]]
name = \"B\"
weight = 1
shard = \"shard1\"
[[database.table]]
name = \"kept\"
placement = \"sharded\"
keys = [{ column = \"id\", method = \"hash\" }, { column = \"part\", method = \"list\" }]";
    let herd = Herd::start(1, 0).await;
    let direct = herd.primary(0).connect_app().await;
    direct.batch_execute("create table kept (id text, part text)").await.unwrap();
    let front = Front::over(herd, false, Changes { database, ..Changes::default() }).await;
    let mut raw = Raw::connect(&front).await;
    assert_eq!(
        ask(&mut raw, "prepare fills (text) as insert into kept (id) values ($1)").await,
        "PREPARE /I"
    );
    assert_eq!(
        ask(&mut raw, "prepare says (text, text) as insert into kept values ($1, $2)").await,
        "PREPARE /I"
    );
    let mut wrong = 0;
    for id in ["a", "b", "c", "d", "e"] {
        assert_eq!(ask(&mut raw, &format!("execute fills ('{id}')")).await, "INSERT_0_1 /I");
        wrong += u32::from(ask(&mut raw, &format!("execute says ('{id}', 'A')")).await == "23514 /I");
        // An expression, or another statement beside it, is refused rather than taken as it stands.
        assert_eq!(ask(&mut raw, &format!("execute fills (lower('{id}'))")).await, "0A000 /I");
        assert_eq!(ask(&mut raw, &format!("execute fills ('{id}'); select 1")).await, "0A000 /I");
    }
    assert!((1..5).contains(&wrong), "{wrong}");
    assert_eq!(rows(&direct, "select count(*) from kept where part is null").await, ["0"]);
}

/// What a server says of its own accord, and what it counts from the first message of a batch on, waits for no Sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parse_that_comes_alone_is_with_the_server_at_once() {
    let front = session("size = 1\nmin_idle = 0").await;
    let mut raw = Raw::connect(&front).await;
    for begin in ["select 1", "begin"] {
        assert!(!ask(&mut raw, begin).await.contains("closed"));
        for (name, code) in [("", "42703"), ("named", if begin == "begin" { "25P02" } else { "42703" })] {
            raw.out.put_parse(name, b"select nothing", &[]);
            raw.send().await;
            let (tag, body) = raw.next().await.unwrap();
            assert_eq!(
                (tag, ErrorFields::parse(&body).unwrap().code.as_str()),
                (b'E', code),
                "{begin}, {name:?}"
            );
            raw.out.put_sync();
            assert_eq!(raw.ask().await, if begin == "begin" { "/E" } else { "/I" });
        }
    }
}

/// What a transaction counts from its beginning on, it counts from BEGIN.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_comes_alone_is_with_the_server_at_once() {
    let front = session("size = 1\nmin_idle = 0").await;
    let primary = &front.herd.shards[0].primary;
    let mut raw = Raw::connect(&front).await;
    let way = |raw: &mut Raw, by_batch: bool, sql: &str| {
        if by_batch {
            raw.out.put_parse("", sql.as_bytes(), &[]);
            raw.out.put_bind("", "", &[0, 0, 0, 0, 0, 0]);
            raw.out.put_execute("", 0);
            raw.out.put_sync();
        } else {
            raw.out.put_query(sql.as_bytes());
        }
    };
    for (by_batch, begin) in
        [false, true].into_iter().flat_map(|by| ["begin", "begin read only"].map(|b| (by, b)))
    {
        way(&mut raw, by_batch, begin);
        assert!(raw.ask().await.ends_with("BEGIN /T"));
        let open =
            "select count(*) from pg_stat_activity where usename = 'app' and state = 'idle in transaction'";
        eventually("the transaction is open", PATIENCE, async || {
            (primary.sql(open).await == ["1"]).then_some(())
        })
        .await;
        let later = primary.sql("select clock_timestamp()").await;
        assert_eq!(ask(&mut raw, &format!("select now() < '{}'", later[0])).await, "T t SELECT_1 /T");
        assert_eq!(ask(&mut raw, "rollback").await, "ROLLBACK /I");
        // One that nothing comes of.
        way(&mut raw, by_batch, begin);
        assert!(raw.ask().await.ends_with("BEGIN /T"));
        way(&mut raw, by_batch, "commit");
        assert!(raw.ask().await.ends_with("COMMIT /I"));
        assert_eq!(primary.sql(open).await, ["0"]);
    }
    // The server's own limit ends one that says no more.
    assert_eq!(ask(&mut raw, "set idle_in_transaction_session_timeout = 50").await, "SET /I");
    assert_eq!(ask(&mut raw, "begin").await, "BEGIN /T");
    let (tag, body) = raw.next().await.unwrap();
    assert_eq!((tag, ErrorFields::parse(&body).unwrap().code.as_str()), (b'E', "25P03"));
}

/// Drivers ask so whether their server is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_query_is_the_servers_to_answer() {
    let front = session("size = 2\nmin_idle = 0").await;
    let mut other = Raw::connect(&front).await;
    for sql in ["", ";", " -- nothing\n;"].into_iter().cycle().take(30) {
        let mut raw = Raw::connect(&front).await;
        assert_eq!(ask(&mut raw, sql).await, "I /I");
        assert_eq!(ask(&mut raw, "begin").await, "BEGIN /T");
        assert_eq!(ask(&mut raw, sql).await, "I /T");
        assert_eq!(ask(&mut raw, "select nothing").await, "42703 /E");
        assert_eq!(ask(&mut raw, sql).await, "I /E");
        assert_eq!(ask(&mut raw, "rollback").await, "ROLLBACK /I");
        let end = format!("select pg_terminate_backend({})", pid(&raw));
        assert_eq!(ask(&mut other, &end).await, "T t SELECT_1 /I");
        assert_eq!(ask(&mut raw, sql).await, "57P01 closed", "{sql:?}");
    }
}

/// A session with a server of its own is routed and watched alike whatever the catalogs say: it waits for no reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_waits_for_the_catalogs_after_ddl() {
    let front = session("size = 3\nmin_idle = 0").await;
    let (one, other) = (front.connect().await, front.connect().await);
    let direct = front.herd.primary(0).connect().await;
    direct.batch_execute("begin; lock pg_catalog.pg_rewrite in access exclusive mode").await.unwrap();
    let work = async {
        for (client, table) in [(&one, "a"), (&other, "b")] {
            client.batch_execute(&format!("create table {table} (i int)")).await.unwrap();
            client
                .batch_execute(&format!("do $$ begin execute 'alter table {table} add j int'; end $$"))
                .await
                .unwrap();
            let prepared =
                client.prepare(&format!("insert into {table} values (1, $1) returning j")).await.unwrap();
            assert_eq!(client.query_one(&prepared, &[&7]).await.unwrap().get::<_, i32>(0), 7);
        }
    };
    // A reading would be given up after the 5 s of a probe.
    let limit = Duration::from_secs(4);
    tokio::time::timeout(limit, work).await.expect("the catalogs cannot be read while they are locked");
    direct.batch_execute("rollback").await.unwrap();
    let third = front.connect().await;
    assert_eq!(rows(&third, "select j from a union all select j from b").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_arrive_one_by_one_are_each_answered() {
    const MESSAGES: [Say; 11] = [
        |w| w.parse("p", "select $1::int + 1"),
        |w| w.describe("p"),
        |w| w.parse("q", "select $1::int + 2"),
        |w| w.bind("", "p", &["1"]),
        |w| w.describe_portal(""),
        |w| w.execute("", 0),
        |w| w.parse("", "select $1::int + 3"),
        |w| w.bind("", "", &["2"]),
        |w| w.execute("", 0),
        |w| w.close("p").close("q"),
        |w| w.sync(),
    ];
    let front = session("size = 3\nmin_idle = 0").await;
    let mut both = Pair::connect(front.herd.primary(0).port, front.port, &[]).await;
    let other = front.connect().await;
    // Outside and inside a transaction, a failed one too; after an answer, and while one is under way.
    for begin in ["select 1", "begin", "begin; select 1/0"] {
        both.query(begin).await;
        for before in ["", "select pg_sleep(0.02)"] {
            for together in 1..=MESSAGES.len() {
                if !before.is_empty() {
                    both.one.query(before).send().await;
                    both.proxy.query(before).send().await;
                }
                in_parts(&mut both, &other, &MESSAGES, together, &format!("{begin}, {before}")).await;
            }
        }
        both.query("rollback").await;
    }
}

/// BEGIN and the end of a transaction in batches, however they arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_whose_messages_arrive_one_by_one_are_those_of_one_server() {
    const PARTS: [&[Say]; 11] = [
        &[|w| w.parse("b", "begin"), |w| w.bind("", "b", &[]), |w| w.execute("", 0)],
        &[
            |w| w.parse("b", "begin read only"),
            |w| w.describe("b"),
            |w| w.bind("", "b", &[]),
            |w| w.execute("", 0),
        ],
        &[|w| w.sync()],
        &[|w| w.flush()],
        &[
            |w| w.parse("", "select 1"),
            |w| w.bind("", "", &[]),
            |w| w.describe_portal(""),
            |w| w.execute("", 0),
        ],
        &[|w| w.parse("", "select 1/0"), |w| w.bind("", "", &[]), |w| w.execute("", 0)],
        &[|w| w.parse("", "set local work_mem = '2MB'"), |w| w.bind("", "", &[]), |w| w.execute("", 0)],
        &[|w| w.parse("", "commit"), |w| w.bind("", "", &[]), |w| w.execute("", 0)],
        &[|w| w.parse("", "rollback"), |w| w.bind("", "", &[]), |w| w.execute("", 0)],
        &[|w| w.parse("c", "commit"), |w| w.describe("c"), |w| w.bind("", "c", &[]), |w| w.execute("", 0)],
        &[|w| w.close("c"), |w| w.parse("c", "select 2"), |w| w.describe("c"), |w| w.bind("", "c", &[])],
    ];
    let front = session("size = 3\nmin_idle = 0").await;
    let mut both = Pair::connect(front.herd.primary(0).port, front.port, &[]).await;
    let other = front.connect().await;
    for order in [
        &[0, 2, 4, 2, 7, 2][..],
        &[0, 4, 7, 2],
        &[0, 3, 4, 3, 8, 3, 2],
        &[1, 2, 6, 4, 2, 8, 2],
        &[0, 3, 5, 7, 2, 4, 2, 8, 2],
        &[0, 0, 4, 2, 7, 2],
        &[4, 0, 4, 2, 8, 2],
        &[4, 0, 5, 2, 4, 2, 7, 2],
        &[0, 7, 2, 1, 8, 2],
        &[0, 2, 0, 2, 7, 7, 2],
        &[7, 8, 0, 3, 7, 3, 8, 2],
        &[0, 2, 5, 9, 2, 9, 2, 4, 2, 8, 2],
        &[0, 4, 2, 5, 2, 9, 2, 10, 2],
        &[10, 2, 0, 10, 5, 10, 2, 10, 2, 8, 2],
    ] {
        let messages: Vec<Say> = order.iter().flat_map(|part| PARTS[*part].iter().copied()).collect();
        for together in 1..=messages.len() {
            in_parts(&mut both, &other, &messages, together, &format!("{order:?}")).await;
            both.same(|w| w.close("b").close("c").sync()).await;
            both.query("show work_mem").await;
        }
    }
}
