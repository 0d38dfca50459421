//! Cancel requests: keys of the proxy's own, and where the statement they mean is running.
//! Must not know statements.
//!
//! A request is delivered while the session still holds the server: the session gives a server back only when no
//! delivery to it is under way, so a late cancel never hits another client's statement. A request that finds nothing
//! running asks the session whether its statement is on its way, and ends when it knows: an early cancel hits it all
//! the same, and none hits what the client sends afterwards.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rand::TryRngCore;
use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::cluster::Leased;
use crate::pool::CancelTarget;

/// Length of a key for protocol 3.0, bytes.
const SHORT_KEY: usize = 4;
/// Length of a key for protocol 3.2, bytes.
const LONG_KEY: usize = 32;
/// The first number that the proxy makes up. No process has one so high (Linux ends at 2^22), so that what is done to
/// it by number, as with `pg_terminate_backend()`, hits no server connection of somebody else.
pub(super) const FIRST_OWN: u32 = 1 << 23;
/// How long a request that came early waits for the session to look.
const LOOK: Duration = Duration::from_secs(1);

/// All sessions that can be cancelled.
#[derive(Debug, Default)]
pub(super) struct Cancels {
    next: AtomicU32,
    sessions: Mutex<HashMap<u32, Arc<CancelSlot>>>,
}

/// One session's part of it.
#[derive(Debug)]
pub(super) struct CancelSlot {
    /// The session's number.
    pub(super) id: u32,
    /// What a request must show.
    pub(super) key: Bytes,
    running: Mutex<Running>,
    /// Whether it waits for something of the proxy's own: [`NO_WAIT`], [`WAITS`] or [`GIVEN_UP`].
    wait: AtomicU8,
    delivered: Notify,
    /// Whether it has a server and waits for its client: what that server runs is nothing.
    at_rest: AtomicBool,
    /// What the session is asked to do: some of [`LEAVE`], [`REFRESH`], [`KILL`], [`STALE`], [`REST`], [`CANCEL`].
    asked: AtomicU8,
    /// When its last turn ended, in the ticks of those who keep their tools.
    pub(super) last_turn: AtomicU32,
    /// The session's task, from when it first looked: it is the same one for as long as it lives.
    task: OnceLock<Waker>,
}

/// Go as soon as no transaction is open.
pub(super) const LEAVE: u8 = 1;
/// The configuration has changed: look at it before anything else.
pub(super) const REFRESH: u8 = 2;
/// Go now, whatever is under way.
pub(super) const KILL: u8 = 8;
/// Nothing is asked of it: it may lay its tools down.
pub(super) const REST: u8 = 16;
/// It has looked, and goes over to the changed servers when its transaction has ended.
pub(super) const STALE: u8 = 4;
/// Say whether a statement is on its way that a request may mean.
pub(super) const CANCEL: u8 = 32;

/// It waits for nothing of the proxy's own.
const NO_WAIT: u8 = 0;
/// It waits for a server, or for the end of a pause.
const WAITS: u8 = 1;
/// It does, and was asked to give up.
const GIVEN_UP: u8 = 2;

#[derive(Debug, Default)]
struct Running {
    targets: SmallVec<[Arc<CancelTarget>; 1]>,
    deliveries: u32,
    early: Early,
}

/// A request that came while the session ran nothing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Early {
    #[default]
    No,
    /// The session is to look.
    Asked,
    /// Its statement is on a server now.
    Sent,
}

/// A wait that was given up: by the client's own cancel request, or because the session is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GivenUp;

impl Cancels {
    /// A slot with a fresh key from the system's generator; `None` if that fails. `wanted`: its number, if it is free.
    pub(super) fn register(&self, long: bool, wanted: Option<u32>) -> Option<Arc<CancelSlot>> {
        let mut key = vec![0u8; if long { LONG_KEY } else { SHORT_KEY }];
        rand::rngs::OsRng.try_fill_bytes(&mut key).ok()?;
        let mut sessions = self.sessions.lock();
        let free = |id: &u32| *id != 0 && !sessions.contains_key(id);
        let id = loop {
            if let Some(id) = wanted.filter(free) {
                break id;
            }
            let id = FIRST_OWN + self.next.fetch_add(1, Relaxed) % (i32::MAX as u32 - FIRST_OWN);
            if free(&id) {
                break id;
            }
        };
        let slot = Arc::new(CancelSlot {
            id,
            key: key.into(),
            running: Mutex::default(),
            wait: AtomicU8::new(NO_WAIT),
            delivered: Notify::new(),
            at_rest: AtomicBool::new(false),
            asked: AtomicU8::new(0),
            last_turn: AtomicU32::new(0),
            task: OnceLock::new(),
        });
        sessions.insert(id, slot.clone());
        Some(slot)
    }

    pub(super) fn remove(&self, id: u32) {
        self.sessions.lock().remove(&id);
    }

