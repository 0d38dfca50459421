//! Nothing leaks: clients with different settings, prepared statements of the same names, temporary tables, advisory
//! locks, notifications, sequences, code that sets, and transactions share two server connections in a random order, and
//! each answer is the one that a model of the client's own session foretells.
//!
//! `PGHERD_LEAK_STEPS` is the number of statements (3000), `PGHERD_LEAK_SEED` the first seed.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;
#[path = "no_leaks/model.rs"]
mod model;

use common::{Changes, Front, PATIENCE, Wire, eventually};
use model::{Random, Session, Shared};

const CLIENTS: usize = 4;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_share_two_connections_never_meet() {
    let (steps, seed) = (number("PGHERD_LEAK_STEPS", 3000), number("PGHERD_LEAK_SEED", 1));
    let front =
        Front::plain(0, Changes { pool: "size = 2\nmin_idle = 0\nmax_pinned = 2", ..Changes::default() })
            .await;
    front.connect().await.batch_execute(&model::code()).await.unwrap();
    let mut random = Random::new(seed);
    let mut shared = Shared::default();
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        // Two with startup parameters of their own.
        let name = format!("client{n}");
        let parameters: &[(&str, &str)] =
            if n < 2 { &[("application_name", &name), ("work_mem", "5MB")] } else { &[] };
        let mut wire = Wire::connect(front.port, parameters).await;
        let session = Session::start(n, &mut wire, n < 2).await;
        clients.push((wire, session));
    }
    for step in 0..steps {
        let n = random.below(CLIENTS);
        // A transaction or a tie holds a connection, and the other must be free.
        let held = |(at, (_, session)): (usize, &(Wire, Session))| at != n && session.holds();
        let busy = clients.iter().enumerate().any(held);
        let (wire, session) = &mut clients[n];
        let ask = session.next(&mut random, busy, &mut shared);
        let context = format!("seed {seed}, step {step}, client {n}: {ask:?}");
        let heard = session.check(wire, &ask, &context).await;
        shared.hear(n, heard);
    }
    eventually("every notification arrives", PATIENCE, async || {
        for (n, (wire, session)) in clients.iter_mut().enumerate() {
            let heard = session.listen_once_more(wire).await;
            shared.hear(n, heard);
        }
        shared.is_settled().then_some(())
    })
    .await;
    assert!(shared.surplus().is_empty(), "{:?}", shared.surplus());
    for (wire, _) in clients {
        drop(wire);
    }
    let direct = front.herd.primary(0).connect().await;
    eventually("no lock and no temporary table is left", PATIENCE, async || {
        let left = "select (select count(*) from pg_locks where locktype = 'advisory') \
             + (select count(*) from pg_class where relname = 'mine')";
        (direct.query_one(left, &[]).await.unwrap().get::<_, i64>(0) == 0).then_some(())
    })
    .await;
}
