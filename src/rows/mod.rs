//! Small typed row sets held in memory, and the SELECT that filters, groups, sorts and cuts them. Pure.
//! Must not know SQL text, what the rows mean, or how they are sent.

mod aggregate;
mod arith;
mod binary;
mod bind;
mod bind_call;
mod bind_op;
mod cast;
mod error;
mod eval;
mod functions;
mod like;
mod node;
mod numeric;
mod order;
mod plan;
mod run;
mod select;
mod text;
mod time;
mod value;

pub use self::bind::Constant;
pub use self::error::RowsError;
pub use self::numeric::Numeric;
pub use self::plan::Plan;
pub use self::select::{BinaryOp, Expr, FromTable, Item, OrderBy, Select, is_aggregate};
pub use self::value::{Column, Table, Type, Value};
