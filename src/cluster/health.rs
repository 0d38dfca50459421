//! Probes: each server is asked at intervals what it is and how far it has come.
//! Must not know what the answers are used for.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_postgres::Row;

use super::schema::NO_SUCH_DATABASE;
use super::server::ServerState;
use super::status::Health;
use super::topology::Cluster;
use crate::config::Role;
use crate::pool::ControlError;

/// Positions are compared as plain numbers. The insert position of a primary covers commits that are not flushed.
const PROBE: &str = "SELECT pg_catalog.pg_is_in_recovery() AS replica, \
     CASE WHEN pg_catalog.pg_is_in_recovery() THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0') \
          ELSE pg_catalog.pg_current_wal_insert_lsn() END - '0/0'::pg_catalog.pg_lsn AS position, \
     pg_catalog.current_setting('server_version_num')::int AS version";

/// How many marks of a primary are kept: with the shortest interval this still covers minutes of lag.
const MARKS: usize = 1024;

/// Between two tries at reading the catalogs before the first has succeeded.
const SCHEMA_RETRY: Duration = Duration::from_millis(300);

/// Between two re-readings while shards differ or tables are missing.
const SCHEMA_DRIFT_INTERVAL: Duration = Duration::from_secs(2);

/// Between two re-readings of the catalogs, to see DDL that did not come through the proxy.
const SCHEMA_INTERVAL: Duration = Duration::from_secs(60);

pub(super) fn spawn_probes(cluster: &Arc<Cluster>) -> Vec<AbortHandle> {
    let mut tasks = Vec::new();
    for (s, servers) in cluster.shards.iter().enumerate() {
        for i in 0..servers.len() {
            let weak = Arc::downgrade(cluster);
            let server = servers.get(i).cloned();
            let interval = cluster.config.control.probe_interval;
            tasks.push(
                tokio::spawn(async move {
                    let Some(server) = server else { return };
                    while let Some(cluster) = weak.upgrade() {
                        cluster.probe(s, i).await;
                        drop(cluster);
                        tokio::select! {
                            () = tokio::time::sleep(interval) => {}
                            () = server.probe_now.notified() => {
                                // Asked for by failing clients: at once, but not in a tight loop.
                                tokio::time::sleep(interval.min(Duration::from_millis(50))).await;
                            }
                        }
                    }
                })
                .abort_handle(),
            );
        }
    }
    let weak = Arc::downgrade(cluster);
    tasks.push(
        tokio::spawn(async move {
            while let Some(cluster) = weak.upgrade() {
                let read = cluster.reload_schema().await;
                if let Err(error) = &read {
                    tracing::debug!(database = %cluster.config.name, %error, "the catalogs cannot be read");
                }
                let pause = match cluster.schema() {
                    Some(schema) if schema.drift.is_empty() => SCHEMA_INTERVAL,
                    // Somebody is likely at work on it.
                    Some(_) => SCHEMA_DRIFT_INTERVAL,
                    None => SCHEMA_RETRY,
                };
                drop(cluster);
                tokio::time::sleep(pause).await;
            }
        })
        .abort_handle(),
    );
    tasks
}

struct Answer {
    role: Role,
    position: u64,
    version: u32,
}

impl Answer {
    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let replica: bool = row.try_get("replica")?;
        let position: Numeric = row.try_get("position")?;
        let version: i32 = row.try_get("version")?;
        let role = if replica { Role::Replica } else { Role::Primary };
        Ok(Self { role, position: position.0, version: version.unsigned_abs() })
    }
}

/// The whole part of a non-negative `numeric`; `pg_lsn - pg_lsn` has no other result type.
struct Numeric(u64);

impl<'a> tokio_postgres::types::FromSql<'a> for Numeric {
    fn from_sql(
        _: &tokio_postgres::types::Type,
        raw: &'a [u8],
    ) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        // Source: PostgreSQL's numeric_send: digit count, weight, sign, display scale, then base-10000 digits.
        let word = |i: usize| raw.get(i * 2..i * 2 + 2).map(|b| i64::from(i16::from_be_bytes([b[0], b[1]])));
        let (digits, weight) = (word(0).ok_or("too short")?, word(1).ok_or("too short")?);
        let mut value = 0u64;
        for place in 0..=weight.max(-1) {
            let digit = if place < digits { word(4 + place as usize).ok_or("too short")? } else { 0 };
            value = value
                .checked_mul(10_000)
                .and_then(|v| v.checked_add(digit.unsigned_abs()))
                .ok_or("too large for a WAL position")?;
        }
        Ok(Self(value))
    }

    fn accepts(ty: &tokio_postgres::types::Type) -> bool {
        *ty == tokio_postgres::types::Type::NUMERIC
    }
}

