//! SQL text, parameter values and the map to a [`Route`]. Alone in naming `sqlparser`.
//! Must not do I/O, await, or know servers, roles in force, or sessions.
//!
//! A text like one seen before, but for literals, is laid over that one ([`template`]). Any other is looked up by its
//! exact text, else lexed ([`lex`]) and split into statements ([`fingerprint`]), each looked up by its normal form
//! ([`cache`]). One that is new is told by its first words ([`utility`]); queries and DML are parsed ([`parse`]) and
//! analysed ([`plan`]), all else is routed by its words ([`fallback`]).

mod bytes;
mod cache;
mod copy;
mod ddl;
mod fallback;
mod filter;
mod fingerprint;
mod forms;
mod hint;
mod lex;
mod lex_quoted;
mod literal;
mod names;
mod parse;
mod plan;
mod prepared;
mod set;
mod set_config;
mod shown;
mod signal;
mod template;
mod transaction;
mod types;
mod utility;
mod virtual_expr;
mod virtual_select;
mod words;
mod work;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod lexical_tests;
#[cfg(test)]
mod router_tests;

pub use self::ddl::{changes_beginnings, databases_to_leave};
pub use self::filter::{FilterError, Fragment, condition, order, quoted};
pub use self::prepared::{Argument, Prepared, filled_by, prepared};
pub use self::set_config::names_of_list;
pub use self::shown::Fingerprint;
pub use self::signal::Signal;
pub use self::template::Recall;
pub use self::types::{
    Access, Asks, ConfigCall, ConfigValue, Env, Kind, Param, Pin, Route, RouteError, SetParameter, Target,
    TransactionModes, Verb,
};

use std::ops::Range;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::catalog::Catalog;
use crate::shard::{Map, ShardId};
use crate::wire::{ClientFacing, SqlState};

use self::cache::Cache;
use self::fallback::Ground;
use self::fingerprint::{Literals, Piece, Pieces, split};
use self::hint::{Forced, Hint};
use self::literal::is_misfit;
use self::names::Lexicon;
use self::template::Templates;
use self::work::{Values, Work};

/// The router of one database under one map and one catalog; replaced as a whole when either changes.
#[derive(Debug)]
pub struct Router {
    map: Arc<Map>,
    catalog: Arc<Catalog>,
    lexicon: Lexicon,
    templates: Templates,
    texts: Cache<Statements>,
    forms: Cache<Arc<Work>>,
}

type Statements = SmallVec<[Statement; 1]>;

/// One statement of a client's text: an analysed plan (shared through the cache) plus where this text's literals are.
/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Where it stands in the text, bytes, without the semicolon.
    pub span: Range<usize>,
    work: Arc<Work>,
    /// Relative to the span.
    literals: Literals,
    hint: Option<Arc<Result<Hint, RouteError>>>,
    /// See [`Statement::is_fresh`].
    fresh: bool,
}

impl Router {
    /// A router; `cache` is the number of plans kept.
    #[must_use]
    pub fn new(map: Arc<Map>, catalog: Arc<Catalog>, cache: usize) -> Self {
        let lexicon = Lexicon::new(&map, &catalog);
        let (texts, forms) = (Cache::new(cache), Cache::new(cache));
        Self { map, catalog, lexicon, templates: Templates::new(cache), texts, forms }
    }

    /// The map it routes by.
    #[must_use]
    pub fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// The catalog it routes by.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Splits a client's text into statements and analyses each; cheap when the cache knows it.
    ///
    /// A text that holds no statement is one statement of kind [`Kind::Empty`]. A text over a megabyte is split but
    /// not parsed.
    ///
    /// # Errors
    /// [`RouteError`] if the text as a whole cannot be understood and must not be passed on.
    pub fn prepare(&self, text: &[u8], env: &Env) -> Result<Statements, RouteError> {
        self.prepare_after(&mut Recall::default(), text, env)
    }

