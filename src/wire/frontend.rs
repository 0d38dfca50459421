//! Messages from a client (frontend) to a server: read in place, written into a buffer.
//! Must not know who sends them.

use bytes::{BufMut, BytesMut};

use super::WireError;
use super::frame::{Cursor, NOT_UTF8, TOO_SHORT};

/// A Parse message, borrowed from its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseView<'a> {
    /// Name of the prepared statement; empty for the unnamed one.
    pub name: &'a str,
    /// The statement's text as sent: not always UTF-8, depending on `client_encoding`.
    pub sql: &'a [u8],
    /// Big-endian u32 type OIDs of the parameters, 4 bytes each, 0 for unspecified.
    pub types: &'a [u8],
}

impl ParseView<'_> {
    /// The declared OID of parameter `index` (0-based); 0 when unspecified.
    #[must_use]
    pub fn type_oid(&self, index: usize) -> u32 {
        self.types.get(index * 4..).and_then(<[u8]>::first_chunk).map_or(0, |b| u32::from_be_bytes(*b))
    }
}

/// A Bind message, borrowed from its body. What is wrong with it after the two names a server finds step by step, so
/// it is kept beside what could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindView<'a> {
    /// Name of the portal; empty for the unnamed one.
    pub portal: &'a str,
    /// Name of the prepared statement; empty for the unnamed one.
    pub statement: &'a str,
    /// All after the two names: parameter formats, parameters, result formats.
    pub tail: &'a [u8],
    formats: &'a [u8],
    values: &'a [u8],
    count: usize,
    results: &'a [u8],
    fault: Option<BindFault>,
}

/// What is wrong with a Bind message, by when a server finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindFault {
    /// At its counts: before anything else of it, and its statement, is looked at.
    Counts(WireError),
    /// As its values are read one after another: one of them may be wrong by itself before.
    Values(WireError),
}

impl BindFault {
    /// The error, whenever it is found.
    #[must_use]
    pub fn into_error(self) -> WireError {
        match self {
            Self::Counts(error) | Self::Values(error) => error,
        }
    }
}

impl<'a> BindView<'a> {
    /// What a server will find wrong with it, whatever its statement.
    #[must_use]
    pub fn fault(&self) -> Option<&BindFault> {
        self.fault.as_ref()
    }

    /// Number of parameter values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no parameter value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether parameter `index` (0-based) is sent in binary format.
    #[must_use]
    pub fn is_binary(&self, index: usize) -> bool {
        self.format(index) == 1
    }

    /// The format code of parameter `index`: that of all, its own, or text.
    fn format(&self, index: usize) -> i16 {
        let at = if self.formats.len() == 2 { 0 } else { index * 2 };
        self.formats.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |code| i16::from_be_bytes(*code))
    }

    /// The result format codes as sent: none is text for all, one is for all, else one per column.
    #[must_use]
    pub fn result_formats(&self) -> Vec<i16> {
        self.results.as_chunks::<2>().0.iter().map(|b| i16::from_be_bytes(*b)).collect()
    }

    /// The parameter values in order; `None` is NULL.
    pub fn values(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut at = Cursor::new(self.values, "Bind");
        (0..self.count).map_while(move |_| {
            let len = at.i32().ok()?;
            match usize::try_from(len) {
                Ok(len) => at.take(len).ok().map(Some),
                Err(_) => Some(None), // -1: NULL; parse_bind refused all other negatives
            }
        })
    }
}

/// What Describe and Close name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DescribeTarget<'a> {
    /// A prepared statement.
    Statement(&'a str),
    /// A portal.
    Portal(&'a str),
}

/// Reads the body of a Query message: its text, as sent.
///
/// # Errors
/// [`WireError::Malformed`] if it has no terminating zero or bytes follow it.
pub fn parse_query(body: &[u8]) -> Result<&[u8], WireError> {
    let mut at = Cursor::new(body, "Query");
    let sql = at.cstr()?;
    at.finish().map_err(|error| after_text(sql, error))?;
    Ok(sql)
}

/// What is wrong with a message after its text. A server converts that first; it alone knows of other encodings.
fn after_text(sql: &[u8], error: WireError) -> WireError {
    match (error, std::str::from_utf8(sql)) {
        (WireError::Malformed { message, .. }, Err(_)) => WireError::Malformed { message, what: NOT_UTF8 },
        (error, _) => error,
    }
}

/// Reads the body of a Parse message in place.
///
/// # Errors
/// [`WireError::Malformed`] if it is cut off or bytes are left over.
pub fn parse_parse(body: &[u8]) -> Result<ParseView<'_>, WireError> {
    let mut at = Cursor::new(body, "Parse");
    let (name, sql) = (at.utf8()?, at.cstr()?);
    let types = types(&mut at).map_err(|error| after_text(sql, error))?;
    Ok(ParseView { name, sql, types })
}

