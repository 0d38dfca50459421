//! A client at rest: the little that it keeps while nothing is asked of it. What it needs to work (buffers, the state
//! of a turn) it takes up when it says something, and lays down when all is answered outside a transaction; one that
//! asks often, a moment later (`warm`).
//! Must not know messages.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use smallvec::SmallVec;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::cancels::{CancelSlot, REST};
use super::client::{Client, Flow, Kept, Place, Standing, Turn};
use super::idle::{Woke, asked};
use super::pins::Pins;
use super::prepared::{ClientStatement, Named};
use super::proxy::Proxy;
use super::txn::Txn;
use super::vars::Vars;
use crate::config::{Config, PoolMode, User};
use crate::exec::Exchange;
use crate::pool::Stream;
use crate::route::{Recall, Router};
use crate::shard::ShardId;
use crate::stats::{DatabaseSlot, SessionState, SessionStats};

/// Tools that each thread keeps for the next client that wakes: more than one only as clients wait for servers.
const SPARE: usize = 32;
/// A buffer larger than this is not kept, bytes.
const KEEP: usize = 16 << 10;

/// A client that owes and is owed nothing.
pub(super) struct Resting {
    pub(super) proxy: Arc<Proxy>,
    pub(super) config: Arc<Config>,
    pub(super) router: Option<(u64, Arc<Router>)>,
    pub(super) place: Place,
    pub(super) user: Arc<User>,
    pub(super) standing: Box<Standing>,
    pub(super) stats: SessionStats,
    pub(super) database: DatabaseSlot,
    pub(super) cancel: Arc<CancelSlot>,
    pub(super) stream: Stream,
    pub(super) vars: Arc<Vars>,
    pub(super) reported: Arc<BTreeMap<String, String>>,
    pub(super) statements: Named<Arc<ClientStatement>>,
    pub(super) writes: SmallVec<[(ShardId, Instant); 1]>,
}

/// Until it can rest again; `None`: it has left.
type Work = Pin<Box<dyn Future<Output = Option<Resting>> + Send>>;

/// What only a client at work needs.
struct Tools {
    x: Box<Exchange>,
    turn: Box<Turn>,
    inbuf: BytesMut,
    replay: BytesMut,
}

thread_local! {
    static SPARES: RefCell<Vec<Tools>> = const { RefCell::new(Vec::new()) };
}

impl Tools {
    fn take_up() -> Self {
        SPARES.with_borrow_mut(Vec::pop).unwrap_or_else(|| Self {
            x: Box::new(Exchange::new()),
            turn: Box::default(),
            inbuf: BytesMut::new(),
            replay: BytesMut::new(),
        })
    }

    fn lay_down(mut self) {
        for buffer in [&mut self.inbuf, &mut self.replay] {
            buffer.clear();
            if buffer.capacity() > KEEP {
                *buffer = BytesMut::new();
            }
        }
        self.x.lay_down(KEEP);
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARE {
                spares.push(self);
            }
        });
    }
}

impl Resting {
    /// Lives until the client leaves, or the proxy shuts down. `said`: what it has said already.
    pub(super) async fn live(slot: &mut Option<Self>, mut said: BytesMut) {
        if said.is_empty() {
            said = BytesMut::new(); // the login's room, a KiB, would else be kept for as long as the client stays
        }
        std::future::poll_fn(|cx| {
            if let Some(resting) = slot {
                resting.cancel.asked(cx); // whoever asks for something finds the task's waker
            }
            Poll::Ready(())
        })
        .await;
        let has_server = slot.as_ref().is_some_and(|resting| resting.standing.fixed.is_some());
        if (!said.is_empty() || has_server)
            && let Some(work) = Self::woken(slot, Woke::Data, said)
        {
            *slot = work.await;
        }
        while let Some(resting) = slot {
            let woke = resting.idle().await;
            let Some(work) = Self::woken(slot, woke, BytesMut::new()) else { return };
            *slot = work.await;
        }
    }

    /// What a client does that was woken. Boxed: at rest it must not pay for the state of a working one.
    fn woken(slot: &mut Option<Self>, woke: Woke, said: BytesMut) -> Option<Work> {
        let resting = slot.take()?;
        Some(match woke {
            Woke::Data if tracing::enabled!(tracing::Level::DEBUG) => {
                let span = resting.span();
                Box::pin(work(resting, said).instrument(span))
            }
            Woke::Data => Box::pin(work(resting, said)),
            Woke::Refresh => Box::pin(refresh(resting)),
            Woke::Rest => {
                resting.cancel.done(REST);
                Box::pin(std::future::ready(Some(resting)))
            }
            woke @ (Woke::Gone | Woke::Shutdown | Woke::Late(_)) => Box::pin(leave(resting, woke)),
        })
    }

    /// What is logged while it works belongs to its session.
    #[cold]
    fn span(&self) -> Span {
        let info = self.stats.info();
        tracing::debug_span!(
            "session",
            id = info.id,
            user = %info.user,
            database = %info.database,
            peer = %info.address
        )
    }

    /// Waits for the client, within the timeout.
    async fn idle(&mut self) -> Woke {
        match self.config.timeouts.idle {
            None => std::future::poll_fn(|cx| self.poll_idle(cx)).await,
            Some(limit) => {
                let waiting = tokio::time::timeout(limit, std::future::poll_fn(|cx| self.poll_idle(cx)));
                match Box::pin(waiting).await {
                    Ok(woke) => woke,
                    Err(_) => Woke::Late(Box::new(Client::idle_limit_of(&self.config, false).1)),
                }
            }
        }
    }

