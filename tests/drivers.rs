//! Real clients through the proxy: the examples in three languages, psql and pgbench, on real servers.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::process::{Output, Stdio};

use common::{Changes, Front};
use tokio::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What every quickstart prints, but for its name and its users' partitions.
const STORY: [&str; 6] = [
    "committed 2 orders, 1 user renamed",
    "Ada, a customer: first order, 9.99",
    "Ada, a customer: second order, 12.50",
    "found on all shards: quickstart-",
    "refused with 0A000: ORDER BY over table \"users\" on several shards",
    "hint: Add \"user_id\" = value",
];

async fn run(command: &mut Command, front: &Front) -> Output {
    let url = format!("postgres://app:app@127.0.0.1:{}/app", front.port);
    command
        .env("DATABASE_URL", url)
        .env("PGPASSWORD", "app")
        .env("NO_COLOR", "1")
        .current_dir(ROOT)
        .stdin(Stdio::null());
    command
        .output()
        .await
        .unwrap_or_else(|e| panic!("{command:?}: {e}; run ./test.sh, which installs what tests need"))
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tells_the_story(who: &str, output: &Output) {
    let told = text(output);
    assert!(output.status.success(), "{who}: {told}");
    let inserted: Vec<&str> = told.lines().filter(|l| l.starts_with("inserted quickstart-")).collect();
    assert_eq!(inserted.len(), 6, "{who}: {told}");
    let mut at = 0;
    for line in STORY {
        at += told[at..].find(line).unwrap_or_else(|| panic!("{who} did not print {line:?}:\n{told}"));
    }
}

/// The example as cargo built it beside this test.
fn rust_example() -> std::path::PathBuf {
    let this = std::env::current_exe().unwrap();
    let built = this.parent().and_then(|deps| deps.parent()).unwrap().join("examples/quickstart");
    assert!(built.exists(), "{} is not built: run cargo test, or cargo build --examples", built.display());
    built
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_examples_work_in_three_languages() {
    let front = Front::demo(1, Changes::default()).await;
    tells_the_story("tokio-postgres", &run(&mut Command::new(rust_example()), &front).await);
    let python = format!("{ROOT}/target/venv/bin/python");
    tells_the_story("psycopg", &run(Command::new(python).arg("examples/python/quickstart.py"), &front).await);
    tells_the_story(
        "node-postgres",
        &run(Command::new("node").arg("examples/node/quickstart.js"), &front).await,
    );
}

async fn psql(front: &Front, args: &[&str]) -> String {
    let mut command = Command::new("psql");
    command.args([
        "-X",
        "-A",
        "-t",
        "-h",
        "127.0.0.1",
        "-U",
        "app",
        "-d",
        "app",
        "-p",
        &front.port.to_string(),
    ]);
    text(&run(command.args(args), front).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_feels_at_home() {
    let front = Front::demo(1, Changes::default()).await;
    let tables = psql(&front, &["-c", "\\d"]).await;
    for table in ["users", "orders", "countries"] {
        assert!(tables.contains(&format!("public|{table}|table|app")), "{tables}");
    }
    let users = psql(&front, &["-c", "\\d users"]).await;
    assert!(users.contains("partition_key|character varying(10)"), "{users}");
    let inserted = psql(
        &front,
        &["-c", "insert into users (user_id, name, email) values ('u', 'n', 'e') returning user_id"],
    );
    assert!(inserted.await.starts_with("u\nINSERT 0 1"));
    let wrong = "insert into users (user_id, name, email, partition_key) values ('u', 'n', 'e', 'Z')";
    assert!(psql(&front, &["-c", wrong]).await.contains("ERROR:  "), "a partition Z there is none");
    let copied =
        psql(&front, &["-c", "\\copy audit_log (user_id, action) from stdin with (format csv)"]).await;
    assert!(copied.contains("COPY 0"), "{copied}");
    let chained = psql(&front, &["-c", "begin", "-c", "select 1", "-c", "rollback"]).await;
    assert_eq!(chained, "BEGIN\n1\nROLLBACK\n");
}

/// psql's features, pg_dump | pg_restore in three formats, pgbench's TPC-B in three protocols: what the suites of drivers
/// run of PostgreSQL's own programs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_of_postgresql_cannot_tell_the_difference() {
    let front = Front::plain(0, Changes::default()).await;
    front.herd.primary(0).sql("create database tools template template0").await;
    let entry = "[[database]]\nname = \"app\"";
    let port = front.herd.shards[0].primary.port;
    let any = format!(
        "[[user]]\nname = \"postgres\"\npassword = \"postgres\"\n[[database]]\nname = \"*\"\n\
         control = {{ user = \"postgres\", password = \"postgres\", probe_timeout_ms = 20000 }}\n\
         [[database.shard]]\nname = \"only\"\n\
         servers = [{{ host = \"127.0.0.1\", port = {port} }}]\n{entry}"
    );
    front.reconfigure(entry, &any);
    front.admin().await.batch_execute("RELOAD").await.unwrap();
    let program = "PGPASSWORD=postgres exec bash scripts/driver_suites/programs/tools.sh";
    let mut shell = Command::new("bash");
    shell.args(["-c", program]).env("PGHOST", "127.0.0.1").env("PGPORT", front.port.to_string());
    shell.env("PGUSER", "postgres").env("PGDATABASE", "tools");
    let told = text(&run(&mut shell, &front).await);
    let good = told.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(good == 25 && !told.contains("not ok"), "{good} of 25:\n{told}");
}

/// What a program prints on the server itself and through the proxy.
async fn prints_the_same(front: &Front, program: &str) {
    let python = format!("{ROOT}/target/venv/bin/python");
    let on = async |port: u16| {
        let mut command = Command::new(&python);
        command
            .arg(program)
            .env("DATABASE_URL", format!("postgres://app:app@127.0.0.1:{port}/app"))
            .current_dir(ROOT)
            .stdin(Stdio::null());
        let output = command.output().await;
        let output =
            output.unwrap_or_else(|e| panic!("{python}: {e}; run ./test.sh, which installs what tests need"));
        let told = text(&output);
        assert!(output.status.success(), "{program}: {told}");
        told
    };
    let alone = on(front.herd.primary(0).port).await;
    assert!(alone.lines().count() > 10, "{alone}");
    assert_eq!(alone, on(front.port).await, "{program}; left: the server, right: the proxy");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlalchemy_cannot_tell_the_difference() {
    let front = Front::plain(0, Changes { pool: "size = 2", ..Changes::default() }).await;
    prints_the_same(&front, "tests/drivers/on_sqlalchemy.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn django_migrates_there_and_back_and_cannot_tell_the_difference() {
    let front = Front::plain(0, Changes { pool: "size = 2", ..Changes::default() }).await;
    prints_the_same(&front, "tests/drivers/on_django.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let front = Front::demo(0, Changes::default()).await;
    let said = async |user: &str| {
        let url = format!("postgres://{user}:wrong@127.0.0.1:{}/app", front.port);
        let output = Command::new("psql").args(["-X", &url, "-c", "select 1"]).output().await.unwrap();
        assert!(!output.status.success());
        text(&output).replace(user, "USER")
    };
    let (known, unknown) = (said("app").await, said("nobody_here").await);
    assert_eq!(known, unknown);
    assert!(known.contains("password authentication failed for user \"USER\""), "{known}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbench_reads_by_key_with_64_clients_in_every_protocol() {
    let front = Front::demo(1, Changes::default()).await;
    let client = front.connect().await;
    for n in 0..50 {
        let sql = format!("insert into users (user_id, name, email) values ('{n}', 'n', 'e')");
        client.batch_execute(&sql).await.unwrap();
    }
    let script = tempfile::NamedTempFile::new().unwrap();
    // In the text a literal, in the other protocols a parameter: each is a key that fixes the shard.
    let by_key = "\\set n random(0, 49)\nselect user_id, name from users where user_id = :n::text;\n";
    std::fs::write(script.path(), by_key).unwrap();
    for mode in ["simple", "extended", "prepared"] {
        let mut command = Command::new("pgbench");
        command.args(["-n", "-h", "127.0.0.1", "-U", "app", "-p", &front.port.to_string(), "-M", mode]);
        command.args(["-c", "64", "-j", "2", "-t", "30", "-f"]).arg(script.path()).arg("app");
        let output = run(&mut command, &front).await;
        let told = text(&output);
        assert!(output.status.success(), "{mode}: {told}");
        assert!(told.contains("number of transactions actually processed: 1920/1920"), "{mode}: {told}");
        assert!(told.contains("number of failed transactions: 0"), "{mode}: {told}");
    }
}
