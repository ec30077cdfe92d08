//! What the file share does, without HTTP: one file per noun.
//!
//! Every change is one transaction with its events in it. Bytes are written before it begins and removed after it ended.

mod access;
mod deletion;
mod departures;
mod folders;
mod garbage;
mod happening;
mod incoming;
mod listing;
mod namespaces;
mod opened;
mod ownership;
mod pieces;
mod place;
mod repair;
mod reserve;
mod room;
mod shares;
mod trees;
mod uploads;

use std::sync::{Arc, Mutex, PoisonError};

use edd_events::clock::{Clock, Micros, micros};
use edd_events::database::{Database, Transaction};
use edd_events::publisher::Publisher;
use rand::rngs::StdRng;

use crate::sfs::config::SfsConfig;
use crate::sfs::error::SfsError;
use crate::sfs::storage::{BlobId, BlobStore};

pub use deletion::Deletion;
pub use departures::Departures;
pub use incoming::Incoming;
pub use listing::{Listing, MAX_LISTED, Usage};
pub use namespaces::{Listed, NamespaceChange, NewNamespace};
pub use opened::Opened;
pub use ownership::Which;
pub(in crate::sfs) use place::Placed;
pub(in crate::sfs) use room::Admitted;
pub use shares::{Open, ShareError, Shares};
pub use trees::{Place, To};
pub use uploads::{Addition, Keep, UploadError};

/// The service; clones share everything.
#[derive(Clone, Debug)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: SfsConfig,
    foundation: Foundation,
    random: Mutex<StdRng>,
    reserve: tokio::sync::Mutex<reserve::Reserve>,
}

/// What the service stands on.
#[derive(Clone, Debug)]
pub struct Foundation {
    /// Opened with [`STEPS`](crate::sfs::STEPS).
    pub database: Database,
    /// Of the source `sfs-service`.
    pub publisher: Publisher,
    pub clock: Arc<dyn Clock>,
    pub store: BlobStore,
}

impl Service {
    pub fn new(config: SfsConfig, foundation: Foundation) -> Self {
        Self(Arc::new(Inner { config, foundation, random: Mutex::new(rand::make_rng()), reserve: Default::default() }))
    }

    pub fn config(&self) -> &SfsConfig {
        &self.0.config
    }

    pub(in crate::sfs) fn database(&self) -> &Database {
        &self.0.foundation.database
    }

    pub(in crate::sfs) fn publisher(&self) -> &Publisher {
        &self.0.foundation.publisher
    }

    /// Where the bytes are.
    pub(in crate::sfs) fn store(&self) -> &BlobStore {
        &self.0.foundation.store
    }

    pub(in crate::sfs) fn now(&self) -> Micros {
        self.0.foundation.clock.now()
    }

    pub(in crate::sfs) fn random_blob(&self) -> BlobId {
        BlobId::random(&mut *self.0.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When a blob is garbage whose writer says nothing from now on.
    pub(in crate::sfs) fn write_lease(&self) -> Micros {
        self.now().saturating_add(micros(self.config().leases.write))
    }

    /// When a blob is garbage that no file has from now on.
    pub(in crate::sfs) fn read_lease(&self) -> Micros {
        self.now().saturating_add(micros(self.config().leases.read))
    }

    pub(in crate::sfs) async fn begin_change(&self) -> Result<Transaction, SfsError> {
        Ok(self.database().begin().await?)
    }

    pub(in crate::sfs) async fn commit(&self, transaction: Transaction) -> Result<(), SfsError> {
        Ok(self.database().commit(transaction).await?)
    }
}

const NO_NAMESPACE: SfsError = SfsError::NotFound("namespace");
const NO_FILE: SfsError = SfsError::NotFound("file or folder");
