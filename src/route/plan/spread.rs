//! Whether a query that one shard cannot answer is answered exactly by all of them, their rows concatenated.
//! Must not know values. When in doubt it is refused. Source: DESIGN, section 5, tier 1.

use sqlparser::ast::{Distinct, GroupByExpr, Query, Select, SetExpr, SetOperator, Statement};

use super::analysis::{Aggregate, Analysis, Block};
use super::functions::{self, Spread};
use super::graph::{Node, Role};
use crate::catalog::Relation;

/// Why a query cannot be spread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// The construct with its preposition, e.g. `ORDER BY over`; a table's name follows.
    pub(super) lead: String,
    /// What to write instead, beside adding the key.
    pub(super) hint: Option<String>,
}

impl Obstacle {
    /// Of one construct.
    pub(super) fn new(lead: impl Into<String>) -> Self {
        Self { lead: lead.into(), hint: None }
    }
}

/// Aggregates whose result does not depend on the order of rows.
const ORDERLESS: &[&str] =
    &["bit_and", "bit_or", "bool_and", "bool_or", "count", "every", "max", "min", "sum"];

impl Analysis<'_> {
    /// The first thing that forbids to concatenate the answers of several shards.
    pub(super) fn obstacle(&self, statement: &Statement) -> Result<(), Obstacle> {
        let Statement::Query(query) = statement else { return Err(Obstacle::new(written(statement))) };
        self.whole(query)?;
        let select = plain_select(query)?;
        self.top(select)?;
        query_end(query)?;
        self.calls()?;
        self.calls_of_rows()?;
        self.inner_blocks()?;
        self.one_driver()
    }

    fn whole(&self, query: &Query) -> Result<(), Obstacle> {
        if let SetExpr::Insert(s) | SetExpr::Update(s) | SetExpr::Delete(s) | SetExpr::Merge(s) =
            query.body.as_ref()
        {
            return Err(Obstacle::new(written(s)));
        }
        if self.survey.writes {
            return Err(Obstacle::new("a WITH query that writes, over"));
        }
        if self.survey.into.is_some() {
            return Err(Obstacle::new("SELECT INTO over"));
        }
        if !self.survey.locks.is_empty() {
            return Err(Obstacle::new("FOR UPDATE or FOR SHARE over"));
        }
        if self.survey.samples {
            return Err(Obstacle::new("TABLESAMPLE over"));
        }
        if let Some(local) = &self.survey.local_value {
            return Err(Obstacle::new(format!("{local} over")));
        }
        if query.with.is_some() {
            return Err(Obstacle::new("WITH over"));
        }
        Ok(())
    }

    fn top(&self, select: &Select) -> Result<(), Obstacle> {
        let empty = Block::default();
        let block = self.blocks.first().unwrap_or(&empty);
        if let Some(Aggregate { name, star }) = block.aggregates.first() {
            let arguments = if *star { "*" } else { "…" };
            return Err(Obstacle::new(format!("aggregate {name}({arguments}) over")));
        }
        if let Some(name) = block.windows.first() {
            return Err(Obstacle::new(format!("window function {name}(…) over")));
        }
        if !matches!(&select.group_by, GroupByExpr::Expressions(exprs, _) if exprs.is_empty()) {
            return Err(Obstacle::new("GROUP BY over"));
        }
        if select.having.is_some() {
            return Err(Obstacle::new("HAVING over"));
        }
        if select.distinct.as_ref().is_some_and(|d| *d != Distinct::All) {
            return Err(Obstacle::new("DISTINCT over"));
        }
        Ok(())
    }

    fn calls(&self) -> Result<(), Obstacle> {
        for call in &self.survey.calls {
            let spread = functions::spread(&call.name, self.ctx.catalog);
            let differs = match spread {
                Spread::Same => false,
                Spread::AnyPerRow | Spread::AllRows => call.in_from,
                Spread::Differs => true,
            };
            if differs {
                return Err(Obstacle {
                    lead: format!("function {}, whose answer differs from shard to shard, over", call.name),
                    hint: Some(format!("pass the value of {} as a literal or parameter", call.name)),
                });
            }
        }
        Ok(())
    }

    /// `row.count` is count(row) where the row has no such column.
    fn calls_of_rows(&self) -> Result<(), Obstacle> {
        let catalog = self.ctx.catalog;
        let of_table = |((_, table), relation): (&(String, String), &Relation), name: &str| {
            self.survey.tables.contains(table) && relation.column(name).is_some()
        };
        let is_column = |name: &str| catalog.relations.iter().any(|entry| of_table(entry, name));
        // A subquery's columns may have any name.
        let fields = self.survey.fields.iter().filter(|_| self.survey.queries == 1);
        for name in fields.filter(|name| catalog.functions.contains_key(*name)) {
            let spread = functions::spread(name, catalog);
            if matches!(spread, Spread::AllRows | Spread::Differs) && !is_column(name) {
                return Err(Obstacle::new(format!("function {name} of a whole row, over")));
            }
        }
        Ok(())
    }

    /// What subqueries do that has no sharded table to hold on to is computed on each shard anew: it must come
    /// out the same.
    fn inner_blocks(&self) -> Result<(), Obstacle> {
        for (number, block) in self.blocks.iter().enumerate().skip(1) {
            if block.outer_aggregate {
                return Err(Obstacle::new("an aggregate of an outer query over"));
            }
            if self.graph.insts.iter().any(|i| i.block == number && i.sharded.is_some()) {
                continue;
            }
            if block.cut {
                return Err(Obstacle::new("LIMIT, OFFSET or DISTINCT ON in a subquery beside"));
            }
            let ordered = block.aggregates.iter().find(|a| !ORDERLESS.contains(&a.name.as_str()));
            let name = ordered.map(|a| &a.name).or(block.any_answer.first()).or(block.windows.first());
            if let Some(name) = name {
                return Err(Obstacle::new(format!("function {name} in a subquery beside")));
            }
        }
        Ok(())
    }

    /// There must be one sharded table, each row of the answer holding one of its rows, whose key is also the
    /// key of every other sharded table's rows that matter: then each shard has all that its rows need.
    fn one_driver(&self) -> Result<(), Obstacle> {
        if let Some((_, what)) = self.pins.first() {
            return Err(Obstacle::new(format!("{what}, which is on one shard, together with")));
        }
        let sharded = |inst: &usize| {
            self.graph.insts.get(*inst).is_some_and(|i| i.sharded.is_some() && i.role == Role::Read)
        };
        let all: Vec<usize> = (0..self.graph.insts.len()).filter(sharded).collect();
        let may_drive =
            |inst: &&usize| self.graph.insts.get(**inst).is_some_and(|i| i.block == 0 && !i.nullable);
        let drives =
            |driver: &usize| all.iter().all(|other| other == driver || self.same_key(*driver, *other));
        if all.iter().filter(may_drive).any(drives) {
            return Ok(());
        }
        if all.iter().any(|i| may_drive(&i)) {
            return Err(Obstacle {
                lead: "a join or subquery that is not on equal sharding keys, over".to_owned(),
                hint: Some("join the sharded tables on their keys".to_owned()),
            });
        }
        if all.iter().any(|i| self.graph.insts.get(*i).is_some_and(|i| i.block == 0)) {
            return Err(Obstacle::new("an outer join that would repeat rows on every shard, over"));
        }
        Err(Obstacle::new("a subquery over"))
    }

    /// Whether rows of `other` that matter have the same key as a row of `driver`, by the same method.
    fn same_key(&self, driver: usize, other: usize) -> bool {
        let keys = |inst: usize| {
            let sharded = self.graph.insts.get(inst).and_then(|i| i.sharded.as_ref());
            let columns = sharded.map(|s| s.keys.as_slice()).unwrap_or_default();
            columns.iter().flatten().map(move |column| Node { inst, column: *column }).collect::<Vec<_>>()
        };
        keys(driver).into_iter().any(|from| {
            keys(other).into_iter().any(|to| {
                let methods = (self.graph.key_of(from, self.ctx.map), self.graph.key_of(to, self.ctx.map));
                matches!(methods, (Some(a), Some(b)) if a.method == b.method) && self.graph.leads(from, to)
            })
        })
    }
}

