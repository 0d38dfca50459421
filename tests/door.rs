//! The way in, with real clients and with bytes no client sends: psql, tokio-postgres, raw sockets.
//! A tiny server stands behind `admit` and answers every query with who was let in.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use pgherd::config::{
    ClientTls, Config, Control, Database, Limits, Log, Pool, PoolMode, ReadConsistency, ServerTls,
    ServerTlsMode, Timeouts, User, UserAuth,
};
use pgherd::pool::Stream;
use pgherd::session::{Admission, Admitted, Door, Refusal, admit, admit_stream};
use pgherd::shard::{Map, ShardId};
use pgherd::wire::{
    BackendWriter as _, ErrorFields, FieldDescription, Frame, FrontendWriter as _, TransactionStatus,
    next_frame,
};
use proptest::prelude::*;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 48];
/// What a test waits for at most; far above what it takes.
const PATIENCE: Duration = Duration::from_secs(20);

// ---- a door and the server behind it ----

fn user(name: &str, auth: UserAuth) -> User {
    User {
        name: name.to_owned(),
        auth,
        cert_cn: None,
        max_clients: None,
        admin: name == "root",
        databases: if name == "bob" { vec!["shop".to_owned()] } else { vec![] },
        server_user: name.to_owned(),
        server_password: None,
        pool_size: None,
    }
}

fn database(name: &str) -> Arc<Database> {
    let second = Duration::from_secs(1);
    let size = 1.try_into().unwrap();
    Arc::new(Database {
        name: name.to_owned(),
        server_database: None,
        shards: vec![],
        map: Arc::new(Map::new(vec![], vec![], BTreeMap::new(), ShardId(0))),
        pool_mode: PoolMode::Transaction,
        read_consistency: ReadConsistency::Session,
        max_replica_lag: second,
        replica_fallback: true,
        pool: Pool {
            size,
            min_idle: 0,
            max_per_server: size,
            queue_timeout: second,
            pause_timeout: second,
            connect_timeout: second,
            idle_timeout: second,
            max_lifetime: second,
            prepared_statements: 1.try_into().unwrap(),
            max_pinned: None,
            discard_sequences: false,
        },
        control: Control {
            user: "c".to_owned(),
            password: None,
            probe_interval: second,
            probe_timeout: second,
        },
        max_clients: None,
        auth_query: None,
        server_tls: ServerTls::mode(ServerTlsMode::Disable),
    })
}

/// Made by PostgreSQL 15 for the password `from-the-server`.
const VERIFIER: &str = "SCRAM-SHA-256$4096:uEATAQ/KxDwoFdMF5CzfoA==$r+FxDPlMRxQ3VDPPW+OKZreIpW3kRaakuQUZ91NY3Oc=:Z18Kac9sUsk1Q4DCNdZAVU6hTwpfc7woq0x3RMlYyR4=";

fn config() -> Config {
    Config {
        path: PathBuf::from("proxy.toml"),
        listen: vec![],
        reuse_port: false,
        workers: 1.try_into().unwrap(),
        users: vec![
            user("ann", UserAuth::Password("sécret, = \"".into())),
            user("bob", UserAuth::Password("builder".into())),
            user("root", UserAuth::Password("toor".into())),
            user("eve", UserAuth::Verifier(VERIFIER.into())),
            user("local", UserAuth::Trust),
        ],
        databases: vec![database("shop"), database("other")],
        tls: None,
        slow: None,
        statistics: true,
        limits: Limits {
            max_clients: 100,
            max_unauthenticated: 100,
            max_message: 1 << 20,
            max_notify: 1 << 20,
            plan_cache: 1,
        },
        timeouts: Timeouts {
            login: PATIENCE,
            idle: None,
            idle_in_transaction: None,
            query: None,
            drain: Duration::from_secs(1),
        },
        http: None,
        log: Log { filter: "info".to_owned(), json: false },
    }
}

/// A certificate for `localhost` from an authority of its own, as files.
struct Pki {
    dir: tempfile::TempDir,
}

impl Pki {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, pem: String| std::fs::write(dir.path().join(name), pem).unwrap();
        let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let own_name = dir.path().display().to_string();
        ca.distinguished_name.push(rcgen::DnType::CommonName, own_name);
        let ca_key = rcgen::KeyPair::generate().unwrap();
        write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        write("cert.pem", leaf.signed_by(&key, &issuer).unwrap().pem());
        write("key.pem", key.serialize_pem());
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn client_tls(&self, required: bool) -> Option<ClientTls> {
        Some(ClientTls {
            cert: self.file("cert.pem"),
            key: self.file("key.pem"),
            required,
            client_ca: None,
            client_cert_required: false,
        })
    }

