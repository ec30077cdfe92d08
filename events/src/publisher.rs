//! Turns what a service did into a row of its outbox: metadata, version, subject and bytes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use edd_proto::{Encoding, Envelope, Event, EventId, SubjectError, TooLarge};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sqlx::AnyConnection;

use crate::clock::Clock;
use crate::fail_point::fail_point;
use crate::message::{Headers, Message};
use crate::outbox;

/// What an event follows from: a request, or another event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The id of the request that all of it began with; empty if it is not known.
    pub correlation_id: String,
    /// W3C `traceparent`; empty if nobody traces.
    pub trace_parent: String,
}

impl Cause {
    /// The cause of what `message` leads to: its own, so that one id finds the whole chain.
    pub fn of(message: &Message) -> Self {
        Self { correlation_id: message.correlation_id.clone(), trace_parent: message.trace_parent.clone() }
    }

    /// The trace's id; empty if there is none.
    fn trace_id(&self) -> &str {
        self.trace_parent.split('-').nth(1).unwrap_or_default()
    }
}

/// Why an event could not be written. The transaction should be dropped.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}

/// Writes one service's events; clones share their source of randomness.
#[derive(Clone, Debug)]
pub struct Publisher {
    source: &'static str,
    encoding: Encoding,
    clock: Arc<dyn Clock>,
    random: Arc<Mutex<StdRng>>,
}

impl Publisher {
    /// For the service that calls itself `source` in its events.
    pub fn new(source: &'static str, encoding: Encoding, clock: Arc<dyn Clock>) -> Self {
        Self { source, encoding, clock, random: Arc::new(Mutex::new(rand::make_rng())) }
    }

    /// One whose event ids follow from `seed`: a simulation that is run again meets the same ones.
    pub fn seeded(source: &'static str, encoding: Encoding, clock: Arc<dyn Clock>, seed: u64) -> Self {
        Self { source, encoding, clock, random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))) }
    }

    /// Adds `event` to the outbox, in the transaction of the change that it tells of, and fills its metadata in.
    /// The entity's version after the change.
    ///
    /// Locks the entity until the transaction ends.
    ///
    /// # Errors
    /// The event lacks its id, is too large, or the database fails.
    pub async fn add<E: Event>(
        &self,
        connection: &mut AnyConnection,
        mut event: E,
        cause: &Cause,
    ) -> Result<i64, PublishError> {
        let subject = event.subject()?;
        let entity = subject.as_str().rsplit_once('.').map_or(subject.as_str(), |(entity, _)| entity).to_owned();
        let version = outbox::next_version(connection, &entity).await?;
        let now = self.clock.now();
        let at = UNIX_EPOCH + Duration::from_micros(now.try_into().unwrap_or_default());
        let event_id = EventId::new(at, &mut *self.random.lock().unwrap_or_else(PoisonError::into_inner));
        let envelope = Envelope {
            event_id,
            entity_id: event.subject_id().map_or_else(|| entity.clone(), |id| id.into_owned()),
            at: Some(at),
            source: self.source.to_owned(),
            version,
            correlation_id: cause.correlation_id.clone(),
            trace_id: cause.trace_id().to_owned(),
        };
        *event.metadata_mut() = Some(envelope.into());
        let message = Message {
            event_id: event_id.to_string(),
            subject: subject.to_string(),
            entity,
            version,
            content_type: self.encoding.content_type().to_owned(),
            payload: Bytes::from(self.encoding.encode(&event)?),
            correlation_id: cause.correlation_id.clone(),
            trace_parent: cause.trace_parent.clone(),
            headers: Headers::default(),
        };
        outbox::add(connection, &message, now).await?;
        fail_point!("publisher.added");
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use edd_proto::auth::{UserCreated, UserDeleted};
    use edd_proto::{AnyEvent, Encoding};

    use super::*;
    use crate::clock::ManualClock;
    use crate::database::Kind;
    use crate::scratch::{Scratch, on_each_database};

    const UID: &str = "V1StGXR8_Z5jdHi6B-myT";

    on_each_database! {
        an_event_carries_who_when_why_and_which_version,
    }

    async fn an_event_carries_who_when_why_and_which_version(kind: Kind) {
        let scratch = Scratch::new(kind);
        let database = scratch.open(&[]).await;
        let clock = Arc::new(ManualClock::at(1_705_920_000_000_007));
        let cause = Cause {
            correlation_id: "request-1".to_owned(),
            trace_parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        };
        for encoding in [Encoding::Protobuf, Encoding::Json] {
            let publisher = Publisher::new("auth-service", encoding, clock.clone());
            let mut transaction = database.begin().await.expect("a transaction");
            let created = UserCreated { user_uid: UID.to_owned(), username: "ann".to_owned(), ..Default::default() };
            let first = publisher.add(&mut transaction, created, &cause).await.expect("a row");
            let deleted = UserDeleted { user_uid: UID.to_owned(), ..Default::default() };
            assert_eq!(publisher.add(&mut transaction, deleted, &cause).await.expect("a row"), first + 1);
            let nameless = publisher.add(&mut transaction, UserDeleted::default(), &cause).await;
            assert!(matches!(nameless, Err(PublishError::Subject(_))), "{nameless:?}");
            database.commit(transaction).await.expect("a commit");
            let row = &outbox::pending(&database, 10).await.expect("rows")[first as usize - 1];
            let message = &row.message;
            assert_eq!(message.subject, format!("auth.user.{UID}.created"));
            assert_eq!((message.entity.as_str(), message.version), (&*format!("auth.user.{UID}"), first));
            let event = AnyEvent::decode(&message.subject, encoding, &message.payload).expect("an event");
            let envelope = event.envelope().expect("metadata");
            assert_eq!(envelope.event_id.to_string(), message.event_id);
            assert_eq!((envelope.entity_id.as_str(), envelope.version), (UID, first));
            assert_eq!((envelope.source.as_str(), envelope.correlation_id.as_str()), ("auth-service", "request-1"));
            assert_eq!(envelope.trace_id, "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(Cause::of(message), cause);
        }
    }
}
