//! What the servers' catalogs said: tables, columns, types, functions, views. Pure values.
//! Must not know how they were read, nor how tables are sharded.

mod leavers; // what may leave something in a session
mod own; // what tells of one server
mod restless; // functions that do more than they say
mod types;
mod words; // … told by its words

pub use self::leavers::{Code, Expression, Leavers, Leaves, Runs, Search};
pub use self::own::{SERVER_RELATIONS, function_of_server, relation_of_server};
pub use self::restless::Restless;
pub use self::types::{
    Catalog, Collation, Column, Function, FunctionKind, HARMLESS, Relation, RelationKind, Volatility, oid,
};
pub use self::words::{of_name as leaves_by_name, of_text as leaves_by_text};
