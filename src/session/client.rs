//! One client after its login: what it owns, and the loop between idle and a turn of work.
//! Must not know how messages are understood (`feed`), nor how servers are chosen (`cluster`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::cancels::{CancelSlot, KILL, REFRESH, STALE};
use super::crowd::Seat;
use super::ears::{Ears, Intents};
use super::idle::Woke;
use super::measure::Measured;
use super::pins::Pins;
use super::prepared::{ClientStatement, Named, Portal};
use super::proxy::Proxy;
use super::served::Served;
use super::txn::Txn;
use super::vars::Vars;
use crate::catalog::Leaves;
use crate::cluster::{Flux, Leased, UserPools};
use crate::config::{Config, User};
use crate::exec::Exchange;
use crate::pool::{PassThrough, Stream};
use crate::route::{Pin as Tie, Recall, Route, Router, SetParameter, Statement};
use crate::shard::ShardId;
use crate::stats::{DatabaseSlot, Moment, SessionStats, StatementSlot};
use crate::wire::{BackendWriter, ErrorReport, Severity, SqlState, TransactionStatus};

/// A session's buffer is let go when it is empty and larger than this, bytes.
const KEEP_BUFFER: usize = 16 << 10;
/// The same for the copy of what was sent.
const KEEP_REPLAY: usize = 1 << 10;

/// What a session works on: a database with servers, or the virtual one.
#[derive(Debug)]
pub(super) enum Place {
    /// A database.
    Database { served: Arc<Served>, pools: Arc<UserPools> },
    /// `pgherd`: virtual tables and commands.
    Admin,
}

/// One client.
pub(super) struct Client {
    pub(super) proxy: Arc<Proxy>,
    /// As it was when the session last looked.
    pub(super) config: Arc<Config>,
    /// The router last used, and the schema's version it was made for.
    pub(super) router: Option<(u64, Arc<Router>)>,
    /// What it asked last.
    pub(super) recall: Recall,
    pub(super) place: Place,
    pub(super) user: Arc<User>,
    pub(super) standing: Box<Standing>,
    pub(super) stats: SessionStats,
    /// Its database, for statistics.
    pub(super) database: DatabaseSlot,
    pub(super) cancel: Arc<CancelSlot>,
    pub(super) stream: Stream,
    pub(super) inbuf: BytesMut,
    /// Boxed, as `turn` is: laid down and taken up at each turn without being moved.
    pub(super) x: Box<Exchange>,
    pub(super) vars: Arc<Vars>,
    /// What the client was told by ParameterStatus.
    pub(super) reported: Arc<BTreeMap<String, String>>,
    pub(super) txn: Txn,
    /// The server at work, or in the client's transaction.
    pub(super) server: Option<Leased>,
    /// Servers kept because state of the client lives there, or because the pool mode is session.
    pub(super) kept: SmallVec<[Kept; 1]>,
    pub(super) statements: Named<Arc<ClientStatement>>,
    pub(super) portals: Named<Portal>,
    /// When this session last wrote on a shard.
    pub(super) writes: SmallVec<[(ShardId, Instant); 1]>,
    pub(super) turn: Box<Turn>,
    /// The session is to end with this as soon as it is idle.
    pub(super) ending: Option<Box<ErrorReport>>,
    /// From the first LISTEN on.
    pub(super) ears: Option<Box<Ears>>,
    /// Bytes of the client since nothing was owed, to be understood anew if a replica dies.
    pub(super) replay: BytesMut,
}

/// What a client was given at its login, for as long as it stays.
pub(super) struct Standing {
    /// What its proof opens on servers, where there is no password.
    pub(super) pass: Option<Arc<PassThrough>>,
    /// Counted until it is dropped.
    pub(super) seat: Seat,
    /// In session pooling over one shard: the server of this session, until it is first at work.
    pub(super) fixed: Option<Leased>,
}

/// A server that stays with the client.
pub(super) struct Kept {
    pub(super) leased: Leased,
    pub(super) pins: Pins,
}

