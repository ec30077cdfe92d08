//! Users who are deleted, and what becomes of what they have here.

use std::sync::Arc;

use async_trait::async_trait;
use edd_events::clock::{Clock, Micros};
use edd_events::consumer::{Failure, Handler};
use edd_events::message::Message;
use edd_events::publisher::{Cause, PublishError, Publisher};
use edd_proto::UserId;
use sqlx::AnyConnection;

use super::Service;
use super::happening::Teller;
use crate::departure::{self, departed};
use crate::sfs::config::OnUserDelete;
use crate::sfs::error::SfsError;
use crate::sfs::store::{namespaces, owners};

/// Deleted users who are seen to in one go.
const MAX_USERS: u32 = 16;
/// Namespaces of a deleted user that one transaction sees to.
const PIECE: u32 = 50;

/// Orphans or deletes what a user has, as the event says that they are gone.
#[derive(Clone, Debug)]
pub struct Departures {
    publisher: Publisher,
    clock: Arc<dyn Clock>,
    policy: OnUserDelete,
}

impl Departures {
    /// The subjects that it handles.
    pub const SUBJECTS: &[&str] = departure::SUBJECTS;

    /// `publisher` is of the source `sfs-service`.
    pub fn new(publisher: Publisher, clock: Arc<dyn Clock>, policy: OnUserDelete) -> Self {
        Self { publisher, clock, policy }
    }
}

#[async_trait]
impl Handler for Departures {
    /// A user who has very much is seen to piece by piece; the first is in this transaction.
    async fn handle(&self, message: &Message, connection: &mut AnyConnection) -> Result<(), Failure> {
        let Some(user) = departed(message)? else { return Ok(()) };
        let cause = Cause::of(message);
        let teller = Teller { publisher: &self.publisher, cause: &cause };
        clear(teller, self.policy, connection, user, self.clock.now()).await?;
        Ok(())
    }
}

impl Service {
    /// Sees to a further piece of what deleted users have. Whether there is more.
    pub(in crate::sfs) async fn clear_departed(&self) -> Result<bool, SfsError> {
        let users = owners::uncleared(self.database().reader(), MAX_USERS).await?;
        let mut is_more = users.len() == MAX_USERS as usize;
        for user in users {
            let mut transaction = self.begin_change().await?;
            let teller = Teller { publisher: self.publisher(), cause: &Cause::default() };
            let policy = self.config().on_user_delete;
            is_more |= !clear(teller, policy, &mut transaction, user, self.now()).await?;
            self.commit(transaction).await?;
        }
        Ok(is_more)
    }
}

/// Sees to a piece of what a deleted user has, and notes that they are deleted. Whether that was all.
async fn clear(
    teller: Teller<'_>,
    policy: OnUserDelete,
    connection: &mut AnyConnection,
    user: UserId,
    now: Micros,
) -> Result<bool, PublishError> {
    owners::bury(&mut *connection, user, now, false).await?;
    let theirs = namespaces::of_user(&mut *connection, user, None, PIECE).await?;
    for seen in &theirs {
        let Some(mut namespace) = namespaces::lock(connection, seen.number).await? else { continue };
        match policy {
            OnUserDelete::Orphan => {
                namespace.owner = None;
                namespace.version = teller.changed(connection, &namespace, namespace.visibility).await?;
                namespaces::save(&mut *connection, &namespace).await?;
            }
            OnUserDelete::Delete => {
                let version = teller.deleted(connection, &namespace).await?;
                namespaces::bury(&mut *connection, namespace.number, version, now).await?;
            }
        }
    }
    let is_all = theirs.len() < PIECE as usize;
    if is_all {
        owners::bury(connection, user, now, true).await?;
    }
    Ok(is_all)
}
