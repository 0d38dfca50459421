//! Certificates and keys that change on disk are read again, without anybody saying RELOAD.
//! Must not know what is in them.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;

use super::proxy::Proxy;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What tells that a file was replaced.
type Seen = Vec<Option<(SystemTime, u64)>>;

/// Looks at the files as long as the proxy lives.
pub(super) async fn watch(proxy: Weak<Proxy>) {
    let mut seen: Option<(Vec<PathBuf>, Seen)> = None;
    let mut tick = tokio::time::interval(LOOK);
    loop {
        tick.tick().await;
        let Some(proxy) = proxy.upgrade() else { return };
        let files = proxy.tls_files();
        if files.is_empty() {
            continue;
        }
        let Ok((files, now)) = spawn_blocking(move || {
            let now = look(&files);
            (files, now)
        })
        .await
        else {
            continue;
        };
        let known = seen.as_ref().is_some_and(|(before, _)| *before == files);
        let same = seen.as_ref().is_some_and(|(before, then)| *before == files && *then == now);
        seen = Some((files, now));
        // Files that are new here are read once more: they may have been replaced since they were first read.
        if !same {
            match proxy.reload_certificates().await {
                Ok(()) if known => tracing::info!("certificates that changed on disk are in use"),
                Ok(()) => {}
                Err(why) => tracing::error!(
                    why,
                    "certificates that changed on disk cannot be used: the old ones stay"
                ),
            }
        }
    }
}

fn look(files: &[PathBuf]) -> Seen {
    let seen = |path: &PathBuf| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    files.iter().map(seen).collect()
}

impl Proxy {
    /// Every file of TLS that the configuration names.
    fn tls_files(&self) -> Vec<PathBuf> {
        let config = self.config();
        let of_clients = config.tls.iter().flat_map(|tls| tls.files());
        of_clients.chain(config.databases.iter().flat_map(|d| d.server_tls.files())).cloned().collect()
    }

    /// Reads certificates and keys again; nobody's session is touched.
    ///
    /// # Errors
    /// Why they cannot be used; those in use stay.
    pub async fn reload_certificates(self: &Arc<Self>) -> Result<(), String> {
        let _only = self.reloading.lock().await;
        let (proxy, door) = (self.clone(), self.door.load_full());
        let done = spawn_blocking(move || {
            let door = door.reloaded(proxy.config()).map_err(|e| e.to_string())?;
            door.lead_to(&proxy);
            proxy.reload_server_tls()?;
            proxy.door.store(Arc::new(door));
            Ok(())
        });
        done.await.map_err(|e| e.to_string())?
    }

    /// The same for the side of the servers. Blocks on the files.
    pub(super) fn reload_server_tls(&self) -> Result<(), String> {
        let served: Vec<_> = self.served.lock().values().cloned().collect();
        for served in served {
            let read = served.cluster.tls().reload();
            read.map_err(|e| format!("database \"{}\": {e}", served.cluster.config().name))?;
        }
        Ok(())
    }
}
