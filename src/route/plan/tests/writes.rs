//! Writes: to one shard, with their keys agreed and filled in.

use super::fixture::routes_with;
use super::{Sent, refusals, routes};
use crate::catalog::oid;

#[test]
fn a_write_fixed_to_one_shard_goes_there() {
    routes(&[
        ("update users set name = 'n' where user_id = 'a'", "shard 2, primary, write"),
        (
            "update users u set name = o.order_id from orders o where o.user_id = u.user_id and u.user_id = 'a' returning *",
            "shard 2, primary, write",
        ),
        (
            "update users set name = (select max(name) from countries) where user_id = 'a'",
            "shard 2, primary, write",
        ),
        (
            "update users set (name, email) = ('n', 'e') where user_id in ('a', 'u3')",
            "shard 2, primary, write",
        ),
        ("update only users set name = 'n' where user_id = 'a'", "shard 2, primary, write"),
        ("delete from users where user_id = 'a'", "shard 2, primary, write"),
        (
            "delete from users u using orders o where o.user_id = u.user_id and o.user_id = 'a'",
            "shard 2, primary, write",
        ),
        ("update audit_log set message = 'm'", "shard 2, primary, write"),
        ("delete from notes", "shard 1, primary, write"),
        (
            "update audit_view set user_id = 'a'",
            "refused: UPDATE of reference table \"countries\" on several shards",
        ),
        (
            "with x as (delete from orders where user_id = 'a' returning *) select * from x",
            "shard 2, primary, write",
        ),
        (
            "with x as (select * from orders where user_id = 'a') update users set name = 'n' from x where users.user_id = 'u3'",
            "shard 2, primary, write",
        ),
        ("with x as (select 1) insert into orders (user_id) values ('a')", "shard 2, primary, write"),
        (
            "with x as (insert into orders (user_id) values ('a') returning *) insert into transfers (account_id) values (9)",
            "shard 2, primary, write",
        ),
        (
            "merge into orders t using (select 'a' as k) s on t.user_id = s.k when matched then delete when not matched then insert (user_id) values (s.k)",
            "shard 2, primary, write",
        ),
        (
            "merge into orders t using (select user_id from users where user_id = 'a') s on t.user_id = s.user_id when matched then update set amount = 1 when not matched then insert (user_id) values ('u3')",
            "shard 2, primary, write",
        ),
    ]);
}

#[test]
fn a_write_on_several_shards_is_refused() {
    refusals(&[
        ("update users set name = 'n'", "refused: UPDATE of table \"users\" on several shards"),
        ("update users set name = 'n' where id = 7", "refused: UPDATE of table \"users\" on several shards"),
        (
            "update users set name = 'n' where user_id in ('a', 'z')",
            "refused: UPDATE of table \"users\" on several shards",
        ),
        (
            "update users set name = 'n' from orders where orders.user_id = 'a'",
            "refused: UPDATE of table \"users\" on several shards",
        ),
        (
            "update users set name = (select max(order_id) from orders) where user_id = 'a'",
            "refused: UPDATE of table \"orders\" on several shards",
        ),
        ("delete from users", "refused: DELETE from table \"users\" on several shards"),
        (
            "with x as (delete from orders returning *) select * from x",
            "refused: a WITH query that writes, over table \"orders\" on several shards",
        ),
        (
            "with x as (delete from orders where user_id = 'a' returning *) select * from x, users",
            "refused: a WITH query that writes, over table \"users\" on several shards",
        ),
        (
            "with x as (delete from orders where user_id = 'a' returning *) insert into orders (user_id) values ('z')",
            "refused: one statement over several shards (table \"orders\" on shard2, table \"orders\" on shard3)",
        ),
        (
            "update countries set name = 'n'",
            "refused: UPDATE of reference table \"countries\" on several shards",
        ),
        (
            "delete from countries where code = 'DE'",
            "refused: DELETE of reference table \"countries\" on several shards",
        ),
        (
            "insert into countries values ('DE', 'n')",
            "refused: INSERT of reference table \"countries\" on several shards",
        ),
        (
            "update active_users set user_id = 'a'",
            "refused: view \"active_users\" over sharded table \"users\"",
        ),
        (
            "update audit_log set message = 'm' where user_id in (select user_id from users)",
            "refused: UPDATE of table \"users\" on several shards",
        ),
        (
            "merge into orders t using users s on t.user_id = s.user_id when matched then delete",
            "refused: MERGE with table \"orders\" on several shards",
        ),
        // Every row of s counts, whether it matches or not.
        (
            "merge into orders t using users s on t.user_id = s.user_id and s.user_id = 'a' when matched then delete when not matched then do nothing",
            "refused: MERGE with table \"orders\" on several shards",
        ),
        (
            "merge into orders t using (select 'a' as k) s on t.user_id = s.k when not matched then insert (user_id) values ('z')",
            "refused: one statement over several shards (table \"orders\" on shard2, table \"orders\" on shard3)",
        ),
        (
            "merge into users t using (select 'a' as k) s on t.user_id = s.k when not matched then insert (user_id) values ('a')",
            "refused: INSERT into table \"users\" without \"partition_key\" in this form",
        ),
    ]);
}

