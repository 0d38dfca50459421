//! Hostile clients: conversations cut at every byte, impossible lengths, half-open sockets; meanwhile honest clients check
//! every answer, and afterwards every server connection is whole and clean.
//!
//! `PGHERD_HOSTILE=20 cargo test --release --test hostile -- --nocapture` does twenty times as much of it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "hostile/attack.rs"]
mod attack;
mod common;
#[path = "hostile/script.rs"]
mod script;
#[path = "hostile/victim.rs"]
mod victim;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use attack::{Ending, attack};
use common::{Changes, Front};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use script::conversations;
use victim::{Victims, check_whole, prepare};

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A panic in a session ends that session only: here it is counted, and fails the test.
fn count_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.location().is_some_and(|at| at.file().starts_with("src/")) {
            PANICS.fetch_add(1, Relaxed);
        }
        usual(info);
    }));
}

/// How many times as much as in a quick run is done.
fn size() -> usize {
    std::env::var("PGHERD_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

const POOL: &str = "size = 6\nqueue_timeout_ms = 20000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_leave_at_any_byte_leave_nothing_behind() {
    count_panics();
    let front = Front::demo(0, Changes { pool: POOL, ..Changes::default() }).await;
    prepare(&front).await;
    let victims = Victims::start(&front, 3).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut attacks = Vec::new();
    for (name, conversation) in conversations() {
        let bytes = conversation.bytes();
        // A quick run takes each boundary of a message and its neighbours, a long one every byte.
        for at in 0..=bytes.len() {
            let near = conversation.ends.iter().any(|end| at.abs_diff(*end) <= 1);
            if size() > 1 || near || at % 29 == 0 {
                for ending in Ending::ALL {
                    attacks.push((name, bytes[..at].to_vec(), ending));
                }
            }
        }
    }
    let mut done = 0;
    while !attacks.is_empty() {
        let mut together = tokio::task::JoinSet::new();
        for _ in 0..8 {
            if attacks.is_empty() {
                break;
            }
            let (name, bytes, ending) = attacks.swap_remove(rng.random_range(0..attacks.len()));
            let port = front.port;
            together.spawn(async move { attack(port, &bytes, ending, name).await });
        }
        done += together.join_all().await.len();
    }
    let checked = victims.stop().await;
    check_whole(&front).await;
    assert_eq!(PANICS.load(Relaxed), 0);
    eprintln!("{done} conversations cut, {checked} answers of honest clients checked meanwhile");
    assert!(done > 300 && checked > 100, "{done} {checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lengths_that_cannot_be_are_refused_at_once() {
    let front = Front::plain(0, Changes::default()).await;
    for length in [0u32, 1, 3, i32::MAX as u32, 1 << 31, u32::MAX] {
        for tag in *b"QPBDECSHFXdcfpz\0\xff" {
            let mut message = vec![tag];
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(b"some bytes of it");
            // The proxy must end it by itself: the client keeps its side open and says nothing more.
            attack::must_be_closed(front.port, &message, true).await;
        }
        attack::must_be_closed(front.port, &length.to_be_bytes(), false).await;
    }
    check_whole(&front).await;
}
