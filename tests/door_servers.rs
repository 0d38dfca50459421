//! The way out: logging in to real PostgreSQL by every method and TLS mode, and to things that only look like it.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use pgherd::config::{ServerTls, ServerTlsMode};
use pgherd::pool::{ConnectError, Endpoint, Idle, Opened, ServerTlsSettings, cancel, connect};
use pgherd::wire::{ClientFacing as _, ErrorFields, FrontendWriter as _, next_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const BIN: &str = "/usr/lib/postgresql/15/bin";
const PATIENCE: Duration = Duration::from_secs(20);

// ---- a real server ----

/// A real PostgreSQL with TLS and users of every kind; shared by the tests that run at the same time, stopped by the
/// last of them.
struct Pg {
    dir: tempfile::TempDir,
    port: u16,
}

static RUNNING: Mutex<Weak<Pg>> = Mutex::new(Weak::new());

/// PostgreSQL refuses to run as root.
fn as_server(program: &str) -> Command {
    let path = format!("{BIN}/{program}");
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if is_root { Command::new("runuser") } else { Command::new(&path) };
    if is_root {
        command.args(["-u", "postgres", "--", &path]);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let done = command.status().unwrap();
    assert!(done.success(), "{command:?}");
}

const HBA: &str = "\
local all all trust
hostssl all only_tls 127.0.0.1/32 scram-sha-256
hostnossl all only_clear 127.0.0.1/32 scram-sha-256
host all by_password 127.0.0.1/32 password
host all by_md5 127.0.0.1/32 md5
host all by_trust 127.0.0.1/32 trust
host all by_scram 127.0.0.1/32 scram-sha-256
";

const ROLES: &str = "\
set password_encryption = 'scram-sha-256';
create role only_tls login password 'pé ss,=word';
create role only_clear login password 'pé ss,=word';
create role by_scram login password 'pé ss,=word';
create role by_password login password 'pé ss,=word';
create role by_trust login;
create role nowhere login password 'pé ss,=word';
set password_encryption = 'md5';
create role by_md5 login password 'pé ss,=word';
";

impl Pg {
    fn get() -> Arc<Self> {
        let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(pg) = running.upgrade() {
            return pg;
        }
        let pg = Arc::new(Self::start(|certificate| certificate));
        *running = Arc::downgrade(&pg);
        pg
    }

    /// `change` is applied to the DER of the server's certificate.
    fn start(change: fn(Vec<u8>) -> Vec<u8>) -> Self {
        let dir = tempfile::Builder::new().prefix("pgherd-door-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = dir.path().join("data");
        run(as_server("initdb")
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "-D"])
            .arg(&data));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let pki = make_pki(dir.path(), change);
        let socket = dir.path().display();
        let conf = format!(
            "port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories='{socket}'\nfsync=off\nssl=on\n\
             ssl_cert_file='{socket}/leaf.pem'\nssl_key_file='{socket}/leaf.key'\nmax_connections=20\n"
        );
        // The data directory is the server user's own, so what is written here goes in through it.
        for (file, text) in
            [("postgresql.auto.conf", conf.as_str()), ("pg_hba.conf", HBA), ("leaf.key", &pki)]
        {
            let target = if file == "leaf.key" { dir.path().join(file) } else { data.join(file) };
            std::fs::write(&target, text).unwrap();
        }
        own(&data, &dir.path().join("leaf.key"));
        let pg = Self { dir, port };
        let log = pg.dir.path().join("log");
        run(as_server("pg_ctl").args(["-w", "-D"]).arg(&data).arg("-l").arg(log).arg("start"));
        let conninfo = format!("host={} port={port} user=postgres dbname=postgres", pg.dir.path().display());
        run(Command::new("psql").args(["-Xqd", &conninfo, "-v", "ON_ERROR_STOP=1", "-c", ROLES]));
        pg
    }

    fn to(&self, user: &str, password: Option<&str>, mode: ServerTlsMode) -> Endpoint {
        let ca = Some(self.dir.path().join("ca.pem"));
        endpoint("127.0.0.1", self.port, user, password, tls(mode, ca))
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.path().join("log")).unwrap()).into_owned()
    }
}

