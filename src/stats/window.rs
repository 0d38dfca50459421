//! What happened of late: slices of a second, older ones of ten, for an hour.
//! Must not know who records. Bounded: slices hold only what occurred, and the oldest go when all of them hold too much.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::calls::DatabaseSlot;
use super::latency::Where;
use super::times::{Counts, Stage};
use crate::shard::PartitionId;

/// So long slices stay as fine as a second, s.
const FINE_S: u64 = 120;
/// Length of an older slice, s.
const COARSE_S: u64 = 10;
/// The longest time that is looked back, s.
pub(super) const LONGEST_S: u64 = 3600;
/// Buckets of all slices together; each takes 8 bytes.
const BUCKETS: usize = 4 << 20;

/// What happened in one slice at one place.
#[derive(Debug, Clone, Default)]
pub(super) struct SliceCell {
    counts: Counts,
    sum_us: u64,
    max_us: u64,
    /// Upper end of a bucket, µs, and how many are in it; ascending.
    buckets: Vec<(u32, u32)>,
}

/// One slice of time.
#[derive(Debug, Clone)]
pub(super) struct Slice {
    /// When it begins, seconds since the start.
    at_s: u64,
    length_s: u64,
    cells: BTreeMap<Where, SliceCell>,
    partitions: BTreeMap<(DatabaseSlot, PartitionId), u64>,
}

/// The slices, oldest first.
#[derive(Debug, Default)]
pub(super) struct Window {
    coarse: VecDeque<Arc<Slice>>,
    fine: VecDeque<Arc<Slice>>,
    buckets: usize,
}

/// What slices hold together.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum {
    pub(super) cells: BTreeMap<Where, Summed>,
    pub(super) partitions: BTreeMap<(DatabaseSlot, PartitionId), u64>,
}

/// What happened at one place in several slices.
#[derive(Debug, Clone)]
pub(super) struct Summed {
    pub(super) counts: Counts,
    pub(super) total: Stage<u64>,
}

impl SliceCell {
    pub(super) fn new(counts: Counts, buckets: Vec<(u32, u32)>, sum_us: u64, max_us: u64) -> Self {
        Self { counts, sum_us, max_us, buckets }
    }

    fn add(&mut self, other: &Self) {
        self.counts.add(other.counts);
        self.sum_us += other.sum_us;
        self.max_us = self.max_us.max(other.max_us);
        let mut merged = Vec::with_capacity(self.buckets.len() + other.buckets.len());
        let (mut a, mut b) = (self.buckets.iter().peekable(), other.buckets.iter().peekable());
        loop {
            match (a.peek(), b.peek()) {
                (Some((x, n)), Some((y, m))) if x == y => {
                    merged.push((*x, n.saturating_add(*m)));
                    a.next();
                    b.next();
                }
                (Some((x, _)), Some((y, _))) if x < y => merged.extend(a.next()),
                (Some(_), None) => merged.extend(a.next()),
                (_, Some(_)) => merged.extend(b.next()),
                (None, None) => break,
            }
        }
        merged.shrink_to_fit();
        self.buckets = merged;
    }
}

impl Slice {
    fn new(at_s: u64, length_s: u64) -> Self {
        Self { at_s, length_s, cells: BTreeMap::new(), partitions: BTreeMap::new() }
    }

    fn end_s(&self) -> u64 {
        self.at_s + self.length_s
    }

    fn size(&self) -> usize {
        self.cells.values().map(|cell| cell.buckets.len()).sum()
    }

    pub(super) fn cell(&mut self, place: Where, cell: &SliceCell) {
        self.cells.entry(place).or_default().add(cell);
    }

    pub(super) fn partition(&mut self, database: DatabaseSlot, partition: PartitionId, count: u64) {
        *self.partitions.entry((database, partition)).or_default() += count;
    }

    fn add(&mut self, other: &Self) {
        other.cells.iter().for_each(|(place, cell)| self.cell(*place, cell));
        other.partitions.iter().for_each(|((d, p), count)| self.partition(*d, *p, *count));
    }

    /// When it begins, seconds since the start.
    pub(super) fn at_s(&self) -> u64 {
        self.at_s
    }
}

impl Window {
    /// Changes the slice of this second.
    pub(super) fn at(&mut self, now_s: u64, change: impl FnOnce(&mut Slice)) {
        if self.fine.back().is_none_or(|last| last.at_s != now_s) {
            self.age(now_s);
            self.fine.push_back(Arc::new(Slice::new(now_s, 1)));
        }
        if let Some(last) = self.fine.back_mut() {
            let slice = Arc::make_mut(last);
            let before = slice.size();
            change(slice);
            self.buckets = self.buckets + slice.size() - before;
        }
    }