/// What lasts from the first message after idle until all is answered.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one turn, any mix is possible")]
pub(super) struct Turn {
    /// Length of the message at the front of the client's buffer that is being worked on; 0: none.
    pub(super) current: usize,
    /// What was already found out about it.
    pub(super) stash: Option<Box<Stash>>,
    /// Extended-protocol messages that wait for a server to be chosen.
    pub(super) deferred: SmallVec<[Deferred; 2]>,
    /// An error was answered: messages are dropped up to Sync.
    pub(super) skip: bool,
    /// Effects of statements that are under way, by mark - 1.
    pub(super) effects: Vec<Effect>,
    /// A statement is under way after which nothing may be sent before its answer.
    pub(super) barrier: bool,
    /// What the open batch has done on the server: reads only so far?
    pub(super) batch_wrote: bool,
    /// The proxy has ended the client's batch on a server: what that one does not have of it goes on.
    pub(super) divided: bool,
    /// A Query has gone out since all was answered last, and may fail.
    pub(super) queried: bool,
    /// All statements of this exchange only read, and `replay` holds all of it.
    pub(super) only_reads: bool,
    /// What has become of names of statements since then, to be taken back where an error skips it.
    pub(super) changes: Vec<Change>,
    /// So many of them are of batches that a Sync has closed.
    pub(super) closed: usize,
    /// So many of them stand: all that was asked until then has been answered.
    pub(super) sure: usize,
    /// Statements of which a description is under way.
    pub(super) learning: Vec<Arc<ClientStatement>>,
    /// The columns of the statement at hand are no longer those that the client was told.
    pub(super) other_shape: bool,
    /// The statement was cancelled for having run too long.
    pub(super) late: bool,
    pub(super) retries: u8,
    /// Variables before this exchange, to go back to when it fails outside a transaction.
    pub(super) saved: Option<Arc<Vars>>,
    /// Settings may have changed on the server.
    pub(super) touched: bool,
    /// The server's prepared statements or session state are not what the proxy thinks: close it.
    pub(super) spoiled: bool,
    /// What keeps the server at hand, as far as is known.
    pub(super) new_pins: Pins,
    /// The server is to be asked what is left in its session.
    pub(super) doubt: bool,
    /// … and for these settings, which it does not list.
    pub(super) settings: BTreeSet<String>,
    /// DDL was sent that may change what is read of the catalogs.
    pub(super) redefines: bool,
    /// … and takes effect: others run code that nobody has read yet.
    pub(super) flux: Option<Flux>,
    /// … and has been done: they are to be read again.
    pub(super) read_schema: bool,
    /// … and what made it so ran more than is known of it.
    pub(super) runs_more: bool,
    /// … and changed what sessions begin with.
    pub(super) renews: bool,
    /// What the code that the transaction has made may leave, if that is more than can be asked for.
    pub(super) makes: Option<Leaves>,
    /// The catalogs could not be read: what is known of them must do.
    pub(super) unread: bool,
    /// The catalogs were read again for a table they did not have.
    pub(super) reread: bool,
    pub(super) wrote: bool,
    /// When the client's latest bytes came.
    pub(super) began: Option<Moment>,
    /// What statistics know of the statements under way.
    pub(super) measured: Measured,
    /// COPY data of a message of which only a part has come.
    pub(super) copy_rest: usize,
    /// COPY data was sent ahead and waits for the server to ask for it.
    pub(super) copy_waits: bool,
    /// Flush was sent for a wait on what is owed.
    pub(super) flushed: bool,
    /// The unnamed statement was parsed again for a Bind, and that is not answered yet.
    pub(super) parsed_again: bool,
    /// COMMIT is under way: if the server is lost now, nobody knows.
    pub(super) committing: bool,
    /// Bytes at the front of the client's buffer that stand for one Query: PREPARE or EXECUTE.
    pub(super) of_sql: usize,
    /// A Query that names a prepared statement waits until the server at hand holds it.
    pub(super) by_name: bool,
    /// LISTENs of a batch, or of a text of several statements, outside a transaction.
    pub(super) intents: Intents,
    /// They are of a text: they take effect when all of it is answered.
    pub(super) hears_by_text: bool,
}

