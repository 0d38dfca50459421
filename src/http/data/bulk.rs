//! `POST /api/bulk-write`: many rows of one table, all or none of them stored.
//! Must not know how rows become statements (`batch`).

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::super::app::App;
use super::super::auth::Caller;
use super::super::body;
use super::super::error::{DataRefusals, HttpError, Refusals};
use super::batch::{Batches, ShardRows};
use super::json_in::Record;
use super::{BulkQuery, Call, shard_key, table};
use crate::wire::SqlState;

/// Rows to be stored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct BulkRequest<'r> {
    /// The table, as the catalog spells it.
    table: String,
    /// The rows: columns and values. Columns that a row leaves out get their defaults.
    #[serde(borrow)]
    #[schema(value_type = Vec<super::AnyRow>)]
    records: Vec<Record<'r>>,
    /// The shard key of all of them, if neither the header nor the query has it.
    #[serde(default)]
    shard_key: Option<String>,
}

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct BulkWritten {
    /// How many rows in all.
    rows: u64,
    /// How many on which shard.
    shards: Vec<ShardRows>,
}

/// Stores many rows of one table, all or none. A body of type application/x-ndjson has a row a line, is streamed, and
/// names its table in the query.
///
/// Rows that belong to several shards are refused (422), unless `http.bulk_per_shard` allows each shard to commit by
/// itself; an error then says in its detail which shards have committed.
#[utoipa::path(post, path = "/api/bulk-write", tag = "data", security(("basic" = []), ("bearer" = []), ()),
    params(BulkQuery, ("x-shard-key" = Option<String>, Header, description = "A key of the rows' shard.")),
    request_body(content((BulkRequest = "application/json"), (super::AnyRow = "application/x-ndjson"))),
    responses((status = 201, description = "All rows are stored.", body = BulkWritten), Refusals, DataRefusals))]
pub(super) async fn bulk_write(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    query: BulkQuery,
    body: Body,
) -> Result<Response, HttpError> {
    let call = Call::new(app, caller)?;
    let shards = match body::form(&headers)? {
        body::Form::Json => json(&call, &headers, &query, body).await?,
        body::Form::Lines => lines(&call, &headers, &query, body).await?,
    };
    let written = BulkWritten { rows: shards.iter().map(|shard| shard.rows).sum(), shards };
    Ok((StatusCode::CREATED, axum::Json(written)).into_response())
}

async fn json(
    call: &Call,
    headers: &HeaderMap,
    query: &BulkQuery,
    body: Body,
) -> Result<Vec<ShardRows>, HttpError> {
    let http = call.http()?;
    let bytes = body::whole(body, http.max_body, call.deadline).await?;
    let request: BulkRequest<'_> = serde_json::from_slice(&bytes).map_err(|e| body::not_json(&e))?;
    if query.table.as_ref().is_some_and(|name| *name != request.table) {
        let message = "the query and the body name different tables";
        return Err(HttpError::new(SqlState::INVALID_PARAMETER_VALUE, message));
    }
    if request.records.len() > http.max_rows {
        let message = format!("{} records are more than {}", request.records.len(), http.max_rows);
        let error = HttpError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message);
        return Err(
            error.hint("The limit is http.max_rows; Content-Type: application/x-ndjson takes any number.")
        );
    }
    let router = call.router(&request.table).await?;
    let table = table(&router, &request.table)?;
    let key = shard_key(headers, [query.shard_key.as_deref(), request.shard_key.as_deref()])?;
    let mut batches = Batches::new(call, &table, key, Some(call.deadline));
    for record in &request.records {
        batches.add(record)?;
    }
    batches.finish().await
}

/// A row a line. What is held at a time is one batch, and a line that is not whole yet.
async fn lines(
    call: &Call,
    headers: &HeaderMap,
    query: &BulkQuery,
    mut body: Body,
) -> Result<Vec<ShardRows>, HttpError> {
    let http = call.http()?;
    let name = query.table.as_deref().ok_or_else(|| {
        let error = HttpError::new(SqlState::INVALID_PARAMETER_VALUE, "the query names no table");
        error.hint("For example /api/bulk-write?table=users")
    })?;
    let router = call.router(name).await?;
    let table = table(&router, name)?;
    let key = shard_key(headers, [query.shard_key.as_deref(), None])?;
    let mut batches = Batches::new(call, &table, key, None);
    let mut held = BytesMut::new();
    let mut number = 0u64;
    loop {
        let frame = match timeout(http.timeout, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(body::broken_off(&error)),
            Ok(None) => break,
            Err(_) => return Err(body::late()),
        };
        let Ok(data) = frame.into_data() else { continue }; // trailers
        held.extend_from_slice(&data);
        while let Some(end) = memchr::memchr(b'\n', &held) {
            let line = held.split_to(end + 1);
            number += 1;
            add_line(&mut batches, &line, number)?;
            batches.send_if_full(Instant::now() + http.timeout).await?;
        }
        if held.len() > http.max_body {
            return Err(body::too_long(&format!("line {}", number + 1), http.max_body));
        }
    }
    add_line(&mut batches, &held, number + 1)?;
    batches.finish().await
}

fn add_line(batches: &mut Batches<'_>, line: &[u8], number: u64) -> Result<(), HttpError> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    let at = |error: HttpError| error.about(&format!("line {number}"));
    let record: Record<'_> = serde_json::from_slice(line).map_err(|e| at(body::not_json(&e)))?;
    batches.add(&record).map_err(at)
}
