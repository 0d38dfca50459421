//! What a failed request is answered with: a SQLSTATE, words for people, and the HTTP status that fits.
//! Must not know any endpoint.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::wire::{ErrorFields, ErrorReport, ErrorSubject, SqlState};

/// Why a request failed. Boxed: most do not.
#[derive(Debug, Clone)]
pub(super) struct HttpError(Box<ErrorBody>, Known);

/// Whether an error is in the statistics already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// A session has answered so, and counted it.
    Yes,
    /// It was found out here.
    No,
}

/// On an answer: the error in it is not in the statistics yet.
#[derive(Debug, Clone)]
pub(super) struct Uncounted {
    /// Its SQLSTATE.
    pub(super) sqlstate: String,
    /// Its message.
    pub(super) message: String,
}

/// Why a request failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Error)]
pub(super) struct ErrorBody {
    /// The HTTP status, once more for those who only keep the body.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// PostgreSQL's code for the kind of error, e.g. `23505`.
    #[schema(pattern = "^[0-9A-Z]{5}$")]
    sqlstate: String,
    /// What was wrong, in one line.
    message: String,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
    /// What to do instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    hint: Option<String>,
    /// The table that an error of a server is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    table: Option<String>,
    /// The column that an error of a server is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    column: Option<String>,
    /// The constraint that was violated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    constraint: Option<String>,
}

impl HttpError {
    /// An error with the status that fits its code.
    pub(super) fn new(code: SqlState, message: impl Into<String>) -> Self {
        Self::with_status(status_of(code), code, message)
    }

    /// An error with another status than its code alone would give.
    pub(super) fn with_status(status: StatusCode, code: SqlState, message: impl Into<String>) -> Self {
        let body = ErrorBody {
            status: status.as_u16(),
            sqlstate: code.as_str().to_owned(),
            message: message.into(),
            detail: None,
            hint: None,
            table: None,
            column: None,
            constraint: None,
        };
        Self(Box::new(body), Known::No)
    }

    /// The same with what to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same with what a server says it is about.
    pub(super) fn subject(mut self, subject: ErrorSubject) -> Self {
        let ErrorSubject { table, column, constraint } = subject;
        (self.0.table, self.0.column, self.0.constraint) = (table, column, constraint);
        self
    }

    /// The same with where it was found in front of its message.
    pub(super) fn about(mut self, what: &str) -> Self {
        self.0.message = format!("{what}: {}", self.0.message);
        self
    }

    /// The same with more about it, in front of what was said already.
    pub(super) fn detail(mut self, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        self.0.detail = Some(match self.0.detail.take() {
            Some(more) => format!("{detail} {more}"),
            None => detail,
        });
        self
    }

    /// Whether nobody knows what came of the statement.
    pub(super) fn is_unknown_outcome(&self) -> bool {
        self.0.sqlstate == SqlState::TRANSACTION_RESOLUTION_UNKNOWN.as_str()
    }

