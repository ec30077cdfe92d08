//! The gateway put together: bind, serve, reload, hand over, drain.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::admin::{self, Admin};
use crate::certs::{CertStore, CertsConfig, CertsError};
use crate::containers::Containers;
use crate::drain::Drain;
use crate::health::Health;
use crate::lane::Lane;
use crate::listeners::handover::{self, HandoverError, Role, Sockets, Takeover};
use crate::listeners::{self, Shared};
use crate::metrics::{Listener, Metrics};
use crate::ports::ListenerSet;
use crate::proxy::http1::{HeadLimits, Server};
use crate::proxy::{context::Engine, engine::Proxy};
use crate::publish::{PublishError, Publisher};
use crate::reloader::Reloader;
use crate::route::{Authority, Route};
use crate::router::Router;
use crate::sources::LoadError;
use crate::ssh;
use crate::static_routes::StaticRoutes;
use crate::upstream::Upstreams;

/// Upstream connections kept open for reuse.
const UPSTREAM_POOL_CONNECTIONS: usize = 1024;
/// Tries of one request at its targets, failures of stale connections included.
const MAX_TRIES: usize = 4;
/// Idle connections stay open for this long after a SIGTERM, for requests that are on their way.
const IDLE_GRACE: Duration = Duration::from_millis(500);
/// Longest wait for connections that are cut off, or belong to the admin listener, to be let go of.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the last access lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that a gateway is told from outside.
pub struct Config {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub admin: SocketAddr,
    /// Where SSH is served, and with what; none for no SSH.
    pub ssh: Option<(SocketAddr, ssh::Config)>,
    /// Address of the ports of containers.
    pub dynamic_bind: IpAddr,
    pub routes_file: PathBuf,
    pub data_dir: PathBuf,
    pub certs: CertsConfig,
    pub trusted_proxies: Vec<ipnet::IpNet>,
    pub limits: HeadLimits,
    pub max_connections: usize,
    /// For PROXY header and TLS handshake together.
    pub handshake_timeout: Duration,
    /// Longest drain after a shutdown, a takeover, or the removal of a route.
    pub drain_timeout: Duration,
    /// How long to go on as before after a shutdown was asked for, readiness aside.
    pub shutdown_delay: Duration,
    pub access_log: AccessLog,
    /// Target names that this process answers itself.
    pub builtin_targets: HashMap<Authority, SocketAddr>,
    /// Routes that are there without the file, which wins over them.
    pub builtin_routes: Vec<Route>,
    pub metrics: Arc<Metrics>,
    /// Where routes are published.
    pub router: Router,
    /// The containers that are published there, if there are any.
    pub containers: Option<Containers>,
    /// Routes by API, once there is a database to keep them.
    pub static_routes: watch::Receiver<Option<StaticRoutes>>,
    /// What other parts of the process report on.
    pub health: Health,
    /// Take the sockets of the gateway that serves `data_dir` over.
    pub takeover: bool,
    pub worker_threads: usize,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Routes(#[from] LoadError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Certs(#[from] CertsError),
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind { what: &'static str, address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Takeover(#[from] HandoverError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl StartError {
    /// Whether the operator's settings are at fault, rather than the machine.
    pub fn is_configuration(&self) -> bool {
        matches!(self, Self::Routes(_) | Self::Publish(_) | Self::Certs(_))
    }
}

/// What a gateway listens on.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Addresses {
    pub http: SocketAddr,
    pub https: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh: Option<SocketAddr>,
    pub admin: SocketAddr,
}

impl Addresses {
    /// The ports that are the gateway's own.
    pub fn ports(&self) -> BTreeSet<u16> {
        [self.http, self.https, self.admin].into_iter().chain(self.ssh).map(|address| address.port()).collect()
    }
}

/// Why a running gateway should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: readiness goes first.
    Graceful,
    /// Ctrl-C: a person is waiting.
    Now,
}

