//! Where tables are that no key decides, what functions do to a route, and databases of one shard.

use super::fixture::{check, one_shard, routes_in};
use super::{refusals, routes};
use crate::route::Env;

#[test]
fn tables_without_keys_are_where_the_map_says() {
    routes(&[
        ("select 1", "any shard, replica"),
        ("values (1), (2)", "any shard, replica"),
        ("select * from countries", "any shard, replica"),
        ("select count(*) from countries a join countries b using (code)", "any shard, replica"),
        ("select * from audit_log", "shard 2, replica"),
        ("select count(*) from audit_log join countries on true", "shard 2, replica"),
        ("select count(*) from notes", "shard 1, replica"),
        ("select count(*) from audit_log join users using (user_id) where user_id = 'a'", "shard 2, replica"),
        ("select * from pg_class", "shard 1, replica"),
        (
            "select * from pg_catalog.pg_class c join pg_namespace n on n.oid = c.relnamespace",
            "shard 1, replica",
        ),
        ("select * from information_schema.tables", "shard 1, replica"),
        ("select * from pg_class, users where user_id = 'u1'", "shard 1, replica"),
        ("select * from rich_countries", "any shard, replica"),
        ("select * from audit_view", "shard 2, replica"),
        ("select * from frozen_countries", "shard 1, replica"),
        ("select * from no_such_table", "shard 1, primary"),
        ("select * from no_such_schema.users", "shard 1, primary"),
        (
            "select * from ghost",
            "42P01: relation \"ghost\" does not exist / proxy.toml places \"public.ghost\", but the shards' catalogs did not have it when last read.",
        ),
        ("select * into t2 from countries", "shard 1, primary, write"),
        ("select * into temp t2 from countries", "shard 1, primary, write, pin temporary table"),
        ("select * into t2 from users where user_id = 'u1'", "shard 1, primary, write"),
    ]);
}

#[test]
fn tables_of_different_shards_do_not_mix() {
    refusals(&[
        (
            "select * from audit_log, notes",
            "refused: one statement over several shards (table \"audit_log\" on shard2, table \"notes\" on shard1)",
        ),
        (
            "select count(*) from audit_log join users using (user_id) where user_id = 'u1'",
            "refused: one statement over several shards (table \"audit_log\" on shard2, table \"users\" on shard1)",
        ),
        (
            "select * from pg_class, users where user_id = 'a'",
            "refused: one statement over several shards (the system catalogs on shard1, table \"users\" on shard2)",
        ),
        (
            "select * from users, audit_log",
            "refused: table \"audit_log\", which is on one shard, together with table \"users\" on several shards",
        ),
        (
            "select * from users where name in (select relname from pg_class)",
            "refused: the system catalogs, which is on one shard, together with table \"users\" on several shards",
        ),
        ("select * from active_users", "refused: view \"active_users\" over sharded table \"users\""),
        (
            "select * from active_users where user_id = 'a'",
            "refused: view \"active_users\" over sharded table \"users\"",
        ),
        (
            "select * into t2 from users where user_id = 'a'",
            "refused: one statement over several shards (the new table on shard1, table \"users\" on shard2)",
        ),
    ]);
}

#[test]
fn the_search_path_decides_which_table_a_bare_name_means() {
    let path = |schemas: &[&str]| Env {
        search_path: Some(schemas.iter().map(|s| (*s).to_owned()).collect()),
        ..Env::default()
    };
    let users = "select * from users where user_id = 'a'";
    routes_in(&path(&["public"]), &[(users, "shard 2, replica")]);
    routes_in(
        &path(&["app", "public"]),
        &[(users, "shard 1, replica"), ("select * from orders where user_id = 'a'", "shard 2, replica")],
    );
    routes_in(&path(&["pg_catalog", "public"]), &[(users, "shard 2, replica")]);
    routes_in(&path(&["nowhere"]), &[(users, "shard 1, primary")]);
    routes_in(
        &path(&["$user", "public"]),
        &[
            (users, "refused: table \"users\" under this search_path"),
            ("select * from orders where user_id = 'a'", "shard 2, replica"),
        ],
    );
    routes_in(
        &path(&["information_schema", "public"]),
        &[
            (users, "refused: table \"users\" under this search_path"),
            ("select * from tables", "shard 1, replica"),
        ],
    );
}

