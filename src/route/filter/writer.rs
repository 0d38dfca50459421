//! Writes a parsed condition or order anew: columns by the catalog's own names, every literal as a parameter.
//! Must not know texts: it sees the parser's trees only, and lets through what it names.

use sqlparser::ast::{
    BinaryOperator, Expr, Ident, OrderByExpr, OrderBySort, UnaryOperator, Value, ValueWithSpan,
};

use super::{FilterError, Fragment, not_allowed, quoted};
use crate::catalog::Relation;

/// SQL of what is allowed, as it grows.
pub(super) struct Writer<'r> {
    relation: &'r Relation,
    next: usize,
    fragment: Fragment,
}

impl<'r> Writer<'r> {
    pub(super) fn new(relation: &'r Relation, first: usize) -> Self {
        Self { relation, next: first, fragment: Fragment::default() }
    }

    pub(super) fn finish(self) -> Fragment {
        self.fragment
    }

    pub(super) fn put(&mut self, sql: &str) {
        self.fragment.sql.push_str(sql);
    }

    fn param(&mut self, value: &str, cast: &str) {
        let number = self.next;
        self.next += 1;
        self.put(&format!("${number}{cast}"));
        self.fragment.params.push(value.to_owned());
    }

    fn column(&mut self, ident: &Ident) -> Result<(), FilterError> {
        let name = match ident.quote_style {
            None => ident.value.to_ascii_lowercase(),
            Some('"') => ident.value.clone(),
            Some(_) => return not_allowed("a name in other than double quotes"),
        };
        let Some(column) = self.relation.column(&name) else { return Err(FilterError::NoColumn(name)) };
        let quoted = quoted(&column.name);
        self.put(&quoted);
        Ok(())
    }

    pub(super) fn order(&mut self, item: &OrderByExpr) -> Result<(), FilterError> {
        if matches!(&item.expr, Expr::Value(_)) {
            return not_allowed("a literal or a position as order");
        }
        if item.with_fill.is_some() {
            return not_allowed("WITH FILL");
        }
        self.expr(&item.expr)?;
        match &item.options.sort {
            None | Some(OrderBySort::Asc) => {}
            Some(OrderBySort::Desc) => self.put(" DESC"),
            Some(OrderBySort::Using(_)) => return not_allowed("USING"),
        }
        match item.options.nulls_first {
            None => {}
            Some(true) => self.put(" NULLS FIRST"),
            Some(false) => self.put(" NULLS LAST"),
        }
        Ok(())
    }

    /// Everything in parentheses: what binds closer was decided by the parser.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not allowed")]
    pub(super) fn expr(&mut self, expr: &Expr) -> Result<(), FilterError> {
        match expr {
            Expr::Identifier(ident) => self.column(ident),
            Expr::Value(value) => self.literal(value),
            Expr::Nested(inner) => self.expr(inner),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::IsNull(inner) => self.is(inner, "NULL"),
            Expr::IsNotNull(inner) => self.is(inner, "NOT NULL"),
            Expr::IsTrue(inner) => self.is(inner, "TRUE"),
            Expr::IsNotTrue(inner) => self.is(inner, "NOT TRUE"),
            Expr::IsFalse(inner) => self.is(inner, "FALSE"),
            Expr::IsNotFalse(inner) => self.is(inner, "NOT FALSE"),
            Expr::IsUnknown(inner) => self.is(inner, "UNKNOWN"),
            Expr::IsNotUnknown(inner) => self.is(inner, "NOT UNKNOWN"),
            Expr::IsDistinctFrom(a, b) => self.infix(a, "IS DISTINCT FROM", b),
            Expr::IsNotDistinctFrom(a, b) => self.infix(a, "IS NOT DISTINCT FROM", b),
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::Between { expr, negated, low, high } => {
                self.put("(");
                self.operand(expr)?;
                self.put(if *negated { " NOT BETWEEN " } else { " BETWEEN " });
                self.operand(low)?;
                self.put(" AND ");
                self.operand(high)?;
                self.put(")");
                Ok(())
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char: None } => {
                self.infix(expr, if *negated { "NOT LIKE" } else { "LIKE" }, pattern)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char: None } => {
                self.infix(expr, if *negated { "NOT ILIKE" } else { "ILIKE" }, pattern)
            }
            other => not_allowed(name_of(other)),
        }
    }

    /// An operand of what binds closer than AND. One that is itself a comparison must stand in parentheses: parsers
    /// differ in what binds closer among these.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only comparisons are looked for")]
    fn operand(&mut self, expr: &Expr) -> Result<(), FilterError> {
        let compares = match expr {
            Expr::BinaryOp { op, .. } => is_comparison(op),
            Expr::UnaryOp { op: UnaryOperator::Not, .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. } => true,
            _ => false,
        };
        if compares {
            return not_allowed("a comparison of a comparison without parentheses");
        }
        self.expr(expr)
    }

