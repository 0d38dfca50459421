//! What happened as Prometheus reads it: every metric's name, help, labels and text, and nowhere else.
//! Must not know HTTP. Labels are names of the configuration and SQLSTATE classes, so their sets are bounded.

use std::fmt::{Error, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::analytics::BOUNDS_US;
use super::latency::{self, Class, ServerLabel};
use super::times::{Recorded, Stage};
use super::{PoolRow, Stats, Totals};

/// A form of text that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own text format 0.0.4.
    Text,
}

impl Format {
    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// A server as the probes see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerGauge {
    /// Database as the config names it.
    pub database: String,
    /// Its shard's name.
    pub shard: String,
    /// `host:port`.
    pub address: String,
    /// `primary` or `replica`, by its own word, else by the configuration's.
    pub role: &'static str,
    /// Whether it answers.
    pub up: bool,
    /// Replicas: WAL not replayed yet, bytes.
    pub lag_bytes: Option<u64>,
    /// Replicas: behind the primary for so long, µs.
    pub lag_us: Option<u64>,
}

/// What the statistics themselves do not know.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// When the proxy started.
    pub started: SystemTime,
    /// Every server.
    pub servers: Vec<ServerGauge>,
    /// Statements per database and name of the partition that their keys named alone.
    pub partitions: Vec<(String, String, u64)>,
}

/// SQLSTATE classes that are told apart; servers may raise any two characters.
const CLASSES: &[&str] = &[
    "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "20", "21", "22", "23", "24", "25",
    "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42", "44", "53", "54",
    "55", "57", "58", "72", "F0", "HV", "P0", "XX",
];

