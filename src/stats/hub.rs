//! The one object that all recorders hang on.
//! Must not know who records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::analytics::{Analytics, Names, Point, ShardHistogram};
use super::calls::{Call, DatabaseSlot, RouteKind, StatementSlot};
use super::collect::Collected;
use super::errors::{ErrorEvent, ErrorRow, Errors};
use super::latency::{self, Class, LatencyRow, ServerLabel, ServerSlot, Where};
use super::place::Places;
use super::pool::{PoolLabel, PoolRow, PoolStats, Pools};
use super::render;
use super::session::{SessionInfo, SessionRow, SessionStats, Sessions, Traffic};
use super::statement_row::StatementRow;
use super::statements::{Generations, Named};
use super::times::{Counts, Recorded, Timing};
use crate::shard::{PartitionId, ShardId, ShardSet};

/// Databases told apart; what clients of more of them do is counted together. Only a `*` can bring up so many.
const DATABASES: usize = 4096;
/// How often what threads have recorded is collected when nobody asks.
const EVERY: Duration = Duration::from_secs(1);

/// All that is remembered.
#[derive(Debug)]
pub struct Stats {
    servers: RwLock<Vec<ServerLabel>>,
    databases: RwLock<Vec<String>>,
    pub(super) places: Places,
    generations: Generations,
    collected: Mutex<Collected>,
    errors: Errors,
    pools: Pools,
    pub(super) sessions: Sessions,
    logins: AtomicU64,
    login_failures: AtomicU64,
    cancel_requests: AtomicU64,
    /// Statements that take so long are logged, µs.
    slow_us: AtomicU64,
    /// Slices count from here.
    started: Instant,
    started_at: SystemTime,
}

/// Whether a statement reads or changes rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Effect {
    /// It reads, a replica could answer or not.
    Read,
    /// It writes, or may write.
    Write,
    /// Transaction control, settings and their like.
    #[default]
    Neither,
}

/// One statement that has finished.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// Where its fingerprint is counted; `None` if that is not known.
    pub statement: Option<StatementSlot>,
    /// What it counts as.
    pub class: Class,
    /// How it was routed.
    pub route: RouteKind,
    /// Whether it reads or writes.
    pub effect: Effect,
    /// Its database.
    pub database: DatabaseSlot,
    /// The partition of its keys, if they name one.
    pub partition: Option<PartitionId>,
    /// Whether it ended in an error.
    pub failed: bool,
    /// Rows returned or affected.
    pub rows: u64,
    /// How long it took.
    pub timing: Timing,
}

/// A server that ran a statement, or its part of one.
#[derive(Debug, Clone, Copy)]
pub struct On {
    /// The server.
    pub server: ServerSlot,
    /// Its shard.
    pub shard: ShardId,
    /// The role it had.
    pub is_replica: bool,
}

/// Counts of the whole proxy since start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Sessions now.
    pub sessions: u64,
    /// What all sessions did.
    pub traffic: Traffic,
    /// Errors.
    pub errors: u64,
    /// Clients that proved who they are.
    pub logins: u64,
    /// Clients that did not.
    pub login_failures: u64,
    /// CancelRequests received.
    pub cancel_requests: u64,
    /// Statements whose plan was known.
    pub plan_hits: u64,
    /// Statements that had to be parsed.
    pub plan_misses: u64,
}

impl Ran {
    fn counts(&self) -> Counts {
        Counts {
            count: 1,
            reads: u64::from(self.effect == Effect::Read),
            writes: u64::from(self.effect == Effect::Write),
            failed: u64::from(self.failed),
        }
    }

    fn call(&self, shards: ShardSet, on_replica: bool) -> Call {
        Call {
            first: true,
            failed: self.failed,
            on_replica,
            rows: self.rows,
            route: self.route,
            shards,
            timing: self.timing,
        }
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            servers: RwLock::default(),
            // Slot 0 is of those that are not told apart.
            databases: RwLock::new(vec![String::new()]),
            places: Places::default(),
            generations: Generations::default(),
            collected: Mutex::default(),
            errors: Errors::default(),
            pools: Pools::default(),
            sessions: Sessions::default(),
            logins: AtomicU64::new(0),
            login_failures: AtomicU64::new(0),
            cancel_requests: AtomicU64::new(0),
            slow_us: AtomicU64::new(u64::MAX),
            started: Instant::now(),
            started_at: SystemTime::now(),
        }
    }
}

