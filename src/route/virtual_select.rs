//! A parsed SELECT over one virtual table to plain values that `rows` can answer.
//! Must not know which virtual tables there are, nor their columns.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's enums hold every dialect; what is not named here is refused by name"
)]

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, Distinct, DuplicateTreatment,
    Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, LimitClause,
    ObjectName, OrderByExpr, OrderByKind, OrderBySort, Query, Select as AstSelect, SelectFlavor, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, Statement, TableFactor, UnaryOperator, Value as AstValue,
    WildcardAdditionalOptions, visit_relations,
};

use super::RouteError;
use crate::rows::{BinaryOp, Expr, FromTable, Item, Numeric, OrderBy, Select, Type, Value, is_aggregate};
use crate::wire::SqlState;

/// The schema of virtual tables.
const SCHEMA: &str = "pgherd";
/// The deepest nesting of expressions; the parser does not limit chains of operators.
const MAX_DEPTH: usize = 200;

/// The SELECT over a virtual table that a statement is, if it names one (`pgherd.latency`); with `bare`, on the
/// `pgherd` database, any table without a schema is one, and no table at all is fine too.
///
/// # Errors
/// [`RouteError::Refused`] if virtual tables are mixed with others, or for what [`Select`] cannot say.
pub(super) fn virtual_select(ast: &Statement, bare: bool) -> Result<Option<Select>, RouteError> {
    let Statement::Query(query) = ast else {
        return match names_schema(ast) {
            true => Err(refused("a statement other than SELECT")),
            false => Ok(None),
        };
    };
    if !bare && !names_schema(ast) && !body_names_schema(&query.body) {
        return Ok(None);
    }
    convert(query, bare).map(Some)
}

