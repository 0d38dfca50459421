//! Batches of the extended protocol in which something fails, drawn at random: what came before the error is answered,
//! and all else is as on one server, message by message.
//!
//! `PGHERD_HOSTILE=20 cargo test --test batches` does twenty times as many.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use bytes::{BufMut, BytesMut};
use common::{Changes, Front, Pair, Wire};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::Client;

/// How many times as much as in a quick run is done.
fn size() -> u64 {
    std::env::var("PGHERD_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn seed() -> u64 {
    std::env::var("PGHERD_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// One message of a batch.
#[derive(Debug, Clone)]
enum Say {
    Parse(&'static str, &'static str),
    Bind(&'static str, &'static str, &'static [&'static str]),
    Describe(&'static str),
    DescribePortal(&'static str),
    Execute(&'static str, i32),
    Close(&'static str),
    ClosePortal(&'static str),
    Flush,
    Sync,
    Query(&'static str),
}

impl Say {
    fn to<'a>(&self, wire: &'a mut Wire) -> &'a mut Wire {
        match *self {
            Self::Parse(name, sql) => wire.parse(name, sql),
            Self::Bind(portal, name, values) => wire.bind(portal, name, values),
            Self::Describe(name) => wire.describe(name),
            Self::DescribePortal(portal) => wire.describe_portal(portal),
            Self::Execute(portal, limit) => wire.execute(portal, limit),
            Self::Close(name) => wire.close(name),
            Self::ClosePortal(portal) => wire.close_portal(portal),
            Self::Flush => wire.flush(),
            Self::Sync => wire.sync(),
            Self::Query(sql) => wire.query(sql),
        }
    }
}

const NAMES: [&str; 4] = ["", "", "s", "t"];
const PORTALS: [&str; 4] = ["", "", "", "p"];
const VALUES: [&[&str]; 4] = [&[], &[], &["1"], &["x"]];

fn of<T: Clone>(all: &[T], rng: &mut StdRng) -> T {
    all[rng.random_range(0..all.len())].clone()
}

/// Up to nine messages, most of them such as a driver sends, in any order; then Sync.
fn batch(texts: &[&'static str], rng: &mut StdRng) -> Vec<Say> {
    let mut all = Vec::new();
    for _ in 0..rng.random_range(1..=4) {
        let (name, portal, text) = (of(&NAMES, rng), of(&PORTALS, rng), of(texts, rng));
        let values: &[&str] = if rng.random_bool(0.9) {
            if text.contains("$1") { &["1"] } else { &[] }
        } else {
            of(&VALUES, rng)
        };
        match rng.random_range(0..12) {
            0 => all.extend([Say::Parse(name, text), Say::Describe(name)]),
            1 => all.extend([Say::Close(name), Say::Parse(name, text)]),
            2 => {
                all.extend([Say::Parse(name, text), Say::Bind(portal, name, values), Say::Execute(portal, 0)])
            }
            3 => all.extend([
                Say::Parse(name, text),
                Say::Describe(name),
                Say::Bind(portal, name, values),
                Say::DescribePortal(portal),
                Say::Execute(portal, 0),
            ]),
            4 => all.extend([Say::Bind(portal, name, values), Say::Execute(portal, rng.random_range(0..2))]),
            5 => all.push(Say::Parse(name, text)),
            6 => all.push(Say::Bind(portal, name, values)),
            7 => all.push(of(&[Say::Describe(name), Say::DescribePortal(portal)], rng)),
            8 => all.push(Say::Execute(portal, rng.random_range(0..2))),
            9 => all.push(of(&[Say::Close(name), Say::ClosePortal(portal)], rng)),
            10 => all.push(of(&[Say::Flush, Say::Flush, Say::Sync], rng)),
            _ if rng.random_bool(0.3) => all.push(Say::Query(text)),
            _ => all.extend([Say::Parse(name, text), Say::Close(name), Say::Parse(name, text)]),
        }
    }
    all.push(Say::Sync);
    all
}

fn say(wire: &mut Wire, batch: &[Say]) {
    for message in batch {
        message.to(wire);
    }
}

/// Servers change hands between the batches of the client that is watched.
struct Holders {
    holders: [Client; 2],
    held: Option<usize>,
}

impl Holders {
    async fn start(front: &Front) -> Self {
        Self { holders: [front.connect().await, front.connect().await], held: None }
    }

    async fn switch(&mut self) {
        let next = self.held.map_or(0, |held| 1 - held);
        self.holders[next].batch_execute("begin; select 1").await.unwrap();
        if let Some(held) = self.held.replace(next) {
            self.holders[held].batch_execute("commit").await.unwrap();
        }
    }
}

/// In a transaction that has failed, before this batch or in it, which of its errors comes first may differ, and what is
/// said of portals before it: not what is done.
fn alike(one: &[String], proxy: &[String], failed: bool) -> bool {
    let does = |word: &&String| ["done", "row", "ready"].iter().any(|what| word.starts_with(what));
    let from = if failed { Some(0) } else { one.iter().position(|word| word == "ready E").map(|at| at + 1) };
    one == proxy
        || from.is_some_and(|from| {
            one.get(..from) == proxy.get(..from)
                && one[from..].iter().filter(does).eq(proxy[from..].iter().filter(does))
        })
}

const TEXTS: &[&str] = &[
    "select 1",
    "select i, j from t where i = $1",
    "select i from t order by i",
    "select $1::int + 1",
    "insert into u values (1)",
    "selec 1",
    "select nosuch",
    "select 1; select 2",
    "select 1 / (i - 1) from t",
    "select 1 / 0",
    "",
    "begin",
    "commit",
    "rollback",
    "savepoint a",
    "rollback to a",
    "set work_mem = '5MB'",
    "show work_mem",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_an_error_is_answered_as_by_one_server() {
    let changes = Changes { pool: "size = 2\nmin_idle = 0", ..Changes::default() };
    let front = Front::plain(0, changes).await;
    let app = front.herd.primary(0).connect_app().await;
    app.batch_execute("create table t (i int, j text); create table u (i int)").await.unwrap();
    app.batch_execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
    front.admin().await.simple_query("reload").await.unwrap();
    let mut holders = Holders::start(&front).await;
    let server = front.herd.primary(0).port;
    let mut wrong = Vec::new();
    for n in 0..400 * size() {
        let mut rng = StdRng::seed_from_u64(seed() + n);
        let mut pair = Pair::connect(server, front.port, &[]).await;
        let mut said: Vec<Vec<Say>> = Vec::new();
        let (mut idle, mut failed) = (true, false);
        for _ in 0..3 {
            if idle {
                holders.switch().await;
            }
            let next = batch(TEXTS, &mut rng);
            said.push(next.clone());
            say(&mut pair.one, &next);
            say(&mut pair.proxy, &next);
            let (one, proxy) = tokio::join!(pair.one.answers_to_mark(), pair.proxy.answers_to_mark());
            if !alike(&one, &proxy, failed) {
                wrong.push(format!(
                    "seed {}: {said:?}\none server: {one:?}\nthe proxy:  {proxy:?}\n",
                    seed() + n
                ));
                break;
            }
            failed = one.last().is_some_and(|word| word == "ready E");
            idle = one.last().is_some_and(|word| word == "ready I");
        }
    }
    let shown = wrong.iter().take(50).cloned().collect::<String>();
    assert!(wrong.is_empty(), "{} of {}\n{shown}", wrong.len(), 400 * size());
}

/// Bodies that are whole and such as a driver sends.
fn honest(rng: &mut StdRng) -> (u8, Vec<u8>) {
    let mut body = BytesMut::new();
    let name = of(&[&b"\0"[..], b"s\0", b"none\0"], rng);
    let tag = of(b"QPPBBBBDCEHSF", rng);
    match tag {
        b'Q' => body.put_slice(b"select 1\0"),
        b'P' => {
            body.put_slice(of(&[&b"\0"[..], b"new\0"], rng));
            body.put_slice(b"select $1::int\0\0\x01\0\0\0\x17");
        }
        b'B' => {
            body.put_slice(b"\0");
            body.put_slice(name);
            body.put_slice(of(
                &[&b"\0\0\0\x01\0\0\0\x011\0\0"[..], b"\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x01\0\x01\0\x01"],
                rng,
            ));
        }
        b'D' | b'C' => {
            body.put_slice(b"S");
            body.put_slice(name);
        }
        b'E' => body.put_slice(b"\0\0\0\0\0"),
        b'F' => body.put_slice(b"\0\0\0\xd4\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x01\0\x01"),
        _ => {}
    }
    (tag, body.to_vec())
}

/// The same with a byte or two too many, too few, or other.
fn broken(rng: &mut StdRng) -> (u8, Vec<u8>) {
    let (tag, mut body) = honest(rng);
    match rng.random_range(0..4) {
        0 => body.truncate(rng.random_range(0..=body.len())),
        1 => (0..rng.random_range(1..4)).for_each(|_| body.push(of(&[0, 1, b'x', 0xff], rng))),
        _ if body.is_empty() => body.push(0),
        2 => {
            let at = rng.random_range(0..body.len());
            body[at] = of(&[0, 1, 2, b'S', b'x', 0x7f, 0x80, 0xff], rng);
        }
        _ => drop(body.remove(rng.random_range(0..body.len()))),
    }
    (tag, body)
}

/// Errors by severity and code: the words may differ.
fn codes(words: &[String]) -> Vec<&str> {
    words.iter().map(|word| word.split(':').next().unwrap_or_default()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_what_its_type_promises_is_an_error_like_any_other() {
    let front = Front::plain(0, Changes { pool: "size = 2\nmin_idle = 0", ..Changes::default() }).await;
    let app = front.herd.primary(0).connect_app().await;
    app.batch_execute("create table u (i int)").await.unwrap();
    front.admin().await.simple_query("reload").await.unwrap();
    let server = front.herd.primary(0).port;
    let (mut wrong, mut errors) = (Vec::new(), 0);
    for n in 0..600 * size() {
        let mut rng = StdRng::seed_from_u64(seed() + n);
        let mut pair = Pair::connect(server, front.port, &[]).await;
        let (before, (tag, body)) = (rng.random_range(0..5), broken(&mut rng));
        for wire in [&mut pair.one, &mut pair.proxy] {
            wire.parse("s", "select $1::int + 1").sync();
            match before {
                0 => wire.query("begin"),
                1 => wire.query("begin; select 1"),
                2 => wire.parse("", "insert into u values (1)").bind("", "", &[]).execute("", 0),
                3 => wire.parse("t", "select 1").describe("t"),
                _ => wire,
            };
            wire.frame(tag, &body, 0);
            wire.bind("", "s", &["1"]).execute("", 0).sync().query("select 'after'");
        }
        let (one, proxy) = tokio::join!(pair.one.answers_to_mark(), pair.proxy.answers_to_mark());
        errors += one.iter().filter(|word| word.contains("08P01")).count();
        if codes(&one) != codes(&proxy) {
            let shown = body.escape_ascii();
            wrong.push(format!(
                "seed {}: after {before}: {} {shown}\none server: {one:?}\nthe proxy:  {proxy:?}\n",
                seed() + n,
                char::from(tag)
            ));
        }
    }
    let shown = wrong.iter().take(8).cloned().collect::<String>();
    assert!(wrong.is_empty(), "{} of {}\n{shown}", wrong.len(), 600 * size());
    assert!(errors > 100, "{errors}");
}
