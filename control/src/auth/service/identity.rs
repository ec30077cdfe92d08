//! Whose a token is, by the database: what has ended a moment ago is refused here at once, without waiting for events.

use std::time::Duration;

use edd_events::clock::micros;

use super::Service;
use crate::access_token::MAX_TOKEN_BYTES;
use crate::auth::error::AuthError;
use crate::auth::model::{ApiToken, RecordId, Session, User};
use crate::auth::store::{sessions, tokens};
use crate::caller::API_TOKEN_PREFIX;
use crate::entropy::Secret;

/// How exactly the last use of an API token is known.
const USE_NOTED: Duration = Duration::from_secs(60);

/// Who asks.
#[derive(Clone, Debug)]
pub struct Identity {
    pub user: User,
    pub via: Via,
}

/// What they came with.
#[derive(Clone, Debug)]
pub enum Via {
    Session(Session),
    ApiToken(ApiToken),
}

const REFUSED: AuthError = AuthError::Unauthenticated("the token is unknown, expired or revoked");

impl Service {
    /// Whose `token` is: an access token or an API token.
    ///
    /// # Errors
    /// [`AuthError::Unauthenticated`], or the database fails.
    pub async fn identify(&self, token: &str) -> Result<Identity, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Unauthenticated("the token is longer than any of ours"));
        }
        if token.starts_with(API_TOKEN_PREFIX) {
            return self.identify_api_token(token).await;
        }
        let now = self.0.clock.now();
        let claims = self.0.keys.verify(token, now).map_err(AuthError::Token)?;
        let id: RecordId = claims.sid.parse().map_err(|_| REFUSED)?;
        let (session, user) = sessions::live(self.0.database.reader(), &id, now).await?.ok_or(REFUSED)?;
        Ok(Identity { user, via: Via::Session(session) })
    }

    async fn identify_api_token(&self, token: &str) -> Result<Identity, AuthError> {
        let now = self.0.clock.now();
        let (token, user) = tokens::live(self.0.database.reader(), &Secret::of(token), now).await?.ok_or(REFUSED)?;
        let since = now - micros(USE_NOTED);
        if token.last_used_at.is_none_or(|at| at < since) {
            tokens::touch(self.0.database.writer(), &token.id, now, since).await?;
        }
        Ok(Identity { user, via: Via::ApiToken(token) })
    }
}
