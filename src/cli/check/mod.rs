//! `pgherd check`: is the configuration right, and are the servers behind it what it says?
//! Must not change anything.

mod finding;
mod schema;
mod servers;

use std::sync::Arc;

use self::finding::{Finding, Severity};
use super::{Failure, ui};
use crate::config::{Config, Database};

/// Checks all databases and prints what was found.
///
/// # Errors
/// If anything would keep the proxy from working as the configuration says.
pub(super) async fn check(config: Arc<Config>) -> Result<(), Failure> {
    let mut findings = Vec::new();
    for database in &config.databases {
        findings.extend(check_database(database).await);
    }
    let servers: usize =
        config.databases.iter().flat_map(|db| &db.shards).map(|shard| shard.servers.len()).sum();
    let path = config.path.display();
    if findings.is_empty() {
        let databases = ui::count(config.databases.len(), "database");
        ui::print(&format!("{path}: {databases}, {}, nothing wrong", ui::count(servers, "server")));
        return Ok(());
    }
    let mut table = ui::table(&["", "where", "what is wrong", "what to do"]);
    for finding in &findings {
        table.add_row([finding.severity.as_str(), &finding.place, &finding.what, &finding.remedy]);
    }
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    ui::print(&table.to_string());
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = findings.len() - errors;
    let summary = format!("{path}: {}, {}", ui::count(errors, "error"), ui::count(warnings, "warning"));
    if errors > 0 {
        return Err(Failure::new(summary));
    }
    ui::print(&summary);
    Ok(())
}

/// All that is wrong with one database's servers and tables.
pub(super) async fn check_database(database: &Database) -> Vec<Finding> {
    let (primaries, mut findings) = servers::check(database).await;
    findings.extend(schema::check(database, &primaries).await);
    findings
}
