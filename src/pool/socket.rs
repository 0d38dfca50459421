//! A TCP socket whose short writes are put off to the end of the round, see `round`. What could not be written then is
//! kept, as the kernel keeps what it has taken: it goes out before anything else.
//! Must not know what is written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8,
    Ordering::{AcqRel, Acquire, Release},
};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::round;

/// Everything is written.
const CLEAR: u8 = 0;
/// A write is put off to the end of the round.
const PUT_OFF: u8 = 1;
/// It could not be made, or not whole.
const LEFT: u8 = 2;
/// It is put off on another thread, and somebody waits until it is made.
const AWAITED: u8 = 3;

/// The side that is written to, shared with the round.
#[derive(Debug)]
pub(super) struct Writer {
    /// `None` only while it is dropped.
    half: Option<OwnedWriteHalf>,
    state: AtomicU8,
    rare: Mutex<Option<Box<Rare>>>,
}

#[derive(Debug, Default)]
struct Rare {
    /// What is left, or why it cannot be written.
    left: Option<io::Result<Vec<u8>>>,
    /// Who waits: not always whoever put it off, for the answer may have come, and the socket have gone to another task,
    /// before the thread that has written it takes note of that.
    waiter: Option<Waker>,
}

/// Both sides. Written to as any other, it puts off what is short once it is joined to the rounds; what is put off counts
/// as flushed, for nobody has to see to it any more.
#[derive(Debug)]
pub struct Socket {
    read: OwnedReadHalf,
    write: Arc<Writer>,
    is_joined: bool,
}

impl Writer {
    /// The socket.
    #[expect(clippy::expect_used, reason = "the half is taken only when the value is dropped")]
    pub(super) fn tcp(&self) -> &TcpStream {
        self.half.as_ref().expect("a writer has its half").as_ref()
    }

    /// What was put off has been written.
    pub(super) fn all_sent(&self) {
        if self.state.swap(CLEAR, AcqRel) == AWAITED {
            self.wake_waiter();
        }
    }

    #[cold]
    fn wake_waiter(&self) {
        let waiter = self.rare.lock().as_mut().and_then(|rare| rare.waiter.take());
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    /// The end of what was put off could not be written yet.
    pub(super) fn keep(&self, rest: Vec<u8>) {
        self.leave(Ok(rest));
    }

    /// What was put off cannot be written.
    pub(super) fn fail(&self, error: io::Error) {
        self.leave(Err(error));
    }

    fn leave(&self, left: io::Result<Vec<u8>>) {
        self.rare.lock().get_or_insert_default().left = Some(left);
        self.state.store(LEFT, Release);
        self.wake_waiter();
    }

    /// Has the task of `cx` woken when what is put off on another thread has been written.
    #[cold]
    fn await_other(&self, cx: &Context<'_>) {
        self.rare.lock().get_or_insert_default().waiter = Some(cx.waker().clone());
        // Unless it is done by now: the waker is there before anybody is told to look for it.
        let _ = self.state.compare_exchange(PUT_OFF, AWAITED, AcqRel, Acquire);
    }

    /// Writes what is left.
    fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let left = self.rare.lock().as_mut().and_then(|rare| rare.left.take());
        let Some(left) = left else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())); // that it failed was said before
        };
        let mut rest = left?;
        loop {
            match self.tcp().try_write(&rest) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(n) if n == rest.len() => {
                    self.state.store(CLEAR, Release);
                    return Poll::Ready(Ok(()));
                }
                Ok(n) => drop(rest.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if let Poll::Ready(ready) = self.tcp().poll_write_ready(cx) {
                        ready?;
                        continue;
                    }
                    self.keep(rest);
                    return Poll::Pending;
                }
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(half) = self.half.take() {
            half.forget(); // or it would shut the socket down first, which the end of both halves closes anyway
        }
    }
}

impl Socket {
    /// Of a socket that writes at once until it is joined to the rounds.
    #[must_use]
    pub fn new(tcp: TcpStream) -> Self {
        let (read, write) = tcp.into_split();
        let write = Writer { half: Some(write), state: AtomicU8::new(CLEAR), rare: Mutex::new(None) };
        Self { read, write: Arc::new(write), is_joined: false }
    }

    /// From now on writes are put off, where that can be done.
    pub(super) fn join(&mut self) {
        self.is_joined = round::is_available();
    }

