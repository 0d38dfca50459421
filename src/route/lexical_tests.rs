//! Tables of what is told by words alone: kinds, utility statements on one and on several shards, hints.
//! Must not know how any of it is found out.

use super::fixture::{one_shard, route, three_shards};
use super::{Env, Kind, RouteError, TransactionModes};

fn kind_in(sql: &str, env: &Env) -> Kind {
    let router = three_shards();
    let statements = router.prepare(sql.as_bytes(), env).unwrap();
    assert_eq!(statements.len(), 1, "{sql}");
    statements[0].kind().clone()
}

fn kind(sql: &str) -> Kind {
    kind_in(sql, &Env::default())
}

#[test]
fn statements_that_are_the_sessions_own_are_told_in_every_spelling() {
    let modes = |isolation, read_only, deferrable| TransactionModes { isolation, read_only, deferrable };
    for (sql, want) in [
        ("", Kind::Empty),
        (" ; -- nothing\n;", Kind::Empty),
        ("BEGIN", Kind::Begin(modes(None, None, None))),
        ("begin /* x */ work", Kind::Begin(modes(None, None, None))),
        ("Start Transaction READ ONLY", Kind::Begin(modes(None, Some(true), None))),
        (
            "BEGIN ISOLATION LEVEL repeatable read, READ WRITE NOT DEFERRABLE",
            Kind::Begin(modes(Some("REPEATABLE READ"), Some(false), Some(false))),
        ),
        ("COMMIT", Kind::Commit { chain: false }),
        ("END TRANSACTION AND CHAIN", Kind::Commit { chain: true }),
        ("COMMIT AND NO CHAIN", Kind::Commit { chain: false }),
        ("ROLLBACK", Kind::Rollback { chain: false }),
        ("ABORT WORK AND CHAIN", Kind::Rollback { chain: true }),
        ("ROLLBACK TO SAVEPOINT \"A b\"", Kind::RollbackTo("A b".into())),
        ("rollback transaction to S1", Kind::RollbackTo("s1".into())),
        ("SAVEPOINT S1", Kind::Savepoint("s1".into())),
        ("RELEASE SAVEPOINT s", Kind::Release("s".into())),
        ("RELEASE savepoint", Kind::Release("savepoint".into())),
        (
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            Kind::SetTransaction(modes(Some("SERIALIZABLE"), None, None)),
        ),
        ("SET CONSTRAINTS ALL DEFERRED", Kind::Query),
        ("RESET ALL", Kind::Reset(None)),
        ("SHOW server_version", Kind::Show("server_version".into())),
        ("PREPARE p (int) AS SELECT $1", Kind::SqlPrepare),
        ("EXECUTE p(1)", Kind::SqlPrepare),
        ("DEALLOCATE PREPARE p", Kind::Deallocate(Some("p".into()))),
        ("DEALLOCATE prepare", Kind::Deallocate(Some("prepare".into()))),
        ("DEALLOCATE ALL", Kind::Deallocate(None)),
        ("DISCARD ALL", Kind::Discard("ALL".into())),
        ("DISCARD TEMPORARY", Kind::Discard("TEMP".into())),
        ("PREPARE TRANSACTION 'x'", Kind::TwoPhase),
        ("COMMIT PREPARED 'x'", Kind::TwoPhase),
        ("ROLLBACK PREPARED 'x'", Kind::TwoPhase),
        ("LISTEN c", Kind::Listen("c".into())),
        ("COPY users FROM STDIN", Kind::CopyIn),
        ("COPY public.users (a, b) FROM stdin WITH (FORMAT csv)", Kind::CopyIn),
        ("COPY users TO STDOUT", Kind::Query),
        ("COPY users FROM '/tmp/x'", Kind::Query),
        ("CREATE TABLE t (a int)", Kind::Ddl),
        ("create index concurrently on notes (id)", Kind::Ddl),
        ("CREATE TEMP TABLE t (a int)", Kind::Query),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END", Kind::Ddl),
        ("GRANT SELECT ON notes TO bob", Kind::Ddl),
        ("TRUNCATE notes", Kind::Query),
        ("VACUUM notes", Kind::Query),
        ("SELECT * INTO kept FROM notes", Kind::Ddl),
        ("WITH x AS (SELECT 1) SELECT * INTO TEMP gone FROM x", Kind::Query),
        ("WITH x AS (SELECT 1) INSERT INTO notes SELECT * FROM x", Kind::Query),
        ("DO $$ begin create table x(); end $$", Kind::Ddl),
        ("DO 'begin null; end'", Kind::Query),
        ("RELOAD", Kind::Command(vec!["RELOAD".into()])),
        ("kill 5", Kind::Command(vec!["KILL".into(), "5".into()])),
        (
            "Drain server '127.0.0.1:5433'",
            Kind::Command(vec!["DRAIN".into(), "SERVER".into(), "127.0.0.1:5433".into()]),
        ),
        ("SELECT 1", Kind::Query),
        ("(SELECT 1)", Kind::Query),
        ("EXPLAIN SELECT 1", Kind::Query),
        ("nonsense", Kind::Query),
    ] {
        assert_eq!(kind(sql), want, "{sql}");
    }
}

