//! Any bytes of a stranger: startup packets, however they arrive, and SCRAM messages without the password.
//! Must not know sockets.

use bytes::BytesMut;
use pgwire::api::auth::sasl::scram::ScramServerAuth;
use proptest::prelude::*;

use super::auth;
use super::packet::{Packet, next_packet};
use super::verifier::Mint;
use crate::wire::fuzzing::{fuzz, pieces};

/// What was understood, what is left, and why no more is.
fn packets<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Packet>, Vec<u8>, Option<String>) {
    let (mut buf, mut found) = (BytesMut::new(), Vec::new());
    for read in reads {
        buf.extend_from_slice(read);
        loop {
            let before = buf.clone();
            match next_packet(&mut buf) {
                Ok(Some(packet)) => found.push(packet),
                Ok(None) => {
                    assert_eq!(buf, before, "nothing is taken of a part");
                    break;
                }
                Err(refusal) => return (found, Vec::new(), Some(refusal.why)),
            }
        }
    }
    (found, buf.to_vec(), None)
}

#[test]
fn startup_packets_are_understood_the_same_however_they_arrive() {
    fuzz("startup", 5000, |_, input, numbers| {
        let whole = packets([input]);
        prop_assert_eq!(&packets(pieces(input, numbers)), &whole);
        prop_assert_eq!(&packets(input.chunks(1)), &whole);
        for packet in whole.0 {
            match packet {
                Packet::Cancel { secret, .. } => prop_assert!((4..=256).contains(&secret.len())),
                Packet::Startup(startup) => {
                    prop_assert!(!startup.user.is_empty() && !startup.database.is_empty());
                    prop_assert!(startup.parameters.iter().all(|(name, _)| !name.is_empty()));
                    prop_assert!(matches!(startup.minor, 0 | 2));
                }
                Packet::Ssl | Packet::Gss => {}
            }
        }
        Ok(())
    });
}

#[test]
fn no_scram_message_but_the_right_one_lets_anybody_in() {
    let (scram, verifier) = (ScramServerAuth::new(), Mint::new().fake("ann", 1));
    let honest = b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc";
    fuzz("scram", 2000, |_, input, _| {
        let mut out = BytesMut::new();
        if auth::first(&scram, &verifier, input, &mut out).is_err() {
            prop_assert!(out.is_empty(), "nothing is said to what is malformed");
        }
        out.clear();
        let waiting =
            auth::first(&scram, &verifier, honest, &mut out).map_err(|e| TestCaseError::fail(e.why))?;
        // Its nonce goes where the corpus has a mark, so that more than the nonce is looked at.
        let challenge = String::from_utf8_lossy(&out[9..]).into_owned();
        let nonce = challenge.trim_start_matches("r=").split(',').next().unwrap_or_default().to_owned();
        let last = String::from_utf8_lossy(input).replace("NONCE", &nonce);
        for body in [input, last.as_bytes()] {
            out.clear();
            prop_assert_ne!(auth::last(&waiting, body, &mut out), Ok(true));
            prop_assert!(out.is_empty());
            let _ = waiting.pass_through(&verifier, body);
        }
        Ok(())
    });
}
