//! The rules of `[[user]]`.
//! Must not know pools or maps beyond the sizes it compares.

use std::net::SocketAddr;

use secrecy::SecretString;
use toml::Spanned;

use super::super::raw::{RawConfig, RawUser};
use super::super::types::{Database, User, UserAuth};
use super::OWN_DATABASE;
use super::collect::{At, Checker};
use super::secret::{Sources, is_verifier};

pub(super) fn users(c: &mut Checker<'_>, raw: &RawConfig, listen: &[SocketAddr]) -> Vec<User> {
    let looked_up = raw.database.iter().any(|d| d.get_ref().auth_query.is_some());
    if raw.user.is_empty() && !looked_up {
        c.missing("user", "there is no user, so nobody could connect", "add a [[user]]");
    }
    let names: Vec<String> = raw
        .database
        .iter()
        .filter_map(|d| d.get_ref().name.as_ref())
        .map(|name| name.get_ref().clone())
        .chain([OWN_DATABASE.to_owned()])
        .collect();
    let mut seen = Vec::new();
    let has_client_ca = raw.tls.as_ref().is_some_and(|tls| tls.get_ref().client_ca.is_some());
    let given = (listen, has_client_ca);
    let user = |u: &Spanned<RawUser>| user(c, &u.span(), u.get_ref(), given, &names, &mut seen);
    raw.user.iter().map(user).collect()
}

fn user(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawUser,
    (listen, has_client_ca): (&[SocketAddr], bool),
    databases: &[String],
    seen: &mut Vec<String>,
) -> User {
    let name = c.unique_name(&raw.name, at, "user.name", seen);
    let (auth, plain) = auth(c, at, raw, listen);
    if let Some(cn) = raw.cert_cn.as_ref().filter(|_| !has_client_ca) {
        let remedy = "name a PEM file of the certificates that sign clients' as tls.client_ca";
        c.error(&cn.span(), "user.cert_cn", "no client certificate is ever asked for", remedy);
    }
    for database in &raw.databases {
        if !databases.iter().any(|d| d == "*") {
            c.position(database, "user.databases", "database", databases);
        }
    }
    let server_password = server_password(c, at, raw, &auth, plain);
    let server_user = match &raw.server_user {
        Some(_) => c.name(&raw.server_user, at, "user.server_user"),
        None => name.clone(),
    };
    let pool_size = raw
        .pool_size
        .as_ref()
        .map(|field| super::pool::count(c, Some(field), "user.pool_size", super::pool::defaults().size));
    let max_clients =
        raw.max_clients.as_ref().map(|field| super::limits::count(c, field, "user.max_clients"));
    User {
        cert_cn: raw.cert_cn.as_ref().map(|_| c.name(&raw.cert_cn, at, "user.cert_cn")),
        max_clients,
        name,
        auth,
        admin: raw.admin,
        databases: raw.databases.iter().map(|d| d.get_ref().clone()).collect(),
        server_user,
        server_password,
        pool_size,
    }
}

/// How the user proves who it is, and the password if the proxy knows it.
fn auth(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawUser,
    listen: &[SocketAddr],
) -> (UserAuth, Option<SecretString>) {
    let password = Sources {
        key: "user.password",
        plain: &raw.password,
        env: &raw.password_env,
        file: &raw.password_file,
    };
    let verifier = Sources {
        key: "user.scram_verifier",
        plain: &raw.scram_verifier,
        env: &raw.scram_verifier_env,
        file: &raw.scram_verifier_file,
    };
    let trust = raw.trust.as_ref().filter(|t| *t.get_ref());
    match (password.at(), verifier.at(), trust) {
        (Some(_), None, None) => {
            let secret = password.read(c).unwrap_or_default();
            (UserAuth::Password(secret.clone()), Some(secret))
        }
        (None, Some(place), None) => {
            let secret = verifier.read(c).unwrap_or_default();
            if !is_verifier(&secret) {
                let remedy = "copy rolpassword from pg_authid: SCRAM-SHA-256$4096:salt$stored:server";
                c.error(&place, "user.scram_verifier", "is not a SCRAM-SHA-256 verifier", remedy);
            }
            (UserAuth::Verifier(secret), None)
        }
        (None, None, Some(trust)) => {
            trust_needs_loopback(c, trust, listen);
            (UserAuth::Trust, None)
        }
        (None, None, None) if raw.cert_cn.is_some() => (UserAuth::Certificate, None),
        (None, None, None) => {
            let remedy =
                "add one of password, password_env, password_file, scram_verifier, cert_cn, or trust = true";
            c.error(at, "user", "nothing says how the user proves who it is", remedy);
            (UserAuth::Trust, None)
        }
        (Some(place), _, _) | (_, Some(place), _) => {
            let what = "password, scram_verifier and trust exclude one another";
            c.error(&place, "user", what, "keep one of them");
            (UserAuth::Trust, None)
        }
    }
}

fn trust_needs_loopback(c: &mut Checker<'_>, trust: &Spanned<bool>, listen: &[SocketAddr]) {
    if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback()) {
        let what = format!("a user without a password, but the proxy listens on {open}");
        let remedy = "give the user a password, or listen on 127.0.0.1 and [::1] only";
        c.error(&trust.span(), "user.trust", what, remedy);
    }
}

/// The password towards servers: its own keys, else the client's if it is the same role there.
fn server_password(
    c: &mut Checker<'_>,
    at: &At,
    raw: &RawUser,
    auth: &UserAuth,
    plain: Option<SecretString>,
) -> Option<SecretString> {
    let own = Sources {
        key: "user.server_password",
        plain: &raw.server_password,
        env: &raw.server_password_env,
        file: &raw.server_password_file,
    };
    if own.at().is_some() {
        return own.read(c);
    }
    if matches!(auth, UserAuth::Certificate) {
        let what =
            "a certificate does not open servers and there is no server_password: they must trust the proxy";
        c.warn(at, "user.cert_cn", what);
    }
    let same_role = match (&raw.server_user, &raw.name) {
        (Some(server_user), Some(name)) => server_user.get_ref() == name.get_ref(),
        (None, _) => true,
        (Some(_), None) => false,
    };
    plain.filter(|_| same_role)
}

/// A user's own pool size must fit into every pool it may use.
pub(super) fn pool_sizes_fit(c: &mut Checker<'_>, raw: &[Spanned<RawUser>], databases: &[Database]) {
    for user in raw.iter().map(Spanned::get_ref) {
        let Some(size) = &user.pool_size else { continue };
        let named: Vec<&str> = user.databases.iter().map(|d| d.get_ref().as_str()).collect();
        let tight = databases
            .iter()
            .filter(|d| allows(&named, &d.name))
            .find(|d| *size.get_ref() > u64::from(d.pool.max_per_server.get()));
        if let Some(d) = tight {
            let what =
                format!("is above max_per_server {} of database \"{}\"", d.pool.max_per_server, d.name);
            c.error(&size.span(), "user.pool_size", what, "lower it or raise max_per_server");
        }
    }
}

fn allows(named: &[&str], database: &str) -> bool {
    named.is_empty() || database == "*" || named.contains(&database)
}

/// The first user that may connect to a database: its account serves as control account if none is given.
pub(super) fn first_of<'u>(users: &'u [User], database: &str) -> Option<&'u User> {
    users.iter().find(|u| {
        let named: Vec<&str> = u.databases.iter().map(String::as_str).collect();
        allows(&named, database)
    })
}
