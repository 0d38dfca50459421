//! Session state in transaction pooling is one server's, message by message: the same client speaks to a server and
//! to the proxy in front of it, while another client of the proxy keeps its two connections changing hands.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, PATIENCE, Pair, Pg, eventually, failure, rows};
use tokio_postgres::Client;

const TWO: &str = "size = 2\nmin_idle = 0";

/// A proxy with two server connections, and a client of it that leaves other settings on them.
struct World {
    front: Front,
    noise: Client,
    step: usize,
}

impl World {
    async fn start() -> Self {
        let front = Front::plain(0, Changes { pool: TWO, ..Changes::default() }).await;
        let noise = front.connect().await;
        Self { front, noise, step: 0 }
    }

    async fn pair(&self, parameters: &[(&str, &str)]) -> Pair {
        Pair::connect(self.front.herd.primary(0).port, self.front.port, parameters).await
    }

    /// Takes the connection that was used last, or gives it back: the next statement runs on another.
    async fn disturb(&mut self) {
        let sql = match self.step % 4 {
            0 => "begin; set timezone = 'Pacific/Fiji'; set work_mem = '3MB'; set a.b = 'noise'; select 1",
            1 => "commit",
            2 => "begin; set search_path = pg_catalog; set datestyle = 'SQL'; set application_name = 'noise'",
            _ => "rollback; reset all; set intervalstyle = 'sql_standard'",
        };
        self.noise.batch_execute(sql).await.unwrap();
        self.step += 1;
    }
}

