//! Shards, partitions and tables of one database to its map.
//! Must not know servers or pools.

use std::collections::BTreeMap;

use toml::Spanned;

use crate::shard::{Map, Method, Placement, ShardId};

use super::super::raw::RawDatabase;
use super::collect::Checker;
use super::shard;
use super::table;

pub(super) fn map(c: &mut Checker<'_>, raw: &RawDatabase, shards: Vec<String>) -> Map {
    let partitions = shard::partitions(c, raw, &shards);
    let default_shard = match &raw.default_shard {
        Some(name) => shard::shard_named(c, name, "database.default_shard", &shards),
        None => ShardId(0),
    };
    let names: Vec<String> = partitions.iter().map(|(name, _, _)| name.clone()).collect();
    let mut tables = BTreeMap::new();
    for entry in &raw.table {
        let at = entry.span();
        let Some((name, placement)) = table::table(c, &at, entry.get_ref(), &shards, &names) else {
            continue;
        };
        if tables.contains_key(&name) {
            let at = entry.get_ref().name.as_ref().map_or(at, Spanned::span);
            let what = format!("{name} is there twice");
            c.error(&at, "database.table.name", what, "remove one of the two");
        }
        tables.insert(name, placement);
    }
    let map = Map::new(shards, partitions, tables, default_shard);
    every_partition_has_a_slot(c, raw, &map);
    map
}

/// A weight can be so small beside the others that rounding leaves it no slot: no key would ever get there.
fn every_partition_has_a_slot(c: &mut Checker<'_>, raw: &RawDatabase, map: &Map) {
    if !map.tables.values().any(is_hashed) {
        return;
    }
    for (partition, raw) in map.partitions.iter().zip(&raw.partition) {
        if partition.slots.is_empty() {
            let what = format!("partition \"{}\" gets none of the hash slots", partition.name);
            let at = raw.get_ref().weight.as_ref().map_or_else(|| raw.span(), Spanned::span);
            c.error(&at, "database.partition.weight", what, "raise its weight relative to the others");
        }
    }
}

fn is_hashed(placement: &Placement) -> bool {
    match placement {
        Placement::Sharded(keys) => keys.iter().any(|k| k.method == Method::Hash),
        Placement::Reference | Placement::Single(_) => false,
    }
}