fn types<'a>(at: &mut Cursor<'a>) -> Result<&'a [u8], WireError> {
    let count = usize::from(at.u16()?);
    let types = at.take(count * 4)?;
    at.finish()?;
    Ok(types)
}

/// Reads the body of a Bind message in place; see [`BindView::fault`].
///
/// # Errors
/// [`WireError::Malformed`] if the two names are cut off or not UTF-8.
pub fn parse_bind(body: &[u8]) -> Result<BindView<'_>, WireError> {
    let mut at = Cursor::new(body, "Bind");
    let (portal, statement) = (at.utf8()?, at.utf8()?);
    Ok(BindView { portal, statement, ..bind_tail(at.remaining()) })
}

/// Reads the body of a message that has none.
///
/// # Errors
/// [`WireError::Malformed`] if there is one.
pub fn parse_empty(message: &'static str, body: &[u8]) -> Result<(), WireError> {
    Cursor::new(body, message).finish()
}

/// Reads what follows the two names in a Bind message; see [`BindView::tail`].
///
/// # Errors
/// The [`BindView::fault`], if there is one.
pub fn parse_bind_tail(tail: &[u8]) -> Result<BindView<'_>, WireError> {
    let mut view = bind_tail(tail);
    match view.fault.take() {
        Some(fault) => Err(fault.into_error()),
        None => Ok(view),
    }
}

/// In the order of `exec_bind_message` in PostgreSQL's postgres.c.
fn bind_tail(tail: &[u8]) -> BindView<'_> {
    let mut at = Cursor::new(tail, "Bind");
    let mut view = BindView {
        portal: "",
        statement: "",
        tail,
        formats: &[],
        values: &[],
        count: 0,
        results: &[],
        fault: None,
    };
    let read = read_counts(&mut at, &mut view).map_err(BindFault::Counts);
    let read = read.and_then(|()| read_values(&mut at, &mut view).map_err(BindFault::Values));
    view.fault = read.err();
    view
}

fn read_counts<'a>(at: &mut Cursor<'a>, view: &mut BindView<'a>) -> Result<(), WireError> {
    view.formats = codes(at)?;
    view.count = usize::from(at.u16()?);
    let formats = view.formats.len() / 2;
    if formats > 1 && formats != view.count {
        return Err(WireError::BindFormats { formats, values: view.count });
    }
    Ok(())
}

fn read_values<'a>(at: &mut Cursor<'a>, view: &mut BindView<'a>) -> Result<(), WireError> {
    view.values = at.remaining();
    for n in 0..view.count {
        match at.i32()? {
            -1 => {}
            len => {
                let len = usize::try_from(len).map_err(|_| at.malformed(TOO_SHORT))?;
                at.take(len)?;
            }
        }
        let code = view.format(n);
        if !matches!(code, 0 | 1) {
            return Err(WireError::FormatCode(code));
        }
    }
    view.results = codes(at)?;
    at.finish()
}

/// Format codes with their count before them: it is for whoever uses one to say that there is none of that number.
fn codes<'a>(at: &mut Cursor<'a>) -> Result<&'a [u8], WireError> {
    let count = usize::from(at.u16()?);
    at.take(count * 2)
}

