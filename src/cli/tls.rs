//! tokio-postgres connections with as much TLS as is asked for.
//! Must not know how certificates are judged, nor which server.

use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{ServerTls, ServerTlsMode};
use crate::pool::ServerTlsSettings;

/// Makes connections of one TLS mode.
#[derive(Clone)]
pub(super) struct Connector {
    mode: SslMode,
    /// `None` for plaintext only.
    tls: Option<MakeRustlsConnect>,
}

impl Connector {
    /// Reads the root certificates, if there are any to read.
    ///
    /// # Errors
    /// What was wrong with them, in one line.
    pub(super) fn new(tls: &ServerTls) -> Result<Self, String> {
        let mode = match tls.mode {
            ServerTlsMode::Disable => return Ok(Self { mode: SslMode::Disable, tls: None }),
            ServerTlsMode::Prefer => SslMode::Prefer,
            ServerTlsMode::Require | ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull => SslMode::Require,
        };
        let settings = ServerTlsSettings::load(tls).map_err(|e| e.to_string())?;
        Ok(Self { mode, tls: Some(MakeRustlsConnect::new(settings.client_config())) })
    }

    /// Connects. The connection's task ends with the client.
    ///
    /// # Errors
    /// As tokio-postgres.
    pub(super) async fn connect(&self, config: &Config) -> Result<Client, tokio_postgres::Error> {
        let mut config = config.clone();
        config.ssl_mode(self.mode);
        match &self.tls {
            None => drive(&config, NoTls).await,
            Some(tls) => drive(&config, tls.clone()).await,
        }
    }
}

async fn drive<T>(config: &Config, tls: T) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(connection); // its error reaches whoever uses the client
    Ok(client)
}
