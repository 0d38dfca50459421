//! `proxy.toml`: what is accepted and with which defaults, and what is refused with which words.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy only knows the test functions themselves")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pgherd::config::{
    Changes, Config, ConfigErrors, DEMO_PORT_BASE, Database, Loaded, PoolMode, ReadConsistency, Role,
    ServerTlsMode, UserAuth, changes, demo_text,
};
use pgherd::shard::{Key, Method, PartitionId, Placement, ShardId, TableName};
use secrecy::ExposeSecret;

/// The smallest file that works; rows of the tables below are appended to it, so they start at line 10.
const MINIMAL: &str = r#"
[[user]]
name = "app"
password = "secret"
[[database]]
name = "app"
[[database.shard]]
name = "main"
servers = [{ host = "db1" }]
"#;

/// The file of the tests of tables: three lines a partition, two shards. Rows start at line 17.
const SHARDED: &str = r#"
[[user]]
name = "app"
password = "secret"
[[database]]
name = "app"
shard = [
  { name = "s1", servers = [{ host = "db1" }] },
  { name = "s2", servers = [{ host = "db2" }] },
]
partition = [
  { name = "A", shard = "s1" },
  { name = "B", shard = "s2" },
]
[[database.table]]
name = "t"
"#;

fn parse(text: &str) -> Result<Loaded, ConfigErrors> {
    let env = |name: &str| (name == "APP_PASSWORD").then(|| "from-env".to_owned());
    Config::parse(text, Path::new("proxy.toml"), &env)
}

fn errors(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(_) => vec!["accepted".to_owned()],
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    }
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|e| panic!("{e}")).config
}

fn database<'c>(config: &'c Config, name: &str) -> &'c Database {
    config.databases.iter().find(|d| d.name == name).unwrap()
}

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn table(config: &Config, schema: &str, name: &str) -> Placement {
    config.databases[0].map.placement(&TableName::new(schema, name))
}

#[test]
fn a_minimal_file_has_sane_defaults() {
    let config = config(MINIMAL);
    assert_eq!(config.listen, ["127.0.0.1:6432".parse().unwrap()]);
    assert_eq!((config.limits.max_clients, config.limits.max_message), (10_000, 64 << 20));
    assert_eq!(config.timeouts.login, Duration::from_secs(15));
    assert_eq!((config.timeouts.idle, config.timeouts.query), (None, None));
    assert_eq!((config.log.filter.as_str(), config.log.json), ("info", false));
    assert!(config.tls.is_none());
    let db = database(&config, "app");
    assert_eq!((db.pool_mode, db.read_consistency), (PoolMode::Transaction, ReadConsistency::Session));
    assert_eq!((db.pool.size.get(), db.pool.max_per_server.get()), (20, 80));
    assert_eq!(db.pool.queue_timeout, Duration::from_secs(5));
    assert_eq!((db.server_tls.mode, db.replica_fallback), (ServerTlsMode::Prefer, true));
    let server = &db.shards[0].servers[0];
    assert_eq!((server.address().as_str(), server.role, server.weight), ("db1:5432", Role::Primary, 1));
    assert_eq!(db.control.user, "app", "the first user's account");
    assert_eq!(db.control.password.as_ref().unwrap().expose_secret(), "secret");
    assert!(db.map.is_single() && db.map.tables.is_empty());
}

#[test]
fn the_shipped_file_is_the_demo() {
    let loaded = Config::load(shipped("proxy.toml")).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let config = loaded.config;
    let db = database(&config, "app");
    let ports: Vec<u16> = db.shards.iter().flat_map(|s| &s.servers).map(|s| s.port).collect();
    assert_eq!(ports, [5432, 5433, 5434, 5435, 5436, 5437]);
    let placed: Vec<String> = db
        .map
        .partitions
        .iter()
        .map(|p| format!("{} {} {}", p.name, p.weight, db.map.shard_name(p.shard)))
        .collect();
    assert_eq!(placed, ["A 30 shard1", "B 20 shard1", "C 15 shard3", "D 25 shard2", "E 10 shard3"]);
    let Placement::Sharded(keys) = table(&config, "public", "users") else { panic!("users") };
    let keys: Vec<_> = keys.iter().map(|k| (k.column.as_str(), k.method == Method::Hash, k.fill)).collect();
    assert_eq!(keys, [("user_id", true, false), ("partition_key", false, true)]);
    assert_eq!(table(&config, "public", "countries"), Placement::Reference);
    assert_eq!(table(&config, "public", "audit_log"), Placement::Single(ShardId(1)));
    let admin = config.user("admin").unwrap();
    assert_eq!((admin.admin, admin.server_user.as_str()), (true, "app"));
    assert_eq!(admin.server_password.as_ref().unwrap().expose_secret(), "app");
}

#[test]
fn the_demo_on_other_ports_is_still_a_valid_file() {
    let moved = config(&demo_text(DEMO_PORT_BASE + 10_000).unwrap());
    assert_eq!(moved.listen[0].port(), 16_432);
    let shards = &moved.databases[0].shards;
    assert_eq!((shards[0].servers[0].port, shards[2].servers[1].port), (15_432, 15_437));
}

