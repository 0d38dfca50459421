//! What happened: recorders, live sessions, snapshots of both.
//! Must not know how anything is shown, nor reach into other rooms to ask: they record here.

mod hub;

pub use self::hub::{
    Class, ErrorEvent, PoolLabel, PoolStats, ServerLabel, ServerSlot, SessionInfo, SessionState,
    SessionStats, Stats, Timing,
};
