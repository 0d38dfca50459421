//! What happened of late, in figures: the whole, and each shard, server and partition.
//! Must not know how it was recorded, nor how it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::calls::DatabaseSlot;
use super::latency::{ServerLabel, Where};
use super::times::Spread;
use super::window::{LONGEST_S, Slice, Sum, Summed};
use crate::shard::PartitionId;

/// Counts and times of some statements.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Statements, those refused and those failed included.
    pub total: u64,
    /// Of these, those that read.
    pub reads: u64,
    /// Of these, those that write, or may write. What neither reads nor writes controls transactions or settings.
    pub writes: u64,
    /// Of these, those that ended in an error.
    pub errors: u64,
    /// Errors for each statement, 0 to 1.
    pub error_rate: f64,
    /// Statements a second.
    pub throughput_per_s: f64,
    /// From the client's message to the last byte of the answer, µs.
    pub latency: Spread,
}

/// What happened in the last while.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analytics {
    /// What was asked for, ms.
    pub time_range_ms: u64,
    /// How much of it there is: not more than the proxy runs, nor than an hour, ms.
    pub covered_ms: u64,
    /// All statements.
    #[serde(flatten)]
    pub figures: Figures,
    /// Each shard. A statement over several shards counts on each of them.
    pub shards: Vec<ShardFigures>,
    /// Each server under each role it had.
    pub servers: Vec<ServerFigures>,
    /// Each partition that a statement's keys named alone.
    pub partitions: Vec<PartitionFigures>,
}

/// What happened on one shard.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardFigures {
    /// Its database.
    pub database: String,
    /// Its name.
    pub shard: String,
    /// Its part of what all shards of all databases did, 0 to 1.
    pub share: f64,
    /// Its statements.
    #[serde(flatten)]
    pub figures: Figures,
}

/// What happened on one server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerFigures {
    /// Its database.
    pub database: String,
    /// Its shard's name.
    pub shard: String,
    /// `host:port`.
    pub server: String,
    /// The role it had.
    pub role: &'static str,
    /// Its part of what all servers did, 0 to 1.
    pub share: f64,
    /// Its statements.
    #[serde(flatten)]
    pub figures: Figures,
}

/// How often one partition was named.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionFigures {
    /// Its database.
    pub database: String,
    /// Its number in the configuration.
    #[serde(skip)]
    pub id: PartitionId,
    /// Its name; empty until someone who knows the configuration fills it in.
    pub partition: String,
    /// Its shard's name, likewise.
    pub shard: String,
    /// Statements whose keys name it and no other.
    pub total: u64,
    /// Its part of all such statements, 0 to 1.
    pub share: f64,
}

/// What happened in one step of time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// When it began, ms since 1970.
    pub at_ms: u64,
    /// How long it lasted, s.
    pub seconds: u64,
    /// Statements.
    pub total: u64,
    /// Of these, those that failed.
    pub errors: u64,
    /// Statements a second.
    pub throughput_per_s: f64,
    /// The mean, µs.
    pub mean_us: f64,
    /// Half were at most this long, µs.
    pub p50_us: u64,
    /// 99 %, µs.
    pub p99_us: u64,
}

/// How the times of one shard are spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShardHistogram {
    /// Its database.
    pub database: String,
    /// Its name.
    pub shard: String,
    /// Upper ends of the buckets, µs, ascending; the last bucket has none and is not listed.
    pub bounds_us: Vec<u64>,
    /// Statements in each bucket, one more than there are ends.
    pub counts: Vec<u64>,
}

/// Upper ends of buckets, µs.
pub(super) const BOUNDS_US: &[u64] = &[
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// Who is who.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) servers: Vec<ServerLabel>,
    pub(super) databases: Vec<String>,
}

impl Names {
    fn server(&self, place: Where) -> Option<(&ServerLabel, bool)> {
        let (slot, is_replica) = place.slot()?;
        Some((self.servers.get(slot.0 as usize)?, is_replica))
    }

    fn database(&self, slot: DatabaseSlot) -> String {
        self.databases.get(usize::from(slot.0)).cloned().unwrap_or_default()
    }
}

