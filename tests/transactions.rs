//! Transactions through the proxy: held back, on one shard, refused on a second, rolled back as a whole.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, failure, rows};

/// Users of the demo's map whose shard is known: `hashtextextended(user_id, 0) & 16383` decides.
async fn users_of_all_shards(front: &Front) -> [String; 3] {
    let pg = front.herd.primary(0);
    let mut found: [Option<String>; 3] = Default::default();
    for n in 0..100 {
        let user = format!("user_{n}");
        let slot = pg.sql(&format!("select hashtextextended('{user}', 0) & 16383")).await.remove(0);
        let shard = match slot.parse::<u16>().unwrap() {
            0..8192 => 0,
            8192..10649 => 2,
            10649..14745 => 1,
            _ => 2,
        };
        found[shard].get_or_insert(user);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.map(|user| user.expect("a hundred users fall on all shards"))
}

fn insert(user: &str) -> String {
    format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e')")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_stays_on_the_shard_of_its_first_key() {
    let front = Front::demo(0, Changes::default()).await;
    let [one, two, _] = users_of_all_shards(&front).await;
    let client = front.connect().await;
    client.batch_execute("begin").await.unwrap();
    assert_eq!(rows(&client, "select 1").await, ["1"]);
    client.batch_execute(&insert(&two)).await.unwrap();
    let (code, message) = failure(&client, &insert(&one)).await;
    assert_eq!(code, "0A000");
    assert!(message.contains("shard2") && message.contains("shard1"), "{message}");
    assert_eq!(failure(&client, "select 1").await.0, "25P02");
    client.batch_execute("commit").await.unwrap(); // answers ROLLBACK
    assert!(rows(&client, "select user_id from users").await.is_empty());

    client.batch_execute("begin").await.unwrap();
    client.batch_execute(&insert(&one)).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&client, "select user_id from users").await, [one.as_str()]);
    assert_eq!(front.herd.primary(0).sql("select user_id from users").await, [one.as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_transaction_set_before_it_moved_ends_with_it() {
    let front = Front::demo(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let (client, other) = (front.connect().await, front.connect().await);
    let before = rows(&other, "select current_setting('work_mem')").await;
    for user in users_of_all_shards(&front).await {
        let shown = format!(
            "select current_setting('work_mem') from (values (1)) v(i) left join users u on u.user_id = '{user}'"
        );
        for end in ["rollback", "rollback to s; commit", "release s; rollback"] {
            for sql in ["begin", "set local work_mem = '3MB'", "savepoint s", "set work_mem = '5MB'"] {
                client.batch_execute(sql).await.unwrap();
            }
            assert_eq!(rows(&client, &shown).await, ["5MB"], "{user} {end}");
            for sql in end.split("; ") {
                client.batch_execute(sql).await.unwrap();
            }
            assert_eq!(rows(&other, &shown).await, before, "another's, {user} {end}");
            assert_eq!(rows(&client, &shown).await, before, "{user} {end}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_that_is_one_shards_is_the_default_ones_or_refused() {
    let front = Front::demo(0, Changes::default()).await;
    let [one, two, _] = users_of_all_shards(&front).await;
    let client = front.connect().await;
    for user in [&one, &two] {
        client.batch_execute(&insert(user)).await.unwrap();
    }
    // The same lock is another one on another shard.
    for lock in ["pg_try_advisory_lock(1)", "pg_try_advisory_xact_lock(1)", "pg_advisory_unlock(1)"] {
        let sql = |user| format!("select {lock} from users where user_id = '{user}'");
        assert_eq!(rows(&client, &sql(&one)).await, ["t"], "{lock}");
        let (code, message) = failure(&client, &sql(&two)).await;
        assert_eq!(code, "0A000", "{lock}: {message}");
        assert_eq!(failure(&client, &format!("select {lock} from users")).await.0, "0A000", "{lock}");
    }
    // A temporary table lives on the default shard, and would hide the other there only.
    for sql in ["select 1 as user_id into temp users", "select 1 as i into pg_temp.\"orders\""] {
        assert_eq!(failure(&client, sql).await.0, "0A000", "{sql}");
    }
    client.batch_execute("select 1 as i into temp fine").await.unwrap();
    // A cursor is read where it is, whatever else is kept elsewhere.
    let declare = format!("declare c cursor with hold for select user_id from users where user_id = '{two}'");
    client.batch_execute(&declare).await.unwrap();
    assert_eq!(rows(&client, "select i from fine").await, ["1"]);
    assert_eq!(rows(&client, "fetch all from c").await, [two.as_str()]);
    client.batch_execute("close c").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_moves_to_the_shard_of_its_first_key_with_all_that_was_set_in_it() {
    let front = Front::demo(1, Changes::default()).await;
    for user in users_of_all_shards(&front).await {
        let client = front.connect().await;
        client.batch_execute("begin isolation level repeatable read").await.unwrap();
        client.batch_execute("set local work_mem = '3MB'").await.unwrap();
        assert_eq!(rows(&client, "select 1").await, ["1"]);
        assert!(!rows(&client, "select code from countries where code = 'DE'").await.is_empty());
        client.batch_execute("savepoint before").await.unwrap();
        client.batch_execute(&insert(&user)).await.unwrap();
        assert_eq!(rows(&client, "show work_mem").await, ["3MB"]);
        assert_eq!(rows(&client, "show transaction_isolation").await, ["repeatable read"]);
        client.batch_execute("rollback to before").await.unwrap();
        client.batch_execute(&insert(&user)).await.unwrap();
        client.batch_execute("commit").await.unwrap();
        assert_eq!(
            rows(&client, &format!("select user_id from users where user_id = '{user}'")).await,
            [user]
        );
        assert_ne!(rows(&client, "show work_mem").await, ["3MB"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_transaction_goes_to_a_replica_and_writes_nothing() {
    let front = Front::demo(1, Changes::default()).await;
    let [user, ..] = users_of_all_shards(&front).await;
    let client = front.connect().await;
    let port = format!("select inet_server_port() from (select 1) x where '{user}' = '{user}'");
    client.batch_execute("begin read only").await.unwrap();
    let read = rows(&client, &port).await;
    let replicas: Vec<String> =
        front.herd.shards.iter().flat_map(|s| s.replicas.iter().map(|r| r.port.to_string())).collect();
    assert!(replicas.contains(&read[0]), "{read:?} is none of {replicas:?}");
    client.batch_execute("rollback").await.unwrap();
    client.batch_execute("begin read only").await.unwrap();
    assert_eq!(failure(&client, &insert(&user)).await.0, "25006");
    client.batch_execute("rollback").await.unwrap();
    client.batch_execute("begin; select 1").await.unwrap();
    assert_eq!(failure(&client, "select 1/0").await.0, "22012");
    assert_eq!(failure(&client, "select 1").await.0, "25P02");
    assert_eq!(failure(&client, "select count(*) from users").await.0, "25P02");
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(rows(&client, "show transaction_read_only").await, ["off"]);
    assert_eq!(rows(&client, "select pg_is_in_recovery()").await, ["f"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_force_a_shard_and_wrong_ones_say_what_there_is() {
    let front = Front::demo(1, Changes::default()).await;
    let [one, two, three] = users_of_all_shards(&front).await;
    let client = front.connect().await;
    for user in [&one, &two, &three] {
        client.batch_execute(&insert(user)).await.unwrap();
    }
    let count = |hint: &str| format!("/* pgherd: {hint} */ select user_id from users order by user_id");
    assert_eq!(rows(&client, &count("shard=shard2")).await, [two.as_str()]);
    assert_eq!(rows(&client, &count(&format!("key={three}"))).await, [three.as_str()]);
    let (code, message) = failure(&client, &count("shard=shard9")).await;
    assert_eq!(code, "22023", "{message}");
    client.batch_execute("set pgherd.shard = 'shard1'").await.unwrap();
    assert_eq!(rows(&client, "select count(*) from users").await, ["1"]);
    assert_eq!(rows(&client, "show pgherd.shard").await, ["shard1"]);
    client.batch_execute("reset pgherd.shard").await.unwrap();
    assert_eq!(failure(&client, "select count(*) from users").await.0, "0A000");
    assert_eq!(failure(&client, "set pgherd.shard = 'nowhere'").await.0, "22023");
    let port = "/* pgherd: role=primary */ select inet_server_port()";
    let primaries: Vec<String> = front.herd.shards.iter().map(|s| s.primary.port.to_string()).collect();
    assert!(primaries.contains(&rows(&client, port).await[0]));
}
