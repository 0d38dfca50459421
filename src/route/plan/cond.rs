//! What a statement says of one table's keys, and the partitions that leaves under given values.
//! Must not know the syntax tree. A condition may leave too many partitions, never too few.

use smallvec::SmallVec;

use super::keys::{Keys, Operand, Read, Typed, Values};
use crate::shard::{Key, KeyColumn, Map, Method, PartitionId, Placement, ShardSet, TableName, slot_of};

/// A comparison of a column with constants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// `= a`, `IN (a, b)`, `= ANY (ARRAY[a, b])`
    In(Vec<Operand>),
    /// `IS NOT DISTINCT FROM a`
    Same(Operand),
    /// `= ANY (a)`, `a` being an array
    AnyOf(Operand),
    /// `< a` and its like
    Order(Order, Operand),
}

/// Which side of a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `<`
    Below,
    /// `<=`
    UpTo,
    /// `>` and `>=`
    From,
}

/// A condition on the rows of one sharded table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cond {
    /// Any row.
    All,
    /// No row.
    Nothing,
    /// A test of a key column.
    Leaf(Leaf),
    /// All of these hold.
    And(Vec<Cond>),
    /// One of these holds.
    Or(Vec<Cond>),
}

/// A test of a key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    /// Which of the table's key columns.
    pub(super) key: usize,
    /// It is a hash key: no need to look the method up.
    pub(super) hashed: bool,
    /// The type of the column that is compared; the key column is equal to it.
    pub(super) typed: Typed,
    /// The test.
    pub(super) test: Test,
}

impl Cond {
    /// All of `conds`, made small.
    pub(super) fn and(conds: impl IntoIterator<Item = Self>) -> Self {
        let mut kept: Vec<Self> = conds.into_iter().filter(|c| *c != Self::All).collect();
        if kept.contains(&Self::Nothing) {
            return Self::Nothing;
        }
        match kept.len() {
            0 => Self::All,
            1 => kept.remove(0),
            _ => Self::And(kept),
        }
    }

    /// One of `conds`, made small.
    pub(super) fn or(conds: impl IntoIterator<Item = Self>) -> Self {
        let mut kept: Vec<Self> = conds.into_iter().filter(|c| *c != Self::Nothing).collect();
        if kept.contains(&Self::All) {
            return Self::All;
        }
        match kept.len() {
            0 => Self::Nothing,
            1 => kept.remove(0),
            _ => Self::Or(kept),
        }
    }

    /// The partitions whose rows of `table` can satisfy it. A key that belongs to no partition is no row's.
    pub(super) fn parts(&self, table: &TableName, map: &Map, values: &Values<'_>) -> Parts {
        self.parts_of(Rows::Stored, table, map, values)
    }

    /// The partitions of new rows of `table` that satisfy it. A key that belongs to no partition may be theirs.
    pub(super) fn parts_of_new(&self, table: &TableName, map: &Map, values: &Values<'_>) -> Parts {
        self.parts_of(Rows::New, table, map, values)
    }

    fn parts_of(&self, rows: Rows, table: &TableName, map: &Map, values: &Values<'_>) -> Parts {
        match self {
            Self::All => Parts::All,
            Self::Nothing => Parts::none(),
            Self::Leaf(leaf) => leaf.parts(rows, table, map, values),
            Self::And(conds) => conds
                .iter()
                .fold(Parts::All, |parts, cond| parts.intersect(cond.parts_of(rows, table, map, values))),
            Self::Or(conds) => conds
                .iter()
                .fold(Parts::none(), |parts, cond| parts.union(cond.parts_of(rows, table, map, values))),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Stored,
    New,
}

impl Leaf {
    fn parts(&self, rows: Rows, table: &TableName, map: &Map, values: &Values<'_>) -> Parts {
        let column = if self.hashed { None } else { key_column(map, table, self.key) };
        if !self.hashed && column.is_none() {
            return Parts::All;
        }
        let of_keys = |keys: &[Key]| {
            let mut parts = SmallVec::new();
            for key in keys {
                let part = match column {
                    None => map.partition_of_slot(slot_of(key.hash_extended(0))),
                    Some(column) => map.partition_of(column, key).ok(),
                };
                match part {
                    Some(part) => parts.push(part),
                    None if rows == Rows::Stored => {}
                    None => return Parts::All,
                }
            }
            Parts::some(parts)
        };
        match &self.test {
            Test::In(operands) => {
                let mut keys = Keys::new();
                for operand in operands {
                    match values.read(operand, self.typed) {
                        Read::Key(key) => keys.push(key),
                        Read::Null | Read::Never => {}
                        Read::Unknown => return Parts::All,
                    }
                }
                of_keys(&keys)
            }
            Test::Same(operand) => match values.read(operand, self.typed) {
                Read::Key(key) => of_keys(&[key]),
                Read::Never => Parts::none(),
                Read::Null | Read::Unknown => Parts::All, // rows that an outer join made up have NULL keys
            },
            Test::AnyOf(operand) => {
                values.read_array(operand, self.typed).map_or(Parts::All, |keys| of_keys(&keys))
            }
            Test::Order(order, operand) => {
                match (values.read(operand, self.typed), column.map(|c| &c.method)) {
                    (Read::Key(key), Some(Method::Range(bounds))) if rows == Rows::Stored => {
                        Parts::some(between(*order, &key, bounds))
                    }
                    (Read::Null | Read::Never, _) => Parts::none(),
                    (Read::Key(_) | Read::Unknown, _) => Parts::All,
                }
            }
        }
    }
}

/// A table's nth key column.
pub(super) fn key_column<'m>(map: &'m Map, table: &TableName, key: usize) -> Option<&'m KeyColumn> {
    match map.tables.get(table)? {
        Placement::Sharded(columns) => columns.get(key),
        Placement::Reference | Placement::Single(_) => None,
    }
}

