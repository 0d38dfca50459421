//! A server connection on loan, with the knowledge of which server it leads to, and what may be asked for.
//! Must not know how a server is chosen.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use super::server::ServerState;
use crate::pool::Lease;

/// What a statement asks of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Whether a replica may answer.
    pub replica: bool,
    /// Whether only a replica may answer (an explicit wish).
    pub only_replica: bool,
    /// The session's last write on the shard: a replica must have replayed all that was written by then.
    pub after: Option<Instant>,
}

impl Need {
    /// The primary and nothing else.
    pub const PRIMARY: Self = Self { replica: false, only_replica: false, after: None };
}

/// A lease with the knowledge of where it leads.
pub struct Leased {
    lease: Option<Lease>,
    server: Arc<ServerState>,
    is_replica: bool,
}

impl fmt::Debug for Leased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leased({})", self.server.config.address())
    }
}

impl Leased {
    pub(super) fn new(lease: Lease, server: Arc<ServerState>, is_replica: bool) -> Self {
        server.outstanding.fetch_add(1, Relaxed);
        Self { lease: Some(lease), server, is_replica }
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Arc<ServerState> {
        &self.server
    }

    /// Whether it was taken as a replica.
    #[must_use]
    pub fn is_replica(&self) -> bool {
        self.is_replica
    }

    /// Gives the connection back after it has been cleaned in the background.
    pub fn scrub_and_return(mut self) {
        if let Some(lease) = self.lease.take() {
            crate::pool::scrub_and_return(lease);
        }
    }
}

#[expect(clippy::expect_used, reason = "the lease is taken only by a method that consumes the value")]
impl Deref for Leased {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        self.lease.as_ref().expect("a lease lives as long as its owner")
    }
}

#[expect(clippy::expect_used, reason = "the lease is taken only by a method that consumes the value")]
impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut Lease {
        self.lease.as_mut().expect("a lease lives as long as its owner")
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        self.server.outstanding.fetch_sub(1, Relaxed);
    }
}
