use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;

/// Unix seconds.
const NOW: i64 = 1_800_000_000;
const UID: &str = "V1StGXR8_Z5jdHi6B-myT";

fn key(seed: u64) -> SigningKey {
    SigningKey::generate(&mut StdRng::seed_from_u64(seed))
}

fn keys() -> &'static KeySet {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::new(DEFAULT_ISSUER, [&key(1), &key(2)]));
    &KEYS
}

fn claims() -> Claims {
    Claims {
        user_id: UID.parse().unwrap(),
        user_number: 42,
        username: "ann".to_owned(),
        display_name: "Ann \"A\" Ünal".to_owned(),
        is_admin: false,
        sid: "sYl2-0dQ".to_owned(),
        iat: NOW,
        exp: NOW + 900,
        jti: "1".to_owned(),
    }
}

fn at(seconds: i64) -> Micros {
    seconds * 1_000_000
}

fn verify(token: &str) -> Result<Claims, TokenError> {
    keys().verify(token, at(NOW))
}

/// The payload of a good token.
fn payload() -> Value {
    let payload = Payload { iss: DEFAULT_ISSUER, aud: AUDIENCE, sub: UID.parse().unwrap(), claims: claims() };
    serde_json::to_value(payload).unwrap()
}

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key(1).kid()})
}

/// Signs what no [`Signer`] would.
fn forge(header: &Value, payload: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(payload));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key(1).encoding_key(), Algorithm::EdDSA).unwrap();
    format!("{message}.{signature}")
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    value[name] = new;
    value
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name).unwrap();
    value
}

#[test]
fn a_signed_token_says_what_was_signed() {
    for seed in [1, 2] {
        let token = Signer::new(DEFAULT_ISSUER, key(seed)).sign(&claims());
        assert_eq!(verify(&token), Ok(claims()));
        assert!(token.len() < 700, "{} bytes in every request", token.len());
    }
    assert_eq!(verify(&forge(&header(), &payload())), Ok(claims()), "or what follows shows nothing");
}

/// Old clients decode it in the browser.
#[test]
fn claims_have_the_names_that_clients_read() {
    let token = Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims());
    let part = |index| URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    let head: Value = serde_json::from_slice(&part(0)).unwrap();
    assert_eq!(head, header());
    let body: Value = serde_json::from_slice(&part(1)).unwrap();
    let expected = json!({
        "iss": "edd-auth", "aud": "edd", "sub": UID, "user_id": UID, "user_number": 42, "username": "ann",
        "display_name": "Ann \"A\" Ünal", "is_admin": false, "sid": "sYl2-0dQ", "iat": NOW, "exp": NOW + 900, "jti": "1",
    });
    assert_eq!(body, expected);
}

#[test]
fn time_is_the_callers_with_a_little_leeway() {
    let token = Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims());
    let at_second = |second| keys().verify(&token, at(second)).err();
    assert_eq!(at_second(NOW + 900 + LEEWAY_SECONDS - 1), None);
    assert_eq!(at_second(NOW + 900 + LEEWAY_SECONDS), Some(TokenError::Expired));
    assert_eq!(at_second(NOW - LEEWAY_SECONDS), None);
    assert_eq!(at_second(NOW - LEEWAY_SECONDS - 1), Some(TokenError::NotYet));
    let forever = forge(&header(), &with(payload(), "exp", json!(i64::MAX)));
    assert_eq!(keys().verify(&forever, at(NOW)).map(|claims| claims.exp), Ok(i64::MAX));
}

#[test]
fn heads_of_another_kind_are_refused() {
    let refused = |header: Value| verify(&forge(&header, &payload())).unwrap_err();
    assert_eq!(refused(with(header(), "alg", json!("none"))), TokenError::Malformed);
    assert_eq!(refused(with(header(), "alg", json!("ES256"))), TokenError::Algorithm);
    assert_eq!(refused(without(header(), "alg")), TokenError::Malformed);
    assert_eq!(refused(with(header(), "typ", json!("JWT"))), TokenError::Type);
    assert_eq!(refused(without(header(), "typ")), TokenError::Type);
    assert_eq!(refused(with(header(), "kid", json!("k"))), TokenError::UnknownKey);
    assert_eq!(refused(without(header(), "kid")), TokenError::UnknownKey);
    assert_eq!(refused(with(header(), "crit", json!(["b64"]))), TokenError::Malformed);
    assert_eq!(refused(with(header(), "kid", json!(7))), TokenError::Malformed);
    assert_eq!(refused(json!([])), TokenError::Malformed);
    assert!(verify(&forge(&with(header(), "typ", json!("application/AT+jwt")), &payload())).is_ok());
    // Nobody is to make us look for new keys by what cannot be a token of ours.
    let stranger = with(with(header(), "kid", json!("k")), "alg", json!("HS256"));
    assert_eq!(refused(stranger), TokenError::Algorithm);
}

