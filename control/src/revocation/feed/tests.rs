//! A feed with an auth service that is played by the test.

mod held_bus;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use edd_events::bus::local::LocalBus;
use edd_events::clock::ManualClock;
use edd_events::consumer::Consumer as Handling;
use edd_events::database::Kind;
use edd_proto::CONSUMERS;

use self::held_bus::HeldBus;
use super::*;
use crate::revocation::STEP;
use crate::revocation::tests::{ANN, BOB, NOW, deleted, invalidated, uid};
use crate::scratch::{Scratch, on_each_database};

const CONSUMER: Consumer = CONSUMERS[0];
const PATIENCE: Duration = Duration::from_secs(20);

/// What is revoked, a page for each; none: it does not answer.
#[derive(Debug, Default)]
struct Auth {
    revoked: Mutex<Option<Vec<Revocation>>>,
    asked: Mutex<Vec<i64>>,
}

#[async_trait]
impl RevocationSource for Auth {
    async fn revoked(&self, after: i64, _: u32) -> Result<RevocationPage, OwnerError> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(after);
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let revoked = revoked.ok_or_else(|| OwnerError::Unavailable("connection refused".to_owned()))?;
        let place = usize::try_from(after).unwrap();
        let next = (place + 1 < revoked.len()).then_some(after + 1);
        Ok(RevocationPage { revocations: revoked.into_iter().skip(place).take(1).collect(), next })
    }
}

impl Auth {
    fn tells(&self, revoked: Option<&[&str]>) {
        let revoked = revoked.map(|ids| ids.iter().map(|id| session(id)).collect());
        *self.revoked.lock().unwrap_or_else(PoisonError::into_inner) = revoked;
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

fn session(id: &str) -> Revocation {
    Revocation::Session { session_id: id.to_owned(), user: Some(uid(ANN)), expires_at: None, version: 2 }
}

struct Fixture {
    scratch: Scratch,
    database: Database,
    auth: Arc<Auth>,
    clock: ManualClock,
    bus: Arc<LocalBus>,
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        let scratch = Scratch::new(kind);
        let (database, clock) = (scratch.open(&[STEP]).await, ManualClock::at(NOW * 1_000_000));
        let bus = bus(&scratch.folder.path().join("bus.db"), &clock).await;
        Self { scratch, database, auth: Arc::default(), clock, bus }
    }

    /// A feed as a process has it that starts now.
    async fn feed(&self) -> Feed {
        Feed::open(self.database.clone(), self.bus.clone(), CONSUMER, self.auth.clone()).await.unwrap()
    }

    async fn mark(&self) -> Option<Mark> {
        mark::read(&self.database).await.unwrap()
    }

    /// Handles what comes, as the service's durable consumer: how much that was.
    async fn handle(&self, feed: &Feed) -> usize {
        let (clock, handler) = (Arc::new(self.clock.clone()), Arc::new(feed.revocations().clone()));
        let mut handling = Handling::new(CONSUMER, self.database.clone(), self.bus.clone(), clock, handler);
        handling.round(Duration::ZERO).await.unwrap().len()
    }

    async fn publish(&self, messages: &[Message]) {
        self.bus.ensure(&[Stream::AUTH], &[]).await.unwrap();
        let (positions, error) = self.bus.publish(messages).await;
        assert!(error.is_none() && positions.len() == messages.len(), "{error:?}");
    }
}

async fn bus(file: &Path, clock: &ManualClock) -> Arc<LocalBus> {
    Arc::new(LocalBus::open(file, Arc::new(clock.clone())).await.unwrap())
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} for {what}"));
}

on_each_database!(
    who_is_new_knows_nothing_before_the_auth_service_has_told_all,
    what_one_replica_was_told_the_others_read,
    lost_events_are_asked_for,
    a_process_hears_of_a_revocation_that_no_consumer_has_handled,
    the_mark_follows_the_durable_consumer,
    what_retention_takes_between_two_looks_is_asked_for,
    what_a_tail_has_missed_is_read_from_the_tables,
);