    /// The proxy shuts down: every session is told, idle ones at once.
    pub(super) fn all_leave(&self) {
        self.ask_all(LEAVE);
    }

    /// The configuration has changed: every session looks at it, idle ones at once.
    pub(super) fn all_refresh(&self) {
        self.ask_all(REFRESH);
    }

    /// Ends a session at once; says whether there was one.
    pub(super) fn kill(&self, id: u32) -> bool {
        let slot = self.sessions.lock().get(&id).cloned();
        let Some(slot) = slot else { return false };
        slot.ask(KILL);
        tokio::spawn(async move { slot.cancel().await });
        true
    }

    /// What a session runs is cancelled, as by its own request; says whether there was one.
    pub(super) fn cancel(&self, id: u32) -> bool {
        let slot = self.sessions.lock().get(&id).cloned();
        let Some(slot) = slot else { return false };
        tokio::spawn(async move { slot.cancel_in_time().await });
        true
    }

    fn ask_all(&self, what: u8) {
        for slot in self.sessions.lock().values() {
            slot.ask(what);
        }
    }

    /// Delivers a request if its key is right; says whether it was.
    pub(super) async fn deliver(&self, id: u32, key: &[u8]) -> bool {
        let slot = self.sessions.lock().get(&id).cloned();
        let Some(slot) = slot.filter(|s| equal(&s.key, key)) else { return false };
        slot.cancel_in_time().await;
        true
    }
}

/// Takes as long for a wrong key as for the right one.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

impl CancelSlot {
    /// Cancels what runs, or what the client has sent before.
    async fn cancel_in_time(&self) {
        if self.is_early() {
            // One that does not look in time has no use for it any more.
            drop(tokio::time::timeout(LOOK, self.looked()).await);
            if !self.take_early() {
                return;
            }
        }
        self.cancel().await;
    }

    /// Asks the session for something, and wakes it if it is idle.
    pub(super) fn ask(&self, what: u8) {
        self.asked.fetch_or(what, AcqRel);
        self.wake();
    }

    fn wake(&self) {
        fence(SeqCst);
        if let Some(task) = self.task.get() {
            task.wake_by_ref();
        }
    }

    /// What the session is asked for; the task, which is always the same, is woken when that changes.
    pub(super) fn asked(&self, cx: &Context<'_>) -> u8 {
        if self.task.get().is_none() {
            // Set already by another thread it cannot be: only the session's task looks.
            let _ = self.task.set(cx.waker().clone());
            fence(SeqCst); // either whoever asks finds the waker, or what is asked is found here
        }
        self.asked.load(Acquire)
    }

    /// The same without being woken.
    pub(super) fn asked_now(&self) -> u8 {
        self.asked.load(Relaxed)
    }

    /// Whether the session is to end now; if not, the task is woken when it is. Cheap where nothing is asked: the waker
    /// is the task's own, and was left here when the session began.
    pub(super) fn is_killed(&self, cx: &Context<'_>) -> bool {
        self.asked_now() != 0 && self.asked(cx) & KILL != 0
    }

