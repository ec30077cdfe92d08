//! What only this bus does, on real servers.

mod broker_gone;
mod layouts;
mod permissions;
mod tls;

use edd_proto::{CONSUMERS, STREAMS};
use edd_servers::nats::Nats;
use serde_json::json;

use super::*;
use crate::bus::conformance::{self, AUDITOR, KEYS, MAILER, USERS, message};

const PATIENCE: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(50);
/// Which takes nobody at his word.
const BATCH: usize = 256;

fn config(nats: &Nats) -> JetStreamConfig {
    JetStreamConfig { urls: nats.url(), name: "test".to_owned(), ..JetStreamConfig::default() }
}

async fn connect(nats: &Nats) -> JetStreamBus {
    JetStreamBus::connect(&config(nats)).await.expect("settings")
}

/// A bus with the streams and consumers of the conformance tests.
async fn bus(nats: &Nats) -> JetStreamBus {
    let bus = connect(nats).await;
    bus.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.expect("streams and consumers");
    bus
}

impl JetStreamBus {
    /// What an operator would ask with the `nats` command.
    async fn admin(&self, subject: &str, body: Value) -> Value {
        self.connection.api(subject, &body).await.expect(subject)
    }

    /// Has unanswered messages come again after `wait` instead of [`crate::bus::ACK_WAIT`].
    async fn shorten_ack_wait(&self, consumer: &Consumer, wait: Duration) {
        let path = format!("{}.{}", consumer.stream.name, consumer.name);
        let mut config = self.admin(&format!("CONSUMER.INFO.{path}"), Value::Null).await["config"].take();
        config["ack_wait"] = json!(wait.as_nanos() as u64);
        let request = json!({"stream_name": consumer.stream.name, "config": config});
        self.admin(&format!("CONSUMER.CREATE.{path}"), request).await;
    }

    async fn ids(&self, stream: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut next = 1;
        loop {
            let found = self.read(stream, next, &["user.>"], 1000).await.expect("messages");
            let Some((last, _)) = found.last() else { return ids };
            next = last + 1;
            ids.extend(found.into_iter().map(|(_, message)| message.event_id));
        }
    }
}

/// `count` changes of a few entities in turn.
fn changes(count: usize) -> Vec<Message> {
    let change = |number: usize| message(&number.to_string(), &format!("user.u{}.updated", number % 7));
    (0..count).map(change).collect()
}

fn ids_of(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.event_id.clone()).collect()
}

/// Publishes as a relay does: what is not taken is published again, from there on.
async fn publish_all(bus: &JetStreamBus, messages: &[Message]) {
    let mut taken = 0;
    while taken < messages.len() {
        let end = messages.len().min(taken + BATCH);
        let (positions, failure) = bus.publish(&messages[taken..end]).await;
        taken += positions.len();
        if let Some(error) = failure {
            assert!(matches!(error, BusError::Unavailable(_)), "{error}");
        }
    }
}

#[tokio::test]
async fn it_is_a_bus() {
    let nats = Nats::start();
    conformance::check(Arc::new(connect(&nats).await)).await;
}

#[tokio::test]
async fn many_messages_keep_their_order() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    let messages = changes(10_000);
    for batch in messages.chunks(BATCH) {
        let (positions, failure) = bus.publish(batch).await;
        assert!(failure.is_none() && positions.len() == batch.len(), "{failure:?}");
    }
    let mut pulled = Vec::new();
    while pulled.len() < messages.len() {
        for delivery in bus.pull(&AUDITOR, BATCH, PATIENCE).await.expect("deliveries") {
            assert_eq!((delivery.seq, delivery.delivered), (pulled.len() as u64 + 1, 1));
            bus.answer(&AUDITOR, &delivery, Answer::Ack).await.expect("an answer");
            pulled.push(delivery.message);
        }
    }
    assert_eq!(pulled, messages);
    assert_eq!(bus.ids("USERS").await, ids_of(&messages));
    let state = bus.consumer(&AUDITOR).await.expect("a state");
    assert_eq!((state.ack_floor, state.waiting, state.unanswered), (10_000, 0, 0));
}

