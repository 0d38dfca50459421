//! Which tables a text may name, without parsing it: every word, quoted name, body of code and function called counts.
//! Must not know statements. It errs towards seeing a table where there is none.

use std::collections::{HashMap, HashSet};

use crate::catalog::{Catalog, RelationKind};
use crate::shard::{Map, Placement, ShardId, ShardSet, TableName};

use super::Env;
use super::bytes::is_word_byte;
use super::lex::{Lexer, LiteralKind, TokenKind};
use super::words::identifier;

/// Where the tables of one bare name live, all schemas together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Sharded, reference, or on different shards in different schemas.
    Spread,
    On(ShardId),
}

impl Place {
    fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Spread }
    }
}

/// All names by which a table can be reached.
#[derive(Debug)]
pub(super) struct Lexicon {
    places: HashMap<String, Place>,
    /// Names that are not one word in lower case; inside code they are searched for as they are.
    awkward: Vec<String>,
    /// Bodies of users' functions, by name.
    functions: HashMap<String, String>,
}

/// What a text names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    /// A table that is not on one shard.
    pub(super) spread: Option<String>,
    /// The shards of all others.
    pub(super) shards: ShardSet,
    /// A name that cannot be told: `U&"…" UESCAPE`, or code that makes SQL while it runs.
    pub(super) unclear: Option<&'static str>,
}

impl Lexicon {
    /// The names of a map's and a catalog's tables.
    pub(super) fn new(map: &Map, catalog: &Catalog) -> Self {
        let mut lexicon = Self { places: HashMap::new(), awkward: Vec::new(), functions: HashMap::new() };
        for (table, placement) in &map.tables {
            lexicon.add(&table.name, place(placement));
        }
        let place_of = |schema: &str, name: &str| place(&map.placement(&TableName::new(schema, name)));
        for ((schema, name), relation) in &catalog.relations {
            match relation.kind {
                RelationKind::Sequence => continue,
                RelationKind::View | RelationKind::MaterializedView => {
                    let reads = relation.reads.iter().map(|(schema, name)| place_of(schema, name));
                    let all = reads.reduce(Place::and);
                    lexicon.add(name, all.unwrap_or(Place::On(map.default_shard)));
                }
                RelationKind::Table | RelationKind::Foreign => lexicon.add(name, place_of(schema, name)),
            }
        }
        lexicon.awkward = lexicon.places.keys().filter(|name| !is_plain(name)).cloned().collect();
        let bodies = catalog.functions.iter().filter(|(_, f)| f.is_user && !f.source.is_empty());
        lexicon.functions = bodies.map(|(name, f)| (name.clone(), f.source.clone())).collect();
        lexicon
    }

    fn add(&mut self, name: &str, place: Place) {
        self.places.entry(name.to_owned()).and_modify(|p| *p = p.and(place)).or_insert(place);
    }

    /// What a statement names. `in_strings`: its strings may be code too (dollar-quoted ones always may).
    pub(super) fn named(&self, statement: &[u8], env: &Env, in_strings: bool) -> Named {
        let mut search =
            Search { lexicon: self, found: Named::default(), code: Vec::new(), seen: HashSet::new() };
        if env.foreign_encoding && !statement.is_ascii() && !self.places.keys().all(|name| name.is_ascii()) {
            search.found.unclear = Some("names in an encoding other than UTF-8");
        }
        let mut after_unicode = false;
        for token in Lexer::new(statement, env.nonstandard_strings) {
            match token.kind {
                TokenKind::Word | TokenKind::Quoted | TokenKind::UnicodeQuoted => {
                    if after_unicode && token.is_word(statement, "uescape") {
                        search.found.unclear = Some("a name with UESCAPE");
                    }
                    match identifier(&token, statement) {
                        Some(name) => search.name(&name),
                        None => search.found.unclear = Some("a malformed name"),
                    }
                }
                TokenKind::Literal(LiteralKind::Dollar) => search.body(token.bytes(statement)),
                TokenKind::Literal(LiteralKind::Integer | LiteralKind::Number) => {}
                TokenKind::Literal(_) if in_strings => search.body(token.bytes(statement)),
                TokenKind::Literal(_)
                | TokenKind::Param
                | TokenKind::Operator
                | TokenKind::Symbol(_)
                | TokenKind::Comment
                | TokenKind::Unterminated(_) => {}
            }
            after_unicode =
                token.kind == TokenKind::UnicodeQuoted || after_unicode && token.kind == TokenKind::Comment;
        }
        while let Some(source) = search.code.pop() {
            search.body(source.as_bytes());
        }
        search.found
    }
}

fn place(placement: &Placement) -> Place {
    match placement {
        Placement::Single(shard) => Place::On(*shard),
        Placement::Sharded(_) | Placement::Reference => Place::Spread,
    }
}

/// Whether a name can be written without quotes.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| is_word_byte(b) && !b.is_ascii_uppercase())
        && !name.starts_with(|c: char| c.is_ascii_digit() || c == '$')
}

struct Search<'l> {
    lexicon: &'l Lexicon,
    found: Named,
    code: Vec<&'l str>,
    seen: HashSet<&'l str>,
}

impl Search<'_> {
    fn name(&mut self, name: &str) {
        match self.lexicon.places.get(name) {
            Some(Place::Spread) => self.found.spread = Some(name.to_owned()),
            Some(Place::On(shard)) => self.found.shards.insert(*shard),
            None => {}
        }
        if let Some((name, source)) = self.lexicon.functions.get_key_value(name)
            && self.seen.insert(name)
        {
            self.code.push(source);
        }
    }

    /// Code is not lexed but searched for words, whatever quotes they stand in.
    fn body(&mut self, code: &[u8]) {
        for word in code.split(|b| !is_word_byte(*b)).filter(|word| !word.is_empty()) {
            if word.eq_ignore_ascii_case(b"execute") {
                self.found.unclear = Some("code that makes SQL while it runs (EXECUTE)");
            }
            self.name(&String::from_utf8_lossy(&word.to_ascii_lowercase()));
        }
        for name in &self.lexicon.awkward {
            if memchr::memmem::find(code, name.as_bytes()).is_some() {
                self.name(name);
            }
        }
    }
}
