//! Data directories: made with initdb, copied for replicas, and kept as a template for tests.
//! Must not know running servers: all here is done while none is running.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::account::tail;
use super::conf::{HBA, first_sql, postgresql_conf, slot_name};
use super::{LocalError, MAX_REPLICAS, Machine, Spec};

/// What a copy of a data directory becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyAs {
    /// A primary with slots for so many replicas.
    Primary(usize),
    /// A replica of the original, or of another copy of it.
    Replica,
}

/// The major version a data directory was made by; `None` if it is none.
pub(super) fn version_of(dir: &Path) -> Option<String> {
    std::fs::read_to_string(dir.join("PG_VERSION")).ok().map(|text| text.trim().to_owned())
}

/// Makes a data directory with its roles, database and slots for so many replicas. It is there whole or not at all.
///
/// # Errors
/// [`LocalError::Program`], [`LocalError::Io`].
pub(super) async fn create(
    machine: &Machine,
    dir: &Path,
    replicas: usize,
    durable: bool,
) -> Result<(), LocalError> {
    let unfinished = beside(dir, "new");
    remove(&unfinished)?;
    let path = unfinished.display().to_string();
    // C.UTF-8 sorts by code point, which the proxy can reproduce; macOS has no such locale.
    let locale = if cfg!(target_os = "linux") { "--locale=C.UTF-8" } else { "--locale=C" };
    let mut args = vec!["-D", &path, "-U", super::SUPERUSER, "--encoding=UTF8", locale, "--auth=trust"];
    if !durable {
        args.extend(["--no-sync", "--wal-segsize=1"]); // little to copy
    }
    machine.account.run(&machine.binaries.program("initdb"), &args).await?;
    let spec = Spec {
        name: "new".into(),
        dir: unfinished.clone(),
        log: PathBuf::new(),
        port: 1, // nothing listens in single-user mode
        follows: None,
        durable,
        detached: false,
    };
    machine.account.write(&unfinished.join("postgresql.conf"), &postgresql_conf(&spec))?;
    machine.account.write(&unfinished.join("pg_hba.conf"), HBA)?;
    run_single(machine, &unfinished, &first_sql(replicas)).await?;
    std::fs::rename(&unfinished, dir).map_err(LocalError::io("create", dir))
}

/// Runs statements in single-user mode, one a line: no port, no password, no waiting.
async fn run_single(machine: &Machine, dir: &Path, sql: &str) -> Result<(), LocalError> {
    let program = machine.binaries.program("postgres");
    let mut command = Command::from(machine.account.command(&program));
    command.arg("--single").arg("-D").arg(dir).arg("postgres");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(LocalError::io("run", &program))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(sql.as_bytes()).await.map_err(LocalError::io("write to", &program))?;
    }
    let out = child.wait_with_output().await.map_err(LocalError::io("run", &program))?;
    let said = String::from_utf8_lossy(&out.stderr);
    // It goes on after an error and ends with 0.
    if out.status.success() && !said.contains("ERROR:") {
        return Ok(());
    }
    Err(LocalError::Program {
        program: format!("{} --single", program.display()),
        output: tail(&out.stderr, 10),
    })
}

/// Copies the data directory of a server that was shut down. It is there whole or not at all.
///
/// A replica made so streams from any server that started from the same state: system identifier and WAL agree.
///
/// # Errors
/// [`LocalError::Program`], [`LocalError::Io`].
pub(super) async fn copy(machine: &Machine, from: &Path, to: &Path, what: CopyAs) -> Result<(), LocalError> {
    let unfinished = beside(to, "new");
    remove(&unfinished)?;
    copy_tree(machine, from, &unfinished).await?;
    let kept = match what {
        CopyAs::Primary(replicas) => replicas,
        CopyAs::Replica => 0,
    };
    for number in kept + 1..=MAX_REPLICAS {
        remove(&unfinished.join("pg_replslot").join(slot_name(number)))?; // an unused slot would keep WAL for ever
    }
    if what == CopyAs::Replica {
        machine.account.write(&unfinished.join("standby.signal"), "")?;
    }
    std::fs::rename(&unfinished, to).map_err(LocalError::io("create", to))
}

async fn copy_tree(machine: &Machine, from: &Path, to: &Path) -> Result<(), LocalError> {
    let (from, to) = (from.display().to_string(), to.display().to_string());
    let cp = Path::new("cp");
    if machine.account.run(cp, &["-a", "--reflink=auto", &from, &to]).await.is_ok() {
        return Ok(());
    }
    remove(Path::new(&to))?; // a cp that knows no --reflink: busybox, BSD
    machine.account.run(cp, &["-Rp", &from, &to]).await.map(drop)
}

/// A data directory that is made once per machine, version and user, and copied for each test.
#[derive(Debug, Clone)]
pub struct Template {
    machine: Machine,
    dir: PathBuf,
}

impl Template {
    /// Finds or makes it under the temporary directory; others who want it meanwhile wait.
    ///
    /// # Errors
    /// As the making of a data directory.
    pub async fn get(machine: &Machine) -> Result<Self, LocalError> {
        let account = &machine.account;
        let base = account.home_for(&std::env::temp_dir()).await;
        let dir = base.join(format!("pgherd-template-{}-{:016x}", account.name(), key(machine)));
        if !dir.exists() {
            account.make_dir(&dir)?;
        }
        if !account.owns_dir(&dir) {
            return Err(LocalError::NotOurs(dir)); // the name can be guessed: trust no one else's directory
        }
        let _lock = lock(dir.join("lock")).await?;
        let data = dir.join("data");
        if version_of(&data).is_none() {
            create(machine, &data, MAX_REPLICAS, false).await?;
        }
        Ok(Self { machine: machine.clone(), dir: data })
    }

    /// Copies it to `to`, as a primary for so many replicas (at most [`MAX_REPLICAS`]).
    ///
    /// # Errors
    /// [`LocalError::Program`], [`LocalError::Io`].
    pub async fn copy_primary(&self, to: &Path, replicas: usize) -> Result<(), LocalError> {
        copy(&self.machine, &self.dir, to, CopyAs::Primary(replicas)).await
    }

    /// Copies it to `to`, as a replica of any primary copied from it.
    ///
    /// # Errors
    /// [`LocalError::Program`], [`LocalError::Io`].
    pub async fn copy_replica(&self, to: &Path) -> Result<(), LocalError> {
        copy(&self.machine, &self.dir, to, CopyAs::Replica).await
    }
}

/// Changes with everything the template is made of.
fn key(machine: &Machine) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&machine.binaries, first_sql(MAX_REPLICAS), "1").hash(&mut hasher);
    hasher.finish()
}

/// Waits for an exclusive lock on a file, without holding up the runtime.
async fn lock(path: PathBuf) -> Result<File, LocalError> {
    let task = tokio::task::spawn_blocking(move || {
        let file = File::create(&path).map_err(LocalError::io("create", &path))?;
        file.lock().map_err(LocalError::io("lock", &path))?;
        Ok(file)
    });
    task.await.map_err(|e| LocalError::io("lock", "the template")(std::io::Error::other(e)))?
}

/// `/a/b` and `new` is `/a/b.new`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a directory with all in it; that there is none is fine.
pub(super) fn remove(dir: &Path) -> Result<(), LocalError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(LocalError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}
