//! A cluster on this machine: shards of one primary and one streaming replica each, up, down and status.
//! Must not know the proxy. Data is kept between runs; only `fresh` wipes, and only what was made here.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, interval};

use super::data::{self, CopyAs};
use super::process::PidFile;
use super::{Account, Follow, LocalError, Machine, Server, Spec, Stop, check_free};

/// The file that says a directory is ours.
const MARKER: &str = "pgherd-cluster";
/// Longest wait for another pgherd that works on the same directory.
const LOCK: Duration = Duration::from_secs(2);

/// What to bring up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the data is kept.
    pub dir: PathBuf,
    /// Shard i (from 0) has its primary on `port_base + 2i` and its replica on the port after it.
    pub port_base: u16,
    /// How many shards.
    pub shards: u16,
    /// Whether to wipe what is there.
    pub fresh: bool,
    /// Other ports that must be free, each with who needs it.
    pub also: Vec<(u16, String)>,
}

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    servers: Vec<Server>,
}

/// One server as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// e.g. `shard1 replica`.
    pub name: String,
    /// Its data directory.
    pub dir: PathBuf,
    /// Its process, if it runs.
    pub pid: Option<u32>,
    /// Its port, if it runs.
    pub port: Option<u16>,
    /// Whether it accepts connections.
    pub ready: bool,
    /// Whether it is set up to follow a primary; false after a promotion.
    pub standby: bool,
}

impl Cluster {
    /// Makes what is not there, starts what does not run, waits until all accept connections. Ports are checked
    /// before anything is started. Cancelled or failed, it stops what it started.
    ///
    /// # Errors
    /// Any [`LocalError`].
    pub async fn up(options: &Options, say: &dyn Fn(&str)) -> Result<Self, LocalError> {
        let dir = home(&options.dir).await?;
        if std::path::absolute(&options.dir).ok().as_ref() != Some(&dir) {
            say(&format!(
                "{} cannot be reached by the servers' user: using {}",
                options.dir.display(),
                dir.display()
            ));
        }
        let options = Options { dir, ..options.clone() };
        let wanted = if options.fresh { None } else { existing_major(&options.dir) };
        let machine = Machine::find_or_install(wanted, say)
            .await
            .map_err(|e| wrong_version(e, wanted, &options.dir))?;
        let specs = options.specs()?;
        let _lock = prepare(&options, &machine, &specs).await?;
        let missing = specs.iter().any(|pair| !pair.iter().all(|spec| spec.dir.is_dir()));
        if missing {
            let version = &machine.binaries.version;
            let (shards, dir) = (options.shards, options.dir.display());
            say(&format!(
                "making the data directories of {shards} x 2 servers with PostgreSQL {version} in {dir}"
            ));
        }
        try_join_all(specs.iter().map(|pair| make_shard(&machine, pair))).await?;
        let servers = try_join_all(specs.into_iter().flatten().map(|spec| start(&machine, spec))).await?;
        Ok(Self { dir: options.dir, servers })
    }

    /// Where its data is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its servers: primary and replica of each shard in turn.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Replicas that follow no one any more because they were promoted; by name.
    #[must_use]
    pub fn promoted(&self) -> Vec<&str> {
        let specs = self.servers.iter().map(Server::spec);
        specs
            .filter(|spec| spec.follows.is_some() && !is_standby(&spec.dir))
            .map(|spec| spec.name.as_str())
            .collect()
    }

    /// Lets it run on after this process.
    pub fn release(self) {
        self.servers.into_iter().for_each(Server::release);
    }

    /// Stops the servers this process started: primaries first, so that replicas get their last WAL.
    ///
    /// # Errors
    /// [`LocalError::TimedOut`].
    pub async fn stop(self) -> Result<(), LocalError> {
        let owned = self.servers.into_iter().filter(Server::is_owned);
        stop_all(owned.collect()).await
    }

    /// Stops every server of the cluster in a directory, whoever started it. Returns how many ran.
    ///
    /// # Errors
    /// [`LocalError::NotOurs`] if there is no cluster; as [`Cluster::stop`].
    pub async fn down(dir: &Path) -> Result<usize, LocalError> {
        let dir = home(dir).await?;
        let found = Self::found(&dir)?;
        let _lock = lock(&dir).await?;
        let running: Vec<&ServerStatus> = found.iter().filter(|server| server.pid.is_some()).collect();
        if running.is_empty() {
            return Ok(0);
        }
        let machine = Machine::find(existing_major(&dir)).await?;
        let mut servers = Vec::new();
        for status in &running {
            servers.extend(Server::adopt(&machine, &status.spec())?);
        }
        let count = servers.len();
        stop_all(servers).await?;
        Ok(count)
    }

