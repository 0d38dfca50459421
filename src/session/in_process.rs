//! Sessions without a network: for the HTTP server, which has found out by itself who the client is.
//! Must not know HTTP, nor what is said in the session.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::net::UnixStream;

use super::proxy::{Counted, Proxy};
use super::rest::Resting;
use super::{Admitted, StartError};
use crate::config::User;
use crate::pool::Stream;
use crate::route::Router;
use crate::wire::{ClientFacing, ErrorReport, SqlState};

impl Proxy {
    /// Opens a session as a user who has proved who it is. Its first message is the one after AuthenticationOk; all
    /// else is as with any client, cancel keys and limits included. `application` is what `pgherd.clients` shows.
    ///
    /// # Errors
    /// What a client would have been refused with: a database that is not there or not for this user, no sockets.
    pub fn open_in_process(
        self: &Arc<Self>,
        user: Arc<User>,
        database: &str,
        application: &'static str,
    ) -> Result<UnixStream, ErrorReport> {
        if let Err(refusal) = self.door().may_enter(&user, database) {
            let unknown = || ErrorReport::error(SqlState::INSUFFICIENT_PRIVILEGE, refusal.why.clone());
            return Err(refusal.report.clone().unwrap_or_else(unknown));
        }
        let (ours, theirs) = UnixStream::pair().map_err(|error| {
            ErrorReport::error(SqlState::INSUFFICIENT_RESOURCES, format!("no socket for a session: {error}"))
        })?;
        let admitted = Admitted {
            stream: Stream::Unix(theirs),
            unsent: BytesMut::new(),
            leftover: BytesMut::new(),
            user,
            database: database.to_owned(),
            parameters: Vec::new(),
            protocol_minor: 2,
            is_tls: false,
            pass: None,
        };
        self.clients.fetch_add(1, Relaxed);
        let counted = Counted(self.clone());
        let proxy = self.clone();
        tokio::spawn(async move {
            let live = async {
                let welcome = proxy.welcome(admitted, "in process", Some(application)).await;
                if let Some((resting, said)) = welcome {
                    Resting::live(&mut Some(resting), said).await;
                }
            };
            if std::panic::AssertUnwindSafe(live).catch_unwind().await.is_err() {
                tracing::error!(application, "a session panicked; it is closed");
            }
            drop(counted);
        });
        Ok(ours)
    }

    /// Cancels what a session runs, if the key is its own; it comes with the session's BackendKeyData.
    pub async fn cancel(&self, id: u32, key: &[u8]) {
        self.cancels().deliver(id, key).await;
    }

    /// The router in force of a database. `reread`: the catalogs are read again first, unless they just were.
    ///
    /// # Errors
    /// 3D000 if there is no such database, 57P03 if no server has told its catalogs.
    pub async fn router(&self, database: &str, reread: bool) -> Result<Arc<Router>, ErrorReport> {
        let broken = |e: StartError| ErrorReport::error(SqlState::INTERNAL_ERROR, e.to_string());
        let Some(served) = self.serve_database(database).map_err(broken)? else {
            let message = format!("database \"{database}\" does not exist");
            return Err(ErrorReport::error(SqlState::INVALID_CATALOG_NAME, message));
        };
        if reread && !served.cluster.is_schema_fresh() {
            served.cluster.reload_schema().await.map_err(|e| e.report())?;
        }
        served.router().await.map_err(|e| e.report())
    }
}
