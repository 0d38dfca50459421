//! Why a statement, or a connection, failed: in the words of whoever answered.
//! Must not know what was asked.

use std::error::Error;

use serde_json::Value;

/// An error of a server, or of the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    /// SQLSTATE, or empty when the connection broke or the answer had none.
    pub(super) code: String,
    pub(super) message: String,
}

/// Longest message told apart, characters.
const MESSAGE: usize = 160;

impl Failed {
    pub(super) fn new(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: message.chars().take(MESSAGE).collect() }
    }

    /// An error of the connection, with its causes.
    pub(super) fn broken(what: &str, error: &dyn Error) -> Self {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::new("", &text)
    }

    /// An answer of the HTTP API other than success.
    pub(super) fn answered(status: u16, body: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = json.get("error").filter(|e| e.is_object()).unwrap_or(&json);
        let text = |key: &str| error.get(key).and_then(Value::as_str);
        let message = text("message").unwrap_or("no message");
        Self::new(text("sqlstate").unwrap_or_default(), &format!("HTTP {status}: {message}"))
    }
}

impl From<&tokio_postgres::Error> for Failed {
    fn from(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::new(db.code().code(), db.message()),
            None => Self::new("", &super::super::failure::describe(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_sqlstate_and_message_whatever_its_form() {
        for (body, code, message) in [
            (r#"{"error":{"sqlstate":"57P03","message":"down"}}"#, "57P03", "HTTP 503: down"),
            (r#"{"sqlstate":"57P03","message":"down"}"#, "57P03", "HTTP 503: down"),
            ("<html>", "", "HTTP 503: no message"),
        ] {
            let failed = Failed::answered(503, body.as_bytes());
            assert_eq!((failed.code.as_str(), failed.message.as_str()), (code, message), "{body}");
        }
    }
}
