//! Users who are deleted, and with them what they have here.

use std::sync::Arc;

use async_trait::async_trait;
use edd_events::clock::Clock;
use edd_events::consumer::{Failure, Handler, decode};
use edd_events::message::Message;
use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::{AnyEvent, NamesUser, UserId};
use sqlx::AnyConnection;

use super::Service;
use super::deletion::clear;
use crate::compute::error::ComputeError;
use crate::compute::store::owners;

/// Deleted users who are seen to in one go.
const MAX_USERS: u32 = 16;

/// Deletes what a user has, as the event says that they are gone.
#[derive(Clone, Debug)]
pub struct Departures {
    publisher: Publisher,
    clock: Arc<dyn Clock>,
}

impl Departures {
    /// The subjects that it handles.
    pub const SUBJECTS: &[&str] = &["auth.user.*.deleted"];

    /// `publisher` is of the source `compute-service`.
    pub fn new(publisher: Publisher, clock: Arc<dyn Clock>) -> Self {
        Self { publisher, clock }
    }
}

#[async_trait]
impl Handler for Departures {
    /// A user who has very much is deleted piece by piece; the first is in this transaction.
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let AnyEvent::UserDeleted(event) = decode(message)?.0 else { return Ok(()) };
        let permanent = |error: &dyn std::fmt::Display| Failure::Permanent(error.to_string());
        let named = event.user().map_err(|error| permanent(&error))?.uid;
        let in_subject = || message.subject.split('.').nth(2).unwrap_or_default().parse::<UserId>();
        let user = named.map_or_else(in_subject, Ok).map_err(|error| permanent(&error))?;
        clear(&self.publisher, connection, user, self.clock.now(), &Cause::of(message)).await.map_err(failure)?;
        Ok(())
    }
}

fn failure(error: PublishError) -> Failure {
    match error {
        PublishError::Database(error) => error.into(),
        error => Failure::Permanent(error.to_string()),
    }
}

impl Service {
    /// Deletes a further piece of what deleted users have. Whether there is more.
    pub(in crate::compute) async fn clear_departed(&self) -> Result<bool, ComputeError> {
        let users = owners::uncleared(self.database().reader(), MAX_USERS).await?;
        let mut is_more = users.len() == MAX_USERS as usize;
        for user in users {
            let mut transaction = self.database().begin().await?;
            let is_all = clear(self.publisher(), &mut transaction, user, self.now(), &Cause::default()).await?;
            self.database().commit(transaction).await?;
            self.changed(user);
            is_more |= !is_all;
        }
        Ok(is_more)
    }
}
