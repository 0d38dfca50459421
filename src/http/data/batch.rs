//! Records to INSERTs of many rows, each on the shard of its rows, in a transaction per shard.
//! Must not know how the records came.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::super::error::HttpError;
use super::super::link::{Lent, Param};
use super::Call;
use super::json_in::Record;
use super::table::{Table, insert_sql, shards_of};
use super::write::{agree, columns_and_params};
use crate::catalog::Column;
use crate::shard::ShardId;
use crate::wire::SqlState;

/// The most rows of one statement.
const MOST_ROWS: usize = 1000;
/// The most values of one statement: the protocol counts them in 16 bits.
const MOST_VALUES: usize = 30_000;
/// The most bytes of values in one statement.
const MOST_BYTES: usize = 1 << 20;
/// The most records that an error lists by name.
const MOST_NAMED: usize = 20;

/// Rows on a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShardRows {
    /// The shard.
    pub(super) shard: String,
    /// How many of the rows are stored on it.
    pub(super) rows: u64,
}

/// A record taken apart.
struct Row<'t> {
    columns: Vec<&'t Column>,
    params: Vec<Param>,
}

/// Rows of one shard: those that wait, and the transaction that has taken others.
#[derive(Default)]
struct OfShard<'t> {
    waiting: Vec<Row<'t>>,
    values: usize,
    bytes: usize,
    sent: u64,
    /// Its transaction, once a first statement was sent and another may follow.
    session: Option<Lent>,
}

impl OfShard<'_> {
    fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_ROWS || self.values >= MOST_VALUES || self.bytes >= MOST_BYTES
    }

    /// Whether one statement takes all that waits: one is atomic by itself.
    fn is_one_statement(&self) -> bool {
        let all_defaults = self.waiting.iter().all(|row| row.columns.is_empty());
        !self.is_full() && (self.waiting.len() == 1 || !all_defaults)
    }
}

/// All rows of one request.
pub(super) struct Batches<'t> {
    call: &'t Call,
    table: &'t Table<'t>,
    key: Option<String>,
    deadline: Option<Instant>,
    shards: BTreeMap<ShardId, OfShard<'t>>,
    /// Which record goes where, for the error if they may not.
    placed: Vec<ShardId>,
    count: u64,
}

impl<'t> Batches<'t> {
    /// `deadline`: of the whole; `None`: each statement has the timeout.
    pub(super) fn new(
        call: &'t Call,
        table: &'t Table<'t>,
        key: Option<String>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { call, table, key, deadline, shards: BTreeMap::new(), placed: Vec::new(), count: 0 }
    }

    /// Takes a record; nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn add(&mut self, record: &Record<'_>) -> Result<(), HttpError> {
        let number = self.count;
        self.place(record).map_err(|error| error.about(&format!("record {number}")))?;
        self.count += 1;
        Ok(())
    }

    fn place(&mut self, record: &Record<'_>) -> Result<(), HttpError> {
        let (columns, params) = columns_and_params(self.table, record)?;
        let present = vec![true; columns.len()];
        let sql = insert_sql(self.table, &columns, [present.as_slice()].into_iter());
        let shards = shards_of(self.table.route(&sql, &params)?.target);
        agree(self.table, self.key.as_deref(), shards)?;
        let Some(shard) = shards.single() else { return Err(nowhere()) };
        if self.placed.len() < MOST_NAMED {
            self.placed.push(shard);
        }
        let of_shard = self.shards.entry(shard).or_default();
        of_shard.values += params.len();
        of_shard.bytes += params.iter().flatten().map(String::len).sum::<usize>();
        of_shard.waiting.push(Row { columns, params });
        self.only_one_shard()
    }

    fn only_one_shard(&self) -> Result<(), HttpError> {
        if self.shards.len() <= 1 || self.call.http()?.bulk_per_shard {
            return Ok(());
        }
        let name = |(i, shard): (usize, &ShardId)| format!("record {i}: {}", self.table.shard_name(*shard));
        let mut where_to: Vec<_> = self.placed.iter().enumerate().map(name).collect();
        if self.count >= MOST_NAMED as u64 {
            where_to.push("…".to_owned());
            let last = self.shards.keys().map(|shard| self.table.shard_name(*shard)).collect::<Vec<_>>();
            where_to.push(format!("record {}: another of {}", self.count, last.join(", ")));
        }
        let message = "the records belong to several shards";
        let hint = "Send one request per shard, or set http.bulk_per_shard = true: then each shard commits by itself.";
        Err(HttpError::new(SqlState::FEATURE_NOT_SUPPORTED, message).detail(where_to.join(", ")).hint(hint))
    }

    /// Sends a batch that is full; its shard's transaction stays open.
    pub(super) async fn send_if_full(&mut self, deadline: Instant) -> Result<(), HttpError> {
        let full = self.shards.iter().find(|(_, of)| of.is_full()).map(|(shard, _)| *shard);
        let Some(of_shard) = full.and_then(|shard| self.shards.get_mut(&shard)) else { return Ok(()) };
        if of_shard.session.is_none() {
            let mut session = self.call.session_by(deadline).await?;
            session.command("BEGIN", deadline).await?;
            of_shard.session = Some(session);
        }
        send(self.table, of_shard, deadline).await
    }

    /// Sends what waits and commits.
    ///
    /// # Errors
    /// The first error. If other shards have committed by then, its detail says which.
    pub(super) async fn finish(mut self) -> Result<Vec<ShardRows>, HttpError> {
        let mut done: Vec<ShardRows> = Vec::new();
        let mut rest: Vec<_> = std::mem::take(&mut self.shards).into_iter().collect();
        rest.reverse();
        while let Some((shard, of_shard)) = rest.pop() {
            let name = self.table.shard_name(shard).to_owned();
            match self.commit(of_shard).await {
                Ok(rows) => done.push(ShardRows { shard: name, rows }),
                Err(error) => {
                    let undone = rest.iter().rev().map(|(shard, _)| self.table.shard_name(*shard));
                    return Err(partly(error, &name, &done, undone));
                }
            }
        }
        Ok(done)
    }

    /// All of one shard, in one statement if that is enough.
    async fn commit(&self, mut of_shard: OfShard<'t>) -> Result<u64, HttpError> {
        let timeout = self.call.http()?.timeout;
        let deadline = || self.deadline.unwrap_or_else(|| Instant::now() + timeout);
        if of_shard.session.is_none() {
            let mut session = self.call.session_by(deadline()).await?;
            let alone = of_shard.is_one_statement();
            if !alone {
                session.command("BEGIN", deadline()).await?;
            }
            of_shard.session = Some(session);
            if alone {
                send(self.table, &mut of_shard, deadline()).await?;
                return Ok(of_shard.sent);
            }
        }
        while !of_shard.waiting.is_empty() {
            send(self.table, &mut of_shard, deadline()).await?;
        }
        if let Some(session) = &mut of_shard.session {
            session.command("COMMIT", deadline()).await?;
        }
        Ok(of_shard.sent)
    }
}

