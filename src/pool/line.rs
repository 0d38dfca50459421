//! Who waits, first come, first served: each with a ticket, by which it finds out whether it was called.
//! Must not know what is waited for, nor locks or clocks.

use std::collections::VecDeque;
use std::task::Waker;

use tokio::time::Instant;

/// Those who wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The ticket of the first of `places`.
    first: u64,
    places: VecDeque<Place>,
    /// So many at the front no longer wait.
    passed: usize,
}

#[derive(Debug)]
enum Place {
    /// Since when, and who is to be woken.
    Waits(Instant, Waker),
    /// It is its turn.
    Called,
    /// It has waited too long.
    Late,
    /// It has gone.
    Left,
}

/// What has become of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It goes on.
    Waits,
    /// It is over: it is its turn.
    Called,
    /// It is over: it took too long.
    Late,
}

impl Line {
    /// Takes the last place. Returns its ticket.
    pub(super) fn join(&mut self, since: Instant, waker: Waker) -> u64 {
        self.places.push_back(Place::Waits(since, waker));
        self.first + (self.places.len() as u64 - 1)
    }

    /// Looks whether it was called; the ticket is of no further use if it no longer waits.
    pub(super) fn look(&mut self, ticket: u64, waker: &Waker) -> Outcome {
        let Some(place) = self.at(ticket) else { return Outcome::Late };
        let outcome = match place {
            Place::Waits(_, known) => {
                known.clone_from(waker);
                return Outcome::Waits;
            }
            Place::Called => Outcome::Called,
            Place::Late | Place::Left => Outcome::Late,
        };
        *place = Place::Left;
        self.close_up();
        outcome
    }

    /// Gives a place up. Says whether it was called already: then the next one is to be called.
    pub(super) fn leave(&mut self, ticket: u64) -> bool {
        let Some(place) = self.at(ticket) else { return false };
        let was_called = matches!(place, Place::Called);
        *place = Place::Left;
        self.close_up();
        was_called
    }

    /// Calls the next one. `None`: nobody waits.
    pub(super) fn call(&mut self) -> Option<Waker> {
        while let Some(place) = self.places.get_mut(self.passed) {
            self.passed += 1;
            if matches!(place, Place::Waits(..))
                && let Place::Waits(_, waker) = std::mem::replace(place, Place::Called)
            {
                return Some(waker);
            }
        }
        None
    }

    /// Ends the wait of all who came until then; of all, if that is not told.
    pub(super) fn end_until(&mut self, then: Option<Instant>) -> Vec<Waker> {
        let mut ended = Vec::new();
        for place in self.places.iter_mut().skip(self.passed) {
            match place {
                Place::Waits(since, _) if then.is_some_and(|then| *since > then) => break,
                Place::Waits(..) => {
                    if let Place::Waits(_, waker) = std::mem::replace(place, Place::Late) {
                        ended.push(waker);
                    }
                }
                Place::Called | Place::Late | Place::Left => {}
            }
        }
        ended
    }

    /// Those who wait and came until then.
    pub(super) fn waiting_since(&self, then: Instant) -> Vec<Waker> {
        let mut waiting = Vec::new();
        for place in self.places.iter().skip(self.passed) {
            match place {
                Place::Waits(since, _) if *since > then => break,
                Place::Waits(_, waker) => waiting.push(waker.clone()),
                Place::Called | Place::Late | Place::Left => {}
            }
        }
        waiting
    }

    /// Since when the first of those waits who still do.
    pub(super) fn longest(&self) -> Option<Instant> {
        self.places.iter().skip(self.passed).find_map(|place| match place {
            Place::Waits(since, _) => Some(*since),
            Place::Called | Place::Late | Place::Left => None,
        })
    }

    fn at(&mut self, ticket: u64) -> Option<&mut Place> {
        let index = usize::try_from(ticket.checked_sub(self.first)?).ok()?;
        self.places.get_mut(index)
    }

    /// Places at the front that nobody will ask for any more are taken away.
    fn close_up(&mut self) {
        while let Some(Place::Left) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
            self.passed = self.passed.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn line(now: Instant, waiting: u64) -> Line {
        let mut line = Line::default();
        for second in 0..waiting {
            let ticket = line.join(now + Duration::from_secs(second), Waker::noop().clone());
            assert_eq!(ticket, second);
        }
        line
    }

    #[tokio::test]
    async fn they_are_called_in_their_order_and_who_left_is_passed_over() {
        let mut line = line(Instant::now(), 4);
        assert!(!line.leave(1));
        assert!(line.call().is_some() && line.call().is_some());
        let looks = [0, 2, 3].map(|ticket| line.look(ticket, Waker::noop()));
        assert_eq!(looks, [Outcome::Called, Outcome::Called, Outcome::Waits]);
        assert!(line.call().is_some() && line.call().is_none());
        assert!(line.leave(3), "it had been called");
        assert!(line.places.is_empty() && line.passed == 0);
        assert_eq!(line.join(Instant::now(), Waker::noop().clone()), 4);
    }

    #[tokio::test]
    async fn a_place_behind_one_that_was_called_keeps_its_ticket() {
        let mut line = line(Instant::now(), 3);
        assert!(line.call().is_some());
        assert!(!line.leave(1));
        assert_eq!(line.look(2, Waker::noop()), Outcome::Waits);
        assert_eq!(line.look(0, Waker::noop()), Outcome::Called);
        assert!(line.call().is_some());
        assert_eq!(line.look(2, Waker::noop()), Outcome::Called);
        assert_eq!(line.look(2, Waker::noop()), Outcome::Late, "a ticket serves once");
    }

    #[tokio::test]
    async fn who_has_waited_too_long_is_not_called() {
        let now = Instant::now();
        let mut line = line(now, 4);
        assert!(line.call().is_some());
        assert_eq!(line.longest(), Some(now + Duration::from_secs(1)));
        assert_eq!(line.waiting_since(now + Duration::from_secs(2)).len(), 2);
        assert_eq!(line.end_until(Some(now + Duration::from_secs(2))).len(), 2);
        let looks = [0, 1, 2, 3].map(|ticket| line.look(ticket, Waker::noop()));
        assert_eq!(looks, [Outcome::Called, Outcome::Late, Outcome::Late, Outcome::Waits]);
        assert_eq!(line.longest(), Some(now + Duration::from_secs(3)));
        assert!(line.call().is_some() && line.call().is_none());
    }
}
