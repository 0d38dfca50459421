//! What would be SQL if it were spliced: in conditions, orders, tables, columns and keys. All of it is refused, and the
//! servers never see it as a statement.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Changes, Front, Http};
use serde_json::{Value, json};

/// Each holds the name of a table that no statement of the proxy's own has.
const PAYLOADS: &[&str] = &[
    "'; drop table canary; --",
    "\"; drop table canary; --",
    "1; delete from canary",
    "users; drop table canary",
    "users\"; drop table canary; --",
    "users where 1=1; update canary set i = 2",
    "(select i from canary)",
    "user_id) union select i from canary --",
    "pg_sleep(10) is null or canary",
    "current_setting('canary')",
    "$$; drop table canary; $$",
    "$x$canary$x$ = name",
    "E'\\'; drop table canary; --' = name",
    "/* pgherd: shard=shard1 */ canary",
    "*/ drop table canary; /*",
    "users, canary",
    "users join canary on true",
    "pg_read_file('canary') is null",
    "lo_import('canary') > 0",
    "name || (select i from canary)",
    "(delete from canary returning i)",
    "case when (select 1 from canary) = 1 then name else email end",
    "name; copy canary to program 'id'",
    "U&'\\0027' = name or canary",
    "\0drop table canary",
    "user_id = 'a' or exists (select * from canary)",
    "name::canary",
    "canary()",
    "row(canary)",
    "\\'; drop table canary; --",
    "%27%3B drop table canary",
    "name collate canary",
    "canary.users.name",
    "name = any(select i::text from canary)",
    "name = $1; drop table canary",
    "name ~ (select i::text from canary)",
    "'a' = 'a' limit 1; drop table canary",
    "1 = 1 \u{2019}; drop table canary",
];

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn refused(http: &Http, what: &str, answer: common::Answer) {
    let _ = http;
    assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
    let error = answer.json();
    assert!(error["sqlstate"].is_string() && error["message"].is_string(), "{what}: {error}");
}

/// Two users whose rows are on different shards.
async fn two_users(http: &Http) -> [(String, String); 2] {
    let mut found: Vec<(String, String)> = Vec::new();
    for i in 0..100 {
        let id = format!("user_{i}");
        let answer = http.get_json(&format!("/api/read?table=users&user_id=eq.{id}")).await;
        let shard = answer["shards"][0].as_str().unwrap().to_owned();
        if found.iter().all(|(_, known)| *known != shard) {
            found.push((id, shard));
        }
        if let [a, b] = found.as_slice() {
            return [a.clone(), b.clone()];
        }
    }
    panic!("all users are on one shard");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_part_of_a_request_becomes_sql() {
    let changes = Changes { http: "user = \"admin\"", ..Changes::default() };
    let front = Front::demo(0, changes).await;
    let http = front.http();
    front
        .herd
        .sql("create table canary (i int); insert into canary values (1); grant all on canary to app")
        .await;
    front
        .connect()
        .await
        .batch_execute("insert into users (user_id, name, email) values ('user_1', 'n', 'e')")
        .await
        .unwrap();
    let users = two_users(&http).await;
    front.herd.sql("alter system set log_statement = 'all'").await;
    front.herd.sql("select pg_reload_conf()").await;
    let mut cases = 0;
    for payload in PAYLOADS {
        let p = encoded(payload);
        let mut urls = vec![
            format!("/api/read?table=users&where={p}"),
            format!("/api/read?table=users&where={}", encoded(&format!("user_id = 'user_1' and {payload}"))),
            format!("/api/read?table=users&user_id=eq.user_1&orderBy={p}"),
            format!(
                "/api/read?table=users&user_id=eq.user_1&orderBy={}",
                encoded(&format!("name, {payload}"))
            ),
            format!("/api/read?table={p}"),
            format!("/api/read?table=users&{p}=eq.1"),
            format!("/api/read?table=users&id=eq.{p}"),
            format!("/api/read?table=users&id={p}"),
            format!("/api/read?table=users&user_id=eq.user_1&limit={p}"),
            format!("/api/read?table=users&user_id=eq.user_1&offset={p}"),
        ];
        // A text is a key like any other: beside a row of another shard it must be refused.
        let as_value = http.get(&format!("/api/read?table=users&user_id=eq.{p}")).await;
        assert_eq!(as_value.status, if payload.contains('\0') { 400 } else { 200 }, "{}", as_value.text());
        let payload_shard = as_value.json()["shards"][0].as_str().unwrap_or_default().to_owned();
        let (other, _) = users.iter().find(|(_, shard)| *shard != payload_shard).unwrap();
        urls.push(format!("/api/read?table=users&user_id=eq.{other}&shardKey={p}"));
        for url in &urls {
            refused(&http, url, http.get(url).await).await;
            cases += 1;
        }
        let row = |id: &str| json!({"user_id": id, "name": "n", "email": "e"});
        let mut odd_column = row("user_1");
        odd_column[*payload] = Value::from(1);
        for body in [
            json!({"table": payload, "data": row("user_1")}),
            json!({"table": "users", "data": odd_column}),
            json!({"table": "users", "data": row(other), "shardKey": payload}),
            json!({"table": "users", "data": {"user_id": other, "id": payload, "name": "n", "email": "e"}}),
        ] {
            refused(&http, &body.to_string(), http.post("/api/write", &body).await).await;
            let bulk =
                json!({"table": body["table"], "records": [body["data"]], "shardKey": body["shardKey"]});
            refused(&http, &bulk.to_string(), http.post("/api/bulk-write", &bulk).await).await;
            cases += 2;
        }
    }
    assert!(cases > 600, "{cases}");
    for shard in &front.herd.shards {
        assert_eq!(shard.primary.sql("select i from canary").await, ["1"]);
        let log = shard.primary.log();
        // Bound values are logged as details of a statement, which is where they belong.
        let told = |line: &&str| line.contains("LOG:  execute") || line.contains("LOG:  statement");
        let by_app: Vec<_> = log.lines().filter(told).filter(|line| line.contains("app@app")).collect();
        for line in &by_app {
            assert!(!line.contains("canary") && !line.contains("pg_sleep"), "{line}");
        }
    }
    let all: String = front.herd.shards.iter().map(|shard| shard.primary.log()).collect();
    assert!(all.contains("LOG:  execute"), "statements are logged");
    let users = front.herd.primary(0).sql("select count(*) from users").await;
    let mut rows: usize = users[0].parse().unwrap();
    for shard in &front.herd.shards[1..] {
        rows += shard.primary.sql("select count(*) from users").await[0].parse::<usize>().unwrap();
    }
    assert_eq!(rows, 1, "nothing was stored");
}
