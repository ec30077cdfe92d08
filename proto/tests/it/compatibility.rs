//! Messages of older, newer and broken publishers.

use std::error::Error;

use edd_proto::auth::{UserCreated, UserDeleted, UserUpdated};
use edd_proto::compute::{Container, ContainerStatus, IngressProtocol, IngressRuleRequested};
use edd_proto::{
    AnyEvent, DecodeError, Encoding, Event, EventKind, InvalidMetadata, Message, NamesUser, SubjectError, UNKNOWN_NAME,
    UserRef, auth, compute,
};

use crate::golden::{records, unhex};

const UID: &str = "V1StGXR8_Z5jdHi6B-myT";

fn json<M: Message>(text: &str) -> Result<M, DecodeError> {
    Encoding::Json.decode(text.as_bytes())
}

/// An error and its causes in one line, as a log shows it.
fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |&error: &&dyn Error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn an_event_with_the_number_alone_is_read() {
    // metadata { entity_id: "42" }, user_id: 42, username: "jo", display_name: "Jo", public_id (5): "abc123"
    let bytes = unhex("0a0412023432102a1a026a6f22024a6f2a06616263313233");
    let event: UserCreated = Encoding::Protobuf.decode(&bytes).unwrap();
    assert_eq!((event.username.as_str(), event.display_name.as_str()), ("jo", "Jo"));
    assert_eq!(event.user(), Ok(UserRef { uid: None, number: Some(42) }));
    assert_eq!(event.subject(), Err(SubjectError::MissingId(UserCreated::SUBJECT)));
    let subject = "auth.user.42.created";
    assert_eq!(EventKind::of(subject), Ok((EventKind::UserCreated, Some("42"))));
    assert_eq!(AnyEvent::decode(subject, Encoding::Protobuf, &bytes).unwrap(), event.into());

    let event: UserCreated = json(r#"{"user_number": 42, "username": "jo"}"#).unwrap();
    assert_eq!(event.user(), Ok(UserRef { uid: None, number: Some(42) }));
}

#[test]
fn an_event_with_the_text_id_alone_is_read() {
    // user_uid (6)
    let bytes = [&unhex("3215")[..], UID.as_bytes()].concat();
    let event: UserCreated = Encoding::Protobuf.decode(&bytes).unwrap();
    assert_eq!(event.user(), Ok(UserRef { uid: UID.parse().ok(), number: None }));
    assert_eq!(event.subject().unwrap().as_str(), "auth.user.V1StGXR8_Z5jdHi6B-myT.created");
}

/// The three samples of edd-cloud's documentation.
#[test]
fn events_of_edd_clouds_json_publishers_are_read() {
    let metadata = r#""metadata": {"event_id": "uuid-v4", "entity_id": "nanoid-user-id", "timestamp": 1705920000,
        "source": "auth-service""#;
    let rest = format!(r#""user_id": "{UID}", "username": "johndoe""#);
    let uid = UID.parse().ok();

    let text = format!(r#"{{{metadata}, "version": 1}}, {rest}, "display_name": "John Doe"}}"#);
    let created: UserCreated = json(&text).unwrap();
    assert_eq!(created.user(), Ok(UserRef { uid, number: None }));
    assert_eq!((created.username.as_str(), created.display_name.as_str()), ("johndoe", "John Doe"));
    let metadata_of = created.metadata.unwrap();
    assert_eq!((metadata_of.source.as_str(), metadata_of.version), ("auth-service", 1));
    assert_eq!(metadata_of.timestamp.unwrap().seconds, 1_705_920_000);

    let updated: UserUpdated = json(&format!(r#"{{{metadata}}}, {rest}, "display_name": "John D."}}"#)).unwrap();
    assert_eq!(updated.display_name, "John D.");
    let deleted: UserDeleted = json(&format!(r#"{{{metadata}}}, {rest}}}"#)).unwrap();
    assert_eq!(deleted.user(), Ok(UserRef { uid, number: None }));
    assert_eq!(deleted.metadata.as_ref().unwrap().version, 0);
    assert!(matches!(deleted.envelope(), Err(InvalidMetadata::EventId(_))));
}

#[test]
fn unknown_fields_are_skipped() {
    // Field 99 in each wire type: varint, 64 bit, bytes, 32 bit; field 100 as a group with a varint inside.
    let unknown = unhex("98068f4e990601020304050607089a06036162639d0601020304a3060801a406");
    for record in records().iter().filter(|record| record.subject.is_some()) {
        let subject = record.subject.unwrap();
        let known = AnyEvent::decode(subject, Encoding::Protobuf, &record.protobuf).unwrap();
        let newer = [&record.protobuf[..], &unknown].concat();
        assert_eq!(AnyEvent::decode(subject, Encoding::Protobuf, &newer).unwrap(), known, "{subject}");

        let known = AnyEvent::decode(subject, Encoding::Json, record.json.as_bytes()).unwrap();
        let newer = record.json.replacen('{', r#"{"new": [1, {"x": null}], "#, 1);
        let newer = newer.replacen(r#""metadata":{"#, r#""metadata":{"new": "y", "#, 1);
        assert_eq!(AnyEvent::decode(subject, Encoding::Json, newer.as_bytes()).unwrap(), known, "{subject}");
    }
}

#[test]
fn enums_of_newer_publishers_are_told_apart_and_survive() {
    // port: 8000, protocol: 9
    let bytes = unhex("18c03e2809");
    let event: IngressRuleRequested = Encoding::Protobuf.decode(&bytes).unwrap();
    assert_eq!(IngressProtocol::try_from(event.protocol), Err(prost::UnknownEnumValue(9)));
    assert_eq!(Encoding::Protobuf.encode(&event).unwrap(), bytes);

    let text = String::from_utf8(Encoding::Json.encode(&event).unwrap()).unwrap();
    assert!(text.contains(r#""protocol":9"#), "{text}");
    assert_eq!(json::<IngressRuleRequested>(&text).unwrap(), event);

    let newer: IngressRuleRequested = json(r#"{"port": 8000, "protocol": "quic"}"#).unwrap();
    assert_eq!((newer.port, newer.protocol), (8000, UNKNOWN_NAME));
    assert!(IngressProtocol::try_from(newer.protocol).is_err());
}

#[test]
fn enums_are_read_by_name_and_by_number() {
    for text in [r#"{"status": "hibernated"}"#, r#"{"status": 5}"#] {
        assert_eq!(json::<Container>(text).unwrap().status(), ContainerStatus::Hibernated, "{text}");
    }
    let text = Encoding::Json.encode(&compute::Container::default()).unwrap();
    assert!(String::from_utf8(text).unwrap().contains(r#""status":"unspecified""#));
}

#[test]
fn json_of_wrong_types_is_refused_with_the_place_and_the_reason() {
    let cases = [
        (r#"{"username": 5}"#, "invalid JSON at `username`: invalid type: integer `5`, expected a string"),
        (r#"{"user_id": 42}"#, "at `user_id`: invalid type: integer `42`, expected a string"),
        (r#"{"user_number": "42"}"#, "at `user_number`: invalid type: string \"42\", expected i64"),
        (r#"{"username": null}"#, "at `username`: invalid type: null"),
        (r#"{"metadata": {"version": "3"}}"#, "at `metadata.version`: invalid type: string \"3\""),
        (r#"{"metadata": {"timestamp": 1.5}}"#, "at `metadata.timestamp`: invalid type: floating point"),
        (r#"{"metadata": {"timestamp": "2024-01-22"}}"#, "at `metadata.timestamp`: invalid type: string"),
        (r#"{"metadata": []}"#, "at `metadata`: invalid type: sequence, expected an object"),
        (r#"{"user_number": 9223372036854775808}"#, "at `user_number`: invalid value: integer"),
        (r#"{"username": "a", "username": "b"}"#, "duplicate field `username`"),
        ("[]", "invalid type: sequence, expected an object"),
        ("null", "invalid type: null, expected an object"),
        ("", "EOF while parsing"),
        (r#"{"username": "a"} x"#, "trailing characters"),
        ("{\"username\": \"\u{0}\"}", "control character"),
    ];
    for (text, expected) in cases {
        let error = chain(&json::<UserCreated>(text).unwrap_err());
        assert!(error.starts_with("auth.UserCreated: ") && error.contains(expected), "{text}: {error}");
    }
    let error = chain(&json::<Container>(r#"{"status": true}"#).unwrap_err());
    assert!(error.contains("`status`: invalid type: boolean `true`, expected an enum's name or number"), "{error}");
    let error = chain(&json::<Container>(r#"{"status": 4294967296}"#).unwrap_err());
    assert!(error.contains("4294967296 is no enum's number"), "{error}");
    let error = chain(&json::<auth::ValidateTokenResponse>(r#"{"scopes": [[]]}"#).unwrap_err());
    assert!(error.contains("at `scopes[0]`: invalid type: sequence, expected an object"), "{error}");
}

#[test]
fn deep_json_does_not_fill_the_stack() {
    let depth = 60_000;
    let deep = format!(r#"{{"username": "jo", "new": {}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    assert_eq!(json::<UserCreated>(&deep).unwrap().username, "jo");
    let error = chain(&json::<UserCreated>(&deep[..depth]).unwrap_err());
    assert!(error.contains("at `new`: EOF while parsing a list"), "{error}");
}

#[test]
fn malformed_protobuf_is_refused_with_the_field() {
    let cases = [
        ("0a05", "metadata"),                    // shorter than it says
        ("0a020801", "metadata"),                // event_id as a number
        ("1001ff", "varint"),                    // a tag that does not end
        ("1a02c328", "username"),                // not UTF-8
        ("12036a6f65", "user_id"),               // a number as text
        ("10ffffffffffffffffffff01", "user_id"), // more than 64 bits
        ("00", "tag"),                           // field 0
        ("1e", "wire type"),                     // wire type 6
        ("a30608", "varint"),                    // a group that does not end
    ];
    for (bytes, expected) in cases {
        let error = Encoding::Protobuf.decode::<UserCreated>(&unhex(bytes)).unwrap_err();
        let error = chain(&error);
        assert!(
            error.starts_with("auth.UserCreated: invalid protobuf: ") && error.contains(expected),
            "{bytes}: {error}"
        );
    }
}

#[test]
fn a_subject_that_no_event_has_is_refused() {
    for subject in [
        "",
        "auth",
        "auth.validate.request",
        "auth.user.a.b.created",
        "auth.user.*.created",
        "dlq.x.auth.user.a.created",
    ] {
        assert_eq!(EventKind::of(subject), Err(SubjectError::Unknown(subject.to_owned())));
        let error = AnyEvent::decode(subject, Encoding::Protobuf, &[]).unwrap_err();
        assert!(matches!(error, DecodeError::Subject(_)), "{error}");
    }
}

#[test]
fn an_event_without_its_id_has_no_subject() {
    for kind in EventKind::ALL.iter().filter(|kind| kind.pattern().as_str().contains('{')) {
        let subject = kind.pattern().subject(Some("x")).unwrap();
        let empty = AnyEvent::decode(subject.as_str(), Encoding::Protobuf, &[]).unwrap();
        assert_eq!(empty.subject(), Err(SubjectError::MissingId(kind.pattern())));
    }
}
