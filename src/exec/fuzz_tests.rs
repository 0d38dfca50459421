//! Any bytes of a server: what goes to the client does not depend on how they arrive, and the answer of one statement
//! is never taken for another's.
//! Must not know sessions.

use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::Index;

use super::exchange::Exchange;
use super::expect::Expect;
use crate::pool::{ServerConn, StatementKey};
use crate::wire::fuzzing::{fuzz, pieces};
use crate::wire::{BackendWriter as _, TransactionStatus, peek_head};

/// What may be owed when a server speaks.
fn owed() -> Vec<Vec<Expect>> {
    let key = StatementKey(7);
    let sync = Expect::Sync { forward: true };
    let parse = |forward| Expect::Parse { forward, key: Some(key) };
    let describe = |forward| Expect::DescribeStatement { forward, key };
    let execute = |mark| Expect::Execute { mark };
    vec![
        vec![],
        vec![Expect::Query { mark: 1 }],
        vec![Expect::Prefix, Expect::Query { mark: 1 }],
        vec![parse(true), Expect::Bind, Expect::DescribePortal, execute(1), sync.clone()],
        vec![parse(false), describe(false), Expect::Bind, execute(1), Expect::Bind, execute(2), sync.clone()],
        vec![parse(true), describe(true), Expect::Close { forward: true, key: None }, sync.clone()],
        vec![Expect::Bind, execute(1), sync.clone(), Expect::Query { mark: 2 }],
        vec![execute(1), sync.clone(), sync.clone()],
        vec![Expect::Query { mark: 1 }, sync.clone()],
    ]
}

/// All that comes of these bytes, in these reads: whether the server is lost, what the client gets, what is noted.
fn outcome<'a>(
    expect: &[Expect],
    reads: impl IntoIterator<Item = &'a [u8]>,
    server: &mut ServerConn,
) -> (Vec<u8>, String) {
    let mut x = Exchange::new();
    x.start();
    expect.iter().for_each(|e| x.expect(e.clone()));
    let mut lost = None;
    for read in reads {
        x.down.extend_from_slice(read);
        lost = x.scan(server);
        if lost.is_some() {
            break;
        }
    }
    let mut noted = String::new();
    // Formatting into a String cannot fail.
    let _ = write!(noted, "{lost:?} {:?} {:?} {:?} {:?}", x.done, x.status, x.expect, x.skipping);
    if lost.is_none() {
        let _ = write!(noted, " {} {}", x.pass, x.down.len() - x.ready);
    }
    (x.down.get(..x.ready).unwrap_or_default().to_vec(), noted)
}

#[tokio::test]
async fn what_a_client_gets_does_not_depend_on_how_its_servers_bytes_arrive() {
    let server = parking_lot::Mutex::new(ServerConn::of_nobody());
    fuzz("wire", 4000, |_, input, numbers| {
        let server = &mut *server.lock();
        let owed = owed();
        let expect = numbers[0].get(&owed);
        let whole = outcome(expect, [input], server);
        prop_assert_eq!(&outcome(expect, pieces(input, numbers), server), &whole);
        prop_assert_eq!(&outcome(expect, input.chunks(1), server), &whole);
        no_more_ends_than_owed(expect, &whole.0, numbers)
    });
}

/// However much a server says: the client is told that it is ready no more often than it has asked.
fn no_more_ends_than_owed(expect: &[Expect], told: &[u8], _: &[Index]) -> Result<(), TestCaseError> {
    let (mut rest, mut ends) = (told, 0);
    while let Ok(Some(head)) = peek_head(rest, usize::MAX >> 1) {
        ends += usize::from(head.tag == b'Z');
        rest = rest.get(head.total()..).unwrap_or_default();
    }
    let asked = |e: &&Expect| matches!(e, Expect::Query { .. } | Expect::Sync { forward: true });
    prop_assert!(ends <= expect.iter().filter(asked).count());
    Ok(())
}

#[tokio::test]
async fn an_honest_answer_passes_whole() {
    let mut answer = bytes::BytesMut::new();
    answer.put_row_description(&[]);
    answer.put_command_complete("SELECT 0");
    answer.put_ready(TransactionStatus::Idle);
    let mut server = ServerConn::of_nobody();
    let (told, noted) = outcome(&[Expect::Query { mark: 1 }], [&answer[..]], &mut server);
    assert_eq!(told, answer);
    assert!(noted.starts_with("None [Command"), "{noted}");
}
