//! Settings that functions, triggers and DO blocks change are kept for the session that ran them, as on one server, and
//! are nobody else's: a client and another share one server connection, and the same client speaks to a server.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use common::{Changes, Front, Pair, failure, rows};
use tokio_postgres::Client;

const CODE: &str = "
    create table plain (i int); create table t (i int); create table parent (i int primary key);
    create table child (i int references parent on delete cascade);
    create table wide (i int) partition by range (i);
    create table part partition of wide for values from (0) to (100);
    create table checked (i int); create table filled (i int, j text); create table guarded (i int);
    insert into guarded values (1);
    create function sets() returns text language plpgsql as
      $$ begin perform set_config('work_mem', '7MB', false); return 'done'; end $$;
    create function says(v text) returns text language plpgsql as
      $$ begin perform set_config('app.who', v, false); return v; end $$;
    create function says_it(v text) returns text language plpgsql as $$ begin return says(v); end $$;
    create function whispers(v text) returns text language plpgsql as
      $$ begin perform set_config('app.who', v, true); return v; end $$;
    create function parsed(v text) returns text begin atomic select set_config('app.who', v, false); end;
    create function zone(v text) returns void language plpgsql as
      $$ begin execute 'set timezone = ' || quote_literal(v); end $$;
    create function runs(v text) returns void language plpgsql as $$ begin execute v; end $$;
    create function forgets() returns void language plpgsql as $$ begin reset work_mem; reset app.who; end $$;
    create function forgets_all() returns void language sql as $$ reset all $$;
    create function keeps() returns text language plpgsql set work_mem = '9MB' as
      $$ begin perform set_config('work_mem', '8MB', false); return current_setting('work_mem'); end $$;
    create function is_fine(v int) returns bool language plpgsql as
      $$ begin perform says('checked ' || v); return true; end $$;
    create function noted() returns trigger language plpgsql as
      $$ begin perform set_config('app.who', tg_table_name, false); return new; end $$;
    create function goes() returns trigger language plpgsql as
      $$ begin set app.who = 'gone'; return old; end $$;
    create function plus(a int, b int) returns int language plpgsql as
      $$ begin perform says('plus'); return a + b; end $$;
    create trigger noted before insert or update on t for each row execute function noted();
    create trigger goes before delete on child for each row execute function goes();
    create trigger noted before insert on part for each row execute function noted();
    alter table checked add check (is_fine(i));
    alter table filled alter j set default says('filled');
    create view seen as select says('seen') as v;
    create view writable as select * from t;
    create view twice as select * from seen;
    create rule also as on insert to plain do also select 1;
    create function writes() returns void language sql as $$ insert into t values (5) $$;
    create aggregate sums(int) (sfunc = plus, stype = int, initcond = '0');
    create procedure commits(v text) language plpgsql as
      $$ begin perform set_config('app.who', v, false); commit; perform set_config('app.who', 'lost', false);
         perform 1/0; end $$;
    alter table guarded enable row level security; alter table guarded force row level security;
    create policy p on guarded using (is_fine(i));
    create role other; grant other to app; grant all on all tables in schema public to other;
    create function becomes() returns void language plpgsql as $$ begin set role other; end $$;
    ";

const SHOWN: &str = "select current_setting('work_mem'), coalesce(current_setting('app.who', true), ''), \
     current_setting('timezone'), current_setting('search_path'), current_setting('role'), current_user, \
     current_setting('datestyle'), coalesce(current_setting('b.c', true), '')";

/// A proxy with one server connection, a client of it and its twin on the server, and another client.
struct World {
    front: Front,
    pair: Pair,
    other: Client,
    fresh: Vec<String>,
}

impl World {
    async fn start(parameters: &[(&str, &str)]) -> Self {
        let pool = "size = 1\nmin_idle = 0\nmax_pinned = 1";
        let front = Front::plain(0, Changes { pool, ..Changes::default() }).await;
        front.herd.primary(0).sql("alter role app superuser").await;
        let other = front.connect().await;
        other.batch_execute(CODE).await.unwrap();
        let fresh = rows(&other, SHOWN).await;
        let pair = Pair::connect(front.herd.primary(0).port, front.port, parameters).await;
        Self { front, pair, other, fresh }
    }

