//! The writes of one round of the runtime, made in one system call. A write wakes whoever waits for it, and the kernel may
//! let that one run before it comes back: with many writes of a few bytes each, as between clients and servers, much of a
//! proxy's time goes there. Written together they cost the way into the kernel and the interruption once. Source: io_uring(7).
//! Must not know what is written, nor to whom.
//!
//! With one thread a round is over when the task that ends it gets its turn, behind all that were ready. Workers of several
//! have a round each, which is over before they go to sleep, or earlier, when something long is to be done. Before it sleeps
//! a worker looks for work with others, and so long nobody is made to wait who is alone.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use compio_buf::{BufResult, IntoInner};
use compio_driver::op::{OpCodeFlag, Send, SendFlags};
use compio_driver::{Key, Proactor, PushEntry};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::socket::Writer;

/// What is longer is not put off, bytes: it is copied, and it is no matter of system calls.
pub(super) const SHORT: usize = 4 << 10;
/// So many writes are made at once at most: the last of them must not come late.
const MOST: usize = 64;
/// A worker of several puts writes off after a round with so many.
const BUSY: usize = 2;
/// How often the kernel is asked for what it must have done already.
const PATIENCE: usize = 100;

thread_local! {
    static ROUND: RefCell<Option<Round>> = const { RefCell::new(None) };
    /// Whether this is a worker that ends its round before it sleeps.
    static SLEEPS: Cell<bool> = const { Cell::new(false) };
}

/// A write that is put off, and who is to see to it if it cannot be made whole.
struct Letter {
    to: Arc<Writer>,
    bytes: Vec<u8>,
    sender: Waker,
}

type Sent = Key<Send<Vec<u8>, Target>>;

/// The socket written to stays open until the kernel is done with it, whoever drops it meanwhile.
struct Target(Arc<Writer>);

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.tcp().as_fd()
    }
}

struct Round {
    /// `None`: the machine has none, or it has failed. Then nothing is put off.
    ring: Option<Proactor>,
    letters: Vec<Letter>,
    /// Their room, to be used again.
    spare: Vec<Vec<u8>>,
    /// The task that ends the round, if there is one.
    end: End,
    /// Writes of this round, put off or not, where a worker ends it.
    count: usize,
    /// Whether the last one had many.
    is_busy: bool,
}

enum End {
    /// There is none, and none is needed if the worker ends its rounds.
    Missing,
    /// It is to run, by itself or woken by the first letter.
    Comes,
    Waits(Waker),
}

/// For a runtime of several workers, which calls it whenever one of them is about to sleep
/// ([`tokio::runtime::Builder::on_thread_park`]): its round is over.
pub fn before_sleep() {
    SLEEPS.set(true);
    ROUND.with_borrow_mut(|round| {
        if let Some(round) = round {
            round.write();
            round.is_busy = std::mem::take(&mut round.count) >= BUSY;
        }
    });
}

/// Whether writes can be put off here.
pub(super) fn is_available() -> bool {
    Handle::try_current().is_ok()
        && ROUND.with_borrow_mut(|round| round.get_or_insert_with(Round::new).ring.is_some())
}

fn is_alone() -> bool {
    Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread
}

/// Puts a write off until the end of the round, if that can be done. It is made then, or `to` is told what is left of it
/// and the task of `cx` is woken.
pub(super) fn put(to: &Arc<Writer>, bytes: &[u8], cx: &Context<'_>) -> bool {
    let put = ROUND.with_borrow_mut(|round| round.get_or_insert_with(Round::new).put(to, bytes, cx));
    if put == Some(MOST) {
        end();
    }
    put.is_some()
}

/// Ends the round: makes all writes that are put off.
pub(super) fn end() {
    ROUND.with_borrow_mut(|round| {
        if let Some(round) = round {
            round.write();
        }
    });
}

/// Lives as long as its runtime, and ends each round in which something was put off.
async fn end_rounds() {
    struct Gone;
    impl Drop for Gone {
        fn drop(&mut self) {
            // Where the thread ends with its runtime, its rounds may be gone already.
            let _ = ROUND.try_with(|round| {
                if let Some(round) = &mut *round.borrow_mut() {
                    round.write();
                    round.end = End::Missing;
                }
            });
        }
    }
    let _gone = Gone;
    std::future::poll_fn(|cx| {
        end();
        ROUND.with_borrow_mut(|round| {
            if let Some(round) = round {
                round.end = End::Waits(cx.waker().clone());
            }
        });
        Poll::<()>::Pending
    })
    .await;
}

