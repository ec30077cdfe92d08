//! Passwords become Argon2id hashes (RFC 9106), a bounded number at a time: each takes 19 MiB and some 30 ms of a core.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::entropy::Entropy;

/// Longest password, bytes: hashing time grows with it.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// A password as somebody typed it, to be compared. Any bytes that JSON can carry, NUL among them; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// For a comparison: what cannot be anybody's password is no error, it merely is not the right one.
    pub fn attempt(text: String) -> Self {
        Self(text)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn is_too_long(&self) -> bool {
        self.0.len() > MAX_PASSWORD_BYTES
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What a hash costs, and how many are made at once.
#[derive(Clone, Copy, Debug)]
pub struct PasswordConfig {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    pub concurrent_hashes: usize,
    /// Requests that may wait for one of them; further ones are turned away.
    pub waiting_hashes: usize,
}

impl Default for PasswordConfig {
    /// OWASP's first choice for Argon2id.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory_kib: 19 * 1024, passes: 2, lanes: 1, concurrent_hashes: cores, waiting_hashes: 64 }
    }
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("argon2 cannot use memory_kib {memory_kib}, passes {passes}, lanes {lanes}: {error}")]
    Config { memory_kib: u32, passes: u32, lanes: u32, error: argon2::Error },
    #[error("concurrent_hashes is 0: allow at least one")]
    NoHashes,
    #[error("too many passwords are being checked: try again in a moment")]
    Busy,
    #[error("a password's hash in the database is broken: {0}")]
    Broken(argon2::password_hash::Error),
    #[error("the thread that hashed a password is gone: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

/// How a password compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Wrong,
    Right,
    /// Right, and its hash was made with other parameters than today's.
    Outdated,
}

/// Makes and compares hashes; clones share the bounds.
#[derive(Clone, Debug)]
pub struct Hasher {
    argon2: Argon2<'static>,
    entropy: Entropy,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    hashes: Arc<AtomicU64>,
    /// Of a random password that nobody was told: what an unknown user's password is compared with.
    decoy: Arc<str>,
}

impl Hasher {
    /// # Errors
    /// Argon2 does not take the parameters.
    pub fn new(config: &PasswordConfig, entropy: Entropy) -> Result<Self, PasswordError> {
        let PasswordConfig { memory_kib, passes, lanes, concurrent_hashes, waiting_hashes } = *config;
        if concurrent_hashes == 0 {
            return Err(PasswordError::NoHashes);
        }
        let params = Params::new(memory_kib, passes, lanes, None);
        let params = params.map_err(|error| PasswordError::Config { memory_kib, passes, lanes, error })?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let decoy = hash(&argon2, &entropy.bytes::<32>(), &entropy.bytes())?;
        Ok(Self {
            argon2,
            entropy,
            running: Arc::new(Semaphore::new(concurrent_hashes)),
            admitted: Arc::new(Semaphore::new(concurrent_hashes + waiting_hashes)),
            hashes: Arc::default(),
            decoy: decoy.into(),
        })
    }

    /// A hash of `password` to store, in the PHC string format.
    ///
    /// # Errors
    /// [`PasswordError::Busy`]
    pub async fn hash(&self, password: &Password) -> Result<String, PasswordError> {
        let (argon2, salt) = (self.argon2.clone(), self.entropy.bytes());
        let password = password.clone();
        self.run(move || hash(&argon2, password.as_bytes(), &salt)).await
    }

    /// Compares `password` with a stored hash; without one, does the same work in vain.
    ///
    /// # Errors
    /// [`PasswordError::Busy`], or the hash is broken.
    pub async fn verify(&self, password: &Password, stored: Option<&str>) -> Result<Verdict, PasswordError> {
        let stored = stored.unwrap_or(&self.decoy).to_owned();
        let (argon2, password) = (self.argon2.clone(), password.clone());
        self.run(move || verify(&argon2, &password, &stored)).await
    }

    /// How many hashes were made so far.
    pub fn hashes(&self) -> u64 {
        self.hashes.load(Ordering::Relaxed)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        self.hashes.fetch_add(1, Ordering::Relaxed);
        // The permits go with the work: a request that is given up does not stop it.
        let permits: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (admitted, running);
        tokio::task::spawn_blocking(move || {
            let done = work();
            drop(permits);
            done
        })
        .await?
    }
}