fn names_schema(ast: &Statement) -> bool {
    visit_relations(ast, |name| match parts(name).as_deref() {
        Some([schema, _]) if schema == SCHEMA => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// `TABLE pgherd.x` in a set operation is not among the relations that sqlparser visits.
fn body_names_schema(body: &SetExpr) -> bool {
    match body {
        SetExpr::Table(table) => table.schema_name.as_ref().is_some_and(|s| s.eq_ignore_ascii_case(SCHEMA)),
        SetExpr::Query(query) => body_names_schema(&query.body),
        SetExpr::SetOperation { left, right, .. } => body_names_schema(left) || body_names_schema(right),
        _ => false,
    }
}

fn refused(construct: &str) -> RouteError {
    RouteError::Refused {
        what: format!("{construct} is not supported in queries on virtual tables"),
        hint: "Write SELECT columns FROM pgherd.table WHERE … GROUP BY … ORDER BY … LIMIT …; \
               SHOW HELP on the pgherd database lists the tables."
            .to_owned(),
    }
}

fn sql_error(code: SqlState, message: String) -> RouteError {
    RouteError::Sql { code, message, detail: None, hint: None }
}

/// A name's parts, folded; `None` if one of them is not an identifier.
fn parts(name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(fold)).collect()
}

fn fold(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

fn convert(query: &Query, bare: bool) -> Result<Select, RouteError> {
    check_query(query)?;
    let body = match query.body.as_ref() {
        SetExpr::Select(select) => select,
        SetExpr::Query(_) => return Err(refused("a SELECT in parentheses")),
        SetExpr::SetOperation { .. } => return Err(refused("UNION, INTERSECT or EXCEPT")),
        SetExpr::Values(_) => return Err(refused("VALUES")),
        SetExpr::Table(_) => return Err(refused("TABLE")),
        _ => return Err(refused("a data-modifying statement")),
    };
    check_select(body)?;
    let mut converter = Converter { from: from_table(body, bare)?, depth: 0 };
    let (limit, offset) = converter.limits(query)?;
    let order_by = match query.order_by.as_ref().map(|o| (&o.kind, &o.interpolate)) {
        None => Vec::new(),
        Some((OrderByKind::Expressions(list), None)) => {
            list.iter().map(|o| converter.order(o)).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(refused("this form of ORDER BY")),
    };
    Ok(Select {
        items: body.projection.iter().map(|i| converter.item(i)).collect::<Result<_, _>>()?,
        distinct: match body.distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(_) => return Err(refused("DISTINCT ON")),
        },
        filter: body.selection.as_ref().map(|e| converter.expr(e)).transpose()?,
        group_by: match &body.group_by {
            GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => converter.exprs(list)?,
            _ => return Err(refused("this form of GROUP BY")),
        },
        having: body.having.as_ref().map(|e| converter.expr(e)).transpose()?,
        order_by,
        limit,
        offset,
        from: converter.from.map(|table| FromTable { name: table.name, alias: table.alias }),
    })
}

/// Refuses what stands around the body of a query.
fn check_query(query: &Query) -> Result<(), RouteError> {
    let found = [
        (query.with.is_some(), "WITH"),
        (!query.locks.is_empty(), "FOR UPDATE or FOR SHARE"),
        (query.for_clause.is_some(), "FOR"),
        (query.settings.is_some(), "SETTINGS"),
        (query.format_clause.is_some(), "FORMAT"),
        (!query.pipe_operators.is_empty(), "a pipe operator"),
    ];
    found.iter().find(|(there, _)| *there).map_or(Ok(()), |(_, construct)| Err(refused(construct)))
}

/// Refuses the parts of a SELECT that are not looked at.
fn check_select(select: &AstSelect) -> Result<(), RouteError> {
    let found = [
        (select.into.is_some(), "INTO"),
        (!select.named_window.is_empty(), "WINDOW"),
        (select.projection.is_empty(), "an empty select list"),
        (
            select.top.is_some()
                || select.exclude.is_some()
                || select.select_modifiers.is_some()
                || select.prewhere.is_some()
                || select.qualify.is_some()
                || select.value_table_mode.is_some()
                || select.flavor != SelectFlavor::Standard
                || !select.lateral_views.is_empty()
                || !select.connect_by.is_empty()
                || !select.cluster_by.is_empty()
                || !select.distribute_by.is_empty()
                || !select.sort_by.is_empty(),
            "a clause of another SQL dialect",
        ),
    ];
    found.iter().find(|(there, _)| *there).map_or(Ok(()), |(_, construct)| Err(refused(construct)))
}

/// The FROM table and how columns may be qualified.
struct From {
    name: String,
    alias: Option<String>,
    /// Whether it was written with its schema, so that columns may be, too.
    has_schema: bool,
}

fn from_table(select: &AstSelect, bare: bool) -> Result<Option<From>, RouteError> {
    let [from] = select.from.as_slice() else {
        return if select.from.is_empty() { Ok(None) } else { Err(refused("more than one table in FROM")) };
    };
    if !from.joins.is_empty() {
        return Err(refused("a join"));
    }
    let TableFactor::Table { name, alias, args, with_hints, version, with_ordinality, partitions, .. } =
        &from.relation
    else {
        return Err(refused("a subquery or function in FROM"));
    };
    let TableFactor::Table { json_path, sample, index_hints, .. } = &from.relation else {
        return Err(refused("a subquery or function in FROM"));
    };
    if args.is_some() || *with_ordinality {
        return Err(refused("a function in FROM"));
    }
    if sample.is_some() {
        return Err(refused("TABLESAMPLE"));
    }
    if !with_hints.is_empty()
        || version.is_some()
        || !partitions.is_empty()
        || json_path.is_some()
        || !index_hints.is_empty()
    {
        return Err(refused("a clause of another SQL dialect"));
    }
    if alias.as_ref().is_some_and(|a| !a.columns.is_empty() || a.at.is_some()) {
        return Err(refused("a list of column aliases"));
    }
    let alias = alias.as_ref().map(|a| fold(&a.name));
    match parts(name).as_deref() {
        Some([schema, table]) if schema == SCHEMA => {
            Ok(Some(From { name: table.clone(), alias, has_schema: true }))
        }
        Some([table]) if bare => Ok(Some(From { name: table.clone(), alias, has_schema: false })),
        _ => Err(refused(&format!("table {name} beside virtual tables"))),
    }
}

struct Converter {
    from: Option<From>,
    depth: usize,
}

impl Converter {
    fn exprs(&mut self, list: &[Ast]) -> Result<Vec<Expr>, RouteError> {
        list.iter().map(|e| self.expr(e)).collect()
    }

    fn boxed(&mut self, ast: &Ast) -> Result<Box<Expr>, RouteError> {
        self.expr(ast).map(Box::new)
    }

    fn limits(&mut self, query: &Query) -> Result<(Option<Expr>, Option<Expr>), RouteError> {
        let (mut limit, mut offset) = (None, None);
        match &query.limit_clause {
            None => {}
            Some(LimitClause::LimitOffset { limit: l, offset: o, limit_by }) if limit_by.is_empty() => {
                limit = l.as_ref().map(|e| self.expr(e)).transpose()?;
                offset = o.as_ref().map(|o| self.expr(&o.value)).transpose()?;
            }
            Some(_) => return Err(refused("LIMIT of another SQL dialect")),
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(refused("FETCH … WITH TIES or PERCENT"));
            }
            if limit.is_some() {
                return Err(sql_error(
                    SqlState::SYNTAX_ERROR,
                    "multiple LIMIT clauses not allowed".to_owned(),
                ));
            }
            limit = match &fetch.quantity {
                Some(quantity) => Some(self.expr(quantity)?),
                None => Some(Expr::Literal(Value::Int(1))),
            };
        }
        Ok((limit, offset))
    }

    fn order(&mut self, by: &OrderByExpr) -> Result<OrderBy, RouteError> {
        if by.with_fill.is_some() {
            return Err(refused("WITH FILL"));
        }
        let descending = match &by.options.sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => return Err(refused("ORDER BY … USING")),
        };
        let nulls_first = by.options.nulls_first.unwrap_or(descending);
        Ok(OrderBy { expr: self.expr(&by.expr)?, descending, nulls_first })
    }

    fn item(&mut self, item: &SelectItem) -> Result<Item, RouteError> {
        match item {
            SelectItem::UnnamedExpr(expr) => Ok(Item::Expr(self.expr(expr)?, output_name(expr))),
            SelectItem::ExprWithAlias { expr, alias } => Ok(Item::Expr(self.expr(expr)?, fold(alias))),
            SelectItem::Wildcard(options) if is_plain(options) => Ok(Item::All),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                if is_plain(options) =>
            {
                let qualifier = parts(name).ok_or_else(|| refused("this form of *"))?;
                self.check_qualifier(&qualifier).map(|()| Item::All)
            }
            _ => Err(refused("this form of * or alias")),
        }
    }

    /// A column's qualifier must be the FROM table's alias, or its name if it has none.
    fn check_qualifier(&self, qualifier: &[String]) -> Result<(), RouteError> {
        let fits = self.from.as_ref().is_some_and(|from| match (qualifier, &from.alias) {
            ([table], Some(alias)) => table == alias,
            ([table], None) => *table == from.name,
            ([schema, table], None) => from.has_schema && schema == SCHEMA && *table == from.name,
            _ => false,
        });
        let missing = || format!("missing FROM-clause entry for table \"{}\"", qualifier.join("."));
        if fits { Ok(()) } else { Err(sql_error(SqlState::UNDEFINED_TABLE, missing())) }
    }

    fn expr(&mut self, ast: &Ast) -> Result<Expr, RouteError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(refused("an expression nested deeper than 200 levels"));
        }
        let expr = self.expr_inner(ast);
        self.depth -= 1;
        expr
    }

    fn expr_inner(&mut self, ast: &Ast) -> Result<Expr, RouteError> {
        Ok(match ast {
            Ast::Identifier(ident) => Expr::Column(fold(ident)),
            Ast::CompoundIdentifier(idents) => self.qualified(idents)?,
            Ast::Nested(inner) => self.expr(inner)?,
            Ast::Value(value) => constant(&value.value)?,
            Ast::TypedString(typed) => {
                Expr::Cast(Box::new(constant(&typed.value.value)?), type_of(&typed.data_type)?)
            }
            Ast::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr, data_type, format: None } => {
                Expr::Cast(self.boxed(expr)?, type_of(data_type)?)
            }
            Ast::UnaryOp { op, expr } => self.unary(*op, expr)?,
            Ast::BinaryOp { left, op, right } => {
                Expr::Binary(operator(op)?, self.boxed(left)?, self.boxed(right)?)
            }
            Ast::Like { negated, any: false, expr, pattern, escape_char: None } => {
                let op = if *negated { BinaryOp::NotLike } else { BinaryOp::Like };
                Expr::Binary(op, self.boxed(expr)?, self.boxed(pattern)?)
            }
            Ast::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                let op = if *negated { BinaryOp::NotILike } else { BinaryOp::ILike };
                Expr::Binary(op, self.boxed(expr)?, self.boxed(pattern)?)
            }
            Ast::InList { expr, list, negated } => Expr::In(self.boxed(expr)?, self.exprs(list)?, !*negated),
            Ast::Between { expr, negated, low, high } => {
                let between = Expr::Between(self.boxed(expr)?, self.boxed(low)?, self.boxed(high)?);
                if *negated { Expr::Not(Box::new(between)) } else { between }
            }
            Ast::IsNull(inner) => Expr::IsNull(self.boxed(inner)?, true),
            Ast::IsNotNull(inner) => Expr::IsNull(self.boxed(inner)?, false),
            Ast::IsTrue(inner) => Expr::IsBool(self.boxed(inner)?, Some(true), true),
            Ast::IsNotTrue(inner) => Expr::IsBool(self.boxed(inner)?, Some(true), false),
            Ast::IsFalse(inner) => Expr::IsBool(self.boxed(inner)?, Some(false), true),
            Ast::IsNotFalse(inner) => Expr::IsBool(self.boxed(inner)?, Some(false), false),
            Ast::IsUnknown(inner) => Expr::IsBool(self.boxed(inner)?, None, true),
            Ast::IsNotUnknown(inner) => Expr::IsBool(self.boxed(inner)?, None, false),
            Ast::IsDistinctFrom(a, b) => Expr::IsDistinct(self.boxed(a)?, self.boxed(b)?, true),
            Ast::IsNotDistinctFrom(a, b) => Expr::IsDistinct(self.boxed(a)?, self.boxed(b)?, false),
            Ast::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())?
            }
            Ast::Function(function) => self.function(function)?,
            Ast::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                Expr::Call("ceil".to_owned(), vec![self.expr(expr)?])
            }
            Ast::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                Expr::Call("floor".to_owned(), vec![self.expr(expr)?])
            }
            other => return Err(refused(construct(other))),
        })
    }

    fn qualified(&self, idents: &[Ident]) -> Result<Expr, RouteError> {
        let folded: Vec<_> = idents.iter().map(fold).collect();
        let Some((column, qualifier)) = folded.split_last() else { return Err(refused("an empty name")) };
        self.check_qualifier(qualifier)?;
        Ok(Expr::Column(column.clone()))
    }

    fn unary(&mut self, op: UnaryOperator, ast: &Ast) -> Result<Expr, RouteError> {
        match (op, ast) {
            (UnaryOperator::Not, _) => Ok(Expr::Not(self.boxed(ast)?)),
            // PostgreSQL reads a sign before a number as part of it, which decides its type.
            (UnaryOperator::Minus, Ast::Value(value)) => match &value.value {
                AstValue::Number(text, false) => number(&format!("-{text}")).map(Expr::Literal),
                _ => Ok(Expr::Negate(self.boxed(ast)?)),
            },
            (UnaryOperator::Minus, _) => Ok(Expr::Negate(self.boxed(ast)?)),
            (other, _) => Err(refused(&format!("operator {other}"))),
        }
    }

    fn case(
        &mut self,
        operand: Option<&Ast>,
        conditions: &[CaseWhen],
        otherwise: Option<&Ast>,
    ) -> Result<Expr, RouteError> {
        let mut branches = Vec::with_capacity(conditions.len());
        for when in conditions {
            branches.push((self.expr(&when.condition)?, self.expr(&when.result)?));
        }
        Ok(Expr::Case {
            operand: operand.map(|e| self.boxed(e)).transpose()?,
            branches,
            otherwise: otherwise.map(|e| self.boxed(e)).transpose()?,
        })
    }

    fn function(&mut self, function: &Function) -> Result<Expr, RouteError> {
        let name = match parts(&function.name).as_deref() {
            Some([name]) => name.clone(),
            Some([schema, name]) if schema == "pg_catalog" => name.clone(),
            _ => return Err(refused("a function of another schema")),
        };
        if function.over.is_some() {
            return Err(refused("a window function"));
        }
        if !function.within_group.is_empty()
            || function.null_treatment.is_some()
            || function.uses_odbc_syntax
            || function.parameters != FunctionArguments::None
        {
            return Err(refused("this form of function call"));
        }
        let list = match &function.args {
            FunctionArguments::None => return Ok(Expr::Call(name, Vec::new())),
            FunctionArguments::Subquery(_) => return Err(refused("a subquery")),
            FunctionArguments::List(list) => list,
        };
        if !list.clauses.is_empty() {
            return Err(refused("ORDER BY or another clause among a function's arguments"));
        }
        let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        let filter = function.filter.as_ref().map(|f| self.boxed(f)).transpose()?;
        let is_star = matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]);
        if !is_aggregate(&name) {
            if distinct || filter.is_some() || is_star {
                return Err(refused(&format!("DISTINCT, FILTER or * with function {name}")));
            }
            return Ok(Expr::Call(name, self.args(&list.args)?));
        }
        let args = if is_star { None } else { Some(self.args(&list.args)?) };
        Ok(Expr::Aggregate { name, args, distinct, filter })
    }

    fn args(&mut self, args: &[FunctionArg]) -> Result<Vec<Expr>, RouteError> {
        args.iter()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => self.expr(expr),
                _ => Err(refused("a named or starred argument")),
            })
            .collect()
    }
}