impl Round {
    fn new() -> Self {
        let ring = ring();
        if let Err(error) = &ring {
            static TOLD: Once = Once::new(); // by the first of the workers
            TOLD.call_once(
                || tracing::info!(%error, "no io_uring here: each write is a system call of its own"),
            );
        }
        Self {
            ring: ring.ok(),
            letters: Vec::new(),
            spare: Vec::new(),
            end: End::Missing,
            count: 0,
            is_busy: false,
        }
    }

    /// Returns how many there are.
    fn put(&mut self, to: &Arc<Writer>, bytes: &[u8], cx: &Context<'_>) -> Option<usize> {
        self.ring.as_ref()?;
        match std::mem::replace(&mut self.end, End::Comes) {
            End::Comes => {}
            End::Waits(task) => task.wake(),
            End::Missing if SLEEPS.get() => {
                self.end = End::Missing;
                self.count += 1;
                if !self.is_busy {
                    return None;
                }
            }
            End::Missing if is_alone() => drop(tokio::spawn(end_rounds())),
            End::Missing => {
                self.end = End::Missing;
                return None;
            }
        }
        let mut room = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(SHORT));
        room.extend_from_slice(bytes);
        self.letters.push(Letter { to: to.clone(), bytes: room, sender: cx.waker().clone() });
        Some(self.letters.len())
    }

    fn write(&mut self) {
        let letters = std::mem::take(&mut self.letters);
        match (letters.len(), &mut self.ring) {
            (2.., Some(_)) => self.write_together(letters),
            _ => {
                for Letter { to, bytes, sender } in letters {
                    let wrote = to.tcp().try_write(&bytes);
                    self.done((&to, sender), wrote, bytes);
                }
            }
        }
    }

    fn write_together(&mut self, letters: Vec<Letter>) {
        let Some(ring) = &mut self.ring else { return };
        let mut under_way: Vec<(Arc<Writer>, Waker, Sent)> = Vec::with_capacity(letters.len());
        let mut done = Vec::new();
        for Letter { to, bytes, sender } in letters {
            // Does not wait, and is then done when the kernel has been told of it.
            let op = Send::new(Target(to.clone()), bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            match ring.push(op) {
                PushEntry::Pending(key) => under_way.push((to, sender, key)),
                PushEntry::Ready(BufResult(wrote, op)) => done.push((to, sender, wrote, op.into_inner())),
            }
        }
        let mut failed = None;
        for _ in 0..PATIENCE {
            match ring.poll(Some(Duration::ZERO)) {
                Err(e) if !matches!(e.kind(), io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {
                    failed = Some(e);
                    break;
                }
                _ => {}
            }
            for (to, sender, key) in std::mem::take(&mut under_way) {
                match ring.pop(key) {
                    PushEntry::Pending(key) => under_way.push((to, sender, key)),
                    PushEntry::Ready(BufResult(wrote, op)) => done.push((to, sender, wrote, op.into_inner())),
                }
            }
            if under_way.is_empty() {
                break;
            }
        }
        for (to, sender, wrote, bytes) in done {
            self.done((&to, sender), wrote, bytes);
        }
        if !under_way.is_empty() || failed.is_some() {
            // Nobody knows what became of these: their connections are lost, and no more is put off.
            tracing::error!(error = ?failed, "io_uring has failed: each write is a system call of its own from now on");
            self.ring = None;
            for (to, sender, key) in under_way {
                drop(key);
                to.fail(io::Error::other("io_uring has failed"));
                sender.wake();
            }
        }
    }

    fn done(&mut self, (to, sender): (&Writer, Waker), wrote: io::Result<usize>, mut bytes: Vec<u8>) {
        let left = match wrote {
            Ok(n) if n >= bytes.len() => {
                to.all_sent();
                bytes.clear();
                self.spare.push(bytes);
                return;
            }
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => Ok(bytes.split_off(n)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(bytes),
            Err(e) => Err(e),
        };
        match left {
            Ok(left) => to.keep(left),
            Err(e) => to.fail(e),
        }
        sender.wake();
    }
}

/// A ring for this thread alone, or, before Linux 6.1, a plain one.
fn ring() -> io::Result<Proactor> {
    let mut builder = Proactor::builder();
    builder.capacity(MOST as u32 * 2).detect_opcode_support(OpCodeFlag::Send);
    let own = builder.clone().single_issuer(true).defer_taskrun(true).build();
    let ring = own.or_else(|_| builder.build()).or_else(|error| {
        // Why there is none at all says more than that an operation is missing.
        Proactor::builder().build().and(Err(error))
    })?;
    if ring.driver_type().is_iouring() { Ok(ring) } else { Err(io::ErrorKind::Unsupported.into()) }
}

#[cfg(test)]
pub(super) mod tests {
    pub(crate) const MOST: usize = super::MOST;
}
