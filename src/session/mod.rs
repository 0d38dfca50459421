//! One client's life from accept to close.
//! Must not know how a route is found or carried out: it asks `route` and `exec`.

mod auth; // SCRAM-SHA-256, the server's half
mod door; // what is loaded once to let clients in: users, verifiers, certificate, places
mod packet; // startup packets: bytes to meaning
mod refusal; // why a client was not let in
mod startup; // from an accepted socket to a known user
mod tls; // TLS towards clients
mod verifier; // what proves a password without keeping it

pub use self::door::{ADMIN_DATABASE, Door, DoorError};
pub use self::refusal::Refusal;
pub use self::startup::{Admission, Admitted, admit, admit_stream};