#[test]
fn malformed_control_statements_fail_as_on_a_server_and_are_not_passed_on() {
    for (sql, want) in [
        ("BEGIN foo", "42601: syntax error at or near \"foo\""),
        ("BEGIN READ ONLY,", "42601: syntax error at end of input"),
        ("START", "42601: syntax error at end of input"),
        ("COMMIT AND", "42601: syntax error at end of input"),
        ("ABORT TO x", "42601: syntax error at or near \"TO\""),
        ("SAVEPOINT 'x'", "42601: syntax error at or near \"'x'\""),
        ("SET search_path", "42601: syntax error at end of input"),
        ("DISCARD", "42601: syntax error at end of input"),
        ("SET TRANSACTION", "42601: syntax error at end of input"),
        ("SELECT 'a", "42601: unterminated quoted string"),
    ] {
        assert_eq!(route(&three_shards(), sql, &[], &Env::default()), want, "{sql}");
    }
}

#[test]
fn text_that_is_not_utf8_is_called_so_before_it_is_called_unterminated() {
    let said = |text: &[u8]| three_shards().prepare(text, &Env::default()).unwrap_err().to_string();
    for (text, shown) in [
        (&b"select 'u\xf3ers"[..], "0xf3 0x65 0x72 0x73"),
        (b"select '\xff", "0xff"),
        (b"select '\xc3", "0xc3"),
        (b"select '\xe2\x82' || '", "0xe2 0x82 0x27"),
        (b"select '\xed\xa0\x80x", "0xed 0xa0 0x80"),
        (b"select '\xf8\x81\x81", "0xf8"),
    ] {
        assert_eq!(said(text), format!("invalid byte sequence for encoding \"UTF8\": {shown}"));
    }
    assert_eq!(said("select 'é".as_bytes()), "unterminated quoted string");
}

