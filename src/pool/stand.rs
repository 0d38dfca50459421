//! Where those who wait and what was given back meet: so many turns, handed out first come, first served; and what
//! was given back, the last in being the first out. One lock for both, no timer for each wait: [`watch`] ends those
//! that last too long, and hands on what nobody takes for a second or two.
//! Must not know what it holds.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::line::{Line, Outcome};

/// How often it is looked whether something is left unused; and how often those who wait are woken meanwhile, so that
/// they may see whether they still want to.
const EVERY: Duration = Duration::from_secs(1);

/// Turns, things that were just given back, and who waits.
#[derive(Debug)]
pub(super) struct Stand<T> {
    state: Mutex<State<T>>,
    /// Nobody waits for longer.
    patience: Duration,
    stirred: Arc<Notify>,
}

#[derive(Debug)]
struct State<T> {
    /// Turns that nobody has. While anybody waits there are none.
    turns: usize,
    line: Line,
    /// No turn is given any more.
    closed: bool,
    /// With the tick in which each came: the older, the deeper.
    stack: Vec<(T, u32)>,
    tick: u32,
    /// So many wait elsewhere: nothing is kept from them.
    asks: u32,
    /// Somebody will look.
    watched: bool,
}

/// Why no turn was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTurn {
    /// It took too long.
    Late,
    /// There are none any more.
    Closed,
}

impl<T> Stand<T> {
    /// With so many turns.
    pub(super) fn new(turns: usize, patience: Duration) -> Self {
        let state = State {
            turns,
            line: Line::default(),
            closed: false,
            stack: Vec::new(),
            tick: 0,
            asks: 0,
            watched: false,
        };
        Self { state: Mutex::new(state), patience, stirred: Arc::default() }
    }

    /// A turn, if there is one without a wait, and the thing that came last, if there is one.
    pub(super) fn take_turn(&self) -> Option<Option<T>> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.turns = state.turns.checked_sub(1)?;
        Some(state.stack.pop().map(|(thing, _)| thing))
    }

    /// Waits for a turn, since then. Cancel safe; woken once a second or so.
    pub(super) fn turn(&self, since: Instant) -> Waits<'_, T> {
        Waits { stand: self, since, ticket: None }
    }

    /// Gives a turn back, and a thing with it, which is kept for the next one. If somebody waits for one elsewhere,
    /// nothing is done: the thing is to be given to those, and then the turn to the next one here.
    pub(super) fn put(&self, thing: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.asks > 0 {
            return Err(thing);
        }
        let tick = state.tick;
        state.stack.push((thing, tick));
        let stir = !std::mem::replace(&mut state.watched, true);
        let next = state.pass();
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
        if stir {
            self.stirred.notify_one();
        }
        Ok(())
    }

    /// Gives a turn back.
    pub(super) fn pass(&self) {
        let next = self.state.lock().pass();
        if let Some(waker) = next {
            waker.wake();
        }
    }

    /// For whoever has a turn: the thing that came last.
    pub(super) fn take(&self) -> Option<T> {
        self.state.lock().stack.pop().map(|(thing, _)| thing)
    }

    /// From here on, and until what is returned is dropped, nothing is kept.
    pub(super) fn asks(&self) -> Asks<'_, T> {
        self.state.lock().asks += 1;
        Asks(self)
    }

    /// All things.
    pub(super) fn take_all(&self) -> Vec<T> {
        std::mem::take(&mut self.state.lock().stack).into_iter().map(|(thing, _)| thing).collect()
    }

    /// How many things there are.
    pub(super) fn count(&self) -> u32 {
        self.state.lock().stack.len() as u32
    }

    /// No turn is given any more, and nobody waits.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiting = state.line.end_until(None);
        drop(state);
        waiting.into_iter().for_each(std::task::Waker::wake);
    }

    /// Those that came before the last tick but one.
    fn old(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.tick = state.tick.wrapping_add(1);
        let now = state.tick;
        let old = state.stack.iter().take_while(|(_, tick)| now.wrapping_sub(*tick) > 1).count();
        state.stack.drain(..old).map(|(thing, _)| thing).collect()
    }

    /// Ends waits that have lasted too long, and wakes those that have lasted a while. When to look again; `None`:
    /// there is nothing to look at until it is stirred.
    fn look(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let late = now.checked_sub(self.patience).map(|then| state.line.end_until(Some(then)));
        let long = now.checked_sub(EVERY).map(|then| state.line.waiting_since(then));
        let longest = state.line.longest();
        state.watched = longest.is_some() || !state.stack.is_empty();
        let watched = state.watched;
        drop(state);
        late.into_iter().chain(long).flatten().for_each(std::task::Waker::wake);
        let next = now + EVERY;
        watched.then(|| longest.map_or(next, |since| next.min(since + self.patience)))
    }
}

impl<T> State<T> {
    /// A turn is free: the next in the line has it.
    fn pass(&mut self) -> Option<std::task::Waker> {
        let next = self.line.call();
        if next.is_none() {
            self.turns += 1;
        }
        next
    }
}

impl<T> Drop for Stand<T> {
    fn drop(&mut self) {
        self.stirred.notify_one(); // whoever watches finds that it is gone
    }
}

/// Somebody waits elsewhere.
pub(super) struct Asks<'a, T>(&'a Stand<T>);

impl<T> Drop for Asks<'_, T> {
    fn drop(&mut self) {
        self.0.state.lock().asks -= 1;
    }
}

/// A wait for a turn: comes to the turn, and the thing that came last, if there is one.
pub(super) struct Waits<'a, T> {
    stand: &'a Stand<T>,
    since: Instant,
    ticket: Option<u64>,
}