fn is_plain(options: &WildcardAdditionalOptions) -> bool {
    options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none()
        && options.opt_alias.is_none()
}

fn constant(value: &AstValue) -> Result<Expr, RouteError> {
    let text = |text: &String| Expr::Literal(Value::Text(text.clone()));
    Ok(match value {
        AstValue::Number(digits, false) => Expr::Literal(number(digits)?),
        AstValue::SingleQuotedString(s)
        | AstValue::EscapedStringLiteral(s)
        | AstValue::UnicodeStringLiteral(s) => text(s),
        AstValue::DollarQuotedString(s) => text(&s.value),
        AstValue::Boolean(b) => Expr::Literal(Value::Bool(*b)),
        AstValue::Null => Expr::Literal(Value::Null),
        AstValue::Placeholder(name) => {
            let at =
                name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok()).and_then(|n| n.checked_sub(1));
            Expr::Param(at.ok_or_else(|| {
                sql_error(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))
            })?)
        }
        _ => return Err(refused("this form of literal")),
    })
}

/// An integer if it is written as one and a bigint can hold it, else a numeric.
fn number(text: &str) -> Result<Value, RouteError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.bytes().all(|b| b.is_ascii_digit())
        && let Ok(n) = text.parse::<i64>()
    {
        return Ok(Value::Int(n));
    }
    text.parse::<Numeric>().map(Value::Numeric).map_err(|_| refused(&format!("the number {text}")))
}

