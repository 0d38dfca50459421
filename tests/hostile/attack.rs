//! One hostile client: what it sends, and how it leaves.
//! Must not know what it says.

use std::time::Duration;

use bytes::BytesMut;
use pgherd::wire::next_frame;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::bent::Bent;

/// Longest time in which a session that got an end of input must be over.
const OVER: Duration = Duration::from_secs(30);

/// How a client leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// At once, without reading.
    Close,
    /// At once, with a reset.
    Reset,
    /// It says that it will say no more, and reads to the end.
    HalfOpen,
    /// It reads all that comes for a moment, then resets.
    ReadThenReset,
}

impl Ending {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Close, Self::Reset, Self::HalfOpen, Self::ReadThenReset];
}

/// Sends `bytes` and leaves. The proxy may close first.
pub(crate) async fn attack(port: u16, bytes: &[u8], ending: Ending, what: &str) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut sink = vec![0; 16 << 10];
    if matches!(ending, Ending::HalfOpen) {
        // Both ways at once: the answers may be longer than what fits between.
        let (mut reader, mut writer) = stream.split();
        let send = async {
            drop(writer.write_all(bytes).await);
            drop(writer.shutdown().await);
        };
        let read = async { while matches!(reader.read(&mut sink).await, Ok(n) if n > 0) {} };
        let both = timeout(OVER, async { tokio::join!(send, read) }).await;
        assert!(
            both.is_err_and_none(),
            "the session is not over after {OVER:?}: {what}, {} bytes",
            bytes.len()
        );
        return;
    }
    drop(timeout(OVER, stream.write_all(bytes)).await);
    if ending == Ending::ReadThenReset {
        while matches!(timeout(Duration::from_millis(3), stream.read(&mut sink)).await, Ok(Ok(n)) if n > 0) {}
    }
    if ending != Ending::Close {
        stream.set_zero_linger().unwrap();
    }
}

/// The same inside TLS, asked for in the usual way: all is said, then that no more will be, and all that comes is read.
pub(crate) async fn attack_in_tls(port: u16, bytes: &[u8], tls: &TlsConnector, what: &str) {
    let stream = ask_for_tls(port).await;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = tls.connect(name, stream).await.unwrap();
    say_and_read(stream, bytes, what).await;
}

/// Logs in through TLS, says it, and reads to ReadyForQuery, but not before `then`. How many bytes it was told.
pub(crate) async fn read_late(
    port: u16,
    tls: &TlsConnector,
    bytes: &[u8],
    then: impl Future<Output = ()>,
) -> usize {
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tls.connect(name, ask_for_tls(port).await).await.unwrap();
    stream.write_all(b"\0\0\0\x1f\0\x03\0\0user\0raw\0database\0app\0\0").await.unwrap();
    stream.flush().await.unwrap(); // a write through TLS is done when it is encrypted
    let mut buf = BytesMut::new();
    while told_until_ready(&mut buf).is_none() {
        let read = stream.read_buf(&mut buf).await;
        assert!(matches!(read, Ok(1..)), "{read:?} behind {}", buf.escape_ascii());
    }
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    then.await;
    loop {
        if let Some(told) = told_until_ready(&mut buf) {
            return told;
        }
        assert_ne!(stream.read_buf(&mut buf).await.unwrap(), 0);
    }
}

/// Takes all messages up to ReadyForQuery, if that is there. How many bytes they are.
fn told_until_ready(buf: &mut BytesMut) -> Option<usize> {
    if !buf.ends_with(b"Z\0\0\0\x05I") {
        return None;
    }
    let told = buf.len();
    while next_frame(buf, 1 << 20).unwrap().is_some() {}
    buf.is_empty().then_some(told)
}

async fn ask_for_tls(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'S');
    stream
}

/// The same on a socket that changes what is said, asked for or not (`direct`). It may well fail, but it ends: by itself,
/// or because the client leaves after a moment. Whether the handshake came about.
pub(crate) async fn attack_by_tls(
    port: u16,
    bytes: &[u8],
    (tls, direct): (&TlsConnector, bool),
    rng: &mut StdRng,
    what: &str,
) -> bool {
    let stream =
        if direct { TcpStream::connect(("127.0.0.1", port)).await.unwrap() } else { ask_for_tls(port).await };
    let name = ServerName::try_from("localhost").unwrap();
    let shaken = tls.connect(name, Bent::new(stream, rng));
    match timeout(Duration::from_millis(300), shaken).await {
        Ok(Ok(stream)) => {
            let talk = say_and_read(stream, bytes, what);
            drop(timeout(Duration::from_secs(1), talk).await);
            true
        }
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn say_and_read(stream: impl AsyncRead + AsyncWrite, bytes: &[u8], what: &str) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let send = async {
        drop(writer.write_all(bytes).await);
        drop(writer.shutdown().await);
    };
    let mut sink = vec![0; 16 << 10];
    let read = async { while matches!(reader.read(&mut sink).await, Ok(n) if n > 0) {} };
    let both = timeout(OVER, async { tokio::join!(send, read) }).await;
    assert!(both.is_ok(), "the session is not over after {OVER:?}: {what}\n{}", bytes.escape_ascii());
}

/// Says as much as is taken, and never reads an answer. It stays until it is dropped.
pub(crate) async fn never_read(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&super::script::startup()).await.unwrap();
    drop(timeout(Duration::from_millis(500), stream.write_all(bytes)).await);
    stream
}

trait IsOver {
    fn is_err_and_none(&self) -> bool;
}

impl<T> IsOver for Result<T, tokio::time::error::Elapsed> {
    fn is_err_and_none(&self) -> bool {
        self.is_ok()
    }
}

/// The proxy ends the connection though the client keeps it open.
pub(crate) async fn must_be_closed(port: u16, bytes: &[u8], after_login: bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    if after_login {
        stream.write_all(&super::script::startup()).await.unwrap();
    }
    stream.write_all(bytes).await.unwrap();
    let mut all = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await;
    assert!(read.is_ok(), "not closed after {:?} (login: {after_login})", bytes.escape_ascii().to_string());
}
