//! One thing that `check` found.
//! Must not know how it was found.

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Severity {
    /// The proxy cannot work as the configuration says.
    Error,
    /// It can, but someone should know.
    Warning,
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Where, what, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Finding {
    pub(in super::super) severity: Severity,
    /// Names in the configuration, e.g. `database app, shard1, 127.0.0.1:5433`.
    pub(in super::super) place: String,
    pub(in super::super) what: String,
    pub(in super::super) remedy: String,
}

impl Finding {
    pub(super) fn error(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Error, place: place.into(), what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn warning(
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(place, what, remedy) }
    }
}
