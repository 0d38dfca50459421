//! Why a question about virtual tables has no answer.
//! Must not know how an answer is found.

use crate::rows::RowsError;
use crate::wire::{Blame, ClientFacing, SqlState};

/// An error of SELECT or SHOW on virtual tables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// The SELECT is wrong or not supported, or fails on these rows.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// SHOW of something that is no virtual table.
    #[error("unrecognized configuration parameter \"{0}\"")]
    NoShow(String),
    /// A parameter of a type that cannot be read.
    #[error("a parameter of the type with OID {0} is not supported in queries on virtual tables")]
    ParameterType(u32),
    /// Bind gave another number of parameters than the statement has.
    #[error("bind message supplies {given} parameters, but prepared statement requires {wanted}")]
    ParameterCount {
        /// As Bind says.
        given: usize,
        /// As the statement needs.
        wanted: usize,
    },
    /// Bind gave neither none, one, nor as many result formats as there are columns.
    #[error("bind message has {given} result formats but query has {columns} columns")]
    ResultFormats {
        /// As Bind says.
        given: usize,
        /// Columns of the result.
        columns: usize,
    },
    /// A column is wanted in a format that nothing has.
    #[error("unsupported format code: {0}")]
    Format(i16),
}

impl ClientFacing for AdminError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Rows(e) => SqlState::parse(e.sqlstate().as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR),
            Self::NoShow(_) => SqlState::UNDEFINED_OBJECT,
            Self::ParameterType(_) => SqlState::FEATURE_NOT_SUPPORTED,
            Self::ParameterCount { .. } | Self::ResultFormats { .. } => SqlState::PROTOCOL_VIOLATION,
            Self::Format(_) => SqlState::INVALID_PARAMETER_VALUE,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Rows(e) => e.hint(),
            Self::NoShow(_) => Some(format!("SHOW knows: {}.", super::tables::names())),
            Self::ParameterType(_) => Some("Declare it as text.".to_owned()),
            Self::ParameterCount { .. } | Self::ResultFormats { .. } | Self::Format(_) => None,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Client
    }
}
