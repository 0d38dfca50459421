//! The rules of `[pool]` and `[database.pool]`.
//! Must not know who uses the pools.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::super::raw::RawPool;
use super::super::types::Pool;
use super::collect::Checker;

const MOST: u64 = 100_000;

pub(super) fn defaults() -> Pool {
    Pool {
        size: NonZeroU32::MIN.saturating_add(19),
        min_idle: 0,
        // PostgreSQL's default max_connections is 100; some stay free for people and for replication.
        max_per_server: NonZeroU32::MIN.saturating_add(79),
        queue_timeout: Duration::from_secs(5),
        pause_timeout: Duration::from_secs(120),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(600),
        max_lifetime: Duration::from_secs(3600),
        prepared_statements: NonZeroUsize::MIN.saturating_add(499),
        max_pinned: None,
        discard_sequences: false,
    }
}

/// `base` with what the table says otherwise; `table` is its name in messages.
pub(super) fn pool(c: &mut Checker<'_>, table: &str, raw: &RawPool, base: &Pool) -> Pool {
    let key = |name: &str| format!("{table}.{name}");
    let size = count(c, raw.size.as_ref(), &key("size"), base.size);
    let max_per_server = count(c, raw.max_per_server.as_ref(), &key("max_per_server"), base.max_per_server);
    let min_idle = c.number(raw.min_idle.as_ref(), &key("min_idle"), 0..=MOST, base.min_idle.into()) as u32;
    let most = c.number(
        raw.prepared_statements.as_ref(),
        &key("prepared_statements"),
        1..=MOST,
        base.prepared_statements.get() as u64,
    );
    if let Some(field) = raw.size.as_ref().or(raw.max_per_server.as_ref())
        && size > max_per_server
    {
        let what = format!("size {size} is above max_per_server {max_per_server}");
        c.error(&field.span(), &key("size"), what, "lower size or raise max_per_server");
    }
    if let Some(field) = raw.min_idle.as_ref().or(raw.size.as_ref())
        && min_idle > size.get()
    {
        let what = format!("min_idle {min_idle} is above size {size}");
        c.error(&field.span(), &key("min_idle"), what, "lower min_idle or raise size");
    }
    let max_pinned = match &raw.max_pinned {
        None => base.max_pinned,
        Some(_) => Some(c.number(raw.max_pinned.as_ref(), &key("max_pinned"), 0..=MOST, 0) as u32),
    };
    if let (Some(field), Some(most)) = (&raw.max_pinned, max_pinned)
        && most > size.get()
    {
        let what = format!("max_pinned {most} is above size {size}");
        c.error(&field.span(), &key("max_pinned"), what, "lower max_pinned or raise size");
    }
    let mut millis = |field: &Option<_>, name: &str, base| c.millis(field.as_ref(), &key(name), base);
    Pool {
        size,
        min_idle,
        max_per_server,
        queue_timeout: millis(&raw.queue_timeout_ms, "queue_timeout_ms", base.queue_timeout),
        pause_timeout: millis(&raw.pause_timeout_ms, "pause_timeout_ms", base.pause_timeout),
        connect_timeout: millis(&raw.connect_timeout_ms, "connect_timeout_ms", base.connect_timeout),
        idle_timeout: millis(&raw.idle_timeout_ms, "idle_timeout_ms", base.idle_timeout),
        max_lifetime: millis(&raw.max_lifetime_ms, "max_lifetime_ms", base.max_lifetime),
        prepared_statements: NonZeroUsize::new(most as usize).unwrap_or(base.prepared_statements),
        max_pinned,
        discard_sequences: raw.discard_sequences.as_ref().map_or(base.discard_sequences, |f| *f.get_ref()),
    }
}

/// A number of server connections, at least 1.
pub(super) fn count(
    c: &mut Checker<'_>,
    field: Option<&toml::Spanned<u64>>,
    key: &str,
    base: NonZeroU32,
) -> NonZeroU32 {
    NonZeroU32::new(c.number(field, key, 1..=MOST, base.get().into()) as u32).unwrap_or(base)
}
