use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use edd_events::bus::Bus;
use edd_events::bus::local::LocalBus;
use edd_events::compute_cache::{self, containers as cache, ssh_keys};
use edd_events::consumer::Handler;
use edd_events::database::{Database, Kind};
use edd_events::message::{Headers, Message};
use edd_events::projection::{
    Digest, DigestBuilder, Entry, Owner, OwnerError, Page, Projection, Projector, Synchronizer,
};
use edd_events::user_cache;
use edd_proto::auth::UserDeleted;
use edd_proto::common::{EventMetadata, Timestamp};
use edd_proto::compute::{
    Container, ContainerDeleted, ContainerStarted, ContainerStatus, SshKeyCreated, SshKeyDeleted,
};
use edd_proto::{AnyEvent, CONSUMERS, Consumer, Encoding, Event, Stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::scene::{ANN, Scene, fingerprint, id, user};
use crate::containers::{Feed, LastKnown};
use crate::health::{CheckState, Reporter};
use crate::live::Status;
use crate::scratch::{Scratch, on_each_database};

const PATIENCE: Duration = Duration::from_secs(30);

on_each_database!(
    keys_of_the_database_open_and_then_those_of_the_stream,
    what_the_database_has_serves_and_then_what_the_stream_tells,
    another_stream_makes_it_read_all_again,
    a_database_that_comes_late_is_taken_in,
);

fn container(number: u32, status: ContainerStatus) -> Container {
    Container {
        container_id: id(number).to_string(),
        user_uid: ANN.to_owned(),
        status: status.into(),
        address: "10.0.0.1".to_owned(),
        http_port: 80,
        https_enabled: true,
        ..Container::default()
    }
}

fn row(number: u32, version: i64, status: Option<ContainerStatus>) -> Entry {
    cache::entry(id(number), version, status.map(|status| container(number, status)))
}

/// compute_db as a list.
#[derive(Debug, Default)]
struct Compute(Mutex<Vec<Entry>>);

#[async_trait]
impl Owner for Compute {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        let rows = self.0.lock().expect("no panic");
        let mut rest: Vec<Entry> = rows.iter().filter(|row| Some(&row.key) > after.as_ref()).cloned().collect();
        let more = rest.len() > most as usize;
        rest.truncate(most as usize);
        Ok(Page { entries: rest, more })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let mut builder = DigestBuilder::default();
        let rows = self.0.lock().expect("no panic");
        rows.iter().for_each(|row| builder.add(row).expect("rows in order"));
        Ok(builder.finish())
    }
}

/// gateway_db, its consumer's work, and a bus.
struct Plane {
    _scratch: Scratch,
    dir: tempfile::TempDir,
    database: Database,
    bus: Arc<LocalBus>,
    compute: Arc<Compute>,
    scene: Scene,
    stop: CancellationToken,
    running: Option<JoinHandle<()>>,
}

async fn bus(file: &Path, scene: &Scene) -> Arc<LocalBus> {
    let bus = LocalBus::open(file, Arc::new(scene.clock.clone())).await.expect("a bus");
    bus.ensure(&[Stream::COMPUTE, Stream::AUTH], &[consumer()]).await.expect("streams");
    Arc::new(bus)
}

fn consumer() -> Consumer {
    let found = CONSUMERS.iter().find(|it| it.name == "gateway-service" && it.stream == Stream::COMPUTE);
    *found.expect("the gateway's consumer")
}

impl Plane {
    async fn new(kind: Kind) -> Self {
        let (scratch, dir, scene) = (Scratch::new(kind), tempfile::tempdir().expect("a folder"), Scene::new());
        let steps = [&compute_cache::STEPS[..], &[user_cache::STEP, crate::containers::store::STEP]].concat();
        let database = scratch.open(&steps).await;
        let bus = bus(&dir.path().join("bus.db"), &scene).await;
        let (compute, stop) = (Arc::default(), CancellationToken::new());
        Self { _scratch: scratch, dir, database, bus, compute, scene, stop, running: None }
    }

    /// Takes a snapshot of compute's state into the database if one is needed.
    async fn synchronize(&self, bus: &Arc<LocalBus>) {
        self.synchronize_with(bus, Arc::new(cache::Containers), self.compute.clone()).await;
    }

    async fn synchronize_with(&self, bus: &Arc<LocalBus>, projection: Arc<dyn Projection>, owner: Arc<Compute>) {
        self.scene.clock.advance(Duration::from_secs(1));
        let clock = Arc::new(self.scene.clock.clone());
        let on = (self.database.clone(), bus.clone() as Arc<dyn Bus>, clock as Arc<dyn edd_events::clock::Clock>);
        let synchronizer = Synchronizer::new(projection, consumer(), owner, on, Default::default());
        synchronizer.round().await.expect("a round");
    }

    fn feed(&self, database: Option<Database>) -> (Feed, watch::Sender<Option<Database>>) {
        let sender = watch::Sender::new(database);
        let feed = Feed::new(self.scene.containers.clone(), self.bus.clone(), sender.subscribe(), true);
        (feed, sender)
    }

