//! What one session must answer, foretold without any server.
//! Must not know the proxy.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::common::Wire;

/// Numbers that a seed decides.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % limit
    }
}

/// What all sessions have in common.
#[derive(Default)]
pub(super) struct Shared {
    lock: Option<usize>,
    listeners: Vec<usize>,
    notified: usize,
    /// Notifications that a client must hear but has not, and that it has heard.
    due: HashMap<(usize, String), i64>,
    may_be_lost: HashSet<(usize, String)>,
}

impl Shared {
    pub(super) fn hear(&mut self, client: usize, heard: Vec<String>) {
        for payload in heard {
            if !self.may_be_lost.contains(&(client, payload.clone())) {
                *self.due.entry((client, payload)).or_default() -= 1;
            }
        }
    }

    /// A client that listens no longer need not hear what it has not heard yet.
    fn stop_listening(&mut self, client: usize) {
        self.listeners.retain(|listener| *listener != client);
        let waiting = self.due.iter_mut().filter(|((listener, _), due)| *listener == client && **due > 0);
        for (what, due) in waiting {
            self.may_be_lost.insert(what.clone());
            *due = 0;
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.due.values().all(|due| *due <= 0)
    }

    pub(super) fn surplus(&self) -> Vec<&(usize, String)> {
        self.due.iter().filter(|(_, due)| **due < 0).map(|(what, _)| what).collect()
    }
}

/// What sets them in code.
pub(super) fn code() -> String {
    let mut sql = String::from(
        "create table noted (n int, value text, local bool);
         create sequence drawn; create sequence other;
         create function tells() returns bigint language sql as 'select currval(''public.drawn'')';
         create function runs(sql text) returns text language plpgsql as
           $$ declare v text; begin execute sql into v; return v; end $$;
         create function notes() returns trigger language plpgsql as $$ begin ",
    );
    for (n, name) in NAMES.iter().enumerate() {
        sql.push_str(&format!(
            "if new.n = {n} then perform set_config('{name}', new.value, new.local); end if; "
        ));
    }
    sql.push_str(
        "return null; end $$;
         create trigger notes before insert on noted for each row execute function notes();",
    );
    for (n, name) in NAMES.iter().enumerate() {
        sql.push_str(&format!(
            "create function says_{n}(v text, l bool) returns text language sql as $$ select set_config('{name}', v, l) $$;
             create function seen_{n}(v text, l bool) returns text language plpgsql as
               $$ begin return public.says_{n}(v, l); end $$;"
        ));
    }
    sql
}

/// The settings that are played with; the first two are reported.
const NAMES: [&str; 5] = ["TimeZone", "application_name", "work_mem", "a.b", "search_path"];
const VALUES: [[&str; 3]; 5] = [
    ["Asia/Tokyo", "Europe/Rome", "UTC"],
    ["one", "it's", "three"],
    ["1MB", "2MB", "3MB"],
    ["x", "y z", ""],
    ["public", "pg_catalog, public", "nothing"],
];
const REPORTED: usize = 2;

/// What is said, and what must come of it.
#[derive(Debug)]
pub(super) struct Ask {
    how: How,
    /// Rows.
    rows: Vec<String>,
    /// SQLSTATE.
    error: Option<&'static str>,
    /// As ReadyForQuery says.
    status: char,
}

#[derive(Debug)]
enum How {
    Query(String),
    Extended(String, Vec<String>),
    Parse(String, String),
    Run(String),
    Close(String),
}

type Settings = BTreeMap<usize, String>;

#[derive(Clone, Debug, Default)]
struct Transaction {
    before: Settings,
    local: Settings,
    savepoint: Option<(Settings, Settings)>,
    /// What `currval()` is; no savepoint takes it back.
    drawn: Option<usize>,
    failed: bool,
}

/// One session.
pub(super) struct Session {
    id: usize,
    login: Settings,
    set: Settings,
    transaction: Option<Transaction>,
    statements: BTreeMap<String, usize>,
    temp: Option<usize>,
    tied: bool,
    told: Settings,
}

impl Session {
    /// Of a client that has just logged in.
    pub(super) async fn start(id: usize, wire: &mut Wire, own: bool) -> Self {
        let mut login = Settings::new();
        for (n, name) in NAMES.iter().enumerate() {
            let answer = wire.query(&format!("select current_setting('{name}', true)")).answers().await;
            let value = answer.iter().find_map(|word| word.strip_prefix("row ")).unwrap();
            login.insert(n, if value == "∅" { String::new() } else { value.to_owned() });
        }
        assert_eq!(own, login[&2] == "5MB", "{login:?}");
        let told = (0..REPORTED).map(|n| (n, login[&n].clone())).collect();
        Self {
            id,
            login,
            set: Settings::new(),
            transaction: None,
            statements: BTreeMap::new(),
            temp: None,
            tied: false,
            told,
        }
    }

