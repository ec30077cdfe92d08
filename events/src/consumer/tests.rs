//! A handler that writes what it is given, and fails as it is told.

mod dead_letters;
mod outages;
mod restarts;
mod runs;
mod signs_of_life;

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use edd_proto::Stream;

use super::*;
use crate::bus::conformance::{self, AUDITOR, KEYS, USERS};
use crate::bus::local::LocalBus;
use crate::clock::ManualClock;
use crate::database::{Kind, Step};
use crate::inbox;
use crate::scratch::{Scratch, on_each_database};

const NOW: Duration = Duration::ZERO;
const PATIENCE: Duration = Duration::from_secs(20);
const EFFECTS: Step =
    Step { version: 1000, name: "effects", sql: "CREATE TABLE effects (id {serial}, event_id TEXT NOT NULL)" };

on_each_database! {
    every_event_has_its_effect_once,
    failures_are_tried_again_at_a_pace_and_then_dead,
    an_entity_waits_for_its_failed_event_and_the_others_do_not,
    what_waits_is_tried_when_it_is_due_although_nothing_comes,
    a_clock_that_is_set_back_holds_nothing_up,
    what_waits_is_known_when_the_bus_brings_it_again,
    a_panic_fails_one_event_and_no_consumer,
    a_running_consumer_handles_what_comes_and_stops_when_told,
    several_workers_handle_every_event_once_in_its_order,
    the_inbox_forgets_what_is_old,
    of_two_replicas_one_tries_again,
}

#[derive(Debug, Default)]
struct Scripted {
    failures: Mutex<HashMap<String, VecDeque<Failure>>>,
    /// What panics, once.
    panics: Mutex<Vec<String>>,
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let insert = sqlx::query("INSERT INTO effects (event_id) VALUES ($1)").bind(&message.event_id);
        insert.execute(connection).await?;
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = panics.iter().position(|id| *id == message.event_id) {
            panics.remove(at);
            panic!("index out of bounds");
        }
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

/// With one worker, so that entities take turns.
fn one(database: &Database, bus: &Arc<LocalBus>, clock: &ManualClock, handler: &Arc<Scripted>) -> Consumer {
    let (bus, clock, handler) = (bus.clone(), Arc::new(clock.clone()), handler.clone());
    Consumer { workers: 1, ..Consumer::new(AUDITOR, database.clone(), bus, clock, handler) }
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        let scratch = Scratch::new(kind);
        let clock = ManualClock::at(1_000_000);
        let database = scratch.open(&[EFFECTS]).await;
        let bus = LocalBus::open(&scratch.file("bus.db"), Arc::new(clock.clone())).await.expect("a bus");
        bus.ensure(&[USERS, KEYS], &[AUDITOR]).await.expect("streams and consumers");
        let (bus, handler) = (Arc::new(bus), Arc::<Scripted>::default());
        let consumer = one(&database, &bus, &clock, &handler);
        Self { _scratch: scratch, clock, database, bus, handler, consumer }
    }

    /// Another process, as after a crash.
    fn restart(&mut self) {
        self.consumer = one(&self.database, &self.bus, &self.clock, &self.handler);
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

    async fn round(&mut self) -> Vec<Outcome> {
        self.consumer.round(NOW).await.expect("a bus")
    }

    async fn effects(&self) -> Vec<String> {
        let select = sqlx::query_scalar("SELECT event_id FROM effects ORDER BY id");
        select.fetch_all(self.database.reader()).await.expect("effects")
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        let all = dead_letter::Filter::default();
        dead_letter::list(&self.database, dead_letter::State::Dead, all, 0, 100).await.expect("dead letters")
    }

    async fn unanswered(&self) -> u64 {
        self.bus.consumer(&AUDITOR).await.expect("a state").unanswered
    }
}

fn transient() -> Failure {
    Failure::Transient("not today".to_owned())
}

fn down() -> Failure {
    Failure::DependencyDown("no route to host".to_owned())
}

use Outcome::{Behind, Dead, Down, Duplicate, Handled, Retried};

async fn every_event_has_its_effect_once(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "a"]).await;
    // A process that ended between commit and answer.
    let first = fixture.bus.pull(&AUDITOR, 1, NOW).await.expect("a delivery").remove(0);
    assert_eq!(fixture.consumer.attempt(&Task::Delivered(first)).await, Ok(Handled));
    assert_eq!(fixture.round().await, [Handled, Handled]);
    fixture.clock.advance(ACK_WAIT);
    assert_eq!(fixture.round().await, [Duplicate]);
    fixture.clock.advance(ACK_WAIT);
    assert_eq!(fixture.round().await, []);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
}

