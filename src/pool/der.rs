//! The fields of an X.509 certificate that rustls does not hand out: its signature algorithm and its public key.
//! Must not know whether a certificate is trusted; never panics on bytes from a network.

use aws_lc_rs::digest::{self, Algorithm};

/// One element of DER: its tag, what it holds, and all of it.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const OBJECT_ID: u8 = 0x06;
/// `[0] EXPLICIT Version`, absent in certificates of version 1.
const VERSION: u8 = 0xa0;

/// Takes the first element off `rest`; `None` if it is cut off or longer than any certificate's.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Element<'a>> {
    let &[tag, short, ..] = *rest else { return None };
    let (head, len) = match short {
        0..=0x7f => (2, usize::from(short)),
        0x81 => (3, usize::from(*rest.get(2)?)),
        0x82 => (4, usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]))),
        _ => return None, // over 64 KiB, or of indefinite length, which DER forbids
    };
    let (whole, tail) = rest.split_at_checked(head + len)?;
    *rest = tail;
    Some(Element { tag, content: whole.get(head..)?, whole })
}

fn take_tagged<'a>(rest: &mut &'a [u8], tag: u8) -> Option<Element<'a>> {
    take(rest).filter(|e| e.tag == tag)
}

/// The DER of the SubjectPublicKeyInfo. Source: RFC 5280, section 4.1.
pub(super) fn public_key(mut certificate: &[u8]) -> Option<&[u8]> {
    let mut outer = take_tagged(&mut certificate, SEQUENCE)?.content;
    let mut signed = take_tagged(&mut outer, SEQUENCE)?.content;
    if signed.first() == Some(&VERSION) {
        take(&mut signed)?;
    }
    for _serial_algorithm_issuer_validity_subject in 0..5 {
        take(&mut signed)?;
    }
    take_tagged(&mut signed, SEQUENCE).map(|e| e.whole)
}

/// The hash of a certificate for the channel binding `tls-server-end-point`: that of its own signature, with
/// SHA-256 in place of MD5 and SHA-1. `None` if that hash is not known. Source: RFC 5929, section 4.1.
pub(super) fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let mut rest = certificate;
    let mut outer = take_tagged(&mut rest, SEQUENCE)?.content;
    take_tagged(&mut outer, SEQUENCE)?;
    let mut algorithm = take_tagged(&mut outer, SEQUENCE)?.content;
    let hash = hash_of(take_tagged(&mut algorithm, OBJECT_ID)?.content)?;
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

fn hash_of(oid: &[u8]) -> Option<&'static Algorithm> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01]; // 1.2.840.113549.1.1
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04]; // 1.2.840.10045.4
    if let Some(rest) = oid.strip_prefix(RSA) {
        return match rest {
            [4 | 5 | 11] => Some(&digest::SHA256), // with MD5, SHA-1, SHA-256
            [12] => Some(&digest::SHA384),
            [13] => Some(&digest::SHA512),
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&digest::SHA256), // with SHA-1, SHA-256
        [3, 3] => Some(&digest::SHA384),
        [3, 4] => Some(&digest::SHA512),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> (Vec<u8>, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    #[test]
    fn the_end_point_hash_is_that_of_the_certificates_signature() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384),
            (&rcgen::PKCS_RSA_SHA256, &digest::SHA256),
            (&rcgen::PKCS_RSA_SHA512, &digest::SHA512),
        ] {
            let (der, _) = certificate(algorithm);
            let want = digest::digest(hash, &der).as_ref().to_vec();
            assert_eq!(end_point_hash(&der), Some(want), "{algorithm:?}");
        }
        let (der, _) = certificate(&rcgen::PKCS_ED25519);
        assert_eq!(end_point_hash(&der), None, "RFC 5929 leaves Ed25519 open");
    }

    #[test]
    fn the_public_key_is_found() {
        use rcgen::PublicKeyData as _;
        let (der, key) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_eq!(public_key(&der), Some(key.subject_public_key_info().as_slice()));
    }

    #[test]
    fn a_cut_or_changed_certificate_is_refused_without_a_panic() {
        let (der, _) = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for end in 0..der.len() {
            assert_eq!(end_point_hash(&der[..end]), None);
            assert_eq!(public_key(&der[..end]), None);
        }
        for at in 0..der.len() {
            let mut changed = der.clone();
            changed[at] ^= 0xff;
            let _ = (end_point_hash(&changed), public_key(&changed));
        }
    }
}
