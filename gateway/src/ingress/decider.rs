//! Gives and refuses ports: takes no orders, compares what is asked for with what there is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use edd_events::clock::Clock;
use edd_events::compute_cache::ingress_requests::IngressRequest;
use edd_events::database::{Database, Transaction};
use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::gateway::{IngressRuleCreated, IngressRuleDeleted, IngressRuleRejected};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::rule::{PortPolicy, Refusal};
use super::store::{self, Obsolete};
use crate::table::ports::PortRule;

/// Differences decided in one transaction.
const BATCH_ROWS: u32 = 256;
/// Commits wake the decider; this only bounds how long a lost wake-up lasts.
const POLL: Duration = Duration::from_secs(5);
/// A round looks at every rule. Its pause is so many times as long as it took: others need the database, too.
const REST: u32 = 4;
/// Pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The machine that the ports are on.
pub trait Machine: Send + Sync {
    /// Whether it gives `port`, or has given it already.
    ///
    /// # Errors
    /// It does not, and why.
    fn offers(&self, port: u16) -> io::Result<()>;
}

/// The decider of one database. Several may run, one decides at a time.
#[derive(Clone)]
pub struct Decider {
    database: Database,
    publisher: Publisher,
    clock: Arc<dyn Clock>,
    policy: PortPolicy,
    machine: Arc<dyn Machine>,
}

impl Decider {
    pub fn new(
        database: Database,
        publisher: Publisher,
        clock: Arc<dyn Clock>,
        policy: PortPolicy,
        machine: Arc<dyn Machine>,
    ) -> Self {
        Self { database, publisher, clock, policy, machine }
    }

    /// Decides until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        while !stop.is_cancelled() {
            // Registered before the projections are read, so that no commit falls between.
            let (committed, begun) = (self.database.committed(), Instant::now());
            let rest = match self.round().await {
                // It had its fill: there may be more.
                Ok(decided) if decided == BATCH_ROWS as usize => continue,
                Ok(_) => {
                    pause = FIRST_PAUSE;
                    begun.elapsed() * REST
                }
                Err(error) => {
                    tracing::warn!(%error, retry_ms = pause.as_millis() as u64, "requests for ports wait");
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(wait) => continue,
                    }
                }
            };
            let woken = async {
                tokio::time::sleep(rest).await;
                // Whether anybody committed or not, it is time to look.
                let _ = tokio::time::timeout(POLL, committed).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = woken => {}
            }
        }
    }

    /// Decides one batch, once no other decider of this database is at it: what is to go first, because it makes room.
    /// How many differences that were.
    ///
    /// # Errors
    /// The database fails; nothing is decided then.
    pub async fn round(&self) -> Result<usize, PublishError> {
        let mut transaction = self.database.begin().await?;
        store::lock(&self.database, &mut transaction).await?;
        let obsolete = store::obsolete(&mut transaction, BATCH_ROWS).await?;
        let room = BATCH_ROWS - u32::try_from(obsolete.len()).unwrap_or(BATCH_ROWS);
        let mut revision = store::last_revision(&mut transaction).await?;
        for gone in &obsolete {
            revision += 1;
            self.release(&mut transaction, gone, revision).await?;
        }
        let unanswered = store::unanswered(&mut transaction, room).await?;
        for request in &unanswered {
            revision += 1;
            self.answer(&mut transaction, request, revision).await?;
        }
        let decided = obsolete.len() + unanswered.len();
        match decided {
            // Whoever follows the rules need not look.
            0 => transaction.rollback().await?,
            _ => self.database.commit(transaction).await?,
        }
        Ok(decided)
    }

    async fn release(&self, transaction: &mut Transaction, gone: &Obsolete, revision: i64) -> Result<(), PublishError> {
        store::remove(transaction, gone.rule_id, revision, self.clock.now()).await?;
        let deleted = IngressRuleDeleted {
            metadata: None,
            rule_id: if gone.was_created { gone.rule_id } else { 0 },
            container_id: gone.container.to_string(),
            port: gone.port,
            request_id: gone.request_id,
        };
        self.publisher.add(transaction, deleted, &Cause::default()).await?;
        tracing::info!(container = %gone.container, port = gone.port, "ingress rule deleted");
        Ok(())
    }

    async fn answer(
        &self,
        transaction: &mut Transaction,
        request: &IngressRequest,
        revision: i64,
    ) -> Result<(), PublishError> {
        let judged = self.judge(transaction, request).await?;
        let now = self.clock.now();
        let rule_id = store::answer(transaction, request, judged.as_ref().err(), revision, now).await?;
        let (container_id, port, request_id) = (request.container.to_string(), request.port, request.request_id);
        match judged {
            Ok(rule) => {
                tracing::info!(container = container_id, port, target = rule.target_port, "ingress rule created");
                let created = IngressRuleCreated {
                    metadata: None,
                    rule_id,
                    container_id,
                    port,
                    target_port: rule.target_port.into(),
                    protocol: request.protocol.into(),
                    request_id,
                };
                self.publisher.add(transaction, created, &Cause::default()).await?;
            }
            Err(Refusal { reason, message }) => {
                tracing::info!(container = container_id, port, message, "ingress rule rejected");
                let reason = reason.into();
                let rejected = IngressRuleRejected { metadata: None, container_id, port, reason, message, request_id };
                self.publisher.add(transaction, rejected, &Cause::default()).await?;
            }
        }
        Ok(())
    }

    async fn judge(
        &self,
        transaction: &mut Transaction,
        request: &IngressRequest,
    ) -> Result<Result<PortRule, Refusal>, PublishError> {
        let rule = match self.policy.check(request) {
            Ok(rule) => rule,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if store::is_taken(transaction, &rule).await? {
            return Ok(Err(self.policy.taken(&rule)));
        }
        Ok(match self.machine.offers(rule.port) {
            Ok(()) => Ok(rule),
            Err(error) => Err(self.policy.unavailable(&rule, &error)),
        })
    }
}

impl std::fmt::Debug for Decider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decider").field("policy", &self.policy).finish_non_exhaustive()
    }
}
