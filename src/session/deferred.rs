//! Parse and Describe that wait until a server is chosen, and what servers hold prepared.
//! Must not do I/O.

use bytes::{Bytes, BytesMut};

use super::client::{Client, Deferred, Place};
use super::feed::Step;
use super::prepared::ClientStatement;
use crate::exec::Expect;
use crate::pool::StatementKey;
use crate::route::{Route, RouteError, Target};
use crate::shard::ShardId;
use crate::wire::{BackendWriter, DescribeTarget, FrontendWriter};

impl Client {
    /// Where Parse and Describe go that no Bind has given a direction: the shard whose tables they name.
    pub(super) fn place_deferred(&mut self) -> Result<Option<Step>, RouteError> {
        if self.turn.deferred.iter().all(|d| matches!(d, Deferred::Local(_))) {
            self.emit_deferred(None);
            return Ok(None);
        }
        if self.server.is_none() {
            let shard = self.home_of_deferred();
            if let Some(step) = self.lease_for(shard, true) {
                return Ok(Some(step));
            }
        }
        self.emit_deferred(None);
        Ok(None)
    }

    /// The shard that has the tables of the first waiting statement, if one has them all.
    pub(super) fn home_of_deferred(&self) -> Option<ShardId> {
        let Place::Database { served, .. } = &self.place else { return None };
        let router = served.router_now()?;
        self.turn.deferred.iter().find_map(|deferred| {
            let (Deferred::Parse(statement) | Deferred::Describe(statement)) = deferred else { return None };
            let parsed = statement.statement.as_ref()?;
            match parsed.route(&router, &statement.sql, &[], &self.vars.env) {
                Ok(Route { target: Target::Shard(shard), .. }) => Some(shard),
                // Without its values it may be refused, or spread: that is Bind's to say.
                Ok(_) | Err(_) => parsed.home(),
            }
        })
    }

    /// Puts waiting messages upstream. `rewritten`: the text that stands for a statement's own.
    pub(super) fn emit_deferred(&mut self, rewritten: Option<(&ClientStatement, &Bytes, StatementKey)>) {
        for deferred in std::mem::take(&mut self.turn.deferred) {
            match deferred {
                Deferred::Local(bytes) => self.x.say(bytes),
                Deferred::Parse(statement) => {
                    let (sql, key) = match rewritten {
                        Some((of, sql, key)) if std::ptr::eq(of, &*statement) => (sql, key),
                        _ => (&statement.sql, statement.key),
                    };
                    self.emit_parse(&statement.name, sql, &statement.types, key, true);
                }
                Deferred::Describe(statement) => {
                    let (sql, key) = match rewritten {
                        Some((of, sql, key)) if std::ptr::eq(of, &*statement) => (sql, key),
                        _ => (&statement.sql, statement.key),
                    };
                    self.ensure_prepared(&statement.name, sql, &statement.types, key);
                    let name = server_name(&statement.name, key);
                    self.x.up.put_target(b'D', DescribeTarget::Statement(&name));
                    self.x.expect(Expect::DescribeStatement);
                }
            }
        }
    }

    /// Makes sure that the server holds a statement, by a Parse of the proxy's own if need be.
    pub(super) fn ensure_prepared(
        &mut self,
        client_name: &str,
        sql: &Bytes,
        types: &Bytes,
        key: StatementKey,
    ) {
        let Some(server) = &mut self.server else { return };
        let held =
            if client_name.is_empty() { server.unnamed == Some(key) } else { server.prepared.touch(key) };
        if !held {
            self.emit_parse(client_name, sql, types, key, false);
        }
    }

    pub(super) fn emit_parse(
        &mut self,
        client_name: &str,
        sql: &Bytes,
        types: &Bytes,
        key: StatementKey,
        asked: bool,
    ) {
        let Some(server) = &mut self.server else { return };
        if client_name.is_empty() {
            server.unnamed = Some(key);
            self.x.up.put_parse("", sql, types);
            self.x.expect(Expect::Parse { forward: asked, key: None });
            return;
        }
        if server.prepared.touch(key) {
            if asked {
                let mut bytes = BytesMut::new();
                bytes.put_empty(b'1');
                self.x.say(bytes.freeze());
            }
            return;
        }
        if let Some(oldest) = server.prepared.insert(key) {
            self.x.up.put_target(b'C', DescribeTarget::Statement(&oldest.server_name()));
            self.x.expect(Expect::Close { forward: false });
        }
        self.x.up.put_parse(&key.server_name(), sql, types);
        self.x.expect(Expect::Parse { forward: asked, key: Some(key) });
    }
}

/// What a statement is called on a server.
pub(super) fn server_name(client_name: &str, key: StatementKey) -> String {
    if client_name.is_empty() { String::new() } else { key.server_name() }
}
