//! RESET and DISCARD ALL go back to what the client logged in with; and an operator's command.
//! Must not know messages.

use super::cancels::GivenUp;
use super::client::{Client, Flow};
use super::join::{cancelled, unless_gone};
use crate::route::Kind;
use crate::wire::BackendWriter;

impl Client {
    /// What RESET and SET … TO DEFAULT have to be on a server that does not know the client's startup parameters, and
    /// the command tag that the client is to see. `None`: what they are.
    pub(super) fn back_to_login(&self, kind: &Kind) -> Option<(String, &'static str)> {
        let settings = &self.vars.settings;
        if let Kind::Reset(name) = kind {
            return Some((settings.to_login(name.as_deref(), false)?, "RESET"));
        }
        let Kind::Set(set) = kind else { return None };
        let default =
            set.values.is_empty().then(|| settings.to_login(Some(&set.name), set.local)).flatten()?;
        Some((default, "SET"))
    }

    /// DISCARD ALL: the session is as after its login.
    pub(super) async fn discard_all(&mut self) -> Flow {
        let default = self.default_shard();
        let vars = self.vars.discarded();
        let changed = vars.settings != self.vars.settings;
        let before = std::mem::replace(&mut self.vars, vars);
        // When the client has its answer, what others wait for is free: its locks.
        for kept in std::mem::take(&mut self.kept) {
            kept.release_now().await;
        }
        self.hear_nothing();
        self.tell_pins();
        if changed {
            // A server with these settings says which parameters are others now.
            if self.join(default, self.read_need(default)).await == Flow::End {
                return Flow::End;
            }
            let Some(server) = self.server.take() else {
                self.vars = before; // refused by join, which has told the client
                return Flow::Continue;
            };
            self.cancel.clear().await;
            self.give_back(server);
            self.turn.saved = None;
        }
        self.statements.clear();
        self.portals.clear();
        self.complete_local(|out| out.put_command_complete("DISCARD ALL"));
        self.flush().await
    }

    pub(super) async fn command(&mut self, words: Vec<String>) -> Flow {
        let proxy = self.proxy.clone();
        let command = unless_gone(&self.stream, proxy.command(&words));
        match self.cancel.unless_cancelled(command).await {
            Ok(Some(Ok(done))) => self.complete_local(|out| {
                done.notices.iter().for_each(|notice| out.put_report(notice));
                out.put_command_complete(done.tag);
            }),
            Ok(Some(Err(report))) => self.refuse(&report),
            Ok(None) => return Flow::End,
            Err(GivenUp) => self.refuse(&cancelled()),
        }
        self.flush().await
    }
}
