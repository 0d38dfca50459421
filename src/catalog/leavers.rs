//! Code that may leave something in the session of whoever runs it: told by its words, by whom it calls, and by what
//! runs it unasked.
//! Must not know what is done about it, nor how catalogs are read. In doubt a function is one of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Volatility;
use super::words::{self, Found};

/// What code may leave in a session, from what is easily dealt with to what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaves {
    /// What the server can be asked for afterwards: settings, temporary tables, locks.
    Traces,
    /// Also settings of the users' own (`a.b`) of which nobody can tell the names; no server lists them.
    Nameless,
    /// What can be neither listed nor undone.
    Forever,
}

impl Leaves {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Nameless, Self::Forever];
}

/// One function that users made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Code {
    /// Its OID on the server that was read.
    pub oid: u32,
    /// Its bare name.
    pub name: String,
    /// `pg_language.lanname`.
    pub language: String,
    /// How far its answers may change.
    pub volatility: Volatility,
    /// The extension it came with.
    pub extension: Option<String>,
    /// Its body, or what stands for it.
    pub source: String,
}

/// Extensions in C that keep nothing in a session; but for `set_limit`.
const TIDY: &[&str] = &[
    "amcheck",
    "autoinc",
    "bloom",
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "earthdistance",
    "fuzzystrmatch",
    "hstore",
    "insert_username",
    "intarray",
    "lo",
    "ltree",
    "moddatetime",
    "pg_stat_statements",
    "pg_trgm",
    "pgcrypto",
    "pgstattuple",
    "postgis",
    "refint",
    "seg",
    "unaccent",
    "uuid-ossp",
    "vector",
];

impl Code {
    /// Whether it may ask for what was drawn from a sequence.
    #[must_use]
    pub fn tells_sequences(&self) -> bool {
        words::tell_sequences(&words::scan(&self.source).words, self.language == "sql")
    }

    /// What it may leave, by itself.
    #[must_use]
    pub fn leaves(&self) -> Option<Leaves> {
        let said = words::scan(&self.source).leaves;
        match self.language.as_str() {
            "sql" | "plpgsql" => said,
            "c" => {
                let tidy = self.extension.as_deref().is_some_and(|e| TIDY.contains(&e));
                let keeps = words::of_name(&self.name);
                if keeps.is_some() || tidy || self.volatility == Volatility::Immutable {
                    keeps
                } else {
                    Some(Leaves::Traces)
                }
            }
            // Memory that its functions share for as long as the session lasts.
            _ if words::shares_memory(&self.source) => Some(Leaves::Forever),
            _ => said.max(Some(Leaves::Traces)),
        }
    }
}

/// An expression that users wrote into an object and that calls a function of the server's own: nothing in the catalogs
/// depends on such a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// When it runs.
    pub runs: Runs,
    /// OID of the relation or function that it belongs to.
    pub oid: u32,
    /// The bare name of that.
    pub name: String,
    /// Its text.
    pub source: String,
}

/// What runs a function, or a table with all that hangs on it, without being told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Another function.
    Function,
    /// A relation that is read.
    Reading,
    /// A relation that is written.
    Writing,
    /// An operator, a cast or a type: anything may use it.
    Anything,
    /// An event trigger: definitions fire it.
    Event,
}

/// All of a database that may leave something in a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leavers {
    functions: HashMap<String, Leaves>,
    read: HashMap<String, Leaves>,
    written: HashMap<String, Leaves>,
    anything: Option<Leaves>,
    events: Option<Leaves>,
    /// Settings of the users' own that are named in such code.
    settings: BTreeSet<String>,
}

