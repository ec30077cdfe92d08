//! Programs in containers that have no sshd: what the gateway asks of the platform that runs them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::ContainerId;
use tokio::sync::mpsc;

/// Pieces of input and of output that wait for their reader.
pub const SESSION_PIECES: usize = 16;
/// Sizes and signals that wait to be taken.
pub const SESSION_CONTROLS: usize = 16;
/// Largest piece, in bytes.
pub const MAX_PIECE_BYTES: usize = 32 * 1024;

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Program and arguments; empty: the user's login shell.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    /// A terminal of this size; none: three pipes.
    pub terminal: Option<Size>,
    /// One of the container's users.
    pub user: String,
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// To a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Bytes(Bytes),
    /// No more bytes come; sizes and signals still may.
    Eof,
}

/// To a program, whether it takes its input or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    Resize(Size),
    /// A signal's name as in SSH (RFC 4254 §6.10), `TERM` for one.
    Signal(String),
}

/// From a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Everything, where there is a terminal.
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last, once all output has come.
    Exit(Exit),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(u8),
    /// By a signal, named as in SSH.
    Signal(String),
}

/// A running [`Program`]. Dropping it ends what runs, as a terminal that is closed does.
#[derive(Debug)]
pub struct Running {
    /// Takes at most [`SESSION_PIECES`]; a full one is back-pressure.
    pub input: mpsc::Sender<Input>,
    /// Overtakes input that nobody reads. Takes at most [`SESSION_CONTROLS`].
    pub control: mpsc::Sender<Control>,
    /// A channel that closes without [`Output::Exit`] means that the platform lost sight of the program.
    pub output: mpsc::Receiver<Output>,
}

/// Why a program was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// In words for the container's owner.
    #[error("{0}")]
    Impossible(String),
    /// Asking again may help.
    #[error("{0}")]
    Unavailable(String),
}

/// Starts programs in containers: compute, in this process or over its API.
#[async_trait]
pub trait Programs: Debug + Send + Sync {
    /// # Errors
    /// The container does not run, has no such user or program, or its platform is away.
    async fn start(&self, container: ContainerId, program: Program) -> Result<Running, ExecError>;
}

/// A gateway that was not told where compute is.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

#[async_trait]
impl Programs for Nowhere {
    async fn start(&self, _container: ContainerId, _program: Program) -> Result<Running, ExecError> {
        let why = "this gateway was not told where compute is, and the container has no SSH server of its own";
        Err(ExecError::Unavailable(why.to_owned()))
    }
}
