use std::sync::Arc;
use std::time::Duration;

use edd_events::database::{Database, Kind};
use sqlx::Row;
use tokio::sync::watch;

use super::scene::{ANN, NOW, Scene, id, record, user};
use crate::containers::activity::Reporter;
use crate::containers::store;
use crate::live::{Status, Usage};
use crate::scratch::{Scratch, on_each_database};

const ONE: Usage = Usage { requests: 1, bytes_in: 20, bytes_out: 300 };
const DAY: i64 = NOW / 86_400_000_000;

on_each_database!(usage_adds_up_and_waits_for_the_database, old_usage_goes);

async fn rows(database: &Database) -> Vec<(String, i64, [i64; 3])> {
    let select =
        "SELECT container_id, day, requests, bytes_in, bytes_out FROM tenant_usage ORDER BY day, container_id LIMIT 99";
    let rows = sqlx::query(select).fetch_all(database.reader()).await.expect("rows");
    let row = |row: &sqlx::any::AnyRow| {
        (row.get("container_id"), row.get("day"), [row.get("requests"), row.get("bytes_in"), row.get("bytes_out")])
    };
    rows.iter().map(row).collect()
}

async fn usage_adds_up_and_waits_for_the_database(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&[store::STEP]).await;
    let scene = Scene::new();
    scene.hear(record(1, 1, Status::Running, 80));
    scene.hear(record(2, 1, Status::Running, 80));
    let Scene { router, containers, ledger, script, clock, .. } = scene;
    let used = |number: u32| {
        let snapshot = router.snapshot();
        let visit = snapshot.containers.get(id(number)).and_then(|live| live.backend()).expect("a container").visit();
        visit.count(ONE);
        visit
    };
    let there = watch::Sender::new(None);
    let keeper: Arc<dyn crate::containers::keeper::Keeper> = script.clone();
    let mut reporter = Reporter::new(ledger, containers, keeper, there.subscribe(), Arc::new(clock.clone()));
    drop((used(1), used(1), used(2)));
    reporter.report().await;
    assert_eq!(rows(&database).await, []);
    there.send_replace(Some(database.clone()));
    let stream = used(2);
    reporter.report().await;
    let of = |number: u32, day, times: i64| (id(number).to_string(), day, [times, 20 * times, 300 * times]);
    assert_eq!(rows(&database).await, [of(1, DAY, 2), of(2, DAY, 2)]);
    clock.advance(Duration::from_secs(24 * 3600));
    reporter.report().await;
    stream.count(ONE);
    drop(stream);
    reporter.report().await;
    assert_eq!(rows(&database).await, [of(1, DAY, 2), of(2, DAY, 2), of(2, DAY + 1, 1)]);
    let told = script.active.lock().expect("no panic").clone();
    assert_eq!(told, [vec![id(1), id(2)], vec![id(2)], vec![id(2)], vec![id(2)]], "a stream is told of while it lasts");
}

async fn old_usage_goes(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&[store::STEP]).await;
    let account = |day| store::Account { owner: user(ANN), container: id(1), day };
    store::add_all(&database, &[1, 2, 3].map(|day| (account(day), ONE))).await.expect("rows");
    assert_eq!(store::prune(&database, 3).await.expect("a removal"), 2);
    assert_eq!(rows(&database).await.iter().map(|row| row.1).collect::<Vec<_>>(), [3]);
}
