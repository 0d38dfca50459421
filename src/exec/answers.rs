//! The answers of a server, message by message: what goes to the client, what is cut out, what is put in.
//! Must not do I/O; works on what [`Exchange`] has read.

use std::io;

use bytes::{Buf, Bytes, BytesMut};

use super::exchange::{Exchange, Lost};
use super::expect::{Done, Expect};
use super::finish::{How, rows};
use super::order::{error_of, fits, longest};
use crate::pool::ServerConn;
use crate::wire::{
    BackendWriter, ErrorFields, FrontendWriter, TransactionStatus, WireError, is_command_tag,
    parse_command_tag, parse_row_description, peek_head,
};

impl Exchange {
    /// Looks at what was read, message by message, and decides what the client gets.
    pub(super) fn scan(&mut self, server: &mut ServerConn) -> Option<Lost> {
        self.put_in_local();
        loop {
            if self.pass > 0 {
                let n = self.pass.min(self.down.len() - self.ready);
                self.pass -= n;
                self.ready += n;
                if self.pass > 0 {
                    return None;
                }
            }
            let rest = self.down.get(self.ready..).unwrap_or_default();
            let &tag = rest.first()?;
            if !fits(self.expect.front(), tag) {
                return Some(out_of_turn(tag));
            }
            let head = match peek_head(rest, longest(tag)) {
                Ok(Some(head)) => head,
                Ok(None) => return None,
                Err(error) => return Some(broken(error)),
            };
            if matches!(head.tag, b'D' | b'd') {
                if self.is_swallowing() {
                    if rest.len() < head.total() {
                        return None;
                    }
                    self.cut(head.total());
                } else {
                    let (bytes, rows) = run_of_rows(rest, head.tag);
                    self.answered = true;
                    self.finishes.rows(rows);
                    self.pass = bytes;
                }
                continue;
            }
            if rest.len() < head.total() {
                return None;
            }
            if let Some(lost) = self.message(head.tag, head.total(), server) {
                return Some(lost);
            }
            self.put_in_local();
        }
    }

    pub(super) fn is_swallowing(&self) -> bool {
        matches!(self.expect.front(), Some(Expect::Prefix))
    }

