//! What proves a password without keeping it: SCRAM verifiers, real ones and those of users that do not exist.
//! Must not know messages or sockets.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::ScramSecret;
use secrecy::{ExposeSecret as _, SecretString};

use crate::pool::{PassThrough, ScramKeys};

/// PostgreSQL's default number of iterations.
pub(super) const ITERATIONS: usize = 4096;
const SALT_BYTES: usize = 16; // PostgreSQL's SCRAM_DEFAULT_SALT_LEN: another length would give a fake away

/// Salt, count and the two keys. Source: RFC 5803; PostgreSQL docs, `pg_authid.rolpassword`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Verifier {
    salt: Vec<u8>,
    iterations: usize,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

impl Verifier {
    /// Derives one from a password: about 0.5 ms of CPU.
    pub(super) fn derive(password: &SecretString, salt: Vec<u8>) -> Self {
        let keys = ScramKeys::derive(password, &salt, ITERATIONS);
        let (stored_key, server_key) = (keys.stored_key(), keys.server_key());
        Self { salt, iterations: ITERATIONS, stored_key, server_key }
    }

    /// Reads `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (count, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let key = |text: &str| STANDARD.decode(text).ok()?.try_into().ok();
        let iterations = count.parse::<u32>().ok().filter(|n| (1..=i32::MAX as u32).contains(n))?;
        let salt = STANDARD.decode(salt).ok().filter(|s| !s.is_empty())?;
        Some(Self {
            salt,
            iterations: iterations as usize,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }

    /// What a right proof teaches: the key behind it, with which servers that hold the same verifier can be opened.
    /// `auth_message` and `proof` as in RFC 5802, section 3.
    pub(super) fn pass_through(&self, auth_message: &[u8], proof: &[u8]) -> Option<PassThrough> {
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.stored_key), auth_message);
        let mut client = <[u8; 32]>::try_from(proof).ok()?;
        client.iter_mut().zip(signature.as_ref()).for_each(|(p, s)| *p ^= s);
        let stored = digest::digest(&digest::SHA256, &client);
        constant_time::verify_slices_are_equal(stored.as_ref(), &self.stored_key).ok()?;
        Some(PassThrough::new(self.salt.clone(), self.iterations, client, self.server_key))
    }

    pub(super) fn iterations(&self) -> usize {
        self.iterations
    }

    /// Whether this is the password: about 0.5 ms of CPU.
    pub(super) fn fits(&self, password: &SecretString) -> bool {
        let keys = ScramKeys::derive(password, &self.salt, self.iterations);
        constant_time::verify_slices_are_equal(&keys.stored_key(), &self.stored_key).is_ok()
    }

    /// The form pgwire's exchange takes.
    pub(super) fn secret(&self) -> ScramSecret {
        ScramSecret::Verifier {
            salt: self.salt.clone(),
            iterations: self.iterations,
            stored_key: self.stored_key.to_vec(),
            server_key: self.server_key.to_vec(),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Makes salts and verifiers out of names: the same for the same name as long as the process lives, so that asking
/// twice does not tell who exists.
#[derive(Clone)]
pub(super) struct Mint(hmac::Key);

impl Mint {
    pub(super) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
    }

    fn bytes(&self, purpose: &[u8], user: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(purpose);
        context.update(user.as_bytes());
        context.sign().as_ref().first_chunk().copied().unwrap_or_default() // HMAC-SHA-256 has 32 bytes
    }

    /// What stands for a name and a password where they are remembered.
    pub(super) fn digest(&self, user: &str, password: &SecretString) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"password\0");
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(password.expose_secret().as_bytes());
        context.sign().as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// The salt for a user, known or not.
    pub(super) fn salt(&self, user: &str) -> Vec<u8> {
        self.bytes(b"salt\0", user).iter().copied().take(SALT_BYTES).collect()
    }

    /// A verifier that no password fits: its stored key is no hash that anybody knows the origin of. It is made at each
    /// login, so only once with the key; what half of those bytes, which nobody sees, are hashed to is as unknown.
    pub(super) fn fake(&self, user: &str, iterations: usize) -> Verifier {
        let secret = self.bytes(b"salt\0", user);
        let key = |label: u8| {
            let mut of = [label; 33];
            of.iter_mut().zip(secret).for_each(|(to, byte)| *to = byte);
            digest::digest(&digest::SHA256, &of).as_ref().first_chunk().copied().unwrap_or_default()
        };
        Verifier {
            salt: secret.iter().copied().take(SALT_BYTES).collect(),
            iterations,
            stored_key: key(0),
            server_key: key(1),
        }
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "SCRAM-SHA-256$4096:AAECAwQFBgcICQoLDA0ODw==$";

    #[test]
    fn a_verifier_is_read_or_refused_as_a_whole() {
        let made = Verifier::derive(&"secret".into(), (0..16).collect());
        let text = format!("{HEAD}{}:{}", STANDARD.encode(made.stored_key), STANDARD.encode(made.server_key));
        assert_eq!(Verifier::parse(&text).as_ref(), Some(&made));
        let short = STANDARD.encode([1; 31]);
        for wrong in [
            "",
            "md5abc",
            HEAD,
            &text.replace("4096", "0"),
            &text.replace("4096", "-1"),
            &text.replace("4096", "99999999999"),
            &text.replace("SHA-256", "SHA-1"),
            &text.replace("AAECAwQFBgcICQoLDA0ODw==", ""),
            &format!("{HEAD}{short}:{short}"),
            &text[..text.len() - 1],
        ] {
            assert_eq!(Verifier::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_verifier_fits_its_password_only() {
        let verifier = Verifier::derive(&"secret".into(), (0..16).collect());
        assert!(verifier.fits(&"secret".into()));
        for wrong in ["", "Secret", "secret ", "secre"] {
            assert!(!verifier.fits(&wrong.into()), "{wrong}");
        }
        let mint = Mint::new();
        assert!(!mint.fake("ann", 10).fits(&"secret".into()));
        assert_ne!(mint.digest("a", &"bc".into()), mint.digest("ab", &"c".into()));
    }

    #[test]
    fn a_fake_is_stable_per_name_and_looks_like_a_real_one() {
        let mint = Mint::new();
        let (ann, real) = (mint.fake("ann", ITERATIONS), Verifier::derive(&"x".into(), mint.salt("ann")));
        assert_eq!(ann, mint.fake("ann", ITERATIONS));
        assert_eq!((ann.salt.clone(), ann.iterations), (real.salt, real.iterations));
        assert_ne!(ann.salt, mint.fake("bob", ITERATIONS).salt);
        assert_ne!(ann.salt, Mint::new().salt("ann"), "another process, another salt");
        assert_eq!(format!("{mint:?} {ann:?}"), "[redacted] [redacted]");
    }
}
