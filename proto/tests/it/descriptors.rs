//! The .proto files, read by a second implementation of protobuf.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage, Value};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    DescriptorPool::decode(bytes.as_slice()).expect("descriptors that the build wrote")
});

/// Every message of our own.
pub fn messages() -> impl Iterator<Item = MessageDescriptor> {
    POOL.all_messages().filter(|message| message.package_name() != "google.protobuf")
}

pub fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).unwrap_or_else(|| panic!("no .proto file defines {name}"))
}

/// Leaves of every moment the seconds, which are all that JSON keeps.
pub fn drop_nanos(message: &mut DynamicMessage) {
    if message.descriptor().full_name() == "common.Timestamp" {
        message.clear_field_by_name("nanos");
    }
    for (_, value) in message.fields_mut() {
        match value {
            Value::Message(inner) => drop_nanos(inner),
            Value::List(list) => list.iter_mut().filter_map(Value::as_message_mut).for_each(drop_nanos),
            _ => {}
        }
    }
}

#[test]
fn every_proto_file_is_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = 0;
    for dir in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        for file in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "proto") {
                let name = file.strip_prefix(root).unwrap().to_str().unwrap();
                assert!(POOL.get_file_by_name(name).is_some(), "{name} is in no package that build.rs knows");
                found += 1;
            }
        }
    }
    assert_eq!(found, 7);
}

#[test]
fn fields_of_edd_clouds_events_keep_their_numbers_names_and_types() {
    let text = include_str!("golden/edd-cloud.fields");
    let mut checked = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let [message_name, number, kind, name] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (message, number) = (message(message_name), number.parse().unwrap());
        match message.get_field(number) {
            Some(field) => assert_eq!((field.name(), kind), (name, kind_name(&field.kind()).as_str()), "{line}"),
            None => {
                assert!(message.reserved_names().any(|reserved| reserved == name), "{line}: gone, and not reserved");
                let mut ranges = message.reserved_ranges();
                assert!(ranges.any(|range| range.contains(&number)), "{line}: gone, and not reserved");
            }
        }
        checked += 1;
    }
    assert_eq!(checked, 107);
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
