//! A parsed expression over a virtual table's columns to plain values that `rows` can evaluate.
//! Must not know which columns there are, nor their types.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser's enums hold every dialect; what is not named here is refused by name"
)]

use sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, DuplicateTreatment,
    Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, UnaryOperator,
    Value as AstValue,
};

use super::RouteError;
use super::virtual_select::{From, SCHEMA, fold, parts, refused, sql_error};
use crate::rows::{BinaryOp, Expr, Numeric, Type, Value, is_aggregate};
use crate::wire::SqlState;

/// The deepest nesting of expressions; the parser does not limit chains of operators.
const MAX_DEPTH: usize = 200;

/// Converts the expressions of one SELECT.
pub(super) struct Converter {
    pub(super) from: Option<From>,
    depth: usize,
}

impl Converter {
    pub(super) fn new(from: Option<From>) -> Self {
        Self { from, depth: 0 }
    }

    pub(super) fn exprs(&mut self, list: &[Ast]) -> Result<Vec<Expr>, RouteError> {
        list.iter().map(|e| self.expr(e)).collect()
    }

    fn boxed(&mut self, ast: &Ast) -> Result<Box<Expr>, RouteError> {
        self.expr(ast).map(Box::new)
    }

    /// A column's qualifier must be the FROM table's alias, or its name if it has none.
    pub(super) fn check_qualifier(&self, qualifier: &[String]) -> Result<(), RouteError> {
        let fits = self.from.as_ref().is_some_and(|from| match (qualifier, &from.alias) {
            ([table], Some(alias)) => table == alias,
            ([table], None) => *table == from.name,
            ([schema, table], None) => from.has_schema && schema == SCHEMA && *table == from.name,
            _ => false,
        });
        let missing = || format!("missing FROM-clause entry for table \"{}\"", qualifier.join("."));
        if fits { Ok(()) } else { Err(sql_error(SqlState::UNDEFINED_TABLE, missing())) }
    }

    pub(super) fn expr(&mut self, ast: &Ast) -> Result<Expr, RouteError> {
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
                if is_comparison(op) && is_compared(left) {
                    // In PostgreSQL comparisons do not associate; sqlparser reads them from the left.
                    return Err(sql_error(
                        SqlState::SYNTAX_ERROR,
                        format!("syntax error at or near \"{op}\""),
                    ));
                }
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

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// Whether it is a comparison without parentheses round it.
fn is_compared(ast: &Ast) -> bool {
    matches!(ast, Ast::BinaryOp { op, .. } if is_comparison(op))
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
pub(super) fn output_name(ast: &Ast) -> String {
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
