//! What every bus has to do, as tests that each implementation runs on itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edd_proto::{Consumer, Stream};

use crate::bus::{Answer, Bus, BusError};
use crate::message::{Headers, Message};

/// Longest wait for what has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// A wait for what must not.
const MOMENT: Duration = Duration::from_millis(50);

pub const USERS: Stream = Stream { name: "USERS", subjects: &["user.>"], retention_days: 1 };
pub const KEYS: Stream = Stream { name: "KEYS", subjects: &["key.>", "lock.opened"], retention_days: 1 };
pub const MAILER: Consumer = Consumer { stream: USERS, name: "mailer", filters: &["user.*.created"] };
pub const AUDITOR: Consumer = Consumer { stream: USERS, name: "auditor", filters: &["user.>"] };

pub fn message(id: &str, subject: &str) -> Message {
    let entity = subject.rsplit_once('.').map_or(subject, |(entity, _)| entity).to_owned();
    Message {
        event_id: id.to_owned(),
        subject: subject.to_owned(),
        entity,
        version: 7,
        content_type: "application/x-protobuf".to_owned(),
        payload: Bytes::from(vec![0, 159, 146, 150]),
        correlation_id: format!("request-of-{id}"),
        trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        headers: Headers::collect([("Edd-Dead-Error", "no: such user"), ("Edd-Dead-Sequence", id)]),
    }
}

/// Runs all cases on a bus that has seen nothing yet.
pub async fn check(bus: Arc<dyn Bus>) {
    bus.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.expect("streams and consumers");
    bus.ensure(&[USERS, KEYS], &[MAILER, AUDITOR]).await.expect("a second time changes nothing");
    check_as_they_are(bus.clone()).await;
    widening(&*bus).await;
}

/// The cases that need no other streams and consumers than these.
pub async fn check_as_they_are(bus: Arc<dyn Bus>) {
    publishing(&*bus).await;
    delivering(&*bus).await;
    redelivering(&*bus).await;
    reading(&*bus).await;
    publishing_again(&*bus).await;
    giving_up(&*bus).await;
    answering_together(&*bus).await;
    asking(bus).await;
}

async fn publishing(bus: &dyn Bus) {
    let empty = bus.stream("USERS").await.expect("a state");
    assert_eq!((empty.first_seq, empty.last_seq), (1, 0));
    let batch = [message("1", "user.a.created"), message("2", "key.k.created"), message("3", "user.a.deleted")];
    let (positions, failure) = bus.publish(&batch).await;
    assert!(failure.is_none(), "{failure:?}");
    let positions: Vec<_> = positions.iter().map(|position| (position.stream, position.seq)).collect();
    assert_eq!(positions, [("USERS", 1), ("KEYS", 1), ("USERS", 2)]);
    let (again, failure) = bus.publish(&batch[..1]).await;
    assert!(failure.is_none() && again[0].seq == 1, "{again:?} {failure:?}");
    let (taken, failure) = bus.publish(&[message("4", "user.b.created"), message("5", "nobody.keeps.this")]).await;
    assert_eq!(taken.len(), 1);
    assert!(matches!(failure, Some(BusError::Refused(_))), "{failure:?}");
    let state = bus.stream("USERS").await.expect("a state");
    assert_eq!((state.epoch, state.first_seq, state.last_seq), (empty.epoch, 1, 3));
    assert!(matches!(bus.stream("NONE").await, Err(BusError::Refused(_))));
}

