//! SCRAM-SHA-256, the client's half, with the slow key derivation done once per salt. Source: RFC 5802, RFC 7677.
//! Must not know sockets or frames.
//!
//! `postgres_protocol`'s client derives the key (about 0.5 ms of CPU) at each login; a storm of reconnects would
//! stall the data path for as long as it lasts. Hence this one.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pgwire::api::auth::sasl::scram::gen_salted_password;
use secrecy::{ExposeSecret as _, SecretString};

/// More iterations than this are refused: each costs the proxy CPU, and whoever answers there chooses the number.
const MAX_ITERATIONS: usize = 1_000_000;

/// The two keys of a password under one salt. They suffice to log in, and to make a verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    client: [u8; 32],
    server: [u8; 32],
}

impl ScramKeys {
    /// Derives the keys: about 0.5 ms of CPU at 4096 iterations. Zero iterations count as one.
    #[must_use]
    pub fn derive(password: &SecretString, salt: &[u8], iterations: usize) -> Self {
        // pgwire's PBKDF2 panics where the number, cut to 32 bits, is 0.
        let iterations = iterations.clamp(1, MAX_ITERATIONS);
        let salted = gen_salted_password(password.expose_secret(), salt, iterations);
        Self { client: mac(&salted, b"Client Key"), server: mac(&salted, b"Server Key") }
    }

    /// `SHA-256(ClientKey)`, the first half of a verifier.
    #[must_use]
    pub fn stored_key(&self) -> [u8; 32] {
        sha256(&self.client)
    }

    /// `ServerKey`, the second half of a verifier.
    #[must_use]
    pub fn server_key(&self) -> [u8; 32] {
        self.server
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What a client's proof teaches about its keys: enough to log in where the same verifier is stored, and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct PassThrough {
    salt: Vec<u8>,
    iterations: usize,
    keys: ScramKeys,
}

impl PassThrough {
    /// `client` is the key behind the client's proof, `server` the verifier's server key.
    #[must_use]
    pub fn new(salt: Vec<u8>, iterations: usize, client: [u8; 32], server: [u8; 32]) -> Self {
        Self { salt, iterations, keys: ScramKeys { client, server } }
    }

    /// The keys, if the challenge is of the same verifier.
    pub(super) fn keys(&self, salt: &[u8], iterations: usize) -> Option<ScramKeys> {
        (self.salt == salt && self.iterations == iterations).then(|| self.keys.clone())
    }
}

impl std::hash::Hash for PassThrough {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.salt.hash(state); // random: enough to tell them apart, equality does the rest
    }
}

impl fmt::Debug for PassThrough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Keys of the last salt and password: one per endpoint, since a server's salt changes only with the password.
/// Clones share it.
#[derive(Clone, Default)]
pub struct KeyCache(Arc<tokio::sync::Mutex<Option<Cached>>>);

struct Cached {
    password: SecretString,
    salt: Vec<u8>,
    iterations: usize,
    keys: ScramKeys,
}

impl KeyCache {
    /// The keys for this challenge. The lock is held while they are derived, so that of a hundred logins at once
    /// one does the work and the others wait for it. Cancel safe.
    pub(super) async fn keys(
        &self,
        password: &SecretString,
        salt: &[u8],
        iterations: usize,
    ) -> Result<ScramKeys, ScramError> {
        let mut slot = self.0.lock().await;
        if let Some(cached) = &*slot
            && cached.salt == salt
            && cached.iterations == iterations
            && cached.password.expose_secret() == password.expose_secret()
        {
            return Ok(cached.keys.clone());
        }
        let (secret, own_salt) = (password.clone(), salt.to_vec());
        let derive = move || ScramKeys::derive(&secret, &own_salt, iterations);
        let keys = tokio::task::spawn_blocking(derive)
            .await
            .map_err(|_| ScramError("the key derivation was stopped"))?;
        let (password, salt) = (password.clone(), salt.to_vec());
        *slot = Some(Cached { password, salt, iterations, keys: keys.clone() });
        Ok(keys)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A server that does not follow the exchange, or does not know the password's verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SCRAM: {0}")]
pub(super) struct ScramError(&'static str);

/// What ties the login to the TLS session. Source: RFC 5802, section 6, `gs2-cbind-flag`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binding {
    /// `n`: we cannot (no TLS, or a certificate whose hash is not defined).
    Unable,
    /// `y`: we could, the server did not offer it. A server that did offer it sees a downgrade.
    NotOffered,
    /// The hash of the server's certificate.
    EndPoint(Vec<u8>),
}

impl Binding {
    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Self::Unable | Self::NotOffered => "SCRAM-SHA-256",
            Self::EndPoint(_) => "SCRAM-SHA-256-PLUS",
        }
    }

    fn header(&self) -> &'static str {
        match self {
            Self::Unable => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    fn encoded(&self) -> String {
        let mut input = self.header().as_bytes().to_vec();
        if let Self::EndPoint(hash) = self {
            input.extend_from_slice(hash);
        }
        STANDARD.encode(input)
    }
}

/// The exchange after our first message.
#[derive(Debug)]
pub(super) struct Hello {
    binding: Binding,
    nonce: String,
}

impl Hello {
    pub(super) fn new(binding: Binding) -> Self {
        Self { binding, nonce: STANDARD.encode(rand::random::<[u8; 18]>()) }
    }