/// The types casts may name.
fn type_of(data_type: &DataType) -> Result<Type, RouteError> {
    use sqlparser::ast::{ExactNumberInfo, TimezoneInfo};
    Ok(match data_type {
        DataType::Bool | DataType::Boolean => Type::Bool,
        DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => Type::Int4,
        DataType::BigInt(None) | DataType::Int8(None) => Type::Int8,
        DataType::Numeric(ExactNumberInfo::None)
        | DataType::Decimal(ExactNumberInfo::None)
        | DataType::Dec(ExactNumberInfo::None) => Type::Numeric,
        DataType::DoublePrecision | DataType::Float8 | DataType::Float(ExactNumberInfo::None) => Type::Float8,
        DataType::Text => Type::Text,
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => Type::Timestamptz,
        other => return Err(refused(&format!("type {other}"))),
    })
}

fn operator(op: &BinaryOperator) -> Result<BinaryOp, RouteError> {
    Ok(match op {
        BinaryOperator::And => BinaryOp::And,
        BinaryOperator::Or => BinaryOp::Or,
        BinaryOperator::Eq => BinaryOp::Eq,
        BinaryOperator::NotEq => BinaryOp::NotEq,
        BinaryOperator::Lt => BinaryOp::Lt,
        BinaryOperator::LtEq => BinaryOp::LtEq,
        BinaryOperator::Gt => BinaryOp::Gt,
        BinaryOperator::GtEq => BinaryOp::GtEq,
        BinaryOperator::Plus => BinaryOp::Add,
        BinaryOperator::Minus => BinaryOp::Sub,
        BinaryOperator::Multiply => BinaryOp::Mul,
        BinaryOperator::Divide => BinaryOp::Div,
        BinaryOperator::Modulo => BinaryOp::Mod,
        BinaryOperator::StringConcat => BinaryOp::Concat,
        BinaryOperator::PGLikeMatch => BinaryOp::Like,
        BinaryOperator::PGNotLikeMatch => BinaryOp::NotLike,
        BinaryOperator::PGILikeMatch => BinaryOp::ILike,
        BinaryOperator::PGNotILikeMatch => BinaryOp::NotILike,
        other => return Err(refused(&format!("operator {other}"))),
    })
}

