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
