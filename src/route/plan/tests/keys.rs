//! What fixes a key, and what looks as if it did.

use super::fixture::{routes_in, routes_with};
use super::{Sent, routes};
use crate::catalog::oid;
use crate::route::Env;

/// What a SELECT that cannot be pruned gets: all shards.
const ALL: &str = "shards 1+2+3, replica, concatenate";

#[test]
fn a_key_compared_with_a_constant_is_fixed() {
    routes(&[
        ("select * from users where user_id = 'u1'", "shard 1, replica"),
        ("select * from users where user_id = 'a'", "shard 2, replica"),
        ("select * from users where user_id = 'z'", "shard 3, replica"),
        ("select * from users where 'a' = user_id", "shard 2, replica"),
        ("select * from users where (user_id) = ('a')", "shard 2, replica"),
        ("select * from users u where u.user_id = 'a'", "shard 2, replica"),
        ("select * from users where users.user_id = 'a'", "shard 2, replica"),
        ("select * from public.users where public.users.user_id = 'a'", "shard 2, replica"),
        ("SELECT * FROM USERS WHERE USER_ID = 'a'", "shard 2, replica"),
        ("select * from \"users\" where \"user_id\" = 'a'", "shard 2, replica"),
        ("select * from users where user_id = E'\\x61'", "shard 2, replica"),
        ("select * from users where user_id = U&'\\0061'", "shard 2, replica"),
        ("select * from users where user_id = $$a$$", "shard 2, replica"),
        ("select * from users where user_id = $q$a$q$", "shard 2, replica"),
        ("select * from users where user_id = 'it''s'", "shard 2, replica"),
        ("select * from users where user_id = 'é'", "shard 2, replica"),
        ("select * from users where user_id = 'x '", "shard 1, replica"),
        ("select * from users where user_id = 'a'::text", "shard 2, replica"),
        ("select * from users where user_id = 'a'::varchar", "shard 2, replica"),
        ("select * from users where user_id = cast('a' as character varying)", "shard 2, replica"),
        ("select * from users where user_id = text 'a'", "shard 2, replica"),
        ("select * from users where partition_key = 'D'", "shard 2, replica"),
        ("select * from users where user_id is not distinct from 'a'", "shard 2, replica"),
        ("select * from users where (user_id = 'a') is true", "shard 2, replica"),
        ("select * from accounts where account_id = 5", "shard 1, replica"),
        ("select * from accounts where account_id = 9", "shard 2, replica"),
        ("select * from accounts where account_id = 12", "shard 3, replica"),
        // What the first of them is cannot be told, but that of the second can.
        (
            "update users set name = 'n' where user_id = E'\\v'",
            "refused: UPDATE of table \"users\" on several shards",
        ),
        ("update users set name = 'n' where user_id = E'\\x61'", "shard 2, primary, write"),
        (
            "update accounts set kind = 1 where account_id = 99999999999999999999",
            "refused: UPDATE of table \"accounts\" on several shards",
        ),
        ("update accounts set kind = 1 where account_id = 9", "shard 2, primary, write"),
        ("select * from accounts where account_id = -5", "shard 2, replica"),
        ("select * from accounts where account_id = - 4", "shard 3, replica"),
        ("select * from accounts where account_id = +9", "shard 2, replica"),
        ("select * from accounts where account_id = '9'", "shard 2, replica"),
        ("select * from accounts where account_id = ' 9 '", "shard 2, replica"),
        ("select * from accounts where account_id = 9::int", "shard 2, replica"),
        ("select * from accounts where account_id = '9'::bigint", "shard 2, replica"),
        ("select * from accounts where account_id = cast('9' as int)", "shard 2, replica"),
        ("select * from accounts where account_id = 009", "shard 2, replica"),
        ("select * from places where code = 'DE'", "shard 3, replica"),
        ("select * from places where code = 'US'", "shard 1, replica"),
        ("select * from places where code = 'A '", "shard 1, replica"),
        ("select * from things where id = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13'", "shard 2, replica"),
        ("select * from things where id = uuid '{A0EEBC99-9C0B4EF8-BB6D6BB9BD380A14}'", "shard 3, replica"),
    ]);
}

