//! Sessions that have one server from login to end, where no table is placed: prepared statements have the client's own names there, so that SQL
//! and protocol share them as on any server, and what the proxy has not seen prepared the server may know. And what such a session need not
//! keep back until more has come, for it can go nowhere else.
//! Must not know how names are shared in transaction pooling.

use super::client::{Client, Kept, Place};
use super::extended::no_statement;
use super::feed::{Fed, Step};
use super::prepared::{ClientStatement, Portal, key_of};
use super::query::passed_on;
use super::txn::Txn;
use crate::exec::Expect;
use crate::route::{Access, Route, Statement};
use crate::wire::{BindView, ClientFacing as _, DescribeTarget, ErrorReport, FrontendWriter};

impl Client {
    /// Whether names of prepared statements are the server's as well. Where tables are placed, EXECUTE must not get past
    /// what fills in and checks their keys.
    pub(super) fn owns_names(&self) -> bool {
        let Place::Database { served, .. } = &self.place else { return false };
        self.is_of_one_server() && served.cluster.config().map.tables.is_empty()
    }

    /// Whether this statement is on the server by the client's own name. Its unnamed one is the server's in any case.
    pub(super) fn is_there_by_name(&self, statement: &ClientStatement) -> bool {
        !statement.name.is_empty() && self.owns_names()
    }

    /// The client's next message has not come yet: a Parse, a Describe or a BEGIN that waits for it need not, where nothing
    /// that follows can change where it goes. What a server counts from its first message on, as `statement_timeout` and
    /// `now()`, is then what it would count without the proxy.
    pub(super) fn go_ahead(&mut self) -> Option<Step> {
        if self.turn.deferred.is_empty() {
            return self.begin_ahead();
        }
        if !self.owns_names() {
            return None;
        }
        match self.place_deferred() {
            Ok(step) => step,
            Err(error) => {
                self.refuse_extended(&error.report());
                None
            }
        }
    }

    fn begin_ahead(&mut self) -> Option<Step> {
        let begun = matches!(&self.txn, Txn::Held(held) if !held.failed);
        if !begun || self.server.is_some() || !self.is_of_one_server() {
            return None;
        }
        // Nobody has asked for what could go wrong here: only if it joins as it is.
        let ready = |kept: &Kept| kept.leased.is_applied(self.settings_to_join(), self.wants_undrawn());
        if self.kept.first().is_some_and(ready) { self.lease_for(None, false) } else { None }
    }

    /// Bind of a name that the server may know from SQL.
    pub(super) fn bind_unknown(&mut self, view: &BindView<'_>) -> Result<Fed, ErrorReport> {
        let (statement, text) = match self.execution_of(view.statement) {
            Ok(found) => found,
            Err(fed) => return Ok(fed),
        };
        let Some(statement) = statement else { return Err(no_statement(view.statement)) };
        let route = anything();
        if let Some(step) = self.place(&route).map_err(|e| e.report())? {
            return Ok(Fed::Until(step));
        }
        self.emit_deferred(None);
        self.close_left_over(view.portal);
        self.x.up.put_bind(view.portal, view.statement, view.tail);
        self.x.expect(Expect::Bind);
        let note = self.note(&statement, Some(&route), true);
        let mark = self.note_statement((&statement, &text), &route, Vec::new());
        self.portals.insert(view.portal, Portal::Server { mark, note, fetched: false });
        Ok(Fed::Next)
    }

    /// What statistics count it as.
    fn execution_of(&mut self, name: &str) -> Result<(Option<Statement>, Vec<u8>), Fed> {
        let text = format!("EXECUTE \"{}\"", name.replace('"', "\"\"")).into_bytes();
        let router = self.router().map_err(Fed::Until)?;
        let parsed = router.prepare(&text, &self.vars.env).unwrap_or_default();
        Ok((parsed.into_iter().next(), text))
    }

    /// Describe or Close, as `tag` says, of a statement by the server's name.
    pub(super) fn pass_name(&mut self, tag: u8, name: &str) -> Fed {
        match self.place(&anything()) {
            Ok(None) => {}
            Ok(Some(step)) => return Fed::Until(step),
            Err(error) => {
                self.refuse_extended(&error.report());
                return Fed::Next;
            }
        }
        self.emit_deferred(None);
        self.x.up.put_target(tag, DescribeTarget::Statement(name));
        self.x.expect(if tag == b'C' {
            Expect::Close { forward: true, key: None }
        } else {
            // A key that no statement has: nothing is to be learnt.
            Expect::DescribeStatement { forward: true, key: key_of(name.as_bytes(), b"", 0) }
        });
        Fed::Next
    }
}

/// Whatever it does.
fn anything() -> Route {
    Route { access: Access::Write, ..passed_on() }
}
