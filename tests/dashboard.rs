//! The dashboard: its figures, who may see them, and the page itself in a real browser.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::process::Stdio;
use std::time::Duration;

use common::{Changes, Front, Herd, PATIENCE, Port, configuration, create_demo_tables, eventually};
use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const HTTP: Changes = Changes { proxy: "", pool: "", database: "", timeouts: "", http: "user = \"admin\"" };

/// An open stream of events.
type Stream = hyper::body::Incoming;

async fn open(front: &Front) -> (u16, Stream) {
    let http = front.http();
    let answer = http.open(http.request(Method::GET, "/api/events").body(Full::default()).unwrap()).await;
    (answer.status().as_u16(), answer.into_body())
}

/// The next event's name and data; `None` at the end.
async fn next(stream: &mut Stream) -> Option<(String, serde_json::Value)> {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let frame = timeout(PATIENCE, stream.frame()).await.expect("an event a second")?.ok()?;
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let (name, data) = text.trim_end().split_once('\n').unwrap();
    let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
    Some((name.strip_prefix("event: ").unwrap().to_owned(), data))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_begin_with_the_configuration_go_on_with_snapshots_and_end_with_the_proxy() {
    let front = Front::demo(1, HTTP).await;
    let (status, mut stream) = open(&front).await;
    assert_eq!(status, 200);
    let (name, config) = next(&mut stream).await.unwrap();
    assert_eq!(name, "config");
    assert!(config["file"].as_str().unwrap().ends_with("proxy.toml"), "{config}");
    let settings = config["settings"].as_array().unwrap();
    let value = |key: &str| settings.iter().find(|s| s["key"] == key).map(|s| s["value"].clone());
    assert_eq!(value("proxy.max_clients"), Some("10000".into()));
    assert_eq!(value("user.admin.password"), Some("[redacted]".into()));
    assert!(!config.to_string().contains("postgres\",\"password"), "no secret is shown");

    let client = front.connect().await;
    client.batch_execute("select user_id from users where user_id = 'x'").await.unwrap();
    client.batch_execute("select nonsense from users where user_id = 'x'").await.unwrap_err();
    let mut times = Vec::new();
    let snapshot = loop {
        let (name, snapshot) = next(&mut stream).await.unwrap();
        assert_eq!(name, "snapshot");
        times.push(snapshot["time"].as_u64().unwrap());
        if snapshot["errors"][0]["sqlstate"] == "42703" && times.len() > 2 {
            break snapshot;
        }
    };
    assert!(times.windows(2).all(|pair| (200..10_000).contains(&(pair[1] - pair[0]))), "{times:?}");
    let statements = snapshot["statements"].as_array().unwrap();
    assert!(
        statements.iter().any(|s| s["statement"].as_str().unwrap().contains("select user_id from users")),
        "{statements:?}"
    );
    let database = &snapshot["databases"][0];
    let states: Vec<_> = database["shards"].as_array().unwrap().iter().map(|s| &s["state"]).collect();
    assert_eq!(states, ["well", "well", "well"]);
    assert!(snapshot["clients"]["connected"].as_u64() >= Some(1));

    front.proxy.begin_shutdown();
    while next(&mut stream).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_those_of_the_partitions_rows() {
    let front = Front::demo(1, HTTP).await;
    let client = front.connect().await;
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..400 {
        let sql = format!(
            "insert into users (user_id, name, email) values ('user_{n}', 'n', 'e') returning partition_key"
        );
        *counts.entry(common::rows(&client, &sql).await.remove(0)).or_insert(0u64) += 1;
    }
    front.herd.caught_up().await;
    let http = front.http();
    let snapshot = eventually("sizes are known", PATIENCE, async || {
        let snapshot = http.get_json("/api/snapshot").await;
        snapshot["databases"][0]["sizesAtMs"].is_u64().then_some(snapshot)
    })
    .await;
    assert_eq!(snapshot["databases"][0]["sizesError"], serde_json::Value::Null);
    let mut rows = std::collections::BTreeMap::new();
    for (i, shard) in snapshot["databases"][0]["shards"].as_array().unwrap().iter().enumerate() {
        let partitions = shard["partitions"].as_array().unwrap();
        let bytes: u64 = partitions.iter().map(|p| p["bytes"].as_u64().unwrap()).sum();
        let sql = "select pg_total_relation_size('users')::text";
        let real: u64 = front.herd.primary(i).sql(sql).await[0].parse().unwrap();
        assert!(bytes.abs_diff(real) <= real / 50, "shard {i}: {bytes} of {real}");
        assert!(shard["bytes"].as_u64() > Some(real));
        for partition in partitions {
            rows.insert(partition["name"].as_str().unwrap().to_owned(), partition["rows"].as_u64().unwrap());
        }
    }
    assert_eq!(rows, counts, "a small table is sampled as a whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_admins_see_it_and_only_so_many_at_once() {
    let closed = "[[http.token]]\nuser = \"app\"\ntoken = \"0123456789abcdef0123\"";
    let front = Front::plain(0, Changes { http: closed, ..HTTP }).await;
    for path in ["/", "/dashboard/app.js", "/api/events", "/api/snapshot"] {
        let answer = front.http().get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(
            answer.header("www-authenticate").unwrap().starts_with("Basic"),
            "a browser asks for a password"
        );
        assert_eq!(front.http().basic("app", "app").get(path).await.status, 403, "{path}");
    }
    let page = front.http().basic("admin", "admin").get("/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'self';"));
    assert!(page.header("content-type").unwrap().starts_with("text/html"));

    let front = Front::plain(0, HTTP).await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        let (status, stream) = open(&front).await;
        assert_eq!(status, 200);
        streams.push(stream);
    }
    let answer = front.http().get("/api/events").await;
    assert_eq!(
        (answer.status, answer.json()["sqlstate"].as_str()),
        (503, Some("53300")),
        "{}",
        answer.text()
    );
    streams.pop();
    let mut again = eventually("a place is free again", PATIENCE, async || {
        let (status, stream) = open(&front).await;
        (status == 200).then_some(stream)
    })
    .await;
    assert_eq!(next(&mut again).await.unwrap().0, "config");
    assert_eq!(next(&mut again).await.unwrap().0, "snapshot");
    assert_eq!(next(&mut streams[0]).await.unwrap().0, "config", "the others go on");
}

/// `pgherd` with these arguments, ended when dropped.
fn pgherd(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

async fn runs(args: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd")).args(args).output().await.unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_sees_a_shard_turn_ill_and_well_and_the_proxy_go_and_come_back() {
    let mut herd = Herd::start(3, 1).await;
    create_demo_tables(&herd, 1).await;
    let ports = [Port::reserve(), Port::reserve()];
    let [port, http_port] = [ports[0].number(), ports[1].number()];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.toml");
    std::fs::write(&file, configuration(&herd, [port, http_port], true, &HTTP)).unwrap();
    let config = file.to_str().unwrap();
    let mut proxy = pgherd(&["run", "-c", config]);
    let hostile = format!(
        "host=127.0.0.1 port={port} user=app password=app dbname=app application_name=<script>hacked=1</script>"
    );
    let connect = async || tokio_postgres::connect(&hostile, tokio_postgres::NoTls).await.ok();
    let (client, connection) = eventually("the proxy is up", PATIENCE, connect).await;
    tokio::spawn(connection);
    runs(&["generate", "-c", config, "--scale", "0.002"]).await;
    client.batch_execute("select \"<img src=x onerror='hacked=1'>\" from users").await.unwrap_err();
    let _load = pgherd(&["load-test", "-c", config, "--duration", "5m", "--concurrency", "3"]);

    let root = env!("CARGO_MANIFEST_DIR");
    let replica = format!("127.0.0.1:{}", herd.shards[1].replicas[0].port);
    let mut browser = Command::new("node")
        .args([&format!("{root}/tests/browser/dashboard.js"), &format!("http://127.0.0.1:{http_port}/")])
        .args([&format!("{root}/target/dashboard"), &replica])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|e| panic!("node: {e}; run ./test.sh, which installs what tests need"));
    let mut orders = browser.stdin.take().unwrap();
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let mut told = String::new();
    let driven = timeout(Duration::from_secs(150), async {
        while let Some(line) = lines.next_line().await.unwrap() {
            told.push_str(&line);
            told.push('\n');
            match line.strip_prefix("do: ") {
                None => continue,
                Some("stop the replica") => herd.shards[1].replicas[0].kill_immediate().await,
                Some("start the replica") => herd.shards[1].replicas[0].restart().await,
                Some("kill the proxy") => proxy.kill().await.unwrap(),
                Some("start the proxy") => proxy = pgherd(&["run", "-c", config]),
                Some(other) => panic!("{other} cannot be done"),
            }
            orders.write_all(b"done\n").await.unwrap();
        }
        browser.wait().await.unwrap()
    });
    let ended = driven.await;
    assert!(ended.is_ok_and(|status| status.success()), "{told}");
}