    /// Every server of the cluster in a directory.
    ///
    /// # Errors
    /// [`LocalError::NotOurs`] if there is no cluster.
    pub async fn status(dir: &Path) -> Result<Vec<ServerStatus>, LocalError> {
        Self::found(&home(dir).await?)
    }

    fn found(dir: &Path) -> Result<Vec<ServerStatus>, LocalError> {
        if !dir.join(MARKER).is_file() {
            return Err(LocalError::NotOurs(dir.to_owned()));
        }
        let servers = (1..).map(|n| dir.join(format!("shard{n}"))).take_while(|shard| shard.is_dir());
        Ok(servers
            .enumerate()
            .flat_map(|(i, shard)| ROLES.map(|role| status_of(i + 1, &shard, role)))
            .collect())
    }
}

const ROLES: [&str; 2] = ["primary", "replica"];

impl Options {
    /// Primary and replica of each shard.
    fn specs(&self) -> Result<Vec<[Spec; 2]>, LocalError> {
        let servers = usize::from(self.shards) * 2;
        let out_of_range = LocalError::PortRange { base: self.port_base, servers };
        if usize::from(self.port_base) + servers > usize::from(u16::MAX) {
            return Err(out_of_range);
        }
        Ok((0..self.shards).map(|i| self.pair(i)).collect())
    }

    fn pair(&self, i: u16) -> [Spec; 2] {
        let shard = self.dir.join(format!("shard{}", i + 1));
        let primary_port = self.port_base + 2 * i;
        ROLES.map(|role| {
            let follows = (role == "replica").then_some(Follow { port: primary_port, number: 1 });
            Spec {
                name: format!("shard{} {role}", i + 1),
                dir: shard.join(role),
                log: shard.join(format!("{role}.log")),
                port: primary_port + u16::from(follows.is_some()),
                follows,
                durable: true,
                detached: true,
            }
        })
    }
}

impl ServerStatus {
    fn spec(&self) -> Spec {
        Spec {
            name: self.name.clone(),
            dir: self.dir.clone(),
            log: self.dir.with_extension("log"),
            port: self.port.unwrap_or_default(),
            follows: None,
            durable: true,
            detached: true,
        }
    }
}

fn status_of(number: usize, shard: &Path, role: &str) -> ServerStatus {
    let dir = shard.join(role);
    let process = PidFile::running(&dir);
    ServerStatus {
        name: format!("shard{number} {role}"),
        pid: process.as_ref().map(|p| p.pid),
        port: process.as_ref().and_then(|p| p.port),
        ready: process.is_some_and(|p| p.ready),
        standby: is_standby(&dir),
        dir,
    }
}

fn is_standby(dir: &Path) -> bool {
    dir.join("standby.signal").is_file()
}

/// The directory as an absolute path that the servers' user can reach.
async fn home(dir: &Path) -> Result<PathBuf, LocalError> {
    let dir = std::path::absolute(dir).map_err(LocalError::io("find", dir))?;
    Ok(Account::of_process().await?.home_for(&dir).await)
}

fn existing_major(dir: &Path) -> Option<u32> {
    data::version_of(&dir.join("shard1").join("primary"))?.parse().ok()
}

fn wrong_version(error: LocalError, wanted: Option<u32>, dir: &Path) -> LocalError {
    match (error, wanted) {
        (LocalError::NoBinaries { install: None, .. }, Some(major)) => {
            LocalError::WrongVersion { dir: dir.to_owned(), version: major.to_string() }
        }
        (error, _) => error,
    }
}

/// Makes the directory ours and takes its lock, wipes it if that was asked for, and checks the ports.
async fn prepare(options: &Options, machine: &Machine, specs: &[[Spec; 2]]) -> Result<File, LocalError> {
    let Options { dir, fresh, .. } = options;
    let ours = dir.join(MARKER).is_file();
    let empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none());
    if !ours && !empty {
        return Err(LocalError::NotOurs(dir.clone()));
    }
    // Before anything is wiped or made: a taken port must leave all as it was.
    let mut needed = options.also.clone();
    for spec in specs.iter().flatten() {
        let runs = if *fresh {
            PidFile::running(&spec.dir).is_some_and(|p| p.port == Some(spec.port))
        } else {
            Server::adopt(machine, spec)?.is_some()
        };
        if !runs {
            needed.push((spec.port, format!("the {}", spec.name)));
        }
    }
    check_free(&needed)?;
    machine.account.make_dir(dir)?;
    machine
        .account
        .write(&dir.join(MARKER), "Made by pgherd; `pgherd demo --fresh` wipes this directory.\n")?;
    let lock = lock(dir).await?;
    if *fresh {
        wipe(dir, machine).await?;
    }
    Ok(lock)
}

