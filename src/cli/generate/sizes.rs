//! How much each partition holds, as the shards say.
//! Must not know how it got there.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::super::Failure;

/// By `partition_key`: rows and bytes of users.
pub(super) const USERS: &str = "SELECT partition_key, count(*), sum(pg_column_size(users.*))::bigint \
     FROM users GROUP BY partition_key";
/// By `partition_key` of their user: rows and bytes of orders.
pub(super) const ORDERS: &str = "SELECT users.partition_key, count(*), sum(pg_column_size(orders.*))::bigint \
     FROM orders JOIN users USING (user_id) GROUP BY users.partition_key";

/// One partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) users: u64,
    pub(super) orders: u64,
    pub(super) bytes: u64,
}

/// Adds the answer of one shard to [`USERS`] or [`ORDERS`].
pub(super) fn add(sizes: &mut BTreeMap<String, Size>, rows: &[Row], users: bool) -> Result<(), Failure> {
    for row in rows {
        let count: i64 = row.try_get(1)?;
        let bytes: Option<i64> = row.try_get(2)?;
        let size = sizes.entry(row.try_get(0)?).or_default();
        *(if users { &mut size.users } else { &mut size.orders }) += count.unsigned_abs();
        size.bytes += bytes.unwrap_or(0).unsigned_abs();
    }
    Ok(())
}
