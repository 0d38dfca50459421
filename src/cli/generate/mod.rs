//! `pgherd generate`: users, their orders and some audit records, loaded through the proxy.
//! Must not know the servers: only what an application could.

mod draw;
mod load;
mod people;
mod sizes;

use std::sync::Arc;

use self::draw::Draw;
use self::load::Loader;
use self::people::Seed;
use super::client::Target;
use super::{Failure, args, ui};
use crate::config::{Config, Database};

/// Bytes of rows at scale 1: 100 MB, dealt to the partitions by weight.
const BYTES: f64 = 100.0 * 1024.0 * 1024.0;

/// What to do when there are generated rows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Stop with an error.
    Refuse,
    /// Leave all as it is, unless an earlier load broke off: then start over.
    Keep,
    /// Go on behind the last one.
    Append,
    /// Empty the tables first.
    Replace,
}

/// Loads as the arguments say, and prints what there is then.
pub(super) async fn generate(args: args::Generate) -> Result<(), Failure> {
    let config = args.connect.config.load()?;
    let target = Target::new(&args.connect, Some(&config))?;
    let existing = match (args.append, args.replace) {
        (true, _) => Existing::Append,
        (_, true) => Existing::Replace,
        (false, false) => Existing::Refuse,
    };
    fill(&config, &target, args.scale, args.seed, existing).await?;
    Ok(())
}

/// Loads so much; returns whether anything was loaded.
///
/// # Errors
/// A configuration without the tables, rows that are there already, or a statement that fails.
pub(super) async fn fill(
    config: &Arc<Config>,
    target: &Target,
    scale: f64,
    seed: u64,
    existing: Existing,
) -> Result<bool, Failure> {
    let database = config.database(&target.database).ok_or_else(|| {
        Failure::new(format!("{} has no database \"{}\"", config.path.display(), target.database))
    })?;
    let seed = Seed::new(seed);
    let draw = Draw::new(&database.map, seed, (scale * BYTES) as u64)?;
    let loader = Loader::new(target, database);
    let last = loader.last_number().await?;
    let draw = match (last, existing) {
        (None, _) => draw,
        (Some(_), Existing::Keep) if loader.is_complete().await? => return Ok(false),
        (Some(last), Existing::Append) => draw.starting_after(last),
        (Some(_), Existing::Keep | Existing::Replace) => {
            loader.empty().await?;
            draw
        }
        (Some(last), Existing::Refuse) => {
            let message = format!(
                "{} holds generated users already, up to {}",
                target.describe(),
                people::user_id(last)
            );
            return Err(Failure::new(message).remedy("add more with --append, or start over with --replace"));
        }
    };
    loader.load(&draw).await?;
    loader.audit(&draw, scale).await?;
    report(&loader, database).await?;
    Ok(true)
}

async fn report(loader: &Loader<'_>, database: &Database) -> Result<(), Failure> {
    let sizes = loader.sizes().await?;
    let mut table = ui::table(&["partition", "shard", "users", "orders", "MB of rows", "share"]);
    let total: u64 = sizes.values().map(|size| size.bytes).sum();
    for (name, size) in &sizes {
        let partition = database.map.partition_named(name).and_then(|id| database.map.partition(id));
        let shard = partition.map_or("?", |partition| database.map.shard_name(partition.shard));
        let megabytes = size.bytes as f64 / (1024.0 * 1024.0);
        let share = 100.0 * size.bytes as f64 / total.max(1) as f64;
        table.add_row([
            name.clone(),
            shard.to_owned(),
            ui::grouped(size.users),
            ui::grouped(size.orders),
            format!("{megabytes:.2}"),
            format!("{share:.1} %"),
        ]);
    }
    ui::print(&table.to_string());
    ui::print(
        "MB of rows: sum of pg_column_size(row) over users and their orders, without indexes and page headers",
    );
    Ok(())
}