async fn delivering(bus: &dyn Bus) {
    let deliveries = bus.pull(&MAILER, 10, PATIENCE).await.expect("deliveries");
    let seen: Vec<_> = deliveries.iter().map(|delivery| (delivery.seq, delivery.delivered)).collect();
    assert_eq!(seen, [(1, 1), (3, 1)]);
    assert_eq!(deliveries[0].message, message("1", "user.a.created"));
    assert!(bus.pull(&MAILER, 10, MOMENT).await.expect("no error").is_empty(), "delivered twice at once");
    let state = bus.consumer(&MAILER).await.expect("a state");
    assert_eq!((state.ack_floor, state.waiting, state.unanswered), (0, 0, 2));
    // Answered out of order.
    bus.answer(&MAILER, &deliveries[1], Answer::Ack).await.expect("an answer");
    assert_eq!(bus.consumer(&MAILER).await.expect("a state").ack_floor, 0);
    bus.answer(&MAILER, &deliveries[0], Answer::Ack).await.expect("an answer");
    let state = bus.consumer(&MAILER).await.expect("a state");
    assert_eq!((state.ack_floor, state.unanswered), (3, 0));
    // The other consumer has its own progress, and its batches are bounded.
    let state = bus.consumer(&AUDITOR).await.expect("a state");
    assert_eq!((state.ack_floor, state.waiting), (0, 3));
    for seq in 1..=3 {
        let deliveries = bus.pull(&AUDITOR, 1, PATIENCE).await.expect("a delivery");
        assert_eq!(deliveries.iter().map(|delivery| delivery.seq).collect::<Vec<_>>(), [seq]);
        bus.answer(&AUDITOR, &deliveries[0], Answer::Ack).await.expect("an answer");
    }
    // Who waits is woken by what comes.
    let (pulled, _) = tokio::join!(bus.pull(&AUDITOR, 10, PATIENCE), async {
        tokio::task::yield_now().await;
        bus.publish(&[message("6", "user.c.created")]).await
    });
    let pulled = pulled.expect("a delivery");
    assert_eq!(pulled[0].message.event_id, "6");
    bus.answer(&AUDITOR, &pulled[0], Answer::Ack).await.expect("an answer");
}

async fn redelivering(bus: &dyn Bus) {
    let first = bus.pull(&MAILER, 1, PATIENCE).await.expect("a delivery").remove(0);
    assert_eq!((first.message.event_id.as_str(), first.delivered), ("6", 1));
    bus.answer(&MAILER, &first, Answer::InProgress).await.expect("a sign of life");
    bus.answer(&MAILER, &first, Answer::Later(MOMENT)).await.expect("an answer");
    let second = bus.pull(&MAILER, 1, PATIENCE).await.expect("a delivery").remove(0);
    assert_eq!((second.message.event_id.as_str(), second.delivered), ("6", 2));
    bus.answer(&MAILER, &second, Answer::Later(USERS.retention())).await.expect("an answer");
    assert!(bus.pull(&MAILER, 1, MOMENT).await.expect("no error").is_empty(), "delivered before it was due");
    let (_, failure) = bus.publish(&[message("7", "user.d.created")]).await;
    assert!(failure.is_none(), "{failure:?}");
    let other = bus.pull(&MAILER, 10, PATIENCE).await.expect("a delivery").remove(0);
    assert_eq!(other.message.event_id, "7", "one that waits holds up no other");
    bus.answer(&MAILER, &other, Answer::Terminate).await.expect("an answer");
    assert!(bus.pull(&MAILER, 1, MOMENT).await.expect("no error").is_empty());
}

async fn reading(bus: &dyn Bus) {
    let ids = async |seq, filters: &[&str], most| {
        let found = bus.read("USERS", seq, filters, most).await.expect("messages");
        found.into_iter().map(|(seq, message)| (seq, message.event_id)).collect::<Vec<_>>()
    };
    let of = |pairs: &[(u64, &str)]| pairs.iter().map(|(seq, id)| (*seq, (*id).to_owned())).collect::<Vec<_>>();
    assert_eq!(ids(1, &["user.>"], 10).await, of(&[(1, "1"), (2, "3"), (3, "4"), (4, "6"), (5, "7")]));
    assert_eq!(ids(2, &["user.*.created"], 2).await, of(&[(3, "4"), (4, "6")]));
    assert_eq!(ids(6, &["user.>"], 10).await, []);
    bus.arrival("USERS", 4, PATIENCE).await.expect("something is there");
    let next = [message("8", "user.e.created")];
    let (arrived, _) = tokio::join!(bus.arrival("USERS", 5, PATIENCE), bus.publish(&next));
    arrived.expect("something came");
    assert_eq!(bus.stream("USERS").await.expect("a state").last_seq, 6);
}

