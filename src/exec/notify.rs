//! Notifications of one database: which client hears which channel, and what waits for each client.
//! Must not do I/O; the connections that listen are `ear`'s. Source: PostgreSQL docs, LISTEN and NOTIFY.
//!
//! Each shard's primary has one listening connection for all clients. What it hears goes to the inboxes of those who
//! listen, in the order in which it came, so each shard's notifications keep theirs.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::task::Context;

use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::ear;
use crate::cluster::Cluster;
use crate::shard::ShardId;
use crate::wire::{Blame, ClientFacing, SqlState};

/// Set in a process id that would otherwise be taken for the reader's own; clients' numbers stay far below.
const FOREIGN: u32 = 0x4000_0000;

/// Why a channel cannot be listened to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("notifications of shard \"{shard}\" cannot be had now")]
pub struct ListenError {
    /// The shard.
    pub shard: String,
    /// What went wrong.
    pub why: String,
}

impl ClientFacing for ListenError {
    fn sqlstate(&self) -> SqlState {
        SqlState::CANNOT_CONNECT_NOW
    }

    fn detail(&self) -> Option<String> {
        Some(format!("The listening connection to its primary: {}.", self.why))
    }

    fn hint(&self) -> Option<String> {
        Some("Try again when the primary is up: SHOW SERVERS tells.".into())
    }

    fn blame(&self) -> Blame {
        Blame::Server
    }
}

/// Why an inbox has come to its end: the client must be told, for something it should have heard is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// A listening connection was lost: what, where.
    Lost(String),
    /// More than this waited, bytes.
    Full(usize),
}

/// What waits for one client.
#[derive(Debug)]
pub struct Inbox {
    /// The client's process id, as it knows it.
    client: u32,
    limit: usize,
    queue: Mutex<Queue>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Arc<str>, Bytes)>,
    bytes: usize,
    ended: Option<Ended>,
}

impl Inbox {
    /// An empty one for the client that knows itself by this process id; at most `limit` bytes wait in it.
    #[must_use]
    pub fn new(client: u32, limit: usize) -> Arc<Self> {
        Arc::new(Self { client, limit, queue: Mutex::default(), waker: AtomicWaker::new() })
    }

    /// Moves what waits to `out`, as whole messages. The task of `cx`, if given, is woken when there is more.
    ///
    /// # Errors
    /// [`Ended`]: from here on something is missing.
    pub fn take(&self, cx: Option<&Context<'_>>, out: &mut BytesMut) -> Result<(), Ended> {
        if let Some(cx) = cx {
            self.waker.register(cx.waker());
        }
        let mut queue = self.queue.lock();
        for (_, message) in queue.waiting.drain(..) {
            out.extend_from_slice(&message);
        }
        queue.bytes = 0;
        queue.waiting.shrink_to(8);
        queue.ended.clone().map_or(Ok(()), Err)
    }

    /// Whether it has come to its end, whatever still waits in it; `cx` as in [`Inbox::take`].
    #[must_use]
    pub fn ended(&self, cx: Option<&Context<'_>>) -> Option<Ended> {
        if let Some(cx) = cx {
            self.waker.register(cx.waker());
        }
        self.queue.lock().ended.clone()
    }

    /// Drops what came on a channel that the client, after all, does not listen to.
    pub fn forget(&self, channel: &str) {
        let mut queue = self.queue.lock();
        queue.waiting.retain(|(on, _)| **on != *channel);
        queue.bytes = queue.waiting.iter().map(|(_, message)| message.len()).sum();
    }

    fn put(&self, channel: &Arc<str>, message: Bytes) {
        let mut queue = self.queue.lock();
        if queue.ended.is_some() {
            return;
        }
        queue.bytes += message.len();
        if queue.bytes > self.limit {
            queue.ended = Some(Ended::Full(self.limit));
        } else {
            queue.waiting.push_back((channel.clone(), message));
        }
        drop(queue);
        self.waker.wake();
    }

    fn end(&self, why: &str) {
        self.queue.lock().ended.get_or_insert_with(|| Ended::Lost(why.to_owned()));
        self.waker.wake();
    }
}

/// What a listening connection is to do; it answers when the server has.
#[derive(Debug)]
pub(super) struct Order {
    /// One simple query.
    pub(super) sql: String,
    pub(super) done: oneshot::Sender<Result<(), ListenError>>,
}

/// Who hears what in one database.
#[derive(Debug)]
pub struct Hub {
    cluster: ArcSwap<Cluster>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    channels: HashMap<Arc<str>, Channel, foldhash::fast::RandomState>,
    /// By shard; `None` while nobody listens.
    ears: Vec<Option<mpsc::UnboundedSender<Order>>>,
    /// Servers at work for a client that listens, by shard and process id: whose own notifications theirs are.
    claims: HashMap<(ShardId, u32), u32, foldhash::fast::RandomState>,
    made: u64,
}

#[derive(Debug)]
struct Channel {
    /// Tells it from an earlier one of the same name.
    number: u64,
    /// Every shard's connection listens to it.
    ready: bool,
    hearers: Vec<Hearer>,
}

