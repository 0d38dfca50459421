//! How long statements took on each server, by role and class.
//! Must not know who records, nor how the figures are shown.

use std::collections::BTreeMap;

use super::times::{Recorded, Spread};
use crate::shard::ShardId;

/// What a statement counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// SELECT and its like.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// COPY.
    Copy,
    /// BEGIN, COMMIT and their like.
    Transaction,
    /// All else.
    Other,
}

/// Which server a recorder belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerLabel {
    /// Database as the config names it.
    pub database: String,
    /// The shard's id.
    pub shard: ShardId,
    /// The shard's name.
    pub shard_name: String,
    /// `host:port`.
    pub address: String,
}

/// Handle of a registered server, cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerSlot(pub u32);

impl Class {
    pub(super) const ALL: [Self; 7] =
        [Self::Select, Self::Insert, Self::Update, Self::Delete, Self::Copy, Self::Transaction, Self::Other];

    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Copy => "copy",
            Self::Transaction => "transaction",
            Self::Other => "other",
        }
    }
}

/// All statements of one class on one server under one role, since start.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyRow {
    /// The server.
    pub server: ServerLabel,
    /// The role it had.
    pub is_replica: bool,
    /// The class.
    pub class: Class,
    /// How many statements.
    pub count: u64,
    /// Waiting for a server connection.
    pub queue: Spread,
    /// On the server.
    pub at_server: Spread,
    /// All of it.
    pub total: Spread,
}

/// Whose times they are: those of a server under a role, or of no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Where(pub(super) u32);

impl Where {
    /// What the proxy answered or refused by itself, and what ran on several shards as a whole.
    pub(super) const NOWHERE: Self = Self(0);

    /// On a server. `part`: as one of several shards that answered one statement together.
    pub(super) fn server(slot: ServerSlot, is_replica: bool, part: bool) -> Self {
        Self(((slot.0 + 1) * 2 + u32::from(is_replica)) * 2 + u32::from(part))
    }

    /// The server and its role; `None` for [`Where::NOWHERE`].
    pub(super) fn slot(self) -> Option<(ServerSlot, bool)> {
        let slot = (self.0 / 4).checked_sub(1)?;
        Some((ServerSlot(slot), self.0 / 2 % 2 == 1))
    }

    /// Whether it is a part of a statement that is counted as a whole elsewhere.
    pub(super) fn is_part(self) -> bool {
        self.0 % 2 == 1
    }

    /// The place of a class here among all places.
    pub(super) fn key(self, class: Class) -> usize {
        self.0 as usize * Class::ALL.len() + class as usize
    }

    /// The opposite of [`Where::key`].
    pub(super) fn of_key(key: usize) -> Option<(Self, Class)> {
        let place = u32::try_from(key / Class::ALL.len()).ok()?;
        Some((Self(place), *Class::ALL.get(key % Class::ALL.len())?))
    }
}

/// Times since start, by [`Where::key`].
pub(super) type Totals = BTreeMap<usize, Recorded<u64>>;

/// All times of each server, role and class, whether the statement had it for itself or with other shards.
pub(super) fn by_server(totals: &Totals) -> BTreeMap<(u32, bool, Class), Recorded<u64>> {
    let mut rows: BTreeMap<_, Recorded<u64>> = BTreeMap::new();
    for (key, recorded) in totals {
        let Some((place, class)) = Where::of_key(*key) else { continue };
        let Some((slot, is_replica)) = place.slot() else { continue };
        let key = (slot.0, is_replica, class);
        match rows.get_mut(&key) {
            Some(row) => row.add(recorded),
            None => drop(rows.insert(key, recorded.clone())),
        }
    }
    rows
}

/// As rows.
pub(super) fn rows(servers: &[ServerLabel], totals: &Totals) -> Vec<LatencyRow> {
    let rows = by_server(totals).into_iter().filter_map(|((slot, is_replica, class), recorded)| {
        let count = recorded.counts.count;
        Some(LatencyRow {
            server: servers.get(slot as usize)?.clone(),
            is_replica,
            class,
            count,
            queue: recorded.queue().spread(count),
            at_server: recorded.server().spread(count),
            total: recorded.total().spread(count),
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_where_and_what() {
        for slot in [0, 1, 77] {
            for (is_replica, part) in [(false, false), (true, false), (false, true), (true, true)] {
                let place = Where::server(ServerSlot(slot), is_replica, part);
                assert_eq!(place.slot(), Some((ServerSlot(slot), is_replica)));
                assert_eq!(place.is_part(), part);
                for class in Class::ALL {
                    assert_eq!(Where::of_key(place.key(class)), Some((place, class)));
                }
            }
        }
        assert_eq!(Where::NOWHERE.slot(), None);
        assert!(!Where::NOWHERE.is_part());
    }
}
