//! API tokens, for programs.

use std::time::Duration;

use edd_events::clock::micros;
use edd_events::publisher::Cause;
use edd_proto::auth::SessionEnd;

use super::Service;
use super::revocation::End;
use crate::auth::error::AuthError;
use crate::auth::model::{ApiToken, Invalid, RecordId, User};
use crate::auth::scope::Scopes;
use crate::auth::store::{tokens, users};
use crate::caller::API_TOKEN_PREFIX;
use crate::entropy::Secret;

/// Tokens that a user may have at once.
const MAX_TOKENS: u32 = 100;

/// When a token ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    Days(u32),
    Never,
}

impl std::str::FromStr for Expiry {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "30d" => Ok(Self::Days(30)),
            "90d" => Ok(Self::Days(90)),
            "365d" => Ok(Self::Days(365)),
            "never" => Ok(Self::Never),
            _ => Err(Invalid { field: "expires_in", rule: "30d, 90d, 365d or never" }),
        }
    }
}

/// A token to be.
#[derive(Clone, Debug)]
pub struct NewToken {
    name: String,
    scopes: Scopes,
    expiry: Expiry,
}

impl NewToken {
    /// # Errors
    /// The name is empty, longer than 64 characters or has invisible ones.
    pub fn new(name: &str, scopes: Scopes, expiry: Expiry) -> Result<Self, Invalid> {
        // What a name to show has to be, this has to be as well.
        let name = name.parse::<crate::auth::model::DisplayName>();
        let name = name.map_err(|Invalid { rule, .. }| Invalid { field: "name", rule })?;
        Ok(Self { name: name.as_str().to_owned(), scopes, expiry })
    }
}

impl Service {
    /// Makes a token. Its secret is not kept: it is seen here and never again.
    ///
    /// # Errors
    /// The user has too many, or is gone.
    pub async fn create_token(&self, user: &User, new: NewToken) -> Result<(ApiToken, Secret), AuthError> {
        let now = self.0.clock.now();
        let secret = self.0.entropy.secret(API_TOKEN_PREFIX);
        let expires_at = match new.expiry {
            Expiry::Never => None,
            Expiry::Days(days) => Some(now + micros(Duration::from_secs(u64::from(days) * 24 * 3600))),
        };
        let token = ApiToken {
            id: RecordId::from(self.0.entropy.nanoid()),
            user_number: user.number,
            name: new.name,
            scopes: new.scopes,
            created_at: now,
            expires_at,
            last_used_at: None,
        };
        let mut transaction = self.0.database.begin().await?;
        if !users::lock(&mut *transaction, user.number).await? {
            return Err(AuthError::NotFound("user"));
        }
        if tokens::count(&mut *transaction, user.number).await? >= i64::from(MAX_TOKENS) {
            return Err(AuthError::Conflict("you have 100 API tokens, which is the limit: delete one first"));
        }
        tokens::insert(&mut *transaction, &token, &secret).await?;
        self.0.database.commit(transaction).await?;
        Ok((token, secret))
    }

    /// The tokens of `user`, the latest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn tokens_of(&self, user: &User) -> Result<Vec<ApiToken>, AuthError> {
        Ok(tokens::of_user(self.0.database.reader(), user.number, MAX_TOKENS).await?)
    }

    /// Ends a token. Told like the end of a session, by the token's record, so that whoever remembers it forgets it.
    ///
    /// # Errors
    /// The user has no such token.
    pub async fn delete_token(&self, user: &User, id: &RecordId, cause: &Cause) -> Result<(), AuthError> {
        let mut transaction = self.0.database.begin().await?;
        let removed = tokens::remove(&mut *transaction, user.number, id).await?;
        let token = removed.ok_or(AuthError::NotFound("API token"))?;
        let end = End { user, reason: SessionEnd::Revoked, cause, now: self.0.clock.now() };
        self.tell_api_token(&mut transaction, &token, end).await?;
        Ok(self.0.database.commit(transaction).await?)
    }
}
