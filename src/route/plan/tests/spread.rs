//! What several shards may answer together, and what they may not.

use super::fixture::routes_with;
use super::{Sent, refusals, routes};

/// All shards.
const ALL: &str = "shards 1+2+3, replica, concatenate";

#[test]
fn plain_rows_are_concatenated() {
    routes(&[
        ("select * from users", ALL),
        ("select all id, lower(name), id + 1 from users where email like '%@x' and id > 7", ALL),
        ("select random(), gen_random_uuid() from users", ALL),
        ("select generate_series(1, 3), name from users", ALL),
        ("select to_char(created_at, 'YYYY'), current_user from users", ALL),
        ("select u from users u", ALL),
        ("select * from users u join orders o on o.user_id = u.user_id", ALL),
        ("select * from users join orders using (user_id)", ALL),
        ("select * from users natural join members", ALL),
        ("select * from users, orders where users.user_id = orders.user_id", ALL),
        ("select * from users u left join orders o on o.user_id = u.user_id", ALL),
        ("select * from users u left join orders o on o.user_id = u.user_id and o.amount > 5", ALL),
        ("select * from orders o right join users u using (user_id)", ALL),
        ("select * from users u join users v on u.partition_key = v.partition_key", ALL),
        ("select * from users u join countries c on c.code = u.name", ALL),
        ("select * from users u left join countries c on c.code = u.name", ALL),
        ("select * from users u cross join countries c", ALL),
        ("select * from countries c join users u on true left join orders o on o.user_id = u.user_id", ALL),
        ("select * from users, generate_series(1, 3) g", ALL),
        ("select * from users u where exists (select 1 from orders o where o.user_id = u.user_id)", ALL),
        ("select * from users u where not exists (select 1 from orders o where o.user_id = u.user_id)", ALL),
        ("select * from users where user_id in (select user_id from orders where amount > 5)", ALL),
        ("select u.id, (select count(*) from orders o where o.user_id = u.user_id) from users u", ALL),
        (
            "select u.id, (select o.id from orders o where o.user_id = u.user_id order by 1 limit 1) from users u",
            ALL,
        ),
        (
            "select * from users u, lateral (select * from orders o where o.user_id = u.user_id limit 3) l",
            ALL,
        ),
        (
            "select * from users u join (select user_id, sum(amount) from orders group by user_id) s using (user_id)",
            ALL,
        ),
        ("select * from users where name in (select name from countries)", ALL),
        ("select * from users where id > (select max(code) from countries)", ALL),
        (
            "select * from users u join orders o on o.user_id = u.user_id where u.user_id in ('u1', 'a')",
            "shards 1+2, replica, concatenate",
        ),
        ("select * from users where partition_key in ('C', 'D')", "shards 2+3, replica, concatenate"),
        ("select * from users where true", ALL),
    ]);
}

#[test]
fn what_needs_all_rows_at_once_is_refused() {
    refusals(&[
        ("select count(*) from users", "refused: aggregate count(*) over table \"users\" on several shards"),
        ("select max(id) + 1 from users", "refused: aggregate max(…) over table \"users\" on several shards"),
        (
            "select pg_catalog.count(id) from users",
            "refused: aggregate count(…) over table \"users\" on several shards",
        ),
        (
            "select 1 from users having count(*) > 1",
            "refused: aggregate count(*) over table \"users\" on several shards",
        ),
        ("select 1 from users having true", "refused: HAVING over table \"users\" on several shards"),
        (
            "select unheard_of(id) from users",
            "refused: aggregate unheard_of(…) over table \"users\" on several shards",
        ),
        ("select name from users group by name", "refused: GROUP BY over table \"users\" on several shards"),
        ("select name from users group by ()", "refused: GROUP BY over table \"users\" on several shards"),
        ("select distinct name from users", "refused: DISTINCT over table \"users\" on several shards"),
        (
            "select distinct on (name) name from users",
            "refused: DISTINCT over table \"users\" on several shards",
        ),
        (
            "select rank() over (order by id) from users",
            "refused: window function rank(…) over table \"users\" on several shards",
        ),
        (
            "select sum(id) over w from users window w as (order by id)",
            "refused: window function sum(…) over table \"users\" on several shards",
        ),
        ("select * from users order by id", "refused: ORDER BY over table \"users\" on several shards"),
        ("select * from users limit 1", "refused: LIMIT or OFFSET over table \"users\" on several shards"),
        ("select * from users offset 1", "refused: LIMIT or OFFSET over table \"users\" on several shards"),
        (
            "select * from users fetch first row only",
            "refused: FETCH FIRST over table \"users\" on several shards",
        ),
        (
            "select * from users for update",
            "refused: FOR UPDATE or FOR SHARE over table \"users\" on several shards",
        ),
        (
            "select * from users tablesample system (10)",
            "refused: TABLESAMPLE over table \"users\" on several shards",
        ),
        ("select * into t2 from users", "refused: SELECT INTO over table \"users\" on several shards"),
        (
            "select id from users union all select id from orders",
            "refused: UNION over table \"users\" on several shards",
        ),
        (
            "select id from users except select id from countries",
            "refused: EXCEPT over table \"users\" on several shards",
        ),
        ("(select * from users)", "refused: a query in parentheses over table \"users\" on several shards"),
        ("with x as (select 1) select * from users", "refused: WITH over table \"users\" on several shards"),
        (
            "select (select count(u.id)) from users u",
            "refused: an aggregate of an outer query over table \"users\" on several shards",
        ),
        (
            "select (select count(u.id) from countries) from users u",
            "refused: an aggregate of an outer query over table \"users\" on several shards",
        ),
    ]);
}

