//! Several processes with a relay each, on one PostgreSQL database.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use edd_proto::Consumer;
use tokio::sync::{Notify, watch};

use super::*;
use crate::bus::{Answer, ConsumerState, Delivery, Question, StreamState};

/// A stream in memory that sees who publishes when. It knows no duplicates.
#[derive(Debug)]
struct Broker {
    taken: watch::Sender<Vec<Message>>,
    inside: AtomicUsize,
    most_inside: AtomicUsize,
    /// Holds the first to publish, if there is one to be held.
    held: Mutex<Option<Arc<Notify>>>,
    entered: Notify,
}

impl Broker {
    fn new(held: Option<Arc<Notify>>) -> Arc<Self> {
        let (inside, most_inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let taken = watch::Sender::new(Vec::new());
        Arc::new(Self { taken, inside, most_inside, held: Mutex::new(held), entered: Notify::new() })
    }

    async fn reaches(&self, count: usize) {
        let mut taken = self.taken.subscribe();
        let all = taken.wait_for(|messages| messages.len() >= count);
        tokio::time::timeout(PATIENCE, all).await.expect("all that was changed").expect("a broker");
    }
}

fn not_here<T>() -> Result<T, BusError> {
    Err(BusError::Refused("only for publishing".to_owned()))
}

#[async_trait]
impl Bus for Broker {
    async fn publish(&self, messages: &[Message]) -> (Vec<Position>, Option<BusError>) {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_inside.fetch_max(inside, Ordering::SeqCst);
        self.entered.notify_one();
        let held = self.held.lock().expect("no panic").take();
        match held {
            Some(held) => held.notified().await,
            None => tokio::task::yield_now().await,
        }
        let mut positions = Vec::new();
        self.taken.send_modify(|taken| {
            for message in messages {
                taken.push(message.clone());
                positions.push(Position { stream: USERS.name, seq: taken.len() as u64 });
            }
        });
        self.inside.fetch_sub(1, Ordering::SeqCst);
        (positions, None)
    }

    async fn stream(&self, _stream: &str) -> Result<StreamState, BusError> {
        Ok(StreamState { epoch: 1, first_seq: 1, last_seq: self.taken.borrow().len() as u64 })
    }

    async fn ensure(&self, _streams: &[Stream], _consumers: &[Consumer]) -> Result<(), BusError> {
        not_here()
    }

    async fn consumer(&self, _consumer: &Consumer) -> Result<ConsumerState, BusError> {
        not_here()
    }

    async fn pull(&self, _: &Consumer, _most: usize, _wait: Duration) -> Result<Vec<Delivery>, BusError> {
        not_here()
    }

    async fn answer(&self, _: &Consumer, _delivery: &Delivery, _answer: Answer) -> Result<(), BusError> {
        not_here()
    }

    async fn read(&self, _: &str, seq: u64, _: &[&str], most: usize) -> Result<Vec<(u64, Message)>, BusError> {
        let taken = self.taken.borrow();
        Ok((1..).zip(taken.iter().cloned()).skip(seq as usize - 1).take(most).collect())
    }

    async fn arrival(&self, _stream: &str, _seq: u64, _wait: Duration) -> Result<(), BusError> {
        not_here()
    }

    async fn ask(&self, _subject: &str, _question: Bytes, _wait: Duration) -> Result<Bytes, BusError> {
        not_here()
    }