async fn failures_are_tried_again_at_a_pace_and_then_dead(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a"]).await;
    fixture.fails("1", vec![transient(); 5]);
    for seconds in [1, 5, 30, 30] {
        assert_eq!(fixture.round().await, [Retried]);
        assert_eq!(fixture.unanswered().await, 0, "what waits holds none of the bus's places");
        fixture.clock.advance(Duration::from_millis(seconds * 1000 - 1));
        assert_eq!(fixture.round().await, [], "before {seconds} s are over");
        fixture.clock.advance(Duration::from_millis(1));
        // Attempts are counted in the database, not in a process.
        fixture.restart();
    }
    assert_eq!(fixture.round().await, [Dead]);
    assert!(fixture.effects().await.is_empty(), "what failed had no effect");
    let dead = fixture.dead().await;
    assert_eq!((dead.len(), dead[0].attempts, dead[0].error.as_str()), (1, 5, "not today"));
    assert_eq!((dead[0].consumer.as_str(), dead[0].message.entity.as_str()), ("auditor", "user.a"));
    assert_eq!((dead[0].stream.as_str(), dead[0].stream_seq, dead[0].first_at), ("USERS", 1, 1_000_000));
    fixture.clock.advance(Duration::from_secs(3600));
    assert_eq!(fixture.round().await, []);
}

async fn an_entity_waits_for_its_failed_event_and_the_others_do_not(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "a", "b", "a"]).await;
    fixture.fails("1", vec![transient(), transient()]);
    assert_eq!(fixture.round().await, [Retried, Handled, Behind, Handled, Behind]);
    assert_eq!(fixture.unanswered().await, 0);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.round().await, [Retried]);
    fixture.restart();
    fixture.clock.advance(Duration::from_secs(5));
    // One after the other, each as soon as the one before it is done with.
    for _ in 0..3 {
        assert_eq!(fixture.round().await, [Handled]);
    }
    assert_eq!(fixture.round().await, []);
    assert_eq!(fixture.effects().await, ["2", "4", "1", "3", "5"]);
}

async fn what_waits_is_tried_when_it_is_due_although_nothing_comes(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "a"]).await;
    fixture.fails("1", vec![transient()]);
    assert_eq!(fixture.round().await, [Retried, Behind]);
    // Nothing comes, and no round waits for it any longer than until something is due.
    for (wait, expected) in [(995, vec![]), (5, vec![Handled]), (0, vec![Handled])] {
        fixture.clock.advance(Duration::from_millis(wait));
        let round = tokio::time::timeout(PATIENCE, fixture.consumer.round(Duration::from_secs(600)));
        assert_eq!(round.await.expect("a short wait").expect("a bus"), expected, "after {wait} ms");
    }
}

async fn a_clock_that_is_set_back_holds_nothing_up(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "a", "b"]).await;
    fixture.fails("1", vec![transient()]);
    fixture.fails("3", vec![transient(), transient()]);
    assert_eq!(fixture.round().await, [Retried, Behind, Retried]);
    fixture.clock.set(fixture.clock.now() - micros(Duration::from_secs(3600)));
    assert_eq!(fixture.round().await, [Handled, Retried]);
    assert_eq!(fixture.round().await, [Handled], "the pause goes by the clock as it is now");
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!(fixture.round().await, [Handled]);
    assert_eq!(fixture.effects().await, ["1", "2", "3"]);
}

async fn what_waits_is_known_when_the_bus_brings_it_again(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a"]).await;
    fixture.fails("1", vec![transient()]);
    let delivery = fixture.bus.pull(&AUDITOR, 1, NOW).await.expect("a delivery").remove(0);
    // A process that ended between commit and answer.
    let delivered = Task::Delivered(delivery);
    assert_eq!(fixture.consumer.settle(&delivered).await, Retried);
    assert_eq!(fixture.consumer.settle(&delivered).await, Behind);
    let waiting = &retry::heads(&fixture.database, &AUDITOR, 10).await.expect("rows")[0];
    assert_eq!((waiting.attempts, waiting.due_at), (1, 2_000_000), "no other try was made");
    fixture.clock.advance(ACK_WAIT);
    assert_eq!(fixture.round().await, [Handled, Duplicate]);
    assert_eq!(fixture.effects().await, ["1"]);
    let waiting = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM retries").fetch_one(fixture.database.reader());
    assert_eq!(waiting.await.expect("a count"), 0);
}

