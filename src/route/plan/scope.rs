//! Which column a name means: the FROM items in sight, block by block outwards.
//! Must not know shards or conditions.

use std::rc::Rc;

use sqlparser::ast::Ident;

use super::graph::Node;
use super::names::folded;

/// A column in sight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Visible {
    /// Its name; empty where it is not known.
    pub(super) name: String,
    /// What it is; `None` for what nothing can be concluded from (FULL JOIN … USING).
    pub(super) node: Option<Node>,
}

/// A FROM item under the name it can be qualified by.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// Alias or table name.
    pub(super) name: String,
    /// The schema, of a table without alias.
    pub(super) schema: Option<String>,
    /// Its columns.
    pub(super) columns: Vec<Visible>,
}

/// A FROM list, or a part of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Rel {
    /// By which names columns can be qualified.
    pub(super) items: Vec<Item>,
    /// The columns `*` stands for, in order, those merged by USING once.
    pub(super) columns: Vec<Visible>,
    /// There are columns that are not listed.
    pub(super) open: bool,
    /// The tables that its rows are made of.
    pub(super) insts: Vec<usize>,
}

impl Rel {
    /// The only column of that name.
    pub(super) fn only(&self, name: &str) -> Option<Node> {
        let mut found = self.columns.iter().filter(|c| c.name == name);
        let first = found.next()?;
        if found.next().is_some() { None } else { first.node }
    }

    /// Puts another FROM item beside this one.
    pub(super) fn append(&mut self, other: Self) {
        self.items.extend(other.items);
        self.columns.extend(other.columns);
        self.insts.extend(other.insts);
        self.open |= other.open;
    }
}

/// What is in sight at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'s> {
    /// The FROM items of the innermost block.
    pub(super) rels: &'s [&'s Rel],
    /// Those of the block round it.
    pub(super) outer: Option<&'s Scope<'s>>,
}

impl Scope<'_> {
    /// The column that a name of one to three parts means, and how many blocks further out it is.
    ///
    /// `None` if that is not certain. A name that a block might have, but that is not listed there, is not
    /// looked for further out.
    pub(super) fn column(&self, name: &[Ident]) -> Option<(Node, usize)> {
        let parts: Vec<String> = name.iter().map(folded).collect();
        let mut scope = Some(self);
        let mut level = 0;
        while let Some(here) = scope {
            match here.look(&parts) {
                Look::Found(node) => return Some((node, level)),
                Look::Unclear => return None,
                Look::NotHere => (scope, level) = (here.outer, level + 1),
            }
        }
        None
    }

    fn look(&self, parts: &[String]) -> Look {
        match parts {
            [column] => {
                let mut found = self.rels.iter().flat_map(|r| &r.columns).filter(|c| c.name == *column);
                match (found.next(), found.next()) {
                    (Some(one), None) => one.node.map_or(Look::Unclear, Look::Found),
                    (Some(_), Some(_)) => Look::Unclear,
                    (None, _) if self.rels.iter().any(|r| r.open) => Look::Unclear,
                    (None, _) => Look::NotHere,
                }
            }
            [item, column] => self.qualified(None, item, column),
            [schema, item, column] => self.qualified(Some(schema), item, column),
            _ => Look::Unclear,
        }
    }

    fn qualified(&self, schema: Option<&String>, item: &str, column: &str) -> Look {
        let fits = |i: &&Item| i.name == item && (schema.is_none() || i.schema.as_ref() == schema);
        let mut items = self.rels.iter().flat_map(|r| &r.items).filter(fits);
        match (items.next(), items.next()) {
            (Some(item), None) => {
                let mut found = item.columns.iter().filter(|c| c.name == column);
                match (found.next(), found.next()) {
                    (Some(one), None) => one.node.map_or(Look::Unclear, Look::Found),
                    _ => Look::Unclear,
                }
            }
            (Some(_), Some(_)) => Look::Unclear,
            (None, _) => Look::NotHere,
        }
    }
}

enum Look {
    Found(Node),
    Unclear,
    NotHere,
}

/// The CTEs in sight, innermost first.
#[derive(Debug, Clone, Default)]
pub(super) struct Ctes(Option<Rc<Link>>);

#[derive(Debug)]
struct Link {
    name: String,
    id: usize,
    next: Ctes,
}

impl Ctes {
    /// These and one more.
    pub(super) fn with(&self, name: String, id: usize) -> Self {
        Self(Some(Rc::new(Link { name, id, next: self.clone() })))
    }

    /// The CTE of that name.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let mut at = self;
        while let Some(link) = &at.0 {
            if link.name == name {
                return Some(link.id);
            }
            at = &link.next;
        }
        None
    }
}