#[test]
fn on_several_shards_words_decide_where_utility_statements_go() {
    let spread = |what: &str, table: &str| {
        format!("refused: {what} that names table \"{table}\", which is not on one shard")
    };
    let alone = |what: &str| format!("refused: {what} cannot run on one of several shards alone");
    for (sql, want) in [
        ("SHOW work_mem", "any shard, primary".to_owned()),
        ("FETCH 5 FROM c", "any shard, primary".into()),
        ("CLOSE ALL", "any shard, primary, pin what may end a pin".into()),
        ("SET CONSTRAINTS ALL DEFERRED", "any shard, primary".into()),
        ("LISTEN c", "shard 1, primary".into()),
        ("UNLISTEN *", "shard 1, primary".into()),
        ("NOTIFY c, 'users'", "any shard, primary, write".into()),
        ("PREPARE p AS SELECT * FROM notes", "shard 1, primary, write, pin sql prepare".into()),
        ("PREPARE p AS SELECT * FROM users", spread("PREPARE", "users")),
        (
            "PREPARE p AS SELECT * FROM audit_log",
            "refused: PREPARE that names a table of shard \"shard3\"".into(),
        ),
        ("EXECUTE p", "shard 1, primary, write".into()),
        ("PREPARE TRANSACTION 'x'", "any shard, primary, write".into()),
        ("COMMIT PREPARED 'x'", alone("COMMIT PREPARED")),
        ("SET TRANSACTION SNAPSHOT 'x'", alone("SET TRANSACTION SNAPSHOT")),
        ("CREATE TABLE fresh (a int)", "shard 1, primary, write".into()),
        ("CREATE TABLE fresh (LIKE audit_log)", "shard 3, primary, write".into()),
        ("CREATE TABLE fresh (u text REFERENCES \"users\")", spread("CREATE TABLE", "users")),
        ("CREATE TABLE IF NOT EXISTS Users (a int)", spread("CREATE TABLE", "users")),
        ("CREATE TABLE u& (a int)", "shard 1, primary, write".into()),
        ("CREATE TABLE U&\"\\0075sers\" (a int)", spread("CREATE TABLE", "users")),
        (
            "CREATE TABLE U&\"!0075sers\" UESCAPE '!' (a int)",
            "refused: CREATE TABLE with a name with UESCAPE".into(),
        ),
        ("CREATE UNIQUE INDEX ON audit_log (id)", "shard 3, primary, write".into()),
        ("CREATE INDEX ON users (id)", spread("CREATE INDEX", "users")),
        ("ALTER TABLE notes RENAME TO orders", spread("ALTER TABLE", "orders")),
        ("ALTER TABLE ONLY notes ADD x int DEFAULT 5", "shard 1, primary, write".into()),
        ("ALTER TABLE ALL IN TABLESPACE a SET TABLESPACE b", alone("ALTER TABLE ALL")),
        ("DROP TABLE notes, audit_log", "refused: DROP TABLE that names tables of several shards".into()),
        ("DROP TABLE audit_log", "shard 3, primary, write".into()),
        ("COMMENT ON COLUMN notes.body IS 'of users'", "shard 1, primary, write".into()),
        ("COMMENT ON SCHEMA public IS 'x'", alone("COMMENT SCHEMA")),
        ("TRUNCATE countries", spread("TRUNCATE", "countries")),
        ("VACUUM (ANALYZE, VERBOSE) audit_log", "shard 3, primary, write".into()),
        ("VACUUM FULL", alone("VACUUM without a table")),
        ("ANALYZE active_users", spread("ANALYZE", "active_users")),
        ("CREATE VIEW v AS SELECT 1", alone("CREATE VIEW")),
        ("CREATE OR REPLACE FUNCTION f() RETURNS int AS 'x' LANGUAGE sql", alone("CREATE FUNCTION")),
        ("CREATE EXTENSION pg_trgm", alone("CREATE EXTENSION")),
        ("CREATE ROLE bob", alone("CREATE ROLE")),
        ("GRANT SELECT ON notes TO bob", alone("GRANT SELECT")),
        ("DROP INDEX i", alone("DROP INDEX")),
        ("REINDEX TABLE notes", alone("REINDEX TABLE")),
        ("CREATE TEMP TABLE t (a int)", "shard 1, primary, write, pin temporary table".into()),
        ("CREATE TEMP TABLE users (a int)", spread("CREATE TEMPORARY", "users")),
        (
            "CREATE TEMP TABLE audit_log (a int)",
            "refused: CREATE TEMPORARY that names a table of shard \"shard3\"".into(),
        ),
        ("CREATE TEMPORARY VIEW v AS TABLE orders", spread("CREATE TEMPORARY", "orders")),
        ("DO $$ begin delete from USERS; end $$", spread("DO", "users")),
        ("DO 'begin delete from users; end'", spread("DO", "users")),
        ("DO $x$ begin perform touch(); end $x$", spread("DO", "users")),
        (
            "DO $$ begin execute 'delete from us' || 'ers'; end $$",
            "refused: DO with code that makes SQL while it runs (EXECUTE)".into(),
        ),
        (
            "DO $$ begin insert into audit_log values (1); end $$",
            "shard 3, primary, write, pin code that may keep state".into(),
        ),
        ("CALL harmless(1)", "shard 1, primary, write, pin code that may keep state".into()),
        ("CALL touch()", spread("CALL", "users")),
        ("CALL dynamic()", "refused: CALL with code that makes SQL while it runs (EXECUTE)".into()),
        ("LOCK TABLE audit_log", "shard 3, primary, write".into()),
        ("LOCK users", spread("LOCK", "users")),
        ("CHECKPOINT", alone("CHECKPOINT")),
        ("LOAD 'x'", alone("LOAD")),
        ("COPY audit_log FROM STDIN", "shard 3, primary, write".into()),
        ("COPY notes TO STDOUT (FORMAT csv)", "shard 1, replica".into()),
        ("COPY countries TO STDOUT", "any shard, replica".into()),
        (
            "COPY countries FROM STDIN",
            "refused: COPY FROM of table \"countries\", which is not on one shard".into(),
        ),
        (
            "COPY public.users (id) FROM STDIN",
            "refused: COPY FROM of table \"public.users\", which is not on one shard".into(),
        ),
        ("COPY other.users TO STDOUT", "shard 1, replica".into()),
        ("COPY notes TO '/tmp/x'", alone("COPY with a file or program of the server")),
        ("EXPLAIN (ANALYZE) EXECUTE p", "shard 1, primary, write".into()),
        ("table audit_log", "shard 3, primary, write".into()),
        ("frobnicate notes", "shard 1, primary, write".into()),
    ] {
        assert_eq!(route(&three_shards(), sql, &[], &Env::default()), want, "{sql}");
    }
}