#[tokio::test]
async fn a_sign_of_life_holds_off_the_next_delivery() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    bus.shorten_ack_wait(&AUDITOR, Duration::from_secs(1)).await;
    bus.publish(&[message("1", "user.a.created")]).await;
    let delivery = bus.pull(&AUDITOR, 1, PATIENCE).await.expect("a delivery").remove(0);
    // Three times as long as it may go without.
    for _ in 0..12 {
        bus.answer(&AUDITOR, &delivery, Answer::InProgress).await.expect("a sign of life");
        let again = bus.pull(&AUDITOR, 1, Duration::from_millis(250)).await.expect("no error");
        assert!(again.is_empty(), "delivered to two at once");
    }
    let again = bus.pull(&AUDITOR, 1, PATIENCE).await.expect("a delivery").remove(0);
    assert_eq!((again.seq, again.delivered), (1, 2));
}

/// The stream of the contract does not keep questions, so that its acknowledgement is not taken for the answer, and the
/// tokens in them are not kept.
#[tokio::test]
async fn a_question_about_a_token_is_answered_by_the_service_and_kept_nowhere() {
    const SUBJECT: &str = "auth.validate.request";
    let nats = Nats::start();
    let (bus, other) = (connect(&nats).await, connect(&nats).await);
    bus.ensure(&STREAMS, &CONSUMERS).await.expect("streams and consumers");
    assert!(matches!(other.ask(SUBJECT, "token".into(), PATIENCE).await, Err(BusError::NoAnswer(_))));
    let mut questions = bus.serve(SUBJECT).await.expect("a service");
    let (answer, ()) = tokio::join!(other.ask(SUBJECT, "token".into(), PATIENCE), async {
        let question = questions.recv().await.expect("a question");
        assert_eq!(question.payload, "token");
        question.reply.send("valid".into()).expect("somebody waits");
    });
    assert_eq!(answer.expect("an answer"), "valid");
    for stream in STREAMS {
        assert_eq!(bus.stream(stream.name).await.expect("a state").last_seq, 0, "{}", stream.name);
    }
    drop(questions);
    // Nobody is left, which is known sooner or later, but at once when it is.
    while let Err(error) = other.ask(SUBJECT, "token".into(), MOMENT).await {
        if matches!(error, BusError::NoAnswer(_)) {
            return;
        }
    }
    panic!("an answer from nobody");
}

#[tokio::test]
async fn messages_of_other_publishers_are_handed_on() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    let raw = bus.connection.client();
    raw.publish("user.a.created", Bytes::from_static(b"\xff\xff")).await.expect("sent");
    raw.publish("user.a.created", Bytes::new()).await.expect("sent");
    bus.publish(&[message("1", "user.b.created")]).await;
    let mut deliveries = bus.pull(&MAILER, 10, PATIENCE).await.expect("deliveries");
    while deliveries.len() < 3 {
        deliveries.extend(bus.pull(&MAILER, 10, PATIENCE).await.expect("deliveries"));
    }
    let ids: Vec<_> = deliveries.iter().map(|delivery| delivery.message.event_id.clone()).collect();
    assert!(ids[0].starts_with("USERS-1-") && ids[1].starts_with("USERS-2-"), "{ids:?}");
    assert_eq!(deliveries[0].message.payload, Bytes::from_static(b"\xff\xff"));
    assert_eq!((ids[2].as_str(), deliveries[0].message.entity.as_str()), ("1", "user.a"));
    // The same names whoever reads.
    assert_eq!(bus.ids("USERS").await, ids);
    bus.answer(&MAILER, &deliveries[0], Answer::Terminate).await.expect("an answer");
    bus.answer(&MAILER, &deliveries[1], Answer::Ack).await.expect("an answer");
    assert_eq!(bus.consumer(&MAILER).await.expect("a state").ack_floor, 2);
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_holds_up_only_what_follows() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    let mut messages = changes(5);
    messages[2].payload = Bytes::from(vec![0; 1024 * 1024]);
    messages[4].trace_parent = "a\r\nb".to_owned();
    for (first, taken) in [(0, 2), (3, 1)] {
        let (positions, failure) = bus.publish(&messages[first..]).await;
        assert_eq!(positions.len(), taken, "{failure:?}");
        assert!(matches!(failure, Some(BusError::Refused(_))), "{failure:?}");
    }
    assert_eq!(bus.ids("USERS").await, ["0", "1", "3"]);
}