impl Drop for Pg {
    fn drop(&mut self) {
        let data = self.dir.path().join("data");
        let _ = as_server("pg_ctl")
            .args(["-m", "immediate", "-t", "10", "-w", "-D"])
            .arg(data)
            .arg("stop")
            .status();
    }
}

/// Gives the key to whoever owns the data directory, with the rights PostgreSQL asks for.
fn own(data: &Path, key: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(data).unwrap();
    std::os::unix::fs::chown(key, Some(owner.uid()), Some(owner.gid())).unwrap();
    std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// `ca.pem`, `other-ca.pem` and `leaf.pem` (for `localhost` only) as files; gives the leaf's key.
fn make_pki(dir: &Path, change: fn(Vec<u8>) -> Vec<u8>) -> String {
    let authority = |name: &str| {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        rcgen::Issuer::new(params, key)
    };
    let (issuer, _) = (authority("ca"), authority("other-ca"));
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let der = change(leaf.signed_by(&key, &issuer).unwrap().der().to_vec());
    let text = STANDARD.encode(der);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    std::fs::write(dir.join("leaf.pem"), pem).unwrap();
    key.serialize_pem()
}

/// An element of DER with this tag and content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let head = match len {
        0..=0x7f => vec![tag, len as u8],
        0x80..=0xff => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [&head[..], content].concat()
}

/// Splits DER into its elements: each as tag, content, whole.
fn elements(mut rest: &[u8]) -> Vec<(u8, &[u8], &[u8])> {
    let mut found = Vec::new();
    while let [tag, short, ..] = *rest {
        let more = if short < 0x80 { 0 } else { usize::from(short & 0x7f) };
        let long = rest[2..2 + more].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        let (head, len) = (2 + more, if more == 0 { usize::from(short) } else { long });
        found.push((tag, &rest[head..head + len], &rest[..head + len]));
        rest = &rest[head + len..];
    }
    found
}

/// The same certificate as X.509 version 1: no version, no extensions. Its signature no longer fits.
fn as_version_1(certificate: Vec<u8>) -> Vec<u8> {
    let outer = elements(elements(&certificate)[0].1);
    let signed: Vec<u8> = elements(outer[0].1)
        .into_iter()
        .filter(|(tag, ..)| !matches!(tag, 0xa0 | 0xa3))
        .flat_map(|(_, _, whole)| whole.to_vec())
        .collect();
    der(0x30, &[&der(0x30, &signed)[..], outer[1].2, outer[2].2].concat())
}

fn tls(mode: ServerTlsMode, ca: Option<PathBuf>) -> ServerTlsSettings {
    ServerTlsSettings::load(&ServerTls { ca, ..ServerTls::mode(mode) }).unwrap()
}

fn endpoint(host: &str, port: u16, user: &str, password: Option<&str>, tls: ServerTlsSettings) -> Endpoint {
    Endpoint {
        host: host.to_owned(),
        port,
        database: "postgres".to_owned(),
        user: user.to_owned(),
        pass: None,
        password: password.map(Into::into),
        tls,
        connect_timeout: PATIENCE,
        parameters: vec![],
        keys: pgherd::pool::KeyCache::default(),
    }
}

const PASSWORD: &str = "pé ss,=word";

impl Server {
    async fn query(&mut self, sql: &str) -> String {
        let mut out = BytesMut::new();
        out.put_query(sql.as_bytes());
        self.0.stream.write_all(&out).await.unwrap();
        self.0.stream.flush().await.unwrap();
        self.answer().await
    }

    /// The first value or error up to ReadyForQuery.
    async fn answer(&mut self) -> String {
        let mut said = String::new();
        loop {
            while let Some(frame) = next_frame(&mut self.0.leftover, 1 << 20).unwrap() {
                match frame.tag {
                    b'D' => said = String::from_utf8(frame.body[6..].to_vec()).unwrap(),
                    b'E' => said = ErrorFields::parse(&frame.body).unwrap().code,
                    b'Z' => return said,
                    _ => {}
                }
            }
            let read = self.0.stream.read_buf(&mut self.0.leftover);
            assert!(tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap() > 0);
        }
    }
}

