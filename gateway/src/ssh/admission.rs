//! Who may log in, and where a login leads: what the data plane asks, and what it is told.

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use edd_proto::{ContainerId, UserId};
use russh::keys::ssh_key::PublicKey;
use tokio_util::sync::CancellationToken;

use crate::live::{Life, Visit};
use crate::route::Authority;
use crate::table::fingerprint::Fingerprint;

/// A key that asks to log in.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// As the client sent it.
    pub username: &'a str,
    pub key: &'a PublicKey,
    pub peer: IpAddr,
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One of a bounded set of words, for metrics and logs.
    pub reason: &'static str,
    /// For the person at the other end, once it is known who they are; nothing of it is told before.
    pub message: String,
}

impl Refusal {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// How a connection that had not authenticated came to its end, or stopped being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Admitted,
    /// It ended, or its time was over, after so many keys and passwords that were refused. Keys that were asked about
    /// without a signature are not among them: an agent asks about all that it has.
    Unauthenticated {
        keys: u32,
        passwords: u32,
        timed_out: bool,
    },
    /// What it sent is not SSH.
    Garbage,
}

/// Somebody with a right to be in. Holding one means that it was checked, against one snapshot.
#[derive(Clone, Debug)]
pub struct Admission {
    pub owner: UserId,
    pub key_id: i64,
    /// Of the key.
    pub fingerprint: Fingerprint,
    pub way: Way,
    pub run: Run,
    /// Cancelled when the same login would be refused now.
    pub revoked: CancellationToken,
}

/// The run of its container that a session has come to. Until there is one, the container may do what it likes: whoever
/// makes the way to it waits for it to be as it is wanted. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Run(Arc<OnceLock<Arc<Life>>>);

impl Run {
    pub fn get(&self) -> Option<&Arc<Life>> {
        self.0.get()
    }

    /// The session is in, and does not outlive this run.
    pub fn settle(&self, life: &Arc<Life>) {
        // A session comes to one.
        self.0.get_or_init(|| Arc::clone(life));
    }
}

/// What somebody was let in to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// One container, as one of its users.
    Container { id: ContainerId, user: String },
    /// The SSH ports of the owner's containers.
    Jump,
}

/// A container as it is when it is entered.
#[derive(Debug)]
pub struct Entrance {
    pub container: ContainerId,
    pub target: Target,
    /// Keeps the container in use as long as it is held.
    pub visit: Option<Visit>,
    /// Cancelled when the container's run is over: [`crate::live::LiveRoute::retired`].
    pub retired: CancellationToken,
}

/// How to get into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// It sleeps or starts: it is to be woken ([`crate::containers::Wakes::rouse`]), then asked for again.
    Asleep,
    /// It is stopped or has failed, as far as is known here; compute may know better
    /// ([`crate::containers::Wakes::starting`]).
    Down(Refusal),
    Sshd {
        address: Authority,
        /// The only host key that is spoken to: `SHA256:…`. For a jump it may be empty: it is the client who checks.
        host_key_fingerprint: String,
    },
    /// It has no sshd: by [`crate::ssh::exec::Programs`].
    Exec,
}

/// Decides, from what is known at the moment, without waiting for anything.
pub trait Admitter: Debug + Send + Sync {
    /// Whether to talk to an address at all. For every `Ok` there is one [`Admitter::settled`].
    ///
    /// # Errors
    /// It has too many connections that have not authenticated, or has misbehaved.
    fn arrived(&self, peer: IpAddr) -> Result<(), Refusal>;

    /// What came of a connection that [`Admitter::arrived`] let in.
    fn settled(&self, peer: IpAddr, outcome: Outcome);

    /// Whether a signature by this key is worth asking for.
    ///
    /// # Errors
    /// It is not; the client is told no more than that.
    fn offer(&self, attempt: &Attempt<'_>) -> Result<(), Refusal>;

    /// Lets the owner of a key in, who has proved to be that.
    ///
    /// # Errors
    /// As for [`Admitter::offer`].
    fn admit(&self, attempt: &Attempt<'_>) -> Result<Admission, Refusal>;

    /// The container that was admitted to, as it is now.
    ///
    /// # Errors
    /// There is no way in: it has an sshd whose host key is not known, or is gone.
    /// The message says so to its owner.
    fn entrance(&self, admission: &Admission) -> Result<Entrance, Refusal>;

    /// The container that a jump names, by its id or its host name: the owner's own, SSH enabled, open to the key.
    ///
    /// # Errors
    /// As for [`Admitter::entrance`]; somebody else's container is told from none by nothing.
    fn jump(&self, admission: &Admission, host: &str) -> Result<Entrance, Refusal>;
}

/// An admitter that is shared.
pub type SharedAdmitter = Arc<dyn Admitter>;
