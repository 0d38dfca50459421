//! TLS towards clients: certificate and key from PEM files, and what binds a login to them.
//! Must not know users or messages.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgwire::api::auth::sasl::scram::ScramServerAuth;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;

use super::door::DoorError;
use super::refusal::Refusal;
use crate::config::ClientTls;
use crate::pool::Socket;

/// `commonName`. Source: X.520.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// The only protocol spoken here. Source: PostgreSQL docs, "Direct SSL".
const ALPN: &[u8] = b"postgresql";

/// Ready to take clients over TLS.
#[derive(Clone)]
pub(super) struct DoorTls {
    acceptor: TlsAcceptor,
    /// Knows the certificate's hash, if it has one: then SCRAM-SHA-256-PLUS is offered.
    pub(super) scram: ScramServerAuth,
    /// Whether plaintext clients are refused.
    pub(super) required: bool,
}

impl DoorTls {
    /// Reads the files. Blocks on them.
    pub(super) fn load(settings: &ClientTls) -> Result<Self, DoorError> {
        let unreadable = |key: &'static str, path: &PathBuf| {
            let path = path.clone();
            move |source: pem::Error| DoorError::Pem { key, path, source }
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&settings.cert)
            .and_then(Iterator::collect::<Result<_, _>>)
            .map_err(unreadable("tls.cert", &settings.cert))?;
        if chain.is_empty() {
            return Err(DoorError::NoCertificate(settings.cert.clone()));
        }
        let key =
            PrivateKeyDer::from_pem_file(&settings.key).map_err(unreadable("tls.key", &settings.key))?;
        let scram = binding(settings);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(DoorError::Tls)?;
        let builder = match &settings.client_ca {
            Some(ca) => builder.with_client_cert_verifier(verifier(settings, ca, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(DoorError::Tls)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(DoorError::Tls)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), scram, required: settings.required })
    }

    /// The server's half of the handshake. `direct`: without SSLRequest, which needs ALPN, lest a client of another
    /// protocol be talked into sending here what it meant for elsewhere (ALPACA).
    pub(super) async fn accept(&self, tcp: TcpStream, direct: bool) -> Result<TlsStream<Socket>, Refusal> {
        let handshake = self.acceptor.accept(Socket::new(tcp)).await;
        let tls = handshake.map_err(|e| Refusal::silent(format!("the TLS handshake failed: {e}")))?;
        if direct && tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Refusal::silent("direct TLS without the ALPN protocol \"postgresql\""));
        }
        Ok(tls)
    }
}

/// Checks what clients show: signed by one of `ca`, and valid now.
fn verifier(
    settings: &ClientTls,
    ca: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, DoorError> {
    let unreadable = |source| DoorError::Pem { key: "tls.client_ca", path: ca.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(ca).and_then(Iterator::collect::<Result<_, _>>).map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if settings.client_cert_required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| DoorError::ClientCa { path: ca.to_owned(), why: e.to_string() })
}

/// The common name of the certificate that the client showed, which the handshake has verified.
pub(super) fn common_name(tls: &rustls::CommonState) -> Option<String> {
    let certificate = Certificate::from_der(tls.peer_certificates()?.first()?).ok()?;
    let names = certificate.tbs_certificate.subject.0.iter().flat_map(|rdn| rdn.0.iter());
    let mut common = names.filter(|name| name.oid == COMMON_NAME);
    let name = std::str::from_utf8(common.next()?.value.value()).ok()?;
    (!name.is_empty() && !name.contains('\0')).then(|| name.to_owned())
}

/// A certificate whose hash is not defined (Ed25519) does without channel binding, as any plaintext login does.
fn binding(settings: &ClientTls) -> ScramServerAuth {
    let mut scram = ScramServerAuth::new();
    if let Ok(pem) = std::fs::read(&settings.cert) {
        let _ = scram.configure_certificate(&pem);
    }
    scram
}
