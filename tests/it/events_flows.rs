//! What is done to a user reaches every service, in one process and in separate ones: the flows of the contract that
//! need auth alone.

use bytes::Bytes;
use edd_events::bus::Bus;
use edd_events::bus::jetstream::{JetStreamBus, JetStreamConfig};
use edd_proto::auth::{ValidateTokenRequest, ValidateTokenResponse};
use edd_proto::{Encoding, Request, STREAMS, Stream};
use edd_servers::nats::Nats;
use edd_servers::postgres::Postgres;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Deployment, Role};

/// A user's whole life in all copies.
async fn live(deployment: &Deployment) {
    let (ann, bob) = (deployment.register().await, deployment.register().await);
    let renamed = json!({"display_name": "Ann of Green Gables"});
    deployment.ask("PUT /api/settings/profile", &ann.token, &renamed).await;
    deployment.delete(&bob.id).await;
    deployment.converged().await;
    for service in ["sfs", "compute", "gateway"] {
        let copy = deployment.copy(service).await.expect("a copy");
        let of = |id: &str| copy.iter().find(|row| row.key == id).expect("a row");
        assert_eq!(of(&ann.id).fields[..2], [ann.name.as_str().into(), "Ann of Green Gables".into()], "{service}");
        assert!(of(&bob.id).deleted && !of(&ann.id).deleted, "{service}: {copy:?}");
    }
}

#[tokio::test]
async fn users_are_known_everywhere_in_one_process() {
    let mut deployment = Deployment::single();
    deployment.start().await;
    live(&deployment).await;
}

#[tokio::test]
async fn users_are_known_everywhere_in_separate_processes() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start().await;
    live(&deployment).await;
}

/// A request needs auth and its database, and nothing else.
#[tokio::test]
async fn a_registration_does_not_need_the_broker() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start().await;
    deployment.converged().await;
    nats.stop();
    let ann = deployment.register().await;
    assert!(deployment.outbox().await >= 1, "her registration waits");
    let copy = deployment.copy("sfs").await.expect("a copy");
    assert!(copy.iter().all(|row| row.key != ann.id), "nobody was told: {copy:?}");
    nats.restart();
    deployment.converged().await;
    assert_eq!(deployment.outbox().await, 0);
}

/// What a service missed it gets from the users' owner; the owner it can wait for.
#[tokio::test]
async fn a_service_that_comes_late_is_told_what_it_missed() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start_one(Role::Sfs).await;
    let is_lacking = |text: &str| text.contains("the projection may lack what its owner has");
    let warned = deployment.process(Role::Sfs).wait_log("a warning", |line| is_lacking(&line.text)).await;
    assert_eq!(warned.field("level"), "WARN");
    for role in [Role::Auth, Role::Gateway] {
        deployment.start_one(role).await;
    }
    let users = [deployment.register().await, deployment.register().await];
    deployment.start_one(Role::Compute).await;
    for role in [Role::Sfs, Role::Compute, Role::Gateway] {
        let is_snapshot = |text: &str| text.contains("took a snapshot of the owner's state");
        let snapshot = deployment.process(role).wait_log("a snapshot", |line| is_snapshot(&line.text)).await;
        let read: usize = snapshot.field("read").parse().expect("a number");
        assert!(read > if role == Role::Compute { users.len() } else { 0 }, "{role:?}: {}", snapshot.text);
    }
    deployment.converged().await;
}

/// Old programs ask for it on plain NATS. A stream that kept the question would keep the token, and answer in auth's
/// place.
#[tokio::test]
async fn a_token_is_validated_over_the_bus_and_kept_nowhere() {
    let nats = Nats::start();
    let mut deployment = Deployment::separate(&nats, Postgres::shared());
    deployment.start().await;
    let ann = deployment.register().await;
    deployment.converged().await;
    let config = JetStreamConfig { urls: nats.url(), name: "an old program".to_owned(), ..JetStreamConfig::default() };
    let bus = JetStreamBus::connect(&config).await.expect("a connection");
    let lengths = async || {
        let mut lengths = Vec::new();
        // The gateway tells of its routes when it likes, and no stream of it could take this subject.
        for stream in STREAMS.into_iter().filter(|stream| *stream != Stream::GATEWAY) {
            lengths.push(bus.stream(stream.name).await.expect("a stream").last_seq);
        }
        lengths
    };
    let before = lengths().await;
    for (token, expected) in [(ann.token.as_str(), Some(ann.id.as_str())), ("ecloud_nobodys", None)] {
        let question = Encoding::Protobuf.encode(&ValidateTokenRequest { token: token.to_owned() }).expect("bytes");
        let (subject, timeout) = (ValidateTokenRequest::SUBJECT, ValidateTokenRequest::TIMEOUT);
        let answer = bus.ask(subject, Bytes::from(question), timeout).await.expect("an answer within two seconds");
        let answer: ValidateTokenResponse = Encoding::Protobuf.decode(&answer).expect("auth's own answer");
        assert_eq!((answer.valid, answer.valid.then_some(answer.user_uid.as_str())), (expected.is_some(), expected));
        assert_eq!(answer.error.is_empty(), expected.is_some(), "{}", answer.error);
    }
    assert_eq!(lengths().await, before);
    deployment.end(Role::Auth, Signal::TERM).await;
    let silence = bus.ask(ValidateTokenRequest::SUBJECT, Bytes::new(), ValidateTokenRequest::TIMEOUT).await;
    assert!(silence.is_err(), "who answers without auth? {silence:?}");
}
