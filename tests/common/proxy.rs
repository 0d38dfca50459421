//! The proxy in this process, in front of a herd of real servers.
//! Must not know what is tested.

use std::sync::Arc;
use std::time::Duration;

use pgherd::config::Config;
use pgherd::session::Proxy;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::engine::Engine;
use super::{Herd, Port, create_demo_tables, eventually};

/// Time for anything that should take milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy and the herd behind it; both end when dropped, the proxy first.
pub struct Front {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// Where it listens.
    pub port: u16,
    /// The servers.
    pub herd: Herd,
    /// The file it was configured from.
    pub config: std::path::PathBuf,
    http_port: Option<u16>,
    _engine: Engine,
    _dir: tempfile::TempDir,
    _reserved: [Port; 2],
}

impl Drop for Front {
    fn drop(&mut self) {
        self.proxy.begin_shutdown();
    }
}

/// What differs from the shipped configuration.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Lines for `[proxy]`.
    pub proxy: &'static str,
    /// Lines for `[pool]`.
    pub pool: &'static str,
    /// Lines for `[[database]]`.
    pub database: &'static str,
    /// Lines for `[timeouts]`.
    pub timeouts: &'static str,
    /// Lines for `[http]`, e.g. `user = "admin"`; there is an HTTP server if there are any.
    pub http: &'static str,
}

impl Front {
    /// Three shards with so many replicas each, tables as in the demo.
    pub async fn demo(replicas: usize, changes: Changes) -> Self {
        let herd = Herd::start(3, replicas).await;
        create_demo_tables(&herd, 1).await;
        Self::over(herd, true, changes).await
    }

    /// One shard without tables: a plain pooler.
    pub async fn plain(replicas: usize, changes: Changes) -> Self {
        Self::over(Herd::start(1, replicas).await, false, changes).await
    }

    /// A proxy over a herd that is up.
    pub async fn over(herd: Herd, sharded: bool, changes: Changes) -> Self {
        let reserved = [Port::reserve(), Port::reserve()];
        let ports = [reserved[0].number(), reserved[1].number()];
        let text = configuration(&herd, ports, sharded, &changes);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("proxy.toml");
        std::fs::write(&file, &text).unwrap();
        let loaded = Config::load(&file);
        let config = Arc::new(loaded.unwrap_or_else(|e| panic!("{e}\n{text}")).config);
        let address = config.listen[0];
        let http_port = config.http.as_ref().map(|http| http.listen.port());
        let engine = Engine::start();
        let proxy = engine.run(serve(config)).await;
        let front = Self {
            proxy,
            port: address.port(),
            herd,
            config: file,
            http_port,
            _engine: engine,
            _dir: dir,
            _reserved: reserved,
        };
        front.ready().await;
        front
    }

    /// Waits until catalogs are read, every primary is known and every replica has been compared with it.
    pub async fn ready(&self) {
        eventually("the proxy knows its servers", PATIENCE, async || {
            let herd = self.proxy.herd("pgherd", "admin");
            let known = |s: &pgherd::cluster::ServerStatus| {
                s.role == Some(s.expected_role)
                    && (s.expected_role == pgherd::config::Role::Primary || s.lag_bytes == Some(0))
            };
            (self.proxy.is_ready() && herd.databases.iter().all(|d| d.servers.iter().all(known)))
                .then_some(())
        })
        .await;
    }

    /// A client of the HTTP server, without credentials. [`Changes::http`] must say something.
    pub fn http(&self) -> super::Http {
        super::Http::new(self.http_port.expect("Changes::http"))
    }

    /// Changes the configuration's file: `from` must be in it.
    pub fn reconfigure(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        assert!(text.contains(from), "{from:?} is not in\n{text}");
        std::fs::write(&self.config, text.replacen(from, to, 1)).unwrap();
    }

    /// A client of the proxy on database `app`.
    pub async fn connect(&self) -> Client {
        self.connect_as("app", "app").await
    }

    /// A client of the proxy's admin user.
    pub async fn admin(&self) -> Client {
        self.connect_as("admin", "pgherd").await
    }

    /// A client of the proxy.
    pub async fn connect_as(&self, user: &str, database: &str) -> Client {
        self.try_connect(user, user, database).await.unwrap_or_else(|e| panic!("{e:?}"))
    }

