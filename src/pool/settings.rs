//! The session settings of a client, as SQL that brings a server to the same.
//! Must not know what any setting means. A value is never changed in place, so keeping an old one is free.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// What the constants, operators and names of a statement mean when it is analysed depends on these.
const ANALYSIS: &[&str] = &[
    "array_nulls",
    "backslash_quote",
    "client_encoding",
    "datestyle",
    "intervalstyle",
    "lc_monetary",
    "role",
    "session_authorization",
    "standard_conforming_strings",
    "timezone",
    "timezone_abbreviations",
    "transform_null_equals",
    "xmloption",
];

/// Whether SET LOCAL of it changes what statements mean that are analysed from then on.
#[must_use]
pub fn is_of_analysis(name: &str) -> bool {
    ANALYSIS.contains(&name)
}

/// A client's session settings: its startup parameters below, its SETs above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    startup: Arc<BTreeMap<String, String>>,
    /// The statement to send for each, by the setting's name.
    set: BTreeMap<String, String>,
    unknown: bool,
}

impl Settings {
    /// Those of a client that has just logged in.
    #[must_use]
    pub fn of_startup(parameters: &[(String, String)]) -> Arc<Self> {
        let startup = parameters.iter().map(|(k, v)| (k.to_lowercase(), v.clone())).collect();
        Arc::new(Self { startup: Arc::new(startup), ..Self::default() })
    }

    /// Equal to none that a client has: a server with these is always brought up to date.
    #[must_use]
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Settings>> =
            LazyLock::new(|| Arc::new(Settings { unknown: true, ..Settings::default() }));
        UNKNOWN.clone()
    }

    /// Whether a server fresh from login already is so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.startup.is_empty() && self.set.is_empty() && !self.unknown
    }

    /// The names of all of them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.startup.keys().chain(self.set.keys()).map(String::as_str)
    }

    /// Whether transactions may be serializable without saying so, which a replica cannot do.
    #[must_use]
    pub fn may_be_serializable(&self) -> bool {
        let name = "default_transaction_isolation";
        self.set.contains_key(name) || self.startup.contains_key(name)
    }

    /// The settings that what a statement means can depend on when it is analysed, as far as they are not the server's.
    #[must_use]
    pub fn analysis(&self) -> Vec<(&str, &str)> {
        let text = |name: &'static str| {
            let text = self.set.get(name).or_else(|| self.startup.get(name))?;
            Some((name, text.as_str()))
        };
        ANALYSIS.iter().filter_map(|name| text(name)).collect()
    }

    /// With one more SET.
    #[must_use]
    pub fn with(&self, name: &str, sql: &str) -> Arc<Self> {
        let mut next = self.clone();
        if name == "session_authorization" {
            next.set.remove("role"); // SET SESSION AUTHORIZATION resets the role
        }
        next.set.insert(name.to_owned(), sql.to_owned());
        Arc::new(next)
    }

    /// After RESET of one: back to the startup parameter.
    #[must_use]
    pub fn without(&self, name: &str) -> Arc<Self> {
        let mut next = self.clone();
        next.set.remove(name);
        if name == "session_authorization" {
            next.set.remove("role");
        }
        Arc::new(next)
    }

    /// A statement that does what RESET (`None` is ALL) or SET … TO DEFAULT does on a server of the client's own: back
    /// to its startup parameters. `None` if the server's own RESET does just that.
    #[must_use]
    pub fn to_login(&self, name: Option<&str>, local: bool) -> Option<String> {
        let call = |name: &str, value: &str| {
            format!("PERFORM pg_catalog.set_config({}, {}, {local}); ", quoted(name), quoted(value))
        };
        let body = match name {
            Some(name) => call(name, self.startup.get(name)?),
            None if self.startup.is_empty() => return None,
            None => {
                let calls: String = self.startup.iter().map(|(name, value)| call(name, value)).collect();
                format!("RESET ALL; {calls}")
            }
        };
        Some(format!("DO {}", quoted(&format!("BEGIN {body}END"))))
    }

    /// After RESET ALL, which leaves role and session authorization alone.
    #[must_use]
    pub fn reset_all(&self) -> Arc<Self> {
        let mut next = self.clone();
        next.set.retain(|name, _| name == "role" || name == "session_authorization");
        Arc::new(next)
    }

    /// After DISCARD ALL: as at login.
    #[must_use]
    pub fn discarded(&self) -> Arc<Self> {
        Arc::new(Self { startup: self.startup.clone(), ..Self::default() })
    }

    /// One script that brings a server from any other settings to these. It runs as one implicit transaction:
    /// all of it or nothing.
    #[must_use]
    pub fn script(&self) -> String {
        let mut sql = String::from("SET SESSION AUTHORIZATION DEFAULT; RESET ALL");
        for (name, value) in self.startup.iter() {
            // set_config reads a value as the startup packet does: a list stays a list.
            sql.push_str(&format!(
                "; SELECT pg_catalog.set_config({}, {}, false)",
                quoted(name),
                quoted(value)
            ));
        }
        let first = ["session_authorization", "role"];
        let ordered = first.iter().filter_map(|n| self.set.get(*n));
        for statement in
            ordered.chain(self.set.iter().filter(|(n, _)| !first.contains(&n.as_str())).map(|(_, s)| s))
        {
            sql.push_str("; ");
            sql.push_str(statement);
        }
        sql
    }
}

/// A string constant that reads the same whatever `standard_conforming_strings` says.
fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_with_the_same_content_are_equal_and_unknown_ones_are_not() {
        let at_login = Settings::of_startup(&[("TimeZone".into(), "UTC".into())]);
        let set = at_login.with("work_mem", "SET work_mem = '1MB'");
        assert_eq!(set.without("work_mem"), at_login);
        assert_eq!(set.reset_all(), at_login);
        assert_ne!(*set, *at_login);
        assert_ne!(*Settings::unknown(), Settings::default());
    }

    #[test]
    fn going_back_to_login_needs_a_statement_only_where_there_were_startup_parameters() {
        let none = Settings::of_startup(&[]);
        assert_eq!((none.to_login(None, false), none.to_login(Some("work_mem"), false)), (None, None));
        let some = Settings::of_startup(&[("work_mem".into(), "1MB".into()), ("a.b".into(), "it's".into())]);
        assert_eq!(some.to_login(Some("timezone"), false), None);
        assert_eq!(
            some.to_login(Some("work_mem"), true).as_deref(),
            Some("DO E'BEGIN PERFORM pg_catalog.set_config(E\\'work_mem\\', E\\'1MB\\', true); END'")
        );
        let all = some.to_login(None, false).unwrap_or_default();
        assert!(all.starts_with("DO E'BEGIN RESET ALL; PERFORM"), "{all}");
        assert!(all.contains(r"E\'it\\\'s\'"), "{all}");
    }

    #[test]
    fn the_script_starts_from_nothing_and_quotes_values() {
        let s =
            Settings::of_startup(&[("search_path".into(), "a, \"b'c\\\"".into())]).with("role", "SET ROLE x");
        assert_eq!(
            s.script(),
            "SET SESSION AUTHORIZATION DEFAULT; RESET ALL; SELECT pg_catalog.set_config(E'search_path', \
             E'a, \"b\\'c\\\\\"', false); SET ROLE x"
        );
    }
}
