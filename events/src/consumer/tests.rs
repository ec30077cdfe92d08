//! A handler that writes what it is given, and fails as it is told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::bus::conformance::{self, AUDITOR, KEYS, USERS};
use crate::bus::local::LocalBus;
use crate::clock::ManualClock;
use crate::database::{Kind, Step};
use crate::scratch::{Scratch, on_each_database};

const NOW: Duration = Duration::ZERO;
const EFFECTS: Step =
    Step { version: 1000, name: "effects", sql: "CREATE TABLE effects (id {serial}, event_id TEXT NOT NULL)" };

on_each_database! {
    every_event_has_its_effect_once,
    failures_are_tried_again_at_a_pace_and_then_dead,
    an_entity_waits_for_its_failed_event_and_the_others_do_not,
    dead_letters_are_requeued_to_their_consumer_or_discarded,
    while_a_dependency_is_away_events_wait_in_order,
    a_running_consumer_handles_what_comes_and_stops_when_told,
}

#[derive(Debug, Default)]
struct Scripted {
    failures: Mutex<HashMap<String, VecDeque<Failure>>>,
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let insert = sqlx::query("INSERT INTO effects (event_id) VALUES ($1)").bind(&message.event_id);
        insert.execute(connection).await?;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.get_mut(&message.event_id).and_then(VecDeque::pop_front) {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

struct Fixture {
    _scratch: Scratch,
    clock: ManualClock,
    database: Database,
    bus: Arc<LocalBus>,
    handler: Arc<Scripted>,
    consumer: Consumer,
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        let scratch = Scratch::new(kind);
        let clock = ManualClock::at(1_000_000);
        let database = scratch.open(&[EFFECTS]).await;
        let bus = LocalBus::open(&scratch.file("bus.db"), Arc::new(clock.clone())).await.expect("a bus");
        bus.ensure(&[USERS, KEYS], &[AUDITOR]).await.expect("streams and consumers");
        let (bus, handler) = (Arc::new(bus), Arc::<Scripted>::default());
        let consumer = Consumer::new(AUDITOR, database.clone(), bus.clone(), Arc::new(clock.clone()), handler.clone());
        Self { _scratch: scratch, clock, database, bus, handler, consumer }
    }

    /// Events of these entities, with growing ids and versions.
    async fn publish(&self, entities: &[&str]) {
        let messages = entities.iter().enumerate().map(|(index, entity)| {
            let mut message = conformance::message(&(index + 1).to_string(), &format!("user.{entity}.updated"));
            message.version = index as i64 + 1;
            message
        });
        let messages: Vec<_> = messages.collect();
        assert!(self.bus.publish(&messages).await.1.is_none());
    }

    fn fails(&self, id: &str, failures: Vec<Failure>) {
        let mut all = self.handler.failures.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.to_owned(), failures.into());
    }

    async fn round(&self) -> Vec<Outcome> {
        self.consumer.round(NOW).await.expect("a bus")
    }

    async fn effects(&self) -> Vec<String> {
        let select = sqlx::query_scalar("SELECT event_id FROM effects ORDER BY id");
        select.fetch_all(self.database.reader()).await.expect("effects")
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        dead_letter::list(&self.database, "dead", None, 0, 100).await.expect("dead letters")
    }
}

fn transient() -> Failure {
    Failure::Transient("not today".to_owned())
}

async fn every_event_has_its_effect_once(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "a"]).await;
    // A process that ended between commit and answer.
    let first = fixture.bus.pull(&AUDITOR, 1, NOW).await.expect("a delivery").remove(0);
    assert_eq!(fixture.consumer.attempt(&first.message, None).await, Ok(Outcome::Handled));
    assert_eq!(fixture.round().await, [Outcome::Handled, Outcome::Handled]);
    fixture.clock.advance(crate::bus::ACK_WAIT);
    assert_eq!(fixture.round().await, [Outcome::Duplicate]);
    fixture.clock.advance(crate::bus::ACK_WAIT);
    assert_eq!(fixture.round().await, []);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
}

