//! One look at one container: what is wanted, what is, one step from here to there, and what was learnt.

use edd_events::clock::{Micros, micros};
use edd_proto::ContainerId;

use super::Reconciler;
use super::plan::{self, Sleeping, Step};
use crate::compute::error::ComputeError;
use crate::compute::model::{Container, Status, Wanted};
use crate::compute::platform::{Observed, Phase, PlatformError, Spec};
use crate::compute::service::{Happening, tell};
use crate::compute::store::{containers, due};

/// How a step came out.
#[derive(Debug)]
enum Outcome {
    /// As far as is known, it is as it is wanted.
    Seen(Option<Observed>),
    /// It cannot be as it is wanted, for this reason.
    Hopeless(String),
    /// It may be later. What is known of it now, if anything is.
    Later(String, Option<Option<Observed>>),
}

impl Reconciler {
    /// Sees to one container.
    ///
    /// # Errors
    /// What was learnt could not be written: the container stays due.
    pub async fn visit(&self, id: ContainerId) -> Result<(), ComputeError> {
        let Some(container) = containers::by_id(self.service.database().reader(), id).await? else { return Ok(()) };
        let outcome = self.advance(&container).await?;
        self.write(&container, outcome).await
    }

    /// Takes the one step that `container` needs.
    async fn advance(&self, container: &Container) -> Result<Outcome, ComputeError> {
        let observed = match self.call(self.platform().observe(container.id)).await {
            Ok(observed) => observed,
            Err(error) => return Ok(Outcome::Later(error.to_string(), None)),
        };
        if let Some(Phase::Failed(why)) = observed.as_ref().map(|observed| &observed.phase)
            && container.wanted == Wanted::Running
            && container.deleted_at.is_none()
            && container.status != Status::Failed
        {
            // Told before it is tried again.
            return Ok(Outcome::Later(why.clone(), Some(observed)));
        }
        let step = self.next(container, observed.as_ref());
        let done = match step {
            Step::Nothing => return Ok(Outcome::Seen(observed)),
            Step::Start => self.start(container, observed.as_ref()).await?.map(Some),
            Step::Pause => self.call(self.platform().pause(container.id)).await.map(|()| None),
            Step::Stop => self.call(self.platform().stop(container.id, self.settings().grace)).await.map(|()| None),
            Step::Delete => self.call(self.platform().delete(container.id)).await.map(|()| None),
        };
        Ok(match done {
            Ok(Some(observed)) => self.judge(container, Some(observed)),
            Ok(None) => match self.call(self.platform().observe(container.id)).await {
                Ok(observed) => self.judge(container, observed),
                Err(error) => Outcome::Later(error.to_string(), None),
            },
            Err(PlatformError::Impossible(why)) if step == Step::Start => Outcome::Hopeless(why),
            Err(error) => {
                Outcome::Later(error.to_string(), self.call(self.platform().observe(container.id)).await.ok())
            }
        })
    }

    /// Starts a container, which is made first unless it merely sleeps.
    async fn start(
        &self,
        container: &Container,
        observed: Option<&Observed>,
    ) -> Result<Result<Observed, PlatformError>, ComputeError> {
        if observed.is_none_or(|observed| observed.phase != Phase::Paused) {
            if due::begin(self.service.database().writer(), container.id).await? {
                self.service.changed(container.owner);
            }
            if let Err(error) = self.call(self.platform().ensure(&spec(container))).await {
                return Ok(Err(error));
            }
        }
        Ok(self.call(self.platform().start(container.id)).await)
    }

    /// Whether a step had the effect that it was for.
    fn judge(&self, container: &Container, observed: Option<Observed>) -> Outcome {
        let is_gone = container.deleted_at.is_some() && observed.is_none();
        match observed.as_ref().map(|observed| &observed.phase) {
            _ if is_gone => Outcome::Seen(None),
            Some(Phase::Failed(why)) if container.wanted == Wanted::Running && container.deleted_at.is_none() => {
                Outcome::Later(why.clone(), Some(observed))
            }
            _ if self.next(container, observed.as_ref()) == Step::Nothing => Outcome::Seen(observed),
            _ => Outcome::Later("the platform did not do what it said".to_owned(), Some(observed)),
        }
    }

    fn next(&self, container: &Container, observed: Option<&Observed>) -> Step {
        plan::next(container, observed, self.sleeping(), self.service.now())
    }

    fn sleeping(&self) -> Sleeping {
        let stop_after = micros(self.service.config().sleep.stop_after);
        Sleeping { can_pause: self.platform().capabilities().can_pause, stop_after }
    }

