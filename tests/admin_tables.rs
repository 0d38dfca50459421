//! The virtual tables of schema `pgherd` over the shipped configuration: what they show, and what they never show.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use pgherd::admin::{self, AdminError, Herd, Params};
use pgherd::catalog::Catalog;
use pgherd::cluster::{DatabaseStatus, Drift, Health, ServerStatus};
use pgherd::config::{Config, Database, demo_text};
use pgherd::route::{Env, Kind, Router};
use pgherd::rows::{Select, Table};
use pgherd::shard::{Map, PartitionId, ShardId};
use pgherd::stats::{
    Class, Effect, ErrorEvent, Named, On, Ran, RouteKind, ServerLabel, SessionInfo, Stats, Timing,
};
use pgherd::wire::ClientFacing;

fn config() -> Arc<Config> {
    let secrets = |name: &str| Some(format!("{name}-s3cret"));
    let loaded = Config::parse(&demo_text(5432).unwrap(), Path::new("proxy.toml"), &secrets);
    Arc::new(loaded.unwrap_or_else(|e| panic!("{e}")).config)
}

/// Every server up, in the role the config expects.
fn status(database: &Database) -> DatabaseStatus {
    let mut servers = Vec::new();
    for (i, shard) in database.shards.iter().enumerate() {
        servers.extend(shard.servers.iter().map(|server| ServerStatus {
            database: database.name.clone(),
            shard: shard.name.clone(),
            shard_id: ShardId(i as u16),
            address: server.address(),
            expected_role: server.role,
            role: Some(server.role),
            health: Health::Up,
            lag_bytes: Some(0),
            lag_us: Some(1500),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
            last_error: None,
            drained: false,
            outstanding: 0,
            weight: server.weight,
            server_version: Some("15.18".to_owned()),
        }));
    }
    DatabaseStatus {
        name: database.name.clone(),
        servers,
        paused: false,
        map: database.map.clone(),
        catalog_generation: 1,
        schema_drift: vec![Drift {
            object: "public.users".to_owned(),
            shard: "shard2".to_owned(),
            problem: "column \"email\" is missing".to_owned(),
        }],
    }
}

fn herd() -> Herd {
    let config = config();
    let databases = config.databases.iter().map(|d| status(d)).collect();
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    Herd {
        config,
        stats: Stats::new(),
        databases,
        reloads: Default::default(),
        started,
        now: started + Duration::from_secs(90),
        database: "pgherd".to_owned(),
        user: "app".to_owned(),
    }
}

fn parse(sql: &str) -> Arc<Select> {
    let map = Map::new(vec!["shard1".to_owned()], Vec::new(), BTreeMap::new(), ShardId(0));
    let router = Router::new(Arc::new(map), Arc::new(Catalog::default()), 10);
    let env = Env { admin_database: true, ..Env::default() };
    let statements = router.prepare(sql.as_bytes(), &env).unwrap();
    let Kind::Virtual(select) = statements[0].kind() else {
        panic!("{sql}: {:?}", statements[0].route(&router, sql.as_bytes(), &[], &env));
    };
    select.clone()
}

fn ask(herd: &Herd, sql: &str) -> Result<Vec<Vec<String>>, AdminError> {
    admin::select(herd, &parse(sql), &Params::none()).map(|table| texts(&table))
}

fn texts(table: &Table) -> Vec<Vec<String>> {
    table.rows.iter().map(|row| row.iter().map(|v| v.to_text()).collect()).collect()
}

fn table_names(herd: &Herd) -> Vec<String> {
    let help = texts(&admin::show(herd, "help").unwrap());
    help.iter().filter_map(|row| row[0].strip_prefix("SHOW ").map(str::to_ascii_lowercase)).collect()
}

#[test]
fn every_table_can_be_shown_and_each_column_selected_by_its_bare_name() {
    let herd = herd();
    let names = table_names(&herd);
    for wanted in [
        "latency",
        "shards",
        "servers",
        "partitions",
        "pools",
        "clients",
        "errors",
        "config",
        "tables",
        "version",
        "stats",
        "databases",
        "users",
        "schema_drift",
        "help",
    ] {
        assert!(names.iter().any(|n| n == wanted), "{wanted}");
    }
    for name in names {
        let shown = admin::show(&herd, &name.to_ascii_uppercase()).unwrap();
        for column in &shown.columns {
            // A column named like a keyword would need quotes.
            let sql =
                format!("select {0}, t.{0} from pgherd.{name} t where {0} is null order by {0}", column.name);
            let shape = admin::describe(&herd, &parse(&sql), &[]).unwrap_or_else(|e| panic!("{sql}: {e}"));
            assert_eq!(shape.columns, [column.clone(), column.clone()], "{sql}");
        }
        assert!(shown.rows.iter().all(|row| row.len() == shown.columns.len()), "{name}");
    }
}

