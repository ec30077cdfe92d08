//! `/storage/files`, and what is done to files and folders as they are.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::condition::{Validators, Verdict, evaluate};
use super::entry::{self, Entry};
use super::{Done, actor, done, limit, namespace, place, visitor};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::request::Context;
use crate::sfs::error::SfsError;
use crate::sfs::model::Replace;
use crate::sfs::service::{Deletion, Listing, Place, Service, To};

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    namespace: String,
    /// None: the files of all folders, as old clients want them. Empty: the top.
    folder: Option<String>,
    #[serde(default)]
    recursive: bool,
    cursor: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    caller: Option<Caller>,
    State(service): State<Service>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Error> {
    let (name, most) = (namespace(&wanted.namespace)?, limit(wanted.limit)?);
    let visitor = visitor(caller.as_ref(), &name)?;
    let is_deep = wanted.recursive || wanted.folder.is_none();
    let folder = wanted.folder.as_deref().map(|folder| folder.trim_end_matches('/')).filter(|it| !it.is_empty());
    let listing = Listing {
        folder: folder.map(str::parse).transpose()?,
        is_deep,
        after: entry::after(wanted.cursor.as_deref())?,
        most,
    };
    let found = service.list(&visitor, &name, &listing).await?;
    let next = entry::cursor(found.last().filter(|_| found.len() == most as usize).map(|last| &last.path))?;
    let shown = found.iter().map(|it| Entry::of(it, name.as_str())).collect::<Result<Vec<_>, _>>()?;
    Ok((next, Json(shown)).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct Transfer {
    namespace: String,
    from: String,
    to: String,
    /// None: the same.
    to_namespace: Option<String>,
    #[serde(default)]
    overwrite: bool,
}

impl Transfer {
    fn parse(self) -> Result<(Place, To), Error> {
        let (from, path) = place(&self.namespace, &self.from)?;
        let to = self.to_namespace.as_deref().map_or_else(|| Ok(from.clone()), namespace)?;
        let replace = if self.overwrite { Replace::Always } else { Replace::Never };
        Ok((Place { namespace: from, path }, To { namespace: to, path: self.to.parse()?, replace }))
    }
}

pub(super) async fn move_to(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Json(transfer): Json<Transfer>,
) -> Result<Json<Entry>, Error> {
    let (from, to) = transfer.parse()?;
    actor(&caller, "delete", &from.namespace)?;
    let actor = actor(&caller, "write", &to.namespace)?;
    let moved = service.move_entry(&actor, &from, &to, &context.cause()).await?;
    Entry::of(&moved, to.namespace.as_str()).map(Json)
}

pub(super) async fn copy_to(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Json(transfer): Json<Transfer>,
) -> Result<Json<Entry>, Error> {
    let (from, to) = transfer.parse()?;
    actor(&caller, "read", &from.namespace)?;
    let actor = actor(&caller, "write", &to.namespace)?;
    let copied = service.copy_entry(&actor, &from, &to, &context.cause()).await?;
    Entry::of(&copied, to.namespace.as_str()).map(Json)
}

#[derive(Debug, Deserialize)]
pub(super) struct Folder {
    namespace: String,
    path: String,
}

pub(super) async fn make_folder(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Json(folder): Json<Folder>,
) -> Result<Json<Entry>, Error> {
    let (namespace, path) = place(&folder.namespace, &folder.path)?;
    let actor = actor(&caller, "write", &namespace)?;
    let made = service.make_folder(&actor, &namespace, &path, &context.cause()).await?;
    Entry::of(&made, namespace.as_str()).map(Json)
}

#[derive(Debug, Deserialize)]
pub(super) struct How {
    /// A folder goes with what is in it.
    #[serde(default)]
    recursive: bool,
}

pub(super) async fn delete(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path((namespace, path)): Path<(String, String)>,
    Query(how): Query<How>,
    headers: HeaderMap,
) -> Result<Json<Done>, Error> {
    let (namespace, path) = place(&namespace, &path)?;
    let actor = actor(&caller, "delete", &namespace)?;
    let found = service.stat(&actor.into(), &namespace, &path).await?;
    let validators = found.file.as_ref().map(|file| Validators::new(file.checksum, found.modified_at));
    if evaluate(&headers, false, validators.as_ref())? == Verdict::Failed {
        return Err(Error::new(StatusCode::PRECONDITION_FAILED, SfsError::NotAsExpected.to_string()));
    }
    let is_conditional =
        headers.contains_key(http::header::IF_MATCH) || headers.contains_key(http::header::IF_UNMODIFIED_SINCE);
    let expected = found.file.filter(|_| is_conditional).map(|file| file.checksum);
    let deletion = Deletion { is_recursive: how.recursive, expected };
    service.delete_entry(&actor, &namespace, &path, deletion, &context.cause()).await?;
    Ok(done())
}
