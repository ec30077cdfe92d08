//! An event on its way: bytes and what is said about them. Nothing between the outbox and the
//! consumer decodes the bytes, because decoding drops what this release does not know.

use bytes::Bytes;

/// One event, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// UUID v7. The bus and every inbox tell duplicates by it.
    pub event_id: String,
    /// `auth.user.<id>.created`.
    pub subject: String,
    /// What the event is about, the same for all events of one row: `auth.user.<id>`. Order is kept within it.
    pub entity: String,
    /// The entity's version after the change.
    pub version: i64,
    /// How `payload` is encoded; a media type.
    pub content_type: String,
    pub payload: Bytes,
    /// The request, or the event, that all of this began with.
    pub correlation_id: String,
    /// W3C `traceparent`; empty if nobody traces.
    pub trace_parent: String,
}

/// Names of the headers that carry a message's fields over a bus.
pub mod header {
    /// Also how JetStream recognizes what was published twice.
    pub const EVENT_ID: &str = "Nats-Msg-Id";
    pub const ENTITY: &str = "Edd-Entity";
    pub const VERSION: &str = "Edd-Version";
    pub const CONTENT_TYPE: &str = "Content-Type";
    pub const CORRELATION_ID: &str = "Edd-Correlation-Id";
    pub const TRACE_PARENT: &str = "traceparent";
}
