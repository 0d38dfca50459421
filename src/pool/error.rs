//! Why a server connection could not be opened, told apart so that health, pool and client each get their answer.
//! Must not know passwords: none of these texts holds one.

use std::io;
use std::time::Duration;

use crate::wire::{Blame, ClientFacing, ErrorFields, SqlState, WireError};

/// A server connection that was not opened. `Display` is fit for a client; [`ConnectError::log_detail`] adds what
/// only the operator should read.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there.
    #[error("server {address} refused the connection")]
    Refused {
        /// `host:port`.
        address: String,
    },
    /// No way there, the name is unknown, or the connection broke during login.
    #[error("cannot reach server {address}: {source}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// `connect_timeout` passed before the login was done.
    #[error("server {address} did not accept a login within {} ms (connect_timeout)", after.as_millis())]
    Timeout {
        /// `host:port`.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// TLS was asked for and could not be had.
    #[error("cannot open TLS to server {address}: {why}")]
    Tls {
        /// `host:port`.
        address: String,
        /// Why.
        why: String,
    },
    /// The server did not let this user in. What it said is for the log only: it may name accounts.
    #[error("cannot log in to server {address}")]
    Auth {
        /// `host:port`.
        address: String,
        /// The user on the server.
        user: String,
        /// What the server said, or what is missing here.
        fields: Box<ErrorFields>,
    },
    /// The server refused the session for another reason: starting up, too many connections, no such database…
    #[error("{}", fields.message)]
    Rejected {
        /// `host:port`.
        address: String,
        /// What the server said.
        fields: Box<ErrorFields>,
    },
    /// What answers there does not speak the protocol.
    #[error("server {address} broke the protocol during login: {why}")]
    Protocol {
        /// `host:port`.
        address: String,
        /// What it did.
        why: String,
    },
}

impl ConnectError {
    pub(super) fn io(address: String, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused { address }
        } else {
            Self::Unreachable { address, source }
        }
    }

    pub(super) fn closed(address: String) -> Self {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection during login");
        Self::Unreachable { address, source }
    }

    pub(super) fn protocol(address: String, why: impl Into<String>) -> Self {
        Self::Protocol { address, why: why.into() }
    }

    pub(super) fn wire(address: String, error: &WireError) -> Self {
        Self::Protocol { address, why: error.to_string() }
    }

    /// What an ErrorResponse during login means: class 28 is about who we are, all else about the server.
    pub(super) fn answered(address: String, user: &str, fields: ErrorFields) -> Self {
        let fields = Box::new(fields);
        if fields.code.starts_with("28") {
            Self::Auth { address, user: user.to_owned(), fields }
        } else {
            Self::Rejected { address, fields }
        }
    }

    pub(super) fn login(address: String, user: &str, why: impl Into<String>) -> Self {
        let fields = ErrorFields {
            severity: "FATAL".to_owned(),
            code: SqlState::INVALID_PASSWORD.as_str().to_owned(),
            message: why.into(),
            ..ErrorFields::default()
        };
        Self::Auth { address, user: user.to_owned(), fields: Box::new(fields) }
    }

    /// The error as the operator should read it in the log.
    #[must_use]
    pub fn log_detail(&self) -> String {
        match self {
            Self::Auth { user, fields, .. } => {
                format!("{self} as \"{user}\": {} ({})", fields.message, fields.code)
            }
            Self::Rejected { address, fields } => {
                format!("server {address} refused the session: {} ({})", fields.message, fields.code)
            }
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Protocol { .. } => self.to_string(),
        }
    }

    /// Whether it tells that nobody can be served there, not only this user or this many.
    #[must_use]
    pub fn is_server_down(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. } => true,
            Self::Rejected { fields, .. } => fields.sqlstate().class() == "57",
            Self::Tls { .. } | Self::Auth { .. } => false,
        }
    }

    /// Whether another try may do without a change of the configuration.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => true,
            Self::Rejected { fields, .. } => matches!(fields.sqlstate().class(), "53" | "57"),
            Self::Tls { .. } | Self::Auth { .. } | Self::Protocol { .. } => false,
        }
    }
}

impl ClientFacing for ConnectError {
    fn sqlstate(&self) -> SqlState {
        match self {
            // 28P01 would tell the client that *its* password is wrong.
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Auth { .. }
            | Self::Protocol { .. } => SqlState::CONNECTION_FAILURE,
            Self::Rejected { fields, .. } => fields.sqlstate(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Rejected { fields, .. } => fields.detail.clone(),
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Auth { .. }
            | Self::Protocol { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Rejected { fields, .. } => fields.hint.clone(),
            Self::Auth { .. } => Some("See pgherd's log for what the server said.".to_owned()),
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Protocol { .. } => None,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Auth { .. } => Blame::Proxy, // the configured account is wrong
            Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Tls { .. }
            | Self::Rejected { .. }
            | Self::Protocol { .. } => Blame::Server,
        }
    }
}
