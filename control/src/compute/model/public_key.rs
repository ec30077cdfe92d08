//! SSH public keys, as their owners paste them.

use std::str::FromStr;

use edd_events::clock::Micros;
use edd_proto::UserId;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey as Parsed};

use super::Invalid;

/// Longest line, bytes: an RSA key of 16,384 bits has 2,800.
const MAX_BYTES: usize = 8 * 1024;
/// Least and most bits of RSA. More take minutes of a login's time.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=16_384;
/// Longest comment that is kept, characters.
const MAX_COMMENT_CHARS: usize = 128;

/// A key that may be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Type, base64, and the comment if there is one: a line of `authorized_keys` without options.
    pub line: String,
    /// `SHA256:…` as OpenSSH prints it.
    pub fingerprint: String,
    pub comment: String,
}

impl FromStr for PublicKey {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refuse = |rule: &str| Err(Invalid::new("public_key", rule));
        let text = text.trim();
        if text.is_empty() {
            return refuse("paste the line of your .pub file, such as ~/.ssh/id_ed25519.pub");
        }
        if text.contains("PRIVATE KEY") {
            return refuse("this is a private key: keep it to yourself, and paste the line of the .pub file");
        }
        if text.len() > MAX_BYTES || text.chars().any(char::is_control) {
            return refuse("one line of at most 8 KiB, as in the .pub file");
        }
        let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
        if !is_key_type(kind) {
            return refuse(
                "it does not begin with a key type (ssh-ed25519, ecdsa-sha2-nistp256, ssh-rsa, …): paste it without \
                 options and of a type that OpenSSH takes",
            );
        }
        let (base64, comment) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
        let parsed = Parsed::from_openssh(&format!("{kind} {base64}"));
        let Ok(parsed) = parsed else {
            return refuse("it is damaged: copy the whole line of the .pub file");
        };
        check_strength(parsed.key_data())?;
        let comment: String = comment.trim().chars().take(MAX_COMMENT_CHARS).collect();
        let line = [kind, base64, &comment].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        Ok(Self { line, fingerprint: parsed.fingerprint(HashAlg::Sha256).to_string(), comment })
    }
}

/// Certificates are no keys, and DSA has been broken for long.
fn is_key_type(kind: &str) -> bool {
    [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    ]
    .contains(&kind)
}

fn check_strength(key: &KeyData) -> Result<(), Invalid> {
    let KeyData::Rsa(rsa) = key else { return Ok(()) };
    let bits = |number: &ssh_key::Mpint| {
        let bytes = number.as_positive_bytes().unwrap_or_default();
        bytes.len() * 8 - bytes.first().map_or(0, |first| first.leading_zeros() as usize)
    };
    let (modulus, exponent) = (bits(rsa.n()), rsa.e().as_positive_bytes().unwrap_or_default());
    if !RSA_BITS.contains(&modulus) {
        let rule =
            format!("its {modulus} bits of RSA are not within 2048 to 16384: make a key with ssh-keygen -t ed25519");
        return Err(Invalid::new("public_key", rule));
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    if !is_odd(exponent) || exponent == [1] || !rsa.n().as_positive_bytes().is_some_and(is_odd) {
        return Err(Invalid::new("public_key", "it is no RSA key: make one with ssh-keygen -t ed25519"));
    }
    Ok(())
}

/// A key that the database has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshKey {
    pub number: i64,
    pub owner: UserId,
    /// The owner's number in auth_db.
    pub owner_number: i64,
    pub name: String,
    pub fingerprint: String,
    pub public_key: String,
    /// Of its last event.
    pub version: i64,
    pub created_at: Micros,
    pub deleted_at: Option<Micros>,
}
