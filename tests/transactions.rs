//! Transactions through the proxy: held back, on one shard, refused on a second, rolled back as a whole.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, failure, rows};

/// Users of the demo's map whose shard is known: `hashtextextended(user_id, 0) & 16383` decides.
async fn users_of_all_shards(front: &Front) -> [String; 3] {
    let pg = front.herd.primary(0);
    let mut found: [Option<String>; 3] = Default::default();
    for n in 0..100 {
        let user = format!("user_{n}");
        let slot = pg.sql(&format!("select hashtextextended('{user}', 0) & 16383")).await.remove(0);
        let shard = match slot.parse::<u16>().unwrap() {
            0..8192 => 0,
            8192..10649 => 2,
            10649..14745 => 1,
            _ => 2,
        };
        found[shard].get_or_insert(user);
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found.map(|user| user.expect("a hundred users fall on all shards"))
}

fn insert(user: &str) -> String {
    format!("insert into users (user_id, name, email) values ('{user}', 'n', 'e')")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_stays_on_the_shard_of_its_first_key() {
    let front = Front::demo(0, Changes::default()).await;
    let [one, two, _] = users_of_all_shards(&front).await;
    let client = front.connect().await;
    client.batch_execute("begin").await.unwrap();
    assert_eq!(rows(&client, "select 1").await, ["1"]);
    client.batch_execute(&insert(&two)).await.unwrap();
    let (code, message) = failure(&client, &insert(&one)).await;
    assert_eq!(code, "0A000");
    assert!(message.contains("shard2") && message.contains("shard1"), "{message}");
    assert_eq!(failure(&client, "select 1").await.0, "25P02");
    client.batch_execute("commit").await.unwrap(); // answers ROLLBACK
    assert!(rows(&client, "select user_id from users").await.is_empty());

    client.batch_execute("begin").await.unwrap();
    client.batch_execute(&insert(&one)).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    assert_eq!(rows(&client, "select user_id from users").await, [one.as_str()]);
    assert_eq!(front.herd.primary(0).sql("select user_id from users").await, [one.as_str()]);
}
