//! Fills a projection from its owner, and again whenever events were lost.

use std::sync::Arc;
use std::time::Duration;

use edd_proto::Consumer;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, BusError, StreamState};
use crate::clock::Clock;
use crate::consumer;
use crate::database::Database;
use crate::fail_point::fail_point;
use crate::projection::table::PAGE_ROWS;
use crate::projection::{Digest, DigestBuilder, Owner, OwnerError, Projection, Status, Table, shadow, status};

/// When things are done by themselves.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two looks for lost events.
    pub check_every: Duration,
    /// Between two looks whether the consumer has come far enough.
    pub poll_every: Duration,
    /// Pause after a failure, doubled up to the longest.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            check_every: Duration::from_secs(30),
            poll_every: Duration::from_millis(200),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// Why a projection is not known to be complete. It goes on taking events.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// What a snapshot changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Rows of the snapshot.
    pub read: u64,
    /// Rows that were older, missing or wrong.
    pub written: u64,
    /// Rows that the owner does not know.
    pub removed: u64,
}

/// Keeps one projection complete. Its [`Projector`](crate::projection::Projector) must run behind `consumer`, here or
/// in another process, independently of this: events take effect while the owner is away.
///
/// # Why no snapshot is missed, and none undoes an event
/// (1) The durable consumer exists. (2) The stream's last sequence L is noted. (3) The owner is read page by page by
/// key, with versions and tombstones; (4) rows take higher versions only; (5) events are consumed all the while, and
/// the projection is ready once those up to L are; (6) rows that the owner does not know are removed if nothing
/// touched them since the read began.
///
/// The pages need no single consistent read. What is committed at the owner before its page is read is in that page.
/// What is committed later gets a sequence above L, because the owner publishes after the commit and L was noted
/// before the first page, so the durable consumer brings it; its version decides, whichever comes first. A row never
/// changes its key, so none slips from a page that was not read into one that was.
///
/// "Since the read began" is told by a round: a number that grows before every read and that each write takes along.
/// Clocks jump, rounds do not. A row whose write took the round before was written for an event that had been
/// delivered before the read began, and then the owner, which publishes after its commit, had it at the read.
#[derive(Clone, Debug)]
pub struct Synchronizer {
    pub(crate) projection: Arc<dyn Projection>,
    pub(crate) consumer: Consumer,
    pub(crate) owner: Arc<dyn Owner>,
    pub(crate) database: Database,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timing: Timing,
}

impl Synchronizer {
    pub fn new(
        projection: Arc<dyn Projection>,
        consumer: Consumer,
        owner: Arc<dyn Owner>,
        (database, bus, clock): (Database, Arc<dyn Bus>, Arc<dyn Clock>),
        timing: Timing,
    ) -> Self {
        Self { projection, consumer, owner, database, bus, clock, timing }
    }

