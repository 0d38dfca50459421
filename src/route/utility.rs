//! What a statement is, told by its first words: its kind, and by which rule it finds its shard.
//! Must not know the map, the catalog or the parser.

use std::ops::Range;

use super::words::Words;
use super::{Access, Env, Kind, Pin, Route, RouteError, Verb};
use super::{copy, ddl, set, transaction};

/// How a statement is to be routed.
#[derive(Debug)]
pub(super) enum Class {
    /// A query or DML: the parser has to read it.
    Parse,
    /// Another statement round a query that the parser has to read.
    Around {
        /// Which one.
        wrap: Wrap,
        /// The query's bytes.
        query: Range<usize>,
        /// How it is routed if the query does not parse.
        otherwise: Lexical,
    },
    /// The session carries it out; it has no route of its own.
    Local(Kind),
    /// Its words decide.
    Lexical(Lexical),
}

/// A statement that stands round a query and goes where the query goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrap {
    /// EXPLAIN.
    Explain {
        /// ANALYZE: the query runs.
        analyze: bool,
    },
    /// DECLARE … CURSOR FOR.
    Cursor {
        /// WITH HOLD.
        hold: bool,
    },
    /// COPY (query) TO STDOUT.
    Copy,
}

/// A statement that is routed by its words.
#[derive(Debug, Clone)]
pub(super) struct Lexical {
    /// What it is to the session.
    pub(super) kind: Kind,
    /// Its route, were there one shard only.
    pub(super) alone: Route,
    /// How it is routed if there are several.
    pub(super) rule: Rule,
}

/// Which of several shards.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// Wherever the session is, or any.
    Anywhere,
    /// The default shard.
    Default,
    /// The tables it names decide; none of them may be on several shards.
    Tables {
        /// What it is called in a refusal.
        construct: String,
        /// Why, if not for the tables only: the parser's message.
        reason: Option<String>,
        /// Names may also hide in its strings (a body of code, dynamic SQL).
        in_strings: bool,
        /// What to write instead.
        hint: &'static str,
    },
    /// As `Tables`, and only on the default shard: it leaves something behind that later statements look for there.
    DefaultTables {
        /// What it is called in a refusal.
        construct: &'static str,
    },
    /// A table is copied from or to the client.
    Copy {
        /// The table, with its schema if given.
        table: Vec<String>,
        /// COPY … FROM.
        from: bool,
    },
    /// None, unless the client says which.
    Never {
        /// What it is called in the refusal.
        construct: String,
        /// What to write instead.
        hint: &'static str,
    },
}

/// What to do about a statement that several shards would have to run.
pub(super) const RUN_ON_EACH: &str =
    "Run it on each shard, naming it: /* pgherd: shard=NAME */ before the statement, or SET pgherd.shard.";

impl Lexical {
    /// A plain statement that may write, so only a primary will do.
    pub(super) fn new(kind: Kind, rule: Rule) -> Self {
        Self { kind, alone: Route::anywhere(Access::Write), rule }
    }

    /// Routed by the tables it names.
    pub(super) fn by_tables(construct: impl Into<String>, kind: Kind) -> Self {
        let rule =
            Rule::Tables { construct: construct.into(), reason: None, in_strings: false, hint: RUN_ON_EACH };
        Self::new(kind, rule)
    }

    /// The same with another access.
    pub(super) fn access(mut self, access: Access) -> Self {
        self.alone.access = access;
        self
    }

    /// The same with a pin.
    pub(super) fn pin(mut self, pin: Pin) -> Self {
        self.alone.pin = Some(pin);
        self
    }

    /// The same, tied to the transaction it runs in.
    pub(super) fn bound(mut self) -> Self {
        self.alone.binds_transaction = true;
        self
    }

    /// The same under another verb.
    pub(super) fn verb(mut self, verb: Verb) -> Self {
        self.alone.verb = verb;
        self
    }

