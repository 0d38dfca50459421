//! LISTEN and UNLISTEN of one client: what it hears, what a transaction will change of that, and when it is told.
//! Must not know connections; the hub of its database listens for it.
//!
//! As in PostgreSQL, LISTEN takes effect at commit. The hub listens already before COMMIT is sent, so that nothing
//! committed after it is missed; what came too early is forgotten if the transaction fails.

use std::sync::Arc;
use std::task::Context;

use bytes::BytesMut;

use super::client::{Client, Flow, Place};
use super::feed::Step;
use super::txn::Txn;
use crate::exec::{Ended, Hub, Inbox};
use crate::route::{Access, Kind, Route, RouteError, Statement};
use crate::shard::ShardId;
use crate::wire::{BackendWriter, ClientFacing, ErrorReport, SqlState};

/// One statement of a transaction that has not been committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Intent {
    /// LISTEN channel.
    Listen(Arc<str>),
    /// UNLISTEN channel, `None` for all.
    Unlisten(Option<Arc<str>>),
    /// A savepoint of that name: what follows can be taken back.
    Savepoint(Box<str>),
}

/// The intents of a transaction.
#[derive(Debug, Default)]
pub(super) struct Intents {
    list: Vec<Intent>,
    /// The hub already listens to what they add.
    ahead: bool,
}

impl Intents {
    pub(super) fn push(&mut self, intent: Intent) {
        self.ahead &= matches!(intent, Intent::Savepoint(_));
        self.list.push(intent);
    }

    /// ROLLBACK TO.
    pub(super) fn roll_back_to(&mut self, savepoint: &str) {
        if let Some(at) = self.savepoint(savepoint) {
            self.list.truncate(at + 1);
            self.ahead = false;
        }
    }

    /// RELEASE: it and later ones are gone, what they had stays.
    pub(super) fn release(&mut self, savepoint: &str) {
        if let Some(at) = self.savepoint(savepoint) {
            let mut index = 0;
            self.list.retain(|intent| {
                index += 1;
                index <= at || !matches!(intent, Intent::Savepoint(_))
            });
        }
    }

    fn savepoint(&self, name: &str) -> Option<usize> {
        self.list.iter().rposition(|i| matches!(i, Intent::Savepoint(n) if **n == *name))
    }

    /// Whether they change anything.
    pub(super) fn is_any(&self) -> bool {
        self.list.iter().any(|i| !matches!(i, Intent::Savepoint(_)))
    }

    /// The channels that are heard once they have taken effect.
    fn applied_to(&self, heard: &[Arc<str>]) -> Vec<Arc<str>> {
        let mut heard = heard.to_vec();
        for intent in &self.list {
            match intent {
                Intent::Listen(channel) if !heard.contains(channel) => heard.push(channel.clone()),
                Intent::Unlisten(Some(channel)) => heard.retain(|c| c != channel),
                Intent::Unlisten(None) => heard.clear(),
                Intent::Listen(_) | Intent::Savepoint(_) => {}
            }
        }
        heard
    }
}

/// What a client hears. It exists from the first LISTEN on, and while one who hears nothing notifies others.
#[derive(Debug)]
pub(super) struct Ears {
    hub: Arc<Hub>,
    inbox: Arc<Inbox>,
    /// In the order of LISTEN.
    channels: Vec<Arc<str>>,
    /// Heard already for a transaction that has not been committed.
    ahead: Vec<Arc<str>>,
    /// The server process whose notifications are this client's own.
    claimed: Option<(ShardId, u32)>,
    /// Made for a claim alone: they go with it.
    passing: bool,
}

impl Ears {
    fn unlisten(&self, channel: &str) {
        self.hub.unlisten(&self.inbox, channel);
    }

    /// Before only these channels are left: what was notified before is still heard.
    async fn hear_out(&self, wanted: &[Arc<str>]) {
        if self.channels.iter().any(|c| !wanted.contains(c)) {
            self.hub.all_caught_up().await;
        }
    }

    fn unclaim(&mut self) {
        if let Some((shard, pid)) = self.claimed.take() {
            self.hub.unclaim(shard, pid);
        }
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.unclaim();
        for channel in self.channels.iter().chain(&self.ahead) {
            self.unlisten(channel);
        }
    }
}

