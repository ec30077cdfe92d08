//! The rules in memory, on every replica: what the database has, a moment later.

use std::time::Duration;

use edd_events::database::Database;
use edd_proto::ContainerId;
use imbl::shared_ptr::DefaultSharedPtr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::store::{self, StoreError};
use crate::table::ports::PortRule;

/// Rows read in one go.
const PAGE_ROWS: u32 = 512;
/// Commits wake the feed; this only bounds how long a lost wake-up lasts.
const POLL: Duration = Duration::from_secs(2);
/// Pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Every rule, by container and port. Persistent: [`diff`](imbl::GenericOrdMap::diff) tells what changed from one to the
/// next without looking at what did not.
pub type Rules = imbl::GenericOrdMap<(ContainerId, u16), PortRule, DefaultSharedPtr>;

/// Follows the rules of one database.
#[derive(Debug)]
pub struct RuleFeed {
    database: Database,
    revision: i64,
    rules: watch::Sender<Rules>,
}

impl RuleFeed {
    /// One that knows nothing yet.
    pub fn new(database: Database) -> Self {
        Self { database, revision: 0, rules: watch::Sender::default() }
    }

    /// The rules as they are known, and when they change.
    pub fn rules(&self) -> watch::Receiver<Rules> {
        self.rules.subscribe()
    }

    /// Reads what changed since it was last asked.
    ///
    /// # Errors
    /// The database fails; what was known stays, and is followed from there on.
    pub async fn refresh(&mut self) -> Result<(), StoreError> {
        let mut rules = self.rules.borrow().clone();
        let before = self.revision;
        let read = loop {
            let page = match store::changes(&self.database, self.revision, PAGE_ROWS).await {
                Ok(page) => page,
                Err(error) => break Err(error),
            };
            for change in &page {
                self.revision = change.revision;
                match change.rule {
                    Some(rule) => rules.insert((change.container, change.port), rule),
                    None => rules.remove(&(change.container, change.port)),
                };
            }
            if page.len() < PAGE_ROWS as usize {
                break Ok(());
            }
        };
        if self.revision != before {
            self.rules.send_replace(rules);
        }
        read
    }

    /// Follows until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let database = self.database.clone();
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            // Registered before the rules are read, so that no commit falls between.
            let committed = database.committed();
            match self.refresh().await {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = committed => {}
                        () = tokio::time::sleep(POLL) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "ingress rules cannot be read; those that are known serve on");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
