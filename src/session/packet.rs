//! Startup packets: the only messages without a type byte, and all that a stranger may send. Pure.
//! Must not know users, databases or sockets; never panics on any bytes.
//!
//! Not pgwire's codec: it neither bounds its decoders by the packet nor keeps text that is not UTF-8 apart.

use bytes::{Buf as _, Bytes, BytesMut};

use super::refusal::Refusal;
use crate::wire::{ErrorReport, SqlState};

/// Longest packet without its length word, bytes. Source: `MAX_STARTUP_PACKET_LENGTH` in pqcomm.h.
const MAX_BODY: usize = 10_000;
const CANCEL: (u16, u16) = (1234, 5678);
const SSL: (u16, u16) = (1234, 5679);
const GSS: (u16, u16) = (1234, 5680);
/// The newest minor version of protocol 3 spoken here.
pub(super) const NEWEST_MINOR: u16 = 2;

/// What a packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet {
    /// TLS.
    Ssl,
    /// GSSAPI encryption.
    Gss,
    /// The end of another session's statement.
    Cancel { pid: u32, secret: Bytes },
    /// A session.
    Startup(Startup),
}

/// A request for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Startup {
    /// 0 or 2: what is spoken from here on.
    pub(super) minor: u16,
    /// Whether the client must be told that (NegotiateProtocolVersion), and of these unknown `_pq_.` options.
    pub(super) negotiate: Option<Vec<String>>,
    pub(super) user: String,
    pub(super) database: String,
    /// All others, later ones win; those from `options` come first, as in PostgreSQL.
    pub(super) parameters: Vec<(String, String)>,
}

impl Startup {
    /// No newer version is to be spoken than this, and the client is told so if it asked for one.
    pub(super) fn speak_at_most(&mut self, minor: u16) {
        if self.minor > minor {
            self.minor = minor;
            self.negotiate.get_or_insert_default();
        }
    }
}

/// Takes one packet off the front of `buf`. `Ok(None)` means "read more".
///
/// # Errors
/// [`Refusal`]: silent where the bytes are not even a packet.
pub(super) fn next_packet(buf: &mut BytesMut) -> Result<Option<Packet>, Refusal> {
    let Some(head) = buf.first_chunk() else { return Ok(None) };
    let len = u32::from_be_bytes(*head); // counts itself
    let body = (len as usize)
        .checked_sub(4)
        .filter(|n| (4..=MAX_BODY).contains(n))
        .ok_or_else(|| Refusal::silent(format!("invalid length {len} of a startup packet")))?;
    if buf.len() - 4 < body {
        return Ok(None);
    }
    buf.advance(4);
    let mut body = buf.split_to(body);
    let code = (body.get_u16(), body.get_u16()); // at least 4 bytes, see above
    match code {
        SSL | GSS if !body.is_empty() => Err(Refusal::silent("an encryption request with a body")),
        SSL => Ok(Some(Packet::Ssl)),
        GSS => Ok(Some(Packet::Gss)),
        CANCEL => cancel(&body).map(Some),
        (3, minor) => startup(minor, &body).map(|s| Some(Packet::Startup(s))),
        (major, minor) => Err(unsupported(major, minor)),
    }
}

/// The refusal of a version that is none, or of a request that came too late to be one.
pub(super) fn unsupported(major: u16, minor: u16) -> Refusal {
    let message =
        format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}");
    Refusal::fatal(SqlState::FEATURE_NOT_SUPPORTED, message)
}

fn cancel(body: &[u8]) -> Result<Packet, Refusal> {
    match body.split_first_chunk() {
        Some((pid, key)) if (4..=256).contains(&key.len()) => {
            Ok(Packet::Cancel { pid: u32::from_be_bytes(*pid), secret: Bytes::copy_from_slice(key) })
        }
        _ => Err(Refusal::silent("invalid length of a cancel request")),
    }
}

fn violation(message: impl Into<String>) -> Refusal {
    Refusal::fatal(SqlState::PROTOCOL_VIOLATION, message)
}

fn startup(asked: u16, body: &[u8]) -> Result<Startup, Refusal> {
    let (mut user, mut database, mut options) = ("", "", Vec::new());
    let (mut parameters, mut unknown) = (Vec::new(), Vec::new());
    for (name, value) in pairs(body)? {
        match name {
            "user" => user = value,
            "database" => database = value,
            "options" => options = split_options(value)?,
            "replication" => refuse_replication(value)?,
            _ if name.starts_with("_pq_.") => unknown.push(name.to_owned()),
            _ => parameters.push((name.to_owned(), value.to_owned())),
        }
    }
    if user.is_empty() {
        let message = "no PostgreSQL user name specified in startup packet";
        return Err(Refusal::fatal(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, message));
    }
    options.append(&mut parameters);
    Ok(Startup {
        // 3.1 was never used: PostgreSQL takes it as 3.0 with another name.
        minor: if asked >= NEWEST_MINOR { NEWEST_MINOR } else { 0 },
        negotiate: (asked > NEWEST_MINOR || !unknown.is_empty()).then_some(unknown),
        user: user.to_owned(),
        database: if database.is_empty() { user } else { database }.to_owned(),
        parameters: options,
    })
}

