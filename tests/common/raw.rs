//! A client that speaks the protocol message by message, to say what no driver would.
//! Must not know what is tested.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pgherd::wire::{DescribeTarget, ErrorFields, FrontendWriter, next_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Front;

const PATIENCE: Duration = Duration::from_secs(20);

/// A message of the server: its tag and body.
pub type Message = (u8, Vec<u8>);

/// A connected and authenticated client.
#[derive(Debug)]
pub struct Raw {
    /// The socket.
    pub stream: TcpStream,
    buf: BytesMut,
    /// What is sent next.
    pub out: BytesMut,
    /// As in BackendKeyData.
    pub key: Vec<u8>,
}

impl Raw {
    /// Connects as the user that needs no password.
    pub async fn connect(front: &Front) -> Self {
        Self::connect_by(front, 0).await
    }

    /// The same by protocol 3.`minor`.
    pub async fn connect_by(front: &Front, minor: u32) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", front.port)).await.unwrap();
        let mut startup = BytesMut::new();
        startup.put_u32((3 << 16) | minor);
        startup.put_slice(b"user\0raw\0database\0app\0\0");
        stream.write_u32(startup.len() as u32 + 4).await.unwrap();
        stream.write_all(&startup).await.unwrap();
        let mut raw = Self { stream, buf: BytesMut::new(), out: BytesMut::new(), key: Vec::new() };
        loop {
            match raw.next().await {
                Some((b'Z', _)) => return raw,
                Some((b'K', key)) => raw.key = key,
                Some((b'E', body)) => panic!("{:?}", ErrorFields::parse(&body)),
                Some(_) => {}
                None => panic!("the connection was closed at login"),
            }
        }
    }

    /// Connects to a server itself, as `app`.
    pub async fn direct(pg: &super::Pg) -> Self {
        let endpoint = pgherd::pool::Endpoint {
            host: "127.0.0.1".into(),
            port: pg.port,
            database: pgherd::local::APP_DATABASE.into(),
            user: pgherd::local::APP_USER.into(),
            pass: None,
            password: Some(pgherd::local::APP_PASSWORD.to_owned().into()),
            tls: pgherd::pool::ServerTlsSettings::disabled().unwrap(),
            connect_timeout: PATIENCE,
            parameters: Vec::new(),
            keys: Default::default(),
        };
        let opened = pgherd::pool::connect(&endpoint).await.unwrap();
        let pgherd::pool::Stream::Plain(stream) = opened.stream else { panic!("not a plain socket") };
        Self { stream, buf: opened.leftover, out: BytesMut::new(), key: Vec::new() }
    }

    /// The next message; `None` if the connection is closed.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(frame) = next_frame(&mut self.buf, 1 << 30).unwrap() {
                return Some((frame.tag, frame.body.to_vec()));
            }
            let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buf)).await;
            match read.unwrap_or_else(|_| panic!("no answer within {PATIENCE:?}")) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Sends what is in `out`.
    pub async fn send(&mut self) {
        let out = self.out.split();
        self.stream.write_all(&out).await.unwrap();
    }

    /// Parse, Bind and Execute of a statement without a name; `describe`: and Describe of the portal.
    pub fn statement(&mut self, sql: &str, describe: bool) -> &mut Self {
        self.out.put_parse("", sql.as_bytes(), &[]);
        self.out.put_bind("", "", &[0; 6]);
        if describe {
            self.out.put_target(b'D', DescribeTarget::Portal(""));
        }
        self.out.put_execute("", 0);
        self
    }

    /// What is answered up to so many ReadyForQuery, one word a message: errors as their SQLSTATE, rows as their
    /// first value, commands as their tag, ReadyForQuery as its status, others as their letter.
    pub async fn answers(&mut self, ready: usize) -> String {
        let mut words = Vec::new();
        let mut seen = 0;
        while seen < ready {
            let Some(message) = self.next().await else {
                words.push("closed".to_owned());
                break;
            };
            seen += usize::from(message.0 == b'Z');
            words.push(word(&message));
        }
        words.join(" ")
    }

    /// Sends, and answers up to one ReadyForQuery.
    pub async fn ask(&mut self) -> String {
        self.send().await;
        self.answers(1).await
    }
}

fn word((tag, body): &Message) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    match tag {
        b'E' => ErrorFields::parse(body).unwrap().code,
        b'D' => {
            let len = i32::from_be_bytes(body[2..6].try_into().unwrap());
            usize::try_from(len).map_or("NULL".into(), |len| text(&body[6..6 + len]))
        }
        b'C' => text(body).replace(' ', "_"),
        b'Z' => format!("/{}", char::from(body[0])),
        tag => char::from(*tag).to_string(),
    }
}
