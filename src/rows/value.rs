//! Values, columns and tables.
//! Must not know where they come from.

/// The types virtual tables use, each a PostgreSQL type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// `boolean`
    Bool,
    /// `bigint`
    Int8,
    /// `double precision`
    Float8,
    /// `text`
    Text,
    /// `timestamp with time zone`: microseconds since 2000-01-01 00:00 UTC
    Timestamptz,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL
    Null,
    /// `boolean`
    Bool(bool),
    /// `bigint`
    Int(i64),
    /// `double precision`
    Float(f64),
    /// `text`
    Text(String),
    /// Microseconds since 2000-01-01 00:00 UTC.
    Timestamptz(i64),
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
}

/// A whole table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}