    fn query(rule: Rule) -> Self {
        Self::new(Kind::Query, rule)
    }
}

impl Rule {
    pub(super) fn never(construct: impl Into<String>) -> Self {
        Self::Never { construct: construct.into(), hint: RUN_ON_EACH }
    }
}

/// Tells what a statement is.
///
/// # Errors
/// PostgreSQL's syntax error for a malformed statement that the session would have had to understand, and refusals
/// of such that it does not understand.
pub(super) fn classify(statement: &[u8], env: &Env) -> Result<Class, RouteError> {
    let mut words = Words::new(statement, env.nonstandard_strings);
    if words.peek().is_some_and(|t| t.is_symbol(b'(')) {
        return Ok(Class::Parse);
    }
    let Some(first) = words.word() else { return Ok(unknown(statement)) };
    let w = &mut words;
    Ok(match first.as_str() {
        "select" | "insert" | "update" | "delete" | "merge" | "with" | "values" | "table" => Class::Parse,
        "begin" => Class::Local(transaction::begin(w)?),
        "start" => Class::Local(transaction::start(w)?),
        "commit" | "rollback" if w.eat("prepared") => {
            two_phase(&format!("{} PREPARED", first.to_uppercase()))
        }
        "commit" | "end" => Class::Local(transaction::commit(w)?),
        "rollback" => Class::Local(transaction::rollback(w, true)?),
        "abort" => Class::Local(transaction::rollback(w, false)?),
        "savepoint" => Class::Local(transaction::savepoint(w)?),
        "release" => Class::Local(transaction::release(w)?),
        "set" => match set::set(w, env)? {
            Some(kind) => Class::Local(kind),
            None => odd_set(w),
        },
        "reset" => Class::Local(set::reset(w)?),
        "show" => show(set::show(w)?),
        "discard" => Class::Local(discard(w)?),
        "prepare" => prepare(w),
        "execute" => Class::Lexical(Lexical::new(Kind::SqlPrepare, Rule::Default)),
        "deallocate" => deallocate(w)?,
        "listen" => {
            let channel = w.name().ok_or_else(|| w.syntax_error())?;
            hearing(w.end(Kind::Listen(channel))?)
        }
        "unlisten" => {
            let all = w.eat_symbol(b'*') || w.eat_operator("*");
            let channel = if all { None } else { Some(w.name().ok_or_else(|| w.syntax_error())?) };
            hearing(w.end(Kind::Unlisten(channel))?)
        }
        // All shards are listened to: it goes where its transaction is.
        "notify" => Class::Lexical(Lexical::query(Rule::Anywhere).bound()),
        "declare" => declare(w),
        // They go where the transaction is; the target says so by saying nothing.
        "fetch" | "move" => Class::Lexical(Lexical::query(Rule::Anywhere).access(Access::Primary).bound()),
        "close" => {
            let close = Lexical::query(Rule::Anywhere).access(Access::Primary).bound();
            Class::Lexical(close.pin(Pin::Released))
        }
        "copy" => copy::classify(w, env),
        "explain" => explain(w),
        "do" | "call" => Class::Lexical(code(&first, statement)),
        "lock" => Class::Lexical(Lexical::by_tables("LOCK", Kind::Query).bound()),
        "checkpoint" => Class::Lexical(Lexical::query(Rule::never("CHECKPOINT"))),
        "load" => Class::Lexical(Lexical::query(Rule::never("LOAD")).pin(Pin::Other)),
        "reload" | "pause" | "resume" | "drain" | "kill" | "reconnect" | "shutdown" => {
            Class::Local(command(statement, env)?)
        }
        _ => match ddl::classify(&first, w) {
            Some(lexical) => Class::Lexical(lexical),
            None => unknown(statement),
        },
    })
}