#[test]
fn functions_say_where_a_query_may_run() {
    routes(&[
        ("select now()", "any shard, replica"),
        (
            "select random(), gen_random_uuid(), clock_timestamp(), lower('A'), coalesce(null, 1)",
            "any shard, replica",
        ),
        (
            "select current_user, current_date, current_timestamp(3), nullif(1, 2), greatest(1, 2)",
            "any shard, replica",
        ),
        ("select nextval('s')", "shard 1, primary, write"),
        ("select setval('s', 1)", "shard 1, primary, write"),
        ("select currval('s')", "any shard, primary"),
        ("select lastval()", "any shard, primary"),
        ("select pg_advisory_lock(1)", "shard 1, primary, pin advisory lock"),
        ("select pg_advisory_xact_lock(1)", "shard 1, primary"),
        ("select pg_notify('a', 'b')", "shard 1, primary, write"),
        ("select set_config('a.b', 'c', false)", "any shard, primary"),
        ("select set_config('a.b', 'c', false), 1", "any shard, primary, pin code that may keep state"),
        ("select set_config('a.b', 'c' || 'd', false)", "any shard, primary, pin code that may keep state"),
        (
            "select set_config('a.' || 'b', 'c', false)",
            "refused: code that may set a setting of the session whose name is not a constant",
        ),
        ("select set_config('a.b', 'c', true)", "any shard, primary"),
        ("select pg_catalog.set_config('a.b', 'c', false)", "any shard, primary"),
        ("select lo_create(0)", "shard 1, primary, write"),
        ("select unheard_of()", "shard 1, primary, write, pin code that may keep state"),
        ("select * from unheard_of(1) as t(a int)", "shard 1, primary, write, pin code that may keep state"),
        (
            "select unheard_of() from users where user_id = 'a'",
            "shard 2, primary, write, pin code that may keep state",
        ),
        ("select nextval('s') from users where user_id = 'a'", "shard 2, primary, write"),
        (
            "select 1 from countries where unheard_of()",
            "shard 1, primary, write, pin code that may keep state",
        ),
        (
            "select 1 from users where user_id = 'a' and id in (select unheard_of())",
            "shard 2, primary, write, pin code that may keep state",
        ),
        (
            "select 1 from users where user_id = 'a' order by unheard_of()",
            "shard 2, primary, write, pin code that may keep state",
        ),
        (
            "select 1 from users where user_id = 'a' limit unheard_of()",
            "shard 2, primary, write, pin code that may keep state",
        ),
        ("select now() from users where user_id = 'a'", "shard 2, replica"),
        ("select add_tax(1) from users where user_id = 'a'", "shard 2, replica"),
        ("select log_it('m')", "shard 2, primary, write"),
        ("select log_it('m') from users where user_id = 'a'", "shard 2, primary, write"),
        ("select read_notes()", "shard 1, replica"),
        ("select read_countries()", "any shard, replica"),
    ]);
    refusals(&[
        ("select count_users()", "refused: function \"count_users\", which names sharded table \"users\""),
        (
            "select calls_count_users()",
            "refused: function \"count_users\", which names sharded table \"users\"",
        ),
        (
            "select * from count_users()",
            "refused: function \"count_users\", which names sharded table \"users\"",
        ),
        (
            "select 1 from users where user_id = 'a' and count_users() > 1",
            "refused: function \"count_users\", which names sharded table \"users\"",
        ),
        (
            "select write_countries()",
            "refused: function \"write_countries\", which may write reference table \"countries\"",
        ),
        (
            "select log_it('m') from users where user_id = 'u1'",
            "refused: one statement over several shards (function \"log_it\" on shard2, table \"users\" on shard1)",
        ),
        (
            "select read_notes() from users where user_id = 'a'",
            "refused: one statement over several shards (function \"read_notes\" on shard1, table \"users\" on shard2)",
        ),
    ]);
}

#[test]
fn locks_are_taken_where_everyone_takes_them() {
    routes(&[
        ("select * from users where user_id = 'a' for share", "shard 2, primary"),
        ("select * from users where user_id = 'a' for no key update skip locked", "shard 2, primary"),
        ("select * from countries for update", "shard 1, primary"),
        ("select * from audit_log for update", "shard 2, primary"),
        (
            "select * from users u join countries c on true where u.user_id = 'a' for update of u",
            "shard 2, primary",
        ),
        ("select * from (select * from users where user_id = 'a' for update) s", "shard 2, primary"),
    ]);
    refusals(&[
        (
            "select * from users u join countries c on true where u.user_id = 'a' for update",
            "refused: FOR UPDATE or FOR SHARE of reference table \"c\"",
        ),
        (
            "select * from users u join countries c on true where u.user_id = 'a' for update of c",
            "refused: FOR UPDATE or FOR SHARE of reference table \"c\"",
        ),
    ]);
}

#[test]
fn a_database_of_one_shard_refuses_nothing() {
    check(
        &one_shard(),
        &Env::default(),
        &[
            ("select count(*) from users", "shard 1, replica"),
            (
                "select * from users u full join audit_log using (user_id) order by 1 limit 3",
                "shard 1, replica",
            ),
            ("select * from active_users", "shard 1, replica"),
            ("select count_users()", "shard 1, replica"),
            ("select unheard_of()", "shard 1, primary, write, pin code that may keep state"),
            ("select * from users for update", "shard 1, primary"),
            ("select nextval('s'), now()", "shard 1, primary, write"),
            ("update users set user_id = 'b'", "shard 1, primary, write"),
            ("delete from countries", "shard 1, primary, write"),
            ("with x as (delete from orders returning *) select * from x", "shard 1, primary, write"),
            ("insert into orders (user_id) values (lower('A')), ('b')", "shard 1, primary, write"),
            ("insert into users (user_id) select user_id from orders", "shard 1, primary, write"),
            ("insert into users (user_id) values (lower('A'))", "shard 1, primary, write"),
            (
                "insert into users (user_id) values ('a'), ('u1')",
                "shard 1, primary, write, rewrite insert into users (user_id, \"partition_key\") values ('a', 'D'), ('u1', 'A')",
            ),
            (
                "insert into users (user_id, partition_key) values ('a', 'B')",
                "23514: new row for relation \"users\" is in two partitions: D by \"user_id\" = 'a', B by \"partition_key\" = 'B' / \"user_id\" = 'a' belongs to partition D: use \"partition_key\" = 'D', or leave it out: pgherd fills it in.",
            ),
            ("select * from only users", "shard 1, replica"),
        ],
    );
}
