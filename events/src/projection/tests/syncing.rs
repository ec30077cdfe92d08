//! Snapshot and events together, and what makes another snapshot necessary.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::bus::watched::Watched;

on_each_database! {
    an_empty_projection_is_filled_and_ready_once_the_events_before_are_handled,
    a_late_page_undoes_no_event,
    rows_that_the_owner_does_not_know_go_and_wrong_ones_are_put_right,
    without_its_owner_a_projection_takes_events_and_says_what_it_lacks,
    a_consumer_that_fell_behind_retention_makes_another_snapshot_necessary,
    retention_that_passes_between_two_looks_makes_another_snapshot_necessary,
    a_quiet_stream_whose_messages_expire_is_no_loss,
    a_stream_that_was_created_anew_makes_another_snapshot_necessary,
    a_stream_that_went_back_makes_another_snapshot_necessary,
    a_crash_in_the_middle_of_a_snapshot_begins_another,
    an_owner_that_answers_nonsense_changes_nothing,
    what_waits_for_another_try_is_not_covered,
}

async fn an_empty_projection_is_filled_and_ready_once_the_events_before_are_handled(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let mut messages: Vec<_> = (1..=10).map(|number| fixture.auth.named(number, "ann")).collect();
    messages.push(fixture.auth.change(4, None));
    fixture.publish(&messages).await;
    let synchronizer = fixture.synchronizer();
    let before = fixture.status().await;
    assert!(!before.is_ready() && before.needed.is_some());
    let status = synchronizer.round().await.expect("a snapshot");
    fixture.assert_converged().await;
    assert_eq!((status.needed, status.ready_at, status.synced_seq), (None, None, 11), "events up to 11 are due");
    fixture.consume().await;
    let status = synchronizer.round().await.expect("a look");
    assert!(status.is_ready());
    assert_eq!((status.covered_seq, status.round), (11, 2));
    fixture.assert_converged().await;
    // Later starts need no snapshot.
    fixture.auth.state().is_down = true;
    assert!(synchronizer.round().await.expect("a look").is_ready());
}

/// Pages are held on their way while the world goes on, and come late.
async fn a_late_page_undoes_no_event(kind: Kind) {
    for held_page in 0..=2 {
        let fixture = Fixture::new(kind).await;
        let created: Vec<_> = (11..=17).map(|number| fixture.auth.named(number, "ann")).collect();
        fixture.publish(&created).await;
        fixture.consume().await;
        fixture.auth.state().hold_after = Some(held_page);
        let synchronizer = fixture.synchronizer();
        let (synced, ()) = tokio::join!(synchronizer.sync(), async {
            fixture.auth.held.notified().await;
            let later: Vec<_> = (11..=17).step_by(2).map(|number| fixture.auth.change(number, None)).collect();
            let later = later.into_iter().chain([fixture.auth.named(10, "new"), fixture.auth.named(18, "newer")]);
            let later: Vec<_> = later.chain([fixture.auth.named(12, "ben")]).collect();
            fixture.publish(&later).await;
            assert_eq!(fixture.consume().await, vec![Outcome::Handled; later.len()]);
            fixture.auth.go.notify_one();
        });
        let synced = synced.expect("a snapshot");
        assert_eq!(synced.removed, 0, "page {held_page}: what came since the read began stays");
        fixture.assert_converged().await;
    }
}

async fn rows_that_the_owner_does_not_know_go_and_wrong_ones_are_put_right(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let messages: Vec<_> = (1..=9).map(|number| fixture.auth.named(number, "ann")).collect();
    fixture.publish(&messages).await;
    fixture.consume().await;
    let synchronizer = fixture.synchronizer();
    assert_eq!(synchronizer.sync().await.expect("a snapshot"), Synced { read: 9, written: 0, removed: 0 });
    // A restored backup, a hand in the database: ghosts before, between and after, and wrong fields.
    for number in [0, 1, 5, 9] {
        fixture.auth.state().users.remove(uid(number).as_str());
    }
    fixture.execute("UPDATE user_cache SET username = 'eve' WHERE user_number = 3").await;
    fixture.execute("UPDATE user_cache SET deleted = 1 WHERE user_number = 4").await;
    fixture.execute("UPDATE user_cache SET user_number = NULL WHERE user_number = 6").await;
    fixture.execute("DELETE FROM user_cache WHERE user_number = 7").await;
    assert_eq!(synchronizer.sync().await.expect("a snapshot"), Synced { read: 6, written: 4, removed: 3 });
    fixture.assert_converged().await;
    // An owner with nothing at all.
    fixture.auth.state().users.clear();
    assert_eq!(synchronizer.sync().await.expect("a snapshot"), Synced { read: 0, written: 0, removed: 6 });
    fixture.assert_converged().await;
}

