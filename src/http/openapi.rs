//! `/api/openapi.json`: what every endpoint takes and gives, made from what stands beside each of them.
//! Must not know any endpoint.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::app::App;
use super::error::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    info(title = "pgherd", description = "Data, state and figures of a herd of PostgreSQL servers behind pgherd."),
    components(schemas(ErrorBody)),
    tags(
        (name = "health", description = "Whether the proxy and its servers are well."),
        (name = "data", description = "Rows, by the same routes and pools as the wire protocol."),
        (name = "analytics", description = "What happened.")
    )
)]
struct Document;

/// The document without any endpoint.
pub(super) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    let components = document.components.get_or_insert_default();
    for (name, scheme) in [("basic", HttpAuthScheme::Basic), ("bearer", HttpAuthScheme::Bearer)] {
        let scheme = SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build());
        components.add_security_scheme(name, scheme);
    }
    document
}

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(openapi))
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value)))]
async fn openapi(State(app): State<App>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], app.openapi().to_owned())
}
