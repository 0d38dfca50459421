//! How much each shard and each partition holds: estimates, asked of a server now and then.
//! Must not know who wants to know.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::status::Health;
use super::topology::{Cluster, Schema};
use crate::config::Role;
use crate::pool::{ControlError, ControlPool};
use crate::shard::{Key, KeyColumn, KeyType, Map, Method, PartitionId, Placement, ShardId, TableName};

/// Longest wait for the sizes of one shard.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pages of a table that are read for a sample: about 512 kB, some thousand rows.
const SAMPLED_PAGES: f64 = 64.0;

/// What one shard holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSize {
    /// The shard.
    pub shard: ShardId,
    /// Its database with all in it, bytes.
    pub bytes: u64,
    /// The partitions that are placed there.
    pub partitions: BTreeMap<PartitionId, PartitionSize>,
}

/// What the rows of one partition take, estimated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionSize {
    /// Its part of the sharded tables, with their indexes and TOAST, bytes.
    pub bytes: u64,
    /// Rows in sharded tables.
    pub rows: u64,
}

/// A table's key column as it is sampled.
struct Sampled<'a> {
    table: &'a TableName,
    column: &'a KeyColumn,
    kind: KeyType,
}

impl Cluster {
    /// The sizes of all shards, each asked of a replica that is well, or else of its primary. Cheap: sizes of files,
    /// and a few pages of each sharded table to see how its rows are divided among partitions. Or why not.
    pub async fn sizes(&self) -> Vec<(ShardId, Result<ShardSize, String>)> {
        let Some(schema) = self.schema() else { return Vec::new() };
        let ids = (0..self.shards.len() as u16).map(ShardId);
        let schema = &schema;
        join_all(ids.map(|id| async move {
            let asked = async {
                let control = self.for_sizes(id).ok_or("no server answers")?;
                size_of(control, id, schema).await.map_err(|e| e.to_string())
            };
            let size = timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
            (id, size)
        }))
        .await
    }

    fn for_sizes(&self, shard: ShardId) -> Option<&ControlPool> {
        let servers = self.shards.get(shard.index())?.iter().zip(self.control.get(shard.index())?);
        let up = |role: Role| {
            servers.clone().find(|(s, _)| {
                let known = s.known.lock();
                known.role == Some(role) && known.health == Health::Up
            })
        };
        up(Role::Replica).or_else(|| up(Role::Primary)).map(|(_, control)| control)
    }
}

async fn size_of(control: &ControlPool, shard: ShardId, schema: &Schema) -> Result<ShardSize, ControlError> {
    let row = control.query_one("SELECT pg_catalog.pg_database_size(pg_catalog.current_database())").await?;
    let here = |(_, p): &(PartitionId, &crate::shard::Partition)| p.shard == shard;
    let partitions = (0u16..).map(PartitionId).zip(&schema.map.partitions).filter(here);
    let mut size = ShardSize {
        shard,
        bytes: row.try_get::<_, i64>(0)?.unsigned_abs(),
        partitions: partitions.map(|(id, _)| (id, PartitionSize::default())).collect(),
    };
    if size.partitions.is_empty() {
        return Ok(size);
    }
    for sampled in sharded_tables(schema) {
        add_table(control, &sampled, &schema.map, &mut size.partitions).await?;
    }
    Ok(size)
}

/// The sharded tables that exist, each with a key whose type is known; a hash key rather than another.
fn sharded_tables(schema: &Schema) -> impl Iterator<Item = Sampled<'_>> {
    schema.map.tables.iter().filter_map(|(table, placement)| {
        let Placement::Sharded(columns) = placement else { return None };
        let column = columns.iter().find(|c| c.method == Method::Hash).or(columns.first())?;
        let relation = schema.catalog.relations.get(&(table.schema.clone(), table.name.clone()))?;
        let kind = KeyType::of_oid(relation.column(&column.column)?.type_oid)?;
        Some(Sampled { table, column, kind })
    })
}

/// Adds a table's size to partitions, in the proportion in which a sample of its rows belongs to them.
async fn add_table(
    control: &ControlPool,
    sampled: &Sampled<'_>,
    map: &Map,
    partitions: &mut BTreeMap<PartitionId, PartitionSize>,
) -> Result<(), ControlError> {
    let name = format!("{}.{}", quoted(&sampled.table.schema), quoted(&sampled.table.name));
    // A partitioned table of PostgreSQL has no size itself, its parts have.
    let sizes = format!(
        "SELECT sum(pg_catalog.pg_total_relation_size(o))::int8, sum(pg_catalog.pg_relation_size(o))::int8 \
         FROM (SELECT to_regclass({literal})::oid UNION SELECT relid::oid FROM \
         pg_catalog.pg_partition_tree(to_regclass({literal}))) AS parts (o)",
        literal = literal(&name),
    );
    let row = control.query_one(&sizes).await?;
    let (total, heap) = (row.try_get::<_, Option<i64>>(0)?, row.try_get::<_, Option<i64>>(1)?);
    let (Some(total), Some(heap)) = (total, heap.filter(|bytes| *bytes > 0)) else { return Ok(()) };
    let percent = (100.0 * SAMPLED_PAGES * 8192.0 / heap as f64).clamp(0.000_001, 100.0);
    let column = quoted(&sampled.column.column);
    let rows = control
        .query(&format!("SELECT {column}::text FROM {name} TABLESAMPLE SYSTEM ({percent:.6})"))
        .await?;
    let mut counts: BTreeMap<PartitionId, u64> = BTreeMap::new();
    for row in &rows {
        let Some(text) = row.try_get::<_, Option<&str>>(0)? else { continue };
        // A row that belongs nowhere, or elsewhere, is in no partition's size.
        let key = Key::from_text(sampled.kind, text).ok();
        if let Some(id) = key.and_then(|key| map.partition_of(sampled.column, &key).ok()) {
            *counts.entry(id).or_default() += 1;
        }
    }
    share_out(partitions, &counts, rows.len() as u64, total.unsigned_abs(), percent / 100.0);
    Ok(())
}

/// `sampled` rows are that `part` of the table; `counts` of them are in these partitions.
fn share_out(
    partitions: &mut BTreeMap<PartitionId, PartitionSize>,
    counts: &BTreeMap<PartitionId, u64>,
    sampled: u64,
    total_bytes: u64,
    part: f64,
) {
    for (id, size) in partitions {
        let count = counts.get(id).copied().unwrap_or_default() as f64;
        size.bytes += (total_bytes as f64 * count / (sampled.max(1) as f64)) as u64;
        size.rows += (count / part).round() as u64;
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_shared_out_as_its_sample_is() {
        let mut partitions: BTreeMap<_, _> =
            [0, 1, 2].map(|n| (PartitionId(n), PartitionSize::default())).into();
        // Partition 7 is not placed here: its rows are nobody's.
        let counts = [(PartitionId(0), 60), (PartitionId(1), 20), (PartitionId(7), 20)].into();
        share_out(&mut partitions, &counts, 100, 1_000_000, 0.5);
        let sizes: Vec<_> = partitions.values().map(|p| (p.bytes, p.rows)).collect();
        assert_eq!(sizes, [(600_000, 120), (200_000, 40), (0, 0)]);
        share_out(&mut partitions, &BTreeMap::new(), 0, 8192, 1.0);
        assert_eq!(partitions[&PartitionId(0)].bytes, 600_000, "an empty table adds nothing");
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b\\"), "E'a''b\\\\'");
    }
}