/// One server, role and class, and the times there.
type Times = (ServerLabel, &'static str, Class, Recorded<u64>);

/// All that is shown, at one moment.
#[derive(Debug)]
struct Scrape {
    totals: Totals,
    surroundings: Surroundings,
    times: Vec<Times>,
    routes: Vec<(&'static str, u64)>,
    errors: Vec<(String, u64)>,
    pools: Vec<PoolRow>,
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// All metrics in one text.
///
/// # Errors
/// Never: writing to a string does not fail.
pub fn render(stats: &Stats, surroundings: Surroundings, format: Format) -> Result<String, Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape::new(stats, surroundings)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    match format {
        Format::OpenMetrics => Ok(text),
        Format::Text => plain(&text),
    }
}

/// In the older format a counter's name ends in `_total` in its description too, and there is no end mark.
fn plain(text: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut help = "";
    for line in text.lines() {
        if line.starts_with("# HELP ") {
            help = line;
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').unwrap_or((described, "untyped"));
            let what = help.get("# HELP ".len() + name.len() + 1..).unwrap_or_default();
            let suffix = if kind == "counter" { "_total" } else { "" };
            writeln!(out, "# HELP {name}{suffix} {what}\n# TYPE {name}{suffix} {kind}")?;
        } else if !line.starts_with("# EOF") && !line.starts_with("# UNIT") {
            writeln!(out, "{line}")?;
        }
    }
    Ok(out)
}

impl Scrape {
    fn new(stats: &Stats, surroundings: Surroundings) -> Self {
        let mut errors: Vec<(String, u64)> = Vec::new();
        for (code, count) in stats.error_counts() {
            let class = CLASSES.iter().find(|class| code.starts_with(**class)).unwrap_or(&"other");
            match errors.iter_mut().find(|(known, _)| known == class) {
                Some((_, sum)) => *sum += count,
                None => errors.push(((*class).to_owned(), count)),
            }
        }
        Self {
            totals: stats.totals(),
            surroundings,
            times: stats.times(),
            routes: stats.routes().into_iter().map(|(kind, count)| (kind.as_str(), count)).collect(),
            errors,
            pools: stats.pools(),
        }
    }

    fn whole(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let Totals {
            sessions, traffic, logins, login_failures, cancel_requests, plan_hits, plan_misses, ..
        } = self.totals;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauges(to, "pgherd_build_info", "The version that runs.", [(version.to_vec(), 1.0)])?;
        let started = self.surroundings.started.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = "When the proxy started, seconds since 1970.";
        gauges(to, "pgherd_start_time_seconds", start, [(Labels::new(), started.as_secs_f64())])?;
        let clients = "Clients connected now.";
        gauges(to, "pgherd_clients", clients, [(Labels::new(), sessions as f64)])?;
        for (name, help, value) in [
            ("pgherd_logins", "Clients that proved who they are.", logins),
            ("pgherd_login_failures", "Clients that did not prove who they are.", login_failures),
            ("pgherd_cancel_requests", "Cancel requests of clients.", cancel_requests),
            ("pgherd_transactions", "Transactions that ended.", traffic.transactions),
            ("pgherd_received_bytes", "Bytes received from servers for clients.", traffic.received_bytes),
            ("pgherd_sent_bytes", "Bytes sent to clients.", traffic.sent_bytes),
            ("pgherd_plan_cache_hits", "Statements whose plan was known.", plan_hits),
            ("pgherd_plan_cache_misses", "Statements that had to be parsed.", plan_misses),
        ] {
            counters(to, name, help, [(Labels::new(), value as f64)])?;
        }
        let routes = self.routes.iter().map(|(route, count)| (vec![("route", *route)], *count as f64));
        counters(to, "pgherd_statements", "Statements that ended, by how they were routed.", routes)?;
        let errors = self.errors.iter().map(|(class, n)| (vec![("class", class.as_str())], *n as f64));
        counters(to, "pgherd_errors", "Errors told to clients, by class of SQLSTATE.", errors)?;
        let partitions = self.surroundings.partitions.iter().map(|(database, partition, count)| {
            (vec![("database", database.as_str()), ("partition", partition.as_str())], *count as f64)
        });
        let help = "Statements whose keys name this partition and no other.";
        counters(to, "pgherd_partition_statements", help, partitions)
    }

    fn servers(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let servers = &self.surroundings.servers;
        let labels = ServerGauge::labels;
        let up = servers.iter().map(|s| (labels(s), f64::from(u8::from(s.up))));
        gauges(to, "pgherd_server_up", "Whether the server answers.", up)?;
        let bytes = servers.iter().filter_map(|s| Some((labels(s), s.lag_bytes? as f64)));
        gauges(to, "pgherd_replica_lag_bytes", "Write-ahead log not replayed yet.", bytes)?;
        let lag = servers.iter().filter_map(|s| Some((labels(s), s.lag_us? as f64 / 1e6)));
        gauges(to, "pgherd_replica_lag_seconds", "How long the replica has been behind its primary.", lag)
    }

    fn pools(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let labels = |p: &'_ PoolRow, state: Option<&'static str>| {
            let label = &p.label;
            let mut labels = vec![
                ("database", label.database.clone()),
                ("shard", label.shard.clone()),
                ("server", label.address.clone()),
                ("user", label.user.clone()),
            ];
            labels.extend(state.map(|state| ("state", state.to_owned())));
            labels
        };
        let connections = self.pools.iter().flat_map(|p| {
            let idle = p.open.saturating_sub(p.in_use);
            [(labels(p, Some("in_use")), f64::from(p.in_use)), (labels(p, Some("idle")), f64::from(idle))]
        });
        gauges(to, "pgherd_pool_connections", "Server connections open now.", connections)?;
        let size = |p: &PoolRow| f64::from(p.label.size);
        let of = |value: fn(&PoolRow) -> f64| self.pools.iter().map(move |p| (labels(p, None), value(p)));
        gauges(to, "pgherd_pool_size", "Most server connections of the pool.", of(size))?;
        let waiting = of(|p| f64::from(p.waiting));
        gauges(to, "pgherd_pool_waiting", "Clients that wait for a connection now.", waiting)?;
        let waits = of(|p| p.wait_us as f64 / 1e6);
        counters(to, "pgherd_pool_wait_seconds", "Time that clients waited for a connection.", waits)?;
        for (name, help, value) in [
            (
                "pgherd_pool_timeouts",
                "Waits that ended without a connection.",
                (|p| p.timeouts as f64) as fn(&PoolRow) -> f64,
            ),
            ("pgherd_pool_leases", "Times a connection was lent.", |p| p.leases as f64),
            ("pgherd_pool_opened", "Connections opened.", |p| p.opened as f64),
            ("pgherd_pool_broken", "Connections closed because they were dirty or broken.", |p| {
                p.broken as f64
            }),
        ] {
            counters(to, name, help, of(value))?;
        }
        Ok(())
    }

    fn times(&self, to: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        type Pick = fn(&Recorded<u64>) -> &Stage<u64>;
        for (name, help, stage) in [
            (
                "pgherd_statement_duration_seconds",
                "From the client's message to the last byte of the answer.",
                Recorded::total as Pick,
            ),
            ("pgherd_statement_queue_seconds", "Waiting for a server connection.", Recorded::queue),
            ("pgherd_statement_server_seconds", "On the server.", Recorded::server),
        ] {
            let mut family = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
            for (server, role, class, recorded) in &self.times {
                let labels: Labels<'_> = vec![
                    ("database", &server.database),
                    ("shard", &server.shard_name),
                    ("server", &server.address),
                    ("role", role),
                    ("class", class.as_str()),
                ];
                let stage = stage(recorded);
                let count = recorded.counts.count;
                let buckets = buckets(stage, count);
                let sum = stage.sum() as f64 / 1e6;
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }
}

impl ServerGauge {
    fn labels(&self) -> Labels<'_> {
        let Self { database, shard, address, role, .. } = self;
        vec![("database", database), ("shard", shard), ("server", address), ("role", role)]
    }
}

/// Upper ends in seconds, and how many are in each bucket alone.
fn buckets(stage: &Stage<u64>, count: u64) -> Vec<(f64, u64)> {
    let at_most = stage.at_most(BOUNDS_US);
    let before = std::iter::once(0).chain(at_most.iter().copied());
    let ends = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
    let counts = at_most.iter().copied().chain([count]).zip(before);
    ends.zip(counts).map(|(end, (upto, before))| (end, upto.saturating_sub(before))).collect()
}

fn gauges<L: prometheus_client::encoding::EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), Error> {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    values.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
}

fn counters<L: prometheus_client::encoding::EncodeLabelSet>(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), Error> {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    values.into_iter().try_for_each(|(labels, value)| {
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, f64>(&value, None)
    })
}

impl Collector for Scrape {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.whole(&mut to)?;
        self.servers(&mut to)?;
        self.pools(&mut to)?;
        self.times(&mut to)
    }
}

/// Times of each server, role and class since start.
pub(super) fn times(servers: &[ServerLabel], totals: &latency::Totals) -> Vec<Times> {
    let rows = latency::by_server(totals).into_iter();
    rows.filter_map(|((slot, is_replica, class), recorded)| {
        let role = if is_replica { "replica" } else { "primary" };
        Some((servers.get(slot as usize)?.clone(), role, class, recorded))
    })
    .collect()
}
