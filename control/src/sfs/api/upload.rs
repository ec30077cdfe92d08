//! `PUT` and `POST` of `/storage/{namespace}/{path}`: the body is the file, or a form with the file in it.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use headers::HeaderMapExt;
use http::header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::body::{Pieces, check_whole, declared_bytes, number};
use super::condition::{Validators, Verdict, evaluate};
use super::entry::Entry;
use super::form::{Form, is_form};
use super::progress::{Direction, Transfer, Transfers};
use super::{actor, digests, media, place};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::request::Context;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, FilePath, NamespaceName, Replace, Target};
use crate::sfs::service::{Incoming, Service};

/// How long an old client says its file is, besides the form around it.
const X_FILE_SIZE: &str = "x-file-size";

#[derive(Debug, Deserialize)]
pub(super) struct How {
    #[serde(default)]
    overwrite: bool,
    /// What the client calls the transfer.
    id: Option<String>,
}

pub(super) async fn put(
    caller: Caller,
    State(service): State<Service>,
    State(transfers): State<Transfers>,
    context: Context,
    Path(file): Path<(String, String)>,
    Query(how): Query<How>,
    request: Request,
) -> Result<Response, Error> {
    let upload = Upload::new(&caller, service, &context, &file)?;
    let (entry, shown) = upload.receive(&transfers, &how, request).await?;
    let status = if entry.created_at == entry.modified_at { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, shown).into_response())
}

pub(super) async fn post(
    caller: Caller,
    State(service): State<Service>,
    State(transfers): State<Transfers>,
    context: Context,
    Path(file): Path<(String, String)>,
    Query(how): Query<How>,
    request: Request,
) -> Result<Response, Error> {
    let upload = Upload::new(&caller, service, &context, &file)?;
    Ok(upload.receive(&transfers, &how, request).await?.1)
}

/// A file that somebody sends in one request.
struct Upload<'r> {
    service: Service,
    context: &'r Context,
    actor: Actor,
    namespace: NamespaceName,
    path: FilePath,
}

impl<'r> Upload<'r> {
    fn new(
        caller: &Caller,
        service: Service,
        context: &'r Context,
        (namespace, path): &(String, String),
    ) -> Result<Self, Error> {
        let (namespace, path) = place(namespace, path)?;
        let actor = actor(caller, "write", &namespace)?;
        Ok(Self { service, context, actor, namespace, path })
    }

    /// Takes the file in: what it is then, and the answer that says so.
    async fn receive(
        &self,
        transfers: &Transfers,
        how: &How,
        request: Request,
    ) -> Result<(crate::sfs::model::Entry, Response), Error> {
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        check_whole(&headers)?;
        let is_form = is_form(&headers);
        let told = number(&headers, X_FILE_SIZE)?;
        let declared = if is_form { told } else { declared_bytes(&headers)?.or(told) };
        if let (false, Some(declared), Some(told)) = (is_form, declared, told)
            && declared != told
        {
            let message = format!("`Content-Length` is {declared} and `X-File-Size` {told}: they have to be the same");
            return Err(Error::bad_request(message));
        }
        let digested = if is_form { digests::Body::Form } else { digests::Body::File };
        let expected = digests::expected(&headers, digested)?;
        let target = Target {
            namespace: self.namespace.clone(),
            path: self.path.clone(),
            replace: self.replace(&headers, how.overwrite).await?,
            declared_bytes: declared,
            media_type: media::meant(text(&headers), &self.path),
        };
        let is_creation = headers.contains_key(IF_NONE_MATCH);
        let transfer = transfers.begin(self.actor.owner.user, how.id.as_deref(), Direction::Upload, declared)?;
        let reporter = Reporter(transfer);
        let outcome = async {
            let received = match is_form {
                true => self.receive_form(&headers, Pieces::new(body), target, &reporter).await?,
                false => self.receive_body(Pieces::new(body), target, &reporter).await?,
            };
            Ok(received.finish(expected).await?)
        };
        let outcome = outcome.await;
        let entry = reporter.report(outcome).map_err(|error| precondition(error, is_creation))?;
        let mut response = Json(Entry::of(&entry, self.namespace.as_str())?).into_response();
        if let Some(file) = &entry.file {
            response.headers_mut().typed_insert(Validators::new(file.checksum, entry.modified_at).etag()?);
        }
        Ok((entry, response))
    }

