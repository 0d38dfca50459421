//! Who gets in: users that only the servers know, certificates, limits; with the clients that people use.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use std::path::Path;
use std::process::Stdio;

use common::{Changes, Front, PATIENCE, eventually, failure, rows};
use pgherd::config::{ServerTls, ServerTlsMode};
use pgherd::pool::{Endpoint, ServerTlsSettings, connect};

const QUERY: &str =
    "auth_query = \"SELECT usename, passwd FROM pg_shadow WHERE usename = $1\"\nauth_query_cache_ms = 60000";

async fn refused(front: &Front, user: &str, password: &str) -> (String, String) {
    let error = front.try_connect(user, password, "app").await.unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (error.code().code().to_owned(), error.message().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_of_the_server_log_in_with_their_own_passwords_and_open_the_server_with_them() {
    let front = Front::plain(0, Changes { database: QUERY, ..Changes::default() }).await;
    let primary = front.herd.primary(0);
    primary.sql("create role dora login password 'secret'; create role mute login").await;
    let dora = front.try_connect("dora", "secret", "app").await.unwrap();
    assert_eq!(rows(&dora, "select current_user").await, ["dora"]);
    let wrong =
        |user: &str| ("28P01".to_owned(), format!("password authentication failed for user \"{user}\""));
    // Wrong password, no password, no such user: the same words.
    assert_eq!(refused(&front, "dora", "other").await, wrong("dora"));
    assert_eq!(refused(&front, "mute", "").await, wrong("mute"));
    assert_eq!(refused(&front, "nobody", "secret").await, wrong("nobody"));
    // No way round what the file says of a user.
    assert_eq!(refused(&front, "app", "secret").await, wrong("app"));
    primary.sql("alter role dora password 'changed'").await;
    eventually("the new password is known", PATIENCE, async || {
        front.try_connect("dora", "changed", "app").await.ok()
    })
    .await;
    assert_eq!(refused(&front, "dora", "secret").await, wrong("dora"));
    assert_eq!(rows(&dora, "select 1").await, ["1"], "the session stays");
    // A verifier in the file that is the server's own does as well.
    let verifier = primary.sql("select rolpassword from pg_authid where rolname = 'dora'").await.remove(0);
    front.reconfigure(QUERY, "");
    let user =
        format!("[[user]]\nname = \"dora\"\nscram_verifier = \"{verifier}\"\nmax_clients = 1\n[[database]]");
    front.reconfigure("[[database]]", &user);
    front.admin().await.batch_execute("RELOAD").await.unwrap();
    assert_eq!(refused(&front, "dora", "changed").await.0, "53300", "the session that is open counts");
    drop(dora);
    let dora = eventually("its place is free", PATIENCE, async || {
        front.try_connect("dora", "changed", "app").await.ok()
    })
    .await;
    assert_eq!(rows(&dora, "select current_user").await, ["dora"]);
    // Another verifier of the same password opens nothing, and the error says why.
    primary.sql("alter role dora password 'changed'").await;
    front.admin().await.batch_execute("RECONNECT").await.unwrap();
    let (code, message) = failure(&dora, "select 1").await;
    assert_eq!(code, "08006", "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_and_a_user_have_places_for_so_many_clients() {
    let front = Front::plain(0, Changes { database: "max_clients = 2", ..Changes::default() }).await;
    let (a, _b) = (front.connect().await, front.connect().await);
    let error = refused(&front, "app", "app").await;
    assert_eq!(error, ("53300".to_owned(), "too many connections for database \"app\"".to_owned()));
    let admin = front.admin().await;
    drop(a);
    eventually("a place is free", PATIENCE, async || front.try_connect("app", "app", "app").await.ok()).await;
    front.reconfigure("max_clients = 2", "");
    front.reconfigure("password = \"app\"", "password = \"app\"\nmax_clients = 1");
    admin.batch_execute("RELOAD").await.unwrap();
    let error = refused(&front, "app", "app").await;
    assert_eq!(error, ("53300".to_owned(), "too many connections for role \"app\"".to_owned()));
}

/// An authority, a certificate for `localhost` and one for a client, as files in `dir`.
fn make_certificates(dir: &Path, client: &str) {
    let write = |name: &str, pem: String| {
        use std::os::unix::fs::PermissionsExt;
        let file = dir.join(name);
        std::fs::write(&file, pem).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    ca.distinguished_name.push(rcgen::DnType::CommonName, "pgherd test authority");
    let ca_key = rcgen::KeyPair::generate().unwrap();
    write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = rcgen::Issuer::new(ca, ca_key);
    for (name, common) in [("server", "localhost"), ("client", client)] {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        let key = rcgen::KeyPair::generate().unwrap();
        write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
}

/// What psql says to `select current_user`; `settings` of libpq besides host, port and database.
async fn psql(front: &Front, settings: &str) -> Result<String, String> {
    let target = format!("host=localhost port={} dbname=app {settings}", front.port);
    let mut command = tokio::process::Command::new("psql");
    command.args([&target, "-XAtwc", "select current_user"]).stdin(Stdio::null());
    command.env_remove("PGPASSWORD").env("PGPASSFILE", "/nonexistent").env("PGCONNECT_TIMEOUT", "20");
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_let_in_and_new_ones_on_disk_are_used_without_a_word() {
    let front = Front::plain(0, Changes::default()).await;
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(dir.path(), "certy");
    make_certificates(other.path(), "certy");
    let path = |dir: &tempfile::TempDir, name: &str| dir.path().join(name).display().to_string();
    let tls = format!(
        "[tls]\ncert = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\n[pool]",
        path(&dir, "server.pem"),
        path(&dir, "server.key"),
        path(&dir, "ca.pem"),
    );
    front.reconfigure("[pool]", &tls);
    let account = "server_user = \"app\"\nserver_password = \"app\"";
    let users = format!(
        "[[user]]\nname = \"certy\"\ncert_cn = \"certy\"\n{account}\n\
         [[user]]\nname = \"both\"\ncert_cn = \"certy\"\npassword = \"pw\"\n{account}\n[[database]]"
    );
    front.reconfigure("[[database]]", &users);
    let admin = front.admin().await;
    admin.batch_execute("RELOAD").await.unwrap();
    let shown = |dir: &tempfile::TempDir| {
        format!("sslmode=require sslcert={} sslkey={}", path(dir, "client.pem"), path(dir, "client.key"))
    };
    assert_eq!(psql(&front, &format!("user=certy {}", shown(&dir))).await.as_deref(), Ok("app"));
    assert_eq!(psql(&front, &format!("user=both password=pw {}", shown(&dir))).await.as_deref(), Ok("app"));
    for (what, settings) in [
        ("no certificate", "user=certy password=x sslmode=require".to_owned()),
        ("no TLS", "user=certy password=x sslmode=disable".to_owned()),
        ("the password alone", "user=both password=pw sslmode=require".to_owned()),
        ("the certificate alone", format!("user=both password=x {}", shown(&dir))),
    ] {
        let error = psql(&front, &settings).await.unwrap_err();
        assert!(error.contains("password authentication failed"), "{what}: {error}");
    }
    let stranger = psql(&front, &format!("user=certy {}", shown(&other))).await.unwrap_err();
    assert!(
        !stranger.contains("password"),
        "a certificate of another authority ends the handshake: {stranger}"
    );
    // Bound to the certificate, as libpq may ask for.
    let bound = "user=app password=app sslmode=require channel_binding=require";
    assert_eq!(psql(&front, bound).await.as_deref(), Ok("app"));
    // The proxy as a client of a server that has these rules: with its own certificate, verified, TLS at once.
    let own = |direct| ServerTls {
        ca: Some(dir.path().join("ca.pem")),
        cert: Some(dir.path().join("client.pem")),
        key: Some(dir.path().join("client.key")),
        direct,
        ..ServerTls::mode(ServerTlsMode::VerifyFull)
    };
    for direct in [false, true] {
        let endpoint = Endpoint {
            host: "localhost".into(),
            port: front.port,
            database: "app".into(),
            user: "certy".into(),
            pass: None,
            password: None,
            tls: ServerTlsSettings::load(&own(direct)).unwrap(),
            connect_timeout: PATIENCE,
            parameters: Vec::new(),
            keys: Default::default(),
        };
        connect(&endpoint).await.unwrap_or_else(|e| panic!("direct: {direct}: {e}"));
    }
    // Other files in the same place.
    let verified =
        format!("user=app password=app sslmode=verify-full sslrootcert={}", path(&other, "ca.pem"));
    assert!(psql(&front, &verified).await.is_err());
    for name in ["ca.pem", "server.pem", "server.key"] {
        std::fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    }
    eventually("the new certificate is shown", PATIENCE, async || psql(&front, &verified).await.ok()).await;
    assert_eq!(psql(&front, &format!("user=certy {}", shown(&other))).await.as_deref(), Ok("app"));
    // psql has gone, but the proxy may hear of that a little later.
    eventually("only the first session stays", PATIENCE, async || {
        (rows(&admin, "select count(*) from pgherd.clients").await == ["1"]).then_some(())
    })
    .await;
}
