//! The metadata of an event: as sent, and as checked.

use std::time::SystemTime;

use crate::common::{EventMetadata, Timestamp};
use crate::event_id::{EventId, InvalidEventId};
use crate::timestamp::OutOfRange;

/// The shape of the events that this program publishes. It grows when a field takes another meaning; one that is
/// merely added changes nothing.
pub const SCHEMA_VERSION: i32 = 1;

/// An event's metadata, checked: what every reader needs before it looks at the event itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The same in every delivery of one event.
    pub event_id: EventId,
    /// The entity whose state changed.
    pub entity_id: String,
    /// When the change was committed, by the publisher's clock; not set by a publisher that keeps none.
    pub at: Option<SystemTime>,
    /// The service that published it.
    pub source: String,
    /// Grows by one with every event of the entity; 0: the publisher counts no versions.
    pub version: i64,
    /// The same for all that one request caused; empty if not known.
    pub correlation_id: String,
    /// W3C trace id; empty if not traced.
    pub trace_id: String,
}

/// Metadata that no event can be handled by. Trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMetadata {
    /// The event has no field 1.
    #[error("the event has no metadata")]
    Missing,
    /// `event_id`
    #[error("metadata.event_id: {0}")]
    EventId(#[from] InvalidEventId),
    /// `entity_id`
    #[error("metadata.entity_id is empty")]
    EntityId,
    /// `timestamp`
    #[error("metadata.timestamp: {0}")]
    Timestamp(#[from] OutOfRange),
    /// `version`
    #[error("metadata.version is {0}: versions count from 1")]
    Version(i64),
}

/// As published, in the shape [`SCHEMA_VERSION`].
impl From<Envelope> for EventMetadata {
    fn from(envelope: Envelope) -> Self {
        Self {
            event_id: envelope.event_id.to_string(),
            entity_id: envelope.entity_id,
            timestamp: envelope.at.map(Timestamp::from),
            source: envelope.source,
            version: envelope.version,
            correlation_id: envelope.correlation_id,
            trace_id: envelope.trace_id,
            schema_version: SCHEMA_VERSION,
        }
    }
}

impl TryFrom<Option<&EventMetadata>> for Envelope {
    type Error = InvalidMetadata;

    fn try_from(metadata: Option<&EventMetadata>) -> Result<Self, InvalidMetadata> {
        let metadata = metadata.ok_or(InvalidMetadata::Missing)?;
        if metadata.entity_id.is_empty() {
            return Err(InvalidMetadata::EntityId);
        }
        if metadata.version < 0 {
            return Err(InvalidMetadata::Version(metadata.version));
        }
        Ok(Self {
            event_id: metadata.event_id.parse()?,
            entity_id: metadata.entity_id.clone(),
            at: metadata.timestamp.map(SystemTime::try_from).transpose()?,
            source: metadata.source.clone(),
            version: metadata.version,
            correlation_id: metadata.correlation_id.clone(),
            trace_id: metadata.trace_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            event_id: "018d2f4e-3800-7000-8000-000000000001".parse().unwrap(),
            entity_id: "V1StGXR8_Z5jdHi6B-myT".to_owned(),
            at: Some(SystemTime::UNIX_EPOCH + Duration::new(1_705_920_000, 7)),
            source: "auth-service".to_owned(),
            version: 3,
            correlation_id: "c".to_owned(),
            trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        }
    }

    #[test]
    fn an_envelope_survives_being_sent() {
        let sent = EventMetadata::from(envelope());
        assert_eq!(sent.schema_version, SCHEMA_VERSION);
        assert_eq!(Envelope::try_from(Some(&sent)), Ok(envelope()));
    }

    #[test]
    fn metadata_that_nobody_can_use_is_refused() {
        let broken = |change: fn(&mut EventMetadata)| {
            let mut metadata = EventMetadata::from(envelope());
            change(&mut metadata);
            Envelope::try_from(Some(&metadata)).unwrap_err()
        };
        assert_eq!(Envelope::try_from(None), Err(InvalidMetadata::Missing));
        assert!(matches!(broken(|m| m.event_id.clear()), InvalidMetadata::EventId(_)));
        assert_eq!(broken(|m| m.entity_id.clear()), InvalidMetadata::EntityId);
        assert_eq!(broken(|m| m.version = -1), InvalidMetadata::Version(-1));
        let nanos_only = Timestamp { seconds: 0, nanos: -1 };
        let error = broken(|m| m.timestamp = Some(Timestamp { seconds: 0, nanos: -1 }));
        assert_eq!(error, InvalidMetadata::Timestamp(OutOfRange(nanos_only)));
    }

    #[test]
    fn a_publisher_without_clock_or_versions_is_understood() {
        let sent = EventMetadata { timestamp: None, version: 0, ..EventMetadata::from(envelope()) };
        let read = Envelope::try_from(Some(&sent)).unwrap();
        assert_eq!((read.at, read.version), (None, 0));
    }
}