/// What an expression is called when it is refused.
fn construct(ast: &Ast) -> &'static str {
    match ast {
        Ast::Subquery(_) | Ast::InSubquery { .. } | Ast::Exists { .. } => "a subquery",
        Ast::AnyOp { .. } | Ast::AllOp { .. } => "ANY or ALL",
        Ast::Array(_) => "ARRAY",
        Ast::Interval(_) => "INTERVAL",
        Ast::Extract { .. } => "EXTRACT",
        Ast::AtTimeZone { .. } => "AT TIME ZONE",
        Ast::Collate { .. } => "COLLATE",
        Ast::Like { .. } | Ast::ILike { .. } => "LIKE … ESCAPE",
        Ast::SimilarTo { .. } => "SIMILAR TO",
        Ast::Tuple(_) => "a row of several values",
        Ast::Position { .. } => "POSITION",
        Ast::Substring { .. } => "SUBSTRING",
        Ast::Trim { .. } => "TRIM",
        Ast::Overlay { .. } => "OVERLAY",
        Ast::GroupingSets(_) | Ast::Cube(_) | Ast::Rollup(_) => "GROUPING SETS, CUBE or ROLLUP",
        Ast::CompoundFieldAccess { .. } | Ast::JsonAccess { .. } => "a subscript or field",
        _ => "this form of expression",
    }
}

