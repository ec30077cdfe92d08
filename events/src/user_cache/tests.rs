//! What each publisher's events say.

use std::time::Duration;

use bytes::Bytes;
use edd_proto::Encoding;
use edd_proto::auth::{UserCreated, UserDeleted, UserUpdated};
use edd_proto::common::Timestamp;

use super::*;
use crate::message::Headers;

const UID: &str = "V1StGXR8_Z5jdHi6B-myT";

fn metadata(version: i64, schema_version: i32, seconds: i64) -> Option<EventMetadata> {
    Some(EventMetadata {
        event_id: "018d2f4e-3800-7000-8000-000000000001".to_owned(),
        entity_id: "42".to_owned(),
        timestamp: Some(Timestamp { seconds, nanos: 0 }),
        version,
        schema_version,
        ..Default::default()
    })
}

fn message(subject: &str, content_type: &str, payload: impl Into<Bytes>) -> Message {
    Message {
        event_id: "1".to_owned(),
        subject: subject.to_owned(),
        entity: subject.to_owned(),
        version: 0,
        content_type: content_type.to_owned(),
        payload: payload.into(),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: Headers::default(),
    }
}

fn read(subject: &str, event: impl Into<AnyEvent>, encoding: Encoding) -> Result<Option<Entry<Key>>, Failure> {
    let payload = event.into().encode(encoding).expect("a small event");
    UserCache.read(&message(subject, encoding.content_type(), payload))
}

fn deleted(version: i64, schema_version: i32, seconds: i64) -> UserDeleted {
    UserDeleted { metadata: metadata(version, schema_version, seconds), user_uid: UID.to_owned(), ..Default::default() }
}

fn state_of(entry: Result<Option<Entry<Key>>, Failure>) -> Entry<Key> {
    entry.expect("a good event").expect("a state")
}

#[test]
fn both_encodings_say_the_same() {
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let created = UserCreated {
            metadata: metadata(1, 1, 5),
            user_uid: UID.to_owned(),
            user_id: 42,
            username: "ann".to_owned(),
            display_name: "Ann".to_owned(),
        };
        let names = Some(("ann".to_owned(), "Ann".to_owned()));
        let expected = state(Key::Is(UID.to_owned()), 1, Some(42), names);
        assert_eq!(read("auth.user.x.created", created, encoding), Ok(Some(expected)));
        let gone = state_of(read("auth.user.x.deleted", deleted(7, 1, 5), encoding));
        assert_eq!(gone, state(Key::Is(UID.to_owned()), 7, None, None));
        assert!(gone.deleted && gone.fields[0] == "".into());
    }
}

#[test]
fn what_a_newer_publisher_adds_is_no_error() {
    let mut payload = Encoding::Protobuf.encode(&deleted(3, 9, 5)).expect("a small event");
    // Field 1000, a varint.
    payload.extend([0xc0, 0x3e, 0x07]);
    let protobuf = UserCache.read(&message("auth.user.x.deleted", "application/protobuf", payload));
    let json = format!(
        r#"{{"metadata": {{"event_id": "018d2f4e-3800-7000-8000-000000000001", "entity_id": "e", "version": 3,
        "schema_version": 9, "colour": "red"}}, "user_id": "{UID}", "mood": ["good"]}}"#
    );
    let json = UserCache.read(&message("auth.user.x.deleted", "application/json; charset=utf-8", json));
    let expected = state(Key::Is(UID.to_owned()), 3, None, None);
    assert_eq!((state_of(protobuf), state_of(json)), (expected.clone(), expected));
}

