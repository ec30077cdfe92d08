//! Keeps a set of revocations complete, in memory and in the tables behind it.
//!
//! ```text
//! auth ─▶ stream ─┬▶ durable consumer ─▶ tables       one replica writes them for all
//!                 └▶ tail ─▶ set                      every process, at once
//! auth ─▶ snapshot ─▶ tables and set                  first start, or after events were lost
//! ```
//!
//! Why none is missed: the tables have all up to the mark, which is read before them. The tail begins after the mark.
//! Where the stream does not reach back to the mark, the auth service is asked for all: what it says includes
//! everything up to where the stream stood before the question, because auth commits before it publishes.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use edd_events::bus::{Bus, BusError, StreamState};
use edd_events::consumer;
use edd_events::database::Database;
use edd_events::message::Message;
use edd_events::projection::OwnerError;
use edd_events::tail::{self, Follower, Tail};
use edd_proto::{Consumer, Stream};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::mark::{self, Mark};
use super::{Revocation, Revocations, SUBJECTS};

/// Revocations that the auth service is asked for in one go.
const PAGE: u32 = 1000;
/// Between two looks for lost events.
const CHECK_EVERY: Duration = Duration::from_secs(30);
/// Pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Events read in one go at the start.
const BATCH: usize = 256;
/// How long a service that starts waits to learn what is revoked before it serves all the same.
const FIRST_WAIT: Duration = Duration::from_secs(3);

/// Some of what is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationPage {
    pub revocations: Vec<Revocation>,
    /// What to ask for next; none: this was the last. It grows from page to page.
    pub next: Option<i64>,
}

/// Who knows all that is revoked: the auth service, in this process or over HTTP.
#[async_trait]
pub trait RevocationSource: Debug + Send + Sync {
    /// At most `most` revocations that still hold, after the place that the page before told; 0 is the beginning.
    async fn revoked(&self, after: i64, most: u32) -> Result<RevocationPage, OwnerError>;
}

/// Why the set may lack something.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error("the auth service's revocations: {0}")]
    Source(#[from] OwnerError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// How complete a set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedState {
    /// Whether tokens are held against it at all.
    pub is_complete: bool,
    /// What keeps it from being as new as it could be.
    pub failure: Option<String>,
}

/// One service's, for one process of it. [`Revocations`] is to be a handler of `consumer`, in any process.
#[derive(Debug)]
pub struct Feed {
    set: Revocations,
    database: Database,
    bus: Arc<dyn Bus>,
    consumer: Consumer,
    source: Arc<dyn RevocationSource>,
    /// What of the tables is in memory.
    loaded: Option<Mark>,
    told: watch::Sender<FeedState>,
}

impl Feed {
    /// The set that `database`, which has the tables of [`STEP`](super::STEP), remembers.
    ///
    /// # Errors
    /// The database fails.
    pub async fn open(
        database: Database,
        bus: Arc<dyn Bus>,
        consumer: Consumer,
        source: Arc<dyn RevocationSource>,
    ) -> sqlx::Result<Self> {
        // Before the rows, of which there may be more by then.
        let loaded = mark::read(&database).await?;
        let set = Revocations::load(&database).await?;
        let told = watch::Sender::new(FeedState { is_complete: set.is_complete(), failure: None });
        Ok(Self { set, database, bus, consumer, source, loaded, told })
    }

    /// The set, which changes as things are revoked.
    pub fn revocations(&self) -> &Revocations {
        &self.set
    }

    /// How complete it is, as of the last look.
    pub fn watch(&self) -> watch::Receiver<FeedState> {
        self.told.subscribe()
    }

    /// Lets a service that starts learn before its first request what was revoked while it was down, if that is to be
    /// had soon.
    pub async fn prepare(&mut self) {
        let learn = async {
            self.round().await?;
            self.catch_up().await
        };
        let outcome = tokio::time::timeout(FIRST_WAIT, learn).await.unwrap_or_else(|_| {
            let late = format!("nobody told all within {} s", FIRST_WAIT.as_secs());
            Err(BusError::Unavailable(late).into())
        });
        self.tell(&outcome);
    }

    /// Hears what the stream has after the mark. The tail hears it again.
    async fn catch_up(&self) -> Result<(), FeedError> {
        let Some(mark) = self.loaded.filter(|mark| mark.epoch.is_some()) else { return Ok(()) };
        let mut next = mark.seq + 1;
        loop {
            let messages = self.bus.read(Stream::AUTH.name, next, SUBJECTS, BATCH).await?;
            let Some((last, _)) = messages.last() else { return Ok(()) };
            next = last + 1;
            messages.iter().for_each(|(seq, message)| hear(&self.set, *seq, message));
        }
    }

    /// Keeps the set complete until told to stop. Who is away is waited for.
    pub async fn run(self, stop: CancellationToken) {
        let from = self.loaded.map_or(tail::Mark { epoch: None, seq: 0 }, |mark| {
            // Without an epoch all of the stream is told.
            tail::Mark { epoch: mark.epoch, seq: mark.seq }
        });
        let gap = Arc::new(Gap::default());
        let follower = Listener { set: self.set.clone(), gap: gap.clone() };
        let tail = Tail::new(self.bus.clone(), &Stream::AUTH, SUBJECTS, from, follower);
        tokio::join!(tail.run(stop.clone()), self.keep(gap, stop));
    }

