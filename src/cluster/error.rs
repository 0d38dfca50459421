//! Why no server of a shard can be had.
//! Must not know what it was wanted for.

use crate::pool::LeaseError;
use crate::wire::{Blame, ClientFacing, SqlState};

/// Why no server of a shard can be had. Nothing was sent to any.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClusterError {
    /// No server says it is the primary.
    #[error("shard \"{shard}\" has no primary that can be reached")]
    NoPrimary {
        /// The shard.
        shard: String,
        /// What the expected primary said last.
        detail: Option<String>,
    },
    /// Two servers say they are the primary.
    #[error("shard \"{shard}\" has two primaries, {first} and {second}: writes are stopped")]
    TwoPrimaries {
        /// The shard.
        shard: String,
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// The server taken for the primary is in recovery.
    #[error("server {address} of shard \"{shard}\" is no primary any more")]
    NotPrimary {
        /// The shard.
        shard: String,
        /// `host:port`.
        address: String,
    },
    /// No replica is healthy, and reads may not go to the primary.
    #[error("shard \"{shard}\" has no healthy replica")]
    NoReplica {
        /// The shard.
        shard: String,
    },
    /// The primary is gone, and no replica is known to have what the session itself wrote.
    #[error(
        "shard \"{shard}\" has no primary that can be reached, and no replica is known to have this session's last write"
    )]
    NotFresh {
        /// The shard.
        shard: String,
    },
    /// An operator has paused the database, for too long.
    #[error("database \"{database}\" is paused")]
    Paused {
        /// The database.
        database: String,
    },
    /// The configuration has changed: another cluster serves the database.
    #[error("the configuration of the database has changed")]
    Retired,
    /// The map names a shard that is not configured.
    #[error("there is no shard number {shard}")]
    NoSuchShard {
        /// Its position, from 0.
        shard: usize,
    },
    /// The pool's own error.
    #[error("shard \"{shard}\": {error}")]
    Lease {
        /// The shard.
        shard: String,
        /// Why.
        error: LeaseError,
    },
    /// The server has no such database.
    #[error("database \"{database}\" does not exist")]
    NoDatabase {
        /// Its name there.
        database: String,
    },
    /// The catalogs have not been read yet.
    #[error("the catalogs of database \"{database}\" could not be read yet")]
    NoCatalog {
        /// The database.
        database: String,
        /// What failed last.
        detail: Option<String>,
    },
}

impl ClientFacing for ClusterError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::NoPrimary { .. }
            | Self::NotPrimary { .. }
            | Self::NoReplica { .. }
            | Self::NotFresh { .. }
            | Self::Paused { .. }
            | Self::Retired
            | Self::NoCatalog { .. } => SqlState::CANNOT_CONNECT_NOW,
            Self::TwoPrimaries { .. } => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::NoSuchShard { .. } => SqlState::INTERNAL_ERROR,
            Self::NoDatabase { .. } => SqlState::INVALID_CATALOG_NAME,
            Self::Lease { error, .. } => error.sqlstate(),
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::NoPrimary { detail, .. } | Self::NoCatalog { detail, .. } => detail.clone(),
            Self::Lease { error, .. } => error.detail(),
            Self::TwoPrimaries { .. }
            | Self::NotPrimary { .. }
            | Self::NoReplica { .. }
            | Self::NotFresh { .. }
            | Self::Paused { .. }
            | Self::Retired
            | Self::NoDatabase { .. }
            | Self::NoSuchShard { .. } => None,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoPrimary { .. } => {
                Some("Nothing was sent; try again when SHOW SERVERS lists a primary.".into())
            }
            Self::TwoPrimaries { .. } => {
                Some("Shut down the one that was left behind by the failover.".into())
            }
            Self::NotPrimary { .. } | Self::Retired => Some("Nothing was sent; try again.".into()),
            Self::NoReplica { .. } => Some("Set replica_fallback = true to let the primary answer.".into()),
            Self::NotFresh { .. } => Some(
                "Other sessions can read there. SET pgherd.read_consistency = 'eventual' reads what the replica has."
                    .into(),
            ),
            Self::NoCatalog { .. } => {
                Some("See SHOW SERVERS on database pgherd, or run pgherd check.".into())
            }
            Self::Lease { error, .. } => error.hint(),
            Self::Paused { .. } => {
                Some("Nothing was sent; try again after RESUME. The limit is pool.pause_timeout_ms.".into())
            }
            Self::NoSuchShard { .. } | Self::NoDatabase { .. } => None,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Lease { error, .. } => error.blame(),
            Self::NoSuchShard { .. } | Self::Paused { .. } | Self::Retired => Blame::Proxy,
            Self::NoDatabase { .. } => Blame::Client,
            Self::NoPrimary { .. }
            | Self::TwoPrimaries { .. }
            | Self::NotPrimary { .. }
            | Self::NoReplica { .. }
            | Self::NotFresh { .. }
            | Self::NoCatalog { .. } => Blame::Server,
        }
    }
}