    /// The socket itself, for what is neither read nor written.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.read.as_ref()
    }

    /// Writes what an earlier round has left. Ready though something is put off until the end of this one.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write.state.load(Acquire) == LEFT { self.write.poll_left(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Until everything is written that was put off.
    pub(super) fn poll_clear(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = &self.write.state;
        if state.load(Acquire) == PUT_OFF {
            round::end();
        }
        if matches!(state.load(Acquire), PUT_OFF | AWAITED) {
            self.write.await_other(cx);
        }
        match state.load(Acquire) {
            CLEAR => Poll::Ready(Ok(())),
            LEFT => self.write.poll_left(cx),
            _ => Poll::Pending,
        }
    }

    /// Writes, or puts off, something short. `None`: it has to be polled.
    pub(super) fn write_soon(&self, bytes: &[u8], cx: &Context<'_>) -> Option<io::Result<usize>> {
        if self.write.state.load(Acquire) != CLEAR {
            return None;
        }
        if bytes.len() <= round::SHORT {
            self.write.state.store(PUT_OFF, Release);
            if round::put(&self.write, bytes, cx) {
                return Some(Ok(bytes.len()));
            }
            self.write.state.store(CLEAR, Release);
        } else {
            round::end(); // see `poll_write`
        }
        match self.write.tcp().try_write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            wrote => Some(wrote),
        }
    }

    /// Writes at once. Something long, and whoever has that may be at it for a while: all that is put off goes first.
    pub(super) fn poll_write_now(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        round::end();
        ready!(self.poll_clear(cx))?;
        loop {
            match self.tcp().try_write_vectored(parts) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.tcp().poll_write_ready(cx))?,
                wrote => return Poll::Ready(wrote),
            }
        }
    }

    pub(super) fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        self.read.try_read(into)
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().read).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_joined && parts.iter().map(|part| part.len()).sum::<usize>() <= round::SHORT {
            let wrote = match parts {
                [whole] => self.write_soon(whole, cx),
                parts => self
                    .write_soon(&parts.iter().flat_map(|part| part.iter().copied()).collect::<Vec<_>>(), cx),
            };
            if let Some(wrote) = wrote {
                return Poll::Ready(wrote);
            }
        }
        self.poll_write_now(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_left(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_clear(cx))?;
        Poll::Ready(socket2::SockRef::from(self.tcp()).shutdown(std::net::Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::pool::Stream;

    async fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        let ours = Stream::Plain(ours).joint();
        assert!(matches!(ours, Stream::Joint(_)), "the kernel of a machine that tests has io_uring");
        (ours, theirs)
    }

    async fn soon(stream: &mut Stream, bytes: &[u8]) -> Option<usize> {
        poll_fn(|cx| Poll::Ready(stream.write_soon(bytes, cx).map(Result::unwrap))).await
    }

    fn is_put_off(stream: &Stream) -> bool {
        let socket = match stream {
            Stream::Joint(socket) => socket,
            Stream::Tls(tls) => tls.get_ref().0,
            Stream::Plain(_) | Stream::Unix(_) => return false,
        };
        socket.write.state.load(Acquire) == PUT_OFF
    }

    /// Both ends of TLS; ours is joined to the rounds.
    async fn tls_pair() -> (Stream, tokio_rustls::client::TlsStream<TcpStream>) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        let ours = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(Socket::new(ours));
        let theirs = tokio_rustls::TlsConnector::from(Arc::new(client))
            .connect(rustls::pki_types::ServerName::try_from("localhost").unwrap(), theirs);
        let (ours, theirs) = tokio::try_join!(ours, theirs).unwrap();
        (Stream::Tls(Box::new(tokio_rustls::TlsStream::Server(ours))).joint(), theirs)
    }

    #[tokio::test]
    async fn what_is_encrypted_is_written_with_the_round_too() {
        let mut pairs = Vec::new();
        for _ in 0..5 {
            pairs.push(tls_pair().await);
        }
        for round in 0..3 {
            for (n, (ours, _)) in pairs.iter_mut().enumerate() {
                assert_eq!(soon(ours, b"x").await, None, "it has to be encrypted");
                ours.write_all(format!("{round}: to {n:04}").as_bytes()).await.unwrap();
            }
            assert!(pairs.iter().all(|(ours, _)| is_put_off(ours)));
            for (n, (_, theirs)) in pairs.iter_mut().enumerate() {
                let mut came = [0; 10];
                theirs.read_exact(&mut came).await.unwrap();
                assert_eq!(came, format!("{round}: to {n:04}").as_bytes());
            }
        }
        let (ours, theirs) = pairs.first_mut().unwrap();
        ours.write_all(b"last").await.unwrap();
        ours.write_all(b" words").await.unwrap();
        ours.flush().await.unwrap();
        assert!(!is_put_off(ours), "flushed is written");
        ours.shutdown().await.unwrap();
        let mut came = String::new();
        theirs.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "last words");
    }

    #[tokio::test]
    async fn a_peer_that_reads_late_gets_all_that_was_encrypted() {
        let (mut ours, mut theirs) = tls_pair().await;
        let mut wrote = Vec::new();
        // Pieces short and long, until neither the socket nor rustls takes more.
        for piece in (0..).map(|n| (n % 7 + 1) * 1500) {
            let bytes: Vec<u8> = (0..piece).map(|n| (n + wrote.len()) as u8).collect();
            let took = poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_write(cx, &bytes))).await;
            let Poll::Ready(took) = took else { break };
            wrote.extend_from_slice(&bytes[..took.unwrap()]);
            round::end();
        }
        assert!(wrote.len() > 100_000);
        assert!(poll_fn(|cx| Poll::Ready(ours.poll_left(cx))).await.is_pending());
        let mut came = vec![0; wrote.len()];
        let (left, read) = tokio::join!(poll_fn(|cx| ours.poll_left(cx)), theirs.read_exact(&mut came));
        left.unwrap();
        read.unwrap();
        assert!(came == wrote);
    }

    #[tokio::test]
    async fn the_writes_of_a_round_are_made_when_it_ends() {
        let mut pairs = Vec::new();
        for _ in 0..round::tests::MOST * 2 + 1 {
            pairs.push(pair().await);
        }
        for round in 0..3 {
            for (n, (ours, _)) in pairs.iter_mut().enumerate() {
                let text = format!("{round}: to {n:04}");
                assert_eq!(soon(ours, text.as_bytes()).await, Some(text.len()));
            }
            let put_off = pairs.iter().filter(|(ours, _)| is_put_off(ours)).count();
            assert_eq!(put_off, 1, "all but the last are in two rounds that were full");
            for (n, (_, theirs)) in pairs.iter_mut().enumerate() {
                let mut came = [0; 10];
                theirs.read_exact(&mut came).await.unwrap();
                assert_eq!(came, format!("{round}: to {n:04}").as_bytes());
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_later_comes_later() {
        let (mut ours, mut theirs) = pair().await;
        assert_eq!(soon(&mut ours, b"first").await, Some(5));
        assert!(is_put_off(&ours));
        assert_eq!(soon(&mut ours, b"second").await, None, "one at a time");
        ours.write_all(b" second").await.unwrap();
        assert_eq!(soon(&mut ours, b" third").await, Some(6));
        ours.flush().await.unwrap();
        assert!(!is_put_off(&ours));
        ours.shutdown().await.unwrap();
        let mut came = String::new();
        theirs.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "first second third");
    }

    #[tokio::test]
    async fn what_is_put_off_is_written_though_the_stream_is_dropped() {
        let (mut ours, mut theirs) = pair().await;
        let (mut others, mut their_others) = pair().await;
        assert_eq!(soon(&mut ours, b"last words").await, Some(10));
        assert_eq!(soon(&mut others, b"more of them").await, Some(12));
        drop((ours, others));
        let mut came = String::new();
        theirs.read_to_string(&mut came).await.unwrap();
        their_others.read_to_string(&mut came).await.unwrap();
        assert_eq!(came, "last wordsmore of them");
    }

    /// Both ways in which the kernel is told, alone and with others.
    #[tokio::test]
    async fn a_peer_that_does_not_read_gets_all_of_it_when_it_does() {
        for alone in [true, false] {
            let (mut ours, mut theirs) = pair().await;
            let (mut others, mut their_others) = pair().await;
            let (mut wrote, mut piece) = (Vec::new(), 0_u32);
            // Until something is left over.
            loop {
                let bytes: Vec<u8> = (0..1000).flat_map(|n| (piece * 1000 + n).to_be_bytes()).collect();
                if soon(&mut ours, &bytes).await.is_none() {
                    break;
                }
                wrote.extend_from_slice(&bytes);
                piece += 1;
                if !alone {
                    assert_eq!(soon(&mut others, b"x").await, Some(1));
                    let Stream::Joint(socket) = &others else { unreachable!() };
                    poll_fn(|cx| socket.poll_clear(cx)).await.unwrap();
                    their_others.read_exact(&mut [0]).await.unwrap();
                }
                round::end();
            }
            let still = poll_fn(|cx| Poll::Ready(ours.poll_left(cx))).await;
            assert!(still.is_pending(), "{still:?}");
            let mut came = vec![0; wrote.len()];
            let (left, read) = tokio::join!(poll_fn(|cx| ours.poll_left(cx)), theirs.read_exact(&mut came));
            left.unwrap();
            read.unwrap();
            assert!(came == wrote, "alone: {alone}");
            assert_eq!(soon(&mut ours, b"again").await, Some(5));
            let mut came = [0; 5];
            theirs.read_exact(&mut came).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_is_told_of() {
        for alone in [true, false] {
            let (mut ours, theirs) = pair().await;
            let (mut others, _their_others) = pair().await;
            drop(theirs);
            let failed = poll_fn(|cx| {
                if let Poll::Ready(Err(error)) = ours.poll_left(cx) {
                    return Poll::Ready(error);
                }
                if !alone {
                    others.write_soon(b"x", cx).map(Result::unwrap);
                }
                // The first that reaches it is answered by a reset, the next fails.
                let Some(Ok(_)) = ours.write_soon(b"hello", cx) else { return Poll::Pending };
                cx.waker().wake_by_ref();
                Poll::Pending
            });
            let error = failed.await;
            assert!(
                matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
                "{error}"
            );
        }
    }

    /// Sockets that are written to by tasks of several workers, from one worker now and another then.
    #[test]
    fn workers_end_their_rounds_before_they_sleep() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime =
            runtime.worker_threads(3).enable_all().on_thread_park(round::before_sleep).build().unwrap();
        runtime.block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..40 {
                tasks.push(tokio::spawn(async {
                    let (mut ours, mut theirs) = pair().await;
                    let talk = async {
                        for n in 0..500_u32 {
                            if soon(&mut ours, &n.to_be_bytes()).await.is_none() {
                                ours.write_all(&n.to_be_bytes()).await.unwrap();
                            }
                            match n % 7 {
                                0 => ours.flush().await.unwrap(),
                                1 | 2 => {}
                                _ => tokio::task::yield_now().await,
                            }
                        }
                        ours.flush().await.unwrap();
                        ours
                    };
                    let listen = tokio::spawn(async move {
                        for n in 0..500 {
                            assert_eq!(theirs.read_u32().await.unwrap(), n);
                        }
                    });
                    talk.await;
                    listen.await.unwrap();
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    /// As a server connection does: whoever has its answer hands it on, and the next one writes at once.
    #[test]
    fn a_socket_goes_from_task_to_task_with_every_answer() {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime =
            runtime.worker_threads(3).enable_all().on_thread_park(round::before_sleep).build().unwrap();
        let talks = async {
            let (give, take) = tokio::sync::mpsc::channel(8);
            for _ in 0..8 {
                let (ours, mut theirs) = pair().await;
                give.send(ours).await.unwrap();
                tokio::spawn(async move {
                    while let Ok(asked) = theirs.read_u32().await {
                        theirs.write_u32(asked).await.unwrap();
                    }
                });
            }
            let take = Arc::new(tokio::sync::Mutex::new(take));
            let mut tasks = Vec::new();
            for _ in 0..24 {
                let (give, take) = (give.clone(), take.clone());
                tasks.push(tokio::spawn(async move {
                    for n in 0..1000 {
                        let mut ours = take.lock().await.recv().await.unwrap();
                        if soon(&mut ours, &u32::to_be_bytes(n)).await.is_none() {
                            ours.write_all(&u32::to_be_bytes(n)).await.unwrap();
                        }
                        assert_eq!(ours.read_u32().await.unwrap(), n);
                        give.send(ours).await.unwrap();
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(60);
        runtime.block_on(async { tokio::time::timeout(limit, talks).await.unwrap() });
    }

    #[test]
    fn where_nobody_ends_the_round_nothing_is_put_off() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let put_off = async {
            let (mut ours, _theirs) = pair().await;
            assert_eq!(soon(&mut ours, b"hello").await, Some(5));
            is_put_off(&ours)
        };
        assert!(!runtime.block_on(async { tokio::spawn(put_off).await.unwrap() }));
    }
}