#[test]
fn wrong_shapes_are_reported_all_at_once_without_values() {
    for (text, want) in [
        (
            "x = ",
            vec![
                "proxy.toml:1: not TOML: string values must be quoted, expected literal string; \
             mend the syntax (text goes in quotes, lists in [ ], one key a line)",
            ],
        ),
        (
            "[proxy]\nlistn = []\nworkers = \"2\"\n[porxy]\n[[user]]\npassword = 1234\nzzz = \"secret\"",
            vec![
                "proxy.toml:2: proxy.listn: unknown key; did you mean \"listen\"?",
                "proxy.toml:3: proxy.workers: must be a whole number, 0 or more; write digits only, without quotes",
                "proxy.toml:4: porxy: unknown key; did you mean \"proxy\"?",
                "proxy.toml:6: user.password: must be text; put it in quotes",
                "proxy.toml:7: user.zzz: unknown key; there are \"name\", \"password\", \"password_env\", \
             \"password_file\", \"scram_verifier\", \"scram_verifier_env\", \"scram_verifier_file\", \"cert_cn\", \"trust\", \
             \"admin\", \"databases\", \"server_user\", \"server_password\", \"server_password_env\", \
             \"server_password_file\", \"pool_size\", …",
            ],
        ),
        (
            "[user]\nname = \"a\"",
            vec![
                "proxy.toml:1: user: must be a list; \
             write [ … ], or [[…]] as the header of a table that can be there several times",
            ],
        ),
        (
            "[[user]]\nadmin = 1\n[[database]]\ncontrol = 5",
            vec![
                "proxy.toml:2: user.admin: must be true or false; write true or false without quotes",
                "proxy.toml:4: database.control: must be a table; write { key = value, … } or a [header]",
            ],
        ),
        (
            "[[database]]\n[[database.shard]]\nservers = [\n{ host = \"a\" },\n{ hots = \"b\" },\n]\n\
             [[database.table]]\nkeys = [{ bounds = [{ from = true }] }]",
            vec![
                "proxy.toml:5: database.shard.servers.hots: unknown key; did you mean \"host\"?",
                "proxy.toml:8: database.table.keys.bounds.from: must be a whole number or text; \
                 write 100 or \"100\"",
            ],
        ),
    ] {
        assert_eq!(errors(text), want, "{text}");
    }
}

#[test]
fn a_file_without_users_or_databases_says_what_to_add() {
    assert_eq!(
        errors(""),
        [
            "proxy.toml: user: there is no user, so nobody could connect; add a [[user]]",
            "proxy.toml: database: there is no database to connect to; add a [[database]] with a [[database.shard]]",
        ]
    );
}

