//! A struct's fields as the columns of a virtual table, in order, under the same names.
//! Must not know any particular table.

use std::time::SystemTime;

use super::Herd;
use super::herd::timestamp;
use crate::rows::{Column, Type, Value};

/// A struct that is a row; made by [`record!`].
pub(super) trait Record: Sized {
    /// The table's name.
    const TABLE: &'static str;
    /// What it shows, in a few words.
    const ABOUT: &'static str;

    /// Its columns.
    fn columns() -> Vec<Column>;

    /// Its values, one per column.
    fn values(self) -> Vec<Value>;
}

/// Where a table's rows come from.
pub(super) trait Source: Record {
    /// All rows.
    fn rows(herd: &Herd) -> Vec<Self>;
}

/// A type that a column can have.
pub(super) trait Field {
    const TYPE: Type;

    fn value(self) -> Value;
}

impl Field for bool {
    const TYPE: Type = Type::Bool;

    fn value(self) -> Value {
        Value::Bool(self)
    }
}

impl Field for u64 {
    const TYPE: Type = Type::Int8;

    fn value(self) -> Value {
        Value::Int(i64::try_from(self).unwrap_or(i64::MAX))
    }
}

impl Field for u32 {
    const TYPE: Type = Type::Int8;

    fn value(self) -> Value {
        Value::Int(i64::from(self))
    }
}

impl Field for f64 {
    const TYPE: Type = Type::Float8;

    fn value(self) -> Value {
        Value::Float(self)
    }
}

impl Field for String {
    const TYPE: Type = Type::Text;

    /// A zero byte cannot stand in a text of PostgreSQL.
    fn value(self) -> Value {
        Value::Text(if self.contains('\0') { self.replace('\0', "") } else { self })
    }
}

impl Field for &'static str {
    const TYPE: Type = Type::Text;

    fn value(self) -> Value {
        Value::Text(self.to_owned())
    }
}

impl Field for SystemTime {
    const TYPE: Type = Type::Timestamptz;

    fn value(self) -> Value {
        Value::Timestamptz(timestamp(self))
    }
}

impl<T: Field> Field for Option<T> {
    const TYPE: Type = T::TYPE;

    fn value(self) -> Value {
        self.map_or(Value::Null, T::value)
    }
}

/// Makes a struct that is a row of a virtual table.
macro_rules! record {
    (
        $(#[$doc:meta])*
        $name:ident is $table:literal, $about:literal { $($(#[$about_field:meta])* $field:ident: $kind:ty,)* }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub(in crate::admin) struct $name {
            $($(#[$about_field])* pub(in crate::admin) $field: $kind,)*
        }

        impl $crate::admin::record::Record for $name {
            const TABLE: &'static str = $table;
            const ABOUT: &'static str = $about;

            fn columns() -> Vec<$crate::rows::Column> {
                use $crate::admin::record::Field;
                vec![$($crate::rows::Column::new(stringify!($field), <$kind as Field>::TYPE),)*]
            }

            fn values(self) -> Vec<$crate::rows::Value> {
                use $crate::admin::record::Field;
                vec![$(Field::value(self.$field),)*]
            }
        }
    };
}

pub(super) use record;