async fn wipe(dir: &Path, machine: &Machine) -> Result<(), LocalError> {
    let mut running = Vec::new();
    for status in Cluster::found(dir)?.iter().filter(|server| server.pid.is_some()) {
        running.extend(Server::adopt(machine, &status.spec())?);
    }
    for server in running {
        server.stop(Stop::Immediate).await?;
    }
    for n in 1.. {
        let shard = dir.join(format!("shard{n}"));
        if !shard.is_dir() {
            break;
        }
        data::remove(&shard)?;
    }
    Ok(())
}

/// Takes the directory's lock, waiting a moment: a child between fork and exec can hold it on for a while.
async fn lock(dir: &Path) -> Result<File, LocalError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(LocalError::io("create", &path))?;
    let deadline = Instant::now() + LOCK;
    let mut ticks = interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {}
            Err(TryLockError::WouldBlock) => return Err(LocalError::Locked(dir.to_owned())),
            Err(TryLockError::Error(e)) => return Err(LocalError::io("lock", &path)(e)),
        }
    }
}

/// Makes a shard's data directories where they are missing. A replica is a copy of its primary before that first
/// ran; if only the replica is missing later, the primary must not run while it is copied.
async fn make_shard(machine: &Machine, [primary, replica]: &[Spec; 2]) -> Result<(), LocalError> {
    if let Some(shard) = primary.dir.parent() {
        machine.account.make_dir(shard)?;
    }
    if data::version_of(&primary.dir).is_none() {
        data::remove(&replica.dir)?; // a replica of a primary that is gone
        data::create(machine, &primary.dir, 1, true).await?;
    }
    if data::version_of(&replica.dir).is_some() {
        return Ok(());
    }
    if let Some(running) = Server::adopt(machine, primary)? {
        running.stop(Stop::Fast).await?;
    }
    data::copy(machine, &primary.dir, &replica.dir, CopyAs::Replica).await
}

async fn start(machine: &Machine, spec: Spec) -> Result<Server, LocalError> {
    match Server::adopt(machine, &spec)? {
        Some(running) => running.wait_ready().await,
        None => Server::start(machine, spec).await,
    }
}

async fn stop_all(servers: Vec<Server>) -> Result<(), LocalError> {
    let is_replica = |server: &Server| is_standby(&server.spec().dir);
    let (replicas, primaries): (Vec<_>, Vec<_>) = servers.into_iter().partition(is_replica);
    try_join_all(primaries.into_iter().map(|server| server.stop(Stop::Fast))).await?;
    try_join_all(replicas.into_iter().map(|server| server.stop(Stop::Fast))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_alternate_between_primaries_and_replicas() {
        let options =
            Options { dir: "/d".into(), port_base: 5432, shards: 3, fresh: false, also: Vec::new() };
        let specs: Vec<Spec> = options.specs().unwrap().into_iter().flatten().collect();
        let got: Vec<_> =
            specs.iter().map(|s| (s.name.as_str(), s.port, s.follows.as_ref().map(|f| f.port))).collect();
        let want = [
            ("shard1 primary", 5432, None),
            ("shard1 replica", 5433, Some(5432)),
            ("shard2 primary", 5434, None),
            ("shard2 replica", 5435, Some(5434)),
            ("shard3 primary", 5436, None),
            ("shard3 replica", 5437, Some(5436)),
        ];
        assert_eq!(got, want);
        assert!(Options { port_base: 65_530, ..options }.specs().is_err());
    }

    #[tokio::test]
    async fn a_directory_that_is_not_ours_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("precious"), "x").unwrap();
        let options =
            Options { dir: dir.path().join(""), port_base: 1, shards: 0, fresh: true, also: Vec::new() };
        let Ok(machine) = Machine::find(None).await else { return };
        let error = prepare(&options, &machine, &[]).await.unwrap_err();
        assert!(matches!(error, LocalError::NotOurs(_)), "{error}");
        assert!(dir.path().join("precious").exists());
        assert!(matches!(Cluster::status(dir.path()).await, Err(LocalError::NotOurs(_))));
    }
}
