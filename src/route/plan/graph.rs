//! Which columns of a statement are known to be equal, and what conditions follow for each table's keys.
//! Must not know syntax: it is told of tables ([`Inst`]), equalities and conditions.
//!
//! An edge `a → b` says: a row of b's table can matter to the answer only if its b equals the a of rows that
//! matter. It is directed because an outer join's ON says nothing of the preserved side, and a subquery's WHERE
//! nothing of the outer rows.

use std::collections::{HashMap, HashSet};

use super::cond::{Cond, Leaf, Test, key_column};
use super::keys::{Operand, Typed, class};
use crate::shard::{KeyColumn, Map, Method, TableName};

/// A column of one appearance of a table in the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// Which appearance.
    pub(super) inst: usize,
    /// Which column.
    pub(super) column: usize,
}

/// One column of an [`Inst`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InstColumn {
    /// Its name, folded; empty where it is not known.
    pub(super) name: String,
    /// Its type, if keys can be concluded from it.
    pub(super) typed: Option<Typed>,
    /// Its order is the one that range keys are in.
    pub(super) ordered: bool,
    /// n of varchar(n) and char(n).
    pub(super) length: Option<usize>,
    /// The constants that it can be, if it is one.
    pub(super) constants: Vec<Operand>,
}

/// What an appearance of a table is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its rows are read, updated or deleted.
    Read,
    /// Rows are inserted: its keys are those of the new rows.
    Inserted,
}

/// One appearance of a table, subquery or function in a FROM list, or as the target of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inst {
    /// Its columns.
    pub(super) columns: Vec<InstColumn>,
    /// It has columns that are not listed.
    pub(super) open: bool,
    /// The sharded table that it is.
    pub(super) sharded: Option<Sharded>,
    /// The query block it stands in, in order of appearance.
    pub(super) block: usize,
    /// An outer join may make up NULLs in its place.
    pub(super) nullable: bool,
    /// What it is there for.
    pub(super) role: Role,
}

/// What of a sharded table matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sharded {
    /// Its name.
    pub(super) table: TableName,
    /// The positions of its key columns among the columns, in the order of the config.
    pub(super) keys: Vec<Option<usize>>,
}

/// A condition that every row (or combination of rows) that matters satisfies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Formula {
    /// Nothing is known.
    True,
    /// No row satisfies it.
    False,
    /// A comparison with constants.
    Atom(Node, Test),
    /// Two columns are equal, neither NULL.
    Equal(Node, Node),
    /// As an edge, if the target's table is among those the condition is about.
    Into(Node, Node),
    /// As an edge, always.
    Flow(Node, Node),
    /// All of these.
    And(Vec<Formula>),
    /// One of these.
    Or(Vec<Formula>),
}

impl Formula {
    /// One of `formulas`.
    pub(super) fn or(formulas: Vec<Self>) -> Self {
        let mut kept: Vec<_> = formulas.into_iter().filter(|f| *f != Self::False).collect();
        match kept.len() {
            0 => Self::False,
            1 => kept.remove(0),
            _ => Self::Or(kept),
        }
    }

    /// Whether it cannot hold where all of `insts` are made up of NULLs.
    pub(super) fn rejects_nulls_of(&self, insts: &[usize]) -> bool {
        let null = |node: &Node| insts.contains(&node.inst);
        match self {
            Self::False => true,
            Self::Atom(_, Test::Same(_)) => false, // NULL is not distinct from a NULL parameter
            Self::Atom(node, Test::In(_) | Test::AnyOf(_) | Test::Order(..)) => null(node),
            Self::Equal(a, b) => null(a) || null(b),
            Self::And(all) => all.iter().any(|f| f.rejects_nulls_of(insts)),
            Self::Or(any) => any.iter().all(|f| f.rejects_nulls_of(insts)),
            Self::True | Self::Into(..) | Self::Flow(..) => false,
        }
    }
}

#[derive(Debug)]
struct Fact {
    formula: Formula,
    about: Vec<usize>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The appearances.
    pub(super) insts: Vec<Inst>,
    into: HashMap<Node, Vec<Node>>,
    facts: Vec<Fact>,
}

impl Graph {
    /// Adds an appearance.
    pub(super) fn add(&mut self, inst: Inst) -> usize {
        self.insts.push(inst);
        self.insts.len() - 1
    }

    /// The column behind a node.
    pub(super) fn column(&self, node: Node) -> Option<&InstColumn> {
        self.insts.get(node.inst)?.columns.get(node.column)
    }

    /// The type of a node, if keys can be concluded from it.
    pub(super) fn typed(&self, node: Node) -> Option<Typed> {
        self.column(node)?.typed
    }

    /// Adds an edge, if both types hash and compare alike.
    pub(super) fn edge(&mut self, from: Node, to: Node) {
        if let (Some(a), Some(b)) = (self.typed(from), self.typed(to))
            && class(a.kind) == class(b.kind)
        {
            self.into.entry(to).or_default().push(from);
        }
    }

