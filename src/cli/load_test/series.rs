//! The test over time: what happened in each second, or in longer steps of a long test.
//! Must not know how statements are sent.

use std::time::Duration;

use tokio::time::Instant;

use super::record::Record;

/// Steps of the longest test; more could not be told apart in a plot.
const MOST_STEPS: u64 = 600;
/// A last step shorter than this says nothing.
const SHORTEST: Duration = Duration::from_millis(200);

/// What happened in one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Step {
    /// From the start of the test to the end of the step.
    pub(super) end: Duration,
    pub(super) length: Duration,
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// Of successful statements; 0 if there were none.
    pub(super) p50_us: u64,
    pub(super) p95_us: u64,
    pub(super) p99_us: u64,
    pub(super) max_us: u64,
}

impl Step {
    /// Successful statements per second.
    pub(super) fn rate(&self) -> f64 {
        self.ok as f64 / self.length.as_secs_f64().max(0.001)
    }

    /// Failed statements per second.
    pub(super) fn failed_rate(&self) -> f64 {
        self.failed as f64 / self.length.as_secs_f64().max(0.001)
    }
}

/// The steps so far.
#[derive(Debug)]
pub(super) struct Series {
    steps: Vec<Step>,
    /// Whole seconds.
    length: u64,
    start: Instant,
    last: Instant,
    counts: (u64, u64),
}

impl Series {
    /// Begins now.
    pub(super) fn new(duration: Duration) -> Self {
        let now = Instant::now();
        let length = duration.as_secs().div_ceil(MOST_STEPS).max(1);
        Self { steps: Vec::new(), length, start: now, last: now, counts: (0, 0) }
    }

    /// Called each second.
    pub(super) fn second(&mut self, number: u64, record: &Record) {
        if number.is_multiple_of(self.length) {
            self.step(record);
        }
    }

    /// The rest, at the end of the test.
    pub(super) fn finish(mut self, record: &Record) -> Vec<Step> {
        if self.last.elapsed() >= SHORTEST || self.steps.is_empty() {
            self.step(record);
        }
        self.steps
    }

    fn step(&mut self, record: &Record) {
        let now = Instant::now();
        let recent = record.take_recent();
        let (ok, failed) = record.counts();
        self.steps.push(Step {
            end: now - self.start,
            length: now - self.last,
            ok: ok - self.counts.0,
            failed: failed - self.counts.1,
            p50_us: recent.value_at_quantile(0.5),
            p95_us: recent.value_at_quantile(0.95),
            p99_us: recent.value_at_quantile(0.99),
            max_us: recent.max(),
        });
        (self.last, self.counts) = (now, (ok, failed));
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::Operation;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_second_tells_what_happened_in_it_alone() {
        let record = Record::new(1);
        let mut series = Series::new(Duration::from_secs(3));
        for (second, us) in [(1, 100), (2, 300)] {
            for _ in 0..second * 10 {
                record.success(0, Operation::UserById, Duration::from_micros(us));
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            series.second(second, &record);
        }
        tokio::time::advance(Duration::from_millis(500)).await;
        let steps = series.finish(&record);
        let told: Vec<_> = steps.iter().map(|s| (s.end.as_millis(), s.ok, s.rate() as u64)).collect();
        assert_eq!(told, [(1000, 10, 10), (2000, 20, 20), (2500, 0, 0)]);
        assert!((99..=101).contains(&steps[0].p50_us) && (297..=303).contains(&steps[1].p99_us), "{steps:?}");
        assert_eq!(steps[2].max_us, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_test_has_longer_steps() {
        let record = Record::new(1);
        let mut series = Series::new(Duration::from_secs(3600));
        for second in 1..=3600 {
            tokio::time::advance(Duration::from_secs(1)).await;
            series.second(second, &record);
        }
        assert_eq!(series.finish(&record).len(), 600);
    }
}
