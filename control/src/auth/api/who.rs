//! Who asks: by a token in the `Authorization` header, or by a browser's cookie.

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::Cookies;
use crate::auth::model::{Session, User};
use crate::auth::service::{Identity, Service, Via};
use crate::error::{Challenge, Error};
use crate::origin::Origin;
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

/// A request that our own page sent, or no browser's page at all. Tenants' sites are same-site with the dashboard, so
/// `SameSite` does not keep them from sending requests with our cookies; the origin does.
pub struct SameOrigin;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

impl SameOrigin {
    pub fn check(headers: &HeaderMap, context: &Context) -> Result<Self, Error> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
        let is_ours = match (text(ORIGIN.as_str()), text(SEC_FETCH_SITE)) {
            (Some(origin), _) => origin.parse::<Origin>().ok().is_some_and(|origin| Some(origin) == context.origin),
            (None, Some(site)) => site == "same-origin" || site == "none",
            // No browser of today.
            (None, None) => true,
        };
        if is_ours { Ok(Self) } else { Err(Error::forbidden("a page of another origin sent this request")) }
    }
}

/// The token that a request comes with, if it has one.
fn token(parts: &Parts, context: &Context) -> Result<Option<String>, Error> {
    if let Some(value) = parts.headers.get(AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        let refused =
            || Error::unauthorized(Challenge::InvalidToken, "the Authorization header is not `Bearer <token>`");
        return token.filter(|token| !token.is_empty()).map(|token| Some(token.to_owned())).ok_or_else(refused);
    }
    let Some(token) = Cookies::read(&parts.headers).access else { return Ok(None) };
    if !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        SameOrigin::check(&parts.headers, context)?;
    }
    Ok(Some(token))
}

/// Who sent the request; None if it has no credentials.
///
/// # Errors
/// It has some, and they are not good, or come from another origin's page.
pub async fn identify(parts: &mut Parts, service: &Service) -> Result<Option<Identity>, Error> {
    let context = Context::from_request_parts(parts, service).await?;
    match token(parts, &context)? {
        Some(token) => Ok(Some(service.identify(&token).await?)),
        None => Ok(None),
    }
}

impl FromRequestParts<Service> for Who {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, service: &Service) -> Result<Self, Error> {
        let absent = || Error::unauthorized(Challenge::Absent, "sign in first: POST /api/login, then send the token");
        identify(parts, service).await?.map(Self).ok_or_else(absent)
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
