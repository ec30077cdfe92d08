//! Files: written, read, listed, deleted.

use std::time::Duration;

use bytes::Bytes;
use edd_events::database::Kind;
use edd_proto::AnyEvent;
use futures_util::StreamExt;

use super::fixture::{ANN, Fixture, actor, cause, checksum, name, path, target};
use crate::scratch::on_each_database;
use crate::sfs::config::{Quotas, SfsConfig};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Replace, Target, Visibility, Visitor};
use crate::sfs::service::{Deletion, Listing};

on_each_database![
    what_is_written_is_read,
    ranges_are_parts_of_it,
    an_empty_file_needs_no_object,
    what_is_there_is_replaced_only_if_it_is_to_be,
    a_file_is_no_folder_and_a_folder_no_file,
    a_body_is_as_long_as_it_was_said_to_be,
    bytes_are_those_that_were_expected,
    folders_come_with_files_and_stay,
    pages_of_a_folder_and_of_all_that_is_below_it,
    deleting_takes_one_or_all,
    one_spelling_is_one_file,
    files_are_told_of,
];

async fn fixture(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture
}

async fn what_is_written_is_read(kind: Kind) {
    let fixture = fixture(kind).await;
    let bytes: Vec<u8> = (0..1_000_003_u32).map(|number| (number % 251) as u8).collect();
    let entry = fixture.put(target("docs", "a/b/large.bin"), &bytes).await.expect("a file");
    let file = entry.file.as_ref().expect("a file");
    assert_eq!((file.size, file.checksum), (bytes.len() as u64, checksum(&bytes)));
    assert_eq!(file.media_type.as_str(), "application/octet-stream");
    assert_eq!(fixture.service.stat(&actor(ANN).into(), &name("docs"), &path("a/b/large.bin")).await.ok(), Some(entry));
    assert!(fixture.read("docs", "a/b/large.bin").await == bytes);
    assert_eq!(fixture.used("docs").await, (bytes.len() as u64, 1, 2));
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.much_later().await;
    assert!(fixture.read("docs", "a/b/large.bin").await == bytes, "what is a file's is no garbage");
    fixture.assert_sound().await;
}

async fn ranges_are_parts_of_it(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "a", b"0123456789").await;
    let opened = fixture.open(ANN, "docs", "a").await.expect("a file");
    for (range, bytes) in [(0..10, &b"0123456789"[..]), (3..5, b"34"), (9..10, b"9"), (9..99, b"9"), (4..4, b"")] {
        let read = opened.stream(range.clone()).map(|piece| piece.expect("bytes")).collect::<Vec<_>>().await.concat();
        assert_eq!(read, bytes, "{range:?}");
    }
}

