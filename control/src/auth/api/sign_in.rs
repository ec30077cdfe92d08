//! `/api/login`, `/api/register`, `/api/refresh`, `/api/logout`, `/api/session`.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use edd_events::clock::Micros;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::who::{Who, identify, is_foreign, require_same_origin};
use super::{cookies, done, rfc3339};
use crate::auth::error::AuthError;
use crate::auth::model::{Client, User};
use crate::auth::service::{Attempt, NewAccount, Service, SignedIn, Via};
use crate::entropy::Secret;
use crate::error::{Challenge, Error};
use crate::extract::Json;
use crate::password::Password;
use crate::request::Context;

/// Fields that are not known, such as those of a second factor, are passed over.
#[derive(Deserialize)]
pub(super) struct Login {
    username: String,
    password: String,
    /// Whether the client will refresh: then its access token is short.
    #[serde(default)]
    refresh: bool,
}

#[derive(Deserialize)]
pub(super) struct Registration {
    username: String,
    password: String,
    display_name: Option<String>,
    #[serde(default)]
    refresh: bool,
}

#[derive(Deserialize)]
pub(super) struct Refresh {
    refresh_token: Option<String>,
}

/// What a login answers.
#[derive(Serialize)]
struct Answer {
    username: String,
    display_name: String,
    user_id: String,
    is_admin: bool,
    token: String,
    /// Of the token.
    expires_at: String,
    /// For a client that refreshes and has no cookies.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

#[derive(Serialize)]
struct Session {
    username: String,
    display_name: String,
    user_id: String,
    is_admin: bool,
    /// Of the session, or the API token; null: never.
    expires_at: Option<String>,
}

pub(in crate::auth) fn client(context: &Context, headers: &HeaderMap) -> Client {
    let agent = headers.get(http::header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    Client::new(context.client_ip, agent.as_deref().unwrap_or_default())
}

/// Whether the answer sets cookies: it goes to the dashboard's own page, or to no page.
fn has_cookies(service: &Service, headers: &HeaderMap, context: &Context) -> bool {
    let is_dashboard = context.origin.as_ref().is_some_and(|origin| origin.host() == service.config().dashboard_host);
    is_dashboard && !is_foreign(headers, context)
}

fn answer(service: &Service, signed_in: SignedIn, with_cookies: bool) -> Result<Response, Error> {
    let mut headers = no_store();
    if with_cookies {
        headers.extend(cookies::keep(&signed_in, service.now()));
    }
    let SignedIn { user, access_token, access_expires_at, refresh_token, .. } = signed_in;
    let User { username, display_name, id, is_admin, .. } = user;
    let answer = Answer {
        username,
        display_name,
        user_id: id.to_string(),
        is_admin,
        token: access_token,
        expires_at: rfc3339(access_expires_at)?,
        // Where a page's script could read it, it is worth less than in the cookie.
        refresh_token: refresh_token.filter(|_| !with_cookies).map(|token| token.expose().to_owned()),
    };
    Ok(with(headers, Json(answer)))
}

fn no_store() -> Vec<(HeaderName, HeaderValue)> {
    vec![(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

/// `response` with further headers, of which several may have one name.
pub(in crate::auth) fn with(headers: Vec<(HeaderName, HeaderValue)>, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    response
}

pub(super) async fn login(
    State(service): State<Service>,
    context: Context,
    headers: HeaderMap,
    Json(login): Json<Login>,
) -> Result<Response, Error> {
    if login.username.is_empty() || login.password.is_empty() {
        return Err(Error::bad_request("username and password are needed"));
    }
    let Login { username, password, refresh } = login;
    let attempt = Attempt { username, password: Password::attempt(password), wants_refresh: refresh };
    let signed_in = service.login(attempt, &client(&context, &headers), &context.cause()).await?;
    answer(&service, signed_in, has_cookies(&service, &headers, &context))
}

pub(super) async fn register(
    State(service): State<Service>,
    context: Context,
    headers: HeaderMap,
    Json(new): Json<Registration>,
) -> Result<Response, Error> {
    let account = NewAccount::parse(&new.username, new.display_name.as_deref().unwrap_or_default(), &new.password)?;
    let client = client(&context, &headers);
    let signed_in = service.register(account, new.refresh, &client, &context.cause()).await?;
    answer(&service, signed_in, has_cookies(&service, &headers, &context))
}

pub(super) async fn refresh(
    State(service): State<Service>,
    context: Context,
    headers: HeaderMap,
    body: Option<Json<Refresh>>,
) -> Result<Response, Error> {
    let in_body = body.and_then(|Json(body)| body.refresh_token);
    let from_cookie = in_body.is_none();
    let token = match in_body {
        Some(token) => Some(Secret::of(&token)),
        None => cookies::refresh_token(&headers)?,
    };
    let absent = || Error::unauthorized(Challenge::Absent, "there is no refresh token: sign in");
    let token = token.ok_or_else(absent)?;
    if from_cookie {
        require_same_origin(&headers, &context)?;
    }
    match service.refresh(&token, &context.cause()).await {
        Ok(signed_in) => answer(&service, signed_in, from_cookie),
        // The cookies are good for nothing any more.
        Err(error @ AuthError::Unauthenticated(_)) if from_cookie => Ok(with(cookies::forget(), Error::from(error))),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn logout(
    State(service): State<Service>,
    context: Context,
    request: Request,
) -> Result<Response, Error> {
    let (parts, _) = request.into_parts();
    end_session(&service, &parts, &context).await?;
    let forgotten = if has_cookies(&service, &parts.headers, &context) { cookies::forget() } else { Vec::new() };
    Ok(with(forgotten, done()))
}

/// Ends the session of the access token, or else of the refresh token. Whoever has neither, or old ones, is logged out
/// already.
pub(in crate::auth) async fn end_session(service: &Service, parts: &Parts, context: &Context) -> Result<(), Error> {
    match identify(parts, context, service).await {
        Ok(Some(identity)) => return Ok(service.logout(&identity, &context.cause()).await?),
        Err(error) if error.status() != http::StatusCode::UNAUTHORIZED => return Err(error),
        Ok(None) | Err(_) => {}
    }
    if let Some(token) = cookies::refresh_token(&parts.headers)? {
        require_same_origin(&parts.headers, context)?;
        service.logout_by_refresh(&token, &context.cause()).await?;
    }
    Ok(())
}

pub(super) async fn session(Who(identity): Who) -> Result<Response, Error> {
    let expires_at: Option<Micros> = match &identity.via {
        Via::Session(session) => Some(session.expires_at),
        Via::ApiToken(token) => token.expires_at,
    };
    let User { username, display_name, id, is_admin, .. } = identity.user;
    let expires_at = expires_at.map(rfc3339).transpose()?;
    let session = Session { username, display_name, user_id: id.to_string(), is_admin, expires_at };
    Ok(with(no_store(), Json(session)))
}