async fn who_is_new_knows_nothing_before_the_auth_service_has_told_all(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut feed = fixture.feed().await;
    feed.prepare().await;
    assert!(!feed.revocations().is_complete() && fixture.mark().await.is_none());
    let told = feed.watch().borrow().clone();
    assert!(!told.is_complete && told.failure.is_some_and(|failure| failure.contains("connection refused")));

    fixture.auth.tells(Some(&["s1", "s2", "s3"]));
    feed.prepare().await;
    assert_eq!(*feed.watch().borrow(), FeedState { is_complete: true, failure: None });
    let asked = fixture.auth.asked();
    fixture.auth.tells(None);
    let mut again = fixture.feed().await;
    again.prepare().await;
    for set in [feed.revocations(), again.revocations()] {
        assert!(set.is_complete() && set.is_revoked(uid(ANN), "s1") && set.is_revoked(uid(ANN), "s3"));
        assert!(!set.is_revoked(uid(ANN), "s4"));
    }
    assert_eq!(fixture.auth.asked(), asked, "the database remembers");
}

async fn what_one_replica_was_told_the_others_read(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (mut one, mut other) = (fixture.feed().await, fixture.feed().await);
    fixture.auth.tells(Some(&["s1"]));
    one.round().await.unwrap();
    fixture.auth.tells(None);
    other.round().await.unwrap();
    assert!(other.revocations().is_complete() && other.revocations().is_revoked(uid(ANN), "s1"));
}

async fn lost_events_are_asked_for(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.auth.tells(Some(&["s1"]));
    fixture.feed().await.round().await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    fixture.bus = bus(&fixture.scratch.folder.path().join("another.db"), &fixture.clock).await;
    let mut feed = fixture.feed().await;
    fixture.auth.tells(None);
    assert!(matches!(feed.round().await, Err(FeedError::Source(_))));
    assert!(feed.revocations().is_complete(), "old knowledge is better than none");
    fixture.auth.tells(Some(&["s1", "s2"]));
    feed.round().await.unwrap();
    assert!(feed.revocations().is_revoked(uid(ANN), "s2"));
    let asked = fixture.auth.asked();
    feed.round().await.unwrap();
    assert_eq!(fixture.auth.asked(), asked, "once");
}

async fn a_process_hears_of_a_revocation_that_no_consumer_has_handled(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.auth.tells(Some(&[]));
    let feed = fixture.feed().await;
    let (set, stop) = (feed.revocations().clone(), CancellationToken::new());
    let running = tokio::spawn(feed.run(stop.clone()));
    until("a complete set", || set.is_complete()).await;
    fixture.publish(&[invalidated("s1", 2, None), deleted(BOB, 3)]).await;
    until("both", || set.is_revoked(uid(ANN), "s1") && set.is_revoked(uid(BOB), "s2")).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
    // Nothing of it was written: who starts next hears it from the stream as well, before anybody asks.
    let mut next = fixture.feed().await;
    assert!(!next.revocations().is_revoked(uid(ANN), "s1"));
    next.prepare().await;
    assert!(next.revocations().is_revoked(uid(ANN), "s1") && next.revocations().is_revoked(uid(BOB), "s2"));
}

async fn the_mark_follows_the_durable_consumer(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&[invalidated("s0", 2, None)]).await;
    fixture.auth.tells(Some(&["s0"]));
    let mut feed = fixture.feed().await;
    feed.round().await.unwrap();
    fixture.publish(&[invalidated("s1", 2, None), invalidated("s2", 2, None)]).await;
    feed.round().await.unwrap();
    assert_eq!(fixture.mark().await.map(|mark| mark.seq), Some(1), "nothing was handled");
    assert_eq!(fixture.handle(&feed).await, 3);
    feed.round().await.unwrap();
    assert_eq!(fixture.mark().await.map(|mark| (mark.seq, mark.snapshots)), Some((3, 1)));
    assert_eq!(fixture.feed().await.revocations().len(), (3, 0));
}

