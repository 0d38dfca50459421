//! What each thread has recorded since it was last collected, in a place of its own.
//! Must not know what becomes of it.

use std::cell::Cell as Local;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use super::calls::{Call, Cell, DatabaseSlot, RouteKind, StatementSlot};
use super::latency::{Class, Where};
use super::times::{Counts, Recorded, Timing};
use crate::shard::PartitionId;

/// Worker threads beyond this number share places: correct, but then they may wait for each other.
pub(super) const PLACES: usize = 64;

/// The places of all threads.
#[derive(Debug)]
pub(super) struct Places {
    places: Box<[Place]>,
}

/// One thread's place, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    recent: Mutex<Recent>,
    plan_hits: AtomicU64,
    plan_misses: AtomicU64,
}

/// What one thread has recorded.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// By [`Where::key`].
    pub(super) times: Vec<Option<Box<Recorded<u32>>>>,
    /// By slot.
    pub(super) statements: Vec<Option<Box<Cell>>>,
    /// Of slots that have become another fingerprint's.
    pub(super) stale: Vec<Cell>,
    /// By database, then partition.
    pub(super) partitions: Vec<Vec<u64>>,
    /// By [`RouteKind`].
    pub(super) routes: [u64; RouteKind::ALL.len()],
}

impl Default for Places {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect() }
    }
}

impl Places {
    /// Lets the thread at work record something. Waits for nobody but a collector's swap.
    pub(super) fn record(&self, with: impl FnOnce(&mut Recent)) {
        if let Some(place) = self.mine() {
            with(&mut place.recent.lock());
        }
    }

    /// Swaps what each thread has recorded for something empty of the same make.
    pub(super) fn swap(&self, spare: &mut [Recent]) {
        for (place, spare) in self.places.iter().zip(spare) {
            std::mem::swap(&mut *place.recent.lock(), spare);
        }
    }

    pub(super) fn count_plan(&self, hit: bool) {
        if let Some(place) = self.mine() {
            if hit { &place.plan_hits } else { &place.plan_misses }.fetch_add(1, Relaxed);
        }
    }

    /// Plan cache hits and misses.
    pub(super) fn plans(&self) -> (u64, u64) {
        let sum =
            |counter: fn(&Place) -> &AtomicU64| self.places.iter().map(|p| counter(p).load(Relaxed)).sum();
        (sum(|p| &p.plan_hits), sum(|p| &p.plan_misses))
    }

    fn mine(&self) -> Option<&Place> {
        self.places.get(thread_number() % PLACES)
    }
}

impl Recent {
    pub(super) fn time(&mut self, place: Where, class: Class, counts: Counts, timing: Timing) {
        let key = place.key(class);
        if self.times.len() <= key {
            // Slots are given out by the hub, so this is bounded by the servers there are.
            self.times.resize_with(key + 1, || None);
        }
        let Some(cell) = self.times.get_mut(key) else { return };
        if cell.is_none() {
            *cell = Recorded::new().map(Box::new);
        }
        if let Some(into) = cell {
            into.record(counts, timing);
        }
    }

    pub(super) fn statement(&mut self, slot: StatementSlot, call: &Call) {
        let at = slot.index();
        if self.statements.len() <= at {
            self.statements.resize_with(at + 1, || None);
        }
        let Some(cell) = self.statements.get_mut(at) else { return };
        match cell {
            Some(known) if known.slot() == slot => known.record(call),
            _ => {
                let mut fresh = Box::new(Cell::new(slot));
                fresh.record(call);
                self.stale.extend(cell.replace(fresh).map(|stale| *stale));
            }
        }
    }

    pub(super) fn partition(&mut self, database: DatabaseSlot, partition: PartitionId) {
        let database = usize::from(database.0);
        if self.partitions.len() <= database {
            self.partitions.resize_with(database + 1, Vec::new);
        }
        let Some(counts) = self.partitions.get_mut(database) else { return };
        if counts.len() <= partition.index() {
            counts.resize(partition.index() + 1, 0);
        }
        if let Some(count) = counts.get_mut(partition.index()) {
            *count += 1;
        }
    }

    /// Empty again. What was not used since the last time is let go.
    pub(super) fn clear(&mut self) {
        for cell in &mut self.times {
            cell.take_if(|c| c.counts.count == 0);
            cell.iter_mut().for_each(|c| c.clear());
        }
        for cell in &mut self.statements {
            cell.take_if(|c| c.is_empty());
            cell.iter_mut().for_each(|c| c.clear());
        }
        self.stale.clear();
        self.partitions.iter_mut().for_each(|counts| counts.fill(0));
        self.routes.fill(0);
    }
}

/// Threads are numbered as they come, so that each worker has a place of its own.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Local<usize> = const { Local::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, Relaxed));
        }
        number.get()
    })
}
