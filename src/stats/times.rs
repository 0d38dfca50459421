//! Times in histograms: exact to two significant digits, with what a histogram would only give roughly beside it.
//! Must not know what is timed.

use hdrhistogram::{Counter, Histogram};
use serde::Serialize;

/// The three times of one statement, µs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// Waiting for a server connection.
    pub queue_us: u64,
    /// From the first byte sent to the server to its last byte.
    pub server_us: u64,
    /// From the client's message to the last byte of the answer.
    pub total_us: u64,
}

/// One stage's times, µs. Percentiles are exact to two significant digits and end at 60 s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
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

/// Queue, server, total.
const STAGES: usize = 3;

/// What statements did, as a histogram's neighbours count it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Statements.
    pub(super) count: u64,
    /// Of these, those that read.
    pub(super) reads: u64,
    /// Of these, those that write.
    pub(super) writes: u64,
    /// Of these, those that failed.
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.reads += other.reads;
        self.writes += other.writes;
        self.failed += other.failed;
    }
}

/// Statements of one kind.
#[derive(Debug, Clone)]
pub(super) struct Recorded<C: Counter> {
    pub(super) counts: Counts,
    stages: [Stage<C>; STAGES],
}

/// One stage: a histogram, and what it would only give roughly.
#[derive(Debug, Clone)]
pub(super) struct Stage<C: Counter> {
    histogram: Histogram<C>,
    sum: u64,
    max: u64,
}

impl<C: Counter> Recorded<C> {
    /// `None` never happens: the bounds are constants that hdrhistogram accepts.
    pub(super) fn new() -> Option<Self> {
        Some(Self { counts: Counts::default(), stages: [Stage::new()?, Stage::new()?, Stage::new()?] })
    }

    pub(super) fn record(&mut self, counts: Counts, timing: Timing) {
        self.counts.add(counts);
        let times = [timing.queue_us, timing.server_us, timing.total_us];
        for (stage, time) in self.stages.iter_mut().zip(times) {
            stage.histogram.saturating_record(time);
            stage.sum = stage.sum.saturating_add(time);
            stage.max = stage.max.max(time);
        }
    }

    pub(super) fn clear(&mut self) {
        self.counts = Counts::default();
        for stage in &mut self.stages {
            stage.histogram.reset();
            (stage.sum, stage.max) = (0, 0);
        }
    }

    pub(super) fn queue(&self) -> &Stage<C> {
        &self.stages[0]
    }

    pub(super) fn server(&self) -> &Stage<C> {
        &self.stages[1]
    }

    pub(super) fn total(&self) -> &Stage<C> {
        &self.stages[2]
    }
}

impl Recorded<u64> {
    pub(super) fn add<C: Counter>(&mut self, other: &Recorded<C>) {
        self.counts.add(other.counts);
        for (stage, other) in self.stages.iter_mut().zip(&other.stages) {
            stage.add(other);
        }
    }
}

impl Stage<u64> {
    pub(super) fn add<C: Counter>(&mut self, other: &Stage<C>) {
        for bucket in other.histogram.iter_recorded() {
            self.histogram.saturating_record_n(bucket.value_iterated_to(), bucket.count_at_value().as_u64());
        }
        self.note(other.sum, other.max);
    }

    /// Adds what a sparse copy of another histogram holds.
    pub(super) fn add_buckets(&mut self, buckets: &[(u32, u32)], sum: u64, max: u64) {
        for (value, count) in buckets {
            self.histogram.saturating_record_n(u64::from(*value), u64::from(*count));
        }
        self.note(sum, max);
    }

    fn note(&mut self, sum: u64, max: u64) {
        self.sum = self.sum.saturating_add(sum);
        self.max = self.max.max(max);
    }

    /// How many took at most each of these times, µs, in ascending order. A time belongs to the bound that its
    /// bucket's upper end does not pass.
    pub(super) fn at_most(&self, bounds: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len()];
        for bucket in self.histogram.iter_recorded() {
            let at = bounds.partition_point(|bound| *bound < bucket.value_iterated_to());
            if let Some(count) = counts.get_mut(at) {
                *count += bucket.count_at_value();
            }
        }
        let mut so_far = 0;
        counts.iter_mut().for_each(|count| {
            so_far += *count;
            *count = so_far;
        });
        counts
    }
}

impl<C: Counter> Stage<C> {
    pub(super) fn new() -> Option<Self> {
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 2).ok()?;
        Some(Self { histogram, sum: 0, max: 0 })
    }

    /// All times together, µs.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// The longest, µs.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// What it holds: the upper ends of buckets, ascending, and how many are in each.
    pub(super) fn buckets(&self) -> Vec<(u32, u32)> {
        let cut = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let buckets = self.histogram.iter_recorded();
        buckets.map(|b| (cut(b.value_iterated_to()), cut(b.count_at_value().as_u64()))).collect()
    }

    pub(super) fn spread(&self, count: u64) -> Spread {
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

    #[test]
    fn cumulative_counts_hold_all_that_took_at_most_so_long() {
        let mut times = Recorded::<u64>::new().unwrap();
        let one = Counts { count: 1, ..Counts::default() };
        for us in [1, 90, 100, 101, 5000, 70_000_000] {
            times.record(one, Timing { queue_us: 0, server_us: 0, total_us: us });
        }
        assert_eq!(times.total().at_most(&[100, 1000, 10_000]), [3, 4, 5]);
        assert_eq!(times.total().at_most(&[]), Vec::<u64>::new());
    }

    #[test]
    fn a_sparse_copy_holds_the_same_times() {
        let mut times = Recorded::<u32>::new().unwrap();
        let one = Counts { count: 1, ..Counts::default() };
        (0..5000).for_each(|us| times.record(one, Timing { queue_us: 0, server_us: 0, total_us: us * 7 }));
        let mut copy = Stage::<u64>::new().unwrap();
        copy.add_buckets(&times.total().buckets(), times.total().sum(), times.total().max());
        assert_eq!(copy.spread(5000), times.total().spread(5000));
    }
}