struct Server(Opened);

async fn log_in(to: &Endpoint) -> Server {
    Server(connect(to).await.unwrap_or_else(|e| panic!("{}: {}", to.user, e.log_detail())))
}

async fn refused(to: &Endpoint) -> ConnectError {
    connect(to).await.map(drop).expect_err(&to.user)
}

#[tokio::test]
async fn every_method_logs_in_with_and_without_tls() {
    let pg = Pg::get();
    for mode in [ServerTlsMode::Disable, ServerTlsMode::Prefer, ServerTlsMode::Require] {
        for user in ["by_scram", "by_md5", "by_password", "by_trust"] {
            let mut server = log_in(&pg.to(user, Some(PASSWORD), mode)).await;
            assert_eq!(server.0.stream.is_tls(), mode != ServerTlsMode::Disable);
            assert_eq!(server.query("select current_user").await, user);
            let pid = server.0.pid.to_string();
            assert_eq!(server.query("select pg_backend_pid()").await, pid);
            assert_eq!((server.0.secret.len(), server.0.leftover.len()), (4, 0));
        }
    }
    let mut server = log_in(&pg.to("by_trust", None, ServerTlsMode::Disable)).await;
    assert_eq!(server.query("select 1").await, "1");
}

#[tokio::test]
async fn the_session_is_utf8_named_pgherd_and_reports_its_parameters() {
    let pg = Pg::get();
    let mut to = pg.to("by_trust", None, ServerTlsMode::Disable);
    let server = log_in(&to).await;
    let has = |name: &str, value: &str| {
        assert!(
            server.0.parameters.contains(&(name.to_owned(), value.to_owned())),
            "{:?}",
            server.0.parameters
        );
    };
    has("client_encoding", "UTF8");
    has("application_name", "");
    has("session_authorization", "by_trust");
    to.parameters = vec![("application_name".into(), "shop".into()), ("work_mem".into(), "7MB".into())];
    let mut server = log_in(&to).await;
    assert_eq!(server.query("show application_name").await, "shop");
    assert_eq!(server.query("show work_mem").await, "7MB");
    to.parameters = vec![("no_such_thing".into(), "1".into())];
    let error = refused(&to).await;
    assert_eq!(error.sqlstate().as_str(), "42704", "{error:?}");
}

