//! SQLSTATE codes, five bytes each, under their PostgreSQL names.
//! Must not know which room raises them.

use std::fmt;

/// A five-character SQLSTATE. Source: PostgreSQL docs, appendix A, "PostgreSQL Error Codes".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState {
            $($(#[$doc])* #[doc = concat!("`", $code, "`.")] pub const $name: Self = Self::literal($code);)*
        }
    };
}

states! {
    SUCCESSFUL_COMPLETION = "00000";
    WARNING = "01000";
    SQL_CLIENT_UNABLE_TO_CONNECT = "08001";
    CONNECTION_FAILURE = "08006";
    TRANSACTION_RESOLUTION_UNKNOWN = "08007";
    PROTOCOL_VIOLATION = "08P01";
    TRIGGERED_ACTION_EXCEPTION = "09000";
    FEATURE_NOT_SUPPORTED = "0A000";
    INVALID_TEXT_REPRESENTATION = "22P02";
    INVALID_BINARY_REPRESENTATION = "22P03";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003";
    CHARACTER_NOT_IN_REPERTOIRE = "22021";
    INVALID_PARAMETER_VALUE = "22023";
    STRING_DATA_RIGHT_TRUNCATION = "22001";
    NOT_NULL_VIOLATION = "23502";
    CHECK_VIOLATION = "23514";
    ACTIVE_SQL_TRANSACTION = "25001";
    READ_ONLY_SQL_TRANSACTION = "25006";
    NO_ACTIVE_SQL_TRANSACTION = "25P01";
    IN_FAILED_SQL_TRANSACTION = "25P02";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = "25P03";
    INVALID_SQL_STATEMENT_NAME = "26000";
    INVALID_AUTHORIZATION_SPECIFICATION = "28000";
    INVALID_PASSWORD = "28P01";
    INVALID_CURSOR_NAME = "34000";
    INVALID_CATALOG_NAME = "3D000";
    INVALID_SAVEPOINT_SPECIFICATION = "3B001";
    SERIALIZATION_FAILURE = "40001";
    SYNTAX_ERROR = "42601";
    UNDEFINED_COLUMN = "42703";
    UNDEFINED_FUNCTION = "42883";
    UNDEFINED_TABLE = "42P01";
    UNDEFINED_PARAMETER = "42P02";
    DUPLICATE_CURSOR = "42P03";
    DUPLICATE_PREPARED_STATEMENT = "42P05";
    INSUFFICIENT_PRIVILEGE = "42501";
    UNDEFINED_OBJECT = "42704";
    DATATYPE_MISMATCH = "42804";
    AMBIGUOUS_COLUMN = "42702";
    INSUFFICIENT_RESOURCES = "53000";
    TOO_MANY_CONNECTIONS = "53300";
    CONFIGURATION_LIMIT_EXCEEDED = "53400";
    PROGRAM_LIMIT_EXCEEDED = "54000";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000";
    OBJECT_IN_USE = "55006";
    QUERY_CANCELED = "57014";
    ADMIN_SHUTDOWN = "57P01";
    CRASH_SHUTDOWN = "57P02";
    CANNOT_CONNECT_NOW = "57P03";
    IDLE_SESSION_TIMEOUT = "57P05";
    IO_ERROR = "58030";
    CONFIG_FILE_ERROR = "F0000";
    INTERNAL_ERROR = "XX000";
}

impl SqlState {
    const fn literal(code: &str) -> Self {
        let b = code.as_bytes();
        assert!(b.len() == 5, "a SQLSTATE has five characters");
        Self([b[0], b[1], b[2], b[3], b[4]])
    }

    /// The code a server sent. `None` unless it is five ASCII letters or digits.
    #[must_use]
    pub fn parse(code: &[u8]) -> Option<Self> {
        let bytes: [u8; 5] = code.try_into().ok()?;
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(Self(bytes))
    }

    /// The code as text, e.g. `"0A000"`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// Whether a server that ends a connection so is itself gone: it crashed, starts, or stops.
    #[must_use]
    pub fn is_server_gone(&self) -> bool {
        [Self::CRASH_SHUTDOWN, Self::CANNOT_CONNECT_NOW].contains(self)
    }

    /// Its class, the first two characters, e.g. `"0A"`.
    #[must_use]
    pub fn class(&self) -> &str {
        self.as_str().get(..2).unwrap_or("XX")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}
