//! Installs PostgreSQL's server programs with the machine's package manager, when that may be done unasked.
//! Must not know where the programs end up.

use std::process::Stdio;

use tokio::process::Command;

use super::LocalError;

/// Package managers in the order they are looked for, each with the shell command that installs the servers.
///
/// Debian's package would make and start a cluster on port 5432 at once, hence the line in `createcluster.d`.
const MANAGERS: &[(&str, &str)] = &[
    (
        "apt-get",
        "apt-get update -qq && apt-get install -y -qq postgresql-common && \
         mkdir -p /etc/postgresql-common/createcluster.d && \
         echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.d/pgherd.conf && \
         apt-get install -y -qq postgresql",
    ),
    ("dnf", "dnf install -y -q postgresql-server"),
    ("apk", "apk add --no-progress postgresql"),
    ("brew", "brew install --quiet postgresql@17"),
];

/// How the machine installs PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installer {
    /// The whole command, as a person would type it.
    pub(super) command: String,
    /// Whether it may be run without asking anyone for a password.
    pub(super) allowed: bool,
}

impl Installer {
    /// The way of this machine; `None` if it has no package manager known here.
    pub(super) async fn of_machine(is_root: bool) -> Option<Self> {
        let (manager, command) = MANAGERS.iter().find(|(name, _)| on_path(name))?;
        let sudo =
            !is_root && *manager != "brew" && on_path("sudo") && succeeds("sudo", &["-n", "true"]).await;
        Some(Self::choose(manager, command, is_root, sudo))
    }

    fn choose(manager: &str, command: &str, is_root: bool, sudo: bool) -> Self {
        let quoted = command.replace('\'', "'\\''");
        if manager == "brew" {
            return Self { command: command.to_owned(), allowed: !is_root }; // brew refuses root
        }
        if is_root {
            return Self { command: command.to_owned(), allowed: true };
        }
        Self { command: format!("sudo sh -c '{quoted}'"), allowed: sudo }
    }

    /// Runs it.
    ///
    /// # Errors
    /// [`LocalError::Install`] with the end of what it printed.
    pub(super) async fn run(&self) -> Result<(), LocalError> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &self.command]).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        let out = shell.kill_on_drop(true).output().await.map_err(LocalError::io("run", "sh"))?;
        if out.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&out.stderr);
        let tail: Vec<&str> = text.lines().rev().take(5).collect();
        let output = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        Err(LocalError::Install { command: self.command.clone(), output })
    }
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

async fn succeeds(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_that_would_ask_for_a_password() {
        for (manager, is_root, sudo, allowed) in [
            ("apt-get", true, false, true),
            ("apt-get", false, true, true),
            ("apt-get", false, false, false),
            ("brew", false, false, true),
            ("brew", true, false, false),
        ] {
            let got = Installer::choose(manager, "x 'y'", is_root, sudo);
            assert_eq!(got.allowed, allowed, "{manager} {is_root} {sudo}");
        }
    }

    #[test]
    fn the_printed_command_survives_a_shell() {
        let got = Installer::choose("apt-get", "echo 'a b' > f", false, true);
        assert_eq!(got.command, r"sudo sh -c 'echo '\''a b'\'' > f'");
    }
}
