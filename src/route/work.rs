//! One statement worked out, without its literals: its kind, and how its route is found once values are known.
//! Must not know the text it came from, nor the caches that hold it.

use std::sync::Arc;

use crate::catalog::{Catalog, Leaves};
use crate::shard::{Map, ShardId};

use super::fallback::Ground;
use super::hint::Forced;
use super::lex::{Lexer, LiteralAt, TokenKind};
use super::parse::{Parsed, parse};
use super::plan::{Context, Plan};
use super::shown::Fingerprint;
use super::utility::{Class, Lexical, RUN_ON_EACH, Rule, Wrap, classify, selects_into};
use super::virtual_select::virtual_select;
use super::{Access, Asks, Env, Kind, Param, Pin, Route, RouteError, Target, Verb, set_config};

/// A statement worked out.
#[derive(Debug)]
pub(super) struct Work {
    /// What it is.
    pub(super) kind: Kind,
    /// What it is counted as.
    pub(super) fingerprint: Fingerprint,
    course: Course,
}

#[derive(Debug)]
enum Course {
    /// The session carries it out.
    Local,
    /// The parser read it: its key literals and parameters decide.
    Planned { plan: Box<Plan>, wrap: Option<Wrap> },
    /// Its words decided.
    Decided { alone: Route, target: Result<Target, RouteError> },
    /// It cannot be run at all.
    Failed(RouteError),
}

/// The values of one execution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Values<'a> {
    /// The statement's own text.
    pub(super) text: &'a [u8],
    /// Its literals.
    pub(super) literals: &'a [LiteralAt],
    /// Its parameters.
    pub(super) params: &'a [Param<'a>],
}

impl Work {
    /// Works a statement out. `env` is what a plan may depend on: nothing that forces a route.
    pub(super) fn new(text: &[u8], literals: &[LiteralAt], ground: Ground<'_>, env: &Env) -> Self {
        let course = Self::course(text, literals, ground, env);
        Self::of(text, env, course.unwrap_or_else(|error| (Kind::Query, Course::Failed(error))))
    }

    fn of(text: &[u8], env: &Env, (kind, course): (Kind, Course)) -> Self {
        Self { kind, fingerprint: Fingerprint::of(text, env.nonstandard_strings), course }
    }

    fn course(
        text: &[u8],
        literals: &[LiteralAt],
        ground: Ground<'_>,
        env: &Env,
    ) -> Result<(Kind, Course), RouteError> {
        let planned = |parsed: &Parsed, kind, wrap| {
            let context = Context { map: ground.map, catalog: ground.catalog, env };
            let plan = Box::new(Plan::analyze(&parsed.tree, &parsed.text, text, literals, &context));
            (kind, Course::Planned { plan, wrap })
        };
        let class = classify(text, env)?;
        if env.admin_database {
            return Self::admin(text, class, env);
        }
        match class {
            Class::Local(kind) => Ok((kind, Course::Local)),
            Class::Lexical(lexical) => Ok(Self::decided(text, lexical, ground, env)),
            Class::Parse => match parse(text, &(0..text.len()), env) {
                Ok(parsed) => {
                    if let Some(select) = virtual_select(&parsed.tree, false)? {
                        return Ok((Kind::Virtual(Arc::new(select)), Course::Local));
                    }
                    if let Some(calls) = set_config::calls(text, env) {
                        return Ok(planned(&parsed, Kind::SetConfig(calls.into()), None));
                    }
                    let creates = selects_into(text, env.nonstandard_strings);
                    Ok(planned(&parsed, if creates { Kind::Ddl } else { Kind::Query }, None))
                }
                Err(message) => {
                    let calls = without_comments(text, env.nonstandard_strings).contains(&b'(');
                    Ok(Self::decided(text, unparsed(message, calls), ground, env))
                }
            },
            Class::Around { wrap, query, otherwise } => match parse(text, &query, env) {
                Ok(parsed) => Ok(planned(&parsed, Kind::Query, Some(wrap))),
                Err(_) => Ok(Self::decided(text, otherwise, ground, env)),
            },
        }
    }

    /// On the `pgherd` database there are virtual tables, settings and commands, and no server behind it.
    fn admin(text: &[u8], class: Class, env: &Env) -> Result<(Kind, Course), RouteError> {
        let kind = match class {
            Class::Local(kind) => kind,
            Class::Lexical(Lexical { kind: kind @ Kind::Show(_), .. }) => kind,
            Class::Parse => {
                let parsed = parse(text, &(0..text.len()), env).map_err(only_virtual)?;
                let select =
                    virtual_select(&parsed.tree, true)?.ok_or_else(|| only_virtual(String::new()))?;
                Kind::Virtual(Arc::new(select))
            }
            Class::Around { .. } | Class::Lexical(_) => return Err(only_virtual(String::new())),
        };
        Ok((kind, Course::Local))
    }

    /// A text that is passed on whole, or not at all, because it cannot even be split into statements.
    pub(super) fn opaque(text: &[u8], what: &str, ground: Ground<'_>, env: &Env) -> Self {
        let decided = Self::decided(text, Lexical::new(Kind::Query, Rule::never(what)), ground, env);
        Self::of(text, env, decided)
    }

