//! `edd up`: the whole edge on one machine, in one process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edd_control::auth::service::FirstPassword;
use edd_control::compute::config::SshPort;
use edd_control::request::TrustedProxies;
use edd_gateway::gateway::Addresses;
use edd_gateway::route::{Authority, HostName, Route, RouteError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_listener::ApiListener;
use crate::auth::{AuthArgs, AuthRole};
use crate::auth_client::AuthClient;
use crate::builtin::{self, ServiceUrl};
use crate::cli::{RunArgs, UpArgs};
use crate::compute::{ComputeArgs, ComputeRole, Surroundings};
use crate::databases::ServiceName;
use crate::exit::{Failure, Outcome};
use crate::fleet::{Compute, Fleet, RunningFleet};
use crate::follower::{self, Follower, Place};
use crate::serving::Serving;
use crate::settings::Parts;
use crate::sfs::{SfsArgs, SfsRole};
use crate::ssh::Entry;
use crate::{demo, gateway, logging, settings, ssh};

/// The names under which the gateway's routes know the services of this process.
const AUTH_TARGET: &str = "edd-auth:80";
const SFS_TARGET: &str = "edd-sfs:80";
const COMPUTE_TARGET: &str = "edd-compute:80";
/// How long requests to a service may take to finish once the gateway, which made them, has drained.
const API_DRAIN: Duration = Duration::from_secs(1);
/// The routes that a newcomer without a file of their own begins with.
const EXAMPLE_ROUTES: &str = include_str!("../routes.yaml");

pub fn run(mut args: UpArgs) -> Outcome {
    logging::start(args.run.log.as_deref());
    if args.run.gateway.routes_file == Path::new("routes.yaml") && !args.run.gateway.routes_file.exists() {
        args.run.gateway.routes_file = write_example(args.run.gateway.data_dir())?;
    }
    gateway::runtime(args.run.gateway.worker_threads())?.block_on(serve(args))
}

async fn serve(args: UpArgs) -> Outcome {
    let bind = if args.public { settings::PUBLIC } else { settings::LOOPBACK };
    let UpArgs { run, auth, compute, sfs, .. } = args;
    let (domain, routes) = (run.gateway.base_domain.clone(), run.gateway.routes_file.clone());
    gateway::make_dir(run.gateway.data_dir())?;
    let mut parts = Parts::new()?;
    parts.targets.insert(name(demo::TARGET)?, demo::start().await?);
    let services = Services::start(&run, (&auth, &compute, &sfs), &mut parts).await?;
    let first_password = if run.json { None } else { services.auth.first_password.clone() };
    if first_password.is_none() {
        services.auth.log_first_password();
    }
    let isolation = services.compute.compute.service().platform().capabilities().isolation;
    let outcome = gateway::serve(run, bind, parts, |addresses| {
        announce(addresses, &domain, &routes, first_password.as_ref(), &isolation);
    });
    let outcome = outcome.await;
    services.stop().await;
    outcome
}

fn name(text: &str) -> Result<Authority, Failure> {
    Authority::parse(text).map_err(Failure::config)
}

/// The control services of this process.
struct Services {
    auth: AuthRole,
    sfs: SfsRole,
    compute: ComputeRole,
    fleet: RunningFleet,
    followers: Vec<Follower>,
    serving: [JoinHandle<()>; 3],
    stop: CancellationToken,
}

impl Services {
    /// Starts them, and gives the gateway their routes, figures and reports.
    async fn start(
        run: &RunArgs,
        (auth, compute, sfs): (&AuthArgs, &ComputeArgs, &SfsArgs),
        parts: &mut Parts,
    ) -> Result<Self, Failure> {
        let (data_dir, domain) = (run.gateway.data_dir(), &run.gateway.base_domain);
        let plane = run.plane.plane(run.plane.bus(data_dir).await?)?;
        let location = run.databases.of(ServiceName::Auth, data_dir)?;
        let auth = AuthRole::start(auth, domain, &plane, &location, &parts.registry).await?;
        parts.health.add(auth.report.clone());
        let client = AuthClient::new(auth.auth.service().clone());
        let at = |service| run.databases.of(service, data_dir);
        let (at_sfs, at_compute) = (at(ServiceName::Sfs)?, at(ServiceName::Compute)?);
        let at_gateway = at(ServiceName::Gateway)?;
        let registry = parts.registry.clone();
        let place = |location| Place { plane: &plane, location, auth: &client, registry: &registry, keys_dir: None };
        let sfs = SfsRole::start(sfs, place(&at_sfs), data_dir, domain).await?;
        let keys = run.gateway.ssh.keys(data_dir).await?;
        let ssh_port = SshPort::new(ssh::PORT);
        tokio::spawn(tell(ssh_port.clone(), parts.serving.subscribe()));
        let around = Surroundings {
            domain,
            ports: run.gateway.ports.dynamic_ports.bounds(),
            user_authorities: Some(ssh::user_authorities(&keys)?),
            ssh_port,
        };
        let compute = ComputeRole::start(compute, place(&at_compute), data_dir, around).await?;
        let compute_side = Compute::in_process(&compute);
        let fleet = Fleet::new(&run.gateway, parts, (&plane, &at_gateway), &compute_side)?;
        let (programs, clock) = (compute_side.programs.clone(), plane.clock.clone());
        parts.ssh = parts.containers.clone().map(|containers| Entry { keys, containers, programs, clock });
        let gateway = follower::GATEWAY.start_with_compute(place(&at_gateway), compute_side.owners.as_ref()).await?;
        fleet.database().send_replace(Some(gateway.database.clone()));
        let (fleet, followers) = (fleet.start().await, vec![gateway]);
        parts.health.add(sfs.report.clone());
        parts.health.add(compute.report.clone());
        followers.iter().for_each(|follower| parts.health.add(follower.report.clone()));
        let stop = CancellationToken::new();
        let auth_api = listen(parts, AUTH_TARGET, |url| builtin::auth(domain, url)).await?;
        let sfs_api = listen(parts, SFS_TARGET, |url| builtin::storage(domain, url)).await?;
        let compute_api = listen(parts, COMPUTE_TARGET, |url| builtin::compute(domain, url)).await?;
        let serving = [
            auth.serve(auth_api, TrustedProxies::loopback(), stop.clone(), API_DRAIN),
            sfs.serve(sfs_api, TrustedProxies::loopback(), stop.clone(), API_DRAIN),
            compute.serve(compute_api, TrustedProxies::loopback(), stop.clone(), API_DRAIN),
        ];
        Ok(Self { auth, sfs, compute, fleet, followers, serving, stop })
    }

    /// Requests first: they may still write events.
    async fn stop(self) {
        self.stop.cancel();
        for serving in self.serving {
            if serving.await.is_err() {
                tracing::error!("the API of a service ended badly");
            }
        }
        self.fleet.stop().await;
        self.auth.running.stop().await;
        self.sfs.running.stop().await;
        self.compute.stop().await;
        for follower in self.followers {
            follower.running.stop().await;
        }
    }
}

/// Tells compute at which port of this process SSH is, once the gateway serves.
async fn tell(port: SshPort, mut serving: watch::Receiver<Option<Serving>>) {
    // Failing means that the process ends before.
    if let Ok(serving) = serving.wait_for(Option::is_some).await
        && let Some(bound) = serving.as_ref().and_then(Serving::ssh_port)
    {
        port.tell(bound);
    }
}

/// A listener for a service of this process, and the gateway's routes to it.
async fn listen(
    parts: &mut Parts,
    target: &str,
    routes: impl FnOnce(&ServiceUrl) -> Result<Vec<Route>, RouteError>,
) -> Result<ApiListener, Failure> {
    let listener = ApiListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    parts.targets.insert(name(target)?, listener.address);
    parts.routes.extend(routes(&ServiceUrl::in_process(name(target)?))?);
    Ok(listener)
}

fn write_example(data_dir: &Path) -> Result<PathBuf, Failure> {
    let path = data_dir.join("routes.yaml");
    if !path.exists() {
        let failed = |error| Failure::config(format!("cannot write {}: {error}", path.display()));
        std::fs::create_dir_all(data_dir).map_err(failed)?;
        std::fs::write(&path, EXAMPLE_ROUTES).map_err(failed)?;
    }
    Ok(path)
}

fn announce(addresses: &Addresses, domain: &HostName, routes: &Path, first: Option<&FirstPassword>, isolation: &str) {
    let (http, https) = (addresses.http.port(), addresses.https.port());
    println!("edd {} is up\n", env!("CARGO_PKG_VERSION"));
    println!("  http://demo.{domain}:{http}/        the demo service, in plain HTTP");
    println!("  https://demo.{domain}:{https}/      the same over HTTPS and HTTP/2");
    println!("  http://{}/readyz?verbose   health; also /metrics and /routes\n", addresses.admin);
    println!("  dashboard   https://{domain}:{https}/");
    if let Some(FirstPassword { username, password }) = first {
        let username = username.as_str();
        println!("              sign in as {username}, password {password} (shown only now)");
    }
    println!("  containers  <id>.compute.{domain}, on the same ports (isolation: {isolation})");
    if let Some(ssh) = addresses.ssh {
        println!("  ssh         ssh -p {} <id>@{}", ssh.port(), ssh.ip());
    }
    println!("  files       storage.{domain}, on the same ports; `edd files` lists, sends and fetches");
    println!("  routes      {} (edit it: changes are live at once)", routes.display());
    println!("  local CA    `edd certs trust` makes browsers on this machine accept its certificates");
    println!("  requests    `edd tap` follows them, `edd routes explain URL` tells which route takes one\n");
    println!("Ctrl-C stops it.");
}
