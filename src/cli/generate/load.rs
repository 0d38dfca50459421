//! Sends drawn rows through the proxy: one COPY stream per shard and table, named by a hint.
//! Must not know what is in the rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::future::try_join_all;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio_postgres::Client;

use super::super::Failure;
use super::super::client::Target;
use super::draw::Draw;
use super::sizes::{self, Size};
use crate::config::Database;
use crate::shard::{ShardId, TableName};

/// Bytes sent at once.
const CHUNK: usize = 64 * 1024;

const USERS: &str = "COPY users (user_id, name, email, created_at, partition_key) FROM STDIN";
const ORDERS: &str = "COPY orders (user_id, order_id, amount, created_at) FROM STDIN";

/// Loads one database.
pub(super) struct Loader<'a> {
    target: &'a Target,
    database: &'a Database,
}

impl<'a> Loader<'a> {
    pub(super) fn new(target: &'a Target, database: &'a Database) -> Self {
        Self { target, database }
    }

    /// The highest number of a generated user; `None` if there is none.
    pub(super) async fn last_number(&self) -> Result<Option<u64>, Failure> {
        let sql = "SELECT max(substring(user_id FROM '^user_([0-9]{6,18})$')::bigint) FROM users";
        let client = self.target.connect_first().await?;
        let mut last = None;
        for shard in self.shards() {
            let row = client.query_one(&self.on(shard, sql), &[]).await.map_err(|e| {
                let no_table = e.code().is_some_and(|code| code.code() == "42P01");
                let failure = Failure::from(e);
                if no_table { failure.remedy("create the tables first: pgherd setup") } else { failure }
            })?;
            last = last.max(row.try_get::<_, Option<i64>>(0)?);
        }
        Ok(last.and_then(|n| u64::try_from(n).ok()))
    }

    /// Whether an earlier load came to its end: audit records are its last step. Without their table: no telling.
    pub(super) async fn is_complete(&self) -> Result<bool, Failure> {
        if !self.has_audit_log() {
            return Ok(true);
        }
        let client = self.target.connect_first().await?;
        let sql = "SELECT 1 FROM audit_log WHERE action = 'signup' LIMIT 1";
        Ok(client.query_opt(sql, &[]).await.map_err(Failure::sql("audit_log"))?.is_some())
    }

    /// Empties the tables.
    pub(super) async fn empty(&self) -> Result<(), Failure> {
        let client = self.target.connect_first().await?;
        for shard in self.shards() {
            client
                .batch_execute(&self.on(shard, "TRUNCATE users, orders"))
                .await
                .map_err(Failure::sql("emptying"))?;
        }
        if self.has_audit_log() {
            client.batch_execute("TRUNCATE audit_log").await.map_err(Failure::sql("emptying audit_log"))?;
        }
        Ok(())
    }

