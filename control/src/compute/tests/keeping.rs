//! What gateways say and ask, and containers that nobody uses.

use std::time::Duration;

use edd_events::database::Kind;
use edd_proto::ContainerId;
use http::Method;
use serde_json::json;

use super::fixture::{Fixture, config};
use super::scripted::Call;
use crate::compute::platform::Phase;
use crate::compute::reconciler::Reconciler;
use crate::scratch::on_each_database;

on_each_database![
    a_container_that_nobody_uses_sleeps_and_is_woken_by_who_comes,
    an_owner_says_when_it_sleeps,
    who_comes_just_as_it_falls_asleep_wakes_it,
    what_sleeps_for_long_is_stopped,
    waking_says_what_cannot_be_woken,
    a_restart_forgets_nobody_who_was_active,
    reports_of_use_are_bounded,
    a_report_of_use_holds_however_short_the_timeout,
];

const HOUR: Duration = Duration::from_secs(3600);

async fn wake(fixture: &Fixture, id: impl std::fmt::Display) -> u16 {
    fixture.fleet(Method::POST, &format!("/api/containers/{id}/wake")).send().await.status
}

/// Reports use. Which containers are woken by it.
async fn active(fixture: &Fixture, ids: &[ContainerId]) -> serde_json::Value {
    let body = json!({"container_ids": ids});
    let answer = fixture.fleet(Method::POST, "/api/containers/activity").json(&body).send().await.ok();
    assert_eq!(answer["status"], "ok");
    answer["woken"].clone()
}

/// Lets time go by for one who watches, who then puts to sleep what is idle.
async fn idle(fixture: &Fixture, watcher: &Reconciler, by: Duration) {
    fixture.clock.advance(by);
    watcher.upkeep().await.expect("upkeep");
    watcher.round().await.expect("a round");
}

async fn a_container_that_nobody_uses_sleeps_and_is_woken_by_who_comes(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let watcher = fixture.reconciler();
    let (id, used) = (fixture.run("x").await, fixture.run("used").await);
    fixture.messages().await;
    idle(&fixture, &watcher, HOUR - Duration::from_secs(1)).await;
    assert_eq!(fixture.happenings().await, [""; 0]);
    assert_eq!(active(&fixture, &[used]).await, json!(null));
    idle(&fixture, &watcher, Duration::from_secs(1)).await;
    assert_eq!((fixture.status(id).await, fixture.platform.phase(id)), ("hibernated".to_owned(), Some(Phase::Paused)));
    assert_eq!(fixture.status(used).await, "running");
    assert_eq!(fixture.happenings().await, ["hibernated"]);
    assert_eq!(wake(&fixture, id).await, 202);
    assert_eq!(fixture.status(id).await, "hibernated", "until it runs");
    fixture.round().await;
    assert_eq!((fixture.status(id).await, fixture.platform.phase(id)), ("running".to_owned(), Some(Phase::Running)));
    assert_eq!(fixture.happenings().await, ["woken"]);
    idle(&fixture, &watcher, HOUR - Duration::from_secs(1)).await;
    assert_eq!(fixture.status(id).await, "running", "whoever woke it uses it");
}

async fn an_owner_says_when_it_sleeps(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let watcher = fixture.reconciler();
    let (soon, never) = (fixture.run("soon").await, fixture.run("never").await);
    fixture.put(&format!("/compute/containers/{soon}/idle"), json!({"idle_timeout_s": 60})).await.done();
    fixture.put(&format!("/compute/containers/{never}/idle"), json!({"idle_timeout_s": 0})).await.done();
    idle(&fixture, &watcher, Duration::from_secs(60)).await;
    assert_eq!(fixture.status(soon).await, "hibernated");
    idle(&fixture, &watcher, 1000 * HOUR).await;
    assert_eq!(fixture.status(never).await, "running");
}

async fn who_comes_just_as_it_falls_asleep_wakes_it(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let watcher = fixture.reconciler();
    let (idler, told) = (fixture.run("idler").await, fixture.run("told").await);
    fixture.put(&format!("/compute/containers/{told}/idle"), json!({"idle_timeout_s": 0})).await.done();
    fixture.act(told, "hibernate").await.done();
    idle(&fixture, &watcher, HOUR).await;
    assert_eq!(active(&fixture, &[idler, told]).await, json!([idler]));
    assert_eq!(active(&fixture, &[idler, told]).await, json!(null), "it is to run");
    fixture.round().await;
    assert_eq!(fixture.status(idler).await, "running");
    assert_eq!(fixture.status(told).await, "hibernated", "its owner said so");
}

