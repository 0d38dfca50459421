//! Tables of whole routes: text in, route out, first worked out anew and then from the caches.
//! Must not know how any of it is found out.

use proptest::prelude::*;

use super::fixture::{one_shard, route, three_shards};
use super::{Env, Kind, Param, Router};
use crate::catalog::oid;

// Slots by PostgreSQL 15, `hashtextextended(key, 0) & 16383`: a 12465 (D, shard 2), b 8096 (B, shard 1),
// c 4410 (A, shard 1), user_123 8400 (C, shard 3), user_2 15505 (E, shard 3), user_5 10412 (C, shard 3).

fn routed(sql: &str) -> String {
    route(&three_shards(), sql, &[], &Env::default())
}

#[test]
fn keyed_statements_go_to_the_shard_of_their_key() {
    for (sql, want) in [
        ("SELECT * FROM users WHERE user_id = 'a'", "shard 2, replica"),
        ("select * from public.users u where u.user_id = E'\\x61'", "shard 2, replica"),
        ("SELECT * FROM \"users\" WHERE \"user_id\" = U&'\\0061'", "shard 2, replica"),
        ("SELECT * FROM users WHERE user_id = $$a$$ /* = 'b' */", "shard 2, replica"),
        ("SELECT * FROM users WHERE 'user_123' = user_id", "shard 3, replica"),
        ("SELECT * FROM ONLY users WHERE user_id = 'a'", "shard 2, replica"),
        ("SELECT * FROM users WHERE user_id IN ('b', 'c')", "shard 1, replica"),
        ("SELECT * FROM users WHERE partition_key = 'D'", "shard 2, replica"),
        ("SELECT * FROM users WHERE user_id = 'a' FOR NO KEY UPDATE", "shard 2, primary"),
        ("SELECT * FROM orders JOIN users USING (user_id) WHERE user_id = 'user_2'", "shard 3, replica"),
        ("UPDATE users SET name = 'x' WHERE user_id = 'a'", "shard 2, primary, write"),
        ("DELETE FROM ONLY orders WHERE user_id = 'b'", "shard 1, primary, write"),
        ("INSERT INTO orders (user_id, order_id, amount) VALUES ('a', 'o1', 5)", "shard 2, primary, write"),
        ("SELECT * FROM countries", "any shard, replica"),
        ("SELECT 1", "any shard, replica"),
        ("SELECT * FROM audit_log", "shard 3, replica"),
        ("SELECT * FROM notes", "shard 1, replica"),
        ("SELECT relname FROM pg_catalog.pg_class", "shard 1, replica"),
        ("SELECT user_id, name FROM users", "shards 1+2+3, replica, concatenate"),
    ] {
        assert_eq!(routed(sql), want, "{sql}");
    }
}

#[test]
fn what_several_shards_cannot_answer_exactly_is_refused() {
    for sql in [
        "SELECT * FROM users ORDER BY user_id",
        "SELECT count(*) FROM users",
        "SELECT * FROM users LIMIT 5",
        "SELECT * FROM users WHERE user_id = 'a' UNION ALL SELECT * FROM users WHERE user_id = 'b'",
        "UPDATE users SET name = 'x'",
        "INSERT INTO orders (user_id, order_id, amount) VALUES ('a', 'o', 1), ('b', 'o', 1)",
        "INSERT INTO countries VALUES ('it', 'Italy')",
        "TABLE users",
        "EXPLAIN SELECT * FROM users",
        "DECLARE c CURSOR FOR SELECT * FROM users",
        "COPY (SELECT * FROM users) TO STDOUT",
    ] {
        let found = routed(sql);
        assert!(found.starts_with("refused: "), "{sql}: {found}");
    }
}

#[test]
fn statements_round_a_query_go_where_it_goes() {
    for (sql, want) in [
        ("EXPLAIN SELECT * FROM users WHERE user_id = 'a'", "shard 2, replica"),
        ("EXPLAIN (VERBOSE, COSTS off) UPDATE users SET name = 'x' WHERE user_id = 'a'", "shard 2, replica"),
        ("EXPLAIN ANALYZE UPDATE users SET name = 'x' WHERE user_id = 'a'", "shard 2, primary, write"),
        ("EXPLAIN (ANALYZE false) DELETE FROM users WHERE user_id = 'a'", "shard 2, replica"),
        ("EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM users WHERE user_id = 'a'", "shard 2, replica"),
        ("EXPLAIN (SELECT * FROM users WHERE user_id = 'b')", "shard 1, replica"),
        ("DECLARE c NO SCROLL CURSOR FOR SELECT * FROM users WHERE user_id = 'a'", "shard 2, replica"),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM users WHERE user_id = 'a'",
            "shard 2, primary, pin cursor with hold",
        ),
        ("COPY (SELECT * FROM users WHERE user_id = 'a') TO STDOUT (FORMAT csv)", "shard 2, replica"),
        ("COPY (DELETE FROM users WHERE user_id = 'a' RETURNING id) TO STDOUT", "shard 2, primary, write"),
        ("/* pgherd: shard=shard1 */ EXPLAIN SELECT * FROM users", "shard 1, replica"),
    ] {
        assert_eq!(routed(sql), want, "{sql}");
    }
}

