//! How a service's events fare, for `/readyz?verbose`. Nothing here makes a process unready: what it has goes on serving.

use std::sync::Arc;
use std::time::Duration;

use edd_control::revocation::feed::FeedState;
use edd_events::clock::Clock;
use edd_events::database::Database;
use edd_events::projection::{self, Status};
use edd_events::service::Health;
use edd_gateway::health::{Check, CheckState, Reporter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks at the projections.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Events that may wait for as long as this before an operator should look.
const PATIENCE: Duration = Duration::from_secs(30);

/// One service's report.
#[derive(Debug)]
pub struct Report {
    service: &'static str,
    health: watch::Receiver<Health>,
    projections: watch::Receiver<Vec<Check>>,
    revocations: Option<watch::Receiver<FeedState>>,
}

impl Report {
    /// Reports on `health`, and on the projections that `projections` looks at.
    pub fn new(
        service: &'static str,
        health: watch::Receiver<Health>,
        projections: watch::Receiver<Vec<Check>>,
    ) -> Self {
        Self { service, health, projections, revocations: None }
    }

    /// Also reports on what callers' tokens are held against.
    #[must_use]
    pub fn with_revocations(self, state: watch::Receiver<FeedState>) -> Self {
        Self { revocations: Some(state), ..self }
    }
}

impl Reporter for Report {
    fn checks(&self) -> Vec<Check> {
        let events = events(self.service, &self.health.borrow());
        let revocations = self.revocations.as_ref().map(|state| revocations(self.service, &state.borrow()));
        std::iter::once(events).chain(self.projections.borrow().iter().cloned()).chain(revocations).collect()
    }
}

fn events(service: &str, health: &Health) -> Check {
    let dead: u64 = health.consumers.iter().map(|consumer| consumer.dead_letters).sum();
    let lag: Option<u64> = health.consumers.iter().map(|consumer| consumer.lag).sum();
    let mut detail = match &health.bus_error {
        None => "the bus is there".to_owned(),
        Some(error) => error.clone(),
    };
    let oldest = health.outbox_oldest;
    detail += &format!(", {} events wait for it", health.outbox_pending);
    if health.outbox_pending > 0 {
        detail += &format!(", the oldest for {} s", oldest.as_secs());
    }
    if !health.consumers.is_empty() {
        let lag = lag.map_or("unknown".to_owned(), |lag| lag.to_string());
        detail += &format!("; to be handled: {lag}; dead letters: {dead}");
    }
    let is_well = health.bus_error.is_none() && oldest < PATIENCE && dead == 0;
    let state = if is_well { CheckState::Ok } else { CheckState::Degraded };
    Check { name: format!("{service} events").into(), state, detail }
}

/// Looks at the projections of a database until `stop`.
pub async fn projections(
    service: &'static str,
    database: Database,
    clock: Arc<dyn Clock>,
    told: watch::Sender<Vec<Check>>,
    stop: CancellationToken,
) {
    loop {
        let checks = match projection::list(&database).await {
            Ok(all) => all.iter().map(|status| copy(service, status, clock.now())).collect(),
            Err(error) => vec![Check {
                name: format!("{service} database").into(),
                state: CheckState::Degraded,
                detail: error.to_string(),
            }],
        };
        told.send_replace(checks);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn copy(service: &str, status: &Status, now: i64) -> Check {
    let stale = status.stale_for(now);
    let mut detail = match (status.is_ready(), &status.needed) {
        (true, None) => format!("complete, follows {}", status.stream),
        (true, Some(why)) => format!("may be stale: {why}"),
        (false, _) => "not complete yet".to_owned(),
    };
    if let Some(stale) = stale {
        detail += &format!(", for {} s", stale.as_secs());
    }
    if let Some(failure) = &status.failure {
        detail += &format!("; {failure}");
    }
    if status.differences > 0 {
        detail += &format!("; differed from its owner {} times, and was repaired", status.differences);
    }
    let is_well = status.is_ready() && status.needed.is_none();
    let state = if is_well { CheckState::Ok } else { CheckState::Degraded };
    Check { name: format!("{service} {}", status.name).into(), state, detail }
}

fn revocations(service: &str, told: &FeedState) -> Check {
    let mut detail = match told.is_complete {
        true => "complete, follow AUTH".to_owned(),
        false => "not known yet, and so every token is answered with 503".to_owned(),
    };
    if let Some(failure) = &told.failure {
        detail += &format!("; {failure}");
    }
    let is_well = told.is_complete && told.failure.is_none();
    let state = if is_well { CheckState::Ok } else { CheckState::Degraded };
    Check { name: format!("{service} revocations").into(), state, detail }
}

#[cfg(test)]
mod tests {
    use edd_events::service::ConsumerHealth;

    use super::*;

    #[test]
    fn waiting_events_and_dead_letters_are_an_operator_s_business() {
        let consumer =
            |lag, dead_letters| ConsumerHealth { stream: "AUTH", consumer: "sfs-service", lag, dead_letters };
        let health = |bus_error: Option<&str>, pending, seconds, consumers| Health {
            bus_error: bus_error.map(str::to_owned),
            outbox_pending: pending,
            outbox_oldest: Duration::from_secs(seconds),
            consumers,
        };
        for (health, state, detail) in [
            (health(None, 0, 0, vec![]), CheckState::Ok, "the bus is there, 0 events wait for it"),
            (
                health(None, 3, 31, vec![]),
                CheckState::Degraded,
                "the bus is there, 3 events wait for it, the oldest for 31 s",
            ),
            (
                health(Some("no route"), 0, 0, vec![consumer(None, 0)]),
                CheckState::Degraded,
                "no route, 0 events wait for it; to be handled: unknown; dead letters: 0",
            ),
            (
                health(None, 0, 0, vec![consumer(Some(2), 0), consumer(Some(3), 1)]),
                CheckState::Degraded,
                "the bus is there, 0 events wait for it; to be handled: 5; dead letters: 1",
            ),
        ] {
            let check = events("sfs", &health);
            assert_eq!((check.state, check.detail.as_str(), &*check.name), (state, detail, "sfs events"));
        }
    }
}