/// Who hears a channel.
#[derive(Debug)]
struct Hearer {
    inbox: Arc<Inbox>,
    /// All that was committed before its LISTEN has been heard by those who listened already, and passed it by.
    live: bool,
}

impl Hub {
    /// The same shards are served by another cluster from now on; connections to servers that are still the primaries
    /// stay.
    pub fn follow(&self, cluster: Arc<Cluster>) {
        self.cluster.store(cluster);
    }

    /// What serves the database.
    pub(super) fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }

    /// Listens to nothing yet and has no connection.
    #[must_use]
    pub fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        let ears = (0..cluster.shard_count()).map(|_| None).collect();
        Arc::new(Self {
            cluster: ArcSwap::new(cluster),
            inner: Mutex::new(Inner { ears, ..Inner::default() }),
        })
    }

    /// Puts an inbox on a channel, and returns when nothing committed from then on can be missed. What was committed
    /// before the call is not heard, though it may still be on its way. Not cancel safe.
    ///
    /// # Errors
    /// [`ListenError`]: a primary is not to be had; the inbox is then not on the channel.
    pub async fn listen(self: &Arc<Self>, inbox: &Arc<Inbox>, channel: &Arc<str>) -> Result<(), ListenError> {
        let (number, orders) = {
            let mut inner = self.inner.lock();
            inner.made += 1;
            let made = inner.made;
            let entry = inner.channels.entry(channel.clone());
            let entry = entry.or_insert_with(|| Channel { number: made, ready: false, hearers: Vec::new() });
            match entry.hearers.iter().find(|h| Arc::ptr_eq(&h.inbox, inbox)) {
                Some(hearer) if hearer.live => return Ok(()),
                Some(_) => {}
                None => entry.hearers.push(Hearer { inbox: inbox.clone(), live: false }),
            }
            let first = if entry.ready { String::new() } else { format!("LISTEN {}", quoted(channel)) };
            // Servers before version 15 look for notifications only when they turn to the next command.
            (entry.number, [first, String::new()])
        };
        for sql in orders {
            let waits = self.order_all(&mut self.inner.lock(), &sql);
            let answers = futures_util::future::join_all(waits.into_iter().map(answer)).await;
            if let Some(error) = answers.into_iter().find_map(Result::err) {
                self.unlisten(inbox, channel);
                return Err(error);
            }
        }
        let mut inner = self.inner.lock();
        let entry = inner.channels.get_mut(channel).filter(|c| c.number == number);
        let hearer = entry.and_then(|entry| {
            entry.ready = true;
            entry.hearers.iter_mut().find(|h| Arc::ptr_eq(&h.inbox, inbox))
        });
        match hearer {
            Some(hearer) => {
                hearer.live = true;
                Ok(())
            }
            // Lost between the server's answer and now: the inbox has been told, if it had heard anything before.
            None => Err(ListenError {
                shard: self.cluster().shard_name(ShardId(0)),
                why: "it was lost just now".into(),
            }),
        }
    }

    /// Takes an inbox off a channel.
    pub fn unlisten(self: &Arc<Self>, inbox: &Arc<Inbox>, channel: &str) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.channels.get_mut(channel) else { return };
        entry.hearers.retain(|h| !Arc::ptr_eq(&h.inbox, inbox));
        if entry.hearers.is_empty() {
            inner.channels.remove(channel);
            self.order_live(&mut inner, &format!("UNLISTEN {}", quoted(channel)));
        }
    }

    /// Returns when all that was committed on the shard before has been put into the inboxes.
    pub async fn caught_up(self: &Arc<Self>, shard: ShardId) {
        // Servers before version 15 look for notifications only when they turn to the next command.
        for _ in 0..2 {
            let wait = {
                let mut inner = self.inner.lock();
                let Some(ear) = inner.ears.get_mut(shard.index()) else { return };
                self.order(ear, shard, String::new())
            };
            if answer(wait).await.is_err() {
                return; // lost: whoever listened has been told
            }
        }
    }

    /// The same for all shards.
    pub async fn all_caught_up(self: &Arc<Self>) {
        let shards = (0..self.cluster().shard_count()).map(|shard| self.caught_up(ShardId(shard as u16)));
        futures_util::future::join_all(shards).await;
    }

    /// From now on, what this server process notifies is the client's own. Returns when all earlier has been heard.
    pub async fn claim(self: &Arc<Self>, shard: ShardId, pid: u32, client: u32) {
        self.caught_up(shard).await;
        self.inner.lock().claims.insert((shard, pid), client);
    }

    /// The server process is no longer at work for the client that claimed it.
    pub fn unclaim(&self, shard: ShardId, pid: u32) {
        self.inner.lock().claims.remove(&(shard, pid));
    }

    /// A notification came in: `rest` is all of its body after the process id.
    pub(super) fn deliver(&self, shard: ShardId, pid: u32, rest: &[u8]) {
        let name = rest.split(|b| *b == 0).next().and_then(|name| std::str::from_utf8(name).ok());
        let inner = self.inner.lock();
        let Some((channel, entry)) = name.and_then(|name| inner.channels.get_key_value(name)) else { return };
        let claimed = inner.claims.get(&(shard, pid)).copied();
        let common = message(claimed.unwrap_or(pid), rest);
        for Hearer { inbox, .. } in entry.hearers.iter().filter(|h| h.live) {
            let message = match claimed {
                None if pid == inbox.client => message(pid | FOREIGN, rest),
                _ => common.clone(),
            };
            inbox.put(channel, message);
        }
    }

    /// A listening connection could not be opened or was lost: everybody who heard anything is told.
    pub(super) fn lost(self: &Arc<Self>, shard: ShardId, why: &str) {
        let mut inner = self.inner.lock();
        if let Some(ear) = inner.ears.get_mut(shard.index()) {
            *ear = None;
        }
        let channels = std::mem::take(&mut inner.channels);
        let text = format!("shard \"{}\": {why}", self.cluster().shard_name(shard));
        for inbox in channels.values().flat_map(|c| &c.hearers).filter(|h| h.live).map(|h| &h.inbox) {
            inbox.end(&text);
        }
        if !channels.is_empty() {
            self.order_live(&mut inner, "UNLISTEN *");
        }
    }

    /// Gives up a connection that has nothing to listen to; says whether it has.
    pub(super) fn give_up(&self, shard: ShardId) -> bool {
        let mut inner = self.inner.lock();
        let idle = inner.channels.is_empty();
        if idle && let Some(ear) = inner.ears.get_mut(shard.index()) {
            *ear = None;
        }
        idle
    }

    /// Whether somebody listens to anything.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !self.inner.lock().channels.is_empty()
    }

    /// The channels that somebody listens to, for the virtual tables and tests.
    #[must_use]
    pub fn channels(&self) -> HashSet<String> {
        self.inner.lock().channels.keys().map(|name| (**name).to_owned()).collect()
    }

    fn order_all(self: &Arc<Self>, inner: &mut Inner, sql: &str) -> Vec<Wait> {
        let ears = inner.ears.iter_mut().enumerate();
        ears.map(|(i, ear)| self.order(ear, ShardId(i as u16), sql.to_owned())).collect()
    }

    /// What is to be forgotten needs no new connection, and nobody waits for it.
    fn order_live(&self, inner: &mut Inner, sql: &str) {
        for ear in inner.ears.iter().flatten() {
            let (done, _) = oneshot::channel();
            // One that is about to end forgets by itself.
            drop(ear.send(Order { sql: sql.to_owned(), done }));
        }
    }

    fn order(
        self: &Arc<Self>,
        ear: &mut Option<mpsc::UnboundedSender<Order>>,
        shard: ShardId,
        sql: String,
    ) -> Wait {
        let (done, wait) = oneshot::channel();
        let order = Order { sql, done };
        let sender = ear.get_or_insert_with(|| {
            let (sender, orders) = mpsc::unbounded_channel();
            tokio::spawn(ear::run(self.cluster(), Arc::downgrade(self), shard, orders));
            sender
        });
        // A task that has just ended drops the order, and the wait ends with an error.
        drop(sender.send(order));
        Wait { shard: self.cluster().shard_name(shard), wait }
    }
}

