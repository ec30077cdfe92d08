//! Why the auth service does not do what it is asked.

use edd_events::publisher::PublishError;

use crate::access_token::TokenError;
use crate::auth::model::Invalid;
use crate::limiter::TooOften;
use crate::password::PasswordError;

/// What is said to who asks; causes inside are for the log.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The same for an unknown user and a wrong password.
    #[error("wrong username or password")]
    Credentials,
    #[error("not signed in: {0}")]
    Unauthenticated(&'static str),
    #[error("not signed in: {0}")]
    Token(TokenError),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("{0}")]
    Conflict(&'static str),
    #[error("an administrator cannot delete themselves: another one has to")]
    Yourself,
    #[error(transparent)]
    TooOften(#[from] TooOften),
    #[error("there is no key to sign with yet")]
    NoKey,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error("an event could not be written: {0}")]
    Publish(#[from] PublishError),
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
}
