//! From an accepted socket to a known user: startup packet, TLS, proof, all within one timeout.
//! Must not know servers or statements: what the client is told after AuthenticationOk comes from others.
//!
//! Not on pgwire's `Framed`: it carries bytes sent before TLS into the session, bounds no frame before login and
//! panics on short ones (CRATES.md 1a). Its SCRAM exchange and its message structs are used (`auth`).

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use super::auth;
use super::door::{Asked, Door};
use super::packet::{Packet, Startup, next_packet, unsupported};
use super::refusal::Refusal;
use super::tls::common_name;
use crate::config::User;
use crate::pool::{PassThrough, Stream, notice_silence};
use crate::wire::{BackendWriter as _, ErrorReport, SqlState, next_frame, peek_head};

/// First byte of a TLS ClientHello; no startup packet is long enough to begin with it.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long a client that is turned away may take to read why.
const FAREWELL: Duration = Duration::from_secs(1);
/// Read in one go at most before login, bytes.
const READ: usize = 1024;
/// Protocol 3.2, as NegotiateProtocolVersion says it.
const PROTOCOL_3: u32 = 3 << 16;

/// What an accepted connection turned out to be.
#[derive(Debug)]
pub enum Admission {
    /// A client that proved who it is. Boxed: most of the time is spent with it.
    Client(Box<Admitted>),
    /// A request to cancel another session's statement. No answer is due.
    Cancel {
        /// The socket: to be closed when the request has been delivered, for that is what its sender waits for.
        stream: Option<Stream>,
        /// The session's number.
        pid: u32,
        /// Its key, 4 to 256 bytes.
        secret: Bytes,
    },
    /// It went away by itself, as health checks do, and psql when it has to ask for a password.
    Gone,
}

/// A client that has proved who it is and is not told yet: with [`Admitted::unsent`] ParameterStatus, BackendKeyData and
/// ReadyForQuery are to be sent, all in one write as PostgreSQL does.
#[derive(Debug)]
pub struct Admitted {
    /// The socket.
    pub stream: Stream,
    /// The end of the exchange, and AuthenticationOk.
    pub unsent: BytesMut,
    /// What it already sent after the login; may hold its first queries.
    pub leftover: BytesMut,
    /// Who it is.
    pub user: Arc<User>,
    /// The database it asked for: one of the config's, any name with a `*` one, or [`super::ADMIN_DATABASE`].
    pub database: String,
    /// Startup parameters but user, database, replication and `_pq_.`; with a name twice, the later one counts.
    pub parameters: Vec<(String, String)>,
    /// 0, or 2: then cancel keys may be up to 256 bytes long.
    pub protocol_minor: u16,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// What its proof opens, if it was checked against a verifier.
    pub pass: Option<Arc<PassThrough>>,
}

/// Has a socket send at once and notice when its peer falls silent. On Linux those that a listening socket accepts have
/// what it has: six system calls less for each.
///
/// # Errors
/// The socket's.
pub fn prepare(socket: &impl AsFd) -> std::io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)?;
    notice_silence(socket)
}

/// Lets a client in, on a socket that is [`prepare`]d. Cancel safe: dropped, it closes the connection.
///
/// # Errors
/// [`Refusal`], for the log: the client was told and the connection is closed.
pub async fn admit(stream: TcpStream, peer: SocketAddr, door: &Door) -> Result<Admission, Refusal> {
    admit_stream(Stream::Plain(stream), peer.ip().to_canonical().is_loopback(), door).await
}

/// [`admit`] for any socket. `is_local`: whether users without a password are let in.
///
/// # Errors
/// As [`admit`].
pub async fn admit_stream(stream: Stream, is_local: bool, door: &Door) -> Result<Admission, Refusal> {
    let mut guest =
        Guest { door, is_local, stream: Some(stream), buf: BytesMut::with_capacity(READ), knows_us: false };
    let _place = match door.place() {
        Ok(place) => place,
        Err(refusal) => return Box::pin(guest.turn_away(refusal, false)).await,
    };
    let outcome = timeout(door.login_timeout(), guest.run()).await;
    match outcome {
        Ok(Ok(admission)) => Ok(admission),
        Ok(Err(End::Gone)) => Ok(Admission::Gone),
        Ok(Err(End::Refused(refusal))) => Box::pin(guest.turn_away(refusal, true)).await,
        Err(_) => {
            let refusal = if guest.knows_us {
                Refusal::fatal(SqlState::QUERY_CANCELED, "canceling authentication due to timeout")
            } else {
                Refusal::silent("no startup packet within timeouts.login")
            };
            Box::pin(guest.turn_away(refusal, true)).await
        }
    }
}

