//! `pgherd setup`: tables where the configuration places them, and ids that never collide.
//! Must not know the proxy: it talks to the shards' primaries.

mod sequences;
mod sequences_io;

use std::sync::Arc;

use tokio_postgres::Client;

use self::sequences_io::interleave;
use super::control::{Primary, primaries};
use super::tables::{TableFile, in_dir, shipped};
use super::{Failure, args, ui};
use crate::config::{Config, Database};
use crate::shard::ShardId;

pub(super) use self::sequences::STRIDE;
pub(super) use self::sequences_io::columns_that_may_collide;

/// Sets up every database of the configuration, or the one that is named.
pub(super) async fn setup(args: args::Setup) -> Result<(), Failure> {
    let config = args.config.load()?;
    let files = args.sql.as_deref().map_or_else(|| Ok(shipped()), in_dir)?;
    for line in databases(&config, &files, args.database.as_deref()).await? {
        ui::print(&line);
    }
    Ok(())
}

/// Sets up databases with these files; what was done, one line each.
///
/// # Errors
/// A shard without a primary, a statement that fails, or no database that has any of the tables.
pub(super) async fn databases(
    config: &Arc<Config>,
    files: &[TableFile],
    only: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let wanted = |db: &&Arc<Database>| !db.is_wildcard() && only.is_none_or(|name| name == db.name);
    let mut lines = Vec::new();
    for database in config.databases.iter().filter(wanted) {
        lines.extend(database_lines(config, database, files).await?);
    }
    if lines.is_empty() {
        let names: Vec<_> = files.iter().map(|file| file.table.as_str()).collect();
        let whose = only.map_or_else(|| "no database".to_owned(), |name| format!("no database \"{name}\""));
        let message = format!("{whose} of {} has a table named {}", config.path.display(), names.join(", "));
        return Err(
            Failure::new(message).remedy("add [[database.table]] entries, or give your own files with --sql")
        );
    }
    Ok(lines)
}

async fn database_lines(
    config: &Config,
    database: &Database,
    files: &[TableFile],
) -> Result<Vec<String>, Failure> {
    let mut placed: Vec<(&TableFile, Vec<ShardId>)> = Vec::new();
    for file in files {
        placed.extend(file.shards(&database.map)?.map(|shards| (file, shards)));
    }
    if placed.is_empty() {
        return Ok(Vec::new());
    }
    let mut primaries = primaries(database).await?;
    let users = server_users(config, database);
    let mut lines = Vec::new();
    for primary in &mut primaries {
        let here: Vec<_> =
            placed.iter().filter(|(_, shards)| shards.contains(&primary.id)).map(|p| p.0).collect();
        create(primary, &here, &users).await.map_err(|e| e.during(format_args!("{}", primary.shard)))?;
        let names: Vec<_> = here.iter().map(|file| file.table.as_str()).collect();
        lines.push(format!(
            "{} {} ({}): {}",
            database.name,
            primary.shard,
            primary.address,
            names.join(", ")
        ));
    }
    for line in interleave(&database.map, &mut primaries).await? {
        lines.push(format!("{} {line}", database.name));
    }
    Ok(lines)
}

/// The roles that clients of this database have on its servers, without the control account.
fn server_users(config: &Config, database: &Database) -> Vec<String> {
    let may = |dbs: &[String]| dbs.is_empty() || dbs.contains(&database.name);
    let mut users: Vec<String> = config
        .users
        .iter()
        .filter(|user| may(&user.databases))
        .map(|user| user.server_user.clone())
        .collect();
    users.retain(|user| *user != database.control.user);
    users.sort();
    users.dedup();
    users
}

/// Creates the tables on one shard in one transaction, owned by the database's owner, and lets the users at them.
async fn create(primary: &mut Primary, files: &[&TableFile], users: &[String]) -> Result<(), Failure> {
    let owner = owner_to_act_as(&primary.client).await?;
    let tx = primary.client.transaction().await?;
    for file in files {
        // Only for what is new: a table that is there may belong to anyone.
        let new: bool =
            tx.query_one("SELECT to_regclass($1) IS NULL", &[&public(&file.table)]).await?.try_get(0)?;
        if let Some(owner) = owner.as_ref().filter(|_| new) {
            tx.batch_execute(&format!("SET LOCAL ROLE {}", ident(owner))).await?;
        }
        let what = format!("{}/{}.sql", file.folder.name(), file.table);
        tx.batch_execute(&file.sql).await.map_err(Failure::sql(what))?;
        tx.batch_execute("RESET ROLE").await?;
    }
    for user in users {
        for file in files {
            grant(&tx, &file.table, user).await.map_err(|e| e.during(format_args!("rights of {user}")))?;
        }
    }
    Ok(tx.commit().await?)
}

/// The database's owner, if this account is a superuser and someone else: then clients that log in as the owner can
/// also alter the tables.
async fn owner_to_act_as(client: &Client) -> Result<Option<String>, Failure> {
    let sql = "SELECT pg_get_userbyid(d.datdba), r.rolsuper FROM pg_database d, pg_roles r
               WHERE d.datname = current_database() AND r.rolname = current_user AND d.datdba <> r.oid";
    let row = client.query_opt(sql, &[]).await?;
    Ok(match row {
        Some(row) if row.try_get::<_, bool>(1)? => Some(row.try_get(0)?),
        _ => None,
    })
}

async fn grant(tx: &tokio_postgres::Transaction<'_>, table: &str, user: &str) -> Result<(), Failure> {
    let known = tx.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&user]).await?.is_some();
    if !known {
        return Err(Failure::new(format!("role \"{user}\" does not exist on the server"))
            .remedy(format!("create it there: CREATE ROLE {} LOGIN PASSWORD '…'", ident(user))));
    }
    let (table, user) = (public(table), ident(user));
    tx.batch_execute(&format!("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {table} TO {user}")).await?;
    for sequence in sequences_io::owned_by(tx, &table).await? {
        tx.batch_execute(&format!("GRANT USAGE, SELECT ON SEQUENCE {sequence} TO {user}")).await?;
    }
    Ok(())
}

/// A table of schema `public`, as SQL.
fn public(table: &str) -> String {
    format!("public.{}", ident(table))
}

/// A name in double quotes.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
