//! All that an operator sees: the virtual tables of schema `pgherd`, over SELECT and SHOW.
//! Must not know SQL text, nor sockets: it is handed what is known and answers with tables and messages.

mod encode; // a table as messages
mod error; // why there is no answer
mod figures; // what happened, under the configuration's names
mod herd; // what is known
mod param; // a client's parameters
mod query; // SELECT and SHOW
mod record; // a struct's fields as columns
mod tables; // one struct per virtual table

pub use self::encode::{describe_row, put_rows, put_table};
pub use self::error::AdminError;
pub use self::figures::ErrorFigures;
pub use self::herd::{Herd, Reloads};
pub use self::param::{ParamType, Params};
pub use self::query::{Shape, describe, is_table, select, show, show_select};
