//! Uploads that can be resumed.

use std::time::Duration;

use bytes::Bytes;
use edd_events::database::Kind;
use edd_proto::AnyEvent;

use super::fixture::{ANN, BOB, Fixture, ROOT, actor, cause, checksum, target};
use crate::scratch::on_each_database;
use crate::sfs::config::{Leases, Quotas, SfsConfig};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Replace, Target, UploadId, Visibility};
use crate::sfs::service::{Keep, Service, UploadError};

on_each_database![
    parts_become_a_file,
    what_came_is_kept_and_what_is_discarded_is_not,
    the_last_who_comes_goes_on_and_nobody_waits,
    of_two_at_the_same_moment_one_counts,
    what_came_is_written_down_from_time_to_time,
    another_process_goes_on,
    it_counts_from_its_beginning_to_its_end,
    it_is_given_up_after_a_while,
    a_file_that_came_meanwhile_ends_it,
    nobody_else_knows_of_it,
    offsets_lengths_and_pieces_have_to_be_right,
];

async fn fixture(kind: Kind) -> Fixture {
    fixture_with(kind, Quotas::default()).await
}

async fn fixture_with(kind: Kind, quotas: Quotas) -> Fixture {
    let fixture = Fixture::with(kind, SfsConfig { quotas, ..SfsConfig::default() }).await;
    fixture.namespace(ANN, "docs", Visibility::Public).await;
    fixture
}

async fn begin(fixture: &Fixture, at: &str, length: u64) -> UploadId {
    let upload = fixture.service.create_upload(&actor(ANN), &target("docs", at), length).await;
    upload.expect("an upload").id
}

/// Adds bytes in one request; whether the file is whole then.
async fn add(service: &Service, id: UploadId, offset: u64, bytes: &[u8]) -> Result<bool, UploadError> {
    let mut addition = service.add_to_upload(&actor(ANN), id, offset, Keep::Everything, &cause()).await?;
    for piece in bytes.chunks(7) {
        addition.write(Bytes::copy_from_slice(piece)).await?;
    }
    Ok(addition.finish().await?.1.is_some())
}

async fn received(fixture: &Fixture, id: UploadId) -> u64 {
    fixture.service.upload(&actor(ANN), id).await.expect("an upload").received
}

async fn parts_become_a_file(kind: Kind) {
    let fixture = fixture(kind).await;
    let bytes: Vec<u8> = (0..100).collect();
    let id = begin(&fixture, "a/b.png", 100).await;
    fixture.messages().await;
    assert!(!add(&fixture.service, id, 0, &bytes[..33]).await.expect("a part"));
    assert!(!add(&fixture.service, id, 33, &[]).await.expect("nothing"));
    assert!(!add(&fixture.service, id, 33, &bytes[33..99]).await.expect("a part"));
    assert_eq!((received(&fixture, id).await, fixture.paths("docs").await), (99, vec![]));
    fixture.keep().await;
    assert!(add(&fixture.service, id, 99, &bytes[99..]).await.expect("the last part"));
    assert_eq!(fixture.read("docs", "a/b.png").await, bytes);
    let file = fixture.open(ANN, "docs", "a/b.png").await.expect("a file").file;
    assert_eq!((file.checksum, file.media_type.as_str()), (checksum(&bytes), "image/png"));
    assert_eq!(fixture.used("docs").await, (100, 1, 1));
    let events = fixture.events().await;
    assert!(
        matches!(&events[..], [AnyEvent::FileUploaded(event)] if event.path == "a/b.png" && event.size_bytes == 100)
    );
    // Who did not hear of it asks again, until it is forgotten.
    assert!(fixture.service.upload(&actor(ANN), id).await.expect("an upload").completed_at.is_some());
    let empty = begin(&fixture, "empty", 0).await;
    assert!(add(&fixture.service, empty, 0, &[]).await.expect("a file of no bytes"));
    assert!(fixture.read("docs", "empty").await.is_empty());
    fixture.much_later().await;
    assert_eq!(fixture.count("uploads").await, 0);
    fixture.assert_sound().await;
}

