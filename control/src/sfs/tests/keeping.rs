//! What is left by those who are stopped in the middle, and how it goes.

use std::time::Duration;

use bytes::Bytes;
use edd_events::database::Kind;

use super::fixture::{ANN, Fixture, actor, cause, checksum, name, target};
use crate::scratch::{Scratch, on_each_database};
use crate::sfs::config::SfsConfig;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Checksum, Visibility};
use crate::sfs::service::{Incoming, Place, Placed, To};
use crate::sfs::storage::BlobStore;
use crate::sfs::store::blobs::{self, Piece};

on_each_database![
    a_writer_who_is_gone_leaves_nothing_for_long,
    a_writer_who_goes_on_is_left_alone,
    a_writer_who_stood_still_is_told,
    a_blob_that_is_being_removed_is_nobodys_file,
    who_is_stopped_while_removing_goes_on,
    a_large_namespace_goes_piece_by_piece,
    rows_are_made_ahead_and_go_unless_they_are_used,
];

const LEASE: Duration = Duration::from_secs(900);

async fn fixture(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture
}

async fn begin(fixture: &Fixture) -> Incoming {
    fixture.service.begin(&actor(ANN), target("docs", "a/b"), &cause()).await.expect("begun")
}

/// Nothing is left of what was being written, and nobody ever saw it.
async fn assert_gone(fixture: &Fixture) {
    assert_eq!(fixture.paths("docs").await, Vec::<String>::new());
    assert_eq!(fixture.used("docs").await, (0, 0, 0));
    fixture.later(LEASE).await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    assert_eq!(fixture.count("files").await, 0);
    fixture.assert_sound().await;
}

async fn a_writer_who_is_gone_leaves_nothing_for_long(kind: Kind) {
    let fixture = fixture(kind).await;
    // Before the first byte.
    drop(begin(&fixture).await);
    assert_eq!(fixture.kept().await, (0, 0, 0));
    // With a row and no object yet.
    let id = fixture.service.random_blob();
    let until = fixture.service.write_lease();
    blobs::insert(fixture.database.writer(), &[id], until).await.expect("a row");
    assert_gone(&fixture).await;
    // In the middle of an object, small or large.
    for bytes in [10, 3_000_000] {
        let mut incoming = begin(&fixture).await;
        incoming.write(Bytes::from(vec![1; bytes])).await.expect("room");
        drop(incoming);
        assert_eq!(fixture.count("blobs").await, 1);
        assert_gone(&fixture).await;
    }
    // With the object whole, before the transaction.
    let id = fixture.service.random_blob();
    blobs::insert(fixture.database.writer(), &[id], fixture.service.write_lease()).await.expect("a row");
    let mut writer = fixture.store.create(id).await.expect("a writer");
    writer.write(Bytes::from_static(b"bytes")).await.expect("room");
    writer.finish().await.expect("an object");
    assert_eq!(fixture.kept().await, (1, 1, 0));
    fixture.later(LEASE - Duration::from_secs(1)).await;
    assert_eq!(fixture.kept().await, (1, 1, 0), "its writer may only be slow");
    assert_gone(&fixture).await;
    // In the middle of the transaction.
    let id = fixture.service.random_blob();
    blobs::insert(fixture.database.writer(), &[id], fixture.service.write_lease()).await.expect("a row");
    let mut writer = fixture.store.create(id).await.expect("a writer");
    writer.write(Bytes::from_static(b"bytes")).await.expect("room");
    writer.finish().await.expect("an object");
    let mut transaction = fixture.service.begin_change().await.expect("a transaction");
    place(&fixture, &mut transaction, Piece { id, size: 5 }, checksum(b"bytes")).await.expect("placed");
    transaction.rollback().await.expect("undone");
    assert_eq!(fixture.kept().await, (1, 1, 0));
    assert_gone(&fixture).await;
    assert_eq!(fixture.happenings().await, ["created"], "nothing was told");
}

async fn place(
    fixture: &Fixture,
    transaction: &mut edd_events::database::Transaction,
    piece: Piece,
    checksum: Checksum,
) -> Result<(), SfsError> {
    let (who, why, to) = (actor(ANN), cause(), target("docs", "a/b"));
    let placed = Placed {
        actor: &who,
        cause: &why,
        namespace: fixture.seen("docs").await.number,
        path: &to.path,
        replace: to.replace,
        media_type: &to.media_type,
        pieces: &[piece],
        checksum,
    };
    fixture.service.place(transaction, &placed).await.map(drop)
}

async fn a_writer_who_goes_on_is_left_alone(kind: Kind) {
    let fixture = fixture(kind).await;
    let mut incoming = begin(&fixture).await;
    for _ in 0..20 {
        incoming.write(Bytes::from(vec![7; 300_000])).await.expect("room");
        fixture.later(Duration::from_secs(301)).await;
    }
    incoming.finish(None).await.expect("a file");
    fixture.much_later().await;
    assert!(fixture.read("docs", "a/b").await == vec![7; 6_000_000]);
    fixture.assert_sound().await;
}

