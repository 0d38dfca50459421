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

/// What can be ordered on database `pgherd`.
const COMMANDS: &[(&str, &str)] = &[
    ("RELOAD", "reads the configuration and the catalogs again; changes nothing if anything is wrong"),
    ("PAUSE [database]", "waits for transactions to end, closes server connections, holds new statements"),
    ("RESUME [database]", "ends a pause"),
    ("RECONNECT [database]", "replaces every server connection as it becomes free"),
    ("KILL id", "ends a client of SHOW CLIENTS at once (57P01)"),
    ("KILL database", "ends all its clients and pauses it"),
    ("DRAIN SERVER 'host:port'", "no reads go to this replica any more"),
    ("RESUME SERVER 'host:port'", "they go there again"),
    ("RESET STATEMENTS", "forgets what SHOW STATEMENTS shows"),
    ("SHUTDOWN", "ends the proxy as transactions end"),
    ("SHUTDOWN IMMEDIATE", "ends the proxy now"),
];

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
        let command = |(command, shows): &(&str, &str)| Self {
            command: (*command).to_owned(),
            shows: (*shows).to_owned(),
        };
        TABLES.iter().map(show).chain([select]).chain(COMMANDS.iter().map(command)).collect()
    }
}
