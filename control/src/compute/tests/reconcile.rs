//! From what is wanted to what is, with everything going wrong on the way.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::{AnyEvent, ContainerId};
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, config};
use super::scripted::{Call, When, unavailable};
use super::snapshot::assert_copied;
use crate::compute::platform::{Phase, PlatformError};
use crate::scratch::on_each_database;

on_each_database![
    every_state_is_reached_and_told_once,
    a_platform_that_fails_half_way_is_asked_again,
    what_cannot_be_is_given_up_with_the_reason,
    a_container_that_is_never_ready_fails_and_is_tried_ever_more_seldom,
    one_that_ends_by_itself_is_told_and_started_again,
    one_that_vanishes_is_made_again,
    what_nobody_knows_is_deleted_from_the_platform,
    a_deleted_container_is_removed_however_often_that_fails,
    a_change_of_mind_in_the_middle_wins,
    it_runs_by_itself_and_stops_when_told,
];

async fn told(fixture: &Fixture) -> Vec<(String, i32, String)> {
    let state = |event: AnyEvent| {
        let kind = event.subject().expect("a subject").as_str().rsplit('.').next().expect("a part").to_owned();
        let container = match event {
            AnyEvent::ContainerCreated(event) => event.container,
            AnyEvent::ContainerStarted(event) => event.container,
            AnyEvent::ContainerStopped(event) => event.container,
            AnyEvent::ContainerIpAssigned(event) => event.container,
            AnyEvent::ContainerHibernated(event) => event.container,
            AnyEvent::ContainerWoken(event) => event.container,
            AnyEvent::ContainerFailed(event) => event.container,
            other => panic!("{other:?}"),
        };
        let container = container.expect("its state");
        (kind, container.status, container.address)
    };
    fixture.events().await.into_iter().map(state).collect()
}

fn is(told: &[(String, i32, String)], expected: &[(&str, i32, &str)]) {
    let told: Vec<_> = told.iter().map(|(kind, status, address)| (kind.as_str(), *status, address.as_str())).collect();
    assert_eq!(told, expected);
}

async fn every_state_is_reached_and_told_once(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.create("x").await;
    fixture.round().await;
    is(&told(&fixture).await, &[("created", 1, ""), ("ip_assigned", 3, "10.77.0.2"), ("started", 3, "10.77.0.2")]);
    for (action, phase, expected) in [
        ("start", Phase::Running, &[][..]),
        ("hibernate", Phase::Paused, &[("hibernated", 5, "10.77.0.2")]),
        ("wake", Phase::Running, &[("woken", 3, "10.77.0.2")]),
        ("stop", Phase::Stopped, &[("stopped", 4, "")]),
        ("stop", Phase::Stopped, &[]),
        ("start", Phase::Running, &[("ip_assigned", 3, "10.77.0.3"), ("started", 3, "10.77.0.3")]),
        ("hibernate", Phase::Paused, &[("hibernated", 5, "10.77.0.3")]),
        ("stop", Phase::Stopped, &[("stopped", 4, "")]),
    ] {
        fixture.act(id, action).await.done();
        fixture.round().await;
        assert_eq!(fixture.platform.phase(id), Some(phase), "{action}");
        is(&told(&fixture).await, expected);
    }
    fixture.delete(&format!("/compute/containers/{id}")).await.done();
    fixture.round().await;
    assert_eq!(fixture.platform.phase(id), None);
    assert_eq!(fixture.happenings().await, ["deleted"]);
    assert_eq!(fixture.reconciler().round().await.expect("a round"), 0, "nothing is left to do");
}

async fn a_platform_that_fails_half_way_is_asked_again(kind: Kind) {
    for (call, when) in [
        (Call::Observe, When::Before),
        (Call::Ensure, When::Before),
        (Call::Ensure, When::After),
        (Call::Start, When::Before),
        (Call::Start, When::After),
    ] {
        let fixture = Fixture::new(kind).await;
        fixture.platform.fail(call, when, unavailable());
        let id = fixture.create("x").await;
        fixture.messages().await;
        fixture.round().await;
        let shown = fixture.show(id).await;
        let is_up = call == Call::Start && when == When::After;
        let begun = if call == Call::Observe { "pending" } else { "initializing" };
        assert_eq!(shown["status"], if is_up { "running" } else { begun }, "{call:?} {when:?}");
        assert_eq!(shown["reason"], "the engine is away", "its owner sees what it waits for");
        assert_eq!(fixture.reconciler().round().await.expect("a round"), 0, "not at once");
        fixture.later(Duration::from_secs(1)).await;
        assert_eq!(fixture.status(id).await, "running", "{call:?} {when:?}");
        assert_eq!(fixture.show(id).await.get("reason"), None);
        assert_eq!(fixture.happenings().await, ["ip_assigned", "started"]);
    }
}

