//! This machine's PostgreSQL programs and the user that runs them, together.
//! Must not know data directories.

use super::install::Installer;
use super::{Account, Binaries, LocalError, account};

/// What is needed to run any server here.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The programs.
    pub binaries: Binaries,
    /// The user.
    pub account: Account,
}

impl Machine {
    /// Finds both; installs nothing. `wanted` is a major version that must be met, as for existing data.
    ///
    /// # Errors
    /// [`LocalError::NoBinaries`], [`LocalError::NoAccount`].
    pub async fn find(wanted: Option<u32>) -> Result<Self, LocalError> {
        Ok(Self { binaries: Binaries::find(wanted).await?, account: Account::of_process().await? })
    }

    /// Finds both, and installs PostgreSQL if there is none of any version and that may be done unasked.
    ///
    /// # Errors
    /// As [`Machine::find`], with the command that would install it; and [`LocalError::Install`].
    pub async fn find_or_install(wanted: Option<u32>, say: &dyn Fn(&str)) -> Result<Self, LocalError> {
        let error = match Self::find(wanted).await {
            Err(error @ LocalError::NoBinaries { .. }) => error,
            done => return done,
        };
        if wanted.is_some() && !Binaries::find_all().await.is_empty() {
            return Err(error); // another version is there: which to install is not ours to decide
        }
        let LocalError::NoBinaries { searched, .. } = error else { return Err(error) };
        match Installer::of_machine(account::is_root().await).await {
            Some(way) if way.allowed => {
                say(&format!("PostgreSQL is not on this machine: installing it with `{}`", way.command));
                way.run().await?;
                Self::find(wanted).await
            }
            way => Err(LocalError::NoBinaries { searched, install: way.map(|way| way.command) }),
        }
    }
}
