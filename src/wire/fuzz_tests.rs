//! Any bytes as messages: framing does not depend on how they arrive, what is decoded is what was sent.
//! Must not know who sends them.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::fuzzing::{fuzz, pieces};
use super::*;

/// As in a session, bytes.
const MOST: usize = 1 << 20;

/// All frames, what is left, and whether framing was lost.
fn frames<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Vec<u8>, Option<WireError>) {
    let (mut buf, mut frames) = (BytesMut::new(), Vec::new());
    let mut reads = reads.into_iter();
    loop {
        match next_frame(&mut buf, MOST) {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => match reads.next() {
                Some(read) => buf.extend_from_slice(read),
                None => return (frames, buf.to_vec(), None),
            },
            Err(error) => {
                reads.for_each(|read| buf.extend_from_slice(read));
                return (frames, buf.to_vec(), Some(error));
            }
        }
    }
}

/// What was decoded is written as it was.
fn decoded_is_what_was_sent(frame: &Frame) -> Result<(), TestCaseError> {
    let body = &frame.body[..];
    let mut out = BytesMut::new();
    match frame.tag {
        b'Q' => parse_query(body).into_iter().for_each(|sql| out.put_query(sql)),
        b'P' => parse_parse(body).into_iter().for_each(|p| out.put_parse(p.name, p.sql, p.types)),
        b'B' => parse_bind(body).into_iter().for_each(|b| out.put_bind(b.portal, b.statement, b.tail)),
        b'D' | b'C' => parse_target(body).into_iter().for_each(|target| out.put_target(frame.tag, target)),
        b'E' => parse_execute(body).into_iter().for_each(|(portal, limit)| out.put_execute(portal, limit)),
        b'S' => parse_parameter_status(body).into_iter().for_each(|(n, v)| out.put_parameter_status(n, v)),
        _ => {}
    }
    if !out.is_empty() {
        prop_assert_eq!(&out[5..], body);
        prop_assert_eq!(out[0], frame.tag);
    }
    if let Ok(bind) = parse_bind(body) {
        prop_assert_eq!(parse_bind_tail(bind.tail).err(), bind.fault().cloned().map(BindFault::into_error));
        let values = bind.values().count();
        prop_assert!(values <= bind.len() && (values == bind.len() || bind.fault().is_some()));
        let bytes: usize = bind.values().flatten().map(<[u8]>::len).sum();
        prop_assert!(bytes + 4 * values <= bind.tail.len());
        let _ = (bind.is_binary(0), bind.is_binary(usize::from(u16::MAX)), bind.result_formats());
    }
    if let Ok(parse) = parse_parse(body) {
        let _ = (parse.type_oid(0), parse.type_oid(70_000));
    }
    if let Ok(columns) = parse_row_description(body) {
        let lossless = columns.iter().all(|c| !c.name.contains('\u{fffd}'));
        let mut again = BytesMut::new();
        again.put_row_description(&columns);
        prop_assert!(!lossless || again[5..] == *body);
    }
    assert_eq!(is_command_tag(body), parse_command_tag(body).is_ok());
    if let Ok(tag) = parse_command_tag(body) {
        let _ = rows_of_tag(tag);
    }
    prop_assert_eq!(ErrorFields::parse(body).is_ok(), ErrorSubject::parse(body).is_ok());
    if let Ok(fields) = ErrorFields::parse(body) {
        let _ = (fields.is_fatal(), fields.sqlstate());
    }
    Ok(())
}

#[test]
fn framing_does_not_depend_on_how_bytes_arrive_and_what_is_decoded_is_what_was_sent() {
    fuzz("wire", 3000, |_, input, numbers| {
        let whole = frames([input]);
        prop_assert_eq!(&frames(pieces(input, numbers)), &whole);
        prop_assert_eq!(&frames(input.chunks(1)), &whole);
        // Every byte is in a frame or left.
        let sum: usize = whole.0.iter().map(|frame| frame.body.len() + 5).sum();
        prop_assert_eq!(sum + whole.1.len(), input.len());
        // Whatever its type, its body may be read as any other's.
        for frame in &whole.0 {
            decoded_is_what_was_sent(frame)?;
            for tag in *b"QPBDES" {
                decoded_is_what_was_sent(&Frame { tag, body: frame.body.clone() })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_report_is_read_as_it_was_written() {
    fuzz("sql", 500, |_, input, _| {
        let text = String::from_utf8_lossy(input).replace('\0', "");
        let report = ErrorReport::error(SqlState::SYNTAX_ERROR, text.clone()).with_hint(text.clone());
        let mut out = BytesMut::new();
        out.put_report(&report.with_detail(text.clone()));
        let frame = next_frame(&mut out, MOST).unwrap().unwrap();
        let fields = ErrorFields::parse(&frame.body).unwrap();
        prop_assert_eq!((fields.detail.as_ref(), fields.hint.as_ref()), (Some(&text), Some(&text)));
        prop_assert_eq!(fields.message, text);
        prop_assert!(out.is_empty());
        out.put_u8(0);
        Ok(())
    });
}