#[test]
fn claims_of_another_kind_are_refused() {
    let refused = |payload: Value| verify(&forge(&header(), &payload)).unwrap_err();
    assert_eq!(refused(with(payload(), "iss", json!("evil"))), TokenError::Issuer);
    assert_eq!(refused(with(payload(), "aud", json!("other"))), TokenError::Audience);
    assert_eq!(refused(with(payload(), "exp", json!(NOW - LEEWAY_SECONDS))), TokenError::Expired);
    assert_eq!(refused(with(payload(), "iat", json!(NOW + LEEWAY_SECONDS + 1))), TokenError::NotYet);
    for name in ["iss", "aud", "sub", "user_id", "user_number", "username", "is_admin", "sid", "iat", "exp", "jti"] {
        assert_eq!(refused(without(payload(), name)), TokenError::Claims, "without {name}");
        assert_eq!(refused(with(payload(), name, json!([1]))), TokenError::Claims, "{name} a list");
    }
    assert_eq!(refused(with(payload(), "sub", json!("W1StGXR8_Z5jdHi6B-myT"))), TokenError::Claims);
    assert_eq!(refused(with(payload(), "sid", json!(""))), TokenError::Claims);
    assert_eq!(refused(with(payload(), "exp", json!("1800000900"))), TokenError::Claims);
    assert_eq!(refused(with(payload(), "exp", json!(1e300))), TokenError::Claims);
    assert_eq!(refused(json!(null)), TokenError::Claims);
}

#[test]
fn signatures_of_others_are_refused() {
    let stranger = Signer::new(DEFAULT_ISSUER, key(3));
    assert_eq!(verify(&stranger.sign(&claims())), Err(TokenError::UnknownKey));
    let good = Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims());
    let other = Signer::new(DEFAULT_ISSUER, key(2)).sign(&claims());
    let (message, _) = good.rsplit_once('.').unwrap();
    let (_, signature) = other.rsplit_once('.').unwrap();
    assert_eq!(verify(&format!("{message}.{signature}")), Err(TokenError::Signature));
    assert_eq!(verify(&format!("{message}.")), Err(TokenError::Signature));
    assert_eq!(verify(&format!("{message}.AAAA")), Err(TokenError::Signature));

    // The public key is public: who takes it for a shared secret must not be believed.
    let jwks: Value = serde_json::from_str(&keys().to_json()).unwrap();
    for jwk in jwks["keys"].as_array().unwrap() {
        let x = jwk["x"].as_str().unwrap();
        for secret in [x.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(x).unwrap()] {
            let mut header = Header::new(Algorithm::HS256);
            (header.typ, header.kid) = (Some(TYPE.to_owned()), jwk["kid"].as_str().map(str::to_owned));
            let token = jsonwebtoken::encode(&header, &payload(), &EncodingKey::from_secret(&secret)).unwrap();
            assert_eq!(verify(&token), Err(TokenError::Algorithm));
        }
    }
}

#[test]
fn what_is_no_token_is_refused_before_it_costs_anything() {
    let good = Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims());
    for end in 0..good.len() {
        assert!(verify(&good[..end]).is_err(), "{end} bytes of it");
    }
    for text in ["", ".", "..", "...", "a.b.c", "e30.e30.e30", "ecloud_abc", &format!("{good}."), &format!(".{good}")] {
        assert_eq!(verify(text), Err(TokenError::Malformed), "{text}");
    }
    assert_eq!(verify(&"a".repeat(MAX_TOKEN_BYTES + 1)), Err(TokenError::TooLong(MAX_TOKEN_BYTES + 1)));
    assert_eq!(verify(&"a.".repeat(4 << 20)), Err(TokenError::TooLong(8 << 20)));
    let deep = URL_SAFE_NO_PAD.encode("[".repeat(2900));
    assert_eq!(verify(&format!("{deep}.{deep}.")), Err(TokenError::Malformed));
    assert_eq!(verify(&format!("{}\u{e9}", &good[..100])), Err(TokenError::Malformed));
}

