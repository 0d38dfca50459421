//! `GET /api/read`: rows of one table, filtered, from a replica; as one JSON value or streamed a line a row.
//! Must not know how rows are typed, nor other statements.

use std::borrow::Cow;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::super::app::App;
use super::super::auth::Caller;
use super::super::error::{DataRefusals, HttpError, Refusals};
use super::super::link::Param;
use super::json_out::put_string;
use super::rows::Rows;
use super::table::{Table, shards_of};
use super::{Call, filters, shard_key, table};
use crate::route::{self, RouteError, Target};
use crate::shard::{ShardId, ShardSet};
use crate::wire::SqlState;

/// The longest answer that is not streamed, bytes.
const LONGEST: usize = 64 << 20;
/// Rows are sent on when so many bytes of them are there.
const CHUNK: usize = 16 << 10;

/// Rows of a table.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only described: rows are written without being held")]
struct Found {
    rows: Vec<super::AnyRow>,
    /// How many rows these are.
    count: u64,
    /// The shards that were asked; none if any shard could tell.
    shards: Vec<String>,
}

/// Reads rows of one table, from a replica. Any other parameter is a column with a filter: `amount=gte.10`,
/// `status=in.(a,b)`, `email=not.is.null`.
#[utoipa::path(get, path = "/api/read", tag = "data", security(("basic" = []), ("bearer" = []), ()),
    params(
        ("table" = String, Query, description = "The table, as the catalog spells it.", example = "users"),
        ("limit" = Option<u64>, Query, description = "The most rows; up to http.max_rows unless streamed."),
        ("offset" = Option<u64>, Query, description = "Rows to leave out at the start; needs an order to mean much."),
        ("orderBy" = Option<String>, Query, description = "Columns or arithmetic with ASC, DESC, NULLS FIRST or LAST.",
            example = "created_at desc"),
        ("where" = Option<String>, Query, description = "A condition on the table's columns.",
            example = "id > 10 and name like 'A%'"),
        ("shardKey" = Option<String>, Query, description = "A key of the shard to be read, if no filter fixes it."),
        ("x-shard-key" = Option<String>, Header, description = "The same; comes before shardKey."),
    ),
    responses(
        (status = 200, description = "The rows; with Accept: application/x-ndjson a row a line.", content(
            (Found = "application/json"), (super::AnyRow = "application/x-ndjson"))),
        Refusals, DataRefusals))]
pub(super) async fn read(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, HttpError> {
    let call = Call::new(app, caller)?;
    let query = query.unwrap_or_default();
    let asked = Asked::parse(&query)?;
    let http = call.http()?;
    let streamed = accepts_lines(&headers);
    if let Some(limit) = asked.limit.filter(|limit| !streamed && *limit > http.max_rows as u64) {
        let message = format!("limit {limit} is above {} rows", http.max_rows);
        let error = HttpError::new(SqlState::INVALID_PARAMETER_VALUE, message);
        return Err(
            error.hint("The limit is http.max_rows; Accept: application/x-ndjson streams any number.")
        );
    }
    let router = call.router(&asked.table).await?;
    let table = table(&router, &asked.table)?;
    let select = asked.select(&table)?;
    let key = shard_key(&headers, [asked.shard_key.as_deref(), None])?;
    let most = (!streamed).then_some(http.max_rows as u64 + 1);
    let plan = plan(&table, &select, key.as_deref(), &asked, most)?;
    let session = call.session().await?;
    let deadline = (!streamed).then_some(call.deadline);
    let rows =
        Rows::start(session, plan.statements, select.params, plan.limit, deadline, http.timeout).await?;
    if streamed {
        return Ok(stream(rows, http.timeout));
    }
    whole(rows, http.max_rows, &table.shard_names(plan.shards)).await
}

fn accepts_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|part| {
        part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-ndjson")
    })
}