    /// Appends it as JSON.
    pub(super) fn put_json(&self, out: &mut Vec<u8>) {
        // Numbers and strings always have a JSON form, and a vector always has room.
        drop(serde_json::to_writer(out, &*self.0));
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<ErrorReport> for HttpError {
    fn from(report: ErrorReport) -> Self {
        let mut error = Self::new(report.code, report.message);
        (error.0.detail, error.0.hint) = (report.detail, report.hint);
        error
    }
}

impl From<ErrorFields> for HttpError {
    fn from(fields: ErrorFields) -> Self {
        let mut error = Self::new(fields.sqlstate(), fields.message);
        error.1 = Known::Yes;
        (error.0.detail, error.0.hint) = (fields.detail, fields.hint);
        error
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = self.status();
        let uncounted = (self.1 == Known::No)
            .then(|| Uncounted { sqlstate: self.0.sqlstate.clone(), message: self.0.message.clone() });
        let mut response = (status, Json(*self.0)).into_response();
        if let Some(uncounted) = uncounted {
            response.extensions_mut().insert(uncounted);
        }
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"pgherd\", charset=\"UTF-8\"");
            headers.insert(WWW_AUTHENTICATE, basic);
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"pgherd\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The errors of every endpoint that asks who is there, for its description.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, never made")]
pub(super) enum Refusals {
    /// No credentials, or wrong ones.
    #[response(status = 401)]
    Unknown(ErrorBody),
    /// The user may not do this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// A server, a shard or the proxy is not there or too busy; nothing was done, unless the SQLSTATE is 08007: then
    /// nobody knows.
    #[response(status = 503)]
    Unavailable(ErrorBody),
    /// It took too long and was cancelled.
    #[response(status = 504)]
    TooLate(ErrorBody),
}

/// The further error of endpoints that only take a query.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, never made")]
pub(super) enum QueryRefusals {
    /// A parameter that is not described, or a value out of its bounds.
    #[response(status = 400)]
    Wrong(ErrorBody),
}

/// The further errors of every endpoint on data.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described, never made")]
pub(super) enum DataRefusals {
    /// What was sent is wrong: not JSON, a value that its column does not take, a column that does not exist, a
    /// condition with something in it that is not allowed.
    #[response(status = 400)]
    Wrong(ErrorBody),
    /// There is no such table.
    #[response(status = 404)]
    NoTable(ErrorBody),
    /// A constraint is violated, or a shard key is on another shard than the row.
    #[response(status = 409)]
    Conflict(ErrorBody),
    /// More than http.max_body_bytes or http.max_rows.
    #[response(status = 413)]
    TooMuch(ErrorBody),
    /// The body is no JSON.
    #[response(status = 415)]
    OtherMedia(ErrorBody),
    /// It cannot be done exactly over several shards; the hint says what to write instead.
    #[response(status = 422)]
    Refused(ErrorBody),
}

/// The status for an error of a statement.
fn status_of(code: SqlState) -> StatusCode {
    match code.as_str() {
        "08P01" | "54001" | "54011" | "54023" => StatusCode::BAD_REQUEST,
        "0A000" => StatusCode::UNPROCESSABLE_ENTITY,
        "25006" | "25P03" => StatusCode::SERVICE_UNAVAILABLE,
        "42501" => StatusCode::FORBIDDEN,
        "42P01" | "3D000" | "3F000" => StatusCode::NOT_FOUND,
        "54000" => StatusCode::PAYLOAD_TOO_LARGE,
        "57014" => StatusCode::GATEWAY_TIMEOUT,
        _ => match code.class() {
            "20" | "21" | "22" | "26" | "34" | "42" | "54" | "P0" => StatusCode::BAD_REQUEST,
            "09" | "23" | "25" | "27" | "40" | "44" => StatusCode::CONFLICT,
            // 28: the proxy's own account was refused by a server.
            "08" | "28" | "53" | "55" | "57" | "58" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_has_the_status_that_fits() {
        for (code, status) in [
            (SqlState::INVALID_TEXT_REPRESENTATION, 400),
            (SqlState::UNDEFINED_COLUMN, 400),
            (SqlState::PROTOCOL_VIOLATION, 400),
            (SqlState::INSUFFICIENT_PRIVILEGE, 403),
            (SqlState::UNDEFINED_TABLE, 404),
            (SqlState::NOT_NULL_VIOLATION, 409),
            (SqlState::CHECK_VIOLATION, 409),
            (SqlState::PROGRAM_LIMIT_EXCEEDED, 413),
            (SqlState::FEATURE_NOT_SUPPORTED, 422),
            (SqlState::INTERNAL_ERROR, 500),
            (SqlState::CANNOT_CONNECT_NOW, 503),
            (SqlState::TRANSACTION_RESOLUTION_UNKNOWN, 503),
            (SqlState::TOO_MANY_CONNECTIONS, 503),
            (SqlState::ADMIN_SHUTDOWN, 503),
            (SqlState::QUERY_CANCELED, 504),
        ] {
            assert_eq!(status_of(code).as_u16(), status, "{code}");
        }
    }
}