impl Leavers {
    /// What a call of this function may leave. Told by its bare name.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<Leaves> {
        if self.functions.is_empty() { None } else { self.functions.get(&name.to_lowercase()).copied() }
    }

    /// The most that a call of any function may leave.
    #[must_use]
    pub fn most(&self) -> Option<Leaves> {
        self.functions.values().copied().max()
    }

    /// What a use of this relation may leave. Told by its bare name.
    #[must_use]
    pub fn relation(&self, name: &str, writes: bool) -> Option<Leaves> {
        if self.read.is_empty() && self.written.is_empty() {
            return None;
        }
        let name = name.to_lowercase();
        let by = |names: &HashMap<String, Leaves>| names.get(&name).copied();
        if writes { by(&self.written).max(by(&self.read)) } else { by(&self.read) }
    }

    /// What any statement may leave, whatever it names.
    #[must_use]
    pub fn anything(&self) -> Option<Leaves> {
        self.anything
    }

    /// What a definition may leave, whatever it defines.
    #[must_use]
    pub fn events(&self) -> Option<Leaves> {
        self.events
    }

    /// What a statement may leave that was not parsed, by what its words name.
    #[must_use]
    pub fn named_in(&self, text: &str) -> Option<Leaves> {
        if self.functions.is_empty() && self.read.is_empty() && self.written.is_empty() {
            return self.anything;
        }
        let words = words::scan(text).words;
        let named = words.iter().filter_map(|word| self.function(word).max(self.relation(word, true)));
        named.max().max(self.anything)
    }

    /// The same for code, which may leave something by itself.
    #[must_use]
    pub fn code(&self, text: &str) -> Leaves {
        words::scan(text).leaves.max(self.named_in(text)).unwrap_or(Leaves::Traces)
    }

    /// Settings of the users' own that such code, or a statement of this text, may set.
    #[must_use]
    pub fn settings_in(&self, text: &str) -> BTreeSet<String> {
        let mut all = words::scan(text).settings;
        all.extend(self.settings.iter().cloned());
        all
    }

    /// Takes in what another shard has beyond this.
    pub fn join(&mut self, other: &Self) {
        for (mine, others) in [
            (&mut self.functions, &other.functions),
            (&mut self.read, &other.read),
            (&mut self.written, &other.written),
        ] {
            for (name, leaves) in others {
                raise(mine, name.clone(), *leaves);
            }
        }
        self.anything = self.anything.max(other.anything);
        self.events = self.events.max(other.events);
        self.settings.extend(other.settings.iter().cloned());
    }
}

fn raise(names: &mut HashMap<String, Leaves>, name: String, leaves: Leaves) {
    let known = names.entry(name).or_insert(leaves);
    *known = (*known).max(leaves);
}

/// The search for them: what leaves as much as `level` or more, and all that reaches it. Each round asks the catalogs
/// what runs what was found so far, until nothing is new.
#[derive(Debug)]
pub struct Search<'a> {
    codes: Vec<(&'a Code, Found)>,
    level: Leaves,
    functions: HashSet<String>,
    read: BTreeMap<u32, String>,
    written: BTreeMap<u32, String>,
    anything: bool,
    events: bool,
    settings: BTreeSet<String>,
}

impl<'a> Search<'a> {
    /// `None`: no code leaves that much.
    #[must_use]
    pub fn new(codes: &'a [Code], expressions: &[Expression], level: Leaves) -> Option<Self> {
        let found = expressions.iter().map(|one| (one, words::scan(&one.source)));
        let ones: Vec<_> = found.filter(|(_, found)| found.leaves >= Some(level)).collect();
        let reached = ones.iter().map(|(one, _)| (one.runs, one.oid, one.name.clone()));
        let mut search = Self::from(codes, level, |code, _| code.leaves() >= Some(level), reached)?;
        search.settings = ones.into_iter().flat_map(|(_, found)| found.settings).collect();
        Some(search)
    }

    /// The same for code that names one of these, what is `reading` them among it; `None`: there is none.
    #[must_use]
    pub fn naming(
        codes: &'a [Code],
        names: &[&str],
        reading: impl IntoIterator<Item = (Runs, u32, String)>,
    ) -> Option<Self> {
        let is_one = |_: &Code, found: &Found| names.iter().any(|name| found.words.contains(*name));
        Self::from(codes, Leaves::Traces, is_one, reading)
    }

    fn from(
        codes: &'a [Code],
        level: Leaves,
        is_one: impl Fn(&Code, &Found) -> bool,
        reached: impl IntoIterator<Item = (Runs, u32, String)>,
    ) -> Option<Self> {
        let codes: Vec<_> = codes.iter().map(|code| (code, words::scan(&code.source))).collect();
        let ones = codes.iter().filter(|(code, found)| is_one(code, found));
        let functions: HashSet<String> = ones.map(|(code, _)| code.name.to_lowercase()).collect();
        let mut search = Self {
            codes,
            level,
            functions,
            read: BTreeMap::new(),
            written: BTreeMap::new(),
            anything: false,
            events: false,
            settings: BTreeSet::new(),
        };
        let any = search.reached(reached);
        (any || !search.functions.is_empty()).then_some(search)
    }

