//! What every room's errors must be able to say to a client.
//! Must not know any particular error.

use super::SqlState;

/// How grave a report is: whether the session goes on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The statement failed, the session goes on.
    Error,
    /// The session ends.
    Fatal,
    /// Advice only, sent as a NoticeResponse.
    Warning,
    /// Advice only, sent as a NoticeResponse.
    Notice,
}

impl Severity {
    /// The word of the `S` and `V` fields.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// Whose fault an error is: decides log level and who has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client asked for something wrong or refused.
    Client,
    /// pgherd itself, or its configuration.
    Proxy,
    /// A PostgreSQL server or the way to it.
    Server,
}

/// Everything an ErrorResponse or NoticeResponse made by pgherd carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReport {
    /// Whether the session goes on.
    pub severity: Severity,
    /// The SQLSTATE.
    pub code: SqlState,
    /// What was wrong, in one line, lower case, without a full stop.
    pub message: String,
    /// More about it, whole sentences.
    pub detail: Option<String>,
    /// What to do instead, whole sentences.
    pub hint: Option<String>,
    /// 1-based character position in the statement's text.
    pub position: Option<u32>,
}

impl ErrorReport {
    /// An ERROR with code and message only.
    #[must_use]
    pub fn error(code: SqlState, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
        }
    }

    /// A FATAL with code and message only.
    #[must_use]
    pub fn fatal(code: SqlState, message: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, ..Self::error(code, message) }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// An error that may reach a client; all others are logged and answered as XX000.
pub trait ClientFacing: std::error::Error {
    /// Its SQLSTATE.
    fn sqlstate(&self) -> SqlState;

    /// What the client can do about it.
    fn hint(&self) -> Option<String> {
        None
    }

    /// More about what was wrong.
    fn detail(&self) -> Option<String> {
        None
    }

    /// Whose fault it is.
    fn blame(&self) -> Blame {
        Blame::Client
    }

    /// The whole report, severity ERROR.
    fn report(&self) -> ErrorReport {
        ErrorReport {
            detail: self.detail(),
            hint: self.hint(),
            ..ErrorReport::error(self.sqlstate(), self.to_string())
        }
    }
}
