//! What compute's events say, and that both sides make the same rows of it.

use edd_proto::common::{EventMetadata, Timestamp};
use edd_proto::compute::{
    Container, ContainerDeleted, ContainerStarted, ContainerStatus, IngressProtocol, IngressRuleDeleteRequested,
    IngressRuleRequested, SshKeyCreated, SshKeyDeleted,
};
use edd_proto::{AnyEvent, ContainerId, Encoding};

use super::containers::Containers;
use super::ingress_requests::{IngressRequest, IngressRequests};
use super::ssh_keys::{SshKey, SshKeys};
use super::*;
use crate::database::Kind;
use crate::message::{Headers, Message};
use crate::projection::{Projection, Table};
use crate::scratch::{Scratch, on_each_database};

const ID: &str = "abcdefgh12";
const UID: &str = "V1StGXR8_Z5jdHi6B-myT";

fn metadata(version: i64) -> Option<EventMetadata> {
    Some(EventMetadata {
        event_id: "018d2f4e-3800-7000-8000-000000000001".to_owned(),
        entity_id: ID.to_owned(),
        timestamp: Some(Timestamp { seconds: 5, nanos: 0 }),
        version,
        schema_version: 1,
        ..Default::default()
    })
}

fn message(event: &AnyEvent, encoding: Encoding) -> Message {
    Message {
        event_id: "1".to_owned(),
        subject: event.subject().expect("a subject").to_string(),
        entity: String::new(),
        version: 0,
        content_type: encoding.content_type().to_owned(),
        payload: event.encode(encoding).expect("a small event").into(),
        correlation_id: String::new(),
        trace_parent: String::new(),
        headers: Headers::default(),
    }
}

/// The row that both encodings of `event` are.
fn row(projection: &impl Projection, event: impl Into<AnyEvent>) -> Entry {
    let event = event.into();
    let read = |encoding| projection.read(&message(&event, encoding)).expect("a good event").expect("a state");
    let entry = read(Encoding::Protobuf);
    assert_eq!(entry, read(Encoding::Json));
    assert!(projection.shape().fits(&entry.fields), "{entry:?}");
    let Key::Is(key) = entry.key else { panic!("no key in {entry:?}") };
    Entry { key, version: entry.version, deleted: entry.deleted, fields: entry.fields }
}

