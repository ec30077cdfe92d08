//! What handlers take from a request, refused with an [`Error`] that says what is wrong where.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, OptionalFromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Longest JSON body, unless the handler says otherwise.
pub const MAX_JSON_BYTES: usize = 64 * 1024;
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Of what is wrong with a body, an error repeats this many characters.
const MAX_ECHO_CHARS: usize = 200;

/// A JSON body of at most `LIMIT` bytes; also an answer. `Option<Json<T>>` is none for an empty body, which needs no
/// `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T, const LIMIT: usize = MAX_JSON_BYTES>(pub T);

/// The query, read as `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<T>(pub T);

/// The path's parameters, read as `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync, const LIMIT: usize> FromRequest<S> for Json<T, LIMIT> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Error> {
        let (headers, body) = read(request, LIMIT).await?;
        if body.is_empty() {
            return Err(Error::bad_request("a JSON body is needed, and there is none"));
        }
        parse(&headers, &body).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync, const LIMIT: usize> OptionalFromRequest<S> for Json<T, LIMIT> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Option<Self>, Error> {
        let (headers, body) = read(request, LIMIT).await?;
        if body.is_empty() { Ok(None) } else { parse(&headers, &body).map(Self).map(Some) }
    }
}

async fn read(mut request: Request, limit_bytes: usize) -> Result<(HeaderMap, Bytes), Error> {
    DefaultBodyLimit::max(limit_bytes).apply(&mut request);
    let headers = request.headers().clone();
    let declared = headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|bytes| bytes > limit_bytes as u64) {
        return Err(Error::too_large(limit_bytes));
    }
    let reading = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await;
    let read = reading.map_err(|_| Error::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))?;
    let body = read.map_err(|rejection: BytesRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Error::too_large(limit_bytes),
        _ => Error::bad_request("the body ended before its end").with_cause(rejection),
    })?;
    Ok((headers, body))
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Error> {
    if !is_json(headers) {
        let message = "the body is not declared as JSON: send `Content-Type: application/json`";
        return Err(Error::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => invalid(&error.into_inner().to_string()),
            path => invalid(&format!("`{path}`: {}", error.inner())),
        }
    })?;
    deserializer.end().map_err(|error| invalid(&error.to_string()))?;
    Ok(value)
}

/// The end of what serde says is the place: it must not be cut off.
fn invalid(what: &str) -> Error {
    let length = what.chars().count();
    let shown = if length <= MAX_ECHO_CHARS {
        what.to_owned()
    } else {
        let half = MAX_ECHO_CHARS / 2;
        let (head, tail) = (what.chars().take(half), what.chars().skip(length - half));
        head.chain(" … ".chars()).chain(tail).collect()
    };
    Error::bad_request(format!("the JSON body is not what is expected here: {shown}"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
    essence.is_some_and(|essence| {
        let essence = essence.trim().to_ascii_lowercase();
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|rejection| Error::bad_request(rejection.body_text()))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| Error::new(rejection.status(), rejection.body_text()))
    }
}
