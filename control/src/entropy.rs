//! Where ids, salts, keys and secrets come from.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edd_proto::UserId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A cryptographic generator; clones share it.
#[derive(Clone)]
pub struct Entropy(Arc<Mutex<StdRng>>);

impl Entropy {
    /// Seeded by the operating system.
    pub fn from_system() -> Self {
        Self(Arc::new(Mutex::new(rand::make_rng())))
    }

    /// One that repeats itself. For tests: everything it makes can be guessed.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn with<T>(&self, make: impl FnOnce(&mut StdRng) -> T) -> T {
        make(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn nanoid(&self) -> UserId {
        self.with(UserId::random)
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.with(|random| random.fill_bytes(&mut bytes));
        bytes
    }

    /// 256 bits that nobody guesses.
    pub fn secret(&self, prefix: &str) -> Secret {
        Secret(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(self.bytes::<32>())))
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy(…)")
    }
}

/// A random token of its bearer. Stored only as its SHA-256, which is enough: nobody searches 2^256.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// As its bearer sent it.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What to give to its bearer, and to nobody else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn sha256(&self) -> Vec<u8> {
        Sha256::digest(&self.0).to_vec()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_256_bits_of_url_safe_text() {
        let entropy = Entropy::seeded(1);
        let secret = entropy.secret("ecloud_");
        let random = secret.expose().strip_prefix("ecloud_").expect("the prefix");
        assert_eq!(random.len(), 43);
        assert_eq!(URL_SAFE_NO_PAD.decode(random).expect("base64url").len(), 32);
        assert_ne!(secret, entropy.secret("ecloud_"));
        assert_eq!(secret.sha256(), Secret::of(secret.expose()).sha256());
        assert!(!format!("{secret:?}").contains(random));
        assert_ne!(entropy.nanoid(), entropy.nanoid());
        assert_ne!(Entropy::from_system().bytes::<16>(), Entropy::from_system().bytes::<16>());
    }
}
