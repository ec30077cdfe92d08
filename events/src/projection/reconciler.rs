//! Compares a projection with its owner's state now and then, and repairs what differs.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::projection::{Digest, Replay, ReplayError, Source, SyncError, Synced, Synchronizer, status};

/// Comparisons before a difference that is never the same twice is put down to the traffic.
const TRIES: u32 = 5;
/// How long the consumer may take to come to the stream's end: longer than all tries of a failing event.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a comparison came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// Both changed too fast to be compared.
    Moving,
    /// They differed, and do no more.
    Repaired(Synced),
}

/// Why a projection could not be compared or repaired.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("the consumer did not get to {seq} within {} s", .patience.as_secs())]
    Behind { seq: u64, patience: Duration },
}

/// Reconciles one projection at intervals.
#[derive(Clone, Debug)]
pub struct Reconciler {
    synchronizer: Synchronizer,
    /// Between two comparisons.
    interval: Duration,
    /// Between two looks at a difference: what is on its way should have come by then.
    settle: Duration,
}

impl Reconciler {
    /// Compares every `interval`, and twice with `settle` between before it believes a difference.
    pub fn new(synchronizer: Synchronizer, interval: Duration, settle: Duration) -> Self {
        Self { synchronizer, interval, settle }
    }

    /// Reconciles until told to stop. The first comparison comes after one interval.
    pub async fn run(self, stop: CancellationToken) {
        let projection = self.synchronizer.projection.shape().name;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.interval) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                verdict = self.round() => match verdict {
                    Ok(Verdict::Same | Verdict::Repaired(_)) => {}
                    Ok(Verdict::Moving) => tracing::info!(projection, "too much traffic to compare with the owner"),
                    Err(error) => tracing::warn!(projection, %error, "cannot compare with the owner's state"),
                },
            }
        }
    }

    /// Compares, and repairs a difference that is still the same after everything on its way has come.
    ///
    /// # Errors
    /// Something that is needed is away.
    pub async fn round(&self) -> Result<Verdict, ReconcileError> {
        let (here, owner) = match self.difference().await? {
            Compared::Same => {
                self.note(false).await?;
                return Ok(Verdict::Same);
            }
            Compared::Moving => return Ok(Verdict::Moving),
            Compared::Different(here, owner) => (here, owner),
        };
        self.note(true).await?;
        let projection = self.synchronizer.projection.shape().name;
        tracing::error!(projection, %here, %owner, "the projection differs from its owner's state");
        let mut synced = self.synchronizer.sync().await?;
        if let Compared::Different(here, owner) = self.difference().await? {
            // A row of a version that its owner never gave: no snapshot may lower it, but a table may be built anew.
            tracing::error!(projection, %here, %owner, "a snapshot does not repair it; building it anew");
            let Synchronizer { projection, consumer, owner, database, bus, clock, .. } = self.synchronizer.clone();
            let replay = Replay::new(projection, consumer.stream, Some(owner), (database, bus, clock));
            synced.read = replay.run(Some(Source::Owner), &mut |_| {}).await?.read;
        }
        let Synced { read, written, removed } = synced;
        tracing::warn!(projection, read, written, removed, "the projection was repaired");
        Ok(Verdict::Repaired(synced))
    }

    async fn note(&self, differs: bool) -> Result<(), SyncError> {
        let Synchronizer { projection, database, clock, .. } = &self.synchronizer;
        Ok(status::reconciled(database, projection.shape().name, differs, clock.now()).await?)
    }

    async fn difference(&self) -> Result<Compared, ReconcileError> {
        let mut before = None;
        for _ in 0..TRIES {
            let owner = self.synchronizer.owner.digest().await.map_err(SyncError::from)?;
            self.catch_up().await?;
            let here = self.synchronizer.digest().await?;
            if here == owner {
                return Ok(Compared::Same);
            }
            // The same twice, with the consumer at the stream's end both times.
            if before == Some((here, owner)) {
                return Ok(Compared::Different(here, owner));
            }
            before = Some((here, owner));
            tokio::time::sleep(self.settle).await;
        }
        Ok(Compared::Moving)
    }

    /// Waits until the consumer has handled all that the stream has now.
    async fn catch_up(&self) -> Result<(), ReconcileError> {
        let Synchronizer { bus, consumer, timing, .. } = &self.synchronizer;
        let seq = bus.stream(consumer.stream.name).await.map_err(SyncError::from)?.last_seq;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.synchronizer.has_handled(seq).await? {
            if tokio::time::Instant::now() >= deadline {
                return Err(ReconcileError::Behind { seq, patience: PATIENCE });
            }
            tokio::time::sleep(timing.poll_every).await;
        }
        Ok(())
    }
}

enum Compared {
    Same,
    Moving,
    /// Here, and at the owner.
    Different(Digest, Digest),
}
