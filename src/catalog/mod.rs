//! What the servers' catalogs said: tables, columns, types, functions, views. Pure values.
//! Must not know how they were read, nor how tables are sharded.

mod types;

pub use self::types::{
    Catalog, Collation, Column, Function, FunctionKind, Relation, RelationKind, Volatility, oid,
};
