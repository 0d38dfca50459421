//! `pg_terminate_backend()` and `pg_cancel_backend()` of the process id that a client was told at its login: where server
//! connections are shared it is the session's own number, which no server knows.
//! Must not know how such a call is written.

use super::cancels::FIRST_OWN;
use super::client::Client;
use super::feed::Step;
use crate::route::{Param, Route, Statement};

impl Client {
    /// Does to another session what a statement wants done, if it is one of the proxy's and may be meant. The route is
    /// then that of a text which says so. `Some`: what was sent before is to be answered first.
    pub(super) fn signal(
        &mut self,
        (statement, text): (&Statement, &[u8]),
        params: &[Param<'_>],
        route: &mut Route,
    ) -> Option<Step> {
        if !route.asks.process {
            return None;
        }
        let signal = statement.signal(text, params, &self.vars.env)?;
        if signal.process < FIRST_OWN || !self.may_signal(signal.process) {
            return None; // a server's own process, or none
        }
        if let Some(step) = self.settle_first() {
            return Some(step); // if that fails, this does not happen
        }
        let (cancels, id) = (self.proxy.cancels(), signal.process);
        let there = if signal.ends { cancels.kill(id) } else { cancels.cancel(id) };
        if there {
            route.rewrite = Some(signal.instead);
        }
        None
    }

    /// Sessions of one's own user in one's own database; a superuser all that are in it.
    fn may_signal(&self, id: u32) -> bool {
        let own = self.stats.info();
        let superuser = self.reported.get("is_superuser").is_some_and(|value| value == "on");
        self.proxy.stats().sessions().iter().any(|other| {
            other.info.id == id
                && other.info.database == own.database
                && (superuser || other.info.user == own.user)
        })
    }
}
