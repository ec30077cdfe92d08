//! Users who are deleted.

use std::sync::Arc;

use bytes::Bytes;
use edd_events::consumer::Handler;
use edd_events::database::Kind;
use edd_events::message::{Headers, Message};
use edd_events::publisher::Publisher;
use edd_proto::auth::UserDeleted;
use edd_proto::common::EventMetadata;
use edd_proto::{AnyEvent, Encoding};

use super::fixture::{ANN, BOB, Fixture, ROOT, actor, cause, name, target};
use crate::scratch::on_each_database;
use crate::sfs::SOURCE;
use crate::sfs::config::{OnUserDelete, Quotas, SfsConfig};
use crate::sfs::error::SfsError;
use crate::sfs::model::Visibility;
use crate::sfs::service::{Departures, NewNamespace, Which};

on_each_database![
    what_they_had_is_nobodys,
    what_they_had_is_deleted,
    who_has_very_much_is_seen_to_piece_by_piece,
    a_deleted_user_makes_nothing_new,
];

async fn fixture(kind: Kind, on_user_delete: OnUserDelete) -> Fixture {
    let quotas = Quotas { namespaces: 1000, ..Quotas::default() };
    Fixture::with(kind, SfsConfig { on_user_delete, quotas, ..SfsConfig::default() }).await
}

async fn depart(fixture: &Fixture, user: &str) {
    let metadata = Some(EventMetadata {
        event_id: "018d2f4e-3800-7000-8000-000000000001".to_owned(),
        entity_id: user.to_owned(),
        version: 2,
        schema_version: 1,
        ..Default::default()
    });
    let event = AnyEvent::from(UserDeleted { metadata, user_uid: user.to_owned(), ..Default::default() });
    let message = Message {
        event_id: "1".to_owned(),
        subject: event.subject().expect("a subject").to_string(),
        entity: String::new(),
        version: 2,
        content_type: Encoding::Protobuf.content_type().to_owned(),
        payload: event.encode(Encoding::Protobuf).expect("bytes").into(),
        correlation_id: "the request".to_owned(),
        trace_parent: String::new(),
        headers: Headers::default(),
    };
    let (clock, policy) = (Arc::new(fixture.clock.clone()), fixture.service.config().on_user_delete);
    let departures = Departures::new(Publisher::new(SOURCE, Encoding::Protobuf, clock.clone()), clock, policy);
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    departures.handle(&message, &mut transaction).await.expect("an effect");
    fixture.database.commit(transaction).await.expect("a commit");
}

async fn what_they_had_is_nobodys(kind: Kind) {
    let fixture = fixture(kind, OnUserDelete::Orphan).await;
    fixture.namespace(ANN, "all", Visibility::Public).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.namespace(BOB, "bobs", Visibility::Private).await;
    fixture.file("docs", "a", b"bytes").await;
    fixture.file("all", "a", b"bytes").await;
    fixture.events().await;
    depart(&fixture, ANN).await;
    let events = fixture.events().await;
    let [AnyEvent::NamespaceVisibilityChanged(first), AnyEvent::NamespaceVisibilityChanged(second)] = &events[..]
    else {
        panic!("{events:?}")
    };
    for (event, called, visibility) in [(first, "all", "public"), (second, "docs", "private")] {
        assert_eq!((&*event.name, &*event.old_visibility, &*event.new_visibility), (called, visibility, visibility));
        assert_eq!((event.owner_id, &*event.owner_uid), (0, ""));
    }
    depart(&fixture, ANN).await;
    fixture.much_later().await;
    assert_eq!(fixture.events().await, [], "once is enough");
    let admin = actor(ROOT).admin.expect("an administrator");
    let orphaned = fixture.service.all_namespaces(admin, Which::Orphaned, None, 10).await.expect("a list");
    assert_eq!(
        orphaned.iter().map(|it| (it.name.as_str(), it.owner)).collect::<Vec<_>>(),
        [("all", None), ("docs", None)]
    );
    fixture.open(BOB, "all", "a").await.expect("it is as public as before");
    assert!(matches!(fixture.open(BOB, "docs", "a").await, Err(SfsError::NotFound("namespace"))));
    fixture.put_as(ROOT, target("docs", "b"), b"more").await.expect("administrators write");
    fixture.service.reassign(admin, &name("docs"), actor(BOB).owner, &cause()).await.expect("given");
    fixture.open(BOB, "docs", "a").await.expect("Bob's now");
    let refused = fixture.service.reassign(admin, &name("all"), actor(ANN).owner, &cause()).await;
    assert!(matches!(refused, Err(SfsError::Conflict(_))), "{refused:?}");
    fixture.assert_sound().await;
}

async fn what_they_had_is_deleted(kind: Kind) {
    let fixture = fixture(kind, OnUserDelete::Delete).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    fixture.namespace(BOB, "bobs", Visibility::Private).await;
    fixture.file("docs", "a/b", b"bytes").await;
    fixture.put_as(BOB, target("bobs", "a"), b"Bob's").await.expect("a file");
    fixture.events().await;
    depart(&fixture, ANN).await;
    let events = fixture.events().await;
    assert!(matches!(&events[..], [AnyEvent::NamespaceDeleted(it)] if it.owner_uid == ANN), "{events:?}");
    assert!(matches!(fixture.open(ROOT, "docs", "a/b").await, Err(SfsError::NotFound("namespace"))));
    depart(&fixture, ANN).await;
    fixture.much_later().await;
    assert_eq!(fixture.events().await, [], "once is enough");
    assert_eq!((fixture.kept().await, fixture.count("files").await), ((1, 1, 1), 1));
    fixture.assert_sound().await;
}

async fn who_has_very_much_is_seen_to_piece_by_piece(kind: Kind) {
    for policy in [OnUserDelete::Orphan, OnUserDelete::Delete] {
        let fixture = fixture(kind, policy).await;
        for number in 0..60 {
            fixture.namespace(ANN, &format!("n{number}"), Visibility::Private).await;
        }
        fixture.messages().await;
        depart(&fixture, ANN).await;
        assert_eq!(fixture.messages().await.len(), 50);
        fixture.keep().await;
        assert_eq!(fixture.messages().await.len(), 10);
        assert_eq!(fixture.service.usage(&actor(ANN)).await.expect("usage").used_bytes, 0);
        let left = if policy == OnUserDelete::Orphan { 60 } else { 0 };
        assert_eq!(fixture.count("namespaces").await, left);
    }
}

async fn a_deleted_user_makes_nothing_new(kind: Kind) {
    let fixture = fixture(kind, OnUserDelete::Orphan).await;
    fixture.namespace(ANN, "docs", Visibility::Private).await;
    let mut incoming = fixture.service.begin(&actor(ANN), target("docs", "a"), &cause()).await.expect("begun");
    incoming.write(Bytes::from_static(b"bytes")).await.expect("room");
    depart(&fixture, ANN).await;
    let refused = incoming.finish(None).await.expect_err("gone");
    assert!(matches!(refused, SfsError::NotFound("namespace")), "{refused}");
    let new = NewNamespace { name: name("new"), visibility: Visibility::Private, is_hidden: false };
    let refused = fixture.service.create_namespace(&actor(ANN), new, &cause()).await;
    assert!(matches!(refused, Err(SfsError::OwnerGone)), "{refused:?}");
    fixture.much_later().await;
    fixture.assert_sound().await;
}
