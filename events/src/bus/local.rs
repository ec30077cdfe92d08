//! The bus of one machine: streams in a SQLite file, delivered within one process.
//!
//! The log and every consumer's progress are committed before anything is acknowledged. What was
//! delivered and not answered is kept in memory alone: a process that ends has answered nothing, and
//! the next one delivers it again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::{Consumer, Stream, covers};
use sqlx::{AnyConnection, Row};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::bus::{
    ACK_WAIT, Answer, Bus, BusError, ConsumerState, Delivery, MAX_ACK_PENDING, Position, Question, StreamState,
};
use crate::clock::{Clock, Micros, micros};
use crate::database::{Database, DatabaseError, Step};
use crate::fail_point::fail_point;
use crate::message::Message;
use crate::outbox;

/// Rows of the log that are looked at in one go.
const SCAN_ROWS: i64 = 512;
/// Questions that wait for the service that answers them.
const MAX_QUESTIONS: usize = 256;
/// Between two looks for messages that are too old.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

const STEPS: [Step; 1] = [Step {
    version: 100,
    name: "local bus",
    sql: "
CREATE TABLE bus_streams (
    name TEXT PRIMARY KEY,
    epoch BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    expired_at BIGINT NOT NULL
);
CREATE TABLE bus_log (
    stream TEXT NOT NULL,
    stream_seq BIGINT NOT NULL,
    event_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    entity TEXT NOT NULL,
    version BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    payload {bytes} NOT NULL,
    correlation_id TEXT NOT NULL,
    trace_parent TEXT NOT NULL,
    headers TEXT NOT NULL,
    stored_at BIGINT NOT NULL,
    PRIMARY KEY (stream, stream_seq)
);
CREATE UNIQUE INDEX bus_log_once ON bus_log (stream, event_id);
CREATE INDEX bus_log_age ON bus_log (stream, stored_at);
-- All matching messages up to the floor are answered; above it, those that are listed.
CREATE TABLE bus_consumers (
    stream TEXT NOT NULL,
    name TEXT NOT NULL,
    floor BIGINT NOT NULL,
    PRIMARY KEY (stream, name)
);
CREATE TABLE bus_answered (
    stream TEXT NOT NULL,
    name TEXT NOT NULL,
    stream_seq BIGINT NOT NULL,
    PRIMARY KEY (stream, name, stream_seq)
);
",
}];

/// The bus; clones share it.
#[derive(Clone, Debug)]
pub struct LocalBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    clock: Arc<dyn Clock>,
    /// Something was published, or answered in a way that makes it due again.
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    streams: Vec<Stream>,
    consumers: HashMap<(&'static str, &'static str), Progress>,
    services: HashMap<String, mpsc::Sender<Question>>,
}

/// How far a durable consumer is.
#[derive(Debug, Default)]
struct Progress {
    /// Everything up to here was looked at: it does not match, is answered or is in flight.
    scanned: u64,
    /// Answered above the floor that the database has.
    answered: BTreeMap<u64, ()>,
    in_flight: BTreeMap<u64, InFlight>,
}

#[derive(Clone, Debug)]
struct InFlight {
    message: Message,
    delivered: u64,
    /// When it is delivered again, unless it is answered.
    due: Micros,
}

impl Progress {
    /// All that matches up to here is answered.
    fn floor(&self) -> u64 {
        self.in_flight.first_key_value().map_or(self.scanned, |(seq, _)| seq - 1)
    }
}

fn failed(error: impl std::fmt::Display) -> BusError {
    BusError::Unavailable(error.to_string())
}