    /// The functions found, by their OIDs.
    #[must_use]
    pub fn functions(&self) -> Vec<u32> {
        let is_one = |(code, _): &&(&Code, Found)| self.functions.contains(&code.name.to_lowercase());
        self.codes.iter().filter(is_one).map(|(code, _)| code.oid).collect()
    }

    /// The relations found that leave something when they are read, and when they are written.
    #[must_use]
    pub fn relations(&self) -> (Vec<u32>, Vec<u32>) {
        (self.read.keys().copied().collect(), self.written.keys().copied().collect())
    }

    /// Takes in what runs some of them. Says whether anything was new.
    pub fn reached(&mut self, by: impl IntoIterator<Item = (Runs, u32, String)>) -> bool {
        let mut news = false;
        for (runs, oid, name) in by {
            news |= match runs {
                Runs::Function => self.functions.insert(name.to_lowercase()),
                Runs::Reading => self.read.insert(oid, name.to_lowercase()).is_none(),
                Runs::Writing => self.written.insert(oid, name.to_lowercase()).is_none(),
                Runs::Anything => !std::mem::replace(&mut self.anything, true),
                Runs::Event => !std::mem::replace(&mut self.events, true),
            };
        }
        self.follow_calls() || news
    }

    /// A body that names one of them may run it.
    fn follow_calls(&mut self) -> bool {
        let relations: HashSet<&String> = self.read.values().chain(self.written.values()).collect();
        let mut grown = false;
        loop {
            let names = |found: &Found| {
                found.words.iter().any(|word| self.functions.contains(word) || relations.contains(word))
            };
            let more: Vec<String> = self
                .codes
                .iter()
                .map(|(code, found)| (code.name.to_lowercase(), found))
                .filter(|(name, found)| !self.functions.contains(name) && names(found))
                .map(|(name, _)| name)
                .collect();
            if more.is_empty() {
                return grown;
            }
            grown = true;
            self.functions.extend(more);
        }
    }

