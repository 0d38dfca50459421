//! What can be typed on the command line.
//! Must not know what commands do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use super::{Failure, ui};
use crate::config::{Config, DEMO_PORT_BASE};

const EXAMPLES: &str = "\
Examples:
  pgherd demo                       three shards on this machine, tables, data and the proxy
  psql -h 127.0.0.1 -p 6432 -U app app
  pgherd check -c proxy.toml        is the file right, and are the servers behind it?
  pgherd -c proxy.toml              the same as: pgherd run -c proxy.toml
  pgherd load-test --concurrency 64 --duration 30s

Exit codes: 0 success, 1 failure, 2 wrong usage.";

/// One PostgreSQL in front, a herd behind: a proxy for sharding, read/write splitting and pooling.
#[derive(Debug, Parser)]
#[command(name = "pgherd", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the proxy (the default)
    Run(ConfigFile),
    /// Validate a configuration and the servers behind it
    ///
    /// Prints what is wrong with its place and its remedy, and exits with 1 if the proxy could not work so.
    Check(ConfigFile),
    /// Bring up three shards on this machine with tables, data and the proxy; Ctrl-C stops all of it
    ///
    /// A second run finds its data again. Needs PostgreSQL's server programs; where there are none it installs them
    /// with the machine's package manager, if that may be done without a password.
    Demo(Demo),
    /// Manage the demo's servers without the proxy
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Create the tables of sql/ where the configuration places them
    ///
    /// Can be repeated. Also gives serial and identity columns of every sharded table ids that never collide: shard
    /// n counts n, n+128, n+256, …
    Setup(Setup),
    /// Fill users, orders and audit_log through the proxy
    ///
    /// At scale 1 about 100 MB of rows, dealt to the partitions by their weights: 30/20/15/25/10 MB in the shipped
    /// configuration. The same scale and seed give the same rows.
    Generate(Generate),
    /// Measure throughput and latency of a mix of reads and writes on the tables of sql/
    ///
    /// Works against pgherd, over its wire protocol or its HTTP API, and against a plain PostgreSQL server. A failed statement is counted, never repeated.
    LoadTest(LoadTest),
}

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Start primaries and replicas, making them first if need be; they run on afterwards
    Up(ClusterUp),
    /// Stop them; the data stays
    Down(DataDir),
    /// Show which run, and as what
    Status(DataDir),
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConfigFile {
    /// The configuration
    #[arg(short = 'c', long = "config", value_name = "FILE", default_value = "proxy.toml")]
    pub(super) path: PathBuf,
}

