//! Nothing works for a while, and no event is to blame.

use super::*;

on_each_database! {
    while_a_dependency_is_away_events_wait_in_order,
    a_retry_that_meets_an_outage_is_not_counted,
}

/// An outage that is longer than all tries together kills no event, and nothing overtakes.
async fn while_a_dependency_is_away_events_wait_in_order(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "a"]).await;
    fixture.fails("1", vec![down(); 20]);
    for _ in 0..20 {
        assert_eq!(fixture.round().await, [Down; 3]);
        assert_eq!(fixture.unanswered().await, 3);
        fixture.clock.advance(DOWN_PAUSE);
    }
    assert_eq!(fixture.round().await, [Handled; 3]);
    assert_eq!((fixture.effects().await, fixture.unanswered().await), (vec!["1".into(), "2".into(), "3".into()], 0));
    assert_eq!(fixture.dead().await, []);
}

async fn a_retry_that_meets_an_outage_is_not_counted(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a"]).await;
    let mut failures = vec![transient(), transient(), transient(), transient()];
    failures.extend(vec![down(); 20]);
    fixture.fails("1", failures);
    for _ in 0..4 {
        assert_eq!(fixture.round().await, [Retried]);
        fixture.clock.advance(Duration::from_secs(30));
    }
    for _ in 0..20 {
        assert_eq!(fixture.round().await, [Down]);
        fixture.clock.advance(DOWN_PAUSE);
    }
    assert_eq!(fixture.round().await, [Handled]);
}

/// A database without room fails every event, and is to blame for it.
#[tokio::test]
async fn a_full_database_kills_no_event() {
    let mut fixture = Fixture::new(Kind::Sqlite).await;
    let mut large = conformance::message("1", "user.a.updated");
    large.payload = Bytes::from(vec![7; 100_000]);
    assert!(fixture.bus.publish(&[large]).await.1.is_none());
    let pages = sqlx::query_scalar::<_, i64>("PRAGMA page_count").fetch_one(fixture.database.writer());
    let limit = format!("PRAGMA max_page_count = {}", pages.await.expect("a number"));
    for _ in 0..10 {
        // Holds for the one connection that writes, which does not outlive this.
        let limit = sqlx::raw_sql(sqlx::AssertSqlSafe(limit.clone())).execute(fixture.database.writer());
        limit.await.expect("a limit");
        assert_eq!(fixture.round().await, [Down]);
        fixture.clock.advance(DOWN_PAUSE);
    }
    assert_eq!(fixture.round().await, [Handled]);
    assert_eq!(fixture.effects().await, ["1"]);
}
