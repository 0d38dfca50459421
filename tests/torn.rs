//! Bytes that arrive in pieces, of a client and of a server, torn at every byte of a message: every answer is that of one
//! server to the same bytes in one piece.
//!
//! `PGHERD_HOSTILE=2 cargo test --test torn` tears at every byte, a quick run at the ends of messages and some others.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use common::{Changes, Front, Herd, Message, Raw};
use parking_lot::Mutex;
use pgherd::wire::{DescribeTarget, ErrorFields, FrontendWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn is_long() -> bool {
    std::env::var("PGHERD_HOSTILE").ok().and_then(|n| n.parse().ok()).unwrap_or(1u64) > 1
}

/// Where a stream is torn.
#[derive(Debug, Clone, Copy)]
enum Tear {
    Nowhere,
    /// After so many bytes.
    At(usize),
    /// After each of them.
    Everywhere,
}

impl Tear {
    /// The pieces of bytes of which `before` came already.
    fn pieces(self, before: usize, bytes: &[u8]) -> Vec<&[u8]> {
        match self {
            Self::At(at) if at > before && at < before + bytes.len() => {
                let (first, second) = bytes.split_at(at - before);
                vec![first, second]
            }
            Self::Nowhere | Self::At(_) => vec![bytes],
            Self::Everywhere => bytes.chunks(1).collect(),
        }
    }
}

/// Lets whoever waits for a piece have it: all is done by one thread, which looks at its sockets before it comes back.
async fn have_it_read() {
    for _ in 0..4 {
        tokio::task::yield_now().await;
    }
}

async fn write(stream: &mut (impl AsyncWriteExt + Unpin), pieces: Vec<&[u8]>) -> std::io::Result<()> {
    let torn = pieces.len() > 1;
    for piece in pieces {
        stream.write_all(piece).await?;
        if torn {
            have_it_read().await;
        }
    }
    Ok(())
}

/// How the answers of servers are torn, and how much of them has come since that was said.
type Torn = Arc<Mutex<(Tear, usize)>>;

/// Stands before a server; what that says to the proxy's connections for clients comes torn.
async fn relay(server: u16) -> (u16, Torn) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, torn) = (listener.local_addr().unwrap().port(), Torn::new(Mutex::new((Tear::Nowhere, 0))));
    let all = torn.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(pass(client, server, all.clone()));
        }
    });
    (port, torn)
}

async fn pass(client: TcpStream, server: u16, torn: Torn) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let n = from_server.read(&mut bytes).await?;
            if n == 0 {
                return to_client.shutdown().await;
            }
            let (tear, before) = {
                let mut torn = torn.lock();
                torn.1 += n;
                (torn.0, torn.1 - n)
            };
            write(&mut to_client, tear.pieces(before, bytes.get(..n).unwrap_or_default())).await?;
        }
    };
    tokio::try_join!(up, down).map(|_| ())
}

/// What a client says.
struct Talk {
    name: &'static str,
    bytes: BytesMut,
    /// Ends of its messages.
    ends: Vec<usize>,
    /// How many ReadyForQuery answer it.
    ready: usize,
}

impl Talk {
    fn add(&mut self, ready: usize, put: impl FnOnce(&mut BytesMut)) -> &mut Self {
        put(&mut self.bytes);
        self.ends.push(self.bytes.len());
        self.ready += ready;
        self
    }

    fn query(&mut self, sql: &str) -> &mut Self {
        self.add(1, |out| out.put_query(sql.as_bytes()))
    }

    fn parse(&mut self, name: &str, sql: &str) -> &mut Self {
        self.add(0, |out| out.put_parse(name, sql.as_bytes(), &[]))
    }

    fn bind(&mut self, portal: &str, name: &str, values: &[&str]) -> &mut Self {
        let mut tail = BytesMut::new();
        tail.put_u16(0);
        tail.put_u16(values.len() as u16);
        for value in values {
            tail.put_u32(value.len() as u32);
            tail.put_slice(value.as_bytes());
        }
        tail.put_u16(0);
        self.add(0, |out| out.put_bind(portal, name, &tail))
    }

    fn describe(&mut self, target: DescribeTarget<'_>) -> &mut Self {
        self.add(0, |out| out.put_target(b'D', target))
    }

    fn execute(&mut self, portal: &str, limit: i32) -> &mut Self {
        self.add(0, |out| out.put_execute(portal, limit))
    }

    fn sync(&mut self) -> &mut Self {
        self.add(1, FrontendWriter::put_sync)
    }

    fn frame(&mut self, tag: u8, body: &[u8], ready: usize) -> &mut Self {
        self.add(ready, |out| out.put_frame(tag, body))
    }
}

