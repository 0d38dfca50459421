//! A socket to a client or a server, with or without TLS, read and written alike.
//! Must not know messages, nor which of the two sits at the other end.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use nix::libc;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SetUsize;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::round;
use super::socket::Socket;

/// Enough for what a quiet peer may say by itself (a notice, a parameter); more is read in further rounds.
const SCRATCH: usize = 512;

#[derive(Clone, Copy)]
struct RecvLowWater;

nix::setsockopt_impl!(RecvLowWater, libc::SOL_SOCKET, libc::SO_RCVLOWAT, usize, SetUsize);

/// A socket. Flushed, it has written all that was put off, and with TLS the records that the socket had no room for; see
/// also [`Stream::poll_left`].
#[derive(Debug)]
pub enum Stream {
    /// TCP in clear.
    Plain(TcpStream),
    /// The same, with short writes put off to the end of the runtime's round, see [`Stream::joint`].
    Joint(Socket),
    /// A Unix socket; never with TLS, as with PostgreSQL.
    Unix(UnixStream),
    /// TLS over TCP, from either side. Boxed: the session of rustls is over 1 KiB.
    Tls(Box<TlsStream<Socket>>),
}

/// What a peer that owes us nothing did meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idle {
    /// Nothing: it is as it was left.
    Quiet,
    /// It closed the connection, or the connection broke.
    Closed,
    /// It sent something unasked, now at the end of the given buffer.
    Bytes,
}

impl Stream {
    /// Whether what passes is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Switches Nagle's algorithm off or on; nothing on a Unix socket.
    ///
    /// # Errors
    /// As `setsockopt`: the socket is already broken.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.set_nodelay(on),
            Self::Joint(socket) => socket.tcp().set_nodelay(on),
            Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.get_ref().0.tcp().set_nodelay(on),
        }
    }

    /// Has the socket count as readable only when so many bytes are there (SO_RCVLOWAT, `tcp(7)`); at once if they
    /// are. False if it cannot be done, as on a Unix socket, where the kernel does not heed it.
    #[must_use]
    pub fn set_low_water(&self, bytes: usize) -> bool {
        match self {
            Self::Plain(tcp) => setsockopt(tcp, RecvLowWater, &bytes).is_ok(),
            Self::Joint(socket) => setsockopt(socket.tcp(), RecvLowWater, &bytes).is_ok(),
            Self::Unix(_) => false,
            Self::Tls(tls) => setsockopt(tls.get_ref().0.tcp(), RecvLowWater, &bytes).is_ok(),
        }
    }

    /// Whether the peer has closed its side and nothing it sent before is left to be read. Reads nothing.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let seen = match self {
            Self::Plain(tcp) => SockRef::from(tcp).peek(&mut byte),
            Self::Joint(socket) => SockRef::from(socket.tcp()).peek(&mut byte),
            Self::Unix(unix) => SockRef::from(unix).peek(&mut byte),
            Self::Tls(tls) => SockRef::from(tls.get_ref().0.tcp()).peek(&mut byte),
        };
        match seen {
            Ok(read) => read == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// The stream for a conversation of short messages: its writes are put off to the end of the runtime's round where
    /// that can be done, and made together with all others of that round.
    #[must_use]
    pub fn joint(self) -> Self {
        match self {
            Self::Plain(tcp) if round::is_available() => {
                let mut socket = Socket::new(tcp);
                socket.join();
                Self::Joint(socket)
            }
            Self::Tls(mut tls) => {
                tls.get_mut().0.join();
                Self::Tls(tls)
            }
            Self::Plain(_) | Self::Joint(_) | Self::Unix(_) => self,
        }
    }

    /// Writes what is left of what was said to be written: of what was put off, what could not be written then; with TLS,
    /// records that the socket had no room for. Whoever keeps a stream after a write polls this whenever it is woken.
    pub fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Joint(socket) => socket.poll_left(cx),
            Self::Tls(tls) if tls.get_ref().1.wants_write() => Pin::new(tls).poll_flush(cx),
            Self::Tls(tls) => tls.get_ref().0.poll_left(cx),
            Self::Plain(_) | Self::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    /// What is put off is written now: for whoever ends a conversation, so that the other side does not see its end before.
    pub fn end_round(&self) {
        match self {
            Self::Joint(_) | Self::Tls(_) => round::end(),
            Self::Plain(_) | Self::Unix(_) => {}
        }
    }

    /// Writes what the socket has room for, if the runtime knows of any, or puts it off: less than a poll where that can
    /// be done, which is the common case. `None`: it has to be polled, as always with TLS.
    pub fn write_soon(&mut self, bytes: &[u8], cx: &Context<'_>) -> Option<io::Result<usize>> {
        let written = match self {
            Self::Joint(socket) => return socket.write_soon(bytes, cx),
            Self::Plain(tcp) => tcp.try_write(bytes),
            Self::Unix(unix) => unix.try_write(bytes),
            Self::Tls(_) => return None,
        };
        match written {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            written => Some(written),
        }
    }

    /// Looks, without waiting, whether the peer closed or said something since it was left idle. Costs no system
    /// call while the runtime has seen nothing arrive. What was read is appended to `unasked`.
    pub fn poll_idle(&mut self, unasked: &mut BytesMut) -> Idle {
        let mut scratch = [0; SCRATCH];
        let read = match self {
            Self::Plain(tcp) => tcp.try_read(&mut scratch),
            Self::Joint(socket) => socket.try_read(&mut scratch),
            Self::Unix(unix) => unix.try_read(&mut scratch),
            Self::Tls(tls) => {
                let mut filled = ReadBuf::new(&mut scratch);
                let mut context = Context::from_waker(Waker::noop());
                match Pin::new(tls).poll_read(&mut context, &mut filled) {
                    Poll::Pending => return Idle::Quiet,
                    Poll::Ready(done) => done.map(|()| filled.filled().len()),
                }
            }
        };
        match read {
            Ok(0) => Idle::Closed,
            Ok(n) => {
                unasked.extend_from_slice(scratch.get(..n).unwrap_or_default());
                Idle::Bytes
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Idle::Quiet,
            Err(_) => Idle::Closed,
        }
    }

    /// Whether there may be something to read, so that an idle peer needs no buffer: on a plain socket nothing is read.
    /// With TLS there may be, if something has come that was not decrypted yet, or was decrypted and not read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
            Self::Joint(socket) => socket.tcp().poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
            Self::Tls(tls) => {
                let (socket, session) = tls.get_ref();
                if session.wants_read() { socket.tcp().poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Joint(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Joint(socket) => socket.poll_write_now(cx, &[IoSlice::new(buf)]),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Joint(socket) => socket.poll_write_now(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Joint(socket) => socket.is_write_vectored(),
            Self::Unix(unix) => unix.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Joint(socket) => socket.poll_clear(cx),
            Self::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Self::Tls(tls) => {
                ready!(Pin::new(&mut *tls).poll_flush(cx))?;
                tls.get_ref().0.poll_clear(cx)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Joint(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
