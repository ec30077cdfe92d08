//! Where a service's errors become HTTP, and nowhere else.
//!
//! An error has a message that anybody may read, and perhaps a cause that is only logged. The body is
//! `{"error": "…"}`, which edd-cloud's clients read, or problem+json (RFC 9457) for a client that accepts it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use edd_events::bus::BusError;
use edd_events::publisher::PublishError;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;

/// When to come back while a database or the bus is away.
const AWAY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Any error value, kept for the log.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// An answer that says what is wrong.
#[derive(Debug)]
pub struct Error {
    status: StatusCode,
    message: Cow<'static, str>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// Why there is no caller, or none who may: the `error` of RFC 6750, 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The request has no credentials.
    Absent,
    /// Expired, revoked, malformed, not ours.
    InvalidToken,
    /// A token that allows less than was asked for.
    InsufficientScope,
}

impl Error {
    /// `message` is for everybody: it names what is wrong and what to do, and holds no secret.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, message: message.into(), header: None, cause: None }
    }

    /// 400
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401 with the challenge that RFC 9110, 11.6.1 asks for.
    pub fn unauthorized(challenge: Challenge, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message).with_challenge(challenge)
    }

    /// 403
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404; `what` as in `no such user`.
    pub fn not_found(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, what)
    }

    /// 409
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 413, naming the limit.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is too large: at most {limit_bytes} bytes are read"))
    }

    /// 429; `wait` is rounded up to seconds.
    pub fn too_many_requests(message: impl Into<Cow<'static, str>>, wait: Duration) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message).with_retry_after(wait)
    }

    /// 503: something that the service needs is away, and the request may be sent again.
    pub fn unavailable(cause: impl Into<Cause>) -> Self {
        let message = "the service is unavailable for the moment: try again in a few seconds";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).with_retry_after(AWAY_RETRY_AFTER).with_cause(cause)
    }

    /// 500. The client learns nothing but the request's id.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error: the log has it under the request's id")
            .with_cause(cause)
    }

    /// What really happened, for the log alone.
    pub fn with_cause(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Says which kind of credentials would do.
    pub fn with_challenge(mut self, challenge: Challenge) -> Self {
        let value = match challenge {
            Challenge::Absent => "Bearer",
            Challenge::InvalidToken => "Bearer error=\"invalid_token\"",
            Challenge::InsufficientScope => "Bearer error=\"insufficient_scope\"",
        };
        self.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static(value)));
        self
    }

    fn with_retry_after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.header = Some((RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What the client reads.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status.as_u16(), self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_away(&error) { Self::unavailable(error) } else { Self::internal(error) }
    }
}

impl From<BusError> for Error {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Unavailable(_) | BusError::NoAnswer(_) => Self::unavailable(error),
            BusError::Refused(_) => Self::internal(error),
        }
    }
}

impl From<PublishError> for Error {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Database(error) => error.into(),
            error => Self::internal(error),
        }
    }
}

/// Whether the same statement may do a little later.
fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_away_code(&code)),
        _ => false,
    }
}

fn is_away_code(code: &str) -> bool {
    match (code.len(), code.parse::<u32>()) {
        // PostgreSQL: connection, rolled back for concurrency, resources (a full disk), shut down by an operator.
        (5, _) => ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)),
        // SQLite: busy, locked, I/O, full; the extended code has more above the lowest byte.
        (_, Ok(code)) => [5, 6, 10, 13].contains(&(code & 0xff)),
        _ => false,
    }
}

/// How an error is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Problem,
}

impl Form {
    /// Problem+json for a client that names it.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut ranges = ranges.flat_map(|value| value.split(','));
        let names_problem = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            let is_problem =
                parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/problem+json"));
            is_problem && !parts.any(|part| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0)))
        };
        if ranges.any(names_problem) { Self::Problem } else { Self::Plain }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = written(&self, Form::Plain, "");
        // For `render`, which knows the request.
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Writes the error in `response`, if there is one, for the request that had `id`, and logs its cause. An error that
/// the router answered without a body, 404 or 405, gets one.
pub(crate) fn render(mut response: Response, form: Form, id: &str) -> Response {
    let status = response.status();
    if let Some(error) = response.extensions_mut().remove::<Arc<Error>>() {
        log(&error, id);
        return replaced(response, written(&error, form, id));
    }
    let is_empty = response.body().size_hint().exact() == Some(0);
    let message = match status {
        StatusCode::NOT_FOUND => "nothing is served at this path",
        StatusCode::METHOD_NOT_ALLOWED => "this path does not serve this method: `Allow` names those it does",
        _ => status.canonical_reason().unwrap_or("an error"),
    };
    if is_empty && (status.is_client_error() || status.is_server_error()) {
        return replaced(response, written(&Error::new(status, message), form, id));
    }
    response
}

/// `new` with the headers of `old` that it does not set itself, such as `Allow`.
fn replaced(old: Response, mut new: Response) -> Response {
    // Looked at before, because several may have one name: Set-Cookie.
    let own: Vec<HeaderName> = new.headers().keys().cloned().collect();
    for (name, value) in old.headers() {
        if *name != CONTENT_LENGTH && !own.contains(name) {
            new.headers_mut().append(name.clone(), value.clone());
        }
    }
    new
}

fn log(error: &Error, id: &str) {
    let Some(cause) = &error.cause else { return };
    let mut text = cause.to_string();
    let mut next = cause.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    let status = error.status.as_u16();
    if error.status.is_server_error() {
        tracing::error!(request_id = id, status, cause = text, "a request failed");
    } else {
        tracing::info!(request_id = id, status, cause = text, "a request was refused");
    }
}

fn written(error: &Error, form: Form, id: &str) -> Response {
    let (content_type, body) = match form {
        Form::Plain => ("application/json", json!({ "error": error.message })),
        Form::Problem => (
            "application/problem+json",
            json!({
                "type": "about:blank",
                "title": error.status.canonical_reason().unwrap_or("Error"),
                "status": error.status.as_u16(),
                "detail": error.message,
                "request_id": id,
            }),
        ),
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(error.header.clone());
    response
}

#[cfg(test)]
mod tests;
