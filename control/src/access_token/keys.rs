//! The keys that access tokens are signed with, and the set of their public halves.

use std::collections::BTreeMap;
use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

/// Longest JWKS that is read.
pub const MAX_KEY_SET_BYTES: usize = 64 * 1024;
/// Keys in a set: the one that signs, the ones before it whose tokens are still good, and the next.
pub const MAX_KEYS: usize = 16;
const MAX_KEY_ID_BYTES: usize = 64;
/// An Ed25519 public key (RFC 8032, 5.1.5).
const PUBLIC_KEY_BYTES: usize = 32;
/// A PKCS#8 `PrivateKeyInfo` of Ed25519 (RFC 8410, 7) up to the seed, which are the last 32 bytes.
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Bytes that are no Ed25519 private key in PKCS#8 DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 private key in PKCS#8 DER (RFC 8410) of 48 bytes")]
pub struct InvalidKey;

/// A private key. Its id is the thumbprint of its public half (RFC 7638), so that no two keys share one.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    x: String,
    key: EncodingKey,
}

impl SigningKey {
    /// A new key from `random`.
    pub fn generate(random: &mut impl CryptoRng) -> Self {
        let mut der = [0; 48];
        let (prefix, seed) = der.split_at_mut(PKCS8_PREFIX.len());
        prefix.copy_from_slice(&PKCS8_PREFIX);
        random.fill_bytes(seed);
        Self::from_pkcs8(&der).expect("any 32 bytes are a seed")
    }

    /// The key that was stored as `der`.
    ///
    /// # Errors
    /// [`InvalidKey`]
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, InvalidKey> {
        let key = EncodingKey::from_ed_der(der);
        let jwk = Jwk::from_encoding_key(&key, Algorithm::EdDSA).map_err(|_| InvalidKey)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| InvalidKey)?;
        let AlgorithmParameters::OctetKeyPair(public) = jwk.algorithm else { return Err(InvalidKey) };
        Ok(Self { kid, x: public.x, key })
    }

    /// The key as PKCS#8 DER. A secret.
    pub fn pkcs8(&self) -> &[u8] {
        self.key.as_bytes()
    }

    /// Names the key in tokens and key sets.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn encoding_key(&self) -> &EncodingKey {
        &self.key
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// Why bytes are no key set.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKeySet {
    #[error("the key set has {0} bytes: at most {MAX_KEY_SET_BYTES} are read")]
    TooLong(usize),
    #[error("the key set is no JWKS (RFC 7517): {0}")]
    Json(#[from] serde_json::Error),
    #[error("the key set has {0} keys: at most {MAX_KEYS} are read")]
    TooMany(usize),
    #[error("the key set has no Ed25519 key with a `kid` of 1 to {MAX_KEY_ID_BYTES} bytes")]
    NoKeys,
}

/// A key as a JWKS has it. What other kinds of keys have besides is not read.
#[derive(Serialize, Deserialize)]
struct PublicJwk {
    kty: String,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    x: String,
}

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<PublicJwk>,
}

impl PublicJwk {
    fn new(kid: &str, x: &str) -> Self {
        let [kty, crv, kid, x] = ["OKP", "Ed25519", kid, x].map(str::to_owned);
        Self { kty, crv, alg: Some("EdDSA".to_owned()), usage: Some("sig".to_owned()), kid, x }
    }

    /// The key, if it is one that access tokens are signed with.
    fn key(&self) -> Option<DecodingKey> {
        // RFC 9864 calls the same algorithm `Ed25519`.
        let signs = matches!(self.alg.as_deref(), None | Some("EdDSA" | "Ed25519"))
            && matches!(self.usage.as_deref(), None | Some("sig"));
        let is_ours = self.kty == "OKP" && self.crv == "Ed25519" && signs;
        let key = DecodingKey::from_ed_components(&self.x).ok()?;
        // `jsonwebtoken` slices a key without looking at its length.
        let is_whole = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == PUBLIC_KEY_BYTES);
        (is_ours && is_whole && (1..=MAX_KEY_ID_BYTES).contains(&self.kid.len())).then_some(key)
    }
}

/// The public keys of an issuer; reads its tokens.
#[derive(Clone, Debug)]
pub struct KeySet {
    issuer: String,
    keys: BTreeMap<String, PublicKey>,
}

#[derive(Clone, Debug)]
struct PublicKey {
    x: String,
    key: DecodingKey,
}

impl KeySet {
    /// The public halves of `keys`, whose tokens name `issuer`.
    pub fn new<'a>(issuer: impl Into<String>, keys: impl IntoIterator<Item = &'a SigningKey>) -> Self {
        let public = |key: &SigningKey| {
            let decoding = PublicJwk::new(&key.kid, &key.x).key().expect("the public half of a key that was checked");
            (key.kid.clone(), PublicKey { x: key.x.clone(), key: decoding })
        };
        Self { issuer: issuer.into(), keys: keys.into_iter().map(public).collect() }
    }

    /// The keys of a JWKS. Those of other kinds are left out, as RFC 7517, 5 asks.
    ///
    /// # Errors
    /// It is too long, no JWKS, or has no key of ours.
    pub fn from_json(issuer: impl Into<String>, json: &[u8]) -> Result<Self, InvalidKeySet> {
        if json.len() > MAX_KEY_SET_BYTES {
            return Err(InvalidKeySet::TooLong(json.len()));
        }
        let jwks: Jwks = serde_json::from_slice(json)?;
        if jwks.keys.len() > MAX_KEYS {
            return Err(InvalidKeySet::TooMany(jwks.keys.len()));
        }
        let keys: BTreeMap<_, _> = jwks
            .keys
            .into_iter()
            .filter_map(|jwk| Some((jwk.key()?, jwk)))
            .map(|(key, jwk)| (jwk.kid, PublicKey { x: jwk.x, key }))
            .collect();
        if keys.is_empty() { Err(InvalidKeySet::NoKeys) } else { Ok(Self { issuer: issuer.into(), keys }) }
    }

    /// The keys as a JWKS.
    pub fn to_json(&self) -> String {
        let keys = self.keys.iter().map(|(kid, public)| PublicJwk::new(kid, &public.x));
        serde_json::to_string(&Jwks { keys: keys.collect() }).expect("text keys and values write to memory")
    }

    /// The issuer whose tokens it reads.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn key(&self, kid: &str) -> Option<&DecodingKey> {
        self.keys.get(kid).map(|public| &public.key)
    }
}
