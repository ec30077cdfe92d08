//! What may fail does, while people register: the broker, its data, its disk, the databases, a service. Each test ends
//! in the convergence check.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use edd_events::bus::jetstream::{JetStreamBus, JetStreamConfig};
use edd_events::bus::{Bus, BusError};
use edd_events::message::{Headers, Message};
use edd_proto::Stream;
use edd_servers::disk::Disk;
use edd_servers::nats::Nats;
use edd_servers::postgres::{Postgres, Settings};
use rustix::process::Signal;

use crate::harness::{Deployment, Link, People, Role, Way, is_full_run, within};

/// People who register while something is away.
const SOME: usize = 4;
/// Room for an empty cluster of PostgreSQL and some more.
const DISK_MIB: u32 = 128;
/// Of one for a cluster, which has to take all that was missed meanwhile, three times.
const CLUSTER_MIB: u32 = 1024;

async fn separate(nats: &Nats) -> Deployment {
    let mut deployment = Deployment::separate(nats, Postgres::shared());
    deployment.start().await;
    deployment
}

/// Waits until some more have registered.
async fn some_more(people: &People) {
    let before = people.registered.all().len();
    people.registered.wait("registrations", |users| (users.len() >= before + SOME).then_some(())).await;
}

#[track_caller]
fn assert_all_were_told(answers: &BTreeMap<u16, usize>) {
    assert!(answers.keys().eq(&[200]), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_killed_and_comes_back_under_load() {
    let nats = Nats::start();
    let deployment = separate(&nats).await;
    let people = deployment.people();
    let rush = people.rush();
    for _ in 0..2 {
        some_more(&people).await;
        nats.kill9();
        some_more(&people).await;
        nats.restart();
    }
    some_more(&people).await;
    assert_all_were_told(&rush.end().await);
    deployment.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_loses_all_it_had() {
    let nats = Nats::start();
    let deployment = separate(&nats).await;
    let people = deployment.people();
    let rush = people.rush();
    some_more(&people).await;
    nats.kill9();
    nats.wipe_data();
    some_more(&people).await;
    nats.restart();
    some_more(&people).await;
    assert_all_were_told(&rush.end().await);
    deployment.converged().await;
    // The stream has everything again, for who comes later.
    let (bus, told) = (connect(&nats).await, deployment.events().await);
    assert_eq!(bus.stream(Stream::AUTH.name).await.expect("a stream").last_seq, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_not_there_yet() {
    let nats = Nats::start();
    nats.kill9();
    let deployment = separate(&nats).await;
    some_registered(&deployment.people()).await;
    nats.restart();
    deployment.converged().await;
}

async fn some_registered(people: &People) {
    for _ in 0..SOME {
        assert_eq!(people.register().await, 200);
    }
}

async fn connect(nats: &Nats) -> JetStreamBus {
    let config = JetStreamConfig { urls: nats.url(), name: "a test".to_owned(), ..JetStreamConfig::default() };
    JetStreamBus::connect(&config).await.expect("a connection")
}

/// Somebody else's stream on the same disk.
const RUBBISH: Stream = Stream { name: "RUBBISH", subjects: &["rubbish.>"], retention_days: 1 };

async fn fill(nats: &Nats) {
    let bus: Arc<dyn Bus> = Arc::new(connect(nats).await);
    bus.ensure(&[RUBBISH], &[]).await.expect("a stream");
    for bytes in [64 * 1024, 256] {
        let mut number = 0;
        loop {
            number += 1;
            let (_, failure) = bus.publish(&[rubbish(&format!("{bytes}-{number}"), bytes)]).await;
            match failure {
                None => {}
                Some(BusError::Unavailable(_) | BusError::Refused(_)) => break,
                Some(other) => panic!("{other}"),
            }
        }
    }
}

fn rubbish(id: &str, bytes: usize) -> Message {
    Message {
        event_id: id.to_owned(),
        subject: "rubbish.x.made".to_owned(),
        entity: "rubbish.x".to_owned(),
        version: 1,
        content_type: "application/octet-stream".to_owned(),
        payload: Bytes::from(vec![b'x'; bytes]),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: Headers::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_s_disk_is_full() {
    let nats = Nats::with_config("jetstream { max_file_store: 1MB }");
    let deployment = separate(&nats).await;
    some_registered(&deployment.people()).await;
    deployment.converged().await;
    fill(&nats).await;
    some_registered(&deployment.people()).await;
    let waiting = deployment.outbox().await;
    assert!(waiting >= SOME as u64, "{waiting} events wait for room");
    nats.configure("jetstream { max_file_store: 100MB }");
    nats.restart();
    deployment.converged().await;
}

/// As `edd up` has it: databases, log and keys are on one disk.
#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_one_process_is_full() {
    let Some(disk) = Disk::mount("the_disk_of_one_process_is_full", DISK_MIB) else { return };
    let mut deployment = Deployment::single_in(&disk.path().join("data"));
    deployment.start().await;
    let people = deployment.people();
    some_registered(&people).await;
    disk.fill();
    // What was allotted to a file before takes a few more.
    refused(&people).await;
    disk.free();
    some_registered(&people).await;
    deployment.converged().await;
}

/// Waits until somebody is not told that they are a user.
async fn refused(people: &People) {
    within("no room for another user", async { while people.register().await == 200 {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_of_those_who_are_told_have_no_room() {
    let Some(disk) = Disk::mount("the_databases_of_those_who_are_told_have_no_room", CLUSTER_MIB) else { return };
    let (nats, theirs) = (Nats::start(), Postgres::start_on(&disk, Settings::default()));
    let mut deployment = Deployment::on(&nats, [Postgres::shared(), &theirs, &theirs, &theirs]);
    deployment.start().await;
    some_registered(&deployment.people()).await;
    deployment.converged().await;
    disk.fill();
    let rush = deployment.people().rush();
    for role in [Role::Sfs, Role::Compute, Role::Gateway] {
        deployment.process(role).wait_log_lines("rounds in vain", "events wait", rounds()).await;
    }
    assert_all_were_told(&rush.end().await);
    disk.free();
    some_registered(&deployment.people()).await;
    deployment.converged().await;
}

/// Longer than all tries of an event, in a full run: an outage must not use them up.
fn rounds() -> usize {
    if is_full_run() { 15 } else { 2 }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_databases_of_those_who_are_told_are_away() {
    let (nats, theirs) = (Nats::start(), Postgres::start(Settings::default()));
    let mut deployment = Deployment::on(&nats, [Postgres::shared(), &theirs, &theirs, &theirs]);
    deployment.start().await;
    let people = deployment.people();
    some_registered(&people).await;
    theirs.stop();
    some_registered(&people).await;
    for role in [Role::Sfs, Role::Compute, Role::Gateway] {
        deployment.process(role).wait_log_lines("rounds in vain", "events wait", rounds()).await;
    }
    theirs.restart();
    some_registered(&people).await;
    deployment.converged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_auth_crashes() {
    let (nats, own) = (Nats::start(), Postgres::start(Settings::default()));
    let shared = Postgres::shared();
    let mut deployment = Deployment::on(&nats, [&own, shared, shared, shared]);
    deployment.start().await;
    let people = deployment.people();
    let rush = people.rush();
    some_more(&people).await;
    own.kill9();
    assert_ne!(people.register().await, 200, "nobody is told what is not so");
    own.restart();
    some_more(&people).await;
    rush.end().await;
    deployment.converged().await;
}

/// One that stands still loses nothing, and holds nobody up.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_slow() {
    let nats = Nats::start();
    let mut deployment = separate(&nats).await;
    let people = deployment.people();
    some_registered(&people).await;
    deployment.process(Role::Sfs).signal(Signal::STOP);
    some_registered(&people).await;
    let last = deployment.register().await;
    deployment.wait_copy("compute", "the others to go on", |copy| copy.iter().any(|row| row.key == last.id)).await;
    let behind = deployment.copy("sfs").await.expect("a copy");
    assert!(behind.iter().all(|row| row.key != last.id), "it stands still: {behind:?}");
    deployment.process(Role::Sfs).signal(Signal::CONT);
    deployment.converged().await;
}

/// A service hears nobody, or nobody hears it, and neither side is told: nothing but time shows it.
#[tokio::test(flavor = "multi_thread")]
async fn one_way_between_a_service_and_the_broker_is_cut() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    let (owner, reader) = (Link::to(&nats.url()).await, Link::to(&nats.url()).await);
    deployment.set(Role::Auth, "NATS_URL", &owner.url);
    deployment.set(Role::Sfs, "NATS_URL", &reader.url);
    deployment.start().await;
    let people = deployment.people();
    some_registered(&people).await;
    for way in [Way::FromServer, Way::ToServer] {
        // The one that reads: the others go on.
        reader.cut(way);
        let last = deployment.register().await;
        deployment.wait_copy("compute", "the others to go on", |copy| copy.iter().any(|row| row.key == last.id)).await;
        let reached = deployment.copy("sfs").await.expect("a copy").iter().any(|row| row.key == last.id);
        // What it had asked for before may still come to one that nobody hears.
        assert!(!reached || way == Way::ToServer, "{last:?} reached one that hears nobody");
        notices(&mut deployment, Role::Sfs).await;
        reader.mend(way);
        deployment.converged().await;
        // The one that publishes: what it writes waits.
        owner.cut(way);
        some_registered(&people).await;
        let waiting = deployment.outbox().await;
        assert!(waiting >= SOME as u64, "{waiting} events wait");
        notices(&mut deployment, Role::Auth).await;
        owner.mend(way);
        some_registered(&people).await;
        deployment.converged().await;
    }
}

/// Waits until a process says once more that events wait.
async fn notices(deployment: &mut Deployment, role: Role) {
    let (process, text) = (deployment.process(role), "events wait");
    let said = process.log().iter().filter(|line| line.text.contains(text)).count();
    process.wait_log_lines("events that wait", text, said + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_between_a_service_and_its_database_is_cut() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    let (owner, reader) = (Link::to(deployment.database("auth")).await, Link::to(deployment.database("sfs")).await);
    deployment.set(Role::Auth, "DATABASE_URL", &owner.url);
    deployment.set(Role::Sfs, "DATABASE_URL", &reader.url);
    deployment.start().await;
    let people = deployment.people();
    some_registered(&people).await;
    for way in [Way::FromServer, Way::ToServer] {
        reader.cut(way);
        let last = deployment.register().await;
        deployment.wait_copy("compute", "the others to go on", |copy| copy.iter().any(|row| row.key == last.id)).await;
        reader.mend(way);
        deployment.converged().await;
        owner.cut(way);
        assert_ne!(people.register().await, 200, "nobody is told what is not known");
        owner.mend(way);
        some_registered(&people).await;
        deployment.converged().await;
    }
}

/// What `edd up` has in place of a broker is a file.
#[tokio::test]
async fn the_log_of_one_process_is_lost() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    some_registered(&deployment.people()).await;
    deployment.converged().await;
    deployment.end(Role::Up, Signal::KILL).await;
    for file in ["data/bus.db", "data/bus.db-wal", "data/bus.db-shm"] {
        let path = deployment.builder(Role::Up).path(file);
        std::fs::remove_file(&path).unwrap_or_else(|e| panic!("remove {}: {e}", path.display()));
    }
    deployment.start().await;
    some_registered(&deployment.people()).await;
    deployment.converged().await;
}
