//! The compute service as a part of this process: its settings, its platform, its start, its API.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::{Args, ValueEnum};
use edd_control::compute::config::{ComputeConfig, Quotas, Sleep, SshPort};
use edd_control::compute::platform::docker::DockerPlatform;
use edd_control::compute::platform::local::{Config, Local};
use edd_control::compute::platform::sshd::{HostKeys, Sshd, UserAuthorities};
use edd_control::compute::platform::{Platform, PlatformError};
use edd_control::compute::service::{Answers, Departures, Foundation};
use edd_control::compute::{Compute, STEPS};
use edd_control::cors::{self, Dashboard};
use edd_control::request::{self, TrustedProxies};
use edd_control::service_key::ServiceKey;
use edd_events::database::Database;
use edd_events::service::Running;
use edd_gateway::route::HostName;
use edd_proto::Stream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_listener::ApiListener;
use crate::container_init;
use crate::exit::Failure;
use crate::follower::{Besides, COMPUTE, Follower, Place};
use crate::report::Report;

/// What containers get to end by themselves when this process does.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PlatformSetting {
    /// This very machine, with nothing else installed.
    Local,
    /// A Docker engine, or Podman.
    Docker,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Containers")]
pub struct ComputeArgs {
    /// What runs containers.
    #[arg(long, value_name = "PLATFORM", env = "EDD_PLATFORM", default_value = "local")]
    platform: PlatformSetting,
    /// Socket of the Docker engine, or of Podman, as a path or as unix://PATH.
    #[arg(long, value_name = "SOCKET", env = "DOCKER_HOST", default_value = "unix:///var/run/docker.sock")]
    docker_host: String,
    /// The image of who names none, on a Docker engine.
    #[arg(long, value_name = "IMAGE", env = "EDD_DOCKER_IMAGE", default_value = "docker.io/library/nginx:alpine")]
    docker_image: String,
    /// Containers that one user may have.
    #[arg(long, value_name = "N", env = "EDD_MAX_CONTAINERS", default_value_t = Quotas::default().containers)]
    max_containers: u32,
    /// SSH keys that one user may have.
    #[arg(long, value_name = "N", env = "EDD_MAX_SSH_KEYS", default_value_t = Quotas::default().ssh_keys)]
    max_ssh_keys: u32,
    /// How long nobody uses a container until it sleeps, unless its owner says otherwise; 0: it never does.
    #[arg(long, value_name = "SECONDS", env = "EDD_IDLE_SECONDS", default_value_t = Sleep::default().idle_timeout.as_secs())]
    idle_seconds: u64,
    /// How long a container sleeps with its memory kept, until it is stopped to free that.
    #[arg(long, value_name = "SECONDS", env = "EDD_SLEEP_SECONDS", default_value_t = Sleep::default().stop_after.as_secs())]
    sleep_seconds: u64,
    /// Public keys of the gateways' user CA, as in their user_ca.pub; two lines while one takes the place of the other.
    /// Containers let in whom it vouches for. Without it nobody logs in to their SSH servers, and gateways run sessions
    /// by this service instead [default: none; `edd up`: its own].
    #[arg(long, value_name = "FILE", env = "EDD_SSH_USER_CA_FILE")]
    ssh_user_ca_file: Option<PathBuf>,
    /// Port at which SSH clients reach the gateway, as tenants are told [default: 22; `edd up`: that of its listener].
    #[arg(long, value_name = "PORT", env = "EDD_SSH_PUBLIC_PORT")]
    ssh_public_port: Option<u16>,
}

/// What the gateway beside the service has to do with it.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    pub domain: &'a HostName,
    /// What tenants may ask for.
    pub ports: RangeInclusive<u16>,
    /// Whom containers let in, where no file says it.
    pub user_authorities: Option<UserAuthorities>,
    /// Where SSH is, where nothing else is said.
    pub ssh_port: SshPort,
}

