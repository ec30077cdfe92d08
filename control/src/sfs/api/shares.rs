//! `/storage/shares`: links to files and folders, for whoever has them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, REFERRER_POLICY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::content::{Asked, Manner, answer};
use super::entry::{self, Entry};
use super::media::Embedding;
use super::{Done, NEXT_CURSOR, Paging, actor, actor_of_all, done, place};
use crate::caller::Caller;
use crate::entropy::Secret;
use crate::error::Error;
use crate::extract::{Json, Path, Query};
use crate::moment::rfc3339;
use crate::password::Password;
use crate::request::Context;
use crate::sfs::model::{NamespaceName, NewShare};
use crate::sfs::service::{Open, ShareError, Shares};

/// Makes a browser ask for a password; any name does beside it.
const ASK_PASSWORD: HeaderValue = HeaderValue::from_static("Basic realm=\"share\", charset=\"UTF-8\"");

/// A link as its maker sees it.
#[derive(Debug, Serialize)]
pub(super) struct Share {
    id: i64,
    namespace: String,
    /// None: all of the namespace.
    path: Option<String>,
    has_password: bool,
    expires_at: Option<String>,
    downloads_left: Option<u32>,
    downloads: u64,
    created_at: String,
}

impl Share {
    fn of(share: &crate::sfs::model::Share, namespace: &NamespaceName) -> Result<Self, Error> {
        Ok(Self {
            id: share.number,
            namespace: namespace.to_string(),
            path: share.path.as_ref().map(ToString::to_string),
            has_password: share.password.is_some(),
            expires_at: share.expires_at.map(rfc3339).transpose()?,
            downloads_left: share.downloads_left,
            downloads: share.downloads,
            created_at: rfc3339(share.created_at)?,
        })
    }
}

/// A link that was just made, with its secret, which is not shown again.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    url: String,
    token: String,
    #[serde(flatten)]
    share: Share,
}

#[derive(Deserialize)]
pub(super) struct Wanted {
    namespace: String,
    /// None or empty: all of the namespace.
    path: Option<String>,
    password: Option<String>,
    /// Seconds.
    expires_in: Option<u64>,
    max_downloads: Option<u32>,
}

pub(super) async fn create(
    caller: Caller,
    State(shares): State<Shares>,
    context: Context,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Made>, Error> {
    let (namespace, path) = match wanted.path.filter(|path| !path.is_empty()) {
        Some(path) => place(&wanted.namespace, &path).map(|(namespace, path)| (namespace, Some(path)))?,
        None => (super::namespace(&wanted.namespace)?, None),
    };
    let actor = actor(&caller, "write", &namespace)?;
    let new = NewShare {
        namespace: namespace.clone(),
        path,
        password: wanted.password.map(Password::attempt),
        expires_in_seconds: wanted.expires_in,
        downloads: wanted.max_downloads,
    };
    let (share, secret) = shares.create(&actor, new).await?;
    let origin = context.origin.map(|origin| origin.to_string()).unwrap_or_default();
    let token = secret.expose().to_owned();
    let url = format!("{origin}/storage/shares/{token}");
    Ok(Json(Made { url, token, share: Share::of(&share, &namespace)? }))
}

pub(super) async fn list(
    caller: Caller,
    State(shares): State<Shares>,
    Query(paging): Query<Paging>,
) -> Result<Response, Error> {
    let (actor, limit) = (actor_of_all(&caller, "read")?, paging.limit()?);
    let after = paging.cursor.as_deref().map(|cursor| cursor.parse()).transpose();
    let after = after.map_err(|_| Error::bad_request("cursor: send what `X-Next-Cursor` said"))?;
    let found = shares.list(&actor, after.unwrap_or(0), limit).await?;
    let next = found.last().filter(|_| found.len() == limit as usize).map(|(share, _)| share.number);
    let shown = found.iter().map(|(share, namespace)| Share::of(share, namespace)).collect::<Result<Vec<_>, _>>()?;
    Ok((next.map(|next| [(NEXT_CURSOR, HeaderValue::from(next))]), Json(shown)).into_response())
}

pub(super) async fn revoke(
    caller: Caller,
    State(shares): State<Shares>,
    Path(number): Path<String>,
) -> Result<Json<Done>, Error> {
    let actor = actor_of_all(&caller, "delete")?;
    let number = number.parse().map_err(|_| Error::not_found("there is no such share"))?;
    shares.revoke(&actor, number).await?;
    Ok(done())
}

pub(super) async fn open(
    State(shares): State<Shares>,
    context: Context,
    Path(token): Path<String>,
    Query(paging): Query<Paging>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    give(&shares, &context, (&token, None), &paging, Asked::new(&method, &headers)).await
}

pub(super) async fn open_below(
    State(shares): State<Shares>,
    context: Context,
    Path((token, path)): Path<(String, String)>,
    Query(paging): Query<Paging>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    give(&shares, &context, (&token, Some(&path)), &paging, Asked::new(&method, &headers)).await
}

/// What a link leads to, for anybody: a file, or what is in a folder. The link stays where it is: no page that is opened
/// from there is told of it.
async fn give(
    shares: &Shares,
    context: &Context,
    (token, below): (&str, Option<&str>),
    paging: &Paging,
    asked: Asked<'_>,
) -> Response {
    let outcome = async {
        let password = password(asked.headers())?;
        let below = below.map(|below| below.trim_end_matches('/')).filter(|below| !below.is_empty());
        let open = shares.open(&Secret::of(token), password.as_ref(), context.client_ip.into()).await?;
        match shares.entry(&open, below).await? {
            Some(entry) if !entry.is_folder() => file(shares, &open, below, asked).await,
            _ => folder(shares, &open, below, paging).await,
        }
    };
    let mut response = outcome.await.unwrap_or_else(|error: Error| error.into_response());
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, ASK_PASSWORD);
    }
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