fn between(order: Order, key: &Key, bounds: &[(Option<Key>, PartitionId)]) -> SmallVec<[PartitionId; 2]> {
    let below = |bound: &Option<Key>, or_at: bool| match bound {
        None => true,
        Some(bound) => bound < key || or_at && bound == key,
    };
    let kept = match order {
        Order::Below => bounds.get(..bounds.partition_point(|(b, _)| below(b, false))),
        Order::UpTo => bounds.get(..bounds.partition_point(|(b, _)| below(b, true))),
        Order::From => bounds.get(bounds.partition_point(|(b, _)| below(b, true)).saturating_sub(1)..),
    };
    kept.unwrap_or(bounds).iter().map(|(_, id)| *id).collect()
}

/// A set of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parts {
    /// Every one.
    All,
    /// These, ascending.
    Some(SmallVec<[PartitionId; 2]>),
}

impl Parts {
    /// The empty set.
    pub(super) fn none() -> Self {
        Self::Some(SmallVec::new())
    }

    /// These.
    pub(super) fn some(mut ids: SmallVec<[PartitionId; 2]>) -> Self {
        if ids.len() > 1 {
            ids.sort_unstable();
            ids.dedup();
        }
        Self::Some(ids)
    }

    fn intersect(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, set) | (set, Self::All) => set,
            (Self::Some(mut a), Self::Some(b)) => {
                a.retain(|id| b.contains(id));
                Self::Some(a)
            }
        }
    }

    fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Some(mut a), Self::Some(b)) => {
                a.extend(b);
                Self::some(a)
            }
            (Self::All, _) | (_, Self::All) => Self::All,
        }
    }

    /// The only partition in it.
    pub(super) fn single(&self) -> Option<PartitionId> {
        match self {
            Self::Some(ids) if ids.len() == 1 => ids.first().copied(),
            Self::Some(_) | Self::All => None,
        }
    }

    /// No partition at all.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Some(ids) if ids.is_empty())
    }

    /// The shards that hold them.
    pub(super) fn shards(&self, map: &Map) -> ShardSet {
        match self {
            Self::All => map.partitions.iter().map(|p| p.shard).collect(),
            Self::Some(ids) => ids.iter().map(|id| map.shard_of(*id)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_tests_keep_every_partition_that_may_hold_a_match() {
        let bounds = [
            (None, PartitionId(0)),
            (Some(Key::Int(10)), PartitionId(1)),
            (Some(Key::Int(20)), PartitionId(2)),
        ];
        let closed = [(Some(Key::Int(10)), PartitionId(1)), (Some(Key::Int(20)), PartitionId(2))];
        for (order, key, want, want_closed) in [
            (Order::Below, 10, vec![0], vec![]),
            (Order::UpTo, 10, vec![0, 1], vec![1]),
            (Order::Below, 11, vec![0, 1], vec![1]),
            (Order::UpTo, 99, vec![0, 1, 2], vec![1, 2]),
            (Order::From, 9, vec![0, 1, 2], vec![1, 2]),
            (Order::From, 10, vec![1, 2], vec![1, 2]),
            (Order::From, 20, vec![2], vec![2]),
        ] {
            let got =
                |bounds: &[_]| between(order, &Key::Int(key), bounds).iter().map(|p| p.0).collect::<Vec<_>>();
            assert_eq!(got(&bounds), want, "{order:?} {key}");
            assert_eq!(got(&closed), want_closed, "{order:?} {key}");
        }
    }

    #[test]
    fn conditions_fold_to_the_smallest_form() {
        let some = || Cond::Or(vec![Cond::All, Cond::All]); // stands for anything
        assert_eq!(Cond::and([Cond::All, some()]), some());
        assert_eq!(Cond::and([some(), Cond::Nothing]), Cond::Nothing);
        assert_eq!(Cond::or([Cond::Nothing, some()]), some());
        assert_eq!(Cond::or([some(), Cond::All]), Cond::All);
        assert_eq!(Cond::or([]), Cond::Nothing);
        assert_eq!(Cond::and([]), Cond::All);
    }
}