/// Every kind of message of a client, and with it of a server.
fn talks() -> Vec<Talk> {
    let mut all = Vec::new();
    let mut make = |name, fill: &dyn Fn(&mut Talk)| {
        let mut talk = Talk { name, bytes: BytesMut::new(), ends: Vec::new(), ready: 0 };
        fill(&mut talk);
        all.push(talk);
    };
    make("simple", &|t| {
        t.query("select i, j from t order by i").query("select 1; select 'two'; select").query("");
        t.query("selec 1").query("select 1 / 0").query("select null::int, '', repeat('x', 300)");
    });
    make("settings and notices", &|t| {
        t.query("set application_name = 'torn'")
            .query("show application_name")
            .query("reset application_name");
        t.query("do $$ begin raise notice 'a notice'; end $$").query("set datestyle = 'German'");
        t.query("select date '2026-11-29'").query("reset datestyle");
    });
    make("transaction", &|t| {
        t.query("begin").query("insert into u values (1), (2)").query("savepoint s").query("selec 1");
        t.query("rollback to s").query("select count(*) from u").query("rollback").query("commit");
    });
    make("extended", &|t| {
        t.parse("s", "select i, j from t where i > $1::int order by i")
            .describe(DescribeTarget::Statement("s"));
        t.bind("p", "s", &["0"]).describe(DescribeTarget::Portal("p")).execute("p", 2).execute("p", 0);
        t.frame(b'H', b"", 0).sync().bind("", "s", &["x"]).execute("", 0).sync();
        t.parse("", "select $1::text").bind("", "", &["a value"]).execute("", 0).sync();
        t.frame(b'C', b"Ss\0", 0).parse("", "").bind("", "", &[]).execute("", 0).sync();
    });
    make("pipeline", &|t| {
        for _ in 0..2 {
            t.parse("", "begin").bind("", "", &[]).execute("", 0);
            t.parse("", "insert into u values ($1)").bind("", "", &["7"]).execute("", 0);
            t.parse("", "select * from u").bind("", "", &[]).execute("", 0);
            t.parse("", "rollback").bind("", "", &[]).execute("", 0).sync();
        }
        t.parse("", "select 1 / 0").bind("", "", &[]).execute("", 0);
        t.parse("", "select 'skipped'").bind("", "", &[]).execute("", 0).sync();
    });
    make("copy in", &|t| {
        t.query("begin").frame(b'Q', b"copy u from stdin\0", 0);
        t.frame(b'd', b"1\n2\n", 0).frame(b'd', b"3", 0).frame(b'd', b"", 0).frame(b'd', b"4\n5\n", 0);
        t.frame(b'c', b"", 1).query("select sum(i), count(*) from u").query("rollback");
        t.frame(b'Q', b"copy u from stdin\0", 0).frame(b'd', b"8\n", 0);
        t.frame(b'f', b"it has changed its mind\0", 1).query("select count(*) from u");
        t.frame(b'Q', b"copy u from stdin\0", 0).frame(b'd', b"8\nx\n", 0).frame(b'd', b"9\n", 0);
        t.frame(b'c', b"", 1).query("select count(*) from u");
    });
    make("copy in, extended", &|t| {
        t.query("begin").parse("", "copy u from stdin").bind("", "", &[]).execute("", 0).frame(b'H', b"", 0);
        t.frame(b'd', b"1\n22\n", 0).frame(b'd', b"333\n", 0).frame(b'c', b"", 0).sync();
        t.query("select sum(i) from u").query("rollback");
    });
    make("copy in, Syncs round it", &|t| {
        t.query("begin");
        for (sql, data, answered) in [
            ("copy u from stdin", "1\n", 0),
            ("copy u from stdin", "x\n", 0),
            ("copy closed from stdin", "1\n", 1),
        ] {
            t.query("savepoint s").parse("", sql).bind("", "", &[]).execute("", 0).frame(b'S', b"", answered);
            t.frame(b'd', data.as_bytes(), 0).frame(b'c', b"", 0).sync().query("rollback to s");
            t.query("savepoint s").frame(b'Q', format!("{sql}\0").as_bytes(), 0).frame(b'S', b"", answered);
            t.frame(b'd', data.as_bytes(), 0).frame(b'c', b"", 1).query("rollback to s");
        }
        t.query("select sum(i) from u").query("rollback");
    });
    make("copy out", &|t| {
        t.query("copy t to stdout").query("copy (select i, repeat(j, 40) from t) to stdout (format binary)");
        t.query("copy (select 1 / (i - 2) from t order by i) to stdout").query("select 'after'");
    });
    make("function call", &|t| {
        t.frame(b'F', b"\0\0\0\xd4\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x01\0\x01", 1); // int4um(1)
        t.frame(b'F', b"\0\0\0\0\0\0\0\0\0\0", 1).query("select 'after'");
    });
    all
}

