//! Streams and consumers that are there, but not as they should be.

use super::*;

const DAY_NS: u64 = 86_400_000_000_000;

async fn refusal(bus: &JetStreamBus, streams: &[Stream], consumers: &[Consumer]) -> String {
    match bus.ensure(streams, consumers).await {
        Err(BusError::Refused(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn they_are_made_as_the_contract_says() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    bus.ensure(&STREAMS, &CONSUMERS).await.expect("streams and consumers");
    let auth = bus.admin("STREAM.INFO.AUTH", Value::Null).await;
    let is = |field: &str, value: Value| assert_eq!(auth["config"][field], value, "{field}");
    is("subjects", json!(["auth.user.>", "auth.session.>"]));
    is("max_age", json!(7 * DAY_NS));
    is("storage", json!("file"));
    is("retention", json!("limits"));
    is("discard", json!("old"));
    is("deny_delete", json!(true));
    is("deny_purge", json!(true));
    assert_eq!(bus.admin("STREAM.INFO.DLQ", Value::Null).await["config"]["max_age"], json!(30 * DAY_NS));
    let gateway = bus.admin("CONSUMER.INFO.COMPUTE.gateway-service", Value::Null).await;
    let is = |field: &str, value: Value| assert_eq!(gateway["config"][field], value, "{field}");
    is("filter_subjects", json!(["compute.container.>", "compute.ingress.>", "compute.sshkey.>"]));
    is("ack_policy", json!("explicit"));
    is("ack_wait", json!(30_000_000_000_u64));
    is("backoff", Value::Null);
    is("max_deliver", json!(-1));
    is("max_ack_pending", json!(1024));
    is("durable_name", json!("gateway-service"));
}

#[tokio::test]
async fn what_can_be_changed_is_changed() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let stream = json!({
        "name": "USERS", "subjects": ["user.*.created", "person.>"], "storage": "file", "retention": "limits",
        "max_age": 7 * DAY_NS, "num_replicas": 1, "description": "ours",
    });
    bus.admin("STREAM.CREATE.USERS", stream).await;
    let consumer = json!({"stream_name": "USERS", "config": {
        "durable_name": "auditor", "name": "auditor", "ack_policy": "explicit", "filter_subject": "user.*.created",
        "max_deliver": 5, "backoff": [1_000_000_000_u64, 5_000_000_000_u64], "num_replicas": 1,
    }});
    bus.admin("CONSUMER.CREATE.USERS.auditor.user.*.created", consumer).await;
    bus.ensure(&[USERS], &[AUDITOR]).await.expect("what it has to be");
    let config = bus.admin("STREAM.INFO.USERS", Value::Null).await["config"].take();
    assert_eq!((&config["subjects"], &config["max_age"]), (&json!(["user.>"]), &json!(DAY_NS)));
    assert_eq!((&config["deny_purge"], &config["deny_delete"]), (&json!(true), &json!(true)));
    assert_eq!(config["description"], "ours", "what is nobody's business stays");
    let config = bus.admin("CONSUMER.INFO.USERS.auditor", Value::Null).await["config"].take();
    assert_eq!((&config["backoff"], &config["max_deliver"]), (&Value::Null, &json!(-1)));
    assert_eq!((&config["ack_wait"], &config["filter_subjects"]), (&json!(30_000_000_000_u64), &json!(["user.>"])));
}

#[tokio::test]
async fn what_cannot_be_changed_is_named_and_left() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let stream = json!({
        "name": "USERS", "subjects": ["user.>"], "storage": "memory", "retention": "limits", "num_replicas": 1,
    });
    bus.admin("STREAM.CREATE.USERS", stream).await;
    let reason = refusal(&bus, &[USERS], &[]).await;
    let expected =
        "stream USERS: storage is \"memory\" and should be \"file\", max_age is 0 and should be 86400000000000";
    assert!(reason.starts_with(expected), "{reason}");
    assert_eq!(bus.admin("STREAM.INFO.USERS", Value::Null).await["config"]["max_age"], 0);

    bus.ensure(&[KEYS], &[]).await.expect("another stream");
    let consumer = json!({"stream_name": "KEYS", "config": {
        "durable_name": "opener", "name": "opener", "ack_policy": "none", "deliver_policy": "new", "num_replicas": 1,
    }});
    bus.admin("CONSUMER.CREATE.KEYS.opener", consumer).await;
    let opener = Consumer { stream: KEYS, name: "opener", filters: KEYS.subjects };
    let reason = refusal(&bus, &[KEYS], &[opener]).await;
    assert!(reason.starts_with("consumer opener of stream KEYS: "), "{reason}");
    for difference in ["ack_policy is \"none\" and should be \"explicit\"", "deliver_policy is \"new\""] {
        assert!(reason.contains(difference), "{reason}");
    }
}

#[tokio::test]
async fn a_subject_that_another_stream_keeps_is_named() {
    let nats = Nats::start();
    let bus = connect(&nats).await;
    let stream = json!({"name": "ALL", "subjects": ["user.*.created"], "storage": "file", "num_replicas": 1});
    bus.admin("STREAM.CREATE.ALL", stream).await;
    let reason = refusal(&bus, &[USERS], &[]).await;
    assert!(reason.contains("stream USERS does not exist") && reason.contains("overlap"), "{reason}");
}

/// Somebody moved a subject while we rely on it: what goes elsewhere is not counted where it is not.
#[tokio::test]
async fn messages_that_another_stream_takes_are_not_counted() {
    let nats = Nats::start();
    let bus = bus(&nats).await;
    let mut users = bus.admin("STREAM.INFO.USERS", Value::Null).await["config"].take();
    users["subjects"] = json!(["user.*.created"]);
    bus.admin("STREAM.UPDATE.USERS", users).await;
    let moved = json!({"name": "MOVED", "subjects": ["user.*.updated"], "storage": "file", "num_replicas": 1, "allow_atomic": true});
    bus.admin("STREAM.CREATE.MOVED", moved).await;
    // As a batch, which the other stream does take, and alone.
    for count in [100, 1] {
        let (positions, failure) = bus.publish(&changes(count)).await;
        assert!(positions.is_empty(), "{positions:?}");
        let Some(BusError::Refused(reason)) = failure else { panic!("{failure:?}") };
        assert!(reason.contains("user.u0.updated is not kept by USERS") && reason.contains("MOVED"), "{reason}");
    }
}
