//! The process a data directory's postmaster.pid names: whether it is there, and how far its start is.
//! Must not know how a server is started. A pid file can be stale and its number taken by another process.

use std::path::Path;

/// What postmaster.pid says. Source: PostgreSQL's `pidfile.h`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PidFile {
    /// The postmaster's process id.
    pub(super) pid: u32,
    /// The port; `None` while it starts.
    pub(super) port: Option<u16>,
    /// Whether it accepts connections.
    pub(super) ready: bool,
}

impl PidFile {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let pid = lines.next()?.trim().trim_start_matches('-').parse().ok()?; // negative: single-user mode
        let port = lines.nth(2).and_then(|line| line.trim().parse().ok());
        let ready = lines.nth(3).is_some_and(|line| line.trim() == "ready");
        Some(Self { pid, port, ready })
    }

    /// The file as it is; `None` if there is none or it is half written.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(dir.join("postmaster.pid")).ok()?)
    }

    /// The file, if the process it names is this directory's server.
    pub(super) fn running(dir: &Path) -> Option<Self> {
        Self::read(dir).filter(|file| is_server_of(file.pid, dir))
    }
}

/// Removes a pid file whose number now belongs to another process: PostgreSQL would refuse to start.
pub(super) fn remove_if_stale(dir: &Path) {
    if PidFile::read(dir).is_some_and(|file| !is_server_of(file.pid, dir)) {
        let _ = std::fs::remove_file(dir.join("postmaster.pid"));
    }
}

/// A postmaster's working directory is its data directory.
#[cfg(target_os = "linux")]
fn is_server_of(pid: u32, dir: &Path) -> bool {
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
    cwd.is_ok_and(|cwd| dir.canonicalize().is_ok_and(|dir| cwd == dir))
}

/// Without /proc a process called postgres is taken for this directory's: refusing to start is safer than two.
#[cfg(not(target_os = "linux"))]
fn is_server_of(pid: u32, _dir: &Path) -> bool {
    let ps = std::process::Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
    ps.is_ok_and(|out| {
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        !text.trim_start().starts_with('Z') && text.contains("postgres")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_read_at_every_stage_of_a_start() {
        for (text, want) in [
            ("", None),
            ("x\n", None),
            ("12\n/d\n1700000000\n", Some((12, None, false))),
            ("12\n/d\n1700000000\n5432\n\n127.0.0.1\n", Some((12, Some(5432), false))),
            ("12\n/d\n1700000000\n5432\n\n127.0.0.1\n  7 8\nstarting\n", Some((12, Some(5432), false))),
            ("12\n/d\n1700000000\n5432\n\n127.0.0.1\n  7 8\nready   \n", Some((12, Some(5432), true))),
        ] {
            let want = want.map(|(pid, port, ready)| PidFile { pid, port, ready });
            assert_eq!(PidFile::parse(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_pid_that_another_process_has_now_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("postmaster.pid");
        std::fs::write(&file, format!("{}\n/d\n1\n5432\n", std::process::id())).unwrap();
        assert_eq!(PidFile::running(dir.path()), None);
        remove_if_stale(dir.path());
        assert!(!file.exists());
    }
}
