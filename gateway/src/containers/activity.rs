//! What is used, told to compute, so that it does not sleep; and by how much, written down.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use edd_events::clock::Clock;
use edd_events::database::Database;
use edd_proto::ContainerId;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::containers::Containers;
use crate::containers::keeper::{Keeper, MAX_ACTIVE};
use crate::containers::store::{self, Account};
use crate::live::{LedgerReader, Usage};

/// Between two reports.
pub const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for compute to take one.
pub const REPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows that wait for the database; usage of further ones is lost, and counted as lost.
const MAX_WAITING_ROWS: usize = 100_000;
/// Rows written in one transaction.
const BATCH_ROWS: usize = 1000;
/// How long usage is kept, and between two looks for what is older.
const KEPT_DAYS: i64 = 400;
const PRUNE_EVERY: u32 = 360;
const MICROS_PER_DAY: i64 = 24 * 3600 * 1_000_000;

/// Reads the ledger of the containers and passes on what is in it. One per process.
#[derive(Debug)]
pub struct Reporter {
    ledger: LedgerReader,
    containers: Containers,
    keeper: Arc<dyn Keeper>,
    database: watch::Receiver<Option<Database>>,
    clock: Arc<dyn Clock>,
    waiting: HashMap<Account, Usage>,
}

impl Reporter {
    /// `database` is none as long as it is not there.
    pub fn new(
        ledger: LedgerReader,
        containers: Containers,
        keeper: Arc<dyn Keeper>,
        database: watch::Receiver<Option<Database>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { ledger, containers, keeper, database, clock, waiting: HashMap::new() }
    }

    /// Reports until told to stop, and once more then.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for round in 0u32.. {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            self.report().await;
            if round % PRUNE_EVERY == 0 {
                self.prune().await;
            }
        }
        self.report().await;
    }

    /// Tells what was used since the last report, and writes down how much.
    pub async fn report(&mut self) {
        let day = self.clock.now().div_euclid(MICROS_PER_DAY);
        let used = self.ledger.read();
        let ids: Vec<ContainerId> = used.iter().map(|(life, _)| life.container()).collect();
        for (life, usage) in used.into_iter().filter(|(_, usage)| !usage.is_none()) {
            self.add(Account { owner: life.owner(), container: life.container(), day }, usage);
        }
        self.tell(ids).await;
        self.write().await;
    }

    fn add(&mut self, account: Account, usage: Usage) {
        if self.waiting.len() >= MAX_WAITING_ROWS && !self.waiting.contains_key(&account) {
            self.containers.metrics().usage_dropped.inc();
            return;
        }
        self.waiting.entry(account).or_default().add(usage);
    }

    async fn tell(&self, mut ids: Vec<ContainerId>) {
        // A container may have had two lives.
        ids.sort_unstable();
        ids.dedup();
        for ids in ids.chunks(MAX_ACTIVE) {
            // One that is still in use is told of again.
            match tokio::time::timeout(REPORT_TIMEOUT, self.keeper.active(ids)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "compute was not told which containers are in use"),
                Err(_) => tracing::warn!("compute took no report of the containers that are in use"),
            }
        }
    }

    /// Writes what waits. What the database does not take goes on waiting: where it is unknown whether it did, usage
    /// is rather counted twice than lost.
    async fn write(&mut self) {
        let Some(database) = self.database.borrow().clone() else { return };
        // In one order everywhere: two gateways that lock each other's rows would wait for each other.
        let mut accounts: Vec<Account> = self.waiting.keys().copied().collect();
        accounts.sort_unstable();
        for batch in accounts.chunks(BATCH_ROWS) {
            let usage = |account: &Account| self.waiting.get(account).map(|usage| (*account, *usage));
            let usages: Vec<_> = batch.iter().filter_map(usage).collect();
            if let Err(error) = store::add_all(&database, &usages).await {
                tracing::warn!(%error, waiting = self.waiting.len(), "usage was not written and waits");
                return;
            }
            for account in batch {
                self.waiting.remove(account);
            }
        }
    }

    async fn prune(&self) {
        let Some(database) = self.database.borrow().clone() else { return };
        let oldest = self.clock.now().div_euclid(MICROS_PER_DAY) - KEPT_DAYS;
        if let Err(error) = store::prune(&database, oldest).await {
            tracing::warn!(%error, "old usage was not removed");
        }
    }
}