    /// Nothing but blanks and comments.
    pub(super) fn empty() -> Self {
        Self::of(b"", &Env::default(), (Kind::Empty, Course::Local))
    }

    fn decided(text: &[u8], lexical: Lexical, ground: Ground<'_>, env: &Env) -> (Kind, Course) {
        let target = ground.target(text, &lexical.rule, env);
        let Lexical { kind, mut alone, .. } = lexical;
        // Spellings that differ in comments are known as one statement: what those say must not count.
        let text = without_comments(text, env.nonstandard_strings);
        let (text, leavers) = (String::from_utf8_lossy(&text), &ground.catalog.leavers);
        let leaves = match alone.pin {
            Some(Pin::Unseen) => Some(leavers.code(&text)),
            _ => leavers.named_in(&text),
        };
        // A function that is made or dropped does not run.
        let leaves = if kind == Kind::Ddl && alone.pin != Some(Pin::Unseen) && !fills_table(&text) {
            leaves.and(Some(Leaves::Traces))
        } else {
            leaves
        };
        let leaves = leaves.max(leavers.events().filter(|_| may_define(&kind, &text)));
        alone.pin = Pin::joined(alone.pin, leaves.map(Pin::from));
        let mut asked = asked_in(&text);
        asked.prepared |= ground.catalog.tell_statements.named_in(&text).is_some();
        asked.channels |= ground.catalog.tell_channels.named_in(&text).is_some();
        alone.asks = if fills_table(&text) {
            asked
        } else if kind == Kind::Ddl {
            Asks::default() // it only names what is to run later
        } else {
            // What a block of code tells it may have drawn itself.
            Asks { undrawn: false, ..asked }
        };
        (kind, Course::Decided { alone, target })
    }

    /// Whether it depends on the value of some literal, so that it holds for its exact text only.
    pub(super) fn by_text_only(&self) -> bool {
        match &self.course {
            Course::Planned { .. } if matches!(self.kind, Kind::SetConfig(_)) => true,
            Course::Planned { plan, wrap: None } => plan.by_text_only(),
            // EXPLAIN (ANALYZE 0) is not EXPLAIN (ANALYZE 1); words in strings may be names.
            Course::Planned { .. } | Course::Local | Course::Decided { .. } | Course::Failed(_) => true,
        }
    }

    /// Whether it comes to an error, which may quote the text and say where in it.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.course, Course::Failed(_) | Course::Decided { target: Err(_), .. })
    }

    /// See [`super::Statement::is_understood`].
    pub(super) fn is_understood(&self) -> bool {
        matches!(self.course, Course::Planned { .. } | Course::Local)
    }

    /// Why it cannot be run at all.
    pub(super) fn error(&self) -> Option<&RouteError> {
        match &self.course {
            Course::Failed(error) => Some(error),
            Course::Planned { .. } | Course::Local | Course::Decided { .. } => None,
        }
    }

    /// Whether the session carries it out, so that nothing can force it anywhere.
    pub(super) fn is_local(&self) -> bool {
        matches!(self.course, Course::Local)
    }

    /// See [`super::Statement::verb`].
    pub(super) fn verb(&self) -> Verb {
        match &self.course {
            Course::Planned { wrap: Some(Wrap::Explain { .. }), .. } => Verb::Select,
            Course::Planned { wrap: Some(Wrap::Copy), .. } => Verb::Copy,
            Course::Planned { plan, .. } => plan.verb(),
            Course::Decided { alone, .. } => alone.verb,
            Course::Local | Course::Failed(_) => Verb::Other,
        }
    }

    /// See [`super::Statement::home`].
    pub(super) fn home(&self) -> Option<ShardId> {
        match &self.course {
            Course::Planned { plan, .. } => plan.home(),
            Course::Decided { .. } | Course::Local | Course::Failed(_) => None,
        }
    }

    /// Where it goes.
    ///
    /// # Errors
    /// [`RouteError`] if it is refused, or if one PostgreSQL would refuse it too.
    pub(super) fn route(
        &self,
        map: &Map,
        catalog: &Catalog,
        values: Values<'_>,
        env: &Env,
        forced: Forced,
    ) -> Result<Route, RouteError> {
        let route = match &self.course {
            Course::Local => return Ok(local()),
            Course::Failed(error) => return Err(error.clone()),
            Course::Decided { alone, target } => match (forced.shard, target) {
                (None, Err(error)) => return Err(error.clone()),
                (None, Ok(target)) => Route { target: *target, ..alone.clone() },
                (Some(shard), _) => Route { target: Target::Shard(shard), ..alone.clone() },
            },
            Course::Planned { plan, wrap } => {
                let Values { text, literals, params } = values;
                let found = plan.route(map, catalog, text, literals, params, env);
                let route = match (found, forced.shard) {
                    (Err(_), Some(shard)) => Route { target: Target::Shard(shard), ..plan.alone() },
                    (found, _) => found?,
                };
                match wrap {
                    Some(wrap) => wrap.around(forced.shard.map_or(route.target, Target::Shard), route)?,
                    // What it sets is known: it ties the session to nothing.
                    None if matches!(self.kind, Kind::SetConfig(_)) => Route { pin: None, ..route },
                    None => route,
                }
            }
        };
        if !map.is_single() && forced.shard.is_none() && route.pin.is_some() {
            tied_to_one(&route)?;
        }
        if forced.is_nothing() { Ok(route) } else { forced.apply(route) }
    }
}

