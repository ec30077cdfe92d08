//! A table built anew beside the one that is read.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::clock::{Clock, micros};

on_each_database! {
    either_source_builds_the_same_table_again_and_again,
    readers_see_a_whole_table_and_live_writes_survive,
    what_was_written_in_the_last_moment_is_carried_over,
    a_crash_leaves_the_table_and_the_next_replay_clears_up,
    a_replay_that_was_overtaken_ends_without_a_trace,
    a_stream_that_does_not_tell_everything_is_no_source,
    a_replay_from_the_owner_is_the_snapshot_that_was_needed,
    an_event_that_a_wrong_row_kept_out_is_in_the_new_table,
    events_that_expire_during_a_replay_end_it,
    broken_events_are_skipped_and_counted,
}

async fn run(replay: &Replay, source: Option<Source>) -> Result<Replayed, ReplayError> {
    replay.run(source, &mut |_| {}).await
}

/// `users` users with some history, handled.
async fn filled(kind: Kind, users: i64) -> Fixture {
    let fixture = Fixture::new(kind).await;
    let created = (1..=users).map(|number| fixture.auth.named(number, "ann")).collect::<Vec<_>>();
    let renamed = (1..=users).step_by(3).map(|number| fixture.auth.named(number, "bob")).collect::<Vec<_>>();
    let deleted = (1..=users).step_by(5).map(|number| fixture.auth.change(number, None)).collect::<Vec<_>>();
    for messages in [created, renamed, deleted] {
        fixture.publish(&messages).await;
    }
    fixture.consume().await;
    fixture.synchronizer().sync().await.expect("a snapshot");
    fixture
}

async fn either_source_builds_the_same_table_again_and_again(kind: Kind) {
    let fixture = filled(kind, 700).await;
    let expected = fixture.rows().await;
    for source in [Some(Source::Stream), Some(Source::Owner), None, Some(Source::Owner)] {
        fixture.execute("UPDATE user_cache SET username = 'eve', version = 1000").await;
        let mut seen = Vec::new();
        let replayed = fixture.replay().run(source, &mut |progress| seen.push(progress)).await.expect("a replay");
        assert_eq!((replayed.source, replayed.skipped), (source.unwrap_or(Source::Stream), 0));
        assert!(seen.len() > 1 && seen.is_sorted_by_key(|progress| progress.read), "{seen:?}");
        assert_eq!(seen.last().map(|progress| progress.read), Some(replayed.read));
        if replayed.source == Source::Stream {
            assert_eq!((replayed.read, seen[0].total), (700 + 234 + 140, Some(700 + 234 + 140)));
        }
        assert_eq!(fixture.rows().await, expected);
        assert_eq!(fixture.shadows().await, [""; 0]);
        fixture.assert_converged().await;
    }
    // Indexes and consumers go with the name.
    fixture.publish(&[fixture.auth.change(2, None)]).await;
    assert_eq!(fixture.consume().await, [Outcome::Handled]);
    fixture.assert_converged().await;
}

/// While pages are read the service's consumer writes, and another process reads through connections of its own.
async fn readers_see_a_whole_table_and_live_writes_survive(kind: Kind) {
    for source in [Source::Stream, Source::Owner] {
        let fixture = filled(kind, 60).await;
        let other = fixture.other_process().await;
        let done = Arc::new(AtomicBool::new(false));
        let reader = tokio::spawn({
            let done = done.clone();
            async move {
                let mut looks = 0;
                while !done.load(Ordering::Relaxed) {
                    let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM user_cache");
                    let count = count.fetch_one(other.reader()).await.expect("a table");
                    assert!(count >= 60, "a part of a table: {count} rows");
                    looks += 1;
                }
                looks
            }
        });
        let mut batches = 0;
        fixture.auth.state().hold_after = Some(2);
        let replay = fixture.replay();
        let mut progress = |_| batches += 1;
        let writes = async {
            if source == Source::Owner {
                fixture.auth.held.notified().await;
            }
            let messages = [fixture.auth.named(61, "new"), fixture.auth.named(2, "late"), fixture.auth.change(3, None)];
            fixture.publish(&messages).await;
            fixture.consume().await;
            fixture.auth.go.notify_one();
        };
        let (replayed, ()) = tokio::join!(replay.run(Some(source), &mut progress), writes);
        replayed.expect("a replay");
        fixture.consume().await;
        fixture.assert_converged().await;
        done.store(true, Ordering::Relaxed);
        assert!(reader.await.expect("only whole tables") > 0);
        assert!(batches > 0);
    }
}

