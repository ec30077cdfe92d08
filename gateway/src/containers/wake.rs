//! Requests for containers that sleep: held, within bounds, while the container wakes up.
//!
//! The first request for a container has it woken, and all that come meanwhile wait for the same outcome. Nothing of
//! this is met by requests for a container that runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edd_proto::ContainerId;
use tokio::net::TcpStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::containers::keeper::{Keeper, KeeperError};
use crate::containers::metrics::Metrics;
use crate::live::{Hop, Place, Status};
use crate::router::Router;

/// Requests that wait for one container.
pub const MAX_HELD_PER_CONTAINER: usize = 100;
/// Requests that wait for any.
pub const MAX_HELD: usize = 4096;

/// Containers that are being woken at a time.
pub const MAX_WAKING: usize = 1024;

/// When things are done, and given up.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the first request to the first connection.
    pub longest_wake: Duration,
    /// Between two tries to connect.
    pub probe_every: Duration,
    /// Longest wait for one of them.
    pub probe_timeout: Duration,
    /// Longest wait for compute to take an order.
    pub order_timeout: Duration,
    /// Pause after compute did not answer, doubled with each time.
    pub first_pause: Duration,
    /// How long a person waits before there is a page to look at.
    pub page_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            longest_wake: Duration::from_secs(60),
            probe_every: Duration::from_millis(75),
            probe_timeout: Duration::from_secs(1),
            order_timeout: Duration::from_secs(10),
            first_pause: Duration::from_millis(250),
            page_after: Duration::from_secs(2),
        }
    }
}

/// What became of a container that was to wake up, for one who waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Woken {
    /// It takes connections.
    Up,
    /// It is in a state that waiting does not change: deleted, stopped, failed.
    Otherwise,
    /// Not yet, and whoever asked did not want to wait any longer.
    NotYet,
    /// Too many wait already.
    Full,
    /// Compute will not.
    Refused(String),
    /// It did not wake up in time.
    TooLate,
}

impl Woken {
    /// The label in metrics of what ends a wake.
    fn label(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Otherwise => "otherwise",
            Self::NotYet => "not_yet",
            Self::Full => "full",
            Self::Refused(_) => "refused",
            Self::TooLate => "too_late",
        }
    }
}

/// Cheap handle on the containers that are being woken.
#[derive(Clone, Debug)]
pub struct Wakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    router: Router,
    keeper: Arc<dyn Keeper>,
    metrics: Arc<Metrics>,
    timing: Timing,
    places: Arc<Semaphore>,
    waking: Mutex<HashMap<ContainerId, Arc<Waking>>>,
}

/// One container on its way.
#[derive(Debug)]
struct Waking {
    places: Arc<Semaphore>,
    /// Something of it was published.
    told: Notify,
    outcome: watch::Sender<Option<Woken>>,
}

/// A request's place among those that wait.
struct Held<'a> {
    metrics: &'a Metrics,
    _overall: OwnedSemaphorePermit,
    _of_container: OwnedSemaphorePermit,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.metrics.held.dec();
    }
}

impl Wakes {
    pub(super) fn new(router: Router, keeper: Arc<dyn Keeper>, metrics: Arc<Metrics>, timing: Timing) -> Self {
        let places = Arc::new(Semaphore::new(MAX_HELD));
        Self(Arc::new(Shared { router, keeper, metrics, timing, places, waking: Mutex::default() }))
    }

    /// How long a person waits before there is a page to look at.
    pub fn page_after(&self) -> Duration {
        self.0.timing.page_after
    }

    /// After this time there is an outcome, whatever it is.
    pub fn longest_wait(&self) -> Duration {
        self.0.timing.longest_wake + self.0.timing.page_after
    }

    /// Has a container woken, unless that is under way, and waits until it takes connections, at most for `patience`.
    pub async fn wake(&self, id: ContainerId, patience: Duration) -> Woken {
        let Some((waking, is_new)) = self.waking(id) else {
            self.0.metrics.turned_away.inc();
            return Woken::Full;
        };
        if is_new {
            let (wakes, waking) = (self.clone(), Arc::clone(&waking));
            tokio::spawn(async move { wakes.see_to(id, waking).await });
        }
        self.wait(&waking, patience).await
    }

    /// Has a container woken as [`Wakes::wake`] does, but waits only until it runs at an address: for who knocks at
    /// another port than that of its host name, where perhaps nobody answers.
    pub async fn rouse(&self, id: ContainerId, patience: Duration) -> Woken {
        tokio::select! {
            biased;
            outcome = self.running(id) => outcome,
            outcome = self.wake(id, patience) => outcome,
        }
    }

    /// Waits until a container runs that is stopped or has failed as far as is known here, if compute says that it is to
    /// run: its owner's order is known there a moment before it is seen here.
    pub async fn starting(&self, id: ContainerId, patience: Duration) -> Woken {
        let (mut changed, before) = (self.0.router.changed(), self.version(id));
        match tokio::time::timeout(self.0.timing.order_timeout, self.0.keeper.wake(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(KeeperError::Refused(why))) => return Woken::Refused(why),
            Ok(Err(KeeperError::Unavailable(_))) | Err(_) => return Woken::NotYet,
        }
        let running = async {
            loop {
                match self.state(id) {
                    State::Runs(_) => return Woken::Up,
                    // It was tried, and is down again.
                    State::Otherwise if self.version(id) != before => return Woken::Otherwise,
                    State::Otherwise | State::Asleep => {}
                }
                if changed.changed().await.is_err() {
                    return Woken::Otherwise;
                }
            }
        };
        tokio::time::timeout(patience, running).await.unwrap_or(Woken::TooLate)
    }

