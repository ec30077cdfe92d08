//! The auth service over HTTP: one file per resource. Paths and shapes are what edd-cloud's clients rely on.
//!
//! Creating answers 200 with the object itself, other actions `{"status": "ok"}`; moments are RFC 3339.

mod accounts;
pub(in crate::auth) mod cookies;
mod fleet;
mod settings;
mod sign_in;
mod tokens;
mod who;

use axum::Router;
use axum::routing::{delete, get, post, put};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::auth::error::AuthError;
use crate::auth::model::Invalid;
use crate::auth::page;
use crate::auth::service::Service;
use crate::error::{Challenge, Error};
use crate::extract::Json;
use crate::moment::rfc3339;
use crate::password::PasswordError;

pub(in crate::auth) use sign_in::{client, end_session, with};
pub(in crate::auth) use who::{identify, require_same_origin};

/// What a list gives when it is not told how much, and at most.
const DEFAULT_LIMIT: u32 = 1000;
const MAX_LIMIT: u32 = 5000;
/// Where a list that is a bare array says how it goes on; absent at its end.
const NEXT_CURSOR: &str = "x-next-cursor";

/// All routes, to be put behind [`tracked`](crate::request::tracked).
pub fn router(service: Service) -> Router {
    Router::new()
        .route("/api/login", post(sign_in::login))
        .route("/api/register", post(sign_in::register))
        .route("/api/refresh", post(sign_in::refresh))
        .route("/api/logout", post(sign_in::logout))
        .route("/api/session", get(sign_in::session))
        .route("/admin/users", get(accounts::list).post(accounts::create).delete(accounts::delete))
        .route("/admin/sessions", get(accounts::sessions))
        .route("/api/settings/profile", put(settings::profile))
        .route("/api/settings/password", put(settings::password))
        .route("/api/settings/sessions", get(settings::sessions).delete(settings::end_sessions))
        .route("/api/settings/sessions/{id}", delete(settings::end_session))
        .route("/api/tokens", get(tokens::list).post(tokens::create).delete(tokens::delete_named))
        .route("/api/tokens/{id}", get(tokens::show).delete(tokens::delete))
        .route("/api/users", get(fleet::users))
        .route("/api/users/digest", get(fleet::digest))
        .route("/api/sessions/revoked", get(fleet::revoked))
        .route("/.well-known/jwks.json", get(fleet::jwks))
        .merge(page::router(service.clone()))
        .with_state(service)
}

/// `{"status": "ok"}`
#[derive(Debug, Serialize)]
struct Done {
    status: &'static str,
}

fn done() -> Json<Done> {
    Json(Done { status: "ok" })
}

/// How much of a list, and from where.
#[derive(Debug, Default, Deserialize)]
struct Paging {
    after: Option<String>,
    limit: Option<u32>,
}

impl Paging {
    fn limit(&self) -> Result<u32, Error> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MAX_LIMIT => Ok(limit),
            _ => Err(Error::bad_request("limit: 1 to 5000")),
        }
    }

    /// The cursor of a list that goes by number.
    fn number(&self, from_the_start: i64) -> Result<i64, Error> {
        let after = self.after.as_deref().map_or(Ok(from_the_start), str::parse);
        after.map_err(|_| Error::bad_request("after: the `next_cursor` of the page before"))
    }
}

/// An id in the query.
#[derive(Debug, Deserialize)]
struct ById {
    id: Option<String>,
}

/// The header by which a bare array goes on after `cursor`.
fn next_cursor(cursor: Option<String>) -> Option<[(&'static str, HeaderValue); 1]> {
    let value = HeaderValue::from_str(&cursor?).ok()?;
    Some([(NEXT_CURSOR, value)])
}

impl From<AuthError> for Error {
    fn from(error: AuthError) -> Self {
        let message = error.to_string();
        match error {
            AuthError::Invalid(_) | AuthError::Yourself => Self::bad_request(message),
            AuthError::Credentials => Self::unauthorized(Challenge::Absent, message),
            AuthError::Unauthenticated(_) | AuthError::Token(_) => Self::unauthorized(Challenge::InvalidToken, message),
            AuthError::Forbidden(_) => Self::forbidden(message),
            AuthError::NotFound(_) => Self::not_found(message),
            AuthError::Conflict(_) => Self::conflict(message),
            AuthError::TooOften(often) => Self::too_many_requests(message, often.retry_after),
            AuthError::NoKey | AuthError::Password(PasswordError::Busy) => Self::unavailable(error),
            AuthError::Password(error) => Self::internal(error),
            AuthError::Publish(error) => error.into(),
            AuthError::Database(error) => error.into(),
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::bad_request(invalid.to_string())
    }
}
