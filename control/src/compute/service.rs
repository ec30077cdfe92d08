//! What the compute service does, without HTTP: one file per noun.
//!
//! Every change is one transaction with its events in it. What a change asks of the platform is the reconciler's to do.

mod access;
mod answers;
mod containers;
mod deletion;
mod departures;
mod happening;
mod ingress;
mod keeping;
mod sessions;
mod ssh_keys;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edd_events::clock::{Clock, Micros};
use edd_events::database::{Database, Transaction};
use edd_events::publisher::Publisher;
use edd_proto::{ContainerId, UserId};
use rand::rngs::StdRng;
use tokio::sync::broadcast;

use crate::compute::config::ComputeConfig;
use crate::compute::error::ComputeError;
use crate::compute::model::Container;
use crate::compute::platform::{Platform, PlatformError};
use crate::compute::store;

pub use access::{HttpsAccess, SshAccess};
pub use answers::Answers;
pub use departures::Departures;
pub(in crate::compute) use happening::{Happening, tell};
pub use keeping::MAX_ACTIVE;

/// Changes that are remembered for those who watch slowly; who misses some looks at everything.
const CHANGES: usize = 1024;
/// Longest that a caller waits for the platform.
const PLATFORM_TIMEOUT: Duration = Duration::from_secs(20);

/// The service; clones share everything.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ComputeConfig,
    foundation: Foundation,
    random: Mutex<StdRng>,
    changes: broadcast::Sender<UserId>,
}

/// What the service stands on.
#[derive(Clone, Debug)]
pub struct Foundation {
    /// Opened with [`STEPS`](crate::compute::STEPS).
    pub database: Database,
    /// Of the source `compute-service`.
    pub publisher: Publisher,
    pub clock: Arc<dyn Clock>,
    pub platform: Arc<dyn Platform>,
}

impl Service {
    pub fn new(config: ComputeConfig, foundation: Foundation) -> Self {
        let changes = broadcast::Sender::new(CHANGES);
        Self(Arc::new(Inner { config, foundation, random: Mutex::new(rand::make_rng()), changes }))
    }

    pub fn config(&self) -> &ComputeConfig {
        &self.0.config
    }

    /// What runs the containers.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.0.foundation.platform
    }

    pub(in crate::compute) fn database(&self) -> &Database {
        &self.0.foundation.database
    }

    pub(in crate::compute) fn publisher(&self) -> &Publisher {
        &self.0.foundation.publisher
    }

    pub(in crate::compute) fn now(&self) -> Micros {
        self.0.foundation.clock.now()
    }

    /// Users of whose containers something has changed in this process.
    pub fn changes(&self) -> broadcast::Receiver<UserId> {
        self.0.changes.subscribe()
    }

    pub(in crate::compute) fn changed(&self, user: UserId) {
        // Nobody may be watching.
        let _ = self.0.changes.send(user);
    }

    fn random_id(&self) -> ContainerId {
        ContainerId::random(&mut *self.0.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A live container of `owner`, locked until the transaction ends.
    async fn lock(
        &self,
        transaction: &mut Transaction,
        owner: UserId,
        id: ContainerId,
    ) -> Result<Container, ComputeError> {
        let found = store::containers::lock(transaction, id).await?;
        found.filter(|it| it.owner == owner && it.deleted_at.is_none()).ok_or(NO_CONTAINER)
    }

    /// Writes a change of a container and commits it.
    async fn commit(&self, mut transaction: Transaction, container: &Container) -> Result<(), ComputeError> {
        store::containers::save(&mut *transaction, container).await?;
        self.database().commit(transaction).await?;
        self.changed(container.owner);
        Ok(())
    }
}

const NO_CONTAINER: ComputeError = ComputeError::NotFound("container");

/// What the platform says, if it does in time.
async fn in_time<T>(call: impl Future<Output = Result<T, PlatformError>>) -> Result<T, ComputeError> {
    let answer = tokio::time::timeout(PLATFORM_TIMEOUT, call).await;
    Ok(answer.map_err(|_| ComputeError::PlatformTimeout)??)
}