/// The query string, taken apart.
#[derive(Default)]
struct Asked<'q> {
    table: Cow<'q, str>,
    limit: Option<u64>,
    offset: Option<u64>,
    order: Option<Cow<'q, str>>,
    condition: Option<Cow<'q, str>>,
    shard_key: Option<Cow<'q, str>>,
    filters: Vec<(Cow<'q, str>, Cow<'q, str>)>,
}

/// The statement up to its order, and its values.
struct Select {
    sql: String,
    order: String,
    params: Vec<Param>,
}

impl<'q> Asked<'q> {
    fn parse(query: &'q str) -> Result<Self, HttpError> {
        let mut asked = Self::default();
        let mut table = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let number = |value: &str| {
                let digits = value.bytes().all(|b| b.is_ascii_digit());
                value.parse::<u64>().ok().filter(|n| digits && i64::try_from(*n).is_ok()).ok_or_else(|| {
                    let message = format!("\"{value}\" is no number of rows");
                    HttpError::new(SqlState::INVALID_PARAMETER_VALUE, format!("{name}: {message}"))
                })
            };
            let twice = match name.as_ref() {
                "table" => table.replace(value).is_some(),
                "limit" => asked.limit.replace(number(&value)?).is_some(),
                "offset" => asked.offset.replace(number(&value)?).is_some(),
                "orderBy" => asked.order.replace(value).is_some(),
                "where" => asked.condition.replace(value).is_some(),
                "shardKey" => asked.shard_key.replace(value).is_some(),
                _ => {
                    asked.filters.push((name, value));
                    continue;
                }
            };
            if twice {
                let message = format!("{name} is there twice");
                return Err(HttpError::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
        }
        asked.table = table.ok_or_else(|| {
            HttpError::new(SqlState::INVALID_PARAMETER_VALUE, "the query names no table")
                .hint("For example /api/read?table=users&limit=10")
        })?;
        Ok(asked)
    }

    fn select(&self, table: &Table<'_>) -> Result<Select, HttpError> {
        let (mut conditions, mut params) = (Vec::new(), Vec::new());
        for (name, filter) in &self.filters {
            let fragment = filters::condition(table.column(name)?, filter, params.len() + 1)?;
            conditions.push(fragment.sql);
            params.extend(fragment.params);
        }
        if let Some(text) = &self.condition {
            let fragment = route::condition(text, table.relation, params.len() + 1);
            let fragment = fragment.map_err(|e| HttpError::from(e).about("where"))?;
            conditions.push(fragment.sql);
            params.extend(fragment.params);
        }
        let mut order = String::new();
        if let Some(text) = &self.order {
            let fragment = route::order(text, table.relation, params.len() + 1);
            let fragment = fragment.map_err(|e| HttpError::from(e).about("orderBy"))?;
            order = format!(" ORDER BY {}", fragment.sql);
            params.extend(fragment.params);
        }
        let mut sql = format!("SELECT * FROM {}", table.sql());
        if !conditions.is_empty() {
            sql.push_str(" WHERE ");
            sql.push_str(&conditions.join(" AND "));
        }
        Ok(Select { sql, order, params: params.into_iter().map(Some).collect() })
    }
}

/// What is run.
struct Plan {
    /// One after the other, each with what is left of the limit.
    statements: Vec<String>,
    limit: Option<u64>,
    shards: ShardSet,
}

/// `most`: no more rows are wanted, whether or not there is a limit.
fn plan(
    table: &Table<'_>,
    select: &Select,
    key: Option<&str>,
    asked: &Asked<'_>,
    most: Option<u64>,
) -> Result<Plan, HttpError> {
    let offset = asked.offset.map_or(String::new(), |n| format!(" OFFSET {n}"));
    let whole = format!("{}{}", select.sql, select.order);
    // PostgreSQL takes LIMIT and OFFSET in either order; the limit is added when the statement is run.
    let with_offset = format!("{whole}{offset}");
    let own = table.route(&whole, &select.params);
    if let Some(key) = key
        && let Some(shard) = table.shard_of_key(key)?
    {
        keyed(table, key, shard, &own)?;
        let statements = vec![table.on_shard(shard, &with_offset)?];
        return Ok(Plan { statements, limit: asked.limit.or(most), shards: ShardSet::only(shard) });
    }
    let target = match own {
        Ok(route) => route.target,
        Err(error) => return Err(error.into()),
    };
    let shards = shards_of(target);
    Ok(match (target, asked.limit) {
        // Any rows will do, so each shard is asked for what the others had not, one after the other.
        (Target::Fanout(_), Some(limit)) if select.order.is_empty() && offset.is_empty() => {
            let each = shards.iter().map(|shard| table.on_shard(shard, &whole));
            Plan { statements: each.collect::<Result<_, _>>()?, limit: Some(limit), shards }
        }
        // All rows are wanted, so all shards are asked at once, and whoever counts stops at the cap.
        (Target::Fanout(_), None) => Plan { statements: vec![with_offset], limit: None, shards },
        (_, limit) => Plan { statements: vec![with_offset], limit: limit.or(most), shards },
    })
}

/// A key must not name another shard than the filters do.
fn keyed(
    table: &Table<'_>,
    key: &str,
    shard: ShardId,
    own: &Result<route::Route, RouteError>,
) -> Result<(), HttpError> {
    match own {
        Ok(own) => {
            let shards = shards_of(own.target);
            if own.target == Target::Any || shards.contains(shard) {
                return Ok(());
            }
            Err(table.disagree(key, shard, shards, "what the filters ask for"))
        }
        // Refused for being spread, which the key mends.
        Err(RouteError::Refused { .. }) => Ok(()),
        Err(error) => Err(error.clone().into()),
    }
}

async fn whole(mut rows: Rows, most: usize, shards: &[&str]) -> Result<Response, HttpError> {
    let mut out = b"{\"rows\":[".to_vec();
    let mut count = 0usize;
    loop {
        let before = out.len();
        if count > 0 {
            out.push(b',');
        }
        if !rows.put_next(&mut out).await? {
            out.truncate(before);
            break;
        }
        count += 1;
        if count > most || out.len() > LONGEST {
            let what = if count > most { format!("{most} rows") } else { format!("{LONGEST} bytes") };
            let error =
                HttpError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("the answer has more than {what}"));
            return Err(error.hint("Give a limit, or stream with Accept: application/x-ndjson."));
        }
    }
    out.extend_from_slice(format!("],\"count\":{count},\"shards\":[").as_bytes());
    for (i, shard) in shards.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        put_string(&mut out, shard);
    }
    out.extend_from_slice(b"]}");
    Ok(([(CONTENT_TYPE, "application/json")], out).into_response())
}

/// Rows as they come. A reader that takes nothing for `pause` is given up, and so is the statement.
fn stream(mut rows: Rows, pause: std::time::Duration) -> Response {
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    tokio::spawn(async move {
        let mut out = Vec::with_capacity(CHUNK + 4096);
        loop {
            let (more, broken) = match rows.put_next(&mut out).await {
                Ok(more) => (more, false),
                Err(error) => {
                    // The head said 200: so the last line says what went wrong, and the body does not end well.
                    out.extend_from_slice(b"{\"error\":");
                    error.put_json(&mut out);
                    out.push(b'}');
                    (false, true)
                }
            };
            if more || broken {
                out.push(b'\n');
            }
            if out.len() >= CHUNK || !more {
                let chunk = Bytes::from(std::mem::replace(&mut out, Vec::with_capacity(CHUNK + 4096)));
                // Nobody reads any more: dropping the rows cancels the statement.
                let Ok(Ok(())) = timeout(pause, sender.send(Ok(chunk))).await else { return };
            }
            if broken {
                let why = std::io::Error::other("the rows broke off");
                let _ = timeout(pause, sender.send(Err(why))).await;
            }
            if !more {
                return;
            }
        }
    });
    let chunks = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(chunks)).into_response()
}
