//! What a service does with the events of others: each takes effect once, in its entity's order.
//!
//! Effect and inbox row are one transaction, and the bus is answered after its commit. A crash between
//! the two brings the event again, and the inbox tells that it was had.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_proto::Consumer as Spec;
use sqlx::AnyConnection;
use tokio_util::sync::CancellationToken;

use crate::bus::{Answer, Bus, BusError, Delivery};
use crate::clock::Clock;
use crate::database::{Database, is_outage};
use crate::dead_letter::{self, DeadLetter};
use crate::message::Message;

/// Tries before an event is dead, counted in our database because brokers forget.
pub const MAX_ATTEMPTS: i64 = 5;
/// Pauses after the first, second, … failed try.
const PACE: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];
/// Pause while something that everybody needs is away: no event is to blame.
const DOWN_PAUSE: Duration = Duration::from_secs(5);
/// Pause of an event whose entity has an earlier one that failed.
const BEHIND_PAUSE: Duration = Duration::from_secs(1);
/// Events fetched in one go.
const BATCH: usize = 64;
/// Longest wait for one.
const WAIT: Duration = Duration::from_secs(5);
/// Requeued letters tried in one round.
const REQUEUED: u32 = 16;

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
    /// Nothing can be handled now.
    Down,
}

/// One durable consumer.
#[derive(Clone, Debug)]
pub struct Consumer {
    spec: Spec,
    database: Database,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    handler: Arc<dyn Handler>,
}

impl Consumer {
    pub fn new(
        spec: Spec,
        database: Database,
        bus: Arc<dyn Bus>,
        clock: Arc<dyn Clock>,
        handler: Arc<dyn Handler>,
    ) -> Self {
        Self { spec, database, bus, clock, handler }
    }