/// What the consumer writes between the last read and the exchange is carried over by its round.
async fn what_was_written_in_the_last_moment_is_carried_over(kind: Kind) {
    let fixture = filled(kind, 5).await;
    let late = fixture.auth.named(2, "late");
    let known = fixture.auth.named(4, "known to the snapshot");
    let shadow = {
        let mut transaction = fixture.database.begin().await.expect("a transaction");
        let entry = fixture.auth.state().users[uid(4).as_str()].clone();
        let table = Table::live(&user_cache::SHAPE);
        table.write(&mut transaction, &[entry], Some(1), 1).await.expect("a row");
        fixture.database.commit(transaction).await.expect("a commit");
        super::shadow::Shadow::create(&fixture.database, &user_cache::SHAPE, 1).await.expect("a shadow")
    };
    let old: Vec<_> = fixture.rows().await.into_iter().map(|entry| Entry { version: 1, ..entry }).collect();
    let mut transaction = shadow.begin(&fixture.clock).await.expect("a transaction");
    shadow.table.write(&mut transaction, &old, None, 1).await.expect("rows");
    fixture.database.commit(transaction).await.expect("a commit");
    fixture.publish(&[late, known]).await;
    assert_eq!(fixture.consume().await, [Outcome::Handled; 2]);
    let mut transaction = shadow.begin(&fixture.clock).await.expect("a transaction");
    assert_eq!(shadow.swap(&mut transaction).await.expect("an exchange"), 2);
    fixture.database.commit(transaction).await.expect("a commit");
    let versions: Vec<_> = fixture.rows().await.iter().map(|entry| entry.version).collect();
    assert_eq!(versions, [1, 2, 1, 3, 1], "also the one whose event changed nothing");
}

async fn a_crash_leaves_the_table_and_the_next_replay_clears_up(kind: Kind) {
    let fixture = filled(kind, 20).await;
    let expected = fixture.rows().await;
    for pages in [0, 1, 5] {
        fixture.auth.state().hold_after = Some(pages);
        let replay = fixture.replay();
        tokio::select! {
            _ = run(&replay, Some(Source::Owner)) => panic!("a page is held"),
            () = fixture.auth.held.notified() => {}
        }
        assert_eq!(fixture.shadows().await.len(), 1);
        assert_eq!(fixture.rows().await, expected);
        // It might be alive.
        let refused = run(&fixture.replay(), None).await.expect_err("another replay");
        assert!(matches!(refused, ReplayError::Running { .. }), "{refused}");
        assert!(refused.to_string().contains("60 s"), "{refused}");
        fixture.synchronizer().round().await.expect("a look");
        assert_eq!(fixture.shadows().await.len(), 1);
        match pages {
            // Set back.
            5 => fixture.clock.set(fixture.clock.now() - micros(Duration::from_secs(61))),
            _ => fixture.clock.advance(Duration::from_secs(61)),
        }
        if pages == 1 {
            // A service that starts drops it.
            fixture.synchronizer().round().await.expect("a look");
            assert_eq!(fixture.shadows().await.len(), 0);
        }
        run(&fixture.replay(), Some(Source::Owner)).await.expect("a replay");
        assert_eq!(fixture.shadows().await.len(), 0);
        fixture.assert_converged().await;
    }
}

/// Two at once, in two processes: one that was taken for dead does not come between.
async fn a_replay_that_was_overtaken_ends_without_a_trace(kind: Kind) {
    let fixture = filled(kind, 20).await;
    fixture.auth.state().hold_after = Some(3);
    let first = fixture.replay();
    let (overtaken, ()) = tokio::join!(run(&first, Some(Source::Owner)), async {
        fixture.auth.held.notified().await;
        fixture.clock.advance(Duration::from_secs(61));
        run(&fixture.replay(), Some(Source::Owner)).await.expect("a replay");
        fixture.auth.go.notify_one();
    });
    assert!(matches!(overtaken, Err(ReplayError::Overtaken { .. })), "{overtaken:?}");
    assert_eq!(fixture.shadows().await.len(), 0);
    fixture.assert_converged().await;
}