async fn failures_are_tried_again_at_a_pace_and_then_dead(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a"]).await;
    fixture.fails("1", vec![transient(); 5]);
    for seconds in [1, 5, 30, 30] {
        assert_eq!(fixture.round().await, [Outcome::Retried]);
        fixture.clock.advance(Duration::from_millis(seconds * 1000 - 1));
        assert_eq!(fixture.round().await, [], "before {seconds} s are over");
        fixture.clock.advance(Duration::from_millis(1));
    }
    assert_eq!(fixture.round().await, [Outcome::Dead]);
    assert!(fixture.effects().await.is_empty(), "what failed had no effect");
    let dead = fixture.dead().await;
    assert_eq!((dead.len(), dead[0].attempts, dead[0].error.as_str()), (1, 5, "not today"));
    assert_eq!((dead[0].consumer.as_str(), dead[0].message.entity.as_str()), ("auditor", "user.a"));
    fixture.clock.advance(Duration::from_secs(3600));
    assert_eq!(fixture.round().await, []);
}

async fn an_entity_waits_for_its_failed_event_and_the_others_do_not(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "a", "b"]).await;
    fixture.fails("1", vec![transient(), transient()]);
    use Outcome::{Behind, Handled, Retried};
    assert_eq!(fixture.round().await, [Retried, Handled, Behind, Handled]);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.round().await, [Retried, Behind]);
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(fixture.round().await, [Handled, Handled]);
    assert_eq!(fixture.effects().await, ["2", "4", "1", "3"]);
}

async fn dead_letters_are_requeued_to_their_consumer_or_discarded(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "a", "b"]).await;
    let broken = || Failure::Permanent("no user".to_owned());
    fixture.fails("1", vec![broken(), broken()]);
    fixture.fails("3", vec![broken()]);
    use Outcome::{Dead, Handled};
    assert_eq!(fixture.round().await, [Dead, Handled, Dead], "what is dead holds up nobody");
    let dead = fixture.dead().await;
    assert!(dead_letter::requeue(&fixture.database, dead[0].id).await.expect("a change"));
    assert!(!dead_letter::requeue(&fixture.database, dead[0].id).await.expect("no change"));
    assert_eq!(fixture.round().await, [Dead]);
    assert_eq!(fixture.dead().await[0].attempts, 2);
    assert!(dead_letter::requeue(&fixture.database, dead[0].id).await.expect("a change"));
    assert!(dead_letter::discard(&fixture.database, dead[1].id).await.expect("a change"));
    assert_eq!(fixture.round().await, [Handled]);
    assert_eq!(fixture.round().await, []);
    assert_eq!(fixture.effects().await, ["2", "1"]);
    assert_eq!(fixture.dead().await, []);
    assert!(!dead_letter::discard(&fixture.database, 99).await.expect("no change"));
}

/// An outage that is longer than all tries together kills no event, and nothing overtakes.
async fn while_a_dependency_is_away_events_wait_in_order(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "a"]).await;
    fixture.fails("1", vec![Failure::DependencyDown("no route to host".to_owned()); 20]);
    for _ in 0..20 {
        assert_eq!(fixture.round().await, [Outcome::Down; 3]);
        fixture.clock.advance(DOWN_PAUSE);
    }
    assert_eq!(fixture.round().await, [Outcome::Handled; 3]);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
    assert_eq!(fixture.dead().await, []);
}

async fn a_running_consumer_handles_what_comes_and_stops_when_told(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let stop = CancellationToken::new();
    let committed = fixture.database.committed();
    let running = tokio::spawn(fixture.consumer.clone().run(stop.clone()));
    fixture.publish(&["a"]).await;
    tokio::time::timeout(Duration::from_secs(20), committed).await.expect("an effect");
    assert_eq!(fixture.effects().await, ["1"]);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it stops").expect("and does not panic");
}
