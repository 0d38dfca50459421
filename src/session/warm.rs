//! Clients that ask often keep their tools between two turns: to lay them down and take them up costs a tenth of a
//! short transaction. As many as there are seats; whoever says nothing for a second or two gives its seat up.
//! Must not know what the tools are.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::cancels::{CancelSlot, REST};
use super::proxy::Proxy;

/// So many may keep their tools, some 20 KiB each.
const SEATS: usize = 256;
/// How often it is looked who has asked for something.
const EVERY: Duration = Duration::from_secs(1);

/// The seats.
#[derive(Debug)]
pub(super) struct Warm {
    tick: AtomicU32,
    seated: Mutex<Vec<Arc<CancelSlot>>>,
}

impl Default for Warm {
    fn default() -> Self {
        // From 2 on: a client that has had no turn yet, 0, has had none of late.
        Self { tick: AtomicU32::new(2), seated: Mutex::default() }
    }
}

impl Warm {
    /// A turn of a client has ended. Says whether it keeps its tools; `seated`: whether it kept them until now.
    pub(super) fn keeps(&self, client: &Arc<CancelSlot>, seated: bool) -> bool {
        let now = self.tick.load(Relaxed);
        let last = client.last_turn.load(Relaxed);
        if last != now {
            client.last_turn.store(now, Relaxed);
        }
        let wanted_back = client.asked_now() & REST != 0;
        if seated && !wanted_back {
            return true;
        }
        if wanted_back {
            client.done(REST);
        }
        now.wrapping_sub(last) <= 1 && self.take_seat(client)
    }

    fn take_seat(&self, client: &Arc<CancelSlot>) -> bool {
        let mut seated = self.seated.lock();
        let free = seated.len() < SEATS;
        if free {
            seated.push(client.clone());
        }
        free
    }

    /// Whoever has had no turn since the last look gives up its seat.
    fn look(&self) {
        let now = self.tick.fetch_add(1, Relaxed);
        self.seated.lock().retain(|client| {
            let busy = now.wrapping_sub(client.last_turn.load(Relaxed)) <= 1;
            if !busy {
                client.ask(REST);
            }
            busy
        });
    }
}

/// Looks again and again, as long as the proxy lives.
pub(super) async fn watch(proxy: Weak<Proxy>) {
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let Some(proxy) = proxy.upgrade() else { return };
        proxy.warm().look();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::cancels::Cancels;

    #[test]
    fn who_asks_once_keeps_nothing_and_who_stops_asking_is_told_to_rest() {
        let (warm, cancels) = (Warm::default(), Cancels::default());
        let client = cancels.register(false, None).unwrap();
        assert!(!warm.keeps(&client, false), "its first turn");
        assert!(warm.keeps(&client, false), "soon after it");
        for _ in 0..5 {
            warm.look();
            assert!(warm.keeps(&client, true) && client.asked_now() == 0);
        }
        (0..3).for_each(|_| warm.look());
        assert_eq!(client.asked_now(), REST);
        assert!(!warm.keeps(&client, true), "it has been silent for too long");
        assert_eq!(client.asked_now(), 0);
        assert!(warm.keeps(&client, false));
    }

    #[test]
    fn there_are_so_many_seats_and_those_of_clients_that_left_are_free_again() {
        let (warm, cancels) = (Warm::default(), Cancels::default());
        let clients: Vec<_> = (0..=SEATS).map(|_| cancels.register(false, None).unwrap()).collect();
        let kept = || clients.iter().filter(|client| warm.keeps(client, false)).count();
        assert_eq!((kept(), kept()), (0, SEATS));
        (0..4).for_each(|_| warm.look());
        assert!(warm.seated.lock().is_empty());
    }
}
