//! How and when statements that were put upstream ended, in order, for whoever measures.
//! Must not know what is measured. The clock is read once for all that one read of the server brought.

use smallvec::SmallVec;

use crate::stats::Moment;

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It completed.
    Complete,
    /// Its portal has more rows.
    Suspended,
    /// It failed; further statements of the same text are not run.
    Failed,
    /// One before it in its batch failed.
    Skipped,
    /// A message failed that belongs to no statement under way, such as Parse.
    Stray,
}

/// One statement that ended.
#[derive(Debug, Clone, Copy)]
pub struct Finish {
    /// How.
    pub how: How,
    /// Rows returned or affected.
    pub rows: u64,
    /// When its last byte was read.
    pub at: Moment,
}

/// What ended since it was last taken.
#[derive(Debug, Default)]
pub struct Finishes {
    list: SmallVec<[Finish; 1]>,
    read_at: Option<Moment>,
    /// Rows passed on since the last statement ended: of use where Execute had a limit, which has 31 bits.
    rows: u32,
    measures: bool,
}

impl Finishes {
    /// Whether anything is kept at all.
    pub fn measure(&mut self, measures: bool) {
        self.measures = measures;
    }

    /// Whether anything is kept at all.
    #[must_use]
    pub fn measures(&self) -> bool {
        self.measures
    }

    /// More was read of the server.
    pub(super) fn read(&mut self) {
        self.read_at = None;
    }

    /// Rows were passed on.
    pub(super) fn rows(&mut self, more: u32) {
        self.rows = self.rows.wrapping_add(more);
    }

    /// A statement ended. `rows` by its own word; where it has none, as many as were passed on.
    pub(super) fn push(&mut self, how: How, rows: Option<u64>) {
        let passed = std::mem::take(&mut self.rows);
        let rows = rows.unwrap_or(u64::from(passed));
        if self.measures {
            let at = *self.read_at.get_or_insert_with(Moment::now);
            self.list.push(Finish { how, rows, at });
        }
    }

    /// Whether nothing has ended since it was last taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What ended since the last call.
    pub fn take(&mut self) -> SmallVec<[Finish; 1]> {
        std::mem::take(&mut self.list)
    }
}

/// The row count at the end of a CommandComplete's body, 0 if it has none.
pub(super) fn rows(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let digits = tag.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (verb, digits) = tag.split_at(tag.len() - digits);
    if verb.last() != Some(&b' ') {
        return 0;
    }
    digits.iter().fold(0, |n: u64, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_last_number_of_a_tag() {
        for (tag, want) in [
            ("SELECT 12\0", 12),
            ("INSERT 0 5\0", 5),
            ("COPY 0\0", 0),
            ("BEGIN\0", 0),
            ("CREATE TABLE\0", 0),
            ("7\0", 0),
            ("", 0),
            ("SELECT 99999999999999999999999\0", u64::MAX),
        ] {
            assert_eq!(rows(tag.as_bytes()), want, "{tag:?}");
        }
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_measured() {
        let mut finishes = Finishes::default();
        finishes.push(How::Complete, Some(1));
        assert!(finishes.take().is_empty());
        finishes.measure(true);
        finishes.rows(1);
        finishes.push(How::Complete, None);
        finishes.push(How::Failed, None);
        let taken = finishes.take();
        assert_eq!(taken.iter().map(|f| f.how).collect::<Vec<_>>(), [How::Complete, How::Failed]);
        assert_eq!((taken[0].rows, taken[1].rows), (1, 0));
        assert_eq!(taken[0].at, taken[1].at, "one read, one moment");
        assert!(finishes.take().is_empty());
    }
}