    /// One whole message other than a row, at `ready`.
    pub(super) fn message(&mut self, tag: u8, total: usize, server: &mut ServerConn) -> Option<Lost> {
        if tag == b'C' {
            self.copy_ends();
        }
        let body = self.down.get(self.ready + 5..self.ready + total).unwrap_or_default();
        let mut forward = !self.is_swallowing();
        match tag {
            b'Z' => match body {
                [status] if let Some(status) = TransactionStatus::from_byte(*status) => {
                    if self.is_copy_unclear() {
                        return self.ready_after_copy(status, total);
                    }
                    forward = self.ready_for_query(Some(status));
                }
                _ => return Some(malformed("ReadyForQuery", "its status is unknown")),
            },
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' if !body.is_empty() => {
                return Some(malformed("answer", "its body should be empty"));
            }
            b'C' if !is_command_tag(body) => {
                return Some(malformed("CommandComplete", "it is no text"));
            }
            b'C' | b'I' | b's' => {
                if matches!(self.expect.front(), Some(Expect::Query { .. } | Expect::Execute { .. })) {
                    let how = if tag == b's' { How::Suspended } else { How::Complete };
                    let rows = (tag == b'C').then(|| rows(body));
                    self.finishes.push(how, rows);
                }
                let text = |body| if tag == b'C' { parse_command_tag(body).unwrap_or_default() } else { "" };
                let mark = match self.expect.front() {
                    Some(Expect::Query { mark }) if *mark != 0 => {
                        self.query_done += 1;
                        Some(mark + self.query_done - 1)
                    }
                    Some(Expect::Execute { mark }) => {
                        let mark = *mark;
                        self.expect.pop_front();
                        if mark != 0 && tag != b's' {
                            self.done.push(Done::Command { mark, tag: text(body).to_owned() });
                        }
                        self.complete(mark, total);
                        return None;
                    }
                    _ => None,
                };
                if let Some(mark) = mark {
                    let tag = text(body).to_owned();
                    self.done.push(Done::Command { mark, tag });
                    self.complete(mark, total);
                    return None;
                }
            }
            b'1' => {
                if let Some(Expect::Parse { forward: wanted, .. }) = self.expect.pop_front() {
                    forward = wanted;
                }
            }
            b'2' => {
                self.expect.pop_front();
            }
            b'3' if self.is_copy_unclear() => return self.closed_after_copy(total),
            b'3' => {
                if let Some(Expect::Close { forward: wanted, .. }) = self.expect.pop_front() {
                    forward = wanted;
                }
            }
            b't' => {
                // PostgreSQL prepares more parameters than 16 bits count, and shows them all under what is left of the count.
                let count = body.first_chunk().map(|n| u16::from_be_bytes(*n));
                let shown = body.len().saturating_sub(2);
                if self.parameters.is_some() || shown % 4 != 0 || count != Some((shown / 4) as u16) {
                    return Some(malformed("ParameterDescription", "its length is not that of its count"));
                }
                if let Some(Expect::DescribeStatement { forward: wanted, .. }) = self.expect.front() {
                    forward = *wanted;
                    self.parameters = Some(Box::new(Bytes::copy_from_slice(body)));
                }
            }
            b'T' | b'n' => {
                if let Some(Expect::DescribeStatement { forward: wanted, key }) = self.expect.front() {
                    let (wanted, key) = (*wanted, *key);
                    forward = wanted;
                    // It is kept, and told to others: so it is looked at here.
                    if tag == b'T'
                        && let Err(error) = parse_row_description(body)
                    {
                        return Some(broken(error));
                    }
                    let columns = (tag == b'T').then(|| Bytes::copy_from_slice(body));
                    let Some(parameters) = self.parameters.take().map(|bytes| *bytes) else {
                        return Some(out_of_turn(tag));
                    };
                    self.done.push(Done::Described { key, parameters, columns });
                    self.expect.pop_front();
                } else if matches!(self.expect.front(), Some(Expect::DescribePortal)) {
                    self.expect.pop_front();
                }
            }
            b'G' => self.copy_in_begins(),
            b'S' => match server.note_parameter(body) {
                Ok(told) => forward &= told,
                Err(error) => return Some(broken(error)),
            },
            b'A' if body.len() < 6 => return Some(malformed("NotificationResponse", "it ends too early")),
            b'A' => forward = self.notification(server.pid),
            b'E' => return self.error(total),
            b'N' if is_going_down(body) => {
                // The farewell of a server that is stopped at once; what matters follows or the line is cut.
                forward = false;
            }
            _ => {}
        }
        forward &= !(self.plain && matches!(tag, b'1' | b'2' | b'n'));
        self.take(total, forward);
        None
    }

    /// Whether it is for the client; its own process id is the one it knows.
    fn notification(&mut self, server: u32) -> bool {
        let Some(client) = self.notify_as else { return false };
        let at = self.ready + 5;
        if let Some(pid) = self.down.get_mut(at..at + 4).filter(|pid| **pid == server.to_be_bytes()) {
            pid.copy_from_slice(&client.to_be_bytes());
        }
        true
    }

    /// Advances over one message: forwarded, or cut out.
    pub(super) fn take(&mut self, total: usize, forward: bool) {
        if forward {
            self.ready += total;
            self.answered = true;
        } else {
            self.cut(total);
        }
    }

    /// Passes the completion of a statement on, under another tag if it has to look like another statement's.
    fn complete(&mut self, mark: u32, total: usize) {
        if self.retag.is_empty() {
            return self.take(total, true);
        }
        let tag = self.retag.iter().find(|(of, _)| *of == mark).map(|(_, tag)| *tag);
        self.take(total, tag.is_none());
        if let Some(tag) = tag {
            let mut bytes = BytesMut::new();
            bytes.put_command_complete(tag);
            self.insert(&bytes);
        }
    }

    pub(super) fn ready_for_query(&mut self, status: Option<TransactionStatus>) -> bool {
        let front = self.expect.pop_front();
        self.query_done = 0;
        self.skipping = false;
        self.copy_in = false;
        self.plain = false;
        self.status = status;
        let forward = match front {
            Some(Expect::Sync { forward }) => forward,
            Some(Expect::Prefix) => false,
            _ => true,
        };
        self.held =
            forward && self.hold_ready && self.expect.is_empty() && status == Some(TransactionStatus::Idle);
        forward && !self.held
    }

    pub(super) fn error(&mut self, mut total: usize) -> Option<Lost> {
        let body = self.down.get(self.ready + 5..self.ready + total).unwrap_or_default();
        let Some(fields) = error_of(body) else {
            return Some(malformed("ErrorResponse", "severity or code are missing"));
        };
        if fields.is_fatal() {
            return Some(Lost { said: Some(fields), io: None });
        }
        // Between two messages of a batch statement_timeout may strike; else nothing is under way that could fail.
        if self.expect.is_empty() && !self.open_batch {
            return Some(out_of_turn(b'E'));
        }
        self.parameters = None;
        self.copy_in = false;
        match self.expect.front() {
            Some(Expect::Prefix) => {
                self.swallowed_error = Some(fields);
                self.cut(total);
                return None;
            }
            Some(Expect::Query { .. }) => {
                self.finishes.push(How::Failed, Some(0));
                self.copy_fails();
            }
            Some(Expect::CopyFailed(_)) => self.error_after_copy(),
            Some(Expect::Refuse(instead)) => {
                let instead = instead.clone();
                self.cut(total);
                self.insert(&instead);
                self.skip_to_sync();
                self.done.push(Done::Refused);
                return None;
            }
            front => {
                if let Some(Expect::BindOf(name) | Expect::ParseOf(name)) = front {
                    let told = named(body, name);
                    self.cut(total);
                    self.insert(&told);
                    total = 0;
                }
                // What fails before its Execute, fails as its statement does.
                let mut batch = self.expect.iter().take_while(|e| !matches!(e, Expect::Sync { .. }));
                let executes = batch.any(|e| matches!(e, Expect::Execute { .. }));
                self.finishes.push(if executes { How::Failed } else { How::Stray }, Some(0));
                self.skip_to_sync();
                self.copy_fails();
                // If a Query follows, that is what ended the batch, and nothing is skipped.
                if self.expect.len() == 1 && self.expect.front() == Some(&Expect::Sync { forward: false }) {
                    self.done.push(Done::CutShort);
                }
            }
        }
        self.done.push(Done::Error(fields));
        self.take(total, true);
        None
    }

    /// An error in the extended protocol: the server answers nothing more before Sync.
    pub(super) fn skip_to_sync(&mut self) {
        self.skipping = true;
        let ends = |next: &Expect| {
            matches!(next, Expect::Sync { .. } | Expect::CopySyncs(_) | Expect::Query { .. } | Expect::Prefix)
        };
        let end = self.expect.iter().position(ends).unwrap_or(self.expect.len());
        let unnamed = matches!(self.expect.front(), Some(Expect::Parse { key: None, forward: true }));
        // The first is the one that failed.
        let mut failed = !matches!(self.expect.front(), Some(Expect::Refuse(_)));
        let first = self.done.len();
        for answer in self.expect.drain(..end) {
            if matches!(answer, Expect::Execute { .. }) && !std::mem::take(&mut failed) {
                self.finishes.push(How::Skipped, Some(0));
            }
            self.done.extend(skipped(answer));
        }
        // Undone from the last to the first, as they were done the other way.
        if let Some(undone) = self.done.get_mut(first..) {
            undone.reverse();
        }
        if unnamed {
            let number = |e: &Expect| if let Expect::Change(number) = e { Some(*number) } else { None };
            let owed = self.expect.iter().find_map(number);
            self.done.push(Done::NoUnnamed(owed));
        }
    }

    #[inline]
    pub(super) fn put_in_local(&mut self) {
        if self.pass == 0
            && matches!(self.expect.front(), Some(Expect::Local(_) | Expect::Change(_) | Expect::Plain))
        {
            self.put_in_all_local();
        }
    }

    fn put_in_all_local(&mut self) {
        while let Some(Expect::Local(_) | Expect::Change(_) | Expect::Plain) = self.expect.front() {
            match self.expect.pop_front() {
                Some(Expect::Local(bytes)) => self.insert(&bytes),
                Some(Expect::Plain) => self.plain = true,
                _ => {}
            }
        }
    }

    /// Lets entries of the proxy's own at the head of the queue take their turn.
    pub fn settle(&mut self) {
        self.put_in_local();
    }

    /// Cuts `n` bytes at `ready` out of what the client gets.
    pub(super) fn cut(&mut self, n: usize) {
        if self.ready == 0 {
            self.down.advance(n);
        } else {
            let tail = self.down.split_off(self.ready + n);
            self.down.truncate(self.ready);
            self.down.unsplit_or_copy(tail);
        }
    }

    pub(super) fn insert(&mut self, bytes: &[u8]) {
        if self.ready == self.down.len() {
            self.down.extend_from_slice(bytes);
        } else {
            let tail = self.down.split_off(self.ready);
            self.down.extend_from_slice(bytes);
            self.down.unsplit_or_copy(tail);
        }
        self.ready += bytes.len();
        self.answered = true;
    }
}

