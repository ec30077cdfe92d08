//! The auth service: users, their sessions and API tokens, and the keys by which every other service knows them.
//!
//! ```text
//! api, page ─▶ service ─▶ transaction { store + events }
//! ```
//!
//! `model` and `scope` import none of them; SQL is in `store` alone, HTTP in `api` and `page`.

mod api;
pub mod config;
pub mod error;
pub mod model;
pub mod owner;
mod page;
pub mod scope;
pub mod service;
pub mod store;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use edd_events::bus::Bus;
use edd_events::clock::Clock;
use edd_events::database::Database;
use edd_events::publisher::Publisher;
use tokio_util::sync::CancellationToken;

use crate::auth::config::AuthConfig;
use crate::auth::error::AuthError;
use crate::auth::service::{FirstPassword, Foundation, Service};
use crate::entropy::Entropy;

/// What the service calls itself in its events.
pub const SOURCE: &str = "auth-service";
/// How often keys are looked after and old rows removed.
const UPKEEP: Duration = Duration::from_secs(60);
/// Pause before the bus is asked again to let this process answer.
const BUS_PAUSE: Duration = Duration::from_secs(2);

/// The service, ready to be served and run.
#[derive(Clone, Debug)]
pub struct Auth {
    service: Service,
    bus: Arc<dyn Bus>,
}

impl Auth {
    /// Looks after keys and the first administrator, whose password comes back if it was made up here: the caller shows
    /// it once. `database` was opened with [`store::STEPS`], and `publisher` is of [`SOURCE`].
    ///
    /// # Errors
    /// Argon2 does not take its parameters, or the database fails.
    pub async fn start(
        config: AuthConfig,
        database: Database,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        publisher: Publisher,
    ) -> Result<(Self, Option<FirstPassword>), AuthError> {
        let foundation = Foundation { database, publisher, clock, entropy: Entropy::from_system() };
        let service = Service::new(config, foundation)?;
        service.maintain_keys().await?;
        let first_password = service.first_start().await?;
        Ok((Self { service, bus }, first_password))
    }

    /// All routes, to be put behind [`tracked`](crate::request::tracked).
    pub fn router(&self) -> Router {
        api::router(self.service.clone())
    }

    /// The service without HTTP, for those in the same process.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Rotates keys, removes what is over and answers `auth.validate.request`, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(upkeep(self.service.clone(), stop.clone()), answer(self.service, self.bus, stop));
    }
}

async fn upkeep(service: Service, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = service.maintain_keys().await {
            tracing::error!(%error, "signing keys could not be looked after; those that are known stay in use");
        }
        if let Err(error) = service.prune().await {
            tracing::warn!(%error, "sessions and revocations that are over could not be removed");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(UPKEEP) => {}
        }
    }
}

async fn answer(service: Service, bus: Arc<dyn Bus>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = service::respond(service.clone(), bus.clone(), stop.clone()).await {
            tracing::warn!(%error, "nobody answers auth.validate.request for now");
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(BUS_PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests;
