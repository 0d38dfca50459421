//! The same messages to one PostgreSQL and to the proxy: every answer is the same, byte for byte but for what names the
//! server process.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use bytes::{BufMut, BytesMut};
use common::{Changes, Front, Message, Pg, Raw};
use pgherd::wire::{DescribeTarget, ErrorFields, FrontendWriter, parse_row_description};

/// What is sent, and how much of the answer is read before the next step.
struct Step {
    bytes: BytesMut,
    until: Until,
}

enum Until {
    /// So many ReadyForQuery.
    Ready(usize),
    /// So many messages, whatever they are.
    Messages(usize),
}

fn step(until: Until, write: impl FnOnce(&mut BytesMut)) -> Step {
    let mut bytes = BytesMut::new();
    write(&mut bytes);
    Step { bytes, until }
}

fn query(sql: &str) -> Step {
    step(Until::Ready(1), |out| out.put_query(sql.as_bytes()))
}

/// Writes messages.
type Write = fn(&mut BytesMut);

/// Short for a batch that ends with one Sync.
fn batch(write: impl FnOnce(&mut BytesMut)) -> Step {
    step(Until::Ready(1), |out| {
        write(out);
        out.put_sync();
    })
}

trait Short {
    fn parse(&mut self, name: &str, sql: &str);
    fn bind(&mut self, portal: &str, statement: &str);
    fn describe(&mut self, target: DescribeTarget<'_>);
    fn close(&mut self, target: DescribeTarget<'_>);
    /// Parse, Bind, Describe, Execute without names.
    fn run(&mut self, sql: &str);
    fn data(&mut self, data: &[u8]);
}

impl Short for BytesMut {
    fn parse(&mut self, name: &str, sql: &str) {
        self.put_parse(name, sql.as_bytes(), &[]);
    }

    fn bind(&mut self, portal: &str, statement: &str) {
        self.put_bind(portal, statement, &[0; 6]);
    }

    fn describe(&mut self, target: DescribeTarget<'_>) {
        self.put_target(b'D', target);
    }

    fn close(&mut self, target: DescribeTarget<'_>) {
        self.put_target(b'C', target);
    }

    fn run(&mut self, sql: &str) {
        self.parse("", sql);
        self.bind("", "");
        self.describe(DescribeTarget::Portal(""));
        self.put_execute("", 0);
    }

    fn data(&mut self, data: &[u8]) {
        self.put_frame(b'd', data);
    }
}

/// One message as it can be compared.
fn shown((tag, body): &Message) -> String {
    let tag_text = char::from(*tag);
    match tag {
        b'E' | b'N' => {
            let e = ErrorFields::parse(body).unwrap();
            format!("{tag_text} {} {} {} {:?} {:?}", e.severity, e.code, e.message, e.detail, e.hint)
        }
        b'T' => {
            let mut fields = parse_row_description(body).unwrap();
            fields.iter_mut().for_each(|f| f.table_oid = f.table_oid.min(1)); // differs between databases
            format!("T {fields:?}")
        }
        _ => format!("{tag_text} {}", body.escape_ascii()),
    }
}

async fn play(raw: &mut Raw, steps: &[Step]) -> Vec<String> {
    let mut seen = Vec::new();
    for (i, step) in steps.iter().enumerate() {
        seen.push(format!("-- step {i}"));
        raw.out.put_slice(&step.bytes);
        raw.send().await;
        let (mut ready, mut messages) = (0, 0);
        loop {
            let enough = match step.until {
                Until::Ready(n) => ready >= n,
                Until::Messages(n) => messages >= n,
            };
            if enough {
                break;
            }
            let Some(message) = raw.next().await else {
                seen.push("closed".into());
                return seen;
            };
            ready += usize::from(message.0 == b'Z');
            messages += 1;
            seen.push(shown(&message));
        }
    }
    seen
}

struct Both {
    plain: Pg,
    front: Front,
}

impl Both {
    async fn start() -> Self {
        let changes = Changes { pool: "size = 2\nmin_idle = 0", ..Changes::default() };
        let both = Self { plain: Pg::start().await, front: Front::plain(0, changes).await };
        let schema = "create table t (i int primary key, s text); create table u (i int, s text);
             create table closed (i int, s text);
             create function fails() returns trigger language plpgsql as
               $$ begin raise exception 'nothing may be added' using errcode = 'P0123'; end $$;
             create trigger fails before insert on closed for each statement execute function fails()";
        both.plain.connect_app().await.batch_execute(schema).await.unwrap();
        both.front.connect().await.batch_execute(schema).await.unwrap();
        both
    }

    /// Plays a scene on both, each on a fresh connection, then looks at what it has left.
    async fn compare(&self, name: &str, steps: Vec<Step>) -> Option<String> {
        let mut steps = steps;
        steps.push(batch(|_| {}));
        steps.push(query("rollback"));
        steps.push(query("select * from t order by i; select * from u order by i, s"));
        steps.push(query("truncate t, u"));
        let mut one = Raw::direct(&self.plain).await;
        let mut herd = Raw::connect(&self.front).await;
        let (want, got) = (play(&mut one, &steps).await, play(&mut herd, &steps).await);
        let differs = want.iter().zip(&got).position(|(a, b)| a != b);
        let at = differs.or_else(|| (want.len() != got.len()).then(|| want.len().min(got.len())))?;
        let near = |lines: &[String]| {
            lines[at.saturating_sub(3).min(lines.len())..]
                .iter()
                .take(8)
                .cloned()
                .collect::<Vec<_>>()
                .join("\n    ")
        };
        Some(format!("{name}:\n  one\n    {}\n  herd\n    {}", near(&want), near(&got)))
    }

    async fn all_equal(&self, scenes: Vec<(&str, Vec<Step>)>) {
        let mut wrong = Vec::new();
        for (name, steps) in scenes {
            wrong.extend(self.compare(name, steps).await);
        }
        assert!(wrong.is_empty(), "{} scenes differ:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn portals_and_statements_are_one_servers() {
    use DescribeTarget::{Portal, Statement};
    let series = "select generate_series(1, 5)";
    let scenes = vec![
        (
            "a portal is continued over Syncs in a transaction",
            vec![
                query("begin"),
                batch(|o| {
                    o.parse("s", series);
                    o.bind("p", "s");
                    o.describe(Portal("p"));
                    o.put_execute("p", 2);
                }),
                batch(|o| {
                    o.put_execute("p", 2);
                    o.describe(Portal("p"));
                }),
                batch(|o| o.put_execute("p", 2)),
                batch(|o| o.put_execute("p", 2)),
                batch(|o| {
                    o.close(Portal("p"));
                    o.put_execute("p", 1);
                }),
                query("commit"),
            ],
        ),
        (
            "a portal ends with its transaction",
            vec![
                query("begin"),
                batch(|o| {
                    o.parse("s", series);
                    o.bind("p", "s");
                    o.put_execute("p", 1);
                }),
                query("commit"),
                batch(|o| o.put_execute("p", 1)),
                batch(|o| o.describe(Portal("p"))),
                batch(|o| {
                    o.bind("p", "s");
                    o.put_execute("p", 0);
                }),
                batch(|o| o.put_execute("p", 0)),
            ],
        ),
        (
            "a portal outside a transaction ends at Sync, not before",
            vec![
                batch(|o| {
                    o.parse("", series);
                    o.bind("", "");
                    for _ in 0..4 {
                        o.put_execute("", 2);
                    }
                }),
                batch(|o| o.put_execute("", 2)),
                batch(|o| {
                    o.parse("", series);
                    o.bind("q", "");
                    o.put_execute("q", 5);
                    o.put_execute("q", 5);
                    o.put_execute("q", 0);
                }),
            ],
        ),
        (
            "limits of all kinds",
            vec![
                batch(|o| {
                    o.parse("", series);
                    o.bind("", "");
                    o.put_execute("", -1);
                }),
                batch(|o| {
                    o.parse("", "insert into t values (1, 'a'), (2, 'b') returning i");
                    o.bind("", "");
                    o.put_execute("", 1);
                    o.put_execute("", 1);
                    o.put_execute("", 1);
                }),
                batch(|o| {
                    o.parse("", "insert into t values (3, 'a')");
                    o.bind("", "");
                    o.put_execute("", 1);
                    o.put_execute("", 1);
                }),
                batch(|o| {
                    o.parse("", "show server_encoding");
                    o.bind("", "");
                    o.describe(Portal(""));
                    o.put_execute("", 1);
                    o.put_execute("", 1);
                }),
            ],
        ),
        (
            "a portal's name is taken until it is closed",
            vec![
                query("begin"),
                batch(|o| {
                    o.parse("s", series);
                    o.bind("p", "s");
                    o.bind("p", "s");
                }),
                query("rollback"),
                batch(|o| {
                    o.bind("p", "s");
                    o.close(Portal("p"));
                    o.bind("p", "s");
                    o.put_execute("p", 1);
                    o.close(Portal("p"));
                    o.close(Portal("none"));
                }),
                batch(|o| {
                    o.bind("", "s");
                    o.bind("", "s");
                    o.put_execute("", 1);
                }),
            ],
        ),
        (
            "cursors and portals share their names",
            vec![
                query("begin; declare c cursor for select generate_series(1, 9)"),
                batch(|o| {
                    o.put_execute("c", 2);
                    o.describe(Portal("c"));
                    o.run("fetch 2 from c");
                    o.put_execute("c", 1);
                }),
                batch(|o| {
                    o.parse("s", series);
                    o.bind("p", "s");
                    o.put_execute("p", 1);
                    o.run("fetch 2 from p");
                    o.run("close p");
                    o.put_execute("p", 1);
                }),
                query("rollback"),
            ],
        ),
        (
            "statements are described, closed and named once",
            vec![
                batch(|o| {
                    o.put_parse("s", b"select $1::text || $2, 1 as n from t", &[0, 0, 0, 0, 0, 0, 0, 25]);
                    o.describe(Statement("s"));
                }),
                batch(|o| {
                    o.describe(Statement("none"));
                    o.describe(Statement("s"));
                }),
                batch(|o| {
                    o.parse("s", "select 1");
                }),
                batch(|o| {
                    o.close(Statement("s"));
                    o.close(Statement("none"));
                    o.describe(Statement("s"));
                }),
                batch(|o| {
                    o.parse("", "");
                    o.describe(Statement(""));
                    o.bind("", "");
                    o.describe(Portal(""));
                    o.put_execute("", 0);
                }),
                batch(|o| {
                    o.parse("", "insert into t values (5, 'x')");
                    o.describe(Statement(""));
                    o.bind("", "");
                    o.describe(Portal(""));
                    o.put_execute("", 0);
                }),
                batch(|o| o.parse("", "select 1; select 2")),
                batch(|o| {
                    o.parse("a", "select 'a'");
                    o.parse("b", "select 'b'");
                    o.bind("", "a");
                    o.put_execute("", 0);
                    o.bind("", "b");
                    o.put_execute("", 0);
                }),
            ],
        ),
        (
            "formats are mixed as asked",
            vec![
                batch(|o| {
                    o.put_parse(
                        "",
                        b"select $1 + 1, $2, $1::text, $3::bool",
                        &[0, 0, 0, 23, 0, 0, 0, 25, 0, 0, 0, 0],
                    );
                    // Formats: binary, text, text; values 41, 'two', NULL; results binary, text, text, binary.
                    o.put_bind("", "", b"\0\x03\0\x01\0\0\0\0\0\x03\0\0\0\x04\0\0\0\x29\0\0\0\x03two\xff\xff\xff\xff\0\x04\0\x01\0\0\0\0\0\x01");
                    o.describe(Portal(""));
                    o.put_execute("", 0);
                }),
                batch(|o| {
                    o.parse("", "select 1, 'x'::bytea, now() is null, 1.5::numeric");
                    o.put_bind("", "", b"\0\0\0\0\0\x01\0\x01");
                    o.describe(Portal(""));
                    o.put_execute("", 0);
                }),
                batch(|o| {
                    o.parse("", "select 1, 2");
                    o.put_bind("", "", b"\0\0\0\0\0\x03\0\0\0\0\0\0");
                    o.put_execute("", 0);
                }),
                batch(|o| {
                    o.parse("", "select $1::int");
                    o.bind("", "");
                    o.put_execute("", 0);
                }),
            ],
        ),
    ];
    Both::start().await.all_equal(scenes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_skip_to_sync_and_flush_may_stand_anywhere() {
    use DescribeTarget::{Portal, Statement};
    let bad: Vec<(&str, Write)> = vec![
        ("a syntax error in Parse", |o| o.run("selekt 1")),
        ("an unknown table in Parse", |o| o.run("select * from nosuch")),
        ("an unknown statement in Bind", |o| o.bind("", "nosuch")),
        ("an unknown portal in Execute", |o| o.put_execute("nosuch", 0)),
        ("an unknown portal in Describe", |o| o.describe(Portal("nosuch"))),
        ("an unknown statement in Describe", |o| o.describe(Statement("nosuch"))),
        ("a value that is none", |o| {
            o.put_parse("", b"select $1::int", &[]);
            o.put_bind("", "", b"\0\0\0\x01\0\0\0\x01x\0\0");
        }),
        ("an error in Execute", |o| o.run("select 1/(i-i) from t")),
        ("an error amid rows", |o| o.run("select 1/(3-i) from generate_series(1, 5) i")),
    ];
    let mut scenes = Vec::new();
    for (name, broken) in bad {
        scenes.push((
            name,
            vec![
                query("insert into t values (100, 'x')"),
                batch(|o| {
                    o.run("insert into t values (1, 'a')");
                    broken(o);
                    o.run("insert into t values (2, 'b')");
                    o.put_query(b"insert into t values (3, 'c')");
                    o.close(Portal(""));
                    o.put_flush();
                }),
                batch(|o| o.run("select 1")),
                // The next batch is sent before the error of the first is known.
                step(Until::Ready(3), |o| {
                    o.run("insert into t values (4, 'd')");
                    o.put_sync();
                    o.run("insert into t values (5, 'e')");
                    broken(o);
                    o.run("select 1");
                    o.put_sync();
                    o.run("insert into t values (6, 'f')");
                    o.put_sync();
                }),
                query("begin"),
                batch(|o| {
                    o.run("insert into t values (7, 'g')");
                    broken(o);
                    o.run("select 2");
                }),
                batch(|o| o.run("select 3")),
                query("select 4"),
                batch(|o| {
                    o.run("rollback");
                    o.run("select 5");
                }),
                query("begin"),
                batch(|o| {
                    o.run("savepoint a");
                    broken(o);
                }),
                batch(|o| {
                    o.run("rollback to a");
                    o.run("insert into t values (8, 'h')");
                    o.run("commit");
                }),
            ],
        ));
    }
    scenes.push((
        "Flush",
        vec![
            step(Until::Messages(0), |o| o.put_flush()),
            step(Until::Messages(1), |o| {
                o.parse("", "select 1");
                o.put_flush();
            }),
            step(Until::Messages(1), |o| {
                o.bind("", "");
                o.put_flush();
                o.put_flush();
            }),
            step(Until::Messages(1), |o| {
                o.describe(Portal(""));
                o.put_flush();
            }),
            step(Until::Messages(2), |o| {
                o.put_execute("", 0);
                o.put_flush();
            }),
            step(Until::Messages(1), |o| {
                o.close(Portal(""));
                o.put_flush();
            }),
            batch(|o| o.put_flush()),
            step(Until::Messages(3), |o| {
                o.parse("s", "insert into t values (1, 'a')");
                o.put_flush();
                o.bind("", "s");
                o.put_flush();
                o.put_execute("", 0);
                o.put_flush();
            }),
            step(Until::Messages(3), |o| {
                o.bind("", "s");
                o.put_execute("", 0);
                o.put_flush();
                o.put_flush();
            }),
            batch(|_| {}),
            step(Until::Messages(1), |o| {
                o.put_parse("", b"nonsense", &[]);
                o.put_flush();
            }),
            step(Until::Messages(0), |o| {
                o.parse("", "select 1");
                o.put_flush();
            }),
            batch(|_| {}),
            step(Until::Ready(2), |o| {
                o.put_sync();
                o.put_sync();
            }),
        ],
    ));
    // The third message of "bind, execute, flush" fails: the count above is of BindComplete and the error, so read two.
    scenes.last_mut().unwrap().1[8].until = Until::Messages(2);
    let call = |oid: u32, a: u32, b: u32| {
        let mut body = BytesMut::new();
        body.put_u32(oid);
        body.put_slice(b"\0\x01\0\x01\0\x02");
        for n in [a, b] {
            body.put_u32(4);
            body.put_u32(n);
        }
        body.put_slice(b"\0\x01");
        step(Until::Ready(1), |o| o.put_frame(b'F', &body))
    };
    scenes.push((
        "function calls",
        vec![
            call(177, 40, 2), // int4pl
            call(154, 1, 0),  // int4div
            call(1, 1, 1),
            query("begin"),
            call(177, 1, 2),
            call(154, 1, 0),
            call(177, 1, 2),
            query("commit"),
            step(Until::Ready(2), |o| {
                o.run("select 1");
                o.put_sync();
                o.put_slice(&call(177, 1, 2).bytes);
            }),
        ],
    ));
    Both::start().await.all_equal(scenes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_statements_in_one_query_are_one_transaction_unless_they_say_otherwise() {
    let texts: &[&[&str]] = &[
        &["select 1; select 2", ";;", "", " ; select 3;;", "-- nothing"],
        &["insert into t values (1, 'a'); select 1/0; insert into t values (2, 'b')"],
        &["insert into t values (1, 'a'); begin; insert into t values (2, 'b'); rollback"],
        &["insert into t values (1, 'a'); commit; insert into t values (2, 'b'); select 1/0"],
        &["insert into t values (1, 'a'); rollback; insert into t values (2, 'b')"],
        &["begin; insert into t values (1, 'a'); commit; insert into t values (2, 'b'); select 1/0"],
        &["begin; insert into t values (1, 'a'); select 1/0; commit", "select 1", "commit", "select 2"],
        &[
            "begin; insert into t values (1, 'a')",
            "insert into t values (2, 'b'); select 1/0",
            "rollback; select 3",
        ],
        &[
            "begin; insert into t values (1, 'a')",
            "insert into t values (2, 'b'); commit; select 3",
            "commit",
        ],
        &["begin", "begin; select 1", "commit; commit; select 2"],
        &["savepoint a; select 1"],
        &["select 1; savepoint a; select 2"],
        &[
            "begin; savepoint a; insert into t values (1, 'a'); rollback to a; insert into t values (2, 'b'); release a; commit",
        ],
        &[
            "begin; savepoint a; select 1/0; rollback to a",
            "rollback to a; insert into t values (3, 'c'); commit",
        ],
        &["set local work_mem = '1MB'; show work_mem", "show work_mem"],
        &["set work_mem = '2MB'; select 1/0", "show work_mem"],
        &["set work_mem = '2MB'; show work_mem; reset work_mem; show work_mem", "show work_mem"],
        &["begin; set work_mem = '3MB'; rollback; show work_mem"],
        &["begin; set work_mem = '3MB'; commit; show work_mem", "reset work_mem"],
        &["vacuum u; select 1"],
        &["select 1; vacuum u"],
        &["create table v (i int); insert into v values (1); select * from v; drop table v"],
        &["begin; select 1; end; begin", "select 2; abort", "select 3"],
        &["commit; select 1", "rollback; select 1"],
        &["commit and chain; select 1"],
        &["begin; insert into t values (1, 'a'); commit and chain; insert into t values (2, 'b'); rollback"],
        &[
            "begin isolation level serializable; show transaction_isolation; commit; show transaction_isolation",
        ],
        &["begin read only; insert into t values (1, 'a'); commit", "commit"],
        &[
            "declare c cursor for select 1; fetch c",
            "begin; declare c cursor for select generate_series(1,3); fetch 2 from c; close c; commit",
        ],
        &["select 1; selekt 2", "select 1; select * from nosuch; select 2"],
        &[
            "insert into t values (1, 'a') returning i; update t set s = 'z' returning s; delete from t returning *",
        ],
        &["do $$ begin raise notice 'one'; end $$; do $$ begin raise notice 'two'; end $$; select 1"],
        &["explain (costs off) select 1; select 2"],
        &["lock table t; select 1", "begin; lock table t; commit"],
    ];
    let scenes = texts.iter().map(|texts| (texts[0], texts.iter().map(|sql| query(sql)).collect())).collect();
    Both::start().await.all_equal(scenes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_is_one_servers_in_all_forms() {
    let binary: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x04\0\0\0\x07\0\0\0\x01x\xff\xff";
    let copy = |sql: &'static str, parts: &'static [&'static [u8]], end: &'static str| {
        step(Until::Ready(1), move |o| {
            o.put_query(sql.as_bytes());
            parts.iter().for_each(|part| o.data(part));
            match end {
                "" => o.put_frame(b'c', b""),
                why => o.put_copy_fail(why),
            }
        })
    };
    let scenes = vec![
        (
            "text",
            vec![
                copy("copy u from stdin", &[b"1\to", b"ne\n2\t\\N\n", b"", b"3\tthree"], ""),
                query("copy u to stdout"),
            ],
        ),
        (
            "csv",
            vec![
                copy("copy u from stdin (format csv, header)", &[b"i,s\n1,\"a,b\"\n", b"2,\"li\nne\"\n"], ""),
                query("copy u to stdout (format csv, header, force_quote *)"),
                query("copy (select i, s from u order by i desc) to stdout csv"),
            ],
        ),
        (
            "binary",
            vec![
                step(Until::Ready(1), |o| {
                    o.put_query(b"copy u from stdin binary");
                    o.data(&binary[..10]);
                    o.data(&binary[10..]);
                    o.put_frame(b'c', b"");
                }),
                query("copy u to stdout binary"),
                step(Until::Ready(1), |o| {
                    o.put_query(b"copy u from stdin binary");
                    o.data(b"not binary at all");
                    o.put_frame(b'c', b"");
                }),
            ],
        ),
        ("failure told by the client", vec![copy("copy u from stdin", &[b"1\tone\n"], "changed my mind")]),
        (
            "failure amid the data",
            vec![
                copy("copy u from stdin", &[b"1\tone\n", b"x\tbroken\n", b"2\ttwo\n"], ""),
                copy("copy t from stdin", &[b"1\tone\n1\ttwice\n"], ""),
                copy("copy u from stdin", &[b"1\tone\ttoo many\n"], ""),
                copy("copy nosuch from stdin", &[b"1\tone\n"], ""),
                copy("copy u from stdin", &[b"2\ttwo\n"], ""),
            ],
        ),
        (
            "in a transaction",
            vec![
                query("begin"),
                copy("copy u from stdin", &[b"1\tone\n"], ""),
                copy("copy u from stdin", &[b"x\tone\n"], ""),
                copy("copy u from stdin", &[b"2\ttwo\n"], ""),
                query("commit"),
            ],
        ),
        (
            "amid other statements",
            vec![
                copy(
                    "insert into t values (1, 'a'); copy u from stdin; insert into t values (2, 'b')",
                    &[b"1\tone\n"],
                    "",
                ),
                copy(
                    "insert into t values (3, 'a'); copy u from stdin; insert into t values (4, 'b')",
                    &[b"x\tone\n"],
                    "",
                ),
                query("select 1; copy t to stdout; select 2"),
                step(Until::Ready(1), |o| {
                    o.put_query(b"copy u from stdin; copy u from stdin");
                    o.data(b"5\tfive\n");
                    o.put_frame(b'c', b"");
                    o.data(b"6\tsix\n");
                    o.put_frame(b'c', b"");
                }),
                copy("begin; copy u from stdin; rollback", &[b"7\tseven\n"], ""),
            ],
        ),
        (
            "stray data is ignored",
            vec![step(Until::Ready(1), |o| {
                o.data(b"1\tone\n");
                o.put_frame(b'c', b"");
                o.put_copy_fail("x");
                o.put_query(b"select 1");
            })],
        ),
        (
            "in the extended protocol",
            vec![
                batch(|o| {
                    o.run("copy u from stdin");
                    o.data(b"1\tone\n");
                    o.put_frame(b'c', b"");
                }),
                batch(|o| {
                    o.run("insert into t values (1, 'a')");
                    o.run("copy u from stdin");
                    o.data(b"2\ttwo\n");
                    o.put_frame(b'c', b"");
                    o.run("insert into t values (2, 'b')");
                }),
                batch(|o| {
                    o.run("insert into t values (3, 'c')");
                    o.run("copy u from stdin");
                    o.data(b"x\n");
                    o.put_frame(b'c', b"");
                    o.run("insert into t values (4, 'd')");
                }),
                batch(|o| {
                    o.run("copy u from stdin");
                    o.data(b"2\ttwo\n");
                    o.put_copy_fail("no");
                    o.run("select 1");
                }),
                batch(|o| {
                    o.run("copy t to stdout");
                    o.run("select 1");
                }),
                // Sync ahead of the data is ignored while the server reads it.
                batch(|o| {
                    o.run("copy u from stdin");
                    o.put_sync();
                    o.data(b"5\tfive\n");
                    o.put_frame(b'c', b"");
                }),
                batch(|o| {
                    o.run("copy u from stdin");
                    o.put_flush();
                    o.data(b"6\tsix\n");
                    o.put_flush();
                    o.put_frame(b'c', b"");
                    o.put_flush();
                }),
                step(Until::Ready(2), |o| {
                    o.run("copy u from stdin");
                    o.data(b"7\tseven\n");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                    o.run("copy (select 1) to stdout");
                    o.run("select count(*) from u");
                    o.put_sync();
                }),
            ],
        ),
    ];
    Both::start().await.all_equal(scenes).await;
}

/// A server that reads CopyData ignores Sync; one that has failed before it read any, or after, answers it. Drivers send one
/// ahead, right behind Execute.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_round_a_copy_are_answered_as_by_one_server() {
    const GOOD: &str = "copy u from stdin";
    const CLOSED: &str = "copy closed from stdin"; // fails after CopyInResponse, before it reads anything
    let sent = |ready: usize, write: Write| step(Until::Ready(ready), write);
    let end = |o: &mut BytesMut| o.put_frame(b'c', b"");
    let mut scenes: Vec<(&str, Vec<Step>)> = vec![
        (
            "a trigger fails, Sync was sent ahead",
            vec![
                sent(2, |o| {
                    o.run(CLOSED);
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                }),
                query("select 'after'"),
            ],
        ),
        (
            "a trigger fails, several Syncs",
            vec![
                sent(5, |o| {
                    o.run(CLOSED);
                    o.put_sync();
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_sync();
                    o.data(b"2\ttwo\n");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                    o.run("select 'after'");
                    o.put_sync();
                }),
                query("select 'after'"),
            ],
        ),
        (
            "a trigger fails, and what follows is no data",
            vec![sent(2, |o| {
                o.run(CLOSED);
                o.put_sync();
                o.run("insert into u values (1, 'one')");
                o.put_sync();
            })],
        ),
        (
            "a trigger fails in a transaction",
            vec![
                query("begin"),
                query("insert into t values (1, 'one')"),
                sent(2, |o| {
                    o.run(CLOSED);
                    o.put_sync();
                    o.put_frame(b'c', b"");
                    o.put_sync();
                }),
                query("select 1"),
                query("rollback"),
            ],
        ),
        (
            "a trigger fails in a Query",
            vec![
                sent(2, |o| {
                    o.put_query(CLOSED.as_bytes());
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_frame(b'c', b"");
                }),
                sent(4, |o| {
                    o.put_query(b"insert into t values (1, 'one'); copy closed from stdin");
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_sync();
                    o.put_frame(b'c', b"");
                    o.put_query(b"select 'after'");
                }),
            ],
        ),
        (
            "data that is wrong",
            vec![
                sent(1, |o| {
                    o.run(GOOD);
                    o.put_sync();
                    o.data(b"x\tone\n");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                }),
                sent(2, |o| {
                    o.run(GOOD);
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_sync();
                    o.put_copy_fail("not today");
                    o.put_sync();
                    o.run("insert into t values (1, 'one')");
                    o.put_sync();
                }),
                sent(2, |o| {
                    o.put_query(GOOD.as_bytes());
                    o.put_sync();
                    o.data(b"x\tone\n");
                    o.put_frame(b'c', b"");
                    o.put_query(b"select 'after'");
                }),
                query("select 'after'"),
            ],
        ),
        (
            "data that is wrong, and Sync behind it",
            vec![
                sent(3, |o| {
                    o.run(GOOD);
                    o.put_sync();
                    o.data(b"x\tone\n");
                    o.put_sync();
                    o.put_frame(b'c', b"");
                    o.run("insert into t values (1, 'one')");
                    o.put_sync();
                    o.put_query(b"select 'after'");
                }),
                sent(3, |o| {
                    o.put_query(GOOD.as_bytes());
                    o.data(b"x\tone\n");
                    o.put_sync();
                    o.put_frame(b'c', b"");
                    o.put_query(b"select 'after'");
                }),
            ],
        ),
        (
            "data that is wrong, and behind it what is no Sync",
            vec![
                query("begin"),
                sent(3, |o| {
                    o.put_query(GOOD.as_bytes());
                    o.data(b"x\tone\n");
                    o.put_frame(b'S', b"x");
                    o.put_frame(b'c', b"");
                    o.put_query(b"select 'after'");
                }),
                query("rollback"),
                sent(3, |o| {
                    o.run(GOOD);
                    o.put_sync();
                    o.data(b"x\tone\n");
                    o.put_frame(b'H', b"xy");
                    o.put_frame(b'S', b"x");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                    o.put_query(b"select 'after'");
                }),
                sent(1, |o| {
                    o.put_query(GOOD.as_bytes());
                    o.put_frame(b'S', b"x");
                    o.put_frame(b'H', b"xy");
                    o.data(b"1\tone\n");
                    o.put_frame(b'c', b"");
                }),
            ],
        ),
        (
            "two in a Query",
            vec![
                sent(1, |o| {
                    o.put_query(b"copy u from stdin; copy u from stdin");
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                    o.data(b"2\ttwo\n");
                    o.put_frame(b'c', b"");
                }),
                sent(3, |o| {
                    o.put_query(b"copy u from stdin; copy closed from stdin");
                    o.put_sync();
                    o.data(b"1\tone\n");
                    o.put_frame(b'c', b"");
                    o.put_sync();
                    o.data(b"2\ttwo\n");
                    o.put_frame(b'c', b"");
                    o.put_query(b"select 'after'");
                }),
            ],
        ),
    ];
    // Step by step: what the client says depends on what it has heard.
    for (name, begun, before, sql, data, told) in [
        ("a trigger fails, step by step", "select 1", 4, CLOSED, "", 2),
        ("data is wrong, step by step", "select 1", 4, GOOD, "x\tone\n", 1),
        ("a trigger fails, step by step, in a transaction", "begin", 4, CLOSED, "", 2),
        ("data is wrong, step by step, in a transaction", "begin", 4, GOOD, "x\tone\n", 1),
    ] {
        let mut steps = vec![query(begun)];
        steps.push(step(Until::Messages(before), |o| {
            o.run(sql);
            o.put_sync();
        }));
        steps.push(step(Until::Messages(told), |o| {
            if !data.is_empty() {
                o.data(data.as_bytes())
            }
        }));
        steps.push(batch(|o| {
            o.data(b"1\tone\n");
            end(o);
        }));
        steps.push(batch(|o| o.run("select 'after'")));
        scenes.push((name, steps));
    }
    Both::start().await.all_equal(scenes).await;
}
