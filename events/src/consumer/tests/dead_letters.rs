//! What is given up, told, asked for, and tried again.

use super::*;
use crate::event_log::{self, Status};
use crate::outbox;

on_each_database! {
    a_requeued_letter_is_tried_once,
    dead_letters_are_requeued_to_their_consumer_or_discarded,
    all_letters_of_one_consumer_are_requeued_at_once_and_its_other_streams_are_not_tried,
    a_dead_letter_goes_out_by_the_outbox,
    the_audit_trail_tells_what_became_of_an_event,
}

async fn dead_letters_are_requeued_to_their_consumer_or_discarded(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "a", "b"]).await;
    let broken = || Failure::Permanent("no user".to_owned());
    fixture.fails("1", vec![broken(), transient()]);
    fixture.fails("3", vec![broken()]);
    assert_eq!(fixture.round().await, [Dead, Handled, Dead], "what is dead holds up nobody");
    let dead = fixture.dead().await;
    dead_letter::requeue(&fixture.database, dead[0].id).await.expect("a change");
    let again = dead_letter::requeue(&fixture.database, dead[0].id).await.expect_err("decided");
    assert!(again.to_string().contains("1 is requeued"), "{again}");
    assert_eq!(fixture.round().await, [Dead], "it is tried once");
    assert_eq!(fixture.dead().await[0].attempts, 2);
    dead_letter::requeue(&fixture.database, dead[0].id).await.expect("a change");
    dead_letter::discard(&fixture.database, dead[1].id).await.expect("a change");
    assert_eq!(fixture.round().await, [Handled]);
    assert_eq!(fixture.round().await, []);
    assert_eq!(fixture.effects().await, ["2", "1"]);
    assert_eq!(fixture.dead().await, []);
    let unknown = dead_letter::discard(&fixture.database, 99).await.expect_err("no such letter");
    assert!(unknown.to_string().contains("no dead letter 99"), "{unknown}");
    let now = fixture.clock.now();
    assert_eq!(dead_letter::prune(&fixture.database, now, 10).await.expect("a count"), 0);
    assert_eq!(dead_letter::prune(&fixture.database, now + 1, 10).await.expect("a count"), 2);
}

async fn all_letters_of_one_consumer_are_requeued_at_once_and_its_other_streams_are_not_tried(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b", "c"]).await;
    for id in ["1", "2", "3"] {
        fixture.fails(id, vec![Failure::Permanent("no user".to_owned())]);
    }
    assert_eq!(fixture.round().await, [Dead, Dead, Dead]);
    // The same service's consumer of another stream.
    let elsewhere = sqlx::query("UPDATE dead_letters SET stream = 'KEYS' WHERE event_id = '2'");
    elsewhere.execute(fixture.database.writer()).await.expect("a change");
    assert_eq!(dead_letter::requeue_all(&fixture.database, "nobody").await.expect("a count"), 0);
    assert_eq!(dead_letter::requeue_all(&fixture.database, "auditor").await.expect("a count"), 3);
    assert_eq!(fixture.round().await, [Handled, Handled]);
    assert_eq!(fixture.effects().await, ["1", "3"]);
}

/// The bus is told of every death, and of none twice.
async fn a_dead_letter_goes_out_by_the_outbox(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a"]).await;
    let mut large = conformance::message("2", "user.b.updated");
    large.payload = Bytes::from(vec![0; edd_proto::MAX_MESSAGE_BYTES + 1]);
    assert!(fixture.bus.publish(&[large]).await.1.is_none());
    let broken = || Failure::Permanent("no: such\nuser".to_owned());
    fixture.fails("1", vec![broken(), broken()]);
    fixture.fails("2", vec![broken()]);
    assert_eq!(fixture.round().await, [Dead, Dead]);
    dead_letter::requeue(&fixture.database, 1).await.expect("a change");
    assert_eq!(fixture.round().await, [Dead]);
    let sent: Vec<_> = outbox::pending(&fixture.database, 10).await.expect("rows");
    let sent: Vec<_> = sent.into_iter().map(|row| row.message).collect();
    let ids: Vec<_> = sent.iter().map(|message| message.event_id.as_str()).collect();
    assert_eq!(ids, ["1.auditor.1", "1.auditor.2"], "one that the bus would refuse would hold up all");
    let original = conformance::message("1", "user.a.updated");
    assert_eq!(sent[1].subject, "dlq.auditor.user.a.updated");
    assert_eq!((&sent[1].payload, &sent[1].content_type), (&original.payload, &original.content_type));
    assert_eq!((&sent[1].correlation_id, &sent[1].trace_parent), (&original.correlation_id, &original.trace_parent));
    let headers: Vec<_> = sent[1].headers.iter().collect();
    let expected = [
        ("Edd-Dead-Attempts", "2"),
        ("Edd-Dead-Error", "no: such user"),
        ("Edd-Dead-Event-Id", "1"),
        ("Edd-Dead-Sequence", "1"),
        ("Edd-Dead-Stream", "USERS"),
    ];
    assert_eq!(headers, expected);
    // And from there to the stream, where every bus keeps it as it is.
    fixture.bus.ensure(&[Stream::DLQ], &[]).await.expect("a stream");
    assert!(fixture.bus.publish(&sent).await.1.is_none());
    let kept = fixture.bus.read("DLQ", 1, &["dlq.auditor.>"], 10).await.expect("messages");
    assert_eq!(kept.into_iter().map(|(_, message)| message).collect::<Vec<_>>(), sent);
}

async fn the_audit_trail_tells_what_became_of_an_event(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a", "b"]).await;
    fixture.fails("1", vec![Failure::Permanent("no user".to_owned())]);
    let trail = async |fixture: &Fixture| {
        let entries = event_log::after(&fixture.database, &event_log::Filter::default(), 0, 10).await.expect("rows");
        let short = entries.into_iter().map(|entry| {
            assert_eq!(entry.processed_by.as_deref(), Some("auditor"));
            assert_eq!(entry.processed_at, Some(fixture.clock.now()));
            (entry.message.event_id, entry.status, entry.error)
        });
        short.collect::<Vec<_>>()
    };
    assert_eq!(fixture.round().await, [Dead, Handled]);
    let failed = ("1".to_owned(), Status::Failed, Some("no user".to_owned()));
    let done = |id: &str| (id.to_owned(), Status::Completed, None);
    assert_eq!(trail(&fixture).await, [failed, done("2")]);
    dead_letter::requeue(&fixture.database, 1).await.expect("a change");
    assert_eq!(fixture.round().await, [Handled]);
    let requeued = event_log::after(&fixture.database, &event_log::Filter::default(), 0, 10).await.expect("rows");
    assert_eq!((requeued[0].status, &requeued[0].error), (Status::Completed, &None));
}

async fn a_requeued_letter_is_tried_once(kind: Kind) {
    let mut fixture = Fixture::new(kind).await;
    fixture.publish(&["a"]).await;
    fixture.fails("1", vec![Failure::Permanent("no user".to_owned())]);
    assert_eq!(fixture.round().await, [Dead]);
    dead_letter::requeue(&fixture.database, 1).await.expect("a change");
    // As two replicas may see it.
    let (letters, _) = fixture.consumer.waiting().await.expect("what waits");
    assert_eq!(fixture.consumer.settle(&letters[0]).await, Handled);
    assert_eq!(fixture.consumer.settle(&letters[0]).await, Duplicate);
    assert_eq!(fixture.effects().await, ["1"]);
}