#[test]
fn a_forced_shard_takes_what_would_be_refused_and_keeps_its_access() {
    for (sql, want) in [
        ("/* pgherd: shard=shard2 */ SELECT count(*) FROM users", "shard 2, replica"),
        ("/* pgherd: shard=shard2 */ UPDATE users SET name = 'x'", "shard 2, primary, write"),
        ("/* pgherd: key=user_123 */ SELECT * FROM users ORDER BY 1", "shard 3, replica"),
        ("/* pgherd: role=primary */ SELECT * FROM users WHERE user_id = 'a'", "shard 2, primary"),
        ("/* pgherd: role=primary */ SELECT name FROM users", "shards 1+2+3, primary, concatenate"),
        (
            "/* pgherd: role=replica */ DELETE FROM users WHERE user_id = 'a'",
            "25006: a replica is asked for by a statement that may write",
        ),
    ] {
        assert_eq!(routed(sql), want, "{sql}");
    }
}

#[test]
fn a_left_out_partition_key_is_filled_in_and_a_wrong_one_refused() {
    let values = |rest: &str| format!("INSERT INTO users (user_id, name, email{rest}");
    let filled = routed(&values(") VALUES ('a', 'n', 'e')"));
    assert!(filled.starts_with("shard 2, primary, write, rewrite INSERT INTO users ("), "{filled}");
    assert!(filled.contains("'D'") && filled.contains("partition_key"), "{filled}");
    let wrong = routed(&values(", partition_key) VALUES ('a', 'n', 'e', 'A')"));
    assert!(wrong.starts_with("23514: "), "{wrong}");
    let explained = routed(&format!("EXPLAIN {}", values(") VALUES ('a', 'n', 'e')")));
    assert!(explained.contains("rewrite EXPLAIN INSERT INTO users ("), "{explained}");
}

#[test]
fn parameters_are_read_in_text_and_binary() {
    let router = three_shards();
    let sql = "SELECT * FROM users WHERE user_id = $1";
    for (value, binary, type_oid, want) in [
        (Some(&b"a"[..]), false, 0, "shard 2, replica"),
        (Some(b"a"), true, oid::TEXT, "shard 2, replica"),
        (Some(b"user_123"), false, oid::VARCHAR, "shard 3, replica"),
    ] {
        let params = [Param { value, binary, type_oid }];
        assert_eq!(route(&router, sql, &params, &Env::default()), want, "{value:?} {binary}");
    }
}

#[test]
fn one_shard_reads_from_replicas_and_refuses_nothing() {
    for (sql, want) in [
        ("SELECT count(*) FROM users ORDER BY 1", "shard 1, replica"),
        ("SELECT * FROM users FOR UPDATE", "shard 1, primary"),
        ("INSERT INTO users VALUES (1)", "shard 1, primary, write"),
        ("WITH x AS (DELETE FROM users RETURNING id) SELECT * FROM x", "shard 1, primary, write"),
    ] {
        assert_eq!(route(&one_shard(), sql, &[], &Env::default()), want, "{sql}");
    }
}

#[test]
fn virtual_tables_are_told_from_real_ones() {
    let router = three_shards();
    let kind = |sql: &str| router.prepare(sql.as_bytes(), &Env::default()).unwrap()[0].kind().clone();
    assert!(matches!(
        kind("SELECT shard, p99_us FROM pgherd.latency ORDER BY p99_us DESC LIMIT 3"),
        Kind::Virtual(_)
    ));
    assert_eq!(kind("SELECT * FROM latency"), Kind::Query);
}

#[test]
fn a_literal_without_a_value_does_not_spoil_the_form_for_others() {
    let router = three_shards();
    let foreign = Env { foreign_encoding: true, ..Env::default() };
    assert!(router.prepare(b"SELECT * FROM users WHERE user_id = '\xff'", &foreign).is_ok());
    assert!(router.prepare(b"SELECT * FROM users WHERE user_id = '\xff'", &Env::default()).is_err());
    assert_eq!(
        route(&router, "SELECT * FROM users WHERE user_id = 'a'", &[], &Env::default()),
        "shard 2, replica"
    );
}

