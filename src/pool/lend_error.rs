//! Why no connection was lent, and what is to be done about it.
//! Must not know how connections are opened or kept.

use std::sync::Arc;

use super::ConnectError;
use crate::wire::{Blame, ClientFacing, SqlState};

/// Why no connection could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It failed.
    #[error(transparent)]
    Connect(ConnectError),
    /// All users together have as many connections to the server as `max_per_server` allows.
    #[error("server {address} already has as many connections as pool.max_per_server allows")]
    Full {
        /// `host:port`.
        address: String,
    },
    /// An idle one was closed by the server; another is opened.
    #[error("an idle connection was closed by the server")]
    Stale,
    /// The database is paused.
    #[error("the database is paused")]
    Paused,
    /// The configuration has changed, and another pool serves instead.
    #[error("the configuration has changed")]
    Retired,
}

/// Why nothing was lent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// The queue was too long.
    #[error("no connection to server {address} became free within {waited_ms} ms (pool of {size})")]
    QueueTimeout {
        /// `host:port`.
        address: String,
        /// How long was waited, ms.
        waited_ms: u128,
        /// The pool's size.
        size: u32,
    },
    /// The server could not be reached, or refused.
    #[error("{0}")]
    Open(Arc<OpenError>),
    /// Nothing came of it in time.
    #[error("server {address} did not accept a connection within {waited_ms} ms")]
    ConnectTimeout {
        /// `host:port`.
        address: String,
        /// How long was waited, ms.
        waited_ms: u128,
    },
    /// The database is paused: wait for its gate, then ask again.
    #[error("the database is paused")]
    Paused,
    /// The pool is no longer in use: ask the one that has taken over.
    #[error("the configuration has changed")]
    Retired,
}

impl From<Arc<OpenError>> for LeaseError {
    fn from(error: Arc<OpenError>) -> Self {
        match *error {
            OpenError::Paused => Self::Paused,
            OpenError::Retired => Self::Retired,
            OpenError::Connect(_) | OpenError::Full { .. } | OpenError::Stale => Self::Open(error),
        }
    }
}

impl LeaseError {
    /// Whether the server is the trouble, so that another one may do.
    #[must_use]
    pub fn may_do_elsewhere(&self) -> bool {
        match self {
            Self::QueueTimeout { .. } | Self::Paused | Self::Retired => false,
            Self::Open(e) => !matches!(**e, OpenError::Full { .. }),
            Self::ConnectTimeout { .. } => true,
        }
    }

    /// Whether the server is of no use to anybody now.
    #[must_use]
    pub fn is_server_down(&self) -> bool {
        match self {
            Self::QueueTimeout { .. } | Self::Paused | Self::Retired => false,
            Self::Open(e) => match &**e {
                OpenError::Connect(error) => error.is_server_down(),
                OpenError::Full { .. } | OpenError::Stale | OpenError::Paused | OpenError::Retired => false,
            },
            Self::ConnectTimeout { .. } => true,
        }
    }
}

impl ClientFacing for LeaseError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::QueueTimeout { .. } => SqlState::TOO_MANY_CONNECTIONS,
            Self::Open(e) => match &**e {
                OpenError::Connect(e) => e.sqlstate(),
                OpenError::Full { .. } => SqlState::TOO_MANY_CONNECTIONS,
                OpenError::Stale => SqlState::CONNECTION_FAILURE,
                OpenError::Paused | OpenError::Retired => SqlState::CANNOT_CONNECT_NOW,
            },
            Self::Paused | Self::Retired => SqlState::CANNOT_CONNECT_NOW,
            Self::ConnectTimeout { .. } => SqlState::CONNECTION_FAILURE,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::QueueTimeout { .. } => {
                Some("Raise pool.size or pool.queue_timeout_ms, or end transactions sooner.".to_owned())
            }
            Self::Open(e) if matches!(**e, OpenError::Full { .. }) => {
                Some("Raise pool.max_per_server, or lower pool.size.".to_owned())
            }
            Self::Open(_) | Self::ConnectTimeout { .. } | Self::Paused | Self::Retired => None,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::QueueTimeout { .. } | Self::Paused | Self::Retired => Blame::Proxy,
            Self::Open(_) | Self::ConnectTimeout { .. } => Blame::Server,
        }
    }
}
