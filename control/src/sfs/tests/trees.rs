//! Files and folders that are moved and copied.

use std::time::Duration;

use edd_events::database::Kind;

use super::fixture::{ANN, BOB, Fixture, actor, cause, checksum, name, path, target};
use crate::scratch::on_each_database;
use crate::sfs::config::{Quotas, SfsConfig};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Entry, Replace, Visibility};
use crate::sfs::service::{Listing, Place, To};

on_each_database![
    a_file_is_called_otherwise,
    a_folder_goes_with_all_that_is_in_it,
    a_tree_goes_to_another_namespace,
    a_copy_shares_bytes_and_nothing_else,
    what_is_in_the_way_stays,
    what_is_anothers_is_copied_if_it_may_be_read,
    what_is_too_large_is_moved_by_its_parts,
];

async fn fixture(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture
}

fn from(namespace: &str, at: &str) -> Place {
    Place { namespace: name(namespace), path: path(at) }
}

fn to(namespace: &str, at: &str) -> To {
    To { namespace: name(namespace), path: path(at), replace: Replace::Never }
}

async fn move_it(fixture: &Fixture, from: Place, to: To) -> Result<Entry, SfsError> {
    fixture.service.move_entry(&actor(ANN), &from, &to, &cause()).await
}

async fn copy_it(fixture: &Fixture, from: Place, to: To) -> Result<Entry, SfsError> {
    fixture.service.copy_entry(&actor(ANN), &from, &to, &cause()).await
}

/// What is shown in a folder.
async fn children(fixture: &Fixture, folder: &str) -> Vec<String> {
    let listing = Listing { folder: Some(path(folder)), most: 100, ..Listing::default() };
    let listed = fixture.service.list(&actor(ANN).into(), &name("docs"), &listing).await.expect("a list");
    listed.into_iter().map(|entry| entry.path.to_string()).collect()
}

async fn a_file_is_called_otherwise(kind: Kind) {
    let fixture = fixture(kind).await;
    let before = fixture.file("docs", "a/b.txt", b"bytes").await;
    fixture.messages().await;
    fixture.clock.advance(Duration::from_secs(1));
    let after = move_it(&fixture, from("docs", "a/b.txt"), to("docs", "x/ü/c.txt")).await.expect("moved");
    assert_eq!(after, Entry { path: path("x/ü/c.txt"), ..before });
    assert_eq!(fixture.read("docs", "x/ü/c.txt").await, b"bytes");
    assert_eq!(fixture.paths("docs").await, ["x/ü/c.txt"]);
    assert_eq!(
        (children(&fixture, "a").await, children(&fixture, "x/ü").await),
        (vec![], vec!["x/ü/c.txt".to_owned()])
    );
    assert_eq!(fixture.used("docs").await, (5, 1, 3));
    assert_eq!(fixture.happenings().await, ["-a/b.txt", "+x/ü/c.txt"]);
    assert!(matches!(
        move_it(&fixture, from("docs", "a/b.txt"), to("docs", "y")).await,
        Err(SfsError::NotFound("file or folder"))
    ));
    fixture.assert_sound().await;
}

async fn a_folder_goes_with_all_that_is_in_it(kind: Kind) {
    let fixture = fixture(kind).await;
    for at in ["ä/1", "ä/b/2", "ä/b/c/3", "äb", "ä.txt"] {
        fixture.file("docs", at, at.as_bytes()).await;
    }
    fixture.messages().await;
    move_it(&fixture, from("docs", "ä"), to("docs", "new/name")).await.expect("moved");
    let all = ["new/name/1", "new/name/b/2", "new/name/b/c/3", "ä.txt", "äb"];
    assert_eq!(fixture.paths("docs").await, all);
    assert_eq!(fixture.read("docs", "new/name/b/c/3").await, "ä/b/c/3".as_bytes());
    assert_eq!(children(&fixture, "new").await, ["new/name"]);
    assert_eq!(children(&fixture, "new/name/b").await, ["new/name/b/2", "new/name/b/c"]);
    assert_eq!(fixture.happenings().await.len(), 6);
    // Back, and deeper into what it was in.
    move_it(&fixture, from("docs", "new/name/b"), to("docs", "new/b")).await.expect("moved");
    assert_eq!(fixture.paths("docs").await, ["new/b/2", "new/b/c/3", "new/name/1", "ä.txt", "äb"]);
    for at in ["new", "new/x", "new/b/c"] {
        let refused = move_it(&fixture, from("docs", "new"), to("docs", at)).await;
        assert!(matches!(refused, Err(SfsError::Conflict(_))), "{at}: {refused:?}");
    }
    let deep = vec!["d"; 31].join("/");
    let refused = move_it(&fixture, from("docs", "new/b"), to("docs", &deep)).await;
    assert!(matches!(refused, Err(SfsError::Invalid(_))), "{refused:?}");
    assert_eq!(fixture.paths("docs").await.len(), 5);
    fixture.assert_sound().await;
}

