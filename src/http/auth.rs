//! Who sends a request, and what he may: a password, a bearer token, or nothing on a loopback address.
//! Must not know what is asked for, only which rights it takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::constant_time;
use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use super::app::App;
use super::error::HttpError;
use crate::config::{Http, User};
use crate::wire::SqlState;

/// Where a request came from; `server` puts it into every request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who sent the request. Endpoints behind [`require_user`] or [`require_admin`] take it as an argument.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Arc<User>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(nobody)
    }
}

/// Lets any user of the proxy through.
pub(super) async fn require_user(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let (mut parts, body) = request.into_parts();
    let caller = identify(&app, &parts).await?;
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// Lets users with `admin = true` through.
pub(super) async fn require_admin(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let (mut parts, body) = request.into_parts();
    let caller = identify(&app, &parts).await?;
    if !caller.0.admin {
        let message = format!("user \"{}\" may not see this", caller.0.name);
        let error = HttpError::new(SqlState::INSUFFICIENT_PRIVILEGE, message);
        return Err(error.hint("It takes a user with admin = true."));
    }
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// What the request says of its sender.
enum Credentials {
    Password { user: String, password: SecretString },
    Token(SecretString),
}

async fn identify(app: &App, request: &Parts) -> Result<Caller, HttpError> {
    let settings = app.settings();
    let http = settings.http().ok_or_else(nobody)?;
    let peer = request.extensions.get::<Peer>().ok_or_else(nobody)?.0.ip();
    not_from_elsewhere(&request.method, &request.headers)?;
    let user = match credentials(&request.headers)? {
        None => ambient(app, http, peer, request)?,
        Some(Credentials::Token(token)) => {
            let known = holder(http, &token).and_then(|name| app.proxy().user(name));
            known.ok_or_else(|| refused("the bearer token is unknown"))?
        }
        Some(Credentials::Password { user, password }) => {
            let checked = app.proxy().check_password(&user, password, peer).await;
            checked.map_err(|report| refused(&report.message))?
        }
    };
    Ok(Caller(user))
}

fn refused(message: &str) -> HttpError {
    HttpError::with_status(StatusCode::UNAUTHORIZED, SqlState::INVALID_PASSWORD, message)
}

fn nobody() -> HttpError {
    let code = SqlState::INVALID_AUTHORIZATION_SPECIFICATION;
    HttpError::with_status(StatusCode::UNAUTHORIZED, code, "the request says not who sends it").hint(
        "Send a user's name and password (Authorization: Basic …), or a token of [[http.token]] (Bearer …).",
    )
}

fn forbidden(message: String) -> HttpError {
    HttpError::new(SqlState::INSUFFICIENT_PRIVILEGE, message)
}

fn credentials(headers: &HeaderMap) -> Result<Option<Credentials>, HttpError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let malformed = || refused("the Authorization header is neither \"Basic …\" nor \"Bearer …\"");
    let (scheme, rest) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(malformed)?;
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(Credentials::Token(rest.into())));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(malformed());
    }
    let text = STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(malformed)?;
    let (user, password) = text.split_once(':').ok_or_else(malformed)?;
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.into() }))
}

/// Whose token it is. All are looked at, by their hashes, so that the time says nothing.
fn holder<'h>(http: &'h Http, token: &SecretString) -> Option<&'h str> {
    let hash = |secret: &SecretString| digest(&SHA256, secret.expose_secret().as_bytes());
    let given = hash(token);
    let mut found = None;
    for known in &http.tokens {
        let same = constant_time::verify_slices_are_equal(hash(&known.token).as_ref(), given.as_ref());
        if same.is_ok() {
            found = Some(known.user.as_str());
        }
    }
    found
}

/// The user of a request without credentials, if the configuration names one for this address.
fn ambient(app: &App, http: &Http, peer: IpAddr, request: &Parts) -> Result<Arc<User>, HttpError> {
    let name = http.user.as_deref().ok_or_else(nobody)?;
    if !http.listen.ip().is_loopback() || !peer.to_canonical().is_loopback() {
        return Err(nobody());
    }
    // A page of a foreign site can have its own name resolved to 127.0.0.1; the browser then sends that name.
    let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_loopback_name(host) {
        return Err(forbidden(format!("requests without credentials are not taken for host \"{host}\""))
            .hint("Ask for 127.0.0.1, [::1] or localhost, or send credentials."));
    }
    app.proxy().user(name).ok_or_else(nobody)
}

fn is_loopback_name(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Browsers send a user's credentials, or come from his loopback address, whichever page makes them: what changes
/// something is not taken from pages of other origins.
fn not_from_elsewhere(method: &Method, headers: &HeaderMap) -> Result<(), HttpError> {
    if method.is_safe() {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(HOST.as_str()).unwrap_or_default();
    let same_origin = match (text("sec-fetch-site"), text(ORIGIN.as_str())) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").is_some_and(|(_, of)| of == host),
        (None, None) => true, // no browser
    };
    if same_origin {
        return Ok(());
    }
    Err(forbidden("a page of another origin may not write here".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:3000",
            "127.1.2.3:1",
            "localhost",
            "LocalHost:3000",
            "[::1]:3000",
            "[::1]",
        ] {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in
            ["", "example.com", "127.0.0.1.example.com", "localhost.example.com:3000", "10.0.0.1", "[::2]:80"]
        {
            assert!(!is_loopback_name(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_may_look_but_not_write() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect()
        };
        let (host, origin) = ("host", "origin");
        for (pairs, allowed) in [
            (&[(host, "a:1")][..], true),
            (&[(host, "a:1"), (origin, "http://a:1")], true),
            (&[(host, "a:1"), (origin, "http://b:1")], false),
            (&[(host, "a:1"), (origin, "null")], false),
            (&[(host, "a:1"), ("sec-fetch-site", "same-origin")], true),
            (&[(host, "a:1"), ("sec-fetch-site", "cross-site"), (origin, "http://a:1")], false),
            (&[(host, "a:1"), ("sec-fetch-site", "same-site")], false),
        ] {
            assert_eq!(not_from_elsewhere(&Method::POST, &headers(pairs)).is_ok(), allowed, "{pairs:?}");
            assert!(not_from_elsewhere(&Method::GET, &headers(pairs)).is_ok());
        }
    }

    #[test]
    fn credentials_are_read_or_refused() {
        let of = |text: &str| credentials(&HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())]));
        assert!(matches!(of("Basic YXBwOmE6Yg=="), Ok(Some(Credentials::Password { user, password }))
            if user == "app" && password.expose_secret() == "a:b"));
        assert!(matches!(of("bearer abc"), Ok(Some(Credentials::Token(_)))));
        for wrong in ["", "Basic", "Basic !!", "Basic YXBw", "Digest x", "Bearer"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