/// An ErrorResponse of this body, in which a name of a server's own is the client's.
fn named(body: &[u8], name: &str) -> BytesMut {
    const BEGINS: &[u8] = b"prepared statement \"pgherd_";
    let mut told = BytesMut::new();
    let own = memchr::memmem::find(body, BEGINS).map(|at| at + "prepared statement \"".len());
    let own = own.and_then(|from| Some((from, from + memchr::memchr(b'"', body.get(from..)?)?)));
    let (before, after) = own.map_or((body, &b""[..]), |(from, to)| {
        (body.get(..from).unwrap_or_default(), body.get(to..).unwrap_or_default())
    });
    let name = if own.is_some() { name.as_bytes() } else { b"" };
    told.put_frame(b'E', &[before, name, after].concat());
    told
}

/// What it means that an answer will never come.
pub(super) fn skipped(answer: Expect) -> Option<Done> {
    match answer {
        Expect::Parse { key: Some(key), .. } => Some(Done::NotPrepared(key)),
        Expect::Close { key: Some(key), .. } => Some(Done::NotClosed(key)),
        Expect::Change(number) => Some(Done::Unchanged(number)),
        Expect::Parse { key: None, .. }
        | Expect::Close { key: None, .. }
        | Expect::Bind
        | Expect::BindOf(_)
        | Expect::ParseOf(_)
        | Expect::DescribeStatement { .. }
        | Expect::DescribePortal
        | Expect::Execute { .. }
        | Expect::Query { .. }
        | Expect::Prefix
        | Expect::Sync { .. }
        | Expect::CopySyncs(_)
        | Expect::CopyFailed(_)
        | Expect::Local(_)
        | Expect::Plain
        | Expect::Refuse(_) => None,
    }
}