    /// A client at rest has no buffer: nothing is read yet.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Woke> {
        if let Some(woke) = asked(&self.cancel, cx, false) {
            return Poll::Ready(woke);
        }
        if let Poll::Ready(Err(_)) = self.stream.poll_left(cx) {
            return Poll::Ready(Woke::Gone);
        }
        match self.stream.poll_readable(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Woke::Data),
            Poll::Ready(Err(_)) => Poll::Ready(Woke::Gone),
            Poll::Pending => {
                self.cancel.answer_early(false);
                Poll::Pending
            }
        }
    }
}

/// From the first byte until the client can rest again; `None`: it has left.
async fn work(resting: Resting, said: BytesMut) -> Option<Resting> {
    let mut client = Client::wake(resting, said);
    if client.inbuf.is_empty() {
        match std::future::poll_fn(|cx| Poll::Ready(client.poll_read(cx))).await {
            Poll::Ready(Woke::Data) => {}
            Poll::Ready(woke) => {
                client.part(woke).await;
                return None;
            }
            Poll::Pending if client.may_rest() => return Some(client.lie_down()),
            Poll::Pending => {}
        }
    }
    let mut keeps = false;
    loop {
        client.stats.set_state(SessionState::Active);
        if client.turns().await == Flow::End {
            client.finish().await;
            return None;
        }
        let rests = client.may_rest();
        if rests {
            keeps = client.proxy.warm().keeps(&client.cancel, keeps);
            if !keeps {
                client.stats.set_state(SessionState::Idle);
                return Some(client.lie_down());
            }
            client.x.ease(KEEP);
        }
        let idle = if client.txn.is_none() { SessionState::Idle } else { SessionState::IdleInTransaction };
        client.stats.set_state(idle);
        while client.inbuf.is_empty() {
            match client.idle().await {
                Woke::Data => break,
                Woke::Rest => {
                    client.cancel.done(REST);
                    keeps = false;
                    if rests && client.inbuf.is_empty() {
                        return Some(client.lie_down());
                    }
                }
                Woke::Refresh => {
                    if let Err(report) = client.refresh() {
                        client.part(Woke::Late(Box::new(report))).await;
                        return None;
                    }
                }
                woke @ (Woke::Gone | Woke::Shutdown | Woke::Late(_)) => {
                    client.part(woke).await;
                    return None;
                }
            }
        }
    }
}

/// The configuration has changed; `None`: the client had to leave.
async fn refresh(resting: Resting) -> Option<Resting> {
    let mut client = Client::wake(resting, BytesMut::new());
    match client.refresh() {
        Ok(()) => Some(client.lie_down()),
        Err(report) => {
            client.part(Woke::Late(Box::new(report))).await;
            None
        }
    }
}

async fn leave(resting: Resting, woke: Woke) -> Option<Resting> {
    Client::wake(resting, BytesMut::new()).part(woke).await;
    None
}

impl Client {
    fn wake(resting: Resting, said: BytesMut) -> Self {
        let Resting {
            proxy,
            config,
            router,
            place,
            user,
            standing,
            stats,
            database,
            cancel,
            stream,
            vars,
            reported,
            statements,
            writes,
        } = resting;
        let mut standing = standing;
        let fixed = standing.fixed.take().map(|leased| Kept { leased, pins: Pins::new() });
        let Tools { mut x, turn, inbuf, replay } = Tools::take_up();
        x.finishes.measure(config.statistics);
        if let Place::Database { served, .. } = &place
            && served.cluster.config().pool_mode == PoolMode::Session
        {
            x.pass_notifications(Some(cancel.id));
        }
        Self {
            proxy,
            config,
            router,
            recall: Recall::default(),
            place,
            user,
            standing,
            stats,
            database,
            cancel,
            stream,
            inbuf: if said.is_empty() { inbuf } else { said },
            x,
            vars,
            reported,
            txn: Txn::None,
            server: None,
            kept: fixed.into_iter().collect(),
            statements,
            portals: Named::default(),
            writes,
            turn,
            ears: None,
            ending: None,
            replay,
        }
    }

    /// Whether all that it would lay down is as if it had just been taken up.
    fn may_rest(&self) -> bool {
        self.inbuf.is_empty()
            && self.txn.is_none()
            && self.server.is_none()
            && self.kept.is_empty()
            && self.ears.is_none()
            && self.ending.is_none()
            && self.portals.is_empty()
            && self.turn.is_over()
            && self.x.is_at_rest()
    }

    fn lie_down(self) -> Resting {
        let Self {
            proxy,
            config,
            router,
            place,
            user,
            standing,
            stats,
            database,
            cancel,
            stream,
            vars,
            reported,
            statements,
            writes,
            x,
            turn,
            inbuf,
            replay,
            ..
        } = self;
        Tools { x, turn, inbuf, replay }.lay_down();
        Resting {
            proxy,
            config,
            router,
            place,
            user,
            standing,
            stats,
            database,
            cancel,
            stream,
            vars,
            reported,
            statements,
            writes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<F: FnOnce(&'static mut Option<Resting>, BytesMut) -> T, T>(_: F) -> usize {
        size_of::<T>()
    }

    fn size_of_work<F: FnOnce(Resting, BytesMut) -> T, T>(_: F) -> usize {
        size_of::<T>()
    }

    #[test]
    fn a_client_at_rest_takes_little_memory() {
        assert!(size_of::<Resting>() <= 256, "{}", size_of::<Resting>());
        let (live, work) = (size_of_output(Resting::live), size_of_work(work));
        assert!(live <= 192, "{live}");
        assert!(work <= 2048, "{work}");
    }
}
