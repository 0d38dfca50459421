//! Finds PostgreSQL's server programs where Debian, RPM, Alpine, Homebrew and PATH have them.
//! Must not know how to install them, nor who runs them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::LocalError;

/// The versions of PostgreSQL that pgherd works with, by major number.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

/// Where PATH does not reach: a parent, and what comes after its subdirectories of any name.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
];

/// A directory with `initdb`, `postgres` and `pg_ctl` of one version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Binaries {
    /// The directory.
    pub dir: PathBuf,
    /// The major version, e.g. 15.
    pub major: u32,
    /// The full version, e.g. `15.18`.
    pub version: String,
}

impl Binaries {
    /// A program's path.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Every usable set on this machine, the one to prefer first: `PGHERD_PG_BIN`, PATH, then the newest version.
    pub async fn find_all() -> Vec<Self> {
        let mut found = Vec::new();
        for dir in candidates().await {
            if let Some(set) = Self::in_dir(&dir).await
                && !found.contains(&set)
            {
                found.push(set);
            }
        }
        found
    }

    /// The set to use: the one of major version `wanted`, or the preferred one.
    ///
    /// # Errors
    /// [`LocalError::NoBinaries`], without a command to install them.
    pub async fn find(wanted: Option<u32>) -> Result<Self, LocalError> {
        let fits = |set: &Self| wanted.is_none_or(|major| set.major == major);
        Self::find_all().await.into_iter().find(fits).ok_or_else(|| LocalError::NoBinaries {
            searched: "PATH, /usr/lib/postgresql, /usr/pgsql-*, /usr/libexec, Homebrew, pg_config".into(),
            install: None,
        })
    }

    async fn in_dir(dir: &Path) -> Option<Self> {
        if !["initdb", "postgres", "pg_ctl"].iter().all(|name| dir.join(name).is_file()) {
            return None;
        }
        let out = Command::new(dir.join("postgres")).arg("--version").output().await.ok()?;
        let (major, version) = parse_version(&String::from_utf8_lossy(&out.stdout))?;
        SUPPORTED.contains(&major).then(|| Self { dir: dir.to_owned(), major, version })
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian …)`: major and full version. Betas (`18beta1`) count as their version.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

async fn candidates() -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = std::env::var_os("PGHERD_PG_BIN").map(PathBuf::from).into_iter().collect();
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let mut elsewhere: Vec<PathBuf> =
        ELSEWHERE.iter().flat_map(|(parent, prefix, below)| subdirs(parent, prefix, below)).collect();
    elsewhere.sort_by_key(|dir| std::cmp::Reverse(number_in(dir)));
    dirs.extend(elsewhere);
    if let Ok(out) = Command::new("pg_config").arg("--bindir").output().await
        && out.status.success()
    {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()));
    }
    let mut seen = BTreeSet::new();
    dirs.into_iter().filter(|dir| dir.is_absolute() && seen.insert(dir.clone())).collect()
}

fn subdirs(parent: &str, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| if below.is_empty() { entry.path() } else { entry.path().join(below) })
        .collect()
}

/// The version number in a path such as `/usr/lib/postgresql/15/bin`; 0 if it has none.
fn number_in(dir: &Path) -> u32 {
    let text = dir.to_string_lossy();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).next_back().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_every_distribution_prints_them() {
        for (text, want) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", Some((15, "15.18"))),
            ("postgres (PostgreSQL) 13.0\n", Some((13, "13.0"))),
            ("postgres (PostgreSQL) 18beta1", Some((18, "18beta1"))),
            ("postgres (PostgreSQL)", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), want.map(|(m, v)| (m, v.to_owned())), "{text}");
        }
    }

    #[test]
    fn newer_directories_come_first() {
        let mut dirs =
            ["/usr/lib/postgresql/9.6/bin", "/usr/pgsql-17/bin", "/usr/lib/postgresql/15/bin", "/x"]
                .map(PathBuf::from);
        dirs.sort_by_key(|dir| std::cmp::Reverse(number_in(dir)));
        let order: Vec<u32> = dirs.iter().map(|dir| number_in(dir)).collect();
        assert_eq!(order, [17, 15, 6, 0]);
    }
}
