//! What holds for any message and any bytes.

use edd_proto::{AnyEvent, DeadLetterSubject, Encoding, EventKind, Subject, UserId};
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::descriptors;
use crate::golden::records;

const ENCODINGS: [Encoding; 2] = [Encoding::Protobuf, Encoding::Json];

fn any_event_kind() -> impl Strategy<Value = EventKind> {
    prop::sample::select(EventKind::ALL)
}

/// A message with any fields set to anything.
fn any_message(message: MessageDescriptor) -> BoxedStrategy<DynamicMessage> {
    let fields: Vec<_> = message.fields().map(|field| prop::option::of(any_value(field))).collect();
    let build = move |values: Vec<Option<Value>>| {
        let mut built = DynamicMessage::new(message.clone());
        for (field, value) in message.fields().zip(values) {
            if let Some(value) = value {
                built.set_field(&field, value);
            }
        }
        built
    };
    fields.prop_map(build).boxed()
}

fn any_value(field: FieldDescriptor) -> BoxedStrategy<Value> {
    let one = match field.kind() {
        Kind::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        Kind::Int32 => any::<i32>().prop_map(Value::I32).boxed(),
        Kind::Int64 => any::<i64>().prop_map(Value::I64).boxed(),
        Kind::String => any::<String>().prop_map(Value::String).boxed(),
        Kind::Enum(_) => prop_oneof![-1..8, any::<i32>()].prop_map(Value::EnumNumber).boxed(),
        Kind::Message(inner) => any_message(inner).prop_map(Value::Message).boxed(),
        other => panic!("{}: say what any {other:?} is", field.full_name()),
    };
    if field.is_list() { prop::collection::vec(one, 0..4).prop_map(Value::List).boxed() } else { one }
}

/// Any event, as a second implementation of protobuf writes it.
fn any_event() -> impl Strategy<Value = (EventKind, Vec<u8>)> {
    any_event_kind().prop_flat_map(|kind| {
        let bytes = any_message(descriptors::message(kind.name())).prop_map(|message| message.encode_to_vec());
        (Just(kind), bytes)
    })
}

/// What that implementation reads.
fn read(kind: EventKind, bytes: &[u8]) -> DynamicMessage {
    DynamicMessage::decode(descriptors::message(kind.name()), bytes).expect("protobuf")
}

/// The event that `bytes` are, whatever its id.
fn decode(kind: EventKind, encoding: Encoding, bytes: &[u8]) -> Result<AnyEvent, edd_proto::DecodeError> {
    let subject = kind.pattern().subject(Some("x")).expect("a valid id");
    AnyEvent::decode(subject.as_str(), encoding, bytes)
}

proptest! {
    #[test]
    fn any_event_survives_protobuf((kind, bytes) in any_event()) {
        let event = decode(kind, Encoding::Protobuf, &bytes).unwrap();
        prop_assert_eq!(event.kind(), kind);
        let again = event.encode(Encoding::Protobuf).unwrap();
        prop_assert!(read(kind, &again) == read(kind, &bytes), "{event:?}");
    }

    #[test]
    fn any_event_survives_json_but_for_nanoseconds((kind, bytes) in any_event()) {
        let json = decode(kind, Encoding::Protobuf, &bytes).unwrap().encode(Encoding::Json).unwrap();
        let mut whole_seconds = read(kind, &bytes);
        descriptors::drop_nanos(&mut whole_seconds);
        let expected = decode(kind, Encoding::Protobuf, &whole_seconds.encode_to_vec()).unwrap();
        prop_assert_eq!(decode(kind, Encoding::Json, &json).unwrap(), expected);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(kind in any_event_kind(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for encoding in ENCODINGS {
            if let Ok(event) = decode(kind, encoding, &bytes) {
                prop_assert_eq!(decode(kind, encoding, &event.encode(encoding).unwrap()).unwrap(), event);
            }
        }
    }

    #[test]
    fn damaged_events_are_decoded_or_refused(record in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8) {
        let records = records();
        let record = record.get(&records);
        let Ok((kind, _)) = EventKind::of(record.subject.unwrap_or_default()) else { return Ok(()) };
        for (encoding, whole) in [(Encoding::Protobuf, record.protobuf.as_slice()), (Encoding::Json, record.json.as_bytes())] {
            let mut bytes = whole.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            for damaged in [&bytes[..], &whole[..at]] {
                if let Ok(event) = decode(kind, encoding, damaged) {
                    prop_assert_eq!(decode(kind, encoding, &event.encode(encoding).unwrap()).unwrap(), event);
                }
            }
        }
    }

    #[test]
    fn any_subject_of_an_event_is_read_back(kind in any_event_kind(), id in "[A-Za-z0-9_-]{1,40}", consumer in "[a-z-]{1,20}") {
        let subject = kind.pattern().subject(Some(&id)).unwrap();
        let has_id = kind.pattern().as_str().contains('{');
        prop_assert_eq!(EventKind::of(subject.as_str()), Ok((kind, has_id.then_some(id.as_str()))));
        prop_assert!(subject.matches(&kind.pattern().filter()));
        prop_assert!(kind.stream().stores(&subject));
        let dead: DeadLetterSubject = subject.dead_letter(&consumer).unwrap().as_str().parse().unwrap();
        prop_assert_eq!(dead, DeadLetterSubject { consumer, original: subject });
    }

    #[test]
    fn any_text_is_a_subject_or_refused(text in prop_oneof![any::<String>(), "[a-z.*>_-]{0,12}"]) {
        let valid = |token: &str| !token.is_empty() && token.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        prop_assert_eq!(Subject::new(text.as_str()).is_ok(), text.len() <= 255 && text.split('.').all(valid));
        prop_assert_eq!(text.parse::<UserId>().is_ok(), text.len() == 21 && valid(&text));
    }
}
