//! `/api/tokens`: API tokens of whoever asks.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::who::Person;
use super::{ById, done, rfc3339};
use crate::auth::model::{ApiToken, RecordId};
use crate::auth::scope::Scopes;
use crate::auth::service::{NewToken, Service};
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::request::Context;

#[derive(Deserialize)]
pub(super) struct Wanted {
    name: String,
    scopes: BTreeMap<String, BTreeSet<String>>,
    expires_in: String,
}

#[derive(Serialize)]
struct Token {
    id: String,
    name: String,
    scopes: Scopes,
    created_at: String,
    /// null: never
    expires_at: Option<String>,
    last_used_at: Option<String>,
    /// In the answer to its making, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Token {
    fn of(token: ApiToken, secret: Option<String>) -> Result<Self, Error> {
        Ok(Self {
            id: token.id.to_string(),
            name: token.name,
            scopes: token.scopes,
            created_at: rfc3339(token.created_at)?,
            expires_at: token.expires_at.map(rfc3339).transpose()?,
            last_used_at: token.last_used_at.map(rfc3339).transpose()?,
            token: secret,
        })
    }
}

fn no_such_token() -> Error {
    Error::not_found("there is no such API token")
}

pub(super) async fn create(
    person: Person,
    State(service): State<Service>,
    Json(wanted): Json<Wanted>,
) -> Result<Response, Error> {
    let scopes = Scopes::parse(wanted.scopes, person.user.id)?;
    let new = NewToken::new(&wanted.name, scopes, wanted.expires_in.parse()?)?;
    let (token, secret) = service.create_token(&person.user, new).await?;
    let answer = Token::of(token, Some(secret.expose().to_owned()))?;
    Ok(([(http::header::CACHE_CONTROL, "no-store")], Json(answer)).into_response())
}

pub(super) async fn list(person: Person, State(service): State<Service>) -> Result<Response, Error> {
    let tokens = service.tokens_of(&person.user).await?.into_iter().map(|token| Token::of(token, None));
    Ok(Json(tokens.collect::<Result<Vec<_>, Error>>()?).into_response())
}

pub(super) async fn show(
    person: Person,
    State(service): State<Service>,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let tokens = service.tokens_of(&person.user).await?;
    let token = tokens.into_iter().find(|token| token.id.as_str() == id).ok_or_else(no_such_token)?;
    Ok(Json(Token::of(token, None)?).into_response())
}

pub(super) async fn delete(
    person: Person,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
) -> Result<Response, Error> {
    let id: RecordId = id.parse().map_err(|_| no_such_token())?;
    service.delete_token(&person.user, &id, &context.cause()).await?;
    Ok(done().into_response())
}

/// `?id=`, as users are deleted.
pub(super) async fn delete_named(
    person: Person,
    service: State<Service>,
    context: Context,
    Query(query): Query<ById>,
) -> Result<Response, Error> {
    let id = query.id.ok_or_else(|| Error::bad_request("say which: ?id=<id>"))?;
    delete(person, service, context, Path(id)).await
}
