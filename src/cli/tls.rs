//! TLS towards servers for tokio-postgres connections, in libpq's modes.
//! Must not know which server.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{ServerTls, ServerTlsMode};

/// Makes connections with as much TLS as is asked for.
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
        Ok(Self { mode, tls: Some(MakeRustlsConnect::new(client_config(tls)?)) })
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

fn client_config(tls: &ServerTls) -> Result<ClientConfig, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match (tls.mode, &tls.ca) {
        (ServerTlsMode::Disable | ServerTlsMode::Prefer | ServerTlsMode::Require, _) => {
            Arc::new(Lenient { provider: provider.clone(), chain: None })
        }
        (ServerTlsMode::VerifyCa | ServerTlsMode::VerifyFull, None) => {
            return Err("server certificates are to be verified, but there is no `ca` file".into());
        }
        (ServerTlsMode::VerifyCa, Some(ca)) => {
            Arc::new(Lenient { provider: provider.clone(), chain: Some(verifier(ca, &provider)?) })
        }
        (ServerTlsMode::VerifyFull, Some(ca)) => verifier(ca, &provider)?,
    };
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| e.to_string())?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn verifier(ca: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let failed = |e: String| format!("{}: {e}", ca.display());
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(ca).map_err(|e| failed(e.to_string()))? {
        roots.add(cert.map_err(|e| failed(e.to_string()))?).map_err(|e| failed(e.to_string()))?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    built.map_err(|e| failed(e.to_string()))
}

/// Asks less than rustls would: no host name (`verify-ca`), or not even the chain (`require`, `prefer`).
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    chain: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()), // checked last: the chain held
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
