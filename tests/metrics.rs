//! `/metrics` and the figures over HTTP: read by Prometheus itself, the same as what SQL shows and as what was sent.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Child, Command, Stdio};

use common::{Changes, Front, Http, PATIENCE, Port, eventually, failure, rows};

fn http() -> Changes {
    Changes { http: "user = \"admin\"", ..Changes::default() }
}

const DASHBOARD: &str = include_str!("../examples/prometheus/grafana.json");
const ALERTS: &str = include_str!("../examples/prometheus/alerts.yml");

/// Reads and writes on all shards, and some errors.
async fn load(front: &Front) {
    let client = front.connect().await;
    for i in 0..30 {
        let sql = format!("INSERT INTO users (user_id, name, email) VALUES ('k{i}', 'n', 'e')");
        client.simple_query(&sql).await.unwrap();
        client.simple_query(&format!("SELECT name FROM users WHERE user_id = 'k{i}'")).await.unwrap();
    }
    client.simple_query("SELECT name FROM users WHERE email = 'e'").await.unwrap();
    failure(&client, "SELECT 1 / 0").await;
    failure(&client, "SELECT count(*) FROM users").await;
}

/// The sum over all label sets of a metric whose line holds all parts of `with`, which ` & ` divides.
fn sum(text: &str, name: &str, with: &str) -> f64 {
    let of_name = |line: &&str| {
        line.split(['{', ' ']).next() == Some(name) && with.split(" & ").all(|part| line.contains(part))
    };
    text.lines().filter(of_name).map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()).sum()
}

fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = command.spawn().expect("promtool: scripts/prerequisites.sh installs it");
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = tool.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(done.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_well_formed_and_agree_with_show_latency_and_with_what_was_sent() {
    let front = Front::demo(1, http()).await;
    load(&front).await;
    let answer = front.http().get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    assert_eq!(promtool(&["check", "metrics"], &text), "", "promtool finds nothing to say");
    // 30 writes, 30 reads, one over three shards, one failed and one refused.
    assert_eq!(sum(&text, "pgherd_statements_total", ""), 63.0);
    assert_eq!(sum(&text, "pgherd_statements_total", "route=\"fan-out\""), 1.0);
    assert_eq!(sum(&text, "pgherd_statements_total", "route=\"local\""), 1.0);
    assert_eq!(sum(&text, "pgherd_errors_total", "class=\"22\""), 1.0);
    assert_eq!(sum(&text, "pgherd_errors_total", "class=\"0A\""), 1.0);
    assert_eq!(sum(&text, "pgherd_partition_statements_total", ""), 60.0);
    assert_eq!(sum(&text, "pgherd_server_up", ""), 6.0);
    let duration = "pgherd_statement_duration_seconds";
    assert_eq!(sum(&text, &format!("{duration}_count"), "class=\"insert\""), 30.0);
    let admin = front.admin().await;
    let latency = rows(&admin, "SELECT shard, server, role, class, count, mean_us FROM pgherd.latency").await;
    for row in &latency {
        let cells: Vec<&str> = row.split('|').collect();
        let [shard, server, role, class, count, mean_us] = cells[..] else { panic!("{row}") };
        let labels = format!("shard=\"{shard}\",server=\"{server}\",role=\"{role}\",class=\"{class}\"");
        let counted = sum(&text, &format!("{duration}_count"), &labels);
        assert_eq!(counted, count.parse::<f64>().unwrap(), "{labels}");
        let infinite = sum(&text, &format!("{duration}_bucket"), &format!("{labels} & le=\"+Inf\""));
        assert_eq!(infinite, counted, "buckets are cumulative and hold all: {labels}");
        let mean = sum(&text, &format!("{duration}_sum"), &labels) / counted * 1e6;
        assert!((mean - mean_us.parse::<f64>().unwrap()).abs() <= 0.051, "{labels}: {mean} {mean_us}");
    }
    assert_eq!(sum(&text, &format!("{duration}_count"), ""), 64.0, "the fan-out counts on each shard");
    let before: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(&format!("{duration}_bucket")) && line.contains("class=\"insert\""))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(before.chunks(18).all(|buckets| buckets.is_sorted()), "{before:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_it_and_the_examples_name_only_what_there_is() {
    let front = Front::demo(1, http()).await;
    load(&front).await;
    let text = front.http().get("/metrics").await.text();
    let names = |text: &str| -> BTreeSet<String> {
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        let found =
            text.match_indices("pgherd_").map(|(at, _)| text[at..].split(|c| !is_name(c)).next().unwrap());
        found.map(str::to_owned).collect()
    };
    let there = names(&text);
    for (example, used) in [("grafana.json", names(DASHBOARD)), ("alerts.yml", names(ALERTS))] {
        assert!(used.len() >= 6, "{example} uses {used:?}");
        let missing: Vec<_> = used.difference(&there).collect();
        assert!(missing.is_empty(), "{example} uses {missing:?}");
    }
    serde_json::from_str::<serde_json::Value>(DASHBOARD).unwrap();
    promtool(&["check", "rules", "examples/prometheus/alerts.yml"], "");
    let prometheus = Prometheus::start(front.http().port);
    let ask = async |query: &str| {
        tokio::net::TcpStream::connect(("127.0.0.1", prometheus.http.port)).await.ok()?;
        let answer = prometheus.http.get(&format!("/api/v1/query?query={query}")).await;
        if answer.status != 200 {
            return None; // not ready yet
        }
        answer.json()["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()
    };
    eventually("Prometheus has scraped the proxy", PATIENCE, async || {
        ask("sum(pgherd_statements_total)").await
    })
    .await;
    assert_eq!(ask("up").await, Some(1.0));
    assert_eq!(ask("sum(pgherd_statements_total)").await, Some(63.0));
    assert_eq!(ask("sum(pgherd_statement_duration_seconds_count)").await, Some(64.0));
    assert_eq!(ask("sum(pgherd_server_up)").await, Some(6.0));
    assert!(
        ask("histogram_quantile(0.99,sum(pgherd_statement_duration_seconds_bucket)by(le))").await > Some(0.0)
    );
}

/// A Prometheus that scrapes one port every second; ended when dropped.
struct Prometheus {
    http: Http,
    process: Child,
    _port: Port,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(scraped: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = Port::reserve();
        let config = format!(
            "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: pgherd\n    static_configs:\n      - targets: ['127.0.0.1:{scraped}']\n"
        );
        let file = dir.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus: scripts/prerequisites.sh installs it");
        Self { http: Http::new(port.number()), process, _port: port, _dir: dir }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_errors_and_statements_are_there_as_json() {
    let front = Front::demo(0, http()).await;
    load(&front).await;
    let http = front.http();
    let metrics = http.get_json("/api/analytics/metrics?timeRange=60000").await;
    assert_eq!((&metrics["total"], &metrics["writes"]), (&63.into(), &30.into()));
    assert_eq!((&metrics["errors"], &metrics["timeRange"]), (&2.into(), &60_000.into()));
    assert!(metrics["throughputPerSecond"].as_f64().unwrap() > 0.0);
    assert!(metrics["latency"]["p999Us"].as_u64() >= metrics["latency"]["p50Us"].as_u64());
    assert_eq!(metrics["shards"].as_array().unwrap().len(), 3);
    assert_eq!(metrics["partitions"].as_array().unwrap().len(), 5);
    let share: f64 = metrics["shards"].as_array().unwrap().iter().map(|s| s["share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-9);
    let errors = http.get_json("/api/analytics/errors?count=2").await;
    let newest = &errors["errors"][0];
    assert_eq!(
        (&newest["sqlstate"], &newest["statement"]),
        (&"0A000".into(), &"select count(*) from users".into())
    );
    let older = &errors["errors"][1];
    assert_eq!((&older["sqlstate"], &older["statement"]), (&"22012".into(), &"select ? / ?".into()));
    assert!(older["server"].is_string() && older["shard"].is_string());
    let statements = http.get_json("/api/statements?count=1000").await;
    let statements = statements["statements"].as_array().unwrap();
    let failed = statements.iter().find(|s| s["fingerprint"] == older["fingerprint"]).unwrap();
    assert_eq!((&failed["calls"], &failed["errors"]), (&1.into(), &1.into()));
    for wrong in [
        "/api/analytics/metrics?timeRange=0",
        "/api/analytics/metrics?timeRange=x",
        "/api/analytics/metrics?timeRange=99999999",
        "/api/analytics/metrics?timerange=1000",
        "/api/analytics/errors?count=0",
        "/api/analytics/errors?count=-1",
        "/api/statements?count=1001",
    ] {
        let answer = http.get(wrong).await;
        assert_eq!((answer.status, &answer.json()["sqlstate"]), (400, &"22023".into()), "{wrong}");
    }
    let user = http.basic("app", "app");
    assert_eq!(user.get("/api/analytics/metrics").await.status, 200);
    for hidden in ["/api/statements", "/api/analytics/errors"] {
        assert_eq!(user.get(hidden).await.status, 403, "texts are other users' too: {hidden}");
    }
}
