//! What all threads have recorded, together: since the start, and of late.
//! Must not know who reads it.

use std::collections::BTreeMap;

use super::calls::{DatabaseSlot, RouteKind};
use super::latency::{Totals, Where};
use super::place::{PLACES, Places, Recent};
use super::statements::{Generations, Registry};
use super::times::{Counts, Recorded};
use super::window::{Slice, SliceCell, Window};
use crate::shard::PartitionId;

/// What was collected.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) totals: Totals,
    pub(super) statements: Registry,
    pub(super) window: Window,
    pub(super) partitions: BTreeMap<(DatabaseSlot, PartitionId), u64>,
    pub(super) routes: [u64; RouteKind::ALL.len()],
    /// Emptied, to be swapped for what threads have filled.
    spare: Vec<Recent>,
}

impl Default for Collected {
    fn default() -> Self {
        Self {
            totals: Totals::new(),
            statements: Registry::default(),
            window: Window::default(),
            partitions: BTreeMap::new(),
            routes: Default::default(),
            spare: (0..PLACES).map(|_| Recent::default()).collect(),
        }
    }
}

impl Collected {
    /// Takes over what threads have recorded; it counts as what happened in this second.
    pub(super) fn collect(&mut self, places: &Places, generations: &Generations, now_s: u64) {
        places.swap(&mut self.spare);
        let Self { totals, statements, window, partitions, routes, spare } = self;
        window.at(now_s, |slice| {
            for recent in spare {
                times(recent, totals, slice);
                let cells = recent.statements.iter().flatten().map(|cell| &**cell).chain(&recent.stale);
                cells.filter(|cell| !cell.is_empty()).for_each(|cell| statements.add(generations, cell));
                for (database, counts) in recent.partitions.iter().enumerate() {
                    let counted = counts.iter().enumerate().filter(|(_, count)| **count > 0);
                    for (partition, count) in counted {
                        let (database, partition) =
                            (DatabaseSlot(database as u16), PartitionId(partition as u16));
                        *partitions.entry((database, partition)).or_default() += count;
                        slice.partition(database, partition, *count);
                    }
                }
                routes.iter_mut().zip(recent.routes).for_each(|(sum, count)| *sum += count);
                recent.clear();
            }
        });
    }
}

fn times(recent: &Recent, totals: &mut Totals, slice: &mut Slice) {
    for (key, cell) in recent.times.iter().enumerate() {
        let Some(cell) = cell.as_ref().filter(|cell| cell.counts != Counts::default()) else { continue };
        if !totals.contains_key(&key)
            && let Some(fresh) = Recorded::new()
        {
            totals.insert(key, fresh);
        }
        if let Some(total) = totals.get_mut(&key) {
            total.add(cell);
        }
        if let Some((place, _)) = Where::of_key(key) {
            let stage = cell.total();
            let part = SliceCell::new(cell.counts, stage.buckets(), stage.sum(), stage.max());
            slice.cell(place, &part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::shard::ShardId;
    use crate::stats::{Class, Effect, LatencyRow, On, Ran, RouteKind, ServerLabel, Stats, Timing};

    fn label(address: &str) -> ServerLabel {
        ServerLabel {
            database: "app".into(),
            shard: ShardId(0),
            shard_name: "shard1".into(),
            address: address.into(),
        }
    }

    fn ran(class: Class, total_us: u64) -> Ran {
        Ran {
            statement: None,
            class,
            route: RouteKind::Direct,
            effect: Effect::Read,
            database: Default::default(),
            partition: None,
            failed: false,
            rows: 1,
            timing: Timing { queue_us: 1, server_us: total_us / 2, total_us },
        }
    }

    fn on(stats: &Stats, address: &str, is_replica: bool) -> On {
        On { server: stats.server(label(address)), shard: ShardId(0), is_replica }
    }

    fn find<'a>(rows: &'a [LatencyRow], address: &str, is_replica: bool) -> &'a LatencyRow {
        rows.iter().find(|r| r.is_replica == is_replica && r.server.address == address).unwrap()
    }

    #[test]
    fn statements_of_all_threads_are_counted_once() {
        let stats = Stats::new();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let stats = &stats;
                scope.spawn(move || {
                    for i in 0..5000u64 {
                        let on = on(stats, if i % 2 == 0 { "a:1" } else { "b:1" }, i % 3 == 0);
                        stats.ran(&ran(Class::Select, i), Some(on));
                        if i % 1000 == thread {
                            drop(stats.latency()); // a reader in between must lose nothing
                        }
                    }
                });
            }
        });
        let rows = stats.latency();
        assert_eq!(rows.len(), 4);
        assert_eq!(rows.iter().map(|r| r.count).sum::<u64>(), 40_000);
        assert_eq!(find(&rows, "a:1", true).count, 8 * 834, "every sixth number from 0");
        let of_late = stats.analytics(Duration::from_secs(3600));
        assert_eq!((of_late.figures.total, of_late.figures.reads), (40_000, 40_000));
        assert_eq!(stats.routes()[RouteKind::Direct as usize], (RouteKind::Direct, 40_000));
    }

    #[test]
    fn percentiles_are_right_to_two_digits_and_never_above_the_longest() {
        let stats = Stats::new();
        (1..=1000).for_each(|i| stats.ran(&ran(Class::Insert, i), Some(on(&stats, "a:1", false))));
        let rows = stats.latency();
        let total = rows[0].total;
        assert_eq!((rows[0].count, rows[0].class, total.max_us), (1000, Class::Insert, 1000));
        assert!((total.mean_us - 500.5).abs() < 1e-9);
        for (got, want) in
            [(total.p50_us, 500), (total.p90_us, 900), (total.p99_us, 990), (total.p999_us, 999)]
        {
            assert!(got >= want && got <= want + want / 100 + 1, "{got} for {want}");
        }
        assert_eq!(rows[0].queue.p99_us, 1);
        assert_eq!(stats.analytics(Duration::from_secs(60)).figures.latency, total);
    }

    #[test]
    fn times_beyond_a_minute_saturate_but_the_longest_is_kept() {
        let stats = Stats::new();
        stats.ran(&ran(Class::Other, 600_000_000), Some(on(&stats, "a:1", false)));
        let total = stats.latency()[0].total;
        assert_eq!(total.max_us, 600_000_000);
        assert!((60_000_000..61_000_000).contains(&total.p50_us), "{}", total.p50_us);
    }

    #[test]
    fn a_fan_out_is_one_statement_with_a_part_on_each_server() {
        let stats = Stats::new();
        let parts = [on(&stats, "a:1", true), on(&stats, "b:1", false)];
        stats.ran_on_many(&Ran { route: RouteKind::Fanout, ..ran(Class::Select, 70) }, &parts);
        stats.ran(&ran(Class::Select, 30), Some(parts[1]));
        let rows = stats.latency();
        assert_eq!((find(&rows, "a:1", true).count, find(&rows, "b:1", false).count), (1, 2));
        let of_late = stats.analytics(Duration::from_secs(60));
        assert_eq!(of_late.figures.total, 2);
        assert_eq!(of_late.shards[0].figures.total, 3);
        assert_eq!(of_late.servers.iter().map(|s| s.figures.total).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn the_same_label_has_the_same_slot() {
        let stats = Stats::new();
        assert_eq!(stats.server(label("a:1")), stats.server(label("a:1")));
        assert_ne!(stats.server(label("a:1")), stats.server(label("b:1")));
        assert_eq!(stats.database("app"), stats.database("app"));
        assert_ne!(stats.database("app"), stats.database("shop"));
    }
}
