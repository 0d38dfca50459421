//! What happened: recorders, live sessions, snapshots of both.
//! Must not know how anything is shown, nor reach into other rooms to ask: they record here.

mod errors;
mod hub;
mod latency;
mod pool;
mod session;

pub use self::errors::{ErrorEvent, ErrorRow};
pub use self::hub::{Stats, Totals};
pub use self::latency::{Class, LatencyRow, ServerLabel, ServerSlot, Spread, Timing};
pub use self::pool::{PoolLabel, PoolRow, PoolStats};
pub use self::session::{SessionInfo, SessionRow, SessionState, SessionStats, Traffic};
