//! One client that speaks the protocol message by message, to the proxy or to a server alike, and a pair of them
//! whose answers must be the same.
//! Must not know what is tested.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pgherd::config::{ServerTls, ServerTlsMode};
use pgherd::pool::{Endpoint, ServerTlsSettings, Stream, connect};
use pgherd::wire::{DescribeTarget, ErrorFields, FrontendWriter, next_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of user `app` to database `app`.
pub struct Wire {
    stream: Stream,
    buf: BytesMut,
    out: BytesMut,
    /// Answers that end with ReadyForQuery and have been asked for.
    owed: usize,
    /// What was reported at login.
    pub parameters: Vec<(String, String)>,
}

impl Wire {
    /// Logs in with these startup parameters.
    pub async fn connect(port: u16, parameters: &[(&str, &str)]) -> Self {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port,
            database: "app".into(),
            user: "app".into(),
            pass: None,
            password: Some("app".into()),
            tls: ServerTlsSettings::load(&ServerTls::mode(ServerTlsMode::Disable)).unwrap(),
            connect_timeout: PATIENCE,
            parameters: parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            keys: Default::default(),
        };
        let opened = connect(&endpoint).await.unwrap_or_else(|e| panic!("{parameters:?}: {e}"));
        let mut parameters = opened.parameters;
        parameters.sort();
        Self { stream: opened.stream, buf: opened.leftover, out: BytesMut::new(), owed: 0, parameters }
    }

    /// Query.
    pub fn query(&mut self, sql: &str) -> &mut Self {
        self.out.put_query(sql.as_bytes());
        self.owed += 1;
        self
    }

    /// Parse.
    pub fn parse(&mut self, name: &str, sql: &str) -> &mut Self {
        self.out.put_parse(name, sql.as_bytes(), &[]);
        self
    }

    /// Bind with values as text.
    pub fn bind(&mut self, portal: &str, statement: &str, values: &[&str]) -> &mut Self {
        let mut tail = BytesMut::new();
        tail.put_u16(0);
        tail.put_u16(values.len() as u16);
        for value in values {
            tail.put_u32(value.len() as u32);
            tail.put_slice(value.as_bytes());
        }
        tail.put_u16(0);
        self.out.put_bind(portal, statement, &tail);
        self
    }

    /// Describe of a statement.
    pub fn describe(&mut self, statement: &str) -> &mut Self {
        self.out.put_target(b'D', DescribeTarget::Statement(statement));
        self
    }

    /// Describe of a portal.
    pub fn describe_portal(&mut self, portal: &str) -> &mut Self {
        self.out.put_target(b'D', DescribeTarget::Portal(portal));
        self
    }

    /// Execute.
    pub fn execute(&mut self, portal: &str, limit: i32) -> &mut Self {
        self.out.put_execute(portal, limit);
        self
    }

    /// Close of a statement.
    pub fn close(&mut self, statement: &str) -> &mut Self {
        self.out.put_target(b'C', DescribeTarget::Statement(statement));
        self
    }

    /// Close of a portal.
    pub fn close_portal(&mut self, portal: &str) -> &mut Self {
        self.out.put_target(b'C', DescribeTarget::Portal(portal));
        self
    }

    /// Flush.
    pub fn flush(&mut self) -> &mut Self {
        self.out.put_flush();
        self
    }

    /// Any message, for which one ReadyForQuery is `owed` or none.
    pub fn frame(&mut self, tag: u8, body: &[u8], owed: usize) -> &mut Self {
        self.out.put_frame(tag, body);
        self.owed += owed;
        self
    }

    /// Sync.
    pub fn sync(&mut self) -> &mut Self {
        self.out.put_sync();
        self.owed += 1;
        self
    }

    /// Bind to the unnamed portal, Execute and Sync.
    pub fn run(&mut self, statement: &str, values: &[&str]) -> &mut Self {
        self.bind("", statement, values).execute("", 0).sync()
    }

    /// Sends what was written, and reads all that is owed: one word a message.
    pub async fn answers(&mut self) -> Vec<String> {
        self.send().await;
        let mut words = Vec::new();
        while self.owed > 0 {
            let word = self.next().await.unwrap_or_else(|| panic!("no more after {words:?}"));
            self.owed -= usize::from(word.starts_with("ready "));
            words.push(word);
        }
        words
    }

    /// The same where an error may skip what else is owed: a mark follows that a failed transaction answers too.
    pub async fn answers_to_mark(&mut self) -> Vec<String> {
        const MARK: usize = 20;
        (0..MARK).for_each(|_| self.out.put_target(b'C', DescribeTarget::Statement("the mark")));
        self.out.put_sync();
        self.owed = 0;
        self.send().await;
        let (mut words, mut run) = (Vec::new(), 0);
        loop {
            let Some(word) = self.next().await else {
                words.push("no more".into());
                return words;
            };
            if run >= MARK && word.starts_with("ready ") {
                words.truncate(words.len() - MARK);
                return words;
            }
            run = if word == "3" { run + 1 } else { 0 };
            words.push(word);
        }
    }

    /// Sends what was written.
    pub async fn send(&mut self) {
        let out = self.out.split();
        self.stream.write_all(&out).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next message; `None` if none comes.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(frame) = next_frame(&mut self.buf, 1 << 30).unwrap() {
                return Some(word(frame.tag, &frame.body));
            }
            match tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buf)).await {
                Ok(Ok(1..)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }
}

