//! Two services in one process, and a bus that comes and goes.

use async_trait::async_trait;
use edd_proto::auth::UserCreated;
use edd_proto::{CONSUMERS, Encoding};
use sqlx::AnyConnection;

use super::*;
use crate::bus::local::LocalBus;
use crate::bus::watched::Watched;
use crate::clock::{ManualClock, SystemClock};
use crate::consumer::Failure;
use crate::database::Kind;
use crate::message::Message;
use crate::publisher::Cause;
use crate::scratch::{Scratch, on_each_database};
use crate::{event_log, inbox};

const PATIENCE: Duration = Duration::from_secs(20);
const UID: &str = "V1StGXR8_Z5jdHi6B-myT";
/// sfs reads auth's users.
const USERS: Spec = CONSUMERS[0];

#[derive(Debug)]
struct Refusing;

#[async_trait]
impl Handler for Refusing {
    async fn handle(&self, _: &Message, _: &mut AnyConnection) -> Result<(), Failure> {
        Err(Failure::Permanent("no user".to_owned()))
    }
}

on_each_database! {
    an_event_goes_from_one_service_to_another_and_what_dies_is_told,
    a_service_starts_without_a_bus_and_finds_it_later,
    what_nobody_needs_is_forgotten_and_nothing_else,
}

async fn service(name: &'static str, scratch: &Scratch, bus: Arc<dyn Bus>, clock: Arc<dyn Clock>) -> Service {
    let database = scratch.open(&[]).await;
    let publisher = Publisher::new(name, Encoding::Protobuf, clock.clone());
    Service { name, database, bus, clock, publisher }
}

async fn register(service: &Service) {
    let mut transaction = service.database.begin().await.expect("a transaction");
    let event = UserCreated { user_uid: UID.to_owned(), ..Default::default() };
    service.publisher.add(&mut transaction, event, &Cause::default()).await.expect("a row");
    service.database.commit(transaction).await.expect("a commit");
}

async fn until(running: &Running, is: impl FnMut(&Health) -> bool) -> Health {
    let mut health = running.watch();
    let found = tokio::time::timeout(PATIENCE, health.wait_for(is)).await;
    found.unwrap_or_else(|_| panic!("in time; it is {:?}", running.health())).expect("it runs").clone()
}