/// What was found out about a message that has to wait.
pub(super) struct Stash {
    pub(super) statements: SmallVec<[Statement; 1]>,
    pub(super) route: Route,
}

/// A name of a statement that has changed, and what it was before. Changes are numbered from 1.
pub(super) struct Change {
    pub(super) name: String,
    pub(super) before: Option<Arc<ClientStatement>>,
    pub(super) undone: bool,
}

/// A message that waits for a server to be chosen.
pub(super) enum Deferred {
    /// Parse, and its [`Change`].
    Parse(Arc<ClientStatement>, u32),
    /// Describe of a statement.
    Describe(Arc<ClientStatement>),
    /// Parse by a name that the first has: the second is analysed, and then refused for the name.
    Again(Arc<ClientStatement>, Arc<ClientStatement>),
    /// An answer of the proxy's own, in its turn, and its [`Change`] or 0.
    Local(Bytes, u32),
}

/// What a statement does to the session when it completes.
pub(super) struct Effect {
    pub(super) statement: Statement,
    pub(super) pin: Option<Tie>,
    /// What its calls of `set_config` set.
    pub(super) sets: Vec<SetParameter>,
}

impl Deferred {
    /// Whether a server is to answer it.
    pub(super) fn is_for_server(&self) -> bool {
        !matches!(self, Self::Local(..))
    }
}

impl Turn {
    /// Forgets all that does not last beyond a turn. A CopyData that the server no longer wanted may still be under
    /// way: its rest is no message. What a transaction has left on its server counts until it is given back, however
    /// many turns later.
    pub(super) fn end(&mut self) {
        // Every field is named: another client will take this up, and nothing may be forgotten here.
        let Self {
            current,
            stash,
            deferred,
            skip: _,
            effects,
            barrier,
            batch_wrote,
            divided,
            queried,
            only_reads,
            changes,
            closed,
            sure,
            learning,
            other_shape,
            retries,
            saved,
            touched: _,
            spoiled: _,
            new_pins: _,
            redefines: _,
            flux,
            read_schema: _,
            runs_more: _,
            renews: _,
            makes: _,
            unread,
            doubt: _,
            settings: _,
            reread,
            wrote,
            began,
            measured,
            copy_rest: _,
            copy_waits,
            flushed,
            parsed_again,
            committing,
            late,
            of_sql,
            by_name,
            intents,
            hears_by_text,
        } = self;
        for fact in [
            barrier,
            batch_wrote,
            divided,
            queried,
            only_reads,
            reread,
            wrote,
            copy_waits,
            flushed,
            parsed_again,
            committing,
            late,
            hears_by_text,
            by_name,
            unread,
        ] {
            *fact = false;
        }
        (*current, *retries, *of_sql) = (0, 0, 0);
        (*closed, *sure) = (0, 0);
        *began = None;
        *measured = Measured::default();
        deferred.clear();
        effects.clear();
        changes.clear();
        learning.clear();
        *other_shape = false;
        *stash = None;
        *flux = None;
        *saved = None;
        *intents = Intents::default();
    }

    /// No change of a name can be taken back any more.
    pub(super) fn forget_changes(&mut self) {
        self.changes.clear();
        (self.closed, self.sure) = (0, 0);
    }

    /// Whether nothing of it matters to the next one.
    pub(super) fn is_over(&self) -> bool {
        !self.skip
            && self.copy_rest == 0
            && !self.touched
            && !self.spoiled
            && !self.redefines
            && !self.read_schema
            && !self.renews
            && self.makes.is_none()
            && !self.doubt
            && self.new_pins.is_empty()
            && self.deferred.is_empty()
            && !self.intents.is_any()
    }
}

/// How a session goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It goes on.
    Continue,
    /// It ends; whatever was to be said has been said.
    End,
}

impl Flow {
    /// The session ends, whatever came of the last words.
    pub(super) fn then_end(self) -> Self {
        Self::End
    }
}

