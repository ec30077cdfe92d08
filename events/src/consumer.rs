//! What a service does with the events of others: each takes effect once, in its entity's order.
//!
//! Effect and inbox row are one transaction, and the bus is answered after its commit. A crash between
//! the two brings the event again, and the inbox tells that it was had. Events that come together and fare well share a
//! transaction.
//!
//! The bus never waits for a second try: what failed is put into the table `retries`, and the bus is told that it is
//! done. A thousand events that fail for minutes hold none of the bus's places for unanswered deliveries, and what
//! follows them in their entities is kept in order whatever order a broker redelivers in.

mod attempt;
mod coverage;
mod decode;
mod retry;
mod run;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use edd_proto::Consumer as Spec;
use futures_util::future::join_all;
use sqlx::AnyConnection;
use tokio_util::sync::CancellationToken;

pub use self::attempt::MAX_ATTEMPTS;
pub use self::coverage::covered;
pub use self::decode::decode;
use self::retry::Retry;
use crate::bus::{ACK_WAIT, Answer, Bus, BusError, Delivery};
use crate::clock::{Clock, Micros, micros};
use crate::database::{Database, Kind, is_outage};
use crate::dead_letter::{self, DeadLetter};
use crate::fail_point::fail_point;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::publisher::PublishError;

/// Pause while something that everybody needs is away: no event is to blame.
const DOWN_PAUSE: Duration = Duration::from_secs(5);
/// Events fetched in one go.
const BATCH: usize = 64;
/// Longest wait for one.
const WAIT: Duration = Duration::from_secs(5);
/// Requeued letters tried in one round.
const REQUEUED: u32 = 16;
/// How often the bus hears that a delivery is still being worked on: two signs may be lost.
const SIGN_EVERY: Duration = Duration::from_secs(ACK_WAIT.as_secs() / 3);
/// Longest that an event waits for its next try. One that seems to wait for longer was put aside by a clock that was set
/// back since: such a clock must not hold its entity up until it is where it was.
const LONGEST_PAUSE: Duration = ACK_WAIT;
/// Handlers that run at once on PostgreSQL, within its connections. SQLite has one writer, for which others would wait.
const WORKERS: usize = 4;

/// Why an event had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Another try may do.
    #[error("{0}")]
    Transient(String),
    /// No try will do: the bytes are broken, the event contradicts what must hold.
    #[error("{0}")]
    Permanent(String),
    /// The event is fine; a database or a service is away.
    #[error("{0}")]
    DependencyDown(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        if is_outage(&error) { Self::DependencyDown(error.to_string()) } else { Self::Transient(error.to_string()) }
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Database(error) => error.into(),
            error => Self::Permanent(error.to_string()),
        }
    }
}

/// What a service does with an event.
#[async_trait]
pub trait Handler: Debug + Send + Sync {
    /// Gives `message` its effect, inside the transaction of `connection`. An effect outside the database
    /// must be idempotent by the message's id.
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure>;
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Handled,
    /// It had its effect before.
    Duplicate,
    /// It failed and is tried again after a pause.
    Retried,
    /// An earlier event of its entity is tried again first.
    Behind,
    Dead,
    /// Nothing can be handled now; it keeps its place.
    Down,
}

/// An event to be handled, and where it comes from.
#[derive(Clone, Debug)]
enum Task {
    Delivered(Delivery),
    Retried(Retry),
    Requeued(DeadLetter),
}

impl Task {
    fn message(&self) -> &Message {
        match self {
            Self::Delivered(delivery) => &delivery.message,
            Self::Retried(retry) => &retry.message,
            Self::Requeued(letter) => &letter.message,
        }
    }

    fn delivery(&self) -> Option<&Delivery> {
        match self {
            Self::Delivered(delivery) => Some(delivery),
            Self::Retried(_) | Self::Requeued(_) => None,
        }
    }
}

/// One durable consumer.
#[derive(Debug)]
pub struct Consumer {
    spec: Spec,
    database: Database,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    handler: Arc<dyn Handler>,
    metrics: Option<Metrics>,
    workers: usize,
    sign_every: Duration,
    /// Delivered and not done with, because everything is down: tried again before anything else is fetched, so that
    /// an outage changes no order.
    held: Vec<Delivery>,
}

