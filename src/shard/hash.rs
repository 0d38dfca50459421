//! PostgreSQL's extended hash support functions, so that anyone can compute a slot in SQL.
//! Must not know what is hashed. Source: Bob Jenkins' lookup3 (public domain), as used by `hash_any_extended`.

/// Number of hash slots: `slot = hash & (SLOTS - 1)`.
pub const SLOTS: u16 = 16_384;

struct State {
    a: u32,
    b: u32,
    c: u32,
}

impl State {
    fn new(len: usize, seed: u64) -> Self {
        let start = 0x9e37_79b9u32.wrapping_add(len as u32).wrapping_add(3_923_095);
        let mut s = Self { a: start, b: start, c: start };
        if seed != 0 {
            s.a = s.a.wrapping_add((seed >> 32) as u32);
            s.b = s.b.wrapping_add(seed as u32);
            s.mix();
        }
        s
    }

    fn mix(&mut self) {
        let Self { a, b, c } = self;
        let step = |x: &mut u32, y: &mut u32, z: u32, rot: u32| {
            *x = x.wrapping_sub(*y) ^ y.rotate_left(rot);
            *y = y.wrapping_add(z);
        };
        step(a, c, *b, 4);
        step(b, a, *c, 6);
        step(c, b, *a, 8);
        step(a, c, *b, 16);
        step(b, a, *c, 19);
        step(c, b, *a, 4);
    }

    fn finish(mut self) -> u64 {
        let Self { a, b, c } = &mut self;
        let step = |x: &mut u32, y: u32, rot: u32| *x = (*x ^ y).wrapping_sub(y.rotate_left(rot));
        step(c, *b, 14);
        step(a, *c, 11);
        step(b, *a, 25);
        step(c, *b, 16);
        step(a, *c, 4);
        step(b, *a, 14);
        step(c, *b, 24);
        (u64::from(self.b) << 32) | u64::from(self.c)
    }
}

fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte))
}

/// `hashtextextended`, `uuid_hash_extended` and their like: the hash of plain bytes under a seed.
#[must_use]
pub fn hash_extended_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut s = State::new(bytes.len(), seed);
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        s.a = s.a.wrapping_add(word(&block[0..4]));
        s.b = s.b.wrapping_add(word(&block[4..8]));
        s.c = s.c.wrapping_add(word(&block[8..12]));
        s.mix();
    }
    let mut tail = [0u8; 12];
    for (slot, byte) in tail.iter_mut().zip(blocks.remainder()) {
        *slot = *byte;
    }
    s.a = s.a.wrapping_add(word(&tail[0..4]));
    s.b = s.b.wrapping_add(word(&tail[4..8]));
    s.c = s.c.wrapping_add(word(&tail[8..11]) << 8); // c's low byte belongs to the length
    s.finish()
}

/// `hashint2extended`, `hashint4extended`, `hashint8extended`: equal numbers hash alike in all three.
#[must_use]
pub fn hash_extended_int(value: i64, seed: u64) -> u64 {
    let high = (value >> 32) as u32;
    let low = value as u32 ^ if value >= 0 { high } else { !high };
    let mut s = State::new(4, seed);
    s.a = s.a.wrapping_add(low);
    s.finish()
}

/// The slot of a hash under seed 0.
#[must_use]
pub fn slot_of(hash: u64) -> u16 {
    (hash & u64::from(SLOTS - 1)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhex(s: &str) -> Vec<u8> {
        s.chars()
            .filter(|c| *c != '-')
            .collect::<Vec<_>>()
            .chunks(2)
            .map(|p| u8::from_str_radix(&p.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    #[test]
    fn every_vector_of_a_real_server_matches() {
        let mut checked = 0;
        let mut kinds = std::collections::BTreeSet::new();
        for line in include_str!("../../tests/data/pg_hash_vectors.csv").lines().skip(1) {
            let (kind, rest) = line.split_once(",\"").unwrap();
            let (key, rest) = rest.rsplit_once("\",").unwrap();
            let key = key.replace("\"\"", "\"");
            let numbers: Vec<&str> = rest.split(',').collect();
            let (seed, want) =
                (numbers[0].parse::<i64>().unwrap() as u64, numbers[1].parse::<i64>().unwrap() as u64);
            let got = match kind {
                "int2" | "int4" | "int8" => hash_extended_int(key.parse().unwrap(), seed),
                "text" | "varchar" => hash_extended_bytes(key.as_bytes(), seed),
                "bpchar" => hash_extended_bytes(key.trim_end_matches(' ').as_bytes(), seed),
                "uuid" => hash_extended_bytes(&unhex(&key), seed),
                other => panic!("a vector of unknown type {other}"),
            };
            assert_eq!(got, want, "{line}");
            checked += 1;
            kinds.insert(kind);
        }
        assert!(checked >= 200, "only {checked} vectors read");
        assert!(kinds.len() >= 4, "{kinds:?}");
    }
}
