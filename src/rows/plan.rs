//! A SELECT bound to a table's columns: what comes out, of which types, and from what.
//! Must not know rows.

use super::bind::{Binder, Clause, Constant};
use super::node::{AggregateCall, Node};
use super::order::Direction;
use super::{Column, Expr, Item, OrderBy, RowsError, Select, Type, Value};

/// A SELECT ready to run on the rows of the table it was made for.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) columns: Vec<Column>,
    pub(super) params: Vec<Type>,
    pub(super) filter: Option<Node>,
    pub(super) grouping: Option<Grouping>,
    pub(super) outputs: Vec<Node>,
    pub(super) distinct: bool,
    pub(super) sort: Vec<(SortBy, Direction)>,
    pub(super) limit: Option<Node>,
    pub(super) offset: Option<Node>,
}

/// GROUP BY: outputs and sort keys then read a row of keys and aggregates.
#[derive(Debug, Clone)]
pub(super) struct Grouping {
    pub(super) keys: Vec<Node>,
    pub(super) aggregates: Vec<AggregateCall>,
    pub(super) having: Option<Node>,
}

/// What a sort key is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SortBy {
    /// An output, by position.
    Output(usize),
    /// An expression that is not selected.
    Hidden(Node),
}

impl Plan {
    /// Binds a SELECT to a table's columns. `declared` are the parameters' types as far as the client said;
    /// the others are inferred from what they are used with, text where nothing tells.
    ///
    /// # Errors
    /// What PostgreSQL raises on analysis; [`RowsError::Unsupported`] for what is not supported here.
    pub fn new(
        select: &Select,
        columns: &[Column],
        declared: &[Option<Type>],
        constants: &[Constant],
    ) -> Result<Self, RowsError> {
        // Twice: a parameter may be typed by a later use only, and the first is bound by then.
        let mut binder = Binder::new(columns, constants, declared.to_vec());
        build(&mut binder, select)?;
        let settled: Vec<_> = binder.params.iter().map(|p| Some(p.unwrap_or(Type::Text))).collect();
        build(&mut Binder::new(columns, constants, settled), select)
    }

    /// The result's columns.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The parameters' types.
    #[must_use]
    pub fn params(&self) -> &[Type] {
        &self.params
    }
}

struct Output {
    node: Node,
    kind: Type,
    name: String,
}

fn build(binder: &mut Binder<'_>, select: &Select) -> Result<Plan, RowsError> {
    let filter = bind_optional(binder, select.filter.as_ref(), Clause::Where, Type::Bool, "WHERE")?;
    let mut outputs = bind_items(binder, &select.items)?;
    let keys =
        select.group_by.iter().map(|e| group_key(binder, e, &outputs)).collect::<Result<Vec<_>, _>>()?;
    let having = bind_optional(binder, select.having.as_ref(), Clause::Output, Type::Bool, "HAVING")?;
    let mut sort =
        select.order_by.iter().map(|by| sort_key(binder, by, &outputs)).collect::<Result<Vec<_>, _>>()?;
    let limit = bind_limit(binder, select.limit.as_ref(), Clause::Limit, "LIMIT")?;
    let offset = bind_limit(binder, select.offset.as_ref(), Clause::Offset, "OFFSET")?;
    if select.distinct && sort.iter().any(|(by, _)| matches!(by, SortBy::Hidden(_))) {
        let message = "for SELECT DISTINCT, ORDER BY expressions must appear in select list";
        return Err(RowsError::BadReference(message.to_owned()));
    }
    let is_grouped = !keys.is_empty()
        || having.is_some()
        || outputs.iter().any(|o| o.node.has_aggregate())
        || sort.iter().any(|(by, _)| matches!(by, SortBy::Hidden(node) if node.has_aggregate()));
    let grouping =
        if is_grouped { Some(group(binder, keys, having, &mut outputs, &mut sort)?) } else { None };
    Ok(Plan {
        params: binder.params.iter().map(|p| p.unwrap_or(Type::Text)).collect(),
        filter,
        grouping,
        columns: outputs.iter().map(|o| Column::new(o.name.clone(), o.kind)).collect(),
        outputs: outputs.into_iter().map(|o| o.node).collect(),
        distinct: select.distinct,
        sort,
        limit,
        offset,
    })
}

fn bind_optional(
    binder: &mut Binder<'_>,
    expr: Option<&Expr>,
    clause: Clause,
    kind: Type,
    place: &str,
) -> Result<Option<Node>, RowsError> {
    expr.map(|e| binder.bind_as(e, clause, kind, place)).transpose()
}

fn bind_limit(
    binder: &mut Binder<'_>,
    expr: Option<&Expr>,
    clause: Clause,
    place: &str,
) -> Result<Option<Node>, RowsError> {
    let node = bind_optional(binder, expr, clause, Type::Int8, place)?;
    match node {
        Some(node) if node.reads_input() => {
            let message = format!("argument of {place} must not contain variables");
            Err(RowsError::BadReference(message))
        }
        node => Ok(node),
    }
}