    /// Waits for `work` unless the session is cancelled or killed meanwhile. Cancel safe if `work` is. Polled by the
    /// session's own task only, whose waker is left where whoever asks for something finds it.
    pub(super) async fn unless_cancelled<T>(&self, work: impl Future<Output = T>) -> Result<T, GivenUp> {
        self.wait.store(WAITS, Release);
        let _waits = Waits(self);
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            let asked = self.asked(cx);
            let early = asked & CANCEL != 0 && self.answer(Early::No);
            if early || asked & KILL != 0 || self.wait.load(Acquire) == GIVEN_UP {
                return Poll::Ready(Err(GivenUp));
            }
            let Poll::Ready(done) = work.as_mut().poll(cx) else { return Poll::Pending };
            // Whoever asks from here on finds what the session does next.
            let given_up = self.wait.swap(NO_WAIT, AcqRel) == GIVEN_UP;
            Poll::Ready(if given_up { Err(GivenUp) } else { Ok(done) })
        })
        .await
    }

    /// It has been done.
    pub(super) fn done(&self, what: u8) {
        self.asked.fetch_and(!what, AcqRel);
    }

    /// Whether the session runs nothing that a request could mean; then it is asked to look for it.
    fn is_early(&self) -> bool {
        {
            let mut running = self.running.lock();
            let runs = !running.targets.is_empty() && !self.at_rest.load(Acquire);
            if runs || self.wait.load(Acquire) != NO_WAIT {
                return false;
            }
            running.early = Early::Asked;
        }
        self.ask(CANCEL);
        true
    }

    /// Waits until the session has looked.
    async fn looked(&self) {
        loop {
            let answered = self.delivered.notified();
            if self.running.lock().early != Early::Asked {
                return;
            }
            answered.await;
        }
    }

    /// Whether the statement of an early request has been sent. No request is early any more.
    fn take_early(&self) -> bool {
        self.done(CANCEL);
        std::mem::take(&mut self.running.lock().early) == Early::Sent
    }

    /// The session has looked: it waits for its client, or its statement has been `sent` to a server. Costs nothing
    /// if it was not asked.
    pub(super) fn answer_early(&self, sent: bool) {
        if self.asked_now() & CANCEL != 0 {
            self.answer(if sent { Early::Sent } else { Early::No });
        }
    }

    /// Says whether somebody still waited for it.
    fn answer(&self, answer: Early) -> bool {
        self.done(CANCEL);
        let waited = {
            let mut running = self.running.lock();
            let waited = running.early == Early::Asked;
            if waited {
                running.early = answer;
            }
            waited
        };
        self.delivered.notify_waiters();
        waited
    }

    /// Whether the session, in a transaction, waits for its client.
    pub(super) fn set_at_rest(&self, at_rest: bool) {
        self.at_rest.store(at_rest, Release);
    }

    /// The session now runs something on this server too.
    pub(super) fn add(&self, leased: &Leased) {
        self.running.lock().targets.push(leased.cancel.clone());
    }

    /// The session runs nothing any more. Says whether no delivery is under way.
    pub(super) fn clear_now(&self) -> bool {
        let mut running = self.running.lock();
        running.targets.clear();
        running.deliveries == 0
    }

    /// The session runs nothing any more; waits for deliveries under way.
    pub(super) async fn clear(&self) {
        loop {
            let delivered = self.delivered.notified();
            {
                let mut running = self.running.lock();
                running.targets.clear();
                if running.deliveries == 0 {
                    return;
                }
            }
            delivered.await;
        }
    }

    /// Cancels what runs now on every server it runs on.
    pub(super) async fn cancel(&self) {
        if self.wait.compare_exchange(WAITS, GIVEN_UP, AcqRel, Relaxed).is_ok() {
            self.wake();
        }
        let targets = {
            let mut running = self.running.lock();
            if running.targets.is_empty() {
                return;
            }
            running.deliveries += 1;
            running.targets.clone()
        };
        let delivery = Delivery(self);
        for target in targets {
            target.cancel().await;
        }
        drop(delivery);
    }
}

/// Ends a wait also when its future is dropped.
struct Waits<'a>(&'a CancelSlot);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.wait.store(NO_WAIT, Release);
    }
}

/// Ends a delivery also when its future is dropped.
struct Delivery<'a>(&'a CancelSlot);

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.0.running.lock().deliveries -= 1;
        self.0.delivered.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_compare_by_content() {
        let cancels = Cancels::default();
        let (a, b) = (cancels.register(true, None).unwrap(), cancels.register(true, None).unwrap());
        assert_ne!(a.id, b.id);
        assert_ne!(a.key, b.key);
        assert_eq!(a.key.len(), LONG_KEY);
        let pid = cancels.register(false, Some(4711)).unwrap();
        let other = cancels.register(false, Some(4711)).unwrap();
        assert!(pid.id == 4711 && other.id != 4711 && pid.key != other.key);
        assert!(equal(&a.key, &a.key.clone()) && !equal(&a.key, &b.key) && !equal(&a.key, &a.key[..4]));
    }

    #[tokio::test]
    async fn a_request_with_a_wrong_key_or_number_is_not_delivered() {
        let cancels = Cancels::default();
        let slot = cancels.register(false, None).unwrap();
        assert!(cancels.deliver(slot.id, &slot.key).await);
        assert!(!cancels.deliver(slot.id, b"none").await);
        assert!(!cancels.deliver(slot.id + 1, &slot.key).await);
        cancels.remove(slot.id);
        assert!(!cancels.deliver(slot.id, &slot.key).await);
    }

    #[tokio::test]
    async fn a_request_that_comes_early_waits_to_be_told_whether_its_statement_is_on_the_way() {
        let cancels = Arc::new(Cancels::default());
        let slot = cancels.register(false, None).unwrap();
        let request = || {
            let (cancels, slot) = (cancels.clone(), slot.clone());
            tokio::spawn(async move { cancels.deliver(slot.id, &slot.key).await })
        };
        let asked = async || {
            while slot.asked_now() & CANCEL == 0 {
                tokio::task::yield_now().await;
            }
        };
        // Nothing is on the way: what comes next is not meant.
        let early = request();
        asked().await;
        slot.answer_early(false);
        early.await.unwrap();
        assert_eq!(slot.unless_cancelled(async { 1 }).await, Ok(1));
        // It is, and waits for a server.
        let early = request();
        asked().await;
        assert_eq!(slot.unless_cancelled(std::future::pending::<()>()).await, Err(GivenUp));
        early.await.unwrap();
        assert_eq!(slot.asked_now(), 0);
        // It is on a server: there it is cancelled, and the session is not asked again.
        let early = request();
        asked().await;
        slot.answer_early(true);
        early.await.unwrap();
        assert_eq!(slot.unless_cancelled(async { 2 }).await, Ok(2));
        assert_eq!(slot.asked_now(), 0);
    }
}
