//! The file share as a part of this process: its start, its API.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use edd_control::caller::Verifier;
use edd_control::cors::{self, Dashboard};
use edd_control::request::{self, TrustedProxies};
use edd_control::sfs;
use edd_events::service::Running;
use edd_gateway::route::HostName;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_listener::ApiListener;
use crate::exit::Failure;
use crate::follower::{Besides, Follower, Place, SFS};
use crate::report::Report;

/// The service, running.
#[derive(Debug)]
pub struct SfsRole {
    pub running: Running,
    pub report: Arc<Report>,
    verifier: Verifier,
    dashboard: HostName,
}

impl SfsRole {
    /// Opens the database, brings it up to date, and follows the auth service.
    pub async fn start(place: Place<'_>, domain: &HostName) -> Result<Self, Failure> {
        let (Follower { running, report, .. }, verifier) = SFS.start_verifying(place, Besides::default()).await?;
        Ok(Self { running, report, verifier, dashboard: domain.clone() })
    }

    /// Serves the API on `listener` until `stop`; `trusted` are the proxies whose word counts.
    pub fn serve(
        &self,
        listener: ApiListener,
        trusted: TrustedProxies,
        stop: CancellationToken,
        drain: Duration,
    ) -> JoinHandle<()> {
        tokio::spawn(listener.serve(self.router(trusted), stop, drain))
    }

    fn router(&self, trusted: TrustedProxies) -> Router {
        let dashboard = Dashboard::new(self.dashboard.as_str(), []);
        request::tracked(cors::open_to(dashboard, sfs::router(self.verifier.clone())), trusted)
    }
}
