//! Users who are deleted, and with them what they have here.

use std::sync::Arc;

use async_trait::async_trait;
use edd_events::clock::Clock;
use edd_events::consumer::{Failure, Handler};
use edd_events::message::Message;
use edd_events::publisher::{Cause, Publisher};
use sqlx::AnyConnection;

use super::Service;
use super::deletion::clear;
use crate::compute::error::ComputeError;
use crate::compute::store::owners;
use crate::departure::{self, departed};

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
    pub const SUBJECTS: &[&str] = departure::SUBJECTS;

    /// `publisher` is of the source `compute-service`.
    pub fn new(publisher: Publisher, clock: Arc<dyn Clock>) -> Self {
        Self { publisher, clock }
    }
}

#[async_trait]
impl Handler for Departures {
    /// A user who has very much is deleted piece by piece; the first is in this transaction.
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let Some(user) = departed(message)? else { return Ok(()) };
        clear(&self.publisher, connection, user, self.clock.now(), &Cause::of(message)).await?;
        Ok(())
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
