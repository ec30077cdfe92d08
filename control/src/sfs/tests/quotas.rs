//! How much somebody may have.

use bytes::Bytes;
use edd_events::database::Kind;
use futures_util::future::join_all;

use super::fixture::{ANN, BOB, Fixture, ROOT, actor, cause, name, path, target};
use crate::scratch::on_each_database;
use crate::sfs::config::{Quotas, SfsConfig};
use crate::sfs::error::{Quota, SfsError, Unit, Whose};
use crate::sfs::model::{Replace, Target, Visibility};
use crate::sfs::service::{Place, To};

on_each_database![
    a_refusal_names_the_limit_what_is_used_and_what_was_asked,
    what_is_replaced_makes_room,
    many_at_once_get_no_more_than_there_is,
    a_namespace_may_have_less,
    tiny_files_count_and_so_do_their_folders,
    copies_count_and_moves_do_not,
    what_moves_between_namespaces_of_one_owner_is_theirs_once,
];

async fn fixture(kind: Kind, quotas: Quotas) -> Fixture {
    let fixture = Fixture::with(kind, SfsConfig { quotas, ..SfsConfig::default() }).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.namespace(ANN, "pics", Visibility::Private).await;
    fixture
}

fn bytes(most: u64) -> Quotas {
    Quotas { user_bytes: most, ..Quotas::default() }
}

#[track_caller]
fn quota<T: std::fmt::Debug>(outcome: Result<T, SfsError>) -> Quota {
    match outcome.expect_err("too much") {
        SfsError::Quota(quota) => quota,
        other => panic!("{other}"),
    }
}

