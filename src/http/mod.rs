//! The HTTP server: health for load balancers, the data API, what operators look at.
//! Must not know how a statement is routed or carried out: it opens sessions on the proxy as any client does.
//!
//! A file with endpoints has one `routes()`, which `router` merges into the group whose rights fit. Each endpoint says
//! with `#[utoipa::path]` what it takes and gives; from this `/api/openapi.json` is made.

mod analytics; // what happened, as JSON
mod app; // what every endpoint shares
mod auth; // who sends a request, and what he may
mod body; // what a request carries
mod dashboard; // what an operator sees in a browser
mod data; // rows: write, read, bulk-write
mod error; // what a failed request is answered with
mod health; // liveness, readiness, the state of every server
mod link; // sessions on the proxy
mod metrics; // what happened, as Prometheus reads it
mod moment; // times as JSON has them
mod openapi; // the description of it all
mod router; // all endpoints, in groups of equal rights
mod server; // from a listening socket to requests

pub use self::server::serve;
