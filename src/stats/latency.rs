//! How long statements took: one histogram per server, role, class and stage.
//! Must not know who records, nor how the figures are shown.

use std::cell::Cell as Local;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use hdrhistogram::{Counter, Histogram};
use parking_lot::{Mutex, RwLock};

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// The three times of one statement, µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a server connection.
    pub queue_us: u64,
    /// From the first byte sent to the server to its last byte.
    pub server_us: u64,
    /// From the client's message to the last byte of the answer.
    pub total_us: u64,
}

impl Class {
    const ALL: [Self; 7] =
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

/// One stage's times, µs. Percentiles are exact to two significant digits and end at 60 s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The mean, exact.
    pub mean_us: f64,
    /// Half of all were at most this long.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 95 %.
    pub p95_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// The longest, exact.
    pub max_us: u64,
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

/// Worker threads beyond this number share recorders: correct, but then they may wait for each other.
const WORKERS: usize = 64;
/// Queue, server, total.
const STAGES: usize = 3;
/// A recorder's 32-bit counters are emptied into the 64-bit totals before they can overflow.
const FULL: u64 = 1 << 30;

/// One server, role and class: slot × 14 + replica × 7 + class.
type Key = usize;
const CLASSES: usize = Class::ALL.len();

/// Every time that was recorded. Each thread records into a place of its own; readers empty all places into the
/// totals. The emptied part is what happened since the last reading, which is what a sliding window needs.
#[derive(Debug)]
pub(super) struct Latency {
    servers: RwLock<Vec<ServerLabel>>,
    places: Box<[Place]>,
    totals: Mutex<BTreeMap<Key, Recorded<u64>>>,
}

/// One thread's place, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    recorded: Mutex<Vec<Option<Box<Recorded<u32>>>>>,
    plan_hits: AtomicU64,
    plan_misses: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        let places = (0..WORKERS).map(|_| Place::default()).collect();
        Self { servers: RwLock::default(), places, totals: Mutex::default() }
    }
}

impl Latency {
    pub(super) fn server(&self, label: ServerLabel) -> ServerSlot {
        let mut servers = self.servers.write();
        let at = servers.iter().position(|known| *known == label).unwrap_or_else(|| {
            servers.push(label);
            servers.len() - 1
        });
        ServerSlot(at as u32)
    }

    pub(super) fn record(&self, slot: ServerSlot, is_replica: bool, class: Class, timing: Timing) {
        let key = (slot.0 as usize * 2 + usize::from(is_replica)) * CLASSES + class as usize;
        let Some(place) = self.place() else { return };
        let mut recorded = place.recorded.lock();
        if recorded.len() <= key {
            // Slots come from `server`, so this is bounded by the servers there are.
            recorded.resize_with(key + 1, || None);
        }
        let Some(cell) = recorded.get_mut(key) else { return };
        if cell.is_none() {
            *cell = Recorded::new().map(Box::new);
        }
        let Some(into) = cell else { return };
        into.record(timing);
        if into.count >= FULL {
            let full = cell.take();
            drop(recorded);
            self.fold(key, full);
        }
    }

    pub(super) fn count_plan(&self, hit: bool) {
        if let Some(place) = self.place() {
            if hit { &place.plan_hits } else { &place.plan_misses }.fetch_add(1, Relaxed);
        }
    }

    /// Plan cache hits and misses.
    pub(super) fn plans(&self) -> (u64, u64) {
        let sum =
            |counter: fn(&Place) -> &AtomicU64| self.places.iter().map(|p| counter(p).load(Relaxed)).sum();
        (sum(|p| &p.plan_hits), sum(|p| &p.plan_misses))
    }

    fn place(&self) -> Option<&Place> {
        self.places.get(thread_number() % WORKERS)
    }

    fn fold(&self, key: Key, recorded: Option<Box<Recorded<u32>>>) {
        let Some(recorded) = recorded else { return };
        let mut totals = self.totals.lock();
        if let Some(total) = totals.get_mut(&key) {
            total.add(&recorded);
        } else if let Some(mut total) = Recorded::new() {
            total.add(&recorded);
            totals.insert(key, total);
        }
    }

    pub(super) fn rows(&self) -> Vec<LatencyRow> {
        for place in &self.places {
            // Only the swap happens under the lock that the recording thread takes.
            let recorded = std::mem::take(&mut *place.recorded.lock());
            recorded.into_iter().enumerate().for_each(|(key, cell)| self.fold(key, cell));
        }
        let servers = self.servers.read();
        let totals = self.totals.lock();
        totals.iter().filter_map(|(key, total)| row(&servers, *key, total)).collect()
    }
}