impl Figures {
    fn new(summed: &Summed, covered: Duration) -> Self {
        let counts = summed.counts;
        Self {
            total: counts.count,
            reads: counts.reads,
            writes: counts.writes,
            errors: counts.failed,
            error_rate: share(counts.failed, counts.count),
            throughput_per_s: counts.count as f64 / covered.as_secs_f64(),
            latency: summed.total.spread(counts.count),
        }
    }
}

/// A part of a whole, 0 if there is none.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How much of the last `range` there is. Slices are whole seconds, so less than one is one.
fn covered(range: Duration, uptime: Duration) -> Duration {
    range.min(Duration::from_secs(LONGEST_S)).min(uptime).max(Duration::from_secs(1))
}

impl Analytics {
    pub(super) fn new(slices: &[Arc<Slice>], range: Duration, uptime: Duration, names: &Names) -> Self {
        let covered = covered(range, uptime);
        let sum = Sum::of(slices);
        let figures = |wanted: &dyn Fn(Where) -> bool| {
            sum.total(wanted).map(|summed| Figures::new(&summed, covered)).unwrap_or_default()
        };
        let mut shards = BTreeMap::new();
        let mut servers = BTreeMap::new();
        for place in sum.cells.keys() {
            let Some((label, is_replica)) = names.server(*place) else { continue };
            let shard = (label.database.as_str(), label.shard_name.as_str());
            shards.entry(shard).or_insert_with(|| {
                let here =
                    |at| names.server(at).is_some_and(|(l, _)| (&*l.database, &*l.shard_name) == shard);
                figures(&here)
            });
            let server = (shard, label.address.as_str(), is_replica);
            servers.entry(server).or_insert_with(|| {
                let here = |at| names.server(at) == Some((label, is_replica));
                figures(&here)
            });
        }
        let on_shards = shards.values().map(|f| f.total).sum();
        let on_servers = servers.values().map(|f: &Figures| f.total).sum();
        let in_partitions = sum.partitions.values().sum();
        Self {
            time_range_ms: u64::try_from(range.as_millis()).unwrap_or(u64::MAX),
            covered_ms: u64::try_from(covered.as_millis()).unwrap_or(u64::MAX),
            figures: figures(&|at| !at.is_part()),
            shards: shards
                .into_iter()
                .map(|((database, shard), figures)| ShardFigures {
                    database: database.to_owned(),
                    shard: shard.to_owned(),
                    share: share(figures.total, on_shards),
                    figures,
                })
                .collect(),
            servers: servers
                .into_iter()
                .map(|(((database, shard), server, is_replica), figures)| ServerFigures {
                    database: database.to_owned(),
                    shard: shard.to_owned(),
                    server: server.to_owned(),
                    role: if is_replica { "replica" } else { "primary" },
                    share: share(figures.total, on_servers),
                    figures,
                })
                .collect(),
            partitions: sum
                .partitions
                .iter()
                .map(|((database, id), total)| PartitionFigures {
                    database: names.database(*database),
                    id: *id,
                    partition: String::new(),
                    shard: String::new(),
                    total: *total,
                    share: share(*total, in_partitions),
                })
                .collect(),
        }
    }
}

impl Point {
    pub(super) fn series(
        slices: &[Arc<Slice>],
        range: Duration,
        step: Duration,
        uptime: Duration,
        started: SystemTime,
    ) -> Vec<Self> {
        let step = step.as_secs().max(1);
        let (first, last) = (uptime.saturating_sub(range).as_secs() / step, uptime.as_secs() / step);
        let mut steps: BTreeMap<u64, Vec<Arc<Slice>>> = (first..=last).map(|at| (at, Vec::new())).collect();
        for slice in slices {
            if let Some(here) = steps.get_mut(&(slice.at_s() / step)) {
                here.push(slice.clone());
            }
        }
        let point = |(at, slices): (u64, Vec<Arc<Slice>>)| {
            // The last step is not over yet.
            let seconds = step.min(uptime.as_secs().saturating_sub(at * step)).max(1);
            let figures = Sum::of(&slices)
                .total(|at| !at.is_part())
                .map(|summed| Figures::new(&summed, Duration::from_secs(seconds)))
                .unwrap_or_default();
            let at = started + Duration::from_secs(at * step);
            let at_ms = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
            Self {
                at_ms: u64::try_from(at_ms).unwrap_or(u64::MAX),
                seconds,
                total: figures.total,
                errors: figures.errors,
                throughput_per_s: figures.throughput_per_s,
                mean_us: figures.latency.mean_us,
                p50_us: figures.latency.p50_us,
                p99_us: figures.latency.p99_us,
            }
        };
        steps.into_iter().map(point).collect()
    }
}

