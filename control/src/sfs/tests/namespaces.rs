//! Who has which, who sees them, and what is told of them.

use edd_events::database::Kind;
use edd_proto::AnyEvent;

use super::fixture::{ANN, BOB, Fixture, ROOT, actor, cause, name, path, target};
use crate::scratch::on_each_database;
use crate::sfs::config::{Quotas, SfsConfig};
use crate::sfs::error::SfsError;
use crate::sfs::model::{Namespace, Visibility, Visitor};
use crate::sfs::service::{Listed, NamespaceChange, NewNamespace, Which};

on_each_database![
    one_is_made_changed_and_deleted_and_told_of,
    who_may_not_see_one_learns_nothing,
    who_sees_one_may_not_change_it,
    names_are_unique_and_free_again,
    a_user_has_so_many,
    lists_have_pages_and_leave_hidden_ones_out,
    administrators_give_and_purge,
    the_name_of_a_deleted_one_leads_to_nothing_old,
];

fn names(listed: &[Namespace]) -> Vec<&str> {
    listed.iter().map(|it| it.name.as_str()).collect()
}

fn anybody() -> Visitor {
    Visitor::Anybody
}

async fn one_is_made_changed_and_deleted_and_told_of(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let made = fixture.namespace(ANN, "docs", Visibility::Private).await;
    let change = NamespaceChange { visibility: Some(Visibility::Public), ..NamespaceChange::default() };
    let shown = fixture.service.change_namespace(&actor(ANN), &name("docs"), change, &cause()).await.expect("shown");
    let change = NamespaceChange { name: Some(name("papers")), is_hidden: Some(true), ..NamespaceChange::default() };
    let called = fixture.service.change_namespace(&actor(ANN), &name("docs"), change, &cause()).await.expect("called");
    assert_eq!((called.name.as_str(), called.is_hidden, called.visibility), ("papers", true, Visibility::Public));
    // What changes nothing for others is not told.
    let change = NamespaceChange { is_hidden: Some(false), ..NamespaceChange::default() };
    fixture.service.change_namespace(&actor(ANN), &name("papers"), change, &cause()).await.expect("not hidden");
    assert_eq!(fixture.seen("papers").await, Namespace { is_hidden: false, ..called.clone() });
    fixture.service.delete_namespace(&actor(ANN), &name("papers"), &cause()).await.expect("deleted");
    let events = fixture.events().await;
    let [
        AnyEvent::NamespaceCreated(created),
        AnyEvent::NamespaceVisibilityChanged(first),
        AnyEvent::NamespaceVisibilityChanged(second),
        AnyEvent::NamespaceDeleted(deleted),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!((created.namespace_id, &*created.name, &*created.visibility), (made.number, "docs", "private"));
    assert_eq!((created.owner_id, &*created.owner_uid), (i64::from(b'V'), ANN));
    assert_eq!((&*first.old_visibility, &*first.new_visibility, &*first.name), ("private", "public", "docs"));
    assert_eq!((&*second.old_visibility, &*second.new_visibility, &*second.name), ("public", "public", "papers"));
    assert_eq!((deleted.namespace_id, &*deleted.name, &*deleted.owner_uid), (made.number, "papers", ANN));
    assert!(made.version < shown.version && shown.version < called.version);
}

async fn who_may_not_see_one_learns_nothing(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for (called, visibility) in
        [("mine", Visibility::Private), ("ours", Visibility::Internal), ("all", Visibility::Public)]
    {
        fixture.namespace(ANN, called, visibility).await;
        fixture.file(called, "a/b.txt", b"bytes").await;
    }
    let visitors = [anybody(), actor(BOB).into(), actor(ANN).into(), actor(ROOT).into()];
    for (called, seen_by) in [("mine", 2), ("ours", 1), ("all", 0), ("none", 4)] {
        for (index, visitor) in visitors.iter().enumerate() {
            let found = [
                fixture.service.namespace(visitor, &name(called)).await.err(),
                fixture.service.stat(visitor, &name(called), &path("a/b.txt")).await.err(),
                fixture.service.open(visitor, &name(called), &path("a/b.txt")).await.err(),
                fixture.service.list(visitor, &name(called), &Default::default()).await.err(),
            ];
            for error in found {
                match error {
                    None => assert!(index >= seen_by, "{called} for {visitor:?}"),
                    Some(SfsError::NotFound("namespace")) => assert!(index < seen_by, "{called} for {visitor:?}"),
                    Some(other) => panic!("{other}"),
                }
            }
        }
    }
    let refused = fixture.put_as(BOB, target("mine", "x"), b"x").await.expect_err("not Bob's");
    assert!(matches!(refused, SfsError::NotFound("namespace")), "{refused}");
}

async fn who_sees_one_may_not_change_it(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "all", Visibility::Public).await;
    fixture.file("all", "a", b"a").await;
    let (service, bob, all) = (&fixture.service, actor(BOB), name("all"));
    let refused = [
        fixture.put_as(BOB, target("all", "x"), b"x").await.err(),
        fixture.delete(BOB, "all", "a", false).await.err(),
        service.make_folder(&bob, &all, &path("f"), &cause()).await.err(),
        service.delete_namespace(&bob, &all, &cause()).await.err(),
        service.change_namespace(&bob, &all, NamespaceChange::default(), &cause()).await.err(),
    ];
    for error in refused {
        assert!(matches!(error, Some(SfsError::NotYours)), "{error:?}");
    }
    fixture.put_as(ROOT, target("all", "x"), b"x").await.expect("administrators may");
    assert_eq!(fixture.paths("all").await, ["a", "x"]);
}