    /// The same, where it may fail.
    pub async fn try_connect(
        &self,
        user: &str,
        password: &str,
        database: &str,
    ) -> Result<Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(user).password(password).dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Starts a proxy that listens where its configuration says.
async fn serve(config: Arc<Config>) -> Arc<Proxy> {
    let listener = tokio::net::TcpListener::bind(config.listen[0]).await.unwrap();
    let proxy = Proxy::start(config.clone()).unwrap();
    tokio::spawn(proxy.clone().accept(listener));
    if let Some(http) = &config.http {
        let listener = tokio::net::TcpListener::bind(http.listen).await.unwrap();
        tokio::spawn(pgherd::http::serve(proxy.clone(), listener));
    }
    proxy
}

/// A configuration over a herd, for the wire protocol and for HTTP on these ports.
pub fn configuration(herd: &Herd, [port, http_port]: [u16; 2], sharded: bool, changes: &Changes) -> String {
    let Changes { proxy, pool, database, timeouts, http } = changes;
    let http = if http.is_empty() {
        String::new()
    } else {
        format!("[http]\nlisten = \"127.0.0.1:{http_port}\"\n{http}")
    };
    let mut text = format!(
        r#"
[proxy]
listen = ["127.0.0.1:{port}"]
{proxy}
{http}
[pool]
{pool}
[timeouts]
{timeouts}
[[user]]
name = "app"
password = "app"
[[user]]
name = "admin"
password = "admin"
admin = true
server_user = "app"
server_password = "app"
[[user]]
name = "raw"
trust = true
server_user = "app"
server_password = "app"
[[database]]
name = "app"
control = {{ user = "postgres", password = "postgres", probe_interval_ms = 50, probe_timeout_ms = 5000 }}
{database}
"#
    );
    for (i, shard) in herd.shards.iter().enumerate() {
        text.push_str(&format!("[[database.shard]]\nname = \"shard{}\"\nservers = [\n", i + 1));
        text.push_str(&format!(
            "  {{ host = \"127.0.0.1\", port = {}, role = \"primary\" }},\n",
            shard.primary.port
        ));
        for replica in &shard.replicas {
            text.push_str(&format!(
                "  {{ host = \"127.0.0.1\", port = {}, role = \"replica\" }},\n",
                replica.port
            ));
        }
        text.push_str("]\n");
    }
    if sharded {
        text.push_str(TABLES);
    }
    text
}

const TABLES: &str = r#"
[[database.partition]]
name = "A"
weight = 30
shard = "shard1"
[[database.partition]]
name = "B"
weight = 20
shard = "shard1"
[[database.partition]]
name = "C"
weight = 15
shard = "shard3"
[[database.partition]]
name = "D"
weight = 25
shard = "shard2"
[[database.partition]]
name = "E"
weight = 10
shard = "shard3"
[[database.table]]
name = "users"
placement = "sharded"
keys = [{ column = "user_id", method = "hash" }, { column = "partition_key", method = "list" }]
[[database.table]]
name = "orders"
placement = "sharded"
keys = [{ column = "user_id", method = "hash" }]
[[database.table]]
name = "countries"
placement = "reference"
[[database.table]]
name = "audit_log"
placement = "single"
shard = "shard2"
"#;

/// The rows of a simple query, values joined by `|`, NULL as `∅`.
pub async fn rows(client: &Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let line = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|i| row.get(i).unwrap_or("∅")).collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    messages.into_iter().filter_map(line).collect()
}

/// SQLSTATE and message of a simple query that must fail, once the session is ready for the next: the driver
/// returns with the error, ahead of the ReadyForQuery with which the proxy counts the statement and frees the server.
pub async fn failure(client: &Client, sql: &str) -> (String, String) {
    match client.simple_query(sql).await {
        Ok(answer) => panic!("{sql} was answered: {answer:?}"),
        Err(error) => {
            let db = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error:?}"));
            // A Sync is answered behind what came before it. Where the error ended the session, there is no answer.
            let _ = client.check_connection().await;
            (db.code().code().to_owned(), db.message().to_owned())
        }
    }
}