impl Cluster {
    /// Asks one server once and takes note of the answer.
    async fn probe(&self, shard: usize, index: usize) {
        let Some(server) = self.shards.get(shard).and_then(|s| s.get(index)) else { return };
        let Some(control) = self.control.get(shard).and_then(|s| s.get(index)) else { return };
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(self.config.control.probe_timeout, control.query_one(PROBE)).await;
        let answer = match answer {
            Ok(Ok(row)) => Answer::of(&row).map_err(|e| ControlError::from(e).to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "no answer to a probe within {} ms",
                self.config.control.probe_timeout.as_millis()
            )),
        };
        match answer {
            Ok(answer) => self.note_answer(server, shard, asked_at, &answer),
            Err(error) => self.note_failure(server, error),
        }
    }

    fn note_failure(&self, server: &ServerState, error: String) {
        let mut known = server.known.lock();
        known.failures = known.failures.saturating_add(1);
        known.lag_bytes = None;
        known.last_error = Some(error.clone());
        let changed = known.set_health(Health::Down);
        drop(known);
        let server_name = server.config.address();
        if changed && self.config.is_wildcard() && error.ends_with(NO_SUCH_DATABASE) {
            // Any client may ask for any name: the server is well.
            tracing::info!(server = %server_name, database = %self.server_database, "no such database");
        } else if changed {
            tracing::warn!(server = %server_name, shard = %server.shard_name, error, "server is down");
        }
    }

    fn note_answer(&self, server: &ServerState, shard: usize, asked_at: Instant, answer: &Answer) {
        let marks = match answer.role {
            Role::Primary => None,
            Role::Replica => self.marks_of_primary(shard),
        };
        let mut known = server.known.lock();
        let old_role = known.role.replace(answer.role);
        known.failures = 0;
        known.last_error = None;
        known.lsn = answer.position;
        known.server_version = Some(answer.version);
        let health = match answer.role {
            Role::Primary => {
                known.marks.push_back((asked_at, answer.position));
                if known.marks.len() > MARKS {
                    known.marks.pop_front();
                }
                known.lag_bytes = None;
                known.caught_up_to = None;
                Health::Up
            }
            Role::Replica => {
                known.marks.clear();
                if let Some((latest, caught_up_to)) = marks.map(|m| compare(&m, answer.position)) {
                    known.lag_bytes = latest.map(|latest| latest.saturating_sub(answer.position));
                    known.caught_up_to = caught_up_to.max(known.caught_up_to);
                }
                let lag = known.lag_us().unwrap_or(0);
                let late = u128::from(lag) > self.config.max_replica_lag.as_micros();
                if late { Health::Lagging } else { Health::Up }
            }
        };
        let changed = known.set_health(health);
        drop(known);
        if changed || old_role != Some(answer.role) {
            tracing::info!(server = %server.config.address(), shard = %server.shard_name, role = answer.role.as_str(),
                health = ?health, "server state");
        }
    }

    fn marks_of_primary(&self, shard: usize) -> Option<Vec<(Instant, u64)>> {
        let servers = self.shards.get(shard)?;
        let primary = servers.iter().find(|s| s.known.lock().role == Some(Role::Primary))?;
        let known = primary.known.lock();
        Some(known.marks.iter().copied().collect())
    }
}

/// From a primary's marks and a replica's position: the primary's latest position, and the latest moment whose
/// writes have all been replayed.
fn compare(marks: &[(Instant, u64)], position: u64) -> (Option<u64>, Option<Instant>) {
    let latest = marks.last().map(|(_, lsn)| *lsn);
    let caught_up_to = marks.iter().rev().find(|(_, lsn)| *lsn <= position).map(|(at, _)| *at);
    (latest, caught_up_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_as_fresh_as_the_last_mark_it_has_replayed() {
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        let marks = [(at(0), 100), (at(10), 200), (at(20), 200), (at(30), 300)];
        for (position, want) in [(99, None), (100, Some(at(0))), (250, Some(at(20))), (300, Some(at(30)))] {
            assert_eq!(compare(&marks, position), (Some(300), want), "{position}");
        }
        assert_eq!(compare(&[], 5), (None, None));
    }

    #[test]
    fn numerics_of_any_weight_read_as_whole_numbers() {
        use tokio_postgres::types::{FromSql, Type};
        let make = |weight: i16, digits: &[i16]| {
            let head = [digits.len() as i16, weight, 0, 0];
            head.iter().chain(digits).flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>()
        };
        for (raw, want) in
            [(make(0, &[]), 0), (make(0, &[7]), 7), (make(1, &[1]), 10_000), (make(1, &[12, 34]), 120_034)]
        {
            assert_eq!(Numeric::from_sql(&Type::NUMERIC, &raw).unwrap().0, want);
        }
    }
}