    async fn receive_body(&self, mut pieces: Pieces, target: Target, reporter: &Reporter) -> Result<Incoming, Error> {
        let mut incoming = self.service.begin(&self.actor, target, &self.context.cause()).await?;
        loop {
            let written = match pieces.next().await {
                Ok(None) => return Ok(incoming),
                Ok(Some(bytes)) => {
                    reporter.add(bytes.len());
                    incoming.write(bytes).await.map_err(Error::from)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                incoming.abort().await;
                return Err(error);
            }
        }
    }

    async fn receive_form(
        &self,
        headers: &HeaderMap,
        pieces: Pieces,
        mut target: Target,
        reporter: &Reporter,
    ) -> Result<Incoming, Error> {
        let mut form = Form::new(headers, pieces)?;
        let mut file = form.file().await?;
        target.media_type = media::meant(file.media_type.as_deref(), &self.path);
        let mut incoming = self.service.begin(&self.actor, target, &self.context.cause()).await?;
        let read = async {
            while let Some(bytes) = file.next().await? {
                reporter.add(bytes.len());
                incoming.write(bytes).await?;
            }
            drop(file);
            form.end().await
        };
        match read.await {
            Ok(()) => Ok(incoming),
            Err(error) => {
                incoming.abort().await;
                Err(error)
            }
        }
    }

    /// What becomes of a file that is there: what the conditions say of it is pinned, so that it holds when it counts.
    async fn replace(&self, headers: &HeaderMap, overwrite: bool) -> Result<Replace, Error> {
        let otherwise = if overwrite { Replace::Always } else { Replace::Never };
        let conditions = [IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH];
        if !conditions.iter().any(|name| headers.contains_key(name)) {
            return Ok(otherwise);
        }
        let found = match self.service.stat(&self.actor.into(), &self.namespace, &self.path).await {
            Ok(entry) => Some(entry),
            Err(SfsError::NotFound(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let current = found.and_then(|entry| Some((entry.file?.checksum, entry.modified_at)));
        let validators = current.map(|(checksum, modified_at)| Validators::new(checksum, modified_at));
        if evaluate(headers, false, validators.as_ref())? != Verdict::Go {
            return Err(SfsError::NotAsExpected.into());
        }
        let is_pinned = headers.contains_key(IF_MATCH) || headers.contains_key(IF_UNMODIFIED_SINCE);
        Ok(match current {
            Some((checksum, _)) if is_pinned => Replace::Matching(checksum),
            Some(_) => otherwise,
            // Made by somebody meanwhile, it is none that the sender knows.
            None => Replace::Never,
        })
    }
}

fn text(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// A file that is there was not to be: 412 for who said so with `If-None-Match`, 409 for others.
fn precondition(error: Error, is_creation: bool) -> Error {
    match error.status() {
        StatusCode::CONFLICT if is_creation => Error::new(StatusCode::PRECONDITION_FAILED, error.message().to_owned()),
        _ => error,
    }
}

/// Tells who follows the upload how it goes.
struct Reporter(Option<Transfer>);

impl Reporter {
    fn add(&self, bytes: usize) {
        if let Some(transfer) = &self.0 {
            transfer.add(bytes as u64);
        }
    }

    fn report<T>(self, outcome: Result<T, Error>) -> Result<T, Error> {
        match (self.0, &outcome) {
            (Some(transfer), Ok(_)) => transfer.done(),
            (Some(transfer), Err(error)) => transfer.failed(error.message()),
            (None, _) => {}
        }
        outcome
    }
}
