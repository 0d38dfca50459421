//! What an operator orders on database `pgherd`: RELOAD, PAUSE, KILL and their like.
//! Must not know how an answer is sent.

use std::sync::Arc;
use std::time::Duration;

use super::proxy::Proxy;
use super::served::Served;
use crate::cluster::{Cluster, Drained};
use crate::wire::{ErrorReport, Severity, SqlState};

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commanded {
    /// The command tag.
    pub tag: &'static str,
    /// What else is worth telling.
    pub notices: Vec<ErrorReport>,
}

impl From<&'static str> for Commanded {
    fn from(tag: &'static str) -> Self {
        Self { tag, notices: Vec::new() }
    }
}

/// A name in a command: `words` come in upper case unless they were quoted.
type Named = (String, Arc<Served>);

impl Proxy {
    /// Carries out a command, its words in upper case, names as they were quoted. Cancel safe: a pause that is waited
    /// for is then taken back.
    ///
    /// # Errors
    /// What to tell the operator.
    pub async fn command(&self, words: &[String]) -> Result<Commanded, ErrorReport> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["RELOAD"] => self.reload_command().await,
            ["PAUSE"] => self.pause(&self.all_served()).await,
            ["PAUSE", name] => self.pause(&[self.named(name)?]).await,
            ["RESUME"] => resume(&self.all_served(), "no database is paused"),
            ["RESUME", "SERVER", address] => self.drain(address, false),
            ["RESUME", name] => {
                let named = self.named(name)?;
                let not_paused = format!("database \"{}\" is not paused", named.0);
                resume(&[named], &not_paused)
            }
            ["RECONNECT"] => {
                self.all_served().iter().for_each(|(_, served)| served.cluster.reconnect());
                Ok("RECONNECT".into())
            }
            ["RECONNECT", name] => {
                self.named(name)?.1.cluster.reconnect();
                Ok("RECONNECT".into())
            }
            ["DRAIN", "SERVER", address] | ["DRAIN", address] => self.drain(address, true),
            ["KILL", id] if id.bytes().all(|b| b.is_ascii_digit()) => self.kill_client(id),
            ["KILL", name] => self.kill_database(self.named(name)?),
            ["RESET", "STATEMENTS"] => {
                self.stats().reset_statements();
                Ok("RESET".into())
            }
            ["SHUTDOWN"] => {
                self.begin_shutdown();
                Ok("SHUTDOWN".into())
            }
            ["SHUTDOWN", "IMMEDIATE"] => {
                self.stop_now();
                Ok("SHUTDOWN".into())
            }
            other => Err(ErrorReport::error(
                SqlState::SYNTAX_ERROR,
                format!("command {} is not known in this form", other.join(" ")),
            )
            .with_hint("SHOW HELP lists the commands.")),
        }
    }

    async fn reload_command(&self) -> Result<Commanded, ErrorReport> {
        let done = self.reload().await?;
        let notice = |severity, text: &String| {
            let mut report = ErrorReport::error(SqlState::SUCCESSFUL_COMPLETION, text.clone());
            report.severity = severity;
            report
        };
        let changed = done.applied.iter().map(|what| format!("changed: {what}"));
        let changed: Vec<_> = changed.map(|text| notice(Severity::Notice, &text)).collect();
        let mut notices = if changed.is_empty() {
            vec![notice(Severity::Notice, &"nothing to change; the catalogs were read again".to_owned())]
        } else {
            changed
        };
        notices.extend(done.restart.iter().chain(&done.warnings).map(|text| notice(Severity::Warning, text)));
        Ok(Commanded { tag: "RELOAD", notices })
    }

    fn all_served(&self) -> Vec<Named> {
        self.served.lock().iter().map(|(name, served)| (name.clone(), served.clone())).collect()
    }

    /// The database of that name: as an unquoted name folds, or in any case if that is unambiguous.
    fn named(&self, name: &str) -> Result<Named, ErrorReport> {
        let all = self.all_served();
        let exact = |wanted: &str| all.iter().find(|(n, _)| n == wanted).cloned();
        if let Some(found) = exact(&name.to_lowercase()).or_else(|| exact(name)) {
            return Ok(found);
        }
        let mut alike = all.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some(found), None) => Ok(found.clone()),
            _ => {
                let mut names: Vec<_> = all.iter().map(|(n, _)| n.as_str()).collect();
                names.sort_unstable();
                let message = format!("database \"{}\" does not exist", name.to_lowercase());
                Err(ErrorReport::error(SqlState::INVALID_CATALOG_NAME, message).with_hint(format!(
                    "Databases are: {}. Put other names than these in quotes.",
                    names.join(", ")
                )))
            }
        }
    }

    async fn pause(&self, databases: &[Named]) -> Result<Commanded, ErrorReport> {
        let limit = self.config().timeouts.drain;
        let mut pauses: Vec<_> = databases.iter().map(|(_, served)| Pause::begin(&served.cluster)).collect();
        let quiet = databases.iter().map(|(_, served)| served.cluster.quiet());
        if tokio::time::timeout(limit, futures_util::future::join_all(quiet)).await.is_err() {
            return Err(still_in_use(databases, limit));
        }
        pauses.iter_mut().for_each(Pause::keep);
        Ok("PAUSE".into())
    }

    fn drain(&self, address: &str, out: bool) -> Result<Commanded, ErrorReport> {
        let found: Vec<_> =
            self.all_served().iter().map(|(_, s)| s.cluster.drain_server(address, out)).collect();
        let tag = if out { "DRAIN" } else { "RESUME" };
        if found.contains(&Drained::Primary) {
            let message = format!("server {address} is the primary of its shard");
            return Err(ErrorReport::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message)
                .with_hint("Only a replica can be taken out of the reads. PAUSE holds a whole database."));
        }
        if found.iter().all(|f| *f == Drained::NoSuchServer) {
            let message = format!("there is no server {address}");
            return Err(ErrorReport::error(SqlState::UNDEFINED_OBJECT, message).with_hint(
                "Write host and port in quotes, as SHOW SERVERS lists them: DRAIN SERVER 'db2:5432'.",
            ));
        }
        if !found.contains(&Drained::Yes) {
            let state = if out { "already drained" } else { "not drained" };
            let message = format!("server {address} is {state}");
            return Err(ErrorReport::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, message));
        }
        Ok(tag.into())
    }

    fn kill_client(&self, id: &str) -> Result<Commanded, ErrorReport> {
        if id.parse().is_ok_and(|id| self.cancels().kill(id)) {
            return Ok("KILL".into());
        }
        Err(ErrorReport::error(SqlState::UNDEFINED_OBJECT, format!("there is no client {id}"))
            .with_hint("SHOW CLIENTS lists them by id."))
    }

    /// Its clients go at once, its connections are closed, and it is paused: new clients wait for RESUME.
    fn kill_database(&self, (name, served): Named) -> Result<Commanded, ErrorReport> {
        served.cluster.pause();
        for session in self.stats().sessions().iter().filter(|s| s.info.database == name) {
            self.cancels().kill(session.info.id);
        }
        Ok("KILL".into())
    }
}

