//! Whose key opens which container: every answer follows from one snapshot of what is published.
//!
//! Whoever is refused learns nothing from it: an unknown container, somebody else's and one whose SSH is off are the
//! same to a stranger, and both look-ups are made whatever the first one finds.

use std::net::IpAddr;
use std::sync::Arc;

use edd_proto::ContainerId;
use tokio_util::sync::CancellationToken;

use crate::live::{Backend, SshAccess, Status};
use crate::router::{Router, Snapshot};
use crate::ssh::admission::{Admission, Admitter, Attempt, Entrance, Outcome, Refusal, Run, Target, Way};
use crate::ssh::login::Login;
use crate::ssh::penalties::Penalties;
use crate::table::fingerprint::Fingerprint;
use crate::table::ssh_keys::Holder;

/// Answers logins from what is published.
#[derive(Debug)]
pub struct Directory {
    router: Router,
    penalties: Penalties,
}

/// A container that a key opens.
struct Open<'s> {
    id: ContainerId,
    holder: Holder,
    backend: &'s Backend,
    access: &'s SshAccess,
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Denial {
    NoSuchLogin,
    NotYetKnown,
    UnknownKey,
    UnknownContainer,
    NotTheOwner,
    SshOff,
    KeyNotChosen,
}

impl Denial {
    fn word(self) -> &'static str {
        match self {
            Self::NoSuchLogin => "no_such_login",
            Self::NotYetKnown => "not_yet_known",
            Self::UnknownKey => "unknown_key",
            Self::UnknownContainer => "unknown_container",
            Self::NotTheOwner => "not_the_owner",
            Self::SshOff => "ssh_off",
            Self::KeyNotChosen => "key_not_chosen",
        }
    }

    /// For one who was let in before.
    fn message(self) -> &'static str {
        match self {
            Self::NoSuchLogin => "log in as a container's id, as user.id, or as jump",
            Self::NotYetKnown => "this gateway does not know yet who may log in; try again in a moment",
            Self::UnknownKey => "the SSH key was deleted",
            Self::UnknownContainer => "there is no such container",
            Self::NotTheOwner => "the key is not one of the container's owner",
            Self::SshOff => "SSH is switched off for this container",
            Self::KeyNotChosen => "the container takes other keys of its owner only",
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::new(denial.word(), denial.message())
    }
}

impl Directory {
    pub fn new(router: Router, penalties: Penalties) -> Self {
        Self { router, penalties }
    }
}

/// The container, if `key` opens it.
fn open<'s>(snapshot: &'s Snapshot, id: ContainerId, key: &Fingerprint) -> Result<Open<'s>, Denial> {
    let (holders, live) = (snapshot.ssh_keys.holders(key), snapshot.containers.get(id));
    if holders.is_empty() {
        return Err(unknown(snapshot.ssh_keys.is_complete(), Denial::UnknownKey));
    }
    let missing = || unknown(snapshot.containers.is_complete(), Denial::UnknownContainer);
    let backend = live.and_then(|live| live.backend()).ok_or_else(missing)?;
    // One user may have a key under two numbers.
    let mut owned = holders.iter().filter(|holder| holder.owner == backend.owner()).peekable();
    owned.peek().ok_or(Denial::NotTheOwner)?;
    let access = backend.ssh().ok_or(Denial::SshOff)?;
    let holder = owned.find(|holder| access.takes(holder.key_id)).ok_or(Denial::KeyNotChosen)?;
    Ok(Open { id, holder: *holder, backend, access })
}

/// Who opens the way to all of their containers.
fn jumper(snapshot: &Snapshot, key: &Fingerprint) -> Result<Holder, Denial> {
    let holder = snapshot.ssh_keys.holders(key).first().copied();
    holder.ok_or_else(|| unknown(snapshot.ssh_keys.is_complete(), Denial::UnknownKey))
}

fn unknown(is_complete: bool, denial: Denial) -> Denial {
    if is_complete { denial } else { Denial::NotYetKnown }
}

fn admit(snapshot: &Snapshot, attempt: &Attempt<'_>) -> Result<Admission, Denial> {
    let key = Fingerprint::of(attempt.key);
    let (holder, way) = match Login::parse(attempt.username).ok_or(Denial::NoSuchLogin)? {
        Login::Container { id, user } => (open(snapshot, id, &key)?.holder, Way::Container { id, user }),
        Login::Jump => (jumper(snapshot, &key)?, Way::Jump),
    };
    let revoked = CancellationToken::new();
    Ok(Admission { owner: holder.owner, key_id: holder.key_id, fingerprint: key, way, run: Run::default(), revoked })
}

