//! `edd gateway`: run a gateway until a signal or a successor ends it.

use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use edd_events::database::Database;
use edd_gateway::gateway::{Addresses, Gateway, StartError, Stop};
use edd_gateway::health::Health;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::builtin;
use crate::cli::{GatewayRunArgs, RunArgs};
use crate::databases::ServiceName;
use crate::exit::{Code, Failure, Outcome};
use crate::fleet::{Compute, Fleet};
use crate::follower::{self, Place};
use crate::serving::Serving;
use crate::settings::Parts;
use crate::ssh::Entry;
use crate::{logging, settings};

/// How long the start waits for a database that may refuse its URL.
const DATABASE_GRACE: Duration = Duration::from_secs(1);
/// Pause before a database that is away is tried again.
const DATABASE_PAUSE: Duration = Duration::from_secs(5);

pub fn run(args: GatewayRunArgs) -> Outcome {
    logging::start(args.run.log.as_deref());
    runtime(args.run.gateway.worker_threads())?.block_on(alone(args))
}

/// The gateway, and with NATS its copy of the users.
async fn alone(GatewayRunArgs { run, owner, sfs_service_url, compute_service_url }: GatewayRunArgs) -> Outcome {
    let mut parts = Parts::new()?;
    if let Some(url) = &owner.auth_service_url {
        parts.routes.extend(builtin::auth(&run.gateway.base_domain, url)?);
    }
    if let Some(url) = &sfs_service_url {
        parts.routes.extend(builtin::storage(&run.gateway.base_domain, url)?);
    }
    if let Some(url) = &compute_service_url {
        parts.routes.extend(builtin::compute(&run.gateway.base_domain, url)?);
    }
    let Some(bus) = run.plane.jetstream("gateway").await? else {
        return serve(run, settings::PUBLIC, parts, announce).await;
    };
    make_dir(run.gateway.data_dir())?;
    let plane = run.plane.plane(bus)?;
    let location = run.databases.only(ServiceName::Gateway, run.gateway.data_dir())?;
    let auth = owner.auth(&plane)?;
    let compute = Compute::remote(compute_service_url.as_ref(), plane.service_key.as_ref())?;
    let fleet = Fleet::new(&run.gateway, &mut parts, (&plane, &location), &compute)?;
    let keys = run.gateway.ssh.keys(run.gateway.data_dir()).await?;
    let (programs, clock) = (compute.programs.clone(), plane.clock.clone());
    parts.ssh = parts.containers.clone().map(|containers| Entry { keys, containers, programs, clock });
    let (health, registry, stop) = (parts.health.clone(), parts.registry.clone(), CancellationToken::new());
    let place = Place { plane: &plane, location: &location, auth: &auth, registry: &registry, keys_dir: None };
    let database = fleet.database();
    let mut following = pin!(follow(place, &compute, &health, database.clone(), stop.clone()));
    // Long enough to be told of a mistake; routes do not wait for a database.
    let mut found = database.subscribe();
    tokio::select! {
        ended = &mut following => ended?,
        _ = found.wait_for(Option::is_some) => {}
        () = tokio::time::sleep(DATABASE_GRACE) => {}
    }
    let fleet = fleet.start().await;
    let mut serving = pin!(serve(run, settings::PUBLIC, parts, announce));
    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        ended = &mut following => {
            if let Err(failure) = ended {
                tracing::error!(%failure, "users and containers are not followed; routes are served");
            }
            let outcome = serving.await;
            fleet.stop().await;
            return outcome;
        }
    };
    // Before the database goes: it is told what was served.
    fleet.stop().await;
    stop.cancel();
    following.await?;
    outcome
}

