//! `pgherd run`: the proxy itself, until it is told to stop.
//! Must not know how a command line looks.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Failure, runtime};
use crate::config::Config;

/// How a running proxy and the one who runs it talk to each other.
#[derive(Debug)]
pub(super) struct Control {
    /// Told once clients can connect.
    pub(super) ready: oneshot::Sender<()>,
    /// Cancelled when the proxy is to drain and end.
    pub(super) stop: CancellationToken,
}

impl Control {
    /// Of a proxy that has the process to itself: a SIGINT or SIGTERM stops it.
    pub(super) fn foreground() -> Self {
        let stop = CancellationToken::new();
        Self { ready: oneshot::channel().0, stop }
    }
}

/// Serves until [`Control::stop`] or, in the foreground, until a signal.
///
/// # Errors
/// A port that cannot be listened on, or servers that cannot be used at all.
pub(super) async fn run(config: Arc<Config>, control: Control) -> Result<(), Failure> {
    let _ = (config, control.ready, control.stop, runtime::interrupted);
    Err(Failure::new("this build has no proxy yet"))
}
