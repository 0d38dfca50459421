//! SCRAM-SHA-256, the server's half: frames checked here, the exchange itself is pgwire's. Pure.
//! Must not know sockets, nor whether a user exists.
//!
//! pgwire decodes `p` messages with reads that panic when the body is short, before anybody is authenticated; so
//! the bodies are taken apart here and pgwire sees only the SCRAM text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use pgwire::api::auth::sasl::scram::{ScramServerAuth, ScramServerAuthWaitingForClientFinal};
use pgwire::error::PgWireError;
use pgwire::messages::Message as _;
use pgwire::messages::startup::Authentication;

use super::refusal::Refusal;
use super::verifier::Verifier;
use crate::pool::PassThrough;
use crate::wire::SqlState;

/// Longest body of a `p` message, bytes. Source: `PG_MAX_SASL_MESSAGE_LENGTH`.
pub(super) const MAX_MESSAGE: usize = 1024;

const PLAIN: &str = "SCRAM-SHA-256";
const PLUS: &str = "SCRAM-SHA-256-PLUS";

/// AuthenticationSASL: what is offered, best first. -PLUS only over TLS: libpq refuses it in clear.
pub(super) fn offer(out: &mut BytesMut, scram: &ScramServerAuth) -> Result<(), Refusal> {
    let mut mechanisms = Vec::with_capacity(2);
    if scram.supports_channel_binding() {
        mechanisms.push(PLUS.to_owned());
    }
    mechanisms.push(PLAIN.to_owned());
    put(out, &Authentication::SASL(mechanisms))
}

/// AuthenticationOk.
pub(super) fn accept(out: &mut BytesMut) -> Result<(), Refusal> {
    put(out, &Authentication::Ok)
}

/// The exchange after our challenge.
#[derive(Debug)]
pub(super) struct Waiting {
    inner: ScramServerAuthWaitingForClientFinal,
    /// The messages so far, as the proof covers them.
    signed: String,
}

impl Waiting {
    /// What the client's last message teaches, once it was found right: see [`Verifier::pass_through`].
    pub(super) fn pass_through(&self, verifier: &Verifier, body: &[u8]) -> Option<PassThrough> {
        let text = std::str::from_utf8(body).ok()?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let proof = STANDARD.decode(proof).ok()?;
        verifier.pass_through(format!("{},{without_proof}", self.signed).as_bytes(), &proof)
    }
}

/// Takes SASLInitialResponse, writes AuthenticationSASLContinue.
pub(super) fn first(
    scram: &ScramServerAuth,
    verifier: &Verifier,
    body: &[u8],
    out: &mut BytesMut,
) -> Result<Waiting, Refusal> {
    let (mechanism, message) = initial_response(body).ok_or_else(|| malformed("SASLInitialResponse"))?;
    let binds = message.starts_with(b"p=");
    match mechanism {
        PLAIN if !binds => {}
        PLUS if binds && scram.supports_channel_binding() => {}
        // pgwire checks the flag against the certificate, not against the mechanism.
        PLAIN | PLUS => return Err(malformed("SCRAM channel binding")),
        _ => {
            let message = "client selected an invalid SASL authentication mechanism";
            return Err(Refusal::fatal(SqlState::PROTOCOL_VIOLATION, message));
        }
    }
    if scram.supports_channel_binding() && message.starts_with(b"y") {
        let why = "the client believes that no channel binding was offered: somebody in between took it out?";
        return Err(malformed("SCRAM channel binding").because(why));
    }
    let (challenge, waiting) = scram
        .on_client_first_message_with_secret(message, verifier.secret())
        .map_err(|_| malformed("SCRAM"))?;
    // Behind the header `n,,` or its like; pgwire has checked the form.
    let bare = message.splitn(3, |b| *b == b',').nth(2).unwrap_or_default();
    let signed = format!("{},{challenge}", String::from_utf8_lossy(bare));
    put(out, &Authentication::SASLContinue(challenge.into()))?;
    Ok(Waiting { inner: waiting, signed })
}

/// Takes SASLResponse, writes AuthenticationSASLFinal. `Ok(false)`: the password is wrong.
pub(super) fn last(waiting: &Waiting, body: &[u8], out: &mut BytesMut) -> Result<bool, Refusal> {
    match waiting.inner.on_client_final_message(body) {
        Ok(signature) => put(out, &Authentication::SASLFinal(signature.into())).map(|()| true),
        Err(PgWireError::InvalidPassword(_)) => Ok(false),
        // pgwire's texts repeat what the client sent, proof included: neither client nor log shall see that.
        Err(_) => Err(malformed("SCRAM")),
    }
}

/// The same words, whatever was wrong.
pub(super) fn wrong_password(user: &str) -> Refusal {
    let message = format!("password authentication failed for user \"{user}\"");
    Refusal::fatal(SqlState::INVALID_PASSWORD, message)
}

fn put(out: &mut BytesMut, message: &Authentication) -> Result<(), Refusal> {
    message.encode(out).map_err(|e| Refusal::fatal(SqlState::INTERNAL_ERROR, e.to_string()))
}