/// No statement that PostgreSQL 18 has: a server will say so, or know better.
fn unknown(statement: &[u8]) -> Class {
    let first = Words::new(statement, false).word().unwrap_or_default().to_uppercase();
    Class::Lexical(Lexical::by_tables(
        if first.is_empty() { "this statement".to_owned() } else { first },
        Kind::Query,
    ))
}

fn two_phase(construct: &str) -> Class {
    Class::Lexical(Lexical::new(Kind::TwoPhase, Rule::never(construct)))
}

/// SET CONSTRAINTS stays in the transaction; a snapshot is one server's.
fn odd_set(words: &Words<'_>) -> Class {
    if words.sees("constraints") {
        Class::Lexical(Lexical::query(Rule::Anywhere).access(Access::Primary).bound())
    } else if words.sees("snapshot") {
        Class::Lexical(
            Lexical::query(Rule::never("SET TRANSACTION SNAPSHOT")).access(Access::Primary).bound(),
        )
    } else {
        Class::Lexical(Lexical::query(Rule::Default))
    }
}

/// Any server knows what the session has set.
fn show(kind: Kind) -> Class {
    let lexical = Lexical::new(kind, Rule::Anywhere);
    // On a replica `transaction_read_only` and its like would tell of the replica.
    Class::Lexical(lexical.access(Access::Primary).verb(Verb::Select))
}

fn discard(words: &mut Words<'_>) -> Result<Kind, RouteError> {
    let what = match words.eat_any(&["all", "plans", "sequences", "temp", "temporary"]) {
        Some("all") => "ALL",
        Some("plans") => "PLANS",
        Some("sequences") => "SEQUENCES",
        Some(_) => "TEMP",
        None => return Err(words.syntax_error()),
    };
    words.end(Kind::Discard(what.to_owned()))
}

fn prepare(words: &mut Words<'_>) -> Class {
    let mut ahead = words.clone();
    if ahead.eat("transaction") && !ahead.sees("as") && !ahead.peek().is_some_and(|t| t.is_symbol(b'(')) {
        let rule = Rule::Anywhere; // where its transaction is
        return Class::Lexical(Lexical::new(Kind::TwoPhase, rule).bound());
    }
    let rule = Rule::DefaultTables { construct: "PREPARE" };
    Class::Lexical(Lexical::new(Kind::SqlPrepare, rule).pin(Pin::SqlPrepare))
}

fn deallocate(words: &mut Words<'_>) -> Result<Class, RouteError> {
    let mut ahead = words.clone();
    if ahead.eat("prepare") && !ahead.is_done() {
        *words = ahead;
    }
    let all = words.eat("all");
    let name = if all { None } else { Some(words.name().ok_or_else(|| words.syntax_error())?) };
    words.end(Class::Local(Kind::Deallocate(name)))
}

/// In session pooling a server hears it; one that says LISTEN without a shard says it on the default one.
fn hearing(kind: Kind) -> Class {
    Class::Lexical(Lexical::new(kind, Rule::Default).access(Access::Primary))
}

/// DECLARE name [options] CURSOR [WITH | WITHOUT HOLD] FOR query.
fn declare(words: &mut Words<'_>) -> Class {
    let named = words.name().is_some();
    while words.eat_any(&["binary", "asensitive", "insensitive", "no", "scroll"]).is_some() {}
    let cursor = words.eat("cursor");
    let hold = words.eat_all(&["with", "hold"]);
    words.eat_all(&["without", "hold"]);
    let mut otherwise = Lexical::by_tables("DECLARE CURSOR", Kind::Query).access(Access::Primary).bound();
    otherwise.alone.pin = hold.then_some(Pin::HoldCursor);
    if named && cursor && words.eat("for") {
        Class::Around { wrap: Wrap::Cursor { hold }, query: words.at()..words.text().len(), otherwise }
    } else {
        Class::Lexical(otherwise)
    }
}

