//! A moment of the monotonic clock as one number: a statement is timed three times, and reading the clock is then all
//! that it costs.
//! Must not know what is timed.

use std::num::NonZeroU64;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// Nanoseconds of CLOCK_MONOTONIC, `clock_gettime(2)`. In half the room of an `Instant`: every client keeps some.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(NonZeroU64);

impl Moment {
    /// Now. Reads the clock.
    #[must_use]
    pub fn now() -> Self {
        // It cannot fail: the clock is there since Linux 2.6, and a moment is its own room.
        let ns = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |read| {
            (read.tv_sec() as u64).wrapping_mul(1_000_000_000).wrapping_add(read.tv_nsec() as u64)
        });
        Self(NonZeroU64::new(ns).unwrap_or(NonZeroU64::MIN))
    }

    /// From an earlier moment, µs; 0 from a later one.
    #[must_use]
    pub fn us_since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get()) / 1000
    }

    /// So much later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The same for timers. Reads the clock.
    #[must_use]
    pub fn instant(self) -> Instant {
        let (now, here) = (Instant::now(), Self::now());
        if here > self {
            let ago = Duration::from_nanos(here.0.get() - self.0.get());
            now.checked_sub(ago).unwrap_or(now)
        } else {
            now + Duration::from_nanos(self.0.get() - here.0.get())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order_and_those_of_timers_are_the_same() {
        let before = Instant::now();
        let first = Moment::now();
        let second = Moment::now();
        let after = Instant::now();
        assert!(second >= first && first.us_since(second) == 0);
        // Taken back from a later reading of two clocks, one after the other: so much later at most as that took.
        let (at, slack) = (first.instant(), before.elapsed());
        assert!(at + slack >= before && at <= after + slack);
        let later = first.after(Duration::from_millis(5));
        assert_eq!(later.us_since(first), 5000);
        assert!(later.instant() > at && later.instant() <= at + Duration::from_millis(5) + before.elapsed());
    }
}