impl ConfigFile {
    /// Reads and checks it, and prints its warnings.
    pub(super) fn load(&self) -> Result<Arc<Config>, Failure> {
        let loaded = Config::load(&self.path)?;
        loaded.warnings.iter().for_each(|warning| ui::complain(&format!("warning: {warning}")));
        Ok(Arc::new(loaded.config))
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct DataDir {
    /// Where the servers' data is kept
    #[arg(long = "data-dir", value_name = "DIR", default_value = ".pgherd")]
    pub(super) dir: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    #[command(flatten)]
    pub(super) data: DataDir,
    /// First port of the servers: base to base+5; the proxy listens on base+1000
    #[arg(long, value_name = "PORT", default_value_t = DEMO_PORT_BASE)]
    pub(super) port_base: u16,
    /// Amount of data: 1 is about 100 MB
    #[arg(long, value_name = "FACTOR", default_value = "0.02", value_parser = scale)]
    pub(super) scale: f64,
    /// Wipe the data directory and start over
    #[arg(long)]
    pub(super) fresh: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ClusterUp {
    #[command(flatten)]
    pub(super) data: DataDir,
    /// First port: shard i has its primary on base+2(i-1) and its replica on the port after it
    #[arg(long, value_name = "PORT", default_value_t = DEMO_PORT_BASE)]
    pub(super) port_base: u16,
    /// Number of shards
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) shards: u16,
    /// Wipe the data directory and start over
    #[arg(long)]
    pub(super) fresh: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Setup {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Create the tables of these files instead: DIR/{sharded,reference,single}/<table>.sql
    #[arg(long, value_name = "DIR")]
    pub(super) sql: Option<PathBuf>,
    /// Only this database of the configuration
    #[arg(long, value_name = "NAME")]
    pub(super) database: Option<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Connect {
    #[command(flatten)]
    pub(super) config: ConfigFile,
    /// Where to connect, e.g. postgres://app:app@127.0.0.1:6432/app [default: as the configuration says]
    #[arg(long)]
    pub(super) url: Option<String>,
    /// Host, instead of the configuration's or the URL's
    #[arg(long)]
    pub(super) host: Option<String>,
    /// Port
    #[arg(short, long)]
    pub(super) port: Option<u16>,
    /// User; its password may be in PGPASSWORD
    #[arg(short = 'U', long)]
    pub(super) user: Option<String>,
    /// Database
    #[arg(short, long, value_name = "NAME")]
    pub(super) dbname: Option<String>,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Generate {
    #[command(flatten)]
    pub(super) connect: Connect,
    /// Amount of data: 1 is about 100 MB
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = scale)]
    pub(super) scale: f64,
    /// Other rows of the same kind
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Add to the rows that are there
    #[arg(long, conflicts_with = "replace")]
    pub(super) append: bool,
    /// Empty users, orders and audit_log first
    #[arg(long)]
    pub(super) replace: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct LoadTest {
    #[command(flatten)]
    pub(super) connect: Connect,
    /// Connections, each with one statement at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) concurrency: u32,
    /// How long, e.g. 30s, 5m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(super) duration: Duration,
    /// Share of statements that write, 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0.1", value_parser = share)]
    pub(super) write_ratio: f64,
    /// How statements are sent
    #[arg(long, value_enum, default_value_t = Protocol::Prepared)]
    pub(super) protocol: Protocol,
    /// Ask the HTTP API instead, e.g. http://app:app@127.0.0.1:3000; it has neither joins nor updates
    #[arg(long, value_name = "URL", conflicts_with_all = ["url", "host", "port", "user", "dbname", "protocol"])]
    pub(super) http: Option<String>,
    /// Also write the result as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Also draw the result as SVG: throughput and latency over time, latency by percentile
    #[arg(long, value_name = "FILE")]
    pub(super) plot: Option<PathBuf>,
    /// Other random choices
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Exit with 1 if any statement failed
    #[arg(long, action = ArgAction::SetTrue)]
    pub(super) strict: bool,
}

/// How statements are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Protocol {
    /// One Query message with literals in the text
    Simple,
    /// Parse, Bind and Execute each time
    Extended,
    /// Parse once per connection, then Bind and Execute
    Prepared,
}

impl Protocol {
    /// In lower case, as on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// `30s`, `500ms`, `5m`, `1h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("\"{other}\" is no unit of time: use ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| "a time is a number and a unit, e.g. 30s".to_owned())?;
    let wanted = Duration::try_from_secs_f64(number * factor).map_err(|e| e.to_string())?;
    if wanted.is_zero() { Err("must be more than nothing".into()) } else { Ok(wanted) }
}

fn scale(text: &str) -> Result<f64, String> {
    number_in(text, 0.0001, 10_000.0)
}

fn share(text: &str) -> Result<f64, String> {
    number_in(text, 0.0, 1.0)
}

fn number_in(text: &str, least: f64, most: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!("must be a number from {least} to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn run_is_what_happens_without_a_command() {
        let args = Args::try_parse_from(["pgherd", "-c", "x.toml"]).unwrap();
        assert!(args.command.is_none());
        assert_eq!(args.config.path, PathBuf::from("x.toml"));
        let args = Args::try_parse_from(["pgherd", "run"]).unwrap();
        assert!(matches!(args.command, Some(Command::Run(c)) if c.path.as_os_str() == "proxy.toml"));
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        for line in [
            "pgherd nonsense",
            "pgherd generate --append --replace",
            "pgherd generate --scale 0",
            "pgherd load-test --write-ratio 1.5",
            "pgherd load-test --duration 0s",
            "pgherd load-test --duration 5parsecs",
            "pgherd cluster up --shards 0",
            "pgherd cluster",
        ] {
            let error = Args::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, ms) in [("30s", 30_000), ("2", 2_000), ("500ms", 500), ("1.5m", 90_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert!(duration("").is_err() && duration("s").is_err() && duration("-1s").is_err());
    }
}
