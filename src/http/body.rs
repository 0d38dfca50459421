//! What a request carries: its body within the cap, its content type, JSON read or refused in words.
//! Must not know any endpoint.

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use super::error::HttpError;
use crate::wire::SqlState;

/// The forms of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `application/json`.
    Json,
    /// `application/x-ndjson`: a JSON value a line.
    Lines,
}

/// The form that the content type names.
///
/// # Errors
/// 415 for any other: what a browser sends without asking first must not be taken for an order.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, HttpError> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Form::Json),
        "application/x-ndjson" => Ok(Form::Lines),
        _ => Err(unsupported("the body must be JSON").hint("Send Content-Type: application/json.")),
    }
}

/// 415.
pub(super) fn unsupported(message: &str) -> HttpError {
    HttpError::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, SqlState::FEATURE_NOT_SUPPORTED, message)
}

/// 413.
pub(super) fn too_long(what: &str, most: usize) -> HttpError {
    HttpError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, format!("{what} is longer than {most} bytes"))
        .hint("The limit is http.max_body_bytes.")
}

/// 400 for a text that is not the JSON it should be.
pub(super) fn not_json(error: &serde_json::Error) -> HttpError {
    HttpError::new(SqlState::INVALID_TEXT_REPRESENTATION, format!("the body is not understood: {error}"))
}

/// The whole body, if it is not longer than `most` bytes.
///
/// # Errors
/// 413, 400 if it breaks off, 504 if it is not there in time.
pub(super) async fn whole(body: Body, most: usize, deadline: Instant) -> Result<Bytes, HttpError> {
    match timeout_at(deadline, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long("the body", most)),
        Ok(Err(error)) => Err(broken_off(&*error)),
        Err(_) => Err(late()),
    }
}

/// 504 for a body that does not come.
pub(super) fn late() -> HttpError {
    let error = HttpError::new(SqlState::QUERY_CANCELED, "the body did not come in time; nothing was done");
    error.hint("The limit is http.timeout_ms.")
}

/// 400 for a body that was never sent to its end.
pub(super) fn broken_off(error: &dyn std::fmt::Display) -> HttpError {
    HttpError::new(SqlState::PROTOCOL_VIOLATION, format!("the body broke off: {error}"))
}
