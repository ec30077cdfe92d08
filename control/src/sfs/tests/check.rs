//! What a check finds, and what it does about it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use edd_events::database::Kind;

use super::fixture::{ANN, Fixture, checksum};
use crate::scratch::on_each_database;
use crate::sfs::check::{Check, Difference, Finding, Options, Outcome};
use crate::sfs::model::Visibility;
use crate::sfs::storage::BlobId;
use crate::sfs::store::blobs;

on_each_database![
    a_sound_share_has_no_differences,
    an_object_without_a_row_goes_unless_it_is_young,
    a_lost_object_is_told_with_its_files_and_they_stay,
    an_object_of_another_size_or_with_other_bytes_is_told,
    counts_are_counted_again,
    rows_that_belong_to_nothing_go,
    entries_get_their_folders_back,
    a_file_without_a_content_is_told,
    a_database_of_another_store_has_nothing_deleted,
];

const LOOK: Options = Options { reads_content: true, repairs: false, deletes_lost: false };
const REPAIR: Options = Options { repairs: true, ..LOOK };
const GIVE_UP: Options = Options { deletes_lost: true, ..REPAIR };

async fn fixture(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.file("docs", "a/b", b"bytes").await;
    fixture
}

async fn blob(fixture: &Fixture) -> BlobId {
    blobs::page(fixture.database.reader(), None, 10).await.expect("rows")[0].id
}

async fn write(fixture: &Fixture, id: BlobId, bytes: &'static [u8]) {
    let mut writer = fixture.store.create(id).await.expect("a writer");
    writer.write(Bytes::from_static(bytes)).await.expect("room");
    writer.finish().await.expect("an object");
}

#[track_caller]
fn outcomes(findings: &[Finding]) -> Vec<(&'static str, Outcome)> {
    findings.iter().map(|finding| (finding.difference.kind(), finding.outcome)).collect()
}

/// Looks, and repairs, and looks again.
async fn repaired(fixture: &Fixture, kind: &'static str) {
    let look = Options::default();
    assert_eq!(outcomes(&fixture.check(look).await), [(kind, Outcome::Repairable)]);
    assert_eq!(outcomes(&fixture.check(Options { repairs: true, ..look }).await), [(kind, Outcome::Repaired)]);
    assert_eq!(fixture.check(LOOK).await, []);
}

async fn a_sound_share_has_no_differences(kind: Kind) {
    let fixture = fixture(kind).await;
    for number in 0..20 {
        fixture.file("docs", &format!("a/{number}"), &vec![number; usize::from(number) * 1000]).await;
    }
    assert_eq!(fixture.check(GIVE_UP).await, []);
    assert_eq!(fixture.paths("docs").await.len(), 21);
}

async fn an_object_without_a_row_goes_unless_it_is_young(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = fixture.service.random_blob();
    write(&fixture, id, b"whose?").await;
    // Now, as the store knows it.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    fixture.clock.set(i64::try_from(now).expect("before 2262"));
    assert_eq!(outcomes(&fixture.check(REPAIR).await), [("stray", Outcome::TooYoung)]);
    fixture.clock.set(super::fixture::NOW);
    repaired(&fixture, "stray").await;
    fixture.assert_sound().await;
}

