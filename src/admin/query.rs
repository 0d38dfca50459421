//! SELECT and SHOW on virtual tables.
//! Must not know protocol or SQL text.

use super::{AdminError, Herd, ParamType, Params, param, tables};
use crate::rows::{Column, Constant, Plan, RowsError, Select, Table, Type};

/// What a SELECT takes and gives, known before it runs: for ParameterDescription and RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The parameters' types.
    pub params: Vec<ParamType>,
    /// The result's columns.
    pub columns: Vec<Column>,
}

/// What a SELECT takes and gives. `declared` are the OIDs of Parse, 0 for unspecified.
///
/// # Errors
/// [`AdminError`] for what PostgreSQL would raise on analysis too.
pub fn describe(herd: &Herd, select: &Select, declared: &[u32]) -> Result<Shape, AdminError> {
    let kinds = declared.iter().map(|oid| param::declared(*oid)).collect::<Result<Vec<_>, _>>()?;
    let plan = Plan::new(select, &columns_of(select)?, &kinds, &herd.constants())?;
    let param = |(at, kind): (usize, &Type)| ParamType {
        oid: declared.get(at).copied().filter(|oid| *oid != 0).unwrap_or_else(|| kind.oid()),
        kind: *kind,
    };
    Ok(Shape {
        params: plan.params().iter().enumerate().map(param).collect(),
        columns: plan.columns().to_vec(),
    })
}

/// Answers a SELECT.
///
/// # Errors
/// [`AdminError`] for what PostgreSQL would raise too, and for what is not supported.
pub fn select(herd: &Herd, select: &Select, params: &Params) -> Result<Table, AdminError> {
    let kinds: Vec<_> = params.kinds.iter().copied().map(Some).collect();
    let constants: Vec<Constant> = herd.constants();
    // Bound before rows are gathered: a wrong query costs nothing.
    let plan = Plan::new(select, &columns_of(select)?, &kinds, &constants)?;
    let rows = match &select.from {
        Some(from) => tables::find(&from.name).map_or_else(Vec::new, |table| (table.rows)(herd)),
        None => vec![Vec::new()],
    };
    Ok(plan.run(&rows, &params.values)?)
}

/// Answers SHOW name.
///
/// # Errors
/// [`AdminError::NoShow`] if it is no virtual table.
pub fn show(herd: &Herd, name: &str) -> Result<Table, AdminError> {
    let all = show_select(name).ok_or_else(|| AdminError::NoShow(name.to_owned()))?;
    select(herd, &all, &Params::none())
}

/// The SELECT that SHOW name is, if it is a virtual table's name; case does not matter.
#[must_use]
pub fn show_select(name: &str) -> Option<Select> {
    let folded = name.to_ascii_lowercase();
    is_table(&folded).then(|| Select::all_of(folded))
}

/// Whether there is a virtual table of that name, in lower case.
#[must_use]
pub fn is_table(name: &str) -> bool {
    tables::find(name).is_some()
}

fn columns_of(select: &Select) -> Result<Vec<Column>, AdminError> {
    let Some(from) = &select.from else { return Ok(Vec::new()) };
    let table = tables::find(&from.name).ok_or_else(|| RowsError::NoTable {
        name: format!("pgherd.{}", from.name),
        hint: format!("The virtual tables are: {}.", tables::names()),
    })?;
    Ok((table.columns)())
}
