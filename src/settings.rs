//! The gateway's settings: as written on the command line, and as the gateway takes them.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use edd_gateway::access_log::AccessLog;
use edd_gateway::certs::{CertsConfig, LocalCaConfig};
use edd_gateway::containers::Containers;
use edd_gateway::gateway::Config;
use edd_gateway::health::Health;
use edd_gateway::ingress::PortRange;
use edd_gateway::metrics::Metrics;
use edd_gateway::proxy::http1::HeadLimits;
use edd_gateway::route::{Authority, HostName, Route};
use edd_gateway::router::Router;
use edd_gateway::static_routes::StaticRoutes;
use prometheus::Registry;
use tokio::sync::watch;

use crate::cli::CertsArgs;
use crate::exit::Failure;
use crate::serving::Serving;
use crate::ssh::{Entry, SshArgs};

/// Where access lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLogTarget {
    Stderr,
    Off,
}

/// What tenants may ask for; the compute service checks it first, the gateway decides.
#[derive(Clone, Debug, Args)]
pub struct PortsArgs {
    /// Ports that containers may have.
    #[arg(long, value_name = "FIRST-LAST", env = "EDD_DYNAMIC_PORTS", default_value_t)]
    pub dynamic_ports: PortRange,
}

#[derive(Debug, Args)]
pub struct GatewayArgs {
    /// Static routes.
    #[arg(long = "routes", value_name = "FILE", env = "ROUTES_FILE", default_value = "routes.yaml")]
    pub routes_file: PathBuf,
    /// Plain HTTP listener [default: port 8080].
    #[arg(long, value_name = "ADDR", env = "EDD_HTTP_LISTEN")]
    http_listen: Option<SocketAddr>,
    /// HTTPS listener [default: port 8443].
    #[arg(long, value_name = "ADDR", env = "EDD_HTTPS_LISTEN")]
    https_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub ssh: SshArgs,
    /// Health, metrics and the state of the routes.
    #[arg(long, value_name = "ADDR", env = "EDD_ADMIN_LISTEN", default_value = "127.0.0.1:9091")]
    admin_listen: SocketAddr,
    #[command(flatten)]
    pub ports: PortsArgs,
    /// Address of the ports of containers [default: that of the other listeners].
    #[arg(long, value_name = "IP", env = "EDD_DYNAMIC_BIND")]
    dynamic_bind: Option<IpAddr>,
    #[command(flatten)]
    certs: CertsArgs,
    /// The dashboard's host; containers live below it. The local CA signs for it.
    #[arg(long, value_name = "HOST", env = "EDD_BASE_DOMAIN", default_value = "cloud.localhost", value_parser = HostName::parse)]
    pub base_domain: HostName,
    /// Sign certificates for local names that no file covers.
    #[arg(long, value_name = "BOOL", env = "EDD_LOCAL_CA", default_value_t = true, action = clap::ArgAction::Set)]
    local_ca: bool,
    /// Networks whose forwarding headers and PROXY protocol count, separated by commas.
    #[arg(long, value_name = "NETS", env = "EDD_TRUSTED_PROXIES", default_value = "", hide_default_value = true, value_parser = parse_networks)]
    trusted_proxies: Networks,
    /// Longest drain after SIGTERM, a takeover or the removal of a route, in seconds.
    #[arg(long, value_name = "SECONDS", env = "EDD_DRAIN_SECONDS", default_value = "10", value_parser = parse_seconds)]
    drain_seconds: Duration,
    /// After SIGTERM, serve on for this long while readiness says 503, in seconds.
    #[arg(long, value_name = "SECONDS", env = "EDD_SHUTDOWN_DELAY_SECONDS", default_value = "0", value_parser = parse_seconds)]
    shutdown_delay_seconds: Duration,
    /// From the first byte of a request's head to its last.
    #[arg(long, value_name = "TIME", env = "EDD_HEADER_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    header_timeout: Duration,
    /// How long a connection may be idle between two requests.
    #[arg(long, value_name = "TIME", env = "EDD_KEEPALIVE_TIMEOUT", default_value = "75s", value_parser = humantime::parse_duration)]
    keepalive_timeout: Duration,
    /// For PROXY header and TLS handshake together.
    #[arg(long, value_name = "TIME", env = "EDD_HANDSHAKE_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    handshake_timeout: Duration,
    /// Largest head of a request.
    #[arg(long, value_name = "BYTES", env = "EDD_MAX_HEADER_BYTES", default_value_t = 32 * 1024, value_parser = clap::value_parser!(u64).range(1024..=512 * 1024))]
    max_header_bytes: u64,
    /// Connections open at once; further ones are closed.
    #[arg(long, value_name = "COUNT", env = "EDD_MAX_CONNECTIONS", default_value_t = 20_000)]
    max_connections: usize,
    /// Threads that serve [default: one per core].
    #[arg(long, value_name = "COUNT", env = "EDD_WORKER_THREADS", value_parser = clap::value_parser!(u64).range(1..=1024))]
    worker_threads: Option<u64>,
    /// Where access lines go.
    #[arg(long, value_name = "WHERE", env = "EDD_ACCESS_LOG", default_value = "stderr")]
    access_log: AccessLogTarget,
}