async fn what_cannot_be_is_given_up_with_the_reason(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.create_as(super::fixture::ANN, serde_json::json!({"name": "x", "image": "nowhere/to:find"})).await;
    fixture.messages().await;
    fixture.round().await;
    let shown = fixture.show(id).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&"failed".into(), &"there is no image nowhere/to:find".into()));
    let events = fixture.events().await;
    let [AnyEvent::ContainerFailed(failed)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(failed.reason, "there is no image nowhere/to:find");
    for _ in 0..3 {
        fixture.reconciler().repair().await.expect("a repair");
        fixture.later(Duration::from_secs(3600)).await;
    }
    assert_eq!(fixture.platform.count(Call::Ensure), 1, "only its owner can help");
    fixture.act(id, "start").await.done();
    fixture.round().await;
    assert_eq!(fixture.platform.count(Call::Ensure), 2);
    assert_eq!(fixture.happenings().await, [""; 0], "nothing new");
    fixture.act(id, "stop").await.done();
    fixture.round().await;
    assert_eq!(fixture.status(id).await, "stopped");
}

async fn a_container_that_is_never_ready_fails_and_is_tried_ever_more_seldom(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.platform.never_ready(Some("nothing answers on port 80"));
    let id = fixture.create("x").await;
    fixture.messages().await;
    fixture.round().await;
    let shown = fixture.show(id).await;
    assert_eq!((&shown["status"], &shown["reason"]), (&"failed".into(), &"nothing answers on port 80".into()));
    for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let before = fixture.platform.count(Call::Start);
        fixture.later(Duration::from_secs(pause) - Duration::from_micros(1)).await;
        assert_eq!(fixture.platform.count(Call::Start), before, "{pause} s");
        fixture.later(Duration::from_micros(1)).await;
        assert_eq!(fixture.platform.count(Call::Start), before + 1, "{pause} s");
    }
    assert_eq!(fixture.happenings().await, ["failed"], "told once");
    fixture.platform.never_ready(None);
    fixture.act(id, "start").await.done();
    fixture.round().await;
    assert_eq!(fixture.status(id).await, "running");
    assert_eq!(fixture.happenings().await, ["ip_assigned", "started"]);
}

async fn one_that_ends_by_itself_is_told_and_started_again(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    fixture.messages().await;
    for (round, pause) in [1, 2, 4].into_iter().enumerate() {
        fixture.platform.happen(id, Some(Phase::Failed("its main process ended with 1".to_owned())));
        fixture.reconciler().repair().await.expect("a repair");
        fixture.round().await;
        let shown = fixture.show(id).await;
        let reason = "its main process ended with 1";
        assert_eq!((&shown["status"], &shown["reason"]), (&"failed".into(), &reason.into()), "{round}");
        fixture.later(Duration::from_secs(pause)).await;
        assert_eq!(fixture.status(id).await, "running", "{round}");
        assert_eq!(fixture.happenings().await, ["failed", "ip_assigned", "started"]);
    }
    // It ran for long: the next end is the first again.
    fixture.clock.advance(Duration::from_secs(300));
    fixture.platform.happen(id, Some(Phase::Failed("again".to_owned())));
    fixture.reconciler().repair().await.expect("a repair");
    fixture.round().await;
    fixture.later(Duration::from_secs(1)).await;
    assert_eq!(fixture.status(id).await, "running");
}

async fn one_that_vanishes_is_made_again(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    let mut all = fixture.messages().await;
    fixture.platform.happen(id, None);
    fixture.reconciler().repair().await.expect("a repair");
    fixture.platform.fail(Call::Start, When::Before, unavailable());
    fixture.round().await;
    assert_eq!(fixture.status(id).await, "failed", "nobody is sent there");
    fixture.later(Duration::from_secs(1)).await;
    assert_eq!((fixture.status(id).await, fixture.platform.phase(id)), ("running".to_owned(), Some(Phase::Running)));
    all.extend(fixture.messages().await);
    assert_copied(&fixture, &all).await;
}

