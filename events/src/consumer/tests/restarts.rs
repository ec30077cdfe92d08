//! The database's server goes and comes back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use edd_servers::postgres::{Postgres, Settings};
use tokio::sync::Notify;

use super::*;

/// Writes what it is given; then, if told so, waits or fails.
#[derive(Debug, Default)]
struct Interrupted {
    waits: AtomicBool,
    reached: Notify,
    go_on: Notify,
    failures: AtomicUsize,
}

#[async_trait]
impl Handler for Interrupted {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let insert = sqlx::query("INSERT INTO effects (event_id) VALUES ($1)").bind(&message.event_id);
        insert.execute(connection).await?;
        if self.waits.swap(false, Ordering::SeqCst) {
            self.reached.notify_one();
            self.go_on.notified().await;
        }
        let left = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map_or(Ok(()), |_| Err(Failure::Transient("not today".to_owned())))
    }
}

async fn round(consumer: &mut Consumer) -> Vec<Outcome> {
    consumer.round(NOW).await.expect("a bus")
}

fn assert_down(outcomes: &[Outcome]) {
    assert!(!outcomes.is_empty() && outcomes.iter().all(|outcome| *outcome == Outcome::Down), "{outcomes:?}");
}

/// Killed, and stopped, between effect and commit, and away when a round begins: after all that, four failures of the
/// event itself still leave it its fifth attempt.
#[tokio::test]
async fn an_outage_of_the_database_costs_no_attempt_and_no_effect() {
    let cluster = Postgres::start(Settings::default());
    let database = Database::open(&cluster.database(), &[EFFECTS]).await.expect("a database");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clock = ManualClock::at(1_000_000);
    let bus = LocalBus::open(&folder.path().join("bus.db"), Arc::new(clock.clone())).await.expect("a bus");
    bus.ensure(&[USERS, KEYS], &[AUDITOR]).await.expect("streams and consumers");
    let (bus, handler) = (Arc::new(bus), Arc::<Interrupted>::default());
    let mut consumer = Consumer::new(AUDITOR, database.clone(), bus.clone(), Arc::new(clock.clone()), handler.clone());
    let messages = [1, 2, 3].map(|version| {
        let message = conformance::message(&version.to_string(), "user.a.updated");
        Message { version, ..message }
    });
    assert!(bus.publish(&messages).await.1.is_none());
    for end in [Postgres::kill9, Postgres::stop] {
        handler.waits.store(true, Ordering::SeqCst);
        let interrupted = tokio::spawn(async move {
            let outcomes = round(&mut consumer).await;
            (consumer, outcomes)
        });
        tokio::time::timeout(PATIENCE, handler.reached.notified()).await.expect("an event");
        end(&cluster);
        // So that a failure could be counted at once.
        cluster.restart();
        handler.go_on.notify_one();
        let outcomes;
        (consumer, outcomes) = interrupted.await.expect("no panic");
        assert_down(&outcomes);
        clock.advance(DOWN_PAUSE);
    }
    cluster.stop();
    assert_down(&round(&mut consumer).await);
    clock.advance(DOWN_PAUSE);
    cluster.restart();
    handler.failures.store(MAX_ATTEMPTS as usize - 1, Ordering::SeqCst);
    let effects = async || {
        let select = sqlx::query_scalar::<_, String>("SELECT event_id FROM effects ORDER BY id");
        select.fetch_all(database.reader()).await.expect("effects")
    };
    for _ in 0..MAX_ATTEMPTS * 3 {
        let outcomes = round(&mut consumer).await;
        assert!(!outcomes.contains(&Outcome::Dead) && !outcomes.contains(&Outcome::Down), "{outcomes:?}");
        clock.advance(Duration::from_secs(30));
    }
    assert_eq!(effects().await, ["1", "2", "3"]);
}
