//! A session takes over a configuration that has changed since it last looked.
//! Must not know how the change came into force.

use std::sync::Arc;

use super::cancels::{REFRESH, STALE};
use super::client::{Client, Flow, Place};
use super::txn::Txn;
use crate::cluster::ClusterError;
use crate::config::PoolMode;
use crate::wire::{ClientFacing, ErrorReport, SqlState};

impl Client {
    /// Timeouts and limits hold at once; servers that changed, when no transaction is open. A server that is kept for
    /// the client's sake stays.
    ///
    /// # Errors
    /// The client's last words: its database is no longer configured.
    pub(super) fn refresh(&mut self) -> Result<(), ErrorReport> {
        self.cancel.done(REFRESH | STALE);
        self.config = self.proxy.config();
        if self.server.is_some() || matches!(self.txn, Txn::Open(_)) {
            self.cancel.ask(STALE);
            return Ok(());
        }
        self.go_over()?;
        self.tune();
        Ok(())
    }

    /// What of the configuration the exchange with servers depends on.
    fn tune(&mut self) {
        self.x.finishes.measure(self.config.statistics);
        if self.kept.is_empty() {
            let all = self.pool_mode() == PoolMode::Session;
            self.x.pass_notifications(all.then_some(self.cancel.id));
        }
    }

    /// Whether there were others to go over to.
    pub(super) fn go_over(&mut self) -> Result<bool, ErrorReport> {
        // A user that is gone, or has another password, stays who it is until it leaves, as with PostgreSQL.
        if let Some(user) = self.proxy.door.load().user(&self.user.name) {
            self.user = user;
        }
        let Place::Database { served, pools } = &mut self.place else { return Ok(false) };
        let gone = |name: &str| {
            ErrorReport::fatal(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            )
            .with_detail(format!("Database \"{name}\" is no longer configured."))
        };
        let name = self.stats.info().database.clone();
        let now = match self.proxy.serve_database(&name) {
            Ok(Some(now)) => now,
            Ok(None) => return Err(gone(&name)),
            Err(error) => return Err(ErrorReport::fatal(SqlState::INTERNAL_ERROR, error.to_string())),
        };
        let other = !Arc::ptr_eq(served, &now);
        if other {
            self.router = None;
        }
        *pools = now.cluster.pools_of(&self.user, self.standing.pass.as_ref());
        *served = now;
        Ok(other)
    }

    /// The servers that were asked for have been replaced: the message at hand is thought over again.
    pub(super) fn replan(&mut self) -> Flow {
        match self.go_over() {
            Ok(true) => self.turn.stash = None,
            Ok(false) => self.refuse(&ClusterError::Retired.report()),
            Err(report) => {
                self.refuse(&ErrorReport { severity: crate::wire::Severity::Error, ..report });
            }
        }
        Flow::Continue
    }
}
