//! The checked configuration. It exists only if every rule held, so nobody checks again.
//! Must not know TOML.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::shard::Map;

/// Everything `proxy.toml` says.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, for messages.
    pub path: PathBuf,
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// Whether another process may listen at the same addresses, as a successor does (SO_REUSEPORT).
    pub reuse_port: bool,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Who may connect.
    pub users: Vec<User>,
    /// What they may connect to, without the built-in `pgherd` database.
    pub databases: Vec<Arc<Database>>,
    /// TLS towards clients; `None` refuses SSLRequest.
    pub tls: Option<ClientTls>,
    /// Caps.
    pub limits: Limits,
    /// Every wait's end.
    pub timeouts: Timeouts,
    /// Logging.
    pub log: Log,
    /// The HTTP server; `None` is off.
    pub http: Option<Http>,
    /// Statements that take so long are logged.
    pub slow: Option<Duration>,
    /// Whether statements are counted and timed.
    pub statistics: bool,
}

impl Config {
    /// The database of that name, else the `*` one.
    #[must_use]
    pub fn database(&self, name: &str) -> Option<&Arc<Database>> {
        self.databases
            .iter()
            .find(|d| d.name == name)
            .or_else(|| self.databases.iter().find(|d| d.is_wildcard()))
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|u| u.name == name)
    }
}

/// A user of the proxy.
#[derive(Debug, Clone)]
pub struct User {
    /// The name a client connects with.
    pub name: String,
    /// How the client proves it.
    pub auth: UserAuth,
    /// The common name of the client certificate that the user has to show, besides its password if it has one.
    pub cert_cn: Option<String>,
    /// Clients at once as this user; one more gets 53300.
    pub max_clients: Option<NonZeroUsize>,
    /// May read schema `pgherd` and give commands.
    pub admin: bool,
    /// Databases the user may connect to; empty is all.
    pub databases: Vec<String>,
    /// The name used towards servers.
    pub server_user: String,
    /// The password used towards servers; `None` where they trust.
    pub server_password: Option<SecretString>,
    /// Server connections per server for this user, instead of the pool's `size`.
    pub pool_size: Option<NonZeroU32>,
}

/// How a client proves who it is.
#[derive(Debug, Clone)]
pub enum UserAuth {
    /// A password; a SCRAM verifier is derived from it once.
    Password(SecretString),
    /// A verifier as in `pg_authid.rolpassword`: `SCRAM-SHA-256$4096:salt$stored:server`.
    Verifier(SecretString),
    /// The certificate alone.
    Certificate,
    /// No proof asked; only from loopback addresses.
    Trust,
}

/// A database that clients can name.
#[derive(Debug, Clone)]
pub struct Database {
    /// The name, or `*` for any other name.
    pub name: String,
    /// The name on the servers; `None` is the same as the client asked for.
    pub server_database: Option<String>,
    /// Shards with their servers, by [`crate::shard::ShardId`].
    pub shards: Vec<Shard>,
    /// Partitions, tables and where they are.
    pub map: Arc<Map>,
    /// When a server is given back.
    pub pool_mode: PoolMode,
    /// What a read may miss.
    pub read_consistency: ReadConsistency,
    /// A replica further behind than this is left out.
    pub max_replica_lag: Duration,
    /// Whether reads go to the primary when no replica is healthy.
    pub replica_fallback: bool,
    /// The pools' sizes and lifetimes.
    pub pool: Pool,
    /// The account for probes, catalogs and set-up.
    pub control: Control,
    /// Clients at once; one more gets 53300.
    pub max_clients: Option<NonZeroUsize>,
    /// How users that the configuration does not name are looked up on the servers.
    pub auth_query: Option<AuthQuery>,
    /// TLS towards the servers.
    pub server_tls: ServerTls,
}

impl Database {
    /// Whether it stands for any name that no other database has.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.name == "*"
    }
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub name: String,
    /// Its servers in the order of the file.
    pub servers: Vec<Server>,
}

/// One PostgreSQL server. Which one is the primary is found by asking, never assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The role the config expects, shown when the server says otherwise.
    pub role: Role,
    /// Its share of reads relative to the other replicas.
    pub weight: u32,
}

impl Server {
    /// `host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// What a server is in its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes writes.
    Primary,
    /// In recovery: follows a primary, takes reads.
    Replica,
}

impl Role {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
        }
    }
}

/// When a client gives its server back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When it disconnects.
    Session,
    /// When its transaction ends.
    Transaction,
}

/// What a read may miss. Source: DESIGN, section 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadConsistency {
    /// A session sees its own writes.
    Session,
    /// A read may be as old as the replica's lag.
    Eventual,
    /// All reads go to the primary.
    Primary,
}

