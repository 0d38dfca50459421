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
mod tests;