/// The name PostgreSQL gives an output without alias.
fn output_name(ast: &Ast) -> String {
    name_of(ast).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// A name and whether it is strong: a cast takes the name of what it casts only then.
fn name_of(ast: &Ast) -> Option<(String, bool)> {
    let weak = |name: &str| Some((name.to_owned(), false));
    match ast {
        Ast::Identifier(ident) => Some((fold(ident), true)),
        Ast::CompoundIdentifier(idents) => idents.last().map(|i| (fold(i), true)),
        Ast::Nested(inner) => name_of(inner),
        Ast::Function(f) => parts(&f.name).and_then(|p| p.last().map(|name| (name.clone(), true))),
        Ast::Ceil { .. } => Some(("ceil".to_owned(), true)),
        Ast::Floor { .. } => Some(("floor".to_owned(), true)),
        Ast::Value(value) if matches!(value.value, AstValue::Boolean(_)) => weak("bool"),
        Ast::TypedString(typed) => weak(internal_name(&typed.data_type)),
        Ast::Cast { expr, data_type, .. } => {
            name_of(expr).filter(|(_, strong)| *strong).or_else(|| weak(internal_name(data_type)))
        }
        Ast::Case { else_result, .. } => {
            let inner = else_result.as_deref().and_then(name_of).filter(|(_, strong)| *strong);
            inner.or_else(|| weak("case"))
        }
        _ => None,
    }
}

fn internal_name(data_type: &DataType) -> &'static str {
    match type_of(data_type) {
        Ok(Type::Bool) => "bool",
        Ok(Type::Int4) => "int4",
        Ok(Type::Int8) => "int8",
        Ok(Type::Numeric) => "numeric",
        Ok(Type::Float8) => "float8",
        Ok(Type::Text) => "text",
        Ok(Type::Timestamptz) => "timestamptz",
        Err(_) => "?column?", // refused anyway
    }
}