    /// A call to the platform, bounded in time.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, PlatformError>>,
    ) -> Result<T, PlatformError> {
        let limit = self.settings().call_timeout;
        let answer = tokio::time::timeout(limit, call).await;
        answer.unwrap_or_else(|_| {
            Err(PlatformError::Unavailable(format!("the platform did not answer in {} s", limit.as_secs())))
        })
    }

    /// Writes what was learnt since `seen` was read, with its events, and when the container is due again.
    async fn write(&self, seen: &Container, outcome: Outcome) -> Result<(), ComputeError> {
        let database = self.service.database();
        let mut transaction = database.begin().await?;
        let Some(mut container) = containers::lock(&mut transaction, seen.id).await? else { return Ok(()) };
        let (now, before) = (self.service.now(), container.clone());
        let (told, due_at) = match outcome {
            _ if container.deleted_at.is_some() => (Vec::new(), self.due_when_deleted(&mut container, &outcome, now)),
            Outcome::Seen(observed) => {
                container.is_starting = false;
                if container.wanted != Wanted::Running {
                    container.attempts = 0;
                }
                let told = plan::learn(&mut container, observed.as_ref(), now);
                let due_at = plan::due_again(&container, observed.as_ref(), self.sleeping());
                (told, due_at)
            }
            Outcome::Hopeless(why) => {
                container.is_starting = false;
                (plan::fail(&mut container, &why, now), None)
            }
            Outcome::Later(why, observed) => {
                let told = self.learn_failure(&mut container, &why, observed.as_ref(), now);
                (told, Some(self.put_off(&mut container, &before, now)))
            }
        };
        // What is wanted changed meanwhile: that is due, and this says nothing of it.
        container.due_at = if before.generation == seen.generation { due_at } else { before.due_at.or(Some(now)) };
        for what in told {
            let cause = container.cause.clone();
            tell(self.service.publisher(), &mut transaction, &mut container, what, &cause).await?;
        }
        if container == before {
            return Ok(());
        }
        containers::save(&mut *transaction, &container).await?;
        database.commit(transaction).await?;
        self.service.changed(container.owner);
        Ok(())
    }

    /// When a container is due again of which only the tombstone is left to keep.
    fn due_when_deleted(&self, container: &mut Container, outcome: &Outcome, now: Micros) -> Option<Micros> {
        match outcome {
            Outcome::Seen(None) => None,
            Outcome::Seen(Some(_)) => Some(now),
            Outcome::Hopeless(why) | Outcome::Later(why, _) => {
                tracing::warn!(container = %container.id, reason = why, "a deleted container is still there");
                container.attempts = container.attempts.saturating_add(1);
                Some(now.saturating_add(self.pause(container.attempts)))
            }
        }
    }

    /// What is to be told of a step that failed.
    fn learn_failure(
        &self,
        container: &mut Container,
        why: &str,
        observed: Option<&Option<Observed>>,
        now: Micros,
    ) -> Vec<Happening> {
        tracing::info!(container = %container.id, reason = why, "a container is not as it is wanted yet");
        let Some(observed) = observed else {
            // Nothing is known of it, so that what the world was told stays.
            container.reason = plan::shortened(why);
            return Vec::new();
        };
        let phase = observed.as_ref().map(|observed| &observed.phase);
        match phase {
            _ if container.wanted != Wanted::Running => {}
            Some(Phase::Running) => {}
            Some(Phase::Failed(own)) => return plan::fail(container, own, now),
            // The world was told that it runs.
            _ if container.status == Status::Running => return plan::fail(container, why, now),
            _ => {}
        }
        let told = plan::learn(container, observed.as_ref(), now);
        if container.status != Status::Failed {
            container.reason = plan::shortened(why);
        }
        told
    }

    /// When a container is due again after a failure, which is counted: the first one after it ran for a while is the
    /// first again.
    fn put_off(&self, container: &mut Container, before: &Container, now: Micros) -> Micros {
        let ran_for = if before.status == Status::Running { now.saturating_sub(before.status_at) } else { 0 };
        if ran_for >= micros(self.settings().longest_pause) {
            container.attempts = 0;
        }
        container.attempts = container.attempts.saturating_add(1);
        now.saturating_add(self.pause(container.attempts))
    }

    /// The pause after so many failures.
    fn pause(&self, attempts: u32) -> Micros {
        let settings = self.settings();
        let doubled = settings.first_pause.saturating_mul(1 << attempts.saturating_sub(1).min(20));
        micros(doubled.min(settings.longest_pause))
    }
}

/// What the platform is told of a container.
fn spec(container: &Container) -> Spec {
    Spec {
        id: container.id,
        owner: container.owner,
        name: container.name.clone(),
        image: container.image.clone(),
        pull: container.pull,
        memory_mb: container.memory_mb,
        cpu_millis: container.instance_type.cpu_millis(),
        storage_gb: container.storage_gb,
        mount_paths: container.mount_paths.as_slice().to_vec(),
        environment: std::collections::BTreeMap::new(),
    }
}
