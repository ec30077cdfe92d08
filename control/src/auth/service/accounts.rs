//! Users: who there is, and what they change about themselves.

use edd_events::clock::micros;
use edd_events::database::Transaction;
use edd_events::publisher::Cause;
use edd_proto::UserId;
use edd_proto::auth::{SessionEnd, UserCreated, UserDeleted, UserUpdated};

use super::revocation::End;
use super::{Service, SignedIn};
use crate::auth::config::Registration;
use crate::auth::error::AuthError;
use crate::auth::model::{Client, DisplayName, NewPassword, RecordId, Revocation, RevokedKind, User, Username};
use crate::auth::store::users::{self, NewUser, WithPassword};
use crate::auth::store::{revocations, tokens};
use crate::limiter::Network;
use crate::password::{Password, Verdict};

/// An account to be.
#[derive(Clone, Debug)]
pub struct NewAccount {
    pub username: Username,
    pub display_name: DisplayName,
    pub password: NewPassword,
}

impl NewAccount {
    /// # Errors
    /// One of them cannot be accepted. Without a display name, the username is shown.
    pub fn parse(username: &str, display_name: &str, password: &str) -> Result<Self, AuthError> {
        let username: Username = username.parse()?;
        let display_name = match display_name.trim() {
            "" => DisplayName::from(&username),
            name => name.parse()?,
        };
        Ok(Self { username, display_name, password: password.parse()? })
    }
}

const TAKEN: AuthError = AuthError::Conflict("this username is taken");

