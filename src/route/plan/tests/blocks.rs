//! Query blocks: each has its own keys, and they must agree.

use super::{refusals, routes};

#[test]
fn equal_keys_carry_over_joins() {
    routes(&[
        (
            "select count(*) from users u join orders o on o.user_id = u.user_id where u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join orders o on o.user_id = u.user_id where o.user_id = 'a'",
            "shard 2, replica",
        ),
        ("select count(*) from users join orders using (user_id) where user_id = 'a'", "shard 2, replica"),
        (
            "select count(*) from users join orders using (user_id) where orders.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users, orders where users.user_id = orders.user_id and orders.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u, users v where u.user_id = v.user_id and v.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u, users v where u.user_id = 'a' and v.user_id = 'u3'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join orders o on o.user_id = u.user_id and u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u left join orders o on o.user_id = u.user_id where u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u left join orders o using (user_id) where user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from orders o right join users u using (user_id) where user_id = 'a'",
            "shard 2, replica",
        ),
        // WHERE filters out what the outer join makes up, so it is an inner one.
        (
            "select count(*) from users u left join orders o using (user_id) where o.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u full join orders o on o.user_id = u.user_id where o.user_id = 'a' and u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join countries c on c.code = u.name where u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join orders o on u.user_id = o.user_id join members m on m.user_id = o.user_id where m.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from notes n join users u on u.user_id = n.user_id where n.user_id = 'u1'",
            "shard 1, replica",
        ),
        (
            "select count(*) from (users u join orders o on u.user_id = o.user_id) where o.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join orders o on u.user_id = o.user_id where u.user_id = 'a' or o.user_id = 'u3'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u cross join orders o where u.user_id = 'a' and o.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from accounts a join transfers t on t.account_id = a.account_id where a.account_id = 9",
            "shard 2, replica",
        ),
        (
            "select count(*) from accounts a join transfers t on t.other = a.account_id where a.account_id = 9 and t.account_id = 4",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join users v on u.partition_key = v.partition_key where u.partition_key = 'D'",
            "shard 2, replica",
        ),
    ]);
}

#[test]
fn a_key_that_does_not_carry_over_does_not_count() {
    refusals(&[
        (
            "select count(*) from users u join orders o on o.order_id = u.name where u.user_id = 'a'",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u left join orders o on o.user_id = u.user_id and u.user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u left join orders o on o.user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u full join orders o using (user_id) where user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u full join orders o on u.user_id = o.user_id and o.user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u left join orders o using (user_id) where o.user_id is not distinct from null",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u left join orders o using (user_id) where o.user_id = 'a' or o.user_id is null",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u join orders o on u.user_id = o.user_id or o.user_id = 'a' where u.user_id = 'a'",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u join orders o on u.user_id <> o.user_id where u.user_id = 'a'",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u join orders o on u.user_id = lower(o.user_id) where u.user_id = 'a'",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users, orders where user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        // Equal to a char(n), blanks at the end do not count: `x ` is elsewhere.
        (
            "select count(*) from users u join places p on u.user_id = p.code where p.code = 'DE'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u join orders o on u.user_id = o.user_id where u.user_id = 'a' and exists (select 1 from users)",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users group by user_id having user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) filter (where user_id = 'a') from users",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select user_id = 'a' from users order by id",
            "refused: ORDER BY over table \"users\" on several shards",
        ),
    ]);
}