/// Sizes and lifetimes of one server's pool for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Server connections per server and user.
    pub size: NonZeroU32,
    /// Idle server connections kept ready.
    pub min_idle: u32,
    /// Server connections per server for all users together.
    pub max_per_server: NonZeroU32,
    /// Longest wait for a free connection; then 53300.
    pub queue_timeout: Duration,
    /// Longest wait for the end of a pause; then 57P03.
    pub pause_timeout: Duration,
    /// Longest wait for a TCP connection and login.
    pub connect_timeout: Duration,
    /// An idle connection is closed after this.
    pub idle_timeout: Duration,
    /// A connection is closed when it is this old, with up to 10 % jitter.
    pub max_lifetime: Duration,
    /// Prepared statements kept per server connection.
    pub prepared_statements: NonZeroUsize,
    /// Connections that clients may keep for their session's state; `None`: all but one, but at least one.
    pub max_pinned: Option<u32>,
    /// Whether a connection forgets what was drawn from sequences before another client has it, even before the first
    /// statement or function that tells of it has been seen.
    pub discard_sequences: bool,
}

/// The account for probes, catalogs and set-up.
#[derive(Debug, Clone)]
pub struct Control {
    /// Role on the servers.
    pub user: String,
    /// Its password; `None` where they trust.
    pub password: Option<SecretString>,
    /// Time between two probes of a server.
    pub probe_interval: Duration,
    /// A probe that takes longer has failed.
    pub probe_timeout: Duration,
}

/// Users that are looked up on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthQuery {
    /// With the user's name as `$1`; gives name and verifier, or no row.
    pub sql: String,
    /// How long an answer is believed.
    pub cache: Duration,
}

/// TLS towards clients: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientTls {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Whether plaintext clients are refused.
    pub required: bool,
    /// Who signs clients' certificates; `None`: none is asked for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub client_cert_required: bool,
}

/// TLS towards servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// How much is asked of a server.
    pub mode: ServerTlsMode,
    /// Root certificates (PEM), needed to verify.
    pub ca: Option<PathBuf>,
    /// The proxy's own certificate (PEM), for servers that ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// TLS at once, without SSLRequest (PostgreSQL 17 and later).
    pub direct: bool,
}

impl ServerTls {
    /// A mode and nothing else.
    #[must_use]
    pub fn mode(mode: ServerTlsMode) -> Self {
        Self { mode, ca: None, cert: None, key: None, direct: false }
    }

    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten()
    }
}

impl ClientTls {
    /// The files it names.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        [&self.cert, &self.key].into_iter().chain(&self.client_ca)
    }
}

/// libpq's `sslmode`, without `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// Plaintext.
    Disable,
    /// TLS if the server has it, unverified.
    Prefer,
    /// TLS, unverified.
    Require,
    /// TLS, the chain is verified.
    VerifyCa,
    /// TLS, chain and host name are verified.
    VerifyFull,
}

/// Caps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once; one more gets 53300.
    pub max_clients: usize,
    /// Clients that have not authenticated yet.
    pub max_unauthenticated: usize,
    /// The longest message from a client, bytes; CopyData is streamed and not bound by it.
    pub max_message: usize,
    /// Notifications that wait for one client, bytes; one that reads more slowly is ended.
    pub max_notify: usize,
    /// Plans kept per database.
    pub plan_cache: usize,
}

/// Every wait's end. Zero in the file is `None`: no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// From accept to the end of authentication.
    pub login: Duration,
    /// A client that says nothing outside a transaction (57P05).
    pub idle: Option<Duration>,
    /// A client that says nothing inside a transaction (25P03).
    pub idle_in_transaction: Option<Duration>,
    /// A statement (57014).
    pub query: Option<Duration>,
    /// How long a shutdown waits for transactions to end.
    pub drain: Duration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter, e.g. `info` or `pgherd=debug`.
    pub filter: String,
    /// One JSON object a line.
    pub json: bool,
}

/// The HTTP server.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who a request without credentials is; only on a loopback address.
    pub user: Option<String>,
    /// The database that the data API works on.
    pub database: String,
    /// Bearer tokens.
    pub tokens: Vec<HttpToken>,
    /// Connections at once; further ones wait.
    pub max_connections: usize,
    /// Statements at once; further ones wait, at most for `timeout`.
    pub max_sessions: usize,
    /// The longest body of a request, bytes. A streamed one is not bound by it as a whole, but each of its lines is.
    pub max_body: usize,
    /// The most rows in an answer that is not streamed, and records in a body that is not streamed.
    pub max_rows: usize,
    /// The end of a request, its wait for a session included; of a streamed one, the longest pause.
    pub timeout: Duration,
    /// Whether a bulk write of records for several shards is committed on each shard by itself.
    pub bulk_per_shard: bool,
}

/// A secret that stands for a user.
#[derive(Debug, Clone)]
pub struct HttpToken {
    /// Whom it stands for.
    pub user: String,
    /// What a client sends: `Authorization: Bearer …`.
    pub token: SecretString,
}