async fn a_panic_fails_one_event_and_no_consumer(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b"]).await;
    fixture.handler.panics.lock().expect("no panic holds it").push("1".to_owned());
    assert_eq!(fixture.round().await, [Retried, Handled]);
    assert_eq!(fixture.effects().await, ["2"]);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.round().await, [Handled]);
    assert_eq!(fixture.effects().await, ["2", "1"]);
}

async fn a_running_consumer_handles_what_comes_and_stops_when_told(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let stop = CancellationToken::new();
    let committed = fixture.database.committed();
    let running = tokio::spawn(fixture.consumer.run(stop.clone()));
    let message = conformance::message("1", "user.a.updated");
    assert!(fixture.bus.publish(&[message]).await.1.is_none());
    tokio::time::timeout(PATIENCE, committed).await.expect("an effect");
    let select = sqlx::query_scalar::<_, String>("SELECT event_id FROM effects").fetch_all(fixture.database.reader());
    assert_eq!(select.await.expect("effects"), ["1"]);
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
}

#[test]
fn an_entity_has_one_queue_and_keeps_its_order() {
    let tasks: Vec<_> = (0..200)
        .map(|seq| {
            let message = conformance::message(&seq.to_string(), &format!("user.u{}.updated", seq % 20));
            Task::Delivered(Delivery { message, seq, delivered: 1, token: String::new() })
        })
        .collect();
    let queues = queues(tasks, WORKERS);
    assert!(queues.iter().all(|queue| !queue.is_empty()), "all of them work");
    let mut seen = HashMap::new();
    for (number, queue) in queues.iter().enumerate() {
        for task in queue {
            let Task::Delivered(delivery) = task else { panic!("{task:?}") };
            let (home, last) = seen.entry(task.message().entity.clone()).or_insert((number, 0));
            assert!(*home == number && *last <= delivery.seq, "{delivery:?}");
            *last = delivery.seq;
        }
    }
    assert_eq!(seen.len(), 20);
}

async fn several_workers_handle_every_event_once_in_its_order(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.consumer.workers = WORKERS;
    let entities: Vec<_> = (0..60).map(|number| format!("u{}", number % 7)).collect();
    fixture.publish(&entities.iter().map(String::as_str).collect::<Vec<_>>()).await;
    fixture.fails("8", vec![transient()]);
    let outcomes = fixture.round().await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Retried).count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Behind).count(), 7);
    fixture.clock.advance(Duration::from_secs(1));
    while !fixture.round().await.is_empty() {}
    let effects: Vec<usize> = fixture.effects().await.iter().map(|id| id.parse().expect("a number")).collect();
    assert_eq!(effects.len(), 60);
    for entity in 0..7 {
        let of_it: Vec<_> = effects.iter().filter(|id| (**id - 1) % 7 == entity).collect();
        assert!(of_it.is_sorted(), "{of_it:?}");
    }
}

async fn the_inbox_forgets_what_is_old(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c"]).await;
    assert_eq!(fixture.round().await, [Handled; 3]);
    let now = fixture.clock.now();
    assert_eq!(inbox::prune(&fixture.database, now, 10).await.expect("a count"), 0);
    assert_eq!(inbox::prune(&fixture.database, now + 1, 2).await.expect("a count"), 2);
    assert_eq!(inbox::prune(&fixture.database, now + 1, 2).await.expect("a count"), 1);
}

async fn of_two_replicas_one_tries_again(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "a"]).await;
    fixture.fails("1", vec![transient()]);
    assert_eq!(fixture.round().await, [Retried, Behind]);
    fixture.clock.advance(Duration::from_secs(1));
    let (first, _) = fixture.consumer.waiting().await.expect("what waits");
    assert_eq!(first.len(), 1);
    fixture.restart();
    let (second, due) = fixture.consumer.waiting().await.expect("what waits");
    assert!(second.is_empty(), "{second:?}");
    assert_eq!(due, Some(fixture.clock.now() + micros(ACK_WAIT)), "until it is clear that the first has ended");
    assert_eq!(fixture.consumer.settle(&first[0]).await, Handled);
    assert_eq!(fixture.consumer.settle(&first[0]).await, Duplicate);
    assert_eq!(fixture.round().await, [Handled]);
    assert_eq!(fixture.effects().await, ["1", "2"]);
}