async fn a_lost_object_is_told_with_its_files_and_they_stay(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.file("docs", "other", b"other").await;
    let lost = fixture.open(ANN, "docs", "a/b").await.expect("a file").file.content;
    let id = blobs::page(fixture.database.reader(), None, 10).await.expect("rows");
    let id = id.iter().find(|blob| blob.content == Some(lost)).expect("its blob").id;
    fixture.store.delete(id).await.expect("lost");
    for options in [LOOK, REPAIR] {
        let findings = fixture.check(options).await;
        assert_eq!(outcomes(&findings), [("lost", Outcome::Kept)]);
        let text = format!("object {id} (5 bytes) is lost; damaged: docs/a/b");
        assert_eq!(findings[0].difference.to_string(), text);
    }
    fixture.messages().await;
    assert_eq!(outcomes(&fixture.check(GIVE_UP).await), [("lost", Outcome::Repaired)]);
    assert_eq!(fixture.happenings().await, ["-a/b"]);
    assert_eq!(fixture.paths("docs").await, ["other"]);
    assert_eq!(fixture.used("docs").await, (5, 1, 1));
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn an_object_of_another_size_or_with_other_bytes_is_told(kind: Kind) {
    let fixture = fixture(kind).await;
    let id = blob(&fixture).await;
    fixture.store.delete(id).await.expect("gone");
    write(&fixture, id, b"bytez").await;
    assert_eq!(fixture.check(Options::default()).await, [], "who does not read does not see");
    let findings = fixture.check(REPAIR).await;
    assert_eq!(outcomes(&findings), [("checksum", Outcome::Kept)]);
    let Difference::Damaged { what, files } = &findings[0].difference else { panic!("{findings:?}") };
    assert!(matches!(**what, Difference::Checksum { actual, .. } if actual == checksum(b"bytez")), "{what:?}");
    assert_eq!(files[0].path.as_str(), "a/b");
    fixture.store.delete(id).await.expect("gone");
    write(&fixture, id, b"byt").await;
    assert_eq!(outcomes(&fixture.check(REPAIR).await), [("size", Outcome::Kept)]);
    fixture.tamper("UPDATE blobs SET size = 3").await;
    assert_eq!(outcomes(&fixture.check(REPAIR).await), [("pieces", Outcome::Kept)]);
    assert_eq!(outcomes(&fixture.check(GIVE_UP).await), [("pieces", Outcome::Repaired)]);
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn counts_are_counted_again(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.tamper("UPDATE namespaces SET used_bytes = 7, files = 8, folders = 9").await;
    repaired(&fixture, "usage").await;
    assert_eq!(fixture.used("docs").await, (5, 1, 1));
    fixture.tamper("UPDATE contents SET refs = 2").await;
    repaired(&fixture, "references").await;
    fixture.delete(ANN, "docs", "a/b", false).await.expect("deleted");
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
}

async fn rows_that_belong_to_nothing_go(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.tamper("INSERT INTO contents (size, sha256, refs) SELECT 0, sha256, 1 FROM contents").await;
    repaired(&fixture, "references").await;
    let id = fixture.service.random_blob();
    blobs::insert(fixture.database.writer(), &[id], 1).await.expect("a row");
    write(&fixture, id, b"").await;
    fixture.tamper("UPDATE blobs SET due_at = NULL WHERE due_at IS NOT NULL").await;
    repaired(&fixture, "loose").await;
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (1, 1, 1));
    fixture.assert_sound().await;
}

async fn entries_get_their_folders_back(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.tamper("DELETE FROM files WHERE path = 'a'").await;
    fixture.tamper("UPDATE namespaces SET folders = 0").await;
    repaired(&fixture, "homeless").await;
    assert_eq!(fixture.used("docs").await, (5, 1, 1));
    fixture.assert_sound().await;
}

async fn a_file_without_a_content_is_told(kind: Kind) {
    let fixture = fixture(kind).await;
    fixture.tamper("DELETE FROM contents").await;
    let kinds = [("loose", Outcome::Repaired), ("headless", Outcome::Kept), ("usage", Outcome::Repaired)];
    assert_eq!(outcomes(&fixture.check(REPAIR).await), kinds);
    assert_eq!(outcomes(&fixture.check(GIVE_UP).await), [("headless", Outcome::Repaired)]);
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    assert_eq!(fixture.used("docs").await, (0, 0, 1));
    fixture.assert_sound().await;
}

async fn a_database_of_another_store_has_nothing_deleted(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.service.random_blob();
    write(&fixture, id, b"whose?").await;
    assert_eq!(outcomes(&fixture.check(LOOK).await), [("stray", Outcome::Repairable)]);
    let refused = Check::run(&fixture.service, REPAIR, &mut |_| {}).await.expect_err("another's");
    assert!(refused.to_string().contains("is it this store's?"), "{refused}");
    assert_eq!(fixture.kept().await, (1, 0, 0));
}
