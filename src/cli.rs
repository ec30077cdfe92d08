//! The command line: verbs and their flags, each of which is also a variable and a line of the
//! configuration file. Flag > environment > file > default.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use edd_gateway::route::HostName;

use crate::auth::AuthArgs;
use crate::builtin::ServiceUrl;
use crate::compute::ComputeArgs;
use crate::config_file::ConfigFile;
use crate::container_init;
use crate::databases::{DatabaseArgs, DatabaseUrls, ServiceName};
use crate::dlq::LetterState;
use crate::events::{self, EventStatus};
use crate::exit::Failure;
use crate::files::FilesCommand;
use crate::logging;
use crate::plane::PlaneArgs;
use crate::settings::{GatewayArgs, Networks, PortsArgs, parse_networks, parse_seconds};
use crate::sfs::SfsArgs;
use crate::sfs::check::SfsCommand;

/// One command that is the whole edge of a small container cloud.
#[derive(Debug, Parser)]
#[command(name = "edd", version, propagate_version = true)]
pub struct Cli {
    /// File with settings, one `EDD_NAME=value` a line; ./edd.env is read if it is there.
    #[arg(long, global = true, value_name = "FILE", env = "EDD_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Everything on this machine, in one process: gateway, users, local CA and a demo service.
    Up(UpArgs),
    /// The gateway alone.
    Gateway(GatewayRunArgs),
    /// One control service alone, beside others on PostgreSQL and NATS.
    #[command(subcommand)]
    Control(ControlCommand),
    /// Check, explain, list and compare routes.
    #[command(subcommand)]
    Routes(RoutesCommand),
    /// Look at the ports of containers.
    #[command(subcommand)]
    Ports(PortsCommand),
    /// Look at the sessions over SSH, and end them.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Look at the certificates, and trust the local CA.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Look at the events of a service, as its database keeps them.
    #[command(subcommand)]
    Events(EventsCommand),
    /// Look at events that a consumer gave up on, and decide about them.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Files in the share: send, fetch, list, share them.
    #[command(subcommand)]
    Files(FilesCommand),
    /// Look after the store of the file share.
    #[command(subcommand)]
    Sfs(SfsCommand),
    /// Follow the requests of a running gateway.
    Tap(TapArgs),
    /// Ask a running gateway whether it is ready; exits with 0 if it is.
    Healthcheck(HealthcheckArgs),
    /// Print a shell's completions.
    Completions { shell: clap_complete::Shell },
    /// Print the manual page, or write all pages to a directory.
    Man {
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// What edd runs beside and within each container of its own.
    #[command(name = container_init::VERB, hide = true)]
    ContainerInit,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub gateway: GatewayArgs,
    #[command(flatten)]
    pub plane: PlaneArgs,
    #[command(flatten)]
    pub databases: DatabaseUrls,
    /// Take the listening sockets over from the gateway that uses the same data directory; it drains
    /// and exits.
    #[arg(long)]
    pub takeover: bool,
    /// Say what is listened on as one line of JSON on stdout.
    #[arg(long)]
    pub json: bool,
    /// What is logged: a level, or `target=level` and so on, separated by commas [default: info].
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", value_parser = logging::parse_filter)]
    pub log: Option<String>,
}

#[derive(Debug, Args)]
pub struct GatewayRunArgs {
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub owner: OwnerArgs,
    /// URL of the file share, which the gateway's routes for it lead to.
    #[arg(long, value_name = "URL", env = "SFS_SERVICE_URL", value_parser = ServiceUrl::parse)]
    pub sfs_service_url: Option<ServiceUrl>,
    /// URL of the compute service: what containers, keys and ports are asked of, and what the gateway's routes for it
    /// lead to.
    #[arg(long, value_name = "URL", env = "COMPUTE_SERVICE_URL", value_parser = ServiceUrl::parse)]
    pub compute_service_url: Option<ServiceUrl>,
}

/// Where the auth service is, for the other roles.
#[derive(Clone, Debug, Args)]
pub struct OwnerArgs {
    /// URL of the auth service: whom users, keys and revoked sessions are asked of, and what the gateway's routes for
    /// it lead to.
    #[arg(long, value_name = "URL", env = "AUTH_SERVICE_URL", value_parser = ServiceUrl::parse)]
    pub auth_service_url: Option<ServiceUrl>,
}

#[derive(Debug, Subcommand)]
pub enum ControlCommand {
    /// Users, sessions and API tokens.
    Auth {
        #[command(flatten)]
        auth: AuthArgs,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// The file share: namespaces and files of tenants.
    Sfs {
        #[command(flatten)]
        sfs: SfsArgs,
        #[command(flatten)]
        owner: OwnerArgs,
        #[command(flatten)]
        control: ControlArgs,
    },
    /// Containers: what tenants want, and the platform that runs them.
    Compute {
        #[command(flatten)]
        compute: ComputeArgs,
        #[command(flatten)]
        ports: PortsArgs,
        #[command(flatten)]
        owner: OwnerArgs,
        #[command(flatten)]
        control: ControlArgs,
    },
}

/// What every control service is told.
#[derive(Debug, Args)]
pub struct ControlArgs {
    /// The service's HTTP API, for the gateway.
    #[arg(long, value_name = "ADDR", env = "EDD_API_LISTEN", default_value = "0.0.0.0:8081")]
    pub api_listen: SocketAddr,
    /// Health and metrics.
    #[arg(long, value_name = "ADDR", env = "EDD_ADMIN_LISTEN", default_value = "127.0.0.1:9091")]
    pub admin_listen: SocketAddr,
    /// Databases without a URL, and keys.
    #[arg(long, value_name = "DIR", env = "EDD_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// The dashboard's host, where browsers sign in.
    #[arg(long, value_name = "HOST", env = "EDD_BASE_DOMAIN", default_value = "cloud.localhost", value_parser = HostName::parse)]
    pub base_domain: HostName,
    /// Networks of the gateway, whose word about a request's client counts, separated by commas.
    #[arg(long, value_name = "NETS", env = "EDD_TRUSTED_PROXIES", default_value = "", hide_default_value = true, value_parser = parse_networks)]
    pub trusted_proxies: Networks,
    /// Longest drain after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", env = "EDD_DRAIN_SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub drain_seconds: Duration,
    /// Threads that serve [default: one per core].
    #[arg(long, value_name = "COUNT", env = "EDD_WORKER_THREADS", value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub worker_threads: Option<u64>,
    #[command(flatten)]
    pub plane: PlaneArgs,
    #[command(flatten)]
    pub databases: DatabaseUrls,
    /// Say what is listened on as one line of JSON on stdout.
    #[arg(long)]
    pub json: bool,
    /// What is logged: a level, or `target=level` and so on, separated by commas [default: info].
    #[arg(long, value_name = "FILTER", env = "RUST_LOG", value_parser = logging::parse_filter)]
    pub log: Option<String>,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    #[command(flatten)]
    pub run: RunArgs,
    #[command(flatten)]
    pub auth: AuthArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
    #[command(flatten)]
    pub sfs: SfsArgs,
    /// Listen on all addresses, not on this machine's own alone.
    #[arg(long)]
    pub public: bool,
}

/// Where the running gateway's admin listener is.
#[derive(Clone, Debug, Args)]
pub struct AdminArgs {
    /// Address of the gateway's admin listener.
    #[arg(long = "admin", value_name = "ADDR", env = "EDD_ADMIN_LISTEN", default_value = "127.0.0.1:9091")]
    pub address: SocketAddr,
}

#[derive(Debug, Subcommand)]
pub enum RoutesCommand {
    /// Check a routes file; exits with 78 if it has errors.
    Check {
        /// `-` is stdin.
        #[arg(env = "ROUTES_FILE", default_value = "routes.yaml")]
        file: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Say which route takes a URL, and why the others do not.
    Explain {
        url: String,
        /// Look at this file instead of asking the running gateway.
        #[arg(long, value_name = "FILE")]
        routes: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
    /// List the routes.
    List {
        /// Look at this file instead of asking the running gateway.
        #[arg(long, value_name = "FILE")]
        routes: Option<PathBuf>,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
    /// Take a route in, beside those of routes.yaml, which win over it; one with the same host and path is replaced.
    Add {
        /// A name, `*.suffix` for every name below it, or `*` for any.
        #[arg(long, value_name = "HOST")]
        host: String,
        /// A path prefix, on segment boundaries.
        #[arg(long, value_name = "PATH", default_value = "/")]
        path: String,
        /// Where requests go: `host:port`, with `http://`, `h2c://` or `https://` before it for the protocol.
        #[arg(long, value_name = "TARGET")]
        target: String,
        /// Take the path off before the request goes to the target.
        #[arg(long)]
        strip_prefix: bool,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
    /// Take a route out that was taken in with `add`.
    Remove {
        #[arg(long, value_name = "HOST")]
        host: String,
        #[arg(long, value_name = "PATH", default_value = "/")]
        path: String,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
    /// Compare two routes files; exits with 1 if they differ.
    Diff {
        old: PathBuf,
        new: PathBuf,
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of routes.yaml, for editors.
    Schema,
}

#[derive(Debug, Subcommand)]
pub enum PortsCommand {
    /// List the ports that lead to containers: protocol, container, and whether the machine gives them.
    List {
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum SessionsCommand {
    /// List the sessions over SSH of the running gateway: who, from where, since when, how much.
    List {
        #[command(flatten)]
        chosen: ChosenSessions,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
    /// End sessions: one by its id, or all of a container or a user.
    #[command(group(ArgGroup::new("which").args(["id", "container", "user"]).required(true)))]
    Kill {
        /// As `edd sessions list` shows it.
        id: Option<String>,
        #[command(flatten)]
        chosen: ChosenSessions,
        #[command(flatten)]
        admin: AdminArgs,
        #[arg(long)]
        json: bool,
    },
}

/// Whose sessions.
#[derive(Debug, Args)]
pub struct ChosenSessions {
    /// Those in this container, jumps to it included.
    #[arg(long, value_name = "ID", conflicts_with = "user")]
    pub container: Option<String>,
    /// Those of this user.
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
}

/// Where certificates are kept.
#[derive(Clone, Debug, Args)]
pub struct CertsArgs {
    /// The operator's certificate files.
    #[arg(long, value_name = "DIR", env = "EDD_CERTS_DIR", default_value = "certs")]
    pub certs_dir: PathBuf,
    /// Databases, keys, and the local CA in `ca/`.
    #[arg(long, value_name = "DIR", env = "EDD_DATA_DIR", default_value = "data")]
    pub data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// List the certificates: names, expiry, state.
    List {
        #[command(flatten)]
        certs: CertsArgs,
        #[arg(long)]
        json: bool,
    },
    /// Show the certificates that cover a name.
    Show {
        name: String,
        #[command(flatten)]
        certs: CertsArgs,
        #[arg(long)]
        json: bool,
    },
    /// Make this machine trust the local CA.
    Trust {
        #[command(flatten)]
        certs: CertsArgs,
        /// Undo it.
        #[arg(long)]
        remove: bool,
        #[arg(long)]
        json: bool,
    },
}

/// Which events.
#[derive(Debug, Args)]
pub struct EventFilterArgs {
    /// Only those about this: auth.user.<user id>.
    #[arg(long)]
    pub entity: Option<String>,
    /// Only those that this request led to.
    #[arg(long, value_name = "ID")]
    pub correlation: Option<String>,
    /// Only these subjects; `*` stands for one token, `>` for the rest.
    #[arg(long)]
    pub subject: Option<String>,
    /// Only those since then: a time such as 2026-01-31T12:00:00Z, or how long ago, such as 15m.
    #[arg(long, value_name = "TIME", value_parser = events::parse_moment)]
    pub since: Option<SystemTime>,
    /// Only those in this state.
    #[arg(long)]
    pub status: Option<EventStatus>,
}

/// A service's database.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Whose database is asked.
    #[arg(long, default_value = "auth")]
    pub service: ServiceName,
    #[command(flatten)]
    pub databases: DatabaseArgs,
}

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// List events, the newest first.
    List {
        #[command(flatten)]
        filter: EventFilterArgs,
        /// How many at most.
        #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Follow events as they are written and handled.
    Tail {
        #[command(flatten)]
        filter: EventFilterArgs,
        /// End after this many.
        #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Print them as they come, one line of JSON each.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Rebuild a service's copy of another's state, beside the running service, and swap it in when it is whole.
    Replay {
        /// Which copy.
        #[arg(long, default_value = "user_cache")]
        projection: String,
        /// From what [default: the stream if it has everything, else the owner].
        #[arg(long)]
        from: Option<ReplaySource>,
        #[command(flatten)]
        service: ServiceArgs,
        #[command(flatten)]
        plane: PlaneArgs,
        #[command(flatten)]
        owner: OwnerArgs,
        #[arg(long)]
        json: bool,
    },
    /// Show an event with its content, and what became of it.
    Show {
        /// The event's id.
        id: String,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        service: ServiceArgs,
    },
}

/// What a projection is rebuilt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReplaySource {
    /// The events that the stream keeps, while those are all that there were.
    Stream,
    /// The owner's own state.
    Owner,
}

/// Dead letters of one service, or of all.
#[derive(Debug, Args)]
pub struct DlqArgs {
    /// Whose database is asked [default: all that are there].
    #[arg(long)]
    pub service: Option<ServiceName>,
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub databases: DatabaseArgs,
}

#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, the oldest first.
    List {
        /// Only those of this consumer, such as sfs-service.
        #[arg(long)]
        consumer: Option<String>,
        /// Only those about which this was decided.
        #[arg(long, default_value = "dead")]
        state: LetterState,
        /// How many of a service at most.
        #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        dlq: DlqArgs,
    },
    /// Show a dead letter with its content.
    Show {
        id: i64,
        #[command(flatten)]
        dlq: DlqArgs,
    },
    /// Have the consumer that gave an event up try it again; no other gets it.
    Requeue {
        #[arg(required_unless_present = "all")]
        id: Option<i64>,
        /// All that one consumer has given up.
        #[arg(long, conflicts_with = "id", requires = "consumer")]
        all: bool,
        /// Whose, with --all.
        #[arg(long, requires = "all", conflicts_with = "id")]
        consumer: Option<String>,
        #[command(flatten)]
        dlq: DlqArgs,
    },
    /// Give an event up for good; it stays for the record.
    Discard {
        id: i64,
        #[command(flatten)]
        dlq: DlqArgs,
    },
}

#[derive(Debug, Args)]
pub struct TapArgs {
    /// Only requests for this host.
    #[arg(long)]
    pub host: Option<String>,
    /// Only answers with this status, such as 404, or class, such as 5xx.
    #[arg(long)]
    pub status: Option<String>,
    #[command(flatten)]
    pub admin: AdminArgs,
    /// Print the records as they come, one line of JSON each.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    #[arg(long)]
    pub json: bool,
}

/// Parses the command line. Usage errors, `--help` and `--version` end the process here.
pub fn parse() -> Result<Cli, Failure> {
    let file = ConfigFile::find(std::env::args_os().skip(1))?;
    let command = match file {
        Some(file) => file.apply(Cli::command())?,
        None => Cli::command(),
    };
    let matches = command.get_matches();
    Cli::from_arg_matches(&matches).map_err(|error| error.exit())
}