impl Service {
    /// Makes an account for whoever asks, and signs them in.
    ///
    /// # Errors
    /// Registration is closed, the name is taken, or the address registers too much.
    pub async fn register(
        &self,
        account: NewAccount,
        wants_refresh: bool,
        client: &Client,
        cause: &Cause,
    ) -> Result<SignedIn, AuthError> {
        if self.0.config.registration == Registration::Closed {
            return Err(AuthError::Forbidden("registration is closed: ask an administrator for an account"));
        }
        self.0.limits.registrations_per_address.admit(&Network::from(client.ip))?;
        let hash = self.hash_for(&account).await?;
        let mut transaction = self.0.database.begin().await?;
        let user = self.create(&mut transaction, &account, &hash, false, cause).await?;
        let opened = self.open_session(&mut transaction, &user, wants_refresh, client, cause).await?;
        self.0.database.commit(transaction).await?;
        self.signed_in(user, opened)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// The name is taken.
    pub async fn create_user(&self, account: NewAccount, cause: &Cause) -> Result<User, AuthError> {
        let hash = self.hash_for(&account).await?;
        let mut transaction = self.0.database.begin().await?;
        let user = self.create(&mut transaction, &account, &hash, false, cause).await?;
        self.0.database.commit(transaction).await?;
        Ok(user)
    }

    /// A hash is dear: a name that is taken already is not worth one.
    async fn hash_for(&self, account: &NewAccount) -> Result<String, AuthError> {
        if users::by_name(self.0.database.reader(), &account.username).await?.is_some() {
            return Err(TAKEN);
        }
        Ok(self.0.hasher.hash(account.password.password()).await?)
    }

    pub(super) async fn create(
        &self,
        transaction: &mut Transaction,
        account: &NewAccount,
        password_hash: &str,
        is_admin: bool,
        cause: &Cause,
    ) -> Result<User, AuthError> {
        let NewAccount { username, display_name, .. } = account;
        let (id, created_at) = (self.0.entropy.nanoid(), self.0.clock.now());
        let new = NewUser { id, username, display_name, password_hash, is_admin, created_at };
        let number = users::insert(&mut **transaction, &new).await?.ok_or(TAKEN)?;
        let event = UserCreated {
            user_id: number,
            user_uid: id.to_string(),
            username: username.as_str().to_owned(),
            display_name: display_name.as_str().to_owned(),
            ..Default::default()
        };
        let version = self.0.publisher.add(transaction, event, cause).await?;
        users::set_version(&mut **transaction, number, version).await?;
        let (username, display_name) = (username.as_str().to_owned(), display_name.as_str().to_owned());
        Ok(User { number, id, username, display_name, is_admin, version, created_at, deleted_at: None })
    }

    /// Deletes a user and ends all that was theirs.
    ///
    /// # Errors
    /// It is `by` themselves, or there is no such user.
    pub async fn delete_user(&self, id: UserId, by: UserId, cause: &Cause) -> Result<(), AuthError> {
        if id == by {
            return Err(AuthError::Yourself);
        }
        let now = self.0.clock.now();
        let mut transaction = self.0.database.begin().await?;
        let known = users::by_id(&mut *transaction, id).await?.ok_or(AuthError::NotFound("user"))?;
        let user = known.user;
        if !users::bury(&mut *transaction, user.number, now).await? {
            return Err(AuthError::NotFound("user"));
        }
        let event = UserDeleted {
            user_id: user.number,
            user_uid: id.to_string(),
            username: user.username.clone(),
            ..Default::default()
        };
        let version = self.0.publisher.add(&mut transaction, event, cause).await?;
        users::set_version(&mut *transaction, user.number, version).await?;
        let end = End { user: &user, reason: SessionEnd::UserDeleted, cause, now };
        self.end_sessions(&mut transaction, None, end).await?;
        for token in tokens::remove_all(&mut *transaction, user.number).await? {
            self.tell_api_token(&mut transaction, &token, end).await?;
        }
        revocations::insert(&mut *transaction, &self.revoked_user(version, end)).await?;
        Ok(self.0.database.commit(transaction).await?)
    }

    /// Until the longest token that the user can have has expired.
    fn revoked_user(&self, version: i64, end: End<'_>) -> Revocation {
        let times = &self.0.config.lifetimes;
        Revocation {
            kind: RevokedKind::User,
            record_id: RecordId::from(end.user.id),
            user_number: end.user.number,
            user_id: end.user.id,
            version,
            reason: end.reason,
            revoked_at: end.now,
            expires_at: end.now + micros(times.refreshed_session.max(times.plain_session)),
        }
    }

    /// Changes the name that is shown; the user after it.
    ///
    /// # Errors
    /// The user is gone.
    pub async fn rename(&self, user: &User, name: &DisplayName, cause: &Cause) -> Result<User, AuthError> {
        let mut transaction = self.0.database.begin().await?;
        if !users::rename(&mut *transaction, user.number, name).await? {
            return Err(AuthError::NotFound("user"));
        }
        let event = UserUpdated {
            user_id: user.number,
            user_uid: user.id.to_string(),
            username: user.username.clone(),
            display_name: name.as_str().to_owned(),
            ..Default::default()
        };
        let version = self.0.publisher.add(&mut transaction, event, cause).await?;
        users::set_version(&mut *transaction, user.number, version).await?;
        self.0.database.commit(transaction).await?;
        Ok(User { display_name: name.as_str().to_owned(), version, ..user.clone() })
    }

    /// Changes a user's password and ends their sessions but `current_session`. API tokens are not made of the password,
    /// and stay.
    ///
    /// # Errors
    /// The current password is another one, or was tried too often.
    pub async fn change_password(
        &self,
        user: &User,
        current_session: &RecordId,
        current: &Password,
        new: &NewPassword,
        cause: &Cause,
    ) -> Result<(), AuthError> {
        // Whoever found an open browser may guess no more often than whoever found a login form.
        self.0.limits.logins_per_account.admit(&super::login::Account::SignedIn(user.number))?;
        let stored = users::by_id(self.0.database.reader(), user.id).await?;
        let WithPassword { password_hash: old, .. } = stored.ok_or(AuthError::NotFound("user"))?;
        if self.0.hasher.verify(current, Some(&old)).await? == Verdict::Wrong {
            return Err(AuthError::Forbidden("the current password is another one"));
        }
        let hash = self.0.hasher.hash(new.password()).await?;
        let now = self.0.clock.now();
        let mut transaction = self.0.database.begin().await?;
        if !users::replace_password(&mut *transaction, user.number, &old, &hash).await? {
            return Err(AuthError::Conflict("the password was changed meanwhile"));
        }
        let end = End { user, reason: SessionEnd::PasswordChanged, cause, now };
        self.end_sessions(&mut transaction, Some(current_session), end).await?;
        Ok(self.0.database.commit(transaction).await?)
    }

    /// At most `most` users with ids after `after`, by the bytes of their ids; with tombstones if wanted.
    ///
    /// # Errors
    /// The database fails.
    pub async fn users_page(&self, after: Option<&str>, most: u32, with_deleted: bool) -> Result<Vec<User>, AuthError> {
        Ok(users::page(self.0.database.reader(), after, most, with_deleted).await?)
    }
}