/// As a relay does that has not heard what became of its last batch.
async fn publishing_again(bus: &dyn Bus) {
    let seqs = async |messages: &[Message]| {
        let (positions, failure) = bus.publish(messages).await;
        assert!(failure.is_none(), "{failure:?}");
        positions.into_iter().map(|position| position.seq).collect::<Vec<_>>()
    };
    let first = bus.stream("KEYS").await.expect("a state").last_seq + 1;
    let many: Vec<_> = (0..1500).map(|number| message(&format!("k{number}"), "key.k.turned")).collect();
    assert_eq!(seqs(&many[..700]).await, (first..first + 700).collect::<Vec<_>>());
    // Some are there, some are not; each keeps its place.
    assert_eq!(seqs(&many[600..]).await, (first + 600..first + 1500).collect::<Vec<_>>());
    let twice = [message("twice", "lock.opened"), message("once", "key.k.turned"), message("twice", "lock.opened")];
    assert_eq!(seqs(&twice).await, [first + 1500, first + 1501, first + 1500]);
    let mut untraced = message("untraced", "lock.opened");
    (untraced.trace_parent, untraced.correlation_id, untraced.payload) = (String::new(), String::new(), Bytes::new());
    assert_eq!(seqs(std::slice::from_ref(&untraced)).await, [first + 1502]);
    let kept = bus.read("KEYS", first, KEYS.subjects, 2000).await.expect("messages");
    let ids: Vec<_> = kept.iter().map(|(_, message)| message.event_id.as_str()).collect();
    let expected = many.iter().map(|message| message.event_id.as_str()).chain(["twice", "once", "untraced"]);
    assert_eq!(ids, expected.collect::<Vec<_>>());
    assert_eq!(kept.last(), Some(&(first + 1502, untraced)));
}

/// Who stops waiting takes nothing along.
async fn giving_up(bus: &dyn Bus) {
    while let Some(delivery) = bus.pull(&AUDITOR, 1, MOMENT).await.expect("no error").pop() {
        bus.answer(&AUDITOR, &delivery, Answer::Ack).await.expect("an answer");
    }
    for _ in 0..3 {
        let waiting = tokio::time::timeout(MOMENT, bus.pull(&AUDITOR, 10, PATIENCE)).await;
        assert!(waiting.is_err(), "{waiting:?}");
    }
    let (_, failure) = bus.publish(&[message("9", "user.f.created")]).await;
    assert!(failure.is_none(), "{failure:?}");
    let delivery = bus.pull(&AUDITOR, 10, PATIENCE).await.expect("a delivery").remove(0);
    assert_eq!((delivery.message.event_id.as_str(), delivery.delivered), ("9", 1));
    // A second answer changes nothing.
    for answer in [Answer::Ack, Answer::Ack, Answer::Later(Duration::ZERO)] {
        bus.answer(&AUDITOR, &delivery, answer).await.expect("an answer");
    }
    assert!(bus.pull(&AUDITOR, 10, MOMENT).await.expect("no error").is_empty());
    let state = bus.consumer(&AUDITOR).await.expect("a state");
    assert_eq!((state.ack_floor, state.unanswered), (delivery.seq, 0));
    assert!(bus.pull(&MAILER, 0, MOMENT).await.expect("no error").is_empty(), "nothing was asked for");
    assert_eq!(bus.consumer(&MAILER).await.expect("a state").waiting, 2);
    // Nothing comes: the wait ends by itself.
    bus.arrival("USERS", delivery.seq, MOMENT).await.expect("a wait");
}

