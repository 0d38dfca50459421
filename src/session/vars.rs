//! A session's settings and what of them matters to routing, changed together.
//! Must not know transactions. A value is never changed in place, so a savepoint costs nothing.

use std::sync::Arc;

use super::prepared::digest;
use crate::config::ReadConsistency;
use crate::pool::{Settings, is_of_analysis};
use crate::route::{Env, SetParameter, names_of_list};

/// The parameter that says what a session's reads may miss.
pub(super) const READ_CONSISTENCY: &str = "pgherd.read_consistency";

/// What a value of [`READ_CONSISTENCY`] means.
pub(super) fn consistency_of(value: &str) -> Option<ReadConsistency> {
    match value {
        "session" => Some(ReadConsistency::Session),
        "eventual" => Some(ReadConsistency::Eventual),
        "primary" => Some(ReadConsistency::Primary),
        _ => None,
    }
}

/// Settings and routing environment of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Vars {
    pub(super) settings: Arc<Settings>,
    pub(super) env: Env,
    /// `pgherd.read_consistency`, if the session has set it.
    pub(super) consistency: Option<ReadConsistency>,
    /// What `env` was at login, for RESET and DISCARD ALL.
    login: Arc<Env>,
    /// What `$user` in a search path stands for.
    user: Arc<str>,
    /// What SET LOCAL has changed of the settings that constants depend on.
    locals: u64,
    /// A hash of the settings that a statement's constants depend on when it is analysed.
    pub(super) constants: u64,
    /// The same with the search path.
    pub(super) analysis: u64,
}

impl Vars {
    /// Those of a client that has just logged in; parameters named `pgherd.…` are the proxy's own.
    pub(super) fn of_startup(parameters: &[(String, String)], admin_database: bool) -> Arc<Self> {
        let mut env = Env { admin_database, ..Env::default() };
        let mut servers = Vec::new();
        for (name, value) in parameters {
            let name = name.to_lowercase();
            let values = if name == "search_path" { names_of_list(value) } else { vec![value.clone()] };
            note(&mut env, &name, &values);
            if !name.starts_with("pgherd.") {
                servers.push((name, value.clone()));
            }
        }
        let consistency = parameters
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(READ_CONSISTENCY))
            .and_then(|(_, value)| consistency_of(value));
        let vars = Self {
            settings: Settings::of_startup(&servers),
            login: Arc::new(env.clone()),
            env,
            consistency,
            user: "".into(),
            locals: 0,
            constants: 0,
            analysis: 0,
        };
        vars.seal()
    }

    /// After every change.
    fn seal(mut self) -> Arc<Self> {
        self.constants = digest((self.settings.analysis(), self.locals));
        self.analysis = digest((self.constants, &self.env.search_path));
        Arc::new(self)
    }

    /// What a server said at login: the settings as all clients with equal ones share them, and the search path.
    pub(super) fn logged_in(&mut self, settings: Arc<Settings>, search_path: &[String], user: &str) {
        self.user = user.into();
        self.settings = settings;
        self.env.search_path = Some(search_path.to_vec());
        self.login = Arc::new(self.env.clone());
        *self = Arc::unwrap_or_clone(self.clone().seal());
    }

    /// After a SET that a server accepted, or one of the proxy's own.
    pub(super) fn with(&self, set: &SetParameter) -> Arc<Self> {
        let mut next = self.clone();
        if set.values.is_empty() {
            next.back_to_login(&set.name);
            next.settings = next.settings.without(&set.name);
        } else {
            note(&mut next.env, &set.name, &set.values);
            next.resolve_user();
        }
        if set.name == READ_CONSISTENCY {
            next.consistency = set.values.first().and_then(|v| consistency_of(v));
        }
        for (name, sql) in set.parts() {
            if !set.values.is_empty() && !name.starts_with("pgherd.") {
                next.settings = next.settings.with(&name, &sql);
            }
        }
        next.seal()
    }

    /// The same for SET LOCAL: routing follows, the settings to replay do not.
    pub(super) fn with_local(&self, set: &SetParameter) -> Arc<Self> {
        let mut next = (*self.with(set)).clone();
        next.settings = self.settings.clone();
        if is_of_analysis(&set.name) {
            next.locals = digest((self.locals, &set.sql));
        }
        next.seal()
    }

    /// After RESET; `None` is ALL.
    pub(super) fn reset(&self, name: Option<&str>) -> Arc<Self> {
        let mut next = self.clone();
        match name {
            Some(name) => {
                if name == READ_CONSISTENCY {
                    next.consistency = None;
                }
                next.back_to_login(name);
                next.settings = self.settings.without(name);
            }
            None => {
                next.consistency = None;
                next.env = (*self.login).clone();
                next.settings = self.settings.reset_all();
            }
        }
        next.seal()
    }

    /// After DISCARD ALL.
    pub(super) fn discarded(&self) -> Arc<Self> {
        let mut next = self.clone();
        next.consistency = None;
        next.env = (*self.login).clone();
        next.settings = self.settings.discarded();
        next.seal()
    }

    fn resolve_user(&mut self) {
        for schema in self.env.search_path.iter_mut().flatten().filter(|schema| *schema == "$user") {
            self.user.as_ref().clone_into(schema);
        }
    }

    fn back_to_login(&mut self, name: &str) {
        match name {
            "search_path" => self.env.search_path.clone_from(&self.login.search_path),
            "standard_conforming_strings" => self.env.nonstandard_strings = self.login.nonstandard_strings,
            "client_encoding" => self.env.foreign_encoding = self.login.foreign_encoding,
            "pgherd.shard" => self.env.shard.clone_from(&self.login.shard),
            "pgherd.key" => self.env.key.clone_from(&self.login.key),
            "pgherd.role" => self.env.role.clone_from(&self.login.role),
            _ => {}
        }
    }
}

