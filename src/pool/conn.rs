//! Opening one server connection: dial, TLS, login, all within `connect_timeout`; and cancelling on one.
//! Must not know pools, shards or clients.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use bytes::{BufMut as _, Bytes, BytesMut};
use secrecy::SecretString;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::auth::log_in;
use super::error::ConnectError;
use super::scram::{KeyCache, PassThrough};
use super::stream::Stream;
use super::tls::ServerTlsSettings;
use crate::config::ServerTlsMode;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47]; // length 8, code 80877103
const CANCEL_REQUEST: u32 = 80_877_102;
/// A server that vanished without a word is noticed after about a minute and a half.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// The same for one that vanishes while bytes are under way to it.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// Has the system notice within about a minute and a half that the other side has vanished without a word.
///
/// # Errors
/// The socket's.
pub fn notice_silence(tcp: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(tcp);
    let probes =
        TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(3);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// Where to connect, and as whom. One per pool; clones share the derived keys.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Host name or address; a path is the directory of a Unix socket, as with libpq.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database on the server.
    pub database: String,
    /// User on the server.
    pub user: String,
    /// The user's password; `None` where the server trusts.
    pub password: Option<SecretString>,
    /// What a client has proved that makes up for a password: it opens servers that hold the same verifier.
    pub pass: Option<Arc<PassThrough>>,
    /// How much is asked of the server's certificate.
    pub tls: ServerTlsSettings,
    /// The end of the wait for TCP, TLS and login together.
    pub connect_timeout: Duration,
    /// Further startup parameters. `client_encoding=UTF8` unless it is named here. No `application_name`:
    /// a client that gives none has none.
    pub parameters: Vec<(String, String)>,
    /// Keys derived from `password`; begin with the default.
    pub keys: KeyCache,
}

impl Endpoint {
    /// `host:port`, for messages.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// A connection that is ready for its first query.
pub struct Opened {
    /// The socket.
    pub stream: Stream,
    /// What the server sent after ReadyForQuery, mostly nothing. Its capacity can serve as the read buffer.
    pub leftover: BytesMut,
    /// The server's process id.
    pub pid: u32,
    /// The cancel key, 4 to 256 bytes; empty if the server gave none.
    pub secret: Bytes,
    /// What ParameterStatus said, in the order of the server.
    pub parameters: Vec<(String, String)>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("pid", &self.pid).finish_non_exhaustive() // the key is a secret
    }
}

/// Opens a connection and logs in. Cancel safe: dropped, it leaves nothing behind.
///
/// # Errors
/// [`ConnectError`]; nothing is retried but what libpq's `prefer` retries in clear.
pub async fn connect(endpoint: &Endpoint) -> Result<Opened, ConnectError> {
    within(endpoint, async {
        let stream = dial(endpoint).await?;
        let was_tls = stream.is_tls();
        match log_in(stream, endpoint).await {
            // pg_hba.conf may allow this user only in clear: libpq's "prefer" then does without TLS.
            Err(ConnectError::Auth { fields, .. })
                if was_tls && endpoint.tls.mode() == ServerTlsMode::Prefer && fields.code == "28000" =>
            {
                log_in(Stream::Plain(dial_tcp(endpoint).await?), endpoint).await
            }
            other => other,
        }
    })
    .await
}

/// Asks the server to cancel what connection `pid` runs, and waits until the server has taken it in. The answer, if
/// there is one, comes on that connection. Cancel safe, though the request may then have been sent.
///
/// # Errors
/// [`ConnectError`] if the request could not be delivered.
pub async fn cancel(endpoint: &Endpoint, pid: u32, secret: &[u8]) -> Result<(), ConnectError> {
    within(endpoint, async {
        let mut stream = dial(endpoint).await?;
        let mut packet = BytesMut::with_capacity(secret.len() + 12);
        packet.put_u32(secret.len() as u32 + 12);
        packet.put_u32(CANCEL_REQUEST);
        packet.put_u32(pid);
        packet.put_slice(secret);
        let delivered = async {
            stream.write_all(&packet).await?;
            stream.flush().await?;
            // The server closes once the signal is sent: a statement sent after that is not hit by it.
            match stream.read(&mut [0; 64]).await {
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()), // TLS without close_notify
                other => other.map(drop),
            }
        };
        delivered.await.map_err(|e| ConnectError::io(endpoint.address(), e))
    })
    .await
}

async fn within<T>(
    endpoint: &Endpoint,
    work: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let after = endpoint.connect_timeout;
    match tokio::time::timeout(after, work).await {
        Ok(done) => done,
        Err(_) => Err(ConnectError::Timeout { address: endpoint.address(), after }),
    }
}

async fn dial_tcp(endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
    let opened = async {
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        tcp.set_nodelay(true)?;
        notice_silence(&tcp)?;
        Ok(tcp)
    };
    opened.await.map_err(|e| ConnectError::io(endpoint.address(), e))
}

async fn dial(endpoint: &Endpoint) -> Result<Stream, ConnectError> {
    if endpoint.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", endpoint.host, endpoint.port);
        let unix = UnixStream::connect(path).await;
        return unix.map(Stream::Unix).map_err(|e| ConnectError::io(endpoint.address(), e));
    }
    let mut tcp = dial_tcp(endpoint).await?;
    if endpoint.tls.mode() == ServerTlsMode::Disable {
        return Ok(Stream::Plain(tcp));
    }
    let prefer = endpoint.tls.mode() == ServerTlsMode::Prefer;
    if !endpoint.tls.is_direct() && !server_has_tls(&mut tcp, endpoint).await? {
        return if prefer { Ok(Stream::Plain(tcp)) } else { Err(no_tls(endpoint, "it has none")) };
    }
    match endpoint.tls.handshake(tcp, &endpoint.host).await {
        Ok(tls) => Ok(Stream::Tls(Box::new(TlsStream::Client(tls)))),
        Err(_) if prefer => dial_tcp(endpoint).await.map(Stream::Plain),
        Err(e) => Err(no_tls(endpoint, e)),
    }
}

fn no_tls(endpoint: &Endpoint, why: impl fmt::Display) -> ConnectError {
    ConnectError::Tls { address: endpoint.address(), why: why.to_string() }
}

/// Sends SSLRequest and reads exactly one byte: all that follows must be TLS. Bytes that are already there were
/// sent in clear before the handshake, perhaps by somebody in between, and would be taken for the server's
/// (CVE-2021-23222).
async fn server_has_tls(tcp: &mut TcpStream, endpoint: &Endpoint) -> Result<bool, ConnectError> {
    let broken = |e| ConnectError::io(endpoint.address(), e);
    tcp.write_all(&SSL_REQUEST).await.map_err(broken)?;
    let mut answer = [0];
    if tcp.read(&mut answer).await.map_err(broken)? == 0 {
        return Err(ConnectError::closed(endpoint.address()));
    }
    match answer {
        [b'N'] => Ok(false),
        [b'S'] => match tcp.try_read(&mut [0]) {
            Ok(1..) => {
                let why = "it sent bytes in clear after its answer to SSLRequest";
                Err(ConnectError::protocol(endpoint.address(), why))
            }
            _ => Ok(true),
        },
        // An error here is not authenticated by anything, so its text is not shown (CVE-2024-10977).
        _ => Err(ConnectError::protocol(endpoint.address(), "its answer to SSLRequest is neither S nor N")),
    }
}
