//! Forgets what nobody needs any more, a few rows at a time.

use std::sync::Arc;
use std::time::Duration;

use edd_proto::{Consumer as Spec, Stream};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Micros, micros};
use crate::database::Database;
use crate::{dead_letter, event_log, inbox, outbox};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(600);
/// Rows removed in one go: others write in between.
const BATCH_ROWS: u32 = 500;
/// What is kept for longer than a stream keeps its events: a clock that is wrong, a broker that is late.
const MARGIN: Duration = Duration::from_secs(24 * 3600);
/// How long the audit trail, and dead letters that were decided about, can be asked for.
const TRAIL_RETENTION: Duration = Duration::from_secs(90 * 24 * 3600);

/// One service's.
#[derive(Debug)]
pub(super) struct Housekeeping {
    database: Database,
    clock: Arc<dyn Clock>,
    /// That the service publishes to.
    streams: Vec<Stream>,
    /// How long any of the streams that it reads may bring an event again.
    longest_read: Duration,
}

/// What one round has removed, rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    pub outbox: u64,
    pub inbox: u64,
    pub event_log: u64,
    pub dead_letters: u64,
}

impl Housekeeping {
    pub fn new(database: Database, clock: Arc<dyn Clock>, streams: Vec<Stream>, consumers: &[Spec]) -> Self {
        let longest_read = consumers.iter().map(|spec| spec.stream.retention()).max().unwrap_or_default();
        Self { database, clock, streams, longest_read }
    }

    pub async fn run(self, stop: CancellationToken) {
        loop {
            let round = tokio::select! {
                () = stop.cancelled() => return,
                round = self.round() => round,
            };
            match round {
                Ok(removed) if removed == Removed::default() => {}
                Ok(removed) => tracing::info!(?removed, "old rows are gone"),
                Err(error) => tracing::warn!(%error, "old rows stay for now"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    pub async fn round(&self) -> sqlx::Result<Removed> {
        let (database, now) = (&self.database, self.clock.now());
        let before = |kept: Duration| -> Micros { now - micros(kept) };
        let mut removed = Removed::default();
        for stream in &self.streams {
            // Longer than the stream has it, so that a broker that lost data can be filled again.
            let before = before(stream.retention() + MARGIN);
            for subject in stream.subjects {
                removed.outbox += exhaust(|| outbox::prune(database, subject, before, BATCH_ROWS)).await?;
            }
        }
        let inbox = before(self.longest_read + MARGIN);
        removed.inbox = exhaust(|| inbox::prune(database, inbox, BATCH_ROWS)).await?;
        let trail = before(TRAIL_RETENTION);
        removed.event_log = exhaust(|| event_log::prune(database, trail, BATCH_ROWS)).await?;
        removed.dead_letters = exhaust(|| dead_letter::prune(database, trail, BATCH_ROWS)).await?;
        Ok(removed)
    }
}

/// Removes batch after batch until there is less than one.
async fn exhaust<F: Future<Output = sqlx::Result<u64>>>(batch: impl Fn() -> F) -> sqlx::Result<u64> {
    let mut all = 0;
    loop {
        let removed = batch().await?;
        all += removed;
        if removed < u64::from(BATCH_ROWS) {
            return Ok(all);
        }
        // SQLite's one writer goes to whoever waits for it.
        tokio::task::yield_now().await;
    }
}
