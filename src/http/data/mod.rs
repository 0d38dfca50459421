//! Rows over HTTP: write, read, bulk-write, on the same routes, pools and figures as the wire protocol.
//! Must not know how a statement is carried out: it is sent to the proxy as a client's would be.

mod array; // PostgreSQL's arrays as text
mod batch; // many rows in few statements
mod bulk; // POST /api/bulk-write
mod filters; // column filters: `amount=gte.10`
mod json_in; // JSON values as parameters
mod json_out; // rows as JSON
mod read; // GET /api/read
mod rows; // statements to JSON rows, one by one
mod table; // the table, its shards, its key
mod write; // POST /api/write

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::table::Table;
use super::app::{App, Settings};
use super::auth::Caller;
use super::error::HttpError;
use super::link::Lent;
use crate::config::Http;
use crate::route::Router;
use crate::wire::SqlState;

/// The header that carries a shard key.
const KEY_HEADER: &str = "x-shard-key";

/// What users may ask, answered within the timeout.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(write::write)).routes(routes!(read::read))
}

/// A row: its columns and their values. int8 and numeric are JSON numbers to their last digit; NaN and infinities,
/// times (ISO 8601), bytea (`\x…`) and types that JSON has nothing for are strings; json, jsonb and arrays are as they are.
#[derive(ToSchema)]
struct AnyRow(#[expect(dead_code, reason = "only described")] BTreeMap<String, serde_json::Value>);

/// The query string of a write.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct KeyQuery {
    /// The shard key, if the header does not have it.
    #[param(rename = "shardKey")]
    shard_key: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for KeyQuery {
    type Rejection = HttpError;

    /// A misspelt name would be a key that nobody looked at.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        let mut shard_key = None;
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if name != "shardKey" || shard_key.replace(value.into_owned()).is_some() {
                return Err(unknown_parameter(&name));
            }
        }
        Ok(Self { shard_key })
    }
}

/// The query string of a bulk write.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct BulkQuery {
    /// The table, for a body of lines.
    table: Option<String>,
    /// The shard key of all rows, if the header does not have it.
    #[param(rename = "shardKey")]
    shard_key: Option<String>,
}

impl<S: Sync> FromRequestParts<S> for BulkQuery {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        let mut query = Self { table: None, shard_key: None };
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            let slot = match name.as_ref() {
                "table" => &mut query.table,
                "shardKey" => &mut query.shard_key,
                _ => return Err(unknown_parameter(&name)),
            };
            if slot.replace(value.into_owned()).is_some() {
                return Err(unknown_parameter(&name));
            }
        }
        Ok(query)
    }
}

fn unknown_parameter(name: &str) -> HttpError {
    let message = format!("query parameter \"{name}\" is not known, or there twice");
    HttpError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// What users may ask that may take longer than the timeout, as long as it goes on.
pub(super) fn streamed_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(bulk::bulk_write))
}

/// One request on data: who, under which settings, until when.
struct Call {
    app: App,
    caller: Caller,
    settings: Settings,
    deadline: Instant,
}

impl Call {
    fn new(app: App, caller: Caller) -> Result<Self, HttpError> {
        let settings = app.settings();
        let timeout = settings.http().ok_or_else(off)?.timeout;
        Ok(Self { app, caller, settings, deadline: Instant::now() + timeout })
    }

    fn http(&self) -> Result<&Http, HttpError> {
        self.settings.http().ok_or_else(off)
    }

    /// The router in force. If `table` is not in its catalog, the catalogs are read again: it may be new.
    async fn router(&self, table: &str) -> Result<Arc<Router>, HttpError> {
        let database = &self.http()?.database;
        let router = self.app.proxy().router(database, false).await?;
        if Table::find(&router, table).is_some() {
            return Ok(router);
        }
        Ok(self.app.proxy().router(database, true).await?)
    }

    /// A session to work with.
    async fn session(&self) -> Result<Lent, HttpError> {
        self.session_by(self.deadline).await
    }

    /// The same with another end of the wait.
    async fn session_by(&self, deadline: Instant) -> Result<Lent, HttpError> {
        let http = self.http()?;
        self.app.links().lend(&self.caller.0, &http.database, http.max_sessions, deadline).await
    }
}

fn off() -> HttpError {
    HttpError::new(SqlState::CANNOT_CONNECT_NOW, "the HTTP server is being switched off")
}

fn table<'r>(router: &'r Router, name: &str) -> Result<Table<'r>, HttpError> {
    Table::find(router, name).ok_or_else(|| {
        HttpError::new(SqlState::UNDEFINED_TABLE, format!("table \"{name}\" does not exist"))
            .hint("Write it as the catalog does, without quotes: users, or schema.users.")
    })
}

/// The key a request carries: in the header, else in the query, else in the body.
fn shard_key(headers: &HeaderMap, others: [Option<&str>; 2]) -> Result<Option<String>, HttpError> {
    let bad = |what: &str| HttpError::new(SqlState::INVALID_PARAMETER_VALUE, format!("the shard key {what}"));
    let key = match headers.get(KEY_HEADER) {
        Some(value) => Some(std::str::from_utf8(value.as_bytes()).map_err(|_| bad("is not UTF-8"))?),
        None => others.into_iter().flatten().next(),
    };
    match key {
        Some(key) if key.contains('\0') => Err(bad("holds a zero byte, as no text of PostgreSQL does")),
        key => Ok(key.map(str::to_owned)),
    }
}
