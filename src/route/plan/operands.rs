//! Constants and parameters in the syntax tree, found again in the statement's own text.
//! Must not know what they are compared with.

use sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
    ValueWithSpan,
};
use sqlparser::tokenizer::Location;

use super::keys::{Operand, Source};
use super::survey::parameter;
use crate::route::lex::{LiteralAt, LiteralKind};
use crate::route::literal::Lines;
use crate::shard::KeyType;

/// Finds the ordinal of a literal by its place in the text.
#[derive(Debug)]
pub(super) struct Ordinals<'a> {
    source: &'a [u8],
    literals: &'a [LiteralAt],
    lines: Lines<'a>,
}

impl<'a> Ordinals<'a> {
    /// For one statement: the text it was parsed from and the client's own bytes, place for place.
    pub(super) fn new(text: &'a str, source: &'a [u8], literals: &'a [LiteralAt]) -> Self {
        Self { source, literals, lines: Lines::new(text) }
    }

    /// The byte offset of a place.
    pub(super) fn offset(&self, at: Location) -> Option<usize> {
        self.lines.offset_of(at.line, at.column)
    }

    /// The client's own bytes.
    pub(super) fn source(&self) -> &'a [u8] {
        self.source
    }

    /// The literal that a value was parsed from. Its value is not looked at: texts with other ones share the plan.
    fn ordinal(&self, value: &ValueWithSpan) -> Option<u32> {
        let at = u32::try_from(self.offset(value.span.start)?).ok()?;
        let index = self.literals.binary_search_by_key(&at, |l| l.span.start).ok()?;
        let is_number = matches!(self.literals.get(index)?.kind, LiteralKind::Integer | LiteralKind::Number);
        (is_number == matches!(value.value, Value::Number(..))).then(|| u32::try_from(index).ok()).flatten()
    }

    /// A constant or parameter, perhaps with a cast; `None` for any other expression.
    pub(super) fn operand(&self, expr: &Expr) -> Option<Operand> {
        self.cast_operand(expr, false)
    }

    /// The same for what stands for an array: `'{…}'`, `$1`, casts of these to an array type.
    pub(super) fn array_operand(&self, expr: &Expr) -> Option<Operand> {
        self.cast_operand(expr, true)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "any other expression is no constant")]
    fn cast_operand(&self, expr: &Expr, array: bool) -> Option<Operand> {
        let typed = |data_type: &DataType| if array { element_type(data_type) } else { key_type(data_type) };
        match expr {
            Expr::Nested(inner) => self.cast_operand(inner, array),
            Expr::Value(value) => self.value(value),
            Expr::TypedString(string) => {
                Some(Operand { cast: Some(typed(&string.data_type)?), ..self.value(&string.value)? })
            }
            Expr::Cast { expr, data_type, .. } => {
                let inner = self.cast_operand(expr, array)?;
                let cast = typed(data_type)?;
                // A second cast is one too many, and a number's text is not that of the literal.
                let plain = inner.cast.is_none_or(|c| c == cast) && (!inner.number || cast.is_int());
                plain.then_some(Operand { cast: Some(cast), ..inner })
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let inner = self.cast_operand(expr, array)?;
                (inner.number && !inner.negated).then_some(Operand { negated: true, ..inner })
            }
            Expr::UnaryOp { op: UnaryOperator::Plus, expr } => {
                self.cast_operand(expr, array).filter(|inner| inner.number)
            }
            _ => None,
        }
    }

    fn value(&self, value: &ValueWithSpan) -> Option<Operand> {
        let operand = |source, number| Operand { source, number, negated: false, cast: None };
        if let Value::Placeholder(name) = &value.value {
            return Some(operand(Source::Param(parameter(name)?), false));
        }
        if value.value == Value::Null {
            return Some(operand(Source::Null, false));
        }
        Some(operand(Source::Literal(self.ordinal(value)?), matches!(value.value, Value::Number(..))))
    }

    /// The elements of `ARRAY[a, b]`, perhaps with a cast of the whole.
    #[expect(clippy::wildcard_enum_match_arm, reason = "any other expression is no array of constants")]
    pub(super) fn elements(&self, expr: &Expr) -> Option<Vec<Operand>> {
        match expr {
            Expr::Nested(inner) => self.elements(inner),
            Expr::Array(array) if array.named => array.elem.iter().map(|e| self.operand(e)).collect(),
            Expr::Cast { expr, data_type, .. } => {
                let cast = element_type(data_type)?;
                let mut elements = self.elements(expr)?;
                for element in &mut elements {
                    if element.cast.is_some_and(|c| c != cast) || element.number && !cast.is_int() {
                        return None;
                    }
                    element.cast = Some(cast);
                }
                Some(elements)
            }
            _ => None,
        }
    }
}

/// The parts of `(a, b)` and `ROW(a, b)`.
#[expect(clippy::wildcard_enum_match_arm, reason = "any other expression is no row")]
pub(super) fn row(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Tuple(parts) => Some(parts.iter().collect()),
        Expr::Nested(inner) => row(inner),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => {
            let FunctionArguments::List(list) = &function.args else { return None };
            list.args
                .iter()
                .map(|arg| match arg {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                    FunctionArg::Unnamed(_) | FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => {
                        None
                    }
                })
                .collect()
        }
        _ => None,
    }
}

/// The type of a cast, where it leaves the value as it is: none with a length.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other type is one of keys")]
fn key_type(data_type: &DataType) -> Option<KeyType> {
    Some(match data_type {
        DataType::Text => KeyType::Text,
        DataType::Varchar(None) | DataType::CharacterVarying(None) | DataType::CharVarying(None) => {
            KeyType::Varchar
        }
        DataType::SmallInt(None) | DataType::Int2(None) => KeyType::Int2,
        DataType::Int(None) | DataType::Integer(None) | DataType::Int4(None) => KeyType::Int4,
        DataType::BigInt(None) | DataType::Int8(None) => KeyType::Int8,
        DataType::Uuid => KeyType::Uuid,
        _ => return None,
    })
}

fn element_type(data_type: &DataType) -> Option<KeyType> {
    let DataType::Array(ArrayElemTypeDef::SquareBracket(inner, _)) = data_type else { return None };
    key_type(inner)
}
