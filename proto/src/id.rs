//! Ids that are text, parsed where they come in.

use std::fmt;
use std::str::FromStr;

use rand::{Rng, RngExt};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: {rule}")]
pub struct InvalidId {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

/// 64 characters, so that six random bits choose one without bias.
const NANOID: &[u8; 64] = b"useandom-26T198340PX75pxJACKVERYMINDBUSHWOLF_GQZbfghjklqvwyzrict";
const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
const LETTERS_AND_DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

macro_rules! text_id {
    ($(#[$docs:meta])* $name:ident, $length:literal, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $length]);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                std::str::from_utf8(&self.0).expect("ASCII alone is let in")
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&[u8; $length]) -> bool = $valid;
                let bytes = text.as_bytes().try_into().ok().filter(valid);
                bytes.map(Self).ok_or_else(|| InvalidId {
                    kind: $kind,
                    rule: $rule,
                    text: text.chars().take(40).collect(),
                })
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// A user, everywhere but inside auth_db: a nanoid.
    UserId, 21, "user id", "21 of A-Z a-z 0-9 _ -", |id| id.iter().all(|byte| NANOID.contains(byte))
}

text_id! {
    /// A container. Its label in host names, its user name for SSH, a part of its namespace's name.
    ContainerId, 10, "container id", "10 of a-z 0-9, the first a letter",
    |id| id[0].is_ascii_lowercase() && id.iter().all(|byte| LETTERS_AND_DIGITS.contains(byte))
}

impl UserId {
    /// A new id: 126 random bits. From a cryptographic `rng` nobody guesses it.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut bytes = [0; 21];
        rng.fill_bytes(&mut bytes);
        Self(bytes.map(|byte| NANOID[usize::from(byte & 63)]))
    }
}

impl ContainerId {
    /// A new id: 51 random bits. The database that stores it tells whether it is free.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut id = [0; 10].map(|_: u8| LETTERS_AND_DIGITS[rng.random_range(..LETTERS_AND_DIGITS.len())]);
        id[0] = LETTERS[rng.random_range(..LETTERS.len())];
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn new_ids_are_valid_and_use_the_whole_alphabet() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut used = BTreeSet::new();
        for _ in 0..1000 {
            let user = UserId::random(&mut rng);
            assert_eq!(user.as_str().parse(), Ok(user));
            let container = ContainerId::random(&mut rng);
            assert_eq!(container.as_str().parse(), Ok(container));
            used.extend(user.0);
        }
        assert_eq!(used, NANOID.iter().copied().collect());
        assert_eq!(used.len(), 64);
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "42", "V1StGXR8_Z5jdHi6B-my", "V1StGXR8_Z5jdHi6B-myTT", "V1StGXR8.Z5jdHi6B-myT", "ééééééééééé"]
        {
            assert!(text.parse::<UserId>().is_err(), "{text}");
        }
        for text in ["", "abc", "0bcdefghij", "Abcdefghij", "abcdefghiJ", "abcdefghi_", "abcdefghijk"] {
            assert!(text.parse::<ContainerId>().is_err(), "{text}");
        }
        let error = "root".parse::<ContainerId>().unwrap_err().to_string();
        assert_eq!(error, "\"root\" is no container id: 10 of a-z 0-9, the first a letter");
    }

    #[test]
    fn ids_are_text_in_json() {
        let id: UserId = serde_json::from_str("\"V1StGXR8_Z5jdHi6B-myT\"").unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"V1StGXR8_Z5jdHi6B-myT\"");
        assert!(serde_json::from_str::<UserId>("42").is_err());
        assert!(serde_json::from_str::<UserId>("\"42\"").is_err());
    }
}
