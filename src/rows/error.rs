//! Why a SELECT over a virtual table cannot be answered, each with the SQLSTATE PostgreSQL would give.
//! Must not know how errors are sent.

/// An error of binding or evaluating.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// No such table (42P01).
    #[error("relation \"{name}\" does not exist")]
    NoTable {
        /// As written.
        name: String,
        /// What to write instead.
        hint: String,
    },
    /// No such column (42703).
    #[error("column \"{name}\" does not exist")]
    NoColumn {
        /// As written.
        name: String,
        /// The columns there are.
        hint: String,
    },
    /// No such function, or none for these types (42883).
    #[error("function {0} does not exist")]
    NoFunction(String),
    /// No such operator for these types (42883).
    #[error("operator does not exist: {0}")]
    NoOperator(String),
    /// Several functions or operators fit (42725).
    #[error("{0} is not unique")]
    NotUnique(String),
    /// Several columns fit (42702).
    #[error("{0} is ambiguous")]
    Ambiguous(String),
    /// A value of another type is needed (42804).
    #[error("{0}")]
    Mismatch(String),
    /// No cast between these types (42846).
    #[error("cannot cast type {from} to {to}")]
    NoCast {
        /// From this type.
        from: &'static str,
        /// To this type.
        to: &'static str,
    },
    /// Aggregates or groups used wrongly (42803).
    #[error("{0}")]
    Grouping(String),
    /// An ORDER BY or GROUP BY that names nothing selected (42P10).
    #[error("{0}")]
    BadReference(String),
    /// Wrong SQL of another kind (42601).
    #[error("{0}")]
    Syntax(String),
    /// A parameter that was not given (42P02).
    #[error("there is no parameter ${0}")]
    NoParameter(usize),
    /// One parameter used as two types (42P08).
    #[error("inconsistent types deduced for parameter ${0}")]
    InconsistentParameter(usize),
    /// Text that is no value of the type (22P02).
    #[error("invalid input syntax for type {kind}: \"{text}\"")]
    BadText {
        /// The type.
        kind: &'static str,
        /// The text.
        text: String,
    },
    /// Bytes that are no value of the type (22P03).
    #[error("incorrect binary data format for type {0}")]
    BadBinary(&'static str),
    /// Bytes that are not UTF-8, or hold a zero byte (22021).
    #[error("invalid byte sequence for encoding \"UTF8\"")]
    BadEncoding,
    /// A number its type cannot hold (22003).
    #[error("{0}")]
    OutOfRange(String),
    /// A date or time that does not exist (22008).
    #[error("date/time field value out of range: \"{0}\"")]
    NoSuchTime(String),
    /// 22012.
    #[error("division by zero")]
    DivisionByZero,
    /// 2201W.
    #[error("LIMIT must not be negative")]
    NegativeLimit,
    /// 2201X.
    #[error("OFFSET must not be negative")]
    NegativeOffset,
    /// 22025.
    #[error("LIKE pattern must not end with escape character")]
    BadEscape,
    /// Nested too deeply or too large (54001).
    #[error("the query is too complex for a virtual table")]
    TooComplex,
    /// Cannot be answered exactly, so not at all (0A000).
    #[error("{what} is not supported in queries on virtual tables")]
    Unsupported {
        /// Names the construct.
        what: String,
        /// What to write instead.
        hint: String,
    },
}

impl RowsError {
    /// A refusal that names the construct.
    #[must_use]
    pub fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), hint: hint.into() }
    }

    /// Its SQLSTATE.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::NoTable { .. } => "42P01",
            Self::NoColumn { .. } => "42703",
            Self::NoFunction(_) | Self::NoOperator(_) => "42883",
            Self::NotUnique(_) => "42725",
            Self::Ambiguous(_) => "42702",
            Self::Mismatch(_) => "42804",
            Self::NoCast { .. } => "42846",
            Self::Grouping(_) => "42803",
            Self::BadReference(_) => "42P10",
            Self::Syntax(_) => "42601",
            Self::NoParameter(_) => "42P02",
            Self::InconsistentParameter(_) => "42P08",
            Self::BadText { .. } => "22P02",
            Self::BadBinary(_) => "22P03",
            Self::BadEncoding => "22021",
            Self::OutOfRange(_) => "22003",
            Self::NoSuchTime(_) => "22008",
            Self::DivisionByZero => "22012",
            Self::NegativeLimit => "2201W",
            Self::NegativeOffset => "2201X",
            Self::BadEscape => "22025",
            Self::TooComplex => "54001",
            Self::Unsupported { .. } => "0A000",
        }
    }

    /// What the client can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoTable { hint, .. } | Self::NoColumn { hint, .. } | Self::Unsupported { hint, .. } => {
                Some(hint.clone())
            }
            Self::NoFunction(_) => Some(format!(
                "Virtual tables know these functions: {}. You might need to add explicit type casts.",
                super::functions::known()
            )),
            Self::NoOperator(_) => Some(
                "No operator matches the given name and argument types. You might need to add explicit type casts."
                    .to_owned(),
            ),
            Self::NotUnique(_) => Some(
                "Could not choose a best candidate. You might need to add explicit type casts.".to_owned(),
            ),
            Self::TooComplex => Some("Write it with fewer or less deeply nested expressions.".to_owned()),
            Self::Ambiguous(_)
            | Self::Mismatch(_)
            | Self::NoCast { .. }
            | Self::Grouping(_)
            | Self::BadReference(_)
            | Self::Syntax(_)
            | Self::NoParameter(_)
            | Self::InconsistentParameter(_)
            | Self::BadText { .. }
            | Self::BadBinary(_)
            | Self::BadEncoding
            | Self::OutOfRange(_)
            | Self::NoSuchTime(_)
            | Self::DivisionByZero
            | Self::NegativeLimit
            | Self::NegativeOffset
            | Self::BadEscape => None,
        }
    }
}
