//! Builds a projection anew beside the one that is read, and puts it in its place.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use edd_proto::Stream;

use crate::bus::{Bus, BusError, StreamState};
use crate::clock::Clock;
use crate::database::{Database, Kind};
use crate::fail_point::fail_point;
use crate::message::Message;
use crate::projection::shadow::Shadow;
use crate::projection::table::PAGE_ROWS;
use crate::projection::{Key, Owner, OwnerError, Projection, Table, status};

/// Messages that are read and written in one go.
const BATCH: usize = 512;
/// Tries to exchange the tables while somebody reads the old one, and the pause between them.
const SWAPS: u32 = 5;
const SWAP_PAUSE: Duration = Duration::from_millis(500);
/// What PostgreSQL says when a lock is not to be had in time, and when two wait for each other.
const BUSY: [&str; 2] = ["55P03", "40P01"];

/// What a projection is built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Everything that the stream keeps. Only while that is everything that there was.
    Stream,
    /// The owner's snapshot, and what the stream brought since.
    Owner,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages or rows that were read.
    pub read: u64,
    /// How many there are, if it is known.
    pub total: Option<u64>,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    pub source: Source,
    /// Messages and rows that were read.
    pub read: u64,
    /// Messages that no row could be made of; they are among the consumer's dead letters.
    pub skipped: u64,
    /// Rows that were written meanwhile and taken over.
    pub carried: u64,
}

