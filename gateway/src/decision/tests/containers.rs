//! What becomes of requests to containers' hosts, by what their containers do.

use super::*;
use crate::containers::Record;
use crate::containers::tests::scene::{Scene, record};
use crate::live::Status;

const HOST: &str = "c000000001.compute.cloud.localhost";

/// The decision about the first container's page in plain HTTP, or over HTTPS, in words.
fn decided(scene: &Scene, https: bool) -> String {
    let url = format!("{HOST}/page");
    let tls = if https { tls(HOST, false) } else { None };
    let outcome = run(&Request { tls, ..get(&url) }, &scene.router.snapshot());
    match outcome.decision {
        Decision::Forward(forward) => format!("to {}", forward.route.pick(0, 0).unwrap()),
        Decision::Wake(live) => format!("wake {}", live.backend().unwrap().container()),
        Decision::Answer(answer) => format!("{} {}", answer.status.as_u16(), answer.reason.as_str()),
    }
}

#[test]
fn each_state_has_its_answer_and_none_is_200() {
    let with = |told: Option<Record>| {
        let scene = Scene::new();
        told.map(|record| scene.hear(record));
        scene
    };
    let none = with(None);
    assert_eq!(decided(&none, false), "503 containers_unknown");
    none.containers.set_complete();
    assert_eq!(decided(&none, false), "404 no_container");
    for (status, expected) in [
        (Status::Starting, "503 container_starting"),
        (Status::Running, "to 127.0.0.1:8000"),
        (Status::Stopped, "503 container_stopped"),
        (Status::Failed, "503 container_failed"),
        (Status::Hibernated, "wake c000000001"),
    ] {
        let scene = with(Some(record(1, 1, status, 8000)));
        assert_eq!(decided(&scene, false), expected);
        assert_eq!(decided(&scene, true), expected);
    }
    let nowhere = with(Some(Record { address: None, ..record(1, 9, Status::Running, 8000) }));
    assert_eq!(decided(&nowhere, false), "503 container_starting", "it has no address yet");
}

#[test]
fn https_is_what_the_owner_makes_of_it() {
    let scene = Scene::new();
    let running = |version| record(1, version, Status::Running, 8000);
    scene.hear(Record { https_enabled: false, ..running(1) });
    assert_eq!(
        (decided(&scene, false), decided(&scene, true)),
        ("to 127.0.0.1:8000".into(), "403 https_disabled".into())
    );
    scene.hear(Record { redirect_to_https: true, ..running(2) });
    assert_eq!((decided(&scene, false), decided(&scene, true)), ("301 redirected".into(), "to 127.0.0.1:8000".into()));
    scene.hear(Record { redirect_to_https: true, https_enabled: false, ..running(3) });
    assert_eq!(decided(&scene, false), "to 127.0.0.1:8000", "nobody is sent where nothing answers");
    let asleep = Scene::new();
    asleep.hear(Record { redirect_to_https: true, ..record(1, 4, Status::Hibernated, 8000) });
    assert_eq!(decided(&asleep, false), "301 redirected", "a redirect wakes nobody");
}

#[test]
fn a_route_for_the_very_host_wins_and_a_wider_one_does_not() {
    let scene = Scene::new();
    let with = |hosts: &[&str]| {
        let mut all = Snapshot::clone(&scene.router.snapshot());
        all.table = snapshot(hosts.iter().map(|host| route(host, "/")).collect()).table;
        all
    };
    let reason = |snapshot: &Snapshot, host: &str| run(&get(&format!("{host}/")), snapshot).reason();
    let taken = |snapshot: &Snapshot, host: &str| {
        run(&get(&format!("{host}/")), snapshot).forward().route.route.host.to_string()
    };
    let unknown = "c000000002.compute.cloud.localhost";
    scene.containers.set_complete();
    scene.hear(record(1, 1, Status::Running, 8000));
    let wide = with(&["*", "*.cloud.localhost"]);
    assert_eq!(taken(&wide, HOST), "*.compute.cloud.localhost", "the container");
    assert_eq!(reason(&wide, unknown), Some(Reason::NoContainer), "not somebody else's site");
    assert_eq!(taken(&wide, "x.cloud.localhost"), "*.cloud.localhost");
    let within = with(&["*.compute.cloud.localhost"]);
    assert_eq!(within.table.len(), 1);
    assert!(run(&get(&format!("{HOST}/")), &within).forward().route.backend().is_some());
    assert!(run(&get(&format!("{unknown}/")), &within).forward().route.backend().is_none());
    let exact = with(&[HOST]);
    assert_eq!(taken(&exact, HOST), HOST);
    assert_eq!(reason(&exact, "cloud.localhost"), Some(Reason::NoRoute));
}