/// A gateway that serves.
pub struct Gateway {
    pub addresses: Addresses,
    reloader: Arc<Reloader>,
    health: Health,
    drain: Drain,
    ports: ListenerSet,
    publisher: Publisher,
    accepting: CancellationToken,
    /// The tasks that accept.
    listening: JoinSet<()>,
    admin: JoinHandle<()>,
    background: CancellationToken,
    successor: oneshot::Receiver<()>,
    drain_timeout: Duration,
    shutdown_delay: Duration,
    access_log: AccessLog,
}

impl Gateway {
    /// Binds, loads the routes and serves.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let metrics = config.metrics;
        let certs = CertStore::open(config.certs)?;
        let access_log = config.access_log;
        let upstreams = Upstreams::new(config.builtin_targets, Arc::clone(&metrics));
        let health = config.health;
        let router = config.router;
        let (drain_time, counts) = (config.drain_timeout, Arc::clone(&metrics));
        let publisher =
            Publisher::new(config.builtin_routes, router.clone(), upstreams.clone(), counts, certs.clone(), drain_time);
        let reloader = Reloader::new(config.routes_file, publisher.clone(), health.clone(), Arc::clone(&metrics));
        let reloader = Arc::new(reloader);
        let text = reloader.first_load().await?;

        let socket_path = handover::socket_path(&config.data_dir);
        let (takeover, inherited) = match config.takeover {
            false => (None, Vec::new()),
            true => {
                let path = socket_path.clone();
                let taken = tokio::task::spawn_blocking(move || handover::take(&path)).await;
                let (takeover, sockets) = taken.map_err(io::Error::other)??;
                (Some(takeover), sockets)
            }
        };
        let mut sockets = Inherited(inherited);
        let http = sockets.listen(Role::Http, config.http)?;
        let https = sockets.listen(Role::Https, config.https)?;
        let admin_listener = sockets.listen(Role::Admin, config.admin)?;
        let ssh_sessions = config.ssh.as_ref().and_then(|(_, ssh)| ssh.sessions.clone());
        let ssh = match config.ssh {
            Some((address, ssh)) => Some((sockets.listen(Role::Ssh, address)?, Arc::new(ssh::Service::new(ssh)))),
            None => None,
        };
        let addresses = Addresses {
            http: http.local_addr()?,
            https: https.local_addr()?,
            ssh: ssh.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?,
            admin: admin_listener.local_addr()?,
        };
        let own = [(Role::Http, &http), (Role::Https, &https), (Role::Admin, &admin_listener)];
        let own = own.into_iter().chain(ssh.as_ref().map(|(listener, _)| (Role::Ssh, listener)));
        let own: Vec<(Role, OwnedFd)> =
            own.map(|(role, it)| Ok((role, listeners::duplicate(it)?))).collect::<io::Result<_>>()?;
        let inherited_ports = sockets.rest(Role::Dynamic);

