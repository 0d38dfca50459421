//! Honest conversations with seeded random changes: of bytes, of lengths, types and counts, of the order of messages.
//! Must not do I/O.

use rand::Rng;
use rand::rngs::StdRng;

use super::script::Conversation;

/// The messages of a conversation, each whole.
pub(crate) fn messages(conversation: &Conversation) -> Vec<Vec<u8>> {
    let (bytes, mut from, mut all) = (conversation.bytes(), 0, Vec::new());
    for end in &conversation.ends {
        all.push(bytes[from..*end].to_vec());
        from = *end;
    }
    all
}

/// One to three changes of a conversation; `others` lend messages.
pub(crate) fn mutated(messages: &[Vec<u8>], others: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut all = messages.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        change(&mut all, others, rng);
    }
    all.concat()
}

fn change(all: &mut Vec<Vec<u8>>, others: &[Vec<u8>], rng: &mut StdRng) {
    if all.is_empty() {
        return;
    }
    let at = rng.random_range(0..all.len());
    match rng.random_range(0..12) {
        0 => drop(all.remove(at)),
        1 => {
            let again = all[at].clone();
            all.insert(rng.random_range(0..=all.len()), again);
        }
        2 => {
            let other = rng.random_range(0..all.len());
            all.swap(at, other);
        }
        3 => {
            let other = others[rng.random_range(0..others.len())].clone();
            all.insert(at, other);
        }
        4 => all.truncate(at + 1),
        // The body shrinks or grows; the length with it, or not.
        5 => {
            let message = &mut all[at];
            let end = rng.random_range(0..=message.len());
            message.truncate(end);
            if rng.random() {
                set_length(message);
            }
        }
        6 => {
            let message = &mut all[at];
            (0..rng.random_range(1..9)).for_each(|_| message.push(rng.random()));
            if rng.random() {
                set_length(message);
            }
        }
        // Another type, another length.
        7 => {
            if let Some(tag) = all[at].first_mut() {
                *tag = b"QPBDECSHFXdcfp\0"[rng.random_range(0..15)];
            }
        }
        8 => {
            if let Some(length) = all[at].get_mut(1..5) {
                let now = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
                let other = match rng.random_range(0..4) {
                    0 => now.wrapping_add(rng.random_range(1..9)),
                    1 => now.wrapping_sub(rng.random_range(1..9)),
                    2 => [0, 3, 4, i32::MAX as u32, 1 << 31, u32::MAX][rng.random_range(0..6)],
                    _ => rng.random_range(0..70_000),
                };
                length.copy_from_slice(&other.to_be_bytes());
            }
        }
        // A count or a string's end.
        9 => {
            let body = all[at].get_mut(5..).unwrap_or_default();
            let zeros: Vec<usize> = (0..body.len()).filter(|i| body[*i] == 0).collect();
            if !zeros.is_empty() {
                body[zeros[rng.random_range(0..zeros.len())]] = [1, 0x7f, 0xff, b'x'][rng.random_range(0..4)];
            }
        }
        _ => {
            let message = &mut all[at];
            for _ in 0..rng.random_range(1..4) {
                let len = message.len();
                if let Some(byte) = message.get_mut(rng.random_range(0..len.max(1))) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
    }
}

fn set_length(message: &mut [u8]) {
    let len = (message.len() as u32).wrapping_sub(1);
    if let Some(length) = message.get_mut(1..5) {
        length.copy_from_slice(&len.to_be_bytes());
    }
}
