//! What ends before its time: told as an event, and remembered until nobody can hold a token of it.

use std::time::Duration;

use edd_events::clock::{Micros, micros};
use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use edd_proto::auth::{SessionEnd, SessionInvalidated};

use super::Service;
use crate::auth::error::AuthError;
use crate::auth::model::{ApiToken, RecordId, Revocation, RevokedKind, Session, User};
use crate::auth::store::{revocations, sessions};

/// How long a deleted API token is remembered at most. Services ask about API tokens and cache the answers for far less.
const API_TOKEN_MEMORY: Duration = Duration::from_secs(24 * 3600);
/// Sessions that a user may have at once; a further login ends the oldest.
pub(super) const MAX_SESSIONS: u32 = 100;

/// Why and for what something ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End<'a> {
    pub user: &'a User,
    pub reason: SessionEnd,
    pub cause: &'a Cause,
    pub now: Micros,
}

impl Service {
    /// Ends all sessions of a user but one.
    pub(super) async fn end_sessions(
        &self,
        transaction: &mut Transaction,
        but: Option<&RecordId>,
        end: End<'_>,
    ) -> Result<(), AuthError> {
        for session in sessions::remove_others(&mut **transaction, end.user.number, but).await? {
            self.tell_session(transaction, &session, end).await?;
        }
        Ok(())
    }

    /// Tells that a session, which was removed, has ended.
    pub(super) async fn tell_session(
        &self,
        transaction: &mut Transaction,
        session: &Session,
        end: End<'_>,
    ) -> Result<(), AuthError> {
        // It has ended by itself, and its tokens with it.
        if session.expires_at <= end.now {
            return Ok(());
        }
        self.tell(transaction, RevokedKind::Session, &session.id, session.expires_at, end).await
    }

    /// Tells that an API token, which was removed, is good no more.
    pub(super) async fn tell_api_token(
        &self,
        transaction: &mut Transaction,
        token: &ApiToken,
        end: End<'_>,
    ) -> Result<(), AuthError> {
        let forgotten_at = end.now + micros(API_TOKEN_MEMORY);
        let expires_at = token.expires_at.map_or(forgotten_at, |at| at.min(forgotten_at));
        if expires_at <= end.now {
            return Ok(());
        }
        self.tell(transaction, RevokedKind::ApiToken, &token.id, expires_at, end).await
    }

    async fn tell(
        &self,
        transaction: &mut Transaction,
        kind: RevokedKind,
        record_id: &RecordId,
        expires_at: Micros,
        end: End<'_>,
    ) -> Result<(), AuthError> {
        let event = SessionInvalidated {
            session_id: record_id.to_string(),
            user_id: end.user.number,
            user_uid: end.user.id.to_string(),
            expires_at: Some(super::timestamp(expires_at)),
            reason: end.reason.into(),
            ..Default::default()
        };
        let version = self.0.publisher.add(transaction, event, end.cause).await?;
        let revocation = Revocation {
            kind,
            record_id: record_id.clone(),
            user_number: end.user.number,
            user_id: end.user.id,
            version,
            reason: end.reason,
            revoked_at: end.now,
            expires_at,
        };
        Ok(revocations::insert(&mut **transaction, &revocation).await?)
    }

    /// At most `most` revocations that still hold, after the one with number `after`: what a verifier that starts has to
    /// know before it follows the events.
    pub async fn revocations(&self, after: i64, most: u32) -> Result<Vec<(i64, Revocation)>, AuthError> {
        Ok(revocations::page(self.0.database.reader(), after, self.0.clock.now(), most).await?)
    }
}