#[test]
fn every_block_needs_its_own_key() {
    routes(&[
        (
            "select 1 from users where user_id = 'a' union select 2 from orders where user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "(select 1 from users where user_id = 'a') union all (select 2 from orders where user_id = 'u3') order by 1 limit 1",
            "shard 2, replica",
        ),
        ("select name from users where user_id = 'a' except select name from countries", "shard 2, replica"),
        ("with u as (select * from users where user_id = 'a') select count(*) from u", "shard 2, replica"),
        (
            "with users as (select * from users where user_id = 'a') select count(*) from users",
            "shard 2, replica",
        ),
        ("with o as (select * from orders) select count(*) from o where user_id = 'a'", "shard 2, replica"),
        (
            "with o as (select * from orders where user_id = 'a'), p as (select * from o) select count(*) from p join users using (user_id)",
            "shard 2, replica",
        ),
        (
            "with recursive t as (select user_id, 1 n from users where user_id = 'a' union all select o.user_id, n + 1 from t join orders o on o.user_id = 'a' where n < 3) select * from t",
            "shard 2, replica",
        ),
        (
            "select * from (select user_id, sum(amount) from orders group by user_id) s where s.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select * from (select user_id k from orders union all select user_id from users) s where k = 'a' order by 1",
            "shard 2, replica",
        ),
        (
            "select * from (select distinct user_id from orders) s(k) where k = 'a' order by 1",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join (select user_id, max(id) from orders group by user_id) s using (user_id) where u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u join (select user_id from orders where user_id = 'a') s on s.user_id = u.user_id",
            "shard 2, replica",
        ),
        (
            "select count(*) from users where user_id = 'a' and id in (select id from orders where user_id = 'a')",
            "shard 2, replica",
        ),
        (
            "select count(*) from users where user_id in (select user_id from orders where user_id = 'a')",
            "shard 2, replica",
        ),
        (
            "select count(*) from users where user_id = any (select user_id from orders where user_id = 'a')",
            "shard 2, replica",
        ),
        (
            "select count(*) from users where user_id = 'a' and user_id in (select user_id from orders)",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u where user_id = 'a' and exists (select 1 from orders o where o.user_id = u.user_id)",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u where user_id = 'a' and not exists (select 1 from orders o where o.user_id = u.user_id)",
            "shard 2, replica",
        ),
        (
            "select (select max(amount) from orders o where o.user_id = u.user_id) from users u where user_id = 'a' order by 1",
            "shard 2, replica",
        ),
        (
            "select array(select amount from orders o where o.user_id = u.user_id) from users u where user_id = 'a' order by 1",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u, lateral (select * from orders o where o.user_id = u.user_id limit 3) l where u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from users u left join lateral (select * from orders o where o.user_id = u.user_id limit 3) l on true where u.user_id = 'a'",
            "shard 2, replica",
        ),
        (
            "select count(*) from orders where user_id = (select user_id from users where user_id = 'a' limit 1)",
            "shard 2, replica",
        ),
        (
            "select count(*) from orders o join (values ('a'), ('u3')) v(k) on v.k = o.user_id",
            "shard 2, replica",
        ),
        ("select count(*) from orders o join (select 'a' as k) v on v.k = o.user_id", "shard 2, replica"),
        ("select * from users where user_id = 'a' for update", "shard 2, primary"),
        (
            "select distinct on (name) * from users where user_id = 'a' order by name limit 5 offset 2",
            "shard 2, replica",
        ),
        (
            "select user_id, row_number() over (order by id) from users where user_id = 'a'",
            "shard 2, replica",
        ),
        ("select ctid, tableoid::regclass from users where user_id = 'a'", "shard 2, replica"),
    ]);
}