        let drain = Drain::default();
        let engine = Arc::new(Engine {
            router: router.clone(),
            upstreams: upstreams.clone(),
            metrics: Arc::clone(&metrics),
            unmatched: metrics.route("unmatched"),
            access_log: access_log.clone(),
            drain: drain.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            https_port: addresses.https.port(),
            wakes: config.containers.as_ref().map(|containers| containers.wakes().clone()),
        });
        let engine_config = ServerConf {
            upstream_keepalive_pool_size: UPSTREAM_POOL_CONNECTIONS,
            max_retries: MAX_TRIES,
            threads: config.worker_threads,
            ..ServerConf::default()
        };
        let lane = Lane::default();
        let server = Arc::new(Server {
            proxy: Arc::new(http_proxy(&Arc::new(engine_config), Proxy(Arc::clone(&engine)))),
            engine,
            lane: lane.clone(),
            limits: config.limits,
            shutdown: drain.engine_signal(),
        });
        let shared = Arc::new(Shared {
            server,
            certs: certs.clone(),
            drain: drain.clone(),
            metrics: Arc::clone(&metrics),
            trusted_proxies: config.trusted_proxies,
            max_connections: config.max_connections,
            handshake_timeout: config.handshake_timeout,
        });
        let (accepting, background) = (CancellationToken::new(), CancellationToken::new());
        let mut listening = JoinSet::new();
        listening.spawn(listeners::accept(http, Listener::Http, Arc::clone(&shared), accepting.clone()));
        listening.spawn(listeners::accept(https, Listener::Https, Arc::clone(&shared), accepting.clone()));
        if let Some((listener, service)) = ssh {
            listening.spawn(ssh::listener::accept(listener, service, Arc::clone(&shared), accepting.clone()));
        }
        let ports =
            ListenerSet::new(config.dynamic_bind, shared, router.clone(), config.drain_timeout, inherited_ports);
        listening.spawn(ports.clone().run(accepting.clone()));
        let admin = Admin {
            router,
            metrics,
            health: health.clone(),
            certs: certs.clone(),
            ports: ports.clone(),
            static_routes: config.static_routes,
            ssh_sessions,
            access_log: access_log.clone(),
        };
        // What asks how the gateway is means the process that accepts.
        let admin = tokio::spawn(admin::serve(admin_listener, admin, accepting.clone()));
        tokio::spawn(background.clone().run_until_cancelled_owned(upstreams.run()));
        tokio::spawn(background.clone().run_until_cancelled_owned(lane.sweep()));
        if let Some(containers) = config.containers {
            tokio::spawn(background.clone().run_until_cancelled_owned(containers.resolve()));
        }
        tokio::spawn(certs.watch(drain.engine_signal()));
        let watching = Arc::clone(&reloader).watch(text);
        tokio::spawn(background.clone().run_until_cancelled_owned(watching));
        let passed = {
            let ports = ports.clone();
            move || passed_on(&own, &ports)
        };
        let successor = await_successor(socket_path, passed, takeover).await?;
        Ok(Self {
            addresses,
            reloader,
            health,
            drain,
            ports,
            publisher,
            accepting,
            listening,
            admin,
            background,
            successor,
            drain_timeout: config.drain_timeout,
            shutdown_delay: config.shutdown_delay,
            access_log,
        })
    }

    /// A handle that reads the routes again when asked, as after SIGHUP.
    pub fn reloader(&self) -> Arc<Reloader> {
        Arc::clone(&self.reloader)
    }

    /// Who publishes routes.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// The ports of containers.
    pub fn ports(&self) -> &ListenerSet {
        &self.ports
    }

    /// Serves until `stop` resolves or a successor has taken over, then drains.
    pub async fn run(mut self, stop: impl Future<Output = Stop>) {
        let stop = tokio::select! {
            stop = stop => Some(stop),
            Ok(()) = &mut self.successor => None,
        };
        let deadline = match stop {
            Some(Stop::Now) => {
                tracing::info!("stopping");
                self.health.drain();
                self.drain.start();
                self.drain.close_idle();
                tokio::time::Instant::now() + self.drain_timeout
            }
            Some(Stop::Graceful) => {
                tracing::info!(connections = self.drain.open(), "draining");
                self.health.drain();
                tokio::time::sleep(self.shutdown_delay).await;
                let deadline = tokio::time::Instant::now() + self.drain_timeout;
                self.drain.start();
                let grace = IDLE_GRACE.min(self.drain_timeout);
                let _ = tokio::time::timeout(grace, self.drain.finished()).await;
                self.drain.close_idle();
                deadline
            }
            None => {
                self.stop_accepting().await;
                tracing::info!(connections = self.drain.open(), "a successor serves; draining");
                let deadline = tokio::time::Instant::now() + self.drain_timeout;
                self.drain.start();
                // Clients that keep connections open get to send one more request on each.
                let grace = self.drain_timeout.saturating_sub(IDLE_GRACE);
                let _ = tokio::time::timeout(grace, self.drain.finished()).await;
                self.drain.close_idle();
                deadline
            }
        };
        let finished = tokio::time::timeout_at(deadline, self.drain.finished()).await;
        self.stop_accepting().await;
        // One more may have come while the last one went.
        if finished.is_err() || tokio::time::timeout_at(deadline, self.drain.finished()).await.is_err() {
            tracing::warn!(connections = self.drain.open(), "the drain time is over; closing what is left");
            self.drain.cut();
            // Each is recorded as its task lets go of it.
            let _ = tokio::time::timeout(CUT_TIMEOUT, self.drain.finished()).await;
        }
        if stop.is_none() {
            // Whoever asked before the handover is answered; `edd tap` would follow without end.
            let _ = tokio::time::timeout(CUT_TIMEOUT, self.admin).await;
        }
        self.background.cancel();
        let access_log = self.access_log;
        // Failing means that the thread was not to be had; the lines are then lost with the process.
        let _ = tokio::task::spawn_blocking(move || access_log.flush(FLUSH_TIMEOUT)).await;
        tracing::info!("stopped");
    }

    /// No connection is accepted from here on, and the drain knows of every one that was.
    async fn stop_accepting(&mut self) {
        self.accepting.cancel();
        while self.listening.join_next().await.is_some() {}
    }
}

