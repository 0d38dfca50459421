//! The tables of `sql/` on a herd, as the demo has them.
//! Must not know the proxy, nor `pgherd setup`, which tests check against this.

use super::Herd;

const EVERY_SHARD: &str = concat!(
    include_str!("../../sql/sharded/users.sql"),
    include_str!("../../sql/sharded/orders.sql"),
    include_str!("../../sql/reference/countries.sql"),
);
const SINGLE: &str = include_str!("../../sql/single/audit_log.sql");

/// Ids of shard i are i+1, i+1+128, …: `pgherd setup` chooses them so.
const INTERLEAVE: [&str; 2] = ["users_id_seq", "orders_id_seq"];

/// Creates users, orders and countries on every shard and audit_log on the shard of that number (from 0), owned by
/// `app`, with interleaved ids.
pub async fn create_demo_tables(herd: &Herd, audit_log_shard: usize) {
    for (i, shard) in herd.shards.iter().enumerate() {
        let app = shard.primary.connect_app().await;
        app.batch_execute(EVERY_SHARD).await.unwrap();
        for sequence in INTERLEAVE {
            let start = i + 1;
            let sql = format!("alter sequence {sequence} increment by 128 start {start} restart {start}");
            app.batch_execute(&sql).await.unwrap();
        }
        if i == audit_log_shard {
            app.batch_execute(SINGLE).await.unwrap();
        }
    }
    herd.caught_up().await;
}
