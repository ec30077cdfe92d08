use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;

use super::scene::{Scene, id, record};
use crate::containers::keeper::KeeperError;
use crate::containers::wake::MAX_HELD_PER_CONTAINER;
use crate::containers::{Record, Timing, Woken};
use crate::live::Status;

const LONG: Duration = Duration::from_secs(60);

fn asleep(timing: Timing) -> Scene {
    let scene = Scene::with(timing, Duration::ZERO);
    scene.hear(record(1, 1, Status::Hibernated, 9));
    scene
}

fn quick() -> Timing {
    Timing { probe_every: Duration::from_millis(1), first_pause: Duration::from_millis(1), ..Timing::default() }
}

/// Requests for the first container, which wait.
fn requests(scene: &Scene, count: usize) -> Vec<tokio::task::JoinHandle<Woken>> {
    let wake = |_| {
        let wakes = scene.containers.wakes().clone();
        tokio::spawn(async move { wakes.wake(id(1), LONG).await })
    };
    (0..count).map(wake).collect()
}

async fn outcomes(requests: Vec<tokio::task::JoinHandle<Woken>>) -> Vec<Woken> {
    let all = tokio::time::timeout(Duration::from_secs(20), join_all(requests)).await.expect("outcomes");
    all.into_iter().map(|outcome| outcome.expect("a request")).collect()
}

#[tokio::test]
async fn one_order_wakes_all_who_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scene = asleep(quick());
    scene.script.answer(Err(KeeperError::Unavailable("restarting".to_owned())));
    let requests = requests(&scene, 50);
    scene.script.was_asked(2).await;
    assert!(scene.containers.wakes().is_waking(id(1)));
    scene.hear(record(1, 2, Status::Starting, 9));
    scene.hear(record(1, 3, Status::Running, listener.local_addr().unwrap().port()));
    assert_eq!(outcomes(requests).await, vec![Woken::Up; 50]);
    assert_eq!(scene.script.woken().len(), 2, "the first was not taken");
    assert!(!scene.containers.wakes().is_waking(id(1)));
}

#[tokio::test]
async fn running_is_not_yet_answering() {
    // A port that is free again once it is known.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let scene = asleep(quick());
    let requests = requests(&scene, 2);
    scene.script.was_asked(1).await;
    scene.hear(record(1, 2, Status::Running, port));
    let early = scene.containers.wakes().join(id(1), Duration::from_millis(50)).await;
    assert_eq!(early, Some(Woken::NotYet));
    let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    assert_eq!(outcomes(requests).await, [Woken::Up, Woken::Up]);
    assert_eq!(scene.containers.wakes().join(id(1), LONG).await, None, "nothing to wait for");
}

#[tokio::test]
async fn no_more_wait_than_there_is_room_for() {
    let scene = asleep(quick());
    let waiting = requests(&scene, MAX_HELD_PER_CONTAINER);
    scene.script.was_asked(1).await;
    while scene.containers.metrics().held.get() < MAX_HELD_PER_CONTAINER as i64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.containers.wakes().wake(id(1), LONG).await, Woken::Full);
    assert_eq!(scene.containers.metrics().turned_away.get(), 1);
    // Whoever leaves makes room.
    waiting[0].abort();
    while scene.containers.metrics().held.get() == MAX_HELD_PER_CONTAINER as i64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.containers.wakes().wake(id(1), Duration::ZERO).await, Woken::NotYet);
    scene.hear(record(1, 2, Status::Failed, 9));
    assert!(outcomes(waiting.into_iter().skip(1).collect()).await.iter().all(|outcome| *outcome == Woken::Otherwise));
    assert_eq!(scene.containers.metrics().held.get(), 0);
}

