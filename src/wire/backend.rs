//! Messages from a server (backend) to a client: read in place, written into a buffer.
//! Must not know which server or client.

use bytes::{BufMut, BytesMut};

use super::error::{ErrorReport, Severity};
use super::frame::Cursor;
use super::{SqlState, WireError};

/// The status byte of ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction.
    InTransaction,
    /// `E`: in a failed transaction.
    Failed,
}

impl TransactionStatus {
    /// Reads the status byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InTransaction),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    /// The status byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InTransaction => b'T',
            Self::Failed => b'E',
        }
    }
}

/// One field of a RowDescription. Source: PostgreSQL docs, "Message Formats", RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDescription {
    /// The column's name.
    pub name: String,
    /// OID of the table it comes from, 0 if none. Differs between shards.
    pub table_oid: u32,
    /// Attribute number in that table, 0 if none.
    pub column: i16,
    /// OID of its type.
    pub type_oid: u32,
    /// `pg_type.typlen`.
    pub type_len: i16,
    /// The type modifier, -1 if none.
    pub typmod: i32,
    /// 0 text, 1 binary.
    pub format: i16,
}

impl FieldDescription {
    /// A computed column in text format.
    #[must_use]
    pub fn text(name: impl Into<String>, type_oid: u32, type_len: i16) -> Self {
        Self { name: name.into(), table_oid: 0, column: 0, type_oid, type_len, typmod: -1, format: 0 }
    }
}

/// The fields of an ErrorResponse or NoticeResponse that the proxy looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorFields {
    /// The non-localised severity (`V`), else `S`.
    pub severity: String,
    /// The SQLSTATE as sent.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// The detail.
    pub detail: Option<String>,
    /// The hint.
    pub hint: Option<String>,
}

/// What an ErrorResponse is about, where the server says so.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorSubject {
    /// The table.
    pub table: Option<String>,
    /// The column.
    pub column: Option<String>,
    /// The constraint that was violated.
    pub constraint: Option<String>,
}

impl ErrorSubject {
    /// Reads the body of an ErrorResponse. Text that is not UTF-8 is replaced.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if it is cut off.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut at = Cursor::new(body, "ErrorResponse");
        let mut subject = Self::default();
        loop {
            let kind = at.u8()?;
            if kind == 0 {
                return Ok(subject);
            }
            let text = String::from_utf8_lossy(at.cstr()?).into_owned();
            match kind {
                b't' => subject.table = Some(text),
                b'c' => subject.column = Some(text),
                b'n' => subject.constraint = Some(text),
                _ => {}
            }
        }
    }
}

impl ErrorFields {
    /// Reads the body of an ErrorResponse or NoticeResponse. Text that is not UTF-8 is replaced.
    ///
    /// # Errors
    /// [`WireError::Malformed`] if it is cut off.
    pub fn parse(body: &[u8]) -> Result<Self, WireError> {
        let mut at = Cursor::new(body, "ErrorResponse");
        let mut fields = Self::default();
        loop {
            let kind = at.u8()?;
            if kind == 0 {
                return Ok(fields);
            }
            let text = String::from_utf8_lossy(at.cstr()?).into_owned();
            match kind {
                b'V' => fields.severity = text,
                b'S' if fields.severity.is_empty() => fields.severity = text,
                b'C' => fields.code = text,
                b'M' => fields.message = text,
                b'D' => fields.detail = Some(text),
                b'H' => fields.hint = Some(text),
                _ => {}
            }
        }
    }

    /// Whether the server ends the connection after it.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// The SQLSTATE; XX000 if it is none.
    #[must_use]
    pub fn sqlstate(&self) -> SqlState {
        SqlState::parse(self.code.as_bytes()).unwrap_or(SqlState::INTERNAL_ERROR)
    }
}

/// Reads the body of a RowDescription.
///
/// # Errors
/// [`WireError::Malformed`] if it is cut off or bytes are left over.
pub fn parse_row_description(body: &[u8]) -> Result<Vec<FieldDescription>, WireError> {
    let mut at = Cursor::new(body, "RowDescription");
    let count = at.u16()?;
    let mut fields = Vec::with_capacity(usize::from(count).min(body.len() / 18));
    for _ in 0..count {
        fields.push(FieldDescription {
            name: String::from_utf8_lossy(at.cstr()?).into_owned(),
            table_oid: at.u32()?,
            column: at.i16()?,
            type_oid: at.u32()?,
            type_len: at.i16()?,
            typmod: at.i32()?,
            format: at.i16()?,
        });
    }
    at.finish()?;
    Ok(fields)
}

/// Reads the body of a ParameterStatus: name and value.
///
/// # Errors
/// [`WireError::Malformed`] if it is cut off or not UTF-8.
pub fn parse_parameter_status(body: &[u8]) -> Result<(&str, &str), WireError> {
    let mut at = Cursor::new(body, "ParameterStatus");
    let pair = (at.utf8()?, at.utf8()?);
    at.finish()?;
    Ok(pair)
}