async fn an_empty_file_needs_no_object(kind: Kind) {
    let fixture = fixture(kind).await;
    let entry = fixture.put(Target { declared_bytes: Some(0), ..target("docs", "empty") }, b"").await.expect("a file");
    assert_eq!(entry.file.map(|file| file.checksum), Some(checksum(b"")));
    assert_eq!(fixture.read("docs", "empty").await, b"");
    assert_eq!(fixture.kept().await, (0, 0, 1));
    fixture.delete(ANN, "docs", "empty", false).await.expect("deleted");
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn what_is_there_is_replaced_only_if_it_is_to_be(kind: Kind) {
    let fixture = fixture(kind).await;
    let put = async |replace, bytes: &[u8]| fixture.put(Target { replace, ..target("docs", "a") }, bytes).await;
    for replace in [Replace::Existing, Replace::Matching(checksum(b"one"))] {
        assert!(matches!(put(replace, b"one").await, Err(SfsError::NotAsExpected)), "{replace:?}");
    }
    let first = put(Replace::Never, b"one").await.expect("new");
    let refused = put(Replace::Never, b"two").await.expect_err("it is there");
    assert_eq!(refused.to_string(), "a exists: send ?overwrite=true to replace it");
    assert!(matches!(put(Replace::Matching(checksum(b"two")), b"two").await, Err(SfsError::NotAsExpected)));
    fixture.clock.advance(Duration::from_secs(1));
    let second = put(Replace::Matching(checksum(b"one")), b"two").await.expect("replaced");
    assert_eq!(second.created_at, first.created_at);
    assert!(second.modified_at > first.modified_at);
    put(Replace::Existing, b"three").await.expect("replaced");
    put(Replace::Always, b"four").await.expect("replaced");
    assert_eq!(fixture.read("docs", "a").await, b"four");
    assert_eq!(fixture.used("docs").await, (4, 1, 0));
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn a_file_is_no_folder_and_a_folder_no_file(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "a/b", b"x").await;
    for (at, said) in [("a", "a is a folder"), ("a/b/c", "a/b is a file"), ("a/b/c/d", "a/b is a file")] {
        let target = Target { replace: Replace::Always, ..target("docs", at) };
        let refused = fixture.put(target, b"x").await.expect_err("in the way");
        assert!(refused.to_string().starts_with(said), "{refused}");
    }
    let (service, ann, docs) = (&fixture.service, actor(ANN), name("docs"));
    for at in ["a", "a/b", "a/b/c"] {
        let refused = service.make_folder(&ann, &docs, &path(at), &cause()).await;
        assert!(matches!(refused, Err(SfsError::Conflict(_))), "{at}: {refused:?}");
    }
    assert!(matches!(fixture.open(ANN, "docs", "a").await, Err(SfsError::Conflict(_))));
    let listing = Listing { folder: Some(path("a/b")), most: 1, ..Listing::default() };
    assert!(matches!(service.list(&ann.into(), &docs, &listing).await, Err(SfsError::Conflict(_))));
    assert_eq!(fixture.paths("docs").await, ["a/b"]);
    fixture.assert_sound().await;
}

async fn a_body_is_as_long_as_it_was_said_to_be(kind: Kind) {
    let config = SfsConfig { quotas: Quotas { file_bytes: Some(5000), ..Quotas::default() }, ..SfsConfig::default() };
    let fixture = Fixture::with(kind, config).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    let said = |declared| Target { declared_bytes: Some(declared), ..target("docs", "a") };
    for (declared, received) in [(4000, 3999), (4000, 4001), (0, 1), (1, 0)] {
        let refused = fixture.put(said(declared), &vec![b'x'; received as usize]).await.expect_err("a lie");
        let length = matches!(refused, SfsError::Length { declared: d, received: r } if (d, r) == (declared, received));
        assert!(length, "{refused}");
    }
    // Whoever sends more is not listened to to the end.
    let mut incoming = fixture.service.begin(&actor(ANN), said(4), &cause()).await.expect("begun");
    let refused = incoming.write(Bytes::from_static(b"12345")).await.expect_err("a lie");
    assert!(matches!(refused, SfsError::Length { declared: 4, received: 5 }), "{refused}");
    incoming.abort().await;
    for target in [said(5001), target("docs", "a")] {
        let refused = fixture.put(target, &[b'x'; 5001]).await.expect_err("too large");
        assert!(matches!(refused, SfsError::TooLarge { most_bytes: 5000, bytes: 5001 }), "{refused}");
    }
    assert_eq!(fixture.paths("docs").await, Vec::<String>::new());
    fixture.put(said(4000), &[b'x'; 4000]).await.expect("the truth");
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn bytes_are_those_that_were_expected(kind: Kind) {
    let fixture = fixture(kind).await;
    let begin = async || fixture.service.begin(&actor(ANN), target("docs", "a"), &cause()).await.expect("begun");
    let mut incoming = begin().await;
    incoming.write(Bytes::from_static(b"bytez")).await.expect("room");
    let refused = incoming.finish(Some(checksum(b"bytes"))).await.expect_err("others");
    assert!(refused.to_string().contains(&checksum(b"bytez").to_string()), "{refused}");
    assert!(refused.to_string().contains(&checksum(b"bytes").to_string()), "{refused}");
    // What is known to be of no use goes at once.
    fixture.keep().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    let mut incoming = begin().await;
    incoming.write(Bytes::from_static(b"byt")).await.expect("room");
    incoming.write(Bytes::from_static(b"es")).await.expect("room");
    incoming.finish(Some(checksum(b"bytes"))).await.expect("a file");
    fixture.assert_sound().await;
}

async fn folders_come_with_files_and_stay(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "a/b/c.txt", b"x").await;
    fixture.delete(ANN, "docs", "a/b/c.txt", false).await.expect("deleted");
    assert!(fixture.service.stat(&actor(ANN).into(), &name("docs"), &path("a/b")).await.expect("a folder").is_folder());
    fixture.service.make_folder(&actor(ANN), &name("docs"), &path("a/x/y"), &cause()).await.expect("made");
    assert_eq!(fixture.used("docs").await, (0, 0, 4));
    fixture.delete(ANN, "docs", "a/x/y", false).await.expect("it is empty");
    assert_eq!(fixture.used("docs").await, (0, 0, 3));
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn pages_of_a_folder_and_of_all_that_is_below_it(kind: Kind) {
    let fixture = fixture(kind).await;
    // Sorted by bytes as they are here, which no language sorts so.
    for at in ["B/z", "a/B", "a/b/1", "a/b/2/3", "a/c", "a/ä", "a.txt", "ab/x"] {
        fixture.file("docs", at, at.as_bytes()).await;
    }
    let all = ["B/z", "a.txt", "a/B", "a/b/1", "a/b/2/3", "a/c", "a/ä", "ab/x"];
    for (folder, is_deep, listed) in [
        (None, true, &all[..]),
        (None, false, &["B", "a", "a.txt", "ab"]),
        (Some("a"), false, &["a/B", "a/b", "a/c", "a/ä"]),
        (Some("a"), true, &["a/B", "a/b/1", "a/b/2/3", "a/c", "a/ä"]),
        (Some("a/b"), false, &["a/b/1", "a/b/2"]),
    ] {
        for most in [1, 3, 1000] {
            let (mut found, mut after): (Vec<String>, _) = (Vec::new(), None);
            loop {
                let listing = Listing { folder: folder.map(path), is_deep, after: after.clone(), most };
                let page = fixture.service.list(&actor(ANN).into(), &name("docs"), &listing).await.expect("a page");
                let Some(last) = page.last() else { break };
                after = Some(last.path.clone());
                found.extend(page.into_iter().map(|entry| entry.path.to_string()));
            }
            assert_eq!(found, listed, "{folder:?} {is_deep} {most}");
        }
    }
    let listing = Listing { folder: Some(path("nowhere")), most: 1, ..Listing::default() };
    let nowhere = fixture.service.list(&actor(ANN).into(), &name("docs"), &listing).await;
    assert!(matches!(nowhere, Err(SfsError::NotFound(_))), "{nowhere:?}");
}

async fn deleting_takes_one_or_all(kind: Kind) {
    let fixture = fixture(kind).await;
    for number in 0..250 {
        fixture.file("docs", &format!("a/{}/{number}", number % 7), b"12").await;
    }
    fixture.file("docs", "ab", b"1").await;
    fixture.file("docs", "a.b", b"1").await;
    fixture.messages().await;
    let refused = fixture.delete(ANN, "docs", "a", false).await.expect_err("not empty");
    assert!(refused.to_string().contains("?recursive=true"), "{refused}");
    let (ann, docs, ab) = (actor(ANN), name("docs"), path("ab"));
    let other = Deletion { expected: Some(checksum(b"2")), ..Deletion::default() };
    let refused = fixture.service.delete_entry(&ann, &docs, &ab, other, &cause()).await;
    assert!(matches!(refused, Err(SfsError::NotAsExpected)), "{refused:?}");
    assert!(matches!(fixture.delete(ANN, "docs", "nothing", true).await, Err(SfsError::NotFound(_))));
    fixture.delete(ANN, "docs", "a", true).await.expect("deleted");
    assert_eq!(fixture.happenings().await.len(), 250);
    assert_eq!(fixture.paths("docs").await, ["a.b", "ab"]);
    assert_eq!(fixture.used("docs").await, (2, 2, 0));
    let this = Deletion { expected: Some(checksum(b"1")), ..Deletion::default() };
    fixture.service.delete_entry(&ann, &docs, &ab, this, &cause()).await.expect("deleted");
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn one_spelling_is_one_file(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "cafe\u{301}", b"one").await;
    let refused = fixture.put(target("docs", "café"), b"two").await;
    assert!(matches!(refused, Err(SfsError::Exists { .. })), "{refused:?}");
    assert_eq!(fixture.read("docs", "café").await, b"one");
    // Nothing is folded that file systems tell apart.
    fixture.file("docs", "CAFÉ", b"three").await;
    assert_eq!(fixture.paths("docs").await, ["CAFÉ", "café"]);
}

async fn files_are_told_of(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let made = fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.events().await;
    fixture.file("docs", "a/b", b"12345").await;
    fixture.file("docs", "a/b", b"1").await;
    fixture.delete(ANN, "docs", "a/b", false).await.expect("deleted");
    let events = fixture.events().await;
    let [AnyEvent::FileUploaded(first), AnyEvent::FileUploaded(second), AnyEvent::FileDeleted(gone)] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((first.namespace_id, &*first.path, first.size_bytes), (made.number, "a/b", 5));
    assert_eq!((first.uploader_id, &*first.uploader_uid), (i64::from(b'V'), ANN));
    assert_eq!(second.size_bytes, 1);
    assert_eq!((gone.namespace_id, &*gone.path, &*gone.deleter_uid), (made.number, "a/b", ANN));
    let opened = fixture.service.open(&Visitor::User(actor(ANN)), &name("docs"), &path("a/b")).await;
    assert!(opened.is_err());
}
