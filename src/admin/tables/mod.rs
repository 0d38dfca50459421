//! The virtual tables, each a struct whose fields are its columns.
//! Must not know how they are queried or sent.

mod about;
mod config;
mod databases;
mod latency;
mod placement;
mod servers;
mod statements;
mod traffic;

use super::Herd;
use super::record::{Record, Source};
use crate::rows::{Column, Value};

/// One virtual table.
pub(super) struct VirtualTable {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) columns: fn() -> Vec<Column>,
    pub(super) rows: fn(&Herd) -> Vec<Vec<Value>>,
}

impl VirtualTable {
    const fn of<R: Source>() -> Self {
        Self { name: R::TABLE, about: R::ABOUT, columns: R::columns, rows: rows_of::<R> }
    }
}

fn rows_of<R: Source>(herd: &Herd) -> Vec<Vec<Value>> {
    R::rows(herd).into_iter().map(Record::values).collect()
}

/// All of them, in the order of SHOW HELP.
pub(super) const TABLES: &[VirtualTable] = &[
    VirtualTable::of::<latency::Latency>(),
    VirtualTable::of::<statements::Statement>(),
    VirtualTable::of::<servers::Shard>(),
    VirtualTable::of::<servers::Server>(),
    VirtualTable::of::<placement::Partition>(),
    VirtualTable::of::<placement::Table>(),
    VirtualTable::of::<traffic::Pool>(),
    VirtualTable::of::<traffic::Client>(),
    VirtualTable::of::<traffic::Error>(),
    VirtualTable::of::<traffic::ErrorCount>(),
    VirtualTable::of::<traffic::Stat>(),
    VirtualTable::of::<databases::Database>(),
    VirtualTable::of::<databases::User>(),
    VirtualTable::of::<databases::SchemaDrift>(),
    VirtualTable::of::<config::Setting>(),
    VirtualTable::of::<about::Version>(),
    VirtualTable::of::<about::Help>(),
];

/// A mean of whole microseconds means nothing beyond its first decimal.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The table of that name.
pub(super) fn find(name: &str) -> Option<&'static VirtualTable> {
    TABLES.iter().find(|table| table.name == name)
}

/// All names, for hints.
pub(super) fn names() -> String {
    TABLES.iter().map(|table| table.name).collect::<Vec<_>>().join(", ")
}
