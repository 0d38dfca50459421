//! Connections to the proxy, or to any server of its kind, as an application makes them.
//! Must not know what is asked over them.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::Client;
use tokio_postgres::config::{Host, SslMode};

use super::Failure;
use super::args::Connect;
use super::tls::Connector;
use crate::config::{Config, ServerTls, ServerTlsMode, User, UserAuth};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Where to connect, and as whom.
#[derive(Clone)]
pub(super) struct Target {
    config: tokio_postgres::Config,
    connector: Connector,
    host: String,
    port: u16,
    /// The database clients name.
    pub(super) database: String,
}

/// The parts of a target, before it is known that none is missing.
#[derive(Debug, Default)]
struct Parts {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<SecretString>,
    database: Option<String>,
    tls: Option<ServerTlsMode>,
}

impl Target {
    /// What the arguments say, completed by the URL or else by the configuration.
    ///
    /// # Errors
    /// An unreadable URL, or nothing that says where to connect.
    pub(super) fn new(args: &Connect, config: Option<&Config>) -> Result<Self, Failure> {
        let mut parts = match (&args.url, config) {
            (Some(url), _) => Parts::of_url(url)?,
            (None, Some(config)) => Parts::of_config(config, args.user.as_deref(), args.dbname.as_deref()),
            (None, None) => Parts::default(),
        };
        parts.host = args.host.clone().or(parts.host);
        parts.port = args.port.or(parts.port);
        parts.user = args.user.clone().or(parts.user);
        parts.database = args.dbname.clone().or(parts.database);
        if parts.password.is_none() || (args.url.is_none() && args.user.is_some() && config.is_none()) {
            parts.password = std::env::var("PGPASSWORD").ok().map(SecretString::from).or(parts.password);
        }
        parts.build()
    }

    /// `host:port/database`, for messages.
    pub(super) fn describe(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }

    /// One more connection.
    ///
    /// # Errors
    /// As tokio-postgres.
    pub(super) async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        self.connector.connect(&self.config).await
    }

    /// The first connection of a command: its failure says where it went.
    ///
    /// # Errors
    /// The same as a [`Failure`].
    pub(super) async fn connect_first(&self) -> Result<Client, Failure> {
        let refused = |e: tokio_postgres::Error| {
            let is_server = e.as_db_error().is_some();
            let failure = Failure::from(e).during(format_args!("connecting to {}", self.describe()));
            if is_server {
                failure
            } else {
                failure.remedy("is it running? start the proxy with `pgherd run` or `pgherd demo`")
            }
        };
        self.connect().await.map_err(refused)
    }
}

impl Parts {
    fn of_url(url: &str) -> Result<Self, Failure> {
        let wrong = |what: String| {
            Failure::new(format!("--url: {what}"))
                .remedy("write it as postgres://user:password@host:port/database")
        };
        let config: tokio_postgres::Config =
            url.parse().map_err(|e: tokio_postgres::Error| wrong(e.to_string()))?;
        let password = match config.get_password().map(|bytes| String::from_utf8(bytes.to_vec())) {
            None => None,
            Some(Ok(password)) => Some(SecretString::from(password)),
            Some(Err(_)) => return Err(wrong("the password is not UTF-8".into())),
        };
        Ok(Self {
            host: config.get_hosts().first().map(host_text),
            port: config.get_ports().first().copied(),
            user: config.get_user().map(str::to_owned),
            password,
            database: config.get_dbname().map(str::to_owned),
            tls: match config.get_ssl_mode() {
                SslMode::Disable => Some(ServerTlsMode::Disable),
                SslMode::Require => Some(ServerTlsMode::Require),
                SslMode::Prefer | _ => Some(ServerTlsMode::Prefer),
            },
        })
    }

