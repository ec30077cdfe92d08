//! Containers: what tenants want is in the database, a [`platform`] makes it so.
//!
//! ```text
//! api ─▶ service ─▶ transaction { store + events } ─▶ reconciler ─▶ platform
//! ```
//!
//! `model` imports none of them; SQL is in `store` alone, HTTP in `api`.

mod api;
pub mod config;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod model;
pub mod owner;
pub mod platform;
pub mod reconciler;
pub mod remote_session;
pub mod service;
mod store;

use axum::Router;
use tokio_util::sync::CancellationToken;

use crate::caller::Verifier;
use crate::compute::config::ComputeConfig;
use crate::compute::reconciler::Reconciler;
use crate::compute::service::{Foundation, Service};

pub use store::STEPS;

/// What the service calls itself in its events.
pub const SOURCE: &str = "compute-service";

/// The service, ready to be served and run.
#[derive(Clone, Debug)]
pub struct Compute {
    service: Service,
    verifier: Verifier,
}

impl Compute {
    /// A service whose callers `verifier` knows.
    pub fn new(config: ComputeConfig, foundation: Foundation, verifier: Verifier) -> Self {
        Self { service: Service::new(config, foundation), verifier }
    }

    /// All routes, to be put behind [`tracked`](crate::request::tracked). Some are WebSockets: the connection must let
    /// itself be upgraded.
    pub fn router(&self) -> Router {
        api::router(self.service.clone(), self.verifier.clone())
    }

    /// The service without HTTP, for those in the same process.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Drives the platform towards what is wanted, until `stop`. What is begun then is cut off, and done by the next
    /// who runs.
    pub async fn run(self, stop: CancellationToken) {
        Reconciler::new(self.service).run(stop).await;
    }
}

#[cfg(test)]
mod tests;
