//! What tells of the server that is asked, and what only a primary can do, is the primary's to answer, however it is
//! wrapped: a replica would say something else, or fail.

mod common;

use common::{Changes, Front, rows};

const CODE: &str = "
    create table t (i int); insert into t values (1); create sequence s; create table written (i int);
    create function draws() returns bigint language plpgsql stable as $$ begin return nextval('s'); end $$;
    create function draws_too() returns bigint language plpgsql immutable as $$ begin return draws(); end $$;
    create function writes() returns int language plpgsql as $$ begin insert into written values (1); return 1; end $$;
    create function calls() returns int language plpgsql stable as $$ begin return writes(); end $$;
    create function recovers() returns bool language sql stable as 'select pg_is_in_recovery()';
    create function last() returns bigint language sql stable as 'select last_value from s';
    create view drawn as select draws() as v; create view seen as select last_value as v from s;
    create view locked as select i from t for update; create view locked_too as select i from locked;
    create view locks as select * from pg_locks; create view asked as select * from locks;
    create function counts() returns bigint language sql stable as 'select count(*) from asked';
    create view sums as select counts() as n;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_tells_of_a_server_is_the_primarys_to_answer() {
    let changes = Changes { database: "read_consistency = \"eventual\"", ..Changes::default() };
    let front = Front::plain(1, changes).await;
    front.herd.primary(0).sql("alter role app superuser").await;
    let client = front.connect().await;
    client.batch_execute(CODE).await.unwrap();
    let locks = "select pg_advisory_lock(44)";
    rows(&client, locks).await;
    let other = front.connect().await;
    for (sql, want) in [
        ("select nextval('s')", "1"),
        ("select last_value from s", "1"),
        ("select last_value from pg_sequences", "1"),
        ("select v from seen", "1"),
        ("select last()", "1"),
        ("select draws()", "2"),
        ("select draws_too()", "3"),
        ("select v from drawn", "4"),
        ("select calls()", "1"),
        ("select i from locked", "1"),
        ("select i from locked_too", "1"),
        ("select pg_is_in_recovery()", "f"),
        ("select recovers()", "f"),
        ("select setting from pg_settings where name = 'transaction_read_only'", "off"),
        ("select count(*) from pg_stat_replication", "1"),
        ("select count(*) from pg_stat_wal_receiver", "0"),
        ("select count(*) from pg_catalog.pg_locks where locktype = 'advisory'", "1"),
        ("select count(*) from locks where locktype = 'advisory'", "1"),
        ("select count(*) from asked where locktype = 'advisory'", "1"),
        ("select counts() > 0", "t"),
        ("select n > 0 from sums", "t"),
        (
            "select count(*) from pg_stat_activity where usename = 'app' and backend_type = 'client backend' and pid = pg_backend_pid()",
            "1",
        ),
        ("select pg_last_wal_replay_lsn() is null", "t"),
    ] {
        assert_eq!(rows(&other, sql).await, [want], "{sql}");
    }
    let (admin, at_replicas) =
        (front.admin().await, "select count(*) from pgherd.latency where role = 'replica'");
    assert_eq!(rows(&admin, at_replicas).await, ["0"]);
    // All else is still read there.
    rows(&other, "select i from t").await;
    assert_ne!(rows(&admin, at_replicas).await, ["0"]);
}
