//! Small typed row sets held in memory, and the SELECT that filters, sorts and cuts them. Pure.
//! Must not know SQL text, what the rows mean, or how they are sent.

mod select;
mod value;

pub use self::select::{BinaryOp, Expr, FromTable, Item, OrderBy, Select};
pub use self::value::{Column, Table, Type, Value};