impl Consumer {
    pub fn new(
        spec: Spec,
        database: Database,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        handler: Arc<dyn Handler>,
    ) -> Self {
        let workers = match database.kind() {
            Kind::Sqlite => 1,
            Kind::Postgres => WORKERS,
        };
        let (metrics, held) = (None, Vec::new());
        Self { spec, database, bus, clock, handler, metrics, workers, sign_every: SIGN_EVERY, held }
    }

    /// Counts what it does.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// Handles what comes until told to stop; what is begun is finished first.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let reason = match self.round_until(&stop, WAIT).await {
                Ok(outcomes) if outcomes.contains(&Outcome::Down) => "something that it needs is away".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            tracing::warn!(consumer = self.spec.name, stream = self.spec.stream.name, reason, "events wait");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(DOWN_PAUSE) => {}
            }
        }
        // Without this they would come again only when the wait for our answer is over.
        for delivery in std::mem::take(&mut self.held) {
            if self.bus.answer(&self.spec, &delivery, Answer::Later(Duration::ZERO)).await.is_err() {
                return;
            }
        }
    }

    /// Handles what is to be tried again, and one batch; waits up to `wait` for it to come. What became of them, in the
    /// order of each entity.
    pub async fn round(&mut self, wait: Duration) -> Result<Vec<Outcome>, BusError> {
        self.round_until(&CancellationToken::new(), wait).await
    }

    async fn round_until(&mut self, stop: &CancellationToken, wait: Duration) -> Result<Vec<Outcome>, BusError> {
        for delivery in &self.held {
            self.bus.answer(&self.spec, delivery, Answer::InProgress).await?;
        }
        let Ok((tasks, next_due)) = self.waiting().await.inspect_err(|error| {
            tracing::warn!(consumer = self.spec.name, %error, "what is to be tried again waits");
        }) else {
            return Ok(vec![Outcome::Down]);
        };
        // What was behind one of them is due as soon as it is done with.
        let next_due = if tasks.is_empty() { next_due } else { Some(self.clock.now()) };
        let mut outcomes = self.work(tasks, stop).await?;
        if outcomes.contains(&Outcome::Down) || stop.is_cancelled() {
            return Ok(outcomes);
        }
        if self.held.is_empty() {
            let wait = next_due.map_or(wait, |due| wait.min(self.until(due)));
            self.held = tokio::select! {
                () = stop.cancelled() => return Ok(outcomes),
                pulled = self.bus.pull(&self.spec, BATCH, wait) => pulled?,
            };
        }
        let deliveries = std::mem::take(&mut self.held);
        outcomes.extend(self.work(deliveries.into_iter().map(Task::Delivered).collect(), stop).await?);
        Ok(outcomes)
    }

    /// Requeued letters and due retries, and when the next retry is.
    async fn waiting(&self) -> sqlx::Result<(Vec<Task>, Option<Micros>)> {
        let filter = dead_letter::Filter { consumer: Some(self.spec.name), stream: Some(self.spec.stream.name) };
        let letters = dead_letter::list(&self.database, dead_letter::State::Requeued, filter, 0, REQUEUED).await?;
        let mut tasks: Vec<_> = letters.into_iter().map(Task::Requeued).collect();
        let (now, mut next_due) = (self.clock.now(), None);
        for mut retry in retry::heads(&self.database, &self.spec, BATCH).await? {
            if retry.due_at > now && retry.due_at <= now + micros(LONGEST_PAUSE) {
                next_due = next_due.or(Some(retry.due_at));
                continue;
            }
            // Due once more if this process ends before it is done.
            if retry::put_off(&self.database, &mut retry, now + micros(LONGEST_PAUSE)).await? {
                tasks.push(Task::Retried(retry));
            }
        }
        Ok((tasks, next_due))
    }

    fn until(&self, due: Micros) -> Duration {
        Duration::from_micros(u64::try_from(due - self.clock.now()).unwrap_or_default())
    }

    /// Works through `tasks`: the events of one entity in order, several entities at once. The bus hears all the while
    /// that nothing of it is forgotten.
    async fn work(&mut self, tasks: Vec<Task>, stop: &CancellationToken) -> Result<Vec<Outcome>, BusError> {
        let unanswered = Unanswered::of(&tasks);
        let work =
            join_all(queues(tasks, self.workers).into_iter().map(|queue| self.work_queue(queue, &unanswered, stop)));
        let done = tokio::select! {
            done = work => done,
            endless = self.signs_of_life(&unanswered) => match endless {},
        };
        let (mut outcomes, mut failure) = (Vec::new(), None);
        for (some, failed) in done {
            outcomes.extend(some);
            failure = failure.or(failed);
        }
        self.held.extend(unanswered.into_rest());
        failure.map_or(Ok(outcomes), Err)
    }

    async fn work_queue(
        &self,
        queue: Vec<Task>,
        unanswered: &Unanswered,
        stop: &CancellationToken,
    ) -> (Vec<Outcome>, Option<BusError>) {
        let mut outcomes = Vec::new();
        let mut rest = &queue[..];
        while !rest.is_empty() && !stop.is_cancelled() {
            let settled = self.settle_some(rest, stop).await;
            let (done, left) = rest.split_at(settled.len());
            rest = left;
            outcomes.extend(&settled);
            if let Err(error) = self.answer(done, &settled, unanswered).await {
                // They come again, and the inbox knows them.
                return (outcomes, Some(error));
            }
            if settled.contains(&Outcome::Down) {
                // What follows must not overtake what could not be handled.
                outcomes.extend(rest.iter().map(|_| Outcome::Down));
                break;
            }
        }
        (outcomes, None)
    }

    /// Tells the bus what became of its deliveries.
    async fn answer(&self, tasks: &[Task], outcomes: &[Outcome], unanswered: &Unanswered) -> Result<(), BusError> {
        let (mut acknowledged, mut terminated) = (Vec::new(), Vec::new());
        for (task, outcome) in tasks.iter().zip(outcomes) {
            match (task, outcome) {
                (Task::Retried(_) | Task::Requeued(_), _) | (_, Outcome::Down) => {}
                (Task::Delivered(delivery), Outcome::Dead) => terminated.push(delivery),
                (Task::Delivered(delivery), _) => acknowledged.push(delivery),
            }
        }
        for (deliveries, answer) in [(acknowledged, Answer::Ack), (terminated, Answer::Terminate)] {
            if deliveries.is_empty() {
                continue;
            }
            deliveries.iter().for_each(|delivery| unanswered.forget(delivery.seq));
            self.bus.answer_all(&self.spec, &deliveries, answer).await?;
            fail_point!("consumer.answered");
        }
        Ok(())
    }

    /// Tells the bus again and again that what is unanswered is being worked on.
    async fn signs_of_life(&self, unanswered: &Unanswered) -> Infallible {
        loop {
            tokio::time::sleep(self.sign_every).await;
            for delivery in unanswered.all() {
                // Answered meanwhile, perhaps: a sign after a refusal would put it off.
                if unanswered.holds(delivery.seq)
                    && let Err(error) = self.bus.answer(&self.spec, &delivery, Answer::InProgress).await
                {
                    tracing::debug!(consumer = self.spec.name, %error, "the bus may deliver again what is worked on");
                    break;
                }
            }
        }
    }
}

