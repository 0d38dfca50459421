//! The description of the HTTP API against the server itself: schemathesis makes requests of it, right ones and wrong
//! ones, and compares every answer with what the description promises.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Changes, Front};
use serde_json::{Value, json};
use tokio::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Whether what is sent is accepted depends on the tables, which no description of requests can tell; all else is
/// checked: no 5xx, no status, content type, header or field that is not described.
const NOT_CHECKED: &str = "positive_data_acceptance";

/// The description with names of tables that exist, so that requests get further than 404.
fn with_tables(mut document: Value) -> Value {
    let tables = json!(["users", "orders", "countries", "audit_log", "nosuch"]);
    for name in ["WriteRequest", "BulkRequest"] {
        document["components"]["schemas"][name]["properties"]["table"]["enum"] = tables.clone();
    }
    for (path, method) in [("/api/read", "get"), ("/api/bulk-write", "post")] {
        for parameter in document["paths"][path][method]["parameters"].as_array_mut().unwrap() {
            if parameter["name"] == "table" {
                parameter["schema"] = json!({"type": "string", "enum": tables});
            }
        }
    }
    document
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_as_the_description_says() {
    let front = Front::demo(0, Changes { http: "user = \"admin\"", ..Changes::default() }).await;
    let http = front.http();
    let document = with_tables(http.get_json("/api/openapi.json").await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("openapi.json");
    std::fs::write(&file, document.to_string()).unwrap();
    let run = Command::new(format!("{ROOT}/target/venv/bin/schemathesis"))
        .arg("run")
        .arg(&file)
        .args(["--url", &format!("http://127.0.0.1:{}", http.port)])
        .args(["--exclude-checks", NOT_CHECKED, "--seed", "1", "--max-examples", "25", "--max-time", "40"])
        .args(["--request-timeout", "20", "--continue-on-failure"])
        .current_dir(dir.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    assert!(!said.contains("Unresolvable references"), "{said}");
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum();
    assert!(operations >= 7 && said.contains("Tested: "), "{said}");
    assert_eq!(http.get("/health").await.status, 200);
}