    async fn keep(mut self, gap: Arc<Gap>, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            if gap.is_open.swap(false, Ordering::Relaxed) {
                // The tables may have what this process was not told.
                self.loaded = None;
            }
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.round() => outcome,
            };
            self.tell(&outcome);
            let wait = if outcome.is_ok() { CHECK_EVERY } else { pause };
            pause = if outcome.is_ok() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = gap.opened.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn tell(&self, outcome: &Result<(), FeedError>) {
        let failure = outcome.as_ref().err().map(FeedError::to_string);
        if let Some(error) = &failure {
            tracing::warn!(consumer = self.consumer.name, error, "revocations may be missing; looking again");
        }
        self.told.send_replace(FeedState { is_complete: self.set.is_complete(), failure });
    }

    /// Asks for all if something is missing; notes how far the tables reach if nothing is.
    ///
    /// # Errors
    /// Somebody is away. What was learned by then is in the set.
    async fn round(&mut self) -> Result<(), FeedError> {
        let mark = mark::read(&self.database).await?;
        if let Some(mark) = mark.filter(|mark| self.loaded.is_none_or(|known| known.snapshots != mark.snapshots)) {
            self.set.refresh(&self.database).await?;
            self.set.set_complete();
            self.loaded = Some(mark);
        }
        let Some(mark) = mark else {
            // Better without a position than not at all: whoever signs in wants to be let in while the bus is away.
            let position = self.position().await.inspect_err(|error| tracing::debug!(%error, "no position"));
            return self.take_all(position.ok().map(|(stream, _)| stream)).await;
        };
        let (stream, covered) = self.position().await?;
        match lost(&mark, &stream) {
            Some(why) => {
                tracing::warn!(consumer = self.consumer.name, why, "revocations may be missing: asking for all");
                self.take_all(Some(stream)).await
            }
            None => Ok(mark::raise(&self.database, stream.epoch, covered).await?),
        }
    }

    /// Where the stream is, and how far the tables follow it.
    async fn position(&self) -> Result<(StreamState, u64), FeedError> {
        self.bus.ensure(&[self.consumer.stream], &[self.consumer]).await?;
        // Before the consumer: what has come since is not taken for handled.
        let before = self.bus.stream(self.consumer.stream.name).await?;
        let state = self.bus.consumer(&self.consumer).await?;
        // And after it: a consumer passes what retention takes, as if it had been handled.
        let stream = self.bus.stream(self.consumer.stream.name).await?;
        let covered = consumer::covered(&self.database, &self.consumer, &before, &state).await?;
        Ok((stream, covered))
    }

    /// Has the auth service tell all that is revoked; `position` is where the stream was before.
    async fn take_all(&mut self, position: Option<StreamState>) -> Result<(), FeedError> {
        let mut after = 0;
        loop {
            let RevocationPage { revocations, next } = self.source.revoked(after, PAGE).await?;
            if let Some(next) = next.filter(|next| *next <= after) {
                return Err(OwnerError::Invalid(format!("the page after {after} is followed by that of {next}")).into());
            }
            let mut transaction = self.database.begin().await?;
            for revocation in &revocations {
                revocation.store(&mut transaction).await?;
            }
            let mark = match next {
                None => Some(mark::complete(&mut transaction, position).await?),
                Some(_) => None,
            };
            self.database.commit(transaction).await?;
            self.set.insert_all(&revocations);
            match next {
                Some(next) => after = next,
                None => {
                    self.set.set_complete();
                    self.loaded = mark;
                    return Ok(());
                }
            }
        }
    }
}

/// Why events after the mark must be taken for lost.
fn lost(mark: &Mark, stream: &StreamState) -> Option<String> {
    match mark.epoch {
        None => Some("the stream was away when they were last asked for".to_owned()),
        Some(epoch) if epoch != stream.epoch => Some("the stream was created anew".to_owned()),
        Some(_) if stream.last_seq < mark.seq => {
            Some(format!("the stream went back from {} to {}", mark.seq, stream.last_seq))
        }
        Some(_) if stream.first_seq > mark.seq + 1 => {
            Some(format!("the stream begins at {} and {} was the last known", stream.first_seq, mark.seq))
        }
        Some(_) => None,
    }
}

fn hear(set: &Revocations, seq: u64, message: &Message) {
    if let Err(error) = set.apply(message) {
        // The durable consumer makes it a dead letter.
        tracing::error!(seq, subject = message.subject, %error, "nobody can tell what this revokes");
    }
}

/// That this process may have missed events.
#[derive(Debug, Default)]
struct Gap {
    is_open: AtomicBool,
    opened: Notify,
}

/// Tells the set.
struct Listener {
    set: Revocations,
    gap: Arc<Gap>,
}

#[async_trait]
impl Follower for Listener {
    async fn message(&mut self, seq: u64, message: &Message) {
        hear(&self.set, seq, message);
    }

    async fn reset(&mut self) {
        // Not read here: while a database is away, what comes next is still heard.
        self.gap.is_open.store(true, Ordering::Relaxed);
        self.gap.opened.notify_one();
    }
}

#[cfg(test)]
mod tests;
