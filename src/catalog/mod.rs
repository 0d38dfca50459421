//! What the servers' catalogs said: tables, columns, types, functions, views. Pure values.
//! Must not know how they were read, nor how tables are sharded.

mod leavers; // functions that may leave something in a session
mod types;

pub use self::leavers::leavers;
pub use self::types::{
    Catalog, Collation, Column, Function, FunctionKind, Relation, RelationKind, Volatility, oid,
};
