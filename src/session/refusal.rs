//! Why a client was not let in: what it is told, and what the log says.
//! Must not know sockets.

use crate::wire::{ErrorReport, SqlState, WireError};

/// A client that was turned away. The report, if there is one, has been sent and the connection closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What the client was told; `None` where nobody there would understand it.
    pub report: Option<ErrorReport>,
    /// The reason for the log: may say more than the client may know, never a password.
    pub why: String,
}

impl Refusal {
    /// Told to the client, and logged as it was told.
    pub(super) fn told(report: ErrorReport) -> Self {
        let why = match &report.detail {
            Some(detail) => format!("{}: {detail}", report.message),
            None => report.message.clone(),
        };
        Self { report: Some(report), why }
    }

    /// A FATAL with code and message.
    pub(super) fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self::told(ErrorReport::fatal(code, message))
    }

    /// Logged only.
    pub(super) fn silent(why: impl Into<String>) -> Self {
        Self { report: None, why: why.into() }
    }

    /// The same, with another reason for the log.
    pub(super) fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::fatal(SqlState::PROTOCOL_VIOLATION, error.to_string())
    }
}