#[test]
fn whom_an_event_means_is_found_in_its_fields_its_subject_or_by_its_number() {
    let numbered = |entity_id: &str, user_id| {
        let mut metadata = metadata(3, 0, 5);
        metadata.as_mut().expect("metadata").entity_id = entity_id.to_owned();
        UserUpdated { metadata, user_id, username: "ann".to_owned(), ..Default::default() }
    };
    let other = "another_one--another_";
    for encoding in [Encoding::Protobuf, Encoding::Json] {
        let key = |subject: &str, event| read(subject, event, encoding).map(|entry| entry.expect("a state").key);
        let is = |uid: &str| Ok(Key::Is(uid.to_owned()));
        assert_eq!(key(&format!("auth.user.{UID}.updated"), numbered(other, 42)), is(UID));
        assert_eq!(key("auth.user.42.updated", numbered(UID, 42)), is(UID));
        assert_eq!(key("auth.user.42.updated", numbered("42", 42)), Ok(Key::Of("user_number", 42)));
        let nobody = key("auth.user.42.updated", numbered("42", 0));
        assert!(matches!(&nobody, Err(Failure::Permanent(error)) if error.contains("names no user")), "{nobody:?}");
        let broken = UserUpdated { user_uid: "no nanoid".to_owned(), ..numbered("42", 42) };
        assert!(matches!(key("auth.user.42.updated", broken), Err(Failure::Permanent(_))));
    }
}

#[test]
fn without_versions_time_and_kind_decide_and_any_version_is_above() {
    let of = |subject: &str, event: AnyEvent| state_of(read(subject, event, Encoding::Protobuf)).version;
    let created = |version, schema, seconds| {
        let user_uid = UID.to_owned();
        let event = UserCreated { metadata: metadata(version, schema, seconds), user_uid, ..Default::default() };
        of("auth.user.x.created", event.into())
    };
    let updated = |version, schema, seconds| {
        let user_uid = UID.to_owned();
        let event = UserUpdated { metadata: metadata(version, schema, seconds), user_uid, ..Default::default() };
        of("auth.user.x.updated", event.into())
    };
    let gone = |version, schema, seconds| of("auth.user.x.deleted", deleted(version, schema, seconds).into());
    let year_10000 = 253_402_300_800;
    let order = [
        created(0, 0, 0),
        // edd-cloud's creations say 1, and its changes nothing.
        created(1, 0, 100),
        updated(0, 0, 100),
        gone(0, 0, 100),
        created(1, 0, 101),
        updated(0, 1, 102),
        gone(0, 0, year_10000),
        created(1, 1, 0),
        updated(2, 0, 0),
        gone(3, 0, 0),
    ];
    assert!(order.is_sorted_by(|earlier, later| earlier < later), "{order:?}");
    assert!(order[6] < 0 && order[7..] == [1, 2, 3]);
    let mut timeless = deleted(0, 0, 0);
    timeless.metadata.as_mut().expect("metadata").timestamp = None;
    assert_eq!(of("auth.user.x.deleted", timeless.into()), gone(0, 0, 0));
    assert!(Duration::from_secs(year_10000 as u64).as_micros() < 1 << 60);
}

#[test]
fn broken_events_are_permanent_failures_that_name_the_place() {
    let cases: [(&str, &[u8], &str); 6] = [
        ("application/json", b"{", "invalid JSON"),
        ("application/json", br#"{"metadata": {"version": "x"}}"#, "metadata.version"),
        ("application/json", br#"{"user_id": "V1StGXR8_Z5jdHi6B-myT"}"#, "no metadata"),
        ("application/protobuf", b"\xff", "invalid protobuf"),
        // As edd-cloud sends protobuf: without a type.
        ("", b"\xff", "invalid protobuf"),
        ("text/html", b"", "text/html"),
    ];
    for (content_type, payload, expected) in cases {
        match UserCache.read(&message("auth.user.x.created", content_type, payload)) {
            Err(Failure::Permanent(error)) => assert!(error.contains(expected), "{error}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn the_table_is_that_of_the_contract() {
    for column in ["user_id", "username", "display_name", "version", "deleted", "synced_at"] {
        assert!(SHAPE.sql.contains(&format!("    {column} ")), "{column}");
    }
    assert!(!SHAPE.sql.contains("UNIQUE"), "contracts.md 4");
}
