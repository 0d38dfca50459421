//! The rules of `[http]`.
//! Must not know what is served.

use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;

use super::super::raw::{RawHttp, RawToken};
use super::super::types::{Database, Http, HttpToken, User};
use super::collect::{At, Checker};
use super::secret::Sources;

const TIMEOUT: Duration = Duration::from_secs(30);
/// A shorter token could be guessed over the network.
const SHORTEST_TOKEN: usize = 16;

pub(super) fn http(
    c: &mut Checker<'_>,
    raw: Option<&Spanned<RawHttp>>,
    proxy: &[SocketAddr],
    users: &[User],
    databases: &[Database],
) -> Option<Http> {
    let (at, raw) = (raw?.span(), raw?.get_ref());
    let listen = listen(c, &at, raw, proxy);
    let names: Vec<String> = users.iter().map(|u| u.name.clone()).collect();
    let user = ambient_user(c, raw, listen, &names);
    let tokens = raw.token.iter().map(|token| self::token(c, token, &names)).collect();
    let mut size = |field: &Option<Spanned<u64>>, key: &str, range, default| {
        c.number(field.as_ref(), key, range, default) as usize
    };
    let max_connections = size(&raw.max_connections, "http.max_connections", 1..=1_000_000, 1000);
    let max_sessions = size(&raw.max_sessions, "http.max_sessions", 1..=100_000, 64);
    let max_body = size(&raw.max_body_bytes, "http.max_body_bytes", 1024..=(1 << 30), 8 << 20);
    let max_rows = size(&raw.max_rows, "http.max_rows", 1..=10_000_000, 10_000);
    let timeout = c.millis(raw.timeout_ms.as_ref(), "http.timeout_ms", TIMEOUT);
    let database = database(c, raw, databases);
    let listen = listen?;
    let bulk_per_shard = raw.bulk_per_shard;
    Some(Http {
        listen,
        user,
        database,
        tokens,
        max_connections,
        max_sessions,
        max_body,
        max_rows,
        timeout,
        bulk_per_shard,
    })
}

fn listen(c: &mut Checker<'_>, at: &At, raw: &RawHttp, proxy: &[SocketAddr]) -> Option<SocketAddr> {
    let key = "http.listen";
    let Some(text) = &raw.listen else {
        c.error(at, key, "is missing", "write listen = \"127.0.0.1:3000\", or remove [http]");
        return None;
    };
    match text.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && proxy.contains(&address) => {
            let what = format!("{address} is where the proxy itself listens (proxy.listen)");
            c.error(&text.span(), key, what, "choose another port");
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            let what = format!("\"{}\" is not an address with a port", text.get_ref());
            c.error(
                &text.span(),
                key,
                what,
                "write \"127.0.0.1:3000\", or \"0.0.0.0:3000\" for all interfaces",
            );
            None
        }
    }
}

/// Who a request without credentials is. On an address that others reach that would be anyone.
fn ambient_user(
    c: &mut Checker<'_>,
    raw: &RawHttp,
    listen: Option<SocketAddr>,
    names: &[String],
) -> Option<String> {
    let user = raw.user.as_ref()?;
    c.position(user, "http.user", "user", names);
    if let Some(open) = listen.filter(|address| !address.ip().is_loopback()) {
        let what =
            format!("requests without credentials would be this user's, and {open} is no loopback address");
        c.error(&user.span(), "http.user", what, "remove it: clients send a user's password or a token");
    }
    Some(user.get_ref().clone())
}

fn database(c: &mut Checker<'_>, raw: &RawHttp, databases: &[Database]) -> String {
    let names: Vec<String> = databases.iter().map(|d| d.name.clone()).collect();
    if let Some(name) = &raw.database {
        if !names.iter().any(|name| name == "*") {
            c.position(name, "http.database", "database", &names);
        }
        return name.get_ref().clone();
    }
    let first = databases.iter().find(|d| !d.is_wildcard());
    if first.is_none() && !databases.is_empty() {
        c.missing("http.database", "no database has a name of its own", "name one in [http]");
    }
    first.map(|d| d.name.clone()).unwrap_or_default()
}

fn token(c: &mut Checker<'_>, raw: &Spanned<RawToken>, names: &[String]) -> HttpToken {
    let (at, raw) = (raw.span(), raw.get_ref());
    let user = c.name(&raw.user, &at, "http.token.user");
    if let Some(name) = raw.user.as_ref().filter(|_| !user.is_empty()) {
        c.position(name, "http.token.user", "user", names);
    }
    let key = "http.token.token";
    let sources = Sources { key, plain: &raw.token, env: &raw.token_env, file: &raw.token_file };
    let token = sources.read(c);
    if token.is_none() {
        c.error(&at, key, "is missing", "add one of token, token_env, token_file");
    }
    let token = token.unwrap_or_default();
    if let Some(place) = sources.at() {
        let text = secrecy::ExposeSecret::expose_secret(&token);
        let sendable = text.bytes().all(|b| b.is_ascii_graphic());
        if !text.is_empty() && (text.len() < SHORTEST_TOKEN || !sendable) {
            let what = format!("must be {SHORTEST_TOKEN} or more visible ASCII characters");
            c.error(&place, key, what, "make one with: openssl rand -hex 32");
        }
    }
    HttpToken { user, token }
}