#[cfg(test)]
mod tests {
    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::parser::Parser;

    use super::*;

    fn select(sql: &str, bare: bool) -> Result<Option<Select>, RouteError> {
        let ast = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
        virtual_select(&ast[0], bare)
    }

    #[test]
    fn only_tables_of_the_schema_are_virtual_unless_the_database_is_ours() {
        for (sql, bare, want) in [
            ("select * from pgherd.latency", false, Some("latency")),
            ("select * from PGHERD.Latency", false, Some("latency")),
            ("select * from \"pgherd\".\"Latency\"", false, Some("Latency")),
            ("select * from latency", false, None),
            ("select * from latency", true, Some("latency")),
            ("select * from pgherd.latency", true, Some("latency")),
            ("select 1", false, None),
            ("select * from users u join orders using (user_id)", false, None),
            ("insert into users values (1)", false, None),
            ("insert into users values (1)", true, None),
        ] {
            let found = select(sql, bare).unwrap().map(|s| s.from.unwrap().name);
            assert_eq!(found.as_deref(), want, "{sql}");
        }
        assert_eq!(select("select 1", true).unwrap().unwrap().from, None);
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        for (sql, want) in [
            ("select * from pgherd.latency, users", "more than one table in FROM"),
            ("select * from users, pgherd.latency", "more than one table in FROM"),
            ("select * from pgherd.latency join users on true", "a join"),
            (
                "select * from users where id in (select 1 from pgherd.latency)",
                "table users beside virtual tables",
            ),
            ("with x as (select 1) select * from pgherd.latency", "WITH"),
            ("select * from (select * from pgherd.latency) x", "a subquery or function in FROM"),
            ("select * from pgherd.latency union select * from users", "UNION, INTERSECT or EXCEPT"),
            ("select 1 except table pgherd.latency", "UNION, INTERSECT or EXCEPT"),
            ("select distinct on (shard) * from pgherd.latency", "DISTINCT ON"),
            ("select rank() over (order by 1) from pgherd.latency", "a window function"),
            ("select * from pgherd.latency for update", "FOR UPDATE or FOR SHARE"),
            ("select * from pgherd.latency where shard = any(array['a'])", "ANY or ALL"),
            ("select * from pgherd.latency where shard ~ 'a'", "operator ~"),
            ("select * from pgherd.latency where shard like 'a' escape 'b'", "LIKE … ESCAPE"),
            ("select p99_us::numeric(10,2) from pgherd.latency", "type NUMERIC(10,2)"),
            ("select p99_us::varchar from pgherd.latency", "type VARCHAR"),
            ("select (select 1) from pgherd.latency", "a subquery"),
            ("select * from pgherd.latency group by rollup (shard)", "GROUPING SETS, CUBE or ROLLUP"),
            ("select * from pgherd.latency l (a, b)", "a list of column aliases"),
            ("select * from pgherd.latency tablesample system (1)", "TABLESAMPLE"),
            (
                "select max(x order by y) from pgherd.latency",
                "ORDER BY or another clause among a function's arguments",
            ),
            ("select now() - interval '1 day' from pgherd.errors", "INTERVAL"),
            ("delete from pgherd.errors", "a statement other than SELECT"),
            ("explain select * from pgherd.latency", "a statement other than SELECT"),
        ] {
            match select(sql, false) {
                Err(RouteError::Refused { what, .. }) => {
                    assert_eq!(
                        what,
                        format!("{want} is not supported in queries on virtual tables"),
                        "{sql}"
                    );
                }
                other => panic!("{sql}: {other:?}"),
            }
        }
        assert!(matches!(select("select * from pg_catalog.pg_class", true), Err(RouteError::Refused { .. })));
    }

