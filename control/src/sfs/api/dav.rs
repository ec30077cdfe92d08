//! `/storage/dav`: who calls, and their request to [`dav`](crate::sfs::dav).
//!
//! Programs that mount folders know Basic credentials alone: the user's name with an API token, or an access token, as
//! password. `Authorization: Bearer` will do as everywhere.

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::body::{Pieces, check_whole};
use super::content::{Asked, Manner, answer};
use super::{Api, visitor};
use crate::caller::{Caller, Verifier};
use crate::error::{Challenge, Error};
use crate::request::Context;
use crate::sfs::dav::{self, PREFIX, Spot};
use crate::sfs::service::{Place, Service};

/// What a client is told to send.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"files\", charset=\"UTF-8\"");
/// Of a test suite of others, which lifts a limit of `dav-server`: how deep a listing goes.
const X_LITMUS: &str = "x-litmus";

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route(PREFIX, any(serve))
        .route(&format!("{PREFIX}/"), any(serve))
        .route(&format!("{PREFIX}/{{*path}}"), any(serve))
}

/// What is answered, or refused with an error that the request's frame then renders.
async fn serve(State(api): State<Api>, context: Context, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(X_LITMUS);
    let caller = match caller(&mut parts, &api.verifier).await {
        Ok(caller) => caller,
        Err(error) if error.status() == StatusCode::UNAUTHORIZED => return challenge(error.message().to_owned()),
        Err(error) => return error.into_response(),
    };
    let is_nobody = caller.is_none();
    let response = match file(&parts) {
        Some(place) => read(&api.service, caller.as_ref(), &place, &parts).await,
        None => dispatch(api.service, caller, &context, parts, body).await,
    };
    let response = response.unwrap_or_else(IntoResponse::into_response);
    match response.status() {
        // Most clients show no credentials before they are asked to, and somebody may see what nobody does.
        StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::CONFLICT
            if is_nobody =>
        {
            challenge("sign in: the user name, and an API token as password".to_owned())
        }
        _ => response,
    }
}

/// The one challenge of this kind: some clients look at the first alone.
fn challenge(message: String) -> Response {
    let mut response = Error::new(StatusCode::UNAUTHORIZED, message).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
    response
}

/// Whoever sends the request; none without credentials.
async fn caller(parts: &mut Parts, verifier: &Verifier) -> Result<Option<Caller>, Error> {
    use axum::extract::OptionalFromRequestParts;
    let Some((username, secret)) = basic(&parts.headers)? else {
        return <Caller as OptionalFromRequestParts<Verifier>>::from_request_parts(parts, verifier).await;
    };
    let caller = verifier.verify(&secret).await?;
    if !caller.username.eq_ignore_ascii_case(&username) {
        return Err(Error::unauthorized(Challenge::InvalidToken, "the token is not of the user that is named"));
    }
    Ok(Some(caller))
}

/// The user name and the password of Basic credentials (RFC 7617); none if there are none of that kind.
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let words = values.next().and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
    let Some((_, encoded)) = words.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")) else { return Ok(None) };
    let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':')).filter(|_| values.next().is_none());
    let (username, secret) =
        pair.ok_or_else(|| Error::bad_request("`Authorization: Basic` has to be one user name and one password"))?;
    Ok(Some((username.to_owned(), secret.to_owned())))
}

/// The file that a GET or a HEAD asks for.
fn file(parts: &Parts) -> Option<Place> {
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    match Spot::of_url(parts.uri.path()) {
        Some(Spot::Entry(place)) if is_read => Some(place),
        _ => None,
    }
}

async fn read(service: &Service, caller: Option<&Caller>, place: &Place, parts: &Parts) -> Result<Response, Error> {
    let opened = service.open(&visitor(caller, &place.namespace)?, &place.namespace, &place.path).await?;
    let extent = Asked::new(&parts.method, &parts.headers).extent(&opened)?;
    answer(&opened, extent, Manner::of(&opened, false), None)
}

async fn dispatch(
    service: Service,
    caller: Option<Caller>,
    context: &Context,
    parts: Parts,
    body: Body,
) -> Result<Response, Error> {
    if parts.method == Method::PUT {
        check_whole(&parts.headers)?;
    }
    let request = dav::Request::new(caller, context.cause(), &parts);
    let pieces = futures_util::stream::unfold(Pieces::new(body), async |mut pieces| {
        pieces.next().await.transpose().map(|piece| (piece, pieces))
    });
    let whole = http::Request::from_parts(parts, Body::from_stream(Box::pin(pieces)));
    let handler = dav::handler(service);
    // Boxed: it is a large future, of a kind of request that is rare.
    let answered = Box::pin(handler.handle_guarded(whole, String::new(), request.clone())).await;
    Ok(match (answered.status(), request.refusal()) {
        (StatusCode::INTERNAL_SERVER_ERROR, Some(refusal)) => refused(refusal, answered.headers()),
        _ => answered.map(Body::new),
    })
}

/// The refusal of the file system, with what `dav-server` wants done with the connection.
fn refused(refusal: Error, said: &HeaderMap) -> Response {
    let mut response = refusal.into_response();
    for (name, value) in said.iter().filter(|(name, _)| **name != CONTENT_LENGTH) {
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_a_name_and_a_token() {
        let read = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("a header"))]);
            basic(&headers).map_err(|error| error.status().as_u16())
        };
        let pair = |name: &str, secret: &str| Ok(Some((name.to_owned(), secret.to_owned())));
        assert_eq!(read(&format!("Basic {}", STANDARD.encode("ann:a:b"))), pair("ann", "a:b"));
        assert_eq!(read(&format!("basic  {}", STANDARD.encode(":t"))), pair("", "t"));
        assert_eq!(read("Bearer abc"), Ok(None));
        assert_eq!(basic(&HeaderMap::new()).ok().flatten(), None);
        for value in ["Basic", "Basic ", "Basic !", &format!("Basic {}", STANDARD.encode("ann"))] {
            assert!(matches!(read(value), Err(400) | Ok(None)), "{value}");
        }
    }
}