impl LocalBus {
    /// Opens, or creates, the log in `file`.
    pub async fn open(file: &Path, clock: Arc<dyn Clock>) -> Result<Self, DatabaseError> {
        let database = Database::open_file(file, &STEPS).await?;
        let state = Mutex::default();
        Ok(Self { shared: Arc::new(Shared { database, clock, changed: Notify::new(), state }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spec(&self, stream: &str) -> Result<Stream, BusError> {
        let found = self.state().streams.iter().find(|spec| spec.name == stream).copied();
        found.ok_or_else(|| BusError::Refused(format!("there is no stream {stream}")))
    }

    /// Removes what is older than the stream keeps.
    async fn expire(&self, spec: Stream, connection: &mut AnyConnection) -> sqlx::Result<()> {
        let now = self.shared.clock.now();
        let due = sqlx::query("UPDATE bus_streams SET expired_at = $1 WHERE name = $2 AND expired_at <= $3");
        let due = due.bind(now).bind(spec.name).bind(now - micros(EXPIRE_EVERY)).execute(&mut *connection).await?;
        if due.rows_affected() == 0 {
            return Ok(());
        }
        let delete = sqlx::query("DELETE FROM bus_log WHERE stream = $1 AND stored_at < $2");
        delete.bind(spec.name).bind(now - micros(spec.retention())).execute(&mut *connection).await?;
        let first = sqlx::query(
            "UPDATE bus_streams SET first_seq = \
             coalesce((SELECT min(stream_seq) FROM bus_log WHERE stream = $1), last_seq + 1) WHERE name = $1",
        );
        first.bind(spec.name).execute(connection).await?;
        Ok(())
    }

    async fn append(&self, messages: &[(Stream, &Message)]) -> sqlx::Result<Vec<Position>> {
        let now = self.shared.clock.now();
        let mut transaction = self.shared.database.begin().await?;
        let mut positions = Vec::with_capacity(messages.len());
        let mut last_seqs = BTreeMap::new();
        for (spec, message) in messages {
            let stream = spec.name;
            let last = match last_seqs.entry(stream) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    self.expire(*spec, &mut transaction).await?;
                    let last = sqlx::query_scalar::<_, i64>("SELECT last_seq FROM bus_streams WHERE name = $1");
                    entry.insert(last.bind(stream).fetch_one(&mut *transaction).await?)
                }
            };
            let seq = match insert(&mut transaction, stream, *last + 1, message, now).await? {
                true => {
                    *last += 1;
                    *last
                }
                false => {
                    let known = "SELECT stream_seq FROM bus_log WHERE stream = $1 AND event_id = $2";
                    let known = sqlx::query_scalar(known).bind(stream).bind(&message.event_id);
                    known.fetch_one(&mut *transaction).await?
                }
            };
            positions.push(Position { stream, seq: seq as u64 });
        }
        for (stream, last) in last_seqs {
            let update = sqlx::query("UPDATE bus_streams SET last_seq = $1 WHERE name = $2");
            update.bind(last).bind(stream).execute(&mut *transaction).await?;
        }
        fail_point!("local_bus.appended");
        transaction.commit().await?;
        Ok(positions)
    }

    /// Up to `most` deliveries that are due again or new.
    async fn due(&self, consumer: &Consumer, most: usize) -> Result<Vec<Delivery>, BusError> {
        let key = (consumer.stream.name, consumer.name);
        let now = self.shared.clock.now();
        let mut deliveries = Vec::new();
        let (mut scanned, room) = {
            let mut state = self.state();
            let progress = state.consumers.get_mut(&key).ok_or_else(|| unknown(consumer))?;
            for (seq, flight) in progress.in_flight.iter_mut().filter(|(_, flight)| flight.due <= now).take(most) {
                flight.delivered += 1;
                flight.due = now + micros(ACK_WAIT);
                deliveries.push(delivery(*seq, flight));
            }
            (progress.scanned, MAX_ACK_PENDING.saturating_sub(progress.in_flight.len()))
        };
        let most = most.min(deliveries.len() + room);
        while deliveries.len() < most {
            let rows = self.rows(consumer.stream.name, scanned, SCAN_ROWS).await.map_err(failed)?;
            if rows.is_empty() {
                break;
            }
            let mut state = self.state();
            let progress = state.consumers.get_mut(&key).ok_or_else(|| unknown(consumer))?;
            for (seq, message) in rows {
                // Another pull may have come first.
                if deliveries.len() == most || seq <= progress.scanned && progress.scanned > scanned {
                    break;
                }
                scanned = seq;
                progress.scanned = progress.scanned.max(seq);
                let wanted = consumer.filters.iter().any(|filter| covers(filter, &message.subject));
                if !wanted || progress.answered.remove(&seq).is_some() {
                    continue;
                }
                let flight = InFlight { message, delivered: 1, due: now + micros(ACK_WAIT) };
                deliveries.push(delivery(seq, &flight));
                progress.in_flight.insert(seq, flight);
            }
            scanned = progress.scanned;
        }
        Ok(deliveries)
    }

    async fn rows(&self, stream: &str, after: u64, most: i64) -> sqlx::Result<Vec<(u64, Message)>> {
        let statement = "SELECT stream_seq, event_id, subject, entity, version, content_type, payload, correlation_id, \
                         trace_parent, headers FROM bus_log WHERE stream = $1 AND stream_seq > $2 ORDER BY stream_seq LIMIT $3";
        let rows = sqlx::query(statement).bind(stream).bind(after as i64).bind(most);
        let rows = rows.fetch_all(self.shared.database.reader()).await?;
        rows.iter()
            .map(|row| Ok((row.try_get::<i64, _>("stream_seq")? as u64, outbox::message_with_headers(row)?)))
            .collect()
    }

    /// When the next delivery of `consumer` is due again.
    fn next_due(&self, consumer: &Consumer) -> Option<Duration> {
        let now = self.shared.clock.now();
        let state = self.state();
        let due = state
            .consumers
            .get(&(consumer.stream.name, consumer.name))?
            .in_flight
            .values()
            .map(|flight| flight.due)
            .min()?;
        Some(Duration::from_micros(due.saturating_sub(now).max(0) as u64))
    }

    /// Notes that these are answered, of which those up to `floor` need no row of their own.
    async fn note_answers(&self, consumer: &Consumer, seqs: &[u64], floor: u64) -> sqlx::Result<()> {
        // Lost with a power failure, it brings the message again, and the inbox knows it.
        let mut transaction = self.shared.database.begin_relaxed().await?;
        for seq in seqs.iter().filter(|seq| **seq > floor) {
            let insert = sqlx::query(
                "INSERT INTO bus_answered (stream, name, stream_seq) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            );
            let insert = insert.bind(consumer.stream.name).bind(consumer.name).bind(*seq as i64);
            insert.execute(&mut *transaction).await?;
        }
        let raise = sqlx::query("UPDATE bus_consumers SET floor = $3 WHERE stream = $1 AND name = $2 AND floor < $3");
        raise.bind(consumer.stream.name).bind(consumer.name).bind(floor as i64).execute(&mut *transaction).await?;
        let clean = sqlx::query("DELETE FROM bus_answered WHERE stream = $1 AND name = $2 AND stream_seq <= $3");
        clean.bind(consumer.stream.name).bind(consumer.name).bind(floor as i64).execute(&mut *transaction).await?;
        fail_point!("local_bus.answered");
        transaction.commit().await
    }
}

/// Puts `message` into the log; false if the stream has it already.
async fn insert(
    connection: &mut AnyConnection,
    stream: &str,
    seq: i64,
    message: &Message,
    now: Micros,
) -> sqlx::Result<bool> {
    let insert = sqlx::query(
        "INSERT INTO bus_log (stream, stream_seq, event_id, subject, entity, version, content_type, payload, \
         correlation_id, trace_parent, headers, stored_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (stream, event_id) DO NOTHING",
    );
    let insert = insert.bind(stream).bind(seq).bind(&message.event_id).bind(&message.subject);
    let insert = insert.bind(&message.entity).bind(message.version).bind(&message.content_type);
    let insert = insert.bind(message.payload.to_vec()).bind(&message.correlation_id).bind(&message.trace_parent);
    let insert = insert.bind(message.headers.to_text()).bind(now);
    Ok(insert.execute(connection).await?.rows_affected() > 0)
}

fn unknown(consumer: &Consumer) -> BusError {
    BusError::Refused(format!("there is no consumer {} on stream {}", consumer.name, consumer.stream.name))
}

fn delivery(seq: u64, flight: &InFlight) -> Delivery {
    Delivery { message: flight.message.clone(), seq, delivered: flight.delivered, token: String::new() }
}

#[async_trait]
impl Bus for LocalBus {
    async fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError> {
        let writer = self.shared.database.writer();
        for spec in streams {
            let insert = "INSERT INTO bus_streams (name, epoch, first_seq, last_seq, expired_at) VALUES ($1, $2, 1, 0, $2) \
                          ON CONFLICT DO NOTHING";
            let now = self.shared.clock.now();
            sqlx::query(insert).bind(spec.name).bind(now).execute(writer).await.map_err(failed)?;
            let mut state = self.state();
            state.streams.retain(|known| known.name != spec.name);
            state.streams.push(*spec);
        }
        for spec in consumers {
            let insert = "INSERT INTO bus_consumers (stream, name, floor) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING";
            sqlx::query(insert).bind(spec.stream.name).bind(spec.name).execute(writer).await.map_err(failed)?;
            let floor = "SELECT floor FROM bus_consumers WHERE stream = $1 AND name = $2";
            let floor: i64 = sqlx::query_scalar(floor)
                .bind(spec.stream.name)
                .bind(spec.name)
                .fetch_one(writer)
                .await
                .map_err(failed)?;
            let answered = "SELECT stream_seq FROM bus_answered WHERE stream = $1 AND name = $2";
            let answered: Vec<i64> = sqlx::query_scalar(answered)
                .bind(spec.stream.name)
                .bind(spec.name)
                .fetch_all(writer)
                .await
                .map_err(failed)?;
            let answered = answered.into_iter().map(|seq| (seq as u64, ())).collect();
            let progress = Progress { scanned: floor as u64, answered, in_flight: BTreeMap::new() };
            self.state().consumers.entry((spec.stream.name, spec.name)).or_insert(progress);
        }
        Ok(())
    }

    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        let mut routed = Vec::with_capacity(messages.len());
        let mut refused = None;
        {
            let state = self.state();
            for message in messages {
                let taken = |spec: &&Stream| spec.subjects.iter().any(|subject| covers(subject, &message.subject));
                match state.streams.iter().find(taken) {
                    Some(spec) => routed.push((*spec, message)),
                    None => {
                        refused = Some(BusError::Refused(format!("no stream keeps {}", message.subject)));
                        break;
                    }
                }
            }
        }
        match self.append(&routed).await {
            Ok(positions) => {
                self.shared.changed.notify_waiters();
                (positions, refused)
            }
            // All or nothing.
            Err(error) => (Vec::new(), Some(failed(error))),
        }
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        let row =
            sqlx::query_as::<_, (i64, i64, i64)>("SELECT epoch, first_seq, last_seq FROM bus_streams WHERE name = $1");
        let row = row.bind(stream).fetch_optional(self.shared.database.reader()).await.map_err(failed)?;
        let (epoch, first, last) = row.ok_or_else(|| BusError::Refused(format!("there is no stream {stream}")))?;
        Ok(StreamState { epoch, first_seq: first as u64, last_seq: last as u64 })
    }

    async fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError> {
        let (scanned, ack_floor, unanswered) = {
            let state = self.state();
            let progress =
                state.consumers.get(&(consumer.stream.name, consumer.name)).ok_or_else(|| unknown(consumer))?;
            (progress.scanned, progress.floor(), progress.in_flight.len() as u64)
        };
        let subjects =
            sqlx::query_scalar::<_, String>("SELECT subject FROM bus_log WHERE stream = $1 AND stream_seq > $2");
        let subjects =
            subjects.bind(consumer.stream.name).bind(scanned as i64).fetch_all(self.shared.database.reader());
        let subjects = subjects.await.map_err(failed)?;
        let wanted = |subject: &&String| consumer.filters.iter().any(|filter| covers(filter, subject));
        Ok(ConsumerState { ack_floor, waiting: subjects.iter().filter(wanted).count() as u64, unanswered })
    }

    async fn pull(&self, consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Delivery>, BusError> {
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let deliveries = self.due(consumer, most).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            if !deliveries.is_empty() || left.is_zero() {
                return Ok(deliveries);
            }
            let pause = self.next_due(consumer).map_or(left, |due| due.min(left));
            // Either is a reason to look again.
            let _ = tokio::time::timeout(pause, changed).await;
        }
    }

    async fn answer(&self, consumer: &Consumer, delivery: &Delivery, answer: Answer) -> Result<(), BusError> {
        self.answer_all(consumer, &[delivery], answer).await
    }

    /// In one transaction.
    async fn answer_all(&self, consumer: &Consumer, deliveries: &[&Delivery], answer: Answer) -> Result<(), BusError> {
        let now = self.shared.clock.now();
        let (answered, floor) = {
            let mut state = self.state();
            let progress =
                state.consumers.get_mut(&(consumer.stream.name, consumer.name)).ok_or_else(|| unknown(consumer))?;
            let mut answered = Vec::with_capacity(deliveries.len());
            for seq in deliveries.iter().map(|delivery| delivery.seq) {
                let Some(flight) = progress.in_flight.get_mut(&seq) else { continue };
                match answer {
                    Answer::Later(pause) => flight.due = now + micros(pause),
                    Answer::InProgress => flight.due = now + micros(ACK_WAIT),
                    Answer::Ack | Answer::Terminate => drop(progress.in_flight.remove(&seq)),
                }
                answered.push(seq);
            }
            (answered, progress.floor())
        };
        if answered.is_empty() {
            return Ok(());
        }
        match answer {
            Answer::Ack | Answer::Terminate => self.note_answers(consumer, &answered, floor).await.map_err(failed),
            Answer::Later(_) | Answer::InProgress => {
                self.shared.changed.notify_waiters();
                Ok(())
            }
        }
    }

    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError> {
        self.spec(stream)?;
        let mut after = seq.saturating_sub(1);
        let mut found = Vec::new();
        while found.len() < most {
            let rows = self.rows(stream, after, SCAN_ROWS).await.map_err(failed)?;
            let Some((last, _)) = rows.last() else { break };
            after = *last;
            let wanted = |row: &(u64, Message)| filters.iter().any(|filter| covers(filter, &row.1.subject));
            let room = most - found.len();
            found.extend(rows.into_iter().filter(wanted).take(room));
        }
        Ok(found)
    }

    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError> {
        let changed = self.shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if self.stream(stream).await?.last_seq <= seq {
            // The caller looks either way.
            let _ = tokio::time::timeout(wait, changed).await;
        }
        Ok(())
    }

    async fn ask(&self, subject: &str, question: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        let service = self.state().services.get(subject).cloned().ok_or(BusError::NoAnswer(wait))?;
        let (reply, answer) = oneshot::channel();
        let asked = async {
            service.send(Question { payload: question, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(wait, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(BusError::NoAnswer(wait)),
        }
    }

    async fn serve(&self, subject: &'static str) -> Result<mpsc::Receiver<Question>, BusError> {
        let (sender, receiver) = mpsc::channel(MAX_QUESTIONS);
        self.state().services.insert(subject.to_owned(), sender);
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests;
