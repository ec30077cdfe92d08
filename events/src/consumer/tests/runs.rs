//! Several events in one transaction.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::event_log;

on_each_database! {
    one_that_fails_fails_alone,
    one_that_breaks_the_transaction_is_tried_alone,
    a_run_has_all_of_its_effects_or_none,
    what_was_had_before_and_what_comes_twice_has_its_effect_once,
    what_does_not_fit_into_a_run_was_not_had,
    slow_handlers_do_not_hold_a_transaction_for_each_other,
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
    // As far as a process comes that dies at its third event.
    let stumble = fixture.consumer.attempt_run(&deliveries.iter().collect::<Vec<_>>(), || false).await;
    assert!(stumble.is_err(), "{stumble:?}");
    assert!(fixture.effects().await.is_empty());
    fixture.clock.advance(ACK_WAIT);
    assert_eq!(fixture.round().await, [Handled; 3]);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
}

async fn what_was_had_before_and_what_comes_twice_has_its_effect_once(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c"]).await;
    let deliveries = fixture.bus.pull(&AUDITOR, 10, NOW).await.expect("deliveries");
    let run = async |numbers: &[usize]| {
        let run: Vec<_> = numbers.iter().map(|number| &deliveries[*number]).collect();
        fixture.consumer.attempt_run(&run, || false).await
    };
    assert_eq!(run(&[0, 1]).await, Ok(vec![Handled; 2]));
    assert_eq!(run(&[1, 2, 0, 2]).await, Ok(vec![Duplicate, Handled, Duplicate, Duplicate]));
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
    let trail = event_log::after(&fixture.database, &event_log::Filter::default(), 0, 10).await.expect("a trail");
    assert_eq!(trail.iter().map(|entry| entry.message.event_id.as_str()).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(trail.iter().all(|entry| entry.processed_by.as_deref() == Some("auditor")), "{trail:?}");
}

async fn what_does_not_fit_into_a_run_was_not_had(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c", "d"]).await;
    let deliveries = fixture.bus.pull(&AUDITOR, 10, NOW).await.expect("deliveries");
    let (left, run) = (AtomicUsize::new(2), deliveries.iter().collect::<Vec<_>>());
    let is_over = || left.fetch_sub(1, Ordering::SeqCst) == 1;
    assert_eq!(fixture.consumer.attempt_run(&run, is_over).await, Ok(vec![Handled; 2]));
    let noted = sqlx::query_scalar::<_, String>("SELECT event_id FROM inbox ORDER BY event_id");
    assert_eq!(noted.fetch_all(fixture.database.reader()).await.expect("ids"), ["1", "2"]);
    fixture.clock.advance(ACK_WAIT);
    assert_eq!(fixture.round().await, [Duplicate, Duplicate, Handled, Handled]);
    assert_eq!(fixture.effects().await, ["1", "2", "3", "4"]);
}

/// Takes its time.
#[derive(Debug)]
struct Slow {
    clock: ManualClock,
    pace: Duration,
}

#[async_trait]
impl Handler for Slow {
    async fn handle(&self, _: &Message, _: &mut AnyConnection) -> Result<(), Failure> {
        self.clock.advance(self.pace);
        Ok(())
    }
}

async fn slow_handlers_do_not_hold_a_transaction_for_each_other(kind: Kind) {
    for (pace_ms, fit) in [(0, 4), (4, 3), (10, 1), (1000, 1)] {
        let fixture = Fixture::new(kind).await;
        fixture.publish(&["a", "b", "c", "d"]).await;
        let deliveries = fixture.bus.pull(&AUDITOR, 10, NOW).await.expect("deliveries");
        let tasks: Vec<_> = deliveries.into_iter().map(Task::Delivered).collect();
        let handler = Arc::new(Slow { clock: fixture.clock.clone(), pace: Duration::from_millis(pace_ms) });
        let clock = Arc::new(fixture.clock.clone());
        let consumer = Consumer::new(AUDITOR, fixture.database.clone(), fixture.bus.clone(), clock, handler);
        let settled = consumer.settle_some(&tasks, &CancellationToken::new()).await;
        assert_eq!(settled, vec![Handled; fit], "{pace_ms} ms each");
    }
}

/// Has its effect; at the last event it goes on only when another process waits for a row that it holds.
#[derive(Debug)]
struct Overtaken {
    database: Database,
    began: Notify,
}

#[async_trait]
impl Handler for Overtaken {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let insert = sqlx::query("INSERT INTO effects (event_id) VALUES ($1)").bind(&message.event_id);
        insert.execute(connection).await?;
        self.began.notify_one();
        let is_awaited = "SELECT count(*) FROM pg_stat_activity \
                          WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(is_awaited).fetch_one(self.database.reader()).await? == 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// SQLite has one writer: there, the second begins when the first has ended.
#[tokio::test]
async fn of_two_that_are_given_the_same_events_at_once_one_calls_no_handler() {
    let fixture = Fixture::new(Kind::Postgres).await;
    fixture.publish(&["a", "b"]).await;
    let deliveries = fixture.bus.pull(&AUDITOR, 10, NOW).await.expect("deliveries");
    let (database, clock) = (fixture.database.clone(), Arc::new(fixture.clock.clone()));
    let handler = Arc::new(Overtaken { database: database.clone(), began: Notify::new() });
    let first = Consumer::new(AUDITOR, database, fixture.bus.clone(), clock, handler.clone());
    let run: Vec<_> = deliveries.iter().collect();
    let both = async {
        tokio::join!(first.attempt_run(&run, || false), async {
            handler.began.notified().await;
            fixture.consumer.attempt_run(&run, || false).await
        })
    };
    let (first, second) = tokio::time::timeout(PATIENCE, both).await.expect("an end");
    assert_eq!((first, second), (Ok(vec![Handled; 2]), Ok(vec![Duplicate; 2])));
    assert_eq!(fixture.effects().await, ["1", "2"]);
}

/// Loses the transaction at the third event, once, and does not say so.
#[derive(Debug, Default)]
struct Careless(AtomicUsize);

#[async_trait]
impl Handler for Careless {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let insert = sqlx::query("INSERT INTO effects (event_id) VALUES ($1)").bind(&message.event_id);
        insert.execute(&mut *connection).await?;
        if message.event_id == "3" && self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            sqlx::raw_sql("ROLLBACK").execute(connection).await?;
        }
        Ok(())
    }
}

/// As SQLite does by itself when its disk is full.
#[tokio::test]
async fn what_was_rolled_back_unseen_is_not_taken_for_had() {
    let mut fixture = Fixture::new(Kind::Sqlite).await;
    fixture.publish(&["a", "b", "c"]).await;
    let (clock, handler) = (Arc::new(fixture.clock.clone()), Arc::<Careless>::default());
    fixture.consumer = Consumer::new(AUDITOR, fixture.database.clone(), fixture.bus.clone(), clock, handler);
    assert_eq!(fixture.round().await, [Handled; 3]);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
}
