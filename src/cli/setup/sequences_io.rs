//! Reads and sets the sequences of sharded tables on all shards at once.
//! Must not know how their values are chosen.

use tokio_postgres::{GenericClient, Transaction};

use super::super::Failure;
use super::super::control::Primary;
use super::ident;
use super::sequences::{STRIDE, State, restarts};
use crate::shard::{Map, Placement, TableName};

/// Longest wait for the lock on a table that is being written.
const LOCK_MS: u32 = 10_000;

/// A sequence and the column that owns it.
struct Owned {
    column: String,
    /// As SQL, qualified and quoted.
    sequence: String,
    increment: i64,
    most: i64,
}

/// Sequences owned by a table's columns, as SQL. `table` is SQL as well.
pub(super) async fn owned_by(
    client: &(impl GenericClient + Sync),
    table: &str,
) -> Result<Vec<String>, tokio_postgres::Error> {
    owned(client, table).await.map(|all| all.into_iter().map(|owned| owned.sequence).collect())
}

async fn owned(
    client: &(impl GenericClient + Sync),
    table: &str,
) -> Result<Vec<Owned>, tokio_postgres::Error> {
    let sql = "SELECT a.attname::text, quote_ident(n.nspname) || '.' || quote_ident(s.relname),
                      p.seqincrement, p.seqmax
               FROM pg_depend d
               JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
               JOIN pg_namespace n ON n.oid = s.relnamespace
               JOIN pg_sequence p ON p.seqrelid = s.oid
               JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
                 AND d.deptype IN ('a', 'i') AND d.refobjid = to_regclass($1)
               ORDER BY a.attnum";
    let rows = client.query(sql, &[&table]).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Owned {
            column: row.try_get(0)?,
            sequence: row.try_get(1)?,
            increment: row.try_get(2)?,
            most: row.try_get(3)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Interleaves the serial and identity columns of every sharded table; what changed, one line each.
///
/// # Errors
/// A table that stays locked, or a sequence without room.
pub(super) async fn interleave(map: &Map, primaries: &mut [Primary]) -> Result<Vec<String>, Failure> {
    if primaries.len() < 2 {
        return Ok(Vec::new()); // one shard: nothing to collide with
    }
    let mut lines = Vec::new();
    for (table, placement) in &map.tables {
        match placement {
            Placement::Sharded(_) => lines.extend(interleave_table(table, primaries).await?),
            Placement::Reference | Placement::Single(_) => {}
        }
    }
    Ok(lines)
}

/// All shards' tables are locked against writes until all sequences are set. Shards are locked in their order, so two
/// set-ups at once do not wait for each other in a circle.
async fn interleave_table(table: &TableName, primaries: &mut [Primary]) -> Result<Vec<String>, Failure> {
    let name = format!("{}.{}", ident(&table.schema), ident(&table.name));
    let mut shards = Vec::new();
    for primary in primaries {
        if owned(&primary.client, &name).await?.is_empty() {
            continue; // no such column, or no such table: `check` reports that
        }
        let ordinal = i64::from(primary.id.0) + 1;
        let what = format!("locking {table} on {}", primary.shard);
        let tx = primary.client.transaction().await?;
        let sql =
            format!("SET LOCAL lock_timeout = {LOCK_MS}; LOCK TABLE {name} IN SHARE ROW EXCLUSIVE MODE");
        tx.batch_execute(&sql).await.map_err(Failure::sql(what))?;
        shards.push((ordinal, tx));
    }
    let Some((_, first)) = shards.first() else { return Ok(Vec::new()) };
    let mut lines = Vec::new();
    for column in owned(first, &name).await? {
        if let Some(values) = interleave_column(&name, &column.column, &shards).await? {
            let values: Vec<_> = values.iter().map(i64::to_string).collect();
            lines.push(format!(
                "{table}.{}: next ids {}, in steps of {STRIDE}",
                column.column,
                values.join(", ")
            ));
        }
    }
    for (_, tx) in shards {
        tx.commit().await?;
    }
    Ok(lines)
}

async fn interleave_column(
    table: &str,
    column: &str,
    shards: &[(i64, Transaction<'_>)],
) -> Result<Option<Vec<i64>>, Failure> {
    let mut states = Vec::new();
    let mut sequences = Vec::new();
    for (ordinal, tx) in shards {
        let Some(found) = owned(tx, table).await?.into_iter().find(|owned| owned.column == column) else {
            continue;
        };
        states.push((*ordinal, state(tx, table, &found).await?));
        sequences.push((tx, *ordinal, found.sequence));
    }
    let no_room = |ordinal| {
        Failure::new(format!(
            "{table}.{column} on shard number {ordinal} has no ids left in steps of {STRIDE}"
        ))
        .remedy("make it a bigint: ALTER TABLE … ALTER COLUMN … TYPE bigint, ALTER SEQUENCE … AS bigint")
    };
    let Some(values) = restarts(&states).map_err(no_room)? else { return Ok(None) };
    for ((tx, ordinal, sequence), value) in sequences.iter().zip(&values) {
        let sql = format!(
            "ALTER SEQUENCE {sequence} INCREMENT BY {STRIDE} MINVALUE 1 START WITH {ordinal} RESTART WITH {value}"
        );
        tx.batch_execute(&sql).await.map_err(Failure::sql(sequence))?;
    }
    Ok(Some(values))
}

async fn state(
    client: &(impl GenericClient + Sync),
    table: &str,
    owned: &Owned,
) -> Result<State, tokio_postgres::Error> {
    let sql = format!(
        "SELECT last_value, is_called, (SELECT max({column})::bigint FROM {table}) FROM {sequence}",
        column = ident(&owned.column),
        sequence = owned.sequence,
    );
    let row = client.query_one(&sql, &[]).await?;
    Ok(State {
        increment: owned.increment,
        most: owned.most,
        last: row.try_get(0)?,
        called: row.try_get(1)?,
        largest: row.try_get(2)?,
    })
}

/// The columns of a table whose ids may collide with those of other shards.
pub(in super::super) async fn columns_that_may_collide(
    primary: &Primary,
    table: &TableName,
) -> Result<Vec<String>, tokio_postgres::Error> {
    let name = format!("{}.{}", ident(&table.schema), ident(&table.name));
    let mut wrong = Vec::new();
    for owned in owned(&primary.client, &name).await? {
        if !state(&primary.client, &name, &owned).await?.fits(i64::from(primary.id.0) + 1) {
            wrong.push(owned.column);
        }
    }
    Ok(wrong)
}
