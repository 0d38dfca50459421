//! What calls of one fingerprint add up to, in one thread and in all.
//! Must not know which fingerprints are counted.

use std::num::NonZeroU32;

use super::coarse::Coarse;
use super::times::Timing;
use crate::shard::ShardSet;

/// Which database, cheap to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DatabaseSlot(pub u16);

/// Where a fingerprint is counted; goes stale when it makes room or all are reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatementSlot {
    pub(super) place: u32,
    pub(super) generation: NonZeroU32,
}

impl StatementSlot {
    pub(super) fn from_mark(mark: u64) -> Option<Self> {
        Some(Self { place: mark as u32, generation: NonZeroU32::new((mark >> 32) as u32)? })
    }

    pub(super) fn mark(self) -> u64 {
        u64::from(self.generation.get()) << 32 | u64::from(self.place)
    }

    pub(super) fn index(self) -> usize {
        self.place as usize
    }
}

/// How a statement was routed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// Answered, or refused, by the proxy itself.
    #[default]
    Local,
    /// On the one shard that its keys or tables name.
    Direct,
    /// On any shard, for all would say the same.
    Any,
    /// On several shards at once.
    Fanout,
}

impl RouteKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Local, Self::Direct, Self::Any, Self::Fanout];

    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Direct => "direct",
            Self::Any => "any",
            Self::Fanout => "fan-out",
        }
    }
}

/// What one finished statement adds to its fingerprint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// False: rows of a call that was counted before.
    pub(super) first: bool,
    pub(super) failed: bool,
    pub(super) on_replica: bool,
    pub(super) rows: u64,
    pub(super) route: RouteKind,
    pub(super) shards: ShardSet,
    pub(super) timing: Timing,
}

/// Sums over calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) on_replica: u64,
    pub(super) rows: u64,
    pub(super) queue_us: u64,
    pub(super) server_us: u64,
    pub(super) total_us: u64,
    pub(super) max_us: u64,
    pub(super) shards: ShardSet,
    pub(super) routes: u8,
}

impl Sums {
    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.on_replica += other.on_replica;
        self.rows += other.rows;
        self.queue_us += other.queue_us;
        self.server_us += other.server_us;
        self.total_us += other.total_us;
        self.max_us = self.max_us.max(other.max_us);
        self.shards = self.shards.union(other.shards);
        self.routes |= other.routes;
    }
}

/// One thread's calls of one fingerprint since they were last collected.
#[derive(Debug)]
pub(super) struct Cell {
    slot: StatementSlot,
    pub(super) sums: Sums,
    pub(super) times: Coarse<u32>,
}

impl Cell {
    pub(super) fn new(slot: StatementSlot) -> Self {
        Self { slot, sums: Sums::default(), times: Coarse::new() }
    }

    pub(super) fn slot(&self) -> StatementSlot {
        self.slot
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sums.calls == 0 && self.sums.rows == 0
    }

    pub(super) fn clear(&mut self) {
        self.sums = Sums::default();
        self.times.clear();
    }

    pub(super) fn record(&mut self, call: &Call) {
        let Timing { queue_us, server_us, total_us } = call.timing;
        let sums = &mut self.sums;
        sums.rows += call.rows;
        sums.queue_us += queue_us;
        sums.server_us += server_us;
        sums.total_us += total_us;
        if !call.first {
            return;
        }
        sums.calls += 1;
        sums.failed += u64::from(call.failed);
        sums.on_replica += u64::from(call.on_replica);
        sums.max_us = sums.max_us.max(total_us);
        sums.shards = sums.shards.union(call.shards);
        sums.routes |= 1 << call.route as u8;
        self.times.record(total_us);
    }
}
