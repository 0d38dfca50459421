//! Whether servers may be used now: the pause of a database.
//! Must not know who orders it, nor what waits for it.

use std::sync::atomic::{
    AtomicBool,
    Ordering::{AcqRel, Acquire, Release},
};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How often those who wait are woken meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// Open, or closed by PAUSE: then nothing is lent and no connection is opened.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    opened: Notify,
}

impl Gate {
    /// Whether servers may be used.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.closed.load(Acquire)
    }

    /// Closes it; says whether it was open.
    pub fn close(&self) -> bool {
        !self.closed.swap(true, AcqRel)
    }

    /// Opens it for all who wait; says whether it was closed.
    pub fn open(&self) -> bool {
        let was_closed = self.closed.swap(false, Release);
        self.opened.notify_waiters();
        was_closed
    }

    /// Waits until it is open, or the time is over; says whether it is open. Cancel safe. It is woken about once a
    /// second meanwhile, so that whoever wraps it may look whether the wait is still wanted.
    pub async fn opened_within(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        loop {
            let step = end.min(Instant::now() + LOOK);
            if tokio::time::timeout_at(step, self.opened()).await.is_ok() {
                return true;
            }
            if step == end {
                return false;
            }
        }
    }

    /// Waits until it is open. Cancel safe.
    pub async fn opened(&self) {
        loop {
            let opened = self.opened.notified();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }
}
