//! A bus that trims, goes away and comes back as another one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use edd_proto::Consumer;
use tokio::sync::mpsc;

use super::*;
use crate::bus::conformance::{self, KEYS, USERS};
use crate::bus::local::LocalBus;
use crate::bus::{Answer, ConsumerState, Delivery, Position, Question};
use crate::clock::ManualClock;

const PATIENCE: Duration = Duration::from_secs(20);
const MAX_TOLD: usize = 10_000;

/// A bus that can be put in the place of another, and away.
#[derive(Debug)]
struct Exchange {
    bus: Mutex<Arc<LocalBus>>,
    is_away: AtomicBool,
}

impl Exchange {
    fn bus(&self) -> Result<Arc<LocalBus>, BusError> {
        match self.is_away.load(Ordering::Relaxed) {
            true => Err(BusError::Unavailable("no route to host".to_owned())),
            false => Ok(self.bus.lock().expect("no panic").clone()),
        }
    }
}

#[async_trait]
impl Bus for Exchange {
    async fn ensure(&self, _: &[Stream], _: &[Consumer]) -> Result<(), BusError> {
        unreachable!("a tail creates nothing")
    }

    async fn publish(&self, _: &[Message]) -> (Vec<Position>, Option<BusError>) {
        unreachable!("a tail publishes nothing")
    }

    async fn stream(&self, stream: &str) -> Result<StreamState, BusError> {
        self.bus()?.stream(stream).await
    }

    async fn consumer(&self, _: &Consumer) -> Result<ConsumerState, BusError> {
        unreachable!("a tail has no consumer")
    }

    async fn pull(&self, _: &Consumer, _: usize, _: Duration) -> Result<Vec<Delivery>, BusError> {
        unreachable!("a tail has no consumer")
    }

    async fn answer(&self, _: &Consumer, _: &Delivery, _: Answer) -> Result<(), BusError> {
        unreachable!("a tail answers nothing")
    }

    async fn read(
        &self,
        stream: &str,
        seq: u64,
        filters: &[&str],
        most: usize,
    ) -> Result<Vec<(u64, Message)>, BusError> {
        self.bus()?.read(stream, seq, filters, most).await
    }

    async fn arrival(&self, stream: &str, seq: u64, wait: Duration) -> Result<(), BusError> {
        // So that an exchange is noticed at once.
        self.bus()?.arrival(stream, seq, wait.min(Duration::from_millis(20))).await
    }

    async fn ask(&self, _: &str, _: Bytes, _: Duration) -> Result<Bytes, BusError> {
        unreachable!("a tail asks nothing")
    }

    async fn serve(&self, _: &'static str) -> Result<mpsc::Receiver<Question>, BusError> {
        unreachable!("a tail serves nothing")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Message(u64, String),
    Reset,
    CaughtUp,
}

struct Teller(mpsc::Sender<Told>);

#[async_trait]
impl Follower for Teller {
    async fn message(&mut self, seq: u64, message: &Message) {
        self.0.send(Told::Message(seq, message.event_id.clone())).await.expect("a listener");
    }

    async fn reset(&mut self) {
        self.0.send(Told::Reset).await.expect("a listener");
    }

    async fn caught_up(&mut self) {
        self.0.send(Told::CaughtUp).await.expect("a listener");
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    clock: ManualClock,
    exchange: Arc<Exchange>,
    told: mpsc::Receiver<Told>,
    sender: mpsc::Sender<Told>,
    stop: CancellationToken,
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = ManualClock::at(1_000_000);
        let bus = Mutex::new(open(&dir, "bus.db", &clock).await);
        let exchange = Arc::new(Exchange { bus, is_away: AtomicBool::new(false) });
        let (sender, told) = mpsc::channel(MAX_TOLD);
        Self { dir, clock, exchange, told, sender, stop: CancellationToken::new() }
    }

    async fn publish(&self, ids: std::ops::Range<u32>, subject: &str) {
        let messages: Vec<_> = ids.map(|id| conformance::message(&id.to_string(), subject)).collect();
        let bus = self.exchange.bus.lock().expect("no panic").clone();
        assert!(bus.publish(&messages).await.1.is_none());
    }

    /// Puts another bus in the place of the one that was, with these messages.
    async fn recreate(&self, name: &str, ids: std::ops::Range<u32>) {
        self.clock.advance(Duration::from_secs(1));
        let another = open(&self.dir, name, &self.clock).await;
        let messages: Vec<_> = ids.map(|id| conformance::message(&id.to_string(), "user.a.created")).collect();
        assert!(another.publish(&messages).await.1.is_none());
        *self.exchange.bus.lock().expect("no panic") = another;
    }

    async fn mark(&self) -> Mark {
        let state = self.exchange.stream("USERS").await.expect("a state");
        Mark { epoch: Some(state.epoch), seq: state.last_seq }
    }

    fn follow(&self, mark: Mark) -> tokio::task::JoinHandle<Teller> {
        let tail = Tail::new(self.exchange.clone(), &USERS, &["user.*.created"], mark, Teller(self.sender.clone()));
        tokio::spawn(tail.run(self.stop.clone()))
    }

    /// What is told up to and with the next end of the stream, repeated ends left out.
    async fn next(&mut self) -> Vec<Told> {
        let mut all = Vec::new();
        loop {
            let told = tokio::time::timeout(PATIENCE, self.told.recv()).await.expect("something").expect("a tail");
            match told {
                Told::CaughtUp if all.is_empty() => {}
                Told::CaughtUp => return all,
                told => all.push(told),
            }
        }
    }

    async fn end(&self, running: tokio::task::JoinHandle<Teller>) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
    }
}

