//! What to do about a container, and what to tell of it: pure.

use edd_events::clock::Micros;

use crate::compute::model::{Container, Status, Wanted};
use crate::compute::platform::{Observed, Phase};
use crate::compute::service::Happening;

/// Longest reason that is kept, characters.
const MAX_REASON_CHARS: usize = 500;

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

/// A reason as it is kept and told: what a platform says may be long.
pub(super) fn shortened(why: &str) -> String {
    why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_CHARS).collect()
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
    let before = (container.status, container.address, container.http_port, container.ssh.clone());
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
        Some(Observed { address, http_port, ssh, .. }) => {
            (container.address, container.http_port, container.ssh) = (*address, *http_port, ssh.clone());
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
    let after = (status, container.address, container.http_port, container.ssh.clone());
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
    let why = shortened(why);
    let is_other = container.reason != why;
    container.reason = why;
    container.address = None;
    if is_news || is_other { vec![Happening::Failed] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use edd_proto::ContainerId;

    use super::*;
    use crate::compute::model::{Access, InstanceType, MountPaths};
    use crate::compute::platform::PullPolicy;

    const STOP_AFTER: Micros = 100;

    fn container(wanted: Wanted, status: Status) -> Container {
        let access = Access { ssh_enabled: true, ssh_keys: None, https_enabled: true, redirect_to_https: false };
        Container {
            id: "abcdefgh12".parse().expect("an id"),
            owner: "V1StGXR8_Z5jdHi6B-myT".parse().expect("an id"),
            owner_number: 1,
            owner_name: "ann".to_owned(),
            name: "x".to_owned(),
            image: "base".to_owned(),
            pull: PullPolicy::default(),
            instance_type: InstanceType::default(),
            memory_mb: 512,
            storage_gb: 5,
            mount_paths: MountPaths::parse(Vec::new()).expect("paths"),
            access,
            idle_timeout_s: 0,
            wanted,
            generation: 1,
            cause: edd_events::publisher::Cause::default(),
            status,
            status_at: 1000,
            reason: String::new(),
            is_starting: false,
            address: None,
            http_port: 0,
            ssh: None,
            last_active_at: 0,
            attempts: 0,
            due_at: None,
            version: 1,
            created_at: 0,
            deleted_at: None,
        }
    }

    fn observed(phase: Phase) -> Observed {
        let id: ContainerId = "abcdefgh12".parse().expect("an id");
        let address = matches!(phase, Phase::Running | Phase::Paused).then(|| [10, 0, 0, 1].into());
        Observed { id, phase, address, http_port: 80, ssh: None }
    }

    #[test]
    fn each_state_leads_to_what_is_wanted_by_one_step() {
        let failed = || Phase::Failed("it ended".to_owned());
        let all = [None, Some(Phase::Stopped), Some(Phase::Running), Some(Phase::Paused), Some(failed())];
        let table = [
            (Wanted::Running, [Step::Start, Step::Start, Step::Nothing, Step::Start, Step::Start]),
            (Wanted::Stopped, [Step::Nothing, Step::Nothing, Step::Stop, Step::Stop, Step::Nothing]),
            (Wanted::Hibernated, [Step::Nothing, Step::Nothing, Step::Pause, Step::Nothing, Step::Nothing]),
            (Wanted::Idle, [Step::Nothing, Step::Nothing, Step::Pause, Step::Nothing, Step::Nothing]),
        ];
        for (wanted, steps) in table {
            for (phase, step) in all.iter().zip(steps) {
                let sleeping = Sleeping { can_pause: true, stop_after: STOP_AFTER };
                let (container, observed) = (container(wanted, Status::Hibernated), phase.clone().map(observed));
                assert_eq!(next(&container, observed.as_ref(), sleeping, 1099), step, "{wanted:?} {phase:?}");
                let without = Sleeping { can_pause: false, ..sleeping };
                let step = if step == Step::Pause { Step::Stop } else { step };
                assert_eq!(next(&container, observed.as_ref(), without, 1099), step, "{wanted:?} {phase:?}");
                let gone = Container { deleted_at: Some(1), ..container };
                assert_eq!(next(&gone, observed.as_ref(), sleeping, 1099), Step::Delete);
            }
        }
    }

    #[test]
    fn what_sleeps_for_long_is_stopped_and_due_until_then() {
        let sleeping = Sleeping { can_pause: true, stop_after: STOP_AFTER };
        let (container, paused) = (container(Wanted::Idle, Status::Hibernated), observed(Phase::Paused));
        assert_eq!(due_again(&container, Some(&paused), sleeping), Some(1100));
        assert_eq!(next(&container, Some(&paused), sleeping, 1100), Step::Stop);
        assert_eq!(due_again(&container, Some(&observed(Phase::Stopped)), sleeping), None);
        let asleep_since_now = Container { status: Status::Running, ..container };
        assert_eq!(next(&asleep_since_now, Some(&paused), sleeping, 1100), Step::Nothing, "told before it is stopped");
    }

    #[test]
    fn what_was_learnt_once_is_not_told_again() {
        for wanted in [Wanted::Running, Wanted::Stopped, Wanted::Hibernated, Wanted::Idle] {
            for status in [Status::Pending, Status::Running, Status::Stopped, Status::Hibernated, Status::Failed] {
                let failed = Phase::Failed("it ended".to_owned());
                for phase in [None, Some(Phase::Stopped), Some(Phase::Running), Some(Phase::Paused), Some(failed)] {
                    let (mut container, observed) = (container(wanted, status), phase.clone().map(observed));
                    learn(&mut container, observed.as_ref(), 2000);
                    let again = learn(&mut container.clone(), observed.as_ref(), 3000);
                    assert_eq!(again, [], "{wanted:?} {status:?} {phase:?}");
                    let is_up = matches!(phase, Some(Phase::Running | Phase::Paused));
                    assert_eq!(container.address.is_some(), is_up, "{wanted:?} {status:?} {phase:?}");
                    let says_running = container.status == Status::Running;
                    assert_eq!(says_running, phase == Some(Phase::Running), "{wanted:?} {status:?} {phase:?}");
                }
            }
        }
    }

    #[test]
    fn reasons_are_one_bounded_line() {
        assert_eq!(shortened("a\nb"), "a b");
        assert_eq!(shortened(&"é".repeat(9000)).chars().count(), MAX_REASON_CHARS);
    }
}
