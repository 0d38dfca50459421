//! Framing: where one message ends and the next begins.
//! Must not know what a body means.

use bytes::{Buf, Bytes, BytesMut};

use super::{ClientFacing, ErrorReport, SqlState};

/// One whole message: its tag and its body without the 5 header bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message type byte.
    pub tag: u8,
    /// The body, without tag and length.
    pub body: Bytes,
}

/// What is wrong with a body, as far as a PostgreSQL server has words of its own for it.
pub(super) const TOO_SHORT: &str = "it ends too early";
pub(super) const NO_BYTE: &str = "it has no type";
pub(super) const NO_ZERO: &str = "a string has no terminating zero";
pub(super) const NOT_UTF8: &str = "a string is not UTF-8";
pub(super) const TOO_LONG: &str = "bytes are left over at its end";

impl ClientFacing for WireError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Malformed { what, .. } if *what == NOT_UTF8 => SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            Self::FormatCode(_) => SqlState::INVALID_PARAMETER_VALUE,
            Self::Malformed { .. }
            | Self::BadLength { .. }
            | Self::OutOfTurn { .. }
            | Self::BindFormats { .. } => SqlState::PROTOCOL_VIOLATION,
        }
    }

    fn report(&self) -> ErrorReport {
        let words = match self {
            Self::Malformed { what, .. } => match *what {
                TOO_SHORT => Some("insufficient data left in message"),
                NO_BYTE => Some("no data left in message"),
                NO_ZERO => Some("invalid string in message"),
                TOO_LONG => Some("invalid message format"),
                NOT_UTF8 => Some("invalid byte sequence for encoding \"UTF8\""),
                _ => None,
            },
            Self::BadLength { .. }
            | Self::OutOfTurn { .. }
            | Self::BindFormats { .. }
            | Self::FormatCode(_) => None,
        };
        ErrorReport::error(self.sqlstate(), words.map_or_else(|| self.to_string(), str::to_owned))
    }
}

/// The five header bytes of a message, read but not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The message type byte.
    pub tag: u8,
    /// Length of the body in bytes, without the 5 header bytes.
    pub body: usize,
}

impl Head {
    /// Length of the whole message in bytes, header included.
    #[must_use]
    pub fn total(self) -> usize {
        self.body + 5
    }
}

/// Bytes that are not the PostgreSQL protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A length field below 4 or above what is allowed: framing is lost.
    #[error("invalid message length {len} for message type \"{}\"", .tag.escape_ascii())]
    BadLength {
        /// The message type byte.
        tag: u8,
        /// The length field as sent (it counts itself).
        len: u32,
    },
    /// A message that its sender may not send now.
    #[error("message type \"{}\" out of turn", .tag.escape_ascii())]
    OutOfTurn {
        /// The message type byte.
        tag: u8,
    },
    /// A body that is not what its type promises.
    #[error("malformed {message} message: {what}")]
    Malformed {
        /// The message's name in the docs.
        message: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A Bind whose format codes are more than one, and not one for each value.
    #[error("bind message has {formats} parameter formats but {values} parameters")]
    BindFormats {
        /// How many formats.
        formats: usize,
        /// How many values.
        values: usize,
    },
    /// A format that nothing has: neither text (0) nor binary (1).
    #[error("unsupported format code: {0}")]
    FormatCode(i16),
}

/// Reads the header at the front of `buf` without taking it. `Ok(None)` means "read more".
///
/// `max_body` is in bytes, without the 5 header bytes. Source: PostgreSQL docs, "Message Formats".
///
/// # Errors
/// [`WireError::BadLength`] if the length is below 4 or the body above `max_body`: close the connection.
pub fn peek_head(buf: &[u8], max_body: usize) -> Result<Option<Head>, WireError> {
    let Some(&[tag, a, b, c, d]) = buf.first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes([a, b, c, d]); // counts itself, not the tag
    let body =
        (len as usize).checked_sub(4).filter(|n| *n <= max_body).ok_or(WireError::BadLength { tag, len })?;
    Ok(Some(Head { tag, body }))
}

/// Takes one whole frame off the front of `buf`. `Ok(None)` means "read more"; `buf` is then untouched.
///
/// `max_body` is in bytes, without the 5 header bytes. Source: PostgreSQL docs, "Message Formats".
///
/// # Errors
/// [`WireError::BadLength`] if the length is below 4 or the body above `max_body`: close the connection.
pub fn next_frame(buf: &mut BytesMut, max_body: usize) -> Result<Option<Frame>, WireError> {
    let Some(head) = peek_head(buf, max_body)? else { return Ok(None) };
    if buf.len() < head.total() {
        return Ok(None);
    }
    buf.advance(5);
    Ok(Some(Frame { tag: head.tag, body: buf.split_to(head.body).freeze() }))
}

/// A cursor over a body: every read is checked, nothing is indexed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    message: &'static str,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8], message: &'static str) -> Self {
        Self { rest, message }
    }

    pub(super) fn malformed(&self, what: &'static str) -> WireError {
        WireError::Malformed { message: self.message, what }
    }

    pub(super) fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(self.malformed(TOO_SHORT))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(self.malformed(TOO_SHORT))?;
        self.rest = tail;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[b]| b).map_err(|_| self.malformed(NO_BYTE))
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, WireError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn cstr(&mut self) -> Result<&'a [u8], WireError> {
        let end = memchr::memchr(0, self.rest).ok_or(self.malformed(NO_ZERO))?;
        let text = self.take(end)?;
        self.take(1)?;
        Ok(text)
    }

    pub(super) fn utf8(&mut self) -> Result<&'a str, WireError> {
        let text = self.cstr()?;
        std::str::from_utf8(text).map_err(|_| self.malformed(NOT_UTF8))
    }

    pub(super) fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed(TOO_LONG)) }
    }
}
