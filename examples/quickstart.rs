//! pgherd from Rust, with tokio-postgres: `cargo run --example quickstart` while `pgherd demo` runs.
//! Another place to connect to: DATABASE_URL=postgres://user:password@host:port/database.

use tokio_postgres::{Client, Error, NoTls};

const DEMO: &str = "postgres://app:app@127.0.0.1:6432/app";
const EMAIL: &str = "quickstart-rust@example.com";

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| DEMO.to_owned());
    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);

    let users: Vec<String> = (1..=6).map(|n| format!("quickstart-rust-{n}")).collect();
    insert_users(&client, &users).await?;
    order_in_a_transaction(&mut client, &users[0]).await?;
    read_by_join(&client, &users[0]).await?;
    read_all_shards(&client).await?;
    see_a_refusal(&client).await?;
    clean_up(&client, &users).await
}

/// One prepared statement for users of several shards. partition_key is left out: pgherd fills it in.
async fn insert_users(client: &Client, users: &[String]) -> Result<(), Error> {
    let sql = "INSERT INTO users (user_id, name, email) VALUES ($1, $2, $3) RETURNING partition_key";
    let insert = client.prepare(sql).await?;
    for user in users {
        let row = client.query_one(&insert, &[user, &"Ada", &EMAIL]).await?;
        println!("inserted {user} into partition {}", row.get::<_, &str>(0));
    }
    Ok(())
}

/// All statements of a transaction belong to one shard: here to that of one user.
async fn order_in_a_transaction(client: &mut Client, user: &str) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    for (order, cents) in [("first", 999_i64), ("second", 1250)] {
        let sql = "INSERT INTO orders (user_id, order_id, amount) VALUES ($1, $2, $3::bigint / 100.0)";
        transaction.execute(sql, &[&user, &order, &cents]).await?;
    }
    let sql = "UPDATE users SET name = 'Ada, a customer' WHERE user_id = $1";
    let updated = transaction.execute(sql, &[&user]).await?;
    transaction.commit().await?;
    println!("committed 2 orders, {updated} user renamed");
    Ok(())
}

/// Both tables are sharded by user_id, so a join on it stays on one shard.
async fn read_by_join(client: &Client, user: &str) -> Result<(), Error> {
    let sql = "SELECT name, order_id, amount::text FROM orders JOIN users USING (user_id) \
               WHERE user_id = $1 ORDER BY order_id";
    for row in client.query(sql, &[&user]).await? {
        let (name, order, amount): (&str, &str, &str) = (row.get(0), row.get(1), row.get(2));
        println!("{name}: {order} order, {amount}");
    }
    Ok(())
}

/// Without a key every shard is asked, and their rows come in any order.
async fn read_all_shards(client: &Client) -> Result<(), Error> {
    let sql = "SELECT user_id FROM users WHERE email = $1";
    let mut found: Vec<String> = client.query(sql, &[&EMAIL]).await?.iter().map(|row| row.get(0)).collect();
    found.sort();
    println!("found on all shards: {}", found.join(", "));
    Ok(())
}

/// What pgherd cannot answer exactly it refuses, with a hint. The client can go on.
async fn see_a_refusal(client: &Client) -> Result<(), Error> {
    match client.query("SELECT * FROM users ORDER BY name LIMIT 10", &[]).await {
        Ok(rows) => println!("answered with {} rows", rows.len()),
        Err(e) => {
            let Some(refusal) = e.as_db_error() else { return Err(e) };
            println!("refused with {}: {}", refusal.code().code(), refusal.message());
            println!("hint: {}", refusal.hint().unwrap_or("none"));
        }
    }
    Ok(())
}

async fn clean_up(client: &Client, users: &[String]) -> Result<(), Error> {
    for user in users {
        client.execute("DELETE FROM orders WHERE user_id = $1", &[user]).await?;
        client.execute("DELETE FROM users WHERE user_id = $1", &[user]).await?;
    }
    Ok(())
}