#[test]
fn a_key_is_not_changed_to_one_of_another_partition() {
    routes(&[
        ("update users set user_id = 'a' where user_id = 'a'", "shard 2, primary, write"),
        ("update users set user_id = user_id, name = 'n' where user_id = 'a'", "shard 2, primary, write"),
        ("update users set user_id = 'u3' where user_id = 'a'", "shard 2, primary, write"),
        ("update users set partition_key = 'D' where user_id = 'a'", "shard 2, primary, write"),
        ("update users set (user_id, name) = ('a', 'n') where user_id = 'a'", "shard 2, primary, write"),
    ]);
    const REFUSED: &str = "refused: a change of sharding key \"user_id\" of table \"users\"";
    refusals(&[
        ("update users set user_id = 'z' where user_id = 'a'", REFUSED),
        // The same shard, but another partition: partition_key would be wrong.
        ("update users set user_id = 'x' where user_id = 'u1'", REFUSED),
        ("update users set user_id = lower('A') where user_id = 'a'", REFUSED),
        ("update users set user_id = name where user_id = 'a'", REFUSED),
        ("update users set user_id = null where user_id = 'a'", REFUSED),
        ("update users set (name, user_id) = ('n', 'z') where user_id = 'a'", REFUSED),
        ("update users set (name, user_id) = (select 'n', 'a') where user_id = 'a'", REFUSED),
        ("update users set user_id = 'u1' where user_id in ('u1', 'x')", REFUSED),
        (
            "update users set partition_key = 'A' where user_id = 'a'",
            "refused: a change of sharding key \"partition_key\" of table \"users\"",
        ),
        (
            "insert into orders (user_id) values ('a') on conflict (order_id) do update set user_id = 'z'",
            "refused: a change of sharding key \"user_id\" of table \"orders\"",
        ),
        (
            "insert into orders (user_id) values ('a') on conflict (order_id) do update set user_id = excluded.user_id",
            "refused: a change of sharding key \"user_id\" of table \"orders\"",
        ),
        (
            "merge into orders t using (select 'a' as k) s on t.user_id = s.k when matched then update set user_id = 'z'",
            "refused: a change of sharding key \"user_id\" of table \"orders\"",
        ),
    ]);
}

