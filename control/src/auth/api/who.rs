//! Who asks. Elsewhere a [`Caller`](crate::caller::Caller) is enough; here the database says who is signed in at this
//! moment, because it is here that sessions end.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::ORIGIN;
use http::request::Parts;

use crate::auth::model::{Session, User};
use crate::auth::service::{Identity, Service, Via};
use crate::caller::credential::{self, CredentialError};
use crate::error::{Challenge, Error};
use crate::request::Context;

/// Whoever has a token that is good.
pub struct Who(pub Identity);

/// A user at a keyboard: API tokens cannot change the account that they belong to.
pub struct Person {
    pub user: User,
    pub session: Session,
}

/// An administrator at a keyboard.
pub struct Admin(pub User);

/// Whether a page of another origin sent the request. Who sends neither header is no browser of today, and has no
/// cookies that somebody else could use.
pub fn is_foreign(headers: &HeaderMap, context: &Context) -> bool {
    let is_browser = headers.contains_key(ORIGIN) || headers.contains_key("sec-fetch-site");
    is_browser && !credential::is_same_origin(headers, context.origin.as_ref())
}

/// Checks that our own page sent the request: what goes by a refresh cookie or a form has to come from there. Tenants'
/// sites are same-site with the dashboard, so `SameSite` does not keep them from sending it.
pub fn require_same_origin(headers: &HeaderMap, context: &Context) -> Result<(), Error> {
    let is_ours = credential::is_same_origin(headers, context.origin.as_ref());
    if is_ours { Ok(()) } else { Err(CredentialError::ForeignOrigin.into()) }
}

/// Who sent the request; None if it has no credentials.
///
/// # Errors
/// It has some, and they are not good, or come from another origin's page.
pub async fn identify(parts: &Parts, context: &Context, service: &Service) -> Result<Option<Identity>, Error> {
    match credential::token(&parts.method, &parts.headers, None, context.origin.as_ref())? {
        Some(token) => Ok(Some(service.identify(token).await?)),
        None => Ok(None),
    }
}

impl FromRequestParts<Service> for Who {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Error> {
        let absent = || Error::unauthorized(Challenge::Absent, "sign in first: POST /api/login, then send the token");
        let context = Context::from_request_parts(parts, service).await?;
        identify(parts, &context, service).await?.map(Self).ok_or_else(absent)
    }
}

impl FromRequestParts<Service> for Person {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Error> {
        let Who(Identity { user, via }) = Who::from_request_parts(parts, service).await?;
        match via {
            Via::Session(session) => Ok(Self { user, session }),
            Via::ApiToken(_) => Err(Error::forbidden("an API token cannot do this: sign in with the password")
                .with_challenge(Challenge::InsufficientScope)),
        }
    }
}

impl FromRequestParts<Service> for Admin {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Error> {
        let Person { user, .. } = Person::from_request_parts(parts, service).await?;
        if user.is_admin { Ok(Self(user)) } else { Err(Error::forbidden("this is for administrators")) }
    }
}
