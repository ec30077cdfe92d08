//! The bus of several machines: NATS JetStream, server 2.10 or later.
//!
//! A broker that is away, at the start or later, is waited for in the background; every call meanwhile fails in bounded
//! time. What has once been ensured and is gone is created anew, so that the outbox can fill it again.

mod connection;
mod layout;
mod publishing;
mod pulling;
mod services;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::{Consumer, Stream, covers};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::sync::mpsc;

pub use self::connection::JetStreamConfig;
use self::connection::{ANSWER_WAIT, Connection, Failure};
use self::publishing::{MAX_BATCH_MESSAGES, Outbound};
use self::wire::Ticket;
use crate::bus::{Answer, Bus, BusError, ConsumerState, Delivery, Position, Question, StreamState};
use crate::clock::Micros;
use crate::message::Message;

/// The bus; clones share its connection.
#[derive(Clone, Debug)]
pub struct JetStreamBus {
    connection: Connection,
    ensured: Arc<Mutex<Ensured>>,
}

/// What this process relies on.
#[derive(Debug, Default)]
struct Ensured {
    streams: Vec<Kept>,
    consumers: Vec<Consumer>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    spec: Stream,
    /// Whether it takes atomic batches.
    is_batching: bool,
}

impl JetStreamBus {
    /// Connects; a broker that does not answer yet is connected to later.
    ///
    /// # Errors
    /// [`BusError::Refused`]: these settings can never work.
    pub async fn connect(config: &JetStreamConfig) -> Result<Self, BusError> {
        Ok(Self { connection: Connection::open(config).await?, ensured: Arc::default() })
    }

    /// Whether the broker can be reached now.
    pub fn is_connected(&self) -> bool {
        self.connection.is_connected()
    }

    fn ensured(&self) -> MutexGuard<'_, Ensured> {
        self.ensured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream that keeps `subject`.
    fn keeper(&self, subject: &str) -> Result<Kept, BusError> {
        let keeps = |kept: &&Kept| kept.spec.subjects.iter().any(|filter| covers(filter, subject));
        let found = self.ensured().streams.iter().find(keeps).copied();
        found.ok_or_else(|| BusError::Refused(format!("no stream keeps {subject}")))
    }

    /// What to tell about a failure on `stream`. One that we rely on and that is gone is created anew, with its
    /// consumers; the call may be repeated then.
    async fn explain(&self, stream: &str, failure: Failure) -> BusError {
        let Failure::Absent(reason) = failure else { return failure.into() };
        let (streams, consumers) = {
            let ensured = self.ensured();
            let streams = ensured.streams.iter().map(|kept| kept.spec).filter(|spec| spec.name == stream);
            let consumers = ensured.consumers.iter().filter(|consumer| consumer.stream.name == stream).copied();
            (streams.collect::<Vec<_>>(), consumers.collect::<Vec<_>>())
        };
        if streams.is_empty() && consumers.is_empty() {
            return BusError::Refused(format!("stream {stream}: {reason}"));
        }
        match self.ensure(&streams, &consumers).await {
            Ok(()) => {
                tracing::warn!(stream, reason, "checked the broker's streams and consumers");
                BusError::Unavailable(format!("stream {stream}: {reason}; it is there again"))
            }
            Err(error) => error,
        }
    }

