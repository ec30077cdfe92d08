//! Ports: asked for, answered, taken back.

use edd_events::clock::Clock;
use edd_events::consumer::Handler;
use edd_events::database::Kind;
use edd_events::message::{Headers, Message};
use edd_proto::common::EventMetadata;
use edd_proto::gateway::{IngressRuleCreated, IngressRuleDeleted, IngressRuleRejected};
use edd_proto::{AnyEvent, ContainerId, Encoding};
use serde_json::{Value, json};

use super::fixture::{Fixture, config};
use crate::compute::service::Answers;
use crate::scratch::on_each_database;

on_each_database![
    a_port_is_asked_for_and_taken_back,
    the_gateways_answer_is_shown_on_the_rule,
    an_answer_to_an_older_request_changes_nothing,
    rules_are_bounded,
];

async fn rules(fixture: &Fixture, id: ContainerId) -> Vec<Value> {
    let listed = fixture.get(&format!("/compute/containers/{id}/ingress")).await.ok();
    listed["rules"].as_array().expect("rules").clone()
}

/// Hears an event as the consumer does.
async fn hear(fixture: &Fixture, event: impl Into<AnyEvent>) {
    let mut event = event.into();
    let metadata = Some(EventMetadata {
        event_id: "018d2f4e-3800-7000-8000-000000000001".to_owned(),
        entity_id: "x".to_owned(),
        version: 1,
        schema_version: 1,
        ..Default::default()
    });
    match &mut event {
        AnyEvent::IngressRuleCreated(event) => event.metadata = metadata,
        AnyEvent::IngressRuleDeleted(event) => event.metadata = metadata,
        AnyEvent::IngressRuleRejected(event) => event.metadata = metadata,
        other => panic!("{other:?}"),
    }
    let message = Message {
        event_id: "1".to_owned(),
        subject: event.subject().expect("a subject").to_string(),
        entity: String::new(),
        version: 1,
        content_type: Encoding::Protobuf.content_type().to_owned(),
        payload: event.encode(Encoding::Protobuf).expect("bytes").into(),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: Headers::default(),
    };
    let mut transaction = fixture.database.begin().await.expect("a transaction");
    Answers.handle(&message, &mut transaction).await.expect("an effect");
    fixture.database.commit(transaction).await.expect("a commit");
}

fn created(id: ContainerId, request_id: i64) -> IngressRuleCreated {
    IngressRuleCreated { container_id: id.to_string(), port: 8000, request_id, ..Default::default() }
}

async fn a_port_is_asked_for_and_taken_back(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.create("x").await;
    fixture.events().await;
    let path = format!("/compute/containers/{id}/ingress");
    let rule = fixture.post(&path, json!({"port": 8000, "target_port": 3000, "protocol": "http"})).await.ok();
    let number = rule["id"].as_i64().expect("a number");
    let created_at = fixture.clock.now() / 1_000_000;
    let expected = json!({"id": number, "port": 8000, "target_port": 3000, "protocol": "http", "state": "pending",
        "created_at": created_at});
    assert_eq!(rule, expected);
    assert_eq!(rules(&fixture, id).await, [expected]);
    let event = fixture.events().await.pop().expect("an event");
    let AnyEvent::IngressRuleRequested(event) = event else { panic!("{event:?}") };
    assert_eq!((event.container_id.as_str(), event.port, event.target_port), (id.as_str(), 8000, 3000));
    assert_eq!((event.protocol, event.request_id), (1, number));
    let again = fixture.post(&path, json!({"port": 8000})).await.refused(409);
    assert!(again.contains("a rule for this port"), "{again}");
    fixture.delete(&format!("{path}/8000")).await.done();
    assert_eq!(rules(&fixture, id).await, [Value::Null; 0]);
    let event = fixture.events().await.pop().expect("an event");
    let AnyEvent::IngressRuleDeleteRequested(event) = event else { panic!("{event:?}") };
    assert_eq!((event.port, event.request_id), (8000, number));
    fixture.delete(&format!("{path}/8000")).await.refused(404);
    fixture.delete(&format!("{path}/-1")).await.refused(400);
    fixture.delete(&format!("{path}/99999999999")).await.refused(400);
    let again = fixture.post(&path, json!({"port": 8000})).await.ok();
    assert!(again["id"].as_i64().expect("a number") > number, "a number is never given twice");
    assert_eq!(again["target_port"], json!(8000));
}

async fn the_gateways_answer_is_shown_on_the_rule(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let id = fixture.create("x").await;
    let rule = fixture.post(&format!("/compute/containers/{id}/ingress"), json!({"port": 8000})).await.ok();
    let number = rule["id"].as_i64().expect("a number");
    let state = async || {
        let rule = rules(&fixture, id).await.remove(0);
        (rule["state"].as_str().expect("a state").to_owned(), rule["reason"].as_str().unwrap_or_default().to_owned())
    };
    hear(&fixture, created(id, number)).await;
    assert_eq!(state().await, ("active".to_owned(), String::new()));
    let message = "another rule\nholds it".to_owned();
    let request_id = number;
    hear(
        &fixture,
        IngressRuleRejected { container_id: id.to_string(), port: 8000, message, request_id, ..Default::default() },
    )
    .await;
    assert_eq!(state().await, ("rejected".to_owned(), "another ruleholds it".to_owned()));
    hear(&fixture, IngressRuleDeleted { container_id: id.to_string(), port: 8000, request_id, ..Default::default() })
        .await;
    assert!(state().await.1.contains("no longer serves"));
}

async fn an_answer_to_an_older_request_changes_nothing(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let (id, other) = (fixture.create("x").await, fixture.create("y").await);
    let path = format!("/compute/containers/{id}/ingress");
    let ask = async || fixture.post(&path, json!({"port": 8000})).await.ok()["id"].as_i64().expect("a number");
    let old = ask().await;
    fixture.delete(&format!("{path}/8000")).await.done();
    hear(&fixture, created(id, old)).await;
    let new = ask().await;
    let state = async || rules(&fixture, id).await[0]["state"].clone();
    hear(&fixture, created(id, old)).await;
    hear(&fixture, created(other, new)).await;
    hear(&fixture, created(id, 0)).await;
    assert_eq!(state().await, json!("pending"));
    hear(&fixture, created(id, new)).await;
    assert_eq!(state().await, json!("active"));
    hear(
        &fixture,
        IngressRuleDeleted { container_id: id.to_string(), port: 8000, request_id: old, ..Default::default() },
    )
    .await;
    assert_eq!(state().await, json!("active"));
}

async fn rules_are_bounded(kind: Kind) {
    let mut config = config();
    config.quotas.ingress_rules = 2;
    let fixture = Fixture::with(kind, config).await;
    let id = fixture.create("x").await;
    let path = format!("/compute/containers/{id}/ingress");
    for port in [8000, 8001] {
        fixture.post(&path, json!({"port": port})).await.ok();
    }
    let refused = fixture.post(&path, json!({"port": 8002})).await.refused(409);
    assert_eq!(refused, "you have 2 ingress rules for this container, which is the limit: delete one first");
    for (body, why) in [
        (json!({"port": 7999}), "port: 8000 to 8100"),
        (json!({"port": -8000}), "port: 8000 to 8100"),
        (json!({"port": 8002, "target_port": 0}), "target_port: 1 to 65535"),
        (json!({"port": 8002, "protocol": "udp"}), "protocol: auto"),
        (json!({"port": "8002"}), "`port`"),
        (json!({}), "port"),
    ] {
        let refused = fixture.post(&path, body).await.refused(400);
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(rules(&fixture, id).await.len(), 2);
}