#[test]
fn inserted_rows_go_where_their_keys_belong() {
    routes(&[
        ("insert into orders (user_id, order_id) values ('a', 'o')", "shard 2, primary, write"),
        ("insert into orders values (1, 'a', 'o', 1)", "shard 2, primary, write"),
        ("insert into orders values (default, 'a')", "shard 2, primary, write"),
        ("insert into orders (user_id) values ('a'), ('u3') returning id", "shard 2, primary, write"),
        ("insert into orders (user_id) values ('u1'), ('x')", "shard 1, primary, write"),
        (
            "insert into orders as o (order_id, user_id) values (lower('O'), 'a'::text)",
            "shard 2, primary, write",
        ),
        (
            "insert into orders (order_id, user_id) values ((select max(name) from countries), 'a')",
            "shard 2, primary, write",
        ),
        ("insert into orders (user_id) values (5)", "shard 3, primary, write"),
        ("insert into orders (user_id) values (007)", "shard 1, primary, write"),
        ("insert into orders (user_id) values (-5)", "shard 1, primary, write"),
        ("insert into accounts (account_id) values (9), ('4')", "shard 2, primary, write"),
        ("insert into places (code) values ('A ')", "shard 1, primary, write"),
        ("insert into short (k) values ('a')", "shard 2, primary, write"),
        ("insert into events (id) values (1999)", "shard 2, primary, write"),
        ("insert into audit_log (message) values ('m')", "shard 2, primary, write"),
        ("insert into notes select id, body from notes", "shard 1, primary, write"),
        ("insert into orders (user_id) values ('a') on conflict do nothing", "shard 2, primary, write"),
        (
            "insert into orders (user_id) values ('a') on conflict (user_id) do update set amount = 1, user_id = excluded.user_id",
            "shard 2, primary, write",
        ),
        (
            "insert into orders (user_id) values ('a') on conflict (order_id) do update set user_id = orders.user_id",
            "shard 2, primary, write",
        ),
        // What every server refuses may go to any.
        ("insert into orders (user_id, id) values ('a')", "shard 1, primary, write"),
        ("insert into orders (user_id) values ('a', 1)", "shard 1, primary, write"),
        ("insert into accounts (account_id) values ('abc')", "shard 1, primary, write"),
        ("insert into short (k) values ('abcd')", "shard 1, primary, write"),
        ("insert into no_such_table values (1)", "shard 1, primary, write"),
    ]);
    // Blanks beyond the length are cut before the row is stored.
    routes_with(&[
        ("insert into short (k) values ($1)", &[Sent::Text("x         ")], "shard 1, primary, write"),
        ("select * from short where k = $1", &[Sent::Text("x  ")], "shard 1, replica"),
    ]);
}

#[test]
fn rows_without_a_place_are_refused() {
    let null = |column: &str, table: &str| {
        format!(
            "23502: null value in column \"{column}\" of relation \"{table}\" violates not-null constraint / \"{column}\" is a sharding key: every row needs one."
        )
    };
    for (sql, want) in [
        ("insert into orders (user_id) values (null)", null("user_id", "orders")),
        ("insert into orders (order_id) values ('o')", null("user_id", "orders")),
        ("insert into orders (user_id) values (default)", null("user_id", "orders")),
        ("insert into orders default values", null("user_id", "orders")),
        ("insert into orders (user_id) values ('a'), (null)", null("user_id", "orders")),
        ("insert into users (user_id, partition_key) values ('a', null)", null("partition_key", "users")),
        ("insert into users (partition_key) values ('D')", null("user_id", "users")),
        ("insert into orders (order_id) select 'o'", null("user_id", "orders")),
        // A column that is not there is found first.
        (
            "insert into orders (user_ib, order_id) values ('a', 'o')",
            "42703: column \"user_ib\" of relation \"orders\" does not exist".to_owned(),
        ),
    ] {
        routes(&[(sql, want.as_str())]);
    }
    refusals(&[
        (
            "insert into orders (user_id) values (lower('A'))",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into orders (user_id) values ('a' || 'b')",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into orders (user_id) values ((select 'a'))",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into orders (user_id) values (5.0)",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into orders (user_id) values (true)",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into orders (user_id) values ('a'::char(3))",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into accounts (account_id) values (5.4)",
            "refused: INSERT into table \"accounts\" with a computed sharding key \"account_id\"",
        ),
        (
            "insert into accounts (account_id) values ('0x5')",
            "refused: INSERT into table \"accounts\" with a computed sharding key \"account_id\"",
        ),
        (
            "insert into serials (v) values ('v')",
            "refused: INSERT into table \"serials\" with a computed sharding key \"id\"",
        ),
        (
            "insert into loose (k) values ('a')",
            "refused: INSERT into table \"loose\" with a computed sharding key \"k\"",
        ),
        (
            "insert into orders (user_id) values ('a'), ('z')",
            "refused: INSERT into table \"orders\" of rows that belong to several shards",
        ),
    ]);
}