    /// What was found.
    pub fn end(self, found: &mut Leavers) {
        for (code, scanned) in &self.codes {
            if self.functions.contains(&code.name.to_lowercase()) {
                found.settings.extend(scanned.settings.iter().cloned());
            }
        }
        for name in self.functions {
            raise(&mut found.functions, name, self.level);
        }
        for name in self.read.into_values() {
            raise(&mut found.read, name, self.level);
        }
        for name in self.written.into_values() {
            raise(&mut found.written, name, self.level);
        }
        found.settings.extend(self.settings);
        if self.anything {
            found.anything = found.anything.max(Some(self.level));
        }
        if self.events {
            found.events = found.events.max(Some(self.level));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(oid: u32, name: &str, language: &str, source: &str) -> Code {
        let (name, language, source) = (name.to_owned(), language.to_owned(), source.to_owned());
        Code { oid, name, language, volatility: Volatility::Volatile, extension: None, source }
    }

    fn found(codes: &[Code]) -> Leavers {
        let mut leavers = Leavers::default();
        for level in Leaves::ALL {
            if let Some(search) = Search::new(codes, &[], level) {
                search.end(&mut leavers);
            }
        }
        leavers
    }

    #[test]
    fn a_function_is_told_by_its_words_and_by_whom_it_calls() {
        use Leaves::{Forever, Nameless, Traces};
        let codes = [
            code(1, "plain", "plpgsql", "begin return template; end"),
            code(2, "makes", "sql", "CREATE TEMP TABLE x (i int)"),
            code(3, "locks", "plpgsql", "perform pg_try_advisory_lock(1)"),
            code(4, "locks_briefly", "plpgsql", "perform pg_advisory_xact_lock(1)"),
            code(5, "calls", "sql", "perform app.Makes();"),
            code(6, "Calls_That", "sql", "select calls()"),
            code(7, "by_any_name", "plpgsql", "begin perform set_config(name, value, false); end"),
            code(8, "seeds", "sql", "select setseed(0.5)"),
            code(9, "seeds_and_sets", "sql", "select seeds(), by_any_name('a.b', 'c')"),
            code(10, "python", "plpython3u", "return 1"),
            code(11, "shares", "plpython3u", "GD['x'] = 1"),
            code(12, "in_c", "c", "symbol"),
        ];
        let leavers = found(&codes);
        for (name, want) in [
            ("plain", None),
            ("makes", Some(Traces)),
            ("locks", Some(Traces)),
            ("locks_briefly", None),
            ("calls", Some(Traces)),
            ("Calls_That", Some(Traces)),
            ("by_any_name", Some(Nameless)),
            ("seeds", Some(Forever)),
            ("seeds_and_sets", Some(Forever)),
            ("python", Some(Traces)),
            ("shares", Some(Forever)),
            ("in_c", Some(Traces)),
        ] {
            assert_eq!(leavers.function(name), want, "{name}");
        }
        assert_eq!(leavers.named_in("select x from y, calls() "), Some(Traces));
        assert_eq!(leavers.named_in("select x from y"), None);
        assert_eq!(leavers.code("do 'begin perform 1; end'"), Traces);
        assert_eq!(leavers.code("call by_any_name('a.b', 'c')"), Nameless);
    }

    #[test]
    fn an_expression_leaves_what_it_says_whenever_it_runs() {
        let one = |runs, oid, name: &str, source: &str| {
            let (name, source) = (name.to_owned(), source.to_owned());
            Expression { runs, oid, name, source }
        };
        let expressions = [
            one(
                Runs::Reading,
                1,
                "seen",
                "CREATE RULE \"_RETURN\" AS SELECT set_config('a.b'::text, 'x'::text, false)",
            ),
            one(Runs::Writing, 2, "filled", "setseed((0.5)::double precision)"),
            one(Runs::Function, 3, "argued", "x text DEFAULT set_config('c.d'::text, 'x'::text, true)"),
            one(Runs::Anything, 0, "", "pg_advisory_lock("),
            one(Runs::Function, 4, "sums", "set_config("),
        ];
        let codes = [code(5, "reads", "sql", "select * from seen")];
        let mut leavers = Leavers::default();
        for level in Leaves::ALL {
            Search::new(&codes, &expressions, level).expect("one of each").end(&mut leavers);
        }
        assert_eq!(leavers.relation("seen", false), Some(Leaves::Traces));
        assert_eq!(leavers.relation("filled", false), None);
        assert_eq!(leavers.relation("filled", true), Some(Leaves::Forever));
        assert_eq!(leavers.function("argued"), None, "over with the transaction");
        assert_eq!(leavers.function("sums"), Some(Leaves::Nameless));
        assert_eq!(leavers.function("reads"), Some(Leaves::Traces));
        assert_eq!(leavers.anything(), Some(Leaves::Traces));
        assert_eq!(leavers.settings_in("").into_iter().collect::<Vec<_>>(), ["a.b"]);
    }

    #[test]
    fn known_extensions_and_immutable_functions_in_c_leave_nothing() {
        let tidy = Code { extension: Some("pg_trgm".into()), ..code(1, "show_trgm", "c", "show_trgm") };
        assert_eq!(tidy.leaves(), None);
        assert_eq!(Code { name: "set_limit".into(), ..tidy.clone() }.leaves(), Some(Leaves::Traces));
        let fixed = Code { volatility: Volatility::Immutable, ..code(1, "f", "c", "f") };
        assert_eq!(fixed.leaves(), None);
        assert_eq!(code(1, "dblink_connect", "c", "dblink_connect").leaves(), Some(Leaves::Forever));
    }

    #[test]
    fn what_runs_a_leaver_is_one_and_so_is_what_names_that() {
        let codes = [
            code(1, "sets", "plpgsql", "begin set work_mem = '1MB'; end"),
            code(2, "inserts", "sql", "insert into Noted values (1)"),
            code(3, "reads", "sql", "select * from other"),
        ];
        let mut search = Search::new(&codes, &[], Leaves::Traces).expect("one sets");
        assert_eq!(search.functions(), [1]);
        assert!(search.reached([(Runs::Writing, 77, "noted".to_owned())]));
        assert_eq!((search.functions(), search.relations()), (vec![1, 2], (vec![], vec![77])));
        assert!(!search.reached([(Runs::Writing, 77, "noted".to_owned())]));
        let mut leavers = Leavers::default();
        search.end(&mut leavers);
        assert_eq!(leavers.function("inserts"), Some(Leaves::Traces));
        assert_eq!(leavers.function("reads"), None);
        assert_eq!(leavers.relation("noted", true), Some(Leaves::Traces));
        assert_eq!(leavers.relation("noted", false), None);
        assert_eq!(leavers.anything(), None);
    }
}
