//! Several at one path at once.

use std::time::Duration;

use bytes::Bytes;
use edd_events::database::Kind;
use futures_util::future::join_all;
use futures_util::{StreamExt, pin_mut};

use super::fixture::{ANN, BOB, Fixture, actor, cause, checksum, name, path, read, target};
use crate::scratch::on_each_database;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Replace, Target, Visibility};
use crate::sfs::service::{Place, Service, To};

on_each_database![
    of_two_who_write_one_new_path_one_wins_whole,
    of_two_who_replace_the_same_one_wins,
    who_replaces_anything_replaces_whole,
    a_reader_sees_the_old_bytes_to_the_end,
    a_reader_keeps_what_it_reads,
    a_copy_of_what_is_deleted_at_the_moment_is_whole_or_none,
    a_copy_of_what_is_added_to_at_the_moment_counts_what_it_copied,
    what_is_written_into_a_deleted_namespace_is_refused,
    what_is_written_into_a_namespace_that_is_given_away_is_refused,
];

async fn fixture(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture
}

/// Writes files at once, each by a process of its own; what became of each, and what it wrote.
async fn at_once(fixture: &Fixture, writers: u8, replace: Replace) -> Vec<(Vec<u8>, Result<(), SfsError>)> {
    let mut begun = Vec::new();
    for writer in 0..writers {
        let service: Service = fixture.another().await;
        let bytes = vec![writer; 3000];
        let target = Target { replace, ..target("docs", "a/b") };
        let mut incoming = service.begin(&actor(ANN), target, &cause()).await.expect("begun");
        incoming.write(Bytes::from(bytes.clone())).await.expect("room");
        begun.push((bytes, incoming));
    }
    join_all(begun.into_iter().map(|(bytes, incoming)| async {
        let outcome = incoming.finish(None).await.map(drop);
        (bytes, outcome)
    }))
    .await
}

