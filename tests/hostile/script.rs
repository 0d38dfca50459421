//! What hostile clients say: whole conversations.
//! Must not do I/O.

use bytes::{BufMut, BytesMut};
use pgherd::wire::{DescribeTarget, FrontendWriter};

/// The bytes of a client, and where each message ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conversation {
    out: BytesMut,
    /// Ends of messages, the startup packet's first.
    pub(crate) ends: Vec<usize>,
}

impl Conversation {
    /// All of it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.out
    }

    fn add(&mut self, put: impl FnOnce(&mut BytesMut)) -> &mut Self {
        put(&mut self.out);
        self.ends.push(self.out.len());
        self
    }

    fn query(&mut self, sql: &str) -> &mut Self {
        self.add(|out| out.put_query(sql.as_bytes()))
    }

    fn run(&mut self, name: &str, sql: &str, limit: i32) -> &mut Self {
        self.add(|out| out.put_parse(name, sql.as_bytes(), &[]))
            .add(|out| out.put_target(b'D', DescribeTarget::Statement(name)))
            .add(|out| out.put_bind("", name, &[0; 6]))
            .add(|out| out.put_target(b'D', DescribeTarget::Portal("")))
            .add(|out| out.put_execute("", limit))
    }

    fn sync(&mut self) -> &mut Self {
        self.add(FrontendWriter::put_sync)
    }
}

/// The startup packet of the user that needs no password.
pub(crate) fn startup() -> Vec<u8> {
    let mut packet = BytesMut::new();
    let body = b"user\0raw\0database\0app\0application_name\0hostile\0\0";
    packet.put_u32(body.len() as u32 + 8);
    packet.put_u32(3 << 16);
    packet.put_slice(body);
    packet.to_vec()
}