/// Statements with holes for a string and a number, of every shape whose plan might look at a literal's value.
const TEMPLATES: &[&str] = &[
    "SELECT * FROM users WHERE user_id = '{s}'",
    "SELECT * FROM users WHERE user_id IN ('{s}', 'a') AND id > {n}",
    "SELECT * FROM users WHERE user_id = '{s}'::varchar({n})",
    "SELECT * FROM users WHERE user_id = '{s}' LIMIT {n}",
    "SELECT user_id FROM users LIMIT {n}",
    "SELECT user_id, count(*) FROM users GROUP BY {n}",
    "SELECT user_id, id FROM users WHERE user_id = '{s}' GROUP BY {n}, 2 ORDER BY {n}",
    "SELECT partition_key, max(user_id) FROM users GROUP BY {n}",
    "SELECT * FROM users WHERE user_id = 'a' AND created_at > '{s}'",
    "SELECT * FROM users WHERE created_at > timestamp '{s}'",
    "SELECT '{s}' FROM users",
    "SELECT * FROM users WHERE user_id = 'a' OR {n} = 1",
    "SELECT * FROM users WHERE partition_key = '{s}'",
    "SELECT nextval('{s}')",
    "SELECT set_config('{s}', 'x', false)",
    "SELECT * FROM users TABLESAMPLE system ({n}) WHERE user_id = '{s}'",
    "SELECT * FROM generate_series(1, {n})",
    "SELECT u.* FROM users u JOIN orders o ON o.user_id = u.user_id AND o.user_id = '{s}'",
    "UPDATE users SET name = '{s}' WHERE user_id = 'a'",
    "UPDATE users SET user_id = '{s}' WHERE user_id = 'a'",
    "UPDATE users SET partition_key = '{s}' WHERE user_id = 'a'",
    "INSERT INTO users (user_id, name, email) VALUES ('{s}', 'n', '{n}')",
    "INSERT INTO users (user_id, name, email, partition_key) VALUES ('a', 'n', 'e', '{s}')",
    "INSERT INTO orders (user_id, order_id, amount) VALUES ('{s}', 'o', {n}), ('a', 'p', {n})",
    "INSERT INTO notes VALUES ({n}, '{s}')",
    "EXPLAIN (ANALYZE {n}) DELETE FROM users WHERE user_id = '{s}'",
    "DELETE FROM orders WHERE user_id = '{s}' AND amount = {n}",
    "SELECT frob(variadic '{s}') @ (",
    "SELECT * FROM users WHERE user_id = E'{s}'",
    "SELECT * FROM users WHERE user_id = ANY('{{s},a}')",
    "SELECT * FROM users WHERE user_id = '{s}' AND interval '{s}' > interval '{n} days'",
];

const STRINGS: &[&str] =
    &["a", "b", "user_2", "A", "D", "", "now", "users", "users_id_seq", "search_path", "it''s", "2020-01-01"];
const NUMBERS: &[&str] = &["0", "1", "2", "5", "9999999999"];

fn fill(template: &str, string: &str, number: &str) -> String {
    template.replace("{s}", string).replace("{n}", number)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The heart of the cache: a plan found by its form must route as one made for the text.
    #[test]
    fn a_cached_plan_routes_as_a_fresh_one(
        order in prop::collection::vec((0..TEMPLATES.len(), 0..STRINGS.len(), 0..NUMBERS.len()), 1..12),
    ) {
        thread_local! {
            static ROUTERS: (Router, Router) = (three_shards(), one_shard());
        }
        ROUTERS.with(|(several, one)| {
            for (template, string, number) in order {
                let sql = fill(TEMPLATES[template], STRINGS[string], NUMBERS[number]);
                let env = Env::default();
                prop_assert_eq!(route(several, &sql, &[], &env), route(&three_shards(), &sql, &[], &env), "{}", &sql);
                prop_assert_eq!(route(one, &sql, &[], &env), route(&one_shard(), &sql, &[], &env), "{}", &sql);
            }
            Ok(())
        })?;
    }
}

/// The overflow would end the process, so this fails by killing the test run. Stack and texts: CRATES, 4.4.
#[test]
fn deep_statements_are_analysed_or_refused_on_a_stack_of_64_mib() {
    let texts = [
        format!("select user_id from users{}", " union all select user_id from users".repeat(20_000)),
        format!("select 1{} from users", "+1".repeat(100_000)),
        format!("select * from users where user_id = 'a'{}", " or user_id = 'a'".repeat(60_000)),
        format!("select * from users where user_id = 'a'{}", " and user_id = 'a'".repeat(55_000)),
        format!("select * from users where {}user_id = 'a'{}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("select * from users where {} user_id = 'a'", "not ".repeat(100_000)),
        format!("select a::int{} from users", "[]".repeat(32_700)),
        format!("select a{} from users", "::int".repeat(100_000)),
        format!("select user_id{} from users", "||'a'".repeat(100_000)),
        format!("select * from users{}", ", users".repeat(50_000)),
        format!("select * from users{}", " join users using (user_id)".repeat(5_000)),
        format!("select * from {}users{}", "(select * from ".repeat(30_000), ") x".repeat(30_000)),
    ];
    let run = move || {
        let router = three_shards();
        texts.iter().map(|sql| route(&router, sql, &[], &Env::default())).collect::<Vec<_>>()
    };
    let found = std::thread::Builder::new().stack_size(64 << 20).spawn(run).unwrap().join().unwrap();
    assert!(found.iter().all(|f| f.starts_with("refused: ") || f.starts_with("shard")), "{found:?}");
}