impl ShardHistogram {
    pub(super) fn of(slices: &[Arc<Slice>], names: &Names) -> Vec<Self> {
        let sum = Sum::of(slices);
        let mut shards: Vec<(&str, &str)> = sum
            .cells
            .keys()
            .filter_map(|at| names.server(*at))
            .map(|(label, _)| (label.database.as_str(), label.shard_name.as_str()))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        let histogram = |(database, shard): (&str, &str)| {
            let here = |at| {
                names.server(at).is_some_and(|(l, _)| (&*l.database, &*l.shard_name) == (database, shard))
            };
            let summed = sum.total(here)?;
            let at_most = summed.total.at_most(BOUNDS_US);
            let before = std::iter::once(0).chain(at_most.iter().copied());
            let after = at_most.iter().copied().chain([summed.counts.count]);
            Some(Self {
                database: database.to_owned(),
                shard: shard.to_owned(),
                bounds_us: BOUNDS_US.to_vec(),
                counts: before.zip(after).map(|(before, after)| after.saturating_sub(before)).collect(),
            })
        };
        shards.into_iter().filter_map(histogram).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::ShardId;
    use crate::stats::{Class, Effect, On, Ran, RouteKind, Stats, Timing};

    fn ran(us: u64) -> Ran {
        Ran {
            statement: None,
            class: Class::Update,
            route: RouteKind::Direct,
            effect: Effect::Write,
            database: DatabaseSlot(1),
            partition: Some(PartitionId(3)),
            failed: us > 1000,
            rows: 1,
            timing: Timing { queue_us: 0, server_us: us, total_us: us },
        }
    }

    fn on(stats: &Stats, shard: u16) -> On {
        let label = ServerLabel {
            database: "app".into(),
            shard: ShardId(shard),
            shard_name: format!("shard{}", shard + 1),
            address: format!("db{shard}:5432"),
        };
        On { server: stats.server(label), shard: ShardId(shard), is_replica: false }
    }

    #[test]
    fn shares_rates_and_buckets_are_those_of_what_was_recorded() {
        let stats = Stats::new();
        assert_eq!(stats.database("app"), DatabaseSlot(1));
        for us in [90, 200, 2000] {
            stats.ran(&ran(us), Some(on(&stats, 0)));
        }
        stats.ran(&ran(400), Some(on(&stats, 1)));
        let refused = Ran { failed: true, effect: Effect::Neither, partition: None, ..ran(5) };
        stats.ran(&refused, None);
        let range = Duration::from_secs(300);
        let all = stats.analytics(range);
        assert_eq!((all.figures.total, all.figures.writes, all.figures.errors), (5, 4, 2));
        assert!((all.figures.error_rate - 0.4).abs() < 1e-9);
        assert!((all.figures.throughput_per_s - 5.0).abs() < 1e-9, "less than a second is one");
        let shards: Vec<_> =
            all.shards.iter().map(|s| (s.shard.as_str(), s.figures.total, s.share)).collect();
        assert_eq!(shards, [("shard1", 3, 0.75), ("shard2", 1, 0.25)]);
        let partitions: Vec<_> =
            all.partitions.iter().map(|p| (p.database.as_str(), p.id, p.total)).collect();
        assert_eq!(partitions, [("app", PartitionId(3), 4)]);
        let histograms = stats.histograms(range);
        assert_eq!(&histograms[0].counts[..5], [1, 1, 0, 0, 1]);
        assert_eq!(histograms[0].counts.len(), histograms[0].bounds_us.len() + 1);
        assert_eq!(histograms[0].counts.iter().sum::<u64>(), 3);
        let series = stats.series(range, Duration::from_secs(10));
        assert_eq!(series.iter().map(|p| (p.total, p.errors)).collect::<Vec<_>>(), [(5, 2)]);
    }
}