/// Mechanism and SCRAM text of a SASLInitialResponse. Source: PostgreSQL docs, "Message Formats".
fn initial_response(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(0, body)?;
    let (mechanism, rest) = body.split_at_checked(end)?;
    let (len, message) = rest.get(1..)?.split_first_chunk()?;
    let whole = u32::from_be_bytes(*len) as usize == message.len();
    Some((std::str::from_utf8(mechanism).ok()?, message)).filter(|_| whole)
}

fn malformed(what: &str) -> Refusal {
    Refusal::fatal(SqlState::PROTOCOL_VIOLATION, format!("malformed {what} message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::verifier::Mint;
    use proptest::prelude::*;

    fn initial(mechanism: &str, message: &[u8]) -> Vec<u8> {
        let mut body = mechanism.as_bytes().to_vec();
        body.push(0);
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        body
    }

    fn plain() -> (ScramServerAuth, Verifier) {
        (ScramServerAuth::new(), Mint::new().fake("ann", 4096))
    }

    #[test]
    fn a_first_message_is_answered_with_salt_and_both_nonces() {
        let ((scram, verifier), mut out) = (plain(), BytesMut::new());
        first(&scram, &verifier, &initial(PLAIN, b"n,,n=,r=abc"), &mut out).unwrap();
        assert_eq!(&out[..1], b"R");
        let text = std::str::from_utf8(&out[9..]).unwrap();
        assert!(text.starts_with("r=abc") && text.contains(",s=") && text.ends_with(",i=4096"), "{text}");
    }

    #[test]
    fn a_malformed_first_message_is_refused_without_an_echo() {
        let (scram, verifier) = plain();
        for body in [
            &b""[..],
            b"\0",
            b"SCRAM-SHA-256",
            b"SCRAM-SHA-256\0",
            b"SCRAM-SHA-256\0\0\0",
            b"SCRAM-SHA-256\0\xff\xff\xff\xff",
            b"SCRAM-SHA-256\0\0\0\0\x05n,,n=,r=abc",
            b"SCRAM-SHA-256\0\0\0\0\xffn,,n=,r=abc",
            &initial(PLAIN, b""),
            &initial(PLAIN, b"n,,n=,r"),
            &initial(PLAIN, b"x,,n=,r=abc"),
            &initial(PLAIN, b"n,a=bob,n=,r=abc"),
            &initial(PLAIN, b"n,,n=\xff,r=abc"),
            &initial(PLAIN, b"p=tls-server-end-point,,n=,r=abc"),
            &initial(PLUS, b"p=tls-server-end-point,,n=,r=abc"),
            &initial(PLUS, b"n,,n=,r=abc"),
            &initial("OAUTHBEARER", b"n,,"),
            &initial("\u{fffd}", b"n,,"),
        ] {
            let mut out = BytesMut::new();
            let refusal = first(&scram, &verifier, body, &mut out).unwrap_err();
            let report = refusal.report.expect("told");
            assert_eq!(report.code, SqlState::PROTOCOL_VIOLATION, "{body:?}");
            assert!(!report.message.contains("abc") && out.is_empty());
        }
    }

    #[test]
    fn a_wrong_proof_is_no_error_of_the_protocol_and_a_malformed_one_is() {
        let ((scram, verifier), mut out) = (plain(), BytesMut::new());
        let waiting = first(&scram, &verifier, &initial(PLAIN, b"n,,n=,r=abc"), &mut out).unwrap();
        let text = std::str::from_utf8(&out[9..]).unwrap();
        let nonce = text.split(',').next().unwrap().to_owned();
        out.clear();
        let proof = "A".repeat(43) + "=";
        assert_eq!(last(&waiting, format!("c=biws,{nonce},p={proof}").as_bytes(), &mut out), Ok(false));
        for wrong in [
            String::new(),
            "p=".to_owned(),
            format!("c=biws,{nonce}"),
            format!("c=biws,{nonce},p="),
            format!("c=biws,{nonce},p=AAAA"),
            format!("c=biws,{nonce},p=***"),
            format!("c=eSws,{nonce},p={proof}"), // "y,," where "n,," was said
            format!("c=biws,r=abc,p={proof}"),
        ] {
            assert!(last(&waiting, wrong.as_bytes(), &mut out).is_err(), "{wrong}");
        }
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn no_message_panics(body in proptest::collection::vec(any::<u8>(), 0..80), text in "[-cnpry=,a\u{e9}]{0,40}") {
            let ((scram, verifier), mut out) = (plain(), BytesMut::new());
            let _ = first(&scram, &verifier, &body, &mut out);
            let _ = first(&scram, &verifier, &initial(PLAIN, text.as_bytes()), &mut out);
            let waiting = first(&scram, &verifier, &initial(PLAIN, b"n,,n=,r=abc"), &mut out).unwrap();
            prop_assert_ne!(last(&waiting, &body, &mut out), Ok(true));
            prop_assert_ne!(last(&waiting, text.as_bytes(), &mut out), Ok(true));
        }
    }
}
