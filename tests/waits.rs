//! Every wait has an end, and the end says what was waited for: a pause, a login in it, HTTP requests in it, a peer that
//! vanished without a word.

mod common;

use std::time::Duration;

use common::{Changes, Front, PATIENCE, Raw, eventually, failure, rows};
use tokio::time::{Instant, timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_that_lasts_too_long_is_told_to_statements_logins_and_http() {
    let changes = Changes {
        pool: "pause_timeout_ms = 300",
        timeouts: "login_ms = 600",
        http: "user = \"admin\"",
        ..Changes::default()
    };
    let front = Front::demo(0, changes).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    admin.batch_execute("PAUSE app").await.unwrap();
    for sql in ["select count(*) from audit_log", "select name from users"] {
        let (code, message) = timeout(PATIENCE, failure(&client, sql)).await.unwrap();
        assert_eq!((code.as_str(), message.contains("paused")), ("57P03", true), "{sql}: {message}");
    }
    // A login with settings of its own has to ask a server about them.
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(front.port).user("app").password("app").dbname("app");
    config.options("-c work_mem=123kB");
    let login = timeout(PATIENCE, config.connect(tokio_postgres::NoTls)).await.unwrap();
    let error = login.err().expect("it is paused");
    assert_eq!(error.code().map(|c| c.code()), Some("57P03"), "{error:?}");
    let answer = front.http().get("/api/read?table=countries").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.json()["sqlstate"], "57P03");
    admin.batch_execute("RESUME app").await.unwrap();
    assert_eq!(rows(&client, "select 1").await, ["1"]);
    assert_eq!(front.http().get("/api/read?table=countries").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_in_a_pause_ends_with_the_logins_own_time_and_http_says_that_nothing_was_done() {
    let changes = Changes {
        timeouts: "login_ms = 500",
        http: "user = \"admin\"\ntimeout_ms = 200",
        ..Changes::default()
    };
    let front = Front::demo(0, changes).await;
    let admin = front.admin().await;
    admin.batch_execute("PAUSE app").await.unwrap();
    let began = Instant::now();
    let error = timeout(PATIENCE, front.try_connect("app", "app", "app")).await.unwrap().err().unwrap();
    assert_eq!(error.code().map(|c| c.code()), Some("57P03"), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let answer = timeout(PATIENCE, front.http().get("/api/read?table=countries")).await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());
    let error = answer.json();
    assert_eq!(error["sqlstate"], "57P03", "{error}");
    assert!(error["message"].as_str().unwrap().contains("nothing was done"), "{error}");
    admin.batch_execute("RESUME app").await.unwrap();
    // What the session in waiting was given is given back.
    eventually("no server is lent", PATIENCE, async || {
        (rows(&admin, "select sum(in_use) from pgherd.pools").await == ["0"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_http_sessions_at_work_are_told_with_503() {
    let changes =
        Changes { http: "user = \"admin\"\ntimeout_ms = 300\nmax_sessions = 1", ..Changes::default() };
    let front = Front::demo(0, changes).await;
    let holder = front.herd.primary(0).connect().await;
    holder.batch_execute("begin; lock table countries in access exclusive mode").await.unwrap();
    let http = front.http();
    let answers = futures_util::future::join_all((0..4).map(|_| http.get("/api/read?table=countries"))).await;
    let codes: Vec<_> = answers.iter().map(|a| (a.status, a.json()["sqlstate"].clone())).collect();
    assert!(codes.contains(&(503, "53300".into())), "{codes:?}");
    assert!(codes.iter().all(|c| matches!(c.0, 503 | 504 | 200)), "{codes:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_system_looks_after_idle_peers_on_both_sides() {
    let front = Front::plain(0, Changes::default()).await;
    let mut client = Raw::connect(&front).await;
    client.out.extend_from_slice(b"Q\0\0\0\x0bbegin;\0");
    client.ask().await;
    client.out.extend_from_slice(b"Q\0\0\0\x0dselect 1\0");
    client.ask().await;
    let ours = client.stream.local_addr().unwrap().port();
    // Local port, remote port, and whether a timer runs that is no retransmission. Source: proc(5), /proc/net/tcp.
    let sockets = || -> Vec<(u16, u16, bool)> {
        let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let line = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let port = |at: usize| u16::from_str_radix(fields[at].split_once(':').unwrap().1, 16).unwrap();
            (fields[3] == "01").then(|| (port(1), port(2), fields[5].starts_with("02:")))
        };
        text.lines().skip(1).filter_map(line).collect()
    };
    let server = front.herd.primary(0).port;
    eventually("the sockets of the proxy are watched", PATIENCE, async || {
        let all = sockets();
        let to_client: Vec<_> = all.iter().filter(|s| s.0 == front.port && s.1 == ours).collect();
        let to_server: Vec<_> = all.iter().filter(|s| s.1 == server).collect();
        let watched = |list: &[&(u16, u16, bool)]| !list.is_empty() && list.iter().all(|s| s.2);
        (watched(&to_client) && watched(&to_server)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_over_all_shards_that_runs_too_long_is_ended_on_each_of_them() {
    let front = Front::demo(0, Changes { timeouts: "query_ms = 700", ..Changes::default() }).await;
    let (client, admin) = (front.connect().await, front.admin().await);
    for user in ["user_1", "user_4", "user_2"] {
        let sql = format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e')");
        client.batch_execute(&sql).await.unwrap();
    }
    let holder = front.herd.primary(1).connect().await;
    holder.batch_execute("begin; lock table users in access exclusive mode").await.unwrap();
    let long = "select user_id from users";
    for _ in 0..2 {
        let (code, message) = timeout(PATIENCE, failure(&client, long)).await.unwrap();
        assert_eq!(code, "57014", "{message}");
        let prepared = timeout(PATIENCE, client.query(long, &[])).await.unwrap().unwrap_err();
        assert_eq!(prepared.code().map(|c| c.code()), Some("57014"), "{prepared:?}");
    }
    for shard in &front.herd.shards {
        eventually("nothing of it runs", PATIENCE, async || {
            let busy = "select count(*) from pg_stat_activity where usename = 'app' and state = 'active'";
            (shard.primary.sql(busy).await == ["0"]).then_some(())
        })
        .await;
    }
    eventually("no server is lent", PATIENCE, async || {
        (rows(&admin, "select sum(in_use) from pgherd.pools").await == ["0"]).then_some(())
    })
    .await;
    holder.batch_execute("rollback").await.unwrap();
    let mut users = rows(&client, "select user_id from users").await;
    users.sort();
    assert_eq!(users, ["user_1", "user_2", "user_4"]);
}
