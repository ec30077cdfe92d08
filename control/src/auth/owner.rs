//! The users as those who keep a copy of them see them: pages and a digest, see [`Owner`].

use async_trait::async_trait;
use edd_events::database::Database;
use edd_events::projection::{Digest, DigestBuilder, Entry, Owner, OwnerError, Page};
use edd_events::user_cache;

use crate::auth::model::User;
use crate::auth::store::users;

/// Users read in one go for a digest.
const PAGE_ROWS: u32 = 1000;

/// The users of an auth database.
#[derive(Clone, Debug)]
pub struct Users(Database);

impl Users {
    /// `database` has the tables of the auth service.
    pub fn of(database: Database) -> Self {
        Self(database)
    }
}

/// The row that others have of `user`.
fn entry(user: User) -> Entry {
    let names = user.deleted_at.is_none().then_some((user.username, user.display_name));
    user_cache::entry(user.id, user.version, Some(user.number), names)
}

#[async_trait]
impl Owner for Users {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        let users = users::page(self.0.reader(), after.as_deref(), most.saturating_add(1), true).await;
        let users = users.map_err(|error| OwnerError::Unavailable(error.to_string()))?;
        let more = users.len() > most as usize;
        Ok(Page { entries: users.into_iter().take(most as usize).map(entry).collect(), more })
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        let mut digest = DigestBuilder::default();
        let mut after = None;
        loop {
            let page = self.page(after, PAGE_ROWS).await?;
            for entry in &page.entries {
                digest.add(entry).map_err(|error| OwnerError::Invalid(error.to_string()))?;
            }
            after = page.entries.last().map(|entry| entry.key.clone());
            if !page.more {
                return Ok(digest.finish());
            }
        }
    }
}