/// What LISTEN or UNLISTEN intends.
pub(super) fn intent_of(kind: &Kind) -> Option<Intent> {
    if let Kind::Listen(channel) = kind {
        return Some(Intent::Listen(channel.as_str().into()));
    }
    let Kind::Unlisten(channel) = kind else { return None };
    Some(Intent::Unlisten(channel.as_deref().map(Into::into)))
}

/// The intents of a text of several statements if it has nothing else.
pub(super) fn intents_of(statements: &[Statement]) -> Option<Vec<Intent>> {
    statements.iter().map(|statement| intent_of(statement.kind())).collect()
}

/// CommandComplete of each.
pub(super) fn put_tags(intents: &[Intent], out: &mut BytesMut) {
    for intent in intents {
        out.put_command_complete(match intent {
            Intent::Listen(_) => "LISTEN",
            Intent::Unlisten(_) | Intent::Savepoint(_) => "UNLISTEN",
        });
    }
}

impl Client {
    /// Of the transaction, or outside one of the batch.
    pub(super) fn intents(&mut self) -> &mut Intents {
        match &mut self.txn {
            Txn::None => &mut self.turn.intents,
            Txn::Held(held) => &mut held.intents,
            Txn::Open(open) => &mut open.intents,
        }
    }

    /// Whether the hub must listen before what is at hand is committed.
    pub(super) fn must_hear_ahead(&mut self) -> bool {
        let intents = self.intents();
        !intents.ahead && intents.is_any()
    }

    fn ears(&mut self) -> Option<&mut Box<Ears>> {
        if self.ears.is_none()
            && let Place::Database { served, .. } = &self.place
        {
            self.ears = Some(Box::new(Ears {
                hub: served.hub.clone(),
                inbox: Inbox::new(self.cancel.id, self.config.limits.max_notify),
                channels: Vec::new(),
                ahead: Vec::new(),
                claimed: None,
                passing: false,
            }));
            self.x.hold_ready(true);
        }
        let ears = self.ears.as_mut()?;
        ears.passing = false;
        Some(ears)
    }

    /// The hub listens to what will be heard after the commit.
    async fn listen_ahead(&mut self) -> Result<(), ErrorReport> {
        self.drop_ahead();
        let intents = std::mem::take(self.intents());
        let Some(ears) = self.ears() else { return Ok(()) };
        let wanted = intents.applied_to(&ears.channels);
        let mut heard = Ok(());
        for channel in wanted.iter().filter(|c| !ears.channels.contains(c)) {
            heard = ears.hub.listen(&ears.inbox, channel).await;
            if heard.is_err() {
                break;
            }
            ears.ahead.push(channel.clone());
        }
        if heard.is_ok() {
            ears.hear_out(&wanted).await;
        }
        *self.intents() = Intents { ahead: heard.is_ok(), ..intents };
        heard.map_err(|error| {
            self.drop_ahead();
            error.report()
        })
    }

    /// Before COMMIT, or before the Sync of a batch.
    pub(super) async fn hear_ahead(&mut self) -> Flow {
        if let Err(report) = self.listen_ahead().await {
            *self.intents() = Intents::default();
            self.refuse(&report);
        }
        Flow::Continue
    }

    /// The channels that the hub must listen to before a text of several statements is sent.
    pub(super) fn channels_ahead_of(&mut self, statements: &[Statement]) -> Vec<Arc<str>> {
        if statements.len() < 2 || !self.hears_by_hub() {
            return Vec::new();
        }
        let mut wanted: Vec<Arc<str>> = Vec::new();
        if statements.iter().any(|s| matches!(s.kind(), Kind::Commit { .. })) && self.intents().is_any() {
            wanted = self.intents().applied_to(&[]);
        }
        wanted.extend(statements.iter().filter_map(|s| match intent_of(s.kind())? {
            Intent::Listen(channel) => Some(channel),
            Intent::Unlisten(_) | Intent::Savepoint(_) => None,
        }));
        wanted.retain(|c| self.ears.as_ref().is_none_or(|e| !e.channels.contains(c) && !e.ahead.contains(c)));
        wanted
    }

    /// Before a text of several statements is sent.
    pub(super) async fn hear_also(&mut self, channels: Vec<Arc<str>>) -> Flow {
        let Some(ears) = self.ears() else { return Flow::Continue };
        for channel in channels {
            if let Err(error) = ears.hub.listen(&ears.inbox, &channel).await {
                self.intents_dropped();
                self.refuse(&error.report());
                break;
            }
            if !ears.ahead.contains(&channel) {
                ears.ahead.push(channel);
            }
        }
        Flow::Continue
    }