trait Rejoin {
    fn unsplit_or_copy(&mut self, tail: BytesMut);
}

impl Rejoin for BytesMut {
    /// The gap before `tail` makes it another piece of the same allocation: short tails are copied.
    fn unsplit_or_copy(&mut self, tail: BytesMut) {
        if self.is_empty() {
            *self = tail;
        } else {
            self.extend_from_slice(&tail);
        }
    }
}

fn broken(error: WireError) -> Lost {
    Lost { said: None, io: Some(io::Error::new(io::ErrorKind::InvalidData, error)) }
}

fn malformed(message: &'static str, what: &'static str) -> Lost {
    broken(WireError::Malformed { message, what })
}

fn out_of_turn(tag: u8) -> Lost {
    broken(WireError::OutOfTurn { tag })
}

/// SQLSTATE class 57P: the server is being shut down, crashed, or cannot serve.
fn is_going_down(body: &[u8]) -> bool {
    ErrorFields::parse(body).is_ok_and(|f| f.code.starts_with("57P"))
}

/// The rows at the front that follow each other: how many bytes, of which the last row may still owe some, and how many
/// rows. Nothing else can come between them, so that only lengths are looked at.
fn run_of_rows(rest: &[u8], tag: u8) -> (usize, u32) {
    let (mut bytes, mut rows) = (0, 0);
    while let Some([next, a, b, c, d]) = rest.get(bytes..).and_then(<[u8]>::first_chunk)
        && *next == tag
    {
        let len = u32::from_be_bytes([*a, *b, *c, *d]) as usize; // counts itself, not the tag
        if len < 4 || len - 4 > longest(tag) {
            break; // told when its turn comes
        }
        bytes += 1 + len;
        rows += 1;
    }
    (bytes, rows)
}