async fn of_two_who_write_one_new_path_one_wins_whole(kind: Kind) {
    let fixture = fixture(kind).await;
    let outcomes = at_once(&fixture, 4, Replace::Never).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
    assert_eq!((won.len(), lost.len()), (1, 3));
    assert!(lost.iter().all(|(_, outcome)| matches!(outcome, Err(SfsError::Exists { .. }))), "{lost:?}");
    assert_eq!(fixture.read("docs", "a/b").await, won[0].0);
    assert_eq!(fixture.used("docs").await, (3000, 1, 1));
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn of_two_who_replace_the_same_one_wins(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "a/b", b"old").await;
    let outcomes = at_once(&fixture, 4, Replace::Matching(checksum(b"old"))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
    assert_eq!((won.len(), lost.len()), (1, 3));
    assert!(lost.iter().all(|(_, outcome)| matches!(outcome, Err(SfsError::NotAsExpected))), "{lost:?}");
    assert_eq!(fixture.read("docs", "a/b").await, won[0].0);
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn who_replaces_anything_replaces_whole(kind: Kind) {
    let fixture = fixture(kind).await;
    let outcomes = at_once(&fixture, 4, Replace::Always).await;
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()), "{outcomes:?}");
    let last = fixture.read("docs", "a/b").await;
    assert!(outcomes.iter().any(|(bytes, _)| *bytes == last));
    assert_eq!(fixture.used("docs").await, (3000, 1, 1));
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn a_reader_sees_the_old_bytes_to_the_end(kind: Kind) {
    let fixture = fixture(kind).await;
    let (old, new) = (vec![1; 2_000_000], vec![2; 1_000_000]);
    fixture.file("docs", "a", &old).await;
    let opened = fixture.open(ANN, "docs", "a").await.expect("a file");
    let bytes = opened.stream(0..opened.file.size);
    pin_mut!(bytes);
    let mut seen = bytes.next().await.expect("a piece").expect("bytes").to_vec();
    fixture.file("docs", "a", &new).await;
    // Short of the lease of those who read.
    fixture.later(Duration::from_secs(599)).await;
    assert_eq!(fixture.kept().await, (2, 2, 1));
    while let Some(piece) = bytes.next().await {
        seen.extend(piece.expect("bytes"));
    }
    assert!(seen == old);
    assert!(read(&opened).await == old, "also from the beginning");
    assert!(fixture.read("docs", "a").await == new);
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn a_reader_keeps_what_it_reads(kind: Kind) {
    let fixture = fixture(kind).await;
    let old = vec![1; 2_000_000];
    fixture.file("docs", "a", &old).await;
    let opened = fixture.open(ANN, "docs", "a").await.expect("a file");
    fixture.delete(ANN, "docs", "a", false).await.expect("deleted");
    let bytes = opened.stream(0..opened.file.size);
    pin_mut!(bytes);
    let mut seen = Vec::new();
    while let Some(piece) = bytes.next().await {
        seen.extend(piece.expect("bytes"));
        // Far longer than the lease, in all.
        fixture.later(Duration::from_secs(500)).await;
    }
    assert!(seen == old);
    // Not because an open file outlives its name: the object is there.
    assert!(read(&opened).await == old);
    fixture.later(Duration::from_secs(601)).await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn a_copy_of_what_is_deleted_at_the_moment_is_whole_or_none(kind: Kind) {
    let fixture = fixture(kind).await;
    let other = fixture.another().await;
    for round in 0..20 {
        for number in 0..5 {
            fixture.file("docs", &format!("from/{number}"), format!("{round} {number}").as_bytes()).await;
        }
        let (from, to) = (
            Place { namespace: name("docs"), path: path("from") },
            To { namespace: name("docs"), path: path(&format!("to-{round}")), replace: Replace::Never },
        );
        let (who, why) = (actor(ANN), cause());
        let copy = other.copy_entry(&who, &from, &to, &why);
        let (copied, deleted) = tokio::join!(copy, fixture.delete(ANN, "docs", "from", true));
        deleted.expect("deleted");
        match copied {
            Ok(_) => {
                for number in 0..5 {
                    let bytes = fixture.read("docs", &format!("to-{round}/{number}")).await;
                    assert_eq!(bytes, format!("{round} {number}").as_bytes());
                }
            }
            Err(SfsError::NotFound(_) | SfsError::Conflict(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn a_copy_of_what_is_added_to_at_the_moment_counts_what_it_copied(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.namespace(ANN, "copies", Visibility::Private).await;
    let other = fixture.another().await;
    for round in 0..20 {
        fixture.file("docs", "from/0", b"0").await;
        let (from, to) = (
            Place { namespace: name("docs"), path: path("from") },
            To { namespace: name("copies"), path: path(&round.to_string()), replace: Replace::Never },
        );
        let (who, why, more) = (actor(ANN), cause(), vec![1; round]);
        let added = fixture.file("docs", "from/1", &more);
        let (copied, _) = tokio::join!(other.copy_entry(&who, &from, &to, &why), added);
        assert!(matches!(copied, Ok(_) | Err(SfsError::Conflict(_))), "{copied:?}");
    }
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn what_is_written_into_a_deleted_namespace_is_refused(kind: Kind) {
    let fixture = fixture(kind).await;
    let mut incoming = fixture.service.begin(&actor(ANN), target("docs", "a"), &cause()).await.expect("begun");
    incoming.write(Bytes::from_static(b"bytes")).await.expect("room");
    fixture.service.delete_namespace(&actor(ANN), &name("docs"), &cause()).await.expect("deleted");
    // Also if there is one of that name again.
    fixture.namespace(ANN, "docs", Visibility::Public).await;
    incoming.write(Bytes::from_static(b" more")).await.expect("room");
    let refused = incoming.finish(None).await.expect_err("gone");
    assert!(matches!(refused, SfsError::NotFound("namespace")), "{refused}");
    assert_eq!(fixture.paths("docs").await, Vec::<String>::new());
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn what_is_written_into_a_namespace_that_is_given_away_is_refused(kind: Kind) {
    let fixture = fixture(kind).await;
    let mut incoming = fixture.service.begin(&actor(ANN), target("docs", "a"), &cause()).await.expect("begun");
    incoming.write(Bytes::from_static(b"bytes")).await.expect("room");
    let admin = actor(super::fixture::ROOT).admin.expect("an administrator");
    fixture.service.reassign(admin, &name("docs"), actor(BOB).owner, &cause()).await.expect("given");
    let refused = incoming.finish(None).await.expect_err("Bob's");
    assert!(matches!(refused, SfsError::NotFound("namespace")), "{refused}");
    fixture.much_later().await;
    fixture.assert_sound().await;
}
