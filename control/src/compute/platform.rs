//! What runs containers: the machine itself, a Docker engine, Kubernetes.
//!
//! A platform is told what should be, one container at a time, and makes it so. Every call is idempotent and safe to
//! cut off at any point: the caller comes again. It knows no user's rights, no database and no event.

#[cfg(test)]
mod conformance;
pub mod docker;
pub mod local;
mod spec;
pub mod sshd;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::{ContainerId, UserId};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

/// A container as its owner wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    pub id: ContainerId,
    /// A label, for whoever looks at the platform itself.
    pub owner: UserId,
    /// What its owner calls it; also its own host name.
    pub name: String,
    /// One of [`Platform::images`], or whatever else the platform can get.
    pub image: String,
    pub pull: PullPolicy,
    pub memory_mb: u32,
    /// Thousandths of a processor.
    pub cpu_millis: u32,
    pub storage_gb: u32,
    /// Directories, absolute, that outlive a stop. Everything else begins anew with each start.
    pub mount_paths: Vec<String>,
    /// Environment of what the image starts.
    pub environment: BTreeMap<String, String>,
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    Always,
    #[default]
    IfNotPresent,
    Never,
}

/// What a container does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is there, and nothing of it runs.
    Stopped,
    /// It runs, and takes connections at its address.
    Running,
    /// It keeps its memory and does nothing.
    Paused,
    /// Its main process ended by itself, or it could not be started. Why, in words for its owner.
    Failed(String),
}

/// A container as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub id: ContainerId,
    pub phase: Phase,
    /// Where it is reached, while it runs or is paused.
    pub address: Option<IpAddr>,
    /// Port at `address` that answers HTTP.
    pub http_port: u16,
    /// Its SSH server, while it runs or is paused; none: [`Platform::exec`] is the way in.
    pub ssh: Option<SshServer>,
}

/// An SSH server that lets gateways in, as [`sshd`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshServer {
    /// At the container's address.
    pub port: u16,
    /// Fingerprint of its ed25519 host key, `SHA256:…`.
    pub host_key: String,
}

/// What a platform can do here, honestly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `local`, `docker`, `kubernetes`.
    pub platform: &'static str,
    /// How well containers are kept apart, for people: `root namespaces with cgroups`, `none: plain child processes`.
    pub isolation: String,
    /// [`Platform::pause`] works.
    pub can_pause: bool,
    pub limits_memory: bool,
    pub limits_cpu: bool,
}

/// An image that containers can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub name: String,
    pub description: String,
    /// Taken when a tenant names none.
    pub is_default: bool,
}

/// Why a platform did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum PlatformError {
    /// It has no such container.
    #[error("the platform has no container {0}")]
    NotFound(ContainerId),
    /// The container cannot be as it is wanted: its image does not exist, its limits are too small. Words for its owner.
    #[error("{0}")]
    Impossible(String),
    /// The call makes no sense in the phase that the container is in.
    #[error("{0}")]
    WrongPhase(String),
    /// The platform is away, or has no room now. Asking again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// What runs in a container besides what its image starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; empty: the user's login shell.
    pub command: Vec<String>,
    /// Whom it runs as, by the container's own `/etc/passwd`; none: root.
    #[serde(default)]
    pub user: Option<String>,
    pub environment: BTreeMap<String, String>,
    /// A terminal of this size; none: three pipes.
    pub terminal: Option<Size>,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// Bytes of input and output that wait for their reader: pieces of at most [`MAX_PIECE_BYTES`].
pub const SESSION_PIECES: usize = 16;
/// Largest piece of output.
pub const MAX_PIECE_BYTES: usize = 32 * 1024;
/// Sizes and signals that wait to be taken.
pub const SESSION_CONTROLS: usize = 16;

/// A running [`Exec`]. Dropping it ends what runs, as a terminal that is closed does (SIGHUP, then SIGKILL).
#[derive(Debug)]
pub struct Session {
    /// Takes at most [`SESSION_PIECES`]; a full one is back-pressure. Dropping it is the end of input as well.
    pub input: mpsc::Sender<Input>,
    /// Overtakes input that nobody reads. Takes at most [`SESSION_CONTROLS`]; what a full one does not take is lost.
    pub control: mpsc::Sender<Control>,
    /// [`Output::Exit`] is the last, once all output has come; a closed channel without it means that the platform
    /// lost sight of it.
    pub output: mpsc::Receiver<Output>,
}

/// To a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Bytes(Bytes),
    /// No bytes come after it; sizes and signals may.
    Eof,
}

/// To a session, whether it takes its input or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Resize(Size),
    /// A signal's name as in SSH (RFC 4254 §6.10), `TERM` for one.
    Signal(String),
}

/// From a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Everything, where there is a terminal.
    Stdout(Bytes),
    Stderr(Bytes),
    Exit(Exit),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(u8),
    /// By a signal, named as in SSH.
    Signal(String),
}

/// Which lines of a container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// At most this many of the newest.
    pub tail: u32,
    /// Then those that come.
    pub follow: bool,
}

/// Runs containers.
#[async_trait]
pub trait Platform: Debug + Send + Sync {
    fn capabilities(&self) -> Capabilities;

    async fn images(&self) -> Result<Vec<Image>, PlatformError>;

    /// Makes what is lacking of a container, without starting it. What is there already stays as it is; a changed
    /// `spec` holds from the next start.
    async fn ensure(&self, spec: &Spec) -> Result<(), PlatformError>;

    /// Starts it unless it runs, and returns once it does: once its HTTP port and its SSH server take connections, where
    /// its image has such. A paused one is resumed. One that cannot run, or does not get there in time, is no error of the platform:
    /// it is returned as [`Phase::Failed`].
    async fn start(&self, id: ContainerId) -> Result<Observed, PlatformError>;

    /// Stops it: SIGTERM, and SIGKILL after `grace`. Its mounted directories stay.
    async fn stop(&self, id: ContainerId, grace: Duration) -> Result<(), PlatformError>;

    /// Freezes it; see [`Capabilities::can_pause`].
    async fn pause(&self, id: ContainerId) -> Result<(), PlatformError>;

    /// Removes it and all that it has, mounted directories too. One that is not there, or is not ours, is left alone
    /// without an error.
    async fn delete(&self, id: ContainerId) -> Result<(), PlatformError>;

    /// What there is of it.
    async fn observe(&self, id: ContainerId) -> Result<Option<Observed>, PlatformError>;

    /// Every container that carries our label.
    async fn list(&self) -> Result<Vec<Observed>, PlatformError>;

    /// Containers that may have changed without being told to, such as by ending. A receiver that lags lists anew.
    fn watch(&self) -> broadcast::Receiver<ContainerId>;

    /// Runs something in a running container.
    async fn exec(&self, id: ContainerId, exec: Exec) -> Result<Session, PlatformError>;

    /// What its main process wrote, line by line without line breaks. The channel ends with the log, or, when
    /// following, with the container.
    async fn logs(&self, id: ContainerId, query: LogQuery) -> Result<mpsc::Receiver<Bytes>, PlatformError>;

    /// This process ends. Containers that live in it are stopped; those of an engine of their own go on.
    async fn shutdown(&self, grace: Duration);
}