async fn a_refusal_names_the_limit_what_is_used_and_what_was_asked(kind: Kind) {
    let fixture = fixture(kind, bytes(1000)).await;
    fixture.file("docs", "a", &[1; 600]).await;
    // Before a byte is read, if it is said how many come.
    let said = Target { declared_bytes: Some(401), ..target("pics", "b") };
    let early = fixture.service.begin(&actor(ANN), said, &cause()).await.map(drop);
    let expected = Quota { whose: Whose::User, unit: Unit::Bytes, most: 1000, used: 600, asked: 401 };
    assert_eq!(quota(early), expected);
    assert_eq!(quota(fixture.put(target("pics", "b"), &[1; 401]).await), expected);
    let text =
        "the namespace's owner may have 1000 bytes, 600 are used, and this needs 401 more: delete something first";
    assert_eq!(expected.to_string(), text);
    fixture.put(target("pics", "b"), &[1; 400]).await.expect("all of it");
    // Whoever writes, it is the owner's.
    assert_eq!(quota(fixture.put_as(ROOT, target("pics", "c"), b"1").await).used, 1000);
    fixture.namespace(BOB, "bobs", Visibility::Private).await;
    fixture.put_as(BOB, target("bobs", "c"), &[1; 1000]).await.expect("Bob has his own");
    let usage = fixture.service.usage(&actor(ANN)).await.expect("usage");
    assert_eq!((usage.used_bytes, usage.most_bytes, usage.used_entries), (1000, 1000, 2));
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn what_is_replaced_makes_room(kind: Kind) {
    let fixture = fixture(kind, bytes(1000)).await;
    fixture.file("docs", "a", &[1; 900]).await;
    fixture.file("docs", "a", &[2; 1000]).await;
    let target = Target { replace: Replace::Always, ..target("docs", "a") };
    assert_eq!(quota(fixture.put(target.clone(), &[3; 1001]).await).asked, 1);
    fixture.file("docs", "a", &[4; 1000]).await;
    fixture.delete(ANN, "docs", "a", false).await.expect("deleted");
    fixture.put(target, &[5; 1000]).await.expect("free at once");
}

async fn many_at_once_get_no_more_than_there_is(kind: Kind) {
    let fixture = fixture(kind, bytes(1000)).await;
    let mut begun = Vec::new();
    for number in 0..8 {
        let service = fixture.another().await;
        let to = target(if number % 2 == 0 { "docs" } else { "pics" }, &format!("{number}"));
        let mut incoming = service.begin(&actor(ANN), to, &cause()).await.expect("there is room");
        incoming.write(Bytes::from(vec![1; 300])).await.expect("there is room");
        begun.push(incoming);
    }
    let outcomes = join_all(begun.into_iter().map(|incoming| incoming.finish(None))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 3);
    for outcome in lost {
        let expected = Quota { whose: Whose::User, unit: Unit::Bytes, most: 1000, used: 900, asked: 300 };
        assert_eq!(quota(outcome), expected);
    }
    assert_eq!(fixture.service.usage(&actor(ANN)).await.expect("usage").used_bytes, 900);
    fixture.much_later().await;
    fixture.assert_sound().await;
}

async fn a_namespace_may_have_less(kind: Kind) {
    let fixture = fixture(kind, bytes(1000)).await;
    let admin = actor(ROOT).admin.expect("an administrator");
    let limited = fixture.service.set_quota(admin, &name("docs"), Some(10)).await.expect("limited");
    assert_eq!((limited.quota_bytes, fixture.seen("docs").await), (Some(10), limited.clone()));
    fixture.file("docs", "a", &[1; 4]).await;
    let refused = quota(fixture.put(target("docs", "b"), &[1; 7]).await);
    assert_eq!(refused, Quota { whose: Whose::Namespace, unit: Unit::Bytes, most: 10, used: 4, asked: 7 });
    fixture.file("pics", "b", &[1; 7]).await;
    let (from, to) = (
        Place { namespace: name("pics"), path: path("b") },
        To { namespace: name("docs"), path: path("b"), replace: Replace::Never },
    );
    let moved = fixture.service.move_entry(&actor(ANN), &from, &to, &cause()).await;
    assert_eq!(quota(moved).whose, Whose::Namespace);
    fixture.service.set_quota(admin, &name("docs"), None).await.expect("unlimited");
    fixture.service.move_entry(&actor(ANN), &from, &to, &cause()).await.expect("moved");
    assert_eq!((fixture.used("docs").await, fixture.used("pics").await), ((11, 2, 0), (0, 0, 0)));
}

async fn tiny_files_count_and_so_do_their_folders(kind: Kind) {
    let fixture = fixture(kind, Quotas { user_entries: 5, ..Quotas::default() }).await;
    fixture.file("docs", "a/b/c", b"").await;
    let refused = quota(fixture.put(target("pics", "a/b/c"), b"").await);
    assert_eq!(refused, Quota { whose: Whose::User, unit: Unit::Entries, most: 5, used: 3, asked: 3 });
    let folder = fixture.service.make_folder(&actor(ANN), &name("pics"), &path("a/b/c"), &cause()).await;
    assert_eq!(quota(folder), refused);
    fixture.file("docs", "a/b/d", b"").await;
    fixture.file("docs", "a/b/e", b"").await;
    fixture.file("docs", "a/b/e", b"again").await;
    assert_eq!(quota(fixture.put(target("docs", "f"), b"").await).asked, 1);
    fixture.assert_sound().await;
}

async fn copies_count_and_moves_do_not(kind: Kind) {
    let fixture = fixture(kind, bytes(1000)).await;
    fixture.file("docs", "a/b", &[1; 600]).await;
    let (ann, why) = (actor(ANN), cause());
    let place = |namespace: &str, at: &str| Place { namespace: name(namespace), path: path(at) };
    let to = |namespace: &str, at: &str| To { namespace: name(namespace), path: path(at), replace: Replace::Never };
    let copied = fixture.service.copy_entry(&ann, &place("docs", "a"), &to("docs", "c"), &why).await;
    assert_eq!(quota(copied), Quota { whose: Whose::User, unit: Unit::Bytes, most: 1000, used: 600, asked: 600 });
    fixture.service.move_entry(&ann, &place("docs", "a"), &to("pics", "c"), &why).await.expect("moved");
    fixture.service.move_entry(&ann, &place("pics", "c/b"), &to("docs", "x/y/z"), &why).await.expect("moved");
    assert_eq!((fixture.used("docs").await, fixture.used("pics").await), ((600, 1, 2), (0, 0, 1)));
    fixture.assert_sound().await;
}

/// Also where the namespace has a limit of its own, which is about what comes.
async fn what_moves_between_namespaces_of_one_owner_is_theirs_once(kind: Kind) {
    let fixture = fixture(kind, Quotas { user_entries: 3, ..bytes(1000) }).await;
    let admin = actor(ROOT).admin.expect("an administrator");
    fixture.file("docs", "a/b", &[1; 600]).await;
    let (ann, why) = (actor(ANN), cause());
    let from = Place { namespace: name("docs"), path: path("a") };
    let to = |at: &str| To { namespace: name("pics"), path: path(at), replace: Replace::Never };
    fixture.service.set_quota(admin, &name("pics"), Some(599)).await.expect("limited");
    let refused = quota(fixture.service.move_entry(&ann, &from, &to("a"), &why).await);
    assert_eq!(refused, Quota { whose: Whose::Namespace, unit: Unit::Bytes, most: 599, used: 0, asked: 600 });
    fixture.service.set_quota(admin, &name("pics"), Some(600)).await.expect("limited");
    // The folders that it comes into are new.
    let refused = quota(fixture.service.move_entry(&ann, &from, &to("x/y/a"), &why).await);
    assert_eq!(refused, Quota { whose: Whose::User, unit: Unit::Entries, most: 3, used: 2, asked: 2 });
    fixture.service.move_entry(&ann, &from, &to("x/a"), &why).await.expect("moved");
    assert_eq!((fixture.used("docs").await, fixture.used("pics").await), ((0, 0, 0), (600, 1, 2)));
    fixture.assert_sound().await;
}
