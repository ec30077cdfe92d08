//! The gateway's containers: what the gateway library needs of the rest of the process to serve them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_control::compute::error::ComputeError;
use edd_control::compute::owner::Table;
use edd_control::compute::service::Service;
use edd_events::compute_cache::{containers, ingress_requests, ssh_keys};
use edd_events::database::Database;
use edd_events::projection::Owner;
use edd_events::publisher::Cause;
use edd_gateway::containers::activity::Reporter;
use edd_gateway::containers::keeper::{Keeper, KeeperError, Nobody};
use edd_gateway::containers::{Config, Containers, Feed, LastKnown, Timing, announce_refreshes};
use edd_gateway::ingress::RuleFeed;
use edd_gateway::live::LedgerReader;
use edd_gateway::ssh::exec::{Nowhere, Programs};
use edd_gateway::table::containers::Zone;
use edd_proto::ContainerId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::builtin::ServiceUrl;
use crate::compute::ComputeRole;
use crate::databases::Location;
use crate::exit::Failure;
use crate::plane::Plane;
use crate::programs;
use crate::remote::RemoteCompute;
use crate::secret::Secret;
use crate::serving::{self, Wishes};
use crate::settings::{GatewayArgs, Parts};

/// Longest wait for the database to tell all of its containers before what was last known serves.
const FIRST_LOAD: Duration = Duration::from_secs(10);

/// Longest wait for what has begun when the gateway stops.
const LONGEST_STOP: Duration = Duration::from_secs(10);

/// Compute, as a gateway sees it: in this process, or over HTTP.
#[derive(Clone, Debug)]
pub struct Compute {
    /// None: what events tell is all there is.
    pub owners: Option<ComputeOwners>,
    pub keeper: Arc<dyn Keeper>,
    /// Who runs programs in containers for who comes by SSH.
    pub programs: Arc<dyn Programs>,
}

impl Compute {
    /// The service of this process.
    pub fn in_process(role: &ComputeRole) -> Self {
        let of = |table: Table| -> Arc<dyn Owner> { Arc::new(table.of(role.database.clone())) };
        let owners = ComputeOwners {
            containers: of(Table::Containers),
            ssh_keys: of(Table::SshKeys),
            ingress_requests: of(Table::IngressRequests),
        };
        let service = role.compute.service();
        let programs = Arc::new(programs::InProcess(service.clone()));
        Self { owners: Some(owners), keeper: Arc::new(InProcess(service.clone())), programs }
    }

    /// The service of another process; nobody who could be asked if it is not said where that is.
    pub fn remote(url: Option<&ServiceUrl>, key: Option<&Secret>) -> Result<Self, Failure> {
        let (Some(url), Some(key)) = (url, key) else {
            return Ok(Self { owners: None, keeper: Arc::new(Nobody), programs: Arc::new(Nowhere) });
        };
        let remote = RemoteCompute::new(&url.to_string(), key.clone())?;
        let of = |shape, path| -> Arc<dyn Owner> { Arc::new(remote.rows(shape, path)) };
        let owners = ComputeOwners {
            containers: of(&containers::SHAPE, "/api/containers"),
            ssh_keys: of(&ssh_keys::SHAPE, "/api/ssh-keys"),
            ingress_requests: of(&ingress_requests::SHAPE, "/api/ingress-requests"),
        };
        Ok(Self { owners: Some(owners), keeper: Arc::new(remote.clone()), programs: Arc::new(remote) })
    }
}

/// The compute service of this process, as the gateway asks it.
#[derive(Debug)]
struct InProcess(Service);

#[async_trait]
impl Keeper for InProcess {
    async fn wake(&self, id: ContainerId) -> Result<(), KeeperError> {
        self.0.wake(id, &Cause::default()).await.map_err(|error| match error {
            ComputeError::NotFound(_) | ComputeError::Conflict(_) => KeeperError::Refused(error.to_string()),
            error => KeeperError::Unavailable(error.to_string()),
        })
    }

    async fn active(&self, ids: &[ContainerId]) -> Result<Vec<ContainerId>, KeeperError> {
        self.0.active(ids).await.map_err(|error| KeeperError::Unavailable(error.to_string()))
    }
}

/// Who owns what the gateway projects of compute.
#[derive(Clone, Debug)]
pub struct ComputeOwners {
    pub containers: Arc<dyn Owner>,
    pub ssh_keys: Arc<dyn Owner>,
    pub ingress_requests: Arc<dyn Owner>,
}