    /// The same for a client that asked for something before: cheaper still if this is like it.
    ///
    /// # Errors
    /// As [`Router::prepare`].
    pub fn prepare_after(
        &self,
        recall: &mut Recall,
        text: &[u8],
        env: &Env,
    ) -> Result<Statements, RouteError> {
        // Before anything else: of a literal the plans say nothing.
        if !env.foreign_encoding && std::str::from_utf8(text).is_err() {
            return Err(not_utf8(text));
        }
        let cacheable = text.len() <= cache::LONGEST;
        if cacheable {
            if let Some(known) = self.templates.get(text, env, recall) {
                return Ok(smallvec![known]);
            }
            if let Some(known) = self.texts.get(text, env) {
                return Ok(known);
            }
        }
        if u32::try_from(text.len()).is_err() {
            return Err(too_long());
        }
        if env.foreign_encoding && !text.is_ascii() && memchr::memchr(b'\\', text).is_some() {
            // In some encodings a backslash is half a character.
            return Ok(self.opaque(text, "text with backslashes in an encoding other than UTF-8", env));
        }
        let pieces = split(text, env.nonstandard_strings, cacheable);
        match pieces.unterminated {
            // One shard's server says what is wrong with it, and runs none of it.
            Some(what) if self.map.is_single() => return Ok(self.opaque(text, what, env)),
            Some(what) => return Err(unterminated(what)),
            None => {}
        }
        let literal = pieces.statements.iter().any(|piece| !piece.literals.is_empty());
        let (statements, by_text) = self.statements(text, pieces, env);
        if cacheable && (by_text || !literal) {
            let known = statements.iter().map(|s| Statement { fresh: false, ..s.clone() });
            self.texts.insert(text, env, known.collect());
        }
        if cacheable
            && !by_text
            && let [statement] = statements.as_slice()
        {
            self.templates.insert(text, env, statement);
        }
        Ok(statements)
    }

    /// The statements of a text, and whether one of them holds for this text only.
    fn statements(&self, text: &[u8], pieces: Pieces, env: &Env) -> (Statements, bool) {
        let Pieces { statements: pieces, forms, .. } = pieces;
        if pieces.is_empty() {
            let work = Arc::new(Work::empty());
            return (smallvec![Statement::whole(text, work)], false);
        }
        let mut by_text = false;
        let statements = pieces.into_iter().map(|piece| {
            let form = forms.get(piece.form.clone()).unwrap_or_default();
            let (work, exact, fresh) = self.work(text, &piece, form, env);
            by_text |= exact;
            let hint = (!piece.hints.is_empty()).then(|| Arc::new(Hint::parse(text, &piece.hints)));
            Statement { span: piece.span, work, literals: piece.literals, hint, fresh }
        });
        (statements.collect(), by_text)
    }

    /// A statement worked out, from the cache if its form is known; whether it holds for its exact text only, and
    /// whether it was worked out now.
    fn work(&self, text: &[u8], piece: &Piece, form: &[u8], env: &Env) -> (Arc<Work>, bool, bool) {
        if let Some(known) = (!form.is_empty()).then(|| self.forms.get(form, env)).flatten() {
            return (known, false, false);
        }
        let statement = text.get(piece.span.clone()).unwrap_or_default();
        // What forces a route is laid over it later, so nothing that is kept may depend on it.
        let unforced = Env { shard: None, key: None, role: None, ..env.clone() };
        let work = Arc::new(Work::new(statement, &piece.literals, self.ground(), &unforced));
        let misfit = piece.literals.iter().any(|l| is_misfit(statement, l, &unforced));
        let exact = misfit || work.by_text_only() && !piece.literals.is_empty() || work.is_refused();
        if !exact && !form.is_empty() {
            self.forms.insert(form, env, Arc::clone(&work));
        }
        (work, exact, true)
    }

    fn ground(&self) -> Ground<'_> {
        Ground { map: &self.map, catalog: &self.catalog, lexicon: &self.lexicon }
    }

    /// A text that cannot be split into statements.
    fn opaque(&self, text: &[u8], what: &str, env: &Env) -> Statements {
        smallvec![Statement::whole(text, Arc::new(Work::opaque(text, what, self.ground(), env)))]
    }
}

fn unterminated(what: &str) -> RouteError {
    RouteError::Sql {
        code: SqlState::SYNTAX_ERROR,
        message: format!("unterminated {what}"),
        detail: None,
        hint: None,
    }
}

