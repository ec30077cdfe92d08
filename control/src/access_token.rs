//! Access tokens: signed by the auth service, read by every other without asking it.
//!
//! They are JWTs (RFC 7519) in the profile of RFC 9068, signed with Ed25519 (RFC 8037). Algorithm, type,
//! issuer and audience are pinned; keys come as a JWKS (RFC 7517) and are told apart by `kid`.

mod keys;

use std::sync::LazyLock;

use edd_events::clock::Micros;
use edd_proto::UserId;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

pub use keys::{InvalidKey, InvalidKeySet, KeySet, MAX_KEY_SET_BYTES, MAX_KEYS, SigningKey};

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// How far the clocks of two machines may be apart.
pub const LEEWAY_SECONDS: i64 = 30;
/// `iss` unless configured otherwise.
pub const DEFAULT_ISSUER: &str = "edd-auth";
/// `aud`: one token opens every service of an installation.
pub const AUDIENCE: &str = "edd";
/// `typ` of the header. Another kind of token that the same key may sign one day is no access token.
const TYPE: &str = "at+jwt";

/// What a token says. `iss`, `aud` and `sub` are added when it is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Also `sub`.
    pub user_id: UserId,
    /// The user's number in auth_db.
    pub user_number: i64,
    pub username: String,
    pub display_name: String,
    pub is_admin: bool,
    /// The id of the session's record, which opens nothing; what revocations name.
    pub sid: String,
    /// When it was issued, Unix seconds.
    pub iat: i64,
    /// When it ends, Unix seconds.
    pub exp: i64,
    /// Another one in every token.
    pub jti: String,
}

/// [`Claims`] as sent.
#[derive(Serialize, Deserialize)]
struct Payload<Text, Claims> {
    iss: Text,
    aud: Text,
    sub: UserId,
    #[serde(flatten)]
    claims: Claims,
}

/// Why a token is refused. Says nothing of what is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has {0} bytes: at most {MAX_TOKEN_BYTES} are read")]
    TooLong(usize),
    /// Not three parts of base64url, the first and second of JSON.
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is not signed with EdDSA")]
    Algorithm,
    #[error("the token's type is not `{TYPE}`")]
    Type,
    /// Perhaps a new key, which a key set that is loaded again has.
    #[error("the token is signed with a key that is not known here")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    /// Signed by us, with claims that are missing or of another type.
    #[error("the token's claims are not those of an access token")]
    Claims,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired")]
    Expired,
    /// Issued by a clock that is more than [`LEEWAY_SECONDS`] ahead.
    #[error("the token was issued in the future")]
    NotYet,
}

/// Signs access tokens.
#[derive(Clone, Debug)]
pub struct Signer {
    issuer: String,
    key: SigningKey,
}

impl Signer {
    pub fn new(issuer: impl Into<String>, key: SigningKey) -> Self {
        Self { issuer: issuer.into(), key }
    }

    /// The key that it signs with.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.key.kid().to_owned());
        let payload = Payload { iss: self.issuer.as_str(), aud: AUDIENCE, sub: claims.user_id, claims };
        jsonwebtoken::encode(&header, &payload, self.key.encoding_key())
            .expect("an Ed25519 key that was checked when it was read signs text")
    }
}

/// Checks all but the signature itself off: `jsonwebtoken` would ask the machine's clock, and [`check`] knows better.
static SIGNATURE_ALONE: LazyLock<Validation> = LazyLock::new(|| {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
});

impl KeySet {
    /// What `token` says, if it is an access token of our issuer that is good at `now`.
    ///
    /// # Errors
    /// See [`TokenError`]. [`TokenError::UnknownKey`] alone may change when the key set is loaded again.
    pub fn verify(&self, token: &str, now: Micros) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(token.len()));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refusal(&error))?;
        if header.alg != Algorithm::EdDSA {
            return Err(TokenError::Algorithm);
        }
        // `crit` names extensions that must be understood (RFC 7515, 4.1.11), and we know none.
        if header.crit.is_some() {
            return Err(TokenError::Malformed);
        }
        if !header.typ.as_deref().is_some_and(is_access_token) {
            return Err(TokenError::Type);
        }
        let key = header.kid.as_deref().and_then(|kid| self.key(kid)).ok_or(TokenError::UnknownKey)?;
        let payload = signed_payload(token, key)?;
        self.check(payload, now)
    }

    fn check(&self, payload: Payload<String, Claims>, now: Micros) -> Result<Claims, TokenError> {
        let now = now.div_euclid(1_000_000);
        let Payload { iss, aud, sub, claims } = payload;
        if iss != self.issuer() {
            Err(TokenError::Issuer)
        } else if aud != AUDIENCE {
            Err(TokenError::Audience)
        } else if sub != claims.user_id || claims.sid.is_empty() {
            Err(TokenError::Claims)
        } else if claims.exp.saturating_add(LEEWAY_SECONDS) <= now {
            Err(TokenError::Expired)
        } else if claims.iat > now.saturating_add(LEEWAY_SECONDS) {
            Err(TokenError::NotYet)
        } else {
            Ok(claims)
        }
    }
}

/// RFC 9068, 4: with or without the `application/` of a media type, which knows no case.
fn is_access_token(typ: &str) -> bool {
    typ.eq_ignore_ascii_case(TYPE)
        || typ
            .split_once('/')
            .is_some_and(|(main, sub)| main.eq_ignore_ascii_case("application") && sub.eq_ignore_ascii_case(TYPE))
}

fn signed_payload(token: &str, key: &DecodingKey) -> Result<Payload<String, Claims>, TokenError> {
    let decoded = jsonwebtoken::decode(token, key, &SIGNATURE_ALONE);
    decoded.map(|data| data.claims).map_err(|error| match error.kind() {
        // The header's JSON was read before.
        ErrorKind::Json(_) => TokenError::Claims,
        _ => refusal(&error),
    })
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm => TokenError::Algorithm,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests;