/// Name and value pairs up to the empty name, which must be the last byte.
fn pairs(body: &[u8]) -> Result<Vec<(&str, &str)>, Refusal> {
    let layout = || violation("invalid startup packet layout: expected terminator as last byte");
    let text = body.strip_suffix(&[0]).ok_or_else(layout)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_suffix(&[0]).ok_or_else(layout)?; // the last value's own zero
    let text = std::str::from_utf8(text).map_err(|_| violation("the startup packet is not UTF-8"))?;
    let mut parts = text.split('\0');
    let mut pairs = Vec::new();
    while let Some(name) = parts.next() {
        match parts.next() {
            Some(value) if !name.is_empty() => pairs.push((name, value)),
            _ => return Err(layout()),
        }
    }
    Ok(pairs)
}

fn refuse_replication(value: &str) -> Result<(), Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "false" | "off" | "no" | "0" | "f" | "n" => Ok(()),
        "true" | "on" | "yes" | "1" | "t" | "y" | "database" => Err(Refusal::told(
            ErrorReport::fatal(SqlState::FEATURE_NOT_SUPPORTED, "replication connections are not supported")
                .with_hint("Connect to the PostgreSQL server itself."),
        )),
        _ => Err(Refusal::told(
            ErrorReport::fatal(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"replication\": \"{value}\""),
            )
            .with_hint("Valid values are: \"false\", 0, \"true\", 1, \"database\"."),
        )),
    }
}

/// Reads `options`: words as PostgreSQL splits them, of the forms `-c name=value`, `-cname=value`, `--name=value`.
/// Source: `pg_split_opts` and `process_postgres_switches`. Its other switches are refused, not ignored.
fn split_options(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut words = words(text).into_iter();
    let mut pairs = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(long), _) => long.to_owned(),
            (None, Some("")) => words.next().unwrap_or_default(),
            (None, Some(rest)) => rest.to_owned(),
            (None, None) => {
                let message = format!("startup option \"{word}\" is not supported");
                let report = ErrorReport::fatal(SqlState::FEATURE_NOT_SUPPORTED, message);
                return Err(Refusal::told(report.with_hint("Write it as -c name=value.")));
            }
        };
        match setting.split_once('=') {
            Some((name, value)) if !name.is_empty() => pairs.push((name.replace('-', "_"), value.to_owned())),
            _ => {
                let message = format!("{word} {setting} requires a value");
                return Err(Refusal::fatal(SqlState::SYNTAX_ERROR, message));
            }
        }
    }
    Ok(pairs)
}

