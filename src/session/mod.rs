//! One client's life from accept to close.
//! Must not know how a route is found or carried out: it asks `route` and `exec`.

mod adopt; // settings that code has changed
mod auth; // SCRAM-SHA-256, the server's half
mod behind; // catalogs that are read when something needs them
mod bind; // values for a statement: a portal
mod by_number; // functions called by their OIDs
mod cancels; // cancel keys and where a statement is running
mod client; // what one client owns, and its loop
mod command; // what an operator orders
mod crowd; // how many clients are in
mod deferred; // Parse and Describe that wait for a server
mod door; // what is loaded once to let clients in: users, verifiers, certificate, places
mod ears; // LISTEN, UNLISTEN and what is heard
mod effects; // what completed statements change
mod extended; // Parse, Describe, Close
mod fanout; // one statement on many shards
mod feed; // from messages to what is sent
#[cfg(test)]
mod fuzz_tests;
mod idle; // a client that has nothing under way
mod in_process; // sessions of the HTTP server
mod join; // a server joins a turn
mod local; // statements the proxy answers itself
mod lookup; // users that only the servers know
mod lost; // a server is lost under a client
mod measure; // what statistics know of a statement
mod over; // the end of an exchange
mod own_names; // the names of prepared statements where one server has the session
mod packet; // startup packets: bytes to meaning
mod password; // a password sent as such
mod pins; // servers that stay with a client
mod place; // where a statement goes
mod portals; // portals described and executed
mod prepared; // a client's statements and portals
mod proxy; // all of it: databases at work, the acceptor
mod query; // the simple protocol
mod refresh; // a session takes over a changed configuration
mod refusal; // why a client was not let in
mod refuse; // errors of the proxy's own
mod reload; // a changed configuration comes into force
mod reset; // RESET, DISCARD ALL, commands
mod rest; // a client while nothing is asked of it
mod served; // a database as sessions use it
mod several; // several statements in one text
mod signal; // one session ends or cancels another by its number
mod sql_prepared; // PREPARE and EXECUTE of SQL
mod startup; // from an accepted socket to a known user
mod tls; // TLS towards clients
mod turn; // a turn of work
mod txn; // a client's transaction
mod vars; // settings and what of them matters to routing
mod verifier; // what proves a password without keeping it
mod virtual_answer; // rows of virtual tables as messages
mod warm; // clients that keep their tools between two turns
mod watch; // certificates that change on disk
mod welcome; // from a proven user to a client

pub use self::command::Commanded;
pub use self::door::{ADMIN_DATABASE, Door, DoorError};
pub use self::proxy::{Proxy, StartError};
pub use self::refusal::Refusal;
pub use self::reload::Reloaded;
pub use self::startup::{Admission, Admitted, admit, admit_stream, prepare};