    /// Old seconds become tens of seconds, and what is too old goes.
    fn age(&mut self, now_s: u64) {
        while self.fine.front().is_some_and(|slice| slice.at_s + FINE_S <= now_s) {
            let Some(old) = self.fine.pop_front() else { break };
            self.buckets -= old.size();
            let at_s = old.at_s / COARSE_S * COARSE_S;
            if self.coarse.back().is_none_or(|last| last.at_s != at_s) {
                self.coarse.push_back(Arc::new(Slice::new(at_s, COARSE_S)));
            }
            if let Some(last) = self.coarse.back_mut() {
                let slice = Arc::make_mut(last);
                let before = slice.size();
                slice.add(&old);
                self.buckets = self.buckets + slice.size() - before;
            }
        }
        let too_much =
            |window: &Self, slice: &Slice| slice.end_s() + LONGEST_S <= now_s || window.buckets > BUCKETS;
        while self.coarse.front().is_some_and(|slice| too_much(self, slice)) {
            let Some(old) = self.coarse.pop_front() else { break };
            self.buckets -= old.size();
        }
    }

    /// The slices that end after `from_s`.
    pub(super) fn since(&self, from_s: u64) -> Vec<Arc<Slice>> {
        let all = self.coarse.iter().chain(&self.fine);
        all.filter(|slice| slice.end_s() > from_s).cloned().collect()
    }
}

impl Sum {
    /// Of some slices.
    pub(super) fn of<'a>(slices: impl IntoIterator<Item = &'a Arc<Slice>>) -> Self {
        let mut sum = Self::default();
        for slice in slices {
            for (place, cell) in &slice.cells {
                if !sum.cells.contains_key(place)
                    && let Some(total) = Stage::new()
                {
                    sum.cells.insert(*place, Summed { counts: Counts::default(), total });
                }
                if let Some(summed) = sum.cells.get_mut(place) {
                    summed.counts.add(cell.counts);
                    summed.total.add_buckets(&cell.buckets, cell.sum_us, cell.max_us);
                }
            }
            for (key, count) in &slice.partitions {
                *sum.partitions.entry(*key).or_default() += count;
            }
        }
        sum
    }

    /// What happened at the places that are wanted.
    pub(super) fn total(&self, wanted: impl Fn(Where) -> bool) -> Option<Summed> {
        let mut all = Summed { counts: Counts::default(), total: Stage::new()? };
        for (_, summed) in self.cells.iter().filter(|(place, _)| wanted(**place)) {
            all.counts.add(summed.counts);
            all.total.add(&summed.total);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(window: &mut Window, at_s: u64, us: u32) {
        let counts = Counts { count: 1, reads: 1, ..Counts::default() };
        let cell = SliceCell::new(counts, vec![(us, 1)], u64::from(us), u64::from(us));
        window.at(at_s, |slice| {
            slice.cell(Where::NOWHERE, &cell);
            slice.partition(DatabaseSlot(1), PartitionId(2), 1);
        });
    }

    fn count(window: &Window, from_s: u64) -> u64 {
        Sum::of(&window.since(from_s)).total(|_| true).unwrap().counts.count
    }

    #[test]
    fn what_is_looked_back_at_is_what_happened_since() {
        let mut window = Window::default();
        (0..4000).for_each(|s| happened(&mut window, s, 100 + s as u32 % 7));
        assert_eq!(count(&window, 3999), 1);
        assert_eq!(count(&window, 3940), 60);
        assert_eq!(count(&window, 3700), 300, "older slices are whole tens of seconds");
        assert_eq!(count(&window, 3701), 300);
        let hour = count(&window, 399);
        assert!((3600..=3610).contains(&hour), "{hour}");
        assert!(window.coarse.len() + window.fine.len() <= 361 + FINE_S as usize);
        let sum = Sum::of(&window.since(3940));
        assert_eq!(sum.partitions, BTreeMap::from([((DatabaseSlot(1), PartitionId(2)), 60)]));
        assert_eq!(sum.total(|_| true).unwrap().total.max(), 106);
    }

    #[test]
    fn a_pause_leaves_no_slices_and_old_ones_go() {
        let mut window = Window::default();
        happened(&mut window, 5, 1);
        happened(&mut window, 5000, 1);
        assert_eq!(count(&window, 0), 1);
        assert_eq!(window.buckets, 1);
    }

    #[test]
    fn the_oldest_slices_go_when_all_hold_too_much() {
        let mut window = Window::default();
        let many: Vec<(u32, u32)> = (0..20_000).map(|i| (i, 1)).collect();
        let counts = Counts { count: 1, ..Counts::default() };
        for at_s in (0..3600).step_by(10) {
            let cell = SliceCell::new(counts, many.clone(), 1, 1);
            window.at(at_s, |slice| slice.cell(Where::NOWHERE, &cell));
        }
        assert!(window.buckets <= BUCKETS + many.len(), "{}", window.buckets);
        assert!(count(&window, 0) < 360);
        assert!(window.coarse.front().unwrap().at_s > 0);
    }
}
