//! Server connections: opened, authenticated, lent out, cleaned and closed.
//! Knows addresses and passwords; must not know shards, SQL text or clients.

mod auth; // the login dialogue with a server
mod conn; // one connection: dial, TLS, login, cancel
mod control; // control connections: probes, catalogs
mod der; // the three fields of a certificate that rustls does not hand out
mod error; // why a connection could not be opened
#[cfg(test)]
mod fuzz_tests;
mod gate; // the pause of a database
mod lend; // the pool
mod lend_error; // why it lends nothing
mod line; // who waits, in order
mod prepared; // what a server holds prepared
mod reset; // cleaning what a client left behind
mod round; // the writes of a round, made together
mod scram; // SCRAM-SHA-256, the client's half
mod server; // one connection as the pool keeps it
mod settings; // a client's session settings
mod socket; // a socket whose writes wait for the end of the round
mod stand; // the queue, and what was just given back
mod stream; // a socket, plain or TLS
mod tls; // how much is asked of a server's certificate

pub use self::conn::{Endpoint, Opened, cancel, connect, notice_silence};
pub use self::control::{ControlError, ControlPool};
pub use self::error::ConnectError;
pub use self::gate::Gate;
pub use self::lend::{Lease, Pool};
pub use self::lend_error::{LeaseError, OpenError};
pub use self::prepared::{PreparedSet, Shape, StatementKey};
pub use self::reset::scrub_and_return;
pub use self::round::before_sleep;
pub use self::scram::{KeyCache, PassThrough, ScramKeys};
pub use self::server::{CancelTarget, ServerConn, ServerError};
pub use self::settings::{Settings, is_of_analysis};
pub use self::socket::Socket;
pub use self::stream::{Idle, Stream};
pub use self::tls::{ServerTlsSettings, TlsSetupError};
