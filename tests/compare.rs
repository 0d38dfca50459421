//! The contract by example: statements run on one PostgreSQL with all the rows and through the proxy over three
//! shards, and the answers are compared: rows, names and types of columns, binary values, SQLSTATEs, and what
//! writes leave behind. The statements are in `compare/*.txt`; `Block` says how they are written.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
#[path = "compare/run.rs"]
mod run;
#[path = "compare/statements.rs"]
mod statements;
#[path = "compare/worlds.rs"]
mod worlds;

use run::check_all;
use worlds::Worlds;

async fn agrees(text: &str) {
    let worlds = Worlds::start().await;
    check_all(&worlds, &statements::parse(text)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_one_shard_are_one_servers() {
    agrees(include_str!("compare/keyed.txt")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_of_several_shards_are_one_servers_or_refused() {
    agrees(include_str!("compare/spread.txt")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_leave_what_one_server_would_have_or_are_refused() {
    agrees(include_str!("compare/writes.txt")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_catalogs_look_like_one_servers() {
    agrees(include_str!("compare/session.txt")).await;
}