    /// Handles what comes until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = self.round(WAIT) => round,
            };
            let pause = match round {
                Ok(outcomes) if outcomes.contains(&Outcome::Down) => "the database is away".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            tracing::warn!(consumer = self.spec.name, reason = pause, "events wait");
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DOWN_PAUSE) => {}
            }
        }
    }

    /// Handles requeued letters and one batch; waits up to `wait` for it to come.
    pub async fn round(&self, wait: Duration) -> Result<Vec<Outcome>, BusError> {
        let mut outcomes = self.requeued().await;
        let mut down = outcomes.contains(&Outcome::Down);
        for delivery in self.bus.pull(&self.spec, BATCH, wait).await? {
            // What follows must not overtake what could not be handled.
            let (outcome, answer) =
                if down { (Outcome::Down, Answer::Later(DOWN_PAUSE)) } else { self.deliver(&delivery).await };
            down |= outcome == Outcome::Down;
            self.bus.answer(&self.spec, &delivery, answer).await?;
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    async fn deliver(&self, delivery: &Delivery) -> (Outcome, Answer) {
        let failure = match self.attempt(&delivery.message, None).await {
            Ok(Outcome::Behind) => return (Outcome::Behind, Answer::Later(BEHIND_PAUSE)),
            Ok(outcome) => return (outcome, Answer::Ack),
            Err(failure) => failure,
        };
        match self.fail(delivery, &failure).await {
            Ok(Some(pause)) => (Outcome::Retried, Answer::Later(pause)),
            Ok(None) => (Outcome::Dead, Answer::Terminate),
            Err(error) => {
                tracing::warn!(consumer = self.spec.name, %error, %failure, "an event waits");
                (Outcome::Down, Answer::Later(DOWN_PAUSE))
            }
        }
    }

    /// One try, in one transaction; `letter` is the dead letter that the message comes from, if it does.
    async fn attempt(&self, message: &Message, letter: Option<i64>) -> Result<Outcome, Failure> {
        let mut transaction = self.database.begin().await?;
        let insert = sqlx::query(
            "INSERT INTO inbox (consumer, event_id, handled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        );
        let insert = insert.bind(self.spec.name).bind(&message.event_id).bind(self.clock.now());
        let fresh = insert.execute(&mut *transaction).await?.rows_affected() > 0;
        match letter {
            None if !fresh => return Ok(Outcome::Duplicate),
            None if self.is_behind(message, &mut transaction).await? => return Ok(Outcome::Behind),
            None => {}
            Some(id) => dead_letter::handled(&mut transaction, id).await?,
        }
        self.handler.handle(message, &mut transaction).await?;
        let forget = sqlx::query("DELETE FROM attempts WHERE consumer = $1 AND event_id = $2");
        forget.bind(self.spec.name).bind(&message.event_id).execute(&mut *transaction).await?;
        self.database.commit(transaction).await?;
        Ok(Outcome::Handled)
    }

    /// Whether an earlier event of the same entity failed and has not been done with.
    async fn is_behind(&self, message: &Message, connection: &mut AnyConnection) -> sqlx::Result<bool> {
        let select = sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM attempts WHERE consumer = $1 AND entity = $2 AND version < $3",
        );
        let select = select.bind(self.spec.name).bind(&message.entity).bind(message.version);
        Ok(select.fetch_one(connection).await? > 0)
    }

    /// Counts a failed try: the pause before the next, or none when the event is dead now.
    async fn fail(&self, delivery: &Delivery, failure: &Failure) -> Result<Option<Duration>, Failure> {
        let error = match failure {
            Failure::DependencyDown(_) => return Err(failure.clone()),
            Failure::Transient(error) | Failure::Permanent(error) => error,
        };
        let (message, now) = (&delivery.message, self.clock.now());
        let mut transaction = self.database.begin().await?;
        let upsert = sqlx::query_scalar::<_, i64>(
            "INSERT INTO attempts (consumer, event_id, entity, version, attempts, error, first_at) \
             VALUES ($1, $2, $3, $4, 1, $5, $6) ON CONFLICT (consumer, event_id) \
             DO UPDATE SET attempts = attempts.attempts + 1, error = excluded.error RETURNING attempts",
        );
        let upsert = upsert.bind(self.spec.name).bind(&message.event_id).bind(&message.entity).bind(message.version);
        let attempts = upsert.bind(error).bind(now).fetch_one(&mut *transaction).await?;
        let is_dead = attempts >= MAX_ATTEMPTS || matches!(failure, Failure::Permanent(_));
        if is_dead {
            let consumer = (self.spec.stream.name, self.spec.name);
            dead_letter::add(&mut transaction, consumer, delivery, error, attempts, now).await?;
            // The bus may deliver it again if it does not hear our answer.
            let had = sqlx::query(
                "INSERT INTO inbox (consumer, event_id, handled_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            );
            had.bind(self.spec.name).bind(&message.event_id).bind(now).execute(&mut *transaction).await?;
            let forget = sqlx::query("DELETE FROM attempts WHERE consumer = $1 AND event_id = $2");
            forget.bind(self.spec.name).bind(&message.event_id).execute(&mut *transaction).await?;
        }
        self.database.commit(transaction).await?;
        if is_dead {
            tracing::error!(
                consumer = self.spec.name,
                event_id = message.event_id,
                error,
                attempts,
                "an event is dead"
            );
            return Ok(None);
        }
        let pause = PACE[(attempts as usize).clamp(1, PACE.len()) - 1];
        Ok(Some(pause))
    }

    /// Tries requeued letters, each once.
    async fn requeued(&self) -> Vec<Outcome> {
        let letters = match dead_letter::list(&self.database, "requeued", Some(self.spec.name), 0, REQUEUED).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::warn!(consumer = self.spec.name, %error, "dead letters wait");
                return vec![Outcome::Down];
            }
        };
        let mut outcomes = Vec::new();
        for letter in letters {
            outcomes.push(self.retry(letter).await);
        }
        outcomes
    }

    async fn retry(&self, letter: DeadLetter) -> Outcome {
        let failure = match self.attempt(&letter.message, Some(letter.id)).await {
            Ok(outcome) => return outcome,
            Err(Failure::DependencyDown(_)) => return Outcome::Down,
            Err(failure) => failure,
        };
        let again = sqlx::query(
            "UPDATE dead_letters SET state = 'dead', error = $1, attempts = attempts + 1, dead_at = $2 WHERE id = $3",
        );
        let again = again.bind(failure.to_string()).bind(self.clock.now()).bind(letter.id);
        match again.execute(self.database.writer()).await {
            Ok(_) => Outcome::Dead,
            Err(_) => Outcome::Down,
        }
    }
}

#[cfg(test)]
mod tests;