/// Places to tear at: in a quick run the ends of messages, their neighbours, and some others.
fn places(length: usize, ends: &[usize]) -> impl Iterator<Item = Tear> {
    let near =
        move |at: &usize| is_long() || at.is_multiple_of(23) || ends.iter().any(|end| at.abs_diff(*end) <= 1);
    (1..length).filter(near).map(Tear::At).chain([Tear::Everywhere])
}

async fn answers(raw: &mut Raw, ready: usize, what: &str) -> Vec<Message> {
    let (mut all, mut seen) = (Vec::new(), 0);
    while seen < ready {
        let Some(message) = raw.next().await else { panic!("{what}: closed after\n{}", shown(&all)) };
        seen += usize::from(message.0 == b'Z');
        all.push(message);
    }
    all
}

/// A line for each message; of errors and notices what the proxy says too.
fn shown(all: &[Message]) -> String {
    let line = |(tag, body): &Message| {
        let text = match tag {
            b'E' | b'N' => {
                let e = ErrorFields::parse(body).unwrap();
                format!("{} {} {} {:?} {:?}", e.severity, e.code, e.message, e.detail, e.hint)
            }
            _ => body.escape_ascii().to_string(),
        };
        format!("{} {text}\n", char::from(*tag))
    };
    all.iter().map(line).collect()
}

/// Before the relay's server, which is also asked itself.
async fn start() -> (Front, Torn, u16) {
    let mut herd = Herd::start(1, 0).await;
    let server = herd.primary(0).port;
    let app = herd.primary(0).connect_app().await;
    app.batch_execute("create table t (i int, j text); create table u (i int)").await.unwrap();
    app.batch_execute("insert into t values (1, 'a'), (2, 'b'), (3, 'c')").await.unwrap();
    let closed = "create table closed (i int);
         create function fails() returns trigger language plpgsql as $$ begin raise 'nothing may be added'; end $$;
         create trigger fails before insert on closed for each statement execute function fails()";
    app.batch_execute(closed).await.unwrap();
    let (port, torn) = relay(server).await;
    herd.shards[0].primary.port = port;
    let front = Front::over(herd, false, Changes { pool: "size = 1", ..Changes::default() }).await;
    (front, torn, server)
}

/// What one server answers.
async fn wanted(front: &mut Front, server: u16, talk: &Talk) -> Vec<Message> {
    let relay = std::mem::replace(&mut front.herd.shards[0].primary.port, server);
    let mut one = Raw::direct(front.herd.primary(0)).await;
    front.herd.shards[0].primary.port = relay;
    one.out.put_slice(&talk.bytes);
    one.send().await;
    answers(&mut one, talk.ready, talk.name).await
}

#[tokio::test]
async fn what_a_client_says_in_pieces_is_what_it_says() {
    let (mut front, _, server) = start().await;
    let mut done = 0;
    for talk in talks() {
        let want = wanted(&mut front, server, &talk).await;
        for tear in places(talk.bytes.len(), &talk.ends) {
            let what = format!("{}, torn {tear:?}", talk.name);
            let mut raw = Raw::connect(&front).await;
            raw.stream.set_nodelay(true).unwrap();
            let bytes = talk.bytes.clone();
            write(&mut raw.stream, tear.pieces(0, &bytes)).await.unwrap();
            let got = answers(&mut raw, talk.ready, &what).await;
            let (want, got) = (shown(&want), shown(&got));
            assert!(got == want, "{what}\none server:\n{want}\nthe proxy:\n{got}");
            done += 1;
        }
    }
    eprintln!("{done} conversations in pieces");
    assert!(done > 200, "{done}");
}

#[tokio::test]
async fn what_a_server_says_in_pieces_is_what_it_says() {
    let (mut front, torn, server) = start().await;
    let mut done = 0;
    for talk in talks() {
        let want = wanted(&mut front, server, &talk).await;
        let ends: Vec<usize> = want
            .iter()
            .scan(0, |end, (_, body)| {
                *end += body.len() + 5;
                Some(*end)
            })
            .collect();
        // Its own connection says a little more than is passed on.
        for tear in places(ends.last().unwrap() + 200, &ends) {
            let what = format!("{}, answers torn {tear:?}", talk.name);
            let mut raw = Raw::connect(&front).await;
            *torn.lock() = (tear, 0);
            raw.out.put_slice(&talk.bytes);
            raw.send().await;
            let got = answers(&mut raw, talk.ready, &what).await;
            let (want, got) = (shown(&want), shown(&got));
            assert!(got == want, "{what}\none server:\n{want}\nthe proxy:\n{got}");
            done += 1;
        }
    }
    eprintln!("{done} conversations with answers in pieces");
    assert!(done > 200, "{done}");
}
