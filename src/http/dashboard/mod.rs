//! What an operator sees in a browser: one page, live by server-sent events, and the same snapshot as JSON.
//! Must not know how figures are recorded.

mod assets; // the page itself
mod feed; // one snapshot a second, for however many viewers
mod herd; // shards and servers, and what ails them
mod snapshot; // all that the page shows
mod traffic; // figures, statements, errors, clients

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::stream;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::feed::Dashboard;
use self::snapshot::Snapshot;
use super::app::App;
use super::error::{HttpError, Refusals};

/// What users with `admin = true` may ask.
pub(super) fn routes() -> OpenApiRouter<App> {
    let mut routes = OpenApiRouter::new().routes(routes!(snapshot)).route("/api/events", get(events));
    for asset in assets::ALL {
        routes = routes.route(asset.path, get(move || async move { asset.answer() }));
    }
    routes
}

/// All that the dashboard shows, as of now.
///
/// The page itself follows `/api/events`: server-sent events, each second one named `snapshot` with this as its data,
/// and at the start one named `config` with the configuration in force.
#[utoipa::path(get, path = "/api/snapshot", tag = "analytics", security(("basic" = []), ("bearer" = []), ()),
    responses((status = 200, body = Snapshot), Refusals))]
async fn snapshot(State(app): State<App>) -> Json<Snapshot> {
    Json(app.dashboard().snapshot())
}

/// The stream that the page follows. It ends with the proxy, and when the configuration changes: who may see it, and
/// what it says of the configuration, is then asked anew.
async fn events(State(app): State<App>) -> Result<impl IntoResponse, HttpError> {
    let viewer = app.dashboard().view()?;
    let events = stream::unfold(viewer, |mut viewer| async move {
        let event = viewer.next().await?;
        Some((Ok::<_, Infallible>(event), viewer))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)))
}
