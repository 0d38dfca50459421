//! Cleaning a connection whose client left something behind.
//! Must not know what was left.

use std::time::Duration;

use super::lend::Lease;

/// How long a server may take to roll back and forget; longer, and the connection is closed.
const SCRUB_TIMEOUT: Duration = Duration::from_secs(5);

/// Rolls back and forgets all session state, then gives the connection back, in a task of its own that ends within
/// five seconds. Whatever goes wrong, a connection that is not known to be clean is closed.
pub fn scrub_and_return(mut lease: Lease) {
    lease.mark_dirty();
    tokio::spawn(async move {
        let done = tokio::time::timeout(SCRUB_TIMEOUT, lease.scrub()).await;
        if let Ok(Err(error)) = done {
            tracing::debug!(%error, "a server connection could not be cleaned and is closed");
        }
    });
}