/// What the rest of the process gives to its gateway.
pub struct Parts {
    /// Target names that this process answers itself.
    pub targets: HashMap<Authority, SocketAddr>,
    /// Routes that are there without a file.
    pub routes: Vec<Route>,
    pub registry: Registry,
    /// The gateway's own, on the registry.
    pub metrics: Arc<Metrics>,
    pub health: Health,
    /// Where routes are published.
    pub router: Router,
    /// Told of the gateway once it serves.
    pub serving: watch::Sender<Option<Serving>>,
    /// Where the gateway looks for the routes by API.
    pub static_routes: watch::Sender<Option<StaticRoutes>>,
    /// The containers that are published there.
    pub containers: Option<Containers>,
    /// The way into them by SSH.
    pub ssh: Option<Entry>,
}

impl Parts {
    /// Nothing yet.
    ///
    /// # Errors
    /// Two metrics have one name, which is a programming error.
    pub fn new() -> Result<Self, Failure> {
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::on(registry.clone())?);
        let (targets, routes, health, router) = Default::default();
        let (serving, static_routes) = Default::default();
        let (containers, ssh) = Default::default();
        Ok(Self { targets, routes, registry, metrics, health, router, serving, static_routes, containers, ssh })
    }
}

impl GatewayArgs {
    pub fn worker_threads(&self) -> usize {
        worker_threads(self.worker_threads)
    }

    /// What the streams of a route have to come to an end when it goes.
    pub fn drain(&self) -> Duration {
        self.drain_seconds
    }

    pub fn data_dir(&self) -> &Path {
        &self.certs.data_dir
    }

    /// The gateway's configuration; listeners without an address of their own bind to `bind`.
    pub fn into_config(self, bind: IpAddr, parts: Parts, takeover: bool) -> Result<Config, Failure> {
        let worker_threads = self.worker_threads();
        let access_log: Option<Box<dyn Write + Send>> = match self.access_log {
            AccessLogTarget::Stderr => Some(Box::new(std::io::stderr())),
            AccessLogTarget::Off => None,
        };
        let access_log = AccessLog::start(access_log, Arc::clone(&parts.metrics))?;
        let ssh = parts.ssh.map(|entry| entry.serve(&self.ssh, bind, &access_log, &parts.registry)).transpose()?;
        Ok(Config {
            http: self.http_listen.unwrap_or(SocketAddr::new(bind, 8080)),
            https: self.https_listen.unwrap_or(SocketAddr::new(bind, 8443)),
            ssh,
            admin: self.admin_listen,
            dynamic_bind: self.dynamic_bind.unwrap_or(bind),
            routes_file: self.routes_file,
            certs: certs_config(&self.certs, self.local_ca.then_some(self.base_domain)),
            data_dir: self.certs.data_dir,
            trusted_proxies: self.trusted_proxies.0,
            limits: HeadLimits {
                max_head_bytes: usize::try_from(self.max_header_bytes).unwrap_or(usize::MAX),
                header_timeout: self.header_timeout,
                keepalive_timeout: self.keepalive_timeout,
            },
            max_connections: self.max_connections,
            handshake_timeout: self.handshake_timeout,
            drain_timeout: self.drain_seconds,
            shutdown_delay: self.shutdown_delay_seconds,
            access_log,
            builtin_targets: parts.targets,
            builtin_routes: parts.routes,
            metrics: parts.metrics,
            router: parts.router,
            containers: parts.containers,
            static_routes: parts.static_routes.subscribe(),
            health: parts.health,
            takeover,
            worker_threads,
        })
    }
}

/// As many threads as were asked for, or one per core.
pub fn worker_threads(asked: Option<u64>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    asked.and_then(|count| count.try_into().ok()).unwrap_or(cores)
}

/// Where certificates come from; with `base_domain` the local CA signs for it.
pub fn certs_config(args: &CertsArgs, base_domain: Option<HostName>) -> CertsConfig {
    let local_ca = base_domain.map(|name| LocalCaConfig { dir: args.data_dir.join("ca"), names: vec![name] });
    CertsConfig { certs_dir: Some(args.certs_dir.clone()), local_ca }
}

/// Every address of this machine.
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// This machine's own.
pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Longest drain or delay, in seconds.
const MAX_SECONDS: f64 = 3600.0;

pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("a number of seconds from 0 to {MAX_SECONDS} is expected")),
    }
}

/// A list of networks; empty is none, as compose files and manifests write it.
#[derive(Clone, Debug)]
pub struct Networks(pub Vec<ipnet::IpNet>);

pub fn parse_networks(text: &str) -> Result<Networks, String> {
    let networks = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| {
        item.parse::<ipnet::IpNet>()
            .or_else(|_| item.parse::<IpAddr>().map(ipnet::IpNet::from))
            .map_err(|_| format!("`{item}` is no network such as 10.0.0.0/8, nor an address"))
    });
    networks.collect::<Result<_, _>>().map(Networks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_networks_are_checked() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "NaN", "inf", "1h", "99999"] {
            assert!(parse_seconds(bad).is_err(), "{bad}");
        }
        let networks = |text: &str| parse_networks(text).map(|networks| networks.0.len());
        assert_eq!((networks(""), networks("127.0.0.1, 10.0.0.0/8,")), (Ok(0), Ok(2)));
        assert!(networks("10.0.0.0/33").is_err());
    }
}