impl Stats {
    /// Empty.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Collects what threads have recorded, once a second, until nobody else holds the statistics. Reading them
    /// collects too, so that what is shown is never behind.
    pub async fn collect(self: Arc<Self>) {
        let stats = Arc::downgrade(&self);
        drop(self);
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            match stats.upgrade() {
                Some(stats) => drop(stats.collected()),
                None => return,
            }
        }
    }

    /// Registers a server; the same label gives the same slot.
    pub fn server(&self, label: ServerLabel) -> ServerSlot {
        let mut servers = self.servers.write();
        let at = servers.iter().position(|known| *known == label).unwrap_or_else(|| {
            servers.push(label);
            servers.len() - 1
        });
        ServerSlot(at as u32)
    }

    /// Registers a database; the same name gives the same slot.
    pub fn database(&self, name: &str) -> DatabaseSlot {
        let mut databases = self.databases.write();
        let at = databases.iter().position(|known| known == name).unwrap_or_else(|| {
            if databases.len() >= DATABASES {
                return 0;
            }
            databases.push(name.to_owned());
            databases.len() - 1
        });
        DatabaseSlot(at as u16)
    }

    /// Where a fingerprint is counted: two loads if its mark is still true, else a lock and a hash.
    pub fn statement(&self, named: &Named<'_>) -> StatementSlot {
        match self.generations.known(named.mark) {
            Some(slot) => slot,
            None => self.collected.lock().statements.slot(&self.generations, named),
        }
    }

    /// Records one statement on one server, or on none. Takes no lock that another thread of the runtime takes, but
    /// for the swap that a collector makes.
    pub fn ran(&self, ran: &Ran, on: Option<On>) {
        let place = on.map_or(Where::NOWHERE, |on| Where::server(on.server, on.is_replica, false));
        let shards = on.map_or(ShardSet::EMPTY, |on| ShardSet::only(on.shard));
        self.places.record(|recent| {
            recent.time(place, ran.class, ran.counts(), ran.timing);
            if let Some(slot) = ran.statement {
                recent.statement(slot, &ran.call(shards, on.is_some_and(|on| on.is_replica)));
            }
            if let Some(partition) = ran.partition {
                recent.partition(ran.database, partition);
            }
            recent.routes[ran.route as usize] += 1;
        });
    }

    /// Records one statement that several servers answered together.
    pub fn ran_on_many(&self, ran: &Ran, on: &[On]) {
        let shards = on.iter().map(|on| on.shard).collect();
        let on_replica = on.iter().all(|on| on.is_replica);
        self.places.record(|recent| {
            recent.time(Where::NOWHERE, ran.class, ran.counts(), ran.timing);
            for on in on {
                let part = Where::server(on.server, on.is_replica, true);
                recent.time(part, ran.class, ran.counts(), ran.timing);
            }
            if let Some(slot) = ran.statement {
                recent.statement(slot, &ran.call(shards, on_replica));
            }
            recent.routes[ran.route as usize] += 1;
        });
    }

    /// Records that a statement which was counted before, a portal fetched in parts, has returned more rows.
    pub fn ran_on(&self, ran: &Ran) {
        if let Some(slot) = ran.statement {
            let call = Call { first: false, ..ran.call(ShardSet::EMPTY, false) };
            self.places.record(|recent| recent.statement(slot, &call));
        }
    }

    /// What threads have recorded, collected up to now.
    pub(super) fn collected(&self) -> parking_lot::MutexGuard<'_, Collected> {
        let mut collected = self.collected.lock();
        collected.collect(&self.places, &self.generations, self.now_s());
        collected
    }

    /// Seconds since the start, from 1: what has lasted less than a second has lasted one.
    fn now_s(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Records an error.
    pub fn error(&self, event: ErrorEvent) {
        let statement = event.statement.and_then(|slot| self.named(slot));
        self.errors.push(event, statement);
    }

    /// The fingerprint counted in a slot, in hexadecimal, and its text without values.
    #[must_use]
    pub fn named(&self, slot: StatementSlot) -> Option<(String, Arc<str>)> {
        self.collected.lock().statements.named(&self.generations, slot)
    }

    /// From now on, statements that take so long are to be logged; `None`: none.
    pub fn log_slower_than(&self, limit: Option<Duration>) {
        let us = limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        self.slow_us.store(us, Relaxed);
    }

    /// Whether a statement that took so long is to be logged.
    #[must_use]
    pub fn is_slow(&self, total_us: u64) -> bool {
        total_us >= self.slow_us.load(Relaxed)
    }

    /// Registers a pool; the same label gives the same object as long as someone holds it.
    pub fn pool(&self, label: PoolLabel) -> Arc<PoolStats> {
        self.pools.get(label)
    }

    /// Registers a session until the guard is dropped.
    pub fn session(self: &Arc<Self>, info: SessionInfo) -> SessionStats {
        SessionStats::new(self.clone(), info)
    }

    /// Counts a client that proved who it is.
    pub fn count_login(&self) {
        self.logins.fetch_add(1, Relaxed);
    }

    /// Counts a client that did not.
    pub fn count_login_failure(&self) {
        self.login_failures.fetch_add(1, Relaxed);
    }

    /// Counts a CancelRequest.
    pub fn count_cancel_request(&self) {
        self.cancel_requests.fetch_add(1, Relaxed);
    }

    /// Counts a statement whose plan was in the cache, or was not.
    pub fn count_plan(&self, hit: bool) {
        self.places.count_plan(hit);
    }

    /// Times per server, role and class since start.
    #[must_use]
    pub fn latency(&self) -> Vec<LatencyRow> {
        let collected = self.collected();
        latency::rows(&self.servers.read(), &collected.totals)
    }

    /// What statements of each fingerprint did since the last reset; the most expensive first. Shards have no names
    /// yet.
    #[must_use]
    pub fn statements(&self) -> Vec<StatementRow> {
        self.collected().statements.rows(&self.databases.read())
    }

    /// Since when statements are counted, and how many fingerprints have made room for others.
    #[must_use]
    pub fn statements_since(&self) -> (SystemTime, u64) {
        self.collected.lock().statements.since()
    }

    /// Forgets what statements of each fingerprint did. All else is kept.
    pub fn reset_statements(&self) {
        self.collected().statements.reset(&self.generations);
    }

    /// What happened in the last `range` (at most an hour).
    #[must_use]
    pub fn analytics(&self, range: Duration) -> Analytics {
        let uptime = self.started.elapsed();
        let slices = self.collected().window.since(from_s(uptime, range));
        Analytics::new(&slices, range, uptime, &self.names())
    }

    /// What happened in each `step` of the last `range`, oldest first; steps are whole tens of seconds where they
    /// are older than two minutes.
    #[must_use]
    pub fn series(&self, range: Duration, step: Duration) -> Vec<Point> {
        let uptime = self.started.elapsed();
        let slices = self.collected().window.since(from_s(uptime, range));
        Point::series(&slices, range, step, uptime, self.started_at)
    }

    /// How times of the last `range` are spread over each shard.
    #[must_use]
    pub fn histograms(&self, range: Duration) -> Vec<ShardHistogram> {
        let slices = self.collected().window.since(from_s(self.started.elapsed(), range));
        ShardHistogram::of(&slices, &self.names())
    }

    fn names(&self) -> Names {
        Names { servers: self.servers.read().clone(), databases: self.databases.read().clone() }
    }

    /// Times of each server, role and class since start.
    pub(super) fn times(&self) -> Vec<(ServerLabel, &'static str, Class, Recorded<u64>)> {
        let collected = self.collected();
        render::times(&self.servers.read(), &collected.totals)
    }

    /// How many statements were routed in each way since start.
    #[must_use]
    pub fn routes(&self) -> Vec<(RouteKind, u64)> {
        RouteKind::ALL.into_iter().zip(self.collected().routes).collect()
    }

    /// How many statements each partition's key has sent somewhere since start.
    #[must_use]
    pub fn partitions(&self) -> Vec<(String, PartitionId, u64)> {
        let collected = self.collected();
        let databases = self.databases.read();
        let name = |slot: DatabaseSlot| databases.get(usize::from(slot.0)).cloned().unwrap_or_default();
        collected.partitions.iter().map(|((slot, id), count)| (name(*slot), *id, *count)).collect()
    }

    /// The live sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRow> {
        self.sessions.rows()
    }

    /// The pools that exist.
    #[must_use]
    pub fn pools(&self) -> Vec<PoolRow> {
        self.pools.rows()
    }

    /// The latest errors, newest first.
    #[must_use]
    pub fn errors(&self) -> Vec<ErrorRow> {
        self.errors.rows()
    }

    /// How often each SQLSTATE occurred since start.
    #[must_use]
    pub fn error_counts(&self) -> Vec<(String, u64)> {
        self.errors.by_code()
    }

    /// The whole proxy's counts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let (sessions, traffic) = self.sessions.totals();
        let (plan_hits, plan_misses) = self.places.plans();
        Totals {
            sessions,
            traffic,
            errors: self.errors.total(),
            logins: self.logins.load(Relaxed),
            login_failures: self.login_failures.load(Relaxed),
            cancel_requests: self.cancel_requests.load(Relaxed),
            plan_hits,
            plan_misses,
        }
    }
}

/// The second from which on slices belong to the last `range`.
fn from_s(uptime: Duration, range: Duration) -> u64 {
    uptime.saturating_sub(range).as_secs()
}
