//! What statements of one fingerprint did, for the fingerprints that are called most.
//! Must not know SQL, nor who counts. Bounded: clients choose the texts, so rare ones make room for new ones and go on
//! in one common row.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use tokio::time::Instant;

use super::calls::{Cell, DatabaseSlot, RouteKind, StatementSlot, Sums};
use super::coarse::Coarse;
use super::latency::Class;
use super::statement_row::StatementRow;

/// Fingerprints counted one by one.
pub(super) const STATEMENTS: usize = 1000;
/// So many make room at once, so that a flood of texts does not search for the rarest each time.
const EVICTED: usize = STATEMENTS / 20;
/// What a call is worth a second later, when it is asked who is called least: half after 23 minutes.
const FADES: f64 = 0.9995;

#[derive(Debug)]
struct Entry {
    database: DatabaseSlot,
    hash: u64,
    text: Arc<str>,
    class: Class,
    sums: Sums,
    times: Coarse<u64>,
    /// Calls, the older the less.
    usage: f64,
}

/// What tells a statement apart.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Its database.
    pub database: DatabaseSlot,
    /// The hash of its fingerprint.
    pub hash: u64,
    /// Its text without values.
    pub text: &'a str,
    /// What it counts as.
    pub class: Class,
    /// A place that belongs to the text, where its slot may be noted.
    pub mark: &'a AtomicU64,
}

/// Which slots are still what they were. Read on every statement, written when one makes room.
#[derive(Debug)]
pub(super) struct Generations {
    now: Box<[AtomicU32]>,
}

impl Default for Generations {
    fn default() -> Self {
        Self { now: (0..STATEMENTS).map(|_| AtomicU32::new(1)).collect() }
    }
}

impl Generations {
    /// The slot that a mark names, if it is still what it was.
    pub(super) fn known(&self, mark: &AtomicU64) -> Option<StatementSlot> {
        StatementSlot::from_mark(mark.load(Relaxed)).filter(|slot| self.is_valid(*slot))
    }

    fn is_valid(&self, slot: StatementSlot) -> bool {
        self.now.get(slot.index()).is_some_and(|now| now.load(Relaxed) == slot.generation.get())
    }

    fn slot(&self, place: usize) -> StatementSlot {
        let generation = self.now.get(place).and_then(|now| NonZeroU32::new(now.load(Relaxed)));
        StatementSlot { place: place as u32, generation: generation.unwrap_or(NonZeroU32::MIN) }
    }

    /// Whoever still has the slot has it no more. 0 is never a generation.
    fn leave(&self, place: usize) {
        if let Some(now) = self.now.get(place) {
            now.store(now.load(Relaxed).wrapping_add(1).max(1), Relaxed);
        }
    }
}

/// The fingerprints that are counted one by one, and what all others did.
#[derive(Debug)]
pub(super) struct Registry {
    known: HashMap<(DatabaseSlot, u64), u32, foldhash::fast::RandomState>,
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    others: (Sums, Coarse<u64>),
    evicted: u64,
    since: SystemTime,
    faded: Instant,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            known: HashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            others: (Sums::default(), Coarse::empty()),
            evicted: 0,
            since: SystemTime::now(),
            faded: Instant::now(),
        }
    }
}

impl Registry {
    /// The slot of a statement, made if there is none yet; noted at its mark.
    pub(super) fn slot(&mut self, generations: &Generations, named: &Named<'_>) -> StatementSlot {
        let key = (named.database, named.hash);
        let place = match self.known.get(&key) {
            Some(place) => *place,
            None => {
                let place = self.room(generations);
                let entry = Entry {
                    database: named.database,
                    hash: named.hash,
                    text: named.text.into(),
                    class: named.class,
                    sums: Sums::default(),
                    times: Coarse::empty(),
                    usage: 0.0,
                };
                if let Some(slot) = self.entries.get_mut(place as usize) {
                    *slot = Some(entry);
                }
                self.known.insert(key, place);
                place
            }
        };
        let slot = generations.slot(place as usize);
        named.mark.store(slot.mark(), Relaxed);
        slot
    }

    fn room(&mut self, generations: &Generations) -> u32 {
        if let Some(place) = self.free.pop() {
            return place;
        }
        if self.entries.len() < STATEMENTS {
            self.entries.push(None);
            return (self.entries.len() - 1) as u32;
        }
        self.evict(generations);
        self.free.pop().unwrap_or_default()
    }