    /// Loads users and orders, all shards at once; each shard's users before their orders.
    pub(super) async fn load(&self, draw: &Draw<'_>) -> Result<(), Failure> {
        let bars = MultiProgress::new(); // hidden where stderr is no terminal
        let style = "{prefix:10} {bar:32} {binary_bytes:>11} of {binary_total_bytes}  {binary_bytes_per_sec:>13}  {eta}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let shards = self.shards().filter(|shard| draw.bytes_of(*shard) > 0).map(|shard| {
            let bar = bars.add(ProgressBar::new(draw.bytes_of(shard)).with_style(style.clone()));
            bar.set_prefix(self.name(shard).to_owned());
            self.load_shard(shard, draw, bar)
        });
        let done: Result<Vec<()>, Failure> = try_join_all(shards).await;
        done.map(drop).map_err(|e| e.remedy("what was loaded stays; start over with --replace"))
    }

    async fn load_shard(&self, shard: ShardId, draw: &Draw<'_>, bar: ProgressBar) -> Result<(), Failure> {
        let during = |e: Failure| e.during(format_args!("loading {}", self.name(shard)));
        let client = self.target.connect_first().await?;
        self.copy(&client, shard, USERS, draw, &bar, Table::Users).await.map_err(during)?;
        self.copy(&client, shard, ORDERS, draw, &bar, Table::Orders).await.map_err(during)?;
        bar.finish();
        Ok(())
    }

    async fn copy(
        &self,
        client: &Client,
        shard: ShardId,
        sql: &str,
        draw: &Draw<'_>,
        bar: &ProgressBar,
        table: Table,
    ) -> Result<(), Failure> {
        let sink = client.copy_in::<_, Bytes>(&self.on(shard, sql)).await?;
        let mut sink = std::pin::pin!(sink);
        let mut chunk = String::with_capacity(CHUNK + 1024);
        let mut rows = 0u64;
        for drawn in draw.users() {
            let drawn = drawn?;
            if self.database.map.shard_of(drawn.partition) != shard {
                continue;
            }
            let key = draw.partition_key(drawn.partition);
            match table {
                Table::Users => {
                    drawn.user.copy_line(key, &mut chunk);
                    bar.inc(drawn.user.bytes(key));
                    rows += 1;
                }
                Table::Orders => {
                    for nth in 0..drawn.user.orders {
                        let order = draw.seed().order(drawn.number, nth);
                        order.copy_line(&drawn.user.user_id, &mut chunk);
                        bar.inc(order.bytes(&drawn.user.user_id));
                        rows += 1;
                    }
                }
            }
            if chunk.len() >= CHUNK {
                sink.send(Bytes::from(std::mem::take(&mut chunk))).await?;
                chunk.reserve(CHUNK + 1024);
            }
        }
        sink.send(Bytes::from(chunk)).await?;
        let stored = sink.as_mut().finish().await?;
        if stored == rows {
            return Ok(());
        }
        Err(Failure::new(format!("sent {rows} rows, but {stored} were stored")))
    }

    /// Some records of the first users, by plain INSERTs; only if the configuration has the table.
    pub(super) async fn audit(&self, draw: &Draw<'_>, scale: f64) -> Result<(), Failure> {
        if !self.has_audit_log() {
            return Ok(());
        }
        let client = self.target.connect_first().await?;
        let sql = "INSERT INTO audit_log (user_id, action, detail) VALUES ($1, $2, $3)";
        let insert = client.prepare(sql).await.map_err(Failure::sql("audit_log"))?;
        let records = ((scale * 1000.0) as usize).clamp(20, 1000);
        for drawn in draw.users().take(records) {
            let drawn = drawn?;
            let detail = format!("{} signed up with {} orders", drawn.user.name, drawn.user.orders);
            client.execute(&insert, &[&drawn.user.user_id, &"signup", &detail]).await?;
        }
        Ok(())
    }

    /// What is there now, by `partition_key`.
    pub(super) async fn sizes(&self) -> Result<BTreeMap<String, Size>, Failure> {
        let client = self.target.connect_first().await?;
        let mut sizes = BTreeMap::new();
        for shard in self.shards() {
            for sql in [sizes::USERS, sizes::ORDERS] {
                let rows =
                    client.query(&self.on(shard, sql), &[]).await.map_err(Failure::sql("measuring"))?;
                sizes::add(&mut sizes, &rows, sql == sizes::USERS)?;
            }
        }
        Ok(sizes)
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        self.database.map.all().iter()
    }

    fn name(&self, shard: ShardId) -> &str {
        self.database.map.shard_name(shard)
    }

    /// The statement for exactly this shard.
    fn on(&self, shard: ShardId, sql: &str) -> String {
        format!("/* pgherd: shard={} */ {sql}", self.name(shard))
    }

    fn has_audit_log(&self) -> bool {
        self.database.map.tables.contains_key(&TableName::new("public", "audit_log"))
    }
}

#[derive(Debug, Clone, Copy)]
enum Table {
    Users,
    Orders,
}
