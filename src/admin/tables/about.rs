//! `pgherd.version` and `pgherd.help`.
//! Must not know anything but names.

use std::time::SystemTime;

use super::TABLES;
use crate::admin::Herd;
use crate::admin::record::{Source, record};

record! {
    /// The one row.
    Version is "version", "version of pgherd and how long it has been running" {
        name: &'static str,
        version: &'static str,
        started_at: SystemTime,
        uptime_us: u64,
    }
}

record! {
    /// One thing to type.
    Help is "help", "this list" {
        command: String,
        shows: String,
    }
}

impl Source for Version {
    fn rows(herd: &Herd) -> Vec<Self> {
        vec![Self {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            started_at: herd.started,
            uptime_us: herd.uptime_us(),
        }]
    }
}

impl Source for Help {
    fn rows(_: &Herd) -> Vec<Self> {
        let select = Self {
            command: "SELECT … FROM pgherd.latency WHERE … GROUP BY … ORDER BY … LIMIT …".to_owned(),
            shows: "the same tables, as much of them as you ask for".to_owned(),
        };
        let show = |table: &super::VirtualTable| Self {
            command: format!("SHOW {}", table.name.to_ascii_uppercase()),
            shows: table.about.to_owned(),
        };
        TABLES.iter().map(show).chain([select]).collect()
    }
}