    /// The least used go.
    fn evict(&mut self, generations: &Generations) {
        let elapsed = self.faded.elapsed();
        let fades = FADES.powf(elapsed.as_secs_f64());
        self.faded += elapsed;
        let mut usage: Vec<(f64, u32)> = Vec::with_capacity(self.entries.len());
        for (place, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            entry.usage *= fades;
            usage.push((entry.usage, place as u32));
        }
        let least = usage.len().saturating_sub(1).min(EVICTED);
        usage.select_nth_unstable_by(least, |a, b| a.0.total_cmp(&b.0));
        for (_, place) in usage.into_iter().take(EVICTED) {
            self.leave(generations, place);
            self.evicted += 1;
        }
    }

    fn leave(&mut self, generations: &Generations, place: u32) {
        let Some(entry) = self.entries.get_mut(place as usize).and_then(Option::take) else { return };
        self.others.0.add(&entry.sums);
        self.others.1.plus(&entry.times);
        self.known.remove(&(entry.database, entry.hash));
        generations.leave(place as usize);
        self.free.push(place);
    }

    /// Adds what a thread has recorded.
    pub(super) fn add(&mut self, generations: &Generations, cell: &Cell) {
        let valid = generations.is_valid(cell.slot());
        let entry = self.entries.get_mut(cell.slot().index()).and_then(Option::as_mut).filter(|_| valid);
        let (sums, times) = match entry {
            Some(entry) => {
                entry.usage += cell.sums.calls as f64;
                (&mut entry.sums, &mut entry.times)
            }
            None => (&mut self.others.0, &mut self.others.1),
        };
        sums.add(&cell.sums);
        times.add(&cell.times);
    }

    /// The fingerprint counted in a slot, and its text.
    pub(super) fn named(&self, generations: &Generations, slot: StatementSlot) -> Option<(String, Arc<str>)> {
        let entry = self.entries.get(slot.index()).and_then(Option::as_ref)?;
        generations.is_valid(slot).then(|| (format!("{:016x}", entry.hash), entry.text.clone()))
    }

    /// Forgets everything.
    pub(super) fn reset(&mut self, generations: &Generations) {
        (0..self.entries.len()).for_each(|place| generations.leave(place));
        *self = Self::default();
    }

    /// Those with calls, by total time, longest first; the common row last.
    pub(super) fn rows(&self, databases: &[String]) -> Vec<StatementRow> {
        let mut rows: Vec<_> = self
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.sums.calls > 0)
            .map(|entry| {
                let database = databases.get(usize::from(entry.database.0)).cloned().unwrap_or_default();
                StatementRow {
                    database,
                    fingerprint: format!("{:016x}", entry.hash),
                    statement: entry.text.to_string(),
                    class: Some(entry.class),
                    ..row(&entry.sums, &entry.times)
                }
            })
            .collect();
        rows.sort_by(|a, b| b.total_us.cmp(&a.total_us).then_with(|| a.fingerprint.cmp(&b.fingerprint)));
        if self.others.0.calls > 0 {
            let statement = "all statements that made room for others".to_owned();
            rows.push(StatementRow { statement, ..row(&self.others.0, &self.others.1) });
        }
        rows
    }

    /// Since when it counts, and how many fingerprints have made room since.
    pub(super) fn since(&self) -> (SystemTime, u64) {
        (self.since, self.evicted)
    }
}

