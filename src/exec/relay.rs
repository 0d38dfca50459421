//! Both directions of an [`Exchange`] driven at once: what is read, what is written, and when neither is.
//! Must not know messages: what was read is looked at by [`Exchange::scan`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::exchange::{Event, Exchange, Lost, READ_MIN, Watch};
use crate::pool::{ServerConn, Stream};

/// A side is not read while this much waits to be written to the other, bytes.
const HIGH_WATER: usize = 64 << 10;
/// Largest size of a read, bytes.
const READ_MAX: usize = 256 << 10;
/// The same of a client that sends much, as in COPY FROM STDIN.
const CLIENT_READ_MAX: usize = 128 << 10;

impl Exchange {
    /// Drives both directions until something happened. `want_client`: whether the client may be read now.
    ///
    /// With `Watch::Idle` it goes on when nothing is owed, to pass on what a server says unasked. Cancel safe: all
    /// state is in `self`.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        inbuf: &mut BytesMut,
        server: &mut ServerConn,
        (want_client, watch): (bool, Watch),
    ) -> Poll<Event> {
        if let Err(error) = self.write_up(cx, &mut server.stream) {
            return Poll::Ready(Event::ServerLost(Lost { said: None, io: Some(error) }));
        }
        loop {
            if let Err(error) = self.write_down(cx, client) {
                tracing::debug!(%error, "client connection broke");
                return Poll::Ready(Event::ClientGone);
            }
            if watch == Watch::Answers && self.is_drained() {
                self.gather.end(server);
                return Poll::Ready(Event::Drained);
            }
            if self.ready >= HIGH_WATER {
                break; // a slow client slows its own server
            }
            match self.read_server(cx, server) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Event::ServerLost(Lost { said: None, io: None })),
                Poll::Ready(Ok(_)) => {
                    if let Some(lost) = self.scan(server) {
                        return Poll::Ready(Event::ServerLost(lost));
                    }
                    if !self.done.is_empty() || (self.expect.is_empty() && self.open_batch) || self.copy_in {
                        return match self.write_down(cx, client) {
                            Ok(()) => Poll::Ready(Event::Progress),
                            Err(error) => {
                                tracing::debug!(%error, "client connection broke");
                                Poll::Ready(Event::ClientGone)
                            }
                        };
                    }
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Event::ServerLost(Lost { said: None, io: Some(error) }));
                }
                Poll::Pending => {
                    if !self.expect.is_empty() {
                        self.gather.wait(cx, server);
                    }
                    break;
                }
            }
        }
        if want_client && self.up.len() < HIGH_WATER {
            return self.read_client(cx, client, inbuf);
        }
        Poll::Pending
    }

    /// Writes what is ready to the client, without any server.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> Poll<io::Result<()>> {
        if let Err(error) = self.write_down(cx, client) {
            return Poll::Ready(Err(error));
        }
        if self.ready == 0 { Pin::new(client).poll_flush(cx) } else { Poll::Pending }
    }

    fn read_client(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Stream,
        inbuf: &mut BytesMut,
    ) -> Poll<Event> {
        let size = self.client_read as usize;
        inbuf.reserve(size);
        let room = inbuf.capacity() - inbuf.len();
        match poll_read(cx, client, inbuf) {
            Poll::Ready(Ok(0)) => Poll::Ready(Event::ClientGone),
            Poll::Ready(Ok(n)) => {
                if n >= room {
                    self.client_read = (size * 2).min(CLIENT_READ_MAX) as u32; // as with the server
                }
                Poll::Ready(Event::Client)
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "client connection broke");
                Poll::Ready(Event::ClientGone)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn write_up(&mut self, cx: &mut Context<'_>, server: &mut Stream) -> io::Result<()> {
        let written = write_all_possible(cx, server, &self.up)?;
        drop_front(&mut self.up, written);
        Ok(())
    }

    fn write_down(&mut self, cx: &mut Context<'_>, client: &mut Stream) -> io::Result<()> {
        let written = write_all_possible(cx, client, self.down.get(..self.ready).unwrap_or_default())?;
        drop_front(&mut self.down, written);
        self.ready -= written;
        self.sent += written as u64;
        Ok(())
    }

    fn read_server(&mut self, cx: &mut Context<'_>, server: &mut ServerConn) -> Poll<io::Result<usize>> {
        self.down.reserve(self.read_size);
        let room = self.down.capacity() - self.down.len();
        let read = poll_read(cx, &mut server.stream, &mut self.down);
        if let Poll::Ready(Ok(n)) = read {
            self.received += n as u64;
            self.gather.came(n);
            self.finishes.read();
            // A read that filled its room means more is waiting: fewer, larger reads are cheaper.
            self.read_size = if n >= room { (self.read_size * 2).min(READ_MAX) } else { self.read_size };
        }
        read
    }
}

/// An empty buffer starts over at the beginning of its room.
fn drop_front(buf: &mut BytesMut, n: usize) {
    if n == buf.len() {
        buf.clear();
    } else {
        buf.advance(n);
    }
}

fn poll_read(cx: &mut Context<'_>, from: &mut Stream, into: &mut BytesMut) -> Poll<io::Result<usize>> {
    tokio_util::io::poll_read_buf(Pin::new(from) as Pin<&mut (dyn AsyncRead + Send)>, cx, into)
}

/// Writes what can be written now, or be put off; the rest when the task is woken.
pub(super) fn write_all_possible(cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8]) -> io::Result<usize> {
    if to.poll_left(cx)?.is_pending() || bytes.is_empty() {
        return Ok(0);
    }
    let mut written = 0;
    // A short write of much would be followed by one in vain.
    if bytes.len() <= READ_MIN
        && let Some(n) = to.write_soon(bytes, cx)
    {
        written = n?;
        if written == bytes.len() {
            return Ok(written);
        }
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    while let Some(rest) = bytes.get(written..).filter(|r| !r.is_empty()) {
        match Pin::new(&mut *to).poll_write(cx, rest) {
            Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Poll::Ready(Ok(n)) => written += n,
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
    }
    if written > 0
        && let Poll::Ready(Err(error)) = to.poll_left(cx)
    {
        return Err(error); // rustls buffers: unpolled the last record may stay behind
    }
    Ok(written)
}
