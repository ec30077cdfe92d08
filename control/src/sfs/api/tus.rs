//! tus 1.0.0 under `/storage/tus`: core, creation, creation-with-upload, checksum, expiration, termination
//! (<https://tus.io/protocols/resumable-upload>).
//!
//! | Answer | Why |
//! |---|---|
//! | 400 | a later request goes on with the upload, as a client's does that has lost its connection |
//! | 404 | no such upload, or somebody else's |
//! | 409 | it does not go on at this offset; a file is there and `overwrite` was not told |
//! | 410 | it was not gone on with in time |
//! | 412 | another version of tus |
//! | 413 | larger than the quota or the file may be, or in too many pieces |
//! | 460 | the bytes are not what the checksum says; none of them is kept |

mod checksum;
mod headers;

use ::headers::{Expires, HeaderMapExt};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::handler::Handler;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{patch, post};
use edd_events::clock::Micros;
use edd_events::publisher::Cause;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use self::checksum::Sum;
use self::headers::{
    ALGORITHMS, CHUNK_TYPE, EXTENSIONS, TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE,
    TUS_VERSION, UPLOAD_EXPIRES, UPLOAD_LENGTH, UPLOAD_METADATA, UPLOAD_OFFSET, VERSION,
};
use super::body::{Pieces, declared_bytes};
use super::condition::Validators;
use super::{Api, actor, actor_of_all, media, place};
use crate::caller::Caller;
use crate::error::Error;
use crate::extract::Path;
use crate::request::Context;
use crate::sfs::error::SfsError;
use crate::sfs::model::{Actor, Entry, Replace, Target, Upload, UploadId};
use crate::sfs::service::{Addition, Keep, Service, UploadError};

/// Where uploads are.
const ROOT: &str = "/storage/tus";
const METHOD_OVERRIDE: &str = "x-http-method-override";

pub(super) fn routes() -> Router<Api> {
    let uploads = || post(create).options(options);
    let upload = patch(add).head(show).delete(cancel).options(options).post(overridden);
    Router::new()
        .route(ROOT, uploads())
        .route(&format!("{ROOT}/"), uploads())
        .route(&format!("{ROOT}/{{id}}"), upload)
        .layer(map_response(versioned))
}

async fn versioned(mut response: Response) -> Response {
    response.headers_mut().insert(TUS_RESUMABLE, VERSION);
    response
}

/// What is spoken here, for whoever asks.
async fn options(State(service): State<Service>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, VERSION);
    headers.insert(TUS_EXTENSION, EXTENSIONS);
    headers.insert(TUS_CHECKSUM_ALGORITHM, ALGORITHMS);
    let quotas = &service.config().quotas;
    headers.insert(TUS_MAX_SIZE, quotas.file_bytes.unwrap_or(quotas.user_bytes).min(quotas.user_bytes).into());
    response
}