async fn a_tree_goes_to_another_namespace(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.namespace(ANN, "pics", Visibility::Public).await;
    fixture.namespace(BOB, "bobs", Visibility::Public).await;
    fixture.file("docs", "a/1", b"1").await;
    fixture.file("docs", "a/b/2", b"22").await;
    move_it(&fixture, from("docs", "a"), to("pics", "a")).await.expect("moved");
    assert_eq!((fixture.paths("docs").await.len(), fixture.paths("pics").await.len()), (0, 2));
    assert_eq!((fixture.used("docs").await, fixture.used("pics").await), ((0, 0, 0), (3, 2, 2)));
    let refused = move_it(&fixture, from("pics", "a"), to("bobs", "a")).await;
    assert!(matches!(refused, Err(SfsError::NotYours)), "{refused:?}");
    let refused = move_it(&fixture, from("bobs", "a"), to("pics", "b")).await;
    assert!(matches!(refused, Err(SfsError::NotYours)), "{refused:?}");
    fixture.assert_sound().await;
}

async fn a_copy_shares_bytes_and_nothing_else(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "a/1", b"one").await;
    fixture.file("docs", "a/2", b"two").await;
    copy_it(&fixture, from("docs", "a/1"), to("docs", "a/3")).await.expect("copied");
    fixture.messages().await;
    copy_it(&fixture, from("docs", "a"), to("docs", "b")).await.expect("copied");
    assert_eq!(fixture.happenings().await, ["+b/1", "+b/2", "+b/3"]);
    assert_eq!(fixture.kept().await, (2, 2, 2));
    assert_eq!(fixture.used("docs").await, (18, 6, 2));
    fixture.assert_sound().await;
    fixture.file("docs", "a/1", b"ONE").await;
    fixture.delete(ANN, "docs", "b/3", false).await.expect("deleted");
    fixture.much_later().await;
    assert_eq!(fixture.read("docs", "b/1").await, b"one");
    assert_eq!(fixture.kept().await, (3, 3, 3));
    fixture.delete(ANN, "docs", "a", true).await.expect("deleted");
    fixture.delete(ANN, "docs", "b", true).await.expect("deleted");
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn what_is_in_the_way_stays(kind: Kind) {
    let fixture = fixture(kind).await;
    for at in ["a", "b", "f/x", "g/y"] {
        fixture.file("docs", at, at.as_bytes()).await;
    }
    for (old, new) in [("a", "b"), ("a", "f"), ("f", "g"), ("f", "b"), ("a", "a"), ("a", "b/c")] {
        for replace in [Replace::Never, Replace::Always] {
            let outcome = move_it(&fixture, from("docs", old), To { replace, ..to("docs", new) }).await;
            if (old, new, replace) == ("a", "b", Replace::Always) {
                outcome.expect("a file takes a file's place");
                fixture.file("docs", "a", b"a").await;
                continue;
            }
            assert!(
                matches!(outcome, Err(SfsError::Exists { .. } | SfsError::Conflict(_))),
                "{old} to {new}, {replace:?}: {outcome:?}"
            );
        }
    }
    assert_eq!(fixture.read("docs", "b").await, b"a");
    let matching = To { replace: Replace::Matching(checksum(b"other")), ..to("docs", "b") };
    let refused = copy_it(&fixture, from("docs", "f/x"), matching).await;
    assert!(matches!(refused, Err(SfsError::NotAsExpected)), "{refused:?}");
    let matching = To { replace: Replace::Matching(checksum(b"a")), ..to("docs", "b") };
    copy_it(&fixture, from("docs", "f/x"), matching).await.expect("copied");
    assert_eq!(fixture.read("docs", "b").await, b"f/x");
    assert_eq!(fixture.used("docs").await, (10, 4, 2));
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn what_is_anothers_is_copied_if_it_may_be_read(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.namespace(BOB, "open", Visibility::Internal).await;
    fixture.namespace(BOB, "closed", Visibility::Private).await;
    for namespace in ["open", "closed"] {
        fixture.put_as(BOB, target(namespace, "a/b"), b"Bob's").await.expect("a file");
    }
    copy_it(&fixture, from("open", "a"), to("docs", "theirs")).await.expect("copied");
    fixture.delete(BOB, "open", "a", true).await.expect("deleted");
    fixture.much_later().await;
    assert_eq!(fixture.read("docs", "theirs/b").await, b"Bob's");
    let refused = copy_it(&fixture, from("closed", "a"), to("docs", "b")).await;
    assert!(matches!(refused, Err(SfsError::NotFound("namespace"))), "{refused:?}");
    fixture.assert_sound().await;
}

async fn what_is_too_large_is_moved_by_its_parts(kind: Kind) {
    let quotas = Quotas { tree_entries: 3, ..Quotas::default() };
    let fixture = Fixture::with(kind, SfsConfig { quotas, ..SfsConfig::default() }).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    for at in ["a/1", "a/2", "a/3", "b/1", "b/2"] {
        fixture.file("docs", at, b"x").await;
    }
    let refused = move_it(&fixture, from("docs", "a"), to("docs", "c")).await.expect_err("too much");
    assert!(refused.to_string().contains("more than 3 files and folders"), "{refused}");
    move_it(&fixture, from("docs", "b"), to("docs", "c")).await.expect("just right");
}
