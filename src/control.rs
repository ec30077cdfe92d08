//! `edd control`: one control service, alone, beside others on PostgreSQL and NATS.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use edd_control::compute::config::SshPort;
use edd_control::request::TrustedProxies;
use edd_gateway::health::Reporter;
use prometheus::Registry;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api_listener::ApiListener;
use crate::auth::{AuthArgs, AuthRole};
use crate::cli::{ControlArgs, ControlCommand, OwnerArgs};
use crate::compute::{ComputeArgs, ComputeRole, Surroundings};
use crate::databases::ServiceName;
use crate::exit::{Code, Failure, Outcome};
use crate::follower::Place;
use crate::plane::Plane;
use crate::service_admin::{self, ServiceAdmin};
use crate::settings::{PortsArgs, worker_threads};
use crate::sfs::{SfsArgs, SfsRole};
use crate::{gateway, logging};

/// Where SSH is expected.
const SSH_PORT: u16 = 22;

pub fn run(command: ControlCommand) -> Outcome {
    match command {
        ControlCommand::Auth { auth, control } => start(&control, async || auth_alone(&auth, &control).await),
        ControlCommand::Sfs { sfs, owner, control } => {
            start(&control, async || sfs_alone(&sfs, &owner, &control).await)
        }
        ControlCommand::Compute { compute, ports, owner, control } => {
            start(&control, async || compute_alone(&compute, &ports, &owner, &control).await)
        }
    }
}

fn start(args: &ControlArgs, role: impl AsyncFnOnce() -> Outcome) -> Outcome {
    logging::start(args.log.as_deref());
    gateway::runtime(worker_threads(args.worker_threads))?.block_on(role())
}

/// What a service listens on.
#[derive(Serialize)]
struct Addresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<SocketAddr>,
    admin: SocketAddr,
}

async fn plane(args: &ControlArgs, role: &str) -> Result<Plane, Failure> {
    gateway::make_dir(&args.data_dir)?;
    let Some(bus) = args.plane.jetstream(role).await? else {
        return Err(Failure::config(format!(
            "NATS_URL is not set, and {role} alone has nobody to tell its events\n\
             hint: set NATS_URL=nats://host:4222, or run `edd up`, which needs no broker"
        )));
    };
    args.plane.plane(bus)
}

async fn auth_alone(auth: &AuthArgs, args: &ControlArgs) -> Outcome {
    let (plane, registry) = (plane(args, "auth").await?, Registry::new());
    let location = args.databases.only(ServiceName::Auth, &args.data_dir)?;
    let role = AuthRole::start(auth, &args.base_domain, &plane, &location, &registry).await?;
    role.log_first_password();
    let serve = |listener, trusted, stop| role.serve(listener, trusted, stop, args.drain_seconds);
    serve_api(args, registry, role.report.clone(), serve).await?;
    role.running.stop().await;
    Ok(Code::Ok)
}

async fn sfs_alone(sfs: &SfsArgs, owner: &OwnerArgs, args: &ControlArgs) -> Outcome {
    let (plane, registry) = (plane(args, "sfs").await?, Registry::new());
    let (auth, location) = (owner.auth(&plane)?, args.databases.only(ServiceName::Sfs, &args.data_dir)?);
    let keys_dir = Some(args.data_dir.as_path());
    let place = Place { plane: &plane, location: &location, auth: &auth, registry: &registry, keys_dir };
    let role = SfsRole::start(sfs, place, &args.data_dir, &args.base_domain).await?;
    let serve = |listener, trusted, stop| role.serve(listener, trusted, stop, args.drain_seconds);
    serve_api(args, registry, role.report.clone(), serve).await?;
    role.running.stop().await;
    Ok(Code::Ok)
}

async fn compute_alone(compute: &ComputeArgs, ports: &PortsArgs, owner: &OwnerArgs, args: &ControlArgs) -> Outcome {
    let (plane, registry) = (plane(args, "compute").await?, Registry::new());
    let (auth, location) = (owner.auth(&plane)?, args.databases.only(ServiceName::Compute, &args.data_dir)?);
    let keys_dir = Some(args.data_dir.as_path());
    let place = Place { plane: &plane, location: &location, auth: &auth, registry: &registry, keys_dir };
    let around = Surroundings {
        domain: &args.base_domain,
        ports: ports.dynamic_ports.bounds(),
        user_authorities: None,
        ssh_port: SshPort::new(SSH_PORT),
    };
    let role = ComputeRole::start(compute, place, &args.data_dir, around).await?;
    let serve = |listener, trusted, stop| role.serve(listener, trusted, stop, args.drain_seconds);
    serve_api(args, registry, role.report.clone(), serve).await?;
    role.stop().await;
    Ok(Code::Ok)
}

/// Serves a service's API until the process is told to stop, and then what has begun: it may still write events.
async fn serve_api(
    args: &ControlArgs,
    registry: Registry,
    report: Arc<dyn Reporter>,
    serve: impl FnOnce(ApiListener, TrustedProxies, CancellationToken) -> JoinHandle<()>,
) -> Result<(), Failure> {
    let listener = bind("EDD_API_LISTEN", args.api_listen).await?;
    let (api, stop) = (Some(listener.address), CancellationToken::new());
    let serving = serve(listener, TrustedProxies::new(args.trusted_proxies.0.clone()), stop.clone());
    wait(args, api, registry, report, &stop).await?;
    if serving.await.is_err() {
        tracing::error!("the API ended badly");
    }
    Ok(())
}

async fn bind(what: &str, address: SocketAddr) -> Result<ApiListener, Failure> {
    let failed = |error| Failure::new(Code::Failure, format!("cannot listen on {address} ({what}): {error}"));
    ApiListener::bind(address).await.map_err(failed)
}

/// Says what is listened on, and waits to be told to stop; `stop` is cancelled then.
async fn wait(
    args: &ControlArgs,
    api: Option<SocketAddr>,
    registry: Registry,
    report: Arc<dyn Reporter>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let signalled = gateway::stop_signal()?;
    let admin = ServiceAdmin { registry, reporters: Arc::new([report]), draining: stop.clone() };
    let address = args.admin_listen;
    let failed = |error| Failure::new(Code::Failure, format!("cannot listen on {address} (EDD_ADMIN_LISTEN): {error}"));
    let admin = service_admin::start(address, admin, stop.clone()).await.map_err(failed)?;
    let addresses = Addresses { api, admin };
    if args.json {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &addresses)?;
        writeln!(out)?;
        out.flush()?;
    } else {
        println!("edd control {} is ready", env!("CARGO_PKG_VERSION"));
        if let Some(api) = addresses.api {
            println!("  api    {api}");
        }
        println!("  admin  {}", addresses.admin);
    }
    gateway::notify_systemd();
    signalled.await;
    tracing::info!("stopping");
    stop.cancel();
    Ok(())
}