#[test]
fn no_table_shows_a_secret() {
    let mut config = (*config()).clone();
    let secret = "hunter2-s3cret";
    for user in &mut config.users {
        user.auth = pgherd::config::UserAuth::Password(secret.into());
        user.server_password = Some(secret.into());
    }
    let herd = Herd { config: Arc::new(config), ..herd() };
    let all: Vec<_> =
        table_names(&herd).iter().flat_map(|n| texts(&admin::show(&herd, n).unwrap())).collect();
    let redacted = all.iter().flatten().filter(|text| *text == "[redacted]").count();
    assert!(redacted >= 2 * herd.config.users.len(), "{redacted} secrets were set");
    let leaks: Vec<_> = all.iter().filter(|row| row.iter().any(|text| text.contains("s3cret"))).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
}

#[test]
fn the_shipped_placement_is_shown() {
    let herd = herd();
    let partitions =
        ask(&herd, "select partition, weight, first_slot, last_slot, shard from pgherd.partitions").unwrap();
    assert_eq!(partitions.len(), 5);
    assert_eq!(partitions[0][..4], ["A", "30", "0", "4914"]);
    assert_eq!(partitions[4][3], "16383");
    let share = ask(&herd, "select round(sum(share_percent)::numeric, 1) from pgherd.partitions").unwrap();
    assert_eq!(share, [["100.0"]]);
    let keys = ask(&herd, "select placement, keys from pgherd.tables where name = 'users'").unwrap();
    assert_eq!(keys, [["sharded", "user_id hash, partition_key list filled"]]);
    let shards = ask(&herd, "select state, replicas, replicas_healthy from pgherd.shards").unwrap();
    assert_eq!(shards, [["up", "1", "1"]; 3]);
    let drift = ask(&herd, "select object, problem from pgherd.schema_drift").unwrap();
    assert_eq!(drift[0], ["public.users", "column \"email\" is missing"]);
    let servers = ask(&herd, "select count(*), max(lag_us), min(since) from pgherd.servers").unwrap();
    assert_eq!(servers, [["6", "1500", "2026-01-01 00:00:00+00"]]);
    let uptime = ask(&herd, "select value from pgherd.stats where name = 'uptime_us'").unwrap();
    assert_eq!(uptime, [["90000000"]]);
}

fn ran(stats: &Stats, timing: Timing) -> Ran {
    let database = stats.database("app");
    let statement = stats.statement(&Named {
        database,
        hash: 7,
        text: "select ?",
        class: Class::Select,
        mark: &AtomicU64::new(0),
    });
    Ran {
        statement: Some(statement),
        class: Class::Select,
        route: RouteKind::Direct,
        effect: Effect::Read,
        database,
        partition: Some(PartitionId(1)),
        failed: false,
        rows: 3,
        timing,
    }
}

#[test]
fn what_happened_is_shown() {
    let herd = herd();
    for (address, replica, us) in [("a:1", true, 100), ("b:1", false, 5000)] {
        let label = ServerLabel {
            database: "demo".to_owned(),
            shard: ShardId(0),
            shard_name: "shard1".to_owned(),
            address: address.to_owned(),
        };
        let on = On { server: herd.stats.server(label), shard: ShardId(0), is_replica: replica };
        let timing = Timing { queue_us: 1, server_us: us - 20, total_us: us };
        herd.stats.ran(&ran(&herd.stats, timing), Some(on));
    }
    let slowest = "select shard, role, p99_us from pgherd.latency order by p99_us desc limit 3";
    assert_eq!(ask(&herd, slowest).unwrap(), [["shard1", "primary", "5000"], ["shard1", "replica", "100"]]);
    let statements =
        "select database, fingerprint, statement, class, route, shards, calls, replica_calls, rows,
        total_us, mean_us, max_us, queue_us, server_us, proxy_us from pgherd.statements";
    let want = "app,0000000000000007,select ?,select,direct,shard1,2,1,6,5100,2550,5000,2,5060,38";
    assert_eq!(ask(&herd, statements).unwrap(), [want.split(',').collect::<Vec<_>>()]);
    let of_late = herd.analytics(Duration::from_secs(60));
    let partition = &of_late.partitions[0];
    assert_eq!((&*partition.partition, &*partition.shard, partition.total), ("B", "shard1", 2));
    let shards: Vec<_> = of_late.shards.iter().map(|s| (&*s.database, &*s.shard, s.figures.total)).collect();
    assert_eq!(&shards[..3], [("app", "shard1", 0), ("app", "shard2", 0), ("app", "shard3", 0)]);
    assert!(shards.contains(&("demo", "shard1", 2)));
    let session = herd.stats.session(SessionInfo {
        id: 7,
        user: "app".to_owned(),
        database: "demo".to_owned(),
        application: "nul\0byte".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        tls: true,
    });
    session.count_statement();
    let clients = "select id, application_name, tls, state, statements from pgherd.clients";
    assert_eq!(ask(&herd, clients).unwrap(), [["7", "nulbyte", "t", "idle", "1"]]);
    herd.stats.error(ErrorEvent {
        sqlstate: "0A000".to_owned(),
        message: "no".to_owned(),
        blame: "client",
        database: "demo".to_owned(),
        user: "app".to_owned(),
        shard: None,
        server: None,
        statement: None,
    });
    let errors =
        "select sqlstate, shard is null, count(*) from pgherd.errors group by sqlstate, shard is null";
    assert_eq!(ask(&herd, errors).unwrap(), [["0A000", "t", "1"]]);
    assert_eq!(ask(&herd, "select * from error_counts").unwrap(), [["0A000", "1"]]);
}

