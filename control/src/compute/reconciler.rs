//! Makes the platform do what the database wants.
//!
//! It takes no orders: a change only wakes it, a timer repairs what nobody told of, and one path serves both. It may be
//! killed at any point. A container stays due until what was learnt of it is written, in one transaction with its
//! events, and every call to the platform can be made again.

mod plan;
mod visit;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use edd_events::clock::{Micros, micros};
use edd_proto::ContainerId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::compute::config::Reconcile;
use crate::compute::error::ComputeError;
use crate::compute::platform::Platform;
use crate::compute::service::Service;
use crate::compute::store::turn::Turn;
use crate::compute::store::{containers, due};

/// Pause when the database or the platform cannot be asked.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep between two looks at what is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// Containers that one statement compares, or puts to sleep.
const PIECE: usize = 500;

/// Drives one platform by one database. Several take turns where they know of each other, on PostgreSQL; elsewhere, and
/// while one takes the place of another, their calls repeat each other, no more.
#[derive(Clone, Debug)]
pub struct Reconciler {
    service: Service,
    /// Since when it is known which containers are used.
    since: Micros,
}

/// What is going on in a run.
#[derive(Debug, Default)]
struct Visits {
    tasks: JoinSet<()>,
    /// At most one for each container.
    containers: HashMap<tokio::task::Id, ContainerId>,
    /// Something happened to these while they were being seen to, and may have been overlooked.
    again: HashSet<ContainerId>,
}

impl Visits {
    fn is_visited(&self, id: ContainerId) -> bool {
        self.containers.values().any(|visited| *visited == id)
    }

    /// Waits for one to end; for ever if there is none. Which it was, if that has to be seen to again.
    async fn one_ends(&mut self) -> Option<ContainerId> {
        let id = match self.tasks.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((task, ()))) => self.containers.remove(&task),
            Some(Err(error)) => {
                let id = self.containers.remove(&error.id());
                tracing::error!(container = id.map(|id| id.to_string()), %error, "a container was not seen to");
                id
            }
        };
        id.filter(|id| self.again.remove(id))
    }
}

impl Reconciler {
    pub fn new(service: Service) -> Self {
        let since = service.now();
        Self { service, since }
    }

    fn settings(&self) -> Reconcile {
        self.service.config().reconcile
    }

    fn platform(&self) -> &Arc<dyn Platform> {
        self.service.platform()
    }

