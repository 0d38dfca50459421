//! Functions that say they change nothing, but call, through others too, one that may, or one that tells of the server
//! itself: only a primary runs them. A word of their code that is such a name will do.
//! Must not know how functions are read.

use std::collections::{BTreeSet, HashSet};

use super::leavers::Code;
use super::own::{function_of_server, relation_of_server};
use super::types::{HARMLESS, Volatility};
use super::words;

/// The search for them.
#[derive(Debug)]
pub struct Restless {
    /// Names of functions and relations that only a primary can run or read.
    names: HashSet<String>,
    /// Functions that say otherwise, and are not known to be among them.
    calm: Vec<(u32, String, BTreeSet<String>)>,
    /// OIDs of those found.
    found: Vec<u32>,
}

impl Restless {
    /// Among these functions. `names`: of the server's own functions and of relations that only a primary can run or
    /// read.
    #[must_use]
    pub fn new(codes: &[Code], names: impl IntoIterator<Item = String>) -> Self {
        let mut names: HashSet<String> = names.into_iter().collect();
        let mut calm = Vec::new();
        for code in codes {
            let name = code.name.to_lowercase();
            if code.volatility != Volatility::Volatile {
                calm.push((code.oid, name, words::of(&code.source)));
            } else if !HARMLESS.contains(&name.as_str()) {
                names.insert(name);
            }
        }
        let mut search = Self { names, calm, found: Vec::new() };
        search.follow();
        search
    }

    /// These relations are among them too. Says whether any function is for that.
    pub fn relations(&mut self, names: impl IntoIterator<Item = String>) -> bool {
        let before = self.found.len();
        self.names.extend(names);
        self.follow();
        self.found.len() > before
    }

    fn follow(&mut self) {
        loop {
            let (names, before) = (&self.names, self.calm.len());
            let is_one =
                |word: &String| names.contains(word) || function_of_server(word) || relation_of_server(word);
            let (new, calm) = std::mem::take(&mut self.calm)
                .into_iter()
                .partition(|(_, _, words): &(u32, String, BTreeSet<String>)| words.iter().any(is_one));
            self.calm = calm;
            for (oid, name, _) in new {
                self.found.push(oid);
                self.names.insert(name);
            }
            if self.calm.len() == before {
                return;
            }
        }
    }

    /// OIDs of the functions found.
    #[must_use]
    pub fn functions(&self) -> &[u32] {
        &self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_does_what_it_calls() {
        let code = |oid, name: &str, volatility, source: &str| Code {
            oid,
            name: name.to_owned(),
            language: "plpgsql".to_owned(),
            volatility,
            extension: None,
            source: source.to_owned(),
        };
        let (stable, immutable) = (Volatility::Stable, Volatility::Immutable);
        let codes = [
            code(1, "plain", stable, "begin return random(); end"),
            code(2, "draws", stable, "begin return nextval('s'); end"),
            code(3, "calls", immutable, "begin return draws(); end"),
            code(4, "writes", Volatility::Volatile, "begin insert into t values (1); end"),
            code(5, "calls_it", stable, "begin return Writes(); end"),
            code(6, "reads", stable, "begin return (select v from seen); end"),
            code(7, "looks", stable, "begin return (select count(*) from pg_stat_activity); end"),
            code(8, "gen_random_bytes", Volatility::Volatile, "pg_random_bytes"),
            code(9, "random_too", stable, "begin return gen_random_bytes(4); end"),
        ];
        let mut search = Restless::new(&codes, ["nextval".to_owned()]);
        let sorted = |search: &Restless| {
            let mut found = search.functions().to_vec();
            found.sort_unstable();
            found
        };
        assert_eq!(sorted(&search), [2, 3, 5, 7]);
        assert!(search.relations(["seen".to_owned()]));
        assert_eq!(sorted(&search), [2, 3, 5, 6, 7]);
        assert!(!search.relations(["other".to_owned()]));
    }
}
