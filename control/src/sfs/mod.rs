//! The file share: namespaces and files of tenants. Names and rights are in the database, bytes in a [`storage`].
//!
//! ```text
//! api ─▶ service ─▶ storage
//!            └────▶ transaction { store + events } ─▶ keeper ─▶ storage
//! ```
//!
//! A blob has a row before it has bytes; a row that no file has and whose time is over is garbage, and the keeper takes
//! it away. So a crash at any point leaves nothing that is not gone after a while.
//!
//! `model` imports none of them; SQL is in `store` alone, HTTP in `api`.

mod api;
pub mod check;
pub mod config;
mod dav;
pub mod error;
pub mod keeper;
pub mod model;
pub mod service;
pub mod storage;
mod store;

use axum::Router;
use tokio_util::sync::CancellationToken;

use crate::caller::Verifier;
use crate::entropy::Entropy;
use crate::password::PasswordError;
use crate::sfs::config::SfsConfig;
use crate::sfs::keeper::Keeper;
use crate::sfs::service::{Foundation, Service, Shares};

pub use store::STEPS;

/// What the service calls itself in its events.
pub const SOURCE: &str = "sfs-service";

/// The service, ready to be served and run.
#[derive(Clone, Debug)]
pub struct Sfs {
    service: Service,
    shares: Shares,
    verifier: Verifier,
}

impl Sfs {
    /// A service whose callers `verifier` knows.
    ///
    /// # Errors
    /// The configuration asks for an impossible password hash.
    pub fn new(config: SfsConfig, foundation: Foundation, verifier: Verifier) -> Result<Self, PasswordError> {
        let service = Service::new(config, foundation);
        let shares = Shares::new(&service, &service.config().passwords, Entropy::from_system())?;
        Ok(Self { service, shares, verifier })
    }

    /// All routes, to be put behind [`tracked`](crate::request::tracked).
    pub fn router(&self) -> Router {
        api::router(self.service.clone(), self.shares.clone(), self.verifier.clone())
    }

    /// The service without HTTP, for those in the same process.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Keeps the house until `stop`. What is begun then is cut off, and done by the next who runs.
    pub async fn run(self, stop: CancellationToken) {
        Keeper::new(self.service).run(stop).await;
    }
}

#[cfg(test)]
mod tests;
