//! SHA-256 of a public key, as OpenSSH names keys.

use std::fmt;
use std::str::FromStr;

use russh::keys::ssh_key::{self, HashAlg, PublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `SHA256:` and the unpadded base64 of a key's hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// Text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `SHA256:` and 43 characters of base64")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// Of a key, whatever its comment.
    pub fn of(key: &PublicKey) -> Self {
        Self::from_hash(key.fingerprint(HashAlg::Sha256)).expect("a hash of the kind that was asked for")
    }

    fn from_hash(fingerprint: ssh_key::Fingerprint) -> Option<Self> {
        fingerprint.sha256().map(Self)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        text.parse().ok().and_then(Self::from_hash).ok_or(InvalidFingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&ssh_key::Fingerprint::Sha256(self.0), f)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_openssh_s() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";
        let text = "SHA256:UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ";
        let fingerprint = Fingerprint::of(&PublicKey::from_openssh(key).unwrap());
        assert_eq!(fingerprint.to_string(), text);
        assert_eq!(text.parse(), Ok(fingerprint));
        assert_eq!(serde_json::to_string(&fingerprint).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Fingerprint>(&format!("\"{text}\"")).unwrap(), fingerprint);
    }

    #[test]
    fn other_text_is_none() {
        let long = format!("SHA512:{}", "A".repeat(86));
        for text in ["", "SHA256:", "SHA256:UCUiLr7Pjs9w", "UCUiLr7Pjs9wFFJMDByLgc3NrtdU344OgUM45wZPcIQ", &long] {
            assert_eq!(text.parse::<Fingerprint>(), Err(InvalidFingerprint), "{text}");
        }
    }
}