struct Wait {
    shard: String,
    wait: oneshot::Receiver<Result<(), ListenError>>,
}

async fn answer(wait: Wait) -> Result<(), ListenError> {
    let gone = ListenError { shard: wait.shard, why: "it was lost just now".into() };
    wait.wait.await.unwrap_or(Err(gone))
}

/// So that a task holds no hub alive.
pub(super) type HubRef = Weak<Hub>;

fn message(pid: u32, rest: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(rest.len() + 9);
    out.put_u8(b'A');
    out.put_u32(rest.len() as u32 + 8);
    out.put_u32(pid);
    out.put_slice(rest);
    out.freeze()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_keeps_order_and_ends_when_it_is_full_or_its_source_is_lost() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let inbox = Inbox::new(7, 20);
        inbox.put(&a, Bytes::from_static(b"one"));
        inbox.put(&b, Bytes::from_static(b"two"));
        inbox.put(&a, Bytes::from_static(b"three"));
        let mut out = BytesMut::new();
        inbox.forget("b");
        assert_eq!(inbox.take(None, &mut out), Ok(()));
        assert_eq!(&out[..], b"onethree");
        inbox.put(&a, Bytes::from(vec![0; 15]));
        inbox.put(&a, Bytes::from(vec![0; 15]));
        inbox.end("too late to matter");
        out.clear();
        assert_eq!(inbox.take(None, &mut out), Err(Ended::Full(20)));
        assert_eq!(out.len(), 15, "what came before is still delivered");
        let other = Inbox::new(8, 20);
        other.end("gone");
        assert_eq!(other.take(None, &mut out), Err(Ended::Lost("gone".into())));
    }

    #[test]
    fn a_channels_name_is_quoted() {
        assert_eq!(quoted("a\"b"), "\"a\"\"b\"");
    }
}
