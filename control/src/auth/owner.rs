//! The users as those who keep a copy of them see them: pages and a digest, see [`Owner`].

use async_trait::async_trait;
use edd_events::projection::{Digest, DigestBuilder, Entry, Owner, OwnerError, Page};
use edd_events::user_cache;

use crate::auth::error::AuthError;
use crate::auth::model::User;
use crate::auth::service::Service;

/// Users read in one go for a digest.
const PAGE_ROWS: u32 = 1000;

/// The row that others have of `user`.
fn entry(user: User) -> Entry {
    let names = user.deleted_at.is_none().then_some((user.username, user.display_name));
    user_cache::entry(user.id, user.version, Some(user.number), names)
}

fn away(error: AuthError) -> OwnerError {
    OwnerError::Unavailable(error.to_string())
}

#[async_trait]
impl Owner for Service {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        let users = self.users_page(after.as_deref(), most.saturating_add(1), true).await.map_err(away)?;
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