    async fn serve(&self, _subject: &'static str) -> Result<tokio::sync::mpsc::Receiver<Question>, BusError> {
        not_here()
    }
}

/// Two processes.
async fn rivals() -> (Fixture, Fixture) {
    let first = Fixture::new(Kind::Postgres).await;
    let second = first.again().await;
    (first, second)
}

/// What is needed to publish `fixture`'s events to `broker`.
fn relay(fixture: &Fixture, broker: &Arc<Broker>) -> Relay {
    let relay = Relay::new(fixture.database.clone(), broker.clone(), Arc::new(fixture.clock.clone()), [USERS]);
    Relay { poll: NEVER, ..relay }
}

#[tokio::test]
async fn while_one_publishes_the_others_wait() {
    let (first, second) = rivals().await;
    let written = [first.change("1", "user.a.created").await, second.change("2", "user.a.updated").await];
    let release = Arc::new(Notify::new());
    let broker = Broker::new(Some(release.clone()));
    let publishing = tokio::spawn({
        let relay = relay(&first, &broker);
        async move { relay.round().await }
    });
    tokio::time::timeout(PATIENCE, broker.entered.notified()).await.expect("a publication");
    let other = relay(&second, &broker);
    assert_eq!(other.round().await.expect("a round"), Round::default());
    assert!(broker.taken.borrow().is_empty());
    release.notify_one();
    assert_eq!(publishing.await.expect("no panic").expect("a round").published, 2);
    assert_eq!(other.round().await.expect("a round").published, 0);
    assert_eq!(*broker.taken.borrow(), written);
}

#[tokio::test]
async fn a_relay_that_dies_makes_room_and_loses_nothing() {
    let (first, second) = rivals().await;
    let written = [first.change("1", "user.a.created").await, first.change("2", "user.a.updated").await];
    let release = Arc::new(Notify::new());
    let broker = Broker::new(Some(release.clone()));
    let dying = tokio::spawn({
        let relay = relay(&first, &broker);
        async move { relay.round().await }
    });
    tokio::time::timeout(PATIENCE, broker.entered.notified()).await.expect("a publication");
    let kill = "SELECT pg_terminate_backend(pid, 20000) FROM pg_locks WHERE locktype = 'advisory' AND database = \
                (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(sqlx::query(kill).execute(second.database.writer()).await.expect("an end").rows_affected(), 1);
    let heir = relay(&second, &broker);
    assert_eq!(heir.round().await.expect("a round").published, 2);
    // The one that died is not told, and what it published is there twice; nothing worse.
    release.notify_one();
    let failure = dying.await.expect("no panic").expect_err("it has lost its lock");
    assert!(matches!(failure, RelayError::Database(_)), "{failure}");
    assert_eq!(*broker.taken.borrow(), [written.clone(), written].concat());
    assert_eq!(heir.round().await.expect("a round").published, 0);
}

/// Neither polls, so that each wake-up counts.
#[tokio::test]
async fn what_any_process_commits_goes_out_in_order_and_never_two_batches_at_once() {
    const CHANGES: usize = 200;
    let (first, second) = rivals().await;
    let (broker, stop) = (Broker::new(None), CancellationToken::new());
    let relays = [&first, &second].map(|fixture| tokio::spawn(relay(fixture, &broker).run(stop.clone())));
    let write = async |fixture: &Fixture, name: &str| {
        for number in 0..CHANGES {
            fixture.change(&format!("{name}{number}"), &format!("user.u{}.updated", number % 3)).await;
        }
    };
    tokio::join!(write(&first, "a"), write(&second, "b"));
    broker.reaches(2 * CHANGES).await;
    stop.cancel();
    for relay in relays {
        tokio::time::timeout(PATIENCE, relay).await.expect("it stops").expect("no panic");
    }
    let taken = broker.taken.borrow();
    assert_eq!(taken.len(), 2 * CHANGES);
    let mut versions = HashMap::new();
    for message in taken.iter() {
        let version = versions.entry(message.entity.clone()).or_insert(0);
        *version += 1;
        assert_eq!(message.version, *version, "{}", message.entity);
    }
    assert_eq!(broker.most_inside.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_commit_elsewhere_wakes_the_relay() {
    let (writer, relaying) = rivals().await;
    let (broker, stop) = (Broker::new(None), CancellationToken::new());
    let running = tokio::spawn(relay(&relaying, &broker).run(stop.clone()));
    for count in 1..=3 {
        writer.change(&count.to_string(), "user.a.updated").await;
        broker.reaches(count).await;
    }
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("no panic");
}