async fn a_stream_that_does_not_tell_everything_is_no_source(kind: Kind) {
    let mut fixture = filled(kind, 5).await;
    let expected = fixture.rows().await;
    let replay = fixture.replay();
    fixture.clock.advance(Stream::AUTH.retention() + Duration::from_secs(1));
    fixture.publish(&[fixture.auth.named(2, "late")]).await;
    let refused = run(&replay, Some(Source::Stream)).await.expect_err("a loss");
    assert!(refused.to_string().contains("begins at 9") && refused.to_string().contains("from the owner"), "{refused}");
    let (_, bus, clock) = fixture.parts();
    let orphan = Replay::new(Arc::new(UserCache), Stream::AUTH, None, (fixture.database.clone(), bus, clock));
    let refused = run(&orphan, None).await.expect_err("no owner");
    assert!(matches!(refused, ReplayError::NoOwner { .. }), "{refused}");
    assert_eq!(fixture.rows().await, expected);
    // Without a choice the owner is asked.
    let replayed = run(&replay, None).await.expect("a replay");
    assert_eq!((replayed.source, replayed.read), (Source::Owner, 5));
    fixture.consume().await;
    fixture.assert_converged().await;
    // One that was created anew begins at 1, and still does not tell of all.
    fixture.recreate_bus("another.db").await;
    fixture.publish(&[fixture.auth.named(2, "later")]).await;
    let refused = run(&fixture.replay(), Some(Source::Stream)).await.expect_err("a loss");
    assert!(matches!(refused, ReplayError::WouldLose { rows: 3, .. }), "{refused}");
    assert_eq!(fixture.shadows().await.len(), 0);
    fixture.consume().await;
    fixture.assert_converged().await;
}

async fn a_replay_from_the_owner_is_the_snapshot_that_was_needed(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.publish(&[fixture.auth.named(1, "ann")]).await;
    run(&fixture.replay(), Some(Source::Owner)).await.expect("a replay");
    fixture.auth.state().is_down = true;
    fixture.consume().await;
    assert!(fixture.synchronizer().round().await.expect("no snapshot is needed").is_ready());
}

async fn an_event_that_a_wrong_row_kept_out_is_in_the_new_table(kind: Kind) {
    let fixture = filled(kind, 5).await;
    fixture.execute("UPDATE user_cache SET version = 1000 WHERE user_number = 2").await;
    fixture.auth.state().hold_after = Some(1);
    let replay = fixture.replay();
    let (replayed, ()) = tokio::join!(run(&replay, Some(Source::Owner)), async {
        fixture.auth.held.notified().await;
        fixture.publish(&[fixture.auth.named(2, "late")]).await;
        assert_eq!(fixture.consume().await, [Outcome::Handled]);
        fixture.auth.go.notify_one();
    });
    replayed.expect("a replay");
    fixture.assert_converged().await;
}

async fn events_that_expire_during_a_replay_end_it(kind: Kind) {
    let fixture = filled(kind, 5).await;
    let expected = fixture.rows().await;
    fixture.auth.state().hold_after = Some(1);
    let replay = fixture.replay();
    let (replayed, ()) = tokio::join!(run(&replay, Some(Source::Owner)), async {
        fixture.auth.held.notified().await;
        fixture.publish(&[fixture.auth.named(2, "late")]).await;
        fixture.clock.advance(Stream::AUTH.retention() + Duration::from_secs(1));
        fixture.publish(&[fixture.auth.named(3, "later")]).await;
        fixture.auth.go.notify_one();
    });
    assert!(matches!(replayed, Err(ReplayError::Truncated { first_seq: 10, .. })), "{replayed:?}");
    assert_eq!((fixture.rows().await, fixture.shadows().await), (expected, vec![]));
}

async fn broken_events_are_skipped_and_counted(kind: Kind) {
    let fixture = filled(kind, 3).await;
    let mut broken = fixture.auth.named(2, "late");
    broken.payload = Bytes::from_static(b"{");
    let mut unknown = fixture.auth.named(2, "later");
    unknown.subject = "auth.user.x.promoted".to_owned();
    fixture.publish(&[broken, unknown]).await;
    fixture.consume().await;
    let replayed = run(&fixture.replay(), Some(Source::Stream)).await.expect("a replay");
    assert_eq!(replayed.skipped, 1);
    fixture.publish(&[fixture.auth.named(2, "last")]).await;
    fixture.consume().await;
    fixture.assert_converged().await;
}