fn note(env: &mut Env, name: &str, values: &[String]) {
    let first = values.first().map(String::as_str).unwrap_or_default();
    let wish = || (!first.is_empty()).then(|| first.to_owned());
    match name {
        "search_path" => env.search_path = Some(values.to_vec()),
        "standard_conforming_strings" => {
            env.nonstandard_strings =
                matches!(first.to_lowercase().as_str(), "off" | "false" | "no" | "0" | "of" | "f" | "n");
        }
        "client_encoding" => {
            let plain: String = first.chars().filter(char::is_ascii_alphanumeric).collect();
            env.foreign_encoding = !matches!(plain.to_lowercase().as_str(), "utf8" | "unicode");
        }
        "pgherd.shard" => env.shard = wish(),
        "pgherd.key" => env.key = wish(),
        "pgherd.role" => env.role = wish(),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, values: &[&str]) -> SetParameter {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        SetParameter { name: name.into(), local: false, values, sql: format!("SET {name} TO x") }
    }

    #[test]
    fn routing_follows_set_reset_and_login() {
        let vars = Vars::of_startup(&[("search_path".into(), "A, \"B c\"".into())], false);
        assert_eq!(vars.env.search_path, Some(vec!["a".into(), "B c".into()]));
        let changed = vars.with(&set("search_path", &["x"])).with(&set("client_encoding", &["LATIN1"]));
        assert_eq!(changed.env.search_path, Some(vec!["x".into()]));
        assert!(changed.env.foreign_encoding);
        assert_eq!(changed.reset(None), vars);
        assert_eq!(changed.reset(Some("search_path")).env.search_path, vars.env.search_path);
        assert!(!vars.with(&set("client_encoding", &["utf-8"])).env.foreign_encoding);
    }

    #[test]
    fn the_proxys_own_parameters_never_reach_a_server() {
        let vars = Vars::of_startup(&[("pgherd.shard".into(), "shard2".into())], false);
        assert!(vars.settings.is_empty());
        assert_eq!(vars.env.shard.as_deref(), Some("shard2"));
        let changed = vars.with(&set("pgherd.role", &["primary"]));
        assert!(changed.settings.is_empty());
        assert_eq!(changed.env.role.as_deref(), Some("primary"));
    }

    #[test]
    fn set_local_changes_routing_but_not_what_is_replayed() {
        let vars = Vars::of_startup(&[], false);
        let local = vars.with_local(&set("search_path", &["x"]));
        assert_eq!(local.settings, vars.settings);
        assert_eq!(local.env.search_path, Some(vec!["x".into()]));
    }
}
