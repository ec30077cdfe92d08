//! Several events in one transaction.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

on_each_database! {
    one_that_fails_fails_alone,
    one_that_breaks_the_transaction_is_tried_alone,
    a_run_has_all_of_its_effects_or_none,
}

async fn one_that_fails_fails_alone(kind: Kind) {
    for (failure, outcome) in
        [(transient(), Retried), (Failure::Permanent("not an event".to_owned()), Dead), (down(), Down)]
    {
        let mut fixture = Fixture::new(kind).await;
        fixture.publish(&["a", "b", "c", "d", "c"]).await;
        fixture.fails("3", vec![failure]);
        let (outcomes, effects) = match outcome {
            Retried => ([Handled, Handled, Retried, Handled, Behind], vec!["1", "2", "4"]),
            Down => ([Handled, Handled, Down, Down, Down], vec!["1", "2"]),
            _ => ([Handled, Handled, Dead, Handled, Handled], vec!["1", "2", "4", "5"]),
        };
        assert_eq!(fixture.round().await, outcomes);
        assert_eq!(fixture.effects().await, effects);
        assert_eq!(fixture.unanswered().await, if outcome == Down { 3 } else { 0 });
        assert_eq!(fixture.dead().await.len(), usize::from(outcome == Dead));
    }
}

/// Has PostgreSQL refuse everything further in the transaction of the third event, as often as it is told to.
#[derive(Debug)]
struct Breaking {
    left: AtomicUsize,
    calls: Mutex<Vec<String>>,
}

#[async_trait]
impl Handler for Breaking {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(message.event_id.clone());
        let insert = sqlx::query("INSERT INTO effects (event_id) VALUES ($1)").bind(&message.event_id);
        insert.execute(&mut *connection).await?;
        let take = |left: usize| left.checked_sub(1);
        if message.event_id == "3" && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            sqlx::query("SELECT * FROM nothing").execute(connection).await?;
        }
        Ok(())
    }
}

async fn one_that_breaks_the_transaction_is_tried_alone(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c", "d"]).await;
    let handler = Arc::new(Breaking { left: 1.into(), calls: Mutex::default() });
    let clock = Arc::new(fixture.clock.clone());
    let consumer = Consumer::new(AUDITOR, fixture.database.clone(), fixture.bus.clone(), clock, handler.clone());
    fixture.consumer = Consumer { workers: 1, ..consumer };
    let outcomes = fixture.round().await;
    let calls = handler.calls.lock().unwrap_or_else(PoisonError::into_inner).join(" ");
    match kind {
        // It may have failed for what the others did: it has lost no attempt.
        Kind::Postgres => {
            assert_eq!((outcomes, &*calls), (vec![Handled; 4], "1 2 3 1 2 3 4"));
            assert_eq!(fixture.effects().await, ["1", "2", "3", "4"]);
        }
        // Nobody else's transaction can be in its way.
        Kind::Sqlite => {
            assert_eq!((outcomes, &*calls), (vec![Handled, Handled, Retried, Handled], "1 2 3 1 2 4"));
            assert_eq!(fixture.effects().await, ["1", "2", "4"]);
        }
    }
}

/// A process that ends in the middle of a run has left nothing of it, and the next one does all of it once.
async fn a_run_has_all_of_its_effects_or_none(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c"]).await;
    fixture.fails("3", vec![down()]);
    let deliveries = fixture.bus.pull(&AUDITOR, 10, NOW).await.expect("deliveries");
    let tasks: Vec<_> = deliveries.into_iter().map(Task::Delivered).collect();
    // As far as a process comes that dies at its third event.
    let stumble = fixture.consumer.attempt_run(&tasks, || false).await;
    assert!(stumble.is_err(), "{stumble:?}");
    assert!(fixture.effects().await.is_empty());
    fixture.clock.advance(ACK_WAIT);
    assert_eq!(fixture.round().await, [Handled; 3]);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
}