/// Deliveries that the bus waits to hear of.
#[derive(Debug)]
struct Unanswered(Mutex<BTreeMap<u64, Delivery>>);

impl Unanswered {
    fn of(tasks: &[Task]) -> Self {
        let deliveries = tasks.iter().filter_map(|task| match task {
            Task::Delivered(delivery) => Some((delivery.seq, delivery.clone())),
            Task::Retried(_) | Task::Requeued(_) => None,
        });
        Self(Mutex::new(deliveries.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Delivery>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, seq: u64) {
        self.lock().remove(&seq);
    }

    fn holds(&self, seq: u64) -> bool {
        self.lock().contains_key(&seq)
    }

    fn all(&self) -> Vec<Delivery> {
        self.lock().values().cloned().collect()
    }

    /// What is left, in order.
    fn into_rest(self) -> impl Iterator<Item = Delivery> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).into_values()
    }
}

/// Deals `tasks` out to at most `workers` queues: one entity's all to the same, in their order.
fn queues(tasks: Vec<Task>, workers: usize) -> Vec<Vec<Task>> {
    let mut queues = vec![Vec::new(); workers];
    for task in tasks {
        let mut hasher = DefaultHasher::new();
        task.message().entity.hash(&mut hasher);
        queues[(hasher.finish() % workers as u64) as usize].push(task);
    }
    queues
}

#[cfg(test)]
mod tests;