async fn an_event_goes_from_one_service_to_another_and_what_dies_is_told(kind: Kind) {
    let [scratch, other] = [Scratch::new(kind), Scratch::new(kind)];
    let clock = Arc::new(SystemClock);
    let bus = Arc::new(LocalBus::open(&scratch.file("bus.db"), clock.clone()).await.expect("a bus"));
    let registry = Registry::new();
    let auth = service("auth", &scratch, bus.clone(), clock.clone()).await;
    let sfs = service("sfs", &other, bus.clone(), clock.clone()).await;
    // sfs is first: what it reads need not be there.
    let sfs_running = sfs.start(vec![(USERS, Arc::new(Refusing))], &[Stream::SFS], &registry).expect("new metrics");
    let auth_running = auth.start(Vec::new(), &[Stream::AUTH], &registry).expect("new metrics");
    assert!(auth.start(Vec::new(), &[Stream::AUTH], &registry).is_err(), "it runs already");
    register(&auth).await;
    let health =
        until(&sfs_running, |health| health.consumers[0].dead_letters == 1 && health.bus_error.is_none()).await;
    assert_eq!(health.consumers[0].lag, Some(0));
    let sent = until(&auth_running, |health| health.bus_error.is_none() && health.outbox_pending == 0).await;
    assert_eq!(sent.consumers, []);
    while bus.stream("DLQ").await.expect("a stream").last_seq == 0 {
        bus.arrival("DLQ", 0, PATIENCE).await.expect("a dead letter");
    }
    let told = bus.read("DLQ", 1, &["dlq.sfs-service.auth.user.>"], 10).await.expect("messages");
    assert_eq!(told[0].1.headers.get(dead_letter::header::ERROR), Some("no user"));
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
    for line in [
        "edd_events_published_total{event_type=\"auth.UserCreated\",service=\"auth\"} 1",
        "edd_events_processed_total{event_type=\"auth.UserCreated\",service=\"sfs\",status=\"dead\"} 1",
        "edd_dead_letters{consumer=\"sfs-service\"} 1",
        "edd_events_consumer_lag{consumer=\"sfs-service\",stream=\"AUTH\"} 0",
        "edd_outbox_pending{service=\"auth\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    auth_running.stop().await;
    sfs_running.stop().await;
    assert!(registry.gather().is_empty(), "what is stopped may be started again");
    auth.start(Vec::new(), &[Stream::AUTH], &registry).expect("free names").stop().await;
}

async fn a_service_starts_without_a_bus_and_finds_it_later(kind: Kind) {
    let [scratch, other] = [Scratch::new(kind), Scratch::new(kind)];
    let clock = Arc::new(SystemClock);
    let bus = Arc::new(LocalBus::open(&scratch.file("bus.db"), clock.clone()).await.expect("a bus"));
    let gate = Arc::new(Watched::closed(bus.clone()));
    let registry = Registry::new();
    let auth = service("auth", &scratch, gate.clone(), clock.clone()).await;
    let sfs = service("sfs", &other, gate.clone(), clock).await;
    let sfs_running = sfs.start(vec![(USERS, Arc::new(Refusing))], &[Stream::SFS], &registry).expect("new metrics");
    let running = auth.start(Vec::new(), &[Stream::AUTH], &registry).expect("new metrics");
    register(&auth).await;
    let health = until(&running, |health| health.outbox_pending == 1).await;
    let error = health.bus_error.expect("a reason");
    assert!(error.contains("connection refused"), "{error}");
    gate.open(true);
    until(&running, |health| health.bus_error.is_none() && health.outbox_pending == 0).await;
    until(&sfs_running, |health| health.consumers[0].dead_letters == 1).await;
    assert_eq!(bus.stream("AUTH").await.expect("a stream").last_seq, 1);
    gate.open(false);
    let away = until(&sfs_running, |health| health.bus_error.is_some()).await;
    assert_eq!(away.consumers[0].lag, None, "what is not known is not told");
    running.stop().await;
    sfs_running.stop().await;
}

async fn what_nobody_needs_is_forgotten_and_nothing_else(kind: Kind) {
    let [scratch, other] = [Scratch::new(kind), Scratch::new(kind)];
    let clock = ManualClock::at(1_000_000_000_000);
    let bus = Arc::new(LocalBus::open(&scratch.file("bus.db"), Arc::new(clock.clone())).await.expect("a bus"));
    let sfs = service("sfs", &other, bus.clone(), Arc::new(clock.clone())).await;
    let streams = vec![Stream::SFS, Stream::AUTH, Stream::DLQ];
    bus.ensure(&streams, &[USERS]).await.expect("streams");
    let relay = Relay::new(sfs.database.clone(), bus.clone(), sfs.clock.clone(), streams.clone());
    let mut consumer = Consumer::new(USERS, sfs.database.clone(), bus.clone(), sfs.clock.clone(), Arc::new(Refusing));
    // More rows than are removed in one go.
    for _ in 0..600 {
        register(&sfs).await;
    }
    while relay.round().await.expect("a round").published > 0 {}
    for _ in 0..10 {
        consumer.round(Duration::ZERO).await.expect("a round");
    }
    while relay.round().await.expect("a round").published > 0 {}
    dead_letter::discard(&sfs.database, 1).await.expect("a letter");
    // Too young in its own right.
    register(&sfs).await;
    let days = async |days: u64| {
        clock.advance(Duration::from_secs(days * 24 * 3600));
        let housekeeping = Housekeeping::new(sfs.database.clone(), sfs.clock.clone(), streams.clone(), &[USERS]);
        let removed = housekeeping.round().await.expect("a round");
        (removed.outbox, removed.inbox, removed.event_log, removed.dead_letters)
    };
    assert_eq!(days(8).await, (0, 0, 0, 0), "streams keep 7 days, and a day more may pass");
    clock.advance(Duration::from_micros(1));
    assert_eq!(days(0).await, (600, 600, 0, 0));
    assert_eq!(days(23).await, (600, 0, 0, 0), "dead letters are kept for 30 days");
    assert_eq!(days(59).await, (0, 0, 1201, 1));
    assert_eq!(days(1000).await, (0, 0, 0, 0));
    let (waiting, _) = outbox::backlog(&sfs.database).await.expect("a count");
    assert_eq!((waiting, dead_letter::count(&sfs.database, "sfs-service").await.expect("a count")), (1, 599));
    let trail = event_log::newest(&sfs.database, &event_log::Filter::default(), None, 10).await.expect("rows");
    assert_eq!(trail, []);
    assert_eq!(inbox::prune(&sfs.database, i64::MAX, 10).await.expect("a count"), 0);
}