    fn infix(&mut self, left: &Expr, op: &str, right: &Expr) -> Result<(), FilterError> {
        self.put("(");
        self.operand(left)?;
        self.put(&format!(" {op} "));
        self.operand(right)?;
        self.put(")");
        Ok(())
    }

    fn is(&mut self, inner: &Expr, what: &str) -> Result<(), FilterError> {
        self.put("(");
        self.operand(inner)?;
        self.put(&format!(" IS {what})"));
        Ok(())
    }

    fn in_list(&mut self, expr: &Expr, list: &[Expr], negated: bool) -> Result<(), FilterError> {
        if list.is_empty() {
            return not_allowed("an empty list");
        }
        self.put("(");
        self.operand(expr)?;
        self.put(if negated { " NOT IN (" } else { " IN (" });
        for (i, item) in list.iter().enumerate() {
            if i > 0 {
                self.put(", ");
            }
            self.operand(item)?;
        }
        self.put("))");
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not allowed")]
    fn unary(&mut self, op: UnaryOperator, inner: &Expr) -> Result<(), FilterError> {
        match op {
            UnaryOperator::Not => {
                self.put("(NOT ");
                self.expr(inner)?;
            }
            UnaryOperator::Minus | UnaryOperator::Plus => {
                self.put(if op == UnaryOperator::Minus { "(- " } else { "(+ " });
                self.operand(inner)?;
            }
            other => return not_allowed(format!("operator {other}")),
        }
        self.put(")");
        Ok(())
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not allowed")]
    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Result<(), FilterError> {
        let word = match op {
            BinaryOperator::And | BinaryOperator::Or => {
                self.put("(");
                self.expr(left)?;
                self.put(if *op == BinaryOperator::And { " AND " } else { " OR " });
                self.expr(right)?;
                self.put(")");
                return Ok(());
            }
            BinaryOperator::Eq => "=",
            BinaryOperator::NotEq => "<>",
            BinaryOperator::Lt => "<",
            BinaryOperator::LtEq => "<=",
            BinaryOperator::Gt => ">",
            BinaryOperator::GtEq => ">=",
            BinaryOperator::Plus => "+",
            BinaryOperator::Minus => "-",
            BinaryOperator::Multiply => "*",
            BinaryOperator::Divide => "/",
            BinaryOperator::Modulo => "%",
            other => return not_allowed(format!("operator {other}")),
        };
        self.infix(left, word, right)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not allowed")]
    fn literal(&mut self, value: &ValueWithSpan) -> Result<(), FilterError> {
        match &value.value {
            // Its type comes from what it is compared with, as a literal's does.
            Value::SingleQuotedString(text) => self.param(text, ""),
            Value::Number(text, false) => match number_type(text) {
                Some(cast) => self.param(text, cast),
                None => return not_allowed("a number of this form"),
            },
            Value::Boolean(true) => self.put("TRUE"),
            Value::Boolean(false) => self.put("FALSE"),
            Value::Null => self.put("NULL"),
            _ => return not_allowed("a literal of this kind"),
        }
        Ok(())
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::And
            | BinaryOperator::Or
            | BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq
    )
}

/// The type that PostgreSQL gives a number. Source: PostgreSQL docs, "Numeric Constants".
fn number_type(text: &str) -> Option<&'static str> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(exponent) = exponent
        && !(digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)) && exponent.len() <= 4)
    {
        return None;
    }
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !digits(&format!("{whole}{fraction}")) {
        return None;
    }
    if exponent.is_some() || mantissa.contains('.') {
        return Some("::numeric");
    }
    Some(match text.parse::<i64>() {
        Ok(n) if i32::try_from(n).is_ok() => "::integer",
        Ok(_) => "::bigint",
        Err(_) => "::numeric",
    })
}

/// What an expression is called, without its text.
#[expect(clippy::wildcard_enum_match_arm, reason = "a name for the rest")]
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Function(function) => format!("function {}", function.name),
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => "a subquery".to_owned(),
        Expr::Cast { .. } | Expr::Convert { .. } => "a cast".to_owned(),
        Expr::Case { .. } => "CASE".to_owned(),
        Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. } => "a qualified name".to_owned(),
        Expr::Collate { .. } => "COLLATE".to_owned(),
        Expr::AtTimeZone { .. } => "AT TIME ZONE".to_owned(),
        Expr::Tuple(_) => "a row".to_owned(),
        Expr::Array(_) => "an array".to_owned(),
        Expr::Interval(_) => "an interval".to_owned(),
        Expr::TypedString(_) => "a literal with a type".to_owned(),
        Expr::AnyOp { .. } | Expr::AllOp { .. } => "ANY, SOME or ALL".to_owned(),
        Expr::SimilarTo { .. } => "SIMILAR TO".to_owned(),
        Expr::Like { .. } | Expr::ILike { .. } => "LIKE ANY or ESCAPE".to_owned(),
        Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => "*".to_owned(),
        _ => "an expression of this kind".to_owned(),
    }
}