#[test]
fn broken_rules_name_line_key_and_remedy() {
    let user = "[[user]]\nname = \"b\"\n";
    let shard = "[[database.shard]]\nname = \"two\"\n";
    let db = "[[database]]\nname = \"b\"\nshard = [{ name = \"s\", servers = [{ host = \"b\" }] }]\n";
    let with = |head: &str, tail: &str| format!("{head}{tail}");
    for (text, want) in [
        ("[proxy]\nlisten = [\"localhost:6432\"]".into(), vec![
            "11: proxy.listen: \"localhost:6432\" is not an address with a port; write \"127.0.0.1:6432\", \
             \"[::1]:6432\", or \"0.0.0.0:6432\" for all interfaces",
        ]),
        ("[proxy]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]".into(), vec![
            "11: proxy.listen: \"127.0.0.1:1\" is there twice; remove one of the two",
        ]),
        ("[proxy]\nworkers = 0\nmax_message_bytes = 2000000000".into(), vec![
            &format!("11: proxy.workers: must be at least 1; raise it, or leave the key out for {}", cores()),
            "12: proxy.max_message_bytes: must be at most 1073741823; lower it, or leave the key out for 67108864",
        ]),
        ("[timeouts]\nlogin_ms = 0\nquery_ms = 99999999999999".into(), vec![
            "11: timeouts.login_ms: must be at least 1; raise it, or leave the key out for 15000",
            "12: timeouts.query_ms: must be at most 31536000000; lower it, or leave the key out for 0",
        ]),
        ("[log]\nfilter = \"pgherd=loud\"\nformat = \"jsn\"".into(), vec![
            "11: log.filter: \"pgherd=loud\" is not a filter; \
             write a level (error, warn, info, debug), or target=level pairs with commas between",
            "12: log.format: \"jsn\" is not a choice; did you mean \"json\"?",
        ]),
        ("[log]\nfilter = \"infoo\"".into(), vec![
            "11: log.filter: \"infoo\" is not a filter; \
             write a level (error, warn, info, debug), or target=level pairs with commas between",
        ]),
        ("[tls]\ncert = \"no-such.pem\"".into(), vec![
            "10: tls.key: is missing; name the PEM file, or remove [tls]",
            "11: tls.cert: cannot read no-such.pem: No such file or directory (os error 2); check the path \
             (relative ones start at this file) and its permissions",
        ]),
        ("[pool]\nsize = 100\nmin_idle = 200".into(), vec![
            "11: pool.size: size 100 is above max_per_server 80; lower size or raise max_per_server",
            "12: pool.min_idle: min_idle 200 is above size 100; lower min_idle or raise size",
        ]),
        (with(user, "password_env = \"NOPE\""), vec![
            "12: user.password_env: the environment has no NOPE; set it before the start, or use a file",
        ]),
        (with(user, "password_file = \"/no/such\""), vec![
            "12: user.password_file: cannot read /no/such: No such file or directory (os error 2); check the path \
             (relative ones start at this file) and its permissions",
        ]),
        (with(user, "password = \"a\"\npassword_env = \"APP_PASSWORD\""), vec![
            "12: user.password: is given more than once; \
             keep one of user.password, user.password_env, user.password_file",
        ]),
        (with(user, "password = \"\""), vec![
            "12: user.password: is empty; give a password, or leave the key out",
        ]),
        (with(user, "password = \"a\"\ntrust = true"), vec![
            "12: user: password, scram_verifier and trust exclude one another; keep one of them",
        ]),
        (with(user, "admin = true"), vec![
            "10: user: nothing says how the user proves who it is; \
             add one of password, password_env, password_file, scram_verifier, cert_cn, or trust = true",
        ]),
        (with(user, "scram_verifier = \"SCRAM-SHA-256$4096:abc$def:ghi\""), vec![
            "12: user.scram_verifier: is not a SCRAM-SHA-256 verifier; \
             copy rolpassword from pg_authid: SCRAM-SHA-256$4096:salt$stored:server",
        ]),
        (with(user, "trust = true\n[proxy]\nlisten = [\"127.0.0.1:1\", \"0.0.0.0:1\"]"), vec![
            "12: user.trust: a user without a password, but the proxy listens on 0.0.0.0:1; \
             give the user a password, or listen on 127.0.0.1 and [::1] only",
        ]),
        ("[[user]]\nname = \"app\"\ntrust = true".into(), vec![
            "11: user.name: \"app\" is there twice; rename or remove one of the two",
        ]),
        (with(user, "trust = true\ndatabases = [\"ap\"]\npool_size = 90"), vec![
            "13: user.databases: there is no database \"ap\"; did you mean \"app\"?",
        ]),
        (with(user, "trust = true\npool_size = 90"), vec![
            "13: user.pool_size: is above max_per_server 80 of database \"app\"; lower it or raise max_per_server",
        ]),
        (with(shard, "servers = []"), vec![
            "10: database.shard.servers: the shard has no server; \
             write servers = [{ host = \"127.0.0.1\", port = 5432 }]",
        ]),
        (with(shard, "servers = [{ host = \"db1\" }]"), vec![
            "12: database.shard.servers: db1:5432 is there twice; remove one of the two, or mend its port",
        ]),
        (with(shard, "servers = [{ host = \"a:1\" },\n{ host = \"c\", port = 70000 },\n{ port = 1 }]"), vec![
            "12: database.shard.servers.host: \"a:1\" is not a host name or address; \
             write the name alone, the port under port; Unix sockets are not supported",
            "13: database.shard.servers.port: must be at most 65535; lower it, or leave the key out for 5432",
            "14: database.shard.servers.host: is missing; add it to this table",
        ]),
        (with(shard, "servers = [{ host = \"a\" },\n{ host = \"b\", role = \"primary\" },\n{ host = \"c\", role = \"slave\" }]"), vec![
            "13: database.shard.servers: a:5432 and b:5432 are both primaries; \
             a shard has one primary: make the other a replica",
            "14: database.shard.servers.role: \"slave\" is not a choice; there are \"primary\", \"replica\"",
        ]),
        ("[[database.shard]]\nname = \"main\"\nservers = [{ host = \"a\", weight = 0 }]".into(), vec![
            "11: database.shard.name: \"main\" is there twice; rename or remove one of the two",
            "12: database.shard.servers.weight: must be at least 1; raise it, or leave the key out for 1",
        ]),
        ("[[database.partition]]\nname = \"A\"\nweight = 0\nshard = \"mian\"".into(), vec![
            "12: database.partition.weight: must be at least 1; raise it, or leave the key out for 1",
            "13: database.partition.shard: there is no shard \"mian\"; did you mean \"main\"?",
        ]),
        ("[[database]]\nname = \"empty\"".into(), vec![
            "10: database.shard: the database has no shard; add a [[database.shard]] with its servers",
        ]),
        (with(db, "[[database]]\nname = \"b\"\nshard = [{ name = \"s\", servers = [{ host = \"b\" }] }]"), vec![
            "14: database.name: \"b\" is there twice; rename or remove one of the two",
        ]),
        ("[[database]]\nname = \"pgherd\"\nshard = [{ name = \"s\", servers = [{ host = \"b\" }] }]".into(), vec![
            "11: database.name: \"pgherd\" is the proxy's own database; \
             choose another name; server_database says what it is called on the servers",
        ]),
        (
            "[[database]]\nname = \"*\"\nserver_database = \"x\"\nshard = [\n{ name = \"s\", servers = [{ host = \
             \"b\" }] },\n{ name = \"t\", servers = [{ host = \"c\" }] }]\npartition = [{ name = \"A\", shard = \
             \"s\" }]\ntable = [{ name = \"t\", placement = \"reference\" }]"
                .into(),
            vec![
                "12: database.server_database: database \"*\" passes names on, so it has no name on the servers; \
                 remove it, or give the database a name",
                "15: database.shard: database \"*\" passes names on, so it has one shard; \
                 keep one shard, or give the database a name",
                "16: database.partition: database \"*\" passes names on, so it has no partitions; \
                 remove them, or give the database a name",
                "17: database.table: database \"*\" passes names on, so it has no tables; \
                 remove them, or give the database a name",
            ],
        ),
        (with(db, "mode = \"statement\"\nread_consistency = \"sesion\"\ndefault_shard = \"x\""), vec![
            "13: database.mode: \"statement\" is not a choice; there are \"transaction\", \"session\"",
            "14: database.read_consistency: \"sesion\" is not a choice; did you mean \"session\"?",
            "15: database.default_shard: there is no shard \"x\"; there are \"s\"",
        ]),
        (with(db, "control = { password = \"x\" }\nserver_tls = { mode = \"verify-full\" }"), vec![
            "13: database.control.password: is a password without a user; add user to control",
            "14: database.server_tls.ca: mode \"verify-full\" needs certificates to verify with; \
             name a PEM file of root certificates as ca",
        ]),
        (with(db, "server_tls = { mode = \"require\", ca = \"Cargo.toml\" }"), vec![
            "13: database.server_tls.ca: is not used, for nothing is verified; \
             use mode = \"verify-full\" or \"verify-ca\", or remove ca",
        ]),
        (with(db, "[database.pool]\nsize = 81"), vec![
            "14: database.pool.size: size 81 is above max_per_server 80; lower size or raise max_per_server",
        ]),
    ] {
        let want: Vec<String> = want.iter().map(|line| format!("proxy.toml:{line}")).collect();
        assert_eq!(errors(&format!("{MINIMAL}{text}")), want, "{text}");
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().unwrap().get()
}

#[test]
fn broken_rules_of_tables_name_line_key_and_remedy() {
    for (text, want) in [
        (
            "",
            vec![
                "15: database.table.placement: is missing; \
             write \"sharded\" (with keys), \"reference\" or \"single\" (with shard)",
            ],
        ),
        (
            "placement = \"sharded\"",
            vec![
                "15: database.table.keys: a sharded table needs a key; \
             write keys = [{ column = \"…\", method = \"hash\" }]",
            ],
        ),
        (
            "placement = \"shraded\"",
            vec!["17: database.table.placement: \"shraded\" is not a choice; did you mean \"sharded\"?"],
        ),
        (
            "placement = \"single\"",
            vec!["15: database.table.shard: is missing; name the shard that holds the table"],
        ),
        (
            "shard = \"s3\"",
            vec!["17: database.table.shard: there is no shard \"s3\"; there are \"s1\", \"s2\""],
        ),
        (
            "placement = \"reference\"\nshard = \"s1\"\nkeys = [{ column = \"a\" }]",
            vec![
                "18: database.table.shard: only a single table names its shard; \
             remove shard, or use placement = \"single\"",
                "19: database.table.keys: only sharded tables have keys; remove keys or mend placement",
            ],
        ),
        (
            "placement = \"reference\"\n[[database.table]]\nname = \"public.t\"\nplacement = \"reference\"",
            vec!["19: database.table.name: public.t is there twice; remove one of the two"],
        ),
        (
            "placement = \"reference\"\n[[database.table]]\nname = \"a.b.c\"\nplacement = \"reference\"",
            vec![
                "19: database.table.name: \"a.b.c\" is not the name of a table; \
             write table or schema.table without quotes, spelt as in the catalogs",
            ],
        ),
        (
            "placement = \"reference\"\n[[database.table]]\nname = \"pgherd.x\"\nplacement = \"reference\"",
            vec!["19: database.table.name: schema \"pgherd\" belongs to the system; remove this table"],
        ),
        (
            "keys = [{ column = \"a\" },\n{ column = \"a\", method = \"list\" },\n{ method = \"rnage\" }]",
            vec![
                "18: database.table.keys.column: \"a\" is there twice; rename or remove one of the two",
                "19: database.table.keys.column: is missing; add it to this table",
                "19: database.table.keys.method: \"rnage\" is not a choice; did you mean \"range\"?",
            ],
        ),
        (
            "keys = [{ column = \"a\", values = { x = \"A\" } },\n{ column = \"b\", bounds = [] }]",
            vec![
                "17: database.table.keys.values: are for method \"list\"; remove values, or use method = \"list\"",
                "18: database.table.keys.bounds: are for method \"range\"; remove bounds, or use method = \"range\"",
            ],
        ),
        (
            "keys = [{ column = \"a\", method = \"list\", values = { x = \"Z\" } }]",
            vec!["17: database.table.keys.values: there is no partition \"Z\"; there are \"A\", \"B\""],
        ),
        (
            "keys = [{ column = \"a\", method = \"list\", values = {} }]",
            vec![
                "17: database.table.keys.values: is empty; \
             write { value = \"partition\", … }, or leave the key out",
            ],
        ),
        (
            "keys = [{ column = \"a\", fill = true },\n{ column = \"b\", method = \"list\", values = { x = \"A\" } }]",
            vec![
                "17: database.table.keys.fill: only a list key can be filled in; remove fill",
                "18: database.table.keys.values: no value stands for partition \"B\", so its rows could not be stored; \
             add value = \"B\"",
            ],
        ),
        (
            "keys = [{ column = \"a\", method = \"list\", fill = true }]",
            vec![
                "17: database.table.keys.fill: a lone key cannot be filled in: nothing says the partition; remove fill",
            ],
        ),
        (
            "keys = [{ column = \"a\" }, { column = \"b\", method = \"list\", fill = true, values = { x = \"A\", y = \
             \"A\", z = \"B\" } }]",
            vec![
                "17: database.table.keys.fill: partition \"A\" has several values, so none can be filled in; \
                 give each partition one value, or remove fill",
            ],
        ),
        (
            "keys = [{ column = \"a\", method = \"range\" }]",
            vec![
                "17: database.table.keys.bounds: a range key needs bounds; \
             write bounds = [{ from = 0, partition = \"…\" }, …]; the first may leave from out",
            ],
        ),
        (
            "keys = [{ column = \"a\", method = \"range\", bounds = [\n{ partition = \"A\" },\n{ from = 5, partition \
             = \"B\" },\n{ from = 5, partition = \"A\" },\n{ from = \"7\", partition = \"A\" },\n{ from = 9 },\n{ \
             partition = \"C\" }]}]",
            vec![
                "20: database.table.keys.bounds: 5 does not come after 5; \
                 write the bounds in ascending order (text goes by bytes)",
                "21: database.table.keys.bounds: bounds mix numbers and text; use one kind, as the column has it",
                "22: database.table.keys.bounds: bounds mix numbers and text; use one kind, as the column has it",
                "22: database.table.keys.bounds: the bound names no partition; add partition = \"…\"",
                "23: database.table.keys.bounds: only the first bound may leave from out; add from = …",
                "23: database.table.keys.bounds: there is no partition \"C\"; there are \"A\", \"B\"",
            ],
        ),
    ] {
        let want: Vec<String> = want.iter().map(|line| format!("proxy.toml:{line}")).collect();
        assert_eq!(errors(&format!("{SHARDED}{text}")), want, "{text}");
    }
}

#[test]
fn partitions_must_be_there_be_placed_and_get_slots() {
    let servers = |n: usize| format!("{{ name = \"s{n}\", servers = [{{ host = \"h{n}\" }}] }},\n");
    let head = "[[user]]\nname = \"a\"\ntrust = true\n[[database]]\nname = \"a\"\n";
    let table = "[[database.table]]\nname = \"t\"\nkeys = [{ column = \"a\" }]\n";
    let two = format!("{head}shard = [{}{}]\n", servers(1), servers(2));
    assert_eq!(
        errors(&format!("{two}{table}")),
        ["proxy.toml:9: database.table: a sharded table needs partitions, and the database has none; \
         add [[database.partition]] tables",]
    );
    let unplaced =
        "[[database.partition]]\nname = \"A\"\n[[database.partition]]\nname = \"A\"\nshard = \"s1\"\n";
    assert_eq!(
        errors(&format!("{two}{unplaced}")),
        [
            "proxy.toml:9: database.partition.shard: is missing; name the shard that holds the partition",
            "proxy.toml:12: database.partition.name: \"A\" is there twice; rename or remove one of the two",
        ]
    );
    let tiny = "partition = [\n{ name = \"A\", shard = \"s1\", weight = 1 },\n\
                { name = \"B\", shard = \"s2\", weight = 100000 }]\n";
    assert_eq!(errors(&format!("{two}{tiny}")), ["accepted"], "no table is hashed");
    assert_eq!(
        errors(&format!("{two}{tiny}{table}")),
        ["proxy.toml:10: database.partition.weight: partition \"A\" gets none of the hash slots; \
         raise its weight relative to the others",]
    );
    let many: String = (0..129).map(servers).collect();
    assert_eq!(
        errors(&format!("{head}shard = [\n{many}]\n")),
        [
            "proxy.toml:135: database.shard: there are 129 shards, the most is 128; put several partitions on one shard",
        ]
    );
}

#[test]
fn a_file_cut_off_anywhere_is_refused_or_read_but_never_panics() {
    let text = fs::read_to_string(shipped("proxy.toml")).unwrap();
    let whole =
        (0..=text.len()).filter(|at| text.is_char_boundary(*at)).filter(|at| parse(&text[..*at]).is_ok());
    assert!(whole.count() > 0);
}

#[test]
fn secrets_come_from_the_environment_or_a_file_and_are_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "from-file\n").unwrap();
    restrict(&secret, 0o600);
    let file = dir.path().join("proxy.toml");
    let text = MINIMAL.replace("password = \"secret\"", "password_file = \"secret\"")
        + "[[user]]\nname = \"b\"\npassword_env = \"APP_PASSWORD\"\nserver_user = \"other\"\n";
    let env = |name: &str| (name == "APP_PASSWORD").then(|| "from-env".to_owned());
    let loaded = Config::parse(&text, &file, &env).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let config = loaded.config;
    let password = |name: &str| match &config.user(name).unwrap().auth {
        UserAuth::Password(password) => password.expose_secret().to_owned(),
        UserAuth::Verifier(_) | UserAuth::Certificate | UserAuth::Trust => panic!("{name} has no password"),
    };
    assert_eq!((password("app").as_str(), password("b").as_str()), ("from-file", "from-env"));
    assert_eq!(config.user("app").unwrap().server_password.as_ref().unwrap().expose_secret(), "from-file");
    assert!(config.user("b").unwrap().server_password.is_none(), "another role has another password");
    let printed = format!("{config:?}");
    assert!(printed.contains("REDACTED"), "{printed}");
    assert!(!printed.contains("from-file") && !printed.contains("from-env"), "{printed}");
}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_password_file_that_others_may_read_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "hidden").unwrap();
    restrict(&secret, 0o640);
    let file = dir.path().join("proxy.toml");
    fs::write(&file, MINIMAL.replace("password = \"secret\"", "password_file = \"secret\"")).unwrap();
    let warnings = Config::load(&file).unwrap().warnings;
    let want = format!(
        "{}:4: user.password_file: {} can be read by others (mode 640); chmod 600 it",
        file.display(),
        secret.display()
    );
    assert_eq!(warnings, [want]);
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let error = Config::load("no-such.toml").unwrap_err().to_string();
    assert_eq!(
        error,
        "no-such.toml: cannot be read: No such file or directory (os error 2); create it, or name another file"
    );
}

