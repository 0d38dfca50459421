//! Control connections: probes, catalogs, set-up. Few, slow, and beside the data path.
//! Must not know what is asked over them.

use std::fmt;
use std::sync::Arc;

use bb8_postgres::PostgresConnectionManager;
use secrecy::ExposeSecret;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Row, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::ServerTlsSettings;
use crate::config;

type Manager = PostgresConnectionManager<FreshTls>;

/// Makes TLS with the certificates as they were last read.
#[derive(Clone)]
struct FreshTls(ServerTlsSettings);

impl MakeTlsConnect<Socket> for FreshTls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        let mut make = MakeRustlsConnect::new(self.0.client_config());
        MakeTlsConnect::<Socket>::make_tls_connect(&mut make, host)
    }
}

/// Most control connections to one server: one for its probe, one for reading catalogs, one for sizes.
const SIZE: u32 = 3;
/// A statement that meets a lock of others gives up rather than keep its connection from the next.
const OPTIONS: &str = "-c lock_timeout=3s";

/// A few control connections to one server.
#[derive(Clone)]
pub struct ControlPool {
    pool: bb8::Pool<Manager>,
    address: String,
}

impl fmt::Debug for ControlPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ControlPool({})", self.address)
    }
}

/// Why a control statement failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// The server's own error, or the way to it.
    #[error("{0}")]
    Server(Arc<str>),
    /// No connection in time.
    #[error("no control connection in time")]
    Timeout,
}

impl From<tokio_postgres::Error> for ControlError {
    fn from(error: tokio_postgres::Error) -> Self {
        use std::error::Error;
        let text = match (error.as_db_error(), error.source()) {
            (Some(db), _) => format!("{} ({})", db.message(), db.code().code()),
            (None, Some(source)) => format!("{error}: {source}"),
            (None, None) => error.to_string(),
        };
        Self::Server(text.into())
    }
}

impl From<bb8::RunError<tokio_postgres::Error>> for ControlError {
    fn from(error: bb8::RunError<tokio_postgres::Error>) -> Self {
        match error {
            bb8::RunError::User(e) => e.into(),
            bb8::RunError::TimedOut => Self::Timeout,
        }
    }
}

impl ControlPool {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(
        server: &config::Server,
        database: &str,
        control: &config::Control,
        tls: &ServerTlsSettings,
    ) -> Self {
        let mut settings = tokio_postgres::Config::new();
        settings
            .host(&server.host)
            .port(server.port)
            .dbname(database)
            .user(&control.user)
            .application_name("pgherd control")
            .options(OPTIONS)
            .connect_timeout(control.probe_timeout)
            .ssl_mode(match tls.mode() {
                config::ServerTlsMode::Disable => SslMode::Disable,
                config::ServerTlsMode::Prefer => SslMode::Prefer,
                config::ServerTlsMode::Require
                | config::ServerTlsMode::VerifyCa
                | config::ServerTlsMode::VerifyFull => SslMode::Require,
            });
        if tls.is_direct() {
            settings.ssl_negotiation(SslNegotiation::Direct);
        }
        if let Some(password) = &control.password {
            settings.password(password.expose_secret());
        }
        let manager = PostgresConnectionManager::new(settings, FreshTls(tls.clone()));
        let pool = bb8::Pool::builder()
            .max_size(SIZE)
            .retry_connection(false)
            .connection_timeout(control.probe_timeout)
            .build_unchecked(manager);
        Self { pool, address: server.address() }
    }

    /// Runs one query of constant text without parameters, which gives exactly one row.
    ///
    /// # Errors
    /// [`ControlError`] with the server's message.
    pub async fn query_one(&self, sql: &str) -> Result<Row, ControlError> {
        let mut rows = self.query(sql).await?;
        match (rows.pop(), rows.is_empty()) {
            (Some(row), true) => Ok(row),
            _ => Err(ControlError::Server("the query did not return one row".into())),
        }
    }

    /// Runs one query of constant text without parameters.
    ///
    /// # Errors
    /// [`ControlError`] with the server's message.
    pub async fn query(&self, sql: &str) -> Result<Vec<Row>, ControlError> {
        self.fill().await?;
        let client = self.pool.get().await?;
        Ok(client.query_typed(sql, &[]).await?)
    }

    /// Runs one query with a text as its parameter, of whatever type the server makes of it.
    ///
    /// # Errors
    /// [`ControlError`] with the server's message.
    pub async fn query_about(&self, sql: &str, about: &str) -> Result<Vec<Row>, ControlError> {
        self.fill().await?;
        let client = self.pool.get().await?;
        Ok(client.query(sql, &[&about]).await?)
    }

    /// Runs statements without parameters, several of them if parted by semicolons.
    ///
    /// # Errors
    /// [`ControlError`] with the server's message.
    pub async fn execute(&self, sql: &str) -> Result<(), ControlError> {
        self.fill().await?;
        let client = self.pool.get().await?;
        let client: &Client = &client;
        Ok(client.batch_execute(sql).await?)
    }

    /// bb8 keeps the reason of a failed connect to itself; a connection made here tells it.
    async fn fill(&self) -> Result<(), ControlError> {
        if self.pool.state().connections == 0 {
            let conn = self.pool.dedicated_connection().await?;
            // Refused only if another task filled the pool meanwhile: then this one is not needed.
            drop(self.pool.add(conn));
        }
        Ok(())
    }
}
