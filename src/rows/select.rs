//! A SELECT over one virtual table, as plain values.
//! Must not know SQL text.

use super::{Type, Value};

/// SELECT [DISTINCT] items [FROM table] WHERE … GROUP BY … HAVING … ORDER BY … LIMIT … OFFSET.
#[derive(Debug, Clone, PartialEq)]
pub struct Select {
    /// The table; `None` is a SELECT without FROM: one row.
    pub from: Option<FromTable>,
    /// What is selected.
    pub items: Vec<Item>,
    /// DISTINCT.
    pub distinct: bool,
    /// WHERE.
    pub filter: Option<Expr>,
    /// GROUP BY; a bare integer literal is a position, a bare name a column first, then an output name.
    pub group_by: Vec<Expr>,
    /// HAVING.
    pub having: Option<Expr>,
    /// ORDER BY.
    pub order_by: Vec<OrderBy>,
    /// LIMIT.
    pub limit: Option<Expr>,
    /// OFFSET.
    pub offset: Option<Expr>,
}

impl Select {
    /// SELECT * FROM a table: what SHOW does.
    #[must_use]
    pub fn all_of(table: impl Into<String>) -> Self {
        Self {
            from: Some(FromTable { name: table.into(), alias: None }),
            items: vec![Item::All],
            distinct: false,
            filter: None,
            group_by: Vec::new(),
            having: None,
            order_by: Vec::new(),
            limit: None,
            offset: None,
        }
    }
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
    /// A constant. A text literal has no type yet, as in PostgreSQL; a cast or its surroundings give it one.
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
    /// IS [NOT] TRUE | FALSE | UNKNOWN (`None`); true for IS.
    IsBool(Box<Expr>, Option<bool>, bool),
    /// IS [NOT] DISTINCT FROM; true for IS DISTINCT FROM.
    IsDistinct(Box<Expr>, Box<Expr>, bool),
    /// [NOT] IN (list); true for IN.
    In(Box<Expr>, Vec<Expr>, bool),
    /// BETWEEN low AND high.
    Between(Box<Expr>, Box<Expr>, Box<Expr>),
    /// CASE [operand] WHEN … THEN … [ELSE …] END.
    Case {
        /// Compared with each WHEN, if there is one.
        operand: Option<Box<Expr>>,
        /// WHEN and THEN.
        branches: Vec<(Expr, Expr)>,
        /// ELSE.
        otherwise: Option<Box<Expr>>,
    },
    /// A function that is not an aggregate, by name in lower case.
    Call(String, Vec<Expr>),
    /// An aggregate, by name in lower case.
    Aggregate {
        /// The function.
        name: String,
        /// Its arguments; `None` is `count(*)`.
        args: Option<Vec<Expr>>,
        /// DISTINCT.
        distinct: bool,
        /// FILTER (WHERE …).
        filter: Option<Box<Expr>>,
    },
    /// A cast.
    Cast(Box<Expr>, Type),
}

/// Whether a function of that name is an aggregate.
#[must_use]
pub fn is_aggregate(name: &str) -> bool {
    super::functions::is_aggregate(name)
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

impl BinaryOp {
    /// As PostgreSQL's messages name it.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
            Self::Eq => "=",
            Self::NotEq => "<>",
            Self::Lt => "<",
            Self::LtEq => "<=",
            Self::Gt => ">",
            Self::GtEq => ">=",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Mod => "%",
            Self::Like => "~~",
            Self::NotLike => "!~~",
            Self::ILike => "~~*",
            Self::NotILike => "!~~*",
            Self::Concat => "||",
        }
    }
}