    /// Sees to containers until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut visits = Visits::default();
        let mut hints = self.platform().watch();
        let (mut repair_at, mut idle_at) = (Instant::now(), Instant::now() + self.settings().idle_every);
        let mut turn = Turn::new(self.service.database().clone());
        while !stop.is_cancelled() {
            if !self.has(&mut turn).await {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(AWAY_PAUSE) => {}
                    // Whoever has the turn sees to it.
                    Some(id) = hint(&mut hints) => self.hinted(id).await,
                }
                continue;
            }
            let committed = self.service.database().committed();
            tokio::pin!(committed);
            committed.as_mut().enable();
            let now = Instant::now();
            if now >= repair_at {
                let repaired = self.repair().await;
                repair_at = now + after(repaired, self.settings().repair_every, "containers are not compared");
            }
            if now >= idle_at {
                let slept = self.upkeep().await;
                idle_at = now + after(slept, self.settings().idle_every, "idle containers are not put to sleep");
            }
            let sleep = match self.begin(&mut visits).await {
                Ok(sleep) => sleep,
                Err(error) => {
                    tracing::warn!(%error, "containers wait to be seen to");
                    AWAY_PAUSE
                }
            };
            let wake_at = (now + sleep).min(repair_at).min(idle_at);
            tokio::select! {
                () = stop.cancelled() => {}
                () = committed => {}
                again = visits.one_ends() => if let Some(id) = again { self.hinted(id).await },
                () = tokio::time::sleep_until(wake_at) => {}
                hint = hint(&mut hints) => match hint {
                    Some(id) if visits.is_visited(id) => drop(visits.again.insert(id)),
                    Some(id) => self.hinted(id).await,
                    None => repair_at = now,
                },
            }
        }
        turn.leave().await;
    }

    /// Whether it is this process's turn. Without a database there is nothing to see to.
    async fn has(&self, turn: &mut Turn) -> bool {
        turn.is_ours().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "containers wait to be seen to");
            false
        })
    }

    /// Begins to see to what is due, as far as there is room. How long until something is due again.
    async fn begin(&self, visits: &mut Visits) -> Result<Duration, ComputeError> {
        let most = self.settings().concurrent;
        if visits.containers.len() >= most {
            return Ok(LONGEST_SLEEP);
        }
        // Those that are being seen to are due as well.
        for id in self.due(most + visits.containers.len()).await? {
            if visits.containers.len() < most && !visits.is_visited(id) {
                let reconciler = self.clone();
                let task = visits.tasks.spawn(async move { reconciler.visit_or_log(id).await });
                visits.containers.insert(task.id(), id);
            }
        }
        let now = self.service.now();
        let next = due::next(self.service.database().reader(), now).await?;
        let wait = next.map_or(LONGEST_SLEEP, |at| Duration::from_micros(u64::try_from(at - now).unwrap_or_default()));
        Ok(wait.min(LONGEST_SLEEP))
    }

    async fn due(&self, most: usize) -> Result<Vec<ContainerId>, ComputeError> {
        let now = self.service.now();
        let longest = self.settings().longest_pause.max(self.service.config().sleep.stop_after);
        let latest = now.saturating_add(micros(longest));
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        Ok(due::list(self.service.database().reader(), now, latest, most).await?)
    }

    /// Sees to everything that is due, one after the other, until nothing is. How many visits that took.
    ///
    /// # Errors
    /// The database fails.
    pub async fn round(&self) -> Result<usize, ComputeError> {
        let mut visits = 0;
        loop {
            let due = self.due(PIECE).await?;
            if due.is_empty() {
                return Ok(visits);
            }
            for id in due {
                self.visit(id).await?;
                visits += 1;
            }
        }
    }

    async fn visit_or_log(&self, id: ContainerId) {
        if let Err(error) = self.visit(id).await {
            tracing::warn!(container = %id, %error, "what was learnt of a container could not be written");
            // It is still due: not again at once.
            tokio::time::sleep(AWAY_PAUSE).await;
        }
    }

    /// The platform says that something may have happened to a container.
    async fn hinted(&self, id: ContainerId) {
        if let Err(error) = due::mark(self.service.database().writer(), id, self.service.now()).await {
            tracing::warn!(container = %id, %error, "a change on the platform is seen later");
        }
    }

    /// Compares all containers with what the platform has: has those seen to that differ, and deletes from the platform
    /// what carries our label and is unknown here.
    ///
    /// # Errors
    /// The database or the platform cannot be asked.
    pub async fn repair(&self) -> Result<(), ComputeError> {
        let listed = tokio::time::timeout(self.settings().call_timeout, self.platform().list()).await;
        let listed = listed.map_err(|_| ComputeError::PlatformTimeout)??;
        let observed: HashMap<_, _> = listed.into_iter().map(|observed| (observed.id, observed)).collect();
        self.repair_strangers(&observed.keys().copied().collect::<Vec<_>>()).await?;
        let now = self.service.now();
        let mut after: Option<String> = None;
        loop {
            let reader = self.service.database().reader();
            let page = containers::page(reader, after.as_deref(), PIECE as u32, false).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id.to_string());
            for container in page.iter().filter(|it| it.due_at.is_none()) {
                if !plan::is_settled(container, observed.get(&container.id)) {
                    due::mark(self.service.database().writer(), container.id, now).await?;
                }
            }
        }
    }

    /// Sees to containers that the platform has and should not.
    async fn repair_strangers(&self, ids: &[ContainerId]) -> Result<(), ComputeError> {
        for piece in ids.chunks(PIECE) {
            let known = due::known(self.service.database().reader(), piece).await?;
            for known in known.iter().filter(|known| known.is_deleted && !known.is_due) {
                due::mark(self.service.database().writer(), known.id, self.service.now()).await?;
            }
            for id in piece.iter().filter(|id| known.iter().all(|known| known.id != **id)) {
                tracing::warn!(container = %id, "the platform has a container that nobody knows: it is deleted");
                if let Err(error) = self.call(self.platform().delete(*id)).await {
                    tracing::warn!(container = %id, %error, "it could not be deleted");
                }
            }
        }
        Ok(())
    }

    /// Puts containers to sleep that nobody uses, and deletes what deleted users have left.
    ///
    /// # Errors
    /// The database fails.
    pub async fn upkeep(&self) -> Result<(), ComputeError> {
        let database = self.service.database();
        loop {
            let now = self.service.now();
            let report_holds = micros(self.service.config().sleep.report_holds);
            let patience = due::Patience { watched: now.saturating_sub(self.since), report_holds };
            let slept = due::put_idle_to_sleep(database.writer(), now, patience, PIECE as u32).await?;
            slept.iter().for_each(|user| self.service.changed(*user));
            if slept.len() < PIECE {
                break;
            }
        }
        while self.service.clear_departed().await? {}
        Ok(())
    }
}

/// When to come again: sooner after a failure, which is logged.
fn after(outcome: Result<(), ComputeError>, every: Duration, what: &str) -> Duration {
    match outcome {
        Ok(()) => every,
        Err(error) => {
            tracing::warn!(%error, "{what}");
            every.min(AWAY_PAUSE)
        }
    }
}

/// The next hint of the platform; none if some were missed.
async fn hint(hints: &mut broadcast::Receiver<ContainerId>) -> Option<ContainerId> {
    match hints.recv().await {
        Ok(id) => Some(id),
        Err(RecvError::Lagged(_)) => None,
        // It gives no more: the timer is left.
        Err(RecvError::Closed) => std::future::pending().await,
    }
}
