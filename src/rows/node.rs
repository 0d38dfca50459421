//! Bound expressions: names resolved to positions, every type known, casts explicit.
//! Must not know SQL names, nor how a node is evaluated.

use super::functions::{AggregateFunction, Function};
use super::{RowsError, Type, Value};

/// A bound expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Column of the input row, by position.
    Column(usize),
    /// A constant.
    Const(Value),
    /// A parameter, 0-based.
    Param(usize),
    /// An aggregate; only between binding and grouping.
    Aggregate(Box<AggregateCall>),
    /// An operation on its arguments.
    Op(Op, Vec<Node>),
}

/// An aggregate over the rows of a group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AggregateCall {
    pub(super) function: AggregateFunction,
    /// Its argument; `None` is `count(*)`.
    pub(super) arg: Option<Node>,
    pub(super) distinct: bool,
    pub(super) filter: Option<Node>,
}

/// What is done with arguments. All are strict (NULL in, NULL out) unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Op {
    /// Three-valued, of any number of arguments, stops early.
    And,
    /// Three-valued, of any number of arguments, stops early.
    Or,
    Not,
    Compare(Comparison),
    /// Of two numbers of this type.
    Arith(Arithmetic, Type),
    Negate(Type),
    Concat,
    Like {
        fold: bool,
        negated: bool,
    },
    /// Not strict; true for IS NULL.
    IsNull(bool),
    /// Not strict; IS [NOT] TRUE, FALSE or UNKNOWN.
    IsBool(Option<bool>, bool),
    /// Not strict; true for IS DISTINCT FROM.
    IsDistinct(bool),
    /// The first argument against the others, three-valued; true for IN.
    In(bool),
    /// The first argument between the other two, three-valued.
    Between,
    /// WHEN, THEN, …, ELSE; stops early.
    Case,
    /// The operand, then WHEN, THEN, …, ELSE; stops early.
    CaseOf,
    /// Stops early.
    Coalesce,
    NullIf,
    /// Not strict: leaves out NULLs. The largest if true, else the smallest.
    Extreme(bool),
    Cast(Type, Type),
    Call(Function),
}

/// Comparison operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

/// Arithmetic operators with two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
}

impl Node {
    /// Whether it reads a column or an aggregate.
    pub(super) fn reads_input(&self) -> bool {
        match self {
            Self::Column(_) | Self::Aggregate(_) => true,
            Self::Const(_) | Self::Param(_) => false,
            Self::Op(_, args) => args.iter().any(Self::reads_input),
        }
    }

    /// Whether an aggregate is in it.
    pub(super) fn has_aggregate(&self) -> bool {
        match self {
            Self::Aggregate(_) => true,
            Self::Column(_) | Self::Const(_) | Self::Param(_) => false,
            Self::Op(_, args) => args.iter().any(Self::has_aggregate),
        }
    }

    /// Rewrites it over the row that grouping makes: the keys first, then the aggregates, which are collected.
    ///
    /// # Errors
    /// [`RowsError::Grouping`] for a column that is no key.
    pub(super) fn over_groups(
        self,
        keys: &[Node],
        aggregates: &mut Vec<AggregateCall>,
        column_name: &dyn Fn(usize) -> String,
    ) -> Result<Self, RowsError> {
        if let Some(at) = keys.iter().position(|key| *key == self) {
            return Ok(Self::Column(at));
        }
        match self {
            Self::Column(at) => Err(RowsError::Grouping(format!(
                "column \"{}\" must appear in the GROUP BY clause or be used in an aggregate function",
                column_name(at)
            ))),
            Self::Const(_) | Self::Param(_) => Ok(self),
            Self::Aggregate(call) => {
                let at = aggregates.iter().position(|known| *known == *call).unwrap_or_else(|| {
                    aggregates.push(*call);
                    aggregates.len() - 1
                });
                Ok(Self::Column(keys.len() + at))
            }
            Self::Op(op, args) => args
                .into_iter()
                .map(|arg| arg.over_groups(keys, aggregates, column_name))
                .collect::<Result<_, _>>()
                .map(|args| Self::Op(op, args)),
        }
    }
}
