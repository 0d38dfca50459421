//! Draws users until every partition has its bytes: ids are hashed as the proxy hashes them.
//! Must not know how rows are sent. Pure: the same draw can be run once per table and shard.

use std::collections::HashMap;

use super::super::Failure;
use super::people::{Seed, User, user_id};
use crate::shard::{Key, KeyColumn, Map, Method, PartitionId, Placement, ShardId, TableName};

/// All that is to be loaded.
#[derive(Debug, Clone)]
pub(super) struct Draw<'a> {
    map: &'a Map,
    key: &'a KeyColumn,
    /// What `partition_key` is in each partition.
    names: Vec<String>,
    seed: Seed,
    /// Bytes of each partition.
    targets: Vec<u64>,
    /// Users up to this number are there already.
    after: u64,
}

/// A drawn user.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub(super) number: u64,
    pub(super) user: User,
    pub(super) partition: PartitionId,
}

impl<'a> Draw<'a> {
    /// `bytes` in all, dealt to the partitions by their weights.
    ///
    /// # Errors
    /// If the map does not place users and orders by `user_id`.
    pub(super) fn new(map: &'a Map, seed: Seed, bytes: u64) -> Result<Self, Failure> {
        let key = key_column(map, "users", "user_id")?;
        key_column(map, "orders", "user_id")?;
        let weights: u64 = map.partitions.iter().map(|p| u64::from(p.weight)).sum();
        if weights == 0 {
            return Err(Failure::new("the configuration has no partition with a weight"));
        }
        let share = |weight: u32| (u128::from(bytes) * u128::from(weight) / u128::from(weights)) as u64;
        let targets = map.partitions.iter().map(|p| share(p.weight)).collect();
        Ok(Self { map, key, names: partition_keys(map), seed, targets, after: 0 })
    }

    /// The same for users with higher numbers.
    pub(super) fn starting_after(self, number: u64) -> Self {
        Self { after: number, ..self }
    }

    /// The seed of the rows.
    pub(super) fn seed(&self) -> Seed {
        self.seed
    }

    /// What `partition_key` is in a partition.
    pub(super) fn partition_key(&self, id: PartitionId) -> &str {
        self.names.get(id.index()).map_or("", String::as_str)
    }

    /// The bytes a shard will get.
    pub(super) fn bytes_of(&self, shard: ShardId) -> u64 {
        let here = self.map.partitions.iter().zip(&self.targets).filter(|(p, _)| p.shard == shard);
        here.map(|(_, bytes)| bytes).sum()
    }

    /// Every user to load, in the order of their numbers.
    ///
    /// # Errors
    /// An id that belongs nowhere (list or range keys): ends the draw.
    pub(super) fn users(&self) -> impl Iterator<Item = Result<Drawn, Failure>> + '_ {
        let mut left: Vec<u64> = self.targets.clone();
        let mut open = left.iter().filter(|bytes| **bytes > 0).count();
        let mut numbers = self.after + 1..;
        let mut misses = 0u32;
        std::iter::from_fn(move || {
            while open > 0 {
                let number = numbers.next()?;
                let partition = match self.map.partition_of(self.key, &Key::Text(user_id(number))) {
                    Ok(partition) => partition,
                    Err(e) => return Some(Err(Failure::new(e.to_string()))),
                };
                let Some(room) = left.get_mut(partition.index()).filter(|room| **room > 0) else {
                    misses += 1; // this partition is full
                    if misses > MOST_MISSES {
                        return Some(Err(unreachable_partition(open)));
                    }
                    continue;
                };
                misses = 0;
                let drawn = self.drawn(number, partition);
                *room = room.saturating_sub(self.bytes(&drawn));
                open -= usize::from(*room == 0);
                return Some(Ok(drawn));
            }
            None
        })
    }

    fn drawn(&self, number: u64, partition: PartitionId) -> Drawn {
        Drawn { number, user: self.seed.user(number), partition }
    }

    /// Bytes of a user's row and its orders.
    pub(super) fn bytes(&self, drawn: &Drawn) -> u64 {
        let id = &drawn.user.user_id;
        let orders: u64 =
            (0..drawn.user.orders).map(|nth| self.seed.order(drawn.number, nth).bytes(id)).sum();
        drawn.user.bytes(self.partition_key(drawn.partition)) + orders
    }
}