fn hash(argon2: &Argon2<'_>, password: &[u8], salt: &[u8; 16]) -> Result<String, PasswordError> {
    let salt = SaltString::encode_b64(salt).map_err(PasswordError::Broken)?;
    Ok(argon2.hash_password(password, &salt).map_err(PasswordError::Broken)?.to_string())
}

fn verify(argon2: &Argon2<'_>, password: &Password, stored: &str) -> Result<Verdict, PasswordError> {
    let stored = PasswordHash::new(stored).map_err(PasswordError::Broken)?;
    // Nobody has a password of that length; a short one in its place costs the same work as any other.
    let typed = if password.is_too_long() { b"" } else { password.as_bytes() };
    match argon2.verify_password(typed, &stored) {
        Ok(()) => {
            let made_with = Params::try_from(&stored).map_err(PasswordError::Broken)?;
            let (now, then) = (argon2.params(), &made_with);
            let same = (now.m_cost(), now.t_cost(), now.p_cost()) == (then.m_cost(), then.t_cost(), then.p_cost());
            Ok(if same { Verdict::Right } else { Verdict::Outdated })
        }
        Err(argon2::password_hash::Error::Password) => Ok(Verdict::Wrong),
        Err(error) => Err(PasswordError::Broken(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PasswordConfig {
        PasswordConfig { memory_kib: 64, passes: 1, lanes: 1, concurrent_hashes: 1, waiting_hashes: 1 }
    }

    fn hasher(config: PasswordConfig) -> Hasher {
        Hasher::new(&config, Entropy::seeded(1)).expect("a hasher")
    }

    fn password(text: &str) -> Password {
        Password::attempt(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_knows_its_password_and_its_age() {
        let hasher = hasher(config());
        let stored = hasher.hash(&password("nul\0 hunter2")).await.expect("a hash");
        assert!(stored.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{stored}");
        let verify = async |text: &str, hasher: &Hasher| hasher.verify(&password(text), Some(&stored)).await;
        assert_eq!(verify("nul\0 hunter2", &hasher).await.expect("a verdict"), Verdict::Right);
        for wrong in ["nul", "nul\0 hunter3", "", &"x".repeat(100_000)] {
            assert_eq!(verify(wrong, &hasher).await.expect("a verdict"), Verdict::Wrong);
        }
        let stronger = Hasher::new(&PasswordConfig { passes: 2, ..config() }, Entropy::seeded(2)).expect("a hasher");
        assert_eq!(verify("nul\0 hunter2", &stronger).await.expect("a verdict"), Verdict::Outdated);
        assert_eq!(verify("hunter2", &stronger).await.expect("a verdict"), Verdict::Wrong);
        let broken = hasher.verify(&password("x"), Some("$argon2id$")).await;
        assert!(matches!(broken, Err(PasswordError::Broken(_))), "{broken:?}");
        let again = hasher.hash(&password("nul\0 hunter2")).await.expect("a hash");
        assert_ne!(again, stored, "each has a salt of its own");
    }

    #[tokio::test]
    async fn an_unknown_user_costs_a_hash_and_is_never_right() {
        let hasher = hasher(config());
        for round in 1..=3 {
            assert_eq!(hasher.verify(&password("x"), None).await.expect("a verdict"), Verdict::Wrong);
            assert_eq!(hasher.hashes(), round);
        }
    }

    #[tokio::test]
    async fn hashes_wait_for_one_another_up_to_a_number() {
        let hasher = hasher(config());
        let occupied = Arc::clone(&hasher.running).acquire_owned().await.expect("a permit");
        let admitted = Arc::clone(&hasher.admitted).acquire_owned().await.expect("a permit");
        let waiting = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.verify(&password("x"), None).await }
        });
        while hasher.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let third = hasher.verify(&password("x"), None).await;
        assert!(matches!(third, Err(PasswordError::Busy)), "{third:?}");
        drop((occupied, admitted));
        assert_eq!(waiting.await.expect("a task").expect("a verdict"), Verdict::Wrong);
        assert_eq!(hasher.verify(&password("x"), None).await.expect("a verdict"), Verdict::Wrong);
    }

    #[test]
    fn parameters_that_argon2_does_not_take_are_refused_at_start() {
        let refused = Hasher::new(&PasswordConfig { memory_kib: 1, ..config() }, Entropy::seeded(1));
        assert!(refused.expect_err("too little memory").to_string().contains("memory_kib 1"));
        let refused = Hasher::new(&PasswordConfig { concurrent_hashes: 0, ..config() }, Entropy::seeded(1));
        assert!(matches!(refused, Err(PasswordError::NoHashes)));
    }
}
