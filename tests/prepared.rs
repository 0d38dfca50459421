//! Prepared statements in transaction pooling are one server's, message by message: in pipelines and failed batches,
//! while connections change hands, and when tables change under them.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, Pair, Raw, Wire};
use pgherd::wire::FrontendWriter;
use tokio_postgres::Client;

/// A proxy with two server connections, and two clients of it that hold one or the other.
struct World {
    front: Front,
    holders: [Client; 2],
    held: Option<usize>,
}

impl World {
    async fn start(pool: &'static str) -> Self {
        let front = Front::plain(0, Changes { pool, ..Changes::default() }).await;
        front
            .herd
            .primary(0)
            .connect_app()
            .await
            .batch_execute(
                // The view itself is refused by the proxy: it would tell a client of all others.
                "create table t (i int, j text); create function prepared_here() returns bigint stable
                 language sql as 'select count(*) from pg_prepared_statements'",
            )
            .await
            .unwrap();
        let holders = [front.connect().await, front.connect().await];
        Self { front, holders, held: None }
    }

    async fn pair(&self) -> Pair {
        Pair::connect(self.front.herd.primary(0).port, self.front.port, &[]).await
    }

    /// The next statement of others runs on the other of the two connections.
    async fn switch(&mut self) {
        let next = self.held.map_or(0, |held| 1 - held);
        self.holders[next].batch_execute("begin; select 1").await.unwrap();
        if let Some(held) = self.held.replace(next) {
            self.holders[held].batch_execute("commit").await.unwrap();
        }
    }

    /// Through neither of the two that are compared.
    async fn ddl(&self, sql: &str, by_proxy: bool) {
        if by_proxy {
            self.holders[1 - self.held.unwrap_or(1)].batch_execute(sql).await.unwrap();
        } else {
            self.front.herd.primary(0).connect_app().await.batch_execute(sql).await.unwrap();
        }
    }
}

const TWO: &str = "size = 2\nmin_idle = 0";
const PARSE: fn(&mut Wire) -> &mut Wire =
    |w| w.parse("s", "select * from t where i = $1").describe("s").sync();
