//! What needs a server of its own keeps one as long as it is needed, and not a transaction longer; nothing is left.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, Herd, PATIENCE, Raw, eventually, failure, rows};
use pgherd::wire::{DescribeTarget, FrontendWriter};
use tokio_postgres::Client;

fn pool(lines: &'static str) -> Changes {
    Changes { pool: lines, ..Changes::default() }
}

/// All causes of the one client that keeps a server; empty if none does.
async fn causes(admin: &Client) -> String {
    let found =
        rows(admin, "select pin from pgherd.clients where pin is not null and pinned_at is not null").await;
    assert!(found.len() < 2, "{found:?}");
    found.join("")
}

/// What keeps a server after these statements, told as soon as their end has been noted.
async fn after(front: &Front, admin: &Client, client: &Client, script: &[&str], want: &str) {
    for statement in script {
        // Some are to fail.
        drop(client.simple_query(statement).await);
    }
    // The server is asked after the client has its answer: the next statement comes after that.
    client.simple_query("select 1").await.unwrap();
    assert_eq!(causes(admin).await, want, "{script:?}");
    let kept = rows(admin, "select sum(pinned) from pgherd.pools").await;
    assert_eq!(kept, [if want.is_empty() { "0" } else { "1" }], "{script:?}");
    let _ = front;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_kept_until_its_cause_is_gone() {
    let front = Front::plain(0, pool("size = 3\nmin_idle = 0")).await;
    let (admin, client) = (front.admin().await, front.connect().await);
    client
        .batch_execute(
            "create table t (i int); insert into t values (1);
             create function makes() returns void language plpgsql as $$ begin create temp table m (i int); end $$;
             create function calls() returns void language sql as $$ select makes() $$;
             create function drops() returns void language plpgsql as $$ begin drop table m; end $$;
             create function locks() returns trigger language plpgsql as
               $$ begin perform pg_advisory_lock(9); return new; end $$;
             create table u (i int); create trigger locks before insert on u for each row execute function locks();
             create view locked as select pg_try_advisory_lock(8) as l;
             create table guarded (i int); insert into guarded values (1); alter table guarded enable row level security;
             alter table guarded force row level security; create policy p on guarded using (pg_try_advisory_lock(7));
             create operator @#@ (leftarg = int, rightarg = int, function = pg_advisory_lock)",
        )
        .await
        .unwrap();
    for (script, want) in [
        (&["create temp table x (i int)"][..], "temporary table"),
        (&["insert into x values (1)", "select * from x"], "temporary table"),
        (&["select pg_advisory_lock(1)"], "temporary table, advisory lock"),
        (&["drop table x"], "advisory lock"),
        (&["select pg_advisory_unlock(1)"], ""),
        (&["create temp table x (i int) on commit drop"], ""),
        (&["begin", "create temp table x (i int) on commit drop", "insert into x values (1)", "commit"], ""),
        (&["begin", "create temp table x (i int)", "rollback"], ""),
        (&["create temp table x (i int); select 1/0"], ""),
        (&["begin", "savepoint s", "create temp table x (i int)", "rollback to s", "commit"], ""),
        (&["begin; create temp table x (i int); commit"], "temporary table"),
        (&["discard temp"], ""),
        (&["select i into temp y from t"], "temporary table"),
        (&["drop table t, y cascade", "create table t (i int)"], ""),
        (&["create temp view v as select 1", "create temp sequence s"], "temporary table"),
        (&["drop view v"], "temporary table"),
        (&["drop sequence s"], ""),
        (&["select pg_try_advisory_lock(1), pg_try_advisory_lock(2)"], "advisory lock"),
        (&["select pg_advisory_unlock_all()"], ""),
        (&["select pg_advisory_lock(1), 1/(i-1) from generate_series(1, 1) i"], "advisory lock"),
        (&["select pg_advisory_unlock(1)"], ""),
        (&["begin", "select pg_advisory_xact_lock(1)", "commit"], ""),
        (&["declare c cursor with hold for select generate_series(1, 3)"], "cursor with hold"),
        (&["fetch c", "fetch c"], "cursor with hold"),
        (&["close c"], ""),
        (&["begin", "declare c cursor with hold for select 1", "rollback"], ""),
        (&["begin", "declare c cursor for select 1", "fetch c", "close c", "commit"], ""),
        // What no text shows: functions, code, triggers.
        (&["select makes()"], "temporary table"),
        (&["select drops()"], ""),
        (&["select calls()"], "temporary table"),
        (&["do $$ begin drop table m; end $$"], ""),
        (&["do $$ begin perform 1; end $$"], ""),
        (&["do $$ begin execute 'listen c'; end $$"], "listen"),
        (&["do $$ begin execute 'unlisten c'; end $$"], ""),
        (&["insert into u values (1)"], "advisory lock"),
        (&["select pg_advisory_unlock_all()", "select l from locked"], "advisory lock"),
        (&["select pg_advisory_unlock_all()", "select i from guarded"], "advisory lock"),
        (&["select pg_advisory_unlock_all()", "select 1 @#@ 2"], "advisory lock"),
        (&["create temp table x (i int)", "discard all"], ""),
    ] {
        after(&front, &admin, &client, script, want).await;
    }
    client.batch_execute("drop operator @#@ (int, int)").await.unwrap();
    for (script, want) in [
        (&["select setall(a, b) from (values ('1', false)) v(a, b)"][..], "set_config"),
        (&["discard all"], ""),
        (&["do $$ begin load 'plpgsql'; end $$"], "session state"),
        (&["discard all"], ""),
    ] {
        let make =
            "create aggregate setall(text, boolean) (sfunc = set_config, stype = text, initcond = 'a.b')";
        drop(client.simple_query(make).await);
        after(&front, &admin, &client, script, want).await;
    }
    // COPY fires triggers too.
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"copy u from stdin");
    raw.out.put_frame(b'd', b"1\n");
    raw.out.put_frame(b'c', b"");
    assert_eq!(raw.ask().await, "G COPY_1 /I");
    raw.out.put_query(b"select 1");
    raw.ask().await;
    assert_eq!(causes(&admin).await, "advisory lock");
    drop(raw);
    eventually("nothing is kept for a client that left", PATIENCE, async || {
        (rows(&admin, "select sum(in_use) from pgherd.pools").await == ["0"]).then_some(())
    })
    .await;
    let locks = "select count(*) from pg_locks where locktype = 'advisory'";
    assert_eq!(front.herd.primary(0).sql(locks).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_all_servers_can_be_kept() {
    let front = Front::plain(0, pool("size = 3\nmin_idle = 0\nmax_pinned = 2\nqueue_timeout_ms = 500")).await;
    let (a, b, c) = (front.connect().await, front.connect().await, front.connect().await);
    a.batch_execute("create temp table x (i int)").await.unwrap();
    b.batch_execute("select pg_advisory_lock(1)").await.unwrap();
    let (code, message) = failure(&c, "create temp table x (i int)").await;
    assert_eq!(code, "53300");
    assert!(message.contains("2 is the limit"), "{message}");
    // It goes on as before, in a transaction too, and is free to do what keeps nothing.
    assert_eq!(rows(&c, "select 1").await, ["1"]);
    assert_eq!(failure(&c, "begin; create temp table x (i int)").await.0, "53300");
    c.batch_execute("rollback").await.unwrap();
    a.batch_execute("insert into x values (1); select pg_advisory_lock(2)").await.unwrap();
    b.batch_execute("select pg_advisory_unlock(1)").await.unwrap();
    assert_eq!(rows(&b, "select 1").await, ["1"]);
    c.batch_execute("create temp table x (i int)").await.unwrap();
    assert_eq!(rows(&c, "select count(*) from x").await, ["0"]);
    // A function that does it unseen ends the session, for the transaction is over.
    let text = "create function makes() returns void language plpgsql as $$ begin create temp table m (i int); end $$";
    b.batch_execute(text).await.unwrap();
    let mut raw = Raw::connect(&front).await;
    raw.out.put_query(b"select makes()");
    assert_eq!(raw.ask().await, "T  SELECT_1 /I");
    assert_eq!(raw.answers(1).await, "53300 closed");
    assert_eq!(rows(&b, "select 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_server_is_not_given_away_by_reset_or_a_movable_transaction() {
    let front = Front::demo(0, pool("size = 2\nmin_idle = 0")).await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("create temp table mine (i int); insert into mine values (1)").await.unwrap();
    a.batch_execute("set work_mem = '1MB'").await.unwrap();
    a.batch_execute("reset work_mem").await.unwrap();
    a.batch_execute("set work_mem = '1MB'").await.unwrap();
    a.batch_execute("reset all").await.unwrap();
    assert_eq!(rows(&a, "select i from mine").await, ["1"]);
    // It begins on the kept server and leaves it for the shard of its key.
    a.batch_execute("begin").await.unwrap();
    assert_eq!(rows(&a, "select 1").await, ["1"]);
    let sql = "insert into users (user_id, name, email) values ('user_4', 'n', 'e')";
    a.batch_execute(sql).await.unwrap();
    a.batch_execute("commit").await.unwrap();
    for _ in 0..4 {
        assert_eq!(failure(&b, "select i from mine").await.0, "42P01");
    }
    assert_eq!(rows(&a, "select i from mine").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_whose_kept_server_is_lost_ends() {
    let front = Front::plain(1, Changes::default()).await;
    let ours = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'app'";
    for busy in [false, true] {
        let other = front.connect().await;
        eventually("the server is up again", PATIENCE, async || {
            other.simple_query("create table if not exists t (i int)").await.ok()
        })
        .await;
        let mut raw = Raw::connect(&front).await;
        raw.out.put_query(b"create temp table x (i int)");
        assert_eq!(raw.ask().await, "CREATE_TABLE /I");
        if busy {
            raw.out.put_query(b"select pg_sleep(60), count(*) from x");
            raw.send().await;
            let sleeps =
                "select 1 from pg_stat_activity where query like 'select pg_sleep%' and state = 'active'";
            eventually("it sleeps", PATIENCE, async || {
                (!front.herd.primary(0).sql(sleeps).await.is_empty()).then_some(())
            })
            .await;
        }
        front.herd.primary(0).sql(ours).await;
        let words = raw.answers(9).await;
        assert!(words.ends_with("57P01 closed"), "{words}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequence_values_are_told_only_where_they_are_the_clients_own() {
    let front = Front::plain(0, pool("size = 1\nmin_idle = 0")).await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("create table t (id serial, i int); create sequence s").await.unwrap();
    a.batch_execute("insert into t (i) values (1)").await.unwrap();
    assert_eq!(failure(&b, "select lastval()").await.0, "0A000");
    assert_eq!(failure(&b, "select currval('t_id_seq')").await.0, "0A000");
    // Whatever else the statement does, and though it writes.
    for sql in [
        "select lastval(), pg_try_advisory_xact_lock(1)",
        "select pg_advisory_lock(1), lastval()",
        "create temp table x as select lastval()",
        "insert into t (i) values (lastval())",
        "update t set i = currval('t_id_seq')",
    ] {
        assert_eq!(failure(&b, sql).await.0, "0A000", "{sql}");
    }
    assert_eq!(rows(&b, "select nextval('s') - 1, currval('s') - 1").await, ["0|0"]);
    b.batch_execute("begin").await.unwrap();
    b.batch_execute("insert into t (i) values (1)").await.unwrap();
    assert_eq!(rows(&b, "select lastval(), currval('t_id_seq')").await, ["2|2"]);
    b.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&b, "insert into t (i) values (1); select currval('t_id_seq')").await, ["3"]);
    b.batch_execute("begin; select nextval('s')").await.unwrap();
    assert_eq!(rows(&b, "select currval('s')").await, ["2"]);
    b.batch_execute("rollback").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_drew_nothing_is_not_told_what_others_drew() {
    let front = Front::plain(0, pool("size = 1\nmin_idle = 0")).await;
    let (a, b) = (front.connect().await, front.connect().await);
    a.batch_execute("create table t (id serial, i int); create table plain (i int)").await.unwrap();
    a.batch_execute("insert into t (i) values (1)").await.unwrap();
    // The first to ask, in the midst of a transaction: whose value it would be is not known.
    b.batch_execute("begin; insert into plain values (1)").await.unwrap();
    assert_eq!(failure(&b, "select lastval()").await.0, "40001");
    b.batch_execute("rollback").await.unwrap();
    for ask in ["select lastval()", "select currval('t_id_seq')", "do $$ begin perform lastval(); end $$"] {
        a.batch_execute("insert into t (i) values (1)").await.unwrap();
        for write in ["insert into plain values (1)", "insert into t values (0, 1)", "do $$ begin end $$"] {
            b.batch_execute("begin").await.unwrap();
            b.batch_execute(write).await.unwrap();
            assert_eq!(failure(&b, ask).await.0, "55000", "{write}; {ask}");
            b.batch_execute("rollback").await.unwrap();
            let both = format!("{write}; {ask}");
            assert_eq!(failure(&b, &both).await.0, "55000", "{both}");
        }
    }
    // What is drawn in it is told, the second time as well.
    for id in ["7", "8"] {
        b.batch_execute("begin; insert into plain values (1)").await.unwrap();
        let drawn = rows(&b, "insert into t (i) values (1) returning id").await;
        assert_eq!(rows(&b, "select lastval()").await, drawn, "{id}");
        b.batch_execute("commit").await.unwrap();
        a.batch_execute("insert into t (i) values (1)").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_asks_for_a_sequence_is_told_of_its_own_transaction_only() {
    let pieces = [
        (
            "create function told() returns bigint language plpgsql as 'begin return lastval(); end'",
            "select told()",
        ),
        ("create table defaults (l bigint default lastval())", "insert into defaults default values"),
        ("create view seen as select lastval() as l", "select l from seen"),
        (
            "create function runs(sql text) returns bigint language plpgsql as \
               'declare v bigint; begin execute sql into v; return v; end'",
            "select runs('select last' || 'val()')",
        ),
        (
            "create function body() returns bigint language sql begin atomic; select currval('t_id_seq'); end",
            "select body()",
        ),
    ];
    for (make, ask) in pieces {
        let herd = Herd::start(1, 0).await;
        let direct = herd.primary(0).connect_app().await;
        let tables = "create table t (id serial, i int); create table plain (i int)";
        direct.batch_execute(&format!("{tables}; {make}")).await.unwrap();
        let front = Front::over(herd, false, pool("size = 1\nmin_idle = 0")).await;
        let (a, b) = (front.connect().await, front.connect().await);
        a.batch_execute("insert into t (i) values (1)").await.unwrap();
        b.batch_execute("begin; insert into plain values (1)").await.unwrap();
        assert_eq!(failure(&b, ask).await.0, "55000", "{ask}");
        b.batch_execute("rollback").await.unwrap();
        b.batch_execute("begin; insert into t (i) values (1)").await.unwrap();
        b.batch_execute(ask).await.unwrap();
        b.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_several_shards_a_sequence_is_told_within_a_transaction_in_session_pooling_too() {
    let changes = Changes { database: "mode = \"session\"", ..Changes::default() };
    let front = Front::demo(0, changes).await;
    let client = front.connect().await;
    let insert = |user: &str| {
        format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e') returning id")
    };
    // Users of three shards: which server would know what was drawn last?
    for user in ["user_1", "user_2", "user_3", "user_4", "user_5", "user_6"] {
        client.batch_execute(&insert(user)).await.unwrap();
        assert_eq!(failure(&client, "select lastval()").await.0, "0A000", "{user}");
        client.batch_execute("begin").await.unwrap();
        let id = rows(&client, &insert(&format!("{user}1"))).await;
        assert_eq!(rows(&client, "select lastval()").await, id);
        client.batch_execute("rollback").await.unwrap();
        client.batch_execute("begin").await.unwrap();
        let update = format!("update users set name = 'm' where user_id = '{user}'");
        client.batch_execute(&update).await.unwrap();
        assert_eq!(failure(&client, "select lastval()").await.0, "55000", "{user}");
        client.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_has_been_replaced_is_watched_before_the_catalogs_are_read() {
    let front = Front::plain(0, pool("size = 4\nmin_idle = 0")).await;
    let (admin, definer) = (front.admin().await, front.connect().await);
    definer.batch_execute("create function f() returns int language sql as 'select 1'").await.unwrap();
    let (client, other) = (front.connect().await, front.connect().await);
    assert_eq!(rows(&client, "select f()").await, ["1"]);
    for define in ["", "begin; "] {
        // The catalogs cannot be read to the end meanwhile.
        let lock = front.herd.primary(0).connect().await;
        lock.batch_execute("begin; lock table pg_catalog.pg_policy in access exclusive mode").await.unwrap();
        let body = "create or replace function f() returns int language plpgsql as \
                    $$ begin perform pg_advisory_lock(5); return 2; end $$";
        let end = if define.is_empty() { "" } else { "; commit" };
        let sql = format!("{define}{body}{end}");
        let replaces = definer.batch_execute(&sql);
        let runs = async {
            eventually("it is replaced", PATIENCE, async || {
                let source = "select prosrc from pg_proc where proname = 'f' and prosrc like '%advisory%'";
                (!front.herd.primary(0).sql(source).await.is_empty()).then_some(())
            })
            .await;
            assert_eq!(rows(&client, "select f()").await, ["2"]);
            assert_eq!(rows(&other, "select pg_try_advisory_lock(5)").await, ["f"]);
            for session in [&client, &other] {
                rows(session, "select 1").await; // what the one before has left has been asked for
            }
            assert_eq!(causes(&admin).await, "advisory lock");
            lock.batch_execute("rollback").await.unwrap();
        };
        let (replaced, ()) = tokio::join!(replaces, runs);
        replaced.unwrap();
        client.batch_execute("select pg_advisory_unlock_all(); select 1").await.unwrap();
        definer
            .batch_execute("create or replace function f() returns int language sql as 'select 1'")
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_prepared_is_not_told() {
    let front = Front::plain(0, pool("size = 1\nmin_idle = 0")).await;
    let (a, b) = (front.connect().await, front.connect().await);
    let _prepared = a.prepare("select 'of a'").await.unwrap();
    for sql in [
        "select * from pg_prepared_statements",
        "select statement from pg_catalog.pg_prepared_statements, pg_advisory_xact_lock(1)",
        "select count(*) from (table pg_prepared_statements) p",
        "select pg_prepared_statement()",
        "with p as (select * from PG_Prepared_Statements) select 1 from p",
    ] {
        assert_eq!(failure(&b, sql).await.0, "0A000", "{sql}");
    }
    // Nor through what reads it.
    b.batch_execute(
        "create view seen as select * from pg_prepared_statements; create view seen_again as select 1 from seen;
         create function counts() returns bigint language sql as 'select count(*) from pg_prepared_statements';
         create function by_call() returns bigint language sql begin atomic; select count(*) from pg_prepared_statement(); end;
         create function calls() returns bigint language plpgsql as 'begin return (select count(*) from seen_again); end'",
    )
    .await
    .unwrap();
    for sql in [
        "select statement from seen",
        "select * from seen_again",
        "select counts()",
        "select by_call()",
        "select calls()",
        "do 'begin perform calls(); end'",
        "do 'begin perform 1 from seen; end'",
        "do 'begin perform name from pg_prepared_statements; end'",
    ] {
        assert_eq!(failure(&b, sql).await.0, "0A000", "{sql}");
    }
    front.herd.sql("create schema mine authorization app").await;
    let owner = front.herd.primary(0).connect_app().await;
    owner.batch_execute("create table mine.pg_prepared_statements (i int)").await.unwrap();
    assert!(rows(&b, "select * from mine.pg_prepared_statements").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_with_hold_is_a_portal_after_its_transaction_too() {
    for mode in ["mode = \"transaction\"", "mode = \"session\""] {
        let changes = Changes { database: mode, ..pool("size = 3\nmin_idle = 0") };
        let front = Front::plain(0, changes).await;
        let (admin, mut raw) = (front.admin().await, Raw::connect(&front).await);
        raw.out.put_query(b"declare c cursor with hold for select generate_series(1, 5)");
        assert_eq!(raw.ask().await, "DECLARE_CURSOR /I");
        for _ in 0..2 {
            // What drivers do who read a cursor in portions.
            raw.out.put_target(b'D', DescribeTarget::Portal("c"));
            raw.out.put_sync();
            assert_eq!(raw.ask().await, "T /I");
            raw.out.put_execute("c", 2);
            raw.out.put_sync();
            assert_eq!(raw.ask().await.matches("/I").count(), 1);
        }
        raw.out.put_query(b"fetch all from c");
        assert_eq!(raw.ask().await, "T 5 FETCH_1 /I", "the fifth is left");
        raw.out.put_target(b'C', DescribeTarget::Portal("c"));
        raw.out.put_sync();
        assert_eq!(raw.ask().await, "3 /I");
        raw.out.put_target(b'D', DescribeTarget::Portal("c"));
        raw.out.put_sync();
        assert_eq!(raw.ask().await, "34000 /I");
        assert_eq!(causes(&admin).await, "", "{mode}");
    }
}
