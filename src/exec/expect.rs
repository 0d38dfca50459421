//! What a server owes: one entry for every answer that is still to come, in order.
//! Must not know sockets or statements' texts.

use bytes::Bytes;

use crate::pool::StatementKey;

/// One answer that is still to come, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// ParseComplete. Swallowed when the proxy itself sent the Parse.
    Parse {
        /// Whether the client asked for it.
        forward: bool,
        /// What the server will then hold; `None` for the unnamed statement.
        key: Option<StatementKey>,
    },
    /// BindComplete.
    Bind,
    /// The same of a statement that a server calls otherwise than its client, who is told of it by this name.
    BindOf(Box<str>),
    /// ParseComplete of a statement whose name is taken, by which the client is told so: the server fails here.
    ParseOf(Box<str>),
    /// CloseComplete.
    Close {
        /// Whether the client asked for it.
        forward: bool,
        /// The statement that the server no longer holds then.
        key: Option<StatementKey>,
    },
    /// ParameterDescription, then RowDescription or NoData.
    DescribeStatement {
        /// Whether the client asked for it.
        forward: bool,
        /// Of which statement.
        key: StatementKey,
    },
    /// RowDescription or NoData.
    DescribePortal,
    /// Rows, then CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute {
        /// The caller's mark of what completed; 0 is "nothing of interest".
        mark: u32,
    },
    /// Everything up to ReadyForQuery of a simple Query or FunctionCall, forwarded.
    Query {
        /// The caller's mark of the first statement in it; the next ones count up from it.
        mark: u32,
    },
    /// Everything up to ReadyForQuery, swallowed: BEGIN and its like, sent ahead of a client's statement.
    Prefix,
    /// ReadyForQuery after Sync.
    Sync {
        /// Whether the client asked for it.
        forward: bool,
    },
    /// So many ReadyForQuery, or fewer: Syncs that a server ignores if it reads them in the COPY before them.
    CopySyncs(u32),
    /// The same when that COPY has failed.
    CopyFailed(CopyFailed),
    /// Bytes of the proxy's own, put in when their turn comes; dropped when an error skips to Sync.
    Local(Bytes),
    /// The client's names of statements have changed here: if an error skips this, they have not. The caller's number.
    Change(u32),
    /// From here to ReadyForQuery the answers are to look like those to a simple Query.
    Plain,
    /// The server will fail here, for the proxy made it to; the client sees this ErrorResponse instead.
    Refuse(Bytes),
}

/// What is known of the Syncs round a COPY that has failed: those that the server had not read by then are answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyFailed {
    /// So many ReadyForQuery are the client's for certain.
    pub(super) least: u32,
    /// And not more than so many.
    pub(super) most: u32,
    /// So many have come.
    pub(super) seen: u32,
    /// So many of them went to the client.
    pub(super) told: u32,
    /// The proxy itself ends what the server skips, by a Sync of its own behind the client's.
    pub(super) own: bool,
    /// What is answered behind all of them was sent.
    pub(super) asked: bool,
    /// Its CloseComplete has come; its ReadyForQuery is the last of all.
    pub(super) closed: bool,
}

/// What happened while answers came in, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A statement completed: its mark, and its command tag (empty for an empty query or a suspended portal).
    Command {
        /// As given in [`Expect`].
        mark: u32,
        /// e.g. `INSERT 0 1`.
        tag: String,
    },
    /// A prepared statement was described: the bodies of ParameterDescription, and of RowDescription if it has rows.
    Described {
        /// Which.
        key: StatementKey,
        /// Its parameters' types.
        parameters: Bytes,
        /// Its columns.
        columns: Option<Bytes>,
    },
    /// What the proxy refused has failed on the server.
    Refused,
    /// A Parse failed or was skipped.
    NotPrepared(StatementKey),
    /// A Close was skipped: the server still holds the statement.
    NotClosed(StatementKey),
    /// [`Expect::Change`] was skipped.
    Unchanged(u32),
    /// Parse of the unnamed statement failed, so there is none, but for later batches: the first change of a name that
    /// is still owed, and of a later one.
    NoUnnamed(Option<u32>),
    /// What fails here is in a batch that the proxy has ended without the client's Sync, up to which the client's messages
    /// are skipped.
    CutShort,
    /// An error was forwarded: its SQLSTATE and message.
    Error(crate::wire::ErrorFields),
}