fn example(name: &str) -> Config {
    Config::load(shipped("examples/configs").join(name)).unwrap_or_else(|e| panic!("{e}")).config
}

#[test]
fn every_example_is_loaded_by_a_test_here() {
    let mut names: Vec<String> = fs::read_dir(shipped("examples/configs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "auth-query.toml",
            "client-certificates.toml",
            "hash-three-shards.toml",
            "multi-database.toml",
            "plain-pooler.toml",
            "range.toml",
            "tls.toml",
            "vertical.toml",
        ]
    );
}

#[test]
fn the_auth_query_example_names_no_user_but_the_operator() {
    let text = fs::read_to_string(shipped("examples/configs/auth-query.toml")).unwrap();
    let loaded = Config::parse(&text, Path::new("auth-query.toml"), &|_| Some("s".to_owned()));
    let config = loaded.unwrap_or_else(|e| panic!("{e}")).config;
    let db = database(&config, "app");
    assert!(db.auth_query.as_ref().is_some_and(|query| query.sql.contains("$1")));
    assert_eq!(db.max_clients.map(std::num::NonZeroUsize::get), Some(500));
    let wrong = text.replace("pgherd_user($1)", "pgherd_user('x')").replace("control =", "#");
    let found = errors(&wrong).join("\n");
    assert!(found.contains("does not use $1") && found.contains("needs a control account"), "{found}");
}

