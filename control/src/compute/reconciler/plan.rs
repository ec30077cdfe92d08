//! What to do about a container, and what to tell of it: pure.

use edd_events::clock::Micros;

use crate::compute::model::{Container, Status, Wanted};
use crate::compute::platform::{Observed, Phase};
use crate::compute::service::Happening;

/// The call that brings a container nearer to what is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Make what is lacking, and start it.
    Start,
    Pause,
    Stop,
    Delete,
    Nothing,
}

/// When a container that sleeps with its memory kept is stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sleeping {
    pub(super) can_pause: bool,
    /// After it fell asleep.
    pub(super) stop_after: Micros,
}

impl Sleeping {
    fn stops_at(self, container: &Container) -> Micros {
        container.status_at.saturating_add(self.stop_after)
    }
}

/// What to do about `container`, which the platform has as `observed`.
pub(super) fn next(container: &Container, observed: Option<&Observed>, sleeping: Sleeping, now: Micros) -> Step {
    if container.deleted_at.is_some() {
        return Step::Delete;
    }
    let phase = observed.map(|observed| &observed.phase);
    match (container.wanted, phase) {
        (Wanted::Running, Some(Phase::Running)) => Step::Nothing,
        (Wanted::Running, _) => Step::Start,
        (Wanted::Hibernated | Wanted::Idle, Some(Phase::Running)) if sleeping.can_pause => Step::Pause,
        (Wanted::Hibernated | Wanted::Idle, Some(Phase::Paused)) => {
            let sleeps_for_long = container.status == Status::Hibernated && now >= sleeping.stops_at(container);
            if sleeps_for_long { Step::Stop } else { Step::Nothing }
        }
        (_, Some(Phase::Running | Phase::Paused)) => Step::Stop,
        (_, None | Some(Phase::Stopped | Phase::Failed(_))) => Step::Nothing,
    }
}

/// Whether `container` is as it is wanted, and known as it is.
pub(super) fn is_settled(container: &Container, observed: Option<&Observed>) -> bool {
    // Given up: only its owner can help.
    let is_hopeless = container.status == Status::Failed && container.wanted == Wanted::Running;
    let runs = observed.is_some_and(|observed| observed.phase == Phase::Running);
    if is_hopeless && !runs {
        return true;
    }
    let status = match container.wanted {
        Wanted::Running => Status::Running,
        Wanted::Hibernated | Wanted::Idle => Status::Hibernated,
        Wanted::Stopped => Status::Stopped,
    };
    let mut learnt = container.clone();
    container.status == status
        && learn(&mut learnt, observed, container.status_at).is_empty()
        // A container that sleeps is due when it is to be stopped.
        && match (container.wanted, observed.map(|observed| &observed.phase)) {
            (Wanted::Running, phase) => phase == Some(&Phase::Running),
            (_, phase) => !matches!(phase, Some(Phase::Running | Phase::Paused)),
        }
}

/// When a container is to be looked at again that is as it is wanted.
pub(super) fn due_again(container: &Container, observed: Option<&Observed>, sleeping: Sleeping) -> Option<Micros> {
    let is_paused = observed.is_some_and(|observed| observed.phase == Phase::Paused);
    (container.wanted.is_asleep() && is_paused).then(|| sleeping.stops_at(container))
}

/// Takes over what the platform shows of a live container; what is to be told of that.
pub(super) fn learn(container: &mut Container, observed: Option<&Observed>, now: Micros) -> Vec<Happening> {
    let before = (container.status, container.address, container.http_port, container.ssh_port);
    let status = match (observed.map(|observed| &observed.phase), container.wanted) {
        (Some(Phase::Running), _) => Status::Running,
        (Some(Phase::Paused), _) => Status::Hibernated,
        (_, Wanted::Stopped) => Status::Stopped,
        (_, Wanted::Hibernated | Wanted::Idle) => Status::Hibernated,
        (Some(Phase::Failed(why)), Wanted::Running) => return fail(container, why, now),
        // Somebody else stopped it.
        (None | Some(Phase::Stopped), Wanted::Running) if container.status == Status::Running => Status::Stopped,
        // It is on its way.
        (None | Some(Phase::Stopped), Wanted::Running) => container.status,
    };
    let is_reachable = matches!(observed.map(|observed| &observed.phase), Some(Phase::Running | Phase::Paused));
    match observed.filter(|_| is_reachable) {
        Some(Observed { address, http_port, ssh_port, .. }) => {
            (container.address, container.http_port, container.ssh_port) = (*address, *http_port, *ssh_port);
        }
        None => container.address = None,
    }
    if status != container.status {
        (container.status, container.status_at) = (status, now);
    }
    if matches!(status, Status::Running | Status::Stopped | Status::Hibernated) {
        container.reason.clear();
    }
    let mut told = Vec::new();
    let after = (status, container.address, container.http_port, container.ssh_port);
    if after.1.is_some() && (after.1, after.2, after.3) != (before.1, before.2, before.3) {
        told.push(Happening::AddressAssigned);
    }
    // It may sleep on and have lost its address, as one does that is stopped in its sleep.
    if status != before.0 || (before.1.is_some() && after.1.is_none()) {
        told.push(match status {
            Status::Running if before.0 == Status::Hibernated => Happening::Woken,
            Status::Running => Happening::Started,
            Status::Hibernated => Happening::Hibernated,
            Status::Stopped => Happening::Stopped,
            Status::Pending | Status::Failed => Happening::Failed,
        });
    }
    told
}

/// Notes that a container failed; what is to be told of that.
pub(super) fn fail(container: &mut Container, why: &str, now: Micros) -> Vec<Happening> {
    let is_news = container.status != Status::Failed || container.address.is_some();
    if container.status != Status::Failed {
        (container.status, container.status_at) = (Status::Failed, now);
    }
    let is_other = container.reason != why;
    container.reason = why.to_owned();
    container.address = None;
    if is_news || is_other { vec![Happening::Failed] } else { Vec::new() }
}