    /// Whether a server connection is its own now.
    pub(super) fn holds(&self) -> bool {
        self.tied || self.transaction.is_some()
    }

    fn status(&self) -> char {
        match &self.transaction {
            None => 'I',
            Some(transaction) if transaction.failed => 'E',
            Some(_) => 'T',
        }
    }

    fn value(&self, n: usize) -> &str {
        let local = self.transaction.as_ref().and_then(|t| t.local.get(&n));
        local.or_else(|| self.set.get(&n)).unwrap_or(&self.login[&n])
    }

    fn done(&self, how: How, rows: &[&str]) -> Ask {
        let rows = rows.iter().map(|row| (*row).to_owned()).collect();
        Ask { how, rows, error: None, status: self.status() }
    }

    fn fails(&mut self, how: How, code: &'static str) -> Ask {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
        Ask { how, rows: Vec::new(), error: Some(code), status: self.status() }
    }

    fn assign(&mut self, n: usize, value: Option<&str>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.local.remove(&n);
        }
        match value {
            Some(value) => drop(self.set.insert(n, value.to_owned())),
            None => drop(self.set.remove(&n)),
        }
    }

    fn roll_back(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.set = transaction.before;
        }
    }

    /// What it says next. `busy`: no other connection may be held beyond this statement.
    pub(super) fn next(&mut self, random: &mut Random, busy: bool, shared: &mut Shared) -> Ask {
        let query = |sql: &str| How::Query(sql.to_owned());
        if self.transaction.as_ref().is_some_and(|t| t.failed) {
            return self.in_failed(random);
        }
        let n = random.below(NAMES.len());
        let (name, value) = (NAMES[n], VALUES[n][random.below(3)]);
        let quoted = format!("'{}'", value.replace('\'', "''"));
        let statement = format!("p{}", random.below(3));
        match random.below(37) {
            30..=33 => self.run_code(random, n, value),
            34..=36 => self.play_with_sequence(random),
            0..=4 => {
                let value = self.value(n).to_owned();
                let sql = format!("select current_setting('{name}', true)");
                let how = if random.below(2) == 0 { How::Query(sql) } else { How::Extended(sql, vec![]) };
                let shown = if value.is_empty() && n == 3 { self.empty_or_null() } else { value };
                let mut ask = self.done(how, &[&shown]);
                if shown == "?" {
                    ask.rows.clear();
                    ask.rows.push("?".into());
                }
                ask
            }
            5..=7 => {
                let local = self.transaction.is_some() && random.below(3) == 0;
                let list = if n == 4 { value.to_owned() } else { quoted };
                let sql = format!("set {}{name} = {list}", if local { "local " } else { "" });
                if local {
                    self.transaction.as_mut().unwrap().local.insert(n, value.to_owned());
                } else {
                    self.assign(n, Some(value));
                }
                let how = if random.below(2) == 0 { How::Query(sql) } else { How::Extended(sql, vec![]) };
                self.done(how, &[])
            }
            8 => {
                let sql = if random.below(2) == 0 {
                    format!("reset {name}")
                } else {
                    format!("set {name} to default")
                };
                self.assign(n, None);
                self.done(How::Query(sql), &[])
            }
            9 => {
                if random.below(3) > 0 {
                    return self.done(query("select 1"), &["1"]);
                }
                for n in 0..NAMES.len() {
                    self.assign(n, None);
                }
                self.done(query("reset all"), &[])
            }
            10 => {
                let local = self.transaction.is_some() && random.below(2) == 0;
                if local {
                    self.transaction.as_mut().unwrap().local.insert(n, value.to_owned());
                } else {
                    self.assign(n, Some(value));
                }
                let parameters = vec![name.to_owned(), value.to_owned(), local.to_string()];
                let how = if random.below(2) == 0 {
                    How::Extended("select set_config($1, $2, $3)".into(), parameters)
                } else {
                    How::Query(format!("select set_config('{name}', {quoted}, {local})"))
                };
                self.done(how, &[value])
            }
            11 | 12 => {
                // Undone with its text, unless a transaction block was open: then that has failed.
                let list = if n == 4 { value } else { quoted.as_str() };
                let how = How::Query(format!("set {name} = {list}; select 1/0"));
                if self.transaction.is_some() {
                    self.assign(n, Some(value));
                }
                self.fails(how, "22012")
            }
            13..=15 => self.turn_transaction(random, busy),
            16 | 17 => {
                let text = self.id * 100 + random.below(10);
                let select = format!("select {text}, current_setting('work_mem')");
                let how = if random.below(2) == 0 {
                    How::Query(format!("prepare {statement} as {select}"))
                } else {
                    How::Parse(statement.clone(), select)
                };
                if self.statements.contains_key(&statement) {
                    return self.fails(how, "42P05");
                }
                self.statements.insert(statement, text);
                self.done(how, &[])
            }
            18..=21 => {
                let how = match random.below(3) {
                    0 => How::Query(format!("execute {statement}")),
                    1 => How::Query(format!("execute {statement} (now(), 'ignored')")),
                    _ => How::Run(statement.clone()),
                };
                match self.statements.get(&statement) {
                    Some(text) => {
                        let row = format!("{text}|{}", self.value(2));
                        self.done(how, &[&row])
                    }
                    None => self.fails(how, "26000"),
                }
            }
            22 if random.below(2) == 0 => {
                let how = How::Query(format!("deallocate {statement}"));
                match self.statements.remove(&statement) {
                    Some(_) => self.done(how, &[]),
                    None => self.fails(how, "26000"),
                }
            }
            22 => {
                self.statements.remove(&statement);
                self.done(How::Close(statement), &[])
            }
            23 | 24 => self.play_with_temp(random, busy),
            25 | 26 => self.play_with_lock(busy, shared),
            27 => {
                let listens = shared.listeners.contains(&self.id);
                if self.transaction.is_some() || listens {
                    return self.done(query("select 2"), &["2"]);
                }
                shared.listeners.push(self.id);
                self.done(query("listen gossip"), &[])
            }
            28 => {
                if self.transaction.is_some() {
                    return self.done(query("select 3"), &["3"]);
                }
                shared.notified += 1;
                let payload = shared.notified.to_string();
                for listener in &shared.listeners {
                    *shared.due.entry((*listener, payload.clone())).or_default() += 1;
                }
                self.done(How::Query(format!("notify gossip, '{payload}'")), &[])
            }
            _ => self.discard(random, shared),
        }
    }

    /// Functions, triggers and DO blocks that set what their session is to keep.
    fn run_code(&mut self, random: &mut Random, n: usize, value: &str) -> Ask {
        let (name, quoted) = (NAMES[n], format!("'{}'", value.replace('\'', "''")));
        let local = self.transaction.is_some() && random.below(3) == 0;
        let doubled = quoted.replace('\'', "''");
        // RESET in code goes back to a startup parameter only when its transaction is over.
        let own = self.login[&2] == "5MB" && matches!(n, 1 | 2);
        let way = random.below(if own { 6 } else { 7 });
        let mut rows = vec![value];
        let sql = match way {
            0 => format!("select public.says_{n}({quoted}, {local})"),
            1 => {
                rows.clear();
                format!("do 'begin perform set_config(''{name}'', {doubled}, {local}); end'")
            }
            2 => {
                rows.clear();
                format!("insert into public.noted values ({n}, {quoted}, {local})")
            }
            3 => format!("select * from public.seen_{n}({quoted}, {local})"),
            4 => format!("select public.runs('select set_config(''{name}'', {doubled}, {local})')"),
            5 => {
                let how = How::Query(format!("select public.says_{n}({quoted}, false), 1/0"));
                return self.fails(how, "22012");
            }
            _ => {
                self.assign(n, None);
                return self.done(How::Query(format!("do 'begin reset {name}; end'")), &[]);
            }
        };
        if local {
            self.transaction.as_mut().unwrap().local.insert(n, value.to_owned());
        } else {
            self.assign(n, Some(value));
        }
        let how = if random.below(2) == 0 { How::Query(sql) } else { How::Extended(sql, vec![]) };
        self.done(how, &rows)
    }

    /// A parameter that was never set is NULL on a new server and empty on one that knows it: both are right.
    fn empty_or_null(&self) -> String {
        "?".into()
    }

    fn in_failed(&mut self, random: &mut Random) -> Ask {
        let transaction = self.transaction.clone().unwrap();
        match random.below(4) {
            0 => self.fails(How::Query("select 1".into()), "25P02"),
            1 => self.fails(How::Extended("set work_mem = '9MB'".into(), vec![]), "25P02"),
            2 if transaction.savepoint.is_some() => {
                let (set, local) = transaction.savepoint.clone().unwrap();
                self.set = set;
                self.transaction = Some(Transaction { local, failed: false, ..transaction });
                self.done(How::Query("rollback to s".into()), &[])
            }
            _ => {
                self.roll_back();
                self.done(How::Query(["commit", "rollback"][random.below(2)].into()), &[])
            }
        }
    }

    fn turn_transaction(&mut self, random: &mut Random, busy: bool) -> Ask {
        let query = |sql: &str| How::Query(sql.to_owned());
        let Some(transaction) = &mut self.transaction else {
            if busy {
                return self.done(query("select 4"), &["4"]);
            }
            self.transaction = Some(Transaction { before: self.set.clone(), ..Transaction::default() });
            return self.done(query("begin"), &[]);
        };
        match random.below(4) {
            0 => {
                transaction.savepoint = Some((self.set.clone(), transaction.local.clone()));
                self.done(query("savepoint s"), &[])
            }
            1 if transaction.savepoint.is_some() => {
                let (set, local) = transaction.savepoint.clone().unwrap();
                (self.set, transaction.local) = (set, local);
                self.done(query("rollback to s"), &[])
            }
            2 => {
                self.roll_back();
                self.done(query("rollback"), &[])
            }
            _ => {
                self.transaction = None;
                self.done(query("commit"), &[])
            }
        }
    }

    fn play_with_sequence(&mut self, random: &mut Random) -> Ask {
        if let Some(transaction) = &mut self.transaction
            && random.below(2) == 0
        {
            let value = self.id * 1000 + 1 + random.below(900);
            transaction.drawn = Some(value);
            let how = How::Query(format!("select pg_catalog.setval('public.drawn', {value})"));
            return self.done(how, &[&value.to_string()]);
        }
        let call = ["pg_catalog.currval('public.drawn')", "public.tells()"][random.below(2)];
        let how = How::Query(format!("select setval('public.other', 1); select {call}"));
        match self.transaction.as_ref().and_then(|t| t.drawn) {
            Some(value) => self.done(how, &["1", &value.to_string()]),
            None => Ask { rows: vec!["1".into()], ..self.fails(how, "55000") },
        }
    }

    fn play_with_temp(&mut self, random: &mut Random, busy: bool) -> Ask {
        let query = |sql: &str| How::Query(sql.to_owned());
        match self.temp {
            None if busy || self.transaction.is_some() || random.below(2) == 0 => {
                self.fails(query("select count(*) from mine"), "42P01")
            }
            None => {
                (self.temp, self.tied) = (Some(0), true);
                self.done(query("create temp table mine (i int)"), &[])
            }
            Some(rows) if self.transaction.is_none() && random.below(2) == 0 => {
                self.temp = Some(rows + 1);
                self.done(query("insert into mine values (1)"), &[])
            }
            Some(rows) => {
                let rows = rows.to_string();
                self.done(query("select count(*) from pg_temp.mine"), &[&rows])
            }
        }
    }

    fn play_with_lock(&mut self, busy: bool, shared: &mut Shared) -> Ask {
        let query = |sql: &str| How::Query(sql.to_owned());
        match shared.lock {
            Some(owner) if owner == self.id => {
                shared.lock = None;
                self.done(query("select pg_advisory_unlock(7)"), &["t"])
            }
            Some(_) => {
                // No tie may come of it while another has one: the lock of the transaction alone.
                self.done(query("select pg_try_advisory_xact_lock(7)"), &["f"])
            }
            None if busy || self.transaction.is_some() => {
                self.done(query("select count(*) from pg_locks where locktype = 'advisory'"), &["0"])
            }
            None => {
                shared.lock = Some(self.id);
                self.tied = true;
                self.done(query("select pg_advisory_lock(7) is null"), &["f"])
            }
        }
    }

    fn discard(&mut self, random: &mut Random, shared: &mut Shared) -> Ask {
        let query = |sql: &str| How::Query(sql.to_owned());
        if self.transaction.is_some() {
            return self.fails(query("discard all"), "25001");
        }
        if random.below(3) == 0 && !self.tied {
            self.statements.clear();
            return self.done(query("deallocate all"), &[]);
        }
        self.set.clear();
        self.statements.clear();
        (self.temp, self.tied) = (None, false);
        shared.stop_listening(self.id);
        if shared.lock == Some(self.id) {
            shared.lock = None;
        }
        self.done(query("discard all"), &[])
    }

    /// Says it, and compares. Gives the notifications that were heard.
    pub(super) async fn check(&mut self, wire: &mut Wire, ask: &Ask, context: &str) -> Vec<String> {
        match &ask.how {
            How::Query(sql) => wire.query(sql),
            How::Extended(sql, values) => {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                wire.parse("", sql).run("", &values)
            }
            How::Parse(name, sql) => wire.parse(name, sql).sync(),
            How::Run(name) => wire.run(name, &[]),
            How::Close(name) => wire.close(name).sync(),
        };
        let answer = wire.answers().await;
        if std::env::var_os("PGHERD_LEAK_TRACE").is_some() {
            eprintln!("{context}\n    {answer:?}");
        }
        let heard = self.take_in(&answer);
        let rows: Vec<&str> = answer.iter().filter_map(|word| word.strip_prefix("row ")).collect();
        let error = answer.iter().find_map(|word| word.strip_prefix("ERROR ")).map(|word| &word[..5]);
        let status = answer.last().and_then(|word| word.chars().last());
        if ask.rows == ["?"] {
            assert!(matches!(rows.as_slice(), ["" | "∅"]), "{context}\n{answer:?}");
        } else {
            assert_eq!(rows, ask.rows, "{context}\n{answer:?}");
        }
        assert_eq!((error, status), (ask.error, Some(ask.status)), "{context}\n{answer:?}");
        if ask.status != 'E' {
            for (n, name) in NAMES.iter().enumerate().take(REPORTED) {
                assert_eq!(self.told[&n], self.value(n), "{context}: what was told of {}\n{answer:?}", name);
            }
        }
        heard
    }

    /// Takes note of parameters and notifications; gives the latter.
    fn take_in(&mut self, answer: &[String]) -> Vec<String> {
        let mut heard = Vec::new();
        for word in answer {
            if let Some((name, value)) = word.strip_prefix("status ").and_then(|w| w.split_once('='))
                && let Some(n) = NAMES.iter().position(|known| *known == name).filter(|n| *n < REPORTED)
            {
                self.told.insert(n, value.to_owned());
            }
            heard.extend(word.strip_prefix("heard ").map(str::to_owned));
        }
        heard
    }

    /// A statement outside a transaction, for what has been on its way.
    pub(super) async fn listen_once_more(&mut self, wire: &mut Wire) -> Vec<String> {
        if self.transaction.is_some() {
            self.roll_back();
            wire.query("rollback");
        }
        let answer = wire.query("select 1").answers().await;
        self.take_in(&answer)
    }
}