fn plain_select(query: &Query) -> Result<&Select, Obstacle> {
    match query.body.as_ref() {
        SetExpr::Select(select) => Ok(select),
        SetExpr::SetOperation { op, .. } => Err(Obstacle::new(match op {
            SetOperator::Union => "UNION over",
            SetOperator::Except | SetOperator::Minus => "EXCEPT over",
            SetOperator::Intersect => "INTERSECT over",
        })),
        SetExpr::Query(_) => Err(Obstacle::new("a query in parentheses over")),
        SetExpr::Values(_) => Err(Obstacle::new("VALUES with a subquery over")),
        SetExpr::Insert(_)
        | SetExpr::Update(_)
        | SetExpr::Delete(_)
        | SetExpr::Merge(_)
        | SetExpr::Table(_) => Err(Obstacle::new("this statement over")),
    }
}

fn query_end(query: &Query) -> Result<(), Obstacle> {
    if query.order_by.is_some() {
        return Err(Obstacle::new("ORDER BY over"));
    }
    if query.limit_clause.is_some() {
        return Err(Obstacle::new("LIMIT or OFFSET over"));
    }
    if query.fetch.is_some() {
        return Err(Obstacle::new("FETCH FIRST over"));
    }
    Ok(())
}

/// What a statement that cannot be spread is called in a message.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other statement is analysed")]
fn written(statement: &Statement) -> &'static str {
    match statement {
        Statement::Insert(_) => "INSERT … SELECT from",
        Statement::Update(_) => "UPDATE of",
        Statement::Delete(_) => "DELETE from",
        Statement::Merge(_) => "MERGE with",
        _ => "this statement over",
    }
}
