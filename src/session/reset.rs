//! RESET and DISCARD ALL, and an operator's command: what needs a turn of its own but no client's statement on a server.
//! Must not know messages.

use tokio::time::Instant;

use super::client::{Client, Flow, Kept, Place};
use crate::config::PoolMode;
use crate::shard::ShardId;
use crate::wire::BackendWriter;

impl Client {
    /// RESET and DISCARD ALL: back to what the client logged in with.
    pub(super) async fn reset(&mut self, what: ResetWhat) -> Flow {
        let default = match &self.place {
            Place::Database { served, .. } => served.cluster.config().map.default_shard,
            Place::Admin => ShardId(0),
        };
        let (vars, tag) = match &what {
            ResetWhat::One(name) => (self.vars.reset(Some(name)), "RESET"),
            ResetWhat::Default(name) => (self.vars.reset(Some(name)), "SET"),
            ResetWhat::All => (self.vars.reset(None), "RESET"),
            ResetWhat::Discard => {
                self.statements.clear();
                self.portals.clear();
                for kept in self.kept.drain(..) {
                    kept.leased.scrub_and_return();
                }
                self.hear_nothing();
                self.stats.set_pin(None);
                (self.vars.discarded(), "DISCARD ALL")
            }
        };
        let changed = vars.settings != self.vars.settings;
        let before = std::mem::replace(&mut self.vars, vars);
        let mut reported = Vec::new();
        if changed {
            if self.join(default, self.read_need(default)).await == Flow::End {
                return Flow::End;
            }
            let Some(mut server) = self.server.take() else {
                self.vars = before; // refused by join, which has told the client
                return Flow::Continue;
            };
            reported.extend(server.parameters.clone());
            self.cancel.clear().await;
            match self.pool_mode() {
                PoolMode::Session => {
                    self.kept.push(Kept { leased: server, pins: std::mem::take(&mut self.turn.new_pins) });
                }
                PoolMode::Transaction => {
                    server.mark_clean(Instant::now());
                    drop(server);
                }
            }
        }
        self.complete_local(|out| {
            for (name, value) in &reported {
                if name != "in_hot_standby" {
                    out.put_parameter_status(name, value);
                }
            }
            out.put_command_complete(tag);
        });
        self.flush().await
    }

    pub(super) async fn command(&mut self, words: Vec<String>) -> Flow {
        let answer = self.proxy.clone().command(&words).await;
        match answer {
            Ok(tag) => self.complete_local(|out| out.put_command_complete(&tag)),
            Err(report) => self.refuse(&report),
        }
        self.flush().await
    }
}

/// What RESET resets.
#[derive(Debug)]
pub(super) enum ResetWhat {
    /// One setting.
    One(String),
    /// SET … TO DEFAULT, which is another word for it.
    Default(String),
    /// RESET ALL.
    All,
    /// DISCARD ALL.
    Discard,
}
