//! The HTTP server: who is let in, health, and what is not there.

mod common;

use common::{Changes, Front, PATIENCE, eventually};

fn open() -> Changes {
    Changes { http: "user = \"admin\"", ..Changes::default() }
}
/// Nobody is let in without credentials; a token stands for `app`.
fn closed() -> Changes {
    Changes {
        http: "[[http.token]]
user = \"app\"
token = \"0123456789abcdef0123\"",
        ..Changes::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_says_for_every_server_what_it_is_and_since_when() {
    let mut front = Front::plain(1, open()).await;
    let http = front.http();
    assert_eq!(http.get("/health").await.text(), r#"{"status":"live"}"#);
    assert_eq!(http.get("/ready").await.text(), r#"{"ready":true,"missing":[]}"#);
    let health = http.get_json("/api/health").await;
    assert_eq!(health["status"], "ok", "{health}");
    let shard = &health["databases"][0]["shards"][0];
    let (primary, replica) = (&shard["servers"][0], &shard["servers"][1]);
    for (server, role) in [(primary, "primary"), (replica, "replica")] {
        assert_eq!(server["up"], true);
        assert_eq!((&server["role"], &server["roleVerified"]), (&role.into(), &true.into()), "{server}");
        assert!(server["since"].as_str().unwrap().ends_with('Z'));
    }
    assert_eq!((&replica["lagBytes"], &primary["lagBytes"]), (&0.into(), &serde_json::Value::Null));

    front.herd.shards[0].replicas[0].stop().await;
    eventually("the replica's end is seen", PATIENCE, async || {
        let health = http.get_json("/api/health").await;
        let server = &health["databases"][0]["shards"][0]["servers"][1];
        (health["status"] == "degraded" && server["up"] == false && server["lastError"].is_string())
            .then_some(())
    })
    .await;
    assert_eq!(http.get("/ready").await.status, 200, "writes have a place");
    front.herd.shards[0].primary.stop().await;
    eventually("the primary's end is seen", PATIENCE, async || {
        (http.get("/ready").await.status == 503).then_some(())
    })
    .await;
    let missing = &http.get("/ready").await.json()["missing"][0];
    assert_eq!(missing, "database app: shard shard1 has no primary");
    assert_eq!(http.get_json("/api/health").await["status"], "down");
    assert_eq!(http.get("/health").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_users_with_their_password_or_token_are_let_in() {
    let front = Front::plain(0, closed()).await;
    let http = front.http();
    for path in ["/health", "/ready", "/api/openapi.json"] {
        assert_eq!(http.get(path).await.status, 200, "{path} is for everybody");
    }
    let answer = http.get("/api/health").await;
    assert_eq!((answer.status, &answer.json()["sqlstate"]), (401, &"28000".into()));
    assert!(answer.header("www-authenticate").unwrap().starts_with("Basic "));
    for _ in 0..2 {
        // The second time the password is remembered.
        assert_eq!(http.basic("app", "app").get("/api/health").await.status, 200);
    }
    assert_eq!(http.bearer("0123456789abcdef0123").get("/api/health").await.status, 200);
    assert_eq!(http.basic("raw", "").get("/api/health").await.status, 200, "trusted on loopback");
    for wrong in [
        http.basic("app", "App"),
        http.basic("app", ""),
        http.basic("nobody", "app"),
        http.basic("", ""),
        http.bearer("0123456789abcdef0124"),
        http.bearer(""),
        http.bearer("app"),
    ] {
        let answer = wrong.get("/api/health").await;
        assert_eq!((answer.status, &answer.json()["sqlstate"]), (401, &"28P01".into()), "{wrong:?}");
    }
    assert_eq!(http.basic("app", "app").get("/api/health").await.status, 200, "after all that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_in_json() {
    let front = Front::plain(0, open()).await;
    let http = front.http();
    let answer = http.get("/nosuch").await;
    assert_eq!((answer.status, &answer.json()["sqlstate"]), (404, &"42704".into()));
    let answer = http.post("/health", &serde_json::json!({})).await;
    assert_eq!((answer.status, &answer.json()["sqlstate"]), (405, &"0A000".into()));
    let document = http.get_json("/api/openapi.json").await;
    assert!(document["paths"]["/api/health"]["get"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_before_any_session_is_among_the_errors_and_what_a_session_says_is_there_once() {
    let front = Front::demo(0, open()).await;
    let http = front.http();
    let user = |name: &str| serde_json::json!({"table": "users", "data": {"user_id": name}});
    for (path, status, code) in [
        ("/api/read?table=users&orderBy=name", 422, "0A000"),
        ("/api/read?table=users&where=pg_sleep(9)=1", 400, "42601"),
        ("/api/read?table=nosuch", 404, "42P01"),
        ("/api/read?table=users&limit=x", 400, "22023"),
    ] {
        let answer = http.get(path).await;
        assert_eq!((answer.status, &answer.json()["sqlstate"]), (status, &code.into()), "{path}");
    }
    // The header's key is on another shard than the row's own.
    let request = http.request(hyper::Method::POST, "/api/write").header("x-shard-key", "a");
    let request = request.header("content-type", "application/json");
    let body = hyper::body::Bytes::from(user("user_123").to_string());
    assert_eq!(http.send(request.body(http_body_util::Full::new(body)).unwrap()).await.status, 409);
    assert_eq!(http.post("/api/write", &user("a")).await.status, 409); // a NULL, by a server
    let errors = http.get_json("/api/analytics/errors?count=50").await;
    let all = errors["errors"].as_array().unwrap();
    let mut codes: Vec<_> = all.iter().map(|e| e["sqlstate"].as_str().unwrap()).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["0A000", "22023", "22023", "23502", "42601", "42P01"], "{errors}");
    assert!(all.iter().all(|e| e["user"] == "admin" && e["database"] == "app"), "{errors}");
    let metrics = http.get("/metrics").await.text();
    for class in ["0A", "22", "42"] {
        let counted = metrics.lines().any(|l| l.starts_with("pgherd_errors_total") && l.contains(class));
        assert!(counted, "{class}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_test_over_http_reads_and_writes_without_an_error() {
    let front =
        Front::demo(0, Changes { http: "user = \"admin\"\nmax_rows = 600", ..Changes::default() }).await;
    let client = front.connect().await;
    for n in 0..20 {
        let sql = format!("insert into users (user_id, name, email) values ('u{n}', 'n', 'e')");
        client.batch_execute(&sql).await.unwrap();
    }
    let config = std::fs::read_to_string(&front.config).unwrap();
    let address = config.split_once("[http]\nlisten = \"").unwrap().1.split_once('"').unwrap().0;
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("result.json");
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(["load-test", "--http", &format!("http://app:app@{address}"), "--duration", "1s"]);
    command.args(["--concurrency", "2", "--write-ratio", "0.5", "--strict", "--json"]).arg(&json);
    let said = command.output().await.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let operations = result["operations"].as_array().unwrap();
    let inserted = operations.iter().find(|line| line["operation"] == "insert order").unwrap();
    let mut stored = 0;
    for shard in 0..3 {
        let count = "select count(*) from orders where order_id like 'load_%'";
        stored += front.herd.primary(shard).sql(count).await[0].parse::<i64>().unwrap();
    }
    assert!(stored > 0 && inserted["ok"].as_i64() == Some(stored), "{inserted}: {stored} are stored");
}
