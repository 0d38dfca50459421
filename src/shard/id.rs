//! Ids of shards and partitions: indexes into the config's lists, in the order of the file.
//! Must not know names.

/// A shard by its position in the config, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

impl ShardId {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A partition by its position in the config, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// As an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A set of shards, at most [`ShardSet::MAX`] of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ShardSet(u128);

impl ShardSet {
    /// The most shards one database can have.
    pub const MAX: usize = 128;

    /// No shard.
    pub const EMPTY: Self = Self(0);

    /// The first `n` shards: all of a database with `n` shards.
    #[must_use]
    pub fn first(n: usize) -> Self {
        Self(if n >= Self::MAX { u128::MAX } else { (1 << n) - 1 })
    }

    /// Just this one.
    #[must_use]
    pub fn only(id: ShardId) -> Self {
        Self(1u128.checked_shl(u32::from(id.0)).unwrap_or(0))
    }

    /// Adds a shard.
    pub fn insert(&mut self, id: ShardId) {
        self.0 |= Self::only(id).0;
    }

    /// Whether it holds a shard.
    #[must_use]
    pub fn contains(self, id: ShardId) -> bool {
        self.0 & Self::only(id).0 != 0
    }

    /// Those in both.
    #[must_use]
    pub fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// How many.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The single shard in it, if it holds exactly one.
    #[must_use]
    pub fn single(self) -> Option<ShardId> {
        (self.len() == 1).then(|| ShardId(self.0.trailing_zeros() as u16))
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..Self::MAX as u16).map(ShardId).filter(move |id| self.contains(*id))
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(ids: I) -> Self {
        let mut set = Self::EMPTY;
        ids.into_iter().for_each(|id| set.insert(id));
        set
    }
}
