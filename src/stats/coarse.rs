//! A small histogram for one fingerprint of very many: 16 steps per power of two, so within 6 % of the truth.
//! Must not know what is timed.

/// Times from 0 µs to about 18 minutes.
const BUCKETS: usize = 432;
/// The longest time told apart, µs.
const LONGEST: u64 = (1 << 30) - 1;

/// Times, µs.
#[derive(Debug, Clone)]
pub(super) struct Coarse<C> {
    counts: Box<[C]>,
}

impl Coarse<u32> {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into() }
    }

    pub(super) fn record(&mut self, us: u64) {
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
    }
}

impl Coarse<u64> {
    pub(super) fn empty() -> Self {
        Self { counts: vec![0; BUCKETS].into() }
    }

    pub(super) fn add(&mut self, other: &Coarse<u32>) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += u64::from(*count));
    }

    pub(super) fn plus(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
    }

    /// The time that this share of all were not longer than.
    pub(super) fn at(&self, quantile: f64) -> u64 {
        let all: u64 = self.counts.iter().sum();
        let wanted = ((all as f64 * quantile).ceil() as u64).max(1);
        let mut so_far = 0;
        let found = self.counts.iter().position(|count| {
            so_far += count;
            so_far >= wanted
        });
        found.map_or(0, upper_end)
    }
}

fn bucket(us: u64) -> usize {
    let us = us.min(LONGEST);
    if us < 16 {
        return us as usize;
    }
    let power = 63 - us.leading_zeros() as usize;
    (power - 3) * 16 + (us >> (power - 4)) as usize % 16
}

fn upper_end(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    ((16 + bucket as u64 % 16 + 1) << (bucket / 16 - 1)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_a_bucket_whose_end_is_at_most_six_percent_above_it() {
        for us in (0..100_000).chain([LONGEST - 1, LONGEST]) {
            let end = upper_end(bucket(us));
            assert!(end >= us && end as f64 <= us as f64 * 1.0625, "{us} {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut some = Coarse::new();
        (1..=1000).for_each(|us| some.record(us));
        let mut all = Coarse::empty();
        all.add(&some);
        for (quantile, want) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
            let got = all.at(quantile);
            assert!(got >= want && got <= want + want / 16 + 1, "{got} for {want}");
        }
        assert_eq!(Coarse::empty().at(0.5), 0);
    }
}