const RUN: fn(&mut Wire) -> &mut Wire = |w| w.run("s", &["1"]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_batches_behave_as_on_one_server() {
    let mut world = World::start(TWO).await;
    let mut pair = world.pair().await;
    let steps: &[fn(&mut Wire) -> &mut Wire] = &[
        |w| w.parse("a", "select 1").sync(),
        |w| w.parse("a", "select 2").sync(),
        |w| w.run("a", &[]),
        |w| w.run("none", &[]),
        // What comes after an error in its batch has not happened.
        |w| w.run("none", &[]).parse("b", "select 3").run("b", &[]),
        |w| w.bind("", "none", &[]).parse("b", "select 4").close("a").sync(),
        |w| w.run("b", &[]),
        |w| w.run("a", &[]),
        |w| w.parse("b", "select 5").bind("", "none", &[]).execute("", 0).sync(),
        |w| w.run("b", &[]),
        |w| w.close("b").parse("b", "select 6").run("b", &[]),
        |w| w.bind("", "none", &[]).close("b").parse("b", "select 7").sync(),
        |w| w.run("b", &[]),
        |w| w.parse("c", "select nosuch").run("c", &[]),
        |w| w.run("c", &[]),
        |w| w.parse("c", "select 1/0").run("c", &[]).parse("d", "select 8").run("d", &[]),
        |w| w.parse("e", "select 9").bind("", "c", &[]).execute("", 0).sync().parse("e", "select 10").sync(),
        |w| w.run("e", &[]),
        |w| w.parse("f", "selec 1").sync(),
        |w| w.parse("f", "select 1; select 2").sync(),
        |w| w.describe("f").sync(),
        // A Query ends a batch that has no Sync of its own.
        |w| w.parse("q", "select 11").describe("q").query("alter table t set (fillfactor = 90)"),
        |w| w.parse("r", "select 12").describe("r").query("select 13"),
        |w| w.run("r", &[]),
        // What is bound for the proxy to answer waits for what came before, however that ends.
        |w| {
            w.parse("", "select 14")
                .run("", &[])
                .parse("", "begin")
                .bind("", "", &[])
                .describe_portal("")
                .execute("", 0)
                .sync()
        },
        |w| w.query("rollback"),
        |w| {
            w.query("select 15")
                .parse("", "begin")
                .bind("", "", &[])
                .describe_portal("")
                .execute("", 0)
                .sync()
        },
        |w| w.query("rollback"),
        |w| {
            w.parse("", "select 16")
                .query("select 17")
                .parse("", "begin")
                .bind("", "", &[])
                .describe_portal("")
                .execute("", 0)
                .sync()
        },
        |w| w.query("rollback"),
        |w| {
            w.query("select 18")
                .parse("s", "set work_mem = '5MB'")
                .bind("p", "s", &[])
                .describe_portal("p")
                .execute("p", 0)
                .sync()
        },
        |w| w.query("reset all"),
        |w| w.parse("g", "select $1::int + 1").describe("g").sync(),
        |w| w.run("g", &["41"]),
        |w| w.run("g", &["x"]),
        |w| w.run("g", &["1", "2"]),
        |w| w.run("g", &["43"]),
        |w| w.close("nothing").sync(),
        |w| w.query("deallocate all"),
        |w| w.run("a", &[]),
        |w| w.run("g", &["1"]),
    ];
    let mut idle = true;
    for step in steps {
        if idle {
            world.switch().await;
        }
        idle = pair.same(step).await.last().is_some_and(|word| word == "ready I");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unnamed_statement_lives_as_long_as_on_one_server() {
    let mut world = World::start(TWO).await;
    let mut pair = world.pair().await;
    let steps: &[fn(&mut Wire) -> &mut Wire] = &[
        |w| w.run("", &[]),
        |w| w.parse("", "select 1").sync(),
        |w| w.run("", &[]),
        |w| w.run("", &[]),
        |w| w.query("select 2"),
        |w| w.run("", &[]),
        |w| w.parse("", "select 3").sync(),
        |w| w.query(""),
        |w| w.run("", &[]),
        |w| w.parse("", "select 4").sync(),
        |w| w.parse("", "select nosuch").sync(),
        |w| w.run("", &[]),
        |w| w.parse("", "select 5").sync(),
        |w| w.parse("", "selec").sync(),
        |w| w.run("", &[]),
        |w| w.parse("", "select 6").sync(),
        |w| w.run("none", &[]),
        |w| w.run("", &[]),
        |w| w.bind("", "none", &[]).parse("", "select 7").sync(),
        |w| w.run("", &[]),
        |w| w.close("").sync(),
        |w| w.run("", &[]),
        |w| w.parse("", "select $1::text").describe("").sync(),
        |w| w.run("", &["x"]),
        |w| w.query("begin"),
        |w| w.run("", &["y"]),
        |w| w.parse("", "select 8").bind("", "", &[]).sync(),
        |w| w.execute("", 0).sync(),
        |w| w.query("commit"),
        |w| w.query("begin"),
        |w| w.parse("", "select 9").bind("", "", &[]).sync(),
        |w| w.query("select 10"),
        |w| w.execute("", 0).sync(),
        |w| w.query("rollback"),
    ];
    let mut idle = true;
    for step in steps {
        if idle {
            world.switch().await;
        }
        idle = pair.same(step).await.last().is_some_and(|word| word == "ready I");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_outlive_transactions_and_are_used_inside_them() {
    let mut world = World::start(TWO).await;
    let mut pair = world.pair().await;
    let steps: &[fn(&mut Wire) -> &mut Wire] = &[
        |w| w.query("begin"),
        |w| w.parse("a", "select 'a' || $1").describe("a").sync(),
        |w| w.run("a", &["1"]),
        |w| w.query("rollback"),
        |w| w.run("a", &["2"]),
        |w| w.query("begin"),
        |w| w.run("a", &["3"]),
        |w| w.query("savepoint s"),
        |w| w.parse("b", "select 'b'").run("b", &[]),
        |w| w.run("none", &[]),
        |w| w.run("b", &[]),
        |w| w.parse("c", "select 'c'").sync(),
        |w| w.query("rollback to s"),
        |w| w.run("b", &[]),
        |w| w.run("c", &[]),
        |w| w.query("rollback"),
        |w| w.run("b", &[]),
        |w| w.parse("x", "begin").parse("y", "commit").sync(),
        |w| w.run("x", &[]),
        |w| w.run("b", &[]),
        |w| w.run("y", &[]),
        |w| w.bind("p", "b", &[]).execute("p", 0).bind("p", "b", &[]).sync(),
        |w| w.run("b", &[]),
    ];
    let mut idle = true;
    for step in steps {
        if idle {
            world.switch().await;
        }
        idle = pair.same(step).await.last().is_some_and(|word| word == "ready I");
    }
}

/// Each step runs in a world where the table has changed after the client prepared.
async fn after_ddl(by_proxy: bool) {
    let mut world = World::start(TWO).await;
    let (mut old, mut new) = (world.pair().await, world.pair().await);
    old.same(PARSE).await;
    old.same(RUN).await;
    old.same(|w| w.parse("u", "select i from t").sync()).await;
    world.switch().await;
    world.ddl("alter table t add column k int", by_proxy).await;
    for _ in 0..4 {
        let answer = old.same(RUN).await;
        assert!(answer[0].contains("0A000"), "{answer:?}");
        old.same(|w| w.run("u", &[])).await;
        world.switch().await;
    }
    // Who prepares now sees the new columns, whatever others have prepared on the same connections.
    new.same(PARSE).await;
    for _ in 0..4 {
        new.same(RUN).await;
        let answer = old.same(RUN).await;
        assert!(answer[0].contains("0A000"), "{answer:?}");
        for wire in [&mut old.one, &mut old.proxy] {
            let answer = wire.describe("s").sync().answers().await;
            assert!(answer.iter().any(|word| word.contains("0A000")), "{answer:?}");
        }
        world.switch().await;
    }
    old.same(|w| w.close("s").sync()).await;
    old.same(PARSE).await;
    for _ in 0..2 {
        old.same(RUN).await;
        new.same(RUN).await;
        world.switch().await;
    }
    world.ddl("alter table t alter column i type text", by_proxy).await;
    for _ in 0..2 {
        old.same(RUN).await;
        world.switch().await;
    }
    world.ddl("drop table t", by_proxy).await;
    for _ in 0..2 {
        old.same(RUN).await;
        new.same(|w| w.describe("s").sync()).await;
        world.switch().await;
    }
    world.ddl("create table t (i int, j text, k int)", by_proxy).await;
    for _ in 0..2 {
        old.same(RUN).await;
        old.same(|w| w.run("u", &[])).await;
        world.switch().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_whose_columns_changed_fails_for_those_who_prepared_before_and_no_others() {
    after_ddl(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_when_the_proxy_has_not_seen_the_change() {
    after_ddl(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_means_what_its_settings_made_of_it() {
    let mut world = World::start(TWO).await;
    world
        .ddl(
            "create schema one; create table one.v (i int); create schema two; create table two.v (i text)",
            false,
        )
        .await;
    world.ddl("insert into one.v values (1); insert into two.v values ('1')", false).await;
    let (mut a, mut b) = (world.pair().await, world.pair().await);
    a.query("set search_path = one; set datestyle = 'ISO, DMY'; set timezone = 'Asia/Tokyo'").await;
    b.query("set search_path = two; set datestyle = 'ISO, MDY'").await;
    let texts = [
        ("p", "select * from v where i = $1"),
        ("q", "select '01/02/2024'::date"),
        ("r", "select timestamptz '2024-01-01 00:00:00'"),
    ];
    for (name, sql) in texts {
        for pair in [&mut a, &mut b] {
            pair.same(|w| w.parse(name, sql).describe(name).sync()).await;
            world.switch().await;
        }
    }
    for _ in 0..3 {
        for pair in [&mut a, &mut b] {
            pair.same(|w| w.run("p", &["1"])).await;
            pair.same(|w| w.run("q", &[])).await;
            pair.same(|w| w.run("r", &[])).await;
        }
        world.switch().await;
    }
    // Its parameters' types stay, its columns must; names are looked up anew.
    a.query("set search_path = two").await;
    for _ in 0..2 {
        a.same(|w| w.run("p", &["1"])).await;
        world.switch().await;
    }
    // Constants were read at Parse: on a connection that lacks the statement the proxy says what it cannot know.
    a.same(|w| w.parse("z", "select '03/04/2024'::date").sync()).await;
    a.query("set datestyle = 'ISO, MDY'").await;
    world.switch().await;
    let answer = a.proxy.run("z", &[]).answers().await;
    assert!(answer[0].contains("0A000") && answer[0].contains("settings"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_keeps_no_more_statements_than_it_may() {
    let mut world = World::start("size = 2\nmin_idle = 0\nprepared_statements = 3").await;
    let mut pair = world.pair().await;
    let names: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    pair.same(|w| names.iter().fold(w, |w, name| w.parse(name, &format!("select '{name}' from t"))).sync())
        .await;
    for round in 0..4 {
        // More in one batch than a server may hold, with portals that outlive their statements.
        pair.same(|w| {
            let w = names.iter().fold(w, |w, name| w.bind(name, name, &[]));
            names.iter().fold(w, |w, name| w.execute(name, 0)).sync()
        })
        .await;
        pair.same(|w| w.bind("", "none", &[]).parse("t", "select 't'").sync()).await;
        pair.same(|w| w.run(&names[round], &[])).await;
        world.switch().await;
        let held =
            world.holders[1 - world.held.unwrap()].query_one("select prepared_here()", &[]).await.unwrap();
        assert!(held.get::<_, i64>(0) <= 3, "{held:?}");
    }
}

/// Says each as a Query to both, the connections changing hands in between.
async fn say(world: &mut World, pair: &mut Pair, texts: &[&str]) {
    let mut idle = true;
    for sql in texts {
        if idle {
            world.switch().await;
        }
        idle = pair.query(sql).await.last().is_some_and(|word| word.ends_with('I'));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_prepare_and_execute_need_no_server_of_their_own() {
    let mut world = World::start(TWO).await;
    world.ddl("insert into t values (1, 'one'), (2, 'two')", false).await;
    let mut pair = world.pair().await;
    say(
        &mut world,
        &mut pair,
        &[
            "set plan_cache_mode = force_custom_plan",
            "prepare p as select 1 as one, 'x' as x",
            "execute p",
            "execute p;",
            "execute p ; -- as psql sends it",
            "prepare semi (int) as select $1 + 1;",
            "execute semi(1) ;;",
            "explain execute semi(1);",
            "deallocate semi;",
            "prepare p as select 2",
            "execute p",
            "execute none",
            "execute none(1)",
            "execute p(1)",
            "PREPARE q (int, text) AS select i, j from t where i = $1 or j = $2 order by i; ",
            "execute q(1, 'two')",
            "execute q('2', null)",
            "execute q(1)",
            "execute q",
            "execute q('x', 'y')",
            "execute q(3, 'none')",
            "prepare \"P é\" as select\n j from t where i = $1",
            "execute \"P é\"(2)",
            "prepare bad as select\n nothing from t",
            "execute bad",
            "prepare bad as select * from nowhere where i = $1",
            "prepare bad as begin",
            "prepare",
            "execute",
            "prepare bad (int) as select $2::int + $1",
            "execute bad(1, 2)",
            "prepare w (int, varchar(2)) as insert into t values ($1, $2) returning j",
            "execute w(10, 'a')",
            "prepare ww as update t set j = 'b' where i = $1",
            "execute ww(10)",
            "execute ww(99999999999)",
            "execute ww('10')",
            "prepare v as values (1, 'a'), (2, 'b')",
            "execute v",
            "deallocate v",
            "execute v",
            "deallocate v",
            "deallocate prepare w",
            "execute w(1, 'x')",
            // Expressions, and other types than those that are asked for.
            "execute q(1 + 1, 'a' || 'b')",
            "execute q(1.0, 'x'::varchar)",
            "execute q(date '2024-01-01', 'x')",
            "execute q(true, 'x')",
            "execute q(1 + 1)",
            "execute q(nothing, 'x')",
            "explain (costs off) execute q(1, 'x')",
            "explain (costs off) execute none",
            "begin",
            "prepare inside as select 'inside'",
            "execute inside",
            "rollback",
            "execute inside",
            "begin",
            "execute inside",
            "execute q(2, 'x')",
            "execute none",
            "execute inside",
            "prepare failed as select 1",
            "deallocate inside",
            "rollback",
            "execute failed",
            "execute inside",
            "begin",
            "prepare lost as select 1/0",
            "execute lost",
            "rollback",
            "execute lost",
            "prepare a as select 1; execute a; deallocate a",
            "execute a",
            "deallocate all",
            "execute q(1, 'x')",
            "prepare q as select 'another'",
            "execute q",
            "discard all",
            "execute q",
        ],
    )
    .await;
    let admin = world.front.admin().await;
    let client = world.front.connect().await;
    client.batch_execute("prepare p as select 1 as one").await.unwrap();
    // A server is kept for what it alone knows, until that is gone.
    client.batch_execute("create type mine as (i int)").await.unwrap();
    client.batch_execute("prepare mine (mine) as select ($1).i").await.unwrap();
    assert_eq!(common::rows(&client, "execute p").await, ["1"]);
    let pins = "select pin from pgherd.clients where pin is not null";
    assert_eq!(common::rows(&admin, pins).await, ["sql prepare"]);
    client.batch_execute("execute mine(row(5))").await.unwrap();
    client.batch_execute("deallocate mine").await.unwrap();
    assert_eq!(common::rows(&client, "execute p").await, ["1"]);
    assert!(common::rows(&admin, "select pin from pgherd.clients where pin is not null").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_the_protocol_share_the_names_of_prepared_statements() {
    let mut world = World::start(TWO).await;
    world.ddl("insert into t values (1, 'one'), (2, 'two')", false).await;
    let mut pair = world.pair().await;
    let steps: &[fn(&mut Wire) -> &mut Wire] = &[
        |w| w.query("prepare p (int) as select j from t where i = $1"),
        |w| w.run("p", &["1"]),
        |w| w.describe("p").sync(),
        |w| w.parse("p", "select 1").sync(),
        |w| w.parse("s", "select j, $1::text from t where i = $2").sync(),
        |w| w.query("execute s('x', 2)"),
        |w| w.query("prepare s as select 1"),
        |w| w.query("execute s(1, 2)"),
        |w| w.close("p").sync(),
        |w| w.query("execute p(1)"),
        |w| w.query("prepare p as select 3").query("execute p").query("execute none").query("execute p"),
        |w| w.parse("e", "select 4").query("execute e"),
        |w| w.run("s", &["a", "1"]).query("execute p").run("s", &["b", "2"]),
        |w| w.query("deallocate s"),
        |w| w.run("s", &["a", "1"]),
        |w| w.parse("", "select 5").sync(),
        |w| w.query("execute p"),
        |w| w.run("", &[]),
    ];
    for step in steps {
        world.switch().await;
        pair.same(step).await;
    }
    // Another client has other names.
    let mut other = world.pair().await;
    other.query("execute p").await;
    other.query("prepare p as select 'other'").await;
    other.query("execute p").await;
    pair.query("execute p").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn execute_stands_wherever_one_server_takes_it() {
    let mut world = World::start(TWO).await;
    world.ddl("insert into t values (1, 'one'), (2, 'two')", false).await;
    let mut pair = world.pair().await;
    let steps: &[fn(&mut Wire) -> &mut Wire] = &[
        |w| w.query("prepare p (int) as select i, j from t where i = $1"),
        |w| w.parse("q", "insert into t values ($1::int, 'new') returning i").sync(),
        // Among other statements of one query.
        |w| w.query("execute p(1); select 3; execute q(4); execute p(2)"),
        |w| w.query("begin; execute q(1 + 4); execute p(5); rollback; execute p(5)"),
        |w| w.query("set work_mem = '3MB'; execute p(1); show work_mem; reset work_mem"),
        |w| w.query("select 1; execute q(6); select 1/0"),
        |w| w.query("execute p(1, 2); select 1"),
        |w| w.query("select 1; execute none"),
        |w| w.query("prepare r as select 7; execute r; execute p(1); deallocate r; execute r"),
        // In the extended protocol.
        |w| w.parse("", "execute p(1)").bind("", "", &[]).describe_portal("").execute("", 0).sync(),
        |w| w.parse("x", "EXECUTE p (1 + 1)").describe("x").sync(),
        |w| w.run("x", &[]),
        |w| w.run("x", &[]).run("x", &[]),
        |w| w.parse("", "explain (costs off) execute q(1)").describe("").run("", &[]),
        |w| w.parse("", "execute q(8)").bind("", "", &[]).execute("", 0).parse("", "select 9").sync(),
        |w| w.parse("", "execute none").run("", &[]),
        |w| w.parse("", "execute p(1)").bind("", "", &["1"]).execute("", 0).sync(),
        // In a transaction, also one that has failed.
        |w| w.query("begin"),
        |w| w.query("create temp table passing on commit drop as execute p(1)"),
        |w| w.query("table passing; execute p(2)"),
        |w| w.run("x", &[]),
        |w| w.query("select 1/0"),
        |w| w.query("execute p(1); select 1"),
        |w| w.run("x", &[]),
        |w| w.query("rollback"),
        |w| w.run("x", &[]),
        // The name is gone.
        |w| w.query("deallocate p"),
        |w| w.query("select 1; execute p(1)"),
        |w| w.query("create table made as execute p(1)"),
        |w| w.parse("", "execute p(1)").run("", &[]),
    ];
    // Tables made of it: one client after the other, for they have the same name.
    let tables: &[fn(&mut Wire) -> &mut Wire] = &[
        |w| w.query("create table made (a) as execute p(1)"),
        |w| {
            w.query("table made; drop table made; create table made as execute p(2) with no data; table made")
        },
        |w| w.query("drop table made"),
        |w| w.parse("", "create table made as execute p(2)").run("", &[]),
        |w| w.query("table made; drop table made"),
        |w| w.parse("", "create temp table made as execute p(2)").run("", &[]),
        |w| w.query("table made; drop table made"),
    ];
    let named = steps.len() - 4;
    let mut is_open = false;
    for step in &steps[..named] {
        if !is_open {
            world.switch().await; // else it has one of the two
        }
        is_open = pair.same(step).await.last().is_some_and(|ready| ready != "ready I");
    }
    let (mut one, mut proxy) = (Vec::new(), Vec::new());
    for say in tables {
        one.push(say(&mut pair.one).answers().await);
    }
    for say in tables {
        proxy.push(say(&mut pair.proxy).answers().await);
    }
    assert_eq!(one, proxy, "left: one server, right: the proxy");
    for step in &steps[named..] {
        world.switch().await;
        pair.same(step).await;
    }
    // What was parsed meant another.
    pair.query("prepare p (int) as select 'another', $1").await;
    let answer = pair.proxy.run("x", &[]).answers().await;
    assert!(answer[0].contains("0A000"), "{answer:?}");
    let admin = world.front.admin().await;
    assert!(common::rows(&admin, "select pin from pgherd.clients where pin is not null").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_prepared_goes_where_its_values_send_it() {
    let front = Front::demo(1, Changes::default()).await;
    let client = front.connect().await;
    client.batch_execute("prepare p as select name from users where user_id = $1").await.unwrap();
    client
        .batch_execute("prepare w (text) as update users set name = upper(name) where user_id = $1")
        .await
        .unwrap();
    client.batch_execute("prepare every as select user_id from users where email like $1").await.unwrap();
    for user in ["user_1", "user_2", "user_3", "user_4", "user_5"] {
        let plain = common::rows(&client, &format!("select name from users where user_id = '{user}'")).await;
        assert_eq!(common::rows(&client, &format!("execute p('{user}')")).await, plain, "{user}");
        client.batch_execute(&format!("execute w('{user}')")).await.unwrap();
        let upper: Vec<String> = plain.iter().map(|name| name.to_uppercase()).collect();
        assert_eq!(common::rows(&client, &format!("execute p('{user}')")).await, upper, "{user}");
    }
    let all = common::rows(&client, "select user_id from users where email like '%'").await.len();
    assert_eq!(common::rows(&client, "execute every('%')").await.len(), all);
    for sql in [
        "execute p('user' || '_1')",
        "explain execute p('user_1');",
        "create temp table filled as execute p('user_1');",
        "create table filled as execute p('user_1')",
        "select 1; execute p('user_1')",
    ] {
        let (code, message) = common::failure(&client, sql).await;
        assert_eq!(code, "0A000", "{sql}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_arrive_one_by_one_are_each_answered() {
    const MESSAGES: [fn(&mut Wire) -> &mut Wire; 9] = [
        |w| w.parse("p", "select $1::int + 1"),
        |w| w.describe("p"),
        |w| w.parse("q", "select $1::int + 2"),
        |w| w.bind("", "p", &["1"]),
        |w| w.describe_portal(""),
        |w| w.execute("", 0),
        |w| w.bind("", "q", &["2"]),
        |w| w.execute("", 0),
        |w| w.close("p").close("q").sync(),
    ];
    let world = World::start(TWO).await;
    let mut both = world.pair().await;
    // Outside and inside a transaction; after an answer, and while one is under way.
    for begin in ["select 1", "begin"] {
        both.query(begin).await;
        for before in ["", "select pg_sleep(0.02)"] {
            for together in 1..=MESSAGES.len() {
                if !before.is_empty() {
                    both.one.query(before).send().await;
                    both.proxy.query(before).send().await;
                }
                for messages in MESSAGES.chunks(together) {
                    for say in messages {
                        say(&mut both.one);
                        say(&mut both.proxy);
                    }
                    both.one.send().await;
                    both.proxy.send().await;
                    // When another client has its answer, what was sent before has been read.
                    world.holders[0].simple_query("select 2").await.unwrap();
                }
                let (one, proxy) = tokio::join!(both.one.answers(), both.proxy.answers());
                assert_eq!(one, proxy, "{begin}, {before}, {together} at a time");
            }
        }
        both.query("rollback").await;
    }
}

/// PostgreSQL prepares more parameters than a message can count; only Bind cannot give them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_beyond_what_a_message_can_count_are_described() {
    let world = World::start(TWO).await;
    let mut both = world.pair().await;
    for count in [65535, 65536, 65540] {
        let values: Vec<_> = (1..=count).map(|n| format!("(${n}::text)")).collect();
        let sql = format!("values {}", values.join(", "));
        let seen = both.same(|w| w.parse("many", &sql).describe("many").sync()).await;
        assert!(seen.contains(&format!("{count} parameters from 25 to 25")), "{seen:?}");
        both.same(|w| w.run("many", &["1"])).await; // 08P01
        both.same(|w| w.describe("many").close("many").sync()).await;
    }
    both.query("select 1").await;
}

/// Of a server that several clients share, one client's Query destroys another's unnamed statement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unnamed_statement_outlives_the_queries_of_other_clients() {
    let front = Front::plain(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let (mut one, mut other) = (Raw::connect(&front).await, Raw::connect(&front).await);
    other.out.put_query(b"prepare p as select 2");
    assert_eq!(other.ask().await, "PREPARE /I");
    for query in ["select 2", "execute p", "select 2; select 3", "begin; commit", "begin"] {
        one.out.put_parse("", b"select 1", &[]);
        one.out.put_sync();
        assert_eq!(one.ask().await, "1 /I");
        other.out.put_query(query.as_bytes());
        other.ask().await;
        if query == "begin" {
            other.statement("select 4", false).out.put_sync();
            other.ask().await;
            other.out.put_query(b"commit");
            other.ask().await;
        }
        one.out.put_bind("", "", &[0; 6]);
        one.out.put_execute("", 0);
        one.out.put_sync();
        assert_eq!(one.ask().await, "2 1 SELECT_1 /I", "{query}");
    }
}

/// A Parse that an error skips, in a pipeline: behind the Sync the name stands for what it stood for before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_skipped_parse_would_have_named_is_not_bound_behind_its_sync() {
    let world = World::start("size = 2\nmin_idle = 0").await;
    let mut pair = world.pair().await;
    for name in ["", "n"] {
        for (opening, after, texts) in
            [("select 1", "select 1", &["select 2", "commit"][..]), ("begin", "rollback", &["commit"])]
        {
            pair.query(opening).await;
            pair.same(|c| c.parse(name, "select 1").run(name, &[])).await;
            for &skipped in texts {
                pair.same(|c| {
                    c.parse("bad", "select 1/0 + length(version()) * 0").bind("", "bad", &[]).execute("", 0);
                    c.close(name).parse(name, skipped).sync();
                    c.run(name, &[])
                })
                .await;
                if opening == "select 1" {
                    pair.same(|c| c.close(name).parse(name, skipped).sync().describe(name).sync()).await;
                    pair.same(|c| c.close(name).parse(name, "select 1").sync()).await;
                }
                pair.same(|c| c.close("bad").sync()).await;
            }
            // One that stands is bound behind its Sync, and again.
            pair.query(after).await;
            pair.same(|c| c.close(name).parse(name, "select 3").sync().run(name, &[]).run(name, &[])).await;
            pair.same(|c| c.close(name).sync()).await;
        }
    }
}

/// In a failed transaction a server refuses the Parse that the proxy makes for a Bind: the statement is there still.
#[tokio::test]
async fn the_unnamed_statement_outlives_a_failed_transaction() {
    let world = World::start("size = 2\nmin_idle = 0").await;
    let mut pair = world.pair().await;
    for (name, sql) in
        [("begin", "begin"), ("bad", "select 1/0 + length(version()) * 0"), ("end", "rollback")]
    {
        pair.same(|c| c.parse(name, sql).sync()).await;
    }
    for parse_first in [true, false] {
        if parse_first {
            pair.same(|c| c.parse("", "select 1").sync()).await;
        }
        pair.same(|c| c.run("begin", &[])).await;
        if !parse_first {
            pair.same(|c| c.parse("", "select 2").sync()).await;
        }
        pair.same(|c| c.run("bad", &[])).await;
        pair.same(|c| c.run("", &[])).await;
        pair.same(|c| c.run("", &[]).run("", &[])).await;
        pair.same(|c| c.run("end", &[])).await;
        pair.same(|c| c.run("", &[])).await;
    }
    // A Parse of the client's that is refused has destroyed it.
    pair.same(|c| c.run("begin", &[]).run("bad", &[])).await;
    pair.same(|c| c.parse("", "select 3").sync()).await;
    pair.same(|c| c.run("end", &[])).await;
    pair.same(|c| c.run("", &[])).await;
}

/// Two clients on one server, in pipelines: whether a Parse of the proxy's own was refused is known late.
#[tokio::test]
async fn an_unnamed_statement_is_bound_again_and_again_while_transactions_fail() {
    let world = World::start("size = 1\nmin_idle = 0").await;
    let (mut a, mut b) = (world.pair().await, world.pair().await);
    for (name, sql) in [
        ("begin", "begin"),
        ("bad", "select 1/0 + length(version()) * 0"),
        ("end", "rollback"),
        ("sp", "savepoint s"),
        ("to", "rollback to s"),
    ] {
        a.same(|c| c.parse(name, sql).sync()).await;
        b.same(|c| c.parse(name, sql).sync()).await;
    }
    a.same(|c| c.parse("", "select 'a'").sync()).await;
    for _ in 0..3 {
        b.same(|c| c.parse("", "select 'b'").sync()).await;
        b.same(|c| c.run("", &[])).await;
        a.same(|c| c.run("begin", &[]).run("sp", &[])).await;
        a.same(|c| c.run("bad", &[]).run("", &[])).await;
        a.same(|c| c.run("to", &[]).run("", &[])).await;
        a.same(|c| c.run("bad", &[]).describe("").sync()).await;
        a.same(|c| c.run("", &[]).run("to", &[]).run("", &[]).run("end", &[]).run("", &[])).await;
        b.same(|c| {
            c.run("", &[])
                .run("begin", &[])
                .run("bad", &[])
                .run("", &[])
                .run("", &[])
                .run("end", &[])
                .run("", &[])
        })
        .await;
    }
}