    /// client-first-message. The user is the startup packet's: PostgreSQL ignores the one here.
    pub(super) fn message(&self) -> String {
        format!("{}{}", self.binding.header(), self.bare())
    }

    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Reads server-first-message: `r=nonce,s=salt,i=iterations`.
    pub(super) fn challenge(self, body: &[u8]) -> Result<Challenge, ScramError> {
        let text = std::str::from_utf8(body).map_err(|_| ScramError("the challenge is not UTF-8"))?;
        let mut parts = text.split(',');
        let mut part = |prefix| {
            parts.next().and_then(|p| p.strip_prefix(prefix)).ok_or(ScramError("the challenge is malformed"))
        };
        let (nonce, salt, iterations) = (part("r=")?, part("s=")?, part("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError("the server's nonce does not continue ours"));
        }
        let salt = STANDARD.decode(salt).map_err(|_| ScramError("the salt is not base64"))?;
        let iterations: usize = iterations.parse().map_err(|_| ScramError("the iterations are no number"))?;
        if !(1..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError("the number of iterations is out of bounds"));
        }
        let last = format!("c={},r={nonce}", self.binding.encoded());
        let signed = format!("{},{text},{last}", self.bare());
        Ok(Challenge { salt, iterations, last, signed })
    }
}

/// The exchange after the server's challenge.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) salt: Vec<u8>,
    pub(super) iterations: usize,
    last: String,
    signed: String,
}

impl Challenge {
    /// client-final-message, and what the server must answer.
    pub(super) fn answer(self, keys: &ScramKeys) -> (String, Expected) {
        let mut proof = mac(&keys.stored_key(), self.signed.as_bytes());
        proof.iter_mut().zip(keys.client).for_each(|(p, k)| *p ^= k);
        let message = format!("{},p={}", self.last, STANDARD.encode(proof));
        (message, Expected(mac(&keys.server, self.signed.as_bytes())))
    }
}

/// The signature that proves that the server knows the verifier, and is not just accepting anything.
pub(super) struct Expected([u8; 32]);

impl Expected {
    pub(super) fn check(&self, body: &[u8]) -> Result<(), ScramError> {
        let signature = body.strip_prefix(b"v=").ok_or(ScramError("the server ended it with an error"))?;
        let signature = signature.split(|b| *b == b',').next().unwrap_or_default();
        let signature = STANDARD.decode(signature).map_err(|_| ScramError("the signature is not base64"))?;
        constant_time::verify_slices_are_equal(&signature, &self.0)
            .map_err(|_| ScramError("the server does not know the password's verifier: an impostor?"))
    }
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().first_chunk().copied().unwrap_or_default() // HMAC-SHA-256 has 32 bytes
}

fn sha256(message: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, message).as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3, with its user name left out of nothing but the message.
    #[test]
    fn the_proof_and_the_signature_are_those_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::derive(&"pencil".into(), &salt, 4096);
        let challenge = Challenge {
            salt,
            iterations: 4096,
            last: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
            signed: "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                     s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,\
                     r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
                .to_owned(),
        };
        let (message, expected) = challenge.answer(&keys);
        assert!(message.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="), "{message}");
        assert_eq!(expected.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert!(expected.check(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=").is_err());
        assert!(expected.check(b"e=other-error").is_err());
        assert!(expected.check(b"v=").is_err());
    }

    #[test]
    fn a_challenge_that_breaks_the_rules_is_refused() {
        let hello = |nonce: &str| Hello { binding: Binding::Unable, nonce: nonce.to_owned() };
        assert!(hello("abc").challenge(b"r=abcdef,s=QUJD,i=4096").is_ok());
        for (challenge, why) in [
            (&b"r=abc,s=QUJD,i=4096"[..], "does not continue"),
            (b"r=xbcdef,s=QUJD,i=4096", "does not continue"),
            (b"r=abcdef,s=*,i=4096", "salt"),
            (b"r=abcdef,s=QUJD,i=0", "out of bounds"),
            (b"r=abcdef,s=QUJD,i=4294967296", "out of bounds"),
            (b"r=abcdef,s=QUJD,i=-1", "no number"),
            (b"r=abcdef,s=QUJD", "malformed"),
            (b"m=ext,r=abcdef,s=QUJD,i=1", "malformed"),
            (b"", "malformed"),
            (b"r=abcdef\xff,s=QUJD,i=1", "UTF-8"),
        ] {
            let error = hello("abc").challenge(challenge).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn keys_are_derived_anew_only_for_another_password_salt_or_count() {
        let cache = KeyCache::default();
        let first = cache.keys(&"secret".into(), b"salt", 2).await.unwrap();
        assert_eq!(cache.keys(&"secret".into(), b"salt", 2).await.unwrap(), first);
        for (password, salt, iterations) in
            [("Secret", &b"salt"[..], 2), ("secret", b"tlas", 2), ("secret", b"salt", 3)]
        {
            assert_ne!(cache.keys(&password.into(), salt, iterations).await.unwrap(), first);
        }
        assert!(!format!("{cache:?} {first:?}").contains("secret"));
    }
}