#[test]
fn keys_are_stored_and_hidden() {
    let key = key(1);
    let again = SigningKey::from_pkcs8(key.pkcs8()).unwrap();
    assert_eq!(again.kid(), key.kid());
    assert_eq!(Signer::new("i", again).sign(&claims()), Signer::new("i", key.clone()).sign(&claims()));
    assert_ne!(key.kid(), self::key(2).kid());
    let shown = format!("{:?}", Signer::new("i", key.clone()));
    assert_eq!(shown, format!("Signer {{ issuer: \"i\", key: SigningKey {{ kid: {:?}, .. }} }}", key.kid()));
    for broken in [&[][..], &key.pkcs8()[..47], &[0; 48], &[key.pkcs8(), &[0]].concat()] {
        assert_eq!(SigningKey::from_pkcs8(broken).err(), Some(InvalidKey));
    }
}

/// RFC 8037, A.1–A.3: the private key, its public half and its thumbprint.
#[test]
fn a_key_is_the_one_that_the_standard_says() {
    let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = SigningKey::from_pkcs8(
        &[b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20", &seed[..]].concat(),
    )
    .unwrap();
    assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let jwks: Value = serde_json::from_str(&KeySet::new("i", [&key]).to_json()).unwrap();
    let expected = json!({"keys": [{
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid(),
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }]});
    assert_eq!(jwks, expected);
}

#[test]
fn key_sets_survive_being_sent_and_strange_keys_are_left_out() {
    let token = Signer::new("elsewhere", key(2)).sign(&claims());
    let mut jwks: Value = serde_json::from_str(&keys().to_json()).unwrap();
    let ours = jwks["keys"][0].clone();
    let strange = [
        json!({"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"}),
        with(with(ours.clone(), "kid", json!("short")), "x", json!("AQAB")),
        with(with(ours.clone(), "kid", json!("enc")), "use", json!("enc")),
        with(ours.clone(), "kid", json!("k".repeat(65))),
        without(ours, "kid"),
    ];
    jwks["keys"].as_array_mut().unwrap().extend(strange.clone());
    let set = KeySet::from_json("elsewhere", jwks.to_string().as_bytes()).unwrap();
    assert_eq!(set.verify(&token, at(NOW)), Ok(claims()));
    assert_eq!(set.to_json(), keys().to_json());

    let error = |json: &str| KeySet::from_json("i", json.as_bytes()).unwrap_err();
    assert!(matches!(error(&json!({"keys": strange}).to_string()), InvalidKeySet::NoKeys));
    assert!(matches!(error("{\"keys\":[]}"), InvalidKeySet::NoKeys));
    assert!(matches!(error("<html>"), InvalidKeySet::Json(_)));
    assert!(matches!(error(&" ".repeat(MAX_KEY_SET_BYTES + 1)), InvalidKeySet::TooLong(_)));
    let many = json!({"keys": vec![json!({"kty": "oct"}); MAX_KEYS + 1]});
    assert!(matches!(error(&many.to_string()), InvalidKeySet::TooMany(17)));
}

proptest! {
    /// One changed byte anywhere is enough.
    #[test]
    fn a_changed_token_is_refused(at in 0_usize..600, byte in b' '..=b'~') {
        static GOOD: LazyLock<String> = LazyLock::new(|| Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims()));
        let mut bytes = GOOD.clone().into_bytes();
        let index = at % bytes.len();
        prop_assume!(bytes[index] != byte);
        bytes[index] = byte;
        prop_assert!(verify(std::str::from_utf8(&bytes).unwrap()).is_err());
    }

    #[test]
    fn no_text_panics(text in ".{0,200}", header in "[ -~]{0,80}", body in "[ -~]{0,80}") {
        prop_assert!(verify(&text).is_err());
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{}", part(&header), part(&body), part(&text));
        prop_assert!(verify(&token).is_err());
        prop_assert!(KeySet::from_json("i", text.as_bytes()).is_err());
    }

    #[test]
    fn any_claims_survive(username in ".{0,40}", display_name in ".{0,40}", number: i64, is_admin: bool, seed: u64) {
        let user_id = UserId::random(&mut StdRng::seed_from_u64(seed));
        let claims = Claims { user_id, user_number: number, username, display_name, is_admin, ..claims() };
        prop_assert_eq!(verify(&Signer::new(DEFAULT_ISSUER, key(1)).sign(&claims)), Ok(claims));
    }
}
