//! Ids that never collide: on the shard of ordinal n (from 1) a sequence counts n, n + 128, n + 256, …
//! Must not know a server: states in, new values out.

/// The step of every interleaved sequence, and so the most shards. Fixed: a change would let ids collide.
///
/// An `integer` column still has 16 million ids per shard.
pub(in super::super) const STRIDE: i64 = 128;

/// A sequence of one column on one shard, and the largest id its table has there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// `seqincrement`.
    pub(super) increment: i64,
    /// `last_value`.
    pub(super) last: i64,
    /// `is_called`: whether `last` was given out.
    pub(super) called: bool,
    /// `seqmax`.
    pub(super) most: i64,
    /// The largest value in the column; `None` if it has none.
    pub(super) largest: Option<i64>,
}

impl State {
    fn next(&self) -> i64 {
        if self.called { self.last.saturating_add(self.increment) } else { self.last }
    }

    /// The largest value that is in use, or may be.
    fn used(&self) -> i64 {
        let given = if self.called { self.last } else { 0 };
        self.largest.unwrap_or(0).max(given).max(0)
    }

    /// Whether it counts as the shard of this ordinal (from 1) should.
    pub(super) fn fits(&self, ordinal: i64) -> bool {
        self.increment == STRIDE && self.next().rem_euclid(STRIDE) == ordinal % STRIDE && self.next() > 0
    }
}

/// Where the sequences of one column must restart, by shard; `None` where all fit already.
///
/// If one does not fit, all restart above every id of every shard: no value is ever given out twice, and none goes
/// backwards.
///
/// # Errors
/// The ordinal of a shard whose sequence has no room left.
pub(super) fn restarts(states: &[(i64, State)]) -> Result<Option<Vec<i64>>, i64> {
    if states.iter().all(|(ordinal, state)| state.fits(*ordinal)) {
        return Ok(None);
    }
    let floor = states.iter().map(|(_, state)| state.used()).max().unwrap_or(0);
    let restart = |(ordinal, state): &(i64, State)| {
        let value = above(floor, *ordinal);
        value.filter(|value| *value <= state.most).ok_or(*ordinal)
    };
    states.iter().map(restart).collect::<Result<Vec<_>, _>>().map(Some)
}

/// The least value above `floor` that belongs to this ordinal.
fn above(floor: i64, ordinal: i64) -> Option<i64> {
    let step = (ordinal - floor - 1).rem_euclid(STRIDE) + 1; // 1 to STRIDE
    floor.checked_add(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(increment: i64, last: i64, called: bool, largest: Option<i64>) -> State {
        State { increment, last, called, most: i64::from(i32::MAX), largest }
    }

    #[test]
    fn values_above_a_floor_belong_to_their_ordinal() {
        for (floor, ordinal, want) in [
            (0, 1, 1),
            (0, 128, 128),
            (1, 1, 129),
            (1, 2, 2),
            (1000, 3, 1027),
            (127, 128, 128),
            (128, 128, 256),
        ] {
            assert_eq!(above(floor, ordinal), Some(want), "{floor} {ordinal}");
        }
        assert_eq!(above(i64::MAX - 1, 5), None);
    }

    #[test]
    fn new_tables_start_at_their_ordinal() {
        let fresh = state(1, 1, false, None);
        assert_eq!(restarts(&[(1, fresh), (2, fresh), (3, fresh)]), Ok(Some(vec![1, 2, 3])));
    }

    #[test]
    fn what_fits_is_left_alone() {
        let fits = [(1, state(128, 1, false, None)), (2, state(128, 258, true, Some(258)))];
        assert_eq!(restarts(&fits), Ok(None));
    }

    #[test]
    fn no_sequence_goes_backwards_or_meets_an_id_of_another_shard() {
        let states = [
            (1, state(1, 1000, true, Some(5000))), // rows loaded with ids of their own
            (2, state(128, 7042, true, Some(7042))),
            (3, state(128, 3, false, None)),
        ];
        let values = restarts(&states).unwrap().unwrap();
        assert_eq!(values, [7169, 7170, 7043]);
        for (value, (ordinal, _)) in values.iter().zip(&states) {
            assert!(*value > 7042 && value % STRIDE == *ordinal);
        }
    }

    #[test]
    fn a_sequence_without_room_is_reported() {
        let full = State { most: 100, ..state(1, 90, true, Some(90)) };
        assert_eq!(restarts(&[(1, full), (2, full)]), Err(1));
    }
}
