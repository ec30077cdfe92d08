//! One try of an event, alone or with others: its transaction, and what follows when it fails.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sqlx::AnyConnection;
use tokio_util::sync::CancellationToken;

use super::{Consumer, DOWN_PAUSE, Failure, LONGEST_PAUSE, Outcome, Task, retry};
use crate::clock::micros;
use crate::consumer::retry::Retry;
use crate::database::Transaction;
use crate::dead_letter::{self, Death};
use crate::fail_point::fail_point;
use crate::{event_log, inbox};

/// Tries before an event is dead, counted in our database because brokers forget.
pub const MAX_ATTEMPTS: i64 = 5;
/// Pauses after the first, second, … failed try.
const PACE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), LONGEST_PAUSE];
/// Longest that a handler may take.
const LONGEST_TRY: Duration = Duration::from_secs(300);
/// How long deliveries are added to a transaction: others wait for SQLite's one writer, and for the rows in PostgreSQL.
const LONGEST_RUN: Duration = Duration::from_millis(10);

/// Why the transaction of several tasks came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stumble {
    /// It could not begin, go on or end, which none of them is to blame for.
    Transaction(Failure),
    /// One of them failed. Without its failure, which may be what the others did, as a deadlock is, it is to be tried
    /// alone.
    Task(usize, Option<Failure>),
}

impl From<sqlx::Error> for Stumble {
    fn from(error: sqlx::Error) -> Self {
        Self::Transaction(error.into())
    }
}

impl Consumer {
    /// Has the first of `tasks` done with, and of the deliveries behind it as many as fit into its transaction, which
    /// is one flush of the disk for all of them. What became of each.
    ///
    /// An event that fails takes the others' effects with it: those before it are tried again without it, once. Their
    /// handlers are called a second time then, as they may be at any time.
    pub(super) async fn settle_some(&self, tasks: &[Task], stop: &CancellationToken) -> Vec<Outcome> {
        let deliveries = tasks.iter().take_while(|task| matches!(task, Task::Delivered(_))).count();
        let Some(run) = tasks.get(..deliveries).filter(|run| run.len() > 1) else {
            return vec![self.settle(&tasks[0]).await];
        };
        // A simulation's time goes on where it is told to.
        let started = tokio::time::Instant::now();
        let is_over = || stop.is_cancelled() || started.elapsed() >= LONGEST_RUN;
        let (at, failure) = match self.attempt_run(run, is_over).await {
            Ok(outcomes) => return outcomes,
            Err(Stumble::Task(at, failure)) => (at, failure),
            Err(Stumble::Transaction(failure @ Failure::DependencyDown(_))) => (0, Some(failure)),
            Err(Stumble::Transaction(_)) => (0, None),
        };
        let mut outcomes = match at {
            0 => Vec::new(),
            _ => self.attempt_run(&run[..at], || false).await.unwrap_or_default(),
        };
        outcomes.push(match failure.filter(|_| outcomes.len() == at) {
            Some(failure) => self.conclude(&run[at], Err(failure), Instant::now()).await,
            None => self.settle(&run[outcomes.len()]).await,
        });
        outcomes
    }

    /// Has `task` done with: handled, put aside for later, or buried; unless nothing can be done now.
    pub(super) async fn settle(&self, task: &Task) -> Outcome {
        let started = Instant::now();
        let outcome = self.attempt(task).await;
        self.conclude(task, outcome, started).await
    }

    /// What follows from a try that began at `started`.
    async fn conclude(&self, task: &Task, outcome: Result<Outcome, Failure>, started: Instant) -> Outcome {
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

    /// One try of one task, in one transaction.
    pub(super) async fn attempt(&self, task: &Task) -> Result<Outcome, Failure> {
        let mut transaction = self.database.begin().await?;
        let outcome = self.attempt_within(task, &mut transaction).await?;
        self.commit(transaction).await?;
        Ok(outcome)
    }

    /// One try of the first of `tasks` and of those behind it until it `is_over`, in one transaction.
    pub(super) async fn attempt_run(
        &self,
        tasks: &[Task],
        is_over: impl Fn() -> bool,
    ) -> Result<Vec<Outcome>, Stumble> {
        let mut transaction = self.database.begin().await?;
        let mut done = Vec::with_capacity(tasks.len());
        for (at, task) in tasks.iter().enumerate() {
            let begun = Instant::now();
            match self.attempt_within(task, &mut transaction).await {
                Ok(outcome) => done.push((outcome, begun.elapsed())),
                Err(failure) => {
                    let is_whole = sqlx::query("SELECT 1").execute(&mut *transaction).await.is_ok();
                    return Err(match failure {
                        Failure::DependencyDown(_) if !is_whole => Stumble::Transaction(failure),
                        failure => Stumble::Task(at, Some(failure).filter(|_| is_whole || at == 0)),
                    });
                }
            }
            if is_over() {
                break;
            }
        }
        self.commit(transaction).await?;
        if let Some(metrics) = &self.metrics {
            for (task, (outcome, took)) in tasks.iter().zip(&done) {
                metrics.processed(&task.message().subject, *outcome, *took);
            }
        }
        Ok(done.into_iter().map(|(outcome, _)| outcome).collect())
    }

    async fn commit(&self, transaction: Transaction) -> sqlx::Result<()> {
        fail_point!("consumer.handled");
        self.database.commit(transaction).await?;
        fail_point!("consumer.committed");
        Ok(())
    }

    /// One try, of which nothing remains unless the transaction is committed.
    async fn attempt_within(&self, task: &Task, connection: &mut AnyConnection) -> Result<Outcome, Failure> {
        let (message, now) = (task.message(), self.clock.now());
        match task {
            Task::Delivered(delivery) => {
                if retry::holds_up(connection, &self.spec, message).await? {
                    let (stream_seq, message) = (delivery.seq, message.clone());
                    let behind = Retry { id: 0, stream_seq, message, attempts: 0, first_at: now, due_at: now };
                    retry::put(connection, &self.spec, &behind).await?;
                    return Ok(Outcome::Behind);
                }
            }
            Task::Retried(retry) => {
                if !retry::take(connection, retry.id).await? {
                    return Ok(Outcome::Duplicate);
                }
            }
            Task::Requeued(letter) => {
                if !dead_letter::take(connection, letter.id).await? {
                    return Ok(Outcome::Duplicate);
                }
            }
        }
        let is_new = inbox::note(connection, self.spec.name, &message.event_id, now).await?;
        // A letter has been in the inbox since it died.
        if !is_new && !matches!(task, Task::Requeued(_)) {
            return Ok(Outcome::Duplicate);
        }
        fail_point!("consumer.delivered");
        self.handle(task, connection).await?;
        event_log::completed(connection, self.spec.name, message, now).await?;
        Ok(Outcome::Handled)
    }

    /// Runs the handler; one that panics or hangs has failed like any other, and others go on.
    async fn handle(&self, task: &Task, connection: &mut AnyConnection) -> Result<(), Failure> {
        // What it leaves half done is in the transaction, which is rolled back.
        let handling = AssertUnwindSafe(self.handler.handle(task.message(), connection)).catch_unwind();
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
            inbox::note(&mut transaction, self.spec.name, &message.event_id, now).await?;
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
