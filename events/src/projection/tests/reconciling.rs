//! Differences are found, believed when they last, and repaired.

use tokio_util::sync::CancellationToken;

use super::*;

on_each_database! {
    what_is_the_same_is_left_alone,
    every_kind_of_damage_is_repaired,
    what_is_on_its_way_is_no_difference,
    it_repairs_by_itself_and_stops_when_told,
}

async fn synced(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    let messages: Vec<_> = (1..=9).map(|number| fixture.auth.named(number, "ann")).collect();
    fixture.publish(&messages).await;
    fixture.consume().await;
    fixture.synchronizer().round().await.expect("a snapshot");
    fixture
}

fn reconciler(fixture: &Fixture) -> Reconciler {
    Reconciler::new(fixture.synchronizer(), Duration::from_millis(1), Duration::from_millis(1))
}

async fn what_is_the_same_is_left_alone(kind: Kind) {
    let fixture = synced(kind).await;
    let rounds = fixture.status().await.round;
    assert_eq!(reconciler(&fixture).round().await.expect("a verdict"), Verdict::Same);
    let status = fixture.status().await;
    assert_eq!((status.round, status.differences), (rounds, 0));
    assert!(status.reconciled_at.is_some());
}

async fn every_kind_of_damage_is_repaired(kind: Kind) {
    for damage in [
        "UPDATE user_cache SET display_name = 'x' WHERE user_number = 3",
        "UPDATE user_cache SET deleted = 1 WHERE user_number = 3",
        "UPDATE user_cache SET user_number = 30 WHERE user_number = 3",
        "UPDATE user_cache SET version = 0, username = 'x'",
        // Above all that the owner will give for a long time: no snapshot may lower it.
        "UPDATE user_cache SET version = 1000, username = 'x' WHERE user_number = 3",
        "DELETE FROM user_cache WHERE user_number > 4",
        "INSERT INTO user_cache SELECT 'zzz', username, display_name, 99, version, deleted, synced_at, round \
         FROM user_cache WHERE user_number = 3",
    ] {
        let fixture = synced(kind).await;
        fixture.execute(damage).await;
        let verdict = reconciler(&fixture).round().await.expect("a verdict");
        assert!(matches!(verdict, Verdict::Repaired(_)), "{damage}: {verdict:?}");
        assert_eq!(fixture.status().await.differences, 1, "{damage}");
        fixture.assert_converged().await;
        assert_eq!(reconciler(&fixture).round().await.expect("a verdict"), Verdict::Same, "{damage}");
    }
}

/// The owner has committed, and its event is still on its way.
async fn what_is_on_its_way_is_no_difference(kind: Kind) {
    let fixture = synced(kind).await;
    let late = fixture.auth.change(1, None);
    let settle = Duration::from_millis(200);
    let reconciler = Reconciler::new(fixture.synchronizer(), Duration::from_millis(1), settle);
    let stop = CancellationToken::new();
    let consumer = tokio::spawn(fixture.consumer().run(stop.clone()));
    let (verdict, ()) = tokio::join!(reconciler.round(), fixture.publish(std::slice::from_ref(&late)));
    assert_eq!(verdict.expect("a verdict"), Verdict::Same);
    assert_eq!(fixture.status().await.differences, 0);
    fixture.assert_converged().await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, consumer).await.expect("it stops").expect("and does not panic");
}

async fn it_repairs_by_itself_and_stops_when_told(kind: Kind) {
    let fixture = synced(kind).await;
    fixture.execute("DELETE FROM user_cache").await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(reconciler(&fixture).run(stop.clone()));
    let repaired = async {
        while fixture.rows().await.len() < 9 {
            tokio::time::sleep(TIMING.poll_every).await;
        }
    };
    tokio::time::timeout(PATIENCE, repaired).await.expect("a repair");
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
}
