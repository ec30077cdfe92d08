//! What carries messages between services: streams that keep them, durable consumers that remember
//! how far they are, and questions with an answer.
//!
//! Every implementation passes the same conformance tests.

#[cfg(test)]
pub(crate) mod conformance;
pub mod jetstream;
pub mod local;
#[cfg(test)]
pub(crate) mod watched;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::{Consumer, Stream};

use crate::message::Message;

/// What went wrong, as the caller has to react to it.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The bus does not answer; it may later. Nothing is known of what was being done.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
    /// The bus answered that it will not, and would not a second time: a denied subject, a message too large.
    #[error("the bus refused: {0}")]
    Refused(String),
    /// Nobody answered a question in time.
    #[error("no answer within {}", humantime(.0))]
    NoAnswer(Duration),
}

fn humantime(duration: &Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// How long a delivered message may go without an answer or a sign of life before it is delivered again.
pub const ACK_WAIT: Duration = Duration::from_secs(30);
/// Unanswered messages that a durable consumer may hold.
pub const MAX_ACK_PENDING: usize = 1024;

/// A stream as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// When it was created, in microseconds: another one means another stream.
    pub epoch: i64,
    /// The oldest message that is kept; `last_seq + 1` in an empty stream.
    pub first_seq: u64,
    pub last_seq: u64,
}

/// A durable consumer as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerState {
    /// All messages up to here were acknowledged.
    pub ack_floor: u64,
    /// Messages that match and were never delivered.
    pub waiting: u64,
    /// Delivered and not yet acknowledged.
    pub unanswered: u64,
}

/// Where a message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub stream: &'static str,
    pub seq: u64,
}

/// A message that waits for an answer.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: Message,
    pub seq: u64,
    /// 1 for the first time. Brokers forget; see the table `attempts`.
    pub delivered: u64,
    /// Names the delivery to the bus that made it.
    pub token: String,
}

/// What is said to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done; do not deliver it again.
    Ack,
    /// Deliver it again after a while.
    Later(Duration),
    /// Still at it: the wait for an answer begins anew.
    InProgress,
    /// Never deliver it again, although it was not done.
    Terminate,
}

/// One bus. All waits are bounded by the implementation or by the argument that says so.
#[async_trait]
pub trait Bus: Debug + Send + Sync {
    /// Creates the streams and consumers that are absent, and checks the others.
    async fn ensure(&self, streams: &[Stream], consumers: &[Consumer]) -> Result<(), BusError>;

    /// Publishes in order and stops at the first failure; the positions of those that the bus has
    /// taken, and what stopped it. A message whose id the stream has seen lately is taken once.
    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>);

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError>;

    async fn consumer(&self, consumer: &Consumer) -> Result<ConsumerState, BusError>;

    /// At most `most` messages for a durable consumer; waits up to `wait` for the first of them.
    async fn pull(&self, consumer: &Consumer, most: usize, wait: Duration) -> Result<Vec<Delivery>, BusError>;

    /// Answers a delivery. [`Answer::Ack`] has reached the bus when this returns.
    async fn answer(&self, consumer: &Consumer, delivery: &Delivery, answer: Answer) -> Result<(), BusError>;

    /// Answers several deliveries alike; [`Answer::Ack`] has reached the bus for all of them when this returns.
    ///
    /// # Errors
    /// Some of them may have been answered.
    async fn answer_all(&self, consumer: &Consumer, deliveries: &[&Delivery], answer: Answer) -> Result<(), BusError> {
        for delivery in deliveries {
            self.answer(consumer, delivery, answer).await?;
        }
        Ok(())
    }

    /// At most `most` kept messages from `seq` on that match `filters`, with their sequence numbers; answers nothing
    /// and remembers nothing. Empty when there are no more.
    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError>;

    /// Resolves when something may have come to `stream` after `seq`, or after `wait`.
    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError>;

    /// Asks whoever serves `subject`. Kept in no stream.
    async fn ask(&self, subject: &str, question: Bytes, wait: Duration) -> Result<Bytes, BusError>;

    /// Serves `subject`: the questions that come, until the bus is closed or the receiver is dropped.
    async fn serve(&self, subject: &'static str) -> Result<tokio::sync::mpsc::Receiver<Question>, BusError>;
}

/// A question that waits for its answer.
#[derive(Debug)]
pub struct Question {
    pub payload: Bytes,
    pub reply: tokio::sync::oneshot::Sender<Bytes>,
}
