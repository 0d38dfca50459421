//! A server that lies: it stands before a real one, passes everything on, and answers what is marked by itself.
//! Must not know the proxy, nor what is to become of its lies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pgherd::wire::next_frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What follows the bytes of a lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The connection is closed.
    Close,
    /// Nothing, ever.
    Silence,
    /// The same bytes for as long as they are read.
    Repeat,
    /// It goes on as an honest server would.
    GoOn,
}

/// Bytes instead of an answer.
#[derive(Debug, Clone)]
pub(crate) struct Lie {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

#[derive(Debug, Default)]
struct Shared {
    lies: Mutex<HashMap<u32, Lie>>,
    /// Instead of the answer to a login as `app`.
    at_login: Mutex<Option<Lie>>,
    told: AtomicUsize,
    numbers: Mutex<HashSet<u32>>,
    reused: AtomicUsize,
}

/// One of them, on a port of its own.
#[derive(Debug, Clone)]
pub(crate) struct Liar {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Liar {
    /// Before the server on this port.
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let all = shared.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = all.clone();
                tokio::spawn(async move {
                    // Either side may break off at any time.
                    drop(Talk::begin(client, server, shared).await);
                });
            }
        });
        Self { port, shared }
    }

    /// A statement with `lie:NUMBER` in its text will be answered so.
    pub(crate) fn learn(&self, number: u32, lie: Lie) {
        self.shared.lies.lock().insert(number, lie);
    }

    /// Logins as `app` are answered so, or honestly.
    pub(crate) fn lie_at_login(&self, lie: Option<Lie>) {
        *self.shared.at_login.lock() = lie;
    }

    /// How often it has lied.
    pub(crate) fn told(&self) -> usize {
        self.shared.told.load(Relaxed)
    }

    /// Whether it has told the lie of this number.
    pub(crate) fn has_told(&self, number: u32) -> bool {
        self.shared.numbers.lock().contains(&number)
    }

    /// How many statements came on connections on which it had lied before.
    pub(crate) fn reused(&self) -> usize {
        self.shared.reused.load(Relaxed)
    }
}

struct Talk {
    client: TcpStream,
    server: TcpStream,
    shared: Arc<Shared>,
    /// From the client, not yet understood.
    inbuf: BytesMut,
    /// From the server, not yet understood.
    answers: BytesMut,
    /// ReadyForQuery that the server still owes.
    owed: usize,
    /// The lie under way: swallowed up to Sync.
    lie: Option<Lie>,
    lied: bool,
}

impl Talk {
    async fn begin(mut client: TcpStream, server: u16, shared: Arc<Shared>) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let startup = loop {
            let len = client.read_u32().await?;
            let mut body = vec![0; (len as usize).saturating_sub(4)];
            client.read_exact(&mut body).await?;
            if body.len() > 4 {
                break body;
            }
            client.write_all(b"N").await?; // no TLS
        };
        let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
        server.set_nodelay(true)?;
        if startup.starts_with(&[4, 210, 22, 46]) {
            server.write_u32(startup.len() as u32 + 4).await?;
            server.write_all(&startup).await?;
            server.read_to_end(&mut Vec::new()).await?; // a cancel request: passed on
            return Ok(());
        }
        let as_app = startup.windows(9).any(|w| w == b"user\0app\0");
        let lie = shared.at_login.lock().clone().filter(|_| as_app);
        let (inbuf, answers) = (BytesMut::new(), BytesMut::new());
        let mut talk = Self { client, server, shared, inbuf, answers, owed: 1, lie: None, lied: false };
        if let Some(lie) = lie {
            return talk.tell(lie).await.map(drop);
        }
        talk.server.write_u32(startup.len() as u32 + 4).await?;
        talk.server.write_all(&startup).await?;
        talk.relay().await
    }

    async fn relay(&mut self) -> std::io::Result<()> {
        loop {
            tokio::select! {
                read = self.client.read_buf(&mut self.inbuf) => {
                    if read? == 0 {
                        return Ok(());
                    }
                }
                read = self.server.read_buf(&mut self.answers) => {
                    if read? == 0 {
                        return Ok(());
                    }
                    self.answered().await?;
                }
            }
            if !self.asked().await? {
                return Ok(());
            }
        }
    }

    /// Passes answers on, counting those that are whole.
    async fn answered(&mut self) -> std::io::Result<()> {
        while let Some(frame) = next_frame(&mut self.answers, 1 << 30).expect("an honest server") {
            self.owed = self.owed.saturating_sub(usize::from(frame.tag == b'Z'));
            self.client.write_u8(frame.tag).await?;
            self.client.write_u32(frame.body.len() as u32 + 4).await?;
            self.client.write_all(&frame.body).await?;
        }
        Ok(())
    }

    /// Passes messages on up to a marked one. `false`: the connection is over.
    async fn asked(&mut self) -> std::io::Result<bool> {
        loop {
            let mut ahead = self.inbuf.clone();
            let Some(frame) = next_frame(&mut ahead, 1 << 30).expect("an honest client") else {
                return Ok(true);
            };
            let ends = matches!(frame.tag, b'Q' | b'S');
            if let Some(number) = marked(frame.tag, &frame.body).filter(|_| self.lie.is_none()) {
                if self.owed > 0 {
                    return Ok(true); // in its turn
                }
                self.lie = self.shared.lies.lock().get(&number).cloned();
                self.shared.numbers.lock().insert(number);
            }
            let len = self.inbuf.len() - ahead.len();
            if let Some(lie) = self.lie.take_if(|_| ends) {
                self.inbuf.advance(len);
                if !self.tell(lie).await? {
                    return Ok(false);
                }
            } else if self.lie.is_some() {
                self.inbuf.advance(len);
            } else {
                if ends && self.lied {
                    self.shared.reused.fetch_add(1, Relaxed);
                }
                self.owed += usize::from(ends);
                let message = self.inbuf.split_to(len);
                self.server.write_all(&message).await?;
            }
        }
    }

    async fn tell(&mut self, lie: Lie) -> std::io::Result<bool> {
        self.shared.told.fetch_add(1, Relaxed);
        self.lied = true;
        self.client.write_all(&lie.bytes).await?;
        match lie.then {
            Then::GoOn => Ok(true),
            Then::Close => Ok(false),
            Then::Silence => {
                while self.client.read_buf(&mut self.inbuf).await? > 0 {
                    self.inbuf.clear();
                }
                Ok(false)
            }
            Then::Repeat => loop {
                self.client.write_all(&lie.bytes).await?;
            },
        }
    }
}

fn marked(tag: u8, body: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(body).ok().filter(|_| matches!(tag, b'Q' | b'P'))?;
    let (_, rest) = text.split_once("lie:")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