/// Reads the body of a CommandComplete: its tag, e.g. `"SELECT 3"`.
///
/// # Errors
/// [`WireError::Malformed`] if it is cut off or not UTF-8.
pub fn parse_command_tag(body: &[u8]) -> Result<&str, WireError> {
    let mut at = Cursor::new(body, "CommandComplete");
    let tag = at.utf8()?;
    at.finish()?;
    Ok(tag)
}

/// Whether the body of a CommandComplete is one: what [`parse_command_tag`] says, for less where it is ASCII.
#[must_use]
pub fn is_command_tag(body: &[u8]) -> bool {
    let ascii = |tag: &[u8]| tag.iter().all(|b| (1..0x80).contains(b));
    matches!(body, [tag @ .., 0] if ascii(tag)) || parse_command_tag(body).is_ok()
}

/// The row count at the end of a command tag, if it has one: `"INSERT 0 5"` is 5.
#[must_use]
pub fn rows_of_tag(tag: &str) -> Option<u64> {
    tag.rsplit_once(' ').and_then(|(_, n)| n.parse().ok())
}

/// Writes backend messages into a buffer; a buffer is sent to a client in one write.
pub trait BackendWriter {
    /// ErrorResponse, or NoticeResponse for a warning or notice.
    fn put_report(&mut self, report: &ErrorReport);
    /// ReadyForQuery.
    fn put_ready(&mut self, status: TransactionStatus);
    /// CommandComplete with a tag such as `"SELECT 3"`.
    fn put_command_complete(&mut self, tag: &str);
    /// RowDescription.
    fn put_row_description(&mut self, fields: &[FieldDescription]);
    /// DataRow; `None` is NULL.
    fn put_data_row<'a>(&mut self, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>);
    /// ParameterStatus.
    fn put_parameter_status(&mut self, name: &str, value: &str);
    /// ParameterDescription: the parameters' type OIDs.
    fn put_parameter_description(&mut self, oids: &[u32]);
    /// A message without a body: ParseComplete `1`, BindComplete `2`, CloseComplete `3`, NoData `n`,
    /// EmptyQueryResponse `I`, PortalSuspended `s`.
    fn put_empty(&mut self, tag: u8);
}

impl BackendWriter for BytesMut {
    fn put_report(&mut self, report: &ErrorReport) {
        let tag = match report.severity {
            Severity::Error | Severity::Fatal => b'E',
            Severity::Warning | Severity::Notice => b'N',
        };
        framed(self, tag, |out| {
            field(out, b'S', report.severity.as_str());
            field(out, b'V', report.severity.as_str());
            field(out, b'C', report.code.as_str());
            field(out, b'M', &report.message);
            if let Some(detail) = &report.detail {
                field(out, b'D', detail);
            }
            if let Some(hint) = &report.hint {
                field(out, b'H', hint);
            }
            if let Some(position) = report.position {
                field(out, b'P', &position.to_string());
            }
            out.put_u8(0);
        });
    }

    fn put_ready(&mut self, status: TransactionStatus) {
        self.put_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
    }

    fn put_command_complete(&mut self, tag: &str) {
        framed(self, b'C', |out| cstr(out, tag));
    }

    fn put_row_description(&mut self, fields: &[FieldDescription]) {
        framed(self, b'T', |out| {
            out.put_u16(fields.len() as u16);
            for f in fields {
                cstr(out, &f.name);
                out.put_u32(f.table_oid);
                out.put_i16(f.column);
                out.put_u32(f.type_oid);
                out.put_i16(f.type_len);
                out.put_i32(f.typmod);
                out.put_i16(f.format);
            }
        });
    }

    fn put_data_row<'a>(&mut self, values: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
        framed(self, b'D', |out| {
            out.put_u16(values.len() as u16);
            for value in values {
                match value {
                    Some(bytes) => {
                        out.put_u32(bytes.len() as u32);
                        out.put_slice(bytes);
                    }
                    None => out.put_i32(-1),
                }
            }
        });
    }

    fn put_parameter_status(&mut self, name: &str, value: &str) {
        framed(self, b'S', |out| {
            cstr(out, name);
            cstr(out, value);
        });
    }

    fn put_parameter_description(&mut self, oids: &[u32]) {
        framed(self, b't', |out| {
            out.put_u16(oids.len() as u16);
            oids.iter().for_each(|oid| out.put_u32(*oid));
        });
    }

    fn put_empty(&mut self, tag: u8) {
        self.put_slice(&[tag, 0, 0, 0, 4]);
    }
}

fn framed(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    let start = out.len();
    out.put_u32(0);
    body(out);
    let len = (out.len() - start) as u32;
    if let Some(slot) = out.get_mut(start..start + 4) {
        slot.copy_from_slice(&len.to_be_bytes());
    }
}

fn field(out: &mut BytesMut, kind: u8, text: &str) {
    out.put_u8(kind);
    cstr(out, text);
}

/// A zero byte inside would cut the string and lose the framing of what follows: it is dropped.
fn cstr(out: &mut BytesMut, text: &str) {
    if memchr::memchr(0, text.as_bytes()).is_none() {
        out.put_slice(text.as_bytes());
    } else {
        out.extend(text.bytes().filter(|b| *b != 0));
    }
    out.put_u8(0);
}
