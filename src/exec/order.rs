//! What a server may say now, by what it owes: anything else breaks the protocol, and the connection with it.
//! Must not know what becomes of a message that fits. Source: PostgreSQL docs, "Message Flow".

use super::expect::Expect;
use crate::wire::{ErrorFields, SqlState};

/// The longest message from a server that is passed on piece by piece, bytes: PostgreSQL's own limit.
const MAX_STREAMED: usize = (1 << 30) + 1024;
/// The longest of any other kind, bytes: it is held in memory until it is whole.
const MAX_HELD: usize = 64 << 20;

/// The longest body of a message of this type, bytes.
pub(super) fn longest(tag: u8) -> usize {
    if matches!(tag, b'D' | b'd' | b'V') { MAX_STREAMED } else { MAX_HELD }
}

/// Whether a message of this type may come while `front` is what is owed next. An error may come at any time if it
/// is a farewell, which its type does not show.
pub(super) fn fits(front: Option<&Expect>, tag: u8) -> bool {
    if matches!(tag, b'S' | b'N' | b'A' | b'E') {
        return true;
    }
    match front {
        Some(Expect::Query { .. } | Expect::Prefix) => {
            matches!(tag, b'T' | b'D' | b'C' | b'I' | b'Z' | b'G' | b'H' | b'd' | b'c' | b'V')
        }
        Some(Expect::Execute { .. }) => {
            matches!(tag, b'D' | b'C' | b'I' | b's' | b'G' | b'H' | b'd' | b'c')
        }
        Some(Expect::Parse { .. }) => tag == b'1',
        Some(Expect::Bind | Expect::BindOf(_)) => tag == b'2',
        Some(Expect::Close { .. }) => tag == b'3',
        Some(Expect::DescribeStatement { .. }) => matches!(tag, b't' | b'T' | b'n'),
        Some(Expect::DescribePortal) => matches!(tag, b'T' | b'n'),
        Some(Expect::Sync { .. }) => tag == b'Z',
        Some(Expect::CopyFailed(_)) => matches!(tag, b'Z' | b'3'),
        // Nothing of the server's is owed: the first is to fail, the others are the proxy's own.
        Some(
            Expect::ParseOf(_)
            | Expect::Refuse(_)
            | Expect::Local(_)
            | Expect::Change(_)
            | Expect::CopySyncs(_)
            | Expect::Plain,
        )
        | None => false,
    }
}

/// The error that the body of an ErrorResponse tells of; `None` if it is no such body, or lacks what every server has
/// sent since PostgreSQL 9.6 or before.
pub(super) fn error_of(body: &[u8]) -> Option<ErrorFields> {
    let fields = ErrorFields::parse(body).ok()?;
    let whole = !fields.severity.is_empty() && SqlState::parse(fields.code.as_bytes()).is_some();
    whole.then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::expect::CopyFailed;

    #[test]
    fn each_answer_comes_in_its_turn_only() {
        let query = Expect::Query { mark: 0 };
        let execute = Expect::Execute { mark: 0 };
        let parse = Expect::Parse { forward: true, key: None };
        let sync = Expect::Sync { forward: true };
        for (front, may) in [
            (None, "SNAE"),
            (Some(&query), "SNAETDCIZGHdcV"),
            (Some(&execute), "SNAEDCIsGHdc"),
            (Some(&parse), "SNAE1"),
            (Some(&Expect::Bind), "SNAE2"),
            (Some(&Expect::DescribePortal), "SNAETn"),
            (Some(&sync), "SNAEZ"),
            (Some(&Expect::CopySyncs(1)), "SNAE"),
            (Some(&Expect::CopyFailed(CopyFailed::default())), "SNAEZ3"),
        ] {
            for tag in 0..=255u8 {
                assert_eq!(fits(front, tag), may.as_bytes().contains(&tag), "{front:?} {}", char::from(tag));
            }
        }
    }

    #[test]
    fn an_error_without_severity_or_code_is_none() {
        assert!(error_of(b"SERROR\0VERROR\0C22012\0Mdivision by zero\0\0").is_some());
        for body in [
            &b""[..],
            b"\0",
            b"SERROR\0",
            b"SERROR\0\0",
            b"C22012\0\0",
            b"SERROR\0C22\0\0",
            b"SERROR\0C22012\0",
        ] {
            assert!(error_of(body).is_none(), "{body:?}");
        }
    }
}