    /// PREPARE TRANSACTION of one that listens fails: the server that would say so knows nothing of it.
    pub(super) fn may_be_prepared(&mut self, statements: &[Statement]) -> Result<(), RouteError> {
        if !statements.iter().any(|s| matches!(s.kind(), Kind::TwoPhase)) || !self.hears_by_hub() {
            return Ok(());
        }
        let mut hears = !self.txn.is_none() && self.intents().is_any();
        for statement in statements {
            hears |= intent_of(statement.kind()).is_some();
            if hears && matches!(statement.kind(), Kind::TwoPhase) {
                return Err(RouteError::Sql {
                    code: SqlState::FEATURE_NOT_SUPPORTED,
                    message: "cannot PREPARE a transaction that has executed LISTEN, UNLISTEN, or NOTIFY"
                        .into(),
                    detail: None,
                    hint: None,
                });
            }
        }
        Ok(())
    }

    /// What a server runs, in a text of several, where the client listens: its own session never does, so UNLISTEN
    /// changes nothing there. And the tag to be shown.
    pub(super) fn unheard(&self, kind: &Kind) -> Option<(String, &'static str)> {
        let listens = matches!(kind, Kind::Listen(_)) && self.hears_by_hub();
        listens.then(|| ("UNLISTEN *".to_owned(), "LISTEN"))
    }

    /// A statement of a text of several has completed on the server.
    pub(super) fn hear_completed(&mut self, kind: &Kind) {
        if self.hears_by_hub()
            && let Some(intent) = intent_of(kind)
        {
            self.intents().push(intent);
        }
    }

    /// LISTEN and UNLISTEN by themselves.
    pub(super) async fn hear(&mut self, list: Vec<Intent>) -> Flow {
        let tags = list.clone();
        for intent in list {
            self.intents().push(intent);
        }
        match self.listen_ahead().await {
            Ok(()) => {
                self.intents_committed();
                self.complete_local(|out| put_tags(&tags, out));
            }
            Err(report) => {
                *self.intents() = Intents::default();
                self.refuse(&report);
            }
        }
        Flow::Continue
    }

    /// Before UNLISTEN takes effect that was among other statements of one query.
    pub(super) async fn hear_out(&mut self) {
        let intents = std::mem::take(self.intents());
        if let Some(ears) = &self.ears {
            ears.hear_out(&intents.applied_to(&ears.channels)).await;
        }
        *self.intents() = intents;
    }

    /// The transaction they belong to has been committed.
    pub(super) fn intents_committed(&mut self) {
        let intents = std::mem::take(self.intents());
        if !intents.is_any() {
            return;
        }
        let Some(ears) = self.ears.as_mut() else { return };
        let now = intents.applied_to(&ears.channels);
        let before = std::mem::replace(&mut ears.channels, now);
        let ahead = std::mem::take(&mut ears.ahead);
        for channel in before.iter().chain(&ahead) {
            if !ears.channels.contains(channel) {
                ears.unlisten(channel);
            }
        }
    }

    /// The transaction they belong to has failed or was rolled back.
    pub(super) fn intents_dropped(&mut self) {
        *self.intents() = Intents::default();
        self.drop_ahead();
    }

    pub(super) fn drop_ahead(&mut self) {
        let Some(ears) = self.ears.as_mut() else { return };
        for channel in std::mem::take(&mut ears.ahead) {
            ears.unlisten(&channel);
            ears.inbox.forget(&channel);
        }
    }

    /// DISCARD ALL.
    pub(super) fn hear_nothing(&mut self) {
        if let Some(ears) = self.ears.take() {
            for channel in &ears.channels {
                ears.inbox.forget(channel);
            }
        }
        self.x.hold_ready(false);
    }

    /// What has been heard goes to the client, who is outside a transaction. `Some`: the session ends with this.
    pub(super) fn tell(&mut self, cx: Option<&Context<'_>>) -> Option<ErrorReport> {
        if let Some(report) = self.ending.take() {
            return Some(*report);
        }
        let ears = self.ears.as_ref()?;
        if self.x.is_unsent() {
            return ears.inbox.ended(cx).map(farewell);
        }
        let mut out = BytesMut::new();
        let taken = ears.inbox.take(cx, &mut out);
        if !out.is_empty() {
            self.x.say(out.freeze());
        }
        taken.err().map(farewell)
    }

