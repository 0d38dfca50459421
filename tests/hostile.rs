//! Hostile clients: conversations cut at every byte, impossible lengths, half-open sockets; meanwhile honest clients check
//! every answer, and afterwards every server connection is whole and clean.
//!
//! `PGHERD_HOSTILE=20 cargo test --release --test hostile -- --nocapture` does twenty times as much of it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "hostile/attack.rs"]
mod attack;
#[path = "hostile/bent.rs"]
mod bent;
mod common;
#[path = "hostile/doors.rs"]
mod doors;
#[path = "hostile/mutate.rs"]
mod mutate;
#[path = "hostile/oracle.rs"]
mod oracle;
#[path = "hostile/script.rs"]
mod script;
#[path = "hostile/victim.rs"]
mod victim;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use attack::{Ending, attack};
use bytes::BytesMut;
use common::{Changes, Front, Herd, PATIENCE, Pg, Raw, create_demo_tables, eventually};
use mutate::{messages, mutated};
use oracle::Oracle;
use parking_lot::Mutex;
use pgherd::wire::FrontendWriter;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use script::{Conversation, committing, conversations, sharded};
use tokio_rustls::{TlsConnector, rustls};
use victim::{Victims, check_whole, prepare};

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// What was said last: for when that ends the test.
static SAID: Mutex<String> = Mutex::new(String::new());

/// A panic in a session ends that session only: here it is counted, and fails the test.
fn count_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.location().is_some_and(|at| at.file().starts_with("src/")) {
            PANICS.fetch_add(1, Relaxed);
        }
        eprintln!("said last: {}", SAID.lock());
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

/// A certificate for `localhost`: what the configuration needs of it, and who trusts it.
fn certificate(dir: &std::path::Path) -> (String, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    let lines = format!("[tls]\ncert = \"{}\"\nkey = \"{}\"", cert.display(), key.display());
    (lines, TlsConnector::from(Arc::new(config)))
}

