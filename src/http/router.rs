//! All endpoints, in groups of equal rights, and what goes round them: who may, how long, what is not there.
//! Must not know what an endpoint does.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use tokio::time::timeout;
use utoipa_axum::router::OpenApiRouter;

use super::app::App;
use super::auth::Caller;
use super::error::{HttpError, Uncounted};
use super::{analytics, auth, dashboard, data, health, metrics, openapi};
use crate::session::Proxy;
use crate::stats::ErrorEvent;
use crate::wire::SqlState;

/// Where no `[http]` says another.
const TIMEOUT: Duration = Duration::from_secs(30);
/// A statement that is cancelled at the end of the timeout has so long to say how it ended, and that is then said.
const GRACE: Duration = Duration::from_secs(8);

/// Anybody may ask these.
fn open() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(health::open_routes()).merge(openapi::routes())
}

/// Users of the proxy may ask these.
fn user() -> OpenApiRouter<App> {
    let figures = analytics::routes().merge(metrics::routes());
    OpenApiRouter::new().merge(health::routes()).merge(data::routes()).merge(figures)
}

/// Users of the proxy may ask these, and the answer may take as long as it takes: they have ends of their own.
fn streamed() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(data::streamed_routes())
}

/// Users with `admin = true` may ask these.
fn admin() -> OpenApiRouter<App> {
    OpenApiRouter::new().merge(dashboard::routes()).merge(analytics::admin_routes())
}

/// The whole server, ready for requests.
pub(super) fn build(proxy: Arc<Proxy>) -> Router {
    // The layers of the groups need the state, and the state the description: so they are described once before.
    let described = OpenApiRouter::with_openapi(openapi::document());
    let all = described.merge(open()).merge(user()).merge(streamed()).merge(admin());
    let (_, document) = all.split_for_parts();
    let app = App::new(proxy, document.to_pretty_json().unwrap_or_default());
    let users = || from_fn_with_state(app.clone(), auth::require_user);
    let admins = from_fn_with_state(app.clone(), auth::require_admin);
    let counts = || from_fn_with_state(app.clone(), counted);
    let user = user().layer(counts()).layer(users());
    let timely = open().merge(user).merge(admin().layer(counts()).layer(admins));
    let timely = timely.layer(from_fn_with_state(app.clone(), in_time));
    let (router, _) = timely.merge(streamed().layer(counts()).layer(users())).split_for_parts();
    router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::disable()) // `body` has the configuration's own
        .layer(from_fn(guarded))
        .with_state(app)
}

async fn not_found(request: Request) -> HttpError {
    let message = format!("there is nothing at {}", request.uri().path());
    let error = HttpError::with_status(StatusCode::NOT_FOUND, SqlState::UNDEFINED_OBJECT, message);
    error.hint("GET /api/openapi.json lists what there is.")
}

async fn wrong_method(request: Request) -> HttpError {
    let message = format!("{} does not take {}", request.uri().path(), request.method());
    HttpError::with_status(StatusCode::METHOD_NOT_ALLOWED, SqlState::FEATURE_NOT_SUPPORTED, message)
}

/// Ends a request that has no answer in time. What is streamed after the head of an answer is not bound by it.
async fn in_time(State(app): State<App>, request: Request, next: Next) -> Result<Response, HttpError> {
    let limit = app.settings().http().map_or(TIMEOUT, |http| http.timeout);
    timeout(limit + GRACE, next.run(request)).await.map_err(|_| {
        let message = format!("no answer within {} ms", limit.as_millis());
        HttpError::new(SqlState::QUERY_CANCELED, message).hint("The limit is http.timeout_ms.")
    })
}

/// What is refused here, before or beside any session, is in the statistics as what sessions refuse is.
async fn counted(State(app): State<App>, request: Request, next: Next) -> Response {
    let user = request.extensions().get::<Caller>().map(|caller| caller.0.name.clone());
    let mut response = next.run(request).await;
    if let Some(Uncounted { sqlstate, message }) = response.extensions_mut().remove::<Uncounted>() {
        let settings = app.settings();
        app.proxy().stats().error(ErrorEvent {
            sqlstate,
            message,
            blame: if response.status().is_client_error() { "client" } else { "proxy" },
            database: settings.http().map(|http| http.database.clone()).unwrap_or_default(),
            user: user.unwrap_or_default(),
            shard: None,
            server: None,
            statement: None,
        });
    }
    response
}

/// Headers that keep browsers from guessing and from showing this inside of other pages.
async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