#[test]
fn drivers_first_questions_are_answered() {
    let herd = herd();
    assert_eq!(ask(&herd, "select 1").unwrap(), [["1"]]);
    assert!(ask(&herd, "select version()").unwrap()[0][0].starts_with("PostgreSQL 15.18 (pgherd "));
    let who = "select current_user, pg_catalog.current_database(), current_schema()";
    assert_eq!(ask(&herd, who).unwrap(), [["app", "pgherd", "pgherd"]]);
    assert_eq!(ask(&herd, "select now() > '2026-01-01 00:01:00'").unwrap(), [["t"]]);
}

#[test]
fn unknown_names_are_answered_with_those_that_exist() {
    let herd = herd();
    let code = |sql| ask(&herd, sql).map_err(|e| (e.sqlstate().to_string(), e.hint().unwrap_or_default()));
    let (state, hint) = code("select * from pgherd.lateness").unwrap_err();
    assert!(state == "42P01" && hint.contains("latency"), "{state} {hint}");
    let (state, hint) = code("select p100_us from pgherd.latency").unwrap_err();
    assert!(state == "42703" && hint.contains("p99_us"), "{state} {hint}");
    let (state, hint) = code("select median(p99_us) from pgherd.latency").unwrap_err();
    assert!(state == "42883" && hint.contains("avg"), "{state} {hint}");
    let error = admin::show(&herd, "work_mem").unwrap_err();
    assert!(error.sqlstate().as_str() == "42704" && error.hint().unwrap().contains("shards"));
}

#[test]
fn parameters_are_described_by_the_declared_type_or_the_inferred_one() {
    let herd = herd();
    let select = parse("select shard from pgherd.latency where count > $1 and shard = $2 limit $3");
    for (declared, want) in [(&[][..], [20, 25, 20]), (&[21, 1043, 0], [21, 1043, 20])] {
        let shape = admin::describe(&herd, &select, declared).unwrap();
        assert_eq!(shape.params.iter().map(|p| p.oid).collect::<Vec<_>>(), want);
    }
    let unknown = admin::describe(&herd, &select, &[1082]).unwrap_err();
    assert_eq!(unknown.sqlstate().as_str(), "0A000");
    let shape = admin::describe(&herd, &select, &[]).unwrap();
    let values = [(Some(&b"0"[..]), false), (Some(b"shard1"), true), (None, false)];
    let params = Params::read(&shape.params, values).unwrap();
    assert!(admin::select(&herd, &select, &params).unwrap().rows.is_empty());
}

#[test]
fn deep_and_wide_queries_are_answered_or_refused_but_never_crash() {
    // Workers have stacks of this size.
    let worker = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let herd = herd();
        let chain = |n: usize| format!("select 1{} from pgherd.version", " + 1".repeat(n));
        assert_eq!(ask(&herd, &chain(150)).unwrap(), [["151"]]);
        let wide = format!("select {} from pgherd.version", vec!["1"; 2000].join(", "));
        assert_eq!(ask(&herd, &wide).unwrap_err().sqlstate().as_str(), "54001");
        let list: Vec<_> = (0..20_000).map(|i| i.to_string()).collect();
        let long = format!("select count(*) from pgherd.shards where replicas in ({})", list.join(", "));
        assert_eq!(ask(&herd, &long).unwrap(), [["3"]]);
    });
    worker.unwrap().join().unwrap();
}
