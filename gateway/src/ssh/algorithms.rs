//! Which algorithms are spoken, the best first.

use std::borrow::Cow;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey};
use russh::{Preferred, cipher, compression, kex, mac};

/// Key exchanges without SHA-1 and without groups that are too small. The markers say "strict kex" (against Terrapin)
/// and that extensions are understood.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G18_SHA512,
    kex::DH_G16_SHA512,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// Of hosts, and of users. RSA with SHA-2 alone: `ssh-rsa` signs SHA-1.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::SkEd25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::SkEcdsaSha2NistP256,
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// The last two are for libssh2, which has no better ones.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM, mac::HMAC_SHA256, mac::HMAC_SHA512];

/// For both sides: clients choose by their own order, containers by this one. Nothing is compressed: what it saves is
/// not worth what it gives away and takes of the machine.
pub fn preferred() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: Cow::Borrowed(KEYS),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// The host keys that clients are shown: those on NIST's curves, which audits call a failure, where there are no others
/// or `nist` asks for them. Every client that knows ECDSA knows RSA; some are told to take nothing else.
pub fn shown(mut host_keys: Vec<PrivateKey>, nist: bool) -> Vec<PrivateKey> {
    let is_ecdsa = |key: &PrivateKey| matches!(key.algorithm(), Algorithm::Ecdsa { .. });
    if !nist && !host_keys.iter().all(is_ecdsa) {
        host_keys.retain(|key| !is_ecdsa(key));
    }
    host_keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_on_a_nist_curve_is_shown_where_there_is_no_other_and_where_it_is_asked_for() {
        let new = |algorithm| PrivateKey::random(&mut rand::rng(), algorithm).expect("a key");
        let (ed25519, ecdsa) = (new(Algorithm::Ed25519), new(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }));
        let both = vec![ed25519.clone(), ecdsa.clone()];
        assert_eq!(shown(both.clone(), true), both);
        assert_eq!(shown(both, false), [ed25519]);
        assert_eq!(shown(vec![ecdsa.clone()], false), [ecdsa]);
    }
}
