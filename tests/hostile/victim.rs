//! Honest clients beside the hostile ones: every answer is known and checked, and what is left on the servers too.
//! Must not know how they are attacked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use tokio::sync::{RwLock, RwLockWriteGuard};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::common::{Front, PATIENCE, eventually, rows};

/// Rows that are read meanwhile.
pub(crate) async fn prepare(front: &Front) {
    front.herd.sql(PREPARED_HERE).await;
    front.admin().await.simple_query("reload").await.unwrap();
    let client = front.connect().await;
    for n in 0..8 {
        let sql = format!("insert into users (user_id, name, email) values ('victim_{n}', '0', 'e')");
        client.batch_execute(&sql).await.unwrap();
    }
}

/// Clients at work until they are stopped.
pub(crate) struct Victims {
    stop: Arc<AtomicBool>,
    checked: Arc<AtomicU64>,
    /// Read while a round lasts.
    at_work: Arc<RwLock<()>>,
    tasks: JoinSet<()>,
}

impl Victims {
    /// Starts so many, at most 8: each has a row of its own.
    pub(crate) async fn start(front: &Front, count: usize) -> Self {
        let (stop, checked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (at_work, mut tasks) = (Arc::new(RwLock::new(())), JoinSet::new());
        for n in 0..count {
            let (client, stop, checked) = (front.connect().await, stop.clone(), checked.clone());
            let at_work = at_work.clone();
            tasks.spawn(async move {
                let mine = format!("victim_{n}");
                client.batch_execute(&format!("set application_name = '{mine}'")).await.unwrap();
                let mut round = 0;
                while !stop.load(Relaxed) {
                    let _working = at_work.read().await;
                    one_round(&client, &mine, round).await;
                    round += 1;
                    checked.fetch_add(5, Relaxed);
                }
            });
        }
        Self { stop, checked, at_work, tasks }
    }

    /// As long as this is held nothing is asked for them.
    pub(crate) async fn pause(&self) -> RwLockWriteGuard<'_, ()> {
        self.at_work.write().await
    }

    /// How many answers were checked so far.
    pub(crate) fn checked(&self) -> u64 {
        self.checked.load(Relaxed)
    }

    /// Stops them; how many answers were checked.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.tasks.join_all().await;
        self.checked.load(Relaxed)
    }
}

/// What a client cannot ask for: the view would tell it of all others. Its name is put together where it is used, so
/// that the proxy does not know it.
const PREPARED_HERE: &str = "create function prepared_here(given text) returns boolean stable language plpgsql as $$ \
     declare found boolean; begin \
     execute 'select exists (select from pg_prepared' || '_statements where name = $1)' into found using given; \
     return found; end $$";

async fn one_round(client: &Client, mine: &str, round: i32) {
    // Its own values, in both protocols.
    let own = format!("{mine}/{round}");
    assert_eq!(rows(client, &format!("select '{own}'")).await, [own.as_str()]);
    let row = client.query_one("select $1::text || '!' , $2::int4", &[&own, &round]).await.unwrap();
    assert_eq!((row.get::<_, String>(0), row.get::<_, i32>(1)), (format!("{own}!"), round));
    // Its own settings, and nobody's leftovers.
    let state = "select current_setting('application_name'), current_setting('work_mem'), \
                 current_setting('search_path'), to_regclass('hostile_temp') is null, \
                 not exists (select from pg_listening_channels()), \
                 not prepared_here('hostile_statement'), \
                 not exists (select from pg_cursors where name = 'hostile_cursor')";
    assert_eq!(rows(client, state).await, [format!("{mine}|4MB|\"$user\", public|t|t|t|t")]);
    // Its own row, changed in a transaction.
    client.batch_execute("begin").await.unwrap();
    let by_key = format!("where user_id = '{mine}'");
    let update = format!("update users set name = '{round}' {by_key} returning user_id, name");
    assert_eq!(rows(client, &update).await, [format!("{mine}|{round}")]);
    client.batch_execute(if round % 2 == 0 { "commit" } else { "rollback" }).await.unwrap();
    let kept = round - round % 2;
    assert_eq!(rows(client, &format!("select name from users {by_key}")).await, [kept.to_string()]);
}

/// Every server connection is back, idle and clean; nothing uncommitted was committed; nobody is left.
pub(crate) async fn check_whole(front: &Front) {
    let admin = front.admin().await;
    eventually("all server connections came back", PATIENCE, async || {
        (rows(&admin, "select sum(in_use + waiting + pinned) from pgherd.pools").await == ["0"]).then_some(())
    })
    .await;
    eventually("all hostile clients are gone", PATIENCE, async || {
        (rows(&admin, "select count(*) from pgherd.clients where user_name = 'raw'").await == ["0"])
            .then_some(())
    })
    .await;
    for shard in &front.herd.shards {
        eventually("nothing is open or locked on the servers", PATIENCE, async || {
            let busy = "select count(*) from pg_stat_activity where usename = 'app' and state <> 'idle'";
            let locks =
                "select count(*) from pg_locks l join pg_stat_activity a using (pid) where a.usename = 'app'";
            let temp = "select count(*) from pg_class where relpersistence = 't'";
            let all =
                format!("select ({busy}) + ({locks}) + ({temp}) + (select count(*) from pg_prepared_xacts)");
            (shard.primary.sql(&all).await == ["0"]).then_some(())
        })
        .await;
        if shard.primary.sql("select to_regclass('audit_log')").await != ["NULL"] {
            let leaked =
                shard.primary.sql("select count(*) from audit_log where action = 'uncommitted'").await;
            assert_eq!(leaked, ["0"], "what no client has committed is there");
        }
    }
    // As many at once as the pool has connections: each is as new.
    let clients = futures_util::future::join_all((0..6).map(|_| front.connect())).await;
    for client in &clients {
        client.batch_execute("begin").await.unwrap();
        let state = "select current_setting('work_mem'), current_setting('application_name'), \
                     (select count(*) from pg_listening_channels()), (select count(*) from pg_cursors), \
                     (select count(*) from pg_locks where locktype = 'advisory')";
        assert_eq!(rows(client, state).await, ["4MB||0|0|0"]);
    }
    for client in &clients {
        client.batch_execute("rollback").await.unwrap();
    }
}
