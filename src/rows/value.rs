//! Values, columns and tables.
//! Must not know where they come from.

use std::cmp::Ordering;

use super::Numeric;

/// The types virtual tables use, each a PostgreSQL type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::len_without_is_empty, reason = "the length of a type's values, not of a collection")]
pub enum Type {
    /// `boolean`
    Bool,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `numeric` without precision
    Numeric,
    /// `double precision`
    Float8,
    /// `text`, collation "C"
    Text,
    /// `timestamp with time zone`: microseconds since 2000-01-01 00:00 UTC
    Timestamptz,
}

impl Type {
    /// Its OID. Source: PostgreSQL's `pg_type.dat`.
    #[must_use]
    pub fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Numeric => 1700,
            Self::Float8 => 701,
            Self::Text => 25,
            Self::Timestamptz => 1184,
        }
    }

    /// The type of an OID, if it is exactly one of these.
    #[must_use]
    pub fn of_oid(oid: u32) -> Option<Self> {
        [Self::Bool, Self::Int4, Self::Int8, Self::Numeric, Self::Float8, Self::Text, Self::Timestamptz]
            .into_iter()
            .find(|kind| kind.oid() == oid)
    }

    /// `pg_type.typlen`: bytes, -1 for a varying length.
    #[must_use]
    pub fn len(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int4 => 4,
            Self::Int8 | Self::Float8 | Self::Timestamptz => 8,
            Self::Numeric | Self::Text => -1,
        }
    }

    /// Its name as PostgreSQL's messages print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Numeric => "numeric",
            Self::Float8 => "double precision",
            Self::Text => "text",
            Self::Timestamptz => "timestamp with time zone",
        }
    }

    /// The step on the ladder of implicit casts between numbers; `None` if it is no number.
    pub(super) fn rung(self) -> Option<u8> {
        match self {
            Self::Int4 => Some(0),
            Self::Int8 => Some(1),
            Self::Numeric => Some(2),
            Self::Float8 => Some(3),
            Self::Bool | Self::Text | Self::Timestamptz => None,
        }
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL
    Null,
    /// `boolean`
    Bool(bool),
    /// `integer` or `bigint`, as the column says
    Int(i64),
    /// `numeric`
    Numeric(Numeric),
    /// `double precision`
    Float(f64),
    /// `text`
    Text(String),
    /// Microseconds since 2000-01-01 00:00 UTC.
    Timestamptz(i64),
}

impl Value {
    /// Whether it is NULL.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// PostgreSQL's order of two values that are not NULL, numbers of different types included.
    /// Text is compared by bytes (collation "C"); NaN is equal to itself and above every number.
    /// Values of types that cannot be compared are equal: binding has refused them before.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Timestamptz(a), Self::Timestamptz(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Numeric(a), Self::Numeric(b)) => a.order(*b),
            (Self::Int(a), Self::Numeric(b)) => Numeric::from(*a).order(*b),
            (Self::Numeric(a), Self::Int(b)) => a.order(Numeric::from(*b)),
            (a, b) => match (a.as_float(), b.as_float()) {
                (Some(a), Some(b)) => order_floats(a, b),
                _ => Ordering::Equal,
            },
        }
    }

    /// The number as `double precision`, as the implicit cast makes it.
    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Numeric(n) => Some(n.to_f64()),
            Self::Float(f) => Some(*f),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::Timestamptz(_) => None,
        }
    }
}

fn order_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: Type,
}

impl Column {
    /// A column.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: Type) -> Self {
        Self { name: name.into(), kind }
    }
}

/// A whole table in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, each as long as `columns`.
    pub rows: Vec<Vec<Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_types_compare_as_postgresql_promotes_them() {
        let half = Value::Numeric("0.5".parse().unwrap());
        for (a, b, want) in [
            (Value::Int(1), half.clone(), Ordering::Greater),
            (half.clone(), Value::Float(0.5), Ordering::Equal),
            (Value::Int(9_007_199_254_740_993), Value::Float(9_007_199_254_740_992.0), Ordering::Equal),
            (Value::Float(f64::NAN), Value::Float(f64::INFINITY), Ordering::Greater),
            (Value::Float(f64::NAN), Value::Float(f64::NAN), Ordering::Equal),
            (Value::Float(-0.0), Value::Float(0.0), Ordering::Equal),
            (Value::Text("Z".into()), Value::Text("a".into()), Ordering::Less),
            (Value::Text("é".into()), Value::Text("z".into()), Ordering::Greater),
        ] {
            assert_eq!(a.order(&b), want, "{a:?} {b:?}");
        }
    }
}
