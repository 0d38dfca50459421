//! One listening connection to one shard's primary: orders go out in turn, notifications come in.
//! Must not know who listens. It ends when the connection does, when another server is the primary, or when there
//! has been nothing to listen to for a while.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::notify::{HubRef, ListenError, Order};
use crate::cluster::{Cluster, ServerState};
use crate::pool::Stream;
use crate::shard::ShardId;
use crate::wire::{ErrorFields, FrontendWriter, next_frame};

/// How often it is looked whether the server still is the primary.
const LOOK: Duration = Duration::from_secs(1);
/// A connection with nothing to listen to is kept this long.
const LINGER: Duration = Duration::from_secs(60);
/// A server that was asked something may say nothing for so long.
const DEAF: Duration = Duration::from_secs(10);
/// The longest message from a server, bytes: a notification has at most 8000 bytes of payload, errors are short.
const MAX_BODY: usize = 1 << 20;

type Done = oneshot::Sender<Result<(), ListenError>>;

struct Ear {
    shard: ShardId,
    hub: HubRef,
    read: ReadHalf<Stream>,
    write: WriteHalf<Stream>,
    up: BytesMut,
    down: BytesMut,
    /// Who waits for the answers, in turn.
    owed: VecDeque<Done>,
    /// When the server last said something, or was first asked.
    heard: Instant,
    failed: Option<String>,
    unflushed: bool,
}

/// Listens until the end, then tells the hub.
pub(super) async fn run(
    cluster: Arc<Cluster>,
    hub: HubRef,
    shard: ShardId,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut owed = VecDeque::new();
    let end = match cluster.connect_aside(shard).await {
        Ok((server, opened)) => {
            let (read, write) = tokio::io::split(opened.stream);
            let (up, down) = (BytesMut::new(), opened.leftover);
            let ear = Ear {
                shard,
                hub: hub.clone(),
                read,
                write,
                up,
                down,
                owed,
                heard: Instant::now(),
                failed: None,
                unflushed: false,
            };
            let (end, left) = ear.live(&cluster, &server, &mut orders).await;
            owed = left;
            end
        }
        Err(error) => Some(error.to_string()),
    };
    let Some(why) = end else { return };
    if let Some(hub) = hub.upgrade() {
        hub.lost(shard, &why);
    }
    tracing::warn!(shard = %cluster.shard_name(shard), why, "no notifications can be heard");
    orders.close();
    while let Some(order) = orders.recv().await {
        owed.push_back(order.done);
    }
    for done in owed {
        let error = ListenError { shard: cluster.shard_name(shard), why: why.clone() };
        // A client that left does not want to know.
        drop(done.send(Err(error)));
    }
}

impl Ear {
    /// `None` when it is no longer wanted, else why it ended; and who still waits.
    async fn live(
        mut self,
        cluster: &Cluster,
        server: &Arc<ServerState>,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> (Option<String>, VecDeque<Done>) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_order = Instant::now();
        let end = loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order { sql, done }) => {
                        last_order = Instant::now();
                        if self.owed.is_empty() {
                            self.heard = last_order;
                        }
                        self.up.put_query(sql.as_bytes());
                        self.owed.push_back(done);
                        self.unflushed = true;
                    }
                    None => break None, // nobody is left who could order
                },
                read = self.read.read_buf(&mut self.down) => match read {
                    Ok(0) => break Some("the server closed the connection".to_owned()),
                    Ok(_) => if let Err(why) = self.messages(cluster) { break Some(why) },
                    Err(error) => break Some(error.to_string()),
                },
                wrote = write_all(&mut self.write, &mut self.up), if self.unflushed => match wrote {
                    Ok(()) => self.unflushed = false,
                    Err(error) => break Some(error.to_string()),
                },
                _ = look.tick() => {
                    if !self.owed.is_empty() && self.heard.elapsed() >= DEAF {
                        break Some(format!("it has said nothing for {} s", DEAF.as_secs()));
                    }
                    let now = self.hub.upgrade().map(|hub| hub.cluster());
                    let address = now.and_then(|c| c.primary_of(self.shard).ok()).map(|p| p.config.address());
                    if let Some(address) = address.filter(|address| *address != server.config.address()) {
                        break Some(format!("{address} is the primary now"));
                    }
                    let quiet = self.owed.is_empty() && last_order.elapsed() >= LINGER;
                    if quiet && self.hub.upgrade().is_none_or(|hub| hub.give_up(self.shard)) {
                        break None;
                    }
                }
            }
        };
        (end, self.owed)
    }

    fn messages(&mut self, cluster: &Cluster) -> Result<(), String> {
        self.heard = Instant::now();
        while let Some(frame) = next_frame(&mut self.down, MAX_BODY).map_err(|e| e.to_string())? {
            match frame.tag {
                b'A' => {
                    let Some((pid, rest)) = frame.body.split_first_chunk() else { continue };
                    if let Some(hub) = self.hub.upgrade() {
                        hub.deliver(self.shard, u32::from_be_bytes(*pid), rest);
                    }
                }
                b'E' => {
                    let fields = ErrorFields::parse(&frame.body).unwrap_or_default();
                    if fields.is_fatal() {
                        return Err(fields.message);
                    }
                    self.failed = Some(fields.message);
                }
                b'Z' => {
                    let answer = match self.failed.take() {
                        None => Ok(()),
                        Some(why) => Err(ListenError { shard: cluster.shard_name(self.shard), why }),
                    };
                    if let Some(done) = self.owed.pop_front() {
                        // A client that left does not want to know.
                        drop(done.send(answer));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Cancel safe: called again until it has said that all is flushed.
async fn write_all(write: &mut WriteHalf<Stream>, up: &mut BytesMut) -> std::io::Result<()> {
    write.write_all_buf(up).await?;
    write.flush().await
}
