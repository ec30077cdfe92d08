//! Sessions, as their users and administrators see them.

use edd_events::publisher::Cause;
use edd_proto::auth::SessionEnd;

use super::revocation::{End, MAX_SESSIONS};
use super::{Identity, Service, Via};
use crate::auth::error::AuthError;
use crate::auth::model::{RecordId, Session, User};
use crate::auth::store::{refresh, sessions};
use crate::entropy::Secret;

impl Service {
    /// Ends the session that somebody came with.
    ///
    /// # Errors
    /// They came with an API token, which is deleted and not logged out.
    pub async fn logout(&self, identity: &Identity, cause: &Cause) -> Result<(), AuthError> {
        let Via::Session(session) = &identity.via else {
            return Err(AuthError::Forbidden("an API token has no session: delete it to end it"));
        };
        self.end_one(&session.id, &identity.user, SessionEnd::LoggedOut, cause).await.map(drop)
    }

    /// Ends the session that a refresh token belongs to: its access token may have expired when its user logs out.
    ///
    /// # Errors
    /// The database fails; an unknown token ends nothing.
    pub async fn logout_by_refresh(&self, token: &Secret, cause: &Cause) -> Result<(), AuthError> {
        let Some(known) = refresh::find(self.0.database.reader(), token).await? else { return Ok(()) };
        let live = sessions::live(self.0.database.reader(), &known.session, self.0.clock.now()).await?;
        let Some((session, user)) = live else { return Ok(()) };
        self.end_one(&session.id, &user, SessionEnd::LoggedOut, cause).await.map(drop)
    }

    /// Ends one session of `user`.
    ///
    /// # Errors
    /// They have no such session.
    pub async fn end_session(&self, user: &User, id: &RecordId, cause: &Cause) -> Result<(), AuthError> {
        let was_there = self.end_one(id, user, SessionEnd::Revoked, cause).await?;
        if was_there { Ok(()) } else { Err(AuthError::NotFound("session")) }
    }

    async fn end_one(&self, id: &RecordId, user: &User, reason: SessionEnd, cause: &Cause) -> Result<bool, AuthError> {
        let now = self.0.clock.now();
        let mut transaction = self.0.database.begin().await?;
        let removed = sessions::remove(&mut *transaction, id).await?;
        // Dropping the transaction gives another user's session back.
        let Some(session) = removed.filter(|session| session.user_number == user.number) else { return Ok(false) };
        self.tell_session(&mut transaction, &session, End { user, reason, cause, now }).await?;
        self.0.database.commit(transaction).await?;
        Ok(true)
    }

    /// Ends all sessions of `user` but one.
    ///
    /// # Errors
    /// The database fails.
    pub async fn end_other_sessions(&self, user: &User, but: &RecordId, cause: &Cause) -> Result<(), AuthError> {
        let end = End { user, reason: SessionEnd::Revoked, cause, now: self.0.clock.now() };
        let mut transaction = self.0.database.begin().await?;
        self.end_sessions(&mut transaction, Some(but), end).await?;
        Ok(self.0.database.commit(transaction).await?)
    }

    /// The sessions of `user`, the latest first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sessions_of(&self, user: &User) -> Result<Vec<Session>, AuthError> {
        Ok(sessions::of_user(self.0.database.reader(), user.number, self.0.clock.now(), MAX_SESSIONS).await?)
    }

    /// At most `most` sessions of all users, the latest first, that were begun before the one at place `before`.
    ///
    /// # Errors
    /// The database fails.
    pub async fn sessions_page(&self, before: i64, most: u32) -> Result<Vec<sessions::Listed>, AuthError> {
        Ok(sessions::page(self.0.database.reader(), before, self.0.clock.now(), most).await?)
    }
}