async fn names_are_unique_and_free_again(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.namespace(BOB, "other", Visibility::Private).await;
    let new = |called| NewNamespace { name: name(called), visibility: Visibility::Private, is_hidden: false };
    let taken = fixture.service.create_namespace(&actor(BOB), new("docs"), &cause()).await.expect_err("taken");
    assert!(matches!(&taken, SfsError::Conflict(text) if text.contains("docs")), "{taken}");
    let change = NamespaceChange { name: Some(name("docs")), ..NamespaceChange::default() };
    let taken = fixture.service.change_namespace(&actor(BOB), &name("other"), change, &cause()).await;
    assert!(matches!(taken, Err(SfsError::Conflict(_))), "{taken:?}");
    fixture.service.delete_namespace(&actor(ANN), &name("docs"), &cause()).await.expect("deleted");
    fixture.service.create_namespace(&actor(BOB), new("docs"), &cause()).await.expect("free again");
}

async fn a_user_has_so_many(kind: Kind) {
    let config = SfsConfig { quotas: Quotas { namespaces: 2, ..Quotas::default() }, ..SfsConfig::default() };
    let fixture = Fixture::with(kind, config).await;
    fixture.namespace(ANN, "a", Visibility::Private).await;
    fixture.namespace(ANN, "b", Visibility::Private).await;
    fixture.namespace(BOB, "c", Visibility::Private).await;
    let new = NewNamespace { name: name("d"), visibility: Visibility::Private, is_hidden: false };
    let refused = fixture.service.create_namespace(&actor(ANN), new, &cause()).await.expect_err("too many");
    assert_eq!(refused.to_string(), "you have 2 namespaces, which is the limit: delete one first");
}

async fn lists_have_pages_and_leave_hidden_ones_out(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for (user, called, visibility, is_hidden) in [
        (ANN, "b-private", Visibility::Private, false),
        (ANN, "a-hidden", Visibility::Public, true),
        (ANN, "c-internal", Visibility::Internal, false),
        (ANN, "ca", Visibility::Public, false),
        (BOB, "d", Visibility::Private, false),
    ] {
        let new = NewNamespace { name: name(called), visibility, is_hidden };
        fixture.service.create_namespace(&actor(user), new, &cause()).await.expect("a namespace");
    }
    let (ann, bob) = (Visitor::User(actor(ANN)), Visitor::User(actor(BOB)));
    for (visitor, which, listed) in [
        (&ann, Listed::Own, &["a-hidden", "b-private", "c-internal", "ca"][..]),
        (&ann, Listed::All, &["a-hidden", "b-private", "c-internal", "ca"]),
        (&bob, Listed::Own, &["d"]),
        (&bob, Listed::All, &["c-internal", "ca", "d"]),
        (&anybody(), Listed::All, &["ca"]),
        (&anybody(), Listed::Own, &[]),
    ] {
        let all = fixture.service.namespaces(visitor, which, None, 10).await.expect("a list");
        assert_eq!(names(&all), listed, "{visitor:?} {which:?}");
        let mut paged = Vec::new();
        while let Some(next) =
            fixture.service.namespaces(visitor, which, paged.last(), 1).await.expect("a page").pop().map(|it| it.name)
        {
            paged.push(next);
        }
        assert_eq!(paged.iter().map(|it| it.as_str()).collect::<Vec<_>>(), listed, "{visitor:?} {which:?}");
    }
}

async fn administrators_give_and_purge(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let admin = actor(ROOT).admin.expect("an administrator");
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.namespace(BOB, "pics", Visibility::Private).await;
    fixture.file("docs", "a", b"12345").await;
    fixture.messages().await;
    let (service, docs) = (&fixture.service, name("docs"));
    let given = service.reassign(admin, &docs, actor(BOB).owner, &cause()).await.expect("given");
    assert_eq!(given.owner, Some(actor(BOB).owner));
    let events = fixture.events().await;
    assert!(matches!(&events[..], [AnyEvent::NamespaceVisibilityChanged(it)] if it.owner_uid == BOB), "{events:?}");
    fixture.open(BOB, "docs", "a").await.expect("Bob's now");
    assert!(matches!(fixture.open(ANN, "docs", "a").await, Err(SfsError::NotFound(_))));
    assert_eq!(service.usage(&actor(BOB)).await.expect("usage").used_bytes, 5);
    assert_eq!(service.usage(&actor(ANN)).await.expect("usage").used_bytes, 0);
    let all = service.all_namespaces(admin, Which::All, None, 10).await.expect("a list");
    assert_eq!(names(&all), ["docs", "pics"]);
    assert_eq!(service.all_namespaces(admin, Which::Orphaned, None, 10).await.expect("a list"), []);
    service.purge(admin, &docs, &cause()).await.expect("purged");
    assert!(matches!(service.purge(admin, &docs, &cause()).await, Err(SfsError::NotFound(_))));
    fixture.much_later().await;
    assert_eq!(fixture.kept().await, (0, 0, 0));
    fixture.assert_sound().await;
}

async fn the_name_of_a_deleted_one_leads_to_nothing_old(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.file("docs", "a/secret", b"old").await;
    fixture.service.delete_namespace(&actor(ANN), &name("docs"), &cause()).await.expect("deleted");
    fixture.namespace(ANN, "docs", Visibility::Public).await;
    assert_eq!(fixture.used("docs").await, (0, 0, 0));
    assert_eq!(fixture.paths("docs").await, Vec::<String>::new());
    let old = fixture.service.open(&anybody(), &name("docs"), &path("a/secret")).await;
    assert!(matches!(old, Err(SfsError::NotFound("file or folder"))), "{old:?}");
    fixture.file("docs", "a/secret", b"new").await;
    fixture.much_later().await;
    assert_eq!(fixture.read("docs", "a/secret").await, b"new");
    assert_eq!((fixture.count("namespaces").await, fixture.count("files").await), (1, 2));
    fixture.assert_sound().await;
}