/// Why a login ends early.
enum End {
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Gone // nobody is left to be told
    }
}

/// A connection that is nobody's yet.
struct Guest<'a> {
    door: &'a Door,
    is_local: bool,
    /// `None` while rustls has it, and after the end.
    stream: Option<Stream>,
    buf: BytesMut,
    /// It sent a startup packet, so it understands an ErrorResponse.
    knows_us: bool,
}

impl Guest<'_> {
    async fn run(&mut self) -> Result<Admission, End> {
        match self.first_packet().await? {
            Packet::Cancel { pid, secret } => {
                Ok(Admission::Cancel { stream: self.stream.take(), pid, secret })
            }
            Packet::Startup(startup) => self.log_in(startup).await,
            // A second request is, as for PostgreSQL, a version that does not exist.
            Packet::Ssl => Err(self.known(unsupported(1234, 5679))),
            Packet::Gss => Err(self.known(unsupported(1234, 5680))),
        }
    }

    fn known(&mut self, refusal: Refusal) -> End {
        self.knows_us = true;
        End::Refused(refusal)
    }

    /// Deals with encryption and gives the packet after it.
    async fn first_packet(&mut self) -> Result<Packet, End> {
        if self.begins_with_tls().await? {
            self.start_tls(true).await?;
            return self.packet().await;
        }
        let (mut ssl, mut gss) = (false, false);
        loop {
            let packet = self.packet().await?;
            match packet {
                Packet::Ssl if !ssl => {
                    ssl = true;
                    self.nothing_smuggled()?;
                    if self.door.tls.is_some() && matches!(self.stream, Some(Stream::Plain(_))) {
                        self.send(b"S").await?;
                        self.start_tls(false).await?;
                        return self.packet().await;
                    }
                    self.send(b"N").await?;
                }
                Packet::Gss if !gss => {
                    gss = true;
                    self.nothing_smuggled()?;
                    self.send(b"N").await?;
                }
                Packet::Ssl | Packet::Gss | Packet::Cancel { .. } | Packet::Startup(_) => return Ok(packet),
            }
        }
    }

    /// Whether TLS begins without SSLRequest (`sslnegotiation=direct`). What TLS is to read itself is only looked at.
    async fn begins_with_tls(&mut self) -> Result<bool, End> {
        let Some(Stream::Plain(tcp)) = &self.stream else { return Ok(false) };
        if self.door.tls.is_none() {
            self.read().await?;
            return Ok(self.buf.first() == Some(&TLS_HANDSHAKE));
        }
        let mut byte = [0];
        match tcp.peek(&mut byte).await? {
            0 => Err(End::Gone),
            _ => Ok(byte == [TLS_HANDSHAKE]),
        }
    }

    /// Bytes behind a request for encryption came in clear and may be anybody's: they must not be taken for the
    /// encrypted session's (CVE-2021-23214).
    fn nothing_smuggled(&mut self) -> Result<(), End> {
        if self.buf.is_empty() {
            return Ok(());
        }
        let message = "received unencrypted data after an encryption request";
        let report = ErrorReport::fatal(SqlState::PROTOCOL_VIOLATION, message).with_detail(
            "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.",
        );
        Err(self.known(Refusal::told(report)))
    }

    async fn start_tls(&mut self, direct: bool) -> Result<(), End> {
        let Some(tls) = &self.door.tls else {
            return Err(End::Refused(Refusal::silent("direct TLS, and TLS is not configured")));
        };
        match self.stream.take() {
            Some(Stream::Plain(tcp)) => {
                let accepted = Box::pin(tls.accept(tcp, direct)).await?;
                self.stream = Some(Stream::Tls(Box::new(TlsStream::Server(accepted))));
                Ok(())
            }
            Some(Stream::Joint(_) | Stream::Unix(_) | Stream::Tls(_)) | None => Err(End::Gone), // asked for on TCP only
        }
    }

    async fn log_in(&mut self, mut startup: Startup) -> Result<Admission, End> {
        self.knows_us = true;
        startup.speak_at_most(self.door.newest_minor(&startup.database));
        let is_tls = self.stream.as_ref().is_some_and(Stream::is_tls);
        if self.door.tls.as_ref().is_some_and(|tls| tls.required) && !is_tls {
            let message = "connections without TLS are not accepted";
            let code = SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
            let report = ErrorReport::fatal(code, message).with_hint("Connect with sslmode=require.");
            return Err(Refusal::told(report).into());
        }
        let mut out = BytesMut::with_capacity(256);
        if let Some(unknown) = &startup.negotiate {
            put_negotiate(&mut out, startup.minor, unknown);
        }
        let (user, pass) = self.prove(&startup, is_tls, &mut out).await?;
        let entered = self.door.may_enter(&user, &startup.database);
        auth::accept(&mut out)?;
        if let Err(refusal) = entered {
            self.send(&out).await?;
            return Err(about(refusal, &startup).into());
        }
        Ok(Admission::Client(Box::new(Admitted {
            stream: self.stream.take().ok_or(End::Gone)?,
            unsent: out,
            leftover: std::mem::take(&mut self.buf),
            user,
            database: startup.database,
            parameters: startup.parameters,
            protocol_minor: startup.minor,
            is_tls,
            pass,
        })))
    }

    /// Has the client prove that it is that user. `out` holds what is to be sent before, and after it the end of the
    /// exchange, to be sent with AuthenticationOk.
    async fn prove(
        &mut self,
        startup: &Startup,
        is_tls: bool,
        out: &mut BytesMut,
    ) -> Result<(Arc<User>, Option<Arc<PassThrough>>), End> {
        let (door, name) = (self.door, startup.user.as_str());
        let asked = self.ask(startup).await?;
        let Some(verifier) = asked.verifier else {
            return Ok((asked.user.ok_or(End::Gone)?, None)); // no verifier: always a known user
        };
        let scram = door.scram(is_tls);
        auth::offer(out, scram)?;
        self.send(out).await?;
        out.clear();
        let body = self.password_message().await?;
        let waiting = auth::first(scram, &verifier, &body, out)?;
        self.send(out).await?;
        out.clear();
        let body = self.password_message().await?;
        match (auth::last(&waiting, &body, out)?, asked.user) {
            (true, Some(user)) => {
                let learns = user.server_password.is_none() && user.server_user == user.name;
                let pass = learns.then(|| waiting.pass_through(&verifier, &body)).flatten();
                Ok((user, pass.map(Arc::new)))
            }
            (false | true, _) => {
                if let Some((proxy, database)) = door.proxy().zip(door.looks_up(name, &startup.database)) {
                    proxy.doubt(database, name);
                }
                let refusal = auth::wrong_password(name);
                Err(End::Refused(match asked.hopeless {
                    Some(why) => {
                        let told = refusal.why.clone();
                        refusal.because(format!("{told}: {why}"))
                    }
                    None => refusal,
                }))
            }
        }
    }

    /// Whom the name belongs to, from the configuration or from a server.
    async fn ask(&self, startup: &Startup) -> Result<Asked, End> {
        let (door, name) = (self.door, startup.user.as_str());
        if let Some((proxy, database)) = door.proxy().zip(door.looks_up(name, &startup.database)) {
            let found =
                Box::pin(proxy.look_up(database, &startup.database, name)).await.map_err(|error| {
                    let message = "users cannot be looked up now";
                    let refusal = Refusal::fatal(SqlState::CANNOT_CONNECT_NOW, message);
                    refusal.because(format!("{message}: {error}"))
                })?;
            return Ok(door.ask_of(name, &found));
        }
        let cn = match &self.stream {
            Some(Stream::Tls(tls)) => common_name(tls.get_ref().1),
            Some(Stream::Plain(_) | Stream::Joint(_) | Stream::Unix(_)) | None => None,
        };
        Ok(door.ask(name, self.is_local, cn.as_deref()))
    }

    /// The body of the next `p` message. Anything else ends the login before its body is even waited for.
    async fn password_message(&mut self) -> Result<Bytes, End> {
        loop {
            match self.buf.first() {
                None | Some(b'p') => {}
                Some(b'X') => return Err(End::Gone),
                Some(tag) => {
                    let tag = tag.escape_ascii();
                    let message = format!("expected SASL response, got message type \"{tag}\"");
                    return Err(Refusal::fatal(SqlState::PROTOCOL_VIOLATION, message).into());
                }
            }
            peek_head(&self.buf, auth::MAX_MESSAGE).map_err(Refusal::from)?;
            if let Some(frame) = next_frame(&mut self.buf, auth::MAX_MESSAGE).map_err(Refusal::from)? {
                return Ok(frame.body);
            }
            self.read().await?;
        }
    }

    async fn packet(&mut self) -> Result<Packet, End> {
        loop {
            match next_packet(&mut self.buf) {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) => self.read().await?,
                Err(refusal) => return Err(self.known(refusal)),
            }
        }
    }

    async fn read(&mut self) -> Result<(), End> {
        let stream = self.stream.as_mut().ok_or(End::Gone)?;
        self.buf.reserve(READ);
        match stream.read_buf(&mut self.buf).await? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), End> {
        let stream = self.stream.as_mut().ok_or(End::Gone)?;
        stream.write_all(bytes).await?;
        Ok(stream.flush().await?)
    }

    /// Says why and closes. A socket closed with unread bytes is reset, and the reset can overtake what was said;
    /// so they are read: for a while, or, where there is a crowd before the door, what is there already.
    async fn turn_away(mut self, refusal: Refusal, linger: bool) -> Result<Admission, Refusal> {
        if let (Some(stream), Some(report)) = (self.stream.as_mut(), &refusal.report) {
            let mut out = BytesMut::with_capacity(256);
            out.put_report(report);
            let farewell = async {
                stream.write_all(&out).await?;
                stream.shutdown().await?;
                while linger && stream.read(&mut [0; READ]).await? > 0 {}
                Ok::<(), std::io::Error>(())
            };
            let _ = timeout(FAREWELL, farewell).await; // it may be gone, and need not know
            stream.poll_idle(&mut self.buf);
        }
        Err(refusal)
    }
}