/// Follows users and compute from when the database is there, which it tells, until `stop`.
///
/// # Errors
/// The settings are wrong.
async fn follow(
    place: Place<'_>,
    compute: &Compute,
    health: &Health,
    told: watch::Sender<Option<Database>>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let follower = loop {
        match follower::GATEWAY.start_with_compute(place.clone(), compute.owners.as_ref()).await {
            Ok(started) => break started,
            Err(failure) if failure.code != Code::Unavailable => return Err(failure),
            Err(failure) => tracing::warn!(%failure, "users and containers are not followed yet; routes are served"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(DATABASE_PAUSE) => {}
        }
    };
    health.add(follower.report.clone());
    told.send_replace(Some(follower.database.clone()));
    stop.cancelled().await;
    follower.running.stop().await;
    Ok(())
}

/// Makes the data directory.
pub fn make_dir(dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir)
        .map_err(|error| Failure::config(format!("cannot make the data directory {}: {error}", dir.display())))
}

/// The runtime that everything long-running shares.
pub fn runtime(worker_threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    raise_file_limit();
    // rustls takes its provider from here wherever none is named.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return Err(Failure::new(Code::Failure, "another crypto provider is installed"));
    }
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(worker_threads).enable_all().build()?)
}

/// Runs a gateway with `args` to its end. `announce` says what it listens on.
pub async fn serve(args: RunArgs, bind: IpAddr, parts: Parts, announce: impl FnOnce(&Addresses)) -> Outcome {
    let json = args.json;
    make_dir(args.gateway.data_dir())?;
    let serving = parts.serving.clone();
    let config = args.gateway.into_config(bind, parts, args.takeover)?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stop = stop_signal()?;
    let gateway = Gateway::start(config).await.map_err(explain)?;
    serving.send_replace(Some(Serving::of(&gateway)));
    if json {
        print_json(&gateway.addresses)?;
    } else {
        announce(&gateway.addresses);
    }
    notify_systemd();
    let reloader = gateway.reloader();
    let reloads = async move {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: reading the routes again");
            reloader.reload();
        }
    };
    let reloads = tokio::spawn(reloads);
    gateway.run(stop).await;
    reloads.abort();
    Ok(Code::Ok)
}

/// Resolves when the process is asked to stop; a second time ends it at once. Signals are caught from this call on.
pub fn stop_signal() -> std::io::Result<impl Future<Output = Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let stop = tokio::select! {
            _ = terminate.recv() => Stop::Graceful,
            _ = interrupt.recv() => Stop::Now,
        };
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("a second signal: stopping at once");
            abandon();
        });
        stop
    })
}

#[allow(clippy::exit, reason = "whoever signals twice does not want to wait for the drain")]
fn abandon() {
    std::process::exit(1);
}

fn explain(error: StartError) -> Failure {
    let hint = match &error {
        StartError::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            "\nhint: something else listens there; stop it, choose another address (port 0 takes a free one), \
             or take a running gateway's place with --takeover"
        }
        StartError::Bind { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "\nhint: ports below 1024 need CAP_NET_BIND_SERVICE; the defaults 8080, 8443 and 2222 need nothing"
        }
        StartError::Routes(edd_gateway::sources::LoadError::Io { .. }) => {
            "\nhint: name the file with --routes or ROUTES_FILE; `edd up` brings an example"
        }
        _ => "",
    };
    let message = format!("{error}{hint}");
    match &error {
        StartError::Takeover(_) => Failure::unavailable(message),
        error if error.is_configuration() => Failure::config(message),
        _ => Failure::new(Code::Failure, message),
    }
}

fn print_json(addresses: &Addresses) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, addresses)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn announce(addresses: &Addresses) {
    println!("edd gateway {} is ready", env!("CARGO_PKG_VERSION"));
    println!("  http   {}", addresses.http);
    println!("  https  {}", addresses.https);
    if let Some(ssh) = addresses.ssh {
        println!("  ssh    {ssh}");
    }
    println!("  admin  {}", addresses.admin);
}

/// Tells systemd that the process is ready.
pub fn notify_systemd() {
    // Without systemd there is nobody to notify, and with it a failure shows as a start that times out.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!(%error, "systemd could not be told that the gateway is ready");
    }
}

/// A proxied connection takes two descriptors; the usual soft limit of 1024 is for programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}
