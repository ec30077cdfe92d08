//! What the auth service does, without HTTP: one file per noun.
//!
//! Every change is one transaction with its events in it.

mod accounts;
mod first_start;
mod identity;
mod keys;
mod login;
mod prune;
mod refresh;
mod revocation;
mod sessions;
mod tokens;
mod validation;

use std::sync::Arc;

use edd_events::clock::{Clock, Micros};
use edd_events::database::Database;
use edd_events::publisher::Publisher;
use edd_proto::common::Timestamp;

use crate::access_token::KeySet;
use crate::auth::config::AuthConfig;
use crate::auth::error::AuthError;
use crate::auth::model::RecordId;
use crate::entropy::Entropy;
use crate::limiter::{Limiter, Network};
use crate::password::{Hasher, PasswordError};

pub use accounts::NewAccount;
pub use first_start::FirstPassword;
pub use identity::{Identity, Via};
pub use keys::KeyRing;
pub use login::{Attempt, SignedIn};
pub use tokens::{Expiry, NewToken};
pub use validation::respond;

/// The service; clones share everything.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: AuthConfig,
    database: Database,
    publisher: Publisher,
    clock: Arc<dyn Clock>,
    entropy: Entropy,
    hasher: Hasher,
    keys: KeyRing,
    limits: Limiters,
}

#[derive(Debug)]
struct Limiters {
    logins_per_address: Limiter<Network>,
    logins_per_account: Limiter<login::Account>,
    registrations_per_address: Limiter<Network>,
    refreshes_per_session: Limiter<RecordId>,
}

/// What the service stands on.
#[derive(Clone, Debug)]
pub struct Foundation {
    /// Opened with [`STEPS`](crate::auth::store::STEPS).
    pub database: Database,
    /// Of the source `auth-service`.
    pub publisher: Publisher,
    pub clock: Arc<dyn Clock>,
    pub entropy: Entropy,
}

impl Service {
    /// # Errors
    /// Argon2 does not take the parameters.
    pub fn new(config: AuthConfig, foundation: Foundation) -> Result<Self, PasswordError> {
        let Foundation { database, publisher, clock, entropy } = foundation;
        let limits = &config.limits;
        let limits = Limiters {
            logins_per_address: Limiter::new(limits.logins_per_address, clock.clone()),
            logins_per_account: Limiter::new(limits.logins_per_account, clock.clone()),
            registrations_per_address: Limiter::new(limits.registrations_per_address, clock.clone()),
            refreshes_per_session: Limiter::new(limits.refreshes_per_session, clock.clone()),
        };
        let hasher = Hasher::new(&config.passwords, entropy.clone())?;
        let keys = KeyRing::new(&config.issuer);
        Ok(Self(Arc::new(Inner { config, database, publisher, clock, entropy, hasher, keys, limits })))
    }

    pub fn config(&self) -> &AuthConfig {
        &self.0.config
    }

    /// How many passwords were hashed so far.
    pub fn hashes(&self) -> u64 {
        self.0.hasher.hashes()
    }

    pub(in crate::auth) fn database(&self) -> &Database {
        &self.0.database
    }

    /// The public keys.
    pub fn key_set(&self) -> KeySet {
        self.0.keys.public()
    }

    pub(super) fn now(&self) -> Micros {
        self.0.clock.now()
    }

    async fn reader(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, AuthError> {
        Ok(self.0.database.reader().acquire().await?)
    }
}

/// The moment as the wire has it.
fn timestamp(at: Micros) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(1_000_000) * 1000).expect("less than a second");
    Timestamp { seconds: at.div_euclid(1_000_000), nanos }
}
