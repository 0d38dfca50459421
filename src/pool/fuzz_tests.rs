//! Any bytes of a server at login: SCRAM messages that do not come from who knows the verifier.
//! Must not know sockets.

use proptest::prelude::*;

use super::scram::{Binding, Hello, ScramKeys};
use crate::wire::fuzzing::fuzz;

#[test]
fn no_server_without_the_verifier_passes_for_one_that_has_it() {
    let keys = ScramKeys::derive(&"secret".into(), b"salt", 1);
    fuzz("scram", 3000, |_, input, _| {
        let hello = Hello::new(Binding::Unable);
        let nonce = hello.message().trim_start_matches("n,,n=,r=").to_owned();
        let ours = String::from_utf8_lossy(input).replace("NONCE", &format!("{nonce}more"));
        prop_assert!(Hello::new(Binding::Unable).challenge(input).is_err(), "it does not continue our nonce");
        if let Ok(challenge) = hello.challenge(ours.as_bytes()) {
            let begins = format!("r={nonce}");
            prop_assert!(ours.starts_with(&begins));
            prop_assert!((1..=10_000_000).contains(&challenge.iterations));
            let (_, expected) = challenge.answer(&keys);
            prop_assert!(expected.check(input).is_err());
            prop_assert!(expected.check(ours.as_bytes()).is_err());
        }
        Ok(())
    });
}
