//! A plan carried out: filter, group, select, sort, cut.
//! Must not know names.

use std::collections::{BTreeMap, BTreeSet};

use super::aggregate::Accumulator;
use super::eval::{eval, holds};
use super::node::Node;
use super::order::{Ordered, by_keys};
use super::plan::{Grouping, SortBy};
use super::{Constant, Plan, RowsError, Select, Table, Type, Value};

impl Table {
    /// Answers a SELECT over this table; see [`Plan::new`] for `types` and `constants`.
    ///
    /// # Errors
    /// Those of [`Plan::new`] and [`Plan::run`].
    pub fn select(
        &self,
        select: &Select,
        params: &[Value],
        types: &[Option<Type>],
        constants: &[Constant],
    ) -> Result<Self, RowsError> {
        Plan::new(select, &self.columns, types, constants)?.run(&self.rows, params)
    }
}

impl Plan {
    /// Runs on the table's rows. `params` are values of [`Plan::params`]' types.
    ///
    /// # Errors
    /// What the expressions raise on these rows, e.g. [`RowsError::DivisionByZero`].
    pub fn run(&self, rows: &[Vec<Value>], params: &[Value]) -> Result<Table, RowsError> {
        let offset = bound(self.offset.as_ref(), params, RowsError::NegativeOffset)?.unwrap_or(0);
        let limit = bound(self.limit.as_ref(), params, RowsError::NegativeLimit)?;
        let mut result = match &self.grouping {
            Some(grouping) => {
                self.project(&grouping.groups(self.filter.as_ref(), rows, params)?, params, None)?
            }
            None => {
                // Without a sort rows behind the limit are never looked at, as in PostgreSQL.
                let enough = limit.map(|l| l.saturating_add(offset)).filter(|_| self.sort.is_empty());
                let kept = filtered(self.filter.as_ref(), rows, params);
                self.project_while(kept, params, enough)?
            }
        };
        let directions: Vec<_> = self.sort.iter().map(|(_, direction)| *direction).collect();
        if !directions.is_empty() {
            result.sort_by(|a, b| by_keys(&a.keys, &b.keys, &directions));
        }
        let rows = result.into_iter().skip(offset).take(limit.unwrap_or(usize::MAX)).map(|r| r.values);
        Ok(Table { columns: self.columns.clone(), rows: rows.collect() })
    }

    fn project(
        &self,
        rows: &[Vec<Value>],
        params: &[Value],
        enough: Option<usize>,
    ) -> Result<Vec<Projected>, RowsError> {
        self.project_while(rows.iter().map(Ok), params, enough)
    }

    /// Selects from rows until there are `enough`.
    fn project_while<'a>(
        &self,
        rows: impl Iterator<Item = Result<&'a Vec<Value>, RowsError>>,
        params: &[Value],
        enough: Option<usize>,
    ) -> Result<Vec<Projected>, RowsError> {
        let mut result = Vec::new();
        let mut seen = BTreeSet::new();
        if enough == Some(0) {
            return Ok(result);
        }
        for row in rows {
            let projected = self.one(row?, params)?;
            if self.distinct && !seen.insert(Ordered(projected.values.clone())) {
                continue;
            }
            result.push(projected);
            if enough == Some(result.len()) {
                break;
            }
        }
        Ok(result)
    }

    fn one(&self, row: &[Value], params: &[Value]) -> Result<Projected, RowsError> {
        let value = |node: &Node| eval(node, row, params).map(|v| v.into_owned());
        let values = self.outputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
        let keys = self
            .sort
            .iter()
            .map(|(by, _)| match by {
                SortBy::Output(at) => Ok(values.get(*at).cloned().unwrap_or(Value::Null)),
                SortBy::Hidden(node) => value(node),
            })
            .collect::<Result<_, _>>()?;
        Ok(Projected { values, keys })
    }
}

/// One output row and what it is sorted by.
struct Projected {
    values: Vec<Value>,
    keys: Vec<Value>,
}

fn filtered<'a>(
    filter: Option<&'a Node>,
    rows: &'a [Vec<Value>],
    params: &'a [Value],
) -> impl Iterator<Item = Result<&'a Vec<Value>, RowsError>> {
    rows.iter().filter_map(move |row| match filter.map_or(Ok(true), |f| holds(f, row, params)) {
        Ok(true) => Some(Ok(row)),
        Ok(false) => None,
        Err(e) => Some(Err(e)),
    })
}

impl Grouping {
    /// One row per group that HAVING keeps: its keys, then its aggregates. In the order of first appearance.
    fn groups(
        &self,
        filter: Option<&Node>,
        rows: &[Vec<Value>],
        params: &[Value],
    ) -> Result<Vec<Vec<Value>>, RowsError> {
        let fresh = || self.aggregates.iter().map(Accumulator::new).collect::<Vec<_>>();
        let mut at: BTreeMap<Ordered, usize> = BTreeMap::new();
        let mut groups = Vec::new();
        if self.keys.is_empty() {
            // Aggregates without GROUP BY have one row even over nothing.
            at.insert(Ordered(Vec::new()), 0);
            groups.push((Vec::new(), fresh()));
        }
        for row in filtered(filter, rows, params) {
            let row = row?;
            let key = self
                .keys
                .iter()
                .map(|node| eval(node, row, params).map(|v| v.into_owned()))
                .collect::<Result<Vec<_>, _>>()?;
            let index = *at.entry(Ordered(key.clone())).or_insert_with(|| {
                groups.push((key, fresh()));
                groups.len() - 1
            });
            if let Some((_, accumulators)) = groups.get_mut(index) {
                accumulators.iter_mut().try_for_each(|a| a.take(row, params))?;
            }
        }
        let mut kept = Vec::new();
        for (mut row, accumulators) in groups {
            for accumulator in accumulators {
                row.push(accumulator.finish()?);
            }
            if self.having.as_ref().map_or(Ok(true), |having| holds(having, &row, params))? {
                kept.push(row);
            }
        }
        Ok(kept)
    }
}

/// LIMIT or OFFSET: NULL is none.
fn bound(node: Option<&Node>, params: &[Value], negative: RowsError) -> Result<Option<usize>, RowsError> {
    let Some(node) = node else { return Ok(None) };
    let Value::Int(n) = *eval(node, &[], params)? else { return Ok(None) };
    usize::try_from(n).map(Some).map_err(|_| negative)
}
