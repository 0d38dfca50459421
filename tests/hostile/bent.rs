//! A socket on which what is written arrives changed: the handshake of TLS, and what is inside it.
//! Must not know TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What happens to the byte at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    /// It is another.
    Is(u8),
    /// It is there twice.
    Twice,
    /// It and all after it never comes, though the socket stays open for it.
    Lost,
}

/// A socket with one such place.
#[derive(Debug)]
pub(crate) struct Bent {
    inner: TcpStream,
    at: usize,
    change: Change,
    written: usize,
}

impl Bent {
    pub(crate) fn new(inner: TcpStream, rng: &mut StdRng) -> Self {
        let change = match rng.random_range(0..10) {
            0 => Change::Twice,
            1 => Change::Lost,
            _ => Change::Is(rng.random()),
        };
        // Nearly half of them in the first message, whose head is the likeliest place for mischief.
        let at = if rng.random_bool(0.2) { rng.random_range(0..12) } else { rng.random_range(0..900) };
        Self { inner, at, change, written: 0 }
    }
}

impl AsyncWrite for Bent {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let here = self.at.checked_sub(self.written).filter(|here| *here < bytes.len());
        if matches!(self.change, Change::Lost) && (here == Some(0) || self.written > self.at) {
            self.written += bytes.len();
            return Poll::Ready(Ok(bytes.len()));
        }
        // Up to the place, then it alone, then the rest: so each of the three is written as it is to come.
        let piece = match here {
            Some(0) => match self.change {
                Change::Is(other) => vec![other],
                Change::Twice | Change::Lost => vec![bytes[0]; 2],
            },
            Some(here) => bytes[..here].to_vec(),
            None => bytes.to_vec(),
        };
        let wrote = match Pin::new(&mut self.inner).poll_write(cx, &piece) {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        };
        let taken = if here == Some(0) { 1 } else { wrote };
        self.written += taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl AsyncRead for Bent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}
