//! `/api/settings/…`: what users change about themselves.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::who::Person;
use super::{ById, done, rfc3339};
use crate::auth::model::{DisplayName, NewPassword, RecordId};
use crate::auth::service::Service;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::password::Password;
use crate::request::Context;

#[derive(Deserialize)]
pub(super) struct Profile {
    display_name: String,
}

/// edd-cloud's settings page has longer names for the two.
#[derive(Deserialize)]
pub(super) struct Passwords {
    #[serde(alias = "current_password")]
    current: String,
    #[serde(alias = "new_password")]
    new: String,
}

#[derive(Serialize)]
struct OwnSession {
    id: String,
    is_current: bool,
    ip_address: String,
    user_agent: String,
    created_at: String,
    last_used_at: String,
    expires_at: String,
}

pub(super) async fn profile(
    person: Person,
    State(service): State<Service>,
    context: Context,
    Json(profile): Json<Profile>,
) -> Result<Response, Error> {
    let name: DisplayName = profile.display_name.parse()?;
    service.rename(&person.user, &name, &context.cause()).await?;
    Ok(done().into_response())
}

pub(super) async fn password(
    person: Person,
    State(service): State<Service>,
    context: Context,
    Json(passwords): Json<Passwords>,
) -> Result<Response, Error> {
    let new: NewPassword = passwords.new.parse()?;
    let current = Password::attempt(passwords.current);
    service.change_password(&person.user, &person.session.id, &current, &new, &context.cause()).await?;
    Ok(done().into_response())
}

pub(super) async fn sessions(person: Person, State(service): State<Service>) -> Result<Response, Error> {
    let sessions = service.sessions_of(&person.user).await?.into_iter().map(|session| {
        Ok(OwnSession {
            is_current: session.id == person.session.id,
            id: session.id.to_string(),
            ip_address: session.client_ip,
            user_agent: session.user_agent,
            created_at: rfc3339(session.created_at)?,
            last_used_at: rfc3339(session.last_used_at)?,
            expires_at: rfc3339(session.expires_at)?,
        })
    });
    Ok(Json(sessions.collect::<Result<Vec<_>, Error>>()?).into_response())
}

/// With `?id=`, ends that session; without, all but the one that asks.
pub(super) async fn end_sessions(
    person: Person,
    State(service): State<Service>,
    context: Context,
    Query(query): Query<ById>,
) -> Result<Response, Error> {
    match query.id {
        Some(id) => end(&service, &person, &id, &context).await,
        None => {
            service.end_other_sessions(&person.user, &person.session.id, &context.cause()).await?;
            Ok(done().into_response())
        }
    }
}

pub(super) async fn end_session(
    person: Person,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    end(&service, &person, &id, &context).await
}

async fn end(service: &Service, person: &Person, id: &str, context: &Context) -> Result<Response, Error> {
    let id: RecordId = id.parse().map_err(|_| Error::not_found("there is no such session"))?;
    service.end_session(&person.user, &id, &context.cause()).await?;
    Ok(done().into_response())
}
