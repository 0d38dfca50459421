//! What happened, under the names that the configuration has for it: for virtual tables and HTTP alike.
//! Must not know how it is shown.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::Herd;
use crate::cluster::{DatabaseStatus, Health, ServerStatus};
use crate::config::Role;
use crate::shard::ShardId;
use crate::stats::{
    Analytics, Figures, Point, ServerGauge, ShardFigures, ShardHistogram, StatementRow, Surroundings,
};

/// One error that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorFigures {
    /// When, ms since 1970.
    pub at_ms: u64,
    /// Its SQLSTATE.
    pub sqlstate: String,
    /// Its message.
    pub message: String,
    /// Who raised it: `client`, `proxy` or `server`.
    pub blame: &'static str,
    /// Its database; empty if none was named yet.
    pub database: String,
    /// Its user; empty if none was named yet.
    pub user: String,
    /// The shard it came from.
    pub shard: Option<String>,
    /// The server it came from, `host:port`.
    pub server: Option<String>,
    /// The fingerprint of its statement, as in the statements' figures.
    pub fingerprint: Option<String>,
    /// The text of its statement without values.
    pub statement: Option<String>,
}

impl Herd {
    fn status(&self, database: &str) -> Option<&DatabaseStatus> {
        self.databases.iter().find(|d| d.name == database)
    }

    /// What statements of each fingerprint did since the last reset; the most expensive first.
    #[must_use]
    pub fn statements(&self) -> Vec<StatementRow> {
        let mut rows = self.stats.statements();
        for row in &mut rows {
            let Some(status) = self.status(&row.database) else { continue };
            let name = |id: ShardId| status.map.shard_name(id).to_owned();
            row.shard_names = row.shards.iter().map(name).collect();
        }
        rows
    }

    /// What happened in the last `range` (at most an hour), on every shard and in every partition that there is.
    #[must_use]
    pub fn analytics(&self, range: Duration) -> Analytics {
        let mut all = self.stats.analytics(range);
        for partition in &mut all.partitions {
            let Some(map) = self.status(&partition.database).map(|status| &status.map) else { continue };
            if let Some(known) = map.partition(partition.id) {
                partition.partition.clone_from(&known.name);
                map.shard_name(known.shard).clone_into(&mut partition.shard);
            }
        }
        for status in &self.databases {
            for shard in &status.map.shards {
                if !all.shards.iter().any(|s| s.database == status.name && s.shard == *shard) {
                    all.shards.push(ShardFigures {
                        database: status.name.clone(),
                        shard: shard.clone(),
                        share: 0.0,
                        figures: Figures::default(),
                    });
                }
            }
        }
        all.shards.sort_by(|a, b| (&a.database, &a.shard).cmp(&(&b.database, &b.shard)));
        all
    }

    /// What Prometheus is told beside the statistics.
    #[must_use]
    pub fn surroundings(&self) -> Surroundings {
        let gauge = |s: &ServerStatus| ServerGauge {
            database: s.database.clone(),
            shard: s.shard.clone(),
            address: s.address.clone(),
            role: match s.role.unwrap_or(s.expected_role) {
                Role::Primary => "primary",
                Role::Replica => "replica",
            },
            up: matches!(s.health, Health::Up | Health::Lagging),
            lag_bytes: s.lag_bytes,
            lag_us: s.lag_us,
        };
        let partitions = self.stats.partitions().into_iter().filter_map(|(database, id, count)| {
            let name = self.status(&database)?.map.partition(id)?.name.clone();
            Some((database, name, count))
        });
        Surroundings {
            started: self.started,
            servers: self.databases.iter().flat_map(|d| &d.servers).map(gauge).collect(),
            partitions: partitions.collect(),
        }
    }

    /// What happened in each `step` of the last `range`, oldest first.
    #[must_use]
    pub fn series(&self, range: Duration, step: Duration) -> Vec<Point> {
        self.stats.series(range, step)
    }

    /// How times of the last `range` are spread over each shard that had any.
    #[must_use]
    pub fn histograms(&self, range: Duration) -> Vec<ShardHistogram> {
        self.stats.histograms(range)
    }

    /// The latest errors, newest first.
    #[must_use]
    pub fn errors(&self, count: usize) -> Vec<ErrorFigures> {
        let row = |e: crate::stats::ErrorRow| {
            let (fingerprint, statement) = e.statement.map(|(f, s)| (f, s.to_string())).unzip();
            let at = e.at.duration_since(UNIX_EPOCH).unwrap_or_default();
            ErrorFigures {
                at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
                sqlstate: e.event.sqlstate,
                message: e.event.message,
                blame: e.event.blame,
                database: e.event.database,
                user: e.event.user,
                shard: e.event.shard,
                server: e.event.server,
                fingerprint,
                statement,
            }
        };
        self.stats.errors().into_iter().take(count).map(row).collect()
    }
}