/// Sockets from a predecessor, taken one by one.
struct Inherited(Sockets);

impl Inherited {
    /// All that are left of a role.
    fn rest(&mut self, role: Role) -> Vec<std::net::TcpListener> {
        self.0.extract_if(.., |(inherited, _)| *inherited == role).map(|(_, socket)| socket).collect()
    }

    fn listen(&mut self, role: Role, address: SocketAddr) -> Result<TcpListener, StartError> {
        let bind = |source| StartError::Bind {
            what: match role {
                Role::Http => "http",
                Role::Https => "https",
                Role::Ssh => "ssh",
                Role::Admin => "admin",
                Role::Dynamic => "a port of containers",
            },
            address,
            source,
        };
        // A listener whose address was changed is a new one; the old one ends with the predecessor.
        let fits = |socket: &std::net::TcpListener| {
            let bound = socket.local_addr();
            bound.is_ok_and(|bound| bound.ip() == address.ip() && [0, bound.port()].contains(&address.port()))
        };
        match self.0.iter().position(|(inherited, socket)| *inherited == role && fits(socket)) {
            Some(index) => {
                let (_, socket) = self.0.swap_remove(index);
                socket.set_nonblocking(true).map_err(bind)?;
                TcpListener::from_std(socket).map_err(bind)
            }
            None => listeners::bind(address).map_err(bind),
        }
    }
}

/// The sockets for a successor.
fn passed_on(own: &[(Role, OwnedFd)], ports: &ListenerSet) -> io::Result<Vec<(Role, OwnedFd)>> {
    let mut sockets =
        own.iter().map(|(role, socket)| Ok((*role, socket.try_clone()?))).collect::<io::Result<Vec<_>>>()?;
    sockets.extend(ports.sockets()?.into_iter().map(|socket| (Role::Dynamic, socket.into())));
    Ok(sockets)
}

/// Lets a successor find this process, tells a predecessor that it serves, and waits for the
/// successor on a thread of its own.
async fn await_successor(
    path: PathBuf,
    sockets: impl Fn() -> io::Result<Vec<(Role, OwnedFd)>> + Send + 'static,
    takeover: Option<Takeover>,
) -> io::Result<oneshot::Receiver<()>> {
    let (done, successor) = oneshot::channel();
    let offering = tokio::task::spawn_blocking(move || {
        let offer = handover::offer(&path);
        if let Some(takeover) = takeover
            && let Err(error) = takeover.ready()
        {
            tracing::warn!(%error, "the predecessor could not be told to drain; stop it by hand");
        }
        (offer, path)
    });
    let (offer, path) = offering.await?;
    std::thread::Builder::new().name("handover".to_owned()).spawn(move || {
        match offer.and_then(|offer| offer.wait(sockets)) {
            // Nobody waits any more when the gateway is being stopped anyway.
            Ok(()) => drop(done.send(())),
            Err(error) => tracing::warn!(%error, path = %path.display(), "this process cannot be taken over from"),
        }
    })?;
    Ok(successor)
}

#[cfg(test)]
mod tests;