    /// Before a client that listens may notify somebody, or another client says that it does: whose this server's
    /// notifications are must be known. What code of a client that does not listen notifies bears its server's number.
    pub(super) fn must_claim(&self, route: &Route) -> Option<Step> {
        let server = self.server.as_ref()?;
        if route.access != Access::Write || server.is_replica() {
            return None;
        }
        let must = match (&self.ears, &self.place) {
            (Some(ears), _) => ears.claimed != Some((server.server().shard, server.pid)),
            (None, Place::Database { served, .. }) => {
                route.asks.notifies && self.hears_by_hub() && served.hub.is_heard()
            }
            (None, _) => false,
        };
        must.then_some(Step::Claim)
    }

    pub(super) async fn claim(&mut self) -> Flow {
        if self.ears.is_none()
            && let Some(ears) = self.ears()
        {
            ears.passing = true;
        }
        if let (Some(ears), Some(server)) = (&mut self.ears, &self.server) {
            let (shard, pid) = (server.server().shard, server.pid);
            ears.unclaim();
            ears.hub.claim(shard, pid, self.cancel.id).await;
            ears.claimed = Some((shard, pid));
        }
        Flow::Continue
    }

    /// A transaction that wrote is over: its own notifications come before its ReadyForQuery.
    pub(super) async fn hear_own(&mut self, shard: ShardId) {
        if let Some(ears) = &mut self.ears {
            ears.hub.caught_up(shard).await;
        }
    }

    /// The server goes back, or is lost.
    pub(super) fn unclaim(&mut self) {
        if let Some(ears) = &mut self.ears {
            ears.unclaim();
            if ears.passing && ears.channels.is_empty() && ears.ahead.is_empty() {
                self.ears = None;
            }
        }
    }

    /// `pg_listening_channels()` on a server tells of that server's session; it is right if nothing is heard.
    pub(super) fn may_ask_for_channels(&self) -> Result<(), RouteError> {
        if self.ears.as_ref().is_none_or(|ears| ears.channels.is_empty()) {
            return Ok(());
        }
        Err(RouteError::Refused {
            what: "pg_listening_channels() in transaction pooling, while the session listens".into(),
            hint: "The session hears what it has said LISTEN for; mode = \"session\" for the database answers it.".into(),
        })
    }
}

fn farewell(why: Ended) -> ErrorReport {
    match why {
        Ended::Lost(what) => ErrorReport::fatal(
            SqlState::ADMIN_SHUTDOWN,
            "terminating connection: notifications may have been lost",
        )
        .with_detail(format!("The listening connection to {what}."))
        .with_hint("Connect and LISTEN again, then look at what may have changed meanwhile."),
        Ended::Full(limit) => ErrorReport::fatal(
            SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            format!("terminating connection: more than {limit} bytes of notifications wait for it"),
        )
        .with_hint("Read notifications sooner, or raise proxy.max_notify_bytes."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(channels: &[Arc<str>]) -> Vec<&str> {
        channels.iter().map(|c| &**c).collect()
    }

    #[test]
    fn intents_take_effect_in_order_and_savepoints_take_them_back() {
        let listen = |name: &str| Intent::Listen(name.into());
        let mut intents = Intents::default();
        intents.push(listen("a"));
        intents.push(Intent::Savepoint("s".into()));
        intents.push(listen("b"));
        intents.push(Intent::Savepoint("t".into()));
        intents.push(listen("c"));
        intents.roll_back_to("t");
        assert_eq!(names(&intents.applied_to(&["x".into()])), ["x", "a", "b"]);
        intents.release("s");
        intents.roll_back_to("t"); // gone with s: nothing happens
        assert_eq!(names(&intents.applied_to(&[])), ["a", "b"]);
        intents.push(Intent::Unlisten(Some("a".into())));
        intents.push(listen("b"));
        assert_eq!(names(&intents.applied_to(&[])), ["b"]);
        intents.push(Intent::Unlisten(None));
        assert!(intents.is_any() && intents.applied_to(&["x".into()]).is_empty());
    }
}
