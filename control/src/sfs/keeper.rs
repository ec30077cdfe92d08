//! Takes away what nobody needs.
//!
//! It takes no orders: a change only wakes it, a timer repairs what nobody told of. It may be killed at any point, and any
//! number of processes may do the same at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::sfs::error::SfsError;
use crate::sfs::service::Service;
use crate::sfs::store::blobs;

/// Shortest time between two looks, however much is going on.
const SHORTEST_SLEEP: Duration = Duration::from_secs(1);
/// Longest time between two.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Between two looks at what writers left in the store that were killed, and how long nobody must have added to it: the
/// largest object may take days to get to a store far away.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
const SWEPT_AFTER: Duration = Duration::from_secs(3 * 86_400);

/// The keeper of one process.
#[derive(Clone, Debug)]
pub struct Keeper {
    service: Service,
}

impl Keeper {
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// Keeps the house until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut sweep_at = Instant::now();
        while !stop.is_cancelled() {
            if Instant::now() >= sweep_at {
                sweep_at = Instant::now() + SWEEP_EVERY;
                let _ = stop.run_until_cancelled(self.sweep()).await;
            }
            let committed = self.service.database().committed();
            tokio::pin!(committed);
            committed.as_mut().enable();
            let earliest = Instant::now() + SHORTEST_SLEEP;
            let round = stop.run_until_cancelled(self.round()).await;
            let sleep = match round {
                None => return,
                Some(Ok(())) => self.sleep().await,
                Some(Err(error)) => {
                    tracing::warn!(%error, "garbage waits to be removed");
                    SHORTEST_SLEEP
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = committed => {}
                () = tokio::time::sleep(sleep) => {}
            }
            // Uploads commit all the time.
            let _ = stop.run_until_cancelled(tokio::time::sleep_until(earliest)).await;
        }
    }

    /// Removes what is no object yet, and will be none.
    async fn sweep(&self) {
        match self.service.store().sweep(SWEPT_AFTER).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed what writers left that were killed"),
            Err(error) => tracing::warn!(%error, "what writers left that were killed is not removed"),
        }
    }

    /// Until something is due.
    async fn sleep(&self) -> Duration {
        let next = blobs::next_due(self.service.database().reader()).await;
        let wait = |at: i64| Duration::from_micros(u64::try_from(at - self.service.now()).unwrap_or_default());
        next.ok().flatten().map_or(LONGEST_SLEEP, wait).min(LONGEST_SLEEP)
    }

    /// Sees to everything that is due, until nothing is.
    ///
    /// # Errors
    /// The database or the store fails. The rest is as due as before.
    pub async fn round(&self) -> Result<(), SfsError> {
        while self.service.clear_departed().await? {}
        while self.service.expire_uploads().await? {}
        while self.service.forget_shares().await? {}
        while self.service.purge_some().await? {}
        while self.service.collect().await? {}
        Ok(())
    }
}