/// Reads the body of a Describe or Close message.
///
/// # Errors
/// [`WireError::Malformed`] if it is neither of the two kinds or cut off.
pub fn parse_target(body: &[u8]) -> Result<DescribeTarget<'_>, WireError> {
    let mut at = Cursor::new(body, "Describe or Close");
    let kind = at.u8()?;
    let name = at.utf8()?;
    at.finish()?;
    match kind {
        b'S' => Ok(DescribeTarget::Statement(name)),
        b'P' => Ok(DescribeTarget::Portal(name)),
        _ => Err(at.malformed("it names neither a statement nor a portal")),
    }
}

/// Reads the body of an Execute message: the portal and the row limit (0 is "all").
///
/// # Errors
/// [`WireError::Malformed`] if it is cut off.
pub fn parse_execute(body: &[u8]) -> Result<(&str, i32), WireError> {
    let mut at = Cursor::new(body, "Execute");
    let (portal, limit) = (at.utf8()?, at.i32()?);
    at.finish()?;
    Ok((portal, limit))
}

/// Writes frontend messages into a buffer; a buffer is sent to a server in one write.
pub trait FrontendWriter {
    /// Simple query.
    fn put_query(&mut self, sql: &[u8]);
    /// Parse; `types` are big-endian u32 OIDs as in [`ParseView::types`].
    fn put_parse(&mut self, name: &str, sql: &[u8], types: &[u8]);
    /// Bind; `tail` is all after the two names, as in [`BindView::tail`].
    fn put_bind(&mut self, portal: &str, statement: &str, tail: &[u8]);
    /// Describe (`D`) or Close (`C`) of a target.
    fn put_target(&mut self, tag: u8, target: DescribeTarget<'_>);
    /// Execute; `limit` 0 is "all rows".
    fn put_execute(&mut self, portal: &str, limit: i32);
    /// Any message by tag and body.
    fn put_frame(&mut self, tag: u8, body: &[u8]);
    /// Sync.
    fn put_sync(&mut self);
    /// Flush.
    fn put_flush(&mut self);
    /// CopyFail with its reason.
    fn put_copy_fail(&mut self, why: &str);
    /// Terminate.
    fn put_terminate(&mut self);
}

impl FrontendWriter for BytesMut {
    fn put_query(&mut self, sql: &[u8]) {
        put_head(self, b'Q', sql.len() + 1);
        put_cstr(self, sql);
    }

    fn put_parse(&mut self, name: &str, sql: &[u8], types: &[u8]) {
        put_head(self, b'P', name.len() + sql.len() + types.len() + 4);
        put_cstr(self, name.as_bytes());
        put_cstr(self, sql);
        self.put_u16((types.len() / 4) as u16);
        self.put_slice(types);
    }

    fn put_bind(&mut self, portal: &str, statement: &str, tail: &[u8]) {
        put_head(self, b'B', portal.len() + statement.len() + tail.len() + 2);
        put_cstr(self, portal.as_bytes());
        put_cstr(self, statement.as_bytes());
        self.put_slice(tail);
    }

    fn put_target(&mut self, tag: u8, target: DescribeTarget<'_>) {
        let (kind, name) = match target {
            DescribeTarget::Statement(name) => (b'S', name),
            DescribeTarget::Portal(name) => (b'P', name),
        };
        put_head(self, tag, name.len() + 2);
        self.put_u8(kind);
        put_cstr(self, name.as_bytes());
    }

    fn put_execute(&mut self, portal: &str, limit: i32) {
        put_head(self, b'E', portal.len() + 5);
        put_cstr(self, portal.as_bytes());
        self.put_i32(limit);
    }

    fn put_frame(&mut self, tag: u8, body: &[u8]) {
        put_head(self, tag, body.len());
        self.put_slice(body);
    }

    fn put_sync(&mut self) {
        put_head(self, b'S', 0);
    }

    fn put_flush(&mut self) {
        put_head(self, b'H', 0);
    }

    fn put_copy_fail(&mut self, why: &str) {
        put_head(self, b'f', why.len() + 1);
        put_cstr(self, why.as_bytes());
    }

    fn put_terminate(&mut self) {
        put_head(self, b'X', 0);
    }
}

fn put_head(out: &mut BytesMut, tag: u8, body: usize) {
    out.reserve(body + 5);
    out.put_u8(tag);
    out.put_u32((body + 4) as u32); // bodies are bounded by the frame limit, far below 4 GiB
}

fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}
