//! The auth service as a part of this process: its settings, its start, its API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::{Args, ValueEnum};
use edd_control::auth::config::{AuthConfig, FirstAdmin, Registration};
use edd_control::auth::service::FirstPassword;
use edd_control::auth::{Auth, SOURCE, store};
use edd_control::cors::{self, Dashboard};
use edd_control::request::{self, TrustedProxies};
use edd_control::service_key::ServiceKey;
use edd_events::publisher::Publisher;
use edd_events::service::{Running, Service};
use edd_gateway::route::HostName;
use edd_proto::Stream;
use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_listener::ApiListener;
use crate::databases::{Location, ServiceName};
use crate::exit::{Code, Failure};
use crate::plane::Plane;
use crate::report::Report;
use crate::secret::{self, Secret};

/// Whether strangers may make accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RegistrationSetting {
    Open,
    Closed,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Users")]
pub struct AuthArgs {
    /// Name of the first administrator, made at the first start.
    #[arg(long, value_name = "NAME", env = "ADMIN_USERNAME", default_value = "admin")]
    admin_username: String,
    #[arg(long, value_name = "PASSWORD", env = "EDD_ADMIN_PASSWORD", hide_env_values = true, hide = true)]
    admin_password: Option<Secret>,
    /// File with the first administrator's password [default: a random one, which is shown once].
    #[arg(long, value_name = "FILE", env = "EDD_ADMIN_PASSWORD_FILE")]
    admin_password_file: Option<PathBuf>,
    /// Who may make an account: everybody, or administrators for others.
    #[arg(long, value_name = "WHO", env = "EDD_REGISTRATION", default_value = "open")]
    registration: RegistrationSetting,
}

impl AuthArgs {
    fn config(&self, domain: &HostName, service_key: Option<&Secret>) -> Result<AuthConfig, Failure> {
        let invalid = |name: &str, error: &dyn std::fmt::Display| Failure::config(format!("{name}: {error}"));
        let username = self.admin_username.parse().map_err(|error| invalid("ADMIN_USERNAME", &error))?;
        let password =
            secret::resolve("EDD_ADMIN_PASSWORD", self.admin_password.clone(), self.admin_password_file.clone())?;
        let password = password.map(|password| password.reveal().parse()).transpose();
        Ok(AuthConfig {
            registration: match self.registration {
                RegistrationSetting::Open => Registration::Open,
                RegistrationSetting::Closed => Registration::Closed,
            },
            dashboard_host: domain.as_str().to_owned(),
            service_key: service_key.map(|key| ServiceKey::new(key.reveal())),
            first_admin: FirstAdmin {
                username,
                password: password.map_err(|error| invalid("EDD_ADMIN_PASSWORD", &error))?,
            },
            ..AuthConfig::default()
        })
    }
}

/// The service, running.
#[derive(Debug)]
pub struct AuthRole {
    pub auth: Auth,
    /// Shown once, if it was made up here.
    pub first_password: Option<FirstPassword>,
    pub running: Running,
    pub report: Arc<Report>,
    dashboard: HostName,
}

impl AuthRole {
    /// Opens the database, brings it up to date, and begins to publish what happens there.
    pub async fn start(
        args: &AuthArgs,
        domain: &HostName,
        plane: &Plane,
        location: &Location,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let database = location.open(ServiceName::Auth, &store::STEPS).await?;
        let publisher = Publisher::new(SOURCE, plane.encoding, plane.clock.clone());
        let service = Service {
            name: "auth",
            database: database.clone(),
            bus: plane.bus.clone(),
            clock: plane.clock.clone(),
            publisher: publisher.clone(),
        };
        let config = args.config(domain, plane.service_key.as_ref())?;
        let started = Auth::start(config, database, plane.bus.clone(), plane.clock.clone(), publisher).await;
        let (auth, first_password) = started.map_err(|error| Failure::new(Code::Failure, format!("auth: {error}")))?;
        let mut running = service.start(Vec::new(), &[Stream::AUTH], registry)?;
        running.spawn(|stop| auth.clone().run(stop));
        let report = Arc::new(Report::new("auth", running.watch(), watch::channel(Vec::new()).1));
        Ok(Self { auth, first_password, running, report, dashboard: domain.clone() })
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
        request::tracked(cors::open_to(dashboard, self.auth.router()), trusted)
    }

    /// Says the password that was made up, in the log.
    pub fn log_first_password(&self) {
        if let Some(first) = &self.first_password {
            tracing::warn!(
                username = first.username.as_str(),
                password = first.password,
                "the first administrator was made; this password is shown only now"
            );
        }
    }
}