    fn connector(&self, alpn: &[&[u8]]) -> tokio_rustls::TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.pem")).unwrap()).unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config).into()
    }
}

/// What became of a connection, in one line.
fn told(outcome: Result<Admission, Refusal>) -> Result<Box<Admitted>, String> {
    match outcome {
        Ok(Admission::Client(client)) => Ok(client),
        Ok(Admission::Cancel { pid, secret, .. }) => Err(format!("cancel {pid} {}", secret.escape_ascii())),
        Ok(Admission::Gone) => Err("gone".to_owned()),
        Err(refusal) => Err(refusal
            .report
            .map_or(format!("silent: {}", refusal.why), |r| format!("{}: {}", r.code, refusal.why))),
    }
}

struct House {
    at: SocketAddr,
    outcomes: UnboundedReceiver<String>,
}

impl House {
    async fn with(config: Config) -> Self {
        let door = Arc::new(Door::new(Arc::new(config)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (tell, outcomes) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, peer)) = listener.accept().await {
                let (door, tell) = (door.clone(), tell.clone());
                tokio::spawn(async move {
                    match told(admit(socket, peer, &door).await) {
                        Ok(client) => {
                            let _ = tell.send(format!("{} in {}", client.user.name, client.database));
                            serve(*client).await;
                        }
                        Err(what) => {
                            let _ = tell.send(what);
                        }
                    }
                });
            }
        });
        Self { at, outcomes }
    }

    async fn open() -> Self {
        Self::with(config()).await
    }

    async fn raw(&self) -> Raw<TcpStream> {
        Raw::new(TcpStream::connect(self.at).await.unwrap())
    }

    /// What became of the next connection that ended its login.
    async fn outcome(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.outcomes.recv()).await.expect("an outcome in time").unwrap()
    }

    async fn psql(&self, params: &str, password: &str) -> Output {
        let conninfo =
            format!("host=localhost hostaddr=127.0.0.1 port={} connect_timeout=20 {params}", self.at.port());
        Command::new("psql")
            .args(["-X", "-w", "-At", "-d", &conninfo, "-c", "select who()"])
            .env("PGPASSWORD", password)
            .env("LC_ALL", "C")
            .output()
            .await
            .expect("psql is installed")
    }
}

