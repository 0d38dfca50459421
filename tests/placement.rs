//! Where rows and reads go: the shard that PostgreSQL's own hash names, replicas for reads, primaries for writes,
//! and what hints and session settings change about that.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::collections::BTreeMap;

use common::{Changes, Front, Herd, PATIENCE, Pg, eventually, failure, rows};
use tokio_postgres::Client;

/// The fixture's map in slots: A, B on shard1, C on shard3, D on shard2, E on shard3.
fn partition_of(slot: u16) -> (&'static str, usize) {
    match slot {
        0..4915 => ("A", 0),
        4915..8192 => ("B", 0),
        8192..10649 => ("C", 2),
        10649..14745 => ("D", 1),
        14745.. => ("E", 2),
    }
}

fn insert(user: &str) -> String {
    format!("insert into users (user_id, name, email) values ('{}', 'n', 'e')", user.replace('\'', "''"))
}

const PORT: &str = "select inet_server_port()";

/// The port of the server that answers a read of this user.
async fn port_of_read(client: &Client, user: &str) -> u16 {
    let sql = format!(
        "{PORT} from (select 1) x left join users on user_id = '{user}' where user_id = '{user}' limit 1"
    );
    rows(client, &sql).await.remove(0).parse().unwrap()
}

async fn pause_replay(replica: &Pg) {
    replica.sql("select pg_wal_replay_pause()").await;
    eventually("replay is paused", PATIENCE, async || {
        (replica.sql("select pg_get_wal_replay_pause_state()").await == ["paused"]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_where_postgresqls_own_hash_says() {
    let front = Front::demo(0, Changes::default()).await;
    let client = front.connect().await;
    let mut users: Vec<String> = (0..60).map(|n| format!("user_{n}")).collect();
    users.extend(
        ["", " ", "it's", "x\\y", "日本", "Ünï", "user_1 ", "USER_1", "a", "\u{1F418}"].map(str::to_owned),
    );
    for user in &users {
        client.batch_execute(&insert(user)).await.unwrap();
    }
    let prepared =
        client.prepare("insert into orders (user_id, order_id, amount) values ($1, $2, 1)").await.unwrap();
    for user in &users {
        client.execute(&prepared, &[user, user]).await.unwrap();
    }
    let mut found = BTreeMap::new();
    for shard in 0..3 {
        let pg = front.herd.primary(shard).connect().await;
        let sql = "select user_id, partition_key, (hashtextextended(user_id, 0) & 16383)::int from users";
        for row in pg.query(sql, &[]).await.unwrap() {
            let (user, partition, slot): (String, String, i32) = (row.get(0), row.get(1), row.get(2));
            let expected = partition_of(u16::try_from(slot).unwrap());
            assert_eq!((partition.as_str(), shard), expected, "{user:?} in slot {slot}");
            assert!(found.insert(user, shard).is_none());
        }
        for row in pg.query("select user_id from orders", &[]).await.unwrap() {
            let user: String = row.get(0);
            assert_eq!(found.get(&user), Some(&shard), "the order of {user:?} is beside its user");
        }
    }
    assert_eq!(found.len(), users.len());
    assert_eq!(rows(&client, "select user_id from orders").await.len(), users.len());
    for user in &users {
        let sql = "select user_id from users where user_id = $1";
        assert_eq!(client.query_one(sql, &[user]).await.unwrap().get::<_, &str>(0), user);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_are_a_replicas_and_writes_a_primarys() {
    let front = Front::demo(1, Changes::default()).await;
    let writer = front.connect().await;
    let users = ["user_0", "user_4", "user_3"]; // on shard1, shard2, shard3
    for user in users {
        writer.batch_execute(&insert(user)).await.unwrap();
    }
    front.herd.caught_up().await;
    let client = front.connect().await;
    for (shard, user) in front.herd.shards.iter().zip(users) {
        let (primary, replica) = (shard.primary.port, shard.replicas[0].port);
        assert_eq!(port_of_read(&client, user).await, replica, "{user}");
        let sql = format!("{PORT} from users where user_id = $1");
        let port: i32 = client.query_one(&sql, &[&user]).await.unwrap().get(0);
        assert_eq!(u16::try_from(port).unwrap(), replica, "{user} over the extended protocol");

        let locked = format!("{PORT} from users where user_id = '{user}' for update");
        assert_eq!(rows(&client, &locked).await, [primary.to_string()]);
        let hinted = format!("/* pgherd: role=primary */ {PORT} from users where user_id = '{user}'");
        assert_eq!(rows(&client, &hinted).await, [primary.to_string()]);
        for (begin, port) in [("begin", primary), ("begin read only", replica), ("begin read write", primary)]
        {
            client.batch_execute(begin).await.unwrap();
            assert_eq!(port_of_read(&client, user).await, port, "{begin}");
            client.batch_execute("commit").await.unwrap();
        }
        let update =
            format!("update users set name = 'x' where user_id = '{user}' returning inet_server_port()");
        let own = front.connect().await;
        assert_eq!(rows(&own, &update).await, [primary.to_string()]);
    }
}

/// A view is read where its functions may run: those that are volatile on the primary alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_volatile_code_when_it_is_read_is_read_at_the_primary() {
    let herd = Herd::start(1, 1).await;
    let direct = herd.primary(0).connect_app().await;
    let objects = "create sequence s; create table t (i int); insert into t values (1);
         create function writes() returns int language sql as 'insert into t values (2) returning i';
         create function reads() returns int language sql stable as 'select inet_server_port()';
         create view drawn as select nextval('s') > 0 as v, inet_server_port() as port;
         create view \"Written\" as select writes() as v, inet_server_port() as port;
         create view over_it as select v, port from \"Written\";
         create view harmless as select random() < 2 as v, reads() as port;
         create materialized view kept as select nextval('s') as v;
         create view over_kept as select v, inet_server_port() as port from kept;
         create table guarded (i int); insert into guarded values (1);
         alter table guarded enable row level security, force row level security;
         create policy p on guarded using (nextval('s') > 0)";
    direct.batch_execute(objects).await.unwrap();
    let (primary, replica) = (herd.primary(0).port, herd.shards[0].replicas[0].port);
    let front = Front::over(herd, false, Changes::default()).await;
    let client = front.connect().await;
    for (sql, port) in [
        ("select port from drawn", primary),
        ("select port from \"Written\" where v > 0", primary),
        ("with x as (select * from over_it) select port from x", primary),
        ("select max(port) from (select 1 union select port from drawn) x(port)", primary),
        ("select inet_server_port() from guarded", primary),
        ("select port from harmless", replica),
        ("select port from over_kept", replica),
        ("select inet_server_port() from t limit 1", replica),
    ] {
        // Where it was written just now a session reads at the primary anyway.
        let client = if port == replica { &front.connect().await } else { &client };
        assert_eq!(rows(client, sql).await, [port.to_string()], "{sql}");
    }
    // What is made later is known as well.
    client.batch_execute("create view later as select port, writes() from harmless").await.unwrap();
    assert_eq!(rows(&front.connect().await, "select port from later").await, [primary.to_string()]);
}

/// Of one who is alone in a database the catalogs are read when a statement needs them, not after each DDL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_defines_who_is_alone_counts_from_the_next_statement_on() {
    let changes = Changes {
        database: "read_consistency = \"eventual\"",
        pool: "size = 1\nmin_idle = 0",
        ..Changes::default()
    };
    let front = Front::plain(1, changes).await;
    let (primary, replica) = (front.herd.primary(0).port, front.herd.shards[0].replicas[0].port);
    let client = front.connect().await;
    client.batch_execute("create table t (i int)").await.unwrap();
    let function = |kind: &str| {
        let insert = if kind == "volatile" { "insert into t values (1); " } else { "" };
        format!(
            "create or replace function f() returns int {kind} language sql as '{insert}select inet_server_port()'"
        )
    };
    let (at_replica, at_primary) = ([replica.to_string()], [primary.to_string()]);
    for _ in 0..3 {
        client.batch_execute(&function("stable")).await.unwrap();
        eventually("the replica has it", PATIENCE, async || {
            let answer = client.simple_query("select f()").await;
            (answer.is_ok() && rows(&client, "select f()").await == at_replica).then_some(())
        })
        .await;
        let prepared = client.prepare("select f()").await.unwrap();
        client.batch_execute(&function("volatile")).await.unwrap();
        assert_eq!(client.query_one(&prepared, &[]).await.unwrap().get::<_, i32>(0), i32::from(primary));
        client.batch_execute(&function("stable")).await.unwrap();
        client.batch_execute(&function("volatile")).await.unwrap();
        client.batch_execute("begin; create table x (i int); create index on x (i); rollback").await.unwrap();
        assert_eq!(rows(&client, "select f()").await, at_primary);
    }
    // Nobody else is served by what is out of date.
    let setting = "create or replace function sets() returns text volatile language sql as
         'select set_config(''my.own'', ''mine'', false)'";
    client.batch_execute(setting).await.unwrap();
    let other = front.connect().await;
    assert_eq!(rows(&other, "select sets()").await, ["mine"]);
    assert_eq!(rows(&client, "select coalesce(current_setting('my.own', true), '')").await, [""]);
    assert_eq!(rows(&other, "select current_setting('my.own')").await, ["mine"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_reads_its_own_writes_while_replicas_lag_and_replicas_when_they_do_not() {
    let front = Front::demo(1, Changes::default()).await;
    let (user, shard) = ("user_4", &front.herd.shards[1]);
    let (primary, replica) = (shard.primary.port, shard.replicas[0].port);
    let setup = front.connect().await;
    setup.batch_execute(&insert(user)).await.unwrap();
    setup.batch_execute(&insert("user_0")).await.unwrap();
    front.herd.caught_up().await;
    pause_replay(&shard.replicas[0]).await;

    let [writer, reader, eventual, strict] =
        [front.connect().await, front.connect().await, front.connect().await, front.connect().await];
    let name = format!("select name, inet_server_port() from users where user_id = '{user}'");
    eventual.batch_execute("set pgherd.read_consistency = 'eventual'").await.unwrap();
    strict.batch_execute("set pgherd.read_consistency = 'primary'").await.unwrap();
    let update = |name: &str| format!("update users set name = '{name}' where user_id = '{user}'");
    for (n, client) in [&writer, &eventual, &strict].into_iter().enumerate() {
        client.batch_execute(&update(&format!("new{n}"))).await.unwrap();
    }
    for _ in 0..20 {
        assert_eq!(rows(&writer, &name).await, [format!("new2|{primary}")], "its own write and later ones");
        assert_eq!(rows(&strict, &name).await, [format!("new2|{primary}")]);
        assert_eq!(rows(&eventual, &name).await, [format!("n|{replica}")], "it has asked for this");
        assert_eq!(
            rows(&reader, &name).await,
            [format!("n|{replica}")],
            "who has written nothing reads the replica"
        );
        let other = front.herd.shards[0].replicas[0].port;
        assert_eq!(port_of_read(&writer, "user_0").await, other, "it has not written on that shard");
        assert_eq!(rows(&writer, "select name from users").await.len(), 2);
    }
    // A transaction's write counts from its COMMIT, and one of several statements too.
    reader.batch_execute("begin").await.unwrap();
    reader.batch_execute(&update("in txn")).await.unwrap();
    reader.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&reader, &name).await, [format!("in txn|{primary}")]);
    let fresh = front.connect().await;
    assert_eq!(rows(&fresh, &name).await, [format!("n|{replica}")]);
    fresh.execute("update users set name = $1 where user_id = $2", &[&"prepared", &user]).await.unwrap();
    assert_eq!(rows(&fresh, &name).await, [format!("prepared|{primary}")]);

    shard.replicas[0].sql("select pg_wal_replay_resume()").await;
    for client in [&writer, &reader, &fresh] {
        eventually("the replica is read again", PATIENCE, async || {
            let found = rows(client, &name).await;
            assert!(found[0].starts_with("prepared|"), "never an older row: {found:?}");
            (found[0] == format!("prepared|{replica}")).then_some(())
        })
        .await;
    }
    assert_eq!(rows(&strict, &name).await, [format!("prepared|{primary}")]);
    strict.batch_execute("reset pgherd.read_consistency").await.unwrap();
    eventually("the default is back", PATIENCE, async || {
        (rows(&strict, &name).await == [format!("prepared|{replica}")]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_and_settings_choose_a_shard() {
    let front = Front::demo(0, Changes::default()).await;
    let client = front.connect().await;
    let ports: Vec<String> = front.herd.shards.iter().map(|s| s.primary.port.to_string()).collect();
    for (sql, shard) in [
        ("/* pgherd: shard=shard1 */ select inet_server_port()", 0),
        ("/* pgherd: shard=shard2 */ select inet_server_port()", 1),
        ("/* pgherd: shard='shard3' */ select inet_server_port()", 2),
        ("/* pgherd: key=user_4 */ select inet_server_port()", 1),
        ("/* pgherd: key='user_3', role=primary */ select inet_server_port()", 2),
        ("/* pgherd: shard=shard2 */ select inet_server_port() from (select count(*) from users) x", 1),
    ] {
        assert_eq!(rows(&client, sql).await, [ports[shard].as_str()], "{sql}");
        let port: i32 = client.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(port.to_string(), ports[shard], "{sql}");
    }
    for (set, shard) in [
        ("set pgherd.shard = 'shard2'", 1),
        ("set pgherd.shard to shard3", 2),
        ("reset pgherd.shard", usize::MAX),
        ("set pgherd.key = 'user_4'", 1),
        ("set pgherd.key = 'user_3'", 2),
    ] {
        client.batch_execute(set).await.unwrap();
        if let Some(port) = ports.get(shard) {
            assert_eq!(rows(&client, PORT).await, [port.as_str()], "{set}");
        }
    }
    client.batch_execute("begin").await.unwrap();
    client.batch_execute("set local pgherd.key = 'user_4'").await.unwrap();
    assert_eq!(rows(&client, PORT).await, [ports[1].as_str()]);
    client.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&client, PORT).await, [ports[2].as_str()], "LOCAL ends with the transaction");
    for sql in ["begin", "set pgherd.key = 'user_4'", "rollback"] {
        client.batch_execute(sql).await.unwrap();
    }
    assert_eq!(rows(&client, PORT).await, [ports[2].as_str()], "a SET that was rolled back never was");
    client.batch_execute("discard all").await.unwrap();
    assert_eq!(rows(&client, "show pgherd.key").await, [""]);

    let other = front.connect().await;
    client.batch_execute("set pgherd.shard = 'shard2'").await.unwrap();
    assert_eq!(rows(&other, "show pgherd.shard").await, [""], "one client's setting is not another's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_hints_and_settings_are_errors_with_a_hint() {
    let front = Front::demo(0, Changes::default()).await;
    let client = front.connect().await;
    for sql in [
        "/* pgherd: shard=shard9 */ select 1",
        "/* pgherd: role=master */ select 1",
        "/* pgherd: shrad=shard1 */ select 1",
        "/* pgherd: shard=shard1 shard=shard2 */ select 1",
        "/* pgherd: shard=shard1 key=user_4 */ select 1",
        "/* pgherd: shard='shard1 */ select 1",
        "/* pgherd: shard */ select 1",
        "set pgherd.shard = 'shard9'",
        "set pgherd.role = 'master'",
        "set pgherd.read_consistency = 'sometimes'",
        "set pgherd.nothing = 1",
    ] {
        let error = client.simple_query(sql).await.unwrap_err();
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}"));
        assert!(matches!(error.code().code(), "22023" | "42704"), "{sql}: {error:?}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{sql}: {error:?}");
        let error = client.query(sql, &[]).await.unwrap_err();
        assert!(error.as_db_error().is_some_and(|e| e.hint().is_some()), "extended {sql}: {error:?}");
        assert_eq!(rows(&client, "select 1").await, ["1"], "after {sql}");
    }
    let (code, _) =
        failure(&client, "/* pgherd: role=replica */ delete from users where user_id = 'user_1'").await;
    assert_eq!(code, "25006");
}