    /// Runs a statement on both sides, and shows what the session has then; the other client meets nothing of it.
    async fn step(&mut self, sql: &str, extended: bool) {
        if extended && !sql.contains(';') {
            self.pair.extended(sql, &[]).await;
        } else {
            self.pair.query(sql).await;
        }
        if self.pair.query("").await.last().is_some_and(|word| word.ends_with('I')) {
            let other = self.other.query(SHOWN, &[]).await;
            assert!(other.is_ok(), "{sql}: {other:?}");
            assert_eq!(rows(&self.other, SHOWN).await, self.fresh, "what another has after {sql}");
        }
        let shown = self.pair.query(SHOWN).await;
        // Both have run the same: only a failed transaction shows nothing.
        assert!(
            shown.iter().any(|word| word.starts_with("row ") || word.contains("25P02")),
            "{sql}: {shown:?}"
        );
    }
}

async fn agree(parameters: &[(&str, &str)], code: &str, statements: &[&str]) {
    for extended in [false, true] {
        let mut world = World::start(parameters).await;
        world.other.batch_execute(code).await.unwrap();
        for sql in statements {
            world.step(sql, extended).await;
        }
        let admin = world.front.admin().await;
        let pins = rows(&admin, "select pin from pgherd.clients where pin is not null").await;
        assert!(pins.is_empty(), "{pins:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_functions_set_is_kept_for_their_session_alone() {
    agree(
        &[],
        "",
        &[
            "select sets()",
            "select says('a')",
            "select says_it('b é''\\')",
            "select whispers('c')",
            "select parsed('d')",
            "select zone('Asia/Tokyo')",
            "select runs('set datestyle = ''German''')",
            "select runs('set app.who = ''run''')",
            "select runs('set b.c = ''run''')",
            "select keeps()",
            "select forgets()",
            "set work_mem = '3MB'",
            "select says('e')",
            "select forgets()",
            "select sets(), says('f')",
            "select forgets_all()",
            "select set_config('app.who', (select 'g'), false)",
            "select set_config('app.who', 'h' || i, false) from generate_series(1, 3) i",
            "select set_config('search_path', 'pg_catalog, public', false) where true",
            "select query_to_xml('select set_config(''app.who'', ''xml'', false)', true, true, '') is null",
            "reset all",
            "select becomes()",
            "reset role",
            "select sums(i) from (values (1), (2)) v(i)",
            "discard all",
            "do $$ begin set work_mem = '11MB'; perform set_config('app.who', 'do', false); end $$",
            "do $$ begin set local work_mem = '12MB'; end $$",
            "do $$ begin set work_mem = '13MB'; raise exception 'no'; end $$",
            "do $$ begin begin set work_mem = '14MB'; raise exception 'no'; exception when others then null; end; end $$",
            "call commits('called')",
            "set statement_timeout = '5s'",
            "do $$ begin set statement_timeout = '9s'; end $$",
            "show statement_timeout",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_unasked_is_followed_too() {
    agree(
        &[],
        "",
        &[
            "insert into t values (1)",
            "select says('between')",
            "update t set i = 2",
            "insert into parent values (pg_backend_pid())",
            "insert into child values (pg_backend_pid())",
            "delete from parent where i = pg_backend_pid()",
            "select says('between')",
            "insert into wide values (3)",
            "insert into checked values (4)",
            "insert into filled values (5)",
            "select says('between')",
            "select v from seen",
            "select says('between')",
            "select v from twice",
            "insert into writable values (6)",
            "select says('between')",
            "select writes()",
            "with x as (insert into t values (7) returning i) select i from x",
            "explain (analyze, costs off, timing off, summary off) insert into t values (8)",
            "select says('between')",
            "merge into t using (values (9)) s(i) on false when not matched then insert values (s.i)",
            "create temp table made on commit drop as select says('made') as v",
            "insert into plain values (1)",
            "begin",
            "declare c cursor for select says('fetched')",
            "fetch c",
            "commit",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_and_domains_run_code_too() {
    let code = "create domain odd as int check (is_fine(value)); create table odds (i odd);
        create operator @+@ (leftarg = int, rightarg = int, function = plus)";
    agree(
        &[],
        code,
        &[
            "create temp table made (i odd) on commit drop",
            "select 1 @+@ 2",
            "select says('between')",
            "select 3::odd",
            "select says('between')",
            "insert into odds values (5)",
            "set role other",
            "select i from guarded",
            "reset role",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expressions_set_without_any_code_of_users_is_followed_too() {
    let code = "create view tells as select set_config('app.who', 'view', false) as v;
        create view tells_again as select v from tells;
        create function asks() returns text language sql as 'select v from tells_again';
        create table given (i int, j text default set_config('app.who', 'default', false));
        create table held (i int check (set_config('app.who', 'check', false) is not null));
        create table kept (i int); alter table kept enable row level security; insert into kept values (1);
        create policy p on kept using (set_config('app.who', 'policy', false) is not null);
        create function argued(v text default set_config('app.who', 'argument', false)) returns text
          language sql as 'select v';
        create table told (i int); create trigger told before insert on told for each row
          when (set_config('app.who', 'when', false) is not null) execute function suppress_redundant_updates_trigger();
        create function dotted(plain) returns text language plpgsql as
          $$ begin perform set_config('app.who', 'dotted', false); return 'x'; end $$;
        insert into plain values (1); create table ruled (i int); create rule r as on insert to ruled do instead select set_config('app.who', 'rule', false);
        grant all on all tables in schema public to other";
    let statements = [
        "select v from tells",
        "select says('between')",
        "select v from tells_again",
        "select says('between')",
        "select asks()",
        "insert into given (i) values (1)",
        "insert into held values (1)",
        "set role other",
        "select i from kept",
        "reset role",
        "select argued()",
        "insert into ruled values (1)",
        "table tells",
        "select says('between')",
        "table tells_again order by v",
        "select says('between')",
        "select p.dotted from plain p",
        "select says('between')",
        "select (row(1)::plain).dotted",
    ];
    agree(&[], code, &statements).await;
    let domain = "create domain whose as int check (set_config('app.who', 'domain', false) is not null)";
    agree(&[], domain, &["select says('before')", "select 3::whose"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_event_trigger_sets_is_followed() {
    let code = "create function fires() returns event_trigger language plpgsql as
          $$ begin perform set_config('app.who', tg_tag, false); end $$;
        create event trigger fires on ddl_command_end execute function fires()";
    let statements = [
        "create temp table made (i int) on commit drop",
        "select says('between')",
        "select 1 as i into temp gone from t where false; drop table gone",
    ];
    agree(&[], code, &statements).await;
    // Two sessions cannot comment on one table at once: here one does.
    let world = World::start(&[]).await;
    world.other.batch_execute(code).await.unwrap();
    let client = world.front.connect().await;
    for (sql, tag) in [
        ("comment on table t is 'a comment'", "COMMENT"),
        ("grant select on t to other", "GRANT"),
        ("do $$ begin execute 'comment on table t is null'; end $$", "COMMENT"),
    ] {
        client.batch_execute(sql).await.unwrap();
        assert_eq!(rows(&client, "select current_setting('app.who')").await, [tag], "{sql}");
        assert_eq!(rows(&world.other, SHOWN).await, world.fresh, "what another has after {sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_code_set_is_rolled_back_with_its_transaction() {
    agree(
        &[],
        "",
        &[
            "select says('before')",
            "begin",
            "select says('inside'), sets()",
            "savepoint s",
            "select says('deeper'), zone('Europe/Rome')",
            "rollback to s",
            "commit",
            "begin",
            "select says('never'), zone('Europe/Rome')",
            "rollback",
            "begin",
            "select says('never')",
            "select 1/0",
            "commit",
            "begin",
            "set local app.who = 'local'",
            "select sets()",
            "set work_mem = '2MB'",
            "commit",
            "select says('never'), 1/0",
            "select says('never'); select 1/0",
            "select says('several'); select sets()",
            "begin; select says('text'); commit; select says('never'); select 1/0",
            "begin; insert into t values (1); rollback",
            "begin",
            "set work_mem = '4MB'",
            "select forgets()",
            "rollback",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_that_resets_goes_back_to_startup_parameters() {
    agree(
        &[("work_mem", "5MB"), ("b.c", "login"), ("TimeZone", "Asia/Tokyo")],
        "",
        &[
            "select sets()",
            "select forgets()",
            "select zone('UTC')",
            "reset all",
            "select zone('Europe/Rome'), sets(), says('y')",
            "reset timezone",
            "reset work_mem",
            "reset app.who",
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_whose_name_nobody_knows_keeps_its_server() {
    let mut world = World::start(&[]).await;
    let any = "create function any_name(k text, v text) returns text language plpgsql as
        $$ begin perform set_config('app.' || k, v, false); return v; end $$";
    world.other.batch_execute(any).await.unwrap();
    rows(&world.other, "select 'the catalogs are read again'").await;
    world.pair.query("select any_name('who', 'me')").await;
    world.pair.query("select current_setting('app.who')").await;
    let admin = world.front.admin().await;
    let pin = "select pin from pgherd.clients where pin is not null";
    assert_eq!(rows(&admin, pin).await, ["set_config"]);
    // Nothing that code sets later takes it away.
    world.pair.query("select says('you'), any_name('else', 'x'), sets()").await;
    world
        .pair
        .query("select current_setting('app.else'), current_setting('app.who'), current_setting('work_mem')")
        .await;
    world.pair.query("discard all").await;
    world.pair.query("select coalesce(current_setting('app.else', true), '')").await;
    assert!(rows(&admin, pin).await.is_empty());
    assert_eq!(rows(&world.other, SHOWN).await, world.fresh);
    // In a call by number its arguments are not looked at.
    let mut call = 2078u32.to_be_bytes().to_vec();
    call.extend([0, 0, 0, 3]);
    for argument in ["app.fast", "x", "f"] {
        call.extend((argument.len() as u32).to_be_bytes());
        call.extend(argument.as_bytes());
    }
    call.extend([0, 0]);
    world.pair.same(|wire| wire.frame(b'F', &call, 1)).await;
    assert_eq!(rows(&admin, pin).await, ["set_config"]);
    world.pair.query("select current_setting('app.fast')").await;
    world.pair.query("discard all").await;
    assert_eq!(rows(&world.other, "select coalesce(current_setting('app.fast', true), '')").await, [""]);
    // Nor does code that was made in the same transaction.
    let made = "create function named(k text) returns text language sql as $$ select set_config('app.' || k, 'x', false) $$";
    for sql in ["begin", made, "select named('new')", "commit"] {
        world.other.batch_execute(sql).await.unwrap();
    }
    assert_eq!(rows(&world.other, "select current_setting('app.new')").await, ["x"]);
    world.other.batch_execute("discard all").await.unwrap();
    // A seed can be neither shown nor undone.
    world.pair.query("select setseed(0.25)").await;
    world.pair.query("select random()").await;
    assert_eq!(rows(&admin, pin).await, ["session state"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_several_shards_what_code_sets_follows_its_session() {
    let front = Front::demo(0, Changes { pool: "size = 1\nmin_idle = 0", ..Changes::default() }).await;
    let client = front.connect().await;
    let code = "create function says(v text) returns text language plpgsql as
            $$ begin perform set_config('app.who', v, false); return v; end $$;
         create function any_name(k text) returns text language plpgsql as
            $$ begin perform set_config(k, 'x', false); return k; end $$";
    for shard in ["shard1", "shard2", "shard3"] {
        for sql in code.split_inclusive("$$;") {
            client.batch_execute(&format!("/* pgherd: shard={shard} */ {sql}")).await.unwrap();
        }
    }
    let other = front.connect().await;
    assert_eq!(rows(&client, "select says('me')").await, ["me"]);
    for user in ["user_1", "user_2", "user_3", "user_4", "user_5", "user_6"] {
        let sql = format!(
            "select coalesce(current_setting('app.who', true), '') from (values (1)) v(i) \
             left join users u on u.user_id = '{user}'"
        );
        assert_eq!(rows(&client, &sql).await, ["me"], "{user}");
        assert_eq!(rows(&other, &sql).await, [""], "{user}");
    }
    let (code, message) = failure(&client, "select any_name('app.who')").await;
    assert_eq!(code, "0A000", "{message}");
    let (code, message) = failure(&client, "select setseed(0.5)").await;
    assert_eq!(code, "0A000", "{message}");
}
