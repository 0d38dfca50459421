//! The versioned map: which partition a key falls into and which shard holds it, and how each table is placed.
//! Must not know addresses of servers, nor column types beyond those of keys.

use std::collections::{BTreeMap, HashMap};

use super::hash::{SLOTS, slot_of};
use super::{Key, PartitionId, ShardId, ShardSet};

/// A table by schema and name, both folded and unquoted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The schema, e.g. `public`.
    pub schema: String,
    /// The table.
    pub name: String,
}

impl TableName {
    /// A name in a schema.
    #[must_use]
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The unit that is placed and moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its name, e.g. `A`.
    pub name: String,
    /// Its share of the hash slots relative to the others.
    pub weight: u32,
    /// The shard that holds it.
    pub shard: ShardId,
    /// Its hash slots, from `start` inclusive to `end` exclusive.
    pub slots: std::ops::Range<u16>,
}

/// How a key column's value names its partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// By `hash_extended(key, 0) & 16383`.
    Hash,
    /// By an exact value. A value that is missing belongs nowhere.
    List(HashMap<Key, PartitionId>),
    /// By ordered bounds: an entry's partition holds keys from its bound (inclusive; `None` is the lowest) up to
    /// the next entry's. Text compares by bytes.
    Range(Vec<(Option<Key>, PartitionId)>),
}

/// A column that alone decides a row's partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// The column.
    pub column: String,
    /// How.
    pub method: Method,
    /// Whether the proxy fills it in when an INSERT leaves it out (list keys beside another key).
    pub fill: bool,
}

/// Where a table's rows live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// Rows spread by key; each of the columns alone decides, and they agree.
    Sharded(Vec<KeyColumn>),
    /// The same rows on every shard.
    Reference,
    /// The whole table on one shard.
    Single(ShardId),
}

/// A key that belongs to no partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No list entry or range holds it (23514).
    #[error("no partition holds \"{column}\" = '{key}'")]
    NoPartition {
        /// The key column.
        column: String,
        /// The key.
        key: String,
    },
}

/// The whole map of one database. Never changed in place: a new version replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Grows with every change.
    pub version: u64,
    /// Names of the shards by id.
    pub shards: Vec<String>,
    /// The partitions by id.
    pub partitions: Vec<Partition>,
    /// Placement of every table the config names.
    pub tables: BTreeMap<TableName, Placement>,
    /// Where tables live that the config does not name, and where catalogs are read.
    pub default_shard: ShardId,
}

impl Map {
    /// A map with its slots dealt to the partitions in proportion to their weights, in order, contiguous.
    ///
    /// Boundaries are at `floor(16384 × weights so far / all weights)`; `partitions` are (name, weight, shard).
    #[must_use]
    pub fn new(
        shards: Vec<String>,
        partitions: Vec<(String, u32, ShardId)>,
        tables: BTreeMap<TableName, Placement>,
        default_shard: ShardId,
    ) -> Self {
        let total: u64 = partitions.iter().map(|(_, weight, _)| u64::from(*weight)).sum::<u64>().max(1);
        let mut so_far = 0u64;
        let partitions = partitions
            .into_iter()
            .map(|(name, weight, shard)| {
                let start = boundary(so_far, total);
                so_far += u64::from(weight);
                Partition { name, weight, shard, slots: start..boundary(so_far, total) }
            })
            .collect();
        Self { version: 1, shards, partitions, tables, default_shard }
    }

    /// All shards.
    #[must_use]
    pub fn all(&self) -> ShardSet {
        ShardSet::first(self.shards.len())
    }