fn bind_items(binder: &mut Binder<'_>, items: &[Item]) -> Result<Vec<Output>, RowsError> {
    let mut outputs = Vec::new();
    for item in items {
        match item {
            Item::All if binder.columns().is_empty() => {
                return Err(RowsError::Syntax("SELECT * with no tables specified is not valid".to_owned()));
            }
            Item::All => outputs.extend(binder.columns().iter().enumerate().map(|(at, column)| Output {
                node: Node::Column(at),
                kind: column.kind,
                name: column.name.clone(),
            })),
            Item::Expr(expr, name) => {
                let bound = binder.bind(expr, Clause::Output)?;
                let (node, kind) = binder.settle(bound)?;
                outputs.push(Output { node, kind, name: name.clone() });
            }
        }
    }
    // A DataRow counts its fields in 16 bits; PostgreSQL's own limit is 1664.
    if outputs.len() > 1664 {
        return Err(RowsError::TooComplex);
    }
    Ok(outputs)
}

/// GROUP BY: a position, else an input column, else an output name, else an expression.
fn group_key(binder: &mut Binder<'_>, expr: &Expr, outputs: &[Output]) -> Result<Node, RowsError> {
    let output = if let Expr::Column(name) = expr
        && binder.find(name).is_some()
    {
        None
    } else {
        reference(expr, "GROUP BY", outputs)?
    };
    match output.and_then(|at| outputs.get(at)) {
        Some(output) if output.node.has_aggregate() => {
            Err(RowsError::Grouping("aggregate functions are not allowed in GROUP BY".to_owned()))
        }
        Some(output) => Ok(output.node.clone()),
        None => {
            let bound = binder.bind(expr, Clause::GroupBy)?;
            binder.settle(bound).map(|(node, _)| node)
        }
    }
}

/// ORDER BY: a position, else an output name, else an expression, which may be one of the outputs.
fn sort_key(
    binder: &mut Binder<'_>,
    by: &OrderBy,
    outputs: &[Output],
) -> Result<(SortBy, Direction), RowsError> {
    let key = match reference(&by.expr, "ORDER BY", outputs)? {
        Some(at) => SortBy::Output(at),
        None => {
            let bound = binder.bind(&by.expr, Clause::Output)?;
            let (node, _) = binder.settle(bound)?;
            outputs.iter().position(|o| o.node == node).map_or(SortBy::Hidden(node), SortBy::Output)
        }
    };
    Ok((key, Direction { descending: by.descending, nulls_first: by.nulls_first }))
}

/// The output that a bare literal or name means.
fn reference(expr: &Expr, clause: &str, outputs: &[Output]) -> Result<Option<usize>, RowsError> {
    if let Expr::Literal(value) = expr {
        return position(value, clause, outputs).map(Some);
    }
    if let Expr::Column(name) = expr { named(name, clause, outputs) } else { Ok(None) }
}

fn position(value: &Value, clause: &str, outputs: &[Output]) -> Result<usize, RowsError> {
    let Value::Int(n) = value else {
        return Err(RowsError::Syntax(format!("non-integer constant in {clause}")));
    };
    let at = usize::try_from(*n).ok().and_then(|n| n.checked_sub(1)).filter(|at| *at < outputs.len());
    at.ok_or_else(|| RowsError::BadReference(format!("{clause} position {n} is not in select list")))
}

/// The output of that name, if there is one; two different ones are ambiguous.
fn named(name: &str, clause: &str, outputs: &[Output]) -> Result<Option<usize>, RowsError> {
    let mut found = outputs.iter().enumerate().filter(|(_, o)| o.name == name);
    let Some((at, first)) = found.next() else { return Ok(None) };
    if found.any(|(_, other)| other.node != first.node) {
        return Err(RowsError::Ambiguous(format!("{clause} \"{name}\"")));
    }
    Ok(Some(at))
}

fn group(
    binder: &Binder<'_>,
    keys: Vec<Node>,
    having: Option<Node>,
    outputs: &mut [Output],
    sort: &mut [(SortBy, Direction)],
) -> Result<Grouping, RowsError> {
    let name = |at: usize| binder.column(at).map_or_else(String::new, |c| c.name.clone());
    let mut aggregates = Vec::new();
    let mut lift = |node: Node| node.over_groups(&keys, &mut aggregates, &name);
    for output in outputs {
        output.node = lift(std::mem::replace(&mut output.node, Node::Param(0)))?;
    }
    for (by, _) in sort {
        if let SortBy::Hidden(node) = by {
            *node = lift(std::mem::replace(node, Node::Param(0)))?;
        }
    }
    let having = having.map(&mut lift).transpose()?;
    Ok(Grouping { keys, aggregates, having })
}
