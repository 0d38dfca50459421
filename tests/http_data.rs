//! Rows over HTTP on real shards: written, read and counted as over the wire.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Changes, Front, Http, PATIENCE, eventually, rows};
use http_body_util::{BodyExt as _, Full};
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use serde_json::{Value, json};

fn open() -> Changes {
    Changes { http: "user = \"admin\"", ..Changes::default() }
}

fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or_else(|| panic!("no {name} in {value}"))
}

async fn refused(http: &Http, path: &str, status: u16, code: &str) -> Value {
    let answer = http.get(path).await;
    assert_eq!(
        (answer.status, answer.json()["sqlstate"].as_str().unwrap()),
        (status, code),
        "{path}: {}",
        answer.text()
    );
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_is_stored_on_the_shard_of_its_key_and_given_back_as_it_is_stored() {
    let front = Front::demo(1, open()).await;
    let http = front.http();
    let row = json!({"user_id": "user_1", "name": "Ann", "email": "ann@example.com"});
    let answer = http.post("/api/write", &json!({"table": "users", "data": row})).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let written = answer.json();
    let (row, shard) = (field(&written, "row"), field(&written, "shard").as_str().unwrap());
    let number: usize = shard.strip_prefix("shard").unwrap().parse().unwrap();
    assert_eq!((&row["user_id"], &row["name"]), (&"user_1".into(), &"Ann".into()));
    assert!(row["id"].is_u64() && row["created_at"].as_str().unwrap().contains('T'), "{row}");
    for (i, at) in front.herd.shards.iter().enumerate() {
        let found = at.primary.sql("select user_id from users").await;
        assert_eq!(found.len(), usize::from(i == number - 1), "shard {}", i + 1);
    }
    front.herd.caught_up().await;
    for path in [
        "/api/read?table=users&user_id=eq.user_1",
        "/api/read?table=users&shardKey=user_1",
        "/api/read?table=users&where=user_id%20=%20'user_1'&limit=1&orderBy=created_at%20desc",
        "/api/read?table=public.users",
        "/api/read?table=users&limit=5",
    ] {
        let found = http.get_json(path).await;
        assert_eq!((&found["rows"][0], &found["count"]), (row, &json!(1)), "{path}");
    }
    let shards = |found: &Value| field(found, "shards").as_array().unwrap().len();
    assert_eq!(shards(&http.get_json("/api/read?table=users&user_id=eq.user_1").await), 1);
    assert_eq!(shards(&http.get_json("/api/read?table=users").await), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_go_through_unchanged_whatever_their_type() {
    let front = Front::plain(0, open()).await;
    front
        .connect()
        .await
        .batch_execute(
            "create type mood as enum ('happy', 'sad'); create table every (
               i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric, b boolean, t text, v varchar(5), c char(3),
               d date, ts timestamp, tz timestamptz, j json, jb jsonb, u uuid, by bytea, ia int[], ta text[], m mood,
               iv interval, ip inet, jba jsonb[], na numeric[])",
        )
        .await
        .unwrap();
    let text = r#"{"table": "every", "data": {"i2": -32768, "i8": 9223372036854775807, "f4": 1.5, "f8": "-Infinity",
        "n": 123456789012345678901234567890.123456789012345678901234567890, "b": true, "t": "a\"\\\n\u00e9\ud83d\ude00",
        "v": "abcde", "c": "ab", "d": "2026-01-31", "ts": "2026-01-31T12:00:00.000001", "tz": "2026-01-31T12:00:00+02:00",
        "j": {"b":1,  "a": [1.10, null]}, "jb": "plain", "u": "0b4c5a3e-0000-4000-8000-000000000000", "by": "\\x00ff",
        "ia": [1, null, 3], "ta": ["a,b", "c\"d\\", "", null, "NULL"], "m": "sad", "iv": "1 day 02:00:00",
        "ip": "10.0.0.1", "jba": [{"a": 1}], "na": [1.10, "NaN"]}}"#;
    let http = front.http();
    let request = http.request(Method::POST, "/api/write").header(CONTENT_TYPE, "application/json");
    let answer = http.send(request.body(Full::from(text)).unwrap()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let want = concat!(
        r#"{"row":{"i2":-32768,"i8":9223372036854775807,"f4":1.5,"f8":"-Infinity","#,
        r#""n":123456789012345678901234567890.123456789012345678901234567890,"b":true,"t":"a\"\\\né😀","#,
        r#""v":"abcde","c":"ab ","d":"2026-01-31","ts":"2026-01-31T12:00:00.000001","tz":"2026-01-31T10:00:00+00:00","#,
        r#""j":{"b":1,  "a": [1.10, null]},"jb":"plain","u":"0b4c5a3e-0000-4000-8000-000000000000","by":"\\x00ff","#,
        r#""ia":[1,null,3],"ta":["a,b","c\"d\\","",null,"NULL"],"m":"sad","iv":"1 day 02:00:00","ip":"10.0.0.1","#,
        r#""jba":[{"a": 1}],"na":[1.10,"NaN"]},"shard":"shard1"}"#
    );
    let zone = front.herd.primary(0).sql("show timezone").await.remove(0);
    assert!(matches!(zone.as_str(), "UTC" | "Etc/UTC" | "GMT"), "{zone}");
    assert_eq!(answer.text(), want);
    // What was read can be written as it is.
    let row = answer
        .text()
        .strip_prefix("{\"row\":")
        .unwrap()
        .strip_suffix(",\"shard\":\"shard1\"}")
        .unwrap()
        .to_owned();
    let request = http.request(Method::POST, "/api/write").header(CONTENT_TYPE, "application/json");
    let again = format!("{{\"table\":\"every\",\"data\":{row}}}");
    assert_eq!(http.send(request.body(Full::from(again)).unwrap()).await.text(), want);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_its_status_and_says_why() {
    let front = Front::demo(0, open()).await;
    let http = front.http();
    front
        .connect()
        .await
        .batch_execute("create table audit2 (id int primary key, n int check (n > 0))")
        .await
        .unwrap();
    let write = async |body: Value| {
        let answer = http.post("/api/write", &body).await;
        (answer.status, answer.json())
    };
    let user = |id: &str| json!({"user_id": id, "name": "n", "email": "e"});
    for (body, status, code) in [
        (json!({"table": "nosuch", "data": {}}), 404, "42P01"),
        (json!({"table": "users_id_seq", "data": {}}), 404, "42P01"),
        (json!({"table": "pg_catalog.pg_class", "data": {}}), 404, "42P01"),
        (json!({"table": "users", "data": {"nosuch": 1}}), 400, "42703"),
        (json!({"table": "users", "data": {"user_id": {"a": 1}}}), 400, "22P02"),
        (json!({"table": "users", "data": {"user_id": "u", "name": "n"}}), 409, "23502"),
        (json!({"table": "users", "data": {"name": "n", "email": "e"}}), 409, "23502"),
        (json!({"table": "audit2", "data": {"id": "one"}}), 400, "22P02"),
        (json!({"table": "audit2", "data": {"id": 1, "n": 0}}), 409, "23514"),
        (json!({"table": "countries", "data": {"code": "XX", "name": "x", "continent": "x"}}), 422, "0A000"),
        (json!({"table": "users"}), 400, "22P02"),
        (json!({"table": "users", "data": {}, "extra": 1}), 400, "22P02"),
        (json!([]), 400, "22P02"),
    ] {
        let (got, error) = write(body.clone()).await;
        assert_eq!((got, error["sqlstate"].as_str().unwrap()), (status, code), "{body}: {error}");
        assert_eq!(error["status"], status);
    }
    assert_eq!(write(json!({"table": "audit2", "data": {"id": 1}})).await.0, 201);
    let (status, error) = write(json!({"table": "audit2", "data": {"id": 1}})).await;
    assert_eq!(
        (status, &error["constraint"], &error["table"]),
        (409, &"audit2_pkey".into(), &"audit2".into()),
        "{error}"
    );

    // A key that is sent must be the row's: find two users on different shards.
    let (_, a) = write(json!({"table": "users", "data": user("user_1")})).await;
    let mut other = 2;
    while write(json!({"table": "users", "data": user(&format!("user_{other}"))})).await.1["shard"]
        == a["shard"]
    {
        other += 1;
    }
    let other = format!("user_{other}");
    let (status, error) = write(json!({"table": "users", "data": user("user_1"), "shardKey": other})).await;
    assert_eq!((status, error["sqlstate"].as_str().unwrap()), (409, "22023"), "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains(&other) && message.matches("shard").count() >= 3, "{message}");
    assert_eq!(write(json!({"table": "users", "data": user("user_1"), "shardKey": "user_1"})).await.0, 201);
    let request =
        http.request(Method::POST, "/api/write?shardKey=user_1").header(CONTENT_TYPE, "application/json");
    let body = json!({"table": "users", "data": user("user_1")}).to_string();
    let answer = http.send(request.header("x-shard-key", &other).body(Full::from(body)).unwrap()).await;
    assert_eq!(answer.status, 409, "the header comes first: {}", answer.text());

    for (path, status, code) in [
        ("/api/read", 400, "22023"),
        ("/api/read?table=nosuch", 404, "42P01"),
        ("/api/read?table=users&nosuch=eq.1", 400, "42703"),
        ("/api/read?table=users&id=eq.x", 400, "22P02"),
        ("/api/read?table=users&id=1", 400, "42601"),
        ("/api/read?table=users&limit=-1", 400, "22023"),
        ("/api/read?table=users&limit=1&limit=2", 400, "22023"),
        ("/api/read?table=users&limit=100000", 400, "22023"),
        ("/api/read?table=users&where=pg_sleep(1)%20is%20null", 400, "42601"),
        ("/api/read?table=users&where=nosuch=1", 400, "42703"),
        ("/api/read?table=users&where=name", 400, "42804"),
        ("/api/read?table=users&orderBy=1", 400, "42601"),
        ("/api/read?table=users&orderBy=name", 422, "0A000"),
    ] {
        let error = refused(&http, path, status, code).await;
        assert!(status != 422 || error["hint"].is_string(), "{error}");
    }
    refused(&http, &format!("/api/read?table=users&user_id=eq.user_1&shardKey={other}"), 409, "22023").await;
    assert_eq!(
        http.get_json("/api/read?table=users&orderBy=name&shardKey=user_1").await["shards"][0],
        a["shard"]
    );
    let request = http.request(Method::POST, "/api/write").header(CONTENT_TYPE, "text/plain");
    assert_eq!(http.send(request.body(Full::from("{}")).unwrap()).await.status, 415);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_over_all_shards_is_exact_and_filters_are_as_in_sql() {
    let front = Front::demo(1, open()).await;
    let http = front.http();
    let app = front.connect().await;
    for i in 0..30 {
        let sql = format!("insert into users (user_id, name, email) values ('u{i}', 'n{}', 'e{i}')", i % 3);
        app.batch_execute(&sql).await.unwrap();
    }
    front.herd.caught_up().await;
    for (query, count) in [
        ("", 30),
        ("&limit=7", 7),
        ("&limit=0", 0),
        ("&limit=30", 30),
        ("&limit=100", 30),
        ("&name=eq.n1", 10),
        ("&name=neq.n1", 20),
        ("&name=not.eq.n1", 20),
        ("&name=in.(n1,n2)", 20),
        ("&name=not.in.(n1,n2)", 10),
        ("&name=gte.n1&name=lt.n2", 10),
        ("&email=like.e1%25", 11),
        ("&email=ilike.E1%25&limit=3", 3),
        ("&created_at=is.null", 0),
        ("&created_at=not.is.null", 30),
        ("&user_id=in.(u1,u2,u3)", 3),
        ("&where=name%20=%20'n1'%20or%20name%20=%20'n2'", 20),
        ("&where=name%20in%20('n1')%20and%20not%20(user_id%20=%20'u1')", 9),
        ("&where=id%20*%202%20-%201%20%3E%200&name=eq.n1", 10),
    ] {
        let found = http.get_json(&format!("/api/read?table=users{query}")).await;
        assert_eq!(
            (&found["count"], found["rows"].as_array().unwrap().len()),
            (&json!(count), count),
            "{query}"
        );
    }
    let reference = http.get_json("/api/read?table=countries&orderBy=code&limit=2&offset=1").await;
    assert_eq!((&reference["rows"][0]["code"], &reference["shards"]), (&"AU".into(), &json!([])));
    // Reads went to replicas.
    let admin = front.admin().await;
    let roles = rows(&admin, "select distinct role from pgherd.latency where class = 'select'").await;
    assert!(roles.contains(&"replica".to_owned()), "{roles:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_sessions_of_the_proxy_and_are_kept_for_the_next() {
    let front = Front::plain(1, open()).await;
    let http = front.http();
    front.connect().await.batch_execute("create table t (i int)").await.unwrap();
    for _ in 0..20 {
        assert_eq!(http.post("/api/write", &json!({"table": "t", "data": {"i": 1}})).await.status, 201);
    }
    let admin = front.admin().await;
    let sessions = rows(
        &admin,
        "select application_name, user_name from pgherd.clients where application_name = 'http'",
    )
    .await;
    assert_eq!(sessions, ["http|admin"], "one session was enough");
    let counted = rows(&admin, "select sum(count) from pgherd.latency where class = 'insert'").await;
    assert!(counted[0].parse::<u64>().unwrap() >= 20, "{counted:?}");
    assert_eq!(http.post("/api/write", &json!({"table": "t", "data": {"i": "x"}})).await.status, 400);
    let errors = rows(&admin, "select count(*) from pgherd.errors where sqlstate = '22P02'").await;
    assert_eq!(errors, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_takes_too_long_is_cancelled_and_its_session_lives_on() {
    let changes = Changes { http: "user = \"admin\"\ntimeout_ms = 300\nmax_sessions = 1", ..open() };
    let front = Front::plain(0, changes).await;
    let http = front.http();
    let app = front.connect().await;
    app.batch_execute(
        "create table t (i int); create function slow() returns trigger language plpgsql as
           $$begin perform pg_sleep(60); return new; end$$;
         create table s (i int); create trigger slow before insert on s for each row execute function slow()",
    )
    .await
    .unwrap();
    let answer = http.post("/api/write", &json!({"table": "s", "data": {"i": 1}})).await;
    assert_eq!((answer.status, &answer.json()["sqlstate"]), (504, &"57014".into()), "{}", answer.text());
    assert_eq!(http.post("/api/write", &json!({"table": "t", "data": {"i": 1}})).await.status, 201);
    // A client that goes away has its statement cancelled as well.
    let request = http.request(Method::POST, "/api/write").header(CONTENT_TYPE, "application/json");
    let body = Full::from(json!({"table": "s", "data": {"i": 1}}).to_string());
    let gone =
        tokio::time::timeout(std::time::Duration::from_millis(100), http.open(request.body(body).unwrap()));
    assert!(gone.await.is_err());
    eventually("its statement is cancelled", PATIENCE, async || {
        let running = "select count(*) from pg_stat_activity where state = 'active' and query like 'INSERT%'";
        (front.herd.primary(0).sql(running).await == ["0"]).then_some(())
    })
    .await;
    assert_eq!(front.herd.primary(0).sql("select count(*) from s").await, ["0"]);
    eventually("the session is free again", PATIENCE, async || {
        (http.post("/api/write", &json!({"table": "t", "data": {"i": 2}})).await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_streamed_as_they_are_read_and_no_faster() {
    let changes = Changes { http: "user = \"admin\"\nmax_rows = 1000\ntimeout_ms = 2000", ..open() };
    let front = Front::plain(0, changes).await;
    let http = front.http();
    let app = front.connect().await;
    app.batch_execute(
        "create table big as select i, repeat('x', 1000) as filler from generate_series(1, 100000) i;
         alter table big add primary key (i)",
    )
    .await
    .unwrap();
    refused(&http, "/api/read?table=big", 413, "54000").await;
    assert_eq!(http.get_json("/api/read?table=big&limit=1000").await["count"], 1000);
    let lines = |path: &str| http.request(Method::GET, path).header(ACCEPT, "application/x-ndjson");
    let answer = http.send(lines("/api/read?table=big&orderBy=i").body(Full::default()).unwrap()).await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = answer.text();
    assert_eq!(text.lines().count(), 100_000);
    for (i, line) in text.lines().enumerate().step_by(9973) {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["i"], i + 1);
    }
    let few = http.send(lines("/api/read?table=big&orderBy=i&limit=2").body(Full::default()).unwrap()).await;
    assert_eq!(few.text().lines().count(), 2);
    let wrong = http.send(lines("/api/read?table=big&i=eq.x").body(Full::default()).unwrap()).await;
    assert_eq!(wrong.status, 400, "an error before the first row is an answer of its own");

    // A reader that stops: 100 MB are not piled up here, and after the timeout its statement ends.
    let mut response =
        http.open(lines("/api/read?table=big").body(Full::<bytes::Bytes>::default()).unwrap()).await;
    assert!(response.frame().await.unwrap().is_ok());
    let admin = front.admin().await;
    let active = "select count(*) from pgherd.clients where application_name = 'http' and state = 'active'";
    assert_eq!(rows(&admin, active).await, ["1"]);
    eventually("the reader is given up", PATIENCE, async || {
        (rows(&admin, active).await == ["0"]).then_some(())
    })
    .await;
}

/// Users of one shard and, apart from them, of another.
async fn users_of_two_shards(http: &Http) -> (Vec<String>, Vec<String>) {
    let mut by_shard: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    for i in 0..40 {
        let id = format!("of_{i}");
        let found = http.get_json(&format!("/api/read?table=users&user_id=eq.{id}")).await;
        by_shard.entry(found["shards"][0].as_str().unwrap().to_owned()).or_default().push(id);
    }
    let mut shards = by_shard.into_values();
    (shards.next().unwrap(), shards.next().unwrap())
}

fn user(id: &str) -> Value {
    json!({"user_id": id, "name": id, "email": "e"})
}

async fn stored(front: &Front, table: &str) -> usize {
    let mut rows = 0;
    for shard in &front.herd.shards {
        let count = shard.primary.sql(&format!("select count(*) from {table}")).await;
        rows += count[0].parse::<usize>().unwrap();
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_write_stores_all_of_its_rows_or_none() {
    let front = Front::demo(0, open()).await;
    let http = front.http();
    let (one, two) = users_of_two_shards(&http).await;
    let records: Vec<Value> = one.iter().map(|id| user(id)).collect();
    let answer = http.post("/api/bulk-write", &json!({"table": "users", "records": records})).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let shards = &answer.json()["shards"];
    assert_eq!((&answer.json()["rows"], &shards[0]["rows"]), (&json!(one.len()), &json!(one.len())));
    assert_eq!(stored(&front, "users").await, one.len());

    let mixed = json!({"table": "users", "records": [user(&one[0]), user(&two[0]), user(&one[1])]});
    let answer = http.post("/api/bulk-write", &mixed).await;
    assert_eq!((answer.status, &answer.json()["sqlstate"]), (422, &"0A000".into()), "{}", answer.text());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("record 0: shard") && detail.contains("record 1: shard"), "{detail}");

    let mut bad = user(&one[1]);
    bad["name"] = Value::Null;
    let answer =
        http.post("/api/bulk-write", &json!({"table": "users", "records": [user(&one[0]), bad]})).await;
    assert_eq!((answer.status, &answer.json()["column"]), (409, &"name".into()), "{}", answer.text());
    let answer = http
        .post(
            "/api/bulk-write",
            &json!({"table": "users", "records": [user(&one[0]), {"user_id": 1, "nosuch": 2}]}),
        )
        .await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().unwrap().starts_with("record 1: "), "{}", answer.text());
    let wrong_key = json!({"table": "users", "records": [user(&one[0])], "shardKey": two[0]});
    assert_eq!(http.post("/api/bulk-write", &wrong_key).await.status, 409);
    assert_eq!(stored(&front, "users").await, one.len(), "nothing of all that");
    let empty = http.post("/api/bulk-write", &json!({"table": "users", "records": []})).await;
    assert_eq!((empty.status, empty.json()), (201, json!({"rows": 0, "shards": []})));
}

async fn lines(http: &Http, path: &str, text: String) -> common::Answer {
    let request = http.request(Method::POST, path).header(CONTENT_TYPE, "application/x-ndjson");
    http.send(request.body(Full::from(text)).unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_stored_in_batches_of_one_transaction() {
    let front = Front::plain(0, Changes { http: "user = \"admin\"\nmax_rows = 10", ..open() }).await;
    let http = front.http();
    front
        .connect()
        .await
        .batch_execute("create table t (i int primary key, s text default 'd')")
        .await
        .unwrap();
    let text = |n: usize| -> String { (0..n).map(|i| format!("{{\"i\": {i}}}\n")).collect() };
    let answer =
        lines(&http, "/api/bulk-write?table=t", text(5000) + "\n" + "{\"i\": 5000, \"s\": \"last\"}").await;
    assert_eq!((answer.status, &answer.json()["rows"]), (201, &5001.into()), "{}", answer.text());
    assert_eq!(front.herd.primary(0).sql("select count(*) from t where s = 'd'").await, ["5000"]);
    front.herd.sql("truncate t").await;
    for (text, status, about) in [
        (text(4000) + "{\"i\": 3}", 409, ""),
        (text(4000) + "{\"i\": \"x\"}", 400, ""),
        (text(4000) + "{\"i\": ", 400, "line 4001: "),
        (text(4000) + "{\"nosuch\": 1}\n" + &text(1), 400, "line 4001: "),
    ] {
        let answer = lines(&http, "/api/bulk-write?table=t", text).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.json()["message"].as_str().unwrap().starts_with(about), "{}", answer.text());
        assert_eq!(front.herd.primary(0).sql("select count(*) from t").await, ["0"]);
    }
    assert_eq!(lines(&http, "/api/bulk-write", text(1)).await.status, 400);
    let many: Vec<Value> = (0..11).map(|i| json!({"i": i})).collect();
    assert_eq!(http.post("/api/bulk-write", &json!({"table": "t", "records": many})).await.status, 413);
    let admin = front.admin().await;
    let stuck = "select count(*) from pgherd.clients where application_name = 'http' and state <> 'idle'";
    eventually("no transaction is left", PATIENCE, async || {
        (rows(&admin, stuck).await == ["0"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_allowed_each_shard_commits_by_itself_and_the_answer_says_so() {
    let front = Front::demo(0, Changes { http: "user = \"admin\"\nbulk_per_shard = true", ..open() }).await;
    let http = front.http();
    let (one, two) = users_of_two_shards(&http).await;
    let records: Vec<Value> = one.iter().chain(&two).map(|id| user(id)).collect();
    let answer = http.post("/api/bulk-write", &json!({"table": "users", "records": records})).await;
    assert_eq!(
        (answer.status, answer.json()["shards"].as_array().unwrap().len()),
        (201, 2),
        "{}",
        answer.text()
    );
    let text: String = records.iter().map(|record| format!("{record}\n")).collect();
    assert_eq!(lines(&http, "/api/bulk-write?table=users", text).await.status, 201);
    assert_eq!(stored(&front, "users").await, 2 * records.len());
    // The second shard refuses its row.
    let mut bad = user(&two[0]);
    bad["email"] = Value::Null;
    let body = json!({"table": "users", "records": [user(&one[0]), bad]});
    let answer = http.post("/api/bulk-write", &body).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.starts_with("Committed on shard") && detail.contains("Nothing is stored on shard"),
        "{detail}"
    );
    assert_eq!(stored(&front, "users").await, 2 * records.len() + 1);
}
