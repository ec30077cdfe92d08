//! Users who are deleted.

use std::sync::Arc;

use edd_events::consumer::Handler;
use edd_events::database::Kind;
use edd_events::message::{Headers, Message};
use edd_events::publisher::Publisher;
use edd_proto::auth::UserDeleted;
use edd_proto::common::EventMetadata;
use edd_proto::{AnyEvent, Encoding};
use http::Method;
use serde_json::json;

use super::fixture::{ANN, BOB, Fixture};
use super::snapshot::assert_copied;
use crate::compute::SOURCE;
use crate::compute::service::Departures;
use crate::scratch::on_each_database;

on_each_database![
    what_a_deleted_user_had_goes_and_is_told,
    who_has_very_much_goes_piece_by_piece,
    a_deleted_user_makes_nothing_new,
];

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
        correlation_id: "the admin's request".to_owned(),
        trace_parent: String::new(),
        headers: Headers::default(),
    };
    let clock = Arc::new(fixture.clock.clone());
    let departures = Departures::new(Publisher::new(SOURCE, Encoding::Protobuf, clock.clone()), clock);
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    departures.handle(&message, &mut transaction).await.expect("an effect");
    fixture.database.commit(transaction).await.expect("a commit");
}

async fn what_a_deleted_user_had_goes_and_is_told(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    fixture.add_key(ANN, 1).await;
    fixture.add_key(BOB, 2).await;
    let rules = json!([{"port": 8000}, {"port": 8001}]);
    let id = fixture.create_as(ANN, json!({"name": "x", "ingress_rules": rules})).await;
    let bobs = fixture.create_as(BOB, json!({"name": "y"})).await;
    fixture.round().await;
    let mut all = fixture.messages().await;
    depart(&fixture, ANN).await;
    let told = fixture.messages().await;
    assert!(told.iter().all(|message| message.correlation_id == "the admin's request"));
    let mut kinds: Vec<_> = told.iter().map(|message| message.subject.rsplit('.').next().expect("a part")).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["delete_requested", "delete_requested", "deleted", "deleted"]);
    fixture.round().await;
    assert_eq!(fixture.platform.all(), [bobs], "{id} is gone");
    let keys = fixture.call(BOB, Method::GET, "/compute/ssh-keys").send().await.ok();
    assert_eq!(keys["ssh_keys"].as_array().map(Vec::len), Some(1));
    all.extend(told);
    depart(&fixture, ANN).await;
    fixture.reconciler().upkeep().await.expect("upkeep");
    assert_eq!(fixture.happenings().await, [""; 0], "once is enough");
    assert_copied(&fixture, &all).await;
}

async fn who_has_very_much_goes_piece_by_piece(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    for number in 0..60 {
        fixture.create(&format!("c{number}")).await;
    }
    fixture.messages().await;
    depart(&fixture, ANN).await;
    assert_eq!(fixture.messages().await.len(), 50);
    fixture.reconciler().upkeep().await.expect("upkeep");
    assert_eq!(fixture.messages().await.len(), 10);
    fixture.round().await;
    assert_eq!(fixture.platform.all(), []);
}

async fn a_deleted_user_makes_nothing_new(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    depart(&fixture, ANN).await;
    fixture.post("/compute/containers", json!({"name": "x"})).await.refused(403);
    let key = json!({"name": "k", "public_key": super::fixture::public_key(1)});
    fixture.post("/compute/ssh-keys", key).await.refused(403);
    fixture.create_as(BOB, json!({"name": "x"})).await;
}