fn row(servers: &[ServerLabel], key: Key, total: &Recorded<u64>) -> Option<LatencyRow> {
    let [queue, at_server, all] = &total.stages;
    Some(LatencyRow {
        server: servers.get(key / CLASSES / 2)?.clone(),
        is_replica: key / CLASSES % 2 == 1,
        class: *Class::ALL.get(key % CLASSES)?,
        count: total.count,
        queue: queue.spread(total.count),
        at_server: at_server.spread(total.count),
        total: all.spread(total.count),
    })
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

/// Times of one server, role and class.
#[derive(Debug)]
struct Recorded<C: Counter> {
    count: u64,
    stages: [Stage<C>; STAGES],
}

/// One stage: a histogram, and what it would only give roughly.
#[derive(Debug)]
struct Stage<C: Counter> {
    histogram: Histogram<C>,
    sum: u64,
    max: u64,
}

impl<C: Counter> Recorded<C> {
    /// `None` never happens: the bounds are constants that hdrhistogram accepts.
    fn new() -> Option<Self> {
        Some(Self { count: 0, stages: [Stage::new()?, Stage::new()?, Stage::new()?] })
    }
}

impl Recorded<u32> {
    fn record(&mut self, timing: Timing) {
        self.count += 1;
        let times = [timing.queue_us, timing.server_us, timing.total_us];
        for (stage, time) in self.stages.iter_mut().zip(times) {
            stage.histogram.saturating_record(time);
            stage.sum = stage.sum.saturating_add(time);
            stage.max = stage.max.max(time);
        }
    }
}

impl Recorded<u64> {
    fn add(&mut self, other: &Recorded<u32>) {
        self.count += other.count;
        for (stage, other) in self.stages.iter_mut().zip(&other.stages) {
            for bucket in other.histogram.iter_recorded() {
                let (value, count) = (bucket.value_iterated_to(), u64::from(bucket.count_at_value()));
                stage.histogram.saturating_record_n(value, count);
            }
            stage.sum = stage.sum.saturating_add(other.sum);
            stage.max = stage.max.max(other.max);
        }
    }
}

impl<C: Counter> Stage<C> {
    fn new() -> Option<Self> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 2).ok()?;
        Some(Self { histogram, sum: 0, max: 0 })
    }

    fn spread(&self, count: u64) -> Spread {
        // A bucket's upper end may lie above the longest time there was.
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max);
        Spread {
            mean_us: if count == 0 { 0.0 } else { self.sum as f64 / count as f64 },
            p50_us: at(0.5),
            p90_us: at(0.9),
            p95_us: at(0.95),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(address: &str) -> ServerLabel {
        ServerLabel {
            database: "app".into(),
            shard: ShardId(0),
            shard_name: "shard1".into(),
            address: address.into(),
        }
    }

    fn timing(total_us: u64) -> Timing {
        Timing { queue_us: 1, server_us: total_us / 2, total_us }
    }

    #[test]
    fn times_of_all_threads_are_counted_once() {
        let latency = Latency::default();
        let slots = [latency.server(label("a:1")), latency.server(label("b:1"))];
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (latency, slots) = (&latency, &slots);
                scope.spawn(move || {
                    for i in 0..5000u64 {
                        latency.record(slots[i as usize % 2], i % 3 == 0, Class::Select, timing(i));
                        if i % 1000 == thread {
                            latency.rows(); // a reader in between must lose nothing
                        }
                    }
                });
            }
        });
        let rows = latency.rows();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows.iter().map(|r| r.count).sum::<u64>(), 40_000);
        let replica = rows.iter().find(|r| r.is_replica && r.server.address == "a:1").unwrap();
        assert_eq!(replica.count, 8 * 834, "every sixth number from 0");
    }

    #[test]
    fn percentiles_are_right_to_two_digits_and_never_above_the_longest() {
        let latency = Latency::default();
        let slot = latency.server(label("a:1"));
        (1..=1000).for_each(|i| latency.record(slot, false, Class::Insert, timing(i)));
        let rows = latency.rows();
        let total = rows[0].total;
        assert_eq!((rows[0].count, rows[0].class, total.max_us), (1000, Class::Insert, 1000));
        assert!((total.mean_us - 500.5).abs() < 1e-9);
        for (got, want) in
            [(total.p50_us, 500), (total.p90_us, 900), (total.p99_us, 990), (total.p999_us, 999)]
        {
            assert!(got >= want && got <= want + want / 100 + 1, "{got} for {want}");
        }
        assert_eq!(rows[0].queue.p99_us, 1);
    }

    #[test]
    fn times_beyond_a_minute_saturate_but_the_longest_is_kept() {
        let latency = Latency::default();
        let slot = latency.server(label("a:1"));
        latency.record(slot, false, Class::Other, timing(600_000_000));
        let total = latency.rows()[0].total;
        assert_eq!(total.max_us, 600_000_000);
        assert!((60_000_000..61_000_000).contains(&total.p50_us), "{}", total.p50_us);
    }

    #[test]
    fn the_same_label_has_the_same_slot() {
        let latency = Latency::default();
        assert_eq!(latency.server(label("a:1")), latency.server(label("a:1")));
        assert_ne!(latency.server(label("a:1")), latency.server(label("b:1")));
    }
}
