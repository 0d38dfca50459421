//! The operating system user that servers run as: oneself, or another user when oneself is root.
//! Must not know what is run. Drops rights by setuid in the child: no su, runuser or setpriv is needed.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::LocalError;

/// Variables that would change what PostgreSQL's programs do.
const FOREIGN: &[&str] = &[
    "PGDATA",
    "PGPORT",
    "PGHOST",
    "PGUSER",
    "PGDATABASE",
    "PGOPTIONS",
    "PGPASSWORD",
    "PGSERVICE",
    "PGSSLMODE",
];

/// Who runs the servers and owns their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: u32,
    gid: u32,
    /// Whether it is someone else than this process, which is root then.
    is_other: bool,
}

impl Account {
    /// Oneself; as root an existing `postgres`, else a system user `pgherd`, made if need be.
    ///
    /// # Errors
    /// [`LocalError::NoAccount`] if this is root and no user can be found or made.
    pub async fn of_process() -> Result<Self, LocalError> {
        let unknown = || LocalError::NoAccount("`id` does not say who runs this".into());
        if !is_root().await {
            let name = id(&["-un"]).await.ok_or_else(unknown)?;
            return Self::named(&name).await.map(|own| Self { is_other: false, ..own }).ok_or_else(unknown);
        }
        for candidate in ["postgres", "pgherd"] {
            if let Some(account) = Self::named(candidate).await {
                return Ok(account);
            }
        }
        create("pgherd").await?;
        let made = Self::named("pgherd").await;
        made.ok_or_else(|| LocalError::NoAccount("user pgherd was made but cannot be looked up".into()))
    }

    async fn named(name: &str) -> Option<Self> {
        let uid = id(&["-u", name]).await?.parse().ok().filter(|uid| *uid != 0)?;
        let gid = id(&["-g", name]).await?.parse().ok()?;
        Some(Self { name: name.to_owned(), uid, gid, is_other: true })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is someone else than this process.
    #[must_use]
    pub fn is_other(&self) -> bool {
        self.is_other
    }

    /// Whether a path is a real directory (no link) of this user's.
    pub(super) fn owns_dir(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == self.uid)
    }

    /// A command that runs as this user, in `/`, with a clean PostgreSQL environment.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> std::process::Command {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(program.as_ref());
        command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null());
        for name in FOREIGN {
            command.env_remove(name);
        }
        if self.is_other {
            command.uid(self.uid).gid(self.gid); // also drops root's supplementary groups
        }
        command
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// [`LocalError::Program`] with the end of what it printed, if it fails.
    pub(super) async fn run(&self, program: &Path, args: &[&str]) -> Result<String, LocalError> {
        let mut command = Command::from(self.command(program));
        command.args(args).kill_on_drop(true);
        let out = command.output().await.map_err(LocalError::io("run", program))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        let text = [out.stdout, out.stderr].concat();
        Err(LocalError::Program { program: program.display().to_string(), output: tail(&text, 10) })
    }

    /// Makes a directory and its parents, owned by this user and closed to others.
    ///
    /// # Errors
    /// [`LocalError::Io`].
    pub(super) fn make_dir(&self, dir: &Path) -> Result<(), LocalError> {
        use std::os::unix::fs::DirBuilderExt;
        if dir.is_dir() {
            return self.own(dir);
        }
        if let Some(parent) = dir.parent() {
            std::fs::create_dir_all(parent).map_err(LocalError::io("create", parent))?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(dir).map_err(LocalError::io("create", dir))?;
        self.own(dir)
    }

    /// Gives a file or directory to this user.
    ///
    /// # Errors
    /// [`LocalError::Io`].
    pub(super) fn own(&self, path: &Path) -> Result<(), LocalError> {
        if !self.is_other {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid)).map_err(LocalError::io("chown", path))
    }

    /// Writes a file owned by this user.
    ///
    /// # Errors
    /// [`LocalError::Io`].
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<(), LocalError> {
        std::fs::write(path, text).map_err(LocalError::io("write", path))?;
        self.own(path)
    }

    /// Whether this user can get to the nearest existing ancestor of a path.
    pub(super) async fn reaches(&self, path: &Path) -> bool {
        let Some(existing) = path.ancestors().find(|dir| dir.is_dir()) else { return false };
        let existing = existing.display().to_string();
        !self.is_other || self.run(Path::new("test"), &["-x", &existing]).await.is_ok()
    }

    /// Where to keep a directory this user must reach: `wanted` itself, else one of its own under `/var/lib`.
    ///
    /// The substitute is the same for the same `wanted`, so that a later call finds it again.
    pub async fn home_for(&self, wanted: &Path) -> PathBuf {
        if self.reaches(wanted).await {
            return wanted.to_owned();
        }
        Path::new("/var/lib/pgherd").join(substitute_name(wanted))
    }
}

/// `/root/my app/.pgherd` is `root-my_app-.pgherd`.
fn substitute_name(wanted: &Path) -> String {
    let text = wanted.to_string_lossy();
    let keep = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    text.trim_matches('/')
        .split('/')
        .map(|part| part.chars().map(keep).collect::<String>())
        .collect::<Vec<_>>()
        .join("-")
}

/// Whether this process is root.
pub(super) async fn is_root() -> bool {
    id(&["-u"]).await.as_deref() == Some("0")
}

async fn id(args: &[&str]) -> Option<String> {
    let out = Command::new("id").args(args).stdin(Stdio::null()).output().await.ok()?;
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

async fn create(name: &str) -> Result<(), LocalError> {
    let ways: [&[&str]; 2] =
        [&["useradd", "--system", "--user-group", name], &["adduser", "-S", "-D", "-H", name]];
    let mut said = String::new();
    for way in ways {
        let [program, args @ ..] = way else { continue };
        match Command::new(program).args(args).stdin(Stdio::null()).output().await {
            Ok(out) if out.status.success() => return Ok(()),
            Ok(out) => said = tail(&out.stderr, 2),
            Err(e) => said = format!("{program}: {e}"),
        }
    }
    Err(LocalError::NoAccount(said))
}

/// The last lines of a program's output.
pub(super) fn tail(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_substitute_directory_has_a_name_that_says_whose_it_is() {
        assert_eq!(substitute_name(Path::new("/root/my app/.pgherd")), "root-my_app-.pgherd");
        assert_eq!(substitute_name(Path::new("/root/.pgherd")), "root-.pgherd");
    }

    #[test]
    fn a_tail_is_the_last_lines() {
        assert_eq!(tail(b"a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail(b"", 2), "");
    }

    #[tokio::test]
    async fn what_runs_for_servers_never_runs_as_root() {
        let account = Account::of_process().await.unwrap();
        let who = account.run(Path::new("id"), &["-u"]).await.unwrap();
        assert_ne!(who.trim(), "0");
    }
}