async fn without_its_owner_a_projection_takes_events_and_says_what_it_lacks(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.auth.named(1, "ann");
    fixture.auth.state().is_down = true;
    let stop = CancellationToken::new();
    let running = tokio::spawn(fixture.synchronizer().run(stop.clone()));
    let later = [fixture.auth.named(2, "bob"), fixture.auth.named(1, "anna")];
    fixture.publish(&later).await;
    fixture.consume().await;
    assert_eq!(fixture.rows().await.len(), 2, "events have their effect meanwhile");
    let status = async |done: fn(&Status) -> bool| {
        let reached = async {
            loop {
                let status = fixture.status().await;
                if done(&status) {
                    return status;
                }
                tokio::time::sleep(TIMING.poll_every).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("a status")
    };
    let stale = status(|status| status.failure.is_some()).await;
    assert!(!stale.is_ready() && stale.failure.is_some_and(|failure| failure.contains("connection refused")));
    fixture.clock.advance(Duration::from_secs(90));
    let now = crate::clock::Clock::now(&fixture.clock);
    assert_eq!(fixture.status().await.stale_for(now), Some(Duration::from_secs(90)));
    fixture.auth.state().is_down = false;
    let ready = status(Status::is_ready).await;
    assert_eq!((ready.failure, ready.needed, ready.needed_since), (None, None, None));
    fixture.assert_converged().await;
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.expect("it stops").expect("and does not panic");
}

/// Filled, ready, and at the end of the stream.
async fn ready(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    let messages: Vec<_> = (1..=5).map(|number| fixture.auth.named(number, "ann")).collect();
    fixture.publish(&messages).await;
    fixture.consume().await;
    assert!(fixture.synchronizer().round().await.expect("a snapshot").is_ready());
    fixture
}

async fn a_consumer_that_fell_behind_retention_makes_another_snapshot_necessary(kind: Kind) {
    let fixture = ready(kind).await;
    // Nobody consumes for longer than the stream keeps.
    let lost = [fixture.auth.change(1, None), fixture.auth.named(6, "new")];
    fixture.publish(&lost).await;
    fixture.clock.advance(Stream::AUTH.retention() + Duration::from_secs(1));
    fixture.publish(&[fixture.auth.named(2, "bob")]).await;
    // The consumer leaps over the gap before anybody looks.
    assert_eq!(fixture.consume().await, [Outcome::Handled]);
    assert_ne!(fixture.rows().await, fixture.owned());
    fixture.auth.state().is_down = true;
    let synchronizer = fixture.synchronizer();
    for _ in 0..2 {
        synchronizer.round().await.expect_err("no owner");
    }
    let status = fixture.status().await;
    assert_eq!(status.covered_seq, 5, "what follows a gap does not close it");
    assert!(status.needed.as_ref().is_some_and(|why| why.contains("begins at 8 and 5 ")), "{status:?}");
    assert!(status.is_ready(), "old state is served");
    fixture.auth.state().is_down = false;
    let status = synchronizer.round().await.expect("a snapshot");
    assert_eq!((status.needed, status.covered_seq, status.failure), (None, 8, None));
    fixture.assert_converged().await;
    let rounds = status.round;
    assert_eq!(synchronizer.round().await.expect("a look").round, rounds, "once is enough");
}

/// The stream is looked at, then loses what was not handled, and then the consumer is looked at: it has leapt over that.
async fn retention_that_passes_between_two_looks_makes_another_snapshot_necessary(kind: Kind) {
    let fixture = ready(kind).await;
    let lost = [fixture.auth.change(1, None), fixture.auth.named(6, "new")];
    fixture.publish(&lost).await;
    let bus = Arc::new(Watched::holding_looks(fixture.bus.clone()));
    let (database, _, clock) = fixture.parts();
    let parts = (database, bus.clone() as Arc<dyn Bus>, clock);
    let synchronizer = Synchronizer::new(Arc::new(UserCache), SPEC, fixture.auth.clone(), parts, TIMING);
    let (status, ()) = tokio::join!(
        synchronizer.check(),
        bus.before_look(async {
            fixture.clock.advance(Stream::AUTH.retention() + Duration::from_secs(1));
            fixture.publish(&[fixture.auth.named(2, "bob")]).await;
            assert_eq!(fixture.consume().await, [Outcome::Handled]);
        })
    );
    let status = status.expect("a look");
    assert!(status.needed.as_ref().is_some_and(|why| why.contains("begins at 8 and 5 ")), "{status:?}");
    fixture.synchronizer().round().await.expect("a snapshot");
    fixture.assert_converged().await;
}

async fn a_quiet_stream_whose_messages_expire_is_no_loss(kind: Kind) {
    let fixture = ready(kind).await;
    let rounds = fixture.status().await.round;
    fixture.clock.advance(Stream::AUTH.retention() + Duration::from_secs(1));
    fixture.publish(&[fixture.auth.named(2, "bob")]).await;
    fixture.consume().await;
    assert_eq!(fixture.synchronizer().round().await.expect("a look").round, rounds);
    fixture.assert_converged().await;
}

async fn a_stream_that_was_created_anew_makes_another_snapshot_necessary(kind: Kind) {
    for later in [0, 3, 20] {
        let mut fixture = ready(kind).await;
        fixture.auth.change(1, None);
        fixture.recreate_bus("another.db").await;
        // As many messages as before, or more, do not make it the same stream.
        let messages: Vec<_> = (0..later).map(|_| fixture.auth.named(2, "bob")).collect();
        fixture.publish(&messages).await;
        fixture.consume().await;
        let status = fixture.synchronizer().round().await.expect("a snapshot");
        assert_eq!((status.synced_seq, status.covered_seq), (later, later), "numbers begin anew");
        fixture.assert_converged().await;
        fixture.publish(&[fixture.auth.named(3, "eve")]).await;
        assert_eq!(fixture.consume().await, [Outcome::Handled]);
        assert_eq!(fixture.synchronizer().round().await.expect("a look").covered_seq, later + 1);
        fixture.assert_converged().await;
    }
}

async fn a_stream_that_went_back_makes_another_snapshot_necessary(kind: Kind) {
    let fixture = ready(kind).await;
    fixture.auth.change(1, None);
    // As after a restart from a backup: the epoch is the same.
    fixture.execute("UPDATE projections SET covered_seq = 9, synced_seq = 9").await;
    let status = fixture.synchronizer().round().await.expect("a snapshot");
    assert_eq!(status.covered_seq, 5);
    fixture.assert_converged().await;
}

async fn a_crash_in_the_middle_of_a_snapshot_begins_another(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let created: Vec<_> = (1..=7).map(|number| fixture.auth.named(number, "ann")).collect();
    fixture.auth.state().hold_after = Some(1);
    let synchronizer = fixture.synchronizer();
    tokio::select! {
        _ = synchronizer.round() => panic!("the second page is held"),
        () = fixture.auth.held.notified() => {}
    }
    assert_eq!(fixture.rows().await.len(), 3);
    fixture.publish(&created).await;
    let status = fixture.synchronizer().round().await.expect("a snapshot");
    assert_eq!((status.needed, status.round), (None, 3));
    fixture.assert_converged().await;
}

async fn an_owner_that_answers_nonsense_changes_nothing(kind: Kind) {
    let fixture = ready(kind).await;
    #[derive(Debug)]
    struct Reversed(Arc<Auth>);
    #[async_trait]
    impl Owner for Reversed {
        async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
            let mut page = self.0.page(after, most).await?;
            page.entries.reverse();
            Ok(page)
        }

        async fn digest(&self) -> Result<Digest, OwnerError> {
            self.0.digest().await
        }
    }
    let owner = Arc::new(Reversed(fixture.auth.clone()));
    let synchronizer = Synchronizer::new(Arc::new(UserCache), SPEC, owner, fixture.parts(), TIMING);
    let error = synchronizer.sync().await.expect_err("no order");
    assert!(matches!(error, SyncError::Owner(OwnerError::Invalid(_))), "{error}");
    fixture.assert_converged().await;
}

/// An event of a user whom nobody knows by number yet is answered to the bus, and waits in the database.
async fn what_waits_for_another_try_is_not_covered(kind: Kind) {
    let fixture = ready(kind).await;
    let (created, renamed) = (fixture.auth.named(6, "new"), order::without_uid(&fixture.auth.named(6, "newer")));
    fixture.publish(&[renamed, fixture.auth.named(1, "anna")]).await;
    let outcomes = fixture.consume().await;
    assert!(outcomes.len() == 2 && outcomes.contains(&Outcome::Retried), "{outcomes:?}");
    let synchronizer = fixture.synchronizer();
    assert_eq!(synchronizer.round().await.expect("a look").covered_seq, 5);
    fixture.publish(&[created]).await;
    fixture.clock.advance(Duration::from_secs(1));
    let outcomes = fixture.consume().await;
    assert!(outcomes.len() >= 2 && outcomes.contains(&Outcome::Handled), "{outcomes:?}");
    fixture.clock.advance(Duration::from_secs(5));
    fixture.consume().await;
    assert_eq!(synchronizer.round().await.expect("a look").covered_seq, 8);
    fixture.assert_converged().await;
}
