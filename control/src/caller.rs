//! Who calls: verified here, without asking the auth service for every request.
//!
//! A handler takes a [`Caller`] as an argument, `Option<Caller>` where anybody may come, and [`UrlCaller`] on routes
//! that also take `?token=`. Where credentials are looked for, and in which order, is in [`credential`].
//!
//! A [`Permit`] or an [`Admin`] is a proof: what needs the one or the other takes it as an argument.

mod cache;
pub mod credential;
mod keys;
mod scope;
mod verifier;

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts, OptionalFromRequestParts};
use edd_proto::UserId;
use http::request::Parts;

use crate::access_token::Claims;
use crate::error::{Challenge, Error};
use crate::request::Context;

pub use credential::{COOKIE_NAME, CredentialError, OLD_COOKIE_NAME};
pub use keys::{KeySource, Keys, LOAD_TIMEOUT, LoadError, RELOAD_EVERY};
pub use scope::{Scopes, TooMany};
pub use verifier::{API_TOKEN_PREFIX, API_TOKEN_TTL, Refusal, Verifier};

/// Somebody whose token was verified. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub user: UserId,
    /// The user's number in auth_db.
    pub number: i64,
    pub username: Arc<str>,
    /// The name to show; that of an API token's user is not known here and is their username.
    pub display_name: Arc<str>,
    /// Whether the user is an administrator. What proves that the caller may act as one is [`Caller::require_admin`].
    pub is_admin: bool,
    /// The id of the session's, or the API token's, record: what revocations name.
    pub session: Arc<str>,
    /// What an API token may do; none: a session, which may do all that its user may.
    pub scopes: Option<Scopes>,
}

/// Proof that a caller may do what was asked for to what is their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    owner: UserId,
}

impl Permit {
    /// Whose things it is about.
    pub fn owner(&self) -> UserId {
        self.owner
    }
}

/// Proof that an administrator calls, by a session of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admin {
    user: UserId,
}

impl Admin {
    /// The administrator.
    pub fn user(&self) -> UserId {
        self.user
    }
}

/// Why a caller may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error("the API token does not allow `{action}` on `{resource}`")]
    Scope { action: String, resource: String },
    #[error("only administrators may do this")]
    Admin,
    /// No scope names what is an administrator's, so no token can be limited to a part of it.
    #[error("API tokens do not act for administrators: sign in")]
    AdminToken,
}

impl Caller {
    /// Asks whether the caller may do `action` at `service` to the thing at `path` of their own: a resource, then
    /// perhaps an id, such as `["containers", "abc123defg"]`. A session may; an API token needs a scope that covers it.
    ///
    /// # Errors
    /// [`Denied::Scope`]
    pub fn may(&self, service: &str, action: &str, path: &[&str]) -> Result<Permit, Denied> {
        match &self.scopes {
            Some(scopes) if !scopes.allow(service, self.user, action, path) => Err(Denied::Scope {
                action: action.to_owned(),
                resource: [&[service, self.user.as_str()], path].concat().join("."),
            }),
            _ => Ok(Permit { owner: self.user }),
        }
    }

    /// Asks whether the caller acts as an administrator.
    ///
    /// # Errors
    /// [`Denied::Admin`], and [`Denied::AdminToken`] for every API token.
    pub fn require_admin(&self) -> Result<Admin, Denied> {
        match (&self.scopes, self.is_admin) {
            (Some(_), _) => Err(Denied::AdminToken),
            (None, false) => Err(Denied::Admin),
            (None, true) => Ok(Admin { user: self.user }),
        }
    }
}

impl From<Claims> for Caller {
    fn from(claims: Claims) -> Self {
        Self {
            user: claims.user_id,
            number: claims.user_number,
            username: claims.username.into(),
            display_name: claims.display_name.into(),
            is_admin: claims.is_admin,
            session: claims.sid.into(),
            scopes: None,
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        let error = Self::forbidden(denied.to_string());
        match denied {
            Denied::Admin => error,
            Denied::Scope { .. } | Denied::AdminToken => error.with_challenge(Challenge::InsufficientScope),
        }
    }
}

impl From<CredentialError> for Error {
    fn from(error: CredentialError) -> Self {
        let message = error.to_string();
        match error {
            CredentialError::ForeignOrigin => Self::forbidden(message),
            CredentialError::Scheme => Self::unauthorized(Challenge::Absent, message),
            CredentialError::TwoHeaders | CredentialError::TwoCookies | CredentialError::TwoQueries => {
                Self::bad_request(message)
            }
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Keys(_) | Refusal::Unprepared | Refusal::Busy => Self::unavailable(refusal),
            Refusal::Bus(error) => error.into(),
            Refusal::Answer(_) => Self::internal(refusal),
            Refusal::Token(_) | Refusal::ApiToken | Refusal::Revoked => {
                Self::unauthorized(Challenge::InvalidToken, refusal.to_string())
            }
        }
    }
}

/// A caller who may also have put the token into the query: for WebSockets, which browsers open without headers, and
/// for share links. On other routes `?token=` is not read, because addresses end up in logs and histories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlCaller(pub Caller);

/// Who sends the request; none if it has no credentials.
async fn identify<S>(parts: &Parts, state: &S, reads_query: bool) -> Result<Option<Caller>, Error>
where
    Verifier: FromRef<S>,
{
    let context = parts.extensions.get::<Context>();
    let context = context.ok_or_else(|| Error::internal("the route is not behind `request::tracked`"))?;
    let query = parts.uri.query().filter(|_| reads_query);
    match credential::token(&parts.method, &parts.headers, query, context.origin.as_ref())? {
        None => Ok(None),
        Some(token) => Ok(Some(Verifier::from_ref(state).verify(token).await?)),
    }
}

fn nobody() -> Error {
    Error::unauthorized(Challenge::Absent, "sign in: send the token as `Authorization: Bearer <token>`")
}

impl<S: Send + Sync> FromRequestParts<S> for Caller
where
    Verifier: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        identify(parts, state, false).await?.ok_or_else(nobody)
    }
}

/// None without credentials; those that are no good are refused all the same.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller
where
    Verifier: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Error> {
        identify(parts, state, false).await
    }
}

impl<S: Send + Sync> FromRequestParts<S> for UrlCaller
where
    Verifier: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        identify(parts, state, true).await?.map(Self).ok_or_else(nobody)
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for UrlCaller
where
    Verifier: FromRef<S>,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Option<Self>, Error> {
        Ok(identify(parts, state, true).await?.map(Self))
    }
}

#[cfg(test)]
mod tests;
