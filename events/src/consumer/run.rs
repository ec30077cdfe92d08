//! Deliveries that share a transaction: one flush of the disk, and one statement of each kind, for all of them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sqlx::AnyConnection;
use tokio_util::sync::CancellationToken;

use super::{Consumer, Failure, Outcome, Task, retry};
use crate::bus::Delivery;
use crate::clock::micros;
use crate::database::{Kind, Transaction};
use crate::{event_log, inbox};

/// How long deliveries are added to a transaction: others wait for SQLite's one writer, and for the rows in PostgreSQL.
/// By a clock that is set back meanwhile it is longer, but there are never more of them than one pull brings.
const LONGEST_RUN: Duration = Duration::from_millis(10);
/// Longest wait for a transaction to say whether it is still one.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

/// Why a run came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stumble {
    /// The transaction could not begin, go on or end, which no event is to blame for.
    Transaction(Failure),
    /// One event failed. Without its failure, which may be for what the others did, as a deadlock is, it is to be tried
    /// alone.
    Event(usize, Option<Failure>),
}

impl<F: Into<Failure>> From<F> for Stumble {
    fn from(failure: F) -> Self {
        Self::Transaction(failure.into())
    }
}

impl Consumer {
    /// Has the first of `tasks` done with, and of the deliveries behind it as many as fit into its transaction. What
    /// became of each.
    ///
    /// An event that fails takes the others' effects with it. Those before it are tried once more, without it; their
    /// handlers are called a second time then, as they may be at any time.
    pub(super) async fn settle_some(&self, tasks: &[Task], stop: &CancellationToken) -> Vec<Outcome> {
        let run: Vec<_> = tasks.iter().map_while(Task::delivery).collect();
        if run.len() < 2 {
            return vec![self.settle(&tasks[0]).await];
        }
        let until = self.clock.now() + micros(LONGEST_RUN);
        let is_over = || stop.is_cancelled() || self.clock.now() >= until;
        let (at, failure) = match self.attempt_run(&run, is_over).await {
            Ok(outcomes) => return outcomes,
            Err(Stumble::Event(at, failure)) => (at, failure),
            Err(Stumble::Transaction(failure @ Failure::DependencyDown(_))) => (0, Some(failure)),
            Err(Stumble::Transaction(_)) => (0, None),
        };
        let mut outcomes = match at {
            0 => Vec::new(),
            _ => self.attempt_run(&run[..at], || false).await.unwrap_or_default(),
        };
        outcomes.push(match failure.filter(|_| outcomes.len() == at) {
            Some(failure) => self.conclude(&tasks[at], Err(failure), Instant::now()).await,
            None => self.settle(&tasks[outcomes.len()]).await,
        });
        outcomes
    }

    /// One try of the first of `run`, and of those behind it until it `is_over`, in one transaction.
    pub(super) async fn attempt_run(
        &self,
        run: &[&Delivery],
        is_over: impl Fn() -> bool,
    ) -> Result<Vec<Outcome>, Stumble> {
        let (consumer, now) = (self.spec.name, self.clock.now());
        let mut transaction = self.database.begin().await?;
        let behind = self.put_behind(run, &mut transaction).await?;
        let free = run.iter().filter(|delivery| !behind.contains(&delivery.seq));
        let free: Vec<_> = free.map(|delivery| &delivery.message).collect();
        let mut new = inbox::note(&mut transaction, consumer, &free, now).await?;
        let (mut done, mut handled) = (Vec::with_capacity(run.len()), Vec::with_capacity(run.len()));
        for (at, delivery) in run.iter().enumerate() {
            let (message, begun) = (&delivery.message, Instant::now());
            let outcome = if behind.contains(&delivery.seq) {
                Outcome::Behind
            } else if !new.remove(&message.event_id) {
                Outcome::Duplicate
            } else {
                if let Err(failure) = self.handle(message, &mut transaction).await {
                    return Err(self.stumble(at, failure, transaction).await);
                }
                handled.push(message);
                Outcome::Handled
            };
            done.push((outcome, begun.elapsed()));
            if is_over() {
                break;
            }
        }
        inbox::take_back(&mut transaction, consumer, &new).await?;
        event_log::completed(&mut transaction, consumer, &handled, now).await?;
        self.commit(transaction).await?;
        if let Some(metrics) = &self.metrics {
            for (delivery, (outcome, took)) in run.iter().zip(&done) {
                metrics.processed(&delivery.message.subject, *outcome, *took);
            }
        }
        Ok(done.into_iter().map(|(outcome, _)| outcome).collect())
    }

    /// Has those of `run` wait for which an earlier event of their entity does: their places in the stream.
    async fn put_behind(&self, run: &[&Delivery], connection: &mut AnyConnection) -> Result<BTreeSet<u64>, Failure> {
        let mut behind = BTreeSet::new();
        if retry::any(connection, &self.spec).await? {
            for delivery in run {
                if self.puts_behind(delivery, connection).await? {
                    behind.insert(delivery.seq);
                }
            }
        }
        Ok(behind)
    }

    /// What it means that an event failed. One that is the first, or leaves the transaction as it was, failed for what
    /// it is.
    async fn stumble(&self, at: usize, failure: Failure, mut transaction: Transaction) -> Stumble {
        let is_whole = match self.database.kind() {
            Kind::Sqlite => true,
            Kind::Postgres => {
                let check = sqlx::query("SELECT 1").execute(&mut *transaction);
                tokio::time::timeout(LONGEST_CHECK, check).await.is_ok_and(|checked| checked.is_ok())
            }
        };
        match failure {
            Failure::DependencyDown(_) if !is_whole => Stumble::Transaction(failure),
            failure => Stumble::Event(at, Some(failure).filter(|_| is_whole || at == 0)),
        }
    }
}
