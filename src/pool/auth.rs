//! The login dialogue with a server, from the startup packet to its first ReadyForQuery.
//! Must not know how the socket was opened, nor who asked for it.

use bytes::{BufMut as _, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::conn::{Endpoint, Opened};
use super::error::ConnectError;
use super::scram::{Binding, Expected, Hello, ScramError};
use super::stream::Stream;
use super::tls::channel_binding;
use crate::wire::{ErrorFields, Frame, FrontendWriter as _, next_frame, parse_parameter_status, peek_head};

/// No message of a login is longer, bytes: a server that sends more is none.
const MAX_MESSAGE: usize = 64 * 1024;
/// libpq knows about a dozen; more than this is a server that never becomes ready.
pub(super) const MAX_PARAMETERS: usize = 1000;
const PROTOCOL_3_0: u32 = 3 << 16;

/// Logs in. Not cancel safe: the stream is gone.
pub(super) async fn log_in(stream: Stream, endpoint: &Endpoint) -> Result<Opened, ConnectError> {
    let mut dialogue = Dialogue { stream, buf: BytesMut::with_capacity(1024), endpoint };
    dialogue.send(&startup_packet(endpoint)).await?;
    dialogue.authenticate().await?;
    dialogue.until_ready().await
}

fn startup_packet(endpoint: &Endpoint) -> BytesMut {
    let mut packet = BytesMut::with_capacity(256);
    packet.put_u32(0);
    packet.put_u32(PROTOCOL_3_0);
    let mut pair = |name: &str, value: &str| {
        packet.put_slice(name.as_bytes());
        packet.put_u8(0);
        packet.put_slice(value.as_bytes());
        packet.put_u8(0);
    };
    pair("user", &endpoint.user);
    pair("database", &endpoint.database);
    for (name, value) in [("client_encoding", "UTF8")] {
        if !endpoint.parameters.iter().any(|(given, _)| given == name) {
            pair(name, value);
        }
    }
    endpoint.parameters.iter().for_each(|(name, value)| pair(name, value));
    packet.put_u8(0);
    let len = packet.len() as u32;
    if let Some(head) = packet.first_chunk_mut() {
        *head = len.to_be_bytes();
    }
    packet
}

struct Dialogue<'a> {
    stream: Stream,
    buf: BytesMut,
    endpoint: &'a Endpoint,
}

/// How far a SASL exchange is.
enum Sasl {
    None,
    Hello(Hello),
    Answered(Expected),
    Proven,
}

