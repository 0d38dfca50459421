//! What was just given back, for whoever comes next: the last in is the first out.
//! Must not know what it holds. What nobody takes for a second or two is handed on by [`sweep`].

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How often it is looked whether something is left unused.
const EVERY: Duration = Duration::from_secs(1);

/// Things that were just given back.
#[derive(Debug)]
pub(super) struct Parked<T> {
    state: Mutex<State<T>>,
    filled: Arc<Notify>,
}

#[derive(Debug)]
struct State<T> {
    /// With the tick in which each came: the older, the deeper.
    stack: Vec<(T, u32)>,
    tick: u32,
    /// So many wait elsewhere: nothing is kept from them.
    asks: u32,
    /// Somebody will sweep.
    watched: bool,
}

impl<T> Default for Parked<T> {
    fn default() -> Self {
        let state = State { stack: Vec::new(), tick: 0, asks: 0, watched: false };
        Self { state: Mutex::new(state), filled: Arc::default() }
    }
}

impl<T> Parked<T> {
    /// The one that came last.
    pub(super) fn take(&self) -> Option<T> {
        self.state.lock().stack.pop().map(|(thing, _)| thing)
    }

    /// Keeps it; gives it back if somebody waits for one elsewhere.
    pub(super) fn put(&self, thing: T) -> Option<T> {
        let mut state = self.state.lock();
        if state.asks > 0 {
            return Some(thing);
        }
        let tick = state.tick;
        state.stack.push((thing, tick));
        if !state.watched {
            state.watched = true;
            self.filled.notify_one();
        }
        None
    }

    /// From here on, and until what is returned is dropped, nothing is kept.
    pub(super) fn asks(&self) -> Asks<'_, T> {
        self.state.lock().asks += 1;
        Asks(self)
    }

    /// All of them.
    pub(super) fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut self.state.lock().stack).into_iter().map(|(thing, _)| thing).collect()
    }

    /// How many.
    pub(super) fn count(&self) -> u32 {
        self.state.lock().stack.len() as u32
    }

    /// Those that came before the last tick but one. `None`: there is nothing left to sweep.
    fn old(&self) -> Option<Vec<T>> {
        let mut state = self.state.lock();
        state.tick = state.tick.wrapping_add(1);
        let now = state.tick;
        let old = state.stack.iter().take_while(|(_, tick)| now.wrapping_sub(*tick) > 1).count();
        let old: Vec<T> = state.stack.drain(..old).map(|(thing, _)| thing).collect();
        state.watched = !state.stack.is_empty() || !old.is_empty();
        state.watched.then_some(old)
    }
}

impl<T> Drop for Parked<T> {
    fn drop(&mut self) {
        self.filled.notify_one(); // whoever sweeps finds that it is gone
    }
}

/// Somebody waits elsewhere.
pub(super) struct Asks<'a, T>(&'a Parked<T>);

impl<T> Drop for Asks<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().asks -= 1;
    }
}

/// Drops what is left unused, as long as its owner lives.
pub(super) async fn sweep<O, T>(owner: Weak<O>, parked: impl Fn(&O) -> &Parked<T>) {
    let Some(filled) = owner.upgrade().map(|owner| parked(&owner).filled.clone()) else { return };
    loop {
        filled.notified().await;
        loop {
            tokio::time::sleep(EVERY).await;
            let Some(owner) = owner.upgrade() else { return };
            let Some(old) = parked(&owner).old() else { break };
            drop(old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_in_is_the_first_out_and_nothing_is_kept_from_those_who_wait() {
        let parked = Parked::default();
        assert_eq!((parked.put(1), parked.put(2), parked.take()), (None, None, Some(2)));
        let asks = parked.asks();
        assert_eq!((parked.put(3), parked.take(), parked.take()), (Some(3), Some(1), None));
        drop(asks);
        assert_eq!((parked.put(4), parked.take_all(), parked.count()), (None, vec![4], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped_after_a_second_or_two_and_the_rest_stays() {
        let parked = Arc::new(Parked::default());
        let sweeper = tokio::spawn(sweep(Arc::downgrade(&parked), |parked: &Parked<Arc<()>>| parked));
        let (unused, used) = (Arc::new(()), Arc::new(()));
        for _ in 0..2 {
            assert!(parked.put(unused.clone()).is_none() && parked.put(used.clone()).is_none());
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let taken = parked.take().unwrap();
                assert!(Arc::ptr_eq(&taken, &used));
                assert!(parked.put(taken).is_none());
            }
            assert_eq!((Arc::strong_count(&unused), parked.count()), (1, 1));
            assert!(parked.take().is_some());
            tokio::time::sleep(Duration::from_secs(5)).await; // nothing is swept meanwhile
        }
        drop(parked);
        tokio::time::timeout(Duration::from_secs(5), sweeper).await.unwrap().unwrap();
    }
}
