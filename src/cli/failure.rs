//! What a command ends with when it ends badly: one readable line, and what to do about it.
//! Must not know which command.

use std::fmt;

use crate::config::ConfigErrors;
use crate::local::LocalError;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    message: String,
    remedy: Option<String>,
}

impl Failure {
    /// A message in one line, lower case.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None }
    }

    /// The same with what to do about it.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The same with what was being done when it happened.
    pub(super) fn during(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// For `map_err` of a statement's error.
    pub(super) fn sql(what: impl fmt::Display) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |e| Self::from(e).during(what)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n  what to do: {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(match errors.0.as_slice() {
            [only] => only.to_string(),
            _ => format!("the configuration is wrong:\n{errors}"),
        })
    }
}

impl From<LocalError> for Failure {
    fn from(error: LocalError) -> Self {
        Self { message: error.to_string(), remedy: error.remedy() }
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let hint = error.as_db_error().and_then(|db| db.hint()).map(str::to_owned);
        Self { message: describe(&error), remedy: hint }
    }
}

/// An error of a server with its SQLSTATE, or of the connection with its cause.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_its_remedy() {
        let failure = Failure::new("port 1 is in use").remedy("choose another").during("starting");
        assert_eq!(failure.to_string(), "error: starting: port 1 is in use\n  what to do: choose another");
        assert_eq!(Failure::new("no").to_string(), "error: no");
    }
}