#[test]
fn lists_rows_and_arrays_fix_keys() {
    routes(&[
        ("select * from users where user_id in ('a')", "shard 2, replica"),
        ("select * from users where user_id in ('a', 'u3')", "shard 2, replica"),
        ("select * from users where user_id in ('u1', 'a')", "shards 1+2, replica, concatenate"),
        ("select count(*) from users where user_id in ('u1', 'x')", "shard 1, replica"),
        ("select * from users where user_id in ('a', null)", "shard 2, replica"),
        ("select * from users where user_id = any('{a,u3}')", "shard 2, replica"),
        ("select * from users where user_id = any('{a,\"u3\",NULL}'::text[])", "shard 2, replica"),
        ("select * from users where user_id = any('{}')", "shard 1, replica"),
        ("select * from users where user_id = any(array['a','u3'])", "shard 2, replica"),
        ("select * from users where user_id = any(array['a','u3']::varchar[])", "shard 2, replica"),
        ("select * from users where user_id = some(array['a'])", "shard 2, replica"),
        ("select * from users where (user_id, name) = ('a', 'b')", "shard 2, replica"),
        ("select * from users where row(user_id, name) = row('a', 'b')", "shard 2, replica"),
        ("select * from users where (name, user_id) in (('b', 'a'), ('c', 'u3'))", "shard 2, replica"),
        (
            "select * from users where (name, user_id) in (('b', 'a'), ('c', 'z'))",
            "shards 2+3, replica, concatenate",
        ),
        ("select * from accounts where account_id in (4, 9)", "shard 2, replica"),
        ("select * from accounts where account_id in (4, '9')", "shard 2, replica"),
        ("select * from accounts where account_id = any('{4,9}')", "shard 2, replica"),
        ("select * from accounts where account_id = any(array[4,9])", "shard 2, replica"),
        ("select * from users where user_id = 'a' or user_id = 'u3'", "shard 2, replica"),
        ("select * from users where user_id = 'a' or partition_key = 'D'", "shard 2, replica"),
        (
            "select * from users where (user_id = 'a' and name = 'b') or (user_id = 'u3' and id > 7)",
            "shard 2, replica",
        ),
        ("select * from users where user_id = 'a' and (name = 'b' or name = 'c')", "shard 2, replica"),
        ("select * from users where user_id = 'a' and partition_key = 'D'", "shard 2, replica"),
        ("select * from users where user_id in ('a', 'u1') and user_id in ('a', 'z')", "shard 2, replica"),
    ]);
}

#[test]
fn a_contradiction_is_answered_by_any_one_shard() {
    routes(&[
        ("select count(*) from users where user_id = null", "shard 1, replica"),
        ("select count(*) from users where user_id = 'a' and user_id = 'z'", "shard 1, replica"),
        ("select count(*) from users where user_id = 'a' and partition_key = 'A'", "shard 1, replica"),
        ("select count(*) from users where partition_key = 'Q'", "shard 1, replica"),
        ("select count(*) from users where false", "shard 1, replica"),
        ("update users set name = 'n' where user_id in (null)", "shard 1, primary, write"),
        // There is no operator varchar = integer: every server says so.
        ("select count(*) from users where user_id = 5", "shard 1, replica"),
        // Nor is this an integer, on any server.
        ("select count(*) from accounts where account_id = 'abc'", "shard 1, replica"),
        ("select count(*) from things where id = 'abc'", "shard 1, replica"),
    ]);
}