    /// Of what is known of a container.
    fn version(&self, id: ContainerId) -> Option<i64> {
        let snapshot = self.0.router.snapshot();
        Some(snapshot.containers.get(id)?.backend()?.version())
    }

    /// Waits until a container does not sleep.
    async fn running(&self, id: ContainerId) -> Woken {
        let mut changed = self.0.router.changed();
        loop {
            match self.state(id) {
                State::Asleep => {}
                State::Runs(_) => return Woken::Up,
                State::Otherwise => return Woken::Otherwise,
            }
            if changed.changed().await.is_err() {
                return Woken::Otherwise;
            }
        }
    }

    /// Waits for a container that is being woken; none if it is not.
    pub async fn join(&self, id: ContainerId, patience: Duration) -> Option<Woken> {
        let waking = self.all().get(&id).cloned()?;
        Some(self.wait(&waking, patience).await)
    }

    /// Whether a container is being woken.
    pub fn is_waking(&self, id: ContainerId) -> bool {
        self.all().contains_key(&id)
    }

    /// What is known of these containers has changed.
    pub(super) fn tell(&self, ids: &[ContainerId]) {
        let waking = self.all();
        if !waking.is_empty() {
            ids.iter().filter_map(|id| waking.get(id)).for_each(|waking| waking.told.notify_one());
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Waking>>> {
        self.0.waking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How `id` is being woken, and whether that begins with this call; none if too many are already.
    fn waking(&self, id: ContainerId) -> Option<(Arc<Waking>, bool)> {
        let mut waking = self.all();
        if let Some(known) = waking.get(&id) {
            return Some((Arc::clone(known), false));
        }
        if waking.len() >= MAX_WAKING {
            return None;
        }
        let new = Arc::new(Waking {
            places: Arc::new(Semaphore::new(MAX_HELD_PER_CONTAINER)),
            told: Notify::new(),
            outcome: watch::Sender::new(None),
        });
        waking.insert(id, Arc::clone(&new));
        Some((new, true))
    }

    async fn wait(&self, waking: &Waking, patience: Duration) -> Woken {
        let Some(_held) = self.hold(waking) else {
            self.0.metrics.turned_away.inc();
            return Woken::Full;
        };
        let mut outcome = waking.outcome.subscribe();
        let told = tokio::time::timeout(patience, outcome.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or(Woken::NotYet),
            // The sender lives in `waking`.
            Ok(Err(_)) | Err(_) => Woken::NotYet,
        }
    }

    fn hold(&self, waking: &Waking) -> Option<Held<'_>> {
        let overall = Arc::clone(&self.0.places).try_acquire_owned().ok()?;
        let of_container = Arc::clone(&waking.places).try_acquire_owned().ok()?;
        self.0.metrics.held.inc();
        Some(Held { metrics: &self.0.metrics, _overall: overall, _of_container: of_container })
    }

    /// Wakes one container and tells those who wait.
    async fn see_to(self, id: ContainerId, waking: Arc<Waking>) {
        let began = Instant::now();
        let attempt = tokio::time::timeout(self.0.timing.longest_wake, self.attempt(id, &waking));
        let outcome = attempt.await.unwrap_or(Woken::TooLate);
        let took = began.elapsed();
        self.0.metrics.wakes.with_label_values(&[outcome.label()]).inc();
        if outcome == Woken::Up {
            self.0.metrics.wake_duration.observe(took.as_secs_f64());
        }
        tracing::info!(container = %id, ?outcome, took_ms = took.as_millis() as u64, "a request woke a container");
        // Who comes from now on finds the container as it is, and does not wait for this outcome.
        self.all().remove(&id);
        waking.outcome.send_replace(Some(outcome));
    }

    async fn attempt(&self, id: ContainerId, waking: &Waking) -> Woken {
        if let Err(error) = self.order(id).await {
            return Woken::Refused(error.to_string());
        }
        loop {
            match self.state(id) {
                State::Asleep => waking.told.notified().await,
                State::Runs(hop) if self.answers(&hop).await => return Woken::Up,
                // It may have got another address, or have stopped, meanwhile.
                State::Runs(_) => tokio::time::sleep(self.0.timing.probe_every).await,
                State::Otherwise => return Woken::Otherwise,
            }
        }
    }

    /// Asks compute until it has taken the order.
    async fn order(&self, id: ContainerId) -> Result<(), KeeperError> {
        let mut pause = self.0.timing.first_pause;
        loop {
            let asked = tokio::time::timeout(self.0.timing.order_timeout, self.0.keeper.wake(id)).await;
            match asked {
                Ok(Err(KeeperError::Unavailable(error))) => {
                    tracing::warn!(container = %id, error, "compute did not take the order to wake a container");
                }
                Ok(outcome) => return outcome,
                Err(_) => tracing::warn!(container = %id, "compute did not answer to the order to wake a container"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    fn state(&self, id: ContainerId) -> State {
        let snapshot = self.0.router.snapshot();
        let Some(backend) = snapshot.containers.get(id).and_then(|live| live.backend()) else {
            return State::Otherwise;
        };
        match (backend.status(), backend.place(), backend.hop()) {
            (Status::Hibernated | Status::Starting, ..) | (Status::Running, Place::Nowhere, _) => State::Asleep,
            (Status::Running, _, Some(hop)) => State::Runs(hop),
            _ => State::Otherwise,
        }
    }

    async fn answers(&self, hop: &Hop) -> bool {
        let Ok(address) = hop.address() else { return false };
        matches!(tokio::time::timeout(self.0.timing.probe_timeout, TcpStream::connect(address)).await, Ok(Ok(_)))
    }
}

/// What one who wakes a container has to know of it.
enum State {
    Asleep,
    Runs(Hop),
    Otherwise,
}