#[tokio::test]
async fn verification_takes_the_right_authority_and_name_only() {
    let pg = Pg::get();
    let file = |name: &str| Some(pg.dir.path().join(name));
    for (host, mode, ca, want) in [
        ("localhost", ServerTlsMode::VerifyFull, "ca.pem", None),
        ("127.0.0.1", ServerTlsMode::VerifyCa, "ca.pem", None),
        ("127.0.0.1", ServerTlsMode::VerifyFull, "ca.pem", Some("not valid for name")),
        ("localhost", ServerTlsMode::VerifyFull, "other-ca.pem", Some("UnknownIssuer")),
        ("localhost", ServerTlsMode::VerifyCa, "other-ca.pem", Some("UnknownIssuer")),
        ("localhost", ServerTlsMode::Require, "other-ca.pem", None),
    ] {
        let to = endpoint(host, pg.port, "by_scram", Some(PASSWORD), tls(mode, file(ca)));
        match (connect(&to).await, want) {
            (Ok(opened), None) => assert!(opened.stream.is_tls()),
            (Err(error @ ConnectError::Tls { .. }), Some(want)) => {
                assert!(error.to_string().contains(want), "{error}");
                assert_eq!(error.sqlstate().as_str(), "08006");
            }
            (other, _) => panic!("{host} {mode:?} {ca}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn prefer_falls_back_to_clear_and_require_does_not_fall() {
    let pg = Pg::get();
    let server = log_in(&pg.to("only_clear", Some(PASSWORD), ServerTlsMode::Prefer)).await;
    assert!(!server.0.stream.is_tls(), "pg_hba.conf lets this user in without TLS only");
    let server = log_in(&pg.to("only_tls", Some(PASSWORD), ServerTlsMode::Prefer)).await;
    assert!(server.0.stream.is_tls());
    for (user, mode) in [("only_clear", ServerTlsMode::Require), ("only_tls", ServerTlsMode::Disable)] {
        let error = refused(&pg.to(user, Some(PASSWORD), mode)).await;
        assert!(matches!(&error, ConnectError::Auth { fields, .. } if fields.code == "28000"), "{error:?}");
    }
}

#[tokio::test]
async fn a_failed_login_is_a_connection_failure_that_shows_no_secret() {
    let pg = Pg::get();
    for (user, password, log) in [
        ("by_scram", Some("wrong-secret"), "password authentication failed"),
        ("by_md5", Some("wrong-secret"), "password authentication failed"),
        ("by_password", Some("wrong-secret"), "password authentication failed"),
        ("by_scram", None, "asks for a password and none is configured"),
        ("by_md5", None, "asks for a password and none is configured"),
        ("by_password", None, "asks for a password and none is configured"),
        ("nowhere", Some("wrong-secret"), "no pg_hba.conf entry"),
    ] {
        let to = pg.to(user, password, ServerTlsMode::Prefer);
        let error = refused(&to).await;
        assert!(matches!(error, ConnectError::Auth { .. }), "{error:?}");
        let report = error.report();
        assert_eq!(report.code.as_str(), "08006");
        assert_eq!(report.message, format!("cannot log in to server 127.0.0.1:{}", pg.port));
        assert!(error.log_detail().contains(log), "{}", error.log_detail());
        assert!(!error.is_transient());
        let all = format!("{error:?} {report:?} {to:?} {}", error.log_detail());
        assert!(!all.contains("wrong-secret"), "{all}");
    }
}

#[tokio::test]
async fn a_missing_database_passes_its_code_on() {
    let pg = Pg::get();
    let mut to = pg.to("by_scram", Some(PASSWORD), ServerTlsMode::Disable);
    to.database = "no such".to_owned();
    let report = refused(&to).await.report();
    assert_eq!(
        (report.code.as_str(), report.message.as_str()),
        ("3D000", "database \"no such\" does not exist")
    );
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let pg = Pg::get();
    let host = pg.dir.path().display().to_string();
    let to = endpoint(&host, pg.port, "by_scram", None, tls(ServerTlsMode::Require, None));
    let mut server = log_in(&to).await;
    assert_eq!(server.query("select current_user").await, "by_scram");
    let missing = endpoint(&host, 1, "by_scram", None, tls(ServerTlsMode::Disable, None));
    assert!(matches!(refused(&missing).await, ConnectError::Unreachable { .. }));
}

#[tokio::test]
async fn cancel_stops_a_statement_in_clear_and_over_tls() {
    let pg = Pg::get();
    for mode in [ServerTlsMode::Disable, ServerTlsMode::Prefer, ServerTlsMode::Require] {
        let to = pg.to("by_trust", None, mode);
        let mut server = log_in(&to).await;
        let (pid, secret) = (server.0.pid, server.0.secret.clone());
        let sql = "select pg_sleep(600)";
        let canceller = async {
            // The statement must be under way: a cancel that finds none is lost, as it should be.
            let mut watcher = log_in(&to).await;
            let active =
                format!("select count(*) from pg_stat_activity where pid = {pid} and query = '{sql}'");
            while watcher.query(&active).await != "1" {}
            cancel(&to, pid, &secret).await.unwrap();
        };
        let (said, ()) = tokio::join!(server.query(sql), canceller);
        assert_eq!(said, "57014", "{mode:?}");
        assert_eq!(server.query("select 1").await, "1", "the session goes on");
    }
}

#[tokio::test]
async fn an_idle_server_is_quiet_until_it_speaks_or_goes() {
    let pg = Pg::get();
    for mode in [ServerTlsMode::Disable, ServerTlsMode::Require] {
        let to = pg.to("by_trust", None, mode);
        let (mut idle, mut other) = (log_in(&to).await, log_in(&to).await);
        let mut unasked = BytesMut::new();
        assert_eq!(idle.0.stream.poll_idle(&mut unasked), Idle::Quiet);
        assert_eq!(idle.query("select 1").await, "1");
        assert_eq!(idle.0.stream.poll_idle(&mut unasked), Idle::Quiet);

        idle.query("listen gossip").await;
        assert_eq!(other.query("notify gossip, 'hush'").await, "");
        let heard = async {
            while idle.0.stream.poll_idle(&mut unasked) == Idle::Quiet {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("a notification in time");
        assert_eq!((unasked[0], unasked.ends_with(b"gossip\0hush\0")), (b'A', true), "{mode:?}");
        assert_eq!(idle.0.stream.poll_idle(&mut unasked), Idle::Quiet);

        other.query(&format!("select pg_terminate_backend({}, 10000)", idle.0.pid)).await;
        unasked.clear();
        let end = async {
            loop {
                match idle.0.stream.poll_idle(&mut unasked) {
                    Idle::Quiet => tokio::task::yield_now().await,
                    Idle::Bytes => {}
                    Idle::Closed => return,
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.expect("the end in time");
        let said = next_frame(&mut unasked, 1 << 20).unwrap().unwrap();
        assert_eq!(ErrorFields::parse(&said.body).unwrap().code, "57P01", "{mode:?}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_taken_by_prefer_and_refused_by_require() {
    // A listener that has no TLS, then hands over to the real server.
    let pg = Pg::get();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), pg.port);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut request = [0; 8];
            if near.read_exact(&mut request).await.is_err() {
                continue;
            }
            near.write_all(b"N").await.unwrap();
            let mut far = TcpStream::connect(("127.0.0.1", behind)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
        }
    });
    let to = |mode| endpoint("127.0.0.1", port, "by_scram", Some(PASSWORD), tls(mode, None));
    assert!(!log_in(&to(ServerTlsMode::Prefer)).await.0.stream.is_tls());
    let error = refused(&to(ServerTlsMode::Require)).await;
    assert_eq!(error.to_string(), format!("cannot open TLS to server 127.0.0.1:{port}: it has none"));
    assert!(!pg.log().contains("PANIC"));
}

#[tokio::test]
async fn a_certificate_of_version_1_will_do_where_nothing_is_verified() {
    let pg = Pg::start(as_version_1);
    for (mode, works) in
        [(ServerTlsMode::Require, true), (ServerTlsMode::VerifyCa, false), (ServerTlsMode::VerifyFull, false)]
    {
        let done = connect(&pg.to("by_scram", Some(PASSWORD), mode)).await;
        assert_eq!(done.is_ok(), works, "{mode:?}: {done:?}");
        assert!(works || matches!(done, Err(ConnectError::Tls { .. })), "{done:?}");
    }
    let opened = log_in(&pg.to("by_scram", Some(PASSWORD), ServerTlsMode::Prefer)).await;
    assert!(opened.0.stream.is_tls());
}

// ---- things that are no server ----

/// A listener that answers every connection's first bytes with a script, one entry per message it gets.
async fn impostor(script: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                for line in script {
                    if !matches!(socket.read(&mut [0; 4096]).await, Ok(1..)) {
                        return;
                    }
                    let _ = socket.write_all(&line).await;
                }
                let _ = socket.read(&mut [0; 4096]).await;
            });
        }
    });
    port
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_frame(tag, body);
    out.to_vec()
}

fn auth(code: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes()[..], data].concat())
}

