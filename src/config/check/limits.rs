//! The rules of `[proxy]`, `[tls]`, `[timeouts]` and `[log]`.
//! Must not know users or databases.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use toml::Spanned;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::super::raw::{RawLog, RawProxy, RawTimeouts, RawTls};
use super::super::types::{ClientTls, Limits, Log, Timeouts};
use super::collect::Checker;

const LISTEN: &str = "127.0.0.1:6432";
/// PostgreSQL's own cap on a message (1 GiB), less its header.
const LONGEST_MESSAGE: u64 = (1 << 30) - 1;

pub(super) fn listen(c: &mut Checker<'_>, raw: Option<&[Spanned<String>]>) -> Vec<SocketAddr> {
    let key = "proxy.listen";
    let Some(raw) = raw else { return LISTEN.parse().into_iter().collect() };
    if raw.is_empty() {
        c.missing(key, "names no address", "write for example listen = [\"127.0.0.1:6432\"]");
    }
    let mut found = Vec::new();
    for text in raw {
        match text.get_ref().parse::<SocketAddr>() {
            Ok(address) if found.contains(&address) && address.port() != 0 => {
                c.error(&text.span(), key, format!("\"{address}\" is there twice"), "remove one of the two");
            }
            Ok(address) => found.push(address),
            Err(_) => {
                let what = format!("\"{}\" is not an address with a port", text.get_ref());
                let remedy =
                    "write \"127.0.0.1:6432\", \"[::1]:6432\", or \"0.0.0.0:6432\" for all interfaces";
                c.error(&text.span(), key, what, remedy);
            }
        }
    }
    found
}

pub(super) fn workers(c: &mut Checker<'_>, raw: Option<&Spanned<u64>>) -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let n = c.number(raw, "proxy.workers", 1..=1024, cores.get() as u64);
    NonZeroUsize::new(n as usize).unwrap_or(cores)
}

pub(super) fn limits(c: &mut Checker<'_>, raw: &RawProxy) -> Limits {
    let mut size = |field: &Option<Spanned<u64>>, key: &str, range, default| {
        c.number(field.as_ref(), key, range, default) as usize
    };
    let many = 1..=10_000_000;
    Limits {
        max_clients: size(&raw.max_clients, "proxy.max_clients", many.clone(), 10_000),
        max_unauthenticated: size(&raw.max_unauthenticated, "proxy.max_unauthenticated", many.clone(), 1_000),
        max_message: size(
            &raw.max_message_bytes,
            "proxy.max_message_bytes",
            65_536..=LONGEST_MESSAGE,
            64 << 20,
        ),
        max_notify: size(&raw.max_notify_bytes, "proxy.max_notify_bytes", 65_536..=LONGEST_MESSAGE, 1 << 20),
        plan_cache: size(&raw.plan_cache, "proxy.plan_cache", many, 10_000),
    }
}

pub(super) fn client_tls(c: &mut Checker<'_>, raw: Option<&Spanned<RawTls>>) -> Option<ClientTls> {
    let raw = raw?;
    let mut pem = |field: &Option<Spanned<String>>, key: &str, secret: bool| {
        let Some(field) = field else {
            c.error(&raw.span(), key, "is missing", "name the PEM file, or remove [tls]");
            return None;
        };
        let (path, meta) = c.readable(field, key)?;
        if secret {
            c.warn_if_open(&path, &meta, &field.span(), key);
        }
        Some(path)
    };
    let own = raw.get_ref();
    let cert = pem(&own.cert, "tls.cert", false);
    let key = pem(&raw.get_ref().key, "tls.key", true);
    let client_ca =
        own.client_ca.as_ref().and_then(|ca| c.readable(ca, "tls.client_ca")).map(|(path, _)| path);
    let choices = [("optional", false), ("required", true)];
    let client_cert_required = c.choice(own.client_certs.as_ref(), "tls.client_certs", &choices, false);
    if let (Some(field), None) = (&own.client_certs, &own.client_ca) {
        let remedy =
            "name a PEM file of the certificates that sign clients' as client_ca, or remove client_certs";
        c.error(&field.span(), "tls.client_certs", "nothing says whose certificates to trust", remedy);
    }
    Some(ClientTls { cert: cert?, key: key?, required: own.required, client_ca, client_cert_required })
}

pub(super) fn timeouts(c: &mut Checker<'_>, raw: &RawTimeouts) -> Timeouts {
    Timeouts {
        login: c.millis(raw.login_ms.as_ref(), "timeouts.login_ms", Duration::from_secs(15)),
        idle: c.millis_or_never(raw.idle_ms.as_ref(), "timeouts.idle_ms", 0),
        idle_in_transaction: c.millis_or_never(
            raw.idle_in_transaction_ms.as_ref(),
            "timeouts.idle_in_transaction_ms",
            0,
        ),
        query: c.millis_or_never(raw.query_ms.as_ref(), "timeouts.query_ms", 0),
        drain: c.millis(raw.drain_ms.as_ref(), "timeouts.drain_ms", Duration::from_secs(30)),
    }
}

pub(super) fn log(c: &mut Checker<'_>, raw: &RawLog) -> Log {
    let filter = raw.filter.as_ref().map_or("info", |f| f.get_ref().as_str());
    if let Some(field) = raw.filter.as_ref().filter(|_| !is_filter(filter)) {
        let remedy = "write a level (error, warn, info, debug), or target=level pairs with commas between";
        c.error(&field.span(), "log.filter", format!("\"{filter}\" is not a filter"), remedy);
    }
    let json = c.choice(raw.format.as_ref(), "log.format", &[("text", false), ("json", true)], false);
    Log { filter: filter.to_owned(), json }
}

/// A bare word would pass as the name of a target too: `infoo` would silence all. So it must be a level.
fn is_filter(text: &str) -> bool {
    let bare_words_are_levels = text
        .split(',')
        .filter(|part| !part.contains(['=', '[']))
        .all(|part| part.trim().parse::<LevelFilter>().is_ok());
    bare_words_are_levels && EnvFilter::try_new(text).is_ok()
}

/// A number of clients, at least 1.
pub(super) fn count(c: &mut Checker<'_>, field: &Spanned<u64>, key: &str) -> NonZeroUsize {
    NonZeroUsize::new(c.number(Some(field), key, 1..=10_000_000, 1) as usize).unwrap_or(NonZeroUsize::MIN)
}
