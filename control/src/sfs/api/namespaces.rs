//! `/storage/namespaces`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{Done, NEXT_CURSOR, actor, actor_of_all, done, visitor};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::moment::rfc3339;
use crate::request::Context;
use crate::sfs::model::{Invalid, NamespaceName, Visibility, Visitor};
use crate::sfs::service::{Listed, NamespaceChange, NewNamespace, Service};

/// Visibility as clients write it: a word, or the number that old ones know.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Written {
    Number(i64),
    Word(String),
}

impl Written {
    fn parse(&self) -> Result<Visibility, Invalid> {
        match self {
            Self::Number(number) => number.to_string().parse(),
            Self::Word(word) => word.parse(),
        }
    }
}

/// A namespace as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Namespace {
    id: i64,
    name: String,
    /// Files in it.
    count: u64,
    folders: u64,
    hidden: bool,
    visibility: i64,
    visibility_name: &'static str,
    /// None: nobody's.
    owner: Option<String>,
    used_bytes: u64,
    quota_bytes: Option<u64>,
    created_at: String,
}

impl Namespace {
    pub(super) fn of(namespace: &crate::sfs::model::Namespace) -> Result<Self, Error> {
        Ok(Self {
            id: namespace.number,
            name: namespace.name.to_string(),
            count: namespace.files,
            folders: namespace.folders,
            hidden: namespace.is_hidden,
            visibility: namespace.visibility.number(),
            visibility_name: namespace.visibility.as_str(),
            owner: namespace.owner.map(|owner| owner.user.to_string()),
            used_bytes: namespace.used_bytes,
            quota_bytes: namespace.quota_bytes,
            created_at: rfc3339(namespace.created_at)?,
        })
    }
}

/// A page of namespaces as it is answered, with how it goes on.
pub(super) fn page<T: Serialize>(
    found: &[crate::sfs::model::Namespace],
    limit: u32,
    shown: Vec<T>,
) -> Result<Response, Error> {
    let next = found.last().filter(|_| found.len() == limit as usize).map(|last| last.name.as_str());
    let next = next.map(HeaderValue::from_str).transpose().map_err(Error::internal)?;
    Ok((next.map(|next| [(NEXT_CURSOR, next)]), Json(shown)).into_response())
}

/// Which of them; `all` are also those of others.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    all: bool,
    cursor: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    caller: Option<Caller>,
    State(service): State<Service>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Error> {
    let limit = super::limit(wanted.limit)?;
    let after = wanted.cursor.as_deref().map(str::parse::<NamespaceName>).transpose()?;
    let visitor = match &caller {
        Some(caller) => actor_of_all(caller, "read")?.into(),
        None => Visitor::Anybody,
    };
    let listed = if wanted.all || caller.is_none() { Listed::All } else { Listed::Own };
    let found = service.namespaces(&visitor, listed, after.as_ref(), limit).await?;
    let shown = found.iter().map(Namespace::of).collect::<Result<_, _>>()?;
    page(&found, limit, shown)
}

#[derive(Debug, Deserialize)]
pub(super) struct New {
    name: String,
    visibility: Option<Written>,
    #[serde(default)]
    hidden: bool,
}

pub(super) async fn create(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Json(new): Json<New>,
) -> Result<Json<Namespace>, Error> {
    let name: NamespaceName = new.name.parse()?;
    let actor = actor(&caller, "write", &name)?;
    let visibility = new.visibility.as_ref().map(Written::parse).transpose()?.unwrap_or_default();
    let new = NewNamespace { name, visibility, is_hidden: new.hidden };
    Namespace::of(&service.create_namespace(&actor, new, &context.cause()).await?).map(Json)
}

pub(super) async fn show(
    caller: Option<Caller>,
    State(service): State<Service>,
    Path(name): Path<String>,
) -> Result<Json<Namespace>, Error> {
    let name = super::namespace(&name)?;
    Namespace::of(&service.namespace(&visitor(caller.as_ref(), &name)?, &name).await?).map(Json)
}

#[derive(Debug, Deserialize)]
pub(super) struct Change {
    name: Option<String>,
    visibility: Option<Written>,
    hidden: Option<bool>,
}

pub(super) async fn change(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(name): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<Namespace>, Error> {
    let name = super::namespace(&name)?;
    let actor = actor(&caller, "write", &name)?;
    let change = NamespaceChange {
        name: change.name.map(|name| name.parse()).transpose()?,
        visibility: change.visibility.as_ref().map(Written::parse).transpose()?,
        is_hidden: change.hidden,
    };
    Namespace::of(&service.change_namespace(&actor, &name, change, &context.cause()).await?).map(Json)
}

pub(super) async fn delete(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(name): Path<String>,
) -> Result<Json<Done>, Error> {
    let name = super::namespace(&name)?;
    let actor = actor(&caller, "delete", &name)?;
    service.delete_namespace(&actor, &name, &context.cause()).await?;
    Ok(done())
}
