//! `pgherd.partitions` and `pgherd.tables`: where rows live.
//! Must not know servers.

use crate::admin::Herd;
use crate::admin::record::{Source, record};
use crate::cluster::DatabaseStatus;
use crate::shard::{self, KeyColumn, Map, Method, Placement, SLOTS, TableName};

record! {
    /// One partition.
    Partition is "partitions", "partitions, their hash slots and their shard" {
        database: String,
        partition: String,
        weight: u32,
        /// Inclusive; NULL where the weight is too small for a slot.
        first_slot: Option<u32>,
        /// Inclusive.
        last_slot: Option<u32>,
        share_percent: f64,
        shard: String,
    }
}

record! {
    /// One table the config names.
    Table is "tables", "tables and how their rows are placed: sharded by keys, reference or single" {
        database: String,
        schema: String,
        name: String,
        placement: &'static str,
        keys: Option<String>,
        shard: Option<String>,
    }
}

impl Source for Partition {
    fn rows(herd: &Herd) -> Vec<Self> {
        let of_database = |d: &DatabaseStatus| {
            d.map.partitions.iter().map(|p| partition(&d.name, &d.map, p)).collect::<Vec<_>>()
        };
        herd.databases.iter().flat_map(of_database).collect()
    }
}

fn partition(database: &str, map: &Map, partition: &shard::Partition) -> Partition {
    let slots = &partition.slots;
    let bound = |slot: u16| (!slots.is_empty()).then_some(u32::from(slot));
    let share = 100.0 * slots.len() as f64 / f64::from(SLOTS);
    Partition {
        database: database.to_owned(),
        partition: partition.name.clone(),
        weight: partition.weight,
        first_slot: bound(slots.start),
        last_slot: bound(slots.end.saturating_sub(1)),
        share_percent: (share * 100.0).round() / 100.0,
        shard: map.shard_name(partition.shard).to_owned(),
    }
}

impl Source for Table {
    fn rows(herd: &Herd) -> Vec<Self> {
        let of_database = |d: &DatabaseStatus| {
            d.map.tables.iter().map(|(name, p)| table(&d.name, &d.map, name, p)).collect::<Vec<_>>()
        };
        herd.databases.iter().flat_map(of_database).collect()
    }
}

fn table(database: &str, map: &Map, name: &TableName, placement: &Placement) -> Table {
    let (word, keys, shard) = match placement {
        Placement::Sharded(columns) => {
            let keys: Vec<_> = columns.iter().map(key).collect();
            ("sharded", Some(keys.join(", ")), None)
        }
        Placement::Reference => ("reference", None, None),
        Placement::Single(id) => ("single", None, Some(map.shard_name(*id).to_owned())),
    };
    Table {
        database: database.to_owned(),
        schema: name.schema.clone(),
        name: name.name.clone(),
        placement: word,
        keys,
        shard,
    }
}

/// `user_id hash`, `partition_key list filled`.
fn key(column: &KeyColumn) -> String {
    let method = match column.method {
        Method::Hash => "hash",
        Method::List(_) => "list",
        Method::Range(_) => "range",
    };
    let filled = if column.fill { " filled" } else { "" };
    format!("{} {method}{filled}", column.column)
}