    /// Takes in a condition about `insts`: rows of any other table are not restricted by it.
    pub(super) fn assert(&mut self, formula: Formula, insts: &[usize]) {
        match formula {
            Formula::True => {}
            Formula::And(all) => all.into_iter().for_each(|f| self.assert(f, insts)),
            Formula::Equal(a, b) => {
                if insts.contains(&b.inst) {
                    self.edge(a, b);
                }
                if insts.contains(&a.inst) {
                    self.edge(b, a);
                }
            }
            Formula::Into(from, to) => {
                if insts.contains(&to.inst) {
                    self.edge(from, to);
                }
            }
            Formula::Flow(from, to) => self.edge(from, to),
            other @ (Formula::False | Formula::Atom(..) | Formula::Or(_)) => {
                self.facts.push(Fact { formula: other, about: insts.to_vec() });
            }
        }
    }

    /// Every node from which edges lead to `node`, itself included.
    fn sources(&self, node: Node) -> HashSet<Node> {
        let mut seen = HashSet::from([node]);
        let mut todo = vec![node];
        while let Some(next) = todo.pop() {
            for from in self.into.get(&next).into_iter().flatten() {
                if seen.insert(*from) {
                    todo.push(*from);
                }
            }
        }
        seen
    }

    /// The key column that a node is.
    pub(super) fn key_of<'m>(&self, node: Node, map: &'m Map) -> Option<&'m KeyColumn> {
        let sharded = self.insts.get(node.inst)?.sharded.as_ref()?;
        let key = sharded.keys.iter().position(|k| *k == Some(node.column))?;
        key_column(map, &sharded.table, key)
    }

    /// Whether each row of `to` that matters has the key of a row of `from` that matters.
    pub(super) fn leads(&self, from: Node, to: Node) -> bool {
        self.sources(to).contains(&from)
    }

    /// What is known of one column of a sharded table, as a condition on its nth key.
    pub(super) fn cond_of(&self, node: Node, key: usize, column: &KeyColumn) -> Cond {
        let inst = node.inst;
        self.translate_all(inst, &[Target::new(self.sources(node), key, column)])
    }

    /// What is known of the rows of a sharded table.
    pub(super) fn cond(&self, inst: usize, columns: &[KeyColumn]) -> Cond {
        let keys = self.insts.get(inst).and_then(|i| i.sharded.as_ref()).map(|s| s.keys.as_slice());
        let targets: Vec<_> = keys
            .unwrap_or_default()
            .iter()
            .zip(columns)
            .enumerate()
            .filter_map(|(key, (at, column))| {
                let node = Node { inst, column: (*at)? };
                Some(Target::new(self.sources(node), key, column))
            })
            .collect();
        self.translate_all(inst, &targets)
    }

    fn translate_all(&self, inst: usize, targets: &[Target]) -> Cond {
        Cond::and(self.facts.iter().map(|fact| {
            if fact.formula == Formula::False && fact.about.contains(&inst) {
                return Cond::Nothing;
            }
            self.translate(&fact.formula, &fact.about, targets)
        }))
    }

    fn translate(&self, formula: &Formula, about: &[usize], targets: &[Target]) -> Cond {
        match formula {
            Formula::Atom(node, test) if about.contains(&node.inst) => {
                Cond::and(targets.iter().filter_map(|target| self.leaf(*node, test, target)))
            }
            Formula::And(all) => Cond::and(all.iter().map(|f| self.translate(f, about, targets))),
            Formula::Or(any) => Cond::or(any.iter().map(|f| self.translate(f, about, targets))),
            Formula::Atom(..)
            | Formula::True
            | Formula::False
            | Formula::Equal(..)
            | Formula::Into(..)
            | Formula::Flow(..) => Cond::All,
        }
    }

    fn leaf(&self, node: Node, test: &Test, target: &Target) -> Option<Cond> {
        let column = self.column(node).filter(|_| target.sources.contains(&node))?;
        let typed = column.typed?;
        if matches!(test, Test::Order(..)) && !(target.ranged && column.ordered) {
            return None;
        }
        Some(Cond::Leaf(Leaf { key: target.key, hashed: target.hashed, typed, test: test.clone() }))
    }
}

/// A key column for which conditions are sought.
struct Target {
    sources: HashSet<Node>,
    key: usize,
    hashed: bool,
    ranged: bool,
}

impl Target {
    fn new(sources: HashSet<Node>, key: usize, column: &KeyColumn) -> Self {
        let (hashed, ranged) = match column.method {
            Method::Hash => (true, false),
            Method::List(_) => (false, false),
            Method::Range(_) => (false, true),
        };
        Self { sources, key, hashed, ranged }
    }
}