#[test]
fn what_does_not_parse_is_refused_with_the_reason_if_it_may_touch_several_shards() {
    for sql in [
        "table users",
        "select (u).* from users u where frob(variadic a) @",
        "select query_to_xml('select * from users', true, true, '') (",
        "select touch() (",
        "update users set a[1] = 5 where user_id = 'x' )",
    ] {
        let found = route(&three_shards(), sql, &[], &Env::default());
        assert!(found.contains("does not understand that names table \"users\""), "{sql}: {found}");
        assert!(found.len() > 110, "the parser's message is missing: {found}");
    }
}

#[test]
fn one_shard_takes_everything_and_pins_are_still_seen() {
    for (sql, want) in [
        ("CREATE ROLE bob", "shard 1, primary, write"),
        ("CREATE TEMP TABLE users (a int)", "shard 1, primary, write, pin temporary table"),
        ("CREATE TABLE pg_temp.users (a int)", "shard 1, primary, write, pin temporary table"),
        ("DO $$ begin execute 'x'; end $$", "shard 1, primary, write, pin code that may keep state"),
        ("LISTEN c", "shard 1, primary"),
        ("COPY users FROM STDIN", "shard 1, primary, write"),
        ("COPY users TO '/tmp/x'", "shard 1, primary, write"),
        ("COPY users TO STDOUT", "shard 1, replica"),
        ("VACUUM", "shard 1, primary, write"),
        ("table users", "shard 1, primary, write"),
        ("select frob(variadic a) @ (", "shard 1, primary, write, pin code that may keep state"),
        ("select 'a", "shard 1, primary, write"),
        ("nonsense", "shard 1, primary, write"),
        ("COMMIT PREPARED 'x'", "shard 1, primary, write"),
    ] {
        assert_eq!(route(&one_shard(), sql, &[], &Env::default()), want, "{sql}");
    }
}

#[test]
fn hints_force_a_shard_or_a_role_whatever_the_statement_is() {
    for (sql, want) in [
        ("/* pgherd: shard=shard2 */ CREATE ROLE bob", "shard 2, primary, write"),
        ("CREATE /*pgherd:shard=shard2*/ ROLE bob", "shard 2, primary, write"),
        ("/* pgherd: shard='shard2' */ table users", "shard 2, primary, write"),
        ("/* pgherd: shard=shard2 */ COPY users FROM STDIN", "shard 2, primary, write"),
        ("/* pgherd: shard=shard3, role=replica */ COPY users TO STDOUT", "shard 3, replica"),
        ("/* pgherd: key=user_123 */ COPY users TO STDOUT", "shard 3, replica"),
        ("/* pgherd: role=primary */ COPY notes TO STDOUT", "shard 1, primary"),
        (
            "/* pgherd: role=replica */ COPY notes FROM STDIN",
            "25006: a replica is asked for by a statement that may write",
        ),
        (
            "/* pgherd: role=replica */ CREATE TEMP TABLE x (a int)",
            "25006: a replica is asked for by a statement that may write",
        ),
        ("/* pgherd: shard=nowhere */ COPY notes TO STDOUT", "22023: there is no shard \"nowhere\""),
        ("/* pgherd: role=master */ COPY notes TO STDOUT", "22023: there is no role \"master\""),
        ("/* pgherd: shrad=shard1 */ COPY notes TO STDOUT", "22023: there is no hint \"shrad\""),
        ("/* pgherd: shard */ COPY notes TO STDOUT", "22023: hint \"shard\" is not understood"),
        ("/* pgherd: key='a */ COPY notes TO STDOUT", "22023: hint \"key\" has an unterminated value"),
        (
            "/* pgherd: shard=shard1 shard=shard1 */ COPY notes TO STDOUT",
            "22023: hint \"shard\" is given twice",
        ),
        (
            "/* pgherd: shard=shard1 key=user_123 */ table users",
            "22023: shard \"shard1\" is asked for with a key that lives on shard \"shard3\"",
        ),
        ("/* pgherd: shard=nowhere */ BEGIN", "any shard, primary"),
        ("COPY notes TO STDOUT /* pgherd: shard=shard2 */", "shard 1, replica"),
    ] {
        assert_eq!(route(&three_shards(), sql, &[], &Env::default()), want, "{sql}");
    }
}

