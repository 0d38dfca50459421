//! A password that a client sends as such, over HTTP, against the verifiers that logins are checked with.
//! Must not know HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use secrecy::SecretString;

use super::{Door, Proxy};
use crate::config::User;
use crate::wire::{ErrorReport, SqlState};

/// Verified passwords that are remembered, as hashes under a key of this process.
pub(super) const REMEMBERED: usize = 1000;

/// Passwords that are checked at once: each takes a core for 0.5 ms.
pub(super) const AT_ONCE: usize = 2;

impl Door {
    /// The user, if this password was found right before. Takes about a microsecond.
    fn remembers(&self, digest: &[u8; 32]) -> Option<Arc<User>> {
        self.remembered.get(digest)
    }

    /// The user, if the password is right. Takes 0.5 ms of CPU, as long for names that do not exist.
    fn checks(&self, name: &str, password: &SecretString, is_local: bool) -> Option<Arc<User>> {
        let asked = self.ask(name, is_local, None);
        let Some(verifier) = asked.verifier else { return asked.user };
        let fits = verifier.fits(password);
        asked.user.filter(|_| fits)
    }
}

impl Proxy {
    /// The user of that name, if this is its password. What was found right is remembered until the next reload.
    /// `peer`: users without a password are let in from loopback addresses only.
    ///
    /// # Errors
    /// 28P01, in the same words whether there is such a user or not.
    pub async fn check_password(
        &self,
        name: &str,
        password: SecretString,
        peer: IpAddr,
    ) -> Result<Arc<User>, ErrorReport> {
        let door = self.door();
        let digest = door.digest(name, &password);
        if let Some(user) = door.remembers(&digest) {
            return Ok(user);
        }
        let place = door.checking.clone().acquire_owned().await;
        let (asked, is_local) = (name.to_owned(), peer.to_canonical().is_loopback());
        let there = door.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let _place = place;
            there.checks(&asked, &password, is_local)
        });
        if let Ok(Some(user)) = checked.await {
            if !matches!(user.auth, crate::config::UserAuth::Trust) {
                door.remembered.insert(digest, user.clone());
            }
            return Ok(user);
        }
        let message = format!("password authentication failed for user \"{name}\"");
        let report = ErrorReport::fatal(SqlState::INVALID_PASSWORD, message);
        tracing::info!(%peer, user = %name, "a password sent over HTTP was refused");
        self.record(&report, name, "");
        Err(report)
    }

    /// The user of that name, for whoever proved in another way to be it.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<Arc<User>> {
        self.door().user(name)
    }
}