/// One statement of the rows that wait, as many as go into one.
async fn send(table: &Table<'_>, of_shard: &mut OfShard<'_>, deadline: Instant) -> Result<(), HttpError> {
    let Some(session) = &mut of_shard.session else { return Ok(()) };
    let mut columns: Vec<&Column> = Vec::new();
    let (mut rows, mut values, mut bytes) = (0, 0, 0);
    for row in &of_shard.waiting {
        values += row.params.len();
        bytes += row.params.iter().flatten().map(String::len).sum::<usize>();
        if rows > 0 && (rows >= MOST_ROWS || values > MOST_VALUES || bytes > MOST_BYTES) {
            break;
        }
        rows += 1;
        for column in &row.columns {
            if !columns.iter().any(|known| known.name == column.name) {
                columns.push(column);
            }
        }
    }
    let taken: Vec<Row<'_>> = of_shard.waiting.drain(..rows).collect();
    (of_shard.values, of_shard.bytes) = (0, 0);
    for row in &of_shard.waiting {
        of_shard.values += row.params.len();
        of_shard.bytes += row.params.iter().flatten().map(String::len).sum::<usize>();
    }
    if columns.is_empty() {
        // DEFAULT VALUES is of one row.
        for _ in &taken {
            of_shard.sent += run(session, &insert_sql(table, &[], std::iter::empty()), &[], deadline).await?;
        }
        return Ok(());
    }
    let mut params = Vec::new();
    let mut present = Vec::with_capacity(taken.len());
    for Row { columns: own, params: mut values } in taken {
        let mut mask = Vec::with_capacity(columns.len());
        for column in &columns {
            let at = own.iter().position(|c| c.name == column.name);
            mask.push(at.is_some());
            if let Some(value) = at.and_then(|at| values.get_mut(at)) {
                params.push(value.take());
            }
        }
        present.push(mask);
    }
    let sql = insert_sql(table, &columns, present.iter().map(Vec::as_slice));
    of_shard.sent += run(session, &sql, &params, deadline).await?;
    Ok(())
}

/// Runs an INSERT; how many rows it stored.
async fn run(session: &mut Lent, sql: &str, params: &[Param], deadline: Instant) -> Result<u64, HttpError> {
    session.start(sql, params, deadline).await?;
    loop {
        if let Err(rows) = session.row().await? {
            return Ok(rows);
        }
    }
}

fn nowhere() -> HttpError {
    HttpError::new(SqlState::FEATURE_NOT_SUPPORTED, "the row belongs to no one shard")
        .hint("Give the sharding key's value.")
}

fn partly<'n>(
    error: HttpError,
    failed: &str,
    done: &[ShardRows],
    undone: impl Iterator<Item = &'n str>,
) -> HttpError {
    if done.is_empty() {
        return error;
    }
    let committed: Vec<_> = done.iter().map(|d| format!("{} ({} rows)", d.shard, d.rows)).collect();
    let unknown = error.is_unknown_outcome();
    let mut none: Vec<&str> = undone.collect();
    if !unknown {
        none.insert(0, failed);
    }
    let mut detail = format!("Committed on {}.", committed.join(", "));
    if !none.is_empty() {
        detail.push_str(&format!(" Nothing is stored on {}.", none.join(", ")));
    }
    if unknown {
        detail.push_str(&format!(" Whether {failed} has committed is not known."));
    }
    error.detail(detail)
}