#[test]
fn anything_else_on_the_key_prunes_nothing() {
    routes(&[
        ("select * from accounts where account_id + 1 = 5", ALL),
        ("select * from accounts where account_id % 5 = 3", ALL),
        ("select * from accounts where -account_id = -4", ALL),
        ("select * from accounts where account_id = 5 + 0", ALL),
        ("select * from accounts where account_id = 5.0", ALL),
        ("select * from accounts where account_id = 1e0", ALL),
        ("select * from accounts where account_id = '5.0'", ALL),
        ("select * from accounts where account_id = '0x5'", ALL),
        ("select * from accounts where account_id = abs(5)", ALL),
        ("select * from accounts where account_id in (5, 9.0)", ALL),
        ("select * from accounts where account_id = 99999999999999999999", ALL),
        ("select * from accounts where account_id = 5::text::int", ALL),
        ("select * from accounts where account_id = kind", ALL),
        ("select * from accounts where account_id <> 5", ALL),
        ("select * from accounts where account_id < 5", ALL),
        ("select * from accounts where account_id between 5 and 5", ALL),
        ("select * from accounts where not account_id = 5", ALL),
        ("select * from accounts where account_id not in (5)", ALL),
        ("select * from accounts where account_id is distinct from 5", ALL),
        ("select * from accounts where account_id is null", ALL),
        ("select * from accounts where account_id is not distinct from null", ALL),
        ("select * from accounts where (account_id = 5) is not true", ALL),
        ("select * from accounts where (account_id = 5) = true", ALL),
        ("select * from accounts where account_id = 5 or kind = 1", ALL),
        ("select * from accounts where account_id = 5 or true", ALL),
        ("select * from accounts where case when account_id = 5 then true else false end", ALL),
        ("select * from accounts where coalesce(account_id, 5) = 5", ALL),
        ("select * from accounts where account_id = all (array[5])", ALL),
        ("select * from accounts where array[5] @> array[account_id]", ALL),
        ("select * from accounts where (account_id, kind) > (5, 1)", ALL),
        ("select * from accounts where account_id::text = '5'", ALL),
        ("select * from accounts where 5 in (account_id, kind)", ALL),
        ("select * from accounts where account_id = any(array[5, kind])", ALL),
        ("select account_id = 5 from accounts", ALL),
        ("select case when account_id = 5 then 1 end from accounts", ALL),
        ("select * from users where lower(user_id) = 'a'", ALL),
        ("select * from users where user_id like 'a'", ALL),
        ("select * from users where user_id ~ '^a$'", ALL),
        ("select * from users where user_id || '' = 'a'", ALL),
        ("select * from users where user_id = 'a' || ''", ALL),
        ("select * from users where user_id = lower('A')", ALL),
        ("select * from users where user_id = 'a' collate \"C\"", ALL),
        ("select * from users where user_id collate \"C\" = 'a'", ALL),
        ("select * from users where user_id = N'a'", ALL),
        // As char(n) the comparison ignores blanks at the end of the column's value.
        ("select * from users where user_id = 'a'::bpchar", ALL),
        ("select * from users where user_id = 'a'::char(3)", ALL),
        ("select * from users where user_id = 'abc'::varchar(1)", ALL),
        ("select * from users where user_id operator(pg_catalog.=) 'a'", ALL),
        ("select * from users where user_id = name", ALL),
        ("select * from users where name = 'a'", ALL),
        ("select * from users where user_id = any('{a')", ALL),
        ("select * from loose where k = 'a'", ALL),
        ("select * from users where user_id = 'a' or user_id = lower('A')", ALL),
        ("select * from users where user_id in ('a', lower('A'))", ALL),
        ("select * from users where user_id >= 'a' and user_id <= 'a'", ALL),
    ]);
}

#[test]
fn ranges_prune_range_keys_and_only_in_their_own_order() {
    routes(&[
        ("select * from events where id = 5", "shard 1, replica"),
        ("select * from events where id = 1000", "shard 2, replica"),
        ("select * from events where id = 2000", "shard 3, replica"),
        ("select count(*) from events where id < 1000", "shard 1, replica"),
        ("select * from events where id <= 1000", "shards 1+2, replica, concatenate"),
        ("select count(*) from events where id >= 2000", "shard 3, replica"),
        ("select * from events where id > 1999", "shards 2+3, replica, concatenate"),
        ("select count(*) from events where 1000 > id", "shard 1, replica"),
        ("select count(*) from events where id between 1000 and 1999", "shard 2, replica"),
        ("select count(*) from events where id between 1500 and 1000", "shard 2, replica"),
        ("select count(*) from events where id >= 1000 and id < 2000", "shard 2, replica"),
        ("select * from events where id not between 1000 and 1999", ALL),
        ("select * from events where id >= 1000.5", ALL),
        ("select count(*) from events where id > null", "shard 1, replica"),
        ("select count(*) from words_c where k < 'h'", "shard 1, replica"),
        ("select count(*) from words_c where k >= 'p'", "shard 3, replica"),
        ("select count(*) from words_c where k = 'i'", "shard 2, replica"),
        ("select * from words_en where k < 'h'", ALL),
        ("select count(*) from words_en where k = 'i'", "shard 2, replica"),
    ]);
}

