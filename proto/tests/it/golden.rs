//! Every message with all fields set, against bytes that were written down: an incompatible change is red here.

use std::collections::BTreeMap;

use edd_proto::{AnyEvent, Encoding, EventKind, Message, auth, common, compute};
use prost_reflect::DynamicMessage;
use serde_json::Value;

use crate::descriptors;

const FILES: [&str; 5] = [
    include_str!("golden/auth.txt"),
    include_str!("golden/common.txt"),
    include_str!("golden/compute.txt"),
    include_str!("golden/gateway.txt"),
    include_str!("golden/sfs.txt"),
];

/// A message as it was sent once.
pub struct Record {
    /// As in `auth.UserCreated`.
    pub name: &'static str,
    /// Of an event.
    pub subject: Option<&'static str>,
    pub protobuf: Vec<u8>,
    pub json: &'static str,
}

pub fn records() -> Vec<Record> {
    let blocks = FILES.iter().flat_map(|file| file.split("\n\n")).filter(|block| !block.starts_with('#'));
    blocks.map(record).collect()
}

fn record(block: &'static str) -> Record {
    let mut lines = block.lines();
    let name = lines.next().expect("a name");
    let mut fields: BTreeMap<_, _> = lines.map(|line| line.split_once(' ').expect("a key and its value")).collect();
    let mut take = |key| fields.remove(key);
    let (subject, protobuf, json) = (take("subject"), take("protobuf"), take("json"));
    assert!(fields.is_empty(), "{name}: unknown keys {fields:?}");
    Record { name, subject, protobuf: unhex(protobuf.expect("protobuf")), json: json.expect("json") }
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte in {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits")).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decodes a message as `from` and encodes it as `to`.
fn convert(record: &Record, from: Encoding, bytes: &[u8], to: Encoding) -> Vec<u8> {
    fn through<M: Message>(from: Encoding, bytes: &[u8], to: Encoding) -> Vec<u8> {
        let message: M = from.decode(bytes).unwrap_or_else(|error| panic!("{from}: {error:?}"));
        to.encode(&message).expect("a small message")
    }
    match (record.subject, record.name) {
        (Some(subject), name) => {
            let event = AnyEvent::decode(subject, from, bytes).unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(event.kind().name(), name);
            assert_eq!(event.subject().expect("an id").as_str(), subject);
            assert!(event.metadata().is_some());
            event.encode(to).expect("a small message")
        }
        (None, "auth.Scope") => through::<auth::Scope>(from, bytes, to),
        (None, "auth.ValidateTokenRequest") => through::<auth::ValidateTokenRequest>(from, bytes, to),
        (None, "auth.ValidateTokenResponse") => through::<auth::ValidateTokenResponse>(from, bytes, to),
        (None, "common.EventMetadata") => through::<common::EventMetadata>(from, bytes, to),
        (None, "compute.Container") => through::<compute::Container>(from, bytes, to),
        (None, name) => panic!("{name} is no message of ours, or an event without its subject"),
    }
}

fn value(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("JSON")
}

/// Every key of `old` with its value: a field that was added later does no harm.
fn holds(new: &Value, old: &Value) -> bool {
    match (new, old) {
        (Value::Object(new), Value::Object(old)) => {
            old.iter().all(|(key, value)| new.get(key).is_some_and(|new| holds(new, value)))
        }
        (Value::Array(new), Value::Array(old)) => {
            new.len() == old.len() && new.iter().zip(old).all(|(new, old)| holds(new, old))
        }
        (new, old) => new == old,
    }
}

#[test]
fn what_was_once_sent_is_read_and_written_the_same() {
    for record in records() {
        let name = record.name;
        let protobuf = convert(&record, Encoding::Protobuf, &record.protobuf, Encoding::Protobuf);
        assert_eq!(hex(&protobuf), hex(&record.protobuf), "{name} as protobuf");
        let old = value(record.json.as_bytes());
        for (from, bytes) in [(Encoding::Protobuf, &record.protobuf[..]), (Encoding::Json, record.json.as_bytes())] {
            let new = value(&convert(&record, from, bytes, Encoding::Json));
            assert!(holds(&new, &old), "{name} as JSON, from {from}:\n{new}\ninstead of\n{old}");
        }
    }
}

/// In JSON a moment has no nanoseconds; what is left must be the same message.
#[test]
fn both_forms_of_a_record_are_one_message() {
    for record in records() {
        let from_json = convert(&record, Encoding::Json, record.json.as_bytes(), Encoding::Protobuf);
        let message = descriptors::message(record.name);
        let read = |bytes: &[u8]| {
            let mut read = DynamicMessage::decode(message.clone(), bytes).unwrap();
            descriptors::drop_nanos(&mut read);
            read
        };
        assert_eq!(read(&from_json), read(&record.protobuf), "{}", record.name);
    }
}

#[test]
fn every_message_has_a_record_with_all_fields_set() {
    let records = records();
    for message in descriptors::messages().filter(|message| message.full_name() != "common.Timestamp") {
        let name = message.full_name();
        let own = records.iter().filter(|record| record.name == name);
        let full = |record: &Record| {
            let read = DynamicMessage::decode(message.clone(), record.protobuf.as_slice()).unwrap();
            message.fields().all(|field| read.has_field(&field))
        };
        assert!(own.clone().count() > 0, "{name} has no record");
        assert!(own.clone().any(full), "no record of {name} has all fields: add one for the new field");
    }
}

#[test]
fn every_event_has_a_record_and_a_subject_of_its_own() {
    let records = records();
    for message in descriptors::messages() {
        let is_event = message.get_field(1).is_some_and(|field| field.name() == "metadata");
        let kind = EventKind::ALL.iter().find(|kind| kind.name() == message.full_name());
        assert_eq!(kind.is_some(), is_event, "{}", message.full_name());
    }
    for &kind in EventKind::ALL {
        let own: Vec<_> = records.iter().filter(|record| record.name == kind.name()).collect();
        assert!(!own.is_empty(), "{kind} has no record");
        for record in own {
            let subject = record.subject.unwrap_or_else(|| panic!("{kind}: a record without subject"));
            assert_eq!(EventKind::of(subject).unwrap().0, kind);
        }
        let same = EventKind::ALL.iter().filter(|other| other.pattern().filter() == kind.pattern().filter()).count();
        assert_eq!(same, 1, "{kind} shares its subjects");
    }
}
