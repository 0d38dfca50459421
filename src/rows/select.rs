//! A SELECT over one virtual table, as plain values.
//! Must not know SQL text.

use super::Value;

/// SELECT [DISTINCT] items FROM table WHERE … GROUP BY … ORDER BY … LIMIT … OFFSET.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// The table.
    pub from: FromTable,
    /// What is selected.
    pub items: Vec<Item>,
    /// DISTINCT.
    pub distinct: bool,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY.
    pub group_by: Vec<Expr>,
    /// ORDER BY.
    pub order_by: Vec<OrderBy>,
    /// LIMIT.
    pub limit: Option<Expr>,
    /// OFFSET.
    pub offset: Option<Expr>,
}

/// FROM pgherd.name [AS alias].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromTable {
    /// The table's name in lower case, without schema.
    pub name: String,
    /// Its alias.
    pub alias: Option<String>,
}

/// One thing selected.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `*`
    All,
    /// An expression and its output name.
    Expr(Expr, String),
}

/// ORDER BY expr [DESC] [NULLS FIRST|LAST].
#[derive(Debug, Clone, PartialEq)]
pub struct OrderBy {
    /// By what; a bare integer literal is the output column's position, a bare name an output name first.
    pub expr: Expr,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST; PostgreSQL's default is last ascending, first descending.
    pub nulls_first: bool,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A column, its qualifier already checked.
    Column(String),
    /// A constant.
    Literal(Value),
    /// `$n`, 0-based here.
    Param(usize),
    /// NOT.
    Not(Box<Expr>),
    /// Unary minus.
    Negate(Box<Expr>),
    /// An operator with two sides.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// IS [NOT] NULL; true for IS NULL.
    IsNull(Box<Expr>, bool),
    /// [NOT] IN (list); true for IN.
    In(Box<Expr>, Vec<Expr>, bool),
    /// A function or aggregate by name: count, sum, min, max, avg, round, lower, upper, coalesce.
    /// `count(*)` has no arguments.
    Call(String, Vec<Expr>),
    /// A cast, to the type of that SQL name.
    Cast(Box<Expr>, String),
}

/// Operators with two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the SQL operator of its name")]
pub enum BinaryOp {
    And,
    Or,
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Like,
    NotLike,
    ILike,
    NotILike,
    Concat,
}