async fn what_nobody_knows_is_deleted_from_the_platform(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (id, gone) = (fixture.run("x").await, fixture.run("gone").await);
    fixture.delete(&format!("/compute/containers/{gone}")).await.done();
    fixture.round().await;
    let stranger: ContainerId = "abcdefgh12".parse().expect("an id");
    fixture.platform.happen(stranger, Some(Phase::Running));
    fixture.platform.happen(gone, Some(Phase::Running));
    fixture.platform.fail(Call::Delete, When::Before, unavailable());
    fixture.reconciler().repair().await.expect("a repair");
    fixture.reconciler().repair().await.expect("a repair");
    fixture.round().await;
    assert_eq!(fixture.platform.all(), [id]);
    fixture.platform.fail(Call::List, When::Before, unavailable());
    fixture.reconciler().repair().await.expect_err("nothing is known");
    assert_eq!(fixture.platform.all(), [id]);
}

async fn a_deleted_container_is_removed_however_often_that_fails(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    fixture.delete(&format!("/compute/containers/{id}")).await.done();
    fixture.messages().await;
    for when in [When::Before, When::After, When::Before] {
        fixture.platform.fail(Call::Delete, when, unavailable());
    }
    for pause in [0, 1, 2, 4] {
        fixture.later(Duration::from_secs(pause)).await;
    }
    assert_eq!(fixture.platform.all(), []);
    assert_eq!(fixture.platform.count(Call::Delete), 4);
    assert_eq!(fixture.happenings().await, [""; 0]);
    assert_eq!(fixture.reconciler().round().await.expect("a round"), 0);
}

/// Sees to a container, and does `change` while the platform is asked about it.
async fn visit_and(fixture: &Fixture, id: ContainerId, change: impl Future<Output = ()>) {
    let reconciler = fixture.reconciler();
    let (asked, visit) = (fixture.platform.made(), reconciler.visit(id));
    let mut visit = std::pin::pin!(visit);
    tokio::select! {
        biased;
        _ = &mut visit => panic!("it asks the platform first"),
        () = asked => {}
    }
    change.await;
    visit.await.expect("a visit");
    fixture.round().await;
}

async fn a_change_of_mind_in_the_middle_wins(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for (begin, change, status, phase) in [
        ("start", "stop", "stopped", Phase::Stopped),
        ("stop", "start", "running", Phase::Running),
        ("hibernate", "start", "running", Phase::Running),
        ("hibernate", "stop", "stopped", Phase::Stopped),
    ] {
        let id = fixture.run("x").await;
        if begin == "start" {
            fixture.act(id, "stop").await.done();
            fixture.round().await;
        }
        fixture.act(id, begin).await.done();
        visit_and(&fixture, id, async { fixture.act(id, change).await.done() }).await;
        assert_eq!((fixture.status(id).await.as_str(), fixture.platform.phase(id)), (status, Some(phase)), "{begin}");
    }
    let id = fixture.create("gone").await;
    let delete = async { fixture.delete(&format!("/compute/containers/{id}")).await.done() };
    visit_and(&fixture, id, delete).await;
    assert_eq!(fixture.platform.phase(id), None, "made and removed");
    assert_copied(&fixture, &fixture.messages().await).await;
}

async fn it_runs_by_itself_and_stops_when_told(kind: Kind) {
    let mut config = config();
    config.reconcile.concurrent = 3;
    config.reconcile.first_pause = Duration::ZERO;
    let fixture = Fixture::with(kind, config).await;
    let stranger: ContainerId = "abcdefgh12".parse().expect("an id");
    fixture.platform.happen(stranger, Some(Phase::Running));
    fixture.platform.fail(Call::Start, When::Before, PlatformError::Unavailable("once".to_owned()));
    let (stop, mut changes) = (CancellationToken::new(), fixture.service().changes());
    let running = tokio::spawn(fixture.compute.clone().run(stop.clone()));
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(fixture.create(&format!("c{number}")).await);
    }
    let wait_until = async |ids: &[ContainerId], status: &str, changes: &mut tokio::sync::broadcast::Receiver<_>| {
        for id in ids {
            while fixture.status(*id).await != status {
                let change = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await;
                change.expect("a change in time").expect("a change");
            }
        }
    };
    wait_until(&ids, "running", &mut changes).await;
    fixture.platform.happen(ids[0], Some(Phase::Failed("it ended".to_owned())));
    wait_until(&ids[..1], "failed", &mut changes).await;
    // The clock stands still, and no pause is to be waited for.
    wait_until(&ids[..1], "running", &mut changes).await;
    assert!(!fixture.platform.all().contains(&stranger));
    stop.cancel();
    running.await.expect("it ends");
}