async fn what_came_is_kept_and_what_is_discarded_is_not(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = begin(&fixture, "a", 10).await;
    let begun = |keep, offset| {
        let service = fixture.service.clone();
        async move { service.add_to_upload(&actor(ANN), id, offset, keep, &cause()).await.expect("an addition") }
    };
    let mut addition = begun(Keep::Everything, 0).await;
    addition.write(Bytes::from_static(b"abc")).await.expect("written");
    // The connection breaks: all of what came counts.
    addition.finish().await.expect("kept");
    let mut addition = begun(Keep::Whole, 3).await;
    addition.write(Bytes::from_static(b"wrong")).await.expect("written");
    addition.discard().await;
    assert_eq!(received(&fixture, id).await, 3);
    // The process dies.
    let mut addition = begun(Keep::Everything, 3).await;
    addition.write(Bytes::from_static(b"xyz")).await.expect("written");
    drop(addition);
    assert!(add(&fixture.service, id, 3, b"defghij").await.expect("the rest"));
    assert_eq!(fixture.read("docs", "a").await, b"abcdefghij");
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn the_last_who_comes_goes_on_and_nobody_waits(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = begin(&fixture, "a", 4).await;
    let add_at =
        async |offset| fixture.service.add_to_upload(&actor(ANN), id, offset, Keep::Everything, &cause()).await;
    let mut first = add_at(0).await.expect("an addition");
    first.write(Bytes::from_static(b"12")).await.expect("written");
    // Who is mistaken takes nothing from anybody.
    assert!(matches!(add_at(1).await, Err(UploadError::Offset { received: 0, offset: 1 })));
    fixture.clock.advance(Duration::from_secs(5));
    first.write(Bytes::from_static(b"3")).await.expect("it is still the last");
    assert_eq!(received(&fixture, id).await, 2);

    let mut second = add_at(2).await.expect("an addition");
    let mut third = add_at(2).await.expect("another");
    // It is noticed before long; what came until then is nobody's.
    first.write(Bytes::from_static(b"4")).await.expect("written for nothing");
    assert!(matches!(first.finish().await, Err(UploadError::Overtaken)));
    second.write(Bytes::from_static(b"x")).await.expect("written for nothing");
    fixture.clock.advance(Duration::from_secs(5));
    assert!(matches!(second.write(Bytes::from_static(b"y")).await, Err(UploadError::Overtaken)));
    second.discard().await;
    third.write(Bytes::from_static(b"cd")).await.expect("written");
    assert!(third.finish().await.expect("the file").1.is_some());
    assert_eq!(fixture.read("docs", "a").await, b"12cd");

    // So it is with files of no bytes, of which nothing is ever written down.
    let id = begin(&fixture, "empty", 0).await;
    let add_to = async || fixture.service.add_to_upload(&actor(ANN), id, 0, Keep::Everything, &cause()).await;
    let (first, second) = (add_to().await.expect("an addition"), add_to().await.expect("another"));
    assert!(matches!(first.finish().await, Err(UploadError::Overtaken)));
    assert!(second.finish().await.expect("the file").1.is_some());
    // And with an upload that is ended.
    let id = begin(&fixture, "b", 4).await;
    let mut last = fixture.service.add_to_upload(&actor(ANN), id, 0, Keep::Everything, &cause()).await.expect("one");
    last.write(Bytes::from_static(b"1234")).await.expect("written for nothing");
    fixture.service.cancel_upload(&actor(ANN), id).await.expect("ended");
    assert!(matches!(last.finish().await, Err(UploadError::Overtaken)));
    assert_eq!(fixture.paths("docs").await, ["a", "empty"]);
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn of_two_at_the_same_moment_one_counts(kind: Kind) {
    let fixture = fixture(kind).await;
    let other = fixture.another().await;
    for round in 0..20 {
        // A part in every other round, else the whole file.
        let bytes: &'static [u8] = if round % 2 == 0 { b"12" } else { b"1234" };
        let id = begin(&fixture, "a", 4).await;
        let first = fixture.service.add_to_upload(&actor(ANN), id, 0, Keep::Everything, &cause()).await;
        let mut first = first.expect("an addition");
        first.write(Bytes::from_static(bytes)).await.expect("written");
        let (first, second) = tokio::join!(first.finish(), add(&other, id, 0, b"abcd"));
        let expected: &[u8] = match (&first, &second) {
            (Ok(_), Err(UploadError::Offset { received, offset: 0 })) if *received == bytes.len() as u64 => {
                if bytes.len() < 4 {
                    assert!(add(&other, id, 2, b"34").await.expect("the rest"));
                }
                b"1234"
            }
            (Err(UploadError::Overtaken), Ok(true)) => b"abcd",
            outcomes => panic!("{outcomes:?}"),
        };
        assert_eq!(fixture.read("docs", "a").await, expected);
        fixture.delete(ANN, "docs", "a", false).await.expect("deleted");
    }
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn what_came_is_written_down_from_time_to_time(kind: Kind) {
    let (quotas, leases) = (Quotas::default(), Leases { upload: Duration::from_secs(8), ..Leases::default() });
    let fixture = Fixture::with(kind, SfsConfig { quotas, leases, ..SfsConfig::default() }).await;
    fixture.namespace(ANN, "docs", Visibility::Public).await;
    // Of a thousand pieces, half may be made so: of 4 bytes each.
    let id = begin(&fixture, "a", 2000).await;
    for (keep, kept) in [(Keep::Whole, [0, 0, 0]), (Keep::Everything, [0, 4, 8])] {
        let mut addition = fixture.service.add_to_upload(&actor(ANN), id, 0, keep, &cause()).await.expect("one");
        for (bytes, kept) in [b"1234", b"5678", b"90ab"].into_iter().zip(kept) {
            addition.write(Bytes::from_static(&bytes[..1])).await.expect("written");
            assert_eq!(received(&fixture, id).await, kept, "{keep:?}");
            addition.write(Bytes::from_static(&bytes[1..])).await.expect("written");
            // Nor is it given up while bytes come.
            fixture.clock.advance(Duration::from_secs(5));
        }
        // The process dies.
        drop(addition);
    }
    assert_eq!(received(&fixture, id).await, 8);
    let rest = vec![b'x'; 1992];
    assert!(add(&fixture.service, id, 8, &rest).await.expect("the rest"));
    assert!(fixture.read("docs", "a").await.starts_with(b"12345678xx"));
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn another_process_goes_on(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = begin(&fixture, "a", 6).await;
    add(&fixture.service, id, 0, b"abc").await.expect("a part");
    let another = fixture.another().await;
    assert!(add(&another, id, 3, b"def").await.expect("the rest"));
    assert_eq!(fixture.read("docs", "a").await, b"abcdef");
}

async fn it_counts_from_its_beginning_to_its_end(kind: Kind) {
    let quotas = Quotas { user_bytes: 100, open_uploads: 2, ..Quotas::default() };
    let fixture = fixture_with(kind, quotas).await;
    let id = begin(&fixture, "a", 60).await;
    let refused = fixture.service.create_upload(&actor(ANN), &target("docs", "b"), 41).await;
    assert!(matches!(refused, Err(SfsError::Quota(quota)) if quota.used == 60 && quota.asked == 41), "{refused:?}");
    assert!(matches!(fixture.put(target("docs", "b"), &[1; 41]).await, Err(SfsError::Quota(_))));
    let other = begin(&fixture, "b", 40).await;
    let third = fixture.service.create_upload(&actor(ANN), &target("docs", "c"), 0).await;
    assert!(matches!(third, Err(SfsError::Count { most: 2, .. })), "{third:?}");
    fixture.service.cancel_upload(&actor(ANN), other).await.expect("cancelled");
    assert!(add(&fixture.service, id, 0, &[1; 60]).await.expect("a file"));
    let usage = fixture.service.usage(&actor(ANN)).await.expect("usage");
    assert_eq!((usage.used_bytes, usage.reserved_bytes), (60, 0));
    fixture.put(target("docs", "b"), &[1; 40]).await.expect("there is room again");
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn it_is_given_up_after_a_while(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = begin(&fixture, "a", 10).await;
    fixture.later(Duration::from_secs(86_399)).await;
    add(&fixture.service, id, 0, b"abc").await.expect("each part puts it off");
    fixture.later(Duration::from_secs(86_399)).await;
    assert_eq!(received(&fixture, id).await, 3);
    fixture.clock.advance(Duration::from_secs(1));
    assert!(matches!(fixture.service.upload(&actor(ANN), id).await, Err(UploadError::Expired)));
    fixture.keep().await;
    let gone = fixture.service.upload(&actor(ANN), id).await;
    assert!(matches!(gone, Err(UploadError::Sfs(SfsError::NotFound(_)))), "{gone:?}");
    assert_eq!(fixture.service.usage(&actor(ANN)).await.expect("usage").reserved_bytes, 0);
    assert_eq!(fixture.kept().await, (0, 0, 0));
}

async fn a_file_that_came_meanwhile_ends_it(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = begin(&fixture, "a", 3).await;
    let overwriting = Target { replace: Replace::Always, ..target("docs", "a") };
    let other = fixture.service.create_upload(&actor(ANN), &overwriting, 3).await.expect("an upload").id;
    fixture.file("docs", "a", b"old").await;
    let refused = add(&fixture.service, id, 0, b"new").await;
    assert!(matches!(refused, Err(UploadError::Sfs(SfsError::Exists { .. }))), "{refused:?}");
    // Its offset must not say that the file is whole.
    let gone = fixture.service.upload(&actor(ANN), id).await;
    assert!(matches!(gone, Err(UploadError::Sfs(SfsError::NotFound(_)))), "{gone:?}");
    assert_eq!(fixture.read("docs", "a").await, b"old");
    assert!(add(&fixture.service, other, 0, b"new").await.expect("it may"));
    assert_eq!(fixture.read("docs", "a").await, b"new");
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn nobody_else_knows_of_it(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = begin(&fixture, "a", 3).await;
    for other in [BOB, ROOT] {
        let found = fixture.service.upload(&actor(other), id).await;
        assert!(matches!(found, Err(UploadError::Sfs(SfsError::NotFound(_)))), "{found:?}");
        let ended = fixture.service.cancel_upload(&actor(other), id).await;
        assert!(matches!(ended, Err(UploadError::Sfs(SfsError::NotFound(_)))), "{ended:?}");
    }
    let foreign = fixture.service.create_upload(&actor(BOB), &target("docs", "b"), 1).await;
    assert!(matches!(foreign, Err(SfsError::NotYours)), "{foreign:?}");
}

async fn offsets_lengths_and_pieces_have_to_be_right(kind: Kind) {
    let fixture = fixture_with(kind, Quotas { upload_blobs: 3, ..Quotas::default() }).await;
    let id = begin(&fixture, "a", 10).await;
    add(&fixture.service, id, 0, b"123").await.expect("a part");
    for offset in [0, 2, 4] {
        let refused = add(&fixture.service, id, offset, b"4").await;
        assert!(matches!(refused, Err(UploadError::Offset { received: 3, .. })), "{refused:?}");
    }
    let mut addition =
        fixture.service.add_to_upload(&actor(ANN), id, 3, Keep::Everything, &cause()).await.expect("one");
    let too_long = addition.write(Bytes::from_static(b"45678901")).await;
    assert!(matches!(too_long, Err(UploadError::TooLong { length: 10 })), "{too_long:?}");
    addition.discard().await;
    add(&fixture.service, id, 3, b"4").await.expect("a part");
    add(&fixture.service, id, 4, b"5").await.expect("a part");
    let refused = add(&fixture.service, id, 5, b"6").await;
    assert!(matches!(refused, Err(UploadError::TooManyPieces { most: 3, .. })), "{refused:?}");
    assert_eq!(received(&fixture, id).await, 5);
    fixture.service.cancel_upload(&actor(ANN), id).await.expect("cancelled");
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
}