/// Whether DDL may run functions by writing rows.
fn fills_table(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.take(5).any(|word| word.eq_ignore_ascii_case("table"))
}

/// Whether a statement may fire event triggers.
fn may_define(kind: &Kind, text: &str) -> bool {
    let fires = |word: &str| {
        ["comment", "create", "do", "call", "refresh", "reindex"].iter().any(|w| word.eq_ignore_ascii_case(w))
    };
    let mut words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    *kind == Kind::Ddl || words.any(fires)
}

/// What a text asks, by its words.
fn asked_in(text: &str) -> Asks {
    let mut asks = Asks::default();
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
        let is = |name: &str| word.eq_ignore_ascii_case(name);
        asks.sequence |= is("lastval") || is("currval");
        asks.undrawn = asks.sequence;
        asks.channels |= is("pg_listening_channels");
        asks.notifies |= is("notify") || is("pg_notify");
        asks.prepared |= is("pg_prepared_statements") || is("pg_prepared_statement");
    }
    asks
}

/// What code leaves in a session must be known to follow it from shard to shard.
fn tied_to_one(route: &Route) -> Result<(), RouteError> {
    let refused =
        |what: &str, hint: &str| Err(RouteError::Refused { what: what.to_owned(), hint: hint.to_owned() });
    match route.pin {
        Some(Pin::SetConfig) => refused(
            "code that may set a setting of the session whose name is not a constant",
            "Call set_config with the name as a constant and false, or with true: for the transaction.",
        ),
        Some(Pin::Other) => {
            refused("code that may leave something in the session that nothing undoes", RUN_ON_EACH)
        }
        _ if matches!(route.target, Target::Fanout(_)) => refused(
            "code that may leave something in the session, over several shards",
            "Add a condition on the sharding key.",
        ),
        _ => Ok(()),
    }
}

fn only_virtual(reason: String) -> RouteError {
    let because = if reason.is_empty() { reason } else { format!(": {reason}") };
    RouteError::Refused {
        what: format!(
            "the \"pgherd\" database answers SHOW, commands and SELECT of one virtual table only{because}"
        ),
        hint: "SHOW HELP lists the tables and commands; connect to another database for its data.".to_owned(),
    }
}

/// The route of what has none.
fn local() -> Route {
    Route::anywhere(Access::Primary)
}

/// A text with blanks for its comments.
fn without_comments(text: &[u8], nonstandard_strings: bool) -> Vec<u8> {
    let mut bare = text.to_vec();
    for token in Lexer::new(text, nonstandard_strings).filter(|t| t.kind == TokenKind::Comment) {
        if let Some(comment) = bare.get_mut(token.start..token.end) {
            comment.fill(b' ');
        }
    }
    bare
}

/// How a statement is routed that the parser does not know. `calls`: it may call functions that nobody knows of.
fn unparsed(message: String, calls: bool) -> Lexical {
    let rule = Rule::Tables {
        construct: "a statement that pgherd does not understand".to_owned(),
        reason: Some(message),
        in_strings: true,
        hint: "Write it in a simpler way, or name the shard that holds its rows: /* pgherd: shard=NAME */ before it.",
    };
    let lexical = Lexical::new(Kind::Query, rule);
    if calls { lexical.pin(Pin::Unseen) } else { lexical }
}

impl Wrap {
    /// The route of the whole from the route of its query.
    fn around(self, target: Target, query: Route) -> Result<Route, RouteError> {
        let construct = match self {
            Self::Explain { .. } => "EXPLAIN",
            Self::Cursor { .. } => "DECLARE CURSOR",
            Self::Copy => "COPY (query) TO",
        };
        if matches!(target, Target::Fanout(_)) {
            let what = format!("{construct} of a query over several shards");
            return Err(RouteError::Refused { what, hint: RUN_ON_EACH.to_owned() });
        }
        let route = Route { target, ..query };
        Ok(match self {
            Self::Explain { analyze: true } => Route { verb: Verb::Select, ..route },
            Self::Explain { analyze: false } => {
                let access = if route.access == Access::Write { Access::Read } else { route.access };
                Route { verb: Verb::Select, access, pin: None, binds_transaction: false, ..route }
            }
            Self::Cursor { hold: false } => Route { binds_transaction: true, ..route },
            Self::Cursor { hold: true } => {
                let access = if route.access == Access::Write { Access::Write } else { Access::Primary };
                Route { pin: Some(Pin::HoldCursor), binds_transaction: true, access, ..route }
            }
            Self::Copy => Route { verb: Verb::Copy, ..route },
        })
    }
}