/// Runs statements in both protocols where they can be, the connections changing hands in between.
async fn agree(parameters: &[(&str, &str)], statements: &[&str]) {
    for extended in [false, true] {
        let mut world = World::start().await;
        let mut pair = world.pair(parameters).await;
        for sql in statements {
            world.disturb().await;
            if extended && !sql.contains(';') {
                pair.extended(sql, &[]).await;
            } else {
                pair.query(sql).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_every_spelling_are_one_servers() {
    agree(
        &[],
        &[
            "set work_mem = '1MB'",
            "show work_mem",
            "set time zone 'Asia/Tokyo'",
            "show timezone",
            "set session time zone 'UTC'",
            "select timestamptz '2024-01-01 00:00:00+00'::text",
            "set datestyle to 'German, DMY'",
            "select date '2024-02-03'::text",
            "set application_name to 'me'",
            "show application_name",
            "set a.b = 'mine'",
            "select current_setting('a.b')",
            "set session characteristics as transaction isolation level serializable, read only",
            "show default_transaction_isolation",
            "show default_transaction_read_only",
            "set default_transaction_isolation = 'repeatable read'",
            "show transaction_isolation",
            "reset default_transaction_isolation",
            "show transaction_isolation",
            "set intervalstyle = 'iso_8601'",
            "select interval '1 day 2 hours'::text",
            "set search_path = pg_catalog, public",
            "show search_path",
            "set standard_conforming_strings = off",
            "show standard_conforming_strings",
            "reset standard_conforming_strings",
            "set client_encoding = 'latin1'",
            "show client_encoding",
            "set names 'utf8'",
            "set nonsense = 1",
            "set work_mem = 'much'",
            "show work_mem",
            "set timezone to default",
            "show timezone",
            "reset datestyle",
            "show datestyle",
            "reset nonsense",
            "reset all",
            "show work_mem",
            "show application_name",
            "select current_setting('a.b')",
            "discard all",
            "show datestyle",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_begin_with_the_settings_of_their_role_and_database() {
    let world = World::start().await;
    let shown = "select current_setting('work_mem'), current_setting('timezone'), current_setting('statement_timeout')";
    for (sql, want) in [
        ("alter role app set work_mem = '11MB'", "11MB"),
        ("alter role app in database app set timezone = 'Asia/Tokyo'", "Asia/Tokyo"),
        ("alter database app set statement_timeout = '77s'", "77s"),
        ("begin; alter role app set work_mem = '12MB'; rollback", "11MB"),
        ("begin; alter role app set work_mem = '13MB'; commit", "13MB"),
        ("alter role app reset all", "4MB"),
    ] {
        world.noise.batch_execute(sql).await.unwrap();
        let mut pair = world.pair(&[]).await;
        let answer = pair.query(shown).await.join(" ");
        assert!(answer.contains(want), "{sql}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn startup_parameters_are_what_reset_goes_back_to() {
    agree(
        &[
            ("TimeZone", "Europe/Rome"),
            ("application_name", "it's"),
            ("options", "-c work_mem=2MB --search_path=pg_catalog,public -c a.b=one\\ two"),
        ],
        &[
            "show timezone",
            "show work_mem",
            "show search_path",
            "select current_setting('a.b')",
            "set work_mem = '9MB'",
            "reset work_mem",
            "show work_mem",
            "set timezone = 'UTC'",
            "set timezone to default",
            "show timezone",
            "set search_path = public",
            "begin",
            "reset search_path",
            "show search_path",
            "rollback",
            "show search_path",
            "begin; set work_mem = '5MB'; reset work_mem; show work_mem; commit; show work_mem",
            "begin",
            "set work_mem = '7MB'",
            "set local timezone to default",
            "reset all",
            "show work_mem",
            "show search_path",
            "show application_name",
            "commit",
            "show work_mem",
            "set application_name = 'other'",
            "set a.b = 'x'; reset all; show application_name",
            "select current_setting('a.b')",
            "set work_mem = '4MB'",
            "discard all",
            "show work_mem",
            "show search_path",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_batch_has_set_ends_with_its_refusal() {
    let world = World::start().await;
    let mut pair = world.pair(&[]).await;
    for begin in ["", "begin", "begin; savepoint s"] {
        pair.query(begin).await;
        // The proxy itself knows that there is no such statement.
        for wrong in ["nothing", "unknown"] {
            pair.same(|w| {
                w.parse("", "set work_mem = '5MB'")
                    .bind("", "", &[])
                    .execute("", 0)
                    .bind("", wrong, &[])
                    .sync()
            })
            .await;
            pair.query("show work_mem").await;
            pair.query(if begin.contains("savepoint") { "rollback to s" } else { "rollback" }).await;
            pair.query("show work_mem").await;
        }
        pair.query("rollback").await;
        pair.query("show work_mem").await;
        assert_eq!(rows(&world.noise, "show work_mem").await, ["4MB"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rolled_back_was_never_set() {
    agree(
        &[],
        &[
            "begin",
            "set work_mem = '1MB'",
            "savepoint a",
            "set work_mem = '2MB'",
            "set local timezone = 'Asia/Tokyo'",
            "savepoint b",
            "set timezone = 'Europe/Rome'",
            "rollback to a",
            "show work_mem",
            "show timezone",
            "commit",
            "show work_mem",
            "show timezone",
            "begin",
            "set local work_mem = '3MB'",
            "savepoint a",
            "set work_mem = '4MB'",
            "rollback to a",
            "show work_mem",
            "commit",
            "show work_mem",
            "begin",
            "set work_mem = '5MB'",
            "select 1/0",
            "set work_mem = '6MB'",
            "commit",
            "show work_mem",
            "set work_mem = '7MB'; select 1/0",
            "show work_mem",
            "begin; set work_mem = '8MB'; commit; set work_mem = '9MB'; select 1/0",
            "show work_mem",
            "begin; set work_mem = '10MB'; savepoint a; set work_mem = '11MB'; rollback to a; commit",
            "show work_mem",
            "set work_mem = '12MB'; begin; set timezone = 'Asia/Tokyo'; rollback; show work_mem",
            "show work_mem",
            "show timezone",
            "set work_mem = '13MB'; rollback; show work_mem",
            "show work_mem",
            "begin; set local work_mem = '14MB'; show work_mem; commit; show work_mem",
            "show work_mem",
            "begin",
            "set work_mem = '15MB'; commit; set work_mem = '16MB'; select 1/0",
            "show work_mem",
            "begin; set work_mem = '17MB'; commit and chain; set work_mem = '18MB'; rollback",
            "show work_mem",
            "set local work_mem = '19MB'",
            "show work_mem",
            "begin read only",
            "set transaction read write",
            "show transaction_read_only",
            "set transaction_read_only = on",
            "show transaction_read_only",
            "commit",
            "show transaction_read_only",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn set_config_is_followed_without_a_server_of_its_own() {
    let statements = [
        "select set_config('work_mem', '1MB', false)",
        "show work_mem",
        "select pg_catalog.set_config('timezone', 'Asia/Tokyo', false), set_config('a.b', 'it''s', 'f')",
        "show timezone",
        "select current_setting('a.b')",
        "begin",
        "select set_config('work_mem', '2MB', true)",
        "show work_mem",
        "select set_config('a.b', 'two', false)",
        "commit",
        "show work_mem",
        "select current_setting('a.b')",
        "begin",
        "select set_config('a.b', 'three', false)",
        "rollback",
        "select current_setting('a.b')",
        "select set_config('work_mem', 'much', false)",
        "select set_config('search_path', '', false)",
        "show search_path",
        "select set_config('search_path', 'public, \"A b\"', false)",
        "show search_path",
        "select set_config('work_mem', null, false)",
        "show work_mem",
        "select set_config('a.b', 'gone', true)",
        "select current_setting('a.b')",
    ];
    agree(&[], &statements).await;
    let mut world = World::start().await;
    let mut pair = world.pair(&[]).await;
    pair.extended("select set_config($1, $2, $3)", &["work_mem", "3MB", "no"]).await;
    world.disturb().await;
    pair.query("show work_mem").await;
    let admin = world.front.admin().await;
    assert!(rows(&admin, "select pin from pgherd.clients where pin is not null").await.is_empty());
    let client = world.front.connect().await;
    assert_eq!(failure(&client, "select set_config('pgherd.shard', 'x', false)").await.0, "0A000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_configured_anew_is_told_of_once() {
    let mut world = World::start().await;
    let mut pair = world.pair(&[]).await;
    pair.query("select 1").await;
    let server: &Pg = world.front.herd.primary(0);
    server.sql("alter system set intervalstyle = 'iso_8601'").await;
    server.sql("select pg_reload_conf()").await;
    let mut told = Vec::new();
    eventually("the client is told", PATIENCE, async || {
        told.extend(pair.proxy.query("select 2").answers().await);
        told.iter().any(|word| word.starts_with("status")).then_some(())
    })
    .await;
    for _ in 0..4 {
        world.disturb().await;
        told.extend(pair.proxy.query("select 2").answers().await);
    }
    told.retain(|word| word.starts_with("status"));
    assert_eq!(told, ["status IntervalStyle=iso_8601"]);
}