async fn answering_together(bus: &dyn Bus) {
    let messages: Vec<_> = (0..5).map(|number| message(&format!("t{number}"), "user.t.updated")).collect();
    assert!(bus.publish(&messages).await.1.is_none());
    let mut deliveries = Vec::new();
    while deliveries.len() < messages.len() {
        deliveries.extend(bus.pull(&AUDITOR, 10, PATIENCE).await.expect("deliveries"));
    }
    let [first, second, third, fourth, fifth] = &deliveries[..] else { panic!("{deliveries:?}") };
    bus.answer_all(&AUDITOR, &[fourth, first, fifth], Answer::Ack).await.expect("answers");
    let state = bus.consumer(&AUDITOR).await.expect("a state");
    assert_eq!((state.ack_floor, state.unanswered), (first.seq, 2));
    bus.answer_all(&AUDITOR, &[], Answer::Ack).await.expect("no answers");
    bus.answer_all(&AUDITOR, &[third, fourth], Answer::Later(Duration::ZERO)).await.expect("answers");
    let again = bus.pull(&AUDITOR, 10, PATIENCE).await.expect("a delivery");
    assert_eq!(again.iter().map(|delivery| (delivery.seq, delivery.delivered)).collect::<Vec<_>>(), [(third.seq, 2)]);
    bus.answer_all(&AUDITOR, &[second, &again[0]], Answer::Ack).await.expect("answers");
    let state = bus.consumer(&AUDITOR).await.expect("a state");
    assert_eq!((state.ack_floor, state.unanswered), (fifth.seq, 0));
}

/// A release whose stream keeps more, and whose consumer wants more.
async fn widening(bus: &dyn Bus) {
    const WIDER: Stream = Stream { name: "USERS", subjects: &["user.>", "group.>"], retention_days: 2 };
    const WIDER_MAILER: Consumer = Consumer { stream: WIDER, name: "mailer", filters: &["user.*.created", "group.>"] };
    let before = bus.stream("USERS").await.expect("a state");
    bus.ensure(&[WIDER], &[WIDER_MAILER]).await.expect("a wider stream");
    let (positions, failure) = bus.publish(&[message("10", "group.g.created")]).await;
    assert!(failure.is_none(), "{failure:?}");
    assert_eq!((positions[0].stream, positions[0].seq), ("USERS", before.last_seq + 1));
    assert_eq!(bus.stream("USERS").await.expect("a state").epoch, before.epoch);
    loop {
        let deliveries = bus.pull(&WIDER_MAILER, 10, PATIENCE).await.expect("a delivery");
        if deliveries.iter().any(|delivery| delivery.message.event_id == "10") {
            return;
        }
    }
}

async fn asking(bus: Arc<dyn Bus>) {
    let nobody = bus.ask("check.nobody", Bytes::from_static(b"?"), MOMENT).await;
    assert!(matches!(nobody, Err(BusError::NoAnswer(_) | BusError::Unavailable(_))), "{nobody:?}");
    let mut questions = bus.serve("check.length").await.expect("a service");
    let server = tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            if !question.payload.is_empty() {
                let answer = Bytes::from(question.payload.len().to_string());
                question.reply.send(answer).expect("somebody waits");
            }
        }
    });
    let before = bus.stream("KEYS").await.expect("a state").last_seq;
    for length in [1, 2, 1000] {
        let answer = bus.ask("check.length", Bytes::from(vec![b'x'; length]), PATIENCE).await.expect("an answer");
        assert_eq!(answer, length.to_string());
    }
    // A service that drops a question answers nobody.
    let dropped = bus.ask("check.length", Bytes::new(), MOMENT).await;
    assert!(matches!(dropped, Err(BusError::NoAnswer(_))), "{dropped:?}");
    assert_eq!(bus.stream("KEYS").await.expect("a state").last_seq, before);
    server.abort();
}