    /// The proxy's own address, and its first user with a password that is no administrator.
    fn of_config(config: &Config, user: Option<&str>, database: Option<&str>) -> Self {
        let listen = config.listen.first();
        let host = listen.map(|addr| {
            if addr.ip().is_unspecified() { "127.0.0.1".to_owned() } else { addr.ip().to_string() }
        });
        let databases = || config.databases.iter().filter(|db| !db.is_wildcard());
        let with_tables = databases().find(|db| !db.map.tables.is_empty()).or_else(|| databases().next());
        let database = database.map(str::to_owned).or_else(|| with_tables.map(|db| db.name.clone()));
        let may = |u: &&User| {
            u.databases.is_empty() || database.as_ref().is_none_or(|name| u.databases.contains(name))
        };
        let user = match user {
            Some(name) => config.user(name),
            None => config.users.iter().filter(may).find(|u| !u.admin && password_of(u).is_some()),
        };
        Self {
            host,
            port: listen.map(std::net::SocketAddr::port),
            user: user.map(|u| u.name.clone()),
            password: user.and_then(password_of),
            database,
            tls: Some(if config.tls.is_some() { ServerTlsMode::Prefer } else { ServerTlsMode::Disable }),
        }
    }

    fn build(self) -> Result<Target, Failure> {
        let needed = |what: &str| {
            Failure::new(format!("no {what} to connect with"))
                .remedy(format!("give --{what}, or --url, or a configuration with -c"))
        };
        let host = self.host.ok_or_else(|| needed("host"))?;
        let port = self.port.unwrap_or(5432);
        let user = self.user.ok_or_else(|| needed("user"))?;
        let database = self.database.unwrap_or_else(|| user.clone());
        let mut config = tokio_postgres::Config::new();
        config.host(&host).port(port).user(&user).dbname(&database).connect_timeout(CONNECT);
        config.application_name("pgherd");
        if let Some(password) = &self.password {
            config.password(password.expose_secret());
        }
        let tls = ServerTls::mode(self.tls.unwrap_or(ServerTlsMode::Prefer));
        let connector = Connector::new(&tls).map_err(Failure::new)?;
        Ok(Target { config, connector, host, port, database })
    }
}

fn password_of(user: &User) -> Option<SecretString> {
    match &user.auth {
        UserAuth::Password(password) => Some(password.clone()),
        UserAuth::Verifier(_) | UserAuth::Certificate | UserAuth::Trust => None,
    }
}

fn host_text(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::cli::args::ConfigFile;
    use crate::config::{DEMO_PORT_BASE, demo_text};

    fn connect(url: Option<&str>) -> Connect {
        let config = ConfigFile { path: PathBuf::from("proxy.toml") };
        Connect { config, url: url.map(str::to_owned), host: None, port: None, user: None, dbname: None }
    }

    fn demo() -> Config {
        let text = demo_text(DEMO_PORT_BASE).unwrap();
        Config::parse(&text, Path::new("proxy.toml"), &|_| None).unwrap().config
    }

    #[test]
    fn a_url_says_it_all_and_flags_override_it() {
        let mut args = connect(Some("postgres://u:p%40@h:7/d?sslmode=disable"));
        let target = Target::new(&args, None).unwrap();
        assert_eq!(target.describe(), "h:7/d");
        assert_eq!(target.config.get_password(), Some("p@".as_bytes()));
        (args.host, args.port, args.dbname) = (Some("x".into()), Some(8), Some("y".into()));
        assert_eq!(Target::new(&args, None).unwrap().describe(), "x:8/y");
        assert!(Target::new(&connect(Some("nonsense")), None).is_err());
    }

    #[test]
    fn the_configuration_says_where_its_proxy_is_and_who_may_log_in() {
        let target = Target::new(&connect(None), Some(&demo())).unwrap();
        assert_eq!(target.describe(), "127.0.0.1:6432/app");
        assert_eq!(target.config.get_user(), Some("app"));
        assert_eq!(target.config.get_password(), Some("app".as_bytes()));
        assert!(Target::new(&connect(None), None).is_err());
    }
}
