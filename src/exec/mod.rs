//! Carries out a route: the relay to one server, and the reading of many at once.
//! Must not know SQL text beyond what a route hands it, nor how clients log in.

mod answers; // what a server says, message by message
mod copy; // Syncs round COPY data
mod ear; // one listening connection
mod exchange; // one client, one server: what is between them
mod expect; // what a server still owes
mod finish; // how statements ended
#[cfg(test)]
mod fuzz_tests;
mod gather; // long answers in larger pieces
mod notify; // who hears what
mod order; // what a server may say now
mod relay; // both directions driven at once
mod scatter; // one statement on many shards, rows concatenated

pub use self::exchange::{Event, Exchange, Lost, Watch};
pub use self::expect::{Done, Expect};
pub use self::finish::{Finish, Finishes, How};
pub use self::notify::{Ended, Hub, Inbox, ListenError};
pub use self::scatter::{Outcome, Request, Scatter, ScatterError};