#[test]
fn the_certificate_example_asks_for_certificates_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(shipped("examples/configs/client-certificates.toml")).unwrap();
    for name in ["proxy", "clients-ca", "servers-ca", "proxy-client"] {
        for suffix in ["crt", "key"] {
            fs::write(dir.path().join(format!("{name}.{suffix}")), "x").unwrap();
            restrict(&dir.path().join(format!("{name}.{suffix}")), 0o600);
        }
    }
    let loaded = Config::parse(&text, &dir.path().join("c.toml"), &|_| Some("s".to_owned()));
    let config = loaded.unwrap_or_else(|e| panic!("{e}")).config;
    assert!(matches!(config.user("app").unwrap().auth, UserAuth::Certificate));
    assert_eq!(config.user("auditor").unwrap().cert_cn.as_deref(), Some("auditor"));
    assert!(database(&config, "app").server_tls.cert.is_some());
    let without =
        text.replace("client_ca", "# client_ca").replace("key = \"proxy-client.key\"", "direct = 1");
    assert!(errors(&without).join("\n").contains("unknown key"), "{:?}", errors(&without));
}

#[test]
fn the_plain_pooler_has_one_shard_and_weighted_replicas() {
    let config = example("plain-pooler.toml");
    let db = database(&config, "app");
    assert!(db.map.is_single() && db.map.partitions.is_empty());
    let servers: Vec<_> = db.shards[0].servers.iter().map(|s| (s.role, s.weight)).collect();
    assert_eq!(servers, [(Role::Primary, 1), (Role::Replica, 2), (Role::Replica, 1)]);
    assert_eq!(db.max_replica_lag, Duration::from_secs(5));
}