/// Words between white space; a backslash takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() || c == '\x0b' => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(code: (u16, u16), body: &[u8]) -> BytesMut {
        let mut out = BytesMut::new();
        out.extend_from_slice(&(body.len() as u32 + 8).to_be_bytes());
        out.extend_from_slice(&code.0.to_be_bytes());
        out.extend_from_slice(&code.1.to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    fn read(code: (u16, u16), body: &[u8]) -> Result<Packet, Refusal> {
        next_packet(&mut packet(code, body)).map(|p| p.expect("a whole packet"))
    }

    fn session(code: (u16, u16), body: &[u8]) -> Startup {
        let packet = read(code, body).unwrap();
        let Packet::Startup(startup) = packet else { panic!("{packet:?}") };
        startup
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn a_packet_is_taken_whole_and_no_byte_more() {
        let mut buf = packet((3, 0), b"user\0ann\0\0");
        let whole = buf.clone();
        buf.extend_from_slice(b"Q....");
        for end in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..end]);
            assert_eq!(next_packet(&mut part), Ok(None));
            assert_eq!(part.len(), end, "nothing is taken of a part");
        }
        assert!(matches!(next_packet(&mut buf), Ok(Some(Packet::Startup(_)))));
        assert_eq!(&buf[..], b"Q....");
    }

    #[test]
    fn a_length_that_cannot_be_is_refused_before_the_rest_arrives() {
        for len in [0_u32, 3, 4, 7, 10_005, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::from_be_bytes(*b"GET ")]
        {
            let refusal = next_packet(&mut BytesMut::from(&len.to_be_bytes()[..])).unwrap_err();
            assert_eq!(refusal.report, None, "{len}");
        }
        assert_eq!(next_packet(&mut BytesMut::from(&10_004_u32.to_be_bytes()[..])), Ok(None));
    }

    #[test]
    fn requests_without_a_session_are_told_apart() {
        assert_eq!(read(SSL, b""), Ok(Packet::Ssl));
        assert_eq!(read(GSS, b""), Ok(Packet::Gss));
        let key = Bytes::from_static(b"\x01\x02\x03\x04");
        assert_eq!(read(CANCEL, b"\0\0\0\x07\x01\x02\x03\x04"), Ok(Packet::Cancel { pid: 7, secret: key }));
        assert!(matches!(read(CANCEL, &[9; 260]), Ok(Packet::Cancel { secret, .. }) if secret.len() == 256));
        for body in [&[][..], &[0; 4], &[0; 7], &[0; 261]] {
            assert_eq!(read(CANCEL, body).unwrap_err().report, None);
        }
        assert!(read(SSL, b"x").is_err());
    }

    #[test]
    fn a_session_names_user_database_and_parameters() {
        let startup = session((3, 0), b"user\0ann\0DateStyle\0ISO\0options\0-c a=1 --b-c=2 -cd=\\ 3\0\0");
        assert_eq!((startup.minor, startup.negotiate), (0, None));
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("ann", "ann"));
        assert_eq!(
            startup.parameters,
            [pair("a", "1"), pair("b_c", "2"), pair("d", " 3"), pair("DateStyle", "ISO")]
        );
        let startup = session((3, 2), b"database\0shop\0user\0ann\0replication\0off\0x\0\0\0");
        assert_eq!((startup.minor, startup.database.as_str()), (2, "shop"));
        assert_eq!(startup.parameters, [pair("x", "")]);
    }

    #[test]
    fn versions_and_options_from_the_future_are_negotiated_down() {
        for (minor, option, want) in [
            (0, "", (0, None)),
            (1, "", (0, None)),
            (2, "", (2, None)),
            (3, "", (2, Some(vec![]))),
            (9999, "", (2, Some(vec![]))),
            (0, "_pq_.x\0\x31\0", (0, Some(vec!["_pq_.x".to_owned()]))),
        ] {
            let startup = session((3, minor), format!("user\0ann\0{option}\0").as_bytes());
            assert_eq!((startup.minor, startup.negotiate), want, "3.{minor}");
            assert_eq!(startup.parameters, []);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_postgresqls_code() {
        for (code, body, state, message) in [
            ((2, 0), &b""[..], "0A000", "unsupported frontend protocol 2.0"),
            ((4, 0), b"", "0A000", "unsupported frontend protocol 4.0"),
            ((1234, 1), b"", "0A000", "unsupported frontend protocol 1234.1"),
            ((3, 0), b"", "08P01", "expected terminator"),
            ((3, 0), b"user\0ann\0", "08P01", "expected terminator"),
            ((3, 0), b"user\0ann", "08P01", "expected terminator"),
            ((3, 0), b"user\0\0", "08P01", "expected terminator"),
            ((3, 0), b"user\0ann\0\0more\0x\0\0", "08P01", "expected terminator"),
            ((3, 0), b"user\0\xff\xfe\0\0", "08P01", "not UTF-8"),
            ((3, 0), b"\0", "28000", "no PostgreSQL user name"),
            ((3, 0), b"user\0\0\0", "28000", "no PostgreSQL user name"),
            ((3, 0), b"user\0a\0replication\0true\0\0", "0A000", "replication connections"),
            ((3, 0), b"user\0a\0replication\0database\0\0", "0A000", "replication connections"),
            ((3, 0), b"user\0a\0replication\0maybe\0\0", "22023", "invalid value for parameter"),
            ((3, 0), b"user\0a\0options\0-d 5\0\0", "0A000", "startup option \"-d\""),
            ((3, 0), b"user\0a\0options\0-c\0\0", "42601", "requires a value"),
            ((3, 0), b"user\0a\0options\0--x\0\0", "42601", "requires a value"),
        ] {
            let report = read(code, body).unwrap_err().report.expect("the client is told");
            assert_eq!(report.code.as_str(), state, "{body:?}");
            assert!(report.message.contains(message), "{}", report.message);
            assert_eq!(report.severity, crate::wire::Severity::Fatal);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = next_packet(&mut BytesMut::from(&bytes[..]));
            for code in [CANCEL, SSL, GSS, (3, 0), (3, 2)] {
                let _ = read(code, &bytes);
            }
        }

        #[test]
        fn any_options_are_split_or_refused(text in "[-c=a\\\\ \t]{0,30}") {
            let _ = split_options(&text);
        }
    }
}
