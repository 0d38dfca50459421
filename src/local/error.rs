//! What can go wrong with servers on this machine, each with what to do about it.
//! Must not know the command line beyond the flags it names in remedies.

use std::path::PathBuf;

/// A local server or cluster could not be found, made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No PostgreSQL server binaries.
    #[error("no PostgreSQL 13 to 18 server binaries found (looked in {searched})")]
    NoBinaries {
        /// Where.
        searched: String,
        /// The command that installs them here, if there is one.
        install: Option<String>,
    },
    /// The package manager failed.
    #[error("installing PostgreSQL failed: `{command}` said: {output}")]
    Install {
        /// What was run.
        command: String,
        /// The end of what it printed.
        output: String,
    },
    /// The data directory was made by a version that is not installed.
    #[error("{} was made by PostgreSQL {version}, whose binaries are not on this machine", dir.display())]
    WrongVersion {
        /// The data directory.
        dir: PathBuf,
        /// Its major version.
        version: String,
    },
    /// There is no user to run servers as.
    #[error("PostgreSQL does not run as root, and no other user can be used: {0}")]
    NoAccount(String),
    /// A port that is needed is in use.
    #[error("port {port} is already in use; {needed_by} needs it")]
    PortTaken {
        /// The port.
        port: u16,
        /// Who needs it.
        needed_by: String,
    },
    /// The ports do not fit below 65536.
    #[error("port base {base} leaves no room for {servers} servers and the proxy below 65536")]
    PortRange {
        /// The base.
        base: u16,
        /// How many servers.
        servers: usize,
    },
    /// The cluster runs, but on other ports than asked for.
    #[error("{name} is already running on port {port}, not on {wanted}")]
    RunsElsewhere {
        /// The server.
        name: String,
        /// Where it runs.
        port: u16,
        /// Where it should.
        wanted: u16,
    },
    /// Another pgherd works on the same directory.
    #[error("another pgherd is working on {}", .0.display())]
    Locked(PathBuf),
    /// Wiping was asked for, but this is not a directory of ours.
    #[error("{} was not made by pgherd: it will not be wiped", .0.display())]
    NotOurs(PathBuf),
    /// A program of PostgreSQL failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// A server ended while it started.
    #[error("{name} (port {port}) did not start; the end of its log:\n{log}")]
    Died {
        /// The server.
        name: String,
        /// Its port.
        port: u16,
        /// The tail of its log.
        log: String,
    },
    /// A server did not get there in time.
    #[error("{name} (port {port}) did not {what} within {seconds} s; the end of its log:\n{log}")]
    TimedOut {
        /// The server.
        name: String,
        /// Its port.
        port: u16,
        /// What it should have done.
        what: &'static str,
        /// How long it was given, s.
        seconds: u64,
        /// The tail of its log.
        log: String,
    },
    /// The file system said no.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// Verb.
        what: &'static str,
        /// Object.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl LocalError {
    /// For `map_err`: the verb and its object.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }

    /// What to do about it, if that can be said.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NoBinaries { install: Some(command), .. } => Some(format!("install them: {command}")),
            Self::NoBinaries { install: None, .. } => Some(
                "install PostgreSQL's server package, or name its directory: PGHERD_PG_BIN=/path/to/bin"
                    .into(),
            ),
            Self::Install { command, .. } => Some(format!("run it yourself: {command}")),
            Self::WrongVersion { version, .. } => {
                Some(format!("install PostgreSQL {version}, or start over with --fresh"))
            }
            Self::NoAccount(_) => {
                Some("create one: useradd --system pgherd; or run pgherd as another user".into())
            }
            Self::PortTaken { .. } => Some(
                "stop what uses it, or choose other ports with --port-base (e.g. --port-base 15432)".into(),
            ),
            Self::PortRange { .. } => Some("choose a smaller --port-base".into()),
            Self::RunsElsewhere { .. } => Some("stop it first: pgherd cluster down".into()),
            Self::Locked(_) => Some("wait for it, or choose another --data-dir".into()),
            Self::NotOurs(_) => Some("choose another --data-dir, or remove it yourself".into()),
            Self::Died { .. } | Self::TimedOut { .. } => {
                Some("if the data is of no value, start over with --fresh".into())
            }
            Self::Program { .. } | Self::Io { .. } => None,
        }
    }
}