#[test]
fn the_hash_example_deals_six_equal_partitions_to_three_shards() {
    let config = example("hash-three-shards.toml");
    let map = &database(&config, "shop").map;
    let sizes: Vec<usize> = map.partitions.iter().map(|p| p.slots.len()).collect();
    assert_eq!(
        (sizes.iter().sum::<usize>(), sizes.iter().min(), sizes.iter().max()),
        (16_384, Some(&2730), Some(&2731))
    );
    let shards: Vec<u16> = map.partitions.iter().map(|p| p.shard.0).collect();
    assert_eq!(shards, [0, 0, 1, 1, 2, 2]);
    assert_eq!(database(&config, "shop").shards[2].servers[1].role, Role::Replica);
}

#[test]
fn the_range_example_places_by_bound_and_by_list() {
    let config = example("range.toml");
    let Placement::Sharded(entries) = table(&config, "public", "entries") else { panic!("entries") };
    let map = &config.databases[0].map;
    for (key, want) in [(-1, 0), (999_999, 0), (1_000_000, 1)] {
        assert_eq!(map.partition_of(&entries[0], &Key::Int(key)), Ok(PartitionId(want)), "{key}");
    }
    let Placement::Sharded(branches) = table(&config, "accounting", "branches") else { panic!("branches") };
    for (key, want) in [("legacy", 0), ("eu", 1), ("us", 1)] {
        assert_eq!(map.partition_of(&branches[0], &Key::Text(key.into())), Ok(PartitionId(want)), "{key}");
    }
}

#[test]
fn the_vertical_example_leaves_unnamed_tables_on_the_default_shard() {
    let config = example("vertical.toml");
    assert_eq!(table(&config, "public", "audit_log"), Placement::Single(ShardId(1)));
    assert_eq!(table(&config, "analytics", "page_views"), Placement::Single(ShardId(1)));
    assert_eq!(table(&config, "public", "anything"), Placement::Single(ShardId(0)));
}

#[test]
fn the_multi_database_example_passes_other_names_on() {
    let config = example("multi-database.toml");
    let warehouse = config.database("warehouse").unwrap();
    assert_eq!(warehouse.server_database.as_deref(), Some("dwh_v2"));
    assert_eq!((warehouse.pool_mode, warehouse.pool.size.get()), (PoolMode::Session, 10));
    assert_eq!(warehouse.pool.max_per_server.get(), 80, "the rest comes from [pool]");
    assert!(config.database("anything").unwrap().is_wildcard());
    assert_eq!(config.user("report").unwrap().databases, ["warehouse"]);
}