impl ComputeArgs {
    fn config(&self, place: &Place<'_>, around: &Surroundings<'_>) -> ComputeConfig {
        let defaults = ComputeConfig::default();
        ComputeConfig {
            base_domain: around.domain.as_str().to_owned(),
            ssh_port: self.ssh_public_port.map_or_else(|| around.ssh_port.clone(), SshPort::new),
            ingress_ports: around.ports.clone(),
            service_key: place.plane.service_key.as_ref().map(|key| ServiceKey::new(key.reveal())),
            quotas: Quotas { containers: self.max_containers, ssh_keys: self.max_ssh_keys, ..defaults.quotas },
            sleep: Sleep {
                idle_timeout: Duration::from_secs(self.idle_seconds),
                stop_after: Duration::from_secs(self.sleep_seconds),
                ..defaults.sleep
            },
            ..defaults
        }
    }

    async fn platform(&self, data_dir: &Path, around: &Surroundings<'_>) -> Result<Arc<dyn Platform>, Failure> {
        let away = |error: PlatformError| Failure::unavailable(format!("containers: {error}"));
        let sshd = self.sshd(data_dir, around)?;
        Ok(match self.platform {
            PlatformSetting::Local => {
                let config = Config { sshd, ..Config::new(data_dir, container_init::program()?) };
                Arc::new(Local::start(config).await.map_err(away)?)
            }
            PlatformSetting::Docker => {
                let socket = self.docker_host.strip_prefix("unix://").unwrap_or(&self.docker_host);
                let (image, installation) = (&self.docker_image, around.domain.as_str());
                Arc::new(DockerPlatform::connect(socket, image, installation, sshd).await.map_err(away)?)
            }
        })
    }

    /// How the SSH servers of containers are set up, if it is known whom they let in.
    fn sshd(&self, data_dir: &Path, around: &Surroundings<'_>) -> Result<Option<Sshd>, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::config(format!("EDD_SSH_USER_CA_FILE: {error}"));
        let authorities = match &self.ssh_user_ca_file {
            Some(file) => Some(UserAuthorities::load(file).map_err(|error| wrong(&error))?),
            None => around.user_authorities.clone(),
        };
        let Some(authorities) = authorities else { return Ok(None) };
        let keys = HostKeys::open(data_dir);
        let keys = keys.map_err(|error| Failure::config(format!("the SSH host keys of containers: {error}")))?;
        Ok(Some(Sshd::new(authorities, keys)))
    }
}

/// The service, running.
#[derive(Debug)]
pub struct ComputeRole {
    pub compute: Compute,
    pub running: Running,
    pub report: Arc<Report>,
    pub database: Database,
    platform: Arc<dyn Platform>,
    dashboard: HostName,
}

impl ComputeRole {
    /// Opens the database, brings it up to date, follows the auth service and the gateway, and drives the platform.
    pub async fn start(
        args: &ComputeArgs,
        place: Place<'_>,
        data_dir: &Path,
        around: Surroundings<'_>,
    ) -> Result<Self, Failure> {
        let platform = args.platform(data_dir, &around).await?;
        let config = args.config(&place, &around);
        let (clock, publisher) = (place.plane.clock.clone(), COMPUTE.publisher(place.plane));
        let departures = Arc::new(Departures::new(publisher, clock.clone()));
        let besides = Besides {
            steps: STEPS.to_vec(),
            on_users: vec![(Departures::SUBJECTS, departures)],
            consumers: vec![(COMPUTE.consumer_of(Stream::GATEWAY)?, Arc::new(Answers))],
            copies: Vec::new(),
        };
        let (follower, verifier) = COMPUTE.start_verifying(place, besides).await?;
        let Follower { mut running, report, database, publisher } = follower;
        let foundation = Foundation { database: database.clone(), publisher, clock, platform: platform.clone() };
        let compute = Compute::new(config, foundation, verifier);
        running.spawn(|stop| compute.clone().run(stop));
        Ok(Self { compute, running, report, database, platform, dashboard: around.domain.clone() })
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
        request::tracked(cors::open_to(dashboard, self.compute.router()), trusted)
    }

    /// Ends what this process does, and the containers that live in it.
    pub async fn stop(self) {
        self.running.stop().await;
        self.platform.shutdown(SHUTDOWN_GRACE).await;
    }
}
