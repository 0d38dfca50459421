//! SQL text, parameter values and the map to a [`Route`]. Alone in naming `sqlparser`.
//! Must not do I/O, await, or know servers, roles in force, or sessions.

mod copy;
mod ddl;
mod fallback;
mod fingerprint;
mod hint;
mod lex;
mod lex_quoted;
mod literal;
mod names;
mod parse;
mod set;
mod transaction;
mod types;
mod utility;
mod words;

pub use self::types::{
    Access, Env, Kind, Param, Pin, Route, RouteError, SetParameter, Target, TransactionModes, Verb,
};

use std::ops::Range;
use std::sync::Arc;

use crate::catalog::Catalog;
use crate::shard::Map;

/// The router of one database under one map and one catalog; replaced as a whole when either changes.
#[derive(Debug)]
pub struct Router {
    map: Arc<Map>,
    catalog: Arc<Catalog>,
}

/// One statement of a client's text: an analysed plan (shared through the cache) plus where this text's literals are.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Where it stands in the text, bytes, without the semicolon.
    pub span: Range<usize>,
}

impl Router {
    /// A router; `cache` is the number of plans kept.
    #[must_use]
    pub fn new(map: Arc<Map>, catalog: Arc<Catalog>, cache: usize) -> Self {
        let _ = cache;
        Self { map, catalog }
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
    /// # Errors
    /// [`RouteError`] if the text as a whole cannot be understood and must not be passed on.
    pub fn prepare(&self, text: &[u8], env: &Env) -> Result<smallvec::SmallVec<[Statement; 1]>, RouteError> {
        let _ = (text, env);
        Ok(smallvec::smallvec![Statement { span: 0..text.len() }])
    }
}

impl Statement {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        &Kind::Query
    }

    /// Where it goes with these values. `text` is the text it was prepared from.
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
        let _ = (text, params, env);
        Ok(Route {
            target: Target::Shard(router.map.default_shard),
            access: Access::Write,
            verb: Verb::Other,
            rewrite: None,
            pin: None,
            binds_transaction: false,
        })
    }
}