#[tokio::test]
async fn what_compute_refuses_is_told() {
    let scene = asleep(quick());
    scene.script.answer(Err(KeeperError::Refused("the quota is used up".to_owned())));
    let outcome = scene.containers.wakes().wake(id(1), LONG).await;
    assert!(matches!(&outcome, Woken::Refused(why) if why.contains("the quota is used up")), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_becomes_ready_is_given_up() {
    let scene = asleep(Timing::default());
    let began = tokio::time::Instant::now();
    let patience = scene.containers.wakes().longest_wait();
    assert_eq!(scene.containers.wakes().wake(id(1), patience).await, Woken::TooLate);
    assert_eq!(began.elapsed(), Timing::default().longest_wake);
    assert_eq!(scene.script.woken(), [id(1)]);
    // The next request tries again.
    let _next = requests(&scene, 1);
    scene.script.was_asked(2).await;
}

/// A request that was on its way when its container was put to sleep must not wait for somebody else to come.
#[tokio::test]
async fn whoever_is_in_a_container_that_falls_asleep_wakes_it() {
    let scene = Scene::with(quick(), Duration::ZERO);
    let running = |number| record(number, 1, Status::Running, 80);
    (1..=2).for_each(|number| assert_eq!(scene.hear(running(number)), 1));
    let (used, idle) = (scene.live(1).unwrap(), scene.live(2).unwrap());
    let visit = used.backend().expect("a container").visit();
    // The one that nobody uses first: were it woken as well, it would be asked for first.
    for number in [2, 1] {
        scene.hear(record(number, 2, Status::Hibernated, 80));
    }
    scene.script.was_asked(1).await;
    assert_eq!(scene.script.woken(), [id(1)]);
    scene.hear(record(1, 3, Status::Running, 80));
    assert!(!used.retired().is_cancelled() && !idle.retired().is_cancelled(), "it slept, and lives");
    drop(visit);
    scene.hear(record(1, 4, Status::Hibernated, 80));
    scene.hear(Record { address: None, ..record(1, 5, Status::Hibernated, 80) });
    let ended = used.retired().cancelled();
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("whoever is stopped in their sleep is gone");
}

#[tokio::test]
async fn who_knocks_at_another_port_is_told_that_it_runs() {
    // A port that is free again once it is known: nobody answers for the host name.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let scene = asleep(quick());
    let wakes = scene.containers.wakes().clone();
    let roused = tokio::spawn(async move { wakes.rouse(id(1), LONG).await });
    scene.script.was_asked(1).await;
    scene.hear(record(1, 2, Status::Starting, port));
    assert!(!roused.is_finished());
    scene.hear(Record { address: None, ..record(1, 3, Status::Running, port) });
    scene.hear(record(1, 4, Status::Running, port));
    assert_eq!(outcomes(vec![roused]).await, [Woken::Up]);
    assert_eq!(scene.containers.wakes().rouse(id(1), LONG).await, Woken::Up, "nobody is asked for one that runs");
    assert_eq!(scene.script.woken().len(), 1);
    scene.hear(record(1, 5, Status::Stopped, port));
    assert_eq!(scene.containers.wakes().rouse(id(1), LONG).await, Woken::Otherwise);
    // Those who woke it for its host name may still be at it.
    while scene.containers.wakes().is_waking(id(1)) {
        tokio::task::yield_now().await;
    }
    scene.hear(record(1, 6, Status::Hibernated, port));
    scene.script.answer(Err(KeeperError::Refused("no".to_owned())));
    let refused = Woken::Refused(KeeperError::Refused("no".to_owned()).to_string());
    assert_eq!(scene.containers.wakes().rouse(id(1), LONG).await, refused);
}

/// A login that comes right after its owner's order to start.
#[tokio::test]
async fn who_comes_to_one_that_is_down_waits_if_compute_is_starting_it() {
    let scene = Scene::with(quick(), Duration::ZERO);
    scene.hear(record(1, 1, Status::Stopped, 80));
    let wakes = scene.containers.wakes();
    let starting = || {
        let wakes = wakes.clone();
        tokio::spawn(async move { wakes.starting(id(1), LONG).await })
    };
    let refused = KeeperError::Refused("its owner has to start it".to_owned());
    scene.script.answer(Err(refused.clone()));
    assert_eq!(outcomes(vec![starting()]).await, [Woken::Refused("its owner has to start it".to_owned())]);
    scene.script.answer(Err(KeeperError::Unavailable("away".to_owned())));
    assert_eq!(outcomes(vec![starting()]).await, [Woken::NotYet]);
    let waiting = starting();
    scene.script.was_asked(3).await;
    // Of something else.
    scene.hear(record(2, 1, Status::Running, 80));
    scene.hear(record(1, 2, Status::Starting, 80));
    scene.hear(record(1, 3, Status::Running, 80));
    assert_eq!(outcomes(vec![waiting]).await, [Woken::Up]);
    scene.hear(record(1, 4, Status::Stopped, 80));
    let failing = starting();
    scene.script.was_asked(4).await;
    scene.hear(record(1, 5, Status::Failed, 80));
    assert_eq!(outcomes(vec![failing]).await, [Woken::Otherwise]);
    assert_eq!(wakes.starting(id(1), Duration::from_millis(1)).await, Woken::TooLate);
}