/// Why the projection is what it was before.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("another replay of {projection} is running; one that died is cleared away after {} s", .lease.as_secs())]
    Running { projection: &'static str, lease: Duration },
    #[error("this replay of {projection} showed no life for {} s and was taken for dead: run it again", .lease.as_secs())]
    Overtaken { projection: &'static str, lease: Duration },
    #[error("the stream {stream} begins at {first_seq} and has lost what was before: replay from the owner")]
    Truncated { stream: &'static str, first_seq: u64 },
    #[error("the stream does not tell of {rows} rows that {projection} has: replay from the owner")]
    WouldLose { projection: &'static str, rows: i64 },
    #[error("the stream {stream} was created anew, or went back, during the replay: run it again")]
    Changed { stream: &'static str },
    #[error("there is no owner to replay {projection} from: set its service's address")]
    NoOwner { projection: &'static str },
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Rebuilds one projection, in the service's process or in another one.
///
/// A shadow table of the same shape is filled, in transactions of a few hundred rows, while the live table goes on
/// being read and written. One transaction then takes over what was written meanwhile and exchanges the tables, so a
/// reader finds the old one or the new one and never a part. A replay that dies leaves the live table as it was, and
/// its shadow is dropped when the next begins, or by the [`Synchronizer`](crate::projection::Synchronizer).
#[derive(Clone, Debug)]
pub struct Replay {
    projection: Arc<dyn Projection>,
    stream: Stream,
    owner: Option<Arc<dyn Owner>>,
    database: Database,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
}

impl Replay {
    pub fn new(
        projection: Arc<dyn Projection>,
        stream: Stream,
        owner: Option<Arc<dyn Owner>>,
        (database, bus, clock): (Database, Arc<dyn Bus>, Arc<dyn Clock>),
    ) -> Self {
        Self { projection, stream, owner, database, bus, clock }
    }

    /// Replays from `source`; without one from the stream if it reaches back to its beginning, or else from the owner.
    /// Calls `progress` after every batch.
    ///
    /// # Errors
    /// Nothing changed.
    pub async fn run(
        &self,
        source: Option<Source>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Replayed, ReplayError> {
        let shape = self.projection.shape();
        self.bus.ensure(&[self.stream], &[]).await?;
        let start = self.bus.stream(self.stream.name).await?;
        let truncated = ReplayError::Truncated { stream: self.stream.name, first_seq: start.first_seq };
        let source = match (source, start.first_seq > 1) {
            (Some(Source::Stream), true) => return Err(truncated),
            (Some(Source::Owner), _) | (None, true) => Source::Owner,
            (Some(Source::Stream) | None, false) => Source::Stream,
        };
        if source == Source::Owner && self.owner.is_none() {
            return Err(ReplayError::NoOwner { projection: shape.name });
        }
        status::open(&self.database, shape, self.stream.name, self.clock.now()).await?;
        let shadow = Shadow::create(&self.database, shape, self.clock.now()).await?;
        let replayed = self.fill(&shadow, source, progress).await;
        if replayed.is_err()
            && let Err(error) = shadow.discard().await
        {
            tracing::warn!(projection = shape.name, %error, "a replay's table stays until its lease is over");
        }
        replayed
    }

    async fn fill(
        &self,
        shadow: &Shadow,
        source: Source,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Replayed, ReplayError> {
        let mut done = Replayed { source, read: 0, skipped: 0, carried: 0 };
        // After the round began, so that what the live consumer handles from here on is known by its round.
        let start = self.bus.stream(self.stream.name).await?;
        if source == Source::Owner {
            self.read_owner(shadow, &mut done, progress).await?;
        }
        let from = if source == Source::Owner { start.last_seq + 1 } else { start.first_seq };
        self.read_stream(shadow, (from, start.last_seq), &mut done, progress).await?;
        // What came while that was read.
        let end = self.bus.stream(self.stream.name).await?;
        self.read_stream(shadow, (from.max(start.last_seq + 1), end.last_seq), &mut done, progress).await?;
        self.verify(shadow, source, from, &start).await?;
        done.carried = self.swap(shadow, source, &start).await?;
        Ok(done)
    }

    async fn read_owner(
        &self,
        shadow: &Shadow,
        done: &mut Replayed,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), ReplayError> {
        let shape = self.projection.shape();
        let owner = self.owner.as_ref().ok_or(ReplayError::NoOwner { projection: shape.name })?;
        let mut after: Option<String> = None;
        loop {
            let page = owner.page(after.clone(), PAGE_ROWS).await?;
            page.check(shape, after.as_deref(), PAGE_ROWS)?;
            let mut transaction = shadow.begin(&*self.clock).await?;
            shadow.table.write(&mut transaction, &page.entries, None, self.clock.now()).await?;
            self.database.commit(transaction).await?;
            done.read += page.entries.len() as u64;
            progress(Progress { read: done.read, total: None });
            if !page.more {
                return Ok(());
            }
            after = page.entries.into_iter().next_back().map(|entry| entry.key);
        }
    }

    /// Applies what the stream keeps from the first to the last of these sequences.
    async fn read_stream(
        &self,
        shadow: &Shadow,
        (mut next, last): (u64, u64),
        done: &mut Replayed,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<(), ReplayError> {
        let total = Some(done.read + (last + 1).saturating_sub(next));
        while next <= last {
            let batch = self.bus.read(self.stream.name, next, self.projection.shape().filters, BATCH).await?;
            let Some((seq, _)) = batch.last() else { return Ok(()) };
            next = seq + 1;
            let messages: Vec<_> = batch.into_iter().map(|(_, message)| message).collect();
            let mut transaction = shadow.begin(&*self.clock).await?;
            done.skipped += self.apply(&shadow.table, &messages, &mut transaction).await?;
            self.database.commit(transaction).await?;
            done.read += messages.len() as u64;
            progress(Progress { read: done.read, total });
        }
        Ok(())
    }

    /// Writes what `messages` say. How many of them say nothing that can be written.
    async fn apply(
        &self,
        table: &Table,
        messages: &[Message],
        connection: &mut sqlx::AnyConnection,
    ) -> Result<u64, ReplayError> {
        let (mut entries, mut skipped) = (Vec::with_capacity(messages.len()), 0);
        for message in messages {
            let entry = match self.projection.read(message) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(failure) => {
                    skipped += self.skip(message, &failure);
                    continue;
                }
            };
            // An entry without a key is looked for among all that came before it.
            if matches!(entry.key, Key::Of(..)) {
                table.write(connection, &entries, None, self.clock.now()).await?;
                entries.clear();
            }
            match table.resolve(connection, entry).await? {
                Some(entry) => entries.push(entry),
                None => skipped += self.skip(message, &"no row has its number"),
            }
        }
        table.write(connection, &entries, None, self.clock.now()).await?;
        Ok(skipped)
    }

    fn skip(&self, message: &Message, reason: &dyn Display) -> u64 {
        let (projection, event_id) = (self.projection.shape().name, &message.event_id);
        tracing::warn!(projection, event_id, subject = message.subject, %reason, "a replay skips an event");
        1
    }

    /// Makes sure that what was read is all that there was.
    async fn verify(&self, shadow: &Shadow, source: Source, from: u64, start: &StreamState) -> Result<(), ReplayError> {
        let stream = self.stream.name;
        let end = self.bus.stream(stream).await?;
        if end.epoch != start.epoch || end.last_seq < start.last_seq {
            return Err(ReplayError::Changed { stream });
        }
        if end.first_seq > from {
            return Err(ReplayError::Truncated { stream, first_seq: end.first_seq });
        }
        if source == Source::Owner {
            return Ok(());
        }
        // A stream that was created anew begins at 1 and still does not tell everything.
        let live = Table::live(self.projection.shape());
        match live.missing_in(&shadow.table, &self.database, shadow.round).await? {
            0 => Ok(()),
            rows => Err(ReplayError::WouldLose { projection: self.projection.shape().name, rows }),
        }
    }

    async fn swap(&self, shadow: &Shadow, source: Source, start: &StreamState) -> Result<u64, ReplayError> {
        let mut swaps = 1;
        loop {
            match self.try_swap(shadow, source, start).await {
                Err(ReplayError::Database(sqlx::Error::Database(error)))
                    if swaps < SWAPS
                        && self.database.kind() == Kind::Postgres
                        && error.code().is_some_and(|code| BUSY.contains(&&*code)) =>
                {
                    tracing::warn!(
                        projection = self.projection.shape().name,
                        swaps,
                        "the table is in use; trying again"
                    );
                    tokio::time::sleep(SWAP_PAUSE).await;
                    swaps += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_swap(&self, shadow: &Shadow, source: Source, start: &StreamState) -> Result<u64, ReplayError> {
        let mut transaction = shadow.begin(&*self.clock).await?;
        let carried = shadow.swap(&mut transaction).await?;
        if source == Source::Owner {
            // It is a snapshot as any other.
            let (position, now) = ((start.epoch, start.last_seq), self.clock.now());
            status::finish_round(&mut transaction, self.projection.shape().name, position, now).await?;
        }
        fail_point!("replay.swapping");
        self.database.commit(transaction).await?;
        fail_point!("replay.swapped");
        Ok(carried)
    }
}
