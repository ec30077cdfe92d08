//! One try of one event: its transaction, and what follows when it fails.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::AnyConnection;

use super::{Consumer, DOWN_PAUSE, Failure, LONGEST_PAUSE, Outcome, Task, retry};
use crate::bus::Delivery;
use crate::clock::micros;
use crate::consumer::retry::Retry;
use crate::database::Transaction;
use crate::dead_letter::{self, Death};
use crate::fail_point::fail_point;
use crate::message::Message;
use crate::{event_log, inbox};

/// Tries before an event is dead, counted in our database because brokers forget.
pub const MAX_ATTEMPTS: i64 = 5;
/// Pauses after the first, second, … failed try.
const PACE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), LONGEST_PAUSE];
/// Longest that a handler may take.
const LONGEST_TRY: Duration = Duration::from_secs(300);

impl Consumer {
    /// Has `task` done with: handled, put aside for later, or buried; unless nothing can be done now.
    pub(super) async fn settle(&self, task: &Task) -> Outcome {
        let started = Instant::now();
        let outcome = self.attempt(task).await;
        self.conclude(task, outcome, started).await
    }

    /// What follows from a try that began at `started`.
    pub(super) async fn conclude(&self, task: &Task, outcome: Result<Outcome, Failure>, started: Instant) -> Outcome {
        let outcome = match outcome {
            Ok(outcome) => Ok(outcome),
            Err(failure) => self.fail(task, &failure).await,
        };
        let message = task.message();
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(failure) => {
                tracing::warn!(consumer = self.spec.name, event_id = message.event_id, %failure, "an event waits");
                self.wait_for_dependency(task).await;
                Outcome::Down
            }
        };
        if let Some(metrics) = &self.metrics {
            metrics.processed(&message.subject, outcome, started.elapsed());
        }
        outcome
    }

    /// One try, in one transaction.
    pub(super) async fn attempt(&self, task: &Task) -> Result<Outcome, Failure> {
        let (message, now) = (task.message(), self.clock.now());
        let mut transaction = self.database.begin().await?;
        match task {
            Task::Delivered(delivery) => {
                if self.puts_behind(delivery, &mut transaction).await? {
                    self.database.commit(transaction).await?;
                    return Ok(Outcome::Behind);
                }
            }
            Task::Retried(retry) => {
                if !retry::take(&mut transaction, retry.id).await? {
                    return Ok(Outcome::Duplicate);
                }
            }
            Task::Requeued(letter) => {
                if !dead_letter::take(&mut transaction, letter.id).await? {
                    return Ok(Outcome::Duplicate);
                }
            }
        }
        let new = inbox::note(&mut transaction, self.spec.name, &[message], now).await?;
        // A letter has been in the inbox since it died.
        if new.is_empty() && !matches!(task, Task::Requeued(_)) {
            self.database.commit(transaction).await?;
            return Ok(Outcome::Duplicate);
        }
        self.handle(message, &mut transaction).await?;
        event_log::completed(&mut transaction, self.spec.name, &[message], now).await?;
        self.commit(transaction).await?;
        Ok(Outcome::Handled)
    }

    /// Has a delivery wait if an earlier event of its entity does. Whether that is so.
    pub(super) async fn puts_behind(
        &self,
        delivery: &Delivery,
        connection: &mut AnyConnection,
    ) -> Result<bool, Failure> {
        let (message, now) = (&delivery.message, self.clock.now());
        if !retry::holds_up(connection, &self.spec, message).await? {
            return Ok(false);
        }
        let (stream_seq, message) = (delivery.seq, message.clone());
        let behind = Retry { id: 0, stream_seq, message, attempts: 0, first_at: now, due_at: now };
        retry::put(connection, &self.spec, &behind).await?;
        Ok(true)
    }

    /// Commits effects.
    pub(super) async fn commit(&self, transaction: Transaction) -> sqlx::Result<()> {
        fail_point!("consumer.handled");
        self.database.commit(transaction).await?;
        fail_point!("consumer.committed");
        Ok(())
    }

    /// Runs the handler; one that panics or hangs has failed like any other, and others go on.
    pub(super) async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        fail_point!("consumer.delivered");
        // What it leaves half done is in the transaction, which is rolled back.
        let handling = AssertUnwindSafe(self.handler.handle(message, connection)).catch_unwind();
        match tokio::time::timeout(LONGEST_TRY, handling).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Failure::Transient(format!("the handler panicked: {}", said(&*panic)))),
            Err(_) => Err(Failure::Transient(format!("the handler took more than {} s", LONGEST_TRY.as_secs()))),
        }
    }

    /// Counts a failed try: the event waits for the next, or is dead now.
    async fn fail(&self, task: &Task, failure: &Failure) -> Result<Outcome, Failure> {
        let error = match failure {
            Failure::DependencyDown(_) => return Err(failure.clone()),
            Failure::Transient(error) | Failure::Permanent(error) => error,
        };
        let (message, now) = (task.message(), self.clock.now());
        let (stream_seq, failed, first_at) = match task {
            Task::Delivered(delivery) => (delivery.seq, 0, now),
            Task::Retried(retry) if retry.attempts == 0 => (retry.stream_seq, 0, now),
            Task::Retried(retry) => (retry.stream_seq, retry.attempts, retry.first_at),
            // Its earlier tries are counted already.
            Task::Requeued(letter) => (letter.stream_seq, 0, letter.first_at),
        };
        let attempts = failed + 1;
        let is_letter = matches!(task, Task::Requeued(_));
        let is_dead = is_letter || attempts >= MAX_ATTEMPTS || matches!(failure, Failure::Permanent(_));
        let mut transaction = self.database.begin().await?;
        if is_dead {
            if let Task::Retried(retry) = task {
                retry::take(&mut transaction, retry.id).await?;
            }
            // The bus may deliver it again if it does not hear our answer.
            inbox::note(&mut transaction, self.spec.name, &[message], now).await?;
            let (stream, consumer) = (self.spec.stream.name, self.spec.name);
            let death = Death { stream, stream_seq, consumer, error, attempts, first_at, now };
            dead_letter::bury(&mut transaction, message, &death).await?;
        } else {
            let pause = PACE[(attempts as usize).clamp(1, PACE.len()) - 1];
            let due_at = now + micros(pause);
            let retry = Retry { id: 0, stream_seq, message: message.clone(), attempts, first_at, due_at };
            retry::put(&mut transaction, &self.spec, &retry).await?;
        }
        self.database.commit(transaction).await?;
        let (consumer, event_id) = (self.spec.name, &message.event_id);
        if is_dead {
            tracing::error!(consumer, event_id, error, attempts, "an event is dead");
            Ok(Outcome::Dead)
        } else {
            tracing::warn!(consumer, event_id, error, attempts, "an event is tried again");
            Ok(Outcome::Retried)
        }
    }

    /// A retry is due again sooner than if this process had ended.
    async fn wait_for_dependency(&self, task: &Task) {
        let Task::Retried(retry) = task else { return };
        let until = self.clock.now() + micros(DOWN_PAUSE);
        if let Err(error) = retry::put_off(&self.database, &mut retry.clone(), until).await {
            tracing::debug!(%error, "a retry waits as if the process had ended");
        }
    }
}

/// What a panic said, if it said it in words.
fn said(panic: &(dyn Any + Send)) -> &str {
    let words = panic.downcast_ref::<&str>().copied();
    words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("not in words")
}