/// The containers of one gateway, before it serves.
#[derive(Debug)]
pub struct Fleet {
    containers: Containers,
    ledger: LedgerReader,
    keeper: Arc<dyn Keeper>,
    plane: Plane,
    database: watch::Sender<Option<Database>>,
    wishes: Wishes,
    has_owner: bool,
    /// Where the last known containers are kept when the database is not on this machine.
    file: Option<LastKnown>,
}

/// The tasks that keep them up.
#[derive(Debug)]
pub struct RunningFleet {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Fleet {
    /// No containers yet; the gateway that is made of `parts` will serve them.
    ///
    /// # Errors
    /// The base domain is too long.
    pub fn new(
        args: &GatewayArgs,
        parts: &mut Parts,
        (plane, location): (&Plane, &Location),
        compute: &Compute,
    ) -> Result<Self, Failure> {
        let config = Config {
            router: parts.router.clone(),
            zone: Zone::of(&args.base_domain).map_err(|error| Failure::config(format!("EDD_BASE_DOMAIN: {error}")))?,
            keeper: compute.keeper.clone(),
            metrics: &parts.metrics,
            registry: &parts.registry,
            clock: plane.clock.clone(),
            drain: args.drain(),
            timing: Timing::default(),
        };
        let (containers, ledger) = Containers::new(config)?;
        parts.health.add(Arc::new(containers.clone()));
        parts.containers = Some(containers.clone());
        let file = match location {
            Location::File(_) => None,
            Location::Url(_) => Some(LastKnown::new(args.data_dir())),
        };
        let (keeper, plane) = (compute.keeper.clone(), plane.clone());
        let (database, has_owner) = (watch::Sender::new(None), compute.owners.is_some());
        let wishes = Wishes {
            serving: parts.serving.subscribe(),
            port_range: args.ports.dynamic_ports.clone(),
            static_routes: parts.static_routes.clone(),
        };
        Ok(Self { containers, ledger, keeper, plane, database, wishes, has_owner, file })
    }

    /// Where to put the database once it is there.
    pub fn database(&self) -> watch::Sender<Option<Database>> {
        self.database.clone()
    }

    /// Publishes what was last known, and keeps it up from then on.
    pub async fn start(self) -> RunningFleet {
        let Self { containers, ledger, keeper, plane, database, wishes, has_owner, file } = self;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let mut feed = Feed::new(containers.clone(), plane.bus.clone(), database.subscribe(), has_owner);
        if tokio::time::timeout(FIRST_LOAD, feed.prepare(file.as_ref())).await.is_err() {
            tracing::warn!("the containers are still being read; those that are known serve meanwhile");
        }
        tasks.spawn(feed.run(stop.clone()));
        if let Some(file) = file {
            tasks.spawn(file.keep(containers.clone(), stop.clone()));
        }
        let reporter = Reporter::new(ledger, containers.clone(), keeper, database.subscribe(), plane.clock.clone());
        tasks.spawn(reporter.run(stop.clone()));
        tasks.spawn(with_database(containers, plane, database.subscribe(), wishes, stop.clone()));
        RunningFleet { tasks, stop }
    }
}

/// What needs the database, from when it is there.
async fn with_database(
    containers: Containers,
    plane: Plane,
    mut database: watch::Receiver<Option<Database>>,
    wishes: Wishes,
    stop: CancellationToken,
) {
    let found = tokio::select! {
        () = stop.cancelled() => return,
        found = database.wait_for(Option::is_some) => found.ok().and_then(|found| found.clone()),
    };
    let Some(database) = found else { return };
    let publisher = crate::follower::GATEWAY.publisher(&plane);
    let who = (database.clone(), publisher.clone(), plane.clock.clone());
    let rules = RuleFeed::new(database.clone());
    let known = rules.rules();
    tokio::join!(
        rules.run(stop.clone()),
        containers.clone().follow_ports(known, stop.clone()),
        serving::run(wishes, who, stop.clone()),
        announce_refreshes(containers.router().clone(), database, publisher, stop),
    );
}

impl RunningFleet {
    /// Ends: what was counted is written, what is known is saved.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LONGEST_STOP, ended).await.is_err() {
            tracing::warn!("what the containers were served with may not have been written down");
        }
    }
}