    /// Publishes run by run, where a run is for one stream.
    async fn publish_runs(&self, messages: &[Message], positions: &mut Vec<Position>) -> Result<(), BusError> {
        self.connection.ready().await?;
        let max_bytes = self.connection.client().max_payload();
        while let Some(first) = messages.get(positions.len()) {
            let kept = self.keeper(&first.subject)?;
            let mut run = vec![Outbound::new(first, max_bytes)?];
            for message in messages[positions.len() + 1..].iter().take(MAX_BATCH_MESSAGES - 1) {
                // The first that goes elsewhere, or cannot go, is the next run's.
                match (self.keeper(&message.subject), Outbound::new(message, max_bytes)) {
                    (Ok(keeper), Ok(outbound)) if keeper.spec == kept.spec => run.push(outbound),
                    _ => break,
                }
            }
            let (stream, mut seqs) = (kept.spec.name, Vec::with_capacity(run.len()));
            let outcome = publishing::publish(&self.connection, stream, kept.is_batching, run, &mut seqs).await;
            positions.extend(seqs.into_iter().map(|seq| Position { stream, seq }));
            if let Err(failure) = outcome {
                return Err(self.explain(stream, failure).await);
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Bus for JetStreamBus {
    async fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError> {
        let batching = layout::ensure(&self.connection, streams, consumers).await?;
        let mut ensured = self.ensured();
        for (spec, is_batching) in streams.iter().zip(batching) {
            ensured.streams.retain(|kept| kept.spec.name != spec.name);
            ensured.streams.push(Kept { spec: *spec, is_batching });
        }
        for spec in consumers {
            ensured.consumers.retain(|known| (known.stream.name, known.name) != (spec.stream.name, spec.name));
            ensured.consumers.push(*spec);
        }
        Ok(())
    }

    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        let mut positions = Vec::with_capacity(messages.len());
        let outcome = self.publish_runs(messages, &mut positions).await;
        (positions, outcome.err())
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        let info = match self.connection.api(&format!("STREAM.INFO.{stream}"), &Value::Null).await {
            Ok(info) => info,
            Err(failure) => return Err(self.explain(stream, failure).await),
        };
        let state = &info["state"];
        let number = |field: &str| state[field].as_u64().ok_or_else(|| unreadable("stream", stream, field));
        let (messages, last_seq) = (number("messages")?, number("last_seq")?);
        // An empty stream has no first message, whatever the server says.
        let first_seq = if messages == 0 { last_seq + 1 } else { number("first_seq")? };
        let epoch = info["created"].as_str().and_then(epoch).ok_or_else(|| unreadable("stream", stream, "created"))?;
        Ok(StreamState { epoch, first_seq, last_seq })
    }

    async fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError> {
        let (stream, name) = (consumer.stream.name, consumer.name);
        let info = match self.connection.api(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null).await {
            Ok(info) => info,
            Err(failure) => return Err(self.explain(stream, failure).await),
        };
        let number = |value: &Value, field| value.as_u64().ok_or_else(|| unreadable("consumer", name, field));
        Ok(ConsumerState {
            ack_floor: number(&info["ack_floor"]["stream_seq"], "ack_floor.stream_seq")?,
            waiting: number(&info["num_pending"], "num_pending")?,
            unanswered: number(&info["num_ack_pending"], "num_ack_pending")?,
        })
    }

    async fn pull(&self, consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Delivery>, BusError> {
        let stream = consumer.stream.name;
        let messages = match pulling::fetch(&self.connection, stream, consumer.name, most, wait).await {
            Ok(messages) => messages,
            Err(failure) => return Err(self.explain(stream, failure).await),
        };
        let deliveries = messages.into_iter().map(|delivered| {
            let token = delivered.reply.as_deref().unwrap_or_default().to_owned();
            let ticket = Ticket::parse(&token)
                .ok_or_else(|| BusError::Unavailable(format!("NATS delivered what cannot be answered: {token:?}")))?;
            let (seq, delivered_times) = (ticket.seq, ticket.delivered);
            let message = wire::message(delivered, &ticket);
            Ok(Delivery { message, seq, delivered: delivered_times, token })
        });
        deliveries.collect()
    }

    async fn answer(&self, _: &Consumer, delivery: &Delivery, answer: Answer) -> Result<(), BusError> {
        let word = match answer {
            Answer::Ack => "+ACK".to_owned(),
            Answer::Later(pause) => format!("-NAK {{\"delay\": {}}}", pause.as_nanos()),
            Answer::InProgress => "+WPI".to_owned(),
            Answer::Terminate => "+TERM".to_owned(),
        };
        let answered = self.connection.request(&delivery.token, HeaderMap::new(), word.into(), ANSWER_WAIT).await;
        match answered {
            Ok(_) => Ok(()),
            // The consumer is gone, or not there yet after a restart; then the message comes again.
            Err(Failure::Absent(reason)) => Err(BusError::Unavailable(reason)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// All at once: they are as many as one pull brings.
    async fn answer_all(&self, consumer: &Consumer, deliveries: &[&Delivery], answer: Answer) -> Result<(), BusError> {
        let answers = deliveries.iter().map(|delivery| self.answer(consumer, delivery, answer));
        join_all(answers).await.into_iter().collect()
    }

    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError> {
        match pulling::read(&self.connection, stream, seq, filters, most).await {
            Ok(found) => Ok(found),
            Err(failure) => Err(self.explain(stream, failure).await),
        }
    }

    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError> {
        match pulling::arrival(&self.connection, stream, seq, wait).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(self.explain(stream, failure).await),
        }
    }

    async fn ask(&self, subject: &str, question: Bytes, wait: Duration) -> Result<Bytes, BusError> {
        services::ask(&self.connection, subject, question, wait).await
    }

    async fn serve(&self, subject: &'static str) -> Result<mpsc::Receiver<Question>, BusError> {
        services::serve(&self.connection, subject).await
    }
}

fn unreadable(kind: &str, name: &str, field: &str) -> BusError {
    BusError::Unavailable(format!("NATS does not tell {field} of {kind} {name}"))
}

/// An RFC 3339 time in microseconds since the Unix epoch.
fn epoch(created: &str) -> Option<Micros> {
    let created = async_nats::datetime::parse_rfc3339(created).ok()?;
    Micros::try_from(created.unix_timestamp_nanos() / 1000).ok()
}

#[cfg(test)]
mod tests;