async fn a_writer_who_stood_still_is_told(kind: Kind) {
    let fixture = fixture(kind).await;
    let mut incoming = begin(&fixture).await;
    incoming.write(Bytes::from_static(b"bytes")).await.expect("room");
    fixture.later(LEASE).await;
    let refused = incoming.finish(None).await.expect_err("too late");
    assert!(matches!(refused, SfsError::Stalled), "{refused}");
    fixture.keep().await;
    assert_eq!(fixture.paths("docs").await, Vec::<String>::new());
    // And it hears of it before it has sent the rest.
    let mut incoming = begin(&fixture).await;
    incoming.write(Bytes::from_static(b"bytes")).await.expect("room");
    fixture.later(LEASE).await;
    let refused = incoming.write(Bytes::from_static(b"more")).await.expect_err("too late");
    assert!(matches!(refused, SfsError::Stalled), "{refused}");
    drop(incoming);
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn a_blob_that_is_being_removed_is_nobodys_file(kind: Kind) {
    let fixture = fixture(kind).await;
    let mut incoming = begin(&fixture).await;
    incoming.write(Bytes::from_static(b"bytes")).await.expect("room");
    // Condemned, but neither the object nor the row is gone: the clock that said so may be wrong.
    fixture.clock.advance(LEASE);
    let now = fixture.service.now();
    let condemned = blobs::condemn(fixture.database.writer(), now, 10).await.expect("condemned");
    assert_eq!(condemned.len(), 1);
    fixture.clock.set(super::fixture::NOW);
    let refused = incoming.finish(None).await.expect_err("it is being removed");
    assert!(matches!(refused, SfsError::Stalled), "{refused}");
    fixture.keep().await;
    assert_gone(&fixture).await;
}

async fn who_is_stopped_while_removing_goes_on(kind: Kind) {
    let fixture = fixture(kind).await;
    for number in 0..3 {
        fixture.file("docs", &number.to_string(), b"bytes").await;
        fixture.delete(ANN, "docs", &number.to_string(), false).await.expect("deleted");
    }
    fixture.clock.advance(LEASE);
    let condemned = blobs::condemn(fixture.database.writer(), fixture.service.now(), 10).await.expect("condemned");
    assert_eq!(condemned.len(), 3);
    // One is gone from the store as well.
    fixture.store.delete(condemned[0]).await.expect("removed");
    assert_eq!(fixture.kept().await, (2, 3, 0));
    fixture.keep().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn a_large_namespace_goes_piece_by_piece(kind: Kind) {
    let fixture = fixture(kind).await;
    // One object, many files: what counts is the number of rows.
    fixture.file("docs", "a/0", b"bytes").await;
    let (ann, docs) = (actor(ANN), name("docs"));
    let place = |at: &str| Place { namespace: docs.clone(), path: at.parse().expect("a path") };
    for doubled in 0..10 {
        let to = To {
            namespace: docs.clone(),
            path: format!("b{doubled}").parse().expect("a path"),
            replace: Default::default(),
        };
        let from = place(if doubled == 0 { "a" } else { "all" });
        fixture.service.copy_entry(&ann, &from, &to, &cause()).await.expect("copied");
        let into = To { path: format!("all/{doubled}").parse().expect("a path"), ..to.clone() };
        fixture.service.move_entry(&ann, &place(to.path.as_str()), &into, &cause()).await.expect("moved");
    }
    let (_, files, _) = fixture.used("docs").await;
    assert!(files > 500, "more than one piece: {files}");
    fixture.assert_sound().await;
    fixture.service.delete_namespace(&ann, &docs, &cause()).await.expect("deleted");
    fixture.keep().await;
    assert_eq!((fixture.count("files").await, fixture.count("namespaces").await), (0, 0));
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
}

async fn rows_are_made_ahead_and_go_unless_they_are_used(kind: Kind) {
    let scratch = Scratch::new(kind);
    let store = BlobStore::local(&scratch.folder.path().join("blobs")).expect("a store");
    let fixture = Fixture::ahead(scratch, store, SfsConfig { blobs_ahead: 8, ..SfsConfig::default() }).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    for number in 0..20 {
        fixture.file("docs", &number.to_string(), b"bytes").await;
    }
    // 1, 2, 4, 8 and 8.
    assert_eq!(fixture.kept().await, (20, 23, 20));
    // The rest is too old to be begun with.
    fixture.clock.advance(LEASE / 3);
    fixture.file("docs", "later", b"bytes").await;
    assert_eq!(fixture.kept().await, (21, 24, 21));
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (21, 21, 21));
    fixture.assert_sound().await;
}
