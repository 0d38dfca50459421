//! What happened to every statement: latencies by class, and errors by their code and message.
//! Must not know how statements are sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::failed::Failed;
use super::operation::Operation;

/// Recorders beyond this many would cost memory for nothing.
const MOST_SHARES: usize = 16;
/// Different errors kept; the rest is counted together.
const MOST_ERRORS: usize = 100;
/// Longest latency told apart, µs; longer ones count as this.
const LONGEST_US: u64 = 600_000_000;

/// Where an error came from, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ErrorKey {
    /// SQLSTATE, or empty when the connection broke.
    pub(super) code: String,
    pub(super) message: String,
    /// Whether it happened while connecting: then no statement failed.
    pub(super) connecting: bool,
}

/// All workers' recorders.
pub(super) struct Record {
    shares: Vec<Mutex<Share>>,
    ok: AtomicU64,
    failed: AtomicU64,
}

/// What some workers share.
pub(super) struct Share {
    /// Successful statements, µs, by [`Operation`].
    pub(super) latencies: Vec<Histogram<u64>>,
    /// Failed statements by [`Operation`].
    pub(super) failed: Vec<u64>,
    pub(super) errors: BTreeMap<ErrorKey, u64>,
    /// Successful statements since it was last taken, µs.
    recent: Histogram<u64>,
}

impl Share {
    fn new() -> Self {
        let count = Operation::ALL.len();
        Self {
            latencies: (0..count).map(|_| empty(3)).collect(),
            failed: vec![0; count],
            errors: BTreeMap::new(),
            recent: empty(2),
        }
    }

    fn error(&mut self, key: ErrorKey, count: u64) {
        let known = self.errors.contains_key(&key) || self.errors.len() < MOST_ERRORS;
        let other =
            || ErrorKey { code: String::new(), message: "other errors".into(), connecting: key.connecting };
        let key = if known { key } else { other() };
        *self.errors.entry(key).or_default() += count;
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(theirs).unwrap_or_else(|_| unreachable!("both have the same bounds"));
        }
        for (mine, theirs) in self.failed.iter_mut().zip(&other.failed) {
            *mine += theirs;
        }
        for (key, count) in &other.errors {
            self.error(key.clone(), *count);
        }
    }
}

impl Record {
    pub(super) fn new(workers: usize) -> Self {
        let shares = (0..workers.clamp(1, MOST_SHARES)).map(|_| Mutex::new(Share::new())).collect();
        Self { shares, ok: AtomicU64::new(0), failed: AtomicU64::new(0) }
    }

    /// One statement that succeeded.
    pub(super) fn success(&self, worker: usize, operation: Operation, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.ok.fetch_add(1, Relaxed);
        let mut share = self.share(worker).lock();
        if let Some(histogram) = share.latencies.get_mut(operation as usize) {
            histogram.saturating_record(us.max(1));
        }
        share.recent.saturating_record(us.max(1));
    }

    /// One statement that failed.
    pub(super) fn failure(&self, worker: usize, operation: Operation, error: Failed) {
        self.failed.fetch_add(1, Relaxed);
        let mut share = self.share(worker).lock();
        if let Some(failed) = share.failed.get_mut(operation as usize) {
            *failed += 1;
        }
        share.error(ErrorKey::new(error, false), 1);
    }

    /// A connection that could not be made.
    pub(super) fn no_connection(&self, worker: usize, error: Failed) {
        self.share(worker).lock().error(ErrorKey::new(error, true), 1);
    }

    /// Statements that succeeded and that failed so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.ok.load(Relaxed), self.failed.load(Relaxed))
    }

    /// All of it together.
    pub(super) fn merged(&self) -> Share {
        let mut all = Share::new();
        self.shares.iter().for_each(|share| all.add(&share.lock()));
        all
    }

    /// What succeeded since the last call.
    pub(super) fn take_recent(&self) -> Histogram<u64> {
        let mut all = empty(2);
        for share in &self.shares {
            let mut share = share.lock();
            all.add(&share.recent).unwrap_or_else(|_| unreachable!("both have the same bounds"));
            share.recent.reset();
        }
        all
    }

    fn share(&self, worker: usize) -> &Mutex<Share> {
        &self.shares[worker % self.shares.len()]
    }
}

/// Of so many significant digits.
fn empty(digits: u8) -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, LONGEST_US, digits)
        .unwrap_or_else(|_| unreachable!("the bounds are constants that fit"));
    histogram.auto(false);
    histogram
}

impl ErrorKey {
    fn new(error: Failed, connecting: bool) -> Self {
        Self { code: error.code, message: error.message, connecting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_record_adds_up() {
        let record = Record::new(40);
        for worker in 0..40 {
            record.success(worker, Operation::UserById, Duration::from_micros(100 + worker as u64));
            record.success(worker, Operation::UpdateUser, Duration::from_secs(3600));
        }
        assert_eq!(record.counts(), (80, 0));
        let all = record.merged();
        assert_eq!(all.latencies.iter().map(Histogram::len).collect::<Vec<_>>(), [40, 0, 0, 0, 40]);
        assert!((100..=140).contains(&all.latencies[0].value_at_quantile(0.5)));
    }

    #[test]
    fn different_errors_are_bounded_but_all_are_counted() {
        let mut share = Share::new();
        for n in 0..250 {
            share.error(ErrorKey { code: "XX000".into(), message: format!("no {n}"), connecting: false }, 1);
        }
        assert_eq!(share.errors.len(), MOST_ERRORS + 1);
        assert_eq!(share.errors.values().sum::<u64>(), 250);
    }
}
