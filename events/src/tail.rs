//! Follows a stream from a position on, for what every process has to know at once: revoked sessions, changed routes.
//! A durable consumer reaches one replica only; this reaches each, and remembers nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use edd_proto::Stream;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, StreamState};
use crate::message::Message;

/// Messages read in one go.
const BATCH: usize = 256;
/// Arrivals wake the tail; this only bounds how long a lost wake-up lasts.
const WAIT: Duration = Duration::from_secs(5);
/// Pause after a failure of the bus, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Who is told.
#[async_trait]
pub trait Follower: Send {
    /// The next message. One may come again after [`Follower::reset`]: what it does must not depend on how often.
    async fn message(&mut self, seq: u64, message: &Message);

    /// Messages may be lost: the stream was created anew, went back, or keeps no longer what comes next. Load again
    /// whatever follows from them. What the stream still has comes from its beginning after this.
    async fn reset(&mut self);

    /// All that the stream had when it was last looked at has been told.
    async fn caught_up(&mut self) {}
}

/// Where to begin: after what the database that the memory was loaded from had. See
/// [`Status::covered_seq`](crate::projection::Status::covered_seq).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The stream's epoch then; none if it was not known, and then all of the stream is told.
    pub epoch: Option<i64>,
    pub seq: u64,
}

/// One follower of one stream.
#[derive(Debug)]
pub struct Tail<F> {
    bus: Arc<dyn Bus>,
    stream: &'static Stream,
    filters: &'static [&'static str],
    follower: F,
    epoch: Option<i64>,
    next: u64,
    /// The end of the stream as it was last seen, if it was: everything up to it is there to be read.
    end: Option<u64>,
}

impl<F: Follower> Tail<F> {
    /// Follows the messages of `stream` that match `filters` and come after `mark`.
    pub fn new(
        bus: Arc<dyn Bus>,
        stream: &'static Stream,
        filters: &'static [&'static str],
        mark: Mark,
        follower: F,
    ) -> Self {
        let next = mark.epoch.map_or(1, |_| mark.seq + 1);
        Self { bus, stream, filters, follower, epoch: mark.epoch, next, end: None }
    }

    /// Tells the follower until told to stop; a call of it that has begun is not interrupted. The follower, for who
    /// wants to go on.
    pub async fn run(mut self, stop: CancellationToken) -> F {
        let mut pause = FIRST_PAUSE;
        loop {
            let read = tokio::select! {
                () = stop.cancelled() => return self.follower,
                read = self.read() => read,
            };
            match read {
                Ok((messages, state)) => {
                    pause = FIRST_PAUSE;
                    self.tell(messages, &state).await;
                }
                Err(error) => {
                    let (stream, retry_ms) = (self.stream.name, pause.as_millis() as u64);
                    tracing::warn!(stream, next = self.next, %error, retry_ms, "cannot follow the stream");
                    tokio::select! {
                        () = stop.cancelled() => return self.follower,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// The next messages, and the stream as it was after they were read. Waits a while for the first of them.
    async fn read(&self) -> Result<(Vec<(u64, Message)>, StreamState), BusError> {
        if self.end.is_some_and(|end| self.next > end) {
            self.bus.arrival(self.stream.name, self.next - 1, WAIT).await?;
        }
        let messages = self.bus.read(self.stream.name, self.next, self.filters, BATCH).await?;
        Ok((messages, self.bus.stream(self.stream.name).await?))
    }

    async fn tell(&mut self, messages: Vec<(u64, Message)>, state: &StreamState) {
        // Looked at after the read: if the stream is still the same, and still keeps the place that was read from,
        // then nothing was missing between.
        let is_same = self.epoch.is_none_or(|epoch| epoch == state.epoch) && state.last_seq + 1 >= self.next;
        let is_known = self.epoch.is_some();
        if !is_same || is_known && state.first_seq > self.next {
            tracing::warn!(stream = self.stream.name, next = self.next, ?state, "messages may be lost; loading again");
            self.follower.reset().await;
            (self.epoch, self.next, self.end) = (Some(state.epoch), state.first_seq, None);
            return;
        }
        self.epoch = Some(state.epoch);
        let is_all = messages.len() < BATCH;
        for (seq, message) in messages {
            self.follower.message(seq, &message).await;
            self.next = seq + 1;
        }
        if let Some(end) = self.end.filter(|_| is_all) {
            // What was there before the read and was not among it does not match.
            self.next = self.next.max(end + 1);
        }
        self.end = Some(state.last_seq);
        if self.next > state.last_seq {
            self.follower.caught_up().await;
        }
    }
}

#[cfg(test)]
mod tests;
