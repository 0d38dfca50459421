//! One PostgreSQL server: starts it, waits until it answers, stops it.
//! Must not know shards. A server started here is stopped when dropped, unless it is released.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::conf::{HBA, postgresql_conf};
use super::process::{PidFile, remove_if_stale};
use super::{LocalError, Machine, Spec, account};

/// Longest wait for a server to accept connections; recovery after a crash is part of it.
const START: Duration = Duration::from_secs(60);
/// Longest wait for a server to end.
const STOP: Duration = Duration::from_secs(30);
/// How often the pid file is looked at: what `pg_ctl -w` does ten times a second.
const POLL: Duration = Duration::from_millis(10);

/// How a server is stopped. Source: PostgreSQL docs, "Shutting Down the Server".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Rolls back what is open, writes a checkpoint.
    Fast,
    /// As a crash: recovery at the next start.
    Immediate,
}

impl Stop {
    fn mode(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    machine: Machine,
    spec: Spec,
    /// The process, if it was started here and is not released.
    child: Option<Child>,
}

impl Server {
    /// Starts a server on an existing data directory and waits until it accepts connections.
    ///
    /// # Errors
    /// [`LocalError::Died`] and [`LocalError::TimedOut`] with the tail of its log; [`LocalError::Io`]. It is then
    /// stopped again.
    pub async fn start(machine: &Machine, spec: Spec) -> Result<Self, LocalError> {
        let server = Self::spawn(machine, spec)?;
        server.wait_ready().await
    }

    /// The server that already runs on `spec.dir`, if one does.
    ///
    /// # Errors
    /// [`LocalError::RunsElsewhere`] if it does on another port.
    pub fn adopt(machine: &Machine, spec: &Spec) -> Result<Option<Self>, LocalError> {
        match PidFile::running(&spec.dir) {
            None => Ok(None),
            Some(PidFile { port: Some(port), .. }) if port != spec.port => {
                Err(LocalError::RunsElsewhere { name: spec.name.clone(), port, wanted: spec.port })
            }
            Some(_) => Ok(Some(Self { machine: machine.clone(), spec: spec.clone(), child: None })),
        }
    }

    /// How it runs.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether it was started by this process and is stopped when dropped.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.child.is_some()
    }

    /// Lets it run on after this process.
    pub fn release(mut self) {
        self.child = None;
    }

    /// Stops it and waits for its end; a fast stop that takes too long becomes an immediate one.
    ///
    /// # Errors
    /// [`LocalError::TimedOut`], [`LocalError::Program`].
    pub async fn stop(mut self, how: Stop) -> Result<(), LocalError> {
        if self.has_ended() {
            self.child = None;
            return Ok(());
        }
        self.signal(how).await?;
        let ended = self.wait_ended().await;
        if ended.is_err() && how == Stop::Fast {
            self.signal(Stop::Immediate).await?;
            self.wait_ended().await?;
        } else {
            ended?;
        }
        self.child = None;
        Ok(())
    }

    fn spawn(machine: &Machine, spec: Spec) -> Result<Self, LocalError> {
        use std::os::unix::process::CommandExt;
        let account = &machine.account;
        account.write(&spec.dir.join("postgresql.conf"), &postgresql_conf(&spec))?;
        account.write(&spec.dir.join("pg_hba.conf"), HBA)?;
        remove_if_stale(&spec.dir);
        let log = OpenOptions::new().create(true).append(true).open(&spec.log);
        let log = log.map_err(LocalError::io("open", &spec.log))?;
        account.own(&spec.log)?;
        let mut command = account.command(machine.binaries.program("postgres"));
        command.arg("-D").arg(&spec.dir);
        let again = log.try_clone().map_err(LocalError::io("open", &spec.log))?;
        command.stdout(log).stderr(again);
        if spec.detached {
            command.process_group(0);
        }
        let child = command.spawn().map_err(LocalError::io("run", machine.binaries.program("postgres")))?;
        Ok(Self { machine: machine.clone(), spec, child: Some(child) })
    }

    pub(super) async fn wait_ready(mut self) -> Result<Self, LocalError> {
        let deadline = Instant::now() + START;
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            let pid = self.child.as_ref().map(Child::id);
            if PidFile::read(&self.spec.dir)
                .is_some_and(|file| file.ready && pid.is_none_or(|pid| pid == file.pid))
            {
                return Ok(self);
            }
            if self.has_ended() {
                let Spec { name, port, .. } = self.spec.clone();
                return Err(LocalError::Died { name, port, log: self.log_tail() });
            }
            if Instant::now() > deadline {
                return Err(self.timed_out("accept connections", START));
            }
        }
    }

    async fn wait_ended(&mut self) -> Result<(), LocalError> {
        let deadline = Instant::now() + STOP;
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            if self.has_ended() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.timed_out("stop", STOP));
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => PidFile::running(&self.spec.dir).is_none(),
        }
    }

    async fn signal(&self, how: Stop) -> Result<(), LocalError> {
        let dir = self.spec.dir.display().to_string();
        let args = ["stop", "-W", "-m", how.mode(), "-D", dir.as_str()];
        let sent = self.machine.account.run(&self.machine.binaries.program("pg_ctl"), &args).await;
        // It may have ended by itself in between: then there is no pid file to find.
        if PidFile::running(&self.spec.dir).is_none() { Ok(()) } else { sent.map(drop) }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        log_tail(&self.spec.log)
    }

    fn timed_out(&self, what: &'static str, limit: Duration) -> LocalError {
        let Spec { name, port, .. } = self.spec.clone();
        LocalError::TimedOut { name, port, what, seconds: limit.as_secs(), log: self.log_tail() }
    }
}

impl Drop for Server {
    /// Stops an owned server without a checkpoint and waits for its end, so that its directory can go after it.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        let mut command = self.machine.account.command(self.machine.binaries.program("pg_ctl"));
        command.args(["stop", "-W", "-s", "-m", Stop::Immediate.mode(), "-D"]).arg(&self.spec.dir);
        let asked = command.status().is_ok_and(|status| status.success());
        if !asked {
            let _ = child.kill(); // it has no pid file yet
        }
        let _ = child.wait();
    }
}

/// The last lines of a log file; empty if there is none.
fn log_tail(path: &Path) -> String {
    std::fs::read(path).map(|bytes| account::tail(&bytes, 15)).unwrap_or_default()
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
