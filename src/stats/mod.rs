//! What happened: recorders, live sessions, snapshots of both.
//! Must not know how anything is shown, nor reach into other rooms to ask: they record here.

mod analytics;
mod calls;
mod coarse;
mod collect;
mod errors;
mod hub;
mod latency;
mod moment;
mod place;
mod pool;
mod render;
mod session;
mod statement_row;
mod statements;
mod times;
mod window;

pub use self::analytics::{
    Analytics, Figures, PartitionFigures, Point, ServerFigures, ShardFigures, ShardHistogram,
};
pub use self::calls::{DatabaseSlot, RouteKind, StatementSlot};
pub use self::errors::{ErrorEvent, ErrorRow};
pub use self::hub::{Effect, On, Ran, Stats, Totals};
pub use self::latency::{Class, LatencyRow, ServerLabel, ServerSlot};
pub use self::moment::Moment;
pub use self::pool::{PoolLabel, PoolRow, PoolStats};
pub use self::render::{Format, ServerGauge, Surroundings, render};
pub use self::session::{SessionInfo, SessionRow, SessionState, SessionStats, Traffic};
pub use self::statement_row::StatementRow;
pub use self::statements::Named;
pub use self::times::{Spread, Timing};
