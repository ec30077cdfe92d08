use std::time::Duration;

use super::scene::{Scene, id, record};
use crate::containers::Announced;
use crate::containers::activity::REPORT_EVERY;
use crate::containers::keeper::KeeperError;
use crate::live::Status;

#[tokio::test(start_paused = true)]
async fn compute_is_told_of_who_comes_and_of_no_more_than_it_has_to_know() {
    let scene = Scene::new();
    (1..=2).for_each(|number| assert_eq!(scene.hear(record(number, 1, Status::Running, 80)), 1));
    let announce = async |number| {
        let live = scene.live(number).unwrap();
        scene.containers.presence().announce(live.backend().unwrap().life()).await
    };
    let told = || scene.script.active.lock().unwrap().len();
    let hear = |answer| scene.script.heard.lock().unwrap().push_back(answer);
    hear(Err(KeeperError::Unavailable("restarting".to_owned())));
    assert_eq!((announce(1).await, told()), (Announced::Unheard, 1));
    assert_eq!((announce(1).await, told()), (Announced::Taken, 2), "it has not heard of it before");
    assert_eq!((announce(1).await, told()), (Announced::Taken, 2));
    hear(Ok(vec![id(2)]));
    assert_eq!((announce(2).await, told()), (Announced::Woken, 3), "it was falling asleep");
    tokio::time::advance(REPORT_EVERY - Duration::from_secs(1)).await;
    assert_eq!((announce(1).await, told()), (Announced::Taken, 3));
    tokio::time::advance(Duration::from_secs(2)).await;
    hear(Ok(vec![id(1)]));
    assert_eq!((announce(1).await, told()), (Announced::Woken, 4), "what was told holds no longer");
}