/// The stream is looked at, then loses what was not handled, and then the consumer is looked at: it has leapt over that.
async fn what_retention_takes_between_two_looks_is_asked_for(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&[invalidated("s0", 2, None)]).await;
    fixture.auth.tells(Some(&["s0"]));
    fixture.feed().await.round().await.unwrap();
    fixture.publish(&[invalidated("s1", 2, None), invalidated("s2", 2, None)]).await;
    let bus = Arc::new(HeldBus::new(fixture.bus.clone()));
    let feed = Feed::open(fixture.database.clone(), bus.clone(), CONSUMER, fixture.auth.clone()).await;
    let (mut feed, other) = (feed.unwrap(), fixture.feed().await);
    fixture.auth.tells(Some(&["s0", "s1", "s2", "s3"]));
    let (round, ()) = tokio::join!(
        feed.round(),
        bus.before_look(async {
            fixture.clock.advance(Stream::AUTH.retention() + Duration::from_secs(1));
            fixture.publish(&[invalidated("s3", 2, None)]).await;
            assert_eq!(fixture.handle(&other).await, 1);
        })
    );
    round.unwrap();
    for session_id in ["s0", "s1", "s2", "s3"] {
        assert!(feed.revocations().is_revoked(uid(ANN), session_id), "{session_id}");
    }
    assert_eq!(fixture.mark().await.map(|mark| (mark.seq, mark.snapshots)), Some((4, 2)));
}

async fn what_a_tail_has_missed_is_read_from_the_tables(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.auth.tells(Some(&[]));
    let mut feed = fixture.feed().await;
    feed.prepare().await;
    let (set, stop) = (feed.revocations().clone(), CancellationToken::new());
    // By the durable consumer in another process, long ago.
    let mut transaction = fixture.database.begin().await.unwrap();
    session("s1").store(&mut transaction).await.unwrap();
    fixture.database.commit(transaction).await.unwrap();
    let gap = Arc::new(Gap::default());
    let mut listener = Listener { set: set.clone(), gap: gap.clone() };
    let running = tokio::spawn(feed.keep(gap, stop.clone()));
    listener.reset().await;
    until("the row", || set.is_revoked(uid(ANN), "s1")).await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
}

#[tokio::test]
async fn a_source_that_goes_in_circles_is_left() {
    #[derive(Debug)]
    struct Circle;
    #[async_trait]
    impl RevocationSource for Circle {
        async fn revoked(&self, after: i64, _: u32) -> Result<RevocationPage, OwnerError> {
            Ok(RevocationPage { revocations: Vec::new(), next: Some(after.min(1)) })
        }
    }
    let fixture = Fixture::new(Kind::Sqlite).await;
    let feed = Feed::open(fixture.database.clone(), fixture.bus.clone(), CONSUMER, Arc::new(Circle));
    assert!(matches!(feed.await.unwrap().round().await, Err(FeedError::Source(OwnerError::Invalid(_)))));
}

#[test]
fn events_are_lost_where_the_stream_does_not_reach_back_to_the_mark() {
    let stream = StreamState { epoch: 7, first_seq: 11, last_seq: 20 };
    let lost = |epoch, seq| super::lost(&Mark { epoch, seq, snapshots: 1 }, &stream);
    for seq in [10, 11, 20] {
        assert_eq!(lost(Some(7), seq), None, "{seq}");
    }
    assert!(lost(Some(7), 9).is_some_and(|why| why.contains("begins at 11")));
    assert!(lost(Some(7), 21).is_some_and(|why| why.contains("back from 21")));
    assert!(lost(Some(6), 15).is_some_and(|why| why.contains("anew")));
    assert!(lost(None, 15).is_some_and(|why| why.contains("away")));
}