async fn what_sleeps_for_long_is_stopped(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    fixture.act(id, "hibernate").await.done();
    fixture.round().await;
    fixture.messages().await;
    fixture.later(Duration::from_secs(1799)).await;
    assert_eq!(fixture.platform.phase(id), Some(Phase::Paused));
    fixture.later(Duration::from_secs(1)).await;
    assert_eq!((fixture.status(id).await, fixture.platform.phase(id)), ("hibernated".to_owned(), Some(Phase::Stopped)));
    assert_eq!(fixture.happenings().await, ["hibernated"], "it has no address now");
    assert_eq!(wake(&fixture, id).await, 202);
    fixture.round().await;
    assert_eq!(fixture.happenings().await, ["ip_assigned", "woken"]);
    let other = fixture.run("y").await;
    fixture.platform.cannot_pause();
    fixture.act(other, "hibernate").await.done();
    fixture.round().await;
    assert_eq!(fixture.platform.phase(other), Some(Phase::Stopped), "where there is no pause");
    assert_eq!(fixture.status(other).await, "hibernated");
    assert_eq!(fixture.platform.count(Call::Pause), 1);
}

async fn waking_says_what_cannot_be_woken(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.create("x").await;
    assert_eq!(wake(&fixture, id).await, 202, "it is about to run");
    fixture.round().await;
    assert_eq!(wake(&fixture, id).await, 202);
    fixture.act(id, "stop").await.done();
    assert_eq!(wake(&fixture, id).await, 409);
    fixture.act(id, "wake").await.refused(409);
    fixture.act(id, "hibernate").await.refused(409);
    assert_eq!((wake(&fixture, "abcdefgh12").await, wake(&fixture, "nonsense").await), (404, 404));
    fixture.delete(&format!("/compute/containers/{id}")).await.done();
    assert_eq!(wake(&fixture, id).await, 404);
    fixture.round().await;
    assert_eq!(fixture.platform.count(Call::Start), 1);
}

async fn a_restart_forgets_nobody_who_was_active(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.run("x").await;
    // Nobody reported use while the service was away.
    fixture.clock.advance(5 * HOUR);
    let watcher = fixture.reconciler();
    idle(&fixture, &watcher, HOUR - Duration::from_secs(1)).await;
    assert_eq!(fixture.status(id).await, "running");
    idle(&fixture, &watcher, Duration::from_secs(1)).await;
    assert_eq!(fixture.status(id).await, "hibernated");
}

async fn reports_of_use_are_bounded(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.create("x").await;
    let stranger = "abcdefgh12".parse().expect("an id");
    let most: Vec<ContainerId> = std::iter::repeat_n(stranger, 9_999).chain([id]).collect();
    assert_eq!(active(&fixture, &most).await, json!(null));
    let post = |body: serde_json::Value| fixture.fleet(Method::POST, "/api/containers/activity").json(&body).send();
    let more = [&most[..], &[id]].concat();
    let refused = post(json!({"container_ids": more})).await.refused(400);
    assert!(refused.contains("at most 10000"), "{refused}");
    assert!(post(json!({"container_ids": ["no id"]})).await.refused(400).contains("container_ids[0]"));
    post(json!({"container_ids": []})).await.done();
}

/// A gateway that says what is used every ten seconds is not late, and may be cut off once.
async fn a_report_of_use_holds_however_short_the_timeout(kind: Kind) {
    let mut config = config();
    config.sleep.idle_timeout = Duration::from_secs(3);
    let fixture = Fixture::with(kind, config).await;
    let watcher = fixture.reconciler();
    let (used, unused) = (fixture.run("used").await, fixture.run("unused").await);
    for _ in 0..4 {
        assert_eq!(active(&fixture, &[used]).await, json!(null));
        idle(&fixture, &watcher, Duration::from_secs(20)).await;
        assert_eq!(fixture.status(used).await, "running");
    }
    assert_eq!(fixture.status(unused).await, "hibernated");
    idle(&fixture, &watcher, Duration::from_secs(10)).await;
    assert_eq!(fixture.status(used).await, "hibernated");
}
