//! TLS towards servers: how much is asked of a server's certificate, by libpq's `sslmode`.
//! Must not know messages, nor passwords.

use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{Socket, der};
use crate::config::{ServerTls, ServerTlsMode};

/// TLS towards the servers of a database, ready for use: files are read once, and by [`ServerTlsSettings::reload`], not
/// at each connect.
#[derive(Clone)]
pub struct ServerTlsSettings {
    settings: Arc<ServerTls>,
    /// Shared by all clones, so that they all see files that were read again.
    config: Arc<ArcSwap<ClientConfig>>,
}

/// A `server_tls` section that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// Verification without anything to verify against.
    #[error("server_tls.ca is missing: modes verify-ca and verify-full need root certificates")]
    CaMissing,
    /// The file cannot be read, or is not PEM.
    #[error("server_tls.ca: cannot read {}: {source}", path.display())]
    CaUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The proxy's own certificate or key cannot be read, or is not PEM.
    #[error("server_tls.{key}: cannot read {}: {source}", path.display())]
    OwnUnreadable {
        /// `cert` or `key`.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file holds no certificate that can be a root.
    #[error("server_tls.ca: {} holds no usable certificate", .0.display())]
    CaEmpty(PathBuf),
    /// rustls refused the settings.
    #[error("server_tls: {0}")]
    Rustls(#[from] Error),
}

impl ServerTlsSettings {
    /// Plaintext only.
    ///
    /// # Errors
    /// None in practice: rustls' own defaults.
    pub fn disabled() -> Result<Self, TlsSetupError> {
        Self::load(&ServerTls::mode(ServerTlsMode::Disable))
    }

    /// Reads the root certificates and prepares rustls. Blocks on the file.
    ///
    /// # Errors
    /// [`TlsSetupError`], naming the key at fault.
    pub fn load(settings: &ServerTls) -> Result<Self, TlsSetupError> {
        let config = Arc::new(ArcSwap::from_pointee(prepare(settings)?));
        Ok(Self { settings: Arc::new(settings.clone()), config })
    }

    /// Reads the files again; connections that are open stay. Blocks on the files.
    ///
    /// # Errors
    /// As [`ServerTlsSettings::load`]; what was read before stays in use.
    pub fn reload(&self) -> Result<(), TlsSetupError> {
        self.config.store(Arc::new(prepare(&self.settings)?));
        Ok(())
    }

    /// How much is asked.
    #[must_use]
    pub fn mode(&self) -> ServerTlsMode {
        self.settings.mode
    }

    /// Whether TLS begins at once, without SSLRequest.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.settings.direct
    }

    /// The settings of rustls as they are now, for control connections, which make their own TLS.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        (**self.config.load()).clone()
    }

    /// The client's half of the handshake. Not cancel safe: the socket is gone.
    pub(super) async fn handshake(&self, tcp: TcpStream, host: &str) -> io::Result<TlsStream<Socket>> {
        let name = match ServerName::try_from(host.to_owned()) {
            Ok(name) => name,
            // No mode but verify-full looks at the name; that one finds no certificate for an address by chance.
            Err(_) => ServerName::IpAddress(tcp.peer_addr()?.ip().into()),
        };
        let tls =
            tokio_rustls::TlsConnector::from(self.config.load_full()).connect(name, Socket::new(tcp)).await?;
        if self.settings.direct && tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            let why = "it did not agree to the protocol \"postgresql\", as direct TLS needs";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(tls)
    }
}

fn prepare(settings: &ServerTls) -> Result<ClientConfig, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match settings.mode {
        ServerTlsMode::VerifyFull => builder.with_root_certificates(roots(settings)?),
        ServerTlsMode::VerifyCa => builder
            .dangerous()
            .with_custom_certificate_verifier(Nameless::new(&provider, Some(roots(settings)?))),
        ServerTlsMode::Disable | ServerTlsMode::Prefer | ServerTlsMode::Require => {
            builder.dangerous().with_custom_certificate_verifier(Nameless::new(&provider, None))
        }
    };
    let mut config = match (&settings.cert, &settings.key) {
        (Some(cert), Some(key)) => {
            let unreadable = |key, path: &PathBuf| {
                let path = path.clone();
                move |source| TlsSetupError::OwnUnreadable { key, path, source }
            };
            let chain: Vec<_> = CertificateDer::pem_file_iter(cert)
                .and_then(Iterator::collect::<Result<_, _>>)
                .map_err(unreadable("cert", cert))?;
            let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable("key", key))?;
            builder.with_client_auth_cert(chain, private)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// The only protocol spoken here. Source: PostgreSQL docs, "Direct SSL".
const ALPN: &[u8] = b"postgresql";

impl fmt::Debug for ServerTlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTlsSettings").field("mode", &self.settings.mode).finish_non_exhaustive()
    }
}

fn roots(settings: &ServerTls) -> Result<RootCertStore, TlsSetupError> {
    let path = settings.ca.as_ref().ok_or(TlsSetupError::CaMissing)?;
    let unreadable = |source| TlsSetupError::CaUnreadable { path: path.clone(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<_, _>>)
        .map_err(unreadable)?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 { Err(TlsSetupError::CaEmpty(path.clone())) } else { Ok(roots) }
}

/// The hash that binds a login to the certificate the server showed; `None` if it is not defined.
pub(super) fn channel_binding(tls: &rustls::CommonState) -> Option<Vec<u8>> {
    der::end_point_hash(tls.peer_certificates()?.first()?)
}

/// Checks that the server holds the key of the certificate it shows, and the chain if there are roots; never the
/// name. Without roots that is what libpq's `require` does: it keeps listeners out, not impostors.
#[derive(Debug)]
struct Nameless {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Nameless {
    fn new(provider: &CryptoProvider, roots: Option<RootCertStore>) -> Arc<Self> {
        Arc::new(Self { roots, algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for Nameless {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match verify_tls13_signature(message, certificate, signed, &self.algorithms) {
            // The recipe in PostgreSQL's own docs makes certificates of X.509 version 1, which webpki does not
            // read. Their key is taken out by hand: the signature of the handshake is checked all the same.
            Err(unread @ Error::InvalidCertificate(_)) => {
                let Some(key) = der::public_key(certificate) else { return Err(unread) };
                let key = SubjectPublicKeyInfoDer::from(key);
                verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
            }
            other => other,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_without_roots_is_an_error_that_names_the_key() {
        let not_pem = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(not_pem.path(), "no certificate").unwrap();
        for (mode, ca, want) in [
            (ServerTlsMode::VerifyCa, None, "server_tls.ca is missing"),
            (ServerTlsMode::VerifyFull, None, "server_tls.ca is missing"),
            (
                ServerTlsMode::VerifyFull,
                Some(PathBuf::from("/nowhere/ca.pem")),
                "cannot read /nowhere/ca.pem",
            ),
            (ServerTlsMode::VerifyCa, Some(not_pem.path().to_owned()), "holds no usable certificate"),
        ] {
            let error =
                ServerTlsSettings::load(&ServerTls { ca, ..ServerTls::mode(mode) }).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn the_modes_without_verification_need_no_file() {
        for mode in [ServerTlsMode::Disable, ServerTlsMode::Prefer, ServerTlsMode::Require] {
            assert_eq!(ServerTlsSettings::load(&ServerTls::mode(mode)).unwrap().mode(), mode);
        }
    }
}
