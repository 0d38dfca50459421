//! Long answers in larger pieces. A server sends 8 KiB at a time, and to be woken for each costs more than to pass it on:
//! while much comes fast, the kernel is to wake the proxy only when there is a good piece of it (SO_RCVLOWAT).
//! Must not know messages. The end of an answer may be less than a piece: after a lull the kernel wakes for a byte again.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::pool::ServerConn;

/// Answers up to this long are passed on as they come: a lull at their end would be felt, bytes.
const LONG: usize = 4 << 20;
/// A good piece, bytes. Below what the kernel lets a server send ahead (`tcp_rmem`), or it would wait as well.
const PIECE: usize = 64 << 10;
/// So long nothing comes when it has come to an end; the runtime's timers are no finer.
const LULL: Duration = Duration::from_millis(1);

/// Whether what a server sends is gathered.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Bytes since it was quiet last.
    streak: usize,
    lull: Option<Pin<Box<Sleep>>>,
    /// Something has come since the lull was to begin.
    renewed: bool,
}

impl Gather {
    /// So many bytes have come.
    pub(super) fn came(&mut self, n: usize) {
        self.streak += n;
        self.renewed = true;
    }

    /// More is to come, but nothing is there.
    pub(super) fn wait(&mut self, cx: &mut Context<'_>, server: &mut ServerConn) {
        if self.streak < LONG {
            return;
        }
        if !server.set_piece(PIECE) {
            self.streak = 0;
            return;
        }
        let lull = self.lull.get_or_insert_with(|| Box::pin(tokio::time::sleep(LULL)));
        if std::mem::take(&mut self.renewed) {
            lull.as_mut().reset(Instant::now() + LULL);
        }
        if let Poll::Ready(()) = lull.as_mut().poll(cx) {
            self.end(server); // what is there already wakes at once
        }
    }

    /// Every byte counts again.
    pub(super) fn end(&mut self, server: &mut ServerConn) {
        self.streak = 0;
        if self.lull.take().is_some() {
            server.set_piece(1);
        }
    }
}
