//! What no honest server says, for each way in which a statement is asked.
//! Must not do I/O.

use bytes::{BufMut, BytesMut};
use pgherd::wire::{BackendWriter, FieldDescription, TransactionStatus};

use super::liar::{Lie, Then};

/// How a statement is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Query.
    Simple,
    /// Query after BEGIN.
    InTransaction,
    /// Parse, Bind, Describe of the portal, Execute, Sync.
    Extended,
    /// Parse, Describe of the statement, Sync: what is told is kept for others.
    Described,
    /// Query to all shards.
    FanOut,
    /// The same as `Extended` to all shards.
    FanOutExtended,
}

impl Way {
    pub(crate) const ALL: [Self; 6] = [
        Self::Simple,
        Self::InTransaction,
        Self::Extended,
        Self::Described,
        Self::FanOut,
        Self::FanOutExtended,
    ];

    pub(crate) fn is_fan_out(self) -> bool {
        matches!(self, Self::FanOut | Self::FanOutExtended)
    }

    /// What is answered before the first row.
    fn head(self) -> BytesMut {
        let mut out = BytesMut::new();
        let extended = matches!(self, Self::Extended | Self::Described | Self::FanOutExtended);
        if extended {
            out.put_empty(b'1');
        }
        if self == Self::Described {
            out.put_parameter_description(&[]);
        } else if extended {
            out.put_empty(b'2');
        }
        out
    }

    fn described(self) -> BytesMut {
        let mut out = self.head();
        out.put_row_description(&[FieldDescription::text("user_id", 25, -1)]);
        out
    }

    fn rows(self) -> BytesMut {
        let mut out = self.described();
        if self != Self::Described {
            row(&mut out);
        }
        out
    }

    /// An answer up to ReadyForQuery.
    fn complete(self) -> BytesMut {
        let mut out = self.rows();
        if self != Self::Described {
            out.put_command_complete("SELECT 1");
        }
        out
    }

    fn whole(self) -> BytesMut {
        let mut out = self.complete();
        let open = self == Self::InTransaction;
        out.put_ready(if open { TransactionStatus::InTransaction } else { TransactionStatus::Idle });
        out
    }
}

/// What nobody may ever see whom it was not meant for.
pub(crate) const SECRET: &str = "a row of a lie";

fn row(out: &mut BytesMut) {
    out.put_data_row([Some(SECRET.as_bytes())].into_iter());
}

/// A name for people, the lie, and whether the answer is whole before it.
pub(crate) type Told = (String, Lie, bool);

fn add(all: &mut Vec<Told>, name: &str, bytes: BytesMut, then: Then, whole: bool) {
    all.push((name.to_owned(), Lie { bytes: bytes.to_vec(), then }, whole));
}