async fn create(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    request: Request,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let sent = parts.headers;
    headers::check_version(&sent)?;
    let (length, metadata) = (headers::length(&sent)?, headers::metadata(&sent)?);
    let missing = |what: &str| Error::bad_request(format!("`Upload-Metadata` has no `{what}`"));
    let namespace = metadata.namespace.ok_or_else(|| missing("namespace"))?;
    let path = metadata.path.ok_or_else(|| missing("filename"))?;
    let (namespace, path) = place(&namespace, &path)?;
    let actor = actor(&caller, "write", &namespace)?;
    let target = Target {
        replace: if metadata.overwrite { Replace::Always } else { Replace::Never },
        declared_bytes: Some(length),
        media_type: media::meant(metadata.media_type.as_deref(), &path),
        namespace,
        path,
    };
    let checksum = headers::checksum(&sent)?;
    let upload = service.create_upload(&actor, &target, length).await.map_err(UploadError::from)?;
    let id = upload.id;
    let mut answer = Answer { status: StatusCode::CREATED, upload, entry: None };
    // A file of no bytes is whole as soon as it is begun.
    if is_chunk(&sent) || length == 0 {
        let part = Part { id, offset: 0, declared: declared_bytes(&sent)?, sum: checksum.map(Sum::new) };
        let body = if is_chunk(&sent) { body } else { Body::empty() };
        match receive(service.clone(), actor, part, context.cause(), body).await {
            Ok((upload, entry)) => answer = Answer { upload, entry, ..answer },
            Err(error) => {
                // Nobody was told where it is. What is left of it goes when its time is over, at the latest.
                let _ = service.cancel_upload(&actor, id).await;
                return Err(error);
            }
        }
    }
    let mut response = answer.into_response();
    let location = HeaderValue::from_str(&format!("{ROOT}/{id}")).map_err(Error::internal)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

async fn show(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
    sent: HeaderMap,
) -> Result<Response, Error> {
    headers::check_version(&sent)?;
    let upload = service.upload(&actor_of_all(&caller, "write")?, parse(&id)?).await?;
    let (length, path) = (upload.length, upload.path.to_string());
    let pairs = [("filename", upload.path.name()), ("path", &path), ("filetype", upload.media_type.as_str())];
    let metadata = headers::write_metadata(&pairs);
    let mut response = Answer { status: StatusCode::OK, upload, entry: None }.into_response();
    response.headers_mut().insert(UPLOAD_LENGTH, length.into());
    response.headers_mut().extend(metadata.map(|metadata| (UPLOAD_METADATA, metadata)));
    Ok(response)
}

async fn add(
    caller: Caller,
    State(service): State<Service>,
    context: Context,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Error> {
    let (parts, body) = request.into_parts();
    let sent = parts.headers;
    headers::check_version(&sent)?;
    if !is_chunk(&sent) {
        let message = format!("send the bytes as `Content-Type: {CHUNK_TYPE}`");
        return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let (offset, sum) = (headers::offset(&sent)?, headers::checksum(&sent)?.map(Sum::new));
    let actor = actor_of_all(&caller, "write")?;
    let part = Part { id: parse(&id)?, offset, declared: declared_bytes(&sent)?, sum };
    let (upload, entry) = receive(service, actor, part, context.cause(), body).await?;
    Ok(Answer { status: StatusCode::NO_CONTENT, upload, entry }.into_response())
}

async fn cancel(
    caller: Caller,
    State(service): State<Service>,
    Path(id): Path<String>,
    sent: HeaderMap,
) -> Result<StatusCode, Error> {
    headers::check_version(&sent)?;
    service.cancel_upload(&actor_of_all(&caller, "write")?, parse(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// For clients that can send POST and GET alone: the protocol asks for it.
async fn overridden(State(api): State<Api>, request: Request) -> Response {
    let method = request.headers().get(METHOD_OVERRIDE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match method {
        "PATCH" => Handler::call(add, request, api).await,
        "DELETE" => Handler::call(cancel, request, api).await,
        "HEAD" => Handler::call(show, request, api).await,
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn parse(id: &str) -> Result<UploadId, Error> {
    id.parse().map_err(|_| SfsError::NotFound("upload").into())
}

fn is_chunk(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(CHUNK_TYPE.as_bytes()))
}

/// What one request brings.
struct Part {
    id: UploadId,
    offset: u64,
    /// As the request says.
    declared: Option<u64>,
    sum: Option<Sum>,
}

/// Adds a request's body to an upload: the upload after that, and the file, if it is one now.
///
/// In a task of its own, because the request's ends with its connection: what came until then is to be kept.
async fn receive(
    service: Service,
    actor: Actor,
    part: Part,
    cause: Cause,
    body: Body,
) -> Result<(Upload, Option<Entry>), Error> {
    let seen = service.upload(&actor, part.id).await?;
    let declared = part.declared.unwrap_or_default();
    if seen.completed_at.is_some() && part.offset == seen.length && declared == 0 {
        return Ok((seen, None));
    }
    if seen.completed_at.is_some() || part.offset != seen.received {
        return Err(UploadError::Offset { received: seen.received, offset: part.offset }.into());
    }
    if declared > seen.missing() {
        return Err(UploadError::TooLong { length: seen.length }.into());
    }
    let keep = if part.sum.is_some() { Keep::Whole } else { Keep::Everything };
    let addition = service.add_to_upload(&actor, part.id, part.offset, keep, &cause).await?;
    tokio::spawn(pump(addition, part.sum, Pieces::new(body))).await.map_err(Error::internal)?
}

async fn pump(
    mut addition: Addition,
    mut sum: Option<Sum>,
    mut pieces: Pieces,
) -> Result<(Upload, Option<Entry>), Error> {
    let end = loop {
        match pieces.next().await {
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
            Ok(Some(bytes)) => {
                if let Some(sum) = &mut sum {
                    sum.update(&bytes);
                }
                if let Err(error) = addition.write(bytes).await {
                    addition.discard().await;
                    return Err(error.into());
                }
            }
        }
    };
    let refused = match (end, sum) {
        (Ok(()), Some(sum)) if !sum.is_right() => checksum::mismatch(),
        (Err(error), Some(_)) => error,
        (Ok(()), _) => return Ok(addition.finish().await?),
        (Err(error), None) => {
            addition.finish().await?;
            return Err(error);
        }
    };
    addition.discard().await;
    Err(refused)
}

/// Where an upload is, as every answer says it.
struct Answer {
    status: StatusCode,
    upload: Upload,
    /// The file that it has become.
    entry: Option<Entry>,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        let is_whole = self.entry.is_some() || self.upload.completed_at.is_some();
        let offset = if is_whole { self.upload.length } else { self.upload.received };
        headers.insert(UPLOAD_OFFSET, offset.into());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !is_whole {
            headers.extend(expiry(self.upload.expires_at).map(|expiry| (UPLOAD_EXPIRES, expiry)));
        }
        if let Some(entry) = &self.entry
            && let Some(file) = &entry.file
            && let Ok(etag) = Validators::new(file.checksum, entry.modified_at).etag()
        {
            headers.typed_insert(etag);
        }
        response
    }
}

/// As an HTTP date.
fn expiry(at: Micros) -> Option<HeaderValue> {
    let since_1970 = std::time::Duration::from_micros(u64::try_from(at).ok()?);
    let mut written = HeaderMap::new();
    written.typed_insert(Expires::from(std::time::UNIX_EPOCH + since_1970));
    written.remove(http::header::EXPIRES)
}
