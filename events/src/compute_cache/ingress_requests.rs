//! The ports that tenants ask for: `ingress_requests`. What becomes of them is the gateway's to say.

use edd_proto::compute::IngressProtocol;
use edd_proto::{AnyEvent, ContainerId};

use super::{keyed, missing, number, read, text};
use crate::consumer::{Failure, decode};
use crate::database::Step;
use crate::message::Message;
use crate::projection::{Column, Entry, Key, Projection, Shape, Value};

/// The table.
pub static SHAPE: Shape = Shape {
    name: STEP.name,
    sql: STEP.sql,
    key: "place",
    columns: &[
        Column::text("container_id"),
        Column::number("port"),
        Column::number("target_port"),
        Column::number("protocol"),
        Column::number("request_id"),
    ],
    filters: &["compute.ingress.>"],
};

/// Creates the table.
pub const STEP: Step = Step {
    version: 24,
    name: "ingress_request_cache",
    sql: "
CREATE TABLE {table} (
    -- Container and port, as in `abcdefghij/8000`: a container has one rule for a port.
    place {key},
    container_id TEXT NOT NULL,
    port BIGINT,
    target_port BIGINT,
    -- compute.IngressProtocol
    protocol BIGINT,
    request_id BIGINT,
    version BIGINT NOT NULL,
    deleted BIGINT NOT NULL,
    synced_at BIGINT NOT NULL,
    round BIGINT NOT NULL
);
CREATE INDEX {table}_container_id ON {table} (container_id);
",
};

/// One of them. Its ports are as they were asked for: whether they are any is the gateway's to check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressRequest {
    pub container: ContainerId,
    /// The gateway's.
    pub port: i32,
    /// The container's.
    pub target_port: i32,
    pub protocol: IngressProtocol,
    /// compute's number for it, which the answer repeats.
    pub request_id: i64,
}

/// The projection of requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct IngressRequests;

impl Projection for IngressRequests {
    fn shape(&self) -> &'static Shape {
        &SHAPE
    }

    fn read(&self, message: &Message) -> Result<Option<Entry<Key>>, Failure> {
        let (event, envelope) = decode(message)?;
        let (container, port) = match &event {
            AnyEvent::IngressRuleRequested(event) => (&event.container_id, event.port),
            AnyEvent::IngressRuleDeleteRequested(event) => (&event.container_id, event.port),
            _ => return Ok(None),
        };
        let container = container.parse().map_err(|error| Failure::Permanent(format!("container_id: {error}")))?;
        let request = match event {
            AnyEvent::IngressRuleRequested(event) if event.request_id <= 0 => {
                return Err(missing("number of its request"));
            }
            AnyEvent::IngressRuleRequested(event) => {
                let (target_port, protocol, request_id) = (event.target_port, event.protocol(), event.request_id);
                Some(IngressRequest { container, port, target_port, protocol, request_id })
            }
            _ => None,
        };
        Ok(Some(read(place(container, port), &envelope, &SHAPE, request.map(fields))))
    }
}

fn place(container: ContainerId, port: i32) -> String {
    format!("{container}/{port}")
}

/// A request as a row of the projection; none of one that was taken back. `version` is that of its last event.
pub fn entry(container: ContainerId, port: i32, version: i64, request: Option<IngressRequest>) -> Entry {
    keyed(place(container, port), version, &SHAPE, request.map(fields))
}

/// The request of a row; none of one that was taken back.
pub fn request(entry: &Entry) -> Option<IngressRequest> {
    if entry.deleted {
        return None;
    }
    Some(IngressRequest {
        container: text(entry, 0).parse().ok()?,
        port: number(entry, 1),
        target_port: number(entry, 2),
        protocol: number::<i32>(entry, 3).try_into().unwrap_or_default(),
        request_id: number(entry, 4),
    })
}

fn fields(request: IngressRequest) -> Vec<Value> {
    vec![
        Value::Text(request.container.to_string()),
        Value::Number(request.port.into()),
        Value::Number(request.target_port.into()),
        Value::Number((request.protocol as i32).into()),
        Value::Number(request.request_id),
    ]
}