async fn file(shares: &Shares, open: &Open, below: Option<&str>, asked: Asked<'_>) -> Result<Response, Error> {
    let opened = shares.file(open, below).await?;
    let extent = asked.extent(&opened)?;
    if asked.is_get() && extent.is_beginning() {
        shares.count(open).await?;
    }
    answer(&opened, extent, Manner { is_saved: false, embedding: Embedding::SameOrigin }, None)
}

async fn folder(shares: &Shares, open: &Open, below: Option<&str>, paging: &Paging) -> Result<Response, Error> {
    let (most, after) = (paging.limit()?, entry::after(paging.cursor.as_deref())?);
    let after = after.map(|after| open.within(after.as_str())).transpose()?;
    let found = shares.list_in(open, below, after, most).await?;
    let last = found.last().filter(|_| found.len() == most as usize);
    let last = last.map(|last| open.below(&last.path).parse()).transpose().map_err(Error::internal)?;
    let shown = found.iter().map(|it| Entry::below(it, open.below(&it.path))).collect::<Result<Vec<_>, _>>()?;
    Ok((entry::cursor(last.as_ref())?, Json(shown)).into_response())
}

/// The password in `Authorization: Basic …`, whatever the name before it (RFC 7617).
fn password(headers: &HeaderMap) -> Result<Option<Password>, ShareError> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let (scheme, encoded) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("basic") {
        // A client that sends its own token everywhere.
        return Ok(None);
    }
    let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':')).ok_or(ShareError::Password)?;
    Ok(Some(Password::attempt(pair.1.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_what_follows_any_name() {
        let of = |value: &str| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
            password(&headers).map(|it| it.map(|it| String::from_utf8(it.as_bytes().to_vec()).unwrap()))
        };
        let basic = |text: &str| of(&format!("basic {}", STANDARD.encode(text))).unwrap().unwrap();
        assert_eq!(basic("ann:secret"), "secret");
        assert_eq!(basic(":a:b"), "a:b");
        assert_eq!(basic("x:ü"), "ü");
        assert!(of("Bearer abc").unwrap().is_none());
        assert!(password(&HeaderMap::new()).unwrap().is_none());
        for value in ["Basic !", "Basic", &format!("Basic {}", STANDARD.encode("no colon"))] {
            assert!(!matches!(of(value), Ok(Some(_))), "{value}");
        }
    }
}