impl Client {
    /// What a client said is worked through; boxed by its caller.
    pub(super) async fn turns(&mut self) -> Flow {
        if self.cancel.asked_now() & (REFRESH | STALE) != 0
            && let Err(report) = self.refresh()
        {
            self.farewell(&report).await;
            return Flow::End;
        }
        if self.txn.is_none()
            && let Some(report) = self.tell(None)
        {
            self.farewell(&report).await;
            return Flow::End;
        }
        if self.take_turn().await == Flow::End {
            if self.cancel.asked_now() & KILL != 0 {
                self.farewell(&terminated()).await;
            }
            return Flow::End;
        }
        if self.inbuf.is_empty() && self.inbuf.capacity() > KEEP_BUFFER {
            self.inbuf = BytesMut::new();
        }
        if self.replay.capacity() > KEEP_REPLAY {
            self.replay = BytesMut::new();
        }
        Flow::Continue
    }

    /// The session ends while nothing is under way, and the client is told why.
    pub(super) async fn part(&mut self, woke: Woke) {
        match woke {
            Woke::Data | Woke::Gone | Woke::Refresh | Woke::Rest => {}
            Woke::Late(report) => self.farewell(&report).await,
            Woke::Shutdown => self.farewell(&terminated()).await,
        }
        self.finish().await;
    }

    pub(super) async fn farewell(&mut self, report: &ErrorReport) {
        self.record_error(report, None);
        let mut out = BytesMut::new();
        out.put_report(report);
        use tokio::io::AsyncWriteExt;
        let told = async {
            self.x.settle();
            std::future::poll_fn(|cx| self.x.poll_flush(cx, &mut self.stream)).await?;
            if !self.x.is_between_messages() {
                return Ok(()); // half a message was passed on: only the end of the connection is honest
            }
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        // The client may be gone already: then nobody is left to be told.
        drop(tokio::time::timeout(std::time::Duration::from_secs(1), told).await);
    }

    /// Gives back what can be given back; cancels what still runs.
    pub(super) async fn finish(&mut self) {
        // First of all: the number may be that of its server, which another session takes next.
        self.proxy.cancels().remove(self.cancel.id);
        self.cancel.answer_early(false);
        self.cancel.clear().await;
        let whole = self.x.up.is_empty() && !self.x.copy_torn;
        let drained = whole && !self.x.is_owed() && !self.x.is_batch_open() && !self.x.is_copy_in();
        if let Some(server) = self.server.take() {
            if drained {
                server.scrub_and_return();
            } else {
                // Nobody will read the answer: stop the work. The connection is dirty and will be closed.
                server.stream.end_round();
                let target = server.cancel.clone();
                drop(server);
                tokio::spawn(async move { target.cancel().await });
            }
        }
        self.kept.drain(..).for_each(Kept::release);
    }

    /// What ReadyForQuery says when the proxy answers by itself.
    pub(super) fn status(&self) -> TransactionStatus {
        self.txn.status()
    }

    /// For the error ring and the log.
    pub(super) fn record_error(&self, report: &ErrorReport, statement: Option<StatementSlot>) {
        if matches!(report.severity, Severity::Warning | Severity::Notice) {
            return;
        }
        self.proxy.stats().error(crate::stats::ErrorEvent {
            sqlstate: report.code.as_str().to_owned(),
            message: report.message.clone(),
            blame: "proxy",
            database: self.stats.info().database.clone(),
            user: self.stats.info().user.clone(),
            shard: None,
            server: None,
            statement,
        });
    }
}

/// What a session is told that an operator ends.
fn terminated() -> ErrorReport {
    ErrorReport::fatal(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<F: FnOnce(&'static mut Client) -> T, T>(_: F) -> usize {
        size_of::<T>()
    }

    #[test]
    fn neither_an_idle_nor_a_working_client_takes_much_memory() {
        // A turn's state is allocated at each turn: beyond 1032 bytes the allocator has no fast path for it.
        let turn = size_of_output(Client::take_turn);
        assert!(turn <= 1032, "{turn}");
        assert!(size_of::<Client>() <= 1696, "{}", size_of::<Client>());
    }
}
