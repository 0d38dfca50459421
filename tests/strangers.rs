//! What strangers say before they are let in: startup packets, requests for encryption and to cancel, proofs of a password;
//! whole, changed and torn. One server and the proxy react alike.
//!
//! `PGHERD_HOSTILE=20 cargo test --test strangers` does twenty times as many.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use common::{Changes, Front};
use pgherd::wire::{ErrorFields, FrontendWriter, next_frame};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time until a stranger who says no more is left alone.
const OVER: Duration = Duration::from_secs(30);

fn size() -> u64 {
    std::env::var("PGHERD_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn seed() -> u64 {
    std::env::var("PGHERD_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn of<T: Clone>(all: &[T], rng: &mut StdRng) -> T {
    all[rng.random_range(0..all.len())].clone()
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u32(body.len() as u32 + 8);
    out.put_u32(code);
    out.put_slice(body);
    out.to_vec()
}

/// A packet of any kind; most have a mistake, in a value, a count or a byte.
fn greeting(rng: &mut StdRng) -> Vec<u8> {
    let who = b"user\0app\0database\0app\0";
    let more = of(
        &[
            &b""[..],
            b"application_name\0stranger\0",
            b"options\0-c work_mem=64kB\0",
            b"_pq_.command_trace\0on\0",
            b"_pq_.a\0\0_pq_.b\0x\0",
            b"replication\0off\0",
            b"replication\0perhaps\0",
            b"user\0\0",
            b"user\0app\0",
            b"client_encoding\0nonsense\0",
            b"half",
            b"half\0",
        ],
        rng,
    );
    let version = of(
        &[3 << 16, 3 << 16, 3 << 16, 3 << 16 | 1, 3 << 16 | 2, 3 << 16 | 99, 2 << 16, 4 << 16, 0, u32::MAX],
        rng,
    );
    let body = match rng.random_range(0..6) {
        0 => [&who[..], more].concat(), // no end
        1 => [more, b"\0"].concat(),    // nobody
        2 => [&who[..], b"\0", more].concat(),
        _ => [&who[..], more, b"\0"].concat(),
    };
    let startup = packet(version, &body);
    let ssl = packet(80_877_103, b"");
    match rng.random_range(0..10) {
        0 => [ssl, startup].concat(),
        1 => [ssl.clone(), ssl, startup].concat(),
        3 => packet(80_877_102, &vec![7; rng.random_range(0..300)]),
        4 => packet(80_877_100 + rng.random_range(0..10), b"\0"),
        _ => startup,
    }
}

/// What one with a password would say next.
fn proof(rng: &mut StdRng) -> Vec<u8> {
    let first = of(
        &[
            &b"n,,n=,r=fyko+d2lbbFgONRv9qkxdawL"[..],
            b"y,,n=app,r=x",
            b"n,a=other,n=,r=x",
            b"p=tls-server-end-point,,n=,r=x",
            b"n,,r=x",
            b"n,,n=,r=",
            b"n,,m=1,n=,r=x",
            b"",
            b"n",
            b"\xff,,n=,r=x",
        ],
        rng,
    );
    let mechanism = of(
        &[&b"SCRAM-SHA-256\0"[..], b"SCRAM-SHA-256\0", b"SCRAM-SHA-256-PLUS\0", b"PLAIN\0", b"SCRAM-SHA-256"],
        rng,
    );
    let mut out = BytesMut::new();
    let mut body = BytesMut::new();
    body.put_slice(mechanism);
    body.put_i32(match rng.random_range(0..8) {
        0 => -1,
        1 => first.len() as i32 + 1,
        2 => of(&[0, i32::MAX, i32::MIN], rng),
        _ => first.len() as i32,
    });
    body.put_slice(first);
    let tag = if rng.random_bool(0.9) { b'p' } else { of(b"QXPd\0\xff", rng) };
    out.put_frame(tag, &body);
    if rng.random() {
        let last = of(
            &[
                &b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="[..],
                b"c=biws,r=x",
                b"",
                b"c=eSws,r=x,p=AAAA",
            ],
            rng,
        );
        out.put_frame(of(b"pppX", rng), last);
    }
    out.to_vec()
}

fn changed(mut bytes: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    for _ in 0..of(&[0, 0, 1, 1, 2], rng) {
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = rng.random(),
            2 => bytes.insert(at, of(&[0, 1, b'x', 0xff], rng)),
            3 => drop(bytes.remove(at)),
            _ => bytes[at] ^= 1 << rng.random_range(0..8),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Says it in pieces, and that no more will come; what is answered. What follows a request for encryption is said when
/// that is answered, for a server ends the connection if it comes before.
async fn reaction(port: u16, mut bytes: &[u8], cut: usize) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut all = Vec::new();
    while let Some(rest) = bytes.strip_prefix(&packet(80_877_103, b"")[..]) {
        // It may have been turned away.
        drop(stream.write_all(&bytes[..8]).await);
        bytes = rest;
        match timeout(OVER, stream.read_u8()).await.expect("an answer") {
            Ok(b'N') => all.push("no encryption".to_owned()),
            Ok(byte) => {
                all.extend(heard(stream, &[], 0, BytesMut::from(&[byte][..])).await);
                return all;
            }
            Err(_) => return all,
        }
    }
    all.extend(heard(stream, bytes, cut.min(bytes.len()), BytesMut::new()).await);
    all
}

async fn heard(mut stream: TcpStream, bytes: &[u8], cut: usize, mut said: BytesMut) -> Vec<String> {
    let (mut reader, mut writer) = stream.split();
    let say = async {
        drop(writer.write_all(&bytes[..cut]).await);
        tokio::task::yield_now().await;
        drop(writer.write_all(&bytes[cut..]).await);
        drop(writer.shutdown().await);
    };
    let hear = async { while matches!(reader.read_buf(&mut said).await, Ok(1..)) {} };
    let both = timeout(OVER, async { tokio::join!(say, hear) }).await;
    both.unwrap_or_else(|_| panic!("no end: {}", bytes.escape_ascii()));
    words(said)
}

fn words(mut said: BytesMut) -> Vec<String> {
    let mut words = Vec::new();
    while let Ok(Some(frame)) = next_frame(&mut said, 1 << 20) {
        match frame.tag {
            b'E' => {
                let fields = ErrorFields::parse(&frame.body).unwrap();
                words.push(format!("{} {}", fields.severity, fields.code));
            }
            // Which minor version is spoken may differ.
            b'v' if frame.body.get(4..8) == Some(&[0; 4]) => {}
            b'v' => words.push(format!("unknown {}", frame.body[8..].escape_ascii())),
            b'R' => words.push(format!("login {}", frame.body[3])),
            tag => words.push(char::from(tag).to_string()),
        }
    }
    if said.starts_with(b"EFATAL:  unsupported frontend protocol ") {
        words.push("FATAL 0A000".to_owned()); // as clients of protocol 2 understand it
    } else if !said.is_empty() {
        words.push(format!("more: {}", said.escape_ascii()));
    }
    words
}

/// What the proxy does not take of a stranger though a server might: text that is not UTF-8, and a request for encryption
/// with something behind it.
fn is_refused_here(bytes: &[u8]) -> bool {
    let length =
        |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map(|b| u32::from_be_bytes(*b) as usize);
    let mut at = 0;
    while let Some(len) = length(at).filter(|len| *len >= 8) {
        let body = bytes.get(at + 8..(at + len).min(bytes.len())).unwrap_or_default();
        match length(at + 4) {
            Some(80_877_103 | 80_877_104) if len != 8 => return true,
            Some(80_877_103) => at += len,
            Some(80_877_104) => return true, // a server may know GSSAPI
            _ => return std::str::from_utf8(body).is_err(),
        }
    }
    false
}

/// Who is refused need not know which options are unknown, nor whether it was for its proof or for what it was in.
fn alike(words: &[String]) -> Vec<&str> {
    let refused = words.last().is_some_and(|word| word.starts_with("FATAL"));
    let told = words.iter().filter(|word| !refused || !word.starts_with("unknown")).map(String::as_str);
    told.map(|word| if word == "FATAL 28P01" { "FATAL 08P01" } else { word }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_not_let_in_is_told_so_as_by_one_server() {
    let front = Front::plain(0, Changes::default()).await;
    let server = front.herd.primary(0).port;
    let (mut wrong, mut seen) = (Vec::new(), std::collections::BTreeMap::<String, u64>::new());
    for n in 0..600 * size() {
        let mut rng = StdRng::seed_from_u64(seed() + n);
        let mut bytes = changed(greeting(&mut rng), &mut rng);
        if rng.random() {
            bytes.extend(changed(proof(&mut rng), &mut rng));
        }
        let cut = rng.random_range(0..bytes.len());
        let (one, proxy) = tokio::join!(reaction(server, &bytes, cut), reaction(front.port, &bytes, cut));
        one.iter().for_each(|word| *seen.entry(word.clone()).or_default() += 1);
        if alike(&one) != alike(&proxy) && !is_refused_here(&bytes) {
            wrong.push(format!(
                "seed {}: {}\none server: {one:?}\nthe proxy:  {proxy:?}\n",
                seed() + n,
                bytes.escape_ascii()
            ));
        }
    }
    eprintln!("{seen:?}");
    let shown = wrong.iter().take(20).cloned().collect::<String>();
    assert!(wrong.is_empty(), "{} of {}\n{shown}", wrong.len(), 600 * size());
}