    /// Whether the database has one shard only: nothing is ever refused for being spread.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.shards.len() <= 1
    }

    /// A shard's name; `?` for one that is not in the map.
    #[must_use]
    pub fn shard_name(&self, id: ShardId) -> &str {
        self.shards.get(id.index()).map_or("?", String::as_str)
    }

    /// The shard of that name.
    #[must_use]
    pub fn shard_named(&self, name: &str) -> Option<ShardId> {
        self.shards.iter().position(|s| s == name).map(|i| ShardId(i as u16))
    }

    /// The partition of that name.
    #[must_use]
    pub fn partition_named(&self, name: &str) -> Option<PartitionId> {
        self.partitions.iter().position(|p| p.name == name).map(|i| PartitionId(i as u16))
    }

    /// A partition by id.
    #[must_use]
    pub fn partition(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(id.index())
    }

    /// The placement of a table; one the config does not name is single on the default shard.
    #[must_use]
    pub fn placement(&self, table: &TableName) -> Placement {
        self.tables.get(table).cloned().unwrap_or(Placement::Single(self.default_shard))
    }

    /// The partition that holds a slot.
    #[must_use]
    pub fn partition_of_slot(&self, slot: u16) -> Option<PartitionId> {
        let at = self.partitions.partition_point(|p| p.slots.end <= slot);
        self.partitions.get(at).filter(|p| p.slots.contains(&slot)).map(|_| PartitionId(at as u16))
    }

    /// The partition a key falls into by one key column.
    ///
    /// # Errors
    /// [`MapError::NoPartition`] for a list value or a range that no partition has.
    pub fn partition_of(&self, column: &KeyColumn, key: &Key) -> Result<PartitionId, MapError> {
        let found = match &column.method {
            Method::Hash => self.partition_of_slot(slot_of(key.hash_extended(0))),
            Method::List(values) => values.get(key).copied(),
            Method::Range(bounds) => {
                let at = bounds.partition_point(|(bound, _)| bound.as_ref().is_none_or(|b| b <= key));
                at.checked_sub(1).and_then(|i| bounds.get(i)).map(|(_, id)| *id)
            }
        };
        found.ok_or_else(|| MapError::NoPartition { column: column.column.clone(), key: key.to_string() })
    }

    /// The shard that holds a partition.
    #[must_use]
    pub fn shard_of(&self, id: PartitionId) -> ShardId {
        self.partition(id).map_or(self.default_shard, |p| p.shard)
    }
}

fn boundary(so_far: u64, total: u64) -> u16 {
    (u64::from(SLOTS) * so_far / total) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Map {
        let parts = [("A", 30, 0), ("B", 20, 0), ("C", 15, 2), ("D", 25, 1), ("E", 10, 2)];
        let parts = parts.map(|(n, w, s)| (n.to_owned(), w, ShardId(s))).to_vec();
        Map::new(
            ["shard1", "shard2", "shard3"].map(String::from).to_vec(),
            parts,
            BTreeMap::new(),
            ShardId(0),
        )
    }

    #[test]
    fn slots_are_dealt_in_proportion_without_gap_or_overlap() {
        let map = shipped();
        let ranges: Vec<_> = map.partitions.iter().map(|p| p.slots.clone()).collect();
        assert_eq!(ranges, [0..4915, 4915..8192, 8192..10649, 10649..14745, 14745..16384]);
        for slot in 0..SLOTS {
            let id = map.partition_of_slot(slot).unwrap();
            assert!(map.partition(id).unwrap().slots.contains(&slot));
        }
        assert_eq!(map.partition_of_slot(SLOTS), None);
    }

    #[test]
    fn ranges_hold_their_lower_bound_and_not_their_upper_one() {
        let map = shipped();
        let bounds = vec![
            (None, PartitionId(0)),
            (Some(Key::Int(10)), PartitionId(1)),
            (Some(Key::Int(20)), PartitionId(2)),
        ];
        let column = KeyColumn { column: "id".into(), method: Method::Range(bounds), fill: false };
        for (key, want) in [(-5, 0), (9, 0), (10, 1), (19, 1), (20, 2), (1000, 2)] {
            assert_eq!(map.partition_of(&column, &Key::Int(key)), Ok(PartitionId(want)), "{key}");
        }
        let open = KeyColumn { method: Method::Range(vec![(Some(Key::Int(0)), PartitionId(0))]), ..column };
        assert!(map.partition_of(&open, &Key::Int(-1)).is_err());
    }

    #[test]
    fn a_list_value_that_is_missing_belongs_nowhere() {
        let map = shipped();
        let values = HashMap::from([(Key::Text("A".into()), PartitionId(0))]);
        let column = KeyColumn { column: "partition_key".into(), method: Method::List(values), fill: true };
        assert_eq!(map.partition_of(&column, &Key::Text("A".into())), Ok(PartitionId(0)));
        assert!(map.partition_of(&column, &Key::Text("Z".into())).is_err());
    }

    #[test]
    fn sets_of_shards_intersect_and_list_in_order() {
        let set: ShardSet = [ShardId(2), ShardId(0)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [ShardId(0), ShardId(2)]);
        assert_eq!(set.intersect(ShardSet::first(2)).single(), Some(ShardId(0)));
        assert_eq!(ShardSet::first(128).len(), 128);
        assert!(ShardSet::EMPTY.single().is_none());
    }
}