fn refusal(projection: &impl Projection, event: impl Into<AnyEvent>) -> String {
    match projection.read(&message(&event.into(), Encoding::Protobuf)) {
        Err(Failure::Permanent(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn container() -> Container {
    Container {
        container_id: ID.to_owned(),
        user_id: 0,
        user_uid: UID.to_owned(),
        name: "blog".to_owned(),
        status: ContainerStatus::Running.into(),
        address: "10.77.0.2".to_owned(),
        http_port: 80,
        ssh_port: 22,
        ssh_enabled: true,
        https_enabled: true,
        redirect_to_https: true,
        ssh_keys_restricted: true,
        ssh_key_ids: vec![3, 7],
        ssh_host_key_fingerprint: "SHA256:x".to_owned(),
    }
}

#[test]
fn a_container_is_its_row() {
    let started = ContainerStarted {
        metadata: metadata(4),
        container_id: ID.to_owned(),
        container: Some(container()),
        ..Default::default()
    };
    let id = ID.parse().expect("an id");
    let entry = row(&Containers, started.clone());
    assert_eq!(entry, containers::entry(id, 4, Some(container())));
    assert_eq!(containers::container(&entry), Some((id, container())));

    let deleted = ContainerDeleted { metadata: metadata(5), container_id: ID.to_owned(), ..Default::default() };
    let entry = row(&Containers, deleted);
    assert_eq!(entry, containers::entry(id, 5, None));
    assert_eq!(containers::container(&entry), None);

    let stateless = ContainerStarted { container: None, ..started.clone() };
    assert_eq!(refusal(&Containers, stateless), "the event has no state of its container");
    let nobodys = Container { user_uid: String::new(), ..container() };
    assert!(refusal(&Containers, ContainerStarted { container: Some(nobodys), ..started }).contains("owner"));
}

#[test]
fn a_key_is_its_row() {
    let created = SshKeyCreated {
        metadata: metadata(1),
        key_id: 9,
        user_id: 0,
        name: "laptop".to_owned(),
        fingerprint: "SHA256:y".to_owned(),
        user_uid: UID.to_owned(),
        public_key: "ssh-ed25519 AAAA".to_owned(),
    };
    let key = SshKey {
        id: 9,
        owner: UID.parse().expect("an id"),
        name: "laptop".to_owned(),
        fingerprint: "SHA256:y".to_owned(),
        public_key: "ssh-ed25519 AAAA".to_owned(),
    };
    let entry = row(&SshKeys, created.clone());
    assert_eq!(entry, ssh_keys::entry(9, 1, Some(key.clone())));
    assert_eq!(ssh_keys::key(&entry), Some(key));
    let deleted = SshKeyDeleted { metadata: metadata(2), key_id: 9, ..Default::default() };
    assert_eq!(row(&SshKeys, deleted), ssh_keys::entry(9, 2, None));
    assert!(refusal(&SshKeys, SshKeyCreated { user_uid: String::new(), user_id: 4, ..created }).contains("number"));
}

#[test]
fn a_request_is_its_row_and_keeps_ports_that_are_none() {
    let requested = IngressRuleRequested {
        metadata: metadata(1),
        container_id: ID.to_owned(),
        port: 70_000,
        target_port: 80,
        protocol: IngressProtocol::Tls.into(),
        request_id: 11,
    };
    let request = IngressRequest {
        container: ID.parse().expect("an id"),
        port: 70_000,
        target_port: 80,
        protocol: IngressProtocol::Tls,
        request_id: 11,
    };
    let entry = row(&IngressRequests, requested.clone());
    assert_eq!(entry, ingress_requests::entry(request.container, 70_000, 1, Some(request.clone())));
    assert_eq!(ingress_requests::request(&entry), Some(request.clone()));
    let taken_back =
        IngressRuleDeleteRequested { metadata: metadata(2), container_id: ID.to_owned(), port: 70_000, request_id: 11 };
    assert_eq!(row(&IngressRequests, taken_back), ingress_requests::entry(request.container, 70_000, 2, None));
    assert!(refusal(&IngressRequests, IngressRuleRequested { request_id: 0, ..requested }).contains("request"));
}

on_each_database!(the_tables_take_the_rows);

async fn the_tables_take_the_rows(kind: Kind) {
    let scratch = Scratch::new(kind);
    let database = scratch.open(&STEPS).await;
    let id: ContainerId = ID.parse().expect("an id");
    let owner = UID.parse().expect("an id");
    let key = SshKey { id: 9, owner, name: "n".to_owned(), fingerprint: "f".to_owned(), public_key: "p".to_owned() };
    let protocol = IngressProtocol::Tcp;
    let request = IngressRequest { container: id, port: 8000, target_port: 80, protocol, request_id: 1 };
    let rows = [
        (&containers::SHAPE, containers::entry(id, 3, Some(container())), containers::entry(id, 4, None)),
        (&ssh_keys::SHAPE, ssh_keys::entry(9, 1, Some(key)), ssh_keys::entry(9, 2, None)),
        (
            &ingress_requests::SHAPE,
            ingress_requests::entry(id, 8000, 1, Some(request)),
            ingress_requests::entry(id, 8000, 2, None),
        ),
    ];
    for (shape, live, gone) in rows {
        let table = Table::live(shape);
        for entry in [live, gone] {
            let mut transaction = database.begin().await.expect("a transaction");
            table.write(&mut transaction, std::slice::from_ref(&entry), None, 1).await.expect("a row");
            transaction.commit().await.expect("a commit");
            assert_eq!(table.page(&database, None, 9).await.expect("a page"), [entry]);
        }
    }
}
