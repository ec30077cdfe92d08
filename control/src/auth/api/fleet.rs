//! What the other services need: snapshots, shown for the services' key, and the public keys, shown to all.
//!
//! A snapshot's rows carry the version that their last event had. A reader notes where the stream is, reads all pages,
//! and follows the events from there: what changes while it reads comes as an event.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use edd_events::projection::Owner;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use super::{Paging, rfc3339};
use crate::auth::model::{Revocation, User};
use crate::auth::service::Service;
use crate::error::Error;
use crate::extract::{Json, Query};
use crate::service_key::{AnotherService, ServiceKey};

impl FromRef<Service> for Option<ServiceKey> {
    fn from_ref(service: &Service) -> Self {
        service.config().service_key.clone()
    }
}

/// The paging flattened by hand: serde's flattening reads numbers of a query as text.
#[derive(Debug, Deserialize)]
pub(super) struct UsersWanted {
    after: Option<String>,
    limit: Option<u32>,
    /// Whether tombstones are wanted.
    #[serde(default)]
    deleted: bool,
}

/// What all users come down to: a copy with the same digest is complete.
#[derive(Serialize)]
pub(super) struct UsersDigest {
    digest: String,
}

pub(super) async fn digest(State(service): State<Service>, _: AnotherService) -> Result<Json<UsersDigest>, Error> {
    let digest = service.digest().await.map_err(|error| Error::unavailable(error.to_string()))?;
    Ok(Json(UsersDigest { digest: digest.to_string() }))
}

#[derive(Serialize)]
struct UserRow {
    id: i64,
    user_id: String,
    username: String,
    display_name: String,
    is_admin: bool,
    version: i64,
    deleted: bool,
    created_at: String,
}

impl UserRow {
    fn of(user: User) -> Result<Self, Error> {
        Ok(Self {
            id: user.number,
            user_id: user.id.to_string(),
            username: user.username,
            display_name: user.display_name,
            is_admin: user.is_admin,
            version: user.version,
            deleted: user.deleted_at.is_some(),
            created_at: rfc3339(user.created_at)?,
        })
    }
}

#[derive(Serialize)]
struct Users {
    /// By the bytes of `user_id`.
    users: Vec<UserRow>,
    /// The `after` of the next page; null: this is the last.
    next_cursor: Option<String>,
}

pub(super) async fn users(
    _: AnotherService,
    State(service): State<Service>,
    Query(wanted): Query<UsersWanted>,
) -> Result<Response, Error> {
    let UsersWanted { after, limit, deleted } = wanted;
    let paging = Paging { after, limit };
    let limit = paging.limit()?;
    let users = service.users_page(paging.after.as_deref(), limit, deleted).await?;
    let next_cursor = users.last().filter(|_| users.len() == limit as usize).map(|user| user.id.to_string());
    let users = users.into_iter().map(UserRow::of).collect::<Result<_, _>>()?;
    Ok(Json(Users { users, next_cursor }).into_response())
}

#[derive(Serialize)]
struct RevocationRow {
    /// session, api_token or user
    kind: &'static str,
    /// Of the session's or API token's record; for a user, their id.
    record_id: String,
    /// The user's number.
    id: i64,
    user_id: String,
    version: i64,
    /// As in the event `SessionInvalidated`.
    reason: &'static str,
    revoked_at: String,
    /// Until when it must be remembered.
    expires_at: String,
}

impl RevocationRow {
    fn of(revocation: Revocation) -> Result<Self, Error> {
        Ok(Self {
            kind: revocation.kind.as_str(),
            record_id: revocation.record_id.to_string(),
            id: revocation.user_number,
            user_id: revocation.user_id.to_string(),
            version: revocation.version,
            reason: revocation.reason.as_str_name(),
            revoked_at: rfc3339(revocation.revoked_at)?,
            expires_at: rfc3339(revocation.expires_at)?,
        })
    }
}

#[derive(Serialize)]
struct Revoked {
    revoked: Vec<RevocationRow>,
    next_cursor: Option<String>,
}

pub(super) async fn revoked(
    _: AnotherService,
    State(service): State<Service>,
    Query(paging): Query<Paging>,
) -> Result<Response, Error> {
    let limit = paging.limit()?;
    let page = service.revocations(paging.number(0)?, limit).await?;
    let next_cursor = page.last().filter(|_| page.len() == limit as usize).map(|(number, _)| number.to_string());
    let revoked = page.into_iter().map(|(_, revocation)| RevocationRow::of(revocation)).collect::<Result<_, _>>()?;
    Ok(Json(Revoked { revoked, next_cursor }).into_response())
}

/// May be kept for five minutes: the next key is here a day before anything is signed with it.
pub(super) async fn jwks(State(service): State<Service>) -> Response {
    let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "public, max-age=300")];
    (headers, service.key_set().to_json()).into_response()
}
