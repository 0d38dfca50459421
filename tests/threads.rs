//! The process with one worker, which is its main thread, and with several.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Herd, PATIENCE, Port, Process, eventually};
use tokio_postgres::NoTls;

/// A proxy with so many workers.
fn started(dir: &Path, workers: usize, port: u16, herd: &Herd) -> Process {
    let file = dir.join("proxy.toml");
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:{port}\"]\nworkers = {workers}\n\
         [[user]]\nname = \"app\"\ntrust = true\nserver_password = \"app\"\n\
         [[database]]\nname = \"app\"\n[[database.shard]]\nname = \"s\"\n\
         servers = [{{ host = \"127.0.0.1\", port = {} }}]\n",
        herd.primary(0).port
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
    command.arg("-c").arg(file);
    Process::started(command)
}

async fn connected(port: u16) -> tokio_postgres::Client {
    let url = format!("host=127.0.0.1 port={port} user=app dbname=app");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn one_worker_is_the_only_thread_and_several_are_others() {
    let herd = Herd::start(1, 0).await;
    for workers in [1, 2] {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::reserve());
        let mut process = started(dir.path(), workers, port.number(), &herd);
        let client = connected(port.number()).await;
        client.simple_query("SELECT 1").await.unwrap();
        // Threads that have derived keys at the start end when nobody has anything more for them.
        let want = if workers == 1 { 1 } else { 1 + workers };
        eventually("only its workers are left", PATIENCE, async || (process.threads() == want).then_some(()))
            .await;
        drop(client);
        process.terminate();
        process.ended().await;
    }
}

/// What nests deep, or chains long, is taken apart by functions that call themselves.
#[tokio::test]
async fn deep_statements_have_room_on_the_stack_of_the_main_thread_and_of_others() {
    let herd = Herd::start(1, 0).await;
    let texts = [
        format!("select 1{}", "+1".repeat(100_000)),
        format!("select 1{}", " union all select 1".repeat(20_000)),
        format!("select relname from pg_class where relname = 'a'{}", " or relname = 'a'".repeat(60_000)),
        format!("select 1{}", "::int".repeat(100_000)),
        format!("select array[1]::int{}", "[]".repeat(32_700)),
    ];
    for workers in [1, 2] {
        let (dir, port) = (tempfile::tempdir().unwrap(), Port::reserve());
        let mut process = started(dir.path(), workers, port.number(), &herd);
        let client = connected(port.number()).await;
        for text in &texts {
            // Some of them PostgreSQL itself refuses.
            if let Err(error) = client.simple_query(text).await {
                assert!(error.as_db_error().is_some(), "{error:?}");
            }
            client.simple_query("SELECT 1").await.unwrap();
        }
        drop(client);
        process.terminate();
        process.ended().await;
    }
}