/// EXPLAIN [ANALYZE] [VERBOSE] statement, EXPLAIN (options) statement.
fn explain(words: &mut Words<'_>) -> Class {
    let mut analyze = false;
    let mut ahead = words.clone();
    // A parenthesis opens options unless it opens a query.
    if ahead.eat_symbol(b'(')
        && !["select", "values", "with", "table"].iter().any(|w| ahead.sees(w))
        && !opens(&ahead)
    {
        analyze = options(&mut ahead);
        *words = ahead;
    } else {
        analyze |= words.eat_any(&["analyze", "analyse"]).is_some();
        words.eat("verbose");
    }
    if words.sees("execute") {
        return Class::Lexical(Lexical::new(Kind::SqlPrepare, Rule::Default).verb(Verb::Select));
    }
    let access = if analyze { Access::Write } else { Access::Primary };
    let otherwise = Lexical::by_tables("EXPLAIN", Kind::Query).access(access).verb(Verb::Select);
    let query = words.at()..words.text().len();
    let parsed = ["select", "insert", "update", "delete", "merge", "with", "values", "table"];
    if parsed.iter().any(|w| words.sees(w)) || opens(words) {
        Class::Around { wrap: Wrap::Explain { analyze }, query, otherwise }
    } else {
        Class::Lexical(otherwise)
    }
}

fn opens(words: &Words<'_>) -> bool {
    words.peek().is_some_and(|t| t.is_symbol(b'('))
}

/// EXPLAIN's options up to past their parenthesis: whether ANALYZE is on. What is not plainly off counts as on.
fn options(words: &mut Words<'_>) -> bool {
    let mut analyze = false;
    loop {
        if words.eat_any(&["analyze", "analyse"]).is_some() {
            let off = words.eat_any(&["off", "false"]).is_some() || words.number().is_some_and(|n| n == "0");
            analyze |= !off;
        }
        match words.bump() {
            Some(token) if token.is_symbol(b')') => return analyze,
            Some(_) => {}
            None => return true,
        }
    }
}

/// DO and CALL: their code is theirs to know, and may leave anything behind in the session.
fn code(first: &str, statement: &[u8]) -> Lexical {
    let changes_schema = first == "do" && {
        let lower = statement.to_ascii_lowercase();
        ["create", "alter", "drop"].iter().any(|word| memchr::memmem::find(&lower, word.as_bytes()).is_some())
    };
    let rule =
        Rule::Tables { construct: first.to_uppercase(), reason: None, in_strings: true, hint: RUN_ON_EACH };
    Lexical::new(if changes_schema { Kind::Ddl } else { Kind::Query }, rule).pin(Pin::Unseen)
}

/// An operator's command: its words in upper case, names without their quotes, constants as their values.
fn command(statement: &[u8], env: &Env) -> Result<Kind, RouteError> {
    let mut words = Words::new(statement, env.nonstandard_strings);
    let mut parts = Vec::new();
    while !words.is_done() {
        let part = words.word().map(|word| word.to_uppercase());
        let part = part.or_else(|| words.name()).or_else(|| words.string(env)).or_else(|| words.number());
        parts.push(part.ok_or_else(|| words.syntax_error())?);
    }
    Ok(Kind::Command(parts))
}

/// Whether a query makes a table that outlives the session: `SELECT … INTO [TABLE] name …` at its top level.
pub(super) fn selects_into(statement: &[u8], nonstandard: bool) -> bool {
    let mut words = Words::new(statement, nonstandard);
    if !words.sees("select") && !words.sees("with") && !opens(&words) {
        return false;
    }
    let mut depth = 0usize;
    while let Some(token) = words.bump() {
        if token.is_symbol(b'(') {
            depth += 1;
        } else if token.is_symbol(b')') {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && (token.is_word(statement, "insert") || token.is_word(statement, "merge")) {
            return false;
        } else if depth == 0 && token.is_word(statement, "into") {
            words.eat_any(&["local", "global"]);
            return !words.sees("temp") && !words.sees("temporary");
        }
    }
    false
}