    /// Looks after the projection until told to stop. An owner or a bus that is away is told and waited for.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = self.timing.first_pause;
        while !stop.is_cancelled() {
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = self.round() => round,
            };
            let wait = match round {
                Ok(status) => {
                    pause = self.timing.first_pause;
                    if status.is_ready() { self.timing.check_every } else { self.timing.poll_every }
                }
                Err(error) => {
                    let wait = pause;
                    pause = (pause * 2).min(self.timing.longest_pause);
                    self.complain(&error, wait).await;
                    wait
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn complain(&self, error: &SyncError, wait: Duration) {
        let (projection, retry_ms) = (self.projection.shape().name, wait.as_millis() as u64);
        tracing::warn!(projection, %error, retry_ms, "the projection may lack what its owner has");
        if let Err(failure) = status::fail(&self.database, projection, &error.to_string()).await {
            tracing::warn!(projection, error = %failure, "nor could that be noted");
        }
    }

    /// Looks for what is lost, takes a snapshot if one is needed, and notes how far the consumer is.
    ///
    /// # Errors
    /// Bus, owner or database are away.
    pub async fn round(&self) -> Result<Status, SyncError> {
        let name = self.projection.shape().name;
        shadow::clean(&self.database, self.projection.shape(), self.clock.now()).await?;
        if self.check().await?.needed.is_some() {
            let synced = self.sync().await?;
            let Synced { read, written, removed } = synced;
            tracing::info!(projection = name, read, written, removed, "took a snapshot of the owner's state");
            self.check().await?;
        }
        self.status().await
    }

    /// Where the projection stands, as the database has it.
    ///
    /// # Errors
    /// The database is away.
    pub async fn status(&self) -> Result<Status, SyncError> {
        Ok(status::open(&self.database, self.projection.shape(), self.consumer.stream.name, self.clock.now()).await?)
    }

    /// Compares stream and consumer with what was noted of them, and notes what follows.
    ///
    /// # Errors
    /// Bus or database are away.
    pub async fn check(&self) -> Result<Status, SyncError> {
        let name = self.projection.shape().name;
        let status = self.status().await?;
        // Before the consumer: what has come since is not taken for handled.
        let before = self.bus.stream(self.consumer.stream.name).await?;
        let consumer = match self.bus.consumer(&self.consumer).await {
            Ok(consumer) => Ok(consumer),
            Err(BusError::Refused(reason)) => Err(reason),
            Err(error) => return Err(error.into()),
        };
        // And after it: a consumer passes what retention takes, as if it had been handled.
        let stream = self.bus.stream(self.consumer.stream.name).await?;
        let now = self.clock.now();
        if let Some(why) = lost(&status, &stream, consumer.as_ref().err()) {
            tracing::warn!(projection = name, why, "the projection needs a snapshot");
            status::need(&self.database, name, &why, now).await?;
        } else if let Ok(consumer) = consumer {
            let done = consumer::covered(&self.database, &self.consumer, &before, &consumer).await?;
            if done > status.covered_seq {
                status::cover(&self.database, name, (stream.epoch, done)).await?;
            }
            if !status.is_ready() && status.finished_at.is_some() && done >= status.synced_seq {
                status::ready(&self.database, name, now).await?;
            }
        }
        self.status().await
    }

    /// Brings the projection to its owner's state by a snapshot.
    ///
    /// # Errors
    /// Bus, owner or database are away. What was written stays, and the next snapshot begins anew.
    pub async fn sync(&self) -> Result<Synced, SyncError> {
        let shape = self.projection.shape();
        let (table, mut synced) = (Table::live(shape), Synced::default());
        self.bus.ensure(&[self.consumer.stream], &[self.consumer]).await?;
        let stream = self.bus.stream(self.consumer.stream.name).await?;
        self.status().await?;
        let round = status::begin_round(&self.database, shape.name, self.clock.now()).await?;
        let mut after: Option<String> = None;
        loop {
            let page = self.owner.page(after.clone(), PAGE_ROWS).await?;
            page.check(shape, after.as_deref(), PAGE_ROWS)?;
            let last = page.entries.last().map(|entry| entry.key.clone());
            let range = (after.as_deref(), last.as_deref().filter(|_| page.more));
            let mut transaction = self.database.begin().await?;
            synced.read += page.entries.len() as u64;
            synced.written += table.write(&mut transaction, &page.entries, Some(round), self.clock.now()).await?;
            fail_point!("snapshot.page");
            synced.removed += table.remove_absent(&mut transaction, range, &page.entries, round).await?;
            if !page.more {
                let (position, now) = ((stream.epoch, stream.last_seq), self.clock.now());
                status::finish_round(&mut transaction, shape.name, position, now).await?;
            }
            self.database.commit(transaction).await?;
            if !page.more {
                return Ok(synced);
            }
            after = last;
        }
    }

    /// The digest of the table. A table that is written meanwhile may have one that it had at no time.
    ///
    /// # Errors
    /// The database is away.
    pub async fn digest(&self) -> Result<Digest, SyncError> {
        let (table, mut builder) = (Table::live(self.projection.shape()), DigestBuilder::default());
        let mut after: Option<String> = None;
        loop {
            let entries = table.page(&self.database, after.as_deref(), PAGE_ROWS).await?;
            for entry in &entries {
                builder.add(entry).map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
            }
            match entries.into_iter().next_back() {
                Some(last) => after = Some(last.key),
                None => return Ok(builder.finish()),
            }
        }
    }

    /// Whether the projection is what its owner has now.
    ///
    /// # Errors
    /// Owner or database are away.
    pub async fn converged(&self) -> Result<bool, SyncError> {
        Ok(self.digest().await? == self.owner.digest().await?)
    }

    /// Whether everything up to `seq` has had its effect.
    pub(crate) async fn has_handled(&self, seq: u64) -> Result<bool, SyncError> {
        let stream = self.bus.stream(self.consumer.stream.name).await?;
        let state = self.bus.consumer(&self.consumer).await?;
        Ok(consumer::covered(&self.database, &self.consumer, &stream, &state).await? >= seq)
    }
}

/// Why events must be taken for lost, or for lost since it was last said.
fn lost(status: &Status, stream: &StreamState, no_consumer: Option<&String>) -> Option<String> {
    let covered = status.covered_seq;
    if status.needed.is_some() {
        return None;
    }
    if status.epoch != Some(stream.epoch) {
        return Some(format!("the stream {} was created anew", status.stream));
    }
    if stream.last_seq < covered {
        return Some(format!("the stream {} went back from {covered} to {}", status.stream, stream.last_seq));
    }
    // Compared with what was noted and not with where the consumer is now: it may have leapt over the gap.
    if stream.first_seq > covered + 1 {
        let first = stream.first_seq;
        return Some(format!("the stream {} begins at {first} and {covered} was the last handled", status.stream));
    }
    no_consumer.map(|reason| format!("the durable consumer is gone: {reason}"))
}
