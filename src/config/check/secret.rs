//! Secrets from the file, the environment or a file of their own.
//! Must not print them, not even in part.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use toml::Spanned;

use super::super::raw::Field;
use super::collect::{At, Checker};

/// A secret's three keys: `key`, `key_env`, `key_file`.
pub(super) struct Sources<'r> {
    pub(super) key: &'static str,
    pub(super) plain: &'r Field<String>,
    pub(super) env: &'r Field<String>,
    pub(super) file: &'r Field<String>,
}

impl Sources<'_> {
    /// Where it is given, if it is.
    pub(super) fn at(&self) -> Option<At> {
        [self.plain, self.env, self.file].into_iter().flatten().map(Spanned::span).next()
    }

    /// The secret; `None` if it is not given. One that cannot be read is reported and comes back empty.
    pub(super) fn read(&self, c: &mut Checker<'_>) -> Option<SecretString> {
        let key = self.key;
        let at = self.at()?;
        if [self.plain, self.env, self.file].into_iter().flatten().count() > 1 {
            let what = "is given more than once";
            c.error(&at, key, what, format!("keep one of {key}, {key}_env, {key}_file"));
            return Some(SecretString::default());
        }
        let secret = match (self.plain, self.env, self.file) {
            (Some(plain), _, _) => plain.get_ref().clone(),
            (None, Some(env), _) => from_env(c, env, &format!("{key}_env")),
            (None, None, Some(file)) => from_file(c, file, &format!("{key}_file")),
            (None, None, None) => return None,
        };
        if self.plain.is_some() && secret.is_empty() {
            c.error(&at, key, "is empty", "give a password, or leave the key out");
        }
        Some(SecretString::from(secret))
    }
}

fn from_env(c: &mut Checker<'_>, name: &Spanned<String>, key: &str) -> String {
    let value = c.env(name.get_ref()).unwrap_or_default();
    if value.is_empty() {
        let what = format!("the environment has no {}", name.get_ref());
        c.error(&name.span(), key, what, "set it before the start, or use a file");
    }
    value
}

/// The file's text without the newline at its end.
fn from_file(c: &mut Checker<'_>, name: &Spanned<String>, key: &str) -> String {
    let Some((path, meta)) = c.readable(name, key) else { return String::new() };
    c.warn_if_open(&path, &meta, &name.span(), key);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) => {
            c.error(
                &name.span(),
                key,
                format!("cannot read {}: {e}", path.display()),
                "it must be UTF-8 text",
            );
            return String::new();
        }
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        c.error(&name.span(), key, format!("{} is empty", path.display()), "write the password into it");
    }
    text.to_owned()
}

/// Whether a text is a verifier as PostgreSQL stores it: `SCRAM-SHA-256$4096:salt$stored:server`.
pub(super) fn is_verifier(secret: &SecretString) -> bool {
    let parts = || {
        let (iterations, rest) = secret.expose_secret().strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let length = |text: &str| STANDARD.decode(text).ok().map(|bytes| bytes.len());
        Some((iterations.parse::<u32>().ok()?, length(salt)?, length(stored)?, length(server)?))
    };
    matches!(parts(), Some((1.., 1.., 32, 32)))
}