/// Every kind of conversation, by name. What they would leave behind: open transactions, locks, settings, temporary
/// tables, listeners, prepared statements, half a COPY, rows nobody reads.
pub(crate) fn conversations() -> Vec<(&'static str, Conversation)> {
    let mut all = Vec::new();
    let mut make = |name, fill: &dyn Fn(&mut Conversation)| {
        let mut conversation = Conversation::default();
        conversation.add(|out| out.put_slice(&startup()));
        fill(&mut conversation);
        all.push((name, conversation));
    };
    make("simple", &|c| {
        c.query("set work_mem = '123kB'").query("select 'hostile', current_setting('work_mem')");
        c.query("select * from users where user_id = 'hostile'")
            .query("select 1; select 2")
            .add(FrontendWriter::put_terminate);
    });
    make("transaction", &|c| {
        c.query("begin").query("insert into audit_log (user_id, action) values ('hostile', 'uncommitted')");
        c.query("savepoint s").query("select 1/0").query("rollback to s");
        c.query("set local work_mem = '77kB'").query("select pg_advisory_xact_lock(5)").query("rollback");
    });
    make("several in one", &|c| {
        c.query("begin; insert into audit_log (user_id, action) values ('hostile', 'uncommitted'); select 1/0; commit");
        c.query("rollback");
    });
    make("extended", &|c| {
        c.run("s", "select generate_series(1, 50), 'hostile'", 7).add(|out| out.put_execute("", 0)).sync();
        c.run("", "insert into audit_log (user_id, action) values ('hostile', 'uncommitted')", 0);
        c.run("", "select 1/0", 0).sync();
    });
    make("without sync", &|c| {
        c.run("t", "insert into audit_log (user_id, action) values ('hostile', 'uncommitted')", 0);
        c.add(FrontendWriter::put_flush).run("u", "select 'hostile'", 0);
    });
    make("copy in", &|c| {
        c.query("begin").query("copy audit_log (user_id, action) from stdin");
        for _ in 0..3 {
            c.add(|out| out.put_frame(b'd', b"hostile\tuncommitted\n"));
        }
        c.add(|out| out.put_copy_fail("it has changed its mind")).query("rollback");
    });
    make("copy out", &|c| {
        c.query("copy (select generate_series(1, 20000), 'hostile') to stdout").query("select 'after'");
    });
    make("fan-out", &|c| {
        c.query("select user_id from users").run("f", "select user_id, name from users", 0).sync();
    });
    make("pins", &|c| {
        c.query("create temporary table hostile_temp (i int)").query("select pg_advisory_lock(6)");
        c.query("listen hostile_channel").query("prepare hostile_statement as select 1");
        c.query("declare hostile_cursor cursor with hold for select 1").query("set search_path = hostile");
    });
    make("encryption asked for", &|c| {
        let mut ask = BytesMut::new();
        ask.put_u32(8);
        ask.put_u16(1234);
        ask.put_u16(5679);
        let rest = std::mem::replace(&mut c.out, ask);
        c.out.put_slice(&rest);
        c.ends = vec![8, c.out.len()];
        c.query("select 1");
    });
    make("login with a password", &|c| {
        c.out.clear();
        c.ends.clear();
        c.add(|out| {
            let body = b"user\0app\0database\0app\0\0";
            out.put_u32(body.len() as u32 + 8);
            out.put_u32(3 << 16);
            out.put_slice(body);
        });
        c.add(|out| out.put_frame(b'p', b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=fyko+d2lbbFgONRv9qkxdawL"));
        c.add(|out| {
            out.put_frame(
                b'p',
                b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            )
        });
    });
    all
}

/// What has answers without end, or more than fits between, after the startup packet.
pub(crate) fn endless() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut make = |fill: &dyn Fn(&mut Conversation)| {
        let mut conversation = Conversation::default();
        fill(&mut conversation);
        all.push(conversation.bytes().to_vec());
    };
    let rows = "select generate_series(1, 100000000), repeat('x', 500)";
    make(&|c| {
        c.query(rows);
    });
    make(&|c| {
        c.query("begin").run("", rows, 0).sync();
    });
    make(&|c| {
        c.query(&format!("copy ({rows}) to stdout"));
    });
    make(&|c| {
        c.query("select user_id, generate_series(1, 100000000), repeat('x', 500) from users");
    });
    make(&|c| {
        (0..20_000).for_each(|_| _ = c.query("select repeat('x', 5000)"));
    });
    all
}

/// Conversations over tables whose rows are on several shards: by key, over all of them, in transactions that stay on
/// one shard and that do not.
pub(crate) fn sharded() -> Vec<(&'static str, Conversation)> {
    let insert = |user: &str, name: &str| {
        format!("insert into users (user_id, name, email) values ('{user}', '{name}', 'e')")
    };
    let mine = "select user_id, name from users where user_id like 'user%'";
    let mut all = Vec::new();
    let mut make = |name, fill: &dyn Fn(&mut Conversation)| {
        let mut conversation = Conversation::default();
        conversation.add(|out| out.put_slice(&startup()));
        fill(&mut conversation);
        all.push((name, conversation));
    };
    // user_1, user_4 and user_2 are on shards 1, 2 and 3.
    make("sharded, simple", &|c| {
        c.query(&insert("user_1", "a")).query(&insert("user_4", "b")).query(&insert("user_2", "c"));
        c.query(mine).query("update users set name = 'd' where user_id = 'user_4'");
        c.query("select name from users where user_id = 'user_4'").query(mine);
        c.query("update users set name = 'x' where name = 'd'").query("select count(*) from users");
    });
    make("sharded, extended", &|c| {
        c.run("", &insert("user_1", "a"), 0).sync().run("s", &insert("user_4", "b"), 0).sync();
        c.run("f", mine, 0).sync().run("", "select name from users where user_id = 'user_1'", 0);
        c.run("", "select name from users where user_id = 'user_4'", 0).sync();
        c.run("", mine, 0).run("", "select 1 / (length(name) - 1) from users where user_id = 'user_1'", 0);
        c.sync().run("", &insert("user_2", "c"), 0).sync().query(mine);
    });
    make("sharded, transactions", &|c| {
        c.query("begin").query(&insert("user_1", "a")).query("savepoint s").query(&insert("user_1", "b"));
        c.query("rollback to s").query("select name from users where user_id = 'user_1'").query("commit");
        c.query("begin").query(&insert("user_4", "c")).query(&insert("user_2", "d")).query("commit");
        c.run("", "begin", 0).run("", &insert("user_2", "e"), 0).run("", "commit", 0).sync();
        c.query("begin").run("", mine, 0).sync().query("rollback").query(mine);
    });
    make("sharded, beside a single table", &|c| {
        c.query("insert into audit_log (user_id, action) values ('user_1', 'a')");
        c.query(&format!("{}; {}", insert("user_1", "a"), insert("user_1", "b")));
        c.query("select user_id, action from audit_log").query(mine);
        c.run("", "insert into audit_log (user_id, action) values ('user_4', 'b')", 0).sync();
        c.query("select code from countries where code = 'none'");
    });
    all
}

/// Conversations that commit: what is left of them when they are changed is what one server would have.
pub(crate) fn committing() -> Vec<(&'static str, Conversation)> {
    const INSERT: &str = "insert into audit_log (user_id, action) values";
    let mut all = Vec::new();
    let mut make = |name, fill: &dyn Fn(&mut Conversation)| {
        let mut conversation = Conversation::default();
        conversation.add(|out| out.put_slice(&startup()));
        fill(&mut conversation);
        all.push((name, conversation));
    };
    make("commits, simple", &|c| {
        c.query(&format!("{INSERT} ('m', 'a')")).query("begin").query(&format!("{INSERT} ('m', 'b')"));
        c.query("savepoint s").query(&format!("{INSERT} ('m', 'c')")).query("rollback to s").query("commit");
        c.query(&format!("{INSERT} ('m', 'd')")).query("begin").query(&format!("{INSERT} ('m', 'e')"));
        c.query("rollback").query(&format!("{INSERT} ('m', 'f')"));
    });
    make("commits, several in one", &|c| {
        c.query(&format!("{INSERT} ('m', 'a'); {INSERT} ('m', 'b')"));
        c.query(&format!("{INSERT} ('m', 'c'); select 1/0; {INSERT} ('m', 'd')"));
        c.query(&format!("begin; {INSERT} ('m', 'e'); commit; {INSERT} ('m', 'f'); rollback"));
    });
    make("commits, extended", &|c| {
        c.run("", &format!("{INSERT} ('m', 'a')"), 0).sync();
        c.run("s", &format!("{INSERT} ('m', 'b')"), 0).run("", &format!("{INSERT} ('m', 'c')"), 0).sync();
        c.add(|out| out.put_bind("", "s", &[0; 6])).add(|out| out.put_execute("", 0)).sync();
        c.run("", &format!("{INSERT} ('m', 'd')"), 0).run("", "select 1/0", 0).sync();
        c.add(|out| out.put_bind("", "s", &[0; 6])).add(|out| out.put_execute("", 0)).sync();
        c.add(|out| out.put_target(b'C', DescribeTarget::Statement("s"))).sync();
    });
    make("commits, pipelined", &|c| {
        c.run("", "begin", 0).run("", &format!("{INSERT} ('m', 'a')"), 0).sync();
        c.run("", &format!("{INSERT} ('m', 'b')"), 0).run("", "commit", 0).sync();
        c.run("", &format!("{INSERT} ('m', 'c')"), 0).add(FrontendWriter::put_flush).query("select 1");
        c.run("", &format!("{INSERT} ('m', 'd')"), 0).sync().add(FrontendWriter::put_terminate);
    });
    make("commits, copy", &|c| {
        c.query("copy audit_log (user_id, action) from stdin");
        c.add(|out| out.put_frame(b'd', b"m\ta\nm\tb\n")).add(|out| out.put_frame(b'd', b"m\tc\n"));
        c.add(|out| out.put_frame(b'c', b"")).query(&format!("{INSERT} ('m', 'd')"));
        c.run("", "copy audit_log (user_id, action) from stdin", 0);
        c.add(|out| out.put_frame(b'd', b"m\te\n")).add(|out| out.put_frame(b'c', b"")).sync();
        c.query(&format!("{INSERT} ('m', 'f')"));
    });
    all
}