    fn run(&mut self, feed: Feed) {
        self.running = Some(tokio::spawn(feed.run(self.stop.clone())));
    }

    /// Waits until the containers are as `expected` says.
    async fn until(&self, expected: impl Fn(&Scene) -> bool) {
        let mut changed = self.scene.router.changed();
        let reached = async {
            while !expected(&self.scene) {
                changed.changed().await.expect("a router");
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{:?}", self.scene.containers.checks());
    }

    async fn publish(&self, event: impl Into<AnyEvent>) {
        let (taken, error) = self.bus.publish(&[message(event.into())]).await;
        assert!(error.is_none() && taken.len() == 1, "{error:?}");
    }

    async fn end(mut self) {
        self.stop.cancel();
        self.running.take().expect("a feed").await.expect("a good end");
    }
}

fn metadata(number: u32, version: i64) -> Option<EventMetadata> {
    Some(EventMetadata {
        event_id: format!("018d2f4e-3800-7000-8000-{number:06}{version:06}"),
        entity_id: id(number).to_string(),
        timestamp: Some(Timestamp { seconds: 5, nanos: 0 }),
        version,
        schema_version: 1,
        ..EventMetadata::default()
    })
}

fn message(event: AnyEvent) -> Message {
    let envelope = event.envelope().expect("metadata");
    Message {
        event_id: envelope.event_id.to_string(),
        subject: event.subject().expect("a subject").to_string(),
        entity: envelope.entity_id.clone(),
        version: envelope.version,
        content_type: Encoding::Protobuf.content_type().to_owned(),
        payload: event.encode(Encoding::Protobuf).expect("a small event").into(),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: Headers::default(),
    }
}

fn started(number: u32, version: i64) -> ContainerStarted {
    ContainerStarted {
        metadata: metadata(number, version),
        container_id: id(number).to_string(),
        container: Some(container(number, ContainerStatus::Running)),
        ..ContainerStarted::default()
    }
}

async fn what_the_database_has_serves_and_then_what_the_stream_tells(kind: Kind) {
    let mut plane = Plane::new(kind).await;
    *plane.compute.0.lock().expect("no panic") =
        vec![row(1, 4, Some(ContainerStatus::Running)), row(2, 2, None), row(3, 1, Some(ContainerStatus::Stopped))];
    plane.synchronize(&plane.bus.clone()).await;
    let (mut feed, _database) = plane.feed(Some(plane.database.clone()));
    feed.prepare(None).await;
    let scene = &plane.scene;
    assert_eq!([1, 2, 3].map(|number| scene.status(number)), [Some(Status::Running), None, Some(Status::Stopped)]);
    assert!(scene.router.snapshot().containers.is_complete());
    // Late, and of one that is gone.
    plane.publish(started(2, 1)).await;
    plane.publish(started(3, 2)).await;
    plane.publish(started(4, 1)).await;
    plane.run(feed);
    plane.until(|scene| scene.status(3) == Some(Status::Running) && scene.status(4).is_some()).await;
    assert_eq!(plane.scene.status(2), None);
    let deleted = ContainerDeleted { metadata: metadata(3, 3), container_id: id(3).to_string(), ..Default::default() };
    plane.publish(deleted).await;
    plane.until(|scene| scene.status(3).is_none()).await;

    // Nobody told of this: compute's word is found in the database. It does not know the fourth.
    *plane.compute.0.lock().expect("no panic") = vec![row(1, 5, Some(ContainerStatus::Hibernated)), row(3, 3, None)];
    sqlx::query("UPDATE projections SET needed = 'a test', needed_since = 1 WHERE name = 'containers'")
        .execute(plane.database.writer())
        .await
        .expect("an update");
    plane.synchronize(&plane.bus.clone()).await;
    plane.until(|scene| scene.status(1) == Some(Status::Hibernated) && scene.status(4).is_none()).await;

    let mut deleted = UserDeleted { user_uid: ANN.to_owned(), ..UserDeleted::default() };
    *deleted.metadata_mut() = metadata(9, 2);
    plane.publish(deleted).await;
    plane.until(|scene| scene.router.snapshot().containers.is_empty()).await;
    plane.end().await;
}

fn key_row(id: i64, version: i64, number: Option<u8>) -> Entry {
    let key = number.map(|number| ssh_keys::SshKey {
        id,
        owner: user(ANN),
        name: String::new(),
        fingerprint: fingerprint(number).to_string(),
        public_key: String::new(),
    });
    ssh_keys::entry(id, version, key)
}

fn key_metadata(id: i64, version: i64) -> Option<EventMetadata> {
    let event_id = format!("018d2f4e-3800-7000-9000-{id:06}{version:06}");
    Some(EventMetadata { event_id, entity_id: id.to_string(), ..metadata(0, version).expect("metadata") })
}

async fn keys_of_the_database_open_and_then_those_of_the_stream(kind: Kind) {
    let mut plane = Plane::new(kind).await;
    let rows = vec![key_row(1, 1, Some(1)), key_row(2, 2, None), key_row(3, 1, Some(3))];
    plane.synchronize(&plane.bus.clone()).await;
    let keys = Arc::new(Compute(Mutex::new(rows)));
    plane.synchronize_with(&plane.bus.clone(), Arc::new(ssh_keys::SshKeys), keys.clone()).await;
    let (mut feed, _database) = plane.feed(Some(plane.database.clone()));
    feed.prepare(None).await;
    let held = |scene: &Scene| {
        let snapshot = scene.router.snapshot();
        assert!(snapshot.ssh_keys.is_complete());
        [1, 2, 3, 4].map(|number| snapshot.ssh_keys.holders(&fingerprint(number)).len())
    };
    assert_eq!(held(&plane.scene), [1, 0, 1, 0]);
    let created = |id: i64, number: u8| SshKeyCreated {
        metadata: key_metadata(id, 1),
        key_id: id,
        user_uid: ANN.to_owned(),
        fingerprint: fingerprint(number).to_string(),
        ..SshKeyCreated::default()
    };
    // Late, and of one that is gone.
    plane.publish(created(2, 2)).await;
    plane.publish(created(4, 4)).await;
    plane.run(feed);
    plane.until(|scene| held(scene) == [1, 0, 1, 1]).await;
    let deleted =
        SshKeyDeleted { metadata: key_metadata(1, 2), key_id: 1, user_uid: ANN.to_owned(), ..Default::default() };
    plane.publish(deleted).await;
    plane.until(|scene| held(scene) == [0, 0, 1, 1]).await;

    // Nobody told of this: compute's word is found in the database. It does not know the fourth.
    *keys.0.lock().expect("no panic") = vec![key_row(1, 2, None), key_row(3, 2, None)];
    sqlx::query("UPDATE projections SET needed = 'a test', needed_since = 1 WHERE name = 'ssh_key_cache'")
        .execute(plane.database.writer())
        .await
        .expect("an update");
    plane.synchronize_with(&plane.bus.clone(), Arc::new(ssh_keys::SshKeys), keys).await;
    plane.until(|scene| held(scene) == [0; 4]).await;
    plane.end().await;
}

async fn another_stream_makes_it_read_all_again(kind: Kind) {
    let mut plane = Plane::new(kind).await;
    *plane.compute.0.lock().expect("no panic") = vec![row(1, 1, Some(ContainerStatus::Running))];
    plane.synchronize(&plane.bus.clone()).await;
    // The stream is another one by the time that the process starts.
    plane.scene.clock.advance(Duration::from_secs(1));
    plane.bus = bus(&plane.dir.path().join("other.db"), &plane.scene).await;
    let (mut feed, _database) = plane.feed(Some(plane.database.clone()));
    feed.prepare(None).await;
    assert_eq!([1, 2].map(|number| plane.scene.status(number)), [Some(Status::Running), None]);
    // What the durable consumer heard while nobody else did.
    let projector = Projector::new(Arc::new(cache::Containers), Arc::new(plane.scene.clock.clone()));
    let mut transaction = plane.database.begin().await.expect("a transaction");
    let missed = message(started(2, 1).into());
    projector.handle(&missed, &mut transaction).await.expect("a row");
    plane.database.commit(transaction).await.expect("a commit");
    plane.publish(started(3, 1)).await;
    plane.run(feed);
    plane.until(|scene| [2, 3].iter().all(|number| scene.status(*number) == Some(Status::Running))).await;
    assert_eq!(plane.scene.status(1), Some(Status::Running));
    plane.end().await;
}

async fn a_database_that_comes_late_is_taken_in(kind: Kind) {
    let mut plane = Plane::new(kind).await;
    let (mut feed, sender) = plane.feed(None);
    let file = LastKnown::new(plane.dir.path());
    feed.prepare(Some(&file)).await;
    assert!(!plane.scene.router.snapshot().containers.is_complete(), "nobody has told anything");
    plane.publish(started(1, 1)).await;
    plane.run(feed);
    plane.until(|scene| scene.status(1).is_some()).await;
    assert!(!plane.scene.router.snapshot().containers.is_complete(), "there may be older ones");
    assert_eq!(plane.scene.containers.checks()[0].state, CheckState::Degraded);
    let mut rows = vec![row(1, 1, Some(ContainerStatus::Running)), row(2, 1, Some(ContainerStatus::Stopped))];
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    *plane.compute.0.lock().expect("no panic") = rows;
    // The durable consumer has the event as well; then the snapshot is known to be complete.
    let clock = Arc::new(plane.scene.clock.clone());
    let projector = Arc::new(Projector::new(Arc::new(cache::Containers), clock.clone()));
    let mut durable =
        edd_events::consumer::Consumer::new(consumer(), plane.database.clone(), plane.bus.clone(), clock, projector);
    durable.round(Duration::from_secs(5)).await.expect("an event");
    plane.synchronize(&plane.bus.clone()).await;
    sender.send_replace(Some(plane.database.clone()));
    plane.until(|scene| scene.router.snapshot().containers.is_complete() && scene.status(2).is_some()).await;
    assert_eq!(plane.scene.status(1), Some(Status::Running));
    plane.end().await;
}
