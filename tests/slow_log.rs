//! `log.min_duration_ms`: a line for each statement that took long, with its route and times and without its values.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod common;

use std::process::Stdio;

use common::{Herd, PATIENCE, Port, eventually};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};

async fn start(herd: &Herd, port: u16, log: &str) -> (Child, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let server = herd.primary(0).port;
    let text = format!(
        r#"
[proxy]
listen = ["127.0.0.1:{port}"]
[log]
format = "json"
{log}
[[user]]
name = "app"
password = "app"
[[database]]
name = "app"
control = {{ user = "postgres", password = "postgres" }}
[[database.shard]]
name = "shard1"
servers = [{{ host = "127.0.0.1", port = {server}, role = "primary" }}]
"#
    );
    let file = dir.path().join("proxy.toml");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.arg("run").arg("-c").arg(&file).env_remove("RUST_LOG");
    let child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    (child, dir)
}

async fn connect(port: u16) -> Client {
    eventually("the proxy lets clients in", PATIENCE, async || {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("app").password("app").dbname("app");
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    })
    .await
}

/// The first line of the log that holds such a message.
async fn line(child: &mut Child, message: &str) -> Value {
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let found = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["fields"]["message"] == message {
                return value;
            }
        }
        panic!("the log ended without \"{message}\"");
    };
    tokio::time::timeout(PATIENCE, found).await.unwrap()
}

#[tokio::test]
async fn a_statement_that_takes_long_is_logged_without_its_values() {
    let herd = Herd::start(1, 0).await;
    let port = Port::reserve();
    let (mut proxy, _dir) = start(&herd, port.number(), "min_duration_ms = 100").await;
    let client = connect(port.number()).await;
    client.simple_query("SELECT 'quick secret'").await.unwrap();
    client.simple_query("SELECT pg_sleep(0.15), 'slow secret'").await.unwrap();
    let logged = line(&mut proxy, "slow statement").await;
    let fields = &logged["fields"];
    assert_eq!(fields["statement"], "select pg_sleep(?), ?");
    assert_eq!((&fields["route"], &fields["class"]), (&"direct".into(), &"select".into()));
    assert_eq!((&fields["shard"], &fields["role"]), (&"shard1".into(), &"primary".into()));
    assert_eq!((&fields["rows"], &fields["failed"]), (&1.into(), &false.into()));
    assert!(fields["total_us"].as_u64().unwrap() >= 150_000, "{logged}");
    assert!(!logged.to_string().contains("secret"), "{logged}");
}

#[tokio::test]
async fn at_level_debug_each_statement_is_a_span_in_its_sessions_span() {
    let herd = Herd::start(1, 0).await;
    let port = Port::reserve();
    let (mut proxy, _dir) = start(&herd, port.number(), "filter = \"debug\"").await;
    let client = connect(port.number()).await;
    client.simple_query("SELECT 'a secret'").await.unwrap();
    let logged = line(&mut proxy, "statement ended").await;
    let spans = logged["spans"].as_array().unwrap();
    assert_eq!((&spans[0]["name"], &spans[0]["user"]), (&"session".into(), &"app".into()));
    assert_eq!((&spans[1]["name"], &spans[1]["statement"]), (&"statement".into(), &"select ?".into()));
    assert_eq!(logged["fields"]["rows"], 1);
    assert!(!logged.to_string().contains("secret"), "{logged}");
}
