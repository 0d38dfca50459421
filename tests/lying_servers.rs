//! Servers that lie: malformed, truncated, unexpected and endless messages, silence, and ends in the middle. Every
//! client comes to an end in time, nobody sees what was not meant for it, and the connection is not lent again.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
#[path = "lying_servers/liar.rs"]
mod liar;
#[path = "lying_servers/lies.rs"]
mod lies;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use common::{Changes, Front, Herd, PATIENCE, Raw, create_demo_tables, eventually, rows};
use liar::{Liar, Lie};
use lies::{SECRET, Told, Way};
use pgherd::wire::{DescribeTarget, ErrorFields, FrontendWriter};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// `query_ms`, the grace after it, and what a busy machine needs.
const END: Duration = Duration::from_secs(20);

/// One test at a time: one of them looks at the memory of the process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Liars {
    front: Front,
    /// Before the first and the last shard: a fan-out meets one that is honest too.
    liars: [Liar; 2],
    next: AtomicU32,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Liars {
    async fn start() -> Arc<Self> {
        let turn = TURN.lock().await;
        let mut herd = Herd::start(3, 0).await;
        create_demo_tables(&herd, 1).await;
        let mut liars = Vec::new();
        for shard in [0, 2] {
            let liar = Liar::before(herd.shards[shard].primary.port).await;
            herd.shards[shard].primary.port = liar.port;
            liars.push(liar);
        }
        let changes = Changes {
            timeouts: "query_ms = 1500",
            pool: "size = 30\nconnect_timeout_ms = 2000",
            ..Changes::default()
        };
        let front = Front::over(herd, true, changes).await;
        let liars = liars.try_into().unwrap();
        Arc::new(Self { front, liars, next: AtomicU32::new(1), _turn: turn })
    }

    fn told(&self) -> usize {
        self.liars.iter().map(Liar::told).sum()
    }

    /// One client is lied to. `whole`: the answer may be taken for an honest one.
    async fn tell(&self, way: Way, (name, lie, whole): Told) {
        let number = self.next.fetch_add(1, Relaxed);
        self.liars.iter().for_each(|liar| liar.learn(number, lie.clone()));
        let what = format!("{way:?}: {name}");
        // A server that has just closed on somebody is out for a moment: the lie is told when it is back.
        let mut again = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            again.tick().await;
            let end = timeout(END, self.ask(way, number)).await;
            let end = end.unwrap_or_else(|_| panic!("{what}: no end within {END:?}"));
            let told = self.liars.iter().any(|liar| liar.has_told(number));
            match end {
                End::Answer => assert!(whole || !told, "{what}: taken for an answer"),
                End::Error(code) => {
                    let fits = ["08", "57"].iter().any(|class| code.starts_with(class)) || code == "22012";
                    assert!(fits, "{what}: {code}");
                }
                End::Closed => assert!(name.contains("row"), "{what}: just closed"),
            }
            if told {
                return;
            }
        }
        panic!("{what}: it was never told");
    }

    async fn ask(&self, way: Way, number: u32) -> End {
        let mut client = Raw::connect(&self.front).await;
        let what = if way.is_fan_out() { "user_id::text as user_id from users" } else { "'mine' as user_id" };
        let sql = format!("select {what} /* lie:{number} */");
        let mut owed = 1;
        match way {
            Way::Simple | Way::FanOut => client.out.put_query(sql.as_bytes()),
            Way::InTransaction => {
                client.out.put_query(b"begin");
                client.out.put_query(b"select 1");
                client.out.put_query(sql.as_bytes());
                owed = 3;
            }
            Way::Extended | Way::FanOutExtended => client.statement(&sql, true).out.put_sync(),
            Way::Described => {
                client.out.put_parse("s", sql.as_bytes(), &[]);
                client.out.put_target(b'D', DescribeTarget::Statement("s"));
                client.out.put_sync();
            }
        }
        client.send().await;
        let mut end = End::Answer;
        while owed > 0 {
            match client.next().await {
                Some((b'Z', _)) => owed -= 1,
                // The first: after it a transaction has failed.
                Some((b'E', body)) if end == End::Answer => {
                    end = End::Error(ErrorFields::parse(&body).unwrap().code);
                }
                Some(_) => {}
                None => return if end == End::Answer { End::Closed } else { end },
            }
        }
        end
    }

    /// Nothing is lent, and no connection was used after a lie.
    async fn check(&self) {
        let admin = self.front.admin().await;
        eventually("all server connections came back", PATIENCE, async || {
            (rows(&admin, "select sum(in_use) from pgherd.pools").await == ["0"]).then_some(())
        })
        .await;
        for liar in &self.liars {
            assert_eq!(liar.reused(), 0, "statements on connections that had lied");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    Answer,
    Error(String),
    Closed,
}

/// Clients that are told the truth, or an error; their number of answers.
fn honest(all: &Arc<Liars>, stop: &Arc<AtomicBool>) -> JoinSet<usize> {
    let mut tasks = JoinSet::new();
    for n in 0..2 {
        let (all, stop) = (all.clone(), stop.clone());
        tasks.spawn(async move {
            let (mut client, mut right) = (all.front.connect().await, 0);
            while !stop.load(Relaxed) {
                let mine = format!("client {n}, {right}");
                // A key on each shard in turn.
                let key = ["a", "b", "c", "d", "e"][right % 5];
                let sql = format!("select '{mine}' || coalesce(max(name), '') from users where user_id = $1");
                match client.query_one(&sql, &[&key]).await {
                    Ok(row) => {
                        assert_eq!(row.get::<_, String>(0), mine);
                        right += 1;
                    }
                    Err(error) if client.is_closed() => {
                        assert!(!format!("{error:?}").contains(SECRET));
                        client = all.front.connect().await;
                    }
                    Err(error) => {
                        let code = error.code().unwrap_or_else(|| panic!("{error:?}")).code();
                        assert!(code.starts_with("08") || code.starts_with("57"), "{error:?}");
                    }
                }
            }
            right
        });
    }
    tasks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_says_every_client_comes_to_an_end() {
    let all = Liars::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let honest = honest(&all, &stop);
    let mut waiting = Vec::new();
    for way in Way::ALL {
        waiting.extend(lies::quick(way).into_iter().map(|lie| (way, lie)));
    }
    let slow: Vec<_> =
        Way::ALL.iter().flat_map(|way| lies::slow(*way).into_iter().map(|lie| (*way, lie))).collect();
    let count = waiting.len() + slow.len();
    // Those that wait for a timeout wait beside each other.
    let places = Arc::new(tokio::sync::Semaphore::new(6));
    let mut tasks = JoinSet::new();
    for (way, told) in waiting {
        let (all, places) = (all.clone(), places.clone());
        tasks.spawn(async move {
            let _place = places.acquire().await.unwrap();
            all.tell(way, told).await;
        });
    }
    tasks.join_all().await;
    let mut tasks = JoinSet::new();
    for (way, told) in slow {
        let all = all.clone();
        tasks.spawn(async move { all.tell(way, told).await });
    }
    tasks.join_all().await;
    stop.store(true, Relaxed);
    let right: usize = honest.join_all().await.into_iter().sum();
    all.check().await;
    eprintln!("{count} lies, {} times told; {right} honest answers meanwhile", all.told());
    assert!(right > 100, "{right}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_sends_rows_without_end_is_left_in_time_and_in_little_memory() {
    let all = Liars::start().await;
    let endless: Lie = lies::endless();
    all.liars.iter().for_each(|liar| liar.learn(1, endless.clone()));
    let before = resident();
    for way in [Way::Simple, Way::FanOut] {
        let end = timeout(END, all.ask(way, 1)).await.unwrap_or_else(|_| panic!("{way:?}: no end"));
        assert!(end != End::Answer, "{way:?}: {end:?}");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{} MB", grown >> 20);
    all.check().await;
}

/// Resident memory of this process, bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lies_at_login_costs_its_clients_no_more_than_the_time_to_connect() {
    let all = Liars::start().await;
    let admin = all.front.admin().await;
    let ready = async || {
        eventually("it is believed again", PATIENCE, async || {
            let client = all.front.try_connect("app", "app", "app").await.ok()?;
            client.simple_query("select count(*) from pg_class /* pgherd: shard=shard1 */").await.ok()?;
            Some(())
        })
        .await;
    };
    for (what, lie) in lies::at_login() {
        ready().await;
        let client = all.front.connect().await;
        let before = all.told();
        all.liars[0].lie_at_login(Some(lie));
        admin.simple_query("RECONNECT app").await.unwrap();
        let asked = timeout(END, client.simple_query("/* pgherd: shard=shard1 */ select 'mine'")).await;
        let error = asked.unwrap_or_else(|_| panic!("{what}: no end within {END:?}")).expect_err(what);
        let code = error.code().unwrap_or_else(|| panic!("{what}: {error:?}")).code().to_owned();
        assert!(["08", "28", "57", "58"].iter().any(|class| code.starts_with(class)), "{what}: {error:?}");
        assert!(all.told() > before, "{what}: it was not told");
        // The client's session is well, and the shard with it once the server tells the truth.
        all.liars[0].lie_at_login(None);
        eventually(&format!("{what}: the client is served again"), PATIENCE, async || {
            client.simple_query("/* pgherd: shard=shard1 */ select 'mine'").await.ok().map(drop)
        })
        .await;
    }
    all.check().await;
}