impl Open<'_> {
    fn entrance(&self, target: Target) -> Entrance {
        let retired = self.backend.life().retired().clone();
        Entrance { container: self.id, target, visit: Some(self.backend.visit()), retired }
    }

    /// How to get in by the platform or with the gateway's certificate.
    fn way_in(&self) -> Result<Target, Refusal> {
        let Some(target) = self.sshd() else { return Ok(Target::Exec) };
        match &target {
            Target::Sshd { host_key_fingerprint, .. } if host_key_fingerprint.is_empty() => {
                let message = format!(
                    "the host key of container {}'s SSH server is not known, so that it is not spoken to; \
                     stop and start the container to have one made",
                    self.id
                );
                Err(Refusal::new("no_host_key", message))
            }
            _ => Ok(target),
        }
    }

    /// Where the container's SSH server is; none if it has none.
    fn sshd(&self) -> Option<Target> {
        let id = self.id;
        match self.backend.status() {
            Status::Running => {}
            Status::Starting | Status::Hibernated => return Some(Target::Asleep),
            Status::Stopped => {
                let refusal = Refusal::new("container_stopped", format!("container {id} is stopped; start it first"));
                return Some(Target::Down(refusal));
            }
            Status::Failed => {
                let refusal = Refusal::new("container_failed", format!("container {id} has failed; start it again"));
                return Some(Target::Down(refusal));
            }
        }
        let port = self.access.port?;
        Some(match self.backend.authority(port.get()) {
            Some(address) => {
                let host_key_fingerprint = self.access.host_key.map(|key| key.to_string()).unwrap_or_default();
                Target::Sshd { address, host_key_fingerprint }
            }
            // It runs, and where it does is about to be told.
            None => Target::Asleep,
        })
    }
}

impl Admitter for Directory {
    fn arrived(&self, peer: IpAddr) -> Result<(), Refusal> {
        self.penalties.arrived(peer)
    }

    fn settled(&self, peer: IpAddr, outcome: Outcome) {
        self.penalties.settled(peer, outcome);
    }

    fn offer(&self, attempt: &Attempt<'_>) -> Result<(), Refusal> {
        self.admit(attempt).map(drop)
    }

    fn admit(&self, attempt: &Attempt<'_>) -> Result<Admission, Refusal> {
        Ok(admit(&self.router.snapshot(), attempt)?)
    }

    fn entrance(&self, admission: &Admission) -> Result<Entrance, Refusal> {
        let Way::Container { id, .. } = &admission.way else {
            return Err(Refusal::new(
                "jump_only",
                "this login leads on to containers, with ssh -J, and into none itself",
            ));
        };
        let snapshot = self.router.snapshot();
        let open = open(&snapshot, *id, &admission.fingerprint)?;
        Ok(open.entrance(open.way_in()?))
    }

    fn jump(&self, admission: &Admission, host: &str) -> Result<Entrance, Refusal> {
        let snapshot = self.router.snapshot();
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let label = snapshot.containers.zone().and_then(|zone| zone.label(&name)).unwrap_or(&name);
        let open = label.parse().map_err(|_| Denial::UnknownContainer);
        let open = open.and_then(|id| open_to_jump(&snapshot, id, &admission.fingerprint))?;
        let message = || format!("container {0} has no SSH server to jump to; log in with ssh {0}@ instead", open.id);
        let target = open.sshd().ok_or_else(|| Refusal::new("no_sshd", message()))?;
        Ok(open.entrance(target))
    }
}

/// The same as [`open`], but somebody else's container is none.
fn open_to_jump<'s>(snapshot: &'s Snapshot, id: ContainerId, key: &Fingerprint) -> Result<Open<'s>, Denial> {
    open(snapshot, id, key).map_err(|denial| match denial {
        Denial::NotTheOwner => Denial::UnknownContainer,
        denial => denial,
    })
}

/// What a session that was admitted goes on for: looked at again with every change that may concern it.
#[derive(Debug)]
pub struct Standing {
    key: Fingerprint,
    /// None: a jump that has not led to a container.
    container: Option<ContainerId>,
    /// The run of the container that it came to: it does not outlive it.
    run: Run,
    /// It is in the container already, and came to the run that is first seen.
    is_in: bool,
}

impl Standing {
    pub fn of(admission: &Admission) -> Self {
        let container = match &admission.way {
            Way::Container { id, .. } => Some(*id),
            Way::Jump => None,
        };
        Self { key: admission.fingerprint, container, run: admission.run.clone(), is_in: false }
    }

    /// Of a jump that leads to this container.
    pub fn at(admission: &Admission, container: ContainerId) -> Self {
        Self { key: admission.fingerprint, container: Some(container), run: Run::default(), is_in: true }
    }

    pub fn key(&self) -> Fingerprint {
        self.key
    }

    pub fn container(&self) -> Option<ContainerId> {
        self.container
    }

    /// Whether the session goes on.
    ///
    /// # Errors
    /// The same login would be refused now, or the container does not run any more. For one that is not in yet, whoever
    /// makes the way in waits for the container.
    pub fn check(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let Some(id) = self.container else {
            jumper(snapshot, &self.key)?;
            return Ok(());
        };
        let backend = open(snapshot, id, &self.key)?.backend;
        if self.is_in && backend.status() == Status::Running {
            self.run.settle(backend.life());
        }
        match (backend.status(), self.run.get()) {
            (_, None) if !self.is_in => Ok(()),
            (Status::Running, Some(life)) if Arc::ptr_eq(life, backend.life()) => Ok(()),
            (Status::Running | Status::Starting, _) => {
                Err(Refusal::new("container_restarted", "the container was started anew"))
            }
            (Status::Hibernated, _) => Err(Refusal::new("container_asleep", "the container was put to sleep")),
            (Status::Stopped, _) => Err(Refusal::new("container_stopped", "the container was stopped")),
            (Status::Failed, _) => Err(Refusal::new("container_failed", "the container has failed")),
        }
    }
}

#[cfg(test)]
mod tests;
