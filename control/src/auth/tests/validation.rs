//! `auth.validate.request`, over the bus.

use std::time::Duration;

use bytes::Bytes;
use edd_events::bus::Bus;
use edd_events::database::Kind;
use edd_proto::auth::{Scope, ValidateTokenRequest, ValidateTokenResponse};
use edd_proto::{Encoding, Request};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::fixture::{Fixture, PASSWORD, on_each_database};

on_each_database![questions_are_answered_over_the_bus, a_question_that_is_none_is_answered_as_well];

async fn ask_bytes(fixture: &Fixture, question: Vec<u8>) -> ValidateTokenResponse {
    let mut answer = Err(edd_events::bus::BusError::NoAnswer(Duration::ZERO));
    // Until the responder, which has just been started, serves.
    for _ in 0..1000 {
        let question = Bytes::from(question.clone());
        answer = fixture.bus.ask(ValidateTokenRequest::SUBJECT, question, ValidateTokenRequest::TIMEOUT).await;
        if answer.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
    }
    Encoding::Protobuf.decode(&answer.expect("an answer")).expect("a response")
}

async fn ask(fixture: &Fixture, token: &str) -> ValidateTokenResponse {
    let question = ValidateTokenRequest { token: token.to_owned() };
    ask_bytes(fixture, Encoding::Protobuf.encode(&question).expect("bytes")).await
}

async fn questions_are_answered_over_the_bus(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(fixture.auth.clone().run(stop.clone()));
    let id = fixture.register("ann").await;
    let session = fixture.login("ann", PASSWORD).await;
    let resource = format!("compute.{id}");
    let wanted = json!({"name": "ci", "scopes": {&*resource: ["write", "read"]}, "expires_in": "30d"});
    let made = fixture.post("/api/tokens").token(&session).json(&wanted).send().await.ok();
    let (robot, record) = (made["token"].as_str().expect("a token"), made["id"].as_str().expect("an id"));

    let answer = ask(&fixture, &session).await;
    assert!(answer.valid && answer.scopes.is_empty(), "a session may do all that its user may: {answer:?}");
    assert_eq!((answer.username.as_str(), answer.user_uid.as_str()), ("ann", id.as_str()));
    assert_eq!(answer.expires_at.expect("a time").seconds, super::fixture::NOW / 1_000_000 + 24 * 3600);
    assert!(answer.user_id > 0 && answer.error.is_empty());
    let answer = ask(&fixture, robot).await;
    let scope = Scope { resource, actions: vec!["read".to_owned(), "write".to_owned()] };
    assert_eq!((answer.valid, &answer.scopes[..], answer.record_id.as_str()), (true, &[scope][..], record));

    fixture.delete(&format!("/api/tokens/{record}")).token(&session).send().await.done();
    fixture.post("/api/logout").token(&session).send().await.done();
    for token in [&*session, robot, "", "ecloud_", "a.b.c", &"x".repeat(100_000)] {
        let answer = ask(&fixture, token).await;
        let refusal = ValidateTokenResponse { error: answer.error.clone(), ..Default::default() };
        assert_eq!(answer, refusal, "nothing but why");
        assert!(answer.error.starts_with("not signed in: "), "{}", answer.error);
        assert!(token.is_empty() || token.len() < 8 || !answer.error.contains(token), "{}", answer.error);
    }
    stop.cancel();
    running.await.expect("no panic");
}

async fn a_question_that_is_none_is_answered_as_well(kind: Kind) {
    let fixture = Fixture::new(kind).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(fixture.auth.clone().run(stop.clone()));
    let answer = ask_bytes(&fixture, vec![0xff; 40]).await;
    assert!(!answer.valid);
    assert_eq!(answer.error, "the question is no auth.ValidateTokenRequest");
    stop.cancel();
    running.await.expect("no panic");
}
