//! `/admin/users` and `/admin/sessions`: for administrators.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use edd_proto::UserId;
use serde::{Deserialize, Serialize};

use super::who::Admin;
use super::{ById, Paging, done, next_cursor, rfc3339};
use crate::auth::model::{Session, User};
use crate::auth::service::{NewAccount, Service};
use crate::error::Error;
use crate::extract::{Json, Query};
use crate::request::Context;

/// A user as administrators see them. `id` is `user_id` once more: it is what the old dashboard sends back to delete.
#[derive(Serialize)]
struct Account {
    id: String,
    user_id: String,
    username: String,
    display_name: String,
    is_admin: bool,
    created_at: String,
}

impl Account {
    fn of(user: User) -> Result<Self, Error> {
        let User { id, username, display_name, is_admin, created_at, .. } = user;
        let created_at = rfc3339(created_at)?;
        Ok(Self { id: id.to_string(), user_id: id.to_string(), username, display_name, is_admin, created_at })
    }
}

#[derive(Deserialize)]
pub(super) struct NewUser {
    username: String,
    password: String,
    display_name: Option<String>,
}

pub(super) async fn list(
    Admin(_): Admin,
    State(service): State<Service>,
    Query(paging): Query<Paging>,
) -> Result<Response, Error> {
    let limit = paging.limit()?;
    let users = service.users_page(paging.after.as_deref(), limit, false).await?;
    let cursor = users.last().filter(|_| users.len() == limit as usize).map(|user| user.id.to_string());
    let accounts: Vec<Account> = users.into_iter().map(Account::of).collect::<Result<_, _>>()?;
    Ok((next_cursor(cursor), Json(accounts)).into_response())
}

pub(super) async fn create(
    Admin(_): Admin,
    State(service): State<Service>,
    context: Context,
    Json(new): Json<NewUser>,
) -> Result<Response, Error> {
    let account = NewAccount::parse(&new.username, new.display_name.as_deref().unwrap_or_default(), &new.password)?;
    let user = service.create_user(account, &context.cause()).await?;
    Ok(Json(Account::of(user)?).into_response())
}

pub(super) async fn delete(
    Admin(admin): Admin,
    State(service): State<Service>,
    context: Context,
    Query(query): Query<ById>,
) -> Result<Response, Error> {
    let id = query.id.ok_or_else(|| Error::bad_request("say whom: ?id=<user_id>"))?;
    // What is no id is nobody's.
    let id: UserId = id.parse().map_err(|_| Error::not_found("there is no such user"))?;
    service.delete_user(id, admin.id, &context.cause()).await?;
    Ok(done().into_response())
}

#[derive(Serialize)]
struct ListedSession {
    id: String,
    user_id: String,
    username: String,
    display_name: String,
    ip_address: String,
    user_agent: String,
    created_at: String,
    last_used_at: String,
    expires_at: String,
}

impl ListedSession {
    fn of(session: Session, user: User) -> Result<Self, Error> {
        Ok(Self {
            id: session.id.to_string(),
            user_id: user.id.to_string(),
            username: user.username,
            display_name: user.display_name,
            ip_address: session.client_ip,
            user_agent: session.user_agent,
            created_at: rfc3339(session.created_at)?,
            last_used_at: rfc3339(session.last_used_at)?,
            expires_at: rfc3339(session.expires_at)?,
        })
    }
}

pub(super) async fn sessions(
    Admin(_): Admin,
    State(service): State<Service>,
    Query(paging): Query<Paging>,
) -> Result<Response, Error> {
    let limit = paging.limit()?;
    let listed = service.sessions_page(paging.number(i64::MAX)?, limit).await?;
    let cursor = listed.last().filter(|_| listed.len() == limit as usize).map(|(place, ..)| place.to_string());
    let sessions = listed.into_iter().map(|(_, session, user)| ListedSession::of(session, user));
    Ok((next_cursor(cursor), Json(sessions.collect::<Result<Vec<_>, _>>()?)).into_response())
}