#[test]
fn the_tls_example_verifies_servers_and_holds_no_password() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("tls")).unwrap();
    for name in ["cert.pem", "key.pem", "ca.pem", "control-password"] {
        let path = dir.path().join("tls").join(name);
        fs::write(&path, "x").unwrap();
        restrict(&path, 0o600);
    }
    let text = fs::read_to_string(shipped("examples/configs/tls.toml")).unwrap();
    let env = |name: &str| (name == "APP_SERVER_PASSWORD").then(|| "s".to_owned());
    let loaded = Config::parse(&text, &dir.path().join("tls.toml"), &env).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(loaded.warnings, [""; 0]);
    let config = loaded.config;
    let tls = config.tls.as_ref().unwrap();
    assert_eq!((&tls.key, tls.required), (&dir.path().join("tls/key.pem"), true));
    assert!(matches!(config.users[0].auth, UserAuth::Verifier(_)));
    let db = database(&config, "app");
    assert_eq!(db.server_tls.mode, ServerTlsMode::VerifyFull);
    assert_eq!(db.server_tls.ca.as_deref(), Some(dir.path().join("tls/ca.pem").as_path()));
    assert_eq!(errors(&text).len(), 5, "without the files and the variable each is missed");
}

fn reload(old: &str, new: &str) -> Result<Changes, String> {
    changes(&config(old), &config(new)).map_err(|e| e.to_string())
}

#[test]
fn a_reload_of_the_same_file_changes_nothing() {
    let text = fs::read_to_string(shipped("proxy.toml")).unwrap();
    let same = reload(&text, &text).unwrap();
    assert_eq!((same.applied.len(), same.restart.len(), same.databases.len()), (0, 0, 0));
    assert!(same.users_changed.is_empty() && same.tables_added.is_empty());
}

#[test]
fn a_reload_says_what_changes_now_and_what_waits_for_a_restart() {
    let old = format!("{MINIMAL}[[user]]\nname = \"gone\"\ntrust = true\n[log]\nfilter = \"info\"\n");
    let new = MINIMAL.replace("\"secret\"", "\"other\"").replace("\"db1\"", "\"db2\"")
        + "[[user]]\nname = \"new\"\ntrust = true\n[proxy]\nlisten = [\"127.0.0.1:7000\"]\nworkers = 999\n\
           [pool]\nsize = 7\n[log]\nfilter = \"debug\"\n[[database]]\nname = \"more\"\n\
           shard = [{ name = \"s\", servers = [{ host = \"h\" }] }]\n[timeouts]\nquery_ms = 5\n";
    let changes = reload(&old, &new).unwrap();
    assert_eq!(
        changes.applied,
        [
            "timeouts",
            "user \"app\"",
            "user \"gone\" removed",
            "user \"new\" added",
            "database \"app\": servers, pool, control",
            "database \"more\" added",
        ]
    );
    assert_eq!(changes.restart, [
        "proxy.listen: [127.0.0.1:6432] stays, [127.0.0.1:7000] needs a restart".to_owned(),
        format!("proxy.workers: {} stays, 999 needs a restart", cores()),
        "log: Log { filter: \"info\", json: false } stays, Log { filter: \"debug\", json: false } needs a restart"
            .to_owned(),
    ]);
    assert_eq!(changes.config.listen[0].port(), 6432);
    assert_eq!(changes.config.databases[0].pool.size.get(), 7);
    assert_eq!(changes.users_changed, ["app", "gone"]);
    assert_eq!(changes.databases, ["app", "more"]);
    let back = reload(&new, &old).unwrap();
    assert_eq!(back.databases_removed, ["more"]);
}

#[test]
fn a_reload_that_would_lose_sight_of_rows_is_refused() {
    let text = fs::read_to_string(shipped("proxy.toml")).unwrap();
    let refused = |key: &str, what: &str| {
        format!(
            "proxy.toml: {key}: {what} of database \"app\" changed, and its rows would not be found; \
             put it back, or move the rows first and restart"
        )
    };
    for (from, to, want) in [
        ("weight = 30", "weight = 31", refused("database.partition", "a partition's shard or share")),
        (
            "placement = \"reference\"",
            "placement = \"single\"\nshard = \"shard2\"",
            refused("database.table", "the placement of table public.countries"),
        ),
        (
            "keys = [{ column = \"user_id\", method = \"hash\" }]",
            "keys = [{ column = \"id\", method = \"hash\" }]",
            refused("database.table", "the placement of table public.orders"),
        ),
        (
            "mode = \"transaction\"",
            "default_shard = \"shard3\"",
            refused("database.default_shard", "the default shard"),
        ),
        (
            "name = \"app\"                    # what",
            "pool = { size = 9 }\nname = \"app\" # what",
            String::new(),
        ),
        (
            "[[database.table]]\nname = \"countries\"",
            "[[database.table]]\nname = \"x\"",
            refused("database.table", "the placement of table public.countries"),
        ),
    ] {
        let new = text.replacen(from, to, 1);
        assert_ne!(new, text, "{from}");
        assert_eq!(reload(&text, &new).err().unwrap_or_default(), want, "{to}");
    }
    let swapped = text
        .replace("\"shard2\"", "\"x\"")
        .replace("\"shard3\"", "\"shard2\"")
        .replace("\"x\"", "\"shard3\"");
    assert!(reload(&text, &swapped).unwrap_err().contains("the list of shards"));
}

#[test]
fn a_table_that_a_reload_places_anew_is_named() {
    let new =
        format!("{SHARDED}keys = [{{ column = \"a\" }}]\n[[database.table]]\nname = \"u\"\nshard = \"s1\"\n");
    let old = SHARDED.replace("[[database.table]]\nname = \"t\"\n", "");
    let changes = reload(&old, &new).unwrap();
    assert_eq!(changes.tables_added, [("app".to_owned(), TableName::new("public", "t"))]);
    assert_eq!(changes.applied, ["database \"app\": map"]);
}