/// Answers each simple query with one row: user, database, whether TLS, protocol, parameters.
async fn serve(mut client: Admitted) {
    let mut out = std::mem::take(&mut client.unsent);
    for (name, value) in
        [("server_version", "15.0"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")]
    {
        out.put_parameter_status(name, value);
    }
    out.put_slice(&[b'K', 0, 0, 0, 12, 0, 0, 0, 7, 1, 2, 3, 4]);
    out.put_ready(TransactionStatus::Idle);
    loop {
        if client.stream.write_all(&out).await.is_err() || client.stream.flush().await.is_err() {
            return;
        }
        out.clear();
        while let Ok(Some(frame)) = next_frame(&mut client.leftover, 1 << 20) {
            if frame.tag != b'Q' {
                return;
            }
            let row = format!(
                "{} {} tls={} 3.{} {:?}",
                client.user.name, client.database, client.is_tls, client.protocol_minor, client.parameters
            );
            out.put_row_description(&[FieldDescription::text("who", 25, -1)]);
            out.put_data_row([Some(row.as_bytes())].into_iter());
            out.put_command_complete("SELECT 1");
            out.put_ready(TransactionStatus::Idle);
        }
        if out.is_empty() && !matches!(client.stream.read_buf(&mut client.leftover).await, Ok(1..)) {
            return;
        }
    }
}

// ---- a client made of bytes ----

struct Raw<S> {
    stream: S,
    buf: BytesMut,
}

fn startup(minor: u16, params: &[(&str, &str)]) -> Vec<u8> {
    let mut body = vec![0, 3];
    body.extend_from_slice(&minor.to_be_bytes());
    for text in params.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

fn sasl_initial(mechanism: &str, message: &str) -> BytesMut {
    let mut body = BytesMut::from(mechanism);
    body.put_u8(0);
    body.put_u32(message.len() as u32);
    body.put_slice(message.as_bytes());
    let mut out = BytesMut::new();
    out.put_frame(b'p', &body);
    out
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    fn new(stream: S) -> Self {
        Self { stream, buf: BytesMut::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn byte(&mut self) -> u8 {
        tokio::time::timeout(PATIENCE, self.stream.read_u8()).await.expect("a byte in time").unwrap()
    }

    /// The next message, or `None` at the end.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = next_frame(&mut self.buf, 1 << 20).unwrap() {
                return Some(frame);
            }
            let read = self.stream.read_buf(&mut self.buf);
            match tokio::time::timeout(PATIENCE, read).await.expect("a message in time") {
                Ok(1..) => {}
                Ok(0) => return None,
                Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {
                    return None;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// An error and then the end, as `code: message`; "" if it closed without a word.
    async fn refusal(&mut self) -> String {
        let Some(frame) = self.next().await else { return String::new() };
        assert_eq!(frame.tag, b'E', "{frame:?}");
        assert_eq!(self.next().await, None, "nothing follows a refusal");
        let _ = self.stream.shutdown().await; // as every client does; the door waits for it
        let fields = ErrorFields::parse(&frame.body).unwrap();
        assert_eq!(fields.severity, "FATAL");
        format!("{}: {}", fields.code, fields.message)
    }
}

// ---- real clients ----

#[tokio::test]
async fn psql_is_let_in_with_what_it_has_and_told_why_not_as_by_postgresql() {
    let pki = Pki::new();
    let mut house = House::with(Config { tls: pki.client_tls(false), ..config() }).await;
    let verify = format!("sslmode=verify-full sslrootcert={}", pki.file("ca.pem").display());
    let stranger = Pki::new();
    let mistrust = format!("sslmode=verify-full sslrootcert={}", stranger.file("ca.pem").display());
    let ann = "sécret, = \"";
    for (params, password, want) in [
        ("user=ann dbname=shop sslmode=disable", ann, "ann shop tls=false 3.0"),
        ("user=ann dbname=shop sslmode=prefer", ann, "ann shop tls=true 3.0"),
        ("user=ann dbname=shop sslmode=require", ann, "ann shop tls=true 3.0"),
        ("user=ann dbname=shop sslmode=require channel_binding=require", ann, "ann shop tls=true"),
        ("user=ann dbname=shop sslmode=require channel_binding=disable", ann, "ann shop tls=true"),
        (&format!("user=ann dbname=shop {verify}"), ann, "ann shop tls=true"),
        (&format!("user=ann dbname=shop {mistrust}"), ann, "certificate verify failed"),
        ("user=eve dbname=other sslmode=disable", "from-the-server", "eve other tls=false"),
        ("user=eve dbname=other sslmode=disable", "else", "password authentication failed for user \"eve\""),
        ("user=local dbname=shop sslmode=disable", "", "local shop tls=false"),
        ("user=root dbname=pgherd sslmode=disable", "toor", "root pgherd tls=false"),
        ("user=ann dbname=shop sslmode=disable", "wrong", "password authentication failed for user \"ann\""),
        (
            "user=nobody dbname=shop sslmode=require",
            ann,
            "password authentication failed for user \"nobody\"",
        ),
        ("user=ann dbname=shop sslmode=disable", "", "no password supplied"),
        ("user=ann dbname=nowhere sslmode=disable", ann, "FATAL:  database \"nowhere\" does not exist"),
        ("user=ann sslmode=disable", ann, "FATAL:  database \"ann\" does not exist"),
        ("user=bob dbname=shop sslmode=disable", "builder", "bob shop"),
        (
            "user=bob dbname=other sslmode=disable",
            "builder",
            "FATAL:  permission denied for database \"other\"",
        ),
        ("user=ann dbname=pgherd sslmode=disable", ann, "FATAL:  permission denied for database \"pgherd\""),
        ("user=bob dbname=other sslmode=disable", "x", "password authentication failed for user \"bob\""),
        ("user=ann dbname=shop sslmode=disable replication=database", ann, "replication connections"),
        (
            "user=ann dbname=shop sslmode=disable options='-c a.b=c\\\\ d --work-mem=1MB'",
            ann,
            "[(\"a.b\", \"c d\"), (\"work_mem\", \"1MB\"), (\"application_name\", \"psql\")",
        ),
    ] {
        let done = house.psql(params, password).await;
        let said =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(said.contains(want), "{params}: {said}");
        assert_eq!(done.status.success(), !done.stdout.is_empty(), "{params}");
        let outcome = house.outcome().await;
        assert!(!outcome.contains("sécret"), "{outcome}");
    }
}

#[tokio::test]
async fn without_a_certificate_tls_is_declined_and_with_required_plaintext_is() {
    let off = House::open().await;
    let ann = "sécret, = \"";
    for (params, want) in [
        ("user=ann dbname=shop sslmode=prefer", "ann shop tls=false"),
        ("user=ann dbname=shop sslmode=require", "server does not support SSL, but SSL was required"),
    ] {
        let done = off.psql(params, ann).await;
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        assert!(said.contains(want), "{params}: {said}");
    }
    let pki = Pki::new();
    let must = House::with(Config { tls: pki.client_tls(true), ..config() }).await;
    for (params, want) in [
        ("user=ann dbname=shop sslmode=require", "ann shop tls=true"),
        ("user=ann dbname=shop sslmode=disable", "HINT:  Connect with sslmode=require."),
        ("user=local dbname=shop sslmode=disable", "FATAL:  connections without TLS are not accepted"),
    ] {
        let done = must.psql(params, ann).await;
        let said = String::from_utf8([done.stdout, done.stderr].concat()).unwrap();
        assert!(said.contains(want), "{params}: {said}");
    }
}

#[tokio::test]
async fn tokio_postgres_is_let_in_with_and_without_tls() {
    let pki = Pki::new();
    let house = House::with(Config { tls: pki.client_tls(false), ..config() }).await;
    let mut to = tokio_postgres::Config::new();
    to.host("localhost").hostaddr([127, 0, 0, 1].into()).port(house.at.port());
    to.user("bob").password("builder").dbname("shop");

    let who = |client: tokio_postgres::Client| async move {
        let rows = client.simple_query("select who()").await.unwrap();
        let row = rows.iter().find_map(|m| match m {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
            tokio_postgres::SimpleQueryMessage::CommandComplete(_) | _ => None,
        });
        row.map(str::to_owned).unwrap()
    };
    to.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = to.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    assert!(who(client).await.starts_with("bob shop tls=false"));

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.file("ca.pem")).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    to.ssl_mode(tokio_postgres::config::SslMode::Require);
    let (client, connection) = to.connect(tokio_postgres_rustls::MakeRustlsConnect::new(tls)).await.unwrap();
    tokio::spawn(connection);
    assert!(who(client).await.starts_with("bob shop tls=true"));

    let error = to.password("wrong").connect(tokio_postgres::NoTls).await;
    assert!(error.is_err());
    to.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let Err(error) = to.connect(tokio_postgres::NoTls).await else { panic!("let in with a wrong password") };
    assert_eq!(error.code().unwrap().code(), "28P01");
}

// ---- bytes ----

#[tokio::test]
async fn bytes_behind_a_request_for_encryption_end_the_connection() {
    let pki = Pki::new();
    let mut house = House::with(Config { tls: pki.client_tls(false), ..config() }).await;
    let smuggled = startup(0, &[("user", "local"), ("database", "shop")]);
    for request in [SSL_REQUEST, GSS_REQUEST] {
        let mut raw = house.raw().await;
        raw.send(&[request, &smuggled].concat()).await;
        assert_eq!(raw.refusal().await, "08P01: received unencrypted data after an encryption request");
        assert!(house.outcome().await.contains("man-in-the-middle"));
    }
    // Not a byte of what comes in clear after the `S` is taken for the session's either.
    let mut raw = house.raw().await;
    raw.send(SSL_REQUEST).await;
    assert_eq!(raw.byte().await, b'S');
    raw.send(&smuggled).await;
    assert!(house.outcome().await.starts_with("silent: the TLS handshake failed"));
}

#[tokio::test]
async fn requests_for_encryption_are_answered_in_either_order_and_once_each() {
    let mut house = House::open().await;
    for (requests, left) in [
        (vec![SSL_REQUEST, GSS_REQUEST], "1234.5680"),
        (vec![GSS_REQUEST, SSL_REQUEST], "1234.5679"),
        (vec![SSL_REQUEST], "1234.5679"),
    ] {
        let mut raw = house.raw().await;
        for request in &requests {
            raw.send(request).await;
            assert_eq!(raw.byte().await, b'N');
        }
        let mut greedy = house.raw().await;
        for request in &requests {
            greedy.send(request).await;
            assert_eq!(greedy.byte().await, b'N');
        }
        greedy.send(requests.last().unwrap()).await;
        let said = greedy.refusal().await;
        assert_eq!(said, format!("0A000: unsupported frontend protocol {left}: server supports 3.0 to 3.2"));
        assert!(house.outcome().await.starts_with("0A000"));
        raw.send(&startup(0, &[("user", "local"), ("database", "shop")])).await;
        assert_eq!(raw.next().await.unwrap().body.as_ref(), [0; 4], "AuthenticationOk");
        assert_eq!(house.outcome().await, "local in shop");
    }
}

#[tokio::test]
async fn direct_tls_needs_a_certificate_and_alpn() {
    let pki = Pki::new();
    let mut house = House::with(Config { tls: pki.client_tls(true), ..config() }).await;
    let name = || ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(house.at).await.unwrap();
    let mut raw = Raw::new(pki.connector(&[b"postgresql"]).connect(name(), tcp).await.unwrap());
    raw.send(&startup(2, &[("user", "local"), ("database", "shop")])).await;
    assert_eq!(raw.next().await.unwrap().tag, b'R');
    assert_eq!(house.outcome().await, "local in shop");

    let tcp = TcpStream::connect(house.at).await.unwrap();
    let _raw = Raw::new(pki.connector(&[]).connect(name(), tcp).await.unwrap());
    assert_eq!(house.outcome().await, "silent: direct TLS without the ALPN protocol \"postgresql\"");

    let mut off = House::open().await;
    let tcp = TcpStream::connect(off.at).await.unwrap();
    assert!(pki.connector(&[b"postgresql"]).connect(name(), tcp).await.is_err());
    assert_eq!(off.outcome().await, "silent: direct TLS, and TLS is not configured");
}

#[tokio::test]
async fn a_cancel_request_is_understood_in_clear_and_over_tls() {
    let pki = Pki::new();
    let mut house = House::with(Config { tls: pki.client_tls(true), ..config() }).await;
    let cancel = [&16_u32.to_be_bytes()[..], &[4, 210, 22, 46, 0, 0, 0, 9], b"abcd"].concat();
    let mut raw = house.raw().await;
    raw.send(&cancel).await;
    assert_eq!(house.outcome().await, "cancel 9 abcd");
    assert_eq!(raw.refusal().await, "", "no answer is due");

    let mut raw = house.raw().await;
    raw.send(SSL_REQUEST).await;
    assert_eq!(raw.byte().await, b'S');
    let tls = pki.connector(&[]).connect(ServerName::try_from("localhost").unwrap(), raw.stream).await;
    Raw::new(tls.unwrap()).send(&cancel).await;
    assert_eq!(house.outcome().await, "cancel 9 abcd");
}

#[tokio::test]
async fn a_health_check_is_silent_and_so_is_half_a_startup_packet() {
    let mut house = House::open().await;
    for sent in [&b""[..], &[0], &[0, 0, 0, 80, 0, 3], &startup(0, &[("user", "ann")])] {
        let mut raw = house.raw().await;
        raw.send(sent).await;
        drop(raw);
        assert_eq!(house.outcome().await, "gone", "{sent:?}");
    }
}

#[tokio::test]
async fn garbage_and_impossible_lengths_close_the_connection_without_a_word() {
    let mut house = House::open().await;
    for sent in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0; 16],
        &[0, 0, 0, 4, 0, 0, 0, 0],
        &[0, 0, 0x27, 0x15, 0, 3, 0, 0], // 10,005
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0, 0, 3, 0, 0],
        &[0xff; 64],
        &[0, 0, 0, 8, 4, 210, 22, 46], // a cancel request without pid and key
    ] {
        let mut raw = house.raw().await;
        raw.send(sent).await;
        assert_eq!(raw.refusal().await, "", "{sent:?}");
        assert!(house.outcome().await.starts_with("silent: "), "{sent:?}");
    }
}

#[tokio::test]
async fn only_short_password_messages_are_taken_before_the_login_is_done() {
    let mut house = House::open().await;
    let first = sasl_initial("SCRAM-SHA-256", "n,,n=,r=abc");
    for (sent, want) in [
        (&b"Q\0\0\0\x0dselect 1\0"[..], "08P01: expected SASL response, got message type \"Q\""),
        (b"Q\x3f\xff\xff\xff", "08P01: expected SASL response, got message type \"Q\""),
        (b"\x16", "08P01: expected SASL response, got message type \"\\x16\""),
        (b"p\0\0\0\x03", "08P01: invalid message length 3 for message type \"p\""),
        (b"p\0\0\0\0", "08P01: invalid message length 0 for message type \"p\""),
        (b"p\x7f\xff\xff\xff", "08P01: invalid message length 2147483647 for message type \"p\""),
        (b"p\0\x01\0\x05", "08P01: invalid message length 65541 for message type \"p\""),
        (b"p\0\0\0\x04", "08P01: malformed SASLInitialResponse message"),
        (b"p\0\0\0\x06a\0", "08P01: malformed SASLInitialResponse message"),
        (b"p\0\0\0\x05\0", "08P01: malformed SASLInitialResponse message"),
        (&sasl_initial("SCRAM-SHA-256", ""), "08P01: malformed SCRAM message"),
        (&sasl_initial("PLAIN", ""), "08P01: client selected an invalid SASL authentication mechanism"),
        (&sasl_initial("SCRAM-SHA-256-PLUS", "p=x,,"), "08P01: malformed SCRAM channel binding message"),
        (&[&first[..], b"p\0\0\0\x04"].concat(), "08P01: malformed SCRAM message"),
        (&[&first[..], b"p\0\0\0\x0dc=biws,r="].concat(), "08P01: malformed SCRAM message"),
    ] {
        let mut raw = house.raw().await;
        raw.send(&startup(0, &[("user", "ann"), ("database", "shop")])).await;
        assert_eq!(raw.next().await.unwrap().tag, b'R');
        raw.send(sent).await;
        if sent.starts_with(&first) {
            assert_eq!(raw.next().await.unwrap().tag, b'R');
        }
        assert_eq!(raw.refusal().await, want, "{}", sent.escape_ascii());
        assert!(house.outcome().await.starts_with("08P01"));
    }
}

#[tokio::test]
async fn an_unknown_user_looks_like_a_wrong_password() {
    let mut house = House::open().await;
    let mut seen = Vec::new();
    for (name, why) in [("ann", ""), ("nob", ": there is no such user")] {
        let mut salts = Vec::new();
        let mut shapes = Vec::new();
        for _ in 0..2 {
            let mut raw = house.raw().await;
            raw.send(&startup(0, &[("user", name), ("database", "shop")])).await;
            shapes.push(raw.next().await.unwrap().body.len());
            raw.send(&sasl_initial("SCRAM-SHA-256", "n,,n=,r=abc")).await;
            let challenge = raw.next().await.unwrap().body;
            shapes.push(challenge.len());
            let text = String::from_utf8(challenge[4..].to_vec()).unwrap();
            let (nonce, rest) = text.split_once(',').unwrap();
            salts.push(rest.to_owned());
            let mut answer = BytesMut::new();
            answer.put_frame(b'p', format!("c=biws,{nonce},p={}=", "A".repeat(43)).as_bytes());
            raw.send(&answer).await;
            assert_eq!(
                raw.refusal().await,
                format!("28P01: password authentication failed for user \"{name}\"")
            );
            let log = house.outcome().await;
            assert_eq!(log, format!("28P01: password authentication failed for user \"{name}\"{why}"));
        }
        assert_eq!(salts[0], salts[1], "a salt that changes gives {name} away");
        seen.push(shapes);
    }
    assert_eq!(seen[0], seen[1], "lengths of the messages");
}

#[tokio::test]
async fn a_trusted_user_from_elsewhere_is_asked_for_a_password_that_does_not_exist() {
    let door = Door::new(Arc::new(config())).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let mut raw = Raw::new(near);
    let client = async {
        raw.send(&startup(0, &[("user", "local"), ("database", "shop")])).await;
        let offer = raw.next().await.unwrap();
        assert_eq!(offer.body.as_ref(), b"\0\0\0\x0aSCRAM-SHA-256\0\0");
        raw.send(&sasl_initial("SCRAM-SHA-256", "n,,n=,r=abc")).await;
        let challenge = raw.next().await.unwrap().body;
        let text = String::from_utf8(challenge[4..].to_vec()).unwrap();
        let mut answer = BytesMut::new();
        let nonce = text.split(',').next().unwrap();
        answer.put_frame(b'p', format!("c=biws,{nonce},p={}=", "A".repeat(43)).as_bytes());
        raw.send(&answer).await;
        raw.refusal().await
    };
    let (outcome, said) = tokio::join!(admit_stream(Stream::Unix(far), false, &door), client);
    assert_eq!(said, "28P01: password authentication failed for user \"local\"");
    assert!(outcome.unwrap_err().why.contains("loopback"));
}

#[tokio::test]
async fn newer_protocols_are_negotiated_down_and_what_follows_the_login_is_kept() {
    let house = House::open().await;
    for (minor, options, want) in [
        (0, vec![], None),
        (2, vec![], None),
        (9999, vec![], Some(&b"\0\x03\0\x02\0\0\0\0"[..])),
        (0, vec![("_pq_.a", "1"), ("_pq_.b", "")], Some(b"\0\x03\0\0\0\0\0\x02_pq_.a\0_pq_.b\0")),
    ] {
        let mut raw = house.raw().await;
        let mut params = vec![("user", "local"), ("database", "shop"), ("x", "y")];
        params.extend(options);
        let mut query = BytesMut::from(&startup(minor, &params)[..]);
        query.put_query(b"select who()"); // in the same packet, as a client may that expects no question
        raw.send(&query).await;
        if let Some(body) = want {
            let frame = raw.next().await.unwrap();
            assert_eq!((frame.tag, frame.body.as_ref()), (b'v', body));
        }
        let mut tags = Vec::new();
        let row = loop {
            let frame = raw.next().await.unwrap();
            if frame.tag == b'D' {
                break String::from_utf8(frame.body[6..].to_vec()).unwrap();
            }
            tags.push(frame.tag);
        };
        assert_eq!(tags, b"RSSSKZT");
        let spoken = if minor >= 2 { 2 } else { 0 };
        assert_eq!(row, format!("local shop tls=false 3.{spoken} [(\"x\", \"y\")]"));
    }
}

#[tokio::test]
async fn a_client_that_falls_silent_is_turned_away_in_time() {
    let mut slow = config();
    slow.timeouts.login = Duration::from_millis(100);
    let mut house = House::with(slow).await;
    let whole = startup(0, &[("user", "ann"), ("database", "shop")]);
    for sent in [&b""[..], &whole[..9], SSL_REQUEST] {
        let mut raw = house.raw().await;
        raw.send(sent).await;
        if sent == SSL_REQUEST {
            assert_eq!(raw.byte().await, b'N');
        }
        assert_eq!(raw.refusal().await, "", "{sent:?}");
        assert_eq!(house.outcome().await, "silent: no startup packet within timeouts.login");
    }
    for sent in [&b""[..], b"p\0\0\x01\0SCRAM"] {
        let mut raw = house.raw().await;
        raw.send(&whole).await;
        assert_eq!(raw.next().await.unwrap().tag, b'R');
        raw.send(sent).await;
        assert_eq!(raw.refusal().await, "57014: canceling authentication due to timeout");
        assert_eq!(house.outcome().await, "57014: canceling authentication due to timeout");
    }
}

#[tokio::test]
async fn a_client_that_stalls_in_the_tls_handshake_is_turned_away_in_time() {
    let pki = Pki::new();
    let mut slow = Config { tls: pki.client_tls(false), ..config() };
    slow.timeouts.login = Duration::from_millis(100);
    let mut house = House::with(slow).await;
    let mut raw = house.raw().await;
    raw.send(SSL_REQUEST).await;
    assert_eq!(raw.byte().await, b'S');
    raw.send(&[0x16, 3, 1, 1, 0, 1]).await; // the head of a ClientHello
    assert_eq!(raw.refusal().await, "");
    assert!(house.outcome().await.starts_with("silent: "));
}

#[tokio::test]
async fn a_crowd_before_the_door_is_turned_away_and_the_place_comes_back() {
    let mut narrow = config();
    narrow.limits.max_unauthenticated = 1;
    let mut house = House::with(narrow).await;
    let mut first = house.raw().await;
    first.send(SSL_REQUEST).await;
    assert_eq!(first.byte().await, b'N', "the first holds the only place");
    let mut second = house.raw().await;
    let said = second.refusal().await;
    assert_eq!(said, "53300: too many clients are logging in at once (limits.max_unauthenticated)");
    assert!(house.outcome().await.starts_with("53300"));
    first.send(&startup(0, &[("user", "local"), ("database", "shop")])).await;
    assert_eq!(house.outcome().await, "local in shop");
    let mut third = house.raw().await;
    third.send(&startup(0, &[("user", "local"), ("database", "shop")])).await;
    assert_eq!(house.outcome().await, "local in shop", "who is in needs no place before the door");
}

#[tokio::test]
async fn a_reload_keeps_salts_and_takes_new_passwords() {
    let door = Door::new(Arc::new(config())).unwrap();
    let salt = async |door: &Door| {
        let (near, far) = UnixStream::pair().unwrap();
        let mut raw = Raw::new(near);
        let client = async {
            raw.send(&startup(0, &[("user", "ann"), ("database", "shop")])).await;
            raw.next().await.unwrap();
            raw.send(&sasl_initial("SCRAM-SHA-256", "n,,n=,r=abc")).await;
            let challenge = raw.next().await.unwrap().body;
            raw.stream.shutdown().await.unwrap();
            String::from_utf8(challenge.to_vec()).unwrap().split_once(',').unwrap().1.to_owned()
        };
        let (_, salt) = tokio::join!(admit_stream(Stream::Unix(far), false, door), client);
        salt
    };
    let before = salt(&door).await;
    let mut changed = config();
    changed.users[0].auth = UserAuth::Password("another".into());
    let door = door.reloaded(Arc::new(changed)).unwrap();
    assert_eq!(salt(&door).await, before);
    let mut broken = config();
    broken.users[1].auth = UserAuth::Verifier("md5abc".into());
    let error = door.reloaded(Arc::new(broken)).err().unwrap().to_string();
    assert!(error.contains("user \"bob\"") && !error.contains("md5abc"), "{error}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_an_error_that_names_key_and_file() {
    let (pki, other) = (Pki::new(), Pki::new());
    let with = |cert: &Path, key: &Path| {
        let tls = pki.client_tls(false);
        let tls = tls.map(|tls| ClientTls { cert: cert.to_owned(), key: key.to_owned(), ..tls });
        Door::new(Arc::new(Config { tls, ..config() })).err().unwrap().to_string()
    };
    let (cert, key) = (pki.file("cert.pem"), pki.file("key.pem"));
    let nowhere = Path::new("/nowhere/x.pem");
    assert!(with(nowhere, &key).starts_with("tls.cert: cannot read /nowhere/x.pem"));
    assert!(with(&cert, nowhere).starts_with("tls.key: cannot read /nowhere/x.pem"));
    assert!(with(&key, &key).contains("holds no certificate"));
    assert!(with(&cert, &cert).starts_with("tls.key: cannot read"));
    assert!(with(&cert, &other.file("key.pem")).starts_with("tls: certificate and key cannot be used"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn no_bytes_panic_hang_or_get_in(
        head in prop::sample::select(vec![
            vec![], SSL_REQUEST.to_vec(), GSS_REQUEST.to_vec(), startup(0, &[("user", "ann")]),
            startup(9, &[("user", "nob"), ("_pq_.x", "")]), vec![0, 0, 0, 40, 0, 3, 0, 0],
            [startup(0, &[("user", "ann")]), sasl_initial("SCRAM-SHA-256", "n,,n=,r=abc").to_vec()].concat(),
            [startup(0, &[("user", "ann")]), b"p\0\0\0\x20".to_vec()].concat(),
        ]),
        tail in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let outcome = runtime.block_on(async {
            let door = Door::new(Arc::new(Config { users: vec![user("ann", UserAuth::Verifier(VERIFIER.into()))], ..config() }));
            let (mut near, far) = UnixStream::pair().unwrap();
            let client = async {
                near.write_all(&[&head[..], &tail].concat()).await.unwrap();
                near.shutdown().await.unwrap();
                let mut all = Vec::new();
                let _ = near.read_to_end(&mut all).await;
            };
            let door = door.unwrap();
            let both = async { tokio::join!(admit_stream(Stream::Unix(far), true, &door), client).0 };
            tokio::time::timeout(PATIENCE, both).await.expect("no hang")
        });
        prop_assert!(!matches!(outcome, Ok(Admission::Client(_))));
    }
}