#[test]
fn a_comment_wins_over_the_session_and_an_empty_setting_forces_nothing() {
    let set = |value: &str| Some(value.to_owned());
    let env = |shard: &str, key: &str, role: &str| Env {
        shard: set(shard),
        key: set(key),
        role: set(role),
        ..Env::default()
    };
    for (sql, env, want) in [
        ("COPY notes TO STDOUT", env("shard2", "", ""), "shard 2, replica"),
        ("COPY notes TO STDOUT", env("", "user_123", "primary"), "shard 3, primary"),
        ("COPY notes TO STDOUT", env("", "", ""), "shard 1, replica"),
        (
            "/* pgherd: shard=shard3 */ COPY notes TO STDOUT",
            env("shard2", "user_123", ""),
            "shard 3, replica",
        ),
        ("/* pgherd: role=replica */ COPY notes TO STDOUT", env("shard2", "", "primary"), "shard 2, replica"),
        ("COPY notes TO STDOUT", env("gone", "", ""), "22023: there is no shard \"gone\""),
        ("SET pgherd.shard = 'shard1'", env("gone", "", "replica"), "any shard, primary"),
    ] {
        assert_eq!(route(&three_shards(), sql, &[], &env), want, "{sql} {env:?}");
    }
    let keyless = route(&one_shard(), "COPY notes TO STDOUT", &[], &env("", "x", ""));
    assert_eq!(keyless, "22023: a key is given, but no table is sharded");
}

#[test]
fn the_pgherd_database_answers_for_itself_only() {
    let env = Env { admin_database: true, ..Env::default() };
    assert!(matches!(kind_in("SELECT * FROM latency WHERE p99_us > 5", &env), Kind::Virtual(_)));
    assert!(matches!(kind("SELECT * FROM pgherd.latency"), Kind::Virtual(_)));
    assert_eq!(kind_in("SHOW POOLS", &env), Kind::Show("pools".into()));
    for sql in ["COPY notes TO STDOUT", "INSERT INTO latency VALUES (1)", "select (", "CREATE ROLE x"] {
        let found = route(&three_shards(), sql, &[], &env);
        assert!(
            found.starts_with("refused: the \"pgherd\" database") || found.contains("virtual"),
            "{sql}: {found}"
        );
    }
}

#[test]
fn several_statements_of_one_text_are_told_apart_and_each_found_again() {
    let router = three_shards();
    let text = b"BEGIN; COPY audit_log TO STDOUT; ; COMMIT";
    for _ in 0..3 {
        let found = router.prepare(text, &Env::default()).unwrap();
        let spans: Vec<_> = found.iter().map(|s| &text[s.span.clone()]).collect();
        assert_eq!(spans, [&b"BEGIN"[..], b"COPY audit_log TO STDOUT", b"COMMIT"]);
        let route = found[1].route(&router, text, &[], &Env::default()).unwrap();
        assert_eq!(route.to_string(), "shard 3, replica");
    }
}

#[test]
fn names_beyond_ascii_are_not_judged_while_encodings_differ() {
    let env = Env { foreign_encoding: true, ..Env::default() };
    let router = three_shards();
    assert_eq!(route(&router, "frob é", &[], &env), "shard 1, primary, write");
    let found = route(&router, "select 'é\\'", &[], &env);
    assert!(found.starts_with("refused: text with backslashes"), "{found}");
    assert_eq!(route(&one_shard(), "select 'é\\'", &[], &env), "shard 1, primary, write");
}

#[test]
fn statements_over_a_megabyte_are_split_but_not_parsed() {
    let router = three_shards();
    let long = "x".repeat(1 << 20);
    let found =
        route(&router, &format!("select '{long}' from users where user_id = 'a'"), &[], &Env::default());
    assert!(found.contains("it is longer than 1048576 bytes"), "{found}");
    let text = format!("select '{long}' from notes; select 1");
    let statements = router.prepare(text.as_bytes(), &Env::default()).unwrap();
    assert_eq!(statements.len(), 2);
    let routed = statements[0].route(&router, text.as_bytes(), &[], &Env::default());
    assert_eq!(routed.map(|r| r.to_string()), Ok::<_, RouteError>("shard 1, primary, write".to_owned()));
}
