//! Finds users that exist, without reading a whole table.
//! Must not know shards: what it asks can be answered by any number of them.

use futures_util::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

use super::super::Failure;
use super::connection::Connection;
use super::failed::Failed;
use super::http::HttpConnection;

/// Enough to spread the load.
const ENOUGH: usize = 5_000;
/// Ids asked for at once.
const BATCH: usize = 500;
/// What to do when there is no table.
const NO_TABLE: &str = "create and fill the tables first: pgherd setup, pgherd generate";

/// Ids of users that exist: of generated ones if there are any, else the first that the table gives.
///
/// # Errors
/// No table, or no user.
pub(super) async fn sample(connection: &mut Connection, seed: u64) -> Result<Vec<String>, Failure> {
    let mut found = generated(connection, seed).await?;
    if found.is_empty() {
        found = match connection {
            Connection::Wire(client, _) => first_ones(client).await?,
            // No more than a server with a low http.max_rows gives.
            Connection::Http(http) => user_ids(http, &format!("limit={BATCH}")).await?,
        };
    }
    if found.is_empty() {
        return Err(Failure::new("table users is empty").remedy("fill it first: pgherd generate --scale 0.1"));
    }
    Ok(found)
}

/// Guesses numbers of `user_…` in growing ranges, until a range has none. Plain IN lists, so that every shard can
/// answer its part.
async fn generated(connection: &mut Connection, seed: u64) -> Result<Vec<String>, Failure> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut found = Vec::new();
    let mut range = 1..1_000u64;
    loop {
        let guesses: Vec<u64> = (0..BATCH).map(|_| random.random_range(range.clone())).collect();
        let hits = existing(connection, &guesses).await?;
        if hits.is_empty() {
            break;
        }
        found.extend(hits);
        range = range.end..range.end.saturating_mul(4);
    }
    // Most users are in the upper ranges; fill up from all of them alike.
    let end = range.start;
    for _ in 0..ENOUGH / BATCH {
        if found.is_empty() || found.len() >= ENOUGH {
            break;
        }
        let guesses: Vec<u64> = (0..BATCH).map(|_| random.random_range(1..end)).collect();
        found.extend(existing(connection, &guesses).await?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

async fn existing(connection: &mut Connection, numbers: &[u64]) -> Result<Vec<String>, Failure> {
    let client = match connection {
        Connection::Wire(client, _) => client,
        Connection::Http(http) => {
            let list: Vec<String> = numbers.iter().map(|n| format!("user_{n:06}")).collect();
            return user_ids(http, &format!("limit={BATCH}&user_id=in.({})", list.join(","))).await;
        }
    };
    let list: Vec<String> = numbers.iter().map(|n| format!("'user_{n:06}'")).collect();
    let sql = format!("SELECT user_id FROM users WHERE user_id IN ({})", list.join(", "));
    let rows = client.query(&sql, &[]).await.map_err(no_table)?;
    rows.iter().map(|row| row.try_get(0).map_err(Failure::from)).collect()
}

/// What the HTTP API gives of `users` for these arguments.
async fn user_ids(http: &mut HttpConnection, arguments: &str) -> Result<Vec<String>, Failure> {
    let failure = |e: Failed| {
        let failure = Failure::new(e.message).during("looking for users");
        if e.code == "42P01" { failure.remedy(NO_TABLE) } else { failure }
    };
    let rows = http.rows(&format!("/api/read?table=users&{arguments}")).await.map_err(failure)?;
    Ok(rows.iter().filter_map(|row| row.get("user_id")?.as_str().map(str::to_owned)).collect())
}

/// Reads until there are enough; what follows is thrown away with the connection.
async fn first_ones(client: &Client) -> Result<Vec<String>, Failure> {
    let no_params: [&str; 0] = [];
    let rows = client.query_raw("SELECT user_id FROM users", no_params).await.map_err(no_table)?;
    let mut rows = std::pin::pin!(rows);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        found.push(row.try_get(0)?);
        if found.len() >= ENOUGH {
            break;
        }
    }
    Ok(found)
}

fn no_table(error: tokio_postgres::Error) -> Failure {
    let missing = error.code().is_some_and(|code| code.code() == "42P01");
    let failure = Failure::from(error).during("looking for users");
    if missing { failure.remedy(NO_TABLE) } else { failure }
}
