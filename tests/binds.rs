//! Bind messages whose counts, values and formats are right or wrong in every way, at rest and in transactions: each is
//! answered as by one server, word for word, for a server finds faults in an order of its own.
//!
//! `PGHERD_HOSTILE=20 cargo test --test binds` does twenty times as many.

mod common;

use bytes::{BufMut, BytesMut};
use common::{Changes, Front, Pair, Wire};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How many times as much as in a quick run is done.
fn size() -> u64 {
    std::env::var("PGHERD_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn seed() -> u64 {
    std::env::var("PGHERD_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn of<T: Copy>(all: &[T], rng: &mut StdRng) -> T {
    all[rng.random_range(0..all.len())]
}

/// A text, and how many parameters and columns it has.
const TEXTS: [(&str, usize, usize); 12] = [
    ("select $1::int + 1", 1, 1),
    ("select $1::int, $2::text", 2, 2),
    ("select i, j from t where i = $1", 1, 2),
    ("select i from t where i > 1000", 0, 1),
    ("select i, j from t order by i", 0, 2),
    ("insert into u values ($1)", 1, 0),
    ("insert into u values ($1) returning i", 1, 1),
    ("begin", 0, 0),
    ("commit", 0, 0),
    ("", 0, 0),
    ("show work_mem", 0, 1),
    ("set work_mem = '5MB'", 0, 0),
];

/// Where the session is when the Bind comes.
const BEFORE: [&[&str]; 5] =
    [&[], &["begin"], &["begin", "select 1"], &["begin", "selec 1"], &["begin", "select 1 / 0"]];

/// As many as are wanted, or others.
fn about(wanted: usize, rng: &mut StdRng) -> usize {
    if rng.random_bool(0.7) { wanted } else { rng.random_range(0..4) }
}

fn put_codes(tail: &mut BytesMut, wanted: usize, rng: &mut StdRng) {
    let count = if rng.random_bool(0.4) { rng.random_range(0..2) } else { about(wanted, rng) };
    tail.put_u16(count as u16);
    let all_known = rng.random_bool(0.7);
    for _ in 0..count {
        tail.put_i16(if all_known { rng.random_range(0..2) } else { of(&[0, 1, 2, -1, 256, 0], rng) });
    }
}

/// All of a Bind after its names.
fn tail(parameters: usize, columns: usize, rng: &mut StdRng) -> BytesMut {
    let mut tail = BytesMut::new();
    put_codes(&mut tail, parameters, rng);
    let count = about(parameters, rng);
    tail.put_u16(count as u16);
    for _ in 0..count {
        match rng.random_range(0..12) {
            0 => tail.put_i32(-1),
            1 => tail.put_i32(of(&[-2, i32::MIN, i32::MAX, 70_000], rng)),
            2 => tail.put_slice(b"\0\0\0\x01x"),
            3 => tail.put_slice(b"\0\0\0\x01\xff"),
            4 => tail.put_slice(of(&[&b"\0\0\0\0"[..], b"\0\0\0\x08\0\0\0\0\0\0\0\x01"], rng)),
            5..9 => tail.put_slice(b"\0\0\0\x04\0\0\0\x01"),
            _ => tail.put_slice(b"\0\0\0\x012"),
        }
    }
    put_codes(&mut tail, columns, rng);
    match rng.random_range(0..10) {
        0 => tail.truncate(rng.random_range(0..=tail.len())),
        1 => tail.put_u8(0),
        _ => {}
    }
    tail
}

/// One conversation: what is done before, a statement by a name or without, described or not, and a Bind of it to a portal
/// that may be there already.
struct Case {
    before: &'static [&'static str],
    text: &'static str,
    name: &'static str,
    portal: &'static str,
    own_batch: bool,
    described: bool,
    taken: Option<&'static str>,
    tail: BytesMut,
}

impl Case {
    fn draw(rng: &mut StdRng) -> Self {
        let (text, parameters, columns) = of(&TEXTS, rng);
        Self {
            before: of(&BEFORE, rng),
            text,
            name: of(&["", "s"], rng),
            portal: of(&["", "p"], rng),
            own_batch: rng.random(),
            described: rng.random(),
            taken: of(&[None, None, Some("select 7"), Some("")], rng),
            tail: tail(parameters, columns, rng),
        }
    }

    fn say(&self, wire: &mut Wire) {
        let first = if self.own_batch { self.before } else { &[] };
        if self.own_batch {
            self.prepare(wire);
            wire.sync();
        }
        for sql in first {
            wire.query(sql);
        }
        if !self.own_batch {
            for sql in self.before {
                wire.query(sql);
            }
            self.prepare(wire);
        }
        if let Some(other) = self.taken {
            wire.parse("o", other).bind(self.portal, "o", &[]);
        }
        let mut body = BytesMut::new();
        body.put_slice(self.portal.as_bytes());
        body.put_u8(0);
        body.put_slice(self.name.as_bytes());
        body.put_u8(0);
        body.put_slice(&self.tail);
        wire.frame(b'B', &body, 0)
            .describe_portal(self.portal)
            .execute(self.portal, 1)
            .execute(self.portal, 0);
        wire.sync().describe_portal(self.portal).sync().query("rollback").close("s").close("o").sync();
    }

    fn prepare(&self, wire: &mut Wire) {
        wire.parse(self.name, self.text);
        if self.described {
            wire.describe(self.name);
        }
    }
}

/// In a transaction that has failed it depends on where the error was found what is left of its portals.
fn alike(words: &[String]) -> Vec<&str> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    for at in 1..words.len() {
        let of_portal = words[at] == "n"
            || ["columns", "ERROR 34000", "ERROR 25P02"].iter().any(|w| words[at].starts_with(w));
        if words[at - 1] == "ready E" && of_portal {
            words[at] = "some portal";
        }
    }
    words
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_bind_is_told_as_by_one_server() {
    let front = Front::plain(0, Changes { pool: "size = 2\nmin_idle = 0", ..Changes::default() }).await;
    let app = front.herd.primary(0).connect_app().await;
    app.batch_execute("create table t (i int, j text); create table u (i int)").await.unwrap();
    app.batch_execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
    front.admin().await.simple_query("reload").await.unwrap();
    let server = front.herd.primary(0).port;
    let mut pair = Pair::connect(server, front.port, &[]).await;
    let (mut wrong, mut told) = (Vec::new(), std::collections::BTreeMap::<String, u64>::new());
    for n in 0..3000 * size() {
        let case = Case::draw(&mut StdRng::seed_from_u64(seed() + n));
        case.say(&mut pair.one);
        case.say(&mut pair.proxy);
        let (one, proxy) = tokio::join!(pair.one.answers_to_mark(), pair.proxy.answers_to_mark());
        one.iter()
            .filter_map(|word| word.split(':').next())
            .filter(|word| word.starts_with("ERROR"))
            .for_each(|word| *told.entry(word.to_owned()).or_default() += 1);
        if alike(&one) != alike(&proxy) {
            let Case { before, text, name, portal, own_batch, described, taken, tail } = case;
            wrong.push(format!(
                "seed {}: {before:?} {text:?} as {name:?} in {portal:?} (taken: {taken:?}, prepared before: \
                 {own_batch}, described: {described}): {}\none server: {one:?}\nthe proxy:  {proxy:?}\n",
                seed() + n,
                tail.escape_ascii()
            ));
            pair = Pair::connect(server, front.port, &[]).await;
        }
    }
    eprintln!("{told:?}");
    let shown = wrong.iter().take(10).cloned().collect::<String>();
    assert!(wrong.is_empty(), "{} of {}\n{shown}", wrong.len(), 3000 * size());
    for code in ["08P01", "22023", "22P02", "22P03", "22021", "25P02", "42P03"] {
        assert!(told.contains_key(&format!("ERROR {code}")), "no {code}: {told:?}");
    }
}