fn word(tag: u8, body: &[u8]) -> String {
    let text = |bytes: &[u8]| {
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        String::from_utf8_lossy(bytes).replace('\0', "=")
    };
    match tag {
        b'E' | b'N' => {
            let fields = ErrorFields::parse(body).unwrap();
            format!("{} {}: {}", fields.severity, fields.code, fields.message)
        }
        b'D' => {
            let count = u16::from_be_bytes([body[0], body[1]]);
            let (mut rest, mut values) = (&body[2..], Vec::new());
            for _ in 0..count {
                let len = i32::from_be_bytes(rest[..4].try_into().unwrap());
                rest = &rest[4..];
                match usize::try_from(len) {
                    Ok(len) => {
                        values.push(text(&rest[..len]));
                        rest = &rest[len..];
                    }
                    Err(_) => values.push("∅".into()),
                }
            }
            format!("row {}", values.join("|"))
        }
        b'T' => {
            let columns = pgherd::wire::parse_row_description(body).unwrap();
            let columns: Vec<_> = columns.iter().map(|c| format!("{}:{}", c.name, c.type_oid)).collect();
            format!("columns {}", columns.join(","))
        }
        b't' => {
            let oids: Vec<_> =
                body[2..].chunks(4).map(|c| u32::from_be_bytes(c.try_into().unwrap())).collect();
            match oids.len() {
                0..100 => format!("parameters {oids:?}"),
                many => format!("{many} parameters from {} to {}", oids[0], oids[many - 1]),
            }
        }
        b'C' => format!("done {}", text(body)),
        b'S' => format!("status {}", text(body)),
        b'Z' => format!("ready {}", char::from(body[0])),
        b'A' => {
            let payload = text(&body[4..]);
            format!("heard {}", payload.rsplit('=').next().unwrap_or_default())
        }
        tag => char::from(tag).to_string(),
    }
}

/// A client of one server, and one of the proxy.
pub struct Pair {
    /// The server's.
    pub one: Wire,
    /// The proxy's.
    pub proxy: Wire,
}

impl Pair {
    /// Both log in alike, and are told the same.
    pub async fn connect(server: u16, proxy: u16, parameters: &[(&str, &str)]) -> Self {
        let pair = Self {
            one: Wire::connect(server, parameters).await,
            proxy: Wire::connect(proxy, parameters).await,
        };
        assert_eq!(pair.one.parameters, pair.proxy.parameters, "{parameters:?}");
        pair
    }

    /// Both say the same and must be answered the same. Gives the answer.
    pub async fn same(&mut self, say: impl Fn(&mut Wire) -> &mut Wire) -> Vec<String> {
        let (one, proxy) = tokio::join!(say(&mut self.one).answers(), say(&mut self.proxy).answers());
        assert_eq!(one, proxy, "left: one server, right: the proxy");
        one
    }

    /// The same for one Query.
    pub async fn query(&mut self, sql: &str) -> Vec<String> {
        let (one, proxy) = tokio::join!(self.one.query(sql).answers(), self.proxy.query(sql).answers());
        assert_eq!(one, proxy, "{sql}\nleft: one server, right: the proxy");
        one
    }

    /// The same for one statement in the extended protocol, described.
    pub async fn extended(&mut self, sql: &str, values: &[&str]) -> Vec<String> {
        let say = |wire: &mut Wire| {
            wire.parse("", sql).bind("", "", values).describe_portal("").execute("", 0).sync();
        };
        say(&mut self.one);
        say(&mut self.proxy);
        let (one, proxy) = tokio::join!(self.one.answers(), self.proxy.answers());
        assert_eq!(one, proxy, "{sql}\nleft: one server, right: the proxy");
        one
    }
}
