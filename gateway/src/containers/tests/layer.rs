use std::collections::HashSet;
use std::time::Duration;

use super::scene::{ANN, BEN, Scene, id, record, user};
use crate::containers::{Change, Origin, Record};
use crate::live::Status;
use crate::route::Authority;
use crate::table::ports::{PortProtocol, PortRule};

fn gone(number: u32, version: i64) -> Change {
    Change::Gone { id: id(number), version }
}

#[tokio::test]
async fn versions_decide_whatever_comes_first() {
    let scene = Scene::new();
    let events = [
        Change::Is(record(1, 1, Status::Starting, 80)),
        Change::Is(record(1, 2, Status::Running, 80)),
        Change::Is(record(1, 3, Status::Stopped, 80)),
        gone(1, 4),
    ];
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]];
    for (version, order) in orders.into_iter().enumerate() {
        let scene = Scene::new();
        for index in order {
            scene.containers.apply([events[index].clone()], Origin::Event(version as u64));
        }
        assert_eq!(scene.status(1), None, "{order:?}");
    }
    let revision = scene.router.snapshot().revision;
    assert_eq!(scene.hear(record(1, 2, Status::Running, 80)), 1);
    assert_eq!(scene.hear(record(1, 2, Status::Stopped, 80)), 0, "an event of a known version is no news");
    assert_eq!(scene.router.snapshot().revision, revision + 1);
    let corrected = scene.containers.apply([Change::Is(record(1, 2, Status::Stopped, 80))], Origin::Database);
    assert_eq!((corrected, scene.status(1)), (1, Some(Status::Stopped)), "its owner corrected the row");
    let again = scene.containers.apply([Change::Is(record(1, 2, Status::Stopped, 80))], Origin::Database);
    assert_eq!(again, 0);
}

/// What goes on with the first container is cut off within a moment.
async fn ends(scene: &Scene, change: impl FnOnce(&Scene)) {
    let live = scene.live(1).unwrap();
    assert!(!live.retired().is_cancelled());
    change(scene);
    tokio::time::timeout(Duration::from_secs(20), live.retired().cancelled()).await.expect("its streams end");
}

#[tokio::test(start_paused = true)]
async fn streams_end_with_the_run_of_their_container_and_no_other() {
    let drain = Duration::from_secs(10);
    let scene = Scene::with(crate::containers::Timing::default(), drain);
    let running = |version, port| record(1, version, Status::Running, port);
    scene.hear(running(1, 80));
    scene.hear(record(2, 1, Status::Running, 80));
    let other = scene.live(2).unwrap();
    let first = scene.live(1).unwrap();
    scene.hear(Record { https_enabled: false, ..running(2, 81) });
    assert_eq!(first.retired(), scene.live(1).unwrap().retired(), "a setting, or another port, ends nothing");

    let began = tokio::time::Instant::now();
    ends(&scene, |scene| assert_eq!(scene.hear(record(1, 3, Status::Stopped, 81)), 1)).await;
    assert_eq!(began.elapsed(), drain, "they have time");
    scene.hear(running(4, 80));
    assert_ne!(first.retired(), scene.live(1).unwrap().retired());
    let moved = Record { address: Authority::parse("10.0.0.1:80").ok(), ..running(5, 80) };
    ends(&scene, |scene| assert_eq!(scene.hear(moved), 1)).await;

    let began = tokio::time::Instant::now();
    ends(&scene, |scene| assert_eq!(scene.containers.apply([gone(1, 6)], Origin::Event(9)), 1)).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "who deletes it means at once");
    assert!(!other.retired().is_cancelled());
}

#[tokio::test]
async fn with_a_user_go_their_containers_for_good() {
    let scene = Scene::new();
    scene.hear(record(1, 1, Status::Running, 80));
    scene.hear(Record { owner: user(BEN), ..record(2, 1, Status::Running, 80) });
    ends(&scene, |scene| assert_eq!(scene.containers.delete_users([user(ANN)]), 1)).await;
    assert_eq!((scene.status(1), scene.status(2)), (None, Some(Status::Running)));
    scene.hear(record(1, 2, Status::Running, 80));
    assert_eq!(scene.status(1), None, "compute has not heard of it yet");
}

#[tokio::test]
async fn ports_follow_their_container() {
    let scene = Scene::new();
    let rule = PortRule { container: id(1), port: 8000, target_port: 5432, protocol: PortProtocol::Tcp };
    let led = |scene: &Scene| {
        let snapshot = scene.router.snapshot();
        let live = snapshot.ports.match_tcp(8000).map(|(_, live)| live.clone())?;
        Some((live.pick(0, 0)?.to_string(), live.backend()?.status()))
    };
    scene.containers.set_ports([(8000, id(1), Some(rule))]);
    assert_eq!(led(&scene), None, "of a container that is not known yet");
    scene.hear(record(1, 1, Status::Running, 80));
    assert_eq!(led(&scene), Some(("127.0.0.1:5432".to_owned(), Status::Running)));
    let host = scene.live(1).unwrap();
    let port = scene.router.snapshot().ports.match_tcp(8000).map(|(_, live)| live.clone()).unwrap();
    assert_eq!(host.retired(), port.retired(), "they end together");
    scene.hear(record(1, 2, Status::Stopped, 80));
    assert_eq!(led(&scene), Some(("127.0.0.1:5432".to_owned(), Status::Stopped)));
    scene.containers.apply([gone(1, 3)], Origin::Event(1));
    assert_eq!(led(&scene), None);
    scene.hear(record(1, 4, Status::Running, 80));
    scene.containers.set_ports([(8000, id(1), None)]);
    assert_eq!(led(&scene), None);
}

#[tokio::test]
async fn what_the_database_lacks_goes_unless_it_lags_behind_the_stream() {
    let scene = Scene::new();
    for (number, seq) in [(1, 5), (2, 6), (3, 7)] {
        scene.containers.apply([Change::Is(record(number, 1, Status::Running, 80))], Origin::Event(seq));
    }
    let present = HashSet::from([id(1)]);
    assert_eq!(scene.containers.retain(&present, 6), 1, "the second is gone");
    assert_eq!([1, 2, 3].map(|number| scene.status(number).is_some()), [true, false, true]);
    assert_eq!(scene.containers.retain(&present, 7), 1, "and so is the third, now that the database is that far");
}

#[tokio::test]
async fn a_containers_host_is_explained() {
    let scene = Scene::new();
    scene.hear(record(1, 1, Status::Running, 80));
    let explain = |number: u32| {
        let host = format!("{}.compute.cloud.localhost", id(number));
        scene.router.snapshot().explain(&host, "/x").winner.map(|winner| winner.action)
    };
    assert_eq!(explain(1).as_deref(), Some("container c000000001, running, at 127.0.0.1:80"));
    assert_eq!(explain(2), None);
}
