//! Sessions on the proxy that requests borrow for a statement or a transaction.
//! Must not know HTTP beyond the errors it speaks in, nor what statements mean.

mod exchange; // one session: a statement sent, its answer read
mod lend; // sessions kept for reuse, and how many work at once

pub(super) use self::exchange::{Link, Param};
pub(super) use self::lend::{Lent, Links};