/// The last of an answer may be encrypted when the socket has no room for it, and the session is idle by then. Answers of
/// all lengths around what sockets hold, each read only when the server has said all, or can say no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_late_through_tls_gets_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, tls) = certificate(dir.path());
    let front = Front::plain(0, Changes { proxy: String::leak(lines), ..Changes::default() }).await;
    let mut stuck = 0;
    for rows in (1_000..).step_by(50) {
        let query = format!("select lpad('', 1000, '-') from generate_series(1, {rows})");
        let mut out = BytesMut::new();
        out.put_query(query.as_bytes());
        let state = format!(
            "select coalesce(wait_event = 'ClientWrite' and state = 'active', false)::text \
             from pg_stat_activity where query = $q${query}$q$ and (state = 'idle' or wait_event = 'ClientWrite')"
        );
        let then = async {
            let seen = async || front.herd.primary(0).sql(&state).await.pop();
            stuck += usize::from(eventually("all is said, or nobody reads", PATIENCE, seen).await == "true");
        };
        let told = tokio::time::timeout(PATIENCE, attack::read_late(front.port, &tls, &out, then)).await;
        assert!(told.unwrap_or_else(|_| panic!("{rows} rows, of which not all came")) > rows * 1011);
        if stuck > 5 {
            break;
        }
    }
    check_whole(&front).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_said_at_the_door_or_inside_tls_harms_nobody() {
    count_panics();
    let dir = tempfile::tempdir().unwrap();
    let (lines, tls) = certificate(dir.path());
    let changes = Changes { proxy: String::leak(lines), pool: POOL, ..Changes::default() };
    let front = Front::demo(0, changes).await;
    prepare(&front).await;
    let victims = Victims::start(&front, 2).await;
    let mut aimed_at = Raw::connect(&front).await;
    let (mut whole, mut broken) = (0, 0);
    let seed = std::env::var("PGHERD_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
    for n in 0..300 * size() as u64 {
        let mut rng = StdRng::seed_from_u64(seed + n);
        let what = format!("seed {}", seed + n);
        match n % 4 {
            0 => {
                let bytes = doors::greeting(&aimed_at.key, &mut rng);
                // A key that is almost the right one cancels nothing.
                aimed_at.out.put_query(b"select 'mine' from pg_sleep(0.002)");
                let (_, answer) =
                    tokio::join!(attack(front.port, &bytes, Ending::HalfOpen, &what), aimed_at.ask());
                assert_eq!(answer, "T mine SELECT_1 /I", "{what}: {}", bytes.escape_ascii());
            }
            1 => attack(front.port, &doors::login(&mut rng), Ending::HalfOpen, &what).await,
            2 => {
                let (bytes, direct) = (doors::session(&mut rng), rng.random());
                let by_tls = attack::attack_by_tls(front.port, &bytes, (&tls, direct), &mut rng, &what).await;
                if by_tls { whole += 1 } else { broken += 1 }
            }
            _ => attack::attack_in_tls(front.port, &doors::session(&mut rng), &tls, &what).await,
        }
    }
    drop(aimed_at);
    let checked = victims.stop().await;
    check_whole(&front).await;
    assert_eq!(PANICS.load(Relaxed), 0);
    assert!(checked > 100, "{checked}");
    assert!(whole > 3 && broken > 10, "of the changed handshakes {whole} came about, {broken} did not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_read_hold_their_own_servers_and_give_them_back_when_they_go() {
    count_panics();
    let changes = Changes { pool: POOL, database: "max_clients = 8", ..Changes::default() };
    let front = Front::demo(0, changes).await;
    prepare(&front).await;
    let victims = Victims::start(&front, 2).await;
    let before = resident();
    for round in 0..2 * size() {
        let mut silent = Vec::new();
        for bytes in script::endless() {
            silent.push(attack::never_read(front.port, &bytes).await);
        }
        let checked = victims.checked();
        eventually("honest clients are answered all the while", PATIENCE, async || {
            (victims.checked() > checked + 100).then_some(())
        })
        .await;
        for stream in silent.iter().filter(|_| round % 2 == 1) {
            stream.set_zero_linger().unwrap();
        }
        drop(silent);
        // Their places are free: two are the honest clients'.
        eventually("all places are free", PATIENCE, async || {
            let clients =
                futures_util::future::join_all((0..6).map(|_| front.try_connect("app", "app", "app")));
            clients.await.into_iter().all(|client| client.is_ok()).then_some(())
        })
        .await;
    }
    assert!(resident() < before + (64 << 20), "{before} bytes before, {} after", resident());
    victims.stop().await;
    check_whole(&front).await;
    assert_eq!(PANICS.load(Relaxed), 0);
}

/// Memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// The proxy of one shard, which refuses nothing of SQL, beside a server alone with the same tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_conversations_commit_what_they_would_on_one_server_and_leave_nothing_behind() {
    count_panics();
    let (herd, alone) = tokio::join!(Herd::start(1, 0), Herd::start(1, 0));
    create_demo_tables(&herd, 0).await;
    create_demo_tables(&alone, 0).await;
    herd.sql("alter table users alter partition_key set default 'A'").await;
    let front = Front::over(herd, false, Changes { pool: POOL, ..Changes::default() }).await;
    prepare(&front).await;
    let alone = alone.shards.into_iter().next().unwrap().primary;
    let all = conversations()
        .into_iter()
        .filter(|(name, _)| !["encryption asked for", "login with a password"].contains(name))
        .chain(committing());
    compare(front, alone, all.collect(), 400).await;
}

/// The proxy of three shards with tables of every placement, beside a server alone that has all rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_conversations_over_shards_are_answered_as_by_one_server_or_refused() {
    count_panics();
    let (herd, alone) = tokio::join!(Herd::start(3, 0), Herd::start(1, 0));
    create_demo_tables(&herd, 1).await;
    create_demo_tables(&alone, 0).await;
    alone.sql("alter table users alter partition_key set default 'A'").await;
    let front = Front::over(herd, true, Changes { pool: POOL, ..Changes::default() }).await;
    prepare(&front).await;
    let alone = alone.shards.into_iter().next().unwrap().primary;
    compare(front, alone, sharded(), 250).await;
}

/// So many changed conversations, while honest clients are at work.
async fn compare(front: Front, alone: Pg, all: Vec<(&'static str, Conversation)>, count: u64) {
    alone.sql("insert into users (user_id, name, email, partition_key) select 'victim_' || n, '0', 'e', 'A' from generate_series(0, 7) n").await;
    let mut oracle = Oracle::new(&front, alone).await;
    let victims = Victims::start(&front, 2).await;
    // Without the startup packet: the login is left whole.
    let without = |(name, conversation)| (name, messages(&conversation)[1..].to_vec());
    let all: Vec<(&str, Vec<Vec<u8>>)> = all.into_iter().map(without).collect();
    let others: Vec<_> = all.iter().flat_map(|(_, messages)| messages.clone()).collect();
    let seed = std::env::var("PGHERD_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0u64);
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for n in 0..count * size() as u64 {
        let mut rng = StdRng::seed_from_u64(seed + n);
        let (name, messages) = &all[rng.random_range(0..all.len())];
        let mut bytes = mutated(messages, &others, &mut rng);
        bytes.extend_from_slice(b"S\0\0\0\x04"); // what is whole comes to its end before the client leaves
        let what = format!("{name}, seed {}", seed + n);
        *SAID.lock() = format!("{what}\n{}", bytes.escape_ascii());
        match oracle.ask((&front, &victims), &bytes, &what).await {
            Ok(true) => same += 1,
            Ok(false) => refused += 1,
            Err(how) => wrong.push(how),
        }
    }
    let checked = victims.stop().await;
    check_whole(&front).await;
    assert_eq!(PANICS.load(Relaxed), 0);
    eprintln!("{same} conversations committed the same, {refused} were refused; {checked} honest answers");
    let shown = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {}\n{shown}", wrong.len(), count * size() as u64);
    assert!(checked > 100, "{checked}");
}
