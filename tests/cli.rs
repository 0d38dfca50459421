//! The command line as people use it: the real binary against real servers, as far as it goes without the proxy.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use common::{Herd, Port, eventually};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// What a command said and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(out: Output) -> Self {
        Self {
            code: out.status.code(),
            out: String::from_utf8(out.stdout).unwrap(),
            err: String::from_utf8(out.stderr).unwrap(),
        }
    }
}

async fn pgherd(args: &[&str]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(args).kill_on_drop(true).output().await.unwrap().into()
}

/// What Ctrl-C does.
async fn interrupt(pid: u32) {
    let kill = format!("kill -INT {pid}");
    assert!(Command::new("sh").args(["-c", &kill]).status().await.unwrap().success());
}

/// A configuration like the demo's over a herd; the partitions go round the shards. The proxy's address is the first
/// primary's: on one shard that is as good as a proxy.
fn configuration(herd: &Herd) -> (TempDir, PathBuf) {
    let shards = herd.shards.len();
    let mut text = format!("[proxy]\nlisten = [\"127.0.0.1:{}\"]\n", herd.primary(0).port);
    text.push_str("[[user]]\nname = \"app\"\npassword = \"app\"\n");
    text.push_str(
        "[[database]]\nname = \"app\"\ncontrol = { user = \"postgres\", password = \"postgres\" }\n",
    );
    for (i, shard) in herd.shards.iter().enumerate() {
        let server =
            |port: u16, role: &str| format!("{{ host = \"127.0.0.1\", port = {port}, role = \"{role}\" }}");
        let mut servers = vec![server(shard.primary.port, "primary")];
        servers.extend(shard.replicas.iter().map(|replica| server(replica.port, "replica")));
        let (n, servers) = (i + 1, servers.join(", "));
        writeln!(text, "[[database.shard]]\nname = \"shard{n}\"\nservers = [{servers}]").unwrap();
    }
    for (i, (name, weight)) in [("A", 30), ("B", 20), ("C", 15), ("D", 25), ("E", 10)].iter().enumerate() {
        let shard = i % shards + 1;
        writeln!(
            text,
            "[[database.partition]]\nname = \"{name}\"\nweight = {weight}\nshard = \"shard{shard}\""
        )
        .unwrap();
    }
    let last = shards;
    writeln!(
        text,
        "[[database.table]]\nname = \"users\"\nplacement = \"sharded\"\n\
         keys = [{{ column = \"user_id\", method = \"hash\" }}, {{ column = \"partition_key\", method = \"list\" }}]\n\
         [[database.table]]\nname = \"orders\"\nplacement = \"sharded\"\n\
         keys = [{{ column = \"user_id\", method = \"hash\" }}]\n\
         [[database.table]]\nname = \"countries\"\nplacement = \"reference\"\n\
         [[database.table]]\nname = \"audit_log\"\nplacement = \"single\"\nshard = \"shard{last}\""
    )
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn wrong_usage_ends_with_2_help_with_0_and_a_missing_configuration_with_1() {
    assert_eq!(pgherd(&["nonsense"]).await.code, Some(2));
    assert_eq!(pgherd(&["generate", "--append", "--replace"]).await.code, Some(2));
    let help = pgherd(&["--help"]).await;
    assert_eq!(help.code, Some(0));
    for command in ["run", "check", "demo", "cluster", "setup", "generate", "load-test", "Examples:"] {
        assert!(help.out.contains(command), "{command} is missing in:\n{}", help.out);
    }
    let missing = pgherd(&["check", "-c", "/nowhere/proxy.toml"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("/nowhere/proxy.toml"), "{missing:?}");
}

#[tokio::test]
async fn setup_puts_each_table_where_it_belongs_and_can_be_repeated() {
    let herd = Herd::start(2, 0).await;
    let (_dir, config) = configuration(&herd);
    let first = pgherd(&["setup", "-c", text(&config)]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.out.contains("users.id: next ids 1, 2, in steps of 128"), "{first:?}");
    for (shard, table, want) in [
        (0, "users", "users"),
        (1, "orders", "orders"),
        (0, "countries", "countries"),
        (0, "audit_log", "NULL"),
        (1, "audit_log", "audit_log"),
    ] {
        let found = herd.primary(shard).sql(&format!("select to_regclass('{table}')")).await;
        assert_eq!(found, [want], "{table} on shard {shard}");
    }
    let app = herd.primary(0).connect_app().await;
    let insert =
        "insert into users (user_id, name, email, partition_key) values ('u', 'n', 'e', 'A') returning id";
    assert_eq!(app.query_one(insert, &[]).await.unwrap().get::<_, i32>(0), 1);
    app.batch_execute("alter table users add note text; alter table users drop note").await.unwrap();
    let again = pgherd(&["setup", "-c", text(&config)]).await;
    assert!(again.code == Some(0) && !again.out.contains("next ids"), "{again:?}");
    assert_eq!(app.query_one(insert, &[]).await.unwrap().get::<_, i32>(0), 129);
    assert_eq!(herd.primary(0).sql("select count(*) from countries").await, ["22"]);
}

#[tokio::test]
async fn setup_of_tables_with_rows_never_gives_an_id_twice() {
    let herd = Herd::start(2, 0).await;
    let (_dir, config) = configuration(&herd);
    let users = include_str!("../sql/sharded/users.sql");
    herd.sql(users).await;
    let some = "insert into users (user_id, name, email, partition_key) select 'u', 'n', 'e', 'A' from \
                generate_series(1, 300)";
    herd.primary(1).sql(some).await;
    herd.primary(0).sql("alter table users alter id drop default").await;
    herd.primary(0)
        .sql("insert into users (id, user_id, name, email, partition_key) values (777, 'u', 'n', 'e', 'A')")
        .await;
    herd.primary(0).sql("alter table users alter id set default nextval('users_id_seq')").await;
    let said = pgherd(&["setup", "-c", text(&config)]).await;
    assert!(said.out.contains("users.id: next ids 897, 898"), "{said:?}");
    let insert =
        "insert into users (user_id, name, email, partition_key) values ('u', 'n', 'e', 'A') returning id";
    for shard in 0..2 {
        let id: i64 = herd.primary(shard).sql(insert).await[0].parse().unwrap();
        assert!(id > 777 && id % 128 == shard as i64 + 1, "{id} on shard {shard}");
    }
}

#[tokio::test]
async fn check_names_what_is_wrong_and_how_to_put_it_right() {
    let mut herd = Herd::start(2, 1).await;
    let (_dir, config) = configuration(&herd);
    let before = pgherd(&["check", "-c", text(&config)]).await;
    assert_eq!(before.code, Some(1));
    assert!(before.out.contains("run: pgherd setup"), "{before:?}");
    pgherd(&["setup", "-c", text(&config)]).await;
    eventually("all replicas stream", Duration::from_secs(30), async || {
        (pgherd(&["check", "-c", text(&config)]).await.out.contains("nothing wrong")).then_some(())
    })
    .await;

    herd.primary(0).sql("alter table orders alter user_id type varchar(60)").await;
    herd.primary(1).sql("drop table countries").await;
    herd.shards[1].replicas[0].stop().await;
    let schema = pgherd(&["check", "-c", text(&config)]).await;
    herd.shards[0].replicas[0].sql("select pg_promote()").await;
    let roles = pgherd(&["check", "-c", text(&config)]).await;
    for (said, what) in [
        (&schema, "differs between shard1 and shard2: user_id character varying(60)"),
        (&schema, "table public.countries"),
        (&schema, "does not exist on shard2"),
        (&schema, "Connection refused"),
        (&roles, "2 primaries"),
        (&roles, "but role = \"replica\""),
    ] {
        assert_eq!(said.code, Some(1));
        assert!(said.out.contains(what), "{what} is missing in:\n{}", said.out);
    }
}

#[tokio::test]
async fn keys_that_cannot_be_hashed_as_the_server_does_are_errors() {
    let herd = Herd::start(1, 0).await;
    let (_dir, config) = configuration(&herd);
    pgherd(&["setup", "-c", text(&config)]).await;
    let pg = herd.primary(0);
    pg.sql("alter table orders alter user_id type numeric using 1").await;
    pg.sql("create collation ci (provider = icu, locale = 'und', deterministic = false)").await;
    pg.sql("alter table users alter user_id type varchar(50) collate ci").await;
    let said = pgherd(&["check", "-c", text(&config)]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("its key user_id is of type numeric"), "{said:?}");
    assert!(said.out.contains("nondeterministic collation ci"), "{said:?}");
    assert!(said.out.contains("smallint, integer, bigint, text"), "{said:?}");
}

#[tokio::test]
async fn generated_partitions_have_their_sizes_and_their_own_users() {
    let herd = Herd::start(1, 0).await;
    let (_dir, config) = configuration(&herd);
    let pg = herd.primary(0);
    let early = pgherd(&["generate", "-c", text(&config), "--scale", "0.01"]).await;
    assert!(early.code == Some(1) && early.err.contains("pgherd setup"), "{early:?}");
    pgherd(&["setup", "-c", text(&config)]).await;
    let said = pgherd(&["generate", "-c", text(&config), "--scale", "0.01"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");

    let sizes = pg.sql("with o as (select user_id, sum(pg_column_size(orders.*)) as bytes from orders group by 1)
                        select sum(pg_column_size(users.*) + coalesce(o.bytes, 0)) from users left join o using (user_id)
                        group by partition_key order by partition_key").await;
    for (bytes, percent) in sizes.iter().zip([30, 20, 15, 25, 10]) {
        let (bytes, want) = (bytes.parse::<i64>().unwrap(), percent * 1024 * 1024 / 100);
        assert!((want..want + 1500).contains(&bytes), "{bytes} of {want}");
    }
    let slots = "select count(*) from users where partition_key <> (case
                   when slot < 4915 then 'A' when slot < 8192 then 'B' when slot < 10649 then 'C'
                   when slot < 14745 then 'D' else 'E' end)";
    let slots = slots.replace("slot", "(hashtextextended(user_id, 0) & 16383)");
    assert_eq!(pg.sql(&slots).await, ["0"], "the server's own hash says the same");
    assert_eq!(
        pg.sql("select count(*) from orders left join users using (user_id) where users.id is null").await,
        ["0"]
    );
    assert_ne!(pg.sql("select count(*) from audit_log").await, ["0"]);

    let count = pg.sql("select count(*) from users").await;
    let again = pgherd(&["generate", "-c", text(&config), "--scale", "0.01"]).await;
    assert!(
        again.code == Some(1) && again.err.contains("--append") && again.err.contains("--replace"),
        "{again:?}"
    );
    let replaced = pgherd(&["generate", "-c", text(&config), "--scale", "0.01", "--replace"]).await;
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert_eq!(pg.sql("select count(*) from users").await, count, "the same seed gives the same rows");
    let appended = pgherd(&["generate", "-c", text(&config), "--scale", "0.01", "--append"]).await;
    assert_eq!(appended.code, Some(0), "{appended:?}");
    assert_eq!(pg.sql("select count(*) - count(distinct user_id) from users").await, ["0"]);
}

#[tokio::test]
async fn a_load_test_counts_every_statement_and_groups_errors() {
    let mut herd = Herd::start(1, 0).await;
    let (dir, config) = configuration(&herd);
    let url = format!("postgres://app:app@127.0.0.1:{}/app?sslmode=disable", herd.primary(0).port);
    let unready = pgherd(&["load-test", "--url", &url, "--duration", "1s"]).await;
    assert!(unready.code == Some(1) && unready.err.contains("pgherd setup"), "{unready:?}");
    pgherd(&["setup", "-c", text(&config)]).await;
    let empty = pgherd(&["load-test", "--url", &url, "--duration", "1s"]).await;
    assert!(empty.code == Some(1) && empty.err.contains("pgherd generate"), "{empty:?}");
    pgherd(&["generate", "-c", text(&config), "--scale", "0.005"]).await;

    let (json, plot) = (dir.path().join("result.json"), dir.path().join("result.svg"));
    for protocol in ["simple", "extended", "prepared"] {
        let orders = "select count(*) from orders where order_id like 'load_%'";
        let before: i64 = herd.primary(0).sql(orders).await[0].parse().unwrap();
        let said = pgherd(&[
            "load-test",
            "--url",
            &url,
            "--duration",
            "1s",
            "--concurrency",
            "4",
            "--write-ratio",
            "0.5",
            "--protocol",
            protocol,
            "--strict",
            "--json",
            text(&json),
            "--plot",
            text(&plot),
        ])
        .await;
        assert!(said.code == Some(0) && said.out.contains("no errors"), "{protocol}: {said:?}");
        let result: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
        let operations = result["operations"].as_array().unwrap();
        let insert = operations.iter().find(|line| line["operation"] == "insert order").unwrap();
        let after: i64 = herd.primary(0).sql(orders).await[0].parse().unwrap();
        assert_eq!(insert["ok"].as_i64(), Some(after - before), "{protocol}");
        assert!(
            insert["p999_us"].as_u64() >= insert["p50_us"].as_u64() && insert["p50_us"].as_u64() > Some(0)
        );
        let steps = result["series"].as_array().unwrap().iter().filter_map(|s| s["ok"].as_u64());
        assert!(steps.sum::<u64>() <= operations.last().unwrap()["ok"].as_u64().unwrap());
        let svg = std::fs::read_to_string(&plot).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("insert order"), "{protocol}: {svg}");
        assert!(svg.contains(&format!("4 connections to 127.0.0.1:{}/app", herd.primary(0).port)));
    }

    // Every failure is counted under its SQLSTATE; a crash in between is survived by connecting again.
    let spoil = "alter table users owner to postgres; grant select on users to app;
                 alter table orders add check (amount < 0) not valid";
    herd.primary(0).sql(spoil).await;
    let args =
        ["load-test", "--url", &url, "--duration", "120s", "--write-ratio", "0.5", "--json", text(&json)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.args(args).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    let test = command.spawn().unwrap();
    let pid = test.id().unwrap();
    let crash = async {
        // More than one: the first connection only looks for users.
        let running = "select 1 from pg_stat_activity where application_name = 'pgherd' having count(*) > 4";
        let pg = &mut herd.shards[0].primary;
        eventually("the load test is at work", Duration::from_secs(30), async || {
            (!pg.sql(running).await.is_empty()).then_some(())
        })
        .await;
        pg.kill_immediate().await;
        pg.restart().await;
        // However slow the machine: a crash resets these, so that what they count came after it.
        let worked = "select 1 from pg_stat_database
                      where datname = 'app' and xact_commit > 300 and xact_rollback > 100";
        eventually("the load test is at work again", Duration::from_secs(60), async || {
            (!pg.sql(worked).await.is_empty()).then_some(())
        })
        .await;
        interrupt(pid).await; // ends it early
    };
    let (said, ()) = tokio::join!(test.wait_with_output(), crash);
    let said = Said::from(said.unwrap());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("42501") && said.out.contains("23514"), "{}", said.out);
    let result: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    let all = result["operations"].as_array().unwrap().last().unwrap().clone();
    let errors = result["errors"].as_array().unwrap();
    let failed: u64 =
        errors.iter().filter(|e| e["connecting"] == false).filter_map(|e| e["count"].as_u64()).sum();
    assert_eq!(all["failed"].as_u64(), Some(failed), "each failure is in the list of errors");
    assert!(all["ok"].as_u64() > Some(100), "{all}");
}

#[tokio::test]
async fn an_interrupted_start_leaves_nothing_running_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let data = dir.path().join("data");
    let ports = Port::reserve_block(2);
    let base = ports[0].number().to_string();
    let up = ["cluster", "up", "--shards", "1", "--port-base", &base, "--data-dir", text(&data)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    let mut child = command.args(up).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.starts_with("making the data directories"), "{line}");
    interrupt(child.id().unwrap()).await;
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("error: interrupted"));
    let which = ["cluster", "status", "--data-dir", text(&data)];
    let status = pgherd(&which).await;
    assert!(!status.out.contains("running"), "{status:?}");

    let again = pgherd(&up).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(pgherd(&which).await.out.matches("running").count(), 2);
    let down = pgherd(&["cluster", "down", "--data-dir", text(&data)]).await;
    assert!(down.code == Some(0) && down.out.contains("stopped 2 servers"), "{down:?}");
}
