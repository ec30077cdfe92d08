//! The auth service as the other services of this process see it: the users, of whom they keep a copy, and what they
//! verify callers with.

use async_trait::async_trait;
use edd_events::database::Database;
use edd_events::projection::{Digest, DigestBuilder, Entry, Owner, OwnerError, Page};
use edd_events::user_cache;

use crate::access_token::KeySet;
use crate::auth::error::AuthError;
use crate::auth::model::{self, RevokedKind, User};
use crate::auth::service::Service;
use crate::auth::store::users;
use crate::caller::{KeySource, LoadError};
use crate::revocation::Revocation;
use crate::revocation::feed::{RevocationPage, RevocationSource};

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

#[async_trait]
impl Owner for Service {
    async fn page(&self, after: Option<String>, most: u32) -> Result<Page, OwnerError> {
        Users::of(self.database().clone()).page(after, most).await
    }

    async fn digest(&self) -> Result<Digest, OwnerError> {
        Users::of(self.database().clone()).digest().await
    }
}

fn away(error: AuthError) -> OwnerError {
    OwnerError::Unavailable(error.to_string())
}

#[async_trait]
impl KeySource for Service {
    async fn load(&self) -> Result<KeySet, LoadError> {
        Ok(self.key_set())
    }
}

#[async_trait]
impl RevocationSource for Service {
    async fn revoked(&self, after: i64, most: u32) -> Result<RevocationPage, OwnerError> {
        let rows = self.revocations(after, most).await.map_err(away)?;
        let next = rows.last().filter(|_| rows.len() >= most as usize).map(|(number, _)| *number);
        Ok(RevocationPage { revocations: rows.into_iter().map(|(_, row)| revocation(row)).collect(), next })
    }
}

/// What verifiers have of `row`.
fn revocation(row: model::Revocation) -> Revocation {
    let model::Revocation { kind, record_id, user_id: user, version, expires_at, .. } = row;
    match kind {
        RevokedKind::User => Revocation::User { user, version },
        RevokedKind::Session | RevokedKind::ApiToken => Revocation::Session {
            session_id: record_id.to_string(),
            user: Some(user),
            expires_at: Some(expires_at),
            version,
        },
    }
}
