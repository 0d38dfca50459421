//! One snapshot a second for all viewers together, and none while nobody looks.
//! Must not know what a snapshot holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::snapshot::{Settings, Snapshot};
use crate::cluster::ShardSize;
use crate::config::Config;
use crate::http::error::HttpError;
use crate::session::Proxy;
use crate::shard::ShardId;
use crate::wire::SqlState;

/// Viewers at once.
const VIEWERS: usize = 64;
/// Between two snapshots.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the sizes on the servers.
const SIZES_EVERY: Duration = Duration::from_secs(60);

/// The sizes of one database's shards.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes {
    /// When at least one shard told them.
    pub(super) at: Option<SystemTime>,
    pub(super) shards: BTreeMap<ShardId, ShardSize>,
    /// Why a shard did not tell them the last time.
    pub(super) error: Option<String>,
}

/// Sizes by database.
pub(super) type AllSizes = BTreeMap<String, Sizes>;

/// What all viewers share.
pub(in crate::http) struct Dashboard {
    proxy: Arc<Proxy>,
    places: Arc<Semaphore>,
    /// The latest snapshot as an event.
    latest: watch::Sender<Bytes>,
    /// Whether somebody makes snapshots.
    at_work: Mutex<bool>,
    sizes: Mutex<Arc<AllSizes>>,
    /// When the sizes were asked last.
    sizes_asked: Mutex<Option<Instant>>,
}

/// One open page. It keeps its place until dropped.
pub(super) struct Viewer {
    dashboard: Arc<Dashboard>,
    latest: watch::Receiver<Bytes>,
    /// Told first.
    config: Option<Bytes>,
    /// That of the start: under another the viewer may have other rights.
    under: Arc<Config>,
    _place: OwnedSemaphorePermit,
}

impl Dashboard {
    pub(in crate::http) fn new(proxy: Arc<Proxy>) -> Self {
        Self {
            proxy,
            places: Arc::new(Semaphore::new(VIEWERS)),
            latest: watch::channel(Bytes::new()).0,
            at_work: Mutex::new(false),
            sizes: Mutex::default(),
            sizes_asked: Mutex::default(),
        }
    }

    /// All as of now; has the sizes asked for if they are old.
    pub(super) fn snapshot(self: &Arc<Self>) -> Snapshot {
        self.look_at_sizes();
        let sizes = self.sizes.lock().clone();
        Snapshot::new(&self.proxy.herd("", ""), &sizes)
    }

    /// One more viewer.
    ///
    /// # Errors
    /// 53300 if there are too many.
    pub(super) fn view(self: &Arc<Self>) -> Result<Viewer, HttpError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let message = format!("{VIEWERS} viewers follow the dashboard already");
            HttpError::new(SqlState::TOO_MANY_CONNECTIONS, message).hint("Close a page that nobody looks at.")
        })?;
        let herd = self.proxy.herd("", "");
        let config = event("config", &Settings::new(&herd));
        // Before the maker of snapshots looks whether anybody is left.
        let mut latest = self.latest.subscribe();
        let mut at_work = self.at_work.lock();
        if *at_work {
            latest.mark_changed();
        } else {
            *at_work = true;
            tokio::spawn(self.clone().make_snapshots());
        }
        drop(at_work);
        Ok(Viewer {
            dashboard: self.clone(),
            latest,
            config: Some(config),
            under: herd.config,
            _place: place,
        })
    }

    /// Until the last viewer has gone.
    async fn make_snapshots(self: Arc<Self>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            {
                let mut at_work = self.at_work.lock();
                if self.latest.receiver_count() == 0 {
                    *at_work = false;
                    return;
                }
            }
            self.latest.send_replace(event("snapshot", &self.snapshot()));
        }
    }

    /// Asks the servers in the background, at most once a minute.
    fn look_at_sizes(self: &Arc<Self>) {
        let mut asked = self.sizes_asked.lock();
        if asked.is_some_and(|at| at.elapsed() < SIZES_EVERY) {
            return;
        }
        let clusters: Vec<_> = self.proxy.clusters().into_iter().filter(|c| c.schema().is_some()).collect();
        if clusters.is_empty() {
            return; // the catalogs will be there in a moment
        }
        *asked = Some(Instant::now());
        drop(asked);
        let dashboard = self.clone();
        tokio::spawn(async move {
            let mut all = AllSizes::clone(&*dashboard.sizes.lock().clone());
            for cluster in clusters {
                let sizes = all.entry(cluster.status().name).or_default();
                sizes.error = None;
                for (id, size) in cluster.sizes().await {
                    match size {
                        Ok(size) => {
                            sizes.shards.insert(id, size);
                            sizes.at = Some(SystemTime::now());
                        }
                        Err(why) => sizes.error = Some(format!("{}: {why}", cluster.shard_name(id))),
                    }
                }
            }
            *dashboard.sizes.lock() = Arc::new(all);
        });
    }
}

impl Viewer {
    /// The next event: the configuration once, then snapshots. A slow viewer misses some rather than have them kept.
    /// `None` at the end of the proxy, or under another configuration.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        if let Some(config) = self.config.take() {
            return Some(config);
        }
        let proxy = self.dashboard.proxy.clone();
        tokio::select! {
            changed = self.latest.changed() => changed.ok()?,
            () = proxy.shutdown_begun() => return None,
        }
        let same = Arc::ptr_eq(&proxy.config(), &self.under);
        same.then(|| self.latest.borrow_and_update().clone())
    }
}

/// A server-sent event. JSON has no line breaks of its own, so it is one line of data.
fn event(name: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned());
    Bytes::from(format!("event: {name}\ndata: {json}\n\n"))
}
