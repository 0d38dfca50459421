//! `POST /api/write`: one row, inserted on the shard of its key, and given back as it is stored.
//! Must not know other statements.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::app::App;
use super::super::auth::Caller;
use super::super::body;
use super::super::error::{DataRefusals, HttpError, Refusals};
use super::super::link::Param;
use super::json_in::{Record, param};
use super::json_out::{OutColumn, put_row, put_string};
use super::table::{Table, insert_sql, shards_of};
use super::{Call, KeyQuery, shard_key, table};
use crate::catalog::Column;
use crate::shard::ShardSet;
use crate::wire::SqlState;

/// A row to be stored.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WriteRequest<'r> {
    /// The table, as the catalog spells it.
    table: String,
    /// Columns and values. Columns that are left out get their defaults.
    #[serde(borrow)]
    #[schema(value_type = super::AnyRow)]
    data: Record<'r>,
    /// The shard key, if neither the header nor the query has it.
    #[serde(default)]
    shard_key: Option<String>,
}

/// A stored row.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only described: a row is written without being held")]
struct Written {
    row: super::AnyRow,
    /// The shard it is stored on.
    shard: String,
}

/// Stores one row. A write of a sharded table must hold its key; a shard key that is sent as well must agree with it.
#[utoipa::path(post, path = "/api/write", tag = "data", security(("basic" = []), ("bearer" = []), ()),
    params(KeyQuery, ("x-shard-key" = Option<String>, Header, description = "A key of the row's shard.")),
    request_body(content = WriteRequest, content_type = "application/json"),
    responses((status = 201, description = "The row as it is stored.", body = Written), Refusals, DataRefusals))]
pub(super) async fn write(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    query: KeyQuery,
    body: Body,
) -> Result<Response, HttpError> {
    let call = Call::new(app, caller)?;
    if body::form(&headers)? != body::Form::Json {
        return Err(body::unsupported("one row is one JSON value").hint("Send lines to /api/bulk-write."));
    }
    let bytes = body::whole(body, call.http()?.max_body, call.deadline).await?;
    let request: WriteRequest<'_> = serde_json::from_slice(&bytes).map_err(|e| body::not_json(&e))?;
    let router = call.router(&request.table).await?;
    let table = table(&router, &request.table)?;
    let (columns, params) = columns_and_params(&table, &request.data)?;
    let present = vec![true; columns.len()];
    let sql = format!("{} RETURNING *", insert_sql(&table, &columns, [present.as_slice()].into_iter()));
    let key = shard_key(&headers, [query.shard_key.as_deref(), request.shard_key.as_deref()])?;
    let shards = shards_of(table.route(&sql, &params)?.target);
    agree(&table, key.as_deref(), shards)?;

    let mut session = call.session().await?;
    let fields = session.start(&sql, &params, call.deadline).await?;
    let mut out = b"{\"row\":".to_vec();
    let mut stored = false;
    while let Ok(row) = session.row().await? {
        stored = put_row(&mut out, &OutColumn::all(&fields), &row).is_some();
    }
    if !stored {
        // A trigger or a rule can see to that.
        let message = format!("no row was stored in table \"{}\", and no error said why", table.name);
        return Err(HttpError::new(SqlState::TRIGGERED_ACTION_EXCEPTION, message));
    }
    out.extend_from_slice(b",\"shard\":");
    put_string(&mut out, &table.shard_names(shards).join(", "));
    out.push(b'}');
    Ok((StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], out).into_response())
}

/// A record's columns and their values.
pub(super) fn columns_and_params<'t>(
    table: &Table<'t>,
    record: &Record<'_>,
) -> Result<(Vec<&'t Column>, Vec<Param>), HttpError> {
    let mut columns = Vec::with_capacity(record.0.len());
    let mut params = Vec::with_capacity(record.0.len());
    for (name, value) in &record.0 {
        let column = table.column(name)?;
        params.push(param(value, column)?);
        columns.push(column);
    }
    Ok((columns, params))
}

/// A key that is sent beside a row must belong to the row's shard.
pub(super) fn agree(table: &Table<'_>, key: Option<&str>, shards: ShardSet) -> Result<(), HttpError> {
    let Some(key) = key else { return Ok(()) };
    match table.shard_of_key(key)? {
        Some(by_key) if !shards.contains(by_key) => Err(table.disagree(key, by_key, shards, "the row")),
        Some(_) | None => Ok(()),
    }
}
