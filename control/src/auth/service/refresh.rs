//! A refresh token becomes an access token and the next refresh token.

use edd_events::clock::{Micros, micros};
use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use edd_proto::auth::SessionEnd;

use super::login::Opened;
use super::revocation::End;
use super::{Service, SignedIn};
use crate::auth::error::AuthError;
use crate::auth::model::{Session, User};
use crate::auth::store::refresh::{self, Known};
use crate::auth::store::sessions;
use crate::entropy::Secret;

const REFUSED: AuthError = AuthError::Unauthenticated("the refresh token is unknown, used or expired");

impl Service {
    /// Uses a refresh token up. One that was used before ends its session: either it or its successor is in the wrong
    /// hands. The exception is [`Lifetimes::refresh_grace`](crate::auth::config::Lifetimes::refresh_grace).
    ///
    /// # Errors
    /// [`AuthError::Unauthenticated`]: sign in again.
    pub async fn refresh(&self, token: &Secret, cause: &Cause) -> Result<SignedIn, AuthError> {
        let now = self.0.clock.now();
        let known = refresh::find(self.0.database.reader(), token).await?.ok_or(REFUSED)?;
        self.0.limits.refreshes_per_session.admit(&known.session)?;
        let mut transaction = self.0.database.begin().await?;
        // Locks the session: of two that refresh at once, the second sees what the first did.
        if !sessions::touch(&mut *transaction, &known.session, now).await? {
            return Err(REFUSED);
        }
        let (session, user) = sessions::live(&mut *transaction, &known.session, now).await?.ok_or(REFUSED)?;
        let successor = self.0.entropy.secret("");
        if !self.replace(&mut transaction, token, &successor, now).await? {
            self.end_family(transaction, &session, &user, cause, now).await?;
            return Err(REFUSED);
        }
        refresh::insert(&mut *transaction, &successor, &session.id).await?;
        self.0.database.commit(transaction).await?;
        self.signed_in(user, Opened { session, refresh_token: Some(successor) })
    }

    /// Whether `successor` takes the place of `token`. False: the token was used before, and not just now.
    async fn replace(
        &self,
        transaction: &mut Transaction,
        token: &Secret,
        successor: &Secret,
        now: Micros,
    ) -> Result<bool, AuthError> {
        if refresh::replace(&mut **transaction, &token.sha256(), successor, now).await? {
            return Ok(true);
        }
        let Some(Known { used: Some((used_at, replaced_by)), .. }) = refresh::find(&mut **transaction, token).await?
        else {
            return Err(REFUSED);
        };
        let grace = micros(self.0.config.lifetimes.refresh_grace);
        if now - used_at >= grace || !refresh::replace(&mut **transaction, &replaced_by, successor, now).await? {
            return Ok(false);
        }
        refresh::replace_again(&mut **transaction, token, successor).await?;
        Ok(true)
    }

    async fn end_family(
        &self,
        mut transaction: Transaction,
        session: &Session,
        user: &User,
        cause: &Cause,
        now: Micros,
    ) -> Result<(), AuthError> {
        sessions::remove(&mut *transaction, &session.id).await?;
        let end = End { user, reason: SessionEnd::RefreshReused, cause, now };
        self.tell_session(&mut transaction, session, end).await?;
        self.0.database.commit(transaction).await?;
        tracing::warn!(session = %session.id, user = %user.id, "a refresh token came a second time: its session is ended");
        Ok(())
    }
}