/// So many ids in a row for full partitions: the open ones can get none (range keys).
const MOST_MISSES: u32 = 1_000_000;

fn unreachable_partition(open: usize) -> Failure {
    Failure::new(format!("{open} partitions cannot be filled: no id like user_000001 falls into them"))
        .remedy("generate works with users sharded by a hash of user_id")
}

fn key_column<'a>(map: &'a Map, table: &str, column: &str) -> Result<&'a KeyColumn, Failure> {
    let found = match map.tables.get(&TableName::new("public", table)) {
        Some(Placement::Sharded(keys)) => keys.iter().find(|key| key.column == column),
        Some(Placement::Reference | Placement::Single(_)) | None => None,
    };
    found.ok_or_else(|| {
        Failure::new(format!("the configuration does not shard table {table} by {column}"))
            .remedy("generate fills the tables of sql/: see [[database.table]] in the shipped proxy.toml")
    })
}

/// A partition's value in `users.partition_key`: its entry in the list, else its name.
fn partition_keys(map: &Map) -> Vec<String> {
    let mut listed: HashMap<PartitionId, String> = HashMap::new();
    if let Ok(KeyColumn { method: Method::List(values), .. }) = key_column(map, "users", "partition_key") {
        for (key, id) in values {
            let text = key.to_string();
            let entry = listed.entry(*id).or_insert_with(|| text.clone());
            if text < *entry {
                *entry = text;
            }
        }
    }
    let name = |(i, partition): (usize, &crate::shard::Partition)| {
        listed.remove(&PartitionId(i as u16)).unwrap_or_else(|| partition.name.clone())
    };
    map.partitions.iter().enumerate().map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, DEMO_PORT_BASE, demo_text};

    fn demo_map() -> Arc<Map> {
        let text = demo_text(DEMO_PORT_BASE).unwrap();
        let config = Config::parse(&text, Path::new("proxy.toml"), &|_| None).unwrap().config;
        config.databases[0].map.clone()
    }

    fn sizes(draw: &Draw<'_>) -> Vec<u64> {
        let mut sizes = vec![0; draw.targets.len()];
        for drawn in draw.users() {
            let drawn = drawn.unwrap();
            sizes[drawn.partition.index()] += draw.bytes(&drawn);
        }
        sizes
    }

    #[test]
    fn every_partition_gets_its_share_and_at_most_one_user_more() {
        let map = demo_map();
        let draw = Draw::new(&map, Seed::new(1), 2_000_000).unwrap();
        for (got, want) in sizes(&draw).into_iter().zip([600_000, 400_000, 300_000, 500_000, 200_000]) {
            assert!((want..want + 1500).contains(&got), "{got} of {want}");
        }
        assert_eq!(draw.bytes_of(ShardId(0)), 1_000_000);
    }

    #[test]
    fn a_partition_key_is_the_partition_of_its_user_id() {
        let map = demo_map();
        let draw = Draw::new(&map, Seed::new(1), 100_000).unwrap();
        let hash = key_column(&map, "users", "user_id").unwrap();
        let list = key_column(&map, "users", "partition_key").unwrap();
        for drawn in draw.users() {
            let drawn = drawn.unwrap();
            let by_hash = map.partition_of(hash, &Key::Text(drawn.user.user_id.clone())).unwrap();
            let by_list =
                map.partition_of(list, &Key::Text(draw.partition_key(drawn.partition).into())).unwrap();
            assert_eq!(by_hash, by_list, "{}", drawn.user.user_id);
        }
    }

    #[test]
    fn appended_users_are_new_ones() {
        let map = demo_map();
        let draw = Draw::new(&map, Seed::new(1), 50_000).unwrap();
        let last = draw.users().map(|drawn| drawn.unwrap().number).max().unwrap();
        let more = draw.starting_after(last);
        assert!(more.users().all(|drawn| drawn.unwrap().number > last));
    }
}