#[test]
fn joins_that_do_not_stay_on_a_shard_are_refused() {
    const NOT_EQUAL: &str = "refused: a join or subquery that is not on equal sharding keys, over table";
    const REPEATS: &str = "refused: an outer join that would repeat rows on every shard, over table";
    let table = [
        ("select * from users u join orders o on o.order_id = u.name", NOT_EQUAL, "users"),
        ("select * from users, orders", NOT_EQUAL, "users"),
        ("select * from users u join orders o on o.user_id = u.name", NOT_EQUAL, "users"),
        ("select * from users u join orders o on o.user_id = u.user_id or o.id = u.id", NOT_EQUAL, "users"),
        ("select * from users u left join orders o on o.id = u.id", NOT_EQUAL, "users"),
        ("select * from users u full join orders o using (user_id)", REPEATS, "users"),
        ("select * from countries c left join users u on u.name = c.name", REPEATS, "users"),
        ("select * from users u right join countries c on u.name = c.name", REPEATS, "users"),
        ("select * from events e join accounts a on a.account_id = e.id", NOT_EQUAL, "events"),
        ("select * from users u join places p on p.code = u.user_id", NOT_EQUAL, "users"),
        ("select * from accounts a join transfers t on t.other = a.account_id", NOT_EQUAL, "accounts"),
        ("select * from users where user_id not in (select user_id from orders)", NOT_EQUAL, "users"),
        ("select * from users where id in (select id from orders)", NOT_EQUAL, "users"),
        ("select * from users where exists (select 1 from orders)", NOT_EQUAL, "users"),
        ("select * from users where id > (select max(id) from users)", NOT_EQUAL, "users"),
        ("select id, (select count(*) from orders) from users", NOT_EQUAL, "users"),
        (
            "select * from users u join (select user_id from orders limit 5) s using (user_id)",
            NOT_EQUAL,
            "users",
        ),
        (
            "select * from users u join (select max(user_id) user_id from orders) s using (user_id)",
            NOT_EQUAL,
            "users",
        ),
        ("select * from (select * from users) s", "refused: a subquery over table", "users"),
        (
            "select * from countries where name in (select name from users)",
            "refused: a subquery over table",
            "users",
        ),
    ];
    let table = table.map(|(sql, lead, name)| (sql, format!("{lead} \"{name}\" on several shards")));
    refusals(&table.each_ref().map(|(sql, want)| (*sql, want.as_str())));
}

#[test]
fn functions_whose_answer_differs_are_refused() {
    let differs = |name: &str| {
        format!(
            "refused: function {name}, whose answer differs from shard to shard, over table \"users\" on several shards"
        )
    };
    for (sql, want) in [
        ("select now() from users", differs("now")),
        ("select * from users where created_at < current_timestamp", differs("current_timestamp")),
        ("select * from users where created_at < now() at time zone 'utc'", differs("now")),
        ("select inet_server_port() from users", differs("inet_server_port")),
        ("select pg_backend_pid(), id from users", differs("pg_backend_pid")),
        ("select version() from users", differs("version")),
        ("select nextval('s') from users", differs("nextval")),
        ("select * from users, random() r", differs("random")),
        ("select * from users, unheard_of() r", differs("unheard_of")),
        (
            "select count_users() from users",
            "refused: function \"count_users\", which names sharded table \"users\"".into(),
        ),
        (
            "select * from users where id > (select random())",
            "refused: function random in a subquery beside table \"users\" on several shards".into(),
        ),
        (
            "select * from users where name in (select name from countries limit 1)",
            "refused: LIMIT, OFFSET or DISTINCT ON in a subquery beside table \"users\" on several shards"
                .into(),
        ),
        (
            "select * from users where name = (select string_agg(name, '') from countries)",
            "refused: function string_agg in a subquery beside table \"users\" on several shards".into(),
        ),
        (
            "select ctid from users",
            "refused: system column \"ctid\" over table \"users\" on several shards".into(),
        ),
        (
            "select u.tableoid::regclass from users u",
            "refused: system column \"tableoid\" over table \"users\" on several shards".into(),
        ),
        (
            "select 'users'::regclass from users",
            "refused: cast to regclass over table \"users\" on several shards".into(),
        ),
    ] {
        refusals(&[(sql, want.as_str())]);
    }
}

#[test]
fn words_for_the_present_moment_are_refused_as_values() {
    let sql = "select * from users where created_at > $1";
    let refused = "refused: the literal 'now', 'today', 'tomorrow' or 'yesterday', which may differ from shard to shard, over table \"users\" on several shards";
    routes_with(&[
        (sql, &[Sent::Text("2024-01-01")], ALL),
        (sql, &[Sent::Text("Today")], refused),
        ("select * from users where created_at > 'now'", &[], refused),
        ("select * from users where created_at > 'later'", &[], ALL),
        ("select * from users where user_id = 'u1' and created_at > 'now'", &[], "shard 1, replica"),
    ]);
}