#[test]
fn keys_of_one_row_must_agree_and_missing_ones_are_filled_in() {
    routes(&[
        ("insert into users (user_id, partition_key) values ('a', 'D')", "shard 2, primary, write"),
        (
            "insert into users (user_id, name) values ('a', 'n')",
            "shard 2, primary, write, rewrite insert into users (user_id, name, \"partition_key\") values ('a', 'n', 'D')",
        ),
        (
            "insert into users (user_id) values ('u1'), ('x') on conflict (user_id) do nothing returning *",
            "shard 1, primary, write, rewrite insert into users (user_id, \"partition_key\") values ('u1', 'A'), ('x', 'B') on conflict (user_id) do nothing returning *",
        ),
        (
            "insert into users (user_id, partition_key) values ('u1', default), ('x', 'B')",
            "shard 1, primary, write, rewrite insert into users (user_id, partition_key) values ('u1', 'A'), ('x', 'B')",
        ),
        (
            "insert into users values (1, 'a', 'n', 'e')",
            "shard 2, primary, write, rewrite insert into users (\"id\", \"user_id\", \"name\", \"email\", \"partition_key\") values (1, 'a', 'n', 'e', 'D')",
        ),
        (
            "insert into users as u values (default, 'a')",
            "shard 2, primary, write, rewrite insert into users as u (\"id\", \"user_id\", \"partition_key\") values (default, 'a', 'D')",
        ),
        ("insert into users values (1, 'a', 'n', 'e', null, 'D')", "shard 2, primary, write"),
        (
            "insert into users values (1, 'a', 'n', 'e', null, default)",
            "shard 2, primary, write, rewrite insert into users values (1, 'a', 'n', 'e', null, 'D')",
        ),
        (
            "insert into public.users(\"user_id\") values('a')",
            "shard 2, primary, write, rewrite insert into public.users(\"user_id\", \"partition_key\") values('a', 'D')",
        ),
        (
            "insert into users (user_id) overriding system value values ('a')",
            "shard 2, primary, write, rewrite insert into users (user_id, \"partition_key\") overriding system value values ('a', 'D')",
        ),
        (
            "insert /* a) */ into users (user_id /* b) */) values (/* c) */ 'é)' -- d)\n)",
            "shard 1, primary, write, rewrite insert /* a) */ into users (user_id, \"partition_key\" /* b) */) values (/* c) */ 'é)' -- d)\n, 'A')",
        ),
        (
            "with x as (insert into users (user_id) values ('a') returning *) select * from x",
            "shard 2, primary, write, rewrite with x as (insert into users (user_id, \"partition_key\") values ('a', 'D') returning *) select * from x",
        ),
        (
            "insert into users (user_id, partition_key) values ('a', 'B')",
            "23514: new row for relation \"users\" is in two partitions: D by \"user_id\" = 'a', B by \"partition_key\" = 'B' / \"user_id\" = 'a' belongs to partition D: use \"partition_key\" = 'D', or leave it out: pgherd fills it in.",
        ),
        (
            "insert into users (partition_key, user_id) values ('Q', 'a')",
            "23514: no partition holds \"partition_key\" = 'Q' / \"user_id\" = 'a' belongs to partition D: use \"partition_key\" = 'D', or leave it out: pgherd fills it in.",
        ),
        (
            "explain insert into users (user_id) values ('a')",
            "shard 2, replica, rewrite explain insert into users (user_id, \"partition_key\") values ('a', 'D')",
        ),
    ]);
}

#[test]
fn inserted_parameters_are_read_as_their_column_would_store_them() {
    let sql = "insert into users (user_id, name) values ($1, $2)";
    let filled = "shard 2, primary, write, rewrite insert into users (user_id, name, \"partition_key\") values ($1, $2, 'D')";
    let account = "insert into accounts (account_id) values ($1)";
    let computed = "refused: INSERT into table \"users\" with a computed sharding key \"user_id\"";
    routes_with(&[
        (sql, &[Sent::Text("a"), Sent::Null], filled),
        (sql, &[Sent::Binary(0, b"a"), Sent::Null], filled),
        (sql, &[Sent::Typed(oid::VARCHAR, "a"), Sent::Null], filled),
        (
            sql,
            &[Sent::Typed(oid::INT4, " 5"), Sent::Null],
            "shard 3, primary, write, rewrite insert into users (user_id, name, \"partition_key\") values ($1, $2, 'C')",
        ),
        (
            sql,
            &[Sent::Binary(oid::INT4, &5i32.to_be_bytes()), Sent::Null],
            "shard 3, primary, write, rewrite insert into users (user_id, name, \"partition_key\") values ($1, $2, 'C')",
        ),
        (sql, &[Sent::Typed(oid::NUMERIC, "5"), Sent::Null], computed),
        (sql, &[Sent::Typed(oid::BPCHAR, "a"), Sent::Null], computed),
        (
            sql,
            &[Sent::Null, Sent::Text("n")],
            "23502: null value in column \"user_id\" of relation \"users\" violates not-null constraint / \"user_id\" is a sharding key: every row needs one.",
        ),
        (account, &[Sent::Binary(0, &9i64.to_be_bytes())], "shard 2, primary, write"),
        (account, &[Sent::Text("9")], "shard 2, primary, write"),
        (
            "insert into orders (user_id, order_id) values ($1, $1)",
            &[Sent::Text("a")],
            "shard 2, primary, write",
        ),
        // Another use of $1 might have made it a char(n), of which the blank would be cut.
        (
            "insert into orders (user_id, order_id) values ($1, $1)",
            &[Sent::Text("x ")],
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into users (user_id, partition_key) values ($1, $2)",
            &[Sent::Text("a"), Sent::Text("D")],
            "shard 2, primary, write",
        ),
        ("insert into short (k) values ($1)", &[Sent::Text("a     ")], "shard 1, primary, write"),
    ]);
}

