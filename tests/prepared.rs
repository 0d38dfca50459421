//! Prepared statements in transaction pooling are one server's, message by message: in pipelines and failed batches,
//! while connections change hands, and when tables change under them.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, Pair, Wire};
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
            .batch_execute("create table t (i int, j text)")
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
        let held = world.holders[1 - world.held.unwrap()]
            .query_one("select count(*) from pg_prepared_statements", &[])
            .await
            .unwrap();
        assert!(held.get::<_, i64>(0) <= 3, "{held:?}");
    }
}