/// Lies that show at once.
pub(crate) fn quick(way: Way) -> Vec<Told> {
    let mut all = Vec::new();
    let mut lie = |name: &str, mut start: BytesMut, rest: &[u8], then| {
        start.put_slice(rest);
        add(&mut all, name, start, then, false);
    };
    lie("closes at once", BytesMut::new(), b"", Then::Close);
    lie("closes in a header", way.head(), b"T\0\0", Then::Close);
    lie("closes in a description", way.head(), b"T\0\0\0\x20\0\x01user", Then::Close);
    lie("closes after the description", way.described(), b"", Then::Close);
    lie("closes in a row", way.rows(), b"D\0\0\0\x40\0\x01\0\0\0\x36half a", Then::Close);
    lie("closes before ReadyForQuery", way.complete(), b"", Then::Close);
    for tag in *b"TEDZN" {
        for length in [0u32, 3, i32::MAX as u32, 1 << 31, u32::MAX] {
            let mut rest = vec![tag];
            rest.extend_from_slice(&length.to_be_bytes());
            rest.extend_from_slice(b"some bytes of it");
            lie(&format!("length {length} of {}", char::from(tag)), way.head(), &rest, Then::GoOn);
        }
    }
    let ready = b"Z\0\0\0\x05I";
    for (what, body) in [
        ("is empty", &b""[..]),
        ("has no end", b"SERROR\0C22012\0Mdivi"),
        ("has no fields", b"\0"),
        ("has no code", b"SERROR\0VERROR\0Mdivision by zero\0\0"),
        ("has no severity", b"C22012\0Mdivision by zero\0\0"),
        ("has a code of two letters", b"SERROR\0VERROR\0C22\0Mdivision by zero\0\0"),
    ] {
        let mut rest = BytesMut::new();
        rest.put_u8(b'E');
        rest.put_u32(body.len() as u32 + 4);
        rest.put_slice(body);
        rest.put_slice(ready);
        lie(&format!("an error that {what}"), way.head(), &rest, Then::GoOn);
    }
    for (what, rest) in [
        ("an unknown status", &b"Z\0\0\0\x05X"[..]),
        ("no status", b"Z\0\0\0\x04"),
        ("a status of two bytes", b"Z\0\0\0\x06II"),
    ] {
        lie(what, way.complete(), rest, Then::GoOn);
    }
    for (what, rest) in [
        ("a type that does not exist", &b"?\0\0\0\x04"[..]),
        ("a request for a password", b"R\0\0\0\x08\0\0\0\x03"),
        ("a cancel key", b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02"),
        ("CloseComplete", b"3\0\0\0\x04"),
        ("CopyBothResponse", b"W\0\0\0\x07\0\0\0"),
        ("a malformed ParameterStatus", b"S\0\0\0\x08TimeZ"),
        ("a command tag that is no text", b"C\0\0\0\x06\xff\xff"),
    ] {
        lie(what, way.rows(), rest, Then::GoOn);
    }
    if !matches!(way, Way::Simple | Way::InTransaction) {
        lie("a description that is cut off", way.head(), b"T\0\0\0\x0a\xff\xffuser", Then::GoOn);
    }
    if way.is_fan_out() {
        lie("a row that was not described", way.head(), b"D\0\0\0\x0b\0\x01\0\0\0\x01x", Then::GoOn);
        lie("a row of other columns", way.described(), b"D\0\0\0\x06\0\0", Then::GoOn);
        lie("ReadyForQuery too early", way.rows(), ready, Then::GoOn);
    }
    let mut after = |name: &str, rest: &[u8]| {
        let mut bytes = way.whole();
        bytes.put_slice(rest);
        add(&mut all, name, bytes, Then::GoOn, true);
    };
    after("ReadyForQuery twice", ready);
    after("ReadyForQuery ten times", &ready.repeat(10));
    let mut rows = BytesMut::new();
    row(&mut rows);
    after("a row after the end", &rows);
    after("a whole answer after the end", &Way::Simple.whole());
    after("an error after the end", b"E\0\0\0\x1bSERROR\0VERROR\0C22012\0Mx\0\0");
    after("half a header after the end", b"D\0");
    all
}

/// Lies that only end by a timeout.
pub(crate) fn slow(way: Way) -> Vec<Told> {
    let mut all = Vec::new();
    add(&mut all, "says nothing", BytesMut::new(), Then::Silence, false);
    let mut half = way.rows();
    half.put_slice(b"D\x30\0\0\0\0\x01\0\0");
    if matches!(way, Way::Simple | Way::FanOut) {
        add(&mut all, "never ends a row", half, Then::Silence, false);
        add(&mut all, "never says that it is ready", way.complete(), Then::Silence, false);
    }
    let mut notice = way.whole();
    notice.put_slice(b"N\0\0");
    add(&mut all, "never ends a notice", notice, Then::Silence, true);
    all
}

/// A lie that never ends.
pub(crate) fn endless() -> Lie {
    let mut bytes = Way::Simple.described();
    bytes.clear();
    (0..100).for_each(|_| row(&mut bytes));
    Lie { bytes: bytes.to_vec(), then: Then::Repeat }
}

/// Lies at login.
pub(crate) fn at_login() -> Vec<(&'static str, Lie)> {
    let ok = b"R\0\0\0\x08\0\0\0\0";
    let key = b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02";
    let ready = b"Z\0\0\0\x05I";
    let lie = |parts: &[&[u8]], then| Lie { bytes: parts.concat(), then };
    let mut many = Vec::new();
    for n in 0..2000 {
        let mut out = BytesMut::new();
        out.put_parameter_status(&format!("parameter_{n}"), "on");
        many.extend_from_slice(&out);
    }
    vec![
        ("closes", lie(&[], Then::Close)),
        ("says nothing", lie(&[], Then::Silence)),
        ("closes after it has let us in", lie(&[ok], Then::Close)),
        ("never becomes ready", lie(&[ok, key], Then::Silence)),
        ("no protocol", lie(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], Then::Close)),
        ("an impossible length", lie(&[b"R\xff\xff\xff\xff\0\0\0\0"], Then::Silence)),
        ("an error that is none", lie(&[b"E\0\0\0\x06Sx"], Then::Silence)),
        ("a broken SCRAM challenge", {
            lie(&[b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", b"R\0\0\0\x0d\0\0\0\x0br=xyz"], Then::Silence)
        }),
        ("SCRAM ends before it began", lie(&[b"R\0\0\0\x0a\0\0\0\x0cv="], Then::Silence)),
        ("a short salt", lie(&[b"R\0\0\0\x09\0\0\0\x05x"], Then::Silence)),
        ("a method nobody knows", lie(&[b"R\0\0\0\x08\0\0\0\x63"], Then::Silence)),
        ("parameters without end", lie(&[ok, &many], Then::Silence)),
        ("an empty cancel key", lie(&[ok, b"K\0\0\0\x08\0\0\0\x01", ready], Then::Silence)),
        ("ready in a transaction", lie(&[ok, key, b"Z\0\0\0\x05T"], Then::Silence)),
        ("a row after it is ready", lie(&[ok, key, ready, b"D\0\0\0\x06\0\0"], Then::Silence)),
    ]
}