    #[test]
    fn columns_may_be_qualified_by_the_name_in_force_only() {
        for (sql, want) in [
            ("select latency.shard from pgherd.latency", true),
            ("select pgherd.latency.shard from pgherd.latency", true),
            ("select l.shard from pgherd.latency as l", true),
            ("select l.* from pgherd.latency l", true),
            ("select latency.shard from pgherd.latency l", false),
            ("select other.shard from pgherd.latency", false),
            ("select other.* from pgherd.latency", false),
        ] {
            let got = select(sql, false);
            assert_eq!(got.is_ok(), want, "{sql}: {got:?}");
            if let Err(e) = got {
                assert!(matches!(e, RouteError::Sql { code: SqlState::UNDEFINED_TABLE, .. }), "{sql}");
            }
        }
    }

    #[test]
    fn outputs_are_named_as_postgresql_names_them() {
        for (expr, want) in [
            ("shard", "shard"),
            ("l.SHARD", "shard"),
            ("\"Shard\"", "Shard"),
            ("1", "?column?"),
            ("true", "bool"),
            ("shard || 'x'", "?column?"),
            ("count(*)", "count"),
            ("COALESCE(shard, 'x')", "coalesce"),
            ("ceil(1.5)", "ceil"),
            ("1::bigint", "int8"),
            ("shard::text", "shard"),
            ("cast(count(*) as double precision)", "count"),
            ("text 'a'", "text"),
            ("case when true then 1 end", "case"),
            ("case when true then 1 else count end", "count"),
            ("current_user", "current_user"),
            ("x as y", "y"),
        ] {
            let select = select(&format!("select {expr} from pgherd.latency l"), false).unwrap().unwrap();
            assert!(
                matches!(&select.items[0], Item::Expr(_, name) if name == want),
                "{expr}: {:?}",
                select.items
            );
        }
    }

    #[test]
    fn a_sign_belongs_to_the_number_after_it() {
        for (text, want) in [
            ("-5", Value::Int(-5)),
            ("-9223372036854775808", Value::Int(i64::MIN)),
            ("9223372036854775808", Value::Numeric("9223372036854775808".parse().unwrap())),
            ("-1.50", Value::Numeric("-1.50".parse().unwrap())),
        ] {
            let select = select(&format!("select {text} from pgherd.x"), false).unwrap().unwrap();
            assert_eq!(select.items, [Item::Expr(Expr::Literal(want), "?column?".to_owned())], "{text}");
        }
    }

    #[test]
    fn a_long_chain_of_operators_is_refused_not_followed() {
        let sql = format!("select 1{} from pgherd.x", " + 1".repeat(5000));
        std::thread::Builder::new()
            .stack_size(64 << 20)
            .spawn(move || assert!(select(&sql, false).is_err()))
            .unwrap()
            .join()
            .unwrap();
    }
}