impl<T> Future for Waits<'_, T> {
    type Output = Result<Option<T>, NoTurn>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stand = self.stand;
        let mut state = stand.state.lock();
        let Some(ticket) = self.ticket else {
            if state.closed {
                return Poll::Ready(Err(NoTurn::Closed));
            }
            if let Some(turns) = state.turns.checked_sub(1) {
                state.turns = turns;
                return Poll::Ready(Ok(state.stack.pop().map(|(thing, _)| thing)));
            }
            self.ticket = Some(state.line.join(self.since, cx.waker().clone()));
            let stir = !std::mem::replace(&mut state.watched, true);
            drop(state);
            if stir {
                stand.stirred.notify_one();
            }
            return Poll::Pending;
        };
        let outcome = state.line.look(ticket, cx.waker());
        if outcome == Outcome::Waits {
            return Poll::Pending;
        }
        self.ticket = None;
        Poll::Ready(match outcome {
            Outcome::Called => Ok(state.stack.pop().map(|(thing, _)| thing)),
            Outcome::Waits | Outcome::Late if state.closed => Err(NoTurn::Closed),
            Outcome::Waits | Outcome::Late => Err(NoTurn::Late),
        })
    }
}

impl<T> Drop for Waits<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let mut state = self.stand.state.lock();
        let next = if state.line.leave(ticket) { state.pass() } else { None };
        drop(state);
        if let Some(waker) = next {
            waker.wake();
        }
    }
}

/// Looks at what is left unused and who waits for long, as long as its owner lives.
pub(super) async fn watch<O, T>(owner: Weak<O>, stand: impl Fn(&O) -> &Stand<T>) {
    let Some(stirred) = owner.upgrade().map(|owner| stand(&owner).stirred.clone()) else { return };
    loop {
        stirred.notified().await;
        let mut sweep = Instant::now() + EVERY;
        loop {
            let Some(strong) = owner.upgrade() else { return };
            let now = Instant::now();
            if now >= sweep {
                sweep = now + EVERY;
                drop(stand(&strong).old());
            }
            let next = stand(&strong).look(now);
            drop(strong);
            let Some(next) = next else { break };
            tokio::time::sleep_until(next.min(sweep)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn the_last_in_is_the_first_out_and_nothing_is_kept_from_those_who_wait() {
        let stand = Stand::new(4, PATIENCE);
        assert_eq!((stand.put(1), stand.put(2), stand.take()), (Ok(()), Ok(()), Some(2)));
        let asks = stand.asks();
        assert_eq!((stand.put(3), stand.take(), stand.take()), (Err(3), Some(1), None));
        drop(asks);
        assert_eq!((stand.put(4), stand.take_all(), stand.count()), (Ok(()), vec![4], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_dropped_after_a_second_or_two_and_the_rest_stays() {
        let stand = Arc::new(Stand::new(2, PATIENCE));
        let watcher = tokio::spawn(watch(Arc::downgrade(&stand), |stand: &Stand<Arc<()>>| stand));
        let (unused, used) = (Arc::new(()), Arc::new(()));
        for _ in 0..2 {
            assert!(stand.put(unused.clone()).is_ok() && stand.put(used.clone()).is_ok());
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let taken = stand.take().unwrap();
                assert!(Arc::ptr_eq(&taken, &used));
                assert!(stand.put(taken).is_ok());
            }
            assert_eq!((Arc::strong_count(&unused), stand.count()), (1, 1));
            assert!(stand.take().is_some());
            tokio::time::sleep(Duration::from_secs(5)).await; // nothing is swept meanwhile
        }
        drop(stand);
        tokio::time::timeout(Duration::from_secs(5), watcher).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_turn_given_back_is_the_next_ones_in_the_line_and_whoever_comes_later_has_none() {
        let stand = Stand::new(1, PATIENCE);
        assert_eq!(stand.take_turn(), Some(None));
        let (mut first, mut second) = (stand.turn(Instant::now()), stand.turn(Instant::now()));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut first).poll(&mut cx).is_pending());
        assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
        stand.put(7).unwrap();
        assert_eq!(stand.take_turn(), None, "it is the first one's");
        assert!(Pin::new(&mut second).poll(&mut cx).is_pending());
        drop(first); // called, but gone
        assert_eq!(second.await, Ok(Some(7)));
        stand.pass();
        assert_eq!(stand.take_turn(), Some(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_it_is_too_long_and_is_looked_at_meanwhile() {
        let stand: Arc<Stand<()>> = Arc::new(Stand::new(1, PATIENCE));
        tokio::spawn(watch(Arc::downgrade(&stand), |stand: &Stand<()>| stand));
        assert!(stand.take_turn().is_some());
        let (began, mut looks) = (Instant::now(), 0);
        let mut wait = stand.turn(began);
        let late = std::future::poll_fn(|cx| {
            looks += 1;
            Pin::new(&mut wait).poll(cx)
        });
        assert_eq!(late.await, Err(NoTurn::Late));
        assert!(began.elapsed() >= PATIENCE && began.elapsed() < PATIENCE + Duration::from_millis(20));
        assert!((4..=8).contains(&looks), "{looks}");
        // Nobody waits any more, and the turn is still out.
        assert!(stand.take_turn().is_none());
        stand.pass();
        assert!(stand.take_turn().is_some());
    }

    #[tokio::test]
    async fn nobody_waits_at_a_closed_stand() {
        let stand: Stand<()> = Stand::new(1, PATIENCE);
        assert!(stand.take_turn().is_some());
        let mut wait = stand.turn(Instant::now());
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut wait).poll(&mut cx).is_pending());
        stand.close();
        assert_eq!(wait.await, Err(NoTurn::Closed));
        assert_eq!(stand.turn(Instant::now()).await, Err(NoTurn::Closed));
        stand.pass();
        assert!(stand.take_turn().is_none());
    }
}
