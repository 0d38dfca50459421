//! One real PostgreSQL server: fresh data directory, free port, stopped when dropped.
//! Must not know shards; started by the code that starts the demo's servers.

use std::sync::Arc;
use std::time::Duration;

use pgherd::local::{
    APP_DATABASE, APP_PASSWORD, APP_USER, Follow, Machine, SUPERUSER, SUPERUSER_PASSWORD, Server, Spec, Stop,
    Template,
};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{Port, eventually};

/// Longest wait for anything a healthy server does.
const SOON: Duration = Duration::from_secs(30);

/// A server of its own. On a panic of the test its log is printed.
#[derive(Debug)]
pub struct Pg {
    /// Its port on 127.0.0.1; the same after a restart.
    pub port: u16,
    machine: Machine,
    spec: Spec,
    server: Option<Server>,
    // Dropped after the server, in this order.
    _dir: Arc<TempDir>,
    _port: Port,
}

/// A directory that the servers' user can write to, removed with all in it.
pub(super) fn temp_dir(machine: &Machine) -> Arc<TempDir> {
    let dir = tempfile::Builder::new().prefix("pgherd-test-").tempdir().unwrap();
    if machine.account.is_other() {
        let name = machine.account.name();
        let status = std::process::Command::new("chown").arg(name).arg(dir.path()).status();
        assert!(status.unwrap().success(), "chown {name}");
    }
    Arc::new(dir)
}

/// The machine and the template, found once per process.
pub(super) async fn machine() -> &'static (Machine, Template) {
    static MACHINE: OnceCell<(Machine, Template)> = OnceCell::const_new();
    let find = || async {
        let machine = Machine::find_or_install(None, &|line| eprintln!("{line}")).await.unwrap();
        let template = Template::get(&machine).await.unwrap();
        (machine, template)
    };
    MACHINE.get_or_init(find).await
}

impl Pg {
    /// A primary without replicas, with role and database `app`.
    pub async fn start() -> Self {
        let (machine, _) = machine().await;
        Self::primary("primary", 0, &temp_dir(machine)).await
    }

    /// A primary in `dir`, with slots for so many replicas.
    pub(super) async fn primary(name: &str, replicas: usize, dir: &Arc<TempDir>) -> Self {
        let (machine, template) = machine().await;
        let pg = Self::prepare(machine, name, None, dir);
        template.copy_primary(&pg.spec.dir, replicas).await.unwrap();
        pg.started().await
    }

    /// A replica in `dir` of a primary on `follows`.
    pub(super) async fn replica(name: &str, follows: Follow, dir: &Arc<TempDir>) -> Self {
        let (machine, template) = machine().await;
        let pg = Self::prepare(machine, name, Some(follows), dir);
        template.copy_replica(&pg.spec.dir).await.unwrap();
        pg.started().await
    }

    fn prepare(machine: &Machine, name: &str, follows: Option<Follow>, dir: &Arc<TempDir>) -> Self {
        let port = Port::reserve();
        let spec = Spec {
            name: name.to_owned(),
            dir: dir.path().join(name.replace(' ', "-")),
            log: dir.path().join(format!("{name}.log")),
            port: port.number(),
            follows,
            durable: false,
            detached: false, // a Ctrl-C during `cargo test` stops it too
        };
        Self { port: spec.port, machine: machine.clone(), spec, server: None, _dir: dir.clone(), _port: port }
    }

    async fn started(mut self) -> Self {
        self.restart().await;
        self
    }

    /// Starts it again after [`Pg::stop`] or [`Pg::kill_immediate`], and waits until it accepts connections.
    pub async fn restart(&mut self) {
        assert!(self.server.is_none(), "{} is already running", self.spec.name);
        let started = Server::start(&self.machine, self.spec.clone()).await;
        self.server = Some(started.unwrap_or_else(|e| panic!("{e}")));
    }

    /// Stops it in good order: open transactions are rolled back, clients get 57P01.
    pub async fn stop(&mut self) {
        let server = self.server.take().expect("it runs");
        server.stop(Stop::Fast).await.unwrap();
    }

    /// Stops it as a crash does: clients get 57P02 or a broken connection.
    pub async fn kill_immediate(&mut self) {
        let server = self.server.take().expect("it runs");
        server.stop(Stop::Immediate).await.unwrap();
    }

    /// Whether it was started and not stopped.
    pub fn is_running(&self) -> bool {
        self.server.is_some()
    }

    /// A connection to database `app` as the superuser.
    pub async fn connect(&self) -> Client {
        self.connect_as(SUPERUSER, SUPERUSER_PASSWORD, APP_DATABASE).await
    }

    /// The same, if it can be had now.
    pub async fn try_connect(&self) -> Option<Client> {
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(SUPERUSER)
            .password(SUPERUSER_PASSWORD)
            .dbname(APP_DATABASE);
        let (client, connection) = config.connect(NoTls).await.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// A connection to database `app` as `app`.
    pub async fn connect_app(&self) -> Client {
        self.connect_as(APP_USER, APP_PASSWORD, APP_DATABASE).await
    }

    /// A connection as anyone to any database.
    pub async fn connect_as(&self, user: &str, password: &str, database: &str) -> Client {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user(user).password(password).dbname(database);
        config.connect_timeout(SOON);
        let (client, connection) =
            config.connect(NoTls).await.unwrap_or_else(|e| panic!("{}: {e}\n{}", self.spec.name, self.log()));
        tokio::spawn(connection);
        client
    }

    /// Runs statements as the superuser in database `app`; the first column of all rows.
    pub async fn sql(&self, sql: &str) -> Vec<String> {
        let client = self.connect().await;
        let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let mut rows = Vec::new();
        for message in messages {
            if let SimpleQueryMessage::Row(row) = message {
                rows.push(row.get(0).unwrap_or("NULL").to_owned());
            }
        }
        rows
    }

    /// Waits until a replica has replayed all that `primary` has written so far.
    pub async fn caught_up_with(&self, primary: &Self) {
        let target = primary.sql("select pg_current_wal_flush_lsn()").await.remove(0);
        let client = self.connect().await;
        let sql = format!("select pg_last_wal_replay_lsn() >= '{target}'::pg_lsn");
        let what = format!("{} replays up to {target}", self.spec.name);
        eventually(&what, SOON, async || {
            client.query_one(&sql, &[]).await.unwrap().get::<_, Option<bool>>(0)?.then_some(())
        })
        .await;
    }

    /// All of its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.spec.log).unwrap_or_default()
    }
}

impl Drop for Pg {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<String> = log.lines().map(|line| line.chars().take(300).collect()).collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- log of {} (port {}) ---\n{}", self.spec.name, self.port, tail.join("\n"));
        }
    }
}
