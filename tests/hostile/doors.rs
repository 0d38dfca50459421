//! What hostile clients say before they have a session, or in place of one, with seeded random changes.
//! Must not do I/O.

use bytes::{BufMut, BytesMut};
use rand::Rng;
use rand::rngs::StdRng;

use super::mutate::{messages, mutated};
use super::script::{conversations, startup};

/// Requests that have no session yet, each followed by what a client would say next.
pub(crate) fn greeting(key: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let request = |code: u32, body: &[u8]| {
        let mut out = BytesMut::new();
        out.put_u32(body.len() as u32 + 8);
        out.put_u32(code);
        out.put_slice(body);
        out.to_vec()
    };
    let of_version = |version: u32| {
        let mut packet = startup();
        packet[4..8].copy_from_slice(&version.to_be_bytes());
        packet
    };
    let mut near = key.to_vec();
    let last = near.len() - 1;
    near[rng.random_range(4..=last)] ^= 1 << rng.random_range(0..8);
    let greetings = [
        [request(80_877_103, b""), startup()].concat(),
        [request(80_877_104, b""), request(80_877_103, b""), startup()].concat(),
        [request(80_877_104, b""), startup()].concat(),
        request(80_877_102, &near),
        request(80_877_102, &[&key[..4], &[0; 28]].concat()),
        of_version(3 << 16 | 2),
        of_version(3 << 16 | 9999),
        request(3 << 16, b"user\0raw\0database\0app\0options\0-c work_mem=64kB --a=b\0_pq_.x\0y\0\0"),
        request(3 << 16, b"user\0raw\0database\0pgherd\0replication\0off\0\0"),
        // The beginning of a TLS handshake without being asked.
        [&b"\x16\x03\x01\0\x40\x01\0\0\x3c\x03\x03"[..], &[7; 58]].concat(),
    ];
    let mut bytes = greetings[rng.random_range(0..greetings.len())].clone();
    for _ in 0..rng.random_range(0..3) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..4) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = rng.random(),
            2 => bytes.insert(at, rng.random()),
            _ => bytes[at] ^= 1 << rng.random_range(0..8),
        }
    }
    // What one change has made wrong another may have made right again.
    if let Some(at) = bytes.windows(key.len()).position(|part| part == key) {
        bytes[at + 4] ^= 1;
    }
    bytes.extend_from_slice(b"Q\0\0\0\x0dselect 1\0");
    bytes
}

/// A login with a password, changed.
pub(crate) fn login(rng: &mut StdRng) -> Vec<u8> {
    let all = conversations();
    let (_, login) =
        all.iter().find(|(name, _)| *name == "login with a password").expect("it is one of them");
    let messages = messages(login);
    [messages[0].clone(), mutated(&messages[1..], &messages[1..], rng)].concat()
}

/// A conversation after a login that needs no password, changed.
pub(crate) fn session(rng: &mut StdRng) -> Vec<u8> {
    let all: Vec<_> = conversations()
        .into_iter()
        .filter(|(name, _)| !["encryption asked for", "login with a password"].contains(name))
        .collect();
    let (_, conversation) = &all[rng.random_range(0..all.len())];
    // Who knows what of it is committed when BEGIN is no more what it was.
    let undisclosed = |message: &Vec<u8>| {
        let mut message = message.clone();
        while let Some(at) = message.windows(11).position(|part| part == b"uncommitted") {
            message[at..at + 11].copy_from_slice(b"undisclosed");
        }
        message
    };
    let messages: Vec<_> = messages(conversation).iter().map(undisclosed).collect();
    [messages[0].clone(), mutated(&messages[1..], &messages[1..], rng)].concat()
}