async fn open(dir: &tempfile::TempDir, name: &str, clock: &ManualClock) -> Arc<LocalBus> {
    let bus = LocalBus::open(&dir.path().join(name), Arc::new(clock.clone())).await.expect("a bus");
    bus.ensure(&[USERS, KEYS], &[]).await.expect("streams");
    Arc::new(bus)
}

fn messages(range: std::ops::Range<u32>, first_seq: u64) -> Vec<Told> {
    range.zip(first_seq..).map(|(id, seq)| Told::Message(seq, id.to_string())).collect()
}

#[tokio::test]
async fn everything_after_the_mark_is_told_in_order_and_then_what_comes() {
    let mut fixture = Fixture::new().await;
    fixture.publish(0..10, "user.a.created").await;
    let mark = fixture.mark().await;
    // More than one batch between the mark and now.
    fixture.publish(10..700, "user.a.created").await;
    let running = fixture.follow(mark);
    assert_eq!(fixture.next().await, messages(10..700, 11));
    fixture.publish(700..705, "user.a.created").await;
    assert_eq!(fixture.next().await, messages(700..705, 701));
    // What does not match is passed over.
    fixture.publish(705..1300, "user.a.deleted").await;
    fixture.publish(1300..1301, "user.a.created").await;
    assert_eq!(fixture.next().await, messages(1300..1301, 1301));
    fixture.end(running).await;
}

#[tokio::test]
async fn a_stream_without_anything_that_matches_is_caught_up_with() {
    let mut fixture = Fixture::new().await;
    let mark = fixture.mark().await;
    fixture.publish(0..5, "user.a.deleted").await;
    let running = fixture.follow(mark);
    let told = tokio::time::timeout(PATIENCE, fixture.told.recv()).await.expect("an end");
    assert_eq!(told, Some(Told::CaughtUp));
    fixture.end(running).await;
}

#[tokio::test]
async fn without_a_mark_the_whole_stream_is_told() {
    let mut fixture = Fixture::new().await;
    let running = fixture.follow(Mark { epoch: None, seq: 5 });
    fixture.publish(0..3, "user.a.created").await;
    let mut told = Vec::new();
    while told.len() < 3 {
        told.extend(fixture.next().await);
    }
    assert_eq!(told, messages(0..3, 1));
    fixture.end(running).await;
}

#[tokio::test]
async fn a_bus_that_was_away_is_followed_from_where_it_was_left() {
    let mut fixture = Fixture::new().await;
    fixture.publish(0..1, "user.a.created").await;
    fixture.exchange.is_away.store(true, Ordering::Relaxed);
    let running = fixture.follow(Mark { epoch: None, seq: 0 });
    fixture.publish(1..3, "user.a.created").await;
    fixture.exchange.is_away.store(false, Ordering::Relaxed);
    assert_eq!(fixture.next().await, messages(0..3, 1));
    fixture.exchange.is_away.store(true, Ordering::Relaxed);
    fixture.publish(3..5, "user.a.created").await;
    fixture.exchange.is_away.store(false, Ordering::Relaxed);
    assert_eq!(fixture.next().await, messages(3..5, 4));
    fixture.end(running).await;
}

#[tokio::test]
async fn a_stream_that_was_created_anew_is_loaded_again_and_told_from_its_beginning() {
    let mut fixture = Fixture::new().await;
    fixture.publish(0..5, "user.a.created").await;
    let running = fixture.follow(Mark { epoch: None, seq: 0 });
    assert_eq!(fixture.next().await.len(), 5);
    // One with more in it than was read, whose numbers would go on.
    fixture.recreate("fuller.db", 100..110).await;
    let mut expected = vec![Told::Reset];
    expected.extend(messages(100..110, 1));
    assert_eq!(fixture.next().await, expected);
    fixture.recreate("empty.db", 0..0).await;
    assert_eq!(fixture.next().await, [Told::Reset]);
    fixture.publish(5..7, "user.a.created").await;
    assert_eq!(fixture.next().await, messages(5..7, 1));
    fixture.end(running).await;
}

/// The mark of a database that slept for longer than the stream keeps.
#[tokio::test]
async fn what_the_stream_keeps_no_longer_is_loaded_again() {
    let mut fixture = Fixture::new().await;
    fixture.publish(0..2, "user.a.created").await;
    let mark = fixture.mark().await;
    fixture.publish(2..4, "user.a.created").await;
    fixture.clock.advance(USERS.retention() + Duration::from_secs(1));
    fixture.publish(4..6, "user.a.created").await;
    let running = fixture.follow(mark);
    let mut expected = vec![Told::Reset];
    expected.extend(messages(4..6, 5));
    assert_eq!(fixture.next().await, expected);
    // A tail that has passed everything that expires loses nothing.
    fixture.publish(6..7, "user.a.deleted").await;
    fixture.publish(7..8, "user.a.created").await;
    assert_eq!(fixture.next().await, messages(7..8, 8));
    fixture.clock.advance(USERS.retention() + Duration::from_secs(1));
    fixture.publish(8..9, "user.a.created").await;
    assert_eq!(fixture.next().await, messages(8..9, 9));
    fixture.end(running).await;
}

#[tokio::test]
async fn a_stream_that_went_back_is_loaded_again() {
    let mut fixture = Fixture::new().await;
    fixture.publish(0..2, "user.a.created").await;
    let mark = fixture.mark().await;
    let running = fixture.follow(Mark { seq: 9, ..mark });
    let mut expected = vec![Told::Reset];
    expected.extend(messages(0..2, 1));
    assert_eq!(fixture.next().await, expected);
    fixture.end(running).await;
}