impl Dialogue<'_> {
    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConnectError> {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|e| ConnectError::io(self.endpoint.address(), e))
    }

    async fn next(&mut self) -> Result<Frame, ConnectError> {
        loop {
            let address = || self.endpoint.address();
            let lost = |e| ConnectError::wire(address(), &e);
            if let Some(frame) = next_frame(&mut self.buf, MAX_MESSAGE).map_err(lost)? {
                return Ok(frame);
            }
            if let Some(head) = peek_head(&self.buf, MAX_MESSAGE).map_err(lost)? {
                self.buf.reserve(head.total().saturating_sub(self.buf.len()));
            }
            match self.stream.read_buf(&mut self.buf).await {
                Ok(0) => return Err(ConnectError::closed(address())),
                Ok(_) => {}
                Err(e) => return Err(ConnectError::io(address(), e)),
            }
        }
    }

    /// The next message that matters: errors end the login, notices and NegotiateProtocolVersion are passed over
    /// (we ask for 3.0 and no option, so there is nothing to negotiate down to).
    async fn next_of_login(&mut self) -> Result<Frame, ConnectError> {
        loop {
            let frame = self.next().await?;
            match frame.tag {
                b'N' | b'v' => {}
                b'E' => {
                    let address = self.endpoint.address();
                    return Err(match ErrorFields::parse(&frame.body) {
                        Ok(fields) => ConnectError::answered(address, &self.endpoint.user, fields),
                        Err(e) => ConnectError::wire(address, &e),
                    });
                }
                _ => return Ok(frame),
            }
        }
    }

    /// Until AuthenticationOk. Source: PostgreSQL docs, "Message Flow", Start-up.
    async fn authenticate(&mut self) -> Result<(), ConnectError> {
        let mut sasl = Sasl::None;
        loop {
            let frame = self.next_of_login().await?;
            let Some((code, data)) = authentication(&frame) else {
                return Err(self.broken("a message other than a request for authentication"));
            };
            sasl = match (code, sasl) {
                (0, Sasl::None | Sasl::Proven) => return Ok(()),
                (3, Sasl::None) => {
                    let password = self.password()?.clone();
                    self.send_password(password.expose_secret().as_bytes()).await?;
                    Sasl::None
                }
                (5, Sasl::None) => {
                    let Ok(salt) = <[u8; 4]>::try_from(data) else {
                        return Err(self.broken("a salt for MD5 that is not 4 bytes long"));
                    };
                    let password = self.password()?.expose_secret().as_bytes();
                    let hash = md5_hash(self.endpoint.user.as_bytes(), password, salt);
                    self.send_password(hash.as_bytes()).await?;
                    Sasl::None
                }
                (10, Sasl::None) => Sasl::Hello(self.sasl_hello(data).await?),
                (11, Sasl::Hello(hello)) => Sasl::Answered(self.sasl_answer(hello, data).await?),
                (12, Sasl::Answered(expected)) => {
                    expected.check(data).map_err(|e| self.scram(e))?;
                    Sasl::Proven
                }
                (0 | 3 | 5 | 10..=12, _) => {
                    return Err(self.broken("an authentication message out of turn"));
                }
                (other, _) => {
                    return Err(self.unable(format!("authentication method {other} is not supported")));
                }
            };
        }
    }

    async fn send_password(&mut self, password: &[u8]) -> Result<(), ConnectError> {
        let mut out = BytesMut::with_capacity(password.len() + 6);
        out.put_u8(b'p');
        out.put_u32(password.len() as u32 + 5);
        out.put_slice(password);
        out.put_u8(0);
        self.send(&out).await
    }

    async fn sasl_hello(&mut self, mechanisms: &[u8]) -> Result<Hello, ConnectError> {
        if self.endpoint.pass.is_none() {
            self.password()?;
        }
        let offered = |name: &str| mechanisms.split(|b| *b == 0).any(|m| m == name.as_bytes());
        let hash = match &self.stream {
            Stream::Tls(tls) => channel_binding(tls.get_ref().1),
            Stream::Plain(_) | Stream::Joint(_) | Stream::Unix(_) => None,
        };
        let binding = match hash {
            Some(hash) if offered("SCRAM-SHA-256-PLUS") => Binding::EndPoint(hash),
            Some(_) => Binding::NotOffered,
            None => Binding::Unable,
        };
        let mechanism = binding.mechanism();
        if !offered(mechanism) {
            return Err(self.unable("the server offers no SASL mechanism that is known here".to_owned()));
        }
        let hello = Hello::new(binding);
        let message = hello.message();
        let mut body = BytesMut::with_capacity(128);
        body.put_slice(mechanism.as_bytes());
        body.put_u8(0);
        body.put_u32(message.len() as u32);
        body.put_slice(message.as_bytes());
        let mut out = BytesMut::with_capacity(128);
        out.put_frame(b'p', &body);
        self.send(&out).await?;
        Ok(hello)
    }

    async fn sasl_answer(&mut self, hello: Hello, data: &[u8]) -> Result<Expected, ConnectError> {
        let challenge = hello.challenge(data).map_err(|e| self.scram(e))?;
        let keys = match (&self.endpoint.password, &self.endpoint.pass) {
            (None, Some(pass)) => pass.keys(&challenge.salt, challenge.iterations).ok_or_else(|| {
                self.unable(
                    "the server stores another verifier than the one that the client was checked with: \
                     give the role the same rolpassword on every server"
                        .to_owned(),
                )
            })?,
            _ => {
                let keys = self.endpoint.keys.keys(self.password()?, &challenge.salt, challenge.iterations);
                keys.await.map_err(|e| self.scram(e))?
            }
        };
        let (message, expected) = challenge.answer(&keys);
        let mut out = BytesMut::with_capacity(message.len() + 5);
        out.put_frame(b'p', message.as_bytes());
        self.send(&out).await?;
        Ok(expected)
    }

    /// From AuthenticationOk to ReadyForQuery.
    async fn until_ready(mut self) -> Result<Opened, ConnectError> {
        let mut parameters = Vec::with_capacity(16);
        let (mut pid, mut secret) = (0, Bytes::new());
        loop {
            let frame = self.next_of_login().await?;
            match frame.tag {
                b'S' if parameters.len() < MAX_PARAMETERS => {
                    let pair = parse_parameter_status(&frame.body);
                    let (name, value) = pair.map_err(|e| ConnectError::wire(self.endpoint.address(), &e))?;
                    parameters.push((name.to_owned(), value.to_owned()));
                }
                b'K' => match frame.body.split_first_chunk() {
                    Some((id, key)) if (4..=256).contains(&key.len()) => {
                        (pid, secret) = (u32::from_be_bytes(*id), Bytes::copy_from_slice(key));
                    }
                    _ => return Err(self.broken("a cancel key that is not 4 to 256 bytes long")),
                },
                b'Z' if frame.body.as_ref() == b"I" => {
                    let Self { stream, buf: leftover, .. } = self;
                    return Ok(Opened { stream, leftover, pid, secret, parameters });
                }
                tag => {
                    return Err(self.broken(&format!("an unexpected message \"{}\"", tag.escape_ascii())));
                }
            }
        }
    }

    fn password(&self) -> Result<&SecretString, ConnectError> {
        let missing = || self.unable("the server asks for a password and none is configured".to_owned());
        self.endpoint.password.as_ref().ok_or_else(missing)
    }

    fn unable(&self, why: String) -> ConnectError {
        ConnectError::login(self.endpoint.address(), &self.endpoint.user, why)
    }

    fn scram(&self, error: ScramError) -> ConnectError {
        self.unable(error.to_string())
    }

    fn broken(&self, what: &str) -> ConnectError {
        ConnectError::protocol(self.endpoint.address(), format!("it sent {what}"))
    }
}

fn authentication(frame: &Frame) -> Option<(u32, &[u8])> {
    let (code, data) = frame.body.split_first_chunk().filter(|_| frame.tag == b'R')?;
    Some((u32::from_be_bytes(*code), data))
}