#[test]
fn a_database_that_no_user_may_use_needs_a_control_account() {
    let text = MINIMAL.replace("password =", "databases = [\"pgherd\"]\npassword =");
    assert_eq!(
        errors(&text),
        [
            "proxy.toml:6: database.control: there is no control account, and no user may connect whose account could \
          serve; add control = { user = \"…\", password = \"…\" }"
        ]
    );
    let with = text.replace("[[database.shard]]", "control = { user = \"c\" }\n[[database.shard]]");
    let control = &config(&with).databases[0].control;
    assert_eq!((control.user.as_str(), control.password.is_none()), ("c", true));
}

#[test]
fn the_containers_have_the_demos_map_and_a_service_for_every_server() {
    let shipped_config = Config::load(shipped("proxy.toml")).unwrap().config;
    let docker = Config::load(shipped("docker/proxy.toml")).unwrap().config;
    let differences = changes(&shipped_config, &docker).unwrap();
    // Behind a published port nobody is let in without credentials.
    assert_eq!(differences.applied, ["http", "database \"app\": servers"], "all else is the same");
    assert_eq!(docker.http.unwrap().user, None);
    let compose = fs::read_to_string(shipped("docker-compose.yml")).unwrap();
    let here = shipped_config.databases[0].shards.iter().flat_map(|s| &s.servers);
    let there = docker.databases[0].shards.iter().flat_map(|s| &s.servers);
    for (here, there) in here.zip(there) {
        assert_eq!((here.role, there.port), (there.role, 5432));
        let service = compose.split(&format!("\n  {}:\n", there.host)).nth(1).unwrap();
        let service = service.split("\n\n").next().unwrap();
        assert!(service.contains(&format!("ports: [\"127.0.0.1:{}:5432\"]", here.port)), "{service}");
        assert!(service.contains(&format!("<<: *{}", there.role.as_str())), "{service}");
    }
}

#[test]
fn the_http_server_takes_no_strangers_and_says_what_is_wrong() {
    let with = |lines: &str| format!("[http]\n{lines}{MINIMAL}");
    let http = config(&with("listen = \"127.0.0.1:3000\"\nuser = \"app\"\n")).http.unwrap();
    assert_eq!((http.user.as_deref(), http.database.as_str()), (Some("app"), "app"));
    assert_eq!((http.max_rows, http.max_sessions, http.bulk_per_shard), (10_000, 64, false));
    assert!(config(MINIMAL).http.is_none(), "off when absent");
    let token = "[[http.token]]\nuser = \"app\"\ntoken = \"0123456789abcdef\"\n";
    let loaded = config(&with(&format!("listen = \"0.0.0.0:3000\"\n{token}")));
    assert!(!format!("{loaded:?}").contains("0123456789abcdef"), "tokens are not printed");
    for (lines, want) in [
        (
            "user = \"app\"\n",
            "proxy.toml:1: http.listen: is missing; write listen = \"127.0.0.1:3000\", or remove [http]",
        ),
        (
            "listen = \"localhost\"\n",
            "proxy.toml:2: http.listen: \"localhost\" is not an address with a port; write \"127.0.0.1:3000\", or \
             \"0.0.0.0:3000\" for all interfaces",
        ),
        (
            "listen = \"127.0.0.1:6432\"\n",
            "proxy.toml:2: http.listen: 127.0.0.1:6432 is where the proxy itself listens (proxy.listen); choose another port",
        ),
        (
            "listen = \"0.0.0.0:3000\"\nuser = \"app\"\n",
            "proxy.toml:3: http.user: requests without credentials would be this user's, and 0.0.0.0:3000 is no \
             loopback address; remove it: clients send a user's password or a token",
        ),
        (
            "listen = \"[::1]:3000\"\nuser = \"ap\"\n",
            "proxy.toml:3: http.user: there is no user \"ap\"; did you mean \"app\"?",
        ),
        (
            "listen = \"[::1]:3000\"\ndatabase = \"other\"\n",
            "proxy.toml:3: http.database: there is no database \"other\"; there are \"app\"",
        ),
        (
            "listen = \"[::1]:3000\"\n[[http.token]]\nuser = \"app\"\ntoken = \"short\"\n",
            "proxy.toml:5: http.token.token: must be 16 or more visible ASCII characters; make one with: openssl rand \
             -hex 32",
        ),
        (
            "listen = \"[::1]:3000\"\n[[http.token]]\nuser = \"app\"\n",
            "proxy.toml:3: http.token.token: is missing; add one of token, token_env, token_file",
        ),
    ] {
        assert_eq!(errors(&with(lines)), [want], "{lines}");
    }
}

#[test]
fn a_reload_changes_the_http_server_but_not_where_it_listens() {
    let with = |lines: &str| config(&format!("[http]\nlisten = {lines}\n{MINIMAL}"));
    let old = with("\"127.0.0.1:3000\"");
    let moved = changes(&old, &with("\"0.0.0.0:3001\"\nmax_rows = 5")).unwrap();
    assert_eq!(moved.applied, ["http"]);
    assert_eq!(moved.restart, ["http.listen: 127.0.0.1:3000 stays, 0.0.0.0:3001 needs a restart"]);
    let http = moved.config.http.unwrap();
    assert_eq!((http.listen.to_string().as_str(), http.max_rows), ("127.0.0.1:3000", 5));
    assert_eq!(changes(&old, &config(MINIMAL)).unwrap().restart, ["http: on stays, off needs a restart"]);
    // What is right on a loopback address is not taken over where the server listens for all.
    let open = with("\"0.0.0.0:3000\"");
    let now = changes(&open, &with("\"127.0.0.1:3000\"\nuser = \"app\"")).unwrap().config.http.unwrap();
    assert_eq!(now.user, None);
}