fn row(sums: &Sums, times: &Coarse<u64>) -> StatementRow {
    let routes = RouteKind::ALL.into_iter().filter(|kind| sums.routes >> *kind as u8 & 1 == 1);
    StatementRow {
        database: String::new(),
        fingerprint: String::new(),
        statement: String::new(),
        class: None,
        routes: routes.map(RouteKind::as_str).collect(),
        shards: sums.shards,
        shard_names: Vec::new(),
        calls: sums.calls,
        replica_calls: sums.on_replica,
        errors: sums.failed,
        rows: sums.rows,
        total_us: sums.total_us,
        mean_us: if sums.calls == 0 { 0.0 } else { sums.total_us as f64 / sums.calls as f64 },
        p50_us: times.at(0.5).min(sums.max_us),
        p99_us: times.at(0.99).min(sums.max_us),
        max_us: sums.max_us,
        queue_us: sums.queue_us,
        server_us: sums.server_us,
        proxy_us: sums.total_us.saturating_sub(sums.queue_us + sums.server_us),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ShardSet;
    use crate::stats::Timing;
    use crate::stats::calls::Call;

    #[derive(Default)]
    struct Counter {
        generations: Generations,
        registry: Registry,
    }

    impl Counter {
        fn slot(&mut self, hash: u64, mark: &AtomicU64) -> StatementSlot {
            if let Some(slot) = self.generations.known(mark) {
                return slot;
            }
            let text = format!("select {hash}");
            let named = Named { database: DatabaseSlot(0), hash, text: &text, class: Class::Select, mark };
            self.registry.slot(&self.generations, &named)
        }

        /// Calls of one fingerprint, by a thread that has seen the text for the first time.
        fn call(&mut self, hash: u64, times: u64) {
            let slot = self.slot(hash, &AtomicU64::new(0));
            let mut cell = Cell::new(slot);
            (0..times).for_each(|_| cell.record(&call(10)));
            self.registry.add(&self.generations, &cell);
        }

        fn calls(&self) -> u64 {
            self.registry.rows(&[]).iter().map(|row| row.calls).sum()
        }
    }

    fn call(total_us: u64) -> Call {
        Call {
            first: true,
            failed: false,
            on_replica: false,
            rows: 1,
            route: RouteKind::Direct,
            shards: ShardSet::EMPTY,
            timing: Timing { queue_us: 1, server_us: total_us - 2, total_us },
        }
    }

    #[test]
    fn a_flood_of_texts_neither_grows_the_table_nor_drives_out_what_is_called_often() {
        let mut counter = Counter::default();
        (0..10).for_each(|hash| counter.call(hash, 1000));
        (100..50_100).for_each(|hash| counter.call(hash, 1));
        let rows = counter.registry.rows(&[]);
        assert!(rows.len() <= STATEMENTS + 1, "{}", rows.len());
        assert!(counter.registry.entries.len() <= STATEMENTS && counter.registry.known.len() <= STATEMENTS);
        assert_eq!(rows.iter().filter(|row| row.calls == 1000).count(), 10);
        assert_eq!(counter.calls(), 10 * 1000 + 50_000, "those that made room go on in the common row");
        let others = rows.last().unwrap();
        assert_eq!((others.class, others.fingerprint.as_str()), (None, ""));
    }

    #[test]
    fn what_becomes_frequent_stays_although_the_table_is_full() {
        let mut counter = Counter::default();
        (0..2 * STATEMENTS as u64).for_each(|hash| counter.call(hash, 5));
        for round in 0..2000 {
            counter.call(1_000_000 + round, 1);
            counter.call(77_777, 1);
        }
        let rows = counter.registry.rows(&[]);
        let calls = rows.iter().find(|row| row.statement == "select 77777").map(|row| row.calls);
        assert!(calls.is_some_and(|calls| calls > 1000), "{calls:?}");
    }

    #[test]
    fn a_slot_that_became_another_fingerprints_counts_in_the_common_row() {
        let mut counter = Counter::default();
        let mark = AtomicU64::new(0);
        let old = counter.slot(1, &mark);
        assert_eq!(counter.slot(1, &mark), old, "the mark is enough");
        (2..2 + STATEMENTS as u64).for_each(|hash| counter.call(hash, 3));
        let mut late = Cell::new(old);
        late.record(&call(500));
        counter.registry.add(&counter.generations, &late);
        let made_room = EVICTED as u64 - 1;
        assert_eq!(counter.registry.rows(&[]).last().unwrap().calls, made_room * 3 + 1);
        assert_ne!(counter.slot(1, &mark), old);
        assert!(counter.registry.since().1 >= EVICTED as u64);
    }

    #[test]
    fn a_reset_forgets_all_and_marks_go_stale() {
        let mut counter = Counter::default();
        let mark = AtomicU64::new(0);
        let before = counter.slot(1, &mark);
        counter.call(1, 5);
        counter.registry.reset(&counter.generations);
        assert!(counter.registry.rows(&[]).is_empty());
        assert_ne!(counter.slot(1, &mark), before);
        counter.call(1, 2);
        assert_eq!(counter.calls(), 2);
    }

    #[test]
    fn rows_of_a_portal_fetched_in_parts_are_one_call() {
        let mut counter = Counter::default();
        let slot = counter.slot(1, &AtomicU64::new(0));
        let mut cell = Cell::new(slot);
        cell.record(&call(100));
        (0..4).for_each(|_| cell.record(&Call { first: false, ..call(50) }));
        counter.registry.add(&counter.generations, &cell);
        let row = &counter.registry.rows(&[])[0];
        assert_eq!((row.calls, row.rows, row.total_us, row.max_us), (1, 5, 300, 100));
        assert_eq!((row.queue_us, row.server_us, row.proxy_us), (5, 290, 5));
    }
}
