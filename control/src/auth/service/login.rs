//! A password becomes a session and its tokens.

use edd_events::clock::{Micros, micros};
use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use edd_proto::auth::{SessionCreated, SessionEnd};

use super::revocation::{End, MAX_SESSIONS};
use super::{Service, timestamp};
use crate::access_token::Claims;
use crate::auth::error::AuthError;
use crate::auth::model::{Client, RecordId, Session, User, Username};
use crate::auth::store::{refresh, sessions, users};
use crate::entropy::Secret;
use crate::limiter::Network;
use crate::password::{Password, PasswordError, Verdict};

/// What somebody typed.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// As typed: what is no username is nobody's.
    pub username: String,
    pub password: Password,
    /// Whether the client will refresh its access token.
    pub wants_refresh: bool,
}

/// Whose logins are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Account {
    /// From addresses that the account has no session from, all together.
    Strangers(Username),
    /// From an address that it has a session from. Strangers cannot use this number up.
    AtHome(Username, Network),
    /// Passwords asked for again.
    SignedIn(i64),
}

/// A session with what it is used by.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub user: User,
    pub session: Session,
    pub access_token: String,
    pub access_expires_at: Micros,
    /// For clients that refresh.
    pub refresh_token: Option<Secret>,
}

/// A session that was begun in a transaction.
#[derive(Debug)]
pub(super) struct Opened {
    pub session: Session,
    pub refresh_token: Option<Secret>,
}

impl Service {
    /// Signs in. An unknown name costs the same work and gets the same answer as a wrong password.
    ///
    /// # Errors
    /// [`AuthError::Credentials`], [`AuthError::TooOften`], or too many passwords are being checked.
    pub async fn login(&self, attempt: Attempt, client: &Client, cause: &Cause) -> Result<SignedIn, AuthError> {
        let (limits, network, now) = (&self.0.limits, Network::from(client.ip), self.0.clock.now());
        limits.logins_per_address.admit(&network)?;
        let username: Option<Username> = attempt.username.parse().ok();
        let mut connection = self.reader().await?;
        let known = match &username {
            Some(username) => users::by_name(&mut *connection, username).await?,
            None => None,
        };
        // No user has number 0; the question costs the same.
        let number = known.as_ref().map_or(0, |known| known.user.number);
        let is_at_home = sessions::knows(&mut *connection, number, network, now).await?;
        drop(connection);
        if let Some(username) = username {
            let account = if is_at_home { Account::AtHome(username, network) } else { Account::Strangers(username) };
            limits.logins_per_account.admit(&account)?;
        }
        let stored = known.as_ref().map(|known| known.password_hash.as_str());
        let verdict = self.0.hasher.verify(&attempt.password, stored).await?;
        let known = known.filter(|_| verdict != Verdict::Wrong).ok_or(AuthError::Credentials)?;
        let hash = match verdict {
            Verdict::Outdated => self.rehash(&attempt.password, &known.password_hash).await?,
            Verdict::Right | Verdict::Wrong => known.password_hash.clone(),
        };
        let mut transaction = self.0.database.begin().await?;
        let number = known.user.number;
        if !users::replace_password(&mut *transaction, number, &known.password_hash, &hash).await? {
            return Err(AuthError::Credentials);
        }
        let opened = self.open_session(&mut transaction, &known.user, attempt.wants_refresh, client, cause).await?;
        self.0.database.commit(transaction).await?;
        self.signed_in(known.user, opened)
    }

    /// Made anew with today's parameters; under load, the old one does until the next login.
    async fn rehash(&self, password: &Password, old: &str) -> Result<String, AuthError> {
        match self.0.hasher.hash(password).await {
            Err(PasswordError::Busy) => Ok(old.to_owned()),
            hashed => Ok(hashed?),
        }
    }

    /// Begins a session of a user whom the transaction has locked or made.
    pub(super) async fn open_session(
        &self,
        transaction: &mut Transaction,
        user: &User,
        wants_refresh: bool,
        client: &Client,
        cause: &Cause,
    ) -> Result<Opened, AuthError> {
        let (now, times) = (self.0.clock.now(), &self.0.config.lifetimes);
        let lifetime = if wants_refresh { times.refreshed_session } else { times.plain_session };
        let session = Session {
            id: RecordId::from(self.0.entropy.nanoid()),
            user_number: user.number,
            created_at: now,
            last_used_at: now,
            expires_at: now + micros(lifetime),
            client_ip: client.ip.to_string(),
            user_agent: client.user_agent.clone(),
            is_refreshed: wants_refresh,
        };
        for oldest in sessions::remove_oldest(&mut **transaction, user.number, MAX_SESSIONS - 1).await? {
            let end = End { user, reason: SessionEnd::Revoked, cause, now };
            self.tell_session(transaction, &oldest, end).await?;
        }
        sessions::insert(&mut **transaction, &session, Network::from(client.ip)).await?;
        let event = SessionCreated {
            session_id: session.id.to_string(),
            user_id: user.number,
            user_uid: user.id.to_string(),
            expires_at: Some(timestamp(session.expires_at)),
            ..Default::default()
        };
        self.0.publisher.add(transaction, event, cause).await?;
        let mut refresh_token = None;
        if wants_refresh {
            let token = self.0.entropy.secret("");
            refresh::insert(&mut **transaction, &token, &session.id).await?;
            refresh_token = Some(token);
        }
        Ok(Opened { session, refresh_token })
    }

    /// Signs an access token for a session that is committed.
    pub(super) fn signed_in(&self, user: User, opened: Opened) -> Result<SignedIn, AuthError> {
        let Opened { session, refresh_token } = opened;
        let now = self.0.clock.now();
        let access_expires_at = if session.is_refreshed {
            session.expires_at.min(now + micros(self.0.config.lifetimes.access_token))
        } else {
            session.expires_at
        };
        let claims = Claims {
            user_id: user.id,
            user_number: user.number,
            username: user.username.clone(),
            display_name: user.display_name.clone(),
            is_admin: user.is_admin,
            sid: session.id.to_string(),
            iat: now.div_euclid(1_000_000),
            exp: access_expires_at.div_euclid(1_000_000),
            jti: self.0.entropy.nanoid().to_string(),
        };
        let access_token = self.0.keys.sign(&claims, now).ok_or(AuthError::NoKey)?;
        Ok(SignedIn { user, session, access_token, access_expires_at, refresh_token })
    }
}