#[test]
fn a_block_without_its_key_is_refused() {
    refusals(&[
        (
            "select 1 from users where user_id = 'a' union all select 2 from orders",
            "refused: UNION over table \"orders\" on several shards",
        ),
        (
            "select 1 from users where user_id = 'a' union select 2 from users where user_id = 'z'",
            "refused: one statement over several shards (table \"users\" on shard2, table \"users\" on shard3)",
        ),
        (
            "select 1 from users intersect select 2 from users where user_id = 'z'",
            "refused: INTERSECT over table \"users\" on several shards",
        ),
        (
            "with u as (select * from users) select count(*) from u a join u b using (user_id) where a.user_id = 'a'",
            "refused: WITH over table \"users\" on several shards",
        ),
        (
            "with users as (select * from users) select * from users where name = 'a'",
            "refused: WITH over table \"users\" on several shards",
        ),
        (
            "with recursive t as (select user_id from users union select o.user_id from t join orders o using (user_id)) select * from t where user_id = 'a'",
            "refused: WITH over table \"users\" on several shards",
        ),
        (
            "select * from (select * from users limit 10) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select * from users order by id fetch first 3 rows only) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select max(user_id) user_id from users) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select user_id, rank() over (order by id) from users) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select distinct on (name) * from users) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select user_id from users group by rollup (user_id)) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select lower(user_id) user_id from users) s where user_id = 'a'",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "select * from (select user_id from users for update) s where user_id = 'a'",
            "refused: FOR UPDATE or FOR SHARE over table \"users\" on several shards",
        ),
        (
            "select * from (select user_id, nextval('s') from users) s where user_id = 'a'",
            "refused: function nextval, whose answer differs from shard to shard, over table \"users\" on several shards",
        ),
        (
            "select count(*) from users where user_id = 'a' and id not in (select id from orders)",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u where user_id = 'a' and exists (select 1 from orders o where o.order_id = u.name)",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u where user_id = 'a' or exists (select 1 from orders o where o.user_id = u.user_id)",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        // The subquery restricts its own rows, not those outside.
        (
            "select count(*) from users u where exists (select 1 from orders o where o.user_id = 'a' and u.user_id = 'a')",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u where not exists (select 1 from orders o where o.user_id = 'a' and u.user_id = o.user_id)",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users where user_id not in (select user_id from orders where user_id = 'a')",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from orders where user_id = (select max(user_id) from users where user_id = 'a')",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select (select count(*) from users), 1",
            "refused: a subquery over table \"users\" on several shards",
        ),
        (
            "values ((select count(*) from users))",
            "refused: VALUES with a subquery over table \"users\" on several shards",
        ),
        (
            "select count(*) from orders o join (values ('a'), (lower('B'))) v(k) on v.k = o.user_id",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u, lateral (select user_id from orders limit 1) l where u.user_id = 'a'",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        // Not correlated: without LATERAL the inner u is unknown, and orders stays open.
        (
            "select count(*) from users u, (select o.user_id from orders o, users u where o.user_id = u.user_id) l where u.user_id = 'a'",
            "refused: aggregate count(*) over table \"orders\" on several shards",
        ),
        // In the ON clause only the two sides are in sight: the user_id is that of orders.
        (
            "select count(*) from users u, countries c join orders o on user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
    ]);
}

#[test]
fn names_mean_what_their_scope_says() {
    routes(&[
        // The inner user_id is the inner table's, not the outer one's.
        (
            "select count(*) from users where user_id = 'a' and exists (select 1 from orders where user_id = 'a')",
            "shard 2, replica",
        ),
        (
            "select count(*) from users where user_id = 'a' and exists (select 1 from countries where user_id = 'z')",
            "shard 2, replica",
        ),
        (
            "with users as (select 'q'::text user_id) select count(*) from users where user_id = 'a'",
            "any shard, replica",
        ),
        (
            "with x as (select 1), users as (select * from countries) select count(*) from users",
            "any shard, replica",
        ),
        ("select count(*) from countries users where users.name = 'a'", "any shard, replica"),
        (
            "select count(*) from public.users users join countries c on true where users.user_id = 'a'",
            "shard 2, replica",
        ),
        ("select count(*) from \"Users\" where user_id = 'a'", "shard 1, replica"),
        ("select count(*) from app.users where user_id = 'a'", "shard 1, replica"),
        ("select count(*) from generate_series(1, 3) user_id where user_id = 2", "any shard, replica"),
    ]);
    refusals(&[
        (
            "select count(*) from users where \"User_id\" = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u where users.user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "select count(*) from users u(a, user_id, c) where a = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        (
            "with users(x) as (select * from orders) select count(*) from users where x = 'a'",
            "refused: WITH over table \"orders\" on several shards",
        ),
        (
            "select count(*) from users u, lateral (select 'a' user_id) s where s.user_id = 'a'",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
    ]);
    routes(&[("select count(*) from users u(k, key) where key = 'a'", "shard 2, replica")]);
}