/// A server looks at that before all else. Source: `report_invalid_encoding` in PostgreSQL's mbutils.c.
fn not_utf8(text: &[u8]) -> RouteError {
    let valid = std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), |_| text.len());
    let bad = text.get(valid..).unwrap_or_default();
    let length = match bad.first() {
        Some(0xc0..0xe0) => 2,
        Some(0xe0..0xf0) => 3,
        Some(0xf0..0xf8) => 4,
        Some(_) | None => 1,
    };
    let shown: String = bad.iter().take(length).map(|byte| format!(" 0x{byte:02x}")).collect();
    RouteError::Sql {
        code: SqlState::CHARACTER_NOT_IN_REPERTOIRE,
        message: format!("invalid byte sequence for encoding \"UTF8\":{shown}"),
        detail: None,
        hint: None,
    }
}

fn too_long() -> RouteError {
    RouteError::Sql {
        code: SqlState::PROGRAM_LIMIT_EXCEEDED,
        message: "the text is longer than 4 GB".to_owned(),
        detail: None,
        hint: None,
    }
}

impl Statement {
    fn whole(text: &[u8], work: Arc<Work>) -> Self {
        Self { span: 0..text.len(), work, literals: Literals::new(), hint: None, fresh: true }
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.work.kind
    }

    /// What its calls of `set_config` set with these values, in their order.
    ///
    /// # Errors
    /// [`RouteError`] if it would set the proxy's own parameters, or if what it sets cannot be known.
    pub fn configured(&self, params: &[Param<'_>]) -> Result<Vec<SetParameter>, RouteError> {
        let Kind::SetConfig(calls) = &self.work.kind else { return Ok(Vec::new()) };
        set_config::evaluate(calls, params)
    }

    /// Whether it was read to its end, and a server would find no syntax error in it.
    #[must_use]
    pub fn is_understood(&self) -> bool {
        self.work.is_understood()
    }

    /// The syntax error that it has, if it is one that a server need not tell.
    #[must_use]
    pub fn syntax_error(&self) -> Option<&RouteError> {
        self.work.error().filter(|error| error.sqlstate() == SqlState::SYNTAX_ERROR)
    }

    /// The process that it ends or cancels with these values, if it does that and nothing else.
    #[must_use]
    pub fn signal(&self, text: &[u8], params: &[Param<'_>], env: &Env) -> Option<Signal> {
        signal::signal(text.get(self.span.clone()).unwrap_or_default(), params, env)
    }

    /// What it has in common with statements that differ from it in values only.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.work.fingerprint
    }

    /// Whether it was worked out for this very text just now, and not known already.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What it counts as, if that can be told without its values and without others in its text.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.work.verb()
    }

    /// The shard of a single table that it names. Whatever its values, a server of another shard may not know the
    /// table, so this one can say what the statement's types are where no route can be found.
    #[must_use]
    pub fn home(&self) -> Option<ShardId> {
        self.work.home()
    }

    /// Where it goes with these values. `text` is the text it was prepared from, `router` the router that did.
    ///
    /// What the session itself carries out (transaction control, SET, …) goes anywhere. FETCH, MOVE, CLOSE,
    /// SET CONSTRAINTS and PREPARE TRANSACTION go anywhere too: wherever their transaction is.
    ///
    /// # Errors
    /// [`RouteError`] if it is refused, or if one PostgreSQL would refuse it too.
    pub fn route(
        &self,
        router: &Router,
        text: &[u8],
        params: &[Param<'_>],
        env: &Env,
    ) -> Result<Route, RouteError> {
        let forced = match self.hint.as_deref() {
            _ if self.work.is_local() => Forced::default(),
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(hint)) => Forced::new(Some(hint), env, &router.map, &router.catalog)?,
            None if env.shard.is_none() && env.key.is_none() && env.role.is_none() => Forced::default(),
            None => Forced::new(None, env, &router.map, &router.catalog)?,
        };
        let text = text.get(self.span.clone()).unwrap_or_default();
        let values = Values { text, literals: &self.literals, params };
        self.work.route(&router.map, &router.catalog, values, env, forced)
    }
}