fn resume(databases: &[Named], not_paused: &str) -> Result<Commanded, ErrorReport> {
    let resumed = databases.iter().filter(|(_, served)| served.cluster.resume()).count();
    if resumed > 0 {
        return Ok("RESUME".into());
    }
    Err(ErrorReport::error(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, not_paused))
}

fn still_in_use(databases: &[Named], limit: Duration) -> ErrorReport {
    let in_use: Vec<String> = databases
        .iter()
        .map(|(name, served)| (name, served.cluster.in_use()))
        .filter(|(_, in_use)| *in_use > 0)
        .map(|(name, in_use)| format!("{in_use} of database \"{name}\""))
        .collect();
    let message = format!(
        "server connections were still in use after {} ms (timeouts.drain_ms); the pause was taken back",
        limit.as_millis()
    );
    ErrorReport::error(SqlState::OBJECT_IN_USE, message)
        .with_detail(format!("In use: {}.", in_use.join(", ")))
        .with_hint("SHOW CLIENTS tells who is in a transaction, or pinned to a server.")
}

/// A pause that is taken back unless it is kept.
pub(super) struct Pause<'a> {
    cluster: &'a Cluster,
    /// Not if it was paused before.
    take_back: bool,
}

impl<'a> Pause<'a> {
    pub(super) fn begin(cluster: &'a Cluster) -> Self {
        Self { cluster, take_back: cluster.pause() }
    }

    fn keep(&mut self) {
        self.take_back = false;
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        if self.take_back {
            self.cluster.resume();
        }
    }
}