#[test]
fn insert_select_copies_keys_only_where_they_stay() {
    routes(&[
        (
            "insert into orders (user_id, order_id) select user_id, name from users where user_id = 'a'",
            "shard 2, primary, write",
        ),
        ("insert into orders (user_id) select 'a'", "shard 2, primary, write"),
        (
            "insert into orders (user_id, order_id) select 'u3', name from users where user_id = 'a'",
            "shard 2, primary, write",
        ),
        (
            "insert into orders (order_id, user_id) select s.n, s.user_id from (select user_id, max(name) n from users group by 1) s where s.user_id = 'a'",
            "shard 2, primary, write",
        ),
        (
            "with s as (select * from users where user_id = 'a') insert into orders (user_id) select user_id from s",
            "shard 2, primary, write",
        ),
        ("insert into members select * from users where user_id = 'a'", "shard 2, primary, write"),
        ("insert into members (user_id, partition_key) select 'a', 'D'", "shard 2, primary, write"),
        (
            "insert into orders (user_id) select user_id from users where user_id = 'a' and user_id = 'z'",
            "shard 1, primary, write",
        ),
        (
            "insert into audit_log (message) select name from users where user_id = 'a'",
            "shard 2, primary, write",
        ),
    ]);
    refusals(&[
        (
            "insert into orders (user_id) select user_id from users",
            "refused: INSERT into table \"orders\" of rows that belong to several shards",
        ),
        (
            "insert into orders (user_id) select order_id from orders where user_id = 'a'",
            "refused: INSERT into table \"orders\" of rows that belong to several shards",
        ),
        (
            "insert into orders (user_id) select 'z' from users where user_id = 'a'",
            "refused: one statement over several shards (table \"users\" on shard2, table \"orders\" on shard3)",
        ),
        (
            "insert into orders (user_id) select lower(user_id) from users where user_id = 'a'",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into orders (user_id) select k from short where k = 'a' union select 'b'",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        // transfers.account_id may be NULL, and NULL is no key.
        (
            "insert into transfers (account_id) select account_id from accounts where account_id = 9",
            "refused: INSERT into table \"transfers\" with a computed sharding key \"account_id\"",
        ),
        // A partition of that name does not exist, so this is no contradiction.
        (
            "insert into members (user_id, partition_key) select 'a', user_id from events where user_id = 'a' and id = 5",
            "refused: INSERT into table \"members\" with a computed sharding key \"partition_key\"",
        ),
        (
            "insert into members (user_id, partition_key) select 'a', partition_key from users where partition_key = 'Q'",
            "refused: INSERT … SELECT into table \"members\" whose key columns may disagree",
        ),
        // What is longer than three characters would be cut.
        (
            "insert into short (k) select user_id from users where user_id = 'a'",
            "refused: INSERT into table \"short\" with a computed sharding key \"k\"",
        ),
        (
            "insert into users (user_id) select user_id from orders where user_id = 'a'",
            "refused: INSERT into table \"users\" without \"partition_key\" in this form",
        ),
        (
            "insert into members (user_id, partition_key) select o.user_id, u.partition_key from users u join orders o using (user_id) where u.user_id = 'a'",
            "refused: INSERT … SELECT into table \"members\" whose key columns may disagree",
        ),
        (
            "insert into orders (user_id) select * from users where user_id = 'a'",
            "refused: INSERT into table \"orders\" with a computed sharding key \"user_id\"",
        ),
        (
            "insert into audit_log (message) select name from users",
            "refused: INSERT … SELECT from table \"users\" on several shards",
        ),
    ]);
}
