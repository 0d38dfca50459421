//! `/metrics` for Prometheus.
//! Must not know what is measured, nor what it is called: that is for `stats`.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::{HttpError, Refusals};
use crate::stats::{Format, render};
use crate::wire::SqlState;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Every counter, gauge and histogram, as Prometheus reads them: OpenMetrics where it is asked for.
#[utoipa::path(get, path = "/metrics", tag = "analytics", security(("basic" = []), ("bearer" = []), ()),
    responses((status = 200, description = "Text of metrics.", body = String, content_type = "text/plain"), Refusals))]
async fn metrics(State(app): State<App>, headers: HeaderMap) -> Result<Response, HttpError> {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let open = accepted.contains("application/openmetrics-text");
    let format = if open { Format::OpenMetrics } else { Format::Text };
    let herd = app.proxy().herd("", "");
    let text = render(&herd.stats, herd.surroundings(), format)
        .map_err(|e| HttpError::new(SqlState::INTERNAL_ERROR, e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}