#[tokio::test]
async fn nobody_there_is_refused_and_a_silent_one_times_out() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let down = endpoint("127.0.0.1", free, "u", None, tls(ServerTlsMode::Disable, None));
    let error = refused(&down).await;
    assert_eq!(error.to_string(), format!("server 127.0.0.1:{free} refused the connection"));
    assert!(error.is_transient());
    assert_eq!(error.sqlstate().as_str(), "08006");
    assert!(matches!(cancel(&down, 1, b"abcd").await, Err(ConnectError::Refused { .. })));

    let unknown = endpoint("no-such-host.invalid", 1, "u", None, tls(ServerTlsMode::Disable, None));
    assert!(matches!(refused(&unknown).await, ConnectError::Unreachable { .. }));

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // the kernel accepts, nobody answers
    let port = silent.local_addr().unwrap().port();
    for mode in [ServerTlsMode::Disable, ServerTlsMode::Prefer, ServerTlsMode::Require] {
        let mut to = endpoint("127.0.0.1", port, "u", None, tls(mode, None));
        to.connect_timeout = Duration::from_millis(50);
        let error = refused(&to).await;
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
        assert!(error.to_string().contains("within 50 ms (connect_timeout)"), "{error}");
        assert!(matches!(cancel(&to, 1, b"abcd").await, Err(ConnectError::Timeout { .. })));
    }
}

