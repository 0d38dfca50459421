//! PostgreSQL v3 bytes to typed messages and back.
//! Must not know sockets, clocks, SQL or shards: every function here is pure.

mod backend;
mod error;
mod frame;
mod frontend;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
pub(crate) mod fuzzing;
mod sqlstate;

pub use self::backend::{
    BackendWriter, ErrorFields, ErrorSubject, FieldDescription, TransactionStatus, is_command_tag,
    parse_command_tag, parse_parameter_status, parse_row_description, rows_of_tag,
};
pub use self::error::{Blame, ClientFacing, ErrorReport, Severity};
pub use self::frame::{Frame, Head, WireError, next_frame, peek_head};
pub use self::frontend::{
    BindFault, BindView, DescribeTarget, FrontendWriter, ParseView, parse_bind, parse_bind_tail, parse_empty,
    parse_execute, parse_parse, parse_query, parse_target,
};
pub use self::sqlstate::SqlState;
