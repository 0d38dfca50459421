//! Free ports that stay one's own while their user is stopped and started again.
//! Must not know who uses them.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the range from which Linux and macOS take ports for outgoing connections.
const RANGE: std::ops::Range<u16> = 17_000..31_000;

/// A port on 127.0.0.1 that no other test has, in this process or another, until it is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves one.
    pub fn reserve() -> Self {
        (0..RANGE.len()).find_map(|_| Self::try_reserve(next())).expect("no free port")
    }

    /// Reserves `count` in a row.
    pub fn reserve_block(count: u16) -> Vec<Self> {
        let block = |_| {
            let first = next();
            (first..first + count).map(Self::try_reserve).collect::<Option<Vec<_>>>()
        };
        (0..RANGE.len()).find_map(block).expect("no free block of ports")
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(number: u16) -> Option<Self> {
        let dir = std::env::temp_dir().join("pgherd-test-ports");
        std::fs::create_dir_all(&dir).unwrap();
        let lock = File::create(dir.join(number.to_string())).ok()?;
        lock.try_lock().ok()?; // against other tests
        TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?; // against the rest of the machine
        Some(Self { number, _lock: lock })
    }
}

/// Candidates: each process starts somewhere else.
fn next() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() as u16).wrapping_mul(97);
    RANGE.start + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (RANGE.len() as u16)
}
