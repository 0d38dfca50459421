//! One walk over a whole statement by the parser's own visitor: what it names and calls, wherever that hides.
//! Must not know scopes or shards; the analysis by scopes is checked against it.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
    Query, Select, SetExpr, Statement, TableFactor, Value, ValueWithSpan, Visit, Visitor,
};

use super::functions::PREPARED;
use super::names::{folded, is_only, last};

/// A call of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Its name without schema, folded; empty if it is not made of identifiers.
    pub(super) name: String,
    /// The first argument is a string constant: the name of what `set_config` sets.
    pub(super) first_is_text: bool,
    /// The third argument is the word TRUE: `set_config` for the transaction only.
    pub(super) third_is_true: bool,
    /// It stands in a FROM list.
    pub(super) in_from: bool,
}

/// What a statement holds.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Every table name as written, sorted.
    pub(super) relations: Vec<String>,
    /// The bare names of tables, folded.
    pub(super) tables: Vec<String>,
    /// Every call.
    pub(super) calls: Vec<Call>,
    /// What is taken of something by a dot: a column, or a function of the row.
    pub(super) fields: Vec<String>,
    /// How often each parameter stands in the text.
    pub(super) params: HashMap<u16, u32>,
    /// The number of queries, nested ones included.
    pub(super) queries: usize,
    /// INSERT, UPDATE, DELETE or MERGE, wherever it stands.
    pub(super) writes: bool,
    /// SELECT INTO: `true` for a temporary table.
    pub(super) into: Option<bool>,
    /// The bare name of the table that it makes, folded.
    pub(super) into_name: Option<String>,
    /// FOR UPDATE or FOR SHARE: the table after OF, `None` for all tables.
    pub(super) locks: Vec<Option<String>>,
    /// TABLESAMPLE.
    pub(super) samples: bool,
    /// What each shard has its own value of: a system column, a cast to an OID alias type.
    pub(super) local_value: Option<String>,
}

impl Survey {
    /// Walks over `statement`.
    pub(super) fn of(statement: &Statement) -> Self {
        let mut survey = Self::default();
        let _ = statement.visit(&mut survey);
        survey.relations.sort_unstable();
        survey
    }

    fn call(&mut self, name: &ObjectName, in_from: bool, function: Option<&Function>) {
        let is = |n: usize, what: fn(&Value) -> bool| {
            let value = function.and_then(|function| constant(function, n));
            value.is_some_and(what)
        };
        let name = last(name).unwrap_or_default();
        let first_is_text = is(0, |value| matches!(value, Value::SingleQuotedString(_)));
        let third_is_true = is(2, |value| *value == Value::Boolean(true));
        self.calls.push(Call { name, first_is_text, third_is_true, in_from });
    }

    /// A view of the catalogs is the function that it is made of.
    fn view(&mut self, name: Option<&str>) {
        if name == Some("pg_prepared_statements") {
            let name = PREPARED.to_owned();
            self.calls.push(Call { name, first_is_text: false, third_is_true: false, in_from: true });
        }
    }

    /// `TABLE name` is no relation to the parser's visitor; its name has lost its quotes.
    fn table_commands(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Table(table) => {
                self.tables.extend(table.table_name.as_ref().map(|name| name.to_ascii_lowercase()));
                self.view(table.table_name.as_ref().map(|name| name.to_ascii_lowercase()).as_deref());
            }
            SetExpr::SetOperation { left, right, .. } => {
                self.table_commands(left);
                self.table_commands(right);
            }
            SetExpr::Select(_)
            | SetExpr::Query(_)
            | SetExpr::Values(_)
            | SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_)
            | SetExpr::Merge(_) => {}
        }
    }

    fn column(&mut self, ident: &Ident) {
        let name = folded(ident);
        if matches!(name.as_str(), "tableoid" | "xmin" | "xmax" | "cmin" | "cmax" | "ctid") {
            self.local_value = Some(format!("system column \"{name}\""));
        }
    }

    fn cast(&mut self, data_type: &DataType) {
        let name = data_type.to_string().to_ascii_lowercase();
        if name.rsplit('.').next().is_some_and(|n| n.starts_with("reg")) {
            self.local_value = Some(format!("cast to {name}"));
        }
    }
}

impl Visitor for Survey {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.queries += 1;
        self.table_commands(&query.body);
        self.locks.extend(query.locks.iter().map(|lock| lock.of.as_ref().and_then(last)));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if let Some(into) = &select.into {
            let named_temp =
                into.targets.iter().any(|t| t.to_string().to_ascii_lowercase().starts_with("pg_temp"));
            self.into = Some(into.temporary || named_temp);
            let name = into.targets.first().map(ToString::to_string).unwrap_or_default();
            let name = name.rsplit('.').next().unwrap_or_default();
            self.into_name = Some(match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
                Some(quoted) => quoted.replace("\"\"", "\""),
                None => name.to_ascii_lowercase(),
            });
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        self.relations.push(relation.to_string());
        let name = last(relation);
        if relation.0.len() == 1 || relation.to_string().to_ascii_lowercase().starts_with("pg_catalog.") {
            self.view(name.as_deref());
        }
        self.tables.extend(name);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others call no function by name")]
        match factor {
            TableFactor::Table { name, alias, args, sample, .. } => {
                self.samples |= sample.is_some();
                self.tables.extend(last(name));
                if is_only(name) {
                    self.tables.extend(alias.as_ref().map(|alias| folded(&alias.name)));
                }
                if args.is_some() {
                    self.call(name, true, None);
                }
            }
            TableFactor::Derived { sample, .. } => self.samples |= sample.is_some(),
            TableFactor::Function { name, .. } => self.call(name, true, None),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        self.writes |= matches!(
            statement,
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_)
        );
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<()> {
        if let Value::Placeholder(name) = &value.value
            && let Some(n) = parameter(name)
        {
            *self.params.entry(n).or_default() += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the others call no function by name")]
        match expr {
            Expr::Function(function) => self.call(&function.name, false, Some(function)),
            Expr::Identifier(ident) => self.column(ident),
            Expr::CompoundIdentifier(idents) => {
                if let Some(ident) = idents.last() {
                    self.column(ident);
                    self.fields.push(folded(ident));
                }
            }
            Expr::CompoundFieldAccess { access_chain, .. } => {
                let fields = access_chain.iter().filter_map(|access| match access {
                    AccessExpr::Dot(Expr::Identifier(ident)) => Some(folded(ident)),
                    AccessExpr::Dot(_) | AccessExpr::Subscript(_) => None,
                });
                self.fields.extend(fields);
            }
            Expr::Cast { data_type, .. } | Expr::Convert { data_type: Some(data_type), .. } => {
                self.cast(data_type);
            }
            Expr::TypedString(typed) => self.cast(&typed.data_type),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `$3` is 3.
pub(super) fn parameter(name: &str) -> Option<u16> {
    name.strip_prefix('$')?.parse().ok().filter(|n| *n > 0)
}

/// An argument by its place, if it is a constant.
fn constant(function: &Function, n: usize) -> Option<&Value> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.get(n) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) => Some(&value.value),
        _ => None,
    }
}