#[test]
fn parameters_are_read_as_they_are_typed() {
    let by_user = "select * from users where user_id = $1";
    let by_account = "select * from accounts where account_id = $1";
    let by_thing = "select * from things where id = $1";
    let uuid = b"\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x13";
    routes_with(&[
        (by_user, &[Sent::Text("a")], "shard 2, replica"),
        (by_user, &[Sent::Typed(oid::TEXT, "a")], "shard 2, replica"),
        (by_user, &[Sent::Typed(oid::VARCHAR, "a")], "shard 2, replica"),
        (by_user, &[Sent::Binary(oid::TEXT, b"a")], "shard 2, replica"),
        (by_user, &[Sent::Binary(0, b"a")], "shard 2, replica"),
        (by_user, &[Sent::Text("x ")], "shard 1, replica"),
        (by_user, &[Sent::Null], "shard 1, replica"),
        (by_user, &[Sent::Typed(oid::BPCHAR, "a")], ALL),
        (by_user, &[Sent::Typed(oid::NAME, "a")], ALL),
        (by_user, &[Sent::Typed(oid::INT4, "5")], "shard 1, replica"),
        (by_user, &[Sent::Binary(0, b"\xff")], ALL),
        (by_user, &[], ALL),
        (by_account, &[Sent::Text("9")], "shard 2, replica"),
        (by_account, &[Sent::Text(" 9")], "shard 2, replica"),
        (by_account, &[Sent::Text("9.0")], ALL),
        (by_account, &[Sent::Typed(oid::INT4, "9")], "shard 2, replica"),
        (by_account, &[Sent::Typed(oid::NUMERIC, "9")], ALL),
        (by_account, &[Sent::Typed(oid::TEXT, "9")], ALL),
        (by_account, &[Sent::Binary(oid::INT8, &9i64.to_be_bytes())], "shard 2, replica"),
        (by_account, &[Sent::Binary(oid::INT2, &9i16.to_be_bytes())], "shard 2, replica"),
        (by_account, &[Sent::Binary(0, &9i64.to_be_bytes())], "shard 2, replica"),
        (by_account, &[Sent::Binary(oid::INT4, &9i64.to_be_bytes())], "shard 1, replica"),
        (by_account, &[Sent::Binary(oid::FLOAT8, &9f64.to_be_bytes())], ALL),
        (by_thing, &[Sent::Binary(oid::UUID, uuid)], "shard 2, replica"),
        (by_thing, &[Sent::Binary(0, uuid)], "shard 2, replica"),
        (by_thing, &[Sent::Text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a13")], "shard 2, replica"),
        ("select * from users where user_id = $1::text", &[Sent::Text("a")], "shard 2, replica"),
        ("select * from users where user_id = $1::text", &[Sent::Typed(oid::INT4, "5")], ALL),
        (
            "select * from accounts where account_id = $1::int",
            &[Sent::Binary(0, &9i32.to_be_bytes())],
            "shard 2, replica",
        ),
        ("select * from users where user_id is not distinct from $1", &[Sent::Text("a")], "shard 2, replica"),
        ("select * from users where user_id is not distinct from $1", &[Sent::Null], ALL),
        (
            "select * from users where user_id in ($2, $1)",
            &[Sent::Text("a"), Sent::Text("u3")],
            "shard 2, replica",
        ),
        (
            "select * from events where id between $1 and $2",
            &[Sent::Text("1"), Sent::Text("9")],
            "shard 1, replica",
        ),
        ("select * from places where code = $1", &[Sent::Text("DE")], "shard 3, replica"),
        ("select * from places where code = $1", &[Sent::Typed(oid::BPCHAR, "A ")], "shard 1, replica"),
        ("select * from places where code = $1", &[Sent::Typed(oid::TEXT, "A")], "shard 1, replica"),
    ]);
}

#[test]
fn array_parameters_are_read_in_both_formats() {
    let sql = "select * from users where user_id = any($1)";
    let mut binary = Vec::new();
    for word in [1, 0, 25, 2, 1] {
        binary.extend_from_slice(&i32::to_be_bytes(word));
    }
    for text in [&b"a"[..], b"u3"] {
        binary.extend_from_slice(&(text.len() as i32).to_be_bytes());
        binary.extend_from_slice(text);
    }
    routes_with(&[
        (sql, &[Sent::Text("{a,u3}")], "shard 2, replica"),
        (sql, &[Sent::Typed(oid::TEXT_ARRAY, "{a,z}")], "shards 2+3, replica, concatenate"),
        (sql, &[Sent::Binary(oid::TEXT_ARRAY, &binary)], "shard 2, replica"),
        (sql, &[Sent::Binary(0, &binary)], "shard 2, replica"),
        (sql, &[Sent::Typed(oid::BPCHAR_ARRAY, "{a}")], ALL),
        (sql, &[Sent::Binary(oid::TEXT_ARRAY, &binary[..9])], ALL),
        (sql, &[Sent::Null], "shard 1, replica"),
        ("select * from users where user_id = any($1::text[])", &[Sent::Text("{a}")], "shard 2, replica"),
        (
            "select * from accounts where account_id = any($1)",
            &[Sent::Typed(oid::INT8_ARRAY, "{4,9}")],
            "shard 2, replica",
        ),
    ]);
}

#[test]
fn a_parameter_that_another_use_may_give_another_type_is_read_with_care() {
    let twice = "select * from places p, users u where p.code = $1 and u.user_id = $1 and p.name = 'b'";
    let both = "select * from users u join orders o using (user_id) where u.user_id = $1 and o.user_id = $1";
    let shown = "select $1, account_id from accounts where account_id = $1";
    routes_with(&[
        // As char(2) `a ` would be equal to `a`.
        (
            twice,
            &[Sent::Text("x ")],
            "refused: a join or subquery that is not on equal sharding keys, over table \"users\" on several shards",
        ),
        (both, &[Sent::Text("x ")], "shard 1, replica"),
        (shown, &[Sent::Text("9")], "shard 2, replica"),
        (shown, &[Sent::Binary(0, &9i64.to_be_bytes())], ALL),
        (shown, &[Sent::Binary(oid::INT8, &9i64.to_be_bytes())], "shard 2, replica"),
    ]);
}

#[test]
fn keys_beyond_ascii_need_the_same_encoding() {
    let foreign = Env { foreign_encoding: true, ..Env::default() };
    routes_in(
        &foreign,
        &[
            ("select * from users where user_id = 'a'", "shard 2, replica"),
            ("select * from users where user_id = 'é'", ALL),
        ],
    );
    let nonstandard = Env { nonstandard_strings: true, ..Env::default() };
    routes_in(&nonstandard, &[("select * from users where user_id = 'a'", "shard 2, replica")]);
}

#[test]
fn texts_that_differ_in_literals_only_are_routed_by_their_own() {
    // One router, so that the second of each pair uses the plan of the first.
    routes(&[
        ("select * from users where user_id = 'a'", "shard 2, replica"),
        ("select  *  from users where user_id = 'z' -- other", "shard 3, replica"),
        ("select * from accounts where account_id = 9", "shard 2, replica"),
        ("select * from accounts where account_id = 12", "shard 3, replica"),
        // What the first of them is cannot be told, but that of the second can.
        (
            "update users set name = 'n' where user_id = E'\\v'",
            "refused: UPDATE of table \"users\" on several shards",
        ),
        ("update users set name = 'n' where user_id = E'\\x61'", "shard 2, primary, write"),
        (
            "update accounts set kind = 1 where account_id = 99999999999999999999",
            "refused: UPDATE of table \"accounts\" on several shards",
        ),
        ("update accounts set kind = 1 where account_id = 9", "shard 2, primary, write"),
        ("select * from users where name = 'n' and user_id in ('a', 'u3')", "shard 2, replica"),
        ("select * from users where name = 'a' and user_id in ('z', 'u11')", "shard 3, replica"),
        ("insert into orders (user_id, order_id) values ('a', 'o')", "shard 2, primary, write"),
        ("insert into orders (user_id, order_id) values ('z', 'a')", "shard 3, primary, write"),
        (
            "insert into users (user_id, name) values ('a', 'n')",
            "shard 2, primary, write, rewrite insert into users (user_id, name, \"partition_key\") values ('a', 'n', 'D')",
        ),
        (
            "insert into users (user_id,\n name) values ('z', /* ) */ ')')",
            "shard 3, primary, write, rewrite insert into users (user_id,\n name, \"partition_key\") values ('z', /* ) */ ')', 'C')",
        ),
        (
            "select user_id, c from (select user_id, count(*) c from orders group by 1) s where user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select user_id, c from (select user_id, count(*) c from orders group by 2) s where user_id = 'a'",
            "refused: a subquery over table \"orders\" on several shards",
        ),
    ]);
}