fn about(refusal: Refusal, startup: &Startup) -> Refusal {
    let why = format!("{} (user \"{}\")", refusal.why, startup.user);
    refusal.because(why)
}

/// NegotiateProtocolVersion: the whole version, as PostgreSQL sends it, and the options that are unknown here.
fn put_negotiate(out: &mut BytesMut, minor: u16, unknown: &[String]) {
    let body = 8 + unknown.iter().map(|name| name.len() + 1).sum::<usize>();
    out.put_u8(b'v');
    out.put_u32(body as u32 + 4);
    out.put_u32(PROTOCOL_3 | u32::from(minor));
    out.put_u32(unknown.len() as u32);
    for name in unknown {
        out.put_slice(name.as_bytes());
        out.put_u8(0);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_listening_socket_has_those_that_it_accepts_have_too() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        prepare(&listener).unwrap();
        let _theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (ours, _) = listener.accept().await.unwrap();
        let inherits = SockRef::from(&ours);
        let asked = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        prepare(&asked).unwrap();
        let asked = SockRef::from(&asked);
        assert!(inherits.tcp_nodelay().unwrap() && inherits.keepalive().unwrap());
        assert_eq!(inherits.tcp_keepalive_time().unwrap(), asked.tcp_keepalive_time().unwrap());
        assert_eq!(inherits.tcp_keepalive_interval().unwrap(), asked.tcp_keepalive_interval().unwrap());
        assert_eq!(inherits.tcp_keepalive_retries().unwrap(), asked.tcp_keepalive_retries().unwrap());
        assert_eq!(inherits.tcp_user_timeout().unwrap(), asked.tcp_user_timeout().unwrap());
    }
}