#[tokio::test]
async fn an_answer_to_ssl_request_is_one_byte_and_no_more() {
    for (answer, want) in [
        (&b"S\x16\x03"[..], "bytes in clear after its answer"),
        (b"SR\0\0\0\x08\0\0\0\0", "bytes in clear after its answer"),
        (b"E\0\0\0\x04", "neither S nor N"),
        (b"HTTP/1.1 400", "neither S nor N"),
    ] {
        let port = impostor(vec![answer.to_vec()]).await;
        for mode in [ServerTlsMode::Prefer, ServerTlsMode::Require] {
            let error = refused(&endpoint("127.0.0.1", port, "u", None, tls(mode, None))).await;
            assert!(matches!(&error, ConnectError::Protocol { why, .. } if why.contains(want)), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_told_apart_and_nothing_panics() {
    let sasl = auth(10, b"SCRAM-SHA-256\0\0");
    let ok = auth(0, b"");
    for (script, want) in [
        (vec![b"HTTP/1.1 400 Bad Request\r\n".to_vec()], "broke the protocol"),
        (vec![b"R\0\0\0\x03".to_vec()], "invalid message length 3"),
        (vec![b"R\0\0\0\x04".to_vec()], "other than a request for authentication"),
        (vec![b"R\0\0\0\x07\0\0\0".to_vec()], "other than a request for authentication"),
        (vec![b"R\x7f\xff\xff\xff".to_vec()], "invalid message length 2147483647"),
        (vec![message(b'Z', b"I")], "other than a request for authentication"),
        (vec![auth(5, b"abc")], "a salt for MD5"),
        (vec![auth(5, b"abcde")], "a salt for MD5"),
        (vec![auth(11, b"r=x")], "out of turn"),
        (vec![auth(12, b"v=x")], "out of turn"),
        (vec![sasl.clone(), ok.clone()], "out of turn"), // accepted without proof that it knows us
        (vec![sasl.clone(), auth(12, b"v=x")], "out of turn"),
        (vec![sasl.clone(), auth(3, b"")], "out of turn"), // a SCRAM that turns into "send it in clear"
        (vec![sasl.clone(), auth(11, b"")], "SCRAM: the challenge is malformed"),
        (vec![sasl.clone(), auth(11, b"r=x,s=QUJD,i=4096")], "SCRAM: the server's nonce"),
        (vec![sasl.clone(), auth(11, b"r=\xff,s=QUJD,i=4096")], "SCRAM: the challenge is not UTF-8"),
        (vec![auth(10, b"OAUTHBEARER\0\0")], "no SASL mechanism that is known"),
        (vec![auth(10, b"SCRAM-SHA-256-PLUS\0\0")], "no SASL mechanism that is known"),
        (vec![auth(10, b"")], "no SASL mechanism that is known"),
        (vec![auth(7, b"")], "authentication method 7 is not supported"),
        (vec![message(b'E', b"SFATAL\0C28P01")], "malformed ErrorResponse"),
        (vec![message(b'E', b"SFATAL\0C57P03\0Mthe database system is starting up\0\0")], "(57P03)"),
        (vec![[ok.clone(), message(b'K', b"\0\0\0\x01abc")].concat()], "a cancel key"),
        (vec![[ok.clone(), message(b'K', &[0; 261])].concat()], "a cancel key"),
        (vec![[ok.clone(), message(b'S', b"a\0b")].concat()], "malformed ParameterStatus"),
        (vec![[ok.clone(), message(b'Z', b"T")].concat()], "unexpected message \"Z\""),
        (vec![[ok.clone(), message(b'D', b"")].concat()], "unexpected message \"D\""),
        (vec![[ok.clone(), message(b'S', b"a\0b\0").repeat(1001)].concat()], "unexpected message \"S\""),
        (vec![[ok.clone(), ok.clone()].concat()], "unexpected message \"R\""),
    ] {
        let port = impostor(script.clone()).await;
        let to = endpoint("127.0.0.1", port, "u", Some("p"), tls(ServerTlsMode::Disable, None));
        let error = refused(&to).await;
        assert!(error.log_detail().contains(want), "{script:?}: {}", error.log_detail());
    }
    let port =
        impostor(vec![message(b'E', b"SFATAL\0C57P03\0Mthe database system is starting up\0\0")]).await;
    let error = refused(&endpoint("127.0.0.1", port, "u", None, tls(ServerTlsMode::Disable, None))).await;
    assert_eq!(error.report().code.as_str(), "57P03");
    assert_eq!(error.report().message, "the database system is starting up");
    assert!(error.is_transient());
}

#[tokio::test]
async fn long_cancel_keys_notices_and_early_bytes_are_kept_apart() {
    let ready = [
        message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"),
        message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]),
        auth(0, b""),
        message(b'S', b"a\0b\0"),
        message(b'K', &[&[0, 0, 0, 9][..], &[7; 256]].concat()),
        message(b'Z', b"I"),
        b"early".to_vec(),
    ];
    let port = impostor(vec![ready.concat()]).await;
    let to = endpoint("127.0.0.1", port, "u", None, tls(ServerTlsMode::Disable, None));
    let opened = connect(&to).await.unwrap();
    assert_eq!((opened.pid, opened.secret.len(), opened.leftover.as_ref()), (9, 256, &b"early"[..]));
    assert_eq!(opened.parameters, [("a".to_owned(), "b".to_owned())]);
    assert!(!format!("{opened:?}").contains("\\x07"));
}

/// Takes one client over TLS with a fresh certificate, offers these mechanisms, and gives what the client chose:
/// mechanism, then the flag for channel binding.
async fn chosen(key: &'static rcgen::SignatureAlgorithm, offer: &[u8]) -> String {
    let key = rcgen::KeyPair::generate_for(key).unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = endpoint(
        "127.0.0.1",
        listener.local_addr().unwrap().port(),
        "u",
        Some("p"),
        tls(ServerTlsMode::Require, None),
    );
    let server = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.read_exact(&mut [0; 8]).await.unwrap();
        tcp.write_all(b"S").await.unwrap();
        let mut tls = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(tcp).await.unwrap();
        assert!(tls.read(&mut [0; 4096]).await.unwrap() > 0);
        tls.write_all(&auth(10, offer)).await.unwrap();
        let mut answer = BytesMut::new();
        loop {
            assert!(tls.read_buf(&mut answer).await.unwrap() > 0);
            if let Some(frame) = next_frame(&mut answer, 4096).unwrap() {
                return frame.body;
            }
        }
    };
    let (body, _) = tokio::join!(server, connect(&to));
    let text = String::from_utf8_lossy(&body).into_owned();
    let (mechanism, rest) = text.split_once('\0').unwrap();
    let flag = rest[4..].split(',').next().unwrap();
    format!("{mechanism} {flag}")
}

#[tokio::test]
async fn the_login_is_bound_to_the_certificate_where_that_can_be() {
    let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    let plain = b"SCRAM-SHA-256\0\0";
    let p256 = &rcgen::PKCS_ECDSA_P256_SHA256;
    assert_eq!(chosen(p256, both).await, "SCRAM-SHA-256-PLUS p=tls-server-end-point");
    assert_eq!(chosen(p256, plain).await, "SCRAM-SHA-256 y");
    assert_eq!(chosen(&rcgen::PKCS_ED25519, both).await, "SCRAM-SHA-256 n");
}
